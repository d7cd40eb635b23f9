/*
 * Requests that cross from one shard to another, and their replies: see crossing.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shard/run.h"

/* Frames and replies up to this size travel inside their mail, larger ones as a block. */
#define CROSSING_INLINE_BYTES_MAX 4096

/*
 * Copies a request into the lane of the shard that owns its slot, or answers it where there is no
 * memory for that. False: the lane or the caller's outbox has no room, nothing was done.
 */
MUST_CHECK bool crossing_try_send(struct caller *caller, struct request *request);

/* Whether one more caller that waited for the lane to `to` should try again this turn. */
bool crossing_may_resume(struct shard *shard, uint32_t to);

/* Room for the reply of a request that came over a lane; NULL: no memory for a large one. */
uint8_t *crossing_reply_room(struct request_context *context, size_t bytes);

/*
 * Whether the lane to `to` has room for a fresh connection and the `size` bytes that came with it,
 * at most CROSSING_INLINE_BYTES_MAX.
 */
bool crossing_may_adopt(struct shard *shard, uint32_t to, size_t size);
/* Hands it to that shard, which its HELLO named. Only after crossing_may_adopt, in the same turn. */
void crossing_adopt(struct shard *shard, uint32_t to, int fd, const uint8_t *data, size_t size);
