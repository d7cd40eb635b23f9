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
 * The ring is first in, first out, so every buffer in it is cycled through: few buffers stay in the
 * cache, many do not. So only some are in use and the others spared, last in, first out. When a
 * peer found none that has none itself, twice as many are; after a calm time, half as many. One that
 * sends much may well run out: that is the valve that keeps a flooding peer from filling the turn.
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
    uint16_t *spare; /* a stack */
    uint32_t spare_count;
    uint32_t wanted; /* so many shall not be spare */
    uint32_t calm;   /* times published since there were too few */
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

/* Gives one back; the kernel may see it after buffers_publish. */
void buffers_put(struct buffers *buffers, uint16_t buffer);

/* The kernel found none for a peer that has none: more shall be in use. */
void buffers_need_more(struct buffers *buffers);

/* What was given back becomes the kernel's. */
void buffers_publish(struct buffers *buffers);
