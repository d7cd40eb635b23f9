/*
 * What a partition with a tree is, the slow and obvious way: jansson's values, to which changes are
 * applied one after the other. All is here, because not every program with tests is linked with
 * jansson.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/assert.h"
#include "log/change.h"
#include "wire/jsontext.h"
#include "wire/path.h"

/* What stands for a hole in an array. */
#define JSON_TREE_HOLE "\x01hole"
#define JSON_TREE_PARTS_MAX 8

static inline bool json_tree_index(const char *part, size_t *index)
{
    char *end;
    if (part[0] < '0' || part[0] > '9' || (part[0] == '0' && part[1] != 0)) return false;
    *index = strtoul(part, &end, 10);
    return *end == 0;
}

static inline bool json_tree_is_hole(const json_t *value)
{
    return json_is_string(value) && strcmp(json_string_value(value), JSON_TREE_HOLE) == 0;
}

/* The child of a container, or NULL. */
static inline json_t *json_tree_child(json_t *parent, const char *part)
{
    size_t index = 0;
    if (json_is_object(parent)) return json_object_get(parent, part);
    if (!json_is_array(parent) || !json_tree_index(part, &index)) return NULL;
    json_t *child = json_array_get(parent, index);
    return child != NULL && json_tree_is_hole(child) ? NULL : child;
}

static inline void json_tree_put_child(json_t *parent, const char *part, json_t *value)
{
    size_t index = 0;
    if (json_is_object(parent)) {
        json_object_set_new(parent, part, value);
        return;
    }
    bool is_element = json_is_array(parent) && json_tree_index(part, &index);
    ASSERT(is_element);
    /* Of live records alone, holes may come before what stands behind them. */
    while (index > json_array_size(parent))
        json_array_append_new(parent, json_string(JSON_TREE_HOLE));
    if (index == json_array_size(parent))
        json_array_append_new(parent, value);
    else
        json_array_set_new(parent, index, value);
}

static inline json_t *json_tree_find(json_t *state, char *const *parts, unsigned count)
{
    for (unsigned i = 0; i < count && state != NULL; i++) state = json_tree_child(state, parts[i]);
    return state;
}

/* Whether a value may be put at the path, `is_leaf`: of any kind, else only as a container's. */
static inline bool json_tree_may_put(json_t *state, char *const *parts, unsigned count,
                                     bool is_leaf)
{
    for (unsigned i = 0; i < count && state != NULL; i++) {
        size_t index = 0;
        if (json_is_array(state)) {
            if (!json_tree_index(parts[i], &index)) return false;
            if (json_tree_child(state, parts[i]) == NULL)
                return is_leaf && i + 1 == count && index <= json_array_size(state);
        } else if (!json_is_object(state)) {
            return false;
        }
        state = json_tree_child(state, parts[i]);
    }
    return true;
}

/* Whether something may stand under this name in it. */
static inline bool json_tree_holds(const json_t *parent, const char *part)
{
    size_t index;
    return json_is_object(parent) || (json_is_array(parent) && json_tree_index(part, &index));
}

/* An array with what the object has: an object only as long as no record had said what it is. */
static inline json_t *json_tree_as_array(json_t *object)
{
    const char *name;
    json_t *child;
    json_t *array = json_array();
    json_object_foreach(object, name, child)
    {
        size_t index = 0;
        if (json_tree_index(name, &index)) json_tree_put_child(array, name, json_incref(child));
    }
    return array;
}

/*
 * Makes the containers that are missing on the way, whatever was there before. One that another record
 * has made may turn out to be an array: the change that made it so may be superseded, while one inside
 * of its elements is still there.
 */
static inline void json_tree_set(json_t **state, char *const *parts, unsigned count, json_t *value,
                                 bool in_array)
{
    json_t *at = NULL;
    for (unsigned i = 0; i < count; i++) {
        json_t *next = i == 0 ? *state : json_tree_child(at, parts[i - 1]);
        bool is_array = in_array && i + 1 == count;
        bool is_good = next != NULL && json_tree_holds(next, parts[i]);
        if (!is_good || (is_array && json_is_object(next))) {
            bool seemed_object = is_good && json_is_object(next);
            next = seemed_object ? json_tree_as_array(next)
                   : is_array    ? json_array()
                                 : json_object();
            if (i > 0) {
                json_tree_put_child(at, parts[i - 1], next);
            } else {
                json_decref(*state);
                *state = next;
            }
        }
        at = next;
    }
    if (count > 0) {
        json_tree_put_child(at, parts[count - 1], json_deep_copy(value));
        return;
    }
    json_decref(*state);
    *state = json_deep_copy(value);
}

static inline void json_tree_remove(json_t **state, char *const *parts, unsigned count)
{
    size_t index = 0;
    if (count == 0) {
        json_decref(*state);
        *state = NULL;
        return;
    }
    json_t *parent = json_tree_find(*state, parts, count - 1);
    if (json_is_object(parent)) {
        json_object_del(parent, parts[count - 1]);
        return;
    }
    bool is_element = json_is_array(parent) && json_tree_index(parts[count - 1], &index);
    ASSERT(is_element);
    json_array_set_new(parent, index, json_string(JSON_TREE_HOLE));
    while (json_array_size(parent) > 0 &&
           json_tree_is_hole(json_array_get(parent, json_array_size(parent) - 1)))
        json_array_remove(parent, json_array_size(parent) - 1);
}

/* As it is compared: holes are null. */
static inline json_t *json_tree_without_holes(const json_t *value)
{
    const char *name;
    json_t *child;
    json_t *copy;
    size_t i;
    if (json_tree_is_hole(value)) return json_null();
    if (json_is_object(value)) {
        copy = json_object();
        json_object_foreach((json_t *)(uintptr_t)value, name, child)
            json_object_set_new(copy, name, json_tree_without_holes(child));
        return copy;
    }
    if (!json_is_array(value)) return json_deep_copy(value);
    copy = json_array();
    json_array_foreach(value, i, child) json_array_append_new(copy, json_tree_without_holes(child));
    return copy;
}

/* A value as a record or a reply has it. */
static inline json_t *json_tree_value(enum value_type type, const void *value, size_t bytes)
{
    json_error_t error;
    size_t text_bytes_max = 6 * bytes + 64;
    char *text = malloc(text_bytes_max);
    ASSERT(text != NULL);
    struct jsontext_out out = {.to = (uint8_t *)text};
    jsontext_put_value(&out, type, value, bytes);
    ASSERT(out.bytes <= text_bytes_max);
    json_t *json = json_loadb(text, out.bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    ASSERT(json != NULL);
    free(text);
    return json;
}

/*
 * As the log alone says: what is missing on the way are objects, whatever was there before. `value` is
 * the record's, NULL where it is a removal.
 */
static inline void json_tree_apply(json_t **state, const uint8_t *key, size_t key_bytes,
                                   uint8_t flags, const json_t *value)
{
    uint8_t scratch[1024];
    char texts[JSON_TREE_PARTS_MAX][64];
    char *parts[JSON_TREE_PARTS_MAX];
    struct path path;
    ASSERT(path_read(&path, key, key_bytes, scratch) == PATH_OK);
    ASSERT(path.count <= JSON_TREE_PARTS_MAX);
    for (unsigned i = 0; i < path.count; i++) {
        snprintf(texts[i], sizeof texts[i], "%.*s", (int)path.parts[i].bytes, path.parts[i].name);
        parts[i] = texts[i];
    }
    bool in_array = (flags & CHANGE_IN_ARRAY) != 0;
    if ((flags & CHANGE_EMPTIES) != 0) {
        json_t *empty = in_array ? json_array() : json_object();
        json_tree_set(state, parts, path.count - 1, empty, false);
        json_decref(empty);
    } else if (value != NULL) {
        json_tree_set(state, parts, path.count, (json_t *)(uintptr_t)value, in_array);
    } else if (json_tree_find(*state, parts, path.count) != NULL) {
        json_tree_remove(state, parts, path.count);
    }
}
