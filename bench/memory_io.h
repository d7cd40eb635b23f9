/*
 * struct io without a kernel: at most one connection, whose input is a buffer of the bench's and
 * whose output is counted and thrown away. For measuring what a shard itself costs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/io.h"

struct memory_io {
    struct io io;
    uint8_t *input;     /* IO_HEADROOM_BYTES writable in front of it */
    size_t input_bytes; /* 0: nothing to receive now */
    void *context;
    bool accepted; /* IO_ACCEPTED was delivered, or never will be */
    bool receiving;
    bool sent; /* IO_SENT is due */
    bool closed;
    uint64_t output_bytes;
    uint8_t *output; /* the last send */
    size_t output_last;
};

/* With a caller, the first io_wait accepts it. */
void memory_io_init(struct memory_io *memory, bool has_caller);
/* The next io_wait delivers these bytes. */
void memory_io_feed(struct memory_io *memory, uint8_t *input, size_t bytes);
