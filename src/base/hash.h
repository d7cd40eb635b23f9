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

/* Hash of a run of bytes without a seed: checksums, which every node computes alike. */
static inline uint64_t hash_bytes(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}
