/*
 * Two ios in one thread, a server and a client, talk over loopback. `turn` calls io_wait of both
 * once; a test turns until what it waits for has happened, or fails after TEST_NS.
 */
#include "net/uring.h"

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

#include "base/bytes.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "net/uring_probe.h"

#define TEST_NS (20 * NS_PER_S)
#define TEST_MS 20000
#define EVENTS_MAX 64
#define CONNECTIONS_MAX 256

/* What an end does with what it receives. */
enum manner {
    MANNER_KEEP,  /* appends it to what it received, and resumes */
    MANNER_ECHO,  /* sends it back, paused while it does */
    MANNER_SIP,   /* takes a random part and puts the rest back */
    MANNER_PAUSE, /* keeps it and stays paused */
    MANNER_IGNORE /* leaves the connection as it is */
};

struct end;

/* One connection of an end. */
struct talk {
    uint32_t conn;
    bool is_used;
    bool is_closed;
    bool is_paused;  /* by us: nothing may be received */
    bool is_sip_due; /* the next turn resumes */
    bool has_eof;
    int32_t closed_result;
    unsigned sent_count;
    uint8_t *bytes; /* received */
    size_t bytes_count;
    size_t capacity;
    uint8_t *echo;
    size_t echo_bytes;
    struct address peer;
};

struct end {
    struct io *io;
    enum manner manner;
    bool outlives_eof; /* does not close when the peer has ended */
    struct talk talks[CONNECTIONS_MAX];
    unsigned accepted;
    unsigned connected;
    unsigned closed;
    unsigned woken;
    unsigned events;
    bool seen_in_turn[CONNECTIONS_MAX];
    struct rng rng;
    const uint8_t *greeting; /* sent when connected; NULL: nothing */
    size_t greeting_bytes;
};

struct world {
    struct end server;
    struct end client;
    struct address address;
};

static struct io *io_open(const struct uring_options *options)
{
    struct io *io = NULL;
    char reason[URING_REASON_BYTES];
    int err = uring_open(options, &io, reason);
    if (err < 0) print_message("%s\n", reason);
    assert_int_equal(err, 0);
    return io;
}

static struct world *world_open_with(const struct uring_options *options)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->server.io = io_open(options);
    world->client.io = io_open(options);
    rng_init(&world->server.rng, 1);
    rng_init(&world->client.rng, 2);
    struct address any = address_loopback(0);
    assert_int_equal(io_listen(world->server.io, &any, &world->server), 0);
    assert_int_equal(io_listen_address(world->server.io, &world->address), 0);
    return world;
}

static struct world *world_open(void)
{
    const struct uring_options options = {.features = URING_FEATURES_DEFAULT,
                                          .connections_max = CONNECTIONS_MAX};
    return world_open_with(&options);
}

static void end_close(struct end *end)
{
    assert_int_equal(end->io->counters.overflows, 0);
    io_destroy(end->io);
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        free(end->talks[i].bytes);
        free(end->talks[i].echo);
    }
}

static void world_close(struct world *world)
{
    end_close(&world->server);
    end_close(&world->client);
    free(world);
}

static struct talk *talk_of(struct end *end, uint32_t conn)
{
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        if (end->talks[i].is_used && end->talks[i].conn == conn && !end->talks[i].is_closed)
            return &end->talks[i];
    fail_msg("an event of a connection that is not open");
    return NULL;
}

static struct talk *talk_add(struct end *end, uint32_t conn)
{
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct talk *talk = &end->talks[i];
        if (talk->is_used) continue;
        talk->is_used = true;
        talk->conn = conn;
        return talk;
    }
    fail_msg("too many connections for this test");
    return NULL;
}

static void keep(struct talk *talk, const uint8_t *data, size_t size)
{
    if (talk->capacity - talk->bytes_count < size) {
        talk->capacity = 2 * (talk->bytes_count + size);
        talk->bytes = realloc(talk->bytes, talk->capacity);
        assert_non_null(talk->bytes);
    }
    memcpy(talk->bytes + talk->bytes_count, data, size);
    talk->bytes_count += size;
}

static void echo(struct end *end, struct talk *talk, const uint8_t *data, size_t size)
{
    talk->echo = realloc(talk->echo, size);
    assert_non_null(talk->echo);
    memcpy(talk->echo, data, size);
    struct iovec part = {talk->echo, size};
    io_pause(end->io, talk->conn, NULL, 0);
    talk->is_paused = true;
    io_send(end->io, talk->conn, &part, 1);
}

/* Takes some bytes and puts the rest back, now and then from memory of its own. */
static void sip(struct end *end, struct talk *talk, uint8_t *data, size_t size)
{
    size_t taken = rng_below(&end->rng, 4) == 0 ? size : (size_t)rng_below(&end->rng, size + 1);
    keep(talk, data, taken);
    if (rng_below(&end->rng, 3) == 0) {
        uint8_t *copy = malloc(size - taken + 1);
        assert_non_null(copy);
        memcpy(copy, data + taken, size - taken);
        io_pause(end->io, talk->conn, copy, size - taken);
        memset(copy, 0xee, size - taken + 1);
        free(copy);
    } else {
        io_pause(end->io, talk->conn, data + taken, size - taken);
    }
    talk->is_paused = true;
    talk->is_sip_due = true;
}

static void on_received(struct end *end, struct talk *talk, const struct io_event *event)
{
    assert_true(event->size > 0);
    assert_false(talk->is_paused);
    /* Once a turn, and the headroom is ours. */
    size_t index = (size_t)(talk - end->talks);
    assert_false(end->seen_in_turn[index]);
    end->seen_in_turn[index] = true;
    memset(event->data - IO_HEADROOM_BYTES, 0xdd, IO_HEADROOM_BYTES);
    switch (end->manner) {
    case MANNER_KEEP:
        keep(talk, event->data, event->size);
        io_resume(end->io, talk->conn);
        break;
    case MANNER_ECHO: echo(end, talk, event->data, event->size); break;
    case MANNER_SIP: sip(end, talk, event->data, event->size); break;
    case MANNER_PAUSE:
        keep(talk, event->data, event->size);
        io_pause(end->io, talk->conn, NULL, 0);
        talk->is_paused = true;
        break;
    case MANNER_IGNORE: keep(talk, event->data, event->size); break;
    }
}

static void resume(struct end *end, struct talk *talk)
{
    talk->is_paused = false;
    io_resume(end->io, talk->conn);
}

static void send_bytes(struct end *end, const struct talk *talk, const uint8_t *bytes, size_t size)
{
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    io_send(end->io, talk->conn, &part, 1);
}

static void on_event(struct end *end, const struct io_event *event)
{
    end->events++;
    if (event->type == IO_WOKEN) {
        end->woken++;
        return;
    }
    assert_ptr_equal(event->context, end);
    struct talk *talk =
        event->type == IO_ACCEPTED ? talk_add(end, event->conn) : talk_of(end, event->conn);
    switch ((enum io_event_type)event->type) {
    case IO_ACCEPTED:
        end->accepted++;
        talk->peer = *event->address;
        break;
    case IO_CONNECTED:
        end->connected++;
        if (end->greeting != NULL) send_bytes(end, talk, end->greeting, end->greeting_bytes);
        break;
    case IO_RECEIVED: on_received(end, talk, event); break;
    case IO_SENT:
        talk->sent_count++;
        if (end->manner == MANNER_ECHO) resume(end, talk);
        break;
    case IO_EOF:
        assert_false(talk->has_eof);
        talk->has_eof = true;
        if (!end->outlives_eof) io_close(end->io, talk->conn);
        break;
    case IO_CLOSED:
        end->closed++;
        talk->is_closed = true;
        talk->closed_result = event->result;
        break;
    case IO_DATAGRAM:
    case IO_WOKEN: fail();
    }
}

static unsigned end_wait(struct end *end, uint64_t wait_ns)
{
    struct io_event events[EVENTS_MAX];
    memset(end->seen_in_turn, 0, sizeof end->seen_in_turn);
    unsigned count = io_wait(end->io, events, EVENTS_MAX, wait_ns);
    for (unsigned i = 0; i < count; i++) on_event(end, &events[i]);
    for (size_t i = 0; end->manner == MANNER_SIP && i < CONNECTIONS_MAX; i++) {
        struct talk *talk = &end->talks[i];
        if (!talk->is_sip_due || talk->is_closed || rng_below(&end->rng, 2) == 0) continue;
        talk->is_sip_due = false;
        resume(end, talk);
    }
    return count;
}

/* Both ends once; the client rests for a moment if there is nothing to do. */
static void turn(struct world *world)
{
    unsigned count = end_wait(&world->server, 0);
    (void)end_wait(&world->client, count == 0 ? 50 * NS_PER_US : 0);
}

#define TURN_UNTIL(world, condition)                                                               \
    do {                                                                                           \
        uint64_t deadline_ns = clock_now_ns() + TEST_NS;                                           \
        while (!(condition)) {                                                                     \
            if (clock_now_ns() > deadline_ns) fail_msg("waited in vain for " #condition);          \
            turn(world);                                                                           \
        }                                                                                          \
    } while (0)

/* Turns in which nothing of what is forbidden may happen. */
static void turn_some(struct world *world)
{
    for (int i = 0; i < 50; i++) turn(world);
}

static struct talk *connect_begin(struct world *world)
{
    int64_t conn = io_connect(world->client.io, &world->address, &world->client);
    assert_true(conn >= 0);
    return talk_add(&world->client, (uint32_t)conn);
}

static struct talk *connect_one(struct world *world)
{
    unsigned accepted = world->server.accepted;
    unsigned connected = world->client.connected;
    struct talk *talk = connect_begin(world);
    TURN_UNTIL(world, world->server.accepted == accepted + 1);
    TURN_UNTIL(world, world->client.connected == connected + 1);
    return talk;
}

static uint8_t *random_bytes(size_t size, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    uint8_t *bytes = malloc(size + 8);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i += 8) {
        uint64_t next = rng_next(&rng);
        memcpy(bytes + i, &next, sizeof next);
    }
    return bytes;
}

static void assert_echoes(struct world *world, struct talk *talk, size_t size)
{
    uint8_t *bytes = random_bytes(size, size);
    unsigned sent_count = talk->sent_count;
    talk->bytes_count = 0;
    send_bytes(&world->client, talk, bytes, size);
    TURN_UNTIL(world, talk->bytes_count >= size && talk->sent_count == sent_count + 1);
    assert_int_equal(talk->bytes_count, size);
    assert_memory_equal(talk->bytes, bytes, size);
    free(bytes);
}

static void assert_echoes_all(struct world *world)
{
    static const size_t sizes[] = {1,           2,       127, 4096, 32768, 65535, 64 * KIB + 1,
                                   3 * MIB / 2, 8 * MIB, 3};
    world->server.manner = MANNER_ECHO;
    struct talk *talk = connect_one(world);
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) assert_echoes(world, talk, sizes[i]);
}

/* ---- talking ---- */

static void bytes_come_back_as_they_were(void **state)
{
    (void)state;
    struct world *world = world_open();
    assert_echoes_all(world);
    world_close(world);
}

static void parts_are_sent_in_order(void **state)
{
    (void)state;
    struct world *world = world_open();
    struct talk *talk = connect_one(world);
    const size_t part_bytes = 300000;
    uint8_t *bytes = random_bytes(IO_SEND_PARTS_MAX * part_bytes, 5);
    struct iovec parts[IO_SEND_PARTS_MAX];
    for (size_t i = 0; i < IO_SEND_PARTS_MAX; i++)
        parts[i] = (struct iovec){bytes + i * part_bytes, part_bytes};
    io_send(world->client.io, talk->conn, parts, IO_SEND_PARTS_MAX);
    memset(parts, 0, sizeof parts); /* the array was copied */
    struct talk *other = &world->server.talks[0];
    TURN_UNTIL(world, other->bytes_count == IO_SEND_PARTS_MAX * part_bytes);
    TURN_UNTIL(world, talk->sent_count == 1);
    assert_memory_equal(other->bytes, bytes, other->bytes_count);
    free(bytes);
    world_close(world);
}

static void every_feature_can_be_missing(void **state)
{
    (void)state;
    for (uint32_t bit = 1; bit <= URING_UDP_GRO; bit *= 2) {
        const struct uring_options options = {.features = URING_FEATURES_DEFAULT & ~bit,
                                              .connections_max = CONNECTIONS_MAX};
        struct world *world = world_open_with(&options);
        assert_int_equal(uring_features(world->server.io) & bit, 0);
        assert_echoes_all(world);
        world_close(world);
    }
}

static void all_and_no_features_work(void **state)
{
    (void)state;
    uint32_t all = 0;
    const char *unknown;
    size_t unknown_bytes;
    assert_int_equal(uring_features_parse("all", &all, &unknown, &unknown_bytes), 0);
    for (int i = 0; i < 2; i++) {
        const struct uring_options options = {.features = i == 0 ? all : 0,
                                              .connections_max = CONNECTIONS_MAX};
        struct world *world = world_open_with(&options);
        assert_echoes_all(world);
        world_close(world);
    }
}

static void many_connections_talk_at_once(void **state)
{
    (void)state;
    enum { COUNT = 200, BYTES = 5000 };
    struct world *world = world_open();
    world->server.manner = MANNER_ECHO;
    struct talk *talks[COUNT];
    for (int i = 0; i < COUNT; i++) talks[i] = connect_begin(world);
    TURN_UNTIL(world, world->server.accepted == COUNT && world->client.connected == COUNT);
    uint8_t *bytes = random_bytes(BYTES + COUNT, 9);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) send_bytes(&world->client, talks[i], bytes + i, BYTES);
        for (int i = 0; i < COUNT; i++) {
            TURN_UNTIL(world, talks[i]->bytes_count == BYTES && talks[i]->sent_count);
            assert_memory_equal(talks[i]->bytes, bytes + i, BYTES);
            talks[i]->bytes_count = 0;
            talks[i]->sent_count = 0;
        }
    }
    free(bytes);
    world_close(world);
}

static void running_out_of_buffers_loses_nothing(void **state)
{
    (void)state;
    enum { COUNT = 16, BYTES = 200000 };
    const struct uring_options options = {.features = URING_FEATURES_DEFAULT,
                                          .connections_max = CONNECTIONS_MAX,
                                          .buffers_count = 2,
                                          .buffer_bytes = 1000};
    struct world *world = world_open_with(&options);
    world->server.manner = MANNER_KEEP;
    uint8_t *bytes = random_bytes(BYTES, 10);
    for (int i = 0; i < COUNT; i++) connect_one(world);
    for (int i = 0; i < COUNT; i++)
        send_bytes(&world->client, &world->client.talks[i], bytes, BYTES);
    for (int i = 0; i < COUNT; i++) {
        TURN_UNTIL(world, world->server.talks[i].bytes_count == BYTES);
        assert_memory_equal(world->server.talks[i].bytes, bytes, BYTES);
    }
    assert_true(world->server.io->counters.buffers_out > 0);
    free(bytes);
    world_close(world);
}

static void an_event_list_of_one_is_enough(void **state)
{
    (void)state;
    enum { COUNT = 8, BYTES = 100000 };
    struct world *world = world_open();
    for (int i = 0; i < COUNT; i++) connect_one(world);
    uint8_t *bytes = random_bytes(BYTES, 11);
    for (int i = 0; i < COUNT; i++)
        send_bytes(&world->client, &world->client.talks[i], bytes, BYTES);
    uint64_t deadline_ns = clock_now_ns() + TEST_NS;
    for (size_t received = 0; received < COUNT * BYTES;) {
        struct io_event event;
        memset(world->server.seen_in_turn, 0, sizeof world->server.seen_in_turn);
        if (io_wait(world->server.io, &event, 1, 0) == 1) on_event(&world->server, &event);
        (void)end_wait(&world->client, 0);
        received = 0;
        for (int i = 0; i < COUNT; i++) received += world->server.talks[i].bytes_count;
        assert_true(clock_now_ns() < deadline_ns);
    }
    for (int i = 0; i < COUNT; i++) assert_memory_equal(world->server.talks[i].bytes, bytes, BYTES);
    free(bytes);
    world_close(world);
}

/* ---- pausing ---- */

static void what_is_put_back_comes_again_in_order(void **state)
{
    (void)state;
    enum { BYTES = 3000000 };
    static const uint32_t buffer_bytes[] = {0, 5000};
    for (size_t i = 0; i < ARRAY_COUNT(buffer_bytes); i++) {
        const struct uring_options options = {.features = URING_FEATURES_DEFAULT,
                                              .connections_max = CONNECTIONS_MAX,
                                              .buffer_bytes = buffer_bytes[i]};
        struct world *world = world_open_with(&options);
        world->server.manner = MANNER_SIP;
        struct talk *talk = connect_one(world);
        uint8_t *bytes = random_bytes(BYTES, 12);
        send_bytes(&world->client, talk, bytes, BYTES);
        TURN_UNTIL(world, world->server.talks[0].bytes_count == BYTES);
        assert_memory_equal(world->server.talks[0].bytes, bytes, BYTES);
        free(bytes);
        world_close(world);
    }
}

static void a_paused_connection_is_silent(void **state)
{
    (void)state;
    enum { BYTES = 500000 };
    struct world *world = world_open();
    struct talk *talk = connect_one(world);
    struct talk *other = &world->server.talks[0];
    uint8_t *bytes = random_bytes(BYTES, 13);
    send_bytes(&world->client, talk, bytes, 1);
    TURN_UNTIL(world, other->bytes_count == 1);
    TURN_UNTIL(world, talk->sent_count == 1);
    /* It is receiving by now. on_received fails the test if anything comes. */
    turn(world);
    io_pause(world->server.io, other->conn, NULL, 0);
    other->is_paused = true;
    send_bytes(&world->client, talk, bytes + 1, BYTES - 1);
    turn_some(world);
    assert_int_equal(other->bytes_count, 1);
    resume(&world->server, other);
    TURN_UNTIL(world, other->bytes_count == BYTES);
    assert_memory_equal(other->bytes, bytes, BYTES);
    free(bytes);
    world_close(world);
}

static void the_end_waits_for_what_is_held(void **state)
{
    (void)state;
    enum { BYTES = 300000 };
    struct world *world = world_open();
    struct talk *talk = connect_one(world);
    struct talk *other = &world->server.talks[0];
    world->server.manner = MANNER_SIP;
    uint8_t *bytes = random_bytes(BYTES, 14);
    send_bytes(&world->client, talk, bytes, BYTES);
    TURN_UNTIL(world, talk->sent_count == 1);
    io_close(world->client.io, talk->conn);
    TURN_UNTIL(world, other->is_closed);
    assert_int_equal(other->closed_result, 0);
    assert_int_equal(other->bytes_count, BYTES);
    assert_memory_equal(other->bytes, bytes, BYTES);
    free(bytes);
    world_close(world);
}

static void no_memory_to_hold_bytes_closes_the_connection(void **state)
{
    (void)state;
    struct world *world = world_open();
    world->server.manner = MANNER_IGNORE;
    struct talk *talk = connect_one(world);
    struct talk *other = &world->server.talks[0];
    send_bytes(&world->client, talk, (const uint8_t *)"hello", 5);
    TURN_UNTIL(world, other->bytes_count == 5);
    memory_fail_after(1);
    io_pause(world->server.io, other->conn, "ello", 4);
    memory_fail_after(0);
    TURN_UNTIL(world, other->is_closed);
    assert_int_equal(other->closed_result, -ENOMEM);
    world_close(world);
}

/* ---- handing over ---- */

static void an_accepted_connection_delivers_once_and_pauses(void **state)
{
    (void)state;
    struct world *world = world_open();
    world->server.manner = MANNER_IGNORE;
    struct talk *talk = connect_one(world);
    struct talk *other = &world->server.talks[0];
    assert_true(address_is_loopback(&other->peer));
    send_bytes(&world->client, talk, (const uint8_t *)"a", 1);
    TURN_UNTIL(world, other->bytes_count == 1);
    TURN_UNTIL(world, talk->sent_count == 1);
    send_bytes(&world->client, talk, (const uint8_t *)"b", 1);
    turn_some(world);
    assert_int_equal(other->bytes_count, 1);
    io_resume(world->server.io, other->conn);
    TURN_UNTIL(world, other->bytes_count == 2);
    assert_memory_equal(other->bytes, "ab", 2);
    world_close(world);
}

/* Detaches the server's connection and adopts it at the client's end, which acts as a third. */
static void a_detached_connection_goes_on_in_another_io(void **state)
{
    (void)state;
    enum { BYTES = 100000 };
    struct world *world = world_open();
    struct world *third = world_open();
    world->server.manner = MANNER_IGNORE;
    third->server.manner = MANNER_ECHO;
    struct talk *talk = connect_one(world);
    struct talk *other = &world->server.talks[0];
    uint8_t *bytes = random_bytes(BYTES, 15);
    send_bytes(&world->client, talk, bytes, 100);
    TURN_UNTIL(world, other->bytes_count == 100);
    TURN_UNTIL(world, talk->sent_count == 1);
    /* These stay in the socket. */
    send_bytes(&world->client, talk, bytes, BYTES);
    TURN_UNTIL(world, talk->sent_count == 2);

    unsigned events = world->server.events;
    int fd = io_detach(world->server.io, other->conn);
    assert_true(fd >= 0);
    int64_t conn = io_adopt(third->server.io, fd, &third->server);
    assert_true(conn >= 0);
    (void)talk_add(&third->server, (uint32_t)conn);
    uint64_t deadline_ns = clock_now_ns() + TEST_NS;
    while (talk->bytes_count < BYTES && clock_now_ns() < deadline_ns) {
        turn(world);
        turn(third);
    }
    assert_int_equal(talk->bytes_count, BYTES);
    assert_memory_equal(talk->bytes, bytes, BYTES);
    assert_int_equal(world->server.events, events);
    free(bytes);
    world_close(world);
    world_close(third);
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
    struct world *world = world_open();
    world->server.manner = MANNER_IGNORE;
    struct talk *talk = connect_one(world);
    send_bytes(&world->client, talk, (const uint8_t *)"hello", 5);
    TURN_UNTIL(world, world->server.talks[0].bytes_count == 5);
    int fd = io_detach(world->server.io, world->server.talks[0].conn);
    assert_true(fd >= 0);
    assert_int_equal(option_of(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    int silence_s =
        option_of(fd, IPPROTO_TCP, TCP_KEEPIDLE) +
        option_of(fd, IPPROTO_TCP, TCP_KEEPINTVL) * option_of(fd, IPPROTO_TCP, TCP_KEEPCNT);
    assert_true(silence_s <= 120);
    assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    close(fd);
    world_close(world);
}

static void only_a_quiet_connection_can_be_detached(void **state)
{
    (void)state;
    struct world *world = world_open();
    world->server.manner = MANNER_IGNORE;
    struct talk *talk = connect_one(world);
    struct talk *other = &world->server.talks[0];
    assert_int_equal(io_detach(world->client.io, talk->conn), -EBUSY); /* it receives */
    send_bytes(&world->client, talk, (const uint8_t *)"hello", 5);
    TURN_UNTIL(world, other->bytes_count == 5);
    send_bytes(&world->server, other, (const uint8_t *)"x", 1);
    assert_int_equal(io_detach(world->server.io, other->conn), -EBUSY); /* it sends */
    TURN_UNTIL(world, other->sent_count == 1);
    int fd = io_detach(world->server.io, other->conn);
    assert_true(fd >= 0);
    close(fd);
    world_close(world);
}

/* ---- ending ---- */

static void the_peers_close_is_told_after_the_last_byte(void **state)
{
    (void)state;
    struct world *world = world_open();
    struct talk *talk = connect_one(world);
    struct talk *other = &world->server.talks[0];
    send_bytes(&world->client, talk, (const uint8_t *)"last", 4);
    TURN_UNTIL(world, talk->sent_count == 1);
    io_close(world->client.io, talk->conn);
    TURN_UNTIL(world, talk->is_closed && other->is_closed);
    assert_int_equal(talk->closed_result, -ECANCELED);
    assert_int_equal(other->closed_result, 0);
    assert_int_equal(other->bytes_count, 4);
    world_close(world);
}

static void who_has_finished_can_still_be_answered(void **state)
{
    (void)state;
    const size_t size = 16 * MIB;
    struct world *world = world_open();
    world->server.manner = MANNER_IGNORE;
    world->server.outlives_eof = true;
    struct talk *talk = connect_one(world);
    struct talk *other = &world->server.talks[0];
    uint8_t *bytes = random_bytes(size, 17);
    io_finish(world->client.io, talk->conn);
    TURN_UNTIL(world, other->has_eof);
    send_bytes(&world->server, other, bytes, size);
    TURN_UNTIL(world, other->sent_count == 1);
    assert_false(other->is_closed);
    io_close(world->server.io, other->conn);
    TURN_UNTIL(world, talk->is_closed && other->is_closed);
    assert_true(talk->has_eof);
    assert_int_equal(talk->closed_result, 0);
    assert_int_equal(other->closed_result, 0);
    assert_int_equal(talk->bytes_count, size);
    assert_memory_equal(talk->bytes, bytes, size);
    free(bytes);
    world_close(world);
}

static void a_close_ends_a_send_in_flight(void **state)
{
    (void)state;
    const size_t size = 64 * MIB;
    static const uint32_t features[] = {URING_FEATURES_DEFAULT,
                                        URING_FEATURES_DEFAULT | URING_SEND_ZC};
    for (size_t i = 0; i < ARRAY_COUNT(features); i++) {
        const struct uring_options options = {.features = features[i],
                                              .connections_max = CONNECTIONS_MAX};
        struct world *world = world_open_with(&options);
        world->server.manner = MANNER_IGNORE;
        struct talk *talk = connect_one(world);
        uint8_t *bytes = random_bytes(size, 16);
        send_bytes(&world->client, talk, bytes, size);
        turn_some(world);
        assert_int_equal(talk->sent_count, 0);
        io_close(world->client.io, talk->conn);
        io_close(world->client.io, talk->conn); /* twice does nothing more */
        TURN_UNTIL(world, talk->is_closed);
        assert_int_equal(talk->closed_result, -ECANCELED);
        assert_int_equal(talk->sent_count, 0);
        free(bytes); /* the kernel let go of it */
        world_close(world);
    }
}

static void a_send_after_the_end_is_ignored(void **state)
{
    (void)state;
    struct world *world = world_open();
    struct talk *talk = connect_one(world);
    io_close(world->client.io, talk->conn);
    send_bytes(&world->client, talk, (const uint8_t *)"x", 1);
    io_pause(world->client.io, talk->conn, "x", 1);
    io_resume(world->client.io, talk->conn);
    assert_int_equal(io_detach(world->client.io, talk->conn), -EBUSY);
    TURN_UNTIL(world, talk->is_closed && world->server.talks[0].is_closed);
    assert_int_equal(talk->sent_count, 0);
    world_close(world);
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
    struct world *world = world_open();
    int fd = raw_connect(&world->address);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    struct talk *other = &world->server.talks[0];
    TURN_UNTIL(world, other->bytes_count == 1);
    turn(world);
    const struct linger reset = {.l_onoff = 1};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(fd);
    TURN_UNTIL(world, other->is_closed);
    assert_int_equal(other->closed_result, -ECONNRESET);
    world_close(world);
}

static void a_refused_connection_is_told(void **state)
{
    (void)state;
    struct world *world = world_open();
    io_stop_listening(world->server.io);
    turn(world);
    struct talk *talk = connect_begin(world);
    TURN_UNTIL(world, talk->is_closed);
    assert_int_equal(talk->closed_result, -ECONNREFUSED);
    assert_int_equal(world->client.connected, 0);
    world_close(world);
}

static void a_connection_can_be_closed_while_it_connects(void **state)
{
    (void)state;
    struct world *world = world_open();
    for (int i = 0; i < 2; i++) {
        struct talk *talk = connect_begin(world);
        if (i == 1) (void)end_wait(&world->client, 0);
        if (!talk->is_closed) io_close(world->client.io, talk->conn);
        TURN_UNTIL(world, talk->is_closed);
        assert_int_equal(talk->closed_result, -ECANCELED);
    }
    world_close(world);
}

static void handles_are_not_used_twice(void **state)
{
    (void)state;
    struct world *world = world_open();
    uint32_t before = IO_NONE;
    for (int i = 0; i < 20; i++) {
        struct talk *talk = connect_one(world);
        assert_int_not_equal(talk->conn, before);
        before = talk->conn;
        io_close(world->client.io, talk->conn);
        TURN_UNTIL(world, talk->is_closed && world->server.closed == world->client.closed);
    }
    world_close(world);
}

/* ---- accepting ---- */

static void accepting_stops_and_connections_live_on(void **state)
{
    (void)state;
    struct world *world = world_open();
    world->server.manner = MANNER_ECHO;
    struct talk *talk = connect_one(world);
    io_stop_listening(world->server.io);
    turn(world);
    assert_echoes(world, talk, 10000);
    /* The address is free again. */
    struct address again = world->address;
    assert_int_equal(io_listen(world->server.io, &again, &world->server), 0);
    (void)connect_one(world);
    world_close(world);
}

static void an_address_in_use_is_refused(void **state)
{
    (void)state;
    struct world *world = world_open();
    assert_int_equal(io_listen(world->client.io, &world->address, NULL), -EADDRINUSE);
    world_close(world);
}

static void a_full_table_lets_connections_wait(void **state)
{
    (void)state;
    enum { ROOM = 3 };
    const struct uring_options options = {.features = URING_FEATURES_DEFAULT,
                                          .connections_max = ROOM};
    struct world *world = world_open_with(&options);
    int fds[2 * ROOM];
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) fds[i] = raw_connect(&world->address);
    TURN_UNTIL(world, world->server.accepted == ROOM);
    turn_some(world);
    assert_int_equal(world->server.accepted, ROOM);
    assert_int_equal(io_connect(world->server.io, &world->address, NULL), -ENOSPC);
    for (unsigned i = 0; i < ROOM; i++) {
        io_close(world->server.io, world->server.talks[i].conn);
        TURN_UNTIL(world, world->server.accepted == ROOM + i + 1);
    }
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) close(fds[i]);
    world_close(world);
}

static void running_out_of_descriptors_pauses_accepting(void **state)
{
    (void)state;
    struct world *world = world_open();
    /* Before the accept is armed: the kernel notes the limit of then. */
    int fd = raw_connect(&world->address);
    int next = dup(fd);
    close(next);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = (rlim_t)next, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    TURN_UNTIL(world, world->server.io->counters.accept_pauses > 0);
    assert_int_equal(world->server.accepted, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    /* io_wait itself wakes up to try again. */
    while (world->server.accepted == 0) (void)end_wait(&world->server, TIME_NEVER);
    close(fd);
    world_close(world);
}

/* Accepting leaves some over, for whatever else the process opens. */
static void the_last_descriptors_are_not_for_connections(void **state)
{
    (void)state;
    enum { SPARE = 8, CONNECTIONS = 12 };
    struct world *world = world_open();
    int fds[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) fds[i] = raw_connect(&world->address);
    int next = dup(fds[0]);
    close(next);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit few = {.rlim_cur = (rlim_t)next + SPARE + 2, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    TURN_UNTIL(world, world->server.io->counters.accept_pauses > 0);
    assert_int_equal(world->server.accepted, 2);
    int others[SPARE];
    for (int i = 0; i < SPARE; i++) assert_true((others[i] = dup(fds[0])) >= 0);
    assert_true(dup(fds[0]) < 0);
    for (int i = 0; i < SPARE; i++) close(others[i]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    int late = raw_connect(&world->address);
    while (world->server.accepted < 3) (void)end_wait(&world->server, TIME_NEVER);
    close(late);
    for (int i = 0; i < CONNECTIONS; i++) close(fds[i]);
    world_close(world);
}

/* ---- waiting and waking ---- */

static void a_wait_ends_in_time(void **state)
{
    (void)state;
    struct world *world = world_open();
    turn_some(world);
    uint64_t begin_ns = clock_now_ns();
    assert_int_equal(end_wait(&world->server, 5 * NS_PER_MS), 0);
    assert_true(clock_now_ns() - begin_ns >= 5 * NS_PER_MS);
    world_close(world);
}

static void an_idle_turn_makes_no_system_call(void **state)
{
    (void)state;
    struct world *world = world_open();
    (void)connect_one(world);
    turn_some(world);
    uint64_t enters = world->server.io->counters.enters;
    for (int i = 0; i < 10; i++) {
        assert_false(io_ready(world->server.io));
        assert_int_equal(end_wait(&world->server, 0), 0);
    }
    assert_int_equal(world->server.io->counters.enters, enters);
    world_close(world);
}

/* A turn that would enter the ring for one send alone sends without it: one system call either way. */
static void a_lone_send_goes_past_the_ring_and_is_counted(void **state)
{
    (void)state;
    struct world *world = world_open();
    struct talk *talk = connect_one(world);
    turn_some(world);
    const struct io_counters before = world->client.io->counters;
    send_bytes(&world->client, talk, (const uint8_t *)"x", 1);
    assert_int_equal(end_wait(&world->client, 0), 1);
    assert_int_equal(world->client.io->counters.sends, before.sends + 1);
    assert_int_equal(world->client.io->counters.direct_sends, before.direct_sends + 1);
    assert_int_equal(world->client.io->counters.enters, before.enters);
    /* One that waits as well enters the ring, once. */
    send_bytes(&world->client, talk, (const uint8_t *)"y", 1);
    assert_int_equal(end_wait(&world->client, TIME_NEVER), 1);
    assert_int_equal(world->client.io->counters.direct_sends, before.direct_sends + 1);
    assert_int_equal(world->client.io->counters.enters, before.enters + 1);
    TURN_UNTIL(world, world->server.talks[0].bytes_count == 2);
    world_close(world);
}

static void what_was_asked_for_makes_it_ready(void **state)
{
    (void)state;
    struct world *world = world_open();
    struct talk *talk = connect_one(world);
    turn_some(world);
    assert_false(io_ready(world->client.io));
    send_bytes(&world->client, talk, (const uint8_t *)"x", 1);
    assert_true(io_ready(world->client.io));
    TURN_UNTIL(world, world->server.talks[0].bytes_count == 1);
    world_close(world);
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
    struct world *world = world_open();
    struct io *io = world->server.io;
    struct talk *talk = connect_one(world);
    turn_some(world);
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
    send_bytes(&world->client, talk, (const uint8_t *)"x", 1);
    (void)end_wait(&world->client, 0);
    assert_true(is_readable(fd, TEST_MS));
    /* Who arms it before he has taken them hears of them at once. */
    io_arm(io, TIME_NEVER);
    assert_true(is_readable(fd, 0));
    TURN_UNTIL(world, world->server.talks[0].bytes_count == 1);
    turn_some(world);
    io_arm(io, TIME_NEVER);
    assert_false(is_readable(fd, 0));
    io_wake(io, NULL);
    assert_true(is_readable(fd, TEST_MS));
    world_close(world);
}

static void a_descriptor_may_be_refused(void **state)
{
    (void)state;
    struct world *world = world_open();
    uring_fail_after(world->client.io, 1, -EMFILE);
    assert_int_equal(io_fd(world->client.io), -EMFILE);
    assert_true(io_fd(world->client.io) >= 0);
    world_close(world);
}

static void wakes_are_one_event_a_turn(void **state)
{
    (void)state;
    struct world *world = world_open();
    turn_some(world);
    for (int i = 0; i < 100; i++) io_wake(world->server.io, NULL);
    assert_int_equal(end_wait(&world->server, TIME_NEVER), 1);
    assert_int_equal(world->server.woken, 1);
    world_close(world);
}

static void a_ring_wakes_another(void **state)
{
    (void)state;
    static const uint32_t without[] = {0, URING_MSG_RING};
    for (size_t i = 0; i < ARRAY_COUNT(without); i++) {
        const struct uring_options options = {.features = URING_FEATURES_DEFAULT & ~without[i],
                                              .connections_max = CONNECTIONS_MAX};
        struct world *world = world_open_with(&options);
        turn_some(world);
        for (unsigned round = 1; round <= 5; round++) {
            io_wake(world->server.io, world->client.io);
            assert_true(io_ready(world->client.io));
            assert_int_equal(end_wait(&world->client, 0), 0);
            while (world->server.woken < round) (void)end_wait(&world->server, TIME_NEVER);
            assert_int_equal(world->server.woken, round);
        }
        io_wake(world->server.io, world->server.io);
        (void)end_wait(&world->server, TIME_NEVER);
        assert_int_equal(world->server.woken, 6);
        world_close(world);
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
    struct world *world = world_open();
    turn_some(world);
    for (unsigned round = 1; round <= 20; round++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, wake_from_thread, world->server.io), 0);
        while (world->server.woken < round) (void)end_wait(&world->server, TIME_NEVER);
        pthread_join(thread, NULL);
    }
    world_close(world);
}

/* ---- faults ---- */

static bool all_answered(const struct world *world, size_t count, size_t bytes)
{
    for (size_t i = 0; i < count; i++) {
        const struct talk *talk = &world->client.talks[i];
        if (talk->is_used && !talk->is_closed && talk->bytes_count < bytes) return false;
    }
    return true;
}

/* Connects, echoes and closes while one operation of one end fails. */
static void talk_with_fault(bool at_server, uint64_t countdown, int err)
{
    enum { COUNT = 2, BYTES = 150000 };
    struct world *world = world_open();
    world->server.manner = MANNER_ECHO;
    world->client.greeting = random_bytes(BYTES, 17);
    world->client.greeting_bytes = BYTES;
    uring_fail_after(at_server ? world->server.io : world->client.io, countdown, err);
    for (int i = 0; i < COUNT; i++) {
        int64_t conn = io_connect(world->client.io, &world->address, &world->client);
        if (conn >= 0) (void)talk_add(&world->client, (uint32_t)conn);
    }
    TURN_UNTIL(world, all_answered(world, COUNT, BYTES));
    for (size_t i = 0; i < COUNT; i++) {
        struct talk *talk = &world->client.talks[i];
        if (!talk->is_used || talk->is_closed) continue;
        assert_memory_equal(talk->bytes, world->client.greeting, BYTES);
        io_close(world->client.io, talk->conn);
        TURN_UNTIL(world, talk->is_closed);
    }
    free((void *)(uintptr_t)world->client.greeting);
    world_close(world);
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
    const struct uring_options options = {.features = URING_FEATURES_DEFAULT,
                                          .connections_max = CONNECTIONS_MAX};
    for (uint64_t countdown = 1;; countdown++) {
        struct io *io;
        char reason[URING_REASON_BYTES];
        memory_fail_after(countdown);
        int err = uring_open(&options, &io, reason);
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
    struct world *world = world_open();
    world->server.manner = MANNER_PAUSE;
    uint8_t *bytes = random_bytes(16 * MIB, 18);
    for (int i = 0; i < 5; i++) send_bytes(&world->client, connect_one(world), bytes, 16 * MIB);
    turn_some(world);
    (void)connect_begin(world);
    io_wake(world->server.io, world->client.io);
    struct address address = world->address;
    world_close(world);
    free(bytes);
    /* The port is free at once. */
    const struct uring_options options = {.features = URING_FEATURES_DEFAULT, .connections_max = 1};
    struct io *io = io_open(&options);
    assert_int_equal(io_listen(io, &address, NULL), 0);
    io_destroy(io);
}

/* ---- names and reasons ---- */

static void features_are_read_from_text(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t before;
        uint32_t after;
    } cases[] = {
        {"", 5, 5},
        {"none", 5, 0},
        {"all", 0, 127},
        {"-msg_ring", URING_MSG_RING | URING_RING_FD, URING_RING_FD},
        {"-msg_ring,+send_zc", URING_MSG_RING, URING_SEND_ZC},
        {"none,udp_gro", 127, URING_UDP_GRO},
        {"all,-defer_taskrun,-recv_bundle", 0,
         127 & ~(uint32_t)(URING_DEFER_TASKRUN | URING_RECV_BUNDLE)},
        {"no_iowait,,ring_fd,", 0, URING_NO_IOWAIT | URING_RING_FD},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint32_t features = cases[i].before;
        const char *unknown;
        size_t unknown_bytes;
        assert_int_equal(uring_features_parse(cases[i].text, &features, &unknown, &unknown_bytes),
                         0);
        assert_int_equal(features, cases[i].after);
    }
}

static void an_unknown_feature_is_reported(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *unknown;
    } cases[] = {
        {"sendzc", "sendzc"},        {"-msg_ring,+turbo,none", "+turbo"}, {"-", "-"},
        {"none,msg_rin", "msg_rin"}, {"msg_ringx", "msg_ringx"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint32_t features = 77;
        const char *unknown = NULL;
        size_t unknown_bytes = 0;
        assert_int_equal(uring_features_parse(cases[i].text, &features, &unknown, &unknown_bytes),
                         -EINVAL);
        assert_int_equal(features, 77);
        assert_int_equal(unknown_bytes, strlen(cases[i].unknown));
        assert_memory_equal(unknown, cases[i].unknown, unknown_bytes);
    }
}

static void a_refusal_names_its_cause_and_cure(void **state)
{
    (void)state;
    static const struct {
        struct uring_facts facts;
        const char *cause;
        const char *cure;
    } cases[] = {
        {{-EPERM, 2, -1, 0, UINT64_MAX}, "disabled is 2", "sysctl -w kernel.io_uring_disabled=0"},
        {{-EPERM, 1, -1, 0, UINT64_MAX}, "only root", "sysctl -w kernel.io_uring_disabled=0"},
        {{-EPERM, 1, 1234, 0, UINT64_MAX}, "group 1234", "sysctl -w kernel.io_uring_disabled=0"},
        {{-EPERM, 0, -1, 2, UINT64_MAX}, "seccomp", "docker run --security-opt seccomp="},
        {{-EPERM, -1, -1, 2, UINT64_MAX}, "seccomp", "docker run --security-opt seccomp="},
        {{-EACCES, 0, -1, 0, UINT64_MAX}, "does not permit", "SELinux"},
        {{-ENOSYS, -1, -1, 2, UINT64_MAX}, "seccomp", "docker run --security-opt seccomp="},
        {{-ENOSYS, -1, -1, 0, UINT64_MAX}, "no io_uring", "Linux 6.1"},
        {{-ENOMEM, 0, -1, 0, 64 * 1024}, "64 KiB", "ulimit -l unlimited"},
        {{-ENOMEM, 0, -1, 0, UINT64_MAX}, "no memory", "MemoryMax"},
        {{-EINVAL, 0, -1, 0, UINT64_MAX}, "too old", "Linux 6.1"},
        {{-EMFILE, 0, -1, 0, UINT64_MAX}, "descriptor", "ulimit -n"},
        {{-EIO, 0, -1, 0, UINT64_MAX}, "Input/output error", ""},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char line[URING_REASON_BYTES];
        assert_ptr_equal(uring_refusal(&cases[i].facts, line), line);
        assert_non_null(strstr(line, cases[i].cause));
        assert_non_null(strstr(line, cases[i].cure));
        assert_null(strchr(line, '\n'));
        assert_true(strlen(line) < URING_REASON_BYTES - 1);
    }
}

static void the_facts_of_this_machine_can_be_read(void **state)
{
    (void)state;
    struct uring_facts facts = uring_facts_read(-EPERM);
    assert_int_equal(facts.err, -EPERM);
    assert_in_range(facts.disabled + 1, 0, 3);
    assert_in_range(facts.seccomp_mode, 0, 2);
    assert_true(facts.memlock_bytes > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back_as_they_were),
        cmocka_unit_test(parts_are_sent_in_order),
        cmocka_unit_test(every_feature_can_be_missing),
        cmocka_unit_test(all_and_no_features_work),
        cmocka_unit_test(many_connections_talk_at_once),
        cmocka_unit_test(running_out_of_buffers_loses_nothing),
        cmocka_unit_test(an_event_list_of_one_is_enough),
        cmocka_unit_test(what_is_put_back_comes_again_in_order),
        cmocka_unit_test(a_paused_connection_is_silent),
        cmocka_unit_test(the_end_waits_for_what_is_held),
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
        cmocka_unit_test(an_idle_turn_makes_no_system_call),
        cmocka_unit_test(a_lone_send_goes_past_the_ring_and_is_counted),
        cmocka_unit_test(what_was_asked_for_makes_it_ready),
        cmocka_unit_test(who_polls_hears_of_time_and_of_what_comes),
        cmocka_unit_test(a_descriptor_may_be_refused),
        cmocka_unit_test(wakes_are_one_event_a_turn),
        cmocka_unit_test(a_ring_wakes_another),
        cmocka_unit_test(a_thread_wakes_a_waiting_io),
        cmocka_unit_test(any_operation_may_fail),
        cmocka_unit_test(any_allocation_of_open_may_fail),
        cmocka_unit_test(destroying_frees_what_is_in_flight),
        cmocka_unit_test(features_are_read_from_text),
        cmocka_unit_test(an_unknown_feature_is_reported),
        cmocka_unit_test(a_refusal_names_its_cause_and_cure),
        cmocka_unit_test(the_facts_of_this_machine_can_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
