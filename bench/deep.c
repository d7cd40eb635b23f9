/*
 * How much does an update cost that sets one field of a document, and does it matter how large the
 * other fields are? As `turn`: a received request to its encoded reply, without the kernel.
 *
 * Documents are written as JSON text, one request each. Then single fields are updated, each by a
 * request of its own: the same field of each document, or any field.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "bench/bench.h"
#include "bench/feeder.h"
#include "cli/command.h"
#include "ring/slot.h"

#define KEY_BYTES_MAX 64

struct deep_options {
    int64_t messages;
    int64_t documents;
    int64_t fields;
    int64_t others;
    int64_t size;
    bool any;
    bool json;
};

struct deep_bench {
    const struct deep_options *options;
    struct feeder *feeder;
    struct rng rng;
    uint32_t seq;
    uint64_t spent_ns;
};

static void timed_turn(struct feeder *feeder, struct shard *shard, void *context)
{
    struct deep_bench *bench = context;
    uint64_t before = clock_now_ns();
    (void)feeder;
    shard_turn(shard);
    bench->spent_ns += clock_now_ns() - before;
}

/* Writes the header of an update; returns its bytes, which key and value follow. */
static size_t put_header(struct deep_bench *bench, uint8_t *to, const char *key, size_t value_bytes,
                         uint8_t type)
{
    struct bytes name = bytes_of(key);
    size_t key_bytes = name.size;
    struct frame_request frame = {.length =
                                      (uint32_t)(FRAME_REQUEST_BYTES + key_bytes + value_bytes),
                                  .type = FRAME_UPDATE,
                                  .flags = (uint8_t)(type | WANT_REPLY << FRAME_WANT_SHIFT),
                                  .key_len = (uint16_t)key_bytes,
                                  .slot = slot_of_key(key, key_bytes),
                                  .seq = ++bench->seq};
    memcpy(to, &frame, sizeof frame);
    memcpy(to + sizeof frame, name.data, name.size);
    return sizeof frame + key_bytes;
}

/* One document, in as many receives as it takes. */
static void write_document(struct deep_bench *bench, uint64_t document, uint8_t *room)
{
    const struct deep_options *options = bench->options;
    char key[KEY_BYTES_MAX];
    char name[KEY_BYTES_MAX];
    size_t bytes = 0;
    uint8_t *text = room + FRAME_REQUEST_BYTES + KEY_BYTES_MAX;
    snprintf(key, sizeof key, "doc%llu", (unsigned long long)document);
    for (int64_t field = 0; field < options->fields; field++) {
        int name_bytes = snprintf(name, sizeof name, "%c\"field%lld\":\"", field == 0 ? '{' : ',',
                                  (long long)field);
        memcpy(text + bytes, name, (size_t)name_bytes);
        bytes += (size_t)name_bytes;
        memset(text + bytes, 'x', (size_t)options->others);
        bytes += (size_t)options->others;
        text[bytes++] = '"';
    }
    text[bytes++] = '}';
    size_t head = FRAME_REQUEST_BYTES + strlen(key);
    uint8_t *frame = text - head;
    put_header(bench, frame, key, bytes, VALUE_JSON);
    memset(text + bytes, 0, 8);
    size_t padded = round_up_8(head + bytes);
    for (size_t at = 0; at < padded;) {
        size_t some = min_u64(padded - at, FEEDER_INPUT_BYTES);
        memcpy(feeder_input(bench->feeder), frame + at, some);
        feeder_feed_input(bench->feeder, some, NULL, NULL);
        at += some;
    }
}

/* As many updates as one receive holds, `count` at most; returns how many. */
static uint64_t feed_updates(struct deep_bench *bench, uint64_t count, feeder_turn_fn turn)
{
    const struct deep_options *options = bench->options;
    uint8_t *input = feeder_input(bench->feeder);
    size_t room = FRAME_REQUEST_BYTES + KEY_BYTES_MAX + (size_t)options->size + 8;
    size_t at = 0;
    uint64_t done = 0;
    for (; done < count && at + room <= FEEDER_INPUT_BYTES; done++) {
        char key[KEY_BYTES_MAX];
        uint64_t document = rng_below(&bench->rng, (uint64_t)options->documents);
        uint64_t field = options->any ? rng_below(&bench->rng, (uint64_t)options->fields) : 7;
        snprintf(key, sizeof key, "doc%llu.field%llu", (unsigned long long)document,
                 (unsigned long long)(field % (uint64_t)options->fields));
        memset(input + at, 0, room);
        size_t head = put_header(bench, input + at, key, (size_t)options->size, VALUE_STRING);
        memset(input + at + head, 'y', (size_t)options->size);
        at += round_up_8(head + (size_t)options->size);
    }
    feeder_feed_input(bench->feeder, at, turn, bench);
    return done;
}

static void run(struct deep_bench *bench)
{
    const struct deep_options *options = bench->options;
    struct feeder_options wanted = {.shards_count = 1,
                                    .keys = 1,
                                    .message_bytes = FEEDER_KEY_BYTES,
                                    .log_bytes_max = 8 * GIB,
                                    .history_bytes_max = 128 * MIB,
                                    .garbage_bytes_max = 768 * MIB};
    size_t document_bytes = (size_t)(options->fields * (options->others + KEY_BYTES_MAX));
    uint8_t *room = memory_take(document_bytes + 4 * KIB);
    ASSERT(room != NULL);
    feeder_open(bench->feeder, &wanted);
    for (int64_t i = 0; i < options->documents; i++) write_document(bench, (uint64_t)i, room);
    uint64_t messages = (uint64_t)options->messages;
    uint64_t warm = (uint64_t)(options->documents * (options->any ? options->fields : 1) * 4);
    for (uint64_t done = 0; done < warm;) done += feed_updates(bench, warm - done, NULL);
    for (uint64_t done = 0; done < messages;)
        done += feed_updates(bench, messages - done, timed_turn);
    struct feeder_totals totals = feeder_totals_of(bench->feeder);
    ASSERT(totals.errors == 0);
    ASSERT(totals.requests == bench->seq);
    feeder_close(bench->feeder);
    memory_put(room);
}

static void print_figures(const struct deep_bench *bench)
{
    const struct deep_options *options = bench->options;
    double ns = (double)bench->spent_ns / (double)options->messages;
    if (options->json)
        printf("{\"bench\":\"deep\",\"documents\":%lld,\"fields\":%lld,\"other_bytes\":%lld,"
               "\"value_bytes\":%lld,\"any\":%s,\"messages\":%lld,\"ns_per_msg\":%.1f}\n",
               (long long)options->documents, (long long)options->fields,
               (long long)options->others, (long long)options->size,
               options->any ? "true" : "false", (long long)options->messages, ns);
    else
        printf("%s of %lld in %lld documents, the others of %lld bytes: %.1f ns an update "
               "(%.2f M/s)\n",
               options->any ? "any field" : "one field", (long long)options->fields,
               (long long)options->documents, (long long)options->others, ns, 1e3 / ns);
}

/* clang-format off */
#define FIELD(field) .offset = offsetof(struct deep_options, field)
static const struct option_spec deep_specs[] = {
    {.name = "messages", .kind = OPTION_SIZE, FIELD(messages), .shows = "N", .low = 1,
     .high = 1000000000, .help = "updates to measure (5000000)"},
    {.name = "documents", .kind = OPTION_SIZE, FIELD(documents), .shows = "N", .low = 1,
     .high = 1000000, .help = "chosen from at random (1000)"},
    {.name = "fields", .kind = OPTION_NUMBER, FIELD(fields), .shows = "N", .low = 1,
     .high = 1000, .help = "of each document (50)"},
    {.name = "others", .kind = OPTION_SIZE, FIELD(others), .shows = "BYTES", .low = 0,
     .high = 20000, .help = "of each field, when the document is written (20)"},
    {.name = "size", .letter = 'm', .kind = OPTION_SIZE, FIELD(size), .shows = "BYTES", .low = 0,
     .high = 4096, .help = "of the new value (20)"},
    {.name = "any", .kind = OPTION_FLAG, FIELD(any), .help = "update any field, not the same one"},
    {.name = "json", .kind = OPTION_FLAG, FIELD(json), .help = "print one JSON object"},
};
/* clang-format on */

static const struct command command_deep = {
    .name = "bench deep",
    .arguments = "",
    .summary = "what a shard needs to set one field of a document",
    .details = "From received bytes to encoded reply; no kernel is involved. A document may have\n"
               "1 MiB.",
    .options = deep_specs,
    .options_count = ARRAY_COUNT(deep_specs),
    .examples = {"fero bench deep", "fero bench deep --others 20000 --documents 100",
                 "fero bench deep --any --fields 200"},
};

int bench_deep_main(int argc, char **argv)
{
    struct deep_options options = {
        .messages = 5000000, .documents = 1000, .fields = 50, .others = 20, .size = 20};
    int count;
    int status = command_parse(&command_deep, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    if (options.fields * (options.others + 16) > (int64_t)(1 * MIB)) {
        complain(&command_deep,
                 "--fields %lld and --others %lld make a document of more than 1 MiB",
                 (long long)options.fields, (long long)options.others);
        return STATUS_USAGE;
    }
    struct deep_bench bench = {.options = &options, .feeder = memory_take(sizeof *bench.feeder)};
    if (bench.feeder == NULL) {
        complain(&command_deep, "no memory");
        return STATUS_NOT_FOUND;
    }
    rng_init(&bench.rng, 1);
    run(&bench);
    print_figures(&bench);
    memory_put(bench.feeder);
    return STATUS_OK;
}
