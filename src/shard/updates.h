/*
 * The shortest way through a shard: runs of plain updates. See updates.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

struct bundles;
struct session;
struct shard;

/* Updates of one call, at most. */
#define UPDATES_MAX 1024u
/* Bytes behind the last update that may be read, whatever is in them, and are none of it. */
#define UPDATES_SLACK_BYTES 128

/* Who asks, and where his replies go: a caller, or a bundle from another shard (shard/bundle.h). */
struct updates {
    struct shard *shard;
    struct session *session; /* NULL: none */
    uint64_t session_id;
    uint64_t seq;            /* 64-bit number of his last request; then, of the last applied one */
    uint8_t *replies;        /* room for those of UPDATES_MAX, or of as many as there are */
    struct bundles *bundles; /* for other shards; NULL: every slot is this shard's */
    uint32_t applied;        /* out: how many were, each with its reply */
    uint32_t seq_last;       /* out: low half of the number of the last one taken */
};

/*
 * Takes plain updates from the start of `data` and returns their bytes; 0 where the first frame is
 * none, or needs the general way (run.c) for any reason: it is always right to go there instead.
 * The last UPDATES_SLACK_BYTES of `size` are not taken.
 */
typedef size_t (*updates_fn)(struct updates *updates, const uint8_t *data, size_t size);

/* The variant for this processor. */
updates_fn updates_choose(void);

size_t updates_take(struct updates *updates, const uint8_t *data, size_t size);
size_t updates_take_v3(struct updates *updates, const uint8_t *data, size_t size);
