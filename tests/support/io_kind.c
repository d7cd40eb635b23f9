#include "tests/support/io_kind.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/choice.h"
#include "net/epoll.h"
#include "net/uring.h"

const struct io_kind *io_kind = &io_kind_uring;

static int open_uring(const struct io_shape *shape, struct io **io, char *reason)
{
    const struct uring_options options = {
        .features = (URING_FEATURES_DEFAULT | shape->features_on) & ~shape->features_off,
        .connections_max = shape->connections_max,
        .buffers_count = shape->buffers_count,
        .buffer_bytes = shape->buffer_bytes};
    return uring_open(&options, io, reason);
}

static int open_epoll(const struct io_shape *shape, struct io **io, char *reason)
{
    const struct epoll_options options = {.connections_max = shape->connections_max,
                                          .buffers_count = shape->buffers_count,
                                          .buffer_bytes = shape->buffer_bytes};
    int err = epoll_open(&options, io);
    snprintf(reason, URING_REASON_BYTES, "%s", err < 0 ? strerror(-err) : "");
    return err;
}

const struct io_kind io_kind_uring = {"io_uring", open_uring, uring_fail_after};
const struct io_kind io_kind_epoll = {"epoll", open_epoll, epoll_fail_after};

struct io *io_open(const struct io_shape *shape)
{
    struct io *io = NULL;
    char reason[URING_REASON_BYTES];
    int err = io_kind->open(shape, &io, reason);
    if (err < 0) print_message("%s\n", reason);
    assert_int_equal(err, 0);
    return io;
}

/* Whether this machine allows it; `reason` says why not. */
static bool is_allowed(const struct io_kind *kind, char *reason)
{
    const struct io_shape shape = {.connections_max = 1};
    struct io *io;
    int err = kind->open(&shape, &io, reason);
    if (err == 0) io_destroy(io);
    return err != -EPERM && err != -ENOSYS && err != -EACCES;
}

bool io_is_uring(void)
{
    char reason[URING_REASON_BYTES];
    const char *asked = getenv(CHOICE_VARIABLE);
    return (asked == NULL || strcmp(asked, "epoll") != 0) && is_allowed(&io_kind_uring, reason);
}

int io_kind_run(const struct io_kind *kind, const struct CMUnitTest *tests, size_t tests_count)
{
    char reason[URING_REASON_BYTES];
    io_kind = kind;
    if (is_allowed(kind, reason))
        return _cmocka_run_group_tests(kind->name, tests, tests_count, NULL, NULL);
    printf("ok %s # SKIP %s\n", kind->name, reason);
    return 0;
}

int io_kinds_run(const struct CMUnitTest *tests, size_t tests_count)
{
    const char *asked = getenv(CHOICE_VARIABLE);
    if (asked != NULL && strcmp(asked, "epoll") == 0)
        return io_kind_run(&io_kind_epoll, tests, tests_count);
    int failed = io_kind_run(&io_kind_uring, tests, tests_count);
    return failed + io_kind_run(&io_kind_epoll, tests, tests_count);
}
