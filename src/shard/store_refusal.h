/*
 * Why a store refuses a request, in words for people: what is wrong, with the key that it is about,
 * and what would be right.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "shard/store.h"

/* Puts the reason into store->refusal and returns STORE_REFUSED. `format` is a constant. */
__attribute__((format(printf, 3, 4))) enum store_result
store_refuse(struct store *store, enum reply_error error, const char *format, ...);

/* Of a key, so much is shown. */
#define SHOWN_BYTES 64
/* A key as it can be shown to people. */
struct shown {
    char text[SHOWN_BYTES + 4];
};
struct shown shown_of(const void *key, size_t bytes);

/*
 * Whether the value that a request brings is what its type says, where that cannot be seen from its
 * size: a string is UTF-8, JSON is JSON. STORE_OK or STORE_REFUSED.
 */
enum store_result store_check_value(struct store *store, const struct store_request *request);
