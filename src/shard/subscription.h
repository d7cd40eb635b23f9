/*
 * Subscriptions: streams of changes on the links of callers, served from the log at the end of a
 * turn. See subscription.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "shard/shard.h"

/*
 * One control frame of a subscriber, SUBSCRIBE or CREDIT, whole. Returns 0, or -EPROTO: the caller has
 * been refused.
 */
MUST_CHECK int subscription_control(struct caller *caller, const uint8_t *data, size_t length);
/* The caller takes no more changes, or is gone. */
void subscriptions_end(struct caller *caller);
/* What was written to the caller has gone out: there may be room for more. */
void subscriptions_have_room(struct caller *caller);
/* Writes changes to the outboxes. The logs are sealed, and the outboxes are flushed after this. */
void subscriptions_serve(struct shard *shard);
