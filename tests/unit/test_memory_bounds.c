/*
 * The memory that keys take, at a twentieth of what `fero bench memory --keys 10M` measures, with
 * the bounds of a node divided likewise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "bench/feeder.h"

#define KEYS 2000000u
#define VALUE_BYTES 100
#define SHARE 5 /* of the ten million */
#define BEYOND_BYTES_MAX 96
#define FOOTPRINT_MAX 1.5
/* One segment is on average half empty, and a session takes the same for many keys as for few. */
#define CONSTANT_BYTES (SEGMENT_UNIT_BYTES + SEGMENT_UNIT_BYTES / 8 + 256 * KIB)

struct watched {
    struct feeder feeder;
    uint64_t highest_bytes;
};

static void watch(struct feeder *feeder, struct shard *shard, void *context)
{
    struct watched *watched = context;
    (void)feeder;
    shard_turn(shard);
    watched->highest_bytes = max_u64(watched->highest_bytes, shard->counters.memory_bytes);
}

static int load(void **state)
{
    const struct feeder_options options = {.shards_count = 1,
                                           .keys = KEYS,
                                           .message_bytes = FEEDER_KEY_BYTES + VALUE_BYTES,
                                           .log_bytes_max = 1 * GIB,
                                           .history_bytes_max = 128 * MIB / SHARE,
                                           .garbage_bytes_max = 720 * MIB / SHARE};
    struct watched *watched = aligned_alloc(CACHE_PAIR, round_up(sizeof *watched, CACHE_PAIR));
    assert_non_null(watched);
    watched->highest_bytes = 0;
    feeder_open(&watched->feeder, &options);
    feeder_feed(&watched->feeder, FEEDER_UPDATE, KEYS, feeder_key_in_order, watch, watched);
    *state = watched;
    return 0;
}

static int forget(void **state)
{
    struct watched *watched = *state;
    feeder_close(&watched->feeder);
    free(watched);
    return 0;
}

static void a_key_takes_few_bytes_beyond_itself_and_its_value(void **state)
{
    struct watched *watched = *state;
    struct feeder_totals totals = feeder_totals_of(&watched->feeder);
    uint64_t per_key = FEEDER_KEY_BYTES + VALUE_BYTES + BEYOND_BYTES_MAX;
    assert_int_equal(totals.keys, KEYS);
    assert_int_equal(totals.errors, 0);
    /* What was counted is there: each record has its header and an index word for 64 bytes. */
    assert_true(totals.memory_bytes > KEYS * (FEEDER_KEY_BYTES + VALUE_BYTES + 64ull));
    assert_in_range(totals.memory_bytes, 1, KEYS * per_key + CONSTANT_BYTES);
}

static void overwriting_adds_at_most_half(void **state)
{
    struct watched *watched = *state;
    double loaded = (double)feeder_totals_of(&watched->feeder).memory_bytes;
    for (unsigned i = 0; i < 3; i++) {
        feeder_feed(&watched->feeder, FEEDER_UPDATE, KEYS, feeder_key_scattered, watch, watched);
        struct feeder_totals totals = feeder_totals_of(&watched->feeder);
        assert_int_equal(totals.keys, KEYS);
        assert_int_equal(totals.errors, 0);
        assert_true((double)totals.memory_bytes <= FOOTPRINT_MAX * loaded);
    }
    print_message("%.2f times as much at most\n", (double)watched->highest_bytes / loaded);
    assert_true((double)watched->highest_bytes <= FOOTPRINT_MAX * loaded);
    store_check(&watched->feeder.shards[0]->caches[0]->store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_key_takes_few_bytes_beyond_itself_and_its_value, load,
                                        forget),
        cmocka_unit_test_setup_teardown(overwriting_adds_at_most_half, load, forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
