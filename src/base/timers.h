/*
 * What is due when: a heap of timers, for one thread. Time is an argument.
 *
 * A timer is named by a number that is never used again, so that cancelling one that has fired, or
 * whose place has another one now, is no mistake.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"

/* More than this at a time are refused. */
#define TIMERS_MAX (1u << 20)

/* What is called, and with what; `callback` is for a `function` that calls another one in its turn. */
struct timer_call {
    void (*function)(const struct timer_call *call);
    void *context;
    void *argument;
    void (*callback)(void);
};

/* A place of the heap. */
struct timer_due {
    uint64_t due_ns;
    uint64_t serial; /* timers of the same time fire in the order in which they were added */
    uint32_t slot;
};

struct timer {
    struct timer_call call; /* no function: free */
    uint32_t generation;
    uint32_t place; /* in the heap; of a free one the next free slot */
};

/* All zeros is an empty one. */
struct timers {
    struct timer_due *heap;
    struct timer *slots;
    uint32_t count;
    uint32_t capacity;
    uint32_t slots_fresh;
    uint32_t free; /* slot + 1 */
    uint64_t serial;
};

void timers_deinit(struct timers *timers);
/*
 * Makes the call in the first timers_fire from `due_ns` on. Returns the timer's number, or 0: no
 * memory, or TIMERS_MAX are running.
 */
uint64_t timers_add(struct timers *timers, uint64_t due_ns, const struct timer_call *call);
/* False: it has fired, or was cancelled before. 0 is allowed. */
bool timers_cancel(struct timers *timers, uint64_t number);
/*
 * Fires what is due, each timer once. Those that are added meanwhile wait for the next call, however
 * early they are due, so that this ends. Returns how many fired.
 */
uint32_t timers_fire(struct timers *timers, uint64_t now_ns);

/* When the next one is due, or UINT64_MAX. */
static inline uint64_t timers_next_ns(const struct timers *timers)
{
    return timers->count > 0 ? timers->heap[0].due_ns : UINT64_MAX;
}
