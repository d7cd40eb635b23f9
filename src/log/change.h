/*
 * One record of a log: a change, which is a request as its owner accepted it.
 *
 * The first 24 bytes are those of the request (wire/frame.h); 32 more say where the change stands.
 * The record in memory is the record on the wire and on disk: it is encoded once, is never written
 * to again, and is followed by its key, its value and zeros up to a multiple of 8.
 *
 *   0        4    5     6       8     10    12       16
 *   +--------+----+-----+-------+-----+-----+--------+----------------+
 *   | length |type|flags|key_len|  0  | slot|  seq   |    key_hash    |
 *   +--------+----+-----+-------+-----+-----+--------+----------------+
 *   |  place (48) | seq_high(16)|  offset (48) | floor_delta (16)     |
 *   +---------------------------+--------------------------------------+
 *   |           hlc             |               session                |
 *   +---------------------------+--------------------------------------+
 *
 * A change always has a key, so a record is at least 64 bytes: two records never begin in the same
 * 64 bytes of a segment, which is what the index stands on (log/segments.h).
 */
#pragma once

#include <stdint.h>

#include "wire/frame.h"

struct change {
    uint32_t length; /* header, extensions, key and value; without the padding */
    uint8_t type;    /* FRAME_UPDATE, FRAME_REMOVE or FRAME_ADD */
    uint8_t flags;   /* FRAME_VALUE_TYPE, FRAME_EXTENDED, CHANGE_... */
    uint16_t key_len;
    uint16_t cache; /* 0: a log belongs to one cache */
    uint16_t slot;
    uint32_t seq;              /* low half of the session's sequence number */
    uint64_t key_hash;         /* under the cluster's seed */
    uint64_t place_and_seq;    /* place in the slot's log (48, from 1), sequence bits 32..47 */
    uint64_t offset_and_floor; /* offset in the partition's log (48, from 1), seq - floor (16) */
    uint64_t hlc;              /* hybrid logical clock: 48 bits of milliseconds, 16 of a counter */
    uint64_t session;          /* 0: none */
};
_Static_assert(sizeof(struct change) == 56, "the change is on the wire and on disk");

/* Flags of a change whose key is a path, beside FRAME_VALUE_TYPE. */
#define CHANGE_IN_ARRAY 0x10u /* the last part of the path is an index of an array */
#define CHANGE_DEEP 0x20u     /* the key is a path: set in all of these, and in no others */
#define CHANGE_EMPTIES                                                                             \
    0x80u /* a removal that leaves an empty object or array, which stands for itself */

#define CHANGE_BYTES sizeof(struct change)
#define CHANGE_48_BITS (((uint64_t)1 << 48) - 1)

static inline uint64_t change_place(const struct change *change)
{
    return change->place_and_seq & CHANGE_48_BITS;
}

static inline uint64_t change_offset(const struct change *change)
{
    return change->offset_and_floor & CHANGE_48_BITS;
}

static inline uint64_t change_seq(const struct change *change)
{
    return (change->place_and_seq >> 48 << 32) | change->seq;
}

static inline size_t change_padded_bytes(const struct change *change)
{
    return round_up_8(change->length);
}

static inline bool change_is_deep(const struct change *change)
{
    return (change->flags & CHANGE_DEEP) != 0;
}

static inline const uint8_t *change_key(const struct change *change)
{
    return (const uint8_t *)(change + 1);
}

static inline const uint8_t *change_value(const struct change *change)
{
    return change_key(change) + change->key_len;
}

static inline size_t change_value_bytes(const struct change *change)
{
    return change->length - CHANGE_BYTES - change->key_len;
}

/*
 * Bytes of the record at `data`, with its padding, if it is one that may be believed: its lengths
 * are inside of `size`, a multiple of 8, and it has a key. 0: it is none.
 */
static inline size_t change_checked_bytes(const uint8_t *data, size_t size)
{
    struct change change;
    if (size < CHANGE_BYTES) return 0;
    memcpy(&change, data, sizeof change);
    if (change.key_len == 0 || change.length < CHANGE_BYTES + change.key_len) return 0;
    size_t padded = change_padded_bytes(&change);
    return padded <= size ? padded : 0;
}

static inline enum value_type change_value_type(const struct change *change)
{
    return (enum value_type)(change->flags & FRAME_VALUE_TYPE);
}

/*
 * The chain of a slot identifies its whole history in 8 bytes: equal chains at equal places mean
 * equal changes. It mixes what identifies a change, not the payload, which the batch's checksum
 * covers. Each step can be undone, because an odd multiplier has an inverse modulo 2^64: that is
 * how a truncated slot gets its old chain back.
 */
#define CHAIN_MULTIPLIER 0x9e3779b97f4a7c15u
#define CHAIN_INVERSE 0xf1de83e19937733du
_Static_assert((uint64_t)(CHAIN_MULTIPLIER *CHAIN_INVERSE) == 1, "each undoes the other");

static inline uint64_t change_identity_of(uint64_t session, uint64_t place_and_seq,
                                          uint64_t key_hash, uint64_t route)
{
    return session ^ (place_and_seq << 13 | place_and_seq >> 51) ^ key_hash ^ route;
}

/* Its second word: slot and low half of the number. */
static inline uint64_t change_route(uint16_t slot, uint32_t seq)
{
    return (uint64_t)slot << 16 | (uint64_t)seq << 32;
}

static inline uint64_t change_identity(const struct change *change)
{
    return change_identity_of(change->session, change->place_and_seq, change->key_hash,
                              change_route(change->slot, change->seq));
}

static inline uint64_t chain_next(uint64_t chain, uint64_t identity)
{
    return (chain ^ identity) * CHAIN_MULTIPLIER;
}

static inline uint64_t chain_previous(uint64_t chain, uint64_t identity)
{
    return (chain * CHAIN_INVERSE) ^ identity;
}
