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
 * This file is compiled twice: as it is, and with VARIANT_V3 for processors of the level x86-64-v3
 * (AVX2, BMI2; from 2013 on). See the Makefile.
 */
#include "shard/updates.h"

#include "base/assert.h"
#include "ring/slot.h"
#include "shard/run.h"

#ifdef VARIANT_V3
#define UPDATES_TAKE updates_take_v3
#else
#define UPDATES_TAKE updates_take
#endif

/* What turns the first word of the request into that of the change: longer, and nobody wants. */
#define TO_CHANGE                                                                                  \
    ((uint64_t)(CHANGE_BYTES - FRAME_REQUEST_BYTES) -                                              \
     ((uint64_t)(WANT_REPLY << FRAME_WANT_SHIFT) << 40))
/* 32 bytes that need no alignment: one register where there is AVX2. */
struct block {
    uint64_t words __attribute__((vector_size(32)));
} __attribute__((packed, may_alias));

/* Bodies up to this are copied whole, whatever their size; there is as much room behind them. */
#define COPY_BYTES (4 * sizeof(struct block))
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
    const uint8_t *end; /* of the data, less COPY_BYTES */
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
                                  const struct shard *shard, const uint8_t *frame)
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
    if (UNLIKELY(frame + padded > limits->end)) return 0;
    if (UNLIKELY((uint16_t)second != limits->cache)) return 0;
    if (!limits->alone && !is_own_slot(shard, frame, first, second)) return 0;
    uint64_t hash = hash_short(frame + FRAME_REQUEST_BYTES, key_len, limits->hash_seed);
    plain->frame = frame;
    plain->hash = hash;
    plain->bucket = table_bucket(limits->table, hash);
    __builtin_prefetch(plain->bucket, 1);
    return padded;
}

/* Whether the record is an update of the frame's key. */
static ALWAYS_INLINE bool is_key(const struct change *old, const uint8_t *frame, uint64_t first)
{
    if (UNLIKELY(((load_u64(old) ^ first) & TYPE_AND_KEY) != 0)) return false;
    const uint8_t *key = frame + FRAME_REQUEST_BYTES;
    if (LIKELY(first >> 48 == 8)) return load_u64(old + 1) == load_u64(key);
    return memcmp(old + 1, key, first >> 48) == 0;
}

/* Copies `bytes`, and whatever stands behind them up to COPY_BYTES. */
static ALWAYS_INLINE void copy_over(uint8_t *to, const uint8_t *from, size_t bytes)
{
    if (UNLIKELY(bytes > COPY_BYTES)) {
        memcpy(to, from, bytes);
        return;
    }
    const struct block *source = (const struct block *)(const void *)from;
    struct block *target = (struct block *)(void *)to;
    struct block first = source[0];
    struct block second = source[1];
    struct block third = source[2];
    struct block fourth = source[3];
    target[0] = first;
    target[1] = second;
    target[2] = third;
    target[3] = fourth;
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

/* What the second and third pass need, read once a run: nothing of it changes while it lasts. */
struct applying {
    struct store *store;
    struct log *log;
    uint8_t *arena;  /* of all records */
    uint32_t *index; /* their index words */
    struct segment *segments;
    struct store_slot *slots;
    uint64_t session_id;
    struct session_entry *remembered; /* of the session; NULL: there is none */
    uint64_t remembered_mask;
    bool may_wrap; /* the session may have to grow before it can remember the next one */
};

/* An entry that holds nothing that a probe could have seen. */
static uint64_t no_entry;

/* Second pass for one frame. */
static ALWAYS_INLINE void probe(struct plain *plain, const struct applying *applying)
{
    uint64_t *entry = table_probe(plain->bucket, plain->hash);
    if (UNLIKELY(entry == NULL)) {
        plain->entry = &no_entry;
        plain->seen = 1;
        return;
    }
    uint64_t seen = *entry;
    uint64_t address = entry_address(seen);
    plain->entry = entry;
    plain->seen = seen;
    __builtin_prefetch(applying->arena + address);
    __builtin_prefetch(applying->arena + address + CACHE_LINE - 1);
    __builtin_prefetch(&applying->index[address >> GRANULE_SHIFT], 1);
}

struct wanted {
    const uint8_t *arena;
    const uint8_t *frame;
};

static bool is_wanted(const void *context, uint64_t address)
{
    const struct wanted *wanted = context;
    return is_key((const struct change *)(wanted->arena + address), wanted->frame,
                  load_u64(wanted->frame));
}

/*
 * The probe found nothing (the key may be in an overflow bucket), an earlier frame of this run has
 * moved the entry, or a tag lied: looks the key up again. False: no update of it is there.
 */
static NO_INLINE bool look_again(struct plain *plain, const struct applying *applying)
{
    struct wanted wanted = {applying->arena, plain->frame};
    uint64_t *entry = table_find(&applying->store->table, plain->hash, is_wanted, &wanted);
    if (entry == NULL) return false;
    plain->entry = entry;
    plain->seen = *entry;
    return true;
}

static ALWAYS_INLINE bool holds(const struct plain *plain, const struct applying *applying,
                                uint64_t first)
{
    const uint8_t *old = applying->arena + entry_address(plain->seen);
    return LIKELY(*plain->entry == plain->seen) &&
           LIKELY(is_key((const struct change *)old, plain->frame, first));
}

static ALWAYS_INLINE void remember(const struct applying *applying, uint64_t seq, uint64_t address)
{
    if (UNLIKELY(applying->remembered == NULL)) return;
    struct session_entry entry = {(uint32_t)seq, (uint32_t)(address >> 3)};
    applying->remembered[seq & applying->remembered_mask] = entry;
}

/*
 * A key that is not there, or was removed. False: something is wrong with it, or memory is short;
 * the general way says what.
 */
static NO_INLINE bool apply_new(const struct applying *applying, const struct plain *plain,
                                uint64_t seq, uint64_t *hlc, uint8_t *reply)
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
    *store->hlc = *hlc;
    if (store_update(store, &request, &change) != STORE_OK) return false;
    *hlc = *store->hlc;
    remember(applying, seq, address_of(store->segments, change));
    write_reply(reply, seq, change_offset(change));
    return true;
}

/*
 * Third pass for one frame, whose key's newest change is what the probe saw. False: it must go the
 * general way; nothing was done.
 */
static ALWAYS_INLINE bool apply(const struct applying *applying, const struct plain *plain,
                                uint64_t first, uint64_t second, uint64_t seq, uint64_t hlc,
                                uint8_t *reply)
{
    struct log *log = applying->log;
    uint64_t old_address = entry_address(plain->seen);
    const struct change *old = (const struct change *)(applying->arena + old_address);
    uint16_t slot = old->slot;
    uint16_t given_slot = (uint16_t)(second >> 16);
    uint64_t offset = change_offset(old) + 1;
    if (UNLIKELY(given_slot != FRAME_SLOT_ANY && given_slot != slot)) return false;
    if (UNLIKELY(offset > UINT32_MAX)) return false;
    size_t padded = padded_of(first) + (CHANGE_BYTES - FRAME_REQUEST_BYTES);
    struct change *change = log_reserve(log, padded, false);
    if (UNLIKELY(change == NULL)) return false;

    struct store_slot *head = &applying->slots[slot];
    uint64_t place_and_seq = ++head->place | seq >> 32 << 48;
    uint64_t identity =
        change_identity_of(applying->session_id, place_and_seq, plain->hash, (uint32_t)seq);
    head->chain = chain_next(head->chain, identity);
    uint64_t *words = (uint64_t *)(void *)change;
    words[0] = first + TO_CHANGE;
    words[1] = (second >> 32 << 32) | (uint64_t)slot << 16;
    words[2] = plain->hash;
    words[3] = place_and_seq;
    words[4] = offset;
    words[5] = hlc;
    words[6] = applying->session_id;
    copy_over((uint8_t *)(words + 7), plain->frame + FRAME_REQUEST_BYTES, padded - CHANGE_BYTES);
    clear_padding((uint8_t *)change, (uint32_t)first + (CHANGE_BYTES - FRAME_REQUEST_BYTES));

    size_t old_padded = change_padded_bytes(old);
    uint64_t address = log_commit(log, slot, padded);
    *plain->entry = (plain->seen & ~ENTRY_ADDRESS) | address >> 3;
    uint32_t *old_word = &applying->index[old_address >> GRANULE_SHIFT];
    *old_word = (*old_word & INDEX_LINK) | log->active_mark;
    applying->segments[old_address >> SEGMENT_UNIT_SHIFT].dead_bytes += (uint32_t)old_padded;
    remember(applying, seq, address);
    write_reply(reply, seq, offset);
    return true;
}

/* Applies the run in order; returns how many frames. */
static ALWAYS_INLINE unsigned apply_run(struct caller *caller, const struct applying *applying,
                                        struct plain *run, unsigned count, uint8_t *reply)
{
    uint64_t seq = caller->seq_highest;
    uint64_t hlc = *applying->store->hlc;
    unsigned i = 0;
    for (; i < count; i++) {
        struct plain *plain = &run[i];
        uint64_t first = load_u64(plain->frame);
        uint64_t second = load_u64(plain->frame + 8);
        uint64_t next =
            seq + (uint64_t)(int64_t)(int32_t)((uint32_t)(second >> 32) - (uint32_t)seq);
        if (UNLIKELY(next <= seq)) break;
        if (UNLIKELY(applying->may_wrap) && session_must_grow(caller->session, next)) break;
        if (UNLIKELY(!holds(plain, applying, first)) && !look_again(plain, applying)) {
            if (!apply_new(applying, plain, next, &hlc, reply)) break;
        } else if (UNLIKELY(!apply(applying, plain, first, second, next, hlc + 1, reply))) {
            break;
        } else {
            hlc++;
        }
        reply += FRAME_REPLY_BYTES;
        seq = next;
    }
    *applying->store->hlc = hlc;
    caller->seq_highest = seq;
    return i;
}

size_t UPDATES_TAKE(struct caller *caller, const uint8_t *data, size_t size)
{
    struct plain run[RUN_MAX];
    struct shard *shard = caller->shard;
    struct session *session = caller->session;
    if (size < COPY_BYTES) return 0;
    uint16_t number = (uint16_t)load_u64(data + 8);
    struct cache *cache = number < CACHES_MAX ? shard->caches[number] : NULL;
    if (UNLIKELY(cache == NULL || cache->definition->handler.function != NULL)) return 0;
    if (UNLIKELY(!caller_has_room(caller, shard->options->outbox_bytes_max))) return 0;
    /* A session's number that was seen before may be a request sent again. */
    if (UNLIKELY(session != NULL && session->seq_highest > caller->seq_highest)) return 0;

    struct store *store = &cache->store;
    struct limits limits = {.key_bytes_max = shard->options->key_bytes_max,
                            .value_bytes_max = shard->options->value_bytes_max,
                            .hash_seed = store->hash_seed,
                            .table = &store->table,
                            .end = data + size - COPY_BYTES,
                            .cache = number,
                            .alone = shard->options->shards_count == 1};
    const uint8_t *frame = data;
    struct plain *end = run;
    while (end < run + RUN_MAX && frame < limits.end) {
        size_t padded = check(end, &limits, shard, frame);
        if (padded == 0) break;
        frame += padded;
        end++;
    }
    unsigned count = (unsigned)(end - run);
    struct applying applying = {.store = store,
                                .log = &store->log,
                                .arena = store->segments->base,
                                .index = store->segments->index,
                                .segments = store->segments->segments,
                                .slots = store->slots,
                                .session_id = caller->session_id,
                                .remembered = session != NULL ? session->entries : NULL,
                                .remembered_mask = session != NULL ? session->mask : 0,
                                .may_wrap = session != NULL && session->mask < SESSION_WINDOW - 1};
    for (struct plain *plain = run; plain < end; plain++) probe(plain, &applying);

    uint8_t *replies = link_reserve(&caller->link, count * FRAME_REPLY_BYTES);
    if (UNLIKELY(count == 0 || replies == NULL)) return 0;
    unsigned taken = apply_run(caller, &applying, run, count, replies);
    if (taken == 0) return 0;
    size_t bytes = (size_t)((taken == count ? frame : run[taken].frame) - data);
    if (session != NULL) session->seq_highest = caller->seq_highest;
    link_commit(&caller->link, taken * FRAME_REPLY_BYTES);
    caller->seq_last = (uint32_t)caller->seq_highest;
    caller->requests += taken;
    caller->consumed_bytes += bytes;
    shard->appended_bytes += bytes;
    shard->work += taken;
    count_plain(&shard->counters, taken);
    return bytes;
}

#ifndef VARIANT_V3
updates_fn updates_choose(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return updates_take_v3;
#endif
    return updates_take;
}
#endif
