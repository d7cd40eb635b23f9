/*
 * A node of one or more shards, all in the test's own thread, and the peers that talk to it: each
 * shard has a fake io (tests/support/fake_io.h), and a peer writes and reads frames of the protocol.
 *
 * Shards take turns in the order of their numbers, so that every run is the same. Every shard
 * listens, so that a peer may begin on any of them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/slot.h"
#include "shard/shard.h"
#include "tests/support/fake_io.h"
#include "wire/frame.h"
#include "wire/hello.h"

#define NODE_SHARDS_MAX 4
#define NODE_CACHES_MAX 10

struct node {
    struct shard_options options;
    struct fake_io *ios[NODE_SHARDS_MAX];
    struct shard *shards[NODE_SHARDS_MAX];
    struct mailbox *mailboxes;
    struct cache_definition definitions[NODE_CACHES_MAX];
    uint32_t caches_count;
    uint16_t slot_owner[SLOTS_COUNT];
};

/* What most tests want: small limits, so that they can be reached. */
struct shard_options node_options(uint32_t shards_count);
/* Starts the shards. `options` is copied. */
void node_open(struct node *node, const struct shard_options *options);
/* One more cache on every shard; name and verbs are borrowed. Returns its number. */
uint32_t node_add_cache(struct node *node, const char *name, const struct cache_verb *verbs,
                        uint32_t verbs_count, cache_handler_fn handler);
/* A verb that answers with the value of its request. */
int32_t node_echo(struct request_context *context, const void *verb);
/* One turn of one shard; it does not wait. False: it has stopped. */
bool node_turn_one(struct node *node, uint32_t shard);
/* One turn of every shard. */
void node_turn(struct node *node);
/* Turns until no shard has anything to do. */
void node_settle(struct node *node);
/* Tells it to stop, within a second. */
void node_stop(struct node *node, uint32_t shard);
void node_close(struct node *node);
/* A key "<prefix><number>" that `shard` owns; `text` has room for NODE_KEY_BYTES. */
#define NODE_KEY_BYTES 32
const char *node_key(const struct node *node, uint32_t shard, const char *prefix, char *text);

/* ---- bytes to send ----------------------------------------------------------------------------- */

struct stream {
    uint8_t *data;
    size_t bytes;
    size_t capacity;
};

void stream_free(struct stream *stream);
void stream_put(struct stream *stream, const void *data, size_t bytes);

/* A HELLO of a client: any shard, no session, first number 1. */
struct frame_hello hello_any(void);
void stream_hello(struct stream *stream, struct frame_hello hello);
void stream_open(struct stream *stream, uint32_t seq, const char *name);

/* A request, as a test thinks of it. */
struct ask {
    uint8_t type; /* enum frame_type */
    uint8_t want; /* enum frame_want */
    uint8_t value_type;
    uint16_t cache;
    uint16_t slot;
    uint32_t seq;
    struct bytes key;
    struct bytes value;
    struct extensions extensions;
};

/* Each wants a reply and computes no slot. The value is a string. */
struct ask ask_update(uint32_t seq, const char *key, const char *value);
struct ask ask_remove(uint32_t seq, const char *key);
struct ask ask_get(uint32_t seq, const char *key);
struct ask ask_verb(uint32_t seq, const char *verb, const char *key, const char *value);
void stream_ask(struct stream *stream, const struct ask *ask);

/* ---- peers ------------------------------------------------------------------------------------- */

struct peer {
    struct node *node;
    uint32_t shard; /* whose io has the connection */
    uint32_t conn;
    uint8_t *frame; /* the last one that peer_next returned */
    size_t capacity;
};

/* Connects to `shard`'s own listener, and sends nothing. */
struct peer peer_dial(struct node *node, uint32_t shard);
/*
 * The same, greeted: HELLO for this shard with `session`, an OPEN for every cache of the node. The
 * answers have been read.
 */
struct peer peer_greeted(struct node *node, uint32_t shard, uint64_t session, uint64_t seq_first);
/* The same with a HELLO of the test's own, but for the shard. */
struct peer peer_greeted_as(struct node *node, uint32_t shard, struct frame_hello hello);
void peer_free(struct peer *peer);
void peer_send(struct peer *peer, const void *data, size_t bytes);
void peer_send_stream(struct peer *peer, struct stream *stream);
/* Writes one request; nothing is done before the next turn. */
void peer_ask(struct peer *peer, struct ask ask);
/* The peer is gone; IO_CLOSED follows. */
void peer_hang_up(struct peer *peer);
/* The peer sends no more, and reads on. */
void peer_end(struct peer *peer);
bool peer_is_up(const struct peer *peer);

/* The next whole frame that the node sent, in `peer->frame`; NULL: none. */
const struct frame_prefix *peer_next(struct peer *peer);
/* The same, but steps over ACKs. */
const struct frame_prefix *peer_next_answer(struct peer *peer);
/* The text or value behind a frame's fixed part, up to its length. */
struct bytes peer_tail(const struct peer *peer, size_t fixed_bytes);

/* ---- what must come next (ACKs are stepped over) -------------------------------------------------- */

/* A REPLY to `seq` with this outcome and error; returns its header. */
struct frame_reply peer_expect(struct peer *peer, uint32_t seq, enum outcome outcome,
                               enum reply_error error);
/* The same, done, with an offset. */
void peer_expect_offset(struct peer *peer, uint32_t seq, uint64_t offset);
/* The same, failed, with these bytes somewhere in its text. */
void peer_expect_failure(struct peer *peer, uint32_t seq, enum reply_error error, const char *text);
/* A REPLY to `seq` that is STALE, with the outcome unknown and these bytes somewhere in its text. */
void peer_expect_stale(struct peer *peer, uint32_t seq, const char *text);
/* The same, done, with a string as its value. */
void peer_expect_string(struct peer *peer, uint32_t seq, const char *value);
/* REFUSE, with these bytes somewhere in its text, and the link is closed behind it. */
void peer_expect_refuse(struct peer *peer, enum reply_error error, uint64_t got, uint64_t limit,
                        const char *text);
/* Nothing, not even an ACK. */
void peer_expect_silence(struct peer *peer);
/* An ACK, and nothing before it. */
struct frame_ack peer_expect_ack(struct peer *peer);
