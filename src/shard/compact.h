/*
 * Compaction of a store's log in small steps: see compact.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

struct store;
struct compaction;

/* NULL: no memory. */
MUST_CHECK struct compaction *compaction_open(uint64_t garbage_bytes_max);
/* Before the log goes. NULL is allowed. */
void compaction_close(struct compaction *compaction, struct store *store);

/* For cursors. Whether the segment is being rewritten: some of its changes are elsewhere already. */
bool compaction_reads(const struct store *store, uint32_t number);
/* Ends the batch that is open in the segment, if it is the one that is being written. */
void compaction_seal(struct store *store, uint32_t number);
/* Rewrites the rest of the segment that is being rewritten. -ENOMEM: not all of it, yet. */
MUST_CHECK int compaction_finish(struct store *store);
