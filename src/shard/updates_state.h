/*
 * The insides of shard/updates.c, shared by the files that it is made of:
 *
 *   updates_read    first pass: frames become groups
 *   updates         second pass, and all three in step
 *   updates_apply   third pass: changes and replies
 *
 * Each is compiled twice, see updates.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/attr.h"
#include "shard/bundle.h"
#include "shard/shard.h"
#include "shard/updates.h"

#ifdef VARIANT_V3
#define VARIANT(name) name##_v3
#else
#define VARIANT(name) name
#endif

/* Own frames of a group; a word has a bit for each. */
#define PACE 64u
/* Other shards' frames that are read with PACE own ones, at most. */
#define FOREIGN_PACE 32u
/* Numbers may have gaps: those of other shards' frames, and more. */
#define STEP_MAX ((uint32_t)1 << 20)
_Static_assert((uint64_t)STEP_MAX *UPDATES_MAX < (uint64_t)1 << 31,
               "the upper half of a number does not depend on the order of own and foreign frames");
/* As in log/segments.h, for addresses in units of 8 bytes. */
#define GRANULE_SHIFT_8 (GRANULE_SHIFT - 3)
#define UNIT_SHIFT_8 (SEGMENT_UNIT_SHIFT - 3)

/* 32 bytes that need no alignment: one register where there is AVX2. */
struct block {
    uint64_t words __attribute__((vector_size(32)));
} __attribute__((packed, may_alias));

/* Bodies up to this are copied whole, whatever their size; there is as much room behind them. */
#define COPY_BLOCKS 4
#define COPY_BYTES (COPY_BLOCKS * sizeof(struct block))
_Static_assert(COPY_BYTES <= UPDATES_SLACK_BYTES, "a copy may go over the end of its frame");
_Static_assert(COPY_BYTES <= LOG_SLACK_BYTES, "a copy may go over the end of its record");

static ALWAYS_INLINE uint64_t load_u64(const void *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static ALWAYS_INLINE uint32_t load_u32(const void *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static ALWAYS_INLINE uint16_t load_u16(const void *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static ALWAYS_INLINE void store_u64(void *to, uint64_t value)
{
    memcpy(to, &value, sizeof value);
}

static ALWAYS_INLINE void store_u32(void *to, uint32_t value)
{
    memcpy(to, &value, sizeof value);
}

/* What all frames with the same first word have in common. */
struct shape {
    uint64_t first;
    uint64_t tail_mask; /* of the last 8 bytes: zeros where there is padding */
    uint32_t padded;    /* bytes of the frame */
    uint32_t key_bytes;
    bool is_short; /* its body has at most COPY_BYTES */
};

static ALWAYS_INLINE bool is_short_frame(uint64_t first)
{
    return (uint32_t)first <= FRAME_REQUEST_BYTES + COPY_BYTES;
}

static ALWAYS_INLINE struct shape shape_of(uint64_t first)
{
    return (struct shape){.first = first,
                          .tail_mask = UINT64_MAX >> (-first & 7) * 8,
                          .padded = (uint32_t)round_up_8((uint32_t)first),
                          .key_bytes = (uint32_t)(first >> 48),
                          .is_short = is_short_frame(first)};
}

/* Own frames on their way, in columns: four of a row are worked out at once. */
struct plain {
    uint64_t hash[PACE];
    uint64_t hash_bits[PACE]; /* as entries have them */
    union {
        struct bucket *bucket[PACE]; /* until it was probed, */
        uint64_t *entry[PACE];       /* and then */
    };
    const uint8_t *frame[PACE];
    /* What apply_steady notes for its second loop: the changes before, their slots, the offsets. */
    uint64_t old8[PACE];
    uint32_t place[PACE];
    uint32_t offset[PACE];
};

/* What is read at once, and goes from pass to pass together. */
struct group {
    struct plain own;
    struct foreign foreign[FOREIGN_PACE];
    unsigned own_count;
    unsigned foreign_count;
    bool is_alike; /* the own frames lie behind each other, and all have the same first word */
};

/* Reading of frames: what it needs of shard and cache, and where it is. */
struct reader {
    const struct shard *shard;
    const struct table *table;
    uint64_t hash_seed;
    const uint8_t *at;
    const uint8_t *end; /* of the data, less UPDATES_SLACK_BYTES */
    struct shape shape; /* of the last frame; it was plain */
    uint16_t cache;
    struct bundles *bundles; /* NULL: every slot is this shard's */
};

/*
 * What the second and third pass need: nothing of it changes meanwhile. Addresses here are in units
 * of 8 bytes, as entries have them; the names of such end in 8.
 */
struct applying {
    struct store *store;
    uint8_t *arena;  /* of all records */
    uint32_t *index; /* their index words */
    struct segment *segments;
    struct store_slot *slots;
    uint64_t cache; /* number of the frames' */
    uint64_t session_id;
    struct session *session;          /* NULL: there is none */
    struct session_entry *remembered; /* of the session; without one, an entry that nobody reads */
    uint32_t remembered_mask;
    bool may_grow; /* the session may have to grow before it can remember the next one */
};

/* The last words of a change's header, which stay in one register: hlc and session. */
struct stamp {
    uint64_t words __attribute__((vector_size(16)));
} __attribute__((packed, may_alias));

/* The log's end, the shard's clock and the caller's numbers while the third pass runs. */
struct cursor {
    uint64_t at8;
    uint64_t end8;
    uint32_t *slot_heads;
    uint32_t mark;
    uint32_t appended;  /* since the log was told */
    uint32_t size;      /* of all records of the batch, see batch_size_of_all */
    struct stamp stamp; /* of the last change */
    uint64_t seq;
    uint8_t *reply;
};

static ALWAYS_INLINE void cursor_load(struct cursor *cursor, const struct store *store)
{
    cursor->at8 = address_of(store->segments, store->log.at) >> 3;
    cursor->end8 = address_of(store->segments, store->log.end) >> 3;
    cursor->slot_heads = store->log.slot_heads;
    cursor->mark = store->log.active_mark;
    cursor->appended = 0;
    cursor->size = store->log.batch_size;
    cursor->stamp.words[0] = *store->hlc;
}

static ALWAYS_INLINE void cursor_store(const struct cursor *cursor, struct store *store)
{
    store->log.at = store->segments->base + cursor->at8 * 8;
    store->log.batch_count += cursor->appended;
    store->log.batch_size = cursor->size;
    *store->hlc = cursor->stamp.words[0];
}

/* Reads the next group. False: it has less than it might have, which ends the run. */
bool VARIANT(updates_read)(struct reader *reader, struct group *group);
/* Applies the group's own frames in order. Returns how many; fewer end the run. */
unsigned VARIANT(updates_apply)(const struct applying *applying, struct group *group,
                                struct cursor *cursor);
