/*
 * struct io on epoll: for machines, containers and sandboxes that forbid io_uring.
 *
 * Why so. A turn asks the kernel once what has changed (epoll_wait), and then makes one call for each
 * receive and each send; that is all of them. A connection is put into the set when it comes and never
 * touched there again: the kernel tells edges, and what it told is remembered (epoll_connection.c).
 * Asking for levels instead would need a call for every pause and every send that found no room.
 *
 * Memory. Everything that a turn receives goes into one piece of memory, one behind the other, each
 * with its headroom; the next turn begins at its start again. So a connection without bytes holds no
 * buffer, and a busy node's receives stay in the cache. When it is full the rest waits in the sockets.
 *
 * Being ready. There is no memory to look at, as io_uring's, so who spins asks the kernel, without
 * waiting. What it tells then is kept for the next io_wait, which does not ask again.
 *
 * Waking is a write to an eventfd, which is never read: each write is an edge, and 2^64 of them will
 * not come.
 */
#include "net/epoll.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/memory.h"
#include "net/epoll_state.h"

/* Together 2 MiB, which a core's cache holds. */
#define BUFFERS_COUNT_DEFAULT 15
#define BUFFER_BYTES_DEFAULT (128 * KIB)
/* Of all architectures; the C library may be older than the kernel. */
#define SYS_EPOLL_PWAIT2 441
#define MILLISECONDS_MAX 3600000

static const struct io_table epoll_table;

int epoll_watch(struct epoll *epoll, int fd, uint32_t what, uint64_t data)
{
    struct epoll_event event = {.events = what | EPOLLET, .data.u64 = data};
    int err = epoll_call(epoll);
    if (err < 0) return err;
    return epoll_ctl(epoll->fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int epoll_forget(struct epoll *epoll, int fd)
{
    struct epoll_event event = {0}; /* kernels before 2.6.9 want one */
    int err = epoll_call(epoll);
    if (err < 0) return err;
    return epoll_ctl(epoll->fd, EPOLL_CTL_DEL, fd, &event) < 0 ? -errno : 0;
}

/* ---- waiting ---- */

static int wait_ms(const struct epoll *epoll, struct epoll_event *ready, uint64_t wait_ns)
{
    int ms = -1;
    /* Rounded up: to be early would be to spin. */
    if (wait_ns != TIME_NEVER)
        ms = (int)min_u64((wait_ns + NS_PER_MS - 1) / NS_PER_MS, MILLISECONDS_MAX);
    return epoll_wait(epoll->fd, ready, EPOLL_EVENTS_MAX, ms);
}

static int wait_ns_exactly(struct epoll *epoll, struct epoll_event *ready, uint64_t wait_ns)
{
    const struct timespec timeout = {.tv_sec = (time_t)(wait_ns / NS_PER_S),
                                     .tv_nsec = (long)(wait_ns % NS_PER_S)};
    long count =
        syscall(SYS_EPOLL_PWAIT2, epoll->fd, ready, EPOLL_EVENTS_MAX, &timeout, NULL, (size_t)0);
    if (count < 0 && errno != EINTR) {
        /* Linux before 5.11, or a filter that does not know the call. */
        epoll->lacks_ns = true;
        return wait_ms(epoll, ready, wait_ns);
    }
    return (int)count;
}

/* Asks the kernel what has changed, and waits up to `wait_ns` for it. */
static void ask(struct epoll *epoll, uint64_t wait_ns)
{
    ASSERT(epoll->ready_count == 0);
    if (epoll_call(epoll) < 0) return;
    bool is_plain = wait_ns == 0 || wait_ns == TIME_NEVER || epoll->lacks_ns;
    int count = is_plain ? wait_ms(epoll, epoll->ready, wait_ns)
                         : wait_ns_exactly(epoll, epoll->ready, wait_ns);
    if (count > 0) epoll->ready_count = (unsigned)count;
}

/* Notes what the kernel told, and marks whom it concerns. */
static void take_told(struct epoll *epoll)
{
    for (unsigned i = 0; i < epoll->ready_count; i++) {
        const struct epoll_event *told = &epoll->ready[i];
        uint64_t data = told->data.u64;
        if (data == EPOLL_LISTENER)
            epoll->listener.is_readable = epoll->listener.fd >= 0;
        else if (data == EPOLL_EVENT_FD)
            epoll->woken |= (told->events & EPOLLIN) != 0;
        else
            epoll_connection_told(epoll, (uint32_t)data, told->events);
    }
    epoll->ready_count = 0;
}

/* Services each connection that was marked before; new marks wait for the next time. */
static void connections_service(struct epoll *epoll, struct events *events)
{
    struct connections *table = &epoll->table;
    uint32_t index = table->marked;
    table->marked = LIST_END;
    while (index != LIST_END) {
        struct connection *connection = &table->list[index];
        index = connection->next;
        connection->is_marked = false;
        bool is_done = epoll_connection_service(epoll, connection, events);
        if (connection->state == CONNECTION_GONE)
            connection_gone(table, connection);
        else if (!is_done)
            connection_mark(table, connection);
    }
}

static void wakes_service(struct epoll *epoll)
{
    while (epoll->wakes_count > 0)
        (void)eventfd_write(epoll->wakes[--epoll->wakes_count]->event_fd, 1);
}

static unsigned epoll_io_wait(struct io *io, struct io_event *list, unsigned events_max,
                              uint64_t wait_ns)
{
    struct epoll *epoll = epoll_of(io);
    ASSERT(events_max > 0);
    struct events events = {list, 0, events_max};

    /* The owner is done with the events of the turn before. */
    connections_reap(&epoll->table);
    epoll->arena.used = 0;
    epoll_udp_turn(epoll);

    /* Wishes first, and what the turn before left over. */
    wakes_service(epoll);
    epoll_udp_split(epoll, &events);
    connections_service(epoll, &events);

    wait_ns = epoll_listener_wait_ns(epoll, wait_ns);
    bool is_due = events.count > 0 || epoll->woken || epoll->table.marked != LIST_END;
    if (epoll->ready_count == 0 && !events_are_full(&events)) ask(epoll, is_due ? 0 : wait_ns);
    if (epoll->ready_count > 0) {
        take_told(epoll);
        connections_service(epoll, &events);
    }
    (void)epoll_listener_wait_ns(epoll, 0); /* a pause may be over by now */
    epoll_accept(epoll, &events);
    if (epoll->woken && !events_are_full(&events)) {
        epoll->woken = false;
        events_add(&events, IO_WOKEN);
    }
    return events.count;
}

static bool epoll_io_ready(struct io *io)
{
    struct epoll *epoll = epoll_of(io);
    if (epoll->ready_count == 0) ask(epoll, 0);
    return epoll->ready_count > 0 || epoll->table.marked != LIST_END || epoll->woken ||
           epoll->wakes_count > 0 || epoll->udp.split_conn != IO_NONE ||
           epoll_listener_is_due(epoll);
}

/* ---- connections ---- */

static int epoll_io_listen(struct io *io, const struct address *address, void *context)
{
    return epoll_listen(epoll_of(io), address, context);
}

static int epoll_io_listen_address(struct io *io, struct address *address)
{
    return epoll_listen_address(epoll_of(io), address);
}

static void epoll_io_stop_listening(struct io *io)
{
    epoll_stop_listening(epoll_of(io));
}

static int64_t epoll_io_connect(struct io *io, const struct address *address, void *context)
{
    struct epoll *epoll = epoll_of(io);
    if (epoll->table.tcp_count == epoll->table.tcp_max) return -ENOSPC;
    int err = epoll_call(epoll);
    if (err < 0) return err;
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    err = socket_configure(fd);
    if (err < 0) {
        close(fd);
        return err;
    }
    struct connection *connection = connection_take(&epoll->table, fd, false, context);
    ASSERT(connection != NULL);
    connection->state = CONNECTION_CONNECTING;
    connection->peer = *address;
    connection_mark(&epoll->table, connection);
    return connection_handle(&epoll->table, connection);
}

static int64_t epoll_io_adopt(struct io *io, int fd, void *context)
{
    const int on = 1;
    struct epoll *epoll = epoll_of(io);
    if (epoll->table.tcp_count == epoll->table.tcp_max) return -ENOSPC;
    int err = epoll_call(epoll);
    if (err < 0) return err;
    /* What an accepted socket has, and this one may lack. */
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 && errno != EOPNOTSUPP)
        return -errno;
    struct connection *connection = connection_take(&epoll->table, fd, false, context);
    ASSERT(connection != NULL);
    connection->is_first = true;
    connection->is_writable = true;
    connection_mark(&epoll->table, connection);
    return connection_handle(&epoll->table, connection);
}

static int epoll_io_detach(struct io *io, uint32_t conn)
{
    struct epoll *epoll = epoll_of(io);
    struct connection *connection = connection_of(&epoll->table, conn);
    bool is_busy = connection->state != CONNECTION_UP || connection->is_udp ||
                   !connection->is_paused || connection->is_sending || connection->has_eof ||
                   held_bytes(&connection->held) > 0;
    if (is_busy) return -EBUSY;
    int fd = connection->fd;
    if (connection->is_watched && epoll_forget(epoll, fd) < 0) return -EBUSY;
    connection->fd = -1;
    connection->state = CONNECTION_DETACHED;
    held_clear(&connection->held, &epoll->table.blocks);
    connection_mark(&epoll->table, connection);
    return fd;
}

static void epoll_io_set_context(struct io *io, uint32_t conn, void *context)
{
    connection_of(&epoll_of(io)->table, conn)->context = context;
}

static void epoll_io_resume(struct io *io, uint32_t conn)
{
    struct epoll *epoll = epoll_of(io);
    struct connection *connection = connection_of(&epoll->table, conn);
    ASSERT(!connection->is_udp);
    if (connection->state != CONNECTION_UP) return;
    connection->is_first = false;
    if (!connection->is_paused) return;
    connection->is_paused = false;
    connection_mark(&epoll->table, connection);
}

static void epoll_io_pause(struct io *io, uint32_t conn, const void *rest, size_t rest_bytes)
{
    struct epoll *epoll = epoll_of(io);
    struct connection *connection = connection_of(&epoll->table, conn);
    ASSERT(!connection->is_udp);
    if (connection->state != CONNECTION_UP) return;
    connection->is_paused = true;
    int err = held_put_back(&connection->held, rest, rest_bytes, &epoll->table.blocks);
    if (err < 0) connection_end(&epoll->table, connection, err);
}

static void epoll_io_send(struct io *io, uint32_t conn, const struct iovec *parts,
                          unsigned parts_count)
{
    connection_set_send(&epoll_of(io)->table, conn, parts, parts_count);
}

static void epoll_io_finish(struct io *io, uint32_t conn)
{
    connection_finish(&epoll_of(io)->table, conn);
}

static void epoll_io_close(struct io *io, uint32_t conn)
{
    struct epoll *epoll = epoll_of(io);
    struct connection *connection = connection_of(&epoll->table, conn);
    connection_end(&epoll->table, connection, connection->told_eof ? 0 : -ECANCELED);
}

/* ---- datagrams ---- */

static int64_t epoll_io_udp_open(struct io *io, const struct address *address, void *context)
{
    return epoll_udp_open(epoll_of(io), address, context);
}

static int epoll_io_udp_address(struct io *io, uint32_t conn, struct address *address)
{
    const struct connection *connection = connection_of(&epoll_of(io)->table, conn);
    return connection->fd < 0 ? -EBADF : socket_address(connection->fd, address);
}

static int epoll_io_udp_send(struct io *io, uint32_t conn, const struct io_datagram *datagrams,
                             unsigned count)
{
    struct epoll *epoll = epoll_of(io);
    return epoll_udp_send(epoll, connection_of(&epoll->table, conn), datagrams, count);
}

/* ---- waking, and an owner that polls ---- */

static void epoll_io_wake(struct io *io, struct io *from)
{
    struct epoll *target = epoll_of(io);
    if (from == NULL || from->table != io->table) {
        (void)eventfd_write(target->event_fd, 1);
        return;
    }
    struct epoll *source = epoll_of(from);
    if (source == target) {
        source->woken = true;
        return;
    }
    for (unsigned i = 0; i < source->wakes_count; i++)
        if (source->wakes[i] == target) return;
    if (source->wakes_count < EPOLL_WAKES_MAX)
        source->wakes[source->wakes_count++] = target;
    else
        (void)eventfd_write(target->event_fd, 1);
}

static int epoll_io_fd(struct io *io)
{
    struct epoll *epoll = epoll_of(io);
    if (epoll->bell.fd >= 0) return epoll->bell.fd;
    int err = epoll_call(epoll);
    if (err < 0) return err;
    err = bell_open(&epoll->bell);
    if (err < 0) return err;
    err = bell_watch(&epoll->bell, epoll->fd);
    if (err < 0) {
        bell_close(&epoll->bell);
        return err;
    }
    return epoll->bell.fd;
}

static void epoll_io_arm(struct io *io, uint64_t due_ns)
{
    struct epoll *epoll = epoll_of(io);
    bell_arm(&epoll->bell, due_ns, io);
}

/* ---- opening and destroying ---- */

static void epoll_io_destroy(struct io *io)
{
    struct epoll *epoll = epoll_of(io);
    epoll_stop_listening(epoll);
    connections_close(&epoll->table);
    epoll_udp_close(epoll);
    memory_release(epoll->arena.memory, epoll->arena.bytes);
    bell_close(&epoll->bell);
    close(epoll->event_fd);
    close(epoll->fd);
    memory_put(epoll);
}

static const struct io_table epoll_table = {
    .listen = epoll_io_listen,
    .listen_address = epoll_io_listen_address,
    .connect = epoll_io_connect,
    .adopt = epoll_io_adopt,
    .detach = epoll_io_detach,
    .set_context = epoll_io_set_context,
    .resume = epoll_io_resume,
    .pause = epoll_io_pause,
    .send = epoll_io_send,
    .finish = epoll_io_finish,
    .close = epoll_io_close,
    .stop_listening = epoll_io_stop_listening,
    .udp_open = epoll_io_udp_open,
    .udp_address = epoll_io_udp_address,
    .udp_send = epoll_io_udp_send,
    .wait = epoll_io_wait,
    .ready = epoll_io_ready,
    .wake = epoll_io_wake,
    .fd = epoll_io_fd,
    .arm = epoll_io_arm,
    .destroy = epoll_io_destroy,
};

static int arena_open(struct epoll_arena *arena, const struct epoll_options *options)
{
    size_t count = options->buffers_count > 0 ? options->buffers_count : BUFFERS_COUNT_DEFAULT;
    arena->data_bytes = options->buffer_bytes > 0 ? options->buffer_bytes : BUFFER_BYTES_DEFAULT;
    arena->bytes = count * (IO_HEADROOM_BYTES + round_up(arena->data_bytes, CACHE_LINE));
    arena->memory = memory_reserve(arena->bytes, 0);
    return arena->memory != NULL ? 0 : -ENOMEM;
}

static int descriptors_open(struct epoll *epoll)
{
    epoll->fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll->fd < 0) return -errno;
    epoll->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int err =
        epoll->event_fd < 0 ? -errno : epoll_watch(epoll, epoll->event_fd, EPOLLIN, EPOLL_EVENT_FD);
    if (err == 0) return 0;
    if (epoll->event_fd >= 0) close(epoll->event_fd);
    close(epoll->fd);
    return err;
}

static int open_all(struct epoll *epoll, const struct epoll_options *options)
{
    *epoll = (struct epoll){
        .io.table = &epoll_table,
        .listener.fd = -1,
        .udp.split_conn = IO_NONE,
        .bell = BELL_CLOSED,
        .trace = options->trace,
    };
    int err = connections_open(&epoll->table, options->connections_max, &epoll->io.counters);
    if (err < 0) return err;
    err = arena_open(&epoll->arena, options);
    if (err < 0) goto close_table;
    err = descriptors_open(epoll);
    if (err < 0) goto close_arena;
    return 0;

close_arena:
    memory_release(epoll->arena.memory, epoll->arena.bytes);
close_table:
    connections_close(&epoll->table);
    return err;
}

int epoll_open(const struct epoll_options *options, struct io **io)
{
    struct epoll *epoll = memory_take(sizeof *epoll);
    if (epoll == NULL) return -ENOMEM;
    int err = open_all(epoll, options);
    if (err < 0) {
        memory_put(epoll);
        return err;
    }
    *io = &epoll->io;
    return 0;
}

void epoll_fail_after(struct io *io, uint64_t countdown, int err)
{
    ASSERT(err <= 0);
    struct epoll *epoll = epoll_of(io);
    ASSERT(io->table == &epoll_table);
    epoll->fail_countdown = countdown;
    epoll->fail_err = err;
}
