/*
 * Datagrams, with every implementation of struct io. Loopback loses none as long as the receive queue has room, so the
 * tests send little at a time and count on every datagram.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/memory.h"
#include "net/uring.h"
#include "tests/support/io_kind.h"

#define TEST_NS (20 * NS_PER_S)
#define RECEIVED_MAX 512

struct received {
    uint32_t size;
    uint8_t first; /* byte */
    bool is_uniform;
    struct address from;
};

struct socket {
    struct io *io;
    uint32_t conn;
    struct address address;
    struct received received[RECEIVED_MAX];
    unsigned received_count;
    unsigned closed;
    unsigned events_max;
};

static void socket_open(struct socket *socket, uint32_t features_off)
{
    const struct io_shape shape = {.connections_max = 1, .features_off = features_off};
    *socket = (struct socket){.events_max = 64, .io = io_open(&shape)};
    struct address any = address_loopback(0);
    int64_t conn = io_udp_open(socket->io, &any, socket);
    assert_true(conn >= 0);
    socket->conn = (uint32_t)conn;
    assert_int_equal(io_udp_address(socket->io, socket->conn, &socket->address), 0);
    assert_true(address_port(&socket->address) != 0);
}

static void socket_close(struct socket *socket)
{
    io_destroy(socket->io);
}

static void on_datagram(struct socket *socket, const struct io_event *event)
{
    assert_true(socket->received_count < RECEIVED_MAX);
    assert_int_equal(event->conn, socket->conn);
    assert_true(event->size > 0);
    struct received *received = &socket->received[socket->received_count++];
    *received = (struct received){event->size, event->data[0], true, *event->address};
    for (uint32_t i = 0; i < event->size; i++)
        received->is_uniform &= event->data[i] == event->data[0];
    memset(event->data, 0xdd, event->size); /* it is ours */
}

static void wait_once(struct socket *socket, uint64_t wait_ns)
{
    struct io_event events[64];
    unsigned count = io_wait(socket->io, events, socket->events_max, wait_ns);
    for (unsigned i = 0; i < count; i++) {
        assert_ptr_equal(events[i].context, socket);
        if (events[i].type == IO_DATAGRAM)
            on_datagram(socket, &events[i]);
        else if (events[i].type == IO_CLOSED)
            socket->closed++;
        else
            fail();
    }
}

static void wait_for(struct socket *a, struct socket *b, unsigned b_received_count)
{
    uint64_t deadline_ns = clock_now_ns() + TEST_NS;
    while (b->received_count < b_received_count) {
        assert_true(clock_now_ns() < deadline_ns);
        wait_once(a, 0);
        wait_once(b, 50 * NS_PER_US);
    }
}

/* The receiver listens before anything is sent. */
static void pair_open(struct socket *a, struct socket *b, uint32_t features_off)
{
    socket_open(a, features_off);
    socket_open(b, features_off);
    wait_once(a, 0);
    wait_once(b, 0);
}

/* `count` datagrams of `sizes[i]` bytes, the i-th filled with i. */
static int send_sizes(struct socket *from, const struct address *to, const size_t *sizes,
                      unsigned count)
{
    struct io_datagram datagrams[RECEIVED_MAX];
    for (unsigned i = 0; i < count; i++) {
        uint8_t *bytes = malloc(sizes[i] + 1);
        assert_non_null(bytes);
        memset(bytes, (int)i, sizes[i]);
        datagrams[i] = (struct io_datagram){*to, {bytes, sizes[i]}};
    }
    int accepted = io_udp_send(from->io, from->conn, datagrams, count);
    for (unsigned i = 0; i < count; i++) {
        memset(datagrams[i].bytes.iov_base, 0xee, sizes[i]); /* it was copied */
        free(datagrams[i].bytes.iov_base);
    }
    return accepted;
}

static void assert_received(const struct socket *socket, const struct socket *from,
                            const size_t *sizes, unsigned count)
{
    assert_int_equal(socket->received_count, count);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(socket->received[i].size, sizes[i]);
        assert_int_equal(socket->received[i].first, i & 0xff);
        assert_true(socket->received[i].is_uniform);
        assert_true(address_equal(&socket->received[i].from, &from->address));
    }
}

static void assert_arrives(uint32_t features_off, const size_t *sizes, unsigned count,
                           unsigned events_max)
{
    struct socket a;
    struct socket b;
    pair_open(&a, &b, features_off);
    b.events_max = events_max;
    assert_int_equal(send_sizes(&a, &b.address, sizes, count), count);
    wait_for(&a, &b, count);
    assert_received(&b, &a, sizes, count);
    /* And back. */
    assert_int_equal(send_sizes(&b, &a.address, sizes, count), count);
    wait_for(&b, &a, count);
    assert_received(&a, &b, sizes, count);
    socket_close(&a);
    socket_close(&b);
}

/* With what io_uring has, and without. */
static const uint32_t both_features[] = {0, URING_UDP_GRO};

static void datagrams_of_every_size_arrive(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 100, 1472, 1473, 9000, 65507, 7};
    for (size_t i = 0; i < ARRAY_COUNT(both_features); i++)
        assert_arrives(both_features[i], sizes, ARRAY_COUNT(sizes), 64);
}

static void a_batch_of_equal_datagrams_arrives_one_by_one(void **state)
{
    (void)state;
    size_t sizes[61];
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) sizes[i] = 1000;
    sizes[60] = 300;
    assert_arrives(0, sizes, ARRAY_COUNT(sizes), 64);
    assert_arrives(0, sizes, ARRAY_COUNT(sizes), 7);
    assert_arrives(0, sizes, ARRAY_COUNT(sizes), 1);
    assert_arrives(both_features[1], sizes, 16, 64);
}

/* Runs of equal sizes, each ended by a shorter or longer one. */
static void batches_of_mixed_datagrams_arrive(void **state)
{
    (void)state;
    const size_t sizes[] = {500, 500, 500, 200, 200, 900, 900, 100, 100, 100, 30, 2000};
    for (size_t i = 0; i < ARRAY_COUNT(both_features); i++)
        assert_arrives(both_features[i], sizes, ARRAY_COUNT(sizes), 64);
}

/* A batch over one slot's bytes, and over the kernel's count of segments. */
static void a_long_batch_is_cut(void **state)
{
    (void)state;
    size_t sizes[200];
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) sizes[i] = i < 100 ? 100 : 1200;
    assert_arrives(0, sizes, ARRAY_COUNT(sizes), 64);
}

static void a_batch_costs_one_send(void **state)
{
    (void)state;
    struct socket a;
    struct socket b;
    pair_open(&a, &b, 0);
    size_t sizes[50];
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) sizes[i] = 1000;
    assert_int_equal(send_sizes(&a, &b.address, sizes, 50), 50);
    wait_for(&a, &b, 50);
    assert_int_equal(a.io->counters.sends, 1);
    assert_int_equal(a.io->counters.sent_bytes, 50 * 1000);
    assert_int_equal(b.io->counters.receives, 50);
    socket_close(&a);
    socket_close(&b);
}

static void what_finds_no_room_is_not_accepted(void **state)
{
    (void)state;
    if (io_kind == &io_kind_epoll) skip(); /* it sends at once, and loopback has room */
    struct socket a;
    struct socket b;
    pair_open(&a, &b, both_features[1]);
    size_t sizes[40];
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) sizes[i] = 10;
    int accepted = send_sizes(&a, &b.address, sizes, ARRAY_COUNT(sizes));
    assert_true(accepted > 0 && accepted < (int)ARRAY_COUNT(sizes));
    assert_int_equal(send_sizes(&a, &b.address, sizes, 1), 0);
    wait_for(&a, &b, (unsigned)accepted);
    /* There is room again. */
    wait_once(&a, 0);
    assert_int_equal(send_sizes(&a, &b.address, sizes, 1), 1);
    wait_for(&a, &b, (unsigned)accepted + 1);
    socket_close(&a);
    socket_close(&b);
}

static void a_datagram_that_is_too_large_is_refused(void **state)
{
    (void)state;
    struct socket a;
    struct socket b;
    pair_open(&a, &b, 0);
    const size_t sizes[] = {65508, 1};
    assert_int_equal(send_sizes(&a, &b.address, sizes, 2), -EMSGSIZE);
    const size_t second[] = {1, 65508};
    assert_int_equal(send_sizes(&a, &b.address, second, 2), 1);
    wait_for(&a, &b, 1);
    socket_close(&a);
    socket_close(&b);
}

/* The kernel refuses segments over the MTU; then each datagram goes out alone. */
static void a_refused_batch_goes_out_one_by_one(void **state)
{
    (void)state;
    struct socket a;
    struct socket b;
    pair_open(&a, &b, 0);
    size_t sizes[20];
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) sizes[i] = 700;
    io_kind->fail_after(a.io, 1, -EINVAL);
    assert_int_equal(send_sizes(&a, &b.address, sizes, 20), 20);
    wait_for(&a, &b, 20);
    assert_received(&b, &a, sizes, 20);
    socket_close(&a);
    socket_close(&b);
}

static void a_lost_receive_is_armed_again(void **state)
{
    (void)state;
    static const int errs[] = {-ENOBUFS, -ECONNREFUSED, -EINTR, -ECANCELED};
    for (size_t i = 0; i < ARRAY_COUNT(errs); i++) {
        struct socket a;
        struct socket b;
        socket_open(&a, 0);
        socket_open(&b, 0);
        /* epoll puts the socket into its set and asks before it receives. */
        bool is_epoll = io_kind == &io_kind_epoll;
        if (is_epoll) wait_once(&b, 0);
        io_kind->fail_after(b.io, is_epoll ? 2 : 1, errs[i]);
        const size_t sizes[] = {5, 5, 5};
        assert_int_equal(send_sizes(&a, &b.address, sizes, 3), 3);
        wait_for(&a, &b, 3);
        assert_int_equal(b.io->counters.buffers_out, errs[i] == -ENOBUFS);
        socket_close(&a);
        socket_close(&b);
    }
}

static void datagrams_to_nobody_do_no_harm(void **state)
{
    (void)state;
    struct socket a;
    struct socket b;
    struct socket gone;
    pair_open(&a, &b, 0);
    socket_open(&gone, 0);
    struct address nobody = gone.address;
    socket_close(&gone);
    const size_t sizes[] = {5, 5};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(send_sizes(&a, &nobody, sizes, 2), 2);
        wait_once(&a, 0);
        wait_once(&a, 0);
    }
    assert_int_equal(send_sizes(&a, &b.address, sizes, 2), 2);
    wait_for(&a, &b, 2);
    assert_int_equal(a.closed, 0);
    socket_close(&a);
    socket_close(&b);
}

static void a_closed_socket_tells_and_frees_its_address(void **state)
{
    (void)state;
    struct socket a;
    struct socket b;
    pair_open(&a, &b, 0);
    /* Bytes on their way out and in do not keep it from closing. */
    const size_t sizes[] = {500, 500, 500, 400, 500};
    assert_int_equal(send_sizes(&b, &a.address, sizes, 5), 5);
    assert_int_equal(send_sizes(&a, &b.address, sizes, 5), 5);
    wait_once(&a, 0);
    b.events_max = 1;
    wait_once(&b, 0);
    io_close(b.io, b.conn);
    assert_int_equal(send_sizes(&b, &a.address, sizes, 1), 0);
    uint64_t deadline_ns = clock_now_ns() + TEST_NS;
    while (b.closed == 0 && clock_now_ns() < deadline_ns) wait_once(&b, NS_PER_MS);
    assert_int_equal(b.closed, 1);
    int64_t conn = io_udp_open(b.io, &b.address, &b);
    assert_true(conn >= 0);
    assert_int_not_equal(conn, b.conn);
    b.conn = (uint32_t)conn;
    b.received_count = 0;
    wait_once(&b, 0);
    assert_int_equal(send_sizes(&a, &b.address, sizes, 5), 5);
    wait_for(&a, &b, 5);
    socket_close(&a);
    socket_close(&b);
}

static void opening_may_fail(void **state)
{
    (void)state;
    struct socket a;
    socket_open(&a, 0);
    assert_int_equal(io_udp_open(a.io, &a.address, NULL), -EADDRINUSE);
    io_kind->fail_after(a.io, 1, -EMFILE);
    struct address any = address_loopback(0);
    assert_int_equal(io_udp_open(a.io, &any, NULL), -EMFILE);
    socket_close(&a);

    const struct io_shape shape = {.connections_max = 1};
    struct io *io = io_open(&shape);
    uint64_t allocations = io_kind == &io_kind_uring ? 3 : 1;
    for (uint64_t countdown = 1; countdown <= allocations; countdown++) {
        memory_fail_after(countdown);
        assert_int_equal(io_udp_open(io, &any, NULL), -ENOMEM);
        memory_fail_after(0);
    }
    assert_true(io_udp_open(io, &any, NULL) >= 0);
    io_destroy(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(datagrams_of_every_size_arrive),
        cmocka_unit_test(a_batch_of_equal_datagrams_arrives_one_by_one),
        cmocka_unit_test(batches_of_mixed_datagrams_arrive),
        cmocka_unit_test(a_long_batch_is_cut),
        cmocka_unit_test(a_batch_costs_one_send),
        cmocka_unit_test(what_finds_no_room_is_not_accepted),
        cmocka_unit_test(a_datagram_that_is_too_large_is_refused),
        cmocka_unit_test(a_refused_batch_goes_out_one_by_one),
        cmocka_unit_test(a_lost_receive_is_armed_again),
        cmocka_unit_test(datagrams_to_nobody_do_no_harm),
        cmocka_unit_test(a_closed_socket_tells_and_frees_its_address),
        cmocka_unit_test(opening_may_fail),
    };
    return io_kinds_run(tests, ARRAY_COUNT(tests));
}
