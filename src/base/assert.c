#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

/* The one mutable static of the library: it is per thread and only printed. */
static _Thread_local const char *assert_context;

void assert_context_set(const char *context)
{
    assert_context = context;
}

void assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "fero: assertion failed: %s at %s:%d%s%s. This is a bug in fero.\n", condition,
            file, line, assert_context ? ", " : "", assert_context ? assert_context : "");
    fflush(stderr);
    abort();
}
