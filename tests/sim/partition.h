/*
 * Requests that go inside of a partition, as the history sees them: what they ask for, whether a state
 * allows that, and what becomes of it. States are jansson's values (tests/support/json_tree.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "tests/sim/history.h"

/* How deep a request may go, and what there is to be chosen from on the way. */
#define PARTITION_PARTS_MAX 3
#define PARTITION_NAMES 6
/* Kinds of values that a request for a tree may have; those from PARTITION_OBJECTS on are objects. */
#define PARTITION_SHAPES 7
#define PARTITION_OBJECTS 4

/* Draws what is asked for: path and value. Its type and key are known. */
void partition_draw(struct history *history, struct asked *asked);
/* The key that is asked for; of HISTORY_KEY_BYTES at most. */
size_t partition_key(const struct history *history, const struct asked *asked, char *to);
/* Its value's bytes, at most PARTITION_VALUE_BYTES; what history_value is for others. */
#define PARTITION_VALUE_BYTES 128
size_t partition_value(const struct history *history, const struct asked *asked, uint8_t *to);
/* How many changes it makes, all of them or none. */
unsigned partition_changes(const struct asked *asked);
/* Whether it could be done where the partition is so; NULL: where there is none. */
bool partition_may(const struct asked *asked, json_t *state);
/*
 * The state behind one of its changes, number `index` of them; NULL: the partition is gone. The world
 * fails if this is not the change that was asked for.
 */
json_t *partition_apply(struct history *history, struct asked *asked, unsigned index, json_t *state,
                        const struct change *change);
/* Whether `found` is what a get of this key gives where the partition is so. */
bool partition_gives(const struct asked *asked, json_t *state, const json_t *found);
/* A value that the library gave, as jansson has it. */
json_t *partition_json(const fero_val *value);
