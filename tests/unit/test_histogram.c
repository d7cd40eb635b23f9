/*
 * The histogram against what it stands for: all samples, sorted.
 */
#include "bench/histogram.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/rng.h"

#define SAMPLES 50000

static const double percentiles[] = {0,  0.01, 1,  10, 25,   33.3,  50,     66.6,
                                     75, 90,   95, 99, 99.9, 99.99, 99.999, 100};

static struct histogram *histogram_new(void)
{
    struct histogram *histogram = test_malloc(sizeof(*histogram));
    memset(histogram, 0xa5, sizeof(*histogram));
    histogram_reset(histogram);
    return histogram;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* ---- Distributions -------------------------------------------------------------------------- */

static double unit_of(struct rng *rng)
{
    return (double)(rng_next(rng) >> 11) * 0x1p-53;
}

static uint64_t uniform(struct rng *rng)
{
    return rng_below(rng, 1000000);
}

static uint64_t uniform_over_all_magnitudes(struct rng *rng)
{
    return (uint64_t)exp2(unit_of(rng) * 36);
}

static uint64_t exponential(struct rng *rng)
{
    return (uint64_t)(-log(1 - unit_of(rng)) * 40000);
}

static uint64_t with_a_long_tail(struct rng *rng)
{
    double ns = 9000 / pow(1 - unit_of(rng), 1.2);
    return ns > (double)HISTOGRAM_NS_MAX ? HISTOGRAM_NS_MAX : (uint64_t)ns;
}

static uint64_t of_two_modes(struct rng *rng)
{
    return rng_below(rng, 100) < 97 ? 8000 + rng_below(rng, 900) : 19000000 + rng_below(rng, 99999);
}

static uint64_t constant(struct rng *rng)
{
    (void)rng;
    return 123456789;
}

static uint64_t tiny(struct rng *rng)
{
    return rng_below(rng, 4);
}

static uint64_t (*const distributions[])(struct rng *rng) = {
    uniform, uniform_over_all_magnitudes, exponential, with_a_long_tail, of_two_modes, constant,
    tiny};

/* ---- Tests ---------------------------------------------------------------------------------- */

static uint64_t exact_percentile(const uint64_t *sorted, size_t count, double percentile)
{
    double rank = ceil(percentile / 100 * (double)count - 1e-7);
    return sorted[rank < 1 ? 0 : (size_t)rank - 1];
}

static void percentiles_are_within_a_thousandth(void **unused)
{
    (void)unused;
    struct histogram *histogram = histogram_new();
    uint64_t *samples = test_malloc(SAMPLES * sizeof(*samples));
    for (size_t d = 0; d < ARRAY_COUNT(distributions); d++) {
        struct rng rng;
        double sum = 0;
        rng_init(&rng, d + 1);
        histogram_reset(histogram);
        for (size_t i = 0; i < SAMPLES; i++) {
            samples[i] = distributions[d](&rng);
            sum += (double)samples[i];
            histogram_record(histogram, samples[i]);
        }
        qsort(samples, SAMPLES, sizeof(*samples), compare_u64);
        for (size_t p = 0; p < ARRAY_COUNT(percentiles); p++) {
            uint64_t exact = exact_percentile(samples, SAMPLES, percentiles[p]);
            uint64_t told = histogram_percentile_ns(histogram, percentiles[p]);
            assert_true(told >= exact);
            assert_true((double)(told - exact) <= (double)exact * 0.001);
        }
        assert_int_equal(histogram_min_ns(histogram), samples[0]);
        assert_int_equal(histogram_max_ns(histogram), samples[SAMPLES - 1]);
        assert_true(fabs(histogram_mean_ns(histogram) - sum / SAMPLES) <= sum / SAMPLES * 1e-9);
    }
    test_free(samples);
    test_free(histogram);
}

static void an_empty_one_is_all_zero(void **unused)
{
    (void)unused;
    struct histogram *histogram = histogram_new();
    assert_int_equal(histogram->count, 0);
    assert_int_equal(histogram_min_ns(histogram), 0);
    assert_int_equal(histogram_max_ns(histogram), 0);
    assert_true(histogram_mean_ns(histogram) == 0);
    assert_true(histogram_deviation_ns(histogram) == 0);
    for (size_t p = 0; p < ARRAY_COUNT(percentiles); p++) {
        assert_int_equal(histogram_percentile_ns(histogram, percentiles[p]), 0);
    }
    test_free(histogram);
}

static void one_record_is_every_percentile(void **unused)
{
    (void)unused;
    static const uint64_t edges[] = {0,    1,    2,    1023, 1024,     2047,
                                     2048, 2049, 4095, 4096, 1u << 31, HISTOGRAM_NS_MAX};
    struct histogram *histogram = histogram_new();
    for (size_t i = 0; i < ARRAY_COUNT(edges); i++) {
        histogram_reset(histogram);
        histogram_record(histogram, edges[i]);
        assert_int_equal(histogram->count, 1);
        assert_int_equal(histogram->over_max, 0);
        assert_true(histogram_mean_ns(histogram) == (double)edges[i]);
        for (size_t p = 0; p < ARRAY_COUNT(percentiles); p++) {
            assert_int_equal(histogram_percentile_ns(histogram, percentiles[p]), edges[i]);
        }
    }
    test_free(histogram);
}

/* Around every power of two, where the steps change their width. */
static void neighbours_of_powers_of_two_are_within_a_thousandth(void **unused)
{
    (void)unused;
    struct histogram *histogram = histogram_new();
    for (unsigned bit = 0; bit < 36; bit++) {
        for (uint64_t near = 0; near < 3; near++) {
            uint64_t ns = ((uint64_t)1 << bit) + near - 1;
            histogram_reset(histogram);
            histogram_record(histogram, ns);
            histogram_record(histogram, HISTOGRAM_NS_MAX);
            uint64_t told = histogram_percentile_ns(histogram, 50);
            assert_true(told >= ns);
            assert_true((double)(told - ns) <= (double)ns * 0.001);
        }
    }
    test_free(histogram);
}

static void too_long_is_clamped_and_counted(void **unused)
{
    (void)unused;
    struct histogram *histogram = histogram_new();
    histogram_record(histogram, HISTOGRAM_NS_MAX + 1);
    histogram_record_n(histogram, UINT64_MAX, 2);
    histogram_record(histogram, 5);
    assert_int_equal(histogram->count, 4);
    assert_int_equal(histogram->over_max, 3);
    assert_int_equal(histogram_max_ns(histogram), HISTOGRAM_NS_MAX);
    assert_int_equal(histogram_percentile_ns(histogram, 25), 5);
    assert_int_equal(histogram_percentile_ns(histogram, 26), HISTOGRAM_NS_MAX);
    test_free(histogram);
}

static void record_n_is_n_records(void **unused)
{
    (void)unused;
    struct histogram *one = histogram_new();
    struct histogram *other = histogram_new();
    for (uint64_t ns = 0; ns < 100000; ns += 777) {
        uint64_t times = ns % 5;
        for (uint64_t i = 0; i < times; i++) histogram_record(one, ns);
        histogram_record_n(other, ns, times);
    }
    assert_memory_equal(one, other, sizeof(*one));
    test_free(one);
    test_free(other);
}

static void merged_is_as_if_recorded_in_one(void **unused)
{
    (void)unused;
    struct histogram *whole = histogram_new();
    struct histogram *parts[2] = {histogram_new(), histogram_new()};
    struct rng rng;
    rng_init(&rng, 7);
    for (size_t i = 0; i < SAMPLES; i++) {
        uint64_t ns = with_a_long_tail(&rng) * (1 + i % 3);
        histogram_record(whole, ns);
        histogram_record(parts[i % 2], ns);
    }
    struct histogram *merged = histogram_new();
    histogram_merge(merged, parts[0]);
    histogram_merge(merged, parts[1]);
    assert_memory_equal(merged, whole, sizeof(*whole));
    histogram_reset(parts[0]);
    histogram_merge(merged, parts[0]); /* an empty one changes nothing */
    assert_memory_equal(merged, whole, sizeof(*whole));
    test_free(whole);
    test_free(merged);
    test_free(parts[0]);
    test_free(parts[1]);
}

static void reset_forgets_everything(void **unused)
{
    (void)unused;
    struct histogram *histogram = histogram_new();
    struct histogram *fresh = histogram_new();
    histogram_record_n(histogram, 12345, 99);
    histogram_record(histogram, UINT64_MAX);
    histogram_reset(histogram);
    assert_memory_equal(histogram, fresh, sizeof(*fresh));
    test_free(histogram);
    test_free(fresh);
}

static void deviation_is_the_textbook_one(void **unused)
{
    (void)unused;
    struct histogram *histogram = histogram_new();
    static const uint64_t samples[] = {2, 4, 4, 4, 5, 5, 7, 9};
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++) histogram_record(histogram, samples[i]);
    assert_true(fabs(histogram_deviation_ns(histogram) - 2) < 1e-12);
    test_free(histogram);
}

/* ---- The printed distribution --------------------------------------------------------------- */

static char *printed(const struct histogram *histogram, double unit_ns)
{
    static char text[64 * KIB];
    FILE *file = fmemopen(text, sizeof(text), "w");
    assert_non_null(file);
    assert_int_equal(histogram_print(histogram, file, unit_ns), 0);
    fclose(file);
    return text;
}

static void print_begins_and_ends_as_the_plotter_expects(void **unused)
{
    (void)unused;
    struct histogram *histogram = histogram_new();
    histogram_record_n(histogram, 1500, 3);
    histogram_record(histogram, 2000);
    assert_string_equal(printed(histogram, 1000),
                        "       Value     Percentile TotalCount 1/(1-Percentile)\n"
                        "\n"
                        "       1.500 0.000000000000          3           1.00\n"
                        "       1.500 0.100000000000          3           1.11\n"
                        "       1.500 0.200000000000          3           1.25\n"
                        "       1.500 0.300000000000          3           1.43\n"
                        "       1.500 0.400000000000          3           1.67\n"
                        "       1.500 0.500000000000          3           2.00\n"
                        "       1.500 0.550000000000          3           2.22\n"
                        "       1.500 0.600000000000          3           2.50\n"
                        "       1.500 0.650000000000          3           2.86\n"
                        "       1.500 0.700000000000          3           3.33\n"
                        "       1.500 0.750000000000          3           4.00\n"
                        "       2.000 1.000000000000          4\n"
                        "#[Mean    =        1.625, StdDeviation   =        0.217]\n"
                        "#[Max     =        2.000, Total count    =            4]\n"
                        "#[Buckets =           26, SubBuckets     =         2048]\n");
    test_free(histogram);
}

static void printed_columns_only_grow(void **unused)
{
    (void)unused;
    struct histogram *histogram = histogram_new();
    struct rng rng;
    rng_init(&rng, 3);
    for (size_t i = 0; i < SAMPLES; i++) histogram_record(histogram, with_a_long_tail(&rng));
    double value = 0;
    double percentile = -1;
    unsigned long long count = 0;
    size_t lines = 0;
    char *line = strchr(strchr(printed(histogram, 1000), '\n') + 1, '\n') + 1;
    for (; *line != '#'; line = strchr(line, '\n') + 1) {
        double value_now;
        double percentile_now;
        unsigned long long count_now;
        assert_int_equal(sscanf(line, "%lf %lf %llu", &value_now, &percentile_now, &count_now), 3);
        assert_true(value_now >= value && percentile_now > percentile && count_now >= count);
        assert_true((double)count_now >= percentile_now * SAMPLES - 1e-6);
        value = value_now;
        percentile = percentile_now;
        count = count_now;
        lines++;
    }
    assert_true(percentile == 1);
    assert_int_equal(count, SAMPLES);
    assert_in_range(lines, 50, 120);
    test_free(histogram);
}

static void an_empty_one_prints_no_lines(void **unused)
{
    (void)unused;
    struct histogram *histogram = histogram_new();
    char *text = printed(histogram, 1000);
    assert_non_null(strstr(text, "1/(1-Percentile)\n\n#[Mean    =        0.000"));
    test_free(histogram);
}

static void print_tells_when_writing_failed(void **unused)
{
    (void)unused;
    struct histogram *histogram = histogram_new();
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    setvbuf(full, NULL, _IONBF, 0);
    assert_int_equal(histogram_print(histogram, full, 1000), -EIO);
    fclose(full);
    test_free(histogram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_within_a_thousandth),
        cmocka_unit_test(an_empty_one_is_all_zero),
        cmocka_unit_test(one_record_is_every_percentile),
        cmocka_unit_test(neighbours_of_powers_of_two_are_within_a_thousandth),
        cmocka_unit_test(too_long_is_clamped_and_counted),
        cmocka_unit_test(record_n_is_n_records),
        cmocka_unit_test(merged_is_as_if_recorded_in_one),
        cmocka_unit_test(reset_forgets_everything),
        cmocka_unit_test(deviation_is_the_textbook_one),
        cmocka_unit_test(print_begins_and_ends_as_the_plotter_expects),
        cmocka_unit_test(printed_columns_only_grow),
        cmocka_unit_test(an_empty_one_prints_no_lines),
        cmocka_unit_test(print_tells_when_writing_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
