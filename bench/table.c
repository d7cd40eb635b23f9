/*
 * What does a look-up in the table cost, what an insertion with its share of growth, and how many
 * bytes a key? The addresses that are stored are the keys' ordinals: no log is touched.
 */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/rng.h"
#include "bench/bench.h"
#include "shard/table.h"

#define SEED 1
#define RUN 32

static uint64_t hash_of(uint64_t number)
{
    return hash_key(&number, sizeof number, SEED);
}

static bool is_number(const void *context, uint64_t address)
{
    return *(const uint64_t *)context == address >> 3;
}

struct table_figures {
    double insert_ns;
    double insert_worst_us; /* longest single insertion: growth must not pause */
    double find_ns;         /* one after the other */
    double run_find_ns;     /* in runs of 32 with their buckets fetched ahead */
    double bytes_per_key;
};

static void measure_inserts(struct table *table, uint64_t keys, struct table_figures *figures)
{
    uint64_t worst = 0;
    uint64_t begin = clock_now_ns();
    uint64_t last = begin;
    for (uint64_t number = 1; number <= keys; number++) {
        int err = table_insert(table, hash_of(number), number << 3);
        ASSERT(err == 0);
        if (number % 8 != 0) continue;
        uint64_t now = clock_now_ns();
        if (now - last > worst) worst = now - last;
        last = now;
    }
    figures->insert_ns = (double)(clock_now_ns() - begin) / (double)keys;
    figures->insert_worst_us = (double)worst / 1e3;
    figures->bytes_per_key = (double)table_bytes(table) / (double)keys;
}

static void measure_finds(struct table *table, uint64_t keys, uint64_t finds,
                          struct table_figures *figures)
{
    struct rng rng;
    rng_init(&rng, 7);
    uint64_t begin = clock_now_ns();
    for (uint64_t i = 0; i < finds; i++) {
        uint64_t number = rng_below(&rng, keys) + 1;
        ASSERT(table_find(table, hash_of(number), is_number, &number) != NULL);
    }
    figures->find_ns = (double)(clock_now_ns() - begin) / (double)finds;
    begin = clock_now_ns();
    for (uint64_t i = 0; i < finds; i += RUN) {
        uint64_t numbers[RUN];
        for (unsigned j = 0; j < RUN; j++) {
            numbers[j] = rng_below(&rng, keys) + 1;
            __builtin_prefetch(table_bucket(table, hash_of(numbers[j])));
        }
        for (unsigned j = 0; j < RUN; j++)
            ASSERT(table_find(table, hash_of(numbers[j]), is_number, &numbers[j]) != NULL);
    }
    figures->run_find_ns = (double)(clock_now_ns() - begin) / (double)finds;
}

static const char table_help[] =
    "usage: fero bench table [--keys N] [--finds N] [--json]\n"
    "\n"
    "Nanoseconds for an insertion (growth included) and a look-up, and bytes a key.\n"
    "\n"
    "  fero bench table\n"
    "  fero bench table --keys 10000000\n"
    "  fero bench table --keys 1000 --json\n";

int bench_table_main(int argc, char **argv)
{
    static const struct option options[] = {{"keys", required_argument, NULL, 'k'},
                                            {"finds", required_argument, NULL, 'f'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    uint64_t keys = 1000000;
    uint64_t finds = 4000000;
    bool json = false;
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'k': keys = strtoull(optarg, NULL, 10); break;
        case 'f': finds = strtoull(optarg, NULL, 10); break;
        case 'j': json = true; break;
        case 'h': fputs(table_help, stdout); return 0;
        default: return 2;
        }
    }
    if (keys == 0 || finds == 0) {
        fprintf(stderr, "fero bench table: --keys and --finds must be at least 1\n");
        return 2;
    }
    struct table table;
    struct table_figures figures = {0};
    int err = table_init(&table, keys * 2 + 1000);
    if (err < 0) {
        fprintf(stderr, "fero bench table: no memory for %llu keys\n", (unsigned long long)keys);
        return 1;
    }
    measure_inserts(&table, keys, &figures);
    measure_finds(&table, keys, finds, &figures);
    if (json)
        printf("{\"bench\":\"table\",\"keys\":%llu,\"insert_ns\":%.1f,\"insert_worst_us\":%.1f,"
               "\"find_ns\":%.1f,\"run_find_ns\":%.1f,\"bytes_per_key\":%.1f}\n",
               (unsigned long long)keys, figures.insert_ns, figures.insert_worst_us,
               figures.find_ns, figures.run_find_ns, figures.bytes_per_key);
    else
        printf(
            "%llu keys: insertion %.1f ns (slowest 8 together %.1f us), look-up %.1f ns, in runs "
            "%.1f ns, %.1f bytes a key\n",
            (unsigned long long)keys, figures.insert_ns, figures.insert_worst_us, figures.find_ns,
            figures.run_find_ns, figures.bytes_per_key);
    table_deinit(&table);
    return 0;
}
