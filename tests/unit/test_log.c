#include "log/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record_over_a_unit_is_followed_by_the_next_segment),
        cmocka_unit_test(every_record_begins_in_the_first_unit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
