/*
 * The limit's frames. They are fero's (src/wire/frame.h) but written down here again, for the limit
 * must not move when fero does:
 *
 *   request   24 bytes of header, 8 of key, the value, zeros up to a multiple of 8
 *   reply     16 bytes of header, its value, zeros up to a multiple of 8
 *   record    56 bytes of header, then key, value and zeros as in the request
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "bench/limit.h"

struct limit_header {
    uint32_t length; /* header, key and value */
    uint8_t type;
    uint8_t flags;
    uint16_t key_len;
    uint16_t cache;
    uint16_t slot;
    uint32_t seq;
    uint64_t hash; /* a client sends 0: the server hashes */
};
_Static_assert(sizeof(struct limit_header) == 24, "as on the wire");

struct limit_request {
    struct limit_header header;
    uint64_t key; /* every key has 8 bytes here; the value follows */
};
#define LIMIT_KEY_BYTES sizeof(uint64_t)

struct limit_reply {
    uint32_t length;
    uint8_t type;
    uint8_t flags;
    uint16_t code;
    uint32_t seq;
    uint32_t offset;
};
_Static_assert(sizeof(struct limit_reply) == 16, "as on the wire");

struct limit_record {
    struct limit_header header;
    uint64_t place;
    uint64_t offset;
    uint64_t time;
    uint64_t hash; /* beside the key, so that the comparison costs one line */
    uint64_t key;  /* the value follows */
};
_Static_assert(offsetof(struct limit_record, key) == 56, "the header of a change");
#define LIMIT_RECORD_GROWTH (sizeof(struct limit_record) - sizeof(struct limit_request))

#define LIMIT_TYPE_REPLY 7
#define LIMIT_TYPE_UPDATE 16

/* Copies run in whole lines, up to a line beyond their end. */
#define LIMIT_SLACK CACHE_LINE

static ALWAYS_INLINE void limit_copy_lines(uint8_t *to, const uint8_t *from, size_t bytes)
{
    size_t at = 0;
    do {
        memcpy(to + at, from + at, CACHE_LINE);
        at += CACHE_LINE;
    } while (at < bytes);
}

/* Of a whole frame on the wire. */
size_t limit_frame_bytes(const struct limit_options *options);
size_t limit_reply_frame_bytes(const struct limit_options *options);
/* Of a reply's value alone. */
size_t limit_reply_value_bytes(const struct limit_options *options);
/* A whole frame; key and seq are for the caller to patch. */
void limit_request_init(struct limit_request *request, size_t message_bytes);
