/*
 * The life of a log
 *
 *   oldest ... | compactable | history_first ... sealed ... active |
 *
 * Changes are appended to the active segment, one batch a turn. A full segment is history: whatever
 * it holds stays, superseded or not, so that a slot can be read from any place in it and truncated
 * to any place in it. When the history grows over its bound, its oldest segment becomes
 * compactable: from then on a record in it may be forgotten once the change that superseded it has
 * left the history too. The newest change of a key is never forgotten, nor is the one that was
 * newest when the history began: truncating the history brings it back.
 *
 * Compaction (shard/compact.c) rewrites compactable segments in order into new ones, so the log as
 * a whole stays in the order of its stream, with gaps.
 *
 * Rejected: one index array per slot (an append then touches two lines of 4096 scattered arrays,
 * and gaps must be squeezed out of them); a sorted directory per segment (a pause when it is
 * built); updating values in place beside the log (taking back a truncated change then needs the
 * old value logged again, and every value is stored twice). docs/adr/0003 has the figures.
 */
#include "log/log.h"

#include <stddef.h>

#include "base/assert.h"
#include "base/buggify.h"

void log_init(struct log *log, struct segments *segments, const struct log_options *options)
{
    *log = (struct log){.segments = segments,
                        .active = SEGMENT_NONE,
                        .oldest = SEGMENT_NONE,
                        .history_first = SEGMENT_NONE,
                        .stream_next = 1,
                        .options = *options};
}

static struct segment *segment_at(const struct log *log, uint32_t number)
{
    return &log->segments->segments[number];
}

void log_deinit(struct log *log)
{
    uint32_t number = log->oldest;
    while (number != SEGMENT_NONE) {
        uint32_t next = segment_at(log, number)->next;
        segments_put(log->segments, number);
        number = next;
    }
    *log = (struct log){.active = SEGMENT_NONE, .oldest = SEGMENT_NONE};
}

/* For a record of `padded_bytes` and those behind it that also begin in the first unit. */
static void batch_open(struct log *log, size_t padded_bytes)
{
    uint8_t *unit_end = log->base + SEGMENT_UNIT_BYTES - LOG_SLACK_BYTES;
    log->batch = (struct batch *)log->at;
    log->at += BATCH_BYTES;
    log->end = log->at + padded_bytes;
    if (log->end < unit_end) log->end = unit_end;
    log->batch_count = 0;
    log->batch_size = 0;
}

void log_seal(struct log *log)
{
    struct batch *batch = log->batch;
    if (batch == NULL) return;
    struct segment *segment = segment_at(log, log->active);
    ASSERT(log->batch_count > 0);
    *batch = (struct batch){.length = (uint32_t)(log->at - (uint8_t *)batch),
                            .type = FRAME_BATCH,
                            .flags = batch_alike_flag(log->batch_size),
                            .version = BATCH_VERSION,
                            .count = log->batch_count,
                            .stream_first = log->stream_next,
                            .view = log->options.view,
                            .owner = log->options.owner,
                            .previous = log->previous_checksum};
    batch->checksum = batch_checksum(batch);
    log->previous_checksum = batch->checksum;
    log->stream_next += log->batch_count;
    log->batches_count++;
    segment->bytes += batch->length;
    segment->changes_count += log->batch_count;
    log->batch = NULL;
    log->end = log->at;
}

static void history_pop(struct log *log)
{
    struct segment *segment = segment_at(log, log->history_first);
    segment->compactable = true;
    log->history_bytes -= segment->bytes;
    log->history_records -= segment->changes_count;
    log->history_first = segment->next;
}

/* Moves segments out of the history until it is inside its bounds again. */
static void history_trim(struct log *log)
{
    while (log->history_first != log->active) {
        struct segment *segment = segment_at(log, log->history_first);
        bool is_too_old = log->active_seq - segment->seq >= LOG_HISTORY_SEGMENTS_MAX;
        bool bytes_kept = log->history_bytes - segment->bytes < log->options.history_bytes_max;
        if (PLANTED("history_too_short")) bytes_kept = false;
        uint64_t records_max = log->options.history_records_max;
        bool records_kept =
            records_max == 0 || log->history_records - segment->changes_count < records_max;
        if (bytes_kept && records_kept && !is_too_old) return;
        history_pop(log);
    }
}

static int segment_start(struct log *log, size_t padded_bytes, uint32_t reserve)
{
    uint32_t number = segments_take(log->segments, padded_bytes + LOG_SLACK_BYTES, reserve);
    if (number == SEGMENT_NONE) return -1;
    struct segment *segment = segment_at(log, number);
    segment->seq = ++log->active_seq;
    log->active_mark = index_mark(log->active_seq);
    segment->stream_first = log->stream_next;
    segment->previous = log->active;
    if (log->active != SEGMENT_NONE) {
        struct segment *full = segment_at(log, log->active);
        full->next = number;
        log->history_bytes += full->bytes;
        log->history_records += full->changes_count;
    } else {
        log->oldest = number;
        log->history_first = number;
    }
    log->active = number;
    log->base = log->segments->base + ((size_t)number << SEGMENT_UNIT_SHIFT);
    log->at = log->base;
    log->index = log->segments->index + (size_t)number * GRANULES_PER_UNIT;
    log->slot_heads = log->segments->slot_heads + (size_t)number * SEGMENT_SLOTS;
    history_trim(log);
    return 0;
}

/* Whether a batch head and the record fit behind what the active segment holds. */
static bool fits_active(const struct log *log, size_t padded_bytes)
{
    if (log->active == SEGMENT_NONE) return false;
    const struct segment *segment = segment_at(log, log->active);
    uint8_t *base = log->segments->base + ((size_t)log->active << SEGMENT_UNIT_SHIFT);
    size_t used = (size_t)(log->at - base);
    /* As long as there is plenty of them, segments may be short. */
    bool has_plenty = log->segments->units_used < log->segments->units_max / 3;
    if (BUGGIFY("segment_ends") && has_plenty) return false;
    /* A record must begin in the first unit: the index has no words for the others. */
    if (used + BATCH_BYTES >= SEGMENT_UNIT_BYTES) return false;
    return segment->units * SEGMENT_UNIT_BYTES - used >=
           BATCH_BYTES + padded_bytes + LOG_SLACK_BYTES;
}

/* A removal may take more than others are left, and is counted then. */
static bool segment_begin(struct log *log, size_t padded_bytes, bool urgent)
{
    if (segment_start(log, padded_bytes, log->segments->units_reserve) == 0) return true;
    if (!urgent || segment_start(log, padded_bytes, SEGMENT_COMPACTION_UNITS) < 0) return false;
    log->pressed++;
    return true;
}

struct change *log_reserve_slow(struct log *log, size_t padded_bytes, bool urgent)
{
    ASSERT(padded_bytes >= CHANGE_BYTES + 8);
    /* An open batch that ends here is sealed; an empty one cannot be: it gives its head back. */
    if (log->batch != NULL && log->batch_count == 0) {
        log->at = (uint8_t *)log->batch;
        log->batch = NULL;
        log->end = log->at;
    }
    log_seal(log);
    if (!fits_active(log, padded_bytes) && !segment_begin(log, padded_bytes, urgent)) {
        log->refused++;
        return NULL;
    }
    batch_open(log, padded_bytes);
    return (struct change *)log->at;
}

bool log_end_active(struct log *log)
{
    ASSERT(log->batch == NULL);
    if (segment_start(log, CHANGE_BYTES + 8, SEGMENT_COMPACTION_UNITS - 1) < 0) return false;
    log->end = log->at;
    return true;
}

void log_yield_history(struct log *log)
{
    while (log->history_first != log->active) history_pop(log);
}

void slot_walk_begin(struct slot_walk *walk, const struct log *log, uint16_t slot)
{
    ASSERT(slot < SEGMENT_SLOTS);
    *walk = (struct slot_walk){.log = log, .segment = log->active, .slot = slot};
    if (walk->segment != SEGMENT_NONE)
        walk->begins = log->segments->slot_heads[(size_t)walk->segment * SEGMENT_SLOTS + slot];
}

/* The next segment in which the slot has changes; false: there is none. */
static bool walk_on(struct slot_walk *walk)
{
    const struct segments *segments = walk->log->segments;
    while (walk->segment != SEGMENT_NONE && walk->begins == 0) {
        walk->segment = segments->segments[walk->segment].previous;
        if (walk->segment != SEGMENT_NONE)
            walk->begins = segments->slot_heads[(size_t)walk->segment * SEGMENT_SLOTS + walk->slot];
    }
    return walk->segment != SEGMENT_NONE;
}

const struct change *slot_walk_next(struct slot_walk *walk)
{
    const struct segments *segments = walk->log->segments;
    while (walk_on(walk)) {
        uint64_t address =
            ((uint64_t)walk->segment << SEGMENT_UNIT_SHIFT) + ((uint64_t)walk->begins << 3);
        uint32_t word = *index_word(segments, address);
        if (!index_is_unlinked(address, word)) {
            walk->begins = word & INDEX_LINK;
            return change_at(segments, address);
        }
        /* Compaction has taken this one and all older ones of the segment elsewhere. */
        walk->begins = 0;
    }
    return NULL;
}

uint64_t log_unlink_newest(struct log *log, uint16_t slot)
{
    struct slot_walk walk;
    slot_walk_begin(&walk, log, slot);
    const struct change *newest = slot_walk_next(&walk);
    ASSERT(newest != NULL);
    uint64_t address = address_of(log->segments, newest);
    uint32_t *word = index_word(log->segments, address);
    log->segments->slot_heads[(size_t)walk.segment * SEGMENT_SLOTS + slot] = walk.begins;
    index_unlink(word, address);
    return address;
}

uint64_t log_live_bytes(const struct log *log)
{
    uint64_t bytes = 0;
    for (uint32_t number = log->oldest; number != SEGMENT_NONE;
         number = segment_at(log, number)->next)
        bytes += segment_at(log, number)->bytes - segment_at(log, number)->dead_bytes;
    return bytes;
}

uint64_t log_bytes(const struct log *log)
{
    uint64_t bytes = 0;
    for (uint32_t number = log->oldest; number != SEGMENT_NONE;
         number = segment_at(log, number)->next)
        bytes += segment_at(log, number)->units * SEGMENT_UNIT_BYTES;
    return bytes;
}

void log_link_before(struct log *log, uint32_t number, uint32_t before)
{
    struct segment *segment = segment_at(log, number);
    struct segment *newer = segment_at(log, before);
    segment->compactable = true;
    segment->next = before;
    segment->previous = newer->previous;
    if (newer->previous != SEGMENT_NONE)
        segment_at(log, newer->previous)->next = number;
    else
        log->oldest = number;
    newer->previous = number;
}

void log_unlink(struct log *log, uint32_t number)
{
    struct segment *segment = segment_at(log, number);
    ASSERT(segment->compactable && number != log->active && number != log->history_first);
    segment_at(log, segment->next)->previous = segment->previous;
    if (segment->previous != SEGMENT_NONE)
        segment_at(log, segment->previous)->next = segment->next;
    else
        log->oldest = segment->next;
    segment->next = SEGMENT_NONE;
    segment->previous = SEGMENT_NONE;
}

void log_check(const struct log *log)
{
    uint32_t previous = SEGMENT_NONE;
    bool in_history = false;
    uint64_t history_bytes = 0;
    for (uint32_t number = log->oldest; number != SEGMENT_NONE;
         number = segment_at(log, number)->next) {
        const struct segment *segment = segment_at(log, number);
        in_history = in_history || number == log->history_first;
        ASSERT(segment->previous == previous);
        ASSERT(segment->compactable == !in_history);
        ASSERT(segment->dead_bytes <= segment->units * SEGMENT_UNIT_BYTES);
        if (in_history && number != log->active) history_bytes += segment->bytes;
        previous = number;
    }
    ASSERT(previous == log->active);
    ASSERT(history_bytes == log->history_bytes);
}
