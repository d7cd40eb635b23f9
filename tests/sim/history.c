#include "tests/sim/history.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "ring/slot.h"
#include "shard/deep.h"
#include "tests/sim/partition.h"
#include "tests/sim/servant.h"
#include "tests/support/json_tree.h"

#define NOW UINT64_MAX

static void *grown(void *memory, size_t bytes)
{
    void *larger = realloc(memory, bytes);
    ASSERT(larger != NULL);
    return larger;
}

static void push_version(struct history *history, struct history_key *key, struct version version)
{
    if (key->versions_count == key->versions_capacity) {
        key->versions_capacity = key->versions_capacity * 2 + 16;
        key->versions = grown(key->versions, key->versions_capacity * sizeof *key->versions);
    }
    uint64_t moment = ++history->moment;
    if (key->versions_count > 0) key->versions[key->versions_count - 1].until = moment;
    version.from = moment;
    version.until = NOW;
    key->versions[key->versions_count++] = version;
}

static bool is_absent(const struct history_key *key, const struct version *version)
{
    if (key->is_tree) return version->state == NULL;
    return version->by == NULL || version->by->type == ASK_REMOVE;
}

static struct version *last_version(struct history_key *key)
{
    return &key->versions[key->versions_count - 1];
}

void history_open(struct history *history, struct world *world, uint32_t shards_count,
                  uint32_t caches_count, uint32_t keys_count, uint32_t trees)
{
    *history = (struct history){.world = world,
                                .shards_count = shards_count,
                                .caches_count = caches_count,
                                .keys_count = keys_count};
    for (uint32_t cache = 0; cache < caches_count; cache++) {
        for (uint32_t i = 0; i < keys_count; i++) {
            struct history_key *key = &history->keys[cache][i];
            /* Some share a slot, and some have the 8 bytes that are the shortest way. */
            const char *const forms[] = {"{a}%u", "key%05u", "key%05u", "a_longer_key%u"};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(key->text, sizeof key->text, forms[i % ARRAY_COUNT(forms)], i);
#pragma GCC diagnostic pop
            key->slot = slot_of_key(key->text, strlen(key->text));
            key->shard = key->slot * shards_count / SLOTS_COUNT;
            key->is_tree = (i * 37 + 11) % 100 < trees;
            push_version(history, key, (struct version){0});
        }
    }
}

void history_close(struct history *history)
{
    for (uint32_t cache = 0; cache < history->caches_count; cache++)
        for (uint32_t i = 0; i < history->keys_count; i++) {
            struct history_key *key = &history->keys[cache][i];
            for (size_t n = 0; n < key->versions_count; n++) json_decref(key->versions[n].state);
            free(key->versions);
        }
    for (uint32_t i = 0; i < history->clients_count; i++) {
        for (size_t n = 0; n < history->clients[i].count; n++) free(history->clients[i].asked[n]);
        free(history->clients[i].asked);
    }
    for (uint32_t shard = 0; shard < history->shards_count; shard++)
        for (uint32_t cache = 0; cache < history->caches_count; cache++)
            free(history->logs[shard][cache].slots);
}

void history_add_store(struct history *history, uint32_t shard, uint32_t cache, struct store *store)
{
    struct history_log *log = &history->logs[shard][cache];
    *log = (struct history_log){.log = &store->log, .store = store, .segment = SEGMENT_NONE};
    log->slots = calloc(SEGMENT_SLOTS, sizeof *log->slots);
    ASSERT(log->slots != NULL);
}

uint32_t history_add_client(struct history *history, uint64_t session, uint64_t seq_first)
{
    ASSERT(history->clients_count < HISTORY_CLIENTS_MAX);
    history->clients[history->clients_count] =
        (struct history_client){.session = session, .seq_first = seq_first};
    return history->clients_count++;
}

/* ----------------------------------------------------------------------------------- asking */

struct asked *history_make(struct history *history, uint32_t client)
{
    (void)history;
    struct asked *asked = calloc(1, sizeof *asked);
    ASSERT(asked != NULL);
    asked->client = client;
    return asked;
}

void history_value(const struct history *history, const struct asked *asked, uint8_t *to)
{
    uint64_t word = history->clients[asked->client].session ^ asked->seq * 0x9e3779b97f4a7c15u;
    if (history->keys[asked->cache][asked->key].is_tree && asked->type != ASK_VERB) {
        partition_value(history, asked, to);
        return;
    }
    for (size_t i = 0; i < asked->value_bytes; i++) {
        word = word * 6364136223846793005u + 1442695040888963407u;
        to[i] = (uint8_t)(word >> 56);
        if (asked->value_type == FERO_T_STRING) to[i] = (uint8_t)('a' + to[i] % 26);
    }
}

void history_ask(struct history *history, struct asked *asked, uint64_t seq)
{
    struct history_client *client = &history->clients[asked->client];
    size_t index = seq - client->seq_first;
    if (index >= client->capacity) {
        size_t capacity = 2 * index + 64;
        client->asked = grown(client->asked, capacity * sizeof *client->asked);
        memset(client->asked + client->capacity, 0,
               (capacity - client->capacity) * sizeof *client->asked);
        client->capacity = capacity;
    }
    ASSERT(client->asked[index] == NULL);
    client->asked[index] = asked;
    client->count = max_u64(client->count, index + 1);
    asked->seq = seq;
    asked->begun = ++history->moment;
    history->asked++;
    world_note(history->world, NOTE_ASK, asked->client, seq, asked->type, asked->key);
}

uint64_t history_open_count(const struct history *history, uint32_t client)
{
    uint64_t count = 0;
    for (size_t i = 0; i < history->clients[client].count; i++) {
        const struct asked *asked = history->clients[client].asked[i];
        count += asked != NULL && asked->wants_answer && !asked->is_ended;
    }
    return count;
}

/* -------------------------------------------------------------------------------- answering */

static bool is_change(const struct asked *asked)
{
    return asked->type != ASK_GET && asked->type != ASK_VERB;
}

static bool is_of_tree(const struct history *history, const struct asked *asked)
{
    return history->keys[asked->cache][asked->key].is_tree;
}

static bool has_value_of(const struct history *history, const struct asked *by,
                         const fero_val *value)
{
    uint8_t bytes[HISTORY_VALUE_BYTES_MAX];
    if (value->type != by->value_type || value->s.len != by->value_bytes) return false;
    history_value(history, by, bytes);
    return by->value_bytes == 0 || memcmp(bytes, value->s.ptr, by->value_bytes) == 0;
}

/* The same for what goes inside of a partition: it could be done or not, or gave this value. */
static bool was_tree_so(const struct history *history, const struct asked *asked,
                        const fero_result *result)
{
    const struct history_key *key = &history->keys[asked->cache][asked->key];
    bool is_read = asked->type == ASK_GET && result->outcome == FERO_OUTCOME_OK;
    json_t *found = is_read ? partition_json(&result->value) : NULL;
    bool was = false;
    for (size_t i = key->versions_count; i-- > 0 && key->versions[i].until >= asked->begun;) {
        const struct version *version = &key->versions[i];
        if (version->is_partial) continue;
        was = is_read ? version->offset >= result->offset &&
                            partition_gives(asked, version->state, found)
                      : !partition_may(asked, version->state);
        if (was) break;
    }
    json_decref(found);
    return was;
}

/* Whether the key was so at some moment since the question. */
static bool was_so(const struct history *history, const struct asked *asked,
                   const fero_result *result)
{
    const struct history_key *key = &history->keys[asked->cache][asked->key];
    if (key->is_tree) return was_tree_so(history, asked, result);
    for (size_t i = key->versions_count; i-- > 0 && key->versions[i].until >= asked->begun;) {
        const struct version *version = &key->versions[i];
        bool absent = is_absent(key, version);
        if (result->outcome == FERO_OUTCOME_FAIL && absent) return true;
        if (result->outcome == FERO_OUTCOME_OK && !absent && version->offset == result->offset &&
            has_value_of(history, version->by, &result->value))
            return true;
    }
    return false;
}

static void fail_answer(struct history *history, const struct asked *asked,
                        const fero_result *result, const char *what)
{
    const fero_val *value = &result->value;
    bool has_text = value->type == FERO_T_STRING && result->outcome != FERO_OUTCOME_OK;
    world_fail(history->world,
               "client %u, request %" PRIu64 " of type %u for key %s: %s (outcome %d, error %d, "
               "offset %" PRIu64 ", %.*s)",
               asked->client, asked->seq, asked->type, history->keys[asked->cache][asked->key].text,
               what, result->outcome, result->error, result->offset,
               has_text ? (int)value->s.len : 0, has_text ? (const char *)value->s.ptr : "");
}

static void check_ok(struct history *history, const struct asked *asked, const fero_result *result)
{
    bool gives_number = asked->type == ASK_ADD || asked->type == ASK_PUSH;
    bool is_empty = asked->type == ASK_PATCH && partition_changes(asked) == 0;
    switch ((enum ask_type)asked->type) {
    case ASK_PATCH:
    case ASK_UPDATE:
    case ASK_ADD:
    case ASK_PUSH:
    case ASK_REMOVE:
        if (is_empty) break;
        if (!asked->is_applied)
            fail_answer(history, asked, result, "acknowledged, but not in the log");
        /* A change that the log has dropped meanwhile is answered again without its offset. */
        if (result->offset != asked->offset && result->offset != 0)
            fail_answer(history, asked, result, "acknowledged at another offset");
        if (gives_number && result->offset != 0 && (uint64_t)result->value.i64 != asked->id)
            fail_answer(history, asked, result, "acknowledged with another number");
        break;
    case ASK_GET:
        if (!was_so(history, asked, result))
            fail_answer(history, asked, result, "a value that the key did not have");
        break;
    case ASK_VERB:
        if (!has_value_of(history, asked, &result->value))
            fail_answer(history, asked, result, "not what the handler replied");
        if (asked->shape == SERVICE_IN_PARTS && asked->id != SERVICE_PARTS)
            fail_answer(history, asked, result, "parts are left out");
        if (asked->shape == SERVICE_NEVER) fail_answer(history, asked, result, "nobody replied");
        break;
    }
}

static void check_fail(struct history *history, const struct asked *asked,
                       const fero_result *result)
{
    if (is_change(asked) && asked->is_applied)
        fail_answer(history, asked, result, "failed, but it was applied");
    bool is_allowed = false;
    switch (result->error) {
    case FERO_E_NOTFOUND:
        is_allowed =
            (asked->type == ASK_GET || asked->type == ASK_REMOVE) && was_so(history, asked, result);
        break;
    case FERO_E_NOMEM: is_allowed = history->may_be_full; break;
    case FERO_E_TIMEOUT: is_allowed = asked->has_deadline; break;
    case FERO_E_AGAIN: is_allowed = asked->type == ASK_VERB && asked->shape != 0; break;
    case FERO_E_TYPE:
    case FERO_E_INVAL:
        is_allowed = is_change(asked) && asked->type != ASK_REMOVE && is_of_tree(history, asked) &&
                     was_so(history, asked, result);
        break;
    default: break;
    }
    if (!is_allowed) fail_answer(history, asked, result, "a failure that may not be");
}

static void check_unknown(struct history *history, const struct asked *asked,
                          const fero_result *result)
{
    bool is_allowed = false;
    switch (result->error) {
    case FERO_E_TIMEOUT:
        is_allowed = asked->has_deadline || (history->may_be_unknown && !asked->is_last);
        break;
    case FERO_E_CLOSED: is_allowed = history->clients[asked->client].is_killed; break;
    case FERO_E_NOTCONN: is_allowed = asked->id > 0 && history->may_be_unknown; break;
    case FERO_E_STALE: is_allowed = history->may_be_forgotten; break;
    case FERO_E_NOMEM: is_allowed = history->may_be_full; break;
    default: break;
    }
    if (!is_allowed) fail_answer(history, asked, result, "an outcome that may not be unknown");
}

void history_part(struct history *history, struct asked *asked, const fero_result *result)
{
    bool is_stream = asked->type == ASK_VERB && asked->shape == SERVICE_IN_PARTS;
    if (!is_stream || asked->is_ended) fail_answer(history, asked, result, "a part of no stream");
    if (result->seq != asked->seq || result->value.type != FERO_T_INT64 ||
        (uint64_t)result->value.i64 != asked->id++)
        fail_answer(history, asked, result, "not the part that comes next");
}

void history_answer(struct history *history, struct asked *asked, const fero_result *result)
{
    history->moment++;
    world_note(history->world, NOTE_ANSWER, asked->client, asked->seq, (uint64_t)result->outcome,
               (uint64_t)-result->error);
    if (asked->is_ended) fail_answer(history, asked, result, "it ended twice");
    if (result->seq != asked->seq) fail_answer(history, asked, result, "another one's answer");
    asked->is_ended = true;
    asked->outcome = (int8_t)result->outcome;
    asked->error = (int8_t)result->error;
    history->outcomes[result->outcome]++;
    if (result->outcome == FERO_OUTCOME_OK)
        check_ok(history, asked, result);
    else if (result->outcome == FERO_OUTCOME_FAIL)
        check_fail(history, asked, result);
    else
        check_unknown(history, asked, result);
}

/* ---------------------------------------------------------------------------------- the log */

struct asked *history_find(const struct history *history, uint64_t session, uint64_t seq)
{
    for (uint32_t i = 0; i < history->clients_count; i++) {
        const struct history_client *client = &history->clients[i];
        uint64_t index = seq - (client->seq_first & CHANGE_48_BITS);
        if (client->session == session) return index < client->count ? client->asked[index] : NULL;
    }
    return NULL;
}

static void check_bytes(struct history *history, const struct asked *asked,
                        const struct change *change)
{
    uint8_t value[HISTORY_VALUE_BYTES_MAX];
    const struct history_key *key = &history->keys[asked->cache][asked->key];
    bool is_removal = asked->type == ASK_REMOVE;
    size_t bytes = is_removal ? 0 : asked->value_bytes;
    bool is_right = change->type == (is_removal ? FRAME_REMOVE : FRAME_UPDATE) &&
                    is_change(asked) && change->key_len == strlen(key->text) &&
                    memcmp(change_key(change), key->text, change->key_len) == 0 &&
                    change->slot == key->slot && change_value_bytes(change) == bytes;
    if (is_right && bytes > 0) {
        history_value(history, asked, value);
        is_right = memcmp(value, change_value(change), bytes) == 0 &&
                   change_value_type(change) == (enum value_type)asked->value_type;
    }
    if (!is_right)
        world_fail(history->world, "the change of client %u's request %" PRIu64 " is another one",
                   asked->client, asked->seq);
}

static void check_order(struct history *history, struct history_key *key, const struct asked *asked,
                        const struct change *change)
{
    const struct version *last = last_version(key);
    bool absent = is_absent(key, last);
    uint64_t offset = change_offset(change);
    if (last->is_partial && last->by != asked)
        world_fail(history->world, "only a part of client %u's patch %" PRIu64 " of %s is done",
                   last->by->client, last->by->seq, key->text);
    /* A removal may be forgotten, and then they begin anew. */
    if (offset != last->offset + 1 && !(absent && offset == 1))
        world_fail(history->world, "key %s has a change at offset %" PRIu64 " behind %" PRIu64,
                   key->text, offset, last->offset);
    if (absent && asked->type == ASK_REMOVE)
        world_fail(history->world, "key %s is removed, but is not there", key->text);
    uint64_t *seq = &key->seq_applied[asked->client];
    if (asked->seq < *seq && !history->may_reorder)
        world_fail(history->world,
                   "client %u's request %" PRIu64 " for key %s is applied after its %" PRIu64,
                   asked->client, asked->seq, key->text, *seq);
    *seq = asked->seq;
}

static void check_slot(struct history *history, struct history_log *log,
                       const struct change *change)
{
    struct store_slot *slot = &log->slots[change->slot];
    slot->chain = chain_next(slot->chain, change_identity(change));
    if (change_place(change) != ++slot->place)
        world_fail(history->world, "slot %u has place %" PRIu64 " instead of %" PRIu64,
                   change->slot, change_place(change), slot->place);
    if (change->hlc <= log->hlc) world_fail(history->world, "a log's clock goes backwards");
    log->hlc = change->hlc;
}

static void apply(struct history *history, struct history_log *log, const struct change *change)
{
    struct asked *asked = history_find(history, change->session, change_seq(change));
    if (asked == NULL)
        world_fail(history->world, "a change that nobody asked for: session %" PRIx64 ", %" PRIu64,
                   change->session, change_seq(change));
    struct history_key *key = &history->keys[asked->cache][asked->key];
    world_note(history->world, NOTE_APPLY, asked->client, asked->seq, asked->key,
               change_offset(change));
    unsigned changes = key->is_tree ? partition_changes(asked) : 1;
    if (asked->is_applied || !is_change(asked) || changes == 0)
        world_fail(history->world, "client %u's request %" PRIu64 " for key %s is applied %s",
                   asked->client, asked->seq, key->text, asked->is_applied ? "twice" : "");
    if (asked->is_ended && asked->outcome == FERO_OUTCOME_FAIL)
        world_fail(history->world, "client %u's request %" PRIu64 " is applied after it failed",
                   asked->client, asked->seq);
    check_order(history, key, asked, change);
    check_slot(history, log, change);
    struct version version = {
        .offset = change_offset(change), .place = change_place(change), .by = asked};
    if (key->is_tree)
        version.state =
            partition_apply(history, asked, asked->changes, last_version(key)->state, change);
    else
        check_bytes(history, asked, change);
    asked->changes++;
    asked->is_applied = asked->changes == changes;
    version.is_partial = !asked->is_applied;
    asked->offset = version.offset;
    history->applied++;
    push_version(history, key, version);
}

static struct history_log *find_log(struct history *history, const struct log *log)
{
    for (uint32_t shard = 0; shard < history->shards_count; shard++)
        for (uint32_t cache = 0; cache < history->caches_count; cache++)
            if (history->logs[shard][cache].log == log) return &history->logs[shard][cache];
    return NULL;
}

static void read_batch(struct history *history, struct history_log *log, const struct batch *batch)
{
    const uint8_t *at = (const uint8_t *)(batch + 1);
    if (!batch_is_valid(batch, batch->length)) world_fail(history->world, "a broken batch");
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct change *change = (const struct change *)at;
        apply(history, log, change);
        at += change_padded_bytes(change);
    }
}

void history_read_log(struct history *history, const struct log *real)
{
    struct history_log *log = find_log(history, real);
    if (log == NULL || real->active == SEGMENT_NONE) return;
    ASSERT(real->batch == NULL);
    if (log->segment == SEGMENT_NONE) log->segment = real->oldest;
    for (;;) {
        const struct segment *segment = &real->segments->segments[log->segment];
        const uint8_t *base = real->segments->base + ((size_t)log->segment << SEGMENT_UNIT_SHIFT);
        bool is_active = log->segment == real->active;
        uint32_t end = is_active ? (uint32_t)(real->at - base) : segment->bytes;
        while (log->bytes < end) {
            const struct batch *batch = (const struct batch *)(base + log->bytes);
            read_batch(history, log, batch);
            log->bytes += batch->length;
        }
        if (is_active) return;
        log->segment = segment->next;
        log->bytes = 0;
    }
}

/* --------------------------------------------------------------------------------- the end */

/* A partition's value where it has a tree, or might have had one. */
static void check_tree(struct history *history, struct store *store,
                       const struct store_request *request, enum store_result result,
                       const struct change *change, const struct history_key *key)
{
    const struct version *last = &key->versions[key->versions_count - 1];
    static const struct asked whole = {.type = ASK_GET};
    struct deep_value value;
    json_t *found = NULL;
    if (result == STORE_OK)
        found = json_tree_value(change_value_type(change), change_value(change),
                                change_value_bytes(change));
    if (result == STORE_DEEP) result = deep_get(store, request, &value);
    if (result == STORE_OK && found == NULL) {
        uint8_t *bytes = grown(NULL, value.bytes + 1);
        deep_value_copy(store, &value, bytes);
        found = json_tree_value(value.type, bytes, value.bytes);
        free(bytes);
    }
    if (!partition_gives(&whole, last->state, found)) {
        char *left = found != NULL ? json_dumps(found, JSON_ENCODE_ANY) : NULL;
        char *right = last->state != NULL ? json_dumps(last->state, JSON_ENCODE_ANY) : NULL;
        world_fail(history->world, "key %s is %s, but its log adds up to %s", key->text,
                   left != NULL ? left : "nothing", right != NULL ? right : "nothing");
    }
    if (last->is_partial)
        world_fail(history->world, "only a part of a patch of %s is done", key->text);
    json_decref(found);
}

static void check_key(struct history *history, struct store *store, struct history_key *key)
{
    const struct version *last = last_version(key);
    const struct change *change = NULL;
    uint8_t body[HISTORY_KEY_BYTES] = {0};
    struct store_request request = {
        .body = body, .body_bytes = (uint32_t)strlen(key->text), .slot = key->slot};
    request.key_len = (uint16_t)request.body_bytes;
    memcpy(body, key->text, request.body_bytes);
    store_prepare(store, &request);
    enum store_result result = store_get(store, &request, &change);
    if (key->is_tree) {
        check_tree(history, store, &request, result, change, key);
        return;
    }
    bool absent = is_absent(key, last);
    if (absent != (result == STORE_NO_KEY))
        world_fail(history->world, "key %s is %s, which its log does not say", key->text,
                   absent ? "there" : "not there");
    if (absent) return;
    if (change_offset(change) != last->offset)
        world_fail(history->world, "key %s is at offset %" PRIu64 ", its log at %" PRIu64,
                   key->text, change_offset(change), last->offset);
    check_bytes(history, last->by, change);
}

void history_check_state(struct history *history)
{
    for (uint32_t cache = 0; cache < history->caches_count; cache++) {
        for (uint32_t i = 0; i < history->keys_count; i++) {
            struct history_key *key = &history->keys[cache][i];
            check_key(history, history->logs[key->shard][cache].store, key);
        }
        for (uint32_t shard = 0; shard < history->shards_count; shard++) {
            struct history_log *log = &history->logs[shard][cache];
            store_check(log->store);
            for (uint32_t slot = 0; slot < SEGMENT_SLOTS; slot++)
                if (log->slots[slot].place != log->store->slots[slot].place ||
                    log->slots[slot].chain != log->store->slots[slot].chain)
                    world_fail(history->world, "slot %u of shard %u is not what its log adds up to",
                               slot, shard);
            history_check_retained(history, shard, cache);
        }
    }
}

void history_check_retained(struct history *history, uint32_t shard, uint32_t cache)
{
    const struct history_log *log = &history->logs[shard][cache];
    const struct log *real = log->log;
    if (real->active == SEGMENT_NONE) return;
    /* What left it was too much: the segments that stayed, without the active one, are enough. */
    bool is_trimmed = real->segments->segments[real->history_first].stream_first > 1;
    if (is_trimmed && !history->may_be_full && real->options.history_records_max == 0 &&
        real->history_bytes < real->options.history_bytes_max)
        world_fail(history->world, "shard %u keeps %" PRIu64 " bytes of history instead of %zu",
                   shard, real->history_bytes, real->options.history_bytes_max);
    for (uint32_t i = 0; i < history->keys_count; i++) {
        uint16_t slot = history->keys[cache][i].slot;
        uint64_t place = log->slots[slot].place;
        uint64_t floor = store_truncate_floor(log->store, slot);
        struct slot_walk walk;
        slot_walk_begin(&walk, real, slot);
        for (; place > floor; place--) {
            const struct change *change = slot_walk_next(&walk);
            if (change == NULL || change_place(change) != place)
                world_fail(history->world, "slot %u has lost place %" PRIu64 " of its history",
                           slot, place);
        }
    }
}

/* The key as it was when its slot had so many changes. */
static void rewind_key(struct history_key *key, uint64_t place)
{
    for (; last_version(key)->place > place; key->versions_count--)
        json_decref(last_version(key)->state);
    last_version(key)->is_partial = false; /* a patch may be cut by this */
}

void history_truncate(struct history *history)
{
    struct world *world = history->world;
    for (uint32_t i = 0; i < history->keys_count * history->caches_count; i++) {
        uint32_t cache = i / history->keys_count;
        const struct history_key *some = &history->keys[cache][i % history->keys_count];
        struct store *store = history->logs[some->shard][cache].store;
        uint64_t floor = store_truncate_floor(store, some->slot);
        uint64_t place = store->slots[some->slot].place;
        if (place == floor || world_below(world, 2) == 0) continue;
        place = floor + world_below(world, place - floor);
        int err = store_truncate(store, some->slot, place);
        /* Trees take memory again, and more than there was. */
        if (err == -ENOMEM && history->may_be_full) continue;
        if (err != 0) world_fail(world, "slot %u cannot be truncated: %d", some->slot, err);
        store_check(store);
        for (uint32_t k = 0; k < history->keys_count; k++) {
            struct history_key *key = &history->keys[cache][k];
            if (key->slot != some->slot) continue;
            rewind_key(key, place);
            check_key(history, store, key);
        }
    }
}
