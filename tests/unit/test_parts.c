/*
 * Streams whose parts come from threads of the program that are no shard's: to clients and to other
 * threads, as fast as they are taken, until the end, the caller's stop, or its death.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/ck.h"
#include "base/clock.h"
#include "fero.h"
#include "shard/parts.h"
#include "tests/support/runtime.h"

#define PATIENCE_MS 60000
#define PART_BYTES 1000

static fero *node;
static fero_cache *cache;
static fero *client;
static fero_cache *remote;
static fero_req *kept;
static uint32_t is_kept;       /* release, acquire */
static uint32_t stopped_error; /* likewise: what FERO_REQ_STOPPED said */
static uint32_t rooms;         /* FERO_REQ_ROOM */

static void on_news(fero_req *req, int32_t event, int32_t error, void *ud)
{
    (void)req;
    (void)ud;
    if (event == FERO_REQ_STOPPED) store_release_u32(&stopped_error, (uint32_t)-error);
    if (event == FERO_REQ_ROOM) store_release_u32(&rooms, rooms + 1);
}

static int32_t keep(fero_req *req, void *ud)
{
    (void)ud;
    kept = fero_req_retain(req);
    if (kept == NULL) return FERO_H_DEFER;
    fero_req_on(kept, on_news, NULL);
    store_release_u32(&is_kept, 1);
    return FERO_H_DEFER;
}

/* Answers what is kept from here, which may be another shard's thread. */
static int here_err[3];
static int32_t answer(fero_req *req, void *ud)
{
    (void)ud;
    fero_val value = {.type = FERO_T_INT64, .i64 = 7};
    here_err[0] = fero_reply_part(kept, &value);
    here_err[1] = fero_reply(kept, 0, &value);
    here_err[2] = fero_reply(kept, 0, &value);
    fero_req_release(kept);
    return fero_reply(req, 0, NULL) == 0 ? FERO_H_REPLIED : FERO_H_IGNORE;
}

static const fero_verb verbs[] = {{"keep", keep, NULL}, {"answer", answer, NULL}};

static int setup(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(2);
    const fero_opts about = {
        .size = sizeof about, .verbs = verbs, .verbs_count = ARRAY_COUNT(verbs)};
    store_release_u32(&is_kept, 0);
    stopped_error = 0;
    rooms = 0;
    node = runtime_start(&opts);
    cache = runtime_open(node, "demo", &about);
    const char *seeds[] = {fero_address(node), NULL};
    const fero_runtime_opts client_opts = {
        .size = sizeof client_opts, .client = 1, .seeds = seeds, .idle = FERO_IDLE_SLEEP};
    client = runtime_start(&client_opts);
    remote = runtime_open(client, "demo", NULL);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    if (client != NULL) fero_stop(client, FERO_OFF);
    if (node != NULL) fero_stop(node, 0);
    client = NULL;
    node = NULL;
    return 0;
}

static void wait_for(uint32_t *flag)
{
    uint64_t until_ns = clock_now_ns() + PATIENCE_MS * NS_PER_MS;
    while (load_acquire_u32(flag) == 0 && clock_now_ns() < until_ns) clock_pause();
    assert_int_not_equal(load_acquire_u32(flag), 0);
}

/* ---- a thread that makes a stream ------------------------------------------------------------- */

struct maker {
    pthread_t thread;
    uint64_t parts; /* to be sent; UINT64_MAX: until it hears that nobody wants them */
    uint64_t sent;
    uint64_t refused; /* told FERO_E_AGAIN */
    uint32_t was_refused;
    uint64_t drains;
    bool outlives; /* its node: it calls nothing but what the request allows */
    int error;     /* the last part's, or the reply's */
};

static void on_drain(void *ud)
{
    ((struct maker *)ud)->drains++;
}

static void *make(void *ud)
{
    struct maker *maker = ud;
    static const char filler[PART_BYTES];
    uint64_t drains = 0;
    if (!maker->outlives) fero_on_drain(node, on_drain, maker);
    while (maker->sent < maker->parts) {
        char text[PART_BYTES];
        memcpy(text, filler, sizeof text);
        memcpy(text, &maker->sent, sizeof maker->sent);
        const fero_val value = {.type = FERO_T_BYTES, .s = {text, sizeof text}};
        maker->error = fero_reply_part(kept, &value);
        if (maker->error == 0) maker->sent++;
        if (maker->error == 0) continue;
        if (maker->error != FERO_E_AGAIN) break;
        maker->refused++;
        store_release_u32(&maker->was_refused, 1);
        if (maker->outlives) continue;
        /* Whoever is told so is told of room, too. */
        while (maker->drains == drains) fero_run(node, 1000);
        drains = maker->drains;
    }
    if (maker->sent == maker->parts) {
        do maker->error = fero_reply(kept, 0, NULL);
        while (maker->error == FERO_E_AGAIN);
    }
    fero_req_release(kept);
    if (!maker->outlives) fero_thread_unregister(node);
    return NULL;
}

static void begin(struct maker *maker, uint64_t parts, bool outlives)
{
    *maker = (struct maker){.parts = parts, .outlives = outlives};
    wait_for(&is_kept);
    assert_int_equal(pthread_create(&maker->thread, NULL, make, maker), 0);
}

static void join(struct maker *maker)
{
    assert_int_equal(pthread_join(maker->thread, NULL), 0);
}

/* ---- who takes it ----------------------------------------------------------------------------- */

struct taker {
    uint64_t parts;
    bool is_done;
    int32_t outcome;
    int32_t error;
};

static void take(const fero_result *result, void *ud)
{
    struct taker *taker = ud;
    assert_false(taker->is_done);
    if ((result->flags & FERO_R_MORE) == 0) {
        taker->is_done = true;
        taker->outcome = result->outcome;
        taker->error = result->error;
        return;
    }
    uint64_t number;
    assert_int_equal(result->value.s.len, PART_BYTES);
    memcpy(&number, result->value.s.ptr, sizeof number);
    assert_int_equal(number, taker->parts);
    taker->parts++;
}

static void ask(fero_cache *of, struct taker *taker, int64_t timeout_ms, fero_op **op)
{
    const fero_wopts opts = {.size = sizeof opts,
                             .want = FERO_STREAM,
                             .timeout_ms = timeout_ms,
                             .done = take,
                             .ud = taker};
    *taker = (struct taker){0};
    assert_int_equal(fero_send(of, fero_str("keep"), fero_str("a"), NULL, &opts, op), 0);
    if (of == remote) fero_run(client, 0);
}

static void run_until_done(fero *rt, struct taker *taker)
{
    uint64_t until_ns = clock_now_ns() + PATIENCE_MS * NS_PER_MS;
    while (!taker->is_done && clock_now_ns() < until_ns) fero_run(rt, 100);
    assert_true(taker->is_done);
}

static void a_client_gets_a_threads_parts_in_order(void **unused)
{
    (void)unused;
    struct taker taker;
    struct maker maker;
    ask(remote, &taker, PATIENCE_MS, NULL);
    begin(&maker, 5000, false);
    run_until_done(client, &taker);
    join(&maker);
    assert_int_equal(maker.error, 0);
    assert_int_equal(taker.outcome, FERO_OUTCOME_OK);
    assert_int_equal(taker.parts, 5000);
}

static void another_thread_gets_a_threads_parts_in_order(void **unused)
{
    (void)unused;
    struct taker taker;
    struct maker maker;
    ask(cache, &taker, PATIENCE_MS, NULL);
    begin(&maker, 5000, false);
    run_until_done(node, &taker);
    join(&maker);
    assert_int_equal(maker.error, 0);
    assert_int_equal(taker.outcome, FERO_OUTCOME_OK);
    assert_int_equal(taker.parts, 5000);
}

/* Parts that nobody asked for are taken off the way, so that the end comes. */
static void a_thread_that_wants_no_parts_gets_the_end(void **unused)
{
    (void)unused;
    struct maker maker;
    fero_op *op;
    fero_result result;
    assert_int_equal(fero_send(cache, fero_str("keep"), fero_str("a"), NULL, NULL, &op), 0);
    begin(&maker, 1000, false);
    assert_int_equal(fero_wait(op, PATIENCE_MS, &result), 0);
    assert_int_equal(result.outcome, FERO_OUTCOME_OK);
    fero_op_free(op);
    join(&maker);
}

static void what_a_slow_client_is_sent_is_bounded(void **unused)
{
    (void)unused;
    struct taker taker;
    struct maker maker;
    ask(remote, &taker, PATIENCE_MS, NULL);
    begin(&maker, 50000, false);
    /* The client does not run: what its socket, its outbox and the ways there hold, and no more. */
    wait_for(&maker.was_refused);
    run_until_done(client, &taker);
    join(&maker);
    assert_int_equal(maker.error, 0);
    assert_int_equal(taker.parts, 50000);
    assert_true(maker.refused > 0);
    /* The request's callback was told as well. */
    assert_true(load_acquire_u32(&rooms) > 0);
}

static void a_client_stops_a_threads_stream(void **unused)
{
    (void)unused;
    struct taker taker;
    struct maker maker;
    fero_op *op;
    ask(remote, &taker, PATIENCE_MS, &op);
    begin(&maker, UINT64_MAX, false);
    while (taker.parts < 10) fero_run(client, 100);
    assert_int_equal(fero_op_cancel(op), 0);
    run_until_done(client, &taker);
    join(&maker);
    assert_int_equal(maker.error, FERO_E_STOPPED);
    assert_int_equal(taker.outcome, FERO_OUTCOME_UNKNOWN);
    assert_int_equal(taker.error, FERO_E_STOPPED);
    assert_int_equal(load_acquire_u32(&stopped_error), -FERO_E_STOPPED);
    fero_op_free(op);
}

static void a_thread_stops_a_threads_stream(void **unused)
{
    (void)unused;
    struct taker taker;
    struct maker maker;
    fero_op *op;
    ask(cache, &taker, PATIENCE_MS, &op);
    begin(&maker, UINT64_MAX, false);
    while (taker.parts < 10) fero_run(node, 100);
    assert_int_equal(fero_op_cancel(op), 0);
    assert_int_equal(fero_op_cancel(op), 0);
    run_until_done(node, &taker);
    join(&maker);
    assert_int_equal(maker.error, FERO_E_STOPPED);
    assert_int_equal(taker.outcome, FERO_OUTCOME_UNKNOWN);
    assert_int_equal(taker.error, FERO_E_STOPPED);
    fero_op_free(op);
}

/* At once: the thread has not heard yet that the request is deferred. */
static void what_is_stopped_at_once_is_stopped(void **unused)
{
    (void)unused;
    fero_cache *const callers[] = {cache, remote};
    for (size_t i = 0; i < ARRAY_COUNT(callers); i++) {
        struct taker taker;
        fero_op *op;
        store_release_u32(&is_kept, 0);
        ask(callers[i], &taker, PATIENCE_MS, &op);
        assert_int_equal(fero_op_cancel(op), 0);
        run_until_done(callers[i] == cache ? node : client, &taker);
        assert_int_equal(taker.error, FERO_E_STOPPED);
        assert_int_equal(fero_op_cancel(op), FERO_E_NOTFOUND);
        wait_for(&is_kept);
        assert_int_equal(fero_reply(kept, 0, NULL), FERO_E_STOPPED);
        fero_req_release(kept);
        fero_op_free(op);
    }
    assert_int_equal(fero_op_cancel(NULL), FERO_E_INVAL);
}

static void a_thread_hears_that_its_client_has_died(void **unused)
{
    (void)unused;
    struct taker taker;
    struct maker maker;
    ask(remote, &taker, PATIENCE_MS, NULL);
    begin(&maker, UINT64_MAX, false);
    while (taker.parts < 10) fero_run(client, 100);
    fero_stop(client, FERO_OFF);
    client = NULL;
    join(&maker);
    assert_int_equal(maker.error, FERO_E_NOTCONN);
    wait_for(&stopped_error);
    assert_int_equal(stopped_error, -FERO_E_NOTCONN);
}

static void a_thread_hears_that_the_node_stops(void **unused)
{
    (void)unused;
    struct taker taker;
    struct maker maker;
    ask(remote, &taker, PATIENCE_MS, NULL);
    begin(&maker, UINT64_MAX, true);
    while (taker.parts < 10) fero_run(client, 100);
    fero_stop(node, 100);
    node = NULL;
    join(&maker);
    assert_true(maker.error == FERO_E_CLOSED || maker.error == FERO_E_NOTCONN);
    run_until_done(client, &taker);
    assert_int_equal(taker.outcome, FERO_OUTCOME_UNKNOWN);
}

static void there_is_nothing_behind_the_end(void **unused)
{
    (void)unused;
    static char large[2 << 20];
    const fero_val too_large = {.type = FERO_T_BYTES, .s = {large, sizeof large}};
    const fero_val bad = {.type = 99};
    const fero_val value = runtime_string("x");
    struct taker taker;
    ask(remote, &taker, PATIENCE_MS, NULL);
    wait_for(&is_kept);
    assert_int_equal(fero_reply_part(NULL, &value), FERO_E_INVAL);
    assert_int_equal(fero_reply_part(kept, &bad), FERO_E_TYPE);
    assert_int_equal(fero_reply_part(kept, &too_large), FERO_E_TOOBIG);
    assert_int_equal(fero_reply(kept, 0, &too_large), FERO_E_TOOBIG);
    assert_int_equal(fero_reply(kept, 0, NULL), 0);
    assert_int_equal(fero_reply_part(kept, &value), FERO_E_INVAL);
    assert_int_equal(fero_reply(kept, 0, NULL), FERO_E_INVAL);
    fero_req_release(kept);
    run_until_done(client, &taker);
    assert_int_equal(taker.outcome, FERO_OUTCOME_OK);
    assert_int_equal(taker.parts, 0);
}

static void large_parts_go_one_by_one(void **unused)
{
    (void)unused;
    static char large[1 << 20];
    const fero_val value = {.type = FERO_T_BYTES, .s = {large, sizeof large}};
    fero_op *op;
    fero_result result;
    unsigned sent = 0;
    assert_int_equal(fero_send(cache, fero_str("keep"), fero_str("a"), NULL, NULL, &op), 0);
    wait_for(&is_kept);
    while (sent < 20) {
        int err = fero_reply_part(kept, &value);
        if (err == 0) sent++;
        if (err == FERO_E_AGAIN) fero_run(node, 1);
        assert_true(err == 0 || err == FERO_E_AGAIN);
    }
    assert_int_equal(fero_reply(kept, 0, &value), 0);
    fero_req_release(kept);
    assert_int_equal(fero_wait(op, PATIENCE_MS, &result), 0);
    assert_int_equal(result.value.s.len, sizeof large);
    fero_op_free(op);
}

/* The keys of the two requests are on different shards, or on the same: either works. */
static void another_shards_handler_may_answer(void **unused)
{
    (void)unused;
    for (int i = 0; i < 8; i++) {
        char key[16];
        fero_op *op;
        fero_result result;
        store_release_u32(&is_kept, 0);
        const fero_wopts opts = {
            .size = sizeof opts, .want = FERO_REPLY, .timeout_ms = PATIENCE_MS};
        snprintf(key, sizeof key, "key%d", i);
        fero_op *kept_op;
        assert_int_equal(fero_send(cache, fero_str("keep"), fero_str("a"), NULL, &opts, &kept_op),
                         0);
        wait_for(&is_kept);
        assert_int_equal(fero_send(cache, fero_str("answer"), fero_str(key), NULL, &opts, &op), 0);
        assert_int_equal(fero_wait(op, PATIENCE_MS, &result), 0);
        assert_int_equal(result.outcome, FERO_OUTCOME_OK);
        assert_int_equal(here_err[0], 0);
        assert_int_equal(here_err[1], 0);
        assert_int_equal(here_err[2], FERO_E_INVAL);
        assert_int_equal(fero_wait(kept_op, PATIENCE_MS, &result), 0);
        assert_int_equal(result.value.i64, 7);
        fero_op_free(op);
        fero_op_free(kept_op);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_client_gets_a_threads_parts_in_order),
        TEST(another_thread_gets_a_threads_parts_in_order),
        TEST(a_thread_that_wants_no_parts_gets_the_end),
        TEST(what_a_slow_client_is_sent_is_bounded),
        TEST(a_client_stops_a_threads_stream),
        TEST(a_thread_stops_a_threads_stream),
        TEST(what_is_stopped_at_once_is_stopped),
        TEST(a_thread_hears_that_its_client_has_died),
        TEST(a_thread_hears_that_the_node_stops),
        TEST(there_is_nothing_behind_the_end),
        TEST(large_parts_go_one_by_one),
        TEST(another_shards_handler_may_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
