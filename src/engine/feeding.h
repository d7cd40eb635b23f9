/*
 * The thread's side of feeds (shard/feed.h): batches of changes on their way into a pull queue. See
 * feeding.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "engine/pull.h"
#include "fero.h"
#include "shard/feed.h"

struct feeding;
struct host;

#define FEEDS_MAX 64

/* Of one thread, by their numbers. */
struct feedings {
    struct feeding *feeds[FEEDS_MAX];
    uint32_t generation; /* of the last one */
};

/* What a shard has sent. */
void feeding_arrive(struct host *host, uint32_t shard, const struct mail_feed_batch *batch);
/*
 * Writes up to `count` of its events, and returns how many. `is_empty`: there are no more in it, and
 * it waits for all of them to be given back.
 */
size_t feeding_take(struct pull_item *item, fero_event *events, size_t count, bool *is_empty);
/* One of its events is given back. */
void feeding_give(struct pull_item *item);
/* Whether something given back found no room in the lanes yet. */
bool feedings_owe(const struct host *host);
/* Gives back what found no room in the lanes before. */
void feedings_retry(struct host *host);
/* Ends the feeds into `queue`, or (NULL) all of the thread. Their events are no longer good. */
void feedings_close(struct host *host, const fero_queue *queue);
/* With the queue that they went into. */
void feedings_free(struct feeding *feeds);
