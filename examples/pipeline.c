/*
 * A client that keeps many requests on their way: how to use the speed that there is. It never
 * waits for one answer before it sends the next; when the library says "full", it runs the loop.
 *
 *   cc -o pipeline examples/pipeline.c $(pkg-config --cflags --libs fero)
 *   ./pipeline 127.0.0.1:7700 demo 1000000
 */
#include <stdio.h>
#include <stdlib.h>

#include <fero.h>

struct tally {
    uint64_t ok;
    uint64_t failed;
};

/* Once for every request, inside fero_run. */
static void on_done(const fero_result *result, void *ud)
{
    struct tally *tally = ud;
    if (result->outcome == FERO_OUTCOME_OK)
        tally->ok++;
    else
        tally->failed++;
}

/* Sends what there is room for, from `number` on; returns 0, or what else than "full" was said. */
static int send_some(fero_cache *cache, uint64_t *number, uint64_t count, struct tally *tally)
{
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY, .done = on_done, .ud = tally};
    for (; *number < count; ++*number) {
        char text[24];
        fero_slice key = {text, 0};
        key.len = (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)*number);
        fero_val value = {.type = FERO_T_INT64, .i64 = (int64_t)*number};
        int err = fero_update(cache, key, &value, &wopts, NULL);
        /* Full, or a link is down for the moment: both pass while the loop runs. */
        if (err == FERO_E_AGAIN || err == FERO_E_NOTCONN) return 0;
        if (err < 0) return err;
    }
    return 0;
}

/* Updates `count` keys and runs until all of them are answered. */
static int update_all(fero *client, fero_cache *cache, uint64_t count, struct tally *tally)
{
    uint64_t number = 0;
    while (tally->ok + tally->failed < count) {
        int err = send_some(cache, &number, count, tally);
        if (err == 0) err = fero_run(client, 100);
        if (err < 0) return err;
    }
    return 0;
}

int main(int argc, char **argv)
{
    const char *seeds[] = {argc > 1 ? argv[1] : "127.0.0.1:7700", NULL};
    const char *name = argc > 2 ? argv[2] : "demo";
    uint64_t count = argc > 3 ? strtoull(argv[3], NULL, 10) : 100000;
    fero_runtime_opts opts = {.size = sizeof opts, .client = 1, .seeds = seeds};
    struct tally tally = {0};
    fero *client;
    fero_cache *cache;
    if (fero_start(&opts, &client) < 0) {
        fprintf(stderr, "fero_start: %s\n", fero_errmsg());
        return 1;
    }
    int err = fero_open(client, name, NULL, &cache);
    if (err == 0) err = update_all(client, cache, count, &tally);
    if (err < 0)
        fprintf(stderr, "pipeline: %s\n", fero_errmsg());
    else
        printf("%llu updated, %llu failed\n", (unsigned long long)tally.ok,
               (unsigned long long)tally.failed);
    fero_stop(client, 0);
    return err < 0 || tally.failed > 0 ? 1 : 0;
}
