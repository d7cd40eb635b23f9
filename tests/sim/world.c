#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"

/* What a failure shows without being asked. */
#define NOTES_SHOWN 40
#define NOT_FOUND 1

static struct world *current;

static const char *const note_words[NOTES_COUNT] = {
    [NOTE_RUN] = "runs",
    [NOTE_CONNECT] = "connects %" PRIu64,
    [NOTE_ACCEPT] = "connection %" PRIu64 " is accepted",
    [NOTE_TAKE] = "connection %" PRIu64 "/%" PRIu64 " takes %" PRIu64 " bytes",
    [NOTE_ARRIVE] = "connection %" PRIu64 "/%" PRIu64 " gets %" PRIu64 " bytes",
    [NOTE_END] = "connection %" PRIu64 "/%" PRIu64 " gets the end",
    [NOTE_RESET] = "connection %" PRIu64 "/%" PRIu64 " is reset",
    [NOTE_CLOSE] = "connection %" PRIu64 "/%" PRIu64 " is closed, %" PRIu64 " bytes unread",
    [NOTE_DETACH] = "connection %" PRIu64 "/%" PRIu64 " changes hands",
    [NOTE_CLOG] = "connection %" PRIu64 " is clogged for %" PRIu64 " us",
    [NOTE_HALF] = "connection %" PRIu64 "/%" PRIu64 " vanishes",
    [NOTE_ASK] = "client %" PRIu64 " asks %" PRIu64 " of type %" PRIu64 " for key %" PRIu64,
    [NOTE_ANSWER] = "client %" PRIu64 " hears of %" PRIu64 ": outcome %" PRIu64 ", error -%" PRIu64,
    [NOTE_APPLY] =
        "client %" PRIu64 "'s %" PRIu64 " is applied to key %" PRIu64 " at offset %" PRIu64,
    [NOTE_CHANGE] =
        "client %" PRIu64 " is shown key %" PRIu64 ", its version %" PRIu64 " at offset %" PRIu64,
    [NOTE_EVENT] =
        "client %" PRIu64 "'s stream of shard %" PRIu64 ": event %" PRIu64 ", error -%" PRIu64,
    [NOTE_PAUSE] = "actor %" PRIu64 " is stopped for %" PRIu64 " us",
    [NOTE_STEP] = "the wall clock of actor %" PRIu64 " is wrong by %" PRId64 " ms",
    [NOTE_KILL] = "client %" PRIu64 " is killed",
    [NOTE_PHASE] = "phase %" PRIu64 " begins",
    [NOTE_BUGGIFY] = "point %" PRIx64 " fires",
};

struct world *world_current(void)
{
    return current;
}

void world_open(struct world *world, uint64_t seed)
{
    *world = (struct world){.seed = seed, .now_ns = NS_PER_S, .hash = seed};
    rng_init(&world->rng, seed);
    world->notes = calloc(WORLD_NOTES_MAX, sizeof *world->notes);
    ASSERT(world->notes != NULL);
    current = world;
}

void world_close(struct world *world)
{
    free(world->events);
    free(world->notes);
    current = NULL;
}

uint64_t world_below(struct world *world, uint64_t bound)
{
    return bound == 0 ? 0 : rng_below(&world->rng, bound);
}

bool world_chance(struct world *world, uint32_t in_million)
{
    return in_million > 0 && rng_below(&world->rng, 1000000) < in_million;
}

/* ----------------------------------------------------------------------------------- notes */

static void print_note(const struct world *world, const struct noted *noted)
{
    bool has_actor = noted->actor != UINT32_MAX;
    const uint64_t *arguments = noted->arguments;
    fprintf(stderr, "%12.6f  %-10s ", (double)noted->at_ns / 1e9,
            has_actor ? world->actors[noted->actor]->name : "");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
    fprintf(stderr, note_words[noted->note], arguments[0], arguments[1], arguments[2],
            arguments[3]);
#pragma GCC diagnostic pop
    fputc('\n', stderr);
}

static void mix(struct world *world, uint64_t number)
{
    world->hash = (world->hash ^ number) * 0x9e3779b97f4a7c15u;
    world->hash ^= world->hash >> 29;
}

void world_note(struct world *world, enum note note, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    struct noted *noted = &world->notes[world->notes_count++ % WORLD_NOTES_MAX];
    uint32_t actor = world->running != NULL ? world->running->number : UINT32_MAX;
    *noted = (struct noted){
        .at_ns = world->now_ns, .actor = actor, .note = note, .arguments = {a, b, c, d}};
    mix(world, world->now_ns);
    mix(world, (uint64_t)actor << 32 | note);
    for (size_t i = 0; i < ARRAY_COUNT(noted->arguments); i++) mix(world, noted->arguments[i]);
    if (world->is_traced) print_note(world, noted);
}

void world_fail(struct world *world, const char *format, ...)
{
    uint64_t shown = min_u64(world->notes_count, NOTES_SHOWN);
    va_list arguments;
    if (!world->is_traced)
        for (uint64_t i = world->notes_count - shown; i < world->notes_count; i++)
            print_note(world, &world->notes[i % WORLD_NOTES_MAX]);
    fprintf(stderr, "seed %" PRIu64 ", second %.6f: ", world->seed, (double)world->now_ns / 1e9);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    fflush(stderr);
    _exit(NOT_FOUND);
}

/* ---------------------------------------------------------------------------------- events */

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void swap(struct event *a, struct event *b)
{
    struct event kept = *a;
    *a = *b;
    *b = kept;
}

void world_at(struct world *world, uint64_t at_ns, event_fn function, void *context,
              uint64_t argument)
{
    if (world->events_count == world->events_capacity) {
        world->events_capacity = world->events_capacity * 2 + 256;
        world->events = realloc(world->events, world->events_capacity * sizeof *world->events);
        ASSERT(world->events != NULL);
    }
    size_t at = world->events_count++;
    struct event *events = world->events;
    events[at] = (struct event){.at_ns = max_u64(at_ns, world->now_ns),
                                .order = world->order++,
                                .function = function,
                                .context = context,
                                .argument = argument};
    for (; at > 0 && is_before(&events[at], &events[(at - 1) / 2]); at = (at - 1) / 2)
        swap(&events[at], &events[(at - 1) / 2]);
}

static struct event take_first(struct world *world)
{
    struct event *events = world->events;
    struct event first = events[0];
    size_t count = --world->events_count;
    size_t at = 0;
    events[0] = events[count];
    for (;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++)
            if (is_before(&events[child], &events[least])) least = child;
        if (least == at) return first;
        swap(&events[at], &events[least]);
        at = least;
    }
}

bool world_run(struct world *world, bool (*is_over)(void *context), void *context)
{
    while (!is_over(context)) {
        if (world->events_count == 0) return false;
        struct event event = take_first(world);
        world->now_ns = event.at_ns;
        if (++world->events_done > world->events_max)
            world_fail(world, "over %" PRIu64 " events: something goes round in a circle",
                       world->events_max);
        event.function(event.context, event.argument);
    }
    return true;
}

/* ---------------------------------------------------------------------------------- actors */

static void resume(void *context, uint64_t generation)
{
    struct actor *actor = context;
    struct world *world = actor->world;
    if (!actor->is_waiting || actor->generation != generation) return;
    if (actor->paused_ns > world->now_ns) {
        world_at(world, actor->paused_ns, resume, actor, generation);
        return;
    }
    actor->is_waiting = false;
    actor->is_notified = false;
    actor->generation++;
    actor->spent_ns = 0;
    world->running = actor;
    fiber_resume(&actor->fiber);
    world->running = NULL;
}

void actor_open(struct actor *actor, struct world *world, const char *name, fiber_fn function,
                void *context)
{
    ASSERT(world->actors_count < WORLD_ACTORS_MAX);
    *actor = (struct actor){
        .world = world, .number = world->actors_count, .name = name, .is_waiting = true};
    world->actors[world->actors_count++] = actor;
    fiber_open(&actor->fiber, function, context);
    world_at(world, world->now_ns, resume, actor, 0);
}

void actor_close(struct actor *actor)
{
    ASSERT(actor->fiber.is_over);
    fiber_close(&actor->fiber);
}

void actor_wait(struct actor *actor, uint64_t wait_ns, bool may_be_notified)
{
    struct world *world = actor->world;
    ASSERT(world->running == actor);
    actor->is_waiting = true;
    actor->is_notified = !may_be_notified;
    if (wait_ns != TIME_NEVER)
        world_at(world, world->now_ns + actor->spent_ns + wait_ns, resume, actor,
                 actor->generation);
    fiber_pause(&actor->fiber);
}

void actor_notify(struct actor *actor)
{
    struct world *world = actor->world;
    if (!actor->is_waiting || actor->is_notified) return;
    actor->is_notified = true;
    world_at(world, world->now_ns + world_below(world, world->jitter_ns_max), resume, actor,
             actor->generation);
}

void actor_pause(struct actor *actor, uint64_t pause_ns)
{
    world_note(actor->world, NOTE_PAUSE, actor->number, pause_ns / NS_PER_US, 0, 0);
    actor->paused_ns = max_u64(actor->paused_ns, actor->world->now_ns + pause_ns);
}
