/*
 * A handler keeps a request by retaining it: a copy on the heap, which lives until the last of its
 * references is given back. The shard holds one until the request has ended (shard/deferred.h), the
 * program holds the others. Of the shard's own memory it knows names only, so a copy that outlives
 * its request, its caller or its node is told so, and reaches nothing else.
 *
 * Any thread may reply. `state` says whether the request can still be answered, and whoever changes
 * it from OPEN is the one who does: compare and swap, with full order. What else another thread reads
 * is constant since the handler returned, or is written before `state` or `was_told` is.
 */
#include "engine/retained.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/ck.h"
#include "base/memory.h"
#include "engine/error.h"
#include "engine/result.h"
#include "engine/server.h"
#include "shard/parts.h"
#include "shard/shard.h"

enum retained_state {
    RETAINED_OPEN,
    RETAINED_REPLIED,
    RETAINED_STOPPED, /* nobody waits: `error` says why. Its handler has been told */
};

struct retained {
    struct handling handling;
    uint64_t references; /* of the program, and the shard's while it is not over */
    uint64_t users;      /* of the program alone */
    uint32_t state;      /* enum retained_state */
    uint32_t was_told;   /* that nobody waits any more: the library has the last word */
    int32_t error;
    struct shard *shard; /* only compared by other threads: it may be gone */
    uint32_t index;      /* the shard's */
    struct deferred_name name;
    struct given given;   /* parts, by other threads than the shard's */
    uint64_t next_offset; /* of the change that the default handler made for it */
    fero_req_fn notify;
    void *ud;
    uint8_t frame[];
};

static struct retained *retained_of(fero_req *req)
{
    struct handling *handling = (struct handling *)req;
    return handling->kind == HANDLING_RETAINED ? (struct retained *)handling : handling->retained;
}

/* -------------------------------------------------------------------------------- the copy's life */

static void put_reference(struct retained *retained)
{
    if (add_u64(&retained->references, (uint64_t)-1) > 1) return;
    struct server_cache *cache = (struct server_cache *)retained->handling.req.cache;
    if (retained->handling.has_next) captured_deinit(&retained->handling.next);
    memory_put(retained);
    if (cache != NULL) hosts_unshare(cache->hosts);
}

/* A deferred_fn. */
static void notify(void *context, enum deferred_news news, enum reply_error error)
{
    struct retained *retained = context;
    int32_t event = news == DEFERRED_ROOM ? FERO_REQ_ROOM : FERO_REQ_STOPPED;
    if (news == DEFERRED_OVER) {
        swap_if_u32(&retained->state, RETAINED_OPEN, RETAINED_STOPPED);
        put_reference(retained);
        return;
    }
    if (news == DEFERRED_STOPPED) {
        retained->error = -(int32_t)error;
        store_release_u32(&retained->was_told, 1);
    }
    if (retained->notify != NULL)
        retained->notify(&retained->handling.req, event, -(int32_t)error, retained->ud);
}

/* Where `from` lies in the frame of the request, the same place in the copy of it. */
static void move(fero_slice *slice, const struct request *request, const uint8_t *copy)
{
    const uint8_t *at = slice->ptr;
    bool is_inside = at >= request->frame && at < request->frame + request->frame_bytes;
    if (is_inside) slice->ptr = copy + (at - request->frame);
}

static struct retained *retained_make(const struct handling *handling)
{
    const struct request *request = handling->context->request;
    struct retained *retained = memory_take(sizeof *retained + request->frame_bytes);
    if (retained == NULL) return NULL;
    memcpy(retained->frame, request->frame, request->frame_bytes);
    retained->handling.req = handling->req;
    retained->handling.kind = HANDLING_RETAINED;
    retained->handling.frame_type = handling->frame_type;
    fero_req *req = &retained->handling.req;
    move(&req->verb, request, retained->frame);
    move(&req->key, request, retained->frame);
    move(&req->value.s, request, retained->frame);
    retained->shard = handling->context->shard;
    retained->references = 2;
    retained->users = 1;
    retained->next_offset = handling->context->next_offset;
    retained->error = FERO_E_NOTCONN;
    return retained;
}

static int cannot_defer(struct handling *handling, int err)
{
    handling->was_refused = true;
    if (err == -EBUSY)
        return error_set(FERO_E_AGAIN, "%u requests of this shard are deferred (deferred.max)",
                         handling->context->shard->options->deferred_max);
    return error_set(FERO_E_NOMEM, "no memory to retain a request");
}

fero_req *fero_req_retain(fero_req *req)
{
    struct handling *handling = (struct handling *)req;
    if (req == NULL) {
        error_set(FERO_E_INVAL, "no request");
        return NULL;
    }
    struct retained *retained = retained_of(req);
    if (retained != NULL) {
        add_u64(&retained->references, 1);
        add_u64(&retained->users, 1);
        return &retained->handling.req;
    }
    if (handling->context->replied) {
        error_set(FERO_E_INVAL, "replied to before");
        return NULL;
    }
    retained = retained_make(handling);
    if (retained == NULL) {
        cannot_defer(handling, -ENOMEM);
        return NULL;
    }
    const struct deferred_holder holder = {.notify = notify,
                                           .context = retained,
                                           .frame = retained->frame,
                                           .given = &retained->given,
                                           .frame_bytes = handling->context->request->frame_bytes};
    int err = deferred_open(handling->context, &holder);
    if (err < 0) {
        retained->handling.req.cache = NULL;
        retained->references = 1;
        put_reference(retained);
        cannot_defer(handling, err);
        return NULL;
    }
    struct server_cache *cache = (struct server_cache *)handling->req.cache;
    if (cache != NULL) hosts_share(cache->hosts);
    retained->name = handling->context->deferred;
    retained->index = handling->context->shard->index;
    handling->retained = retained;
    return &retained->handling.req;
}

int fero_req_on(fero_req *req, fero_req_fn function, void *ud)
{
    if (req == NULL || retained_of(req) == NULL)
        return error_set(FERO_E_INVAL, "the request is not retained: see fero_req_retain");
    struct retained *retained = retained_of(req);
    if (shard_running() != retained->shard)
        return error_set(FERO_E_INVAL, "fero_req_on is for the shard's own thread");
    retained->notify = function;
    retained->ud = ud;
    return 0;
}

/* ---------------------------------------------------------------------------------------- replies */

/* What a status and a value are on the wire; `truth` is room for a boolean. */
static ALWAYS_INLINE int read_answer(struct deferred_answer *answer, int32_t status,
                                     const fero_val *value, uint8_t *truth)
{
    *answer = (struct deferred_answer){0};
    if (UNLIKELY(status > 0 || status < -(int32_t)REPLY_ERROR))
        return error_set(FERO_E_INVAL, "a reply's status is %d, but must be 0 or a FERO_E_...",
                         status);
    if (UNLIKELY(status != 0)) answer->code = reply_code(OUTCOME_FAIL, (enum reply_error) - status);
    if (value == NULL) return 0;
    answer->type = (enum value_type)value->type;
    answer->value = value->s.ptr;
    answer->bytes = value->s.len;
    if (LIKELY(value->type == VALUE_STRING || value->type == VALUE_JSON ||
               value->type == VALUE_BYTES))
        return 0;
    switch ((uint32_t)value->type) {
    case VALUE_DOUBLE: answer->value = &value->num; break;
    case VALUE_INT64: answer->value = &value->i64; break;
    case VALUE_BOOL:
        *truth = value->i64 != 0;
        answer->value = truth;
        break;
    case VALUE_UNDEFINED:
    case VALUE_NULL: break;
    default: return error_set(FERO_E_TYPE, "value type %d does not exist", value->type);
    }
    answer->bytes = (size_t)value_type_bytes(answer->type);
    return 0;
}

/* Why a request cannot be answered any more. */
static int is_over(const struct retained *retained)
{
    if (load_acquire_u32(&retained->state) == RETAINED_REPLIED)
        return error_set(FERO_E_INVAL, "replied to before");
    const char *why = retained->error == FERO_E_TIMEOUT   ? "its caller's time is over"
                      : retained->error == FERO_E_STOPPED ? "its caller stopped it"
                      : retained->error == FERO_E_CLOSED  ? "the runtime stops"
                                                          : "its caller has gone";
    return error_set(retained->error, "nobody waits for this reply: %s", why);
}

static int failed(struct retained *retained, int err)
{
    switch (err) {
    case -EMSGSIZE: return error_set(FERO_E_TOOBIG, "the reply is over value.max");
    case -EAGAIN: return error_set_text(FERO_E_AGAIN, "the caller has to take some of it first");
    case -ENOMEM: return error_set(FERO_E_NOMEM, "no memory for a reply");
    default: return is_over(retained);
    }
}

static int reply_here(struct retained *retained, const struct deferred_answer *answer)
{
    int err = deferred_reply(retained->shard, retained->name, answer);
    if (err == 0) return 0;
    store_release_u32(&retained->state, err == -ENOENT ? RETAINED_STOPPED : RETAINED_OPEN);
    return failed(retained, err);
}

/* From another thread: the shard gets it as mail, and may find that nobody waits any more. */
static int give(struct retained *retained, const struct deferred_answer *answer)
{
    const struct server_cache *cache = (const struct server_cache *)retained->handling.req.cache;
    if (cache == NULL) return error_set(FERO_E_INVAL, "the request has no runtime");
    return host_answer(cache->hosts, retained->index, retained->name, answer, &retained->given);
}

static int reply_from_afar(struct retained *retained, const struct deferred_answer *answer)
{
    int err = give(retained, answer);
    if (err < 0) store_release_u32(&retained->state, RETAINED_OPEN);
    return err;
}

static int reply_part(struct retained *retained, const struct deferred_answer *answer)
{
    bool is_told = load_acquire_u32(&retained->was_told) != 0;
    if (load_acquire_u32(&retained->state) != RETAINED_OPEN || is_told) return is_over(retained);
    if (shard_running() != retained->shard) return give(retained, answer);
    int err = deferred_reply(retained->shard, retained->name, answer);
    return err == 0 ? 0 : failed(retained, err);
}

/* The only end: whoever changes the state first. */
static int reply_retained(struct retained *retained, const struct deferred_answer *answer)
{
    struct deferred_answer with_offset = *answer;
    bool is_ok = reply_outcome(answer->code) == OUTCOME_OK;
    if (!swap_if_u32(&retained->state, RETAINED_OPEN, RETAINED_REPLIED)) return is_over(retained);
    with_offset.offset = is_ok ? retained->next_offset : 0;
    return shard_running() == retained->shard ? reply_here(retained, &with_offset)
                                              : reply_from_afar(retained, &with_offset);
}

int fero_reply(fero_req *req, int32_t status, const fero_val *value)
{
    struct handling *handling = (struct handling *)req;
    struct deferred_answer answer;
    uint8_t truth;
    if (req == NULL) return error_set(FERO_E_INVAL, "no request");
    int err = read_answer(&answer, status, value, &truth);
    if (err < 0) return err;
    struct retained *retained = retained_of(req);
    if (retained != NULL) return reply_retained(retained, &answer);
    err = request_reply(handling->context, answer.code, answer.type, answer.value, answer.bytes);
    if (err == 0) return 0;
    return error_set(err == -EMSGSIZE ? FERO_E_TOOBIG : FERO_E_INVAL,
                     err == -EMSGSIZE ? "the reply is over value.max" : "replied to before");
}

int fero_reply_part(fero_req *req, const fero_val *value)
{
    struct deferred_answer answer;
    uint8_t truth;
    if (req == NULL) return error_set(FERO_E_INVAL, "no request");
    struct retained *retained = retained_of(req);
    if (retained == NULL)
        return error_set(FERO_E_INVAL, "only a retained request is replied to in parts");
    int err = read_answer(&answer, FERO_OK, value, &truth);
    if (err < 0) return err;
    answer.is_part = true;
    return reply_part(retained, &answer);
}

void fero_req_release(fero_req *req)
{
    if (req == NULL || retained_of(req) == NULL) return;
    struct retained *retained = retained_of(req);
    static const char text[] = "the handler declined";
    const struct deferred_answer declined = {.code = reply_code(OUTCOME_FAIL, ERROR_NO_REPLY),
                                             .type = VALUE_STRING,
                                             .value = text,
                                             .bytes = sizeof text - 1};
    /* Where it fails, the request ends with its caller's time. */
    bool is_last = add_u64(&retained->users, (uint64_t)-1) == 1;
    bool is_open = load_acquire_u32(&retained->state) == RETAINED_OPEN &&
                   load_acquire_u32(&retained->was_told) == 0;
    if (is_last && is_open) reply_retained(retained, &declined);
    put_reference(retained);
}

/* ----------------------------------------------------------------------------- the default handler */

/* Reads what the default handler said, and keeps it as long as the request. */
static void take_next(struct handling *handling, fero_result *result)
{
    handling->has_next = true;
    result_read(result, handling->next.frame, handling->next.bytes);
    result->seq = handling->req.seq;
}

static int next_now(struct handling *handling, fero_result *result)
{
    struct request_context *context = handling->context;
    struct request request = *context->request;
    if (context->replied) return error_set(FERO_E_INVAL, "replied to before");
    request_capture(context->shard, &request, &handling->next);
    take_next(handling, result);
    context->next_offset = result->offset;
    return 0;
}

static int next_retained(struct retained *retained, fero_result *result)
{
    if (shard_running() != retained->shard)
        return error_set(FERO_E_INVAL, "fero_next is for the shard's own thread");
    if (retained->state != RETAINED_OPEN) return is_over(retained);
    int err = deferred_next(retained->shard, retained->name, &retained->handling.next);
    if (err < 0) return failed(retained, err);
    take_next(&retained->handling, result);
    retained->next_offset = result->offset;
    return 0;
}

int fero_next(fero_req *req, fero_result *result)
{
    fero_result own;
    if (req == NULL) return error_set(FERO_E_INVAL, "no request");
    struct handling *handling = (struct handling *)req;
    struct retained *retained = retained_of(req);
    if (retained != NULL) handling = &retained->handling;
    if (handling->frame_type == FRAME_VERB || handling->frame_type >= FRAME_VERB_FIRST)
        return error_set(FERO_E_UNSUPPORTED, "a verb has no default handler");
    if (handling->has_next)
        return error_set(FERO_E_INVAL, "the default handler has done it before");
    if (result == NULL) result = &own;
    return retained != NULL ? next_retained(retained, result) : next_now(handling, result);
}

/* ------------------------------------------------------------------------------ the handler returns */

/* The reply is what the default handler has said already. */
static void reply_with_next(struct handling *handling)
{
    fero_result result;
    result_read(&result, handling->next.frame, handling->next.bytes);
    fero_reply(&handling->req, result.error, &result.value);
}

int32_t handling_end_slow(struct handling *handling, int32_t result)
{
    bool is_late = result == FERO_H_DEFER && handling->retained == NULL;
    if (is_late) result = handling->was_refused ? FERO_E_AGAIN : FERO_H_IGNORE;
    if (result == FERO_H_NEXT && handling->has_next) {
        reply_with_next(handling);
        result = FERO_H_REPLIED;
    }
    if (handling->has_next) captured_deinit(&handling->next);
    return result;
}
