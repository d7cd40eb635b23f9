/*
 * The simulator in `make test`: many worlds are clean, the same seed is the same world, and each of the
 * bugs that were planted is found in three times the seeds at most that it is known to take. More
 * worlds: make sim SECONDS=600.
 *
 *   FERO_SEEDS=1000   more seeds than by default
 *   FERO_SEED=17      from this one on
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/sim/campaign.h"
#include "tests/sim/plants.h"

/* Processes are dear under a sanitizer, which looks for something else than the checkers do. */
#ifdef __SANITIZE_ADDRESS__
#define SEEDS_COUNT 40
#else
#define SEEDS_COUNT 250
#endif
/* Of the machine's time, for all of them, and for each planted bug. */
#define SECONDS_MAX 45
#define PLANT_SECONDS_MAX 60
#define BUDGET_FACTOR 3

static uint64_t environment_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void the_real_code_is_clean(void **unused)
{
    (void)unused;
    struct campaign campaign = {.seed_first = environment_number("FERO_SEED", 1),
                                .seeds_count = environment_number("FERO_SEEDS", SEEDS_COUNT),
                                .workers = 2,
                                .twice = 10};
    struct campaign_result result;
    if (getenv("FERO_SEEDS") == NULL) campaign.seconds_max = SECONDS_MAX;
    campaign_run(&campaign, &result);
    if (result.found > 0)
        fail_msg("seed %llu found something", (unsigned long long)result.first_found);
    if (result.different > 0)
        fail_msg("seed %llu is another world the second time",
                 (unsigned long long)result.first_different);
    /* They were worlds in which something happened. */
    assert_true(result.seeds > 0);
    assert_true(result.applied > result.seeds * 50);
    assert_true(result.resets > 0);
}

#ifndef __SANITIZE_ADDRESS__
static void find(const struct plant *plant)
{
    struct campaign campaign = {.seed_first = 1,
                                .seeds_count = plant->seeds * BUDGET_FACTOR,
                                .seconds_max = PLANT_SECONDS_MAX,
                                .plant = plant->name,
                                .workers = 2,
                                .is_quiet = true,
                                .ends_at_first = true};
    struct campaign_result result;
    campaign_run(&campaign, &result);
    if (result.found == 0)
        fail_msg("%s (%s) was not found in %llu seeds", plant->name, plant->what,
                 (unsigned long long)result.seeds);
}

static void every_planted_bug_is_found(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < plants_count; i++) find(&plants[i]);
}
#endif

static void the_seed_alone_makes_the_world(void **unused)
{
    (void)unused;
    struct scenario_result first;
    struct scenario_result again;
    const struct scenario_options one = {.seed = 1};
    const struct scenario_options other = {.seed = 2};
    assert_int_equal(campaign_run_one(&one, false, &first), VERDICT_CLEAN);
    assert_int_equal(campaign_run_one(&one, false, &again), VERDICT_CLEAN);
    assert_int_equal(first.hash, again.hash);
    assert_int_equal(first.events, again.events);
    assert_int_equal(campaign_run_one(&other, false, &again), VERDICT_CLEAN);
    assert_int_not_equal(first.hash, again.hash);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_seed_alone_makes_the_world),
        cmocka_unit_test(the_real_code_is_clean),
#ifndef __SANITIZE_ADDRESS__
        cmocka_unit_test(every_planted_bug_is_found),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
