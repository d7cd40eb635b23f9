#include "tests/sim/sim_io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"

#define INDEX_BITS 12
#define CONNECTIONS_MAX 256
#define DELIVERED_MAX 256

enum state { STATE_FREE, STATE_CONNECTING, STATE_UP, STATE_ENDING, STATE_GONE };

struct connection {
    enum state state;
    uint32_t generation;
    void *context;
    struct end *end; /* NULL while it is dialled */
    struct address address;
    uint64_t turn;     /* of its last IO_RECEIVED or IO_ACCEPTED */
    int result;        /* of IO_CLOSED */
    bool is_accepted;  /* IO_ACCEPTED is to be delivered */
    bool is_connected; /* IO_CONNECTED is */
    bool is_sent;      /* IO_SENT is */
    bool is_paused;
    bool is_first; /* it pauses by itself behind its first bytes */
    bool told_end;
    uint8_t *held;
    size_t held_bytes;
};

struct sim_io {
    struct io io;
    struct network *network;
    struct actor *actor;
    bool is_listening;
    bool is_woken;
    void *listen_context;
    struct address listen_address;
    uint64_t turn;
    struct connection connections[CONNECTIONS_MAX];
    uint32_t used; /* those behind were never taken */
    uint32_t count;
    uint8_t *delivered[DELIVERED_MAX];
    unsigned delivered_count;
};

static struct sim_io *of(struct io *io)
{
    return (struct sim_io *)io;
}

/* --------------------------------------------------------------------------- connections */

static uint32_t handle_of(const struct sim_io *io, const struct connection *connection)
{
    return connection->generation << INDEX_BITS | (uint32_t)(connection - io->connections);
}

static struct connection *find(const struct sim_io *io, uint32_t conn)
{
    const struct connection *connection =
        &io->connections[conn & ((1u << INDEX_BITS) - 1) & (CONNECTIONS_MAX - 1)];
    if (connection->state == STATE_FREE || handle_of(io, connection) != conn) return NULL;
    return (struct connection *)(uintptr_t)connection;
}

static struct connection *must_find(const struct sim_io *io, uint32_t conn)
{
    struct connection *connection = find(io, conn);
    ASSERT(connection != NULL); /* the handle is stale, or never was one */
    return connection;
}

static struct connection *take(struct sim_io *io, enum state state, struct end *end, void *context)
{
    uint32_t i = 0;
    while (i < CONNECTIONS_MAX && io->connections[i].state != STATE_FREE) i++;
    if (i == CONNECTIONS_MAX) return NULL;
    struct connection *connection = &io->connections[i];
    io->used = (uint32_t)max_u64(io->used, i + 1);
    io->count++;
    *connection = (struct connection){.state = state,
                                      .generation = (connection->generation + 1) & 0xfffff,
                                      .end = end,
                                      .context = context};
    if (end == NULL) return connection;
    end->io = io;
    end->conn = handle_of(io, connection);
    return connection;
}

static void put(struct sim_io *io, struct connection *connection)
{
    free(connection->held);
    connection->held = NULL;
    connection->state = STATE_FREE;
    io->count--;
}

static void let_go(struct connection *connection)
{
    if (connection->end != NULL && !connection->end->is_closed) end_close(connection->end);
}

/* ------------------------------------------------------------------------------ the network */

void sim_io_notify(struct sim_io *io)
{
    actor_notify(io->actor);
}

bool sim_io_wants(const struct sim_io *io, uint32_t conn)
{
    const struct connection *connection = find(io, conn);
    return connection != NULL && connection->state == STATE_CONNECTING;
}

void sim_io_dialled(struct sim_io *io, uint32_t conn, struct end *end)
{
    must_find(io, conn)->end = end;
}

void sim_io_connected(struct sim_io *io, uint32_t conn)
{
    struct connection *connection = must_find(io, conn);
    ASSERT(connection->state == STATE_CONNECTING);
    connection->state = STATE_UP;
    connection->is_connected = true;
    sim_io_notify(io);
}

void sim_io_refused(struct sim_io *io, uint32_t conn, int error)
{
    struct connection *connection = find(io, conn);
    if (connection == NULL || connection->state != STATE_CONNECTING) return;
    connection->state = STATE_ENDING;
    connection->result = error;
    sim_io_notify(io);
}

void sim_io_accept(struct sim_io *io, struct end *end)
{
    struct connection *connection = take(io, STATE_UP, end, NULL);
    if (connection == NULL) {
        end_close(end);
        return;
    }
    world_note(io->network->world, NOTE_ACCEPT, end->number, 0, 0, 0);
    connection->is_accepted = true;
    connection->is_first = true;
    connection->address = end->address;
    sim_io_notify(io);
}

void sim_io_sent(struct sim_io *io, uint32_t conn)
{
    must_find(io, conn)->is_sent = true;
    sim_io_notify(io);
}

void sim_io_kill(struct sim_io *io)
{
    for (uint32_t i = 0; i < io->used; i++) {
        struct connection *connection = &io->connections[i];
        if (connection->state != STATE_UP && connection->state != STATE_CONNECTING) continue;
        connection->state = STATE_ENDING;
        connection->result = -ECONNRESET;
        let_go(connection);
    }
}

/* --------------------------------------------------------------------------------- the table */

static int sim_listen(struct io *base, const struct address *address, void *context)
{
    struct sim_io *io = of(base);
    if (io->is_listening || io->network->listener != NULL) return -EADDRINUSE;
    io->is_listening = true;
    io->network->listener = io;
    io->listen_context = context;
    io->listen_address = *address;
    return 0;
}

static int sim_listen_address(struct io *base, struct address *address)
{
    if (!of(base)->is_listening) return -ENOTCONN;
    *address = of(base)->listen_address;
    return 0;
}

static int64_t sim_connect(struct io *base, const struct address *address, void *context)
{
    struct sim_io *io = of(base);
    struct connection *connection = take(io, STATE_CONNECTING, NULL, context);
    if (connection == NULL) return -EMFILE;
    connection->address = *address;
    network_connect(io->network, io, handle_of(io, connection));
    return handle_of(io, connection);
}

static int64_t sim_adopt(struct io *base, int fd, void *context)
{
    struct sim_io *io = of(base);
    struct end *end = end_of_descriptor(io->network, fd);
    ASSERT(end != NULL && end->io == NULL);
    if (world_chance(io->network->world, io->network->faults.busy)) return -EMFILE;
    struct connection *connection = take(io, STATE_UP, end, context);
    if (connection == NULL) return -EMFILE;
    connection->is_first = true;
    return end->conn;
}

static int sim_detach(struct io *base, uint32_t conn)
{
    struct sim_io *io = of(base);
    struct connection *connection = must_find(io, conn);
    struct end *end = connection->end;
    if (connection->state != STATE_UP || !connection->is_paused || end->is_sending ||
        connection->is_sent || connection->held_bytes > 0)
        return -EBUSY;
    if (world_chance(io->network->world, io->network->faults.busy)) return -EBUSY;
    world_note(io->network->world, NOTE_DETACH, end->number, end->side, 0, 0);
    end->io = NULL;
    put(io, connection);
    return end_descriptor(end);
}

static void sim_set_context(struct io *base, uint32_t conn, void *context)
{
    must_find(of(base), conn)->context = context;
}

static void sim_resume(struct io *base, uint32_t conn)
{
    struct connection *connection = must_find(of(base), conn);
    connection->is_paused = false;
    connection->is_first = false;
}

static void sim_pause(struct io *base, uint32_t conn, const void *rest, size_t rest_bytes)
{
    struct connection *connection = must_find(of(base), conn);
    connection->is_paused = true;
    if (rest_bytes == 0) return;
    uint8_t *held = malloc(rest_bytes + connection->held_bytes);
    ASSERT(held != NULL);
    memcpy(held, rest, rest_bytes);
    if (connection->held_bytes > 0)
        memcpy(held + rest_bytes, connection->held, connection->held_bytes);
    free(connection->held);
    connection->held = held;
    connection->held_bytes += rest_bytes;
}

static void sim_send(struct io *base, uint32_t conn, const struct iovec *parts, unsigned count)
{
    struct connection *connection = must_find(of(base), conn);
    ASSERT(count > 0 && count <= IO_SEND_PARTS_MAX);
    if (connection->state != STATE_UP) return;
    ASSERT(!connection->is_sent);
    end_send(connection->end, parts, count);
}

static void sim_finish(struct io *base, uint32_t conn)
{
    struct connection *connection = must_find(of(base), conn);
    if (connection->state == STATE_UP) end_finish(connection->end);
}

static void sim_close(struct io *base, uint32_t conn)
{
    struct sim_io *io = of(base);
    struct connection *connection = must_find(io, conn);
    if (connection->state != STATE_UP && connection->state != STATE_CONNECTING) return;
    connection->state = STATE_ENDING;
    connection->result = connection->told_end ? 0 : -ECANCELED;
    let_go(connection);
}

static void sim_stop_listening(struct io *base)
{
    struct sim_io *io = of(base);
    if (io->is_listening) io->network->listener = NULL;
    io->is_listening = false;
}

static int64_t sim_udp_open(struct io *base, const struct address *address, void *context)
{
    (void)base;
    (void)address;
    (void)context;
    return -ENOSYS;
}

static int sim_udp_address(struct io *base, uint32_t conn, struct address *address)
{
    (void)base;
    (void)conn;
    (void)address;
    return -ENOSYS;
}

static int sim_udp_send(struct io *base, uint32_t conn, const struct io_datagram *datagrams,
                        unsigned count)
{
    (void)base;
    (void)conn;
    (void)datagrams;
    (void)count;
    return 0;
}

/* -------------------------------------------------------------------------------- waiting */

static bool is_broken(const struct connection *connection)
{
    return connection->state == STATE_UP && connection->end->error != 0;
}

/* What waits to be read. */
static size_t waiting_bytes(const struct connection *connection)
{
    return connection->held_bytes + connection->end->inbox_bytes;
}

/* What the next wait would deliver; IO_WOKEN: nothing. */
static enum io_event_type next_event(const struct sim_io *io, const struct connection *connection)
{
    bool was_busy = connection->turn == io->turn;
    if (connection->state == STATE_ENDING && !was_busy) return IO_CLOSED;
    if (connection->state != STATE_UP) return IO_WOKEN;
    if (connection->is_accepted) return IO_ACCEPTED;
    if (connection->is_connected) return IO_CONNECTED;
    if (connection->is_sent) return IO_SENT;
    if (was_busy) return IO_WOKEN;
    bool may_read = !connection->is_paused && waiting_bytes(connection) > 0;
    if (may_read) return IO_RECEIVED;
    if (is_broken(connection)) return IO_CLOSED;
    if (!connection->is_paused && connection->end->has_end && !connection->told_end) return IO_EOF;
    return IO_WOKEN;
}

static void receive(struct sim_io *io, struct connection *connection, struct io_event *event)
{
    struct world *world = io->network->world;
    size_t bytes = 1 + world_below(world, io->network->faults.read_bytes_max);
    size_t waiting =
        connection->held_bytes > 0 ? connection->held_bytes : connection->end->inbox_bytes;
    bytes = min_u64(bytes, waiting);
    uint8_t *memory = malloc(IO_HEADROOM_BYTES + bytes);
    ASSERT(memory != NULL);
    memset(memory, 0xa5, IO_HEADROOM_BYTES);
    event->data = memory + IO_HEADROOM_BYTES;
    event->size = (uint32_t)bytes;
    if (connection->held_bytes > 0) {
        memcpy(event->data, connection->held, bytes);
        connection->held_bytes -= bytes;
        memmove(connection->held, connection->held + bytes, connection->held_bytes);
    } else {
        size_t got = end_read(connection->end, event->data, bytes);
        ASSERT(got == bytes);
    }
    io->delivered[io->delivered_count++] = memory;
    io->io.counters.receives++;
    io->io.counters.received_bytes += bytes;
    connection->turn = io->turn;
    if (!connection->is_first) return;
    connection->is_first = false;
    connection->is_paused = true;
}

static void deliver(struct sim_io *io, struct connection *connection, enum io_event_type type,
                    struct io_event *event)
{
    *event = (struct io_event){
        .type = type, .conn = handle_of(io, connection), .context = connection->context};
    switch (type) {
    case IO_ACCEPTED:
        connection->is_accepted = false;
        connection->turn = io->turn;
        event->context = io->listen_context;
        event->address = &connection->address;
        break;
    case IO_CONNECTED: connection->is_connected = false; break;
    case IO_SENT:
        connection->is_sent = false;
        io->io.counters.sends++;
        break;
    case IO_RECEIVED: receive(io, connection, event); break;
    case IO_EOF: connection->told_end = true; break;
    case IO_CLOSED:
        event->result = is_broken(connection) ? connection->end->error : connection->result;
        let_go(connection);
        connection->state = STATE_GONE;
        break;
    case IO_DATAGRAM:
    case IO_WOKEN: ASSERT(false);
    }
}

static unsigned collect(struct sim_io *io, struct io_event *events, unsigned events_max)
{
    struct world *world = io->network->world;
    const struct faults *faults = &io->network->faults;
    unsigned count = 0;
    events_max = (unsigned)min_u64(events_max, min_u64(faults->events_max, DELIVERED_MAX));
    io->turn++;
    if (io->is_woken) events[count++] = (struct io_event){.type = IO_WOKEN, .conn = IO_NONE};
    io->is_woken = false;
    uint32_t start = (uint32_t)world_below(world, io->used);
    for (uint32_t i = 0; i < io->used; i++) {
        struct connection *connection = &io->connections[(start + i) % io->used];
        while (count < events_max) {
            enum io_event_type type = next_event(io, connection);
            if (type == IO_WOKEN) break;
            if (type == IO_RECEIVED && world_chance(world, faults->no_buffer)) break;
            deliver(io, connection, type, &events[count++]);
        }
    }
    return count;
}

static bool sim_ready(struct io *base)
{
    struct sim_io *io = of(base);
    if (io->is_woken) return true;
    io->turn++; /* what the last wait delivered is in the way of nothing that comes next */
    for (uint32_t i = 0; i < io->used; i++)
        if (next_event(io, &io->connections[i]) != IO_WOKEN) return true;
    return false;
}

static void begin_turn(struct sim_io *io)
{
    while (io->delivered_count > 0) free(io->delivered[--io->delivered_count]);
    for (uint32_t i = 0; i < io->used; i++)
        if (io->connections[i].state == STATE_GONE) put(io, &io->connections[i]);
}

static unsigned sim_wait(struct io *base, struct io_event *events, unsigned events_max,
                         uint64_t wait_ns)
{
    struct sim_io *io = of(base);
    struct world *world = io->network->world;
    ASSERT(world->running == io->actor);
    ASSERT(events_max > 0);
    io->io.counters.enters++;
    begin_turn(io);
    /* A turn takes its time, in which others have theirs. */
    actor_wait(io->actor, 1 + world_below(world, world->jitter_ns_max), false);
    unsigned count = sim_ready(base) ? collect(io, events, events_max) : 0;
    if (count == 0 && wait_ns > 0) {
        if (!sim_ready(base)) actor_wait(io->actor, wait_ns, true);
        count = collect(io, events, events_max);
    }
    world_note(world, NOTE_RUN, count, 0, 0, 0);
    return count;
}

static void on_wake(void *context, uint64_t unused)
{
    struct sim_io *io = context;
    (void)unused;
    io->is_woken = true;
    sim_io_notify(io);
}

static void sim_wake(struct io *base, struct io *from)
{
    struct sim_io *io = of(base);
    struct world *world = io->network->world;
    uint64_t after_ns = from != NULL ? world_below(world, world->jitter_ns_max) : 0;
    world_at(world, world->now_ns + after_ns, on_wake, io, 0);
}

static int sim_fd(struct io *base)
{
    (void)base;
    return -ENOSYS;
}

static void sim_arm(struct io *base, uint64_t due_ns)
{
    (void)base;
    (void)due_ns;
}

/* The memory stays until the world ends: events may still speak of it. */
static void sim_destroy(struct io *base)
{
    struct sim_io *io = of(base);
    sim_stop_listening(base);
    begin_turn(io);
    for (uint32_t i = 0; i < io->used; i++) {
        struct connection *connection = &io->connections[i];
        if (connection->state == STATE_FREE) continue;
        let_go(connection);
        put(io, connection);
    }
}

static const struct io_table table = {.listen = sim_listen,
                                      .listen_address = sim_listen_address,
                                      .connect = sim_connect,
                                      .adopt = sim_adopt,
                                      .detach = sim_detach,
                                      .set_context = sim_set_context,
                                      .resume = sim_resume,
                                      .pause = sim_pause,
                                      .send = sim_send,
                                      .finish = sim_finish,
                                      .close = sim_close,
                                      .stop_listening = sim_stop_listening,
                                      .udp_open = sim_udp_open,
                                      .udp_address = sim_udp_address,
                                      .udp_send = sim_udp_send,
                                      .wait = sim_wait,
                                      .ready = sim_ready,
                                      .wake = sim_wake,
                                      .fd = sim_fd,
                                      .arm = sim_arm,
                                      .destroy = sim_destroy};

struct sim_io *sim_io_make(struct network *network, struct actor *actor)
{
    struct sim_io *io = calloc(1, sizeof *io);
    ASSERT(io != NULL);
    io->io.table = &table;
    io->network = network;
    io->actor = actor;
    return io;
}

struct io *sim_io_base(struct sim_io *io)
{
    return &io->io;
}

void sim_io_free(struct sim_io *io)
{
    free(io);
}

uint32_t sim_io_connections_count(const struct sim_io *io)
{
    return io->count;
}
