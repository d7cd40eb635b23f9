#include "log/batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/rng.h"
#include "log/change.h"
#include "log/checksum.h"

#define BATCH_BYTES_MAX 1024

struct fixture {
    _Alignas(8) uint8_t bytes[BATCH_BYTES_MAX];
    struct batch *batch;
    size_t size;
};

static void add_change(struct fixture *fixture, const char *key, const char *value)
{
    struct change change = {.type = FRAME_UPDATE,
                            .flags = VALUE_STRING,
                            .key_len = (uint16_t)strlen(key),
                            .slot = 17,
                            .seq = 5,
                            .key_hash = 0x1122334455667788u,
                            .place_and_seq = 9,
                            .offset_and_floor = 3,
                            .hlc = 1000,
                            .session = 42};
    change.length = (uint32_t)(CHANGE_BYTES + strlen(key) + strlen(value));
    uint8_t *at = fixture->bytes + fixture->size;
    memcpy(at, &change, sizeof change);
    memcpy(at + CHANGE_BYTES, key, strlen(key));
    memcpy(at + CHANGE_BYTES + strlen(key), value, strlen(value));
    fixture->size += change_padded_bytes(&change);
    fixture->batch->count++;
}

static void seal(struct fixture *fixture)
{
    fixture->batch->length = (uint32_t)fixture->size;
    fixture->batch->checksum = batch_checksum(fixture->batch);
}

static void open_batch(struct fixture *fixture)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->batch = (struct batch *)(void *)fixture->bytes;
    *fixture->batch = (struct batch){.type = FRAME_BATCH,
                                     .version = BATCH_VERSION,
                                     .stream_first = 1,
                                     .view = 2,
                                     .owner = 3,
                                     .previous = 4};
    fixture->size = BATCH_BYTES;
}

static void make_batch(struct fixture *fixture)
{
    open_batch(fixture);
    add_change(fixture, "28", "david");
    add_change(fixture, "28.email", "");
    add_change(fixture, "k",
               "a value that is longer than a cache line, so that it takes two or more");
    seal(fixture);
}

static bool is_valid(const struct fixture *fixture)
{
    return batch_is_valid(fixture->batch, fixture->size);
}

static struct change *first_change(const struct fixture *fixture)
{
    return (struct change *)(void *)(fixture->batch + 1);
}

static void changes_alike_are_found_without_reading_them(void **state)
{
    (void)state;
    struct fixture fixture;
    open_batch(&fixture);
    for (int i = 0; i < 3; i++) add_change(&fixture, "28", "david");
    fixture.batch->flags = BATCH_ALIKE;
    seal(&fixture);
    assert_true(is_valid(&fixture));
    assert_int_equal(batch_change_bytes(fixture.batch),
                     change_padded_bytes(first_change(&fixture)));
    make_batch(&fixture);
    assert_int_equal(batch_change_bytes(fixture.batch), 0);
}

static void one_size_is_kept_until_another_comes(void **state)
{
    (void)state;
    assert_int_equal(batch_alike_flag(batch_size_of_all(batch_size_of_all(0, 72), 72)),
                     BATCH_ALIKE);
    uint32_t mixed = batch_size_of_all(batch_size_of_all(0, 72), 80);
    assert_int_equal(batch_alike_flag(mixed), 0);
    assert_int_equal(batch_alike_flag(batch_size_of_all(mixed, 80)), 0);
}

/* ---------------------------------------------------------------------------- what is broken */

static void each_flipped_bit_is_found(void **state)
{
    (void)state;
    struct fixture fixture;
    make_batch(&fixture);
    assert_true(is_valid(&fixture));
    for (size_t bit = 0; bit < fixture.size * 8; bit++) {
        fixture.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(is_valid(&fixture));
        fixture.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(is_valid(&fixture));
}

static void each_cut_is_found(void **state)
{
    (void)state;
    struct fixture fixture;
    make_batch(&fixture);
    for (size_t size = 0; size < fixture.size; size++)
        assert_false(batch_is_valid(fixture.batch, size));
    /* Behind it may stand the next one. */
    assert_true(batch_is_valid(fixture.batch, fixture.size + 64));
}

enum lie {
    LIE_NONE,
    LIE_TYPE,
    LIE_VERSION,
    LIE_ALIKE,
    LIE_LENGTH_ODD,
    LIE_COUNT_MORE,
    LIE_COUNT_LESS,
    LIE_COUNT_HUGE,
    LIE_CHANGE_SHORT,
    LIE_CHANGE_LONG,
    LIE_CHANGE_HUGE,
    LIE_KEY_NONE,
    LIE_KEY_LONG,
    LIES_COUNT
};

static void tell(struct fixture *fixture, enum lie lie)
{
    struct batch *batch = fixture->batch;
    struct change *change = first_change(fixture);
    switch (lie) {
    case LIE_NONE: break;
    case LIE_TYPE: batch->type = FRAME_UPDATE; break;
    case LIE_VERSION: batch->version++; break;
    case LIE_ALIKE: batch->flags |= BATCH_ALIKE; break;
    case LIE_LENGTH_ODD: batch->length -= 4; break;
    case LIE_COUNT_MORE: batch->count++; break;
    case LIE_COUNT_LESS: batch->count--; break;
    case LIE_COUNT_HUGE: batch->count = UINT32_MAX; break;
    case LIE_CHANGE_SHORT: change->length = CHANGE_BYTES; break;
    case LIE_CHANGE_LONG: change->length += 8; break;
    case LIE_CHANGE_HUGE: change->length = UINT32_MAX; break;
    case LIE_KEY_NONE: change->key_len = 0; break;
    case LIE_KEY_LONG: change->key_len = 60; break;
    case LIES_COUNT: break;
    }
}

/* A peer computes the checksum of whatever it sends. */
static void changes_that_do_not_add_up_are_found_under_a_right_checksum(void **state)
{
    (void)state;
    for (unsigned lie = LIE_NONE; lie < LIES_COUNT; lie++) {
        struct fixture fixture;
        make_batch(&fixture);
        tell(&fixture, (enum lie)lie);
        fixture.batch->checksum = batch_checksum(fixture.batch);
        assert_int_equal(is_valid(&fixture), lie == LIE_NONE);
    }
}

/* ---------------------------------------------------------------------------- checksums */

/* The checksum is in files and on wires: no other version may compute another one. */
static void checksums_are_what_they_always_were(void **state)
{
    (void)state;
    struct fixture fixture;
    assert_int_equal(checksum_bytes("", 0), 0x2d06800538d394c2u);
    make_batch(&fixture);
    uint64_t changes = checksum_bytes(fixture.batch + 1, fixture.size - BATCH_BYTES);
    assert_int_equal(changes, 0x30270e9b5b645813u);
    assert_int_equal(fixture.batch->checksum, 0x7570ec2a76c12b0au);
}

static void checksum_covers_its_own_field_as_zero(void **state)
{
    (void)state;
    struct fixture fixture;
    make_batch(&fixture);
    uint64_t checksum = fixture.batch->checksum;
    fixture.batch->checksum = 12345;
    assert_int_equal(batch_checksum(fixture.batch), checksum);
    assert_int_equal(fixture.batch->checksum, 12345);
}

#ifdef __x86_64__
static void both_variants_agree_at_every_length(void **state)
{
    (void)state;
    static uint8_t bytes[300000];
    struct rng rng;
    if (!__builtin_cpu_supports("avx2")) skip();
    rng_init(&rng, 4);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)rng_next(&rng);
    for (size_t size = 0; size < 3000; size++) {
        const uint8_t *data = bytes + size % 64;
        assert_int_equal(checksum_bytes(data, size), checksum_bytes_v3(data, size));
    }
    for (size_t size = sizeof bytes - 64; size <= sizeof bytes; size++)
        assert_int_equal(checksum_bytes(bytes, size), checksum_bytes_v3(bytes, size));
}
#endif

static void chosen_variant_agrees_with_the_plain_one(void **state)
{
    (void)state;
    struct fixture fixture;
    make_batch(&fixture);
    assert_int_equal(checksum_choose()(fixture.bytes, fixture.size),
                     hash_bytes(fixture.bytes, fixture.size));
}

/* ---------------------------------------------------------------------------- changes */

static void numbers_of_48_bits_share_their_words(void **state)
{
    (void)state;
    struct change change = {.seq = 0xfedcba98u};
    change.place_and_seq = CHANGE_48_BITS | (uint64_t)0x7654 << 48;
    change.offset_and_floor = CHANGE_48_BITS | (uint64_t)0xffff << 48;
    assert_int_equal(change_place(&change), CHANGE_48_BITS);
    assert_int_equal(change_offset(&change), CHANGE_48_BITS);
    assert_int_equal(change_seq(&change), 0x7654fedcba98u);
    change.place_and_seq = (uint64_t)0x7654 << 48;
    assert_int_equal(change_place(&change), 0);
    assert_int_equal(change_seq(&change), 0x7654fedcba98u);
}

static void chain_is_undone_step_by_step(void **state)
{
    (void)state;
    uint64_t chains[100] = {0};
    uint64_t identities[100];
    struct rng rng;
    rng_init(&rng, 6);
    for (unsigned i = 1; i < 100; i++) {
        identities[i] = rng_next(&rng);
        chains[i] = chain_next(chains[i - 1], identities[i]);
        assert_int_not_equal(chains[i], chains[i - 1]);
    }
    for (unsigned i = 99; i > 0; i--)
        assert_int_equal(chain_previous(chains[i], identities[i]), chains[i - 1]);
}

/* Whatever tells two changes apart makes another chain. */
static void identity_has_each_bit_of_session_number_place_slot_and_key(void **state)
{
    (void)state;
    const struct change change = {.session = 1, .place_and_seq = 2, .key_hash = 3, .seq = 4};
    uint64_t identity = change_identity(&change);
    for (unsigned bit = 0; bit < 64; bit++) {
        struct change other = change;
        other.session ^= (uint64_t)1 << bit;
        assert_int_not_equal(change_identity(&other), identity);
        other = change;
        other.place_and_seq ^= (uint64_t)1 << bit;
        assert_int_not_equal(change_identity(&other), identity);
        other = change;
        other.key_hash ^= (uint64_t)1 << bit;
        assert_int_not_equal(change_identity(&other), identity);
        other = change;
        other.seq ^= (uint32_t)1 << bit % 32;
        assert_int_not_equal(change_identity(&other), identity);
        other = change;
        other.slot ^= (uint16_t)(1 << bit % 16);
        assert_int_not_equal(change_identity(&other), identity);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_alike_are_found_without_reading_them),
        cmocka_unit_test(one_size_is_kept_until_another_comes),
        cmocka_unit_test(each_flipped_bit_is_found),
        cmocka_unit_test(each_cut_is_found),
        cmocka_unit_test(changes_that_do_not_add_up_are_found_under_a_right_checksum),
        cmocka_unit_test(checksums_are_what_they_always_were),
        cmocka_unit_test(checksum_covers_its_own_field_as_zero),
#ifdef __x86_64__
        cmocka_unit_test(both_variants_agree_at_every_length),
#endif
        cmocka_unit_test(chosen_variant_agrees_with_the_plain_one),
        cmocka_unit_test(numbers_of_48_bits_share_their_words),
        cmocka_unit_test(chain_is_undone_step_by_step),
        cmocka_unit_test(identity_has_each_bit_of_session_number_place_slot_and_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
