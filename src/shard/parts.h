/*
 * Parts of a stream that other threads gave to a shard, and that have not gone home yet: frames on the
 * heap, in the order in which they came. Whoever gives them counts their bytes up, in struct given, and
 * gives no more where that is over PARTS_BYTES_MAX; here it is counted down.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"

/* Of one stream, between the threads that make it and the lane to its caller's shard. */
#define PARTS_BYTES_MAX (64 * KIB)

/* What threads and the shard share of one stream. */
struct given {
    uint64_t bytes;      /* given, and not under way yet */
    uint32_t wants_room; /* somebody was told that there is none; full barriers, as in mailbox.c */
};

struct part {
    struct part *next;
    uint8_t *frame; /* on the heap, its own block */
    uint32_t frame_bytes;
    uint32_t given_bytes; /* that it was counted with */
};

struct parts {
    struct part *first;
    struct part *last;
};

/* 0, or -ENOMEM: it was not taken. */
MUST_CHECK int parts_push(struct parts *parts, const struct part *part);
/* Takes out the first one: its frame is the caller's. */
void parts_pop(struct parts *parts);
/* Frees them all; returns the bytes that they were counted with. */
uint64_t parts_drop(struct parts *parts);
