/*
 * The servers of a bench: each a process of its own, `fero serve` on a free port, pinned; or nodes
 * that run already.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "bench/cpus.h"

#define NODES_MAX 16
#define NODE_ADDRESS_BYTES 128

/* Between two looks at a node's memory while warming up: many times the step it grows by. */
#define SETTLE_CHUNK_BYTES (64 * MIB)
/* It has settled when it did not grow in so many of them: compaction comes in waves. */
#define SETTLE_CHUNKS 4
/* So long at most, */
#define SETTLE_NS (30 * NS_PER_S)
/* and so many times the records of a run: for few of them nobody waits until a node has settled. */
#define SETTLE_RECORDS_FACTOR 10

enum nodes_waiting { NODES_ADAPTIVE, NODES_BUSY_POLL, NODES_SLEEP };

struct nodes_options {
    const char *bench; /* for complaints: "bench speed" */
    const char *name;  /* of the cache */
    uint32_t count;
    uint32_t shards; /* of each */
    enum nodes_waiting waiting;
    int32_t io; /* FERO_IO_..., of the nodes and of their clients */
    const struct cpus_plan *plan;
};

struct node {
    pid_t pid; /* 0: somebody else's */
    int out;   /* its standard output */
    char address[NODE_ADDRESS_BYTES];
};

struct nodes {
    const char *bench;
    const char *token_file; /* that these nodes want; NULL: none */
    int32_t io;             /* of clients: FERO_IO_... */
    struct node list[NODES_MAX];
    uint32_t count;
    double stable_ms; /* from the first start to the last readiness */
};

/* Starts `options->count` servers, without a token, and waits until all listen. 0, or an exit status after one line. */
MUST_CHECK int nodes_start(struct nodes *nodes, const struct nodes_options *options);
/*
 * Uses the nodes at "HOST:PORT[,HOST:PORT]" instead, each of which must answer and have the cache
 * `name`. 0, or an exit status after one line.
 */
MUST_CHECK int nodes_use(struct nodes *nodes, const char *bench, const char *seeds,
                         const char *token_file, const char *name, int32_t io);
/* Opens the cache `name` of the node at `address`, and closes it. 0, or FERO_E_... */
MUST_CHECK int nodes_try(const char *address, const char *token_file, const char *name,
                         int64_t timeout_ms, int32_t io);
/* Ends what nodes_start began. Nodes that are not ours are left alone. */
void nodes_stop(struct nodes *nodes);
/* While something else is measured, ours must not even spin. */
void nodes_pause(const struct nodes *nodes);
void nodes_resume(const struct nodes *nodes);
/* CPU time of a node's threads from the kernel, where it is ours; else 0. */
uint64_t nodes_cpu_ns(const struct nodes *nodes);
/* Memory of a process that is in use, from the kernel; 0: unknown. */
uint64_t process_resident_bytes(pid_t pid);
/* The sum of all nodes that are ours. */
uint64_t nodes_resident_bytes(const struct nodes *nodes);
/* Whether anybody accepts a TCP connection at "HOST:PORT" of this machine. */
bool nodes_is_listening(const char *address);
