/*
 * The insides of net/epoll.c, shared by the files that it is made of:
 *
 *   epoll_connection   from the first wish to IO_CLOSED: connecting, bytes in, bytes out
 *   epoll_listener     accepting
 *   epoll_udp          datagrams
 *   epoll              opening, waiting, waking, and the table of functions
 *
 * and of what it has in common with io_uring: connections, held, socket, bell.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/attr.h"
#include "net/bell.h"
#include "net/connections.h"
#include "net/epoll.h"
#include "net/io.h"
#include "net/socket.h"

#define EPOLL_EVENTS_MAX 256
#define EPOLL_WAKES_MAX 64
#define EPOLL_DATAGRAMS_COUNT 16 /* buffers of coalesced datagrams */

/* What a set's event names: a connection by its handle, or one of these. */
#define EPOLL_LISTENER ((uint64_t)1 << 32)
#define EPOLL_EVENT_FD ((uint64_t)2 << 32)

/* Memory for what one turn receives: filled from its start on, and empty in the next turn. */
struct epoll_arena {
    uint8_t *memory;
    size_t bytes;
    size_t used;
    size_t data_bytes; /* of one receive at most */
};

struct epoll_listener {
    int fd; /* -1: not listening */
    void *context;
    uint64_t resume_at_ns; /* 0: not paused for want of descriptors */
    bool is_readable;      /* connections may wait in the kernel; else it will tell */
};

struct datagrams;

struct epoll_udp {
    struct datagrams *buffers; /* NULL: no socket was opened yet */
    uint32_t next;             /* the buffer to receive into */
    uint32_t room;             /* buffers that this turn may still use */
    /* A buffer of coalesced datagrams of which some are not delivered yet. */
    uint32_t split_conn; /* IO_NONE: none */
    uint32_t split_buffer;
    uint8_t *split_at;
    size_t split_bytes;
    size_t split_segment_bytes;
};

struct epoll {
    struct io io; /* first */
    int fd;
    struct connections table;
    struct epoll_arena arena;
    struct epoll_listener listener;
    struct epoll_udp udp;
    /* What the kernel told and is not looked at yet. */
    struct epoll_event ready[EPOLL_EVENTS_MAX];
    unsigned ready_count;
    bool lacks_ns; /* the kernel waits in milliseconds only */
    /* Waking others, and being woken. */
    int event_fd; /* written by any thread, so it never changes */
    bool woken;   /* one IO_WOKEN is due */
    unsigned wakes_count;
    struct epoll *wakes[EPOLL_WAKES_MAX]; /* whom our next io_wait wakes */
    struct bell bell;                     /* for an owner that polls */
    const struct trace *trace;
    /* Tests: the system call that fails, and how. */
    uint64_t fail_countdown;
    int fail_err;
};

static inline struct epoll *epoll_of(struct io *io)
{
    return (struct epoll *)(void *)io;
}

/* Before every system call: 0, or the error that a test wants it to have. */
static inline int epoll_call(struct epoll *epoll)
{
    epoll->io.counters.enters++;
    if (LIKELY(epoll->fail_countdown == 0) || --epoll->fail_countdown > 0) return 0;
    return epoll->fail_err;
}

/* Puts a descriptor into the set: the kernel tells each change of `what` (edges). -errno. */
MUST_CHECK int epoll_watch(struct epoll *epoll, int fd, uint32_t what, uint64_t data);
/* Takes it out again. -errno. */
MUST_CHECK int epoll_forget(struct epoll *epoll, int fd);

/* epoll_connection.c */

/* The kernel told something about it. */
void epoll_connection_told(struct epoll *epoll, uint32_t handle, uint32_t what);
/* Turns wishes into calls and events; returns false if some are left for the next turn. */
bool epoll_connection_service(struct epoll *epoll, struct connection *connection,
                              struct events *events);

/* epoll_listener.c */

int epoll_listen(struct epoll *epoll, const struct address *address, void *context);
int epoll_listen_address(struct epoll *epoll, struct address *address);
void epoll_stop_listening(struct epoll *epoll);
/* Whether a connection may be accepted now. */
bool epoll_listener_is_due(const struct epoll *epoll);
/* How long io_wait may wait at most, as accepting may have to be tried again. */
uint64_t epoll_listener_wait_ns(struct epoll *epoll, uint64_t wait_ns);
void epoll_accept(struct epoll *epoll, struct events *events);

/* epoll_udp.c */

int64_t epoll_udp_open(struct epoll *epoll, const struct address *address, void *context);
int epoll_udp_send(struct epoll *epoll, struct connection *connection,
                   const struct io_datagram *datagrams, unsigned count);
/* Receives; returns false if there may be more. */
bool epoll_udp_service(struct epoll *epoll, struct connection *connection, struct events *events);
/* A turn begins: the buffers are the kernel's again, but one that is split. */
void epoll_udp_turn(struct epoll *epoll);
/* Delivers the rest of a buffer of coalesced datagrams, as far as there is room. */
void epoll_udp_split(struct epoll *epoll, struct events *events);
void epoll_udp_close(struct epoll *epoll);
