/*
 * The frames that begin a link: HELLO and WELCOME once a link, OPEN and OPENED once a cache.
 *
 * The dialler sends HELLO first; it may send OPENs behind it without waiting. HELLO names the shard
 * that the dialler wants; the connection is handed over to it before WELCOME is sent. WELCOME says
 * which shard owns which slots, and the limits that hold on this link. Anything wrong is answered
 * with REFUSE, which names the code and both values, and the connection is closed.
 */
#pragma once

#include <stdint.h>

#include "wire/frame.h"

/* "FERO" in the order of the bytes on the wire. */
#define HELLO_MAGIC 0x4f524546u
#define HELLO_SHARD_ANY 0xffffu
/* Every dialler takes frames of this size: what is no value of a reply, and no OPENED, fits. */
#define HELLO_FRAME_BYTES_MIN 4096

enum hello_role { ROLE_CLIENT = 1, ROLE_NODE = 2 };

/* 72 bytes, then the token (token_bytes). prefix.small is the protocol version. */
struct frame_hello {
    struct frame_prefix prefix;
    uint32_t magic;
    uint16_t shard; /* wanted, or HELLO_SHARD_ANY */
    uint8_t role;   /* enum hello_role */
    uint8_t reserved;
    uint64_t session;         /* random; 0: no session, retries are at-least-once */
    uint64_t session_start;   /* hybrid logical clock when the session began */
    uint64_t seq_first;       /* 64-bit sequence number that the next request has at least */
    uint64_t floor;           /* lowest unanswered sequence number of the session */
    uint64_t cluster;         /* identity of the cluster, 0: any */
    uint64_t view;            /* newest view known, 0: none */
    uint32_t frame_bytes_max; /* largest frame that the dialler accepts, 0: any */
    uint32_t token_bytes;
};
_Static_assert(sizeof(struct frame_hello) == 72, "HELLO is on the wire");

/* 96 bytes, then shards_count u16: the first slot of each shard, ascending from 0. */
struct frame_welcome {
    struct frame_prefix prefix; /* small: the protocol version */
    uint64_t cluster;
    uint64_t node; /* random identity of the node */
    uint64_t view; /* number of the ring membership in force */
    uint64_t view_proposer;
    uint64_t session_floor; /* the session's floor as this shard knows it */
    uint32_t incarnation;   /* grows at every start of the node */
    uint16_t shard;         /* that speaks on this link */
    uint16_t shards_count;
    uint32_t slots_count;
    uint32_t window_requests; /* unanswered requests at most, a session */
    uint64_t window_bytes;    /* request bytes at most beyond ACK's consumed_bytes, a link */
    uint32_t frame_bytes_max;
    uint32_t key_bytes_max;
    uint32_t value_bytes_max;
    uint32_t reserved;
    uint64_t reserved2;
};
_Static_assert(sizeof(struct frame_welcome) == 96, "WELCOME is on the wire");

/* 16 bytes, then the name of the cache. */
struct frame_open {
    struct frame_prefix prefix; /* small: bytes of the name */
    uint32_t seq;               /* the dialler's; OPENED repeats it */
    uint32_t reserved;
};
_Static_assert(sizeof(struct frame_open) == 16, "OPEN is on the wire");

/* 24 bytes, then verbs_count items {u8 type, u8 bytes, name}. */
struct frame_opened {
    struct frame_prefix prefix; /* small: as a reply's code */
    uint32_t seq;
    uint16_t cache; /* number for the header of requests on this link */
    uint16_t verbs_count;
    uint32_t slots_count;
    uint32_t reserved;
};
_Static_assert(sizeof(struct frame_opened) == 24, "OPENED is on the wire");

/*
 * 24 bytes. Sent at most once a turn by whoever receives requests: everything up to `seq` on this
 * link was received and queued, and `consumed_bytes` of request frames (with their padding) were
 * taken off the link since it began, which is what the sender's byte window moves on.
 */
struct frame_ack {
    struct frame_prefix prefix;
    uint32_t seq;
    uint32_t requests; /* how many requests since the link began, modulo 2^32 */
    uint64_t consumed_bytes;
};
_Static_assert(sizeof(struct frame_ack) == 24, "ACK is on the wire");

/* 24 bytes, then a text for people. The connection closes behind it. */
struct frame_refuse {
    struct frame_prefix prefix; /* small: enum reply_error */
    uint64_t got;               /* the value that was refused */
    uint64_t limit;             /* the value that would have been right */
};
_Static_assert(sizeof(struct frame_refuse) == 24, "REFUSE is on the wire");

/* What a decoder found wrong: goes into REFUSE. `text` is static. */
struct refusal {
    enum reply_error error;
    uint64_t got;
    uint64_t limit;
    const char *text;
};

/*
 * Check one whole frame (its prefix has been read and `length` bytes are there) of the named type.
 * Return 0, or -EPROTO with the refusal filled in. What they return points into `data`.
 */
MUST_CHECK int hello_decode(struct frame_hello *hello, struct bytes *token, const void *data,
                            size_t length, struct refusal *refusal);
MUST_CHECK int welcome_decode(struct frame_welcome *welcome, const uint8_t **shard_slots,
                              const void *data, size_t length, struct refusal *refusal);
MUST_CHECK int open_decode(struct frame_open *open, struct bytes *name, const void *data,
                           size_t length, struct refusal *refusal);
MUST_CHECK int opened_decode(struct frame_opened *opened, struct bytes *verbs, const void *data,
                             size_t length, struct refusal *refusal);
MUST_CHECK int ack_decode(struct frame_ack *ack, const void *data, size_t length,
                          struct refusal *refusal);
MUST_CHECK int refuse_decode(struct frame_refuse *refuse, struct bytes *text, const void *data,
                             size_t length);

/* Whether a cache or a verb may have this name: 1 to 255 bytes of UTF-8, no control characters. */
bool name_is_valid(struct bytes name);

/* Steps through the verbs of OPENED: false at the end. `verbs` shrinks; -EPROTO cannot happen. */
bool opened_verb_next(struct bytes *verbs, uint8_t *type, struct bytes *name);

/*
 * Write one frame with its padding at `data` and return its bytes with the padding. The caller has
 * room: the struct, its tail and 7 more.
 */
size_t hello_encode(struct frame_hello *hello, struct bytes token, void *data);
size_t welcome_encode(struct frame_welcome *welcome, const uint16_t *shard_slots, void *data);
size_t open_encode(uint32_t seq, struct bytes name, void *data);
size_t opened_encode(struct frame_opened *opened, struct bytes verbs, void *data);
size_t ack_encode(uint32_t seq, uint32_t requests, uint64_t consumed_bytes, void *data);
#define REFUSE_BYTES_MAX 280
size_t refuse_encode(const struct refusal *refusal, void *data);
