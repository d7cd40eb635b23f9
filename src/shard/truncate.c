/*
 * Truncation of a slot: what healing does to the side that loses (CP) or is re-ordered (AP).
 *
 * Newest first, each change behind `place` is taken out of the slot's chain, its mark goes into the
 * index for compaction, and its key is remembered as pending where the table pointed at it. Then
 * the walk goes on into the kept changes until every pending key met the change that was its newest
 * at `place`; the others did not exist then. The history bound guarantees that what is looked for
 * was not forgotten: a superseded change stays until the one that superseded it has left the
 * history, and nothing outside the history can be truncated.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/ck.h"
#include "base/memory.h"
#include "shard/store.h"

/* Keys whose state is to be taken back: a set of table entries, by open addressing. */
struct pending {
    struct pending_key {
        uint64_t hash;
        uint64_t address; /* of the truncated change, whose key it is; 0: free */
        bool resolved;    /* its change of that time was met */
        bool restored;    /* and is the newest again */
    } * keys;
    uint64_t mask;
    uint64_t count;
    uint64_t open_count; /* not yet resolved */
};

static uint64_t changes_behind(const struct store *store, uint16_t slot, uint64_t place)
{
    return store->slots[slot].place - place;
}

static int pending_open(struct pending *pending, uint64_t keys_max)
{
    uint64_t count = 8;
    while (count < keys_max * 2) count *= 2;
    *pending = (struct pending){.mask = count - 1};
    pending->keys = memory_take(count * sizeof *pending->keys);
    return pending->keys != NULL ? 0 : -ENOMEM;
}

static bool same_key(const struct change *a, const struct change *b)
{
    return a->key_hash == b->key_hash && a->key_len == b->key_len &&
           memcmp(change_key(a), change_key(b), a->key_len) == 0;
}

/* The pending key of `change`, or the free place where it would stand. */
static struct pending_key *pending_find(const struct pending *pending, const struct store *store,
                                        const struct change *change)
{
    for (uint64_t at = change->key_hash & pending->mask;; at = (at + 1) & pending->mask) {
        struct pending_key *key = &pending->keys[at];
        if (key->address == 0) return key;
        if (key->hash == change->key_hash &&
            same_key(change, change_at(store->segments, key->address)))
            return key;
    }
}

/* Takes the newest change of the slot out; the table keeps pointing at the key's newest one. */
static void take_back(struct store *store, uint16_t slot, struct pending *pending)
{
    uint64_t address = log_unlink_newest(&store->log, slot);
    const struct change *change = change_at(store->segments, address);
    struct pending_key *key = pending_find(pending, store, change);
    struct store_slot *head = &store->slots[slot];
    ASSERT(change_place(change) == head->place);
    if (key->address == 0) {
        *key = (struct pending_key){.hash = change->key_hash, .address = address};
        pending->count++;
        pending->open_count++;
        if (change->type == FRAME_REMOVE) store->tombstones--;
        index_supersede(store->segments, address, change_padded_bytes(change),
                        store->log.active_mark);
    }
    head->chain = chain_previous(head->chain, change_identity(change));
    head->place--;
}

/* `change` was kept: if its key is pending, this is what it was at that place. */
static void restore(struct store *store, const struct change *change, struct pending *pending)
{
    struct pending_key *key = pending_find(pending, store, change);
    if (key->address == 0 || key->resolved) return;
    uint64_t address = address_of(store->segments, change);
    key->resolved = true;
    pending->open_count--;
    /* Superseded by a removal that has left the history and was forgotten: the key was not there. */
    uint32_t word = *index_word(store->segments, address);
    if (index_is_superseded(word) && log_is_beyond_history(&store->log, word)) return;
    uint64_t *entry = table_find_address(&store->table, key->hash, key->address);
    ASSERT(entry != NULL);
    store_release_u64(entry, entry_make(key->hash, address));
    index_revive(store->segments, address, change_padded_bytes(change));
    if (change->type == FRAME_REMOVE) store->tombstones++;
    key->restored = true;
}

static void forget_rest(struct store *store, const struct pending *pending)
{
    for (uint64_t at = 0; at <= pending->mask; at++) {
        const struct pending_key *key = &pending->keys[at];
        if (key->address == 0 || key->restored) continue;
        uint64_t *entry = table_find_address(&store->table, key->hash, key->address);
        ASSERT(entry != NULL);
        table_remove(&store->table, key->hash, entry);
    }
}

uint64_t store_truncate_floor(const struct store *store, uint16_t slot)
{
    struct slot_walk walk;
    uint64_t floor = store->slots[slot].place;
    slot_walk_begin(&walk, &store->log, slot);
    const struct change *change;
    while ((change = slot_walk_next(&walk)) != NULL) {
        uint64_t address = address_of(store->segments, change);
        if (segment_of(store->segments, address)->compactable) break;
        floor = change_place(change) - 1;
    }
    return floor;
}

int store_truncate(struct store *store, uint16_t slot, uint64_t place)
{
    ASSERT(slot < SEGMENT_SLOTS);
    ASSERT(store->log.batch == NULL);
    if (place >= store->slots[slot].place) return 0;
    if (place < store_truncate_floor(store, slot)) return -ERANGE;
    struct pending pending;
    int err = pending_open(&pending, changes_behind(store, slot, place));
    if (err < 0) return err;
    while (store->slots[slot].place > place) take_back(store, slot, &pending);
    struct slot_walk walk;
    slot_walk_begin(&walk, &store->log, slot);
    while (pending.open_count > 0) {
        const struct change *change = slot_walk_next(&walk);
        if (change == NULL) break;
        restore(store, change, &pending);
    }
    forget_rest(store, &pending);
    memory_put(pending.keys);
    return 0;
}
