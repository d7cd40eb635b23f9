/*
 * XXH3 over long runs of bytes, in the widest variant that the processor has. All variants agree.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef uint64_t (*checksum_fn)(const void *data, size_t bytes);

/* The variant for this processor. */
checksum_fn checksum_choose(void);

uint64_t checksum_bytes(const void *data, size_t bytes);
uint64_t checksum_bytes_v3(const void *data, size_t bytes);
