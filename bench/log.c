/*
 * What does a change cost in the log: the append with its index, the seal with its checksum, and
 * compaction when every key is overwritten again and again? And how much memory does it take: the
 * footprint after loading and after overwriting.
 */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/rng.h"
#include "bench/bench.h"
#include "bench/keys.h"
#include "shard/store.h"

#define BATCH 256
#define KEY_BYTES 8

struct log_bench {
    struct segments segments;
    struct store store;
    uint64_t hlc;
    uint64_t keys;
    size_t value_bytes;
    uint8_t *body;
    struct rng rng;
    uint64_t seal_ns;
    uint64_t compact_ns;
    uint64_t update_ns;
};

static void update(struct log_bench *bench, uint64_t number)
{
    struct store_request request = {.body = bench->body,
                                    .body_bytes = (uint32_t)(KEY_BYTES + bench->value_bytes),
                                    .key_len = KEY_BYTES,
                                    .slot = FRAME_SLOT_ANY,
                                    .type = FRAME_UPDATE,
                                    .flags = VALUE_BYTES};
    const struct change *changed;
    uint64_t key = keys_scattered(number);
    memcpy(bench->body, &key, sizeof key);
    store_prepare(&bench->store, &request);
    enum store_result result = store_update(&bench->store, &request, &changed);
    if (result == STORE_OK) return;
    fprintf(stderr, "fero bench log: out of memory after %llu keys\n",
            (unsigned long long)store_keys_count(&bench->store));
    exit(1);
}

/* As a shard does it: a turn's updates, one seal, some compaction. */
static void turn(struct log_bench *bench, uint64_t first, uint64_t count, bool in_order)
{
    uint64_t t0 = clock_now_ns();
    for (uint64_t i = 0; i < count; i++)
        update(bench, in_order ? first + i : rng_below(&bench->rng, bench->keys));
    uint64_t t1 = clock_now_ns();
    log_seal(&bench->store.log);
    uint64_t t2 = clock_now_ns();
    store_compact(&bench->store, count * (bench->value_bytes + 64) * 4);
    uint64_t t3 = clock_now_ns();
    bench->update_ns += t1 - t0;
    bench->seal_ns += t2 - t1;
    bench->compact_ns += t3 - t2;
}

static void turns(struct log_bench *bench, uint64_t updates, bool in_order)
{
    bench->update_ns = 0;
    bench->seal_ns = 0;
    bench->compact_ns = 0;
    for (uint64_t done = 0; done < updates; done += BATCH)
        turn(bench, done, min_u64(BATCH, updates - done), in_order);
}

static void print_phase(const struct log_bench *bench, const char *name, uint64_t updates,
                        bool json)
{
    double n = (double)updates;
    double keys = (double)bench->keys;
    double memory = (double)(segments_bytes(&bench->segments) + table_bytes(&bench->store.table));
    double payload = (double)(KEY_BYTES + bench->value_bytes);
    if (json)
        printf("{\"bench\":\"log\",\"phase\":\"%s\",\"keys\":%llu,\"value_bytes\":%zu,"
               "\"update_ns\":%.1f,\"seal_ns\":%.1f,\"compact_ns\":%.1f,\"memory_bytes\":%.0f,"
               "\"beyond_payload_bytes_per_key\":%.1f}\n",
               name, (unsigned long long)bench->keys, bench->value_bytes,
               (double)bench->update_ns / n, (double)bench->seal_ns / n,
               (double)bench->compact_ns / n, memory, memory / keys - payload);
    else
        printf("%-22s update %6.1f ns, seal %5.1f ns, compaction %6.1f ns, memory %7.1f MiB "
               "(%.1f bytes a key beyond key and value)\n",
               name, (double)bench->update_ns / n, (double)bench->seal_ns / n,
               (double)bench->compact_ns / n, memory / (double)MIB, memory / keys - payload);
}

static const char log_help[] =
    "usage: fero bench log [--keys N] [--value BYTES] [--overwrites N] [--json]\n"
    "\n"
    "Nanoseconds a change and bytes a key: loading N keys, then overwriting each as often as "
    "asked\n"
    "in random order, with the history and garbage bounds of a node.\n"
    "\n"
    "  fero bench log\n"
    "  fero bench log --keys 10000000 --overwrites 3\n"
    "  fero bench log --keys 100000 --value 1000 --json\n";

int bench_log_main(int argc, char **argv)
{
    static const struct option options[] = {{"keys", required_argument, NULL, 'k'},
                                            {"value", required_argument, NULL, 'v'},
                                            {"overwrites", required_argument, NULL, 'o'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    struct log_bench bench = {.keys = 1000000, .value_bytes = 100};
    uint64_t overwrites = 3;
    bool json = false;
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'k': bench.keys = strtoull(optarg, NULL, 10); break;
        case 'v': bench.value_bytes = strtoull(optarg, NULL, 10); break;
        case 'o': overwrites = strtoull(optarg, NULL, 10); break;
        case 'j': json = true; break;
        case 'h': fputs(log_help, stdout); return 0;
        default: return 2;
        }
    }
    if (bench.keys == 0 || bench.value_bytes > MIB) {
        fprintf(stderr, "fero bench log: --keys must be at least 1, --value at most 1048576\n");
        return 2;
    }
    bench.body = calloc(1, KEY_BYTES + bench.value_bytes + 64);
    struct store_options store = {.log = {.history_bytes_max = 256 * MIB, .owner = 1, .view = 1},
                                  .entries_max = bench.keys * 2 + 1000,
                                  .hash_seed = 5,
                                  .garbage_bytes_max = 256 * MIB};
    size_t memory = (size_t)bench.keys * (bench.value_bytes + 200) * 2 + 2 * GIB;
    if (bench.body == NULL || segments_init(&bench.segments, memory) < 0 ||
        store_init(&bench.store, &bench.segments, &bench.hlc, &store) < 0) {
        fprintf(stderr, "fero bench log: cannot reserve %zu bytes\n", memory);
        return 1;
    }
    rng_init(&bench.rng, 3);
    turns(&bench, bench.keys, true);
    print_phase(&bench, "loaded", bench.keys, json);
    for (uint64_t i = 1; i <= overwrites; i++) {
        char name[32];
        snprintf(name, sizeof name, "overwritten %llu x", (unsigned long long)i);
        turns(&bench, bench.keys, false);
        print_phase(&bench, name, bench.keys, json);
    }
    store_deinit(&bench.store);
    segments_deinit(&bench.segments);
    free(bench.body);
    return 0;
}
