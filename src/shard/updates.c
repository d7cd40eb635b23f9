/*
 * Nearly all of a busy node's requests are the same: an update of an existing key, of a flat value
 * of any size, that wants a reply. They are taken here, with every check of the general way but
 * nothing that only other requests need. Whatever is not plain ends the run and goes the general
 * way, one request of it, so this file never has to be complete, only right.
 *
 * Three passes:
 *   1  check the header, hash the key, fetch its bucket
 *   2  find the entry by tag, fetch the record it points to and the record's index word
 *   3  compare the key or its hash, append the change, point the entry at it, write the reply
 *
 * Each pass takes a group of PACE frames, then the next one takes the group before, round and round:
 * so every line is asked for long before it is needed, and the requests for memory come evenly (a
 * core has no more than some twenty misses in flight, and waits when there are more).
 *
 * Who asks is a caller, or another shard with a bundle of one of its callers (bundle.c). A caller's
 * frames may be other shards': the first pass reads them, if they have room, and the third pushes
 * them to their lanes behind the own frames of their group, as slots do not wait for each other.
 *
 * A frame's first word holds length, type, flags and key length: one comparison with the word of
 * the frame before says that this one is plain as well, and one addition makes it the first word of
 * the change.
 *
 * This file is compiled twice: as it is, and with VARIANT_V3 for processors of the level x86-64-v3
 * (AVX2, BMI2; from 2013 on). See the Makefile. docs/adr/0006 has the figures.
 */
#include "shard/updates.h"

#include "base/assert.h"
#include "base/ck.h"
#include "ring/slot.h"
#include "shard/bundle.h"
#include "shard/crossing.h"

#ifdef VARIANT_V3
#define UPDATES_TAKE updates_take_v3
#else
#define UPDATES_TAKE updates_take
#endif

/* Own frames of a group; a word has a bit for each. */
#define PACE 64u
/* Other shards' frames that are read with PACE own ones, at most. */
#define FOREIGN_PACE 32u
/* Groups on their way through the passes, a power of two. */
#define PIPE 4u
/* Numbers may have gaps: those of other shards' frames, and more. */
#define STEP_MAX ((uint32_t)1 << 20)
_Static_assert((uint64_t)STEP_MAX *UPDATES_MAX < (uint64_t)1 << 31,
               "the upper half of a number does not depend on the order of own and foreign frames");
/* How far the log's memory is fetched ahead of its end. A store to a line in no cache would wait. */
#define LOG_AHEAD_BYTES 2048
/* Of long records, more of it is on its way at a time. */
#define LOG_AHEAD_BYTES_LONG 8192

/* What turns the first word of the request into that of the change: longer, and nobody wants. */
#define TO_CHANGE                                                                                  \
    ((uint64_t)(CHANGE_BYTES - FRAME_REQUEST_BYTES) -                                              \
     ((uint64_t)(WANT_REPLY << FRAME_WANT_SHIFT) << 40))
/* 32 bytes that need no alignment: one register where there is AVX2. */
struct block {
    uint64_t words __attribute__((vector_size(32)));
} __attribute__((packed, may_alias));

/* Bodies up to this are copied whole, whatever their size; there is as much room behind them. */
#define COPY_BLOCKS 4
#define COPY_BYTES (COPY_BLOCKS * sizeof(struct block))
_Static_assert(COPY_BYTES <= UPDATES_SLACK_BYTES, "a copy may go over the end of its frame");
_Static_assert(COPY_BYTES <= LOG_SLACK_BYTES, "a copy may go over the end of its record");

/* By a frame's flags: wants a reply, has no extension, and its value may have any size. */
#define PLAIN_FLAGS(type) [(WANT_REPLY << FRAME_WANT_SHIFT) | (type)] = 1
static const uint8_t plain_flags[256] = {PLAIN_FLAGS(VALUE_STRING), PLAIN_FLAGS(VALUE_JSON),
                                         PLAIN_FLAGS(VALUE_BYTES)};

/* Of a first word: what a record must have in common with the frame. */
#define TYPE_AND_KEY ((uint64_t)0xffff00ff << 32)
#define KEY_ONLY ((uint64_t)0xffff0000 << 32)
/* A window of this many bytes on it, beginning `n` bytes before the middle, masks `n` bytes. */
static const uint8_t body_masks[2 * COPY_BYTES] = {[0 ... COPY_BYTES - 1] = 0xff};

/* What is read of an old change, where keys have 8 bytes. */
#define OLD_BYTES (offsetof(struct change, offset_and_floor) + sizeof(uint64_t))
/* As in log/segments.h, for addresses in units of 8 bytes. */
#define GRANULE_SHIFT_8 (GRANULE_SHIFT - 3)
#define UNIT_SHIFT_8 (SEGMENT_UNIT_SHIFT - 3)
#define PLACE_8 ((uint32_t)(SEGMENT_UNIT_BYTES / 8 - 1))

static ALWAYS_INLINE uint64_t load_u64(const void *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static ALWAYS_INLINE uint32_t load_u32(const void *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static ALWAYS_INLINE uint16_t load_u16(const void *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static ALWAYS_INLINE void store_u64(void *to, uint64_t value)
{
    memcpy(to, &value, sizeof value);
}

static ALWAYS_INLINE void store_u32(void *to, uint32_t value)
{
    memcpy(to, &value, sizeof value);
}

/* What all frames with the same first word have in common. */
struct shape {
    uint64_t first;
    uint64_t tail_mask; /* of the last 8 bytes: zeros where there is padding */
    uint32_t padded;    /* bytes of the frame */
    uint32_t key_bytes;
    bool is_short; /* its body has at most COPY_BYTES */
};

static ALWAYS_INLINE struct shape shape_of(uint64_t first)
{
    return (struct shape){.first = first,
                          .tail_mask = UINT64_MAX >> (-first & 7) * 8,
                          .padded = (uint32_t)round_up_8((uint32_t)first),
                          .key_bytes = (uint32_t)(first >> 48),
                          .is_short = (uint32_t)first <= FRAME_REQUEST_BYTES + COPY_BYTES};
}

static ALWAYS_INLINE size_t record_bytes(const struct shape *shape)
{
    return shape->padded + (CHANGE_BYTES - FRAME_REQUEST_BYTES);
}

/* The first word of the change. */
static ALWAYS_INLINE uint64_t change_first(const struct shape *shape)
{
    return shape->first + TO_CHANGE;
}

/* Own frames on their way, in columns: four of a row are worked out at once. */
struct plain {
    uint64_t hash[PACE];
    uint64_t hash_bits[PACE]; /* as entries have them */
    union {
        struct bucket *bucket[PACE]; /* until it was probed, */
        uint64_t *entry[PACE];       /* and then */
    };
    const uint8_t *frame[PACE];
    /* What apply_steady notes for its second loop: the changes before, their slots, the offsets. */
    uint64_t old8[PACE];
    uint32_t place[PACE];
    uint32_t offset[PACE];
};

/* What is read at once, and goes from pass to pass together. */
struct group {
    struct plain own;
    struct foreign foreign[FOREIGN_PACE];
    unsigned own_count;
    unsigned foreign_count;
    bool is_alike; /* the own frames lie behind each other, and all have the same first word */
};

/* ----------------------------------------------------------------------------- first pass */

/* Reading of frames: what it needs of shard and cache, and where it is. */
struct reader {
    const struct shard *shard;
    const struct table *table;
    uint64_t hash_seed;
    const uint8_t *at;
    const uint8_t *end; /* of the data, less UPDATES_SLACK_BYTES */
    struct shape shape; /* of the last frame; it was plain */
    uint16_t cache;
    struct bundles *bundles; /* NULL: every slot is this shard's */
};

/* Whether frames with this first word are plain; then the reader remembers their shape. */
static bool is_plain(struct reader *reader, uint64_t first)
{
    const struct shard_options *options = reader->shard->options;
    uint64_t key_bytes = first >> 48;
    uint64_t value_bytes = (uint32_t)first - FRAME_REQUEST_BYTES - key_bytes;
    if ((uint8_t)(first >> 32) != FRAME_UPDATE) return false;
    if (plain_flags[(uint8_t)(first >> 40)] == 0) return false;
    if (key_bytes - 1 >= options->key_bytes_max) return false;
    if (value_bytes > options->value_bytes_max) return false;
    reader->shape = shape_of(first);
    return true;
}

static ALWAYS_INLINE void take_in(const struct table *table, struct plain *plain, unsigned i,
                                  const uint8_t *frame, uint64_t hash)
{
    plain->frame[i] = frame;
    plain->hash[i] = hash;
    plain->hash_bits[i] = entry_hash_bits(hash);
    plain->bucket[i] = table_bucket(table, hash);
    __builtin_prefetch(plain->bucket[i], 1);
}

/* Whether a frame lies at `at` that is plain; then the shape is its. */
static ALWAYS_INLINE bool is_plain_next(struct reader *reader)
{
    const uint8_t *frame = reader->at;
    if (frame >= reader->end) return false;
    uint64_t first = load_u64(frame);
    if (first != reader->shape.first && !is_plain(reader, first)) return false;
    if (frame + reader->shape.padded > reader->end) return false;
    return load_u16(frame + 8) == reader->cache;
}

/* Reads one frame of any shape. False: there is none that is plain. */
static NO_INLINE bool read_frame(struct reader *reader, struct plain *plain, unsigned i)
{
    const uint8_t *frame = reader->at;
    if (!is_plain_next(reader)) return false;
    size_t key_bytes = reader->shape.key_bytes;
    const uint8_t *key = frame + FRAME_REQUEST_BYTES;
    take_in(reader->table, plain, i, frame, hash_key(key, key_bytes, reader->hash_seed));
    reader->at = frame + reader->shape.padded;
    return true;
}

#ifdef __AVX2__
static ALWAYS_INLINE void store_x4(void *to, __m256i words)
{
    _mm256_storeu_si256((__m256i *)to, words);
}

/* Takes in four frames from `frame` on, `padded` bytes apart, whose keys have 8 bytes. */
static ALWAYS_INLINE void take_in_4(const struct table *table, struct plain *plain, unsigned i,
                                    const uint8_t *frame, size_t padded, struct hash_of_8_x4 hash)
{
    const uint8_t *key = frame + FRAME_REQUEST_BYTES;
    __m256i keys = _mm256_set_epi64x((long long)load_u64(key + 3 * padded),
                                     (long long)load_u64(key + 2 * padded),
                                     (long long)load_u64(key + padded), (long long)load_u64(key));
    __m256i hashes = hash_key_8_x4(keys, hash);
    store_x4(&plain->hash[i], hashes);
    store_x4(&plain->hash_bits[i], entry_hash_bits_x4(hashes));
    store_x4(&plain->bucket[i], table_bucket_x4(table, hashes));
    plain->frame[i] = frame;
    plain->frame[i + 1] = frame + padded;
    plain->frame[i + 2] = frame + 2 * padded;
    plain->frame[i + 3] = frame + 3 * padded;
    __builtin_prefetch(plain->bucket[i], 1);
    __builtin_prefetch(plain->bucket[i + 1], 1);
    __builtin_prefetch(plain->bucket[i + 2], 1);
    __builtin_prefetch(plain->bucket[i + 3], 1);
}

/* Two of four say whether they are of the cache: it is enough to not read far beyond. */
static ALWAYS_INLINE bool are_alike_4(const uint8_t *frame, size_t padded, uint64_t first,
                                      uint16_t cache)
{
    return load_u64(frame) == first && load_u64(frame + padded) == first &&
           load_u64(frame + 2 * padded) == first && load_u64(frame + 3 * padded) == first &&
           load_u16(frame + padded + 8) == cache && load_u16(frame + 3 * padded + 8) == cache;
}
#endif

/*
 * Reads frames of the last one's shape whose keys have 8 bytes, from number `i` of the group on.
 * Returns the number behind the last. Whether they are of the reader's cache, the third pass finds.
 */
static ALWAYS_INLINE unsigned read_alike(struct reader *reader, struct plain *plain, unsigned i)
{
    const struct table table = *reader->table;
    struct hash_of_8 hash = hash_of_8(reader->hash_seed);
    uint64_t first = reader->shape.first;
    size_t padded = reader->shape.padded;
    const uint8_t *frame = reader->at;
    size_t left = (size_t)(reader->end - frame);
    unsigned end = PACE;
    if (reader->shape.key_bytes != 8) return i;
    if (UNLIKELY(left < (PACE - i) * padded)) end = i + (unsigned)(left / padded);
#ifdef __AVX2__
    struct hash_of_8_x4 hash_x4 = hash_of_8_x4(hash);
    uint16_t cache = reader->cache;
    for (; i + 4 <= end; i += 4, frame += 4 * padded) {
        if (UNLIKELY(!are_alike_4(frame, padded, first, cache))) break;
        take_in_4(&table, plain, i, frame, padded, hash_x4);
    }
#endif
    for (; i < end && LIKELY(load_u64(frame) == first); i++, frame += padded)
        take_in(&table, plain, i, frame, hash_key_8(load_u64(frame + FRAME_REQUEST_BYTES), hash));
    reader->at = frame;
    return i;
}

/* Reads up to PACE frames; fewer end the run. */
static NO_INLINE void read_frames(struct reader *reader, struct group *group)
{
    if (!is_plain_next(reader)) return;
    unsigned alike = read_alike(reader, &group->own, 0);
    unsigned count = alike;
    while (count < PACE && read_frame(reader, &group->own, count))
        count = read_alike(reader, &group->own, count + 1);
    group->is_alike = count == alike;
    group->own_count = count;
}

/* Where there are other shards: the owner of the frame's slot, or UINT32_MAX. */
static ALWAYS_INLINE uint32_t owner_of(const struct shard *shard, const uint8_t *frame,
                                       size_t key_bytes)
{
    uint16_t slot = load_u16(frame + 10);
    if (slot == FRAME_SLOT_ANY) slot = slot_of_key(frame + FRAME_REQUEST_BYTES, key_bytes);
    return LIKELY(slot < SLOTS_COUNT) ? shard->slot_owner[slot] : UINT32_MAX;
}

/* What was read can be given up again, but not be found to be too much. */
static ALWAYS_INLINE void take_room(struct bundles *bundles, uint32_t seq, uint32_t count,
                                    size_t bytes_each)
{
    bundles->seq_read = seq;
    bundles->count_left -= count;
    bundles->bytes_left -= count * bytes_each;
}

/* Reads another shard's frame if it may be pushed later, without fail. */
static bool read_foreign(struct bundles *bundles, struct group *group, struct foreign foreign)
{
    uint32_t seq = load_u32(foreign.frame + 12);
    if (seq - bundles->seq_read - 1 >= STEP_MAX) return false;
    if (!bundles->begun) bundles_begin(bundles);
    if (bundles->count_left == 0 || bundles->bytes_left < foreign.bytes) return false;
    take_room(bundles, seq, 1, foreign.bytes);
    group->foreign[group->foreign_count++] = foreign;
    return true;
}

static ALWAYS_INLINE bool is_full(const struct group *group)
{
    return group->own_count == PACE || group->foreign_count == FOREIGN_PACE;
}

/* As read_frame, where the frame may be another shard's. */
static NO_INLINE bool read_frame_of_any(struct reader *reader, struct group *group)
{
    const uint8_t *frame = reader->at;
    if (!is_plain_next(reader)) return false;
    uint32_t bytes = reader->shape.padded;
    uint32_t owner = owner_of(reader->shard, frame, reader->shape.key_bytes);
    if (owner == reader->shard->index) {
        if (!read_frame(reader, &group->own, group->own_count)) return false;
        group->own_count++;
        return true;
    }
    if (owner == UINT32_MAX || bytes > CROSSING_INLINE_BYTES_MAX) return false;
    struct foreign foreign = {frame, bytes, owner};
    if (!read_foreign(reader->bundles, group, foreign)) return false;
    reader->at = frame + bytes;
    return true;
}

/* As read_alike, where frames may be other shards'. */
static ALWAYS_INLINE void read_alike_of_any(struct reader *reader, struct group *group)
{
    struct bundles *bundles = reader->bundles;
    struct hash_of_8 hash = hash_of_8(reader->hash_seed);
    struct shape shape = reader->shape;
    uint16_t cache = reader->cache;
    uint32_t index = reader->shard->index;
    const uint8_t *frame = reader->at;
    const uint8_t *last = reader->end - shape.padded;
    unsigned own = group->own_count;
    struct foreign *begin = group->foreign + group->foreign_count;
    struct foreign *foreign = begin;
    uint32_t room = FOREIGN_PACE - group->foreign_count;
    uint32_t seq = bundles->seq_read;
    if (shape.key_bytes != 8 || shape.padded > CROSSING_INLINE_BYTES_MAX) return;
    /* Near the end of the room one by one is right, too. */
    if (bundles->bytes_left < (size_t)room * shape.padded) room = 0;
    const struct foreign *end = begin + min_u64(room, bundles->count_left);
    for (; own < PACE && frame <= last; frame += shape.padded) {
        if (UNLIKELY(load_u64(frame) != shape.first)) break;
        if (UNLIKELY(load_u16(frame + 8) != cache)) break;
        uint32_t owner = owner_of(reader->shard, frame, 8);
        if (owner == index) {
            take_in(reader->table, &group->own, own++, frame,
                    hash_key_8(load_u64(frame + FRAME_REQUEST_BYTES), hash));
            continue;
        }
        uint32_t step = load_u32(frame + 12) - seq;
        if (UNLIKELY(owner == UINT32_MAX || foreign == end || step - 1 >= STEP_MAX)) break;
        *foreign++ = (struct foreign){frame, shape.padded, owner};
        seq += step;
    }
    reader->at = frame;
    group->own_count = own;
    group->foreign_count = (unsigned)(foreign - group->foreign);
    take_room(bundles, seq, (uint32_t)(foreign - begin), shape.padded);
}

static NO_INLINE void read_group_of_any(struct reader *reader, struct group *group)
{
    do read_alike_of_any(reader, group);
    while (!is_full(group) && read_frame_of_any(reader, group));
}

/* Reads the next group. False: it has less than it might have, which ends the run. */
static bool read_group(struct reader *reader, struct group *group)
{
    group->own_count = 0;
    group->foreign_count = 0;
    group->is_alike = false;
    if (reader->bundles != NULL)
        read_group_of_any(reader, group);
    else
        read_frames(reader, group);
    return is_full(group);
}

/* ---------------------------------------------------------------------------- second pass */

/*
 * What the second and third pass need: nothing of it changes meanwhile. Addresses here are in units
 * of 8 bytes, as entries have them; the names of such end in 8.
 */
struct applying {
    struct store *store;
    uint8_t *arena;  /* of all records */
    uint32_t *index; /* their index words */
    struct segment *segments;
    struct store_slot *slots;
    uint64_t cache; /* number of the frames' */
    uint64_t session_id;
    struct session *session;          /* NULL: there is none */
    struct session_entry *remembered; /* of the session; without one, an entry that nobody reads */
    uint32_t remembered_mask;
    bool may_grow; /* the session may have to grow before it can remember the next one */
};

/* An entry of no key: it points to the head of a batch. */
static uint64_t no_entry;

static ALWAYS_INLINE void fetch_old(const uint8_t *arena, const uint32_t *index, uint64_t old8)
{
    const uint8_t *old = arena + old8 * 8;
    /* Read once: the record is garbage afterwards. */
    __builtin_prefetch(old, 0, 0);
    __builtin_prefetch(old + OLD_BYTES - 1, 0, 0);
    __builtin_prefetch(&index[old8 >> GRANULE_SHIFT_8], 1);
}

/* Returns a bit for each frame whose entry may be in an overflow bucket, which is on its way. */
static NO_INLINE uint64_t probe_frames(struct plain *plain, unsigned count,
                                       const struct applying *applying)
{
    const uint8_t *arena = applying->arena;
    const uint32_t *index = applying->index;
    uint64_t late = 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t address8;
        struct bucket *bucket = plain->bucket[i];
        uint64_t *entry = table_probe_bits(bucket, &plain->hash[i], plain->hash_bits[i], &address8);
        if (UNLIKELY(entry == NULL)) {
            table_prefetch_overflow(&applying->store->table, bucket);
            plain->entry[i] = &no_entry;
            late |= (uint64_t)1 << i;
            continue;
        }
        plain->entry[i] = entry;
        fetch_old(arena, index, address8);
    }
    return late;
}

/* The second pass once more, for frames that probe_frames has returned. */
static NO_INLINE void probe_late(struct plain *plain, uint64_t late,
                                 const struct applying *applying)
{
    for (; late != 0; late &= late - 1) {
        unsigned i = (unsigned)__builtin_ctzll(late);
        uint64_t *entry = table_probe_all(&applying->store->table, plain->hash[i]);
        if (entry == NULL) continue;
        plain->entry[i] = entry;
        fetch_old(applying->arena, applying->index, *entry & ENTRY_ADDRESS);
    }
}

/* ----------------------------------------------------------------------------- third pass */

/* The last words of a change's header, which stay in one register: hlc and session. */
struct stamp {
    uint64_t words __attribute__((vector_size(16)));
} __attribute__((packed, may_alias));

/* The log's end, the shard's clock and the caller's numbers while the third pass runs. */
struct cursor {
    uint64_t at8;
    uint64_t end8;
    uint32_t *slot_heads;
    uint32_t mark;
    uint32_t appended;  /* since the log was told */
    uint32_t size;      /* of all records of the batch, see batch_size_of_all */
    struct stamp stamp; /* of the last change */
    uint64_t seq;
    uint8_t *reply;
};

static ALWAYS_INLINE void cursor_load(struct cursor *cursor, const struct store *store)
{
    cursor->at8 = address_of(store->segments, store->log.at) >> 3;
    cursor->end8 = address_of(store->segments, store->log.end) >> 3;
    cursor->slot_heads = store->log.slot_heads;
    cursor->mark = store->log.active_mark;
    cursor->appended = 0;
    cursor->size = store->log.batch_size;
    cursor->stamp.words[0] = *store->hlc;
}

static ALWAYS_INLINE void cursor_store(const struct cursor *cursor, struct store *store)
{
    store->log.at = store->segments->base + cursor->at8 * 8;
    store->log.batch_count += cursor->appended;
    store->log.batch_size = cursor->size;
    *store->hlc = cursor->stamp.words[0];
}

/* Makes room where the segment is full or no batch is open. False: memory is short. */
static NO_INLINE bool cursor_make_room(struct cursor *cursor, struct store *store, size_t padded)
{
    cursor_store(cursor, store);
    bool has_room = log_reserve(&store->log, padded, false) != NULL;
    cursor_load(cursor, store);
    return has_room;
}

static ALWAYS_INLINE const struct change *change_at8(const struct applying *applying, uint64_t at8)
{
    return (const struct change *)(applying->arena + at8 * 8);
}

/* Address of the newest change that the entry has, of whatever key. */
static ALWAYS_INLINE uint64_t newest(const uint64_t *entry)
{
    return *entry & ENTRY_ADDRESS;
}

/* Whether the record is of the frame's key, and has in common with its first word what it must. */
static ALWAYS_INLINE bool is_key(const struct change *old, const uint8_t *frame, uint64_t first,
                                 uint64_t in_common)
{
    if (UNLIKELY(((load_u64(old) ^ first) & in_common) != 0)) return false;
    const uint8_t *key = frame + FRAME_REQUEST_BYTES;
    if (LIKELY(first >> 48 == 8)) return load_u64(old + 1) == load_u64(key);
    return memcmp(old + 1, key, first >> 48) == 0;
}

struct wanted {
    const uint8_t *arena;
    const uint8_t *frame;
};

static bool is_wanted(const void *context, uint64_t address)
{
    const struct wanted *wanted = context;
    return is_key((const struct change *)(wanted->arena + address), wanted->frame,
                  load_u64(wanted->frame), KEY_ONLY);
}

static ALWAYS_INLINE bool has_room(const struct cursor *cursor, size_t bytes)
{
    return (cursor->end8 - cursor->at8) * 8 >= bytes;
}

static ALWAYS_INLINE void remember(const struct applying *applying, uint32_t seq, uint64_t address8)
{
    struct session_entry *entry = &applying->remembered[seq & applying->remembered_mask];
    entry->seq = seq;
    entry->address = (uint32_t)address8;
}

/* The same for the last `count` changes, which have numbers up to `seq` and are all alike. */
static ALWAYS_INLINE void remember_all(const struct applying *applying, uint32_t seq,
                                       unsigned count, const struct cursor *cursor,
                                       const struct shape *shape)
{
    if (applying->session == NULL || count == 0) return;
    uint32_t bytes8 = (uint32_t)(record_bytes(shape) / 8);
    uint32_t first = seq - count + 1;
    uint32_t at8 = (uint32_t)cursor->at8 - count * bytes8;
    struct session_entry *entry = &applying->remembered[first & applying->remembered_mask];
    uint64_t next = first | (uint64_t)at8 << 32;
    uint64_t step = 1 | (uint64_t)bytes8 << 32;
    struct block four = {{next, next + step, next + 2 * step, next + 3 * step}};
    struct block step_four = {{4 * step, 4 * step, 4 * step, 4 * step}};
    unsigned i = 0;
    for (; i + 4 <= count; i += 4) {
        *(struct block *)(void *)&entry[i] = four;
        four.words += step_four.words;
    }
    for (; i < count; i++) entry[i] = (struct session_entry){first + i, at8 + i * bytes8};
}

#define REPLY_FIRST (FRAME_REPLY_BYTES | (uint64_t)FRAME_REPLY << 32)

static ALWAYS_INLINE void write_reply(uint8_t *reply, uint32_t seq, uint32_t offset)
{
    store_u64(reply, REPLY_FIRST);
    store_u32(reply + 8, seq);
    store_u32(reply + 12, offset);
}

/* Replies to numbers from `seq` on, for which only the offsets are missing. None of them wraps. */
static ALWAYS_INLINE void write_replies(uint8_t *reply, uint32_t seq, unsigned count)
{
    struct block *pair = (struct block *)(void *)reply;
    struct block next = {{REPLY_FIRST, seq, REPLY_FIRST, (uint64_t)seq + 1}};
    const struct block two = {{0, 2, 0, 2}};
    unsigned i = 0;
    for (; i + 4 <= count; i += 4) {
        *pair++ = next;
        next.words += two.words;
        *pair++ = next;
        next.words += two.words;
    }
    for (; i < count; i++) write_reply(reply + i * FRAME_REPLY_BYTES, seq + i, 0);
}

/* A larger offset has a longer reply, from twice as many on. */
static ALWAYS_INLINE bool may_follow(const struct change *old)
{
    return LIKELY(old->offset_and_floor < INT32_MAX);
}

/*
 * A key that is not there, or was removed: then `removed` is its newest change. False: something is
 * wrong with it, or memory is short; the general way says what.
 */
static NO_INLINE bool apply_new(const struct applying *applying, const uint8_t *at, uint64_t hash,
                                const struct change *removed, uint64_t seq, struct cursor *cursor)
{
    if (removed != NULL && !may_follow(removed)) return false;
    struct frame_request frame;
    memcpy(&frame, at, sizeof frame);
    struct store_request request = {.body = at + FRAME_REQUEST_BYTES,
                                    .body_bytes = frame.length - FRAME_REQUEST_BYTES,
                                    .key_len = frame.key_len,
                                    .slot = frame.slot,
                                    .type = FRAME_UPDATE,
                                    .flags = frame.flags & FRAME_VALUE_TYPE,
                                    .seq = frame.seq,
                                    .seq_whole = seq,
                                    .session = applying->session_id,
                                    .hash = hash};
    struct store *store = applying->store;
    const struct change *change;
    cursor_store(cursor, store);
    bool is_applied = store_update(store, &request, &change) == STORE_OK;
    cursor_load(cursor, store);
    if (!is_applied) return false;
    remember(applying, (uint32_t)seq, address_of(store->segments, change) >> 3);
    write_reply(cursor->reply, (uint32_t)seq, (uint32_t)change_offset(change));
    cursor->reply += FRAME_REPLY_BYTES;
    cursor->seq = seq;
    return true;
}

/* Masks of the blocks of a short body: they end with it. */
struct body_mask {
    struct block blocks[COPY_BLOCKS];
};

static ALWAYS_INLINE const uint8_t *body_mask_from(const struct shape *shape)
{
    return body_masks + COPY_BYTES - ((uint32_t)shape->first - FRAME_REQUEST_BYTES);
}

static ALWAYS_INLINE struct body_mask body_mask_at(const uint8_t *from)
{
    const struct block *blocks = (const struct block *)(const void *)from;
    return (struct body_mask){{blocks[0], blocks[1], blocks[2], blocks[3]}};
}

static ALWAYS_INLINE struct body_mask body_mask_of(const struct shape *shape)
{
    if (!shape->is_short) return (struct body_mask){0};
    return body_mask_at(body_mask_from(shape));
}

/* Copies a short body, and zeros behind it. */
static ALWAYS_INLINE void copy_short(uint8_t *to, const uint8_t *from, const struct body_mask *mask)
{
    const struct block *source = (const struct block *)(const void *)from;
    struct block *target = (struct block *)(void *)to;
    struct block first = {source[0].words & mask->blocks[0].words};
    struct block second = {source[1].words & mask->blocks[1].words};
    struct block third = {source[2].words & mask->blocks[2].words};
    struct block fourth = {source[3].words & mask->blocks[3].words};
    target[0] = first;
    target[1] = second;
    target[2] = third;
    target[3] = fourth;
}

static ALWAYS_INLINE void copy_long(uint8_t *to, const uint8_t *from, const struct shape *shape)
{
    memcpy(to, from, shape->padded - (uint32_t)FRAME_REQUEST_BYTES);
    uint8_t *tail = to + shape->padded - FRAME_REQUEST_BYTES - 8;
    store_u64(tail, load_u64(tail) & shape->tail_mask);
}

/* One frame, and what is to become of it. */
struct update {
    const uint8_t *frame;
    uint64_t hash;
    uint64_t *entry;
    uint64_t old8;      /* address of the newest change of its key */
    uint32_t old_bytes; /* with the padding */
    uint32_t seq;
    uint64_t seq_high; /* bits 32 to 47 of its number, in the place that a change has them */
    uint64_t route;    /* second word of the change: slot and low half of the number */
};

static ALWAYS_INLINE uint32_t route_slot(uint64_t route)
{
    return (uint32_t)route >> 16;
}

/*
 * The second word of a frame is that of its change but for the cache, where it names its slot. A
 * frame of another cache is then in no slot at all.
 */
static ALWAYS_INLINE uint64_t route_of(const struct applying *applying, const uint8_t *frame)
{
    return load_u64(frame + 8) - applying->cache;
}

/* Whether slot and offset are such that the change can be appended here. Completes the route. */
static ALWAYS_INLINE bool is_plain_change(const struct change *old, uint64_t *route)
{
    uint32_t place = load_u32(&old->cache);
    /* The frame's is there before the old change has come. */
    if (UNLIKELY((uint32_t)*route != place)) {
        if ((uint32_t)*route != (uint32_t)FRAME_SLOT_ANY << 16) return false;
        *route ^= (uint32_t)FRAME_SLOT_ANY << 16 ^ place;
    }
    return may_follow(old);
}

/* Writes the record of a change to `to`. */
static ALWAYS_INLINE void write_record(uint8_t *to, const struct applying *applying,
                                       const struct update *update, const struct shape *shape,
                                       const struct body_mask *mask, uint64_t offset,
                                       struct stamp stamp)
{
    struct store_slot *head = &applying->slots[route_slot(update->route)];
    uint64_t place_and_seq = ++head->place | update->seq_high;
    uint64_t identity =
        change_identity_of(applying->session_id, place_and_seq, update->hash, update->route);
    head->chain = chain_next(head->chain, identity);
    store_u64(to, change_first(shape));
    store_u64(to + 8, update->route);
    store_u64(to + 16, update->hash);
    store_u64(to + 24, place_and_seq);
    store_u64(to + 32, offset);
    *(struct stamp *)(void *)(to + 40) = stamp;
    const uint8_t *body = update->frame + FRAME_REQUEST_BYTES;
    if (shape->is_short)
        copy_short(to + CHANGE_BYTES, body, mask);
    else
        copy_long(to + CHANGE_BYTES, body, shape);
}

/* Fetches the memory of the log that will be written a few records later. */
static ALWAYS_INLINE void fetch_log(const uint8_t *at, const struct shape *shape)
{
    at += shape->is_short ? LOG_AHEAD_BYTES : LOG_AHEAD_BYTES_LONG;
    __builtin_prefetch(at, 1);
    __builtin_prefetch(at + CACHE_LINE, 1);
    __builtin_prefetch(at + 2 * CACHE_LINE, 1);
    if (shape->is_short) return;
    for (size_t line = 3 * CACHE_LINE; line < record_bytes(shape); line += CACHE_LINE)
        __builtin_prefetch(at + line, 1);
}

/* Appends the change where the cursor is; there is room in the log. */
static ALWAYS_INLINE void append(const struct applying *applying, const struct update *update,
                                 const struct shape *shape, const struct body_mask *mask,
                                 struct cursor *cursor)
{
    uint64_t at8 = cursor->at8;
    uint64_t old8 = update->old8;
    const struct change *old = change_at8(applying, old8);
    uint64_t offset = old->offset_and_floor + 1;
    uint8_t *to = applying->arena + at8 * 8;
    fetch_log(to, shape);
    cursor->stamp.words += (struct stamp){{1, 0}}.words;
    write_record(to, applying, update, shape, mask, offset, cursor->stamp);
    write_reply(cursor->reply, update->seq, (uint32_t)offset);
    remember(applying, update->seq, at8);

    uint32_t *slot_head = &cursor->slot_heads[route_slot(update->route)];
    applying->index[at8 >> GRANULE_SHIFT_8] = *slot_head;
    *slot_head = (uint32_t)at8 & PLACE_8;
    add_release_u64(update->entry, at8 - old8, to);
    /* Nothing supersedes it yet, so there is nothing but its link. */
    DEBUG_ASSERT(applying->index[old8 >> GRANULE_SHIFT_8] <= INDEX_LINK);
    applying->index[old8 >> GRANULE_SHIFT_8] |= cursor->mark;
    applying->segments[old8 >> UNIT_SHIFT_8].dead_bytes += update->old_bytes;
    cursor->at8 = at8 + record_bytes(shape) / 8;
    cursor->reply += FRAME_REPLY_BYTES;
}

/* Applies one frame of any shape. False: it must go the general way; nothing was done. */
static NO_INLINE bool apply_frame(const struct applying *applying, const uint8_t *frame,
                                  uint64_t hash, uint64_t *entry, struct cursor *cursor)
{
    uint64_t first = load_u64(frame);
    struct shape shape = shape_of(first);
    struct body_mask mask = body_mask_of(&shape);
    uint32_t step = load_u32(frame + 12) - (uint32_t)cursor->seq;
    uint64_t seq = cursor->seq + step;
    uint64_t route = route_of(applying, frame);
    if ((uint16_t)route != 0) return false;
    if (step - 1 >= STEP_MAX) return false;
    if (applying->may_grow && session_must_grow(applying->session, seq)) return false;
    if (!is_key(change_at8(applying, newest(entry)), frame, first, TYPE_AND_KEY)) {
        /* It may be in an overflow bucket, a tag may have lied, or a bucket was split meanwhile. */
        struct wanted wanted = {applying->arena, frame};
        entry = table_find(&applying->store->table, hash, is_wanted, &wanted);
        if (entry == NULL) return apply_new(applying, frame, hash, NULL, seq, cursor);
        const struct change *found = change_at8(applying, newest(entry));
        if (found->type == FRAME_REMOVE)
            return apply_new(applying, frame, hash, found, seq, cursor);
    }
    /* Before there is room: it may need a new batch, which must not stay empty. */
    if (!is_plain_change(change_at8(applying, newest(entry)), &route)) return false;
    if (!has_room(cursor, record_bytes(&shape)) &&
        !cursor_make_room(cursor, applying->store, record_bytes(&shape)))
        return false;
    const struct change *old = change_at8(applying, newest(entry));
    struct update update = {.frame = frame,
                            .hash = hash,
                            .entry = entry,
                            .old8 = newest(entry),
                            .old_bytes = (uint32_t)change_padded_bytes(old),
                            .seq = (uint32_t)seq,
                            .seq_high = seq >> 32 << 48,
                            .route = route};
    append(applying, &update, &shape, &mask, cursor);
    cursor->seq = seq;
    cursor->appended++;
    cursor->size = batch_size_of_all(cursor->size, record_bytes(&shape));
    return true;
}

/*
 * Applies frames of one shape with keys of 8 bytes, from number `i` to before `end` of the group.
 * Returns the number behind the last.
 */
static ALWAYS_INLINE unsigned apply_alike(const struct applying *all, const struct plain *plain,
                                          unsigned i, unsigned end, struct cursor *at,
                                          bool is_short)
{
    const struct applying applying = *all;
    struct shape shape = shape_of(load_u64(plain->frame[i]));
    struct cursor cursor = *at;
    uint32_t seq = (uint32_t)cursor.seq;
    uint64_t seq_high = cursor.seq >> 32 << 48;
    unsigned begin = i;
    if (shape.key_bytes != 8 || applying.may_grow) return i;
    if (!has_room(&cursor, (end - i) * record_bytes(&shape))) return i;
    if (seq > UINT32_MAX - PACE * STEP_MAX) return i;
    shape.is_short = is_short; /* so that the compiler knows it, too */
    struct body_mask mask = body_mask_of(&shape);
    for (; i < end; i++) {
        const uint8_t *frame = plain->frame[i];
        struct update update = {.frame = frame,
                                .hash = plain->hash[i],
                                .entry = plain->entry[i],
                                .old8 = newest(plain->entry[i]),
                                .old_bytes = (uint32_t)record_bytes(&shape),
                                .seq = load_u32(frame + 12),
                                .seq_high = seq_high,
                                .route = route_of(&applying, frame)};
        const struct change *old = change_at8(&applying, update.old8);
        if (UNLIKELY(load_u64(frame) != shape.first)) break;
        if (UNLIKELY(update.seq - seq - 1 >= STEP_MAX)) break;
        /* A change of another shape before is rare, and goes one by one. */
        if (UNLIKELY(load_u64(old) != change_first(&shape))) break;
        /* Of keys of 8 bytes, equal hashes are equal keys (hash_key_8), and in a nearer line. */
        if (UNLIKELY(old->key_hash != update.hash)) break;
        if (UNLIKELY(!is_plain_change(old, &update.route))) break;
        append(&applying, &update, &shape, &mask, &cursor);
        seq = update.seq;
    }
    unsigned done = i - begin;
    cursor.seq = cursor.seq >> 32 << 32 | seq;
    cursor.appended += done;
    if (done > 0) cursor.size = batch_size_of_all(cursor.size, record_bytes(&shape));
    *at = cursor;
    return i;
}

static NO_INLINE unsigned apply_short(const struct applying *applying, const struct plain *plain,
                                      unsigned i, unsigned end, struct cursor *cursor)
{
    return apply_alike(applying, plain, i, end, cursor, true);
}

static NO_INLINE unsigned apply_long(const struct applying *applying, const struct plain *plain,
                                     unsigned i, unsigned end, struct cursor *cursor)
{
    return apply_alike(applying, plain, i, end, cursor, false);
}

/*
 * What steady frames have in common. It is read where it lies: there is no register for it, and a
 * copy in one would only be moved out again.
 */
struct steady {
    struct stamp first; /* first word of the changes */
    uint64_t cache;
    uint64_t session_id;
    uint64_t seq_high;
    uint64_t record_bytes8;
    struct store_slot *slots;
    uint8_t *arena;
    const uint8_t *mask; /* of the body */
};

/*
 * The same for short frames of which all have the first one's first word and numbers that follow
 * each other, if plain. In two loops, each of which finds room for its values in registers.
 */
static NO_INLINE unsigned append_steady(const struct steady *steady, struct plain *plain, size_t i,
                                        size_t end, struct cursor *cursor)
{
    const struct body_mask mask = body_mask_at(steady->mask);
    struct stamp stamp = cursor->stamp;
    struct stamp first = steady->first;
    uint64_t next = (uint64_t)((uint32_t)cursor->seq + 1) << 32;
    uint64_t at8 = cursor->at8;
    uint8_t *arena = steady->arena;
    for (; i < end; i++) {
        uint64_t *entry = plain->entry[i];
        uint64_t old8 = newest(entry);
        const struct change *old = (const struct change *)(arena + old8 * 8);
        uint64_t hash = plain->hash[i];
        if (UNLIKELY(load_u64(old) != first.words[0])) break;
        if (UNLIKELY(old->key_hash != hash)) break;
        uint32_t place = load_u32(&old->cache);
        plain->old8[i] = old8;
        plain->place[i] = place;
        uint64_t route = next + place;
        const uint8_t *frame = plain->frame[i];
        uint64_t differs = load_u64(frame + 8) - steady->cache - route;
        if (UNLIKELY(differs != 0) && differs + place != (uint32_t)FRAME_SLOT_ANY << 16) break;
        if (UNLIKELY(!may_follow(old))) break;
        uint64_t offset = old->offset_and_floor + 1;
        plain->offset[i] = (uint32_t)offset;
        next += (uint64_t)1 << 32;
        stamp.words += (struct stamp){{1, 0}}.words;
        uint8_t *to = arena + at8 * 8;
        __builtin_prefetch(to + LOG_AHEAD_BYTES, 1);
        __builtin_prefetch(to + LOG_AHEAD_BYTES + CACHE_LINE, 1);
        __builtin_prefetch(to + LOG_AHEAD_BYTES + 2 * CACHE_LINE, 1);
        *(struct stamp *)(void *)to = first;
        store_u64(to + 8, route);
        store_u64(to + 16, hash);
        store_u64(to + 32, offset);
        *(struct stamp *)(void *)(to + 40) = stamp;
        copy_short(to + CHANGE_BYTES, frame + FRAME_REQUEST_BYTES, &mask);
        struct store_slot *head = &steady->slots[route_slot(place)];
        uint64_t place_and_seq = ++head->place | steady->seq_high;
        store_u64(to + 24, place_and_seq);
        uint64_t identity = change_identity_of(steady->session_id, place_and_seq, hash, route);
        head->chain = chain_next(head->chain, identity);
        add_release_u64(entry, at8 - old8, to);
        at8 += steady->record_bytes8;
    }
    cursor->stamp = stamp;
    return (unsigned)i;
}

static NO_INLINE void index_steady(const struct applying *applying, const struct plain *plain,
                                   size_t i, size_t end, uint32_t bytes, struct cursor *cursor)
{
    uint32_t *index = applying->index;
    struct segment *segments = applying->segments;
    uint32_t *slot_heads = cursor->slot_heads;
    uint32_t mark = cursor->mark;
    uint64_t at8 = cursor->at8;
    uint8_t *reply = cursor->reply;
    for (; i < end; i++) {
        uint64_t old8 = plain->old8[i];
        store_u32(reply + 12, plain->offset[i]);
        reply += FRAME_REPLY_BYTES;
        uint32_t *slot_head = &slot_heads[route_slot(plain->place[i])];
        index[at8 >> GRANULE_SHIFT_8] = *slot_head;
        *slot_head = (uint32_t)at8 & PLACE_8;
        DEBUG_ASSERT(index[old8 >> GRANULE_SHIFT_8] <= INDEX_LINK);
        index[old8 >> GRANULE_SHIFT_8] |= mark;
        segments[old8 >> UNIT_SHIFT_8].dead_bytes += bytes;
        at8 += bytes / 8;
    }
    cursor->at8 = at8;
    cursor->reply = reply;
}

static NO_INLINE unsigned apply_steady(const struct applying *applying, struct plain *plain,
                                       unsigned i, unsigned end, struct cursor *cursor)
{
    struct shape shape = shape_of(load_u64(plain->frame[i]));
    uint32_t seq = (uint32_t)cursor->seq;
    if (shape.key_bytes != 8 || applying->may_grow) return i;
    if (!has_room(cursor, (end - i) * record_bytes(&shape))) return i;
    if (seq > UINT32_MAX - PACE * STEP_MAX) return i;
    struct steady steady = {.first = {{change_first(&shape), 0}},
                            .cache = applying->cache,
                            .session_id = applying->session_id,
                            .seq_high = cursor->seq >> 32 << 48,
                            .record_bytes8 = record_bytes(&shape) / 8,
                            .slots = applying->slots,
                            .arena = applying->arena,
                            .mask = body_mask_from(&shape)};
    write_replies(cursor->reply, seq + 1, end - i);
    unsigned last = append_steady(&steady, plain, i, end, cursor);
    index_steady(applying, plain, i, last, (uint32_t)record_bytes(&shape), cursor);
    unsigned done = last - i;
    remember_all(applying, seq + done, done, cursor, &shape);
    cursor->seq += done;
    cursor->appended += done;
    if (done > 0) cursor->size = batch_size_of_all(cursor->size, record_bytes(&shape));
    return last;
}

/* Whether frames of one shape are such that apply_steady may take them. */
static bool is_steady(const struct applying *applying, const struct plain *plain, unsigned i,
                      unsigned end, const struct cursor *cursor)
{
    uint32_t first = (uint32_t)cursor->seq + 1;
    uint32_t mask = applying->remembered_mask;
    if (load_u32(plain->frame[end - 1] + 12) - first != end - 1 - i) return false;
    return applying->session == NULL || (first & mask) + (end - 1 - i) <= mask;
}

/* Applies the group's own frames in order. Returns how many; fewer end the run. */
static unsigned apply_frames(const struct applying *applying, struct group *group,
                             struct cursor *cursor)
{
    struct plain *plain = &group->own;
    unsigned count = group->own_count;
    unsigned i = 0;
    while (i < count) {
        if ((uint32_t)load_u64(plain->frame[i]) > FRAME_REQUEST_BYTES + COPY_BYTES)
            i = apply_long(applying, plain, i, count, cursor);
        else if (group->is_alike && is_steady(applying, plain, i, count, cursor))
            i = apply_steady(applying, plain, i, count, cursor);
        else
            i = apply_short(applying, plain, i, count, cursor);
        if (i == count) break;
        if (!apply_frame(applying, plain->frame[i], plain->hash[i], plain->entry[i], cursor)) break;
        i++;
    }
    return i;
}

/* ---------------------------------------------------------------------------- all of them */

/* A run on its way through the passes. */
struct pass {
    struct reader reader;
    struct applying applying;
    struct cursor cursor;
    const uint8_t *last; /* the last frame that was taken, own or foreign */
    unsigned applied;
};

/*
 * Applies the group's own frames and pushes the others. False: one must go the general way, and the
 * reader is back there; what was before it is done, and nothing of what is behind it.
 */
static bool apply_group(struct pass *pass, struct group *group)
{
    unsigned done = apply_frames(&pass->applying, group, &pass->cursor);
    bool is_whole = done == group->own_count;
    unsigned pushed = group->foreign_count;
    if (UNLIKELY(!is_whole)) {
        pass->reader.at = group->own.frame[done];
        while (pushed > 0 && group->foreign[pushed - 1].frame > pass->reader.at) pushed--;
    }
    pass->applied += done;
    if (done > 0) pass->last = group->own.frame[done - 1];
    if (pushed == 0) return is_whole;
    bundles_push(pass->reader.bundles, group->foreign, pushed);
    const uint8_t *last = group->foreign[pushed - 1].frame;
    if (pass->last == NULL || last > pass->last) pass->last = last;
    return is_whole;
}

/* Takes frames until one is not plain. */
static void take(struct pass *pass)
{
    struct group pipe[PIPE];
    unsigned read = 0; /* groups */
    unsigned probed = 0;
    unsigned applied = 0;
    unsigned own = 0;
    unsigned late_at = 0;
    uint64_t late = 0;
    for (bool ended = false; !ended || applied < read;) {
        if (!ended) {
            struct group *group = &pipe[read++ % PIPE];
            ended = !read_group(&pass->reader, group);
            own += group->own_count;
            ended = ended || own > UPDATES_MAX - PACE;
        }
        if (UNLIKELY(late != 0)) probe_late(&pipe[late_at % PIPE].own, late, &pass->applying);
        late = 0;
        if (probed < read && (ended || read - probed > 1)) {
            struct group *group = &pipe[probed % PIPE];
            late = probe_frames(&group->own, group->own_count, &pass->applying);
            late_at = probed++;
        }
        if (applied < probed && (probed == read || probed - applied > 1))
            if (!apply_group(pass, &pipe[applied++ % PIPE])) return;
    }
}

size_t UPDATES_TAKE(struct updates *updates, const uint8_t *data, size_t size)
{
    struct shard *shard = updates->shard;
    struct session *session = updates->session;
    struct bundles *bundles = updates->bundles;
    updates->applied = 0;
    if (size < UPDATES_SLACK_BYTES || shard->options->unbatched) return 0;
    uint16_t number = load_u16(data + 8);
    struct cache *cache = number < CACHES_MAX ? shard->caches[number] : NULL;
    if (UNLIKELY(cache == NULL || cache->definition->handler.function != NULL)) return 0;
    /* A session's number that was seen before may be a request sent again. */
    if (UNLIKELY(session != NULL && session->seq_highest > updates->seq)) return 0;

    struct store *store = &cache->store;
    struct session_entry unread = {0};
    struct pass pass = {
        .reader = {.shard = shard,
                   .table = &store->table,
                   .hash_seed = store->hash_seed,
                   .at = data,
                   .end = data + size - UPDATES_SLACK_BYTES,
                   .cache = number,
                   .bundles = bundles},
        .applying = {.store = store,
                     .arena = store->segments->base,
                     .index = store->segments->index,
                     .segments = store->segments->segments,
                     .slots = store->slots,
                     .cache = number,
                     .session_id = updates->session_id,
                     .session = session,
                     .remembered = session != NULL ? session->entries : &unread,
                     .remembered_mask = session != NULL ? (uint32_t)session->mask : 0,
                     .may_grow = session != NULL && session->mask < SESSION_WINDOW - 1},
        .cursor = {
            .stamp = {{0, updates->session_id}}, .seq = updates->seq, .reply = updates->replies}};
    cursor_load(&pass.cursor, store);
    take(&pass);
    if (pass.last == NULL) return 0;
    cursor_store(&pass.cursor, store);
    size_t bytes = (size_t)(pass.reader.at - data);
    updates->applied = pass.applied;
    updates->seq = pass.cursor.seq;
    updates->seq_last = load_u32(pass.last + 12);
    if (session != NULL && pass.applied > 0) session->seq_highest = updates->seq;
    shard->appended_bytes += bytes - (bundles != NULL ? bundles->pushed_bytes : 0);
    count(&shard->counters.updates, pass.applied);
    count(&shard->counters.replies, pass.applied);
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
