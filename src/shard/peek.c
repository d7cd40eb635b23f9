/*
 * A value is where the table's entry points, and a record never changes while an entry points to it.
 * But this thread is not the one that changes table and log, so between any two of its steps buckets
 * may be split, the entry may be pointed to a newer change, the key be removed, the record's segment
 * be compacted, given back and written to anew. It takes these steps, and begins again where a check
 * fails:
 *
 *     here                                         the shard
 *     MOVES   load table.moves                     MOVING   moves = odd; entries are moved; even
 *     HEAD    load the bucket's tags               RECORD   write a record, never again
 *     ENTRY   load the entry of a tag that fits    POINT    store the entry (release)
 *     BEFORE  load its unit's generation           TAG      store the tag (release)
 *     AGAIN   tag and entry are the same           AWAY     point the entries of a segment elsewhere,
 *     READ    copy header, key, value                       or clear their tags
 *     AFTER   the generation is the same           PUT      generation + 1, full barrier
 *     STILL   not found: moves is even and         REUSE    write to the segment
 *             the same
 *
 * All loads are acquire, so their order is that of the program; READ's are plain, and fence_racing
 * keeps AFTER behind them.
 *
 * What is found is whole. Let A be the address in the entry.
 *   1. At AGAIN the tag stands, so at that time the entry had an address of the table (table.c keeps
 *      entry and tag in that order), and it was A: had the tag been cleared and set anew between the
 *      two loads of AGAIN, POINT has A again. So after BEFORE, the record at A was the key's.
 *   2. RECORD came before the POINT that ENTRY or AGAIN has read, so READ sees the record, or something
 *      written later, which is by REUSE only.
 *   3. REUSE comes after PUT, and PUT after AWAY. Had the PUT that ends the record come before BEFORE,
 *      AGAIN would have seen AWAY (release, acquire), which contradicts 1. So PUT comes after BEFORE,
 *      and if READ has seen anything of REUSE, AFTER sees PUT, and the generation differs.
 * So if it does not, READ has copied the record of A, as it was written. Until then nothing of it is
 * believed: lengths are compared with what memory there is, and all of the reservation may be read.
 *
 * tests/unit/test_peek_model.c tries every order of these steps, and of some that are wrong.
 *
 * What is not found was not there all the time. It may be missed only if it was moved from where this
 * thread had not looked to where it had, and then a store of the move was seen, or came later; the
 * first store of MOVING is before it, the last one behind it: STILL sees one of them.
 *
 * What is found is not too old. The last reply that anybody has had was sent after POINT, so ENTRY,
 * which comes later, loads that entry or a newer one.
 *
 * It ends. A try fails only if the shard has given a segment back or moved entries meanwhile, and
 * tries are counted: then the shard is asked, in its turn.
 *
 * Rejected: to wait with PUT until no thread reads (then nothing is read while it is written, and
 * nothing need be copied): a thread that is not given a processor for some milliseconds keeps the log
 * from using its memory again, and updates were refused where memory.max was small.
 */
#include "shard/peek.h"

#include "base/assert.h"
#include "base/ck.h"
#include "wire/path.h"

/* Buckets of a chain that are followed: while links change, they may lead in a circle. */
#define CHAIN_MAX 64
#define TRIES_MAX 16
#define LINK_AT (BUCKET_ENTRIES - 1)

/* What is looked for, and where it goes. */
struct peeking {
    const struct store *store;
    const uint8_t *key;
    size_t key_len;
    uint64_t hash;
    void *buffer;
    size_t bytes;
    struct peek *peek;
};

enum step {
    STEP_FOUND,
    STEP_REMOVED,
    STEP_TOO_SMALL,
    STEP_OTHER_KEY,
    STEP_NOWHERE,
    STEP_TREE, /* the partition may have one: it is its shard's alone */
    STEP_AGAIN
};

/* A record's header, as it was when it was copied: perhaps of no record. */
struct header {
    uint64_t words[CHANGE_BYTES / 8];
};

static const struct change *as_change(const struct header *header)
{
    return (const struct change *)(const void *)header;
}

static bool fits_reservation(const struct segments *segments, uint64_t address, uint64_t bytes)
{
    return address + bytes <= (uint64_t)segments->units_max << SEGMENT_UNIT_SHIFT;
}

/* Whether the record at `address` has this header and is the key's, if it is a record. */
static bool is_key(const struct peeking *peeking, uint64_t address, struct header *header)
{
    const struct segments *segments = peeking->store->segments;
    const uint8_t *record = segments->base + address;
    for (size_t i = 0; i < ARRAY_COUNT(header->words); i++)
        header->words[i] = load_racing_u64(record + 8 * i);
    const struct change *change = as_change(header);
    if (change->key_len != peeking->key_len || change->key_hash != peeking->hash) return false;
    if (change->length < CHANGE_BYTES + change->key_len) return false;
    if (!fits_reservation(segments, address, change->length)) return false;
    return is_equal_racing(record + CHANGE_BYTES, peeking->key, peeking->key_len);
}

/* Copies what the caller wants of a record that may be the key's. */
static enum step read_value(const struct peeking *peeking, uint64_t address,
                            const struct header *header)
{
    const struct change *change = as_change(header);
    struct peek *peek = peeking->peek;
    const uint8_t *value =
        peeking->store->segments->base + address + CHANGE_BYTES + change->key_len;
    if (change->type == FRAME_REMOVE) return STEP_REMOVED;
    peek->value_type = (uint8_t)change_value_type(change);
    peek->value_bytes = change_value_bytes(change);
    peek->offset = change_offset(change);
    int fixed = value_type_bytes((enum value_type)peek->value_type);
    if (fixed >= 0 && (size_t)fixed == peek->value_bytes) {
        copy_racing(peek->fixed, value, peek->value_bytes);
        return STEP_FOUND;
    }
    if (peek->value_bytes > peeking->bytes) return STEP_TOO_SMALL;
    if (peek->value_bytes > 0) copy_racing(peeking->buffer, value, peek->value_bytes);
    return STEP_FOUND;
}

static ALWAYS_INLINE uint8_t tag_of(uint64_t head, unsigned at)
{
    return (uint8_t)(head >> at * 8);
}

/* Looks at one entry whose tag fits. */
static enum step look_at(const struct peeking *peeking, const struct bucket *bucket, unsigned at)
{
    const struct segments *segments = peeking->store->segments;
    struct header header;
    uint64_t entry = load_acquire_u64(&bucket->entries[at]); /* ENTRY */
    uint64_t address = entry_address(entry);
    if (address == 0 || !entry_may_be(entry, peeking->hash)) return STEP_OTHER_KEY;
    const uint32_t *generation = &segments->generations[address >> SEGMENT_UNIT_SHIFT];
    uint32_t before = load_acquire_u32(generation); /* BEFORE */
    uint64_t head = load_acquire_u64(&bucket->head);
    bool is_same = tag_of(head, at) == table_tag(peeking->hash) &&
                   load_acquire_u64(&bucket->entries[at]) == entry; /* AGAIN */
    if (!is_same) return STEP_AGAIN;
    enum step step = is_key(peeking, address, &header) ? read_value(peeking, address, &header)
                                                       : STEP_OTHER_KEY; /* READ */
    fence_racing();
    return load_acquire_u32(generation) == before ? step : STEP_AGAIN; /* AFTER */
}

/* As table_bucket; NULL: mask and split do not belong together. */
static const struct bucket *first_bucket(const struct table *table, uint64_t hash)
{
    uint64_t split = load_acquire_u64(&table->split);
    uint64_t mask = load_acquire_u64(&table->mask);
    uint64_t narrow = hash & mask;
    uint64_t index = narrow < split ? hash & (mask << 1 | 1) : narrow;
    return index < table->buckets_max ? &table->buckets[index] : NULL;
}

/* NULL: the chain ends, or what looked like a link is none. */
static const struct bucket *next_bucket(const struct table *table, const struct bucket *bucket,
                                        uint64_t head)
{
    if (head >> 56 == 0) return NULL;
    uint64_t number = load_acquire_u64(&bucket->entries[LINK_AT]) >> ENTRY_ADDRESS_BITS;
    return number < table->overflow_max ? &table->overflow[number] : NULL;
}

/* A bit in each byte of `head` that is the tag; now and then one more, in the byte above such a one. */
static uint64_t match_tags(uint64_t head, uint8_t tag)
{
    const uint64_t ones = 0x0001010101010101u;
    uint64_t differs = (head & ones * 0xff) ^ ones * tag;
    return (differs - ones) & ~differs & ones << 7;
}

/* Whether an entry of a tree may be that of the key's partition. */
static bool may_be_tree(const struct peeking *peeking, const struct bucket *bucket, uint64_t head)
{
    uint64_t match = match_tags(head, table_tree_tag(peeking->hash));
    for (; match != 0; match &= match - 1) {
        unsigned at = (unsigned)__builtin_ctzll(match) / 8;
        if (entry_may_be(load_acquire_u64(&bucket->entries[at]), peeking->hash)) return true;
    }
    return false;
}

/* Looks through the key's chain once. */
static enum step look(const struct peeking *peeking)
{
    const struct table *table = &peeking->store->table;
    const struct bucket *bucket = first_bucket(table, peeking->hash);
    for (unsigned i = 0; i < CHAIN_MAX; i++) {
        if (bucket == NULL) return STEP_NOWHERE;
        uint64_t head = load_acquire_u64(&bucket->head); /* HEAD */
        uint64_t match = match_tags(head, table_tag(peeking->hash));
        for (; match != 0; match &= match - 1) {
            enum step step = look_at(peeking, bucket, (unsigned)__builtin_ctzll(match) / 8);
            if (step != STEP_OTHER_KEY) return step;
        }
        if (may_be_tree(peeking, bucket, head)) return STEP_TREE;
        bucket = next_bucket(table, bucket, head);
    }
    return STEP_AGAIN;
}

static ALWAYS_INLINE enum peek_result look_for(const struct peek_many *one, void *buffer,
                                               size_t bytes, struct peek *peek)
{
    const struct table *table = &one->store->table;
    const struct peeking peeking = {.store = one->store,
                                    .key = one->key,
                                    .key_len = one->key_len,
                                    .hash = one->hash,
                                    .buffer = buffer,
                                    .bytes = bytes,
                                    .peek = peek};
    for (unsigned tries = 0; tries < TRIES_MAX; tries++) {
        uint64_t moves = load_acquire_u64(&table->moves); /* MOVES */
        switch (look(&peeking)) {
        case STEP_FOUND: return PEEK_FOUND;
        case STEP_REMOVED: return PEEK_NO_KEY;
        case STEP_TOO_SMALL: return PEEK_TOO_SMALL;
        case STEP_TREE: return PEEK_UNSURE;
        case STEP_OTHER_KEY:
        case STEP_AGAIN: break;
        case STEP_NOWHERE:
            if ((moves & 1) == 0 && load_acquire_u64(&table->moves) == moves) /* STILL */
                return PEEK_NO_KEY;
            break;
        }
    }
    return PEEK_UNSURE;
}

enum peek_result store_peek(const struct store *store, const uint8_t *key, size_t key_len,
                            void *buffer, size_t bytes, struct peek *peek)
{
    if (path_partition_bytes(key, key_len) < key_len) return PEEK_UNSURE;
    const struct peek_many one = {store, key, key_len, hash_key(key, key_len, store->hash_seed)};
    return look_for(&one, buffer, bytes, peek);
}

/* --------------------------------------------------------------------------------- many at once */

/* Of a record with its key and value: those behind come by themselves, line after line. */
#define FETCH_LINES 3

void peek_fetch_bucket(struct peek_many *many)
{
    many->hash = hash_key(many->key, many->key_len, many->store->hash_seed);
    const struct bucket *bucket = first_bucket(&many->store->table, many->hash);
    if (bucket != NULL) __builtin_prefetch(bucket);
}

/* What is fetched may be another key's, or nothing: it is only fetched. */
void peek_fetch_record(const struct peek_many *many)
{
    const struct table *table = &many->store->table;
    const struct bucket *bucket = first_bucket(table, many->hash);
    if (bucket == NULL) return;
    uint64_t match = match_tags(load_acquire_u64(&bucket->head), table_tag(many->hash));
    for (; match != 0; match &= match - 1) {
        uint64_t entry = load_acquire_u64(&bucket->entries[__builtin_ctzll(match) / 8]);
        const uint8_t *record = many->store->segments->base + entry_address(entry);
        if (entry_address(entry) == 0 || !entry_may_be(entry, many->hash)) continue;
        for (unsigned line = 0; line < FETCH_LINES; line++)
            __builtin_prefetch(record + (size_t)line * CACHE_LINE);
    }
}

enum peek_result peek_value(const struct peek_many *many, void *buffer, size_t bytes,
                            struct peek *peek)
{
    if (path_partition_bytes(many->key, many->key_len) < many->key_len) return PEEK_UNSURE;
    return look_for(many, buffer, bytes, peek);
}
