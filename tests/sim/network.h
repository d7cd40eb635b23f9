/*
 * TCP as its users see it. A connection has two ends; what one sends arrives at the other in order,
 * later, cut anywhere. The kernel of the sender takes bytes from the sender's memory bit by bit, as
 * far as its buffer and the receiver's have room, so who writes to them too early is found out.
 *
 * A connection may be reset behind any byte, may stand still for a while, or an end may vanish: then
 * the other one hears nothing, and what it sends is taken and goes nowhere, until a reset tells it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "net/address.h"
#include "net/io.h"
#include "tests/sim/world.h"

struct sim_io;

/* What the world does to connections, and to whoever reads them. Drawn for each seed. */
struct faults {
    uint64_t delay_ns_max;    /* of a piece */
    uint32_t piece_bytes_max; /* that a kernel takes at once */
    uint32_t buffer_bytes;    /* in flight and unread, in one direction */
    uint32_t read_bytes_max;  /* of one IO_RECEIVED */
    uint32_t events_max;      /* of one io_wait */
    /* In a million: of pieces, */
    uint32_t reset;
    uint32_t half; /* one end vanishes */
    uint32_t clog;
    /* of attempts to connect, */
    uint32_t refuse;
    uint32_t deaf; /* never answered */
    /* of looks at a connection. */
    uint32_t no_buffer; /* nothing is received although there is something */
    uint32_t busy;      /* it cannot be handed over, or taken over */
    uint64_t clog_ns_max;
    uint64_t half_ns_max; /* until the other end hears of it */
};

/* Bytes on their way. */
struct piece {
    struct piece *next;
    size_t bytes; /* 0: the end */
    uint8_t data[];
};

struct end {
    struct network *network;
    struct end *peer;
    uint32_t number;        /* of the connection */
    uint32_t side;          /* 0: who connected */
    struct sim_io *io;      /* NULL: nobody's now */
    uint32_t conn;          /* there */
    struct address address; /* the peer's */
    /* What comes. */
    uint8_t *inbox;
    size_t inbox_bytes;
    size_t inbox_capacity;
    bool has_end;
    int error;      /* 0, or a negative errno: it is broken */
    bool is_closed; /* by its owner */
    bool is_void;   /* the connection is broken, and it does not know: what it sends goes nowhere */
    /* What goes. */
    struct iovec parts[IO_SEND_PARTS_MAX];
    unsigned parts_count;
    bool is_sending;
    bool is_planned; /* its kernel will look at it */
    bool has_finished;
    struct piece *first; /* on the way to the peer */
    struct piece *last;
    size_t flight_bytes;
    uint64_t arrives_ns; /* the last piece */
    uint64_t clogged_ns; /* until then nothing is taken */
    struct end *older;   /* all ends there ever were */
};

struct network {
    struct world *world;
    struct faults faults;
    struct sim_io *listener; /* the node's; NULL: nobody listens */
    struct end *newest;
    uint32_t connections_count;
    uint64_t resets; /* of all kinds, ever */
    uint64_t delays; /* things that may take a request longer than it waits, ever */
};

void network_open(struct network *network, struct world *world, const struct faults *faults);
void network_close(struct network *network);
/* From now on nothing more breaks, and nothing stands still. */
void network_heal(struct network *network);

/* Breaks one of the newest connections, where there is one that is whole. */
void network_break_one(struct network *network);
/* sim_io_connected or sim_io_refused follows. */
void network_connect(struct network *network, struct sim_io *io, uint32_t conn);
void end_send(struct end *end, const struct iovec *parts, unsigned count);
/* No more is sent behind what was. */
void end_finish(struct end *end);
/* The owner lets go of it. */
void end_close(struct end *end);
/* Takes up to `bytes_max` of what came. */
size_t end_read(struct end *end, uint8_t *to, size_t bytes_max);
/* An end that no io has: a descriptor that is handed from one shard to another. */
int end_descriptor(const struct end *end);
struct end *end_of_descriptor(struct network *network, int fd);

/* What close() does in a program that is linked with --wrap=close. */
int __wrap_close(int fd);
