#include "base/memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/bytes.h"

#define HUGE_PAGE_BYTES (2 * MIB)
#define PAGE_BYTES ((size_t)4096)

static _Thread_local uint64_t fail_countdown;
static _Thread_local bool fail_stays;
static _Thread_local uint64_t calls_count;

static bool fails_now(void)
{
    calls_count++;
    if (LIKELY(fail_countdown == 0)) return false;
    if (fail_countdown == 1 && fail_stays) return true;
    return --fail_countdown == 0;
}

void memory_fail_after(uint64_t countdown)
{
    fail_countdown = countdown;
    fail_stays = false;
}

void memory_fail_from(uint64_t countdown)
{
    fail_countdown = countdown;
    fail_stays = true;
}

uint64_t memory_calls_count(void)
{
    return calls_count;
}

/* Maps more than is needed and unmaps both ends, so that the start lies on a huge page. */
static void *map_aligned(size_t bytes)
{
    size_t mapped_bytes = bytes + HUGE_PAGE_BYTES;
    uint8_t *mapped = mmap(NULL, mapped_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return NULL;
    uint8_t *start = (uint8_t *)round_up((size_t)mapped, HUGE_PAGE_BYTES);
    size_t before = (size_t)(start - mapped);
    size_t after = mapped_bytes - before - bytes;
    if (before > 0) munmap(mapped, before);
    if (after > 0) munmap(start + bytes, after);
    return start;
}

void *memory_reserve(size_t bytes, int huge)
{
    ASSERT(bytes > 0);
    if (fails_now()) return NULL;
    bytes = round_up(bytes, PAGE_BYTES);
    void *memory = map_aligned(bytes);
    if (memory != NULL && huge) madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

void memory_release(void *memory, size_t bytes)
{
    if (memory == NULL) return;
    int err = munmap(memory, round_up(bytes, PAGE_BYTES));
    ASSERT(err == 0);
}

void memory_discard(void *memory, size_t bytes)
{
    ASSERT(((size_t)memory & (PAGE_BYTES - 1)) == 0);
    int err = madvise(memory, bytes, MADV_DONTNEED);
    ASSERT(err == 0);
}

void memory_touch(void *memory, size_t bytes)
{
    volatile uint8_t *page = memory;
    for (size_t at = 0; at < bytes; at += PAGE_BYTES) page[at] = page[at];
}

void *memory_take(size_t bytes)
{
    ASSERT(bytes > 0);
    if (fails_now()) return NULL;
    void *memory = NULL;
    if (posix_memalign(&memory, CACHE_PAIR, round_up(bytes, CACHE_LINE)) != 0) return NULL;
    memset(memory, 0, bytes);
    return memory;
}

void *memory_resize(void *memory, size_t old_bytes, size_t bytes)
{
    void *larger = memory_take(bytes);
    if (larger == NULL) return NULL;
    if (memory != NULL) memcpy(larger, memory, min_u64(old_bytes, bytes));
    free(memory);
    return larger;
}

void memory_put(void *memory)
{
    free(memory);
}
