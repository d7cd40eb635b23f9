#include "tests/sim/clock.h"

#include "base/assert.h"
#include "tests/sim/world.h"

/* Some day of 2026. */
#define WALL_FIRST_MS ((uint64_t)1780000000000)

uint64_t __wrap_clock_now_ns(void)
{
    struct world *world = world_current();
    struct actor *actor = world->running;
    if (actor == NULL) return world->now_ns;
    actor->spent_ns += world->look_ns;
    return world->now_ns + actor->spent_ns;
}

uint64_t __wrap_clock_wall_ms(void)
{
    const struct world *world = world_current();
    const struct actor *actor = world->running;
    uint64_t wall_ms = WALL_FIRST_MS + world->now_ns / NS_PER_MS;
    return actor != NULL ? wall_ms + (uint64_t)actor->wall_offset_ms : wall_ms;
}

uint64_t clock_read(void *context)
{
    (void)context;
    return __wrap_clock_now_ns();
}
