#include "tests/support/store_world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "log/batch.h"
#include "ring/slot.h"
#include "shard/compact.h"
#include "shard/peek.h"

#define HASH_SEED 99
#define OWNER 7
#define VIEW 3
/* Steps after which a compaction that still finds work is said to never end. */
#define COMPACTIONS_MAX 100000
/* Refusals after which an update must succeed, with a compaction after each. */
#define RELIEF_TRIES_MAX 4
/* What a step may look at beyond its bound, and the largest record. */
#define STEP_SLACK_BYTES (64 * KIB)

/* ---------------------------------------------------------------------------- open, close */

void world_open(struct world *world, const struct world_options *options)
{
    memset(world, 0, sizeof *world);
    assert_true(options->keys_per_slot <= WORLD_KEYS_MAX);
    world->options = *options;
    world->seq = options->request_seq_first;
    rng_init(&world->rng, options->seed);
    assert_int_equal(segments_init(&world->segments, options->memory_bytes), 0);
    struct store_options store_options = {
        .log = {.history_bytes_max = options->history_bytes,
                .history_records_max = options->history_records,
                .owner = OWNER,
                .view = VIEW},
        .entries_max = 100000,
        .hash_seed = HASH_SEED,
        .garbage_bytes_max = options->garbage_bytes,
        .lent_bytes_max = options->lent_bytes,
    };
    assert_int_equal(store_init(&world->store, &world->segments, &world->hlc, &store_options), 0);
    /* Before the first append: as if so many segments had come and gone. */
    world->store.log.active_seq = options->segment_seq_first;
    assert_int_equal(sessions_init(&world->sessions, 1 << 20, HASH_SEED), 0);
    const struct session_claim claim = {.id = WORLD_SESSION};
    world->session = sessions_attach(&world->sessions, &claim);
    assert_non_null(world->session);
    for (unsigned i = 0; i < WORLD_SLOTS; i++) {
        struct model_slot *slot = &world->slots[i];
        snprintf(slot->tag, sizeof slot->tag, "{s%u}", i);
        slot->slot = slot_of_key(slot->tag, strlen(slot->tag));
    }
    uint64_t values_max = max_u64(options->value_bytes_max, options->large_bytes_max);
    world->body_bytes_max = WORLD_KEY_BYTES_MAX + values_max + 8;
    for (unsigned i = 0; i < WORLD_RUN_MAX; i++) {
        world->bodies[i] = calloc(1, world->body_bytes_max);
        assert_non_null(world->bodies[i]);
    }
    world->scratch = calloc(1, world->body_bytes_max);
    assert_non_null(world->scratch);
}

void world_close(struct world *world)
{
    store_deinit(&world->store);
    assert_int_equal(world->segments.units_used, 0);
    segments_deinit(&world->segments);
    sessions_detach(&world->sessions, world->session);
    sessions_deinit(&world->sessions);
    for (unsigned i = 0; i < WORLD_SLOTS; i++) free(world->slots[i].changes);
    for (unsigned i = 0; i < WORLD_RUN_MAX; i++) free(world->bodies[i]);
    free(world->scratch);
}

/* ---------------------------------------------------------------------------- the model */

static const struct model_change *model_at(const struct model_slot *slot, uint64_t place)
{
    return place > 0 ? &slot->changes[place - 1] : NULL;
}

/* The newest change of a key, or NULL. */
static const struct model_change *model_newest(const struct model_slot *slot, uint32_t key)
{
    return model_at(slot, slot->newest[key]);
}

static bool model_has(const struct model_slot *slot, uint32_t key)
{
    const struct model_change *newest = model_newest(slot, key);
    return newest != NULL && newest->type == FRAME_UPDATE;
}

static void model_append(struct world *world, struct model_slot *slot, struct model_change *change)
{
    if (slot->count == slot->capacity) {
        slot->capacity = slot->capacity == 0 ? 1024 : slot->capacity * 2;
        slot->changes = realloc(slot->changes, slot->capacity * sizeof *slot->changes);
        assert_non_null(slot->changes);
    }
    world->keys_count -= model_has(slot, change->key);
    change->before = slot->newest[change->key];
    slot->changes[slot->count++] = *change;
    slot->newest[change->key] = slot->count;
    world->keys_count += model_has(slot, change->key);
}

static void model_truncate(struct world *world, struct model_slot *slot, uint64_t place)
{
    while (slot->count > place) {
        const struct model_change *last = &slot->changes[slot->count - 1];
        world->keys_count -= model_has(slot, last->key);
        slot->newest[last->key] = last->before;
        slot->count--;
        world->keys_count += model_has(slot, last->key);
    }
}

/* `text` has room for WORLD_KEY_BYTES_MAX. Keys have 8 bytes, which is a case of its own, or more. */
static size_t key_text(const struct model_slot *slot, uint32_t key, uint8_t *text)
{
    if (key % 3 == 0)
        return (size_t)snprintf((char *)text, WORLD_KEY_BYTES_MAX, "%s%04u", slot->tag, key);
    return (size_t)snprintf((char *)text, WORLD_KEY_BYTES_MAX, "%skey-%u%.*s", slot->tag, key,
                            (int)(key % 7), "abcdefg");
}

static void value_fill(uint8_t *to, size_t bytes, uint64_t seed)
{
    for (size_t i = 0; i < bytes; i++) to[i] = (uint8_t)(seed + i * 31 + (i >> 8));
}

static size_t record_bytes(const struct model_slot *slot, const struct model_change *change)
{
    uint8_t key[WORLD_KEY_BYTES_MAX];
    return round_up_8(CHANGE_BYTES + key_text(slot, change->key, key) + change->value_bytes);
}

/* ---------------------------------------------------------------------------- what is compared */

/* `place` is the change's place in the model. */
static void check_change(const struct world *world, const struct model_slot *slot,
                         const struct change *change, uint64_t place)
{
    uint8_t key[WORLD_KEY_BYTES_MAX];
    const struct model_change *expected = model_at(slot, place);
    size_t key_bytes = key_text(slot, expected->key, key);
    assert_int_equal(change_place(change), place);
    assert_int_equal(change->type, expected->type);
    assert_int_equal(change->slot, slot->slot);
    assert_int_equal(change->cache, 0);
    assert_int_equal(change->session, WORLD_SESSION);
    assert_int_equal(change_seq(change), expected->seq);
    assert_int_equal(change->hlc, expected->hlc);
    assert_int_equal(change_offset(change), expected->offset);
    assert_int_equal(change_value_type(change), expected->value_type);
    assert_int_equal(change->key_len, key_bytes);
    assert_memory_equal(change_key(change), key, key_bytes);
    assert_int_equal(change->key_hash, hash_key(key, key_bytes, HASH_SEED));
    assert_int_equal(change_value_bytes(change), expected->value_bytes);
    if (expected->value_bytes > 0) {
        value_fill(world->scratch, expected->value_bytes, expected->value_seed);
        assert_memory_equal(change_value(change), world->scratch, expected->value_bytes);
    }
    const uint8_t *end = (const uint8_t *)change + change->length;
    for (size_t i = change->length; i < change_padded_bytes(change); i++)
        assert_int_equal(*end++, 0);
}

static void check_head(const struct world *world, const struct model_slot *slot)
{
    const struct store_slot *head = &world->store.slots[slot->slot];
    const struct model_change *last = model_at(slot, slot->count);
    assert_int_equal(head->place, slot->count);
    assert_int_equal(head->chain, last != NULL ? last->chain : 0);
    assert_int_equal(store_keys_count(&world->store), world->keys_count);
}

/* ---------------------------------------------------------------------------- one request */

struct asked {
    struct store_request request;
    struct model_slot *slot;
    uint32_t key;
    uint64_t value_seed;
};

static struct asked ask(struct world *world, uint8_t *body, unsigned slot, uint32_t key,
                        uint8_t type, uint32_t value_bytes)
{
    struct asked asked = {.slot = &world->slots[slot], .key = key};
    struct store_request *request = &asked.request;
    *request = (struct store_request){.body = body, .type = type, .slot = FRAME_SLOT_ANY};
    request->key_len = (uint16_t)key_text(asked.slot, key, body);
    request->body_bytes = request->key_len + value_bytes;
    assert_true(request->body_bytes + 8 <= world->body_bytes_max);
    request->session = WORLD_SESSION;
    request->seq_whole = ++world->seq;
    request->seq = (uint32_t)world->seq;
    asked.value_seed = rng_next(&world->rng);
    if (type == FRAME_UPDATE) request->flags = (uint8_t)rng_below(&world->rng, VALUE_TYPES_COUNT);
    value_fill(body + request->key_len, value_bytes, asked.value_seed);
    if (!value_text_is_valid(request->flags, body + request->key_len, value_bytes))
        request->flags = VALUE_BYTES;
    /* What follows the body is whatever the sender's next bytes are. */
    memset(body + request->body_bytes, 0xa5, 7);
    uint64_t dice = rng_below(&world->rng, 100);
    if (dice < 50) request->slot = asked.slot->slot;
    if (dice == 99) request->slot = (asked.slot->slot + 1) & (SEGMENT_SLOTS - 1);
    return asked;
}

static bool is_wrong_slot(const struct asked *asked)
{
    return asked->request.slot != FRAME_SLOT_ANY && asked->request.slot != asked->slot->slot;
}

/* Whether a request for one more segment of this size has reason to be refused. */
static bool is_memory_short(const struct world *world, size_t padded, bool urgent)
{
    const struct segments *segments = &world->segments;
    size_t bytes = padded + LOG_SLACK_BYTES + BATCH_BYTES;
    uint64_t units = (bytes + SEGMENT_UNIT_BYTES - 1) / SEGMENT_UNIT_BYTES;
    uint64_t reserve = urgent ? SEGMENT_COMPACTION_UNITS : segments->units_reserve;
    /* Units may be free and not neighbours. */
    return units > 1 || segments->units_used + units + reserve > segments->units_max;
}

/* The offset that the change must have: a removed key that left the history may begin again. */
static uint64_t expected_offset(const struct world *world, const struct asked *asked,
                                const struct change *changed)
{
    const struct model_change *before = model_newest(asked->slot, asked->key);
    if (before == NULL) return 1;
    if (before->type == FRAME_REMOVE && change_offset(changed) == 1) {
        uint64_t floor = store_truncate_floor(&world->store, asked->slot->slot);
        assert_true(asked->slot->newest[asked->key] <= floor);
        return 1;
    }
    return before->offset + 1;
}

/* The store has made a change: so does the model, and what was made is what was asked for. */
static void follow(struct world *world, const struct asked *asked, const struct change *changed)
{
    const struct store_request *request = &asked->request;
    struct model_slot *slot = asked->slot;
    const struct model_change *last = model_at(slot, slot->count);
    bool is_update = request->type == FRAME_UPDATE;
    struct model_change change = {
        .key = asked->key,
        .type = request->type,
        .value_type = is_update ? request->flags : VALUE_UNDEFINED,
        .value_bytes = is_update ? request->body_bytes - request->key_len : 0,
        .value_seed = asked->value_seed,
        .offset = expected_offset(world, asked, changed),
        .seq = request->seq_whole,
        .hlc = world->hlc,
    };
    uint64_t place = slot->count + 1;
    uint64_t hash = hash_key(request->body, request->key_len, HASH_SEED);
    uint64_t identity =
        change_identity_of(WORLD_SESSION, place | (request->seq_whole >> 32) << 48, hash,
                           change_route(changed->slot, (uint32_t)request->seq_whole));
    change.chain = chain_next(last != NULL ? last->chain : 0, identity);
    model_append(world, slot, &change);
    check_change(world, slot, changed, place);
    check_head(world, slot);

    uint64_t address = address_of(&world->segments, changed);
    struct session *session = world->session;
    if (session_must_grow(session, request->seq_whole))
        assert_int_equal(sessions_grow(&world->sessions, session, request->seq_whole), 0);
    session_remember(session, request->seq_whole, address);
    world->applied[request->seq_whole % WORLD_APPLIED] =
        (struct applied){slot, request->seq_whole, place, (uint32_t)(address >> 3)};
}

/* An answer without a change: nothing may have become different, and it must be the right one. */
static void check_refusal(struct world *world, const struct asked *asked, enum store_result result,
                          uint64_t hlc_before)
{
    const struct store_request *request = &asked->request;
    bool is_update = request->type == FRAME_UPDATE;
    bool has = model_has(asked->slot, asked->key);
    assert_int_equal(world->hlc, hlc_before);
    check_head(world, asked->slot);
    switch (result) {
    case STORE_NO_KEY: assert_true(!is_update && !has); return;
    case STORE_WRONG_SLOT: assert_true(is_wrong_slot(asked)); return;
    case STORE_NO_MEMORY: {
        size_t body_bytes = is_update ? request->body_bytes : request->key_len;
        assert_true(is_memory_short(world, round_up_8(CHANGE_BYTES + body_bytes), !is_update));
        world->refused++;
        return;
    }
    case STORE_OK:
    case STORE_DEEP:
    case STORE_REFUSED: break;
    }
    fail_msg("a change was made and not shown");
}

static enum store_result apply(struct world *world, struct asked *asked)
{
    struct store_request *request = &asked->request;
    const struct change *changed = NULL;
    uint64_t hlc_before = world->hlc;
    if (request->type == FRAME_GET) {
        enum store_result result = store_get(&world->store, request, &changed);
        bool has = model_has(asked->slot, asked->key);
        assert_int_equal(result, has ? STORE_OK : STORE_NO_KEY);
        if (has) check_change(world, asked->slot, changed, asked->slot->newest[asked->key]);
        return result;
    }
    enum store_result result = request->type == FRAME_UPDATE
                                   ? store_update(&world->store, request, &changed)
                                   : store_remove(&world->store, request, &changed);
    if (result != STORE_OK) {
        check_refusal(world, asked, result, hlc_before);
        return result;
    }
    assert_false(is_wrong_slot(asked));
    assert_true(request->type == FRAME_UPDATE || model_has(asked->slot, asked->key));
    assert_true(world->hlc > hlc_before);
    follow(world, asked, changed);
    return result;
}

static enum store_result do_one(struct world *world, unsigned slot, uint32_t key, uint8_t type,
                                uint32_t value_bytes)
{
    struct asked asked = ask(world, world->bodies[0], slot, key, type, value_bytes);
    asked.request.slot = FRAME_SLOT_ANY;
    store_prepare(&world->store, &asked.request);
    return apply(world, &asked);
}

enum store_result world_update(struct world *world, unsigned slot, uint32_t key,
                               uint32_t value_bytes)
{
    return do_one(world, slot, key, FRAME_UPDATE, value_bytes);
}

enum store_result world_remove(struct world *world, unsigned slot, uint32_t key)
{
    return do_one(world, slot, key, FRAME_REMOVE, 0);
}

enum store_result world_get(struct world *world, unsigned slot, uint32_t key)
{
    return do_one(world, slot, key, FRAME_GET, 0);
}

/* ---------------------------------------------------------------------------- a run of them */

static uint32_t value_bytes_of(struct world *world, uint32_t key)
{
    const struct world_options *options = &world->options;
    if (key == 0 && options->large_bytes_max > 0 && rng_below(&world->rng, 20) == 0)
        return (uint32_t)rng_below(&world->rng, options->large_bytes_max + 1);
    uint32_t bytes = (uint32_t)rng_below(&world->rng, options->value_bytes_max + 1);
    return rng_below(&world->rng, 4) == 0 ? bytes : bytes % 100;
}

void world_run(struct world *world, unsigned requests_max, unsigned removals_in_1000,
               unsigned gets_in_1000)
{
    struct asked asked[WORLD_RUN_MAX];
    unsigned count = 1 + (unsigned)rng_below(&world->rng, requests_max);
    unsigned slots = 1 + (unsigned)rng_below(&world->rng, WORLD_SLOTS);
    for (unsigned i = 0; i < count; i++) {
        unsigned slot = (unsigned)rng_below(&world->rng, slots);
        uint32_t key = (uint32_t)rng_below(&world->rng, world->options.keys_per_slot);
        /* Half of them fall on a few keys: the same one often comes twice in a run. */
        if (rng_below(&world->rng, 2) == 0) key %= 7;
        uint64_t dice = rng_below(&world->rng, 1000);
        uint8_t type = FRAME_UPDATE;
        if (dice < removals_in_1000)
            type = FRAME_REMOVE;
        else if (dice < removals_in_1000 + gets_in_1000)
            type = FRAME_GET;
        uint32_t value_bytes = type == FRAME_UPDATE ? value_bytes_of(world, key) : 0;
        asked[i] = ask(world, world->bodies[i], slot, key, type, value_bytes);
    }
    for (unsigned i = 0; i < count; i++) store_prefetch(&world->store, &asked[i].request);
    for (unsigned i = 0; i < count; i++) store_probe(&world->store, &asked[i].request);
    for (unsigned i = 0; i < count; i++) apply(world, &asked[i]);
}

/* ---------------------------------------------------------------------------- compaction */

void world_seal(struct world *world)
{
    log_seal(&world->store.log);
}

size_t world_compact(struct world *world, size_t bytes_max)
{
    size_t record_max = round_up_8(CHANGE_BYTES + world->body_bytes_max);
    world_seal(world);
    size_t looked_at = store_compact(&world->store, bytes_max);
    assert_true(looked_at <= bytes_max + record_max + STEP_SLACK_BYTES);
    assert_int_equal(store_keys_count(&world->store), world->keys_count);
    return looked_at;
}

void world_compact_all(struct world *world)
{
    unsigned rounds = 0;
    while (world_compact(world, 1 << 20) > 0) assert_true(++rounds < COMPACTIONS_MAX);
}

/* Bytes of log that no compaction can win back, each large record in segments of its own. */
static uint64_t needed_bytes(const struct world *world)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < WORLD_SLOTS; i++) {
        const struct model_slot *slot = &world->slots[i];
        for (uint32_t key = 0; key < world->options.keys_per_slot; key++) {
            const struct model_change *newest = model_newest(slot, key);
            if (newest == NULL) continue;
            uint64_t record = record_bytes(slot, newest);
            if (record > SEGMENT_UNIT_BYTES / 8)
                record = round_up(record, SEGMENT_UNIT_BYTES) + SEGMENT_UNIT_BYTES;
            bytes += record;
        }
    }
    return bytes + world->options.history_bytes + world->options.large_bytes_max;
}

void world_relieve(struct world *world)
{
    if (world->refused == 0) return;
    world->refused = 0;
    world_compact_all(world);
    uint64_t memory = (uint64_t)world->segments.units_max * SEGMENT_UNIT_BYTES;
    uint64_t spare = (uint64_t)(world->segments.units_reserve + 2) * SEGMENT_UNIT_BYTES;
    if ((needed_bytes(world) + spare) * 2 > memory) return;
    unsigned tries = 0;
    while (world_update(world, 0, 1, 10) != STORE_OK) {
        assert_true(++tries < RELIEF_TRIES_MAX);
        world_compact_all(world);
    }
    world->refused = 0;
}

/* ---------------------------------------------------------------------------- truncation */

static void truncate_without_memory(struct world *world, struct model_slot *slot, uint64_t place)
{
    memory_fail_after(1);
    int err = store_truncate(&world->store, slot->slot, place);
    memory_fail_after(0);
    assert_int_equal(err, place < slot->count ? -ENOMEM : 0);
    check_head(world, slot);
}

void world_truncate_to(struct world *world, unsigned slot_index, uint64_t place)
{
    struct model_slot *slot = &world->slots[slot_index];
    world_seal(world);
    assert_int_equal(store_truncate(&world->store, slot->slot, place), 0);
    model_truncate(world, slot, place);
    check_head(world, slot);
}

void world_truncate(struct world *world, unsigned slot_index)
{
    struct model_slot *slot = &world->slots[slot_index];
    uint64_t floor = store_truncate_floor(&world->store, slot->slot);
    assert_true(floor <= slot->count);
    world_seal(world);
    if (floor > 0) assert_int_equal(store_truncate(&world->store, slot->slot, floor - 1), -ERANGE);
    uint64_t span = slot->count - floor;
    uint64_t back = rng_below(&world->rng, min_u64(span, 40) + 1);
    if (rng_below(&world->rng, 10) == 0) back = rng_below(&world->rng, span + 1);
    if (rng_below(&world->rng, 10) == 0) back = span;
    if (rng_below(&world->rng, 10) == 0) truncate_without_memory(world, slot, slot->count - back);
    world_truncate_to(world, slot_index, slot->count - back);
    assert_int_equal(store_truncate(&world->store, slot->slot, slot->count + 1), 0);
    check_head(world, slot);
}

/* ---------------------------------------------------------------------------- sessions */

void world_probe_session(struct world *world)
{
    uint64_t asked = world->seq - world->options.request_seq_first;
    uint64_t back = rng_below(&world->rng, SESSION_WINDOW + SESSION_WINDOW / 4);
    if (rng_below(&world->rng, 2) == 0) back %= 100;
    if (back >= asked) return;
    uint64_t seq = world->seq - back;
    const struct applied *applied = &world->applied[seq % WORLD_APPLIED];
    uint32_t address_low = 0;
    assert_int_equal(session_probe(world->session, world->seq + 1, &address_low), SESSION_NEW);
    enum session_verdict verdict = session_probe(world->session, seq, &address_low);
    if (seq + SESSION_WINDOW <= world->session->seq_highest) {
        assert_int_equal(verdict, SESSION_STALE);
        return;
    }
    if (applied->seq != seq) {
        assert_int_equal(verdict, SESSION_NEW);
        return;
    }
    assert_int_equal(verdict, SESSION_KNOWN);
    assert_int_equal(address_low, applied->address_low);

    const struct model_slot *slot = applied->slot;
    const struct change *change = store_change_of(&world->store, WORLD_SESSION, seq, address_low);
    const struct model_change *expected =
        applied->place <= slot->count ? model_at(slot, applied->place) : NULL;
    bool is_kept = expected != NULL && expected->seq == seq;
    if (change != NULL) {
        assert_true(is_kept);
        check_change(world, slot, change, applied->place);
    } else if (is_kept) {
        /* Only compaction moves or forgets a change. */
        assert_true(applied->place <= store_truncate_floor(&world->store, slot->slot));
    }
    assert_null(store_change_of(&world->store, WORLD_SESSION + 1, seq, address_low));
}

/* ---------------------------------------------------------------------------- everything */

/* A thread that looks from outside sees what the shard sees. */
static void check_peek(const struct world *world, const struct store_request *request,
                       const struct change *newest)
{
    struct peek peek;
    uint8_t value[64];
    enum peek_result result =
        store_peek(&world->store, request->body, request->key_len, value, sizeof value, &peek);
    if (newest == NULL) {
        assert_int_equal(result, PEEK_NO_KEY);
        return;
    }
    bool is_fixed = value_type_bytes(change_value_type(newest)) == (int)change_value_bytes(newest);
    bool fits = is_fixed || change_value_bytes(newest) <= sizeof value;
    assert_int_equal(result, fits ? PEEK_FOUND : PEEK_TOO_SMALL);
    assert_int_equal(peek.offset, change_offset(newest));
    assert_int_equal(peek.value_bytes, change_value_bytes(newest));
    if (fits && peek.value_bytes > 0)
        assert_memory_equal(is_fixed ? peek.fixed : value, change_value(newest), peek.value_bytes);
}

/*
 * Newest to oldest: nothing of the history is missing, nor is any key's newest change, or what was
 * newest when the history began; there is nothing that the model does not know.
 */
static void check_slot(struct world *world, unsigned slot_index)
{
    struct model_slot *slot = &world->slots[slot_index];
    static const struct change *at_floor[WORLD_KEYS_MAX];
    static const struct change *newest[WORLD_KEYS_MAX];
    memset(at_floor, 0, sizeof at_floor);
    memset(newest, 0, sizeof newest);
    uint64_t floor = store_truncate_floor(&world->store, slot->slot);
    uint64_t last = slot->count + 1;
    struct slot_walk walk;
    const struct change *change;
    slot_walk_begin(&walk, &world->store.log, slot->slot);
    while ((change = slot_walk_next(&walk)) != NULL) {
        uint64_t place = change_place(change);
        uint64_t address = address_of(&world->segments, change);
        assert_in_range(place, 1, last - 1);
        if (last > floor + 1) assert_int_equal(place, last - 1);
        check_change(world, slot, change, place);
        uint32_t key = model_at(slot, place)->key;
        assert_int_equal(segment_of(&world->segments, address)->compactable, place <= floor);
        /* The newest of a key is what no newer one superseded. A forgotten removal was so too. */
        bool superseded = index_is_superseded(*index_word(&world->segments, address));
        assert_int_equal(superseded, place != slot->newest[key]);
        if (place == slot->newest[key]) newest[key] = change;
        if (place <= floor && at_floor[key] == NULL) at_floor[key] = change;
        last = place;
    }
    assert_true(last <= floor + 1);
    for (uint32_t key = 0; key < world->options.keys_per_slot; key++) {
        const struct change *found = NULL;
        struct asked asked = ask(world, world->bodies[0], slot_index, key, FRAME_GET, 0);
        store_prepare(&world->store, &asked.request);
        enum store_result result = store_get(&world->store, &asked.request, &found);
        assert_int_equal(result, model_has(slot, key) ? STORE_OK : STORE_NO_KEY);
        /* The table points at the record that the log has, not at one that was moved away. */
        if (result == STORE_OK) assert_ptr_equal(found, newest[key]);
        check_peek(world, &asked.request, result == STORE_OK ? found : NULL);
        uint64_t place = slot->newest[key];
        while (place > floor) place = model_at(slot, place)->before;
        const struct model_change *kept = model_at(slot, place);
        if (kept == NULL || kept->type == FRAME_REMOVE) continue;
        assert_non_null(at_floor[key]);
        assert_int_equal(change_place(at_floor[key]), place);
    }
}

/* What the segments before the one at hand have said. */
struct stream {
    uint64_t next;     /* number of the next change */
    uint64_t previous; /* checksum of the last batch of the history; 0: not known */
    bool unfinished;   /* the batch that compaction writes was met */
    bool is_source;    /* compaction reads this segment: some of it was met already */
    uint32_t segment_seq;
};

/* Where the batch at `at` ends. */
static uint32_t check_batch(const struct segment *segment, const uint8_t *base, uint32_t at,
                            struct stream *stream)
{
    const struct batch *batch = (const struct batch *)(base + at);
    if (batch->length == 0) {
        assert_true(segment->compactable);
        assert_false(stream->unfinished);
        stream->unfinished = true;
        return segment->bytes;
    }
    assert_true(batch_is_valid(batch, segment->bytes - at));
    assert_int_equal(batch->owner, OWNER);
    assert_int_equal(batch->view, VIEW);
    assert_true(batch->stream_first >= stream->next || segment->compactable);
    if (!segment->compactable) {
        if (stream->previous != 0) {
            assert_int_equal(batch->stream_first, stream->next);
            assert_int_equal(batch->previous, stream->previous);
        }
        assert_int_equal(batch->flags & ~BATCH_ALIKE, 0);
        stream->previous = batch->checksum;
        stream->next = batch->stream_first + batch->count;
    } else {
        /* Survivors of one batch may stand in two. */
        assert_true(batch->stream_first >= stream->next || stream->is_source);
        stream->next = max_u64(stream->next, batch->stream_first);
    }
    return at + batch->length;
}

static void check_segment(const struct world *world, uint32_t number, struct stream *stream)
{
    const struct segment *segment = &world->segments.segments[number];
    const uint8_t *base = world->segments.base + ((size_t)number << SEGMENT_UNIT_SHIFT);
    uint64_t dead_bytes = 0;
    uint64_t count = 0;
    bool is_source = false;
    assert_true(segment->seq >= stream->segment_seq);
    stream->segment_seq = segment->seq;
    stream->is_source = compaction_reads(&world->store, number);
    for (uint32_t at = 0; at < segment->bytes;) {
        uint32_t end = check_batch(segment, base, at, stream);
        at += (uint32_t)BATCH_BYTES;
        while (at < end) {
            const struct change *change = (const struct change *)(base + at);
            uint64_t address = address_of(&world->segments, change);
            assert_true(at < SEGMENT_UNIT_BYTES);
            uint32_t word = *index_word(&world->segments, address);
            if (index_is_superseded(word)) dead_bytes += change_padded_bytes(change);
            if (index_is_unlinked(address, word) && !index_is_superseded(word)) is_source = true;
            at += (uint32_t)change_padded_bytes(change);
            count++;
        }
        assert_int_equal(at, end);
    }
    if (is_source) return;
    assert_int_equal(segment->changes_count, count);
    assert_int_equal(segment->dead_bytes, dead_bytes);
}

/* The history holds what its bounds say and not one segment more. */
static void check_history(const struct world *world)
{
    const struct log *log = &world->store.log;
    const struct segment *segments = world->segments.segments;
    uint64_t records = 0;
    uint64_t bytes = 0;
    if (log->active == SEGMENT_NONE) return;
    for (uint32_t number = log->history_first; number != log->active;
         number = segments[number].next) {
        records += segments[number].changes_count;
        bytes += segments[number].bytes;
    }
    assert_int_equal(log->history_records, records);
    assert_int_equal(log->history_bytes, bytes);
    uint64_t bytes_max = log->options.history_bytes_max;
    uint64_t records_max = log->options.history_records_max;
    if (log->history_first != log->active) {
        const struct segment *first = &segments[log->history_first];
        assert_true(bytes - first->bytes < bytes_max);
        assert_true(records_max == 0 || records - first->changes_count < records_max);
    }
    /* What left it was too much by the one bound or by the other, unless memory was short. */
    if (log->history_first != log->oldest && log->refused == 0 && log->pressed == 0) {
        bool bytes_full = bytes >= bytes_max;
        bool records_full = records_max > 0 && records >= records_max;
        assert_true(bytes_full || records_full);
    }
}

void world_check(struct world *world)
{
    const struct log *log = &world->store.log;
    world_seal(world);
    store_check(&world->store);
    check_history(world);
    struct stream stream = {.next = 0};
    for (uint32_t number = log->oldest; number != SEGMENT_NONE;
         number = world->segments.segments[number].next)
        check_segment(world, number, &stream);
    for (unsigned i = 0; i < WORLD_SLOTS; i++) {
        check_head(world, &world->slots[i]);
        check_slot(world, i);
    }
}

/* ---------------------------------------------------------------------------- for who reads along */

unsigned world_slot_index(const struct world *world, uint16_t slot)
{
    unsigned index = 0;
    while (index < WORLD_SLOTS && world->slots[index].slot != slot) index++;
    assert_true(index < WORLD_SLOTS);
    return index;
}

uint32_t world_check_change(const struct world *world, unsigned slot, const struct change *change)
{
    const struct model_slot *model = &world->slots[slot];
    assert_in_range(change_place(change), 1, model->count);
    check_change(world, model, change, change_place(change));
    return model_at(model, change_place(change))->key;
}

uint64_t world_place_of(const struct world *world, unsigned slot, uint32_t key)
{
    const struct model_slot *model = &world->slots[slot];
    return model_has(model, key) ? model->newest[key] : 0;
}
