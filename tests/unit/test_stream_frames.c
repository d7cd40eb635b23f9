/*
 * The frames of subscriptions: what is written is read again, and whatever is wrong with them is
 * refused by its name.
 */
#include "wire/stream.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log/change.h"

#define FRAME_MAX 256

typedef int (*decode_fn)(const void *data, size_t length, struct refusal *refusal);

static int decode_subscribe(const void *data, size_t length, struct refusal *refusal)
{
    struct frame_subscribe frame;
    struct bytes key;
    return subscribe_decode(&frame, &key, data, length, refusal);
}

static int decode_credit(const void *data, size_t length, struct refusal *refusal)
{
    struct frame_credit frame;
    return credit_decode(&frame, data, length, refusal);
}

static int decode_changes(const void *data, size_t length, struct refusal *refusal)
{
    struct frame_changes frame;
    struct bytes records;
    return changes_decode(&frame, &records, data, length, refusal);
}

static int decode_event(const void *data, size_t length, struct refusal *refusal)
{
    struct frame_event frame;
    return event_decode(&frame, data, length, refusal);
}

/* One good frame of each type. */
static size_t good_subscribe(uint8_t *to)
{
    struct frame_subscribe frame = {.prefix = {.flags = SUBSCRIBE_UNTIL_LIVE},
                                    .number = 7,
                                    .cache = 3,
                                    .from = STREAM_FROM_POSITION,
                                    .match = STREAM_MATCH_PATH,
                                    .at = 1000,
                                    .owner = 0xd0e,
                                    .credit_bytes = 4096,
                                    .credit_records = CREDIT_ALL,
                                    .shard = 1};
    assert_int_equal(subscribe_encode(&frame, bytes_of("28.email"), to), 64);
    return frame.prefix.length;
}

static size_t good_credit(uint8_t *to)
{
    struct frame_credit frame = {.number = 7, .credit_bytes = 1, .credit_records = 2};
    assert_int_equal(credit_encode(&frame, true, to), 32);
    return frame.prefix.length;
}

static size_t good_changes(uint8_t *to)
{
    struct frame_changes frame = {.number = 7, .position = 9};
    assert_int_equal(changes_encode(&frame, 1, 64, to), 24);
    memset(to + 24, 0, 64);
    return frame.prefix.length;
}

static size_t good_event(uint8_t *to)
{
    struct frame_event frame = {
        .number = 7, .event = STREAM_TRUNCATED, .slot = 5, .position = 9, .place = 8};
    assert_int_equal(event_encode(&frame, 0, to), 40);
    return frame.prefix.length;
}

static const struct {
    decode_fn decode;
    size_t (*make)(uint8_t *to);
} frames[] = {{decode_subscribe, good_subscribe},
              {decode_credit, good_credit},
              {decode_changes, good_changes},
              {decode_event, good_event}};

/* ---------------------------------------------------------------------------------- tests */

static void what_is_written_is_read_again(void **state)
{
    (void)state;
    uint8_t data[FRAME_MAX];
    struct refusal refusal;
    struct frame_subscribe subscribe;
    struct bytes key;
    size_t length = good_subscribe(data);
    assert_int_equal(subscribe_decode(&subscribe, &key, data, length, &refusal), 0);
    assert_int_equal(subscribe.number, 7);
    assert_int_equal(subscribe.at, 1000);
    assert_int_equal(subscribe.credit_records, UINT64_MAX);
    assert_int_equal(key.size, 8);
    assert_memory_equal(key.data, "28.email", 8);
    struct frame_event event;
    length = good_event(data);
    assert_int_equal(event_decode(&event, data, length, &refusal), 0);
    assert_int_equal(event.place, 8);
    struct frame_changes changes;
    struct bytes records;
    length = good_changes(data);
    assert_int_equal(changes_decode(&changes, &records, data, length, &refusal), 0);
    assert_int_equal(records.size, 64);
    assert_int_equal(changes.prefix.small, 1);
}

static void every_cut_of_a_frame_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(frames); i++) {
        uint8_t data[FRAME_MAX];
        size_t length = frames[i].make(data);
        struct refusal refusal = {0};
        assert_int_equal(frames[i].decode(data, length, &refusal), 0);
        for (size_t cut = 0; cut < length; cut++) {
            /* The prefix tells the truth about the cut, or does not. */
            assert_int_equal(frames[i].decode(data, cut, &refusal), -EPROTO);
            uint8_t copy[FRAME_MAX];
            memcpy(copy, data, length);
            uint32_t said = (uint32_t)cut;
            memcpy(copy, &said, sizeof said);
            bool is_whole = frames[i].decode == decode_changes && cut >= 24 && cut % 8 == 0;
            assert_int_equal(frames[i].decode(copy, cut, &refusal), is_whole ? 0 : -EPROTO);
        }
        uint32_t longer = (uint32_t)length + 8;
        memcpy(data, &longer, sizeof longer);
        bool may_be_longer = frames[i].decode == decode_changes;
        assert_int_equal(frames[i].decode(data, longer, &refusal), may_be_longer ? 0 : -EPROTO);
    }
}

static void a_field_that_is_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        unsigned frame;
        unsigned at;
        uint8_t value;
        const char *text;
    } cases[] = {
        {0, 4, 11, "type"},     {0, 5, 2, "flags"},     {0, 14, 6, "from"},  {0, 15, 2, "match"},
        {0, 50, 1, "reserved"}, {0, 53, 1, "reserved"}, {0, 6, 7, "length"}, {0, 14, 0, "at"},
        {0, 14, 2, "owner"},    {1, 4, 10, "type"},     {1, 5, 2, "flags"},  {1, 6, 1, "reserved"},
        {1, 12, 1, "reserved"}, {2, 5, 1, "flags"},     {2, 6, 0, "count"},  {2, 12, 1, "reserved"},
        {3, 5, 1, "flags"},     {3, 12, 0, "event"},    {3, 12, 9, "event"}, {3, 13, 1, "reserved"},
        {3, 32, 1, "reserved"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint8_t data[FRAME_MAX];
        struct refusal refusal = {0};
        size_t length = frames[cases[i].frame].make(data);
        assert_int_not_equal(data[cases[i].at], cases[i].value);
        data[cases[i].at] = cases[i].value;
        assert_int_equal(frames[cases[i].frame].decode(data, length, &refusal), -EPROTO);
        assert_int_equal(refusal.error, ERROR_PROTOCOL);
        assert_non_null(strstr(refusal.text, cases[i].text));
    }
}

static void a_record_is_believed_only_with_right_lengths(void **state)
{
    (void)state;
    _Alignas(8) uint8_t data[128] = {0};
    struct change change = {.length = 56 + 3 + 4, .key_len = 3};
    memcpy(data, &change, sizeof change);
    assert_int_equal(change_checked_bytes(data, 64), 64);
    assert_int_equal(change_checked_bytes(data, 128), 64);
    for (size_t size = 0; size < 64; size++) assert_int_equal(change_checked_bytes(data, size), 0);
    static const struct change wrong[] = {
        {.length = 63, .key_len = 0},  {.length = 58, .key_len = 3},
        {.length = 0, .key_len = 1},   {.length = UINT32_MAX, .key_len = 1},
        {.length = 129, .key_len = 1}, {.length = 64, .key_len = 65535}};
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        memcpy(data, &wrong[i], sizeof change);
        assert_int_equal(change_checked_bytes(data, sizeof data), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(every_cut_of_a_frame_is_refused),
        cmocka_unit_test(a_field_that_is_wrong_is_named),
        cmocka_unit_test(a_record_is_believed_only_with_right_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
