/*
 * A node of the simulator: real shards, each a fiber with an io of its own, all with the options
 * that a seed draws. As in a process, they share mailboxes and stop together.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ring/slot.h"
#include "shard/shard.h"
#include "tests/sim/history.h"
#include "tests/sim/servant.h"
#include "tests/sim/sim_io.h"

struct sim_node;

struct sim_member {
    struct sim_node *node;
    struct shard *shard;
    struct sim_io *io;
    struct servant servant;
    struct actor actor;
    char name[24];
};

struct sim_node {
    struct world *world;
    struct network *network;
    struct history *history;
    struct shard_options options;
    struct trace trace;
    struct mailbox *mailboxes;
    struct shard *shards[HISTORY_SHARDS_MAX];
    struct sim_member members[HISTORY_SHARDS_MAX];
    struct cache_definition definitions[HISTORY_CACHES_MAX];
    uint32_t caches_count;
    uint16_t slot_owner[SLOTS_COUNT];
    uint32_t up_count;      /* shards that have opened their caches */
    uint32_t stopped_count; /* that make no turn any more */
    uint64_t drain_ns;
};

void sim_node_open(struct sim_node *node, struct world *world, struct network *network,
                   struct history *history, const struct shard_options *options,
                   uint32_t caches_count);
bool sim_node_is_up(const struct sim_node *node);
/* Tells all shards to stop. */
void sim_node_stop(struct sim_node *node, uint64_t drain_ns);
bool sim_node_is_stopped(const struct sim_node *node);
void sim_node_close(struct sim_node *node);
/* Whether every bound holds; aborts the world where one does not. */
void sim_node_check_bounds(const struct sim_node *node);
/* The same for what must be so when nobody has anything to do: nothing is promised or owed. */
void sim_node_check_quiet(const struct sim_node *node);

/* See base/clock.h and log/log.h: the log is read when a turn has sealed it. */
struct log;
void __wrap_log_seal(struct log *log);
