/*
 * An append-only log: the changes of one cache on one shard, all slots interleaved, in the order in
 * which they were accepted. See log.c for its life: active segment, history, compactable region.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "log/batch.h"
#include "log/change.h"
#include "log/segments.h"

/* Unused bytes at the end of a segment: a record may be copied in steps that go over its end. */
#define LOG_SLACK_BYTES 128

struct log_options {
    size_t history_bytes_max;     /* newest changes that are kept whether superseded or not */
    uint64_t history_records_max; /* likewise by number; 0: no limit of its own */
    uint64_t owner;               /* node identity, for the batch heads */
    uint64_t view;
};

struct log {
    struct segments *segments;
    /* Append position. `end` equals `at` while no batch is open, so that one check finds both. */
    uint8_t *at;
    uint8_t *end;
    uint32_t *index;      /* of the active segment */
    uint32_t *slot_heads; /* likewise */
    uint8_t *base;        /* likewise */
    struct batch *batch;  /* open, or NULL */
    uint32_t batch_count;
    uint32_t batch_size; /* see batch_size_of_all */
    uint32_t active_seq;
    uint32_t active_mark; /* index_mark(active_seq) */
    uint32_t active;      /* SEGMENT_NONE before the first append */
    uint32_t oldest;
    uint32_t history_first; /* oldest segment inside the history bound */
    uint64_t history_bytes; /* of sealed history segments */
    uint64_t history_records;
    uint64_t stream_next;
    uint64_t previous_checksum;
    uint64_t batches_count;
    uint64_t refused; /* records, because memory.max is reached, */
    uint64_t pressed; /* and segments that only removals could have */
    struct log_options options;
};

void log_init(struct log *log, struct segments *segments, const struct log_options *options);
/* Gives all segments back. */
void log_deinit(struct log *log);

/* As log_reserve, where the active segment has no room or no batch is open. */
MUST_CHECK struct change *log_reserve_slow(struct log *log, size_t padded_bytes, bool urgent);

/*
 * Room for a record of `padded_bytes` (a multiple of 8, at least 64), which log_commit makes part
 * of the log. NULL: memory.max is reached and nothing changed. `urgent` may use the reserve but for
 * the last units, which are compaction's.
 */
MUST_CHECK static inline struct change *log_reserve(struct log *log, size_t padded_bytes,
                                                    bool urgent)
{
    if (LIKELY((size_t)(log->end - log->at) >= padded_bytes)) return (struct change *)log->at;
    return log_reserve_slow(log, padded_bytes, urgent);
}

/* Appends what was written at the place that log_reserve returned; returns its address. */
static inline uint64_t log_commit(struct log *log, uint16_t slot, size_t padded_bytes)
{
    uint64_t address = address_of(log->segments, log->at);
    size_t place = (size_t)(log->at - log->base) >> 3;
    log->index[place >> (GRANULE_SHIFT - 3)] = log->slot_heads[slot];
    log->slot_heads[slot] = (uint32_t)place;
    log->at += padded_bytes;
    log->batch_count++;
    log->batch_size = batch_size_of_all(log->batch_size, padded_bytes);
    return address;
}

/* Seals the open batch, if any: its head is complete and its bytes never change again. */
void log_seal(struct log *log);

/* The numbers in index words wrap, so a history has fewer segments than half of them. */
#define LOG_HISTORY_SEGMENTS_MAX (INDEX_BY_MASK / 2 - 8)

/*
 * Whether the change that superseded a record with this index word has left the history. One that
 * was superseded a full wrap of the numbers ago may look young; it is then kept a while longer.
 */
static inline bool log_is_beyond_history(const struct log *log, uint32_t index)
{
    uint32_t by = index >> INDEX_BY_SHIFT;
    uint32_t first = log->segments->segments[log->history_first].seq;
    return ((by - first) & INDEX_BY_MASK) > INDEX_BY_MASK / 2;
}

/*
 * For compaction, where memory.max is reached and what is dead must stay for the sake of the
 * history. log_end_active goes on in a new segment, so that the one that was active can leave the
 * history too; false: there is no memory. log_yield_history shrinks the history to the active one.
 */
MUST_CHECK bool log_end_active(struct log *log);
void log_yield_history(struct log *log);

/*
 * Walks the changes of one slot from the newest to the oldest retained one: their places fall.
 */
struct slot_walk {
    const struct log *log;
    uint32_t segment;
    uint32_t begins; /* where in it the next one does, in units of 8 bytes; 0: none is left */
    uint16_t slot;
};

void slot_walk_begin(struct slot_walk *walk, const struct log *log, uint16_t slot);
/* The next older change, or NULL. */
const struct change *slot_walk_next(struct slot_walk *walk);

/*
 * Takes the newest change of `slot` out of its chain; it must be what a fresh walk finds first.
 * Its bytes stay until compaction passes. Returns its address.
 */
uint64_t log_unlink_newest(struct log *log, uint16_t slot);

/* Bytes of memory of all segments of the log. */
uint64_t log_bytes(const struct log *log);
/* Bytes of the changes that nothing superseded, with their batch heads. No batch may be open. */
uint64_t log_live_bytes(const struct log *log);

/* Puts the filled segment `number` in front of (older than) `before`; for compaction. */
void log_link_before(struct log *log, uint32_t number, uint32_t before);
/* Takes a compactable segment out of the log; the caller puts it back to the pool. */
void log_unlink(struct log *log, uint32_t number);

/* Aborts where a stated invariant does not hold. O(segments). */
void log_check(const struct log *log);
