#include "shard/store.h"

#include <errno.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/ck.h"
#include "base/memory.h"
#include "ring/slot.h"
#include "shard/compact.h"
#include "shard/cursor.h"
#include "shard/deep.h"
#include "shard/store_refusal.h"

_Static_assert(SEGMENT_SLOTS == SLOTS_COUNT, "the index has a chain for every slot");

int store_init(struct store *store, struct segments *segments, uint64_t *hlc,
               const struct store_options *options)
{
    *store = (struct store){.segments = segments, .hlc = hlc, .hash_seed = options->hash_seed};
    store->cursors.lent_bytes_max = options->lent_bytes_max;
    store->cursors.history_seen = SEGMENT_NONE;
    log_init(&store->log, segments, &options->log);
    forest_init(&store->forest, segments, options->hash_seed);
    int err = table_init(&store->table, options->entries_max);
    if (err < 0) return err;
    store->slots = memory_take(SEGMENT_SLOTS * sizeof *store->slots);
    if (store->slots == NULL) goto deinit_table;
    store->compaction = compaction_open(options->garbage_bytes_max);
    if (store->compaction == NULL) goto put_slots;
    return 0;

put_slots:
    memory_put(store->slots);
deinit_table:
    table_deinit(&store->table);
    return -ENOMEM;
}

static void drop_tree(void *context, uint64_t root_address)
{
    tree_drop(context, (uint32_t)(root_address >> CELL_SHIFT), false);
}

void store_deinit(struct store *store)
{
    cursors_end(store);
    table_each_tree(&store->table, drop_tree, &store->forest);
    forest_deinit(&store->forest);
    compaction_close(store->compaction, store);
    log_deinit(&store->log);
    table_deinit(&store->table);
    memory_put(store->slots);
    *store = (struct store){0};
}

static ALWAYS_INLINE bool record_is_key(const struct change *change, const uint8_t *key,
                                        size_t key_len)
{
    if (change->key_len != key_len) return false;
    const uint8_t *own = change_key(change);
    if (LIKELY(key_len == 8)) {
        uint64_t a;
        uint64_t b;
        memcpy(&a, own, 8);
        memcpy(&b, key, 8);
        return a == b;
    }
    return memcmp(own, key, key_len) == 0;
}

struct wanted_key {
    const struct segments *segments;
    const uint8_t *key;
    size_t key_len;
};

static bool is_wanted(const void *context, uint64_t address)
{
    const struct wanted_key *wanted = context;
    return record_is_key(change_at(wanted->segments, address), wanted->key, wanted->key_len);
}

static NO_INLINE uint64_t *find_entry(struct store *store, const struct store_request *request)
{
    struct wanted_key wanted = {store->segments, request->body, request->key_len};
    return table_find(&store->table, request->hash, is_wanted, &wanted);
}

/*
 * The key's entry at this moment. What store_probe saw holds unless an earlier request of the run
 * changed the entry (then it is looked up again) or the tag lied.
 */
static ALWAYS_INLINE uint64_t *current_entry(struct store *store,
                                             const struct store_request *request)
{
    if (LIKELY(request->entry != NULL && *request->entry == request->entry_seen &&
               record_is_key(request->change, request->body, request->key_len)))
        return request->entry;
    return find_entry(store, request);
}

/* Copies key and value and clears the padding behind them. Both ends are padded to 8 bytes. */
static ALWAYS_INLINE void copy_body(uint8_t *to, const uint8_t *from, size_t bytes)
{
    size_t padded = round_up_8(bytes);
    if (LIKELY(padded <= 256)) {
        size_t at = 0;
        for (; at + 16 <= padded; at += 16) memcpy(to + at, from + at, 16);
        if (at < padded) memcpy(to + at, from + at, 8);
    } else {
        memcpy(to, from, bytes);
    }
    size_t tail = bytes & 7;
    if (tail != 0) {
        uint64_t last;
        memcpy(&last, from + (bytes - tail), 8);
        last &= ((uint64_t)1 << (tail * 8)) - 1;
        memcpy(to + (bytes - tail), &last, 8);
    }
}

/* Appends the change to log and slot; NULL where memory.max is reached. */
static ALWAYS_INLINE struct change *append(struct store *store, const struct store_request *request,
                                           uint16_t slot, uint64_t offset, uint32_t body_bytes,
                                           bool urgent)
{
    size_t padded = round_up_8(CHANGE_BYTES + body_bytes);
    struct change *change = log_reserve(&store->log, padded, urgent);
    if (UNLIKELY(change == NULL)) return NULL;
    struct store_slot *head = &store->slots[slot];
    change->length = (uint32_t)CHANGE_BYTES + body_bytes;
    change->type = request->type;
    change->flags = request->flags;
    change->key_len = request->key_len;
    change->cache = 0;
    change->slot = slot;
    change->seq = request->seq;
    change->key_hash = request->hash;
    change->place_and_seq = ++head->place | (request->seq_whole >> 32) << 48;
    change->offset_and_floor = offset;
    change->hlc = ++*store->hlc;
    change->session = request->session;
    copy_body((uint8_t *)(change + 1), request->body, body_bytes);
    head->chain = chain_next(head->chain, change_identity(change));
    return change;
}

/* Whether the request goes inside of a partition, where the table has no record of its key. */
static NO_INLINE bool is_deep(struct store *store, const struct store_request *request)
{
    return deep_is_key(request->body, request->key_len) ||
           deep_is_tree(store, request->hash, request->body, request->key_len);
}

void store_note_id(struct store *store, const uint8_t *name, size_t bytes)
{
    struct path_part part = {.name = name, .bytes = (uint16_t)bytes};
    uint32_t id;
    if (store->highest_id == NULL || !path_index(&part, &id) || id <= *store->highest_id) return;
    store_relaxed_u64(store->highest_id, id);
}

/* Whether its value has to be looked at: see store_check_value. */
static ALWAYS_INLINE bool has_text(const struct store_request *request)
{
    return request->flags == VALUE_STRING || request->flags == VALUE_JSON;
}

/* The first change of a key, or the first after its removal was forgotten. */
static NO_INLINE enum store_result insert(struct store *store, const struct store_request *request,
                                          const struct change **changed)
{
    if (is_deep(store, request)) return STORE_DEEP;
    if (has_text(request) && store_check_value(store, request) != STORE_OK) return STORE_REFUSED;
    uint16_t slot = slot_of_key(request->body, request->key_len);
    if (request->slot != FRAME_SLOT_ANY && request->slot != slot) return STORE_WRONG_SLOT;
    /* The entry first: an appended change cannot be taken back without a truncation. */
    if (table_insert(&store->table, request->hash, 0) < 0) return STORE_NO_MEMORY;
    uint64_t *entry = table_find_address(&store->table, request->hash, 0);
    struct change *change = append(store, request, slot, 1, request->body_bytes, false);
    if (change == NULL) {
        table_remove(&store->table, request->hash, entry);
        return STORE_NO_MEMORY;
    }
    size_t padded = change_padded_bytes(change);
    store_release_u64(entry, entry_make(request->hash, log_commit(&store->log, slot, padded)));
    store_note_id(store, request->body, request->key_len);
    *changed = change;
    return STORE_OK;
}

/* Points the entry at the change that was just written, and marks the one before it. */
static ALWAYS_INLINE void supersede(struct store *store, uint64_t *entry,
                                    const struct change *change, const struct change *old)
{
    uint64_t old_address = entry_address(*entry);
    size_t old_padded = change_padded_bytes(old);
    size_t padded = change_padded_bytes(change);
    uint64_t address = log_commit(&store->log, change->slot, padded);
    store_release_u64(entry, (*entry & ~ENTRY_ADDRESS) | address >> 3);
    index_supersede(store->segments, old_address, old_padded, store->log.active_mark);
}

enum store_result store_update(struct store *store, const struct store_request *request,
                               const struct change **changed)
{
    uint64_t *entry = current_entry(store, request);
    if (UNLIKELY(entry == NULL)) return insert(store, request, changed);
    if (has_text(request) && store_check_value(store, request) != STORE_OK) return STORE_REFUSED;
    const struct change *old = change_at(store->segments, entry_address(*entry));
    if (UNLIKELY(request->slot != FRAME_SLOT_ANY && request->slot != old->slot))
        return STORE_WRONG_SLOT;
    struct change *change =
        append(store, request, old->slot, change_offset(old) + 1, request->body_bytes, false);
    if (UNLIKELY(change == NULL)) return STORE_NO_MEMORY;
    if (UNLIKELY(old->type == FRAME_REMOVE)) store->tombstones--;
    supersede(store, entry, change, old);
    *changed = change;
    return STORE_OK;
}

enum store_result store_remove(struct store *store, const struct store_request *request,
                               const struct change **changed)
{
    uint64_t *entry = current_entry(store, request);
    if (entry == NULL) return is_deep(store, request) ? STORE_DEEP : STORE_NO_KEY;
    const struct change *old = change_at(store->segments, entry_address(*entry));
    if (old->type == FRAME_REMOVE) return STORE_NO_KEY;
    if (request->slot != FRAME_SLOT_ANY && request->slot != old->slot) return STORE_WRONG_SLOT;
    struct change *change =
        append(store, request, old->slot, change_offset(old) + 1, request->key_len, true);
    if (change == NULL) return STORE_NO_MEMORY;
    change->flags = VALUE_UNDEFINED;
    store->tombstones++;
    if (PLANTED("chain_cut")) store->slots[change->slot].chain = 0;
    supersede(store, entry, change, old);
    *changed = change;
    return STORE_OK;
}

enum store_result store_get(struct store *store, const struct store_request *request,
                            const struct change **found)
{
    uint64_t *entry = current_entry(store, request);
    if (entry == NULL) return is_deep(store, request) ? STORE_DEEP : STORE_NO_KEY;
    const struct change *change = change_at(store->segments, entry_address(*entry));
    if (change->type == FRAME_REMOVE) return STORE_NO_KEY;
    *found = change;
    return STORE_OK;
}

void store_prepare(const struct store *store, struct store_request *request)
{
    store_prefetch(store, request);
    store_probe(store, request);
}

const struct change *store_change_of(const struct store *store, uint64_t session, uint64_t seq,
                                     uint32_t address_low)
{
    uint64_t bytes = (uint64_t)store->segments->units_fresh << SEGMENT_UNIT_SHIFT;
    uint64_t step = (uint64_t)1 << 35;
    for (uint64_t address = (uint64_t)address_low << 3; address < bytes; address += step) {
        const struct change *change = change_at(store->segments, address);
        if (change->session != session || change_seq(change) != (seq & CHANGE_48_BITS)) continue;
        if (index_is_unlinked(address, *index_word(store->segments, address))) continue;
        /* Bytes of something else, which may look like a record, must not lead beyond the memory. */
        if (address + CHANGE_BYTES + change->key_len > bytes) continue;
        return change;
    }
    return NULL;
}

uint64_t store_keys_count(const struct store *store)
{
    return store->table.count - store->tombstones;
}

struct check {
    const struct store *store;
    uint64_t live_bytes;
    uint64_t tombstones;
    uint64_t trees;
};

static void check_entry(void *context, uint64_t address)
{
    struct check *check = context;
    const struct store *store = check->store;
    const struct change *change = change_at(store->segments, address);
    /* No bit but the link's: updates.c adds the mark to it. */
    ASSERT(*index_word(store->segments, address) <= INDEX_LINK);
    ASSERT(change->key_hash == hash_key(change_key(change), change->key_len, store->hash_seed));
    ASSERT(change->slot == slot_of_key(change_key(change), change->key_len));
    ASSERT(change_place(change) <= store->slots[change->slot].place);
    check->live_bytes += change_padded_bytes(change);
    check->tombstones += change->type == FRAME_REMOVE;
}

/* Of a tree, or one that was not. */
static void check_live(void *context, uint64_t address)
{
    struct check *check = context;
    const struct change *change = change_at(check->store->segments, address);
    ASSERT(!index_is_superseded(*index_word(check->store->segments, address)));
    ASSERT(change->key_hash ==
           hash_key(change_key(change), change->key_len, check->store->hash_seed));
    ASSERT(change_place(change) <= check->store->slots[change->slot].place);
    check->live_bytes += change_padded_bytes(change);
}

static void check_tree(void *context, uint64_t root_address)
{
    struct check *check = context;
    check->trees++;
    tree_records(&check->store->forest, (uint32_t)(root_address >> CELL_SHIFT), check_live, check);
}

void store_check(struct store *store)
{
    struct check check = {.store = store};
    table_check(&store->table);
    log_check(&store->log);
    table_each(&store->table, check_entry, &check);
    table_each_tree(&store->table, check_tree, &check);
    ASSERT(check.trees == store->forest.trees_count);
    /* Beside live records, segments hold batch heads. */
    if (store->log.batch == NULL) ASSERT(check.live_bytes <= log_live_bytes(&store->log));
    ASSERT(check.tombstones == store->tombstones);
}
