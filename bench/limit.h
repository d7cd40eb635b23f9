/*
 * The machine's limit: how fast can this machine move a server's bytes and do its memory work if
 * there is nothing around it? Every figure of fero is quoted beside this one. See limit_throughput.c
 * for what is done and what is left out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "bench/histogram.h"

#define LIMIT_CPU_ANY (-1)        /* choose among the cpus that this process may use */
#define LIMIT_REPLY_ECHO SIZE_MAX /* the reply carries the message */
#define LIMIT_MESSAGE_BYTES_MIN 8
#define LIMIT_MESSAGE_BYTES_MAX ((size_t)1 << 20)
#define LIMIT_CONNECTIONS_MAX 4096

/* How both sides wait. */
enum limit_wait {
    LIMIT_WAIT_BEST, /* the faster one: spinning, where each side has a cpu */
    LIMIT_WAIT_BLOCK,
    LIMIT_WAIT_SPIN, /* needs a cpu each; with one cpu, both block */
};

/* 0 is the default of every field but the cpus: begin with limit_options_init(). */
struct limit_options {
    size_t message_bytes;    /* key of 8 and value; 100 */
    size_t reply_bytes;      /* a reply's value, besides its 16 bytes; or LIMIT_REPLY_ECHO */
    uint64_t records;        /* measured; 10,000,000 */
    uint64_t records_warmup; /* before them; 2,000,000 */
    uint32_t keys;           /* 1,000,000, all there before the first message */
    uint32_t connections;    /* 1 */
    uint32_t window_bytes;   /* of requests in flight, over all connections */
    uint32_t batch_bytes;    /* of requests in one send, at most */
    uint32_t receive_bytes;  /* of one receive, at most */
    uint32_t socket_bytes;   /* of each socket's buffers; the kernel may allow less */
    uint64_t log_bytes;      /* of the log's ring in memory; 1 GiB */
    int server_cpu;
    int client_cpu;
    enum limit_wait wait;
};

struct limit_result {
    double per_s;   /* replies checked in a second */
    double seconds; /* measured, without the warm-up */
    uint64_t records;
    uint64_t server_cpu_ns; /* of the thread, kernel included, without the warm-up */
    uint64_t client_cpu_ns;
    double server_ns_per_msg;
    double client_ns_per_msg;
    double records_per_receive; /* how many messages one receive of the server brought */
    size_t frame_bytes;         /* of a request on the wire */
    size_t reply_frame_bytes;
    uint64_t bytes;    /* in both directions, of the measured records */
    uint64_t checksum; /* over table and log, so that no work can be left out */
    int server_cpu;
    int client_cpu; /* the same one where only one is allowed: then this is no limit */
};

void limit_options_init(struct limit_options *options);

/*
 * Runs once, in two threads of its own, and returns when both have ended.
 *
 *   -EINVAL   an option is out of its range.
 *   -EBADMSG  a reply was not the expected one.
 *   -ENOMEM   the log or the table does not fit; others as the sockets report them.
 */
MUST_CHECK int limit_throughput(const struct limit_options *options, struct limit_result *result);

struct limit_pingpong_options {
    size_t bytes;             /* each way; 128 */
    uint64_t messages;        /* measured; 100,000 */
    uint64_t messages_warmup; /* 20,000 */
    int server_cpu;
    int client_cpu;
    enum limit_wait wait;
};

void limit_pingpong_options_init(struct limit_pingpong_options *options);

/* One message in flight: records each round trip into `histogram`, which is not reset. */
MUST_CHECK int limit_pingpong(const struct limit_pingpong_options *options,
                              struct histogram *histogram);

/* `fero bench limit`; returns the exit status. */
int bench_limit_main(int argc, char **argv);
