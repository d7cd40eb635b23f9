/*
 * The bugs that are planted in the code (PLANTED of base/buggify.h), and in how many seeds the simulator
 * is known to find each of them.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct plant {
    const char *name;
    const char *what;
    uint64_t seeds; /* the first ones, in which it is found for sure */
};

extern const struct plant plants[];
extern const size_t plants_count;

/* NULL: there is none of that name. */
const struct plant *plant_find(const char *name);
void plants_print(void);
