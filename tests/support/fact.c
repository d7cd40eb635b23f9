#include "tests/support/fact.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned failed;

void fact(bool holds, const char *name, const char *details, ...)
{
    printf("%s %s", holds ? "ok" : "not ok", name);
    if (!holds) {
        va_list arguments;
        va_start(arguments, details);
        printf(": ");
        vprintf(details, arguments);
        va_end(arguments);
        failed++;
    }
    printf("\n");
    fflush(stdout);
}

unsigned facts_failed(void)
{
    return failed;
}

uint64_t fact_limit_ms(uint64_t ms)
{
    const char *scale = getenv("TEST_SCALE");
    uint64_t factor = scale != NULL ? strtoull(scale, NULL, 10) : 1;
    return ms * FACT_TIME_FACTOR * (factor > 0 ? factor : 1);
}

int64_t process_memory_kib(pid_t pid)
{
    char path[64];
    char line[256];
    long long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) return -1;
    while (kib < 0 && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "VmRSS:", 6) == 0) kib = strtoll(line + 6, NULL, 10);
    fclose(file);
    return kib;
}

int process_descriptors(pid_t pid)
{
    char path[64];
    int count = -2; /* "." and ".." */
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *folder = opendir(path);
    if (folder == NULL) return -1;
    while (readdir(folder) != NULL) count++;
    closedir(folder);
    return count;
}
