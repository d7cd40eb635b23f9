/*
 * The table of a cache on one shard: from the hash of a key to the address of its newest change.
 * One writer, the shard's thread; others may look (peek.c). See table.c for the layout, how it
 * grows, and what a reader may see.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "base/assert.h"
#include "base/attr.h"

#define BUCKET_ENTRIES 7
/* An entry: bits 6..32 of the key's hash above the address in units of 8 bytes. */
#define ENTRY_ADDRESS_BITS 37
#define ENTRY_ADDRESS (((uint64_t)1 << ENTRY_ADDRESS_BITS) - 1)
#define ENTRY_HASH_SHIFT 6

struct bucket {
    union {
        struct {
            /* 0x80 and bits 56..62 of the entry's hash; 0x40 and bits 56..61 of a tree's; 0: none */
            uint8_t tags[BUCKET_ENTRIES];
            uint8_t overflows; /* 1: entries[6] names an overflow bucket, and its tag is 0 */
        };
        uint64_t head; /* all of them, as other threads see them */
    };
    uint64_t entries[BUCKET_ENTRIES];
} __attribute__((aligned(CACHE_LINE)));
#define BUCKET_SHIFT 6
_Static_assert(sizeof(struct bucket) == CACHE_LINE, "one bucket is one cache line");
_Static_assert(sizeof(struct bucket) == 1 << BUCKET_SHIFT, "the address of one is a shift away");

struct table {
    struct bucket *buckets;
    uint64_t mask;      /* 2^level - 1 */
    uint64_t split;     /* buckets below it have been split in this round */
    uint64_t count;     /* entries */
    uint64_t count_max; /* above it the next insertion splits a bucket */
    uint32_t level;
    uint32_t overflow_free;  /* first free overflow bucket; 0: none */
    uint32_t overflow_fresh; /* never used from here on; 0 is never used */
    uint32_t overflow_in_use;
    uint64_t buckets_max;
    uint32_t overflow_max;
    struct bucket *overflow;
    uint64_t moves; /* grows before and after entries are moved; odd: they are being moved */
};

/* Room for `entries_max` entries as address space; memory is used as it grows. 0 or -ENOMEM. */
MUST_CHECK int table_init(struct table *table, uint64_t entries_max);
void table_deinit(struct table *table);
/* Bytes of memory in use. */
size_t table_bytes(const struct table *table);

static inline struct bucket *table_bucket(const struct table *table, uint64_t hash)
{
    uint64_t narrow = hash & table->mask;
    uint64_t wide = hash & (table->mask << 1 | 1);
    /* Which one it is cannot be predicted: no branch. */
    return &table->buckets[narrow < table->split ? wide : narrow];
}

#ifdef __AVX2__
/* Pointers to the buckets of four hashes. */
static inline __m256i table_bucket_x4(const struct table *table, __m256i hashes)
{
    __m256i mask = _mm256_set1_epi64x((long long)table->mask);
    __m256i wide_mask = _mm256_set1_epi64x((long long)(table->mask << 1 | 1));
    __m256i split = _mm256_set1_epi64x((long long)table->split);
    __m256i base = _mm256_set1_epi64x((long long)(uintptr_t)table->buckets);
    __m256i narrow = _mm256_and_si256(hashes, mask);
    __m256i wide = _mm256_and_si256(hashes, wide_mask);
    __m256i number = _mm256_blendv_epi8(narrow, wide, _mm256_cmpgt_epi64(split, narrow));
    return _mm256_add_epi64(base, _mm256_slli_epi64(number, BUCKET_SHIFT));
}

static inline __m256i entry_hash_bits_x4(__m256i hashes)
{
    return _mm256_slli_epi64(_mm256_srli_epi64(hashes, ENTRY_HASH_SHIFT), ENTRY_ADDRESS_BITS);
}
#endif

static inline uint8_t table_tag(uint64_t hash)
{
    return (uint8_t)(hash >> 56 | 0x80);
}

/* Of the entry of a tree: no look-up of a record ever matches it. */
static inline uint8_t table_tree_tag(uint64_t hash)
{
    return (uint8_t)((hash >> 56 & 0x3f) | 0x40);
}

static inline uint64_t entry_hash_bits(uint64_t hash)
{
    return hash >> ENTRY_HASH_SHIFT << ENTRY_ADDRESS_BITS;
}

static inline uint64_t entry_make(uint64_t hash, uint64_t address)
{
    DEBUG_ASSERT((address & 7) == 0 && address >> 3 <= ENTRY_ADDRESS);
    return entry_hash_bits(hash) | address >> 3;
}

static inline uint64_t entry_address(uint64_t entry)
{
    return (entry & ENTRY_ADDRESS) << 3;
}

static inline bool entry_may_be(uint64_t entry, uint64_t hash)
{
    return ((entry ^ entry_hash_bits(hash)) & ~ENTRY_ADDRESS) == 0;
}

/* A bit for each entry of the bucket whose tag is that of the hash. */
static ALWAYS_INLINE uint64_t bucket_match(const struct bucket *bucket, const uint64_t *hash)
{
#if defined(__SSE2__)
    /* The hash's last byte is loaded to all 16 at once where there is AVX2. */
    __m128i tag = _mm_or_si128(_mm_set1_epi8(((const char *)hash)[7]), _mm_set1_epi8((char)0x80));
    __m128i tags = _mm_loadl_epi64((const __m128i *)(const void *)bucket);
    /* Only tags can match: byte 7 is 0 or 1, and what is behind it is 0. */
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(tags, tag));
#else
    uint8_t tag = table_tag(*hash);
    uint64_t match = 0;
    for (unsigned i = 0; i < BUCKET_ENTRIES; i++) match |= (uint64_t)(bucket->tags[i] == tag) << i;
    return match;
#endif
}

/*
 * The entry that is probably the key's, and the address in it in units of 8 bytes: tag and 27 bits of
 * hash agree. NULL: look with table_find, the key may be in an overflow bucket or nowhere. Touches
 * one cache line. `hash_bits` are entry_hash_bits of the hash.
 */
static ALWAYS_INLINE uint64_t *table_probe_bits(struct bucket *bucket, const uint64_t *hash,
                                                uint64_t hash_bits, uint64_t *address8)
{
    for (uint64_t match = bucket_match(bucket, hash); match != 0; match &= match - 1) {
        uint64_t *entry = &bucket->entries[__builtin_ctzll(match)];
        uint64_t rest = *entry ^ hash_bits;
        *address8 = rest;
        if (LIKELY(rest <= ENTRY_ADDRESS)) return entry;
    }
    return NULL;
}

static ALWAYS_INLINE uint64_t *table_probe(struct bucket *bucket, const uint64_t *hash,
                                           uint64_t *address8)
{
    return table_probe_bits(bucket, hash, entry_hash_bits(*hash), address8);
}

/* Starts fetching the bucket where table_probe_all goes on behind `bucket`. */
void table_prefetch_overflow(const struct table *table, const struct bucket *bucket);
/* As table_probe, overflow buckets included. NULL: the key is not there. */
uint64_t *table_probe_all(const struct table *table, uint64_t hash);

/* Whether the record that an entry points to is the key's. */
typedef bool (*table_is_key_fn)(const void *context, uint64_t address);

/* The entry of the key, or NULL. Valid until the next insertion or removal. */
uint64_t *table_find(struct table *table, uint64_t hash, table_is_key_fn is_key,
                     const void *context);
/*
 * The same among the entries of trees: those of partitions that have something deep, whose address
 * is that of the tree's root (shard/tree.h). Their tags are such that nothing above ever finds them.
 */
uint64_t *table_find_tree(struct table *table, uint64_t hash, table_is_key_fn is_key,
                          const void *context);
/* Makes the entry that was found for this hash a tree's, or one of a record again. */
void table_set_tree(struct table *table, uint64_t hash, uint64_t *entry, uint64_t root_address);
void table_set_record(struct table *table, uint64_t hash, uint64_t *entry, uint64_t address);
/* The entry with exactly this hash and address, or NULL. */
uint64_t *table_find_address(struct table *table, uint64_t hash, uint64_t address);

/* Adds a key that is not there. 0, or -ENOMEM with nothing changed. */
MUST_CHECK int table_insert(struct table *table, uint64_t hash, uint64_t address);
/* Takes the entry out that table_find returned for this hash. */
void table_remove(struct table *table, uint64_t hash, uint64_t *entry);

/* Calls `visit` for each entry of a record. The table must not change meanwhile. */
void table_each(const struct table *table, void (*visit)(void *context, uint64_t address),
                void *context);
/* The same for the entries of trees. */
void table_each_tree(const struct table *table, void (*visit)(void *context, uint64_t root_address),
                     void *context);
/* Aborts where a stated invariant does not hold. O(n). */
void table_check(const struct table *table);
