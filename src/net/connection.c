/*
 * The table of connections.
 *
 * A slot lives until the last completion of every operation on it has come, and its descriptor is
 * closed only then: a completion can never meet somebody else's connection, and the kernel never
 * writes into memory that somebody else owns. A slot whose IO_CLOSED is out keeps its generation
 * until the next io_wait, so that handles in the batch of events before it stay good.
 *
 * Ending. An end of file waits its turn behind what is held and stashed, and then the owner ends the
 * connection, when it has answered; an error ends it at once. Then everything in flight is
 * cancelled, and where the kernel could not, the socket is shut down, which no operation survives.
 */
#include <errno.h>
#include <unistd.h>

#include "base/assert.h"
#include "net/uring_state.h"

struct connection *connection_of(struct uring *uring, uint32_t handle)
{
    uint32_t index = handle & CONNECTION_INDEX_MASK;
    ASSERT(index < uring->connections_used);
    struct connection *connection = &uring->connections[index];
    ASSERT(connection->state != CONNECTION_FREE);
    ASSERT(connection->generation == handle >> CONNECTION_INDEX_BITS);
    return connection;
}

uint32_t connections_free_count(const struct uring *uring)
{
    /* A single accept in flight has its slot reserved. */
    const struct listener *listener = &uring->listener;
    uint32_t reserved = listener->is_armed && !listener->is_multishot && !listener->is_stopping;
    uint32_t used = uring->tcp_count + reserved;
    return used < uring->tcp_max ? uring->tcp_max - used : 0;
}

static struct connection *slot_take(struct uring *uring)
{
    if (uring->free != LIST_END) {
        struct connection *connection = &uring->connections[uring->free];
        uring->free = connection->next;
        return connection;
    }
    ASSERT(uring->connections_used < uring->connections_count);
    struct connection *connection = &uring->connections[uring->connections_used++];
    connection->generation = 1;
    return connection;
}

struct connection *connection_take(struct uring *uring, int fd, bool is_udp, void *context)
{
    if (is_udp && uring->udp_count == UDP_SOCKETS_MAX) return NULL;
    if (!is_udp && uring->tcp_count == uring->tcp_max) return NULL;
    struct connection *connection = slot_take(uring);
    ASSERT(connection->state == CONNECTION_FREE);
    uint32_t generation = connection->generation;
    *connection = (struct connection){
        .context = context,
        .fd = fd,
        .generation = generation,
        .next = LIST_END,
        .state = CONNECTION_UP,
        .is_udp = is_udp,
        .turn = uring->turn - 1,
        .stash_first = NO_BUFFER,
        .stash_last = NO_BUFFER,
    };
    if (is_udp)
        uring->udp_count++;
    else
        uring->tcp_count++;
    return connection;
}

static void slot_put(struct uring *uring, struct connection *connection)
{
    ASSERT(connection->operations == 0);
    ASSERT(!connection->is_marked);
    ASSERT(connection->stash_first == NO_BUFFER);
    if (connection->is_udp)
        uring->udp_count--;
    else
        uring->tcp_count--;
    connection->state = CONNECTION_FREE;
    connection->fd = -1;
    /* No generation is 0, so that no user_data is. */
    if (++connection->generation > CONNECTION_GENERATION_MAX) connection->generation = 1;
    connection->next = uring->free;
    uring->free = connection_index(uring, connection);
}

void connections_reap(struct uring *uring)
{
    while (uring->gone != LIST_END) {
        struct connection *connection = &uring->connections[uring->gone];
        uring->gone = connection->next;
        slot_put(uring, connection);
    }
    held_blocks_free(&uring->retired);
}

void connection_mark(struct uring *uring, struct connection *connection)
{
    if (connection->is_marked || connection->state == CONNECTION_GONE) return;
    uint32_t index = connection_index(uring, connection);
    connection->is_marked = true;
    connection->next = LIST_END;
    if (uring->marked == LIST_END)
        uring->marked = index;
    else
        uring->connections[uring->marked_last].next = index;
    uring->marked_last = index;
}

struct io_event *connection_event(struct uring *uring, struct connection *connection,
                                  struct events *events, enum io_event_type type)
{
    struct io_event *event = events_add(events, type);
    event->conn = connection_handle(uring, connection);
    event->context = connection->context;
    return event;
}

void connection_end(struct uring *uring, struct connection *connection, int32_t result)
{
    if (connection->state >= CONNECTION_ENDING) return;
    connection->state = CONNECTION_ENDING;
    connection->result = result;
    connection_mark(uring, connection);
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
        connection_end(uring, connection, completion->result);
        return;
    }
    connection->state = CONNECTION_UP;
    connection->is_paused = false;
    connection_mark(uring, connection);
    connection_event(uring, connection, events, IO_CONNECTED);
}

static void on_cancel(struct uring *uring, struct connection *connection)
{
    connection->is_cancelling = false;
    connection_operation_done(uring, connection);
    if (connection->state == CONNECTION_ENDING) connection_mark(uring, connection);
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

static bool service_ending(struct uring *uring, struct connection *connection,
                           struct events *events)
{
    receive_drop(uring, connection);
    if (connection->operations == 0) {
        if (events_are_full(events)) return false;
        if (connection->fd >= 0) close(connection->fd);
        connection->fd = -1;
        struct io_event *event = connection_event(uring, connection, events, IO_CLOSED);
        event->result = connection->result;
        connection->state = CONNECTION_GONE;
        return true;
    }
    if (connection->is_cancelling) return true;
    if (connection->was_cancelled) {
        end_by_force(connection);
        return true;
    }
    struct io_uring_sqe *request = queue_request(&uring->queue);
    if (request == NULL) return false;
    io_uring_prep_cancel_fd(request, connection->fd, IORING_ASYNC_CANCEL_ALL);
    connection->is_cancelling = true;
    connection->was_cancelled = true;
    connection_start(uring, connection, request, OPERATION_CANCEL);
    return true;
}

static bool service_up(struct uring *uring, struct connection *connection, struct events *events)
{
    bool is_done = receive_deliver(uring, connection, events);
    /* Not in the turn of the last bytes: the owner may put some of them back. */
    bool is_over =
        connection->has_eof && !receive_is_waiting(connection) && connection->turn != uring->turn;
    if (connection->state != CONNECTION_UP) return true;
    if (is_over && !connection->told_eof) {
        if (events_are_full(events)) return false;
        connection->told_eof = true;
        connection_event(uring, connection, events, IO_EOF);
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
        connection_mark(uring, connection);
}

void connection_on_completion(struct uring *uring, const struct completion *completion,
                              struct events *events)
{
    uint32_t index = user_data_index(completion->user_data);
    ASSERT(index < uring->connections_used);
    struct connection *connection = &uring->connections[index];
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
