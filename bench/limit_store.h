/*
 * The memory work of a replicated store, in three passes over a group of requests: hash and fetch the
 * bucket, probe and fetch the record, append and point the bucket at it. What runs for each message is
 * here, so that the server's loop is one piece of code.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "bench/limit_frames.h"

#define LIMIT_BUCKET_ENTRIES 7
#define LIMIT_KEYS_PER_BUCKET 4
#define LIMIT_ADDRESS_BITS 37
#define LIMIT_ADDRESS (((uint64_t)1 << LIMIT_ADDRESS_BITS) - 1)
#define LIMIT_BYTE_ONES 0x0101010101010101u
#define LIMIT_HASH_SEED 0x9e3779b97f4a7c15u

/* An entry is 27 bits of the key's hash above its record's address in units of 8 bytes. */
struct limit_bucket {
    uint64_t tags; /* a byte of the hash for each entry; 0: no entry; the top byte is unused */
    uint64_t entries[LIMIT_BUCKET_ENTRIES];
};
_Static_assert(sizeof(struct limit_bucket) == CACHE_LINE, "one bucket is one cache line");

struct limit_store {
    struct limit_bucket *buckets;
    uint64_t buckets_count; /* a power of two */
    uint8_t *log;           /* a ring; a record never wraps */
    uint64_t log_bytes;
    uint64_t tail;
    uint64_t laps;
    uint64_t places;
    uint64_t matched; /* records whose key was the one looked for */
};

/* Requests on their way through the three passes. */
#define LIMIT_GROUP 32
#define LIMIT_LOG_AHEAD (2 * KIB)
struct limit_step {
    const struct limit_request *request;
    uint32_t bytes; /* of the frame, padded */
    uint64_t hash;
    struct limit_bucket *bucket;
    uint64_t *entry;
    const struct limit_record *old; /* NULL: the key is new */
};

/* With room for `keys`, all memory touched. Deinit after a failed init too. */
MUST_CHECK int limit_store_init(struct limit_store *store, uint32_t keys, uint64_t log_bytes);
void limit_store_deinit(struct limit_store *store);
/* Requests of 1 to `keys` as a run without a network, so that every key is there. */
void limit_store_fill(struct limit_store *store, uint32_t keys, struct limit_request *request);
/*
 * Reads all that the bucket entries point to: a checksum, or 0 where a record is not the entry's.
 * After more than one lap of the ring old entries point to bytes of other records.
 */
uint64_t limit_store_checksum(const struct limit_store *store);
/* An entry for a new key; in a full bucket it takes another key's. */
uint64_t *limit_bucket_add(struct limit_bucket *bucket, uint64_t hash);

static ALWAYS_INLINE uint64_t limit_tag_of(uint64_t hash)
{
    uint64_t tag = hash >> 56;
    return tag == 0 ? 1 : tag;
}

static ALWAYS_INLINE uint64_t limit_hash_bits(uint64_t hash)
{
    return hash >> 6 << LIMIT_ADDRESS_BITS;
}

/* A bit, the top one of its byte, for each tag that is `tag`; perhaps one above a right one too. */
static ALWAYS_INLINE uint64_t limit_tags_match(uint64_t tags, uint64_t tag)
{
    uint64_t difference = tags ^ (tag * LIMIT_BYTE_ONES);
    uint64_t zeros = (difference - LIMIT_BYTE_ONES) & ~difference & (LIMIT_BYTE_ONES << 7);
    return zeros << 8 >> 8;
}

static ALWAYS_INLINE void limit_step_hash(const struct limit_store *store, struct limit_step *step)
{
    step->hash = hash_key(&step->request->key, LIMIT_KEY_BYTES, LIMIT_HASH_SEED);
    step->bucket = &store->buckets[step->hash & (store->buckets_count - 1)];
    __builtin_prefetch(step->bucket, 1);
}

static ALWAYS_INLINE void limit_step_probe(const struct limit_store *store, struct limit_step *step)
{
    struct limit_bucket *bucket = step->bucket;
    uint64_t match = limit_tags_match(bucket->tags, limit_tag_of(step->hash));
    step->old = NULL;
    for (; match != 0; match &= match - 1) {
        uint64_t *entry = &bucket->entries[__builtin_ctzll(match) / 8];
        if (((*entry ^ limit_hash_bits(step->hash)) & ~LIMIT_ADDRESS) != 0) continue;
        step->entry = entry;
        step->old = (const struct limit_record *)(store->log + ((*entry & LIMIT_ADDRESS) << 3));
        __builtin_prefetch(&step->old->hash, 0, 0); /* read once: it is garbage afterwards */
        return;
    }
}

static ALWAYS_INLINE struct limit_record *limit_store_append(struct limit_store *store,
                                                             const struct limit_step *step)
{
    size_t bytes = step->bytes + LIMIT_RECORD_GROWTH;
    if (UNLIKELY(store->tail + bytes > store->log_bytes)) {
        store->tail = 0;
        store->laps++;
    }
    struct limit_record *record = (struct limit_record *)(store->log + store->tail);
    store->tail += bytes;
    /* A store to a line in no cache would wait for it. */
    uint8_t *ahead = store->log + store->tail + LIMIT_LOG_AHEAD;
    for (size_t at = 0; at < bytes; at += CACHE_LINE) __builtin_prefetch(ahead + at, 1);
    limit_copy_lines((uint8_t *)&record->key, (const uint8_t *)&step->request->key,
                     step->bytes - sizeof(struct limit_header));
    record->header = step->request->header;
    record->header.length += LIMIT_RECORD_GROWTH;
    record->header.hash = step->hash;
    record->place = ++store->places;
    record->offset = store->places;
    record->time = store->places;
    record->hash = step->hash;
    return record;
}

static ALWAYS_INLINE void limit_step_apply(struct limit_store *store, struct limit_step *step)
{
    const struct limit_request *request = step->request;
    const struct limit_record *old = step->old;
    if (LIKELY(old != NULL)) {
        store->matched += old->hash == step->hash && old->key == request->key;
    } else {
        step->entry = limit_bucket_add(step->bucket, step->hash);
    }
    const struct limit_record *record = limit_store_append(store, step);
    uint64_t address = (uint64_t)((const uint8_t *)record - store->log);
    *step->entry = limit_hash_bits(step->hash) | address >> 3;
}
