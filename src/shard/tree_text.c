/*
 * A tree as JSON. The members of a container's text come first, in their order, each as the child of
 * its name says where there is one, else as it is; then the other children in the order in which
 * they came. An undefined field is left out, an undefined element and a hole are null, as JavaScript
 * writes them.
 *
 * A stack of the containers that are open takes the place of a recursion: paths have a bound.
 */
#include "base/assert.h"
#include "base/hash.h"
#include "shard/tree.h"

struct level {
    uint32_t number;
    bool in_text; /* not all of the text's members have been written */
    bool some;    /* a comma comes first */
    struct jsontext_walk walk;
    uint32_t child; /* of an object: the next one behind the text */
    uint32_t index; /* of an array: the next element */
};

struct writing {
    struct forest *forest;
    struct jsontext_out *out;
    struct level levels[PATH_PARTS_MAX + 1];
    unsigned depth;
};

static void open_level(struct writing *writing, uint32_t number)
{
    const struct twig *twig = tree_twig(writing->forest, number);
    ASSERT(writing->depth <= PATH_PARTS_MAX);
    struct level *level = &writing->levels[writing->depth++];
    *level = (struct level){
        .number = number, .in_text = (twig->flags & TWIG_HAS_TEXT) != 0, .child = twig->first};
    if (level->in_text) jsontext_walk_begin(&level->walk, tree_text(writing->forest, twig));
    jsontext_put_char(writing->out, twig->kind == TWIG_ARRAY ? '[' : '{');
}

static void put_comma(struct writing *writing, struct level *level)
{
    if (level->some) jsontext_put_char(writing->out, ',');
    level->some = true;
}

/* Whether a field is written at all. */
static bool is_seen(const struct forest *forest, uint32_t number)
{
    return tree_twig(forest, number)->kind != TWIG_REMOVED && !tree_is_undefined(forest, number);
}

/* The value of a twig, or the beginning of it: then its level is the top one. */
static void put_twig(struct writing *writing, uint32_t number)
{
    const struct twig *twig = tree_twig(writing->forest, number);
    if (twig->kind != TWIG_VALUE) {
        open_level(writing, number);
        return;
    }
    const struct change *change = change_at(writing->forest->segments, twig->record);
    jsontext_put_value(writing->out, change_value_type(change), change_value(change),
                       change_value_bytes(change));
}

/* The child of the member's name. */
static uint32_t child_of_member(const struct writing *writing, const struct twig *twig,
                                struct bytes name)
{
    const struct forest *forest = writing->forest;
    if (twig->first == 0) return 0;
    if (memchr(name.data, '\\', name.size) != NULL) {
        name.size = jsontext_unescape(forest->scratch, FRAME_KEY_BYTES_MAX, name.data, name.size);
        name.data = forest->scratch;
    }
    /* A child's is no longer than a key. */
    if (name.size > FRAME_KEY_BYTES_MAX) return 0;
    struct twig_name wanted = {.bytes = name.data, .count = (uint32_t)name.size};
    wanted.hash = (uint32_t)hash_key(name.data, name.size, forest->hash_seed);
    return twig_child(&forest->cells, twig, &wanted);
}

/* The next member of an object's text. */
static void write_member(struct writing *writing, struct level *level, const struct twig *twig)
{
    struct jsontext_member member;
    level->in_text = jsontext_walk_next(&level->walk, &member);
    if (!level->in_text) return;
    uint32_t child = child_of_member(writing, twig, member.name);
    if (child != 0) {
        struct twig *met = tree_twig(writing->forest, child);
        /* The first one of a name that the text has twice. */
        if ((met->flags & TWIG_MET) != 0) return;
        met->flags |= TWIG_MET;
        if (!is_seen(writing->forest, child)) return;
    }
    put_comma(writing, level);
    jsontext_put_char(writing->out, '"');
    jsontext_put(writing->out, member.name.data, member.name.size);
    jsontext_put(writing->out, "\":", 2);
    if (child != 0)
        put_twig(writing, child);
    else
        jsontext_put(writing->out, member.value.at, member.value_bytes);
}

/* The next child that the text does not have. */
static void write_child(struct writing *writing, struct level *level)
{
    struct forest *forest = writing->forest;
    uint32_t number = level->child;
    struct twig *child = tree_twig(forest, number);
    level->child = child->next;
    if ((child->flags & TWIG_MET) != 0) {
        child->flags &= (uint8_t)~TWIG_MET;
        return;
    }
    if (!is_seen(forest, number)) return;
    put_comma(writing, level);
    size_t bytes = twig_name_copy(&forest->cells, child, forest->scratch);
    jsontext_put_string(writing->out, forest->scratch, bytes);
    jsontext_put_char(writing->out, ':');
    put_twig(writing, number);
}

static void write_element(struct writing *writing, struct level *level, const struct twig *twig)
{
    struct jsontext_member member = {.value_bytes = 0};
    struct twig_name name = {.hash = level->index++};
    if (level->in_text) level->in_text = jsontext_walk_next(&level->walk, &member);
    uint32_t child = twig_child(&writing->forest->cells, twig, &name);
    put_comma(writing, level);
    if (child != 0 && tree_twig(writing->forest, child)->kind != TWIG_REMOVED)
        put_twig(writing, child);
    else if (child == 0 && level->in_text)
        jsontext_put(writing->out, member.value.at, member.value_bytes);
    else
        jsontext_put(writing->out, "null", 4);
}

void tree_write(struct forest *forest, uint32_t number, struct jsontext_out *out)
{
    struct writing writing = {.forest = forest, .out = out};
    put_twig(&writing, number);
    while (writing.depth > 0) {
        struct level *level = &writing.levels[writing.depth - 1];
        const struct twig *twig = tree_twig(forest, level->number);
        bool is_array = twig->kind == TWIG_ARRAY;
        if (is_array ? level->index < twig->length : level->in_text || level->child != 0) {
            if (is_array)
                write_element(&writing, level, twig);
            else if (level->in_text)
                write_member(&writing, level, twig);
            else
                write_child(&writing, level);
            continue;
        }
        jsontext_put_char(out, is_array ? ']' : '}');
        writing.depth--;
    }
}
