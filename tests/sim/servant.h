/*
 * The handlers of the node: they answer at once, later, twice, never, or in parts.
 */
#pragma once

#include <stdint.h>

#include "shard/cache.h"
#include "tests/sim/world.h"

#define SERVANT_VERBS_MAX 5
/* No handler of a shard keeps more requests. */
#define SERVANT_PROMISES_MAX 8

/* What a verb of this number does; also asked->shape of a request for it. */
enum service { SERVICE_AT_ONCE, SERVICE_LATER, SERVICE_TWICE, SERVICE_NEVER, SERVICE_IN_PARTS };
#define SERVICE_PARTS 3

struct shard;

/* A request that is kept. */
struct promise {
    struct servant *servant;
    enum service service;
    bool is_kept;
    uint32_t parts; /* that were sent */
    uint64_t timer;
    uint32_t name[2]; /* index and generation */
    uint8_t value_type;
    uint8_t *value;
    size_t value_bytes;
};

/* Of one shard. */
struct servant {
    struct world *world;
    struct shard *shard;
    struct promise promises[SERVANT_PROMISES_MAX];
};

extern const struct cache_verb servant_verbs[SERVANT_VERBS_MAX];
/* As OPENED carries them. */
extern const uint8_t servant_verbs_bytes[];
extern const size_t servant_verbs_bytes_count;

void servant_init(struct servant *servant, struct world *world, struct shard *shard);
void servant_deinit(struct servant *servant);
/* Whether nobody waits for it. */
bool servant_is_idle(const struct servant *servant);
