/*
 * A secret such as a token: up to SECRET_BYTES_MAX bytes in a page of its own, which no core dump
 * has, and which is wiped before it is given back.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"

#define SECRET_BYTES_MAX 256

struct secret {
    uint32_t bytes;
    uint8_t data[SECRET_BYTES_MAX];
};

enum secret_fault {
    SECRET_NO_FAULT,
    SECRET_NO_MEMORY,
    SECRET_NOT_READABLE, /* `err` says why */
    SECRET_NO_FILE,      /* a folder, a device */
    SECRET_OPEN_TO_OTHERS,
    SECRET_EMPTY,
    SECRET_TOO_LONG
};

/*
 * Reads the file at `path`, without one newline at its end, into a secret to be given back with
 * secret_put. Files that others than their owner may read or write are refused. What is wrong is
 * returned, and `*err` is a negative errno where it is SECRET_NOT_READABLE.
 */
MUST_CHECK enum secret_fault secret_read(const char *path, struct secret **out, int *err);
/* Wipes it. NULL is allowed. */
void secret_put(struct secret *secret);

/*
 * Whether `given` is the secret. Takes the same work whatever is given, so that the time it takes
 * tells nothing about how much of it was right, nor about the secret's length.
 */
bool secret_equals(const struct secret *secret, struct bytes given);

/* Writes zeros that the compiler does not leave out. */
void secret_wipe(void *data, size_t bytes);
