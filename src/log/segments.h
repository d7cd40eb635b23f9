/*
 * The memory of logs: one reservation of address space per shard, cut into units of 2 MiB (a huge
 * page). A segment is one unit, or several for a record that is larger. Units are faulted in when
 * they are first written and recycled warm.
 *
 * An address is the distance of a record from the start of the reservation. It is what tables
 * remember, and stays valid until the record is moved or its segment freed.
 *
 * Beside every unit lies its index, one word of 4 bytes for every 64 bytes of the unit, in which at
 * most one record begins:
 *
 *   bit 31      superseded: a newer change of the same key exists, or this one was truncated
 *   bits 18-30  sequence number (low 13 bits) of the segment where the newer change was appended
 *   bits 0-17   where the previous change of the same slot begins in this segment, in units of 8
 *               bytes; 0: there is none; the record's own place: it is in no slot's chain any more,
 *               because it was truncated or compaction has passed it
 *
 * and the head of each slot's chain through the segment (4 bytes a slot, the same unit). So a slot's
 * changes are read without touching any other's, at 4 bytes for 64 of log, and compaction learns
 * from the index alone what may be dropped.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/attr.h"
#include "base/bytes.h"
#include "log/change.h"

#define SEGMENT_UNIT_SHIFT 21
#define SEGMENT_UNIT_BYTES ((size_t)1 << SEGMENT_UNIT_SHIFT)
#define GRANULE_SHIFT 6
#define GRANULES_PER_UNIT (SEGMENT_UNIT_BYTES >> GRANULE_SHIFT)
#define SEGMENT_SLOTS 4096
#define SEGMENT_NONE UINT32_MAX
/*
 * The very last units are compaction's, without which nothing could be won back: one to end the
 * active segment early, one to write to.
 */
#define SEGMENT_COMPACTION_UNITS 2

#define INDEX_SUPERSEDED ((uint32_t)1 << 31)
#define INDEX_BY_SHIFT 18
#define INDEX_BY_MASK 0x1fffu
#define INDEX_LINK (((uint32_t)1 << INDEX_BY_SHIFT) - 1)
_Static_assert(SEGMENT_UNIT_BYTES / 8 - 1 <= INDEX_LINK, "a link reaches all of a unit");

struct segment {
    uint32_t units;      /* 0: free */
    uint32_t bytes;      /* used, batch heads included */
    uint32_t dead_bytes; /* of superseded records */
    uint32_t seq;        /* grows with every segment taken by its log */
    uint32_t next;       /* towards newer ones; also links the free list */
    uint32_t previous;
    uint32_t lenders; /* sends and cursors that still read it */
    bool compactable; /* older than the history bound */
    bool rewritten;   /* by compaction: there are gaps */
    uint64_t stream_first;
    uint64_t changes_count;
    /* For compaction. Numbers of segments are those of the log's active one at that time. */
    uint32_t first_dead_seq; /* when dead bytes were first seen here; 0: not yet */
    uint32_t counted_seq;    /* when they were last counted, */
    uint32_t counted_bytes;  /* and how many there were */
    uint32_t ripe_bytes;     /* whose superseding changes have left the history: they can go */
};
_Static_assert(sizeof(struct segment) == CACHE_LINE, "the address of one is a shift away");

struct segments {
    uint8_t *base;
    uint32_t *index;          /* GRANULES_PER_UNIT words a unit */
    uint32_t *slot_heads;     /* SEGMENT_SLOTS a unit */
    struct segment *segments; /* by first unit */
    uint32_t *generations;    /* by first unit; other threads read it */
    uint32_t units_max;       /* that memory.max allows this shard */
    uint32_t units_used;
    uint32_t units_fresh;   /* from here on no unit was ever used */
    uint32_t free_first;    /* recycled single units */
    uint32_t units_reserve; /* the last units, for removals and compaction */
};

/* Reserves for at most `bytes_max` of log memory, index included. 0 or -ENOMEM. */
MUST_CHECK int segments_init(struct segments *segments, size_t bytes_max);
void segments_deinit(struct segments *segments);

/*
 * Takes a segment with room for a record of `record_bytes` and a batch head, and leaves `reserve`
 * units to others. Returns its number, or SEGMENT_NONE where memory.max is reached.
 */
uint32_t segments_take(struct segments *segments, size_t record_bytes, uint32_t reserve);
/*
 * Nothing leads to its records any more, and their bytes may change from now on. A thread that read
 * one without asking sees that by the generation of the record's unit, which has grown before.
 */
void segments_put(struct segments *segments, uint32_t number);

/* Bytes of memory in use, index included. */
size_t segments_bytes(const struct segments *segments);

/* Whether no more than the reserve is left: only removals are appended. */
static inline bool segments_are_full(const struct segments *segments)
{
    return segments->units_used + segments->units_reserve >= segments->units_max;
}

static inline struct segment *segment_of(const struct segments *segments, uint64_t address)
{
    return &segments->segments[address >> SEGMENT_UNIT_SHIFT];
}

static inline struct change *change_at(const struct segments *segments, uint64_t address)
{
    return (struct change *)(segments->base + address);
}

static inline uint64_t address_of(const struct segments *segments, const void *record)
{
    return (uint64_t)((const uint8_t *)record - segments->base);
}

/* The index word of the record at `address`, which begins in the first unit of its segment. */
static inline uint32_t *index_word(const struct segments *segments, uint64_t address)
{
    return &segments->index[address >> GRANULE_SHIFT];
}

static inline bool index_is_superseded(uint32_t word)
{
    return (word & INDEX_SUPERSEDED) != 0;
}

/* Where the record at `address` begins in its segment, in units of 8 bytes: as links say it. */
static inline uint32_t index_place(uint64_t address)
{
    return (uint32_t)(address & (SEGMENT_UNIT_BYTES - 1)) >> 3;
}

/* The mark of a record that a change in segment `seq` supersedes. */
static inline uint32_t index_mark(uint32_t seq)
{
    return INDEX_SUPERSEDED | (seq & INDEX_BY_MASK) << INDEX_BY_SHIFT;
}

/* Whether the record at `address`, with this index word, is in no slot's chain any more. */
static inline bool index_is_unlinked(uint64_t address, uint32_t word)
{
    return (word & INDEX_LINK) == index_place(address);
}

static inline void index_unlink(uint32_t *word, uint64_t address)
{
    *word = (*word & ~INDEX_LINK) | index_place(address);
}

/* Marks the record at `address` as superseded; `mark` is index_mark of the newer change's segment. */
static inline void index_supersede(const struct segments *segments, uint64_t address,
                                   size_t padded_bytes, uint32_t mark)
{
    uint32_t *word = index_word(segments, address);
    DEBUG_ASSERT(!index_is_superseded(*word));
    *word = (*word & INDEX_LINK) | mark;
    segment_of(segments, address)->dead_bytes += (uint32_t)padded_bytes;
}

/* Takes index_supersede back. */
static inline void index_revive(const struct segments *segments, uint64_t address,
                                size_t padded_bytes)
{
    uint32_t *word = index_word(segments, address);
    ASSERT(index_is_superseded(*word));
    *word &= INDEX_LINK;
    segment_of(segments, address)->dead_bytes -= (uint32_t)padded_bytes;
}
