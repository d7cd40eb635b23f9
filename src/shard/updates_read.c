/*
 * The first pass of shard/updates.c: checks headers, hashes keys, fetches buckets.
 *
 * Frames that look like the one before, with keys of 8 bytes, are read in a loop of their own, four
 * at a time where there is AVX2. Where there are other shards, frames of theirs are read, too, as far
 * as they have room.
 */
#include "base/hash.h"
#include "ring/slot.h"
#include "shard/crossing.h"
#include "shard/updates_state.h"

/* By a frame's flags: wants a reply, has no extension, and its value may have any size. */
#define PLAIN_FLAGS(type) [(WANT_REPLY << FRAME_WANT_SHIFT) | (type)] = 1
static const uint8_t plain_flags[256] = {PLAIN_FLAGS(VALUE_STRING), PLAIN_FLAGS(VALUE_JSON),
                                         PLAIN_FLAGS(VALUE_BYTES)};

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

/* Frames whose values are to be looked at: what their type says cannot be seen from their size. */
static ALWAYS_INLINE bool have_text(const struct shape *shape)
{
    return (shape->first >> 40 & FRAME_VALUE_TYPE) != VALUE_BYTES;
}

static NO_INLINE bool is_right_text(const struct shape *shape, const uint8_t *frame)
{
    size_t at = FRAME_REQUEST_BYTES + shape->key_bytes;
    return value_text_is_valid((enum value_type)(shape->first >> 40 & FRAME_VALUE_TYPE), frame + at,
                               (uint32_t)shape->first - at);
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
    if (have_text(&reader->shape) && !is_right_text(&reader->shape, frame)) return false;
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

/* Of the frames from number `i` to `end`, gives back those from the first with a wrong text on. */
static NO_INLINE unsigned give_back(struct reader *reader, const struct plain *plain, unsigned i,
                                    unsigned end)
{
    for (; i < end; i++) {
        if (is_right_text(&reader->shape, plain->frame[i])) continue;
        reader->at = plain->frame[i];
        break;
    }
    return i;
}

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
    unsigned begin = i;
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
    return UNLIKELY(have_text(&reader->shape)) ? give_back(reader, plain, begin, i) : i;
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
    bool has_text = have_text(&shape);
    for (; own < PACE && frame <= last; frame += shape.padded) {
        if (UNLIKELY(load_u64(frame) != shape.first)) break;
        if (UNLIKELY(load_u16(frame + 8) != cache)) break;
        uint32_t owner = owner_of(reader->shard, frame, 8);
        if (owner == index) {
            if (UNLIKELY(has_text) && !is_right_text(&shape, frame)) break;
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

bool VARIANT(updates_read)(struct reader *reader, struct group *group)
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
