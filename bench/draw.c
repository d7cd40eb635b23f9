#include "bench/draw.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "bench/chart.h"
#include "bench/cpus.h"
#include "bench/report.h"
#include "fero.h"

#define FOOT_BYTES (CPUS_TEXT_BYTES + 64)

/* The lines at a chart's foot: the machine, and who ran where on it. */
struct feet {
    char machine[FOOT_BYTES];
    char cpus[CPUS_TEXT_BYTES];
};

static void set_feet(struct chart_frame *frame, struct feet *feet, const struct cpus_plan *plan)
{
    char machine[CPUS_TEXT_BYTES];
    snprintf(feet->machine, sizeof feet->machine, "%s; fero %s", cpus_machine(machine),
             FERO_VERSION);
    cpus_describe(plan, feet->cpus);
    frame->feet[0] = feet->machine;
    frame->feet[1] = feet->cpus;
}

/* -------------------------------------------------------------------------------------- file */

static FILE *open_chart(const char *bench, const char *path, const char *mode)
{
    FILE *file = fopen(path, mode);
    if (file == NULL)
        fprintf(stderr, "fero %s: cannot write %s: %s\n", bench, path, strerror(errno));
    return file;
}

bool draw_may_write(const char *bench, const char *path)
{
    /* Appending nothing leaves an older chart as it is. */
    FILE *file = open_chart(bench, path, "ae");
    if (file == NULL) return false;
    fclose(file);
    return true;
}

static bool close_chart(const char *bench, const char *path, FILE *file, int err)
{
    if (fclose(file) == 0 && err == 0) return true;
    fprintf(stderr, "fero %s: cannot write all of %s\n", bench, path);
    return false;
}

static bool save_bars(const char *bench, const char *path, const struct chart_bars *bars)
{
    FILE *file = open_chart(bench, path, "we");
    return file != NULL && close_chart(bench, path, file, chart_put_bars(file, bars));
}

/* ------------------------------------------------------------------------------------- speed */

static const char *plural(uint32_t count)
{
    return count == 1 ? "" : "s";
}

#define COUNT_BYTES 16
/* 3000000 is "3M", 20000 is "20k". */
static const char *count_text(uint64_t count, char text[COUNT_BYTES])
{
    if (count >= 1000000)
        snprintf(text, COUNT_BYTES, "%.4gM", (double)count / 1e6);
    else if (count >= 10000)
        snprintf(text, COUNT_BYTES, "%.4gk", (double)count / 1e3);
    else
        snprintf(text, COUNT_BYTES, "%u", (unsigned)count);
    return text;
}

static void set_bar(struct chart_bar *bar, const struct speed_result *result,
                    const struct speed_series *seconds)
{
    char rate[REPORT_NUMBER_BYTES];
    bar->value = speed_per_s(result, speed_series_median(seconds));
    bar->low = speed_per_s(result, speed_series_max(seconds));
    bar->high = speed_per_s(result, speed_series_min(seconds));
    snprintf(bar->text, sizeof bar->text, "%s/s", report_rate(bar->value, rate));
}

static void set_group(struct chart_group *group, const struct speed_result *result)
{
    const struct speed_case *about = &result->about;
    char count[COUNT_BYTES];
    char rate[REPORT_NUMBER_BYTES];
    snprintf(group->label, sizeof group->label, "%s, %u bytes", sender_verb_names[about->verb],
             about->message_bytes);
    snprintf(group->detail, sizeof group->detail, "%s records, %u client%s, %u server%s",
             count_text(about->records, count), about->clients, plural(about->clients),
             about->servers, plural(about->servers));
    if (about->sockets > 1)
        snprintf(group->label, sizeof group->label, "%s, %u bytes, %u sockets",
                 sender_verb_names[about->verb], about->message_bytes,
                 about->sockets * about->clients);
    set_bar(&group->bars[0], result, &result->tacks_s);
    set_bar(&group->bars[1], result, &result->yacks_s);
    set_bar(&group->bars[2], result, &result->sacks_s);
    if (!speed_is_verified(result)) {
        snprintf(group->bars[2].text, sizeof group->bars[2].text, "NOT VERIFIED");
        group->bars[2].tone = CHART_BAD;
    }
    group->mark = speed_series_median(&result->limit_per_s);
    if (group->mark <= 0) return;
    struct chart_bar *sacks = &group->bars[2];
    size_t used = strlen(sacks->text);
    snprintf(sacks->text + used, sizeof sacks->text - used, ", %.2f of limit",
             sacks->value / group->mark);
    snprintf(group->mark_text, sizeof group->mark_text, "limit %s/s",
             report_rate(group->mark, rate));
}

bool draw_speed(const char *bench, const char *path, const struct speed_result *results,
                uint32_t count)
{
    struct feet feet = {.machine = ""};
    char subtitle[FOOT_BYTES];
    struct chart_bars bars = {
        .frame = {.title = "fero bench speed", .subtitle = subtitle, .axis = "records a second"},
        .series = {"tacks: sent", "yacks: acknowledged", "sacks: replied to"},
        .series_count = 3,
        .groups_count = count};
    struct chart_group *groups = memory_take((count + 1) * sizeof *groups);
    if (groups == NULL) {
        fprintf(stderr, "fero %s: no memory for %s\n", bench, path);
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        set_group(&groups[i], &results[i]);
        if (groups[i].mark > 0) bars.mark_name = "the machine's limit: a bare socket loop";
    }
    bars.groups = groups;
    snprintf(subtitle, sizeof subtitle, "How many records a second? More is better.");
    if (count > 0) set_feet(&bars.frame, &feet, &results[0].plan);
    if (count > 0 && results[0].sacks_s.count > 1)
        snprintf(subtitle, sizeof subtitle,
                 "How many records a second? More is better. Medians of %u runs, and their range.",
                 results[0].sacks_s.count);
    bool saved = save_bars(bench, path, &bars);
    memory_put(groups);
    return saved;
}

/* ----------------------------------------------------------------------------------- latency */

#define POINTS_A_NINE 50
#define POINTS_MAX (10 * POINTS_A_NINE)

static void set_curve(struct chart_curve *curve, const struct histogram *histogram,
                      struct chart_point *points, const char *name)
{
    double most = log10((double)histogram->count);
    curve->points = points;
    for (uint32_t i = 0; i < POINTS_MAX && i <= most * POINTS_A_NINE; i++) {
        double percentile = 100 * (1 - pow(10, -(double)i / POINTS_A_NINE));
        points[i] = (struct chart_point){
            .percentile = percentile,
            .value = (double)histogram_percentile_ns(histogram, percentile) / 1e3};
        curve->points_count = i + 1;
    }
    snprintf(curve->name, sizeof curve->name, "%s", name);
    snprintf(curve->detail, sizeof curve->detail,
             "p50 %.1f us, p99 %.1f us, p99.9 %.1f us, longest %.0f us",
             (double)histogram_percentile_ns(histogram, 50) / 1e3,
             (double)histogram_percentile_ns(histogram, 99) / 1e3,
             (double)histogram_percentile_ns(histogram, 99.9) / 1e3,
             (double)histogram_max_ns(histogram) / 1e3);
}

bool draw_latency(const char *bench, const char *path, const struct latency_result *result)
{
    static const char *const waiting[] = {"default waiting", "busy polling", "sleeping when idle"};
    struct feet feet = {.machine = ""};
    struct chart_point points[2][POINTS_MAX];
    char subtitle[FOOT_BYTES];
    struct chart_curves curves = {.frame = {.title = "fero bench latency",
                                            .subtitle = subtitle,
                                            .axis = "round trip in microseconds"},
                                  .curves_count = result->about.limit ? 2 : 1};
    snprintf(subtitle, sizeof subtitle,
             "%s of %u bytes, one in flight, %s. %llu round trips. Lower is better.",
             sender_verb_names[result->about.verb], result->about.message_bytes,
             waiting[result->about.waiting], (unsigned long long)result->ours.count);
    set_feet(&curves.frame, &feet, &result->plan);
    set_curve(&curves.curves[0], &result->ours, points[0], "fero");
    if (result->about.limit)
        set_curve(&curves.curves[1], &result->limit, points[1], "bare ping-pong, busy");
    FILE *file = open_chart(bench, path, "we");
    return file != NULL && close_chart(bench, path, file, chart_put_curves(file, &curves));
}

/* ---------------------------------------------------------------------------------- promises */

/* Beyond this many times the limit a bar is cut, so that the others stay readable. */
#define RATIO_MAX 2.5

static void set_promise(struct chart_group *group, const struct promise *promise)
{
    char ours[PROMISE_TEXT_BYTES];
    char limit[PROMISE_TEXT_BYTES];
    char target[PROMISE_TEXT_BYTES];
    struct chart_bar *bar = &group->bars[0];
    enum promise_verdict verdict = promise_judge(promise);
    const char *space = verdict == PROMISE_NONE ? "" : ", ";
    bar->value = promise_ratio(promise);
    if (promise->limit > 0 && promise->ours_min > 0) {
        bar->low = promise->ours_min / promise->limit;
        bar->high = promise->ours_max / promise->limit;
    }
    snprintf(bar->text, sizeof bar->text, "%.2f%s%s", bar->value, space,
             promise_verdict_text(verdict));
    if (verdict != PROMISE_NONE) bar->tone = verdict == PROMISE_MET ? CHART_GOOD : CHART_BAD;
    snprintf(group->label, sizeof group->label, "%s", promise->what);
    snprintf(group->detail, sizeof group->detail, "%.20s beside %.20s",
             promise_figure_text(promise, promise->ours, ours),
             promise_figure_text(promise, promise->limit, limit));
    if (promise->target <= 0) return;
    group->mark = promise->target;
    group->side = promise->kind == PROMISE_RATE ? CHART_AT_LEAST : CHART_AT_MOST;
    snprintf(group->mark_text, sizeof group->mark_text, "target %s",
             promise_target_text(promise, target));
}

bool draw_promises(const char *bench, const char *path, const struct promise *promises,
                   uint32_t count, const struct cpus_plan *plan)
{
    struct feet feet = {.machine = ""};
    struct chart_bars bars = {
        .frame = {.title = "What fero promises of its speed",
                  .subtitle =
                      "Rates want to be long, latencies and costs short: a bar that ends on "
                      "green keeps its promise.",
                  .axis = "ours, as a multiple of the machine's limit"},
        .series = {"ours by the limit"},
        .series_count = 1,
        .mark_name = "target, and its good side",
        .groups_count = count,
        .axis_max = RATIO_MAX,
    };
    struct chart_group *groups = memory_take((count + 1) * sizeof *groups);
    if (groups == NULL) {
        fprintf(stderr, "fero %s: no memory for %s\n", bench, path);
        return false;
    }
    for (uint32_t i = 0; i < count; i++) set_promise(&groups[i], &promises[i]);
    bars.groups = groups;
    set_feet(&bars.frame, &feet, plan);
    bool saved = save_bars(bench, path, &bars);
    memory_put(groups);
    return saved;
}
