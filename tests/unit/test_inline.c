/*
 * Nodes without threads, which a loop of the program drives, alone and among others in one process.
 * The loop blocks in poll(2) and nowhere else: whatever has to happen wakes it, or the test waits in
 * vain and says so.
 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/ck.h"
#include "fero.h"
#include "tests/support/runtime.h"

#define IN_VAIN_MS 30000

static void check_read(fero_cache *cache, const char *key, const char *text)
{
    char buffer[64];
    fero_val value;
    assert_int_equal(fero_read(cache, fero_str(key), buffer, sizeof buffer, &value, NULL), 0);
    assert_int_equal(value.s.len, strlen(text));
    assert_memory_equal(buffer, text, strlen(text));
}

/* ---- what the driving thread does itself ------------------------------------------------------ */

static void what_is_written_is_there(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(FERO_INLINE);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "demo", NULL);
    char text[16];
    for (int i = 0; i < 1000; i++) {
        fero_val value = runtime_string(text);
        snprintf(text, sizeof text, "%d", i);
        value.s.len = strlen(text);
        assert_int_equal(fero_update(cache, fero_str("key"), &value, NULL, NULL), 0);
        check_read(cache, "key", text);
    }
    fero_op *op;
    fero_result result;
    assert_int_equal(fero_remove(cache, fero_str("key"), NULL, &op), 0);
    assert_int_equal(fero_wait(op, 0, &result), 0);
    assert_int_equal(result.outcome, FERO_OUTCOME_OK);
    assert_int_equal(result.offset, 1001);
    fero_op_free(op);
    assert_int_equal(fero_get(cache, fero_str("key"), NULL, &op), 0);
    assert_int_equal(fero_wait(op, 0, &result), 0);
    assert_int_equal(result.error, FERO_E_NOTFOUND);
    fero_op_free(op);
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void large_values_fit_too(void **unused)
{
    (void)unused;
    static char text[500000];
    static char buffer[sizeof text];
    fero_runtime_opts opts = runtime_options(FERO_INLINE);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "demo", NULL);
    fero_val value = {.type = FERO_T_BYTES, .s = {text, sizeof text}};
    for (int i = 0; i < 20; i++) {
        memset(text, 'a' + i, sizeof text);
        assert_int_equal(fero_update(cache, fero_str("key"), &value, NULL, NULL), 0);
        fero_val found;
        assert_int_equal(fero_read(cache, fero_str("key"), buffer, sizeof buffer, &found, NULL), 0);
        assert_memory_equal(buffer, text, sizeof text);
    }
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void count_done(const fero_result *result, void *ud)
{
    assert_int_equal(result->outcome, FERO_OUTCOME_OK);
    ++*(int *)ud;
}

static void answers_are_told_by_run_and_the_descriptor(void **unused)
{
    (void)unused;
    int done = 0;
    fero_runtime_opts opts = runtime_options(FERO_INLINE);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "demo", NULL);
    struct pollfd polled = {.fd = fero_fd(rt), .events = POLLIN};
    assert_true(polled.fd >= 0);
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY, .done = count_done, .ud = &done};
    for (int i = 1; i <= 50; i++) {
        assert_int_equal(fero_update(cache, fero_str("a"), NULL, &wopts, NULL), 0);
        assert_int_equal(done, i - 1);
        assert_int_equal(poll(&polled, 1, IN_VAIN_MS), 1);
        assert_true(fero_run(rt, 0) > 0);
        assert_int_equal(done, i);
    }
    /* Then it is silent, but for what it does now and then for nothing. */
    for (int i = 0; i < 100 && poll(&polled, 1, 0) == 1; i++) assert_true(fero_run(rt, 0) >= 0);
    assert_int_equal(poll(&polled, 1, 0), 0);
    assert_int_equal(fero_stop(rt, 0), 0);
}

static int32_t answer_inside(fero_req *req, void *ud)
{
    int *inside = ud;
    ++*inside;
    fero_val value = runtime_string("inside");
    if (fero_update(req->cache, fero_str("b"), NULL, NULL, NULL) != FERO_E_INVAL)
        return FERO_E_CONFLICT;
    return fero_reply(req, 0, &value) == 0 ? FERO_H_REPLIED : FERO_E_INVAL;
}

static void handlers_run_inside_the_call(void **unused)
{
    (void)unused;
    int inside = 0;
    const fero_verb verbs[] = {{"ASK", answer_inside, &inside}};
    fero_opts cache_opts = {.size = sizeof cache_opts, .verbs = verbs, .verbs_count = 1};
    fero_runtime_opts opts = runtime_options(FERO_INLINE);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "demo", &cache_opts);
    fero_op *op;
    fero_result result;
    assert_int_equal(fero_send(cache, fero_str("ASK"), fero_str("a"), NULL, NULL, &op), 0);
    assert_int_equal(inside, 1);
    assert_int_equal(fero_wait(op, 0, &result), 0);
    assert_int_equal(result.outcome, FERO_OUTCOME_OK);
    assert_memory_equal(result.value.s.ptr, "inside", 6);
    fero_op_free(op);
    assert_int_equal(fero_stop(rt, 0), 0);
}

/* ---- others ------------------------------------------------------------------------------------ */

struct other {
    pthread_t thread;
    char address[64];
    fero *rt;          /* of a server, for threads of its program */
    fero_cache *cache; /* likewise */
    int done_fd;
    int number;
    int failures;
};

static void ended(struct other *other)
{
    assert_int_equal(eventfd_write(other->done_fd, 1), 0);
}

/* Sets a key, gets it, and is gone. */
static void *talk_over_tcp(void *argument)
{
    struct other *other = argument;
    const char *seeds[] = {other->address, NULL};
    fero_runtime_opts opts = {.size = sizeof opts, .client = 1, .seeds = seeds};
    fero *rt;
    fero_cache *cache;
    fero_result result;
    fero_op *op;
    char key[16];
    fero_val value = runtime_string("over tcp");
    snprintf(key, sizeof key, "tcp%d", other->number);
    other->failures += fero_start(&opts, &rt) != 0;
    other->failures += fero_open(rt, "demo", NULL, &cache) != 0;
    for (int i = 0; i < 20 && other->failures == 0; i++) {
        other->failures += fero_update(cache, fero_str(key), &value, NULL, &op) != 0;
        other->failures += fero_wait(op, IN_VAIN_MS, &result) != 0 || result.outcome != 0;
        fero_op_free(op);
    }
    other->failures += fero_stop(rt, 0) != 0;
    if (other->failures != 0)
        print_message("%d of %s: %s\n", other->number, other->address, fero_errmsg());
    ended(other);
    return NULL;
}

/* The same as a thread of the node's own program. */
static void *talk_inside(void *argument)
{
    struct other *other = argument;
    fero_result result;
    fero_op *op;
    char key[16];
    fero_val value = runtime_string("inside");
    snprintf(key, sizeof key, "host%d", other->number);
    for (int i = 0; i < 20 && other->failures == 0; i++) {
        other->failures += fero_update(other->cache, fero_str(key), &value, NULL, &op) != 0;
        other->failures += fero_wait(op, IN_VAIN_MS, &result) != 0 || result.outcome != 0;
        fero_op_free(op);
    }
    if (other->failures != 0)
        print_message("%d of %s: %s\n", other->number, other->address, fero_errmsg());
    ended(other);
    return NULL;
}

/* Drives `nodes` until `ends` of the others have ended. */
static void drive(fero **nodes, int count, int done_fd, uint64_t ends)
{
    struct pollfd polled[5] = {{.fd = done_fd, .events = POLLIN}};
    for (int i = 0; i < count; i++)
        polled[i + 1] = (struct pollfd){.fd = fero_fd(nodes[i]), .events = POLLIN};
    while (ends > 0) {
        eventfd_t ended_now;
        assert_true(poll(polled, (nfds_t)count + 1, IN_VAIN_MS) > 0);
        for (int i = 0; i < count; i++)
            if (polled[i + 1].revents != 0) assert_true(fero_run(nodes[i], 0) >= 0);
        if (polled[0].revents != 0 && eventfd_read(done_fd, &ended_now) == 0) ends -= ended_now;
    }
}

static void begin(struct other *other, void *(*talk)(void *), fero *node, fero_cache *cache,
                  int done_fd, int number)
{
    *other = (struct other){.rt = node, .cache = cache, .done_fd = done_fd, .number = number};
    snprintf(other->address, sizeof other->address, "%s", fero_address(node));
    assert_int_equal(pthread_create(&other->thread, NULL, talk, other), 0);
}

static void a_loop_serves_clients_and_threads(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(FERO_INLINE);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "demo", NULL);
    struct other others[6];
    int done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    for (int i = 0; i < 6; i++)
        begin(&others[i], i < 3 ? talk_over_tcp : talk_inside, rt, cache, done_fd, i);
    drive(&rt, 1, done_fd, 6);
    for (int i = 0; i < 6; i++) {
        char key[16];
        pthread_join(others[i].thread, NULL);
        assert_int_equal(others[i].failures, 0);
        snprintf(key, sizeof key, "%s%d", i < 3 ? "tcp" : "host", i);
        check_read(cache, key, i < 3 ? "over tcp" : "inside");
    }
    close(done_fd);
    assert_int_equal(fero_stop(rt, 0), 0);
}

/* Without poll: fero_run blocks by itself. */
static void run_waits_for_what_comes(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(FERO_INLINE);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "demo", NULL);
    struct other other;
    eventfd_t ends = 0;
    int done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_true(fero_run(rt, 0) >= 0);
    begin(&other, talk_inside, rt, cache, done_fd, 1);
    while (eventfd_read(done_fd, &ends) != 0) assert_true(fero_run(rt, 10) >= 0);
    pthread_join(other.thread, NULL);
    assert_int_equal(other.failures, 0);
    close(done_fd);
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void *touch_what_is_not_its_own(void *argument)
{
    struct other *other = argument;
    fero_cache *cache;
    other->failures += fero_open(other->rt, "other", NULL, &cache) != FERO_E_INVAL;
    other->failures += fero_stop(other->rt, 0) != FERO_E_INVAL;
    return NULL;
}

static void it_belongs_to_the_thread_that_started_it(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(FERO_INLINE);
    fero *rt = runtime_start(&opts);
    struct other other = {.rt = rt};
    assert_int_equal(pthread_create(&other.thread, NULL, touch_what_is_not_its_own, &other), 0);
    pthread_join(other.thread, NULL);
    assert_int_equal(other.failures, 0);
    assert_int_equal(fero_stop(rt, 0), 0);
}

/* ---- several of them ---------------------------------------------------------------------------- */

static void many_runtimes_live_in_one_process(void **unused)
{
    (void)unused;
    for (int round = 0; round < 5; round++) {
        fero_runtime_opts with_threads = runtime_options(2);
        fero_runtime_opts without = runtime_options(FERO_INLINE);
        fero *nodes[4];
        fero_cache *caches[4];
        struct other others[8];
        int done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        for (int i = 0; i < 4; i++) {
            nodes[i] = runtime_start(i < 2 ? &without : &with_threads);
            caches[i] = runtime_open(nodes[i], "demo", NULL);
        }
        for (int i = 0; i < 8; i++)
            begin(&others[i], i < 4 ? talk_over_tcp : talk_inside, nodes[i % 4], caches[i % 4],
                  done_fd, i);
        drive(nodes, 2, done_fd, 8);
        for (int i = 0; i < 8; i++) {
            pthread_join(others[i].thread, NULL);
            assert_int_equal(others[i].failures, 0);
        }
        for (int i = 0; i < 4; i++) {
            char key[16];
            snprintf(key, sizeof key, "tcp%d", i);
            check_read(caches[i], key, "over tcp");
            /* What another one has is not here. */
            char buffer[16];
            fero_val value;
            snprintf(key, sizeof key, "tcp%d", (i + 1) % 4);
            assert_int_equal(fero_read(caches[i], fero_str(key), buffer, 16, &value, NULL),
                             FERO_E_NOTFOUND);
        }
        for (int i = 0; i < 4; i++) assert_int_equal(fero_stop(nodes[i], 0), 0);
        close(done_fd);
    }
}

static void a_runtime_has_many_caches(void **unused)
{
    (void)unused;
    const int kinds[] = {FERO_INLINE, 1, 2};
    for (size_t kind = 0; kind < ARRAY_COUNT(kinds); kind++) {
        fero_runtime_opts opts = runtime_options(kinds[kind]);
        fero *rt = runtime_start(&opts);
        fero_cache *caches[8];
        for (int i = 0; i < 8; i++) {
            char name[16];
            fero_op *op;
            snprintf(name, sizeof name, "cache%d", i);
            caches[i] = runtime_open(rt, name, NULL);
            fero_val value = runtime_string(name);
            assert_int_equal(fero_update(caches[i], fero_str("key"), &value, NULL, &op), 0);
            assert_int_equal(fero_wait(op, IN_VAIN_MS, NULL), 0);
            fero_op_free(op);
        }
        for (int i = 0; i < 8; i++) {
            char name[16];
            snprintf(name, sizeof name, "cache%d", i);
            check_read(caches[i], "key", name);
        }
        assert_int_equal(fero_stop(rt, 0), 0);
    }
}

static void it_starts_and_stops_again_and_again(void **unused)
{
    (void)unused;
    for (int i = 0; i < 30; i++) {
        fero_runtime_opts opts = runtime_options(FERO_INLINE);
        fero *rt = runtime_start(&opts);
        fero_cache *cache = runtime_open(rt, "demo", NULL);
        fero_op *op;
        if (i % 2 == 0) assert_true(fero_fd(rt) >= 0);
        if (i % 3 == 0) assert_int_equal(fero_update(cache, fero_str("a"), NULL, NULL, NULL), 0);
        if (i % 5 == 0) {
            assert_int_equal(fero_update(cache, fero_str("a"), NULL, NULL, &op), 0);
            fero_op_free(op);
        }
        assert_int_equal(fero_stop(rt, i % 4 == 0 ? FERO_OFF : 0), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_there),
        cmocka_unit_test(large_values_fit_too),
        cmocka_unit_test(answers_are_told_by_run_and_the_descriptor),
        cmocka_unit_test(handlers_run_inside_the_call),
        cmocka_unit_test(a_loop_serves_clients_and_threads),
        cmocka_unit_test(run_waits_for_what_comes),
        cmocka_unit_test(it_belongs_to_the_thread_that_started_it),
        cmocka_unit_test(many_runtimes_live_in_one_process),
        cmocka_unit_test(a_runtime_has_many_caches),
        cmocka_unit_test(it_starts_and_stops_again_and_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
