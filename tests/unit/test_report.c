/*
 * The report, in the layout of the original's readme.
 */
#include "bench/report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "cli/json.h"

/* ---- Numbers -------------------------------------------------------------------------------- */

static const struct {
    double number;
    const char *text;
} numbers[] = {
    {0, "0"},
    {0.3, "0.3"},
    {0.3029, "0.3"},
    {0.29, "0.29"},
    {1.15, "1.15"},
    {2, "2"},
    {5.906, "5.9"},
    {10, "10"},
    {100, "100"},
    {314.8, "314.8"},
    {4.81466, "4.81"},
    {4814.669, "4814.66"},
    {4975.7, "4975.7"},
    {782.5, "782.5"},
    {0.999, "0.99"},
    {0.001, "0"},
    {4117499.04, "4117499.04"},
    {1075657.0199, "1075657.01"},
    {1e12, "1000000000000"},
};

static void numbers_are_cut_after_two_digits(void **state)
{
    (void)state;
    char text[REPORT_NUMBER_BYTES];
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++)
        assert_string_equal(report_number(numbers[i].number, text), numbers[i].text);
}

static void rates_have_a_unit(void **state)
{
    (void)state;
    char text[REPORT_NUMBER_BYTES];
    assert_string_equal(report_rate(999, text), "999");
    assert_string_equal(report_rate(1000, text), "1.0k");
    assert_string_equal(report_rate(999900, text), "999.9k");
    assert_string_equal(report_rate(1234567, text), "1.23M");
    assert_string_equal(report_rate(0, text), "0");
}

/* ---- Blocks --------------------------------------------------------------------------------- */

/* The readme's run of 100 bytes. */
static struct speed_result *readme_result(void)
{
    struct speed_result *result = test_calloc(1, sizeof *result);
    result->about = (struct speed_case){.records = 1000000,
                                        .message_bytes = 100,
                                        .clients = 1,
                                        .servers = 1,
                                        .shards = 1,
                                        .sockets = 1,
                                        .verb = SENDER_UPDATE,
                                        .keys = 1000000,
                                        .runs = 1};
    histogram_reset(&result->latencies);
    cpus_plan_make(&result->plan, 1, 1);
    speed_series_add(&result->tacks_s, 0.302938);
    speed_series_add(&result->yacks_s, 1.323768);
    speed_series_add(&result->sacks_s, 4.975702);
    result->replies = 1000000;
    return result;
}

typedef void (*put_fn)(FILE *to, const struct speed_result *result);

static char *as_text(put_fn put, const struct speed_result *result)
{
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    put(to, result);
    fclose(to);
    return text;
}

static void a_block_reads_as_the_originals(void **state)
{
    (void)state;
    struct speed_result *result = readme_result();
    char *text = as_text(report_block, result);
    assert_string_equal(
        text, "\n1000000 records, 1 peers, 1 clients, 100 bytes\n"
              "  * stable: 0 ms\n"
              "  * connected: 0 ms\n"
              "  * tacks: 302.93 ms (0.3 sec) | 3301005.48 records/sec | 314.8 MB/sec\n"
              "  * yacks: 1323.76 ms (1.32 sec) | 755419.37 records/sec | 72.04 MB/sec\n"
              "  * sacks: 4975.7 ms (4.97 sec) | 200976.66 records/sec | 19.16 MB/sec\n\n");
    free(text);
    test_free(result);
}

static void a_block_has_the_median_run(void **state)
{
    (void)state;
    struct speed_result *result = readme_result();
    speed_series_add(&result->sacks_s, 1);
    speed_series_add(&result->sacks_s, 2);
    char *text = as_text(report_block, result);
    assert_non_null(strstr(text, "  * sacks: 2000 ms (2 sec) | 500000 records/sec | 47.68 MB/sec"));
    free(text);
    text = as_text(report_notes, result);
    assert_non_null(strstr(text, "median of 3 runs: sacks from 201.0k/s to 1.00M/s"));
    free(text);
    test_free(result);
}

static void notes_say_what_was_wrong(void **state)
{
    (void)state;
    struct speed_result *result = readme_result();
    char *text = as_text(report_notes, result);
    assert_non_null(strstr(text, "    verified: 1000000 replies"));
    assert_null(strstr(text, "limit"));
    free(text);
    result->failed = 3;
    result->mismatches = 4;
    speed_series_add(&result->limit_per_s, 401953.32);
    text = as_text(report_notes, result);
    assert_non_null(strstr(text, "NOT verified: 3 of 1000000 replies failed, 4 mismatches"));
    assert_non_null(strstr(text, "limit 402.0k/s, share 0.50"));
    free(text);
    test_free(result);
}

static bool has_key(const char *json, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    return strstr(json, quoted) != NULL;
}

static const char *const names_of_speed[] = {
    "tacks_per_s",   "yacks_per_s",    "sacks_per_s",       "p50_us",   "p99_us", "p999_us",
    "limit_per_s",   "share_of_limit", "server_ns_per_msg", "machine",  "cpus",   "sockets",
    "message_bytes", "busy_side",      "keys_checked",      "verified",
};

static void json_is_one_object_with_the_promised_keys(void **state)
{
    (void)state;
    struct speed_result *result = readme_result();
    speed_series_add(&result->limit_per_s, 401953.32);
    char *text = as_text(report_json, result);
    size_t bytes = strlen(text);
    assert_int_equal(json_classify(text, bytes), JSON_OBJECT);
    for (size_t i = 0; i < ARRAY_COUNT(names_of_speed); i++)
        assert_true(has_key(text, names_of_speed[i]));
    assert_ptr_equal(strchr(text, '\n'), text + bytes - 1);
    free(text);
    test_free(result);
}

/* ---- Latency -------------------------------------------------------------------------------- */

static void latencies_stand_below_each_other(void **state)
{
    (void)state;
    struct histogram *histogram = test_malloc(sizeof *histogram);
    char *text = NULL;
    size_t bytes;
    histogram_reset(histogram);
    histogram_record_n(histogram, 50000, 5000);
    histogram_record_n(histogram, 3720000, 5000);
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    report_latency(to, histogram);
    fclose(to);
    assert_string_equal(text, "            mean 1.88 ms\n"
                              "10    percentile 0.05 ms\n"
                              "50    percentile 0.05 ms\n"
                              "90    percentile 3.72 ms\n"
                              "99    percentile 3.72 ms\n"
                              "99.9  percentile 3.72 ms\n"
                              "99.99 percentile 3.72 ms\n");
    free(text);
    test_free(histogram);
}

static void latency_json_has_the_ratios_of_the_medians(void **state)
{
    (void)state;
    struct latency_result *result = test_calloc(1, sizeof *result);
    char *text = NULL;
    size_t bytes;
    result->about = (struct latency_case){.message_bytes = 100, .messages = 10, .limit = true};
    histogram_reset(&result->ours);
    histogram_reset(&result->limit);
    cpus_plan_make(&result->plan, 1, 1);
    for (int i = 0; i < 3; i++) {
        speed_series_add(&result->p50.ours_us, 10 + i);
        speed_series_add(&result->p50.limit_us, 8 + i * 50);
    }
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    report_latency_json(to, result);
    fclose(to);
    assert_int_equal(json_classify(text, bytes), JSON_OBJECT);
    /* 11 by 58; of p99 there is nothing. */
    assert_non_null(strstr(text, "\"p50_of_limit\":0.190,\"p99_of_limit\":0.000,"));
    free(text);
    test_free(result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_cut_after_two_digits),
        cmocka_unit_test(rates_have_a_unit),
        cmocka_unit_test(a_block_reads_as_the_originals),
        cmocka_unit_test(a_block_has_the_median_run),
        cmocka_unit_test(notes_say_what_was_wrong),
        cmocka_unit_test(json_is_one_object_with_the_promised_keys),
        cmocka_unit_test(latencies_stand_below_each_other),
        cmocka_unit_test(latency_json_has_the_ratios_of_the_medians),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
