#include "tests/support/io_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct pair *pair_open_with(const struct io_shape *shape)
{
    struct pair *pair = calloc(1, sizeof *pair);
    assert_non_null(pair);
    pair->server.io = io_open(shape);
    pair->client.io = io_open(shape);
    rng_init(&pair->server.rng, 1);
    rng_init(&pair->client.rng, 2);
    struct address any = address_loopback(0);
    assert_int_equal(io_listen(pair->server.io, &any, &pair->server), 0);
    assert_int_equal(io_listen_address(pair->server.io, &pair->address), 0);
    return pair;
}

struct pair *pair_open(void)
{
    const struct io_shape shape = {.connections_max = TALKS_MAX};
    return pair_open_with(&shape);
}

static void end_close(struct end *end)
{
    assert_int_equal(end->io->counters.overflows, 0);
    io_destroy(end->io);
    for (size_t i = 0; i < TALKS_MAX; i++) {
        free(end->talks[i].bytes);
        free(end->talks[i].echo);
    }
}

void pair_close(struct pair *pair)
{
    end_close(&pair->server);
    end_close(&pair->client);
    free(pair);
}

struct talk *talk_of(struct end *end, uint32_t conn)
{
    for (size_t i = 0; i < TALKS_MAX; i++)
        if (end->talks[i].is_used && end->talks[i].conn == conn && !end->talks[i].is_closed)
            return &end->talks[i];
    fail_msg("an event of a connection that is not open");
    return NULL;
}

struct talk *talk_add(struct end *end, uint32_t conn)
{
    for (size_t i = 0; i < TALKS_MAX; i++) {
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

void talk_resume(struct end *end, struct talk *talk)
{
    talk->is_paused = false;
    io_resume(end->io, talk->conn);
}

void talk_send(struct end *end, const struct talk *talk, const uint8_t *bytes, size_t size)
{
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    io_send(end->io, talk->conn, &part, 1);
}

void end_take(struct end *end, const struct io_event *event)
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
        if (end->greeting != NULL) talk_send(end, talk, end->greeting, end->greeting_bytes);
        break;
    case IO_RECEIVED: on_received(end, talk, event); break;
    case IO_SENT:
        talk->sent_count++;
        if (end->manner == MANNER_ECHO) talk_resume(end, talk);
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

unsigned end_wait(struct end *end, uint64_t wait_ns)
{
    struct io_event events[EVENTS_MAX];
    memset(end->seen_in_turn, 0, sizeof end->seen_in_turn);
    unsigned count = io_wait(end->io, events, EVENTS_MAX, wait_ns);
    for (unsigned i = 0; i < count; i++) end_take(end, &events[i]);
    for (size_t i = 0; end->manner == MANNER_SIP && i < TALKS_MAX; i++) {
        struct talk *talk = &end->talks[i];
        if (!talk->is_sip_due || talk->is_closed || rng_below(&end->rng, 2) == 0) continue;
        talk->is_sip_due = false;
        talk_resume(end, talk);
    }
    return count;
}

void pair_turn(struct pair *pair)
{
    unsigned count = end_wait(&pair->server, 0);
    (void)end_wait(&pair->client, count == 0 ? 50 * NS_PER_US : 0);
}

void pair_turn_some(struct pair *pair)
{
    for (int i = 0; i < 50; i++) pair_turn(pair);
}

struct talk *pair_connect_begin(struct pair *pair)
{
    int64_t conn = io_connect(pair->client.io, &pair->address, &pair->client);
    assert_true(conn >= 0);
    return talk_add(&pair->client, (uint32_t)conn);
}

struct talk *pair_connect(struct pair *pair)
{
    unsigned accepted = pair->server.accepted;
    unsigned connected = pair->client.connected;
    struct talk *talk = pair_connect_begin(pair);
    PAIR_UNTIL(pair, pair->server.accepted == accepted + 1);
    PAIR_UNTIL(pair, pair->client.connected == connected + 1);
    return talk;
}

uint8_t *random_bytes(size_t size, uint64_t seed)
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

void pair_echoes(struct pair *pair, struct talk *talk, size_t size)
{
    uint8_t *bytes = random_bytes(size, size);
    unsigned sent_count = talk->sent_count;
    talk->bytes_count = 0;
    talk_send(&pair->client, talk, bytes, size);
    PAIR_UNTIL(pair, talk->bytes_count >= size && talk->sent_count == sent_count + 1);
    assert_int_equal(talk->bytes_count, size);
    assert_memory_equal(talk->bytes, bytes, size);
    free(bytes);
}

void pair_echoes_all(struct pair *pair)
{
    static const size_t sizes[] = {1,           2,       127, 4096, 32768, 65535, 64 * KIB + 1,
                                   3 * MIB / 2, 8 * MIB, 3};
    pair->server.manner = MANNER_ECHO;
    struct talk *talk = pair_connect(pair);
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) pair_echoes(pair, talk, sizes[i]);
}
