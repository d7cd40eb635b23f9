/*
 * Memory comes from two places: address space reserved once and faulted in as it is used (logs,
 * tables, buffers), and a checked allocator for everything that lives as long as its owner.
 * Nothing is allocated on the way of a message.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

/*
 * Reserves `bytes` of zeroed, page-aligned address space. No memory is used until it is touched.
 * With `huge`, the kernel is asked for huge pages and the start is aligned to one.
 * Returns NULL where the kernel refuses: lower memory.max or raise vm.max_map_count / ulimit -v.
 */
MUST_CHECK void *memory_reserve(size_t bytes, int huge);
/* Gives the whole reservation back. */
void memory_release(void *memory, size_t bytes);
/* Gives the pages back but keeps the address space; what is read there afterwards is zero. */
void memory_discard(void *memory, size_t bytes);
/* Touches every page, so that a later write does not fault. */
void memory_touch(void *memory, size_t bytes);

/* Zeroed memory of `bytes`, aligned to a pair of cache lines; NULL where there is none. */
MUST_CHECK void *memory_take(size_t bytes);
/* Like memory_take, keeping the first `old_bytes`; `memory` stays valid when NULL is returned. */
MUST_CHECK void *memory_resize(void *memory, size_t old_bytes, size_t bytes);
/* NULL is allowed. */
void memory_put(void *memory);

/*
 * Tests only: the `countdown`-th call from now on of memory_take, memory_resize or memory_reserve
 * by this thread returns NULL (1 = the next); 0 switches it off.
 */
void memory_fail_after(uint64_t countdown);
/* The same, but all later calls fail too, until memory_fail_after(0). */
void memory_fail_from(uint64_t countdown);
/* Calls of memory_take, memory_resize and memory_reserve by this thread. */
uint64_t memory_calls_count(void);
