/*
 * JSON as text: checking it, finding something inside of it without a tree, writing it. See
 * jsontext.c.
 *
 * Text that jsontext_is_valid has accepted is "checked" below; nothing else may be given where that
 * is asked for.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "wire/frame.h"

/* Objects and arrays inside of each other, at most. */
#define JSONTEXT_DEPTH_MAX 512

enum jsontext_kind {
    JSONTEXT_OBJECT,
    JSONTEXT_ARRAY,
    JSONTEXT_STRING,
    JSONTEXT_NUMBER,
    JSONTEXT_TRUE,
    JSONTEXT_FALSE,
    JSONTEXT_NULL
};

/*
 * Whether these bytes are one JSON value (RFC 8259) with nothing but space around it: UTF-8, no lone
 * surrogates, at most JSONTEXT_DEPTH_MAX deep.
 */
bool jsontext_is_valid(const void *text, size_t bytes);
/* Where it is not: how many bytes may be the beginning of such a value; all, if it ends too early. */
size_t jsontext_valid_bytes(const void *text, size_t bytes);

/* A value inside of checked text: from its first byte on. */
struct jsontext {
    const uint8_t *at;
    const uint8_t *end; /* of the whole text; where the value ends is found by reading it */
};

/* The value that checked text holds. */
struct jsontext jsontext_of(const void *text, size_t bytes);
enum jsontext_kind jsontext_kind(struct jsontext value);
/* Bytes of the value. */
size_t jsontext_bytes(struct jsontext value);

/* Reads the members of an object or the elements of an array, in order. */
struct jsontext_walk {
    struct jsontext at; /* what comes next, or the closing bracket */
    bool is_object;
};
struct jsontext_member {
    struct bytes name; /* of an object's: between its quotes, escapes as they are */
    struct jsontext value;
    size_t value_bytes;
};
void jsontext_walk_begin(struct jsontext_walk *walk, struct jsontext container);
bool jsontext_walk_next(struct jsontext_walk *walk, struct jsontext_member *member);

/* The last member called `name`, which has no escapes. False: there is none. */
bool jsontext_member(struct jsontext object, const void *name, size_t bytes,
                     struct jsontext *value);
bool jsontext_element(struct jsontext array, uint32_t index, struct jsontext *value);
uint32_t jsontext_elements_count(struct jsontext array);

/*
 * Takes the escapes out of what stands between the quotes. Returns the bytes, no more than there
 * were; where that is over `room`, not all have been written. `to` may be NULL with room 0.
 */
size_t jsontext_unescape(uint8_t *to, size_t room, const uint8_t *from, size_t bytes);
/* Whether that is `name`. */
bool jsontext_name_is(struct bytes escaped, const void *name, size_t bytes);

/*
 * The value with its own type: a whole number of 64 bits is an int64, a number with a fraction or an
 * exponent a double, and one that is too large stays JSON.
 */
struct jsontext_value {
    enum value_type type;
    bool is_escaped;   /* a string with escapes: `text` is longer than the value */
    size_t bytes;      /* of the value */
    struct bytes text; /* the value's bytes, in the text */
    uint8_t fixed[8];  /* or here, where `text` has none */
};
void jsontext_value(struct jsontext_value *to, struct jsontext value);
/* Writes the value's bytes. */
void jsontext_value_copy(uint8_t *to, const struct jsontext_value *value);

/* What is written: counted always, and stored where `to` is not NULL. */
struct jsontext_out {
    uint8_t *to;
    size_t bytes;
};
void jsontext_put(struct jsontext_out *out, const void *bytes, size_t count);
void jsontext_put_char(struct jsontext_out *out, char character);
/* With its quotes; `text` is UTF-8. */
void jsontext_put_string(struct jsontext_out *out, const void *text, size_t bytes);
/*
 * A value of any type. What JSON has no word for: undefined and a double that is no number are null,
 * bytes are a string of hexadecimal digits. A double has a point or an exponent, and reads back as
 * the same one.
 */
void jsontext_put_value(struct jsontext_out *out, enum value_type type, const void *value,
                        size_t bytes);
