/*
 * A request as the public API is given it, and its way to the wire: what clients and the threads of
 * a server have in common. Inline, because a client makes millions of them a second.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "engine/error.h"
#include "fero.h"
#include "wire/frame.h"

#define TIMEOUT_MS_DEFAULT 10000
/* Longer deadlines are this long: eleven days. */
#define TIMEOUT_MS_MAX 1000000000

/* One request, as it is put together. */
struct message {
    uint8_t type; /* enum frame_type or a verb's number */
    uint8_t value_type;
    uint16_t slot;
    fero_slice key;
    struct bytes value;
    struct bytes verb;       /* by name, where the node gave it no number */
    struct bytes extensions; /* the block that says so */
};

/* What the caller wants to hear of it. */
struct wish {
    int32_t want;
    int64_t timeout_ms;
    uint32_t deadline_ms; /* the node is told: the caller's own timeout, 0: none */
    fero_done_fn done;
    void *ud;
    fero_queue *queue; /* where the answer goes, NULL: nowhere */
    bool is_stream;    /* each part of it is wanted */
};

static COLD int value_is_bad(uint32_t bytes_max, const fero_val *value, size_t bytes)
{
    if (value->type < 0 || value->type >= VALUE_TYPES_COUNT)
        return error_set(FERO_E_TYPE, "value type %d does not exist", value->type);
    return error_set(FERO_E_TOOBIG, "a value of %zu bytes is over the node's limit of %u", bytes,
                     bytes_max);
}

/* A caller's struct of another version: its fields, as far as they go. */
static COLD int wish_read_slow(struct wish *wish, const fero_wopts *opts)
{
    fero_wopts own = {0};
    if (opts->size < sizeof opts->size)
        return error_set(FERO_E_INVAL, "fero_wopts.size is %zu: set it to sizeof(fero_wopts)",
                         opts->size);
    memcpy(&own, opts, min_u64(opts->size, sizeof own));
    if (own.want < FERO_NOTHING || own.want > FERO_STREAM)
        return error_set(FERO_E_INVAL, "want is %d, but must be from 0 to 3", own.want);
    if (own.timeout_ms < 0 && own.timeout_ms != FERO_OFF)
        return error_set(FERO_E_INVAL, "timeout_ms is %lld", (long long)own.timeout_ms);
    bool is_stream = own.want == FERO_STREAM;
    if (is_stream) own.want = FERO_REPLY;
    *wish = (struct wish){.want = own.want,
                          .timeout_ms = own.timeout_ms,
                          .done = own.done,
                          .ud = own.ud,
                          .queue = own.queue,
                          .is_stream = is_stream && own.queue == NULL};
    if (wish->timeout_ms == FERO_OFF || wish->timeout_ms > TIMEOUT_MS_MAX)
        wish->timeout_ms = TIMEOUT_MS_MAX;
    else if (own.want == FERO_REPLY)
        wish->deadline_ms = (uint32_t)own.timeout_ms;
    return 0;
}

/* Copies like memcpy; keys are short, and a call costs more than their copy. */
static ALWAYS_INLINE void copy_short(uint8_t *to, const void *from, size_t bytes)
{
    const uint8_t *source = from;
    if (bytes - 8 <= 8) {
        uint64_t first;
        uint64_t last;
        memcpy(&first, source, 8);
        memcpy(&last, source + bytes - 8, 8);
        memcpy(to, &first, 8);
        memcpy(to + bytes - 8, &last, 8);
    } else if (bytes > 0) {
        memcpy(to, source, bytes);
    }
}

/* Bytes of a value on the wire and where they are. `truth` is room for a boolean. */
static ALWAYS_INLINE int message_read_value(struct message *message, uint32_t bytes_max,
                                            const fero_val *value, uint8_t *truth)
{
    message->value = (struct bytes){NULL, 0};
    message->value_type = VALUE_UNDEFINED;
    if (value == NULL) return 0;
    message->value_type = (uint8_t)value->type;
    if (LIKELY(value->type == VALUE_BYTES || value->type == VALUE_STRING ||
               value->type == VALUE_JSON)) {
        message->value = (struct bytes){value->s.ptr, value->s.len};
        if (UNLIKELY(value->s.len > bytes_max)) return value_is_bad(bytes_max, value, value->s.len);
        return 0;
    }
    switch ((uint32_t)value->type) {
    case VALUE_DOUBLE: message->value = (struct bytes){&value->num, 8}; return 0;
    case VALUE_INT64: message->value = (struct bytes){&value->i64, 8}; return 0;
    case VALUE_BOOL:
        *truth = value->i64 != 0;
        message->value = (struct bytes){truth, 1};
        return 0;
    case VALUE_UNDEFINED:
    case VALUE_NULL: return 0;
    default: return value_is_bad(bytes_max, value, 0);
    }
}

static ALWAYS_INLINE int wish_read(struct wish *wish, const fero_wopts *opts)
{
    if (opts == NULL) {
        *wish = (struct wish){.want = FERO_NOTHING};
        return 0;
    }
    bool is_plain = opts->size == sizeof *opts && (uint32_t)opts->want <= FERO_REPLY &&
                    (uint64_t)opts->timeout_ms <= TIMEOUT_MS_MAX && opts->queue == NULL;
    if (UNLIKELY(!is_plain)) return wish_read_slow(wish, opts);
    uint32_t deadline_ms = opts->want == FERO_REPLY ? (uint32_t)opts->timeout_ms : 0;
    *wish =
        (struct wish){opts->want, opts->timeout_ms, deadline_ms, opts->done, opts->ud, NULL, false};
    return 0;
}

static ALWAYS_INLINE void message_encode(uint8_t *to, const struct message *message, uint32_t seq,
                                         uint16_t cache, int32_t want, size_t length, size_t padded)
{
    static const uint64_t zero;
    struct frame_request header = {
        .length = (uint32_t)length,
        .type = message->type,
        .flags = (uint8_t)(message->value_type | (uint32_t)want << FRAME_WANT_SHIFT |
                           (message->extensions.size > 0 ? FRAME_EXTENDED : 0)),
        .key_len = (uint16_t)message->key.len,
        .cache = cache,
        .slot = message->slot,
        .seq = seq};
    memcpy(to + padded - 8, &zero, 8); /* the padding; what is no padding is written next */
    memcpy(to, &header, sizeof header);
    to += sizeof header;
    if (message->extensions.size > 0) {
        memcpy(to, message->extensions.data, message->extensions.size);
        to += message->extensions.size;
    }
    copy_short(to, message->key.ptr, message->key.len);
    if (message->value.size > 0)
        memcpy(to + message->key.len, message->value.data, message->value.size);
}
