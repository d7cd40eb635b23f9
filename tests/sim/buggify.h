/*
 * The simulator's side of base/buggify.h. Of the places in the code that may do something rare, a
 * quarter is active in a world, and each of those does it a quarter of the times; and of the bugs
 * that were planted there, to see whether they are found, one may be switched on.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct world;

/* Of the world that is the current one. `plant` NULL: none; `is_on`: whether points fire. */
void buggify_begin(struct world *world, const char *plant, bool is_on);
/* This point is active in the world, whatever its hash says. `point` is borrowed. */
void buggify_always(const char *point);
/* From now on no point fires. */
void buggify_end(void);
