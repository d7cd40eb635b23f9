/*
 * Handlers of a real node: replies from other threads, streams to threads of the program, and keys of
 * other shards.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/ck.h"
#include "base/clock.h"
#include "fero.h"

#define PATIENCE_MS 60000
#define KEPT_MAX 1000

static fero *node;
static fero_cache *cache;
static fero_req *kept[KEPT_MAX];
static uint32_t kept_count; /* release, acquire */
static uint32_t stopped_error;

static void on_news(fero_req *req, int32_t event, int32_t error, void *ud)
{
    (void)req;
    (void)ud;
    if (event == FERO_REQ_STOPPED) store_release_u32(&stopped_error, (uint32_t)-error);
}

static int32_t keep(fero_req *req, void *ud)
{
    (void)ud;
    fero_req *own = fero_req_retain(req);
    if (own == NULL) return FERO_H_DEFER;
    fero_req_on(own, on_news, NULL);
    kept[kept_count] = own;
    store_release_u32(&kept_count, kept_count + 1);
    return FERO_H_DEFER;
}

/* Replies with the value of the key that is named by the request's value, wherever that is. */
static void on_read(fero_shard *shard, const fero_result *result, void *ud)
{
    (void)shard;
    fero_reply(ud, result->error, &result->value);
    fero_req_release(ud);
}

static int32_t read_other(fero_req *req, void *ud)
{
    (void)ud;
    fero_req *own = fero_req_retain(req);
    if (own == NULL) return FERO_H_DEFER;
    int err = fero_shard_ask(own->shard, FERO_ASK_GET, own->value.s, NULL, on_read, own);
    if (err == 0) return FERO_H_DEFER;
    fero_reply(own, err, NULL);
    fero_req_release(own);
    return FERO_H_DEFER;
}

static int32_t write_other(fero_req *req, void *ud)
{
    (void)ud;
    fero_req *own = fero_req_retain(req);
    if (own == NULL) return FERO_H_DEFER;
    fero_val value = {.type = FERO_T_STRING, .s = own->key};
    int err = fero_shard_ask(own->shard, FERO_ASK_UPDATE, own->value.s, &value, on_read, own);
    if (err == 0) return FERO_H_DEFER;
    fero_reply(own, err, NULL);
    fero_req_release(own);
    return FERO_H_DEFER;
}

static const fero_verb verbs[] = {
    {"keep", keep, NULL}, {"read", read_other, NULL}, {"write", write_other, NULL}};

static int setup(void **unused)
{
    (void)unused;
    const fero_runtime_opts opts = {
        .size = sizeof opts, .shards = 2, .memory_max_bytes = 256 << 20, .idle = FERO_IDLE_SLEEP};
    const fero_opts about = {
        .size = sizeof about, .verbs = verbs, .verbs_count = ARRAY_COUNT(verbs)};
    kept_count = 0;
    stopped_error = 0;
    assert_int_equal(fero_start(&opts, &node), 0);
    assert_int_equal(fero_open(node, "demo", &about, &cache), 0);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    if (node != NULL) fero_stop(node, 0);
    node = NULL;
    return 0;
}

static fero_op *send_verb(const char *verb, const char *key, const char *value, int64_t timeout_ms)
{
    fero_op *op = NULL;
    fero_val body = {.type = FERO_T_STRING, .s = fero_str(value)};
    fero_wopts opts = {.size = sizeof opts, .want = FERO_REPLY, .timeout_ms = timeout_ms};
    assert_int_equal(fero_send(cache, fero_str(verb), fero_str(key), &body, &opts, &op), 0);
    return op;
}

static void wait_kept(uint32_t count)
{
    uint64_t until_ns = clock_now_ns() + PATIENCE_MS * NS_PER_MS;
    while (load_acquire_u32(&kept_count) < count && clock_now_ns() < until_ns) clock_pause();
    assert_int_equal(load_acquire_u32(&kept_count), count);
}

static void expect_text(fero_op *op, const char *text)
{
    fero_result result;
    assert_int_equal(fero_wait(op, PATIENCE_MS, &result), 0);
    assert_int_equal(result.error, 0);
    assert_int_equal(result.outcome, FERO_OUTCOME_OK);
    assert_int_equal(result.value.s.len, strlen(text));
    assert_memory_equal(result.value.s.ptr, text, strlen(text));
    fero_op_free(op);
}

static void expect_error(fero_op *op, int32_t outcome, int32_t error)
{
    fero_result result;
    assert_int_equal(fero_wait(op, PATIENCE_MS, &result), 0);
    assert_int_equal(result.outcome, outcome);
    assert_int_equal(result.error, error);
    fero_op_free(op);
}

/* What a thread of its own found when it replied. */
static int replied[3];
static void *reply_in_thread(void *ud)
{
    fero_req *req = ud;
    fero_val value = {.type = FERO_T_STRING, .s = fero_str("from afar")};
    replied[0] = fero_reply(req, 0, &value);
    replied[1] = fero_reply(req, 0, &value);
    replied[2] = fero_reply_part(req, &value);
    fero_req_release(req);
    return NULL;
}

static void run_thread(void *(*function)(void *), void *ud)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, function, ud), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void any_thread_may_reply_once(void **unused)
{
    (void)unused;
    fero_op *op = send_verb("keep", "a", "", PATIENCE_MS);
    wait_kept(1);
    run_thread(reply_in_thread, kept[0]);
    assert_int_equal(replied[0], 0);
    assert_int_equal(replied[1], FERO_E_INVAL);
    assert_int_equal(replied[2], FERO_E_INVAL);
    expect_text(op, "from afar");
}

static void this_thread_may_reply_to_itself(void **unused)
{
    (void)unused;
    static char text[100001];
    memset(text, 'x', sizeof text - 1);
    fero_val value = {.type = FERO_T_STRING, .s = fero_str(text)};
    for (uint32_t i = 0; i < 20; i++) {
        fero_op *op = send_verb("keep", i % 2 == 0 ? "a" : "b", "", PATIENCE_MS);
        wait_kept(i + 1);
        assert_int_equal(fero_reply(kept[i], 0, &value), 0);
        fero_req_release(kept[i]);
        expect_text(op, text);
    }
}

static void release_in_a_thread_declines(void **unused)
{
    (void)unused;
    fero_op *op = send_verb("keep", "a", "", PATIENCE_MS);
    wait_kept(1);
    fero_req_release(kept[0]);
    expect_error(op, FERO_OUTCOME_FAIL, FERO_E_NOREPLY);
}

static void too_late_is_told(void **unused)
{
    (void)unused;
    fero_op *op = send_verb("keep", "a", "", 50);
    wait_kept(1);
    expect_error(op, FERO_OUTCOME_UNKNOWN, FERO_E_TIMEOUT);
    uint64_t until_ns = clock_now_ns() + PATIENCE_MS * NS_PER_MS;
    while (load_acquire_u32(&stopped_error) == 0 && clock_now_ns() < until_ns) clock_pause();
    /* Whichever of the two came first: the deadline, or the thread's word that it waits no more. */
    assert_true(stopped_error == -FERO_E_TIMEOUT || stopped_error == -FERO_E_NOTCONN);
    int err = 0;
    while (err == 0 && clock_now_ns() < until_ns) err = fero_reply(kept[0], 1 - 1, NULL);
    assert_true(err == FERO_E_TIMEOUT || err == FERO_E_NOTCONN || err == FERO_E_INVAL);
    fero_req_release(kept[0]);
}

static void after_the_runtime_is_gone_it_is_closed(void **unused)
{
    (void)unused;
    fero_op *op = send_verb("keep", "a", "", PATIENCE_MS);
    wait_kept(1);
    assert_int_equal(fero_stop(node, FERO_OFF), 0);
    node = NULL;
    assert_int_equal(fero_reply(kept[0], 0, NULL), FERO_E_NOTCONN);
    assert_int_equal(kept[0]->key.len, 1);
    fero_req_release(kept[0]);
    fero_op_free(op);
}

static void what_is_kept_when_the_runtime_stops_is_unknown(void **unused)
{
    (void)unused;
    fero_op *op = send_verb("keep", "a", "", PATIENCE_MS);
    wait_kept(1);
    assert_int_equal(fero_stop(node, 0), 0);
    node = NULL;
    expect_error(op, FERO_OUTCOME_UNKNOWN, FERO_E_CLOSED);
    int err = fero_reply(kept[0], 0, NULL);
    assert_int_equal(err, FERO_E_CLOSED);
    fero_req_release(kept[0]);
}

/* Many threads and many requests: each is replied to once. */
static void *reply_to_some(void *ud)
{
    uint32_t first = *(const uint32_t *)ud;
    fero_val value = {.type = FERO_T_INT64};
    for (uint32_t i = first; i < 198; i += 3) {
        value.i64 = i;
        int err;
        do err = fero_reply(kept[i], 0, &value);
        while (err == FERO_E_AGAIN);
        if (err != 0) abort();
        fero_req_release(kept[i]);
    }
    return NULL;
}

static void many_threads_reply_at_once(void **unused)
{
    (void)unused;
    static fero_op *ops[198];
    static const uint32_t firsts[3] = {0, 1, 2};
    pthread_t threads[3];
    for (uint32_t i = 0; i < 66; i++) {
        /* In order, so that the shard keeps them in the order of their numbers. */
        for (uint32_t j = 3 * i; j < 3 * i + 3; j++) {
            ops[j] = send_verb("keep", "a", "", PATIENCE_MS);
            wait_kept(j + 1);
        }
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, reply_to_some, (void *)(uintptr_t)&firsts[i]), 0);
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (uint32_t i = 0; i < 198; i++) {
        fero_result result;
        assert_int_equal(fero_wait(ops[i], PATIENCE_MS, &result), 0);
        assert_int_equal(result.outcome, FERO_OUTCOME_OK);
        assert_int_equal(result.value.i64, i);
        fero_op_free(ops[i]);
    }
}

static void handlers_read_and_write_keys_of_any_shard(void **unused)
{
    (void)unused;
    static char key[32];
    fero_result result;
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "other%d", i);
        expect_error(send_verb("read", "a", key, PATIENCE_MS), FERO_OUTCOME_FAIL, FERO_E_NOTFOUND);
        fero_op *op = send_verb("write", "a", key, PATIENCE_MS);
        assert_int_equal(fero_wait(op, PATIENCE_MS, &result), 0);
        assert_int_equal(result.outcome, FERO_OUTCOME_OK);
        fero_op_free(op);
        expect_text(send_verb("read", "b", key, PATIENCE_MS), "a");
    }
    expect_error(send_verb("read", "a", "", PATIENCE_MS), FERO_OUTCOME_FAIL, FERO_E_INVAL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(any_thread_may_reply_once),
        TEST(this_thread_may_reply_to_itself),
        TEST(release_in_a_thread_declines),
        TEST(too_late_is_told),
        TEST(after_the_runtime_is_gone_it_is_closed),
        TEST(what_is_kept_when_the_runtime_stops_is_unknown),
        TEST(many_threads_reply_at_once),
        TEST(handlers_read_and_write_keys_of_any_shard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
