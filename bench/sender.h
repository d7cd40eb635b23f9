/*
 * The client side of the speed bench: one thread for each client, with a runtime and a connection of
 * its own to every server, or several. See sender.c for what is timed.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "bench/cpus.h"
#include "bench/histogram.h"
#include "bench/nodes.h"
#include "fero.h"

#define SENDERS_MAX 256
#define SENDER_SOCKETS_MAX 256
#define SENDER_KEY_BYTES 8
/* An update has a key and at least one byte of value. */
#define SENDER_UPDATE_BYTES_MIN (SENDER_KEY_BYTES + 1)

enum sender_verb { SENDER_ECHO, SENDER_UPDATE };
extern const char *const sender_verb_names[]; /* ends with NULL */

struct sender_options {
    const char *bench; /* for complaints */
    const char *name;  /* of the cache */
    const struct nodes *nodes;
    const struct cpus_plan *plan;
    uint32_t clients;
    uint32_t sockets; /* of each client to each node: a runtime of its own for each */
    enum sender_verb verb;
    uint32_t message_bytes; /* key and value */
    uint64_t records;       /* of all clients together */
    uint64_t keys;          /* likewise; each has a range of its own */
    uint64_t warmup;        /* likewise; 0: every key once, then until servers settle */
    double rate_per_s;      /* of all clients together; 0: closed loop, as fast as replies allow */
    enum nodes_waiting waiting;
    uint64_t seed;
};

/* What one run of all clients came to. Times are from the first client's start. */
struct sender_figures {
    double tacks_s;
    double yacks_s;
    double sacks_s;
    uint64_t replies;
    uint64_t failed;
    uint64_t client_cpu_ns;
    uint64_t client_spin_ns; /* of it: waiting */
    uint64_t server_cpu_ns;
    uint64_t server_spin_ns; /* of it: waiting */
    uint64_t keys_checked;
    uint64_t mismatches;
};

struct senders;

/*
 * Starts the threads, connects and warms up. `*connected_ms` is how long connecting took. Returns
 * NULL after one line on stderr.
 */
MUST_CHECK struct senders *senders_start(const struct sender_options *options,
                                         double *connected_ms);
/*
 * Sends all records once and checks what the servers then hold. `latencies` gets the times of all
 * messages in an open loop, else of a sample; `step` is for the line of progress. False after one
 * line: the connection is lost.
 */
MUST_CHECK bool senders_run(struct senders *senders, const char *step,
                            struct sender_figures *figures, struct histogram *latencies);
void senders_stop(struct senders *senders);

/* In the closed loop, one of so many messages is timed. */
#define SENDER_SAMPLE_EVERY 256
