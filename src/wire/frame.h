/*
 * The bytes of every frame, as docs/protocol.md specifies them for other implementations.
 *
 * All numbers are little-endian. Every frame begins with the same 8 bytes (struct frame_prefix) and
 * is followed by zero bytes up to a multiple of 8, which `length` does not count; the next frame
 * begins there. Three shapes follow the prefix:
 *
 *   request   24 bytes, then extensions, key, value. A request of 100 bytes of key and value fills
 *             exactly two cache lines. What few requests need is an extension block.
 *   reply     16 bytes, then extensions, value.
 *   control   HELLO, WELCOME, OPEN, OPENED, ACK, REFUSE: see wire/hello.h.
 *
 *   request   0        4    5     6       8     10    12       16
 *             +--------+----+-----+-------+-----+-----+--------+----------------+
 *             | length |type|flags|key_len|cache| slot|  seq   |    key_hash    |
 *             +--------+----+-----+-------+-----+-----+--------+----------------+
 *   reply     +--------+----+-----+-------+-----------+--------+
 *             | length |type|flags| code  |    seq    | offset |
 *             +--------+----+-----+-------+-----------+--------+
 *
 * `seq` is the low half of the request's 64-bit sequence number in its session; the upper half is
 * the one that brings it nearest to the previous number on the link (HELLO gives the first).
 * `key_hash` is meaningful between nodes of a cluster only; clients send 0 and servers compute it.
 * `slot` is crc16(partition) >> 2 (see ring/slot.h), or FRAME_SLOT_ANY where the sender did not
 * compute it. A request without a key may be handled by any shard.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

#define FRAME_VERSION 1

enum frame_type {
    FRAME_HELLO = 1,
    FRAME_WELCOME = 2,
    FRAME_OPEN = 3,
    FRAME_OPENED = 4,
    FRAME_ACK = 5,
    FRAME_REFUSE = 6,
    FRAME_REPLY = 7,
    FRAME_BATCH = 8,      /* the head of a sealed run of changes: log/batch.h */
    FRAME_INFO = 9,       /* a request about the node, answered with JSON: no cache */
    FRAME_SUBSCRIBE = 10, /* this and the next three: wire/stream.h */
    FRAME_CREDIT = 11,
    FRAME_CHANGES = 12,
    FRAME_EVENT = 13,

    FRAME_UPDATE = 16,
    FRAME_REMOVE = 17,
    FRAME_GET = 18,
    FRAME_ADD = 19,    /* the owner gives the id: the last part of the key, or the key */
    FRAME_PUSH = 20,   /* at the end of an array */
    FRAME_PATCH = 21,  /* several fields of an object */
    FRAME_INSERT = 22, /* a partition that is not there yet */
    FRAME_STOP = 30,   /* a deferred request: the value is its number */
    FRAME_VERB = 31,   /* the verb's name is in an extension */

    FRAME_VERB_FIRST = 64 /* up to 255: verbs numbered by OPENED */
};

/* Flags of a request. */
#define FRAME_VALUE_TYPE 0x0fu /* enum value_type */
#define FRAME_WANT 0x30u       /* enum frame_want << FRAME_WANT_SHIFT */
#define FRAME_WANT_SHIFT 4
#define FRAME_EXTENDED 0x40u /* an extension block follows the header */
#define FRAME_RESERVED 0x80u /* must be 0 */

/* Flags of a reply, beside FRAME_VALUE_TYPE and FRAME_EXTENDED. */
#define REPLY_MORE 0x10u      /* a streamed reply: more will come */
#define REPLY_DUPLICATE 0x20u /* the request had been applied before; this is its answer again */

/* What the sender of a request wants to hear. Every request is counted in the cumulative ACK. */
enum frame_want { WANT_NOTHING, WANT_ACK, WANT_REPLY, WANT_COMMIT };

enum value_type {
    VALUE_UNDEFINED,
    VALUE_STRING, /* UTF-8 */
    VALUE_DOUBLE, /* 8 bytes, IEEE 754 */
    VALUE_JSON,   /* UTF-8 text */
    VALUE_BOOL,   /* 1 byte, 0 or 1 */
    VALUE_NULL,   /* no bytes */
    VALUE_BYTES,
    VALUE_INT64, /* 8 bytes, two's complement */
    VALUE_TYPES_COUNT
};

#define FRAME_ALIGNMENT 8
#define FRAME_PREFIX_BYTES 8
#define FRAME_REQUEST_BYTES 24
#define FRAME_REPLY_BYTES 16
/* Hard caps; the options of a node set lower limits and WELCOME announces them. */
#define FRAME_BYTES_MAX ((size_t)16 << 20)
#define FRAME_KEY_BYTES_MAX 65535

#define FRAME_SLOT_ANY 0xffffu

struct frame_prefix {
    uint32_t length;
    uint8_t type;
    uint8_t flags;
    uint16_t small; /* key_len, code or what the type says */
};
_Static_assert(sizeof(struct frame_prefix) == FRAME_PREFIX_BYTES, "the prefix is on the wire");

struct frame_request {
    uint32_t length;
    uint8_t type;
    uint8_t flags;
    uint16_t key_len;
    uint16_t cache;
    uint16_t slot;
    uint32_t seq;
    uint64_t key_hash;
};
_Static_assert(sizeof(struct frame_request) == FRAME_REQUEST_BYTES, "the header is on the wire");

struct frame_reply {
    uint32_t length;
    uint8_t type;
    uint8_t flags;
    uint16_t code; /* outcome << REPLY_OUTCOME_SHIFT | level << REPLY_LEVEL_SHIFT | error */
    uint32_t seq;
    uint32_t offset; /* of the change in its partition; a larger one is in EXT_OFFSET */
};
_Static_assert(sizeof(struct frame_reply) == FRAME_REPLY_BYTES, "the header is on the wire");

/*
 * How a request ended: done; not done and never will be; or unknown, so that it may be sent again
 * with the same session and sequence number and is never applied twice.
 */
enum outcome { OUTCOME_OK, OUTCOME_FAIL, OUTCOME_UNKNOWN };
#define REPLY_OUTCOME_SHIFT 14
#define REPLY_LEVEL_SHIFT 12
#define REPLY_ERROR 0x0fffu

/* The errors of replies and refusals; include/fero.h has the same numbers with a minus sign. */
enum reply_error {
    ERROR_NONE = 0,
    ERROR_INVALID = 1,      /* malformed request */
    ERROR_NO_MEMORY = 2,    /* memory.max is reached */
    ERROR_BUSY = 3,         /* try again later */
    ERROR_TIMEOUT = 4,      /* its deadline had passed */
    ERROR_CLOSED = 5,       /* the node is stopping */
    ERROR_GONE = 6,         /* never sent: whoever it would go to is gone */
    ERROR_NOT_FOUND = 7,    /* no such key or cache */
    ERROR_CONFLICT = 9,     /* if_offset did not match */
    ERROR_NOT_OWNER = 10,   /* another shard or node owns the slot */
    ERROR_TOO_BIG = 11,     /* key or value over the limit */
    ERROR_DENIED = 13,      /* wrong token */
    ERROR_TYPE = 14,        /* value of a wrong type */
    ERROR_PROTOCOL = 16,    /* broken frame or other protocol version */
    ERROR_NO_REPLY = 17,    /* the handler declined */
    ERROR_UNSUPPORTED = 20, /* no handler for this verb */
    ERROR_STALE = 21,       /* number too old to tell whether it was applied */
    ERROR_STOPPED = 22      /* its caller stopped it */
};

static inline uint16_t reply_code(enum outcome outcome, enum reply_error error)
{
    return (uint16_t)(((unsigned)outcome << REPLY_OUTCOME_SHIFT) | ((unsigned)error & REPLY_ERROR));
}

static inline enum outcome reply_outcome(uint16_t code)
{
    return (enum outcome)(code >> REPLY_OUTCOME_SHIFT);
}

/*
 * Extensions: a block of items, each a multiple of 8 bytes, behind a request's or reply's header.
 * An item is {kind, words, argument} and `words` further 8-byte words. The last item has EXT_LAST
 * set in its kind. A receiver refuses unknown kinds below EXT_OPTIONAL and skips those above.
 */
enum extension_kind {
    EXT_TTL_MS = 1,      /* argument: milliseconds until the key is removed */
    EXT_IF_OFFSET = 2,   /* word 0: commit only if the partition's head is this */
    EXT_COMMIT = 3,      /* argument: copies to wait for */
    EXT_DEADLINE_MS = 4, /* argument: milliseconds the sender will wait */
    EXT_HOP = 5,         /* argument: hops so far; word 0: the forwarder's view */
    EXT_PARTITION = 6,   /* argument: bytes of the key that name the partition */
    EXT_VERB = 7,        /* argument: bytes of the name, which stands in the words */
    EXT_SESSION = 8,     /* words 0, 1: session, 64-bit sequence (forwarded requests) */
    EXT_FLOOR = 9,       /* word 0: lowest unanswered sequence number of the session */
    EXT_OFFSET = 10,     /* reply; word 0: the offset in full */
    EXT_VIEW = 11,       /* reply; word 0: the view, where it is not the link's */
    EXT_OPTIONAL = 64,
    EXT_LAST = 0x80
};

struct extension {
    uint8_t kind;
    uint8_t words;
    uint16_t reserved; /* 0 */
    uint32_t argument;
};
_Static_assert(sizeof(struct extension) == 8, "extensions are on the wire");

/* What the extension block of one request says. */
struct extensions {
    uint32_t present; /* 1 << kind */
    uint32_t deadline_ms;
    uint32_t ttl_ms;
    uint32_t commit;
    uint32_t hops;
    uint32_t partition_bytes;
    uint64_t hop_view;
    uint64_t if_offset;
    uint64_t session;
    uint64_t seq;
    uint64_t floor;
    uint64_t offset;
    uint64_t view;
    struct bytes verb;
};

/*
 * Reads the block at `data`, of which at most `size` bytes may be used. Returns its bytes, or
 * -EPROTO: an item over the end, an unknown mandatory kind, a kind twice, a reserved bit.
 */
MUST_CHECK int64_t extensions_decode(struct extensions *extensions, const void *data, size_t size);

/*
 * Writes the items of `extensions` that are `present`, in order of kind; `data` has room for
 * EXTENSIONS_BYTES_MAX. Returns the bytes written; 0 where nothing is present.
 */
#define EXTENSIONS_BYTES_MAX 512
/* Longest name of a verb or a cache. */
#define FRAME_NAME_BYTES_MAX 255
size_t extensions_encode(const struct extensions *extensions, void *data);

/* Bytes that a value of `type` must have: its size, or -1 for any. */
int value_type_bytes(enum value_type type);
/* Whether a value of `type` may have these bytes (its size, a boolean's 0 or 1). */
bool value_is_valid(enum value_type type, const void *data, size_t size);
/* Whether a string is UTF-8 and JSON is JSON; true for other types. */
bool value_text_is_valid(enum value_type type, const void *data, size_t size);
