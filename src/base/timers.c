#include "base/timers.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"

#define CAPACITY_FIRST 64

void timers_deinit(struct timers *timers)
{
    memory_put(timers->heap);
    memory_put(timers->slots);
    *timers = (struct timers){0};
}

static bool is_before(const struct timer_due *a, const struct timer_due *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->serial < b->serial;
}

static void put(struct timers *timers, uint32_t place, struct timer_due due)
{
    timers->heap[place] = due;
    timers->slots[due.slot].place = place;
}

/* Moves `due` from the hole at `place` to where it belongs above it. */
static void sift_up(struct timers *timers, uint32_t place, struct timer_due due)
{
    while (place > 0 && is_before(&due, &timers->heap[(place - 1) / 2])) {
        put(timers, place, timers->heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    put(timers, place, due);
}

static void sift_down(struct timers *timers, uint32_t place, struct timer_due due)
{
    for (;;) {
        uint32_t child = 2 * place + 1;
        if (child >= timers->count) break;
        if (child + 1 < timers->count && is_before(&timers->heap[child + 1], &timers->heap[child]))
            child++;
        if (!is_before(&timers->heap[child], &due)) break;
        put(timers, place, timers->heap[child]);
        place = child;
    }
    put(timers, place, due);
}

static bool grow(struct timers *timers)
{
    uint32_t capacity = timers->capacity > 0 ? timers->capacity * 2 : CAPACITY_FIRST;
    if (capacity > TIMERS_MAX) return false;
    struct timer_due *heap =
        memory_resize(timers->heap, timers->capacity * sizeof *heap, capacity * sizeof *heap);
    if (heap == NULL) return false;
    timers->heap = heap;
    struct timer *slots =
        memory_resize(timers->slots, timers->capacity * sizeof *slots, capacity * sizeof *slots);
    if (slots == NULL) return false;
    timers->slots = slots;
    timers->capacity = capacity;
    return true;
}

static uint32_t slot_take(struct timers *timers)
{
    if (timers->free == 0) return timers->slots_fresh++;
    uint32_t slot = timers->free - 1;
    timers->free = timers->slots[slot].place;
    return slot;
}

static void slot_put(struct timers *timers, uint32_t slot)
{
    struct timer *timer = &timers->slots[slot];
    timer->call = (struct timer_call){0};
    timer->generation = (timer->generation + 1) & INT32_MAX; /* numbers fit into an int64_t */
    timer->place = timers->free;
    timers->free = slot + 1;
}

uint64_t timers_add(struct timers *timers, uint64_t due_ns, const struct timer_call *call)
{
    ASSERT(call->function != NULL);
    if (timers->count == timers->capacity && !grow(timers)) return 0;
    uint32_t slot = slot_take(timers);
    struct timer *timer = &timers->slots[slot];
    timer->call = *call;
    struct timer_due due = {due_ns, timers->serial++, slot};
    sift_up(timers, timers->count++, due);
    return (uint64_t)timer->generation << 32 | (slot + 1);
}

/* Takes the timer at `place` out of the heap, and frees its slot. */
static void take_out(struct timers *timers, uint32_t place)
{
    uint32_t slot = timers->heap[place].slot;
    struct timer_due last = timers->heap[--timers->count];
    if (place < timers->count) {
        if (place > 0 && is_before(&last, &timers->heap[(place - 1) / 2]))
            sift_up(timers, place, last);
        else
            sift_down(timers, place, last);
    }
    slot_put(timers, slot);
}

bool timers_cancel(struct timers *timers, uint64_t number)
{
    uint32_t slot = (uint32_t)number - 1;
    if (number == 0 || slot >= timers->slots_fresh) return false;
    const struct timer *timer = &timers->slots[slot];
    if (timer->call.function == NULL || timer->generation != (uint32_t)(number >> 32)) return false;
    take_out(timers, timer->place);
    return true;
}

uint32_t timers_fire(struct timers *timers, uint64_t now_ns)
{
    uint64_t serial_end = timers->serial;
    uint32_t fired = 0;
    while (timers->count > 0 && timers->heap[0].due_ns <= now_ns) {
        /* A new one that is due stands above older ones only if it is due before them. */
        if (timers->heap[0].serial >= serial_end) break;
        struct timer_call call = timers->slots[timers->heap[0].slot].call;
        take_out(timers, 0);
        ASSERT(call.function != NULL);
        call.function(&call);
        fired++;
    }
    return fired;
}
