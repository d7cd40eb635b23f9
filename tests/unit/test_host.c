/*
 * Threads of the program that make requests of a node in the same process.
 */
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/ck.h"
#include "base/clock.h"
#include "fero.h"
#include "tests/support/runtime.h"

#define WAIT_MS 20000

/* Waits for `op`, frees it, and returns what it ended with, without its value. */
static fero_result outcome(fero_op *op)
{
    fero_result result;
    assert_int_equal(fero_wait(op, WAIT_MS, &result), 0);
    fero_op_free(op);
    result.value = (fero_val){0};
    return result;
}

static void set(fero_cache *cache, const char *key, const char *value)
{
    fero_op *op;
    fero_val val = runtime_string(value);
    assert_int_equal(fero_update(cache, fero_str(key), &val, NULL, &op), 0);
    assert_int_equal(outcome(op).outcome, FERO_OUTCOME_OK);
}

static void check_value(fero_cache *cache, const char *key, const char *value)
{
    fero_op *op;
    fero_result result;
    assert_int_equal(fero_get(cache, fero_str(key), NULL, &op), 0);
    assert_int_equal(fero_wait(op, WAIT_MS, &result), 0);
    assert_int_equal(result.outcome, FERO_OUTCOME_OK);
    assert_int_equal(result.value.s.len, strlen(value));
    assert_memory_equal(result.value.s.ptr, value, strlen(value));
    fero_op_free(op);
}

static void a_thread_writes_and_reads(void **unused)
{
    (void)unused;
    for (int shards = 1; shards <= 3; shards++) {
        fero_runtime_opts opts = runtime_options(shards);
        fero *rt = runtime_start(&opts);
        fero_cache *cache = runtime_open(rt, "users", NULL);
        for (int i = 0; i < 200; i++) {
            char key[16];
            char value[16];
            snprintf(key, sizeof key, "key%d", i);
            snprintf(value, sizeof value, "value%d", i);
            set(cache, key, value);
            check_value(cache, key, value);
        }
        fero_op *op;
        assert_int_equal(fero_remove(cache, fero_str("key7"), NULL, &op), 0);
        assert_int_equal(outcome(op).offset, 2);
        assert_int_equal(fero_get(cache, fero_str("key7"), NULL, &op), 0);
        assert_int_equal(outcome(op).error, FERO_E_NOTFOUND);
        assert_int_equal(fero_stop(rt, 0), 0);
    }
}

static void a_thread_reads_without_asking(void **unused)
{
    (void)unused;
    char buffer[16];
    fero_val value;
    uint64_t offset = 0;
    for (int shards = 1; shards <= 2; shards++) {
        fero_runtime_opts opts = runtime_options(shards);
        fero *rt = runtime_start(&opts);
        fero_cache *cache = runtime_open(rt, "users", NULL);
        fero_slice key = fero_str("key");
        assert_int_equal(fero_read(cache, key, buffer, 16, &value, NULL), FERO_E_NOTFOUND);
        set(cache, "key", "first");
        set(cache, "key", "second");
        assert_int_equal(fero_read(cache, key, buffer, 16, &value, &offset), 0);
        assert_int_equal(value.type, FERO_T_STRING);
        assert_ptr_equal(value.s.ptr, buffer);
        assert_int_equal(value.s.len, 6);
        assert_memory_equal(buffer, "second", 6);
        assert_int_equal(offset, 2);
        assert_int_equal(fero_read(cache, key, buffer, 5, &value, NULL), FERO_E_TOOBIG);
        assert_null(value.s.ptr);
        assert_int_equal(value.s.len, 6);
        assert_int_equal(fero_read(cache, key, NULL, 0, &value, NULL), FERO_E_TOOBIG);
        set(cache, "key", "");
        assert_int_equal(fero_read(cache, key, NULL, 0, &value, NULL), 0);
        assert_int_equal(value.s.len, 0);
        fero_op *op;
        assert_int_equal(fero_remove(cache, key, NULL, &op), 0);
        assert_int_equal(outcome(op).outcome, FERO_OUTCOME_OK);
        assert_int_equal(fero_read(cache, key, buffer, 16, &value, NULL), FERO_E_NOTFOUND);
        assert_int_equal(fero_read(cache, fero_str(""), buffer, 16, &value, NULL), FERO_E_INVAL);
        assert_int_equal(fero_read(cache, key, NULL, 16, &value, NULL), FERO_E_INVAL);
        assert_int_equal(fero_stop(rt, 0), 0);
    }
}

#define READINGS 100

static void a_thread_reads_many_keys_at_once(void **unused)
{
    (void)unused;
    for (int shards = 1; shards <= 3; shards++) {
        static char keys[READINGS][16];
        static char buffers[READINGS][16];
        fero_reading readings[READINGS];
        fero_runtime_opts opts = runtime_options(shards);
        fero *rt = runtime_start(&opts);
        fero_cache *cache = runtime_open(rt, "users", NULL);
        assert_int_equal(fero_read_many(cache, NULL, 0), 0);
        /* Every third is not there, every fifth is inside of a partition. */
        for (int i = 0; i < READINGS; i++) {
            snprintf(keys[i], sizeof keys[i], i % 5 == 0 ? "key%d.x" : "key%d", i);
            readings[i] = (fero_reading){
                .key = fero_str(keys[i]), .buffer = buffers[i], .bytes = sizeof buffers[i]};
            if (i % 3 != 0) set(cache, keys[i], keys[i]);
        }
        assert_int_equal(fero_read_many(cache, readings, READINGS), READINGS - 34);
        for (int i = 0; i < READINGS; i++) {
            assert_int_equal(readings[i].error, i % 3 != 0 ? 0 : FERO_E_NOTFOUND);
            if (i % 3 == 0) continue;
            assert_int_equal(readings[i].offset, 1);
            assert_ptr_equal(readings[i].value.s.ptr, buffers[i]);
            assert_int_equal(readings[i].value.s.len, strlen(keys[i]));
            assert_memory_equal(buffers[i], keys[i], strlen(keys[i]));
        }
        readings[7].bytes = 2;
        assert_int_equal(fero_read_many(cache, readings, READINGS), READINGS - 35);
        assert_int_equal(readings[7].error, FERO_E_TOOBIG);
        assert_int_equal(readings[7].value.s.len, 4);
        assert_null(readings[7].value.s.ptr);
        readings[8].key.len = 0;
        assert_int_equal(fero_read_many(cache, readings, READINGS), FERO_E_INVAL);
        readings[8].key.len = 4;
        readings[9].buffer = NULL;
        assert_int_equal(fero_read_many(cache, readings, READINGS), FERO_E_INVAL);
        assert_int_equal(fero_read_many(NULL, readings, 1), FERO_E_INVAL);
        assert_int_equal(fero_read_many(cache, NULL, 1), FERO_E_INVAL);
        assert_int_equal(fero_stop(rt, 0), 0);
    }
}

static void what_is_in_trees_is_asked_for(void **unused)
{
    (void)unused;
    for (int shards = 1; shards <= 2; shards++) {
        char buffer[64];
        fero_val value;
        fero_runtime_opts opts = runtime_options(shards);
        fero *rt = runtime_start(&opts);
        fero_cache *cache = runtime_open(rt, "users", NULL);
        set(cache, "28", "flat");
        assert_int_equal(fero_read(cache, fero_str("28"), buffer, 64, &value, NULL), 0);
        assert_memory_equal(buffer, "flat", 4);
        fero_op *op;
        assert_int_equal(fero_remove(cache, fero_str("28"), NULL, &op), 0);
        assert_int_equal(outcome(op).outcome, FERO_OUTCOME_OK);
        set(cache, "28.email", "x@y");
        assert_int_equal(fero_read(cache, fero_str("28.email"), buffer, 64, &value, NULL), 0);
        assert_int_equal(value.s.len, 3);
        assert_memory_equal(buffer, "x@y", 3);
        assert_int_equal(fero_read(cache, fero_str("28"), buffer, 64, &value, NULL), 0);
        assert_int_equal(value.type, FERO_T_JSON);
        assert_int_equal(value.s.len, strlen("{\"email\":\"x@y\"}"));
        assert_memory_equal(buffer, "{\"email\":\"x@y\"}", value.s.len);
        assert_int_equal(fero_read(cache, fero_str("28"), buffer, 5, &value, NULL), FERO_E_TOOBIG);
        assert_int_equal(fero_read(cache, fero_str("28.phone"), buffer, 64, &value, NULL),
                         FERO_E_NOTFOUND);
        assert_int_equal(fero_stop(rt, 0), 0);
    }
}

static void a_read_value_has_its_type(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(2);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "users", NULL);
    const fero_val values[] = {{.type = FERO_T_UNDEFINED},
                               {.type = FERO_T_STRING, .s = {"text", 4}},
                               {.type = FERO_T_DOUBLE, .num = 2.5},
                               {.type = FERO_T_JSON, .s = {"[1]", 3}},
                               {.type = FERO_T_BOOL, .i64 = 1},
                               {.type = FERO_T_NULL},
                               {.type = FERO_T_BYTES, .s = {"\0x", 3}},
                               {.type = FERO_T_INT64, .i64 = -7}};
    for (size_t i = 0; i < ARRAY_COUNT(values); i++) {
        char buffer[16];
        fero_op *op;
        fero_val value;
        assert_int_equal(fero_update(cache, fero_str("k"), &values[i], NULL, &op), 0);
        assert_int_equal(outcome(op).outcome, FERO_OUTCOME_OK);
        assert_int_equal(fero_read(cache, fero_str("k"), buffer, 16, &value, NULL), 0);
        assert_int_equal(value.type, values[i].type);
        assert_true(value.num == values[i].num);
        assert_int_equal(value.i64, values[i].i64);
        assert_int_equal(value.s.len, values[i].s.len);
        if (value.s.len > 0) assert_memory_equal(value.s.ptr, values[i].s.ptr, value.s.len);
    }
    assert_int_equal(fero_stop(rt, 0), 0);
}

struct heard {
    int count;
    int failed;
    fero_result last;
    char value[64];
};

static void hear(const fero_result *result, void *ud)
{
    struct heard *heard = ud;
    heard->count++;
    heard->failed += result->outcome != FERO_OUTCOME_OK;
    heard->last = *result;
    size_t bytes = result->value.s.len < 63 ? result->value.s.len : 63;
    if (bytes > 0) memcpy(heard->value, result->value.s.ptr, bytes);
    heard->value[bytes] = 0;
}

static fero_wopts hearing(struct heard *heard)
{
    return (fero_wopts){.size = sizeof(fero_wopts), .want = FERO_REPLY, .done = hear, .ud = heard};
}

static void answers_come_in_order_inside_run(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(2);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "users", NULL);
    struct heard heard = {0};
    fero_wopts wopts = hearing(&heard);
    fero_val value = runtime_string("x");
    for (int i = 0; i < 100; i++)
        assert_int_equal(fero_update(cache, fero_str("a"), &value, &wopts, NULL), 0);
    assert_int_equal(heard.count, 0);
    while (heard.count < 100) assert_true(fero_run(rt, WAIT_MS) > 0);
    assert_int_equal(heard.failed, 0);
    assert_int_equal(heard.last.offset, 100);
    assert_int_equal(heard.last.seq, 100);
    assert_int_equal(fero_run(rt, 0), 0);
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void large_values_cross_both_ways(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(2);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "users", NULL);
    for (size_t bytes = 4000; bytes <= 1000000; bytes += bytes / 3) {
        char *text = malloc(bytes + 1);
        memset(text, 'a' + (int)(bytes % 26), bytes);
        text[bytes] = 0;
        set(cache, "large", text);
        check_value(cache, "large", text);
        free(text);
    }
    assert_int_equal(fero_stop(rt, 0), 0);
}

static int32_t echo(fero_req *req, void *ud)
{
    (void)ud;
    assert_int_equal(req->session, 0);
    return fero_reply(req, 0, &req->value) == 0 ? FERO_H_REPLIED : FERO_E_INVAL;
}

static int32_t update_inside(fero_req *req, void *ud)
{
    (void)ud;
    return fero_update(req->cache, req->key, &req->value, NULL, NULL) == FERO_E_INVAL
               ? FERO_E_DENIED
               : FERO_E_CONFLICT;
}

static void a_thread_asks_handlers(void **unused)
{
    (void)unused;
    const fero_verb verbs[] = {{"ECHO", echo, NULL}, {"INSIDE", update_inside, NULL}};
    fero_opts cache_opts = {.size = sizeof cache_opts, .verbs = verbs, .verbs_count = 2};
    fero_runtime_opts opts = runtime_options(2);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "users", &cache_opts);
    struct heard heard = {0};
    fero_wopts wopts = hearing(&heard);
    fero_val value = runtime_string("hello");
    const char *keys[] = {"a", "b", "", "c"};
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
        assert_int_equal(
            fero_send(cache, fero_str("ECHO"), fero_str(keys[i]), &value, &wopts, NULL), 0);
    while (heard.count < 4) assert_true(fero_run(rt, WAIT_MS) > 0);
    assert_int_equal(heard.failed, 0);
    assert_string_equal(heard.value, "hello");
    fero_op *op;
    assert_int_equal(fero_send(cache, fero_str("INSIDE"), fero_str("a"), &value, NULL, &op), 0);
    assert_int_equal(outcome(op).error, FERO_E_DENIED);
    assert_int_equal(fero_send(cache, fero_str("NONE"), fero_str("a"), &value, NULL, &op), 0);
    assert_int_equal(outcome(op).error, FERO_E_UNSUPPORTED);
    assert_int_equal(fero_ask_info(cache, -1, &wopts, NULL), 0);
    while (heard.count < 5) assert_true(fero_run(rt, WAIT_MS) > 0);
    assert_int_equal(heard.last.value.type, FERO_T_JSON);
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void what_is_wrong_is_refused_before_it_is_sent(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(1);
    opts.key_max_bytes = 8;
    opts.value_max_bytes = 100;
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "users", NULL);
    char text[102] = "";
    memset(text, 'x', 101);
    fero_val value = runtime_string(text);
    fero_wopts wopts = {.size = 4};
    assert_int_equal(fero_update(cache, fero_str(""), NULL, NULL, NULL), FERO_E_INVAL);
    assert_int_equal(fero_update(cache, fero_str("123456789"), NULL, NULL, NULL), FERO_E_TOOBIG);
    assert_int_equal(fero_update(cache, fero_str("a"), &value, NULL, NULL), FERO_E_TOOBIG);
    assert_int_equal(fero_send(cache, fero_str(""), fero_str("a"), NULL, NULL, NULL), FERO_E_INVAL);
    assert_int_equal(fero_get(cache, fero_str("a"), &wopts, NULL), FERO_E_INVAL);
    value = (fero_val){.type = 99};
    assert_int_equal(fero_update(cache, fero_str("a"), &value, NULL, NULL), FERO_E_TYPE);
    assert_int_equal(fero_update(NULL, fero_str("a"), NULL, NULL, NULL), FERO_E_INVAL);
    assert_int_equal(fero_stop(rt, 0), 0);
}

/* ------------------------------------------------------------------------------- many threads */

struct worker {
    pthread_t thread;
    fero *rt;
    fero_cache *cache;
    int number;
    int result;
};

static void *write_and_leave(void *argument)
{
    struct worker *worker = argument;
    char key[16];
    fero_val value = runtime_string("here");
    for (int i = 0; i < 100 && worker->result == 0; i++) {
        snprintf(key, sizeof key, "w%d.%d", worker->number, i);
        while ((worker->result = fero_update(worker->cache, fero_str(key), &value, NULL, NULL)) ==
               FERO_E_AGAIN)
            fero_run(worker->rt, 1);
    }
    return NULL;
}

/* What another thread gave comes over another lane. */
static void wait_for_key(fero_cache *cache, const char *key)
{
    fero_result result = {.outcome = FERO_OUTCOME_FAIL};
    for (uint64_t begin_ns = clock_now_ns(); result.outcome != FERO_OUTCOME_OK;) {
        fero_op *op;
        assert_true(clock_now_ns() - begin_ns < WAIT_MS * NS_PER_MS);
        assert_int_equal(fero_get(cache, fero_str(key), NULL, &op), 0);
        assert_int_equal(fero_wait(op, WAIT_MS, &result), 0);
        fero_op_free(op);
    }
}

static void what_a_thread_gave_is_done_although_it_ends(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(2);
    opts.threads_max = 3;
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "users", NULL);
    struct worker workers[24] = {0};
    /* More threads than ports, two at a time. */
    for (int i = 0; i < 24; i++) {
        workers[i] = (struct worker){.rt = rt, .cache = cache, .number = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, write_and_leave, &workers[i]), 0);
        if (i % 2 == 0) continue;
        pthread_join(workers[i - 1].thread, NULL);
        pthread_join(workers[i].thread, NULL);
    }
    for (int i = 0; i < 24; i++) {
        char key[16];
        assert_int_equal(workers[i].result, 0);
        snprintf(key, sizeof key, "w%d.99", i);
        wait_for_key(cache, key);
        check_value(cache, key, "here");
    }
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void *register_once(void *argument)
{
    struct worker *worker = argument;
    worker->result = fero_thread_register(worker->rt);
    return NULL;
}

static int register_elsewhere(fero *rt)
{
    struct worker worker = {.rt = rt};
    assert_int_equal(pthread_create(&worker.thread, NULL, register_once, &worker), 0);
    pthread_join(worker.thread, NULL);
    return worker.result;
}

static void registrations_are_bounded(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(1);
    opts.threads_max = 1;
    fero *rt = runtime_start(&opts);
    assert_int_equal(register_elsewhere(rt), 0);
    assert_int_equal(fero_thread_register(rt), 0);
    assert_int_equal(fero_thread_register(rt), 0);
    assert_int_equal(register_elsewhere(rt), FERO_E_NOMEM);
    assert_int_equal(fero_thread_unregister(rt), 0);
    assert_int_equal(fero_thread_unregister(rt), FERO_E_NOTFOUND);
    assert_int_equal(register_elsewhere(rt), 0);
    assert_int_equal(fero_stop(rt, 0), 0);
    opts.threads_max = FERO_OFF;
    rt = runtime_start(&opts);
    assert_int_equal(fero_thread_register(rt), FERO_E_NOMEM);
    assert_int_equal(fero_stop(rt, 0), 0);
}

/* A verb whose handler waits until it may go on. */
struct gate {
    sem_t entered;
    sem_t open;
};

static int32_t wait_at_gate(fero_req *req, void *ud)
{
    struct gate *gate = ud;
    sem_post(&gate->entered);
    sem_wait(&gate->open);
    return fero_reply(req, 0, NULL) == 0 ? FERO_H_REPLIED : FERO_E_INVAL;
}

static fero_cache *open_gated(fero *rt, struct gate *gate)
{
    const fero_verb verbs[] = {{"WAIT", wait_at_gate, gate}};
    fero_opts opts = {.size = sizeof opts, .verbs = verbs, .verbs_count = 1};
    sem_init(&gate->entered, 0, 0);
    sem_init(&gate->open, 0, 0);
    return runtime_open(rt, "users", &opts);
}

static void ask_to_wait(fero_cache *cache, const fero_wopts *wopts, fero_op **op)
{
    assert_int_equal(fero_send(cache, fero_str("WAIT"), fero_str("a"), NULL, wopts, op), 0);
}

static void who_unregisters_hears_what_became_of_it(void **unused)
{
    (void)unused;
    struct gate gate;
    struct heard heard = {0};
    fero_runtime_opts opts = runtime_options(1);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = open_gated(rt, &gate);
    fero_wopts wopts = hearing(&heard);
    fero_op *op;
    ask_to_wait(cache, &wopts, &op);
    sem_wait(&gate.entered);
    assert_int_equal(fero_thread_unregister(rt), 0);
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.last.outcome, FERO_OUTCOME_UNKNOWN);
    assert_int_equal(heard.last.error, FERO_E_CLOSED);
    fero_op_free(op);
    sem_post(&gate.open);
    /* The late answer is nobody's, and the port is as good as new. */
    check_value((set(cache, "b", "2"), cache), "b", "2");
    assert_int_equal(heard.count, 1);
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void a_deadline_that_passes_ends_the_request(void **unused)
{
    (void)unused;
    struct gate gate;
    fero_runtime_opts opts = runtime_options(1);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = open_gated(rt, &gate);
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY, .timeout_ms = 10};
    fero_op *first;
    fero_result result;
    ask_to_wait(cache, &wopts, &first);
    sem_wait(&gate.entered);
    assert_int_equal(fero_wait(first, 0, &result), FERO_E_TIMEOUT);
    result = outcome(first);
    assert_int_equal(result.outcome, FERO_OUTCOME_UNKNOWN);
    assert_int_equal(result.error, FERO_E_TIMEOUT);
    sem_post(&gate.open);
    set(cache, "b", "2");
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void drained(void *ud)
{
    ++*(int *)ud;
}

static void a_full_lane_says_so_and_when_it_is_not(void **unused)
{
    (void)unused;
    struct gate gate;
    int drains = 0;
    int given = 0;
    fero_runtime_opts opts = runtime_options(1);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = open_gated(rt, &gate);
    assert_int_equal(fero_on_drain(rt, drained, &drains), 0);
    ask_to_wait(cache, NULL, NULL);
    sem_wait(&gate.entered);
    fero_val value = runtime_string("0123456789012345678901234567890123456789");
    int err;
    while ((err = fero_update(cache, fero_str("a"), &value, NULL, NULL)) == 0) given++;
    assert_int_equal(err, FERO_E_AGAIN);
    assert_true(given > 500 && given < 4000);
    assert_int_equal(fero_run(rt, 0), 0);
    assert_int_equal(drains, 0);
    sem_post(&gate.open);
    assert_int_equal(fero_run(rt, WAIT_MS), 1);
    assert_int_equal(drains, 1);
    fero_op *op;
    assert_int_equal(fero_update(cache, fero_str("a"), &value, NULL, &op), 0);
    assert_int_equal(outcome(op).offset, given + 1);
    assert_int_equal(fero_stop(rt, 0), 0);
}

/* Promises of answers are bounded by the lane back: gets, whose answers may be long. */
static void answers_that_would_find_no_room_are_not_asked_for(void **unused)
{
    (void)unused;
    struct heard heard = {0};
    fero_runtime_opts opts = runtime_options(1);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "users", NULL);
    char text[4001] = "";
    memset(text, 'x', 4000);
    set(cache, "a", text);
    fero_wopts wopts = hearing(&heard);
    int given = 0;
    for (int round = 0; round < 50; round++) {
        while (fero_get(cache, fero_str("a"), &wopts, NULL) == 0) given++;
        while (heard.count < given) assert_true(fero_run(rt, WAIT_MS) > 0);
    }
    assert_true(given >= 50 * 20 && given <= 50 * 32);
    assert_int_equal(heard.failed, 0);
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void a_descriptor_says_when_to_run(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(2);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "users", NULL);
    struct pollfd polled = {.fd = fero_fd(rt), .events = POLLIN};
    assert_true(polled.fd >= 0);
    assert_int_equal(fero_fd(rt), polled.fd);
    struct heard heard = {0};
    fero_wopts wopts = hearing(&heard);
    for (int i = 1; i <= 100; i++) {
        fero_val value = runtime_string("x");
        assert_int_equal(fero_update(cache, fero_str("a"), &value, &wopts, NULL), 0);
        while (heard.count < i) {
            assert_int_equal(poll(&polled, 1, WAIT_MS), 1);
            assert_true(fero_run(rt, 0) >= 0);
        }
    }
    /* A deadline makes it readable, too. */
    while (poll(&polled, 1, 0) == 1) assert_int_equal(fero_run(rt, 0), 0);
    assert_int_equal(fero_stop(rt, 0), 0);
}

/* --------------------------------------------------------------------------------- the end */

struct stopping {
    fero *rt;
    fero_cache *cache;
    sem_t ready;
    uint64_t stop_has_returned;
    uint64_t calls_after;
};

static void *hammer(void *argument)
{
    struct stopping *stopping = argument;
    fero_val value = runtime_string("x");
    fero_op *op;
    int err;
    assert_int_equal(fero_thread_register(stopping->rt), 0);
    sem_post(&stopping->ready);
    while ((err = fero_update(stopping->cache, fero_str("a"), &value, NULL, &op)) == 0 ||
           err == FERO_E_AGAIN) {
        if (err == 0 && fero_wait(op, WAIT_MS, NULL) == 0) fero_op_free(op);
    }
    assert_int_equal(err, FERO_E_CLOSED);
    /* Handles are good to be told so, as long as the thread is registered. */
    while (load_acquire_u64(&stopping->stop_has_returned) == 0) sched_yield();
    for (int i = 0; i < 100; i++)
        assert_int_equal(fero_update(stopping->cache, fero_str("a"), &value, NULL, NULL),
                         FERO_E_CLOSED);
    assert_int_equal(fero_run(stopping->rt, 0), FERO_E_CLOSED);
    return NULL;
}

static void a_node_stops_while_threads_use_it(void **unused)
{
    (void)unused;
    for (int round = 0; round < 10; round++) {
        fero_runtime_opts opts = runtime_options(2);
        struct stopping stopping = {.rt = runtime_start(&opts)};
        pthread_t threads[3];
        stopping.cache = runtime_open(stopping.rt, "users", NULL);
        sem_init(&stopping.ready, 0, 0);
        for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, hammer, &stopping);
        for (int i = 0; i < 3; i++) sem_wait(&stopping.ready);
        set(stopping.cache, "b", "mine");
        assert_int_equal(fero_stop(stopping.rt, 0), 0);
        store_release_u64(&stopping.stop_has_returned, 1);
        for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    }
}

static void *wait_for_gate(void *argument)
{
    struct stopping *stopping = argument;
    fero_op *op;
    fero_result result = {0};
    ask_to_wait(stopping->cache, NULL, &op);
    sem_post(&stopping->ready);
    assert_int_equal(fero_wait(op, -1, &result), 0);
    fero_op_free(op);
    stopping->calls_after = result.outcome == FERO_OUTCOME_OK;
    return NULL;
}

static void who_waits_when_the_node_stops_gets_the_answer(void **unused)
{
    (void)unused;
    struct gate gate;
    fero_runtime_opts opts = runtime_options(2);
    struct stopping stopping = {.rt = runtime_start(&opts)};
    pthread_t thread;
    stopping.cache = open_gated(stopping.rt, &gate);
    sem_init(&stopping.ready, 0, 0);
    pthread_create(&thread, NULL, wait_for_gate, &stopping);
    sem_wait(&stopping.ready);
    sem_wait(&gate.entered);
    sem_post(&gate.open);
    assert_int_equal(fero_stop(stopping.rt, 0), 0);
    pthread_join(thread, NULL);
    assert_int_equal(stopping.calls_after, 1);
}

static void what_the_stopping_thread_asked_ends_in_stop(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = runtime_options(2);
    fero *rt = runtime_start(&opts);
    fero_cache *cache = runtime_open(rt, "users", NULL);
    struct heard heard = {0};
    fero_wopts wopts = hearing(&heard);
    for (int i = 0; i < 100; i++)
        assert_int_equal(fero_update(cache, fero_str("a"), NULL, &wopts, NULL), 0);
    assert_int_equal(fero_stop(rt, 0), 0);
    assert_int_equal(heard.count, 100);
    assert_int_equal(heard.failed, 0);
}

static fero *stopped_inside;

static void stop_inside(const fero_result *result, void *ud)
{
    (void)result;
    *(int *)ud = fero_stop(stopped_inside, 0);
}

static void a_callback_must_not_stop_or_run(void **unused)
{
    (void)unused;
    int inside = 0;
    fero_runtime_opts opts = runtime_options(1);
    fero *rt = runtime_start(&opts);
    stopped_inside = rt;
    fero_cache *cache = runtime_open(rt, "users", NULL);
    fero_wopts wopts = {
        .size = sizeof wopts, .want = FERO_REPLY, .done = stop_inside, .ud = &inside};
    assert_int_equal(fero_update(cache, fero_str("a"), NULL, &wopts, NULL), 0);
    assert_int_equal(fero_run(rt, WAIT_MS), 1);
    assert_int_equal(inside, FERO_E_INVAL);
    assert_int_equal(fero_stop(rt, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_writes_and_reads),
        cmocka_unit_test(a_thread_reads_without_asking),
        cmocka_unit_test(a_read_value_has_its_type),
        cmocka_unit_test(a_thread_reads_many_keys_at_once),
        cmocka_unit_test(what_is_in_trees_is_asked_for),
        cmocka_unit_test(answers_come_in_order_inside_run),
        cmocka_unit_test(large_values_cross_both_ways),
        cmocka_unit_test(a_thread_asks_handlers),
        cmocka_unit_test(what_is_wrong_is_refused_before_it_is_sent),
        cmocka_unit_test(what_a_thread_gave_is_done_although_it_ends),
        cmocka_unit_test(registrations_are_bounded),
        cmocka_unit_test(who_unregisters_hears_what_became_of_it),
        cmocka_unit_test(a_deadline_that_passes_ends_the_request),
        cmocka_unit_test(a_full_lane_says_so_and_when_it_is_not),
        cmocka_unit_test(answers_that_would_find_no_room_are_not_asked_for),
        cmocka_unit_test(a_descriptor_says_when_to_run),
        cmocka_unit_test(a_node_stops_while_threads_use_it),
        cmocka_unit_test(who_waits_when_the_node_stops_gets_the_answer),
        cmocka_unit_test(what_the_stopping_thread_asked_ends_in_stop),
        cmocka_unit_test(a_callback_must_not_stop_or_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
