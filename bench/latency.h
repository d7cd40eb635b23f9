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

struct latency_case {
    const char *bench; /* for complaints */
    const char *name;  /* of the cache */
    const char *seeds; /* of a running node; NULL: own server */
    uint32_t shards;
    uint32_t message_bytes;
    enum sender_verb verb;
    uint64_t messages;
    uint64_t warmup;
    enum nodes_waiting waiting;
    bool limit;
};

struct latency_result {
    struct latency_case about;
    struct histogram ours;
    struct histogram limit; /* of the bare ping-pong, spinning */
    uint64_t wrong;         /* replies that were not what was asked for */
    struct cpus_plan plan;
};

/* Fills `result`, which is large, so not on a stack. 0, or an exit status after one line. */
MUST_CHECK int latency_measure(const struct latency_case *about, struct latency_result *result);
