/*
 * The world of one seed: virtual time, what will happen when, and who takes part.
 *
 * Everything that happens is an event, done in the order of time and then of being planned. An actor
 * (a shard, a client) is a fiber that runs between two of its waits; while it runs, time stands still
 * but for what its own looks at the clock cost it. All chance comes from one generator, so a seed is
 * one history, and the hash over everything that was noted is the same each time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/rng.h"
#include "tests/sim/fiber.h"

#define WORLD_ACTORS_MAX 24
/* Lines of a trace that are kept for the report of a failure. */
#define WORLD_NOTES_MAX 4096

struct world;

struct actor {
    struct world *world;
    uint32_t number;
    const char *name;
    struct fiber fiber;
    bool is_waiting;
    bool is_notified;
    uint64_t generation;    /* of its wait: what would end an earlier one is void */
    uint64_t spent_ns;      /* since it was resumed, by looking at the clock */
    uint64_t paused_ns;     /* it does not run before: stopped by a signal, or no cpu */
    int64_t wall_offset_ms; /* its wall clock is wrong by so much */
    bool is_short;          /* of memory, now and then: see ledger.h */
};

/* What a line of the trace is about; the words for it are in world.c. */
enum note {
    NOTE_RUN,     /* an actor goes on */
    NOTE_CONNECT, /* connection */
    NOTE_ACCEPT,  /* connection */
    NOTE_TAKE,    /* connection, bytes: the sender's kernel took them */
    NOTE_ARRIVE,  /* connection, bytes */
    NOTE_END,     /* connection: its last byte arrived */
    NOTE_RESET,   /* connection */
    NOTE_CLOSE,   /* connection */
    NOTE_DETACH,  /* connection */
    NOTE_CLOG,    /* connection, microseconds */
    NOTE_HALF,    /* connection: the peer has vanished */
    NOTE_ASK,     /* client, number, key */
    NOTE_ANSWER,  /* client, number, outcome, error */
    NOTE_APPLY,   /* shard, number, key, offset */
    NOTE_CHANGE,  /* client, key, version, offset: a subscriber gets it */
    NOTE_EVENT,   /* client, shard, event, error: of its subscription */
    NOTE_PAUSE,   /* actor, microseconds */
    NOTE_STEP,    /* actor, milliseconds: of the wall clock */
    NOTE_KILL,    /* client */
    NOTE_PHASE,   /* phase */
    NOTE_BUGGIFY, /* hash of the site's name */
    NOTES_COUNT
};

struct noted {
    uint64_t at_ns;
    uint64_t arguments[4];
    uint32_t actor; /* UINT32_MAX: none */
    uint32_t note;  /* enum note */
};

typedef void (*event_fn)(void *context, uint64_t argument);

struct event {
    uint64_t at_ns;
    uint64_t order;
    event_fn function;
    void *context;
    uint64_t argument;
};

struct world {
    uint64_t seed;
    struct rng rng;
    uint64_t now_ns;
    uint64_t look_ns;       /* what a look at the clock costs */
    uint64_t jitter_ns_max; /* between something being ready and its actor running */
    uint64_t events_done;
    uint64_t events_max;  /* above it the world is stuck in a circle */
    struct event *events; /* a heap */
    size_t events_count;
    size_t events_capacity;
    uint64_t order;
    struct actor *actors[WORLD_ACTORS_MAX];
    uint32_t actors_count;
    struct actor *running;
    uint64_t hash;
    struct noted *notes; /* the newest ones, a ring */
    uint64_t notes_count;
    bool is_traced; /* every note is printed when it is made */
};

/* The one that runs now: for what has no argument to find it by, such as a clock. */
struct world *world_current(void);

void world_open(struct world *world, uint64_t seed);
void world_close(struct world *world);
/* Does what is due, in order, until `is_over` or nothing is left; false: nothing is left. */
bool world_run(struct world *world, bool (*is_over)(void *context), void *context);

/* At `at_ns`, or now if that is past. */
void world_at(struct world *world, uint64_t at_ns, event_fn function, void *context,
              uint64_t argument);
void world_note(struct world *world, enum note note, uint64_t a, uint64_t b, uint64_t c,
                uint64_t d);
/* The seed has found something: prints what, and the newest notes, and ends the process. */
_Noreturn PRINTF_LIKE(2, 3) void world_fail(struct world *world, const char *format, ...);

/* From 0 to `bound` - 1; 0 where `bound` is 0. */
uint64_t world_below(struct world *world, uint64_t bound);
/* With a probability of `in_million` in a million. */
bool world_chance(struct world *world, uint32_t in_million);

/* `name` is borrowed. It begins at once. */
void actor_open(struct actor *actor, struct world *world, const char *name, fiber_fn function,
                void *context);
void actor_close(struct actor *actor);
/* The running actor waits: for so long, or until it is notified where `may_be_notified`. */
void actor_wait(struct actor *actor, uint64_t wait_ns, bool may_be_notified);
/* Something is ready for it. */
void actor_notify(struct actor *actor);
/* It does not run for so long, whatever comes. */
void actor_pause(struct actor *actor, uint64_t pause_ns);
