/*
 * A client inside a loop of the caller's own, which blocks in poll(2) and nowhere else: whatever has
 * to happen wakes it, or the test waits in vain and says so.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/ck.h"
#include "base/clock.h"
#include "fero.h"

#define IN_VAIN_MS 30000
/* How often it may be woken for nothing, for each thing that happens. */
#define WAKES_MAX 8

static uint32_t is_held; /* the handler of HOLD keeps its shard */

static int32_t on_hold(fero_req *req, void *ud)
{
    (void)ud;
    while (load_acquire_u32(&is_held) != 0) clock_pause();
    fero_reply(req, FERO_OK, NULL);
    return FERO_H_REPLIED;
}

static struct {
    fero *node;
    fero *client;
    fero_cache *cache;
    char address[64];
    int fd;
    unsigned wakes;
    unsigned done;
    fero_result last;
} test;

static fero *started(const fero_runtime_opts *opts)
{
    fero *rt = NULL;
    int err = fero_start(opts, &rt);
    if (err == FERO_E_SYS) {
        print_message("%s\n", fero_errmsg());
        skip();
    }
    if (err < 0) fail_msg("%s", fero_errmsg());
    return rt;
}

static void start_node(uint16_t port)
{
    fero_runtime_opts opts = {.size = sizeof opts,
                              .shards = 2,
                              .port_first = port,
                              .memory_max_bytes = 256 << 20,
                              .idle = FERO_IDLE_SLEEP};
    const fero_verb verbs[] = {{.name = "HOLD", .fn = on_hold}};
    fero_opts about = {.size = sizeof about, .verbs = verbs, .verbs_count = 1};
    fero_cache *cache;
    test.node = started(&opts);
    assert_int_equal(fero_open(test.node, "demo", &about, &cache), 0);
    snprintf(test.address, sizeof test.address, "%s", fero_address(test.node));
}

static void start_with(const char *io_features, int64_t outbox_max_bytes)
{
    memset(&test, 0, sizeof test);
    start_node(0);
    const char *seeds[] = {test.address, NULL};
    fero_runtime_opts opts = {.size = sizeof opts,
                              .client = 1,
                              .seeds = seeds,
                              .io_features = io_features,
                              .outbox_max_bytes = outbox_max_bytes};
    test.client = started(&opts);
    assert_int_equal(fero_open(test.client, "demo", NULL, &test.cache), 0);
    test.fd = fero_fd(test.client);
    if (test.fd < 0) fail_msg("%s", fero_errmsg());
    assert_int_equal(fero_fd(test.client), test.fd);
}

static int setup(void **unused)
{
    (void)unused;
    start_with(NULL, 0);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    store_release_u32(&is_held, 0);
    fero_stop(test.client, 0);
    if (test.node != NULL) fero_stop(test.node, 0);
    return 0;
}

static void on_done(const fero_result *result, void *ud)
{
    (void)ud;
    test.done++;
    test.last = *result;
}

static int update(int64_t timeout_ms)
{
    fero_wopts wopts = {
        .size = sizeof wopts, .want = FERO_REPLY, .timeout_ms = timeout_ms, .done = on_done};
    fero_val value = {.type = FERO_T_INT64, .i64 = 1};
    return fero_update(test.cache, fero_str("k"), &value, &wopts, NULL);
}

static bool is_readable(int timeout_ms)
{
    struct pollfd fd = {.fd = test.fd, .events = POLLIN};
    int count;
    while ((count = poll(&fd, 1, timeout_ms)) < 0) assert_int_equal(errno, EINTR);
    return count > 0;
}

/* One round of the loop. */
static void loop_once(void)
{
    if (!is_readable(IN_VAIN_MS)) fail_msg("nothing woke the loop");
    test.wakes++;
    assert_true(fero_run(test.client, 0) >= 0);
}

static void loop_until_done(unsigned count)
{
    while (test.done < count) loop_once();
}

/* Runs until it is silent. */
static void settle(void)
{
    for (unsigned i = 0; is_readable(0); i++) {
        assert_true(i < 1000);
        assert_true(fero_run(test.client, 0) >= 0);
    }
}

static void ping(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(update(0), 0);
        assert_true(is_readable(0)); /* there is something to send */
        loop_until_done(test.done + 1);
        assert_int_equal(test.last.outcome, FERO_OUTCOME_OK);
    }
}

static void each_answer_wakes_the_loop(void **unused)
{
    (void)unused;
    ping(200);
    assert_in_range(test.wakes, 200, 200 * WAKES_MAX);
}

static void and_does_so_whatever_the_ring_can(void **unused)
{
    (void)unused;
    static const char *features[] = {"-defer_taskrun", "none"};
    for (unsigned i = 0; i < 2; i++) {
        start_with(features[i], 0);
        ping(50);
        settle();
        teardown(NULL);
    }
}

static void and_without_batching(void **unused)
{
    (void)unused;
    start_with(NULL, FERO_OFF);
    for (unsigned i = 0; i < 100; i++) assert_int_equal(update(0), 0);
    loop_until_done(100);
    ping(10);
    teardown(NULL);
}

static void an_idle_client_lets_the_loop_sleep(void **unused)
{
    (void)unused;
    settle();
    assert_false(is_readable(20));
    ping(1);
    settle();
    assert_false(is_readable(20));
    assert_int_equal(fero_run(test.client, 0), 0);
    assert_false(is_readable(0));
}

static void a_timeout_wakes_the_loop(void **unused)
{
    (void)unused;
    store_release_u32(&is_held, 1);
    fero_wopts wopts = {
        .size = sizeof wopts, .want = FERO_REPLY, .timeout_ms = 50, .done = on_done};
    uint64_t begin_ns = clock_now_ns();
    assert_int_equal(fero_send(test.cache, fero_str("HOLD"), fero_str("k"), NULL, &wopts, NULL), 0);
    loop_until_done(1);
    assert_true(clock_now_ns() - begin_ns >= 50 * NS_PER_MS);
    assert_int_equal(test.last.outcome, FERO_OUTCOME_UNKNOWN);
    assert_int_equal(test.last.error, FERO_E_TIMEOUT);
    assert_in_range(test.wakes, 1, WAKES_MAX);
}

static void a_full_window_lets_the_loop_sleep_until_an_answer(void **unused)
{
    (void)unused;
    store_release_u32(&is_held, 1);
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY, .done = on_done};
    unsigned sent = 0;
    while (fero_send(test.cache, fero_str("HOLD"), fero_str("k"), NULL, &wopts, NULL) == 0) sent++;
    settle();
    assert_int_equal(update(0), FERO_E_AGAIN);
    assert_int_equal(update(0), FERO_E_AGAIN);
    assert_false(is_readable(20));
    store_release_u32(&is_held, 0);
    loop_until_done(sent);
    ping(1);
}

static void a_lost_node_wakes_the_loop_and_so_does_its_return(void **unused)
{
    (void)unused;
    uint16_t port = (uint16_t)strtol(strchr(test.address, ':') + 1, NULL, 10);
    settle();
    assert_int_equal(fero_stop(test.node, 0), 0);
    test.node = NULL;
    while (update(0) != FERO_E_NOTCONN) loop_once();
    for (unsigned i = 0; i < 2; i++) loop_once(); /* it dials, in vain, and again later */
    start_node(port);
    while (update(0) != 0) loop_once();
    unsigned done = test.done;
    while (test.done == done) loop_once();
}

static void what_else_runs_the_client_arms_it_too(void **unused)
{
    (void)unused;
    fero_op *op = NULL;
    fero_cache *other = NULL;
    assert_int_equal(update(0), 0);
    assert_int_equal(fero_get(test.cache, fero_str("k"), NULL, &op), 0);
    assert_int_equal(fero_wait(op, IN_VAIN_MS, NULL), 0);
    fero_op_free(op);
    loop_until_done(1);
    assert_int_equal(fero_open(test.client, "demo", NULL, &other), 0);
    ping(1);
    assert_int_equal(fero_close(other), 0);
    ping(1);
    settle();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(each_answer_wakes_the_loop),
        cmocka_unit_test(and_does_so_whatever_the_ring_can),
        cmocka_unit_test(and_without_batching),
        TEST(an_idle_client_lets_the_loop_sleep),
        TEST(a_timeout_wakes_the_loop),
        TEST(a_full_window_lets_the_loop_sleep_until_an_answer),
        TEST(a_lost_node_wakes_the_loop_and_so_does_its_return),
        TEST(what_else_runs_the_client_arms_it_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
