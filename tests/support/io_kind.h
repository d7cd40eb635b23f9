/*
 * The implementations of struct io on the kernel, for tests of what they have in common. Each test of
 * such a program is run once with each.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/io.h"

struct io_shape {
    uint32_t connections_max;
    uint32_t buffers_count; /* 0: the default */
    uint32_t buffer_bytes;  /* likewise */
    uint32_t features_off;  /* of io_uring: without these */
    uint32_t features_on;   /* of io_uring: with these, too */
};

struct io_kind {
    const char *name;
    int (*open)(const struct io_shape *shape, struct io **io, char *reason);
    void (*fail_after)(struct io *io, uint64_t countdown, int err);
};

extern const struct io_kind io_kind_uring;
extern const struct io_kind io_kind_epoll;
/* The one under test. */
extern const struct io_kind *io_kind;

/* Opens one of the kind under test; fails the test where it cannot. */
struct io *io_open(const struct io_shape *shape);

/* Whether a runtime that is left the choice uses io_uring here. */
bool io_is_uring(void);

struct CMUnitTest;
/* Runs the tests with each kind that this machine allows, or with epoll alone where FERO_IO says so;
 * returns how many failed. */
int io_kinds_run(const struct CMUnitTest *tests, size_t tests_count);
/* Likewise with one. */
int io_kind_run(const struct io_kind *kind, const struct CMUnitTest *tests, size_t tests_count);
