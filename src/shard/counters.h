/*
 * What a shard counts: it writes, anybody reads (load_relaxed_u64).
 *
 * Whoever adds a line here has a counter in INFO, in `fero info` and in `fero stat`. A COUNT only
 * grows, so that its rate means something; a LEVEL is how much there is now.
 */
#pragma once

#include <stdint.h>

/* clang-format off */
#define SHARD_COUNTERS(X)                                                                          \
    X(COUNT, requests)                                                                             \
    X(COUNT, updates)                                                                              \
    X(COUNT, removes)                                                                              \
    X(COUNT, gets)                                                                                 \
    X(COUNT, verbs)                                                                                \
    X(COUNT, replies)                                                                              \
    X(COUNT, errors)         /* replies that say FAIL or UNKNOWN */                                \
    X(COUNT, duplicates)     /* requests that were answered before, and again */                   \
    X(COUNT, crossed_out)    /* requests handed to another shard */                                \
    X(COUNT, crossed_in)                                                                           \
    X(COUNT, accepted)                                                                             \
    X(COUNT, closed)                                                                               \
    X(COUNT, refused)                                                                              \
    X(COUNT, dropped)        /* because too many had not greeted */                                \
    X(COUNT, evicted)        /* because links held too much */                                     \
    X(COUNT, handed)         /* connections given to other shards */                               \
    X(LEVEL, connections)                                                                          \
    X(LEVEL, links_bytes)    /* of the large buffers of links, and what waits for paused ones */    \
    X(LEVEL, sessions)                                                                             \
    X(LEVEL, deferred)       /* requests that handlers keep and have not answered */               \
    X(LEVEL, subscriptions)                                                                        \
    X(COUNT, streamed)       /* changes written to subscribers */                                  \
    X(COUNT, turns)                                                                                \
    X(COUNT, enters)         /* system calls, to submit or wait, */                                \
    X(COUNT, direct_sends)   /* and to send without that */                                        \
    X(COUNT, accept_pauses)  /* no descriptor was left for a connection */                         \
    X(COUNT, sleeps)                                                                               \
    X(COUNT, spin_ns)        /* spent on looking for something to do */                            \
    X(COUNT, received_bytes)                                                                       \
    X(COUNT, sent_bytes)                                                                           \
    X(COUNT, compacted_bytes) /* of log that was looked at */                                      \
    X(LEVEL, keys)                                                                                 \
    X(LEVEL, memory_bytes)
/* clang-format on */

struct shard_counters {
#define SHARD_COUNTER_FIELD(kind, name) uint64_t name;
    SHARD_COUNTERS(SHARD_COUNTER_FIELD)
#undef SHARD_COUNTER_FIELD
};
