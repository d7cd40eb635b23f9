/*
 * How many records a second? One permutation of the speed bench, measured.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "bench/histogram.h"
#include "bench/sender.h"

#define SPEED_RUNS_MAX 99

struct speed_case {
    const char *bench;      /* for complaints */
    const char *step;       /* for the line of progress; NULL: made up from the case */
    const char *name;       /* of the cache */
    const char *seeds;      /* of running nodes; NULL: own servers */
    const char *token_file; /* of running nodes */
    int32_t io;             /* of both sides: FERO_IO_... */
    uint64_t records;
    uint32_t message_bytes;
    uint32_t clients;
    uint32_t sockets; /* of each client to each server */
    uint32_t servers;
    uint32_t shards; /* of each own server */
    enum sender_verb verb;
    uint64_t keys;
    uint64_t warmup;
    double rate_per_s;
    enum nodes_waiting waiting;
    uint32_t runs;
    bool limit; /* alternate with the limit */
};

/* What was measured in each run; the middle one once sorted, and the ends. */
struct speed_series {
    double values[SPEED_RUNS_MAX];
    uint32_t count;
};
void speed_series_add(struct speed_series *series, double value);
/* 0 where there is none. */
double speed_series_median(const struct speed_series *series);
double speed_series_min(const struct speed_series *series);
double speed_series_max(const struct speed_series *series);

struct speed_result {
    struct speed_case about;
    double stable_ms;
    double connected_ms;
    struct speed_series tacks_s;
    struct speed_series yacks_s;
    struct speed_series sacks_s;
    struct speed_series server_ns_per_msg;
    struct speed_series client_ns_per_msg;
    struct speed_series server_busy; /* share of the time that it worked, 0 to 1 */
    struct speed_series client_busy;
    struct speed_series limit_per_s; /* only with `limit` */
    uint64_t replies;                /* of all runs */
    uint64_t failed;
    uint64_t keys_checked;
    uint64_t mismatches;
    struct histogram latencies; /* of all runs */
    struct cpus_plan plan;
};

/* Fills `result`, which is large, so not on a stack. 0, or an exit status after one line. */
MUST_CHECK int speed_measure(const struct speed_case *about, struct speed_result *result);
/* Records a second, if a run took so long. */
double speed_per_s(const struct speed_result *result, double seconds);
/* Every record was replied to without error, and the end state is the expected one. */
bool speed_is_verified(const struct speed_result *result);
