/*
 * Reading a store from a thread that is not its shard's, without a lock and without the shard's
 * help: see peek.c for why that is right.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "shard/store.h"

enum peek_result {
    PEEK_FOUND,
    PEEK_NO_KEY,
    PEEK_TOO_SMALL, /* the buffer; `value_bytes` says what it needs */
    PEEK_UNSURE     /* the shard changes too much meanwhile, or keeps it elsewhere: ask it */
};

struct peek {
    uint64_t offset;
    size_t value_bytes;
    uint8_t value_type; /* enum value_type */
    uint8_t fixed[8];   /* the value, where its type has a fixed size */
};

/* Copies the value of `key` to `buffer`, or to `peek->fixed`. The store must live meanwhile. */
MUST_CHECK enum peek_result store_peek(const struct store *store, const uint8_t *key,
                                       size_t key_len, void *buffer, size_t bytes,
                                       struct peek *peek);

/*
 * The same for many keys, in three passes over them, so that their cache misses overlap: each fetches
 * what the next one looks at.
 */
struct peek_many {
    const struct store *store;
    const uint8_t *key;
    size_t key_len;
    uint64_t hash; /* the first pass finds it */
};
void peek_fetch_bucket(struct peek_many *many);
void peek_fetch_record(const struct peek_many *many);
MUST_CHECK enum peek_result peek_value(const struct peek_many *many, void *buffer, size_t bytes,
                                       struct peek *peek);
