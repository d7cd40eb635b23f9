/*
 * One or two shards in this thread, with everything on, fed with requests through an in-memory io:
 * what a shard costs without the kernel. Receives are of 32 KiB; the caller is connected to the
 * first shard. Whatever goes wrong aborts: there is nothing here that may.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"
#include "bench/memory_io.h"
#include "ring/slot.h"
#include "shard/shard.h"

#define FEEDER_SHARDS_MAX 2
#define FEEDER_KEY_BYTES 8

enum feeder_verb { FEEDER_UPDATE, FEEDER_GET, FEEDER_ECHO };

struct feeder_options {
    uint32_t shards_count;
    bool crosses;         /* half of the keys are the second shard's; else none */
    uint64_t keys;        /* different ones, numbered from 0 */
    size_t message_bytes; /* key and value */
    enum value_type type; /* bytes, a string or JSON; 0: bytes */
    size_t log_bytes_max; /* of a shard, as the next two */
    size_t history_bytes_max;
    size_t garbage_bytes_max;
};

struct feeder {
    struct feeder_options wanted;
    struct memory_io io[FEEDER_SHARDS_MAX];
    struct mailbox mailboxes[FEEDER_SHARDS_MAX];
    struct shard *shards[FEEDER_SHARDS_MAX];
    struct shard_options options;
    uint16_t slot_owner[SLOTS_COUNT];
    struct cache_definition definition;
    uint8_t *memory;   /* headroom, then one receive */
    uint64_t *numbers; /* that the keys are made of; NULL: they are their numbers */
    struct rng rng;
    uint64_t seq;
};

/* Makes one turn of a shard. */
typedef void (*feeder_turn_fn)(struct feeder *feeder, struct shard *shard, void *context);
/* The key of the i-th message. */
typedef uint64_t (*feeder_key_fn)(struct feeder *feeder, uint64_t i);

void feeder_open(struct feeder *feeder, const struct feeder_options *options);
void feeder_close(struct feeder *feeder);

/* Feeds `messages` and turns until all are answered. `turn` NULL: plain turns. */
void feeder_feed(struct feeder *feeder, enum feeder_verb verb, uint64_t messages, feeder_key_fn key,
                 feeder_turn_fn turn, void *context);

/* Where frames may be written, and how many bytes of them. */
#define FEEDER_INPUT_BYTES (128 * KIB)
uint8_t *feeder_input(struct feeder *feeder);
/* Feeds these bytes of it to the only shard, in one turn; frames may go on in the next ones. */
void feeder_feed_input(struct feeder *feeder, size_t bytes, feeder_turn_fn turn, void *context);

/* One key after the other, from 0 on; any key at random; each once, in no order, as a pass. */
uint64_t feeder_key_in_order(struct feeder *feeder, uint64_t i);
uint64_t feeder_key_at_random(struct feeder *feeder, uint64_t i);
uint64_t feeder_key_scattered(struct feeder *feeder, uint64_t i);

/* Over all shards. */
struct feeder_totals {
    uint64_t requests;
    uint64_t errors;
    uint64_t crossed;
    uint64_t keys;
    uint64_t memory_bytes; /* of logs with their indexes, tables and sessions */
};
struct feeder_totals feeder_totals_of(const struct feeder *feeder);
