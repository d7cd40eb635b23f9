/*
 * How much does a shard itself cost: a received request to its encoded reply, without the kernel?
 *
 * Receives of 32 KiB are fed through an in-memory io to a shard with everything on: checks, hash,
 * session, dedupe, clock, log with sealed batches, table, index, reply, ACK. With two shards both
 * run in this thread, turn by turn, and what is counted is the work of both; their caller is always
 * connected to the first.
 *
 * All that is measured happens below turn_measured, so that callgrind can be told to count
 * there and nowhere else: tests/perf/instructions.sh keeps the record.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "bench/bench.h"
#include "bench/memory_io.h"
#include "cli/command.h"
#include "engine/handler.h"
#include "fero.h"
#include "ring/slot.h"
#include "shard/shard.h"
#include "wire/hello.h"

#define RECEIVE_BYTES (32 * KIB)
#define KEY_BYTES 8
#define MESSAGE_BYTES_MAX (16 * KIB)
/* Fed before anything is measured: the tables have their size then, and the session its window. */
#define WARM_UP_MESSAGES 100000

enum turn_verb { TURN_UPDATE, TURN_GET, TURN_ECHO };
enum turn_crossing { CROSSING_NONE, CROSSING_HALF };

struct turn_options {
    int64_t messages;
    int64_t keys;
    int64_t size;
    int64_t shards;
    int64_t history;
    int32_t verb;
    int32_t crossing;
    bool json;
};

struct turn_key {
    uint8_t bytes[KEY_BYTES];
    uint16_t slot;
};

struct turn_bench {
    const struct turn_options *wanted;
    struct memory_io io[2];
    struct mailbox mailboxes[2];
    struct shard *shards[2];
    struct shard_options options;
    uint16_t slot_owner[SLOTS_COUNT];
    struct cache_definition definition;
    uint8_t *memory; /* headroom, then one receive */
    struct turn_key *keys;
    struct rng rng;
    uint64_t seq;
    uint64_t turns;
    uint64_t spent_ns;
};

static struct shard_options options_of(const struct turn_options *wanted)
{
    return (struct shard_options){.shards_count = (uint32_t)wanted->shards,
                                  .idle = IDLE_SLEEP,
                                  .log_bytes_max = 4 * GIB,
                                  .history_bytes_max = (size_t)wanted->history,
                                  .garbage_bytes_max = (size_t)wanted->history * 4,
                                  .sessions_bytes_max = 16 * MIB,
                                  .outbox_bytes_max = 1 * MIB,
                                  .key_bytes_max = 1 * KIB,
                                  .value_bytes_max = 1 * MIB,
                                  .frame_bytes_max = 1 * MIB + 2 * KIB,
                                  .connections_max = 4,
                                  .window_requests = SESSION_WINDOW,
                                  .window_bytes = 4 * MIB,
                                  .lane_bytes = 1 * MIB,
                                  .greeting_ns_max = TIME_NEVER / 2,
                                  .node = 1,
                                  .cluster = 1,
                                  .view = 1,
                                  .hash_seed = 12345};
}

/* ------------------------------------------------------------------------ open and close */

static int32_t echo(fero_req *req, void *ud)
{
    (void)ud;
    return fero_reply(req, 0, &req->value);
}

static void open_shard(struct turn_bench *bench, uint32_t index)
{
    struct shard *shard = memory_take(sizeof *shard);
    ASSERT(shard != NULL);
    bench->shards[index] = shard;
    memory_io_init(&bench->io[index], index == 0);
    int err = shard_init(shard, index, &bench->io[index].io, &bench->mailboxes[index],
                         bench->shards, bench->slot_owner, &bench->options);
    ASSERT(err == 0);
    shard->command_argument = &bench->definition;
    shard->command = COMMAND_OPEN_CACHE;
    shard_turn(shard);
    ASSERT(shard->caches_count == 1);
}

/* Keys of the first shard only, unless half of the requests are to cross a lane. */
static void make_keys(struct turn_bench *bench)
{
    uint64_t count = (uint64_t)bench->wanted->keys;
    uint64_t number = 0;
    bench->keys = memory_take(count * sizeof *bench->keys);
    ASSERT(bench->keys != NULL);
    for (uint64_t i = 0; i < count;) {
        struct turn_key *key = &bench->keys[i];
        uint64_t mixed = ++number * 0x9e3779b97f4a7c15u;
        memcpy(key->bytes, &mixed, KEY_BYTES);
        key->slot = slot_of_key(key->bytes, KEY_BYTES);
        if (bench->wanted->crossing == CROSSING_HALF || bench->slot_owner[key->slot] == 0) i++;
    }
}

static void turn_open(struct turn_bench *bench)
{
    uint32_t shards = (uint32_t)bench->wanted->shards;
    fero_verb verb = {.name = "echo", .fn = echo};
    fero_opts opts = {.size = sizeof opts, .verbs = &verb, .verbs_count = 1};
    bench->options = options_of(bench->wanted);
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        bench->slot_owner[slot] = (uint16_t)(slot * shards / SLOTS_COUNT);
    rng_init(&bench->rng, 1);
    bench->memory = memory_take(IO_HEADROOM_BYTES + RECEIVE_BYTES + 4096);
    int err = mailboxes_init(bench->mailboxes, shards, bench->options.lane_bytes);
    ASSERT(err == 0 && bench->memory != NULL);
    err = definition_make(&bench->definition, "bench", 0, &opts, NULL);
    ASSERT(err == 0);
    for (uint32_t i = 0; i < shards; i++) open_shard(bench, i);
    make_keys(bench);
}

static void turn_close(struct turn_bench *bench)
{
    uint32_t shards = (uint32_t)bench->wanted->shards;
    for (uint32_t i = 0; i < shards; i++) shard_deinit(bench->shards[i]);
    mailboxes_deinit(bench->mailboxes, shards);
    for (uint32_t i = 0; i < shards; i++) memory_put(bench->shards[i]);
    definition_free(&bench->definition);
    memory_put(bench->keys);
    memory_put(bench->memory);
}

/* ------------------------------------------------------------------------------- feeding */

static void greet(struct turn_bench *bench)
{
    uint8_t *input = bench->memory + IO_HEADROOM_BYTES;
    struct frame_hello hello = {
        .shard = 0, .role = ROLE_CLIENT, .session = 77, .session_start = 1, .seq_first = 1};
    size_t bytes = hello_encode(&hello, (struct bytes){NULL, 0}, input);
    memory_io_feed(&bench->io[0], input, bytes);
    shard_turn(bench->shards[0]);
    ASSERT(bench->shards[0]->counters.connections == 1);
}

static struct frame_request frame_of(const struct turn_bench *bench, enum turn_verb verb)
{
    struct frame_request frame = {.flags = WANT_REPLY << FRAME_WANT_SHIFT,
                                  .key_len = KEY_BYTES,
                                  .length = FRAME_REQUEST_BYTES + KEY_BYTES};
    switch (verb) {
    case TURN_UPDATE: frame.type = FRAME_UPDATE; break;
    case TURN_GET: frame.type = FRAME_GET; return frame;
    case TURN_ECHO:
        frame.type = FRAME_VERB_FIRST;
        frame.key_len = 0;
        break;
    }
    frame.flags |= VALUE_BYTES;
    frame.length = (uint32_t)(FRAME_REQUEST_BYTES + (size_t)bench->wanted->size);
    return frame;
}

/* Fills the receive with `count` requests of keys from `*ordinal` on, or of random ones. */
static size_t fill(struct turn_bench *bench, const struct frame_request *frame, uint64_t count,
                   const uint64_t *ordinal)
{
    uint64_t keys = (uint64_t)bench->wanted->keys;
    uint8_t *at = bench->memory + IO_HEADROOM_BYTES;
    size_t padded = round_up_8(frame->length);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number = ordinal != NULL ? *ordinal + i : rng_below(&bench->rng, keys);
        const struct turn_key *key = &bench->keys[number];
        struct frame_request own = *frame;
        own.seq = (uint32_t)++bench->seq;
        own.slot = frame->key_len > 0 ? key->slot : FRAME_SLOT_ANY;
        memset(at, 0, padded);
        memcpy(at, &own, sizeof own);
        memcpy(at + sizeof own, key->bytes, KEY_BYTES);
        at += padded;
    }
    return (size_t)(at - bench->memory - IO_HEADROOM_BYTES);
}

static void turn(struct turn_bench *bench, struct shard *shard)
{
    shard_turn(shard);
    bench->turns++;
}

/* The same as a function that callgrind can name; not a jump to the other one. */
static NO_INLINE void turn_measured(struct turn_bench *bench, struct shard *shard)
{
    uint64_t before = clock_now_ns();
    shard_turn(shard);
    bench->spent_ns += clock_now_ns() - before;
    bench->turns++;
}

/* Feeds `messages`; the replies that cross a lane leave with the turn after theirs. */
static void feed(struct turn_bench *bench, enum turn_verb verb, uint64_t messages, bool in_order,
                 bool measured)
{
    void (*make_turn)(struct turn_bench *, struct shard *) = measured ? turn_measured : turn;
    struct frame_request frame = frame_of(bench, verb);
    uint64_t per_receive = RECEIVE_BYTES / round_up_8(frame.length);
    for (uint64_t done = 0; done < messages;) {
        uint64_t batch = min_u64(per_receive, messages - done);
        size_t bytes = fill(bench, &frame, batch, in_order ? &done : NULL);
        memory_io_feed(&bench->io[0], bench->memory + IO_HEADROOM_BYTES, bytes);
        make_turn(bench, bench->shards[0]);
        if (mailbox_has_mail(&bench->mailboxes[1])) make_turn(bench, bench->shards[1]);
        done += batch;
    }
    while (!crossing_is_quiet(bench->shards[0])) {
        make_turn(bench, bench->shards[1]);
        make_turn(bench, bench->shards[0]);
    }
}

/* ------------------------------------------------------------------------- the whole bench */

struct turn_totals {
    uint64_t requests;
    uint64_t replies;
    uint64_t errors;
    uint64_t crossed;
    uint64_t memory_bytes;
};

static struct turn_totals totals_of(const struct turn_bench *bench)
{
    struct turn_totals totals = {0};
    for (int64_t i = 0; i < bench->wanted->shards; i++) {
        const struct shard_counters *counters = &bench->shards[i]->counters;
        totals.requests += counters->requests;
        totals.replies += counters->replies;
        totals.errors += counters->errors;
        totals.crossed += counters->crossed_in;
        totals.memory_bytes += counters->memory_bytes;
    }
    return totals;
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
static const char *const crossing_names[] = {"none", "half", NULL};

static void print_figures(const struct turn_bench *bench, const struct turn_totals *before,
                          const struct turn_totals *after)
{
    const struct turn_options *wanted = bench->wanted;
    double messages = (double)wanted->messages;
    double ns = (double)bench->spent_ns / messages;
    double share = (double)(after->crossed - before->crossed) / messages;
    double per_key = (double)after->memory_bytes / (double)wanted->keys;
    if (wanted->json)
        printf("{\"bench\":\"turn\",\"verb\":\"%s\",\"message_bytes\":%lld,\"keys\":%lld,"
               "\"messages\":%lld,\"shards\":%lld,\"crossed_share\":%.3f,\"build\":\"%s\","
               "\"ns_per_msg\":%.2f,\"memory_bytes_per_key\":%.1f}\n",
               verb_names[wanted->verb], (long long)wanted->size, (long long)wanted->keys,
               (long long)wanted->messages, (long long)wanted->shards, share, build_name(), ns,
               per_key);
    else
        printf("%s of %lld bytes over %lld keys, %.0f %% crossing a lane: %.1f ns a message "
               "(%.1f M/s), %.0f bytes of memory a key\n",
               verb_names[wanted->verb], (long long)wanted->size, (long long)wanted->keys,
               share * 100, ns, 1e3 / ns, per_key);
}

static void run(struct turn_bench *bench)
{
    const struct turn_options *wanted = bench->wanted;
    turn_open(bench);
    greet(bench);
    feed(bench, TURN_UPDATE, (uint64_t)wanted->keys, true, false);
    feed(bench, (enum turn_verb)wanted->verb, WARM_UP_MESSAGES, false, false);
    struct turn_totals before = totals_of(bench);
    feed(bench, (enum turn_verb)wanted->verb, (uint64_t)wanted->messages, false, true);
    struct turn_totals after = totals_of(bench);
    ASSERT(after.requests - before.requests == (uint64_t)wanted->messages);
    ASSERT(after.errors == 0);
    print_figures(bench, &before, &after);
    turn_close(bench);
}

/* clang-format off */
#define FIELD(field) .offset = offsetof(struct turn_options, field)
static const struct option_spec turn_specs[] = {
    {.name = "messages", .kind = OPTION_SIZE, FIELD(messages), .shows = "N", .low = 1,
     .high = 1000000000, .help = "requests to measure (10000000)"},
    {.name = "keys", .kind = OPTION_SIZE, FIELD(keys), .shows = "N", .low = 1,
     .high = 20000000, .help = "loaded before, and chosen from at random (1000000)"},
    {.name = "size", .letter = 'm', .kind = OPTION_SIZE, FIELD(size), .shows = "BYTES",
     .low = KEY_BYTES, .high = MESSAGE_BYTES_MAX, .help = "of a message, key and value (100)"},
    {.name = "verb", .kind = OPTION_CHOICE, FIELD(verb), .shows = "update, get, echo",
     .choices = verb_names, .help = "what a message asks for (update)"},
    {.name = "shards", .kind = OPTION_NUMBER, FIELD(shards), .shows = "N", .low = 1, .high = 2,
     .help = "1 or 2, in one thread (1)"},
    {.name = "crossing", .kind = OPTION_CHOICE, FIELD(crossing), .shows = "none, half",
     .choices = crossing_names, .help = "requests that another shard owns (none)"},
    {.name = "history", .kind = OPTION_SIZE, FIELD(history), .shows = "BYTES", .low = 1,
     .high = (int64_t)GIB, .help = "kept before it is compacted, and four times as much garbage (128M)"},
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
    struct turn_options options = {
        .messages = 10000000, .keys = 1000000, .size = 100, .shards = 1, .history = 128 * MIB};
    int count;
    int status = command_parse(&command_turn, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    if (options.crossing == CROSSING_HALF && options.shards == 1) {
        complain(&command_turn, "--crossing half needs a second shard: add --shards 2");
        return STATUS_USAGE;
    }
    struct turn_bench *bench = memory_take(sizeof *bench);
    if (bench == NULL) {
        complain(&command_turn, "no memory");
        return STATUS_NOT_FOUND;
    }
    bench->wanted = &options;
    run(bench);
    memory_put(bench);
    return STATUS_OK;
}
