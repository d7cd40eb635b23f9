/*
 * All the lanes of one shard, and its sleep: who has to be woken, and when.
 *
 * The proof that no wake-up is lost stands in mailbox.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/attr.h"
#include "shard/lane.h"

/* More shards than this need another scheme of finding the lanes that have mail. */
#define SHARDS_MAX 64

struct mailbox {
    uint32_t sleeping __attribute__((aligned(CACHE_PAIR))); /* others read and clear it */
    uint32_t fence __attribute__((aligned(CACHE_PAIR))); /* own thread: a full barrier's target */
    uint32_t index;
    uint32_t shards_count;
    uint64_t dirty;                    /* receivers with unpublished mail, a bit each */
    uint64_t wakes;                    /* counter: sleepers woken by this shard */
    struct lane *in[SHARDS_MAX];       /* by sender; NULL for the own index */
    struct lane *out[SHARDS_MAX];      /* by receiver; NULL for the own index */
    struct mailbox *peers[SHARDS_MAX]; /* by index, the own one included */
    struct lane *lanes;                /* memory of those in `out`; NULL for one shard */
};

/*
 * Makes `shards_count` mailboxes, joined by one lane of `lane_bytes` for every ordered pair.
 * `mailboxes` is the caller's memory, aligned to CACHE_PAIR. Returns 0, or -ENOMEM with nothing
 * kept. One shard has no lanes.
 */
MUST_CHECK int mailboxes_init(struct mailbox *mailboxes, uint32_t shards_count, size_t lane_bytes);
/* After all threads that used them have ended. */
void mailboxes_deinit(struct mailbox *mailboxes, uint32_t shards_count);

/* As lane_try_push, to shard `to`, remembering that its lane must be published. */
static inline struct mail *mailbox_try_push(struct mailbox *mailbox, uint32_t to, size_t bytes,
                                            uint16_t kind)
{
    DEBUG_ASSERT(to < mailbox->shards_count);
    DEBUG_ASSERT(to != mailbox->index);
    struct mail *mail = lane_try_push(mailbox->out[to], bytes, kind);
    /* Stored once a turn: a store with every mail was measured to cost up to 5 ns each. */
    bool is_dirty = (mailbox->dirty >> to & 1) != 0;
    if (UNLIKELY(!is_dirty) && mail != NULL) mailbox->dirty |= (uint64_t)1 << to;
    return mail;
}

/*
 * Publishes every lane that has unpublished mail, then, after one full barrier, collects the
 * receivers that sleep and must be woken by the caller: returns them, a bit each. Each sleeper is
 * handed to exactly one sender. Once a turn.
 *
 * The caller's wake must be remembered by the kernel until the sleeper blocks (an eventfd, a
 * message into its io_uring): it may arrive before.
 */
uint64_t mailbox_publish(struct mailbox *mailbox);

/* Whether any lane to this shard has mail. */
bool mailbox_has_mail(const struct mailbox *mailbox);

/*
 * Before blocking: announces the sleep and looks once more. False: there is mail, do not block (the
 * announcement is taken back). True: block; whoever publishes from now on wakes this shard.
 *
 * Everything pushed must be published. A shard that keeps mail because a lane was full must not
 * block for long: it is woken by mail, not by room.
 */
MUST_CHECK bool mailbox_sleep(struct mailbox *mailbox);
/* After blocking, whatever ended it. */
void mailbox_awake(struct mailbox *mailbox);
