/*
 * `fero bench limit`: its options, its runs, its tables.
 */
#include "bench/limit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/memory.h"
#include "bench/cpus.h"
#include "bench/limit_frames.h"
#include "bench/limit_sides.h"
#include "cli/command.h"
#include "cli/number.h"

#define RUNS_MAX 99

struct settings {
    struct number_list sizes;
    int64_t records;
    int64_t keys;
    int64_t connections;
    int64_t window_bytes;
    int64_t batch_bytes;
    int64_t receive_bytes;
    int64_t socket_bytes;
    int64_t messages;
    int64_t runs;
    const char *reply;
    size_t reply_bytes; /* what `reply` says */
    bool pingpong;
    bool blocking;
    bool spinning;
    bool json;
};

/* All runs of one size of message. */
struct figures {
    struct limit_result results[RUNS_MAX];
};

static const char details[] =
    "Two threads over TCP on loopback: the server does the memory work of a replicated store for\n"
    "each message and answers it, the client checks every answer. Prints the median of the runs\n"
    "and their range. Takes about two seconds a run; needs two idle cpus.";

#define FIELD(name) offsetof(struct settings, name)
/* clang-format off */
static const struct option_spec specs[] = {
    {.name = "message", .letter = 'm', .kind = OPTION_NUMBERS, .offset = FIELD(sizes),
     .shows = "BYTES,...", .low = LIMIT_MESSAGE_BYTES_MIN, .high = LIMIT_MESSAGE_BYTES_MAX,
     .help = "sizes of key and value (100)"},
    {.name = "records", .letter = 'r', .kind = OPTION_NUMBER, .offset = FIELD(records),
     .shows = "N", .low = 1000, .high = 1000000000000,
     .help = "messages a run, after a fifth more for warming up (10000000)"},
    {.name = "reply", .kind = OPTION_TEXT, .offset = FIELD(reply), .shows = "BYTES|echo",
     .help = "value of a reply besides its 16 bytes; echo: the message (0)"},
    {.name = "keys", .kind = OPTION_NUMBER, .offset = FIELD(keys), .shows = "N",
     .low = 1, .high = 100000000, .help = "different keys, in random order (1000000)"},
    {.name = "connections", .kind = OPTION_NUMBER, .offset = FIELD(connections), .shows = "N",
     .low = 1, .high = LIMIT_CONNECTIONS_MAX, .help = "TCP connections (1)"},
    {.name = "window", .kind = OPTION_SIZE, .offset = FIELD(window_bytes), .shows = "BYTES",
     .low = 1, .high = 1 << 30, .help = "requests in flight, over all connections (1M)"},
    {.name = "batch", .kind = OPTION_SIZE, .offset = FIELD(batch_bytes), .shows = "BYTES",
     .low = 1, .high = 1 << 30, .help = "requests in one send, at most (128k)"},
    {.name = "receive", .kind = OPTION_SIZE, .offset = FIELD(receive_bytes), .shows = "BYTES",
     .low = 4096, .high = 1 << 30, .help = "bytes in one receive, at most (256k)"},
    {.name = "socket", .kind = OPTION_SIZE, .offset = FIELD(socket_bytes), .shows = "BYTES",
     .low = 4096, .high = 1 << 30, .help = "buffers of a socket (the kernel's choice)"},
    {.name = "pingpong", .kind = OPTION_FLAG, .offset = FIELD(pingpong),
     .help = "one message in flight: latency instead of throughput"},
    {.name = "messages", .kind = OPTION_NUMBER, .offset = FIELD(messages), .shows = "N",
     .low = 1, .high = 1000000000, .help = "with --pingpong: round trips a run (100000)"},
    {.name = "blocking", .kind = OPTION_FLAG, .offset = FIELD(blocking),
     .help = "both sides sleep while they wait"},
    {.name = "spinning", .kind = OPTION_FLAG, .offset = FIELD(spinning),
     .help = "both sides poll while they wait (the default)"},
    {.name = "runs", .kind = OPTION_NUMBER, .offset = FIELD(runs), .shows = "N",
     .low = 1, .high = RUNS_MAX, .help = "runs of each size, in turn (5)"},
    {.name = "json", .kind = OPTION_FLAG, .offset = FIELD(json),
     .help = "one object per line instead of a table"},
};
/* clang-format on */

static const struct command command = {
    .name = "bench limit",
    .arguments = "",
    .summary = "how fast could this machine be with nothing around it?",
    .details = details,
    .options = specs,
    .options_count = ARRAY_COUNT(specs),
    .examples = {"fero bench limit -m 10,100,1000",
                 "fero bench limit --reply echo --connections 64 --json",
                 "fero bench limit --pingpong --blocking --messages 10000"},
};

static enum limit_wait wait_of(const struct settings *settings)
{
    if (settings->blocking) return LIMIT_WAIT_BLOCK;
    return settings->spinning ? LIMIT_WAIT_SPIN : LIMIT_WAIT_BEST;
}

/* What the figures depend on, and who runs where. */
static void machine_line(FILE *to)
{
    char machine[CPUS_TEXT_BYTES];
    int server_cpu = LIMIT_CPU_ANY;
    int client_cpu = LIMIT_CPU_ANY;
    enum limit_wait wait = LIMIT_WAIT_BEST;
    limit_sides_choose_cpus(&server_cpu, &client_cpu, &wait);
    fprintf(to, "Machine: %s; server on cpu %d, client on cpu %d\n", cpus_machine(machine),
            server_cpu, client_cpu);
    if (server_cpu != client_cpu) return;
    complain(&command, "only one cpu is allowed, so server and client share it: this is no limit");
}

static int compare_results(const void *a, const void *b)
{
    double left = ((const struct limit_result *)a)->per_s;
    double right = ((const struct limit_result *)b)->per_s;
    return (left > right) - (left < right);
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

/* Of the thread's costs each has its own median: the fastest run is not the cheapest. */
static double median_of(const struct figures *figures, size_t count, size_t offset)
{
    double values[RUNS_MAX] = {0};
    for (size_t i = 0; i < count; i++) {
        memcpy(&values[i], (const uint8_t *)&figures->results[i] + offset, sizeof(double));
    }
    qsort(values, count, sizeof(double), compare_doubles);
    return values[count / 2];
}

static void print_figures(const struct settings *settings, int64_t message_bytes,
                          struct figures *figures)
{
    size_t runs = (size_t)settings->runs;
    qsort(figures->results, runs, sizeof(figures->results[0]), compare_results);
    const struct limit_result *middle = &figures->results[runs / 2];
    double low = figures->results[0].per_s;
    double high = figures->results[runs - 1].per_s;
    double server_ns = median_of(figures, runs, offsetof(struct limit_result, server_ns_per_msg));
    double client_ns = median_of(figures, runs, offsetof(struct limit_result, client_ns_per_msg));
    size_t reply_bytes =
        settings->reply_bytes == LIMIT_REPLY_ECHO ? (size_t)message_bytes : settings->reply_bytes;
    if (settings->json) {
        printf("{\"bench\":\"limit\",\"message_bytes\":%" PRId64 ",\"reply_bytes\":%zu,"
               "\"connections\":%" PRId64 ",\"keys\":%" PRId64 ",\"records\":%" PRIu64
               ",\"runs\":%zu,\"limit_per_s\":%.0f,\"limit_per_s_min\":%.0f,"
               "\"limit_per_s_max\":%.0f,\"server_ns_per_msg\":%.2f,\"client_ns_per_msg\":%.2f,"
               "\"records_per_receive\":%.0f,\"shared_cpu\":%s,\"checksum\":\"%016" PRIx64 "\"}\n",
               message_bytes, reply_bytes, settings->connections, settings->keys, middle->records,
               runs, middle->per_s, low, high, server_ns, client_ns, middle->records_per_receive,
               middle->server_cpu == middle->client_cpu ? "true" : "false", middle->checksum);
    } else {
        printf("%7" PRId64 "  %6zu  %6zu  %12.0f  %8.2f M - %6.2f M  %8.1f  %9.1f  %9.1f\n",
               message_bytes, middle->frame_bytes, middle->reply_frame_bytes, middle->per_s,
               low / 1e6, high / 1e6, middle->per_s * (double)message_bytes / (double)MIB,
               server_ns, client_ns);
    }
    fflush(stdout);
}

static int measure(const struct settings *settings, struct figures *figures)
{
    struct limit_options options;
    limit_options_init(&options);
    options.reply_bytes = settings->reply_bytes;
    options.records = (uint64_t)settings->records;
    options.records_warmup = options.records / 5;
    options.keys = (uint32_t)settings->keys;
    options.connections = (uint32_t)settings->connections;
    options.window_bytes = (uint32_t)settings->window_bytes;
    options.batch_bytes = (uint32_t)settings->batch_bytes;
    options.receive_bytes = (uint32_t)settings->receive_bytes;
    options.socket_bytes = (uint32_t)settings->socket_bytes;
    options.wait = wait_of(settings);
    for (int64_t run = 0; run < settings->runs; run++) {
        for (uint32_t i = 0; i < settings->sizes.count; i++) {
            options.message_bytes = (size_t)settings->sizes.values[i];
            int err = limit_throughput(&options, &figures[i].results[run]);
            if (err < 0) return err;
        }
    }
    return 0;
}

static int show_throughput(const struct settings *settings)
{
    struct figures *figures = memory_take(settings->sizes.count * sizeof(*figures));
    if (figures == NULL) return -ENOMEM;
    int err = measure(settings, figures);
    if (err == 0 && !settings->json) {
        printf("%" PRId64 " messages a run, %" PRId64 " runs, %" PRId64 " keys, %" PRId64
               " connection%s; bytes of a message, of its frame, of its reply's frame\n\n",
               settings->records, settings->runs, settings->keys, settings->connections,
               settings->connections == 1 ? "" : "s");
        printf("%7s  %6s  %6s  %12s  %19s  %8s  %9s  %9s\n", "message", "frame", "reply",
               "messages/s", "lowest - highest", "MB/s", "server ns", "client ns");
    }
    for (uint32_t i = 0; err == 0 && i < settings->sizes.count; i++) {
        print_figures(settings, settings->sizes.values[i], &figures[i]);
    }
    memory_put(figures);
    return err;
}

/* ---- One message in flight ------------------------------------------------------------------- */

static double us_at(const struct histogram *histogram, double percentile)
{
    return (double)histogram_percentile_ns(histogram, percentile) / (double)NS_PER_US;
}

static void print_pingpong(const struct settings *settings, int64_t message_bytes,
                           const struct histogram *histogram, const double *medians)
{
    double mean_us = histogram_mean_ns(histogram) / (double)NS_PER_US;
    double low = medians[0];
    double high = medians[settings->runs - 1];
    if (settings->json) {
        printf("{\"bench\":\"limit pingpong\",\"message_bytes\":%" PRId64
               ",\"reply_bytes\":%" PRId64 ",\"connections\":1,\"messages\":%" PRIu64
               ",\"runs\":%" PRId64 ",\"blocking\":%s,\"mean_us\":%.3f,\"p50_us\":%.3f,"
               "\"p50_us_min\":%.3f,\"p50_us_max\":%.3f,\"p90_us\":%.3f,\"p99_us\":%.3f,"
               "\"p999_us\":%.3f,\"p9999_us\":%.3f,\"max_us\":%.3f}\n",
               message_bytes, message_bytes, histogram->count, settings->runs,
               settings->blocking ? "true" : "false", mean_us, us_at(histogram, 50), low, high,
               us_at(histogram, 90), us_at(histogram, 99), us_at(histogram, 99.9),
               us_at(histogram, 99.99), us_at(histogram, 100));
    } else {
        printf("%7" PRId64 "  %8.2f  %8.2f  %7.2f - %7.2f  %8.2f  %8.2f  %8.2f  %9.2f  %9.2f\n",
               message_bytes, mean_us, us_at(histogram, 50), low, high, us_at(histogram, 90),
               us_at(histogram, 99), us_at(histogram, 99.9), us_at(histogram, 99.99),
               us_at(histogram, 100));
    }
    fflush(stdout);
}

/* All runs of one size; `all` and `one` are for the caller to keep. */
static int measure_pingpong(const struct settings *settings, int64_t message_bytes,
                            struct histogram *all, struct histogram *one)
{
    double medians[RUNS_MAX] = {0};
    struct limit_pingpong_options options;
    limit_pingpong_options_init(&options);
    options.bytes = round_up_8(sizeof(struct limit_header) + (size_t)message_bytes);
    options.messages = (uint64_t)settings->messages;
    options.wait = wait_of(settings);
    histogram_reset(all);
    for (int64_t run = 0; run < settings->runs; run++) {
        histogram_reset(one);
        int err = limit_pingpong(&options, one);
        if (err < 0) return err;
        medians[run] = us_at(one, 50);
        histogram_merge(all, one);
    }
    qsort(medians, (size_t)settings->runs, sizeof(double), compare_doubles);
    print_pingpong(settings, message_bytes, all, medians);
    return 0;
}

static int show_pingpong(const struct settings *settings)
{
    struct histogram *histograms = memory_take(2 * sizeof(*histograms));
    if (histograms == NULL) return -ENOMEM;
    if (!settings->json) {
        printf("%" PRId64 " round trips a run, %" PRId64 " runs, %s; microseconds of all runs\n\n",
               settings->messages, settings->runs,
               settings->blocking ? "both sides sleep" : "both sides poll");
        printf("%7s  %8s  %8s  %17s  %8s  %8s  %8s  %9s  %9s\n", "message", "mean", "p50",
               "p50 of the runs", "p90", "p99", "p99.9", "p99.99", "max");
    }
    int err = 0;
    for (uint32_t i = 0; err == 0 && i < settings->sizes.count; i++) {
        err = measure_pingpong(settings, settings->sizes.values[i], &histograms[0], &histograms[1]);
    }
    memory_put(histograms);
    return err;
}

/* Reads what the table of options cannot say. */
static bool settle(struct settings *settings)
{
    int64_t bytes = 0;
    bool has_unit;
    if (settings->sizes.count == 0) {
        settings->sizes = (struct number_list){.values = {100}, .count = 1};
    }
    if (settings->blocking && settings->spinning) {
        complain(&command, "--blocking and --spinning exclude each other");
        return false;
    }
    if (strcmp(settings->reply, "echo") == 0) {
        settings->reply_bytes = LIMIT_REPLY_ECHO;
        return true;
    }
    if (size_parse(settings->reply, &bytes, &has_unit) < 0 || bytes < 0 ||
        (size_t)bytes > LIMIT_MESSAGE_BYTES_MAX) {
        complain(&command, "--reply needs \"echo\" or a number such as 0, 100 or 4k, not \"%s\"",
                 settings->reply);
        return false;
    }
    settings->reply_bytes = (size_t)bytes;
    return true;
}

int bench_limit_main(int argc, char **argv)
{
    struct settings settings = {.records = 10000000,
                                .keys = 1000000,
                                .connections = 1,
                                .messages = 100000,
                                .runs = 5,
                                .reply = "0"};
    int arguments_count = 0;
    int status = command_parse(&command, argc - 1, argv + 1, &settings, &arguments_count);
    if (status != COMMAND_GO_ON) return status;
    if (!settle(&settings)) return STATUS_USAGE;
    machine_line(settings.json ? stderr : stdout);
    int err = settings.pingpong ? show_pingpong(&settings) : show_throughput(&settings);
    if (err == 0) return STATUS_OK;
    complain(&command, "%s%s", strerror(-err),
             err == -ENOMEM ? ": it needs 1 GiB for the log and 64 bytes for every 4 keys" : "");
    return STATUS_NOT_FOUND;
}
