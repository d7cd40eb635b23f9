/*
 * Who wakes whom.
 *
 * A shard that has nothing to do blocks in the kernel, and whoever sends it mail then must wake it,
 * which costs the sender a system call. So a sender looks whether the receiver sleeps, and that
 * look can race with the receiver falling asleep. The steps, in program order:
 *
 *     sender                                        sleeper
 *     PUBLISH  store the tails of all its lanes     ANNOUNCE    sleeping = 1, full barrier
 *     FENCE    full barrier, once a turn            LOOK_AGAIN  load the tails of all lanes to it
 *     LOOK     load the receiver's `sleeping`       TAKE_BACK   mail: sleeping = 0, go on
 *     CLAIM    1: compare and swap it to 0          BLOCK       none: wait in the kernel
 *     WAKE     swapped: wake the receiver           AWAKE       sleeping = 0
 *
 * No wake-up is lost. Suppose a sleeper passed LOOK_AGAIN and blocks although a mail was sent.
 *
 *   1. Its load in LOOK_AGAIN did not see the mail's tail. FENCE and ANNOUNCE are full barriers,
 *      and so stand in one order that both threads agree on.
 *   2. Were FENCE first, everything before it, PUBLISH too, would be visible to everything after
 *      ANNOUNCE, LOOK_AGAIN too. That contradicts 1, so ANNOUNCE came first.
 *   3. Then the 1 is visible to LOOK, which follows FENCE. LOOK reads the 1, or a value written
 *      after it: a later 0, by a CLAIM or by the sleeper itself (TAKE_BACK, AWAKE).
 *   4. If LOOK reads the 1, CLAIM takes it, and WAKE follows, or CLAIM finds a later 0.
 *   5. A later 0 by a CLAIM: that sender has a WAKE before it. A later 0 by the sleeper: it is no
 *      longer in the sleep we speak of, and drains its lanes before the next.
 *
 * So there is a WAKE after ANNOUNCE, and the kernel remembers it until the sleeper waits (an
 * eventfd counts, a message to an io_uring is queued): one that comes before BLOCK ends BLOCK at
 * once. The caller owes that memory; a futex or a signal without it would lose the wake-up.
 *
 * One wake a sleep. Only ANNOUNCE writes 1, and of all senders that read it one alone swaps it to
 * 0. A wake may be needless, when both sides saw each other and the sleeper took its announcement
 * back; it then ends the next sleep early, and the loop goes round once for nothing.
 *
 * Threads of the program are senders and sleepers by the same steps (port.c). A port that is new to
 * a shard is found by `fresh`, which grows before the port's first PUBLISH and is loaded first in
 * LOOK_AGAIN: by 2, whoever passed LOOK_AGAIN without seeing the port announced before FENCE. A port
 * blocks on the word `sleeping` itself, and CLAIM changes it, so the kernel remembers the wake-up by
 * the word: who comes to sleep on a 0 does not. One that is polled instead has an eventfd as well.
 * A node that stops is a sender to its ports, and what it publishes is `gone`.
 *
 * What breaks it: leaving out either barrier (a store may wait in the store buffer while a later
 * load runs ahead of it, on x86 too), announcing after the last look, publishing after the look, a
 * swap that is not atomic, a wake that is not remembered. tests/unit/test_wakeup_model.c follows
 * every interleaving of these steps under store buffers, and finds each of those bugs when it is
 * planted. If you change a step here, change it there.
 *
 * Order of single accesses. TAKE_BACK and AWAKE need no barrier: a 0 that is late costs a needless
 * wake, and ANNOUNCE, by the same thread to the same word, cannot be overtaken by it. The barrier
 * of FENCE is an exchange on a word of the own cache line, as the locked instruction costs about a
 * sixth of mfence; one for all receivers, since what it orders is this thread's stores against its
 * loads, whatever their addresses. Under ThreadSanitizer the exchange is a C11 one, which on paper
 * orders less than a barrier and in that build is the same instruction.
 *
 * Rejected: waking always (a system call a turn and receiver); the barrier after each message (the
 * message then costs about twice as much, docs/adr/0002-lanes.md); membarrier in the sleeper
 * instead of FENCE (its callers queue up in the kernel, and a barrier a turn is too cheap to
 * save); a set of senders with mail, for shards by the hundred: at SHARDS_MAX, looking at each
 * tail is cheap, as an unchanged one stays in the own cache.
 */
#include "shard/mailbox.h"

#include <errno.h>
#include <string.h>

#include "base/buggify.h"
#include "base/bytes.h"
#include "base/ck.h"
#include "base/memory.h"

static int mailbox_init(struct mailbox *mailboxes, uint32_t from, size_t lane_bytes)
{
    struct mailbox *mailbox = &mailboxes[from];
    uint32_t receivers_count = mailbox->shards_count - 1;
    mailbox->lanes = memory_reserve(receivers_count * sizeof(struct lane), 0);
    if (mailbox->lanes == NULL) return -ENOMEM;

    struct lane *lane = mailbox->lanes;
    for (uint32_t to = 0; to < mailbox->shards_count; to++) {
        if (to == from) continue;
        int err = lane_init(lane, lane_bytes);
        if (err < 0) return err;
        mailbox->out[to] = lane;
        mailboxes[to].in[from] = lane;
        lane++;
    }
    return 0;
}

int mailboxes_init(struct mailbox *mailboxes, uint32_t shards_count, size_t lane_bytes)
{
    ASSERT(shards_count >= 1);
    ASSERT(shards_count <= SHARDS_MAX);
    ASSERT(((uintptr_t)mailboxes & (CACHE_PAIR - 1)) == 0);
    memset(mailboxes, 0, shards_count * sizeof(*mailboxes));

    for (uint32_t i = 0; i < shards_count; i++) {
        mailboxes[i].index = i;
        mailboxes[i].shards_count = shards_count;
        for (uint32_t j = 0; j < shards_count; j++) mailboxes[i].peers[j] = &mailboxes[j];
    }
    if (shards_count == 1) return 0;
    for (uint32_t from = 0; from < shards_count; from++) {
        int err = mailbox_init(mailboxes, from, lane_bytes);
        if (err < 0) {
            mailboxes_deinit(mailboxes, shards_count);
            return err;
        }
    }
    return 0;
}

void mailboxes_deinit(struct mailbox *mailboxes, uint32_t shards_count)
{
    for (uint32_t from = 0; from < shards_count; from++) {
        struct mailbox *mailbox = &mailboxes[from];
        for (uint32_t to = 0; to < shards_count; to++) {
            if (mailbox->out[to] != NULL) lane_deinit(mailbox->out[to]);
        }
        memory_release(mailbox->lanes, (shards_count - 1) * sizeof(struct lane));
    }
    memset(mailboxes, 0, shards_count * sizeof(*mailboxes));
}

/* Takes the lowest bit out of `*set`, which is not empty, and returns its index. */
static uint32_t take_first(uint64_t *set)
{
    uint32_t first = (uint32_t)__builtin_ctzll(*set);
    *set &= *set - 1;
    return first;
}

bool mailbox_claim(struct mailbox *mailbox)
{
    if (load_acquire_u32(&mailbox->sleeping) == 0) return false; /* LOOK */
    return swap_if_u32(&mailbox->sleeping, 1, 0);                /* CLAIM */
}

/* Calls `visit` for each port with unpublished mail; true: there was one. */
static bool each_dirty_port(const struct mailbox *mailbox,
                            void (*visit)(const struct mailbox *mailbox, struct port *port))
{
    bool any = false;
    for (uint32_t i = 0; i < ARRAY_COUNT(mailbox->dirty_ports); i++) {
        for (uint64_t left = mailbox->dirty_ports[i]; left != 0; any = true)
            visit(mailbox, mailbox->ports->ports[i * 64 + take_first(&left)]);
    }
    return any;
}

static void publish_to_port(const struct mailbox *mailbox, struct port *port)
{
    lane_publish(&port->lanes[mailbox->index].out); /* PUBLISH */
}

static void wake_port(const struct mailbox *mailbox, struct port *port)
{
    (void)mailbox;
    port_wake(port); /* LOOK, CLAIM, WAKE */
}

uint64_t mailbox_publish(struct mailbox *mailbox)
{
    uint64_t dirty = mailbox->dirty;
    bool has_ports = mailbox->ports != NULL && each_dirty_port(mailbox, publish_to_port);
    if (dirty == 0 && !has_ports) return 0;
    mailbox->dirty = 0;

    for (uint64_t left = dirty; left != 0;) {
        lane_publish(mailbox->out[take_first(&left)]); /* PUBLISH */
    }
    exchange_full_u32(&mailbox->fence, 0); /* FENCE */

    uint64_t wake = 0;
    for (uint64_t left = dirty; left != 0;) {
        uint32_t to = take_first(&left);
        if (mailbox_claim(mailbox->peers[to])) wake |= (uint64_t)1 << to;
    }
    if (PLANTED("wake_forgotten")) wake &= wake - 1;
    mailbox->wakes += (uint64_t)__builtin_popcountll(wake);
    if (has_ports) {
        each_dirty_port(mailbox, wake_port);
        memset(mailbox->dirty_ports, 0, sizeof mailbox->dirty_ports);
    }
    return wake;
}

bool mailbox_has_mail(const struct mailbox *mailbox)
{
    for (uint32_t from = 0; from < mailbox->shards_count; from++) {
        if (from != mailbox->index && lane_has_mail(mailbox->in[from])) return true;
    }
    uint32_t ports = mailbox_ports_count(mailbox);
    for (uint32_t i = 0; i < ports; i++) {
        if (lane_has_mail(mailbox_in(mailbox, FROM_PORTS + i))) return true;
    }
    return false;
}

bool mailbox_sleep(struct mailbox *mailbox)
{
    ASSERT(mailbox->dirty == 0);
    exchange_full_u32(&mailbox->sleeping, 1);    /* ANNOUNCE */
    if (!mailbox_has_mail(mailbox)) return true; /* LOOK_AGAIN */
    store_release_u32(&mailbox->sleeping, 0);    /* TAKE_BACK */
    return false;
}

void mailbox_awake(struct mailbox *mailbox)
{
    store_release_u32(&mailbox->sleeping, 0); /* AWAKE */
}
