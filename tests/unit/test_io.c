/*
 * What every implementation of struct io on the kernel has in common: the contract of net/io.h.
 */
#include "net/io.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "net/uring.h"
#include "tests/support/io_pair.h"

#define TEST_MS 20000

/* ---- talking ---- */

static void bytes_come_back_as_they_were(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    pair_echoes_all(pair);
    pair_close(pair);
}

static void parts_are_sent_in_order(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    struct talk *talk = pair_connect(pair);
    const size_t part_bytes = 300000;
    uint8_t *bytes = random_bytes(IO_SEND_PARTS_MAX * part_bytes, 5);
    struct iovec parts[IO_SEND_PARTS_MAX];
    for (size_t i = 0; i < IO_SEND_PARTS_MAX; i++)
        parts[i] = (struct iovec){bytes + i * part_bytes, part_bytes};
    io_send(pair->client.io, talk->conn, parts, IO_SEND_PARTS_MAX);
    memset(parts, 0, sizeof parts); /* the array was copied */
    struct talk *other = &pair->server.talks[0];
    PAIR_UNTIL(pair, other->bytes_count == IO_SEND_PARTS_MAX * part_bytes);
    PAIR_UNTIL(pair, talk->sent_count == 1);
    assert_memory_equal(other->bytes, bytes, other->bytes_count);
    free(bytes);
    pair_close(pair);
}

static void many_connections_talk_at_once(void **state)
{
    (void)state;
    enum { COUNT = 200, BYTES = 5000 };
    struct pair *pair = pair_open();
    pair->server.manner = MANNER_ECHO;
    struct talk *talks[COUNT];
    for (int i = 0; i < COUNT; i++) talks[i] = pair_connect_begin(pair);
    PAIR_UNTIL(pair, pair->server.accepted == COUNT && pair->client.connected == COUNT);
    uint8_t *bytes = random_bytes(BYTES + COUNT, 9);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) talk_send(&pair->client, talks[i], bytes + i, BYTES);
        for (int i = 0; i < COUNT; i++) {
            PAIR_UNTIL(pair, talks[i]->bytes_count == BYTES && talks[i]->sent_count);
            assert_memory_equal(talks[i]->bytes, bytes + i, BYTES);
            talks[i]->bytes_count = 0;
            talks[i]->sent_count = 0;
        }
    }
    free(bytes);
    pair_close(pair);
}

static void running_out_of_buffers_loses_nothing(void **state)
{
    (void)state;
    enum { COUNT = 16, BYTES = 200000 };
    const struct io_shape shape = {
        .connections_max = TALKS_MAX, .buffers_count = 2, .buffer_bytes = 1000};
    struct pair *pair = pair_open_with(&shape);
    pair->server.manner = MANNER_KEEP;
    uint8_t *bytes = random_bytes(BYTES, 10);
    for (int i = 0; i < COUNT; i++) pair_connect(pair);
    for (int i = 0; i < COUNT; i++) talk_send(&pair->client, &pair->client.talks[i], bytes, BYTES);
    for (int i = 0; i < COUNT; i++) {
        PAIR_UNTIL(pair, pair->server.talks[i].bytes_count == BYTES);
        assert_memory_equal(pair->server.talks[i].bytes, bytes, BYTES);
    }
    assert_true(pair->server.io->counters.buffers_out > 0);
    free(bytes);
    pair_close(pair);
}

static void an_event_list_of_one_is_enough(void **state)
{
    (void)state;
    enum { COUNT = 8, BYTES = 100000 };
    struct pair *pair = pair_open();
    for (int i = 0; i < COUNT; i++) pair_connect(pair);
    uint8_t *bytes = random_bytes(BYTES, 11);
    for (int i = 0; i < COUNT; i++) talk_send(&pair->client, &pair->client.talks[i], bytes, BYTES);
    uint64_t deadline_ns = clock_now_ns() + TEST_NS;
    for (size_t received = 0; received < COUNT * BYTES;) {
        struct io_event event;
        memset(pair->server.seen_in_turn, 0, sizeof pair->server.seen_in_turn);
        if (io_wait(pair->server.io, &event, 1, 0) == 1) end_take(&pair->server, &event);
        (void)end_wait(&pair->client, 0);
        received = 0;
        for (int i = 0; i < COUNT; i++) received += pair->server.talks[i].bytes_count;
        assert_true(clock_now_ns() < deadline_ns);
    }
    for (int i = 0; i < COUNT; i++) assert_memory_equal(pair->server.talks[i].bytes, bytes, BYTES);
    free(bytes);
    pair_close(pair);
}

/* ---- pausing ---- */

static void what_is_put_back_comes_again_in_order(void **state)
{
    (void)state;
    enum { BYTES = 3000000 };
    static const uint32_t buffer_bytes[] = {0, 5000};
    for (size_t i = 0; i < ARRAY_COUNT(buffer_bytes); i++) {
        const struct io_shape shape = {.connections_max = TALKS_MAX,
                                       .buffer_bytes = buffer_bytes[i]};
        struct pair *pair = pair_open_with(&shape);
        pair->server.manner = MANNER_SIP;
        struct talk *talk = pair_connect(pair);
        uint8_t *bytes = random_bytes(BYTES, 12);
        talk_send(&pair->client, talk, bytes, BYTES);
        PAIR_UNTIL(pair, pair->server.talks[0].bytes_count == BYTES);
        assert_memory_equal(pair->server.talks[0].bytes, bytes, BYTES);
        free(bytes);
        pair_close(pair);
    }
}

static void a_paused_connection_is_silent(void **state)
{
    (void)state;
    enum { BYTES = 500000 };
    struct pair *pair = pair_open();
    struct talk *talk = pair_connect(pair);
    struct talk *other = &pair->server.talks[0];
    uint8_t *bytes = random_bytes(BYTES, 13);
    talk_send(&pair->client, talk, bytes, 1);
    PAIR_UNTIL(pair, other->bytes_count == 1);
    PAIR_UNTIL(pair, talk->sent_count == 1);
    /* It is receiving by now. on_received fails the test if anything comes. */
    pair_turn(pair);
    io_pause(pair->server.io, other->conn, NULL, 0);
    other->is_paused = true;
    talk_send(&pair->client, talk, bytes + 1, BYTES - 1);
    pair_turn_some(pair);
    assert_int_equal(other->bytes_count, 1);
    talk_resume(&pair->server, other);
    PAIR_UNTIL(pair, other->bytes_count == BYTES);
    assert_memory_equal(other->bytes, bytes, BYTES);
    free(bytes);
    pair_close(pair);
}

static void the_end_waits_for_what_is_held(void **state)
{
    (void)state;
    enum { BYTES = 300000 };
    struct pair *pair = pair_open();
    struct talk *talk = pair_connect(pair);
    struct talk *other = &pair->server.talks[0];
    pair->server.manner = MANNER_SIP;
    uint8_t *bytes = random_bytes(BYTES, 14);
    talk_send(&pair->client, talk, bytes, BYTES);
    PAIR_UNTIL(pair, talk->sent_count == 1);
    io_close(pair->client.io, talk->conn);
    PAIR_UNTIL(pair, other->is_closed);
    assert_int_equal(other->closed_result, 0);
    assert_int_equal(other->bytes_count, BYTES);
    assert_memory_equal(other->bytes, bytes, BYTES);
    free(bytes);
    pair_close(pair);
}

static void what_is_held_is_counted(void **state)
{
    (void)state;
    enum { BYTES = 100000 };
    struct pair *pair = pair_open();
    const uint64_t *held = &pair->server.io->counters.held_bytes;
    pair->server.manner = MANNER_IGNORE;
    struct talk *talk = pair_connect(pair);
    struct talk *other = &pair->server.talks[0];
    uint8_t *bytes = random_bytes(BYTES, 15);
    talk_send(&pair->client, talk, bytes, 1);
    PAIR_UNTIL(pair, other->bytes_count == 1);
    assert_int_equal(*held, 0);
    io_pause(pair->server.io, other->conn, bytes, BYTES);
    assert_in_range(*held, BYTES, 2 * BYTES);
    talk_resume(&pair->server, other);
    PAIR_UNTIL(pair, other->bytes_count == BYTES + 1);
    PAIR_UNTIL(pair, *held == 0);
    /* And where it is never delivered. */
    io_pause(pair->server.io, other->conn, bytes, BYTES);
    assert_in_range(*held, BYTES, 2 * BYTES);
    io_close(pair->server.io, other->conn);
    PAIR_UNTIL(pair, other->is_closed);
    PAIR_UNTIL(pair, *held == 0);
    free(bytes);
    pair_close(pair);
}

static void no_memory_to_hold_bytes_closes_the_connection(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    pair->server.manner = MANNER_IGNORE;
    struct talk *talk = pair_connect(pair);
    struct talk *other = &pair->server.talks[0];
    talk_send(&pair->client, talk, (const uint8_t *)"hello", 5);
    PAIR_UNTIL(pair, other->bytes_count == 5);
    memory_fail_after(1);
    io_pause(pair->server.io, other->conn, "ello", 4);
    memory_fail_after(0);
    PAIR_UNTIL(pair, other->is_closed);
    assert_int_equal(other->closed_result, -ENOMEM);
    pair_close(pair);
}

/* ---- handing over ---- */

static void an_accepted_connection_delivers_once_and_pauses(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    pair->server.manner = MANNER_IGNORE;
    struct talk *talk = pair_connect(pair);
    struct talk *other = &pair->server.talks[0];
    assert_true(address_is_loopback(&other->peer));
    talk_send(&pair->client, talk, (const uint8_t *)"a", 1);
    PAIR_UNTIL(pair, other->bytes_count == 1);
    PAIR_UNTIL(pair, talk->sent_count == 1);
    talk_send(&pair->client, talk, (const uint8_t *)"b", 1);
    pair_turn_some(pair);
    assert_int_equal(other->bytes_count, 1);
    io_resume(pair->server.io, other->conn);
    PAIR_UNTIL(pair, other->bytes_count == 2);
    assert_memory_equal(other->bytes, "ab", 2);
    pair_close(pair);
}

/* Detaches the server's connection and adopts it at the client's end, which acts as a third. */
static void a_detached_connection_goes_on_in_another_io(void **state)
{
    (void)state;
    enum { BYTES = 100000 };
    struct pair *pair = pair_open();
    struct pair *third = pair_open();
    pair->server.manner = MANNER_IGNORE;
    third->server.manner = MANNER_ECHO;
    struct talk *talk = pair_connect(pair);
    struct talk *other = &pair->server.talks[0];
    uint8_t *bytes = random_bytes(BYTES, 15);
    talk_send(&pair->client, talk, bytes, 100);
    PAIR_UNTIL(pair, other->bytes_count == 100);
    PAIR_UNTIL(pair, talk->sent_count == 1);
    /* These stay in the socket. */
    talk_send(&pair->client, talk, bytes, BYTES);
    PAIR_UNTIL(pair, talk->sent_count == 2);

    unsigned events = pair->server.events;
    int fd = io_detach(pair->server.io, other->conn);
    assert_true(fd >= 0);
    int64_t conn = io_adopt(third->server.io, fd, &third->server);
    assert_true(conn >= 0);
    (void)talk_add(&third->server, (uint32_t)conn);
    uint64_t deadline_ns = clock_now_ns() + TEST_NS;
    while (talk->bytes_count < BYTES && clock_now_ns() < deadline_ns) {
        pair_turn(pair);
        pair_turn(third);
    }
    assert_int_equal(talk->bytes_count, BYTES);
    assert_memory_equal(talk->bytes, bytes, BYTES);
    assert_int_equal(pair->server.events, events);
    free(bytes);
    pair_close(pair);
    pair_close(third);
}

static int option_of(int fd, int level, int name)
{
    int value = 0;
    socklen_t bytes = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &bytes), 0);
    return value;
}

/* Its slot would be taken for ever: nothing else tells of a peer that lost its power. */
static void a_peer_that_vanishes_is_noticed(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    pair->server.manner = MANNER_IGNORE;
    struct talk *talk = pair_connect(pair);
    talk_send(&pair->client, talk, (const uint8_t *)"hello", 5);
    PAIR_UNTIL(pair, pair->server.talks[0].bytes_count == 5);
    int fd = io_detach(pair->server.io, pair->server.talks[0].conn);
    assert_true(fd >= 0);
    assert_int_equal(option_of(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    int silence_s =
        option_of(fd, IPPROTO_TCP, TCP_KEEPIDLE) +
        option_of(fd, IPPROTO_TCP, TCP_KEEPINTVL) * option_of(fd, IPPROTO_TCP, TCP_KEEPCNT);
    assert_true(silence_s <= 120);
    assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    close(fd);
    pair_close(pair);
}

static void only_a_quiet_connection_can_be_detached(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    pair->server.manner = MANNER_IGNORE;
    struct talk *talk = pair_connect(pair);
    struct talk *other = &pair->server.talks[0];
    assert_int_equal(io_detach(pair->client.io, talk->conn), -EBUSY); /* it receives */
    talk_send(&pair->client, talk, (const uint8_t *)"hello", 5);
    PAIR_UNTIL(pair, other->bytes_count == 5);
    talk_send(&pair->server, other, (const uint8_t *)"x", 1);
    assert_int_equal(io_detach(pair->server.io, other->conn), -EBUSY); /* it sends */
    PAIR_UNTIL(pair, other->sent_count == 1);
    int fd = io_detach(pair->server.io, other->conn);
    assert_true(fd >= 0);
    close(fd);
    pair_close(pair);
}

/* ---- ending ---- */

static void the_peers_close_is_told_after_the_last_byte(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    struct talk *talk = pair_connect(pair);
    struct talk *other = &pair->server.talks[0];
    talk_send(&pair->client, talk, (const uint8_t *)"last", 4);
    PAIR_UNTIL(pair, talk->sent_count == 1);
    io_close(pair->client.io, talk->conn);
    PAIR_UNTIL(pair, talk->is_closed && other->is_closed);
    assert_int_equal(talk->closed_result, -ECANCELED);
    assert_int_equal(other->closed_result, 0);
    assert_int_equal(other->bytes_count, 4);
    pair_close(pair);
}

static void who_has_finished_can_still_be_answered(void **state)
{
    (void)state;
    const size_t size = 16 * MIB;
    struct pair *pair = pair_open();
    pair->server.manner = MANNER_IGNORE;
    pair->server.outlives_eof = true;
    struct talk *talk = pair_connect(pair);
    struct talk *other = &pair->server.talks[0];
    uint8_t *bytes = random_bytes(size, 17);
    io_finish(pair->client.io, talk->conn);
    PAIR_UNTIL(pair, other->has_eof);
    talk_send(&pair->server, other, bytes, size);
    PAIR_UNTIL(pair, other->sent_count == 1);
    assert_false(other->is_closed);
    io_close(pair->server.io, other->conn);
    PAIR_UNTIL(pair, talk->is_closed && other->is_closed);
    assert_true(talk->has_eof);
    assert_int_equal(talk->closed_result, 0);
    assert_int_equal(other->closed_result, 0);
    assert_int_equal(talk->bytes_count, size);
    assert_memory_equal(talk->bytes, bytes, size);
    free(bytes);
    pair_close(pair);
}

static void a_close_ends_a_send_in_flight(void **state)
{
    (void)state;
    const size_t size = 64 * MIB;
    static const uint32_t features[] = {0, URING_SEND_ZC};
    for (size_t i = 0; i < ARRAY_COUNT(features); i++) {
        const struct io_shape shape = {.connections_max = TALKS_MAX, .features_on = features[i]};
        struct pair *pair = pair_open_with(&shape);
        pair->server.manner = MANNER_IGNORE;
        struct talk *talk = pair_connect(pair);
        uint8_t *bytes = random_bytes(size, 16);
        talk_send(&pair->client, talk, bytes, size);
        pair_turn_some(pair);
        assert_int_equal(talk->sent_count, 0);
        io_close(pair->client.io, talk->conn);
        io_close(pair->client.io, talk->conn); /* twice does nothing more */
        PAIR_UNTIL(pair, talk->is_closed);
        assert_int_equal(talk->closed_result, -ECANCELED);
        assert_int_equal(talk->sent_count, 0);
        free(bytes); /* the kernel let go of it */
        pair_close(pair);
    }
}

static void a_send_after_the_end_is_ignored(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    struct talk *talk = pair_connect(pair);
    io_close(pair->client.io, talk->conn);
    talk_send(&pair->client, talk, (const uint8_t *)"x", 1);
    io_pause(pair->client.io, talk->conn, "x", 1);
    io_resume(pair->client.io, talk->conn);
    assert_int_equal(io_detach(pair->client.io, talk->conn), -EBUSY);
    PAIR_UNTIL(pair, talk->is_closed && pair->server.talks[0].is_closed);
    assert_int_equal(talk->sent_count, 0);
    pair_close(pair);
}

static int raw_connect(const struct address *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &address->any, address_bytes(address)), 0);
    return fd;
}

static void a_reset_is_told(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    int fd = raw_connect(&pair->address);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    struct talk *other = &pair->server.talks[0];
    PAIR_UNTIL(pair, other->bytes_count == 1);
    pair_turn(pair);
    const struct linger reset = {.l_onoff = 1};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(fd);
    PAIR_UNTIL(pair, other->is_closed);
    assert_int_equal(other->closed_result, -ECONNRESET);
    pair_close(pair);
}

static void a_refused_connection_is_told(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    io_stop_listening(pair->server.io);
    pair_turn(pair);
    struct talk *talk = pair_connect_begin(pair);
    PAIR_UNTIL(pair, talk->is_closed);
    assert_int_equal(talk->closed_result, -ECONNREFUSED);
    assert_int_equal(pair->client.connected, 0);
    pair_close(pair);
}

static void a_connection_can_be_closed_while_it_connects(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    for (int i = 0; i < 2; i++) {
        struct talk *talk = pair_connect_begin(pair);
        if (i == 1) (void)end_wait(&pair->client, 0);
        if (!talk->is_closed) io_close(pair->client.io, talk->conn);
        PAIR_UNTIL(pair, talk->is_closed);
        assert_int_equal(talk->closed_result, -ECANCELED);
    }
    pair_close(pair);
}

static void handles_are_not_used_twice(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    uint32_t before = IO_NONE;
    for (int i = 0; i < 20; i++) {
        struct talk *talk = pair_connect(pair);
        assert_int_not_equal(talk->conn, before);
        before = talk->conn;
        io_close(pair->client.io, talk->conn);
        PAIR_UNTIL(pair, talk->is_closed && pair->server.closed == pair->client.closed);
    }
    pair_close(pair);
}

/* ---- accepting ---- */

static void accepting_stops_and_connections_live_on(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    pair->server.manner = MANNER_ECHO;
    struct talk *talk = pair_connect(pair);
    io_stop_listening(pair->server.io);
    pair_turn(pair);
    pair_echoes(pair, talk, 10000);
    /* The address is free again. */
    struct address again = pair->address;
    assert_int_equal(io_listen(pair->server.io, &again, &pair->server), 0);
    (void)pair_connect(pair);
    pair_close(pair);
}

static void an_address_in_use_is_refused(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    assert_int_equal(io_listen(pair->client.io, &pair->address, NULL), -EADDRINUSE);
    pair_close(pair);
}

static void a_full_table_lets_connections_wait(void **state)
{
    (void)state;
    enum { ROOM = 3 };
    const struct io_shape shape = {.connections_max = ROOM};
    struct pair *pair = pair_open_with(&shape);
    int fds[2 * ROOM];
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) fds[i] = raw_connect(&pair->address);
    PAIR_UNTIL(pair, pair->server.accepted == ROOM);
    pair_turn_some(pair);
    assert_int_equal(pair->server.accepted, ROOM);
    assert_int_equal(io_connect(pair->server.io, &pair->address, NULL), -ENOSPC);
    for (unsigned i = 0; i < ROOM; i++) {
        io_close(pair->server.io, pair->server.talks[i].conn);
        PAIR_UNTIL(pair, pair->server.accepted == ROOM + i + 1);
    }
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) close(fds[i]);
    pair_close(pair);
}

static void running_out_of_descriptors_pauses_accepting(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    /* Before the accept is armed: the kernel notes the limit of then. */
    int fd = raw_connect(&pair->address);
    int next = dup(fd);
    close(next);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = (rlim_t)next, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    PAIR_UNTIL(pair, pair->server.io->counters.accept_pauses > 0);
    assert_int_equal(pair->server.accepted, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    /* io_wait itself wakes up to try again. */
    while (pair->server.accepted == 0) (void)end_wait(&pair->server, TIME_NEVER);
    close(fd);
    pair_close(pair);
}

/* Accepting leaves some over, for whatever else the process opens. */
static void the_last_descriptors_are_not_for_connections(void **state)
{
    (void)state;
    enum { SPARE = 8, CONNECTIONS = 12 };
    struct pair *pair = pair_open();
    int fds[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) fds[i] = raw_connect(&pair->address);
    int next = dup(fds[0]);
    close(next);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit few = {.rlim_cur = (rlim_t)next + SPARE + 2, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    PAIR_UNTIL(pair, pair->server.io->counters.accept_pauses > 0);
    assert_int_equal(pair->server.accepted, 2);
    int others[SPARE];
    for (int i = 0; i < SPARE; i++) assert_true((others[i] = dup(fds[0])) >= 0);
    assert_true(dup(fds[0]) < 0);
    for (int i = 0; i < SPARE; i++) close(others[i]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    int late = raw_connect(&pair->address);
    while (pair->server.accepted < 3) (void)end_wait(&pair->server, TIME_NEVER);
    close(late);
    for (int i = 0; i < CONNECTIONS; i++) close(fds[i]);
    pair_close(pair);
}

/* ---- waiting and waking ---- */

static void a_wait_ends_in_time(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    pair_turn_some(pair);
    uint64_t begin_ns = clock_now_ns();
    assert_int_equal(end_wait(&pair->server, 5 * NS_PER_MS), 0);
    assert_true(clock_now_ns() - begin_ns >= 5 * NS_PER_MS);
    pair_close(pair);
}

static void what_was_asked_for_makes_it_ready(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    struct talk *talk = pair_connect(pair);
    pair_turn_some(pair);
    assert_false(io_ready(pair->client.io));
    talk_send(&pair->client, talk, (const uint8_t *)"x", 1);
    assert_true(io_ready(pair->client.io));
    PAIR_UNTIL(pair, pair->server.talks[0].bytes_count == 1);
    pair_close(pair);
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    int count;
    while ((count = poll(&polled, 1, timeout_ms)) < 0) assert_int_equal(errno, EINTR);
    return count > 0;
}

static void who_polls_hears_of_time_and_of_what_comes(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    struct io *io = pair->server.io;
    struct talk *talk = pair_connect(pair);
    pair_turn_some(pair);
    int fd = io_fd(io);
    assert_true(fd >= 0);
    assert_int_equal(io_fd(io), fd);
    io_arm(io, TIME_NEVER);
    assert_false(is_readable(fd, 0));
    io_arm(io, 0);
    assert_true(is_readable(fd, 0));
    io_arm(io, TIME_NEVER);
    assert_false(is_readable(fd, 0));
    /* A time that has come, one that is far, and one that comes. */
    io_arm(io, clock_now_ns());
    assert_true(is_readable(fd, TEST_MS));
    io_arm(io, clock_now_ns() + TEST_NS);
    assert_false(is_readable(fd, 0));
    uint64_t due_ns = clock_now_ns() + 5 * NS_PER_MS;
    io_arm(io, due_ns);
    assert_true(is_readable(fd, TEST_MS));
    assert_true(clock_now_ns() >= due_ns);
    /* Bytes, and a wake-up. */
    io_arm(io, TIME_NEVER);
    assert_false(is_readable(fd, 0));
    talk_send(&pair->client, talk, (const uint8_t *)"x", 1);
    (void)end_wait(&pair->client, 0);
    assert_true(is_readable(fd, TEST_MS));
    /* Who arms it before he has taken them hears of them at once. */
    io_arm(io, TIME_NEVER);
    assert_true(is_readable(fd, 0));
    PAIR_UNTIL(pair, pair->server.talks[0].bytes_count == 1);
    pair_turn_some(pair);
    io_arm(io, TIME_NEVER);
    assert_false(is_readable(fd, 0));
    io_wake(io, NULL);
    assert_true(is_readable(fd, TEST_MS));
    pair_close(pair);
}

static void a_descriptor_may_be_refused(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    io_kind->fail_after(pair->client.io, 1, -EMFILE);
    assert_int_equal(io_fd(pair->client.io), -EMFILE);
    assert_true(io_fd(pair->client.io) >= 0);
    pair_close(pair);
}

static void wakes_are_one_event_a_turn(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    pair_turn_some(pair);
    for (int i = 0; i < 100; i++) io_wake(pair->server.io, NULL);
    assert_int_equal(end_wait(&pair->server, TIME_NEVER), 1);
    assert_int_equal(pair->server.woken, 1);
    pair_close(pair);
}

static void an_io_wakes_another(void **state)
{
    (void)state;
    static const uint32_t without[] = {0, URING_MSG_RING};
    for (size_t i = 0; i < ARRAY_COUNT(without); i++) {
        const struct io_shape shape = {.connections_max = TALKS_MAX, .features_off = without[i]};
        struct pair *pair = pair_open_with(&shape);
        pair_turn_some(pair);
        for (unsigned round = 1; round <= 5; round++) {
            io_wake(pair->server.io, pair->client.io);
            assert_true(io_ready(pair->client.io));
            assert_int_equal(end_wait(&pair->client, 0), 0);
            while (pair->server.woken < round) (void)end_wait(&pair->server, TIME_NEVER);
            assert_int_equal(pair->server.woken, round);
        }
        io_wake(pair->server.io, pair->server.io);
        (void)end_wait(&pair->server, TIME_NEVER);
        assert_int_equal(pair->server.woken, 6);
        pair_close(pair);
    }
}

static void *wake_from_thread(void *io)
{
    io_wake(io, NULL);
    return NULL;
}

static void a_thread_wakes_a_waiting_io(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    pair_turn_some(pair);
    for (unsigned round = 1; round <= 20; round++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, wake_from_thread, pair->server.io), 0);
        while (pair->server.woken < round) (void)end_wait(&pair->server, TIME_NEVER);
        pthread_join(thread, NULL);
    }
    pair_close(pair);
}

/* ---- faults ---- */

static bool all_answered(const struct pair *pair, size_t count, size_t bytes)
{
    for (size_t i = 0; i < count; i++) {
        const struct talk *talk = &pair->client.talks[i];
        if (talk->is_used && !talk->is_closed && talk->bytes_count < bytes) return false;
    }
    return true;
}

/* Connects, echoes and closes while one operation of one end fails. */
static void talk_with_fault(bool at_server, uint64_t countdown, int err)
{
    enum { COUNT = 2, BYTES = 150000 };
    struct pair *pair = pair_open();
    pair->server.manner = MANNER_ECHO;
    pair->client.greeting = random_bytes(BYTES, 17);
    pair->client.greeting_bytes = BYTES;
    io_kind->fail_after(at_server ? pair->server.io : pair->client.io, countdown, err);
    for (int i = 0; i < COUNT; i++) {
        int64_t conn = io_connect(pair->client.io, &pair->address, &pair->client);
        if (conn >= 0) (void)talk_add(&pair->client, (uint32_t)conn);
    }
    PAIR_UNTIL(pair, all_answered(pair, COUNT, BYTES));
    for (size_t i = 0; i < COUNT; i++) {
        struct talk *talk = &pair->client.talks[i];
        if (!talk->is_used || talk->is_closed) continue;
        assert_memory_equal(talk->bytes, pair->client.greeting, BYTES);
        io_close(pair->client.io, talk->conn);
        PAIR_UNTIL(pair, talk->is_closed);
    }
    free((void *)(uintptr_t)pair->client.greeting);
    pair_close(pair);
}

static void any_operation_may_fail(void **state)
{
    (void)state;
    static const int errs[] = {-EIO, -ENOMEM, -ECANCELED, -EINTR};
    for (size_t i = 0; i < ARRAY_COUNT(errs); i++) {
        for (uint64_t countdown = 1; countdown <= 30; countdown++) {
            talk_with_fault(false, countdown, errs[i]);
            talk_with_fault(true, countdown, errs[i]);
        }
    }
}

static void any_allocation_of_open_may_fail(void **state)
{
    (void)state;
    const struct io_shape shape = {.connections_max = TALKS_MAX};
    for (uint64_t countdown = 1;; countdown++) {
        struct io *io;
        char reason[URING_REASON_BYTES];
        memory_fail_after(countdown);
        int err = io_kind->open(&shape, &io, reason);
        memory_fail_after(0);
        if (err == 0) {
            assert_true(countdown > 3);
            io_destroy(io);
            return;
        }
        assert_int_equal(err, -ENOMEM);
        assert_true(strlen(reason) > 0);
    }
}

static void destroying_frees_what_is_in_flight(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    pair->server.manner = MANNER_PAUSE;
    uint8_t *bytes = random_bytes(16 * MIB, 18);
    for (int i = 0; i < 5; i++) talk_send(&pair->client, pair_connect(pair), bytes, 16 * MIB);
    pair_turn_some(pair);
    (void)pair_connect_begin(pair);
    io_wake(pair->server.io, pair->client.io);
    struct address address = pair->address;
    pair_close(pair);
    free(bytes);
    /* The port is free at once. */
    const struct io_shape shape = {.connections_max = 1};
    struct io *io = io_open(&shape);
    assert_int_equal(io_listen(io, &address, NULL), 0);
    io_destroy(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back_as_they_were),
        cmocka_unit_test(parts_are_sent_in_order),
        cmocka_unit_test(many_connections_talk_at_once),
        cmocka_unit_test(running_out_of_buffers_loses_nothing),
        cmocka_unit_test(an_event_list_of_one_is_enough),
        cmocka_unit_test(what_is_put_back_comes_again_in_order),
        cmocka_unit_test(a_paused_connection_is_silent),
        cmocka_unit_test(the_end_waits_for_what_is_held),
        cmocka_unit_test(what_is_held_is_counted),
        cmocka_unit_test(no_memory_to_hold_bytes_closes_the_connection),
        cmocka_unit_test(an_accepted_connection_delivers_once_and_pauses),
        cmocka_unit_test(a_detached_connection_goes_on_in_another_io),
        cmocka_unit_test(a_peer_that_vanishes_is_noticed),
        cmocka_unit_test(only_a_quiet_connection_can_be_detached),
        cmocka_unit_test(the_peers_close_is_told_after_the_last_byte),
        cmocka_unit_test(who_has_finished_can_still_be_answered),
        cmocka_unit_test(a_close_ends_a_send_in_flight),
        cmocka_unit_test(a_send_after_the_end_is_ignored),
        cmocka_unit_test(a_reset_is_told),
        cmocka_unit_test(a_refused_connection_is_told),
        cmocka_unit_test(a_connection_can_be_closed_while_it_connects),
        cmocka_unit_test(handles_are_not_used_twice),
        cmocka_unit_test(accepting_stops_and_connections_live_on),
        cmocka_unit_test(an_address_in_use_is_refused),
        cmocka_unit_test(a_full_table_lets_connections_wait),
        cmocka_unit_test(running_out_of_descriptors_pauses_accepting),
        cmocka_unit_test(the_last_descriptors_are_not_for_connections),
        cmocka_unit_test(a_wait_ends_in_time),
        cmocka_unit_test(what_was_asked_for_makes_it_ready),
        cmocka_unit_test(who_polls_hears_of_time_and_of_what_comes),
        cmocka_unit_test(a_descriptor_may_be_refused),
        cmocka_unit_test(wakes_are_one_event_a_turn),
        cmocka_unit_test(an_io_wakes_another),
        cmocka_unit_test(a_thread_wakes_a_waiting_io),
        cmocka_unit_test(any_operation_may_fail),
        cmocka_unit_test(any_allocation_of_open_may_fail),
        cmocka_unit_test(destroying_frees_what_is_in_flight),
    };
    return io_kinds_run(tests, ARRAY_COUNT(tests));
}
