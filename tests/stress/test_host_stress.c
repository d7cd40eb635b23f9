/*
 * Threads of the program that come, make requests of a node in the same process, sleep until their
 * answers come, and go, while others do. Run under ThreadSanitizer too (make tsan). A wake-up that is
 * lost leaves a thread asleep until its request's deadline, which is a failure.
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
#include "base/clock.h"
#include "base/rng.h"
#include "fero.h"

#define THREADS 4
#define RUN_NS (600 * NS_PER_MS)
#define BURST_MAX 64
#define KEYS 50
#define WAIT_MS 20000

struct worker {
    fero *rt;
    fero_cache *cache;
    uint64_t number; /* of this thread, and all that come after it in its place */
    uint64_t lives;
    uint64_t end_ns;
    struct rng rng;
    uint64_t values[KEYS]; /* what the thread's keys have; 0: nothing */
    uint32_t waiting;
    uint64_t requests;
};

static void answered(const fero_result *result, void *ud)
{
    struct worker *worker = ud;
    ASSERT(result->outcome == FERO_OUTCOME_OK);
    worker->waiting--;
}

/* Of this thread alone: what the one before gave may be done later than what this one gives. */
static void write_key(const struct worker *worker, uint64_t at, char key[32])
{
    snprintf(key, 32, "%d.%d.%d", (int)worker->number, (int)(worker->lives % 100), (int)at);
}

static void update(struct worker *worker, bool waits)
{
    uint64_t at = rng_below(&worker->rng, KEYS);
    char key[32];
    uint64_t words[64];
    fero_wopts opts = {.size = sizeof opts,
                       .want = waits ? FERO_REPLY : FERO_NOTHING,
                       .done = waits ? answered : NULL,
                       .ud = worker};
    size_t bytes = 8 * (1 + rng_below(&worker->rng, 64));
    uint64_t next = worker->values[at] + 1;
    for (size_t i = 0; i < bytes / 8; i++) words[i] = next;
    fero_val value = {.type = FERO_T_BYTES, .s = {words, bytes}};
    write_key(worker, at, key);
    int err;
    while ((err = fero_update(worker->cache, fero_str(key), &value, &opts, NULL)) == FERO_E_AGAIN)
        ASSERT(fero_run(worker->rt, WAIT_MS) >= 0);
    ASSERT(err == 0);
    worker->values[at] = next;
    worker->requests++;
    if (waits) worker->waiting++;
}

static void check_one(struct worker *worker)
{
    uint64_t at = rng_below(&worker->rng, KEYS);
    char key[32];
    fero_op *op;
    fero_result result;
    write_key(worker, at, key);
    int err;
    while ((err = fero_get(worker->cache, fero_str(key), NULL, &op)) == FERO_E_AGAIN)
        ASSERT(fero_run(worker->rt, WAIT_MS) >= 0);
    ASSERT(err == 0);
    ASSERT(fero_wait(op, WAIT_MS, &result) == 0);
    if (worker->values[at] != 0) {
        ASSERT(result.outcome == FERO_OUTCOME_OK);
        ASSERT(memcmp(result.value.s.ptr, &worker->values[at], 8) == 0);
    }
    fero_op_free(op);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    uint64_t bursts = 1 + rng_below(&worker->rng, 20);
    worker->waiting = 0;
    memset(worker->values, 0, sizeof worker->values);
    for (uint64_t burst = 0; burst < bursts; burst++) {
        uint64_t count = 1 + rng_below(&worker->rng, BURST_MAX);
        bool waits = rng_below(&worker->rng, 4) != 0;
        for (uint64_t i = 0; i < count; i++) update(worker, waits);
        while (worker->waiting > 0) ASSERT(fero_run(worker->rt, WAIT_MS) > 0);
        check_one(worker);
    }
    /* It ends with or without a word, and with requests on their way. */
    for (int i = 0; i < 3; i++) update(worker, false);
    if (rng_below(&worker->rng, 2) == 0) ASSERT(fero_thread_unregister(worker->rt) == 0);
    return NULL;
}

static void *live_again_and_again(void *argument)
{
    struct worker *worker = argument;
    while (clock_now_ns() < worker->end_ns) {
        pthread_t thread;
        ASSERT(pthread_create(&thread, NULL, work, worker) == 0);
        pthread_join(thread, NULL);
        worker->lives++;
    }
    return NULL;
}

static void threads_come_and_go(int shards, int idle)
{
    fero_runtime_opts opts = {.size = sizeof opts,
                              .shards = shards,
                              .memory_max_bytes = (int64_t)256 << 20,
                              .lane_bytes = 128 << 10,
                              .idle = idle,
                              .threads_max = THREADS + 1};
    struct worker workers[THREADS] = {0};
    pthread_t threads[THREADS];
    fero *rt;
    fero_cache *cache;
    int err = fero_start(&opts, &rt);
    if (err == FERO_E_SYS) skip();
    assert_int_equal(err, 0);
    assert_int_equal(fero_open(rt, "stress", NULL, &cache), 0);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){
            .rt = rt, .cache = cache, .number = (uint64_t)i, .end_ns = clock_now_ns() + RUN_NS};
        rng_init(&workers[i].rng, (uint64_t)(shards * 10 + i));
        assert_int_equal(pthread_create(&threads[i], NULL, live_again_and_again, &workers[i]), 0);
    }
    uint64_t lives = 0;
    uint64_t requests = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        lives += workers[i].lives;
        requests += workers[i].requests;
    }
    assert_true(lives >= THREADS);
    print_message("%d shards: %lu threads, %lu updates\n", shards, (unsigned long)lives,
                  (unsigned long)requests);
    assert_int_equal(fero_stop(rt, 0), 0);
}

static void one_shard_that_sleeps(void **unused)
{
    (void)unused;
    threads_come_and_go(1, FERO_IDLE_SLEEP);
}

static void three_shards_that_spin_a_while(void **unused)
{
    (void)unused;
    threads_come_and_go(3, FERO_IDLE_ADAPTIVE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_shard_that_sleeps),
        cmocka_unit_test(three_shards_that_spin_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
