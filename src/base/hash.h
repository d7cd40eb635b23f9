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

#ifdef __AVX2__
#define HASH_RRMXMX_MULTIPLIER 0x9fb21c651e98df25u
/* Four of them at once, which costs as much as two. */
struct hash_of_8_x4 {
    __m256i flip;
};

static inline struct hash_of_8_x4 hash_of_8_x4(struct hash_of_8 hash)
{
    return (struct hash_of_8_x4){_mm256_set1_epi64x((long long)hash.flip)};
}

/* Products modulo 2^64, of halves, as there is no instruction for whole ones. */
static inline __m256i hash_multiply_x4(__m256i a, uint64_t b)
{
    __m256i low = _mm256_set1_epi64x((long long)b);
    __m256i high = _mm256_set1_epi64x((long long)(b >> 32));
    __m256i cross = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(a, 32), low),
                                     _mm256_mul_epu32(a, high));
    return _mm256_add_epi64(_mm256_mul_epu32(a, low), _mm256_slli_epi64(cross, 32));
}

static inline __m256i hash_key_8_x4(__m256i keys, struct hash_of_8_x4 hash)
{
    /* To the left by 24 bits: by three bytes. */
    const __m256i by_24 = _mm256_set_epi8(12, 11, 10, 9, 8, 15, 14, 13, 4, 3, 2, 1, 0, 7, 6, 5, 12,
                                          11, 10, 9, 8, 15, 14, 13, 4, 3, 2, 1, 0, 7, 6, 5);
    __m256i x = _mm256_xor_si256(_mm256_shuffle_epi32(keys, 0xb1), hash.flip);
    __m256i by_49 = _mm256_xor_si256(_mm256_slli_epi64(x, 49), _mm256_srli_epi64(x, 15));
    x = _mm256_xor_si256(x, _mm256_xor_si256(by_49, _mm256_shuffle_epi8(x, by_24)));
    x = hash_multiply_x4(x, HASH_RRMXMX_MULTIPLIER);
    x = _mm256_xor_si256(x, _mm256_add_epi64(_mm256_srli_epi64(x, 35), _mm256_set1_epi64x(8)));
    x = hash_multiply_x4(x, HASH_RRMXMX_MULTIPLIER);
    return _mm256_xor_si256(x, _mm256_srli_epi64(x, 28));
}
#endif

/* Hash of a run of bytes without a seed: checksums, which every node computes alike. */
static inline uint64_t hash_bytes(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}
