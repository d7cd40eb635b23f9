/*
 * A thread that sleeps on a word of memory. The kernel compares the word once more before it lets
 * the thread sleep, so a change that came before is not missed: that is all the memory that the
 * wake-up protocol of shard/mailbox.c asks of a wake.
 */
#pragma once

#include <stdint.h>

/* Sleeps up to `wait_ns` (TIME_NEVER: for ever) while `*word` is `value`; now and then shorter. */
void futex_wait(const uint32_t *word, uint32_t value, uint64_t wait_ns);
/* Wakes whoever sleeps on it. */
void futex_wake(const uint32_t *word);
