/*
 * Accepting. One multishot accept serves while there is plenty of room in the table; close to its
 * end single accepts do, one a turn, since a multishot one would take more connections out of the
 * kernel's queue than there are slots for. When the table is full nothing is armed: the kernel's
 * queue holds the rest, and SYNs behind it are tried again by TCP.
 *
 * Running out of descriptors is net/socket.c's.
 */
#include <errno.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "net/uring_state.h"

/* Below so many free slots multishot gives way: it can bring a whole queue at once. */
#define FREE_MIN_MULTISHOT 4096
int listener_listen(struct uring *uring, const struct address *address, void *context)
{
    struct listener *listener = &uring->listener;
    if (listener->fd >= 0) return -EALREADY;
    if (queue_fails_now(&uring->queue)) return uring->queue.fail_err;
    int fd = socket_listen(address, 0);
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
    uring->listener.resume_at_ns = socket_pause(&uring->io.counters, uring->trace, err);
}

static void on_accepted(struct uring *uring, int fd, struct events *events)
{
    if (socket_is_spare(fd)) {
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
        connection = connection_take(&uring->table, fd, false, uring->listener.context);
    if (connection == NULL) {
        close(fd);
        return;
    }
    connection->peer = peer;
    connection->is_first = true;
    connection_mark(&uring->table, connection);
    struct io_event *event = events_add(events, IO_ACCEPTED);
    event->conn = connection_handle(&uring->table, connection);
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
        else if (!listener->is_stopping && !socket_is_gone(completion->result))
            pause_accepting(uring, completion->result);
    }
    if (listener->is_stopping && !listener->is_armed && !listener->is_cancelling)
        listener_close(listener);
}
