/*
 * Nearly all of a busy node's requests are the same: an update of an existing key, of a flat value
 * of any size, that wants a reply. They are taken here, in runs, with every check of the general
 * way but nothing that only other requests need. Whatever is not plain ends the run and goes the
 * general way, one request of it, so this file never has to be complete, only right.
 *
 * Three passes over up to RUN_MAX frames, so that cache misses overlap:
 *   1  check the header, hash the key, fetch its bucket
 *   2  find the entry by tag, fetch the record it points to and the record's index word
 *   3  compare the key, append the change, point the entry at it, write the reply
 *
 * A frame's first word holds length, type, flags and key length, so that one masked comparison says
 * whether it is plain and one addition makes it the first word of the change.
 *
 * This file is compiled twice, as it is and for x86-64-v3 (updates_v3.c).
 */
#include "shard/updates.h"

#include "base/assert.h"
#include "ring/slot.h"
#include "shard/run.h"

#ifndef UPDATES_TAKE
#define UPDATES_TAKE updates_take
#endif

/* What turns the first word of the request into that of the change: longer, and nobody wants. */
#define TO_CHANGE                                                                                  \
    ((uint64_t)(CHANGE_BYTES - FRAME_REQUEST_BYTES) -                                              \
     ((uint64_t)(WANT_REPLY << FRAME_WANT_SHIFT) << 40))
/* Bodies up to this are copied whole, whatever their size; there is as much room behind them. */
#define COPY_BYTES 128
_Static_assert(COPY_BYTES <= LOG_SLACK_BYTES, "a copy may go over the end of its record");

/* By a frame's flags: wants a reply, has no extension, and its value may have any size. */
#define PLAIN_FLAGS(type) [(WANT_REPLY << FRAME_WANT_SHIFT) | (type)] = 1
static const uint8_t plain_flags[256] = {PLAIN_FLAGS(VALUE_STRING), PLAIN_FLAGS(VALUE_JSON),
                                         PLAIN_FLAGS(VALUE_BYTES)};

/* Type and key length of a first word: what a record must have in common with the frame. */
#define TYPE_AND_KEY ((uint64_t)0xffff00ff << 32)

struct plain {
    const uint8_t *frame;
    uint64_t hash;
    struct bucket *bucket;
    uint64_t *entry;
    uint64_t seen; /* the entry when it was probed */
};

static ALWAYS_INLINE uint64_t load_u64(const void *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static ALWAYS_INLINE uint64_t hash_short(const uint8_t *key, size_t bytes, uint64_t seed)
{
    /* The length known, the hash is a dozen instructions. */
    return LIKELY(bytes == 8) ? hash_key(key, 8, seed) : hash_key(key, bytes, seed);
}

static ALWAYS_INLINE size_t padded_of(uint64_t first)
{
    return round_up_8((uint32_t)first);
}

/* What the first pass needs of shard and cache, read once a run. */
struct limits {
    uint64_t key_bytes_max;
    uint64_t value_bytes_max;
    uint64_t hash_seed;
    const struct table *table;
    uint16_t cache;
    bool alone; /* the only shard: every slot is its own */
};

static NO_INLINE bool is_own_slot(const struct shard *shard, const uint8_t *frame, uint64_t first,
                                  uint64_t second)
{
    uint16_t slot = (uint16_t)(second >> 16);
    if (slot == FRAME_SLOT_ANY) slot = slot_of_key(frame + FRAME_REQUEST_BYTES, first >> 48);
    return slot < SLOTS_COUNT && shard->slot_owner[slot] == shard->index;
}

/* First pass for one frame; its padded bytes, or 0 where it is not plain or not this shard's. */
static ALWAYS_INLINE size_t check(struct plain *plain, const struct limits *limits,
                                  const struct shard *shard, const uint8_t *frame, size_t size)
{
    uint64_t first = load_u64(frame);
    uint64_t second = load_u64(frame + 8);
    size_t padded = padded_of(first);
    uint64_t key_len = first >> 48;
    uint64_t value_bytes = (uint32_t)first - FRAME_REQUEST_BYTES - key_len;
    if (UNLIKELY((uint8_t)(first >> 32) != FRAME_UPDATE)) return 0;
    if (UNLIKELY(plain_flags[(uint8_t)(first >> 40)] == 0)) return 0;
    if (UNLIKELY(key_len - 1 >= limits->key_bytes_max)) return 0;
    if (UNLIKELY(value_bytes > limits->value_bytes_max)) return 0;
    if (UNLIKELY(padded + COPY_BYTES > size)) return 0;
    if (UNLIKELY((uint16_t)second != limits->cache)) return 0;
    if (!limits->alone && !is_own_slot(shard, frame, first, second)) return 0;
    uint64_t hash = hash_short(frame + FRAME_REQUEST_BYTES, key_len, limits->hash_seed);
    plain->frame = frame;
    plain->hash = hash;
    plain->bucket = table_bucket(limits->table, hash);
    __builtin_prefetch(plain->bucket, 1);
    return padded;
}

/* Second pass for one frame. */
static ALWAYS_INLINE void probe(struct plain *plain, const struct store *store)
{
    uint64_t *entry = table_probe(plain->bucket, plain->hash);
    plain->entry = entry;
    if (UNLIKELY(entry == NULL)) return;
    uint64_t address = entry_address(*entry);
    const uint8_t *record = store->segments->base + address;
    plain->seen = *entry;
    __builtin_prefetch(record);
    __builtin_prefetch(record + CACHE_LINE - 1);
    __builtin_prefetch(index_word(store->segments, address), 1);
}

/* Whether the record is an update of the frame's key. */
static ALWAYS_INLINE bool is_key(const struct change *old, const uint8_t *frame, uint64_t first)
{
    if (UNLIKELY(((load_u64(old) ^ first) & TYPE_AND_KEY) != 0)) return false;
    const uint8_t *key = frame + FRAME_REQUEST_BYTES;
    if (LIKELY(first >> 48 == 8)) return load_u64(old + 1) == load_u64(key);
    return memcmp(old + 1, key, first >> 48) == 0;
}

/* 32 bytes that need no alignment: one register where there is AVX2. */
struct block {
    uint64_t words __attribute__((vector_size(32)));
} __attribute__((packed, may_alias));

/* Copies `bytes`, and whatever stands behind them up to COPY_BYTES. */
static ALWAYS_INLINE void copy_over(uint8_t *to, const uint8_t *from, size_t bytes)
{
    if (UNLIKELY(bytes > COPY_BYTES)) {
        memcpy(to, from, bytes);
        return;
    }
    const struct block *source = (const struct block *)(const void *)from;
    struct block *target = (struct block *)(void *)to;
    for (unsigned i = 0; i < COPY_BYTES / sizeof(struct block); i++) target[i] = source[i];
}

/* Clears what the sender left between the end of the record and the next multiple of 8. */
static ALWAYS_INLINE void clear_padding(uint8_t *record, uint32_t length)
{
    uint32_t tail = length & 7;
    if (tail == 0) return;
    uint8_t *last = record + (length - tail);
    uint64_t word = load_u64(last) & (((uint64_t)1 << (tail * 8)) - 1);
    memcpy(last, &word, sizeof word);
}

static ALWAYS_INLINE void write_reply(uint8_t *reply, uint64_t seq, uint64_t offset)
{
    uint64_t words[2] = {FRAME_REPLY_BYTES | (uint64_t)FRAME_REPLY << 32,
                         (uint32_t)seq | offset << 32};
    memcpy(reply, words, sizeof words);
}

struct wanted {
    const struct store *store;
    const uint8_t *frame;
};

static bool is_wanted(const void *context, uint64_t address)
{
    const struct wanted *wanted = context;
    return is_key(change_at(wanted->store->segments, address), wanted->frame,
                  load_u64(wanted->frame));
}

/*
 * The probe found nothing (the key may be in an overflow bucket), an earlier frame of this run has
 * moved the entry, or a tag lied: looks the key up again. False: no update of it is there.
 */
static NO_INLINE bool look_again(struct plain *plain, struct store *store)
{
    struct wanted wanted = {store, plain->frame};
    plain->entry = table_find(&store->table, plain->hash, is_wanted, &wanted);
    if (plain->entry == NULL) return false;
    plain->seen = *plain->entry;
    return true;
}

static ALWAYS_INLINE bool holds(const struct plain *plain, const struct store *store,
                                uint64_t first)
{
    return LIKELY(plain->entry != NULL) && LIKELY(*plain->entry == plain->seen) &&
           is_key(change_at(store->segments, entry_address(plain->seen)), plain->frame, first);
}

/* What the third pass carries from frame to frame. */
struct applying {
    struct store *store;
    struct session *session; /* NULL: none */
    uint64_t session_id;
    uint64_t seq; /* of the last frame */
    uint64_t hlc;
    uint8_t *reply;
};

/*
 * A key that is not there, or was removed. False: something is wrong with it, or memory is short;
 * the general way says what.
 */
static NO_INLINE bool apply_new(struct applying *applying, const struct plain *plain, uint64_t seq)
{
    struct frame_request frame;
    memcpy(&frame, plain->frame, sizeof frame);
    struct store_request request = {.body = plain->frame + FRAME_REQUEST_BYTES,
                                    .body_bytes = frame.length - FRAME_REQUEST_BYTES,
                                    .key_len = frame.key_len,
                                    .slot = frame.slot,
                                    .type = FRAME_UPDATE,
                                    .flags = frame.flags & FRAME_VALUE_TYPE,
                                    .seq = frame.seq,
                                    .seq_whole = seq,
                                    .session = applying->session_id,
                                    .hash = plain->hash};
    struct store *store = applying->store;
    const struct change *change;
    *store->hlc = applying->hlc;
    if (store_update(store, &request, &change) != STORE_OK) return false;
    applying->hlc = *store->hlc;
    if (applying->session != NULL)
        session_remember(applying->session, seq, address_of(store->segments, change));
    write_reply(applying->reply, seq, change_offset(change));
    return true;
}

/* Third pass for one frame. False: it must go the general way; nothing was done. */
static ALWAYS_INLINE bool apply(struct applying *applying, struct plain *plain, uint64_t second,
                                uint64_t seq)
{
    struct store *store = applying->store;
    struct log *log = &store->log;
    const uint8_t *frame = plain->frame;
    uint64_t first = load_u64(frame);
    if (UNLIKELY(!holds(plain, store, first)) && !look_again(plain, store))
        return apply_new(applying, plain, seq);
    uint64_t old_address = entry_address(plain->seen);
    const struct change *old = change_at(store->segments, old_address);
    uint16_t slot = old->slot;
    uint16_t given_slot = (uint16_t)(second >> 16);
    uint64_t offset = change_offset(old) + 1;
    if (UNLIKELY(given_slot != FRAME_SLOT_ANY && given_slot != slot)) return false;
    if (UNLIKELY(offset > UINT32_MAX)) return false;
    size_t padded = padded_of(first) + (CHANGE_BYTES - FRAME_REQUEST_BYTES);
    struct change *change = log_reserve(log, padded, false);
    if (UNLIKELY(change == NULL)) return false;

    struct store_slot *head = &store->slots[slot];
    uint64_t place_and_seq = ++head->place | seq >> 32 << 48;
    uint64_t words[CHANGE_BYTES / 8] = {first + TO_CHANGE,
                                        second >> 32 << 32 | (uint64_t)slot << 16,
                                        plain->hash,
                                        place_and_seq,
                                        offset,
                                        ++applying->hlc,
                                        applying->session_id};
    memcpy(change, words, sizeof words);
    copy_over((uint8_t *)(change + 1), frame + FRAME_REQUEST_BYTES, padded - CHANGE_BYTES);
    clear_padding((uint8_t *)change, (uint32_t)words[0]);
    uint64_t identity =
        change_identity_of(applying->session_id, place_and_seq, plain->hash, (uint32_t)seq);
    head->chain = chain_next(head->chain, identity);

    size_t old_padded = change_padded_bytes(old);
    uint64_t address = log_commit(log, slot, padded);
    *plain->entry = (plain->seen & ~ENTRY_ADDRESS) | address >> 3;
    index_supersede(store->segments, old_address, old_padded, log->active_mark);
    if (LIKELY(applying->session != NULL)) session_remember(applying->session, seq, address);
    write_reply(applying->reply, seq, offset);
    return true;
}

/* Whether `session` can take `seq` without looking further: it is new, and there is an entry. */
static ALWAYS_INLINE bool is_plainly_new(const struct session *session, uint64_t seq)
{
    return session == NULL || (seq > session->seq_highest && !session_must_grow(session, seq));
}

size_t UPDATES_TAKE(struct caller *caller, const uint8_t *data, size_t size)
{
    struct plain run[RUN_MAX];
    struct shard *shard = caller->shard;
    if (size < FRAME_REQUEST_BYTES) return 0;
    uint16_t number = (uint16_t)load_u64(data + 8);
    struct cache *cache = number < CACHES_MAX ? shard->caches[number] : NULL;
    if (UNLIKELY(cache == NULL || cache->definition->handler.function != NULL)) return 0;
    if (UNLIKELY(!caller_has_room(caller, shard->options->outbox_bytes_max))) return 0;

    struct store *store = &cache->store;
    size_t at = 0;
    unsigned count = 0;
    struct limits limits = {.key_bytes_max = shard->options->key_bytes_max,
                            .value_bytes_max = shard->options->value_bytes_max,
                            .hash_seed = store->hash_seed,
                            .table = &store->table,
                            .cache = number,
                            .alone = shard->options->shards_count == 1};
    while (count < RUN_MAX && size - at >= FRAME_REQUEST_BYTES) {
        size_t padded = check(&run[count], &limits, shard, data + at, size - at);
        if (padded == 0) break;
        at += padded;
        count++;
    }
    for (unsigned i = 0; i < count; i++) probe(&run[i], store);

    uint8_t *replies = link_reserve(&caller->link, count * FRAME_REPLY_BYTES);
    if (UNLIKELY(count == 0 || replies == NULL)) return 0;
    struct applying applying = {.store = store,
                                .session = caller->session,
                                .session_id = caller->session_id,
                                .seq = caller->seq_highest,
                                .hlc = *store->hlc,
                                .reply = replies};
    size_t taken = 0;
    unsigned i = 0;
    for (; i < count; i++) {
        uint64_t second = load_u64(run[i].frame + 8);
        uint32_t low = (uint32_t)(second >> 32);
        uint64_t seq = applying.seq + (uint64_t)(int64_t)(int32_t)(low - (uint32_t)applying.seq);
        if (UNLIKELY(seq <= applying.seq || !is_plainly_new(applying.session, seq))) break;
        if (UNLIKELY(!apply(&applying, &run[i], second, seq))) break;
        applying.seq = seq;
        applying.reply += FRAME_REPLY_BYTES;
        taken += padded_of(load_u64(run[i].frame));
    }
    if (i == 0) return 0;
    *store->hlc = applying.hlc;
    link_commit(&caller->link, i * FRAME_REPLY_BYTES);
    caller->seq_highest = applying.seq;
    caller->seq_last = (uint32_t)applying.seq;
    caller->requests += i;
    caller->consumed_bytes += taken;
    shard->appended_bytes += taken;
    shard->work += i;
    count_plain(&shard->counters, i);
    return taken;
}
