/*
 * The only doors to the machine's clocks. A shard's loop reads them once a turn and hands the
 * result down; nothing below the loop asks for the time.
 */
#pragma once

#include <stdint.h>

#define NS_PER_US ((uint64_t)1000)
#define NS_PER_MS ((uint64_t)1000000)
#define NS_PER_S ((uint64_t)1000000000)
/* "No deadline": later than every time. */
#define TIME_NEVER UINT64_MAX

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t clock_now_ns(void);
/* Milliseconds since the Unix epoch, CLOCK_REALTIME. */
uint64_t clock_wall_ms(void);
/* CPU nanoseconds that the calling thread has used. */
uint64_t clock_thread_cpu_ns(void);

/* Tells the core that this is a spin loop. */
static inline void clock_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
