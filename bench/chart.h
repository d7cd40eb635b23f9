/*
 * Charts as SVG: bars that lie side by side in groups, and percentile curves. A chart is one file
 * that needs nothing else: no script, no font, no other file. It follows the reader's choice of a
 * light or a dark page.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "base/attr.h"

#define CHART_SERIES_MAX 4
#define CHART_LABEL_BYTES 64
#define CHART_FEET_MAX 2

/* What both kinds have around them; any text may be NULL. */
struct chart_frame {
    const char *title;
    const char *subtitle;
    const char *axis; /* what is measured, with its unit */
    const char *feet[CHART_FEET_MAX];
};

enum chart_tone { CHART_PLAIN, CHART_GOOD, CHART_BAD };

struct chart_bar {
    double value;
    double low; /* of several runs; the whisker is drawn where high > low */
    double high;
    enum chart_tone tone;         /* of the text */
    char text[CHART_LABEL_BYTES]; /* the figure, at the right edge */
};

/* Where a mark's good side is; it is shaded. */
enum chart_side { CHART_NEITHER, CHART_AT_LEAST, CHART_AT_MOST };

struct chart_group {
    char label[CHART_LABEL_BYTES];
    char detail[CHART_LABEL_BYTES];
    struct chart_bar bars[CHART_SERIES_MAX];
    double mark; /* a line across the group's bars; 0: none */
    char mark_text[CHART_LABEL_BYTES];
    enum chart_side side;
};

struct chart_bars {
    struct chart_frame frame;
    const char *series[CHART_SERIES_MAX]; /* one alone gets no legend */
    uint32_t series_count;
    const char *mark_name; /* in the legend; NULL: no marks */
    const struct chart_group *groups;
    uint32_t groups_count;
    double axis_max; /* longer bars are cut, with an arrow; 0: as far as the figures go */
};

struct chart_point {
    double percentile; /* below 100 */
    double value;
};

struct chart_curve {
    char name[CHART_LABEL_BYTES];
    char detail[CHART_LABEL_BYTES];
    const struct chart_point *points; /* percentiles ascend */
    uint32_t points_count;
};

/* The percentiles' axis is logarithmic in the nines: 90 to 99 is as wide as 99 to 99.9. */
struct chart_curves {
    struct chart_frame frame;
    struct chart_curve curves[CHART_SERIES_MAX];
    uint32_t curves_count;
};

/* Both return 0, or -EIO where `to` failed. */
MUST_CHECK int chart_put_bars(FILE *to, const struct chart_bars *bars);
MUST_CHECK int chart_put_curves(FILE *to, const struct chart_curves *curves);
