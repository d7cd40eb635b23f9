/*
 * Children are in a list, in order, and in a trie by the bits of their hash, 4 at each level, lowest
 * first. A slot of the trie holds 0, a child (its `chain` leads to others that share the slot), or a
 * fork with 16 slots more, which takes a cell. An element's hash is its index, so an array's trie is
 * even.
 *
 * A slot with two children becomes a fork with both, one level down, if a cell is free that was not
 * promised: otherwise they share the slot, which is as right and a little slower. So what a change
 * needs at most is known before it is made.
 *
 * Rejected: a table of all children of a store (it must grow, and its pauses with it); sorted
 * children (an insertion in the middle).
 */
#include "shard/twig.h"

#include <string.h>

#include "base/assert.h"

#define TRIE_SLOTS 16
#define TRIE_BITS 4
#define TRIE_LEVELS 8
#define INNER CELL_NUMBER_MAX

struct trie_fork {
    uint32_t slots[TRIE_SLOTS];
};
_Static_assert(sizeof(struct trie_fork) == CELL_BYTES, "a fork is one cell");

/* ------------------------------------------------------------------------------------ names */

#define PIECE_BYTES (CELL_BYTES - sizeof(uint32_t))
struct piece {
    uint32_t next;
    uint8_t bytes[PIECE_BYTES];
};

uint32_t twig_name_pieces(size_t bytes)
{
    return bytes <= TWIG_NAME_BYTES ? 0 : (uint32_t)((bytes + PIECE_BYTES - 1) / PIECE_BYTES);
}

static uint32_t first_piece(const struct twig *twig)
{
    uint32_t number;
    memcpy(&number, twig->name, sizeof number);
    return number;
}

void twig_name_set(struct cells *cells, struct twig *twig, const uint8_t *name, size_t bytes)
{
    twig->name_bytes = (uint16_t)bytes;
    if (bytes <= TWIG_NAME_BYTES) {
        memcpy(twig->name, name, bytes);
        return;
    }
    uint32_t next = 0;
    for (size_t end = bytes; end > 0;) {
        size_t begin = (end - 1) / PIECE_BYTES * PIECE_BYTES;
        uint32_t number = cells_take(cells);
        struct piece *piece = cell_at(cells, number);
        piece->next = next;
        memcpy(piece->bytes, name + begin, end - begin);
        next = number;
        end = begin;
    }
    memcpy(twig->name, &next, sizeof next);
}

static void name_free(struct cells *cells, struct twig *twig)
{
    if (twig->name_bytes <= TWIG_NAME_BYTES) return;
    for (uint32_t number = first_piece(twig); number != 0;) {
        uint32_t next = ((const struct piece *)cell_at(cells, number))->next;
        cells_put(cells, number);
        number = next;
    }
}

bool twig_name_is(const struct cells *cells, const struct twig *twig, const uint8_t *name,
                  size_t bytes)
{
    if (twig->name_bytes != bytes) return false;
    if (bytes <= TWIG_NAME_BYTES) return memcmp(twig->name, name, bytes) == 0;
    for (uint32_t number = first_piece(twig); number != 0;) {
        const struct piece *piece = cell_at(cells, number);
        size_t some = min_u64(bytes, PIECE_BYTES);
        if (memcmp(piece->bytes, name, some) != 0) return false;
        name += some;
        bytes -= some;
        number = piece->next;
    }
    return true;
}

size_t twig_name_copy(const struct cells *cells, const struct twig *twig, uint8_t *to)
{
    size_t left = twig->name_bytes;
    if (left <= TWIG_NAME_BYTES) {
        memcpy(to, twig->name, left);
        return left;
    }
    for (uint32_t number = first_piece(twig); number != 0;) {
        const struct piece *piece = cell_at(cells, number);
        size_t some = min_u64(left, PIECE_BYTES);
        memcpy(to, piece->bytes, some);
        to += some;
        left -= some;
        number = piece->next;
    }
    return twig->name_bytes;
}

/* ------------------------------------------------------------------------------------- trie */

static struct trie_fork *fork_at(const struct cells *cells, uint32_t slot)
{
    return cell_at(cells, slot & ~INNER);
}

static unsigned nibble(uint32_t hash, unsigned level)
{
    return hash >> level * TRIE_BITS & (TRIE_SLOTS - 1);
}

uint32_t twig_child(const struct cells *cells, const struct twig *parent,
                    const struct twig_name *name)
{
    uint32_t slot = parent->trie;
    for (unsigned level = 0; (slot & INNER) != 0; level++)
        slot = fork_at(cells, slot)->slots[nibble(name->hash, level)];
    while (slot != 0) {
        const struct twig *child = twig_of(cells, slot);
        if (child->hash == name->hash &&
            (parent->kind == TWIG_ARRAY || twig_name_is(cells, child, name->bytes, name->count)))
            return slot;
        slot = child->chain;
    }
    return 0;
}

/* Makes the slot's children those of a fork one level down. */
static void slot_split(struct cells *cells, uint32_t *slot, unsigned level)
{
    uint32_t number = cells_take_spare(cells);
    struct trie_fork *fork = cell_at(cells, number);
    for (uint32_t child = *slot; child != 0;) {
        struct twig *twig = twig_of(cells, child);
        uint32_t next = twig->chain;
        uint32_t *to = &fork->slots[nibble(twig->hash, level)];
        twig->chain = *to;
        *to = child;
        child = next;
    }
    *slot = number | INNER;
}

static void trie_add(struct cells *cells, uint32_t *slot, uint32_t child)
{
    struct twig *twig = twig_of(cells, child);
    unsigned level = 0;
    for (;;) {
        while ((*slot & INNER) != 0)
            slot = &fork_at(cells, *slot)->slots[nibble(twig->hash, level++)];
        bool may_split = *slot != 0 && level < TRIE_LEVELS && cells_have_spare(cells) &&
                         twig_of(cells, *slot)->hash != twig->hash;
        if (!may_split) break;
        slot_split(cells, slot, level);
    }
    twig->chain = *slot;
    *slot = child;
}

/* What a fork comes down to: 0 and a slot that has only children go up; INNER: it stays. */
static uint32_t fork_rest(const struct trie_fork *fork)
{
    uint32_t rest = 0;
    for (unsigned i = 0; i < TRIE_SLOTS; i++) {
        if (fork->slots[i] == 0) continue;
        if (rest != 0 || (fork->slots[i] & INNER) != 0) return INNER;
        rest = fork->slots[i];
    }
    return rest;
}

static void trie_remove(struct cells *cells, uint32_t *root, uint32_t child)
{
    uint32_t *slots[TRIE_LEVELS + 1] = {root};
    uint32_t hash = twig_of(cells, child)->hash;
    unsigned level = 0;
    for (; (*slots[level] & INNER) != 0; level++)
        slots[level + 1] = &fork_at(cells, *slots[level])->slots[nibble(hash, level)];
    uint32_t *link = slots[level];
    while (*link != child) link = &twig_of(cells, *link)->chain;
    *link = twig_of(cells, child)->chain;
    while (level-- > 0) {
        uint32_t rest = fork_rest(fork_at(cells, *slots[level]));
        if (rest == INNER) return;
        cells_put(cells, *slots[level] & ~INNER);
        *slots[level] = rest;
    }
}

static void trie_free(struct cells *cells, uint32_t slot)
{
    struct {
        uint32_t cell;
        unsigned next;
    } stack[TRIE_LEVELS + 1];
    unsigned depth = 0;
    if ((slot & INNER) == 0) return;
    stack[depth++] = (typeof(stack[0])){slot, 0};
    while (depth > 0) {
        unsigned at = stack[depth - 1].next++;
        if (at == TRIE_SLOTS) {
            cells_put(cells, stack[--depth].cell & ~INNER);
            continue;
        }
        uint32_t below = fork_at(cells, stack[depth - 1].cell)->slots[at];
        if ((below & INNER) != 0) stack[depth++] = (typeof(stack[0])){below, 0};
    }
}

/* ------------------------------------------------------------------------------------- list */

static void list_append(const struct cells *cells, struct twig *parent, uint32_t number)
{
    struct twig *twig = twig_of(cells, number);
    if (parent->first == 0) {
        parent->first = number;
        twig->previous = number;
        return;
    }
    struct twig *first = twig_of(cells, parent->first);
    twig->previous = first->previous;
    twig_of(cells, first->previous)->next = number;
    first->previous = number;
}

static void list_remove(const struct cells *cells, struct twig *parent, uint32_t number)
{
    const struct twig *twig = twig_of(cells, number);
    if (twig->next != 0)
        twig_of(cells, twig->next)->previous = twig->previous;
    else if (parent->first != number)
        twig_of(cells, parent->first)->previous = twig->previous;
    if (parent->first == number)
        parent->first = twig->next;
    else
        twig_of(cells, twig->previous)->next = twig->next;
}

uint32_t twig_add(struct cells *cells, uint32_t parent, const struct twig_name *name)
{
    uint32_t number = cells_take(cells);
    struct twig *twig = twig_of(cells, number);
    struct twig *above = twig_of(cells, parent);
    twig->parent = parent;
    twig->kind = TWIG_REMOVED;
    twig->hash = name->hash;
    if (above->kind != TWIG_ARRAY) twig_name_set(cells, twig, name->bytes, name->count);
    list_append(cells, above, number);
    trie_add(cells, &above->trie, number);
    return number;
}

void twig_take_out(struct cells *cells, uint32_t number)
{
    struct twig *twig = twig_of(cells, number);
    struct twig *above = twig_of(cells, twig->parent);
    ASSERT(twig->first == 0 && twig->trie == 0);
    list_remove(cells, above, number);
    trie_remove(cells, &above->trie, number);
    name_free(cells, twig);
    cells_put(cells, number);
}

uint32_t twig_next(const struct cells *cells, uint32_t top, uint32_t number)
{
    const struct twig *twig = twig_of(cells, number);
    if (twig->first != 0) return twig->first;
    while (number != top && twig->next == 0) {
        number = twig->parent;
        twig = twig_of(cells, number);
    }
    return number == top ? 0 : twig->next;
}

void twig_free_below(struct cells *cells, uint32_t top,
                     void (*leave)(void *context, const struct twig *twig), void *context)
{
    uint32_t number = top;
    for (;;) {
        struct twig *twig = twig_of(cells, number);
        if (twig->first != 0) {
            number = twig->first;
            continue;
        }
        trie_free(cells, twig->trie);
        twig->trie = 0;
        if (number == top) return;
        leave(context, twig);
        uint32_t parent = twig->parent;
        /* The list goes from its front; nobody looks at the last one any more. */
        twig_of(cells, parent)->first = twig->next;
        name_free(cells, twig);
        cells_put(cells, number);
        number = parent;
    }
}

void twig_free_root(struct cells *cells, uint32_t number)
{
    struct twig *twig = twig_of(cells, number);
    ASSERT(twig->parent == 0 && twig->first == 0 && twig->trie == 0);
    name_free(cells, twig);
    cells_put(cells, number);
}
