/*
 * Accepting on epoll. The kernel tells once that somebody waits, and some are taken each turn until
 * there is nobody, or no room in the table: then they wait in the kernel's queue.
 */
#include <errno.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "net/epoll_state.h"

/* A turn takes no more, so that a crowd at the door does not keep those inside waiting. */
#define ACCEPTS_MAX 64

int epoll_listen(struct epoll *epoll, const struct address *address, void *context)
{
    struct epoll_listener *listener = &epoll->listener;
    if (listener->fd >= 0) return -EALREADY;
    int err = epoll_call(epoll);
    if (err < 0) return err;
    int fd = socket_listen(address, SOCK_NONBLOCK);
    if (fd < 0) return fd;
    err = epoll_watch(epoll, fd, EPOLLIN, EPOLL_LISTENER);
    if (err < 0) {
        close(fd);
        return err;
    }
    *listener = (struct epoll_listener){.fd = fd, .context = context};
    return 0;
}

int epoll_listen_address(struct epoll *epoll, struct address *address)
{
    if (epoll->listener.fd < 0) return -ENOTCONN;
    return socket_address(epoll->listener.fd, address);
}

void epoll_stop_listening(struct epoll *epoll)
{
    struct epoll_listener *listener = &epoll->listener;
    if (listener->fd < 0) return;
    close(listener->fd);
    *listener = (struct epoll_listener){.fd = -1};
}

static bool has_room(const struct epoll *epoll)
{
    return epoll->table.tcp_count < epoll->table.tcp_max;
}

bool epoll_listener_is_due(const struct epoll *epoll)
{
    const struct epoll_listener *listener = &epoll->listener;
    return listener->is_readable && listener->resume_at_ns == 0 && has_room(epoll);
}

uint64_t epoll_listener_wait_ns(struct epoll *epoll, uint64_t wait_ns)
{
    struct epoll_listener *listener = &epoll->listener;
    if (LIKELY(!listener->is_readable) || !has_room(epoll)) return wait_ns;
    if (listener->resume_at_ns == 0) return 0;
    uint64_t now_ns = clock_now_ns();
    if (now_ns < listener->resume_at_ns) return min_u64(wait_ns, listener->resume_at_ns - now_ns);
    listener->resume_at_ns = 0;
    return 0;
}

static void pause_accepting(struct epoll *epoll, int err)
{
    epoll->listener.resume_at_ns = socket_pause(&epoll->io.counters, epoll->trace, err);
}

static void on_accepted(struct epoll *epoll, int fd, const struct address *peer,
                        struct events *events)
{
    struct connections *table = &epoll->table;
    if (socket_is_spare(fd)) {
        close(fd);
        pause_accepting(epoll, -EMFILE);
        return;
    }
    struct connection *connection = connection_take(table, fd, false, epoll->listener.context);
    ASSERT(connection != NULL);
    connection->peer = *peer;
    connection->is_first = true;
    connection->is_writable = true;
    connection_mark(table, connection);
    struct io_event *event = connection_event(table, connection, events, IO_ACCEPTED);
    event->address = &connection->peer;
}

void epoll_accept(struct epoll *epoll, struct events *events)
{
    struct epoll_listener *listener = &epoll->listener;
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        if (!epoll_listener_is_due(epoll) || events_are_full(events)) return;
        struct address peer = {0};
        socklen_t bytes = sizeof peer;
        int fd = epoll_call(epoll);
        if (fd == 0) {
            fd = accept4(listener->fd, &peer.any, &bytes, SOCK_CLOEXEC);
            if (fd < 0) fd = -errno;
        }
        if (fd >= 0)
            on_accepted(epoll, fd, &peer, events);
        else if (fd == -EAGAIN)
            listener->is_readable = false;
        else if (!socket_is_gone(fd))
            pause_accepting(epoll, fd);
    }
}
