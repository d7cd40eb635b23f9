/*
 * The frames of a stream of changes. A subscription belongs to one link, and is served by the shard
 * that speaks there, from its own log.
 *
 *   SUBSCRIBE  client   which changes, from where on, and how many may be sent
 *   CREDIT     client   how many more; or that it is over
 *   CHANGES    server   records of the log as they are (docs/protocol.md has their bytes)
 *   EVENT      server   what happened to the stream between two changes
 *
 * Credits are totals since the subscription began, so that one that is lost with nothing else does
 * no harm, and the later one says it all.
 */
#pragma once

#include <stdint.h>

#include "wire/frame.h"
#include "wire/hello.h"

/* Where a subscription begins. */
enum stream_from {
    STREAM_FROM_START = 0,    /* the first change ever; where that is forgotten, with a snapshot */
    STREAM_FROM_NOW = 1,      /* what comes next */
    STREAM_FROM_OFFSET = 2,   /* this offset of one partition */
    STREAM_FROM_OLDEST = 3,   /* whatever is still kept, and no snapshot */
    STREAM_FROM_SNAPSHOT = 4, /* the state as it is, then what changes it */
    STREAM_FROM_POSITION = 5, /* where another subscription to this shard stood */
    STREAM_FROM_COUNT
};

/* Which keys. A prefix of no bytes matches all of them. */
enum stream_match {
    STREAM_MATCH_PREFIX = 0, /* keys that begin with these bytes */
    STREAM_MATCH_PATH = 1,   /* this key, all below it, and those that it is inside of */
    STREAM_MATCH_COUNT
};

/* Flags of SUBSCRIBE. */
#define SUBSCRIBE_UNTIL_LIVE 0x01u /* it ends where it has caught up */
/* Flags of CREDIT. */
#define CREDIT_END 0x01u
/* A limit that there is not. */
#define CREDIT_ALL UINT64_MAX

/* 56 bytes, then the prefix. */
struct frame_subscribe {
    struct frame_prefix prefix; /* small: bytes of the prefix */
    uint32_t number;            /* the dialler's; not used by another subscription of the link */
    uint16_t cache;
    uint8_t from;
    uint8_t match;
    uint64_t at;    /* offset or position, as `from` says; else 0 */
    uint64_t owner; /* identity of the node that the position is of; else 0 */
    uint64_t credit_bytes;
    uint64_t credit_records;
    uint16_t shard; /* that must speak on the link; HELLO_SHARD_ANY: whichever does */
    uint16_t reserved;
    uint32_t reserved2;
};
_Static_assert(sizeof(struct frame_subscribe) == 56, "SUBSCRIBE is on the wire");

/* 32 bytes. */
struct frame_credit {
    struct frame_prefix prefix;
    uint32_t number;
    uint32_t reserved;
    uint64_t credit_bytes;   /* padded bytes of records, since the subscription began */
    uint64_t credit_records; /* likewise */
};
_Static_assert(sizeof(struct frame_credit) == 32, "CREDIT is on the wire");

/* 24 bytes, then the records, each with its padding. */
struct frame_changes {
    struct frame_prefix prefix; /* small: how many records */
    uint32_t number;
    uint32_t reserved;
    uint64_t position; /* behind the last of them; 0 inside of a snapshot */
};
_Static_assert(sizeof(struct frame_changes) == 24, "CHANGES is on the wire");

enum stream_event {
    STREAM_STARTED = 1,        /* changes follow from where it was asked for */
    STREAM_TRIMMED = 2,        /* that is not kept any more: a snapshot follows */
    STREAM_GAP = 3,            /* it was too slow, and changes are lost: a snapshot follows */
    STREAM_TRUNCATED = 4,      /* changes were taken back: a snapshot follows */
    STREAM_SNAPSHOT_BEGIN = 5, /* forget what you know of these keys */
    STREAM_SNAPSHOT_END = 6,   /* what came since then is the state */
    STREAM_LIVE = 7,           /* it has caught up */
    STREAM_ENDED = 8,          /* nothing more comes; the code says why, 0: as asked for */
    STREAM_EVENTS_END
};

/* 40 bytes. */
struct frame_event {
    struct frame_prefix prefix; /* small: as a reply's code */
    uint32_t number;
    uint8_t event;
    uint8_t reserved;
    uint16_t slot; /* TRUNCATED: whose changes ... */
    uint64_t position;
    uint64_t place; /* ... behind this place were taken back */
    uint64_t reserved2;
};
_Static_assert(sizeof(struct frame_event) == 40, "EVENT is on the wire");

/* As the decoders of wire/hello.h. */
MUST_CHECK int subscribe_decode(struct frame_subscribe *subscribe, struct bytes *key,
                                const void *data, size_t length, struct refusal *refusal);
MUST_CHECK int credit_decode(struct frame_credit *credit, const void *data, size_t length,
                             struct refusal *refusal);
/* The records are not looked at: see change_is_whole. */
MUST_CHECK int changes_decode(struct frame_changes *changes, struct bytes *records,
                              const void *data, size_t length, struct refusal *refusal);
MUST_CHECK int event_decode(struct frame_event *event, const void *data, size_t length,
                            struct refusal *refusal);

/* As the encoders of wire/hello.h; they set the prefix. */
size_t subscribe_encode(struct frame_subscribe *subscribe, struct bytes key, void *data);
size_t credit_encode(struct frame_credit *credit, bool is_end, void *data);
/* The head only; `bytes` of `count` records follow. */
size_t changes_encode(struct frame_changes *changes, uint32_t count, size_t bytes, void *data);
size_t event_encode(struct frame_event *event, uint16_t code, void *data);
