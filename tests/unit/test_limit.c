/*
 * The machine's limit does all of its work, over one socket and over many. Small runs that block
 * while they wait, so that they pass where both sides share a cpu.
 */
#include "bench/limit.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"

#define RECORDS 100000

static struct limit_options small(void)
{
    struct limit_options options;
    limit_options_init(&options);
    options.records = RECORDS;
    options.records_warmup = 1000;
    options.keys = 5000;
    options.log_bytes = 64 * MIB;
    options.wait = LIMIT_WAIT_BLOCK;
    return options;
}

static struct limit_result run(const struct limit_options *options)
{
    struct limit_result result = {0};
    assert_int_equal(limit_throughput(options, &result), 0);
    assert_true(result.per_s > 0);
    assert_int_not_equal(result.checksum, 0);
    return result;
}

static void every_record_is_answered(void **state)
{
    (void)state;
    struct limit_options options = small();
    struct limit_result result = run(&options);
    /* What the last receive of the warm-up brought beyond it is not measured: up to a window. */
    assert_in_range(result.records, RECORDS / 2, RECORDS);
    assert_int_equal(result.frame_bytes, 128);
    assert_int_equal(result.reply_frame_bytes, 16);
    assert_int_equal(result.bytes, result.records * (128 + 16));
}

/* All replies of so few may be there before the warm-up has ended. */
static void few_records_are_measured_too(void **state)
{
    (void)state;
    struct limit_options options = small();
    options.records = 1;
    for (unsigned i = 0; i < 3; i++) assert_true(run(&options).records > 0);
}

static void the_same_work_has_the_same_checksum(void **state)
{
    (void)state;
    struct limit_options options = small();
    /* With more keys a bucket may be full, and which key it then loses depends on how many requests a
       receive brought. */
    options.keys = 7;
    uint64_t checksum = run(&options).checksum;
    assert_int_equal(run(&options).checksum, checksum);
    options.records++;
    assert_int_not_equal(run(&options).checksum, checksum);
}

static void many_sockets_share_the_records(void **state)
{
    (void)state;
    static const uint32_t counts[] = {2, 3, 64};
    for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
        struct limit_options options = small();
        options.connections = counts[i];
        assert_in_range(run(&options).records, RECORDS / 2, RECORDS);
    }
}

static void replies_are_as_large_as_asked_for(void **state)
{
    (void)state;
    static const size_t sizes[][3] = {{8, LIMIT_REPLY_ECHO, 24},
                                      {100, LIMIT_REPLY_ECHO, 120},
                                      {1000, LIMIT_REPLY_ECHO, 1016},
                                      {10, 500, 520}};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct limit_options options = small();
        options.message_bytes = sizes[i][0];
        options.reply_bytes = sizes[i][1];
        assert_int_equal(run(&options).reply_frame_bytes, sizes[i][2]);
    }
}

static void the_log_may_go_round(void **state)
{
    (void)state;
    struct limit_options options = small();
    options.log_bytes = 1 * MIB;
    run(&options);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    struct limit_result result;
    struct limit_options options = small();
    options.message_bytes = LIMIT_MESSAGE_BYTES_MIN - 1;
    assert_int_equal(limit_throughput(&options, &result), -EINVAL);
    options = small();
    options.connections = LIMIT_CONNECTIONS_MAX + 1;
    assert_int_equal(limit_throughput(&options, &result), -EINVAL);
    options = small();
    options.log_bytes = 1000;
    assert_int_equal(limit_throughput(&options, &result), -EINVAL);
}

static void every_round_trip_is_recorded(void **state)
{
    (void)state;
    struct histogram *histogram = test_malloc(sizeof *histogram);
    struct limit_pingpong_options options;
    limit_pingpong_options_init(&options);
    options.messages = 500;
    options.messages_warmup = 10;
    options.wait = LIMIT_WAIT_BLOCK;
    histogram_reset(histogram);
    assert_int_equal(limit_pingpong(&options, histogram), 0);
    assert_int_equal(histogram->count, 500);
    assert_true(histogram_min_ns(histogram) > 0);
    options.bytes = 7;
    assert_int_equal(limit_pingpong(&options, histogram), -EINVAL);
    test_free(histogram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_record_is_answered),
        cmocka_unit_test(the_same_work_has_the_same_checksum),
        cmocka_unit_test(few_records_are_measured_too),
        cmocka_unit_test(many_sockets_share_the_records),
        cmocka_unit_test(replies_are_as_large_as_asked_for),
        cmocka_unit_test(the_log_may_go_round),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(every_round_trip_is_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
