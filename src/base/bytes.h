/*
 * Arithmetic on sizes and addresses that cannot overflow unseen.
 *
 * Everything fero puts on the wire, on disk and in memory is little-endian and 8-byte aligned, and
 * so are the machines it runs on: structs are read where they lie.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/attr.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fero's bytes are little-endian");

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

static inline size_t round_up_8(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}

/* `unit` must be a power of two. */
static inline size_t round_up(size_t bytes, size_t unit)
{
    return (bytes + unit - 1) & ~(unit - 1);
}

static inline bool is_power_of_two(uint64_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* A borrowed run of bytes. */
struct bytes {
    const void *data;
    size_t size;
};

static inline bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline struct bytes bytes_of(const char *text)
{
    return (struct bytes){text, strlen(text)};
}
