/*
 * What there is to be had from io_uring instead of epoll, on this machine and kernel: the two loops with
 * nothing around them. A bare server is a thread that receives requests of one size from many
 * connections and answers each with a reply, as our servers do, but knows no protocol and keeps
 * nothing. What a message costs it is the kernel's work, so the ratio of the two is what ours can come
 * near to and not below.
 *
 * Both take everything that is ready before they answer anything, as ours do. The one on epoll makes
 * a call for each receive and each send; the one on io_uring has multishot receives, and its sends ride
 * on the call that waits.
 */
#pragma once

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "bench/limit_wiring.h"

enum bare_way { BARE_URING, BARE_EPOLL };

struct bare_options {
    enum bare_way way;
    uint32_t connections;
    uint32_t request_bytes; /* of each, whatever is in it */
    uint32_t in_flight_max; /* requests of a connection */
    uint16_t cpu;
};

struct bare_peer {
    uint32_t bytes;  /* received of requests that are not answered yet */
    uint8_t is_due;  /* it is in the list of those to be answered */
    uint8_t is_lost; /* its other end is closed */
};

struct bare {
    struct bare_options options;
    struct limit_wiring wiring; /* the client's ends are for the taking */
    struct bare_peer *peers;
    uint32_t *due; /* whom to answer, in the order of their requests */
    uint32_t due_count;
    uint32_t lost_count;
    uint8_t *replies; /* as many as a connection may get at once */
    int poller;       /* of the one on epoll */
    pthread_t thread;
    clockid_t cpu_clock;
    bool runs;
    int err; /* what ended it; read after bare_stop */
};

/* Connects and starts the thread. -errno, where io_uring is refused, too; stop it all the same. */
MUST_CHECK int bare_start(struct bare *bare, const struct bare_options *options);
/* CPU time of the thread until now. */
uint64_t bare_cpu_ns(const struct bare *bare);
void bare_stop(struct bare *bare);
