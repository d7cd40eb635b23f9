/*
 * The insides of net/uring.c, shared by the files that it is made of:
 *
 *   queue         requests, completions, the system call
 *   buffers       receive buffers that the kernel picks from
 *   connection    the life of a connection: from the first wish to the last completion
 *   receive       bytes in: delivered, stashed or held
 *   send          bytes out
 *   listener      accepting
 *   udp           datagrams
 *   uring         opening, waiting, waking, and the table of functions
 *
 * and of what it has in common with epoll: connections, held, socket, bell. Nothing but io_wait talks
 * to the kernel about a connection, so a full queue has one place to be handled in.
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
#include "net/connections.h"
#include "net/io.h"
#include "net/queue.h"
#include "net/socket.h"
#include "net/uring.h"

#define UDP_SENDS_COUNT 16
#define WAKES_MAX 64

#define GROUP_TCP 0
#define GROUP_UDP 1

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
    struct connections table;
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

static inline struct uring *uring_of(struct io *io)
{
    return (struct uring *)(void *)io;
}

static inline uint64_t connection_user_data(const struct uring *uring,
                                            const struct connection *connection,
                                            enum operation operation)
{
    return user_data_of(operation, connection->generation,
                        connection_index(&uring->table, connection));
}

/* connection.c */

/* How many TCP connections there is room for. */
uint32_t connections_free_count(const struct uring *uring);
/* Turns wishes into requests and events; returns false if some are left for the next turn. */
bool connection_service(struct uring *uring, struct connection *connection, struct events *events);
void connection_on_completion(struct uring *uring, const struct completion *completion,
                              struct events *events);
/* One operation of the connection is over. */
void connection_operation_done(struct uring *uring, struct connection *connection);
/* Makes a request of this connection and counts it as in flight. */
void connection_start(struct uring *uring, struct connection *connection,
                      struct io_uring_sqe *request, enum operation operation);

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
