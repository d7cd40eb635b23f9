/*
 * A node through the public API, on real sockets: how it starts, what it refuses, how it stops.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "cli/json.h"
#include "fero.h"

static fero_runtime_opts small(void)
{
    return (fero_runtime_opts){.size = sizeof(fero_runtime_opts),
                               .shards = 2,
                               .memory_max_bytes = 256 << 20,
                               .idle = FERO_IDLE_SLEEP};
}

static fero *started(const fero_runtime_opts *opts)
{
    fero *rt = NULL;
    int err = fero_start(opts, &rt);
    if (err == FERO_E_SYS) {
        print_message("%s\n", fero_errmsg());
        skip();
    }
    assert_int_equal(err, 0);
    return rt;
}

static void a_node_starts_and_stops(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = small();
    for (unsigned i = 0; i < 5; i++) {
        fero *rt = started(&opts);
        assert_memory_equal(fero_address(rt), "127.0.0.1:", 10);
        assert_int_equal(fero_stop(rt, 0), 0);
    }
}

static void a_port_in_use_is_named(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = small();
    fero *other = NULL;
    fero *rt = started(&opts);
    const char *port = strchr(fero_address(rt), ':') + 1;
    opts.port_first = (uint16_t)strtol(port, NULL, 10);
    assert_int_equal(fero_start(&opts, &other), FERO_E_EXISTS);
    assert_non_null(strstr(fero_errmsg(), port));
    assert_int_equal(fero_stop(rt, 0), 0);
    assert_int_equal(fero_start(&opts, &rt), 0); /* it is free again */
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void wrong_addresses_are_refused(void **unused)
{
    (void)unused;
    fero *rt = NULL;
    fero_runtime_opts opts = small();
    opts.listen = "0.0.0.0";
    assert_int_equal(fero_start(&opts, &rt), FERO_E_DENIED);
    assert_non_null(strstr(fero_errmsg(), "0.0.0.0"));
    opts.listen = "somewhere";
    assert_int_equal(fero_start(&opts, &rt), FERO_E_INVAL);
    assert_non_null(strstr(fero_errmsg(), "somewhere"));
}

static void a_cache_is_opened_once(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = small();
    fero_opts cache_opts = {.size = sizeof cache_opts};
    fero_cache *first = NULL;
    fero_cache *again = NULL;
    fero_cache *other = NULL;
    fero *rt = started(&opts);
    assert_int_equal(fero_open(rt, "demo", &cache_opts, &first), 0);
    assert_int_equal(fero_open(rt, "demo", NULL, &again), 0);
    assert_int_equal(fero_open(rt, "other", NULL, &other), 0);
    assert_ptr_equal(first, again);
    assert_ptr_not_equal(first, other);
    assert_int_equal(fero_open(rt, "", NULL, &other), FERO_E_INVAL);
    assert_int_equal(fero_close(first), 0);
    assert_int_equal(fero_shards(first), 0);
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void info_is_json_or_does_not_fit(void **unused)
{
    (void)unused;
    static char buffer[100000];
    fero_runtime_opts opts = small();
    fero_cache *cache = NULL;
    fero *rt = started(&opts);
    assert_int_equal(fero_open(rt, "demo", NULL, &cache), 0);
    int64_t bytes = fero_info(rt, buffer, sizeof buffer);
    assert_in_range(bytes, 100, 10000);
    assert_int_equal(json_classify(buffer, (size_t)bytes), JSON_OBJECT);
    assert_int_equal(json_sum(buffer, (size_t)bytes, "shards_count"), 2);
    /* Counters may have grown by a digit or two meanwhile. */
    for (size_t room = 2; room + 100 < (size_t)bytes; room++)
        assert_int_equal(fero_info(rt, buffer, room), FERO_E_TOOBIG);
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void a_client_talks_to_every_shard(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = small();
    fero_cache *cache = NULL;
    fero *rt = started(&opts);
    assert_int_equal(fero_open(rt, "demo", NULL, &cache), 0);
    const char *seeds[] = {fero_address(rt), NULL};
    fero_runtime_opts client_opts = {
        .size = sizeof client_opts, .client = 1, .seeds = seeds, .idle = FERO_IDLE_SLEEP};
    fero *client = started(&client_opts);
    assert_int_equal(fero_open(client, "demo", NULL, &cache), 0);
    assert_int_equal(fero_shards(cache), 2);
    for (unsigned i = 0; i < 100; i++) {
        char key[16];
        fero_op *op = NULL;
        fero_result result;
        fero_val value = {.type = FERO_T_INT64, .i64 = i};
        snprintf(key, sizeof key, "k%u", i);
        assert_int_equal(fero_update(cache, fero_str(key), &value, NULL, &op), 0);
        assert_int_equal(fero_wait(op, 10000, &result), 0);
        assert_int_equal(result.outcome, FERO_OUTCOME_OK);
        fero_op_free(op);
        assert_int_equal(fero_get(cache, fero_str(key), NULL, &op), 0);
        assert_int_equal(fero_wait(op, 10000, &result), 0);
        assert_int_equal(result.value.i64, i);
        fero_op_free(op);
    }
    assert_int_equal(fero_stop(client, 0), 0);
    assert_int_equal(fero_stop(rt, 0), 0);
}

/* Asks for far more than sockets hold, and does not read it. */
static fero *deaf_client(fero *rt)
{
    static char bytes[500000];
    fero_cache *cache = NULL;
    const char *seeds[] = {fero_address(rt), NULL};
    fero_runtime_opts opts = {
        .size = sizeof opts, .client = 1, .seeds = seeds, .idle = FERO_IDLE_SLEEP};
    fero_val value = {.type = FERO_T_BYTES, .s = {bytes, sizeof bytes}};
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY};
    fero_op *op = NULL;
    fero *client = started(&opts);
    assert_int_equal(fero_open(client, "demo", NULL, &cache), 0);
    assert_int_equal(fero_update(cache, fero_str("k"), &value, NULL, &op), 0);
    assert_int_equal(fero_wait(op, 10000, NULL), 0);
    fero_op_free(op);
    for (int i = 0; i < 200; i++) assert_int_equal(fero_get(cache, fero_str("k"), &wopts, NULL), 0);
    while (fero_run(client, 10000) == 0) {
    }
    return client;
}

/* How long a node takes to stop while a client does not read. */
static uint64_t stopping_ns(int64_t drain_ms)
{
    fero_runtime_opts opts = small();
    fero_cache *cache = NULL;
    fero *rt = started(&opts);
    assert_int_equal(fero_open(rt, "demo", NULL, &cache), 0);
    fero *client = deaf_client(rt);
    uint64_t begin_ns = clock_now_ns();
    assert_int_equal(fero_stop(rt, -2), FERO_E_INVAL);
    assert_int_equal(fero_stop(rt, drain_ms), 0);
    uint64_t took_ns = clock_now_ns() - begin_ns;
    assert_int_equal(fero_stop(client, FERO_OFF), 0);
    return took_ns;
}

static void who_does_not_read_is_waited_for_as_long_as_told(void **unused)
{
    (void)unused;
    uint64_t told_ns = stopping_ns(1500);
    assert_true(told_ns >= 1500 * NS_PER_MS);
    assert_true(stopping_ns(FERO_OFF) < told_ns);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_starts_and_stops),
        cmocka_unit_test(a_port_in_use_is_named),
        cmocka_unit_test(wrong_addresses_are_refused),
        cmocka_unit_test(a_cache_is_opened_once),
        cmocka_unit_test(info_is_json_or_does_not_fit),
        cmocka_unit_test(a_client_talks_to_every_shard),
        cmocka_unit_test(who_does_not_read_is_waited_for_as_long_as_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
