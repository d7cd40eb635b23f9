/*
 * How many bytes does a key take beyond itself and its value, table and index included, and how much
 * does the whole grow when every key is overwritten again and again?
 *
 * One shard with the bounds of a node is loaded and then overwritten in passes that visit each key
 * once, in no order, so that old and new changes lie in one segment everywhere. Bytes are counted
 * twice: by the shard, and by the kernel (resident pages beyond those before the first key).
 */
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/memory.h"
#include "bench/bench.h"
#include "bench/feeder.h"
#include "bench/nodes.h"
#include "cli/command.h"

struct memory_options {
    int64_t keys;
    int64_t value;
    int64_t overwrites;
    int64_t history;
    int64_t garbage;
    bool json;
};

struct memory_bench {
    const struct memory_options *options;
    struct feeder feeder;
    uint64_t resident_before;
    uint64_t loaded_bytes; /* the shard's count after loading */
    uint64_t highest_bytes;
};

static void turn_watched(struct feeder *feeder, struct shard *shard, void *context)
{
    struct memory_bench *bench = context;
    (void)feeder;
    shard_turn(shard);
    bench->highest_bytes = max_u64(bench->highest_bytes, shard->counters.memory_bytes);
}

static void print_phase(const struct memory_bench *bench, int64_t overwritten)
{
    const struct memory_options *options = bench->options;
    double keys = (double)options->keys;
    double payload = (double)(FEEDER_KEY_BYTES + options->value);
    double bytes = (double)feeder_totals_of(&bench->feeder).memory_bytes;
    double resident = (double)(process_resident_bytes(getpid()) - bench->resident_before);
    double loaded = (double)bench->loaded_bytes;
    double highest = (double)bench->highest_bytes;
    if (options->json)
        printf("{\"bench\":\"memory\",\"keys\":%lld,\"value_bytes\":%lld,\"overwritten\":%lld,"
               "\"memory_bytes\":%.0f,\"resident_bytes\":%.0f,\"beyond_bytes_per_key\":%.1f,"
               "\"resident_beyond_bytes_per_key\":%.1f,\"footprint\":%.3f,"
               "\"highest_footprint\":%.3f}\n",
               (long long)options->keys, (long long)options->value, (long long)overwritten, bytes,
               resident, bytes / keys - payload, resident / keys - payload, bytes / loaded,
               highest / loaded);
    else
        printf("overwritten %lld times: %8.1f MiB (resident %8.1f), %6.1f bytes a key beyond key "
               "and value (%6.1f), %.2f times the loaded ones, at most %.2f\n",
               (long long)overwritten, bytes / (double)MIB, resident / (double)MIB,
               bytes / keys - payload, resident / keys - payload, bytes / loaded, highest / loaded);
}

static void run(struct memory_bench *bench)
{
    const struct memory_options *options = bench->options;
    uint64_t keys = (uint64_t)options->keys;
    size_t message_bytes = FEEDER_KEY_BYTES + (size_t)options->value;
    struct feeder_options wanted = {.shards_count = 1,
                                    .keys = keys,
                                    .message_bytes = message_bytes,
                                    .log_bytes_max = keys * (message_bytes + 128) * 4 + 2 * GIB,
                                    .history_bytes_max = (size_t)options->history,
                                    .garbage_bytes_max = (size_t)options->garbage};
    feeder_open(&bench->feeder, &wanted);
    bench->resident_before = process_resident_bytes(getpid());
    for (int64_t i = 0; i <= options->overwrites; i++) {
        feeder_feed(&bench->feeder, FEEDER_UPDATE, keys,
                    i == 0 ? feeder_key_in_order : feeder_key_scattered, turn_watched, bench);
        struct feeder_totals totals = feeder_totals_of(&bench->feeder);
        ASSERT(totals.errors == 0 && totals.keys == keys);
        if (i == 0) bench->loaded_bytes = totals.memory_bytes;
        print_phase(bench, i);
    }
    feeder_close(&bench->feeder);
}

/* clang-format off */
#define FIELD(field) .offset = offsetof(struct memory_options, field)
static const struct option_spec memory_specs[] = {
    {.name = "keys", .kind = OPTION_SIZE, FIELD(keys), .shows = "N", .low = 1,
     .high = 100000000, .help = "of 8 bytes (1000000)"},
    {.name = "value", .kind = OPTION_SIZE, FIELD(value), .shows = "BYTES", .low = 0,
     .high = 16000, .help = "of each (100)"},
    {.name = "overwrites", .kind = OPTION_NUMBER, FIELD(overwrites), .shows = "N", .low = 0,
     .high = 1000, .help = "how often each is overwritten (3)"},
    {.name = "history", .kind = OPTION_SIZE, FIELD(history), .shows = "BYTES", .low = 1,
     .high = (int64_t)64 * GIB, .help = "newest changes that are kept (128M)"},
    {.name = "garbage", .kind = OPTION_SIZE, FIELD(garbage), .shows = "BYTES", .low = 1,
     .high = (int64_t)64 * GIB, .help = "superseded ones beyond it before compaction (720M)"},
    {.name = "json", .kind = OPTION_FLAG, FIELD(json), .help = "print one JSON object a line"},
};
/* clang-format on */

static const struct command command_memory = {
    .name = "bench memory",
    .arguments = "",
    .summary = "bytes that a key takes, when loaded and when overwritten again and again",
    .options = memory_specs,
    .options_count = ARRAY_COUNT(memory_specs),
    .examples = {"fero bench memory", "fero bench memory --keys 10M --json",
                 "fero bench memory --keys 300000 --history 4M --garbage 16M"},
};

int bench_memory_main(int argc, char **argv)
{
    struct memory_options options = {
        .keys = 1000000, .value = 100, .overwrites = 3, .history = 128 * MIB, .garbage = 720 * MIB};
    int count;
    int status = command_parse(&command_memory, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    struct memory_bench *bench = memory_take(sizeof *bench);
    if (bench == NULL) {
        complain(&command_memory, "no memory");
        return STATUS_NOT_FOUND;
    }
    bench->options = &options;
    run(bench);
    memory_put(bench);
    return STATUS_OK;
}
