#include "wire/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"

#define KINDS_COUNT (EXT_VIEW + 1)

/* The head of an item, as a word. */
#define ITEM(kind, words, argument)                                                                \
    ((uint64_t)(kind) | (uint64_t)(words) << 8 | (uint64_t)(argument) << 32)
#define LAST(kind) ((kind) | (unsigned)EXT_LAST)

/* Decodes a copy in a block of its own size, so that a sanitizer sees a read past its end. */
static int64_t decode(struct extensions *extensions, const void *data, size_t size)
{
    static uint8_t *copy;
    free(copy); /* `extensions->verb` points into it until the next call */
    copy = malloc(size > 0 ? size : 1);
    assert_non_null(copy);
    memcpy(copy, data, size);
    return extensions_decode(extensions, copy, size);
}

static void assert_extensions_equal(const struct extensions *a, const struct extensions *b)
{
    assert_int_equal(a->present, b->present);
    assert_int_equal(a->deadline_ms, b->deadline_ms);
    assert_int_equal(a->ttl_ms, b->ttl_ms);
    assert_int_equal(a->commit, b->commit);
    assert_int_equal(a->hops, b->hops);
    assert_int_equal(a->partition_bytes, b->partition_bytes);
    assert_int_equal(a->hop_view, b->hop_view);
    assert_int_equal(a->if_offset, b->if_offset);
    assert_int_equal(a->session, b->session);
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(a->floor, b->floor);
    assert_int_equal(a->offset, b->offset);
    assert_int_equal(a->view, b->view);
    assert_true(bytes_equal(a->verb, b->verb));
}

/* -------------------------------------------------------------------------------- headers */

static void request_header_has_the_documented_bytes(void **unused)
{
    (void)unused;
    struct frame_request request = {.length = 0x04030201,
                                    .type = 0x05,
                                    .flags = 0x06,
                                    .key_len = 0x0807,
                                    .cache = 0x0a09,
                                    .slot = 0x0c0b,
                                    .seq = 0x100f0e0d,
                                    .key_hash = 0x1817161514131211};
    uint8_t bytes[sizeof request];
    memcpy(bytes, &request, sizeof request);
    for (size_t i = 0; i < sizeof bytes; i++) assert_int_equal(bytes[i], i + 1);
}

static void reply_header_has_the_documented_bytes(void **unused)
{
    (void)unused;
    struct frame_reply reply = {.length = 0x04030201,
                                .type = 0x05,
                                .flags = 0x06,
                                .code = 0x0807,
                                .seq = 0x0c0b0a09,
                                .offset = 0x100f0e0d};
    uint8_t bytes[sizeof reply];
    memcpy(bytes, &reply, sizeof reply);
    for (size_t i = 0; i < sizeof bytes; i++) assert_int_equal(bytes[i], i + 1);
}

static void reply_code_keeps_outcome_and_error(void **unused)
{
    (void)unused;
    assert_int_equal(reply_code(OUTCOME_OK, ERROR_NONE), 0);
    assert_int_equal(reply_code(OUTCOME_FAIL, ERROR_CONFLICT), 0x4009);
    assert_int_equal(reply_code(OUTCOME_UNKNOWN, ERROR_TIMEOUT), 0x8004);
    for (unsigned code = 0; code <= UINT16_MAX; code++)
        assert_int_equal(reply_outcome((uint16_t)code), code >> 14);
}

/* --------------------------------------------------------------------------------- values */

static void values_must_have_the_bytes_of_their_type(void **unused)
{
    (void)unused;
    static const int bytes_of_type[] = {0, -1, 8, -1, 1, 0, -1, 8};
    _Static_assert(ARRAY_COUNT(bytes_of_type) == VALUE_TYPES_COUNT, "one a type");
    static const uint8_t zeros[16];
    for (unsigned type = 0; type < VALUE_TYPES_COUNT; type++) {
        int bytes = bytes_of_type[type];
        assert_int_equal(value_type_bytes(type), bytes);
        for (size_t size = 0; size <= sizeof zeros; size++)
            assert_int_equal(value_is_valid(type, zeros, size), bytes < 0 || size == (size_t)bytes);
    }
    for (unsigned type = VALUE_TYPES_COUNT; type <= FRAME_VALUE_TYPE; type++)
        for (size_t size = 0; size <= sizeof zeros; size++)
            assert_false(value_is_valid(type, zeros, size));
}

static void booleans_are_0_or_1(void **unused)
{
    (void)unused;
    for (unsigned value = 0; value <= UINT8_MAX; value++) {
        uint8_t byte = (uint8_t)value;
        assert_int_equal(value_is_valid(VALUE_BOOL, &byte, 1), value <= 1);
    }
}

/* ------------------------------------------------------------------------ extension blocks */

#define WORDS_MAX 4

struct block {
    size_t words;
    uint64_t word[WORDS_MAX];
};

static void each_kind_is_decoded(void **unused)
{
    (void)unused;
    static const struct {
        struct block block;
        struct extensions says;
    } cases[] = {
        {{1, {ITEM(LAST(EXT_TTL_MS), 0, 7)}}, {.ttl_ms = 7}},
        {{2, {ITEM(LAST(EXT_IF_OFFSET), 1, 0), 7}}, {.if_offset = 7}},
        {{1, {ITEM(LAST(EXT_COMMIT), 0, 7)}}, {.commit = 7}},
        {{1, {ITEM(LAST(EXT_DEADLINE_MS), 0, 7)}}, {.deadline_ms = 7}},
        {{2, {ITEM(LAST(EXT_HOP), 1, 7), 8}}, {.hops = 7, .hop_view = 8}},
        {{1, {ITEM(LAST(EXT_PARTITION), 0, 7)}}, {.partition_bytes = 7}},
        {{2, {ITEM(LAST(EXT_VERB), 1, 3), 0x6f6f66}}, {.verb = {"foo", 3}}},
        {{3, {ITEM(LAST(EXT_SESSION), 2, 0), 7, 8}}, {.session = 7, .seq = 8}},
        {{2, {ITEM(LAST(EXT_FLOOR), 1, 0), 7}}, {.floor = 7}},
        {{2, {ITEM(LAST(EXT_OFFSET), 1, 0), UINT64_MAX}}, {.offset = UINT64_MAX}},
        {{2, {ITEM(LAST(EXT_VIEW), 1, 0), 7}}, {.view = 7}},
    };
    _Static_assert(ARRAY_COUNT(cases) == EXT_VIEW, "one a kind");
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        struct extensions expected = cases[i].says;
        struct extensions extensions;
        const struct block *block = &cases[i].block;
        expected.present = 2u << i;
        assert_int_equal(decode(&extensions, block->word, block->words * 8), block->words * 8);
        assert_extensions_equal(&extensions, &expected);
        uint64_t again[EXTENSIONS_BYTES_MAX / 8];
        assert_int_equal(extensions_encode(&extensions, again), block->words * 8);
        assert_memory_equal(again, block->word, block->words * 8);
    }
}

static void good_blocks_are_measured(void **unused)
{
    (void)unused;
    static const struct {
        struct block block;
        int64_t bytes;
        uint32_t present;
    } cases[] = {
        /* Two items, in either order. */
        {{2, {ITEM(EXT_TTL_MS, 0, 1), ITEM(LAST(EXT_COMMIT), 0, 2)}}, 16, 1u << 1 | 1u << 3},
        {{2, {ITEM(EXT_COMMIT, 0, 1), ITEM(LAST(EXT_TTL_MS), 0, 2)}}, 16, 1u << 1 | 1u << 3},
        /* What stands behind the last item belongs to the key. */
        {{4, {ITEM(LAST(EXT_TTL_MS), 0, 1), 2, 3, 4}}, 8, 1u << 1},
        /* Optional kinds are skipped with their words, also twice, first and last. */
        {{1, {ITEM(LAST(EXT_OPTIONAL), 0, 9)}}, 8, 0},
        {{3, {ITEM(LAST(127), 2, 9), 1, 2}}, 24, 0},
        {{4, {ITEM(64, 1, 0), 1, ITEM(64, 0, 0), ITEM(LAST(EXT_TTL_MS), 0, 1)}}, 32, 1u << 1},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct extensions extensions;
        const struct block *block = &cases[i].block;
        assert_int_equal(decode(&extensions, block->word, block->words * 8), cases[i].bytes);
        assert_int_equal(extensions.present, cases[i].present);
    }
}

static void bad_blocks_are_refused(void **unused)
{
    (void)unused;
    static const struct block cases[] = {
        {0, {0}},
        /* The last item is not marked. */
        {1, {ITEM(EXT_TTL_MS, 0, 1)}},
        {2, {ITEM(EXT_TTL_MS, 0, 1), ITEM(EXT_COMMIT, 0, 1)}},
        {1, {ITEM(EXT_OPTIONAL, 0, 1)}},
        /* An item over the end. */
        {1, {ITEM(LAST(EXT_IF_OFFSET), 1, 0)}},
        {2, {ITEM(LAST(EXT_SESSION), 2, 0), 1}},
        {1, {ITEM(LAST(EXT_VERB), 1, 3)}},
        {4, {ITEM(LAST(EXT_OPTIONAL), 4, 0), 1, 2, 3}},
        {4, {ITEM(LAST(EXT_OPTIONAL), 255, 0), 1, 2, 3}},
        /* A reserved bit. */
        {1, {ITEM(LAST(EXT_TTL_MS), 0, 1) | 1u << 16}},
        {1, {ITEM(LAST(EXT_TTL_MS), 0, 1) | 1u << 31}},
        {1, {ITEM(LAST(EXT_OPTIONAL), 0, 1) | 1u << 16}},
        /* A kind twice. */
        {2, {ITEM(EXT_TTL_MS, 0, 1), ITEM(LAST(EXT_TTL_MS), 0, 1)}},
        {4, {ITEM(EXT_FLOOR, 1, 0), 1, ITEM(LAST(EXT_FLOOR), 1, 0), 1}},
        /* A verb without a name, with too long a one, with too few or too many words. */
        {1, {ITEM(LAST(EXT_VERB), 0, 0)}},
        {2, {ITEM(LAST(EXT_VERB), 1, 0)}},
        {2, {ITEM(LAST(EXT_VERB), 1, 256)}},
        {2, {ITEM(LAST(EXT_VERB), 0, 3), 0x6f6f66}},
        {3, {ITEM(LAST(EXT_VERB), 2, 8), 1, 2}},
        {2, {ITEM(LAST(EXT_VERB), 1, 9), 1}},
        {2, {ITEM(LAST(EXT_VERB), 1, UINT32_MAX), 1}},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct extensions extensions;
        assert_int_equal(decode(&extensions, cases[i].word, cases[i].words * 8), -EPROTO);
    }
}

static void unknown_kinds_are_refused_below_64_only(void **unused)
{
    (void)unused;
    for (unsigned kind = 0; kind < EXT_LAST; kind++) {
        struct extensions extensions;
        uint64_t word = ITEM(LAST(kind), 0, 1);
        if (kind > 0 && kind < KINDS_COUNT) continue;
        assert_int_equal(decode(&extensions, &word, 8), kind < EXT_OPTIONAL ? -EPROTO : 8);
    }
}

static void known_kinds_have_one_size(void **unused)
{
    (void)unused;
    static const unsigned words_of_kind[KINDS_COUNT] = {0, 0, 1, 0, 0, 1, 0, 0, 2, 1, 1, 1};
    for (unsigned kind = EXT_TTL_MS; kind < KINDS_COUNT; kind++) {
        if (kind == EXT_VERB) continue;
        for (unsigned words = 0; words <= UINT8_MAX; words++) {
            struct extensions extensions;
            static uint64_t block[1 + UINT8_MAX];
            block[0] = ITEM(LAST(kind), words, 1);
            assert_int_equal(decode(&extensions, block, sizeof block),
                             words == words_of_kind[kind] ? (int)(8 + words * 8) : -EPROTO);
        }
    }
}

/* Extensions of which each is there with probability one half. */
static void make_random(struct extensions *extensions, struct rng *rng)
{
    static uint8_t name[FRAME_NAME_BYTES_MAX];
    for (size_t i = 0; i < sizeof name; i++) name[i] = (uint8_t)rng_next(rng);
    *extensions = (struct extensions){.present = (uint32_t)rng_below(rng, 1u << EXT_VIEW) << 1};
    uint32_t present = extensions->present;
#define FILL(kind, field, value)                                                                   \
    if ((present & 1u << (kind)) != 0) extensions->field = value
    FILL(EXT_TTL_MS, ttl_ms, (uint32_t)rng_next(rng));
    FILL(EXT_IF_OFFSET, if_offset, rng_next(rng));
    FILL(EXT_COMMIT, commit, (uint32_t)rng_next(rng));
    FILL(EXT_DEADLINE_MS, deadline_ms, (uint32_t)rng_next(rng));
    FILL(EXT_HOP, hops, (uint32_t)rng_next(rng));
    FILL(EXT_HOP, hop_view, rng_next(rng));
    FILL(EXT_PARTITION, partition_bytes, (uint32_t)rng_next(rng));
    FILL(EXT_VERB, verb, ((struct bytes){name, 1 + rng_below(rng, sizeof name)}));
    FILL(EXT_SESSION, session, rng_next(rng));
    FILL(EXT_SESSION, seq, rng_next(rng));
    FILL(EXT_FLOOR, floor, rng_next(rng));
    FILL(EXT_OFFSET, offset, rng_next(rng));
    FILL(EXT_VIEW, view, rng_next(rng));
#undef FILL
}

static void what_is_encoded_is_decoded(void **unused)
{
    (void)unused;
    struct rng rng;
    rng_init(&rng, 1);
    for (int i = 0; i < 20000; i++) {
        struct extensions before;
        struct extensions after;
        uint8_t block[EXTENSIONS_BYTES_MAX];
        uint8_t again[EXTENSIONS_BYTES_MAX];
        make_random(&before, &rng);
        size_t bytes = extensions_encode(&before, block);
        if (before.present == 0) {
            assert_int_equal(bytes, 0);
            continue;
        }
        assert_int_equal(bytes % 8, 0);
        assert_int_equal(decode(&after, block, bytes), bytes);
        assert_extensions_equal(&after, &before);
        assert_int_equal(extensions_encode(&after, again), bytes);
        assert_memory_equal(again, block, bytes);
    }
}

static void all_extensions_with_the_longest_name_fit(void **unused)
{
    (void)unused;
    char name[FRAME_NAME_BYTES_MAX];
    memset(name, 'n', sizeof name);
    struct extensions extensions = {.present = (1u << KINDS_COUNT) - 2,
                                    .verb = {name, sizeof name}};
    uint8_t block[EXTENSIONS_BYTES_MAX + 8];
    memset(block, 0xee, sizeof block);
    size_t bytes = extensions_encode(&extensions, block);
    assert_true(bytes <= EXTENSIONS_BYTES_MAX);
    for (size_t i = bytes; i < sizeof block; i++) assert_int_equal(block[i], 0xee);
}

static void every_cut_of_a_block_is_refused(void **unused)
{
    (void)unused;
    struct rng rng;
    rng_init(&rng, 2);
    for (int i = 0; i < 200; i++) {
        struct extensions extensions;
        uint8_t block[EXTENSIONS_BYTES_MAX];
        make_random(&extensions, &rng);
        size_t bytes = extensions_encode(&extensions, block);
        for (size_t cut = 0; cut < bytes; cut++)
            assert_int_equal(decode(&extensions, block, cut), -EPROTO);
    }
}

static void every_flipped_bit_is_refused_or_decoded(void **unused)
{
    (void)unused;
    struct rng rng;
    rng_init(&rng, 3);
    for (int i = 0; i < 50; i++) {
        struct extensions extensions;
        uint8_t block[EXTENSIONS_BYTES_MAX];
        make_random(&extensions, &rng);
        size_t bytes = extensions_encode(&extensions, block);
        for (size_t bit = 0; bit < bytes * 8; bit++) {
            block[bit / 8] ^= (uint8_t)(1u << bit % 8);
            int64_t decoded = decode(&extensions, block, bytes);
            assert_true(decoded == -EPROTO || (decoded > 0 && (size_t)decoded <= bytes));
            block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_header_has_the_documented_bytes),
        cmocka_unit_test(reply_header_has_the_documented_bytes),
        cmocka_unit_test(reply_code_keeps_outcome_and_error),
        cmocka_unit_test(values_must_have_the_bytes_of_their_type),
        cmocka_unit_test(booleans_are_0_or_1),
        cmocka_unit_test(each_kind_is_decoded),
        cmocka_unit_test(good_blocks_are_measured),
        cmocka_unit_test(bad_blocks_are_refused),
        cmocka_unit_test(unknown_kinds_are_refused_below_64_only),
        cmocka_unit_test(known_kinds_have_one_size),
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(all_extensions_with_the_longest_name_fit),
        cmocka_unit_test(every_cut_of_a_block_is_refused),
        cmocka_unit_test(every_flipped_bit_is_refused_or_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
