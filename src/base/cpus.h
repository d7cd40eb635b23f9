/*
 * Processors: which this process may use, which a user named, and pinning a thread to one.
 */
#pragma once

#include <stdint.h>

#include "base/attr.h"

#define CPUS_MAX 1024

struct cpu_list {
    uint32_t count;
    uint16_t cpus[CPUS_MAX];
};

/* The processors that the calling thread may run on. */
void cpus_allowed(struct cpu_list *list);
/* Reads "2-7,10"; -EINVAL where it is no such list. */
MUST_CHECK int cpus_parse(struct cpu_list *list, const char *text);
/* Pins the calling thread; a negative errno where the kernel refuses. */
int cpus_pin(uint16_t cpu);
/* Memory in bytes that this process may use: of the machine, or less where its cgroup says so. */
uint64_t machine_memory_bytes(void);
