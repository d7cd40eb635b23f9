/*
 * Compaction rewrites the segments that have left the history, oldest first and in their order, and
 * leaves out what nobody can ask for any more. It works in steps of a few records so that no turn
 * gets long, and only while the superseded changes outside the history are more than a bound
 * (`garbage_bytes_max`, or a fourth of what is live if that is more): the more of them there are,
 * the fewer survivors have to be moved for each byte that is won.
 *
 * A step reads records of the source segment and copies the survivors to the target segment. The
 * table is pointed at the copy at once. When the source has been read, it is freed; when the target
 * is full, the next one is taken. The target is linked in front of the source, so a walk through a
 * slot stays in order: records of a source that were read are out of its chains, so that a walk
 * meets each change once.
 *
 * A record is left out if the change that superseded it has left the history too (or it was
 * truncated), or if it is a removal and still the newest of its key: then the key is forgotten.
 */
#include "shard/compact.h"

#include <errno.h>

#include "base/assert.h"
#include "base/memory.h"
#include "shard/store.h"

/* A segment with less than this share of dead bytes is not worth rewriting, */
#define DEAD_SHARE_MIN 8
/* unless its marks get old: their numbers wrap (INDEX_BY_MASK). */
#define MARKS_AGE_MAX (INDEX_BY_MASK / 4)
#define GARBAGE_SHARE 4

struct compaction {
    uint64_t garbage_bytes_max;
    uint32_t source;      /* being read; SEGMENT_NONE: none */
    uint32_t source_at;   /* bytes of it already read */
    uint32_t batch_start; /* where its current batch begins and ends */
    uint32_t batch_end;
    uint32_t target;     /* being written; SEGMENT_NONE: none */
    struct batch *batch; /* of the target */
    uint32_t batch_count;
    uint32_t next;      /* segment to look at next, in a round over the region */
    uint32_t looked_at; /* history_first when the garbage was last counted */
    bool running;
    uint64_t moved;
    uint64_t dropped;
};

struct compaction *compaction_open(uint64_t garbage_bytes_max)
{
    struct compaction *compaction = memory_take(sizeof *compaction);
    if (compaction == NULL) return NULL;
    *compaction = (struct compaction){.garbage_bytes_max = garbage_bytes_max,
                                      .source = SEGMENT_NONE,
                                      .target = SEGMENT_NONE,
                                      .next = SEGMENT_NONE,
                                      .looked_at = SEGMENT_NONE};
    return compaction;
}

void compaction_close(struct compaction *compaction, struct store *store)
{
    (void)store; /* source and target are linked into the log, which frees them */
    memory_put(compaction);
}

static struct segment *segment_at(const struct store *store, uint32_t number)
{
    return &store->segments->segments[number];
}

static uint8_t *segment_base(const struct store *store, uint32_t number)
{
    return store->segments->base + ((size_t)number << SEGMENT_UNIT_SHIFT);
}

/* What is written to the target so far becomes one batch. */
static void target_seal(struct compaction *compaction, struct store *store)
{
    struct batch *batch = compaction->batch;
    if (batch == NULL) return;
    struct segment *target = segment_at(store, compaction->target);
    uint8_t *end = segment_base(store, compaction->target) + target->bytes;
    batch->length = (uint32_t)(end - (uint8_t *)batch);
    batch->count = compaction->batch_count;
    batch->checksum = batch_checksum(batch);
    compaction->batch = NULL;
    compaction->batch_count = 0;
}

static int target_open(struct compaction *compaction, struct store *store, size_t padded_bytes)
{
    uint32_t number = segments_take(store->segments, padded_bytes, true);
    if (number == SEGMENT_NONE) return -ENOMEM;
    const struct segment *source = segment_at(store, compaction->source);
    struct segment *target = segment_at(store, number);
    target->seq = source->seq;
    target->stream_first = source->stream_first;
    log_link_before(&store->log, number, compaction->source);
    compaction->target = number;
    return 0;
}

static void batch_start(struct compaction *compaction, struct store *store,
                        const struct batch *source)
{
    struct segment *target = segment_at(store, compaction->target);
    compaction->batch = (struct batch *)(segment_base(store, compaction->target) + target->bytes);
    *compaction->batch = (struct batch){.type = FRAME_BATCH,
                                        .flags = BATCH_COMPACTED,
                                        .version = BATCH_VERSION,
                                        .stream_first = source->stream_first,
                                        .view = source->view,
                                        .owner = source->owner};
    target->bytes += (uint32_t)BATCH_BYTES;
}

static bool target_has_room(const struct compaction *compaction, const struct store *store,
                            size_t padded_bytes)
{
    if (compaction->target == SEGMENT_NONE) return false;
    const struct segment *target = segment_at(store, compaction->target);
    return target->bytes + BATCH_BYTES + padded_bytes <= target->units * SEGMENT_UNIT_BYTES &&
           target->bytes + BATCH_BYTES < SEGMENT_UNIT_BYTES;
}

/* Copies a survivor to the target, with its index word and its place in the slot's chain. */
static void move(struct compaction *compaction, struct store *store, const struct change *change,
                 uint32_t word)
{
    struct segments *segments = store->segments;
    struct segment *target = segment_at(store, compaction->target);
    size_t padded = change_padded_bytes(change);
    uint8_t *to = segment_base(store, compaction->target) + target->bytes;
    uint64_t address = address_of(segments, to);
    uint32_t *head =
        &segments->slot_heads[(size_t)compaction->target * SEGMENT_SLOTS + change->slot];
    memcpy(to, change, padded);
    *index_word(segments, address) = (word & ~INDEX_LINK) | *head;
    *head = index_place(address);
    target->bytes += (uint32_t)padded;
    target->changes_count++;
    compaction->batch_count++;
    compaction->moved++;
    if (index_is_superseded(word)) {
        target->dead_bytes += (uint32_t)padded;
        return;
    }
    uint64_t *entry =
        table_find_address(&store->table, change->key_hash, address_of(segments, change));
    ASSERT(entry != NULL);
    *entry = entry_make(change->key_hash, address);
}

/* A removal that is still the newest change of its key, outside the history: the key goes. */
static void forget_key(struct store *store, const struct change *change)
{
    uint64_t *entry =
        table_find_address(&store->table, change->key_hash, address_of(store->segments, change));
    ASSERT(entry != NULL);
    table_remove(&store->table, change->key_hash, entry);
    store->tombstones--;
}

static bool may_be_dropped(const struct store *store, const struct change *change, uint32_t word)
{
    if (index_is_unlinked(address_of(store->segments, change), word)) return true;
    if (index_is_superseded(word)) return log_is_beyond_history(&store->log, word);
    return change->type == FRAME_REMOVE;
}

/* Reads one record of the source; -ENOMEM leaves it for a later step. */
static int step_record(struct compaction *compaction, struct store *store)
{
    const struct change *change =
        (const struct change *)(segment_base(store, compaction->source) + compaction->source_at);
    size_t padded = change_padded_bytes(change);
    uint32_t word = *index_word(store->segments, address_of(store->segments, change));
    if (may_be_dropped(store, change, word)) {
        if (!index_is_superseded(word)) forget_key(store, change);
        compaction->dropped++;
    } else {
        if (!target_has_room(compaction, store, padded)) {
            target_seal(compaction, store);
            if (target_open(compaction, store, padded) < 0) return -ENOMEM;
        }
        if (compaction->batch == NULL) {
            uint8_t *source = segment_base(store, compaction->source);
            batch_start(compaction, store, (struct batch *)(source + compaction->batch_start));
        }
        move(compaction, store, change, word);
    }
    index_unlink(index_word(store->segments, address_of(store->segments, change)),
                 address_of(store->segments, change));
    compaction->source_at += (uint32_t)padded;
    return 0;
}

static void source_open(struct compaction *compaction, uint32_t number)
{
    compaction->source = number;
    compaction->source_at = 0;
    compaction->batch_end = 0;
}

static void source_finish(struct compaction *compaction, struct store *store)
{
    uint32_t number = compaction->source;
    compaction->next = segment_at(store, number)->next;
    compaction->source = SEGMENT_NONE;
    log_unlink(&store->log, number);
    segments_put(store->segments, number);
}

static bool has_old_marks(const struct store *store, const struct segment *segment)
{
    return segment->first_dead_seq != 0 &&
           store->log.active_seq - segment->first_dead_seq > MARKS_AGE_MAX;
}

/* Notes since when compactable segments have dead bytes; true: some have had them for long. */
static bool marks_get_old(struct store *store)
{
    bool old = false;
    for (uint32_t number = store->log.oldest; number != store->log.history_first;
         number = segment_at(store, number)->next) {
        struct segment *segment = segment_at(store, number);
        if (segment->dead_bytes > 0 && segment->first_dead_seq == 0)
            segment->first_dead_seq = store->log.active_seq;
        old = old || has_old_marks(store, segment);
    }
    return old;
}

/* The next segment that is worth it, or SEGMENT_NONE at the end of the round. */
static uint32_t choose_source(struct compaction *compaction, struct store *store)
{
    uint32_t number = compaction->next;
    for (; number != store->log.history_first; number = segment_at(store, number)->next) {
        const struct segment *segment = segment_at(store, number);
        if (segment->lenders > 0) continue;
        if (segment->dead_bytes >= segment->bytes / DEAD_SHARE_MIN) return number;
        if (has_old_marks(store, segment)) return number;
        /* A segment left as it is ends the target: the log must stay in order. */
        if (compaction->target != SEGMENT_NONE) {
            target_seal(compaction, store);
            compaction->target = SEGMENT_NONE;
        }
    }
    return SEGMENT_NONE;
}

static bool round_begins(struct compaction *compaction, struct store *store)
{
    /* What is compactable only changes when a segment leaves the history. */
    if (compaction->looked_at == store->log.history_first) return false;
    compaction->looked_at = store->log.history_first;
    uint64_t live = log_live_bytes(&store->log);
    uint64_t garbage_max = max_u64(compaction->garbage_bytes_max, live / GARBAGE_SHARE);
    bool short_of_memory = store->segments->units_used + store->segments->units_reserve * 2 >=
                           store->segments->units_max;
    uint64_t dead = log_compactable_dead_bytes(&store->log);
    bool old = marks_get_old(store);
    if (dead <= garbage_max && !old && !(short_of_memory && dead >= SEGMENT_UNIT_BYTES))
        return false;
    compaction->next = store->log.oldest;
    compaction->running = true;
    return true;
}

static void round_end(struct compaction *compaction, struct store *store)
{
    target_seal(compaction, store);
    compaction->target = SEGMENT_NONE;
    compaction->next = SEGMENT_NONE;
    compaction->running = false;
}

static bool source_ready(struct compaction *compaction, struct store *store)
{
    if (compaction->source != SEGMENT_NONE) return true;
    if (!compaction->running && !round_begins(compaction, store)) return false;
    uint32_t number = choose_source(compaction, store);
    if (number == SEGMENT_NONE) {
        round_end(compaction, store);
        return false;
    }
    source_open(compaction, number);
    return true;
}

size_t store_compact(struct store *store, size_t bytes_max)
{
    struct compaction *compaction = store->compaction;
    size_t looked_at = 0;
    ASSERT(store->log.batch == NULL);
    while (looked_at < bytes_max && source_ready(compaction, store)) {
        const struct segment *source = segment_at(store, compaction->source);
        if (compaction->source_at == source->bytes) {
            source_finish(compaction, store);
            continue;
        }
        if (compaction->source_at == compaction->batch_end) {
            const struct batch *batch =
                (const struct batch *)(segment_base(store, compaction->source) +
                                       compaction->source_at);
            compaction->batch_start = compaction->source_at;
            compaction->batch_end += batch->length;
            compaction->source_at += (uint32_t)BATCH_BYTES;
            continue;
        }
        uint32_t before = compaction->source_at;
        if (step_record(compaction, store) < 0) break;
        looked_at += compaction->source_at - before;
    }
    return looked_at;
}
