/*
 * struct io on io_uring: one ring a shard, one system call a turn.
 *
 * Why so. A system call costs as much as 500 messages may, so everything is batched around one
 * io_uring_enter: it submits the sends and receives that the turn asked for, runs the completions
 * that the kernel deferred, and waits. Receives are multishot into a small group of large buffers,
 * sends go straight out of the owner's memory. Newer ways (bundles, incremental buffers, zero-copy
 * on loopback) measured no better than this and are off.
 *
 * Overflow. Every completion has its room in the queue: one for each buffer, four for each
 * connection (receive, send and its notification, cancel), a full queue of accepts, and some for
 * wake-ups. Above 15,000 connections the kernel's limit of 65,536 entries is met; it then keeps what
 * does not fit and hands it over later, which costs time and is counted.
 *
 * Waking. A ring wakes another with a message (MSG_RING) that rides on the turn's own call, or with
 * a write to its eventfd, as other threads do. The eventfd is never read: each write wakes the
 * multishot poll on it, and 2^64 of them will not come.
 */
#include "net/uring.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/memory.h"
#include "net/uring_probe.h"
#include "net/uring_state.h"

#define BUFFERS_COUNT_DEFAULT 64
#define BUFFER_BYTES_DEFAULT (128 * KIB)
#define REQUESTS_COUNT 1024
#define COMPLETIONS_COUNT_MIN 8192
#define COMPLETIONS_PER_CONNECTION 4
/* io_destroy reads completions this often before it gives up on the kernel. */
#define DESTROY_TURNS_MAX 1000

static const struct io_table uring_table;

/* ---- waiting ---- */

static void event_poll_arm(struct uring *uring)
{
    if (LIKELY(uring->event_armed)) return;
    struct io_uring_sqe *request = queue_request(&uring->queue);
    if (request == NULL) return;
    io_uring_prep_poll_multishot(request, uring->event_fd, POLLIN);
    uring->event_armed = true;
    queue_start(&uring->queue, request, user_data_of(OPERATION_WAKE_POLL, 1, 0));
}

static bool wakes_service(struct uring *uring)
{
    static const uint64_t one = 1;
    while (uring->wakes_count > 0) {
        struct io_uring_sqe *request = queue_request(&uring->queue);
        if (request == NULL) return false;
        const struct uring *target = uring->wakes[--uring->wakes_count];
        if (uring->queue.features & URING_MSG_RING)
            io_uring_prep_msg_ring(request, target->queue.uring.ring_fd, 0,
                                   user_data_of(OPERATION_WOKEN, 1, 0), 0);
        else
            io_uring_prep_write(request, target->event_fd, &one, sizeof one, 0);
        request->flags |= IOSQE_CQE_SKIP_SUCCESS;
        queue_start(&uring->queue, request,
                    user_data_of(OPERATION_WAKE_SEND, 1, (uint32_t)target->event_fd));
    }
    return true;
}

/* Services each connection that was marked before; new marks wait for the next turn. */
static void connections_service(struct uring *uring, struct events *events)
{
    uint32_t index = uring->table.marked;
    uring->table.marked = LIST_END;
    while (index != LIST_END) {
        struct connection *connection = &uring->table.list[index];
        index = connection->next;
        connection->is_marked = false;
        bool is_done = connection_service(uring, connection, events);
        if (connection->state == CONNECTION_GONE) {
            connection_gone(&uring->table, connection);
        } else if (!is_done) {
            connection_mark(&uring->table, connection);
        }
    }
}

static void on_completion(struct uring *uring, const struct completion *completion,
                          struct events *events)
{
    switch (user_data_operation(completion->user_data)) {
    case OPERATION_RECEIVE:
    case OPERATION_SEND:
    case OPERATION_CONNECT:
    case OPERATION_CANCEL:
    case OPERATION_UDP_RECEIVE: connection_on_completion(uring, completion, events); return;
    case OPERATION_UDP_SEND: udp_on_send(uring, completion); return;
    case OPERATION_ACCEPT:
    case OPERATION_ACCEPT_CANCEL: listener_on_completion(uring, completion, events); return;
    case OPERATION_WAKE_POLL:
        uring->woken = true;
        if (!(completion->flags & IORING_CQE_F_MORE)) uring->event_armed = false;
        return;
    case OPERATION_WOKEN: uring->woken = true; return;
    case OPERATION_WAKE_SEND:
        /* Only failures are told. The eventfd always works. */
        (void)eventfd_write((int)user_data_index(completion->user_data), 1);
        return;
    }
    ASSERT(false);
}

/* A completion makes at most one event, or fills the rest of the list. */
static void reap(struct uring *uring, struct events *events)
{
    struct completion completion;
    udp_split(uring, events);
    while (!events_are_full(events) && queue_pop(&uring->queue, &completion))
        on_completion(uring, &completion, events);
    if (uring->woken && !events_are_full(events)) {
        uring->woken = false;
        events_add(events, IO_WOKEN);
    }
}

/* Whether one connection is marked and nothing else asks for a call. */
static bool would_call_for_one(const struct uring *uring)
{
    return uring->table.marked != LIST_END && uring->table.marked == uring->table.marked_last &&
           uring->wakes_count == 0 && queue_requests_count(&uring->queue) == 0 &&
           !queue_needs_enter(&uring->queue) && !(uring->queue.features & URING_SEND_ZC);
}

static unsigned uring_wait(struct io *io, struct io_event *list, unsigned events_max,
                           uint64_t wait_ns)
{
    struct uring *uring = uring_of(io);
    ASSERT(events_max > 0);
    struct events events = {list, 0, events_max};

    /* The owner is done with the events of the turn before. */
    connections_reap(&uring->table);
    buffers_publish(&uring->buffers);
    buffers_publish(&uring->udp.buffers);

    uring->sends_now = wait_ns == 0 && would_call_for_one(uring);
    uint64_t direct_sends = uring->io.counters.direct_sends;
    /* Wishes become requests, and events that need no kernel come first. */
    connections_service(uring, &events);
    if (!udp_sends_service(uring)) wait_ns = 0;
    if (!wakes_service(uring)) wait_ns = 0;
    event_poll_arm(uring);
    wait_ns = listener_service(uring, wait_ns);

    bool is_due = events.count > 0 || uring->woken || uring->table.marked != LIST_END ||
                  uring->udp.split_conn != IO_NONE || queue_has_completions(&uring->queue);
    if (is_due) wait_ns = 0;
    /* What came while we sent past the ring is the next turn's: one system call a turn. */
    bool has_called = uring->io.counters.direct_sends != direct_sends;
    if (wait_ns > 0 || queue_requests_count(&uring->queue) > 0 ||
        (queue_needs_enter(&uring->queue) && !has_called))
        (void)queue_enter(&uring->queue, wait_ns);

    reap(uring, &events);
    return events.count;
}

static bool uring_ready(struct io *io)
{
    const struct uring *uring = uring_of(io);
    return queue_has_completions(&uring->queue) || queue_needs_enter(&uring->queue) ||
           uring->table.marked != LIST_END || uring->woken || uring->wakes_count > 0 ||
           queue_requests_count(&uring->queue) > 0 || uring->udp.split_conn != IO_NONE ||
           uring->udp.sends_queued != LIST_END || listener_is_due(uring);
}

/* ---- connections ---- */

static int uring_listen(struct io *io, const struct address *address, void *context)
{
    return listener_listen(uring_of(io), address, context);
}

static int uring_listen_address(struct io *io, struct address *address)
{
    return listener_address(uring_of(io), address);
}

static void uring_stop_listening(struct io *io)
{
    listener_stop(uring_of(io));
}

static int64_t uring_connect(struct io *io, const struct address *address, void *context)
{
    struct uring *uring = uring_of(io);
    if (connections_free_count(uring) == 0) return -ENOSPC;
    if (queue_fails_now(&uring->queue)) return uring->queue.fail_err;
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int err = socket_configure(fd);
    if (err < 0) {
        close(fd);
        return err;
    }
    struct connection *connection = connection_take(&uring->table, fd, false, context);
    if (connection == NULL) {
        close(fd);
        return -ENOSPC;
    }
    connection->state = CONNECTION_CONNECTING;
    connection->peer = *address;
    connection_mark(&uring->table, connection);
    return connection_handle(&uring->table, connection);
}

/* What an accepted socket has, and this one may lack. */
static int socket_prepare(int fd)
{
    const int on = 1;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    /* With O_NONBLOCK the kernel reports -EAGAIN instead of waiting inside of the ring. */
    if ((flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0) return -errno;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 && errno != EOPNOTSUPP)
        return -errno;
    return 0;
}

static int64_t uring_adopt(struct io *io, int fd, void *context)
{
    struct uring *uring = uring_of(io);
    if (connections_free_count(uring) == 0) return -ENOSPC;
    if (queue_fails_now(&uring->queue)) return uring->queue.fail_err;
    int err = socket_prepare(fd);
    if (err < 0) return err;
    struct connection *connection = connection_take(&uring->table, fd, false, context);
    if (connection == NULL) return -ENOSPC;
    connection->is_first = true;
    connection_mark(&uring->table, connection);
    return connection_handle(&uring->table, connection);
}

static int uring_detach(struct io *io, uint32_t conn)
{
    struct uring *uring = uring_of(io);
    struct connection *connection = connection_of(&uring->table, conn);
    bool is_busy = connection->state != CONNECTION_UP || connection->is_udp ||
                   !connection->is_paused || connection->operations > 0 || connection->is_sending ||
                   connection->has_eof || connection->stash_first != NO_BUFFER ||
                   held_bytes(&connection->held) > 0;
    if (is_busy) return -EBUSY;
    int fd = connection->fd;
    connection->fd = -1;
    connection->state = CONNECTION_DETACHED;
    held_clear(&connection->held, &uring->table.blocks);
    connection_mark(&uring->table, connection);
    return fd;
}

static void uring_set_context(struct io *io, uint32_t conn, void *context)
{
    connection_of(&uring_of(io)->table, conn)->context = context;
}

static void uring_resume(struct io *io, uint32_t conn)
{
    struct uring *uring = uring_of(io);
    struct connection *connection = connection_of(&uring->table, conn);
    ASSERT(!connection->is_udp);
    if (connection->state != CONNECTION_UP) return;
    connection->is_paused = false;
    connection->is_first = false;
    connection_mark(&uring->table, connection);
}

static void uring_pause(struct io *io, uint32_t conn, const void *rest, size_t rest_bytes)
{
    struct uring *uring = uring_of(io);
    struct connection *connection = connection_of(&uring->table, conn);
    ASSERT(!connection->is_udp);
    if (connection->state != CONNECTION_UP) return;
    receive_pause(uring, connection, rest, rest_bytes);
}

static void uring_send(struct io *io, uint32_t conn, const struct iovec *parts,
                       unsigned parts_count)
{
    connection_set_send(&uring_of(io)->table, conn, parts, parts_count);
}

static void uring_finish(struct io *io, uint32_t conn)
{
    connection_finish(&uring_of(io)->table, conn);
}

static void uring_close(struct io *io, uint32_t conn)
{
    struct uring *uring = uring_of(io);
    struct connection *connection = connection_of(&uring->table, conn);
    connection_end(&uring->table, connection, connection->told_eof ? 0 : -ECANCELED);
}

/* ---- datagrams ---- */

static int64_t uring_udp_open(struct io *io, const struct address *address, void *context)
{
    return udp_open(uring_of(io), address, context);
}

static int uring_udp_address(struct io *io, uint32_t conn, struct address *address)
{
    const struct connection *connection = connection_of(&uring_of(io)->table, conn);
    return connection->fd < 0 ? -EBADF : socket_address(connection->fd, address);
}

static int uring_udp_send(struct io *io, uint32_t conn, const struct io_datagram *datagrams,
                          unsigned count)
{
    struct uring *uring = uring_of(io);
    return udp_send(uring, connection_of(&uring->table, conn), datagrams, count);
}

/* ---- waking ---- */

/*
 * From another thread, at once. An owner that polls is rung, too: the kernel must not write to one
 * eventfd inside a write to another, puts it off, and some kernels (seen: 6.18) do so only once in a
 * ring's life. The ring then has work and says nothing of it, nor of what comes behind it.
 */
static void wake_now(struct uring *uring)
{
    (void)eventfd_write(uring->event_fd, 1);
    if (uring->bell.fd >= 0) bell_ring(&uring->bell);
}

static void uring_wake(struct io *io, struct io *from)
{
    struct uring *target = uring_of(io);
    if (from == NULL || from->table != io->table) {
        wake_now(target);
        return;
    }
    struct uring *source = uring_of(from);
    if (source == target) {
        source->woken = true;
        return;
    }
    for (unsigned i = 0; i < source->wakes_count; i++)
        if (source->wakes[i] == target) return;
    if (source->wakes_count < WAKES_MAX)
        source->wakes[source->wakes_count++] = target;
    else
        wake_now(target);
}

/* ---- an owner that polls ---- */

static int uring_fd(struct io *io)
{
    struct uring *uring = uring_of(io);
    if (uring->bell.fd >= 0) return uring->bell.fd;
    if (queue_fails_now(&uring->queue)) return uring->queue.fail_err;
    int err = bell_open(&uring->bell);
    if (err < 0) return err;
    err = queue_watch(&uring->queue, uring->bell.event_fd);
    if (err < 0) {
        bell_close(&uring->bell);
        return err;
    }
    return uring->bell.fd;
}

static void uring_arm(struct io *io, uint64_t due_ns)
{
    bell_arm(&uring_of(io)->bell, due_ns, io);
}

/* ---- opening and destroying ---- */

static bool has_operations(const struct uring *uring)
{
    if (uring->event_armed || uring->listener.is_armed || uring->listener.is_cancelling)
        return true;
    for (uint32_t i = 0; i < uring->table.used; i++)
        if (uring->table.list[i].operations > 0) return true;
    return false;
}

/* Reads every completion: a descriptor that was accepted must be closed. */
static void drain(struct uring *uring)
{
    struct io_event list[16] = {0};
    for (unsigned turn = 0; has_operations(uring) && turn < DESTROY_TURNS_MAX; turn++) {
        struct events events = {list, 0, ARRAY_COUNT(list)};
        if (queue_enter(&uring->queue, queue_has_completions(&uring->queue) ? 0 : NS_PER_MS) < 0)
            break;
        reap(uring, &events);
        held_blocks_free(&uring->table.blocks);
    }
}

/*
 * Ends what is in flight of connections, one after the other: to cancel everything at once, the kernel
 * goes through all requests for each of them, which took 2.5 s with 19,000 connections.
 */
static void end_connections(struct uring *uring)
{
    struct io_event list[16] = {0};
    for (uint32_t i = 0; i < uring->table.used; i++) {
        const struct connection *connection = &uring->table.list[i];
        if (connection->operations > 0 && connection->fd >= 0 && !connection->is_udp)
            (void)shutdown(connection->fd, SHUT_RDWR);
    }
    uint32_t turns_max = uring->table.used + DESTROY_TURNS_MAX;
    for (uint32_t turn = 0; turn < turns_max && queue_enter(&uring->queue, 0) == 0; turn++) {
        struct events events = {list, 0, ARRAY_COUNT(list)};
        if (!queue_has_completions(&uring->queue)) break;
        reap(uring, &events);
        held_blocks_free(&uring->table.blocks);
    }
}

static void uring_destroy(struct io *io)
{
    struct uring *uring = uring_of(io);
    /* Nothing of ours is in the kernel's hands when the memory goes, and ports are free at once. */
    listener_stop(uring);
    (void)queue_enter(&uring->queue, 0);
    end_connections(uring);
    queue_cancel_all(&uring->queue);
    drain(uring);
    queue_close(&uring->queue);
    if (uring->listener.fd >= 0) close(uring->listener.fd);
    connections_close(&uring->table);
    udp_close(uring);
    buffers_close(&uring->buffers);
    memory_put(uring->stashed);
    bell_close(&uring->bell);
    close(uring->event_fd);
    memory_put(uring);
}

static const struct io_table uring_table = {
    .listen = uring_listen,
    .listen_address = uring_listen_address,
    .connect = uring_connect,
    .adopt = uring_adopt,
    .detach = uring_detach,
    .set_context = uring_set_context,
    .resume = uring_resume,
    .pause = uring_pause,
    .send = uring_send,
    .finish = uring_finish,
    .close = uring_close,
    .stop_listening = uring_stop_listening,
    .udp_open = uring_udp_open,
    .udp_address = uring_udp_address,
    .udp_send = uring_udp_send,
    .wait = uring_wait,
    .ready = uring_ready,
    .wake = uring_wake,
    .fd = uring_fd,
    .arm = uring_arm,
    .destroy = uring_destroy,
};

static uint32_t power_of_two_above(uint64_t value)
{
    uint32_t power = COMPLETIONS_COUNT_MIN;
    while (power < value && power < (1u << 30)) power *= 2;
    return power;
}

/* Rings count as locked memory on many kernels; take what we may have. */
static void memlock_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_MEMLOCK, &limit);
}

static int tables_open(struct uring *uring, const struct uring_options *options,
                       uint32_t buffers_count)
{
    int err = connections_open(&uring->table, options->connections_max, &uring->io.counters);
    if (err < 0) return err;
    uring->stashed = memory_take(buffers_count * sizeof *uring->stashed);
    if (uring->stashed == NULL) {
        connections_close(&uring->table);
        return -ENOMEM;
    }
    return 0;
}

static int queue_and_buffers_open(struct uring *uring, const struct uring_options *options,
                                  uint32_t buffers_count)
{
    uint64_t completions = COMPLETIONS_PER_CONNECTION * (uint64_t)uring->table.count +
                           buffers_count + COMPLETIONS_COUNT_MIN / 2;
    const struct queue_options queue = {
        .requests = REQUESTS_COUNT,
        .completions = power_of_two_above(completions),
        .features = options->features,
        .enters = &uring->io.counters.enters,
        .overflows = &uring->io.counters.overflows,
    };
    int err = queue_open(&uring->queue, &queue);
    if (err < 0) return err;
    const struct buffers_options buffers = {
        .count = buffers_count,
        .data_bytes = options->buffer_bytes > 0 ? options->buffer_bytes : BUFFER_BYTES_DEFAULT,
        .headroom_bytes = IO_HEADROOM_BYTES,
        .group = GROUP_TCP,
    };
    err = buffers_open(&uring->buffers, &buffers, &uring->queue.uring);
    if (err < 0) queue_close(&uring->queue);
    return err;
}

static int open_all(struct uring *uring, const struct uring_options *options)
{
    uint32_t buffers_count =
        options->buffers_count > 0 ? options->buffers_count : BUFFERS_COUNT_DEFAULT;
    *uring = (struct uring){
        .io.table = &uring_table,
        .listener.fd = -1,
        .udp.split_conn = IO_NONE,
        .udp.sends_queued = LIST_END,
        .bell = BELL_CLOSED,
        .trace = options->trace,
    };
    uring->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (uring->event_fd < 0) return -errno;
    int err = tables_open(uring, options, buffers_count);
    if (err < 0) goto close_event_fd;
    err = queue_and_buffers_open(uring, options, buffers_count);
    if (err < 0) goto close_tables;
    return 0;

close_tables:
    connections_close(&uring->table);
    memory_put(uring->stashed);
close_event_fd:
    close(uring->event_fd);
    return err;
}

int uring_open(const struct uring_options *options, struct io **io, char *reason)
{
    ASSERT(options->connections_max > 0 && options->connections_max <= CONNECTIONS_MAX);
    ASSERT(options->buffers_count == 0 || is_power_of_two(options->buffers_count));
    ASSERT(options->buffers_count <= BUFFERS_COUNT_MAX);
    reason[0] = '\0';
    memlock_raise();
    struct uring *uring = memory_take(sizeof *uring);
    int err = uring != NULL ? open_all(uring, options) : -ENOMEM;
    if (err < 0) {
        struct uring_facts facts = uring_facts_read(err);
        uring_refusal(&facts, reason);
        memory_put(uring);
        return err;
    }
    *io = &uring->io;
    return 0;
}

uint32_t uring_features(const struct io *io)
{
    ASSERT(io->table == &uring_table);
    return ((const struct uring *)(const void *)io)->queue.features;
}

void uring_fail_after(struct io *io, uint64_t countdown, int err)
{
    ASSERT(err <= 0);
    struct uring *uring = uring_of(io);
    uring->queue.fail_countdown = countdown;
    uring->queue.fail_err = err;
}
