/*
 * A feed has a place for every batch that the shards may send before one is given back, made when it
 * begins: so nothing is allocated afterwards, and a queue that is not taken from stops its feeds. A
 * batch's changes are read in the log's own memory, which the shard has lent; when all events of a
 * batch have been given back, so is the memory.
 */
#include "engine/feeding.h"

#include <time.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "engine/error.h"
#include "engine/host.h"
#include "engine/server.h"
#include "engine/stream.h"
#include "ring/slot.h"
#include "shard/crossing.h"
#include "wire/stream.h"

/* A feed needs a few batches at least, of one change each. */
#define BATCHES_MIN 4
_Static_assert(FERO_FROM_START == STREAM_FROM_START && FERO_FROM_OLDEST == STREAM_FROM_OLDEST &&
                   FERO_FROM_SNAPSHOT == STREAM_FROM_SNAPSHOT,
               "the same numbers");
/* Changes ahead that are fetched. */
#define AHEAD 4

struct arrival {
    struct pull_item item;
    struct feeding *feed;
    struct arrival *next_owed;
    uint32_t shard;
    uint32_t slot;
    uint32_t count; /* of changes; 1 for an event */
    uint32_t taken;
    uint32_t given;
    uint8_t event;
    uint8_t error;
    const struct change **changes;
};

struct feeding {
    struct host *host;
    fero_queue *queue;
    void *ud;
    uint32_t number;
    uint32_t generation;
    uint32_t batches; /* of each shard, beside the last event */
    uint32_t changes_max;
    size_t share;    /* of the queue's capacity */
    uint64_t shards; /* that send it, a bit each */
    uint64_t live;
    uint64_t ended;
    struct arrival *owed; /* given back, but the shard has not been told */
    struct arrival *all;
    size_t all_count;
    struct feeding *next; /* of the queue */
    const struct change **changes;
};

/* --------------------------------------------------------------------------------- telling shards */

static bool try_give_back(const struct arrival *batch)
{
    const struct feeding *feed = batch->feed;
    struct mail *mail = port_try_push(&feed->host->port, batch->shard,
                                      sizeof(struct mail_feed_word), MAIL_FEED_WORD);
    if (mail == NULL) return false;
    struct mail_feed_word *word = (struct mail_feed_word *)mail;
    mail->small = (uint16_t)batch->slot;
    word->feed = feed->number;
    word->generation = feed->generation;
    return true;
}

/* The shards go on taking mail whatever happens, so this ends soon. */
static void close_on(struct feeding *feed, uint32_t shard)
{
    struct timespec pause = {0, 50 * NS_PER_US};
    const struct arrival last = {.feed = feed, .shard = shard, .slot = FEED_CLOSE};
    while (!try_give_back(&last)) {
        host_publish(feed->host);
        nanosleep(&pause, NULL);
    }
}

bool feedings_owe(const struct host *host)
{
    for (uint32_t i = 0; i < FEEDS_MAX; i++)
        if (host->feedings.feeds[i] != NULL && host->feedings.feeds[i]->owed != NULL) return true;
    return false;
}

void feedings_retry(struct host *host)
{
    for (uint32_t i = 0; i < FEEDS_MAX; i++) {
        struct feeding *feed = host->feedings.feeds[i];
        while (feed != NULL && feed->owed != NULL && try_give_back(feed->owed))
            feed->owed = feed->owed->next_owed;
    }
}

/* -------------------------------------------------------------------------------------- arriving */

static struct arrival *batch_at(const struct feeding *feed, uint32_t shard, uint32_t slot)
{
    uint32_t at = slot == FEED_BATCHES_MAX ? feed->batches : slot;
    ASSERT(at <= feed->batches);
    return &feed->all[shard * (feed->batches + 1) + at];
}

void feeding_arrive(struct host *host, uint32_t shard, const struct mail_feed_batch *sent)
{
    ASSERT(sent->feed < FEEDS_MAX);
    struct feeding *feed = host->feedings.feeds[sent->feed];
    host->port.lanes[shard].promised_bytes -= sent->promised_bytes;
    /* Closed meanwhile: its shard takes all back. */
    if (feed == NULL || feed->generation != sent->generation) return;
    struct arrival *batch = batch_at(feed, shard, sent->mail.small);
    batch->slot = sent->mail.small;
    batch->event = sent->event;
    batch->error = sent->error;
    batch->count = sent->event != 0 ? 1 : sent->count;
    batch->taken = 0;
    batch->given = 0;
    ASSERT(sent->count <= feed->changes_max);
    const struct change *const *changes = (const struct change *const *)(const void *)(sent + 1);
    for (uint32_t i = 0; i < sent->count; i++) batch->changes[i] = changes[i];
    pull_push(feed->queue, &batch->item);
    host->finished++;
}

/* ---------------------------------------------------------------------------------- taking, giving */

static bool is_all(const struct feeding *feed, const struct arrival *batch)
{
    uint64_t there = batch->event == STREAM_LIVE ? feed->live | feed->ended : feed->ended;
    return (feed->shards & ~there) == 0;
}

static void write_event(fero_event *event, struct arrival *batch)
{
    struct feeding *feed = batch->feed;
    if (batch->event == STREAM_LIVE) feed->live |= (uint64_t)1 << batch->shard;
    if (batch->event == STREAM_SNAPSHOT_BEGIN) feed->live &= ~((uint64_t)1 << batch->shard);
    if (batch->event == STREAM_ENDED) feed->ended |= (uint64_t)1 << batch->shard;
    bool says_all = batch->event == STREAM_LIVE || batch->event == STREAM_ENDED;
    event->kind = FERO_EVENT_STREAM;
    event->stream = (fero_stream_event){.type = batch->event,
                                        .shard = (int32_t)batch->shard,
                                        .is_all = says_all && is_all(feed, batch),
                                        .error = -(int32_t)batch->error};
    event->ud = feed->ud;
    event->owner = &batch->item;
}

size_t feeding_take(struct pull_item *item, fero_event *events, size_t count, bool *is_empty)
{
    struct arrival *batch = (struct arrival *)item;
    uint32_t some = (uint32_t)min_u64(count, batch->count - batch->taken);
    if (batch->event != 0) {
        write_event(events, batch);
        batch->taken = 1;
        *is_empty = true;
        return 1;
    }
    const struct change **changes = batch->changes + batch->taken;
    uint32_t left = batch->count - batch->taken;
    for (uint32_t i = 0; i < some; i++) {
        if (i + AHEAD < left) {
            __builtin_prefetch(changes[i + AHEAD]);
            __builtin_prefetch((const uint8_t *)changes[i + AHEAD] + CACHE_LINE);
        }
        fero_event *event = &events[i];
        event->kind = FERO_EVENT_CHANGE;
        event->ud = batch->feed->ud;
        event->owner = item;
        event->change.shard = (int32_t)batch->shard;
        bool is_known = stream_read_change(&event->change, changes[i]);
        ASSERT(is_known);
    }
    batch->taken += some;
    *is_empty = batch->taken == batch->count;
    return some;
}

void feeding_give(struct pull_item *item)
{
    struct arrival *batch = (struct arrival *)item;
    ASSERT(batch->given < batch->taken);
    if (++batch->given < batch->count || batch->slot == FEED_BATCHES_MAX) return;
    if (batch->feed->host == NULL) return; /* the shards have taken all back */
    if (try_give_back(batch)) return;
    batch->next_owed = batch->feed->owed;
    batch->feed->owed = batch;
}

/* ----------------------------------------------------------------------------- beginning and end */

static void feed_free(struct feeding *feed)
{
    memory_put(feed->all);
    memory_put((void *)feed->changes);
    memory_put(feed);
}

static int make_batches(struct feeding *feed, uint32_t shards)
{
    size_t count = (size_t)shards * (feed->batches + 1);
    feed->all_count = count;
    feed->all = memory_take(count * sizeof *feed->all);
    feed->changes = memory_take(count * feed->changes_max * sizeof(void *));
    if (feed->all == NULL || feed->changes == NULL) return -1;
    for (size_t i = 0; i < count; i++)
        feed->all[i] = (struct arrival){.item = {.is_batch = true},
                                        .feed = feed,
                                        .shard = (uint32_t)(i / (feed->batches + 1)),
                                        .changes = feed->changes + i * feed->changes_max};
    return 0;
}

/* How many batches of how many changes, in half of the room that the queue has. */
static int choose_batches(struct feeding *feed, size_t room, uint32_t shards)
{
    size_t share = room / 2 / shards;
    if (share < BATCHES_MIN)
        return error_set(FERO_E_AGAIN,
                         "a queue with room for %zu is too small for a feed of %u shards", room,
                         shards);
    feed->changes_max = (uint32_t)max_u64(1, min_u64(CURSOR_CHANGES_MAX, share / BATCHES_MIN));
    feed->batches = (uint32_t)min_u64(FEED_BATCHES_MAX, share / feed->changes_max);
    feed->share = (size_t)feed->batches * feed->changes_max * shards;
    return 0;
}

static size_t open_bytes(const fero_stream_opts *opts)
{
    return round_up_8(sizeof(struct mail_feed_open) + opts->prefix.len);
}

/* Whether the lanes have room for the opening, and can promise what comes of it. */
static bool lanes_allow(struct host *host, const struct feeding *feed, const fero_stream_opts *opts)
{
    size_t allowed = host->hosts->options->lane_bytes - LANE_SLACK_BYTES;
    size_t promise = feed_promise_bytes(feed->batches, feed->changes_max);
    for (uint64_t left = feed->shards; left != 0; left &= left - 1) {
        struct port_lanes *lanes = &host->port.lanes[__builtin_ctzll(left)];
        uint64_t used = lanes->in.producer.tail - load_acquire_u64(&lanes->in.consumed.head);
        if (used + open_bytes(opts) > allowed || lanes->promised_bytes + promise > allowed)
            return false;
    }
    return true;
}

static void open_on(struct feeding *feed, uint32_t shard, uint32_t cache,
                    const fero_stream_opts *opts)
{
    struct host *host = feed->host;
    size_t promise = feed_promise_bytes(feed->batches, feed->changes_max);
    struct mail *mail = port_try_push(&host->port, shard, open_bytes(opts), MAIL_FEED_OPEN);
    ASSERT(mail != NULL); /* lanes_allow said so */
    struct mail_feed_open *open = (struct mail_feed_open *)mail;
    *open = (struct mail_feed_open){.mail = *mail,
                                    .feed = feed->number,
                                    .generation = feed->generation,
                                    .offset = opts->offset,
                                    .cache = (uint16_t)cache,
                                    .prefix_bytes = (uint16_t)opts->prefix.len,
                                    .from = (uint8_t)opts->from,
                                    .match = opts->match == FERO_MATCH_PATH ? STREAM_MATCH_PATH
                                                                            : STREAM_MATCH_PREFIX,
                                    .until_live = opts->until_live != 0,
                                    .batches = (uint8_t)feed->batches,
                                    .changes_max = feed->changes_max,
                                    .promised_bytes = (uint32_t)promise};
    if (opts->prefix.len > 0) memcpy(open + 1, opts->prefix.ptr, opts->prefix.len);
    host->port.lanes[shard].promised_bytes += promise;
}

static int start(struct feeding *feed, uint32_t cache, const fero_stream_opts *opts)
{
    struct host *host = feed->host;
    int err = host_enter(host);
    if (err < 0) return err;
    while (feed->batches > BATCHES_MIN && !lanes_allow(host, feed, opts)) feed->batches--;
    if (lanes_allow(host, feed, opts)) {
        for (uint64_t left = feed->shards; left != 0; left &= left - 1)
            open_on(feed, (uint32_t)__builtin_ctzll(left), cache, opts);
        host_publish(host);
    } else {
        err = error_set(FERO_E_AGAIN, "the lanes have no room for a feed: raise lane.bytes");
    }
    host_exit(host);
    return err;
}

static int check_opts(const fero_stream_opts *opts, size_t key_bytes_max)
{
    if (opts->prefix.len > key_bytes_max)
        return error_set(FERO_E_TOOBIG, "a prefix of %zu bytes is over the node's limit of %zu",
                         opts->prefix.len, key_bytes_max);
    if (opts->change != NULL || opts->event != NULL || opts->credit_bytes != 0)
        return error_set(FERO_E_INVAL,
                         "a feed has no callbacks and no credit: its queue bounds it");
    if (opts->from == FERO_FROM_OFFSET && !stream_has_partition(opts))
        return error_set(FERO_E_INVAL, "an offset is that of a partition: name one as the prefix");
    return stream_check_opts(opts);
}

/* The shards that have such keys, a bit each. */
static uint64_t shards_of(const struct hosts *hosts, const fero_stream_opts *opts)
{
    uint32_t count = hosts->options->shards_count;
    if (!stream_has_partition(opts)) return UINT64_MAX >> (64 - count);
    return (uint64_t)1 << hosts->slot_owner[slot_of_key(opts->prefix.ptr, opts->prefix.len)];
}

int fero_queue_feed(fero_queue *queue, fero_cache *handle, const fero_stream_opts *given)
{
    const struct server_cache *cache = (const struct server_cache *)handle;
    fero_stream_opts opts = {0};
    struct host *host;
    if (queue == NULL || cache == NULL)
        return error_set(FERO_E_INVAL, "fero_queue_feed needs a queue and a cache");
    if (cache->head.kind == RUNTIME_CLIENT)
        return error_set(FERO_E_UNSUPPORTED, "a client has no state of its own: fero_subscribe");
    if (given != NULL) memcpy(&opts, given, min_u64(given->size, sizeof opts));
    int err = check_opts(&opts, cache->hosts->options->key_bytes_max);
    if (err < 0 || (err = host_here(cache->hosts, &host)) < 0) return err;
    if (pull_owner_of(queue).host != host)
        return error_set(FERO_E_INVAL, "the queue belongs to another runtime or thread");
    uint32_t number = 0;
    while (number < FEEDS_MAX && host->feedings.feeds[number] != NULL) number++;
    struct feeding *feed = number < FEEDS_MAX ? memory_take(sizeof *feed) : NULL;
    if (feed == NULL)
        return error_set(FERO_E_NOMEM, "no memory for a feed, or over %d of a thread", FEEDS_MAX);
    feed->host = host;
    feed->queue = queue;
    feed->ud = opts.ud;
    feed->number = number;
    feed->generation = ++host->feedings.generation;
    feed->shards = shards_of(cache->hosts, &opts);
    uint32_t shards = (uint32_t)__builtin_popcountll(feed->shards);
    err = choose_batches(feed, pull_room(queue), shards);
    if (err == 0 && make_batches(feed, cache->hosts->options->shards_count) < 0)
        err = error_set(FERO_E_NOMEM, "no memory for the batches of a feed");
    if (err == 0) err = start(feed, cache->definition.number, &opts);
    if (err < 0) {
        feed_free(feed);
        return err;
    }
    pull_reserve(queue, (int64_t)feed->share);
    host->feedings.feeds[number] = feed;
    struct feeding **feeds = pull_feeds(queue);
    feed->next = *feeds;
    *feeds = feed;
    return 0;
}

/* It sends no more, and what it has sent is no longer good. Its memory stays with the queue. */
static void close_feed(struct feeding *feed)
{
    struct host *host = feed->host;
    if (host_enter(host) == 0) {
        for (uint64_t left = feed->shards; left != 0; left &= left - 1)
            close_on(feed, (uint32_t)__builtin_ctzll(left));
        host_publish(host);
        host_exit(host);
    }
    host->feedings.feeds[feed->number] = NULL;
    feed->host = NULL;
    pull_reserve(feed->queue, -(int64_t)feed->share);
    pull_drop(feed->queue, feed->all, feed->all + feed->all_count);
}

void feedings_close(struct host *host, const fero_queue *queue)
{
    for (uint32_t i = 0; i < FEEDS_MAX; i++) {
        struct feeding *feed = host->feedings.feeds[i];
        if (feed != NULL && (queue == NULL || feed->queue == queue)) close_feed(feed);
    }
}

void feedings_free(struct feeding *feeds)
{
    while (feeds != NULL) {
        struct feeding *next = feeds->next;
        feed_free(feeds);
        feeds = next;
    }
}
