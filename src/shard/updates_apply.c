/*
 * The third pass of shard/updates.c: compares the key or its hash, appends the change, points the
 * entry at it, writes the reply.
 *
 * Three ways, each of which leaves to the next one what is not for it: frames of one shape with
 * numbers that follow each other (apply_steady); frames of one shape (apply_short, apply_long); any
 * plain frame (apply_frame).
 */
#include "base/assert.h"
#include "base/ck.h"
#include "ring/slot.h"
#include "shard/updates_state.h"

/* How far the log's memory is fetched ahead of its end. A store to a line in no cache would wait. */
#define LOG_AHEAD_BYTES 2048
/* Of long records, more of it is on its way at a time. */
#define LOG_AHEAD_BYTES_LONG 8192

/* Their slots' heads are fetched so many frames ahead: long records push them out of the cache. */
#define HEADS_AHEAD 4

/* What turns the first word of the request into that of the change: longer, and nobody wants. */
#define TO_CHANGE                                                                                  \
    ((uint64_t)(CHANGE_BYTES - FRAME_REQUEST_BYTES) -                                              \
     ((uint64_t)(WANT_REPLY << FRAME_WANT_SHIFT) << 40))
/* Of a first word: what a record must have in common with the frame. */
#define TYPE_AND_KEY ((uint64_t)0xffff00ff << 32)
#define KEY_ONLY ((uint64_t)0xffff0000 << 32)
/* A window of this many bytes on it, beginning `n` bytes before the middle, masks `n` bytes. */
static const uint8_t body_masks[2 * COPY_BYTES] = {[0 ... COPY_BYTES - 1] = 0xff};

/* As in log/segments.h, for addresses in units of 8 bytes. */
#define PLACE_8 ((uint32_t)(SEGMENT_UNIT_BYTES / 8 - 1))

static ALWAYS_INLINE size_t record_bytes(const struct shape *shape)
{
    return shape->padded + (CHANGE_BYTES - FRAME_REQUEST_BYTES);
}

/* The first word of the change. */
static ALWAYS_INLINE uint64_t change_first(const struct shape *shape)
{
    return shape->first + TO_CHANGE;
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

/* Fetches the heads of the slot that the frame names, if it does. */
static ALWAYS_INLINE void fetch_heads(const struct applying *applying, const struct cursor *cursor,
                                      const uint8_t *frame)
{
    uint32_t slot = load_u16(frame + 10) & (SLOTS_COUNT - 1);
    __builtin_prefetch(&applying->slots[slot], 1);
    __builtin_prefetch(&cursor->slot_heads[slot], 1);
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
        if (!is_short && i + HEADS_AHEAD < end)
            fetch_heads(&applying, &cursor, plain->frame[i + HEADS_AHEAD]);
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

unsigned VARIANT(updates_apply)(const struct applying *applying, struct group *group,
                                struct cursor *cursor)
{
    struct plain *plain = &group->own;
    unsigned count = group->own_count;
    unsigned i = 0;
    while (i < count) {
        if (!is_short_frame(load_u64(plain->frame[i])))
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
