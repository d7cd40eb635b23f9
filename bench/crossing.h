/*
 * What does a request cost that another shard owns? It crosses a lane, and its reply comes back on
 * one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "bench/cpus.h"
#include "bench/nodes.h"
#include "bench/speed.h"

struct crossing_case {
    const char *bench; /* for complaints */
    const char *step;  /* for the line of progress */
    const char *name;  /* of the cache */
    uint64_t records;  /* of a run */
    uint32_t message_bytes;
    uint32_t keys;
    uint32_t runs;
    enum nodes_waiting waiting;
};

/* Of a course: all requests to the shard that owns their keys, or half of them. */
struct crossing_figures {
    struct speed_series server_ns_per_msg; /* of both shards */
    struct speed_series per_s;
};

struct crossing_result {
    struct crossing_case about;
    struct crossing_figures none;
    struct crossing_figures half;
    struct speed_series ratio; /* of each run: server_ns_per_msg, half by none */
    double crossed;            /* share of `half`'s requests that the server says crossed */
    uint64_t replies;
    uint64_t failed;
    struct cpus_plan plan;
};

/* 0, or an exit status after one line. */
MUST_CHECK int crossing_measure(const struct crossing_case *about, struct crossing_result *result);
/* No reply failed, and none or half of the requests crossed, as they should. */
bool crossing_is_verified(const struct crossing_result *result);
