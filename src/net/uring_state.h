/*
 * The insides of net/uring.c, shared by the files that it is made of:
 *
 *   queue         requests, completions, the system call
 *   buffers       receive buffers that the kernel picks from
 *   held          bytes that wait for a paused connection
 *   connection    the table of connections: from the first wish to the last completion
 *   receive       bytes in: delivered, stashed or held
 *   send          bytes out
 *   listener      accepting
 *   udp           datagrams
 *   bell          a descriptor for an owner that polls
 *   uring         opening, waiting, waking, and the table of functions
 *
 * Nothing but io_wait talks to the kernel about a connection: the other functions write down what is
 * wanted and mark the connection. io_wait services each marked one, once, which turns wishes into
 * requests and into the events that need no kernel. So a full queue has one place to be handled in,
 * and a pause and a resume in the same turn cost nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/attr.h"
#include "net/address.h"
#include "net/bell.h"
#include "net/buffers.h"
#include "net/held.h"
#include "net/io.h"
#include "net/queue.h"
#include "net/uring.h"

/* A handle is generation << CONNECTION_INDEX_BITS | index. */
#define CONNECTION_INDEX_BITS 20
#define CONNECTION_INDEX_MASK ((1u << CONNECTION_INDEX_BITS) - 1)
#define CONNECTION_GENERATION_MAX (UINT32_MAX >> CONNECTION_INDEX_BITS)
/* The last index is left out, so that no handle is IO_NONE. */
#define CONNECTIONS_MAX (CONNECTION_INDEX_MASK - 16)

#define UDP_SOCKETS_MAX 8
#define UDP_SENDS_COUNT 16
#define WAKES_MAX 64

#define GROUP_TCP 0
#define GROUP_UDP 1

/* No connection, no buffer: the end of a list. */
#define LIST_END UINT32_MAX
#define NO_BUFFER UINT32_MAX

enum connection_state {
    CONNECTION_FREE,
    CONNECTION_CONNECTING,
    CONNECTION_UP,
    CONNECTION_ENDING,   /* waits for its last completion, then IO_CLOSED */
    CONNECTION_DETACHED, /* its descriptor is somebody else's */
    CONNECTION_GONE      /* IO_CLOSED is out; free after the next io_wait began */
};

/* One send: what of it the kernel has not taken yet. */
struct send {
    struct iovec parts[IO_SEND_PARTS_MAX];
    unsigned parts_count;
    unsigned part;     /* the first one with bytes left */
    int32_t zc_result; /* of a zero-copy send, kept until the kernel lets go of the bytes */
    bool zc_waits;     /* it has its result, and the bytes are still the kernel's */
    struct msghdr message;
};

struct connection {
    void *context;
    int fd;
    uint32_t generation;
    uint32_t next;       /* in the one list that it is on: free, marked or gone */
    uint32_t operations; /* in flight: the slot lives until there are none */
    int32_t result;      /* of IO_CLOSED */
    uint8_t state;       /* enum connection_state */
    bool is_udp;
    bool is_marked;
    bool is_paused;       /* the owner's wish */
    bool is_first;        /* receives once, then pauses by itself */
    bool is_receiving;    /* a receive is in flight */
    bool is_sending;      /* the owner waits for IO_SENT */
    bool send_in_flight;  /* the kernel has the send's request */
    bool is_cancelling;   /* a cancel is in flight */
    bool was_cancelled;   /* when ending: cancelled once, then shut down */
    bool has_eof;         /* nothing comes after what is held and stashed */
    bool told_eof;        /* IO_EOF is out */
    bool has_sent;        /* IO_SENT is to be delivered */
    uint32_t turn;        /* of the last IO_RECEIVED: one a turn, see connection.c */
    uint32_t stash_first; /* received buffers that wait for the next turn */
    uint32_t stash_last;
    struct held held;
    struct send send;
    struct address peer;
};

/* A received buffer: the next one in its connection's stash. */
struct stashed {
    uint32_t next;
    uint32_t size;
};

struct listener {
    int fd; /* -1: not listening */
    void *context;
    uint64_t resume_at_ns; /* 0: not paused for want of descriptors */
    bool is_armed;
    bool is_multishot;
    bool is_cancelling;
    bool is_stopping;
};

struct udp_send;

struct udp {
    struct buffers buffers;
    struct msghdr receive; /* the layout of a received buffer */
    struct udp_send *sends;
    uint32_t sends_free;   /* list */
    uint32_t sends_queued; /* list: to be submitted */
    uint32_t sends_queued_last;
    /* A buffer of coalesced datagrams of which some are not delivered yet. */
    uint32_t split_conn; /* IO_NONE: none */
    uint16_t split_buffer;
    uint8_t *split_at;
    size_t split_bytes;
    size_t split_segment_bytes;
    struct address *split_from;
};

struct uring {
    struct io io; /* first */
    struct queue queue;
    struct buffers buffers;
    struct stashed *stashed; /* of each of the buffers */
    struct connection *connections;
    size_t connections_bytes;
    uint32_t connections_count; /* slots */
    uint32_t connections_used;  /* slots that were ever used */
    uint32_t tcp_max;
    uint32_t tcp_count;
    uint32_t udp_count;
    uint32_t free; /* lists of connections */
    uint32_t gone;
    uint32_t marked;
    uint32_t marked_last;
    uint32_t turn;
    struct held_block *retired;
    bool sends_now; /* in this turn: see send.c */
    struct listener listener;
    struct udp udp;
    /* Waking others, and being woken. */
    int event_fd; /* written by any thread, so it never changes */
    bool event_armed;
    bool woken; /* one IO_WOKEN is due */
    unsigned wakes_count;
    struct uring *wakes[WAKES_MAX]; /* whom our next io_wait wakes */
    struct bell bell; /* for an owner that polls: rung by the kernel with each completion */
    const struct trace *trace;
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

static inline struct uring *uring_of(struct io *io)
{
    return (struct uring *)(void *)io;
}

static inline uint32_t connection_index(const struct uring *uring,
                                        const struct connection *connection)
{
    return (uint32_t)(connection - uring->connections);
}

static inline uint32_t connection_handle(const struct uring *uring,
                                         const struct connection *connection)
{
    return connection->generation << CONNECTION_INDEX_BITS | connection_index(uring, connection);
}

static inline uint64_t connection_user_data(const struct uring *uring,
                                            const struct connection *connection,
                                            enum operation operation)
{
    return user_data_of(operation, connection->generation, connection_index(uring, connection));
}

/* connection.c */

/* The connection that a handle names. A handle that is out of date is its owner's mistake. */
struct connection *connection_of(struct uring *uring, uint32_t handle);
/* A slot for `fd`, up and paused; NULL when connections_max are in use. */
struct connection *connection_take(struct uring *uring, int fd, bool is_udp, void *context);
/* How many TCP connections there is room for. */
uint32_t connections_free_count(const struct uring *uring);
/* io_wait will service it. */
void connection_mark(struct uring *uring, struct connection *connection);
/* Turns wishes into requests and events; returns false if some are left for the next turn. */
bool connection_service(struct uring *uring, struct connection *connection, struct events *events);
/* Frees what the events of the turn before kept alive. */
void connections_reap(struct uring *uring);
/* Begins to end it; IO_CLOSED will carry `result`. Does nothing if it ends already. */
void connection_end(struct uring *uring, struct connection *connection, int32_t result);
void connection_on_completion(struct uring *uring, const struct completion *completion,
                              struct events *events);
/* One operation of the connection is over. */
void connection_operation_done(struct uring *uring, struct connection *connection);
/* Makes a request of this connection and counts it as in flight. */
void connection_start(struct uring *uring, struct connection *connection,
                      struct io_uring_sqe *request, enum operation operation);

/* An event of this connection; there must be room for it. */
struct io_event *connection_event(struct uring *uring, struct connection *connection,
                                  struct events *events, enum io_event_type type);

/* receive.c */

/* Whether bytes that were received, or put back, are not delivered yet. */
bool receive_is_waiting(const struct connection *connection);
/* Delivers the next piece of them; false if the connection is to be serviced again. */
bool receive_deliver(struct uring *uring, struct connection *connection, struct events *events);
/* Arms or cancels the receive, as the owner wishes; false if the queue is full. */
bool receive_service(struct uring *uring, struct connection *connection);
void receive_on_completion(struct uring *uring, struct connection *connection,
                           const struct completion *completion, struct events *events);
/* Stops receiving and puts `rest` back. */
void receive_pause(struct uring *uring, struct connection *connection, const void *rest,
                   size_t rest_bytes);
/* Drops what waits. */
void receive_drop(struct uring *uring, struct connection *connection);

/* send.c */

/* Submits the send that is wanted; false if the queue is full. */
bool send_service(struct uring *uring, struct connection *connection, struct events *events);
void send_on_completion(struct uring *uring, struct connection *connection,
                        const struct completion *completion, struct events *events);

/* listener.c */

int listener_listen(struct uring *uring, const struct address *address, void *context);
int listener_address(struct uring *uring, struct address *address);
void listener_stop(struct uring *uring);
/* Whether an accept is to be armed. */
bool listener_is_due(const struct uring *uring);
/* Arms, pauses or resumes accepting; returns how long io_wait may wait at most. */
uint64_t listener_service(struct uring *uring, uint64_t wait_ns);
void listener_on_completion(struct uring *uring, const struct completion *completion,
                            struct events *events);

/* udp.c */

int64_t udp_open(struct uring *uring, const struct address *address, void *context);
int udp_send(struct uring *uring, struct connection *connection,
             const struct io_datagram *datagrams, unsigned count);
/* Arms the receive of a UDP socket; false if the queue is full. */
bool udp_service(struct uring *uring, struct connection *connection);
/* Submits the queued sends; false if some are left. */
bool udp_sends_service(struct uring *uring);
void udp_on_receive(struct uring *uring, const struct completion *completion,
                    struct events *events);
void udp_on_send(struct uring *uring, const struct completion *completion);
/* Delivers the rest of a buffer of coalesced datagrams, as far as there is room. */
void udp_split(struct uring *uring, struct events *events);
void udp_close(struct uring *uring);

/* The address that a socket is bound to. */
int socket_address(int fd, struct address *address);
/*
 * What TCP sockets of ours have in common, and what those that a listener accepts inherit: no delay,
 * and an end for a connection whose peer has vanished without a word.
 */
MUST_CHECK int socket_configure(int fd);
