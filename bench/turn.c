/*
 * How much does a shard itself cost: a received request to its encoded reply, without the kernel?
 *
 * Checks, hash, session, dedupe, clock, log with sealed batches, table, index, reply, ACK: see
 * bench/feeder.h. With two shards, what is counted is the work of both.
 *
 * All that is measured happens below turn_measured, so that callgrind can be told to count there
 * and nowhere else: tests/perf/instructions.sh keeps the record.
 */
#include <stddef.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "bench/bench.h"
#include "bench/feeder.h"
#include "cli/command.h"

#define MESSAGE_BYTES_MAX (16 * KIB)
/* Fed before anything is measured: the tables have their size then, and the session its window. */
#define WARM_UP_MESSAGES 100000

struct turn_options {
    int64_t messages;
    int64_t warm_up;
    int64_t keys;
    int64_t size;
    int64_t shards;
    int64_t history;
    int32_t verb;     /* enum feeder_verb */
    int32_t crossing; /* index of crossing_names */
    int32_t type;     /* index of type_names */
    bool json;
};

struct turn_figures {
    uint64_t turns;
    uint64_t spent_ns;
};

/* A function that callgrind can name, and not a jump to the other one. */
static NO_INLINE void turn_measured(struct feeder *feeder, struct shard *shard, void *context)
{
    struct turn_figures *figures = context;
    uint64_t before = clock_now_ns();
    (void)feeder;
    shard_turn(shard);
    figures->spent_ns += clock_now_ns() - before;
    figures->turns++;
}

#define TEXT(number) TEXT_OF(number)
#define TEXT_OF(number) #number

/* What the machine code depends on: figures of different builds cannot be compared. */
static const char *build_name(void)
{
#if defined(__clang__)
#define COMPILER "clang-" TEXT(__clang_major__)
#else
#define COMPILER "gcc-" TEXT(__GNUC__)
#endif
#if defined(FERO_DEBUG)
    return COMPILER "-debug";
#elif defined(__x86_64__) && !defined(__SSE3__)
    return updates_choose() == updates_take ? COMPILER "-x86-64" : COMPILER "-x86-64-v3";
#else
    return COMPILER "-native";
#endif
}

static const char *const verb_names[] = {"update", "get", "echo", NULL};
static const char *const type_names[] = {"bytes", "string", "json", NULL};
static const enum value_type types[] = {VALUE_BYTES, VALUE_STRING, VALUE_JSON};
static const char *const crossing_names[] = {"none", "half", NULL};

static void print_figures(const struct turn_options *options, const struct turn_figures *figures,
                          uint64_t crossed, uint64_t memory_bytes)
{
    double messages = (double)options->messages;
    double ns = (double)figures->spent_ns / messages;
    double share = (double)crossed / messages;
    double per_key = (double)memory_bytes / (double)options->keys;
    if (options->json)
        printf("{\"bench\":\"turn\",\"verb\":\"%s\",\"type\":\"%s\",\"message_bytes\":%lld,"
               "\"keys\":%lld,"
               "\"messages\":%lld,\"shards\":%lld,\"crossed_share\":%.3f,\"build\":\"%s\","
               "\"ns_per_msg\":%.2f,\"memory_bytes_per_key\":%.1f}\n",
               verb_names[options->verb], type_names[options->type], (long long)options->size,
               (long long)options->keys, (long long)options->messages, (long long)options->shards,
               share, build_name(), ns, per_key);
    else
        printf("%s of %lld bytes over %lld keys, %.0f %% crossing a lane: %.1f ns a message "
               "(%.1f M/s), %.0f bytes of memory a key\n",
               verb_names[options->verb], (long long)options->size, (long long)options->keys,
               share * 100, ns, 1e3 / ns, per_key);
}

static void run(struct feeder *feeder, const struct turn_options *options)
{
    struct turn_figures figures = {0};
    enum feeder_verb verb = (enum feeder_verb)options->verb;
    struct feeder_options wanted = {.shards_count = (uint32_t)options->shards,
                                    .crosses = options->crossing != 0,
                                    .keys = (uint64_t)options->keys,
                                    .message_bytes = (size_t)options->size,
                                    .type = types[options->type],
                                    .log_bytes_max = 4 * GIB,
                                    .history_bytes_max = (size_t)options->history,
                                    .garbage_bytes_max = (size_t)options->history * 6};
    uint64_t messages = (uint64_t)options->messages;
    feeder_open(feeder, &wanted);
    feeder_feed(feeder, FEEDER_UPDATE, wanted.keys, feeder_key_in_order, NULL, NULL);
    feeder_feed(feeder, verb, (uint64_t)options->warm_up, feeder_key_at_random, NULL, NULL);
    struct feeder_totals before = feeder_totals_of(feeder);
    feeder_feed(feeder, verb, messages, feeder_key_at_random, turn_measured, &figures);
    struct feeder_totals after = feeder_totals_of(feeder);
    ASSERT(after.requests - before.requests == messages);
    ASSERT(after.errors == 0);
    print_figures(options, &figures, after.crossed - before.crossed, after.memory_bytes);
    feeder_close(feeder);
}

/* clang-format off */
#define FIELD(field) .offset = offsetof(struct turn_options, field)
static const struct option_spec turn_specs[] = {
    {.name = "messages", .kind = OPTION_SIZE, FIELD(messages), .shows = "N", .low = 1,
     .high = 1000000000, .help = "requests to measure (10000000)"},
    {.name = "warm-up", .kind = OPTION_SIZE, FIELD(warm_up), .shows = "N", .low = 0,
     .high = 1000000000, .help = "requests before those, not measured (100000)"},
    {.name = "keys", .kind = OPTION_SIZE, FIELD(keys), .shows = "N", .low = 1,
     .high = 20000000, .help = "loaded before, and chosen from at random (1000000)"},
    {.name = "size", .letter = 'm', .kind = OPTION_SIZE, FIELD(size), .shows = "BYTES",
     .low = FEEDER_KEY_BYTES, .high = MESSAGE_BYTES_MAX,
     .help = "of a message, key and value (100)"},
    {.name = "verb", .kind = OPTION_CHOICE, FIELD(verb), .shows = "update, get, echo",
     .choices = verb_names, .help = "what a message asks for (update)"},
    {.name = "type", .kind = OPTION_CHOICE, FIELD(type), .shows = "bytes, string, json",
     .choices = type_names, .help = "of the values (bytes)"},
    {.name = "shards", .kind = OPTION_NUMBER, FIELD(shards), .shows = "N", .low = 1,
     .high = FEEDER_SHARDS_MAX, .help = "1 or 2, in one thread (1)"},
    {.name = "crossing", .kind = OPTION_CHOICE, FIELD(crossing), .shows = "none, half",
     .choices = crossing_names, .help = "requests that another shard owns (none)"},
    {.name = "history", .kind = OPTION_SIZE, FIELD(history), .shows = "BYTES", .low = 1,
     .high = (int64_t)GIB, .help = "kept before compaction, and 6 times as much garbage (128M)"},
    {.name = "json", .kind = OPTION_FLAG, FIELD(json), .help = "print one JSON object"},
};
/* clang-format on */

static const struct command command_turn = {
    .name = "bench turn",
    .arguments = "",
    .summary = "what a shard needs for one message, from received bytes to encoded reply",
    .details = "No kernel is involved. Under callgrind it counts instructions: see\n"
               "tests/perf/instructions.sh.",
    .options = turn_specs,
    .options_count = ARRAY_COUNT(turn_specs),
    .examples = {"fero bench turn", "fero bench turn --verb get -m 1000 --keys 100000",
                 "fero bench turn --shards 2 --crossing half"},
};

int bench_turn_main(int argc, char **argv)
{
    struct turn_options options = {.messages = 10000000,
                                   .warm_up = WARM_UP_MESSAGES,
                                   .keys = 1000000,
                                   .size = 100,
                                   .shards = 1,
                                   .history = 128 * MIB};
    int count;
    int status = command_parse(&command_turn, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    if (options.crossing != 0 && options.shards == 1) {
        complain(&command_turn, "--crossing half needs a second shard: add --shards 2");
        return STATUS_USAGE;
    }
    struct feeder *feeder = memory_take(sizeof *feeder);
    if (feeder == NULL) {
        complain(&command_turn, "no memory");
        return STATUS_NOT_FOUND;
    }
    run(feeder, &options);
    memory_put(feeder);
    return STATUS_OK;
}
