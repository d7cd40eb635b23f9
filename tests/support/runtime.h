/*
 * Servers inside of a test's own process, as a program has them through fero.h.
 */
#pragma once

#include "fero.h"

/* A small one that sleeps when it has nothing to do; `shards` may be FERO_INLINE. */
fero_runtime_opts runtime_options(int shards);
/* Starts it. Skips the test where the kernel refuses, fails it for any other reason. */
fero *runtime_start(const fero_runtime_opts *opts);
fero_cache *runtime_open(fero *rt, const char *name, const fero_opts *opts);
/* A string, borrowed. */
fero_val runtime_string(const char *text);
