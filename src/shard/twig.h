/*
 * One twig of a tree: a partition's root, a field, an element. See tree.h for what they mean, and
 * twig.c for how children are found.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "shard/cells.h"

enum twig_kind {
    TWIG_VALUE = 1, /* the value of its record */
    TWIG_OBJECT,
    TWIG_ARRAY,
    TWIG_REMOVED /* hides what its parent's text has under its name. Of a root: there is no value */
};

/* A container that begins as text: that of its own record, or of a container around it. */
#define TWIG_HAS_TEXT 1u
/* It was met while its parent is written; only then. */
#define TWIG_MET 2u
/* A root's: some twig stands on its newest change. */
#define TWIG_NEWEST_HELD 4u
/* An object's: `length` is the highest whole number among its names. */
#define TWIG_KNOWS_IDS 8u

#define TWIG_NAME_BYTES 10

struct twig {
    uint32_t parent; /* 0: a root */
    uint8_t kind;    /* enum twig_kind */
    uint8_t flags;
    /*
     * Always 0. The entry of a tree holds the address of its root, and who kept a pointer to an
     * entry may take that for a record's (see updates.c): here it finds a key of no bytes.
     */
    uint16_t zero;
    union {
        struct {
            uint32_t hash;     /* of its name; of an element the index */
            uint32_t chain;    /* another child where the trie goes no deeper */
            uint32_t next;     /* in order of insertion; 0: the last */
            uint32_t previous; /* of the first: the last */
        };
        struct {
            uint64_t newest; /* a root's: address of the newest change of the partition */
            uint64_t offset; /* and its offset */
        };
    };
    uint32_t first;   /* child */
    uint32_t trie;    /* of the children, by hash: see twig.c */
    uint64_t record;  /* that it stands on, as an address; 0: none, it is there for its children */
    uint32_t text_at; /* where its text begins in the value of the record that has it */
    uint32_t text_count; /* elements that an array's text has */
    uint32_t length;     /* an array's elements */
    uint16_t name_bytes;
    uint8_t name[TWIG_NAME_BYTES]; /* or the number of the first piece of a longer one */
};
_Static_assert(sizeof(struct twig) == CELL_BYTES, "a twig is one cell");
_Static_assert(offsetof(struct twig, zero) == 6, "where a change has the length of its key");

/* A name to look for. */
struct twig_name {
    const uint8_t *bytes;
    uint32_t count;
    uint32_t hash;
};

static inline struct twig *twig_of(const struct cells *cells, uint32_t number)
{
    return cell_at(cells, number);
}

/* Cells that a name of so many bytes takes beside the one it is the name of. */
uint32_t twig_name_pieces(size_t bytes);
/* `cells` must have them, as for twig_add. */
void twig_name_set(struct cells *cells, struct twig *twig, const uint8_t *name, size_t bytes);
bool twig_name_is(const struct cells *cells, const struct twig *twig, const uint8_t *name,
                  size_t bytes);
/* Copies the name; returns its bytes. */
size_t twig_name_copy(const struct cells *cells, const struct twig *twig, uint8_t *to);

/* The child of that name; of an array that of that index, which is the hash. 0: there is none. */
uint32_t twig_child(const struct cells *cells, const struct twig *parent,
                    const struct twig_name *name);
/* Adds a child that is not there, as the last one. Takes 1 + twig_name_pieces cells at least. */
uint32_t twig_add(struct cells *cells, uint32_t parent, const struct twig_name *name);
/* Takes a child without children out of its parent, and frees it. */
void twig_take_out(struct cells *cells, uint32_t number);

/* The next twig below `top`, parents before their children; 0: that was all. */
uint32_t twig_next(const struct cells *cells, uint32_t top, uint32_t number);
/* Frees the twigs below `top`; `leave` hears of each before. */
void twig_free_below(struct cells *cells, uint32_t top,
                     void (*leave)(void *context, const struct twig *twig), void *context);
/* Frees a root without children. */
void twig_free_root(struct cells *cells, uint32_t number);
