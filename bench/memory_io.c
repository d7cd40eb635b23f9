#include "bench/memory_io.h"

#include "base/assert.h"

#define CONN 1

static struct memory_io *own(struct io *io)
{
    return (struct memory_io *)io;
}

static int listen_nowhere(struct io *io, const struct address *address, void *context)
{
    (void)io;
    (void)address;
    (void)context;
    return 0;
}

static int no_address(struct io *io, struct address *address)
{
    (void)io;
    *address = address_loopback(0);
    return 0;
}

static void set_context(struct io *io, uint32_t conn, void *context)
{
    ASSERT(conn == CONN);
    own(io)->context = context;
}

static void resume(struct io *io, uint32_t conn)
{
    (void)conn;
    own(io)->receiving = true;
}

static void pause_receiving(struct io *io, uint32_t conn, const void *rest, size_t rest_bytes)
{
    (void)conn;
    (void)rest;
    ASSERT(rest_bytes == 0);
    own(io)->receiving = false;
}

static void send_nowhere(struct io *io, uint32_t conn, const struct iovec *parts, unsigned count)
{
    struct memory_io *memory = own(io);
    (void)conn;
    ASSERT(!memory->sent && count == 1);
    memory->output = parts[0].iov_base;
    memory->output_last = parts[0].iov_len;
    memory->output_bytes += parts[0].iov_len;
    memory->sent = true;
    io->counters.sends++;
}

static void close_conn(struct io *io, uint32_t conn)
{
    (void)conn;
    own(io)->closed = true;
}

static void finish_conn(struct io *io, uint32_t conn)
{
    (void)io;
    (void)conn;
}

static void stop_listening(struct io *io)
{
    (void)io;
}

static unsigned wait_events(struct io *io, struct io_event *events, unsigned events_max,
                            uint64_t wait_ns)
{
    struct memory_io *memory = own(io);
    unsigned count = 0;
    (void)wait_ns;
    ASSERT(events_max >= 4);
    io->counters.enters++;
    if (!memory->accepted) {
        memory->accepted = true;
        memory->receiving = true;
        events[count++] = (struct io_event){.type = IO_ACCEPTED, .conn = CONN};
        return count;
    }
    if (memory->sent) {
        memory->sent = false;
        events[count++] =
            (struct io_event){.type = IO_SENT, .conn = CONN, .context = memory->context};
    }
    if (memory->receiving && memory->input_bytes > 0) {
        events[count++] = (struct io_event){.type = IO_RECEIVED,
                                            .conn = CONN,
                                            .data = memory->input,
                                            .size = (uint32_t)memory->input_bytes,
                                            .context = memory->context};
        memory->input_bytes = 0;
        io->counters.receives++;
    }
    return count;
}

static bool is_ready(struct io *io)
{
    return own(io)->sent || own(io)->input_bytes > 0;
}

static void wake(struct io *io, struct io *from)
{
    (void)io;
    (void)from;
}

static void destroy(struct io *io)
{
    (void)io;
}

static const struct io_table memory_table = {.listen = listen_nowhere,
                                             .listen_address = no_address,
                                             .set_context = set_context,
                                             .resume = resume,
                                             .pause = pause_receiving,
                                             .send = send_nowhere,
                                             .finish = finish_conn,
                                             .close = close_conn,
                                             .stop_listening = stop_listening,
                                             .wait = wait_events,
                                             .ready = is_ready,
                                             .wake = wake,
                                             .destroy = destroy};

void memory_io_init(struct memory_io *memory, bool has_caller)
{
    *memory = (struct memory_io){.io = {.table = &memory_table}, .accepted = !has_caller};
}

void memory_io_feed(struct memory_io *memory, uint8_t *input, size_t bytes)
{
    memory->input = input;
    memory->input_bytes = bytes;
}
