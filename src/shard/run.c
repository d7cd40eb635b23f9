/*
 * Requests are taken in runs, so that their cache misses overlap: all are decoded and checked, then
 * all keys are hashed and their buckets fetched, then all records, and only then is the first one
 * applied. (MICA and CuckooSwitch do the same; without it a million random keys cost a third more.)
 *
 * A run is applied in order. A request of another shard's slot is copied into that shard's lane at
 * its turn; if the lane is full, the run ends there and the caller's receiving pauses with it.
 */
#include "shard/run.h"

#include <errno.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/memory.h"
#include "ring/slot.h"
#include "shard/bundle.h"
#include "shard/crossing.h"
#include "shard/deep.h"

/* ------------------------------------------------------------------------------- decoding */

/* Sizes of values by type; 255: any. The wire's value_is_valid as one table read. */
#define ANY_BYTES 255
static const uint8_t value_bytes_of[16] = {[VALUE_UNDEFINED] = 0,
                                           [VALUE_STRING] = ANY_BYTES,
                                           [VALUE_DOUBLE] = 8,
                                           [VALUE_JSON] = ANY_BYTES,
                                           [VALUE_BOOL] = 1,
                                           [VALUE_NULL] = 0,
                                           [VALUE_BYTES] = ANY_BYTES,
                                           [VALUE_INT64] = 8,
                                           [8] = 254,
                                           [9] = 254,
                                           [10] = 254,
                                           [11] = 254,
                                           [12] = 254,
                                           [13] = 254,
                                           [14] = 254,
                                           [15] = 254};

static enum decoded broken(struct refusal *refusal, const char *text, uint64_t got, uint64_t limit)
{
    *refusal = (struct refusal){ERROR_PROTOCOL, got, limit, text};
    return DECODED_BROKEN;
}

/* The request can be answered, but only with this error. */
static COLD enum decoded refuse(struct request *request, enum reply_error error, const char *text,
                                uint64_t got, uint64_t limit)
{
    request->error = (uint16_t)error;
    request->is_keyed = false;
    request->error_text = text;
    request->error_got = got;
    request->error_limit = limit;
    return DECODED_REQUEST;
}

static COLD int64_t decode_extensions(struct request *request, const struct shard *shard,
                                      const uint8_t *data, size_t size)
{
    struct extensions extensions;
    int64_t bytes = extensions_decode(&extensions, data, size);
    if (bytes < 0) return bytes;
    uint32_t supported = 1u << EXT_DEADLINE_MS | 1u << EXT_VERB | 1u << EXT_FLOOR;
    uint32_t other = extensions.present & ~supported;
    if (other != 0)
        refuse(request, ERROR_UNSUPPORTED, "extension %llu is not supported here (highest: %llu)",
               (uint64_t)__builtin_ctz(other), EXT_VIEW);
    /* Without any time left it is late already. */
    if ((extensions.present & 1u << EXT_DEADLINE_MS) != 0)
        request->deadline_ns = shard->now_ns + (uint64_t)extensions.deadline_ms * 1000000 -
                               (extensions.deadline_ms == 0);
    request->verb = extensions.verb;
    return bytes;
}

/* What an INFO asks for, by its key: the node's facts unless it says so. */
static bool is_about_errors(const struct request *request)
{
    struct bytes key = {request->store.body, request->store.key_len};
    return bytes_equal(key, bytes_of("errors"));
}

static COLD enum decoded check_slow(struct request *request, const struct shard *shard,
                                    const struct frame_request *header, size_t value_bytes)
{
    const struct shard_options *options = shard->options;
    if (request->error != 0) return DECODED_REQUEST;
    if (header->type == FRAME_INFO) {
        /* It has no cache and no slot, whatever the header says. */
        request->cache = NULL;
        bool is_known = header->key_len == 0 || is_about_errors(request);
        if (is_known && value_bytes == 0) return DECODED_REQUEST;
        return refuse(request, ERROR_INVALID,
                      "INFO with %llu bytes of key, not \"errors\", and %llu of value",
                      header->key_len, value_bytes);
    }
    if (request->cache == NULL)
        return refuse(request, ERROR_NOT_FOUND, "cache number %llu is not open (%llu are)",
                      header->cache, shard->caches_count);
    if (header->key_len > options->key_bytes_max)
        return refuse(request, ERROR_TOO_BIG, "key of %llu bytes is over the limit of %llu",
                      header->key_len, options->key_bytes_max);
    if (value_bytes > options->value_bytes_max)
        return refuse(request, ERROR_TOO_BIG, "value of %llu bytes is over the limit of %llu",
                      value_bytes, options->value_bytes_max);
    if (header->slot != FRAME_SLOT_ANY && header->slot >= SLOTS_COUNT)
        return refuse(request, ERROR_INVALID, "slot %llu is not below %llu", header->slot,
                      SLOTS_COUNT);
    uint8_t type = header->type;
    bool has_key = type >= FRAME_UPDATE && type <= FRAME_INSERT;
    if (has_key && header->key_len == 0 && type != FRAME_ADD)
        return refuse(request, ERROR_INVALID, "key of %llu bytes: it must have at least %llu", 0,
                      1);
    if ((type == FRAME_REMOVE || type == FRAME_GET) && value_bytes != 0)
        return refuse(request, ERROR_INVALID, "value of %llu bytes where %llu are expected",
                      value_bytes, 0);
    if (type == FRAME_VERB && request->verb.size == 0)
        return refuse(request, ERROR_INVALID, "request of type %llu names no verb (extension %llu)",
                      type, EXT_VERB);
    if (type >= FRAME_VERB_FIRST &&
        type - FRAME_VERB_FIRST >= (int)request->cache->definition->verbs_count)
        return refuse(request, ERROR_UNSUPPORTED, "verb number %llu is not one of %llu", type,
                      request->cache->definition->verbs_count);
    if (type == FRAME_STOP &&
        (header->key_len != 0 || (header->flags & FRAME_VALUE_TYPE) != VALUE_INT64))
        return refuse(request, ERROR_INVALID, "STOP has no key and an int64 for its value", 0, 0);
    if (!has_key && type != FRAME_VERB && type < FRAME_VERB_FIRST && type != FRAME_STOP)
        return refuse(request, ERROR_UNSUPPORTED,
                      "request type %llu is unknown (bound verbs: %llu)", type, FRAME_VERB_FIRST);
    const uint8_t *value = request->store.body + header->key_len;
    if (!value_is_valid((enum value_type)request->store.flags, value, value_bytes))
        return refuse(request, ERROR_TYPE, "value of type %llu cannot have %llu bytes or this byte",
                      request->store.flags, value_bytes);
    return DECODED_REQUEST;
}

/* Not all of the header is there: says whether it is worth waiting for. */
static COLD enum decoded decode_prefix(const struct shard_options *options, const uint8_t *data,
                                       size_t size, struct refusal *refusal)
{
    uint32_t length;
    if (size < FRAME_PREFIX_BYTES) return DECODED_PARTIAL;
    memcpy(&length, data, sizeof length);
    if (length < FRAME_REQUEST_BYTES)
        return broken(refusal, "request shorter than its header", length, FRAME_REQUEST_BYTES);
    if (length > options->frame_bytes_max)
        return broken(refusal, "frame over the limit", length, options->frame_bytes_max);
    return DECODED_PARTIAL;
}

enum decoded request_decode(struct request *request, struct shard *shard, const uint8_t *data,
                            size_t size, struct refusal *refusal)
{
    struct frame_request header;
    if (UNLIKELY(size < sizeof header)) return decode_prefix(shard->options, data, size, refusal);
    memcpy(&header, data, sizeof header);
    if (UNLIKELY(header.length < sizeof header))
        return broken(refusal, "request shorter than its header", header.length, sizeof header);
    if (UNLIKELY(header.length > shard->options->frame_bytes_max))
        return broken(refusal, "frame over the limit", header.length,
                      shard->options->frame_bytes_max);
    size_t padded = round_up_8(header.length);
    if (UNLIKELY(padded > size)) return DECODED_PARTIAL;
    if (UNLIKELY((header.flags & FRAME_RESERVED) != 0))
        return broken(refusal, "reserved flag set", header.flags, header.flags & 0x7f);

    const uint8_t *body = data + sizeof header;
    size_t body_bytes = header.length - sizeof header;
    request->error = 0;
    request->is_direct = false;
    request->deadline_ns = 0;
    request->verb.size = 0;
    if (UNLIKELY((header.flags & FRAME_EXTENDED) != 0)) {
        int64_t bytes = decode_extensions(request, shard, body, body_bytes);
        if (bytes < 0) return broken(refusal, "broken extension block", 0, 0);
        body += bytes;
        body_bytes -= (size_t)bytes;
    }
    if (UNLIKELY(header.key_len > body_bytes))
        return broken(refusal, "key longer than its frame", header.key_len, body_bytes);

    size_t value_bytes = body_bytes - header.key_len;
    uint8_t value_type = header.flags & FRAME_VALUE_TYPE;
    struct cache *cache = LIKELY(header.cache < CACHES_MAX) ? shard->caches[header.cache] : NULL;
    request->is_keyed = cache != NULL && header.key_len > 0;
    request->frame = data;
    request->frame_bytes = (uint32_t)padded;
    request->frame_type = header.type;
    request->want = (uint8_t)((header.flags & FRAME_WANT) >> FRAME_WANT_SHIFT);
    request->link_seq = header.seq;
    request->cache = cache;
    request->store.body = body;
    request->store.body_bytes = (uint32_t)body_bytes;
    request->store.key_len = header.key_len;
    request->store.slot = header.slot;
    request->store.type = header.type;
    request->store.flags = value_type;
    request->store.seq = header.seq;

    uint8_t wanted_bytes = value_bytes_of[value_type];
    bool plain =
        header.type == FRAME_UPDATE && cache != NULL && request->error == 0 &&
        (size_t)(header.key_len - 1) < shard->options->key_bytes_max &&
        value_bytes <= shard->options->value_bytes_max &&
        (wanted_bytes == ANY_BYTES || (value_bytes == wanted_bytes && value_type != VALUE_BOOL)) &&
        (header.slot < SLOTS_COUNT || header.slot == FRAME_SLOT_ANY);
    if (LIKELY(plain)) return DECODED_REQUEST;
    return check_slow(request, shard, &header, value_bytes);
}

/* -------------------------------------------------------------------------------- replies */

#define REPLY_BYTES_WITH_OFFSET (FRAME_REPLY_BYTES + sizeof(struct extension) + 8)

size_t request_reply_bytes_max(const struct request *request)
{
    if (request->want < WANT_REPLY) return 0;
    uint8_t type = request->frame_type;
    bool is_change = type >= FRAME_UPDATE && type <= FRAME_INSERT && type != FRAME_GET;
    if (request->error != 0 || is_change) return CHANGED_REPLY_BYTES_MAX;
    return FRAME_REPLY_BYTES + CROSSING_INLINE_BYTES_MAX;
}

/* Room for a reply that nobody sends. */
static COLD uint8_t *captured_room(struct captured *captured, size_t bytes)
{
    captured->bytes = bytes;
    if (bytes <= sizeof captured->short_frame) return captured->frame = captured->short_frame;
    captured->long_frame = memory_take(bytes);
    return captured->frame = captured->long_frame;
}

/* Room for a reply of `bytes`, padded; NULL where there is none and the reply is lost with its link. */
static ALWAYS_INLINE uint8_t *reply_room(struct request_context *context, size_t bytes)
{
    if (LIKELY(context->caller != NULL)) return link_reserve(&context->caller->link, bytes);
    if (UNLIKELY(context->captured != NULL)) return captured_room(context->captured, bytes);
    return crossing_reply_room(context, bytes);
}

static ALWAYS_INLINE void reply_done(struct request_context *context, size_t bytes)
{
    if (LIKELY(context->caller != NULL)) link_commit(&context->caller->link, bytes);
    count(&context->shard->counters.replies, 1);
}

/* The link cannot go on without this reply. Over a lane there is always room for a short one. */
static COLD void reply_lost(struct request_context *context)
{
    struct refusal refusal = {ERROR_NO_MEMORY, 0, 0, "no memory for a reply"};
    if (context->caller != NULL) {
        caller_refuse(context->caller, &refusal);
        return;
    }
    struct frame_reply reply = {.length = sizeof reply,
                                .type = FRAME_REPLY,
                                .code = reply_code(OUTCOME_UNKNOWN, ERROR_NO_MEMORY),
                                .seq = context->request->link_seq};
    uint8_t *to = reply_room(context, sizeof reply);
    ASSERT(to != NULL);
    memcpy(to, &reply, sizeof reply);
    reply_done(context, sizeof reply);
}

/* An offset that the header does not hold. */
static COLD void put_offset(uint8_t *to, uint64_t offset)
{
    struct extensions extensions = {.present = 1u << EXT_OFFSET, .offset = offset};
    extensions_encode(&extensions, to);
}

/* The 16-byte reply of an update or a removal: by far the most frequent one. */
static ALWAYS_INLINE void reply_changed(struct request_context *context, uint64_t offset,
                                        uint8_t flags)
{
    context->replied = true;
    if (context->request->want < WANT_REPLY) return;
    bool wide = offset > UINT32_MAX;
    size_t bytes = wide ? REPLY_BYTES_WITH_OFFSET : FRAME_REPLY_BYTES;
    uint8_t *to = reply_room(context, bytes);
    if (UNLIKELY(to == NULL)) {
        reply_lost(context);
        return;
    }
    struct frame_reply reply = {.length = (uint32_t)bytes,
                                .type = FRAME_REPLY,
                                .flags = flags,
                                .seq = context->request->link_seq,
                                .offset = (uint32_t)offset};
    if (UNLIKELY(wide)) {
        reply.flags |= FRAME_EXTENDED;
        put_offset(to + sizeof reply, offset);
    }
    memcpy(to, &reply, sizeof reply);
    reply_done(context, bytes);
}

static ALWAYS_INLINE size_t reply_bytes(uint64_t offset, size_t value_bytes)
{
    return (offset > UINT32_MAX ? REPLY_BYTES_WITH_OFFSET : FRAME_REPLY_BYTES) + value_bytes;
}

/*
 * Begins a reply that its caller takes (over a lane the caller's shard looks at that): returns where
 * its value goes, or NULL where nobody wants one or it was lost. reply_done with `padded_bytes` ends it.
 */
static ALWAYS_INLINE uint8_t *reply_begin(struct request_context *context, uint16_t code,
                                          uint64_t offset, uint8_t flags, size_t value_bytes,
                                          size_t *padded_bytes)
{
    context->replied = true;
    if (reply_outcome(code) != OUTCOME_OK) count(&context->shard->counters.errors, 1);
    if (context->request->want < WANT_REPLY) return NULL;
    bool wide = offset > UINT32_MAX;
    size_t length = reply_bytes(offset, value_bytes);
    size_t padded = round_up_8(length);
    uint8_t *to = reply_room(context, padded);
    *padded_bytes = padded;
    if (UNLIKELY(to == NULL)) {
        reply_lost(context);
        return NULL;
    }
    struct frame_reply reply = {.length = (uint32_t)length,
                                .type = FRAME_REPLY,
                                .flags = flags,
                                .code = code,
                                .seq = context->request->link_seq,
                                .offset = (uint32_t)offset};
    memset(to + padded - 8, 0, 8);
    if (UNLIKELY(wide)) {
        reply.flags |= FRAME_EXTENDED;
        put_offset(to + sizeof reply, offset);
    }
    memcpy(to, &reply, sizeof reply);
    return to + length - value_bytes;
}

static ALWAYS_INLINE void reply_write(struct request_context *context, uint16_t code,
                                      uint64_t offset, uint8_t flags, const void *value,
                                      size_t value_bytes)
{
    size_t padded;
    uint8_t *to = reply_begin(context, code, offset, flags, value_bytes, &padded);
    if (UNLIKELY(to == NULL)) return;
    if (value_bytes > 0) memcpy(to, value, value_bytes);
    reply_done(context, padded);
}

/* `text` is a constant with two %llu at most. */
static void reply_text(struct request_context *context, uint16_t code, const char *text,
                       uint64_t got, uint64_t limit)
{
    char line[ERROR_TEXT_BYTES_MAX];
    note_error(context->shard, ERROR_OF_REPLY, (enum reply_error)(code & REPLY_ERROR), text, got,
               limit);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    unsigned long long numbers[2] = {got, limit};
    /* cppcheck-suppress wrongPrintfScanfArgNum */
    int bytes = snprintf(line, sizeof line, text, numbers[0], numbers[1]);
#pragma GCC diagnostic pop
    bytes = bytes < (int)sizeof line ? bytes : (int)sizeof line - 1;
    reply_write(context, code, 0, VALUE_STRING, line, (size_t)bytes);
}

static void reply_fail(struct request_context *context, enum reply_error error, const char *text,
                       uint64_t got, uint64_t limit)
{
    reply_text(context, reply_code(OUTCOME_FAIL, error), text, got, limit);
}

static COLD void reply_too_long(struct request_context *context, uint64_t length)
{
    _Static_assert(CHANGED_REPLY_BYTES_MAX <= HELLO_FRAME_BYTES_MIN, "this one is taken by all");
    reply_fail(context, ERROR_TOO_BIG,
               "the reply has %llu bytes, but frames on this link at most %llu (HELLO)", length,
               context->caller->frame_bytes_max);
}

/* Whether the caller's peer takes so long a reply; over a lane his shard looks at that. */
static ALWAYS_INLINE bool may_reply(const struct request_context *context, uint64_t offset,
                                    size_t value_bytes)
{
    return context->caller == NULL ||
           reply_bytes(offset, value_bytes) <= context->caller->frame_bytes_max ||
           context->request->want < WANT_REPLY;
}

static void reply_value(struct request_context *context, uint16_t code, uint64_t offset,
                        enum value_type type, const void *value, size_t value_bytes)
{
    if (LIKELY(may_reply(context, offset, value_bytes)))
        reply_write(context, code, offset, (uint8_t)type, value, value_bytes);
    else
        reply_too_long(context, reply_bytes(offset, value_bytes));
}

int request_reply(struct request_context *context, uint16_t code, enum value_type type,
                  const void *value, size_t bytes)
{
    if (context->replied) return -EALREADY;
    if (bytes > context->shard->options->value_bytes_max) return -EMSGSIZE;
    uint64_t offset = 0;
    if (reply_outcome(code) != OUTCOME_OK)
        note_error_example(context->shard, ERROR_OF_HANDLER, (enum reply_error)(code & REPLY_ERROR),
                           "a handler replied with an error",
                           (struct bytes){value, type == VALUE_STRING ? bytes : 0});
    else
        offset = context->next_offset;
    reply_value(context, code, offset, type, value, bytes);
    return 0;
}

void request_reply_too_long(struct caller *caller, uint32_t seq, uint64_t length)
{
    struct request request = {.want = WANT_REPLY, .link_seq = seq};
    struct request_context context = {
        .shard = caller->shard, .caller = caller, .request = &request};
    /* Who wrote the reply that this one takes the place of has counted it. */
    count(&caller->shard->counters.replies, -(uint64_t)1);
    reply_too_long(&context, length);
}

int request_fail(struct request_context *context, enum reply_error error, const char *text,
                 uint64_t got, uint64_t limit)
{
    if (context->replied) return -EALREADY;
    reply_fail(context, error, text, got, limit);
    return 0;
}

/* ------------------------------------------------------------------------------- applying */

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
        reply_write(context, reply_code(OUTCOME_FAIL, refusal->error), 0, VALUE_STRING,
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
    reply_write(context, reply_code(OUTCOME_OK, ERROR_NONE), change_offset(change),
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
        reply_text(context, reply_code(OUTCOME_UNKNOWN, ERROR_STALE),
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
        reply_changed(context, change != NULL ? change_offset(change) : 0, REPLY_DUPLICATE);
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
    reply_changed(context, change_offset(change), 0);
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
        reply_changed(context, 0, 0);
        return;
    }
    remember(context, change);
    if (gives_number(request))
        reply_added(context, change, 0);
    else
        reply_changed(context, change_offset(change), 0);
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
    if (!may_reply(context, value.offset, value.bytes)) {
        reply_too_long(context, reply_bytes(value.offset, value.bytes));
        return;
    }
    size_t padded;
    uint8_t *to = reply_begin(context, reply_code(OUTCOME_OK, ERROR_NONE), value.offset,
                              (uint8_t)value.type, value.bytes, &padded);
    if (to == NULL) return;
    deep_value_copy(store, &value, to);
    reply_done(context, padded);
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
        reply_value(context, reply_code(OUTCOME_OK, ERROR_NONE), change_offset(change),
                    change_value_type(change), change_value(change), change_value_bytes(change));
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
    size_t bytes = is_about_errors(context->request)
                       ? info_write_errors(context->shard, text, sizeof text)
                       : info_write(context->shard, text, sizeof text);
    reply_value(context, reply_code(OUTCOME_OK, ERROR_NONE), 0, VALUE_JSON, text, bytes);
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
        reply_value(context, reply_code(OUTCOME_OK, ERROR_NONE), 0, VALUE_UNDEFINED, NULL, 0);
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
    request_fail(context, (enum reply_error)request->error, request->error_text, request->error_got,
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

/* ------------------------------------------------------------------------- from a caller */

struct run {
    struct request requests[RUN_MAX];
    uint64_t foreign; /* a bit for each request that another shard owns */
    unsigned count;
};

/* The shard that owns the request's slot; requests without a key are handled where they arrive. */
static ALWAYS_INLINE uint32_t owner_of(const struct shard *shard, struct request *request)
{
    if (shard->options->shards_count == 1 || !request->is_keyed) return shard->index;
    if (request->store.slot == FRAME_SLOT_ANY)
        request->store.slot = slot_of_key(request->store.body, request->store.key_len);
    return shard->slot_owner[request->store.slot];
}

static bool is_control(const uint8_t *data, size_t size)
{
    return size >= FRAME_PREFIX_BYTES && data[4] < FRAME_UPDATE && data[4] != FRAME_INFO;
}

/*
 * What updates.c left: a single update that looks plain, behind which others may be so, or a run of
 * other requests. Updates that it never takes come in runs, too: those with a timeout of their own,
 * or that want no reply, or of numbers.
 */
static unsigned run_length(const uint8_t *data, size_t size)
{
    if (size < FRAME_PREFIX_BYTES || data[4] != FRAME_UPDATE) return RUN_MAX;
    uint8_t flags = data[5];
    bool looks_plain = (flags & (FRAME_WANT | FRAME_EXTENDED)) == WANT_REPLY << FRAME_WANT_SHIFT &&
                       value_bytes_of[flags & FRAME_VALUE_TYPE] == ANY_BYTES;
    return looks_plain && !request_looks_deep(data, size) ? 1 : RUN_MAX;
}

/* The number with this low half that is nearest to the highest one on the link. */
static ALWAYS_INLINE uint64_t seq_nearest(uint64_t highest, uint32_t low)
{
    return highest + (uint64_t)(int64_t)(int32_t)(low - (uint32_t)highest);
}

/* Numbers that a session was given are remembered as if they were addresses of another session. */
#define IDS_SESSION 0x6964732d67697665u

/*
 * The number for an add without a key: the one that it had if it is sent again. 0: there is none, and
 * the request says why.
 */
static COLD uint64_t id_for(struct request *request, struct caller *caller)
{
    struct shard *shard = caller->shard;
    struct cache_ids *ids = request->cache->definition->ids;
    uint64_t seq = request->store.seq_whole;
    uint32_t low = 0;
    struct session_claim claim = caller->claim;
    if (claim.id == 0) return cache_next_id(ids);
    claim.id ^= IDS_SESSION;
    struct session *session = claim.id != 0 ? sessions_use(&shard->sessions, &claim) : NULL;
    enum session_verdict verdict =
        session != NULL ? session_probe(session, seq, &low) : SESSION_NEW;
    if (verdict == SESSION_KNOWN) return seq_nearest(load_relaxed_u64(&ids->given), low);
    if (verdict == SESSION_STALE) {
        refuse(request, ERROR_STALE,
               "sequence number %llu is below the session's window, which ends at %llu", seq,
               session->seq_highest);
        return 0;
    }
    if (session == NULL ||
        (session_must_grow(session, seq) && sessions_grow(&shard->sessions, session, seq) < 0)) {
        refuse(request, ERROR_NO_MEMORY, "no memory to remember the request", 0, 0);
        return 0;
    }
    uint64_t id = cache_next_id(ids);
    session_remember(session, seq, id << 3);
    return id;
}

/*
 * An add without a key becomes an insert of the next number, for whichever shard that is. It lies in
 * the shard's scratch, so the run ends with it.
 */
static COLD void give_id(struct request *request, struct caller *caller)
{
    struct shard *shard = caller->shard;
    struct frame_request frame;
    struct refusal refusal;
    char key[24];
    uint64_t id = id_for(request, caller);
    if (id == 0) return;
    struct request original = *request;
    size_t key_len = (size_t)snprintf(key, sizeof key, "%llu", (unsigned long long)id);
    size_t length = sizeof frame + key_len + original.store.body_bytes;
    size_t bytes = round_up_8(length) + UPDATES_SLACK_BYTES;
    if (shard->scratch_bytes < bytes) {
        uint8_t *scratch = memory_take(bytes);
        if (scratch == NULL) {
            refuse(request, ERROR_NO_MEMORY, "no memory for %llu bytes", bytes, 0);
            return;
        }
        memory_put(shard->scratch);
        shard->scratch = scratch;
        shard->scratch_bytes = bytes;
    }
    memcpy(&frame, request->frame, sizeof frame);
    frame.length = (uint32_t)length;
    frame.type = FRAME_INSERT;
    frame.flags &= (uint8_t)~FRAME_EXTENDED;
    frame.key_len = (uint16_t)key_len;
    frame.slot = FRAME_SLOT_ANY;
    memset(shard->scratch + round_up_8(length) - 8, 0, 8);
    memcpy(shard->scratch, &frame, sizeof frame);
    memcpy(shard->scratch + sizeof frame, key, key_len);
    memcpy(shard->scratch + sizeof frame + key_len, original.store.body, original.store.body_bytes);
    enum decoded decoded =
        request_decode(request, shard, shard->scratch, round_up_8(length), &refusal);
    if (decoded != DECODED_REQUEST) *request = original; /* it is too long now */
    request->input_bytes = original.input_bytes;
    request->deadline_ns = original.deadline_ns;
    request->store.seq_whole = original.store.seq_whole;
    if (decoded != DECODED_REQUEST)
        refuse(request, ERROR_TOO_BIG, "a frame of %llu bytes with its key, of %llu at most",
               length, shard->options->frame_bytes_max);
}

static bool wants_id(const struct request *request)
{
    return UNLIKELY(request->frame_type == FRAME_ADD) && request->store.key_len == 0 &&
           request->error == 0;
}

/* Decodes up to RUN_MAX requests at `data` and starts fetching what they need. */
static enum decoded run_decode(struct run *run, struct caller *caller, const uint8_t *data,
                               size_t size, struct refusal *refusal)
{
    struct shard *shard = caller->shard;
    enum decoded decoded = DECODED_REQUEST;
    uint64_t highest = caller->seq_highest;
    size_t at = 0;
    run->count = 0;
    run->foreign = 0;
    unsigned count_max = run_length(data, size);
    while (run->count < count_max && at < size) {
        struct request *request = &run->requests[run->count];
        if (UNLIKELY(is_control(data + at, size - at))) break;
        decoded = request_decode(request, shard, data + at, size - at, refusal);
        if (UNLIKELY(decoded != DECODED_REQUEST)) break;
        /* Its time runs from when it was first read. */
        if (UNLIKELY(request->deadline_ns != 0) && at < caller->again_bytes)
            request->deadline_ns -= shard->now_ns - caller->again_ns;
        at += request->frame_bytes;
        request->input_bytes = request->frame_bytes;
        request->store.seq_whole = seq_nearest(highest, request->link_seq);
        highest = max_u64(highest, request->store.seq_whole);
        bool was_given_id = wants_id(request);
        if (UNLIKELY(was_given_id)) give_id(request, caller);
        request->store.session = caller->claim.id;
        request->session = caller->session;
        if (owner_of(shard, request) != shard->index) {
            run->foreign |= (uint64_t)1 << run->count;
        } else if (request->is_keyed) {
            store_prefetch(&request->cache->store, &request->store);
        }
        run->count++;
        if (UNLIKELY(request->frame_type == FRAME_INFO || was_given_id)) break;
    }
    for (unsigned i = 0; i < run->count; i++) {
        struct request *request = &run->requests[i];
        if ((run->foreign >> i & 1) == 0 && request->is_keyed)
            store_probe(&request->cache->store, &request->store);
    }
    return decoded;
}

/* Applies one request, here or over there. False: no room, nothing was done. */
static ALWAYS_INLINE bool run_one(struct caller *caller, struct request *request, bool foreign)
{
    struct shard *shard = caller->shard;
    if (UNLIKELY(foreign)) return crossing_try_send(caller, request);
    struct request_context context = {.shard = shard, .caller = caller, .request = request};
    if (UNLIKELY(request_is_late(shard, request)))
        request_fail_late(&context);
    else
        request_apply(&context);
    return true;
}

/* These bytes of the caller's were taken. */
static ALWAYS_INLINE void took(struct caller *caller, size_t bytes)
{
    if (UNLIKELY(caller->again_bytes > 0))
        caller->again_bytes -= min_u64(caller->again_bytes, bytes);
}

/* Applies the run in order; returns the bytes of what was applied. */
static size_t run_apply(struct run *run, struct caller *caller)
{
    struct shard *shard = caller->shard;
    size_t room = shard->outbox_bytes;
    size_t bytes = 0;
    unsigned i = 0;
    bool small = true; /* only replies of 16 bytes since the outbox was looked at */
    if (UNLIKELY(!caller_has_room(caller, room))) return 0;
    for (; i < run->count; i++) {
        struct request *request = &run->requests[i];
        if (UNLIKELY(!small) && !caller_has_room(caller, room)) break;
        if (UNLIKELY(caller->state != CALLER_READY)) break;
        if (!run_one(caller, request, (run->foreign >> i & 1) != 0)) break;
        if (request->frame_type != FRAME_UPDATE) small = false;
        caller->seq_highest = max_u64(caller->seq_highest, request->store.seq_whole);
        caller->seq_last = request->link_seq;
        bytes += request->input_bytes;
    }
    caller->requests += i;
    caller->consumed_bytes += bytes;
    took(caller, bytes);
    shard->work += i;
    count(&shard->counters.requests, i);
    return bytes;
}

static int64_t run_refuse(struct caller *caller, const struct refusal *refusal)
{
    caller_refuse(caller, refusal);
    return -EPROTO;
}

/* INFO costs as much as a thousand other requests: a caller has one of them a turn. */
static bool is_costly(const struct run *run)
{
    return run->count > 0 && run->requests[run->count - 1].frame_type == FRAME_INFO;
}

/*
 * What comes next must wait, for room or for the next turn: its receiving pauses. The `bytes` that
 * are left come again. If some of them did before, their time is kept, and that of the others begins
 * when they come again: rather late than early.
 */
static void run_block(struct caller *caller, size_t bytes)
{
    if (caller->again_bytes == 0) {
        caller->again_bytes = bytes;
        caller->again_ns = caller->shard->now_ns;
    }
    caller->link.blocked = true;
    caller_mark_waiting(caller);
}

/* The short way: plain updates from the start of `data`; returns their bytes. */
static size_t take_plain(struct caller *caller, const uint8_t *data, size_t size)
{
    struct shard *shard = caller->shard;
    struct bundles bundles;
    struct updates updates = {.shard = shard,
                              .session = caller->session,
                              .session_id = caller->claim.id,
                              .seq = caller->seq_highest};
    if (size < UPDATES_SLACK_BYTES || data[4] != FRAME_UPDATE) return 0;
    if (BUGGIFY("general_way")) return 0;
    if (UNLIKELY(request_looks_deep(data, size))) return 0;
    if (UNLIKELY(!caller_has_room(caller, shard->outbox_bytes))) return 0;
    updates.replies = link_reserve(&caller->link, UPDATES_MAX * FRAME_REPLY_BYTES);
    if (UNLIKELY(updates.replies == NULL)) return 0;
    if (caller->session != NULL) session_before_run(caller->session);
    bundles_init(&bundles, caller);
    if (shard->options->shards_count > 1) updates.bundles = &bundles;
    size_t bytes = shard->updates_take(&updates, data, size);
    if (bytes == 0) return 0;
    bundles_end(&bundles);
    link_commit(&caller->link, updates.applied * FRAME_REPLY_BYTES);
    uint32_t taken = updates.applied + bundles.pushed;
    caller->seq_highest = max_u64(updates.seq, bundles.seq);
    caller->seq_last = updates.seq_last;
    caller->requests += taken;
    caller->consumed_bytes += bytes;
    caller->must_ack = true;
    took(caller, bytes);
    shard->work += taken;
    count(&shard->counters.requests, taken);
    return bytes;
}

int64_t run_from_caller(void *context, uint8_t *data, size_t size)
{
    struct caller *caller = context;
    struct refusal refusal;
    struct run run;
    size_t at = 0;
    while (at < size) {
        size_t plain;
        while ((plain = take_plain(caller, data + at, size - at)) > 0) at += plain;
        if (at == size) break;
        enum decoded decoded = run_decode(&run, caller, data + at, size - at, &refusal);
        size_t run_bytes = 0;
        for (unsigned i = 0; i < run.count; i++) run_bytes += run.requests[i].input_bytes;
        size_t applied = run_apply(&run, caller);
        at += applied;
        caller->must_ack |= applied > 0;
        if (caller->state != CALLER_READY) return -EPIPE;
        if (applied < run_bytes || (UNLIKELY(is_costly(&run)) && at < size)) {
            run_block(caller, size - at);
            break;
        }
        if (decoded == DECODED_BROKEN) return run_refuse(caller, &refusal);
        if (decoded == DECODED_PARTIAL) break;
        if (run.count > 0 || at == size) continue;
        if (!caller_has_room(caller, caller->shard->outbox_bytes)) {
            run_block(caller, size - at);
            break;
        }
        int64_t taken = caller_control(caller, data + at, size - at);
        if (taken < 0) return taken;
        if (taken == 0) break;
        at += (size_t)taken;
        took(caller, (size_t)taken);
    }
    caller_mark_dirty(caller);
    return (int64_t)at;
}
