#include "tests/sim/buggify.h"

#include <string.h>

/* As the files that are compiled for the simulator see it. */
#define FERO_SIM
#include "base/buggify.h"
#include "base/hash.h"
#include "tests/sim/world.h"

#define ACTIVE_IN 4
#define FIRES_IN 4

static struct {
    struct world *world;
    const char *plant;
    const char *always;
    bool is_on;
} points;

void buggify_begin(struct world *world, const char *plant, bool is_on)
{
    points.world = world;
    points.plant = plant;
    points.always = NULL;
    points.is_on = is_on;
}

void buggify_always(const char *point)
{
    points.always = point;
}

void buggify_end(void)
{
    points.is_on = false;
}

bool buggify_fires(const char *point)
{
    if (!points.is_on) return false;
    uint64_t hash = hash_key(point, strlen(point), points.world->seed);
    bool is_active =
        hash % ACTIVE_IN == 0 || (points.always != NULL && strcmp(point, points.always) == 0);
    if (!is_active || world_below(points.world, FIRES_IN) != 0) return false;
    world_note(points.world, NOTE_BUGGIFY, hash, 0, 0, 0);
    return true;
}

bool buggify_is_planted(const char *bug)
{
    return points.plant != NULL && strcmp(points.plant, bug) == 0;
}
