#include "tests/sim/partition.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "tests/support/json_tree.h"

/* Numbers are names of fields, or indexes where there is an array. */
static const char *const names[PARTITION_NAMES] = {"a", "b", "name", "0", "1", "2"};

/* ----------------------------------------------------------------------------- what is asked */

void partition_draw(struct history *history, struct asked *asked)
{
    struct world *world = history->world;
    bool is_whole = world_below(world, 5) == 0;
    bool is_object = asked->type == ASK_PATCH ||
                     (asked->type == ASK_UPDATE && is_whole && world_below(world, 4) != 0);
    if (!is_whole)
        asked->parts_count =
            (uint8_t)(1 + world_below(world, 2) + (uint64_t)(world_below(world, 4) == 0));
    for (unsigned i = 0; i < asked->parts_count; i++)
        asked->parts[i] = (uint8_t)world_below(world, PARTITION_NAMES);
    asked->shape = (uint8_t)world_below(world, PARTITION_SHAPES);
    if (is_object)
        asked->shape =
            (uint8_t)(PARTITION_OBJECTS + world_below(world, PARTITION_SHAPES - PARTITION_OBJECTS));
    asked->value_type = asked->shape == 0   ? FERO_T_INT64
                        : asked->shape <= 2 ? FERO_T_STRING
                                            : FERO_T_JSON;
    if (asked->type == ASK_REMOVE || asked->type == ASK_GET) asked->value_type = FERO_T_UNDEFINED;
}

static void paths(const struct asked *asked, char **parts)
{
    for (unsigned i = 0; i < asked->parts_count; i++)
        parts[i] = (char *)(uintptr_t)names[asked->parts[i]];
}

size_t partition_key(const struct history *history, const struct asked *asked, char *to)
{
    size_t bytes =
        (size_t)snprintf(to, HISTORY_KEY_BYTES, "%s", history->keys[asked->cache][asked->key].text);
    for (unsigned i = 0; i < asked->parts_count; i++)
        bytes +=
            (size_t)snprintf(to + bytes, HISTORY_KEY_BYTES - bytes, ".%s", names[asked->parts[i]]);
    ASSERT(bytes < HISTORY_KEY_BYTES);
    return bytes;
}

size_t partition_value(const struct history *history, const struct asked *asked, uint8_t *to)
{
    uint64_t word =
        (history->clients[asked->client].session ^ asked->seq * 0x9e3779b97f4a7c15u) >> 3;
    unsigned number = (unsigned)(word % 1000000000u);
    char *text = (char *)to;
    int64_t whole = (int64_t)word;
    size_t room = PARTITION_VALUE_BYTES;
    if (asked->value_type == FERO_T_UNDEFINED) return 0;
    switch (asked->shape) {
    case 0: memcpy(to, &whole, sizeof whole); return sizeof whole;
    case 1: return (size_t)snprintf(text, room, "s%09u", number);
    case 2: return (size_t)snprintf(text, room, "a longer text that is not in a cell %09u", number);
    case 3: return (size_t)snprintf(text, room, "[1%09u,\"x\",{\"a\":1}]", number);
    case 4: return (size_t)snprintf(text, room, "{\"a\":1%09u}", number);
    case 5:
        return (size_t)snprintf(text, room, "{\"b\":\"%09u\",\"name\":{\"0\":2,\"a\":[]}}", number);
    default: return (size_t)snprintf(text, room, "{}");
    }
}

static json_t *asked_json(const struct history *history, const struct asked *asked)
{
    uint8_t bytes[PARTITION_VALUE_BYTES];
    size_t size = partition_value(history, asked, bytes);
    return json_tree_value((enum value_type)asked->value_type, bytes, size);
}

unsigned partition_changes(const struct asked *asked)
{
    static const unsigned fields[PARTITION_SHAPES] = {[4] = 1, [5] = 2};
    return asked->type == ASK_PATCH ? fields[asked->shape] : 1;
}

/* ------------------------------------------------------------------------ what comes of it */

bool partition_may(const struct asked *asked, json_t *state)
{
    char *parts[PARTITION_PARTS_MAX];
    paths(asked, parts);
    json_t *target = json_tree_find(state, parts, asked->parts_count);
    bool may_have_parts = json_tree_may_put(state, parts, asked->parts_count, false);
    switch ((enum ask_type)asked->type) {
    case ASK_UPDATE: return json_tree_may_put(state, parts, asked->parts_count, true);
    case ASK_GET:
    case ASK_REMOVE: return target != NULL;
    case ASK_PUSH: return may_have_parts && (target == NULL || json_is_array(target));
    case ASK_ADD:
    case ASK_PATCH: return may_have_parts && (target == NULL || json_is_object(target));
    case ASK_VERB: break;
    }
    return false;
}

static _Noreturn void fail(const struct history *history, const struct asked *asked,
                           const char *what, const json_t *is, const json_t *expected)
{
    char key[HISTORY_KEY_BYTES];
    char *left = is != NULL ? json_dumps(is, JSON_ENCODE_ANY) : NULL;
    char *right = expected != NULL ? json_dumps(expected, JSON_ENCODE_ANY) : NULL;
    partition_key(history, asked, key);
    world_fail(history->world,
               "client %u's request %" PRIu64 " of type %u for %s: %s: %s instead of %s",
               asked->client, asked->seq, asked->type, key, what, left != NULL ? left : "nothing",
               right != NULL ? right : "nothing");
}

/* What the owner gave, of the last part of the change's key. */
static uint64_t given(const struct change *change)
{
    const uint8_t *key = change_key(change);
    uint64_t number = 0;
    uint64_t digit = 1;
    for (size_t i = change->key_len; i > 0 && key[i - 1] >= '0' && key[i - 1] <= '9'; i--) {
        number += (uint64_t)(key[i - 1] - '0') * digit;
        digit *= 10;
    }
    return number;
}

/* Whether the number is the one that comes next at the target. */
static bool is_next(const struct asked *asked, const json_t *target, uint64_t number)
{
    const char *name;
    json_t *child;
    size_t index;
    if (asked->type == ASK_PUSH) return number == (target != NULL ? json_array_size(target) : 0);
    if (number == 0) return false;
    json_object_foreach((json_t *)(uintptr_t)target, name, child)
    {
        (void)child;
        if (json_tree_index(name, &index) && index >= number) return false;
    }
    return true;
}

/* The state as it has to be, and in `key` where the change has to be. */
static json_t *expect(struct history *history, struct asked *asked, unsigned index, json_t *state,
                      const struct change *change, char *key)
{
    char *parts[PARTITION_PARTS_MAX + 1];
    char number[24];
    const char *name = NULL;
    unsigned count = asked->parts_count;
    size_t bytes = partition_key(history, asked, key);
    json_t *value = asked->type == ASK_REMOVE ? NULL : asked_json(history, asked);
    json_t *part = value;
    paths(asked, parts);
    if (asked->type == ASK_PUSH || asked->type == ASK_ADD) {
        asked->id = given(change);
        if (!is_next(asked, json_tree_find(state, parts, count), asked->id))
            fail(history, asked, "its number does not come next", state, NULL);
        snprintf(number, sizeof number, "%" PRIu64, asked->id);
        name = number;
    } else if (asked->type == ASK_PATCH) {
        void *field = json_object_iter(value);
        for (unsigned i = 0; i < index; i++) field = json_object_iter_next(value, field);
        name = json_object_iter_key(field);
        part = json_object_iter_value(field);
    }
    if (name != NULL) {
        snprintf(key + bytes, HISTORY_KEY_BYTES - bytes, ".%s", name);
        parts[count++] = (char *)(uintptr_t)name;
    }
    if (value == NULL)
        json_tree_remove(&state, parts, count);
    else
        json_tree_set(&state, parts, count, part, asked->type == ASK_PUSH);
    json_decref(value);
    return state;
}

json_t *partition_apply(struct history *history, struct asked *asked, unsigned index, json_t *state,
                        const struct change *change)
{
    char key[HISTORY_KEY_BYTES];
    bool is_removal = asked->type == ASK_REMOVE;
    bool is_given = asked->type == ASK_PUSH || asked->type == ASK_ADD;
    uint8_t type = is_removal ? FRAME_REMOVE : is_given ? FRAME_ADD : FRAME_UPDATE;
    if (!partition_may(asked, state) && index == 0)
        fail(history, asked, "it is done, and could not be", state, NULL);
    json_t *expected = expect(history, asked, index, json_deep_copy(state), change, key);
    if (change->type != type || change->key_len != strlen(key) ||
        memcmp(change_key(change), key, change->key_len) != 0)
        fail(history, asked, "another change was made", state, expected);
    json_t *value = is_removal ? NULL
                               : json_tree_value(change_value_type(change), change_value(change),
                                                 change_value_bytes(change));
    json_t *is = json_deep_copy(state);
    json_tree_apply(&is, change_key(change), change->key_len, change->flags, value);
    if (is == NULL ? expected != NULL : !json_equal(is, expected))
        fail(history, asked, "its change has another effect", is, expected);
    json_decref(value);
    json_decref(is);
    return expected;
}

bool partition_gives(const struct asked *asked, json_t *state, const json_t *found)
{
    char *parts[PARTITION_PARTS_MAX];
    paths(asked, parts);
    json_t *target = json_tree_find(state, parts, asked->parts_count);
    if (target == NULL || found == NULL) return target == NULL && found == NULL;
    json_t *wanted = json_tree_without_holes(target);
    bool is_equal = json_equal(wanted, found) != 0;
    json_decref(wanted);
    return is_equal;
}

json_t *partition_json(const fero_val *value)
{
    if (value->type == FERO_T_INT64)
        return json_tree_value(VALUE_INT64, &value->i64, sizeof value->i64);
    if (value->type == FERO_T_BOOL) return json_boolean(value->i64 != 0);
    return json_tree_value((enum value_type)value->type, value->s.ptr, value->s.len);
}
