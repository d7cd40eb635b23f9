#include "cli/trace.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "cli/nearest.h"

const char *const trace_level_names[] = {"error", "warn", "info", "debug", NULL};

/* Whether a list such as "http,fero:link" asks for a scope of ours; NULL: for any. */
static bool debug_asks_for(const char *scope, size_t scope_bytes)
{
    const char *at = getenv("DEBUG");
    while (at != NULL && *at != 0) {
        size_t bytes = strcspn(at, ", ");
        bool is_all = (bytes == 1 && at[0] == '*') || (bytes == 4 && strncmp(at, "fero", 4) == 0) ||
                      (bytes == 6 && strncmp(at, "fero:*", 6) == 0);
        bool is_ours = bytes > 5 && strncmp(at, "fero:", 5) == 0;
        if (is_all || (is_ours && scope == NULL)) return true;
        if (is_ours && bytes - 5 == scope_bytes && strncmp(at + 5, scope, scope_bytes) == 0)
            return true;
        at += bytes;
        at += strspn(at, ", ");
    }
    return false;
}

static int level_of(const struct command *command, const char *text, int32_t *level)
{
    struct nearest nearest = {.wanted = text};
    for (int32_t i = 0; trace_level_names[i] != NULL; i++) {
        nearest_offer(&nearest, trace_level_names[i]);
        if (strcasecmp(text, trace_level_names[i]) != 0) continue;
        *level = i;
        return COMMAND_GO_ON;
    }
    complain(command, "FERO_LOG cannot be \"%s\"; did you mean %s? (error, warn, info, debug)",
             text, nearest.best);
    return STATUS_USAGE;
}

int trace_settle(const struct command *command, int32_t given, int32_t fallback, int32_t *level)
{
    const char *text = getenv("FERO_LOG");
    *level = given;
    if (given != TRACE_NOT_GIVEN) return COMMAND_GO_ON;
    if (text != NULL && text[0] != 0) return level_of(command, text, level);
    *level = debug_asks_for(NULL, 0) ? FERO_LOG_DEBUG : fallback;
    return COMMAND_GO_ON;
}

/* Where DEBUG names scopes, lines of debugging that belong to others are left out. */
static bool is_wanted(int32_t level, const char *line)
{
    if (level < FERO_LOG_DEBUG || !debug_asks_for(NULL, 0)) return true;
    return debug_asks_for(line, strcspn(line, ":"));
}

/* One write a line: lines of several threads do not mix. */
void trace_print(int32_t level, const char *line, void *ud)
{
    char when[40];
    struct timespec now;
    struct tm utc;
    (void)ud;
    if (!is_wanted(level, line)) return;
    clock_gettime(CLOCK_REALTIME, &now);
    if (gmtime_r(&now.tv_sec, &utc) == NULL ||
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc) == 0)
        when[0] = 0;
    const char *name = level >= 0 && level <= FERO_LOG_DEBUG ? trace_level_names[level] : "trace";
    fprintf(stderr, "%s.%03ldZ %s fero:%s\n", when, now.tv_nsec / 1000000, name, line);
}
