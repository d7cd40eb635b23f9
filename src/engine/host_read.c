/*
 * Threads of the program read a key where it is, without asking the shard that owns it: shard/peek.c
 * has the proof. What cannot be read so is asked for. Many keys are read in runs, because a key that is in
 * no cache of the processor costs two misses, and those of a run are waited for together.
 */
#include <string.h>

#include "base/assert.h"
#include "engine/host_state.h"
#include "engine/result.h"
#include "engine/server.h"
#include "ring/slot.h"
#include "shard/peek.h"

/* What a look at the table found. FERO_E_AGAIN: its shard has to be asked. */
static ALWAYS_INLINE int take_peek(enum peek_result result, const struct peek *peek, void *buffer,
                                   fero_val *value, uint64_t *offset)
{
    switch (result) {
    case PEEK_NO_KEY: return error_set_text(FERO_E_NOTFOUND, "there is no such key");
    case PEEK_TOO_SMALL:
        value->type = peek->value_type;
        value->s.len = peek->value_bytes;
        return error_set_text(FERO_E_TOOBIG, "the buffer is too small for the value");
    case PEEK_UNSURE: return FERO_E_AGAIN;
    case PEEK_FOUND: break;
    }
    int fixed = value_type_bytes((enum value_type)peek->value_type);
    const void *from = fixed < 0 ? buffer : peek->fixed;
    bool is_valid = result_value_read(value, peek->value_type, from, peek->value_bytes);
    ASSERT(is_valid);
    if (offset != NULL) *offset = peek->offset;
    return 0;
}

static const struct store *store_of(const struct server_cache *cache, fero_slice key)
{
    const struct hosts *hosts = cache->hosts;
    uint32_t shard = 0;
    if (hosts->options->shards_count > 1) shard = hosts->slot_owner[slot_of_key(key.ptr, key.len)];
    return &hosts->shards[shard]->caches[cache->definition.number]->store;
}

/* What cannot be read here is asked of the shard that owns it. */
static NO_INLINE int read_by_asking(struct host *host, uint32_t cache, fero_slice key, void *buffer,
                                    size_t bytes, fero_val *value, uint64_t *offset)
{
    struct message message = {.type = FRAME_GET, .key = key, .slot = FRAME_SLOT_ANY};
    fero_op *op = NULL;
    if (host->is_in_turn)
        return error_set(FERO_E_AGAIN, "the key's shard has to be asked, which a callback cannot: "
                                       "use fero_get");
    int err = host_request(host->hosts, cache, &message, NULL, &op);
    if (err < 0) return err;
    ASSERT(op != NULL);
    err = host_wait(op, -1);
    const fero_result *result = &op->result;
    if (err == 0) err = result->error;
    if (err == 0) {
        *value = result->value;
        if (offset != NULL) *offset = result->offset;
        value->s.ptr = value->s.len > 0 ? buffer : NULL;
        if (value->s.len > bytes)
            err = error_set(FERO_E_TOOBIG, "the buffer is too small for the value");
        else if (value->s.len > 0)
            memcpy(buffer, result->value.s.ptr, value->s.len);
    }
    fero_op_free(op);
    return err;
}

int host_read(const struct server_cache *cache, fero_slice key, void *buffer, size_t bytes,
              fero_val *value, uint64_t *offset)
{
    struct host *host = NULL;
    struct peek peek;
    *value = (fero_val){0};
    int err = host_here(cache->hosts, &host);
    if (UNLIKELY(err < 0)) return err;
    ASSERT(host != NULL);
    if (UNLIKELY((err = host_enter(host)) < 0)) return err;
    enum peek_result result =
        store_peek(store_of(cache, key), key.ptr, key.len, buffer, bytes, &peek);
    err = take_peek(result, &peek, buffer, value, offset);
    host_exit(host);
    if (UNLIKELY(err == FERO_E_AGAIN))
        return read_by_asking(host, cache->definition.number, key, buffer, bytes, value, offset);
    return err;
}

/* ----------------------------------------------------------------------------------- many at once */

/* Keys whose misses overlap. */
#define READ_RUN 32

/* Reads up to READ_RUN keys, which are good; those whose shards have to be asked get FERO_E_AGAIN. */
static void read_run(const struct server_cache *cache, fero_reading *readings, size_t count)
{
    struct peek_many many[READ_RUN];
    for (size_t i = 0; i < count; i++) {
        fero_slice key = readings[i].key;
        many[i] =
            (struct peek_many){.store = store_of(cache, key), .key = key.ptr, .key_len = key.len};
        peek_fetch_bucket(&many[i]);
    }
    for (size_t i = 0; i < count; i++) peek_fetch_record(&many[i]);
    for (size_t i = 0; i < count; i++) {
        fero_reading *reading = &readings[i];
        struct peek peek;
        reading->value = (fero_val){0};
        enum peek_result result = peek_value(&many[i], reading->buffer, reading->bytes, &peek);
        reading->error =
            take_peek(result, &peek, reading->buffer, &reading->value, &reading->offset);
    }
}

int64_t host_read_many(const struct server_cache *cache, fero_reading *readings, size_t count)
{
    struct host *host = NULL;
    int64_t found = 0;
    int err = host_here(cache->hosts, &host);
    if (UNLIKELY(err < 0)) return err;
    ASSERT(host != NULL);
    for (size_t at = 0; at < count; at += READ_RUN) {
        size_t run = min_u64(count - at, READ_RUN);
        if (UNLIKELY((err = host_enter(host)) < 0)) return err;
        read_run(cache, readings + at, run);
        host_exit(host);
        for (fero_reading *reading = readings + at; reading < readings + at + run; reading++) {
            if (UNLIKELY(reading->error == FERO_E_AGAIN))
                reading->error =
                    read_by_asking(host, cache->definition.number, reading->key, reading->buffer,
                                   reading->bytes, &reading->value, &reading->offset);
            if (reading->error == 0) found++;
        }
    }
    return found;
}
