/*
 * Datagrams. Receiving: one multishot receive a socket into buffers of its own group, each of which
 * holds whatever the kernel coalesced (UDP_GRO, up to 64 KiB of equal datagrams from one sender):
 *
 *   | io_uring_recvmsg_out | sender's address | control messages | datagram | datagram | ...
 *
 * Sending: datagrams are copied into slots; a run of equal ones to one receiver shares a slot and
 * one system call (UDP_SEGMENT). Where the path refuses that (a device without checksums, a segment
 * over the MTU), the slot goes out again, one datagram after the other. Errors of single datagrams
 * are not reported: they may be lost anyway.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"
#include "net/uring_state.h"

#define BUFFERS_COUNT 64

/* The layout of a received buffer; both are aligned for what is read there. */
#define NAME_BYTES 32
#define CONTROL_BYTES 64
#define BUFFER_BYTES                                                                               \
    (sizeof(struct io_uring_recvmsg_out) + NAME_BYTES + CONTROL_BYTES + 65536 + CACHE_LINE)
_Static_assert(NAME_BYTES >= sizeof(struct address), "a sender's address is read as a whole");

struct udp_send {
    uint32_t next; /* in the list that it is on */
    uint32_t conn;
    size_t bytes;
    size_t segment_bytes; /* of all but the last, which may be shorter */
    size_t sent;          /* is_single: bytes that are done */
    unsigned segments;
    bool is_single; /* one datagram a call */
    struct address to;
    struct iovec part;
    struct msghdr message;
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(uint16_t))];
    uint8_t data[DATAGRAM_BYTES_MAX];
};

static int udp_memory_open(struct uring *uring)
{
    struct udp *udp = &uring->udp;
    if (udp->sends != NULL) return 0;
    struct udp_send *sends = memory_reserve(UDP_SENDS_COUNT * sizeof *sends, 0);
    if (sends == NULL) return -ENOMEM;
    const struct buffers_options options = {
        .count = BUFFERS_COUNT, .data_bytes = BUFFER_BYTES, .group = GROUP_UDP};
    int err = buffers_open(&udp->buffers, &options, &uring->queue.uring);
    if (err < 0) {
        memory_release(sends, UDP_SENDS_COUNT * sizeof *sends);
        return err;
    }
    udp->sends = sends;
    udp->sends_free = LIST_END;
    udp->sends_queued = LIST_END;
    for (uint32_t i = 0; i < UDP_SENDS_COUNT; i++) {
        sends[i].next = udp->sends_free;
        udp->sends_free = i;
    }
    udp->receive = (struct msghdr){.msg_namelen = NAME_BYTES, .msg_controllen = CONTROL_BYTES};
    return 0;
}

void udp_close(struct uring *uring)
{
    struct udp *udp = &uring->udp;
    if (udp->sends == NULL) return;
    memory_release(udp->sends, UDP_SENDS_COUNT * sizeof *udp->sends);
    buffers_close(&udp->buffers);
    udp->sends = NULL;
}

int64_t udp_open(struct uring *uring, const struct address *address, void *context)
{
    int err = udp_memory_open(uring);
    if (err < 0) return err;
    if (queue_fails_now(&uring->queue)) return uring->queue.fail_err;
    int fd = socket_udp(address, (uring->queue.features & URING_UDP_GRO) != 0);
    if (fd < 0) return fd;
    struct connection *connection = connection_take(&uring->table, fd, true, context);
    if (connection == NULL) {
        close(fd);
        return -ENOSPC;
    }
    connection_mark(&uring->table, connection);
    return connection_handle(&uring->table, connection);
}

/* ---- receiving ---- */

bool udp_service(struct uring *uring, struct connection *connection)
{
    if (connection->is_receiving) return true;
    struct io_uring_sqe *request = queue_request(&uring->queue);
    if (request == NULL) return false;
    io_uring_prep_recvmsg_multishot(request, connection->fd, &uring->udp.receive, 0);
    request->flags |= IOSQE_BUFFER_SELECT;
    request->buf_group = GROUP_UDP;
    connection->is_receiving = true;
    connection_start(uring, connection, request, OPERATION_UDP_RECEIVE);
    return true;
}

/* The size of the datagrams in a coalesced buffer; 0: there is one. */
static size_t segment_bytes_of(struct io_uring_recvmsg_out *out, struct msghdr *layout)
{
    struct cmsghdr *control = io_uring_recvmsg_cmsg_firsthdr(out, layout);
    for (; control != NULL; control = io_uring_recvmsg_cmsg_nexthdr(out, layout, control)) {
        if (control->cmsg_level != SOL_UDP || control->cmsg_type != UDP_GRO) continue;
        int bytes;
        memcpy(&bytes, CMSG_DATA(control), sizeof bytes);
        return bytes > 0 ? (size_t)bytes : 0;
    }
    return 0;
}

/* Takes a received buffer as the one that is split; false if there is nothing in it to deliver. */
static bool split_begin(struct udp *udp, uint32_t conn, uint16_t buffer, int32_t bytes)
{
    uint8_t *start = buffers_data(&udp->buffers, buffer);
    struct io_uring_recvmsg_out *out = io_uring_recvmsg_validate(start, bytes, &udp->receive);
    if (out == NULL || (out->flags & MSG_TRUNC) || out->namelen > NAME_BYTES) return false;
    udp->split_bytes = io_uring_recvmsg_payload_length(out, bytes, &udp->receive);
    if (udp->split_bytes == 0) return false;
    udp->split_at = io_uring_recvmsg_payload(out, &udp->receive);
    udp->split_segment_bytes = segment_bytes_of(out, &udp->receive);
    if (udp->split_segment_bytes == 0) udp->split_segment_bytes = udp->split_bytes;
    udp->split_from = io_uring_recvmsg_name(out);
    udp->split_buffer = buffer;
    udp->split_conn = conn;
    return true;
}

void udp_split(struct uring *uring, struct events *events)
{
    struct udp *udp = &uring->udp;
    if (LIKELY(udp->split_conn == IO_NONE)) return;
    struct connection *connection = &uring->table.list[udp->split_conn & CONNECTION_INDEX_MASK];
    bool is_open = connection->state == CONNECTION_UP &&
                   connection_handle(&uring->table, connection) == udp->split_conn;
    while (is_open && udp->split_bytes > 0 && !events_are_full(events)) {
        size_t bytes = min_u64(udp->split_bytes, udp->split_segment_bytes);
        struct io_event *event = events_add(events, IO_DATAGRAM);
        event->conn = udp->split_conn;
        event->context = connection->context;
        event->data = udp->split_at;
        event->size = (uint32_t)bytes;
        event->address = udp->split_from;
        udp->split_at += bytes;
        udp->split_bytes -= bytes;
        uring->io.counters.receives++;
        uring->io.counters.received_bytes += bytes;
    }
    if (is_open && udp->split_bytes > 0) return;
    buffers_put(&udp->buffers, udp->split_buffer);
    udp->split_conn = IO_NONE;
}

static void on_receive_error(struct uring *uring, struct connection *connection, int32_t err)
{
    if (err == -ENOBUFS) {
        uring->io.counters.buffers_out++;
        buffers_need_more(&uring->udp.buffers);
    }
    if (!socket_goes_on(err)) connection_end(&uring->table, connection, err);
}

void udp_on_receive(struct uring *uring, const struct completion *completion, struct events *events)
{
    struct udp *udp = &uring->udp;
    struct connection *connection = &uring->table.list[user_data_index(completion->user_data)];
    ASSERT(udp->split_conn == IO_NONE);
    if (completion->flags & IORING_CQE_F_BUFFER) {
        uint16_t buffer = (uint16_t)(completion->flags >> IORING_CQE_BUFFER_SHIFT);
        uint32_t conn = connection_handle(&uring->table, connection);
        if (split_begin(udp, conn, buffer, completion->result))
            udp_split(uring, events);
        else
            buffers_put(&udp->buffers, buffer);
    }
    if (!(completion->flags & IORING_CQE_F_MORE)) {
        connection->is_receiving = false;
        connection_operation_done(uring, connection);
        connection_mark(&uring->table, connection);
    }
    if (completion->result < 0) on_receive_error(uring, connection, completion->result);
}

/* ---- sending ---- */

static struct udp_send *send_take(struct udp *udp, uint32_t conn, const struct address *to)
{
    if (udp->sends_free == LIST_END) return NULL;
    struct udp_send *send = &udp->sends[udp->sends_free];
    udp->sends_free = send->next;
    send->next = LIST_END;
    send->conn = conn;
    send->to = *to;
    send->bytes = 0;
    send->segment_bytes = 0;
    send->segments = 0;
    send->sent = 0;
    send->is_single = false;
    return send;
}

static uint32_t send_index(const struct udp *udp, const struct udp_send *send)
{
    return (uint32_t)(send - udp->sends);
}

static void send_put(struct udp *udp, struct udp_send *send)
{
    send->next = udp->sends_free;
    udp->sends_free = send_index(udp, send);
}

static void send_queue(struct udp *udp, struct udp_send *send)
{
    uint32_t index = send_index(udp, send);
    send->next = LIST_END;
    if (udp->sends_queued == LIST_END)
        udp->sends_queued = index;
    else
        udp->sends[udp->sends_queued_last].next = index;
    udp->sends_queued_last = index;
}

/* Whether the datagram may follow in the same send: all before it are full segments, it is none
 * that is larger, and it goes to the same place. */
static bool fits(const struct udp_send *send, const struct io_datagram *datagram)
{
    size_t bytes = datagram->bytes.iov_len;
    return send->segments < SEGMENTS_MAX && send->bytes == send->segments * send->segment_bytes &&
           bytes > 0 && bytes <= send->segment_bytes && send->bytes + bytes <= DATAGRAM_BYTES_MAX &&
           address_equal(&send->to, &datagram->to);
}

static void append(struct udp_send *send, const struct io_datagram *datagram)
{
    size_t bytes = datagram->bytes.iov_len;
    if (send->segments == 0) send->segment_bytes = bytes;
    if (bytes > 0) memcpy(send->data + send->bytes, datagram->bytes.iov_base, bytes);
    send->bytes += bytes;
    send->segments++;
}

int udp_send(struct uring *uring, struct connection *connection,
             const struct io_datagram *datagrams, unsigned count)
{
    struct udp *udp = &uring->udp;
    ASSERT(connection->is_udp);
    if (connection->state != CONNECTION_UP) return 0;
    bool coalesces = (uring->queue.features & URING_UDP_GRO) != 0;
    struct udp_send *send = NULL;
    unsigned accepted = 0;
    for (; accepted < count; accepted++) {
        const struct io_datagram *datagram = &datagrams[accepted];
        if (datagram->bytes.iov_len > DATAGRAM_BYTES_MAX) break;
        if (send == NULL || !coalesces || !fits(send, datagram)) {
            struct udp_send *next =
                send_take(udp, connection_handle(&uring->table, connection), &datagram->to);
            if (next == NULL) break;
            send = next;
            send_queue(udp, send);
        }
        append(send, datagram);
    }
    if (accepted == 0 && count > 0 && datagrams[0].bytes.iov_len > DATAGRAM_BYTES_MAX)
        return -EMSGSIZE;
    return (int)accepted;
}

static void message_prepare(struct udp_send *send)
{
    size_t bytes = send->bytes;
    if (send->is_single) bytes = min_u64(send->bytes - send->sent, send->segment_bytes);
    send->part = (struct iovec){send->data + send->sent, bytes};
    send->message = (struct msghdr){
        .msg_name = &send->to,
        .msg_namelen = address_bytes(&send->to),
        .msg_iov = &send->part,
        .msg_iovlen = 1,
    };
    if (send->segments < 2 || send->is_single) return;
    const uint16_t segment_bytes = (uint16_t)send->segment_bytes;
    send->message.msg_control = send->control;
    send->message.msg_controllen = sizeof send->control;
    struct cmsghdr *control = CMSG_FIRSTHDR(&send->message);
    control->cmsg_level = SOL_UDP;
    control->cmsg_type = UDP_SEGMENT;
    control->cmsg_len = CMSG_LEN(sizeof segment_bytes);
    memcpy(CMSG_DATA(control), &segment_bytes, sizeof segment_bytes);
}

/* NULL where the socket is closed by now. */
static struct connection *send_connection(struct uring *uring, const struct udp_send *send)
{
    struct connection *connection = &uring->table.list[send->conn & CONNECTION_INDEX_MASK];
    bool is_open = connection->state == CONNECTION_UP &&
                   connection_handle(&uring->table, connection) == send->conn;
    return is_open ? connection : NULL;
}

bool udp_sends_service(struct uring *uring)
{
    struct udp *udp = &uring->udp;
    while (udp->sends != NULL && udp->sends_queued != LIST_END) {
        struct udp_send *send = &udp->sends[udp->sends_queued];
        struct connection *connection = send_connection(uring, send);
        struct io_uring_sqe *request = NULL;
        if (connection != NULL) {
            request = queue_request(&uring->queue);
            if (request == NULL) return false;
        }
        udp->sends_queued = send->next;
        if (connection == NULL) {
            send_put(udp, send);
            continue;
        }
        message_prepare(send);
        io_uring_prep_sendmsg(request, connection->fd, &send->message, MSG_NOSIGNAL);
        connection->operations++;
        queue_start(&uring->queue, request,
                    user_data_of(OPERATION_UDP_SEND, 1, send_index(udp, send)));
    }
    return true;
}

void udp_on_send(struct uring *uring, const struct completion *completion)
{
    struct udp *udp = &uring->udp;
    struct udp_send *send = &udp->sends[user_data_index(completion->user_data)];
    /* Its slot cannot be somebody else's: this operation was counted. */
    struct connection *connection = &uring->table.list[send->conn & CONNECTION_INDEX_MASK];
    ASSERT(connection_handle(&uring->table, connection) == send->conn);
    connection_operation_done(uring, connection);
    if (completion->result >= 0) {
        uring->io.counters.sends++;
        uring->io.counters.sent_bytes += (uint64_t)completion->result;
    }
    bool is_refused = completion->result < 0 && send->segments > 1 && !send->is_single;
    if (send->is_single) send->sent += send->part.iov_len;
    if (is_refused) send->is_single = true;
    if (connection->state == CONNECTION_UP && send->is_single && send->sent < send->bytes)
        send_queue(udp, send);
    else
        send_put(udp, send);
}
