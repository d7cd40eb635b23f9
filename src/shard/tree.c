/*
 * What a twig is
 *
 *   value      the value of the record at its path
 *   object,    its children, and what its text has beside them: a child hides the member of its
 *   array      name. A container has text where its record is JSON text of one, or where the text
 *              of a container around it has one at its place; else it began empty.
 *   removed    hides the member of its name, too, and is no value
 *
 * Text is not taken apart: a twig is made for what changes, and for the containers on the way. So a
 * change costs nothing for the fields beside it, and the first one that goes into some text costs
 * reading that.
 *
 * Which records are live
 *
 * Each twig keeps the record that it stands on. A value stands on the record of its path; a removed
 * twig on that of the removal; a container on the record whose text it has, or, where it has none, on
 * a record that says that there is nothing else under its name: an undefined value, a removal, or
 * the removal of its last child. Such a removal (CHANGE_EMPTIES) says: here is an empty container.
 * All other containers stand on nothing: they follow from what is in them.
 *
 * So the fold of the records that twigs stand on is the tree. That is what compaction keeps, and what
 * truncation begins with. The partition's newest change is kept as well, because it has the offset.
 *
 * An element that is removed leaves a hole, so that no path changes what it means; at the end of an
 * array it makes that shorter, up to the last element that is there.
 */
#include "shard/tree.h"

#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/memory.h"

void forest_init(struct forest *forest, struct segments *segments, uint64_t hash_seed)
{
    *forest = (struct forest){.segments = segments, .hash_seed = hash_seed};
    cells_init(&forest->cells, segments);
}

void forest_deinit(struct forest *forest)
{
    cells_deinit(&forest->cells);
    memory_put(forest->scratch);
    *forest = (struct forest){0};
}

/* ----------------------------------------------------------------------------- records, names */

static const struct change *record_of(const struct forest *forest, const struct twig *twig)
{
    return change_at(forest->segments, twig->record);
}

static void supersede(struct forest *forest, uint64_t address)
{
    if (address == 0) return;
    size_t padded = change_padded_bytes(change_at(forest->segments, address));
    index_supersede(forest->segments, address, padded, forest->mark);
}

/* The name of a part for a look-up below `parent`. False: that is an array, and the part no index. */
static bool name_of(const struct forest *forest, bool is_array, const struct path_part *part,
                    struct twig_name *name)
{
    *name = (struct twig_name){.bytes = part->name, .count = part->bytes};
    if (is_array) return path_index(part, &name->hash);
    name->hash = (uint32_t)hash_key(part->name, part->bytes, forest->hash_seed);
    return true;
}

static bool is_container(enum jsontext_kind kind)
{
    return kind == JSONTEXT_OBJECT || kind == JSONTEXT_ARRAY;
}

struct jsontext tree_text(const struct forest *forest, const struct twig *twig)
{
    const struct twig *owner = twig;
    ASSERT((twig->flags & TWIG_HAS_TEXT) != 0);
    while (owner->record == 0) owner = tree_twig(forest, owner->parent);
    const struct change *change = record_of(forest, owner);
    const uint8_t *value = change_value(change);
    return (struct jsontext){value + twig->text_at, value + change_value_bytes(change)};
}

/* What a container's text has under a name or index. False: nothing, or it has no text. */
static bool text_child(const struct forest *forest, const struct twig *twig,
                       const struct twig_name *name, struct jsontext *text)
{
    if ((twig->flags & TWIG_HAS_TEXT) == 0) return false;
    if (twig->kind == TWIG_ARRAY)
        return name->hash < twig->text_count &&
               jsontext_element(tree_text(forest, twig), name->hash, text);
    return jsontext_member(tree_text(forest, twig), name->bytes, name->count, text);
}

bool tree_is_undefined(const struct forest *forest, uint32_t number)
{
    const struct twig *twig = tree_twig(forest, number);
    return twig->kind == TWIG_VALUE &&
           change_value_type(record_of(forest, twig)) == VALUE_UNDEFINED;
}

/* ------------------------------------------------------------------------------ whole trees */

uint64_t tree_make_needs(size_t partition_bytes)
{
    return 1 + twig_name_pieces(partition_bytes);
}

uint32_t tree_make(struct forest *forest, struct bytes partition, uint64_t record, uint64_t offset)
{
    uint32_t number = cells_take(&forest->cells);
    struct twig *root = tree_twig(forest, number);
    twig_name_set(&forest->cells, root, partition.data, partition.size);
    bool is_value = record != 0 && change_at(forest->segments, record)->type != FRAME_REMOVE;
    root->kind = is_value ? TWIG_VALUE : TWIG_REMOVED;
    root->record = record;
    root->newest = record;
    root->offset = offset;
    root->flags = TWIG_NEWEST_HELD;
    forest->trees_count++;
    return number;
}

static void leave_superseding(void *context, const struct twig *twig)
{
    supersede(context, twig->record);
}

static void leave(void *context, const struct twig *twig)
{
    (void)context;
    (void)twig;
}

void tree_drop(struct forest *forest, uint32_t number, bool supersedes)
{
    struct twig *root = tree_twig(forest, number);
    twig_free_below(&forest->cells, number, supersedes ? leave_superseding : leave, forest);
    if (supersedes) {
        if ((root->flags & TWIG_NEWEST_HELD) == 0) supersede(forest, root->newest);
        supersede(forest, root->record);
    }
    twig_free_root(&forest->cells, number);
    forest->trees_count--;
}

bool tree_is(const struct forest *forest, uint32_t root, struct bytes partition)
{
    return twig_name_is(&forest->cells, tree_twig(forest, root), partition.data, partition.size);
}

/* ---------------------------------------------------------------------------------- finding */

static void found(struct tree_place *place, enum tree_found what, uint32_t at)
{
    place->found = what;
    place->at = at;
}

void tree_find_in_text(const struct path *path, uint32_t at, struct jsontext text,
                       struct tree_place *place)
{
    for (; at < path->count; at++) {
        const struct path_part *part = &path->parts[at];
        enum jsontext_kind kind = jsontext_kind(text);
        uint32_t index;
        struct jsontext inside;
        bool is_there;
        if (!is_container(kind)) {
            place->text = text;
            found(place, TREE_BLOCKED, at);
            return;
        }
        place->is_array = kind == JSONTEXT_ARRAY;
        if (place->is_array && !path_index(part, &index)) {
            found(place, TREE_BAD_INDEX, at);
            return;
        }
        is_there = place->is_array ? jsontext_element(text, index, &inside)
                                   : jsontext_member(text, part->name, part->bytes, &inside);
        if (!is_there) {
            if (place->is_array) place->length = jsontext_elements_count(text);
            found(place, TREE_ABSENT, at);
            return;
        }
        text = inside;
    }
    place->text = text;
    found(place, TREE_TEXT, at);
}

/* Goes on from a twig that is no container. */
static void find_in_value(const struct forest *forest, const struct path *path,
                          struct tree_place *place)
{
    const struct twig *twig = tree_twig(forest, place->twig);
    bool is_value = twig->kind == TWIG_VALUE && !tree_is_undefined(forest, place->twig);
    if (!is_value) {
        place->is_array = false; /* it is not there yet */
        found(place, TREE_ABSENT, place->depth);
        return;
    }
    const struct change *change = record_of(forest, twig);
    if (change_value_type(change) != VALUE_JSON) {
        found(place, TREE_BLOCKED, place->depth);
        return;
    }
    struct jsontext text = jsontext_of(change_value(change), change_value_bytes(change));
    tree_find_in_text(path, place->depth, text, place);
}

void tree_find(const struct forest *forest, uint32_t root, const struct path *path,
               struct tree_place *place)
{
    *place = (struct tree_place){.twig = root};
    while (place->depth < path->count) {
        const struct twig *twig = tree_twig(forest, place->twig);
        if (twig->kind == TWIG_VALUE || twig->kind == TWIG_REMOVED) {
            find_in_value(forest, path, place);
            return;
        }
        struct twig_name name;
        place->is_array = twig->kind == TWIG_ARRAY;
        place->length = twig->length;
        if (!name_of(forest, place->is_array, &path->parts[place->depth], &name)) {
            found(place, TREE_BAD_INDEX, place->depth);
            return;
        }
        uint32_t child = twig_child(&forest->cells, twig, &name);
        struct jsontext text;
        bool is_hole = place->is_array && child != 0 && place->depth + 1 < path->count &&
                       tree_twig(forest, child)->kind == TWIG_REMOVED;
        if (is_hole) {
            found(place, TREE_ABSENT, place->depth);
            return;
        }
        if (child != 0) {
            place->twig = child;
            place->depth++;
            continue;
        }
        if ((place->is_array && name.hash >= twig->length) ||
            !text_child(forest, twig, &name, &text)) {
            found(place, TREE_ABSENT, place->depth);
            return;
        }
        tree_find_in_text(path, place->depth + 1, text, place);
        return;
    }
    const struct twig *twig = tree_twig(forest, place->twig);
    if (place->depth > 0) {
        const struct twig *parent = tree_twig(forest, twig->parent);
        place->is_array = parent->kind == TWIG_ARRAY;
        place->length = parent->length;
    }
    if (twig->kind == TWIG_REMOVED)
        found(place, TREE_ABSENT, place->depth > 0 ? place->depth - 1 : 0);
    else
        found(place, TREE_TWIG, place->depth);
}

uint64_t tree_record(const struct forest *forest, const struct tree_place *place)
{
    const struct twig *twig = tree_twig(forest, place->twig);
    while (twig->record == 0 && twig->parent != 0) twig = tree_twig(forest, twig->parent);
    return twig->record;
}

uint64_t tree_needs(const struct tree_place *place, const struct path *path)
{
    uint64_t count = 0;
    for (uint32_t at = place->depth; at < path->count; at++)
        count += 1 + twig_name_pieces(path->parts[at].bytes);
    return count;
}

bool tree_is_emptied(const struct forest *forest, const struct tree_place *place,
                     const struct path *path)
{
    if (place->found != TREE_TWIG || place->depth != path->count) return false;
    const struct twig *parent = tree_twig(forest, tree_twig(forest, place->twig)->parent);
    return (parent->flags & TWIG_HAS_TEXT) == 0 && tree_twig(forest, parent->first)->next == 0;
}

/* --------------------------------------------------------------------------------- changing */

static void clear_below(struct forest *forest, uint32_t number)
{
    twig_free_below(&forest->cells, number, leave_superseding, forest);
}

/* Begins as the container that `text` is, which lies in the value of a record that has `value`. */
static void begin_as_text(struct twig *twig, struct jsontext text, const uint8_t *value)
{
    bool is_array = jsontext_kind(text) == JSONTEXT_ARRAY;
    twig->kind = is_array ? TWIG_ARRAY : TWIG_OBJECT;
    twig->flags |= TWIG_HAS_TEXT;
    twig->text_at = (uint32_t)(text.at - value);
    twig->text_count = is_array ? jsontext_elements_count(text) : 0;
    twig->length = twig->text_count;
}

/* Makes a container of a twig that is to have children. */
static void open_container(struct forest *forest, uint32_t number, bool as_array)
{
    struct twig *twig = tree_twig(forest, number);
    if (twig->kind == TWIG_OBJECT || twig->kind == TWIG_ARRAY) return;
    if (twig->kind == TWIG_VALUE && !tree_is_undefined(forest, number)) {
        const struct change *change = record_of(forest, twig);
        const uint8_t *value = change_value(change);
        ASSERT(change_value_type(change) == VALUE_JSON);
        begin_as_text(twig, jsontext_of(value, change_value_bytes(change)), value);
        return;
    }
    /* Its record stays, so that nothing else comes to light under its name; a root has no name. */
    if (twig->parent == 0) {
        bool is_newest = twig->newest == twig->record;
        if (!is_newest) supersede(forest, twig->record);
        if (is_newest) twig->flags &= (uint8_t)~TWIG_NEWEST_HELD;
        twig->record = 0;
    }
    twig->kind = as_array ? TWIG_ARRAY : TWIG_OBJECT;
    twig->length = 0;
}

/* The whole number that a name is; 0: none. */
static uint32_t id_of(const uint8_t *name, size_t bytes)
{
    uint32_t id;
    struct path_part part = {.name = name, .bytes = (uint16_t)bytes};
    return bytes <= UINT16_MAX && path_index(&part, &id) ? id : 0;
}

/* Adds a child that is not there. */
static uint32_t add_child(struct forest *forest, uint32_t parent, const struct twig_name *name)
{
    uint32_t number = twig_add(&forest->cells, parent, name);
    struct twig *above = tree_twig(forest, parent);
    if (above->kind == TWIG_ARRAY && name->hash >= above->length) above->length = name->hash + 1;
    if ((above->flags & TWIG_KNOWS_IDS) != 0)
        above->length = (uint32_t)max_u64(above->length, id_of(name->bytes, name->count));
    return number;
}

uint32_t tree_highest_id(struct forest *forest, uint32_t number)
{
    struct twig *twig = tree_twig(forest, number);
    ASSERT(twig->kind == TWIG_OBJECT);
    if ((twig->flags & TWIG_KNOWS_IDS) != 0) return twig->length;
    twig->flags |= TWIG_KNOWS_IDS;
    twig->length = 0;
    for (uint32_t child = twig->first; child != 0; child = tree_twig(forest, child)->next) {
        size_t bytes = twig_name_copy(&forest->cells, tree_twig(forest, child), forest->scratch);
        twig->length = (uint32_t)max_u64(twig->length, id_of(forest->scratch, bytes));
    }
    if ((twig->flags & TWIG_HAS_TEXT) == 0) return twig->length;
    uint32_t in_text = tree_highest_id_in_text(tree_text(forest, twig));
    twig->length = (uint32_t)max_u64(twig->length, in_text);
    return twig->length;
}

uint32_t tree_highest_id_in_text(struct jsontext object)
{
    struct jsontext_walk walk;
    struct jsontext_member member;
    uint64_t highest = 0;
    jsontext_walk_begin(&walk, object);
    while (jsontext_walk_next(&walk, &member))
        highest = max_u64(highest, id_of(member.name.data, member.name.size));
    return (uint32_t)highest;
}

/* The container that the path's part leads to from `parent`. */
static uint32_t step_into(struct forest *forest, uint32_t parent, const struct path_part *part)
{
    struct twig_name name;
    struct jsontext text;
    const struct twig *above = tree_twig(forest, parent);
    bool is_name = name_of(forest, above->kind == TWIG_ARRAY, part, &name);
    ASSERT(is_name);
    uint32_t child = twig_child(&forest->cells, above, &name);
    if (child != 0) return child;
    bool has_text = text_child(forest, above, &name, &text);
    child = add_child(forest, parent, &name);
    if (!has_text || !is_container(jsontext_kind(text))) return child;
    const struct twig *owner = above;
    while (owner->record == 0) owner = tree_twig(forest, owner->parent);
    begin_as_text(tree_twig(forest, child), text, change_value(record_of(forest, owner)));
    return child;
}

/* A twig's value is now that of the record; what it had is superseded. */
static void set_value(struct forest *forest, uint32_t number, enum twig_kind kind, uint64_t record)
{
    struct twig *twig = tree_twig(forest, number);
    clear_below(forest, number);
    supersede(forest, twig->record);
    twig->kind = (uint8_t)kind;
    twig->flags &= TWIG_NEWEST_HELD;
    twig->record = record;
    twig->length = 0;
    twig->text_count = 0;
}

/* An array ends with its last element that is there. */
static void trim_array(struct forest *forest, uint32_t number)
{
    struct twig *twig = tree_twig(forest, number);
    while (twig->length > 0) {
        struct twig_name name = {.hash = twig->length - 1};
        uint32_t child = twig_child(&forest->cells, twig, &name);
        bool is_there = child != 0 ? tree_twig(forest, child)->kind != TWIG_REMOVED
                                   : name.hash < twig->text_count;
        if (is_there) return;
        twig->length--;
    }
}

static void apply_value(struct forest *forest, uint32_t parent, const struct path_part *part,
                        uint64_t address)
{
    struct twig_name name;
    bool is_name = name_of(forest, tree_twig(forest, parent)->kind == TWIG_ARRAY, part, &name);
    ASSERT(is_name);
    uint32_t child = twig_child(&forest->cells, tree_twig(forest, parent), &name);
    if (child == 0) child = add_child(forest, parent, &name);
    struct twig *above = tree_twig(forest, parent);
    /* Its twig may have been a hole at the end. */
    if (above->kind == TWIG_ARRAY && name.hash >= above->length) above->length = name.hash + 1;
    set_value(forest, child, TWIG_VALUE, address);
}

/* Returns whether a twig stands on the removal. */
static bool apply_removal(struct forest *forest, uint32_t parent, const struct path_part *part,
                          uint64_t address)
{
    struct twig *above = tree_twig(forest, parent);
    const struct change *change = change_at(forest->segments, address);
    struct twig_name name;
    struct jsontext text;
    if ((change->flags & CHANGE_EMPTIES) != 0) {
        bool is_array = (change->flags & CHANGE_IN_ARRAY) != 0;
        set_value(forest, parent, is_array ? TWIG_ARRAY : TWIG_OBJECT, address);
        return true;
    }
    bool is_name = name_of(forest, above->kind == TWIG_ARRAY, part, &name);
    ASSERT(is_name);
    uint32_t child = twig_child(&forest->cells, above, &name);
    bool hides = text_child(forest, above, &name, &text);
    if (hides) {
        if (child == 0) child = twig_add(&forest->cells, parent, &name);
        set_value(forest, child, TWIG_REMOVED, address);
    } else if (child != 0) {
        clear_below(forest, child);
        supersede(forest, tree_twig(forest, child)->record);
        twig_take_out(&forest->cells, child);
    }
    if (above->kind == TWIG_ARRAY) trim_array(forest, parent);
    return hides;
}

void tree_apply(struct forest *forest, uint32_t root, const struct path *path, uint64_t address)
{
    const struct change *change = change_at(forest->segments, address);
    bool in_array = (change->flags & CHANGE_IN_ARRAY) != 0;
    struct twig *top = tree_twig(forest, root);
    uint32_t number = root;
    ASSERT(path->count > 0 && change_is_deep(change));
    for (uint32_t at = 0;; at++) {
        bool is_last = at + 1 == path->count;
        open_container(forest, number, is_last && in_array);
        if (is_last) break;
        number = step_into(forest, number, &path->parts[at]);
    }
    /* From here on the change before is not the newest: it lives if a twig stands on it. */
    if ((top->flags & TWIG_NEWEST_HELD) == 0) supersede(forest, top->newest);
    top->flags |= TWIG_NEWEST_HELD;
    const struct path_part *part = &path->parts[path->count - 1];
    bool is_held = true;
    if (change->type == FRAME_REMOVE)
        is_held = apply_removal(forest, number, part, address);
    else
        apply_value(forest, number, part, address);
    top->newest = address;
    top->offset = change_offset(change);
    if (!is_held) top->flags &= (uint8_t)~TWIG_NEWEST_HELD;
}

/* --------------------------------------------------------------------------- for compaction */

void tree_moved(struct forest *forest, uint32_t root, const struct path *path, uint64_t from,
                uint64_t to)
{
    struct twig *twig = tree_twig(forest, root);
    bool is_known = twig->newest == from;
    if (is_known) twig->newest = to;
    for (uint32_t at = 0;; at++) {
        if (twig->record == from) {
            twig->record = to;
            is_known = true;
            break;
        }
        struct twig_name name;
        if (at == path->count) break;
        if (!name_of(forest, twig->kind == TWIG_ARRAY, &path->parts[at], &name)) break;
        uint32_t child = twig_child(&forest->cells, twig, &name);
        if (child == 0) break;
        twig = tree_twig(forest, child);
    }
    ASSERT(is_known);
}

void tree_records(const struct forest *forest, uint32_t root,
                  void (*visit)(void *context, uint64_t address), void *context)
{
    const struct twig *top = tree_twig(forest, root);
    if ((top->flags & TWIG_NEWEST_HELD) == 0) visit(context, top->newest);
    for (uint32_t number = root; number != 0; number = twig_next(&forest->cells, root, number)) {
        const struct twig *twig = tree_twig(forest, number);
        if (twig->record != 0) visit(context, twig->record);
    }
}
