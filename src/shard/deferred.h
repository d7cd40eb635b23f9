/*
 * Requests that their handlers answer later: the owner's side, on the shard that ran the handler.
 * The other side, on the shard of the caller's link, is waiter.h. See deferred.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "wire/frame.h"

struct captured;
struct given;
struct request_context;
struct shard;

/* A deferred request of one shard; good as long as the generation is the same. 0: none. */
struct deferred_name {
    uint32_t index;
    uint32_t generation;
};

enum deferred_news {
    DEFERRED_ROOM,    /* a part that was refused for want of room may be tried again */
    DEFERRED_STOPPED, /* nobody waits any more: see the error. It may still be replied to */
    DEFERRED_OVER     /* the last news: it has ended, by a reply or otherwise */
};
typedef void (*deferred_fn)(void *context, enum deferred_news news, enum reply_error error);

/* Whose it is. `frame` is a copy of the request's with its padding, good until DEFERRED_OVER. */
struct deferred_holder {
    deferred_fn notify;
    void *context;
    const uint8_t *frame;
    uint32_t frame_bytes;
    struct given *given; /* parts of other threads: see parts.h */
};

/* Bytes of a stream that may be on their way to the caller's link before it has to take some. */
#define DEFERRED_ROOM_BYTES (64 * KIB)
/* A request whose link was lost waits this long for its session to come back. */
#define DEFERRED_ORPHAN_NS (3 * NS_PER_S)

/* Where the answers go. */
struct deferred_home {
    uint32_t
        from; /* the shard of the caller's link, or FROM_PORTS and a port, or DEFERRED_NO_HOME */
    uint32_t caller;
    uint32_t generation;
};
#define DEFERRED_NO_HOME UINT32_MAX

struct deferred_list {
    struct deferred *first;
    struct deferred *last;
};

struct deferreds {
    struct deferred *entries; /* options->deferred_max, reserved */
    uint32_t *chains;         /* by hash of session and number: index + 1 */
    uint32_t chains_mask;
    uint32_t fresh;
    uint32_t count;
    struct deferred *free;
    struct deferred_list news;   /* whose holders are to be told */
    struct deferred_list unsent; /* what waits for room in a lane */
};

MUST_CHECK int deferreds_init(struct shard *shard);
void deferreds_deinit(struct shard *shard);

/*
 * Defers the request that its handler is dealing with: it is answered by deferred_reply from now on,
 * also inside the handler.
 *
 *   -EBUSY   options->deferred_max are deferred already.
 *   -ENOMEM  no memory.
 */
MUST_CHECK int deferred_open(struct request_context *context, const struct deferred_holder *holder);
bool deferred_is_open(const struct shard *shard, struct deferred_name name);
/*
 * A request that was sent again while the first one is still deferred: the answer goes to where it
 * came from last, and the handler is not called. False: it is not one of these.
 */
bool deferred_takes(struct request_context *context);

/* What is written to the caller. */
struct deferred_answer {
    uint16_t code;
    bool is_part;         /* of a stream: more will come */
    uint32_t given_bytes; /* not 0: by another thread, so it waits here where there is no room */
    enum value_type type;
    const void *value;
    size_t bytes;
    uint64_t offset; /* 0: none */
};
/*
 * Replies. It ends with the first answer that is no part.
 *
 *   -ENOENT    it has ended, or nobody waits for it any more.
 *   -EAGAIN    a part finds no room: DEFERRED_ROOM says when to try again. Not if it was given.
 *   -EMSGSIZE  the value is too long; it is not replied to.
 *   -ENOMEM    likewise: there is no memory for it.
 */
MUST_CHECK int deferred_reply(struct shard *shard, struct deferred_name name,
                              const struct deferred_answer *answer);
/* Ends it with a failure and a text for people. */
void deferred_fail(struct shard *shard, struct deferred_name name, uint16_t code, const char *text);

/* Lets the default handler do it, and captures its reply; see request_capture. -ENOENT: it has ended. */
MUST_CHECK int deferred_next(struct shard *shard, struct deferred_name name,
                             struct captured *captured);
/* The same, and replies with that. */
void deferred_pass(struct shard *shard, struct deferred_name name);

/* The caller's shard: its link took bytes, or (`error`) does not wait any more. */
struct deferred_word {
    struct deferred_home home; /* that of an older link is ignored */
    uint32_t credit_bytes;
    uint32_t error; /* enum reply_error; 0: none */
};
void deferred_told(struct shard *shard, struct deferred_name name,
                   const struct deferred_word *word);

/* Tells holders their news, and sends what found no room. Once a turn. */
void deferreds_turn(struct shard *shard);
/* Ends them all: the shard stops. */
void deferreds_stop(struct shard *shard);
