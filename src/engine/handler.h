/*
 * Handlers of the public API on the shards' side: a cache's definition as shards share it, and the
 * step from a shard's request to the caller's fero_req and back.
 */
#pragma once

#include "base/attr.h"
#include "fero.h"
#include "shard/cache.h"

/* Copies name and verbs. FERO_E_INVAL or FERO_E_NOMEM with fero_errmsg set. */
MUST_CHECK int definition_make(struct cache_definition *definition, const char *name,
                               uint32_t number, const fero_opts *opts, void *cache);
void definition_free(struct cache_definition *definition);
