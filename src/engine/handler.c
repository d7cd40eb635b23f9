#include "engine/handler.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "engine/error.h"
#include "shard/run.h"
#include "wire/hello.h"

/* What a verb's context points to: the caller's function and what to call it. */
struct handler {
    fero_handler_fn function;
    void *ud;
    fero_cache *cache;
    const char *name;
};

/* The public request comes first, so that fero_reply finds the rest. */
struct handling {
    fero_req req;
    struct request_context *context;
};

static void value_to_public(fero_val *to, const struct request *request)
{
    const uint8_t *value = request->store.body + request->store.key_len;
    size_t bytes = request->store.body_bytes - request->store.key_len;
    to->type = request->store.flags;
    to->s = (fero_slice){value, bytes};
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

/* The verb's name where the request came to the handler of everything. */
static fero_slice verb_name(const struct handler *handler, const struct request *request)
{
    if (handler->name != NULL) return fero_str(handler->name);
    if (request->frame_type == FRAME_UPDATE) return fero_str("UPDATE");
    if (request->frame_type == FRAME_REMOVE) return fero_str("REMOVE");
    return (fero_slice){request->verb.data, request->verb.size};
}

static int32_t call(struct request_context *context, const void *verb)
{
    const struct handler *handler = verb;
    const struct request *request = context->request;
    struct handling handling = {.req = {.size = sizeof(fero_req),
                                        .cache = handler->cache,
                                        .verb = verb_name(handler, request),
                                        .key = {request->store.body, request->store.key_len},
                                        .session = request->store.session,
                                        .seq = request->store.seq_whole},
                                .context = context};
    value_to_public(&handling.req.value, request);
    return handler->function(&handling.req, handler->ud);
}

int fero_reply(fero_req *req, int32_t status, const fero_val *value)
{
    struct handling *handling = (struct handling *)req;
    if (status > 0 || status < -(int32_t)REPLY_ERROR)
        return error_set(FERO_E_INVAL, "a reply's status is %d, but must be 0 or a FERO_E_...",
                         status);
    uint16_t code = status == 0 ? reply_code(OUTCOME_OK, ERROR_NONE)
                                : reply_code(OUTCOME_FAIL, (enum reply_error) - status);
    enum value_type type = VALUE_UNDEFINED;
    const void *data = NULL;
    size_t bytes = 0;
    uint8_t truth;
    if (value != NULL) {
        if (value->type < 0 || value->type >= VALUE_TYPES_COUNT)
            return error_set(FERO_E_TYPE, "value type %d does not exist", value->type);
        type = (enum value_type)value->type;
        data = value->s.ptr;
        bytes = value->s.len;
        int fixed = value_type_bytes(type);
        if (fixed >= 0) bytes = (size_t)fixed;
        truth = value->i64 != 0;
        if (type == VALUE_DOUBLE) data = &value->num;
        if (type == VALUE_INT64) data = &value->i64;
        if (type == VALUE_BOOL) data = &truth;
    }
    int err = request_reply(handling->context, code, type, data, bytes);
    if (err == 0) return 0;
    return error_set(err == -EMSGSIZE ? FERO_E_TOOBIG : FERO_E_INVAL,
                     err == -EMSGSIZE ? "the reply is over value.max" : "replied to before");
}

static char *copy_text(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = memory_take(bytes);
    if (copy != NULL) memcpy(copy, text, bytes);
    return copy;
}

static int verb_make(struct cache_verb *verb, const char *name, fero_handler_fn function, void *ud,
                     void *cache)
{
    struct handler *handler = memory_take(sizeof *handler);
    if (handler == NULL) return -ENOMEM;
    *verb = (struct cache_verb){.function = call, .context = handler};
    if (name != NULL && (verb->name = copy_text(name)) == NULL) return -ENOMEM;
    *handler = (struct handler){function, ud, cache, verb->name};
    return 0;
}

static void verb_free(struct cache_verb *verb)
{
    memory_put(verb->name);
    memory_put((void *)(uintptr_t)verb->context);
}

void definition_free(struct cache_definition *definition)
{
    for (uint32_t i = 0; i < definition->verbs_count; i++) verb_free(&definition->verbs[i]);
    verb_free(&definition->handler);
    memory_put(definition->verbs);
    memory_put(definition->verbs_bytes);
    memory_put(definition->name);
    *definition = (struct cache_definition){0};
}

/* The list of verbs as OPENED carries it: {type, bytes, name} each. */
static int write_verbs(struct cache_definition *definition)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < definition->verbs_count; i++) {
        ASSERT(definition->verbs[i].name != NULL);
        bytes += 2 + strlen(definition->verbs[i].name);
    }
    definition->verbs_bytes = memory_take(bytes + 1);
    if (definition->verbs_bytes == NULL) return -ENOMEM;
    uint8_t *at = definition->verbs_bytes;
    for (uint32_t i = 0; i < definition->verbs_count; i++) {
        size_t length = strlen(definition->verbs[i].name);
        *at++ = (uint8_t)(FRAME_VERB_FIRST + i);
        *at++ = (uint8_t)length;
        memcpy(at, definition->verbs[i].name, length);
        at += length;
    }
    definition->verbs_bytes_count = bytes;
    return 0;
}

/* What a link would refuse is refused here, where somebody can mend it. */
static int check_names(const char *name, const fero_opts *opts)
{
    if (!name_is_valid(bytes_of(name)))
        return error_set(
            FERO_E_INVAL,
            "a cache's name has %zu bytes, but must have 1 to %d, UTF-8 without control characters",
            strlen(name), FRAME_NAME_BYTES_MAX);
    if (opts == NULL) return 0;
    if (opts->verbs_count > CACHE_VERBS_MAX)
        return error_set(FERO_E_INVAL, "%zu verbs, but a cache has at most %d", opts->verbs_count,
                         CACHE_VERBS_MAX);
    for (size_t i = 0; i < opts->verbs_count; i++) {
        const fero_verb *verb = &opts->verbs[i];
        if (verb->name == NULL || verb->fn == NULL)
            return error_set(FERO_E_INVAL, "verb %zu needs a function and a name", i);
        if (!name_is_valid(bytes_of(verb->name)))
            return error_set(FERO_E_INVAL,
                             "the name of verb %zu has %zu bytes, but must have 1 to %d, UTF-8 "
                             "without control characters",
                             i, strlen(verb->name), FRAME_NAME_BYTES_MAX);
    }
    return 0;
}

int definition_make(struct cache_definition *definition, const char *name, uint32_t number,
                    const fero_opts *opts, void *cache)
{
    *definition = (struct cache_definition){.number = number};
    int err = check_names(name, opts);
    if (err < 0) return err;
    size_t verbs = opts != NULL ? opts->verbs_count : 0;
    definition->name = copy_text(name);
    if (definition->name == NULL) goto no_memory;
    if (verbs > 0) {
        definition->verbs = memory_take(verbs * sizeof *definition->verbs);
        if (definition->verbs == NULL) goto no_memory;
    }
    for (size_t i = 0; i < verbs; i++) {
        const fero_verb *verb = &opts->verbs[i];
        definition->verbs_count++;
        if (verb_make(&definition->verbs[i], verb->name, verb->fn, verb->ud, cache) < 0)
            goto no_memory;
    }
    if (opts != NULL && opts->handler != NULL &&
        verb_make(&definition->handler, NULL, opts->handler, opts->handler_ud, cache) < 0)
        goto no_memory;
    if (write_verbs(definition) < 0) goto no_memory;
    return 0;

no_memory:
    definition_free(definition);
    return error_set(FERO_E_NOMEM, "no memory for cache %s", name);
}
