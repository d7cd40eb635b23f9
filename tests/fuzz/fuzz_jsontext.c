/*
 * The reader of JSON text against jansson: both take the same texts, and what is found in an accepted
 * one is what jansson has there. The first bytes, up to a zero, are a key whose parts are looked for.
 */
#include <stdlib.h>

#include <jansson.h>

#include "base/assert.h"
#include "wire/jsontext.h"
#include "wire/path.h"

#define BYTES_MAX 4096
/* jansson has a bound of its own. */
#define DEPTH_MAX 500

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static bool is_deep(const uint8_t *text, size_t bytes)
{
    size_t open = 0;
    for (size_t i = 0; i < bytes; i++) open += text[i] == '[' || text[i] == '{';
    return open > DEPTH_MAX;
}

/* "-0" is a whole number for jansson, and a double for us. */
static bool is_same(const json_t *theirs, const json_t *again)
{
    if (json_is_integer(theirs) && json_integer_value(theirs) == 0)
        return json_is_number(again) && json_number_value(again) == 0;
    return json_equal(theirs, again);
}

/* Both must be the same value. */
static void compare(const json_t *theirs, struct jsontext ours)
{
    json_error_t error;
    json_t *read = json_loadb((const char *)ours.at, jsontext_bytes(ours),
                              JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    ASSERT(read != NULL && json_equal(theirs, read));
    struct jsontext_value value;
    jsontext_value(&value, ours);
    uint8_t *copy = malloc(value.bytes + 1);
    if (copy == NULL) abort();
    jsontext_value_copy(copy, &value);
    int64_t whole;
    if (value.type == VALUE_STRING) {
        ASSERT(json_is_string(theirs) && json_string_length(theirs) == value.bytes);
        ASSERT(memcmp(json_string_value(theirs), copy, value.bytes) == 0);
    } else if (value.type == VALUE_INT64) {
        memcpy(&whole, copy, sizeof whole);
        ASSERT(json_is_integer(theirs) && json_integer_value(theirs) == whole);
    }
    /* What is written of a value reads as the same one. */
    struct jsontext_out out = {.to = NULL};
    jsontext_put_value(&out, value.type, copy, value.bytes);
    uint8_t *text = malloc(out.bytes);
    if (text == NULL) abort();
    out = (struct jsontext_out){.to = text};
    jsontext_put_value(&out, value.type, copy, value.bytes);
    ASSERT(jsontext_is_valid(text, out.bytes));
    json_t *again =
        json_loadb((const char *)text, out.bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    ASSERT(again != NULL && is_same(theirs, again));
    json_decref(again);
    free(text);
    free(copy);
    json_decref(read);
}

static void look_for(json_t *theirs, struct jsontext ours, const struct path *path)
{
    for (uint32_t i = 0; i < path->count; i++) {
        const struct path_part *part = &path->parts[i];
        uint32_t index;
        bool is_there;
        struct jsontext inside = ours;
        if (jsontext_kind(ours) == JSONTEXT_OBJECT) {
            is_there = jsontext_member(ours, part->name, part->bytes, &inside);
            char name[BYTES_MAX];
            memcpy(name, part->name, part->bytes);
            name[part->bytes] = 0;
            /* Names with a zero are nothing that jansson takes. */
            theirs = json_object_get(theirs, name);
        } else if (jsontext_kind(ours) == JSONTEXT_ARRAY && path_index(part, &index)) {
            is_there = jsontext_element(ours, index, &inside);
            ASSERT(jsontext_elements_count(ours) == json_array_size(theirs));
            theirs = json_array_get(theirs, index);
        } else {
            return;
        }
        ASSERT(is_there == (theirs != NULL));
        if (!is_there) return;
        ours = inside;
        compare(theirs, ours);
    }
}

static void try_text(const struct path *path, const uint8_t *text, size_t bytes)
{
    json_error_t error;
    bool is_valid = jsontext_is_valid(text, bytes);
    if (is_deep(text, bytes)) return;
    /* jansson takes a zero for the end. */
    if (memchr(text, 0, bytes) != NULL) {
        ASSERT(!is_valid);
        return;
    }
    json_t *theirs =
        json_loadb((const char *)text, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (theirs == NULL) {
        /* A double that is too large, and a name with a zero, are JSON for us. */
        enum json_error_code code = json_error_code(&error);
        ASSERT(!is_valid || code == json_error_numeric_overflow ||
               code == json_error_null_byte_in_key);
        return;
    }
    ASSERT(is_valid);
    struct jsontext ours = jsontext_of(text, bytes);
    compare(theirs, ours);
    look_for(theirs, ours, path);
    json_decref(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct path path = {.count = 0};
    uint8_t scratch[BYTES_MAX];
    if (bytes > BYTES_MAX) return 0;
    const uint8_t *end = bytes > 0 ? memchr(data, 0, bytes) : NULL;
    if (end == NULL) return 0;
    size_t key = (size_t)(end - data);
    if (path_read(&path, data, key, scratch) != PATH_OK) path.count = 0;
    size_t text_bytes = bytes - key - 1;
    uint8_t *text =
        malloc(text_bytes > 0 ? text_bytes : 1); /* of its size, so that a sanitizer sees */
    if (text == NULL) return 0;
    memcpy(text, end + 1, text_bytes);
    try_text(&path, text, text_bytes);
    free(text);
    return 0;
}
