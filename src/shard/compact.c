/*
 * Compaction rewrites segments that have left the history, in their order, and leaves out what
 * nobody can ask for any more. It works in steps of a few records so that no turn gets long.
 *
 * A step reads records of the source segment and copies the survivors to the target segment. The
 * table is pointed at the copy at once. When the source has been read, it is freed; when the target
 * is full, the next one is taken. The target is linked in front of the source, so a walk through a
 * slot stays in order: records of a source that were read are out of its chains, so that a walk
 * meets each change once.
 *
 * A record is left out if the change that superseded it has left the history too (or it was
 * truncated), or if it is a removal and still the newest of its key: then the key is forgotten.
 *
 * When, and which
 *
 * Every survivor is a copy and a miss in the table, so what counts is how few there are for each
 * byte that is won. Nothing happens while the superseded changes outside the history are fewer than
 * a bound (see dead_bytes_allowed). Then a sweep goes on where the last one stopped, round and round
 * from the oldest segment to the history, and stops as soon as an eighth of the bound is won:
 * whatever is left gets emptier by waiting. The longer ago a segment was swept, the fewer of its
 * records still live, so that this order is that of the gain, like the cleaning of a log-structured
 * file system by age (Rosenblum and Ousterhout, "The design and implementation of a log-structured
 * file system", 1992). Segments of which less than the average can go are passed over: those are
 * full of keys that do not change, or have only just left the history.
 */
#include "shard/compact.h"

#include <errno.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/ck.h"
#include "base/memory.h"
#include "shard/deep.h"

/* Bounds in eighths: see dead_bytes_allowed. */
#define GARBAGE_EIGHTHS 3
#define GARBAGE_EIGHTHS_SMALL 12
#define SMALL_EIGHTHS 27
/* Memory is short where no more units are free beside the reserve. */
#define SHORT_UNITS 2
/* A segment of which less than this part can go is not worth rewriting, */
#define GAIN_PART_MIN 8
#define GAIN_PART_MIN_SHORT 32
/* unless its marks get old: their numbers wrap (INDEX_BY_MASK). */
#define MARKS_AGE_MAX (INDEX_BY_MASK / 4)
/* Records that are looked at together, so that their misses in the table overlap. */
#define GROUP 16
/* So many records ahead, the next ones are fetched where they begin if all are of one size. */
#define READ_AHEAD 16
/* So many records ahead of those, the index words are fetched where all are of one size. */
#define WORDS_AHEAD 64
/* How far the target's memory is fetched ahead of its end. */
#define TARGET_AHEAD_BYTES 4096
/* A batch of the target ends behind this many bytes, so that its checksum finds them in the cache. */
#define TARGET_BATCH_BYTES ((size_t)32 * 1024)
/* Segments are counted by the way, each time the history moves on: so many and a sixteenth. */
#define COUNT_SEGMENTS 64
#define COUNT_PART 16
/* Of a survivor, so much is fetched in time; of a longer one the processor fetches the rest. */
#define SURVIVOR_BYTES 1024

/* What there is: of the whole log live bytes, else of its compactable segments but the source. */
struct counts {
    uint64_t live_bytes;
    uint64_t bytes;
    uint64_t dead_bytes;
    uint64_t ripe_bytes;
    bool has_old_marks;
};

struct compaction {
    uint64_t garbage_bytes_max;
    uint32_t source;      /* being read; SEGMENT_NONE: none */
    uint32_t source_at;   /* bytes of it already read */
    uint32_t batch_start; /* where its current batch begins and ends */
    uint32_t batch_end;
    uint32_t record_bytes; /* padded, of every record of that batch; 0: they differ */
    uint32_t target;       /* being written; SEGMENT_NONE: none */
    struct batch *batch;   /* of the target */
    uint32_t batch_count;
    uint32_t batch_size; /* see batch_size_of_all */
    uint32_t next;       /* where the sweep goes on; SEGMENT_NONE: at the oldest */
    uint64_t refused;    /* of the log, when that was last looked at, */
    uint64_t pressed;    /* likewise */
    bool hunted;         /* a sweep for the sake of refused appends has come to its end */
    bool asked;          /* by others, whose appends are refused */
    bool sweeping;
    bool may_wrap; /* the sweep has not come to the history yet */
    bool short_of_memory;
    uint32_t moved_at;       /* history_first when it was last looked at */
    uint32_t count_at;       /* where counting goes on; SEGMENT_NONE: at the oldest */
    struct counts counting;  /* of the segments before that */
    struct counts counts;    /* when the last count ended, without what was swept since */
    uint64_t dead_bytes_max; /* above it a sweep begins */
};

struct compaction *compaction_open(uint64_t garbage_bytes_max)
{
    struct compaction *compaction = memory_take(sizeof *compaction);
    if (compaction == NULL) return NULL;
    *compaction = (struct compaction){.garbage_bytes_max = garbage_bytes_max,
                                      .source = SEGMENT_NONE,
                                      .target = SEGMENT_NONE,
                                      .next = SEGMENT_NONE,
                                      .moved_at = SEGMENT_NONE,
                                      .count_at = SEGMENT_NONE};
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

/* Bytes of the target's open batch; 0: there is none. */
static size_t target_batch_bytes(const struct compaction *compaction, const struct store *store)
{
    if (compaction->batch == NULL) return 0;
    const uint8_t *end =
        segment_base(store, compaction->target) + segment_at(store, compaction->target)->bytes;
    return (size_t)(end - (const uint8_t *)compaction->batch);
}

/* What is written to the target so far becomes one batch. */
static void target_seal(struct compaction *compaction, struct store *store)
{
    struct batch *batch = compaction->batch;
    if (batch == NULL) return;
    batch->length = (uint32_t)target_batch_bytes(compaction, store);
    batch->count = compaction->batch_count;
    batch->flags |= batch_alike_flag(compaction->batch_size);
    batch->checksum = batch_checksum(batch);
    compaction->batch = NULL;
    compaction->batch_count = 0;
    compaction->batch_size = 0;
}

/* The next survivor starts a new target. */
static void target_end(struct compaction *compaction, struct store *store)
{
    target_seal(compaction, store);
    compaction->target = SEGMENT_NONE;
}

static int target_open(struct compaction *compaction, struct store *store, size_t padded_bytes)
{
    uint32_t number = segments_take(store->segments, padded_bytes, 0);
    if (number == SEGMENT_NONE) return -ENOMEM;
    const struct segment *source = segment_at(store, compaction->source);
    struct segment *target = segment_at(store, number);
    target->seq = source->seq;
    target->stream_first = source->stream_first;
    target->rewritten = true;
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
                 size_t padded, uint32_t word)
{
    struct segments *segments = store->segments;
    struct segment *target = segment_at(store, compaction->target);
    uint8_t *to = segment_base(store, compaction->target) + target->bytes;
    uint64_t address = address_of(segments, to);
    uint32_t *head =
        &segments->slot_heads[(size_t)compaction->target * SEGMENT_SLOTS + change->slot];
    for (size_t line = 0; line < padded; line += CACHE_LINE)
        __builtin_prefetch(to + TARGET_AHEAD_BYTES + line, 1);
    memcpy(to, change, padded);
    *index_word(segments, address) = (word & ~INDEX_LINK) | *head;
    *head = index_place(address);
    target->bytes += (uint32_t)padded;
    target->changes_count++;
    compaction->batch_count++;
    compaction->batch_size = batch_size_of_all(compaction->batch_size, padded);
    if (index_is_superseded(word)) {
        target->dead_bytes += (uint32_t)padded;
        compaction->counts.dead_bytes += padded;
        return;
    }
    uint64_t from = address_of(segments, change);
    uint64_t *entry =
        change_is_deep(change) ? NULL : table_find_address(&store->table, change->key_hash, from);
    if (entry != NULL)
        store_release_u64(entry, entry_make(change->key_hash, address));
    else
        deep_moved(store, change, from, address);
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

/* Whether nobody can ask for the record at `address` any more, by what its index word says. */
static bool is_done_with(const struct store *store, uint64_t address, uint32_t word)
{
    if (index_is_unlinked(address, word)) return true;
    return index_is_superseded(word) && log_is_beyond_history(&store->log, word);
}

/* Makes room for a survivor, and a batch for it. */
static int target_ready(struct compaction *compaction, struct store *store, size_t padded)
{
    if (!target_has_room(compaction, store, padded)) {
        target_seal(compaction, store);
        if (target_open(compaction, store, padded) < 0) return -ENOMEM;
    }
    if (compaction->batch == NULL) {
        const uint8_t *source = segment_base(store, compaction->source);
        batch_start(compaction, store,
                    (const struct batch *)(const void *)(source + compaction->batch_start));
    }
    return 0;
}

/*
 * Takes the record at `source_at`; -ENOMEM leaves it for a later step. Most are done with, and of a
 * batch of records alike those are not even read.
 */
static int step_record(struct compaction *compaction, struct store *store)
{
    const struct change *change =
        (const struct change *)(segment_base(store, compaction->source) + compaction->source_at);
    uint64_t address = address_of(store->segments, change);
    uint32_t *word = index_word(store->segments, address);
    size_t padded =
        compaction->record_bytes > 0 ? compaction->record_bytes : change_padded_bytes(change);
    if (!is_done_with(store, address, *word)) {
        bool is_live = !index_is_superseded(*word);
        bool is_removal = change->type == FRAME_REMOVE || PLANTED("newest_dropped");
        if (is_live && is_removal && !change_is_deep(change)) {
            forget_key(store, change);
        } else {
            if (target_ready(compaction, store, padded) < 0) return -ENOMEM;
            move(compaction, store, change, padded, *word);
        }
    }
    index_unlink(word, address);
    compaction->source_at += (uint32_t)padded;
    return 0;
}

/* Fetches a record that will survive. */
static void fetch_survivor(const uint8_t *at, size_t padded)
{
    for (size_t line = 0; line < min_u64(padded, SURVIVOR_BYTES); line += CACHE_LINE)
        __builtin_prefetch(at + line);
}

/* Fetches what the next steps need: the table's buckets, and of records alike the next group. */
static void fetch_group(const struct compaction *compaction, const struct store *store)
{
    const struct segments *segments = store->segments;
    const uint8_t *base = segment_base(store, compaction->source);
    const uint8_t *at = base + compaction->source_at;
    const uint8_t *end = base + compaction->batch_end;
    size_t alike = compaction->record_bytes;
    for (unsigned i = 0; i < GROUP && at < end; i++) {
        const struct change *change = (const struct change *)at;
        uint64_t address = address_of(segments, at);
        size_t padded = alike > 0 ? alike : change_padded_bytes(change);
        uint32_t word = *index_word(segments, address);
        if (!index_is_superseded(word))
            __builtin_prefetch(table_bucket(&store->table, change->key_hash), 1);
        if (alike == 0) {
            __builtin_prefetch(at + READ_AHEAD * padded);
            if (!is_done_with(store, address, word)) fetch_survivor(at, padded);
        } else if (at + GROUP * alike < end) {
            uint64_t ahead = address + GROUP * alike;
            __builtin_prefetch(index_word(segments, address + WORDS_AHEAD * alike), 1);
            if (!is_done_with(store, ahead, *index_word(segments, ahead)))
                fetch_survivor(at + GROUP * alike, alike);
        }
        at += padded;
    }
}

static void count_out(struct counts *counts, const struct segment *segment)
{
    counts->dead_bytes -= min_u64(segment->dead_bytes, counts->dead_bytes);
}

/* Whether the count that is on its way has passed the segment: numbers grow along the log. */
static bool was_counted(const struct compaction *compaction, const struct store *store,
                        const struct segment *segment)
{
    return compaction->count_at != SEGMENT_NONE &&
           segment->seq < segment_at(store, compaction->count_at)->seq;
}

static void source_open(struct compaction *compaction, struct store *store, uint32_t number)
{
    const struct segment *segment = segment_at(store, number);
    ASSERT(segment->lenders == 0);
    compaction->source = number;
    compaction->source_at = 0;
    compaction->batch_end = 0;
    count_out(&compaction->counts, segment);
    if (was_counted(compaction, store, segment)) count_out(&compaction->counting, segment);
}

static void source_finish(struct compaction *compaction, struct store *store)
{
    uint32_t number = compaction->source;
    compaction->next = segment_at(store, number)->next;
    if (compaction->count_at == number) compaction->count_at = compaction->next;
    compaction->source = SEGMENT_NONE;
    log_unlink(&store->log, number);
    segments_put(store->segments, number);
}

/*
 * There is no memory for the survivor at hand. If it is the first of its source, which one of
 * several units is, the source stays as it is and the sweep goes on behind it: its neighbours may
 * be what makes room. True: another source may do.
 */
static bool source_give_up(struct compaction *compaction, struct store *store)
{
    if (compaction->source_at != BATCH_BYTES) return false;
    target_end(compaction, store);
    compaction->next = segment_at(store, compaction->source)->next;
    compaction->source = SEGMENT_NONE;
    return true;
}

static bool has_old_marks(const struct store *store, const struct segment *segment)
{
    return segment->first_dead_seq != 0 &&
           store->log.active_seq - segment->first_dead_seq > MARKS_AGE_MAX;
}

/* Dead bytes that were counted a whole history ago can go by now; counts them anew. */
static void ripen(const struct store *store, struct segment *segment)
{
    uint32_t history_seq = segment_at(store, store->log.history_first)->seq;
    if (segment->counted_seq >= history_seq) return;
    /* A truncation may have brought some of them back. */
    segment->ripe_bytes = (uint32_t)min_u64(segment->counted_bytes, segment->dead_bytes);
    segment->counted_bytes = segment->dead_bytes;
    segment->counted_seq = store->log.active_seq;
    if (segment->dead_bytes > 0 && segment->first_dead_seq == 0)
        segment->first_dead_seq = store->log.active_seq;
}

/*
 * Garbage costs memory, and less of it costs time: with as much of it as of live changes, one record
 * is moved for four that are appended; with three eighths, one for each. So a small log may have a
 * fixed amount; one of middle size, one and a half times what is live, as long as both together are
 * under 27 eighths of that amount; and a large one three eighths.
 */
static uint64_t dead_bytes_allowed(uint64_t garbage_bytes_max, uint64_t live_bytes)
{
    uint64_t small_bytes = garbage_bytes_max / 8 * SMALL_EIGHTHS;
    uint64_t middle = min_u64(live_bytes / 8 * GARBAGE_EIGHTHS_SMALL,
                              small_bytes - min_u64(live_bytes, small_bytes));
    uint64_t large = live_bytes / 8 * GARBAGE_EIGHTHS;
    return max_u64(garbage_bytes_max, max_u64(middle, large));
}

static void count_in(struct counts *counts, const struct compaction *compaction,
                     const struct store *store, uint32_t number)
{
    struct segment *segment = segment_at(store, number);
    counts->live_bytes += segment->bytes - segment->dead_bytes;
    if (!segment->compactable) return;
    ripen(store, segment);
    if (number == compaction->source) return;
    counts->bytes += segment->bytes;
    counts->dead_bytes += segment->dead_bytes;
    counts->ripe_bytes += segment->ripe_bytes;
    counts->has_old_marks = counts->has_old_marks || has_old_marks(store, segment);
}

/* Counts up to `segments` more; at the end of the log the count holds. */
static void count_some(struct compaction *compaction, const struct store *store, uint32_t segments)
{
    if (compaction->count_at == SEGMENT_NONE) {
        compaction->count_at = store->log.oldest;
        compaction->counting = (struct counts){0};
    }
    for (; segments > 0 && compaction->count_at != SEGMENT_NONE; segments--) {
        count_in(&compaction->counting, compaction, store, compaction->count_at);
        compaction->count_at = segment_at(store, compaction->count_at)->next;
    }
    if (compaction->count_at != SEGMENT_NONE) return;
    compaction->counts = compaction->counting;
    compaction->dead_bytes_max =
        dead_bytes_allowed(compaction->garbage_bytes_max, compaction->counts.live_bytes);
}

/*
 * What could be won only changes much when a segment leaves the history. True: one has, and some
 * more of the log was counted, so that no turn gets long.
 */
static bool count_garbage(struct compaction *compaction, const struct store *store)
{
    const struct segments *segments = store->segments;
    if (compaction->moved_at == store->log.history_first) return false;
    compaction->moved_at = store->log.history_first;
    compaction->short_of_memory =
        segments->units_used + segments->units_reserve + SHORT_UNITS >= segments->units_max;
    count_some(compaction, store, segments->units_used / COUNT_PART + COUNT_SEGMENTS);
    return true;
}

/* The same, but all of it at once. */
static void count_all(struct compaction *compaction, const struct store *store)
{
    compaction->moved_at = SEGMENT_NONE;
    compaction->count_at = SEGMENT_NONE;
    count_some(compaction, store, UINT32_MAX);
}

static bool sweep_begins(const struct compaction *compaction)
{
    const struct counts *counts = &compaction->counts;
    if (compaction->short_of_memory) return counts->dead_bytes >= SEGMENT_UNIT_BYTES;
    return counts->dead_bytes > compaction->dead_bytes_max || counts->has_old_marks;
}

static bool sweep_is_done(const struct compaction *compaction)
{
    return !compaction->short_of_memory && !compaction->counts.has_old_marks &&
           compaction->counts.dead_bytes <= compaction->dead_bytes_max / 8 * 7;
}

/* What of the segment can go. Where memory is short, what may go soon has to do. */
static uint32_t gain_of(const struct compaction *compaction, const struct segment *segment)
{
    return compaction->short_of_memory ? segment->dead_bytes : segment->ripe_bytes;
}

/* Bytes at the end of a segment that nothing was written to: a target's, or a large record's. */
static uint64_t empty_of(const struct segment *segment)
{
    return segment->units * SEGMENT_UNIT_BYTES - segment->bytes;
}

static bool is_worth_it(const struct compaction *compaction, const struct store *store,
                        const struct segment *segment)
{
    if (segment->lenders > 0) return false;
    if (has_old_marks(store, segment)) return true;
    uint32_t gain = gain_of(compaction, segment);
    if (compaction->short_of_memory)
        return gain + empty_of(segment) >= segment->bytes / GAIN_PART_MIN_SHORT;
    return gain >= segment->bytes / GAIN_PART_MIN &&
           (double)gain * (double)compaction->counts.bytes >=
               (double)segment->bytes * (double)compaction->counts.ripe_bytes;
}

/*
 * Whether the neighbours from `number` on that are worth it win a unit together. A target cannot
 * go on behind a segment that was passed over, since the log stays in order; so one alone, half of
 * which lives, would only become another one half of which is empty.
 */
static bool wins_a_unit(const struct compaction *compaction, const struct store *store,
                        uint32_t number)
{
    uint64_t won = 0;
    if (compaction->target != SEGMENT_NONE) return true;
    for (; number != store->log.history_first; number = segment_at(store, number)->next) {
        const struct segment *segment = segment_at(store, number);
        if (has_old_marks(store, segment)) return true;
        if (!is_worth_it(compaction, store, segment)) return false;
        won += empty_of(segment) + gain_of(compaction, segment);
        if (won >= SEGMENT_UNIT_BYTES) return true;
    }
    return false;
}

/* The next segment that is worth it, or SEGMENT_NONE at the end of the sweep. */
static uint32_t choose_source(struct compaction *compaction, struct store *store)
{
    uint32_t number = compaction->next != SEGMENT_NONE ? compaction->next : store->log.oldest;
    while (!sweep_is_done(compaction)) {
        if (number == store->log.history_first) {
            target_end(compaction, store);
            compaction->next = SEGMENT_NONE;
            number = store->log.oldest;
            if (!compaction->may_wrap || number == store->log.history_first) return SEGMENT_NONE;
            compaction->may_wrap = false;
        }
        const struct segment *segment = segment_at(store, number);
        compaction->next = number;
        if (is_worth_it(compaction, store, segment) && wins_a_unit(compaction, store, number))
            return number;
        target_end(compaction, store);
        number = segment->next;
    }
    return SEGMENT_NONE;
}

/* What could be won of the segments that are worth it if nothing had to stay for the history. */
static uint64_t gain_in_reach(const struct compaction *compaction, const struct store *store)
{
    uint64_t gain = 0;
    uint32_t number = store->log.oldest;
    for (; number != store->log.history_first; number = segment_at(store, number)->next) {
        const struct segment *segment = segment_at(store, number);
        if (is_worth_it(compaction, store, segment)) gain += gain_of(compaction, segment);
    }
    return gain;
}

/*
 * Whether appends were refused since it was last asked: then a sweep is to begin, and the garbage is
 * counted again, since it may have grown without a new segment. If they still are after the sweep,
 * the history is in the way: what superseded the dead is in it. A node that takes nothing any more
 * is worse than one with a short memory, so the history goes, and the active segment with it where
 * that wins more than its end leaves empty. Removals are not refused yet when they take what only they
 * may have: for them the history goes at once, since there is not much of that.
 */
static bool hunt(struct compaction *compaction, struct store *store)
{
    struct log *log = &store->log;
    bool is_pressed = compaction->pressed != log->pressed;
    if (compaction->refused == log->refused && !is_pressed && !compaction->asked) return false;
    compaction->refused = log->refused;
    compaction->pressed = log->pressed;
    compaction->asked = false;
    if (log->active == SEGMENT_NONE) return false; /* it has nothing that could go */
    if (compaction->hunted || is_pressed) {
        log_yield_history(log);
        count_all(compaction, store);
        uint64_t left_empty =
            SEGMENT_UNIT_BYTES - min_u64(segment_at(store, log->active)->bytes, SEGMENT_UNIT_BYTES);
        if (gain_in_reach(compaction, store) >= SEGMENT_UNIT_BYTES / 2 + left_empty &&
            log_end_active(log))
            log_yield_history(log);
    }
    compaction->hunted = !compaction->hunted;
    count_all(compaction, store);
    return true;
}

static bool source_ready(struct compaction *compaction, struct store *store)
{
    if (compaction->source != SEGMENT_NONE) return true;
    bool hunts = !compaction->sweeping && hunt(compaction, store);
    if (count_garbage(compaction, store) && !compaction->sweeping &&
        (hunts || sweep_begins(compaction))) {
        compaction->sweeping = true;
        compaction->may_wrap = true;
    }
    if (!compaction->sweeping) return false;
    uint32_t number = choose_source(compaction, store);
    if (number == SEGMENT_NONE) {
        target_end(compaction, store);
        compaction->sweeping = false;
        return false;
    }
    source_open(compaction, store, number);
    return true;
}

/*
 * Reads records of the source's batch, a few of them and not many more than `bytes_max` bytes.
 * -ENOMEM: the one at hand waits for a later step.
 */
static int step_group(struct compaction *compaction, struct store *store, size_t bytes_max)
{
    uint64_t end = min_u64(compaction->batch_end, compaction->source_at + bytes_max);
    fetch_group(compaction, store);
    for (unsigned i = 0; i < GROUP && compaction->source_at < end; i++)
        if (step_record(compaction, store) < 0) return -ENOMEM;
    return 0;
}

static void step_into_batch(struct compaction *compaction, struct store *store)
{
    /* Only here, so that the target never has more heads of batches than its sources had. */
    if (!compaction->short_of_memory && target_batch_bytes(compaction, store) >= TARGET_BATCH_BYTES)
        target_seal(compaction, store);
    const uint8_t *at = segment_base(store, compaction->source) + compaction->source_at;
    const struct batch *batch = (const struct batch *)(const void *)at;
    compaction->batch_start = compaction->source_at;
    compaction->batch_end += batch->length;
    compaction->record_bytes = batch_change_bytes(batch);
    compaction->source_at += (uint32_t)BATCH_BYTES;
}

void store_make_room(struct store *store)
{
    store->compaction->asked = true;
}

size_t store_compact(struct store *store, size_t bytes_max)
{
    struct compaction *compaction = store->compaction;
    size_t looked_at = 0;
    ASSERT(store->log.batch == NULL);
    while (looked_at < bytes_max && source_ready(compaction, store)) {
        uint32_t before = compaction->source_at;
        if (before == segment_at(store, compaction->source)->bytes)
            source_finish(compaction, store);
        else if (before == compaction->batch_end)
            step_into_batch(compaction, store);
        else {
            int err = step_group(compaction, store, bytes_max - looked_at);
            looked_at += compaction->source_at - before;
            if (err < 0 && !source_give_up(compaction, store)) break;
        }
    }
    return looked_at;
}

/* ---------------------------------------------------------------------------- for cursors */

bool compaction_reads(const struct store *store, uint32_t number)
{
    return store->compaction->source == number;
}

void compaction_seal(struct store *store, uint32_t number)
{
    if (store->compaction->target == number) target_seal(store->compaction, store);
}

int compaction_finish(struct store *store)
{
    struct compaction *compaction = store->compaction;
    while (compaction->source != SEGMENT_NONE) {
        if (compaction->source_at == segment_at(store, compaction->source)->bytes)
            source_finish(compaction, store);
        else if (compaction->source_at == compaction->batch_end)
            step_into_batch(compaction, store);
        else if (step_group(compaction, store, UINT32_MAX) < 0)
            return -ENOMEM;
    }
    return 0;
}
