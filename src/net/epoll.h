/*
 * struct io on epoll: see net/epoll.c for how the set is used and why so.
 */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/trace.h"
#include "net/io.h"

struct epoll_options {
    uint32_t connections_max;  /* sizes the table */
    uint32_t buffers_count;    /* what a turn may receive, in buffers of this size; 0: 16 */
    uint32_t buffer_bytes;     /* data bytes of one receive, without the headroom; 0: 128 KiB */
    const struct trace *trace; /* NULL: silent */
};

/* Opens a set for the calling thread, which alone may use it from then on (except io_wake). -errno. */
MUST_CHECK int epoll_open(const struct epoll_options *options, struct io **io);

/*
 * Tests only: the `countdown`-th system call from now on (1 = the next; 0 switches it off) does not
 * happen and fails with `err`, a negative errno. Those that open the io are not counted.
 */
void epoll_fail_after(struct io *io, uint64_t countdown, int err);
