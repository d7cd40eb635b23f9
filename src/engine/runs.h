/*
 * Which cache the requests of a link belong to, so that "written" and "received", which the kernel
 * and the node report as counts of requests on the link, can be counted for each cache.
 *
 * Requests are numbered from 1 as they are written. A run is as many in a row as belong to one
 * cache, so a client with one cache has one run for life and pays one comparison a request.
 */
#pragma once

#include <stdint.h>

#include "base/attr.h"

/* No cache: nothing is counted for it any more. */
#define RUN_NO_CACHE UINT32_MAX

struct run {
    uint64_t first; /* number of its first request */
    uint32_t cache;
};

/* Everything up to `at` has been counted. */
struct run_cursor {
    uint64_t at;
    uint64_t run; /* that the next request belongs to, or an older one */
};

enum run_mark { RUN_WRITTEN, RUN_RECEIVED, RUN_MARKS_COUNT };

struct runs {
    struct run *runs; /* by index & mask */
    uint64_t oldest;
    uint64_t count; /* ever pushed: the newest is count - 1 */
    uint32_t mask;
    struct run_cursor cursors[RUN_MARKS_COUNT];
};

/* A part of one run. */
struct run_part {
    uint32_t cache;
    uint64_t requests; /* 0: there is no more */
};

void runs_init(struct runs *runs);
void runs_deinit(struct runs *runs);
/* Requests from number `first` on are of `cache`. -ENOMEM. */
MUST_CHECK int runs_push(struct runs *runs, uint32_t cache, uint64_t first);
/* Takes what is newly counted, run by run, until a mark stands at `to`. */
struct run_part runs_advance(struct runs *runs, enum run_mark mark, uint64_t to);
/* Empties it for a new connection; the first requests are counted already at each mark. */
void runs_restart(struct runs *runs, uint64_t written, uint64_t received);
/* The cache is closed. */
void runs_forget(struct runs *runs, uint32_t cache);
