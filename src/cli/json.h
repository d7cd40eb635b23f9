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
