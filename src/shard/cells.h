/*
 * The memory of trees (shard/tree.h): cells of one cache line. They come in units of the shard's
 * segments, so that they count against memory.max as the logs do, and a unit goes back there when
 * none of its cells is in use any more.
 *
 * A cell is named by its number, which is its address in units of its size. 0 is none: the first
 * cell of each unit is the unit's own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "log/segments.h"

#define CELL_SHIFT 6
#define CELL_BYTES ((size_t)1 << CELL_SHIFT)
_Static_assert(CELL_BYTES == CACHE_LINE, "a cell is one cache line");
/* The top bit of a number is free for whoever keeps one. */
#define CELL_NUMBER_MAX ((uint32_t)1 << 31)

struct cells {
    struct segments *segments;
    uint32_t unit_first; /* one with free cells, as its number + 1; 0: none */
    uint64_t free_count; /* in all units */
    uint64_t used_count;
    uint64_t promised_count; /* of the free ones, to whoever has reserved last */
};

void cells_init(struct cells *cells, struct segments *segments);
/* All must have been put back. */
void cells_deinit(struct cells *cells);

/*
 * Makes sure that the next `count` calls of cells_take find one. False: memory.max is reached.
 * `urgent` as in log_reserve.
 */
MUST_CHECK bool cells_reserve(struct cells *cells, uint64_t count, bool urgent);
/* What is left of them is not needed. */
void cells_unreserve(struct cells *cells);
/* A cell of zeros, one of those that were reserved. */
uint32_t cells_take(struct cells *cells);
/* Whether there are free ones beside those, and one of them. */
static inline bool cells_have_spare(const struct cells *cells)
{
    return cells->free_count > cells->promised_count;
}
uint32_t cells_take_spare(struct cells *cells);
void cells_put(struct cells *cells, uint32_t number);

static inline void *cell_at(const struct cells *cells, uint32_t number)
{
    return cells->segments->base + ((size_t)number << CELL_SHIFT);
}
