/*
 * Truncation of a slot: what healing does to the side that loses (CP) or is re-ordered (AP).
 *
 * First it is found out what is to be done, while nothing changes: newest first, the partitions of
 * the changes behind `place` are pending; then the walk goes on into the kept changes until every
 * pending partition is resolved. The history bound guarantees that what is looked for was not
 * forgotten: a superseded change stays until the one that superseded it has left the history, and
 * nothing outside the history can be truncated.
 *
 * A partition is resolved by its newest kept change if that is one of the whole partition: its entry
 * points there again. If it is a deep one, the partition is rebuilt: all of its kept changes down to
 * the newest of the whole partition are applied again in their order, which also says which of them
 * are superseded, and by what. A change that was superseded before the history began is left out:
 * what superseded it may have been forgotten since.
 *
 * Then each change behind `place` is taken out of the slot's chain, its mark goes into the index for
 * compaction, and the pending partitions become what was found.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/memory.h"
#include "shard/cursor.h"
#include "shard/deep.h"

/* A partition whose state is to be taken back. */
struct pending {
    uint64_t hash;
    uint64_t sample;  /* address of a truncated change of it; 0: free */
    uint64_t *entry;  /* of the table */
    uint64_t record;  /* that it is to be, as an address; 0: none */
    uint32_t root;    /* of the tree that is rebuilt; 0: none yet */
    bool is_resolved; /* its newest kept change of the whole partition was met */
    bool is_rebuilt;  /* a deep one was met before */
};

/* A kept change of a partition that is rebuilt. */
struct kept {
    uint64_t address;
    uint64_t pending; /* its index */
};

struct truncation {
    struct store *store;
    struct pending *pending; /* by open addressing */
    uint64_t mask;
    uint64_t open_count; /* not yet resolved */
    struct kept *kept;   /* newest first */
    size_t kept_count;
    size_t kept_max;
    uint64_t cells; /* that rebuilding takes at most */
};

static uint64_t changes_behind(const struct store *store, uint16_t slot, uint64_t place)
{
    return store->slots[slot].place - place;
}

static int truncation_open(struct truncation *truncation, struct store *store, uint64_t keys_max)
{
    uint64_t count = 8;
    while (count < keys_max * 2) count *= 2;
    *truncation = (struct truncation){.store = store, .mask = count - 1};
    truncation->pending = memory_take(count * sizeof *truncation->pending);
    return truncation->pending != NULL ? 0 : -ENOMEM;
}

static void truncation_close(struct truncation *truncation)
{
    memory_put(truncation->pending);
    memory_put(truncation->kept);
}

/* ------------------------------------------------------------------------- what is to be done */

static struct bytes partition_of(const struct change *change)
{
    size_t bytes = change_is_deep(change)
                       ? path_partition_bytes(change_key(change), change->key_len)
                       : change->key_len;
    return (struct bytes){change_key(change), bytes};
}

/* The pending partition of `change`, or the free place where it would stand. */
static struct pending *pending_of(const struct truncation *truncation, const struct change *change,
                                  uint64_t *hash)
{
    const struct store *store = truncation->store;
    struct bytes partition = partition_of(change);
    *hash = change_is_deep(change) ? hash_key(partition.data, partition.size, store->hash_seed)
                                   : change->key_hash;
    for (uint64_t at = *hash & truncation->mask;; at = (at + 1) & truncation->mask) {
        struct pending *pending = &truncation->pending[at];
        if (pending->sample == 0) return pending;
        const struct change *sample = change_at(store->segments, pending->sample);
        if (pending->hash == *hash && bytes_equal(partition_of(sample), partition)) return pending;
    }
}

static void note_truncated(struct truncation *truncation, const struct change *change)
{
    uint64_t hash;
    struct pending *pending = pending_of(truncation, change, &hash);
    if (pending->sample != 0) return;
    pending->hash = hash;
    pending->sample = address_of(truncation->store->segments, change);
    truncation->open_count++;
}

/* Each part and the partition takes one, and its name less than one for 10 bytes. */
static uint64_t cells_of_key(const struct change *change)
{
    const uint8_t *key = change_key(change);
    uint64_t parts = 1;
    for (size_t i = 0; i < change->key_len; i++) parts += key[i] == '.';
    return parts + change->key_len / TWIG_NAME_BYTES;
}

static int keep(struct truncation *truncation, const struct pending *pending, uint64_t address)
{
    const struct change *change = change_at(truncation->store->segments, address);
    if (truncation->kept_count == truncation->kept_max) {
        size_t bytes = truncation->kept_max * sizeof *truncation->kept;
        struct kept *kept = memory_resize(truncation->kept, bytes, 2 * bytes + 4 * KIB);
        if (kept == NULL) return -ENOMEM;
        truncation->kept = kept;
        truncation->kept_max = (2 * bytes + 4 * KIB) / sizeof *kept;
    }
    truncation->kept[truncation->kept_count++] =
        (struct kept){address, (uint64_t)(pending - truncation->pending)};
    truncation->cells += cells_of_key(change);
    return 0;
}

/* `change` is kept: if its partition is pending, it says what that was at the place. */
static int note_kept(struct truncation *truncation, const struct change *change)
{
    const struct store *store = truncation->store;
    uint64_t hash;
    struct pending *pending = pending_of(truncation, change, &hash);
    if (pending->sample == 0 || pending->is_resolved) return 0;
    uint64_t address = address_of(store->segments, change);
    uint32_t word = *index_word(store->segments, address);
    bool is_over = index_is_superseded(word) && log_is_beyond_history(&store->log, word);
    if (change_is_deep(change)) {
        if (is_over) return 0;
        pending->is_rebuilt = true;
        return keep(truncation, pending, address);
    }
    pending->is_resolved = true;
    truncation->open_count--;
    if (is_over) return 0;
    if (pending->is_rebuilt) return keep(truncation, pending, address);
    pending->record = address;
    return 0;
}

static int find_out(struct truncation *truncation, uint16_t slot, uint64_t place)
{
    struct slot_walk walk;
    const struct change *change = NULL;
    slot_walk_begin(&walk, &truncation->store->log, slot);
    do {
        change = slot_walk_next(&walk);
        if (change == NULL) return 0;
        if (change_place(change) > place)
            note_truncated(truncation, change);
        else if (note_kept(truncation, change) < 0)
            return -ENOMEM;
    } while (truncation->open_count > 0);
    return 0;
}

/* ------------------------------------------------------------------------------- and doing it */

/* Lets go of the state that a partition has now. */
static void let_go(struct store *store, struct pending *pending)
{
    struct bytes partition = partition_of(change_at(store->segments, pending->sample));
    uint32_t root;
    pending->entry = deep_entry(store, pending->hash, partition, &root);
    ASSERT(pending->entry != NULL);
    if (root != 0) {
        tree_drop(&store->forest, root, false);
        return;
    }
    const struct change *newest = change_at(store->segments, entry_address(*pending->entry));
    if (newest->type == FRAME_REMOVE) store->tombstones--;
}

/* Takes the newest change of the slot out. */
static void take_back(struct store *store, uint16_t slot)
{
    uint64_t address = log_unlink_newest(&store->log, slot);
    const struct change *change = change_at(store->segments, address);
    struct store_slot *head = &store->slots[slot];
    ASSERT(change_place(change) == head->place);
    if (!index_is_superseded(*index_word(store->segments, address)))
        index_supersede(store->segments, address, change_padded_bytes(change),
                        store->log.active_mark);
    head->chain = chain_previous(head->chain, change_identity(change));
    head->place--;
}

static void revive(const struct store *store, uint64_t address)
{
    if (!index_is_superseded(*index_word(store->segments, address))) return;
    index_revive(store->segments, address,
                 change_padded_bytes(change_at(store->segments, address)));
}

/* Applies a kept change of a partition that is rebuilt; older ones have been. */
static void apply_again(struct truncation *truncation, const struct kept *kept)
{
    struct store *store = truncation->store;
    struct forest *forest = &store->forest;
    struct pending *pending = &truncation->pending[kept->pending];
    const struct change *change = change_at(store->segments, kept->address);
    struct path path;
    deep_path(store, change, &path);
    forest->mark = index_mark(segment_of(store->segments, kept->address)->seq);
    if (pending->root == 0) {
        uint64_t record = change_is_deep(change) ? 0 : kept->address;
        pending->root = tree_make(forest, partition_of(change), record, change_offset(change));
    }
    if (change_is_deep(change)) tree_apply(forest, pending->root, &path, kept->address);
}

/* Points the partition's entry at what it was. */
static void restore(struct store *store, struct pending *pending)
{
    struct table *table = &store->table;
    if (pending->root != 0) {
        uint64_t address = (uint64_t)pending->root << CELL_SHIFT;
        table_set_tree(table, pending->hash, pending->entry, address);
        return;
    }
    if (pending->record == 0 && PLANTED("truncated_left")) return;
    if (pending->record == 0) {
        table_remove(table, pending->hash, pending->entry);
        return;
    }
    revive(store, pending->record);
    table_set_record(table, pending->hash, pending->entry, pending->record);
    if (change_at(store->segments, pending->record)->type == FRAME_REMOVE) store->tombstones++;
}

static void carry_out(struct truncation *truncation, uint16_t slot, uint64_t place)
{
    struct store *store = truncation->store;
    for (uint64_t at = 0; at <= truncation->mask; at++)
        if (truncation->pending[at].sample != 0) let_go(store, &truncation->pending[at]);
    while (store->slots[slot].place > place) take_back(store, slot);
    for (size_t i = 0; i < truncation->kept_count; i++) revive(store, truncation->kept[i].address);
    for (size_t i = truncation->kept_count; i > 0; i--)
        apply_again(truncation, &truncation->kept[i - 1]);
    for (uint64_t at = 0; at <= truncation->mask; at++)
        if (truncation->pending[at].sample != 0) restore(store, &truncation->pending[at]);
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
    struct truncation truncation;
    struct cells *cells = &store->forest.cells;
    int err = truncation_open(&truncation, store, changes_behind(store, slot, place));
    if (err == 0) err = find_out(&truncation, slot, place);
    bool is_ready =
        err == 0 && (truncation.kept_count == 0 ||
                     (deep_ready(store) && cells_reserve(cells, truncation.cells, true)));
    if (is_ready) {
        cursors_truncate(store, slot, place);
        carry_out(&truncation, slot, place);
    } else {
        err = -ENOMEM;
    }
    cells_unreserve(cells);
    truncation_close(&truncation);
    return err;
}
