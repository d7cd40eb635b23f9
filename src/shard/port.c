#include "shard/port.h"

#include <errno.h>
#include <string.h>

#include "base/futex.h"
#include "base/memory.h"
#include "shard/crossing.h"
#include "shard/mailbox.h"

int port_init(struct port *port, uint32_t index, uint32_t shards_count, size_t lane_bytes,
              const uint32_t *gone)
{
    *port = (struct port){.index = index,
                          .shards_count = shards_count,
                          .lane_bytes = lane_bytes,
                          .bell = BELL_CLOSED,
                          .gone = gone};
    port->lanes = memory_take(shards_count * sizeof *port->lanes);
    if (port->lanes == NULL) return -ENOMEM;
    for (uint32_t i = 0; i < shards_count; i++) {
        if (lane_init(&port->lanes[i].in, lane_bytes) < 0) goto deinit;
        if (lane_init(&port->lanes[i].out, lane_bytes) < 0) goto deinit;
    }
    return 0;

deinit:
    port_deinit(port);
    return -ENOMEM;
}

void port_deinit(struct port *port)
{
    if (port->lanes == NULL) return;
    for (uint32_t i = 0; i < port->shards_count; i++) {
        lane_discard(&port->lanes[i].in);
        lane_discard(&port->lanes[i].out);
        lane_deinit(&port->lanes[i].in);
        lane_deinit(&port->lanes[i].out);
    }
    memory_put(port->lanes);
    bell_close(&port->bell);
    port->lanes = NULL;
}

void ports_add(struct ports *ports, struct port *port)
{
    ASSERT(port->index == ports->fresh && port->index < PORTS_MAX);
    ports->ports[port->index] = port;
    /* Release: who sees the number sees the port. */
    store_release_u32(&ports->fresh, port->index + 1);
}

uint64_t port_publish(struct port *port, struct mailbox *mailboxes)
{
    uint64_t dirty = port->dirty;
    uint64_t wake = 0;
    if (dirty == 0) return 0;
    port->dirty = 0;
    for (uint64_t left = dirty; left != 0; left &= left - 1)
        lane_publish(&port->lanes[__builtin_ctzll(left)].in); /* PUBLISH */
    exchange_full_u32(&port->fence, 0);                       /* FENCE */
    for (uint64_t left = dirty; left != 0; left &= left - 1)
        if (mailbox_claim(&mailboxes[__builtin_ctzll(left)])) wake |= left & -left;
    return wake;
}

bool port_has_mail(const struct port *port)
{
    for (uint32_t i = 0; i < port->shards_count; i++)
        if (lane_has_mail(&port->lanes[i].out)) return true;
    return false;
}

bool port_sleep(struct port *port)
{
    ASSERT(port->dirty == 0);
    exchange_full_u32(&port->sleeping, 1);                                      /* ANNOUNCE */
    if (!port_has_mail(port) && load_acquire_u32(port->gone) == 0) return true; /* LOOK_AGAIN */
    port_awake(port);                                                           /* TAKE_BACK */
    return false;
}

void port_block(struct port *port, uint64_t wait_ns)
{
    futex_wait(&port->sleeping, 1, wait_ns); /* BLOCK */
}

void port_awake(struct port *port)
{
    store_release_u32(&port->sleeping, 0); /* AWAKE */
}

void port_wake(struct port *port)
{
    if (load_acquire_u32(&port->sleeping) == 0) return; /* LOOK */
    if (!swap_if_u32(&port->sleeping, 1, 0)) return;    /* CLAIM */
    futex_wake(&port->sleeping);                        /* WAKE */
    if (port->is_polled != 0) bell_ring(&port->bell);
}
