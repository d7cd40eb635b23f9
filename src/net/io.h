/*
 * The seam between fero and the kernel: connections, datagrams, wake-ups and waiting as one table
 * of functions. There are to be three implementations: io_uring (net/uring.c), epoll, and the
 * simulator's. A shard owns one `struct io` and calls it from its own thread only, except io_wake.
 *
 * Calls through the table move batches, never single messages, so the indirection costs nothing.
 *
 * The life of a connection
 *   - It is named by a handle (index and generation), never by its descriptor.
 *   - An accepted or adopted connection delivers one IO_RECEIVED and then pauses by itself, with no
 *     operation of the kernel's in flight: the owner either calls io_resume, or io_detach to give
 *     the descriptor to another shard. A connected one receives at once.
 *   - IO_EOF says that the peer has sent its last byte. It may still read: the owner says what it
 *     has to say and calls io_close. Where the peer broke off instead, IO_CLOSED comes at once.
 *   - IO_CLOSED is the last event of a connection, and comes exactly once, whoever closed it. Until
 *     IO_SENT or IO_CLOSED the bytes given to io_send belong to the kernel.
 *   - The bytes of IO_RECEIVED and IO_DATAGRAM are the owner's until the next io_wait; it may write
 *     to them, and to IO_HEADROOM_BYTES before those of IO_RECEIVED (where a partial frame is put
 *     back in front). Datagrams of one sender may lie side by side, so they have no headroom.
 *   - A connection has one IO_RECEIVED an io_wait at most, so io_pause is followed by silence, and
 *     neither IO_EOF nor IO_CLOSED comes in the same io_wait as the last bytes.
 *   - A handle is good until the io_wait after the one that delivered its IO_CLOSED begins. What is
 *     asked of it after it ended, which the owner need not know yet, is ignored.
 *
 * Errors are negative errno values.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/attr.h"
#include "net/address.h"

/* Writable bytes in front of the data of every IO_RECEIVED. */
#define IO_HEADROOM_BYTES 4096

/* No connection. */
#define IO_NONE UINT32_MAX

enum io_event_type {
    IO_ACCEPTED,  /* conn: the new connection; context: the listener's; address: the peer's */
    IO_CONNECTED, /* conn is up */
    IO_RECEIVED,  /* data, size (> 0) */
    IO_SENT,      /* all bytes of the last io_send were taken by the kernel: a tack */
    IO_EOF,       /* behind the last IO_RECEIVED: the peer sends no more */
    IO_CLOSED,    /* result: 0 after IO_EOF, -ECANCELED the owner closed before, else -errno */
    IO_DATAGRAM,  /* conn: the UDP socket; data, size; address: the sender's */
    IO_WOKEN      /* somebody called io_wake */
};

struct io_event {
    uint32_t type; /* enum io_event_type */
    uint32_t conn;
    int32_t result;
    uint32_t size;
    uint8_t *data;
    void *context;           /* what the owner gave for this connection, listener or socket */
    struct address *address; /* borrowed like data; NULL where the type has none */
};

struct io_datagram {
    struct address to;
    struct iovec bytes;
};

/* What an implementation counts; its shard is the only writer. */
struct io_counters {
    uint64_t enters;         /* system calls made to submit or wait */
    uint64_t direct_sends;   /* and those made to send instead, see net/send.c */
    uint64_t receives;       /* IO_RECEIVED delivered */
    uint64_t received_bytes; /* over all of them */
    uint64_t sends;
    uint64_t sent_bytes;
    uint64_t held_bytes;    /* a level: memory of what waits for paused connections to go on */
    uint64_t buffers_out;   /* a receive found no buffer and was armed again */
    uint64_t overflows;     /* completion queue overflows; must stay 0 */
    uint64_t accept_pauses; /* out of descriptors: accepting paused */
};

struct io;

struct io_table {
    int (*listen)(struct io *io, const struct address *address, void *context);
    int (*listen_address)(struct io *io, struct address *address);
    int64_t (*connect)(struct io *io, const struct address *address, void *context);
    int64_t (*adopt)(struct io *io, int fd, void *context);
    int (*detach)(struct io *io, uint32_t conn);
    void (*set_context)(struct io *io, uint32_t conn, void *context);
    void (*resume)(struct io *io, uint32_t conn);
    void (*pause)(struct io *io, uint32_t conn, const void *rest, size_t rest_bytes);
    void (*send)(struct io *io, uint32_t conn, const struct iovec *parts, unsigned parts_count);
    void (*finish)(struct io *io, uint32_t conn);
    void (*close)(struct io *io, uint32_t conn);
    void (*stop_listening)(struct io *io);
    int64_t (*udp_open)(struct io *io, const struct address *address, void *context);
    int (*udp_address)(struct io *io, uint32_t conn, struct address *address);
    int (*udp_send)(struct io *io, uint32_t conn, const struct io_datagram *datagrams,
                    unsigned count);
    unsigned (*wait)(struct io *io, struct io_event *events, unsigned events_max, uint64_t wait_ns);
    bool (*ready)(struct io *io);
    void (*wake)(struct io *io, struct io *from);
    int (*fd)(struct io *io);
    void (*arm)(struct io *io, uint64_t due_ns);
    void (*destroy)(struct io *io);
};

/* The first member of every implementation. */
struct io {
    const struct io_table *table;
    struct io_counters counters;
};

/* Accepts connections on `address` (port 0: any free one). One listener an io. -EADDRINUSE ... */
MUST_CHECK static inline int io_listen(struct io *io, const struct address *address, void *context)
{
    return io->table->listen(io, address, context);
}

/* The address that the listener really has. */
MUST_CHECK static inline int io_listen_address(struct io *io, struct address *address)
{
    return io->table->listen_address(io, address);
}

/* Stops accepting and closes the listening socket; accepted connections live on. */
static inline void io_stop_listening(struct io *io)
{
    io->table->stop_listening(io);
}

/* Starts connecting and returns the handle; IO_CONNECTED or IO_CLOSED follows. -ENOSPC: table full. */
MUST_CHECK static inline int64_t io_connect(struct io *io, const struct address *address,
                                            void *context)
{
    return io->table->connect(io, address, context);
}

/* Takes over a connected socket and returns its handle. On an error the caller keeps `fd`. */
MUST_CHECK static inline int64_t io_adopt(struct io *io, int fd, void *context)
{
    return io->table->adopt(io, fd, context);
}

/*
 * Gives the descriptor of a paused connection with nothing in flight, and nothing held by io_pause,
 * to the caller and frees the handle; no further event comes. Returns the descriptor, or -EBUSY.
 */
MUST_CHECK static inline int io_detach(struct io *io, uint32_t conn)
{
    return io->table->detach(io, conn);
}

static inline void io_set_context(struct io *io, uint32_t conn, void *context)
{
    io->table->set_context(io, conn, context);
}

/* Receives (again), delivering first what io_pause put back. */
static inline void io_resume(struct io *io, uint32_t conn)
{
    io->table->resume(io, conn);
}

/*
 * Stops receiving, so that TCP pushes back: no IO_RECEIVED of this connection comes before
 * io_resume. `rest` is the tail of the current IO_RECEIVED that the owner could not use yet; it is
 * copied, and delivered again first. What the kernel had received already is kept behind it.
 */
static inline void io_pause(struct io *io, uint32_t conn, const void *rest, size_t rest_bytes)
{
    io->table->pause(io, conn, rest, rest_bytes);
}

/*
 * Sends the parts in order. One send at a time a connection: the next only after IO_SENT. The
 * array is copied, the bytes are not. `parts_count` is 1 .. IO_SEND_PARTS_MAX.
 */
#define IO_SEND_PARTS_MAX 8
static inline void io_send(struct io *io, uint32_t conn, const struct iovec *parts,
                           unsigned parts_count)
{
    io->table->send(io, conn, parts, parts_count);
}

/*
 * Ends our side, when nothing is being sent: the peer hears of it behind the last byte. What it still
 * sends should be read, up to its IO_EOF: io_close with bytes unread is a reset, which may take from
 * the peer what it has not read yet.
 */
static inline void io_finish(struct io *io, uint32_t conn)
{
    io->table->finish(io, conn);
}

/* Closes; IO_CLOSED follows once the kernel has let go of everything. */
static inline void io_close(struct io *io, uint32_t conn)
{
    io->table->close(io, conn);
}

/* Opens a UDP socket bound to `address`; returns its handle. Close it with io_close. */
MUST_CHECK static inline int64_t io_udp_open(struct io *io, const struct address *address,
                                             void *context)
{
    return io->table->udp_open(io, address, context);
}

MUST_CHECK static inline int io_udp_address(struct io *io, uint32_t conn, struct address *address)
{
    return io->table->udp_address(io, conn, address);
}

/* Copies and sends up to `count` datagrams; returns how many were accepted, the rest found no room. */
MUST_CHECK static inline int io_udp_send(struct io *io, uint32_t conn,
                                         const struct io_datagram *datagrams, unsigned count)
{
    return io->table->udp_send(io, conn, datagrams, count);
}

/*
 * Submits what was asked for since the last call and collects events, at most `events_max`. Waits
 * up to `wait_ns` for the first one (0: not at all, TIME_NEVER: for ever). Gives the buffers of
 * the previous events back. This is the one system call of a turn; with nothing to submit and
 * nothing to wait for there is none. It may return 0 before the time is over.
 */
static inline unsigned io_wait(struct io *io, struct io_event *events, unsigned events_max,
                               uint64_t wait_ns)
{
    return io->table->wait(io, events, events_max, wait_ns);
}

/*
 * Whether io_wait has something to do at once: an event to return, or something to submit. Makes no
 * system call: made for spinning.
 */
static inline bool io_ready(struct io *io)
{
    return io->table->ready(io);
}

/*
 * Makes a blocked io_wait of `io` return, with IO_WOKEN. From any thread: `from` is the calling
 * shard's own io, whose next io_wait carries the wake-up (`io` must live until then), or NULL to do
 * it at once.
 */
static inline void io_wake(struct io *io, struct io *from)
{
    io->table->wake(io, from);
}

/*
 * A descriptor for an owner who has a loop of its own, and polls instead of blocking in io_wait. It
 * is made by the first call, and borrowed. Returns it, or a negative errno.
 */
MUST_CHECK static inline int io_fd(struct io *io)
{
    return io->table->fd(io);
}

/*
 * Before the owner polls: the descriptor is silent from now on until io_wait has something to do or
 * it is `due_ns` of CLOCK_MONOTONIC (0: at once, TIME_NEVER: never). It may be readable for nothing
 * now and then. Only after io_fd.
 */
static inline void io_arm(struct io *io, uint64_t due_ns)
{
    io->table->arm(io, due_ns);
}

/* Closes everything without further events and frees the io. */
static inline void io_destroy(struct io *io)
{
    if (io != NULL) io->table->destroy(io);
}
