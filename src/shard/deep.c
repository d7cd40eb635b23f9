#include "shard/deep.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/memory.h"
#include "ring/slot.h"
#include "shard/store_refusal.h"

/* The number that an owner gives, with its dot. */
#define ID_BYTES_MAX 12
/* All records of a patch lie in one unit. */
#define PATCH_BYTES_MAX (SEGMENT_UNIT_BYTES - 4 * KIB)

/* ---------------------------------------------------------------------------------- refusals */

/* What the first `at` parts of a path lead to. */
static struct shown show_path(const struct path *path, uint32_t at)
{
    return shown_of(path->key.data, at == 0 ? path->partition_bytes : path->parts[at - 1].end);
}

static enum store_result refuse_path(struct store *store, const struct path *path,
                                     enum path_result result)
{
    struct shown shown = shown_of(path->key.data, path->key.size);
    switch (result) {
    case PATH_OK: break;
    case PATH_EMPTY_PART:
        return store_refuse(store, ERROR_INVALID,
                            "key \"%s\" has an empty part: \"\\.\" is a dot inside of a part",
                            shown.text);
    case PATH_TOO_DEEP:
        return store_refuse(store, ERROR_INVALID, "key \"%s\" has more than %d parts", shown.text,
                            PATH_PARTS_MAX + 1);
    case PATH_NOT_UTF8:
        return store_refuse(store, ERROR_INVALID, "key \"%s\" has a part that is not UTF-8",
                            shown.text);
    }
    return STORE_OK;
}

static const char *type_text(enum value_type type)
{
    switch (type) {
    case VALUE_STRING: return "a string";
    case VALUE_DOUBLE:
    case VALUE_INT64: return "a number";
    case VALUE_BOOL: return "a boolean";
    case VALUE_BYTES: return "bytes";
    case VALUE_NULL: return "null";
    case VALUE_UNDEFINED: return "undefined";
    case VALUE_JSON:
    case VALUE_TYPES_COUNT: break;
    }
    return "JSON";
}

static const char *kind_text(enum jsontext_kind kind)
{
    switch (kind) {
    case JSONTEXT_OBJECT: return "an object";
    case JSONTEXT_ARRAY: return "an array";
    case JSONTEXT_STRING: return "a string";
    case JSONTEXT_NUMBER: return "a number";
    case JSONTEXT_TRUE:
    case JSONTEXT_FALSE: return "a boolean";
    case JSONTEXT_NULL: break;
    }
    return "null";
}

/* What a place is, in words. */
static const char *place_text(const struct store *store, const struct tree_place *place)
{
    const struct forest *forest = &store->forest;
    const struct twig *twig = tree_twig(forest, place->twig);
    if (place->text.at != NULL) return kind_text(jsontext_kind(place->text));
    if (twig->kind == TWIG_OBJECT) return "an object";
    if (twig->kind == TWIG_ARRAY) return "an array";
    const struct change *change = change_at(forest->segments, twig->record);
    if (change_value_type(change) != VALUE_JSON) return type_text(change_value_type(change));
    return kind_text(jsontext_kind(jsontext_of(change_value(change), change_value_bytes(change))));
}

/* ------------------------------------------------------------------------- keys and partitions */

bool deep_is_key(const uint8_t *key, size_t bytes)
{
    return path_partition_bytes(key, bytes) < bytes;
}

struct wanted_partition {
    const struct store *store;
    struct bytes name;
};

static bool is_wanted_tree(const void *context, uint64_t address)
{
    const struct wanted_partition *wanted = context;
    return tree_is(&wanted->store->forest, (uint32_t)(address >> CELL_SHIFT), wanted->name);
}

static bool is_wanted_record(const void *context, uint64_t address)
{
    const struct wanted_partition *wanted = context;
    const struct change *change = change_at(wanted->store->segments, address);
    return bytes_equal((struct bytes){change_key(change), change->key_len}, wanted->name);
}

bool deep_is_tree(struct store *store, uint64_t hash, const uint8_t *key, size_t bytes)
{
    struct wanted_partition wanted = {store, {key, bytes}};
    return store->forest.trees_count > 0 &&
           table_find_tree(&store->table, hash, is_wanted_tree, &wanted) != NULL;
}

/* A partition while a change is made to it. */
struct grip {
    uint64_t hash;
    uint64_t *entry; /* NULL: the table knows nothing of it */
    uint32_t root;   /* 0: it has no tree */
    bool is_made;    /* the tree is not the table's yet */
    uint64_t record; /* where the entry is a record's: its address */
    struct bytes name;
};

uint64_t *deep_entry(struct store *store, uint64_t hash, struct bytes partition, uint32_t *root)
{
    struct wanted_partition wanted = {store, partition};
    uint64_t *entry = NULL;
    if (store->forest.trees_count > 0)
        entry = table_find_tree(&store->table, hash, is_wanted_tree, &wanted);
    *root = entry != NULL ? (uint32_t)(entry_address(*entry) >> CELL_SHIFT) : 0;
    if (entry != NULL) return entry;
    return table_find(&store->table, hash, is_wanted_record, &wanted);
}

static void grip_find(struct store *store, struct grip *grip, struct bytes partition)
{
    *grip = (struct grip){.hash = hash_key(partition.data, partition.size, store->hash_seed),
                          .name = partition};
    grip->entry = deep_entry(store, grip->hash, partition, &grip->root);
    if (grip->entry != NULL && grip->root == 0) grip->record = entry_address(*grip->entry);
}

static const struct change *grip_record(const struct store *store, const struct grip *grip)
{
    return grip->record != 0 ? change_at(store->segments, grip->record) : NULL;
}

/*
 * Makes a tree where there is none. What was made is the table's only after grip_keep. `urgent` as in
 * log_reserve.
 */
static enum store_result grip_make(struct store *store, struct grip *grip, struct bytes partition,
                                   bool urgent)
{
    struct forest *forest = &store->forest;
    const struct change *change = grip_record(store, grip);
    if (grip->root != 0) return STORE_OK;
    if (!cells_reserve(&forest->cells, tree_make_needs(partition.size), urgent))
        return STORE_NO_MEMORY;
    if (grip->entry == NULL) {
        /* The entry first: an appended change cannot be taken back without a truncation. */
        if (table_insert(&store->table, grip->hash, 0) < 0) return STORE_NO_MEMORY;
        grip->entry = table_find_address(&store->table, grip->hash, 0);
    }
    uint64_t offset = change != NULL ? change_offset(change) : 0;
    grip->root = tree_make(forest, partition, grip->record, offset);
    grip->is_made = true;
    return STORE_OK;
}

static void grip_keep(struct store *store, struct grip *grip)
{
    const struct change *change = grip_record(store, grip);
    if (!grip->is_made) return;
    if (change != NULL && change->type == FRAME_REMOVE) store->tombstones--;
    if (change == NULL) store_note_id(store, grip->name.data, grip->name.size);
    table_set_tree(&store->table, grip->hash, grip->entry, (uint64_t)grip->root << CELL_SHIFT);
    grip->is_made = false;
}

/* Nothing was changed: a tree that was made for it goes again. */
static void grip_let_go(struct store *store, struct grip *grip)
{
    if (!grip->is_made) return;
    tree_drop(&store->forest, grip->root, false);
    if (grip->record == 0) table_remove(&store->table, grip->hash, grip->entry);
}

/* The slot of a partition; false: the request says another one. */
static bool slot_is_right(const struct store_request *request, uint16_t *slot)
{
    *slot = slot_of_key(request->body, request->key_len);
    return request->slot == FRAME_SLOT_ANY || request->slot == *slot;
}

/* ------------------------------------------------------------------------------- appending */

/* A change as it is to be. */
struct draft {
    const struct store_request *request;
    struct bytes key;
    uint8_t type;
    uint8_t flags;
    uint16_t slot;
    size_t value_bytes;
    uint64_t offset;
};

static size_t draft_padded_bytes(const struct draft *draft)
{
    return round_up_8(CHANGE_BYTES + draft->key.size + draft->value_bytes);
}

/* Appends it with room for its value; NULL: memory.max is reached. */
static struct change *append(struct store *store, const struct draft *draft)
{
    const struct store_request *request = draft->request;
    size_t padded = draft_padded_bytes(draft);
    struct change *change = log_reserve(&store->log, padded, draft->type == FRAME_REMOVE);
    if (change == NULL) return NULL;
    struct store_slot *head = &store->slots[draft->slot];
    memset((uint8_t *)change + padded - 8, 0, 8);
    *change =
        (struct change){.length = (uint32_t)(CHANGE_BYTES + draft->key.size + draft->value_bytes),
                        .type = draft->type,
                        .flags = draft->flags,
                        .key_len = (uint16_t)draft->key.size,
                        .slot = draft->slot,
                        .seq = request->seq,
                        .key_hash = hash_key(draft->key.data, draft->key.size, store->hash_seed),
                        .place_and_seq = ++head->place | (request->seq_whole >> 32) << 48,
                        .offset_and_floor = draft->offset,
                        .hlc = ++*store->hlc,
                        .session = request->session};
    memcpy(change + 1, draft->key.data, draft->key.size);
    head->chain = chain_next(head->chain, change_identity(change));
    return change;
}

static uint8_t *draft_value(struct change *change)
{
    return (uint8_t *)(change + 1) + change->key_len;
}

/* Makes the change that was written part of the log. */
static uint64_t commit(struct store *store, const struct change *change)
{
    uint64_t address = log_commit(&store->log, change->slot, change_padded_bytes(change));
    store->forest.mark = store->log.active_mark;
    return address;
}

/* Appends one change below a partition, and applies it. `value` may be NULL. */
static enum store_result write_change(struct store *store, struct grip *grip,
                                      const struct path *path, struct draft *draft,
                                      const void *value, const struct change **changed)
{
    draft->offset = tree_twig(&store->forest, grip->root)->offset + 1;
    draft->key = path->key;
    struct change *change = append(store, draft);
    if (change == NULL) return STORE_NO_MEMORY;
    if (draft->value_bytes > 0) memcpy(draft_value(change), value, draft->value_bytes);
    grip_keep(store, grip);
    tree_apply(&store->forest, grip->root, path, commit(store, change));
    *changed = change;
    return STORE_OK;
}

/* ---------------------------------------------------------------------- what all requests do */

/* A deep request on its way. */
struct deep {
    struct path path;
    struct grip grip;
    struct tree_place place;
    struct draft draft;
};

static struct bytes partition_of(const struct path *path)
{
    return (struct bytes){path->key.data, path->partition_bytes};
}

/* Room for the names of a twig and of a path's parts. */
bool deep_ready(struct store *store)
{
    struct forest *forest = &store->forest;
    if (forest->scratch == NULL) forest->scratch = memory_take(2 * FRAME_KEY_BYTES_MAX);
    return forest->scratch != NULL;
}

static uint8_t *path_scratch(const struct forest *forest)
{
    return forest->scratch + FRAME_KEY_BYTES_MAX;
}

void deep_path(const struct store *store, const struct change *change, struct path *path)
{
    enum path_result result =
        path_read(path, change_key(change), change->key_len, path_scratch(&store->forest));
    ASSERT(result == PATH_OK);
}

static enum store_result deep_read(struct store *store, const struct store_request *request,
                                   struct deep *deep)
{
    struct forest *forest = &store->forest;
    if (!deep_ready(store)) return STORE_NO_MEMORY;
    enum path_result result =
        path_read(&deep->path, request->body, request->key_len, path_scratch(forest));
    if (result != PATH_OK) {
        deep->path.key = (struct bytes){request->body, request->key_len};
        return refuse_path(store, &deep->path, result);
    }
    if (!slot_is_right(request, &deep->draft.slot)) return STORE_WRONG_SLOT;
    deep->draft.request = request;
    grip_find(store, &deep->grip, partition_of(&deep->path));
    return STORE_OK;
}

/*
 * For a change: makes the tree, and finds the place. After it, deep_end in any case. A removal goes on
 * when memory.max is reached, also inside of a value that has no tree yet.
 */
static enum store_result deep_begin(struct store *store, const struct store_request *request,
                                    struct deep *deep, bool is_removal)
{
    deep->grip.is_made = false;
    enum store_result result = deep_read(store, request, deep);
    if (result != STORE_OK) return result;
    if (is_removal && deep->grip.entry == NULL) return STORE_NO_KEY;
    result = grip_make(store, &deep->grip, partition_of(&deep->path), is_removal);
    if (result != STORE_OK) return result;
    tree_find(&store->forest, deep->grip.root, &deep->path, &deep->place);
    return STORE_OK;
}

static enum store_result deep_end(struct store *store, struct deep *deep, enum store_result result)
{
    grip_let_go(store, &deep->grip);
    cells_unreserve(&store->forest.cells);
    return result;
}

/* What becomes of a place that was found. */
typedef enum store_result (*place_fn)(struct store *store, struct deep *deep,
                                      const struct change **changed);

/* A change from its beginning to its end. */
static enum store_result deep_change(struct store *store, const struct store_request *request,
                                     place_fn apply, bool is_removal, const struct change **changed)
{
    struct deep deep;
    enum store_result result = deep_begin(store, request, &deep, is_removal);
    if (result == STORE_OK) result = apply(store, &deep, changed);
    return deep_end(store, &deep, result);
}

static struct bytes request_value(const struct store_request *request)
{
    return (struct bytes){request->body + request->key_len, request->body_bytes - request->key_len};
}

/* Whether something can be put where the path leads to, and why not. */
static enum store_result check_way(struct store *store, const struct deep *deep, bool is_leaf)
{
    const struct tree_place *place = &deep->place;
    const struct path *path = &deep->path;
    struct shown shown = show_path(path, place->at);
    if (place->found == TREE_BLOCKED)
        return store_refuse(store, ERROR_TYPE, "\"%s\" is %s: only objects and arrays have parts",
                            shown.text, place_text(store, place));
    if (place->found == TREE_BAD_INDEX) {
        const struct path_part *part = &path->parts[place->at];
        return store_refuse(store, ERROR_TYPE, "\"%s\" is an array, in which \"%s\" is no index",
                            shown.text, shown_of(part->name, part->bytes).text);
    }
    if (place->found != TREE_ABSENT || !place->is_array) return STORE_OK;
    uint32_t index = 0;
    bool is_index = path_index(&path->parts[place->at], &index);
    ASSERT(is_index);
    bool is_last = place->at + 1 == path->count;
    if (is_last && is_leaf && index <= place->length) return STORE_OK;
    return store_refuse(store, ERROR_TYPE,
                        "\"%s\" has %lu elements and none at %lu: push adds one at its end",
                        shown.text, (unsigned long)place->length, (unsigned long)index);
}

/* Whether the last part of the path is an index. */
static uint8_t in_array_flag(const struct deep *deep)
{
    bool is_parent =
        deep->place.found == TREE_ABSENT ? deep->place.at + 1 == deep->path.count : true;
    return is_parent && deep->place.is_array ? CHANGE_IN_ARRAY : 0;
}

/* --------------------------------------------------------------------------- update, remove */

/* A change of a whole partition that has a tree: it becomes flat. */
static enum store_result make_flat(struct store *store, struct deep *deep, const void *value,
                                   const struct change **changed)
{
    struct draft *draft = &deep->draft;
    draft->key = deep->path.key;
    draft->offset = tree_twig(&store->forest, deep->grip.root)->offset + 1;
    struct change *change = append(store, draft);
    if (change == NULL) return STORE_NO_MEMORY;
    if (draft->value_bytes > 0) memcpy(draft_value(change), value, draft->value_bytes);
    uint64_t address = commit(store, change);
    tree_drop(&store->forest, deep->grip.root, true);
    table_set_record(&store->table, deep->grip.hash, deep->grip.entry, address);
    if (draft->type == FRAME_REMOVE) store->tombstones++;
    *changed = change;
    return STORE_OK;
}

static enum store_result update(struct store *store, struct deep *deep,
                                const struct change **changed)
{
    const struct store_request *request = deep->draft.request;
    struct bytes value = request_value(request);
    deep->draft.type = FRAME_UPDATE;
    deep->draft.flags = request->flags;
    deep->draft.value_bytes = value.size;
    if (deep->path.count == 0) return make_flat(store, deep, value.data, changed);
    enum store_result result = store_check_value(store, request);
    if (result == STORE_OK) result = check_way(store, deep, true);
    if (result != STORE_OK) return result;
    deep->draft.flags |= CHANGE_DEEP | in_array_flag(deep);
    if (!cells_reserve(&store->forest.cells, tree_needs(&deep->place, &deep->path), false))
        return STORE_NO_MEMORY;
    return write_change(store, &deep->grip, &deep->path, &deep->draft, value.data, changed);
}

enum store_result deep_update(struct store *store, const struct store_request *request,
                              const struct change **changed)
{
    return deep_change(store, request, update, false, changed);
}

static enum store_result remove_deep(struct store *store, struct deep *deep,
                                     const struct change **changed)
{
    const struct tree_place *place = &deep->place;
    if (place->found != TREE_TWIG && place->found != TREE_TEXT) return STORE_NO_KEY;
    deep->draft.type = FRAME_REMOVE;
    deep->draft.flags = VALUE_UNDEFINED;
    deep->draft.value_bytes = 0;
    if (deep->path.count == 0) return make_flat(store, deep, NULL, changed);
    deep->draft.flags |= CHANGE_DEEP | in_array_flag(deep);
    if (tree_is_emptied(&store->forest, place, &deep->path)) deep->draft.flags |= CHANGE_EMPTIES;
    if (!cells_reserve(&store->forest.cells, tree_needs(place, &deep->path), true))
        return STORE_NO_MEMORY;
    return write_change(store, &deep->grip, &deep->path, &deep->draft, NULL, changed);
}

enum store_result deep_remove(struct store *store, const struct store_request *request,
                              const struct change **changed)
{
    return deep_change(store, request, remove_deep, true, changed);
}

/* ------------------------------------------------------------------------------ push and add */

/* Continues the path with a part; `key` has room for it. */
static enum store_result path_extend(struct store *store, struct path *path, uint8_t *key,
                                     struct bytes name)
{
    size_t bytes = path->key.size;
    if (path->count == PATH_PARTS_MAX) return refuse_path(store, path, PATH_TOO_DEEP);
    memcpy(key, path->key.data, bytes);
    key[bytes] = '.';
    size_t end = bytes + 1 + path_escape(key + bytes + 1, name.data, name.size);
    if (end > FRAME_KEY_BYTES_MAX)
        return store_refuse(store, ERROR_TOO_BIG, "a key of %zu bytes is over the limit of %d", end,
                            FRAME_KEY_BYTES_MAX);
    path->parts[path->count++] = (struct path_part){name.data, (uint16_t)name.size, (uint16_t)end};
    path->key = (struct bytes){key, end};
    return STORE_OK;
}

/* Writes the value under the next number below the path. */
static enum store_result write_next(struct store *store, struct deep *deep, uint32_t number,
                                    const struct change **changed)
{
    char text[ID_BYTES_MAX];
    uint8_t key[FRAME_KEY_BYTES_MAX + ID_BYTES_MAX];
    struct bytes value = request_value(deep->draft.request);
    struct bytes name = {text, (size_t)snprintf(text, sizeof text, "%lu", (unsigned long)number)};
    struct path path = deep->path;
    struct draft draft = deep->draft;
    enum store_result result = path_extend(store, &path, key, name);
    if (result == STORE_OK) result = store_check_value(store, draft.request);
    if (result != STORE_OK) return result;
    draft.type = FRAME_ADD;
    draft.value_bytes = value.size;
    if (!cells_reserve(&store->forest.cells, tree_needs(&deep->place, &path), false))
        return STORE_NO_MEMORY;
    return write_change(store, &deep->grip, &path, &draft, value.data, changed);
}

/* The JSON text that a place is, or is a twig that was not opened yet; false: neither. */
static bool place_json(const struct store *store, const struct tree_place *place,
                       struct jsontext *text)
{
    *text = place->text;
    if (place->found == TREE_TEXT) return true;
    const struct twig *twig = tree_twig(&store->forest, place->twig);
    if (twig->kind != TWIG_VALUE) return false;
    const struct change *change = change_at(store->segments, twig->record);
    if (change_value_type(change) != VALUE_JSON) return false;
    *text = jsontext_of(change_value(change), change_value_bytes(change));
    return true;
}

/* Whether there is nothing yet where the path leads to. */
static bool is_nothing(const struct store *store, const struct tree_place *place)
{
    if (place->found == TREE_ABSENT) return true;
    return place->found == TREE_TWIG && tree_is_undefined(&store->forest, place->twig);
}

/* What a place has to be for a verb, unless nothing is there yet. */
struct container {
    enum twig_kind kind;
    enum jsontext_kind text_kind;
    const char *refusal;
};
static const struct container push_array = {TWIG_ARRAY, JSONTEXT_ARRAY, "push needs an array"};
static const struct container add_object = {TWIG_OBJECT, JSONTEXT_OBJECT, "add needs an object"};
static const struct container patch_object = {TWIG_OBJECT, JSONTEXT_OBJECT,
                                              "patch needs an object"};

/*
 * Whether the way to the place can be gone, and it may become such a container or is one: of twigs, or
 * as `text`, which is empty where it is none.
 */
static enum store_result check_container(struct store *store, const struct deep *deep,
                                         const struct container *container, struct jsontext *text)
{
    const struct tree_place *place = &deep->place;
    enum store_result result = check_way(store, deep, false);
    *text = (struct jsontext){0};
    if (result != STORE_OK || is_nothing(store, place)) return result;
    if (place_json(store, place, text)) {
        if (jsontext_kind(*text) == container->text_kind) return STORE_OK;
    } else {
        *text = (struct jsontext){0};
        if (tree_twig(&store->forest, place->twig)->kind == container->kind) return STORE_OK;
    }
    return store_refuse(store, ERROR_TYPE, "\"%s\" is %s: %s",
                        show_path(&deep->path, deep->path.count).text, place_text(store, place),
                        container->refusal);
}

static enum store_result push(struct store *store, struct deep *deep, const struct change **changed)
{
    const struct tree_place *place = &deep->place;
    struct jsontext text;
    uint32_t length = 0;
    enum store_result result = check_container(store, deep, &push_array, &text);
    if (result != STORE_OK) return result;
    if (text.at != NULL)
        length = jsontext_elements_count(text);
    else if (!is_nothing(store, place))
        length = tree_twig(&store->forest, place->twig)->length;
    if (PLANTED("push_over_last") && length > 1) length--;
    deep->draft.flags = deep->draft.request->flags | CHANGE_DEEP | CHANGE_IN_ARRAY;
    return write_next(store, deep, length, changed);
}

enum store_result deep_push(struct store *store, const struct store_request *request,
                            const struct change **changed)
{
    return deep_change(store, request, push, false, changed);
}

static enum store_result add(struct store *store, struct deep *deep, const struct change **changed)
{
    const struct tree_place *place = &deep->place;
    struct jsontext text;
    uint32_t highest = 0;
    enum store_result result = check_container(store, deep, &add_object, &text);
    if (result != STORE_OK) return result;
    if (text.at != NULL)
        highest = tree_highest_id_in_text(text);
    else if (!is_nothing(store, place))
        highest = tree_highest_id(&store->forest, place->twig);
    if (highest >= UINT32_MAX - 1)
        return store_refuse(store, ERROR_TOO_BIG, "\"%s\" has the highest number that there is",
                            show_path(&deep->path, deep->path.count).text);
    deep->draft.flags = deep->draft.request->flags | CHANGE_DEEP;
    return write_next(store, deep, highest + 1, changed);
}

enum store_result deep_add(struct store *store, const struct store_request *request,
                           const struct change **changed)
{
    return deep_change(store, request, add, false, changed);
}

/* ------------------------------------------------------------------------------------- patch */

/* What the fields of a patch come to. */
struct patch {
    struct jsontext object;
    uint8_t *key;  /* of the field at hand */
    uint8_t *name; /* its name */
    uint64_t cells;
    size_t bytes;
    uint32_t fields;
};

/* The name of a member; false: there is none, or it is too long for a key. */
static bool field_name(const struct patch *patch, const struct jsontext_member *member,
                       struct bytes *name)
{
    size_t bytes =
        jsontext_unescape(patch->name, FRAME_KEY_BYTES_MAX, member->name.data, member->name.size);
    *name = (struct bytes){patch->name, bytes};
    return bytes > 0 && bytes <= FRAME_KEY_BYTES_MAX;
}

/* The first way through the fields: what they need. */
static enum store_result patch_measure(struct store *store, const struct deep *deep,
                                       struct patch *patch)
{
    struct jsontext_walk walk;
    struct jsontext_member member;
    jsontext_walk_begin(&walk, patch->object);
    while (jsontext_walk_next(&walk, &member)) {
        struct path path = deep->path;
        struct jsontext_value value;
        struct bytes name;
        if (!field_name(patch, &member, &name))
            return store_refuse(store, ERROR_INVALID,
                                "a field's name has %zu bytes, but 1 to %d are right", name.size,
                                FRAME_KEY_BYTES_MAX);
        enum store_result result = path_extend(store, &path, patch->key, name);
        if (result != STORE_OK) return result;
        jsontext_value(&value, member.value);
        struct draft draft = {.key = path.key, .value_bytes = value.bytes};
        patch->bytes += draft_padded_bytes(&draft);
        patch->cells += 1 + twig_name_pieces(name.size);
        patch->fields++;
    }
    if (patch->bytes <= PATCH_BYTES_MAX) return STORE_OK;
    return store_refuse(store, ERROR_TOO_BIG,
                        "a patch of %zu bytes in the log, but %zu are the most", patch->bytes,
                        PATCH_BYTES_MAX);
}

/* The second way: makes the changes, for which there is room. */
static void patch_write(struct store *store, struct deep *deep, const struct patch *patch,
                        const struct change **changed)
{
    struct jsontext_walk walk;
    struct jsontext_member member;
    jsontext_walk_begin(&walk, patch->object);
    while (jsontext_walk_next(&walk, &member)) {
        struct path path = deep->path;
        struct jsontext_value value;
        struct bytes name;
        if (PLANTED("patch_cut") && *changed != NULL) break;
        bool is_name = field_name(patch, &member, &name);
        enum store_result result = path_extend(store, &path, patch->key, name);
        ASSERT(is_name && result == STORE_OK);
        jsontext_value(&value, member.value);
        struct draft draft = deep->draft;
        draft.key = path.key;
        draft.type = FRAME_UPDATE;
        draft.flags = (uint8_t)value.type | CHANGE_DEEP;
        draft.value_bytes = value.bytes;
        draft.offset = tree_twig(&store->forest, deep->grip.root)->offset + 1;
        struct change *change = append(store, &draft);
        ASSERT(change != NULL);
        jsontext_value_copy(draft_value(change), &value);
        grip_keep(store, &deep->grip);
        tree_apply(&store->forest, deep->grip.root, &path, commit(store, change));
        *changed = change;
    }
}

static enum store_result patch(struct store *store, struct deep *deep,
                               const struct change **changed)
{
    const struct tree_place *place = &deep->place;
    struct bytes value = request_value(deep->draft.request);
    uint8_t key[2 * FRAME_KEY_BYTES_MAX + ID_BYTES_MAX];
    uint8_t name[FRAME_KEY_BYTES_MAX];
    struct patch patch = {.key = key, .name = name};
    struct jsontext text;
    bool is_object = deep->draft.request->flags == VALUE_JSON &&
                     jsontext_is_valid(value.data, value.size) &&
                     jsontext_kind(jsontext_of(value.data, value.size)) == JSONTEXT_OBJECT;
    if (!is_object)
        return store_refuse(store, ERROR_TYPE,
                            "a patch is a JSON object of fields such as {\"age\":28}");
    enum store_result result = check_container(store, deep, &patch_object, &text);
    if (result != STORE_OK) return result;
    patch.object = jsontext_of(value.data, value.size);
    result = patch_measure(store, deep, &patch);
    if (result != STORE_OK || patch.fields == 0) return result;
    if (!cells_reserve(&store->forest.cells, tree_needs(place, &deep->path) + patch.cells, false))
        return STORE_NO_MEMORY;
    if (log_reserve(&store->log, patch.bytes, false) == NULL) return STORE_NO_MEMORY;
    patch_write(store, deep, &patch, changed);
    return STORE_OK;
}

enum store_result deep_patch(struct store *store, const struct store_request *request,
                             const struct change **changed)
{
    *changed = NULL;
    return deep_change(store, request, patch, false, changed);
}

enum store_result deep_insert(struct store *store, const struct store_request *request,
                              const struct change **changed)
{
    struct store_request insert = *request;
    enum store_result result = store_get(store, request, changed);
    struct shown shown = shown_of(request->body, request->key_len);
    if (deep_is_key(request->body, request->key_len))
        return store_refuse(store, ERROR_INVALID, "key \"%s\" is not a partition's", shown.text);
    if (result != STORE_NO_KEY)
        return store_refuse(store, ERROR_CONFLICT, "there is a key \"%s\" already", shown.text);
    insert.type = FRAME_ADD;
    return store_update(store, &insert, changed);
}

uint64_t deep_id_of(const struct change *change)
{
    const uint8_t *key = change_key(change);
    uint64_t id = 0;
    size_t at = change->key_len;
    while (at > 0 && key[at - 1] >= '0' && key[at - 1] <= '9') at--;
    for (; at < change->key_len; at++) id = id * 10 + key[at] - '0';
    return id;
}

/* --------------------------------------------------------------------------------------- get */

static void value_of_record(struct deep_value *value, const struct change *change)
{
    value->type = change_value_type(change);
    value->offset = change_offset(change);
    value->bytes = change_value_bytes(change);
    value->data = (struct bytes){change_value(change), value->bytes};
}

static void value_of_text(struct deep_value *value, struct jsontext text, uint64_t offset)
{
    jsontext_value(&value->text, text);
    value->type = value->text.type;
    value->offset = offset;
    value->bytes = value->text.bytes;
}

/* Looks into the JSON text of a partition without a tree. */
static enum store_result get_in_flat(struct store *store, const struct deep *deep,
                                     struct deep_value *value)
{
    const struct change *change = grip_record(store, &deep->grip);
    struct tree_place place = {.twig = 0};
    if (change == NULL || change->type == FRAME_REMOVE) return STORE_NO_KEY;
    if (change_value_type(change) != VALUE_JSON) return STORE_NO_KEY;
    DEBUG_ASSERT(jsontext_is_valid(change_value(change), change_value_bytes(change)));
    struct jsontext text = jsontext_of(change_value(change), change_value_bytes(change));
    tree_find_in_text(&deep->path, 0, text, &place);
    if (place.found != TREE_TEXT) return STORE_NO_KEY;
    value_of_text(value, place.text, change_offset(change));
    return STORE_OK;
}

enum store_result deep_get(struct store *store, const struct store_request *request,
                           struct deep_value *value)
{
    struct forest *forest = &store->forest;
    struct deep deep;
    *value = (struct deep_value){.twig = 0};
    enum store_result result = deep_read(store, request, &deep);
    if (result != STORE_OK) return result;
    if (deep.grip.root == 0) return get_in_flat(store, &deep, value);
    tree_find(forest, deep.grip.root, &deep.path, &deep.place);
    const struct tree_place *place = &deep.place;
    if (place->found == TREE_TEXT) {
        const struct change *change = change_at(store->segments, tree_record(forest, place));
        value_of_text(value, place->text, change_offset(change));
        return STORE_OK;
    }
    if (place->found != TREE_TWIG) return STORE_NO_KEY;
    const struct twig *twig = tree_twig(forest, place->twig);
    if (twig->kind == TWIG_VALUE) {
        value_of_record(value, change_at(store->segments, twig->record));
        return STORE_OK;
    }
    struct jsontext_out out = {.to = NULL};
    tree_write(forest, place->twig, &out);
    value->type = VALUE_JSON;
    value->offset = tree_twig(forest, deep.grip.root)->offset;
    value->bytes = out.bytes;
    value->twig = place->twig;
    return STORE_OK;
}

void deep_value_copy(struct store *store, const struct deep_value *value, uint8_t *to)
{
    if (value->data.data != NULL) {
        if (value->bytes > 0) memcpy(to, value->data.data, value->bytes);
    } else if (value->twig != 0) {
        struct jsontext_out out = {.to = to};
        tree_write(&store->forest, value->twig, &out);
        ASSERT(out.bytes == value->bytes);
    } else {
        jsontext_value_copy(to, &value->text);
    }
}

/* -------------------------------------------------------------------------- for compaction */

void deep_moved(struct store *store, const struct change *change, uint64_t from, uint64_t to)
{
    struct forest *forest = &store->forest;
    struct path path;
    struct grip grip;
    deep_path(store, change, &path);
    grip_find(store, &grip, partition_of(&path));
    ASSERT(grip.root != 0);
    tree_moved(forest, grip.root, &path, from, to);
}
