/*
 * Values between the command line and the cache.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "fero.h"

/* What --type may say; the first is "guess": JSON where the text is JSON, else a string. */
enum value_as {
    VALUE_AS_AUTO,
    VALUE_AS_STRING,
    VALUE_AS_DOUBLE,
    VALUE_AS_INT64,
    VALUE_AS_JSON,
    VALUE_AS_BOOL,
    VALUE_AS_NULL,
    VALUE_AS_UNDEFINED,
    VALUE_AS_BYTES,
};
#define VALUE_AS_TEXT "auto, string, double, int64, json, bool, null, undefined, bytes"
extern const char *const value_as_names[];

/*
 * Reads `text` as a value. It may point into `text` or into `scratch`, which has as many bytes.
 * Returns NULL, or what was expected: "a whole number from -2^63 to 2^63-1".
 */
const char *value_read(fero_val *value, const char *text, size_t bytes, enum value_as as,
                       char *scratch);

const char *value_type_name(int32_t type);
/* As a person wants it: strings, JSON and bytes as they are, one line each except bytes. */
void value_put_plain(FILE *to, const fero_val *value);
/* As JSON; bytes are a string of hexadecimal digits, undefined is null. */
void value_put_json(FILE *to, const fero_val *value);
