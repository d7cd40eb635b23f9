/*
 * One request of a peer or a thread, on the shard that has it:
 *
 *   request         decodes and checks it
 *   request_ids     gives a number to an add without a key
 *   request_apply   does it, by its handler or by the default one
 *   request_reply   writes its reply
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shard/deferred.h"
#include "shard/shard.h"
#include "wire/frame.h"

/* Longest text of an error reply. */
#define ERROR_TEXT_BYTES_MAX 160
/* Of the reply to an update or a removal. */
#define CHANGED_REPLY_BYTES_MAX (FRAME_REPLY_BYTES + ERROR_TEXT_BYTES_MAX)

/* One decoded request. */
struct request {
    struct store_request store;
    struct cache *cache; /* NULL only where `error` is set, or for INFO */
    const uint8_t *frame;
    uint32_t frame_bytes; /* with the padding */
    uint32_t
        input_bytes; /* what it takes of its caller's input: more, or less, where it was rewritten */
    uint32_t link_seq;
    uint8_t want; /* enum frame_want */
    uint8_t frame_type;
    uint16_t error; /* enum reply_error found when decoding; its text in error_got, error_limit */
    const char *error_text; /* has two %llu at most */
    uint64_t error_got;
    uint64_t error_limit;
    uint64_t deadline_ns; /* 0: none */
    struct bytes verb;    /* by name, where the type is FRAME_VERB */
    /* Of requests that came over a lane. */
    struct session *session;
    uint32_t caller;
    uint32_t generation;
    uint16_t promise; /* outbox bytes reserved for the reply, in units of 16 */
    bool is_direct;   /* for the default handler only: made by a handler */
    bool is_keyed;    /* it has a key of its cache, and nothing is wrong with it */
};

/* Where a request came from and its reply goes. Exactly one of caller and `from_lane`. */
struct request_context {
    struct shard *shard;
    struct caller *caller; /* NULL: over a lane */
    struct request *request;
    struct mail *mail; /* over a lane: the reply's, pushed before the request is applied */
    uint32_t from;     /* over a lane: the shard, or FROM_PORTS and a port */
    bool replied;
    struct deferred_name deferred; /* generation 0: it is not */
    uint64_t next_offset;          /* of the change that the default handler made for it */
    struct captured *captured; /* takes the reply instead of caller and lane; NULL: nobody does */
};

/* A reply that is read here and not sent. */
struct captured {
    uint8_t *frame;
    size_t bytes;
    uint8_t *long_frame;
    uint8_t short_frame[CHANGED_REPLY_BYTES_MAX + 24];
};

enum decoded {
    DECODED_REQUEST,
    DECODED_PARTIAL, /* not all of the frame is there */
    DECODED_BROKEN   /* `refusal` says what is wrong; the link is closed */
};

/* Decodes one request at `data`, checking everything but the state of the store. */
enum decoded request_decode(struct request *request, struct shard *shard, const uint8_t *data,
                            size_t size, struct refusal *refusal);

/* Whether an INFO asks for the errors rather than for the node's facts. */
bool request_is_about_errors(const struct request *request);
/* An add that has no key becomes an insert of the next number, or fails. */
void request_give_id(struct request *request, struct caller *caller);
/* From now on the request can be answered only with this error. */
void request_refuse(struct request *request, enum reply_error error, const char *text, uint64_t got,
                    uint64_t limit);

/* Applies one prepared request and writes its reply. */
void request_apply(struct request_context *context);

/* Lets the default handler do it, and captures its reply. */
void request_capture(struct shard *shard, struct request *request, struct captured *captured);
void captured_deinit(struct captured *captured);

/* Whether the key of the frame at `data` has a dot: then updates.c will not take it. */
static inline bool request_looks_deep(const uint8_t *data, size_t size)
{
    uint16_t key_len;
    memcpy(&key_len, data + offsetof(struct frame_request, key_len), sizeof key_len);
    if (size < FRAME_REQUEST_BYTES + (size_t)key_len || (data[5] & FRAME_EXTENDED) != 0)
        return false;
    return memchr(data + FRAME_REQUEST_BYTES, '.', key_len) != NULL;
}

/* The number with this low half that is nearest to the highest one on the link. */
static inline uint64_t request_seq_nearest(uint64_t highest, uint32_t low)
{
    return highest + (uint64_t)(int64_t)(int32_t)(low - (uint32_t)highest);
}

/*
 * Whether values of the type may have any number of bytes. It needs no look at the value to say that
 * it is not valid.
 */
bool request_takes_any_bytes(uint8_t value_type);

/* Its deadline has passed. What its session knows is answered all the same: it has been done. */
bool request_is_late(const struct shard *shard, const struct request *request);
/* It fails for that, and will again if it is sent again. */
void request_fail_late(struct request_context *context);

/* Replies: `value` may be NULL with 0 bytes. Used by handlers too. -EALREADY: replied before. */
int request_reply(struct request_context *context, uint16_t code, enum value_type type,
                  const void *value, size_t bytes);
int request_fail(struct request_context *context, enum reply_error error, const char *text,
                 uint64_t got, uint64_t limit);
/* Answers for a reply that came over a lane, and is longer than the caller's peer takes. */
void request_reply_too_long(struct caller *caller, uint32_t seq, uint64_t length);
/* Reply bytes that a request may need at most before it is known what it is. */
size_t request_reply_bytes_max(const struct request *request);
