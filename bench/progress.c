#include "bench/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define CLEAR_LINE "\r\033[K"

bool progress_is_shown(void)
{
    return isatty(STDERR_FILENO) != 0;
}

void progress_say(const char *format, ...)
{
    va_list arguments;
    if (!progress_is_shown()) return;
    fputs(CLEAR_LINE, stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fflush(stderr);
}

void progress_clear(void)
{
    if (progress_is_shown()) fputs(CLEAR_LINE, stderr);
}
