#include "engine/window.h"

#include <errno.h>

#include "base/assert.h"
#include "base/memory.h"

_Static_assert((WINDOW_REQUESTS_MAX & (WINDOW_REQUESTS_MAX - 1)) == 0, "the window indexes a ring");

int window_init(struct window *window, uint32_t requests_max, uint64_t seq_first)
{
    uint32_t places = 1;
    ASSERT(requests_max > 0 && requests_max <= WINDOW_REQUESTS_MAX);
    ASSERT(seq_first > 0);
    while (places < requests_max) places *= 2;
    *window = (struct window){.mask = places - 1,
                              .requests_max = requests_max,
                              .floor = seq_first,
                              .next = seq_first,
                              .limit = seq_first + requests_max};
    window->flights = memory_take(places * sizeof *window->flights);
    return window->flights != NULL ? 0 : -ENOMEM;
}

void window_deinit(struct window *window)
{
    memory_put(window->flights);
    *window = (struct window){0};
}

void window_set_max(struct window *window, uint32_t requests_max)
{
    ASSERT(requests_max > 0);
    window->requests_max = (uint32_t)min_u64(requests_max, window->mask + 1);
    window_advance(window);
}

void window_advance(struct window *window)
{
    uint64_t floor = window->floor;
    while (floor != window->next && window_at(window, floor)->tag == 0) floor++;
    window->floor = floor;
    /* After the window was made narrower it may already be wider than that. */
    window->limit = max_u64(floor + window->requests_max, window->next);
}

void window_begin(struct window *window, uint32_t tick)
{
    window_advance(window);
    if (window->count == 0) window->deadline = tick + WINDOW_TICKS_MAX;
}

void window_list_push(struct window *window, struct flight_list *list, uint64_t seq)
{
    window_at(window, seq)->next = 0;
    if (list->first == 0)
        list->first = seq;
    else
        window_at(window, list->last)->next = seq;
    list->last = seq;
}

uint64_t window_list_pop(const struct window *window, struct flight_list *list, uint32_t low)
{
    uint64_t seq = list->first;
    if (seq == 0 || (int32_t)((uint32_t)seq - low) > 0) return 0;
    list->first = window_at(window, seq)->next;
    return seq;
}

void window_rebound(struct window *window, uint32_t tick)
{
    window->deadline = tick + WINDOW_TICKS_MAX;
    for (uint64_t seq = window->floor; seq != window->next; seq++) {
        const struct flight *flight = window_at(window, seq);
        if (flight->tag == 0) continue;
        if ((int32_t)(flight->deadline - window->deadline) < 0) window->deadline = flight->deadline;
    }
}

uint64_t window_next_waiting(const struct window *window, uint64_t from)
{
    for (uint64_t seq = from; seq != window->next; seq++)
        if (window_at(window, seq)->tag != 0) return seq;
    return 0;
}

void window_check(const struct window *window)
{
    uint32_t count = 0;
    ASSERT(window->next >= window->floor);
    ASSERT(window->next - window->floor <= (uint64_t)window->mask + 1);
    ASSERT(window->limit >= window->next);
    for (uint64_t seq = window->floor; seq != window->next; seq++) {
        const struct flight *flight = window_at(window, seq);
        if (flight->tag == 0) continue;
        ASSERT(flight_state(flight) <= FLIGHT_ACK);
        ASSERT((int32_t)(flight->deadline - window->deadline) >= 0);
        count++;
    }
    ASSERT(count == window->count);
}
