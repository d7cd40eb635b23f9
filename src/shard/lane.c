/*
 * Lanes carry what one shard asks another: a run of frames a turn, each a few dozen to a few
 * thousand bytes. At ten million a second there is no time for a cache miss a message on either
 * side, so both sides work on runs of bytes and meet once a batch.
 *
 * Layout. `memory` is a power of two of bytes; positions are bytes since the lane was made, 64 bits
 * that never wrap in practice, and `position & (bytes - 1)` is the place in memory. Empty is
 * head == tail, full is tail - head == bytes, and every byte can be used.
 *
 *       consumed.head    consumer.head        published.tail    producer.tail     consumed.head
 *            |   popped,      |    to be            |  pushed,        |    free     + bytes
 *            |   not released |    popped           |  not published  |                |
 *     -------+----------------+---------------------+-----------------+----------------+-------
 *
 *     consumed.head <= consumer.head <= consumer.tail_seen <= published.tail <= producer.tail
 *     producer.tail <= producer.limit <= producer.head_seen + bytes <= consumed.head + bytes
 *
 * A mail never straddles the end of the memory: it is parsed where it lies. Where it does not fit
 * before the end, the rest of the lap is one pad (a head with kind LANE_PAD; there is always room
 * for a head, as all lengths are multiples of 8), and the mail starts the next lap. The pad and its
 * mail are pushed by one step of producer.tail, so the consumer never meets a pad without a mail
 * behind it. Pad and mail together need less than twice the mail, so a mail of up to
 * LANE_MAIL_BYTES_MAX, a little under half the memory, always fits an empty lane.
 *
 * What a push compares. `limit` is the nearer of two ends: the end of the lap, and the end of the
 * room as of head_seen. As long as the tail stays below it, a push is one comparison and touches
 * nothing that the consumer writes; once a lap, or when the lane looks full, the slow path reads
 * consumed.head and renews it. The consumer likewise reads published.tail only when it has popped
 * all it knew of. So a batch costs each side about one miss on the other's index.
 *
 * A mail may end with its lap; the tail then stands where the next lap starts, and a limit that is
 * renewed is one of that lap. Whoever changes the size of such a mail minds that.
 *
 * Memory order. Two words are written by one side and read by the other.
 *
 *   published.tail   The producer stores it with release after the bytes below it; the consumer
 *                    loads it with acquire before it reads those bytes. So whoever sees a tail sees
 *                    every mail below it, whole.
 *   consumed.head    The consumer stores it with release after it read the bytes below it; the
 *                    producer loads it with acquire before it writes over them. So no byte changes
 *                    under a reader: popped mail stays valid until lane_release.
 *
 * Both only grow, and a stale value errs on the safe side: an old tail hides mail, an old head
 * hides room. Each word has one writer, who reads its own copy without order. All else in struct
 * lane belongs to one side. Nothing here orders a tail store against a later load of another word:
 * that is the mailbox's full barrier, once a turn for all lanes (mailbox.c).
 *
 * A drain should bound itself: lane_peek goes on to mail published meanwhile.
 *
 * Rejected (figures in docs/adr/0002-lanes.md):
 *   a ring of slots      either copies a fixed size for a small mail or limits the large one.
 *   a ring of pointers   the mail then lies in the sender's memory, pinned until it comes home, and
 *                        costs a miss on the slot and one on the mail.
 *   publishing each      a transfer of the tail's line for every message.
 *   two mappings of the memory, so that nothing wraps
 *                        two more mappings and a file descriptor a lane, to save one pad in a lap.
 *   prefetching for writing ahead of the tail, and for reading ahead of the head
 *                        no difference beyond the noise of the measurement.
 */
#include "shard/lane.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/memory.h"

int lane_init(struct lane *lane, size_t bytes)
{
    ASSERT(is_power_of_two(bytes));
    ASSERT(bytes >= LANE_BYTES_MIN);
    ASSERT(bytes <= LANE_BYTES_MAX);
    memset(lane, 0, sizeof(*lane));

    lane->memory = memory_reserve(bytes, 0);
    if (lane->memory == NULL) return -ENOMEM;
    lane->bytes = bytes;
    lane->producer.limit = bytes;
    return 0;
}

void lane_deinit(struct lane *lane)
{
    memory_release(lane->memory, lane->bytes);
    memset(lane, 0, sizeof(*lane));
}

/* Where the current lap ends; a tail that stands on a boundary is in the lap that starts there. */
static uint64_t lap_end(const struct lane *lane, uint64_t tail)
{
    return (tail & ~(lane->bytes - 1)) + lane->bytes;
}

/* Acquire: the consumer has read what it released before the producer writes over it. */
static void look_at_head(struct lane *lane)
{
    lane->producer.head_seen = load_acquire_u64(&lane->consumed.head);
    ASSERT(lane->producer.tail - lane->producer.head_seen <= lane->bytes);
}

static void limit_renew(struct lane *lane)
{
    lane->producer.limit =
        min_u64(lane->producer.head_seen + lane->bytes, lap_end(lane, lane->producer.tail));
    ASSERT(lane->producer.limit >= lane->producer.tail);
}

struct mail *lane_try_push_slow(struct lane *lane, size_t bytes, uint16_t kind)
{
    ASSERT(bytes <= LANE_MAIL_BYTES_MAX(lane->bytes));
    uint64_t tail = lane->producer.tail;
    uint64_t lap_bytes = lap_end(lane, tail) - tail;
    uint64_t pad_bytes = bytes > lap_bytes ? lap_bytes : 0;

    uint64_t end = tail + pad_bytes + bytes;
    if (end - lane->producer.head_seen > lane->bytes) look_at_head(lane);
    if (end - lane->producer.head_seen > lane->bytes) {
        limit_renew(lane);
        return NULL;
    }

    if (pad_bytes > 0) {
        struct mail *pad = (struct mail *)(lane->memory + (tail & (lane->bytes - 1)));
        *pad = (struct mail){.bytes = (uint32_t)pad_bytes, .kind = LANE_PAD};
        tail += pad_bytes;
    }
    struct mail *mail = (struct mail *)(lane->memory + (tail & (lane->bytes - 1)));
    *mail = (struct mail){.bytes = (uint32_t)bytes, .kind = kind};
    lane->producer.tail = end;
    limit_renew(lane);
    return mail;
}

bool lane_publish(struct lane *lane)
{
    uint64_t tail = lane->producer.tail;
    if (load_relaxed_u64(&lane->published.tail) == tail) return false;
    /* Release: the mails below the tail are written before it. */
    store_release_u64(&lane->published.tail, tail);
    return true;
}

size_t lane_room(struct lane *lane)
{
    look_at_head(lane);
    limit_renew(lane);
    return lane->producer.limit - lane->producer.tail;
}

const struct mail *lane_skip_pad(struct lane *lane)
{
    uint64_t head = lane->consumer.head;
    const struct mail *mail;
    do {
        const struct mail *pad = (const struct mail *)(lane->memory + (head & (lane->bytes - 1)));
        head += pad->bytes;
        /* A pad is published together with a mail behind it. */
        ASSERT(lane->consumer.tail_seen - head >= sizeof(struct mail));
        mail = (const struct mail *)(lane->memory + (head & (lane->bytes - 1)));
    } while (mail->kind == LANE_PAD);
    lane->consumer.head = head;
    return mail;
}

COLD void lane_pad(struct mail *mail, size_t bytes)
{
    uint32_t rest = mail->bytes - (uint32_t)bytes;
    if (rest == 0) return;
    *(struct mail *)((uint8_t *)mail + bytes) = (struct mail){.bytes = rest, .kind = LANE_PAD};
    mail->bytes = (uint32_t)bytes;
}

void lane_release(struct lane *lane)
{
    uint64_t head = lane->consumer.head;
    if (load_relaxed_u64(&lane->consumed.head) == head) return;
    /* Release: everything popped has been read before its memory is given back. */
    store_release_u64(&lane->consumed.head, head);
}
