/*
 * Sending. One send a connection is in flight, so that its bytes stay in order; the kernel goes on
 * with a short one by itself (MSG_WAITALL), and where it does not, we do.
 *
 * A request rides on the call that the turn makes anyway. When the turn would make the call for this
 * one send alone, as a ping-pong between spinning threads does, send(2) is the cheaper call: no
 * request, no completion (docs/adr/0001 has the figures).
 */
#include <errno.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "net/uring_state.h"

/* Zero-copy costs two completions and page pins: below this, copying is cheaper. */
#define SEND_ZC_BYTES_MIN (32 * KIB)
/* One request's length is 32 bits and signed. */
#define SEND_BYTES_MAX ((size_t)1 << 30)

static void advance(struct uring *uring, struct send *send, size_t taken)
{
    uring->io.counters.sent_bytes += taken;
    send_advance(send, taken);
}

static void sent(struct uring *uring, struct connection *connection, struct events *events)
{
    connection->is_sending = false;
    uring->io.counters.sends++;
    connection_event(&uring->table, connection, events, IO_SENT);
}

/* Sends without the ring. What this leaves, errors too, is left to the ring. */
static bool send_now(struct uring *uring, struct connection *connection, struct events *events)
{
    struct send *out = &connection->send;
    if (events_are_full(events)) return false;
    if (uring->queue.fail_countdown > 0) return false; /* a test wants to see the request */
    const struct iovec *part = &out->parts[out->part];
    const struct msghdr message = {.msg_iov = &out->parts[out->part],
                                   .msg_iovlen = out->parts_count - out->part};
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    uring->io.counters.direct_sends++;
    ssize_t taken = message.msg_iovlen == 1
                        ? send(connection->fd, part->iov_base, part->iov_len, flags)
                        : sendmsg(connection->fd, &message, flags);
    if (taken <= 0) return false;
    advance(uring, out, (size_t)taken);
    if (!send_is_over(out)) return false;
    sent(uring, connection, events);
    return true;
}

static bool send_arm(struct uring *uring, struct connection *connection)
{
    struct io_uring_sqe *request = queue_request(&uring->queue);
    if (request == NULL) return false;
    struct send *send = &connection->send;
    const struct iovec *part = &send->parts[send->part];
    const int flags = MSG_WAITALL | MSG_NOSIGNAL;
    if (send->parts_count - send->part > 1) {
        send->message = (struct msghdr){.msg_iov = &send->parts[send->part],
                                        .msg_iovlen = send->parts_count - send->part};
        io_uring_prep_sendmsg(request, connection->fd, &send->message, (unsigned)flags);
    } else if ((uring->queue.features & URING_SEND_ZC) && part->iov_len >= SEND_ZC_BYTES_MIN) {
        io_uring_prep_send_zc(request, connection->fd, part->iov_base,
                              min_u64(part->iov_len, SEND_BYTES_MAX), flags, 0);
    } else {
        io_uring_prep_send(request, connection->fd, part->iov_base,
                           min_u64(part->iov_len, SEND_BYTES_MAX), flags);
    }
    connection->send_in_flight = true;
    connection_start(uring, connection, request, OPERATION_SEND);
    return true;
}

bool send_service(struct uring *uring, struct connection *connection, struct events *events)
{
    if (!connection->is_sending || connection->send_in_flight) return true;
    bool is_alone = uring->sends_now && queue_requests_count(&uring->queue) == 0;
    if (is_alone && send_now(uring, connection, events)) return true;
    return send_arm(uring, connection);
}

void send_on_completion(struct uring *uring, struct connection *connection,
                        const struct completion *completion, struct events *events)
{
    int32_t result = completion->result;
    /* A zero-copy send completes twice: with its result, then when its bytes are free. */
    if (completion->flags & IORING_CQE_F_MORE) {
        connection->send.zc_result = result;
        connection->send.zc_waits = true;
        if (connection->state == CONNECTION_ENDING) connection_mark(&uring->table, connection);
        return;
    }
    if (completion->flags & IORING_CQE_F_NOTIF) result = connection->send.zc_result;
    connection->send.zc_waits = false;
    connection->send_in_flight = false;
    connection_operation_done(uring, connection);
    if (connection->state != CONNECTION_UP) return;
    if (result < 0 && result != -EINTR && result != -EAGAIN) {
        connection_end(&uring->table, connection, result);
        return;
    }
    if (result > 0) advance(uring, &connection->send, (size_t)result);
    if (send_is_over(&connection->send))
        sent(uring, connection, events);
    else
        connection_mark(&uring->table, connection);
}
