/*
 * The insides of engine/host.h, shared by the files that it is made of:
 *
 *   host           threads come, call and leave; the node closes and ends
 *   host_flights   requests without an answer, and their answers
 *   host_request   requests
 *   host_read      reading without asking
 *   host_answer    replies to deferred requests
 *   host_run       waiting
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/host.h"
#include "shard/crossing.h"

/* NULL: the window is full. */
struct host_flight *host_flight_take(struct host *host);
void host_flight_put(struct host *host, struct host_flight *flight);
/* Ends those whose deadline is not after `now_ns`. */
void host_end_late(struct host *host, uint64_t now_ns, int error, bool calls_back);
/* Nobody waits for this one any more. A handler that answers later is told so. */
void host_tell_unwanted(struct host *host, const struct host_flight *flight);
/* Tells the shards what was taken of streams and found no room in a lane. */
void host_pay(struct host *host);
/* Takes what the shard has sent. */
void host_take_mail(struct host *host, uint32_t shard);

/* Publishes what was pushed, whoever runs. */
void host_publish_now(struct host *host);
/* The calling thread's; NULL: it is not registered. */
struct host *host_find(const struct hosts *hosts);
COLD int host_is_closed(void);
/* "Full" is part of normal operation and must not cost a formatted line. */
int host_full(struct host *host, uint32_t shard);

/* Bytes of a lane that requests, or their answers, may take. */
static inline size_t host_lane_allows(const struct host *host)
{
    return host->hosts->options->lane_bytes - LANE_SLACK_BYTES;
}

/* No shard turns any more. */
static inline bool host_is_gone(const struct host *host)
{
    return load_acquire_u32(&host->hosts->gone) != 0;
}
