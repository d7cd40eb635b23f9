/*
 * What was asked, what was applied and what was answered, and whether that may be.
 *
 * The log of each shard is read as it grows, and folded into a state by the slow and obvious way. A
 * request is known by session and number, so each change must be one that somebody asked for, with
 * exactly these bytes, and no request may be applied twice or after its failure was told. An answer is
 * checked when it comes: a change that was acknowledged is in the log, a value that was read was
 * the key's at some moment between question and answer. Every change is applied between its
 * question and its answer, too, so what one client was told before another one asks holds for it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fero.h"
#include "shard/store.h"
#include "tests/sim/world.h"

#define HISTORY_CLIENTS_MAX 16
#define HISTORY_KEYS_MAX 64
#define HISTORY_KEY_BYTES 48
#define HISTORY_SHARDS_MAX 4
#define HISTORY_CACHES_MAX 2
#define HISTORY_VALUE_BYTES_MAX 20000

enum ask_type { ASK_UPDATE, ASK_REMOVE, ASK_GET, ASK_VERB, ASK_ADD, ASK_PUSH, ASK_PATCH };

/* One request. */
struct asked {
    uint8_t type; /* enum ask_type */
    uint8_t value_type;
    bool wants_answer;
    bool has_deadline; /* its own */
    bool is_last;      /* nothing breaks any more: it must have its answer */
    bool is_applied;
    bool is_ended;
    int8_t outcome;
    int8_t error;
    uint16_t cache;
    uint16_t key;
    uint32_t value_bytes;
    uint32_t client;
    uint64_t seq;
    uint64_t begun; /* moments: see struct history */
    uint64_t offset;
    /* Of partitions with trees: see partition.h. */
    uint8_t parts_count; /* of the path behind the partition */
    uint8_t parts[3];
    uint8_t shape;   /* of the value */
    uint8_t changes; /* that were made of it */
    uint64_t id;     /* that the owner gave */
    void *asker;
};

/* A key's state from one moment to another. */
struct version {
    uint64_t from;
    uint64_t until;
    uint64_t offset;
    uint64_t place;
    const struct asked *by; /* NULL: there is no such key */
    struct json_t *state;   /* of partitions with trees; NULL: there is no such key */
    bool is_partial;        /* more changes of the same request follow at once */
};

struct history_key {
    char text[HISTORY_KEY_BYTES];
    uint16_t slot;
    uint32_t shard;
    bool is_tree; /* requests go inside of it */
    struct version *versions;
    size_t versions_count;
    size_t versions_capacity;
    uint64_t seq_applied[HISTORY_CLIENTS_MAX]; /* the last one of each */
};

struct history_client {
    uint64_t session;
    uint64_t seq_first;
    bool is_killed;
    struct asked **asked; /* by number */
    size_t count;
    size_t capacity;
};

/* Where the reading of a log has come to. */
struct history_log {
    const struct log *log;
    struct store *store;
    uint32_t segment; /* SEGMENT_NONE: nothing was read */
    uint32_t bytes;   /* of it */
    uint64_t hlc;
    struct store_slot *slots; /* as they must be */
};

struct history {
    struct world *world;
    uint64_t moment; /* grows with everything that happens here */
    uint32_t clients_count;
    struct history_client clients[HISTORY_CLIENTS_MAX];
    uint32_t keys_count;
    uint32_t caches_count;
    struct history_key keys[HISTORY_CACHES_MAX][HISTORY_KEYS_MAX];
    struct history_log logs[HISTORY_SHARDS_MAX][HISTORY_CACHES_MAX];
    uint32_t shards_count;
    /* What may happen in this world. */
    bool may_be_full;      /* NOMEM */
    bool may_be_unknown;   /* something took longer than a request waits */
    bool may_be_forgotten; /* sessions */
    bool may_reorder;      /* a failure was not heard of, and what failed is tried again */
    uint64_t asked;
    uint64_t applied;
    uint64_t outcomes[3];
};

/* `trees` of a hundred keys are partitions with trees. */
void history_open(struct history *history, struct world *world, uint32_t shards_count,
                  uint32_t caches_count, uint32_t keys_count, uint32_t trees);
void history_close(struct history *history);
/* The store of a cache on a shard, when it is open. */
void history_add_store(struct history *history, uint32_t shard, uint32_t cache,
                       struct store *store);
uint32_t history_add_client(struct history *history, uint64_t session, uint64_t seq_first);

/* A request that is about to be made: fill it in, then history_ask with its number. */
struct asked *history_make(struct history *history, uint32_t client);
/* The bytes of its value, the same each time. */
void history_value(const struct history *history, const struct asked *asked, uint8_t *to);
void history_ask(struct history *history, struct asked *asked, uint64_t seq);
/* The request that this session numbered so; NULL: there is none. */
struct asked *history_find(const struct history *history, uint64_t session, uint64_t seq);
/* A part of a stream. */
void history_part(struct history *history, struct asked *asked, const fero_result *result);
/* It ended. */
void history_answer(struct history *history, struct asked *asked, const fero_result *result);
/* Reads what a log has got. To be called before anything of that may be compacted. */
void history_read_log(struct history *history, const struct log *log);
/* At the end, when all is quiet: whether what the stores hold is what the logs add up to. */
void history_check_state(struct history *history);
/*
 * Takes back as much of some slots as can be, or less, and looks whether the stores are as they were
 * then. The last thing that happens to them.
 */
void history_truncate(struct history *history);
/* Whether enough of the newest changes is kept, and all of that can be read. */
void history_check_retained(struct history *history, uint32_t shard, uint32_t cache);
/* Of a client: requests without an end. */
uint64_t history_open_count(const struct history *history, uint32_t client);
