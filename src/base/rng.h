/*
 * Random numbers: xoshiro256** seeded by splitmix64 (Blackman and Vigna, "Scrambled Linear
 * Pseudorandom Number Generators"). A seed gives the same numbers on every machine, which is what
 * tests, benches and the simulator stand on. Not for secrets: those come from rng_secret_u64.
 */
#pragma once

#include <stdint.h>

struct rng {
    uint64_t state[4];
};

void rng_init(struct rng *rng, uint64_t seed);
uint64_t rng_next(struct rng *rng);

/* A number in 0 .. bound - 1; `bound` > 0. The bias is below 2^-32 for bounds below 2^32. */
static inline uint64_t rng_below(struct rng *rng, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)rng_next(rng) * bound) >> 64);
}

/* 64 bits from the kernel's generator; aborts where the kernel has none. */
uint64_t rng_secret_u64(void);
