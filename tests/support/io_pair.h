/*
 * Two ios in one thread, a server and a client, talk over loopback. `turn` calls io_wait of both
 * once; a test turns until what it waits for has happened, or fails after TEST_NS.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/rng.h"
#include "tests/support/io_kind.h"

#define TEST_NS (20 * NS_PER_S)
#define TEST_MS 20000
#define EVENTS_MAX 64
#define TALKS_MAX 256

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
    struct talk talks[TALKS_MAX];
    unsigned accepted;
    unsigned connected;
    unsigned closed;
    unsigned woken;
    unsigned events;
    bool seen_in_turn[TALKS_MAX];
    struct rng rng;
    const uint8_t *greeting; /* sent when connected; NULL: nothing */
    size_t greeting_bytes;
};

struct pair {
    struct end server;
    struct end client;
    struct address address;
};

/* Both ends are of the kind under test; the server listens at `address`. */
struct pair *pair_open_with(const struct io_shape *shape);
struct pair *pair_open(void);
void pair_close(struct pair *pair);

/* The open connection that a handle names, and a new one. */
struct talk *talk_of(struct end *end, uint32_t conn);
struct talk *talk_add(struct end *end, uint32_t conn);
void talk_resume(struct end *end, struct talk *talk);
void talk_send(struct end *end, const struct talk *talk, const uint8_t *bytes, size_t size);

/* What an end does with an event, and with those of one io_wait. */
void end_take(struct end *end, const struct io_event *event);
unsigned end_wait(struct end *end, uint64_t wait_ns);
/* Both ends once; the client rests for a moment if there is nothing to do. */
void pair_turn(struct pair *pair);
/* Turns in which nothing of what is forbidden may happen. */
void pair_turn_some(struct pair *pair);

#define PAIR_UNTIL(pair, condition)                                                                \
    do {                                                                                           \
        uint64_t deadline_ns = clock_now_ns() + TEST_NS;                                           \
        while (!(condition)) {                                                                     \
            if (clock_now_ns() > deadline_ns) fail_msg("waited in vain for " #condition);          \
            pair_turn(pair);                                                                       \
        }                                                                                          \
    } while (0)

struct talk *pair_connect_begin(struct pair *pair);
/* Until both ends know of it. */
struct talk *pair_connect(struct pair *pair);
/* To be freed; one seed gives the same bytes always. */
uint8_t *random_bytes(size_t size, uint64_t seed);
/* Against a server of MANNER_ECHO: sends so many bytes, and has them come back. */
void pair_echoes(struct pair *pair, struct talk *talk, size_t size);
/* Connects and has all sizes come back. */
void pair_echoes_all(struct pair *pair);
