/*
 * Pull queues: what became of requests, taken in batches by a program that wants no callbacks. See
 * pull.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "fero.h"

struct client;
struct host;
struct wish;

/* Whose queue it is: exactly one of the two. Both NULL: the owner has left. */
struct pull_owner {
    struct client *client;
    struct host *host;
};

/* What is ready to be taken. */
struct pull_item {
    struct pull_item *next;
    bool is_batch; /* of a feed (feeding.c); else the answer of a request */
};

struct pull_owner pull_owner_of(const fero_queue *queue);
/* Events that may still come, beside those that feeds have reserved. */
size_t pull_room(const fero_queue *queue);
void pull_reserve(fero_queue *queue, int64_t events);
/* All that were ever begun. */
struct feeding **pull_feeds(fero_queue *queue);
/* Something is ready. */
void pull_push(fero_queue *queue, struct pull_item *item);
/* Whatever of the memory from `begin` to `end` is ready is not any more. */
void pull_drop(fero_queue *queue, const void *begin, const void *end);

/* Takes a place in the wish's queue for the answer. FERO_E_AGAIN: the queue is full. */
MUST_CHECK int pull_begin(struct pull_owner owner, struct wish *wish);
/* The request was refused. */
void pull_cancel(const struct wish *wish);

/* Whether one of the owner's queues has something to take. */
bool pulls_are_ready(const fero_queue *queues);
/* The owner leaves. Its queues can still be taken from, and closed; `frees`: nobody will. */
void pulls_leave(fero_queue **queues, bool frees);
