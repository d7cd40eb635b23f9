/*
 * What the shards of a node have counted, as a table: since its start, or again and again a second.
 * The node says what it counts, so that a counter that is new there needs no change here.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/json.h"
#include "cli/number.h"
#include "cli/output.h"
#include "cli/table.h"

#define SHARDS_SHOWN_MAX 64
#define INTERVAL_S_DEFAULT 1.0
#define INTERVAL_S_MIN 0.1
#define INTERVAL_S_MAX 86400.0

struct stat_options {
    struct client_options client;
    const char *interval;
    int64_t count;
    bool once;
    bool all;
};

/* clang-format off */
static const struct option_spec stat_specs[] = {
    {.name = "interval", .letter = 'i', .kind = OPTION_TEXT,
     .offset = offsetof(struct stat_options, interval), .shows = "SECONDS",
     .flags = OPTION_NO_ENVIRONMENT,
     .help = "show rates over as long, again and again (1 on a terminal)"},
    {.name = "count", .letter = 'n', .kind = OPTION_NUMBER,
     .offset = offsetof(struct stat_options, count), .shows = "N", .low = 1, .high = INT32_MAX,
     .flags = OPTION_NO_ENVIRONMENT, .help = "end after so many tables of rates"},
    {.name = "once", .kind = OPTION_FLAG, .offset = offsetof(struct stat_options, once),
     .flags = OPTION_NO_ENVIRONMENT,
     .help = "show once what was counted since the start (unless on a terminal)"},
    {.name = "all", .letter = 'a', .kind = OPTION_FLAG,
     .offset = offsetof(struct stat_options, all), .flags = OPTION_NO_ENVIRONMENT,
     .help = "show every counter, one a line"},
    CLIENT_OPTION_SPECS(struct stat_options, client),
};
/* clang-format on */

/* ---------------------------------------------------------------------------------- samples */

/* What the node said at one moment. */
struct sample {
    char *answer;
    struct json_span text; /* the answer */
    struct json_span shards[SHARDS_SHOWN_MAX];
    uint32_t shards_count;
    struct json_span levels; /* names of the counters that do not only grow */
    uint64_t time_ns;        /* by the node's clock */
    uint64_t uptime_ms;
};

static uint64_t number_of(struct json_span object, const char *key)
{
    struct json_span value;
    uint64_t number = 0;
    return json_find(object, key, &value) && json_whole(value, &number) ? number : 0;
}

static void sample_free(struct sample *sample)
{
    free(sample->answer);
    *sample = (struct sample){0};
}

static int sample_take(struct sample *sample, struct client *client)
{
    struct json_span shards = {0};
    *sample = (struct sample){0};
    int status = client_ask_node(client, fero_ask_info, &sample->answer);
    if (status != STATUS_OK) return status;
    sample->text = (struct json_span){sample->answer, strlen(sample->answer)};
    sample->time_ns = number_of(sample->text, "time_ns");
    sample->uptime_ms = number_of(sample->text, "uptime_ms");
    if (!json_find(sample->text, "levels", &sample->levels)) sample->levels.bytes = 0;
    if (!json_find(sample->text, "shards", &shards)) shards.bytes = 0;
    const char *at = NULL;
    while (sample->shards_count < SHARDS_SHOWN_MAX &&
           json_element_next(shards, &at, &sample->shards[sample->shards_count]))
        sample->shards_count++;
    return STATUS_OK;
}

static bool is_level(const struct sample *sample, const char *counter)
{
    struct json_span name;
    size_t bytes = strlen(counter);
    for (const char *at = NULL; json_element_next(sample->levels, &at, &name);)
        if (name.bytes == bytes + 2 && memcmp(name.at + 1, counter, bytes) == 0) return true;
    return false;
}

/* Two samples, the older of which may be the node's start, and what is shown of them. */
struct view {
    const struct sample *now;
    const struct sample *before; /* NULL: since the start */
    double seconds;
    bool is_colored;
};

/* A counter of a shard, or of all (`shard` = shards_count): its value, or how much it grew a second. */
static double value_of(const struct view *view, uint32_t shard, const char *counter)
{
    const struct sample *now = view->now;
    if (shard == now->shards_count) {
        double sum = 0;
        for (uint32_t i = 0; i < now->shards_count; i++) sum += value_of(view, i, counter);
        return sum;
    }
    double value = (double)number_of(now->shards[shard], counter);
    if (view->before == NULL || is_level(now, counter)) return value;
    return (value - (double)number_of(view->before->shards[shard], counter)) / view->seconds;
}

/* Share of the time that it worked, in percent. */
static double busy_percent(const struct view *view, uint32_t shard)
{
    double ns = value_of(view, shard, "cpu_ns") - value_of(view, shard, "spin_ns");
    double seconds = view->before != NULL ? 1 : view->seconds;
    return seconds > 0 && ns > 0 ? ns / seconds / 1e9 * 100 : 0;
}

/* ------------------------------------------------------------------------------------ tables */

enum format { FORMAT_COUNT, FORMAT_BYTES };
struct column {
    const char *title;
    const char *counter;
    enum format format;
};
static const struct column columns[] = {
    {"conns", "connections", FORMAT_COUNT},   {"requests", "requests", FORMAT_COUNT},
    {"updates", "updates", FORMAT_COUNT},     {"removes", "removes", FORMAT_COUNT},
    {"gets", "gets", FORMAT_COUNT},           {"verbs", "verbs", FORMAT_COUNT},
    {"errors", "errors", FORMAT_COUNT},       {"in", "received_bytes", FORMAT_BYTES},
    {"out", "sent_bytes", FORMAT_BYTES},      {"keys", "keys", FORMAT_COUNT},
    {"memory", "memory_bytes", FORMAT_BYTES},
};
#define COLUMNS_COUNT (sizeof columns / sizeof columns[0])

static void put_value(struct table *table, double value, enum format format)
{
    char text[COUNT_TEXT_BYTES];
    uint64_t whole = value > 0 ? (uint64_t)(value + 0.5) : 0;
    table_put(table, format == FORMAT_BYTES ? size_format(whole, text) : count_format(whole, text));
}

static void put_shard_name(struct table *table, const struct view *view, uint32_t shard)
{
    if (shard == view->now->shards_count)
        table_put(table, "total");
    else
        table_printf(table, "%u", shard);
}

static void print_shards(const struct view *view)
{
    struct table table = {.columns_count = COLUMNS_COUNT + 2};
    table_put(&table, "shard");
    table_put(&table, "busy");
    for (size_t i = 0; i < COLUMNS_COUNT; i++) {
        bool is_rate = view->before != NULL && !is_level(view->now, columns[i].counter);
        table_printf(&table, is_rate ? "%s/s" : "%s", columns[i].title);
    }
    for (uint32_t shard = 0; shard <= view->now->shards_count; shard++) {
        put_shard_name(&table, view, shard);
        table_printf(&table, "%.0f %%", busy_percent(view, shard));
        for (size_t i = 0; i < COLUMNS_COUNT; i++)
            put_value(&table, value_of(view, shard, columns[i].counter), columns[i].format);
    }
    table_print(&table, stdout, view->is_colored);
}

static bool is_counter(struct json_span key)
{
    return !(key.bytes == 5 && memcmp(key.at, "shard", 5) == 0) &&
           !(key.bytes == 3 && memcmp(key.at, "cpu", 3) == 0);
}

/* Every counter is a row, every shard a column. */
static void print_all(const struct view *view)
{
    const struct sample *now = view->now;
    struct table table = {.columns_count = now->shards_count + 2, .left_columns = 1};
    table_put(&table, "counter");
    for (uint32_t shard = 0; shard <= now->shards_count; shard++)
        put_shard_name(&table, view, shard);
    struct json_span key;
    struct json_span value;
    uint64_t number;
    for (const char *at = NULL; json_member_next(now->shards[0], &at, &key, &value);) {
        char name[64];
        if (!is_counter(key) || !json_whole(value, &number)) continue;
        snprintf(name, sizeof name, "%.*s", (int)key.bytes, key.at);
        bool is_rate = view->before != NULL && !is_level(now, name);
        table_printf(&table, is_rate ? "%s/s" : "%s", name);
        for (uint32_t shard = 0; shard <= now->shards_count; shard++)
            put_value(&table, value_of(view, shard, name), FORMAT_COUNT);
    }
    table_print(&table, stdout, view->is_colored);
}

static void print_table(const struct view *view, const char *node, bool all)
{
    char uptime[COUNT_TEXT_BYTES];
    printf("fero at %s, up %s; ", node, duration_format(view->now->uptime_ms, uptime));
    if (view->before != NULL)
        printf("rates over %.1f s\n", view->seconds);
    else
        printf("counted since its start\n");
    if (all)
        print_all(view);
    else
        print_shards(view);
}

/* -------------------------------------------------------------------------------------- JSON */

static void put_counters_json(const struct view *view, uint32_t shard, bool rates)
{
    const struct sample *now = view->now;
    struct json_span key;
    struct json_span value;
    uint64_t number;
    bool is_first = true;
    const struct view values = {.now = now};
    for (const char *at = NULL; json_member_next(now->shards[0], &at, &key, &value);) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)key.bytes, key.at);
        if (!is_counter(key) || !json_whole(value, &number)) continue;
        if (rates && is_level(now, name)) continue;
        printf(is_first ? "\"%s\":" : ",\"%s\":", name);
        is_first = false;
        if (rates)
            printf("%.1f", value_of(view, shard, name));
        else
            printf("%.0f", value_of(&values, shard, name));
    }
}

static void print_json(const struct view *view, const char *node)
{
    const struct sample *now = view->now;
    printf("{\"address\":");
    json_put_string(stdout, node, strlen(node));
    printf(",\"uptime_ms\":%llu", (unsigned long long)now->uptime_ms);
    if (view->before != NULL) printf(",\"interval_s\":%.3f", view->seconds);
    printf(",\"shards\":[");
    for (uint32_t shard = 0; shard <= now->shards_count; shard++) {
        if (shard == now->shards_count)
            printf("],\"total\":{");
        else
            printf("%s{\"shard\":%u,", shard > 0 ? "," : "", shard);
        printf("\"busy_percent\":%.1f,", busy_percent(view, shard));
        put_counters_json(view, shard, false);
        if (view->before != NULL) {
            printf(",\"per_second\":{");
            put_counters_json(view, shard, true);
            printf("}");
        }
        printf("}");
    }
    printf("}\n");
}

/* -------------------------------------------------------------------------------------- life */

/* What a run of the command has settled. */
struct watch {
    struct client client;
    const struct stat_options *options;
    double interval_s;
    bool is_live;   /* on a terminal: each table takes the place of the last one */
    bool has_rates; /* else it shows the counts, once */
};

static void show(const struct watch *watch, const struct view *view, bool is_first)
{
    const char *node = watch->options->client.seeds;
    if (watch->options->client.json) {
        print_json(view, node);
    } else {
        if (watch->is_live)
            fputs("\033[H\033[J", stdout);
        else if (!is_first)
            putchar('\n');
        print_table(view, node, watch->options->all);
    }
    fflush(stdout);
}

/* Keeps the connection alive meanwhile. */
static void wait_interval(struct watch *watch)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double end_s = (double)now.tv_sec + (double)now.tv_nsec / 1e9 + watch->interval_s;
    double left_s = watch->interval_s;
    while (left_s > 0) {
        fero_run(watch->client.runtime, (int64_t)ceil(left_s * 1000));
        clock_gettime(CLOCK_MONOTONIC, &now);
        left_s = end_s - ((double)now.tv_sec + (double)now.tv_nsec / 1e9);
    }
}

static int show_rates(struct watch *watch, struct sample *before)
{
    struct sample now;
    int64_t count = watch->options->count;
    for (int64_t shown = 0; count == 0 || shown < count; shown++) {
        wait_interval(watch);
        int status = sample_take(&now, &watch->client);
        if (status != STATUS_OK) return status;
        struct view view = {.now = &now,
                            .before = before,
                            .seconds = (double)(now.time_ns - before->time_ns) / 1e9,
                            .is_colored = output_is_colored(stdout)};
        /* Another node answers now, or this one has started again. */
        bool is_other = now.shards_count != before->shards_count ||
                        now.uptime_ms < before->uptime_ms || view.seconds <= 0;
        if (!is_other) show(watch, &view, shown == 0);
        sample_free(before);
        *before = now;
        if (ferror(stdout) != 0) break;
    }
    return STATUS_OK;
}

static int run_watch(struct watch *watch)
{
    struct sample sample;
    int status = sample_take(&sample, &watch->client);
    if (status != STATUS_OK) return status;
    struct view view = {.now = &sample,
                        .seconds = (double)sample.uptime_ms / 1000,
                        .is_colored = output_is_colored(stdout)};
    if (!watch->has_rates || watch->is_live) show(watch, &view, true);
    if (watch->has_rates) status = show_rates(watch, &sample);
    sample_free(&sample);
    return status;
}

static int settle(struct watch *watch, const struct command *command,
                  const struct stat_options *options)
{
    *watch = (struct watch){.options = options, .interval_s = INTERVAL_S_DEFAULT};
    bool wants_rates = options->interval != NULL || options->count > 0;
    if (options->once && wants_rates) {
        complain(command, "--once and %s exclude each other; leave one out",
                 options->count > 0 ? "--count" : "--interval");
        return STATUS_USAGE;
    }
    if (options->interval != NULL) {
        char *end;
        watch->interval_s = strtod(options->interval, &end);
        if (end == options->interval || *end != 0 || !(watch->interval_s >= INTERVAL_S_MIN) ||
            watch->interval_s > INTERVAL_S_MAX) {
            complain(command, "--interval is %s, but must be from %.1f to %.0f seconds",
                     options->interval, INTERVAL_S_MIN, INTERVAL_S_MAX);
            return STATUS_USAGE;
        }
    }
    bool is_terminal = isatty(STDOUT_FILENO) != 0 && !options->client.json;
    watch->has_rates = wants_rates || (is_terminal && !options->once);
    watch->is_live = is_terminal && watch->has_rates;
    return STATUS_OK;
}

static int run_stat(const struct command *command, int argc, char **argv)
{
    struct stat_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    struct watch watch;
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    status = settle(&watch, command, &options);
    if (status != STATUS_OK) return status;
    status = cli_open(&watch.client, command, &options.client, count > 0 ? argv[0] : NULL);
    if (status != STATUS_OK) return status;
    status = run_watch(&watch);
    cli_close(&watch.client);
    return status;
}

const struct command command_stat = {
    .name = "stat",
    .arguments = "[NAME]",
    .summary = "show what the shards of a node do, or have counted",
    .details =
        "On a terminal: what each shard does a second, until Ctrl-C. Else, and with --once: what\n"
        "was counted since the start of the node. \"busy\" is the share of the time that a shard\n"
        "worked; looking for something to do is not work. With NAME, only of a node that has this\n"
        "cache.",
    .options = stat_specs,
    .options_count = sizeof stat_specs / sizeof stat_specs[0],
    .arguments_max = 1,
    .examples = {"fero stat", "fero stat --once --all --seeds 127.0.0.1:7701",
                 "fero stat --interval 5 --count 12 --json"},
    .run = run_stat,
};
