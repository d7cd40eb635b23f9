/*
 * The limit's server: receives, checks, does the memory work, replies.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "bench/limit.h"
#include "bench/limit_store.h"
#include "bench/limit_wiring.h"

struct limit_server {
    const struct limit_options *options;
    const struct limit_wiring *wiring;
    struct limit_store store;
    struct limit_spill *spills; /* one a connection */
    uint8_t *in;
    uint8_t *out;
    uint8_t *answer; /* the value of replies, unless they echo */
    size_t out_bytes_max;
    size_t reply_bytes_max; /* a whole reply frame */
    size_t reply_value;     /* LIMIT_REPLY_ECHO, or its bytes */
    size_t frame_bytes_max;
    bool spins;
    uint64_t handled;
    uint64_t receives; /* measured ones */
    uint64_t cpu_start_ns;
    uint64_t cpu_end_ns;
    int err;
};

/* Deinit after a failed init too. */
MUST_CHECK int limit_server_init(struct limit_server *server, const struct limit_options *options,
                                 const struct limit_wiring *wiring);
void limit_server_deinit(struct limit_server *server);
/* The thread's function; `context` is the server. */
void *limit_server_thread(void *context);
