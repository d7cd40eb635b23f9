/*
 * What `make bench` runs: the figures that fero promises, each beside the machine's limit, their
 * runs taken alternately. First the blocks, then one table with the targets.
 */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"
#include "bench/bench.h"
#include "bench/crossing.h"
#include "bench/draw.h"
#include "bench/latency.h"
#include "bench/options.h"
#include "bench/progress.h"
#include "bench/promise.h"
#include "bench/report.h"
#include "bench/speed.h"
#include "fero.h"

#define BENCH "bench all"
#define NAME "bench"

/* ------------------------------------------------------------------------------------- cases */

struct speed_row {
    const char *what;
    enum sender_verb verb;
    uint32_t message_bytes;
    uint32_t sockets;
    uint64_t records;
    double target;     /* share of the limit; 0: shown without a promise */
    double per_s;      /* sacks: at least this too ... */
    double if_limit_s; /* ... where the limit reaches this */
    bool all_acks;     /* the target is of tacks and yacks too */
};

static const struct speed_row speed_rows[] = {
    {"update 10 B", SENDER_UPDATE, 10, 1, 3000000, 0.5, 0, 0, false},
    {"update 100 B", SENDER_UPDATE, 100, 1, 3000000, 0.5, 8e6, 16e6, false},
    {"update 1000 B", SENDER_UPDATE, 1000, 1, 1000000, 0.5, 0, 0, false},
    {"echo 100 B", SENDER_ECHO, 100, 1, 3000000, 0.5, 8e6, 16e6, true},
    {"update 100 B, 64 sockets", SENDER_UPDATE, 100, 64, 3000000, 0, 0, 0, false},
};

struct latency_row {
    const char *what;
    enum nodes_waiting waiting;
    double p50; /* times the bare ping-pong's, at most */
    double p99; /* 0: no such promise */
};

static const struct latency_row latency_rows[] = {
    {"ping-pong, busy-poll", NODES_BUSY_POLL, 1.3, 2},
    {"ping-pong, default", NODES_ADAPTIVE, 1.5, 0},
};

#define CROSSING_TARGET 1.6

/* Three for each speed, two for each latency, one for crossing. */
#define PROMISES_MAX (3 * ARRAY_COUNT(speed_rows) + 2 * ARRAY_COUNT(latency_rows) + 1)
#define STEPS_COUNT (ARRAY_COUNT(speed_rows) + ARRAY_COUNT(latency_rows) + 1)

struct all_options {
    int64_t runs;
    int64_t records;
    int64_t messages;
    int64_t keys;
    bool quick;
    bool json;
    const char *svg;
};

struct all_results {
    struct speed_result speed;
    struct latency_result latency;
    struct crossing_result crossing;
    struct cpus_plan plan;
    struct promise promises[PROMISES_MAX];
    uint32_t promises_count;
    uint32_t steps_done;
    char step[64];
};

/* "[3/8] update 1000 B" */
static const char *next_step(struct all_results *results, const char *what)
{
    snprintf(results->step, sizeof results->step, "[%u/%zu] %s", ++results->steps_done, STEPS_COUNT,
             what);
    progress_say("%s", results->step);
    return results->step;
}

static struct promise *add_promise(struct all_results *results)
{
    ASSERT(results->promises_count < PROMISES_MAX);
    return &results->promises[results->promises_count++];
}

/* ------------------------------------------------------------------------------------- speed */

static void add_acks(struct all_results *results, const struct speed_row *row, const char *acks,
                     const struct speed_series *seconds)
{
    const struct speed_result *result = &results->speed;
    struct promise *promise = add_promise(results);
    *promise =
        (struct promise){.kind = PROMISE_RATE,
                         .ours = speed_per_s(result, speed_series_median(seconds)),
                         .ours_min = speed_per_s(result, speed_series_max(seconds)),
                         .ours_max = speed_per_s(result, speed_series_min(seconds)),
                         .limit = speed_series_median(&result->limit_per_s),
                         .server_ns_per_msg = speed_series_median(&result->server_ns_per_msg),
                         .client_ns_per_msg = speed_series_median(&result->client_ns_per_msg),
                         .target = row->target,
                         .is_verified = speed_is_verified(result)};
    snprintf(promise->what, sizeof promise->what, "%s: %s", row->what, acks);
    if (seconds != &result->sacks_s) return;
    promise->per_s = row->per_s;
    promise->if_limit_s = row->if_limit_s;
}

static int measure_speed(const struct all_options *options, struct all_results *results,
                         const struct speed_row *row)
{
    struct speed_result *result = &results->speed;
    struct speed_case about = {.bench = BENCH,
                               .step = next_step(results, row->what),
                               .name = NAME,
                               .records = row->records,
                               .message_bytes = row->message_bytes,
                               .clients = 1,
                               .servers = 1,
                               .shards = 1,
                               .sockets = row->sockets,
                               .verb = row->verb,
                               .keys = (uint64_t)options->keys,
                               .runs = (uint32_t)options->runs,
                               .limit = true};
    if (options->records > 0) about.records = (uint64_t)options->records;
    int status = speed_measure(&about, result);
    if (status != 0) return status;
    results->plan = result->plan;
    if (options->json) {
        report_json(stdout, result);
    } else {
        report_block(stdout, result);
        report_notes(stdout, result);
    }
    fflush(stdout);
    if (row->all_acks) {
        add_acks(results, row, "tacks", &result->tacks_s);
        add_acks(results, row, "yacks", &result->yacks_s);
    }
    add_acks(results, row, "sacks", &result->sacks_s);
    return 0;
}

/* ----------------------------------------------------------------------------------- latency */

static void add_percentile(struct all_results *results, const struct latency_row *row,
                           const char *percentile, const struct latency_pair *pair, double target)
{
    struct promise *promise = add_promise(results);
    *promise = (struct promise){.kind = PROMISE_LATENCY,
                                .ours = speed_series_median(&pair->ours_us),
                                .ours_min = speed_series_min(&pair->ours_us),
                                .ours_max = speed_series_max(&pair->ours_us),
                                .limit = speed_series_median(&pair->limit_us),
                                .target = target,
                                .is_verified = results->latency.wrong == 0};
    snprintf(promise->what, sizeof promise->what, "%s: %s", row->what, percentile);
}

static int measure_latency(const struct all_options *options, struct all_results *results,
                           const struct latency_row *row)
{
    struct latency_result *result = &results->latency;
    struct latency_case about = {.bench = BENCH,
                                 .step = next_step(results, row->what),
                                 .name = NAME,
                                 .shards = 1,
                                 .message_bytes = 100,
                                 .verb = SENDER_UPDATE,
                                 .messages = (uint64_t)options->messages,
                                 .warmup = 5000,
                                 .waiting = row->waiting,
                                 .limit = true};
    int status = latency_measure(&about, result);
    if (status != 0) return status;
    if (options->json) {
        report_latency_json(stdout, result);
    } else {
        printf("\n%s\n", row->what);
        report_latency(stdout, &result->ours);
    }
    fflush(stdout);
    add_percentile(results, row, "p50", &result->p50, row->p50);
    add_percentile(results, row, "p99", &result->p99, row->p99);
    return 0;
}

/* ---------------------------------------------------------------------------------- crossing */

static int measure_crossing(const struct all_options *options, struct all_results *results)
{
    struct crossing_result *result = &results->crossing;
    struct crossing_case about = {.bench = BENCH,
                                  .step =
                                      next_step(results, "half of the requests crossing a lane"),
                                  .name = NAME,
                                  .records = 2000000,
                                  .message_bytes = 100,
                                  .keys = (uint32_t)options->keys,
                                  .runs = (uint32_t)options->runs,
                                  .waiting = NODES_SLEEP};
    if (options->records > 0) about.records = (uint64_t)options->records;
    int status = crossing_measure(&about, result);
    if (status != 0) return status;
    if (options->json) report_crossing_json(stdout, result);
    fflush(stdout);
    /* What it is compared with is not the machine's limit, but the same without crossing. */
    struct promise *promise = add_promise(results);
    *promise =
        (struct promise){.what = "half crossing: server CPU a msg",
                         .kind = PROMISE_COST,
                         .ours = speed_series_median(&result->half.server_ns_per_msg),
                         .ours_min = speed_series_min(&result->half.server_ns_per_msg),
                         .ours_max = speed_series_max(&result->half.server_ns_per_msg),
                         .limit = speed_series_median(&result->none.server_ns_per_msg),
                         .server_ns_per_msg = speed_series_median(&result->half.server_ns_per_msg),
                         .target = CROSSING_TARGET,
                         .is_verified = crossing_is_verified(result)};
    return 0;
}

/* -------------------------------------------------------------------------------------- main */

/* clang-format off */
#define FIELD(field) .offset = offsetof(struct all_options, field)
static const struct option_spec all_specs[] = {
    {.name = "runs", .kind = OPTION_NUMBER, FIELD(runs), .shows = "N", .low = 1,
     .high = SPEED_RUNS_MAX, .help = "of each, alternating with the limit; medians are printed (5)"},
    {.name = "records", .letter = 'r', .kind = OPTION_SIZE, FIELD(records), .shows = "N", .low = 1,
     .high = 4000000000, .help = "messages of a run (3 million, 1 million of 1000 bytes)"},
    {.name = "messages", .kind = OPTION_SIZE, FIELD(messages), .shows = "N", .low = 1,
     .high = 1000000000, .help = "round trips (50000)"},
    {.name = "keys", .kind = OPTION_SIZE, FIELD(keys), .shows = "N", .low = 2, .high = 1 << 26,
     .help = "distinct random keys (1000000)"},
    {.name = "quick", .kind = OPTION_FLAG, FIELD(quick),
     .help = "one short run of each: that it works, not how fast it is"},
    {.name = "svg", .kind = OPTION_TEXT, FIELD(svg), .shows = "FILE", .help = "draw a chart"},
    {.name = "json", .kind = OPTION_FLAG, FIELD(json), .help = "print one JSON object a line"},
};
/* clang-format on */

static const struct command command_all = {
    .name = BENCH,
    .arguments = "",
    .summary = "speed and latency beside the limit of the machine",
    .details =
        "Starts servers of its own. Takes about two minutes. Fails where an answer was wrong,\n"
        "not where a target was missed.",
    .options = all_specs,
    .options_count = ARRAY_COUNT(all_specs),
    .examples = {"fero bench all", "fero bench all --runs 3 --json > today.json",
                 "fero bench all --quick --svg today.svg"},
};

static void settle(struct all_options *options)
{
    int64_t quick = options->quick;
    if (options->runs == 0) options->runs = quick ? 1 : 5;
    if (options->messages == 0) options->messages = quick ? 3000 : 50000;
    if (options->keys == 0) options->keys = quick ? 20000 : 1000000;
    if (options->records == 0 && quick) options->records = 100000;
}

static int measure(const struct all_options *options, struct all_results *results)
{
    int status = 0;
    for (size_t i = 0; status == 0 && i < ARRAY_COUNT(speed_rows); i++)
        status = measure_speed(options, results, &speed_rows[i]);
    for (size_t i = 0; status == 0 && i < ARRAY_COUNT(latency_rows); i++)
        status = measure_latency(options, results, &latency_rows[i]);
    return status == 0 ? measure_crossing(options, results) : status;
}

static void print_promises(const struct all_options *options, const struct all_results *results)
{
    char machine[CPUS_TEXT_BYTES];
    char cpus[CPUS_TEXT_BYTES];
    if (options->json) {
        printf("{\"bench\":\"all\",\"runs\":%lld,\"quick\":%s,\"promises\":",
               (long long)options->runs, options->quick ? "true" : "false");
        promise_put_json(stdout, results->promises, results->promises_count);
        putchar(',');
        report_machine_json(stdout);
        puts("}");
        return;
    }
    putchar('\n');
    promise_put_table(stdout, results->promises, results->promises_count);
    printf(
        "\nThe limit is a bare socket loop; for latency a bare ping-pong, busy; for crossing the "
        "same\nwithout it. Medians of %lld run%s, taken in turn%s.\n",
        (long long)options->runs, options->runs == 1 ? "" : "s",
        options->quick ? "; --quick is too short to judge by" : "");
    printf("%s; %s; fero %s\n", cpus_machine(machine), cpus_describe(&results->plan, cpus),
           FERO_VERSION);
}

static int run_all(const struct all_options *options, struct all_results *results)
{
    int status = measure(options, results);
    if (status != 0) return status;
    print_promises(options, results);
    if (options->svg != NULL && !draw_promises(BENCH, options->svg, results->promises,
                                               results->promises_count, &results->plan))
        return 1;
    for (uint32_t i = 0; i < results->promises_count; i++)
        if (promise_judge(&results->promises[i]) == PROMISE_UNVERIFIED) status = 1;
    return status;
}

int bench_all_main(int argc, char **argv)
{
    struct all_options options = {.runs = 0};
    int count;
    int status = command_parse(&command_all, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    settle(&options);
    if (options.svg != NULL && !draw_may_write(BENCH, options.svg)) return 1;
    struct all_results *results = memory_reserve(sizeof *results, 0);
    if (results == NULL) {
        complain(&command_all, "no memory for the results");
        return STATUS_NOT_FOUND;
    }
    status = run_all(&options, results);
    memory_release(results, sizeof *results);
    return status;
}
