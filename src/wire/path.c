#include "wire/path.h"

#include "wire/utf8.h"

/* Whether the byte at `at` escapes the one behind it. */
static bool is_escape(const uint8_t *key, size_t bytes, size_t at)
{
    return key[at] == '\\' && at + 1 < bytes && (key[at + 1] == '.' || key[at + 1] == '\\');
}

/* Where the part that begins at `at` ends. */
static size_t part_end(const uint8_t *key, size_t bytes, size_t at)
{
    while (at < bytes && key[at] != '.') at += is_escape(key, bytes, at) ? 2 : 1;
    return at;
}

size_t path_partition_bytes(const void *key, size_t bytes)
{
    /* Nearly all keys have no dot at all. */
    if (memchr(key, '.', bytes) == NULL) return bytes;
    return part_end(key, bytes, 0);
}

/* Takes the escapes out of the part from `at` to `end`; returns the bytes. */
static size_t unescape(uint8_t *to, const uint8_t *key, size_t at, size_t end)
{
    size_t bytes = 0;
    while (at < end) {
        if (is_escape(key, end, at)) at++;
        to[bytes++] = key[at++];
    }
    return bytes;
}

enum path_result path_read(struct path *path, const void *key, size_t bytes, uint8_t *scratch)
{
    const uint8_t *text = key;
    size_t at = part_end(text, bytes, 0);
    path->key = (struct bytes){key, bytes};
    path->partition_bytes = (uint32_t)at;
    path->count = 0;
    if (at == 0) return PATH_EMPTY_PART;
    while (at < bytes) {
        size_t begin = at + 1;
        if (path->count == PATH_PARTS_MAX) return PATH_TOO_DEEP;
        at = part_end(text, bytes, begin);
        if (at == begin) return PATH_EMPTY_PART;
        struct path_part *part = &path->parts[path->count++];
        *part = (struct path_part){text + begin, (uint16_t)(at - begin), (uint16_t)at};
        if (memchr(part->name, '\\', part->bytes) != NULL) {
            part->bytes = (uint16_t)unescape(scratch, text, begin, at);
            part->name = scratch;
            scratch += part->bytes;
        }
        if (!utf8_is_text(part->name, part->bytes)) return PATH_NOT_UTF8;
    }
    return PATH_OK;
}

enum path_result path_check(const void *key, size_t bytes)
{
    const uint8_t *text = key;
    size_t at = part_end(text, bytes, 0);
    if (at == 0) return PATH_EMPTY_PART;
    for (uint32_t count = 0; at < bytes; count++) {
        size_t begin = at + 1;
        if (count == PATH_PARTS_MAX) return PATH_TOO_DEEP;
        at = part_end(text, bytes, begin);
        if (at == begin) return PATH_EMPTY_PART;
        /* Escapes are of ASCII, and change nothing of that. */
        if (!utf8_is_text(text + begin, at - begin)) return PATH_NOT_UTF8;
    }
    return PATH_OK;
}

size_t path_escape(uint8_t *to, const void *name, size_t bytes)
{
    const uint8_t *from = name;
    size_t written = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (from[i] == '.' || from[i] == '\\') to[written++] = '\\';
        to[written++] = from[i];
    }
    return written;
}

bool path_index(const struct path_part *part, uint32_t *index)
{
    uint64_t number = 0;
    if (part->bytes == 0 || part->bytes > 10) return false;
    if (part->name[0] == '0' && part->bytes > 1) return false;
    for (unsigned i = 0; i < part->bytes; i++) {
        unsigned digit = part->name[i] - (unsigned)'0';
        if (digit > 9) return false;
        number = number * 10 + digit;
    }
    *index = (uint32_t)number;
    return number < UINT32_MAX;
}
