#include "tests/sim/ledger.h"

#include "tests/sim/world.h"

void *__real_memory_take(size_t bytes);
void *__real_memory_resize(void *memory, size_t old_bytes, size_t bytes);
void __real_memory_put(void *memory);
void *__real_memory_reserve(size_t bytes, int huge);
void __real_memory_release(void *memory, size_t bytes);

static struct ledger ledger;

struct ledger *ledger_begin(void)
{
    ledger = (struct ledger){0};
    return &ledger;
}

/* Whoever is not a shard has all it wants. */
static bool is_refused(void)
{
    struct world *world = world_current();
    if (ledger.refuse == 0 || world == NULL || world->running == NULL) return false;
    if (!world->running->is_short || !world_chance(world, ledger.refuse)) return false;
    ledger.refused++;
    return true;
}

void *__wrap_memory_take(size_t bytes)
{
    if (is_refused()) return NULL;
    void *memory = __real_memory_take(bytes);
    ledger.blocks += memory != NULL;
    return memory;
}

void *__wrap_memory_resize(void *memory, size_t old_bytes, size_t bytes)
{
    if (is_refused()) return NULL;
    void *larger = __real_memory_resize(memory, old_bytes, bytes);
    ledger.blocks += memory == NULL && larger != NULL;
    return larger;
}

void __wrap_memory_put(void *memory)
{
    ledger.blocks -= memory != NULL;
    __real_memory_put(memory);
}

void *__wrap_memory_reserve(size_t bytes, int huge)
{
    void *memory = __real_memory_reserve(bytes, huge);
    ledger.reservations += memory != NULL;
    return memory;
}

void __wrap_memory_release(void *memory, size_t bytes)
{
    ledger.reservations -= memory != NULL;
    __real_memory_release(memory, bytes);
}
