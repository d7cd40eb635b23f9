#include "bench/limit_wiring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"

static int socket_tune(int fd, uint32_t socket_bytes)
{
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0) return -errno;
    if (socket_bytes == 0) return 0;
    int bytes = (int)socket_bytes;
    /* More than net.core.wmem_max takes privilege; without it the kernel gives what it may. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) < 0) {
        return -errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 &&
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)) < 0) {
        return -errno;
    }
    return 0;
}

static int listen_anywhere(uint32_t socket_bytes, struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(*address);
    int err = socket_tune(fd, socket_bytes);
    if (err == 0 && (bind(fd, (struct sockaddr *)address, bytes) < 0 || listen(fd, 16) < 0 ||
                     getsockname(fd, (struct sockaddr *)address, &bytes) < 0)) {
        err = -errno;
    }
    if (err == 0) return fd;
    close(fd);
    return err;
}

static int connect_one(int listener, const struct sockaddr_in *address, uint32_t socket_bytes,
                       int *server_fd, int *client_fd)
{
    *client_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*client_fd < 0) return -errno;
    int err = socket_tune(*client_fd, socket_bytes);
    if (err < 0) return err;
    if (connect(*client_fd, (const struct sockaddr *)address, sizeof(*address)) < 0) return -errno;
    *server_fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC); /* cppcheck-suppress nullPointer */
    if (*server_fd < 0) return -errno;
    return socket_tune(*server_fd, socket_bytes);
}

void limit_wiring_deinit(struct limit_wiring *wiring)
{
    for (uint32_t i = 0; wiring->server_fds != NULL && i < 2 * wiring->count; i++) {
        if (wiring->server_fds[i] >= 0) close(wiring->server_fds[i]);
    }
    memory_put(wiring->server_fds);
    *wiring = (struct limit_wiring){0};
}

int limit_wiring_init(struct limit_wiring *wiring, uint32_t count, uint32_t socket_bytes)
{
    *wiring = (struct limit_wiring){.count = count};
    wiring->server_fds = memory_take(2 * count * sizeof(int));
    if (wiring->server_fds == NULL) return -ENOMEM;
    wiring->client_fds = wiring->server_fds + count;
    for (uint32_t i = 0; i < 2 * count; i++) wiring->server_fds[i] = -1;

    struct sockaddr_in address;
    int listener = listen_anywhere(socket_bytes, &address);
    int err = listener < 0 ? listener : 0;
    for (uint32_t i = 0; err == 0 && i < count; i++) {
        err = connect_one(listener, &address, socket_bytes, &wiring->server_fds[i],
                          &wiring->client_fds[i]);
    }
    if (listener >= 0) close(listener);
    if (err < 0) limit_wiring_deinit(wiring);
    return err;
}

void limit_hang_up(const int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) shutdown(fds[i], SHUT_RDWR);
}

int limit_poller_open(const int *fds, uint32_t count)
{
    int poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) return -errno;
    for (uint32_t i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fds[i], &event) < 0) {
            int err = -errno;
            close(poller);
            return err;
        }
    }
    return poller;
}

bool limit_is_later(int err)
{
    return err == -EAGAIN || err == -EINTR;
}

ssize_t limit_receive(int fd, uint8_t *to, size_t bytes, int flags)
{
    ssize_t got = recv(fd, to, bytes, flags);
    if (got < 0) return -errno;
    return got == 0 ? -EPIPE : got;
}

ssize_t limit_send(int fd, const uint8_t *from, size_t bytes, int flags)
{
    ssize_t sent = send(fd, from, bytes, flags | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}
