#include "net/bell.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/assert.h"

int bell_watch(const struct bell *bell, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = fd};
    return epoll_ctl(bell->fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int bell_open(struct bell *bell)
{
    int err;
    *bell = (struct bell){.fd = epoll_create1(EPOLL_CLOEXEC), .timer_ns = TIME_NEVER};
    if (bell->fd < 0) return -errno;
    bell->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    err = bell->event_fd < 0 ? -errno : bell_watch(bell, bell->event_fd);
    if (err < 0) goto close_event;
    bell->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    err = bell->timer_fd < 0 ? -errno : bell_watch(bell, bell->timer_fd);
    if (err < 0) goto close_timer;
    return 0;

close_timer:
    if (bell->timer_fd >= 0) close(bell->timer_fd);
close_event:
    if (bell->event_fd >= 0) close(bell->event_fd);
    close(bell->fd);
    *bell = BELL_CLOSED;
    return err;
}

void bell_close(struct bell *bell)
{
    if (bell->fd < 0) return;
    close(bell->timer_fd);
    close(bell->event_fd);
    close(bell->fd);
    *bell = BELL_CLOSED;
}

void bell_ring(struct bell *bell)
{
    (void)eventfd_write(bell->event_fd, 1); /* 2^64 rings will not come */
}

void bell_silence(struct bell *bell)
{
    struct epoll_event events[3];
    int count = epoll_wait(bell->fd, events, 3, 0);
    for (int i = 0; i < count; i++)
        if (events[i].data.fd == bell->timer_fd) bell->timer_ns = TIME_NEVER;
}

void bell_set(struct bell *bell, uint64_t due_ns)
{
    if (due_ns >= bell->timer_ns) return;
    /* A time of 0 would switch the timer off. */
    if (due_ns == 0) due_ns = 1;
    struct itimerspec timer = {
        .it_value = {.tv_sec = (time_t)(due_ns / NS_PER_S), .tv_nsec = (long)(due_ns % NS_PER_S)}};
    int err = timerfd_settime(bell->timer_fd, TFD_TIMER_ABSTIME, &timer, NULL);
    ASSERT(err == 0);
    bell->timer_ns = due_ns;
}

void bell_arm(struct bell *bell, uint64_t due_ns, struct io *io)
{
    ASSERT(bell->fd >= 0);
    if (due_ns == 0) {
        bell_ring(bell);
        return;
    }
    /* Silence first: what comes between the two is seen by the one or rings after the other. */
    bell_silence(bell);
    if (io_ready(io))
        bell_ring(bell);
    else if (due_ns != TIME_NEVER)
        bell_set(bell, due_ns);
}
