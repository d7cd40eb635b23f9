/*
 * Answers that are taken from queues: of a client, of a thread of a node's own program, and of a
 * node without threads.
 */
#include <poll.h>
#include <pthread.h>
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

enum kind { CLIENT, THREAD, INLINE, KINDS_COUNT };

/* Whose queue it is; the node behind a client is another runtime. */
static struct {
    fero *node;
    fero *rt;
    fero_cache *cache;
    fero_queue *queue;
} test;

static int32_t echo(fero_req *req, void *ud)
{
    (void)ud;
    return fero_reply(req, 0, &req->value) == 0 ? FERO_H_REPLIED : FERO_E_INVAL;
}

static void begin(enum kind kind, size_t capacity)
{
    const fero_verb verbs[] = {{"ECHO", echo, NULL}};
    fero_opts cache_opts = {.size = sizeof cache_opts, .verbs = verbs, .verbs_count = 1};
    fero_runtime_opts opts = {.size = sizeof opts,
                              .shards = kind == INLINE ? FERO_INLINE : 2,
                              .memory_max_bytes = (int64_t)128 << 20,
                              .idle = FERO_IDLE_SLEEP};
    int err = fero_start(&opts, &test.node);
    if (err == FERO_E_SYS) skip();
    assert_int_equal(err, 0);
    test.rt = test.node;
    assert_int_equal(fero_open(test.node, "demo", &cache_opts, &test.cache), 0);
    if (kind == CLIENT) {
        const char *seeds[] = {fero_address(test.node), NULL};
        fero_runtime_opts client = {.size = sizeof client, .client = 1, .seeds = seeds};
        assert_int_equal(fero_start(&client, &test.rt), 0);
        assert_int_equal(fero_open(test.rt, "demo", NULL, &test.cache), 0);
    }
    assert_int_equal(fero_queue_open(test.rt, capacity, &test.queue), 0);
}

static void stop(void)
{
    assert_int_equal(fero_stop(test.rt, 0), 0);
    if (test.node != test.rt) assert_int_equal(fero_stop(test.node, 0), 0);
}

static int ask(const char *key, const char *text, void *ud)
{
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY, .ud = ud, .queue = test.queue};
    fero_val value = {.type = FERO_T_STRING, .s = fero_str(text)};
    return fero_send(test.cache, fero_str("ECHO"), fero_str(key), &value, &wopts, NULL);
}

static void answers_are_taken_in_batches(void **unused)
{
    (void)unused;
    for (int kind = 0; kind < KINDS_COUNT; kind++) {
        int marks[100];
        int seen[100] = {0};
        begin((enum kind)kind, 100);
        for (int i = 0; i < 100; i++) {
            char text[16];
            snprintf(text, sizeof text, "text%d", i);
            assert_int_equal(ask(text, text, &marks[i]), 0);
        }
        for (int left = 100; left > 0;) {
            fero_event events[7];
            int64_t count = fero_queue_take(test.queue, events, 7, WAIT_MS);
            assert_in_range(count, 1, 7);
            for (int64_t i = 0; i < count; i++) {
                char text[16];
                ptrdiff_t number = (int *)events[i].ud - marks;
                snprintf(text, sizeof text, "text%d", (int)number);
                assert_int_equal(events[i].kind, FERO_EVENT_RESULT);
                assert_int_equal(events[i].result.outcome, FERO_OUTCOME_OK);
                assert_int_equal(events[i].result.value.s.len, strlen(text));
                assert_memory_equal(events[i].result.value.s.ptr, text, strlen(text));
                seen[number]++;
            }
            fero_queue_give(test.queue, events, (size_t)count);
            left -= (int)count;
        }
        for (int i = 0; i < 100; i++) assert_int_equal(seen[i], 1);
        assert_int_equal(fero_queue_take(test.queue, NULL, 0, 0), 0);
        fero_event event;
        assert_int_equal(fero_queue_take(test.queue, &event, 1, 0), 0);
        fero_queue_close(test.queue);
        stop();
    }
}

static void drained(void *ud)
{
    ++*(int *)ud;
}

static void a_full_queue_stops_who_asks(void **unused)
{
    (void)unused;
    for (int kind = 0; kind < KINDS_COUNT; kind++) {
        int drains = 0;
        fero_event events[4];
        begin((enum kind)kind, 4);
        assert_int_equal(fero_on_drain(test.rt, drained, &drains), 0);
        for (int i = 0; i < 4; i++) assert_int_equal(ask("a", "b", NULL), 0);
        assert_int_equal(ask("a", "b", NULL), FERO_E_AGAIN);
        for (int64_t taken = 0; taken < 4;)
            taken += fero_queue_take(test.queue, events + taken, (size_t)(4 - taken), WAIT_MS);
        /* What was taken still has its place. */
        assert_int_equal(ask("a", "b", NULL), FERO_E_AGAIN);
        fero_run(test.rt, 0);
        assert_int_equal(drains, 0);
        fero_queue_give(test.queue, events + 1, 2);
        fero_run(test.rt, 0);
        assert_int_equal(drains, 1);
        assert_int_equal(ask("a", "b", NULL), 0);
        assert_int_equal(ask("a", "b", NULL), 0);
        assert_int_equal(ask("a", "b", NULL), FERO_E_AGAIN);
        fero_queue_give(test.queue, events, 1);
        fero_queue_give(test.queue, events + 3, 1);
        fero_queue_close(test.queue);
        stop();
    }
}

static void the_descriptor_says_when_to_take(void **unused)
{
    (void)unused;
    for (int kind = 0; kind < KINDS_COUNT; kind++) {
        begin((enum kind)kind, 16);
        struct pollfd polled = {.fd = fero_queue_fd(test.queue), .events = POLLIN};
        assert_true(polled.fd >= 0);
        for (int round = 0; round < 50; round++) {
            for (int i = 0; i < 3; i++) assert_int_equal(ask("a", "b", NULL), 0);
            for (int left = 3; left > 0;) {
                fero_event event;
                assert_int_equal(poll(&polled, 1, WAIT_MS), 1);
                /* One at a time: those that are left keep it readable. */
                int64_t count = fero_queue_take(test.queue, &event, 1, 0);
                assert_true(count >= 0);
                fero_queue_give(test.queue, &event, (size_t)count);
                left -= (int)count;
            }
        }
        fero_queue_close(test.queue);
        stop();
    }
}

static void what_cannot_be_is_refused(void **unused)
{
    (void)unused;
    fero_queue *queue;
    begin(THREAD, 4);
    assert_int_equal(fero_queue_open(test.rt, 0, &queue), FERO_E_INVAL);
    assert_int_equal(fero_queue_open(test.rt, (size_t)1 << 40, &queue), FERO_E_INVAL);
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_ACK, .queue = test.queue};
    assert_int_equal(fero_get(test.cache, fero_str("a"), &wopts, NULL), FERO_E_INVAL);
    /* One that is refused gives its place back. */
    wopts.want = FERO_REPLY;
    for (int i = 0; i < 10; i++)
        assert_int_equal(fero_send(test.cache, fero_str("ECHO"), fero_str("a"),
                                   &(fero_val){.type = 77}, &wopts, NULL),
                         FERO_E_TYPE);
    for (int i = 0; i < 4; i++) assert_int_equal(ask("a", "b", NULL), 0);
    fero_queue_close(test.queue);
    stop();
}

static void a_queue_may_be_closed_before_its_answers_come(void **unused)
{
    (void)unused;
    for (int kind = 0; kind < KINDS_COUNT; kind++) {
        begin((enum kind)kind, 16);
        for (int i = 0; i < 10; i++) assert_int_equal(ask("a", "b", NULL), 0);
        fero_queue_close(test.queue);
        for (int i = 0; i < 3; i++) fero_run(test.rt, 1);
        stop();
        begin((enum kind)kind, 16);
        for (int i = 0; i < 10; i++) assert_int_equal(ask("a", "b", NULL), 0);
        fero_queue_close(test.queue);
        stop();
    }
}

static void a_queue_may_outlive_its_runtime(void **unused)
{
    (void)unused;
    for (int kind = 0; kind < KINDS_COUNT; kind++) {
        fero_event events[16];
        begin((enum kind)kind, 16);
        for (int i = 0; i < 10; i++) assert_int_equal(ask("a", "b", NULL), 0);
        stop();
        assert_int_equal(fero_queue_take(test.queue, events, 16, WAIT_MS), 10);
        assert_int_equal(fero_queue_take(test.queue, events, 1, WAIT_MS), FERO_E_CLOSED);
        fero_queue_give(test.queue, events, 3);
        fero_queue_close(test.queue);
    }
}

static void *ask_and_end(void *argument)
{
    (void)argument;
    fero_queue *queue;
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY};
    assert_int_equal(fero_queue_open(test.rt, 8, &queue), 0);
    wopts.queue = queue;
    for (int i = 0; i < 8; i++)
        assert_int_equal(fero_get(test.cache, fero_str("a"), &wopts, NULL), 0);
    wopts.queue = test.queue; /* another thread's */
    assert_int_equal(fero_get(test.cache, fero_str("a"), &wopts, NULL), FERO_E_INVAL);
    return NULL;
}

static void a_thread_that_ends_closes_its_own(void **unused)
{
    (void)unused;
    begin(THREAD, 4);
    for (int i = 0; i < 5; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, ask_and_end, NULL), 0);
        pthread_join(thread, NULL);
    }
    fero_queue_close(test.queue);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_taken_in_batches),
        cmocka_unit_test(a_full_queue_stops_who_asks),
        cmocka_unit_test(the_descriptor_says_when_to_take),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(a_queue_may_be_closed_before_its_answers_come),
        cmocka_unit_test(a_queue_may_outlive_its_runtime),
        cmocka_unit_test(a_thread_that_ends_closes_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
