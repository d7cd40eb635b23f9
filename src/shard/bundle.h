/*
 * Bundles: mails that carry many plain updates of one caller to the shard that owns their slots, and
 * the mails with their replies. See bundle.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

struct caller;
struct mail;
struct shard;

/* A plain update of another shard's slot. */
struct foreign {
    const uint8_t *frame;
    uint32_t bytes; /* with the padding */
    uint32_t to;    /* the slot's owner */
};

/* What a caller sends to other shards while updates.c takes his requests. */
struct bundles {
    struct caller *caller;
    bool begun;          /* count_left and bytes_left are known */
    uint32_t seq_read;   /* low half of the number of the last one that was read */
    uint32_t count_left; /* that may be read, and can then be pushed to whatever shard */
    size_t bytes_left;
    uint64_t seq; /* 64-bit number of the last one that was pushed */
    size_t pushed_bytes;
    uint32_t pushed;
};

/* Nothing is looked up before there is something to send. */
void bundles_init(struct bundles *bundles, struct caller *caller);
/* How much there is room for. */
void bundles_begin(struct bundles *bundles);
/*
 * Pushes what was read within the room that bundles_begin found: it has room. Frames come in order,
 * and UPDATES_SLACK_BYTES behind each can be read.
 */
void bundles_push(struct bundles *bundles, const struct foreign *foreign, unsigned count);
/* Ends the bundles and books what was promised. */
void bundles_end(struct bundles *bundles);

/* The owner's side: applies a bundle and sends the replies. */
void bundle_apply(struct shard *shard, uint32_t from, const struct mail *mail);
/* The caller's side: takes the replies. */
void bundle_take_replies(struct shard *shard, uint32_t from, const struct mail *mail);
