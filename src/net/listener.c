/*
 * Accepting. One multishot accept serves while there is plenty of room in the table; close to its
 * end single accepts do, one a turn, since a multishot one would take more connections out of the
 * kernel's queue than there are slots for. When the table is full nothing is armed: the kernel's
 * queue holds the rest, and SYNs behind it are tried again by TCP.
 *
 * The kernel takes a descriptor before it takes a connection from its queue, so running out of
 * descriptors loses none: accepting pauses and tries again after a while. The last few descriptors
 * are left to whatever else the process opens: a connection that would take one of them is closed,
 * and accepting pauses.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "net/uring_state.h"

/* The kernel lowers it to net.core.somaxconn. */
#define BACKLOG 4096
/* Below so many free slots multishot gives way: it can bring a whole queue at once. */
#define FREE_MIN_MULTISHOT BACKLOG
#define PAUSE_NS (100 * NS_PER_MS)
/* Descriptors that connections do not take. */
#define DESCRIPTORS_SPARE 8
/* A silent peer is asked after this, and then a few times more. */
#define KEEPALIVE_IDLE_S 30
#define KEEPALIVE_INTERVAL_S 10
#define KEEPALIVE_PROBES 3

int socket_address(int fd, struct address *address)
{
    socklen_t bytes = sizeof *address;
    *address = (struct address){0};
    return getsockname(fd, &address->any, &bytes) == 0 ? 0 : -errno;
}

int socket_configure(int fd)
{
    const int on = 1;
    const int idle_s = KEEPALIVE_IDLE_S;
    const int interval_s = KEEPALIVE_INTERVAL_S;
    const int probes = KEEPALIVE_PROBES;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes) < 0)
        return -errno;
    return 0;
}

static int socket_listen(struct uring *uring, const struct address *address)
{
    const int on = 1;
    if (queue_fails_now(&uring->queue)) return uring->queue.fail_err;
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int err = socket_configure(fd);
    if (err == 0 &&
        (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
         bind(fd, &address->any, address_bytes(address)) < 0 || listen(fd, BACKLOG) < 0))
        err = -errno;
    if (err == 0) return fd;
    close(fd);
    return err;
}

int listener_listen(struct uring *uring, const struct address *address, void *context)
{
    struct listener *listener = &uring->listener;
    if (listener->fd >= 0) return -EALREADY;
    int fd = socket_listen(uring, address);
    if (fd < 0) return fd;
    *listener = (struct listener){.fd = fd, .context = context};
    return 0;
}

int listener_address(struct uring *uring, struct address *address)
{
    if (uring->listener.fd < 0) return -ENOTCONN;
    return socket_address(uring->listener.fd, address);
}

static void listener_close(struct listener *listener)
{
    close(listener->fd);
    listener->fd = -1;
}

void listener_stop(struct uring *uring)
{
    struct listener *listener = &uring->listener;
    if (listener->fd < 0 || listener->is_stopping) return;
    listener->is_stopping = true;
    /* Ends an accept in flight, and nobody connects any more from this moment on. */
    shutdown(listener->fd, SHUT_RDWR);
    if (!listener->is_armed && !listener->is_cancelling) listener_close(listener);
}

static bool arm(struct uring *uring)
{
    struct listener *listener = &uring->listener;
    struct io_uring_sqe *request = queue_request(&uring->queue);
    if (request == NULL) return false;
    listener->is_multishot = connections_free_count(uring) >= FREE_MIN_MULTISHOT;
    listener->is_armed = true;
    if (listener->is_multishot)
        io_uring_prep_multishot_accept(request, listener->fd, NULL, NULL, SOCK_CLOEXEC);
    else
        io_uring_prep_accept(request, listener->fd, NULL, NULL, SOCK_CLOEXEC);
    queue_start(&uring->queue, request, user_data_of(OPERATION_ACCEPT, 1, 0));
    return true;
}

/* Makes the multishot accept end, so that single ones take over. */
static bool cancel(struct uring *uring)
{
    struct io_uring_sqe *request = queue_request(&uring->queue);
    if (request == NULL) return false;
    io_uring_prep_cancel64(request, user_data_of(OPERATION_ACCEPT, 1, 0), 0);
    uring->listener.is_cancelling = true;
    queue_start(&uring->queue, request, user_data_of(OPERATION_ACCEPT_CANCEL, 1, 0));
    return true;
}

bool listener_is_due(const struct uring *uring)
{
    const struct listener *listener = &uring->listener;
    return listener->fd >= 0 && !listener->is_armed && !listener->is_stopping &&
           listener->resume_at_ns == 0 && connections_free_count(uring) > 0;
}

uint64_t listener_service(struct uring *uring, uint64_t wait_ns)
{
    struct listener *listener = &uring->listener;
    if (LIKELY(listener->fd < 0 || listener->is_stopping)) return wait_ns;
    uint32_t free_count = connections_free_count(uring);
    if (listener->is_armed) {
        bool is_greedy = listener->is_multishot &&
                         (free_count < FREE_MIN_MULTISHOT || listener->resume_at_ns != 0);
        if (!is_greedy || listener->is_cancelling) return wait_ns;
        return cancel(uring) ? wait_ns : 0;
    }
    if (free_count == 0) return wait_ns;
    if (listener->resume_at_ns != 0) {
        uint64_t now_ns = clock_now_ns();
        if (now_ns < listener->resume_at_ns)
            return min_u64(wait_ns, listener->resume_at_ns - now_ns);
        listener->resume_at_ns = 0;
    }
    return arm(uring) ? wait_ns : 0;
}

static void pause_accepting(struct uring *uring, int32_t err)
{
    uring->io.counters.accept_pauses++;
    uring->listener.resume_at_ns = clock_now_ns() + PAUSE_NS;
    if (uring->io.counters.accept_pauses == 1)
        trace_line(uring->trace, TRACE_WARN,
                   "cannot accept connections: %s; they wait. Type: ulimit -n 65536, or set "
                   "LimitNOFILE=65536 in the systemd unit",
                   strerror(-err));
}

static void on_error(struct uring *uring, int32_t err)
{
    switch (-err) {
    case ECANCELED:
    case EINTR:
    case EAGAIN:
    /* These belong to the connection that was to be accepted, which is gone. */
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EPERM: break;
    default: pause_accepting(uring, err); break;
    }
}

/* Descriptors are given out from the lowest free one on: whether this is one of the last. */
static bool is_spare(int fd)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
           (rlim_t)fd + DESCRIPTORS_SPARE >= limit.rlim_cur;
}

static void on_accepted(struct uring *uring, int fd, struct events *events)
{
    if (is_spare(fd)) {
        close(fd);
        pause_accepting(uring, -EMFILE);
        return;
    }
    struct address peer = {0};
    socklen_t bytes = sizeof peer;
    if (getpeername(fd, &peer.any, &bytes) < 0) {
        /* ENOTCONN: it is gone already. Anything else is no socket: kernels 6.6 to 6.8 could
         * complete with a descriptor that was never ours, which we must not close. */
        if (errno == ENOTCONN) close(fd);
        return;
    }
    struct connection *connection = NULL;
    if (!uring->listener.is_stopping)
        connection = connection_take(uring, fd, false, uring->listener.context);
    if (connection == NULL) {
        close(fd);
        return;
    }
    connection->peer = peer;
    connection->is_first = true;
    connection_mark(uring, connection);
    struct io_event *event = events_add(events, IO_ACCEPTED);
    event->conn = connection_handle(uring, connection);
    event->context = connection->context;
    event->address = &connection->peer;
}

void listener_on_completion(struct uring *uring, const struct completion *completion,
                            struct events *events)
{
    struct listener *listener = &uring->listener;
    if (user_data_operation(completion->user_data) == OPERATION_ACCEPT_CANCEL) {
        listener->is_cancelling = false;
    } else {
        ASSERT(listener->is_armed);
        if (!(completion->flags & IORING_CQE_F_MORE)) listener->is_armed = false;
        if (completion->result >= 0)
            on_accepted(uring, completion->result, events);
        else if (!listener->is_stopping)
            on_error(uring, completion->result);
    }
    if (listener->is_stopping && !listener->is_armed && !listener->is_cancelling)
        listener_close(listener);
}
