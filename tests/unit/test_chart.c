/*
 * Charts: well-formed XML whatever the texts and figures are, and a shape for every figure.
 */
#include "bench/chart.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DEPTH_MAX 16
#define NAME_MAX_BYTES 32

/* ---- Well-formed XML ------------------------------------------------------------------------ */

static bool is_reference(const char *at)
{
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strncmp(at, known[i], strlen(known[i])) == 0) return true;
    return false;
}

static bool is_text(const char *from, const char *until)
{
    for (const char *at = from; at < until; at++) {
        if (*at == '<' || (*at == '&' && !is_reference(at))) return false;
        if ((unsigned char)*at < ' ' && *at != '\n') return false;
    }
    return true;
}

/* name="text" again and again, up to the tag's end. */
static bool are_attributes(const char *at, const char *end)
{
    while (true) {
        while (at < end && isspace((unsigned char)*at)) at++;
        if (at == end) return true;
        const char *equals = memchr(at, '=', (size_t)(end - at));
        if (equals == NULL || equals[1] != '"') return false;
        const char *close = memchr(equals + 2, '"', (size_t)(end - equals - 2));
        if (close == NULL || !is_text(equals + 2, close)) return false;
        at = close + 1;
    }
}

/* One document of balanced tags with quoted attributes, and nothing else that is markup. */
static bool is_well_formed(const char *xml)
{
    char open[DEPTH_MAX][NAME_MAX_BYTES];
    unsigned depth = 0;
    const char *at = xml;
    do {
        const char *tag = strchr(at, '<');
        const char *end = tag == NULL ? NULL : strchr(tag, '>');
        if (end == NULL || !is_text(at, tag)) return false;
        bool closes = tag[1] == '/';
        bool is_empty = end[-1] == '/';
        const char *name = tag + 1 + closes;
        size_t length = strcspn(name, " />");
        if (length == 0 || length >= NAME_MAX_BYTES) return false;
        if (closes) {
            if (depth == 0 || strlen(open[--depth]) != length) return false;
            if (strncmp(open[depth], name, length) != 0) return false;
        } else if (!are_attributes(name + length, end - is_empty)) {
            return false;
        } else if (!is_empty) {
            if (depth == DEPTH_MAX) return false;
            memcpy(open[depth], name, length);
            open[depth++][length] = 0;
        }
        at = end + 1;
    } while (depth > 0);
    return strcmp(at, "\n") == 0;
}

static void the_checker_finds_what_is_wrong(void **state)
{
    (void)state;
    assert_true(is_well_formed("<a b=\"c\"><d/>x &amp; y</a>\n"));
    assert_false(is_well_formed("<a><d></a>\n"));
    assert_false(is_well_formed("<a>x & y</a>\n"));
    assert_false(is_well_formed("<a b=c></a>\n"));
    assert_false(is_well_formed("<a></a><b></b>\n"));
    assert_false(is_well_formed("<a>\x01</a>\n"));
}

/* ---- Charts --------------------------------------------------------------------------------- */

static unsigned count_of(const char *text, const char *part)
{
    unsigned count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++) count++;
    return count;
}

static char *bars_as_text(const struct chart_bars *bars)
{
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    assert_int_equal(chart_put_bars(to, bars), 0);
    fclose(to);
    assert_true(is_well_formed(text));
    return text;
}

static char *curves_as_text(const struct chart_curves *curves)
{
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    assert_int_equal(chart_put_curves(to, curves), 0);
    fclose(to);
    assert_true(is_well_formed(text));
    return text;
}

static struct chart_bars bars_of(const struct chart_group *groups, uint32_t count)
{
    return (struct chart_bars){.frame = {.title = "title",
                                         .subtitle = "subtitle",
                                         .axis = "records a second",
                                         .feet = {"a machine", "its cpus"}},
                               .series = {"one", "two", "three"},
                               .series_count = 3,
                               .mark_name = "limit",
                               .groups = groups,
                               .groups_count = count};
}

static void bars_have_a_bar_for_every_figure(void **state)
{
    (void)state;
    struct chart_group groups[] = {
        {.label = "first",
         .detail = "its detail",
         .bars = {{.value = 5e6, .low = 4e6, .high = 6e6, .text = "5M/s"},
                  {.value = 4e6, .text = "4M/s"},
                  {.value = 3e6, .text = "3M/s"}},
         .mark = 8e6,
         .mark_text = "limit 8M/s"},
        {.label = "second",
         .bars = {{.value = 1, .text = "1/s"}, {.value = 2, .text = "2/s"}, {.text = "0/s"}}},
    };
    struct chart_bars bars = bars_of(groups, 2);
    char *text = bars_as_text(&bars);
    assert_int_equal(count_of(text, "<rect class=\"bar "), 6);
    assert_int_equal(count_of(text, "<path class=\"whisker\""), 1);
    assert_non_null(strstr(text, ">first<"));
    assert_non_null(strstr(text, ">limit 8M/s<"));
    assert_non_null(strstr(text, ">records a second<"));
    assert_non_null(strstr(text, ">its cpus<"));
    /* The one in the legend and the one of the first group. */
    assert_int_equal(count_of(text, "<path class=\"mark\""), 2);
    free(text);
}

/* The number behind `attribute="` of the first place after `part`. */
static double number_after(const char *text, const char *part, const char *attribute)
{
    const char *at = strstr(text, part);
    assert_non_null(at);
    at = strstr(at, attribute);
    assert_non_null(at);
    return strtod(at + strlen(attribute), NULL);
}

static void a_bar_is_as_long_as_its_figure(void **state)
{
    (void)state;
    struct chart_group group = {.bars = {{.value = 100}, {.value = 50}, {.value = 25}}};
    struct chart_bars bars = bars_of(&group, 1);
    char *text = bars_as_text(&bars);
    double whole = number_after(text, "class=\"bar s0\"", " width=\"");
    assert_true(whole > 100);
    assert_true(fabs(number_after(text, "class=\"bar s1\"", " width=\"") - whole / 2) < 0.2);
    assert_true(fabs(number_after(text, "class=\"bar s2\"", " width=\"") - whole / 4) < 0.2);
    free(text);
}

static void a_good_side_is_shaded(void **state)
{
    (void)state;
    struct chart_group groups[] = {{.bars = {{.value = 0.4}}, .mark = 0.5, .side = CHART_AT_LEAST},
                                   {.bars = {{.value = 9}}, .mark = 1.5, .side = CHART_AT_MOST}};
    struct chart_bars bars = bars_of(groups, 2);
    bars.series_count = 1;
    bars.axis_max = 2;
    char *text = bars_as_text(&bars);
    assert_int_equal(count_of(text, "<rect class=\"band\""), 2);
    assert_int_equal(count_of(text, "<rect class=\"bar "), 2);
    /* The bar that is too long ends in an arrow. */
    assert_int_equal(count_of(text, "<path class=\"bar "), 1);
    free(text);
}

static void nothing_measured_is_said(void **state)
{
    (void)state;
    struct chart_bars bars = bars_of(NULL, 0);
    struct chart_curves curves = {.frame = {.title = "title"}};
    char *text = bars_as_text(&bars);
    assert_non_null(strstr(text, ">nothing was measured<"));
    assert_int_equal(count_of(text, "class=\"bar "), 0);
    free(text);
    text = curves_as_text(&curves);
    assert_non_null(strstr(text, ">nothing was measured<"));
    free(text);
}

static void strange_figures_draw_no_nonsense(void **state)
{
    (void)state;
    static const double strange[] = {0, -1, NAN, INFINITY, 1e-300, 1e300};
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
        struct chart_point point = {.percentile = 100, .value = strange[i]};
        struct chart_group group = {.bars = {{.value = strange[i], .high = strange[i]}},
                                    .mark = strange[i]};
        struct chart_bars bars = bars_of(&group, 1);
        struct chart_curves curves = {.curves = {{.points = &point, .points_count = 1}},
                                      .curves_count = 1};
        char *text = bars_as_text(&bars);
        assert_null(strstr(text, "nan"));
        assert_null(strstr(text, "inf"));
        free(text);
        text = curves_as_text(&curves);
        assert_null(strstr(text, "nan"));
        assert_null(strstr(text, "inf"));
        free(text);
    }
}

static void markup_in_a_text_is_escaped(void **state)
{
    (void)state;
    struct chart_group group = {.label = "<b>&\"",
                                .bars = {{.value = 1, .text = "</svg>"}, {.text = "\x01\xff]]>"}}};
    struct chart_bars bars = bars_of(&group, 1);
    bars.frame.title = "<script>alert(1)</script> & more";
    bars.frame.feet[0] = "a \"machine\" of <AMD> \xc3\xa9";
    char *text = bars_as_text(&bars);
    assert_non_null(strstr(text, ">&lt;b&gt;&amp;&quot;<"));
    assert_null(strstr(text, "<script>"));
    assert_non_null(strstr(text, "\xc3\xa9"));
    assert_int_equal(count_of(text, "</svg>"), 1);
    free(text);
}

static void curves_have_a_line_for_every_curve(void **state)
{
    (void)state;
    struct chart_point points[] = {{0, 5}, {50, 8}, {90, 9}, {99, 20}, {99.9, 400}};
    struct chart_curves curves = {
        .frame = {.title = "title", .axis = "microseconds"},
        .curves = {{.name = "ours", .detail = "p50 8 us", .points = points, .points_count = 5},
                   {.name = "bare", .points = points, .points_count = 1}},
        .curves_count = 2,
    };
    char *text = curves_as_text(&curves);
    assert_int_equal(count_of(text, "<path class=\"curve "), 2);
    assert_non_null(strstr(text, ">99.9 %<"));
    assert_null(strstr(text, ">99.99 %<"));
    assert_non_null(strstr(text, ">microseconds<"));
    assert_non_null(strstr(text, ">p50 8 us<"));
    /* From 5 to 500, and every 1, 2, 5 between. */
    assert_non_null(strstr(text, ">500<"));
    assert_null(strstr(text, ">1000<"));
    free(text);
}

static void charts_need_nothing_else(void **state)
{
    (void)state;
    struct chart_group group = {.bars = {{.value = 1}}};
    struct chart_bars bars = bars_of(&group, 1);
    char *text = bars_as_text(&bars);
    assert_non_null(strstr(text, "prefers-color-scheme: dark"));
    assert_null(strstr(text, "href"));
    assert_null(strstr(text, "url("));
    assert_null(strstr(text, "@import"));
    free(text);
}

static void a_full_disk_is_an_error(void **state)
{
    (void)state;
    struct chart_bars bars = bars_of(NULL, 0);
    FILE *full = fopen("/dev/full", "we");
    assert_non_null(full);
    setvbuf(full, NULL, _IONBF, 0);
    assert_int_equal(chart_put_bars(full, &bars), -EIO);
    fclose(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checker_finds_what_is_wrong),
        cmocka_unit_test(bars_have_a_bar_for_every_figure),
        cmocka_unit_test(a_bar_is_as_long_as_its_figure),
        cmocka_unit_test(a_good_side_is_shaded),
        cmocka_unit_test(nothing_measured_is_said),
        cmocka_unit_test(strange_figures_draw_no_nonsense),
        cmocka_unit_test(markup_in_a_text_is_escaped),
        cmocka_unit_test(curves_have_a_line_for_every_curve),
        cmocka_unit_test(charts_need_nothing_else),
        cmocka_unit_test(a_full_disk_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
