/*
 * A node's runtime: options, shards and their threads, the listener, the caches. Called by the
 * public API (engine/api.c); everything here belongs to the thread that started it.
 */
#pragma once

#include "base/attr.h"
#include "fero.h"

struct server;

/* As fero_start, fero_stop, fero_open, fero_info and fero_address describe them. */
MUST_CHECK int server_start(const fero_runtime_opts *opts, struct server **out);
int server_stop(struct server *server, int64_t drain_ms);
MUST_CHECK int server_open(struct server *server, const char *name, const fero_opts *opts,
                           fero_cache **out);
int64_t server_info(struct server *server, char *buffer, size_t bytes);
const char *server_address(const struct server *server);
