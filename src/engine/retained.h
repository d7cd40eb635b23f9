/*
 * Requests as handlers hold them: inside the call that brings them, and after it, retained.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "fero.h"
#include "shard/request.h"

enum handling_kind { HANDLING_NOW = 1, HANDLING_RETAINED = 2 };

/* The public request comes first, so that functions which are given one find the rest. */
struct handling {
    fero_req req;
    uint32_t kind;                   /* enum handling_kind */
    struct request_context *context; /* HANDLING_NOW only: good while the handler runs */
    struct retained *retained;       /* the same request, once it is retained */
    bool was_refused;                /* fero_req_retain found no room */
    bool has_next;                   /* fero_next was called */
    uint8_t frame_type;
    struct captured next;
};

static inline void handling_value(fero_val *to, const struct request *request)
{
    const uint8_t *value = request->store.body + request->store.key_len;
    size_t bytes = request->store.body_bytes - request->store.key_len;
    *to = (fero_val){.type = request->store.flags, .s = {value, bytes}};
    switch ((enum value_type)request->store.flags) {
    case VALUE_DOUBLE: memcpy(&to->num, value, 8); break;
    case VALUE_INT64: memcpy(&to->i64, value, 8); break;
    case VALUE_BOOL: to->i64 = value[0]; break;
    case VALUE_UNDEFINED:
    case VALUE_STRING:
    case VALUE_JSON:
    case VALUE_NULL:
    case VALUE_BYTES:
    case VALUE_TYPES_COUNT: break;
    }
}

/* Fills in the request; what it points to is borrowed from the context's. */
static ALWAYS_INLINE void handling_init(struct handling *handling, struct request_context *context,
                                        fero_cache *cache, fero_slice verb)
{
    const struct request *request = context->request;
    handling->req.size = sizeof(fero_req);
    handling->req.cache = cache;
    handling->req.verb = verb;
    handling->req.key = (fero_slice){request->store.body, request->store.key_len};
    handling_value(&handling->req.value, request);
    handling->req.session = request->store.session;
    handling->req.seq = request->store.seq_whole;
    handling->req.shard = (fero_shard *)request->cache;
    handling->kind = HANDLING_NOW;
    handling->context = context;
    handling->retained = NULL;
    handling->was_refused = false;
    handling->has_next = false;
    handling->frame_type = request->frame_type;
}

COLD int32_t handling_end_slow(struct handling *handling, int32_t result);
/* The handler has returned `result`; returns what the shard is told. */
static ALWAYS_INLINE int32_t handling_end(struct handling *handling, int32_t result)
{
    bool is_plain = result == FERO_H_REPLIED && !handling->has_next;
    return LIKELY(is_plain) ? result : handling_end_slow(handling, result);
}
