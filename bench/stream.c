/*
 * How fast do changes leave a shard? In four ways, one after the other:
 *
 *   pulled    a cursor over a shard's log, in batches of pointers, each record read
 *   queue     a thread of the node's program takes a loaded log from a queue, in batches, and looks
 *             at each key and value
 *   history   one subscriber over TCP catches up with a loaded log
 *   live      a client updates as fast as it can, and receives its own changes
 *
 * The node and its client are in this process, on threads of their own; TCP is loopback.
 */
#include <stddef.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "bench/bench.h"
#include "bench/feeder.h"
#include "cli/command.h"
#include "fero.h"
#include "shard/cursor.h"

#define MESSAGE_BYTES_MAX (16 * KIB)
/* Header of a record, and what it takes of the index. */
#define RECORD_BYTES 72
#define KEYS 100000
#define LIVE_WAIT_MS 10000
#define QUEUE_CAPACITY 32768
#define QUEUE_BATCH 1024

struct stream_options {
    int64_t messages;
    int64_t size;
    bool json;
};

static const char *const way_names[] = {"pulled", "queue", "history", "live"};
enum way { WAY_PULLED, WAY_QUEUE, WAY_HISTORY, WAY_LIVE };

static void print_figures(const struct stream_options *options, enum way way, uint64_t changes,
                          uint64_t spent_ns)
{
    double per_s = (double)changes * 1e9 / (double)spent_ns;
    if (options->json)
        printf("{\"bench\":\"stream\",\"way\":\"%s\",\"message_bytes\":%lld,\"changes\":%llu,"
               "\"changes_per_s\":%.0f}\n",
               way_names[way], (long long)options->size, (unsigned long long)changes, per_s);
    else
        printf("%-8s %llu changes of %lld bytes: %.2f M/s\n", way_names[way],
               (unsigned long long)changes, (long long)options->size, per_s / 1e6);
}

/* ----------------------------------------------------------------------------- pulled batches */

static size_t history_bytes(const struct stream_options *options)
{
    return (size_t)options->messages * ((size_t)options->size + RECORD_BYTES) + 64 * MIB;
}

/* Reads every record, so that its line must come from memory. */
static uint64_t pull(struct store *store, uint64_t *sum)
{
    const struct cursor_limits limits = {
        .changes_max = CURSOR_CHANGES_MAX, .bytes_max = SIZE_MAX, .look_bytes_max = 1 * MIB};
    const struct cursor_filter filter = {.slot = CURSOR_ALL_SLOTS};
    struct cursor_batch batch;
    struct cursor cursor;
    uint64_t changes = 0;
    enum cursor_answer answer;
    cursor_open(&cursor, store, &filter);
    ASSERT(cursor_seek_start(&cursor));
    while ((answer = cursor_read(&cursor, &limits, &batch)) != CURSOR_CAUGHT_UP) {
        ASSERT(answer == CURSOR_CHANGES || answer == CURSOR_MORE);
        for (uint32_t i = 0; i < batch.count; i++)
            *sum += change_offset(batch.changes[i]) + change_value(batch.changes[i])[0];
        changes += batch.count;
    }
    cursor_close(&cursor);
    return changes;
}

static void run_pulled(const struct stream_options *options)
{
    struct feeder *feeder = memory_take(sizeof *feeder);
    ASSERT(feeder != NULL);
    struct feeder_options wanted = {.shards_count = 1,
                                    .keys = KEYS,
                                    .message_bytes = (size_t)options->size,
                                    .log_bytes_max = history_bytes(options) * 2,
                                    .history_bytes_max = history_bytes(options),
                                    .garbage_bytes_max = history_bytes(options)};
    uint64_t sum = 0;
    feeder_open(feeder, &wanted);
    feeder_feed(feeder, FEEDER_UPDATE, (uint64_t)options->messages, feeder_key_at_random, NULL,
                NULL);
    uint64_t before_ns = clock_now_ns();
    uint64_t changes = pull(&feeder->shards[0]->caches[0]->store, &sum);
    uint64_t spent_ns = clock_now_ns() - before_ns;
    ASSERT(changes == (uint64_t)options->messages && sum > changes);
    print_figures(options, WAY_PULLED, changes, spent_ns);
    feeder_close(feeder);
    memory_put(feeder);
}

/* ----------------------------------------------------------------------------------- over TCP */

struct subscriber {
    uint64_t changes;
    bool is_live;
};

static void on_change(const fero_change *change, void *ud)
{
    struct subscriber *subscriber = ud;
    subscriber->changes += change->key.len > 0;
}

static void on_event(const fero_stream_event *event, void *ud)
{
    struct subscriber *subscriber = ud;
    if (event->type == FERO_STREAM_LIVE) subscriber->is_live = true;
}

struct pair {
    fero *node;
    fero *client;
    fero_cache *own; /* the node's */
    fero_cache *cache;
    uint8_t value[MESSAGE_BYTES_MAX];
};

static int pair_open(struct pair *pair, const struct stream_options *options)
{
    fero_runtime_opts node_opts = {.size = sizeof node_opts,
                                   .shards = 1,
                                   .memory_max_bytes = (int64_t)history_bytes(options) * 3,
                                   .history_max_bytes = (int64_t)history_bytes(options)};
    int err = fero_start(&node_opts, &pair->node);
    if (err < 0) return err;
    const char *seeds[] = {fero_address(pair->node), NULL};
    fero_runtime_opts client_opts = {.size = sizeof client_opts, .client = 1, .seeds = seeds};
    if ((err = fero_open(pair->node, "demo", NULL, &pair->own)) < 0) return err;
    if ((err = fero_start(&client_opts, &pair->client)) < 0) return err;
    return fero_open(pair->client, "demo", NULL, &pair->cache);
}

static void pair_close(struct pair *pair)
{
    if (pair->client != NULL) fero_stop(pair->client, 0);
    if (pair->node != NULL) fero_stop(pair->node, 0);
}

static int update(struct pair *pair, const struct stream_options *options, uint64_t number)
{
    char key[FEEDER_KEY_BYTES];
    uint64_t mixed = number % KEYS * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < sizeof key; i++) key[i] = "0123456789abcdef"[mixed >> (60 - 4 * i) & 15];
    fero_val value = {.type = FERO_T_BYTES, .s = {pair->value, (size_t)options->size - sizeof key}};
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY};
    return fero_update(pair->cache, (fero_slice){key, sizeof key}, &value, &wopts, NULL);
}

/* Makes so many updates and, with a subscriber, goes on until he has all of them. */
static int feed(struct pair *pair, const struct stream_options *options,
                const struct subscriber *subscriber)
{
    uint64_t messages = (uint64_t)options->messages;
    fero_counts counts = {0};
    fero_counts before;
    fero_counts_get(pair->cache, &before);
    for (uint64_t sent = 0; sent < messages || counts.sacks - before.sacks < messages ||
                            (subscriber != NULL && subscriber->changes < messages);) {
        int err = sent < messages ? update(pair, options, sent) : FERO_E_AGAIN;
        if (err == 0) {
            sent++;
            continue;
        }
        if (err != FERO_E_AGAIN) return err;
        err = fero_run(pair->client, LIVE_WAIT_MS);
        if (err <= 0) return err < 0 ? err : FERO_E_TIMEOUT;
        fero_counts_get(pair->cache, &counts);
    }
    return 0;
}

static int subscribe(struct pair *pair, struct subscriber *subscriber, int32_t from,
                     fero_stream **stream)
{
    fero_stream_opts opts = {.size = sizeof opts,
                             .from = from,
                             .change = on_change,
                             .event = on_event,
                             .ud = subscriber};
    return fero_subscribe(pair->cache, &opts, stream);
}

/* Takes from the queue until the feed has ended. */
static int take_all(fero_queue *queue, struct subscriber *subscriber, uint64_t *sum)
{
    static fero_event events[QUEUE_BATCH];
    while (!subscriber->is_live) {
        int64_t taken = fero_queue_take(queue, events, QUEUE_BATCH, LIVE_WAIT_MS);
        if (taken <= 0) return taken < 0 ? (int)taken : FERO_E_TIMEOUT;
        for (int64_t i = 0; i < taken; i++) {
            const fero_event *event = &events[i];
            if (event->kind == FERO_EVENT_CHANGE) {
                const uint8_t *value = event->change.value.s.ptr;
                *sum += *(const uint8_t *)event->change.key.ptr + *value;
                subscriber->changes++;
            } else if (event->stream.type == FERO_STREAM_ENDED) {
                subscriber->is_live = true;
            }
        }
        fero_queue_give(queue, events, (size_t)taken);
    }
    return 0;
}

static int drain(struct pair *pair, const struct stream_options *options)
{
    struct subscriber subscriber = {0};
    fero_queue *queue = NULL;
    fero_stream_opts opts = {.size = sizeof opts, .from = FERO_FROM_START, .until_live = 1};
    uint64_t sum = 0;
    int err = fero_queue_open(pair->node, QUEUE_CAPACITY, &queue);
    uint64_t before_ns = clock_now_ns();
    if (err == 0) err = fero_queue_feed(queue, pair->own, &opts);
    if (err == 0) err = take_all(queue, &subscriber, &sum);
    uint64_t spent_ns = clock_now_ns() - before_ns;
    fero_queue_close(queue);
    if (err < 0) return err;
    ASSERT(subscriber.changes == (uint64_t)options->messages && sum > subscriber.changes);
    print_figures(options, WAY_QUEUE, subscriber.changes, spent_ns);
    return 0;
}

static int catch_up(struct pair *pair, const struct stream_options *options)
{
    struct subscriber subscriber = {0};
    fero_stream *stream = NULL;
    uint64_t before_ns = clock_now_ns();
    int err = subscribe(pair, &subscriber, FERO_FROM_START, &stream);
    while (err == 0 && !subscriber.is_live) {
        int done = fero_run(pair->client, LIVE_WAIT_MS);
        if (done <= 0) err = done < 0 ? done : FERO_E_TIMEOUT;
    }
    uint64_t spent_ns = clock_now_ns() - before_ns;
    fero_stream_free(stream);
    if (err < 0) return err;
    ASSERT(subscriber.changes == (uint64_t)options->messages);
    print_figures(options, WAY_HISTORY, subscriber.changes, spent_ns);
    return 0;
}

static int follow(struct pair *pair, const struct stream_options *options)
{
    struct subscriber subscriber = {0};
    fero_stream *stream = NULL;
    int err = subscribe(pair, &subscriber, FERO_FROM_NOW, &stream);
    while (err == 0 && !subscriber.is_live) {
        int done = fero_run(pair->client, LIVE_WAIT_MS);
        if (done < 0) err = done;
    }
    uint64_t before_ns = clock_now_ns();
    if (err == 0) err = feed(pair, options, &subscriber);
    uint64_t spent_ns = clock_now_ns() - before_ns;
    fero_stream_free(stream);
    if (err < 0) return err;
    print_figures(options, WAY_LIVE, subscriber.changes, spent_ns);
    return 0;
}

static int run_tcp(const struct command *command, const struct stream_options *options)
{
    struct pair *pair = memory_take(sizeof *pair);
    ASSERT(pair != NULL);
    int err = pair_open(pair, options);
    if (err == 0) err = feed(pair, options, NULL);
    if (err == 0) err = drain(pair, options);
    if (err == 0) err = catch_up(pair, options);
    if (err == 0) err = follow(pair, options);
    if (err < 0) complain(command, "%s", fero_errmsg());
    pair_close(pair);
    memory_put(pair);
    return err < 0 ? STATUS_NOT_FOUND : STATUS_OK;
}

/* clang-format off */
#define FIELD(field) .offset = offsetof(struct stream_options, field)
static const struct option_spec stream_specs[] = {
    {.name = "messages", .kind = OPTION_SIZE, FIELD(messages), .shows = "N", .low = 1000,
     .high = 20000000, .help = "changes of each kind (4000000)"},
    {.name = "size", .letter = 'm', .kind = OPTION_SIZE, FIELD(size), .shows = "BYTES",
     .low = FEEDER_KEY_BYTES + 1, .high = MESSAGE_BYTES_MAX, .help = "of key and value (100)"},
    {.name = "json", .kind = OPTION_FLAG, FIELD(json), .help = "print one JSON object a line"},
};
/* clang-format on */

static const struct command command_stream = {
    .name = "bench stream",
    .arguments = "",
    .summary = "how fast changes reach a subscriber",
    .details =
        "Pulled in batches from a log in this thread; taken from a queue by a thread of the\n"
        "node's own program; over TCP, catching up with a history; and\n"
        "over TCP, live, beside the updates of the same client. One shard.",
    .options = stream_specs,
    .options_count = ARRAY_COUNT(stream_specs),
    .examples = {"fero bench stream", "fero bench stream -m 1000 --messages 500000",
                 "fero bench stream --json"},
};

int bench_stream_main(int argc, char **argv)
{
    struct stream_options options = {.messages = 4000000, .size = 100};
    int count;
    int status = command_parse(&command_stream, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    run_pulled(&options);
    return run_tcp(&command_stream, &options);
}
