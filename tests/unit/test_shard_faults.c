/*
 * Two shards in one thread over a fake io, three clients, and one thing that goes wrong: the Nth
 * allocation, all allocations of a while, the Nth turn's connection, the handing over of one. For
 * every N.
 *
 * The clients behave as docs/protocol.md tells them to: when a connection ends they dial again with
 * the same session and send again what was not answered. Whatever went wrong, in the end
 *   - every request is answered, once a connection at most, OK or FAIL with NO_MEMORY (UNKNOWN is
 *     asked again),
 *   - what was answered OK was done exactly once, what was answered FAIL not at all,
 *   - the stores hold their invariants and the shards serve others,
 *   - and nothing has leaked, which the address sanitizer sees.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "bench/keys.h"
#include "ring/slot.h"
#include "shard/crossing.h"
#include "shard/shard.h"
#include "tests/support/fake_io.h"
#include "wire/hello.h"

#define SHARDS 2
#define PEERS 3
#define RECEIVE_BYTES 65536
#define REQUESTS_MAX 4096
#define KEYS_MAX 2000
/* Far more than any of these runs needs. */
#define ROUNDS_MAX 20000
#define DIALS_MAX 50

enum fault_kind {
    FAULT_NONE,
    FAULT_ALLOCATION, /* the nth fails */
    FAULT_EXHAUSTION, /* all fail during the nth step */
    FAULT_CONNECTION, /* a connection ends with `err` before the nth turn */
    FAULT_HANDING,    /* io_detach (n = 0) or io_adopt (n = 1) fails with `err` */
    FAULT_LOG_FULL    /* the log may have n bytes only */
};

struct fault {
    enum fault_kind kind;
    uint64_t n;
    int err;
};

struct asked {
    uint8_t type;
    bool answered;
    uint16_t code;
    uint32_t key;
    uint32_t value_bytes;
    uint32_t offset; /* of the reply */
};

/* A client: one session, one connection at a time. */
struct peer {
    struct fake_io *fake; /* of the shard it is connected to now */
    struct fake_io *dials;
    uint32_t conn;
    bool is_up;
    uint16_t shard; /* that it asks for */
    uint64_t session;
    unsigned dials_count;
    unsigned adopts_seen;
    uint64_t answered_below; /* all requests before this one are answered */
    uint64_t asked_count;    /* sequence numbers are one more than the index */
    struct asked asked[REQUESTS_MAX];
    bool heard[REQUESTS_MAX]; /* a reply on this connection */
    uint64_t consumed_bytes;  /* of ACK */
    uint64_t sent_bytes;      /* request frames on this connection */
    bool must_retry;          /* something had the outcome UNKNOWN */
};

struct world {
    struct fault fault;
    struct shard_options options;
    struct mailbox *mailboxes;
    struct fake_io *fakes[SHARDS];
    struct shard *shards[SHARDS];
    uint16_t slot_owner[SLOTS_COUNT];
    struct cache_definition definition;
    struct cache_verb verb;
    struct peer peers[PEERS];
    unsigned peers_count;
    uint64_t turns;
    uint64_t step;
    bool is_exhausted; /* there is no point in dialling now */
    char name[80];
};

/* ---- the node --------------------------------------------------------------------------------- */

static int32_t echo(struct request_context *context, const void *verb)
{
    const struct store_request *request = &context->request->store;
    (void)verb;
    if (request_reply(context, 0, VALUE_BYTES, request->body + request->key_len,
                      request->body_bytes - request->key_len) < 0)
        return HANDLED_IGNORED;
    return HANDLED_REPLIED;
}

static struct shard_options options_of_world(void)
{
    return (struct shard_options){.shards_count = SHARDS,
                                  .idle = IDLE_SLEEP,
                                  .log_bytes_max = 64 * MIB,
                                  .history_bytes_max = 1 * MIB,
                                  .garbage_bytes_max = 1 * MIB,
                                  .sessions_bytes_max = 1 * MIB,
                                  .outbox_bytes_max = 1 * MIB,
                                  .key_bytes_max = 1 * KIB,
                                  .value_bytes_max = 1 * MIB,
                                  .frame_bytes_max = 1 * MIB + 2 * KIB,
                                  .connections_max = 64,
                                  .links_bytes_max = 64 * MIB,
                                  .half_open_max = 64,
                                  .window_requests = SESSION_WINDOW,
                                  .window_bytes = 4 * MIB,
                                  .lane_bytes = 256 * KIB,
                                  .greeting_ns_max = TIME_NEVER / 2,
                                  .node = 1,
                                  .cluster = 1,
                                  .view = 1,
                                  .hash_seed = 12345};
}

static int open_shard(struct world *world, uint32_t index)
{
    struct shard *shard = aligned_alloc(CACHE_PAIR, round_up(sizeof *shard, CACHE_PAIR));
    const struct address address = address_loopback(0);
    assert_non_null(shard);
    memset(shard, 0, sizeof *shard);
    world->fakes[index] = fake_io_make();
    fake_io_segment(world->fakes[index], RECEIVE_BYTES);
    struct io *io = fake_io_base(world->fakes[index]);
    int err = shard_init(shard, index, io, &world->mailboxes[index], world->shards,
                         world->slot_owner, &world->options);
    if (err < 0) {
        io_destroy(io);
        free(shard);
        return err;
    }
    world->shards[index] = shard;
    assert_int_equal(io_listen(io, &address, NULL), 0);
    return 0;
}

static void turn(struct world *world, uint32_t index);

/* As the control thread does it: a shard that has no memory says so, and can be asked again. */
static int open_cache(struct world *world, uint32_t index)
{
    struct shard *shard = world->shards[index];
    shard->command_argument = &world->definition;
    shard->command = COMMAND_OPEN_CACHE;
    turn(world, index);
    assert_int_equal(shard->command_done, 1);
    shard->command_done = 0;
    return shard->command_result;
}

static void close_world(struct world *world)
{
    for (uint32_t i = 0; i < SHARDS; i++) {
        if (world->shards[i] == NULL) continue;
        shard_deinit(world->shards[i]);
        free(world->shards[i]);
    }
    if (world->mailboxes[0].shards_count > 0) mailboxes_deinit(world->mailboxes, SHARDS);
    free(world->mailboxes);
    free(world);
}

/* NULL where the fault hit the opening of the node; everything is closed again then. */
static struct world *open_world(const struct fault *fault)
{
    static char verb_name[] = "echo";
    static char cache_name[] = "faults";
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->fault = *fault;
    snprintf(world->name, sizeof world->name, "fault %d, number %llu, error %d", (int)fault->kind,
             (unsigned long long)fault->n, fault->err);
    assert_context_set(world->name);
    world->options = options_of_world();
    if (fault->kind == FAULT_LOG_FULL) world->options.log_bytes_max = (size_t)fault->n;
    world->verb = (struct cache_verb){.name = verb_name, .function = echo};
    world->definition =
        (struct cache_definition){.name = cache_name, .verbs = &world->verb, .verbs_count = 1};
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        world->slot_owner[slot] = (uint16_t)(slot * SHARDS / SLOTS_COUNT);
    world->mailboxes = aligned_alloc(CACHE_PAIR, SHARDS * sizeof *world->mailboxes);
    assert_non_null(world->mailboxes);
    memset(world->mailboxes, 0, SHARDS * sizeof *world->mailboxes);
    if (fault->kind == FAULT_ALLOCATION) memory_fail_after(fault->n);
    int err = mailboxes_init(world->mailboxes, SHARDS, world->options.lane_bytes);
    for (uint32_t i = 0; i < SHARDS && err == 0; i++) err = open_shard(world, i);
    if (err < 0) {
        assert_int_equal(err, -ENOMEM);
        close_world(world);
        return NULL;
    }
    for (uint32_t i = 0; i < SHARDS; i++) {
        err = open_cache(world, i);
        if (err == 0) continue;
        assert_int_equal(err, -ENOMEM);
        assert_int_equal(world->shards[i]->caches_count, 0);
        assert_int_equal(open_cache(world, i), 0); /* one allocation has failed, no other will */
    }
    return world;
}

/* ---- the clients ------------------------------------------------------------------------------ */

static void key_bytes_of(uint32_t key, uint8_t *bytes)
{
    uint64_t scattered = keys_scattered(key);
    memcpy(bytes, &scattered, sizeof scattered);
}

/* What request `index` of a session writes: tells one request's value from another's. */
static void fill_value(uint8_t *value, uint32_t bytes, uint64_t session, uint64_t index)
{
    memset(value, (int)(uint8_t)(session * 31 + index), bytes);
}

static uint32_t frame_length(const struct asked *asked)
{
    return FRAME_REQUEST_BYTES + 8 + asked->value_bytes;
}

static size_t encode(const struct peer *peer, uint64_t index, uint8_t *to)
{
    const struct asked *asked = &peer->asked[index];
    struct frame_request frame = {.length = frame_length(asked),
                                  .type = asked->type,
                                  .flags = WANT_REPLY << FRAME_WANT_SHIFT,
                                  .key_len = 8,
                                  .slot = FRAME_SLOT_ANY,
                                  .seq = (uint32_t)index + 1};
    size_t padded = round_up_8(frame.length);
    if (asked->value_bytes > 0) frame.flags |= VALUE_BYTES;
    memset(to, 0, padded);
    memcpy(to, &frame, sizeof frame);
    key_bytes_of(asked->key, to + sizeof frame);
    fill_value(to + sizeof frame + 8, asked->value_bytes, peer->session, index);
    return padded;
}

/* Sends all requests from `first` on that have no answer. */
static void send_from(struct peer *peer, uint64_t first)
{
    size_t bytes = 0;
    for (uint64_t i = first; i < peer->asked_count; i++)
        if (!peer->asked[i].answered) bytes += round_up_8(frame_length(&peer->asked[i]));
    if (bytes == 0) return;
    uint8_t *frames = malloc(bytes);
    assert_non_null(frames);
    size_t at = 0;
    for (uint64_t i = first; i < peer->asked_count; i++)
        if (!peer->asked[i].answered) at += encode(peer, i, frames + at);
    ASSERT(at == bytes);
    peer->sent_bytes += bytes;
    fake_io_receive(peer->fake, peer->conn, frames, bytes);
    free(frames);
}

static void dial(struct peer *peer)
{
    uint8_t frames[sizeof(struct frame_hello) + 64];
    static const char cache_name[] = "faults";
    const struct address from = address_loopback(40000);
    ASSERT(++peer->dials_count < DIALS_MAX);
    while (peer->answered_below < peer->asked_count && peer->asked[peer->answered_below].answered)
        peer->answered_below++;
    struct frame_hello hello = {.shard = peer->shard,
                                .role = ROLE_CLIENT,
                                .session = peer->session,
                                .session_start = 1,
                                .seq_first = peer->answered_below + 1,
                                .floor = peer->answered_below + 1,
                                .frame_bytes_max = MIB};
    size_t bytes = hello_encode(&hello, (struct bytes){NULL, 0}, frames);
    bytes += open_encode(1, bytes_of(cache_name), frames + bytes);
    peer->fake = peer->dials;
    peer->conn = fake_io_dial(peer->fake, &from);
    peer->is_up = true;
    peer->must_retry = false;
    peer->sent_bytes = 0;
    peer->consumed_bytes = 0;
    memset(peer->heard, 0, sizeof peer->heard);
    fake_io_receive(peer->fake, peer->conn, frames, bytes);
    send_from(peer, peer->answered_below);
}

static struct peer *add_peer(struct world *world, uint32_t dials, uint16_t shard)
{
    struct peer *peer = &world->peers[world->peers_count++];
    peer->dials = world->fakes[dials];
    peer->shard = shard;
    peer->session = 0x1000 + world->peers_count;
    dial(peer);
    return peer;
}

static void ask(struct peer *peer, uint8_t type, uint32_t key, uint32_t value_bytes)
{
    ASSERT(peer->asked_count < REQUESTS_MAX);
    peer->asked[peer->asked_count++] =
        (struct asked){.type = type, .key = key, .value_bytes = value_bytes};
}

static void take_reply(struct peer *peer, const uint8_t *frame)
{
    struct frame_reply reply;
    memcpy(&reply, frame, sizeof reply);
    ASSERT(reply.seq >= 1 && reply.seq <= peer->asked_count);
    struct asked *asked = &peer->asked[reply.seq - 1];
    ASSERT(!peer->heard[reply.seq - 1]); /* one reply a request and connection */
    peer->heard[reply.seq - 1] = true;
    ASSERT(!asked->answered);
    enum outcome outcome = reply_outcome(reply.code);
    if (outcome == OUTCOME_UNKNOWN) {
        peer->must_retry = true;
        return;
    }
    asked->answered = true;
    asked->code = reply.code;
    asked->offset = reply.offset;
    ASSERT(outcome == OUTCOME_OK || outcome == OUTCOME_FAIL);
    if (outcome == OUTCOME_OK && asked->type >= FRAME_VERB_FIRST)
        ASSERT(reply.length == FRAME_REPLY_BYTES + asked->value_bytes);
    if (outcome == OUTCOME_FAIL) {
        unsigned error = reply.code & REPLY_ERROR;
        ASSERT(error == ERROR_NO_MEMORY ||
               (error == ERROR_NOT_FOUND && asked->type != FRAME_UPDATE));
    }
}

/* Reads all whole frames that the node has sent. */
static void take_frames(struct peer *peer)
{
    size_t size;
    const uint8_t *data = fake_io_sent(peer->fake, peer->conn, &size);
    size_t at = 0;
    while (size - at >= FRAME_PREFIX_BYTES) {
        struct frame_prefix prefix;
        memcpy(&prefix, data + at, sizeof prefix);
        size_t padded = round_up_8((size_t)prefix.length);
        ASSERT(prefix.length >= sizeof prefix && prefix.length <= 2 * MIB);
        if (padded > size - at) break;
        if (prefix.type == FRAME_REPLY) {
            take_reply(peer, data + at);
        } else if (prefix.type == FRAME_ACK) {
            struct frame_ack ack;
            memcpy(&ack, data + at, sizeof ack);
            ASSERT(ack.consumed_bytes >= peer->consumed_bytes);
            ASSERT(ack.consumed_bytes <= peer->sent_bytes);
            peer->consumed_bytes = ack.consumed_bytes;
        } else {
            ASSERT(prefix.type == FRAME_WELCOME || prefix.type == FRAME_OPENED ||
                   prefix.type == FRAME_REFUSE);
        }
        at += padded;
    }
    if (at > 0) fake_io_consume(peer->fake, peer->conn, at);
}

/* Everything in flight was answered and acknowledged: nobody is left waiting for ever. */
static void check_answered(const struct peer *peer)
{
    for (uint64_t i = 0; i < peer->asked_count; i++) {
        if (peer->asked[i].answered) continue;
        print_error("request %llu of session %llx has no answer\n", (unsigned long long)i + 1,
                    (unsigned long long)peer->session);
        ASSERT(peer->asked[i].answered);
    }
    ASSERT(peer->consumed_bytes == peer->sent_bytes);
}

/* ---- time goes by ----------------------------------------------------------------------------- */

static void turn(struct world *world, uint32_t index)
{
    const struct fault *fault = &world->fault;
    world->turns++;
    if (fault->kind == FAULT_CONNECTION && world->turns == fault->n && world->peers_count > 0) {
        struct peer *peer = &world->peers[fault->n % world->peers_count];
        if (fake_io_is_up(peer->fake, peer->conn))
            fake_io_hang_up(peer->fake, peer->conn, fault->err);
    }
    shard_turn(world->shards[index]);
}

static bool has_work(const struct world *world, uint32_t index)
{
    const struct shard *shard = world->shards[index];
    return shard->work > 0 || io_ready(shard->io) || mailbox_has_mail(shard->mailbox);
}

/* Turns until the shards have nothing to do. */
static void turn_all(struct world *world)
{
    bool any = true;
    for (unsigned rounds = 0; any; rounds++) {
        ASSERT(rounds < ROUNDS_MAX);
        any = false;
        for (uint32_t i = 0; i < SHARDS; i++) {
            if (!has_work(world, i)) continue;
            turn(world, i);
            any = true;
            for (unsigned p = 0; p < world->peers_count; p++)
                if (fake_io_is_up(world->peers[p].fake, world->peers[p].conn))
                    take_frames(&world->peers[p]);
        }
    }
}

/* Looks where the peer's connection went; true: it was handed over, and there is more to read. */
static bool follow(struct world *world, struct peer *peer)
{
    if (fake_io_is_up(peer->fake, peer->conn)) return false;
    uint32_t conn;
    struct fake_io *other = world->fakes[peer->shard % SHARDS];
    unsigned adopts = fake_io_adopts_count(other, &conn);
    if (other != peer->dials && adopts != peer->adopts_seen) {
        peer->adopts_seen = adopts;
        peer->fake = other;
        peer->conn = conn;
        if (fake_io_is_up(other, conn)) return true;
    }
    peer->is_up = false;
    return false;
}

/* Turns until all is quiet; lost connections are dialled again as long as that makes sense. */
static void settle(struct world *world)
{
    bool again = true;
    while (again) {
        turn_all(world);
        again = false;
        for (unsigned i = 0; i < world->peers_count; i++) {
            struct peer *peer = &world->peers[i];
            if (follow(world, peer)) take_frames(peer);
            if (world->is_exhausted || (peer->is_up && !peer->must_retry)) continue;
            if (peer->is_up) fake_io_hang_up(peer->fake, peer->conn, 0);
            dial(peer);
            again = true;
        }
    }
}

/* One step of the script: what was asked goes out and is answered. */
static void step(struct world *world, const uint64_t *first)
{
    bool exhausts = world->fault.kind == FAULT_EXHAUSTION && world->fault.n == world->step;
    world->step++;
    if (exhausts) memory_fail_from(1);
    world->is_exhausted = exhausts;
    for (unsigned i = 0; i < world->peers_count; i++)
        if (world->peers[i].is_up) send_from(&world->peers[i], first[i]);
    settle(world);
    if (exhausts) {
        memory_fail_after(0);
        world->is_exhausted = false;
        settle(world);
    }
    for (unsigned i = 0; i < world->peers_count; i++) check_answered(&world->peers[i]);
}

/* ---- the script ------------------------------------------------------------------------------- */

enum script_step {
    STEP_NEW_KEYS,
    STEP_LARGE,
    STEP_VERBS,
    STEP_GETS,
    STEP_REMOVES,
    STEP_OVERWRITES,
    STEPS_COUNT,
    STEP_FILL = STEPS_COUNT, /* only where the log is to get full */
};

static void ask_for(enum script_step which, struct peer *peer, uint32_t base)
{
    switch (which) {
    case STEP_NEW_KEYS: /* the outbox, the session's memory and the table grow */
        for (uint32_t i = 0; i < 500; i++) ask(peer, FRAME_UPDATE, base + i, 92);
        break;
    case STEP_LARGE: /* gathered, and blocks on lanes */
        for (uint32_t i = 0; i < 6; i++) ask(peer, FRAME_UPDATE, base + i, 300000);
        break;
    case STEP_VERBS: /* blocks on lanes, both ways */
        for (uint32_t i = 0; i < 8; i++) ask(peer, FRAME_VERB_FIRST, base + i, 20000 * i + 1);
        break;
    case STEP_GETS:
        for (uint32_t i = 0; i < 20; i++) ask(peer, FRAME_GET, base + i, 0);
        break;
    case STEP_REMOVES:
        for (uint32_t i = 3; i < 60; i += 2) ask(peer, FRAME_REMOVE, base + i, 0);
        break;
    case STEP_OVERWRITES: /* compaction */
        for (uint32_t i = 0; i < 12; i++) ask(peer, FRAME_UPDATE, base + 100 + i, 200000);
        for (uint32_t i = 0; i < 300; i++) ask(peer, FRAME_UPDATE, base + i % 150, 60);
        break;
    case STEP_FILL:
        for (uint32_t i = 0; i < 60; i++) ask(peer, FRAME_UPDATE, base + 200 + i, 300000);
        break;
    }
}

/* The change that a key's state comes from, as far as this peer is concerned. */
struct expected {
    uint32_t changes; /* done */
    bool exists;
    uint64_t index; /* of the request that wrote it */
};

static void expect(const struct peer *peer, struct expected *keys)
{
    for (uint64_t i = 0; i < peer->asked_count; i++) {
        const struct asked *asked = &peer->asked[i];
        if (asked->type != FRAME_UPDATE && asked->type != FRAME_REMOVE) continue;
        if (reply_outcome(asked->code) != OUTCOME_OK) continue;
        struct expected *key = &keys[asked->key];
        key->changes++;
        key->exists = asked->type == FRAME_UPDATE;
        key->index = i;
    }
}

static void check_key(struct world *world, const struct peer *peer, uint32_t number,
                      const struct expected *expected)
{
    uint8_t bytes[8];
    key_bytes_of(number, bytes);
    uint16_t slot = slot_of_key(bytes, sizeof bytes);
    struct store *store = &world->shards[world->slot_owner[slot]]->caches[0]->store;
    struct store_request request = {
        .body = bytes, .body_bytes = 8, .key_len = 8, .slot = slot, .type = FRAME_GET};
    const struct change *change = NULL;
    store_prepare(store, &request);
    enum store_result result = store_get(store, &request, &change);
    ASSERT((result == STORE_OK) == expected->exists);
    if (!expected->exists) return;
    const struct asked *asked = &peer->asked[expected->index];
    ASSERT(change_value_bytes(change) == asked->value_bytes);
    uint8_t first;
    fill_value(&first, 1, peer->session, expected->index);
    ASSERT(*(const uint8_t *)change_value(change) == first);
    /* Done once, not twice: the offset counts the changes. A removed key may begin anew. */
    ASSERT(change_offset(change) <= expected->changes);
}

static void check_stores(struct world *world)
{
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard *shard = world->shards[i];
        store_check(&shard->caches[0]->store);
        assert_true(crossing_is_quiet(shard));
        for (uint32_t j = 0; j < SHARDS; j++)
            assert_int_equal(shard->crossing[j].promised_bytes, 0);
        for (uint32_t j = 0; j < shard->callers_fresh; j++)
            if (shard->callers[j].state == CALLER_READY)
                assert_int_equal(shard->callers[j].reserved_bytes, 0);
    }
    for (unsigned p = 0; p < world->peers_count; p++) {
        struct expected *keys = calloc(KEYS_MAX, sizeof *keys);
        assert_non_null(keys);
        expect(&world->peers[p], keys);
        for (uint32_t i = p * 600; i < p * 600 + 600; i++)
            check_key(world, &world->peers[p], i, &keys[i]);
        free(keys);
    }
}

struct result {
    bool opened;
    uint64_t failed; /* requests that were answered FAIL with NO_MEMORY */
    uint64_t turns;
    uint64_t allocations;
};

static struct result run(const struct fault *fault)
{
    struct result result = {.allocations = memory_calls_count()};
    struct world *world = open_world(fault);
    if (world != NULL) {
        result.opened = true;
        if (fault->kind == FAULT_HANDING) fake_io_fail_handing(world->fakes[fault->n], fault->err);
        uint64_t nothing[PEERS] = {0};
        add_peer(world, 0, 0);
        add_peer(world, 1, 1);
        add_peer(world, 0, 1); /* is handed over */
        step(world, nothing);
        unsigned steps = fault->kind == FAULT_LOG_FULL ? STEPS_COUNT + 1 : STEPS_COUNT;
        for (unsigned which = 0; which < steps; which++) {
            uint64_t first[PEERS];
            for (unsigned p = 0; p < PEERS; p++) {
                first[p] = world->peers[p].asked_count;
                ask_for((enum script_step)which, &world->peers[p], p * 600);
            }
            step(world, first);
        }
        check_stores(world);
        result.turns = world->turns;
        for (unsigned p = 0; p < PEERS; p++)
            for (uint64_t i = 0; i < world->peers[p].asked_count; i++)
                result.failed +=
                    world->peers[p].asked[i].code == reply_code(OUTCOME_FAIL, ERROR_NO_MEMORY);
        close_world(world);
    }
    memory_fail_after(0);
    assert_context_set(NULL);
    result.allocations = memory_calls_count() - result.allocations;
    return result;
}

/* ---- the facts -------------------------------------------------------------------------------- */

static void a_run_without_faults_answers_all(void **state)
{
    (void)state;
    struct result result = run(&(struct fault){FAULT_NONE, 0, 0});
    assert_true(result.opened);
    assert_int_equal(result.failed, 0);
    print_message("%llu turns, %llu allocations\n", (unsigned long long)result.turns,
                  (unsigned long long)result.allocations);
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    uint64_t failed_openings = 0;
    uint64_t n = 1;
    for (;; n++) {
        struct result result = run(&(struct fault){FAULT_ALLOCATION, n, 0});
        if (!result.opened) failed_openings++;
        if (result.opened && result.allocations < n) break;
    }
    print_message("%llu allocations, %llu of them needed to start\n", (unsigned long long)n - 1,
                  (unsigned long long)failed_openings);
    assert_true(failed_openings > 10);
    assert_true(n > failed_openings + 50);
}

static void memory_may_run_out_for_a_while(void **state)
{
    (void)state;
    for (uint64_t n = 0; n <= STEPS_COUNT; n++) { /* dialling is the first one */
        struct result result = run(&(struct fault){FAULT_EXHAUSTION, n, 0});
        assert_true(result.opened);
    }
}

static void any_connection_may_end_before_any_turn(void **state)
{
    (void)state;
    static const int errs[] = {0, -ECONNRESET, -EPIPE, -ETIMEDOUT, -ENOBUFS, -EIO};
    uint64_t turns = run(&(struct fault){FAULT_NONE, 0, 0}).turns;
    for (uint64_t n = 1; n <= turns; n++) {
        struct result result =
            run(&(struct fault){FAULT_CONNECTION, n, errs[n % ARRAY_COUNT(errs)]});
        assert_true(result.opened);
    }
}

static void handing_over_may_fail(void **state)
{
    (void)state;
    static const int errs[] = {-EBUSY, -EMFILE, -ENOSPC, -ENOMEM};
    for (size_t i = 0; i < ARRAY_COUNT(errs); i++) {
        for (uint64_t n = 0; n < SHARDS; n++)
            assert_true(run(&(struct fault){FAULT_HANDING, n, errs[i]}).opened);
    }
}

static void the_log_may_be_full(void **state)
{
    (void)state;
    for (uint64_t n = 16 * MIB; n <= 40 * MIB; n += 4 * MIB)
        assert_true(run(&(struct fault){FAULT_LOG_FULL, n, 0}).failed > 0);
    assert_int_equal(run(&(struct fault){FAULT_LOG_FULL, 64 * MIB, 0}).failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_without_faults_answers_all),
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(memory_may_run_out_for_a_while),
        cmocka_unit_test(any_connection_may_end_before_any_turn),
        cmocka_unit_test(handing_over_may_fail),
        cmocka_unit_test(the_log_may_be_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
