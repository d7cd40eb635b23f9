/*
 * The distinct errors of a shard: what went wrong, how often, when first and when last. Two errors
 * are the same if they have the same place in the program, which is the address of their text.
 *
 * One writer, the shard; any thread reads meanwhile. An entry is published by its text and then only
 * its numbers change, each by itself: a reader may see the count of one moment and the time of the
 * next, and never anything that was not there. An example is that of the first one, for ever. Entries stay for the life of the node, so that
 * nobody needs to wait for readers; when all are used, further ones are counted together.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "wire/frame.h"

/* What is kept of a text that was made for one error, such as one with its key. */
#define ERROR_EXAMPLE_BYTES 192

enum error_kind {
    ERROR_OF_REPLY,  /* a request failed; `text` is a format with up to two %llu */
    ERROR_OF_LINK,   /* a connection was refused or ended */
    ERROR_OF_HANDLER /* a handler replied with an error */
};

struct error_entry {
    uint64_t text; /* const char *, for ever; 0: the entry is free */
    uint64_t code; /* enum reply_error, and above 32 bits enum error_kind */
    uint64_t count;
    uint64_t got; /* of the last one */
    uint64_t limit;
    uint64_t first_ms; /* since 1970 */
    uint64_t last_ms;
    uint64_t example_bytes; /* 0: `text` says all that there is to say */
    char example[ERROR_EXAMPLE_BYTES];
};

struct errors {
    struct error_entry *entries;
    uint32_t mask;  /* entries, a power of two, less one */
    uint32_t count; /* that are used */
    uint32_t max;
    uint64_t others;   /* errors that found no entry */
    uint64_t is_ready; /* the table is there: a shard that starts may be asked before */
};

/* Room for `max` distinct errors; 0: none are kept. -ENOMEM. */
MUST_CHECK int errors_init(struct errors *errors, uint32_t max);
void errors_deinit(struct errors *errors);

/* One more. `text` must live as long as the program. */
void errors_note(struct errors *errors, enum error_kind kind, enum reply_error code,
                 const char *text, uint64_t got, uint64_t limit, uint64_t now_ms);

/* The same, where `text` stands for texts that differ: what this one says is kept as an example. */
void errors_note_example(struct errors *errors, enum error_kind kind, enum reply_error code,
                         const char *text, struct bytes example, uint64_t now_ms);

/* For readers: whether there is a table yet. */
bool errors_are_ready(const struct errors *errors);
/* For readers: the entry of a text and code, or NULL. */
const struct error_entry *errors_find(const struct errors *errors, uint64_t text, uint64_t code);

static inline uint64_t error_entry_code(enum error_kind kind, enum reply_error code)
{
    return (uint64_t)kind << 32 | (uint32_t)code;
}
