#include "tests/support/fake_io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"

#define INDEX_BITS 20
#define INDEX_MASK ((1u << INDEX_BITS) - 1)
#define CONNECTIONS_MAX 4096
#define CONNECTS_MAX 65536
#define DATAGRAMS_MAX 1024
/* Nobody's: it is not to be polled. */
#define FAKE_FD 0x7ffffff0

enum state { STATE_FREE, STATE_CONNECTING, STATE_UP, STATE_UDP, STATE_CLOSING, STATE_DETACHED };

struct connection {
    enum state state;
    uint32_t generation;
    void *context;
    struct address address;
    bool is_paused;
    bool is_fresh;           /* its IO_ACCEPTED was not delivered before this wait */
    bool has_received;       /* in this wait: no more, and no end, before the next */
    bool pauses_after_first; /* accepted or adopted, and nothing was received yet */
    bool is_hung_up;
    bool sends_held;
    bool is_sending;
    struct iovec parts[IO_SEND_PARTS_MAX];
    unsigned parts_count;
    uint8_t *sent;
    size_t sent_bytes;
    size_t sent_capacity;
};

/* Something that the code under test will hear of. */
struct item {
    enum io_event_type type;
    uint32_t conn;
    int32_t result;
    uint8_t *memory; /* IO_HEADROOM_BYTES, then the bytes */
    uint32_t size;
    struct address *address;
};

struct fake_io {
    struct io io;
    uint64_t now_ns;
    uint64_t spin_ns;
    uint64_t due_ns; /* of io_arm */
    int fd_error;
    fake_io_fn on_wait;
    void *on_wait_context;
    bool *destroyed;
    bool is_in_script;
    bool is_listening;
    bool is_woken;
    bool discards_sent;
    int connect_error;
    int handing_error;
    unsigned adopts_count;
    uint32_t adopted; /* last */
    size_t segment_bytes;
    void *listen_context;
    struct address listen_address;
    struct connection connections[CONNECTIONS_MAX];
    uint32_t connections_used; /* those behind were never taken */
    struct item *items;
    size_t items_count;
    size_t items_capacity;
    struct item *delivered; /* of the last wait: freed at the next */
    size_t delivered_count;
    size_t delivered_capacity;
    uint32_t *connects;
    struct address *connect_addresses;
    unsigned connects_count;
    struct io_datagram datagrams[DATAGRAMS_MAX];
    unsigned datagrams_count;
};

/* -------------------------------------------------------------------------------- memory */

static void *grown(void *memory, size_t bytes)
{
    void *larger = realloc(memory, bytes);
    ASSERT(larger != NULL);
    return larger;
}

static void *copied(const void *data, size_t size)
{
    void *copy = grown(NULL, size > 0 ? size : 1);
    if (size > 0) memcpy(copy, data, size);
    return copy;
}

static void item_free(struct item *item)
{
    free(item->memory);
    free(item->address);
}

/* ------------------------------------------------------------------------------- handles */

static uint32_t handle_of(const struct fake_io *fake, const struct connection *connection)
{
    return connection->generation << INDEX_BITS | (uint32_t)(connection - fake->connections);
}

/* The connection that has the handle, or had it last; else NULL. */
static struct connection *find_last(const struct fake_io *fake, uint32_t conn)
{
    uint32_t index = conn & INDEX_MASK;
    if (index >= CONNECTIONS_MAX) return NULL;
    const struct connection *connection = &fake->connections[index];
    if (handle_of(fake, connection) != conn) return NULL;
    return (struct connection *)(uintptr_t)connection;
}

/* The connection, if the handle is valid; else NULL. */
static struct connection *find(const struct fake_io *fake, uint32_t conn)
{
    struct connection *connection = find_last(fake, conn);
    return connection != NULL && connection->state != STATE_FREE ? connection : NULL;
}

static struct connection *must_find(const struct fake_io *fake, uint32_t conn)
{
    struct connection *connection = find(fake, conn);
    ASSERT(connection != NULL); /* the handle is stale, or never was one */
    return connection;
}

static struct connection *take(struct fake_io *fake, enum state state, void *context)
{
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *connection = &fake->connections[i];
        if (connection->state != STATE_FREE) continue;
        uint32_t generation = (connection->generation + 1) & 0xfffu;
        free(connection->sent);
        if (fake->connections_used <= i) fake->connections_used = i + 1;
        *connection =
            (struct connection){.state = state, .generation = generation, .context = context};
        return connection;
    }
    return NULL;
}

/* What was sent stays for the test to read until the place is taken again. */
static void give_back(struct connection *connection)
{
    connection->state = STATE_FREE;
}

/* --------------------------------------------------------------------------------- items */

static struct item *insert(struct fake_io *fake, size_t at, enum io_event_type type, uint32_t conn)
{
    if (fake->items_count == fake->items_capacity) {
        fake->items_capacity = fake->items_capacity * 2 + 16;
        fake->items = grown(fake->items, fake->items_capacity * sizeof *fake->items);
    }
    memmove(&fake->items[at + 1], &fake->items[at], (fake->items_count - at) * sizeof *fake->items);
    fake->items_count++;
    fake->items[at] = (struct item){.type = type, .conn = conn};
    return &fake->items[at];
}

static struct item *append(struct fake_io *fake, enum io_event_type type, uint32_t conn)
{
    return insert(fake, fake->items_count, type, conn);
}

static void fill(struct item *item, const void *data, size_t size)
{
    item->memory = grown(NULL, IO_HEADROOM_BYTES + size);
    memset(item->memory, 0xa5, IO_HEADROOM_BYTES);
    memcpy(item->memory + IO_HEADROOM_BYTES, data, size);
    item->size = (uint32_t)size;
}

/* Adds to what was received last and not delivered yet, as a socket's buffer does. False: nothing. */
static bool try_extend(struct fake_io *fake, uint32_t conn, const void *data, size_t size)
{
    size_t at = fake->items_count;
    while (at > 0 && fake->items[at - 1].conn != conn) at--;
    if (at == 0 || fake->items[at - 1].type != IO_RECEIVED) return false;
    struct item *item = &fake->items[at - 1];
    item->memory = grown(item->memory, IO_HEADROOM_BYTES + item->size + size);
    memcpy(item->memory + IO_HEADROOM_BYTES + item->size, data, size);
    item->size += (uint32_t)size;
    return true;
}

/* Forgets what the owner will not hear of any more. */
static void remove_items(struct fake_io *fake, uint32_t conn)
{
    size_t kept = 0;
    for (size_t i = 0; i < fake->items_count; i++) {
        if (fake->items[i].conn == conn && fake->items[i].type != IO_WOKEN)
            item_free(&fake->items[i]);
        else
            fake->items[kept++] = fake->items[i];
    }
    fake->items_count = kept;
}

/* ------------------------------------------------------------------------------ the table */

static struct fake_io *fake_of(struct io *io)
{
    return (struct fake_io *)io;
}

static int fake_listen(struct io *io, const struct address *address, void *context)
{
    struct fake_io *fake = fake_of(io);
    if (fake->is_listening) return -EALREADY;
    fake->is_listening = true;
    fake->listen_address = *address;
    if (address_port(address) == 0) address_set_port(&fake->listen_address, 7700);
    fake->listen_context = context;
    return 0;
}

static int fake_listen_address(struct io *io, struct address *address)
{
    struct fake_io *fake = fake_of(io);
    if (!fake->is_listening) return -ENOTCONN;
    *address = fake->listen_address;
    return 0;
}

static int64_t fake_connect(struct io *io, const struct address *address, void *context)
{
    struct fake_io *fake = fake_of(io);
    int err = fake->connect_error;
    fake->connect_error = 0;
    if (err < 0) return err;
    struct connection *connection = take(fake, STATE_CONNECTING, context);
    if (connection == NULL) return -EMFILE;
    ASSERT(fake->connects_count < CONNECTS_MAX);
    connection->address = *address;
    fake->connects[fake->connects_count] = handle_of(fake, connection);
    fake->connect_addresses[fake->connects_count++] = *address;
    return handle_of(fake, connection);
}

static int take_handing_error(struct fake_io *fake)
{
    int err = fake->handing_error;
    fake->handing_error = 0;
    return err;
}

/*
 * A detached connection is a file with what was received and not delivered: it goes with the
 * descriptor, as it does in a socket.
 */
static int keep_received(const struct fake_io *fake, uint32_t conn)
{
    int fd = memfd_create("detached", MFD_CLOEXEC);
    ASSERT(fd >= 0);
    for (size_t i = 0; i < fake->items_count; i++) {
        const struct item *item = &fake->items[i];
        if (item->conn != conn || item->type != IO_RECEIVED) continue;
        ssize_t written = write(fd, item->memory + IO_HEADROOM_BYTES, item->size);
        ASSERT(written == (ssize_t)item->size);
    }
    return fd;
}

static void take_received(struct fake_io *fake, int fd)
{
    uint8_t bytes[65536];
    size_t part =
        fake->segment_bytes > 0 ? min_u64(fake->segment_bytes, sizeof bytes) : sizeof bytes;
    ssize_t got;
    for (off_t at = 0; (got = pread(fd, bytes, part, at)) > 0; at += got)
        fill(append(fake, IO_RECEIVED, fake->adopted), bytes, (size_t)got);
}

static int64_t fake_adopt(struct io *io, int fd, void *context)
{
    struct fake_io *fake = fake_of(io);
    if (fd < 0) return -EBADF;
    int err = take_handing_error(fake);
    if (err < 0) return err;
    struct connection *connection = take(fake, STATE_UP, context);
    if (connection == NULL) return -EMFILE;
    connection->pauses_after_first = true;
    fake->adopts_count++;
    fake->adopted = handle_of(fake, connection);
    take_received(fake, fd);
    close(fd);
    return fake->adopted;
}

static int fake_detach(struct io *io, uint32_t conn)
{
    struct fake_io *fake = fake_of(io);
    struct connection *connection = must_find(fake, conn);
    if (connection->state != STATE_UP || !connection->is_paused || connection->is_sending)
        return -EBUSY;
    int err = take_handing_error(fake);
    if (err < 0) return err;
    int fd = keep_received(fake, conn);
    remove_items(fake, conn);
    give_back(connection);
    return fd;
}

static void fake_set_context(struct io *io, uint32_t conn, void *context)
{
    must_find(fake_of(io), conn)->context = context;
}

static void fake_resume(struct io *io, uint32_t conn)
{
    struct connection *connection = must_find(fake_of(io), conn);
    connection->is_paused = false;
    connection->pauses_after_first = false;
}

static void fake_pause(struct io *io, uint32_t conn, const void *rest, size_t rest_bytes)
{
    struct fake_io *fake = fake_of(io);
    struct connection *connection = must_find(fake, conn);
    size_t at = 0;
    connection->is_paused = true;
    if (rest_bytes == 0) return;
    while (at < fake->items_count && fake->items[at].conn != conn) at++;
    fill(insert(fake, at, IO_RECEIVED, conn), rest, rest_bytes);
}

static void fake_send(struct io *io, uint32_t conn, const struct iovec *parts, unsigned count)
{
    struct connection *connection = must_find(fake_of(io), conn);
    ASSERT(connection->state == STATE_UP);
    ASSERT(!connection->is_sending);
    ASSERT(count > 0 && count <= IO_SEND_PARTS_MAX);
    memcpy(connection->parts, parts, count * sizeof *parts);
    connection->parts_count = count;
    connection->is_sending = true;
}

static void fake_finish(struct io *io, uint32_t conn)
{
    struct fake_io *fake = fake_of(io);
    const struct connection *connection = must_find(fake, conn);
    ASSERT(!connection->is_sending);
    /* The peers of tests read what there is, and end as well. */
    if (connection->state == STATE_UP) append(fake, IO_EOF, conn);
}

static void fake_close(struct io *io, uint32_t conn)
{
    struct fake_io *fake = fake_of(io);
    struct connection *connection = must_find(fake, conn);
    if (connection->state == STATE_CLOSING) return;
    remove_items(fake, conn);
    connection->state = STATE_CLOSING;
    append(fake, IO_CLOSED, conn)->result = -ECANCELED;
}

static void fake_stop_listening(struct io *io)
{
    fake_of(io)->is_listening = false;
}

static int64_t fake_udp_open(struct io *io, const struct address *address, void *context)
{
    struct fake_io *fake = fake_of(io);
    struct connection *connection = take(fake, STATE_UDP, context);
    if (connection == NULL) return -EMFILE;
    connection->address = *address;
    return handle_of(fake, connection);
}

static int fake_udp_address(struct io *io, uint32_t conn, struct address *address)
{
    *address = must_find(fake_of(io), conn)->address;
    return 0;
}

static int fake_udp_send(struct io *io, uint32_t conn, const struct io_datagram *datagrams,
                         unsigned count)
{
    struct fake_io *fake = fake_of(io);
    ASSERT(must_find(fake, conn)->state == STATE_UDP);
    for (unsigned i = 0; i < count; i++) {
        if (fake->datagrams_count == DATAGRAMS_MAX) return (int)i;
        struct io_datagram *copy = &fake->datagrams[fake->datagrams_count++];
        *copy = datagrams[i];
        copy->bytes.iov_base = copied(datagrams[i].bytes.iov_base, datagrams[i].bytes.iov_len);
    }
    return (int)count;
}

/* The kernel takes what is in flight, where the test lets it. */
static void take_sends(struct fake_io *fake)
{
    for (uint32_t i = 0; i < fake->connections_used; i++) {
        struct connection *connection = &fake->connections[i];
        if (connection->state != STATE_UP || !connection->is_sending || connection->sends_held)
            continue;
        for (unsigned part = 0; part < connection->parts_count; part++) {
            const struct iovec *bytes = &connection->parts[part];
            fake->io.counters.sent_bytes += bytes->iov_len;
            if (fake->discards_sent) continue;
            if (connection->sent_capacity < connection->sent_bytes + bytes->iov_len) {
                connection->sent_capacity = 2 * (connection->sent_bytes + bytes->iov_len);
                connection->sent = grown(connection->sent, connection->sent_capacity);
            }
            memcpy(connection->sent + connection->sent_bytes, bytes->iov_base, bytes->iov_len);
            connection->sent_bytes += bytes->iov_len;
        }
        fake->io.counters.sends++;
        connection->is_sending = false;
        append(fake, IO_SENT, handle_of(fake, connection));
    }
}

static void run_script(struct fake_io *fake)
{
    if (fake->on_wait == NULL || fake->is_in_script) return;
    fake->is_in_script = true;
    fake->on_wait(fake, fake->on_wait_context);
    fake->is_in_script = false;
}

static bool may_deliver(const struct fake_io *fake, const struct item *item, size_t at)
{
    if (item->type != IO_RECEIVED && item->type != IO_CLOSED) return true;
    const struct connection *connection = find(fake, item->conn);
    if (connection->is_fresh || connection->has_received) return false;
    if (connection->state == STATE_CLOSING) return true;
    if (item->type == IO_RECEIVED) return !connection->is_paused;
    /* The end comes behind what was received. */
    for (size_t i = 0; i < at; i++)
        if (fake->items[i].conn == item->conn && fake->items[i].type == IO_RECEIVED) return false;
    return true;
}

static void deliver(struct fake_io *fake, struct item *item, struct io_event *event)
{
    struct connection *connection = item->type == IO_WOKEN ? NULL : find(fake, item->conn);
    *event = (struct io_event){.type = item->type,
                               .conn = item->conn,
                               .result = item->result,
                               .size = item->size,
                               .address = item->address};
    if (item->memory != NULL) event->data = item->memory + IO_HEADROOM_BYTES;
    if (connection != NULL) event->context = connection->context;
    if (item->type == IO_ACCEPTED) event->context = fake->listen_context;
    if (item->type == IO_RECEIVED) {
        fake->io.counters.receives++;
        fake->io.counters.received_bytes += item->size;
        if (connection->pauses_after_first) connection->is_paused = true;
        connection->pauses_after_first = false;
        connection->has_received = true;
    }
    if (item->type == IO_CLOSED) give_back(connection);
    if (fake->delivered_count == fake->delivered_capacity) {
        fake->delivered_capacity = fake->delivered_capacity * 2 + 16;
        fake->delivered =
            grown(fake->delivered, fake->delivered_capacity * sizeof *fake->delivered);
    }
    fake->delivered[fake->delivered_count++] = *item;
}

/* The next wait may deliver what this one could not. */
static void end_delivery(struct fake_io *fake)
{
    for (size_t i = 0; i < fake->delivered_count; i++) {
        const struct item *item = &fake->delivered[i];
        struct connection *connection = item->type == IO_WOKEN ? NULL : find(fake, item->conn);
        if (connection == NULL) continue;
        connection->is_fresh &= item->type != IO_ACCEPTED;
        connection->has_received &= item->type != IO_RECEIVED;
    }
}

static unsigned deliver_all(struct fake_io *fake, struct io_event *events, unsigned events_max)
{
    unsigned count = 0;
    for (size_t at = 0; at < fake->items_count && count < events_max;) {
        struct item item = fake->items[at];
        if (!may_deliver(fake, &item, at)) {
            at++;
            continue;
        }
        fake->items_count--;
        memmove(&fake->items[at], &fake->items[at + 1],
                (fake->items_count - at) * sizeof *fake->items);
        deliver(fake, &item, &events[count++]);
    }
    end_delivery(fake);
    return count;
}

static void free_delivered(struct fake_io *fake)
{
    for (size_t i = 0; i < fake->delivered_count; i++) item_free(&fake->delivered[i]);
    fake->delivered_count = 0;
}

static void add_woken(struct fake_io *fake)
{
    if (!fake->is_woken) return;
    fake->is_woken = false;
    append(fake, IO_WOKEN, IO_NONE);
}

static unsigned fake_wait(struct io *io, struct io_event *events, unsigned events_max,
                          uint64_t wait_ns)
{
    struct fake_io *fake = fake_of(io);
    ASSERT(events_max > 0);
    fake->io.counters.enters++;
    free_delivered(fake);
    take_sends(fake);
    run_script(fake);
    add_woken(fake);
    unsigned count = deliver_all(fake, events, events_max);
    if (count > 0 || wait_ns == 0) return count;
    /* Nothing will ever come: the code under test hangs. */
    ASSERT(wait_ns != TIME_NEVER);
    fake->now_ns += wait_ns;
    run_script(fake);
    add_woken(fake);
    return deliver_all(fake, events, events_max);
}

static bool fake_ready(struct io *io)
{
    struct fake_io *fake = fake_of(io);
    fake->now_ns += fake->spin_ns;
    run_script(fake);
    if (fake->is_woken) return true;
    for (size_t at = 0; at < fake->items_count; at++)
        if (may_deliver(fake, &fake->items[at], at)) return true;
    return false;
}

static void fake_wake(struct io *io, struct io *from)
{
    (void)from;
    fake_of(io)->is_woken = true;
}

static int fake_fd(struct io *io)
{
    struct fake_io *fake = fake_of(io);
    int err = fake->fd_error;
    fake->fd_error = 0;
    return err < 0 ? err : FAKE_FD;
}

/* Where there is something to do already, it is due now, or the code under test would sleep. */
static void fake_arm(struct io *io, uint64_t due_ns)
{
    struct fake_io *fake = fake_of(io);
    bool is_ready = fake->is_woken || fake->items_count > 0;
    fake->due_ns = is_ready ? 0 : due_ns;
}

static void fake_destroy(struct io *io)
{
    struct fake_io *fake = fake_of(io);
    if (fake->destroyed != NULL) *fake->destroyed = true;
    free_delivered(fake);
    for (size_t i = 0; i < fake->items_count; i++) item_free(&fake->items[i]);
    for (uint32_t i = 0; i < CONNECTIONS_MAX; i++) free(fake->connections[i].sent);
    for (unsigned i = 0; i < fake->datagrams_count; i++) free(fake->datagrams[i].bytes.iov_base);
    free(fake->items);
    free(fake->delivered);
    free(fake->connects);
    free(fake->connect_addresses);
    free(fake);
}

static const struct io_table fake_table = {.listen = fake_listen,
                                           .listen_address = fake_listen_address,
                                           .connect = fake_connect,
                                           .adopt = fake_adopt,
                                           .detach = fake_detach,
                                           .set_context = fake_set_context,
                                           .resume = fake_resume,
                                           .pause = fake_pause,
                                           .send = fake_send,
                                           .finish = fake_finish,
                                           .close = fake_close,
                                           .stop_listening = fake_stop_listening,
                                           .udp_open = fake_udp_open,
                                           .udp_address = fake_udp_address,
                                           .udp_send = fake_udp_send,
                                           .wait = fake_wait,
                                           .ready = fake_ready,
                                           .wake = fake_wake,
                                           .fd = fake_fd,
                                           .arm = fake_arm,
                                           .destroy = fake_destroy};

/* ------------------------------------------------------------------------- the test's side */

struct fake_io *fake_io_make(void)
{
    struct fake_io *fake = grown(NULL, sizeof *fake);
    memset(fake, 0, sizeof *fake);
    fake->io.table = &fake_table;
    fake->now_ns = NS_PER_S;
    fake->spin_ns = 50;
    fake->connects = grown(NULL, CONNECTS_MAX * sizeof *fake->connects);
    fake->connect_addresses = grown(NULL, CONNECTS_MAX * sizeof *fake->connect_addresses);
    return fake;
}

struct io *fake_io_base(struct fake_io *fake)
{
    return &fake->io;
}

struct fake_io *fake_io_of(struct io *io)
{
    ASSERT(io->table == &fake_table);
    return fake_of(io);
}

void fake_io_on_wait(struct fake_io *fake, fake_io_fn function, void *context)
{
    fake->on_wait = function;
    fake->on_wait_context = context;
}

void fake_io_on_destroy(struct fake_io *fake, bool *destroyed)
{
    fake->destroyed = destroyed;
}

uint64_t fake_io_now_ns(void *fake)
{
    return ((const struct fake_io *)fake)->now_ns;
}

void fake_io_advance_ns(struct fake_io *fake, uint64_t by_ns)
{
    fake->now_ns += by_ns;
}

uint64_t fake_io_due_ns(const struct fake_io *fake)
{
    return fake->due_ns;
}

void fake_io_fail_fd(struct fake_io *fake, int err)
{
    ASSERT(err < 0);
    fake->fd_error = err;
}

void fake_io_set_spin_ns(struct fake_io *fake, uint64_t spin_ns)
{
    fake->spin_ns = spin_ns;
}

unsigned fake_io_connects_count(const struct fake_io *fake)
{
    return fake->connects_count;
}

uint32_t fake_io_connect_conn(const struct fake_io *fake, unsigned n)
{
    ASSERT(n < fake->connects_count);
    return fake->connects[n];
}

struct address fake_io_connect_address(const struct fake_io *fake, unsigned n)
{
    ASSERT(n < fake->connects_count);
    return fake->connect_addresses[n];
}

bool fake_io_connect_waits(const struct fake_io *fake, unsigned n)
{
    const struct connection *connection = find(fake, fake_io_connect_conn(fake, n));
    return connection != NULL && connection->state == STATE_CONNECTING && !connection->is_hung_up;
}

void fake_io_connected(struct fake_io *fake, uint32_t conn)
{
    struct connection *connection = must_find(fake, conn);
    ASSERT(connection->state == STATE_CONNECTING);
    connection->state = STATE_UP;
    append(fake, IO_CONNECTED, conn);
}

void fake_io_refused(struct fake_io *fake, uint32_t conn, int err)
{
    struct connection *connection = must_find(fake, conn);
    ASSERT(connection->state == STATE_CONNECTING && !connection->is_hung_up);
    connection->is_hung_up = true;
    append(fake, IO_CLOSED, conn)->result = err;
}

void fake_io_fail_connect(struct fake_io *fake, int err)
{
    ASSERT(err < 0);
    fake->connect_error = err;
}

uint32_t fake_io_dial(struct fake_io *fake, const struct address *peer)
{
    ASSERT(fake->is_listening);
    struct connection *connection = take(fake, STATE_UP, NULL);
    ASSERT(connection != NULL);
    connection->is_fresh = true;
    connection->pauses_after_first = true;
    struct item *item = append(fake, IO_ACCEPTED, handle_of(fake, connection));
    item->address = copied(peer, sizeof *peer);
    return item->conn;
}

bool fake_io_is_listening(const struct fake_io *fake)
{
    return fake->is_listening;
}

unsigned fake_io_adopts_count(const struct fake_io *fake, uint32_t *conn)
{
    *conn = fake->adopted;
    return fake->adopts_count;
}

void fake_io_fail_handing(struct fake_io *fake, int err)
{
    ASSERT(err < 0);
    fake->handing_error = err;
}

bool fake_io_is_up(const struct fake_io *fake, uint32_t conn)
{
    const struct connection *connection = find(fake, conn);
    return connection != NULL && connection->state == STATE_UP && !connection->is_hung_up;
}

bool fake_io_is_paused(const struct fake_io *fake, uint32_t conn)
{
    return must_find(fake, conn)->is_paused;
}

bool fake_io_is_closing(const struct fake_io *fake, uint32_t conn)
{
    const struct connection *connection = find(fake, conn);
    return connection != NULL && connection->state == STATE_CLOSING;
}

void fake_io_receive(struct fake_io *fake, uint32_t conn, const void *data, size_t size)
{
    const struct connection *connection = find(fake, conn);
    const uint8_t *bytes = data;
    if (connection == NULL || connection->state == STATE_CLOSING) return; /* into the void */
    ASSERT(connection->state == STATE_UP && !connection->is_hung_up);
    if (fake->segment_bytes == 0 && try_extend(fake, conn, data, size)) return;
    while (size > 0) {
        size_t part = fake->segment_bytes > 0 ? min_u64(size, fake->segment_bytes) : size;
        fill(append(fake, IO_RECEIVED, conn), bytes, part);
        bytes += part;
        size -= part;
    }
}

void fake_io_segment(struct fake_io *fake, size_t bytes)
{
    fake->segment_bytes = bytes;
}

void fake_io_end(struct fake_io *fake, uint32_t conn)
{
    ASSERT(must_find(fake, conn)->state == STATE_UP);
    append(fake, IO_EOF, conn);
}

void fake_io_hang_up(struct fake_io *fake, uint32_t conn, int result)
{
    struct connection *connection = find(fake, conn);
    if (connection == NULL || connection->state == STATE_CLOSING || connection->is_hung_up) return;
    connection->is_hung_up = true;
    connection->sends_held = true;
    append(fake, IO_CLOSED, conn)->result = result;
}

const uint8_t *fake_io_sent(const struct fake_io *fake, uint32_t conn, size_t *size)
{
    const struct connection *connection = find_last(fake, conn);
    *size = connection != NULL ? connection->sent_bytes : 0;
    return connection != NULL ? connection->sent : NULL;
}

void fake_io_consume(struct fake_io *fake, uint32_t conn, size_t bytes)
{
    struct connection *connection = find_last(fake, conn);
    ASSERT(connection != NULL);
    ASSERT(bytes <= connection->sent_bytes);
    connection->sent_bytes -= bytes;
    if (connection->sent_bytes > 0)
        memmove(connection->sent, connection->sent + bytes, connection->sent_bytes);
}

void fake_io_hold_sends(struct fake_io *fake, uint32_t conn, bool hold)
{
    must_find(fake, conn)->sends_held = hold;
}

void fake_io_discard_sent(struct fake_io *fake, bool discard)
{
    fake->discards_sent = discard;
}

void fake_io_datagram(struct fake_io *fake, uint32_t conn, const struct address *from,
                      const void *data, size_t size)
{
    ASSERT(must_find(fake, conn)->state == STATE_UDP);
    struct item *item = append(fake, IO_DATAGRAM, conn);
    fill(item, data, size);
    item->address = copied(from, sizeof *from);
}

unsigned fake_io_datagrams_count(const struct fake_io *fake)
{
    return fake->datagrams_count;
}

struct io_datagram fake_io_datagram_sent(const struct fake_io *fake, unsigned n)
{
    ASSERT(n < fake->datagrams_count);
    return fake->datagrams[n];
}
