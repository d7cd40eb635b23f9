/*
 * The short way through a shard (updates.c) against the general one (run.c, request.h): for the same random
 * stream, in the same pieces, both must answer the same bytes and leave the same log behind, byte
 * for byte. Some nodes have several shards, so that what is another one's crosses in bundles
 * (bundle.c) on one side and one by one on the other; and some have two links of one session, on
 * two shards. A failure names its seed: `test_updates SEED` replays that one alone.
 */
#include "shard/updates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/rng.h"
#include "shard/crossing.h"
#include "tests/support/key_of_hash.h"
#include "tests/support/node.h"

#define SEEDS 80
#define STEPS 60
#define PIECE_BYTES_MAX 40000
/* Of a world whose memory gets full. */
#define PIECE_BYTES_MAX_FULL 1000000
#define KEYS 300
#define PEERS_MAX 2
/* Numbers after which a session has grown as far as it ever does. */
#define GROWN (SESSION_WINDOW + 1000)

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

/* A link, and everything that was heard on it. */
struct ear {
    struct peer peer;
    struct stream heard;
    struct stream acked; /* what was said with each ACK */
};

/* One of the two nodes. */
struct side {
    struct node node;
    struct ear ears[PEERS_MAX]; /* the second one on another shard, */
    bool answers;               /* so that replies lie in the lanes of the first, too */
};

struct world {
    struct side sides[2]; /* the short way, the general way */
    struct rng rng;
    uint64_t seed;
    uint64_t session;
    uint64_t seq;
    uint32_t shards;
    uint32_t peers;
    uint32_t calm;  /* what is no plain update is so many times rarer */
    bool is_tight;  /* outbox and lanes are small, and sends are held now and then: turns take less,
                    * and not the same, so of the ACKs only the last one counts */
    bool is_full;   /* there is more to write than memory for it */
    bool has_alike; /* most updates have a key of 8 bytes and a value of this size */
    size_t alike_bytes;
    uint32_t keys;
    uint16_t cache;  /* that most of this step's requests are for */
    uint32_t to;     /* the link on which they go */
    bool reconnects; /* before the next step */
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

static void put_key_of_hash(uint64_t hash, struct text *text)
{
    uint64_t key = key_of_hash(hash, node_options(1).hash_seed);
    memcpy(text->data, &key, sizeof key);
}

/*
 * Keys that the table has trouble with: those of one bucket, that overflows, and those whose entries
 * look alike, since they differ in bits only that no entry has.
 */
static struct bytes hard_key(struct world *world, struct text *text)
{
    uint64_t number = below(world, 40);
    uint64_t hash = hash_bytes(&number, sizeof number);
    if (one_in(world, 2))
        put_key_of_hash(hash << 10 | 5, text);
    else
        put_key_of_hash(hash ^ below(world, 4) << 40, text);
    return (struct bytes){text->data, 8};
}

static struct bytes random_key(struct world *world, struct text *text)
{
    static const char *const shapes[] = {"k%05u__", "key-%u", "%u", "{tag}.%u",
                                         "a.long.path.of.%u"};
    unsigned number = (unsigned)below(world, world->keys);
    const char *shape = rarely_one_in(world, 3) ? shapes[below(world, 5)] : shapes[0];
    if (one_in(world, 10)) return hard_key(world, text);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int bytes = snprintf(text->data, sizeof text->data, shape, number);
#pragma GCC diagnostic pop
    if (rarely_one_in(world, 60)) {
        memset(text->data + bytes, 'x', (size_t)(101 - bytes)); /* 100 are allowed */
        text->data[one_in(world, 2) ? 100 : 101] = 0;
    }
    return bytes_of(rarely_one_in(world, 200) ? "" : text->data);
}

static size_t random_value_bytes(struct world *world)
{
    if (world->has_alike && !one_in(world, 40)) return world->alike_bytes;
    if (rarely_one_in(world, 300)) return 19990 + (size_t)below(world, 20); /* 20000 are allowed */
    if (world->is_full) return (size_t)below(world, 20000);
    return one_in(world, 10) ? (size_t)below(world, 3000) : (size_t)below(world, 140);
}

static struct bytes random_value(struct world *world)
{
    static uint8_t bytes[20064];
    size_t size = random_value_bytes(world);
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = rng_next(&world->rng);
        memcpy(bytes + i, &word, sizeof word);
    }
    return (struct bytes){bytes, size};
}

/* Now and then it is not what its type says. */
static void make_text(struct world *world, uint8_t type, struct bytes value)
{
    uint8_t *bytes = (uint8_t *)(uintptr_t)value.data;
    if (type == VALUE_BYTES || value.size == 0 || rarely_one_in(world, 300)) return;
    for (size_t i = 0; i < value.size; i++) bytes[i] = 'a' + bytes[i] % 26;
    if (type == VALUE_STRING && value.size > 1 && one_in(world, 3)) memcpy(bytes, "\xc3\xa9", 2);
    if (type != VALUE_JSON) return;
    if (value.size == 1) bytes[0] = '7';
    if (value.size > 1) bytes[0] = bytes[value.size - 1] = '"';
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

static uint16_t random_slot(struct world *world, struct bytes key)
{
    if (rarely_one_in(world, 200)) return (uint16_t)below(world, 65536);
    if (one_in(world, 2)) return FRAME_SLOT_ANY;
    return slot_of_key(key.data, key.size);
}

static uint8_t random_type(struct world *world)
{
    static const uint8_t types[] = {VALUE_STRING, VALUE_JSON, VALUE_BYTES};
    return types[world->has_alike && !one_in(world, 40) ? 0 : below(world, 3)];
}

static void put_ask(struct world *world, struct stream *stream)
{
    struct text text;
    struct bytes key = random_key(world, &text);
    struct ask ask = {.type = FRAME_UPDATE,
                      .want = WANT_REPLY,
                      .value_type = random_type(world),
                      .cache = world->cache,
                      .slot = random_slot(world, key),
                      .seq = random_seq(world),
                      .key = key,
                      .value = random_value(world)};
    make_text(world, ask.value_type, ask.value);
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

static void ear_hear(struct ear *ear, bool is_tight)
{
    const struct frame_prefix *prefix;
    while ((prefix = peer_next(&ear->peer)) != NULL) {
        struct frame_ack ack;
        if (prefix->type != FRAME_ACK) {
            stream_put(&ear->heard, prefix, round_up_8(prefix->length));
            continue;
        }
        memcpy(&ack, prefix, sizeof ack);
        if (is_tight) ear->acked.bytes = 0;
        stream_put(&ear->acked, &ack, sizeof ack);
    }
}

/* Links of which the first number may be one that the session knows. */
static void side_reconnect(struct side *side, const struct world *world)
{
    for (uint32_t i = 0; i < world->peers; i++) {
        struct ear *ear = &side->ears[i];
        if (ear->peer.node != NULL) {
            peer_hang_up(&ear->peer);
            node_settle(&side->node);
            peer_free(&ear->peer);
        }
        ear->peer = peer_greeted(&side->node, i, world->session, max_u64(world->seq, 1));
    }
}

static void side_close(struct side *side)
{
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        stream_free(&side->ears[i].heard);
        stream_free(&side->ears[i].acked);
        peer_free(&side->ears[i].peer);
    }
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
    for (uint32_t i = 0; i < world->peers; i++) {
        struct ear *a = &world->sides[0].ears[i];
        struct ear *b = &world->sides[1].ears[i];
        ear_hear(a, world->is_tight);
        ear_hear(b, world->is_tight);
        if (world->shards > 1) {
            sort_frames(&a->heard);
            sort_frames(&b->heard);
        }
        compare_streams(&a->heard, &b->heard);
        compare_streams(&a->acked, &b->acked);
    }
}

static void compare_slot(const struct world *world, const struct store *a, const struct store *b,
                         uint16_t slot)
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
        if (!world->is_tight) assert_int_equal(index_a, index_b);
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
                compare_slot(world, store_a, store_b, slot);
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
        fake_io_hold_sends(world->sides[i].node.ios[0], world->sides[i].ears[0].peer.conn, held);
}

/* Bytes of mail in the lane, but for pads. */
static size_t mail_bytes(const struct lane *lane)
{
    size_t bytes = 0;
    const struct mail *mail;
    for (uint64_t at = lane->consumed.head; at < lane->producer.tail; at += mail->bytes) {
        mail = (const struct mail *)(const void *)(lane->memory + (at & (lane->bytes - 1)));
        if (mail->kind != LANE_PAD) bytes += mail->bytes;
    }
    return bytes;
}

/* What may be owed at the end of a turn: an outbox and one reply more, half a lane. */
static void check_bounds(const struct side *side)
{
    const struct shard_options *options = &side->node.options;
    const struct shard *shard = side->node.shards[0];
    size_t reply_bytes_max = FRAME_REPLY_BYTES + CROSSING_INLINE_BYTES_MAX;
    /* Half of it, without what pads may take. */
    size_t requests_bytes_max = options->lane_bytes / 2 - 2 * (CROSSING_INLINE_BYTES_MAX + 256);
    for (uint32_t i = 0; i < shard->callers_fresh; i++)
        assert_true(shard->callers[i].reserved_bytes <=
                    options->outbox_bytes_max + reply_bytes_max);
    for (uint32_t peer = 0; peer < options->shards_count; peer++) {
        if (peer == shard->index) continue;
        const struct lane *lane = shard->mailbox->out[peer];
        assert_true(shard->crossing[peer].promised_bytes <= options->lane_bytes / 2);
        assert_true(lane->producer.tail - lane->consumed.head <= options->lane_bytes / 2);
        if (!side->answers) assert_true(mail_bytes(lane) <= requests_bytes_max);
    }
}

/* Both sides go on; what they send each other is looked at before it is taken. */
static void turn(struct side *side)
{
    node_turn_one(&side->node, 0);
    check_bounds(side);
    for (uint32_t i = 1; i < side->node.options.shards_count; i++) node_turn_one(&side->node, i);
}

/* The same cuts on both sides. */
static void send_both(struct world *world, const struct stream *stream)
{
    for (size_t at = 0; at < stream->bytes;) {
        size_t piece = one_in(world, 2) ? stream->bytes - at : 1 + (size_t)below(world, 5000);
        piece = min_u64(piece, stream->bytes - at);
        for (unsigned i = 0; i < 2; i++) {
            struct side *side = &world->sides[i];
            peer_send(&side->ears[world->to].peer, stream->data + at, piece);
            turn(side);
        }
        at += piece;
    }
}

static void compare(struct world *world)
{
    for (unsigned i = 0; i < 2; i++) node_settle(&world->sides[i].node);
    compare_heard(world);
}

/* A key that was changed more often than a test can: the next offset of it may not fit 32 bits. */
static void age_key(struct world *world)
{
    struct text text;
    struct bytes key = random_key(world, &text);
    uint64_t offset = UINT32_MAX - below(world, 4);
    uint16_t slot = slot_of_key(key.data, key.size);
    if (key.size == 0) return;
    for (unsigned i = 0; i < 2; i++) {
        struct node *node = &world->sides[i].node;
        struct shard *shard = node->shards[node->slot_owner[slot]];
        struct store *store = &shard->caches[world->cache]->store;
        struct store_request request = {.body = key.data, .key_len = (uint16_t)key.size};
        store_prepare(store, &request);
        if (request.entry == NULL) continue;
        change_at(store->segments, entry_address(*request.entry))->offset_and_floor = offset;
    }
}

/* A session that has grown as far as it may. */
static void grow_session(struct world *world)
{
    struct stream stream = {0};
    char key[16];
    for (uint32_t i = 0; i < GROWN; i++) {
        snprintf(key, sizeof key, "k%05u__", i % KEYS);
        stream_ask(&stream, &(struct ask){.type = FRAME_UPDATE,
                                          .want = WANT_REPLY,
                                          .value_type = VALUE_STRING,
                                          .slot = FRAME_SLOT_ANY,
                                          .seq = (uint32_t)++world->seq,
                                          .key = bytes_of(key)});
    }
    world->to = 0;
    for (size_t at = 0; at < stream.bytes; at += 20000) {
        struct stream piece = {stream.data + at, min_u64(20000, stream.bytes - at), 0};
        send_both(world, &piece);
        compare(world);
    }
    stream_free(&stream);
}

static void step(struct world *world)
{
    struct stream stream = {0};
    size_t bytes =
        1 + (size_t)below(world, world->is_full ? PIECE_BYTES_MAX_FULL : PIECE_BYTES_MAX);
    bool holds = world->is_tight && world->peers == 1 && one_in(world, 3);
    world->cache = one_in(world, 6) ? 1 : 0;
    world->to = (uint32_t)below(world, world->peers);
    if (rarely_one_in(world, 3)) age_key(world);
    while (stream.bytes < bytes) put_ask(world, &stream);
    if (holds) hold(world, true);
    send_both(world, &stream);
    stream_free(&stream);
    if (holds) hold(world, false);
    /* What is on its way then has no one to go to. */
    bool hangs_up = !world->is_tight && one_in(world, 15);
    for (unsigned i = 0; hangs_up && i < 2; i++)
        peer_hang_up(&world->sides[i].ears[world->to].peer);
    compare(world);
    world->reconnects = hangs_up;
}

static void reconnect(struct world *world)
{
    /* What comes then may have been sent before. */
    if (one_in(world, 3)) world->seq -= below(world, min_u64(world->seq, 3000) + 1);
    for (unsigned i = 0; i < 2; i++) side_reconnect(&world->sides[i], world);
    world->reconnects = false;
}

static struct shard_options draw_options(struct world *world)
{
    world->shards = one_in(world, 2) ? 1 : 2 + (uint32_t)below(world, 2);
    world->calm = one_in(world, 2) ? 1 : 20;
    world->is_tight = one_in(world, 3);
    world->session = one_in(world, 4) ? 0 : rng_next(&world->rng) | 1;
    world->keys = one_in(world, 4) ? 5 : KEYS;
    world->has_alike = one_in(world, 2);
    world->alike_bytes = (size_t)below(world, 200);
    world->peers = world->shards > 1 && !world->is_tight && one_in(world, 3) ? 2 : 1;
    world->is_full = world->shards == 1 && !world->is_tight && one_in(world, 3);
    if (one_in(world, 3))
        world->seq = ((uint64_t)1 << 32) - below(world, one_in(world, 2) ? 3000 : GROWN);
    struct shard_options options = node_options(world->shards);
    options.lane_bytes = 2 * MIB; /* never full, so that turns on both sides are the same */
    if (world->is_tight) {
        if (one_in(world, 2)) options.outbox_bytes_max = 1000 + (size_t)below(world, 8000);
        options.lane_bytes = 32 * KIB << below(world, 3);
    }
    if (world->is_full) {
        options.log_bytes_max = 20 * MIB;
        options.history_bytes_max = one_in(world, 2) ? 1 : 1 * GIB;
        options.garbage_bytes_max = 1 * MIB;
        world->alike_bytes = (size_t)below(world, 10000);
    }
    return options;
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
    struct shard_options options = draw_options(&world);
    side_open(&world.sides[0], &options, take);
    side_open(&world.sides[1], &options, take_nothing);
    for (unsigned i = 0; i < 2; i++) world.sides[i].answers = world.peers > 1;
    for (unsigned i = 0; i < STEPS; i++) {
        if (i == 0 || world.reconnects || one_in(&world, 15)) reconnect(&world);
        if (i == 0 && one_in(&world, 3)) grow_session(&world);
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
