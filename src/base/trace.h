/*
 * Diagnostics. The library prints nothing on its own: the program gives it a function. One line a
 * call, no newline at its end; every line about a failure says what to do next.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/attr.h"

enum trace_level { TRACE_ERROR, TRACE_WARN, TRACE_INFO, TRACE_DEBUG };

typedef void (*trace_fn)(enum trace_level level, const char *line, void *context);

struct trace {
    trace_fn function; /* NULL: silence */
    void *context;
    enum trace_level level; /* lines above it are not made */
};

/* Whether a line would be made: for those that cost something to prepare. */
static inline bool trace_is_on(const struct trace *trace, enum trace_level level)
{
    return trace != NULL && trace->function != NULL && level <= trace->level;
}

/*
 * `trace` may be NULL. Called from several threads at once; the function must allow it. A line begins
 * with what it is about and a colon: node, link, memory, net, client.
 */
void trace_line(const struct trace *trace, enum trace_level level, const char *format, ...)
    PRINTF_LIKE(3, 4);
