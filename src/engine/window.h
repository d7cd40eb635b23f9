/*
 * The requests of a client's session that have no answer yet: a ring indexed by sequence number.
 *
 * Sequence numbers are 64 bits wide and grow by 1 a request, over all links and caches. The window
 * reaches from `floor`, the lowest number without an answer, to `next`, the number of the next
 * request; it never spans more than `requests_max`, which is as far as a node remembers a session.
 * The wire carries the low 32 bits, and since a window is far narrower than that, they name a
 * request without doubt.
 *
 * A pure machine: no time but the ticks it is given, no I/O, no memory after window_init. The ring
 * is made of the fields that a reply needs, 32 bytes a request, and nothing else.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/attr.h"
#include "base/bytes.h"
#include "fero.h"

/* No more than a node remembers of a session (shard/session.h). */
#define WINDOW_REQUESTS_MAX 16384
#define WINDOW_LINKS_MAX 1024
/* The longest deadline, in ticks: two weeks. Half the range of a tick is what can be compared. */
#define WINDOW_TICKS_MAX (1u << 30)

/* What ends a request. */
enum flight_state { FLIGHT_FREE, FLIGHT_REPLY, FLIGHT_ACK };

/* The verb is named by a number, which holds only as long as the node keeps its list. */
#define FLIGHT_NUMBERED 1u
/* The node started again with a lower limit, and would not take the frame any more. */
#define FLIGHT_TOO_LONG 2u
/* Its parts are wanted, and some have come. */
#define FLIGHT_STREAM 4u
#define FLIGHT_BEGUN 8u
/* It ended without an answer, at its deadline, and a lost connection may still carry it. */
#define FLIGHT_GIVEN_UP 16u
/* A connection that is lost has carried it. */
#define FLIGHT_CARRIED 32u
/* A handler may keep it: when its time is over, the node is told to stop it. */
#define FLIGHT_KEPT 64u

/* One request on its way. */
struct flight {
    union {
        fero_done_fn done; /* FLIGHT_REPLY: NULL, or whom to tell */
        uint64_t next;     /* FLIGHT_ACK: the link's next one, 0: none */
    };
    void *ud;
    uint32_t op;       /* the operation that waits for it, 0: none */
    uint32_t deadline; /* tick */
    uint32_t tag;      /* flight_tag: state and link in one comparison */
    uint16_t cache;
    uint16_t flags; /* FLIGHT_NUMBERED and the others; they stay as long as the place is its */
};
_Static_assert(sizeof(struct flight) == 32, "two requests a cache line");

/* The requests of one link that end with its ACK, oldest first. */
struct flight_list {
    uint64_t first; /* 0: none */
    uint64_t last;
};

struct window {
    struct flight *flights;
    uint32_t mask;
    uint32_t requests_max;
    uint64_t floor;    /* no number below it waits; it may lag until window_advance */
    uint64_t next;     /* number of the next request */
    uint64_t limit;    /* `next` stops here: floor + requests_max, or less to be asked first */
    uint32_t deadline; /* no request's is before it */
    uint32_t count;    /* requests without an answer */
};

/* `seq_first` >= 1. -ENOMEM. */
MUST_CHECK int window_init(struct window *window, uint32_t requests_max, uint64_t seq_first);
void window_deinit(struct window *window);

/* A node allows fewer (or again more) requests; those on their way stay. */
void window_set_max(struct window *window, uint32_t requests_max);

/* Moves the floor over all that is answered, and the limit with it. */
void window_advance(struct window *window);
/* Makes it look full, so that the next request begins with window_begin. */
static inline void window_hold(struct window *window)
{
    window->limit = window->next;
}
/* Advances it, and forgets what deadlines there were where nothing waits. */
void window_begin(struct window *window, uint32_t tick);

static inline uint32_t flight_tag(enum flight_state state, uint32_t link)
{
    return (uint32_t)state << 16 | link;
}

static inline enum flight_state flight_state(const struct flight *flight)
{
    return (enum flight_state)(flight->tag >> 16);
}

static inline uint32_t flight_link(const struct flight *flight)
{
    return flight->tag & 0xffffu;
}

static inline struct flight *window_at(const struct window *window, uint64_t seq)
{
    return &window->flights[seq & window->mask];
}

/* Whether window_add needs window_advance first, and may not be called if that does not help. */
static inline bool window_is_full(const struct window *window)
{
    return window->next == window->limit;
}

/* Takes the next number. The caller fills `done` and `ud`, or appends it to its link's list. */
static inline struct flight *window_add(struct window *window, uint32_t tag, uint32_t cache,
                                        uint32_t op, uint32_t deadline)
{
    struct flight *flight = window_at(window, window->next);
    flight->op = op;
    flight->deadline = deadline;
    flight->tag = tag;
    flight->cache = (uint16_t)cache;
    flight->flags = 0;
    if (UNLIKELY((int32_t)(deadline - window->deadline) < 0)) window->deadline = deadline;
    window->count++;
    window->next++;
    return flight;
}

/* The request that waits on `link` for a reply and has this low half of a number; or NULL. */
static inline struct flight *window_find(const struct window *window, uint32_t low, uint32_t link,
                                         uint64_t *seq)
{
    uint32_t ahead = low - (uint32_t)window->floor;
    struct flight *flight = &window->flights[low & window->mask];
    if (UNLIKELY(ahead >= (uint32_t)(window->next - window->floor))) return NULL;
    if (UNLIKELY(flight->tag != flight_tag(FLIGHT_REPLY, link))) return NULL;
    *seq = window->floor + ahead;
    return flight;
}

/* The request is answered. Its place is used again only after window_advance. */
static inline void window_end(struct window *window, struct flight *flight)
{
    DEBUG_ASSERT(flight->tag != 0);
    flight->tag = 0;
    window->count--;
}

/* Appends the request just added to the list of those that end with their link's ACK. */
void window_list_push(struct window *window, struct flight_list *list, uint64_t seq);
/*
 * The oldest request of the list if the ACK of everything up to `low` covers it, else 0. The
 * caller ends it and asks again.
 */
uint64_t window_list_pop(const struct window *window, struct flight_list *list, uint32_t low);

/* Whether the deadline of a request may have come: a lower bound, until window_rebound. */
static inline bool window_may_expire(const struct window *window, uint32_t tick)
{
    return window->count > 0 && (int32_t)(tick - window->deadline) >= 0;
}

/* Makes the lower bound of the deadlines exact. O(n). */
void window_rebound(struct window *window, uint32_t tick);
static inline bool flight_is_expired(const struct flight *flight, uint32_t tick)
{
    return (int32_t)(tick - flight->deadline) >= 0;
}

/* The first number from `from` on that waits, or 0. */
uint64_t window_next_waiting(const struct window *window, uint64_t from);
/* Aborts where an invariant is broken; O(n). */
void window_check(const struct window *window);
