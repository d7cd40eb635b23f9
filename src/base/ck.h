/*
 * The few primitives of Concurrency Kit that fero uses, under names that say what they order.
 *
 * ck_pr is inline assembly, which ThreadSanitizer cannot follow; in that build the same names are
 * C11 atomics. No other file includes ck headers or <stdatomic.h>, so this is the whole surface.
 *
 *   load_acquire / store_release   a message: what was written before the store is seen after the
 *                                  load that reads it
 *   load_relaxed / store_relaxed   a number that nobody draws conclusions from (counters)
 *   add_release                    a message, in a number that this thread alone writes: what was
 *                                  written to `written` is seen after a load_acquire that reads the
 *                                  sum. As cheap as an addition (x86: it is one)
 *   count_up                       such a number that this thread alone writes, as cheap as it gets
 *   ..._racing                     bytes that another thread may be writing. What was read means
 *                                  something only if a word that is changed before they are is the
 *                                  same afterwards, loaded behind fence_racing
 *   exchange_full                  store, then a full barrier, returning what stood there: both
 *                                  sides of a Dekker flag (x86: one xchg, 3 ns; mfence is 17 ns)
 *   swap_if                        compare and swap with full order
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__)
#define CK_USES_C11 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CK_USES_C11 1
#endif
#endif

#ifdef CK_USES_C11

#include <stdatomic.h>

/* The sanitizer must not look: it knows neither what is believed of it, nor fences. */
#define RACING __attribute__((no_sanitize("thread"), noinline, unused))
RACING static uint64_t load_racing_u64(const void *from)
{
    return *(const volatile uint64_t *)from;
}
RACING static void copy_racing(void *to, const void *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((volatile uint8_t *)to)[i] = ((const volatile uint8_t *)from)[i];
}
RACING static bool is_equal_racing(const void *racing, const void *own, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (((const volatile uint8_t *)racing)[i] != ((const uint8_t *)own)[i]) return false;
    return true;
}
static inline void fence_racing(void)
{
#if defined(__x86_64__)
    __asm__ volatile("" ::: "memory");
#else
    atomic_thread_fence(memory_order_acquire);
#endif
}

static inline uint64_t load_acquire_u64(const uint64_t *from)
{
    return atomic_load_explicit((const _Atomic uint64_t *)from, memory_order_acquire);
}
static inline void store_release_u64(uint64_t *to, uint64_t value)
{
    atomic_store_explicit((_Atomic uint64_t *)to, value, memory_order_release);
}
static inline uint32_t load_acquire_u32(const uint32_t *from)
{
    return atomic_load_explicit((const _Atomic uint32_t *)from, memory_order_acquire);
}
static inline void store_release_u32(uint32_t *to, uint32_t value)
{
    atomic_store_explicit((_Atomic uint32_t *)to, value, memory_order_release);
}
static inline uint64_t load_relaxed_u64(const uint64_t *from)
{
    return atomic_load_explicit((const _Atomic uint64_t *)from, memory_order_relaxed);
}
static inline void store_relaxed_u64(uint64_t *to, uint64_t value)
{
    atomic_store_explicit((_Atomic uint64_t *)to, value, memory_order_relaxed);
}
static inline void count_up_u64(uint64_t *number, uint64_t by)
{
    store_relaxed_u64(number, *number + by);
}
static inline void add_release_u64(uint64_t *to, uint64_t by, const void *written)
{
    (void)written;
    store_release_u64(to, *to + by);
}
static inline uint32_t exchange_full_u32(uint32_t *to, uint32_t value)
{
    return atomic_exchange_explicit((_Atomic uint32_t *)to, value, memory_order_seq_cst);
}
static inline bool swap_if_u32(uint32_t *to, uint32_t expected, uint32_t value)
{
    return atomic_compare_exchange_strong((_Atomic uint32_t *)to, &expected, value);
}
static inline uint64_t add_u64(uint64_t *to, uint64_t value)
{
    return atomic_fetch_add((_Atomic uint64_t *)to, value);
}

#else

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wundef"
#include <ck_pr.h>
#pragma GCC diagnostic pop

static inline uint64_t load_racing_u64(const void *from)
{
    return *(const volatile uint64_t *)from;
}
static inline void copy_racing(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}
static inline bool is_equal_racing(const void *racing, const void *own, size_t bytes)
{
    return memcmp(racing, own, bytes) == 0;
}
static inline void fence_racing(void)
{
    ck_pr_fence_load();
}

static inline uint64_t load_acquire_u64(const uint64_t *from)
{
    uint64_t value = ck_pr_load_64(from);
    ck_pr_fence_acquire();
    return value;
}
static inline void store_release_u64(uint64_t *to, uint64_t value)
{
    ck_pr_fence_release();
    ck_pr_store_64(to, value);
}
static inline uint32_t load_acquire_u32(const uint32_t *from)
{
    uint32_t value = ck_pr_load_32(from);
    ck_pr_fence_acquire();
    return value;
}
static inline void store_release_u32(uint32_t *to, uint32_t value)
{
    ck_pr_fence_release();
    ck_pr_store_32(to, value);
}
static inline uint64_t load_relaxed_u64(const uint64_t *from)
{
    return ck_pr_load_64(from);
}
static inline void store_relaxed_u64(uint64_t *to, uint64_t value)
{
    ck_pr_store_64(to, value);
}
static inline void count_up_u64(uint64_t *number, uint64_t by)
{
    /* Volatile: written whole and once; but no barrier to the compiler, as ck_pr_store_64 is. */
    *(volatile uint64_t *)number = *number + by;
}
static inline void add_release_u64(uint64_t *to, uint64_t by, const void *written)
{
#if defined(__x86_64__)
    /* Stores are seen in their order; the operand that is not used is that the compiler keeps it. */
    __asm__ volatile("addq %1, %0"
                     : "+m"(*to)
                     : "r"(by), "m"(*(const char(*)[1 << 24]) written)
                     : "cc");
#else
    (void)written;
    store_release_u64(to, *to + by);
#endif
}
static inline uint32_t exchange_full_u32(uint32_t *to, uint32_t value)
{
    /* On weakly ordered machines the exchange alone is not a fence. */
#if !defined(__x86_64__)
    ck_pr_fence_memory();
#endif
    uint32_t before = ck_pr_fas_32(to, value);
#if !defined(__x86_64__)
    ck_pr_fence_memory();
#endif
    return before;
}
static inline bool swap_if_u32(uint32_t *to, uint32_t expected, uint32_t value)
{
    return ck_pr_cas_32(to, expected, value);
}
static inline uint64_t add_u64(uint64_t *to, uint64_t value)
{
    return ck_pr_faa_64(to, value);
}

#endif
