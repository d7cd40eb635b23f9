#include "ring/slot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/rng.h"

/* ------------------------------------------------------------------------ the slow model */

static uint16_t model_crc16(const uint8_t *data, size_t bytes)
{
    unsigned crc = 0;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= (unsigned)data[i] << 8;
        for (int bit = 0; bit < 8; bit++) {
            crc <<= 1;
            if ((crc & 0x10000) != 0) crc ^= 0x11021;
        }
    }
    return (uint16_t)crc;
}

static uint16_t model_slot_of_bytes(const void *data, size_t bytes)
{
    return (uint16_t)(model_crc16(data, bytes) % 16384 / 4);
}

static uint16_t model_slot_of_partition(const uint8_t *partition, size_t bytes)
{
    size_t open = 0;
    while (open < bytes && partition[open] != '{') open++;
    size_t close = open;
    while (close < bytes && partition[close] != '}') close++;
    if (close < bytes && close > open + 1)
        return model_slot_of_bytes(partition + open + 1, close - open - 1);
    return model_slot_of_bytes(partition, bytes);
}

static uint16_t model_slot_of_key(const uint8_t *key, size_t bytes)
{
    size_t end = 0;
    while (end < bytes && key[end] != '.') end++;
    return model_slot_of_partition(key, end);
}

/* ---------------------------------------------------------------------------------- facts */

static void crc16_is_xmodem(void **unused)
{
    (void)unused;
    assert_int_equal(slot_crc16("", 0), 0);
    assert_int_equal(slot_crc16("123456789", 9), 0x31c3);
    assert_int_equal(slot_crc16("A", 1), 0x58e5);
}

static void crc16_equals_the_model_at_every_length(void **unused)
{
    (void)unused;
    uint8_t data[100];
    struct rng rng;
    rng_init(&rng, 1);
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)rng_next(&rng);
    for (size_t bytes = 0; bytes <= sizeof data; bytes++)
        assert_int_equal(slot_crc16(data, bytes), model_crc16(data, bytes));
}

static void slots_are_a_quarter_of_redis_slots(void **unused)
{
    (void)unused;
    static const struct {
        const char *key;
        uint16_t redis;
    } cases[] = {{"", 0},           {"a", 15495},   {"b", 3300},        {"foo", 12182},
                 {"bar", 5061},     {"hello", 866}, {"somekey", 11058}, {"123456789", 12739},
                 {"user1000", 3443}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        size_t bytes = strlen(cases[i].key);
        assert_int_equal(slot_crc16(cases[i].key, bytes) & 16383, cases[i].redis);
        assert_int_equal(slot_of_key(cases[i].key, bytes), cases[i].redis / 4);
    }
}

static void only_tag_and_partition_are_hashed(void **unused)
{
    (void)unused;
    static const struct {
        const char *key;
        const char *hashed;
    } cases[] = {
        {"{user1000}.following", "user1000"},
        {"{user1000}followers", "user1000"},
        {"foo{bar}{zap}", "bar"},
        {"foo{{bar}}zap", "{bar"},
        {"foo{}{bar}", "foo{}{bar}"},
        {"foo{", "foo{"},
        {"foo{bar", "foo{bar"},
        {"}foo{bar}", "bar"},
        {"{}", "{}"},
        {"{a}", "a"},
        {"28.email", "28"},
        {"28", "28"},
        {"28.{x}", "28"},
        {"{a.b}", "{a"},
        {"12345678.x", "12345678"},
        {"12345678{x}.y", "x"},
        {".x", ""},
        {"a long partition, longer than two words.x", "a long partition, longer than two words"},
        {"a long partition with a {tag} in it.x", "tag"}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        const char *hashed = cases[i].hashed;
        uint16_t slot = model_slot_of_bytes(hashed, strlen(hashed));
        assert_int_equal(slot_of_key(cases[i].key, strlen(cases[i].key)), slot);
    }
}

static void a_partition_may_have_dots(void **unused)
{
    (void)unused;
    uint16_t slot = model_slot_of_bytes("a.b", 3);
    assert_int_equal(slot_of_partition("a.b", 3), slot);
    assert_int_equal(slot_of_partition("{a.b}", 5), slot);
    assert_int_not_equal(slot_of_key("a.b", 3), slot);
}

/* ----------------------------------------------------------------------------- properties */

/* The key stands in a block of its own size, so that a sanitizer sees a read past either end. */
static void check_key(const uint8_t *key, size_t bytes)
{
    uint8_t *copy = malloc(bytes > 0 ? bytes : 1);
    assert_non_null(copy);
    memcpy(copy, key, bytes);
    assert_int_equal(slot_of_key(copy, bytes), model_slot_of_key(key, bytes));
    assert_int_equal(slot_of_partition(copy, bytes), model_slot_of_partition(key, bytes));
    free(copy);
}

static void a_dot_or_brace_counts_at_every_place(void **unused)
{
    (void)unused;
    uint8_t key[40];
    for (size_t bytes = 1; bytes <= sizeof key; bytes++) {
        for (size_t first = 0; first < bytes; first++) {
            for (size_t second = 0; second < bytes; second++) {
                memset(key, 'k', sizeof key);
                key[first] = '{';
                key[second] = '}';
                check_key(key, bytes);
                key[first] = '.';
                check_key(key, bytes);
                key[second] = '{';
                check_key(key, bytes);
            }
        }
    }
}

static void random_keys_equal_the_model(void **unused)
{
    (void)unused;
    /* The neighbours of '.' and '{' would show a carry from one byte of a word to the next. */
    static const uint8_t alphabet[] = "abc0189-./z{|}~\x80\xae\xfb\xff";
    struct rng rng;
    rng_init(&rng, 2);
    for (int i = 0; i < 200000; i++) {
        uint8_t key[48];
        size_t bytes = rng_below(&rng, i % 2 == 0 ? 17 : sizeof key + 1);
        for (size_t at = 0; at < bytes; at++) {
            uint64_t pick = rng_below(&rng, 2 * sizeof alphabet);
            key[at] = pick < sizeof alphabet ? alphabet[pick] : (uint8_t)rng_next(&rng);
        }
        check_key(key, bytes);
    }
}

static void numbered_keys_spread_over_all_slots(void **unused)
{
    (void)unused;
    static uint8_t seen[SLOTS_COUNT];
    unsigned count = 0;
    for (unsigned i = 0; i < 100000; i++) {
        uint8_t key[8];
        unsigned rest = i;
        for (size_t at = sizeof key; at-- > 0; rest /= 10) key[at] = (uint8_t)('0' + rest % 10);
        uint16_t slot = slot_of_key(key, sizeof key);
        assert_true(slot < SLOTS_COUNT);
        count += seen[slot] == 0;
        seen[slot] = 1;
    }
    assert_int_equal(count, SLOTS_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc16_is_xmodem),
        cmocka_unit_test(crc16_equals_the_model_at_every_length),
        cmocka_unit_test(slots_are_a_quarter_of_redis_slots),
        cmocka_unit_test(only_tag_and_partition_are_hashed),
        cmocka_unit_test(a_partition_may_have_dots),
        cmocka_unit_test(a_dot_or_brace_counts_at_every_place),
        cmocka_unit_test(random_keys_equal_the_model),
        cmocka_unit_test(numbered_keys_spread_over_all_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
