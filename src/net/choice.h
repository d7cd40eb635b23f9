/*
 * Which implementation of struct io serves: io_uring where it may be used, else epoll, or the one
 * that was asked for.
 */
#pragma once

#include <stdint.h>

#include "base/attr.h"
#include "base/trace.h"
#include "net/io.h"
#include "net/uring.h"

enum choice { CHOICE_AUTO, CHOICE_URING, CHOICE_EPOLL };

/* Room for the line that says why. */
#define CHOICE_WHY_BYTES (URING_REASON_BYTES + 64)
/* What CHOICE_AUTO means, where it is set: "uring", "epoll" or "auto". */
#define CHOICE_VARIABLE "FERO_IO"

struct choice_options {
    enum choice choice;
    uint32_t features; /* of io_uring */
    uint32_t connections_max;
    const struct trace *trace; /* NULL: silent */
};

/* What was chosen. */
struct chosen {
    const char *name;           /* "io_uring" or "epoll" */
    char why[CHOICE_WHY_BYTES]; /* such as "io_uring is refused: ..."; one line */
};

/*
 * Opens an io for the calling thread. Returns 0, or -errno with one line in `chosen->why` that says
 * what refused it and what to type.
 */
MUST_CHECK int choice_open(const struct choice_options *options, struct io **io,
                           struct chosen *chosen);
