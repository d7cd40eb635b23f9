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
#include "shard/port.h"

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
    const struct ports *ports;         /* of the program's threads; NULL: there are none */
    uint64_t dirty_ports[PORTS_MAX / 64];
};

/* Mail comes from and goes to shards by their numbers, and ports by theirs and this. */
#define FROM_PORTS SHARDS_MAX

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

static inline struct port_lanes *mailbox_port(const struct mailbox *mailbox, uint32_t from)
{
    DEBUG_ASSERT(from >= FROM_PORTS);
    return &mailbox->ports->ports[from - FROM_PORTS]->lanes[mailbox->index];
}

/* The lane in which mail of `from`, a shard or a port, comes. */
static inline struct lane *mailbox_in(const struct mailbox *mailbox, uint32_t from)
{
    return LIKELY(from < FROM_PORTS) ? mailbox->in[from] : &mailbox_port(mailbox, from)->in;
}

/* The lane that goes there. */
static inline struct lane *mailbox_out(const struct mailbox *mailbox, uint32_t to)
{
    return LIKELY(to < FROM_PORTS) ? mailbox->out[to] : &mailbox_port(mailbox, to)->out;
}

/* As mailbox_try_push, to a shard or a port. */
static inline struct mail *mailbox_try_push_to(struct mailbox *mailbox, uint32_t to, size_t bytes,
                                               uint16_t kind)
{
    if (LIKELY(to < FROM_PORTS)) return mailbox_try_push(mailbox, to, bytes, kind);
    struct mail *mail = lane_try_push(&mailbox_port(mailbox, to)->out, bytes, kind);
    uint32_t port = to - FROM_PORTS;
    if (mail != NULL) mailbox->dirty_ports[port / 64] |= (uint64_t)1 << port % 64;
    return mail;
}

/* Ports that may have mail: those below this. */
static inline uint32_t mailbox_ports_count(const struct mailbox *mailbox)
{
    return mailbox->ports == NULL ? 0 : load_acquire_u32(&mailbox->ports->fresh);
}

/*
 * Publishes every lane that has unpublished mail, then, after one full barrier, wakes the ports that
 * sleep and collects the shards that do: returns them, a bit each, for the caller to wake. Each
 * sleeper is handed to exactly one sender. Once a turn.
 *
 * The caller's wake must be remembered by the kernel until the sleeper blocks (an eventfd, a
 * message into its io_uring): it may arrive before.
 */
uint64_t mailbox_publish(struct mailbox *mailbox);

/* After a publication and a full barrier: true, the shard sleeps and the caller must wake it. */
bool mailbox_claim(struct mailbox *mailbox);

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
