/*
 * A cache as one shard sees it: what every shard shares of it (name, verbs, handlers), which never
 * changes once it is open, and the shard's own store.
 */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "shard/mailbox.h"
#include "shard/store.h"
#include "wire/frame.h"

#define CACHES_MAX 256
#define CACHE_VERBS_MAX (256 - FRAME_VERB_FIRST)

struct request_context;
struct shard;

/*
 * The numbers that adds give to partitions: one counter for all shards of a node, above every whole
 * number that any of them has as a partition.
 */
struct cache_ids {
    uint64_t given; /* the last one; any shard adds to it */
    struct {
        uint64_t highest; /* of the shard's partitions; it alone writes it */
    } __attribute__((aligned(CACHE_LINE))) shards[SHARDS_MAX];
};
/* The next number. Any thread. */
uint64_t cache_next_id(struct cache_ids *ids);

/* What a handler did; negative is an enum reply_error with a minus sign. */
enum handled {
    HANDLED_REPLIED = 0,
    HANDLED_NEXT = 1,
    HANDLED_IGNORED = 2,
    HANDLED_DEFERRED = 3 /* after deferred_open */
};
typedef int32_t (*cache_handler_fn)(struct request_context *request, const void *verb);

struct cache_verb {
    char *name;
    cache_handler_fn function;
    const void *context;
};

/* Made by the engine before the shards see it, and freed after they are gone. */
struct cache_definition {
    char *name;
    uint32_t number; /* index in every shard's caches[], and on the wire */
    uint32_t verbs_count;
    struct cache_verb *verbs;
    struct cache_verb handler; /* sees what no verb matches; no function: the default handler */
    uint8_t *verbs_bytes;      /* as they stand in OPENED */
    size_t verbs_bytes_count;
    struct cache_ids *ids; /* what it points to changes */
};

struct cache {
    const struct cache_definition *definition;
    struct shard *shard;
    struct store store;
};
