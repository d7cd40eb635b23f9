/*
 * A run: up to RUN_MAX requests that are decoded, hashed, prefetched and applied together. See
 * run.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define RUN_MAX 32

/* Takes requests of a struct caller from `data`; see link_consume_fn. */
int64_t run_from_caller(void *caller, uint8_t *data, size_t size);
