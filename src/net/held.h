/*
 * Bytes that a paused connection had received already, or that its owner put back. They wait here
 * and are delivered again, in order and with headroom in front, before anything new.
 *
 * A piece is delivered where it lies, so memory that a piece may point into is never freed at once:
 * it goes on a list of blocks that the io frees when the owner gave the piece back.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

struct held_block {
    struct held_block *next;
    size_t capacity;
    _Alignas(CACHE_LINE) uint8_t data[];
};

/* What the blocks of all connections of an io have in common. */
struct held_blocks {
    struct held_block *retired; /* may be pointed into until the next io_wait */
    uint64_t *bytes; /* memory of all blocks, these included: a counter that is not ours */
};

/* block->data[start .. end) waits; what lies before `start` is headroom. */
struct held {
    struct held_block *block;
    size_t start;
    size_t end;
};

static inline size_t held_bytes(const struct held *held)
{
    return held->end - held->start;
}

/*
 * Copies `bytes` behind or in front of what waits. To put the tail of the last piece back costs
 * nothing. Blocks that were outgrown are retired. Returns 0 or -ENOMEM, and then nothing changed.
 */
MUST_CHECK int held_append(struct held *held, const void *data, size_t bytes,
                           struct held_blocks *blocks);
MUST_CHECK int held_put_back(struct held *held, const void *data, size_t bytes,
                             struct held_blocks *blocks);
/*
 * Takes up to `bytes_max` from the front: returns how many and where. There is headroom before
 * them, and they stay valid until their block is freed. Something must be waiting. Returns -ENOMEM
 * where the headroom could not be made.
 */
MUST_CHECK int64_t held_take(struct held *held, size_t bytes_max, uint8_t **data,
                             struct held_blocks *blocks);
/* Drops everything. The block of an empty `held` stays until then, for held_put_back. */
void held_clear(struct held *held, struct held_blocks *blocks);
/* Frees those that are retired. */
void held_blocks_free(struct held_blocks *blocks);
