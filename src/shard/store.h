/*
 * A cache's part on one shard: its slots, its log and the table that points into it. All that a
 * change does to state happens here: append to the log first, then point the table at it.
 *
 * The functions for one request are cut so that a run of requests can overlap their cache misses:
 * store_prefetch, then store_probe, then store_update and the like, each over the whole run.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/hash.h"
#include "log/log.h"
#include "shard/session.h"
#include "shard/table.h"
#include "shard/tree.h"

/* Why a request was refused, for people. */
struct store_refusal {
    enum reply_error error;
    const char *format; /* of the text: which refusal it is */
    size_t bytes;
    char text[160];
};

struct store_slot {
    uint64_t place; /* of the newest change; 0: none */
    uint64_t chain;
};

/* Those who read its log: see shard/cursor.h. */
struct cursor;
struct cursors {
    struct cursor *newest;
    struct cursor *oldest;
    uint32_t count;
    uint32_t history_seen;   /* first segment of the history when the bound was last looked at */
    uint64_t lent_bytes_max; /* of segments beyond the history that cursors may hold */
};

struct store {
    struct segments *segments;
    struct table table;
    struct log log;
    struct store_slot *slots; /* SEGMENT_SLOTS */
    uint64_t hash_seed;
    uint64_t *hlc; /* the shard's clock; every change takes the next tick */
    uint64_t tombstones;
    struct compaction *compaction;
    struct forest forest; /* of the partitions that have something deep */
    uint64_t *highest_id; /* of its partitions that are whole numbers; NULL: nobody wants to know */
    struct store_refusal refusal; /* of the last request with STORE_REFUSED */
    struct cursors cursors;
};

struct store_options {
    struct log_options log;
    uint64_t entries_max;
    uint64_t hash_seed;
    uint64_t garbage_bytes_max; /* superseded changes beyond the history, before compaction */
    uint64_t lent_bytes_max;    /* of segments beyond the history that cursors may hold */
};

/* One request on its way through a run. The caller fills the first part. */
struct store_request {
    const uint8_t *body; /* key, then value; readable up to the next multiple of 8 */
    uint32_t body_bytes;
    uint16_t key_len;
    uint16_t slot; /* FRAME_SLOT_ANY: not computed */
    uint8_t type;  /* FRAME_UPDATE ... */
    uint8_t flags; /* FRAME_VALUE_TYPE only */
    uint32_t seq;  /* low half */
    uint64_t seq_whole;
    uint64_t session;
    uint64_t hash;   /* set by store_prefetch */
    uint64_t *entry; /* set by store_probe */
    uint64_t entry_seen;
    const struct change *change; /* set by store_probe: probably the key's newest */
};

enum store_result {
    STORE_OK,
    STORE_NO_KEY,     /* remove, get: there is no such key */
    STORE_WRONG_SLOT, /* the sender's slot is not the key's */
    STORE_NO_MEMORY,  /* memory.max is reached; nothing changed */
    STORE_DEEP,       /* it goes inside of a partition: see shard/deep.h; nothing changed */
    STORE_REFUSED     /* store->refusal says why; nothing changed */
};

MUST_CHECK int store_init(struct store *store, struct segments *segments, uint64_t *hlc,
                          const struct store_options *options);
void store_deinit(struct store *store);

/* First pass: hash the key, fetch its bucket. */
static inline void store_prefetch(const struct store *store, struct store_request *request)
{
    request->hash = hash_key(request->body, request->key_len, store->hash_seed);
    __builtin_prefetch(table_bucket(&store->table, request->hash), 1);
}

/* Second pass: find the entry by its tag, fetch the record that it points to. */
static inline void store_probe(const struct store *store, struct store_request *request)
{
    uint64_t address8;
    struct bucket *bucket = table_bucket(&store->table, request->hash);
    uint64_t *entry = table_probe(bucket, &request->hash, &address8);
    request->entry = entry;
    if (entry == NULL) return;
    request->entry_seen = *entry;
    uint64_t address = address8 << 3;
    request->change = change_at(store->segments, address);
    __builtin_prefetch(request->change);
    __builtin_prefetch((const uint8_t *)request->change + CACHE_LINE - 1);
    __builtin_prefetch(index_word(store->segments, address), 1);
}

/*
 * Third pass. On STORE_OK `changed` is the new change, or the one that holds the value; it stays
 * where it is until the end of the turn.
 */
enum store_result store_update(struct store *store, const struct store_request *request,
                               const struct change **changed);
enum store_result store_remove(struct store *store, const struct store_request *request,
                               const struct change **changed);
enum store_result store_get(struct store *store, const struct store_request *request,
                            const struct change **found);

/* All passes for one key; for tests and rare paths. */
void store_prepare(const struct store *store, struct store_request *request);

/*
 * The change that a request of `session` and `seq` made, whose address has this low half (in units
 * of 8 bytes), or NULL where the log no longer has it.
 */
const struct change *store_change_of(const struct store *store, uint64_t session, uint64_t seq,
                                     uint32_t address_low);

/*
 * Truncates `slot` so that `place` is its newest change (0: none), and takes the state of the keys
 * back to what it was then. The open batch must be sealed.
 *
 *   -ERANGE  `place` lies before the retained history: take a snapshot instead. Nothing changed.
 *   -ENOMEM  nothing changed.
 */
MUST_CHECK int store_truncate(struct store *store, uint16_t slot, uint64_t place);
/* Oldest place that store_truncate accepts for `slot`. */
uint64_t store_truncate_floor(const struct store *store, uint16_t slot);

/*
 * Compacts as much as the turn owes: at most `bytes_max` bytes of old log are looked at. Returns
 * the bytes looked at; 0 where nothing is to be done. Call it with no batch open.
 */
size_t store_compact(struct store *store, size_t bytes_max);
/* Others that share the memory were refused, and have nothing to give back: as if this one were. */
void store_make_room(struct store *store);

/* A partition of this name is new. */
void store_note_id(struct store *store, const uint8_t *name, size_t bytes);

uint64_t store_keys_count(const struct store *store);
/* Aborts where a stated invariant does not hold. O(n). */
void store_check(struct store *store);
