/*
 * A peer that sends without end, faster than its bytes are taken: it must neither keep the buffers
 * from others nor fill the memory.
 *
 * The peers are plain sockets of the test, so that it decides when there is something to receive.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "net/io.h"
#include "tests/support/io_kind.h"

#define EVENTS_MAX 16
#define BUFFER_BYTES 4096

static struct io *open_with(uint32_t buffers_count)
{
    const struct io_shape shape = {
        .connections_max = 8, .buffers_count = buffers_count, .buffer_bytes = BUFFER_BYTES};
    return io_open(&shape);
}

/* A connection that receives; the peer's end of it is in `fd`. */
static uint32_t adopt(struct io *io, int *fd)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    int64_t conn = io_adopt(io, ends[0], NULL);
    assert_true(conn >= 0);
    io_resume(io, (uint32_t)conn);
    *fd = ends[1];
    return (uint32_t)conn;
}

/* Sends up to `sends_max` buffers, as far as the socket takes them; returns the bytes. */
static size_t flood(int fd, unsigned sends_max)
{
    static const uint8_t zeros[BUFFER_BYTES];
    size_t sent = 0;
    for (unsigned i = 0; i < sends_max; i++) {
        ssize_t bytes = send(fd, zeros, sizeof zeros, MSG_DONTWAIT);
        if (bytes <= 0) break;
        sent += (size_t)bytes;
    }
    return sent;
}

static void others_get_a_buffer_while_one_peer_floods(void **state)
{
    (void)state;
    enum { TURNS_BEFORE = 50, TURNS_MAX = 200 };
    struct io *io = open_with(4);
    int noisy;
    int quiet;
    (void)adopt(io, &noisy);
    uint32_t conn = adopt(io, &quiet);
    bool is_heard = false;
    for (unsigned turn = 0; turn < TURNS_MAX && !is_heard; turn++) {
        struct io_event events[EVENTS_MAX];
        flood(noisy, UINT32_MAX);
        if (turn == TURNS_BEFORE) assert_int_equal(send(quiet, "x", 1, 0), 1);
        unsigned count = io_wait(io, events, EVENTS_MAX, 0);
        for (unsigned i = 0; i < count; i++)
            is_heard = is_heard || (events[i].type == IO_RECEIVED && events[i].conn == conn);
    }
    assert_true(is_heard);
    /* epoll asks for no more than one buffer of a peer a turn. */
    if (io_kind == &io_kind_uring) assert_true(io->counters.buffers_out > 0);
    close(noisy);
    close(quiet);
    io_destroy(io);
}

/* Whoever waits for room may find it in the turn in which he paused. */
static void bytes_that_are_put_back_are_not_followed_by_ever_more(void **state)
{
    (void)state;
    enum { TURNS = 2000 };
    struct io *io = open_with(64);
    int noisy;
    uint32_t conn = adopt(io, &noisy);
    size_t sent = 0;
    size_t taken = 0;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        struct io_event events[EVENTS_MAX];
        sent += flood(noisy, 2);
        unsigned count = io_wait(io, events, EVENTS_MAX, 0);
        for (unsigned i = 0; i < count; i++) {
            if (events[i].type != IO_RECEIVED) continue;
            size_t some = min_u64(events[i].size, 16);
            io_pause(io, conn, events[i].data + some, events[i].size - some);
            io_resume(io, conn);
            taken += some;
        }
    }
    assert_true(taken > 0);
    /* What the socket holds, and what was on its way. */
    assert_true(sent - taken < MIB);
    close(noisy);
    io_destroy(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_get_a_buffer_while_one_peer_floods),
        cmocka_unit_test(bytes_that_are_put_back_are_not_followed_by_ever_more),
    };
    return io_kinds_run(tests, ARRAY_COUNT(tests));
}
