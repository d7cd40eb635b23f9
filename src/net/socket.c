/*
 * Running out of descriptors. The kernel takes a descriptor before it takes a connection from its
 * queue, so that loses none: accepting pauses and tries again after a while. The last few descriptors
 * are left to whatever else the process opens: a connection that would take one of them is closed,
 * and accepting pauses.
 */
#include "net/socket.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"

/* The kernel lowers it to net.core.somaxconn. */
#define BACKLOG 4096
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

int socket_listen(const struct address *address, int flags)
{
    const int on = 1;
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
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

int socket_udp(const struct address *address, bool coalesces)
{
    const int on = 1;
    int fd = socket(address->any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (bind(fd, &address->any, address_bytes(address)) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    /* Where the kernel has none, datagrams come one by one. */
    if (coalesces) (void)setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on);
    return fd;
}

bool socket_is_spare(int fd)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
           (rlim_t)fd + DESCRIPTORS_SPARE >= limit.rlim_cur;
}

bool socket_is_gone(int err)
{
    switch (-err) {
    case ECANCELED:
    case EINTR:
    case EAGAIN:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EPERM: return true;
    default: return false;
    }
}

bool socket_goes_on(int err)
{
    switch (-err) {
    case EINTR:
    case EAGAIN:
    case ENOBUFS:
    case ECANCELED:
    /* What an ICMP message said about an earlier datagram of ours. */
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EMSGSIZE: return true;
    default: return false;
    }
}

uint64_t socket_pause(struct io_counters *counters, const struct trace *trace, int err)
{
    if (counters->accept_pauses++ == 0)
        trace_line(trace, TRACE_WARN,
                   "net: cannot accept connections: %s; they wait. Type: ulimit -n 65536, or set "
                   "LimitNOFILE=65536 in the systemd unit",
                   strerror(-err));
    return clock_now_ns() + PAUSE_NS;
}
