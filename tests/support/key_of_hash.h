/*
 * Keys for hashes, instead of hashes for keys: so a test fills one bucket, or makes two keys whose
 * entries in a table look alike.
 */
#pragma once

#include <stdint.h>

/* The key of 8 bytes that has this hash: hash_key_8 backwards. */
uint64_t key_of_hash(uint64_t hash, uint64_t seed);
