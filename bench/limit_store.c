#include "bench/limit_store.h"

#include <errno.h>

#include "base/memory.h"

int limit_store_init(struct limit_store *store, uint32_t keys, uint64_t log_bytes)
{
    uint64_t count = 1;
    while (count * LIMIT_KEYS_PER_BUCKET < keys) count *= 2;
    *store = (struct limit_store){.buckets_count = count, .log_bytes = log_bytes};
    store->buckets = memory_reserve(count * sizeof(struct limit_bucket), 1);
    store->log = memory_reserve(log_bytes + LIMIT_SLACK, 1);
    if (store->buckets == NULL || store->log == NULL) return -ENOMEM;
    memory_touch(store->buckets, count * sizeof(struct limit_bucket));
    memory_touch(store->log, log_bytes + LIMIT_SLACK);
    return 0;
}

void limit_store_deinit(struct limit_store *store)
{
    memory_release(store->log, store->log_bytes + LIMIT_SLACK);
    memory_release(store->buckets, store->buckets_count * sizeof(struct limit_bucket));
}

uint64_t *limit_bucket_add(struct limit_bucket *bucket, uint64_t hash)
{
    uint64_t free = limit_tags_match(bucket->tags, 0);
    unsigned at = (unsigned)(hash >> 32) % LIMIT_BUCKET_ENTRIES;
    if (free != 0) at = (unsigned)__builtin_ctzll(free) / 8;
    bucket->tags &= ~((uint64_t)0xff << 8 * at);
    bucket->tags |= limit_tag_of(hash) << 8 * at;
    return &bucket->entries[at];
}

void limit_store_fill(struct limit_store *store, uint32_t keys, struct limit_request *request)
{
    struct limit_step step = {.request = request,
                              .bytes = (uint32_t)round_up_8(request->header.length)};
    for (uint32_t key = 0; key < keys; key++) {
        request->key = key;
        limit_step_hash(store, &step);
        limit_step_probe(store, &step);
        limit_step_apply(store, &step);
    }
}

uint64_t limit_store_checksum(const struct limit_store *store)
{
    uint64_t sum = store->matched + store->places;
    for (uint64_t b = 0; b < store->buckets_count; b++) {
        const struct limit_bucket *bucket = &store->buckets[b];
        for (unsigned i = 0; i < LIMIT_BUCKET_ENTRIES; i++) {
            if ((bucket->tags >> 8 * i & 0xff) == 0) continue;
            uint64_t address = (bucket->entries[i] & LIMIT_ADDRESS) << 3;
            const struct limit_record *record = (const struct limit_record *)(store->log + address);
            uint64_t hash = hash_key(&record->key, LIMIT_KEY_BYTES, LIMIT_HASH_SEED);
            bool same = ((bucket->entries[i] ^ limit_hash_bits(hash)) & ~LIMIT_ADDRESS) == 0;
            if (!same && store->laps == 0) return 0;
            sum = (sum ^ hash ^ bucket->entries[i]) * LIMIT_HASH_SEED;
        }
    }
    return sum | 1;
}
