/*
 * Log, index, table, compaction, truncation and sessions against a model that is slow and obvious
 * (tests/support/store_world.h), in worlds of many kinds: each seed draws its own bounds of memory
 * and history, its own sizes, and how often each operation comes.
 *
 *   FERO_SEEDS=500            more seeds than by default
 *   FERO_SEED=17              only this one
 *   FERO_CHECK_EVERY=100      compare everything after so many steps (slow; finds the step)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "tests/support/store_world.h"

#define SEEDS_COUNT 40
#define STEPS 6000
#define CHECK_EVERY 2500
/* The life of a world changes so often: it fills up, is emptied, stands still. */
#define MIX_STEPS 1500

static struct world world;

/* For the reports of failures: what was going on; NULL: nothing. */
static const char *current;
static char current_text[128];

static uint64_t environment_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void now_at(uint64_t seed, unsigned step)
{
    snprintf(current_text, sizeof current_text, "seed %llu, step %u", (unsigned long long)seed,
             step);
    current = current_text;
}

/* Runs after every test, also after one that failed. */
static int report(void **state)
{
    (void)state;
    if (current != NULL) print_error("failed at %s: run it again with FERO_SEED\n", current);
    assert_context_set(NULL);
    current = NULL;
    return 0;
}

/* ---------------------------------------------------------------------------- worlds of all kinds */

struct mix {
    unsigned run;
    unsigned truncate;
    unsigned compact_little;
    unsigned compact_much;
    unsigned compact_all;
    unsigned probe;
    unsigned seal;
    unsigned run_max;
    unsigned removals_in_1000;
    unsigned gets_in_1000;
};

static size_t pick(struct rng *rng, const size_t *choices, size_t count)
{
    return choices[rng_below(rng, count)];
}

/* Nothing, little, some or a lot of what is usual. */
static unsigned often(struct rng *rng, unsigned usual)
{
    static const size_t factors[] = {0, 1, 4, 16};
    return (unsigned)(usual * pick(rng, factors, ARRAY_COUNT(factors)) / 4);
}

static struct world_options draw_options(struct rng *rng, uint64_t seed)
{
    static const size_t memories[] = {18 * MIB, 24 * MIB, 40 * MIB, 64 * MIB, 160 * MIB};
    static const size_t histories[] = {0, 1, 1, 4 * MIB, 10 * MIB, 30 * MIB};
    static const size_t records[] = {0, 0, 100, 3000, 20000};
    static const size_t garbages[] = {0, 1, 1 * MIB, 6 * MIB};
    static const size_t values[] = {0, 60, 3000, 20000, 20000};
    static const size_t larges[] = {0, 0, 200 * KIB, 2097152, 5000000};
    static const size_t keys[] = {7, 30, 60, WORLD_KEYS_MAX};
    struct world_options options = {.seed = seed};
    options.memory_bytes = pick(rng, memories, ARRAY_COUNT(memories));
    options.history_bytes = pick(rng, histories, ARRAY_COUNT(histories));
    options.history_records = pick(rng, records, ARRAY_COUNT(records));
    options.garbage_bytes = pick(rng, garbages, ARRAY_COUNT(garbages));
    options.value_bytes_max = (uint32_t)pick(rng, values, ARRAY_COUNT(values));
    options.large_bytes_max = (uint32_t)pick(rng, larges, ARRAY_COUNT(larges));
    options.keys_per_slot = (uint32_t)pick(rng, keys, ARRAY_COUNT(keys));
    /* Every other world lives where the numbers of segments wrap in the index. */
    if (rng_below(rng, 2) == 0)
        options.segment_seq_first = INDEX_BY_MASK - (uint32_t)rng_below(rng, 30);
    /* And every other one where a sequence number no longer fits 32 bits. */
    if (rng_below(rng, 2) == 0) options.request_seq_first = UINT32_MAX - rng_below(rng, 20000);
    return options;
}

static struct mix draw_mix(struct rng *rng)
{
    struct mix mix = {.run = 1000,
                      .truncate = often(rng, 20),
                      .compact_little = often(rng, 100),
                      .compact_much = often(rng, 30),
                      .compact_all = often(rng, 1),
                      .probe = often(rng, 100),
                      .seal = often(rng, 100)};
    mix.run_max = 1 + (unsigned)rng_below(rng, WORLD_RUN_MAX);
    mix.removals_in_1000 = often(rng, 60);
    mix.gets_in_1000 = often(rng, 60);
    return mix;
}

/* Whether the dice fell on this part; takes it off them if not. */
static bool fell_on(uint64_t *dice, unsigned part)
{
    if (*dice < part) return true;
    *dice -= part;
    return false;
}

static void step_once(const struct mix *mix)
{
    struct rng *rng = &world.rng;
    uint64_t dice =
        rng_below(rng, mix->run + mix->truncate + mix->compact_little + mix->compact_much +
                           mix->compact_all + mix->probe + mix->seal);
    if (fell_on(&dice, mix->run))
        world_run(&world, mix->run_max, mix->removals_in_1000, mix->gets_in_1000);
    else if (fell_on(&dice, mix->truncate))
        world_truncate(&world, (unsigned)rng_below(rng, WORLD_SLOTS));
    else if (fell_on(&dice, mix->compact_little))
        world_compact(&world, 1 + rng_below(rng, 3000));
    else if (fell_on(&dice, mix->compact_much))
        world_compact(&world, rng_below(rng, 1000000));
    else if (fell_on(&dice, mix->compact_all))
        world_compact_all(&world);
    else if (fell_on(&dice, mix->probe))
        world_probe_session(&world);
    else
        world_seal(&world);
    /* Where memory stays full, most of a world would be refusals. */
    if (world.refused > 20) world_relieve(&world);
}

static void live_one_world(uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed * 1000003);
    now_at(seed, 0);
    assert_context_set(current);
    struct world_options options = draw_options(&rng, seed);
    struct mix mix;
    unsigned check_every = (unsigned)environment_number("FERO_CHECK_EVERY", CHECK_EVERY);
    world_open(&world, &options);
    for (unsigned step = 1; step <= STEPS; step++) {
        now_at(seed, step);
        if (step % MIX_STEPS == 1) mix = draw_mix(&rng);
        step_once(&mix);
        if (step % check_every == 0) world_check(&world);
    }
    world_check(&world);
    world_compact_all(&world);
    world_check(&world);
    world_close(&world);
}

static void state_is_the_fold_of_the_log_whatever_is_truncated_and_compacted(void **state)
{
    (void)state;
    uint64_t first = environment_number("FERO_SEED", 1);
    uint64_t count = environment_number("FERO_SEEDS", SEEDS_COUNT);
    if (getenv("FERO_SEED") != NULL) count = 1;
    for (uint64_t seed = first; seed < first + count; seed++) live_one_world(seed);
    current = NULL;
}

/* ---------------------------------------------------------------------------- memory over time */

/* The model keeps everything; the log must not. */
static void memory_stays_bounded_while_a_few_keys_are_overwritten_for_ever(void **state)
{
    (void)state;
    struct world_options options = {.seed = 3,
                                    .memory_bytes = 40 * MIB,
                                    .history_bytes = 4 * MIB,
                                    .garbage_bytes = 1,
                                    .keys_per_slot = 50};
    options.value_bytes_max = 1500;
    world_open(&world, &options);
    for (unsigned step = 0; step < 150000; step++) {
        now_at(options.seed, step);
        uint32_t bytes = (uint32_t)rng_below(&world.rng, options.value_bytes_max);
        assert_int_equal(world_update(&world, step % WORLD_SLOTS, step % 50, bytes), STORE_OK);
        if (step % 16 == 0) world_compact(&world, 200000);
    }
    assert_true(segments_bytes(&world.segments) <= options.memory_bytes);
    world_check(&world);
    world_close(&world);
    current = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(state_is_the_fold_of_the_log_whatever_is_truncated_and_compacted,
                                  report),
        cmocka_unit_test_teardown(memory_stays_bounded_while_a_few_keys_are_overwritten_for_ever,
                                  report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
