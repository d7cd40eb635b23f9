/*
 * Feeds: changes of a store for a thread of the program, in batches that lie where the log has them.
 * See feed.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shard/cursor.h"
#include "shard/lane.h"

struct shard;

/* Batches of a feed that its thread may have at a time. */
#define FEED_BATCHES_MAX 32

/* The thread wants changes: then the prefix. */
struct mail_feed_open {
    struct mail mail;
    uint32_t feed; /* what the thread calls it, in every mail */
    uint32_t generation;
    uint64_t offset;
    uint16_t cache;
    uint16_t prefix_bytes;
    uint8_t from;  /* enum stream_from */
    uint8_t match; /* enum stream_match */
    uint8_t until_live;
    uint8_t batches;      /* 1 .. FEED_BATCHES_MAX */
    uint32_t changes_max; /* of a batch, 1 .. CURSOR_CHANGES_MAX */
    uint32_t promised_bytes;
};

/* The thread gives a batch back; or (FEED_CLOSE) wants no more, and looks at none any more. */
struct mail_feed_word {
    struct mail mail; /* small: the batch's slot, or FEED_CLOSE */
    uint32_t feed;
    uint32_t generation;
};
#define FEED_CLOSE 0xffffu

/* To the thread: a batch of changes, whose addresses follow; or an event. Either takes a slot. */
struct mail_feed_batch {
    struct mail mail; /* small: the slot; FEED_BATCHES_MAX of the last one, which has none */
    uint32_t feed;
    uint32_t generation;
    uint32_t count;
    uint8_t event; /* enum stream_event; 0: changes */
    uint8_t error; /* enum reply_error, of STREAM_ENDED */
    uint16_t shard;
    uint32_t promised_bytes; /* of STREAM_ENDED: they are free again */
    uint32_t reserved;
};

static inline size_t feed_batch_bytes(uint32_t changes)
{
    return sizeof(struct mail_feed_batch) + changes * sizeof(const struct change *);
}

/* All that a feed may have in the lane to its thread. */
static inline size_t feed_promise_bytes(uint32_t batches, uint32_t changes_max)
{
    return batches * feed_batch_bytes(changes_max) + feed_batch_bytes(0);
}

/* crossing.c: what came over the lane of a port. */
void feed_open(struct shard *shard, uint32_t from, const struct mail_feed_open *open);
void feed_take_word(struct shard *shard, uint32_t from, const struct mail_feed_word *word);
/* End of the turn: sends what was appended, or what there is room for. */
void feeds_serve(struct shard *shard);
/* The shard ends. */
void feeds_end(struct shard *shard);
