#include "tests/sim/buggify.h"

#include <string.h>

/* As the files that are compiled for the simulator see it. */
#define FERO_SIM
#include "base/assert.h"
#include "base/buggify.h"
#include "base/hash.h"
#include "tests/sim/world.h"

#define ACTIVE_IN 4
#define FIRES_IN 4
#define ALWAYS_MAX 4

static struct {
    struct world *world;
    const char *plant;
    const char *always[ALWAYS_MAX];
    unsigned always_count;
    bool is_on;
} points;

void buggify_begin(struct world *world, const char *plant, bool is_on)
{
    points.world = world;
    points.plant = plant;
    points.always_count = 0;
    points.is_on = is_on;
}

void buggify_always(const char *point)
{
    ASSERT(points.always_count < ALWAYS_MAX);
    points.always[points.always_count++] = point;
}

void buggify_end(void)
{
    points.is_on = false;
}

bool buggify_fires(const char *point)
{
    if (!points.is_on) return false;
    uint64_t hash = hash_key(point, strlen(point), points.world->seed);
    bool is_always = false;
    for (unsigned i = 0; i < points.always_count; i++)
        is_always |= strcmp(point, points.always[i]) == 0;
    bool is_active = is_always || hash % ACTIVE_IN == 0;
    if (!is_active) return false;
    uint64_t fires = is_always ? FIRES_IN - 1 : 1;
    if (world_below(points.world, FIRES_IN) >= fires) return false;
    world_note(points.world, NOTE_BUGGIFY, hash, 0, 0, 0);
    return true;
}

bool buggify_is_planted(const char *bug)
{
    return points.plant != NULL && strcmp(points.plant, bug) == 0;
}
