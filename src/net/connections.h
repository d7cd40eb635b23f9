/*
 * The table of connections, which every implementation on the kernel's sockets has: who is in it,
 * what its owner wishes, and which are to be serviced.
 *
 * Functions of the io called on a connection only write down what is wanted and mark it. io_wait
 * services each marked one, once, which turns wishes into calls and events. So a pause and a resume
 * in the same turn cost nothing.
 *
 * A slot whose IO_CLOSED is out keeps its generation until the next io_wait, so that handles in the
 * batch of events before it stay good.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/attr.h"
#include "net/address.h"
#include "net/held.h"
#include "net/io.h"

/* A handle is generation << CONNECTION_INDEX_BITS | index. */
#define CONNECTION_INDEX_BITS 20
#define CONNECTION_INDEX_MASK ((1u << CONNECTION_INDEX_BITS) - 1)
#define CONNECTION_GENERATION_MAX (UINT32_MAX >> CONNECTION_INDEX_BITS)
/* The last index is left out, so that no handle is IO_NONE. */
#define CONNECTIONS_MAX (CONNECTION_INDEX_MASK - 16)

#define UDP_SOCKETS_MAX 8

/* No connection, no buffer: the end of a list. */
#define LIST_END UINT32_MAX
#define NO_BUFFER UINT32_MAX

enum connection_state {
    CONNECTION_FREE,
    CONNECTION_CONNECTING,
    CONNECTION_UP,
    CONNECTION_ENDING,   /* waits until the kernel lets go of everything, then IO_CLOSED */
    CONNECTION_DETACHED, /* its descriptor is somebody else's */
    CONNECTION_GONE      /* IO_CLOSED is out; free after the next io_wait began */
};

/* One send: what of it the kernel has not taken yet. */
struct send {
    struct iovec parts[IO_SEND_PARTS_MAX];
    unsigned parts_count;
    unsigned part; /* the first one with bytes left */
    /* io_uring */
    int32_t zc_result; /* of a zero-copy send, kept until the kernel lets go of the bytes */
    bool zc_waits;     /* it has its result, and the bytes are still the kernel's */
    struct msghdr message;
};

struct connection {
    void *context;
    int fd;
    uint32_t generation;
    uint32_t next;  /* in the one list that it is on: free, marked or gone */
    int32_t result; /* of IO_CLOSED */
    uint32_t turn;  /* of the last IO_RECEIVED: one a turn */
    uint8_t state;  /* enum connection_state */
    bool is_udp;
    bool is_marked;
    bool is_paused;  /* the owner's wish */
    bool is_first;   /* receives once, then pauses by itself */
    bool is_sending; /* the owner waits for IO_SENT */
    bool has_eof;    /* nothing comes after what is held and stashed */
    bool told_eof;   /* IO_EOF is out */
    /* io_uring */
    bool is_receiving;      /* a receive is in flight */
    bool send_in_flight;    /* the kernel has the send's request */
    bool is_cancelling;     /* a cancel is in flight */
    bool receive_cancelled; /* when ending: one after the other is cancelled, */
    bool send_cancelled;
    bool was_cancelled;   /* then everything, and then it is shut down */
    uint32_t operations;  /* in flight: the slot lives until there are none */
    uint32_t stash_first; /* received buffers that wait for the next turn */
    uint32_t stash_last;
    /* epoll */
    bool is_watched;  /* it is in the set, and every change of it will be told */
    bool is_readable; /* a receive may find something; else the kernel will tell */
    bool is_writable; /* likewise a send */
    bool is_hung_up;  /* the peer has ended: receive until that is read */
    struct held held;
    struct send send;
    struct address peer;
};

struct connections {
    struct io_counters *counters;
    struct connection *list;
    size_t bytes;
    uint32_t count; /* slots */
    uint32_t used;  /* slots that were ever used */
    uint32_t tcp_max;
    uint32_t tcp_count;
    uint32_t udp_count;
    uint32_t free; /* lists */
    uint32_t gone;
    uint32_t marked;
    uint32_t marked_last;
    uint32_t turn;
    struct held_blocks blocks;
};

/* The events that an io_wait collects. */
struct events {
    struct io_event *list;
    unsigned count;
    unsigned max;
};

static inline bool events_are_full(const struct events *events)
{
    return events->count == events->max;
}

static inline struct io_event *events_add(struct events *events, enum io_event_type type)
{
    struct io_event *event = &events->list[events->count++];
    *event = (struct io_event){.type = type, .conn = IO_NONE};
    return event;
}

/* Room for `tcp_max` connections and the UDP sockets. -ENOMEM. */
MUST_CHECK int connections_open(struct connections *table, uint32_t tcp_max,
                                struct io_counters *counters);
/* Closes every descriptor and frees the table. */
void connections_close(struct connections *table);
/* A turn begins: frees what the events of the turn before kept alive. */
void connections_reap(struct connections *table);

static inline uint32_t connection_index(const struct connections *table,
                                        const struct connection *connection)
{
    return (uint32_t)(connection - table->list);
}

static inline uint32_t connection_handle(const struct connections *table,
                                         const struct connection *connection)
{
    return connection->generation << CONNECTION_INDEX_BITS | connection_index(table, connection);
}

/* The connection that a handle names. A handle that is out of date is its owner's mistake. */
struct connection *connection_of(struct connections *table, uint32_t handle);
/* A slot for `fd`, up; NULL when all are in use. */
struct connection *connection_take(struct connections *table, int fd, bool is_udp, void *context);
/* io_wait will service it. */
void connection_mark(struct connections *table, struct connection *connection);
/* It was serviced and is no longer anybody's: free after the next io_wait began. */
void connection_gone(struct connections *table, struct connection *connection);
/* Begins to end it; IO_CLOSED will carry `result`. Does nothing if it ends already. */
void connection_end(struct connections *table, struct connection *connection, int32_t result);
/* An event of this connection; there must be room for it. */
struct io_event *connection_event(struct connections *table, struct connection *connection,
                                  struct events *events, enum io_event_type type);

/* Delivers bytes that were received; there must be room for the event. */
void connection_deliver(struct connections *table, struct connection *connection,
                        struct events *events, uint8_t *data, size_t size);
/* Delivers up to `bytes_max` of what is held, or ends the connection for want of memory. */
void connection_deliver_held(struct connections *table, struct connection *connection,
                             struct events *events, size_t bytes_max);

/* What the owner asks of a connection, and is the same with every implementation. */
void connection_set_send(struct connections *table, uint32_t conn, const struct iovec *parts,
                         unsigned parts_count);
void connection_finish(struct connections *table, uint32_t conn);

/* Notes that the kernel took `taken` bytes of it. */
void send_advance(struct send *send, size_t taken);
bool send_is_over(const struct send *send);
