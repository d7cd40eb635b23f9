/* Hashes and buckets of four keys at once are those of one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"
#include "shard/table.h"

#ifdef __AVX2__
/* cmocka has to be asked before any instruction that the processor may not have. */
static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0;
}

static __m256i load_x4(const uint64_t *words)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)words);
}

static void store_x4(void *to, __m256i words)
{
    _mm256_storeu_si256((__m256i *)to, words);
}

static void four_hashes_are_those_of_one_by_one(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 1);
    if (!has_avx2()) skip();
    for (unsigned round = 0; round < 10000; round++) {
        struct hash_of_8 hash = hash_of_8(rng_next(&rng));
        uint64_t keys[4];
        uint64_t hashes[4];
        for (unsigned i = 0; i < 4; i++) keys[i] = rng_next(&rng);
        /* Carries out of either half, and none. */
        if (round % 3 == 0) keys[round % 4] = round % 2 == 0 ? UINT64_MAX : 0;
        store_x4(hashes, hash_key_8_x4(load_x4(keys), hash_of_8_x4(hash)));
        for (unsigned i = 0; i < 4; i++) assert_int_equal(hashes[i], hash_key_8(keys[i], hash));
    }
}

static void four_buckets_are_those_of_one_by_one(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 2);
    struct bucket buckets[1];
    if (!has_avx2()) skip();
    for (unsigned level = 0; level < 32; level++) {
        for (unsigned round = 0; round < 200; round++) {
            struct table table = {.buckets = buckets, .mask = ((uint64_t)1 << level) - 1};
            uint64_t hashes[4];
            uint64_t found[4];
            uint64_t bits[4];
            table.split = rng_next(&rng) & table.mask;
            for (unsigned i = 0; i < 4; i++) hashes[i] = rng_next(&rng);
            /* At the border of what was split, on either side. */
            hashes[0] = table.split;
            hashes[1] = table.split - 1;
            store_x4(found, table_bucket_x4(&table, load_x4(hashes)));
            store_x4(bits, entry_hash_bits_x4(load_x4(hashes)));
            for (unsigned i = 0; i < 4; i++) {
                assert_int_equal(found[i], (uintptr_t)table_bucket(&table, hashes[i]));
                assert_int_equal(bits[i], entry_hash_bits(hashes[i]));
            }
        }
    }
}
#else
static void four_hashes_are_those_of_one_by_one(void **state)
{
    (void)state;
    skip();
}

static void four_buckets_are_those_of_one_by_one(void **state)
{
    (void)state;
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_hashes_are_those_of_one_by_one),
        cmocka_unit_test(four_buckets_are_those_of_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
