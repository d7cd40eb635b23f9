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
#include "base/assert.h"
#include "shard/updates_state.h"

/* Groups on their way through the passes, a power of two. */
#define PIPE 4u

/* What is read of an old change, where keys have 8 bytes. */
#define OLD_BYTES (offsetof(struct change, offset_and_floor) + sizeof(uint64_t))
/* An entry of no key: it points to the head of a batch. */
static uint64_t no_entry;

static ALWAYS_INLINE void fetch_old(const uint8_t *arena, const uint32_t *index, uint64_t old8,
                                    bool is_short)
{
    const uint8_t *old = arena + old8 * 8;
    if (is_short) {
        /* Read once: the record is garbage afterwards. */
        __builtin_prefetch(old, 0, 0);
        __builtin_prefetch(old + OLD_BYTES - 1, 0, 0);
    } else {
        /* Until it is read, long records push it out of the first cache; it must be in the second. */
        __builtin_prefetch(old, 0, 3);
        __builtin_prefetch(old + OLD_BYTES - 1, 0, 3);
    }
    __builtin_prefetch(&index[old8 >> GRANULE_SHIFT_8], 1);
}

/* Returns a bit for each frame whose entry may be in an overflow bucket, which is on its way. */
static ALWAYS_INLINE uint64_t probe_frames(struct plain *plain, unsigned count,
                                           const struct applying *applying, bool is_short)
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
        fetch_old(arena, index, address8, is_short);
    }
    return late;
}

static NO_INLINE uint64_t probe_short(struct plain *plain, unsigned count,
                                      const struct applying *applying)
{
    return probe_frames(plain, count, applying, true);
}

static NO_INLINE uint64_t probe_long(struct plain *plain, unsigned count,
                                     const struct applying *applying)
{
    return probe_frames(plain, count, applying, false);
}

/* By the first frame's size: most groups are of one shape. */
static ALWAYS_INLINE uint64_t probe(struct plain *plain, unsigned count,
                                    const struct applying *applying)
{
    if (count == 0) return 0;
    if (is_short_frame(load_u64(plain->frame[0]))) return probe_short(plain, count, applying);
    return probe_long(plain, count, applying);
}

/* The second pass once more, for frames that probe has returned. */
static NO_INLINE void probe_late(struct plain *plain, uint64_t late,
                                 const struct applying *applying)
{
    for (; late != 0; late &= late - 1) {
        unsigned i = (unsigned)__builtin_ctzll(late);
        uint64_t *entry = table_probe_all(&applying->store->table, plain->hash[i]);
        if (entry == NULL) continue;
        plain->entry[i] = entry;
        fetch_old(applying->arena, applying->index, *entry & ENTRY_ADDRESS, false);
    }
}

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
    unsigned done = VARIANT(updates_apply)(&pass->applying, group, &pass->cursor);
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
            ended = !VARIANT(updates_read)(&pass->reader, group);
            own += group->own_count;
            ended = ended || own > UPDATES_MAX - PACE;
        }
        if (UNLIKELY(late != 0)) probe_late(&pipe[late_at % PIPE].own, late, &pass->applying);
        late = 0;
        if (probed < read && (ended || read - probed > 1)) {
            struct group *group = &pipe[probed % PIPE];
            late = probe(&group->own, group->own_count, &pass->applying);
            late_at = probed++;
        }
        if (applied < probed && (probed == read || probed - applied > 1))
            if (!apply_group(pass, &pipe[applied++ % PIPE])) return;
    }
}

size_t VARIANT(updates_take)(struct updates *updates, const uint8_t *data, size_t size)
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
