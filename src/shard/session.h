/*
 * What one shard remembers of the sessions whose requests it applied: for every sequence number of
 * the last window the change that it made, so that a request sent again is answered again and never
 * applied twice.
 *
 * A client has at most SESSION_WINDOW requests in flight, so a number further below the highest one
 * seen was answered and forgotten: it is stale. Everything here can be rebuilt from the log, which
 * carries session and sequence number in every change.
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
    uint32_t address; /* low half, in units of 8 bytes; 0: nothing is remembered here */
};

struct session {
    uint64_t id;
    uint64_t seq_highest;          /* seen by this shard; 0: none */
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
 * change's address, to be checked against the record there.
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

static inline void session_remember(struct session *session, uint64_t seq, uint64_t address)
{
    struct session_entry *entry = &session->entries[seq & session->mask];
    entry->seq = (uint32_t)seq;
    entry->address = (uint32_t)(address >> 3);
    if (seq > session->seq_highest) session->seq_highest = seq;
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
};

MUST_CHECK int sessions_init(struct sessions *sessions, size_t bytes_max, uint64_t hash_seed);
void sessions_deinit(struct sessions *sessions);
/*
 * The session `id` (not 0), made if it is not known, with one more link. NULL: no memory, or every
 * session within the bound has links.
 */
struct session *sessions_attach(struct sessions *sessions, uint64_t id);
void sessions_detach(struct sessions *sessions, struct session *session);
/*
 * The same for one request that came without a link: no link more, and it counts as used now. Good
 * until the next call that may forget.
 */
struct session *sessions_use(struct sessions *sessions, uint64_t id);
/*
 * Grows `session` until `seq` overwrites nothing that is still inside the window. -ENOMEM: the bound
 * is reached, or the memory; nothing is lost.
 */
MUST_CHECK int sessions_grow(struct sessions *sessions, struct session *session, uint64_t seq);
