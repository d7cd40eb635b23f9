/*
 * Bars lie, because a case's name is a line of text and there may be many cases: the chart grows
 * downwards and stays readable. Figures stand in a column at the right edge, where no bar and no mark
 * can run into them; where the limit or the target is, is said below the case's name.
 *
 * Colours are in a style sheet with a second set for dark pages, not in the shapes. Shapes repeat
 * their figures as titles, which viewers show under the pointer. All lengths are in pixels.
 */
#include "bench/chart.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "cli/output.h"

#define WIDTH 960
#define MARGIN 28
#define TITLE_Y 42
#define SUBTITLE_Y 64
#define LEGEND_Y 94
#define PLOT_TOP 118
#define LINE_HEIGHT 16
#define FOOT_TOP 64 /* from the plot's lower edge: ticks and the axis' name come first */

static const char style[] =
    "<style>\n"
    "  .page { fill: #ffffff }\n"
    "  text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', "
    "sans-serif;\n"
    "    font-size: 13px; fill: #24292f; font-variant-numeric: tabular-nums }\n"
    "  .title { font-size: 20px; font-weight: 600 }\n"
    "  .label { font-weight: 600 }\n"
    "  .muted { fill: #57606a }\n"
    "  .small { font-size: 12px }\n"
    "  .grid { stroke: #d8dee4; stroke-width: 1; fill: none }\n"
    "  .base { stroke: #8c959f; stroke-width: 1; fill: none }\n"
    "  .band { fill: #1a7f37; fill-opacity: 0.09 }\n"
    "  .s0 { fill: #8cc5f0; stroke: #8cc5f0 } .s1 { fill: #3d8fd9; stroke: #3d8fd9 }\n"
    "  .s2 { fill: #124f96; stroke: #124f96 } .s3 { fill: #8250df; stroke: #8250df }\n"
    "  .bar { stroke: none }\n"
    "  .whisker { stroke: #24292f; stroke-width: 1.5; fill: none }\n"
    "  .halo { stroke: #ffffff; stroke-width: 4; stroke-linecap: square; fill: none }\n"
    "  .mark { stroke: #c4500a; stroke-width: 2.5; fill: none } .marked { fill: #a84308 }\n"
    "  .good { fill: #1a7f37 } .bad { fill: #c01c28 }\n"
    "  .curve { fill: none; stroke-width: 2.5; stroke-linejoin: round;\n"
    "    stroke-linecap: round }\n"
    "  .key { fill: none; stroke-width: 4 }\n"
    "  .c0 { stroke: #124f96 } .c1 { stroke: #c4500a } .c2 { stroke: #1a7f37 } .c3 { stroke: "
    "#8250df }\n"
    "  @media (prefers-color-scheme: dark) {\n"
    "    .page { fill: #0d1117 } text { fill: #e6edf3 } .muted { fill: #9aa4af }\n"
    "    .grid { stroke: #2b323b } .base { stroke: #6e7681 }\n"
    "    .band { fill: #3fb950; fill-opacity: 0.14 }\n"
    "    .s0 { fill: #1f4e7a; stroke: #1f4e7a } .s1 { fill: #3d8fd9; stroke: #3d8fd9 }\n"
    "    .s2 { fill: #a5d6ff; stroke: #a5d6ff } .s3 { fill: #bc8cff; stroke: #bc8cff }\n"
    "    .bar { stroke: none } .whisker { stroke: #e6edf3 }\n"
    "    .halo { stroke: #0d1117 }\n"
    "    .mark { stroke: #f0883e } .marked { fill: #f0883e }\n"
    "    .good { fill: #56d364 } .bad { fill: #ff7b72 }\n"
    "    .c0 { stroke: #79c0ff } .c1 { stroke: #f0883e } .c2 { stroke: #56d364 }\n"
    "    .c3 { stroke: #bc8cff }\n"
    "  }\n"
    "</style>\n";

/* -------------------------------------------------------------------------------------- text */

/* Text as XML: markup is escaped; control characters and what is not UTF-8 become U+FFFD. */
static void put_escaped(FILE *to, const char *text)
{
    size_t bytes = strlen(text);
    for (size_t at = 0; at < bytes;) {
        unsigned char byte = (unsigned char)text[at];
        size_t length = utf8_length((const unsigned char *)text + at, bytes - at);
        if (byte == '&')
            fputs("&amp;", to);
        else if (byte == '<')
            fputs("&lt;", to);
        else if (byte == '>')
            fputs("&gt;", to);
        else if (byte == '"')
            fputs("&quot;", to);
        else if (length == 0 || (byte < ' ' && byte != '\t') || byte == 0x7f)
            fputs("\xef\xbf\xbd", to);
        else
            fwrite(text + at, 1, length, to);
        at += length == 0 ? 1 : length;
    }
}

static void put_text(FILE *to, double x, double y, const char *classes, const char *anchor,
                     const char *text)
{
    if (text == NULL || text[0] == 0) return;
    fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">", x, y, classes,
            anchor);
    put_escaped(to, text);
    fputs("</text>\n", to);
}

static void put_line(FILE *to, const char *class, double x1, double y1, double x2, double y2)
{
    fprintf(to, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", class, x1, y1, x2, y2);
}

/* What a tick says: 2500000 is "2.5M". */
static const char *tick_text(double value, char text[CHART_LABEL_BYTES])
{
    if (value >= 1e9)
        snprintf(text, CHART_LABEL_BYTES, "%.4gG", value / 1e9);
    else if (value >= 1e6)
        snprintf(text, CHART_LABEL_BYTES, "%.4gM", value / 1e6);
    else if (value >= 1e4)
        snprintf(text, CHART_LABEL_BYTES, "%.4gk", value / 1e3);
    else
        snprintf(text, CHART_LABEL_BYTES, "%.4g", value);
    return text;
}

/* ------------------------------------------------------------------------------------- frame */

static uint32_t feet_count(const struct chart_frame *frame)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < CHART_FEET_MAX; i++)
        if (frame->feet[i] != NULL) count = i + 1;
    return count;
}

/* Everything but the plot, whose lower edge is at `plot_bottom`. */
static void put_frame(FILE *to, const struct chart_frame *frame, double plot_bottom)
{
    double height = plot_bottom + FOOT_TOP + (double)(feet_count(frame) * LINE_HEIGHT) + 12;
    fprintf(to,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" "
            "viewBox=\"0 0 %d %.0f\" role=\"img\">\n<title>",
            WIDTH, height, WIDTH, height);
    put_escaped(to, frame->title != NULL ? frame->title : "");
    fprintf(to, "</title>\n%s<rect class=\"page\" width=\"%d\" height=\"%.0f\"/>\n", style, WIDTH,
            height);
    put_text(to, MARGIN, TITLE_Y, "title", "start", frame->title);
    put_text(to, MARGIN, SUBTITLE_Y, "muted", "start", frame->subtitle);
    for (uint32_t i = 0; i < CHART_FEET_MAX; i++)
        put_text(to, MARGIN, plot_bottom + FOOT_TOP + 4 + i * LINE_HEIGHT, "muted small", "start",
                 frame->feet[i]);
}

static void put_nothing(FILE *to)
{
    put_text(to, WIDTH / 2.0, PLOT_TOP + 40, "muted", "middle", "nothing was measured");
}

static int finish(FILE *to)
{
    fputs("</svg>\n", to);
    return ferror(to) != 0 ? -EIO : 0;
}

/* -------------------------------------------------------------------------------------- bars */

#define BARS_LEFT 268
#define BARS_RIGHT 758
#define BAR_HEIGHT 17
#define BAR_STEP 20
#define GROUP_GAP 20
#define TICKS_MAX 6

static double group_height(const struct chart_bars *bars, const struct chart_group *group)
{
    uint32_t lines = 1;
    if (group->detail[0] != 0) lines++;
    if (group->mark_text[0] != 0) lines++;
    return (double)max_u64(bars->series_count * BAR_STEP, lines * LINE_HEIGHT + 4);
}

/* The step between ticks: 1, 2 or 5 times a power of ten. */
static double step_of(double most)
{
    double power = pow(10, floor(log10(most / TICKS_MAX)));
    double steps = most / TICKS_MAX / power;
    return power * (steps <= 1 ? 1 : steps <= 2 ? 2 : steps <= 5 ? 5 : 10);
}

/* Where the axis ends: at a tick, behind the longest of what is drawn. */
static double axis_end(const struct chart_bars *bars)
{
    double most = 0;
    for (uint32_t i = 0; i < bars->groups_count; i++) {
        const struct chart_group *group = &bars->groups[i];
        most = fmax(most, group->mark);
        for (uint32_t k = 0; k < bars->series_count; k++)
            most = fmax(most, fmax(group->bars[k].value, group->bars[k].high));
    }
    if (bars->axis_max > 0) most = fmin(most, bars->axis_max);
    if (!(most > 0) || isinf(most)) return 1;
    double step = step_of(most);
    return step * ceil(most / step);
}

static double bar_x(double value, double end)
{
    double share = value / end;
    if (!(share > 0)) share = 0;
    return BARS_LEFT + (BARS_RIGHT - BARS_LEFT) * fmin(share, 1);
}

static void put_ticks(FILE *to, const struct chart_bars *bars, double end, double bottom)
{
    char text[CHART_LABEL_BYTES];
    double step = step_of(end);
    uint32_t count = (uint32_t)(end / step + 0.5);
    for (uint32_t i = 0; i <= count; i++) {
        double x = bar_x(step * i, end);
        put_line(to, i == 0 ? "base" : "grid", x, PLOT_TOP, x, bottom);
        put_text(to, x, bottom + 18, "muted small", "middle", tick_text(step * i, text));
    }
    put_text(to, (BARS_LEFT + BARS_RIGHT) / 2.0, bottom + 40, "muted", "middle", bars->frame.axis);
}

static void put_legend(FILE *to, const struct chart_bars *bars)
{
    double x = bars->series_count > 1 ? MARGIN : BARS_LEFT;
    for (uint32_t i = 0; bars->series_count > 1 && i < bars->series_count; i++) {
        fprintf(to, "<rect class=\"s%u\" x=\"%.1f\" y=\"%d\" width=\"12\" height=\"12\"/>\n", i, x,
                LEGEND_Y - 11);
        put_text(to, x + 18, LEGEND_Y, "small", "start", bars->series[i]);
        x += 44 + 7.5 * (double)strlen(bars->series[i]);
    }
    if (bars->mark_name == NULL) return;
    put_line(to, "mark", x + 6, LEGEND_Y - 12, x + 6, LEGEND_Y + 2);
    put_text(to, x + 18, LEGEND_Y, "small", "start", bars->mark_name);
}

static void put_band(FILE *to, const struct chart_group *group, double end, double y, double height)
{
    double x = bar_x(group->mark, end);
    double from = group->side == CHART_AT_LEAST ? x : BARS_LEFT;
    double until = group->side == CHART_AT_LEAST ? BARS_RIGHT : x;
    if (group->side == CHART_NEITHER || !(group->mark > 0)) return;
    fprintf(to, "<rect class=\"band\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
            from, y, until - from, height);
}

static void put_whisker(FILE *to, const struct chart_bar *bar, double end, double y)
{
    double low = bar_x(bar->low, end);
    double high = bar_x(bar->high, end);
    if (!(bar->high > bar->low)) return;
    /* Twice, so that it stands out from a dark bar too. */
    static const char *const classes[] = {"halo", "whisker"};
    for (size_t i = 0; i < ARRAY_COUNT(classes); i++)
        fprintf(to, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1fM%.1f %.1fv8M%.1f %.1fv8\"/>\n",
                classes[i], low, y, high, y, low, y - 4, high, y - 4);
}

static void put_bar(FILE *to, const struct chart_bars *bars, const struct chart_bar *bar,
                    uint32_t series, double end, double y)
{
    static const char *const tones[] = {"", "good", "bad"};
    double right = bar_x(bar->value, end);
    fprintf(to, "<rect class=\"bar s%u\" x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"><title>",
            bars->series_count == 1 ? 1 : series, BARS_LEFT, y, right - BARS_LEFT, BAR_HEIGHT);
    put_escaped(to, bars->series[series]);
    fputs(": ", to);
    put_escaped(to, bar->text);
    fputs("</title></rect>\n", to);
    if (bar->value > end)
        fprintf(to, "<path class=\"bar s%u\" d=\"M%.1f %.1fl9 %.1fl-9 %.1fz\"/>\n",
                bars->series_count == 1 ? 1 : series, right, y, BAR_HEIGHT / 2.0, BAR_HEIGHT / 2.0);
    put_whisker(to, bar, end, y + BAR_HEIGHT / 2.0);
    put_text(to, BARS_RIGHT + 16, y + 13, tones[bar->tone], "start", bar->text);
}

static void put_group(FILE *to, const struct chart_bars *bars, const struct chart_group *group,
                      double end, double y)
{
    double height = group_height(bars, group);
    double first = y + (height - bars->series_count * BAR_STEP) / 2 + 1.5;
    double line = y + 13;
    put_text(to, MARGIN, line, "label", "start", group->label);
    if (group->detail[0] != 0) line += LINE_HEIGHT;
    put_text(to, MARGIN, line, "muted small", "start", group->detail);
    put_text(to, MARGIN, line + LINE_HEIGHT, "marked small", "start", group->mark_text);
    put_band(to, group, end, y - 4, height + 8);
    for (uint32_t i = 0; i < bars->series_count; i++)
        put_bar(to, bars, &group->bars[i], i, end, first + i * BAR_STEP);
    if (!(group->mark > 0 && group->mark <= end)) return;
    double x = bar_x(group->mark, end);
    put_line(to, "mark", x, y - 4, x, y + height + 4);
}

int chart_put_bars(FILE *to, const struct chart_bars *bars)
{
    ASSERT(bars->series_count > 0);
    ASSERT(bars->series_count <= CHART_SERIES_MAX);
    double y = PLOT_TOP + GROUP_GAP / 2.0;
    double end = axis_end(bars);
    double bottom = y;
    for (uint32_t i = 0; i < bars->groups_count; i++)
        bottom += group_height(bars, &bars->groups[i]) + GROUP_GAP;
    if (bars->groups_count == 0) bottom += 80;
    put_frame(to, &bars->frame, bottom);
    if (bars->groups_count == 0) {
        put_nothing(to);
        return finish(to);
    }
    put_ticks(to, bars, end, bottom);
    put_legend(to, bars);
    for (uint32_t i = 0; i < bars->groups_count; i++) {
        put_group(to, bars, &bars->groups[i], end, y);
        y += group_height(bars, &bars->groups[i]) + GROUP_GAP;
    }
    return finish(to);
}

/* ------------------------------------------------------------------------------------ curves */

#define CURVES_LEFT 92
#define CURVES_RIGHT (WIDTH - MARGIN - 12)
#define CURVES_HEIGHT 380
#define CURVES_BOTTOM (CURVES_TOP + CURVES_HEIGHT)
#define CURVES_TOP (PLOT_TOP + 26)
#define NINES_MAX 9

/* What the plot shows: nines 0 to `nines`, values from `low` to `high`. */
struct window {
    double nines;
    double low;
    double high;
};

/* 0 is 0, 90 is 1, 99 is 2, 99.9 is 3. */
static double nines_of(double percentile)
{
    double nines = -log10(1 - percentile / 100);
    return fmin(fmax(nines, 0), NINES_MAX);
}

static double curve_x(const struct window *window, double nines)
{
    return CURVES_LEFT + (CURVES_RIGHT - CURVES_LEFT) * nines / window->nines;
}

static double curve_y(const struct window *window, double value)
{
    double share = log(value / window->low) / log(window->high / window->low);
    return CURVES_BOTTOM - CURVES_HEIGHT * fmin(fmax(share, 0), 1);
}

/* The nearest of 1, 2, 5 times a power of ten that is not above (or below) `value`. */
static double round_125(double value, bool up)
{
    static const double steps[] = {1, 2, 5, 10};
    double power = pow(10, floor(log10(value) + 1e-9));
    double found = up ? 10 : 1;
    for (size_t i = 0; i < ARRAY_COUNT(steps); i++) {
        double step = steps[up ? ARRAY_COUNT(steps) - 1 - i : i];
        if (up ? step * power >= value * (1 - 1e-9) : step * power <= value * (1 + 1e-9))
            found = step;
    }
    return found * power;
}

/* A logarithmic axis has no place for others. */
static bool is_drawable(double value)
{
    return value > 0 && value < INFINITY;
}

static bool window_find(const struct chart_curves *curves, struct window *window)
{
    double low = INFINITY;
    double high = 0;
    *window = (struct window){.nines = 1};
    for (uint32_t i = 0; i < curves->curves_count; i++) {
        for (uint32_t k = 0; k < curves->curves[i].points_count; k++) {
            const struct chart_point *point = &curves->curves[i].points[k];
            if (!is_drawable(point->value)) continue;
            window->nines = fmax(window->nines, nines_of(point->percentile));
            low = fmin(low, point->value);
            high = fmax(high, point->value);
        }
    }
    if (!(high > 0)) return false;
    window->low = round_125(low * 0.999, false);
    window->high = round_125(high, true);
    if (window->high <= window->low) window->high = window->low * 2;
    return true;
}

static void put_value_ticks(FILE *to, const struct window *window)
{
    char text[CHART_LABEL_BYTES];
    double value = window->low;
    while (value <= window->high * 1.001) {
        double y = curve_y(window, value);
        put_line(to, "grid", CURVES_LEFT, y, CURVES_RIGHT, y);
        put_text(to, CURVES_LEFT - 10, y + 4, "muted small", "end", tick_text(value, text));
        value = round_125(value * 1.5, true);
    }
}

static void put_nine_ticks(FILE *to, const struct window *window)
{
    static const char *const texts[] = {"0 %",       "90 %",       "99 %",
                                        "99.9 %",    "99.99 %",    "99.999 %",
                                        "99.9999 %", "99.99999 %", "99.999999 %"};
    double half = curve_x(window, nines_of(50));
    for (uint32_t i = 0; i < ARRAY_COUNT(texts) && i <= window->nines + 0.001; i++) {
        double x = curve_x(window, i);
        put_line(to, i == 0 ? "base" : "grid", x, CURVES_TOP, x, CURVES_BOTTOM);
        put_text(to, x, CURVES_BOTTOM + 18, "muted small", "middle", texts[i]);
    }
    put_line(to, "grid", half, CURVES_TOP, half, CURVES_BOTTOM);
    put_text(to, half, CURVES_BOTTOM + 18, "muted small", "middle", "50 %");
}

static void put_curve(FILE *to, const struct window *window, const struct chart_curve *curve,
                      uint32_t index)
{
    double y = LEGEND_Y + index * 19.0;
    char key[] = "key c0";
    key[5] = (char)('0' + index);
    put_line(to, key, CURVES_LEFT, y - 4, CURVES_LEFT + 26, y - 4);
    put_text(to, CURVES_LEFT + 36, y, "label small", "start", curve->name);
    put_text(to, CURVES_LEFT + 220, y, "muted small", "start", curve->detail);
    char command = 'M';
    fprintf(to, "<path class=\"curve c%u\" d=\"", index);
    for (uint32_t i = 0; i < curve->points_count; i++) {
        const struct chart_point *point = &curve->points[i];
        if (!is_drawable(point->value)) continue;
        fprintf(to, "%c%.1f %.1f", command, curve_x(window, nines_of(point->percentile)),
                curve_y(window, point->value));
        command = 'L';
    }
    /* A single point is a dot. */
    fputs(command == 'L' ? "h0\"><title>" : "\"><title>", to);
    put_escaped(to, curve->name);
    fputs("</title></path>\n", to);
}

int chart_put_curves(FILE *to, const struct chart_curves *curves)
{
    ASSERT(curves->curves_count <= CHART_SERIES_MAX);
    struct window window;
    put_frame(to, &curves->frame, CURVES_BOTTOM);
    if (!window_find(curves, &window)) {
        put_nothing(to);
        return finish(to);
    }
    put_value_ticks(to, &window);
    put_nine_ticks(to, &window);
    fprintf(to,
            "<text class=\"muted\" text-anchor=\"middle\" transform=\"translate(%d %d) "
            "rotate(-90)\">",
            MARGIN + 4, (CURVES_TOP + CURVES_BOTTOM) / 2);
    put_escaped(to, curves->frame.axis != NULL ? curves->frame.axis : "");
    fputs("</text>\n", to);
    put_text(to, (CURVES_LEFT + CURVES_RIGHT) / 2.0, CURVES_BOTTOM + 40, "muted", "middle",
             "percentile");
    for (uint32_t i = 0; i < curves->curves_count; i++)
        put_curve(to, &window, &curves->curves[i], i);
    return finish(to);
}
