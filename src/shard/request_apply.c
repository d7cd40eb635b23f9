#include <string.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/memory.h"
#include "ring/slot.h"
#include "shard/deep.h"
#include "shard/request.h"
#include "shard/request_reply.h"

static COLD void fail_store(struct request_context *context, enum store_result result)
{
    const struct store_request *request = &context->request->store;
    switch (result) {
    case STORE_OK: break;
    case STORE_NO_KEY: request_fail(context, ERROR_NOT_FOUND, "no such key", 0, 0); break;
    case STORE_WRONG_SLOT:
        request_fail(context, ERROR_INVALID, "slot %llu is not the key's, which is %llu",
                     request->slot, slot_of_key(request->body, request->key_len));
        break;
    case STORE_NO_MEMORY:
        context->shard->was_full = true;
        request_fail(context, ERROR_NO_MEMORY,
                     "memory.max is reached (%llu bytes of log): remove keys or raise it",
                     context->shard->options->log_bytes_max, 0);
        break;
    case STORE_REFUSED: {
        const struct store_refusal *refusal = &context->request->cache->store.refusal;
        note_error_example(context->shard, ERROR_OF_REPLY, refusal->error, refusal->format,
                           (struct bytes){refusal->text, refusal->bytes});
        request_reply_write(context, reply_code(OUTCOME_FAIL, refusal->error), 0, VALUE_STRING,
                            refusal->text, refusal->bytes);
        break;
    }
    case STORE_DEEP: ASSERT(false);
    }
}

static COLD void fail_late(struct request_context *context)
{
    request_fail(context, ERROR_TIMEOUT, "its deadline passed before it was handled", 0, 0);
}

/* As it was told before; it is not tried again. */
static COLD void fail_again(struct request_context *context, enum session_failure failure)
{
    static const char refused[] = "it was refused before, and is not tried again";
    switch (failure) {
    case SESSION_NO_KEY: fail_store(context, STORE_NO_KEY); break;
    case SESSION_NO_MEMORY: fail_store(context, STORE_NO_MEMORY); break;
    case SESSION_LATE:
    case SESSION_FAILURES_END: fail_late(context); break;
    case SESSION_WRONG_TYPE: request_fail(context, ERROR_TYPE, refused, 0, 0); break;
    case SESSION_TOO_BIG: request_fail(context, ERROR_TOO_BIG, refused, 0, 0); break;
    case SESSION_INVALID: request_fail(context, ERROR_INVALID, refused, 0, 0); break;
    case SESSION_CONFLICT: request_fail(context, ERROR_CONFLICT, refused, 0, 0); break;
    }
}

static enum session_failure failure_of(const struct request *request, enum store_result result)
{
    if (result == STORE_NO_KEY) return SESSION_NO_KEY;
    if (result == STORE_NO_MEMORY) return SESSION_NO_MEMORY;
    if (result == STORE_WRONG_SLOT) return SESSION_INVALID;
    enum reply_error error = (enum reply_error)request->cache->store.refusal.error;
    if (error == ERROR_NOT_FOUND) return SESSION_NO_KEY;
    if (error == ERROR_TYPE) return SESSION_WRONG_TYPE;
    if (error == ERROR_CONFLICT) return SESSION_CONFLICT;
    return error == ERROR_TOO_BIG ? SESSION_TOO_BIG : SESSION_INVALID;
}

/* A change that was not made. */
static COLD void fail_change(struct request_context *context, enum store_result result)
{
    const struct request *request = context->request;
    if (request->session != NULL && !PLANTED("removal_tried_again"))
        session_remember_failure(request->session, request->store.seq_whole,
                                 failure_of(request, result));
    fail_store(context, result);
}

void request_fail_late(struct request_context *context)
{
    const struct request *request = context->request;
    struct session *session = request->session;
    bool is_change = request->frame_type <= FRAME_INSERT && request->frame_type != FRAME_GET;
    if (session != NULL && is_change && !session_must_grow(session, request->store.seq_whole))
        session_remember_failure(session, request->store.seq_whole, SESSION_LATE);
    fail_late(context);
}

/* An add or a push: the reply has the number that the owner gave. */
static void reply_added(struct request_context *context, const struct change *change, uint8_t flags)
{
    uint64_t id = deep_id_of(change);
    request_reply_write(context, reply_code(OUTCOME_OK, ERROR_NONE), change_offset(change),
                        VALUE_INT64 | flags, &id, sizeof id);
}

static bool gives_number(const struct request *request)
{
    return request->frame_type == FRAME_ADD || request->frame_type == FRAME_PUSH ||
           request->frame_type == FRAME_INSERT;
}

/* A request that was sent again: the answer it got, or the refusal to guess. True: it was answered. */
static COLD bool answer_again(struct request_context *context, enum session_verdict verdict,
                              uint32_t address)
{
    const struct store_request *request = &context->request->store;
    if (verdict == SESSION_STALE) {
        request_reply_text(
            context, reply_code(OUTCOME_UNKNOWN, ERROR_STALE),
            "sequence number %llu is too old to tell whether it was applied (highest: %llu)",
            request->seq_whole, context->request->session->seq_highest);
        return true;
    }
    count(&context->shard->counters.duplicates, 1);
    if (address < SESSION_FAILURES_END) {
        fail_again(context, (enum session_failure)address);
        return true;
    }
    const struct change *change = store_change_of(&context->request->cache->store, request->session,
                                                  request->seq_whole, address);
    if (change != NULL && gives_number(context->request))
        reply_added(context, change, REPLY_DUPLICATE);
    else
        request_reply_changed(context, change != NULL ? change_offset(change) : 0, REPLY_DUPLICATE);
    return true;
}

/* Whether the request is new to its session; if not, it has been answered. */
static ALWAYS_INLINE bool is_new(struct request_context *context)
{
    struct request *request = context->request;
    struct session *session = request->session;
    if (UNLIKELY(session == NULL)) return true;
    uint32_t address = 0;
    enum session_verdict verdict = session_probe(session, request->store.seq_whole, &address);
    if (UNLIKELY(verdict != SESSION_NEW)) return !answer_again(context, verdict, address);
    if (UNLIKELY(session_must_grow(session, request->store.seq_whole)) &&
        sessions_grow(&context->shard->sessions, session, request->store.seq_whole) < 0) {
        request_fail(context, ERROR_NO_MEMORY, "no memory to remember the request", 0, 0);
        return false;
    }
    return true;
}

/* The session knows from now on that this request made the change. */
static ALWAYS_INLINE void remember(struct request_context *context, const struct change *change)
{
    struct request *request = context->request;
    struct shard *shard = context->shard;
    if (LIKELY(request->session != NULL))
        session_remember(request->session, request->store.seq_whole,
                         address_of(&shard->segments, change));
    shard->appended_bytes += request->frame_bytes;
}

static ALWAYS_INLINE void changed(struct request_context *context, const struct change *change)
{
    remember(context, change);
    request_reply_changed(context, change_offset(change), 0);
}

static ALWAYS_INLINE void apply_update(struct request_context *context)
{
    const struct change *change;
    if (!is_new(context)) return;
    count(&context->shard->counters.updates, 1);
    enum store_result result =
        store_update(&context->request->cache->store, &context->request->store, &change);
    if (UNLIKELY(result == STORE_DEEP))
        result = deep_update(&context->request->cache->store, &context->request->store, &change);
    if (LIKELY(result == STORE_OK))
        changed(context, change);
    else
        fail_change(context, result);
}

/* An add, a push, a patch or an insert. */
static NO_INLINE void apply_deep(struct request_context *context)
{
    struct request *request = context->request;
    struct store *store = &request->cache->store;
    const struct change *change = NULL;
    enum store_result result;
    if (!is_new(context)) return;
    count(&context->shard->counters.updates, 1);
    if (request->frame_type == FRAME_PUSH)
        result = deep_push(store, &request->store, &change);
    else if (request->frame_type == FRAME_INSERT)
        result = deep_insert(store, &request->store, &change);
    else if (request->frame_type == FRAME_ADD)
        result = deep_add(store, &request->store, &change);
    else
        result = deep_patch(store, &request->store, &change);
    if (result != STORE_OK) {
        fail_change(context, result);
        return;
    }
    if (change == NULL) { /* a patch without fields */
        request_reply_changed(context, 0, 0);
        return;
    }
    remember(context, change);
    if (gives_number(request))
        reply_added(context, change, 0);
    else
        request_reply_changed(context, change_offset(change), 0);
}

static void apply_remove(struct request_context *context)
{
    const struct change *change;
    if (!is_new(context)) return;
    count(&context->shard->counters.removes, 1);
    enum store_result result =
        store_remove(&context->request->cache->store, &context->request->store, &change);
    if (result == STORE_DEEP)
        result = deep_remove(&context->request->cache->store, &context->request->store, &change);
    if (result == STORE_OK)
        changed(context, change);
    else
        fail_change(context, result);
}

static COLD void fail_long_value(struct request_context *context, size_t bytes)
{
    request_fail(context, ERROR_TOO_BIG,
                 "the value has %llu bytes as JSON, of %llu at most: ask for parts of it", bytes,
                 context->shard->options->value_bytes_max);
}

static NO_INLINE void apply_get_deep(struct request_context *context)
{
    struct store *store = &context->request->cache->store;
    struct deep_value value;
    enum store_result result = deep_get(store, &context->request->store, &value);
    if (result != STORE_OK) {
        fail_store(context, result);
        return;
    }
    if (value.bytes > context->shard->options->value_bytes_max) {
        fail_long_value(context, value.bytes);
        return;
    }
    size_t padded;
    uint8_t *to = request_reply_begin(context, reply_code(OUTCOME_OK, ERROR_NONE), value.offset,
                                      (uint8_t)value.type, value.bytes, &padded);
    if (to == NULL) return;
    deep_value_copy(store, &value, to);
    request_reply_done(context, padded);
}

static void apply_get(struct request_context *context)
{
    const struct change *change;
    count(&context->shard->counters.gets, 1);
    enum store_result result =
        store_get(&context->request->cache->store, &context->request->store, &change);
    if (result == STORE_DEEP) {
        apply_get_deep(context);
        return;
    }
    if (result == STORE_OK)
        request_reply_value(context, reply_code(OUTCOME_OK, ERROR_NONE), change_offset(change),
                            change_value_type(change), change_value(change),
                            change_value_bytes(change));
    else
        fail_store(context, result);
}

static NO_INLINE void apply_info(struct request_context *context)
{
    char text[INFO_BYTES_MAX];
    if (context->request->want < WANT_REPLY) {
        context->replied = true;
        return;
    }
    size_t bytes = request_is_about_errors(context->request)
                       ? info_write_errors(context->shard, text, sizeof text)
                       : info_write(context->shard, text, sizeof text);
    request_reply_value(context, reply_code(OUTCOME_OK, ERROR_NONE), 0, VALUE_JSON, text, bytes);
}

static const struct cache_verb *verb_by_name(const struct cache_definition *definition,
                                             struct bytes name)
{
    for (uint32_t i = 0; i < definition->verbs_count; i++)
        if (bytes_equal(bytes_of(definition->verbs[i].name), name)) return &definition->verbs[i];
    return NULL;
}

/* What its handler returned, where it had deferred the request before. */
static COLD void returned_deferred(struct request_context *context, int32_t result)
{
    struct shard *shard = context->shard;
    struct deferred_name name = context->deferred;
    if (result == HANDLED_DEFERRED || !deferred_is_open(shard, name)) return;
    if (result == HANDLED_NEXT)
        deferred_pass(shard, name);
    else if (result < 0 && result >= -(int32_t)REPLY_ERROR)
        deferred_fail(shard, name, reply_code(OUTCOME_FAIL, (enum reply_error) - result),
                      "the handler failed");
    else
        deferred_fail(shard, name, reply_code(OUTCOME_FAIL, ERROR_NO_REPLY),
                      "the handler declined");
}

/* Runs a handler; true: it has dealt with the request, false: the default handler shall. */
static bool handled(struct request_context *context, const struct cache_verb *verb)
{
    if (UNLIKELY(context->shard->deferreds.count > 0) && deferred_takes(context)) return true;
    int32_t result = verb->function(context, verb->context);
    if (UNLIKELY(context->deferred.generation != 0)) {
        returned_deferred(context, result);
        return true;
    }
    if (result == HANDLED_NEXT && !context->replied) return false;
    if (context->replied) return true;
    if (result < 0 && result >= -(int32_t)REPLY_ERROR)
        request_fail(context, (enum reply_error) - result, "the handler failed", 0, 0);
    else
        request_fail(context, ERROR_NO_REPLY, "the handler declined", 0, 0);
    return true;
}

static void apply_verb(struct request_context *context)
{
    struct request *request = context->request;
    const struct cache_definition *definition = request->cache->definition;
    const struct cache_verb *verb = request->frame_type >= FRAME_VERB_FIRST
                                        ? &definition->verbs[request->frame_type - FRAME_VERB_FIRST]
                                        : verb_by_name(definition, request->verb);
    count(&context->shard->counters.verbs, 1);
    if (verb == NULL && definition->handler.function != NULL) verb = &definition->handler;
    if (verb != NULL && handled(context, verb)) return;
    request_fail(context, ERROR_UNSUPPORTED, "no handler for this verb", 0, 0);
}

/* A request that this link waits for, by its number. */
static NO_INLINE void apply_stop(struct request_context *context)
{
    uint64_t seq;
    memcpy(&seq, context->request->store.body, sizeof seq);
    if (context->caller != NULL && waiters_stop(context->caller, seq))
        request_reply_value(context, reply_code(OUTCOME_OK, ERROR_NONE), 0, VALUE_UNDEFINED, NULL,
                            0);
    else if (context->request->want < WANT_REPLY)
        context->replied = true; /* who only wanted to be sure has made no mistake */
    else
        request_fail(context, ERROR_NOT_FOUND, "no handler keeps this request", 0, 0);
}

static bool handler_takes_it(struct request_context *context)
{
    const struct cache_verb *handler = &context->request->cache->definition->handler;
    return UNLIKELY(handler->function != NULL) && !context->request->is_direct &&
           handled(context, handler);
}

static COLD void fail_decoded(struct request_context *context)
{
    const struct request *request = context->request;
    enum reply_error error = (enum reply_error)request->error;
    /* Of what is too old nobody can say that it was not done. */
    enum outcome outcome = error == ERROR_STALE ? OUTCOME_UNKNOWN : OUTCOME_FAIL;
    request_reply_text(context, reply_code(outcome, error), request->error_text, request->error_got,
                       request->error_limit);
}

void request_apply(struct request_context *context)
{
    struct request *request = context->request;
    if (UNLIKELY(request->error != 0)) {
        fail_decoded(context);
        return;
    }
    if (LIKELY(request->frame_type == FRAME_UPDATE)) {
        if (!handler_takes_it(context)) apply_update(context);
        return;
    }
    if (request->frame_type == FRAME_GET) {
        apply_get(context);
        return;
    }
    switch (request->frame_type) {
    case FRAME_REMOVE:
        if (!handler_takes_it(context)) apply_remove(context);
        break;
    case FRAME_ADD:
    case FRAME_PUSH:
    case FRAME_PATCH:
    case FRAME_INSERT:
        if (!handler_takes_it(context)) apply_deep(context);
        break;
    case FRAME_INFO: apply_info(context); break;
    case FRAME_STOP: apply_stop(context); break;
    default: apply_verb(context); break;
    }
}

void request_capture(struct shard *shard, struct request *request, struct captured *captured)
{
    struct request_context context = {.shard = shard, .request = request, .captured = captured};
    *captured = (struct captured){0};
    request->want = WANT_REPLY;
    request->is_direct = true;
    if (request->is_keyed) store_prepare(&request->cache->store, &request->store);
    request_apply(&context);
    ASSERT(captured->frame != NULL);
}

void captured_deinit(struct captured *captured)
{
    memory_put(captured->long_frame);
}

bool request_is_late(const struct shard *shard, const struct request *request)
{
    uint32_t address;
    if (LIKELY(request->deadline_ns == 0 || shard->now_ns <= request->deadline_ns)) return false;
    return request->session == NULL ||
           session_probe(request->session, request->store.seq_whole, &address) == SESSION_NEW;
}
