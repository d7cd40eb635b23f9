/*
 * The shortest way through a shard: runs of plain updates. See updates.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

struct caller;

/*
 * Takes plain updates from the start of `data` and returns their bytes; 0 where the first frame is
 * none, or needs the general way (run.c) for any reason: it is always right to go there instead.
 */
typedef size_t (*updates_fn)(struct caller *caller, const uint8_t *data, size_t size);

/* The variant for this processor. */
updates_fn updates_choose(void);

size_t updates_take(struct caller *caller, const uint8_t *data, size_t size);
size_t updates_take_v3(struct caller *caller, const uint8_t *data, size_t size);
