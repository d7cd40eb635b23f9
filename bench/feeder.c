#include "bench/feeder.h"

#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "bench/keys.h"
#include "engine/handler.h"
#include "fero.h"
#include "wire/hello.h"

/* As large as those of a busy node: net/uring.c. */
#define RECEIVE_BYTES FEEDER_INPUT_BYTES
/* A prime that divides no sensible number of keys, so that its multiples visit each key once. */
#define SCATTER 1000000007u

static struct shard_options options_of(const struct feeder_options *wanted)
{
    return (struct shard_options){.shards_count = wanted->shards_count,
                                  .idle = IDLE_SLEEP,
                                  .log_bytes_max = wanted->log_bytes_max,
                                  .history_bytes_max = wanted->history_bytes_max,
                                  .garbage_bytes_max = wanted->garbage_bytes_max,
                                  .sessions_bytes_max = 16 * MIB,
                                  .outbox_bytes_max = 1 * MIB,
                                  .key_bytes_max = 1 * KIB,
                                  .value_bytes_max = 1 * MIB,
                                  .frame_bytes_max = 1 * MIB + 2 * KIB,
                                  .connections_max = 4,
                                  .links_bytes_max = 64 * MIB,
                                  .half_open_max = 4,
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

static void open_shard(struct feeder *feeder, uint32_t index)
{
    struct shard *shard = feeder->shards[index];
    memory_io_init(&feeder->io[index], index == 0);
    int err = shard_init(shard, index, &feeder->io[index].io, &feeder->mailboxes[index],
                         feeder->shards, feeder->slot_owner, &feeder->options);
    ASSERT(err == 0);
    shard->command_argument = &feeder->definition;
    shard->command = COMMAND_OPEN_CACHE;
    shard_turn(shard);
    ASSERT(shard->caches_count == 1);
}

static void greet(struct feeder *feeder)
{
    uint8_t *input = feeder->memory + IO_HEADROOM_BYTES;
    struct frame_hello hello = {
        .shard = 0, .role = ROLE_CLIENT, .session = 77, .session_start = 1, .seq_first = 1};
    size_t bytes = hello_encode(&hello, (struct bytes){NULL, 0}, input);
    memory_io_feed(&feeder->io[0], input, bytes);
    shard_turn(feeder->shards[0]);
    ASSERT(feeder->shards[0]->counters.connections == 1);
}

static uint16_t make_key(uint64_t number, uint8_t *key)
{
    uint64_t scattered = keys_scattered(number);
    memcpy(key, &scattered, FEEDER_KEY_BYTES);
    return slot_of_key(key, FEEDER_KEY_BYTES);
}

/* Finds as many numbers as there are keys, whose keys are all the first shard's. */
static void choose_numbers(struct feeder *feeder)
{
    uint8_t key[FEEDER_KEY_BYTES];
    uint64_t found = 0;
    feeder->numbers = memory_take(feeder->wanted.keys * sizeof *feeder->numbers);
    ASSERT(feeder->numbers != NULL);
    for (uint64_t number = 0; found < feeder->wanted.keys; number++)
        if (feeder->slot_owner[make_key(number, key)] == 0) feeder->numbers[found++] = number;
}

void feeder_open(struct feeder *feeder, const struct feeder_options *options)
{
    uint32_t shards = options->shards_count;
    fero_verb verb = {.name = "echo", .fn = echo};
    fero_opts opts = {.size = sizeof opts, .verbs = &verb, .verbs_count = 1};
    ASSERT(shards >= 1 && shards <= FEEDER_SHARDS_MAX);
    ASSERT(options->keys > 0 && options->keys % SCATTER != 0);
    ASSERT(options->message_bytes >= FEEDER_KEY_BYTES);
    ASSERT(options->message_bytes <= RECEIVE_BYTES / 2);
    *feeder = (struct feeder){.wanted = *options, .options = options_of(options)};
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        feeder->slot_owner[slot] = (uint16_t)(slot * shards / SLOTS_COUNT);
    rng_init(&feeder->rng, 1);
    feeder->memory = memory_take(IO_HEADROOM_BYTES + RECEIVE_BYTES + 4096);
    int err = mailboxes_init(feeder->mailboxes, shards, feeder->options.lane_bytes);
    ASSERT(err == 0 && feeder->memory != NULL);
    err = definition_make(&feeder->definition, "bench", 0, &opts, NULL);
    ASSERT(err == 0);
    if (shards > 1 && !options->crosses) choose_numbers(feeder);
    /* All of them before the first turn of any: they look at each other. */
    for (uint32_t i = 0; i < shards; i++) {
        feeder->shards[i] = memory_take(sizeof *feeder->shards[i]);
        ASSERT(feeder->shards[i] != NULL);
    }
    for (uint32_t i = 0; i < shards; i++) open_shard(feeder, i);
    greet(feeder);
}

void feeder_close(struct feeder *feeder)
{
    uint32_t shards = feeder->wanted.shards_count;
    for (uint32_t i = 0; i < shards; i++) shard_deinit(feeder->shards[i]);
    mailboxes_deinit(feeder->mailboxes, shards);
    for (uint32_t i = 0; i < shards; i++) memory_put(feeder->shards[i]);
    definition_free(&feeder->definition);
    memory_put(feeder->numbers);
    memory_put(feeder->memory);
}

/* ------------------------------------------------------------------------------- feeding */

uint64_t feeder_key_in_order(struct feeder *feeder, uint64_t i)
{
    return i % feeder->wanted.keys;
}

uint64_t feeder_key_at_random(struct feeder *feeder, uint64_t i)
{
    (void)i;
    return rng_below(&feeder->rng, feeder->wanted.keys);
}

uint64_t feeder_key_scattered(struct feeder *feeder, uint64_t i)
{
    uint64_t keys = feeder->wanted.keys;
    return i % keys * (SCATTER % keys) % keys;
}

static struct frame_request frame_of(const struct feeder *feeder, enum feeder_verb verb)
{
    struct frame_request frame = {.flags = WANT_REPLY << FRAME_WANT_SHIFT,
                                  .key_len = FEEDER_KEY_BYTES,
                                  .length = FRAME_REQUEST_BYTES + FEEDER_KEY_BYTES};
    switch (verb) {
    case FEEDER_UPDATE: frame.type = FRAME_UPDATE; break;
    case FEEDER_GET: frame.type = FRAME_GET; return frame;
    case FEEDER_ECHO:
        frame.type = FRAME_VERB_FIRST;
        frame.key_len = 0;
        break;
    }
    enum value_type type = feeder->wanted.type;
    frame.flags = (uint8_t)(frame.flags | (type != VALUE_UNDEFINED ? type : VALUE_BYTES));
    frame.length = (uint32_t)(FRAME_REQUEST_BYTES + feeder->wanted.message_bytes);
    return frame;
}

/* An array of small objects, and a string that fills the rest. */
static void write_json(uint8_t *to, size_t bytes)
{
    static const char object[] = "{\"name\":\"david\",\"age\":28},";
    size_t at = 0;
    memset(to, '7', bytes);
    if (bytes < 4) return;
    to[at++] = '[';
    for (; at + sizeof object - 1 + 3 <= bytes; at += sizeof object - 1)
        memcpy(to + at, object, sizeof object - 1);
    to[at] = '"';
    to[bytes - 2] = '"';
    to[bytes - 1] = ']';
}

/* Writes one request at `to`: the slot is named, as fero's client does. */
static void write_request(struct feeder *feeder, const struct frame_request *frame, uint64_t key,
                          uint8_t *to)
{
    struct frame_request own = *frame;
    uint8_t *body = to + sizeof own;
    memset(to, 0, round_up_8(frame->length));
    own.seq = (uint32_t)++feeder->seq;
    own.slot = make_key(feeder->numbers != NULL ? feeder->numbers[key] : key, body);
    if (frame->key_len == 0) own.slot = FRAME_SLOT_ANY;
    size_t value_bytes = frame->length - sizeof own - frame->key_len;
    if ((frame->flags & FRAME_VALUE_TYPE) == VALUE_JSON)
        write_json(body + frame->key_len, value_bytes);
    memcpy(to, &own, sizeof own);
}

static void plain_turn(struct feeder *feeder, struct shard *shard, void *context)
{
    (void)feeder;
    (void)context;
    shard_turn(shard);
}

uint8_t *feeder_input(struct feeder *feeder)
{
    return feeder->memory + IO_HEADROOM_BYTES;
}

void feeder_feed_input(struct feeder *feeder, size_t bytes, feeder_turn_fn turn, void *context)
{
    ASSERT(feeder->wanted.shards_count == 1 && bytes <= FEEDER_INPUT_BYTES);
    memory_io_feed(&feeder->io[0], feeder_input(feeder), bytes);
    if (turn == NULL) turn = plain_turn;
    turn(feeder, feeder->shards[0], context);
}

void feeder_feed(struct feeder *feeder, enum feeder_verb verb, uint64_t messages, feeder_key_fn key,
                 feeder_turn_fn turn, void *context)
{
    struct frame_request frame = frame_of(feeder, verb);
    size_t padded = round_up_8(frame.length);
    uint64_t per_receive = RECEIVE_BYTES / padded;
    if (turn == NULL) turn = plain_turn;
    for (uint64_t done = 0; done < messages;) {
        uint64_t batch = min_u64(per_receive, messages - done);
        uint8_t *input = feeder->memory + IO_HEADROOM_BYTES;
        for (uint64_t i = 0; i < batch; i++)
            write_request(feeder, &frame, key(feeder, done + i), input + i * padded);
        memory_io_feed(&feeder->io[0], input, batch * padded);
        turn(feeder, feeder->shards[0], context);
        /* Replies that cross a lane leave with the next turn. */
        if (mailbox_has_mail(&feeder->mailboxes[1])) turn(feeder, feeder->shards[1], context);
        done += batch;
    }
    while (!crossing_is_quiet(feeder->shards[0])) {
        turn(feeder, feeder->shards[1], context);
        turn(feeder, feeder->shards[0], context);
    }
}

struct feeder_totals feeder_totals_of(const struct feeder *feeder)
{
    struct feeder_totals totals = {0};
    for (uint32_t i = 0; i < feeder->wanted.shards_count; i++) {
        const struct shard_counters *counters = &feeder->shards[i]->counters;
        totals.requests += counters->requests;
        totals.errors += counters->errors;
        totals.crossed += counters->crossed_in;
        totals.keys += counters->keys;
        totals.memory_bytes += counters->memory_bytes;
    }
    return totals;
}
