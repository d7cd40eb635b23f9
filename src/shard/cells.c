#include "shard/cells.h"

#include <string.h>

#include "base/assert.h"

#define UNIT_CELLS_SHIFT (SEGMENT_UNIT_SHIFT - CELL_SHIFT)
#define CELLS_PER_UNIT ((uint32_t)1 << UNIT_CELLS_SHIFT)

/* The first cell of a unit. */
struct cell_unit {
    uint32_t next; /* other units with free cells, as cells->unit_first */
    uint32_t previous;
    uint32_t free_first; /* linked by their first words */
    uint32_t fresh;      /* from here on none was ever used; counted from the unit's first cell */
    uint32_t used;
};
_Static_assert(sizeof(struct cell_unit) <= CELL_BYTES, "it takes the place of one twig");

void cells_init(struct cells *cells, struct segments *segments)
{
    *cells = (struct cells){.segments = segments};
}

void cells_deinit(struct cells *cells)
{
    ASSERT(cells->used_count == 0);
    ASSERT(cells->unit_first == 0);
}

static struct cell_unit *unit_at(const struct cells *cells, uint32_t unit)
{
    return (void *)(cells->segments->base + ((size_t)(unit - 1) << SEGMENT_UNIT_SHIFT));
}

static uint32_t unit_cell(uint32_t unit)
{
    return (unit - 1) << UNIT_CELLS_SHIFT;
}

static void link_unit(struct cells *cells, uint32_t number)
{
    struct cell_unit *unit = unit_at(cells, number);
    unit->next = cells->unit_first;
    unit->previous = 0;
    if (unit->next != 0) unit_at(cells, unit->next)->previous = number;
    cells->unit_first = number;
}

static void unlink_unit(struct cells *cells, uint32_t number)
{
    const struct cell_unit *unit = unit_at(cells, number);
    if (unit->next != 0) unit_at(cells, unit->next)->previous = unit->previous;
    if (unit->previous != 0)
        unit_at(cells, unit->previous)->next = unit->next;
    else
        cells->unit_first = unit->next;
}

static bool take_unit(struct cells *cells, bool urgent)
{
    uint32_t reserve = urgent ? SEGMENT_COMPACTION_UNITS : cells->segments->units_reserve;
    uint32_t number = segments_take(cells->segments, CHANGE_BYTES + 8, reserve);
    if (number == SEGMENT_NONE) return false;
    if (number >= CELL_NUMBER_MAX >> UNIT_CELLS_SHIFT) {
        segments_put(cells->segments, number);
        return false;
    }
    *unit_at(cells, number + 1) = (struct cell_unit){.fresh = 1};
    link_unit(cells, number + 1);
    cells->free_count += CELLS_PER_UNIT - 1;
    return true;
}

static void put_unit(struct cells *cells, uint32_t name)
{
    unlink_unit(cells, name);
    cells->free_count -= CELLS_PER_UNIT - 1;
    segments_put(cells->segments, name - 1);
}

bool cells_reserve(struct cells *cells, uint64_t count, bool urgent)
{
    while (cells->free_count < count)
        if (!take_unit(cells, urgent)) return false;
    cells->promised_count = count;
    return true;
}

uint32_t cells_take_spare(struct cells *cells)
{
    ASSERT(cells->unit_first != 0);
    struct cell_unit *unit = unit_at(cells, cells->unit_first);
    uint32_t number = unit->free_first;
    if (number != 0)
        memcpy(&unit->free_first, cell_at(cells, number), sizeof unit->free_first);
    else
        number = unit_cell(cells->unit_first) + unit->fresh++;
    if (++unit->used == CELLS_PER_UNIT - 1) unlink_unit(cells, cells->unit_first);
    memset(cell_at(cells, number), 0, CELL_BYTES);
    cells->free_count--;
    cells->used_count++;
    return number;
}

uint32_t cells_take(struct cells *cells)
{
    ASSERT(cells->promised_count > 0);
    cells->promised_count--;
    return cells_take_spare(cells);
}

void cells_put(struct cells *cells, uint32_t number)
{
    uint32_t name = (number >> UNIT_CELLS_SHIFT) + 1;
    struct cell_unit *unit = unit_at(cells, name);
    ASSERT(number != unit_cell(name) && unit->used > 0);
    if (unit->used == CELLS_PER_UNIT - 1) link_unit(cells, name);
    memcpy(cell_at(cells, number), &unit->free_first, sizeof unit->free_first);
    unit->free_first = number;
    cells->free_count++;
    cells->used_count--;
    /* An empty unit stays while it is counted on. */
    if (--unit->used > 0 || cells->free_count < cells->promised_count + CELLS_PER_UNIT - 1) return;
    put_unit(cells, name);
}

void cells_unreserve(struct cells *cells)
{
    if (cells->promised_count == 0) return;
    cells->promised_count = 0;
    for (uint32_t name = cells->unit_first; name != 0;) {
        uint32_t next = unit_at(cells, name)->next;
        if (unit_at(cells, name)->used == 0) put_unit(cells, name);
        name = next;
    }
}
