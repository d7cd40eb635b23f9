/*
 * When to dial again, and whom: the delays between attempts, and the list of seeds gone round.
 * Pure: time and randomness are arguments.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/rng.h"
#include "net/address.h"

#define DIAL_DELAY_NS_FIRST (100 * NS_PER_MS)
#define DIAL_DELAY_NS_MAX (60 * NS_PER_S)
/* How long a connection may take until it is usable; then it is given up as if refused. */
#define DIAL_GREETING_NS (5 * NS_PER_S)
/* A link that held this long was a success: the next loss begins with the shortest delay. */
#define DIAL_STABLE_NS (10 * NS_PER_S)
#define DIAL_PORT_DEFAULT 7700
#define SEEDS_MAX 64

struct dial {
    uint32_t failures; /* in a row */
    uint64_t retry_ns; /* when to dial; TIME_NEVER: not now */
};

/* 100 ms doubled with each failure before, at most 60 s, less up to half of it by chance. */
uint64_t dial_delay_ns(uint32_t failures, struct rng *rng);
/* It failed, or was lost: sets the next attempt. */
void dial_failed(struct dial *dial, uint64_t now_ns, struct rng *rng);
/* Dial at once, with the failures forgotten. */
void dial_now(struct dial *dial, uint64_t now_ns);

struct seeds {
    struct address addresses[SEEDS_MAX];
    uint32_t count;
    uint32_t next;
};

/*
 * Reads "HOST:PORT" texts up to a NULL; NULL itself is one seed, this machine's default port.
 * Returns 0; -EINVAL or -E2BIG with the text it was about in `wrong`.
 */
MUST_CHECK int seeds_parse(struct seeds *seeds, const char *const *texts, const char **wrong);
/* The next address, in turn. `round_ends` when it is the last one of a round. */
const struct address *seeds_take(struct seeds *seeds, bool *round_ends);
/* Writes the seeds, parted by ", ", as far as they fit, and returns `text`. */
const char *seeds_format(const struct seeds *seeds, char *text, size_t bytes);
