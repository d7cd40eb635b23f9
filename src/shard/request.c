#include "shard/request.h"

#include "base/assert.h"
#include "ring/slot.h"

/* Sizes of values by type; 255: any. The wire's value_is_valid as one table read. */
#define ANY_BYTES 255
static const uint8_t value_bytes_of[16] = {[VALUE_UNDEFINED] = 0,
                                           [VALUE_STRING] = ANY_BYTES,
                                           [VALUE_DOUBLE] = 8,
                                           [VALUE_JSON] = ANY_BYTES,
                                           [VALUE_BOOL] = 1,
                                           [VALUE_NULL] = 0,
                                           [VALUE_BYTES] = ANY_BYTES,
                                           [VALUE_INT64] = 8,
                                           [8] = 254,
                                           [9] = 254,
                                           [10] = 254,
                                           [11] = 254,
                                           [12] = 254,
                                           [13] = 254,
                                           [14] = 254,
                                           [15] = 254};

static enum decoded broken(struct refusal *refusal, const char *text, uint64_t got, uint64_t limit)
{
    *refusal = (struct refusal){ERROR_PROTOCOL, got, limit, text};
    return DECODED_BROKEN;
}

COLD void request_refuse(struct request *request, enum reply_error error, const char *text,
                         uint64_t got, uint64_t limit)
{
    request->error = (uint16_t)error;
    request->is_keyed = false;
    request->error_text = text;
    request->error_got = got;
    request->error_limit = limit;
}

/* The request can be answered, but only with this error. */
static COLD enum decoded refuse(struct request *request, enum reply_error error, const char *text,
                                uint64_t got, uint64_t limit)
{
    request_refuse(request, error, text, got, limit);
    return DECODED_REQUEST;
}

static COLD int64_t decode_extensions(struct request *request, const struct shard *shard,
                                      const uint8_t *data, size_t size)
{
    struct extensions extensions;
    int64_t bytes = extensions_decode(&extensions, data, size);
    if (bytes < 0) return bytes;
    uint32_t supported = 1u << EXT_DEADLINE_MS | 1u << EXT_VERB | 1u << EXT_FLOOR;
    uint32_t other = extensions.present & ~supported;
    if (other != 0)
        refuse(request, ERROR_UNSUPPORTED, "extension %llu is not supported here (highest: %llu)",
               (uint64_t)__builtin_ctz(other), EXT_VIEW);
    /* Without any time left it is late already. */
    if ((extensions.present & 1u << EXT_DEADLINE_MS) != 0)
        request->deadline_ns = shard->now_ns + (uint64_t)extensions.deadline_ms * 1000000 -
                               (extensions.deadline_ms == 0);
    request->verb = extensions.verb;
    return bytes;
}

bool request_is_about_errors(const struct request *request)
{
    struct bytes key = {request->store.body, request->store.key_len};
    return bytes_equal(key, bytes_of("errors"));
}

static COLD enum decoded check_slow(struct request *request, const struct shard *shard,
                                    const struct frame_request *header, size_t value_bytes)
{
    const struct shard_options *options = shard->options;
    if (request->error != 0) return DECODED_REQUEST;
    if (header->type == FRAME_INFO) {
        /* It has no cache and no slot, whatever the header says. */
        request->cache = NULL;
        bool is_known = header->key_len == 0 || request_is_about_errors(request);
        if (is_known && value_bytes == 0) return DECODED_REQUEST;
        return refuse(request, ERROR_INVALID,
                      "INFO with %llu bytes of key, not \"errors\", and %llu of value",
                      header->key_len, value_bytes);
    }
    if (request->cache == NULL)
        return refuse(request, ERROR_NOT_FOUND, "cache number %llu is not open (%llu are)",
                      header->cache, shard->caches_count);
    if (header->key_len > options->key_bytes_max)
        return refuse(request, ERROR_TOO_BIG, "key of %llu bytes is over the limit of %llu",
                      header->key_len, options->key_bytes_max);
    if (value_bytes > options->value_bytes_max)
        return refuse(request, ERROR_TOO_BIG, "value of %llu bytes is over the limit of %llu",
                      value_bytes, options->value_bytes_max);
    if (header->slot != FRAME_SLOT_ANY && header->slot >= SLOTS_COUNT)
        return refuse(request, ERROR_INVALID, "slot %llu is not below %llu", header->slot,
                      SLOTS_COUNT);
    uint8_t type = header->type;
    bool has_key = type >= FRAME_UPDATE && type <= FRAME_INSERT;
    if (has_key && header->key_len == 0 && type != FRAME_ADD)
        return refuse(request, ERROR_INVALID, "key of %llu bytes: it must have at least %llu", 0,
                      1);
    if ((type == FRAME_REMOVE || type == FRAME_GET) && value_bytes != 0)
        return refuse(request, ERROR_INVALID, "value of %llu bytes where %llu are expected",
                      value_bytes, 0);
    if (type == FRAME_VERB && request->verb.size == 0)
        return refuse(request, ERROR_INVALID, "request of type %llu names no verb (extension %llu)",
                      type, EXT_VERB);
    if (type >= FRAME_VERB_FIRST &&
        type - FRAME_VERB_FIRST >= (int)request->cache->definition->verbs_count)
        return refuse(request, ERROR_UNSUPPORTED, "verb number %llu is not one of %llu", type,
                      request->cache->definition->verbs_count);
    if (type == FRAME_STOP &&
        (header->key_len != 0 || (header->flags & FRAME_VALUE_TYPE) != VALUE_INT64))
        return refuse(request, ERROR_INVALID, "STOP has no key and an int64 for its value", 0, 0);
    if (!has_key && type != FRAME_VERB && type < FRAME_VERB_FIRST && type != FRAME_STOP)
        return refuse(request, ERROR_UNSUPPORTED,
                      "request type %llu is unknown (bound verbs: %llu)", type, FRAME_VERB_FIRST);
    const uint8_t *value = request->store.body + header->key_len;
    if (!value_is_valid((enum value_type)request->store.flags, value, value_bytes))
        return refuse(request, ERROR_TYPE, "value of type %llu cannot have %llu bytes or this byte",
                      request->store.flags, value_bytes);
    return DECODED_REQUEST;
}

bool request_takes_any_bytes(uint8_t value_type)
{
    return value_bytes_of[value_type] == ANY_BYTES;
}

/* Not all of the header is there: says whether it is worth waiting for. */
static COLD enum decoded decode_prefix(const struct shard_options *options, const uint8_t *data,
                                       size_t size, struct refusal *refusal)
{
    uint32_t length;
    if (size < FRAME_PREFIX_BYTES) return DECODED_PARTIAL;
    memcpy(&length, data, sizeof length);
    if (length < FRAME_REQUEST_BYTES)
        return broken(refusal, "request shorter than its header", length, FRAME_REQUEST_BYTES);
    if (length > options->frame_bytes_max)
        return broken(refusal, "frame over the limit", length, options->frame_bytes_max);
    return DECODED_PARTIAL;
}

enum decoded request_decode(struct request *request, struct shard *shard, const uint8_t *data,
                            size_t size, struct refusal *refusal)
{
    struct frame_request header;
    if (UNLIKELY(size < sizeof header)) return decode_prefix(shard->options, data, size, refusal);
    memcpy(&header, data, sizeof header);
    if (UNLIKELY(header.length < sizeof header))
        return broken(refusal, "request shorter than its header", header.length, sizeof header);
    if (UNLIKELY(header.length > shard->options->frame_bytes_max))
        return broken(refusal, "frame over the limit", header.length,
                      shard->options->frame_bytes_max);
    size_t padded = round_up_8(header.length);
    if (UNLIKELY(padded > size)) return DECODED_PARTIAL;
    if (UNLIKELY((header.flags & FRAME_RESERVED) != 0))
        return broken(refusal, "reserved flag set", header.flags, header.flags & 0x7f);

    const uint8_t *body = data + sizeof header;
    size_t body_bytes = header.length - sizeof header;
    request->error = 0;
    request->is_direct = false;
    request->deadline_ns = 0;
    request->verb.size = 0;
    if (UNLIKELY((header.flags & FRAME_EXTENDED) != 0)) {
        int64_t bytes = decode_extensions(request, shard, body, body_bytes);
        if (bytes < 0) return broken(refusal, "broken extension block", 0, 0);
        body += bytes;
        body_bytes -= (size_t)bytes;
    }
    if (UNLIKELY(header.key_len > body_bytes))
        return broken(refusal, "key longer than its frame", header.key_len, body_bytes);

    size_t value_bytes = body_bytes - header.key_len;
    uint8_t value_type = header.flags & FRAME_VALUE_TYPE;
    struct cache *cache = LIKELY(header.cache < CACHES_MAX) ? shard->caches[header.cache] : NULL;
    request->is_keyed = cache != NULL && header.key_len > 0;
    request->frame = data;
    request->frame_bytes = (uint32_t)padded;
    request->frame_type = header.type;
    request->want = (uint8_t)((header.flags & FRAME_WANT) >> FRAME_WANT_SHIFT);
    request->link_seq = header.seq;
    request->cache = cache;
    request->store.body = body;
    request->store.body_bytes = (uint32_t)body_bytes;
    request->store.key_len = header.key_len;
    request->store.slot = header.slot;
    request->store.type = header.type;
    request->store.flags = value_type;
    request->store.seq = header.seq;

    uint8_t wanted_bytes = value_bytes_of[value_type];
    bool plain =
        header.type == FRAME_UPDATE && cache != NULL && request->error == 0 &&
        (size_t)(header.key_len - 1) < shard->options->key_bytes_max &&
        value_bytes <= shard->options->value_bytes_max &&
        (wanted_bytes == ANY_BYTES || (value_bytes == wanted_bytes && value_type != VALUE_BOOL)) &&
        (header.slot < SLOTS_COUNT || header.slot == FRAME_SLOT_ANY);
    if (LIKELY(plain)) return DECODED_REQUEST;
    return check_slow(request, shard, &header, value_bytes);
}
