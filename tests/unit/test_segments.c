#include "log/segments.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/rng.h"
#include "log/batch.h"

#define UNIT SEGMENT_UNIT_BYTES
/* As much as one segment of `units` holds behind its batch head. */
#define ROOM(units) ((units)*UNIT - BATCH_BYTES)

static struct segments segments_of(size_t bytes_max)
{
    struct segments segments;
    assert_int_equal(segments_init(&segments, bytes_max), 0);
    return segments;
}

static void memory_max_bounds_what_is_taken(void **state)
{
    (void)state;
    static const size_t maxima[] = {0, 1, 20 * MIB, 64 * MIB};
    for (size_t i = 0; i < ARRAY_COUNT(maxima); i++) {
        struct segments segments = segments_of(maxima[i]);
        uint32_t taken = 0;
        while (segments_take(&segments, 1, segments.units_reserve) != SEGMENT_NONE) taken++;
        assert_int_equal(taken, segments.units_max - segments.units_reserve);
        /* The smallest log is still one that can compact itself. */
        assert_true(taken >= 4);
        if (maxima[i] >= 20 * MIB) assert_true(segments_bytes(&segments) <= maxima[i]);
        while (segments_take(&segments, 1, 0) != SEGMENT_NONE) taken++;
        assert_int_equal(taken, segments.units_max);
        assert_int_equal(segments.units_used, taken);
        if (maxima[i] >= 20 * MIB) assert_true(segments_bytes(&segments) <= maxima[i]);
        for (uint32_t number = 0; number < taken; number++) segments_put(&segments, number);
        assert_int_equal(segments_bytes(&segments), 0);
        segments_deinit(&segments);
    }
}

static void segment_has_as_many_units_as_its_record_needs(void **state)
{
    (void)state;
    static const struct {
        size_t record_bytes;
        uint32_t units;
    } cases[] = {{1, 1},       {ROOM(1), 1},     {ROOM(1) + 1, 2}, {UNIT, 2},
                 {ROOM(2), 2}, {ROOM(2) + 1, 3}, {ROOM(8), 8},     {ROOM(8) + 1, 9}};
    struct segments segments = segments_of(64 * MIB);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint32_t number = segments_take(&segments, cases[i].record_bytes, 0);
        assert_int_not_equal(number, SEGMENT_NONE);
        assert_int_equal(segments.segments[number].units, cases[i].units);
        assert_int_equal(segments.units_used, cases[i].units);
        segments_put(&segments, number);
        assert_int_equal(segments.units_used, 0);
    }
    segments_deinit(&segments);
}

static void only_neighbours_become_a_segment_of_several_units(void **state)
{
    (void)state;
    struct segments segments = segments_of(0);
    uint32_t taken = 0;
    while (segments_take(&segments, 1, 0) == taken) taken++;
    segments_put(&segments, 1);
    segments_put(&segments, 3);
    segments_put(&segments, 6);
    assert_int_equal(segments_take(&segments, ROOM(2), 0), SEGMENT_NONE);
    segments_put(&segments, 5);
    assert_int_equal(segments_take(&segments, ROOM(2), 0), 5);
    assert_int_equal(segments_take(&segments, ROOM(2), 0), SEGMENT_NONE);
    /* Those that remain are still there, each once. */
    uint32_t first = segments_take(&segments, 1, 0);
    uint32_t second = segments_take(&segments, 1, 0);
    assert_int_equal(first + second, 1 + 3);
    assert_int_equal(segments_take(&segments, 1, 0), SEGMENT_NONE);
    segments_deinit(&segments);
}

static void taken_again_a_segment_knows_no_slot(void **state)
{
    (void)state;
    struct segments segments = segments_of(0);
    uint32_t number = segments_take(&segments, 1, 0);
    uint32_t *heads = segments.slot_heads + (size_t)number * SEGMENT_SLOTS;
    for (uint32_t slot = 0; slot < SEGMENT_SLOTS; slot++) heads[slot] = slot + 1;
    segments.segments[number].dead_bytes = 5;
    segments_put(&segments, number);
    assert_int_equal(segments_take(&segments, 1, 0), number);
    for (uint32_t slot = 0; slot < SEGMENT_SLOTS; slot++) assert_int_equal(heads[slot], 0);
    assert_int_equal(segments.segments[number].dead_bytes, 0);
    segments_deinit(&segments);
}

static void memory_of_a_large_segment_goes_back(void **state)
{
    (void)state;
    struct segments segments = segments_of(0);
    uint32_t number = segments_take(&segments, ROOM(3), 0);
    uint8_t *base = segments.base + (size_t)number * UNIT;
    memset(base, 1, 3 * UNIT);
    segments_put(&segments, number);
    for (size_t at = 0; at < 3 * UNIT; at += 4096) assert_int_equal(base[at], 0);
    segments_deinit(&segments);
}

/* ---------------------------------------------------------------------------- against a model */

#define UNITS_MAX 64

static bool model_has_run(const bool *used, uint32_t count, uint32_t units)
{
    uint32_t run = 0;
    for (uint32_t i = 0; i < count; i++) {
        run = used[i] ? 0 : run + 1;
        if (run == units) return true;
    }
    return false;
}

static void model_mark(bool *used, uint32_t number, uint32_t units, bool value)
{
    for (uint32_t i = number; i < number + units; i++) {
        assert_int_equal(used[i], !value);
        used[i] = value;
    }
}

static void segments_never_overlap_and_are_found_if_they_fit(void **state)
{
    (void)state;
    struct segments segments = segments_of(UNITS_MAX * 2 * MIB);
    bool used[UNITS_MAX] = {false};
    uint32_t held[UNITS_MAX];
    uint32_t held_count = 0;
    struct rng rng;
    rng_init(&rng, 8);
    assert_true(segments.units_max <= UNITS_MAX);
    for (unsigned step = 0; step < 20000; step++) {
        if (held_count > 0 && rng_below(&rng, 2) == 0) {
            uint32_t at = (uint32_t)rng_below(&rng, held_count);
            model_mark(used, held[at], segments.segments[held[at]].units, false);
            segments_put(&segments, held[at]);
            held[at] = held[--held_count];
            continue;
        }
        uint32_t units = rng_below(&rng, 3) == 0 ? 1 + (uint32_t)rng_below(&rng, 6) : 1;
        uint32_t number = segments_take(&segments, ROOM(units), 0);
        if (number == SEGMENT_NONE) {
            /* Units that were never used do not count as neighbours of those that were. */
            assert_false(model_has_run(used, segments.units_fresh, units));
            assert_true(segments.units_max - segments.units_fresh < units);
            continue;
        }
        model_mark(used, number, units, true);
        held[held_count++] = number;
    }
    segments_deinit(&segments);
}

static void init_survives_a_lack_of_memory(void **state)
{
    (void)state;
    struct segments segments;
    for (uint64_t n = 1; n <= 4; n++) {
        memory_fail_after(n);
        assert_int_equal(segments_init(&segments, MIB), -ENOMEM);
        memory_fail_after(0);
        assert_null(segments.base);
    }
}

/* ---------------------------------------------------------------------------- index words */

static void marks_leave_links_alone_and_count_dead_bytes(void **state)
{
    (void)state;
    struct segments segments = segments_of(0);
    uint32_t number = segments_take(&segments, 1, 0);
    uint64_t address = (uint64_t)number * UNIT + UNIT - 64;
    uint32_t *word = index_word(&segments, address);
    static const uint32_t links[] = {0, 8, INDEX_LINK - 7, INDEX_LINK};
    static const uint32_t seqs[] = {0, 1, INDEX_BY_MASK, INDEX_BY_MASK + 1, UINT32_MAX};
    for (size_t i = 0; i < ARRAY_COUNT(links) * ARRAY_COUNT(seqs); i++) {
        uint32_t seq = seqs[i % ARRAY_COUNT(seqs)];
        *word = links[i / ARRAY_COUNT(seqs)];
        index_supersede(&segments, address, 96, index_mark(seq));
        assert_true(index_is_superseded(*word));
        assert_int_equal(*word & INDEX_LINK, links[i / ARRAY_COUNT(seqs)]);
        assert_int_equal((*word & ~INDEX_SUPERSEDED) >> INDEX_BY_SHIFT, seq & INDEX_BY_MASK);
        assert_int_equal(segments.segments[number].dead_bytes, 96);
        index_revive(&segments, address, 96);
        assert_int_equal(*word, links[i / ARRAY_COUNT(seqs)]);
        assert_int_equal(segments.segments[number].dead_bytes, 0);
    }
    segments_deinit(&segments);
}

static void unlinked_record_keeps_its_mark(void **state)
{
    (void)state;
    uint64_t address = 5 * UNIT + 4096 + 64;
    uint32_t word = index_mark(77) | 8;
    assert_false(index_is_unlinked(address, word));
    index_unlink(&word, address);
    assert_true(index_is_unlinked(address, word));
    assert_int_equal(word & ~INDEX_LINK, index_mark(77));
    assert_false(index_is_unlinked(address + 64, word));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_max_bounds_what_is_taken),
        cmocka_unit_test(segment_has_as_many_units_as_its_record_needs),
        cmocka_unit_test(only_neighbours_become_a_segment_of_several_units),
        cmocka_unit_test(taken_again_a_segment_knows_no_slot),
        cmocka_unit_test(memory_of_a_large_segment_goes_back),
        cmocka_unit_test(segments_never_overlap_and_are_found_if_they_fit),
        cmocka_unit_test(init_survives_a_lack_of_memory),
        cmocka_unit_test(marks_leave_links_alone_and_count_dead_bytes),
        cmocka_unit_test(unlinked_record_keeps_its_mark),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
