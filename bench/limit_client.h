/*
 * The limit's client: sends batches while the window has room, checks every reply.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "bench/limit.h"
#include "bench/limit_wiring.h"

struct limit_client_link {
    int fd;
    uint8_t *frames;    /* a batch, built once; key and seq are patched */
    size_t unsent_from; /* bytes of the batch that the kernel has not taken yet */
    size_t unsent_to;
    uint64_t left; /* requests not yet made */
    uint32_t in_flight;
    uint32_t seq; /* of the last request */
    uint32_t seq_replied;
    bool blocked; /* the kernel's buffer was full */
    struct limit_spill spill;
};

struct limit_client {
    const struct limit_options *options;
    const struct limit_wiring *wiring;
    struct limit_client_link *links;
    uint8_t *in;
    uint8_t *memory; /* of frames and spills */
    size_t memory_bytes;
    size_t frame_bytes;
    size_t reply_bytes; /* of a whole reply frame */
    uint32_t window;    /* requests in flight on a connection */
    uint32_t batch;     /* requests in a send */
    bool spins;
    uint64_t random;
    uint64_t received;
    uint64_t start_ns;
    uint64_t end_ns;
    uint64_t cpu_start_ns;
    uint64_t cpu_end_ns;
    int err;
};

/* Deinit after a failed init too. */
MUST_CHECK int limit_client_init(struct limit_client *client, const struct limit_options *options,
                                 const struct limit_wiring *wiring);
void limit_client_deinit(struct limit_client *client);
/* The thread's function; `context` is the client. */
void *limit_client_thread(void *context);
