/*
 * A group of receive buffers that the kernel picks from ("provided buffers"), in one piece of
 * memory behind the ring that names them:
 *
 *   | ring entries | headroom, buffer 0 | headroom, buffer 1 | ...
 *
 * A buffer's life: provided (the kernel's) -> a completion names it -> its bytes are the owner's
 * until the next io_wait -> put back -> published. Putting back only writes the ring's entry; one
 * store of the tail publishes all of them at the start of the next io_wait. That is why a buffer may
 * be put back at the moment its bytes are delivered.
 *
 * The ring is first in, first out, so every buffer is cycled through: few large buffers stay in the
 * cache, many do not. Running out is the valve that keeps one flooding peer from filling the turn.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "net/uring_compat.h"

#define BUFFERS_COUNT_MAX 32768

struct buffers {
    struct io_uring_buf_ring *ring; /* NULL: not open */
    uint8_t *first;                 /* data of buffer 0 */
    size_t stride;
    uint32_t count;
    uint32_t data_bytes; /* of each, without headroom */
    uint16_t group;
    uint16_t tail;   /* ours: the next entry to write */
    uint16_t *order; /* the entry in which a buffer was provided last; for bundles */
    size_t memory_bytes;
};

struct buffers_options {
    uint32_t count;
    uint32_t data_bytes;
    uint32_t headroom_bytes;
    uint16_t group;
};

/* Registers a group with the ring. -EINVAL: the kernel has no provided-buffer rings. */
MUST_CHECK int buffers_open(struct buffers *buffers, const struct buffers_options *options,
                            struct io_uring *uring);
/* The ring must be gone already, or no receive in flight. */
void buffers_close(struct buffers *buffers);

static inline uint8_t *buffers_data(const struct buffers *buffers, uint16_t buffer)
{
    return buffers->first + buffer * buffers->stride;
}

/* The buffer that was provided right after `buffer`: where a bundle goes on. */
uint16_t buffers_next(const struct buffers *buffers, uint16_t buffer);

/* Gives one back; the kernel sees it after buffers_publish. */
void buffers_put(struct buffers *buffers, uint16_t buffer);

static inline void buffers_publish(struct buffers *buffers)
{
    if (buffers->ring != NULL && buffers->ring->tail != buffers->tail)
        io_uring_smp_store_release(&buffers->ring->tail, buffers->tail);
}
