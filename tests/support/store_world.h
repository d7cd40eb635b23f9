/*
 * A store beside a model of it that is slow and obvious: for each of a few slots the list of all its
 * changes, from which everything else follows. Every operation is made on both, and what the store
 * answers is compared at once; world_check compares all that can be seen from outside.
 *
 * All choices come from the seed, so that a world that failed can be made to fail again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"
#include "log/segments.h"
#include "shard/session.h"
#include "shard/store.h"

#define WORLD_SLOTS 5
#define WORLD_KEYS_MAX 400
#define WORLD_RUN_MAX 16
/* More than a session remembers. */
#define WORLD_APPLIED (2 * SESSION_WINDOW)
#define WORLD_KEY_BYTES_MAX 64
#define WORLD_SESSION 5

struct world_options {
    uint64_t seed;
    size_t memory_bytes;
    size_t history_bytes;
    uint64_t history_records;
    size_t garbage_bytes;
    size_t lent_bytes;
    /* Numbers of segments below it count as used and gone: their marks in the index wrap. */
    uint32_t segment_seq_first;
    uint64_t request_seq_first;
    uint32_t keys_per_slot;
    uint32_t value_bytes_max;
    /* Values of the first key of each slot may be as large; 0: none are. */
    uint32_t large_bytes_max;
};

struct model_change {
    uint32_t key;
    uint32_t value_bytes;
    uint64_t value_seed;
    uint64_t offset;
    uint64_t chain; /* after it */
    uint64_t seq;
    uint64_t hlc;
    uint64_t before; /* place of the key's change before it; 0: none */
    uint8_t type;
    uint8_t value_type;
};

struct model_slot {
    struct model_change *changes; /* by place - 1 */
    uint64_t count;
    uint64_t capacity;
    uint64_t newest[WORLD_KEYS_MAX]; /* place of each key's newest change; 0: none */
    uint16_t slot;
    char tag[8];
};

/* A request that was applied, as a session remembers it. */
struct applied {
    struct model_slot *slot;
    uint64_t seq;
    uint64_t place;
    uint32_t address_low;
};

struct world {
    struct world_options options;
    struct segments segments;
    struct store store;
    struct sessions sessions;
    struct session *session;
    struct model_slot slots[WORLD_SLOTS];
    struct rng rng;
    uint64_t hlc;
    uint64_t seq;
    uint64_t keys_count;                   /* live */
    uint64_t refused;                      /* updates, for want of memory */
    struct applied applied[WORLD_APPLIED]; /* by seq */
    uint8_t *bodies[WORLD_RUN_MAX];
    size_t body_bytes_max;
    uint8_t *scratch; /* an expected value */
};

void world_open(struct world *world, const struct world_options *options);
void world_close(struct world *world);

/* 1 to `requests_max` requests as one run: all are probed, then applied in their order. */
void world_run(struct world *world, unsigned requests_max, unsigned removals_in_1000,
               unsigned gets_in_1000);
/* One request. The results are those of the store, checked against the model. */
enum store_result world_update(struct world *world, unsigned slot, uint32_t key,
                               uint32_t value_bytes);
enum store_result world_remove(struct world *world, unsigned slot, uint32_t key);
enum store_result world_get(struct world *world, unsigned slot, uint32_t key);

void world_seal(struct world *world);
/* As store_compact; checks that it keeps to its step. */
size_t world_compact(struct world *world, size_t bytes_max);
/* Until there is nothing to be done; fails if that never comes. */
void world_compact_all(struct world *world);
/* Takes a slot back by a few changes, and sometimes by all that can be. */
void world_truncate(struct world *world, unsigned slot);
void world_truncate_to(struct world *world, unsigned slot, uint64_t place);
/* Sends one of the last requests again: the session says what became of it. */
void world_probe_session(struct world *world);
/* After a refusal: where what must be kept is little, compaction makes room for an update. */
void world_relieve(struct world *world);

/* Compares a change of a slot with what the model has at `place`; returns the number of its key. */
uint32_t world_check_change(const struct world *world, unsigned slot, const struct change *change);
/* Place of the newest change of a key that is there; 0: it is not. */
uint64_t world_place_of(const struct world *world, unsigned slot, uint32_t key);
/* Which of the world's slots this is. */
unsigned world_slot_index(const struct world *world, uint16_t slot);

/* Compares everything. O(log). */
void world_check(struct world *world);
