#include "shard/table.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/rng.h"

#define MANY 3000000

/* A hash for every number, as even as those of keys. */
static uint64_t hash_of(uint64_t number)
{
    uint64_t z = number + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t address_of_number(uint64_t number)
{
    return (number + 1) * 8;
}

static uint64_t buckets_count(const struct table *table)
{
    return table->mask + 1 + table->split;
}

/* The longest chain, in buckets. */
static unsigned longest_chain(const struct table *table)
{
    unsigned longest = 0;
    for (uint64_t at = 0; at < buckets_count(table); at++) {
        unsigned length = 1;
        for (const struct bucket *bucket = &table->buckets[at]; bucket->overflows;
             bucket = &table->overflow[bucket->entries[BUCKET_ENTRIES - 1] >> ENTRY_ADDRESS_BITS])
            length++;
        if (length > longest) longest = length;
    }
    return longest;
}

static void insert_number(struct table *table, uint64_t number)
{
    assert_int_equal(table_insert(table, hash_of(number), address_of_number(number)), 0);
}

static uint64_t *find_number(struct table *table, uint64_t number)
{
    return table_find_address(table, hash_of(number), address_of_number(number));
}

static void remove_number(struct table *table, uint64_t number)
{
    uint64_t *entry = find_number(table, number);
    assert_non_null(entry);
    table_remove(table, hash_of(number), entry);
}

static struct table table_of(uint64_t entries_max)
{
    struct table table;
    assert_int_equal(table_init(&table, entries_max), 0);
    return table;
}

/* ---------------------------------------------------------------------------- growth */

/* A split deals out one chain, so that one bucket an insertion of short chains is no pause. */
static void growth_is_one_short_chain_an_insertion(void **state)
{
    (void)state;
    struct table table = table_of(MANY);
    uint64_t looked_at = 64;
    for (uint64_t i = 0; i < MANY; i++) {
        uint64_t buckets = buckets_count(&table);
        insert_number(&table, i);
        assert_in_range(buckets_count(&table), buckets, buckets + 1);
        if (i < looked_at) continue;
        assert_in_range(longest_chain(&table), 1, 4);
        looked_at = looked_at * 3 / 2;
    }
    assert_int_equal(table.count, MANY);
    for (uint64_t i = 0; i < MANY; i++) assert_non_null(find_number(&table, i));
    for (uint64_t i = MANY; i < MANY + 1000; i++) assert_null(find_number(&table, i));
    assert_true(table_bytes(&table) < MANY * 26u);
    table_check(&table);
    table_deinit(&table);
}

static void emptied_table_takes_as_many_again_in_the_same_memory(void **state)
{
    (void)state;
    const uint64_t count = 200000;
    struct table table = table_of(count);
    for (uint64_t i = 0; i < count; i++) insert_number(&table, i);
    size_t bytes = table_bytes(&table);
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < count; i++) remove_number(&table, i * 7 % count);
        assert_int_equal(table.count, 0);
        assert_null(find_number(&table, 5));
        table_check(&table);
        for (uint64_t i = 0; i < count; i++) insert_number(&table, i);
    }
    /* Chains of holes may be longer than those of a split, by a little. */
    assert_true(table_bytes(&table) < bytes + bytes / 50);
    table_deinit(&table);
}

/* Overflow buckets of a split chain are used again. */
static void growth_gives_overflow_buckets_back(void **state)
{
    (void)state;
    struct table table = table_of(MANY);
    uint32_t most = 0;
    for (uint64_t i = 0; i < 400000; i++) {
        insert_number(&table, i);
        if (table.overflow_in_use > most) most = table.overflow_in_use;
        assert_true(table.overflow_fresh <= most + 1);
    }
    assert_true(table.overflow_in_use < most);
    table_check(&table);
    table_deinit(&table);
}

static void full_table_refuses_and_stays_as_it_was(void **state)
{
    (void)state;
    struct table table = table_of(1);
    uint64_t count = 0;
    while (table_insert(&table, hash_of(count), address_of_number(count)) == 0) count++;
    assert_true(count > 1);
    assert_true(buckets_count(&table) <= table.buckets_max);
    for (uint64_t i = 0; i < count; i++) assert_non_null(find_number(&table, i));
    assert_null(find_number(&table, count));
    assert_int_equal(table.count, count);
    table_check(&table);
    for (uint64_t i = 0; i < count; i++) remove_number(&table, i);
    for (uint64_t i = 0; i < count; i++) insert_number(&table, i);
    table_check(&table);
    table_deinit(&table);
}

static void as_many_as_were_asked_for_fit(void **state)
{
    (void)state;
    static const uint64_t maxima[] = {1, 63, 64, 65, 191, 192, 193, 1000, 12345, 100000};
    for (size_t i = 0; i < ARRAY_COUNT(maxima); i++) {
        struct table table = table_of(maxima[i]);
        for (uint64_t number = 0; number < maxima[i]; number++) insert_number(&table, number);
        table_check(&table);
        table_deinit(&table);
    }
}

/* ---------------------------------------------------------------------------- hashes that agree */

static void equal_hashes_are_told_apart_by_their_addresses(void **state)
{
    (void)state;
    struct table table = table_of(3000);
    const uint64_t hash = 0xfedcba9876543210u;
    uint64_t count = 0;
    for (uint64_t i = 0; i < 1000; i++) insert_number(&table, i);
    while (count < 2000 && table_insert(&table, hash, (count + 1) << 20) == 0) count++;
    assert_true(count > 1000);
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t *entry = table_find_address(&table, hash, (i + 1) << 20);
        assert_non_null(entry);
        assert_int_equal(entry_address(*entry), (i + 1) << 20);
    }
    for (uint64_t i = 0; i < 1000; i++) assert_non_null(find_number(&table, i));
    for (uint64_t i = 0; i < count; i += 2) {
        uint64_t *entry = table_find_address(&table, hash, (i + 1) << 20);
        table_remove(&table, hash, entry);
    }
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t *entry = table_find_address(&table, hash, (i + 1) << 20);
        assert_int_equal(entry != NULL, i % 2 == 1);
    }
    /* The holes are filled before another bucket is taken. */
    uint32_t in_use = table.overflow_in_use;
    for (uint64_t i = 0; i < count; i += 2)
        assert_int_equal(table_insert(&table, hash, (i + 1) << 20), 0);
    assert_int_equal(table.overflow_in_use, in_use);
    table_check(&table);
    table_deinit(&table);
}

/* 34 bits of the hash are in the entry and its tag, and some more in the number of the bucket. */
static void each_bit_of_the_hash_that_is_kept_tells_entries_apart(void **state)
{
    (void)state;
    const uint64_t hash = 0x123456789abcdef1u;
    for (unsigned bit = 0; bit < 64; bit++) {
        struct table table = table_of(100);
        uint64_t other = hash ^ (uint64_t)1 << bit;
        bool is_kept = bit < 33 || (bit >= 56 && bit < 63);
        assert_int_equal(table_insert(&table, hash, 64), 0);
        uint64_t address8;
        const uint64_t *entry = table_probe(table_bucket(&table, other), &other, &address8);
        assert_int_equal(entry == NULL, is_kept);
        assert_int_equal(table_find_address(&table, other, 64) == NULL, is_kept);
        assert_non_null(table_probe(table_bucket(&table, hash), &hash, &address8));
        table_deinit(&table);
    }
}

static bool is_never(const void *context, uint64_t address)
{
    (*(unsigned *)(uintptr_t)context)++;
    assert_int_equal(address, 64);
    return false;
}

static void find_asks_whether_the_record_is_the_keys(void **state)
{
    (void)state;
    struct table table = table_of(100);
    unsigned asked = 0;
    assert_int_equal(table_insert(&table, hash_of(1), 64), 0);
    assert_null(table_find(&table, hash_of(1), is_never, &asked));
    assert_int_equal(asked, 1);
    table_deinit(&table);
}

static void entries_keep_addresses_up_to_a_tebibyte(void **state)
{
    (void)state;
    struct table table = table_of(100);
    const uint64_t last = ENTRY_ADDRESS << 3;
    assert_int_equal(table_insert(&table, UINT64_MAX, last), 0);
    assert_int_equal(table_insert(&table, 0, last), 0);
    assert_int_equal(entry_address(*table_find_address(&table, UINT64_MAX, last)), last);
    assert_int_equal(entry_address(*table_find_address(&table, 0, last)), last);
    table_deinit(&table);
}

/* ---------------------------------------------------------------------------- against a model */

#define MODEL_ENTRIES 3000

struct model {
    uint64_t hashes[MODEL_ENTRIES];
    bool is_in[MODEL_ENTRIES];
    unsigned visits[MODEL_ENTRIES];
};

static void count_visit(void *context, uint64_t address)
{
    struct model *model = context;
    model->visits[address / 8 - 1]++;
}

static void check_visits(const struct table *table, struct model *model)
{
    memset(model->visits, 0, sizeof model->visits);
    table_each(table, count_visit, model);
    for (unsigned i = 0; i < MODEL_ENTRIES; i++)
        assert_int_equal(model->visits[i], model->is_in[i] ? 1 : 0);
}

/* Few different hashes, so that chains are long, shared, split and full of holes. */
static void table_agrees_with_a_model_on_crowded_chains(void **state)
{
    (void)state;
    static struct model model;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct rng rng;
        struct table table = table_of(MODEL_ENTRIES);
        rng_init(&rng, seed);
        memset(&model, 0, sizeof model);
        for (unsigned i = 0; i < MODEL_ENTRIES; i++)
            model.hashes[i] = hash_of(rng_below(&rng, 40)) & ~((uint64_t)0xff << (8 * seed));
        for (unsigned step = 0; step < 60000; step++) {
            unsigned i =
                (unsigned)rng_below(&rng, step < 20000 ? MODEL_ENTRIES / 2 : MODEL_ENTRIES);
            uint64_t hash = model.hashes[i];
            uint64_t *entry = table_find_address(&table, hash, address_of_number(i));
            assert_int_equal(entry != NULL, model.is_in[i]);
            bool insert = !model.is_in[i];
            if (insert && table_insert(&table, hash, address_of_number(i)) < 0) continue;
            if (!insert) table_remove(&table, hash, entry);
            model.is_in[i] = insert;
            if (step % 10000 == 9999) check_visits(&table, &model);
        }
        table_check(&table);
        table_deinit(&table);
    }
}

static void init_survives_a_lack_of_memory(void **state)
{
    (void)state;
    struct table table;
    for (uint64_t n = 1; n <= 2; n++) {
        memory_fail_after(n);
        assert_int_equal(table_init(&table, 1000), -ENOMEM);
        memory_fail_after(0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(growth_is_one_short_chain_an_insertion),
        cmocka_unit_test(emptied_table_takes_as_many_again_in_the_same_memory),
        cmocka_unit_test(growth_gives_overflow_buckets_back),
        cmocka_unit_test(full_table_refuses_and_stays_as_it_was),
        cmocka_unit_test(as_many_as_were_asked_for_fit),
        cmocka_unit_test(equal_hashes_are_told_apart_by_their_addresses),
        cmocka_unit_test(each_bit_of_the_hash_that_is_kept_tells_entries_apart),
        cmocka_unit_test(find_asks_whether_the_record_is_the_keys),
        cmocka_unit_test(entries_keep_addresses_up_to_a_tebibyte),
        cmocka_unit_test(table_agrees_with_a_model_on_crowded_chains),
        cmocka_unit_test(init_survives_a_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
