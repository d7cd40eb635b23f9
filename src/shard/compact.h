/*
 * Compaction of a store's log in small steps: see compact.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

struct store;
struct compaction;

/* NULL: no memory. */
MUST_CHECK struct compaction *compaction_open(uint64_t garbage_bytes_max);
/* Before the log goes. NULL is allowed. */
void compaction_close(struct compaction *compaction, struct store *store);
