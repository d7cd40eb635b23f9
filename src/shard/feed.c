/*
 * A feed is a cursor and a port. What it sends is no copy: a batch is a mail with the addresses of up
 * to 256 changes of one segment, which is lent to the thread until it gives the batch back. Changes
 * never change, and a lent segment stays, so the thread reads them where they lie, while the shard
 * goes on.
 *
 * Bounded. A feed has a fixed number of slots, one for each batch that its thread has not given back,
 * and the thread has promised room for all of them in its lane. A thread that does not give back is
 * sent nothing; the log goes on, and if it goes too far the thread is told of a gap and gets a
 * snapshot, as any slow subscriber. What is lent is at most a segment a slot.
 *
 * When the thread closes a feed, the shard takes back what it lent, whatever was given back by then.
 */
#include "shard/feed.h"

#include "base/assert.h"
#include "base/memory.h"
#include "ring/slot.h"
#include "shard/crossing.h"
#include "shard/mailbox.h"
#include "shard/shard.h"
#include "wire/stream.h"

/* Log that is looked at for one batch, and batches that one feed gets a turn. */
#define LOOK_BYTES (256 * KIB)
#define READS_MAX 256
/* A batch that lies in no segment: an event. */
#define NOTHING_LENT SEGMENT_NONE

struct feed {
    struct cursor cursor;
    struct feed *next;
    uint32_t from; /* the port, as mailbox_in has it */
    uint32_t number;
    uint32_t generation;
    uint32_t changes_max;
    uint32_t batches;
    uint32_t promised_bytes;
    bool until_live;
    bool is_live;
    bool in_snapshot;
    bool has_ended;
    uint32_t free_slots;             /* a bit each */
    uint32_t lent[FEED_BATCHES_MAX]; /* the segment of each slot that is not free */
    uint8_t prefix[];
};

/* -------------------------------------------------------------------------------------- mail */

static struct mail_feed_batch *push(struct shard *shard, const struct feed *feed, uint32_t changes,
                                    uint32_t slot)
{
    struct mail *mail =
        mailbox_try_push_to(shard->mailbox, feed->from, feed_batch_bytes(changes), MAIL_FEED_BATCH);
    ASSERT(mail != NULL); /* promised */
    struct mail_feed_batch *batch = (struct mail_feed_batch *)mail;
    mail->small = (uint16_t)slot;
    batch->feed = feed->number;
    batch->generation = feed->generation;
    batch->count = changes;
    batch->event = 0;
    batch->error = 0;
    batch->shard = (uint16_t)shard->index;
    batch->promised_bytes = 0;
    return batch;
}

static uint32_t slot_take(struct feed *feed, uint32_t segment)
{
    ASSERT(feed->free_slots != 0);
    uint32_t slot = (uint32_t)__builtin_ctz(feed->free_slots);
    feed->free_slots &= feed->free_slots - 1;
    feed->lent[slot] = segment;
    return slot;
}

/* There is a free slot. */
static void say(struct shard *shard, struct feed *feed, enum stream_event event)
{
    push(shard, feed, 0, slot_take(feed, NOTHING_LENT))->event = (uint8_t)event;
}

static void send_changes(struct shard *shard, struct feed *feed, const struct cursor_batch *found)
{
    uint32_t slot = slot_take(feed, found->segment);
    struct mail_feed_batch *batch = push(shard, feed, found->count, slot);
    cursor_lend(feed->cursor.store, found->segment);
    const struct change **changes = (const struct change **)(void *)(batch + 1);
    for (uint32_t i = 0; i < found->count; i++) changes[i] = found->changes[i];
    count(&shard->counters.streamed, found->count);
}

/* ------------------------------------------------------------------------- beginning and end */

static void take_back(struct feed *feed, uint32_t slot)
{
    ASSERT(slot < feed->batches && (feed->free_slots >> slot & 1) == 0);
    if (feed->lent[slot] != NOTHING_LENT) cursor_give_back(feed->cursor.store, feed->lent[slot]);
    feed->free_slots |= 1u << slot;
}

static void take_all_back(struct feed *feed)
{
    for (uint32_t slot = 0; slot < feed->batches; slot++)
        if ((feed->free_slots >> slot & 1) == 0) take_back(feed, slot);
}

/* The last that the thread hears of it; what it has read is still lent. */
static void end(struct shard *shard, struct feed *feed, enum reply_error error)
{
    struct mail_feed_batch *last = push(shard, feed, 0, FEED_BATCHES_MAX);
    last->event = STREAM_ENDED;
    last->error = (uint8_t)error;
    last->promised_bytes = feed->promised_bytes;
    feed->has_ended = true;
}

static struct feed **find(struct shard *shard, uint32_t from, uint32_t number, uint32_t generation)
{
    struct feed **link = &shard->feeds;
    while (*link != NULL && ((*link)->from != from || (*link)->number != number ||
                             (*link)->generation != generation))
        link = &(*link)->next;
    return link;
}

static void drop(struct feed **link)
{
    struct feed *feed = *link;
    *link = feed->next;
    take_all_back(feed);
    if (feed->cursor.store != NULL) cursor_close(&feed->cursor);
    memory_put(feed);
}

void feed_take_word(struct shard *shard, uint32_t from, const struct mail_feed_word *word)
{
    struct feed **link = find(shard, from, word->feed, word->generation);
    if (*link == NULL) return;
    shard->must_feed = true;
    shard->work++;
    if (word->mail.small != FEED_CLOSE) {
        take_back(*link, word->mail.small);
        return;
    }
    if (!(*link)->has_ended) end(shard, *link, ERROR_NONE);
    drop(link);
}

void feeds_end(struct shard *shard)
{
    while (shard->feeds != NULL) drop(&shard->feeds);
}

static void begin_snapshot(struct shard *shard, struct feed *feed)
{
    cursor_snapshot(&feed->cursor);
    feed->in_snapshot = true;
    feed->is_live = false;
    say(shard, feed, STREAM_SNAPSHOT_BEGIN);
}

/* The place that it asked for; false: it is not kept any more. */
static bool seek(struct feed *feed, const struct mail_feed_open *open)
{
    switch ((enum stream_from)open->from) {
    case STREAM_FROM_START: return cursor_seek_start(&feed->cursor);
    case STREAM_FROM_OFFSET: return cursor_seek_offset(&feed->cursor, open->offset);
    case STREAM_FROM_OLDEST: return cursor_seek_oldest(&feed->cursor);
    case STREAM_FROM_NOW:
    case STREAM_FROM_SNAPSHOT:
    case STREAM_FROM_POSITION:
    case STREAM_FROM_COUNT: break;
    }
    return true;
}

static struct cursor_filter filter_of(const struct mail_feed_open *open, const uint8_t *prefix)
{
    struct bytes key = {prefix, open->prefix_bytes};
    bool has_partition = key.size > 0 && (open->match == STREAM_MATCH_PATH ||
                                          memchr(key.data, '.', key.size) != NULL);
    return (struct cursor_filter){
        .slot = has_partition ? slot_of_key(key.data, key.size) : CURSOR_ALL_SLOTS,
        .match = open->match == STREAM_MATCH_PATH ? CURSOR_MATCH_PATH : CURSOR_MATCH_PREFIX,
        .prefix = key};
}

/* Its thread has checked what it asks for. */
void feed_open(struct shard *shard, uint32_t from, const struct mail_feed_open *open)
{
    ASSERT(open->cache < shard->caches_count);
    ASSERT(open->batches >= 3 && open->batches <= FEED_BATCHES_MAX);
    struct feed refused = {.from = from,
                           .number = open->feed,
                           .generation = open->generation,
                           .promised_bytes = open->promised_bytes};
    struct feed *feed = memory_take(sizeof *feed + open->prefix_bytes);
    shard->work++;
    if (feed == NULL) {
        end(shard, &refused, ERROR_NO_MEMORY);
        return;
    }
    *feed = refused;
    feed->changes_max = open->changes_max;
    feed->batches = open->batches;
    feed->until_live = open->until_live != 0;
    feed->free_slots = UINT32_MAX >> (32 - open->batches);
    memcpy(feed->prefix, open + 1, open->prefix_bytes);
    struct store *store = &shard->caches[open->cache]->store;
    struct cursor_filter filter = filter_of(open, feed->prefix);
    log_seal(&store->log);
    cursor_open(&feed->cursor, store, &filter);
    feed->next = shard->feeds;
    shard->feeds = feed;
    bool is_kept = seek(feed, open);
    say(shard, feed, is_kept ? STREAM_STARTED : STREAM_TRIMMED);
    if (!is_kept || open->from == STREAM_FROM_SNAPSHOT) begin_snapshot(shard, feed);
    shard->must_feed = true;
}

/* ----------------------------------------------------------------------------------- serving */

/* So many slots are free; events come in pairs. */
static bool has_slots(const struct feed *feed, int slots)
{
    return __builtin_popcount(feed->free_slots) >= slots;
}

/* There is nothing more for now. */
static void rest(struct shard *shard, struct feed *feed)
{
    if (feed->is_live || !has_slots(feed, 2)) return;
    if (feed->in_snapshot) say(shard, feed, STREAM_SNAPSHOT_END);
    feed->in_snapshot = false;
    say(shard, feed, STREAM_LIVE);
    feed->is_live = true;
    if (feed->until_live) end(shard, feed, ERROR_NONE);
}

/* Goes on after a loss; what comes now is all that it has to know. */
static void start_over(struct shard *shard, struct feed *feed, enum stream_event loss)
{
    say(shard, feed, loss);
    begin_snapshot(shard, feed);
}

/* Reads once and sends what it found. False: there is nothing more, or no room. */
static bool serve_some(struct shard *shard, struct feed *feed)
{
    struct cursor_batch batch;
    struct cursor_limits limits = {.changes_max = feed->changes_max,
                                   .bytes_max = SEGMENT_UNIT_BYTES,
                                   .look_bytes_max = LOOK_BYTES};
    if (!has_slots(feed, 2)) return false;
    switch (cursor_read(&feed->cursor, &limits, &batch)) {
    case CURSOR_CHANGES: send_changes(shard, feed, &batch); return true;
    case CURSOR_MORE: return true;
    case CURSOR_NO_MEMORY:
        /* In whichever turn comes next; compaction makes room meanwhile. */
        shard->must_feed = true;
        return false;
    case CURSOR_TRIMMED: start_over(shard, feed, STREAM_GAP); return true;
    case CURSOR_TRUNCATED: start_over(shard, feed, STREAM_TRUNCATED); return true;
    case CURSOR_CAUGHT_UP: break;
    }
    rest(shard, feed);
    return false;
}

static void serve(struct shard *shard, struct feed *feed)
{
    if (feed->has_ended) return;
    for (unsigned reads = 0; serve_some(shard, feed); reads++) {
        if (reads < READS_MAX) continue;
        shard->must_feed = true; /* the others first */
        shard->work++;
        return;
    }
}

void feeds_serve(struct shard *shard)
{
    if (LIKELY(shard->feeds == NULL)) return;
    if (shard->appended_bytes == 0 && !shard->must_feed) return;
    shard->must_feed = false;
    for (uint32_t i = 0; i < shard->caches_count; i++) cursors_bound(&shard->caches[i]->store);
    for (struct feed *feed = shard->feeds; feed != NULL; feed = feed->next) serve(shard, feed);
}
