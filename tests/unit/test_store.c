#include "shard/store.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "ring/slot.h"
#include "tests/support/store_world.h"

#define HASH_SEED 99

/* ---------------------------------------------------------------------------- a store alone */

struct fixture {
    struct segments segments;
    struct store store;
    uint64_t hlc;
    uint64_t seq;
    uint8_t body[64];
};

static struct store_options options_of(uint64_t entries_max, size_t history_bytes)
{
    return (struct store_options){
        .log = {.history_bytes_max = history_bytes, .owner = 1, .view = 1},
        .entries_max = entries_max,
        .hash_seed = HASH_SEED,
        .garbage_bytes_max = MIB,
    };
}

static void open_store(struct fixture *fixture, size_t memory_bytes, uint64_t entries_max,
                       size_t history_bytes)
{
    memset(fixture, 0, sizeof *fixture);
    struct store_options options = options_of(entries_max, history_bytes);
    assert_int_equal(segments_init(&fixture->segments, memory_bytes), 0);
    assert_int_equal(store_init(&fixture->store, &fixture->segments, &fixture->hlc, &options), 0);
}

static void close_store(struct fixture *fixture)
{
    store_deinit(&fixture->store);
    assert_int_equal(fixture->segments.units_used, 0);
    segments_deinit(&fixture->segments);
}

/* A request in the memory of `body`, which has 64 bytes. */
static struct store_request request_of(struct fixture *fixture, uint8_t *body, uint8_t type,
                                       const char *key, const char *value)
{
    struct store_request request = {.body = body,
                                    .type = type,
                                    .key_len = (uint16_t)strlen(key),
                                    .body_bytes = (uint32_t)(strlen(key) + strlen(value)),
                                    .slot = FRAME_SLOT_ANY,
                                    .session = 1,
                                    .seq_whole = ++fixture->seq,
                                    .seq = (uint32_t)fixture->seq};
    if (type == FRAME_UPDATE) request.flags = VALUE_BYTES; /* what the memory happens to hold */
    snprintf((char *)body, 64, "%s%s", key, value);
    return request;
}

static enum store_result apply(struct fixture *fixture, struct store_request *request,
                               const struct change **changed)
{
    if (request->type == FRAME_GET) return store_get(&fixture->store, request, changed);
    if (request->type == FRAME_REMOVE) return store_remove(&fixture->store, request, changed);
    return store_update(&fixture->store, request, changed);
}

static enum store_result ask(struct fixture *fixture, uint8_t type, const char *key,
                             const char *value, const struct change **changed)
{
    struct store_request request = request_of(fixture, fixture->body, type, key, value);
    store_prepare(&fixture->store, &request);
    return apply(fixture, &request, changed);
}

static uint64_t offset_after(struct fixture *fixture, uint8_t type, const char *key)
{
    const struct change *changed = NULL;
    assert_int_equal(ask(fixture, type, key, "", &changed), STORE_OK);
    return change_offset(changed);
}

static bool has_value(struct fixture *fixture, const char *key, const char *value)
{
    const struct change *found = NULL;
    if (ask(fixture, FRAME_GET, key, "", &found) != STORE_OK) return false;
    return bytes_equal((struct bytes){change_value(found), change_value_bytes(found)},
                       bytes_of(value));
}

static void offsets_go_on_over_a_removal(void **state)
{
    (void)state;
    struct fixture fixture;
    open_store(&fixture, 0, 1000, GIB);
    assert_int_equal(offset_after(&fixture, FRAME_UPDATE, "28"), 1);
    assert_int_equal(offset_after(&fixture, FRAME_UPDATE, "28"), 2);
    assert_int_equal(offset_after(&fixture, FRAME_REMOVE, "28"), 3);
    assert_int_equal(offset_after(&fixture, FRAME_UPDATE, "28"), 4);
    assert_int_equal(offset_after(&fixture, FRAME_UPDATE, "29"), 1);
    close_store(&fixture);
}

static void removed_key_is_not_there(void **state)
{
    (void)state;
    struct fixture fixture;
    const struct change *changed;
    open_store(&fixture, 0, 1000, GIB);
    assert_int_equal(ask(&fixture, FRAME_REMOVE, "28", "", &changed), STORE_NO_KEY);
    assert_int_equal(ask(&fixture, FRAME_UPDATE, "28", "david", &changed), STORE_OK);
    assert_true(has_value(&fixture, "28", "david"));
    assert_int_equal(store_keys_count(&fixture.store), 1);
    assert_int_equal(ask(&fixture, FRAME_REMOVE, "28", "", &changed), STORE_OK);
    assert_int_equal(change_value_bytes(changed), 0);
    assert_int_equal(change_value_type(changed), VALUE_UNDEFINED);
    assert_int_equal(ask(&fixture, FRAME_GET, "28", "", &changed), STORE_NO_KEY);
    assert_int_equal(ask(&fixture, FRAME_REMOVE, "28", "", &changed), STORE_NO_KEY);
    assert_int_equal(store_keys_count(&fixture.store), 0);
    close_store(&fixture);
}

/*
 * Keys whose hashes under HASH_SEED agree in all bits that the table looks at: only their bytes
 * tell them apart.
 */
static const char *const twins[][2] = {
    {"key-W4Y9", "key-khoE"},
    {"pKGJ-key", "AxJQ-key"},
    {"key-02560220", "key-02979681"},
    {"key-00614544", "key-03978097"},
};

static void keys_are_told_apart_where_their_hashes_are_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(twins); i++) {
        const char *one = twins[i][0];
        const char *two = twins[i][1];
        uint64_t differ = hash_key(one, strlen(one), HASH_SEED);
        differ ^= hash_key(two, strlen(two), HASH_SEED);
        assert_int_equal(differ << 31, 0);
        assert_int_equal(differ >> 57, 0);
        struct fixture fixture;
        const struct change *changed;
        open_store(&fixture, 0, 1000, GIB);
        assert_int_equal(ask(&fixture, FRAME_UPDATE, one, "a", &changed), STORE_OK);
        assert_int_equal(ask(&fixture, FRAME_GET, two, "", &changed), STORE_NO_KEY);
        assert_int_equal(ask(&fixture, FRAME_REMOVE, two, "", &changed), STORE_NO_KEY);
        assert_int_equal(ask(&fixture, FRAME_UPDATE, two, "b", &changed), STORE_OK);
        assert_true(has_value(&fixture, one, "a"));
        assert_true(has_value(&fixture, two, "b"));
        assert_int_equal(ask(&fixture, FRAME_REMOVE, one, "", &changed), STORE_OK);
        assert_true(has_value(&fixture, two, "b"));
        assert_int_equal(store_keys_count(&fixture.store), 1);
        log_seal(&fixture.store.log);
        store_check(&fixture.store);
        close_store(&fixture);
    }
}

/* All are probed before the first is applied: what a probe saw may be another key's by then. */
static void run_of_twins_is_applied_in_order(void **state)
{
    (void)state;
    struct fixture fixture;
    struct store_request requests[6];
    uint8_t bodies[6][64];
    const struct change *changed;
    open_store(&fixture, 0, 1000, GIB);
    static const struct {
        uint8_t type;
        uint8_t twin;
        const char *value;
    } run[] = {{FRAME_UPDATE, 0, "a"}, {FRAME_UPDATE, 1, "b"}, {FRAME_REMOVE, 0, ""},
               {FRAME_UPDATE, 1, "c"}, {FRAME_UPDATE, 0, "d"}, {FRAME_REMOVE, 1, ""}};
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; i < ARRAY_COUNT(run); i++) {
            requests[i] =
                request_of(&fixture, bodies[i], run[i].type, twins[0][run[i].twin], run[i].value);
            store_prefetch(&fixture.store, &requests[i]);
        }
        for (size_t i = 0; i < ARRAY_COUNT(run); i++) store_probe(&fixture.store, &requests[i]);
        for (size_t i = 0; i < ARRAY_COUNT(run); i++)
            assert_int_equal(apply(&fixture, &requests[i], &changed), STORE_OK);
        assert_true(has_value(&fixture, twins[0][0], "d"));
        assert_false(has_value(&fixture, twins[0][1], "c"));
    }
    close_store(&fixture);
}

static void full_table_refuses_new_keys_only(void **state)
{
    (void)state;
    struct fixture fixture;
    const struct change *changed;
    char key[16];
    unsigned count = 0;
    open_store(&fixture, 0, 1, GIB);
    for (;; count++) {
        snprintf(key, sizeof key, "k%u", count);
        uint64_t hlc = fixture.hlc;
        uint64_t place = fixture.store.slots[slot_of_key(key, strlen(key))].place;
        if (ask(&fixture, FRAME_UPDATE, key, "x", &changed) == STORE_OK) continue;
        assert_int_equal(fixture.hlc, hlc);
        assert_int_equal(fixture.store.slots[slot_of_key(key, strlen(key))].place, place);
        break;
    }
    assert_int_equal(store_keys_count(&fixture.store), count);
    assert_int_equal(ask(&fixture, FRAME_UPDATE, "k0", "y", &changed), STORE_OK);
    assert_int_equal(ask(&fixture, FRAME_REMOVE, "k1", "", &changed), STORE_OK);
    assert_int_equal(ask(&fixture, FRAME_UPDATE, "k1", "z", &changed), STORE_OK);
    log_seal(&fixture.store.log);
    store_check(&fixture.store);
    close_store(&fixture);
}

static void init_survives_a_lack_of_memory(void **state)
{
    (void)state;
    struct fixture fixture;
    struct store_options options = options_of(1000, GIB);
    memset(&fixture, 0, sizeof fixture);
    assert_int_equal(segments_init(&fixture.segments, 0), 0);
    int err = -ENOMEM;
    uint64_t n = 0;
    while (err == -ENOMEM) {
        memory_fail_after(++n);
        err = store_init(&fixture.store, &fixture.segments, &fixture.hlc, &options);
        memory_fail_after(0);
    }
    assert_int_equal(err, 0);
    assert_true(n > 3);
    close_store(&fixture);
}

/* ---------------------------------------------------------------------------- over time */

static struct world world;

static struct world_options world_options_of(size_t memory_bytes, size_t history_bytes)
{
    return (struct world_options){.seed = 1,
                                  .memory_bytes = memory_bytes,
                                  .history_bytes = history_bytes,
                                  .garbage_bytes = 1,
                                  .keys_per_slot = WORLD_KEYS_MAX,
                                  .value_bytes_max = 2 * MIB};
}

/* So that another segment is started, and an older one may leave the history. */
static void start_segment(void)
{
    assert_int_equal(world_update(&world, 4, 399, 2 * MIB - 4096), STORE_OK);
    world_compact_all(&world);
}

static void forgotten_key_begins_again(void **state)
{
    (void)state;
    struct world_options options = world_options_of(40 * MIB, 1);
    world_open(&world, &options);
    /* Each is told apart from a key that is still known by its offset: see store_world.c. */
    for (uint32_t key = 0; key < 10; key++) {
        assert_int_equal(world_update(&world, 0, key, 100000), STORE_OK);
        assert_int_equal(world_remove(&world, 0, key), STORE_OK);
    }
    uint64_t entries = world.store.table.count;
    for (int i = 0; i < 20; i++) start_segment();
    assert_int_equal(world.store.table.count, entries - 10 + 1);
    assert_int_equal(world.store.tombstones, 0);
    for (uint32_t key = 0; key < 10; key++)
        assert_int_equal(world_update(&world, 0, key, 10), STORE_OK);
    world_check(&world);
    world_truncate_to(&world, 0, 20);
    world_check(&world);
    world_close(&world);
}

/*
 * The marks of superseded changes have 13 bits for the number of a segment. A value that was removed
 * long ago lies in a segment that is worth no compaction; when the numbers have wrapped, its mark
 * must not look young, or a truncation would bring the value back.
 */
static void old_value_stays_gone_when_the_numbers_of_segments_wrap(void **state)
{
    (void)state;
    struct world_options options = world_options_of(40 * MIB, 1);
    world_open(&world, &options);
    assert_int_equal(world_update(&world, 0, 0, 100), STORE_OK);
    for (uint32_t key = 1; key < 300; key++)
        assert_int_equal(world_update(&world, 1, key, 6000), STORE_OK);
    start_segment();
    assert_int_equal(world_remove(&world, 0, 0), STORE_OK);
    for (int i = 0; i < 5; i++) start_segment();
    for (uint32_t passed = 0; passed < 3 * (INDEX_BY_MASK + 1); passed += 128) {
        /* As if so many segments had been filled and compacted away. */
        world.store.log.active_seq += 127;
        for (int i = 0; i < 3; i++) start_segment();
        uint64_t place = world.slots[0].count;
        assert_int_equal(world_update(&world, 0, 0, 10), STORE_OK);
        world_truncate_to(&world, 0, place);
        assert_int_equal(world_get(&world, 0, 0), STORE_NO_KEY);
    }
    world_check(&world);
    world_close(&world);
}

static void slot_truncated_to_nothing_starts_again(void **state)
{
    (void)state;
    struct world_options options = world_options_of(40 * MIB, GIB);
    world_open(&world, &options);
    for (uint32_t i = 0; i < 500; i++)
        assert_int_equal(world_update(&world, i % 2, i % 50, 5000), STORE_OK);
    world_truncate_to(&world, 0, 0);
    assert_int_equal(world.store.slots[world.slots[0].slot].chain, 0);
    world_check(&world);
    for (uint32_t i = 0; i < 50; i++) assert_int_equal(world_update(&world, 0, i, 10), STORE_OK);
    world_check(&world);
    world_close(&world);
}

static unsigned fill_memory(uint32_t value_bytes)
{
    unsigned count = 0;
    while (world_update(&world, count % WORLD_SLOTS, count / WORLD_SLOTS, value_bytes) == STORE_OK)
        count++;
    return count;
}

static void full_memory_lets_removals_through(void **state)
{
    (void)state;
    struct world_options options = world_options_of(20 * MIB, 1 * MIB);
    world_open(&world, &options);
    unsigned count = fill_memory(20000);
    assert_int_equal(world.keys_count, count);
    world_check(&world);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(world_remove(&world, i % WORLD_SLOTS, i / WORLD_SLOTS), STORE_OK);
    assert_int_equal(world.keys_count, 0);
    world_check(&world);
    world_compact_all(&world);
    world_check(&world);
    assert_int_equal(world_update(&world, 0, 0, 20000), STORE_OK);
    world_close(&world);
}

/* An update succeeds after a few refusals, with a compaction after each. */
static bool is_taken_soon(uint32_t value_bytes)
{
    for (int tries = 0; tries < 4; tries++) {
        if (world_update(&world, 0, 399, value_bytes) == STORE_OK) return true;
        world_compact_all(&world);
    }
    return false;
}

/*
 * What is removed must make room, whether the removals fill a segment or not, and whether what they
 * superseded is inside the history or not.
 */
static void removals_make_room_in_a_full_memory(void **state)
{
    (void)state;
    static const struct {
        size_t memory_bytes;
        size_t history_bytes;
        uint32_t value_bytes;
        unsigned removals;
    } cases[] = {
        {20 * MIB, 1 * MIB, 20000, 110},    {20 * MIB, 1 * MIB, 20000, 1000},
        {40 * MIB, 1 * MIB, 20000, 120},    {40 * MIB, 4 * MIB, 100000, 150},
        {40 * MIB, GIB, 100000, 150},       {40 * MIB, 10 * MIB, 100000, 1000},
        {160 * MIB, 16 * MIB, 100000, 700},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct world_options options =
            world_options_of(cases[i].memory_bytes, cases[i].history_bytes);
        options.garbage_bytes = MIB;
        world_open(&world, &options);
        unsigned count = fill_memory(cases[i].value_bytes);
        world_compact_all(&world);
        unsigned removals = cases[i].removals < count ? cases[i].removals : count;
        for (unsigned n = 0; n < removals; n++)
            assert_int_equal(world_remove(&world, n % WORLD_SLOTS, n / WORLD_SLOTS), STORE_OK);
        assert_true(is_taken_soon(cases[i].value_bytes));
        world_check(&world);
        world_close(&world);
    }
}

/* A record of several units that has no room to be moved to does not stop what is behind it. */
static void large_record_without_room_is_passed_over(void **state)
{
    (void)state;
    struct world_options options = world_options_of(40 * MIB, 1);
    options.large_bytes_max = 3 * MIB;
    world_open(&world, &options);
    struct segments *segments = &world.segments;
    assert_int_equal(world_update(&world, 0, 0, 3 * MIB), STORE_OK);
    uint32_t first = segments->units_used;
    while (segments_take(segments, 1, 0) != SEGMENT_NONE) {
    }
    /* Seven units are free, and no two of them are neighbours. */
    for (uint32_t i = 1; i <= 7; i++) segments_put(segments, first + 2 * i);
    for (int i = 0; i < 20; i++) {
        assert_true(is_taken_soon(2 * MIB - 4096));
        if (i == 1) assert_int_equal(world_update(&world, 0, 0, 10), STORE_OK);
        world_compact_all(&world);
    }
    world_check(&world);
    for (uint32_t unit = first; unit < segments->units_max; unit++)
        if (unit - first > 14 || (unit - first) % 2 == 1 || unit == first)
            segments_put(segments, unit);
    world_close(&world);
}

/* Keys without values: a removal is as long as what it removes. */
static void memory_full_of_small_changes_can_be_emptied(void **state)
{
    (void)state;
    struct fixture fixture;
    const struct change *changed;
    char key[16];
    unsigned count = 0;
    open_store(&fixture, 0, 1000000, MIB);
    do snprintf(key, sizeof key, "%08u", ++count);
    while (ask(&fixture, FRAME_UPDATE, key, "", &changed) == STORE_OK);
    unsigned refusals = 0;
    for (unsigned n = 1; n < count; n++) {
        snprintf(key, sizeof key, "%08u", n);
        while (ask(&fixture, FRAME_REMOVE, key, "", &changed) != STORE_OK) {
            assert_true(++refusals < 100);
            log_seal(&fixture.store.log);
            while (store_compact(&fixture.store, MIB) > 0) {
            }
        }
    }
    assert_int_equal(store_keys_count(&fixture.store), 0);
    log_seal(&fixture.store.log);
    store_check(&fixture.store);
    close_store(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets_go_on_over_a_removal),
        cmocka_unit_test(removed_key_is_not_there),
        cmocka_unit_test(keys_are_told_apart_where_their_hashes_are_not),
        cmocka_unit_test(run_of_twins_is_applied_in_order),
        cmocka_unit_test(full_table_refuses_new_keys_only),
        cmocka_unit_test(init_survives_a_lack_of_memory),
        cmocka_unit_test(forgotten_key_begins_again),
        cmocka_unit_test(old_value_stays_gone_when_the_numbers_of_segments_wrap),
        cmocka_unit_test(slot_truncated_to_nothing_starts_again),
        cmocka_unit_test(full_memory_lets_removals_through),
        cmocka_unit_test(removals_make_room_in_a_full_memory),
        cmocka_unit_test(large_record_without_room_is_passed_over),
        cmocka_unit_test(memory_full_of_small_changes_can_be_emptied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
