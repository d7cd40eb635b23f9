/*
 * A program that uses the real client: it asks a node for things at random, as fast or as slowly as
 * its seed says, hears the answers, and is sometimes killed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/client.h"
#include "tests/sim/history.h"
#include "tests/sim/sim_io.h"
#include "tests/sim/watcher.h"

#define PROGRAM_WATCHERS_MAX 4

/* How a program is, drawn for each seed; times in nanoseconds. */
struct habits {
    uint32_t asks_max;  /* in all */
    uint32_t burst_max; /* at once */
    uint32_t value_bytes_max;
    uint32_t large; /* in a million: values of up to HISTORY_VALUE_BYTES_MAX */
    uint32_t updates, removes, gets, verbs; /* shares */
    uint32_t deep;      /* of updates of partitions with trees, in a hundred: not plain ones */
    bool is_monotonous; /* all values have the same size */
    uint32_t silent;    /* in a million: changes that want no answer */
    uint32_t hurried;   /* requests with a deadline of their own */
    uint32_t patient;   /* verbs that are answered later, or never */
    uint32_t naps;      /* turns after which it does nothing for a while */
    uint64_t nap_ns_max;
    uint64_t think_ns_max; /* between two bursts */
    uint32_t kill;         /* turns after which it is killed */
    int64_t open_ms;       /* how long it waits for a cache, before it tries again */
    int64_t window_requests;
    int64_t window_bytes;
    int64_t outbox_bytes;
    int idle;
    uint64_t seq_first;
    uint32_t watches; /* turns after which it subscribes to something, in a million */
};

enum program_phase { PROGRAM_RUNS, PROGRAM_ENDS, PROGRAM_IS_OVER };

struct program {
    struct world *world;
    struct history *history;
    const struct habits *habits;
    struct sim_io *io;
    struct client *client;
    fero_cache *caches[HISTORY_CACHES_MAX];
    uint32_t caches_count;
    uint32_t number; /* in the history */
    uint32_t asks;
    struct watcher watchers[PROGRAM_WATCHERS_MAX];
    uint32_t watchers_count;
    enum program_phase phase;
    bool is_mortal;
    event_fn add_another; /* in its place, when it was killed */
    void *add_context;
    bool is_killed;
    bool may_end; /* nothing breaks any more: the last requests are to be made */
    char name[24];
    struct actor actor;
};

void program_open(struct program *program, struct world *world, struct network *network,
                  struct history *history, const struct habits *habits, uint32_t caches_count,
                  uint64_t session);
void program_close(struct program *program);
