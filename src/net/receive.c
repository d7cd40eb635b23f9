/*
 * Receiving. A multishot receive takes one buffer after the other from the group. Each connection
 * delivers one IO_RECEIVED a turn, so that the owner may pause it in the middle of a batch and be
 * sure of silence; further buffers are stashed for the next turn, where they cost no system call.
 * What comes to a paused connection (its receive is being cancelled) is copied out of the buffer
 * and held: it must not keep buffers from the others. The order of delivery is: held, stash, new;
 * only one of held and stash is ever in use.
 *
 * Running out of buffers is no error. The receive ends with -ENOBUFS and is armed again in the next
 * turn, which begins with giving buffers back. But whose bytes still wait here gets no further ones
 * before they are delivered: a peer that sends faster than its owner takes would else have each
 * buffer again at the moment it is given back, and fill the memory with what is held.
 */
#include <errno.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "net/uring_state.h"

static void stash_push(struct uring *uring, struct connection *connection, uint16_t buffer,
                       uint32_t size)
{
    uring->stashed[buffer] = (struct stashed){.next = NO_BUFFER, .size = size};
    if (connection->stash_first == NO_BUFFER)
        connection->stash_first = buffer;
    else
        uring->stashed[connection->stash_last].next = buffer;
    connection->stash_last = buffer;
}

/* The buffer stays good until the next io_wait publishes what was put back. */
static uint16_t stash_pop(struct uring *uring, struct connection *connection)
{
    uint16_t buffer = (uint16_t)connection->stash_first;
    connection->stash_first = uring->stashed[buffer].next;
    buffers_put(&uring->buffers, buffer);
    return buffer;
}

/* Holds the stash, too: a paused connection must not keep buffers from the others. */
static int hold_stash(struct uring *uring, struct connection *connection)
{
    int err = 0;
    while (connection->stash_first != NO_BUFFER) {
        uint16_t buffer = stash_pop(uring, connection);
        if (err < 0) continue;
        err = held_append(&connection->held, buffers_data(&uring->buffers, buffer),
                          uring->stashed[buffer].size, &uring->table.blocks);
    }
    return err;
}

static bool can_deliver(const struct uring *uring, const struct connection *connection)
{
    return !connection->is_paused && connection->turn != uring->table.turn;
}

bool receive_is_waiting(const struct connection *connection)
{
    return held_bytes(&connection->held) > 0 || connection->stash_first != NO_BUFFER;
}

bool receive_deliver(struct uring *uring, struct connection *connection, struct events *events)
{
    struct held *held = &connection->held;
    if (held->block != NULL && held_bytes(held) == 0) held_clear(held, &uring->table.blocks);
    if (!receive_is_waiting(connection) || connection->is_paused) return true;
    if (!can_deliver(uring, connection) || events_are_full(events)) return false;
    if (held_bytes(held) > 0) {
        connection_deliver_held(&uring->table, connection, events, uring->buffers.data_bytes);
        return false; /* once more, to free the block when it is empty */
    }
    uint16_t buffer = stash_pop(uring, connection);
    connection_deliver(&uring->table, connection, events, buffers_data(&uring->buffers, buffer),
                       uring->stashed[buffer].size);
    return !receive_is_waiting(connection) && !connection->has_eof;
}

static bool receive_arm(struct uring *uring, struct connection *connection)
{
    struct io_uring_sqe *request = queue_request(&uring->queue);
    if (request == NULL) return false;
    if (connection->is_first) {
        io_uring_prep_recv(request, connection->fd, NULL, 0, 0);
    } else {
        io_uring_prep_recv_multishot(request, connection->fd, NULL, 0, 0);
        if (uring->queue.features & URING_RECV_BUNDLE) request->ioprio |= COMPAT_RECVSEND_BUNDLE;
    }
    request->flags |= IOSQE_BUFFER_SELECT;
    request->buf_group = GROUP_TCP;
    connection->is_receiving = true;
    connection_start(uring, connection, request, OPERATION_RECEIVE);
    return true;
}

static bool receive_cancel(struct uring *uring, struct connection *connection)
{
    struct io_uring_sqe *request = queue_request(&uring->queue);
    if (request == NULL) return false;
    io_uring_prep_cancel64(request, connection_user_data(uring, connection, OPERATION_RECEIVE), 0);
    connection->is_cancelling = true;
    connection_start(uring, connection, request, OPERATION_CANCEL);
    return true;
}

bool receive_service(struct uring *uring, struct connection *connection)
{
    bool is_wanted =
        !connection->is_paused && !connection->has_eof && !receive_is_waiting(connection);
    if (is_wanted) return connection->is_receiving || receive_arm(uring, connection);
    /* A stash alone may grow: it is bounded by the group. */
    bool is_stoppable = connection->is_receiving && !connection->is_cancelling &&
                        (connection->is_paused || held_bytes(&connection->held) > 0);
    return !is_stoppable || receive_cancel(uring, connection);
}

/* One received buffer: delivered, stashed or held. */
static void receive_buffer(struct uring *uring, struct connection *connection,
                           struct events *events, uint16_t buffer, uint32_t size)
{
    uint8_t *data = buffers_data(&uring->buffers, buffer);
    if (connection->state != CONNECTION_UP) {
        buffers_put(&uring->buffers, buffer);
    } else if (connection->is_paused || held_bytes(&connection->held) > 0) {
        int err = held_append(&connection->held, data, size, &uring->table.blocks);
        buffers_put(&uring->buffers, buffer);
        if (err < 0) connection_end(&uring->table, connection, err);
    } else if (can_deliver(uring, connection) && connection->stash_first == NO_BUFFER &&
               !events_are_full(events)) {
        connection_deliver(&uring->table, connection, events, data, size);
        buffers_put(&uring->buffers, buffer);
    } else {
        stash_push(uring, connection, buffer, size);
        connection_mark(&uring->table, connection);
    }
}

/* A completion names its first buffer; a bundle goes on in those provided after it. */
static void receive_buffers(struct uring *uring, struct connection *connection,
                            struct events *events, const struct completion *completion)
{
    uint32_t bytes = completion->result > 0 ? (uint32_t)completion->result : 0;
    uint16_t buffer = (uint16_t)(completion->flags >> IORING_CQE_BUFFER_SHIFT);
    if (bytes == 0) buffers_put(&uring->buffers, buffer);
    while (bytes > 0) {
        uint32_t size = (uint32_t)min_u64(bytes, uring->buffers.data_bytes);
        uint16_t next = buffers_next(&uring->buffers, buffer);
        receive_buffer(uring, connection, events, buffer, size);
        bytes -= size;
        buffer = next;
    }
}

void receive_on_completion(struct uring *uring, struct connection *connection,
                           const struct completion *completion, struct events *events)
{
    int32_t result = completion->result;
    if (completion->flags & IORING_CQE_F_BUFFER)
        receive_buffers(uring, connection, events, completion);
    if (!(completion->flags & IORING_CQE_F_MORE)) {
        connection->is_receiving = false;
        connection_operation_done(uring, connection);
        connection_mark(&uring->table, connection);
    } else if (connection->is_paused) {
        connection_mark(&uring->table, connection); /* cancelled too late, or not found: again */
    }
    if (result > 0) return;
    switch (-result) {
    case 0: connection->has_eof = true; break;
    case ENOBUFS:
        uring->io.counters.buffers_out++;
        if (!receive_is_waiting(connection)) buffers_need_more(&uring->buffers);
        break;
    case EINTR:
    case EAGAIN:
    case ECANCELED: break; /* by io_pause, or the connection ends: it knows */
    default: connection_end(&uring->table, connection, result); break;
    }
}

void receive_pause(struct uring *uring, struct connection *connection, const void *rest,
                   size_t rest_bytes)
{
    connection->is_paused = true;
    int err = held_put_back(&connection->held, rest, rest_bytes, &uring->table.blocks);
    if (err == 0) err = hold_stash(uring, connection);
    if (err < 0) {
        connection_end(&uring->table, connection, err);
        return;
    }
    if (connection->is_receiving) connection_mark(&uring->table, connection);
}

void receive_drop(struct uring *uring, struct connection *connection)
{
    while (connection->stash_first != NO_BUFFER) (void)stash_pop(uring, connection);
    held_clear(&connection->held, &uring->table.blocks);
}
