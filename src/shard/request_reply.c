#include "shard/request_reply.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "shard/crossing.h"

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

void request_reply_changed(struct request_context *context, uint64_t offset, uint8_t flags)
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

/* Begins a reply that fits: returns where its value goes; NULL: nobody wants one, or it was lost. */
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

void request_reply_write(struct request_context *context, uint16_t code, uint64_t offset,
                         uint8_t flags, const void *value, size_t value_bytes)
{
    reply_write(context, code, offset, flags, value, value_bytes);
}

void request_reply_text(struct request_context *context, uint16_t code, const char *text,
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
    request_reply_text(context, reply_code(OUTCOME_FAIL, error), text, got, limit);
}

static COLD void fail_too_long(struct request_context *context, uint64_t length)
{
    _Static_assert(CHANGED_REPLY_BYTES_MAX <= HELLO_FRAME_BYTES_MIN, "this one is taken by all");
    reply_fail(context, ERROR_TOO_BIG,
               "the reply has %llu bytes, but frames on this link at most %llu (HELLO)", length,
               context->caller->frame_bytes_max);
}

/* Whether the caller's peer takes so long a reply; over a lane his shard looks at that. */
static ALWAYS_INLINE bool reply_fits(struct request_context *context, uint64_t offset,
                                     size_t value_bytes)
{
    size_t bytes = reply_bytes(offset, value_bytes);
    if (LIKELY(context->caller == NULL || bytes <= context->caller->frame_bytes_max ||
               context->request->want < WANT_REPLY))
        return true;
    fail_too_long(context, bytes);
    return false;
}

void request_reply_value(struct request_context *context, uint16_t code, uint64_t offset,
                         enum value_type type, const void *value, size_t value_bytes)
{
    if (LIKELY(reply_fits(context, offset, value_bytes)))
        reply_write(context, code, offset, (uint8_t)type, value, value_bytes);
}

uint8_t *request_reply_begin(struct request_context *context, uint16_t code, uint64_t offset,
                             uint8_t flags, size_t value_bytes, size_t *padded_bytes)
{
    if (!reply_fits(context, offset, value_bytes)) return NULL;
    return reply_begin(context, code, offset, flags, value_bytes, padded_bytes);
}

void request_reply_done(struct request_context *context, size_t padded_bytes)
{
    reply_done(context, padded_bytes);
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
    request_reply_value(context, code, offset, type, value, bytes);
    return 0;
}

void request_reply_too_long(struct caller *caller, uint32_t seq, uint64_t length)
{
    struct request request = {.want = WANT_REPLY, .link_seq = seq};
    struct request_context context = {
        .shard = caller->shard, .caller = caller, .request = &request};
    /* Who wrote the reply that this one takes the place of has counted it. */
    count(&caller->shard->counters.replies, -(uint64_t)1);
    fail_too_long(&context, length);
}

int request_fail(struct request_context *context, enum reply_error error, const char *text,
                 uint64_t got, uint64_t limit)
{
    if (context->replied) return -EALREADY;
    reply_fail(context, error, text, got, limit);
    return 0;
}
