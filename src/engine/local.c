/*
 * What handlers may do on the shard that they run on, beside replying: read and write its keys, and
 * have themselves called later. A fero_shard is a cache's part on one shard (shard/cache.h).
 */
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "engine/error.h"
#include "engine/message.h"
#include "engine/result.h"
#include "ring/slot.h"
#include "shard/crossing.h"
#include "shard/deep.h"
#include "shard/lent.h"
#include "shard/request.h"
#include "shard/shard.h"

/* Ten years. */
#define AFTER_MS_MAX ((int64_t)10 * 366 * 24 * 3600 * 1000)

/* NULL: it is not for this thread. */
static struct cache *cache_of(fero_shard *shard)
{
    struct cache *cache = (struct cache *)shard;
    if (cache != NULL && shard_running() == cache->shard) return cache;
    error_set(FERO_E_INVAL, cache == NULL
                                ? "the shard is NULL"
                                : "another thread than the shard's, or no callback of it");
    return NULL;
}

static int check_key(const struct cache *cache, fero_slice key)
{
    const struct shard *shard = cache->shard;
    if (key.len == 0) return error_set(FERO_E_INVAL, "the key is empty");
    if (key.len > shard->options->key_bytes_max)
        return error_set(FERO_E_TOOBIG, "a key of %zu bytes is over the node's limit of %zu",
                         key.len, shard->options->key_bytes_max);
    uint32_t owner = shard->slot_owner[slot_of_key(key.ptr, key.len)];
    if (owner != shard->index)
        return error_set(FERO_E_NOTOWNER, "the key is shard %u's, and this is shard %u", owner,
                         shard->index);
    return 0;
}

/* Does a request of the handler's own; the caller frees `captured`. False: no memory. */
static bool apply(struct cache *cache, struct message *message, struct captured *captured)
{
    struct shard *shard = cache->shard;
    struct refusal refusal;
    struct request request;
    size_t length = sizeof(struct frame_request) + message->key.len + message->value.size;
    uint8_t *frame = memory_take(round_up_8(length));
    if (frame == NULL) return false;
    message->slot = FRAME_SLOT_ANY;
    message_encode(frame, message, 0, (uint16_t)cache->definition->number, FERO_REPLY, length,
                   round_up_8(length));
    enum decoded decoded = request_decode(&request, shard, frame, round_up_8(length), &refusal);
    ASSERT(decoded == DECODED_REQUEST);
    request.store.session = 0;
    request.store.seq_whole = 0;
    request.session = NULL;
    request_capture(shard, &request, captured);
    memory_put(frame);
    return true;
}

/* `number`: that an add or a push gave; may be NULL, as `offset`. */
static int change(fero_shard *handle, uint8_t type, fero_slice key, const fero_val *value,
                  int64_t *number, uint64_t *offset)
{
    struct message message = {.type = type, .key = key};
    struct captured captured;
    fero_result result;
    uint8_t truth;
    struct cache *cache = cache_of(handle);
    if (cache == NULL) return FERO_E_INVAL;
    int err = check_key(cache, key);
    if (err < 0) return err;
    uint32_t value_bytes_max = (uint32_t)cache->shard->options->value_bytes_max;
    if ((err = message_read_value(&message, value_bytes_max, value, &truth)) < 0) return err;
    if (!apply(cache, &message, &captured))
        return error_set(FERO_E_NOMEM, "no memory for a request");
    result_read(&result, captured.frame, captured.bytes);
    if (offset != NULL) *offset = result.offset;
    if (number != NULL) *number = result.value.i64;
    if (result.outcome != FERO_OUTCOME_OK)
        error_set(result.error, "%.*s", (int)result.value.s.len,
                  result.value.s.len > 0 ? (const char *)result.value.s.ptr : "");
    captured_deinit(&captured);
    return result.error;
}

int fero_shard_update(fero_shard *shard, fero_slice key, const fero_val *value, uint64_t *offset)
{
    return change(shard, FRAME_UPDATE, key, value, NULL, offset);
}

int fero_shard_remove(fero_shard *shard, fero_slice key, uint64_t *offset)
{
    return change(shard, FRAME_REMOVE, key, NULL, NULL, offset);
}

int fero_shard_add(fero_shard *shard, fero_slice key, const fero_val *value, int64_t *id,
                   uint64_t *offset)
{
    return change(shard, FRAME_ADD, key, value, id, offset);
}

int fero_shard_push(fero_shard *shard, fero_slice key, const fero_val *value, int64_t *index,
                    uint64_t *offset)
{
    return change(shard, FRAME_PUSH, key, value, index, offset);
}

int fero_shard_patch(fero_shard *shard, fero_slice key, fero_slice fields, uint64_t *offset)
{
    const fero_val value = {.type = FERO_T_JSON, .s = fields};
    return change(shard, FRAME_PATCH, key, &value, NULL, offset);
}

/* What a key is, found in the table, or inside of a partition. */
struct found {
    enum value_type type;
    uint64_t offset;
    struct bytes data;
};

/* A value that does not lie in the log as it is asked for is written to the shard's memory. */
static int find_deep(struct cache *cache, const struct store_request *request, bool is_wanted,
                     struct found *found)
{
    struct store *store = &cache->store;
    struct deep_value value;
    enum store_result result = deep_get(store, request, &value);
    if (result == STORE_REFUSED)
        return error_set(-(int)store->refusal.error, "%.*s", (int)store->refusal.bytes,
                         store->refusal.text);
    if (result != STORE_OK) return error_set_text(FERO_E_NOTFOUND, "no such key");
    *found = (struct found){value.type, value.offset, value.data};
    if (value.data.data != NULL || value.bytes == 0 || !is_wanted) return 0;
    if (value.bytes > cache->shard->options->value_bytes_max)
        return error_set(FERO_E_TOOBIG, "the value has %zu bytes as JSON: ask for parts of it",
                         value.bytes);
    uint8_t *copy = lent_take(cache->shard, value.bytes);
    if (copy == NULL) return error_set(FERO_E_NOMEM, "no memory for a value");
    deep_value_copy(store, &value, copy);
    found->data = (struct bytes){copy, value.bytes};
    return 0;
}

static int find(struct cache *cache, fero_slice key, bool is_wanted, struct found *found)
{
    struct store_request request = {.slot = FRAME_SLOT_ANY,
                                    .type = FRAME_GET,
                                    .body = key.ptr,
                                    .body_bytes = (uint32_t)key.len,
                                    .key_len = (uint16_t)key.len};
    const struct change *change;
    store_prepare(&cache->store, &request);
    enum store_result result = store_get(&cache->store, &request, &change);
    if (result == STORE_DEEP) return find_deep(cache, &request, is_wanted, found);
    if (result != STORE_OK) return error_set_text(FERO_E_NOTFOUND, "no such key");
    *found = (struct found){change_value_type(change),
                            change_offset(change),
                            {change_value(change), change_value_bytes(change)}};
    return 0;
}

int fero_shard_get(fero_shard *shard, fero_slice key, fero_val *value, uint64_t *offset)
{
    struct cache *cache = cache_of(shard);
    struct found found = {0};
    if (cache == NULL) return FERO_E_INVAL;
    int err = check_key(cache, key);
    if (err < 0 || (err = find(cache, key, value != NULL, &found)) < 0) return err;
    if (offset != NULL) *offset = found.offset;
    if (value == NULL) return 0;
    *value = (fero_val){0};
    bool is_valid = result_value_read(value, (uint8_t)found.type, found.data.data, found.data.size);
    ASSERT(is_valid);
    return 0;
}

int fero_shard_index(const fero_shard *shard)
{
    return shard != NULL ? (int)((const struct cache *)shard)->shard->index : FERO_E_INVAL;
}

/* ----------------------------------------------------------------------------------------- timers */

static void on_timer(const struct timer_call *call)
{
    ((fero_timer_fn)call->callback)(call->context, call->argument);
}

int64_t fero_after(fero_shard *shard, int64_t ms, fero_timer_fn function, void *ud)
{
    struct cache *cache = cache_of(shard);
    if (cache == NULL) return FERO_E_INVAL;
    if (function == NULL || ms < 0 || ms > AFTER_MS_MAX)
        return error_set(FERO_E_INVAL,
                         "a timer of %lld ms: it needs a function, and 0 ms to ten years",
                         (long long)ms);
    const struct timer_call call = {.function = on_timer,
                                    .context = shard,
                                    .argument = ud,
                                    .callback = (void (*)(void))function};
    uint64_t due_ns = cache->shard->now_ns + (uint64_t)ms * NS_PER_MS;
    uint64_t number = timers_add(&cache->shard->timers, due_ns, &call);
    if (number == 0)
        return error_set(FERO_E_NOMEM, "no memory for a timer, or %u are running", TIMERS_MAX);
    return (int64_t)number;
}

int fero_after_cancel(fero_shard *shard, int64_t timer)
{
    struct cache *cache = cache_of(shard);
    if (cache == NULL) return FERO_E_INVAL;
    if (timers_cancel(&cache->shard->timers, (uint64_t)timer)) return 0;
    return error_set_text(FERO_E_NOTFOUND, "the timer has been called");
}

/* --------------------------------------------------------------------------------- other shards */

static void on_answer(const struct asking *ask, const uint8_t *frame, size_t bytes)
{
    fero_result result;
    result_read(&result, frame, bytes);
    ((fero_answer_fn)ask->callback)(ask->context, &result, ask->argument);
}

static uint8_t *frame_make(const struct cache *cache, struct message *message, size_t *bytes)
{
    size_t length = sizeof(struct frame_request) + message->key.len + message->value.size;
    *bytes = round_up_8(length);
    uint8_t *frame = memory_take(*bytes);
    if (frame == NULL) return NULL;
    message_encode(frame, message, 0, (uint16_t)cache->definition->number, FERO_REPLY, length,
                   *bytes);
    return frame;
}

static int ask_other(struct cache *cache, uint32_t to, struct message *message,
                     const struct asking *ask)
{
    struct shard *shard = cache->shard;
    size_t bytes;
    uint8_t *frame = frame_make(cache, message, &bytes);
    uint32_t index = frame != NULL ? asks_take(shard, ask) : ASKS_NONE;
    int err = 0;
    if (index == ASKS_NONE) {
        err = error_set(FERO_E_NOMEM, "no memory to ask another shard");
    } else if (!crossing_try_ask(shard, to, index, message->type, frame, bytes)) {
        asks_put(shard, index);
        err = error_set_text(FERO_E_AGAIN, "the lane to the shard of this key is full");
    }
    memory_put(frame);
    return err;
}

int fero_shard_ask(fero_shard *handle, int32_t what, fero_slice key, const fero_val *value,
                   fero_answer_fn function, void *ud)
{
    static const uint8_t types[] = {
        [FERO_ASK_GET] = FRAME_GET,       [FERO_ASK_UPDATE] = FRAME_UPDATE,
        [FERO_ASK_REMOVE] = FRAME_REMOVE, [FERO_ASK_ADD] = FRAME_ADD,
        [FERO_ASK_PUSH] = FRAME_PUSH,     [FERO_ASK_PATCH] = FRAME_PATCH};
    struct cache *cache = cache_of(handle);
    struct captured captured;
    uint8_t truth;
    if (cache == NULL) return FERO_E_INVAL;
    if (function == NULL || what < FERO_ASK_GET || what > FERO_ASK_PATCH)
        return error_set(FERO_E_INVAL, "it needs a function, and a FERO_ASK_...: %d is none", what);
    int err = check_key(cache, key);
    if (err < 0 && err != FERO_E_NOTOWNER) return err;
    struct message message = {.type = types[what], .slot = FRAME_SLOT_ANY, .key = key};
    const fero_val *given = what != FERO_ASK_GET && what != FERO_ASK_REMOVE ? value : NULL;
    uint32_t value_bytes_max = (uint32_t)cache->shard->options->value_bytes_max;
    int value_err = message_read_value(&message, value_bytes_max, given, &truth);
    if (value_err < 0) return value_err;
    const struct asking ask = {.function = on_answer,
                               .context = handle,
                               .argument = ud,
                               .callback = (void (*)(void))function};
    if (err == FERO_E_NOTOWNER)
        return ask_other(cache, cache->shard->slot_owner[slot_of_key(key.ptr, key.len)], &message,
                         &ask);
    if (!apply(cache, &message, &captured))
        return error_set(FERO_E_NOMEM, "no memory for a request");
    on_answer(&ask, captured.frame, captured.bytes);
    captured_deinit(&captured);
    return 0;
}
