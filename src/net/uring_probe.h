/*
 * What this machine says about io_uring: the names of features, and why it is refused.
 */
#pragma once

#include <stdint.h>

#include "net/uring.h"

/* What the reason of a refusal is concluded from. */
struct uring_facts {
    int err;                /* negative errno of what was refused */
    int disabled;           /* kernel.io_uring_disabled: 0, 1 or 2; -1 where there is none */
    int64_t group;          /* kernel.io_uring_group; -1: none */
    int seccomp_mode;       /* of /proc/self/status: 0 none, 1 strict, 2 filter; -1 unknown */
    uint64_t memlock_bytes; /* RLIMIT_MEMLOCK, the soft limit; UINT64_MAX: no limit */
};

/* Reads the facts; `err` is the negative errno that asks for them. */
struct uring_facts uring_facts_read(int err);
/*
 * Writes one line without a newline, what refused io_uring and what to type, and returns `line`,
 * which has room for URING_REASON_BYTES. Pure.
 */
const char *uring_refusal(const struct uring_facts *facts, char *line);
