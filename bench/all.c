/*
 * What `make bench` runs: the figures that fero promises, each beside the machine's limit, their
 * runs taken alternately. First the blocks, then one table with the targets.
 */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "bench/bench.h"
#include "bench/draw.h"
#include "bench/latency.h"
#include "bench/options.h"
#include "bench/report.h"
#include "bench/speed.h"
#include "fero.h"

#define BENCH "bench all"
#define NAME "bench"

/* ----------------------------------------------------------------------------------- promises */

struct speed_promise {
    const char *what;
    enum sender_verb verb;
    uint32_t message_bytes;
    uint64_t records;
    double share;      /* of the limit, at least */
    double per_s;      /* at least this too ... */
    double if_limit_s; /* ... where the limit reaches this; 0: no such promise */
};

static const struct speed_promise speed_promises[] = {
    {"update 10 B", SENDER_UPDATE, 10, 3000000, 0.5, 0, 0},
    {"update 100 B", SENDER_UPDATE, 100, 3000000, 0.5, 8e6, 16e6},
    {"update 1000 B", SENDER_UPDATE, 1000, 1000000, 0.5, 0, 0},
    {"echo 100 B", SENDER_ECHO, 100, 3000000, 0.5, 8e6, 16e6},
};

struct latency_promise {
    const char *what;
    enum nodes_waiting waiting;
    double p50; /* times the bare ping-pong's, at most */
    double p99; /* 0: no such promise */
};

static const struct latency_promise latency_promises[] = {
    {"ping-pong, busy-poll", NODES_BUSY_POLL, 1.3, 2},
    {"ping-pong, default", NODES_ADAPTIVE, 1.5, 0},
};

struct all_results {
    struct speed_result speed[ARRAY_COUNT(speed_promises)];
    struct latency_result latency[ARRAY_COUNT(latency_promises)];
};

struct all_options {
    int64_t runs;
    int64_t records;
    int64_t messages;
    bool json;
    const char *svg;
};

/* ----------------------------------------------------------------------------------- measure */

static int measure_speed(const struct all_options *options, struct all_results *results)
{
    for (size_t i = 0; i < ARRAY_COUNT(speed_promises); i++) {
        const struct speed_promise *promise = &speed_promises[i];
        struct speed_case about = {.bench = BENCH,
                                   .name = NAME,
                                   .records = promise->records,
                                   .message_bytes = promise->message_bytes,
                                   .clients = 1,
                                   .servers = 1,
                                   .sockets = 1,
                                   .shards = 1,
                                   .verb = promise->verb,
                                   .keys = 1000000,
                                   .runs = (uint32_t)options->runs,
                                   .limit = true};
        if (options->records > 0) about.records = (uint64_t)options->records;
        int status = speed_measure(&about, &results->speed[i]);
        if (status != 0) return status;
        if (options->json) {
            report_json(stdout, &results->speed[i]);
        } else {
            report_block(stdout, &results->speed[i]);
            report_notes(stdout, &results->speed[i]);
        }
        fflush(stdout);
    }
    return 0;
}

static int measure_latency(const struct all_options *options, struct all_results *results)
{
    for (size_t i = 0; i < ARRAY_COUNT(latency_promises); i++) {
        struct latency_case about = {.bench = BENCH,
                                     .name = NAME,
                                     .shards = 1,
                                     .message_bytes = 100,
                                     .verb = SENDER_UPDATE,
                                     .messages = (uint64_t)options->messages,
                                     .warmup = 5000,
                                     .waiting = latency_promises[i].waiting,
                                     .limit = true};
        int status = latency_measure(&about, &results->latency[i]);
        if (status != 0) return status;
        if (options->json) {
            report_latency_json(stdout, &results->latency[i]);
        } else {
            printf("\n%s\n", latency_promises[i].what);
            report_latency(stdout, &results->latency[i].ours);
        }
        fflush(stdout);
    }
    return 0;
}

/* ------------------------------------------------------------------------------------- table */

static void put_speed_row(FILE *to, const struct speed_promise *promise,
                          const struct speed_result *result)
{
    char ours[REPORT_NUMBER_BYTES];
    char bound[REPORT_NUMBER_BYTES];
    char target[64];
    double per_s = speed_per_s(result, speed_series_median(&result->sacks_s));
    double limit = speed_series_median(&result->limit_per_s);
    bool absolute = promise->if_limit_s > 0 && limit >= promise->if_limit_s;
    bool is_met = per_s >= promise->share * limit && (!absolute || per_s >= promise->per_s);
    if (absolute)
        snprintf(target, sizeof target, ">= %.2f and 8M/s", promise->share);
    else
        snprintf(target, sizeof target, ">= %.2f", promise->share);
    fprintf(to, "%-22s %12s %12s %6.2f %8.1f %8.1f  %-18s %s\n", promise->what,
            report_rate(per_s, ours), report_rate(limit, bound), limit > 0 ? per_s / limit : 0,
            speed_series_median(&result->server_ns_per_msg),
            speed_series_median(&result->client_ns_per_msg), target,
            !speed_is_verified(result) ? "NOT VERIFIED"
            : is_met                   ? "met"
                                       : "missed");
}

static double us(const struct histogram *histogram, double percentile)
{
    return (double)histogram_percentile_ns(histogram, percentile) / 1e3;
}

static void put_latency_row(FILE *to, const char *what, const struct latency_result *result,
                            double percentile, double target)
{
    char name[64];
    char ours[REPORT_NUMBER_BYTES];
    char bound[REPORT_NUMBER_BYTES];
    char goal[32] = "";
    double own = us(&result->ours, percentile);
    double limit = us(&result->limit, percentile);
    double ratio = limit > 0 ? own / limit : 0;
    snprintf(name, sizeof name, "%s p%g", what, percentile);
    snprintf(ours, sizeof ours, "%.1f us", own);
    snprintf(bound, sizeof bound, "%.1f us", limit);
    if (target > 0) snprintf(goal, sizeof goal, "<= %.2f", target);
    fprintf(to, "%-22s %12s %12s %6.2f %8s %8s  %-18s %s\n", name, ours, bound, ratio, "", "", goal,
            result->wrong > 0 ? "NOT VERIFIED"
            : target == 0     ? ""
            : ratio <= target ? "met"
                              : "missed");
}

static void put_table(FILE *to, const struct all_results *results)
{
    char text[CPUS_TEXT_BYTES];
    fprintf(to, "\n%-22s %12s %12s %6s %8s %8s  %s\n", "what", "ours", "limit", "share", "server",
            "client", "target");
    fprintf(to, "%-22s %12s %12s %6s %8s %8s\n", "", "/s", "/s", "", "ns/msg", "ns/msg");
    for (size_t i = 0; i < ARRAY_COUNT(speed_promises); i++)
        put_speed_row(to, &speed_promises[i], &results->speed[i]);
    for (size_t i = 0; i < ARRAY_COUNT(latency_promises); i++) {
        const struct latency_promise *promise = &latency_promises[i];
        put_latency_row(to, promise->what, &results->latency[i], 50, promise->p50);
        put_latency_row(to, promise->what, &results->latency[i], 99, promise->p99);
    }
    fprintf(to, "\n%s", cpus_machine(text));
    fprintf(to, "; %s; fero %s\n", cpus_describe(&results->speed[0].plan, text), FERO_VERSION);
}

static bool is_verified(const struct all_results *results)
{
    for (size_t i = 0; i < ARRAY_COUNT(speed_promises); i++)
        if (!speed_is_verified(&results->speed[i])) return false;
    for (size_t i = 0; i < ARRAY_COUNT(latency_promises); i++)
        if (results->latency[i].wrong > 0) return false;
    return true;
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
     .high = 1000000000, .help = "round trips (40000)"},
    {.name = "svg", .kind = OPTION_TEXT, FIELD(svg), .shows = "FILE", .help = "draw a chart"},
    {.name = "json", .kind = OPTION_FLAG, FIELD(json), .help = "print one JSON object a line"},
};
/* clang-format on */

static const struct command command_all = {
    .name = BENCH,
    .arguments = "",
    .summary = "speed and latency beside the limit of the machine",
    .details = "Starts servers of its own. Takes about two minutes.",
    .options = all_specs,
    .options_count = ARRAY_COUNT(all_specs),
    .examples = {"fero bench all", "fero bench all --runs 3 --json > today.json",
                 "fero bench all --svg today.svg"},
};

static int run_all(const struct all_options *options, struct all_results *results)
{
    int status = measure_speed(options, results);
    if (status == 0) status = measure_latency(options, results);
    if (status != 0) return status;
    if (!options->json) put_table(stdout, results);
    if (options->svg != NULL &&
        !draw_speed(BENCH, options->svg, results->speed, ARRAY_COUNT(speed_promises)))
        return 1;
    return is_verified(results) ? 0 : 1;
}

int bench_all_main(int argc, char **argv)
{
    struct all_options options = {.runs = 5, .messages = 40000};
    int count;
    int status = command_parse(&command_all, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
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
