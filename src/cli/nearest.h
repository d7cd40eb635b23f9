/*
 * Which name did the user mean?
 */
#pragma once

#include <stddef.h>

/*
 * How many letters must be changed, added, removed, or swapped with their neighbour to make one
 * name of the other, capitals counting half. Names longer than NEAREST_BYTES_MAX are cut.
 */
#define NEAREST_BYTES_MAX 63
unsigned nearest_distance(const char *a, const char *b);

/* Keeps the best of the names offered one by one. Zero it, set `wanted`. */
struct nearest {
    const char *wanted;
    const char *best; /* NULL: nothing was offered */
    unsigned distance;
};
void nearest_offer(struct nearest *nearest, const char *name);
