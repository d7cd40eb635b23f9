/*
 * Layout: buckets of one cache line with 7 entries: 7 tags that are compared at once, then 7 words
 * that hold 27 more bits of the hash and the address of the record. An absent key costs one line;
 * a present one that line and its record, which its caller reads anyway.
 *
 * Growth: linear hashing (Litwin, "Linear hashing: a new tool for file and table addressing", VLDB
 * 1980). When there are more than LOAD entries a bucket, the insertion splits one bucket, the next
 * in turn, into itself and a new one at the end; the table is address space reserved once, so
 * nothing is moved and there is never a pause. The bit that decides between the two buckets is one
 * of the 27 in the entry: a split reads no records.
 *
 * Overflow: in the buckets that wait for their split an eighth entry goes to an overflow bucket,
 * whose number takes the place of the seventh entry. Its bits are those of an entry's hash, so that
 * whoever kept a pointer to the seventh entry reads address 0, where no record ever is, and not a
 * number that bytes of some value might be made to fit.
 *
 * Other threads look at the table while the writer changes it (peek.c), so whatever it stores it
 * stores with release, a bucket's tags as one word, and in an order: an entry before its tag, the link
 * before what says that there is one, a record before the entry. While a tag stands, its entry points
 * to a record of the table or has address 0. `moves` is odd while entries are moved to other places.
 *
 * Rejected: ck_ht and ck_hs (known bugs in Debian's 0.7.1, and made for several readers); doubling
 * into a second table (twice the memory while it lasts, two probes a look-up).
 */
#include "shard/table.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/ck.h"
#include "base/memory.h"

#define LEVEL_FIRST ENTRY_HASH_SHIFT
/* Entries a bucket on average before a split: 3 of 7, in units of a quarter. */
#define LOAD_QUARTERS 12
#define LINK_AT (BUCKET_ENTRIES - 1)
#define LINK_MAX (((uint64_t)1 << (64 - ENTRY_ADDRESS_BITS)) - 1)

static uint64_t buckets_count(const struct table *table)
{
    return table->mask + 1 + table->split;
}

static void update_count_max(struct table *table)
{
    table->count_max = buckets_count(table) * LOAD_QUARTERS / 4;
}

int table_init(struct table *table, uint64_t entries_max)
{
    uint64_t buckets = max_u64(entries_max * 4 / LOAD_QUARTERS + 1, (uint64_t)1 << LEVEL_FIRST);
    *table = (struct table){.level = LEVEL_FIRST,
                            .mask = ((uint64_t)1 << LEVEL_FIRST) - 1,
                            .overflow_fresh = 1,
                            .buckets_max = buckets,
                            .overflow_max = (uint32_t)min_u64(buckets / 2 + 64, LINK_MAX)};
    table->buckets = memory_reserve(buckets * sizeof(struct bucket), 1);
    table->overflow = memory_reserve(table->overflow_max * sizeof(struct bucket), 0);
    if (table->buckets == NULL || table->overflow == NULL) {
        table_deinit(table);
        return -ENOMEM;
    }
    update_count_max(table);
    return 0;
}

void table_deinit(struct table *table)
{
    memory_release(table->buckets, table->buckets_max * sizeof(struct bucket));
    memory_release(table->overflow, table->overflow_max * sizeof(struct bucket));
    *table = (struct table){0};
}

size_t table_bytes(const struct table *table)
{
    return (buckets_count(table) + table->overflow_fresh) * sizeof(struct bucket);
}

static uint32_t link_of(const struct bucket *bucket)
{
    return (uint32_t)(bucket->entries[LINK_AT] >> ENTRY_ADDRESS_BITS);
}

static void link_set(struct bucket *bucket, uint32_t number)
{
    store_release_u64(&bucket->entries[LINK_AT], (uint64_t)number << ENTRY_ADDRESS_BITS);
}

static void tag_set(struct bucket *bucket, unsigned at, uint8_t tag)
{
    uint64_t others = bucket->head & ~((uint64_t)0xff << at * 8);
    store_release_u64(&bucket->head, others | (uint64_t)tag << at * 8);
}

static void bucket_clear(struct bucket *bucket)
{
    store_release_u64(&bucket->head, 0);
    for (unsigned i = 0; i < BUCKET_ENTRIES; i++) store_release_u64(&bucket->entries[i], 0);
}

static void moves_step(struct table *table)
{
    store_release_u64(&table->moves, table->moves + 1);
}

static struct bucket *bucket_next(const struct table *table, const struct bucket *bucket)
{
    return bucket->overflows ? &table->overflow[link_of(bucket)] : NULL;
}

void table_prefetch_overflow(const struct table *table, const struct bucket *bucket)
{
    if (bucket->overflows) __builtin_prefetch(bucket_next(table, bucket), 1);
}

uint64_t *table_probe_all(const struct table *table, uint64_t hash)
{
    for (struct bucket *bucket = table_bucket(table, hash); bucket != NULL;
         bucket = bucket_next(table, bucket)) {
        uint64_t address8;
        uint64_t *entry = table_probe(bucket, &hash, &address8);
        if (entry != NULL) return entry;
    }
    return NULL;
}

uint64_t *table_find(struct table *table, uint64_t hash, table_is_key_fn is_key,
                     const void *context)
{
    for (struct bucket *bucket = table_bucket(table, hash); bucket != NULL;
         bucket = bucket_next(table, bucket)) {
        for (uint64_t match = bucket_match(bucket, &hash); match != 0; match &= match - 1) {
            uint64_t *entry = &bucket->entries[__builtin_ctzll(match)];
            if (entry_may_be(*entry, hash) && is_key(context, entry_address(*entry))) return entry;
        }
    }
    return NULL;
}

static bool is_tree_tag(uint8_t tag)
{
    return (tag & 0xc0) == 0x40;
}

uint64_t *table_find_tree(struct table *table, uint64_t hash, table_is_key_fn is_key,
                          const void *context)
{
    for (struct bucket *bucket = table_bucket(table, hash); bucket != NULL;
         bucket = bucket_next(table, bucket)) {
        for (unsigned i = 0; i < BUCKET_ENTRIES; i++) {
            uint64_t *entry = &bucket->entries[i];
            if (bucket->tags[i] == table_tree_tag(hash) && entry_may_be(*entry, hash) &&
                is_key(context, entry_address(*entry)))
                return entry;
        }
    }
    return NULL;
}

/* Where an entry is that was found for this hash. */
static struct bucket *bucket_of(struct table *table, uint64_t hash, const uint64_t *entry,
                                unsigned *at)
{
    struct bucket *bucket = table_bucket(table, hash);
    while (entry < bucket->entries || entry >= bucket->entries + BUCKET_ENTRIES) {
        bucket = bucket_next(table, bucket);
        ASSERT(bucket != NULL);
    }
    *at = (unsigned)(entry - bucket->entries);
    ASSERT(bucket->tags[*at] != 0);
    return bucket;
}

/* The tag of a record stands only while the entry points to one: it goes first, and comes last. */
void table_set_tree(struct table *table, uint64_t hash, uint64_t *entry, uint64_t root_address)
{
    unsigned at;
    struct bucket *bucket = bucket_of(table, hash, entry, &at);
    tag_set(bucket, at, table_tree_tag(hash));
    store_release_u64(entry, entry_make(hash, root_address));
}

void table_set_record(struct table *table, uint64_t hash, uint64_t *entry, uint64_t address)
{
    unsigned at;
    struct bucket *bucket = bucket_of(table, hash, entry, &at);
    store_release_u64(entry, entry_make(hash, address));
    tag_set(bucket, at, table_tag(hash));
}

static bool is_address(const void *context, uint64_t address)
{
    return *(const uint64_t *)context == address;
}

uint64_t *table_find_address(struct table *table, uint64_t hash, uint64_t address)
{
    return table_find(table, hash, is_address, &address);
}

static uint32_t overflow_take(struct table *table)
{
    uint32_t number = table->overflow_free;
    if (number != 0) {
        table->overflow_free = link_of(&table->overflow[number]);
        bucket_clear(&table->overflow[number]);
    } else if (table->overflow_fresh < table->overflow_max) {
        number = table->overflow_fresh++;
    } else {
        return 0;
    }
    table->overflow_in_use++;
    return number;
}

static void overflow_put(struct table *table, uint32_t number)
{
    bucket_clear(&table->overflow[number]);
    link_set(&table->overflow[number], table->overflow_free);
    table->overflow_free = number;
    table->overflow_in_use--;
}

static bool bucket_try_put(struct bucket *bucket, uint8_t tag, uint64_t entry)
{
    unsigned entries = bucket->overflows ? BUCKET_ENTRIES - 1 : BUCKET_ENTRIES;
    unsigned at = 0;
    while (at < entries && bucket->tags[at] != 0) at++;
    if (at == entries) return false;
    store_release_u64(&bucket->entries[at], entry);
    tag_set(bucket, at, tag);
    return true;
}

/* The seventh entry makes place for the link to overflow bucket `number`. */
static void overflow_begin(struct table *table, struct bucket *bucket, uint32_t number)
{
    bool moved =
        bucket_try_put(&table->overflow[number], bucket->tags[LINK_AT], bucket->entries[LINK_AT]);
    ASSERT(moved);
    tag_set(bucket, LINK_AT, 0);
    link_set(bucket, number);
    tag_set(bucket, BUCKET_ENTRIES, 1);
    ASSERT(bucket->overflows == 1);
}

/* Puts an entry into the chain that begins with `bucket`. */
static int chain_put(struct table *table, struct bucket *bucket, uint8_t tag, uint64_t entry)
{
    for (;;) {
        if (bucket_try_put(bucket, tag, entry)) return 0;
        if (!bucket->overflows) {
            uint32_t number = overflow_take(table);
            if (number == 0) return -ENOMEM;
            overflow_begin(table, bucket, number);
        }
        bucket = bucket_next(table, bucket);
    }
}

/* Deals the entries of one bucket of the old chain out to the two buckets of the split. */
static void deal_out(struct table *table, const struct bucket *from, uint64_t low, uint64_t high)
{
    unsigned entries = from->overflows ? BUCKET_ENTRIES - 1 : BUCKET_ENTRIES;
    for (unsigned i = 0; i < entries; i++) {
        if (from->tags[i] == 0) continue;
        uint64_t hash_bits = from->entries[i] >> ENTRY_ADDRESS_BITS;
        bool is_high = (hash_bits >> (table->level - ENTRY_HASH_SHIFT) & 1) != 0;
        int err = chain_put(table, &table->buckets[is_high ? high : low], from->tags[i],
                            from->entries[i]);
        /* Cannot fail: the old chain gives back at least as many overflow buckets as two need. */
        ASSERT(err == 0);
    }
}

static void split_one(struct table *table)
{
    if (buckets_count(table) == table->buckets_max) return;
    uint64_t low = table->split;
    uint64_t high = table->mask + 1 + low;
    struct bucket old = table->buckets[low];
    moves_step(table);
    bucket_clear(&table->buckets[low]);
    struct bucket *from = &old;
    uint32_t number = 0;
    while (from != NULL) {
        struct bucket copy = *from;
        if (number != 0) overflow_put(table, number);
        number = copy.overflows ? link_of(&copy) : 0;
        deal_out(table, &copy, low, high);
        from = number != 0 ? &table->overflow[number] : NULL;
    }
    if (table->split == table->mask) {
        table->level++;
        store_release_u64(&table->mask, table->mask << 1 | 1);
        store_release_u64(&table->split, 0);
    } else {
        store_release_u64(&table->split, table->split + 1);
    }
    moves_step(table);
    update_count_max(table);
}

int table_insert(struct table *table, uint64_t hash, uint64_t address)
{
    if (table->count >= table->count_max) split_one(table);
    moves_step(table); /* to an overflow bucket, perhaps */
    int err =
        chain_put(table, table_bucket(table, hash), table_tag(hash), entry_make(hash, address));
    moves_step(table);
    if (err < 0) return err;
    table->count++;
    return 0;
}

void table_remove(struct table *table, uint64_t hash, uint64_t *entry)
{
    unsigned at;
    struct bucket *bucket = bucket_of(table, hash, entry, &at);
    tag_set(bucket, at, 0);
    table->count--;
}

/* What to do with the entries, and of which kind. */
struct visitor {
    void (*visit)(void *context, uint64_t address);
    void *context;
    bool trees;
};

static uint64_t bucket_each(const struct bucket *bucket, const struct visitor *visitor)
{
    unsigned entries = bucket->overflows ? BUCKET_ENTRIES - 1 : BUCKET_ENTRIES;
    uint64_t count = 0;
    for (unsigned i = 0; i < entries; i++) {
        if (bucket->tags[i] == 0) continue;
        count++;
        if (visitor->visit != NULL && is_tree_tag(bucket->tags[i]) == visitor->trees)
            visitor->visit(visitor->context, entry_address(bucket->entries[i]));
    }
    return count;
}

static uint64_t each(const struct table *table, const struct visitor *visitor, uint32_t *overflows)
{
    uint64_t count = 0;
    for (uint64_t at = 0; at < buckets_count(table); at++) {
        for (const struct bucket *bucket = &table->buckets[at]; bucket != NULL;
             bucket = bucket_next(table, bucket)) {
            count += bucket_each(bucket, visitor);
            *overflows += bucket->overflows;
        }
    }
    return count;
}

void table_each(const struct table *table, void (*visit)(void *context, uint64_t address),
                void *context)
{
    uint32_t overflows = 0;
    each(table, &(struct visitor){visit, context, false}, &overflows);
}

void table_each_tree(const struct table *table, void (*visit)(void *context, uint64_t root_address),
                     void *context)
{
    uint32_t overflows = 0;
    each(table, &(struct visitor){visit, context, true}, &overflows);
}

void table_check(const struct table *table)
{
    uint32_t overflows = 0;
    uint64_t count = each(table, &(struct visitor){0}, &overflows);
    ASSERT(count == table->count);
    ASSERT(overflows == table->overflow_in_use);
}
