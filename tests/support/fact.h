/*
 * For programs of end-to-end tests: facts as lines "ok NAME" and "not ok NAME: details", which
 * scripts/test counts, and what /proc knows of the node that is tested.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/attr.h"

/* Sanitizers keep what was freed for a while, and put something around everything. */
#ifdef __SANITIZE_ADDRESS__
#define FACT_MEMORY_FACTOR 12
#define FACT_TIME_FACTOR 3
#else
#define FACT_MEMORY_FACTOR 1
#define FACT_TIME_FACTOR 1
#endif

void fact(bool holds, const char *name, const char *details, ...) PRINTF_LIKE(3, 4);
/* How many did not hold. */
unsigned facts_failed(void);
/* What may take `ms` on a quick machine: TEST_SCALE multiplies it, as all limits of tests. */
uint64_t fact_limit_ms(uint64_t ms);

/* Resident memory of a process in KiB and its open descriptors; -1 where it has ended. */
int64_t process_memory_kib(pid_t pid);
int process_descriptors(pid_t pid);
