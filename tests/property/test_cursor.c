/*
 * Cursors in worlds where slots are truncated, segments rewritten and memory is short at random
 * moments (tests/support/store_world.h). Each cursor has a subscriber, who knows nothing but what the
 * cursor tells him. Wherever it says that he has caught up, he must know exactly the state; between
 * two such moments no change may be missing or come twice.
 *
 *   FERO_SEEDS=500            more seeds than by default
 *   FERO_SEED=17              only this one
 */
#include "shard/cursor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "tests/support/store_world.h"

#define SEEDS_COUNT 60
#define STEPS 3000
#define SUBSCRIBERS 6

/* What a subscriber knows of one slot. */
struct known {
    uint64_t place;                  /* of the last change that he was given */
    uint64_t newest[WORLD_KEYS_MAX]; /* of each key that is there, by what he was told */
};

struct subscriber {
    struct cursor cursor;
    struct known known[WORLD_SLOTS];
    uint32_t slot;     /* that he asked for, or CURSOR_ALL_SLOTS */
    bool has_state;    /* he follows from a state that was complete */
    bool in_snapshot;  /* what he was given since is the state when it catches up */
    unsigned laziness; /* he looks once in so many steps */
    size_t bytes_max;
    uint64_t snapshots;
    uint64_t caught_up;
    char prefix[8];
};

static struct world world;
static struct subscriber subscribers[SUBSCRIBERS];
/* Over all worlds: what was seen at all. */
static uint64_t trimmed_count;
static uint64_t truncated_count;
static uint64_t given_count;

static uint64_t environment_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static bool concerns(const struct subscriber *subscriber, unsigned slot)
{
    return subscriber->slot == CURSOR_ALL_SLOTS || world.slots[slot].slot == subscriber->slot;
}

/* ------------------------------------------------------------------------------ one subscriber */

static void forget(struct subscriber *subscriber)
{
    memset(subscriber->known, 0, sizeof subscriber->known);
}

static void take_snapshot(struct subscriber *subscriber)
{
    cursor_snapshot(&subscriber->cursor);
    forget(subscriber);
    subscriber->in_snapshot = true;
    subscriber->has_state = true;
    subscriber->snapshots++;
}

static void take_change(struct subscriber *subscriber, const struct change *change)
{
    unsigned slot = world_slot_index(&world, change->slot);
    struct known *known = &subscriber->known[slot];
    uint64_t place = change_place(change);
    assert_true(concerns(subscriber, slot));
    uint32_t key = world_check_change(&world, slot, change);
    if (!subscriber->in_snapshot && known->place > 0) assert_int_equal(place, known->place + 1);
    assert_true(place > known->place);
    known->place = place;
    known->newest[key] = change->type == FRAME_REMOVE ? 0 : place;
    given_count++;
}

/* He knows all there is to know. */
static void check_state(struct subscriber *subscriber)
{
    bool was_snapshot = subscriber->in_snapshot;
    subscriber->caught_up++;
    subscriber->in_snapshot = false;
    for (unsigned slot = 0; slot < WORLD_SLOTS; slot++) {
        if (!concerns(subscriber, slot)) continue;
        struct known *known = &subscriber->known[slot];
        /* A snapshot's last place may be lower: that change is superseded or a forgotten removal. */
        if (!was_snapshot && known->place > 0)
            assert_int_equal(known->place, world.slots[slot].count);
        known->place = world.slots[slot].count;
        if (!subscriber->has_state) continue;
        for (uint32_t key = 0; key < world.options.keys_per_slot; key++)
            assert_int_equal(known->newest[key], world_place_of(&world, slot, key));
    }
}

/* Whoever follows a slot alone can take changes back by himself, if he kept them. */
static void take_truncation(struct subscriber *subscriber, const struct cursor_batch *batch)
{
    unsigned slot = world_slot_index(&world, batch->slot);
    /* A prefix does not say which slots it is about. */
    if (!concerns(subscriber, slot)) return;
    truncated_count++;
    struct known *known = &subscriber->known[slot];
    assert_true(known->place == 0 || known->place > batch->place);
    if (rng_below(&world.rng, 2) == 0) {
        take_snapshot(subscriber);
        return;
    }
    /* The state of the keys at that place is what his own history says; the model's is the same. */
    if (known->place != 0) known->place = batch->place;
    if (batch->place == 0) known->place = 0;
    subscriber->has_state = false;
}

static void read_once(struct subscriber *subscriber)
{
    struct cursor_limits limits = {.changes_max = 1 + (uint32_t)rng_below(&world.rng, 40),
                                   .bytes_max = subscriber->bytes_max,
                                   .look_bytes_max = 1 + rng_below(&world.rng, 200000)};
    struct cursor_batch batch;
    world_seal(&world);
    bool is_behind = cursor_is_behind(&subscriber->cursor);
    enum cursor_answer answer = cursor_read(&subscriber->cursor, &limits, &batch);
    if (!is_behind) assert_int_equal(answer, CURSOR_CAUGHT_UP);
    switch (answer) {
    case CURSOR_CHANGES:
        assert_in_range(batch.count, 1, limits.changes_max);
        assert_true(batch.count == 1 || batch.bytes <= limits.bytes_max);
        for (uint32_t i = 0; i < batch.count; i++) take_change(subscriber, batch.changes[i]);
        break;
    case CURSOR_MORE: break;
    case CURSOR_NO_MEMORY: world_compact(&world, 1000000); break;
    case CURSOR_CAUGHT_UP: check_state(subscriber); break;
    case CURSOR_TRIMMED:
        trimmed_count++;
        assert_int_equal(cursor_read(&subscriber->cursor, &limits, &batch), CURSOR_TRIMMED);
        take_snapshot(subscriber);
        break;
    case CURSOR_TRUNCATED: take_truncation(subscriber, &batch); break;
    }
}

/* From another place: where it stood, or the oldest, or a place of its slot. */
static void seek(struct subscriber *subscriber)
{
    struct cursor *cursor = &subscriber->cursor;
    struct known *known = NULL;
    world_seal(&world);
    uint64_t dice = rng_below(&world.rng, 10);
    if (dice < 2) {
        take_snapshot(subscriber);
    } else if (dice < 4) {
        /* Whatever is kept, all of it: nobody knows the state by that. */
        cursor_seek_oldest(cursor);
        forget(subscriber);
        subscriber->in_snapshot = false;
        subscriber->has_state = false;
    } else if (dice < 7 && cursor->filter.slot != CURSOR_ALL_SLOTS && !subscriber->in_snapshot &&
               !cursor->is_truncated && !cursor->is_trimmed) {
        known = &subscriber->known[world_slot_index(&world, (uint16_t)subscriber->slot)];
        if (known->place == 0) return;
        /* Exactly behind what he was given, if it is still kept. */
        if (!cursor_seek_place(cursor, known->place)) take_snapshot(subscriber);
    } else if (!subscriber->in_snapshot && !cursor->is_truncated && !cursor->is_trimmed) {
        uint64_t position = cursor->position;
        if (!cursor_seek_position(cursor, position)) take_snapshot(subscriber);
        assert_true(subscriber->in_snapshot || cursor->position == position);
    }
}

static void subscribe(struct subscriber *subscriber, unsigned index)
{
    struct rng *rng = &world.rng;
    *subscriber = (struct subscriber){.slot = CURSOR_ALL_SLOTS};
    struct cursor_filter filter = {.slot = CURSOR_ALL_SLOTS};
    if (index % 3 == 1) {
        subscriber->slot = world.slots[rng_below(rng, WORLD_SLOTS)].slot;
        filter.slot = subscriber->slot;
    } else if (index % 3 == 2) {
        /* The keys of a slot have their prefix in common. */
        const struct model_slot *slot = &world.slots[rng_below(rng, WORLD_SLOTS)];
        subscriber->slot = slot->slot;
        memcpy(subscriber->prefix, slot->tag, sizeof subscriber->prefix);
        filter.prefix = bytes_of(subscriber->prefix);
    }
    subscriber->laziness = index < 3 ? 2 : 1 + (unsigned)rng_below(rng, 400);
    subscriber->bytes_max = 1 + rng_below(rng, 100000);
    cursor_open(&subscriber->cursor, &world.store, &filter);
    if (rng_below(rng, 2) == 0)
        take_snapshot(subscriber);
    else if (!cursor_seek_start(&subscriber->cursor))
        take_snapshot(subscriber);
    else
        subscriber->has_state = true;
}

/* --------------------------------------------------------------------------------- worlds */

static struct world_options draw_options(struct rng *rng, uint64_t seed)
{
    static const size_t memories[] = {18 * MIB, 24 * MIB, 40 * MIB, 160 * MIB};
    static const size_t histories[] = {0, 1, 1, 4 * MIB, 10 * MIB};
    static const size_t records[] = {0, 0, 100, 3000};
    static const size_t lents[] = {0, 2 * MIB, 8 * MIB};
    static const uint32_t values[] = {60, 3000, 20000};
    static const uint32_t larges[] = {0, 0, 200 * KIB, 2097152};
    static const uint32_t keys[] = {7, 30, WORLD_KEYS_MAX};
    struct world_options options = {.seed = seed};
    options.memory_bytes = memories[rng_below(rng, ARRAY_COUNT(memories))];
    options.history_bytes = histories[rng_below(rng, ARRAY_COUNT(histories))];
    options.history_records = records[rng_below(rng, ARRAY_COUNT(records))];
    options.garbage_bytes = rng_below(rng, 2) == 0 ? 1 : 1 * MIB;
    options.lent_bytes = lents[rng_below(rng, ARRAY_COUNT(lents))];
    options.value_bytes_max = values[rng_below(rng, ARRAY_COUNT(values))];
    options.large_bytes_max = larges[rng_below(rng, ARRAY_COUNT(larges))];
    options.keys_per_slot = keys[rng_below(rng, ARRAY_COUNT(keys))];
    if (rng_below(rng, 2) == 0)
        options.segment_seq_first = INDEX_BY_MASK - (uint32_t)rng_below(rng, 30);
    return options;
}

static void step_once(unsigned truncations, unsigned compactions, unsigned run_max,
                      unsigned removals)
{
    struct rng *rng = &world.rng;
    uint64_t dice = rng_below(rng, 1000);
    if (dice < truncations)
        world_truncate(&world, (unsigned)rng_below(rng, WORLD_SLOTS));
    else if (dice < truncations + compactions)
        world_compact(&world, 1 + rng_below(rng, rng_below(rng, 2) == 0 ? 3000 : 1000000));
    else
        world_run(&world, run_max, removals, 0);
    if (world.refused > 20) world_relieve(&world);
    world_seal(&world);
    cursors_bound(&world.store);
}

static void catch_up_all(void)
{
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        uint64_t before = subscribers[i].caught_up;
        for (unsigned reads = 0; subscribers[i].caught_up == before; reads++) {
            read_once(&subscribers[i]);
            assert_true(reads < 10000000);
        }
    }
}

static void live_one_world(uint64_t seed)
{
    static char text[64];
    struct rng rng;
    rng_init(&rng, seed * 7777777);
    struct world_options options = draw_options(&rng, seed);
    unsigned truncations = (unsigned)rng_below(&rng, 3) * 20;
    unsigned compactions = 50 + (unsigned)rng_below(&rng, 300);
    unsigned run_max = 1 + (unsigned)rng_below(&rng, WORLD_RUN_MAX);
    unsigned removals = (unsigned)rng_below(&rng, 200);
    world_open(&world, &options);
    for (unsigned i = 0; i < SUBSCRIBERS; i++) subscribe(&subscribers[i], i);
    for (unsigned step = 0; step < STEPS; step++) {
        snprintf(text, sizeof text, "seed %llu, step %u", (unsigned long long)seed, step);
        assert_context_set(text);
        step_once(truncations, compactions, run_max, removals);
        for (unsigned i = 0; i < SUBSCRIBERS; i++) {
            if (rng_below(&rng, subscribers[i].laziness) > 0) continue;
            for (unsigned reads = 0; reads < 8; reads++) read_once(&subscribers[i]);
            if (rng_below(&rng, 50) == 0) seek(&subscribers[i]);
        }
        if (step % 1000 == 0) world_check(&world);
    }
    catch_up_all();
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        assert_true(subscribers[i].caught_up > 0);
        if (i % 2 == 0) cursor_close(&subscribers[i].cursor);
    }
    world_close(&world); /* ends the others */
    assert_context_set(NULL);
}

static void whoever_reads_along_knows_the_state_wherever_he_has_caught_up(void **state)
{
    (void)state;
    uint64_t first = environment_number("FERO_SEED", 1);
    uint64_t count = environment_number("FERO_SEEDS", SEEDS_COUNT);
    if (getenv("FERO_SEED") != NULL) count = 1;
    for (uint64_t seed = first; seed < first + count; seed++) live_one_world(seed);
    if (count < SEEDS_COUNT) return;
    /* What rarely happens did happen. */
    assert_true(trimmed_count > 100);
    assert_true(truncated_count > 100);
    assert_true(given_count > 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whoever_reads_along_knows_the_state_wherever_he_has_caught_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
