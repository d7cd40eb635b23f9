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

/* Takes a place in the wish's queue for the answer. FERO_E_AGAIN: the queue is full. */
MUST_CHECK int pull_begin(struct pull_owner owner, struct wish *wish);
/* The request was refused. */
void pull_cancel(const struct wish *wish);

/* Whether one of the owner's queues has something to take. */
bool pulls_are_ready(const fero_queue *queues);
/* The owner leaves. Its queues can still be taken from, and closed; `frees`: nobody will. */
void pulls_leave(fero_queue **queues, bool frees);
