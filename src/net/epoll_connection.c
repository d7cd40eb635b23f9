/*
 * The life of a connection on epoll. The kernel holds nothing of it between two calls, so a
 * connection that ends is closed at once.
 *
 * It is put into the set once, for every change of it (edges), and what the kernel told is kept as
 * two flags: a receive, or a send, may find something. A flag falls when the call finds nothing. So a
 * pause costs no call, and neither does going on: what comes meanwhile stays in the socket, where TCP
 * pushes back. A receive that did not fill its buffer took all there was; that spares the one that
 * would find nothing, unless the peer has hung up, which has to be read.
 *
 * A peer that ended while its connection is paused is noticed when its owner goes on, or sends.
 */
#include <errno.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "net/epoll_state.h"

void epoll_connection_told(struct epoll *epoll, uint32_t handle, uint32_t what)
{
    struct connections *table = &epoll->table;
    uint32_t index = handle & CONNECTION_INDEX_MASK;
    if (index >= table->used) return;
    struct connection *connection = &table->list[index];
    /* It may have been told before the connection ended. */
    if (connection->state == CONNECTION_FREE || connection_handle(table, connection) != handle)
        return;
    if (what & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) connection->is_readable = true;
    if (what & (EPOLLOUT | EPOLLHUP | EPOLLERR)) connection->is_writable = true;
    if (what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) connection->is_hung_up = true;
    connection_mark(table, connection);
}

/* ---- connecting ---- */

/* Begins to connect, or to be told of. */
static int begin(struct epoll *epoll, struct connection *connection)
{
    if (connection->state == CONNECTION_CONNECTING) {
        int err = epoll_call(epoll);
        if (err < 0) return err;
        const struct address *peer = &connection->peer;
        if (connect(connection->fd, &peer->any, address_bytes(peer)) < 0 && errno != EINPROGRESS)
            return -errno;
    }
    /* A UDP socket would tell of every datagram that has left it. */
    uint32_t what = connection->is_udp ? EPOLLIN : EPOLLIN | EPOLLOUT | EPOLLRDHUP;
    int err =
        epoll_watch(epoll, connection->fd, what, connection_handle(&epoll->table, connection));
    if (err == 0) connection->is_watched = true;
    return err;
}

static bool service_connecting(struct epoll *epoll, struct connection *connection,
                               struct events *events)
{
    int err = 0;
    socklen_t err_bytes = sizeof err;
    if (!connection->is_writable) return true;
    if (events_are_full(events)) return false;
    int call_err = epoll_call(epoll);
    if (call_err == 0 && getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &err, &err_bytes) < 0)
        call_err = -errno;
    if (call_err == 0) call_err = -err;
    if (call_err < 0) {
        connection_end(&epoll->table, connection, call_err);
        return true;
    }
    connection->state = CONNECTION_UP;
    connection->is_paused = false;
    connection_event(&epoll->table, connection, events, IO_CONNECTED);
    return !connection->is_readable;
}

/* ---- bytes in ---- */

/* Room for one receive, behind its headroom; NULL: not in this turn. */
static uint8_t *arena_room(const struct epoll_arena *arena)
{
    bool is_full = arena->bytes - arena->used < IO_HEADROOM_BYTES + arena->data_bytes;
    return is_full ? NULL : arena->memory + arena->used + IO_HEADROOM_BYTES;
}

static void arena_use(struct epoll_arena *arena, size_t bytes)
{
    arena->used += IO_HEADROOM_BYTES + round_up(bytes, CACHE_LINE);
    arena->used = min_u64(arena->used, arena->bytes);
}

/* Asks the kernel for bytes; returns false if there may be more of them. */
static bool receive_now(struct epoll *epoll, struct connection *connection, struct events *events)
{
    struct epoll_arena *arena = &epoll->arena;
    uint8_t *data = arena_room(arena);
    if (data == NULL) {
        epoll->io.counters.buffers_out++;
        return false;
    }
    int64_t result = epoll_call(epoll);
    if (result == 0) {
        result = recv(connection->fd, data, arena->data_bytes, MSG_DONTWAIT);
        if (result < 0) result = -errno;
        if (result == 0) {
            connection->has_eof = true;
            connection->is_readable = false;
            return false;
        }
    }
    if (result > 0) {
        arena_use(arena, (size_t)result);
        connection_deliver(&epoll->table, connection, events, data, (size_t)result);
        bool is_empty = (size_t)result < arena->data_bytes && !connection->is_hung_up;
        if (is_empty) connection->is_readable = false;
        return is_empty;
    }
    switch (-(int)result) {
    case EAGAIN: connection->is_readable = false; return true;
    case EINTR: return false;
    default: connection_end(&epoll->table, connection, (int32_t)result); return true;
    }
}

static bool service_receive(struct epoll *epoll, struct connection *connection,
                            struct events *events)
{
    struct connections *table = &epoll->table;
    struct held *held = &connection->held;
    if (held->block != NULL && held_bytes(held) == 0) held_clear(held, &table->blocks);
    bool is_wanted = !connection->is_paused && !connection->told_eof &&
                     (held_bytes(held) > 0 || connection->is_readable || connection->has_eof);
    if (!is_wanted) return true;
    /* One a turn, and the end not in the turn of the last bytes: some may be put back. */
    if (connection->turn == table->turn || events_are_full(events)) return false;
    if (held_bytes(held) > 0) {
        connection_deliver_held(table, connection, events, epoll->arena.data_bytes);
        return false; /* once more, to free the block when it is empty */
    }
    if (!connection->has_eof) return receive_now(epoll, connection, events);
    connection->told_eof = true;
    connection_event(table, connection, events, IO_EOF);
    return true;
}

/* ---- bytes out ---- */

static bool service_send(struct epoll *epoll, struct connection *connection, struct events *events)
{
    struct send *out = &connection->send;
    if (!connection->is_sending || !connection->is_writable) return true;
    if (events_are_full(events)) return false;
    const struct iovec *part = &out->parts[out->part];
    const struct msghdr message = {.msg_iov = &out->parts[out->part],
                                   .msg_iovlen = out->parts_count - out->part};
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    int64_t taken = epoll_call(epoll);
    epoll->io.counters.direct_sends++;
    if (taken == 0) {
        taken = message.msg_iovlen == 1 ? send(connection->fd, part->iov_base, part->iov_len, flags)
                                        : sendmsg(connection->fd, &message, flags);
        if (taken < 0) taken = -errno;
    }
    if (taken == -EAGAIN) {
        connection->is_writable = false;
        return true;
    }
    if (taken == -EINTR) return false;
    if (taken < 0) {
        connection_end(&epoll->table, connection, (int32_t)taken);
        return true;
    }
    epoll->io.counters.sent_bytes += (uint64_t)taken;
    send_advance(out, (size_t)taken);
    /* What it left has no room now, most likely, and the next try hears so. */
    if (!send_is_over(out)) return false;
    connection->is_sending = false;
    epoll->io.counters.sends++;
    connection_event(&epoll->table, connection, events, IO_SENT);
    return true;
}

/* ---- ending ---- */

static bool service_ending(struct epoll *epoll, struct connection *connection,
                           struct events *events)
{
    struct connections *table = &epoll->table;
    held_clear(&connection->held, &table->blocks);
    if (connection->turn == table->turn || events_are_full(events)) return false;
    /* Out of the set, too: ours was the only descriptor of it. */
    if (connection->fd >= 0) close(connection->fd);
    connection->fd = -1;
    struct io_event *event = connection_event(table, connection, events, IO_CLOSED);
    event->result = connection->result;
    connection->state = CONNECTION_GONE;
    return true;
}

bool epoll_connection_service(struct epoll *epoll, struct connection *connection,
                              struct events *events)
{
    bool is_alive =
        connection->state == CONNECTION_CONNECTING || connection->state == CONNECTION_UP;
    if (is_alive && !connection->is_watched) {
        int err = begin(epoll, connection);
        if (err < 0) {
            connection_end(&epoll->table, connection, err);
            return true;
        }
    }
    switch ((enum connection_state)connection->state) {
    case CONNECTION_CONNECTING: return service_connecting(epoll, connection, events);
    case CONNECTION_UP: {
        if (connection->is_udp) return epoll_udp_service(epoll, connection, events);
        bool is_done = service_send(epoll, connection, events);
        if (connection->state != CONNECTION_UP) return true;
        return service_receive(epoll, connection, events) && is_done;
    }
    case CONNECTION_ENDING: return service_ending(epoll, connection, events);
    case CONNECTION_DETACHED: connection->state = CONNECTION_GONE; return true;
    case CONNECTION_FREE:
    case CONNECTION_GONE: break;
    }
    ASSERT(false);
    return true;
}
