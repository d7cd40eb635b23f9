/*
 * Who waits for a deferred request: the caller's side, on the shard of its link. One for each deferred
 * request, on whatever shard that is; named by that shard and the request's index there, so that
 * neither side has to look anything up.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "shard/deferred.h"
#include "shard/lane.h"

struct caller;
struct shard;

struct waiter {
    uint32_t generation; /* of the deferred request; 0: free */
    uint32_t owner;      /* shard */
    uint32_t index;      /* there */
    uint32_t link_seq;
    uint64_t seq;
    struct caller *caller; /* NULL: it has gone, and the owner is to be told */
    uint32_t caller_index;
    uint32_t caller_generation;
    uint32_t owed_bytes; /* of parts that its link has taken, and the owner does not know */
    uint16_t error;      /* it does not wait any more; the owner does not know */
    bool has_parts;
    bool is_unsent;      /* in the list of those that have something to tell the owner */
    struct waiter *next; /* of its caller */
    struct waiter *previous;
    struct waiter *next_unsent;
};

struct waiters {
    struct waiter *entries; /* deferred_max for each shard, reserved */
    struct waiter *unsent;
};

/* A deferred request's own mail home; `mail.small` is the promise that is given back. */
struct mail_deferred {
    struct mail mail;
    uint32_t caller;
    uint32_t generation;
    struct deferred_name name;
    uint64_t seq;
};

/*
 * An answer; the frame or a block follows. The last one says so in `mail.small`, together with the
 * promise that a port then gets back.
 */
#define LATE_LAST 0x8000u
struct mail_late {
    struct mail mail;
    struct deferred_name name;
    uint32_t caller;
    uint32_t generation;
};

/* What the caller's shard has to say. */
struct mail_word {
    struct mail mail;
    struct deferred_name name;
    struct deferred_word word;
    uint32_t reserved;
};
_Static_assert(sizeof(struct mail_word) % 8 == 0, "mail is padded to 8");

/* What another thread than the shard's replies to a deferred request. */
struct mail_answer {
    struct mail mail; /* `small` is 1 where a block follows */
    struct deferred_name name;
    uint64_t bytes; /* of the value */
    uint64_t offset;
    uint16_t code;
    uint8_t type;    /* enum value_type */
    uint8_t is_part; /* of a stream */
    uint8_t reserved[4];
};
_Static_assert(sizeof(struct mail_answer) % 8 == 0, "mail is padded to 8");

/* Bytes of the mail for a value of so many bytes. */
static inline size_t mail_answer_bytes(size_t value_bytes, bool is_block)
{
    return sizeof(struct mail_answer) + (is_block ? 16 : (value_bytes + 7) / 8 * 8);
}
/* What a part counts in the counter of what its stream was given. */
static inline uint32_t mail_answer_given_bytes(size_t value_bytes)
{
    return (uint32_t)(sizeof(struct mail_answer) + value_bytes);
}
/* Fills it in; `block` is a copy of the value on the heap where it is a large one, and goes along. */
void mail_answer_write(struct mail *mail, struct deferred_name name,
                       const struct deferred_answer *answer, uint8_t *block);

MUST_CHECK int waiters_init(struct shard *shard);
void waiters_deinit(struct shard *shard);

/* The caller waits from now on for the request `name` of `owner`, which has the number `seq`. */
void waiter_open(struct shard *shard, uint32_t owner, const struct mail_deferred *deferred);
/* Writes an answer to the caller's outbox. */
void waiter_deliver(struct shard *shard, uint32_t owner, struct deferred_name name,
                    const uint8_t *frame, size_t bytes, bool is_last);
/*
 * The caller stops the request of this number: at once where it waits, or as soon as it is known to be
 * deferred, if it may still be on its way over a lane. False: it is neither.
 */
bool waiters_stop(struct caller *caller, uint64_t seq);
void waiters_forget_stops(struct caller *caller);
/* The caller goes away. */
void waiters_leave(struct caller *caller);
/* Its peer sends no more: streams end, what else is owed is waited for. */
void waiters_half_close(struct caller *caller);
/* Its outbox has room again. */
void waiters_pay(struct caller *caller);
/* Tells the owners what found no room in a lane. Once a turn. */
void waiters_turn(struct shard *shard);
