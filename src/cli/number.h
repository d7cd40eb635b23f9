/*
 * Numbers as people write them: 64k, 1.5M, 2GiB, Infinity, off.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Both return 0, -EINVAL where the text is no number, -ERANGE where it does not fit. */
int number_parse(const char *text, int64_t *number);
/* Units are powers of 1024. `*has_unit` tells 64 from 64B. */
int size_parse(const char *text, int64_t *bytes, bool *has_unit);

#define SIZE_TEXT_BYTES 32
/* "12.5 GiB", "64 KiB", "100 bytes". Returns `text`. */
const char *size_format(uint64_t bytes, char text[SIZE_TEXT_BYTES]);
