#include "tests/support/node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "shard/request.h"

#define TURNS_MAX 100000

/* ---------------------------------------------------------------------------------- shards */

struct shard_options node_options(uint32_t shards_count)
{
    return (struct shard_options){.shards_count = shards_count,
                                  .idle = IDLE_SLEEP,
                                  .log_bytes_max = 64 * MIB,
                                  .history_bytes_max = 16 * MIB,
                                  .garbage_bytes_max = 4 * MIB,
                                  .sessions_bytes_max = 4 * MIB,
                                  .outbox_bytes_max = 1 * MIB,
                                  .key_bytes_max = 100,
                                  .value_bytes_max = 20000,
                                  .frame_bytes_max = 24000,
                                  .connections_max = 64,
                                  .links_bytes_max = 64 * MIB,
                                  .half_open_max = 64,
                                  .half_open_spares_loopback = true,
                                  .window_requests = SESSION_WINDOW,
                                  .window_bytes = 4 * MIB,
                                  .lane_bytes = 128 * KIB,
                                  .deferred_max = 8,
                                  .lent_bytes_max = 4 * MIB,
                                  .subscriptions_max = 8,
                                  .greeting_ns_max = TIME_NEVER / 2,
                                  .node = 0xd0e,
                                  .cluster = 0xc1,
                                  .view = 1,
                                  .incarnation = 1,
                                  .hash_seed = 12345};
}

/* A shard that has nothing to do is woken instead of waiting. */
static void wake(struct fake_io *fake, void *context)
{
    (void)context;
    io_wake(fake_io_base(fake), NULL);
}

void node_open(struct node *node, const struct shard_options *options)
{
    *node = (struct node){.options = *options};
    ASSERT(options->shards_count <= NODE_SHARDS_MAX);
    uint32_t shards = options->shards_count;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        node->slot_owner[slot] = (uint16_t)(slot * shards / SLOTS_COUNT);
    node->mailboxes = memory_take(shards * sizeof *node->mailboxes);
    assert_non_null(node->mailboxes);
    assert_int_equal(mailboxes_init(node->mailboxes, shards, options->lane_bytes), 0);
    for (uint32_t i = 0; i < shards; i++) {
        node->shards[i] = memory_take(sizeof *node->shards[i]);
        assert_non_null(node->shards[i]);
    }
    for (uint32_t i = 0; i < shards; i++) {
        struct address any = address_loopback(0);
        node->ios[i] = fake_io_make();
        fake_io_on_wait(node->ios[i], wake, NULL);
        struct io *io = fake_io_base(node->ios[i]);
        assert_int_equal(io_listen(io, &any, NULL), 0);
        assert_int_equal(shard_init(node->shards[i], i, io, &node->mailboxes[i], node->shards,
                                    node->slot_owner, &node->options),
                         0);
    }
}

/* The list of verbs as OPENED carries it. */
static void write_verbs(struct cache_definition *definition)
{
    uint8_t *at = malloc(1 + definition->verbs_count * (2 + (size_t)FRAME_NAME_BYTES_MAX));
    assert_non_null(at);
    definition->verbs_bytes = at;
    for (uint32_t i = 0; i < definition->verbs_count; i++) {
        size_t bytes = strlen(definition->verbs[i].name);
        *at++ = (uint8_t)(FRAME_VERB_FIRST + i);
        *at++ = (uint8_t)bytes;
        memcpy(at, definition->verbs[i].name, bytes);
        at += bytes;
    }
    definition->verbs_bytes_count = (size_t)(at - definition->verbs_bytes);
}

uint32_t node_add_cache(struct node *node, const char *name, const struct cache_verb *verbs,
                        uint32_t verbs_count, cache_handler_fn handler)
{
    ASSERT(node->caches_count < NODE_CACHES_MAX);
    struct cache_definition *definition = &node->definitions[node->caches_count];
    *definition = (struct cache_definition){.name = (char *)(uintptr_t)name,
                                            .number = node->caches_count,
                                            .verbs = (struct cache_verb *)(uintptr_t)verbs,
                                            .verbs_count = verbs_count,
                                            .handler = {.function = handler}};
    write_verbs(definition);
    for (uint32_t i = 0; i < node->options.shards_count; i++) {
        node->shards[i]->command_argument = definition;
        node->shards[i]->command = COMMAND_OPEN_CACHE;
        node_turn_one(node, i);
        assert_int_equal(node->shards[i]->command_result, 0);
    }
    return node->caches_count++;
}

int32_t node_echo(struct request_context *context, const void *verb)
{
    const struct store_request *request = &context->request->store;
    (void)verb;
    request_reply(context, reply_code(OUTCOME_OK, ERROR_NONE), (enum value_type)request->flags,
                  request->body + request->key_len, request->body_bytes - request->key_len);
    return HANDLED_REPLIED;
}

bool node_turn_one(struct node *node, uint32_t shard)
{
    return shard_turn(node->shards[shard]);
}

void node_turn(struct node *node)
{
    for (uint32_t i = 0; i < node->options.shards_count; i++) node_turn_one(node, i);
}

static bool is_idle(const struct node *node)
{
    for (uint32_t i = 0; i < node->options.shards_count; i++)
        if (node->shards[i]->work > 0 || mailbox_has_mail(&node->mailboxes[i])) return false;
    return true;
}

void node_settle(struct node *node)
{
    unsigned idle_turns = 0;
    for (unsigned turns = 0; idle_turns < 2; turns++) {
        node_turn(node);
        idle_turns = is_idle(node) ? idle_turns + 1 : 0;
        assert_true(turns < TURNS_MAX);
    }
}

void node_stop(struct node *node, uint32_t shard)
{
    static const uint64_t drain_ns = NS_PER_S;
    node->shards[shard]->command_argument = &drain_ns;
    node->shards[shard]->command = COMMAND_STOP;
}

void node_close(struct node *node)
{
    for (uint32_t i = 0; i < node->options.shards_count; i++) {
        shard_deinit(node->shards[i]);
        memory_put(node->shards[i]);
    }
    for (uint32_t i = 0; i < node->caches_count; i++) free(node->definitions[i].verbs_bytes);
    mailboxes_deinit(node->mailboxes, node->options.shards_count);
    memory_put(node->mailboxes);
}

const char *node_key(const struct node *node, uint32_t shard, const char *prefix, char *text)
{
    for (unsigned i = 0;; i++) {
        int bytes = snprintf(text, NODE_KEY_BYTES, "%s%u", prefix, i);
        if (node->slot_owner[slot_of_key(text, (size_t)bytes)] == shard) return text;
    }
}

/* -------------------------------------------------------------------------- bytes to send */

void stream_free(struct stream *stream)
{
    free(stream->data);
    *stream = (struct stream){0};
}

static uint8_t *stream_grow(struct stream *stream, size_t bytes)
{
    if (stream->bytes + bytes > stream->capacity) {
        stream->capacity = 2 * (stream->bytes + bytes);
        stream->data = realloc(stream->data, stream->capacity);
        assert_non_null(stream->data);
    }
    return stream->data + stream->bytes;
}

void stream_put(struct stream *stream, const void *data, size_t bytes)
{
    uint8_t *to = stream_grow(stream, bytes);
    if (bytes > 0) memcpy(to, data, bytes);
    stream->bytes += bytes;
}

struct frame_hello hello_any(void)
{
    return (struct frame_hello){.shard = HELLO_SHARD_ANY, .role = ROLE_CLIENT, .seq_first = 1};
}

void stream_hello(struct stream *stream, struct frame_hello hello)
{
    uint8_t *to = stream_grow(stream, sizeof hello + 8);
    stream->bytes += hello_encode(&hello, (struct bytes){NULL, 0}, to);
}

void stream_open(struct stream *stream, uint32_t seq, const char *name)
{
    uint8_t *to = stream_grow(stream, sizeof(struct frame_open) + strlen(name) + 8);
    stream->bytes += open_encode(seq, bytes_of(name), to);
}

static struct ask ask_of(uint8_t type, uint32_t seq, const char *key)
{
    return (struct ask){
        .type = type, .want = WANT_REPLY, .slot = FRAME_SLOT_ANY, .seq = seq, .key = bytes_of(key)};
}

struct ask ask_update(uint32_t seq, const char *key, const char *value)
{
    struct ask ask = ask_of(FRAME_UPDATE, seq, key);
    ask.value_type = VALUE_STRING;
    ask.value = bytes_of(value);
    return ask;
}

struct ask ask_remove(uint32_t seq, const char *key)
{
    return ask_of(FRAME_REMOVE, seq, key);
}

struct ask ask_get(uint32_t seq, const char *key)
{
    return ask_of(FRAME_GET, seq, key);
}

struct ask ask_verb(uint32_t seq, const char *verb, const char *key, const char *value)
{
    struct ask ask = ask_update(seq, key, value);
    ask.type = FRAME_VERB;
    ask.extensions.present = 1u << EXT_VERB;
    ask.extensions.verb = bytes_of(verb);
    return ask;
}

void stream_ask(struct stream *stream, const struct ask *ask)
{
    uint8_t extensions[EXTENSIONS_BYTES_MAX];
    size_t extensions_bytes = extensions_encode(&ask->extensions, extensions);
    size_t length = FRAME_REQUEST_BYTES + extensions_bytes + ask->key.size + ask->value.size;
    struct frame_request frame = {
        .length = (uint32_t)length,
        .type = ask->type,
        .flags = (uint8_t)(ask->value_type | ask->want << FRAME_WANT_SHIFT |
                           (extensions_bytes > 0 ? FRAME_EXTENDED : 0)),
        .key_len = (uint16_t)ask->key.size,
        .cache = ask->cache,
        .slot = ask->slot,
        .seq = ask->seq,
    };
    static const uint8_t zeros[FRAME_ALIGNMENT];
    stream_put(stream, &frame, sizeof frame);
    stream_put(stream, extensions, extensions_bytes);
    stream_put(stream, ask->key.data, ask->key.size);
    stream_put(stream, ask->value.data, ask->value.size);
    stream_put(stream, zeros, round_up_8(length) - length);
}

/* ---------------------------------------------------------------------------------- peers */

struct peer peer_dial(struct node *node, uint32_t shard)
{
    struct address address = address_loopback(40000);
    struct peer peer = {.node = node, .shard = shard};
    peer.conn = fake_io_dial(node->ios[shard], &address);
    node_turn_one(node, shard);
    return peer;
}

struct peer peer_greeted(struct node *node, uint32_t shard, uint64_t session, uint64_t seq_first)
{
    struct frame_hello hello = hello_any();
    hello.session = session;
    hello.seq_first = seq_first;
    return peer_greeted_as(node, shard, hello);
}

struct peer peer_greeted_as(struct node *node, uint32_t shard, struct frame_hello hello)
{
    struct peer peer = peer_dial(node, shard);
    struct stream stream = {0};
    hello.shard = (uint16_t)shard;
    stream_hello(&stream, hello);
    for (uint32_t i = 0; i < node->caches_count; i++)
        stream_open(&stream, i, node->definitions[i].name);
    peer_send_stream(&peer, &stream);
    node_settle(node);
    const struct frame_prefix *prefix = peer_next(&peer);
    assert_non_null(prefix);
    assert_int_equal(prefix->type, FRAME_WELCOME);
    for (uint32_t i = 0; i < node->caches_count; i++) {
        prefix = peer_next(&peer);
        assert_non_null(prefix);
        assert_int_equal(prefix->type, FRAME_OPENED);
        assert_int_equal(prefix->small, 0);
    }
    peer_expect_silence(&peer);
    return peer;
}

void peer_free(struct peer *peer)
{
    free(peer->frame);
    *peer = (struct peer){0};
}

static struct fake_io *io_of(const struct peer *peer)
{
    return peer->node->ios[peer->shard];
}

void peer_send(struct peer *peer, const void *data, size_t bytes)
{
    if (bytes > 0) fake_io_receive(io_of(peer), peer->conn, data, bytes);
}

void peer_send_stream(struct peer *peer, struct stream *stream)
{
    peer_send(peer, stream->data, stream->bytes);
    stream_free(stream);
}

void peer_ask(struct peer *peer, struct ask ask)
{
    struct stream stream = {0};
    stream_ask(&stream, &ask);
    peer_send_stream(peer, &stream);
}

void peer_hang_up(struct peer *peer)
{
    fake_io_hang_up(io_of(peer), peer->conn, 0);
}

void peer_end(struct peer *peer)
{
    fake_io_end(io_of(peer), peer->conn);
}

bool peer_is_up(const struct peer *peer)
{
    return fake_io_is_up(io_of(peer), peer->conn);
}

const struct frame_prefix *peer_next(struct peer *peer)
{
    size_t bytes;
    const uint8_t *sent = fake_io_sent(io_of(peer), peer->conn, &bytes);
    struct frame_prefix prefix;
    if (bytes < sizeof prefix) return NULL;
    memcpy(&prefix, sent, sizeof prefix);
    size_t padded = round_up_8(prefix.length);
    assert_true(prefix.length >= sizeof prefix);
    if (padded > bytes) return NULL;
    for (size_t i = prefix.length; i < padded; i++) assert_int_equal(sent[i], 0);
    if (peer->capacity < padded) {
        peer->capacity = 2 * padded;
        peer->frame = realloc(peer->frame, peer->capacity);
        assert_non_null(peer->frame);
    }
    memcpy(peer->frame, sent, padded);
    fake_io_consume(io_of(peer), peer->conn, padded);
    return (const struct frame_prefix *)(const void *)peer->frame;
}

const struct frame_prefix *peer_next_answer(struct peer *peer)
{
    const struct frame_prefix *prefix;
    do {
        prefix = peer_next(peer);
    } while (prefix != NULL && prefix->type == FRAME_ACK);
    return prefix;
}

struct bytes peer_tail(const struct peer *peer, size_t fixed_bytes)
{
    struct frame_prefix prefix;
    memcpy(&prefix, peer->frame, sizeof prefix);
    assert_true(prefix.length >= fixed_bytes);
    return (struct bytes){peer->frame + fixed_bytes, prefix.length - fixed_bytes};
}

/* -------------------------------------------------------------------- what must come next */

static void assert_has_text(struct bytes where, const char *text)
{
    if (memmem(where.data, where.size, text, strlen(text)) != NULL) return;
    fail_msg("\"%s\" is not in \"%.*s\"", text, (int)where.size, (const char *)where.data);
}

struct frame_reply peer_expect(struct peer *peer, uint32_t seq, enum outcome outcome,
                               enum reply_error error)
{
    struct frame_reply reply;
    if (peer_next_answer(peer) == NULL) fail_msg("no reply to %u", seq);
    memcpy(&reply, peer->frame, sizeof reply);
    assert_int_equal(reply.type, FRAME_REPLY);
    assert_int_equal(reply.seq, seq);
    if (reply.code != reply_code(outcome, error)) {
        struct bytes text = peer_tail(peer, sizeof reply);
        fail_msg("outcome %u, error %u: %.*s", reply.code >> REPLY_OUTCOME_SHIFT,
                 reply.code & REPLY_ERROR, (int)text.size, (const char *)text.data);
    }
    return reply;
}

void peer_expect_offset(struct peer *peer, uint32_t seq, uint64_t offset)
{
    struct frame_reply reply = peer_expect(peer, seq, OUTCOME_OK, ERROR_NONE);
    assert_int_equal(reply.offset, offset);
}

void peer_expect_failure(struct peer *peer, uint32_t seq, enum reply_error error, const char *text)
{
    struct frame_reply reply = peer_expect(peer, seq, OUTCOME_FAIL, error);
    assert_int_equal(reply.offset, 0);
    assert_int_equal(reply.flags, VALUE_STRING);
    assert_has_text(peer_tail(peer, sizeof reply), text);
}

void peer_expect_stale(struct peer *peer, uint32_t seq, const char *text)
{
    struct frame_reply reply = peer_expect(peer, seq, OUTCOME_UNKNOWN, ERROR_STALE);
    assert_int_equal(reply.offset, 0);
    assert_has_text(peer_tail(peer, sizeof reply), text);
}

void peer_expect_string(struct peer *peer, uint32_t seq, const char *value)
{
    struct frame_reply reply = peer_expect(peer, seq, OUTCOME_OK, ERROR_NONE);
    assert_int_equal(reply.flags, VALUE_STRING);
    assert_true(bytes_equal(peer_tail(peer, sizeof reply), bytes_of(value)));
}

void peer_expect_refuse(struct peer *peer, enum reply_error error, uint64_t got, uint64_t limit,
                        const char *text)
{
    struct frame_refuse refuse;
    assert_non_null(peer_next_answer(peer));
    memcpy(&refuse, peer->frame, sizeof refuse);
    assert_int_equal(refuse.prefix.type, FRAME_REFUSE);
    assert_has_text(peer_tail(peer, sizeof refuse), text);
    assert_int_equal(refuse.prefix.small, error);
    assert_int_equal(refuse.got, got);
    assert_int_equal(refuse.limit, limit);
    peer_expect_silence(peer);
    assert_false(peer_is_up(peer));
}

void peer_expect_silence(struct peer *peer)
{
    const struct frame_prefix *prefix = peer_next(peer);
    if (prefix != NULL) fail_msg("a frame of type %u came", prefix->type);
}

struct frame_ack peer_expect_ack(struct peer *peer)
{
    struct frame_ack ack;
    const struct frame_prefix *prefix = peer_next(peer);
    assert_non_null(prefix);
    assert_int_equal(prefix->type, FRAME_ACK);
    memcpy(&ack, peer->frame, sizeof ack);
    return ack;
}
