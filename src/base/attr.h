/*
 * Compiler attributes and the few sizes of the machine that layouts depend on.
 */
#pragma once

#define CACHE_LINE 64
/* What one core writes and another reads stands two lines apart: the prefetcher fetches pairs. */
#define CACHE_PAIR 128

#define MUST_CHECK __attribute__((warn_unused_result))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NO_INLINE __attribute__((noinline))
#define COLD __attribute__((cold, noinline))
#define PRINTF_LIKE(text, first) __attribute__((format(printf, text, first)))
