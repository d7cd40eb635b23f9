/*
 * Datagrams on epoll: sent at once, as they neither wait for room nor hold anything; received into
 * buffers that hold whatever the kernel coalesced (UDP_GRO, up to 64 KiB of equal datagrams from one
 * sender). A run of equal ones to one receiver is one system call (UDP_SEGMENT); where the path
 * refuses that, they go out one after the other. Errors of single datagrams are not reported: they
 * may be lost anyway.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"
#include "net/epoll_state.h"

#define PAYLOAD_BYTES 65536

struct datagrams {
    struct address from;
    _Alignas(CACHE_LINE) uint8_t payload[PAYLOAD_BYTES];
};

static int memory_open(struct epoll_udp *udp)
{
    if (udp->buffers != NULL) return 0;
    udp->buffers = memory_reserve(EPOLL_DATAGRAMS_COUNT * sizeof *udp->buffers, 0);
    udp->room = EPOLL_DATAGRAMS_COUNT;
    return udp->buffers != NULL ? 0 : -ENOMEM;
}

void epoll_udp_close(struct epoll *epoll)
{
    struct epoll_udp *udp = &epoll->udp;
    if (udp->buffers == NULL) return;
    memory_release(udp->buffers, EPOLL_DATAGRAMS_COUNT * sizeof *udp->buffers);
    udp->buffers = NULL;
}

int64_t epoll_udp_open(struct epoll *epoll, const struct address *address, void *context)
{
    int err = memory_open(&epoll->udp);
    if (err == 0) err = epoll_call(epoll);
    if (err < 0) return err;
    int fd = socket_udp(address, true);
    if (fd < 0) return fd;
    struct connection *connection = connection_take(&epoll->table, fd, true, context);
    if (connection == NULL) {
        close(fd);
        return -ENOSPC;
    }
    connection_mark(&epoll->table, connection);
    return connection_handle(&epoll->table, connection);
}

/* ---- receiving ---- */

void epoll_udp_turn(struct epoll *epoll)
{
    struct epoll_udp *udp = &epoll->udp;
    if (udp->buffers == NULL) return;
    bool is_split = udp->split_conn != IO_NONE;
    udp->next = is_split ? (udp->split_buffer + 1) % EPOLL_DATAGRAMS_COUNT : 0;
    udp->room = EPOLL_DATAGRAMS_COUNT - is_split;
}

/* The size of the datagrams in a coalesced buffer; 0: there is one. */
static size_t segment_bytes_of(struct msghdr *message)
{
    struct cmsghdr *control = CMSG_FIRSTHDR(message);
    for (; control != NULL; control = CMSG_NXTHDR(message, control)) {
        if (control->cmsg_level != SOL_UDP || control->cmsg_type != UDP_GRO) continue;
        int bytes;
        memcpy(&bytes, CMSG_DATA(control), sizeof bytes);
        return bytes > 0 ? (size_t)bytes : 0;
    }
    return 0;
}

void epoll_udp_split(struct epoll *epoll, struct events *events)
{
    struct epoll_udp *udp = &epoll->udp;
    if (LIKELY(udp->split_conn == IO_NONE)) return;
    struct connection *connection = &epoll->table.list[udp->split_conn & CONNECTION_INDEX_MASK];
    bool is_open = connection->state == CONNECTION_UP &&
                   connection_handle(&epoll->table, connection) == udp->split_conn;
    while (is_open && udp->split_bytes > 0 && !events_are_full(events)) {
        size_t bytes = min_u64(udp->split_bytes, udp->split_segment_bytes);
        struct io_event *event = connection_event(&epoll->table, connection, events, IO_DATAGRAM);
        event->data = udp->split_at;
        event->size = (uint32_t)bytes;
        event->address = &udp->buffers[udp->split_buffer].from;
        udp->split_at += bytes;
        udp->split_bytes -= bytes;
        epoll->io.counters.receives++;
        epoll->io.counters.received_bytes += bytes;
    }
    if (!is_open || udp->split_bytes == 0) udp->split_conn = IO_NONE;
}

/* One receive into the next buffer, which is split then; -errno. */
static int receive(struct epoll *epoll, struct connection *connection)
{
    struct epoll_udp *udp = &epoll->udp;
    struct datagrams *buffer = &udp->buffers[udp->next];
    _Alignas(struct cmsghdr) uint8_t control[64];
    struct iovec part = {buffer->payload, PAYLOAD_BYTES};
    struct msghdr message = {
        .msg_name = &buffer->from,
        .msg_namelen = sizeof buffer->from,
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof control,
    };
    int err = epoll_call(epoll);
    if (err < 0) return err;
    ssize_t bytes = recvmsg(connection->fd, &message, MSG_DONTWAIT);
    if (bytes < 0) return -errno;
    if (bytes == 0 || (message.msg_flags & MSG_TRUNC)) return 0;
    udp->split_conn = connection_handle(&epoll->table, connection);
    udp->split_buffer = udp->next;
    udp->split_at = buffer->payload;
    udp->split_bytes = (size_t)bytes;
    udp->split_segment_bytes = segment_bytes_of(&message);
    if (udp->split_segment_bytes == 0) udp->split_segment_bytes = udp->split_bytes;
    udp->next = (udp->next + 1) % EPOLL_DATAGRAMS_COUNT;
    udp->room--;
    return 0;
}

bool epoll_udp_service(struct epoll *epoll, struct connection *connection, struct events *events)
{
    struct epoll_udp *udp = &epoll->udp;
    while (connection->is_readable) {
        if (udp->split_conn != IO_NONE || udp->room == 0 || events_are_full(events)) return false;
        int err = receive(epoll, connection);
        epoll_udp_split(epoll, events);
        if (err == -EAGAIN) connection->is_readable = false;
        if (err == -ENOBUFS) epoll->io.counters.buffers_out++;
        if (err < 0 && !socket_goes_on(err)) {
            connection_end(&epoll->table, connection, err);
            return true;
        }
        if (err < 0) return !connection->is_readable;
    }
    return true;
}

/* ---- sending ---- */

/* How many datagrams from the first on can go in one call: all but the last are as large as it. */
static unsigned run_of(const struct io_datagram *datagrams, unsigned count)
{
    size_t segment_bytes = datagrams[0].bytes.iov_len;
    size_t bytes = segment_bytes;
    unsigned run = 1;
    for (; run < count && run < SEGMENTS_MAX; run++) {
        size_t next_bytes = datagrams[run].bytes.iov_len;
        bool fits = next_bytes > 0 && next_bytes <= segment_bytes &&
                    datagrams[run - 1].bytes.iov_len == segment_bytes &&
                    bytes + next_bytes <= DATAGRAM_BYTES_MAX &&
                    address_equal(&datagrams[run].to, &datagrams[0].to);
        if (!fits) break;
        bytes += next_bytes;
    }
    return run;
}

/* Sends a run in one call. -errno. */
static int send_run(struct epoll *epoll, const struct connection *connection,
                    const struct io_datagram *datagrams, unsigned run)
{
    _Alignas(struct cmsghdr) uint8_t control_bytes[CMSG_SPACE(sizeof(uint16_t))] = {0};
    struct iovec parts[SEGMENTS_MAX];
    struct address to = datagrams[0].to;
    for (unsigned i = 0; i < run; i++) parts[i] = datagrams[i].bytes;
    struct msghdr message = {
        .msg_name = &to,
        .msg_namelen = address_bytes(&to),
        .msg_iov = parts,
        .msg_iovlen = run,
    };
    if (run > 1) {
        const uint16_t segment_bytes = (uint16_t)parts[0].iov_len;
        message.msg_control = control_bytes;
        message.msg_controllen = sizeof control_bytes;
        struct cmsghdr *control = CMSG_FIRSTHDR(&message);
        control->cmsg_level = SOL_UDP;
        control->cmsg_type = UDP_SEGMENT;
        control->cmsg_len = CMSG_LEN(sizeof segment_bytes);
        memcpy(CMSG_DATA(control), &segment_bytes, sizeof segment_bytes);
    }
    int err = epoll_call(epoll);
    epoll->io.counters.direct_sends++;
    if (err < 0) return err;
    ssize_t sent = sendmsg(connection->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) return -errno;
    epoll->io.counters.sends++;
    epoll->io.counters.sent_bytes += (uint64_t)sent;
    return 0;
}

int epoll_udp_send(struct epoll *epoll, struct connection *connection,
                   const struct io_datagram *datagrams, unsigned count)
{
    ASSERT(connection->is_udp);
    if (connection->state != CONNECTION_UP) return 0;
    unsigned accepted = 0;
    bool is_single = false;
    while (accepted < count) {
        const struct io_datagram *first = &datagrams[accepted];
        if (first->bytes.iov_len > DATAGRAM_BYTES_MAX)
            return accepted > 0 ? (int)accepted : -EMSGSIZE;
        unsigned run = is_single ? 1 : run_of(first, count - accepted);
        int err = send_run(epoll, connection, first, run);
        if (err == -EAGAIN) break;
        if (err < 0 && run > 1)
            is_single = true; /* the same again, one after the other */
        else
            accepted += run;
    }
    return (int)accepted;
}
