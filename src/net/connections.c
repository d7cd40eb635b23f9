#include "net/connections.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/memory.h"

int connections_open(struct connections *table, uint32_t tcp_max, struct io_counters *counters)
{
    ASSERT(tcp_max > 0 && tcp_max <= CONNECTIONS_MAX);
    uint32_t count = tcp_max + UDP_SOCKETS_MAX;
    *table = (struct connections){
        .counters = counters,
        .blocks.bytes = &counters->held_bytes,
        .bytes = count * sizeof *table->list,
        .count = count,
        .tcp_max = tcp_max,
        .free = LIST_END,
        .gone = LIST_END,
        .marked = LIST_END,
    };
    table->list = memory_reserve(table->bytes, 0);
    return table->list != NULL ? 0 : -ENOMEM;
}

void connections_close(struct connections *table)
{
    for (uint32_t i = 0; i < table->used; i++) {
        struct connection *connection = &table->list[i];
        if (connection->state == CONNECTION_FREE) continue;
        if (connection->fd >= 0) close(connection->fd);
        held_clear(&connection->held, &table->blocks);
    }
    held_blocks_free(&table->blocks);
    memory_release(table->list, table->bytes);
}

struct connection *connection_of(struct connections *table, uint32_t handle)
{
    uint32_t index = handle & CONNECTION_INDEX_MASK;
    ASSERT(index < table->used);
    struct connection *connection = &table->list[index];
    ASSERT(connection->state != CONNECTION_FREE);
    ASSERT(connection->generation == handle >> CONNECTION_INDEX_BITS);
    return connection;
}

static struct connection *slot_take(struct connections *table)
{
    if (table->free != LIST_END) {
        struct connection *connection = &table->list[table->free];
        table->free = connection->next;
        return connection;
    }
    ASSERT(table->used < table->count);
    struct connection *connection = &table->list[table->used++];
    connection->generation = 1;
    return connection;
}

struct connection *connection_take(struct connections *table, int fd, bool is_udp, void *context)
{
    if (is_udp && table->udp_count == UDP_SOCKETS_MAX) return NULL;
    if (!is_udp && table->tcp_count == table->tcp_max) return NULL;
    struct connection *connection = slot_take(table);
    ASSERT(connection->state == CONNECTION_FREE);
    uint32_t generation = connection->generation;
    *connection = (struct connection){
        .context = context,
        .fd = fd,
        .generation = generation,
        .next = LIST_END,
        .state = CONNECTION_UP,
        .is_udp = is_udp,
        .turn = table->turn - 1,
        .stash_first = NO_BUFFER,
        .stash_last = NO_BUFFER,
    };
    if (is_udp)
        table->udp_count++;
    else
        table->tcp_count++;
    return connection;
}

static void slot_put(struct connections *table, struct connection *connection)
{
    ASSERT(connection->operations == 0);
    ASSERT(!connection->is_marked);
    ASSERT(connection->stash_first == NO_BUFFER);
    if (connection->is_udp)
        table->udp_count--;
    else
        table->tcp_count--;
    connection->state = CONNECTION_FREE;
    connection->fd = -1;
    /* No generation is 0, so that no user_data is. */
    if (++connection->generation > CONNECTION_GENERATION_MAX) connection->generation = 1;
    connection->next = table->free;
    table->free = connection_index(table, connection);
}

void connections_reap(struct connections *table)
{
    table->turn++;
    while (table->gone != LIST_END) {
        struct connection *connection = &table->list[table->gone];
        table->gone = connection->next;
        slot_put(table, connection);
    }
    held_blocks_free(&table->blocks);
}

void connection_mark(struct connections *table, struct connection *connection)
{
    if (connection->is_marked || connection->state == CONNECTION_GONE) return;
    uint32_t index = connection_index(table, connection);
    connection->is_marked = true;
    connection->next = LIST_END;
    if (table->marked == LIST_END)
        table->marked = index;
    else
        table->list[table->marked_last].next = index;
    table->marked_last = index;
}

void connection_gone(struct connections *table, struct connection *connection)
{
    ASSERT(connection->state == CONNECTION_GONE);
    ASSERT(!connection->is_marked);
    connection->next = table->gone;
    table->gone = connection_index(table, connection);
}

void connection_end(struct connections *table, struct connection *connection, int32_t result)
{
    if (connection->state >= CONNECTION_ENDING) return;
    connection->state = CONNECTION_ENDING;
    connection->result = result;
    connection_mark(table, connection);
}

struct io_event *connection_event(struct connections *table, struct connection *connection,
                                  struct events *events, enum io_event_type type)
{
    struct io_event *event = events_add(events, type);
    event->conn = connection_handle(table, connection);
    event->context = connection->context;
    return event;
}

void connection_deliver(struct connections *table, struct connection *connection,
                        struct events *events, uint8_t *data, size_t size)
{
    struct io_event *event = connection_event(table, connection, events, IO_RECEIVED);
    event->data = data;
    event->size = (uint32_t)size;
    connection->turn = table->turn;
    table->counters->receives++;
    table->counters->received_bytes += size;
    if (!connection->is_first) return;
    connection->is_first = false;
    connection->is_paused = true;
}

void connection_deliver_held(struct connections *table, struct connection *connection,
                             struct events *events, size_t bytes_max)
{
    uint8_t *data;
    int64_t size = held_take(&connection->held, bytes_max, &data, &table->blocks);
    if (size < 0)
        connection_end(table, connection, (int32_t)size);
    else
        connection_deliver(table, connection, events, data, (size_t)size);
}

void connection_set_send(struct connections *table, uint32_t conn, const struct iovec *parts,
                         unsigned parts_count)
{
    struct connection *connection = connection_of(table, conn);
    ASSERT(parts_count > 0 && parts_count <= IO_SEND_PARTS_MAX);
    ASSERT(!connection->is_udp);
    /* It ended after the owner last heard of it; IO_CLOSED is on its way. */
    if (connection->state >= CONNECTION_ENDING) return;
    ASSERT(connection->state == CONNECTION_UP);
    ASSERT(!connection->is_sending);
    struct send *send = &connection->send;
    memcpy(send->parts, parts, parts_count * sizeof *parts);
    send->parts_count = parts_count;
    send->part = 0;
    connection->is_sending = true;
    connection_mark(table, connection);
}

void connection_finish(struct connections *table, uint32_t conn)
{
    struct connection *connection = connection_of(table, conn);
    ASSERT(!connection->is_sending);
    if (connection->state == CONNECTION_UP) shutdown(connection->fd, SHUT_WR);
}

void send_advance(struct send *send, size_t taken)
{
    while (send->part < send->parts_count && taken >= send->parts[send->part].iov_len) {
        taken -= send->parts[send->part].iov_len;
        send->part++;
    }
    if (taken == 0) return;
    ASSERT(send->part < send->parts_count);
    struct iovec *part = &send->parts[send->part];
    part->iov_base = (uint8_t *)part->iov_base + taken;
    part->iov_len -= taken;
}

bool send_is_over(const struct send *send)
{
    for (unsigned i = send->part; i < send->parts_count; i++)
        if (send->parts[i].iov_len > 0) return false;
    return true;
}
