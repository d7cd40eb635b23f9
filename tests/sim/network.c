#include "tests/sim/network.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "tests/sim/sim_io.h"

/* Above all real ones. */
#define DESCRIPTOR_FIRST 0x40000000
#define PORT_FIRST 20000
/* How long somebody tries to connect where nobody answers. */
#define CONNECT_NS (20 * NS_PER_S)
#define IO_EVENTS_MAX 256

int __real_close(int fd);

/* For __wrap_close. */
static struct network *current;

static uint64_t now_ns(const struct network *network)
{
    return network->world->now_ns;
}

static uint64_t delay_ns(struct network *network)
{
    return 1 + world_below(network->world, network->faults.delay_ns_max);
}

static void note(const struct end *end, enum note what, uint64_t argument)
{
    world_note(end->network->world, what, end->number, end->side, argument, 0);
}

void network_open(struct network *network, struct world *world, const struct faults *faults)
{
    *network = (struct network){.world = world, .faults = *faults};
    current = network;
}

static void drop_pieces(struct end *end)
{
    while (end->first != NULL) {
        struct piece *piece = end->first;
        end->first = piece->next;
        free(piece);
    }
    end->last = NULL;
    end->flight_bytes = 0;
}

void network_close(struct network *network)
{
    while (network->newest != NULL) {
        struct end *end = network->newest;
        network->newest = end->older;
        drop_pieces(end);
        free(end->inbox);
        free(end);
    }
    current = NULL;
}

static void tell(const struct end *end)
{
    if (end->io != NULL) sim_io_notify(end->io);
}

/* ---------------------------------------------------------------------------------- breaking */

/* This end hears that the connection is broken. */
static void break_end(struct end *end, int error)
{
    if (end->is_closed || end->error != 0) return;
    note(end, NOTE_RESET, 0);
    end->error = error;
    end->is_sending = false;
    end->parts_count = 0;
    drop_pieces(end->peer);
    /* What was received and not read may be lost with it. */
    if (world_below(end->network->world, 2) == 0) end->inbox_bytes = 0;
    tell(end);
}

static void on_break(void *context, uint64_t error)
{
    break_end(context, -(int)error);
}

static void plan_break(struct end *end, uint64_t after_ns)
{
    struct network *network = end->network;
    network->resets++;
    world_at(network->world, now_ns(network) + after_ns, on_break, end, ECONNRESET);
}

static void reset(struct end *end)
{
    drop_pieces(end);
    end->is_void = true;
    end->peer->is_void = true;
    plan_break(end, delay_ns(end->network));
    plan_break(end->peer, delay_ns(end->network));
}

/* The end's machine is gone, for its peer; it hears of that now, the peer much later. */
static void vanish(struct end *end)
{
    struct network *network = end->network;
    note(end, NOTE_HALF, 0);
    network->delays++;
    drop_pieces(end);
    drop_pieces(end->peer);
    end->is_void = true;
    end->peer->is_void = true;
    plan_break(end, 0);
    plan_break(end->peer, 1 + world_below(network->world, network->faults.half_ns_max));
}

static void stall(struct end *end)
{
    struct network *network = end->network;
    uint64_t for_ns = 1 + world_below(network->world, network->faults.clog_ns_max);
    world_note(network->world, NOTE_CLOG, end->number, for_ns / NS_PER_US, 0, 0);
    network->delays++;
    end->clogged_ns = now_ns(network) + for_ns;
    if (world_below(network->world, 2) == 0) end->peer->clogged_ns = end->clogged_ns;
}

/* ----------------------------------------------------------------------------------- sending */

static void take(void *context, uint64_t unused);

static void plan_take(struct end *end, uint64_t at_ns)
{
    if (end->is_planned) return;
    end->is_planned = true;
    world_at(end->network->world, at_ns, take, end, 0);
}

static void arrive(void *context, uint64_t unused)
{
    struct end *sender = context;
    struct end *end = sender->peer;
    struct piece *piece = sender->first;
    (void)unused;
    if (piece == NULL) return; /* dropped meanwhile */
    sender->first = piece->next;
    if (sender->first == NULL) sender->last = NULL;
    sender->flight_bytes -= piece->bytes;
    if (end->is_closed && piece->bytes > 0) {
        /* Nobody reads it any more: the sender is told so. */
        plan_break(sender, delay_ns(end->network));
    } else if (piece->bytes == 0) {
        note(end, NOTE_END, 0);
        end->has_end = true;
        tell(end);
    } else if (end->error == 0) {
        note(end, NOTE_ARRIVE, piece->bytes);
        if (end->inbox_bytes + piece->bytes > end->inbox_capacity) {
            end->inbox_capacity = 2 * (end->inbox_bytes + piece->bytes);
            end->inbox = realloc(end->inbox, end->inbox_capacity);
            ASSERT(end->inbox != NULL);
        }
        memcpy(end->inbox + end->inbox_bytes, piece->data, piece->bytes);
        end->inbox_bytes += piece->bytes;
        tell(end);
    }
    free(piece);
}

static struct piece *push_piece(struct end *end, size_t bytes)
{
    struct network *network = end->network;
    struct piece *piece = malloc(sizeof *piece + bytes);
    ASSERT(piece != NULL);
    piece->next = NULL;
    piece->bytes = bytes;
    if (end->last != NULL)
        end->last->next = piece;
    else
        end->first = piece;
    end->last = piece;
    end->flight_bytes += bytes;
    end->arrives_ns = max_u64(end->arrives_ns, now_ns(network) + delay_ns(network));
    world_at(network->world, end->arrives_ns, arrive, end, 0);
    return piece;
}

static size_t left_bytes(const struct end *end)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < end->parts_count; i++) bytes += end->parts[i].iov_len;
    return bytes;
}

/* Copies from the sender's memory, at this moment. */
static void copy_parts(struct end *end, uint8_t *to, size_t bytes)
{
    for (unsigned i = 0; bytes > 0; i++) {
        struct iovec *part = &end->parts[i];
        size_t some = min_u64(part->iov_len, bytes);
        memcpy(to, part->iov_base, some);
        to += some;
        bytes -= some;
        part->iov_base = (uint8_t *)part->iov_base + some;
        part->iov_len -= some;
    }
}

static void push_end(struct end *end)
{
    if (end->has_finished || end->is_void) return;
    end->has_finished = true;
    push_piece(end, 0);
}

static void take(void *context, uint64_t unused)
{
    struct end *end = context;
    struct network *network = end->network;
    struct world *world = network->world;
    const struct faults *faults = &network->faults;
    (void)unused;
    end->is_planned = false;
    if (!end->is_sending || end->error != 0) return;
    if (end->clogged_ns > now_ns(network)) {
        plan_take(end, end->clogged_ns);
        return;
    }
    size_t left = left_bytes(end);
    size_t used = end->flight_bytes + end->peer->inbox_bytes;
    size_t room = faults->buffer_bytes - min_u64(faults->buffer_bytes, used);
    size_t bytes = min_u64(left, end->is_void ? left : room);
    if (bytes == 0) return; /* until the peer reads */
    bytes = min_u64(bytes, 1 + world_below(world, faults->piece_bytes_max));
    bool is_reset = world_chance(world, faults->reset);
    if (is_reset) bytes = 1 + world_below(world, bytes);
    note(end, NOTE_TAKE, bytes);
    if (end->is_void) {
        uint8_t nowhere[4096];
        bytes = min_u64(bytes, sizeof nowhere);
        copy_parts(end, nowhere, bytes);
    } else {
        copy_parts(end, push_piece(end, bytes)->data, bytes);
    }
    if (bytes == left) {
        end->is_sending = false;
        end->parts_count = 0;
        sim_io_sent(end->io, end->conn);
    } else {
        plan_take(end, now_ns(network) + world_below(world, faults->delay_ns_max / 8));
    }
    if (end->is_void) return;
    if (is_reset)
        reset(end);
    else if (world_chance(world, faults->half))
        vanish(world_below(world, 2) == 0 ? end : end->peer);
    else if (world_chance(world, faults->clog))
        stall(end);
}

void end_send(struct end *end, const struct iovec *parts, unsigned count)
{
    ASSERT(!end->is_sending && !end->is_closed && !end->has_finished);
    if (end->error != 0) return; /* it will hear of that */
    memcpy(end->parts, parts, count * sizeof *parts);
    end->parts_count = count;
    end->is_sending = true;
    plan_take(end, now_ns(end->network));
}

void end_finish(struct end *end)
{
    ASSERT(!end->is_sending);
    if (end->error == 0 && !end->is_closed) push_end(end);
}

void end_close(struct end *end)
{
    ASSERT(!end->is_closed);
    note(end, NOTE_CLOSE, end->inbox_bytes);
    end->is_closed = true;
    end->is_sending = false;
    end->parts_count = 0;
    end->io = NULL;
    if (end->error != 0 || end->is_void) return;
    if (end->inbox_bytes > 0)
        plan_break(end->peer, delay_ns(end->network));
    else
        push_end(end);
}

size_t end_read(struct end *end, uint8_t *to, size_t bytes_max)
{
    size_t bytes = min_u64(end->inbox_bytes, bytes_max);
    memcpy(to, end->inbox, bytes);
    end->inbox_bytes -= bytes;
    memmove(end->inbox, end->inbox + bytes, end->inbox_bytes);
    if (end->peer->is_sending) plan_take(end->peer, now_ns(end->network));
    return bytes;
}

/* -------------------------------------------------------------------------------- connecting */

struct attempt {
    struct network *network;
    struct sim_io *io;
    uint32_t conn;
};

static struct end *make_end(struct network *network, uint32_t side)
{
    struct end *end = calloc(1, sizeof *end);
    ASSERT(end != NULL);
    end->network = network;
    end->number = network->connections_count;
    end->side = side;
    end->address = address_loopback((uint16_t)(PORT_FIRST + network->connections_count % 40000));
    end->older = network->newest;
    network->newest = end;
    return end;
}

static void on_answer(void *context, uint64_t side)
{
    struct end *end = context;
    (void)side;
    if (end->is_closed) return; /* given up meanwhile: see sim_io_connected */
    sim_io_connected(end->io, end->conn);
}

static void on_refusal(void *context, uint64_t error)
{
    struct attempt *attempt = context;
    sim_io_refused(attempt->io, attempt->conn, -(int)error);
    free(attempt);
}

/* The attempt has come to where somebody may listen. */
static void on_attempt(void *context, uint64_t unused)
{
    struct attempt *attempt = context;
    struct network *network = attempt->network;
    struct world *world = network->world;
    uint64_t back_ns = now_ns(network) + delay_ns(network);
    (void)unused;
    if (!sim_io_wants(attempt->io, attempt->conn)) {
        free(attempt);
        return;
    }
    if (network->listener == NULL || world_chance(world, network->faults.refuse)) {
        world_at(world, back_ns, on_refusal, attempt, ECONNREFUSED);
        return;
    }
    if (world_chance(world, network->faults.deaf)) {
        network->delays++;
        world_at(world, now_ns(network) + CONNECT_NS, on_refusal, attempt, ETIMEDOUT);
        return;
    }
    struct end *near = make_end(network, 0);
    struct end *far = make_end(network, 1);
    network->connections_count++;
    near->peer = far;
    far->peer = near;
    near->io = attempt->io;
    near->conn = attempt->conn;
    sim_io_dialled(attempt->io, attempt->conn, near);
    sim_io_accept(network->listener, far);
    world_at(world, back_ns, on_answer, near, 0);
    free(attempt);
}

void network_connect(struct network *network, struct sim_io *io, uint32_t conn)
{
    struct attempt *attempt = malloc(sizeof *attempt);
    ASSERT(attempt != NULL);
    *attempt = (struct attempt){network, io, conn};
    world_note(network->world, NOTE_CONNECT, network->connections_count, 0, 0, 0);
    world_at(network->world, now_ns(network) + delay_ns(network), on_attempt, attempt, 0);
}

void network_break_one(struct network *network)
{
    uint64_t skip = world_below(network->world, 6);
    for (struct end *end = network->newest; end != NULL; end = end->older) {
        bool is_whole = !end->is_void && !end->is_closed && end->error == 0 && end->peer != NULL &&
                        !end->peer->is_closed;
        if (!is_whole || skip-- > 0) continue;
        reset(end);
        return;
    }
}

void network_heal(struct network *network)
{
    struct faults *faults = &network->faults;
    faults->reset = faults->half = faults->clog = faults->refuse = faults->deaf = 0;
    faults->no_buffer = faults->busy = 0;
    faults->delay_ns_max = min_u64(faults->delay_ns_max, NS_PER_MS);
    /* Nor is anything slow, beyond what a small buffer costs. */
    faults->piece_bytes_max = (uint32_t)max_u64(faults->piece_bytes_max, 10000);
    faults->read_bytes_max = (uint32_t)max_u64(faults->read_bytes_max, 65536);
    faults->events_max = IO_EVENTS_MAX;
    for (struct end *end = network->newest; end != NULL; end = end->older) {
        end->clogged_ns = 0;
        if (end->is_void) plan_break(end, 0);
        if (end->is_sending) {
            end->is_planned = false;
            plan_take(end, now_ns(network));
        }
    }
}

/* ------------------------------------------------------------------------------- descriptors */

int end_descriptor(const struct end *end)
{
    return DESCRIPTOR_FIRST + (int)(end->number * 2 + end->side);
}

struct end *end_of_descriptor(struct network *network, int fd)
{
    struct end *end = network->newest;
    while (end != NULL && end_descriptor(end) != fd) end = end->older;
    return end;
}

int __wrap_close(int fd)
{
    struct end *end = current != NULL ? end_of_descriptor(current, fd) : NULL;
    if (end == NULL) return __real_close(fd);
    end_close(end);
    return 0;
}
