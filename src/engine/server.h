/*
 * A node's runtime: options, shards and their threads, the listener, the caches. Called by the
 * public API (engine/api.c); everything here belongs to the thread that started it.
 */
#pragma once

#include "base/attr.h"
#include "base/clock.h"
#include "fero.h"

/* How long stopping may take, unless the caller says so. */
#define SERVER_DRAIN_NS NS_PER_S

struct server;

/* As fero_start, fero_stop, fero_open, fero_info and fero_address describe them. */
MUST_CHECK int server_start(const fero_runtime_opts *opts, struct server **out);
int server_stop(struct server *server, uint64_t drain_ns);
MUST_CHECK int server_open(struct server *server, const char *name, const fero_opts *opts,
                           fero_cache **out);
int64_t server_info(struct server *server, char *buffer, size_t bytes);
const char *server_address(const struct server *server);
