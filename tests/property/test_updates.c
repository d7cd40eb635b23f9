/*
 * The short way through a shard (updates.c) against the general one (run.c): for the same random
 * stream, in the same pieces, both must answer the same bytes and leave the same log behind, byte
 * for byte. Some nodes have several shards, so that what is another one's crosses in bundles
 * (bundle.c) on one side and one by one on the other. A failure names its seed: `test_updates SEED`
 * replays that one alone.
 */
#include "shard/updates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/rng.h"
#include "shard/crossing.h"
#include "tests/support/node.h"

#define SEEDS 80
#define STEPS 60
#define PIECE_BYTES_MAX 40000
#define KEYS 300

static uint64_t seed_first = 1;
static uint64_t seed_last = SEEDS;

/* Takes nothing: everything goes the general way. */
static size_t take_nothing(struct updates *updates, const uint8_t *data, size_t size)
{
    (void)updates;
    (void)data;
    (void)size;
    return 0;
}

static int32_t pass_on(struct request_context *context, const void *verb)
{
    (void)context;
    (void)verb;
    return HANDLED_NEXT;
}

/* One of the two nodes, and everything that its peer has heard. */
struct side {
    struct node node;
    struct peer peer;
    bool is_tight; /* turns take less, and not the same: only the last ACK counts */
    struct stream heard;
    struct stream acked; /* what was said with each ACK */
};

struct world {
    struct side sides[2]; /* the short way, the general way */
    struct rng rng;
    uint64_t seed;
    uint64_t session;
    uint64_t seq;
    uint32_t shards;
    uint32_t calm; /* what is no plain update is so many times rarer */
    bool is_tight; /* outbox and lanes are small, and sends are held now and then */
};

static uint64_t below(struct world *world, uint64_t bound)
{
    return rng_below(&world->rng, bound);
}

static bool one_in(struct world *world, uint64_t n)
{
    return below(world, n) == 0;
}

static bool rarely_one_in(struct world *world, uint64_t n)
{
    return one_in(world, n * world->calm);
}

/* ---------------------------------------------------------------------------- the stream */

struct text {
    char data[128];
};

static const char *random_key(struct world *world, struct text *text)
{
    static const char *const shapes[] = {"k%05u__", "key-%u", "%u", "{tag}.%u",
                                         "a.long.path.of.%u"};
    unsigned number = (unsigned)below(world, KEYS);
    const char *shape = one_in(world, 3) ? shapes[below(world, 5)] : shapes[0];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int bytes = snprintf(text->data, sizeof text->data, shape, number);
#pragma GCC diagnostic pop
    if (rarely_one_in(world, 60)) {
        memset(text->data + bytes, 'x', (size_t)(101 - bytes)); /* 100 are allowed */
        text->data[one_in(world, 2) ? 100 : 101] = 0;
    }
    return rarely_one_in(world, 200) ? "" : text->data;
}

static struct bytes random_value(struct world *world)
{
    static uint8_t bytes[20064];
    size_t size = one_in(world, 10) ? (size_t)below(world, 3000) : (size_t)below(world, 140);
    if (rarely_one_in(world, 300)) size = 19990 + (size_t)below(world, 20); /* 20000 are allowed */
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = rng_next(&world->rng);
        memcpy(bytes + i, &word, sizeof word);
    }
    return (struct bytes){bytes, size};
}

/* The next number; now and then with a gap, one that was, or one that is too old. */
static uint32_t random_seq(struct world *world)
{
    uint64_t what = below(world, 100 * (uint64_t)world->calm);
    if (what < 3) return (uint32_t)(world->seq - below(world, min_u64(world->seq, 2000)));
    if (what < 4) return (uint32_t)(world->seq - min_u64(world->seq, 20000));
    world->seq += what < 6 ? below(world, 500) : 1;
    return (uint32_t)world->seq;
}

static uint16_t random_slot(struct world *world, const char *key)
{
    if (rarely_one_in(world, 200)) return (uint16_t)below(world, 65536);
    if (one_in(world, 2)) return FRAME_SLOT_ANY;
    return slot_of_key(key, strlen(key));
}

static void put_ask(struct world *world, struct stream *stream)
{
    static const uint8_t types[] = {VALUE_STRING, VALUE_JSON, VALUE_BYTES};
    struct text text;
    const char *key = random_key(world, &text);
    struct ask ask = {.type = FRAME_UPDATE,
                      .want = WANT_REPLY,
                      .value_type = types[below(world, 3)],
                      .slot = random_slot(world, key),
                      .seq = random_seq(world),
                      .key = bytes_of(key),
                      .value = random_value(world)};
    switch (below(world, 40 * (uint64_t)world->calm)) {
    case 0: ask.type = FRAME_REMOVE; break;
    case 1: ask.type = FRAME_GET; break;
    case 2: ask.want = (uint8_t)below(world, 4); break;
    case 3: ask.value_type = (uint8_t)below(world, 16); break;
    case 4: ask.cache = (uint16_t)below(world, 4); break; /* the third one is not open */
    case 5: ask.type = (uint8_t)(FRAME_UPDATE + below(world, 240)); break;
    case 6:
        ask.extensions.present = 1u << EXT_FLOOR | 1u << EXT_DEADLINE_MS;
        ask.extensions.deadline_ms = 60000;
        break;
    case 7: ask.value.size = 8, ask.value_type = VALUE_INT64; break;
    default: break;
    }
    if (ask.type == FRAME_REMOVE || ask.type == FRAME_GET) ask.value_type = 0, ask.value.size = 0;
    size_t before = stream->bytes;
    stream_ask(stream, &ask);
    /* What a sender leaves in the padding must not be seen again. */
    size_t length = FRAME_REQUEST_BYTES + ask.key.size + ask.value.size;
    if (ask.extensions.present == 0)
        memset(stream->data + before + length, 0xee, stream->bytes - before - length);
}

/* ----------------------------------------------------------------------------- two sides */

static void side_open(struct side *side, const struct shard_options *options, updates_fn take)
{
    node_open(&side->node, options);
    node_add_cache(&side->node, "demo", NULL, 0, NULL);
    node_add_cache(&side->node, "other", NULL, 0, NULL);
    node_add_cache(&side->node, "handled", NULL, 0, pass_on);
    for (uint32_t i = 0; i < options->shards_count; i++) {
        side->node.shards[i]->updates_take = take;
        side->node.shards[i]->hlc = (uint64_t)1 << 62; /* the clock must not matter */
    }
}

static void side_hear(struct side *side)
{
    const struct frame_prefix *prefix;
    while ((prefix = peer_next(&side->peer)) != NULL) {
        struct frame_ack ack;
        if (prefix->type != FRAME_ACK) {
            stream_put(&side->heard, prefix, round_up_8(prefix->length));
            continue;
        }
        memcpy(&ack, prefix, sizeof ack);
        if (side->is_tight) side->acked.bytes = 0;
        stream_put(&side->acked, &ack, sizeof ack);
    }
}

static void side_reconnect(struct side *side, const struct world *world)
{
    if (side->peer.node != NULL) {
        peer_hang_up(&side->peer);
        node_settle(&side->node);
        peer_free(&side->peer);
    }
    side->peer = peer_greeted(&side->node, 0, world->session, max_u64(world->seq, 1));
}

static void side_close(struct side *side)
{
    stream_free(&side->heard);
    stream_free(&side->acked);
    peer_free(&side->peer);
    node_close(&side->node);
}

/* ---------------------------------------------------------------------------- comparing */

struct frame {
    const uint8_t *data;
    size_t bytes;
};

static int compare_frames(const void *a, const void *b)
{
    const struct frame *x = a;
    const struct frame *y = b;
    int order = memcmp(x->data, y->data, min_u64(x->bytes, y->bytes));
    return order != 0 ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* With several shards replies may come in another order: brings them into one. */
static void sort_frames(struct stream *heard)
{
    struct stream sorted = {0};
    size_t count = 0;
    struct frame *frames = malloc((heard->bytes / FRAME_REPLY_BYTES + 1) * sizeof *frames);
    assert_non_null(frames);
    for (size_t at = 0; at < heard->bytes; count++) {
        uint32_t length;
        memcpy(&length, heard->data + at, sizeof length);
        frames[count] = (struct frame){heard->data + at, round_up_8(length)};
        at += round_up_8(length);
    }
    qsort(frames, count, sizeof *frames, compare_frames);
    for (size_t i = 0; i < count; i++) stream_put(&sorted, frames[i].data, frames[i].bytes);
    free(frames);
    stream_free(heard);
    *heard = sorted;
}

/* And empties them. */
static void compare_streams(struct stream *a, struct stream *b)
{
    assert_int_equal(a->bytes, b->bytes);
    if (a->bytes > 0) assert_memory_equal(a->data, b->data, a->bytes);
    a->bytes = 0;
    b->bytes = 0;
}

static void compare_heard(struct world *world)
{
    struct side *a = &world->sides[0];
    struct side *b = &world->sides[1];
    side_hear(a);
    side_hear(b);
    if (world->shards > 1) {
        sort_frames(&a->heard);
        sort_frames(&b->heard);
    }
    compare_streams(&a->heard, &b->heard);
    compare_streams(&a->acked, &b->acked);
}

static void compare_slot(const struct store *a, const struct store *b, uint16_t slot)
{
    struct slot_walk walk_a;
    struct slot_walk walk_b;
    const struct change *change_a;
    assert_int_equal(a->slots[slot].place, b->slots[slot].place);
    assert_int_equal(a->slots[slot].chain, b->slots[slot].chain);
    slot_walk_begin(&walk_a, &a->log, slot);
    slot_walk_begin(&walk_b, &b->log, slot);
    do {
        change_a = slot_walk_next(&walk_a);
        const struct change *change_b = slot_walk_next(&walk_b);
        assert_int_equal(change_a == NULL, change_b == NULL);
        if (change_a == NULL) break;
        size_t bytes = change_padded_bytes(change_a);
        assert_int_equal(bytes, change_padded_bytes(change_b));
        assert_memory_equal(change_a, change_b, bytes);
        uint32_t index_a = *index_word(a->segments, address_of(a->segments, change_a));
        uint32_t index_b = *index_word(b->segments, address_of(b->segments, change_b));
        assert_int_equal(index_is_superseded(index_a), index_is_superseded(index_b));
    } while (change_a != NULL);
}

static void compare_stores(struct world *world)
{
    for (uint32_t i = 0; i < world->shards; i++) {
        const struct shard *a = world->sides[0].node.shards[i];
        const struct shard *b = world->sides[1].node.shards[i];
        assert_int_equal(a->counters.updates + a->counters.duplicates,
                         b->counters.updates + b->counters.duplicates);
        assert_int_equal(a->counters.errors, b->counters.errors);
        assert_int_equal(a->counters.replies, b->counters.replies);
        assert_int_equal(a->counters.requests, b->counters.requests);
        assert_int_equal(a->counters.crossed_out, b->counters.crossed_out);
        assert_int_equal(a->counters.crossed_in, b->counters.crossed_in);
        assert_int_equal(a->handed_over, 0);
        for (uint32_t peer = 0; peer < world->shards; peer++)
            assert_int_equal(a->crossing[peer].promised_bytes, 0);
        assert_int_equal(a->sessions.count, b->sessions.count);
        assert_int_equal(a->sessions.bytes, b->sessions.bytes);
        for (uint32_t cache = 0; cache < a->caches_count; cache++) {
            struct store *store_a = &a->caches[cache]->store;
            struct store *store_b = &b->caches[cache]->store;
            store_check(store_a);
            store_check(store_b);
            assert_int_equal(store_keys_count(store_a), store_keys_count(store_b));
            for (uint16_t slot = 0; slot < SLOTS_COUNT; slot++)
                compare_slot(store_a, store_b, slot);
            if (world->is_tight) continue; /* turns ended elsewhere, and batches with them */
            assert_int_equal(log_live_bytes(&store_a->log), log_live_bytes(&store_b->log));
            assert_int_equal(store_a->log.stream_next, store_b->log.stream_next);
            assert_int_equal(store_a->log.previous_checksum, store_b->log.previous_checksum);
        }
    }
}

/* ------------------------------------------------------------------------------ the test */

static void hold(struct world *world, bool held)
{
    for (unsigned i = 0; i < 2; i++)
        fake_io_hold_sends(world->sides[i].node.ios[0], world->sides[i].peer.conn, held);
}

/* What may be owed at the end of a turn: an outbox and one reply more, half a lane. */
static void check_bounds(const struct side *side)
{
    const struct shard_options *options = &side->node.options;
    const struct shard *shard = side->node.shards[0];
    size_t reply_bytes_max = FRAME_REPLY_BYTES + CROSSING_INLINE_BYTES_MAX;
    for (uint32_t i = 0; i < shard->callers_fresh; i++)
        assert_true(shard->callers[i].reserved_bytes <=
                    options->outbox_bytes_max + reply_bytes_max);
    for (uint32_t peer = 0; peer < options->shards_count; peer++) {
        if (peer == shard->index) continue;
        const struct lane *lane = shard->mailbox->out[peer];
        assert_true(shard->crossing[peer].promised_bytes <= options->lane_bytes / 2);
        assert_true(lane->producer.tail - lane->consumed.head <= options->lane_bytes / 2);
    }
}

/* Both sides go on; what they send each other is looked at before it is taken. */
static void turn(struct side *side)
{
    node_turn_one(&side->node, 0);
    check_bounds(side);
    for (uint32_t i = 1; i < side->node.options.shards_count; i++) node_turn_one(&side->node, i);
}

static void step(struct world *world)
{
    struct stream stream = {0};
    size_t bytes = 1 + (size_t)below(world, PIECE_BYTES_MAX);
    bool holds = world->is_tight && one_in(world, 3);
    while (stream.bytes < bytes) put_ask(world, &stream);
    if (holds) hold(world, true);
    /* The same cuts on both sides. */
    for (size_t at = 0; at < stream.bytes;) {
        size_t piece = one_in(world, 2) ? stream.bytes - at : 1 + (size_t)below(world, 5000);
        piece = min_u64(piece, stream.bytes - at);
        for (unsigned i = 0; i < 2; i++) {
            peer_send(&world->sides[i].peer, stream.data + at, piece);
            turn(&world->sides[i]);
        }
        at += piece;
    }
    stream_free(&stream);
    if (holds) hold(world, false);
    for (unsigned i = 0; i < 2; i++) node_settle(&world->sides[i].node);
    compare_heard(world);
}

static void run_world(uint64_t seed, updates_fn take)
{
    static struct world world;
    char text[64];
    snprintf(text, sizeof text, "seed %llu", (unsigned long long)seed);
    assert_context_set(text);
    print_message("%s\n", text);
    world = (struct world){.seed = seed, .seq = 0};
    rng_init(&world.rng, seed);
    world.shards = one_in(&world, 2) ? 1 : 2 + (uint32_t)below(&world, 2);
    world.calm = one_in(&world, 2) ? 1 : 20;
    world.is_tight = one_in(&world, 3);
    world.session = one_in(&world, 4) ? 0 : rng_next(&world.rng) | 1;
    if (one_in(&world, 4)) world.seq = ((uint64_t)1 << 32) - below(&world, 3000);
    struct shard_options options = node_options(world.shards);
    if (world.is_tight) {
        if (one_in(&world, 2)) options.outbox_bytes_max = 1000 + (size_t)below(&world, 8000);
        options.lane_bytes = 32 * KIB << below(&world, 3);
    }
    side_open(&world.sides[0], &options, take);
    side_open(&world.sides[1], &options, take_nothing);
    world.sides[0].is_tight = world.is_tight;
    world.sides[1].is_tight = world.is_tight;
    for (unsigned i = 0; i < STEPS; i++) {
        if (i == 0 || one_in(&world, 15))
            for (unsigned side = 0; side < 2; side++) side_reconnect(&world.sides[side], &world);
        step(&world);
    }
    compare_stores(&world);
    side_close(&world.sides[0]);
    side_close(&world.sides[1]);
    assert_context_set(NULL);
}

static void the_short_way_is_the_general_way(void **unused)
{
    (void)unused;
    for (uint64_t seed = seed_first; seed <= seed_last; seed++) run_world(seed, updates_take);
}

static void and_so_is_its_other_variant(void **unused)
{
    (void)unused;
    updates_fn take = updates_choose();
    if (take == updates_take) skip();
    for (uint64_t seed = seed_first; seed <= seed_last; seed++) run_world(seed, take);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_short_way_is_the_general_way),
        cmocka_unit_test(and_so_is_its_other_variant),
    };
    if (argc > 1) seed_first = seed_last = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
