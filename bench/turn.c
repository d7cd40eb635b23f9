/*
 * How much does a shard itself cost: a received request to its encoded reply, without the kernel?
 *
 * Recorded receives of 32 KiB are fed through an in-memory io to one shard with everything on:
 * checks, hash, session, dedupe, clock, log with sealed batches, table, index, reply, ACK. Under
 * callgrind the difference between two lengths is the instructions of one message
 * (tests/perf/instructions.sh).
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "bench/bench.h"
#include "bench/memory_io.h"
#include "shard/shard.h"
#include "wire/hello.h"

#define RECEIVE_BYTES (32 * KIB)
#define FRAMES_BYTES (64 * MIB)

struct turn_bench {
    struct memory_io io;
    struct mailbox mailbox;
    struct shard *shard;
    struct shard *peers[1];
    struct shard_options options;
    uint16_t slot_owner[4096];
    struct cache_definition definition;
    uint8_t *memory; /* headroom, then one receive */
    struct rng rng;
    uint64_t keys;
    uint64_t seq;
    size_t message_bytes;
};

static void turn_open(struct turn_bench *bench)
{
    bench->options = (struct shard_options){.shards_count = 1,
                                            .idle = IDLE_SLEEP,
                                            .log_bytes_max = 4 * GIB,
                                            .history_bytes_max = 128 * MIB,
                                            .garbage_bytes_max = 512 * MIB,
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
    memory_io_init(&bench->io);
    bench->shard = memory_take(sizeof *bench->shard);
    bench->memory = memory_take(IO_HEADROOM_BYTES + RECEIVE_BYTES + 4096);
    int err = mailboxes_init(&bench->mailbox, 1, bench->options.lane_bytes);
    ASSERT(err == 0 && bench->shard != NULL && bench->memory != NULL);
    bench->peers[0] = bench->shard;
    err = shard_init(bench->shard, 0, &bench->io.io, &bench->mailbox, bench->peers,
                     bench->slot_owner, &bench->options);
    ASSERT(err == 0);
    static char name[] = "bench";
    bench->definition.name = name;
    bench->shard->command_argument = &bench->definition;
    bench->shard->command = COMMAND_OPEN_CACHE;
    rng_init(&bench->rng, 1);
    shard_turn(bench->shard);
    ASSERT(bench->shard->caches_count == 1);
}

static void turn_close(struct turn_bench *bench)
{
    shard_deinit(bench->shard);
    mailboxes_deinit(&bench->mailbox, 1);
    memory_put(bench->shard);
    memory_put(bench->memory);
}

static void greet(struct turn_bench *bench)
{
    uint8_t *input = bench->memory + IO_HEADROOM_BYTES;
    struct frame_hello hello = {
        .shard = 0, .role = ROLE_CLIENT, .session = 77, .session_start = 1, .seq_first = 1};
    size_t bytes = hello_encode(&hello, (struct bytes){NULL, 0}, input);
    memory_io_feed(&bench->io, input, bytes);
    shard_turn(bench->shard);
    ASSERT(bench->shard->counters.connections == 1);
}

static void key_of(uint64_t number, uint8_t *key)
{
    uint64_t mixed = (number + 1) * 0x9e3779b97f4a7c15u;
    memcpy(key, &mixed, 8);
}

/* Fills one receive with updates; `ordinal` counts up through the keys, or they are random. */
static size_t fill(struct turn_bench *bench, uint64_t messages, const uint64_t *ordinal)
{
    uint8_t *at = bench->memory + IO_HEADROOM_BYTES;
    size_t length = FRAME_REQUEST_BYTES + bench->message_bytes;
    for (uint64_t i = 0; i < messages; i++) {
        struct frame_request frame = {
            .length = (uint32_t)length,
            .type = FRAME_UPDATE,
            .flags = VALUE_BYTES | WANT_REPLY << FRAME_WANT_SHIFT,
            .key_len = 8,
            .slot = FRAME_SLOT_ANY,
            .seq = (uint32_t)++bench->seq,
        };
        uint64_t number = ordinal != NULL ? *ordinal + i : rng_below(&bench->rng, bench->keys);
        memset(at, 0, round_up_8(length));
        memcpy(at, &frame, sizeof frame);
        key_of(number, at + sizeof frame);
        at += round_up_8(length);
    }
    return (size_t)(at - bench->memory - IO_HEADROOM_BYTES);
}

static uint64_t per_receive(const struct turn_bench *bench)
{
    return RECEIVE_BYTES / round_up_8(FRAME_REQUEST_BYTES + bench->message_bytes);
}

/* Feeds `messages` and returns the nanoseconds spent in turns. */
static uint64_t feed(struct turn_bench *bench, uint64_t messages, bool in_order)
{
    uint64_t spent_ns = 0;
    uint64_t done = 0;
    while (done < messages) {
        uint64_t batch = min_u64(per_receive(bench), messages - done);
        size_t bytes = fill(bench, batch, in_order ? &done : NULL);
        memory_io_feed(&bench->io, bench->memory + IO_HEADROOM_BYTES, bytes);
        uint64_t before = clock_now_ns();
        shard_turn(bench->shard);
        spent_ns += clock_now_ns() - before;
        done += batch;
    }
    return spent_ns;
}

static const char turn_help[] =
    "usage: fero bench turn [--messages N] [--keys N] [-m BYTES] [--json]\n"
    "\n"
    "Nanoseconds a shard needs for one update, from received bytes to encoded reply, without the\n"
    "kernel. Under callgrind: its instructions.\n"
    "\n"
    "  fero bench turn\n"
    "  fero bench turn -m 1000 --keys 100000\n"
    "  valgrind --tool=callgrind fero bench turn --messages 200000 --keys 10000\n";

int bench_turn_main(int argc, char **argv)
{
    static const struct option options[] = {{"messages", required_argument, NULL, 'n'},
                                            {"keys", required_argument, NULL, 'k'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    struct turn_bench bench = {.keys = 1000000, .message_bytes = 100};
    uint64_t messages = 10000000;
    bool json = false;
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "m:", options, NULL)) != -1) {
        switch (option) {
        case 'n': messages = strtoull(optarg, NULL, 10); break;
        case 'k': bench.keys = strtoull(optarg, NULL, 10); break;
        case 'm': bench.message_bytes = strtoull(optarg, NULL, 10); break;
        case 'j': json = true; break;
        case 'h': fputs(turn_help, stdout); return 0;
        default: return 2;
        }
    }
    if (bench.keys == 0 || bench.message_bytes < 8 || bench.message_bytes > 16 * KIB) {
        fprintf(stderr, "fero bench turn: keys must be at least 1, -m from 8 to 16384\n");
        return 2;
    }
    turn_open(&bench);
    greet(&bench);
    feed(&bench, bench.keys, true);
    uint64_t updates = bench.shard->counters.updates;
    uint64_t spent_ns = messages > 0 ? feed(&bench, messages, false) : 0;
    ASSERT(bench.shard->counters.updates == updates + messages);
    ASSERT(bench.shard->counters.errors == 0);
    double ns = messages > 0 ? (double)spent_ns / (double)messages : 0;
    uint64_t entry = sizeof(struct bucket);
    double per_key = (double)(bench.shard->counters.memory_bytes) / (double)bench.keys;
    (void)entry;
    if (json)
        printf("{\"bench\":\"turn\",\"message_bytes\":%zu,\"keys\":%llu,\"messages\":%llu,"
               "\"ns_per_msg\":%.2f,\"memory_bytes_per_key\":%.1f}\n",
               bench.message_bytes, (unsigned long long)bench.keys, (unsigned long long)messages,
               ns, per_key);
    else
        printf(
            "%zu-byte updates over %llu keys: %.1f ns a message (%.1f M/s), %.0f bytes of memory "
            "a key\n",
            bench.message_bytes, (unsigned long long)bench.keys, ns, ns > 0 ? 1e3 / ns : 0,
            per_key);
    turn_close(&bench);
    return 0;
}
