#include "tests/support/key_of_hash.h"

#include "base/hash.h"

static uint64_t rotated(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

/* `x` such that x * odd == product. */
static uint64_t divided(uint64_t product, uint64_t odd)
{
    uint64_t inverse = odd;
    for (unsigned i = 0; i < 6; i++) inverse *= 2 - odd * inverse;
    return product * inverse;
}

/*
 * The step with two rotations is a polynomial that has an odd number of terms, so it is the
 * identity when it is taken 64 times.
 */
uint64_t key_of_hash(uint64_t hash, uint64_t seed)
{
    hash ^= hash >> 28;
    hash ^= hash >> 56;
    hash = divided(hash, 0x9fb21c651e98df25u);
    hash ^= (hash >> 35) + 8;
    hash = divided(hash, 0x9fb21c651e98df25u);
    for (unsigned i = 0; i < 63; i++) hash ^= rotated(hash, 49) ^ rotated(hash, 24);
    return rotated(hash ^ hash_of_8(seed).flip, 32);
}
