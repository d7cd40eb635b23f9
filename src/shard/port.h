/*
 * A port: how a thread of the program that is no shard speaks with the shards of its node. It has a
 * lane to each shard and one back, and sleeps and is woken as a shard is: mailbox.c has the proof.
 *
 * A port is one thread's at a time. It is made when a thread first needs one, and lives as long as
 * its node: shards go on looking at the lanes of all that were made. The thread that takes a port
 * over goes on where the one before stopped, and meets replies of requests that were not its own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/ck.h"
#include "net/bell.h"
#include "shard/lane.h"

#define PORTS_MAX 256

/* The two lanes between a port and one shard. */
struct port_lanes {
    struct lane in;          /* the thread writes, the shard reads */
    struct lane out;         /* the shard writes, the thread reads */
    uint64_t promised_bytes; /* the thread's: of replies that will come */
} __attribute__((aligned(CACHE_PAIR)));

struct port {
    uint32_t sleeping __attribute__((aligned(CACHE_PAIR))); /* shards read and clear it */
    uint32_t
        is_polled; /* `bell` is rung too; set by the thread before it sleeps for the first time */
    struct bell bell;
    uint32_t fence __attribute__((aligned(CACHE_PAIR))); /* own thread: a full barrier's target */
    uint32_t index;
    uint32_t shards_count;
    uint64_t dirty;           /* shards with unpublished mail, a bit each */
    struct port_lanes *lanes; /* by shard */
    size_t lane_bytes;
    const uint32_t *gone; /* not 0: no shard turns any more, so nobody will wake it */
};

/* All ports of a node. Shards look at those below `fresh`, each of which stays as it is. */
struct ports {
    uint32_t fresh __attribute__((aligned(CACHE_PAIR))); /* release, acquire */
    struct port *ports[PORTS_MAX];
};

/* 0 or -ENOMEM. `gone` is the node's. */
MUST_CHECK int port_init(struct port *port, uint32_t index, uint32_t shards_count,
                         size_t lane_bytes, const uint32_t *gone);
/* After all shards have ended. Lets go of what is in its lanes. */
void port_deinit(struct port *port);
/* Shows it to the shards. One thread at a time. */
void ports_add(struct ports *ports, struct port *port);

/* As lane_try_push, to shard `to`, remembering that its lane must be published. */
static inline struct mail *port_try_push(struct port *port, uint32_t to, size_t bytes,
                                         uint16_t kind)
{
    struct mail *mail = lane_try_push(&port->lanes[to].in, bytes, kind);
    if (mail != NULL) port->dirty |= (uint64_t)1 << to;
    return mail;
}

struct mailbox;
/*
 * As mailbox_publish, from a port. Returns the shards that the caller must wake, a bit each.
 * `mailboxes` are the node's, by shard.
 */
MUST_CHECK uint64_t port_publish(struct port *port, struct mailbox *mailboxes);
/* Whether a shard has sent it something. */
bool port_has_mail(const struct port *port);
/*
 * As mailbox_sleep. False where the node is gone, too: look for the last mail. True: port_block, or
 * wait for `bell`.
 */
MUST_CHECK bool port_sleep(struct port *port);
void port_block(struct port *port, uint64_t wait_ns);
void port_awake(struct port *port);
/* Wakes it if it sleeps, each sleep once. From any thread, after a full barrier. */
void port_wake(struct port *port);
