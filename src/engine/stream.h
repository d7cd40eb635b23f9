/*
 * Streams of changes, as include/fero.h describes them, on the client's side: see stream.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

#include "fero.h"

struct change;
struct client;
struct client_cache;
struct client_link;
struct refusal;

/* Whether all keys that match are of one partition. */
bool stream_has_partition(const fero_stream_opts *opts);

/* What does not depend on who is asked. */
MUST_CHECK int stream_check_opts(const fero_stream_opts *opts);
/*
 * Reads a record where it lies, aligned or not: what came in pieces may begin at any byte. False: it is
 * of no type that changes a key.
 */
MUST_CHECK bool stream_read_change(fero_change *to, const void *record);
/* As fero_subscribe. */
MUST_CHECK int client_subscribe(struct client_cache *cache, const fero_stream_opts *opts,
                                fero_stream **out);
/* The link is up: asks it for what its streams still miss. -ENOMEM. */
MUST_CHECK int streams_link_up(struct client_link *link);
/* It is not any more. */
void streams_link_lost(struct client_link *link);
/* All streams of `cache` (NULL: of any) end; they are still to be freed. */
void streams_end(struct client *client, const struct client_cache *cache);
/*
 * One frame of a stream, whole.
 *
 *   -EPROTO   `*wrong` says what, with both values.
 *   -EREMOTE  the link speaks for another shard than its own, which cannot be subscribed to there.
 *   -ENOMEM
 */
MUST_CHECK int streams_frame(struct client_link *link, const uint8_t *frame, size_t length,
                             struct refusal *wrong);
