/*
 * The life of a connection on io_uring.
 *
 * A slot lives until the last completion of every operation on it has come, and its descriptor is
 * closed only then: a completion can never meet somebody else's connection, and the kernel never
 * writes into memory that somebody else owns.
 *
 * Ending. An end of file waits its turn behind what is held and stashed, and then the owner ends the
 * connection, when it has answered; an error ends it at once. Then everything in flight is
 * cancelled, and where the kernel could not, the socket is shut down, which no operation survives.
 *
 * Operations are cancelled by their names, which the kernel finds by a hash. It would also cancel all
 * of a descriptor, but looks at every request of the ring for that: what closing many connections
 * takes would grow with the square of their number.
 */
#include <errno.h>
#include <unistd.h>

#include "base/assert.h"
#include "net/uring_state.h"

uint32_t connections_free_count(const struct uring *uring)
{
    /* A single accept in flight has its slot reserved. */
    const struct listener *listener = &uring->listener;
    uint32_t reserved = listener->is_armed && !listener->is_multishot && !listener->is_stopping;
    uint32_t used = uring->table.tcp_count + reserved;
    return used < uring->table.tcp_max ? uring->table.tcp_max - used : 0;
}

static bool connect_arm(struct uring *uring, struct connection *connection)
{
    struct io_uring_sqe *request = queue_request(&uring->queue);
    if (request == NULL) return false;
    io_uring_prep_connect(request, connection->fd, &connection->peer.any,
                          address_bytes(&connection->peer));
    connection_start(uring, connection, request, OPERATION_CONNECT);
    return true;
}

static void on_connect(struct uring *uring, struct connection *connection,
                       const struct completion *completion, struct events *events)
{
    connection_operation_done(uring, connection);
    if (connection->state != CONNECTION_CONNECTING) return;
    if (completion->result < 0) {
        connection_end(&uring->table, connection, completion->result);
        return;
    }
    connection->state = CONNECTION_UP;
    connection->is_paused = false;
    connection_mark(&uring->table, connection);
    connection_event(&uring->table, connection, events, IO_CONNECTED);
}

static void on_cancel(struct uring *uring, struct connection *connection)
{
    connection->is_cancelling = false;
    connection_operation_done(uring, connection);
    if (connection->state == CONNECTION_ENDING) connection_mark(&uring->table, connection);
}

/* The cancel did not find everything, or could not end it. */
static void end_by_force(struct connection *connection)
{
    if (connection->fd < 0) return;
    if (connection->operations > 1 || !connection->send.zc_waits) {
        shutdown(connection->fd, SHUT_RDWR);
        return;
    }
    /* Bytes of a zero-copy send are the kernel's until the peer has them, which may be never. A
     * reset drops them. No request is left that knows the descriptor. */
    const struct linger reset = {.l_onoff = 1};
    (void)setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(connection->fd);
    connection->fd = -1;
}

/* Cancels what is in flight: the receive, the send, then whatever else there is, or was not found. */
static bool cancel_next(struct uring *uring, struct connection *connection)
{
    struct io_uring_sqe *request = queue_request(&uring->queue);
    if (request == NULL) return false;
    bool is_receiving = connection->is_receiving && !connection->is_udp;
    if (is_receiving && !connection->receive_cancelled) {
        connection->receive_cancelled = true;
        io_uring_prep_cancel64(request, connection_user_data(uring, connection, OPERATION_RECEIVE),
                               0);
    } else if (connection->send_in_flight && !connection->send_cancelled) {
        connection->send_cancelled = true;
        io_uring_prep_cancel64(request, connection_user_data(uring, connection, OPERATION_SEND), 0);
    } else {
        connection->was_cancelled = true;
        io_uring_prep_cancel_fd(request, connection->fd, IORING_ASYNC_CANCEL_ALL);
    }
    connection->is_cancelling = true;
    connection_start(uring, connection, request, OPERATION_CANCEL);
    return true;
}

static bool service_ending(struct uring *uring, struct connection *connection,
                           struct events *events)
{
    receive_drop(uring, connection);
    if (connection->operations == 0) {
        if (events_are_full(events)) return false;
        if (connection->fd >= 0) close(connection->fd);
        connection->fd = -1;
        struct io_event *event = connection_event(&uring->table, connection, events, IO_CLOSED);
        event->result = connection->result;
        connection->state = CONNECTION_GONE;
        return true;
    }
    if (connection->is_cancelling) return true;
    if (connection->was_cancelled) {
        end_by_force(connection);
        return true;
    }
    return cancel_next(uring, connection);
}

static bool service_up(struct uring *uring, struct connection *connection, struct events *events)
{
    bool is_done = receive_deliver(uring, connection, events);
    /* Not in the turn of the last bytes: the owner may put some of them back. */
    bool is_over = connection->has_eof && !receive_is_waiting(connection) &&
                   connection->turn != uring->table.turn;
    if (connection->state != CONNECTION_UP) return true;
    if (is_over && !connection->told_eof) {
        if (events_are_full(events)) return false;
        connection->told_eof = true;
        connection_event(&uring->table, connection, events, IO_EOF);
    }
    /* In this order: a send rides on the call that a receive needs. */
    is_done &= receive_service(uring, connection);
    is_done &= send_service(uring, connection, events);
    return is_done;
}

bool connection_service(struct uring *uring, struct connection *connection, struct events *events)
{
    switch ((enum connection_state)connection->state) {
    case CONNECTION_CONNECTING: return connection->operations > 0 || connect_arm(uring, connection);
    case CONNECTION_UP:
        if (connection->is_udp) return udp_service(uring, connection);
        return service_up(uring, connection, events);
    case CONNECTION_ENDING: return service_ending(uring, connection, events);
    case CONNECTION_DETACHED: connection->state = CONNECTION_GONE; return true;
    case CONNECTION_FREE:
    case CONNECTION_GONE: break;
    }
    ASSERT(false);
    return true;
}

void connection_start(struct uring *uring, struct connection *connection,
                      struct io_uring_sqe *request, enum operation operation)
{
    connection->operations++;
    queue_start(&uring->queue, request, connection_user_data(uring, connection, operation));
}

void connection_operation_done(struct uring *uring, struct connection *connection)
{
    ASSERT(connection->operations > 0);
    connection->operations--;
    if (connection->operations == 0 && connection->state == CONNECTION_ENDING)
        connection_mark(&uring->table, connection);
}

void connection_on_completion(struct uring *uring, const struct completion *completion,
                              struct events *events)
{
    uint32_t index = user_data_index(completion->user_data);
    ASSERT(index < uring->table.used);
    struct connection *connection = &uring->table.list[index];
    ASSERT(connection->generation == user_data_generation(completion->user_data));
    ASSERT(connection->operations > 0);
    switch (user_data_operation(completion->user_data)) {
    case OPERATION_RECEIVE: receive_on_completion(uring, connection, completion, events); return;
    case OPERATION_SEND: send_on_completion(uring, connection, completion, events); return;
    case OPERATION_CONNECT: on_connect(uring, connection, completion, events); return;
    case OPERATION_CANCEL: on_cancel(uring, connection); return;
    case OPERATION_UDP_RECEIVE: udp_on_receive(uring, completion, events); return;
    case OPERATION_UDP_SEND:
    case OPERATION_ACCEPT:
    case OPERATION_ACCEPT_CANCEL:
    case OPERATION_WAKE_POLL:
    case OPERATION_WOKEN:
    case OPERATION_WAKE_SEND: break;
    }
    ASSERT(false);
}
