/*
 * Requests of handlers to other shards, and who is told the answer. Each is answered exactly once,
 * since its reply is promised room, so that an index is enough of a name.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

struct shard;

/* At a time; lanes have room for fewer. */
#define ASKS_MAX 65536
#define ASKS_NONE UINT32_MAX

struct asking {
    /* `frame` is the reply's, borrowed. */
    void (*function)(const struct asking *ask, const uint8_t *frame, size_t bytes);
    void *context;
    void *argument;
    void (*callback)(void); /* for a `function` that calls another one in its turn */
    uint32_t next_free;
};

struct asks {
    struct asking *entries;
    uint32_t capacity;
    uint32_t fresh;
    uint32_t free; /* index + 1 */
};

/* ASKS_NONE: no memory, or too many. `ask` is copied. */
uint32_t asks_take(struct shard *shard, const struct asking *ask);
/* It was not sent. */
void asks_put(struct shard *shard, uint32_t index);
void asks_answer(struct shard *shard, uint32_t index, const uint8_t *frame, size_t bytes);
void asks_deinit(struct asks *asks);
