/*
 * A key as a path: "28.email" is the field "email" of the partition "28". '.' separates; "\." is a
 * dot inside of a part, "\\" a backslash, and any other backslash stands for itself. The partition
 * is what stands in front of the first separator, as it is written.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"

/* Parts behind the partition, at most; the partition makes it one level more. */
#define PATH_PARTS_MAX 31

struct path_part {
    const uint8_t *name; /* without escapes; in the key, or in `scratch` of path_read */
    uint16_t bytes;
    uint16_t end; /* where the part ends in the key */
};

struct path {
    struct bytes key;
    uint32_t partition_bytes;
    uint32_t count;
    struct path_part parts[PATH_PARTS_MAX];
};

enum path_result { PATH_OK, PATH_EMPTY_PART, PATH_TOO_DEEP, PATH_NOT_UTF8 };

/* Bytes of the partition that the key names; all of them where the key is no deeper. */
size_t path_partition_bytes(const void *key, size_t bytes);

/* Reads a key of up to 65,535 bytes. `scratch` has as many bytes as the key. */
MUST_CHECK enum path_result path_read(struct path *path, const void *key, size_t bytes,
                                      uint8_t *scratch);

/* What path_read would say of a key of any size, without reading it. */
MUST_CHECK enum path_result path_check(const void *key, size_t bytes);

/* Writes `name` as a part of a key, escaped; at most 2 * bytes. Returns what was written. */
size_t path_escape(uint8_t *to, const void *name, size_t bytes);

/* The number that a part is as an index of an array: digits, no zeros in front. False: none. */
bool path_index(const struct path_part *part, uint32_t *index);
