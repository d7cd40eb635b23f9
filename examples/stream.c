/*
 * Streams: COUNT replies with the numbers from 1 to its body, as fast as the caller takes them; TICK
 * with one every so many milliseconds, until the caller stops it or goes away; PRIMES with the primes
 * below its body, which a thread of its own finds.
 *
 *   cc -shared -fPIC -o stream.so examples/stream.c
 *   fero serve demo --handler stream.so
 *   fero req demo COUNT '' 10
 *   fero req demo TICK '' 500               Ctrl-C stops it; --count 3 does after three
 *   fero req demo PRIMES '' 1000
 *
 * and a node of its own:
 *
 *   cc -o stream examples/stream.c $(pkg-config --cflags --libs fero)
 *   ./stream 7700
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <fero.h>

struct counter {
    fero_req *req;
    int64_t next;
    int64_t last;  /* COUNT: the end */
    int64_t timer; /* TICK: the next one */
    int64_t ms;
};

static int send_next(struct counter *counter)
{
    fero_val value = {.type = FERO_T_INT64, .i64 = counter->next};
    int err = fero_reply_part(counter->req, &value);
    if (err == 0) counter->next++;
    return err;
}

static void counter_end(struct counter *counter)
{
    fero_req_release(counter->req);
    free(counter);
}

static struct counter *counter_begin(fero_req *req, fero_req_fn on_news)
{
    struct counter *counter = calloc(1, sizeof *counter);
    if (counter == NULL) return NULL;
    counter->next = 1;
    counter->req = fero_req_retain(req);
    if (counter->req == NULL) {
        free(counter);
        return NULL;
    }
    fero_req_on(counter->req, on_news, counter);
    return counter;
}

/* Sends until there is no room; FERO_REQ_ROOM goes on. */
static void count_on(struct counter *counter)
{
    int err = 0;
    while (err == 0 && counter->next <= counter->last) err = send_next(counter);
    if (err == FERO_E_AGAIN) return;
    if (err == 0) fero_reply(counter->req, FERO_OK, NULL);
    counter_end(counter);
}

static void on_count_news(fero_req *req, int32_t event, int32_t error, void *ud)
{
    (void)req;
    (void)error;
    if (event == FERO_REQ_ROOM)
        count_on(ud);
    else
        counter_end(ud);
}

static int32_t on_count(fero_req *req, void *ud)
{
    (void)ud;
    if (req->value.type != FERO_T_INT64) return FERO_E_TYPE;
    struct counter *counter = counter_begin(req, on_count_news);
    if (counter == NULL) return FERO_E_AGAIN;
    counter->last = req->value.i64;
    count_on(counter);
    return FERO_H_DEFER;
}

static void on_tick(fero_shard *shard, void *ud)
{
    struct counter *counter = ud;
    /* Who is too slow misses one. */
    int err = send_next(counter);
    if (err == FERO_E_AGAIN) err = 0;
    counter->timer = fero_after(shard, counter->ms, on_tick, counter);
    if (err == 0 && counter->timer > 0) return;
    if (counter->timer > 0) fero_after_cancel(shard, counter->timer);
    counter_end(counter);
}

static void on_tick_news(fero_req *req, int32_t event, int32_t error, void *ud)
{
    struct counter *counter = ud;
    (void)error;
    if (event != FERO_REQ_STOPPED) return;
    fero_after_cancel(req->shard, counter->timer);
    fero_reply(counter->req, FERO_OK, NULL); /* nothing is wrong with being stopped */
    counter_end(counter);
}

static int32_t on_tick_request(fero_req *req, void *ud)
{
    (void)ud;
    if (req->value.type != FERO_T_INT64 || req->value.i64 < 1) return FERO_E_TYPE;
    struct counter *counter = counter_begin(req, on_tick_news);
    if (counter == NULL) return FERO_E_AGAIN;
    counter->ms = req->value.i64;
    counter->timer = fero_after(req->shard, counter->ms, on_tick, counter);
    if (counter->timer > 0) return FERO_H_DEFER;
    counter_end(counter);
    return FERO_H_DEFER;
}

/* What takes long is done by threads of its own, so that the shard goes on meanwhile. */
static pthread_mutex_t finders_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t finders_ended = PTHREAD_COND_INITIALIZER;
static unsigned finders_count;

static void finders_add(int by)
{
    pthread_mutex_lock(&finders_lock);
    finders_count += (unsigned)by;
    if (finders_count == 0) pthread_cond_signal(&finders_ended);
    pthread_mutex_unlock(&finders_lock);
}

static bool is_prime(int64_t number)
{
    for (int64_t i = 2; i * i <= number; i++)
        if (number % i == 0) return false;
    return number > 1;
}

/* The caller is slower than the thread: it waits a little. */
static int send_patiently(fero_req *req, const fero_val *value)
{
    const struct timespec pause = {0, 1000000};
    int err;
    while ((err = fero_reply_part(req, value)) == FERO_E_AGAIN) nanosleep(&pause, NULL);
    return err;
}

static void *find(void *ud)
{
    fero_req *req = ud;
    int err = 0;
    for (int64_t i = 2; i < req->value.i64 && err == 0; i++) {
        fero_val value = {.type = FERO_T_INT64, .i64 = i};
        /* An error says that the caller has stopped it or gone, or that the node stops. */
        if (is_prime(i)) err = send_patiently(req, &value);
    }
    while (err == 0 && fero_reply(req, FERO_OK, NULL) == FERO_E_AGAIN) continue;
    fero_req_release(req);
    finders_add(-1);
    return NULL;
}

static int32_t on_primes(fero_req *req, void *ud)
{
    (void)ud;
    pthread_t thread;
    if (req->value.type != FERO_T_INT64) return FERO_E_TYPE;
    fero_req *own = fero_req_retain(req);
    if (own == NULL) return FERO_E_AGAIN;
    finders_add(1);
    if (pthread_create(&thread, NULL, find, own) == 0) {
        pthread_detach(thread);
        return FERO_H_DEFER;
    }
    finders_add(-1);
    fero_reply(own, FERO_E_NOMEM, NULL);
    fero_req_release(own);
    return FERO_H_DEFER;
}

/* The node has stopped, and so every thread hears it from its next part. */
static void wait_for_finders(void)
{
    pthread_mutex_lock(&finders_lock);
    while (finders_count > 0) pthread_cond_wait(&finders_ended, &finders_lock);
    pthread_mutex_unlock(&finders_lock);
}

static const fero_verb verbs[] = {
    {"COUNT", on_count, NULL}, {"TICK", on_tick_request, NULL}, {"PRIMES", on_primes, NULL}};

FERO_SERVICE(.name = "stream", .verbs = verbs, .verbs_count = 3, .deinit = wait_for_finders);

int main(int argc, char **argv)
{
    fero_runtime_opts opts = {.size = sizeof opts, .shards = 2};
    fero_opts about = {.size = sizeof about, .verbs = verbs, .verbs_count = 3};
    fero *node;
    fero_cache *cache;
    sigset_t ends;
    int number;
    if (argc > 1) opts.port_first = (uint16_t)atoi(argv[1]);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    if (fero_start(&opts, &node) < 0 || fero_open(node, "demo", &about, &cache) < 0) {
        fprintf(stderr, "stream: %s\n", fero_errmsg());
        return 1;
    }
    printf("%s\n", fero_address(node));
    fflush(stdout);
    sigwait(&ends, &number);
    fero_stop(node, 0);
    wait_for_finders();
    return 0;
}
