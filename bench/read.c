/*
 * How many values a second does a thread of the program read by fero_read, and by fero_read_many, while
 * a shard of its node applies updates, and how much slower are the updates for it?
 *
 * One shard on the last processor, the reader on the first. The writer is another thread of the
 * program, beside the shard: it gives a number of updates each millisecond, so that the shard applies
 * as many a second as asked for. Each round measures reads alone, updates alone, and both; medians are
 * told, of reads of many keys likewise. How much slower updates are is told by what the shard's thread works for each: its CPU time
 * without what it spent on looking for something to do.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/ck.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "bench/bench.h"
#include "bench/cpus.h"
#include "bench/keys.h"
#include "bench/report.h"
#include "cli/command.h"
#include "fero.h"

#define KEY_BYTES 8
#define VALUE_BYTES_MAX 4096
#define ROUNDS_MAX 16
/* The writer gives its updates so often. */
#define PACE_NS NS_PER_MS
#define READS_PER_LOOK 256
#define READS_AT_ONCE 32

struct read_options {
    int64_t keys;
    int64_t value;
    int64_t rate;
    int64_t rounds;
    int64_t time_ms;
    bool json;
};

/* What one measurement found. */
struct read_figures {
    double reads_per_s;
    double updates_per_s;
    double update_ns; /* of the shard's CPU time */
};

enum reads { READS_NONE, READS_SINGLE, READS_MANY };

struct read_bench {
    const struct read_options *options;
    fero *rt;
    fero_cache *cache;
    struct cpus_plan plan;
    uint64_t stopped;
    uint64_t updates; /* given by the writer, and done */
    uint64_t reads;
    enum reads kind;
    double seconds; /* that the writer took for them */
};

/* What shard 0 has worked, in nanoseconds. */
static double worked_ns(fero *rt)
{
    char text[16 * KIB];
    int64_t bytes = fero_info(rt, text, sizeof text);
    ASSERT(bytes > 0 && (size_t)bytes < sizeof text);
    const char *cpu = strstr(text, "\"cpu_ns\":");
    const char *spin = strstr(text, "\"spin_ns\":");
    ASSERT(cpu != NULL && spin != NULL);
    return strtod(cpu + strlen("\"cpu_ns\":"), NULL) - strtod(spin + strlen("\"spin_ns\":"), NULL);
}

static void key_of(char key[KEY_BYTES], uint64_t number)
{
    uint64_t spread = keys_spread(number);
    memcpy(key, &spread, KEY_BYTES);
}

/* Waits until everything that this thread has given is done. */
static void settle(struct read_bench *bench)
{
    char key[KEY_BYTES];
    fero_op *op = NULL;
    int err;
    key_of(key, 0);
    while ((err = fero_get(bench->cache, (fero_slice){key, KEY_BYTES}, NULL, &op)) == FERO_E_AGAIN)
        fero_run(bench->rt, 1);
    ASSERT(err == 0);
    err = fero_wait(op, -1, NULL);
    ASSERT(err == 0);
    fero_op_free(op);
}

static void update(struct read_bench *bench, uint64_t number, const char *bytes)
{
    char key[KEY_BYTES];
    fero_val value = {.type = FERO_T_BYTES, .s = {bytes, (size_t)bench->options->value}};
    int err;
    key_of(key, number);
    while ((err = fero_update(bench->cache, (fero_slice){key, KEY_BYTES}, &value, NULL, NULL)) ==
           FERO_E_AGAIN)
        fero_run(bench->rt, 1);
    ASSERT(err == 0);
}

static void load(struct read_bench *bench)
{
    char bytes[VALUE_BYTES_MAX] = {0};
    for (int64_t i = 0; i < bench->options->keys; i++) update(bench, (uint64_t)i, bytes);
    settle(bench);
}

static void sleep_until(uint64_t at_ns)
{
    struct timespec at = {(time_t)(at_ns / NS_PER_S), (long)(at_ns % NS_PER_S)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void *write_updates(void *argument)
{
    struct read_bench *bench = argument;
    char bytes[VALUE_BYTES_MAX] = {0};
    struct rng rng;
    cpus_pin(cpus_of_server(&bench->plan, 0));
    rng_init(&rng, 1);
    uint64_t begin_ns = clock_now_ns();
    uint64_t next_ns = begin_ns;
    uint64_t per_pace = (uint64_t)bench->options->rate * PACE_NS / NS_PER_S;
    while (load_acquire_u64(&bench->stopped) == 0) {
        for (uint64_t i = 0; i < per_pace; i++)
            update(bench, rng_below(&rng, (uint64_t)bench->options->keys), bytes);
        bench->updates += per_pace;
        next_ns += PACE_NS;
        sleep_until(next_ns);
    }
    settle(bench);
    bench->seconds = (double)(clock_now_ns() - begin_ns) / (double)NS_PER_S;
    fero_thread_unregister(bench->rt);
    return NULL;
}

static void read_singly(struct read_bench *bench, struct rng *rng, uint8_t *buffer)
{
    char key[KEY_BYTES];
    fero_val value;
    for (int i = 0; i < READS_PER_LOOK; i++) {
        key_of(key, rng_below(rng, (uint64_t)bench->options->keys));
        int err = fero_read(bench->cache, (fero_slice){key, KEY_BYTES}, buffer, VALUE_BYTES_MAX,
                            &value, NULL);
        ASSERT(err == 0);
    }
}

static void read_many(struct read_bench *bench, struct rng *rng, uint8_t *buffers)
{
    char keys[READS_AT_ONCE][KEY_BYTES];
    fero_reading readings[READS_AT_ONCE];
    size_t bytes = (size_t)bench->options->value;
    for (int done = 0; done < READS_PER_LOOK; done += READS_AT_ONCE) {
        for (size_t i = 0; i < READS_AT_ONCE; i++) {
            key_of(keys[i], rng_below(rng, (uint64_t)bench->options->keys));
            readings[i] = (fero_reading){
                .key = {keys[i], KEY_BYTES}, .buffer = buffers + i * bytes, .bytes = bytes};
        }
        int64_t found = fero_read_many(bench->cache, readings, READS_AT_ONCE);
        ASSERT(found == READS_AT_ONCE);
    }
}

static void *read_values(void *argument)
{
    struct read_bench *bench = argument;
    uint8_t *buffers = memory_take(READS_AT_ONCE * VALUE_BYTES_MAX);
    struct rng rng;
    ASSERT(buffers != NULL);
    cpus_pin(cpus_of_client(&bench->plan, 0));
    rng_init(&rng, 2);
    while (load_acquire_u64(&bench->stopped) == 0) {
        if (bench->kind == READS_MANY)
            read_many(bench, &rng, buffers);
        else
            read_singly(bench, &rng, buffers);
        bench->reads += READS_PER_LOOK;
    }
    memory_put(buffers);
    fero_thread_unregister(bench->rt);
    return NULL;
}

/* Lets the threads run for the time of the options. */
static struct read_figures measure(struct read_bench *bench, bool writes, enum reads kind)
{
    pthread_t threads[2];
    unsigned started = 0;
    bool reads = kind != READS_NONE;
    bench->kind = kind;
    bench->stopped = 0;
    bench->updates = 0;
    bench->reads = 0;
    if (writes && pthread_create(&threads[started], NULL, write_updates, bench) == 0) started++;
    if (reads && pthread_create(&threads[started], NULL, read_values, bench) == 0) started++;
    ASSERT(started == (unsigned)writes + (unsigned)reads);
    double before_ns = worked_ns(bench->rt);
    uint64_t begin_ns = clock_now_ns();
    sleep_until(begin_ns + (uint64_t)bench->options->time_ms * NS_PER_MS);
    store_release_u64(&bench->stopped, 1);
    double seconds = (double)(clock_now_ns() - begin_ns) / (double)NS_PER_S;
    for (unsigned i = 0; i < started; i++) pthread_join(threads[i], NULL);
    struct read_figures figures = {.reads_per_s = (double)bench->reads / seconds};
    if (!writes) return figures;
    figures.updates_per_s = (double)bench->updates / bench->seconds;
    figures.update_ns = (worked_ns(bench->rt) - before_ns) / (double)bench->updates;
    return figures;
}

static int compare(const void *a, const void *b)
{
    double first = *(const double *)a;
    double second = *(const double *)b;
    return (first > second) - (first < second);
}

static double median(double *values, int64_t count)
{
    qsort(values, (size_t)count, sizeof *values, compare);
    return values[count / 2];
}

/* Medians of the rounds. */
struct read_report {
    double alone_per_s;
    double reads_per_s;
    double many_alone_per_s;
    double many_per_s;
    double updates_per_s;
    double update_alone_ns;
    double update_ns;
};

static void report(const struct read_options *options, const struct read_report *found)
{
    char text[3][REPORT_NUMBER_BYTES];
    double slowed = (found->update_ns / found->update_alone_ns - 1) * 100;
    if (options->json) {
        printf("{\"bench\":\"read\",\"keys\":%lld,\"value_bytes\":%lld,\"rounds\":%lld,"
               "\"reads_alone_per_s\":%.0f,\"reads_per_s\":%.0f,\"reads_many_alone_per_s\":%.0f,"
               "\"reads_many_per_s\":%.0f,\"updates_per_s\":%.0f,"
               "\"update_alone_ns\":%.1f,\"update_ns\":%.1f,\"updates_slowed_percent\":%.1f,",
               (long long)options->keys, (long long)options->value, (long long)options->rounds,
               found->alone_per_s, found->reads_per_s, found->many_alone_per_s, found->many_per_s,
               found->updates_per_s, found->update_alone_ns, found->update_ns, slowed);
        report_machine_json(stdout);
        printf("}\n");
        return;
    }
    printf("%lld keys, %lld bytes each, medians of %lld\n", (long long)options->keys,
           (long long)options->value, (long long)options->rounds);
    printf("  * reads alone: %s/s\n", report_rate(found->alone_per_s, text[0]));
    printf("  * reads of %d keys at once, alone: %s/s\n", READS_AT_ONCE,
           report_rate(found->many_alone_per_s, text[0]));
    printf("  * reads: %s/s while the shard applies %s updates/s\n",
           report_rate(found->reads_per_s, text[1]), report_rate(found->updates_per_s, text[2]));
    printf("  * reads of %d keys at once: %s/s while it does\n", READS_AT_ONCE,
           report_rate(found->many_per_s, text[0]));
    printf("  * an update: %.1f ns of the shard alone, %.1f ns with a reader: %.1f %% slower\n",
           found->update_alone_ns, found->update_ns, slowed);
}

static void run(struct read_bench *bench)
{
    double alone[ROUNDS_MAX] = {0};
    double reads[ROUNDS_MAX] = {0};
    double many_alone[ROUNDS_MAX] = {0};
    double many[ROUNDS_MAX] = {0};
    double updates[ROUNDS_MAX] = {0};
    double update_alone[ROUNDS_MAX] = {0};
    double update[ROUNDS_MAX] = {0};
    int64_t rounds = bench->options->rounds;
    for (int64_t i = 0; i < rounds; i++) {
        alone[i] = measure(bench, false, READS_SINGLE).reads_per_s;
        many_alone[i] = measure(bench, false, READS_MANY).reads_per_s;
        update_alone[i] = measure(bench, true, READS_NONE).update_ns;
        many[i] = measure(bench, true, READS_MANY).reads_per_s;
        struct read_figures both = measure(bench, true, READS_SINGLE);
        reads[i] = both.reads_per_s;
        updates[i] = both.updates_per_s;
        update[i] = both.update_ns;
    }
    struct read_report found = {.alone_per_s = median(alone, rounds),
                                .reads_per_s = median(reads, rounds),
                                .many_alone_per_s = median(many_alone, rounds),
                                .many_per_s = median(many, rounds),
                                .updates_per_s = median(updates, rounds),
                                .update_alone_ns = median(update_alone, rounds),
                                .update_ns = median(update, rounds)};
    report(bench->options, &found);
}

/* clang-format off */
#define FIELD(field) .offset = offsetof(struct read_options, field)
static const struct option_spec read_specs[] = {
    {.name = "keys", .kind = OPTION_SIZE, FIELD(keys), .shows = "N", .low = 1,
     .high = 100000000, .help = "of 8 bytes (100000)"},
    {.name = "value", .kind = OPTION_SIZE, FIELD(value), .shows = "BYTES", .low = 0,
     .high = VALUE_BYTES_MAX, .help = "of each (100)"},
    {.name = "rate", .kind = OPTION_SIZE, FIELD(rate), .shows = "N", .low = 1000,
     .high = 100000000, .help = "updates a second (1000000)"},
    {.name = "rounds", .kind = OPTION_NUMBER, FIELD(rounds), .shows = "N", .low = 1,
     .high = ROUNDS_MAX, .help = "of which medians are told (5)"},
    {.name = "time.ms", .kind = OPTION_NUMBER, FIELD(time_ms), .shows = "MS", .low = 10,
     .high = 60000, .help = "of each of a round's five measurements (500)"},
    {.name = "json", .kind = OPTION_FLAG, FIELD(json), .help = "print one JSON object"},
};
/* clang-format on */

static const struct command command_read = {
    .name = "bench read",
    .arguments = "",
    .summary = "reads of a thread in the node's own process, while a shard applies updates",
    .options = read_specs,
    .options_count = ARRAY_COUNT(read_specs),
    .examples = {"fero bench read", "fero bench read --keys 1M --json",
                 "fero bench read --rate 2M --value 1000"},
};

static int start(struct read_bench *bench)
{
    char cpu[16];
    fero_runtime_opts opts = {.size = sizeof opts, .shards = 1, .cpus = cpu};
    cpus_plan_make(&bench->plan, 1, 1);
    snprintf(cpu, sizeof cpu, "%u", cpus_of_server(&bench->plan, 0));
    int err = fero_start(&opts, &bench->rt);
    if (err == 0 && (err = fero_open(bench->rt, "bench", NULL, &bench->cache)) < 0)
        fero_stop(bench->rt, FERO_OFF);
    return err;
}

int bench_read_main(int argc, char **argv)
{
    struct read_options options = {
        .keys = 100000, .value = 100, .rate = 1000000, .rounds = 5, .time_ms = 500};
    struct read_bench bench = {.options = &options};
    int count;
    int status = command_parse(&command_read, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    if (start(&bench) < 0) {
        complain(&command_read, "%s", fero_errmsg());
        return STATUS_NOT_FOUND;
    }
    load(&bench);
    run(&bench);
    fero_stop(bench.rt, 0);
    return STATUS_OK;
}
