/*
 * The layout is HdrHistogram's (Gil Tene) for three digits. Times below 2048 ns have a count each.
 * Above, every power of two is divided into 1024 steps, so that a step is at most 1/1024 of the
 * times in it:
 *
 *   ns        0 .. 2047   2048 .. 4095   4096 .. 8191   ...   2^35 .. 2^36 - 1
 *   step ns           1              2              4   ...               2^25
 *   counts         2048           1024           1024   ...               1024
 *
 * With `shift` the number of low bits that a step leaves out, the count of a time lies at
 * shift * 1024 + (ns >> shift): the upper half of each row, one row after the other.
 *
 * A percentile is the highest time of its step: whoever quotes it never promises too much.
 */
#include "bench/histogram.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"

#define HALF_BITS 10
_Static_assert(HISTOGRAM_HALF == 1 << HALF_BITS, "steps are cut by shifts");
/* Lines of the printed distribution for each halving of what remains. */
#define TICKS_PER_HALF 5

static unsigned shift_of(uint64_t ns)
{
    unsigned bits = 64 - (unsigned)__builtin_clzll(ns | 1);
    return bits > HALF_BITS + 1 ? bits - (HALF_BITS + 1) : 0;
}

static size_t index_of(uint64_t ns)
{
    unsigned shift = shift_of(ns);
    return ((size_t)shift << HALF_BITS) + (size_t)(ns >> shift);
}

/* The lowest time that is counted at `index`, and in *step_ns how many times are. */
static uint64_t lowest_ns(size_t index, uint64_t *step_ns)
{
    size_t row = index >> HALF_BITS;
    unsigned shift = row < 2 ? 0 : (unsigned)row - 1;
    *step_ns = (uint64_t)1 << shift;
    return (uint64_t)(index - ((size_t)shift << HALF_BITS)) << shift;
}

static uint64_t highest_ns(size_t index)
{
    uint64_t step_ns;
    uint64_t lowest = lowest_ns(index, &step_ns);
    return lowest + step_ns - 1;
}

void histogram_reset(struct histogram *histogram)
{
    memset(histogram, 0, sizeof(*histogram));
    histogram->ns_min = UINT64_MAX;
}

void histogram_record_n(struct histogram *histogram, uint64_t ns, uint64_t times)
{
    if (times == 0) return;
    if (UNLIKELY(ns > HISTOGRAM_NS_MAX)) {
        histogram->over_max += times;
        ns = HISTOGRAM_NS_MAX;
    }
    histogram->counts[index_of(ns)] += times;
    histogram->count += times;
    histogram->ns_sum += (unsigned __int128)ns * times;
    histogram->ns_min = min_u64(histogram->ns_min, ns);
    histogram->ns_max = max_u64(histogram->ns_max, ns);
}

void histogram_record(struct histogram *histogram, uint64_t ns)
{
    histogram_record_n(histogram, ns, 1);
}

void histogram_merge(struct histogram *to, const struct histogram *from)
{
    for (size_t i = 0; i < HISTOGRAM_COUNTS; i++) to->counts[i] += from->counts[i];
    to->count += from->count;
    to->over_max += from->over_max;
    to->ns_sum += from->ns_sum;
    to->ns_min = min_u64(to->ns_min, from->ns_min);
    to->ns_max = max_u64(to->ns_max, from->ns_max);
}

uint64_t histogram_min_ns(const struct histogram *histogram)
{
    return histogram->count > 0 ? histogram->ns_min : 0;
}

uint64_t histogram_max_ns(const struct histogram *histogram)
{
    return histogram->ns_max;
}

double histogram_mean_ns(const struct histogram *histogram)
{
    if (histogram->count == 0) return 0;
    return (double)histogram->ns_sum / (double)histogram->count;
}

double histogram_deviation_ns(const struct histogram *histogram)
{
    if (histogram->count == 0) return 0;
    double mean = histogram_mean_ns(histogram);
    double squares = 0;
    for (size_t i = 0; i < HISTOGRAM_COUNTS; i++) {
        if (histogram->counts[i] == 0) continue;
        uint64_t step_ns;
        double middle = (double)lowest_ns(i, &step_ns) + (double)(step_ns - 1) / 2;
        squares += (middle - mean) * (middle - mean) * (double)histogram->counts[i];
    }
    return sqrt(squares / (double)histogram->count);
}

/* Walks the counts from the shortest time on. */
struct cursor {
    size_t index;   /* where the walk stands */
    uint64_t count; /* records up to and with that step */
};

static struct cursor cursor_first(const struct histogram *histogram)
{
    return (struct cursor){.index = 0, .count = histogram->counts[0]};
}

/* How many records a share of them is, rounded up: 1 at least. */
static uint64_t rank_of(const struct histogram *histogram, double percentile)
{
    /* 0.999 * 1000 must not become 1000 because a double cannot hold 0.999. */
    double rank = ceil(percentile / 100 * (double)histogram->count * (1 - 0x1p-50));
    if (rank < 1) return 1;
    return rank >= (double)histogram->count ? histogram->count : (uint64_t)rank;
}

/* Moves on to the step that holds the record of this rank, and returns its highest time. */
static uint64_t cursor_seek(struct cursor *cursor, const struct histogram *histogram, uint64_t rank)
{
    ASSERT(rank <= histogram->count);
    while (cursor->count < rank) cursor->count += histogram->counts[++cursor->index];
    return max_u64(min_u64(highest_ns(cursor->index), histogram->ns_max), histogram->ns_min);
}

uint64_t histogram_percentile_ns(const struct histogram *histogram, double percentile)
{
    if (histogram->count == 0) return 0;
    if (!(percentile > 0)) return histogram->ns_min;
    struct cursor cursor = cursor_first(histogram);
    return cursor_seek(&cursor, histogram, rank_of(histogram, percentile));
}

/* The next line's percentile: each halving of the rest to 100 is divided into as many lines. */
static double percentile_after(double percentile)
{
    double halvings = floor(log2(100 / (100 - percentile))) + 1;
    return percentile + 100 / (TICKS_PER_HALF * exp2(halvings));
}

static void print_lines(const struct histogram *histogram, FILE *to, double unit_ns)
{
    struct cursor cursor = cursor_first(histogram);
    double percentile = 0;
    while (true) {
        uint64_t ns = cursor_seek(&cursor, histogram, rank_of(histogram, percentile));
        if (cursor.count == histogram->count) break;
        fprintf(to, "%12.3f %2.12f %10llu %14.2f\n", (double)ns / unit_ns, percentile / 100,
                (unsigned long long)cursor.count, 100 / (100 - percentile));
        percentile = percentile_after(percentile);
    }
    fprintf(to, "%12.3f %2.12f %10llu\n", (double)histogram->ns_max / unit_ns, 1.0,
            (unsigned long long)histogram->count);
}

int histogram_print(const struct histogram *histogram, FILE *to, double unit_ns)
{
    ASSERT(unit_ns > 0);
    fprintf(to, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    if (histogram->count > 0) print_lines(histogram, to, unit_ns);
    fprintf(to, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n",
            histogram_mean_ns(histogram) / unit_ns, histogram_deviation_ns(histogram) / unit_ns);
    fprintf(to, "#[Max     = %12.3f, Total count    = %12llu]\n",
            (double)histogram_max_ns(histogram) / unit_ns, (unsigned long long)histogram->count);
    fprintf(to, "#[Buckets = %12d, SubBuckets     = %12d]\n", HISTOGRAM_COUNTS / HISTOGRAM_HALF - 1,
            2 * HISTOGRAM_HALF);
    return ferror(to) ? -EIO : 0;
}
