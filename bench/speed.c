/*
 * The speed bench: every permutation of sizes, records, clients and servers, one after the other.
 * Each permutation has its own servers, which all its runs use; before each run the limit of the
 * machine may be measured, with the servers halted, so that a machine that changes its speed changes
 * it for both.
 */
#include "bench/speed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"
#include "bench/bench.h"
#include "bench/draw.h"
#include "bench/limit.h"
#include "bench/options.h"
#include "bench/progress.h"
#include "bench/report.h"

#define RESULTS_MAX 256
#define STEP_BYTES 96

/* ------------------------------------------------------------------------------------ series */

void speed_series_add(struct speed_series *series, double value)
{
    ASSERT(series->count < SPEED_RUNS_MAX);
    uint32_t at = series->count++;
    /* Kept sorted: there are few. */
    while (at > 0 && series->values[at - 1] > value) {
        series->values[at] = series->values[at - 1];
        at--;
    }
    series->values[at] = value;
}

double speed_series_median(const struct speed_series *series)
{
    uint32_t count = series->count;
    if (count == 0) return 0;
    return (series->values[(count - 1) / 2] + series->values[count / 2]) / 2;
}

double speed_series_min(const struct speed_series *series)
{
    return series->count == 0 ? 0 : series->values[0];
}

double speed_series_max(const struct speed_series *series)
{
    return series->count == 0 ? 0 : series->values[series->count - 1];
}

/* ----------------------------------------------------------------------------------- measure */

/* The same bytes and the same replies, without anything around them. */
static int measure_limit(const struct speed_result *result, double *per_s)
{
    const struct speed_case *about = &result->about;
    struct limit_options options;
    struct limit_result limit;
    limit_options_init(&options);
    options.message_bytes = max_u64(about->message_bytes, LIMIT_MESSAGE_BYTES_MIN);
    options.reply_bytes = about->verb == SENDER_ECHO ? LIMIT_REPLY_ECHO : 0;
    options.records = about->records;
    options.records_warmup = max_u64(about->records / 4, 100000);
    options.keys = (uint32_t)min_u64(about->keys, UINT32_MAX);
    options.connections = about->clients * about->sockets;
    options.client_cpu = cpus_of_client(&result->plan, 0);
    options.server_cpu = cpus_of_server(&result->plan, 0);
    int err = limit_throughput(&options, &limit);
    if (err < 0) {
        fprintf(stderr, "fero %s: the limit cannot be measured: %s\n", about->bench,
                strerror(-err));
        return err;
    }
    *per_s = limit.per_s;
    return 0;
}

/* Never more than all of the time: clocks are read at different moments. */
static double share(double part, double whole)
{
    if (whole <= 0 || part <= 0) return 0;
    return part > whole ? 1 : part / whole;
}

static void add_run(struct speed_result *result, const struct sender_figures *figures)
{
    double messages = (double)figures->replies;
    double server_ns = (double)figures->server_cpu_ns - (double)figures->server_spin_ns;
    double client_ns = (double)figures->client_cpu_ns - (double)figures->client_spin_ns;
    double wall_ns = figures->sacks_s * 1e9;
    uint32_t server_threads = result->about.servers * result->about.shards;
    speed_series_add(&result->tacks_s, figures->tacks_s);
    speed_series_add(&result->yacks_s, figures->yacks_s);
    speed_series_add(&result->sacks_s, figures->sacks_s);
    speed_series_add(&result->server_ns_per_msg, server_ns / messages);
    speed_series_add(&result->client_ns_per_msg, client_ns / messages);
    speed_series_add(&result->server_busy, share(server_ns, wall_ns * server_threads));
    speed_series_add(&result->client_busy, share(client_ns, wall_ns * result->about.clients));
    result->replies += figures->replies;
    result->failed += figures->failed;
    result->keys_checked += figures->keys_checked;
    result->mismatches += figures->mismatches;
}

static const char *step_of(const struct speed_case *about, uint32_t run, char text[STEP_BYTES])
{
    char made_up[STEP_BYTES / 2];
    snprintf(made_up, sizeof made_up, "%s, %u bytes", sender_verb_names[about->verb],
             about->message_bytes);
    snprintf(text, STEP_BYTES, "%.60s, run %u of %u", about->step != NULL ? about->step : made_up,
             run + 1, about->runs);
    return text;
}

static int run_all(struct speed_result *result, const struct nodes *nodes, struct senders *senders)
{
    const struct speed_case *about = &result->about;
    for (uint32_t run = 0; run < about->runs; run++) {
        struct sender_figures figures;
        double limit_per_s;
        char step[STEP_BYTES];
        step_of(about, run, step);
        if (about->limit) {
            progress_say("%s: limit", step);
            nodes_pause(nodes);
            int err = measure_limit(result, &limit_per_s);
            nodes_resume(nodes);
            if (err < 0) return 1;
            speed_series_add(&result->limit_per_s, limit_per_s);
        }
        if (!senders_run(senders, step, &figures, &result->latencies)) return 1;
        add_run(result, &figures);
    }
    return 0;
}

static int start_nodes(struct speed_result *result, struct nodes *nodes)
{
    const struct speed_case *about = &result->about;
    struct nodes_options options = {.bench = about->bench,
                                    .name = about->name,
                                    .count = about->servers,
                                    .shards = about->shards,
                                    .waiting = about->waiting,
                                    .io = about->io,
                                    .plan = &result->plan};
    if (about->seeds == NULL) return nodes_start(nodes, &options);
    int status =
        nodes_use(nodes, about->bench, about->seeds, about->token_file, about->name, about->io);
    result->about.servers = nodes->count;
    return status;
}

int speed_measure(const struct speed_case *about, struct speed_result *result)
{
    struct nodes nodes;
    *result = (struct speed_result){.about = *about};
    histogram_reset(&result->latencies);
    cpus_plan_make(&result->plan, about->clients, about->servers * about->shards);
    int status = start_nodes(result, &nodes);
    if (status != 0) return status;
    result->stable_ms = nodes.stable_ms;
    struct sender_options options = {.bench = about->bench,
                                     .name = about->name,
                                     .nodes = &nodes,
                                     .plan = &result->plan,
                                     .clients = about->clients,
                                     .sockets = about->sockets,
                                     .verb = about->verb,
                                     .message_bytes = about->message_bytes,
                                     .records = about->records,
                                     .keys = about->keys,
                                     .warmup = about->warmup,
                                     .rate_per_s = about->rate_per_s,
                                     .waiting = about->waiting,
                                     .seed = 20170627};
    struct senders *senders = senders_start(&options, &result->connected_ms);
    status = senders == NULL ? 3 : run_all(result, &nodes, senders);
    progress_clear();
    if (senders != NULL) senders_stop(senders);
    nodes_stop(&nodes);
    return status;
}

double speed_per_s(const struct speed_result *result, double seconds)
{
    return seconds > 0 ? (double)result->about.records / seconds : 0;
}

bool speed_is_verified(const struct speed_result *result)
{
    return result->failed == 0 && result->mismatches == 0 && result->replies > 0;
}

/* ------------------------------------------------------------------------------- permutations */

struct speed_options {
    struct options_common common;
    struct number_list sizes;
    struct number_list records;
    struct number_list clients;
    struct number_list servers;
    int32_t verb;
    int64_t sockets;
    int64_t keys;
    int64_t warmup;
    int64_t rate;
    int64_t runs;
    const char *svg;
};

/* clang-format off */
#define FIELD(field) .offset = offsetof(struct speed_options, field)
static const struct option_spec speed_specs[] = {
    {.name = "message", .letter = 'm', .kind = OPTION_NUMBERS, FIELD(sizes), .shows = "BYTES[,...]",
     .low = 1, .high = 1 << 20, .help = "sizes of a message, key and value (100)"},
    {.name = "records", .letter = 'r', .kind = OPTION_NUMBERS, FIELD(records), .shows = "N[,...]",
     .low = 1, .high = 4000000000, .help = "messages to send (1000000)"},
    {.name = "clients", .letter = 'l', .kind = OPTION_NUMBERS, FIELD(clients), .shows = "N[,...]",
     .low = 1, .high = SENDERS_MAX, .help = "clients, a thread each (1)"},
    {.name = "servers", .letter = 'c', .kind = OPTION_NUMBERS, FIELD(servers), .shows = "N[,...]",
     .low = 1, .high = NODES_MAX, .help = "servers to start, a process each (1)"},
    {.name = "sockets", .kind = OPTION_NUMBER, FIELD(sockets), .shows = "N", .low = 1,
     .high = SENDER_SOCKETS_MAX, .help = "connections of each client to each server (1)"},
    {.name = "verb", .kind = OPTION_CHOICE, FIELD(verb), .shows = "echo, update",
     .choices = sender_verb_names, .help = "what a message asks for (update)"},
    {.name = "keys", .kind = OPTION_SIZE, FIELD(keys), .shows = "N", .low = 1, .high = 1 << 30,
     .help = "distinct random keys of all clients (1000000)"},
    {.name = "rate", .kind = OPTION_SIZE, FIELD(rate), .shows = "N", .low = 1, .high = 1000000000,
     .help = "open loop: so many a second, timed from when they were due"},
    {.name = "runs", .kind = OPTION_NUMBER, FIELD(runs), .shows = "N", .low = 1,
     .high = SPEED_RUNS_MAX, .help = "runs of each permutation; medians are printed (1)"},
    {.name = "warmup", .kind = OPTION_SIZE, FIELD(warmup), .shows = "N", .low = 1,
     .high = 4000000000, .help = "messages before the first run (until servers' memory grows no more)"},
    {.name = "svg", .kind = OPTION_TEXT, FIELD(svg), .shows = "FILE", .help = "draw a chart"},
    OPTIONS_COMMON_SPECS(struct speed_options, common),
};
/* clang-format on */

static const struct command command_speed = {
    .name = "bench speed",
    .arguments = "",
    .summary = "how many records a second, sent (tacks), queued (yacks) and replied to (sacks)",
    .details =
        "Lists are comma lists; every permutation is run. Uses the node at --seeds, or the one on\n"
        "the default port if it runs; with -c, or without a node, it starts servers of its own.\n"
        "Before the first run every key is written once, then more of the same until the servers'\n"
        "memory grows no more, at most for 30 seconds or ten runs: first touches cost extra.",
    .options = speed_specs,
    .options_count = ARRAY_COUNT(speed_specs),
    .examples = {"fero bench speed -m 10,100,1000",
                 "fero bench speed -c 1 --verb echo --limit --runs 5",
                 "fero bench speed --rate 500k --json"},
};

static void list_default(struct number_list *list, int64_t value)
{
    if (list->count > 0) return;
    list->values[0] = value;
    list->count = 1;
}

/* The case of permutation `number`; sizes change fastest. False: there are no more. */
static bool permute(const struct speed_options *options, uint32_t number, struct speed_case *about)
{
    uint32_t size = number % options->sizes.count;
    number /= options->sizes.count;
    uint32_t records = number % options->records.count;
    number /= options->records.count;
    uint32_t clients = number % options->clients.count;
    number /= options->clients.count;
    if (number >= options->servers.count) return false;
    about->message_bytes = (uint32_t)options->sizes.values[size];
    about->records = (uint64_t)options->records.values[records];
    about->clients = (uint32_t)options->clients.values[clients];
    about->servers = (uint32_t)options->servers.values[number];
    if (about->verb == SENDER_UPDATE && about->message_bytes < SENDER_UPDATE_BYTES_MIN) {
        fprintf(stderr,
                "fero bench speed: an update of %u bytes has no room for a key: %d are sent\n",
                about->message_bytes, SENDER_UPDATE_BYTES_MIN);
        about->message_bytes = SENDER_UPDATE_BYTES_MIN;
    }
    return true;
}

static void print_result(const struct speed_options *options, const struct speed_result *result)
{
    if (options->common.json) {
        report_json(stdout, result);
    } else {
        report_block(stdout, result);
        report_notes(stdout, result);
    }
    fflush(stdout);
}

static int run_permutations(const struct speed_options *options, struct speed_result *results,
                            uint32_t *count)
{
    struct speed_case about = {.bench = "bench speed",
                               .name = options->common.name,
                               .seeds = options->common.seeds,
                               .token_file = options->common.token_file,
                               .io = options->common.io,
                               .shards = (uint32_t)options->common.shards,
                               .verb = (enum sender_verb)options->verb,
                               .sockets = (uint32_t)options->sockets,
                               .keys = (uint64_t)options->keys,
                               .warmup = (uint64_t)options->warmup,
                               .rate_per_s = (double)options->rate,
                               .waiting = options_waiting(&options->common),
                               .runs = (uint32_t)options->runs,
                               .limit = options->common.limit};
    int worst = 0;
    for (*count = 0; *count < RESULTS_MAX && permute(options, *count, &about); (*count)++) {
        struct speed_result *result = &results[*count];
        int status = speed_measure(&about, result);
        if (status != 0) return status;
        if (*count == 0 && !options->common.json) options_tell_cpus(&result->plan, about.seeds);
        print_result(options, result);
        if (!speed_is_verified(result)) worst = 1;
    }
    return worst;
}

int bench_speed_main(int argc, char **argv)
{
    const struct command *command = &command_speed;
    struct speed_options options = {
        .verb = SENDER_UPDATE, .sockets = 1, .keys = 1000000, .runs = 1};
    options.common = (struct options_common)OPTIONS_COMMON_DEFAULT;
    int count;
    int status = command_parse(command, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    status = options_settle(command, &options.common, options.servers.count > 0);
    if (status != COMMAND_GO_ON) return status;
    if (options.svg != NULL && !draw_may_write(command->name, options.svg)) return 1;
    list_default(&options.sizes, 100);
    list_default(&options.records, 1000000);
    list_default(&options.clients, 1);
    list_default(&options.servers, 1);
    uint64_t permutations = (uint64_t)options.sizes.count * options.records.count *
                            options.clients.count * options.servers.count;
    if (permutations > RESULTS_MAX) {
        complain(command, "%llu permutations, but at most %d are run",
                 (unsigned long long)permutations, RESULTS_MAX);
        return STATUS_USAGE;
    }
    struct speed_result *results = memory_reserve(RESULTS_MAX * sizeof *results, 0);
    if (results == NULL) {
        complain(command, "no memory for the results");
        return STATUS_NOT_FOUND;
    }
    uint32_t results_count;
    status = run_permutations(&options, results, &results_count);
    if (status != 0 && results_count == 0) options.svg = NULL;
    if (options.svg != NULL && !draw_speed(command->name, options.svg, results, results_count))
        status = 1;
    memory_release(results, RESULTS_MAX * sizeof *results);
    return status;
}
