/*
 * Trees: the state of partitions that have something deep. What a tree is after a run of changes is
 * decided here, and nowhere else; shard/deep.c appends the changes and points the table at trees.
 *
 * A tree is the fold of its partition's records in their order. The twig at a record's path stands
 * on it, so that it is live, until a newer change of that path, or of one above it, supersedes it.
 * See tree.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "shard/twig.h"
#include "wire/jsontext.h"
#include "wire/path.h"

/* All trees of a store. */
struct forest {
    struct cells cells;
    const struct segments *segments;
    uint64_t hash_seed;
    uint64_t trees_count;
    uint32_t mark;    /* index_mark of the change at hand, for what it supersedes */
    uint8_t *scratch; /* FRAME_KEY_BYTES_MAX, for a name; NULL until it is needed */
};

void forest_init(struct forest *forest, struct segments *segments, uint64_t hash_seed);
/* Trees must have been dropped. */
void forest_deinit(struct forest *forest);

/*
 * A new tree that stands on a record of the whole partition; `record` 0: there is none. Takes
 * tree_make_needs cells.
 */
uint32_t tree_make(struct forest *forest, struct bytes partition, uint64_t record, uint64_t offset);
uint64_t tree_make_needs(size_t partition_bytes);
/* Frees a tree. With `supersede` all that it stands on is superseded by the change at hand. */
void tree_drop(struct forest *forest, uint32_t root, bool supersede);
bool tree_is(const struct forest *forest, uint32_t root, struct bytes partition);

static inline struct twig *tree_twig(const struct forest *forest, uint32_t number)
{
    return twig_of(&forest->cells, number);
}

/* What a path leads to. */
enum tree_found {
    TREE_TWIG,      /* `twig` */
    TREE_TEXT,      /* `text`, inside of JSON text */
    TREE_ABSENT,    /* nothing: what `at` parts lead to has no part of the next name */
    TREE_BLOCKED,   /* what `at` parts lead to is neither object nor array */
    TREE_BAD_INDEX, /* it is an array, and the next part no index */
};

struct tree_place {
    enum tree_found found;
    uint32_t twig;  /* the deepest one on the path, */
    uint32_t depth; /* and the parts that it stands for */
    uint32_t at;
    struct jsontext text; /* TREE_TEXT: it; TREE_BLOCKED: what blocks, unless that is a twig */
    bool is_array;        /* what `at` parts lead to, which has */
    uint32_t length;      /* so many elements */
};

void tree_find(const struct forest *forest, uint32_t root, const struct path *path,
               struct tree_place *place);
/* The same below a value of checked JSON text, which the first `at` parts lead to. */
void tree_find_in_text(const struct path *path, uint32_t at, struct jsontext text,
                       struct tree_place *place);
/* The record that holds the text of a place that was found in text, or the twig's own. */
uint64_t tree_record(const struct forest *forest, const struct tree_place *place);
/* The text that a container with TWIG_HAS_TEXT begins as. */
struct jsontext tree_text(const struct forest *forest, const struct twig *twig);
/* Whether a twig is a value that counts as no value: undefined. */
bool tree_is_undefined(const struct forest *forest, uint32_t number);

/* Cells that a change at this place takes at most. */
uint64_t tree_needs(const struct tree_place *place, const struct path *path);
/* Whether the removal at this place leaves a container empty that nothing else stands for. */
bool tree_is_emptied(const struct forest *forest, const struct tree_place *place,
                     const struct path *path);

/*
 * Applies the change whose record is at `address` and whose path is deep. `record` says what it is.
 * What it supersedes is marked with forest->mark; so is the change itself if nothing stands on it
 * and a newer one of the partition comes. Cells must have been reserved.
 */
void tree_apply(struct forest *forest, uint32_t root, const struct path *path, uint64_t address);

/* Compaction has moved a record of the partition. */
void tree_moved(struct forest *forest, uint32_t root, const struct path *path, uint64_t from,
                uint64_t to);

/* Writes a twig's value as JSON. */
void tree_write(struct forest *forest, uint32_t number, struct jsontext_out *out);

/* The highest whole number that is, or was, among the names of an object; 0: none. */
uint32_t tree_highest_id(struct forest *forest, uint32_t number);
uint32_t tree_highest_id_in_text(struct jsontext object);

/* Calls `visit` for each record that the tree keeps alive. */
void tree_records(const struct forest *forest, uint32_t root,
                  void (*visit)(void *context, uint64_t address), void *context);
