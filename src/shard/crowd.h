/*
 * How many callers there may be, and how many of them that have not greeted: see crowd.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "net/address.h"

struct shard;
struct caller;

/* Sources are told apart by a hash: two that share one share their limit. */
#define CROWD_SOURCES 4096
#define CROWD_NO_SOURCE UINT16_MAX
/* Callers at a time that are told that there is no room; more are closed without a word. */
#define CROWD_TURNED_AWAY_MAX 64

struct crowd {
    uint32_t count;                 /* callers that have not greeted */
    uint32_t turned_away;           /* callers that were too many, until they have left */
    uint32_t counts[CROWD_SOURCES]; /* of `count`, by where they come from */
    struct rng rng;
};

/* Where connections come from, as far as they are counted together; CROWD_NO_SOURCE: nowhere. */
uint16_t crowd_source(const struct shard *shard, const struct address *peer);
/* A caller that has not greeted comes, and greets or leaves. */
void crowd_enter(struct shard *shard, struct caller *caller);
void crowd_leave(struct shard *shard, struct caller *caller);
/*
 * Who of those that have not greeted has to go, because there are too many of them since `newest`
 * came; NULL: nobody. `limit` is what there are too many for.
 */
struct caller *crowd_victim(struct shard *shard, const struct caller *newest, uint32_t *limit);

/* Connections of the whole node, those that are under way between shards included. */
uint64_t crowd_connections(const struct shard *shard);
