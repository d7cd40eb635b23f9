/*
 * The keys that benches use.
 */
#pragma once

#include <stdint.h>

/*
 * 8 bytes of which each has its highest bit set, so that none is a dot: 7 bits of a number in each.
 * Different numbers below 2^56 are different keys.
 */
static inline uint64_t keys_spread(uint64_t number)
{
    uint64_t low = (number & 0x0fffffff) | (number & 0xfffffff0000000) << 4;
    low = (low & 0x00003fff00003fff) | (low & 0x0fffc0000fffc000) << 2;
    low = (low & 0x007f007f007f007f) | (low & 0x3f803f803f803f80) << 1;
    return low | 0x8080808080808080;
}

/* Key number `index`, scattered over all that there are. */
static inline uint64_t keys_scattered(uint64_t index)
{
    return keys_spread((index + 1) * 0x9e3779b97f4a7c15u);
}
