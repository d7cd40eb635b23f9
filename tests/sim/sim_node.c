#include "tests/sim/sim_node.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "shard/crossing.h"
#include "shard/request.h"

void __real_log_seal(struct log *log);

/* For __wrap_log_seal. */
static struct history *current;

void __wrap_log_seal(struct log *log)
{
    __real_log_seal(log);
    if (current != NULL && log->batch == NULL) history_read_log(current, log);
}

static const char *const cache_names[HISTORY_CACHES_MAX] = {"first", "second"};

/* ---------------------------------------------------------------------------------- a shard */

static void open_caches(struct sim_member *member)
{
    struct sim_node *node = member->node;
    struct shard *shard = member->shard;
    for (uint32_t i = 0; i < node->caches_count; i++) {
        shard->command_argument = &node->definitions[i];
        shard->command_done = 0;
        shard->command = COMMAND_OPEN_CACHE;
        while (shard->command_done == 0) shard_turn(shard);
        ASSERT(shard->command_result == 0);
        history_add_store(node->history, shard->index, i, &shard->caches[i]->store);
    }
}

/* What a shard's thread does: see thread_main in engine/node.c. */
static void shard_main(void *context)
{
    struct sim_member *member = context;
    struct sim_node *node = member->node;
    struct shard *shard = member->shard;
    uint32_t index = (uint32_t)(member - node->members);
    struct io *io = sim_io_base(member->io);
    int err = shard_init(shard, index, io, &node->mailboxes[index], node->shards, node->slot_owner,
                         &node->options);
    ASSERT(err == 0);
    servant_init(&member->servant, node->world, shard);
    open_caches(member);
    struct address any = address_loopback(7700);
    if (index == 0) ASSERT(io_listen(io, &any, NULL) == 0);
    member->actor.is_short = true;
    node->up_count++;
    while (shard_turn(shard)) sim_node_check_bounds(node);
    store_release_u32(&shard->is_needed, 0);
    node->stopped_count++;
}

/* ----------------------------------------------------------------------------------- the node */

static void on_trace(enum trace_level level, const char *line, void *context)
{
    struct sim_node *node = context;
    (void)level;
    if (node->world->is_traced) fprintf(stderr, "              node: %s\n", line);
    /* Refusals that have nothing to do with what was sent. */
    bool is_allowed = strstr(line, "too slow") != NULL || strstr(line, "no memory") != NULL ||
                      strstr(line, "no HELLO") != NULL || strstr(line, "within a frame") != NULL;
    if (strstr(line, "link refused") != NULL && !is_allowed) world_fail(node->world, "%s", line);
}

void sim_node_open(struct sim_node *node, struct world *world, struct network *network,
                   struct history *history, const struct shard_options *options,
                   uint32_t caches_count)
{
    uint32_t shards = options->shards_count;
    *node = (struct sim_node){.world = world,
                              .network = network,
                              .history = history,
                              .options = *options,
                              .caches_count = caches_count};
    node->trace = (struct trace){.function = on_trace, .context = node, .level = TRACE_DEBUG};
    node->options.trace = &node->trace;
    current = history;
    for (uint32_t i = 0; i < caches_count; i++)
        node->definitions[i] =
            (struct cache_definition){.name = (char *)(uintptr_t)cache_names[i],
                                      .number = i,
                                      .verbs = (struct cache_verb *)(uintptr_t)servant_verbs,
                                      .verbs_count = SERVANT_VERBS_MAX,
                                      .verbs_bytes = (uint8_t *)(uintptr_t)servant_verbs_bytes,
                                      .verbs_bytes_count = servant_verbs_bytes_count};
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        node->slot_owner[slot] = (uint16_t)(slot * shards / SLOTS_COUNT);
    node->mailboxes = memory_take(shards * sizeof *node->mailboxes);
    ASSERT(node->mailboxes != NULL);
    ASSERT(mailboxes_init(node->mailboxes, shards, options->lane_bytes) == 0);
    for (uint32_t i = 0; i < shards; i++) {
        node->shards[i] = memory_take(sizeof(struct shard));
        ASSERT(node->shards[i] != NULL);
    }
    for (uint32_t i = 0; i < shards; i++) {
        struct sim_member *member = &node->members[i];
        member->node = node;
        member->shard = node->shards[i];
        member->io = sim_io_make(network, &member->actor);
        snprintf(member->name, sizeof member->name, "shard %u", i);
        actor_open(&member->actor, world, member->name, shard_main, member);
    }
}

bool sim_node_is_up(const struct sim_node *node)
{
    return node->up_count == node->options.shards_count;
}

void sim_node_stop(struct sim_node *node, uint64_t drain_ns)
{
    node->drain_ns = drain_ns;
    for (uint32_t i = 0; i < node->options.shards_count; i++) {
        struct shard *shard = node->shards[i];
        shard->command_argument = &node->drain_ns;
        shard->command_done = 0;
        shard->command = COMMAND_STOP;
        io_wake(shard->io, NULL);
    }
}

bool sim_node_is_stopped(const struct sim_node *node)
{
    return node->stopped_count == node->options.shards_count;
}

void sim_node_close(struct sim_node *node)
{
    uint32_t shards = node->options.shards_count;
    current = NULL;
    for (uint32_t i = 0; i < shards; i++) shard_deinit(node->shards[i]);
    for (uint32_t i = 0; i < shards; i++) servant_deinit(&node->members[i].servant);
    for (uint32_t i = 0; i < shards; i++) {
        memory_put(node->shards[i]);
        actor_close(&node->members[i].actor);
        sim_io_free(node->members[i].io);
    }
    mailboxes_deinit(node->mailboxes, shards);
    memory_put(node->mailboxes);
}

/* ----------------------------------------------------------------------------------- checks */

static void check_caller(const struct sim_node *node, const struct shard *shard,
                         const struct caller *caller)
{
    const struct shard_options *options = shard->options;
    /* Whoever has room may write one run of replies more, and one value. */
    size_t outbox_max =
        options->outbox_bytes_max + options->frame_bytes_max + UPDATES_MAX * FRAME_REPLY_BYTES;
    size_t bytes = link_out_bytes(&caller->link);
    if (bytes > outbox_max + REFUSE_BYTES_MAX + sizeof(struct frame_ack))
        world_fail(node->world, "the outbox of caller %u of shard %u has %zu bytes", caller->index,
                   shard->index, bytes);
    if (caller->reserved_bytes > outbox_max + options->lane_bytes)
        world_fail(node->world, "%" PRIu64 " bytes are reserved for caller %u of shard %u",
                   (uint64_t)caller->reserved_bytes, caller->index, shard->index);
    if (caller->link.partial.bytes > options->frame_bytes_max + 8)
        world_fail(node->world, "caller %u of shard %u keeps %zu bytes of a frame", caller->index,
                   shard->index, caller->link.partial.bytes);
}

static void check_shard(const struct sim_node *node, const struct shard *shard)
{
    const struct shard_options *options = shard->options;
    for (uint32_t i = 0; i < shard->callers_fresh; i++)
        if (shard->callers[i].state != CALLER_FREE) check_caller(node, shard, &shard->callers[i]);
    for (uint32_t to = 0; to < options->shards_count; to++)
        if (shard->crossing[to].promised_bytes > options->lane_bytes / 2)
            world_fail(node->world, "shard %u promised %" PRIu64 " bytes of replies of shard %u",
                       shard->index, shard->crossing[to].promised_bytes, to);
    if (shard->segments.units_used > shard->segments.units_max)
        world_fail(node->world, "shard %u uses %u units of memory", shard->index,
                   shard->segments.units_used);
    if (shard->sessions.bytes > shard->sessions.bytes_max)
        world_fail(node->world, "shard %u has %zu bytes of sessions", shard->index,
                   shard->sessions.bytes);
}

void sim_node_check_bounds(const struct sim_node *node)
{
    for (uint32_t i = 0; i < node->options.shards_count; i++) check_shard(node, node->shards[i]);
}

void sim_node_check_quiet(const struct sim_node *node)
{
    for (uint32_t i = 0; i < node->options.shards_count; i++) {
        const struct shard *shard = node->shards[i];
        for (uint32_t to = 0; to < node->options.shards_count; to++)
            if (shard->crossing[to].promised_bytes != 0)
                world_fail(node->world, "shard %u still waits for %" PRIu64 " bytes of shard %u", i,
                           shard->crossing[to].promised_bytes, to);
        if (shard->handed_over != 0)
            world_fail(node->world, "shard %u still waits for %u replies", i, shard->handed_over);
        if (shard->deferreds.count != 0 || !servant_is_idle(&node->members[i].servant))
            world_fail(node->world, "handlers of shard %u still keep %u requests", i,
                       shard->deferreds.count);
        if (shard->waiting_count != 0)
            world_fail(node->world, "%u callers of shard %u still wait for room",
                       shard->waiting_count, i);
        for (uint32_t n = 0; n < shard->callers_fresh; n++) {
            const struct caller *caller = &shard->callers[n];
            if (caller->state == CALLER_READY && caller->reserved_bytes != 0)
                world_fail(node->world, "%" PRIu64 " bytes are reserved for caller %u of shard %u",
                           caller->reserved_bytes, n, i);
        }
    }
}
