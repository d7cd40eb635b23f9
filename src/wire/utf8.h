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

static inline bool utf8_is_text(const void *data, size_t bytes)
{
    const uint8_t *text = (const uint8_t *)data;
    for (size_t at = 0; at < bytes;) {
        at += utf8_ascii_run(text + at, bytes - at);
        if (at == bytes) return true;
        size_t step = utf8_bytes_of(text + at, bytes - at);
        if (step == 0) return false;
        at += step;
    }
    return true;
}
