/*
 * What one shard remembers of the sessions whose requests it applied: for every sequence number of
 * the last window the change that it made, or why it made none, so that a request sent again is
 * answered again and never applied twice, nor too late.
 *
 * A client has at most SESSION_WINDOW requests in flight, so a number further below the highest one
 * seen was answered and forgotten: it is stale. But for failures everything here can be rebuilt from the
 * log, which carries session and sequence number in every change.
 *
 * Memory is bounded, so sessions without links are forgotten. One that comes back must not have its
 * requests applied a second time. The watermark is when the youngest of the forgotten ones began:
 * whatever is unknown and began no later may be one of them, and of such a session only numbers
 * that were never sent before are new. The others are stale: nobody can tell. So forgetting costs no
 * memory, and a client that lies about its own numbers harms itself.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

#define SESSION_WINDOW 16384

/* One remembered request: low halves of its number and of its change's address. */
struct session_entry {
    uint32_t seq;
    uint32_t address; /* low half, in units of 8 bytes, or enum session_failure; 0: it is empty */
};

/*
 * In place of an address, what a request that changed nothing was told. All of these are inside the head
 * of a batch, where no change begins. Sent again it is told so again: tried again it might succeed, and
 * undo what was asked for after it.
 */
enum session_failure {
    SESSION_NO_KEY = 1,
    SESSION_NO_MEMORY = 2,
    SESSION_LATE = 3,
    SESSION_WRONG_TYPE = 4,
    SESSION_TOO_BIG = 5,
    SESSION_INVALID = 6,
    SESSION_CONFLICT = 7,
    SESSION_FAILURES_END = 8
};

/* What a client says of its session. */
struct session_claim {
    uint64_t id;         /* not 0, where it is attached or used */
    uint64_t start;      /* when it began, by the client's clock; only compared with others */
    uint64_t seq_unsent; /* this number and higher ones were never sent before */
    uint64_t floor;      /* lower numbers have their answers and will not come again */
};

/* The same for a shard that hears of it over a lane: lower numbers than `seq` may have been sent. */
static inline struct session_claim session_claim_at(const struct session_claim *claim, uint64_t seq)
{
    struct session_claim at = *claim;
    if (seq > at.seq_unsent) at.seq_unsent = seq;
    return at;
}

struct session {
    uint64_t id;
    uint64_t start;
    uint64_t seq_highest;          /* seen by this shard, or below the floor; 0: none */
    uint64_t floor;                /* lower numbers are stale where they are not remembered */
    uint64_t sweep_at;             /* number from which on entries may be taken for later ones */
    struct session_entry *entries; /* by seq & mask */
    uint32_t mask;
    uint32_t links;        /* that carry it now */
    struct session *next;  /* in its hash chain */
    struct session *newer; /* among those without links, by the time of their last use */
    struct session *older;
};

enum session_verdict { SESSION_NEW, SESSION_KNOWN, SESSION_STALE };

/*
 * Says whether a request is new. Call it before applying; SESSION_KNOWN gives the low half of the
 * change's address, to be checked against the record there, or an enum session_failure.
 */
enum session_verdict session_probe_slow(const struct session *session, uint64_t seq,
                                        uint32_t *address);

static inline enum session_verdict session_probe(const struct session *session, uint64_t seq,
                                                 uint32_t *address)
{
    if (LIKELY(seq > session->seq_highest)) return SESSION_NEW;
    return session_probe_slow(session, seq, address);
}

/*
 * Whether the entry that `seq` will overwrite is still inside the window: then the caller grows the
 * session first.
 */
static inline bool session_must_grow(const struct session *session, uint64_t seq)
{
    const struct session_entry *entry = &session->entries[seq & session->mask];
    /* Either may be the older one: what is sent again may come behind what is newer. */
    uint32_t distance = (uint32_t)seq - entry->seq + (SESSION_WINDOW - 1);
    return session->mask < SESSION_WINDOW - 1 && entry->address != 0 &&
           distance <= 2 * (SESSION_WINDOW - 1);
}

/* Drops what is too far below `seq` for the low half of its number to say which one it is. */
void session_sweep(struct session *session, uint64_t seq);

static inline void session_remember(struct session *session, uint64_t seq, uint64_t address)
{
    if (UNLIKELY(seq >= session->sweep_at)) session_sweep(session, seq);
    struct session_entry *entry = &session->entries[seq & session->mask];
    entry->seq = (uint32_t)seq;
    entry->address = (uint32_t)(address >> 3);
    if (seq > session->seq_highest) session->seq_highest = seq;
}

/* The same for a request that changed nothing. There must be room for it: session_must_grow. */
static inline void session_remember_failure(struct session *session, uint64_t seq,
                                            enum session_failure failure)
{
    session_remember(session, seq, (uint64_t)failure << 3);
}

/* Before a run of plain updates, which remembers its numbers without looking at `sweep_at`. */
static inline void session_before_run(struct session *session)
{
    if (UNLIKELY(session->seq_highest >= session->sweep_at))
        session_sweep(session, session->seq_highest);
}

struct sessions {
    struct session **chains;
    uint64_t chains_mask;
    uint64_t hash_seed; /* clients choose the ids */
    uint32_t count;
    size_t bytes;
    size_t bytes_max; /* above it, sessions without links are forgotten, the longest idle first */
    struct session *idle_newest;
    struct session *idle_oldest;
    uint64_t forgotten;
    uint64_t watermark; /* the latest start of those that were forgotten */
};

MUST_CHECK int sessions_init(struct sessions *sessions, size_t bytes_max, uint64_t hash_seed);
void sessions_deinit(struct sessions *sessions);
/*
 * The session that `claim` names, made if it is not known, with one more link. NULL: no memory, or
 * every session within the bound has links.
 */
struct session *sessions_attach(struct sessions *sessions, const struct session_claim *claim);
void sessions_detach(struct sessions *sessions, struct session *session);
/*
 * The same for one request that came without a link: no link more, and it counts as used now. Good
 * until the next call that may forget.
 */
struct session *sessions_use(struct sessions *sessions, const struct session_claim *claim);
/*
 * Grows `session` until `seq` overwrites nothing that is still inside the window. -ENOMEM: the bound
 * is reached, or the memory; nothing is lost.
 */
MUST_CHECK int sessions_grow(struct sessions *sessions, struct session *session, uint64_t seq);
