/*
 * Log, index, table and compaction against a model that is slow and obvious: for each slot the list
 * of all its changes, from which everything else follows.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/rng.h"
#include "log/batch.h"
#include "ring/slot.h"
#include "shard/store.h"

#define SLOTS 5
#define KEYS_PER_SLOT 60
#define VALUE_BYTES_MAX 3000
#define HASH_SEED 99

struct model_change {
    uint32_t key;
    uint32_t value_bytes;
    uint64_t value_seed;
    uint64_t offset;
    uint64_t chain; /* after it */
    uint8_t type;
};

struct model_slot {
    struct model_change *changes; /* by place - 1 */
    uint64_t count;
    uint64_t capacity;
    uint16_t slot;
    char tag[8];
};

struct world {
    struct segments segments;
    struct store store;
    uint64_t hlc;
    uint64_t seq;
    struct model_slot slots[SLOTS];
    struct rng rng;
    uint8_t body[64 + VALUE_BYTES_MAX + 8];
};

static void world_open(struct world *world, uint64_t seed, size_t memory_bytes, size_t history)
{
    memset(world, 0, sizeof *world);
    rng_init(&world->rng, seed);
    assert_int_equal(segments_init(&world->segments, memory_bytes), 0);
    struct store_options options = {.log = {.history_bytes_max = history, .owner = 7, .view = 1},
                                    .entries_max = 100000,
                                    .hash_seed = HASH_SEED,
                                    .garbage_bytes_max = 1};
    assert_int_equal(store_init(&world->store, &world->segments, &world->hlc, &options), 0);
    for (unsigned i = 0; i < SLOTS; i++) {
        snprintf(world->slots[i].tag, sizeof world->slots[i].tag, "{s%u}", i);
        world->slots[i].slot = slot_of_key(world->slots[i].tag, strlen(world->slots[i].tag));
    }
}

static void world_close(struct world *world)
{
    store_deinit(&world->store);
    assert_int_equal(world->segments.units_used, 0);
    segments_deinit(&world->segments);
    for (unsigned i = 0; i < SLOTS; i++) free(world->slots[i].changes);
}

#define KEY_BYTES_MAX 64

/* `text` has room for KEY_BYTES_MAX. */
static size_t key_text(const struct model_slot *slot, uint32_t key, uint8_t *text)
{
    return (size_t)snprintf((char *)text, KEY_BYTES_MAX, "%skey-%u%.*s", slot->tag, key,
                            (int)(key % 7), "abcdefg");
}

static void value_fill(uint8_t *to, size_t bytes, uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    uint8_t first = (uint8_t)rng_next(&rng);
    for (size_t i = 0; i < bytes; i++) to[i] = (uint8_t)(first + i * 31);
}

static struct store_request request_of(struct world *world, const struct model_slot *slot,
                                       uint32_t key, uint8_t type)
{
    struct store_request request = {.body = world->body, .type = type, .slot = FRAME_SLOT_ANY};
    request.key_len = (uint16_t)key_text(slot, key, world->body);
    request.body_bytes = request.key_len;
    request.session = 5;
    request.seq_whole = ++world->seq;
    request.seq = (uint32_t)world->seq;
    if (rng_below(&world->rng, 2) == 0) request.slot = slot->slot;
    return request;
}

/* The newest change of a key, or NULL. */
static const struct model_change *model_newest(const struct model_slot *slot, uint32_t key)
{
    for (uint64_t i = slot->count; i-- > 0;)
        if (slot->changes[i].key == key) return &slot->changes[i];
    return NULL;
}

static void model_append(struct model_slot *slot, const struct model_change *change)
{
    if (slot->count == slot->capacity) {
        slot->capacity = slot->capacity == 0 ? 1024 : slot->capacity * 2;
        slot->changes = realloc(slot->changes, slot->capacity * sizeof *slot->changes);
        assert_non_null(slot->changes);
    }
    slot->changes[slot->count++] = *change;
}

static void check_change(const struct model_slot *slot, const struct change *change,
                         const struct model_change *expected)
{
    uint8_t key[64];
    uint8_t value[VALUE_BYTES_MAX];
    size_t key_bytes = key_text(slot, expected->key, key);
    assert_int_equal(change->type, expected->type);
    assert_int_equal(change->slot, slot->slot);
    assert_int_equal(change->key_len, key_bytes);
    assert_memory_equal(change_key(change), key, key_bytes);
    assert_int_equal(change_offset(change), expected->offset);
    assert_int_equal(change_value_bytes(change), expected->value_bytes);
    value_fill(value, expected->value_bytes, expected->value_seed);
    if (expected->value_bytes > 0)
        assert_memory_equal(change_value(change), value, expected->value_bytes);
}

static void do_update(struct world *world, struct model_slot *slot, uint32_t key)
{
    struct store_request request = request_of(world, slot, key, FRAME_UPDATE);
    const struct model_change *before = model_newest(slot, key);
    struct model_change change = {.key = key, .type = FRAME_UPDATE};
    const struct change *changed;
    change.value_bytes = (uint32_t)rng_below(&world->rng, VALUE_BYTES_MAX);
    if (rng_below(&world->rng, 4) != 0) change.value_bytes %= 100;
    change.value_seed = rng_next(&world->rng);
    change.offset = before != NULL ? before->offset + 1 : 1;
    value_fill(world->body + request.key_len, change.value_bytes, change.value_seed);
    request.body_bytes += change.value_bytes;
    request.flags = VALUE_BYTES;
    store_prepare(&world->store, &request);
    enum store_result result = store_update(&world->store, &request, &changed);
    assert_int_equal(result, STORE_OK);
    /* A removed key may have been forgotten: then its offsets begin again. */
    if (before != NULL && before->type == FRAME_REMOVE && change_offset(changed) == 1)
        change.offset = 1;
    change.chain = world->store.slots[slot->slot].chain;
    model_append(slot, &change);
    assert_int_equal(change_place(changed), slot->count);
    assert_int_equal(change_seq(changed), world->seq);
    check_change(slot, changed, &change);
}

static void do_remove(struct world *world, struct model_slot *slot, uint32_t key)
{
    struct store_request request = request_of(world, slot, key, FRAME_REMOVE);
    const struct model_change *before = model_newest(slot, key);
    const struct change *changed;
    store_prepare(&world->store, &request);
    enum store_result result = store_remove(&world->store, &request, &changed);
    if (before == NULL || before->type == FRAME_REMOVE) {
        assert_int_equal(result, STORE_NO_KEY);
        return;
    }
    assert_int_equal(result, STORE_OK);
    struct model_change change = {.key = key,
                                  .type = FRAME_REMOVE,
                                  .offset = before->offset + 1,
                                  .chain = world->store.slots[slot->slot].chain};
    model_append(slot, &change);
}

static void check_get(struct world *world, struct model_slot *slot, uint32_t key)
{
    struct store_request request = request_of(world, slot, key, FRAME_GET);
    const struct model_change *expected = model_newest(slot, key);
    const struct change *found;
    store_prepare(&world->store, &request);
    enum store_result result = store_get(&world->store, &request, &found);
    if (expected == NULL || expected->type == FRAME_REMOVE) {
        assert_int_equal(result, STORE_NO_KEY);
        return;
    }
    assert_int_equal(result, STORE_OK);
    check_change(slot, found, expected);
}

static void do_truncate(struct world *world, struct model_slot *slot)
{
    uint64_t floor = store_truncate_floor(&world->store, slot->slot);
    assert_true(floor <= slot->count);
    log_seal(&world->store.log);
    if (floor > 0) assert_int_equal(store_truncate(&world->store, slot->slot, floor - 1), -ERANGE);
    uint64_t span = slot->count - floor;
    uint64_t back = rng_below(&world->rng, (span < 40 ? span : 40) + 1);
    if (rng_below(&world->rng, 10) == 0) back = span;
    uint64_t place = slot->count - back;
    assert_int_equal(store_truncate(&world->store, slot->slot, place), 0);
    slot->count = place;
    assert_int_equal(world->store.slots[slot->slot].place, place);
    uint64_t chain = place > 0 ? slot->changes[place - 1].chain : 0;
    assert_int_equal(world->store.slots[slot->slot].chain, chain);
}

/* Newest to oldest, nothing missing in the history, nothing that the model does not know. */
static void check_walk(struct world *world, struct model_slot *slot)
{
    struct slot_walk walk;
    const struct change *change;
    uint64_t floor = store_truncate_floor(&world->store, slot->slot);
    uint64_t last = slot->count + 1;
    slot_walk_begin(&walk, &world->store.log, slot->slot);
    while ((change = slot_walk_next(&walk)) != NULL) {
        uint64_t place = change_place(change);
        assert_true(place < last && place >= 1);
        if (last > floor + 1) assert_int_equal(place, last - 1);
        check_change(slot, change, &slot->changes[place - 1]);
        last = place;
    }
    assert_true(last <= floor + 1);
}

static void check_batches(struct world *world)
{
    const struct log *log = &world->store.log;
    for (uint32_t number = log->oldest; number != SEGMENT_NONE;
         number = world->segments.segments[number].next) {
        const struct segment *segment = &world->segments.segments[number];
        if (segment->compactable) continue; /* a target may be open */
        const uint8_t *base = world->segments.base + ((size_t)number << SEGMENT_UNIT_SHIFT);
        for (uint32_t at = 0; at < segment->bytes;) {
            const struct batch *batch = (const struct batch *)(base + at);
            assert_true(batch_is_valid(batch, segment->bytes - at));
            at += batch->length;
        }
    }
}

static void check_all(struct world *world)
{
    log_seal(&world->store.log);
    store_check(&world->store);
    check_batches(world);
    for (unsigned i = 0; i < SLOTS; i++) {
        check_walk(world, &world->slots[i]);
        for (uint32_t key = 0; key < KEYS_PER_SLOT; key++) check_get(world, &world->slots[i], key);
    }
}

static void run_world(uint64_t seed, unsigned steps, size_t history)
{
    static struct world world;
    world_open(&world, seed, 64 << 20, history);
    for (unsigned step = 0; step < steps; step++) {
        struct model_slot *slot = &world.slots[rng_below(&world.rng, SLOTS)];
        uint32_t key = (uint32_t)rng_below(&world.rng, KEYS_PER_SLOT);
        uint64_t dice = rng_below(&world.rng, 1000);
        if (dice < 850)
            do_update(&world, slot, key);
        else if (dice < 900)
            do_remove(&world, slot, key);
        else if (dice < 950)
            check_get(&world, slot, key);
        else if (dice < 955)
            do_truncate(&world, slot);
        else if (dice < 958)
            check_walk(&world, slot);
        else {
            log_seal(&world.store.log);
            store_compact(&world.store, rng_below(&world.rng, 400000));
        }
        if (step % 20000 == 19999) check_all(&world);
    }
    check_all(&world);
    world_close(&world);
}

static void state_is_the_fold_of_the_log_whatever_is_truncated_and_compacted(void **state)
{
    (void)state;
    const char *seeds = getenv("FERO_SEEDS");
    unsigned count = seeds != NULL ? (unsigned)strtoul(seeds, NULL, 10) : 6;
    for (unsigned seed = 1; seed <= count; seed++) {
        printf("seed %u\n", seed);
        run_world(seed, 60000, seed % 2 == 0 ? 1 : (size_t)(seed % 5) << 21);
    }
}

static void memory_stays_bounded_while_a_few_keys_are_overwritten_for_ever(void **state)
{
    (void)state;
    static struct world world;
    world_open(&world, 3, 40 << 20, 4 << 20);
    for (unsigned step = 0; step < 200000; step++) {
        do_update(&world, &world.slots[step % SLOTS], step % 50);
        /* The model keeps everything; the log must not. */
        if (step % 16 == 0) {
            log_seal(&world.store.log);
            store_compact(&world.store, 200000);
        }
    }
    assert_true(segments_bytes(&world.segments) <= 40u << 20);
    world_close(&world);
}

static void a_full_memory_refuses_updates_and_lets_removals_through(void **state)
{
    (void)state;
    static struct world world;
    world_open(&world, 4, 20 << 20, 1 << 20);
    const struct change *changed;
    enum store_result result = STORE_OK;
    uint32_t key = 0;
    while (result == STORE_OK) {
        struct store_request request = request_of(&world, &world.slots[0], key, FRAME_UPDATE);
        request.body_bytes += 2000;
        request.flags = VALUE_BYTES;
        store_prepare(&world.store, &request);
        result = store_update(&world.store, &request, &changed);
        if (result == STORE_OK) key++;
    }
    assert_int_equal(result, STORE_NO_MEMORY);
    assert_int_equal(store_keys_count(&world.store), key);
    log_seal(&world.store.log);
    store_check(&world.store);
    for (uint32_t i = 0; i < key; i += 2) {
        struct store_request request = request_of(&world, &world.slots[0], i, FRAME_REMOVE);
        store_prepare(&world.store, &request);
        assert_int_equal(store_remove(&world.store, &request, &changed), STORE_OK);
    }
    assert_int_equal(store_keys_count(&world.store), key / 2);
    /* What was removed can be used again once compaction has passed. */
    log_seal(&world.store.log);
    while (store_compact(&world.store, 1 << 20) > 0) {
    }
    struct store_request request = request_of(&world, &world.slots[0], key + 1, FRAME_UPDATE);
    request.body_bytes += 2000;
    request.flags = VALUE_BYTES;
    store_prepare(&world.store, &request);
    assert_int_equal(store_update(&world.store, &request, &changed), STORE_OK);
    log_seal(&world.store.log);
    store_check(&world.store);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_is_the_fold_of_the_log_whatever_is_truncated_and_compacted),
        cmocka_unit_test(memory_stays_bounded_while_a_few_keys_are_overwritten_for_ever),
        cmocka_unit_test(a_full_memory_refuses_updates_and_lets_removals_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
