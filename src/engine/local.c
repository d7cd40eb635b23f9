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

static int change(fero_shard *handle, uint8_t type, fero_slice key, const fero_val *value,
                  uint64_t *offset)
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
    if (result.outcome != FERO_OUTCOME_OK)
        error_set(result.error, "%.*s", (int)result.value.s.len,
                  result.value.s.len > 0 ? (const char *)result.value.s.ptr : "");
    captured_deinit(&captured);
    return result.error;
}

int fero_shard_update(fero_shard *shard, fero_slice key, const fero_val *value, uint64_t *offset)
{
    return change(shard, FRAME_UPDATE, key, value, offset);
}

int fero_shard_remove(fero_shard *shard, fero_slice key, uint64_t *offset)
{
    return change(shard, FRAME_REMOVE, key, NULL, offset);
}

int fero_shard_get(fero_shard *shard, fero_slice key, fero_val *value, uint64_t *offset)
{
    struct store_request request = {.slot = FRAME_SLOT_ANY, .type = FRAME_GET};
    const struct change *found;
    struct cache *cache = cache_of(shard);
    if (cache == NULL) return FERO_E_INVAL;
    int err = check_key(cache, key);
    if (err < 0) return err;
    request.body = key.ptr;
    request.body_bytes = (uint32_t)key.len;
    request.key_len = (uint16_t)key.len;
    store_prepare(&cache->store, &request);
    if (store_get(&cache->store, &request, &found) != STORE_OK)
        return error_set_text(FERO_E_NOTFOUND, "no such key");
    if (offset != NULL) *offset = change_offset(found);
    if (value == NULL) return 0;
    *value = (fero_val){0};
    bool is_valid = result_value_read(value, (uint8_t)change_value_type(found), change_value(found),
                                      change_value_bytes(found));
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
    static const uint8_t types[] = {[FERO_ASK_GET] = FRAME_GET,
                                    [FERO_ASK_UPDATE] = FRAME_UPDATE,
                                    [FERO_ASK_REMOVE] = FRAME_REMOVE};
    struct cache *cache = cache_of(handle);
    struct captured captured;
    uint8_t truth;
    if (cache == NULL) return FERO_E_INVAL;
    if (function == NULL || what < FERO_ASK_GET || what > FERO_ASK_REMOVE)
        return error_set(FERO_E_INVAL, "it needs a function, and FERO_ASK_GET, _UPDATE or _REMOVE");
    int err = check_key(cache, key);
    if (err < 0 && err != FERO_E_NOTOWNER) return err;
    struct message message = {.type = types[what], .slot = FRAME_SLOT_ANY, .key = key};
    const fero_val *given = what == FERO_ASK_UPDATE ? value : NULL;
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
