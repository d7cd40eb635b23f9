#include "engine/handler.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "engine/error.h"
#include "engine/retained.h"
#include "shard/request.h"
#include "wire/hello.h"

/* What a verb's context points to: the caller's function and what to call it. */
struct handler {
    fero_handler_fn function;
    void *ud;
    fero_cache *cache;
    fero_slice name; /* none: it sees what no verb matches */
};

/* The verb's name where the request came to the handler of everything. */
static fero_slice verb_name(const struct handler *handler, const struct request *request)
{
    if (handler->name.ptr != NULL) return handler->name;
    if (request->frame_type == FRAME_UPDATE) return fero_str("UPDATE");
    if (request->frame_type == FRAME_REMOVE) return fero_str("REMOVE");
    if (request->frame_type == FRAME_ADD || request->frame_type == FRAME_INSERT)
        return fero_str("ADD");
    if (request->frame_type == FRAME_PUSH) return fero_str("PUSH");
    if (request->frame_type == FRAME_PATCH) return fero_str("PATCH");
    return (fero_slice){request->verb.data, request->verb.size};
}

/*
 * The handler returned an error. Its caller gets the text of the call that failed inside, if that is the
 * error, else what the error means. What cannot be replied with, or was retained, is left to the shard.
 */
static COLD int32_t fail(struct handling *handling, int32_t error)
{
    if (handling->retained != NULL) return error;
    fero_val why = {.type = FERO_T_STRING, .s = fero_str(error_text_of(error))};
    return fero_reply(&handling->req, error, &why) < 0 ? error : FERO_H_REPLIED;
}

static int32_t call(struct request_context *context, const void *verb)
{
    const struct handler *handler = verb;
    struct handling handling;
    handling_init(&handling, context, handler->cache, verb_name(handler, context->request));
    error_forget();
    int32_t result = handling_end(&handling, handler->function(&handling.req, handler->ud));
    return LIKELY(result >= 0) ? result : fail(&handling, result);
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
    *handler = (struct handler){function, ud, cache, fero_str(verb->name)};
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
    memory_put(definition->ids);
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
        for (size_t other = 0; other < i; other++)
            if (strcmp(opts->verbs[other].name, verb->name) == 0)
                return error_set(FERO_E_INVAL, "the verbs %zu and %zu have the same name, \"%s\"",
                                 other, i, verb->name);
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
    definition->ids = memory_take(sizeof *definition->ids);
    if (definition->ids == NULL) goto no_memory;
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
