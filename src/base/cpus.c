#include "base/cpus.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"

void cpus_allowed(struct cpu_list *list)
{
    cpu_set_t set;
    list->count = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (uint16_t cpu = 0; cpu < CPU_SETSIZE && list->count < CPUS_MAX; cpu++)
            if (CPU_ISSET(cpu, &set)) list->cpus[list->count++] = cpu;
    if (list->count == 0) list->cpus[list->count++] = 0;
}

/* Reads one number at *text and steps over it. */
static int parse_cpu(const char **text, unsigned long *cpu)
{
    char *end;
    if (**text < '0' || **text > '9') return -EINVAL;
    *cpu = strtoul(*text, &end, 10);
    if (*cpu >= CPUS_MAX) return -EINVAL;
    *text = end;
    return 0;
}

int cpus_parse(struct cpu_list *list, const char *text)
{
    list->count = 0;
    for (;;) {
        unsigned long first;
        if (parse_cpu(&text, &first) < 0) return -EINVAL;
        unsigned long last = first;
        if (*text == '-') {
            text++;
            if (parse_cpu(&text, &last) < 0 || last < first) return -EINVAL;
        }
        for (unsigned long cpu = first; cpu <= last; cpu++) {
            if (list->count == CPUS_MAX) return -EINVAL;
            list->cpus[list->count++] = (uint16_t)cpu;
        }
        if (*text == 0) return 0;
        if (*text++ != ',') return -EINVAL;
    }
}

int cpus_pin(uint16_t cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0 ? 0 : -errno;
}

/* The limit of this process's control group (version 2), or UINT64_MAX. */
static uint64_t cgroup_memory_max(void)
{
    static const char *const paths[] = {"/sys/fs/cgroup/memory.max",
                                        "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++) {
        FILE *file = fopen(paths[i], "re");
        if (file == NULL) continue;
        unsigned long long bytes = 0;
        int read = fscanf(file, "%llu", &bytes);
        fclose(file);
        if (read == 1 && bytes > 0) return bytes;
    }
    return UINT64_MAX;
}

uint64_t machine_memory_bytes(void)
{
    uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return min_u64(bytes, cgroup_memory_max());
}
