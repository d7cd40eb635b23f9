/*
 * A log is read from front to back, so a place in it is a segment and how much of that was read. The
 * segment is lent meanwhile: nobody rewrites or frees it. What must be right beyond that:
 *
 *   Complete. Segments of the history keep everything, and so do older ones until compaction
 *   rewrites them. Numbers of segments grow by one, so the next segment is the right one if it has
 *   the next number and was never rewritten. Else something is missing: CURSOR_TRIMMED.
 *
 *   The state. A change that nothing superseded is what its key is, and compaction keeps exactly
 *   those. So a snapshot is a walk through the whole log that passes over what is superseded. What is
 *   superseded behind the cursor's back has its newer change ahead of it. Compaction never moves a
 *   change from before the cursor to behind it: it copies a segment's survivors right in front of
 *   that segment, and a segment that it has begun with is finished before a cursor goes on into it.
 *   A removal behind where the snapshot began may concern a key that was given, so from there on
 *   everything must be there, as in the history. When the walk has caught up, what it gave is the
 *   state, and it goes on as a walk through the history.
 *
 *   Truncation. What is taken back stays in the segment, out of its slot's chain, and is passed over.
 *   If the cursor had given it, it says so. In a snapshot an older change may count again that was
 *   passed over as superseded, so it begins anew.
 *
 *   Bounded. A cursor that stands still holds one segment. Within the history that costs nothing;
 *   beyond it, all cursors together may hold so much, and those that stood still longest are cut off.
 *
 * Rejected: reading a slot along its chain, which is linked from the newest change to the oldest, so
 * that each batch costs a walk over all newer ones. Segments without changes of the slot are passed
 * over at one look, and the others are memory in order. Rejected: a list of the keys of a snapshot,
 * which costs memory and a copy of the table, and is not in the order of places.
 */
#include "shard/cursor.h"

#include <string.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "log/log.h"
#include "ring/slot.h"
#include "shard/compact.h"
#include "shard/store.h"

static struct segment *segment_at(const struct store *store, uint32_t number)
{
    return &store->segments->segments[number];
}

static uint64_t address_at(uint32_t segment, uint32_t at)
{
    return ((uint64_t)segment << SEGMENT_UNIT_SHIFT) + at;
}

/* --------------------------------------------------------------------------------- places */

static void list_remove(struct cursor *cursor)
{
    struct cursors *cursors = &cursor->store->cursors;
    if (cursor->newer != NULL)
        cursor->newer->older = cursor->older;
    else
        cursors->newest = cursor->older;
    if (cursor->older != NULL)
        cursor->older->newer = cursor->newer;
    else
        cursors->oldest = cursor->newer;
    cursor->newer = NULL;
    cursor->older = NULL;
}

static void list_push(struct cursor *cursor)
{
    struct cursors *cursors = &cursor->store->cursors;
    cursor->older = cursors->newest;
    if (cursors->newest != NULL)
        cursors->newest->newer = cursor;
    else
        cursors->oldest = cursor;
    cursors->newest = cursor;
}

void cursor_lend(struct store *store, uint32_t segment)
{
    segment_at(store, segment)->lenders++;
}

void cursor_give_back(struct store *store, uint32_t segment)
{
    ASSERT(segment_at(store, segment)->lenders > 0);
    segment_at(store, segment)->lenders--;
}

/* To the front of another segment, or to none. */
static void move_to(struct cursor *cursor, uint32_t segment)
{
    struct store *store = cursor->store;
    if (segment != SEGMENT_NONE) cursor_lend(store, segment);
    if (cursor->segment != SEGMENT_NONE) cursor_give_back(store, cursor->segment);
    cursor->segment = segment;
    cursor->at = 0;
    cursor->batch_end = 0;
    list_remove(cursor);
    list_push(cursor);
}

/* Nothing that comes next can be had. */
static void trim(struct cursor *cursor)
{
    move_to(cursor, SEGMENT_NONE);
    cursor->is_trimmed = true;
    cursor->is_snapshot = false;
    cursor->is_truncated = false;
}

void cursor_open(struct cursor *cursor, struct store *store, const struct cursor_filter *filter)
{
    *cursor = (struct cursor){.store = store, .filter = *filter, .segment = SEGMENT_NONE};
    store->cursors.count++;
    list_push(cursor);
    cursor_seek_end(cursor);
}

void cursor_close(struct cursor *cursor)
{
    if (cursor->store == NULL) return;
    move_to(cursor, SEGMENT_NONE);
    list_remove(cursor);
    cursor->store->cursors.count--;
    cursor->store = NULL;
}

/* -------------------------------------------------------------------------------- seeking */

/* It is told a place, and has forgotten what it knew of the last one. */
static void restart(struct cursor *cursor)
{
    ASSERT(cursor->store->log.batch == NULL);
    cursor->is_trimmed = false;
    cursor->is_snapshot = false;
    cursor->is_truncated = false;
}

/* Whether nothing was ever taken out of the segment. */
static bool is_whole(const struct store *store, uint32_t number)
{
    return !segment_at(store, number)->rewritten && !compaction_reads(store, number);
}

/* The oldest segment from which on all are whole, and follow each other. */
static uint32_t oldest_whole(const struct store *store)
{
    uint32_t number = store->log.active;
    while (number != SEGMENT_NONE) {
        const struct segment *segment = segment_at(store, number);
        uint32_t previous = segment->previous;
        if (previous == SEGMENT_NONE || !is_whole(store, previous)) break;
        if (segment_at(store, previous)->seq + 1 != segment->seq) break;
        number = previous;
    }
    return number;
}

bool cursor_seek_oldest(struct cursor *cursor)
{
    restart(cursor);
    move_to(cursor, oldest_whole(cursor->store));
    cursor->position = cursor->segment != SEGMENT_NONE
                           ? segment_at(cursor->store, cursor->segment)->stream_first
                           : cursor->store->log.stream_next;
    return true;
}

bool cursor_seek_start(struct cursor *cursor)
{
    cursor_seek_oldest(cursor);
    if (cursor->position == 1) return true;
    trim(cursor);
    return false;
}

void cursor_seek_end(struct cursor *cursor)
{
    const struct log *log = &cursor->store->log;
    restart(cursor);
    move_to(cursor, log->active);
    if (log->active != SEGMENT_NONE) cursor->at = segment_at(cursor->store, log->active)->bytes;
    cursor->batch_end = cursor->at;
    cursor->position = log->stream_next;
}

/* Into the batch that it stands before. */
static void batch_begin(struct cursor *cursor)
{
    const uint8_t *at = cursor->store->segments->base + address_at(cursor->segment, cursor->at);
    const struct batch *batch = (const struct batch *)(const void *)at;
    ASSERT(batch->type == FRAME_BATCH && batch->length > BATCH_BYTES);
    cursor->batch_end = cursor->at + batch->length;
    cursor->stride = batch_change_bytes(batch);
    cursor->position = batch->stream_first;
    cursor->at += (uint32_t)BATCH_BYTES;
}

static uint32_t padded_here(const struct cursor *cursor)
{
    if (cursor->stride > 0) return cursor->stride;
    return (uint32_t)change_padded_bytes(
        change_at(cursor->store->segments, address_at(cursor->segment, cursor->at)));
}

/* To the change with this number, which is in the segment or comes next. */
static void step_to_position(struct cursor *cursor, uint64_t position)
{
    const struct store *store = cursor->store;
    const struct segment *segment = segment_at(store, cursor->segment);
    while (cursor->at < segment->bytes) {
        const uint8_t *at = store->segments->base + address_at(cursor->segment, cursor->at);
        const struct batch *batch = (const struct batch *)(const void *)at;
        if (batch->stream_first + batch->count > position) break;
        cursor->at += batch->length;
        cursor->batch_end = cursor->at;
    }
    if (cursor->at == segment->bytes) {
        cursor->position = position;
        return;
    }
    batch_begin(cursor);
    for (; cursor->position < position; cursor->position++) cursor->at += padded_here(cursor);
}

bool cursor_seek_position(struct cursor *cursor, uint64_t position)
{
    const struct store *store = cursor->store;
    cursor_seek_oldest(cursor);
    if (position < cursor->position || position > store->log.stream_next) {
        trim(cursor);
        return false;
    }
    if (cursor->segment == SEGMENT_NONE) return true;
    uint32_t number = store->log.active;
    while (segment_at(store, number)->stream_first > position)
        number = segment_at(store, number)->previous;
    move_to(cursor, number);
    step_to_position(cursor, position);
    return true;
}

/* In front of a change of its history. */
static void stand_before(struct cursor *cursor, const struct change *change)
{
    const struct store *store = cursor->store;
    uint64_t address = address_of(store->segments, change);
    uint32_t at = (uint32_t)(address & (SEGMENT_UNIT_BYTES - 1));
    move_to(cursor, (uint32_t)(address >> SEGMENT_UNIT_SHIFT));
    while (cursor->batch_end <= at) {
        cursor->at = cursor->batch_end;
        batch_begin(cursor);
    }
    for (; cursor->at < at; cursor->position++) cursor->at += padded_here(cursor);
    ASSERT(cursor->at == at);
}

/* Whether the cursor may be sent to the change: all from there on are kept. */
static bool is_kept(const struct store *store, const struct change *change, uint32_t oldest)
{
    const struct segment *segment =
        segment_of(store->segments, address_of(store->segments, change));
    return oldest != SEGMENT_NONE && segment->seq >= segment_at(store, oldest)->seq &&
           !segment->rewritten;
}

bool cursor_seek_place(struct cursor *cursor, uint64_t place)
{
    const struct store *store = cursor->store;
    ASSERT(cursor->filter.slot < SEGMENT_SLOTS);
    uint16_t slot = (uint16_t)cursor->filter.slot;
    uint32_t oldest = oldest_whole(store);
    struct slot_walk walk;
    const struct change *change = NULL;
    cursor_seek_end(cursor);
    if (place == store->slots[slot].place) return true;
    slot_walk_begin(&walk, &store->log, slot);
    do change = slot_walk_next(&walk);
    while (change != NULL && change_place(change) > place + 1 && is_kept(store, change, oldest));
    if (change == NULL || change_place(change) != place + 1 || !is_kept(store, change, oldest)) {
        trim(cursor);
        return false;
    }
    stand_before(cursor, change);
    return true;
}

static bool is_of_partition(const struct change *change, struct bytes partition)
{
    const uint8_t *key = change_key(change);
    if (change->key_len < partition.size) return false;
    if (change->key_len > partition.size && key[partition.size] != '.') return false;
    return memcmp(key, partition.data, partition.size) == 0;
}

/* The prefix up to its first '.', which is what offsets are counted in. */
static struct bytes partition_of(struct bytes key)
{
    const void *dot = key.size > 0 ? memchr(key.data, '.', key.size) : NULL;
    if (dot != NULL) key.size = (size_t)((const uint8_t *)dot - (const uint8_t *)key.data);
    return key;
}

bool cursor_seek_offset(struct cursor *cursor, uint64_t offset)
{
    const struct store *store = cursor->store;
    struct bytes partition = partition_of(cursor->filter.prefix);
    uint16_t slot = slot_of_key(partition.data, partition.size);
    uint32_t oldest = oldest_whole(store);
    const struct change *first = NULL;
    const struct change *change;
    struct slot_walk walk;
    bool is_complete = true;
    offset = max_u64(offset, 1);
    cursor_seek_end(cursor);
    cursor->filter.offset_min = offset;
    slot_walk_begin(&walk, &store->log, slot);
    while (is_complete && (change = slot_walk_next(&walk)) != NULL) {
        if (!is_of_partition(change, partition)) continue;
        if (change_offset(change) < offset) break;
        is_complete = is_kept(store, change, oldest);
        first = change;
        if (change_offset(change) == offset) break;
    }
    if (!is_complete || (first != NULL && change_offset(first) > offset)) {
        trim(cursor);
        return false;
    }
    if (first != NULL) stand_before(cursor, first);
    return true;
}

void cursor_snapshot(struct cursor *cursor)
{
    const struct log *log = &cursor->store->log;
    restart(cursor);
    cursor->is_snapshot = true;
    cursor->filter.offset_min = 0; /* what a state is made of may be as old as it likes */
    cursor->snapshot_seq = 0;
    cursor->snapshot_at = 0;
    move_to(cursor, SEGMENT_NONE);
    if (log->active == SEGMENT_NONE) return;
    cursor->snapshot_seq = log->active_seq;
    cursor->snapshot_at = segment_at(cursor->store, log->active)->bytes;
}

/* -------------------------------------------------------------------------------- reading */

enum step { STEP_ON, STEP_AGAIN, STEP_NO_MEMORY, STEP_TRIMMED };

/* Whether `number` may follow where the cursor stands: see above. */
static bool may_follow(const struct cursor *cursor, uint32_t number)
{
    const struct store *store = cursor->store;
    const struct segment *next = segment_at(store, number);
    if (cursor->is_snapshot && next->seq < cursor->snapshot_seq) return true;
    if (next->rewritten) return false;
    if (cursor->is_snapshot && next->seq == cursor->snapshot_seq) return true;
    if (cursor->segment == SEGMENT_NONE) return cursor->position == next->stream_first;
    const struct segment *here = segment_at(store, cursor->segment);
    return !here->rewritten && here->seq + 1 == next->seq;
}

/* Into the next segment. */
static enum step step_on(struct cursor *cursor)
{
    struct store *store = cursor->store;
    uint32_t next = cursor->segment != SEGMENT_NONE ? segment_at(store, cursor->segment)->next
                                                    : store->log.oldest;
    ASSERT(next != SEGMENT_NONE);
    if (compaction_reads(store, next)) {
        bool is_old = cursor->is_snapshot && segment_at(store, next)->seq < cursor->snapshot_seq;
        if (!is_old) return STEP_TRIMMED;
        /* Some of what it survives went to the segment where the cursor stands. */
        return compaction_finish(store) == 0 ? STEP_AGAIN : STEP_NO_MEMORY;
    }
    if (!may_follow(cursor, next)) return STEP_TRIMMED;
    move_to(cursor, next);
    return STEP_ON;
}

static bool is_at_end(const struct cursor *cursor)
{
    const struct log *log = &cursor->store->log;
    return cursor->segment == log->active &&
           (cursor->segment == SEGMENT_NONE ||
            cursor->at == segment_at(cursor->store, cursor->segment)->bytes);
}

static bool matches_key(const struct cursor_filter *filter, const struct change *change)
{
    const uint8_t *key = change_key(change);
    const uint8_t *prefix = filter->prefix.data;
    size_t common = min_u64(change->key_len, filter->prefix.size);
    if (memcmp(key, prefix, common) != 0) return false;
    if (filter->match == CURSOR_MATCH_PREFIX) return common == filter->prefix.size;
    if (change->key_len > common) return key[common] == '.';
    return filter->prefix.size == common || prefix[common] == '.';
}

static bool matches(const struct cursor_filter *filter, const struct change *change)
{
    if (filter->slot != CURSOR_ALL_SLOTS && change->slot != filter->slot) return false;
    if (filter->prefix.size > 0 && !matches_key(filter, change)) return false;
    return change_offset(change) >= filter->offset_min;
}

/* Whether the change at `address` is one that the cursor gives. */
static bool is_wanted(const struct cursor *cursor, uint64_t address, const struct change *change)
{
    uint32_t word = *index_word(cursor->store->segments, address);
    if (UNLIKELY(index_is_unlinked(address, word))) return false;
    if (cursor->is_snapshot) {
        uint32_t seq = segment_at(cursor->store, cursor->segment)->seq;
        bool is_before = seq < cursor->snapshot_seq ||
                         (seq == cursor->snapshot_seq && cursor->at < cursor->snapshot_at);
        /*
         * What came since must all be given: a removal inside of a value is superseded at once, and
         * may concern what was given before.
         */
        bool is_passed = is_before || PLANTED("snapshot_cut");
        if (is_passed && index_is_superseded(word)) return false;
        /* What was taken out of a value that is still there is part of the state. */
        if (is_before && change->type == FRAME_REMOVE && !change_is_deep(change)) return false;
    }
    return matches(&cursor->filter, change);
}

/* Whether the segment has nothing for a cursor of one slot. */
static bool has_nothing(const struct cursor *cursor)
{
    if (cursor->filter.slot == CURSOR_ALL_SLOTS) return false;
    return cursor->store->segments
               ->slot_heads[(size_t)cursor->segment * SEGMENT_SLOTS + cursor->filter.slot] == 0;
}

/* To the end of the segment at once. */
static void pass_over(struct cursor *cursor)
{
    const struct segment *segment = segment_at(cursor->store, cursor->segment);
    cursor->at = segment->bytes;
    cursor->batch_end = segment->bytes;
    cursor->position = segment->stream_first + segment->changes_count;
}

/* Reads in the segment it is in; returns the bytes that it looked at. */
static size_t read_here(struct cursor *cursor, const struct cursor_limits *limits,
                        struct cursor_batch *batch, size_t look_bytes_max)
{
    struct store *store = cursor->store;
    uint32_t begin = cursor->at;
    uint32_t end = segment_at(store, cursor->segment)->bytes;
    compaction_seal(store, cursor->segment);
    if (has_nothing(cursor)) {
        pass_over(cursor);
        return CACHE_LINE;
    }
    while (cursor->at < end && cursor->at - begin < look_bytes_max) {
        if (cursor->at == cursor->batch_end) batch_begin(cursor);
        uint64_t address = address_at(cursor->segment, cursor->at);
        const struct change *change = change_at(store->segments, address);
        uint32_t padded = padded_here(cursor);
        if (is_wanted(cursor, address, change)) {
            if (batch->count == limits->changes_max ||
                (batch->count > 0 && batch->bytes + padded > limits->bytes_max))
                break;
            batch->changes[batch->count++] = change;
            batch->bytes += padded;
            cursor->filter.offset_min = 0; /* a partition that is forgotten begins anew */
        }
        cursor->at += padded;
        cursor->position++;
    }
    return cursor->at - begin;
}

/* A snapshot is complete, or there never was one. */
static enum cursor_answer caught_up(struct cursor *cursor)
{
    cursor->is_snapshot = false;
    cursor->position = cursor->store->log.stream_next;
    return CURSOR_CAUGHT_UP;
}

static enum cursor_answer say_truncated(struct cursor *cursor, struct cursor_batch *batch)
{
    cursor->is_truncated = false;
    batch->slot = cursor->truncated_slot;
    batch->place = cursor->truncated_place;
    return CURSOR_TRUNCATED;
}

enum cursor_answer cursor_read(struct cursor *cursor, const struct cursor_limits *limits,
                               struct cursor_batch *batch)
{
    size_t looked_at = 0;
    ASSERT(cursor->store->log.batch == NULL);
    ASSERT(limits->changes_max > 0 && limits->changes_max <= CURSOR_CHANGES_MAX);
    batch->count = 0;
    batch->bytes = 0;
    if (UNLIKELY(cursor->is_trimmed)) return CURSOR_TRIMMED;
    if (UNLIKELY(cursor->is_truncated)) return say_truncated(cursor, batch);
    while (looked_at < limits->look_bytes_max) {
        if (is_at_end(cursor)) return caught_up(cursor);
        if (cursor->segment == SEGMENT_NONE ||
            cursor->at == segment_at(cursor->store, cursor->segment)->bytes) {
            enum step step = step_on(cursor);
            if (step == STEP_TRIMMED) {
                trim(cursor);
                return CURSOR_TRIMMED;
            }
            if (step == STEP_NO_MEMORY) return CURSOR_NO_MEMORY;
            looked_at += CACHE_LINE;
            continue;
        }
        looked_at += read_here(cursor, limits, batch, limits->look_bytes_max - looked_at);
        if (batch->count == 0) continue;
        batch->segment = cursor->segment;
        return CURSOR_CHANGES;
    }
    return CURSOR_MORE;
}

bool cursor_is_behind(const struct cursor *cursor)
{
    return cursor->is_trimmed || cursor->is_truncated || cursor->is_snapshot || !is_at_end(cursor);
}

/* ------------------------------------------------------------------- what happens to the log */

static bool is_beyond_history(const struct cursor *cursor)
{
    return cursor->segment != SEGMENT_NONE &&
           segment_at(cursor->store, cursor->segment)->compactable;
}

void cursors_bound(struct store *store)
{
    struct cursors *cursors = &store->cursors;
    uint64_t held = 0;
    if (cursors->count == 0 || cursors->history_seen == store->log.history_first) return;
    cursors->history_seen = store->log.history_first;
    for (struct cursor *cursor = cursors->newest; cursor != NULL; cursor = cursor->older) {
        if (!is_beyond_history(cursor)) continue;
        const struct segment *segment = segment_at(store, cursor->segment);
        held += segment->units * SEGMENT_UNIT_BYTES / segment->lenders;
    }
    struct cursor *cursor = cursors->oldest;
    while (cursor != NULL && held > cursors->lent_bytes_max) {
        struct cursor *newer = cursor->newer;
        if (is_beyond_history(cursor)) {
            const struct segment *segment = segment_at(store, cursor->segment);
            /* The last one that holds it frees it. */
            if (segment->lenders == 1) held -= min_u64(held, segment->units * SEGMENT_UNIT_BYTES);
            trim(cursor);
        }
        cursor = newer;
    }
}

/* Whether the cursor has read the change, which is of the history. */
static bool has_passed(const struct cursor *cursor, const struct change *change)
{
    const struct store *store = cursor->store;
    uint64_t address = address_of(store->segments, change);
    if (cursor->segment == SEGMENT_NONE) return false;
    uint32_t number = (uint32_t)(address >> SEGMENT_UNIT_SHIFT);
    if (number == cursor->segment) return (address & (SEGMENT_UNIT_BYTES - 1)) < cursor->at;
    return segment_at(store, number)->seq < segment_at(store, cursor->segment)->seq;
}

static void note_truncation(struct cursor *cursor, uint16_t slot, uint64_t place)
{
    if (cursor->is_truncated && cursor->truncated_slot != slot) {
        trim(cursor); /* one at a time is all that it can say */
        return;
    }
    if (!cursor->is_truncated || place < cursor->truncated_place) cursor->truncated_place = place;
    cursor->truncated_slot = slot;
    cursor->is_truncated = true;
}

void cursors_truncate(struct store *store, uint16_t slot, uint64_t place)
{
    struct slot_walk walk;
    const struct change *oldest;
    if (store->cursors.count == 0) return;
    slot_walk_begin(&walk, &store->log, slot);
    do oldest = slot_walk_next(&walk);
    while (oldest != NULL && change_place(oldest) > place + 1);
    ASSERT(oldest != NULL && change_place(oldest) == place + 1);
    for (struct cursor *cursor = store->cursors.newest; cursor != NULL;) {
        struct cursor *older = cursor->older;
        bool concerns = cursor->filter.slot == CURSOR_ALL_SLOTS || cursor->filter.slot == slot;
        if (concerns && !cursor->is_trimmed) {
            if (cursor->is_snapshot)
                trim(cursor);
            else if (has_passed(cursor, oldest))
                note_truncation(cursor, slot, place);
        }
        cursor = older;
    }
}

void cursors_end(struct store *store)
{
    struct cursor *cursor = store->cursors.newest;
    while (cursor != NULL) {
        struct cursor *older = cursor->older;
        move_to(cursor, SEGMENT_NONE);
        cursor->store = NULL;
        cursor = older;
    }
    store->cursors = (struct cursors){0};
}
