/*
 * As much of JSON as a command line needs: is this text JSON, what is this string, what is the number
 * behind that key.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 512

enum json_kind { JSON_INVALID, JSON_OBJECT, JSON_ARRAY, JSON_STRING, JSON_NUMBER, JSON_WORD };

/* What `text` is as a whole; white space around it is allowed. */
enum json_kind json_classify(const char *text, size_t bytes);
/* The bytes of the JSON string in `text` (which json_classify accepted), unescaped; needs `bytes`. */
size_t json_unescape(const char *text, size_t bytes, char *to);

/* Sum of the numbers behind every "key": in `text`, which is JSON of our own making. */
uint64_t json_sum(const char *text, size_t bytes, const char *key);
/* Copies the first string behind "key": to `to`; false where there is none or it is too long. */
bool json_string(const char *text, size_t bytes, const char *key, char *to, size_t to_bytes);

/* ------------------------------------------------------------------------------- walking */

/* A piece of text that is one JSON value, without white space around it. */
struct json_span {
    const char *at;
    size_t bytes;
};

/*
 * The next member of an object, or element of an array: begin with `*at` NULL, end with false. Text
 * that is no JSON ends it early. `key` is without its quotes, as it stands there.
 */
bool json_member_next(struct json_span object, const char **at, struct json_span *key,
                      struct json_span *value);
bool json_element_next(struct json_span array, const char **at, struct json_span *value);
/* The member `key` of an object; false: it has none. */
bool json_find(struct json_span object, const char *key, struct json_span *value);
/* The whole number that it is; false: it is none, or it is negative. */
bool json_whole(struct json_span value, uint64_t *number);
