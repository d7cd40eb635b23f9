/*
 * The head of a run of changes: 64 bytes in front of what one turn appended to one segment. It is
 * the unit of a send to another node and of a write to disk, and has the only checksum.
 *
 *   0        4    5     6       8       12       16             24             32
 *   +--------+----+-----+-------+--------+--------+--------------+--------------+
 *   | length |type|flags|version| count  |   0    | stream_first |     view     |
 *   +--------+----+-----+-------+--------+--------+--------------+--------------+
 *   |        owner              |     previous    |   checksum   |      0       |
 *   +---------------------------+-----------------+--------------+--------------+
 */
#pragma once

#include <stdint.h>

#include "wire/frame.h"

#define BATCH_VERSION 1
/* The changes are survivors of a compaction: their places have gaps. */
#define BATCH_COMPACTED 0x01u
/* All changes have the same padded size, so that a reader finds each without reading the others. */
#define BATCH_ALIKE 0x02u

struct batch {
    uint32_t length; /* this head and the changes with their padding */
    uint8_t type;    /* FRAME_BATCH */
    uint8_t flags;
    uint16_t version;
    uint32_t count; /* changes */
    uint32_t reserved;
    uint64_t stream_first; /* number of the first change in the owner shard's stream, from 1 */
    uint64_t view;         /* in which its owner owned the slots */
    uint64_t owner;        /* node identity */
    uint64_t previous;     /* checksum of the batch before it in the stream; 0: the first */
    uint64_t checksum;     /* over the whole batch, this field taken as 0: see batch.c */
    uint64_t reserved2;
};
_Static_assert(sizeof(struct batch) == 64, "the batch is on the wire and on disk");

#define BATCH_BYTES sizeof(struct batch)

/* `size` after one more change of `padded_bytes`, see batch_alike_flag; 0 before the first. */
static inline uint32_t batch_size_of_all(uint32_t size, size_t padded_bytes)
{
    return size == 0 || size == padded_bytes ? (uint32_t)padded_bytes : UINT32_MAX;
}

/* The flag of a batch, the padded size of all of whose changes is `size` (UINT32_MAX: differs). */
static inline uint8_t batch_alike_flag(uint32_t size)
{
    return size != UINT32_MAX ? BATCH_ALIKE : 0;
}

/* Padded bytes of every change of the batch, or 0 where they differ. */
static inline uint32_t batch_change_bytes(const struct batch *batch)
{
    if ((batch->flags & BATCH_ALIKE) == 0) return 0;
    return (batch->length - (uint32_t)BATCH_BYTES) / batch->count;
}

/* XXH3 over head and changes, the checksum field taken as 0. */
uint64_t batch_checksum(const struct batch *batch);
/* Whether `size` bytes at `batch` hold one whole, unbroken batch whose changes add up. */
bool batch_is_valid(const struct batch *batch, size_t size);
