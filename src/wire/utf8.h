/*
 * What is UTF-8: shortest forms only, no surrogates, nothing above U+10FFFF.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes of the character at `at`, of which `left` are there; 0: it is none. */
static inline size_t utf8_bytes_of(const uint8_t *at, size_t left)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (at[0] < 0x80) return 1;
    size_t bytes = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
    if (at[0] < 0xc0 || at[0] > 0xf7 || bytes > left) return 0;
    uint32_t character = at[0] & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0;
        character = character << 6 | (at[i] & 0x3fu);
    }
    if (character < least[bytes] || character > 0x10ffff) return 0;
    return character >= 0xd800 && character <= 0xdfff ? 0 : bytes;
}

/* Bytes at the start of `text` that are ASCII, in steps of 8. */
static inline size_t utf8_ascii_run(const uint8_t *text, size_t bytes)
{
    size_t at = 0;
    for (; at + 8 <= bytes; at += 8) {
        uint64_t word;
        memcpy(&word, text + at, sizeof word);
        if ((word & 0x8080808080808080u) != 0) break;
    }
    return at;
}

/* Bytes at the start of `data` that are UTF-8. */
static inline size_t utf8_text_bytes(const void *data, size_t bytes)
{
    const uint8_t *text = (const uint8_t *)data;
    size_t at = 0;
    while (at < bytes) {
        at += utf8_ascii_run(text + at, bytes - at);
        if (at == bytes) break;
        size_t step = utf8_bytes_of(text + at, bytes - at);
        if (step == 0) break;
        at += step;
    }
    return at;
}

/* Whether it is ASCII, as most text is: the last 8 bytes overlap those before. */
static inline bool utf8_is_ascii(const void *data, size_t bytes)
{
    const uint8_t *text = (const uint8_t *)data;
    uint64_t all = 0;
    uint64_t word;
    if (bytes < 8) {
        for (size_t i = 0; i < bytes; i++) all |= text[i];
        return all < 0x80;
    }
    for (size_t at = 0; at + 8 <= bytes; at += 8) {
        memcpy(&word, text + at, sizeof word);
        all |= word;
    }
    memcpy(&word, text + bytes - sizeof word, sizeof word);
    return ((all | word) & 0x8080808080808080u) == 0;
}

static inline bool utf8_is_text(const void *data, size_t bytes)
{
    return utf8_is_ascii(data, bytes) || utf8_text_bytes(data, bytes) == bytes;
}
