/*
 * Assertions. ASSERT is always on, in release builds too: a broken invariant must not write one
 * more record. DEBUG_ASSERT is for checks that cost O(n) or sit in a measured hot leaf.
 */
#pragma once

#include "base/attr.h"

#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        if (UNLIKELY(!(condition))) assert_failed(#condition, __FILE__, __LINE__);                 \
    } while (0)

#ifdef FERO_DEBUG
#define DEBUG_ASSERT(condition) ASSERT(condition)
#else
#define DEBUG_ASSERT(condition)                                                                    \
    do {                                                                                           \
        (void)sizeof(condition);                                                                   \
    } while (0)
#endif

/* Prints the condition, its place and the calling thread's context, then aborts. */
_Noreturn COLD void assert_failed(const char *condition, const char *file, int line);

/*
 * What this thread works on, for the line that assert_failed prints: a shard's index, and in the
 * simulator the seed. Borrowed until it is replaced; NULL takes it away.
 */
void assert_context_set(const char *context);
