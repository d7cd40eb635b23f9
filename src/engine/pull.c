/*
 * A queue is places, as many as its capacity, for life. A request takes one before it is sent, its
 * answer is written there, the program takes it out, and gives the place back: so a queue never
 * grows, and one that is full refuses requests instead. An answer comes in through the request's
 * callback, which is the queue's own, so neither a client nor a thread of a server knows of it.
 *
 * All of it happens on one thread, the owner's. Nothing comes in while nobody runs the owner, so
 * taking from an empty queue does that, and the descriptor to poll is the owner's.
 */
#include "engine/pull.h"

#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/memory.h"
#include "engine/client.h"
#include "engine/error.h"
#include "engine/feeding.h"
#include "engine/host.h"
#include "engine/message.h"
#include "engine/runtime.h"
#include "engine/server.h"

#define CAPACITY_MAX ((size_t)1 << 24)

/* From a request to when the program gives its event back. */
struct place {
    struct pull_item item;
    fero_queue *queue;
    void *ud; /* the program's */
    fero_result result;
    bool is_here;   /* the answer has come */
    uint8_t *value; /* a copy of the result's; NULL: it has no bytes */
    struct place *next;
};

struct fero_queue {
    fero *rt;
    struct pull_owner owner;
    fero_queue *next; /* of the owner's */
    fero_queue **list;
    struct place *places; /* `capacity`, reserved */
    size_t capacity;
    size_t fresh;
    size_t in_use;
    size_t reserved; /* for feeds */
    struct feeding *feeds;
    struct place *free;
    struct pull_item *first; /* of what is ready, in the order in which it came; NULL: nothing */
    struct pull_item *last;
    bool was_full;  /* somebody was told so */
    bool is_closed; /* by the program, while requests are on their way */
};

/* ------------------------------------------------------------------------------- what is ready */

struct pull_owner pull_owner_of(const fero_queue *queue)
{
    return queue->owner;
}

size_t pull_room(const fero_queue *queue)
{
    return queue->capacity - queue->in_use - queue->reserved;
}

void pull_reserve(fero_queue *queue, int64_t events)
{
    queue->reserved += (size_t)events;
    ASSERT(queue->in_use + queue->reserved <= queue->capacity);
}

struct feeding **pull_feeds(fero_queue *queue)
{
    return &queue->feeds;
}

void pull_push(fero_queue *queue, struct pull_item *item)
{
    item->next = NULL;
    if (queue->first == NULL)
        queue->first = item;
    else
        queue->last->next = item;
    queue->last = item;
}

void pull_drop(fero_queue *queue, const void *begin, const void *end)
{
    struct pull_item **link = &queue->first;
    queue->last = NULL;
    while (*link != NULL) {
        bool goes = (const void *)*link >= begin && (const void *)*link < end;
        if (goes) {
            *link = (*link)->next;
            continue;
        }
        queue->last = *link;
        link = &(*link)->next;
    }
}

/* ------------------------------------------------------------------------------------- places */

static struct place *place_take(fero_queue *queue)
{
    struct place *place = queue->free;
    if (pull_room(queue) == 0) return NULL;
    if (place != NULL)
        queue->free = place->next;
    else if (queue->fresh < queue->capacity)
        place = &queue->places[queue->fresh++];
    if (place == NULL) return NULL;
    queue->in_use++;
    *place = (struct place){.queue = queue};
    return place;
}

static void place_put(struct place *place)
{
    fero_queue *queue = place->queue;
    ASSERT(queue != NULL && queue->in_use > 0);
    memory_put(place->value);
    *place = (struct place){.next = queue->free};
    queue->free = place;
    queue->in_use--;
}

static void queue_free(fero_queue *queue)
{
    for (size_t i = 0; i < queue->fresh; i++) memory_put(queue->places[i].value);
    feedings_free(queue->feeds);
    memory_release(queue->places, queue->capacity * sizeof *queue->places);
    memory_put(queue);
}

static void copy_value(struct place *place)
{
    fero_slice *value = &place->result.value.s;
    if (value->len == 0) return;
    place->value = memory_take(value->len);
    if (place->value == NULL) {
        place->result.value = (fero_val){0};
        place->result.error = FERO_E_NOMEM;
        return;
    }
    memcpy(place->value, value->ptr, value->len);
    value->ptr = place->value;
}

/* Closed, and nothing is on its way any more. */
static void end(fero_queue *queue)
{
    fero_queue **link = queue->list;
    while (link != NULL && *link != queue) link = &(*link)->next;
    if (link != NULL) *link = queue->next;
    queue_free(queue);
}

/* A fero_done_fn: the request has ended. */
static void arrive(const fero_result *result, void *ud)
{
    struct place *place = ud;
    fero_queue *queue = place->queue;
    if (queue->is_closed) {
        place_put(place);
        if (queue->in_use == 0) end(queue);
        return;
    }
    place->result = *result;
    place->is_here = true;
    copy_value(place);
    pull_push(queue, &place->item);
}

/* ----------------------------------------------------------------------------------- requests */

int pull_begin(struct pull_owner owner, struct wish *wish)
{
    fero_queue *queue = wish->queue;
    if (queue->owner.client != owner.client || queue->owner.host != owner.host)
        return error_set(FERO_E_INVAL, "the queue belongs to another runtime or thread");
    if (wish->want != FERO_REPLY || wish->done != NULL)
        return error_set(FERO_E_INVAL,
                         "a request with a queue wants FERO_REPLY, and has no callback");
    struct place *place = place_take(queue);
    if (place == NULL) {
        queue->was_full = true;
        return error_set_text(FERO_E_AGAIN, "the queue is full: take from it, and give back");
    }
    place->ud = wish->ud;
    wish->ud = place;
    wish->done = arrive;
    return 0;
}

void pull_cancel(const struct wish *wish)
{
    place_put(wish->ud);
}

bool pulls_are_ready(const fero_queue *queues)
{
    while (queues != NULL && queues->first == NULL) queues = queues->next;
    return queues != NULL;
}

void pulls_leave(fero_queue **queues, bool frees)
{
    fero_queue *next;
    for (fero_queue *queue = *queues; queue != NULL; queue = next) {
        next = queue->next;
        queue->owner = (struct pull_owner){0};
        queue->list = NULL;
        queue->rt = NULL;
        if (frees || queue->is_closed) queue_free(queue);
    }
    *queues = NULL;
}

/* ------------------------------------------------------------------------------- the program's */

static bool is_client(const fero *rt)
{
    return ((const struct runtime_head *)(const void *)rt)->kind == RUNTIME_CLIENT;
}

int fero_queue_open(fero *rt, size_t capacity, fero_queue **out)
{
    struct pull_owner owner = {0};
    if (rt == NULL || out == NULL)
        return error_set(FERO_E_INVAL, "fero_queue_open needs a runtime and a place");
    if (capacity == 0 || capacity > CAPACITY_MAX)
        return error_set(FERO_E_INVAL, "a queue's capacity is %zu, but must be from 1 to %zu",
                         capacity, CAPACITY_MAX);
    int err = is_client(rt) ? 0 : host_here(server_hosts((struct server *)rt), &owner.host);
    if (err < 0) return err;
    if (is_client(rt)) owner.client = (struct client *)rt;
    fero_queue *queue = memory_take(sizeof *queue);
    if (queue != NULL) queue->places = memory_reserve(capacity * sizeof *queue->places, 0);
    if (queue == NULL || queue->places == NULL) {
        memory_put(queue);
        return error_set(FERO_E_NOMEM, "no memory for a queue of %zu", capacity);
    }
    queue->rt = rt;
    queue->owner = owner;
    queue->capacity = capacity;
    queue->list = owner.client != NULL ? &owner.client->queues : &owner.host->queues;
    queue->next = *queue->list;
    *queue->list = queue;
    *out = queue;
    return 0;
}

static int has_left(void)
{
    return error_set(FERO_E_CLOSED, "the queue's runtime has stopped, or its thread unregistered");
}

int fero_queue_fd(fero_queue *queue)
{
    if (queue == NULL) return error_set(FERO_E_INVAL, "no queue");
    return queue->rt != NULL ? fero_fd(queue->rt) : has_left();
}

/* Makes the descriptor readable again: there is more to take, or room. */
static void ring(fero_queue *queue)
{
    if (queue->owner.client != NULL) client_ring(queue->owner.client);
    if (queue->owner.host != NULL) host_ring(queue->owner.host);
}

/* Runs the owner until something is ready or the time is over. */
static int fill(fero_queue *queue, int64_t timeout_ms)
{
    uint64_t now_ns = clock_now_ns();
    uint64_t until_ns = TIME_NEVER;
    if (timeout_ms >= 0 && timeout_ms < (int64_t)(UINT64_MAX / 4 / NS_PER_MS))
        until_ns = now_ns + (uint64_t)timeout_ms * NS_PER_MS;
    for (;;) {
        int64_t left_ms = until_ns == TIME_NEVER
                              ? -1
                              : (int64_t)((until_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
        int err = fero_run(queue->rt, left_ms);
        if (err < 0 && queue->first == NULL) return err;
        if (err < 0 || queue->first != NULL) return 0;
        now_ns = clock_now_ns();
        if (now_ns >= until_ns) return 0;
    }
}

static void write_result(fero_event *event, struct place *place)
{
    event->kind = FERO_EVENT_RESULT;
    event->ud = place->ud;
    event->result = place->result;
    event->owner = &place->item;
}

/* Of batches that were given back. */
static void tell_shards(fero_queue *queue)
{
    struct host *host = queue->owner.host;
    if (host->port.dirty == 0 && !feedings_owe(host)) return;
    if (host_enter(host) < 0) return;
    feedings_retry(host);
    host_publish(host);
    host_exit(host);
}

int64_t fero_queue_take(fero_queue *queue, fero_event *events, size_t count, int64_t timeout_ms)
{
    if (queue == NULL || (events == NULL && count > 0))
        return error_set(FERO_E_INVAL, "fero_queue_take needs a queue and a place for events");
    if (queue->first == NULL && queue->rt == NULL) return has_left();
    if (queue->owner.host != NULL) tell_shards(queue);
    if (queue->first == NULL && count > 0) {
        int err = fill(queue, timeout_ms);
        if (err < 0) return err;
    }
    size_t taken = 0;
    while (taken < count && queue->first != NULL) {
        struct pull_item *item = queue->first;
        bool is_empty = true;
        if (item->is_batch)
            taken += feeding_take(item, events + taken, count - taken, &is_empty);
        else
            write_result(&events[taken++], (struct place *)item);
        if (is_empty) queue->first = item->next;
    }
    if (queue->first != NULL) ring(queue);
    return (int64_t)taken;
}

void fero_queue_give(fero_queue *queue, const fero_event *events, size_t count)
{
    if (queue == NULL) return;
    for (size_t i = 0; i < count; i++) {
        struct pull_item *item = events[i].owner;
        ASSERT(item != NULL);
        if (item->is_batch)
            feeding_give(item);
        else
            place_put((struct place *)item);
    }
    if (queue->owner.host != NULL) tell_shards(queue);
    if (!queue->was_full || count == 0) return;
    queue->was_full = false;
    if (queue->owner.client != NULL) client_has_room(queue->owner.client);
    if (queue->owner.host != NULL) host_has_room(queue->owner.host);
    ring(queue);
}

void fero_queue_close(fero_queue *queue)
{
    if (queue == NULL) return;
    ASSERT(!queue->is_closed);
    if (queue->owner.host != NULL) feedings_close(queue->owner.host, queue);
    /* What was not taken or given back goes, too. Requests on their way still need their places. */
    for (size_t i = 0; i < queue->fresh; i++)
        if (queue->places[i].is_here) place_put(&queue->places[i]);
    queue->first = NULL;
    queue->is_closed = true;
    if (queue->in_use == 0) end(queue);
}
