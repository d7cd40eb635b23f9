/*
 * Partitions with trees against a model that is slow and obvious: the list of all changes of each
 * slot, whose fold in jansson's values is the state. Every request is made of both, and must be taken
 * or refused by both; what a get answers is compared with the model, while the log is compacted at
 * random points and slots are truncated to random places.
 *
 *   FERO_SEEDS=500            more seeds than by default
 *   FERO_SEED=17              only this one
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <cmocka.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/rng.h"
#include "ring/slot.h"
#include "shard/deep.h"
#include "tests/support/json_tree.h"

#define SEEDS_COUNT 30
#define STEPS 10000
#define CHECK_EVERY 200
#define HASH_SEED 77
#define SLOTS 3
#define PARTITIONS 4
#define PARTS_MAX 5
#define CHANGES_MAX 20000
#define BODY_BYTES_MAX (1 << 20)
/* Flat values beside the partitions fill the log, so that its segments come and go. */
#define FILLER PARTITIONS
#define FILLER_BYTES_MAX 60000

/* One change of the model: at a path, a value or its removal. */
struct model_change {
    unsigned partition;
    unsigned count;
    char *parts[PARTS_MAX + 1];
    json_t *value; /* NULL: a removal */
    bool in_array;
};

struct model_slot {
    uint16_t slot;
    struct model_change *changes; /* by place - 1 */
    size_t count;
    json_t *state[PARTITIONS + 1]; /* NULL: no value */
};

struct world {
    struct segments segments;
    struct store store;
    struct rng rng;
    uint64_t hlc;
    uint64_t seq;
    struct model_slot slots[SLOTS];
    size_t value_bytes_max;
    uint8_t body[BODY_BYTES_MAX + 8];
    uint64_t refused;
};

static struct world world;
static char current[96];

/* ---------------------------------------------------------------------------------- the model */

static void apply_change(struct model_slot *slot, const struct model_change *change)
{
    json_t **state = &slot->state[change->partition];
    if (change->value != NULL)
        json_tree_set(state, change->parts, change->count, change->value, change->in_array);
    else
        json_tree_remove(state, change->parts, change->count);
}

static void forget_change(struct model_change *change)
{
    for (unsigned i = 0; i < change->count; i++) free(change->parts[i]);
    json_decref(change->value);
}

static void fold(struct model_slot *slot, size_t place)
{
    for (unsigned i = 0; i <= FILLER; i++) {
        json_decref(slot->state[i]);
        slot->state[i] = NULL;
    }
    while (slot->count > place) forget_change(&slot->changes[--slot->count]);
    for (size_t i = 0; i < slot->count; i++) apply_change(slot, &slot->changes[i]);
}

static void record(struct model_slot *slot, unsigned partition, char *const *parts, unsigned count,
                   json_t *value, bool in_array)
{
    assert_true(slot->count < CHANGES_MAX);
    struct model_change *change = &slot->changes[slot->count++];
    *change = (struct model_change){
        .partition = partition, .count = count, .value = value, .in_array = in_array};
    for (unsigned i = 0; i < count; i++) change->parts[i] = strdup(parts[i]);
    apply_change(slot, change);
}

/* ------------------------------------------------------------------------- keys and requests */

static const char *const names[] = {
    "a", "b", "0", "1", "2", "d.o\\t", "a name of more than ten", "\xc3\xa4"};

static size_t write_key(uint8_t *to, unsigned slot, unsigned partition, char *const *parts,
                        unsigned count)
{
    size_t bytes =
        (size_t)snprintf((char *)to, 64, "{s%u}%s%u", slot,
                         partition == 3 ? "a partition with a long name" : "p", partition);
    for (unsigned i = 0; i < count; i++) {
        to[bytes++] = '.';
        bytes += path_escape(to + bytes, parts[i], strlen(parts[i]));
    }
    return bytes;
}

static unsigned draw_parts(char **parts, const json_t *state, unsigned count_min)
{
    struct rng *rng = &world.rng;
    unsigned count = count_min + (unsigned)rng_below(rng, PARTS_MAX - count_min);
    json_t *at = (json_t *)(uintptr_t)state;
    for (unsigned i = 0; i < count; i++) {
        parts[i] = (char *)(uintptr_t)names[rng_below(rng, ARRAY_COUNT(names))];
        /* Often, something that is there. */
        if (json_is_object(at) && json_object_size(at) > 0 && rng_below(rng, 4) != 0) {
            size_t skip = rng_below(rng, json_object_size(at));
            void *iter = json_object_iter(at);
            while (skip-- > 0) iter = json_object_iter_next(at, iter);
            parts[i] = (char *)(uintptr_t)json_object_iter_key(iter);
        }
        at = at != NULL ? json_tree_child(at, parts[i]) : NULL;
        /* And rarely deeper than something simple. */
        if (at != NULL && !json_is_object(at) && !json_is_array(at) && rng_below(rng, 8) != 0)
            return i + 1;
    }
    return count;
}

static json_t *draw_value(unsigned depth)
{
    struct rng *rng = &world.rng;
    char text[4096];
    json_t *value;
    switch (rng_below(rng, depth > 0 ? 9 : 6)) {
    case 0: return json_integer((json_int_t)(rng_next(rng) >> 8) - (1ll << 54));
    case 1: return json_boolean(rng_below(rng, 2));
    case 2: return json_null();
    case 3: return json_real((double)rng_below(rng, 1000) / 8 + 0.5);
    case 4:
    case 5: {
        size_t bytes = rng_below(rng, world.value_bytes_max);
        for (size_t i = 0; i < bytes; i++) text[i] = (char)(' ' + rng_below(rng, 90));
        return json_stringn(text, bytes);
    }
    case 6:
        value = json_array();
        for (size_t i = rng_below(rng, 4); i > 0; i--)
            json_array_append_new(value, draw_value(depth - 1));
        return value;
    default:
        value = json_object();
        for (size_t i = rng_below(rng, 5); i > 0; i--)
            json_object_set_new(value, names[rng_below(rng, ARRAY_COUNT(names))],
                                draw_value(depth - 1));
        return value;
    }
}

/* Writes the value as a request has it; containers sometimes with space in them. */
static size_t write_value(uint8_t *to, const json_t *value, uint8_t *type)
{
    double number;
    json_int_t whole;
    *type = VALUE_JSON;
    if (json_is_integer(value)) {
        whole = json_integer_value(value);
        memcpy(to, &whole, 8);
        *type = VALUE_INT64;
        return 8;
    }
    if (json_is_real(value)) {
        number = json_real_value(value);
        memcpy(to, &number, 8);
        *type = VALUE_DOUBLE;
        return 8;
    }
    if (json_is_string(value) && rng_below(&world.rng, 2) == 0) {
        *type = VALUE_STRING;
        memcpy(to, json_string_value(value), json_string_length(value));
        return json_string_length(value);
    }
    size_t flags =
        JSON_ENCODE_ANY | (rng_below(&world.rng, 2) == 0 ? JSON_COMPACT : JSON_INDENT(1));
    if (rng_below(&world.rng, 4) == 0) flags |= JSON_ENSURE_ASCII;
    size_t bytes = json_dumpb(value, (char *)to, BODY_BYTES_MAX - 512, flags);
    assert_in_range(bytes, 1, BODY_BYTES_MAX - 512);
    return bytes;
}

static struct store_request ask(uint8_t type, size_t key_bytes, size_t body_bytes, uint8_t value)
{
    struct store_request request = {.body = world.body,
                                    .body_bytes = (uint32_t)body_bytes,
                                    .key_len = (uint16_t)key_bytes,
                                    .slot = FRAME_SLOT_ANY,
                                    .type = type,
                                    .flags = value,
                                    .seq = (uint32_t)++world.seq,
                                    .seq_whole = world.seq,
                                    .session = 5};
    store_prepare(&world.store, &request);
    return request;
}

/* A refusal for want of memory is no difference from the model. */
static bool is_memory(enum store_result result)
{
    if (result != STORE_NO_MEMORY) return false;
    world.refused++;
    return true;
}

/* The change that was made must be this one. */
static void check_changed(const struct change *change, const struct model_slot *slot,
                          const uint8_t *key, size_t key_bytes)
{
    assert_int_equal(change_place(change), slot->count);
    assert_int_equal(change->key_len, key_bytes);
    assert_memory_equal(change_key(change), key, key_bytes);
    assert_int_equal(change_seq(change), world.seq);
}

static void do_update(unsigned s, unsigned p)
{
    struct model_slot *slot = &world.slots[s];
    char *parts[PARTS_MAX];
    const struct change *change = NULL;
    uint8_t type;
    bool is_whole = rng_below(&world.rng, 12) == 0;
    unsigned count = is_whole ? 0 : draw_parts(parts, slot->state[p], 1);
    json_t *value = draw_value(is_whole ? 3 : 2);
    size_t key = write_key(world.body, s, p, parts, count);
    size_t bytes = key + write_value(world.body + key, value, &type);
    struct store_request request = ask(FRAME_UPDATE, key, bytes, type);
    bool may = json_tree_may_put(slot->state[p], parts, count, true);
    enum store_result result = store_update(&world.store, &request, &change);
    if (result == STORE_DEEP) result = deep_update(&world.store, &request, &change);
    if (is_memory(result)) {
        json_decref(value);
        return;
    }
    assert_int_equal(result, may ? STORE_OK : STORE_REFUSED);
    if (!may) {
        json_decref(value);
        return;
    }
    record(slot, p, parts, count, value, false);
    check_changed(change, slot, world.body, key);
}

static void do_fill(unsigned s)
{
    struct model_slot *slot = &world.slots[s];
    const struct change *change = NULL;
    size_t key = (size_t)snprintf((char *)world.body, 32, "{s%u}filler", s);
    size_t bytes = key + rng_below(&world.rng, FILLER_BYTES_MAX);
    struct store_request request = ask(FRAME_UPDATE, key, bytes, VALUE_BYTES);
    enum store_result result = store_update(&world.store, &request, &change);
    if (is_memory(result)) return;
    assert_int_equal(result, STORE_OK);
    record(slot, FILLER, NULL, 0, json_null(), false);
    check_changed(change, slot, world.body, key);
}

static void do_remove(unsigned s, unsigned p)
{
    struct model_slot *slot = &world.slots[s];
    char *parts[PARTS_MAX];
    const struct change *change = NULL;
    unsigned count = rng_below(&world.rng, 16) == 0 ? 0 : draw_parts(parts, slot->state[p], 1);
    size_t key = write_key(world.body, s, p, parts, count);
    struct store_request request = ask(FRAME_REMOVE, key, key, VALUE_UNDEFINED);
    bool is_there = json_tree_find(slot->state[p], parts, count) != NULL;
    enum store_result result = store_remove(&world.store, &request, &change);
    if (result == STORE_DEEP) result = deep_remove(&world.store, &request, &change);
    if (is_memory(result)) return;
    assert_int_equal(result, is_there ? STORE_OK : STORE_NO_KEY);
    if (!is_there) return;
    record(slot, p, parts, count, NULL, false);
    check_changed(change, slot, world.body, key);
}

/* push and add: the last part of the path is the owner's. */
static void do_next(unsigned s, unsigned p, bool is_push)
{
    struct model_slot *slot = &world.slots[s];
    char *parts[PARTS_MAX + 1];
    char number[24];
    const struct change *change = NULL;
    uint8_t type;
    unsigned count = draw_parts(parts, slot->state[p], 0);
    json_t *value = draw_value(2);
    size_t key = write_key(world.body, s, p, parts, count);
    size_t bytes = key + write_value(world.body + key, value, &type);
    json_t *target = json_tree_find(slot->state[p], parts, count);
    bool may = json_tree_may_put(slot->state[p], parts, count, false) &&
               (target == NULL || (is_push ? json_is_array(target) : json_is_object(target)));
    struct store_request request = ask(is_push ? FRAME_PUSH : FRAME_ADD, key, bytes, type);
    enum store_result result = is_push ? deep_push(&world.store, &request, &change)
                                       : deep_add(&world.store, &request, &change);
    if (is_memory(result) || !may) {
        if (!is_memory(result)) assert_int_equal(result, STORE_REFUSED);
        json_decref(value);
        return;
    }
    assert_int_equal(result, STORE_OK);
    uint64_t id = deep_id_of(change);
    snprintf(number, sizeof number, "%llu", (unsigned long long)id);
    if (is_push) assert_int_equal(id, target == NULL ? 0 : json_array_size(target));
    if (!is_push)
        assert_true(id > 0 && (target == NULL || json_tree_child(target, number) == NULL));
    parts[count] = number;
    uint8_t expected[1024];
    size_t expected_bytes = write_key(expected, s, p, parts, count + 1);
    record(slot, p, parts, count + 1, value, is_push);
    check_changed(change, slot, expected, expected_bytes);
}

static void do_patch(unsigned s, unsigned p)
{
    struct model_slot *slot = &world.slots[s];
    char *parts[PARTS_MAX + 1];
    const struct change *change = NULL;
    const char *name;
    json_t *field;
    unsigned count = draw_parts(parts, slot->state[p], 0);
    json_t *fields = json_object();
    for (uint64_t i = rng_below(&world.rng, 4); i > 0; i--)
        json_object_set_new(fields, names[rng_below(&world.rng, ARRAY_COUNT(names))],
                            draw_value(1));
    size_t key = write_key(world.body, s, p, parts, count);
    size_t bytes = key + json_dumpb(fields, (char *)world.body + key, BODY_BYTES_MAX - 512, 0);
    json_t *target = json_tree_find(slot->state[p], parts, count);
    bool may = json_tree_may_put(slot->state[p], parts, count, false) &&
               (target == NULL || json_is_object(target));
    struct store_request request = ask(FRAME_PATCH, key, bytes, VALUE_JSON);
    enum store_result result = deep_patch(&world.store, &request, &change);
    if (!is_memory(result)) assert_int_equal(result, may ? STORE_OK : STORE_REFUSED);
    if (result == STORE_OK) {
        json_object_foreach(fields, name, field)
        {
            parts[count] = (char *)(uintptr_t)name;
            record(slot, p, parts, count + 1, json_incref(field), false);
        }
        if (json_object_size(fields) > 0) assert_int_equal(change_place(change), slot->count);
    }
    json_decref(fields);
}

/* ------------------------------------------------------------------------------- comparing */

/* What a get answers, as jansson reads it; NULL: there is no such key. */
static json_t *get(const uint8_t *key, size_t key_bytes)
{
    static uint8_t bytes[1 << 22];
    struct deep_value value;
    const struct change *found = NULL;
    memcpy(world.body, key, key_bytes);
    struct store_request request = ask(FRAME_GET, key_bytes, key_bytes, VALUE_UNDEFINED);
    enum store_result result = store_get(&world.store, &request, &found);
    if (result == STORE_NO_KEY) return NULL;
    struct jsontext_out out = {.to = bytes};
    if (result == STORE_OK) {
        jsontext_put_value(&out, change_value_type(found), change_value(found),
                           change_value_bytes(found));
    } else {
        static uint8_t copy[sizeof bytes];
        assert_int_equal(result, STORE_DEEP);
        result = deep_get(&world.store, &request, &value);
        if (result == STORE_NO_KEY) return NULL;
        assert_int_equal(result, STORE_OK);
        assert_true(value.bytes <= sizeof copy);
        deep_value_copy(&world.store, &value, copy);
        jsontext_put_value(&out, value.type, copy, value.bytes);
    }
    json_error_t error;
    json_t *json = json_loadb((char *)bytes, out.bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    assert_non_null(json);
    assert_true(jsontext_is_valid(bytes, out.bytes));
    return json;
}

static void check_value(const uint8_t *key, size_t key_bytes, const json_t *expected)
{
    json_t *found = get(key, key_bytes);
    if (expected == NULL) {
        assert_null(found);
        return;
    }
    json_t *wanted = json_tree_without_holes(expected);
    if (found == NULL || !json_equal(found, wanted)) {
        char *left = found != NULL ? json_dumps(found, JSON_ENCODE_ANY) : strdup("nothing");
        char *right = json_dumps(wanted, JSON_ENCODE_ANY);
        print_error("%.*s is %s, not %s\n", (int)key_bytes, (const char *)key, left, right);
        fail();
    }
    json_decref(wanted);
    json_decref(found);
}

static void check_some_key(unsigned s, unsigned p)
{
    char *parts[PARTS_MAX];
    uint8_t key[1024];
    struct model_slot *slot = &world.slots[s];
    unsigned count = draw_parts(parts, slot->state[p], 0);
    size_t bytes = write_key(key, s, p, parts, count);
    check_value(key, bytes, json_tree_find(slot->state[p], parts, count));
}

static void count_one(void *context, uint64_t address)
{
    (void)address;
    ++*(uint64_t *)context;
}

static void count_of_tree(void *context, uint64_t root_address)
{
    tree_records(&world.store.forest, (uint32_t)(root_address >> CELL_SHIFT), count_one, context);
}

/* A record of the log is superseded, or something stands on it: nothing in between. */
static void check_live_records(void)
{
    uint64_t stands = 0;
    uint64_t live = 0;
    table_each(&world.store.table, count_one, &stands);
    table_each_tree(&world.store.table, count_of_tree, &stands);
    for (unsigned s = 0; s < SLOTS; s++) {
        struct slot_walk walk;
        const struct change *change;
        slot_walk_begin(&walk, &world.store.log, world.slots[s].slot);
        while ((change = slot_walk_next(&walk)) != NULL)
            live += !index_is_superseded(
                *index_word(&world.segments, address_of(&world.segments, change)));
    }
    assert_int_equal(stands, live);
}

/* ------------------------------------------------------------------- the fold of what is live */

/* Which partition a key is of. */
static unsigned partition_of_key(unsigned s, const uint8_t *key, size_t bytes)
{
    uint8_t name[1024];
    bytes = path_partition_bytes(key, bytes);
    for (unsigned p = 0; p < PARTITIONS; p++)
        if (write_key(name, s, p, NULL, 0) == bytes && memcmp(name, key, bytes) == 0) return p;
    return FILLER;
}

static void apply_record(json_t **state, const struct change *change)
{
    json_t *value = NULL;
    if (change->type != FRAME_REMOVE && change_value_type(change) == VALUE_BYTES)
        value = json_null(); /* a filler's */
    else if (change->type != FRAME_REMOVE)
        value = json_tree_value(change_value_type(change), change_value(change),
                                change_value_bytes(change));
    json_tree_apply(state, change_key(change), change->key_len, change->flags, value);
    json_decref(value);
}

/* The live records of each partition, in their order, add up to what it is. */
static void check_fold_of_live_records(unsigned s)
{
    static const struct change *live[CHANGES_MAX];
    json_t *state[PARTITIONS + 1] = {NULL};
    size_t count = 0;
    struct slot_walk walk;
    const struct change *change;
    slot_walk_begin(&walk, &world.store.log, world.slots[s].slot);
    while ((change = slot_walk_next(&walk)) != NULL)
        if (!index_is_superseded(*index_word(&world.segments, address_of(&world.segments, change))))
            live[count++] = change;
    while (count-- > 0) {
        change = live[count];
        apply_record(&state[partition_of_key(s, change_key(change), change->key_len)], change);
    }
    for (unsigned p = 0; p < PARTITIONS; p++) {
        const json_t *expected = world.slots[s].state[p];
        json_t *left = state[p] != NULL ? json_tree_without_holes(state[p]) : NULL;
        json_t *right = expected != NULL ? json_tree_without_holes(expected) : NULL;
        assert_true(left == NULL ? right == NULL : json_equal(left, right));
        json_decref(left);
        json_decref(right);
        json_decref(state[p]);
    }
    json_decref(state[FILLER]);
}

static void check_everything(void)
{
    uint8_t key[1024];
    log_seal(&world.store.log);
    store_check(&world.store);
    check_live_records();
    for (unsigned s = 0; s < SLOTS; s++) check_fold_of_live_records(s);
    for (unsigned s = 0; s < SLOTS; s++) {
        assert_int_equal(world.store.slots[world.slots[s].slot].place, world.slots[s].count);
        for (unsigned p = 0; p < PARTITIONS; p++)
            check_value(key, write_key(key, s, p, NULL, 0), world.slots[s].state[p]);
    }
}

/* ------------------------------------------------------------------------------------- lives */

static void do_truncate(unsigned s)
{
    struct model_slot *slot = &world.slots[s];
    log_seal(&world.store.log);
    uint64_t floor = store_truncate_floor(&world.store, slot->slot);
    uint64_t span = slot->count - floor;
    uint64_t back = rng_below(&world.rng, min_u64(span, 30) + 1);
    if (rng_below(&world.rng, 4) == 0) back = rng_below(&world.rng, span + 1);
    if (rng_below(&world.rng, 8) == 0) back = span;
    int err = store_truncate(&world.store, slot->slot, slot->count - back);
    if (err != 0) {
        /* Trees take memory again; where it is full nothing changes. */
        assert_int_equal(err, -ENOMEM);
        world.refused++;
        return;
    }
    fold(slot, slot->count - back);
}

static void do_compact(size_t bytes_max)
{
    log_seal(&world.store.log);
    store_compact(&world.store, bytes_max);
}

static void step(void)
{
    struct rng *rng = &world.rng;
    unsigned s = (unsigned)rng_below(rng, SLOTS);
    unsigned p = (unsigned)rng_below(rng, PARTITIONS);
    uint64_t dice = rng_below(rng, 100);
    if (dice < 15)
        do_fill(s);
    else if (dice < 45)
        do_update(s, p);
    else if (dice < 60)
        do_remove(s, p);
    else if (dice < 68)
        do_next(s, p, true);
    else if (dice < 74)
        do_next(s, p, false);
    else if (dice < 80)
        do_patch(s, p);
    else if (dice < 92)
        check_some_key(s, p);
    else if (dice < 98)
        do_compact(1 + rng_below(rng, dice < 96 ? 3000 : 1000000));
    else if (dice < 99)
        do_truncate(s);
    else
        log_seal(&world.store.log);
}

static void world_open(uint64_t seed)
{
    static const size_t histories[] = {0, 1, 1, 4 * MIB, 20 * MIB};
    static const size_t records[] = {0, 0, 50, 1000};
    static const size_t garbages[] = {0, 1, 1 * MIB};
    static const size_t values[] = {4, 40, 2500, 3500};
    memset(&world, 0, sizeof world);
    rng_init(&world.rng, seed);
    world.value_bytes_max = values[rng_below(&world.rng, ARRAY_COUNT(values))];
    assert_int_equal(segments_init(&world.segments, 24 * MIB), 0);
    struct store_options options = {
        .log = {.history_bytes_max = histories[rng_below(&world.rng, ARRAY_COUNT(histories))],
                .history_records_max = records[rng_below(&world.rng, ARRAY_COUNT(records))],
                .owner = 1,
                .view = 1},
        .entries_max = 1000,
        .hash_seed = HASH_SEED,
        .garbage_bytes_max = garbages[rng_below(&world.rng, ARRAY_COUNT(garbages))]};
    assert_int_equal(store_init(&world.store, &world.segments, &world.hlc, &options), 0);
    for (unsigned s = 0; s < SLOTS; s++) {
        char tag[8];
        snprintf(tag, sizeof tag, "s%u", s);
        world.slots[s].slot = slot_of_key(tag, strlen(tag));
        world.slots[s].changes = calloc(CHANGES_MAX, sizeof *world.slots[s].changes);
    }
}

static void world_close(void)
{
    for (unsigned s = 0; s < SLOTS; s++) {
        fold(&world.slots[s], 0);
        free(world.slots[s].changes);
    }
    store_deinit(&world.store);
    assert_int_equal(world.segments.units_used, 0);
    segments_deinit(&world.segments);
}

static void live_one_world(uint64_t seed)
{
    world_open(seed);
    for (unsigned i = 1; i <= STEPS; i++) {
        snprintf(current, sizeof current, "seed %llu, step %u", (unsigned long long)seed, i);
        step();
        if (i % CHECK_EVERY == 0) check_everything();
    }
    check_everything();
    world_close();
}

static int report(void **state)
{
    (void)state;
    if (current[0] != 0) print_error("failed at %s: run it again with FERO_SEED\n", current);
    assert_context_set(NULL);
    current[0] = 0;
    return 0;
}

static void trees_are_the_fold_of_the_log_whatever_is_truncated_and_compacted(void **state)
{
    (void)state;
    const char *only = getenv("FERO_SEED");
    const char *more = getenv("FERO_SEEDS");
    uint64_t first = only != NULL ? strtoull(only, NULL, 10) : 1;
    uint64_t count = only != NULL ? 1 : more != NULL ? strtoull(more, NULL, 10) : SEEDS_COUNT;
    assert_context_set(current);
    for (uint64_t seed = first; seed < first + count; seed++) live_one_world(seed);
    current[0] = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(trees_are_the_fold_of_the_log_whatever_is_truncated_and_compacted,
                                  report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
