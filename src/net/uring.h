/*
 * struct io on io_uring: see net/uring.c for how the ring is used and why so.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/trace.h"
#include "net/io.h"

/*
 * What io_uring can do on some kernels only. Each is probed when the ring is opened and can be
 * switched off (`--io-features`), because a kernel may claim what it does not do well.
 */
enum uring_feature {
    URING_DEFER_TASKRUN = 1u << 0, /* 6.1: completions run in our enter only */
    URING_RING_FD = 1u << 1,       /* 5.18: the ring's own descriptor registered */
    URING_MSG_RING = 1u << 2,      /* wake-ups from ring to ring; cheap from 6.11 */
    URING_NO_IOWAIT = 1u << 3,     /* 6.15: waiting is not shown as iowait */
    URING_RECV_BUNDLE = 1u << 4,   /* 6.10: several buffers a receive; off by default */
    URING_SEND_ZC = 1u << 5,       /* 6.0: zero-copy send of large parts; off by default */
    URING_UDP_GRO = 1u << 6        /* coalesced datagrams in, segmented sends out */
};

/* On where the kernel has them; the others measured no better (docs/adr/0001). */
#define URING_FEATURES_DEFAULT                                                                     \
    (URING_DEFER_TASKRUN | URING_RING_FD | URING_MSG_RING | URING_NO_IOWAIT | URING_UDP_GRO)

struct uring_options {
    uint32_t features;         /* wanted; 0 is none, so begin with URING_FEATURES_DEFAULT */
    uint32_t connections_max;  /* sizes the tables and the completion queue */
    uint32_t buffers_count;    /* provided receive buffers, a power of two; 0: 64 */
    uint32_t buffer_bytes;     /* data bytes of each, without the headroom; 0: 64 KiB */
    const struct trace *trace; /* NULL: silent */
};

/* Room for the line that says why io_uring is refused. */
#define URING_REASON_BYTES 256

/*
 * Opens a ring for the calling thread, which alone may use it from then on (except io_wake).
 *
 * Returns 0, or -errno with one line in `reason` (URING_REASON_BYTES) that says why io_uring is
 * refused here (sysctl, seccomp, memlock, old kernel) and what to type to allow it.
 */
MUST_CHECK int uring_open(const struct uring_options *options, struct io **io, char *reason);

/* The features in use, of those asked for. */
uint32_t uring_features(const struct io *io);

/*
 * Reads a list such as "-msg_ring,+send_zc" or "none" or "all" into `features`, which holds the
 * default before. Returns 0, or -EINVAL with the unknown name in `unknown` (borrowed from `text`).
 */
MUST_CHECK int uring_features_parse(const char *text, uint32_t *features, const char **unknown,
                                    size_t *unknown_bytes);
/* All names that such a list may have, with commas between them. */
const char *uring_feature_names(void);

/*
 * Tests only: the `countdown`-th operation from now on (1 = the next; 0 switches it off) does not
 * happen and fails with `err`, a negative errno. Operations are requests to the ring and the calls
 * that make sockets.
 */
void uring_fail_after(struct io *io, uint64_t countdown, int err);
