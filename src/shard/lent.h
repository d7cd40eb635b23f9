/*
 * Memory that handlers borrow until the call of them returns: blocks on the heap that their shard keeps
 * until the end of its turn.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct shard;

/* NULL: no memory. */
uint8_t *lent_take(struct shard *shard, size_t bytes);
void lent_put_all(struct shard *shard);
