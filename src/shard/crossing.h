/*
 * Requests that cross from one shard to another, and their replies: see crossing.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shard/request.h"

/* Frames and replies up to this size travel inside their mail, larger ones as a block. */
#define CROSSING_INLINE_BYTES_MAX 4096

/* What wrapping may waste at the end of a lane, on either side. */
#define LANE_SLACK_BYTES (2 * (CROSSING_INLINE_BYTES_MAX + 256))

enum mail_kind {
    MAIL_REQUEST = 1,       /* struct mail_request, then the frame */
    MAIL_REQUEST_BLOCK = 2, /* struct mail_request, then struct mail_block */
    MAIL_REPLY = 3,         /* struct mail_reply, then the frame */
    MAIL_REPLY_BLOCK = 4,   /* struct mail_reply, then struct mail_block */
    MAIL_ADOPT = 5,         /* struct mail_adopt, then what was received */
    MAIL_BUNDLE = 6,        /* see bundle.c */
    MAIL_BUNDLE_REPLIES = 7,
    MAIL_DEFERRED = 8,    /* instead of a reply; these are in waiter.h */
    MAIL_LATE = 9,        /* struct mail_late, then the frame */
    MAIL_LATE_BLOCK = 10, /* struct mail_late, then struct mail_block */
    MAIL_WORD = 11,
    MAIL_ANSWER = 12, /* a reply of another thread: struct mail_answer, then the value or a block */
    MAIL_FEED_OPEN = 13, /* these are in feed.h */
    MAIL_FEED_WORD = 14,
    MAIL_FEED_BATCH = 15
};

/* Promises are in units of 16 bytes. */
#define PROMISE_UNIT 16

/* `mail.small` of a request and its reply is the promise. */
struct mail_request {
    struct mail mail;
    uint32_t caller;
    uint32_t generation;
    struct session_claim claim; /* see session_claim_at */
    uint64_t seq;
    uint64_t deadline_ns;
};

struct mail_reply {
    struct mail mail;
    uint32_t caller;
    uint32_t generation;
};

/* What is too large for a mail, on the heap; it goes with the mail. */
struct mail_block {
    uint8_t *data;
    uint64_t bytes;
};

/* The promise of the reply to such a request. */
uint16_t crossing_promise(uint8_t frame_type, uint8_t want);
/* Lets go of what is in a lane that nobody uses any more. */
void lane_discard(struct lane *lane);

/* Bytes of the reply's mail at most; 0: there will be no reply. */
static inline size_t promise_mail_bytes(uint16_t promise)
{
    return promise == 0 ? 0 : sizeof(struct mail_reply) + (size_t)promise * PROMISE_UNIT;
}

/* What may be in the lane to another shard, and be promised in the lane back. */
struct crossing_room {
    size_t request_bytes;
    size_t reply_bytes;
};
struct crossing_room crossing_room(struct shard *shard, uint32_t to);

/*
 * Copies a request into the lane of the shard that owns its slot, or answers it where there is no
 * memory for that. False: the lane or the caller's outbox has no room, nothing was done.
 */
MUST_CHECK bool crossing_try_send(struct caller *caller, struct request *request);

/*
 * A handler's own request, for the default handler: answered by crossing_answered with `ask`. False:
 * there is no room, nothing was done.
 */
MUST_CHECK bool crossing_try_ask(struct shard *shard, uint32_t to, uint32_t ask, uint8_t type,
                                 const uint8_t *frame, size_t bytes);
/* What stands for the caller of such a request. */
#define CROSSING_ASKS UINT32_MAX

/* Whether one more caller that waited for the lane to `to` should try again this turn. */
bool crossing_may_resume(struct shard *shard, uint32_t to);

/* The session that a request of a lane names, and that lives here too; NULL: none, or no memory. */
struct session *crossing_session(struct shard *shard, const struct session_claim *claim);

/* Takes the mail of one shard or port. */
void crossing_take(struct shard *shard, uint32_t from);

/* Applies a single request of the lane from `from`, whose head may be made up, and replies. */
void crossing_apply(struct shard *shard, uint32_t from, const struct mail_request *head,
                    const uint8_t *frame, size_t frame_bytes);

/* Writes replies that came over a lane to the caller's outbox; gives back what was reserved. */
void crossing_deliver(struct shard *shard, const struct mail_reply *reply, const uint8_t *data,
                      size_t bytes, size_t reserved_bytes);

struct mail_deferred;
/* Tells the sender of a request that it is deferred, instead of replying. */
void crossing_defer(struct request_context *context, const struct mail_deferred *news);
/*
 * Pushes what nobody promised room for, to another shard or a port: it takes the room of requests. To
 * a port it goes in the room of the reply that the port was promised. NULL: the lane is full.
 */
struct mail *crossing_try_push_late(struct shard *shard, uint32_t to, size_t bytes, uint16_t kind);
/* Whether a mail of any size would find room. */
bool crossing_has_room_late(struct shard *shard, uint32_t to);

/* Room for the reply of a request that came over a lane; NULL: no memory for a large one. */
uint8_t *crossing_reply_room(struct request_context *context, size_t bytes);

/*
 * Whether the lane to `to` has room for a fresh connection and the `size` bytes that came with it,
 * at most CROSSING_INLINE_BYTES_MAX.
 */
bool crossing_may_adopt(struct shard *shard, uint32_t to, size_t size);
/* Hands it to that shard, which its HELLO named. Only after crossing_may_adopt, in the same turn. */
void crossing_adopt(struct shard *shard, uint32_t to, int fd, const uint8_t *data, size_t size);
