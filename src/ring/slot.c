/*
 * A client computes a slot for every message, and nearly all keys are short, so this file is made
 * for keys of up to 16 bytes: one or two words, found and hashed without a loop.
 *
 * Hashing. A checksum whose first value is 0 does not see zeros in front of its input. A run of up
 * to 8 bytes is therefore moved to the end of a word whose first bytes are zero, and one step of 8
 * table reads, none of which waits for another, hashes all of it.
 *
 * Tables. A checksum is linear: that of a byte is the xor of those of its bits, and that of bit j
 * of a byte with k bytes behind it is x^(16 + 8k + j) modulo the polynomial. The compiler computes
 * the 64 powers and then the xors, so there is no generator and nothing to go out of step: 4 KiB.
 *
 * Scanning. 8 bytes are compared at once (Hacker's Delight 6-1): the lowest bit that match() sets
 * is exact, and no other is looked at.
 */
#include "ring/slot.h"

#include "base/bytes.h"

#define TIMES_X(p) ((((p) << 1) & 0xffff) ^ (((p) >> 15) * 0x1021))

/* P<k><j> is x^(16 + 8k + j), the checksum of bit j of a byte with k bytes behind it. */
#define POWERS(k, first)                                                                           \
    P##k##0 = (first), P##k##1 = TIMES_X(P##k##0), P##k##2 = TIMES_X(P##k##1),                     \
    P##k##3 = TIMES_X(P##k##2), P##k##4 = TIMES_X(P##k##3), P##k##5 = TIMES_X(P##k##4),            \
    P##k##6 = TIMES_X(P##k##5), P##k##7 = TIMES_X(P##k##6)

enum {
    POWERS(0, 0x1021),
    POWERS(1, TIMES_X(P07)),
    POWERS(2, TIMES_X(P17)),
    POWERS(3, TIMES_X(P27)),
    POWERS(4, TIMES_X(P37)),
    POWERS(5, TIMES_X(P47)),
    POWERS(6, TIMES_X(P57)),
    POWERS(7, TIMES_X(P67))
};

/* XORS_n(v, p1 ... pn): v with each subset of the n powers, in the order of the bytes. */
#define XORS_1(v, a) (v), (v) ^ (a)
#define XORS_2(v, a, b) XORS_1(v, a), XORS_1((v) ^ (b), a)
#define XORS_3(v, a, b, c) XORS_2(v, a, b), XORS_2((v) ^ (c), a, b)
#define XORS_4(v, a, b, c, d) XORS_3(v, a, b, c), XORS_3((v) ^ (d), a, b, c)
#define XORS_5(v, a, b, c, d, e) XORS_4(v, a, b, c, d), XORS_4((v) ^ (e), a, b, c, d)
#define XORS_6(v, a, b, c, d, e, f) XORS_5(v, a, b, c, d, e), XORS_5((v) ^ (f), a, b, c, d, e)
#define XORS_7(v, a, b, c, d, e, f, g)                                                             \
    XORS_6(v, a, b, c, d, e, f), XORS_6((v) ^ (g), a, b, c, d, e, f)
#define XORS_8(v, a, b, c, d, e, f, g, h)                                                          \
    XORS_7(v, a, b, c, d, e, f, g), XORS_7((v) ^ (h), a, b, c, d, e, f, g)
#define TABLE(k)                                                                                   \
    {                                                                                              \
        XORS_8(0, P##k##0, P##k##1, P##k##2, P##k##3, P##k##4, P##k##5, P##k##6, P##k##7)          \
    }

/* The checksum of a byte with as many bytes behind it as the first index says. */
static const uint16_t crc_tables[8][256] = {TABLE(0), TABLE(1), TABLE(2), TABLE(3),
                                            TABLE(4), TABLE(5), TABLE(6), TABLE(7)};

static inline uint64_t load_8(const uint8_t *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof word);
    return word;
}

/* The 0 to 8 bytes at `data`, the first one lowest; zeros above them. */
static inline uint64_t load_up_to_8(const uint8_t *data, size_t bytes)
{
    if (bytes == 8) return load_8(data);
    if (bytes >= 4) {
        uint32_t first;
        uint32_t last; /* they overlap where there are fewer than 8 */
        memcpy(&first, data, sizeof first);
        memcpy(&last, data + bytes - sizeof last, sizeof last);
        return first | (uint64_t)last << ((bytes - 4) * 8);
    }
    if (bytes == 0) return 0;
    size_t middle = bytes / 2;
    return data[0] | (uint64_t)data[middle] << (middle * 8) |
           (uint64_t)data[bytes - 1] << ((bytes - 1) * 8);
}

/* The lowest bit of the result is in the first byte of `word` that equals `byte`; 0: none does. */
static inline uint64_t match(uint64_t word, uint8_t byte)
{
    const uint64_t ones = 0x0101010101010101;
    uint64_t zeros = word ^ (ones * byte);
    return (zeros - ones) & ~zeros & (ones << 7);
}

/* The index of the first byte of `word` that equals `byte`; `bytes` where there is none. */
static inline size_t match_index(uint64_t word, uint8_t byte, size_t bytes)
{
    uint64_t matches = match(word, byte);
    return matches == 0 ? bytes : (size_t)__builtin_ctzll(matches) / 8;
}

static inline uint16_t crc_word(uint16_t crc, uint64_t word)
{
    word ^= __builtin_bswap16(crc);
    return crc_tables[7][word & 0xff] ^ crc_tables[6][word >> 8 & 0xff] ^
           crc_tables[5][word >> 16 & 0xff] ^ crc_tables[4][word >> 24 & 0xff] ^
           crc_tables[3][word >> 32 & 0xff] ^ crc_tables[2][word >> 40 & 0xff] ^
           crc_tables[1][word >> 48 & 0xff] ^ crc_tables[0][word >> 56];
}

/* The checksum of the first `bytes` (1 to 8) of `word`. */
static inline uint16_t crc_first(uint64_t word, size_t bytes)
{
    return crc_word(0, word << ((8 - bytes) * 8));
}

static inline uint16_t slot_of_crc(uint16_t crc)
{
    return (uint16_t)((crc & (SLOTS_REDIS_COUNT - 1)) >> SLOT_REDIS_SHIFT);
}

uint16_t slot_crc16(const void *data, size_t bytes)
{
    const uint8_t *at = data;
    size_t first = bytes % 8;
    uint16_t crc = first == 0 ? 0 : crc_first(load_up_to_8(at, first), first);
    for (at += first, bytes -= first; bytes > 0; at += 8, bytes -= 8)
        crc = crc_word(crc, load_8(at));
    return crc;
}

uint16_t slot_of_partition(const void *partition, size_t bytes)
{
    if (bytes == 0) return 0;
    const char *end = (const char *)partition + bytes;
    const char *open = memchr(partition, '{', bytes);
    if (open != NULL && ++open < end) {
        const char *close = memchr(open, '}', (size_t)(end - open));
        if (close != NULL && close > open) {
            partition = open;
            bytes = (size_t)(close - open);
        }
    }
    return slot_of_crc(slot_crc16(partition, bytes));
}

static NO_INLINE uint16_t slot_of_long_key(const uint8_t *key, size_t bytes)
{
    const uint8_t *dot = memchr(key, '.', bytes);
    return slot_of_partition(key, dot == NULL ? bytes : (size_t)(dot - key));
}

static inline uint16_t slot_of_8(const uint8_t *key, size_t bytes)
{
    uint64_t word = load_up_to_8(key, bytes);
    size_t end = match_index(word, '.', bytes);
    if (UNLIKELY(match_index(word, '{', end) < end)) return slot_of_partition(key, end);
    return end == 0 ? 0 : slot_of_crc(crc_first(word, end));
}

/* For 9 to 16 bytes. */
static inline uint16_t slot_of_16(const uint8_t *key, size_t bytes)
{
    uint64_t low = load_8(key);
    if (match(low, '.') != 0) return slot_of_8(key, 8);
    uint64_t high = load_8(key + bytes - 8) >> ((16 - bytes) * 8);
    size_t end = match_index(high, '.', bytes - 8);
    if (UNLIKELY(match(low, '{') != 0 || match_index(high, '{', end) < end))
        return slot_of_partition(key, 8 + end);
    if (end == 0) return slot_of_crc(crc_word(0, low));
    /* The first `end` bytes are hashed in one step, then the 8 behind them. */
    uint16_t crc = crc_first(low, end);
    if (end == 8) return slot_of_crc(crc_word(crc, high));
    return slot_of_crc(crc_word(crc, low >> (end * 8) | high << ((8 - end) * 8)));
}

uint16_t slot_of_key(const void *key, size_t bytes)
{
    if (bytes <= 8) return slot_of_8(key, bytes);
    if (bytes <= 16) return slot_of_16(key, bytes);
    return slot_of_long_key(key, bytes);
}
