/*
 * A one-way queue of mail from one shard to another: one producer thread, one consumer thread, for
 * life. See lane.c for the layout, the memory order and what was measured against it.
 *
 * Mail is bytes: an 8-byte head (struct mail) and its body, padded to 8 and contiguous. The
 * producer writes any number of mails and publishes them together, so that a batch costs one
 * transfer of a cache line; the consumer sees whole mails only.
 *
 * What runs once a mail is inline here; what runs once a lap or once a batch is in lane.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/attr.h"
#include "base/ck.h"

/* What stands at the start of every mail. */
struct mail {
    uint32_t bytes; /* head and body, a multiple of 8 */
    uint16_t kind;  /* LANE_PAD, or what the two shards agreed on */
    uint16_t small; /* the two shards' */
};
_Static_assert(sizeof(struct mail) == 8, "a pad of 8 bytes must hold a head");

/* Filler at the end of the lane's memory or behind a shortened mail; lane_peek never returns it. */
#define LANE_PAD 0

/* Producer and consumer never write to the same pair of cache lines. */
struct lane {
    struct {
        uint64_t tail; /* bytes ever published; the consumer reads it */
    } published __attribute__((aligned(CACHE_PAIR)));
    struct {
        uint64_t head; /* bytes ever consumed; the producer reads it */
    } consumed __attribute__((aligned(CACHE_PAIR)));
    struct {
        uint64_t tail;      /* bytes ever written, published or not */
        uint64_t limit;     /* `tail` may grow to here without a look at anything else */
        uint64_t head_seen; /* the last `consumed.head` read */
    } producer __attribute__((aligned(CACHE_PAIR)));
    struct {
        uint64_t head;      /* bytes ever popped */
        uint64_t tail_seen; /* the last `published.tail` read */
    } consumer __attribute__((aligned(CACHE_PAIR)));
    uint8_t *memory __attribute__((aligned(CACHE_PAIR)));
    uint64_t bytes; /* a power of two */
};

#define LANE_BYTES_MIN ((size_t)256)
#define LANE_BYTES_MAX ((size_t)1 << 30)
/* Largest mail of a lane of `lane_bytes`: an empty lane takes it wherever its ends stand. */
#define LANE_MAIL_BYTES_MAX(lane_bytes) ((lane_bytes) / 2 - 8)

/*
 * `bytes` is a power of two in LANE_BYTES_MIN .. LANE_BYTES_MAX. Returns 0 or -ENOMEM. The memory
 * is faulted in by the producer's first lap, and so lies near the producer.
 */
MUST_CHECK int lane_init(struct lane *lane, size_t bytes);
/* A lane of zeros (never initialized, or its init failed) is allowed. */
void lane_deinit(struct lane *lane);

/* The part of lane_try_push that is needed once a lap, or when the lane looks full. */
struct mail *lane_try_push_slow(struct lane *lane, size_t bytes, uint16_t kind);
/* The part of lane_peek that is needed once a lap: steps over a pad. */
const struct mail *lane_skip_pad(struct lane *lane);

/*
 * Room for a mail of `bytes` in all (head included, a multiple of 8, at most LANE_MAIL_BYTES_MAX),
 * head already written, `small` as 0. NULL when the lane is full: the caller keeps the mail and
 * stops reading its source. Producer only.
 */
static inline struct mail *lane_try_push(struct lane *lane, size_t bytes, uint16_t kind)
{
    uint64_t tail = lane->producer.tail;
    ASSERT(bytes >= sizeof(struct mail));
    ASSERT((bytes & 7) == 0);
    ASSERT(kind != LANE_PAD);
    if (UNLIKELY(bytes > lane->producer.limit - tail)) return lane_try_push_slow(lane, bytes, kind);

    DEBUG_ASSERT((tail & (lane->bytes - 1)) + bytes <= lane->bytes); /* none straddles the end */
    struct mail *mail = (struct mail *)(lane->memory + (tail & (lane->bytes - 1)));
    *mail = (struct mail){.bytes = (uint32_t)bytes, .kind = kind};
    lane->producer.tail = tail + bytes;
    return mail;
}

/* Shows the consumer everything pushed so far; true where there was something. Producer only. */
bool lane_publish(struct lane *lane);

/*
 * Bytes that could be pushed now without a wrap. Reads the consumer's position. Small near the end
 * of the memory even when the lane is empty, where lane_try_push would wrap and succeed: size a
 * batch by it, but never wait for it to grow. Producer only.
 */
size_t lane_room(struct lane *lane);

/* The oldest mail not yet popped, or NULL. Valid until lane_release. Consumer only. */
static inline const struct mail *lane_peek(struct lane *lane)
{
    uint64_t head = lane->consumer.head;
    if (head == lane->consumer.tail_seen) {
        /* Acquire: the bytes below the tail were written before the tail was. */
        lane->consumer.tail_seen = load_acquire_u64(&lane->published.tail);
        if (head == lane->consumer.tail_seen) return NULL;
    }
    const struct mail *mail = (const struct mail *)(lane->memory + (head & (lane->bytes - 1)));
    if (UNLIKELY(mail->kind == LANE_PAD)) return lane_skip_pad(lane);
    return mail;
}

/* Steps over the mail that lane_peek returned; its memory stays valid until lane_release. */
static inline void lane_pop(struct lane *lane)
{
    uint64_t head = lane->consumer.head;
    const struct mail *mail = (const struct mail *)(lane->memory + (head & (lane->bytes - 1)));
    ASSERT(mail->kind != LANE_PAD);
    ASSERT(mail->bytes <= lane->consumer.tail_seen - head);
    lane->consumer.head = head + mail->bytes;
}

/* Gives everything popped back to the producer. Once a batch. Consumer only. */
void lane_release(struct lane *lane);

/* Whether lane_peek would find mail; may be asked by the consumer while it spins. */
static inline bool lane_has_mail(const struct lane *lane)
{
    return lane->consumer.head != load_acquire_u64(&lane->published.tail);
}

/*
 * Makes the mail that was pushed last, and is not published yet, longer by `bytes` (a multiple of
 * 8). False: the memory or the known room ends, nothing was done. Producer only.
 */
static inline bool lane_try_extend(struct lane *lane, struct mail *mail, size_t bytes)
{
    uint64_t tail = lane->producer.tail;
    DEBUG_ASSERT((bytes & 7) == 0);
    if (UNLIKELY(bytes > lane->producer.limit - tail)) return false;
    /* A mail that ends with the memory; the limit may be the next lap's. */
    if (UNLIKELY((tail & (lane->bytes - 1)) == 0)) return false;
    lane->producer.tail = tail + bytes;
    mail->bytes += (uint32_t)bytes;
    return true;
}

/* Cuts the end of a mail off, as filler. */
COLD void lane_pad(struct mail *mail, size_t bytes);
/*
 * Makes a mail that is not published yet shorter: `bytes` in all. For a reply whose room had to be
 * reserved before its size was known. What is left becomes filler if other mail was pushed behind it
 * meanwhile. Producer only.
 */
static inline void lane_shrink(struct lane *lane, struct mail *mail, size_t bytes)
{
    uint64_t tail = lane->producer.tail;
    ASSERT(bytes <= mail->bytes);
    ASSERT(bytes >= sizeof(struct mail));
    ASSERT((bytes & 7) == 0);
    uint64_t end = (uint64_t)((const uint8_t *)mail - lane->memory) + mail->bytes;
    if (UNLIKELY(((tail ^ end) & (lane->bytes - 1)) != 0)) {
        lane_pad(mail, bytes);
        return;
    }
    /* A mail that ended with the memory; the limit may be the next lap's, and the tail no longer. */
    if (UNLIKELY((tail & (lane->bytes - 1)) == 0)) lane->producer.limit = tail;
    lane->producer.tail = tail - (mail->bytes - bytes);
    ASSERT(lane->producer.tail > load_relaxed_u64(&lane->published.tail));
    mail->bytes = (uint32_t)bytes;
}
