/*
 * The latency bench: one message, its reply, the next message. Closed loop, so what is measured is
 * the time of service, not of waiting in a queue. The bare ping-pong beside it moves as many bytes,
 * spins on both sides, and takes its turns in between: a few parts of each, so that a machine that
 * changes its speed changes it for both. Ratios are of the medians of the parts.
 */
#include "bench/latency.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/memory.h"
#include "bench/bench.h"
#include "bench/draw.h"
#include "bench/keys.h"
#include "bench/limit.h"
#include "bench/options.h"
#include "bench/progress.h"
#include "bench/report.h"
#include "cli/output.h"
#include "fero.h"

#define PARTS 5
#define CONNECT_MS 10000
#define REPLY_MS 10000
/* What fero puts before a message; the bare ping-pong moves it too. */
#define FRAME_HEADER_BYTES 24

struct pinger {
    const struct latency_case *about;
    fero *runtime;
    fero_cache *cache;
    uint8_t *value;
    size_t value_bytes;
    uint64_t number;
    bool is_back;
    bool is_wrong;
};

static void on_reply(const fero_result *result, void *ud)
{
    struct pinger *pinger = ud;
    bool echo = pinger->about->verb == SENDER_ECHO;
    pinger->is_back = true;
    pinger->is_wrong = result->outcome != FERO_OUTCOME_OK;
    if (echo && !pinger->is_wrong)
        pinger->is_wrong = result->value.s.len != pinger->value_bytes ||
                           memcmp(result->value.s.ptr, pinger->value, pinger->value_bytes) != 0;
}

/* One round trip; false: the connection is lost. */
static bool ping(struct pinger *pinger, const fero_wopts *wopts)
{
    fero_val value = {.type = FERO_T_BYTES, .s = {pinger->value, pinger->value_bytes}};
    uint64_t number = pinger->number++;
    uint64_t key = keys_scattered(number);
    memcpy(pinger->value, &number, sizeof number);
    pinger->is_back = false;
    int err = pinger->about->verb == SENDER_ECHO
                  ? fero_send(pinger->cache, (fero_slice){"ECHO", 4}, (fero_slice){NULL, 0}, &value,
                              wopts, NULL)
                  : fero_update(pinger->cache, (fero_slice){&key, sizeof key}, &value, wopts, NULL);
    while (err >= 0 && !pinger->is_back) err = fero_run(pinger->runtime, REPLY_MS);
    return err >= 0;
}

/* `messages` round trips; their times go to `histogram` unless that is NULL. */
static bool ping_many(struct pinger *pinger, uint64_t messages, struct histogram *histogram,
                      uint64_t *wrong)
{
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY, .done = on_reply, .ud = pinger};
    for (uint64_t i = 0; i < messages; i++) {
        uint64_t begin_ns = clock_now_ns();
        if (!ping(pinger, &wopts)) return false;
        uint64_t end_ns = clock_now_ns();
        if (histogram != NULL) histogram_record(histogram, end_ns - begin_ns);
        if (pinger->is_wrong) (*wrong)++;
    }
    return true;
}

static double us(const struct histogram *histogram, double percentile)
{
    return (double)histogram_percentile_ns(histogram, percentile) / 1e3;
}

static void note_part(const struct histogram *part, struct histogram *all,
                      struct speed_series *p50_us, struct speed_series *p99_us)
{
    histogram_merge(all, part);
    speed_series_add(p50_us, us(part, 50));
    speed_series_add(p99_us, us(part, 99));
}

static int measure_limit(struct latency_result *result)
{
    struct limit_pingpong_options options;
    limit_pingpong_options_init(&options);
    options.bytes = FRAME_HEADER_BYTES + result->about.message_bytes;
    options.messages = max_u64(result->about.messages / PARTS, 1);
    options.messages_warmup = max_u64(options.messages / 5, 1000);
    options.client_cpu = cpus_of_client(&result->plan, 0);
    options.server_cpu = cpus_of_server(&result->plan, 0);
    histogram_reset(&result->part);
    int err = limit_pingpong(&options, &result->part);
    note_part(&result->part, &result->limit, &result->p50.limit_us, &result->p99.limit_us);
    if (err < 0)
        fprintf(stderr, "fero %s: the limit cannot be measured: %s\n", result->about.bench,
                strerror(-err));
    return err;
}

static int complain_of(const struct latency_case *about, const char *what)
{
    fprintf(stderr, "fero %s: %s: %s\n", about->bench, what, fero_errmsg());
    return 3;
}

static int measure_parts(struct latency_result *result, const struct nodes *nodes,
                         struct pinger *pinger)
{
    const struct latency_case *about = &result->about;
    uint64_t wrong = 0;
    if (!ping_many(pinger, about->warmup, NULL, &wrong)) return complain_of(about, "lost");
    for (uint64_t part = 0; part < PARTS; part++) {
        uint64_t messages = about->messages * (part + 1) / PARTS - about->messages * part / PARTS;
        progress_say("%s, part %d of %d", about->step, (int)part + 1, PARTS);
        if (about->limit) {
            nodes_pause(nodes);
            int err = measure_limit(result);
            nodes_resume(nodes);
            if (err < 0) return 1;
            if (!ping_many(pinger, min_u64(about->warmup, 1000), NULL, &wrong))
                return complain_of(about, "lost");
        }
        histogram_reset(&result->part);
        if (!ping_many(pinger, messages, &result->part, &result->wrong))
            return complain_of(about, "lost");
        note_part(&result->part, &result->ours, &result->p50.ours_us, &result->p99.ours_us);
    }
    result->wrong += wrong;
    return 0;
}

static int connect_and_measure(struct latency_result *result, const struct nodes *nodes)
{
    const struct latency_case *about = &result->about;
    static const int32_t idle[] = {FERO_IDLE_ADAPTIVE, FERO_IDLE_BUSY_POLL, FERO_IDLE_SLEEP};
    const char *seeds[] = {nodes->list[0].address, NULL};
    bool echo = about->verb == SENDER_ECHO;
    fero_runtime_opts runtime_opts = {.size = sizeof runtime_opts,
                                      .client = 1,
                                      .seeds = seeds,
                                      .idle = idle[about->waiting],
                                      .io = nodes->io,
                                      .token_file = nodes->token_file};
    fero_opts opts = {.size = sizeof opts, .timeout_ms = CONNECT_MS};
    struct pinger pinger = {.about = about,
                            .value_bytes = about->message_bytes - (echo ? 0 : SENDER_KEY_BYTES)};
    if (fero_start(&runtime_opts, &pinger.runtime) < 0) return complain_of(about, "cannot start");
    pinger.value = memory_take(pinger.value_bytes + 8);
    int status;
    if (pinger.value == NULL)
        status = complain_of(about, "no memory");
    else if (fero_open(pinger.runtime, about->name, &opts, &pinger.cache) < 0)
        status = complain_of(about, "cannot connect");
    else
        status = measure_parts(result, nodes, &pinger);
    if (pinger.cache != NULL) fero_close(pinger.cache);
    fero_stop(pinger.runtime, 0);
    memory_put(pinger.value);
    return status;
}

double latency_ratio(const struct latency_pair *pair)
{
    double limit = speed_series_median(&pair->limit_us);
    return limit > 0 ? speed_series_median(&pair->ours_us) / limit : 0;
}

int latency_measure(const struct latency_case *about, struct latency_result *result)
{
    struct nodes nodes;
    cpu_set_t before;
    *result = (struct latency_result){.about = *about};
    histogram_reset(&result->ours);
    histogram_reset(&result->limit);
    cpus_plan_make(&result->plan, 1, about->shards);
    struct nodes_options options = {.bench = about->bench,
                                    .name = about->name,
                                    .count = 1,
                                    .shards = about->shards,
                                    .waiting = about->waiting,
                                    .io = about->io,
                                    .plan = &result->plan};
    int status = about->seeds != NULL ? nodes_use(&nodes, about->bench, about->seeds,
                                                  about->token_file, about->name, about->io)
                                      : nodes_start(&nodes, &options);
    if (status != 0) return status;
    bool pinned = sched_getaffinity(0, sizeof before, &before) == 0 &&
                  cpus_pin(cpus_of_client(&result->plan, 0)) == 0;
    status = connect_and_measure(result, &nodes);
    if (pinned) sched_setaffinity(0, sizeof before, &before);
    progress_clear();
    nodes_stop(&nodes);
    return status;
}

/* -------------------------------------------------------------------------------------- main */

struct latency_options {
    struct options_common common;
    int64_t messages;
    int64_t warmup;
    int64_t size;
    int64_t servers;
    int32_t verb;
    const char *hgrm;
    const char *svg;
};

/* clang-format off */
#define FIELD(field) .offset = offsetof(struct latency_options, field)
static const struct option_spec latency_specs[] = {
    {.name = "messages", .kind = OPTION_SIZE, FIELD(messages), .shows = "N", .low = 1,
     .high = 1000000000, .help = "round trips to time (10000)"},
    {.name = "warmup", .kind = OPTION_SIZE, FIELD(warmup), .shows = "N", .low = 1,
     .high = 1000000000, .help = "round trips before them (5000)"},
    {.name = "size", .letter = 'm', .kind = OPTION_SIZE, FIELD(size), .shows = "BYTES", .low = 1,
     .high = 1 << 20, .help = "of a message, key and value (100)"},
    {.name = "verb", .kind = OPTION_CHOICE, FIELD(verb), .shows = "echo, update",
     .choices = sender_verb_names, .help = "what a message asks for (update)"},
    {.name = "servers", .letter = 'c', .kind = OPTION_NUMBER, FIELD(servers), .shows = "1",
     .low = 1, .high = 1, .help = "start a server even if a node runs"},
    {.name = "hgrm", .kind = OPTION_TEXT, FIELD(hgrm), .shows = "FILE",
     .help = "write all percentiles, for HdrHistogram's plotter"},
    {.name = "svg", .kind = OPTION_TEXT, FIELD(svg), .shows = "FILE", .help = "draw a chart"},
    OPTIONS_COMMON_SPECS(struct latency_options, common),
};
/* clang-format on */

static const struct command command_latency = {
    .name = "bench latency",
    .arguments = "",
    .summary = "how long one request and its reply take, again and again",
    .details =
        "Uses the node at --seeds, or the one on the default port if it runs; with -c, or without\n"
        "a node, it starts a server of its own.",
    .options = latency_specs,
    .options_count = ARRAY_COUNT(latency_specs),
    .examples = {"fero bench latency", "fero bench latency --busy-poll --limit --messages 100000",
                 "fero bench latency -c 1 --json --hgrm latency.hgrm"},
};

static void print_notes(const struct latency_result *result)
{
    printf("\n    %s of %u bytes, closed loop: time of service\n",
           sender_verb_names[result->about.verb], result->about.message_bytes);
    if (result->about.limit)
        printf("    bare ping-pong, spinning, medians of the parts: p50 %.1f us, p99 %.1f us; ours "
               "is %.2f and %.2f of it\n",
               speed_series_median(&result->p50.limit_us),
               speed_series_median(&result->p99.limit_us), latency_ratio(&result->p50),
               latency_ratio(&result->p99));
    if (result->wrong > 0)
        printf("    NOT verified: %llu wrong replies\n", (unsigned long long)result->wrong);
}

static bool write_hgrm(const char *path, const struct histogram *histogram)
{
    FILE *file = fopen(path, "we");
    if (file == NULL) {
        complain(&command_latency, "cannot write %s: %s", path, strerror(errno));
        return false;
    }
    int err = histogram_print(histogram, file, 1000);
    if (fclose(file) != 0 || err < 0) {
        complain(&command_latency, "cannot write all of %s", path);
        return false;
    }
    return true;
}

static int print_all(const struct latency_options *options, const struct latency_result *result)
{
    if (options->common.json) {
        report_latency_json(stdout, result);
    } else {
        options_tell_cpus(&result->plan, result->about.seeds);
        report_latency(stdout, &result->ours);
        print_notes(result);
    }
    if (options->hgrm != NULL && !write_hgrm(options->hgrm, &result->ours)) return 1;
    if (options->svg != NULL && !draw_latency(command_latency.name, options->svg, result)) return 1;
    return result->wrong > 0 ? 1 : 0;
}

int bench_latency_main(int argc, char **argv)
{
    struct latency_options options = {
        .messages = 10000, .warmup = 5000, .size = 100, .verb = SENDER_UPDATE};
    options.common = (struct options_common)OPTIONS_COMMON_DEFAULT;
    int count;
    int status = command_parse(&command_latency, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    status = options_settle(&command_latency, &options.common, options.servers > 0);
    if (status != COMMAND_GO_ON) return status;
    if (options.svg != NULL && !draw_may_write(command_latency.name, options.svg)) return 1;
    if (options.verb == SENDER_UPDATE && options.size < SENDER_UPDATE_BYTES_MIN) {
        complain(&command_latency, "an update of %lld bytes has no room for a key: %d are sent",
                 (long long)options.size, SENDER_UPDATE_BYTES_MIN);
        options.size = SENDER_UPDATE_BYTES_MIN;
    }
    struct latency_case about = {.bench = "bench latency",
                                 .step = "round trips",
                                 .name = options.common.name,
                                 .seeds = options.common.seeds,
                                 .token_file = options.common.token_file,
                                 .io = options.common.io,
                                 .shards = (uint32_t)options.common.shards,
                                 .message_bytes = (uint32_t)options.size,
                                 .verb = (enum sender_verb)options.verb,
                                 .messages = (uint64_t)options.messages,
                                 .warmup = (uint64_t)options.warmup,
                                 .waiting = options_waiting(&options.common),
                                 .limit = options.common.limit};
    struct latency_result *result = memory_reserve(sizeof *result, 0);
    if (result == NULL) {
        complain(&command_latency, "no memory for the result");
        return STATUS_NOT_FOUND;
    }
    status = latency_measure(&about, result);
    if (status == 0) status = print_all(&options, result);
    memory_release(result, sizeof *result);
    return status;
}
