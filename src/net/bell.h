/*
 * A descriptor that tells a loop of somebody else's that an io has something to do: it is readable
 * when the bell was rung or a time has come, until it is armed again.
 *
 * Inside is an epoll of an eventfd, which the kernel or we write to, and a timer. Both are watched
 * for edges, so that one call silences both, and neither is ever read.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/clock.h"
#include "net/io.h"

struct bell {
    int fd; /* to be polled; -1: not open */
    int event_fd;
    int timer_fd;
    uint64_t timer_ns; /* when the timer will ring; TIME_NEVER: not at all */
};

#define BELL_CLOSED ((struct bell){.fd = -1, .timer_ns = TIME_NEVER})

/* -errno, and it stays closed. */
MUST_CHECK int bell_open(struct bell *bell);
/* A closed one too. */
void bell_close(struct bell *bell);
/* It rings with each change of `fd`, too: one at most. -errno. */
MUST_CHECK int bell_watch(const struct bell *bell, int fd);
/* Makes it readable. */
void bell_ring(struct bell *bell);
/* Makes it silent. What rings from now on is heard. */
void bell_silence(struct bell *bell);
/*
 * It rings at `due_ns` of CLOCK_MONOTONIC. An earlier time that it was set to is kept, as it costs
 * less to come once for nothing than to set the timer for each new request.
 */
void bell_set(struct bell *bell, uint64_t due_ns);
/* What io_arm does, for an `io` whose descriptor this is. */
void bell_arm(struct bell *bell, uint64_t due_ns, struct io *io);
