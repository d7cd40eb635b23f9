/*
 * The one place where xxHash enters: every file that hashes includes this header, so that all of
 * fero agrees on the variant (XXH3, 64 bits) and compiles it inline.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
/* What is hashed was just written, or is fetched by whoever asks. */
#define XXH_NO_PREFETCH
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wundef"
#pragma GCC diagnostic ignored "-Wswitch-enum"
#include <xxhash.h>
#pragma GCC diagnostic pop

/* Hash of a key under a secret seed, so that no client can aim its keys at one bucket. */
static inline uint64_t hash_key(const void *key, size_t bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(key, bytes, seed);
}

/*
 * The same for keys of 8 bytes, one after another: what depends on the seed alone is worked out
 * once. Equal to hash_key of these 8 bytes (XXH3's way with inputs of 4 to 8 bytes).
 *
 * Every step can be undone: an exclusive or with a constant, one with two rotations of the same, a
 * product with an odd number, one with higher bits. So two keys of 8 bytes have the same hash only
 * if they are equal. tests/unit/test_base.c goes all the way back.
 */
struct hash_of_8 {
    uint64_t flip;
};

static inline struct hash_of_8 hash_of_8(uint64_t seed)
{
    uint64_t secret = XXH_readLE64(XXH3_kSecret + 8) ^ XXH_readLE64(XXH3_kSecret + 16);
    return (struct hash_of_8){secret - (seed ^ (uint64_t)XXH_swap32((uint32_t)seed) << 32)};
}

static inline uint64_t hash_key_8(uint64_t key, struct hash_of_8 hash)
{
    return XXH3_rrmxmx(XXH_rotl64(key, 32) ^ hash.flip, 8);
}

/* Hash of a run of bytes without a seed: checksums, which every node computes alike. */
static inline uint64_t hash_bytes(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}
