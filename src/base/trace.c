#include "base/trace.h"

#include <stdarg.h>
#include <stdio.h>

#define LINE_BYTES_MAX 1024

void trace_line(const struct trace *trace, enum trace_level level, const char *format, ...)
{
    if (!trace_is_on(trace, level)) return;
    char line[LINE_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    trace->function(level, line, trace->context);
}
