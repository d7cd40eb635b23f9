/*
 * Latencies, counted: from 1 ns to 68 s with three significant digits, in memory of a fixed size.
 * Recording is a shift and an increment; nothing is allocated. See histogram.c for the layout.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

/* Longer times count as this one, and in `over_max`. */
#define HISTOGRAM_NS_MAX (((uint64_t)1 << 36) - 1)
#define HISTOGRAM_HALF 1024 /* steps in which a power of two is divided */
#define HISTOGRAM_COUNTS (27 * HISTOGRAM_HALF)

/* About 216 KiB in the caller's memory: not on a stack, unless that is known to be large. */
struct histogram {
    uint64_t count;
    uint64_t over_max;
    uint64_t ns_min; /* exact; UINT64_MAX where nothing was recorded */
    uint64_t ns_max; /* exact */
    unsigned __int128 ns_sum;
    uint64_t counts[HISTOGRAM_COUNTS];
};

/* Makes it empty; for memory that held anything before. */
void histogram_reset(struct histogram *histogram);
void histogram_record(struct histogram *histogram, uint64_t ns);
/* `times` may be 0. */
void histogram_record_n(struct histogram *histogram, uint64_t ns, uint64_t times);
/* Adds all of `from`. */
void histogram_merge(struct histogram *to, const struct histogram *from);

/* These are 0 for an empty histogram. Minimum, maximum and mean are exact up to HISTOGRAM_NS_MAX. */
uint64_t histogram_min_ns(const struct histogram *histogram);
uint64_t histogram_max_ns(const struct histogram *histogram);
double histogram_mean_ns(const struct histogram *histogram);
double histogram_deviation_ns(const struct histogram *histogram);
/*
 * The time that `percentile` percent of the records did not exceed: never less than the exact one,
 * and at most 0.1 % more. 0 (or less) is the minimum, 100 (or more) the maximum.
 */
uint64_t histogram_percentile_ns(const struct histogram *histogram, double percentile);

/*
 * Writes the percentile distribution as text, as HdrHistogram does and its plotter reads (.hgrm).
 * `unit_ns` is what a printed 1 means: 1000 for microseconds. 0, or -EIO where `to` failed.
 */
int histogram_print(const struct histogram *histogram, FILE *to, double unit_ns);
