/*
 * A thread of the program that takes all changes of a node from a queue, while others make them, and
 * that begins anew with another queue now and then. Run under ThreadSanitizer too (make tsan).
 *
 * Each writer's keys count up, so of each key the consumer must see every number once and in order,
 * or, where it was too slow, a snapshot that jumps ahead.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/ck.h"
#include "base/clock.h"
#include "base/rng.h"
#include "fero.h"

#define WRITERS 2
#define KEYS 64
#define RUN_NS (700 * NS_PER_MS)
#define WAIT_MS 20000

struct writer {
    fero *rt;
    fero_cache *cache;
    uint64_t number;
    uint64_t end_ns;
    uint64_t counts[KEYS];
};

static void *write_counts(void *argument)
{
    struct writer *writer = argument;
    uint64_t words[40];
    struct rng rng;
    rng_init(&rng, writer->number);
    while (clock_now_ns() < writer->end_ns) {
        char name[8];
        uint64_t key = rng_below(&rng, KEYS);
        uint64_t count = ++writer->counts[key];
        size_t some = 1 + rng_below(&rng, 40);
        for (size_t i = 0; i < some; i++) words[i] = count;
        fero_val value = {.type = FERO_T_BYTES, .s = {words, some * 8}};
        snprintf(name, sizeof name, "%d:%d", (int)writer->number, (int)key);
        int err;
        while ((err = fero_update(writer->cache, fero_str(name), &value, NULL, NULL)) ==
               FERO_E_AGAIN)
            fero_run(writer->rt, 1);
        ASSERT(err == 0);
    }
    return NULL;
}

struct reader {
    uint64_t seen[WRITERS][KEYS];
    uint64_t changes;
    uint64_t gaps;
    bool jumps; /* a snapshot has begun, and not ended */
};

static void see(struct reader *reader, const fero_change *change)
{
    int writer;
    int key;
    char name[8];
    ASSERT(change->key.len < sizeof name);
    memcpy(name, change->key.ptr, change->key.len);
    name[change->key.len] = 0;
    ASSERT(sscanf(name, "%d:%d", &writer, &key) == 2);
    const uint64_t *words = change->value.s.ptr;
    for (size_t i = 0; i < change->value.s.len / 8; i++) ASSERT(words[i] == words[0]);
    uint64_t *seen = &reader->seen[writer][key];
    ASSERT(words[0] == *seen + 1 || (reader->jumps && words[0] > *seen));
    *seen = words[0];
    reader->changes++;
}

/* Takes once; returns how much. */
static int64_t take(struct reader *reader, fero_queue *queue, struct rng *rng, int64_t timeout_ms)
{
    static fero_event events[300];
    int64_t taken = fero_queue_take(queue, events, 1 + rng_below(rng, 300), timeout_ms);
    ASSERT(taken >= 0);
    for (int64_t i = 0; i < taken; i++) {
        if (events[i].kind == FERO_EVENT_CHANGE) {
            see(reader, &events[i].change);
            continue;
        }
        if (events[i].stream.type == FERO_STREAM_GAP) reader->gaps++;
        if (events[i].stream.type == FERO_STREAM_SNAPSHOT_BEGIN) reader->jumps = true;
    }
    fero_queue_give(queue, events, (size_t)taken);
    return taken;
}

static bool has_seen_all(const struct reader *reader, const struct writer *writers)
{
    for (int i = 0; i < WRITERS; i++)
        if (memcmp(reader->seen[i], writers[i].counts, sizeof writers[i].counts) != 0) return false;
    return true;
}

static void run(int shards, size_t capacity)
{
    fero_runtime_opts opts = {.size = sizeof opts,
                              .shards = shards,
                              .memory_max_bytes = (int64_t)128 << 20,
                              .history_max_bytes = (int64_t)16 << 20};
    struct writer writers[WRITERS];
    static struct reader reader;
    pthread_t threads[WRITERS];
    fero *rt;
    fero_cache *cache;
    fero_queue *queue;
    memset(&reader, 0, sizeof reader);
    int err = fero_start(&opts, &rt);
    if (err == FERO_E_SYS) skip();
    assert_int_equal(err, 0);
    assert_int_equal(fero_open(rt, "stress", NULL, &cache), 0);
    /* One that is closed in the middle of everything. */
    uint64_t end_ns = clock_now_ns() + RUN_NS;
    fero_stream_opts from = {.size = sizeof from, .from = FERO_FROM_START};
    assert_int_equal(fero_queue_open(rt, capacity, &queue), 0);
    assert_int_equal(fero_queue_feed(queue, cache, &from), 0);
    for (uint64_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.rt = rt, .cache = cache, .number = i, .end_ns = end_ns};
        assert_int_equal(pthread_create(&threads[i], NULL, write_counts, &writers[i]), 0);
    }
    for (int i = 0; i < 20; i++) {
        fero_event events[16];
        int64_t taken = fero_queue_take(queue, events, 16, 10);
        assert_true(taken >= 0);
        if (i % 2 == 0) fero_queue_give(queue, events, (size_t)taken);
        if (i % 5 != 4) continue;
        fero_queue_close(queue);
        assert_int_equal(fero_queue_open(rt, capacity, &queue), 0);
        assert_int_equal(fero_queue_feed(queue, cache, &from), 0);
    }
    struct rng rng;
    rng_init(&rng, 9);
    while (clock_now_ns() < end_ns) take(&reader, queue, &rng, 10);
    for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    while (!has_seen_all(&reader, writers)) assert_true(take(&reader, queue, &rng, WAIT_MS) > 0);
    print_message("%d shards: %lu changes, %lu gaps\n", shards, (unsigned long)reader.changes,
                  (unsigned long)reader.gaps);
    fero_queue_close(queue);
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void one_shard_and_a_large_queue(void **unused)
{
    (void)unused;
    run(1, 16384);
}

static void two_shards_and_a_small_queue(void **unused)
{
    (void)unused;
    run(2, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_shard_and_a_large_queue),
        cmocka_unit_test(two_shards_and_a_small_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
