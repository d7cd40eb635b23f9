/*
 * How long does one request take, with nothing else on its way?
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "bench/cpus.h"
#include "bench/histogram.h"
#include "bench/nodes.h"
#include "bench/sender.h"
#include "bench/speed.h"

struct latency_case {
    const char *bench;      /* for complaints */
    const char *step;       /* for the line of progress */
    const char *name;       /* of the cache */
    const char *seeds;      /* of a running node; NULL: own server */
    const char *token_file; /* of a running node */
    int32_t io;             /* of both sides: FERO_IO_... */
    uint32_t shards;
    uint32_t message_bytes;
    enum sender_verb verb;
    uint64_t messages;
    uint64_t warmup;
    enum nodes_waiting waiting;
    bool limit;
};

/* A percentile of each part, ours and the bare ping-pong's. */
struct latency_pair {
    struct speed_series ours_us;
    struct speed_series limit_us;
};

struct latency_result {
    struct latency_case about;
    struct histogram ours;  /* of all parts */
    struct histogram limit; /* of the bare ping-pong, spinning; of all parts */
    struct latency_pair p50;
    struct latency_pair p99;
    struct histogram part;
    uint64_t wrong; /* replies that were not what was asked for */
    struct cpus_plan plan;
};

/* Ours by the bare one: of the parts' medians. 0 where the limit was not measured. */
double latency_ratio(const struct latency_pair *pair);
/* Fills `result`, which is large, so not on a stack. 0, or an exit status after one line. */
MUST_CHECK int latency_measure(const struct latency_case *about, struct latency_result *result);
