/*
 * The limit's sockets: pairs over TCP on loopback, connected before anything is measured.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/attr.h"

/* What both threads of a run share; neither writes it while they run. */
struct limit_wiring {
    int *server_fds;
    int *client_fds;
    uint32_t count;
};

/* A received frame that is not whole yet. */
struct limit_spill {
    uint8_t *data;
    size_t bytes;
};

/* Connects `count` pairs of sockets. */
MUST_CHECK int limit_wiring_init(struct limit_wiring *wiring, uint32_t count,
                                 uint32_t socket_bytes);
void limit_wiring_deinit(struct limit_wiring *wiring);
/* Wakes the other side out of whatever it waits for. */
void limit_hang_up(const int *fds, uint32_t count);
/* An epoll descriptor that reports the index of each socket that has input. */
MUST_CHECK int limit_poller_open(const int *fds, uint32_t count);

/* Bytes, or a negative errno; the end of the stream is -EPIPE. */
MUST_CHECK ssize_t limit_receive(int fd, uint8_t *to, size_t bytes, int flags);
MUST_CHECK ssize_t limit_send(int fd, const uint8_t *from, size_t bytes, int flags);
/* The errno of a call that is to be made again. */
bool limit_is_later(int err);
