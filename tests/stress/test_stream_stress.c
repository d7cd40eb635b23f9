/*
 * Streams made by threads of the program, taken by others, of two shards, all at once; some takers wait
 * too short a time, so that streams end while parts are under way. Run under ThreadSanitizer too (make
 * tsan). A drain or a credit that is lost leaves a stream standing until its time is over: a failure.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "fero.h"
#include "tests/support/runtime.h"

#define MAKERS 2
#define TAKERS 2
#define RUN_NS (600 * NS_PER_MS)
#define PARTS 300
#define KEPT_MAX 256
#define WAIT_MS 20000

static fero *node;
static fero_cache *cache;

/* Requests that a maker has to take. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t came = PTHREAD_COND_INITIALIZER;
static fero_req *kept[KEPT_MAX];
static size_t kept_count;
static bool is_over;

static int32_t keep(fero_req *req, void *ud)
{
    (void)ud;
    fero_req *own = fero_req_retain(req);
    ASSERT(own != NULL);
    pthread_mutex_lock(&lock);
    ASSERT(kept_count < KEPT_MAX);
    kept[kept_count++] = own;
    pthread_cond_signal(&came);
    pthread_mutex_unlock(&lock);
    return FERO_H_DEFER;
}

static fero_req *next_kept(void)
{
    fero_req *req = NULL;
    pthread_mutex_lock(&lock);
    while (kept_count == 0 && !is_over) pthread_cond_wait(&came, &lock);
    if (kept_count > 0) req = kept[--kept_count];
    pthread_mutex_unlock(&lock);
    return req;
}

/* Sends all parts and the end, or as many as somebody waits for. */
static void make_stream(fero_req *req)
{
    int err = 0;
    for (int64_t i = 0; i < PARTS && err == 0;) {
        const fero_val value = {.type = FERO_T_INT64, .i64 = i};
        err = fero_reply_part(req, &value);
        if (err == 0) i++;
        if (err != FERO_E_AGAIN) continue;
        fero_run(node, 1);
        err = 0;
    }
    while (err == 0 && (err = fero_reply(req, 0, NULL)) == FERO_E_AGAIN) err = 0;
    ASSERT(err == 0 || err == FERO_E_NOTCONN || err == FERO_E_TIMEOUT || err == FERO_E_INVAL);
    fero_req_release(req);
}

static void *make(void *ud)
{
    uint64_t *streams = ud;
    for (fero_req *req; (req = next_kept()) != NULL; ++*streams) make_stream(req);
    fero_thread_unregister(node);
    return NULL;
}

struct taker {
    pthread_t thread;
    uint64_t asked;
    uint64_t ended;
    uint64_t whole;
};

struct taking {
    struct taker *taker;
    int64_t next;
    bool is_free;
};

static void take(const fero_result *result, void *ud)
{
    struct taking *taking = ud;
    if ((result->flags & FERO_R_MORE) != 0) {
        ASSERT(result->value.i64 == taking->next);
        taking->next++;
        return;
    }
    if (result->outcome == FERO_OUTCOME_OK) {
        ASSERT(taking->next == PARTS);
        taking->taker->whole++;
    } else {
        ASSERT(result->error == FERO_E_TIMEOUT);
    }
    taking->taker->ended++;
    taking->is_free = true;
}

static void *ask(void *ud)
{
    struct taker *taker = ud;
    struct taking takings[8];
    uint64_t end_ns = clock_now_ns() + RUN_NS;
    for (size_t i = 0; i < ARRAY_COUNT(takings); i++)
        takings[i] = (struct taking){.taker = taker, .is_free = true};
    while (clock_now_ns() < end_ns || taker->ended < taker->asked) {
        for (size_t i = 0; i < ARRAY_COUNT(takings) && clock_now_ns() < end_ns; i++) {
            char key[32];
            bool is_hasty = taker->asked % 4 == 3;
            const fero_wopts opts = {.size = sizeof opts,
                                     .want = FERO_STREAM,
                                     .timeout_ms = is_hasty ? 1 : WAIT_MS,
                                     .done = take,
                                     .ud = &takings[i]};
            if (!takings[i].is_free) continue;
            snprintf(key, sizeof key, "key%u", (unsigned)(taker->asked % 7));
            takings[i].is_free = false;
            takings[i].next = 0;
            if (fero_send(cache, fero_str("keep"), fero_str(key), NULL, &opts, NULL) == 0)
                taker->asked++;
            else
                takings[i].is_free = true;
        }
        fero_run(node, 10);
    }
    fero_thread_unregister(node);
    return NULL;
}

static void threads_make_streams_for_threads(void **unused)
{
    (void)unused;
    static const fero_verb verbs[] = {{"keep", keep, NULL}};
    fero_runtime_opts opts = runtime_options(2);
    const fero_opts about = {.size = sizeof about, .verbs = verbs, .verbs_count = 1};
    struct taker takers[TAKERS] = {0};
    pthread_t makers[MAKERS];
    uint64_t streams[MAKERS] = {0};
    uint64_t asked = 0;
    uint64_t whole = 0;
    uint64_t made = 0;
    node = runtime_start(&opts);
    cache = runtime_open(node, "demo", &about);
    for (size_t i = 0; i < MAKERS; i++)
        assert_int_equal(pthread_create(&makers[i], NULL, make, &streams[i]), 0);
    for (size_t i = 0; i < TAKERS; i++)
        assert_int_equal(pthread_create(&takers[i].thread, NULL, ask, &takers[i]), 0);
    for (size_t i = 0; i < TAKERS; i++) {
        assert_int_equal(pthread_join(takers[i].thread, NULL), 0);
        asked += takers[i].asked;
        whole += takers[i].whole;
    }
    pthread_mutex_lock(&lock);
    is_over = true;
    pthread_cond_broadcast(&came);
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < MAKERS; i++) {
        assert_int_equal(pthread_join(makers[i], NULL), 0);
        made += streams[i];
    }
    assert_int_equal(fero_stop(node, 0), 0);
    print_message("%u streams asked for, %u taken whole\n", (unsigned)asked, (unsigned)whole);
    assert_true(whole > 0);
    /* One that was late before its handler ran was not kept. */
    assert_true(made <= asked && made >= whole);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(threads_make_streams_for_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
