#include "wire/frame.h"

#include <errno.h>

#include "base/assert.h"
#include "wire/jsontext.h"
#include "wire/utf8.h"

#define EXTENSION_KINDS_MAX 32

/* Words that an item of each kind must have; verbs have as many as the name needs. */
static const int8_t extension_words[EXTENSION_KINDS_MAX] = {
    [EXT_TTL_MS] = 0, [EXT_IF_OFFSET] = 1, [EXT_COMMIT] = 0, [EXT_DEADLINE_MS] = 0,
    [EXT_HOP] = 1,    [EXT_PARTITION] = 0, [EXT_VERB] = -1,  [EXT_SESSION] = 2,
    [EXT_FLOOR] = 1,  [EXT_OFFSET] = 1,    [EXT_VIEW] = 1};

static bool is_known(unsigned kind)
{
    return kind >= EXT_TTL_MS && kind <= EXT_VIEW;
}

static bool words_fit(const struct extension *item, unsigned kind)
{
    if (kind != EXT_VERB) return item->words == (uint8_t)extension_words[kind];
    return item->argument > 0 && item->argument <= FRAME_NAME_BYTES_MAX &&
           item->words == (item->argument + 7) / 8;
}

static void extension_store(struct extensions *to, unsigned kind, const struct extension *item,
                            const uint8_t *words)
{
    uint64_t word[2] = {0, 0};
    if (kind != EXT_VERB) memcpy(word, words, (size_t)item->words * 8);
    switch (kind) {
    case EXT_TTL_MS: to->ttl_ms = item->argument; break;
    case EXT_IF_OFFSET: to->if_offset = word[0]; break;
    case EXT_COMMIT: to->commit = item->argument; break;
    case EXT_DEADLINE_MS: to->deadline_ms = item->argument; break;
    case EXT_HOP:
        to->hops = item->argument;
        to->hop_view = word[0];
        break;
    case EXT_PARTITION: to->partition_bytes = item->argument; break;
    case EXT_VERB: to->verb = (struct bytes){words, item->argument}; break;
    case EXT_SESSION:
        to->session = word[0];
        to->seq = word[1];
        break;
    case EXT_FLOOR: to->floor = word[0]; break;
    case EXT_OFFSET: to->offset = word[0]; break;
    case EXT_VIEW: to->view = word[0]; break;
    default: ASSERT(!is_known(kind));
    }
    to->present |= 1u << kind;
}

int64_t extensions_decode(struct extensions *extensions, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    size_t at = 0;
    *extensions = (struct extensions){0};
    for (;;) {
        struct extension item;
        if (size - at < sizeof item) return -EPROTO;
        memcpy(&item, bytes + at, sizeof item);
        size_t item_bytes = sizeof item + (size_t)item.words * 8;
        if (size - at < item_bytes || item.reserved != 0) return -EPROTO;
        unsigned kind = item.kind & (unsigned)~EXT_LAST;
        if (is_known(kind)) {
            if ((extensions->present & (1u << kind)) != 0 || !words_fit(&item, kind))
                return -EPROTO;
            extension_store(extensions, kind, &item, bytes + at + sizeof item);
        } else if (kind < EXT_OPTIONAL) {
            return -EPROTO;
        }
        at += item_bytes;
        if ((item.kind & EXT_LAST) != 0) return (int64_t)at;
    }
}

static size_t extension_write(const struct extensions *from, unsigned kind, uint8_t *data)
{
    struct extension item = {.kind = (uint8_t)kind};
    uint64_t word[2] = {0, 0};
    switch (kind) {
    case EXT_TTL_MS: item.argument = from->ttl_ms; break;
    case EXT_IF_OFFSET: word[0] = from->if_offset; break;
    case EXT_COMMIT: item.argument = from->commit; break;
    case EXT_DEADLINE_MS: item.argument = from->deadline_ms; break;
    case EXT_HOP:
        item.argument = from->hops;
        word[0] = from->hop_view;
        break;
    case EXT_PARTITION: item.argument = from->partition_bytes; break;
    case EXT_VERB:
        ASSERT(from->verb.size > 0 && from->verb.size <= FRAME_NAME_BYTES_MAX);
        item.argument = (uint32_t)from->verb.size;
        item.words = (uint8_t)((from->verb.size + 7) / 8);
        memset(data + sizeof item, 0, (size_t)item.words * 8);
        memcpy(data + sizeof item, from->verb.data, from->verb.size);
        memcpy(data, &item, sizeof item);
        return sizeof item + (size_t)item.words * 8;
    case EXT_SESSION:
        word[0] = from->session;
        word[1] = from->seq;
        break;
    case EXT_FLOOR: word[0] = from->floor; break;
    case EXT_OFFSET: word[0] = from->offset; break;
    case EXT_VIEW: word[0] = from->view; break;
    default: ASSERT(!is_known(kind));
    }
    item.words = (uint8_t)extension_words[kind];
    memcpy(data, &item, sizeof item);
    memcpy(data + sizeof item, word, (size_t)item.words * 8);
    return sizeof item + (size_t)item.words * 8;
}

size_t extensions_encode(const struct extensions *extensions, void *data)
{
    uint8_t *bytes = data;
    size_t at = 0;
    size_t last = 0;
    for (unsigned kind = EXT_TTL_MS; kind <= EXT_VIEW; kind++) {
        if ((extensions->present & (1u << kind)) == 0) continue;
        last = at;
        at += extension_write(extensions, kind, bytes + at);
    }
    if (at > 0) bytes[last] |= EXT_LAST;
    ASSERT(at <= EXTENSIONS_BYTES_MAX);
    return at;
}

int value_type_bytes(enum value_type type)
{
    switch (type) {
    case VALUE_UNDEFINED:
    case VALUE_NULL: return 0;
    case VALUE_DOUBLE:
    case VALUE_INT64: return 8;
    case VALUE_BOOL: return 1;
    case VALUE_STRING:
    case VALUE_JSON:
    case VALUE_BYTES: return -1;
    case VALUE_TYPES_COUNT: break;
    }
    return -2;
}

bool value_is_valid(enum value_type type, const void *data, size_t size)
{
    int bytes = value_type_bytes(type);
    if (bytes == -2) return false;
    if (bytes >= 0 && size != (size_t)bytes) return false;
    return type != VALUE_BOOL || *(const uint8_t *)data <= 1;
}

bool value_text_is_valid(enum value_type type, const void *data, size_t size)
{
    if (type == VALUE_STRING) return utf8_is_text(data, size);
    return type != VALUE_JSON || jsontext_is_valid(data, size);
}
