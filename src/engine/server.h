/*
 * A node's runtime: options, shards and their threads, the listener, the caches. Called by the
 * public API (engine/api.c); everything here belongs to the thread that started it.
 */
#pragma once

#include "base/attr.h"
#include "base/clock.h"
#include "engine/host.h"
#include "engine/runtime.h"
#include "fero.h"
#include "shard/cache.h"

/* How long stopping may take, unless the caller says so. */
#define SERVER_DRAIN_NS NS_PER_S

struct server;

/* One cache as the public API hands it out. It lives as long as `hosts` does. */
struct server_cache {
    struct runtime_head head; /* tells it from a client's cache */
    struct hosts *hosts;
    struct server *server;
    struct cache_definition definition;
};

/* As fero_start, fero_stop, fero_open, fero_info and fero_address describe them. */
MUST_CHECK int server_start(const fero_runtime_opts *opts, struct server **out);
int server_stop(struct server *server, uint64_t drain_ns);
MUST_CHECK int server_open(struct server *server, const char *name, const fero_opts *opts,
                           fero_cache **out);
int64_t server_info(struct server *server, char *buffer, size_t bytes);
int64_t server_errors(struct server *server, char *buffer, size_t bytes);
const char *server_address(const struct server *server);
/* Its threads' side. */
struct hosts *server_hosts(struct server *server);
