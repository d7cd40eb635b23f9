#include "log/segments.h"

#include <errno.h>

#include "base/ck.h"
#include "base/memory.h"
#include "log/batch.h"

#define INDEX_UNIT_BYTES (GRANULES_PER_UNIT * sizeof(uint32_t))
#define HEADS_UNIT_BYTES (SEGMENT_SLOTS * sizeof(uint32_t))
#define UNIT_BYTES_WITH_INDEX (SEGMENT_UNIT_BYTES + INDEX_UNIT_BYTES + HEADS_UNIT_BYTES)
/* Fewer than this and a log could not even compact itself. */
#define UNITS_MIN 9
/*
 * What removals may take when nothing else can be appended: a part of all, but not less than a few
 * units. A removal makes at least as much garbage as it takes, so when all that is used up, so large
 * a part of the log is garbage, which is worth a sweep.
 */
#define REMOVAL_PART 32
#define REMOVAL_UNITS_MIN 3

int segments_init(struct segments *segments, size_t bytes_max)
{
    size_t units = bytes_max / UNIT_BYTES_WITH_INDEX;
    if (units < UNITS_MIN) units = UNITS_MIN;
    ASSERT(units < SEGMENT_NONE);
    uint64_t reserve = max_u64(units / REMOVAL_PART, REMOVAL_UNITS_MIN) + SEGMENT_COMPACTION_UNITS;
    *segments = (struct segments){.units_max = (uint32_t)units,
                                  .free_first = SEGMENT_NONE,
                                  .units_reserve = (uint32_t)reserve};
    segments->base = memory_reserve(units * SEGMENT_UNIT_BYTES, 1);
    segments->index = memory_reserve(units * INDEX_UNIT_BYTES, 1);
    segments->slot_heads = memory_reserve(units * HEADS_UNIT_BYTES, 0);
    segments->segments = memory_reserve(units * sizeof(struct segment), 0);
    segments->generations = memory_reserve(units * sizeof(uint32_t), 0);
    if (segments->base != NULL && segments->index != NULL && segments->slot_heads != NULL &&
        segments->segments != NULL && segments->generations != NULL)
        return 0;
    segments_deinit(segments);
    return -ENOMEM;
}

void segments_deinit(struct segments *segments)
{
    size_t units = segments->units_max;
    memory_release(segments->base, units * SEGMENT_UNIT_BYTES);
    memory_release(segments->index, units * INDEX_UNIT_BYTES);
    memory_release(segments->slot_heads, units * HEADS_UNIT_BYTES);
    memory_release(segments->segments, units * sizeof(struct segment));
    memory_release(segments->generations, units * sizeof(uint32_t));
    *segments = (struct segments){0};
}

size_t segments_bytes(const struct segments *segments)
{
    return segments->units_used * UNIT_BYTES_WITH_INDEX;
}

static uint32_t take_recycled(struct segments *segments)
{
    uint32_t number = segments->free_first;
    if (number != SEGMENT_NONE) segments->free_first = segments->segments[number].next;
    return number;
}

/* Fresh units are contiguous, which is where segments of several units come from. */
static uint32_t take_fresh(struct segments *segments, uint32_t units)
{
    if (segments->units_max - segments->units_fresh < units) return SEGMENT_NONE;
    uint32_t number = segments->units_fresh;
    segments->units_fresh += units;
    return number;
}

/* Looks for `units` free neighbours among the recycled ones; rare and slow. */
static uint32_t take_neighbours(struct segments *segments, uint32_t units)
{
    uint32_t run = 0;
    for (uint32_t number = 0; number < segments->units_fresh; number++) {
        struct segment *segment = &segments->segments[number];
        if (segment->units > 0) {
            number += segment->units - 1;
            run = 0;
            continue;
        }
        if (++run < units) continue;
        uint32_t first = number + 1 - units;
        for (uint32_t *link = &segments->free_first; *link != SEGMENT_NONE;) {
            uint32_t free_unit = *link;
            bool taken = free_unit >= first && free_unit < first + units;
            if (taken)
                *link = segments->segments[free_unit].next;
            else
                link = &segments->segments[free_unit].next;
        }
        return first;
    }
    return SEGMENT_NONE;
}

uint32_t segments_take(struct segments *segments, size_t record_bytes, uint32_t reserve)
{
    size_t bytes = record_bytes + BATCH_BYTES;
    uint32_t units = (uint32_t)((bytes + SEGMENT_UNIT_BYTES - 1) >> SEGMENT_UNIT_SHIFT);
    if (segments->units_used + units + reserve > segments->units_max) return SEGMENT_NONE;
    uint32_t number = units == 1 ? take_recycled(segments) : SEGMENT_NONE;
    if (number == SEGMENT_NONE) number = take_fresh(segments, units);
    if (number == SEGMENT_NONE && units > 1) number = take_neighbours(segments, units);
    if (number == SEGMENT_NONE) return SEGMENT_NONE;
    segments->units_used += units;
    segments->segments[number] =
        (struct segment){.units = units, .next = SEGMENT_NONE, .previous = SEGMENT_NONE};
    memset(segments->slot_heads + (size_t)number * SEGMENT_SLOTS, 0, HEADS_UNIT_BYTES);
    return number;
}

void segments_put(struct segments *segments, uint32_t number)
{
    struct segment *segment = &segments->segments[number];
    uint32_t units = segment->units;
    ASSERT(units > 0);
    ASSERT(segment->lenders == 0);
    uint32_t *generation = &segments->generations[number];
    exchange_full_u32(generation, *generation + 1); /* before any of its bytes changes */
    /* A large record's units would stay warm for a log that may never need them again. */
    if (units > 1)
        memory_discard(segments->base + ((size_t)number << SEGMENT_UNIT_SHIFT),
                       units * SEGMENT_UNIT_BYTES);
    segments->units_used -= units;
    for (uint32_t unit = number; unit < number + units; unit++) {
        segments->segments[unit] = (struct segment){.next = segments->free_first};
        segments->free_first = unit;
    }
}
