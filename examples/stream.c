/*
 * Streams: COUNT replies with the numbers from 1 to its body, as fast as the caller takes them; TICK
 * with one every so many milliseconds, until the caller stops it or goes away.
 *
 *   cc -shared -fPIC -o stream.so examples/stream.c
 *   fero serve demo --handler stream.so
 *   fero req demo COUNT '' 10
 *   fero req demo TICK '' 500               Ctrl-C stops it; --count 3 does after three
 *
 * and a node of its own:
 *
 *   cc -o stream examples/stream.c $(pkg-config --cflags --libs fero)
 *   ./stream 7700
 */
#define _POSIX_C_SOURCE 200809L

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

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

static const fero_verb verbs[] = {{"COUNT", on_count, NULL}, {"TICK", on_tick_request, NULL}};

FERO_SERVICE(.name = "stream", .verbs = verbs, .verbs_count = 2);

int main(int argc, char **argv)
{
    fero_runtime_opts opts = {.size = sizeof opts, .shards = 2};
    fero_opts about = {.size = sizeof about, .verbs = verbs, .verbs_count = 2};
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
    return 0;
}
