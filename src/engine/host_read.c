/*
 * Threads of the program read a key where it is, without asking the shard that owns it: shard/peek.c
 * has the proof. What cannot be read so is asked for.
 */
#include <string.h>

#include "base/assert.h"
#include "engine/host_state.h"
#include "engine/result.h"
#include "engine/server.h"
#include "ring/slot.h"
#include "shard/peek.h"

static int read_here(const struct store *store, fero_slice key, void *buffer, size_t bytes,
                     fero_val *value, uint64_t *offset)
{
    struct peek peek;
    switch (store_peek(store, key.ptr, key.len, buffer, bytes, &peek)) {
    case PEEK_NO_KEY: return error_set_text(FERO_E_NOTFOUND, "there is no such key");
    case PEEK_TOO_SMALL:
        value->type = peek.value_type;
        value->s.len = peek.value_bytes;
        return error_set_text(FERO_E_TOOBIG, "the buffer is too small for the value");
    case PEEK_UNSURE: return FERO_E_AGAIN;
    case PEEK_FOUND: break;
    }
    int fixed = value_type_bytes((enum value_type)peek.value_type);
    const void *from = fixed < 0 ? buffer : peek.fixed;
    bool is_valid = result_value_read(value, peek.value_type, from, peek.value_bytes);
    ASSERT(is_valid);
    if (offset != NULL) *offset = peek.offset;
    return 0;
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
    struct hosts *hosts = cache->hosts;
    uint32_t number = cache->definition.number;
    struct host *host = NULL;
    uint32_t shard = 0;
    *value = (fero_val){0};
    int err = host_here(hosts, &host);
    if (UNLIKELY(err < 0)) return err;
    ASSERT(host != NULL);
    if (hosts->options->shards_count > 1) shard = hosts->slot_owner[slot_of_key(key.ptr, key.len)];
    if (UNLIKELY((err = host_enter(host)) < 0)) return err;
    err =
        read_here(&hosts->shards[shard]->caches[number]->store, key, buffer, bytes, value, offset);
    host_exit(host);
    if (UNLIKELY(err == FERO_E_AGAIN))
        return read_by_asking(host, number, key, buffer, bytes, value, offset);
    return err;
}
