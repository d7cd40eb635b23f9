#include "log/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/rng.h"

#define MEMORY_BYTES (40 * MIB)
#define RECORD_MIN 64
/* The largest record that fills a segment of one unit. */
#define RECORD_OF_A_UNIT (SEGMENT_UNIT_BYTES - BATCH_BYTES - LOG_SLACK_BYTES)

struct fixture {
    struct segments segments;
    struct log log;
    uint64_t places[SEGMENT_SLOTS];
};

static void open_log(struct fixture *fixture, size_t history_bytes, uint64_t history_records)
{
    memset(fixture, 0, sizeof *fixture);
    assert_int_equal(segments_init(&fixture->segments, MEMORY_BYTES), 0);
    struct log_options options = {.history_bytes_max = history_bytes,
                                  .history_records_max = history_records,
                                  .owner = 11,
                                  .view = 12};
    log_init(&fixture->log, &fixture->segments, &options);
}

static void close_log(struct fixture *fixture)
{
    log_deinit(&fixture->log);
    assert_int_equal(fixture->segments.units_used, 0);
    segments_deinit(&fixture->segments);
}

/* Writes a record of an empty value at `change`, as long as was asked for. */
static uint64_t commit(struct fixture *fixture, struct change *change, uint16_t slot,
                       size_t padded_bytes)
{
    *change = (struct change){.length = (uint32_t)padded_bytes,
                              .type = FRAME_UPDATE,
                              .key_len = 8,
                              .slot = slot,
                              .place_and_seq = ++fixture->places[slot]};
    return log_commit(&fixture->log, slot, padded_bytes);
}

static uint64_t append(struct fixture *fixture, uint16_t slot, size_t padded_bytes)
{
    struct change *change = log_reserve(&fixture->log, padded_bytes, false);
    assert_non_null(change);
    return commit(fixture, change, slot, padded_bytes);
}

static uint32_t segment_number(uint64_t address)
{
    return (uint32_t)(address >> SEGMENT_UNIT_SHIFT);
}

/* Whether a walk finds all changes of the slot, newest first. */
static bool walk_is_whole(const struct fixture *fixture, uint16_t slot)
{
    struct slot_walk walk;
    const struct change *change;
    uint64_t place = fixture->places[slot];
    slot_walk_begin(&walk, &fixture->log, slot);
    while ((change = slot_walk_next(&walk)) != NULL) {
        if (change->slot != slot || change_place(change) != place--) return false;
    }
    return place == 0;
}

static void record_over_a_unit_is_followed_by_the_next_segment(void **state)
{
    (void)state;
    struct fixture fixture;
    open_log(&fixture, GIB, 0);
    uint64_t before = append(&fixture, 1, RECORD_MIN);
    uint64_t large = append(&fixture, 1, 3 * MIB);
    uint64_t after = append(&fixture, 1, RECORD_MIN);
    assert_int_not_equal(segment_number(large), segment_number(before));
    assert_int_equal(segment_of(&fixture.segments, large)->units, 2);
    assert_int_not_equal(segment_of(&fixture.segments, after)->units, 0);
    assert_true(segment_number(after) > segment_number(large) + 1);
    assert_true(walk_is_whole(&fixture, 1));
    log_seal(&fixture.log);
    log_check(&fixture.log);
    close_log(&fixture);
}

/* The index has words for the first unit of a segment only. */
static void every_record_begins_in_the_first_unit(void **state)
{
    (void)state;
    for (size_t size = RECORD_OF_A_UNIT - 256; size <= SEGMENT_UNIT_BYTES + 256; size += 8) {
        struct fixture fixture;
        open_log(&fixture, GIB, 0);
        append(&fixture, 3, size);
        for (int i = 0; i < 5; i++) {
            uint64_t address = append(&fixture, 3, RECORD_MIN);
            assert_int_not_equal(segment_of(&fixture.segments, address)->units, 0);
        }
        assert_true(walk_is_whole(&fixture, 3));
        close_log(&fixture);
    }
}

/* ---------------------------------------------------------------------------- appending */

static void empty_log_has_nothing(void **state)
{
    (void)state;
    struct fixture fixture;
    struct slot_walk walk;
    open_log(&fixture, MIB, 0);
    slot_walk_begin(&walk, &fixture.log, SEGMENT_SLOTS - 1);
    assert_null(slot_walk_next(&walk));
    log_seal(&fixture.log);
    assert_int_equal(log_bytes(&fixture.log), 0);
    assert_int_equal(log_live_bytes(&fixture.log), 0);
    log_check(&fixture.log);
    close_log(&fixture);
}

static void slots_are_read_apart_over_many_segments(void **state)
{
    (void)state;
    static const uint16_t slots[] = {0, 1, 777, SEGMENT_SLOTS - 1};
    struct fixture fixture;
    struct rng rng;
    open_log(&fixture, GIB, 0);
    rng_init(&rng, 2);
    for (unsigned i = 0; i < 20000; i++) {
        append(&fixture, slots[rng_below(&rng, 4)], RECORD_MIN + 8 * rng_below(&rng, 200));
        if (rng_below(&rng, 50) == 0) log_seal(&fixture.log);
    }
    assert_true(fixture.segments.units_used > 5);
    for (size_t i = 0; i < ARRAY_COUNT(slots); i++) assert_true(walk_is_whole(&fixture, slots[i]));
    log_seal(&fixture.log);
    log_check(&fixture.log);
    close_log(&fixture);
}

/* A record may be copied in steps that go over its end, also the last one of a segment. */
static void records_end_before_the_slack_of_their_segment(void **state)
{
    (void)state;
    for (size_t last = RECORD_MIN; last <= 1024; last += 8) {
        struct fixture fixture;
        open_log(&fixture, GIB, 0);
        append(&fixture, 0, RECORD_OF_A_UNIT - 512);
        for (int i = 0; i < 2; i++) {
            uint64_t address = append(&fixture, 0, last);
            uint64_t end = (address & (SEGMENT_UNIT_BYTES - 1)) + last;
            assert_true(end + LOG_SLACK_BYTES <= SEGMENT_UNIT_BYTES);
            /* It starts another segment only if it has to. */
            size_t used = (size_t)(i + 1) * last;
            assert_int_equal(segment_number(address) == 0, used <= 512);
            if (used > 512) break;
        }
        close_log(&fixture);
    }
}

static void room_that_is_not_used_is_given_back(void **state)
{
    (void)state;
    struct fixture fixture;
    open_log(&fixture, GIB, 0);
    append(&fixture, 1, RECORD_MIN);
    log_seal(&fixture.log);
    assert_non_null(log_reserve(&fixture.log, RECORD_MIN, false));
    assert_non_null(log_reserve(&fixture.log, RECORD_OF_A_UNIT, false));
    assert_int_equal(segment_number(append(&fixture, 1, RECORD_MIN)), 1);
    log_seal(&fixture.log);
    const struct segment *first = &fixture.segments.segments[0];
    assert_int_equal(first->bytes, BATCH_BYTES + RECORD_MIN);
    assert_int_equal(first->changes_count, 1);
    assert_int_equal(fixture.log.stream_next, 3);
    log_check(&fixture.log);
    close_log(&fixture);
}

static void sealed_batches_are_one_stream(void **state)
{
    (void)state;
    struct fixture fixture;
    open_log(&fixture, GIB, 0);
    uint64_t first = append(&fixture, 1, RECORD_MIN);
    append(&fixture, 2, 80);
    log_seal(&fixture.log);
    log_seal(&fixture.log);
    uint64_t third = append(&fixture, 1, 72);
    log_seal(&fixture.log);
    const struct batch *one = (struct batch *)change_at(&fixture.segments, first) - 1;
    const struct batch *two = (struct batch *)change_at(&fixture.segments, third) - 1;
    assert_true(batch_is_valid(one, one->length));
    assert_true(batch_is_valid(two, two->length));
    assert_int_equal(one->count, 2);
    assert_int_equal(one->length, BATCH_BYTES + RECORD_MIN + 80);
    assert_int_equal(one->stream_first, 1);
    assert_int_equal(one->previous, 0);
    assert_int_equal(one->owner, 11);
    assert_int_equal(one->view, 12);
    assert_int_equal(two->stream_first, 3);
    assert_int_equal(two->previous, one->checksum);
    assert_int_equal(fixture.log.batches_count, 2);
    close_log(&fixture);
}

/* ---------------------------------------------------------------------------- memory.max */

static unsigned fill(struct fixture *fixture, bool urgent)
{
    unsigned count = 0;
    struct change *change;
    while ((change = log_reserve(&fixture->log, RECORD_OF_A_UNIT, urgent)) != NULL) {
        commit(fixture, change, 5, RECORD_OF_A_UNIT);
        count++;
    }
    return count;
}

static void full_log_refuses_and_stays_as_it_was(void **state)
{
    (void)state;
    struct fixture fixture;
    open_log(&fixture, GIB, 0);
    assert_int_equal(fill(&fixture, false),
                     fixture.segments.units_max - fixture.segments.units_reserve);
    log_seal(&fixture.log);
    struct log before = fixture.log;
    assert_null(log_reserve(&fixture.log, RECORD_MIN, false));
    before.refused++;
    assert_memory_equal(&before, &fixture.log, sizeof before);
    assert_true(walk_is_whole(&fixture, 5));
    /* What is urgent still finds room, for a while. */
    unsigned urgent = fill(&fixture, true);
    assert_int_equal(urgent, fixture.segments.units_reserve - SEGMENT_COMPACTION_UNITS);
    assert_null(log_reserve(&fixture.log, RECORD_MIN, true));
    /* The last units are compaction's. */
    uint32_t last = segments_take(&fixture.segments, RECORD_MIN, 0);
    assert_int_not_equal(last, SEGMENT_NONE);
    segments_put(&fixture.segments, last);
    log_seal(&fixture.log);
    log_check(&fixture.log);
    assert_true(walk_is_whole(&fixture, 5));
    close_log(&fixture);
}

static void small_record_fits_where_a_large_one_was_refused(void **state)
{
    (void)state;
    struct fixture fixture;
    open_log(&fixture, GIB, 0);
    append(&fixture, 5, RECORD_MIN);
    while (log_reserve(&fixture.log, RECORD_OF_A_UNIT - 4096, false) != NULL)
        append(&fixture, 5, RECORD_OF_A_UNIT - 4096);
    append(&fixture, 5, RECORD_MIN);
    assert_null(log_reserve(&fixture.log, RECORD_OF_A_UNIT, false));
    append(&fixture, 5, RECORD_MIN);
    log_seal(&fixture.log);
    assert_true(walk_is_whole(&fixture, 5));
    log_check(&fixture.log);
    close_log(&fixture);
}

/* ---------------------------------------------------------------------------- the history */

static uint32_t history_segments(const struct log *log)
{
    uint32_t count = 0;
    for (uint32_t number = log->history_first; number != log->active;
         number = log->segments->segments[number].next)
        count++;
    return count;
}

/* Counted in sealed segments; the one that is filled is history beside them. */
static void history_is_bounded_by_bytes_or_by_records(void **state)
{
    (void)state;
    static const struct {
        size_t bytes;
        uint64_t records;
        uint32_t segments;
    } cases[] = {
        {0, 0, 0},
        {1, 0, 1},
        {RECORD_OF_A_UNIT + BATCH_BYTES, 0, 1},
        {RECORD_OF_A_UNIT + BATCH_BYTES + 1, 0, 2},
        {GIB, 0, 9},
        {GIB, 1, 1},
        {GIB, 3, 3},
        {1, 3, 1},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct fixture fixture;
        open_log(&fixture, cases[i].bytes, cases[i].records);
        for (int n = 0; n < 10; n++) append(&fixture, 5, RECORD_OF_A_UNIT);
        log_seal(&fixture.log);
        assert_int_equal(history_segments(&fixture.log), cases[i].segments);
        log_check(&fixture.log);
        assert_true(walk_is_whole(&fixture, 5));
        close_log(&fixture);
    }
}

/* Each mark says in which segment the newer change is, in 13 bits of its number. */
static void marks_are_compared_over_the_end_of_their_numbers(void **state)
{
    (void)state;
    static const uint32_t firsts[] = {1,    2,    4095, 4096,  4097,      8190,
                                      8191, 8192, 8193, 20000, 0x7fffffff};
    struct fixture fixture;
    open_log(&fixture, GIB, 0);
    append(&fixture, 5, RECORD_MIN);
    for (size_t i = 0; i < ARRAY_COUNT(firsts); i++) {
        uint32_t first = firsts[i];
        fixture.segments.segments[fixture.log.history_first].seq = first;
        for (uint32_t back = 1; back < 4096; back++)
            assert_true(log_is_beyond_history(&fixture.log, index_mark(first - back)));
        for (uint32_t on = 0; on < LOG_HISTORY_SEGMENTS_MAX; on++)
            assert_false(log_is_beyond_history(&fixture.log, index_mark(first + on)));
    }
    close_log(&fixture);
}

/* However few bytes they have, as after many records that left half of a segment empty. */
static void a_history_has_no_more_segments_than_marks_can_tell_apart(void **state)
{
    (void)state;
    struct fixture fixture;
    open_log(&fixture, GIB, 0);
    for (unsigned i = 0; i < 3; i++) append(&fixture, 5, RECORD_OF_A_UNIT);
    log_seal(&fixture.log);
    assert_int_equal(history_segments(&fixture.log), 2);
    fixture.log.active_seq += LOG_HISTORY_SEGMENTS_MAX - 3;
    append(&fixture, 5, RECORD_OF_A_UNIT);
    assert_int_equal(history_segments(&fixture.log), 2);
    append(&fixture, 5, RECORD_OF_A_UNIT);
    append(&fixture, 5, RECORD_OF_A_UNIT);
    log_seal(&fixture.log);
    assert_int_equal(history_segments(&fixture.log), 2);
    close_log(&fixture);
}

/* ---------------------------------------------------------------------------- taking out */

static void newest_changes_come_out_one_by_one(void **state)
{
    (void)state;
    struct fixture fixture;
    uint64_t addresses[200];
    open_log(&fixture, GIB, 0);
    for (unsigned i = 0; i < 200; i++) {
        addresses[i] = append(&fixture, 7, 50000 - i % 7 * 8);
        append(&fixture, 8, RECORD_MIN);
    }
    for (unsigned i = 200; i-- > 100;) {
        assert_int_equal(log_unlink_newest(&fixture.log, 7), addresses[i]);
        fixture.places[7]--;
    }
    assert_true(walk_is_whole(&fixture, 7));
    assert_true(walk_is_whole(&fixture, 8));
    for (unsigned i = 0; i < 200; i++) append(&fixture, 7, RECORD_MIN);
    assert_true(walk_is_whole(&fixture, 7));
    assert_true(walk_is_whole(&fixture, 8));
    close_log(&fixture);
}

static void superseded_bytes_are_not_live(void **state)
{
    (void)state;
    struct fixture fixture;
    open_log(&fixture, GIB, 0);
    uint64_t old = append(&fixture, 7, 96);
    append(&fixture, 7, 104);
    log_seal(&fixture.log);
    assert_int_equal(log_live_bytes(&fixture.log), BATCH_BYTES + 96 + 104);
    index_supersede(&fixture.segments, old, 96, fixture.log.active_mark);
    assert_int_equal(log_live_bytes(&fixture.log), BATCH_BYTES + 104);
    assert_int_equal(log_bytes(&fixture.log), SEGMENT_UNIT_BYTES);
    close_log(&fixture);
}

static void compacted_segment_takes_the_place_of_its_source(void **state)
{
    (void)state;
    struct fixture fixture;
    open_log(&fixture, 1, 0);
    for (int i = 0; i < 4; i++) append(&fixture, 5, RECORD_OF_A_UNIT);
    log_seal(&fixture.log);
    /* 0 and 1 are compactable, 2 is the history, 3 is filled. */
    for (uint32_t source = 0; source <= 1; source++) {
        uint32_t target = segments_take(&fixture.segments, RECORD_MIN, 0);
        log_link_before(&fixture.log, target, source);
        log_check(&fixture.log);
        assert_int_equal(fixture.segments.segments[target].next, source);
        log_unlink(&fixture.log, source);
        log_check(&fixture.log);
        segments_put(&fixture.segments, source);
    }
    assert_int_equal(fixture.log.history_first, 2);
    close_log(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_log_has_nothing),
        cmocka_unit_test(slots_are_read_apart_over_many_segments),
        cmocka_unit_test(record_over_a_unit_is_followed_by_the_next_segment),
        cmocka_unit_test(every_record_begins_in_the_first_unit),
        cmocka_unit_test(records_end_before_the_slack_of_their_segment),
        cmocka_unit_test(room_that_is_not_used_is_given_back),
        cmocka_unit_test(sealed_batches_are_one_stream),
        cmocka_unit_test(full_log_refuses_and_stays_as_it_was),
        cmocka_unit_test(small_record_fits_where_a_large_one_was_refused),
        cmocka_unit_test(history_is_bounded_by_bytes_or_by_records),
        cmocka_unit_test(marks_are_compared_over_the_end_of_their_numbers),
        cmocka_unit_test(a_history_has_no_more_segments_than_marks_can_tell_apart),
        cmocka_unit_test(newest_changes_come_out_one_by_one),
        cmocka_unit_test(superseded_bytes_are_not_live),
        cmocka_unit_test(compacted_segment_takes_the_place_of_its_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
