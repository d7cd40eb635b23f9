/*
 * Counts what is taken from base/memory.h and not given back, in a program that is linked with --wrap
 * of its functions, and refuses a shard some of it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ledger {
    uint64_t blocks;       /* of memory_take, not put */
    uint64_t reservations; /* not released */
    uint64_t refused;
    uint32_t refuse; /* calls in a million that find no memory, where a shard makes them */
};

/* The program's only one, set back to nothing. */
struct ledger *ledger_begin(void);

void *__wrap_memory_take(size_t bytes);
void *__wrap_memory_resize(void *memory, size_t old_bytes, size_t bytes);
void __wrap_memory_put(void *memory);
void *__wrap_memory_reserve(size_t bytes, int huge);
void __wrap_memory_release(void *memory, size_t bytes);
