/*
 * Changes of a node that a thread of its own program takes from a queue.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "fero.h"

#define WAIT_MS 20000
#define KEYS 400

static struct {
    fero *rt;
    fero_cache *cache;
    fero_queue *queue;
    uint64_t offsets[KEYS]; /* of the last change seen of each key */
    uint64_t values[KEYS];
    uint64_t changes;
    int32_t events[16]; /* how often each came */
    int32_t ends;       /* of all shards */
} test;

static void begin(int shards, size_t capacity)
{
    fero_runtime_opts opts = {.size = sizeof opts,
                              .shards = shards,
                              .memory_max_bytes = (int64_t)256 << 20,
                              .idle = FERO_IDLE_SLEEP};
    memset(&test, 0, sizeof test);
    int err = fero_start(&opts, &test.rt);
    if (err == FERO_E_SYS) skip();
    assert_int_equal(err, 0);
    assert_int_equal(fero_open(test.rt, "demo", NULL, &test.cache), 0);
    assert_int_equal(fero_queue_open(test.rt, capacity, &test.queue), 0);
}

static void finish(void)
{
    fero_queue_close(test.queue);
    assert_int_equal(fero_stop(test.rt, 0), 0);
}

static void set(unsigned key, uint64_t number)
{
    char name[16];
    fero_val value = {.type = FERO_T_INT64, .i64 = (int64_t)number};
    int err;
    snprintf(name, sizeof name, "k%u", key);
    while ((err = fero_update(test.cache, fero_str(name), &value, NULL, NULL)) == FERO_E_AGAIN)
        fero_run(test.rt, 1);
    assert_int_equal(err, 0);
}

/* What was given before is done, and the turn in which it was. */
static void settle(void)
{
    for (int i = 0; i < 2; i++) {
        fero_op *op;
        assert_int_equal(fero_get(test.cache, fero_str("k0"), NULL, &op), 0);
        assert_int_equal(fero_wait(op, WAIT_MS, NULL), 0);
        fero_op_free(op);
    }
}

static void feed(int32_t from, int32_t until_live)
{
    fero_stream_opts opts = {
        .size = sizeof opts, .from = from, .until_live = until_live, .ud = &test};
    if (fero_queue_feed(test.queue, test.cache, &opts) < 0) fail_msg("%s", fero_errmsg());
}

static void see_change(const fero_change *change)
{
    char name[16];
    assert_in_range(change->key.len, 2, 15);
    memcpy(name, change->key.ptr, change->key.len);
    name[change->key.len] = 0;
    unsigned key = (unsigned)atoi(name + 1);
    assert_in_range(key, 0, KEYS - 1);
    assert_true(change->offset > test.offsets[key]);
    test.offsets[key] = change->offset;
    test.values[key] = change->type == FERO_CHANGE_REMOVE ? 0 : (uint64_t)change->value.i64;
    test.changes++;
}

/* Takes what there is, up to `count` at a time; returns how much. */
static int64_t take(size_t count, int64_t timeout_ms)
{
    fero_event events[1000];
    int64_t taken = fero_queue_take(test.queue, events, count, timeout_ms);
    assert_true(taken >= 0);
    for (int64_t i = 0; i < taken; i++) {
        assert_ptr_equal(events[i].ud, &test);
        if (events[i].kind == FERO_EVENT_CHANGE) {
            see_change(&events[i].change);
            continue;
        }
        assert_int_equal(events[i].kind, FERO_EVENT_STREAM);
        test.events[events[i].stream.type]++;
        if (events[i].stream.type == FERO_STREAM_ENDED && events[i].stream.is_all) test.ends++;
    }
    fero_queue_give(test.queue, events, (size_t)taken);
    return taken;
}

static void everything_comes_once_and_in_order(void **unused)
{
    (void)unused;
    const int kinds[] = {FERO_INLINE, 1, 3};
    const size_t batches[] = {1, 7, 1000};
    for (size_t kind = 0; kind < ARRAY_COUNT(kinds); kind++) {
        for (size_t at = 0; at < ARRAY_COUNT(batches); at++) {
            begin(kinds[kind], 4096);
            for (uint64_t i = 1; i <= 5000; i++) set((unsigned)(i % KEYS), i);
            feed(FERO_FROM_START, 0);
            for (uint64_t i = 5001; i <= 10000; i++) {
                set((unsigned)(i % KEYS), i);
                if (i % 100 == 0) take(batches[at], 0);
            }
            while (test.changes < 10000) assert_true(take(batches[at], WAIT_MS) > 0);
            for (unsigned key = 0; key < KEYS; key++) {
                assert_int_equal(test.offsets[key], 10000 / KEYS);
                assert_true(test.values[key] > 10000 - KEYS);
            }
            assert_int_equal(test.events[FERO_STREAM_GAP], 0);
            int shards = kinds[kind] < 0 ? 1 : kinds[kind];
            assert_int_equal(test.events[FERO_STREAM_STARTED], shards);
            finish();
        }
    }
}

static void a_feed_may_end_when_it_has_caught_up(void **unused)
{
    (void)unused;
    begin(2, 1000);
    for (uint64_t i = 1; i <= 1000; i++) set((unsigned)(i % KEYS), i);
    feed(FERO_FROM_SNAPSHOT, 1);
    while (test.ends == 0) assert_true(take(100, WAIT_MS) > 0);
    assert_int_equal(test.events[FERO_STREAM_SNAPSHOT_BEGIN], 2);
    assert_int_equal(test.events[FERO_STREAM_SNAPSHOT_END], 2);
    assert_int_equal(test.events[FERO_STREAM_ENDED], 2);
    for (unsigned key = 0; key < KEYS; key++) assert_true(test.values[key] > 1000 - KEYS);
    finish();
}

static void who_does_not_take_is_sent_no_more(void **unused)
{
    (void)unused;
    begin(1, 64);
    feed(FERO_FROM_NOW, 0);
    for (uint64_t i = 1; i <= 10000; i++) set((unsigned)(i % KEYS), i);
    /* Nothing is given back: what comes is bounded by the half of the queue, in batches of whatever
     * a turn had. */
    fero_event events[64];
    size_t held = 0;
    int64_t taken;
    while (held == 0) {
        taken = fero_queue_take(test.queue, events + held, 64 - held, WAIT_MS);
        assert_true(taken > 0);
        held += (size_t)taken;
    }
    settle();
    while ((taken = fero_queue_take(test.queue, events + held, 64 - held, 0)) > 0)
        held += (size_t)taken;
    assert_in_range(held, 1, 32);
    fero_queue_give(test.queue, events, held);
    assert_true(take(64, WAIT_MS) > 0);
    finish();
}

static void one_that_comes_back_too_late_gets_the_state(void **unused)
{
    (void)unused;
    begin(1, 64);
    static char large[20000];
    feed(FERO_FROM_NOW, 0);
    while (test.events[FERO_STREAM_LIVE] == 0) assert_true(take(64, WAIT_MS) > 0);
    /* More than the history keeps. */
    for (unsigned i = 0; i < 20000; i++) {
        char name[16];
        fero_val value = {.type = FERO_T_BYTES, .s = {large, sizeof large}};
        snprintf(name, sizeof name, "k%u", i % KEYS);
        int err;
        while ((err = fero_update(test.cache, fero_str(name), &value, NULL, NULL)) == FERO_E_AGAIN)
            fero_run(test.rt, 1);
        assert_int_equal(err, 0);
    }
    set(0, 77);
    while (test.events[FERO_STREAM_SNAPSHOT_END] == 0 || test.values[0] != 77) {
        if (test.events[FERO_STREAM_SNAPSHOT_BEGIN] == 1 && test.events[FERO_STREAM_GAP] == 1) {
            memset(test.offsets, 0, sizeof test.offsets);
            test.events[FERO_STREAM_SNAPSHOT_BEGIN]++;
        }
        assert_true(take(1, WAIT_MS) > 0);
    }
    assert_int_equal(test.events[FERO_STREAM_GAP], 1);
    finish();
}

static void the_descriptor_tells_of_changes(void **unused)
{
    (void)unused;
    const int kinds[] = {FERO_INLINE, 2};
    for (size_t kind = 0; kind < ARRAY_COUNT(kinds); kind++) {
        begin(kinds[kind], 256);
        feed(FERO_FROM_NOW, 0);
        struct pollfd polled = {.fd = fero_queue_fd(test.queue), .events = POLLIN};
        for (uint64_t i = 1; i <= 50; i++) {
            set(1, i);
            while (test.changes < i) {
                assert_int_equal(poll(&polled, 1, WAIT_MS), 1);
                take(1, 0);
            }
        }
        finish();
    }
}

static void what_cannot_be_is_refused(void **unused)
{
    (void)unused;
    begin(2, 8);
    fero_stream_opts opts = {.size = sizeof opts, .from = 9};
    assert_int_equal(fero_queue_feed(NULL, test.cache, NULL), FERO_E_INVAL);
    assert_int_equal(fero_queue_feed(test.queue, NULL, NULL), FERO_E_INVAL);
    assert_int_equal(fero_queue_feed(test.queue, test.cache, &opts), FERO_E_INVAL);
    opts.from = FERO_FROM_OFFSET;
    assert_int_equal(fero_queue_feed(test.queue, test.cache, &opts), FERO_E_INVAL);
    opts.from = FERO_FROM_NOW;
    opts.credit_bytes = 1;
    assert_int_equal(fero_queue_feed(test.queue, test.cache, &opts), FERO_E_INVAL);
    opts.credit_bytes = 0;
    assert_int_equal(fero_queue_feed(test.queue, test.cache, &opts), FERO_E_AGAIN);
    finish();
}

static void feeds_end_with_whatever_they_belong_to(void **unused)
{
    (void)unused;
    for (int how = 0; how < 3; how++) {
        fero_event events[32];
        begin(2, 256);
        for (uint64_t i = 1; i <= 1000; i++) set((unsigned)(i % KEYS), i);
        feed(FERO_FROM_START, 0);
        int64_t taken = fero_queue_take(test.queue, events, 32, WAIT_MS);
        assert_true(taken > 0);
        if (how == 0) {
            fero_queue_close(test.queue);
            assert_int_equal(fero_queue_open(test.rt, 256, &test.queue), 0);
            feed(FERO_FROM_START, 1);
            while (test.ends == 0) assert_true(take(32, WAIT_MS) > 0);
            finish();
        }
        if (how == 1) {
            assert_int_equal(fero_stop(test.rt, 0), 0);
            fero_queue_give(test.queue, events, (size_t)taken);
            fero_queue_close(test.queue);
        }
        if (how == 2) {
            assert_int_equal(fero_thread_unregister(test.rt), 0);
            fero_queue_give(test.queue, events, 1);
            finish();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_comes_once_and_in_order),
        cmocka_unit_test(a_feed_may_end_when_it_has_caught_up),
        cmocka_unit_test(who_does_not_take_is_sent_no_more),
        cmocka_unit_test(one_that_comes_back_too_late_gets_the_state),
        cmocka_unit_test(the_descriptor_tells_of_changes),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(feeds_end_with_whatever_they_belong_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
