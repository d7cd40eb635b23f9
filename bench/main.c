/*
 * The table of benches. Some of them come and go with what they measure, so each may be absent from a
 * build.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "cli/command.h"
#include "cli/nearest.h"

#pragma weak bench_limit_main
#pragma weak bench_lane_main
#pragma weak bench_table_main
#pragma weak bench_log_main
#pragma weak bench_turn_main
#pragma weak bench_deep_main
#pragma weak bench_memory_main
#pragma weak bench_stream_main

struct bench {
    const char *name;
    const char *summary;
    int (*main)(int argc, char **argv);
};

static const struct bench benches[] = {
    {"all", "what \"make bench\" runs: speed and latency beside the limit", bench_all_main},
    {"speed", "how many records a second", bench_speed_main},
    {"latency", "how long one request takes", bench_latency_main},
    {"crossing", "what a request costs that another shard owns", bench_crossing_main},
    {"read", "values read in the node's own process, while a shard works", bench_read_main},
    {"connections", "what many connections cost, with io_uring and with epoll",
     bench_connections_main},
    {"limit", "a bare socket loop: what this machine could do", bench_limit_main},
    {"lane", "which queue between two shards is faster", bench_lane_main},
    {"table", "the hash table alone", bench_table_main},
    {"log", "the log alone", bench_log_main},
    {"turn", "instructions of a message, without sockets", bench_turn_main},
    {"deep", "an update of one field of a document, without sockets", bench_deep_main},
    {"memory", "bytes that a key takes", bench_memory_main},
    {"stream", "how fast changes reach a subscriber", bench_stream_main},
};
#define BENCHES_COUNT (sizeof benches / sizeof benches[0])

static void print_help(FILE *to)
{
    fprintf(to, "fero bench: measure speed and latency, beside the limit of the machine\n\n"
                "Usage: fero bench BENCH [options]\n\nBenches:\n");
    for (size_t i = 0; i < BENCHES_COUNT; i++)
        fprintf(to, "  %-11s %s\n", benches[i].name, benches[i].summary);
    fprintf(to, "\n\"fero bench BENCH --help\" tells more.\n\nExamples:\n"
                "  fero bench speed -m 10,100,1000\n"
                "  fero bench latency --messages 100000 --busy-poll\n"
                "  fero bench all --json\n");
}

int bench_main(int argc, char **argv)
{
    if (argc < 1) {
        print_help(stderr);
        return STATUS_USAGE;
    }
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0) {
        print_help(stdout);
        return STATUS_OK;
    }
    struct nearest nearest = {.wanted = argv[0]};
    for (size_t i = 0; i < BENCHES_COUNT; i++) {
        const struct bench *bench = &benches[i];
        nearest_offer(&nearest, bench->name);
        if (strcmp(bench->name, argv[0]) != 0) continue;
        if (bench->main != NULL) return bench->main(argc, argv);
        complain(NULL, "the bench \"%s\" is not in this build", argv[0]);
        return STATUS_NOT_FOUND;
    }
    complain(NULL, "unknown bench \"%s\"; did you mean %s?", argv[0], nearest.best);
    return STATUS_USAGE;
}
