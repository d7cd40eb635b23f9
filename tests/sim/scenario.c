#include "tests/sim/scenario.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "tests/sim/buggify.h"
#include "tests/sim/ledger.h"
#include "tests/sim/network.h"
#include "tests/sim/program.h"
#include "tests/sim/sim_node.h"

#define PROGRAMS_MAX 12
/* The trouble lasts so long at most; then what is left is made without. */
#define TROUBLE_NS_MAX (30 * NS_PER_S)
/* And nothing may take longer than this then. */
#define REST_NS_MAX (200 * NS_PER_S)
#define EVENTS_MAX 4000000
#define MILLION 1000000u

struct scenario {
    struct world world;
    struct network network;
    struct history history;
    struct sim_node node;
    struct faults faults;
    struct habits habits;
    struct shard_options options;
    struct ledger *ledger;
    struct program programs[PROGRAMS_MAX];
    uint32_t programs_count;
    uint32_t programs_max;
    uint32_t caches_count;
    uint32_t keys_count;
    uint32_t trees;     /* of a hundred keys */
    bool is_forgetful;  /* sessions have little memory */
    uint32_t refuse;    /* of memory, in a million */
    uint32_t stop_rate; /* actors stopped, in a million of milliseconds */
    uint64_t stop_ns_max;
    bool has_steps; /* of the wall clock */
    bool is_resting;
    uint64_t phase_ns; /* when it began */
};

/* ------------------------------------------------------------------------------------ drawing */

static uint64_t pick(struct world *world, const uint64_t *choices, size_t count)
{
    return choices[world_below(world, count)];
}

#define PICK(world, ...)                                                                           \
    pick(world, (const uint64_t[]){__VA_ARGS__},                                                   \
         sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/* One world of three has a trouble of a kind. */
static uint32_t sometimes(struct world *world, uint32_t in_million)
{
    if (world_below(world, 3) != 0) return 0;
    return 1 + (uint32_t)world_below(world, in_million);
}

static void draw_faults(struct scenario *scenario)
{
    struct world *world = &scenario->world;
    bool has_trouble = world_below(world, 4) != 0;
    scenario->faults = (struct faults){
        .delay_ns_max = PICK(world, 10, 50, 1000, 20000) * NS_PER_US,
        .piece_bytes_max = (uint32_t)PICK(world, 3, 40, 1000, 10000, 100000),
        .buffer_bytes = (uint32_t)PICK(world, 2048, 16384, 262144),
        .read_bytes_max = (uint32_t)PICK(world, 5, 64, 5000, 65536, 65536),
        .events_max = (uint32_t)PICK(world, 1, 3, 256, 256),
        .no_buffer = sometimes(world, MILLION / 2),
        .busy = sometimes(world, MILLION / 2),
        .clog_ns_max = PICK(world, 10, 500, 5000) * NS_PER_MS,
        .half_ns_max = PICK(world, 100, 3000, 20000) * NS_PER_MS,
    };
    /* So that a program does not take for ever byte by byte. */
    if (scenario->faults.piece_bytes_max < 100)
        scenario->faults.delay_ns_max = min_u64(scenario->faults.delay_ns_max, 50 * NS_PER_US);
    if (!has_trouble) return;
    scenario->faults.reset = sometimes(world, 30000);
    scenario->faults.half = sometimes(world, 5000);
    scenario->faults.clog = sometimes(world, 10000);
    scenario->faults.refuse = sometimes(world, 300000);
    scenario->faults.deaf = sometimes(world, 100000);
    scenario->stop_rate = sometimes(world, 20000);
    scenario->stop_ns_max = PICK(world, 5, 100, 4000) * NS_PER_MS;
    scenario->has_steps = world_below(world, 3) == 0;
    scenario->refuse = world_below(world, 8) == 0 ? 1 + (uint32_t)world_below(world, 30000) : 0;
}

static void draw_habits(struct scenario *scenario)
{
    struct world *world = &scenario->world;
    scenario->habits = (struct habits){
        .asks_max = (uint32_t)PICK(world, 40, 200, 600, 1500),
        .burst_max = (uint32_t)PICK(world, 1, 4, 40, 300),
        .value_bytes_max = (uint32_t)PICK(world, 1, 40, 200, 1500),
        .large = sometimes(world, MILLION / 4),
        .updates = 1 + (uint32_t)world_below(world, 20),
        .removes = (uint32_t)world_below(world, 6),
        .gets = (uint32_t)world_below(world, 12),
        .verbs = (uint32_t)world_below(world, 3),
        .deep = (uint32_t)world_below(world, 90),
        .silent = sometimes(world, MILLION / 4),
        .hurried = sometimes(world, MILLION / 4),
        .patient = world_below(world, 2) == 0 ? 0 : MILLION,
        .naps = sometimes(world, 50000),
        .nap_ns_max = PICK(world, 10, 200, 3000) * NS_PER_MS,
        .think_ns_max = PICK(world, 0, 0, 1000, 20000) * NS_PER_US,
        .kill = sometimes(world, 20000),
        .window_requests = (int64_t)PICK(world, 1, 8, 100, 16384),
        .window_bytes = (int64_t)PICK(world, 4096, 65536, 4194304),
        .outbox_bytes = (int64_t)PICK(world, 4096, 1048576, 1048576),
        .idle = world_below(world, 4) == 0 ? FERO_IDLE_ADAPTIVE : FERO_IDLE_SLEEP,
        .open_ms = (int64_t)PICK(world, 20, 300, 20000),
        .watches = world_below(world, 2) == 0 ? 0 : MILLION / 10,
        .seq_first = PICK(world, 1, 1, UINT32_MAX - 100, ((uint64_t)1 << 31) - 50),
    };
}

/* Long runs of updates alike, which the short way takes. */
static void draw_monotony(struct scenario *scenario)
{
    struct habits *habits = &scenario->habits;
    if (world_below(&scenario->world, 4) != 0) return;
    habits->removes = habits->gets = habits->verbs = 0;
    habits->large = habits->silent = habits->hurried = 0;
    habits->burst_max = 300;
    habits->is_monotonous = true;
}

/* Large values would come byte by byte for ever. */
static void spare_slow_worlds(struct scenario *scenario)
{
    const struct faults *faults = &scenario->faults;
    if (faults->piece_bytes_max >= 1000 && faults->read_bytes_max >= 1000) return;
    scenario->habits.large = 0;
    scenario->habits.value_bytes_max = (uint32_t)min_u64(scenario->habits.value_bytes_max, 200);
}

static void draw_options(struct scenario *scenario)
{
    struct world *world = &scenario->world;
    struct shard_options *options = &scenario->options;
    bool is_tight = world_below(world, 6) == 0;
    scenario->is_forgetful = world_below(world, 5) == 0;
    /* A few fit, with all that they ask for; whose link is lost is soon forgotten. */
    if (scenario->is_forgetful) {
        scenario->habits.asks_max = (uint32_t)min_u64(scenario->habits.asks_max, 60);
        scenario->faults.reset = (uint32_t)max_u64(scenario->faults.reset, 20000);
    }
    *options = (struct shard_options){
        .shards_count = 1 + (uint32_t)world_below(world, 3),
        .idle = world_below(world, 4) == 0 ? IDLE_ADAPTIVE : IDLE_SLEEP,
        .spin_ns_max = 20 * NS_PER_US,
        .log_bytes_max = PICK(world, 24, 40, 64) * MIB,
        .history_bytes_max = PICK(world, 1, 1, 3 * MIB, 16 * MIB),
        .garbage_bytes_max = PICK(world, 1, 256 * KIB, 4 * MIB),
        .sessions_bytes_max = scenario->is_forgetful ? PICK(world, 2, 3, 5) * KIB : 4 * MIB,
        .outbox_bytes_max = PICK(world, 4 * KIB, 64 * KIB, MIB),
        .links_bytes_max = PICK(world, 2, 64, 64) * MIB,
        .deferred_max = (uint32_t)PICK(world, 2, SERVANT_PROMISES_MAX),
        .errors_max = 16,
        .subscriptions_max = PROGRAM_WATCHERS_MAX,
        .unbatched = world_below(world, 10) == 0,
        .key_bytes_max = 100,
        .value_bytes_max = HISTORY_VALUE_BYTES_MAX,
        .frame_bytes_max = 24000,
        .connections_max = 64,
        .half_open_max = 64,
        .half_open_spares_loopback = true,
        .window_requests = SESSION_WINDOW,
        .window_bytes = PICK(world, 32 * KIB, 4 * MIB),
        .lane_bytes = PICK(world, 128, 128, 1024) * KIB,
        .greeting_ns_max = 2 * NS_PER_S,
        .progress_ns = 10 * NS_PER_S,
        .progress_bytes = 1,
        .node = 0xd0e,
        .cluster = 0xc1,
        .view = 1,
        .incarnation = 1,
        .hash_seed = world->seed,
    };
    if (is_tight) options->history_bytes_max = options->log_bytes_max;
    /* Little is written here for a compaction: so there are many short segments, and no history. */
    if (world_below(world, 4) == 0) {
        options->history_bytes_max = 1;
        options->garbage_bytes_max = 1;
        buggify_always("segment_ends");
    }
    /* Requests cross from shard to shard. */
    if (world_below(world, 4) == 0) {
        buggify_always("not_handed_over");
        options->shards_count = (uint32_t)max_u64(options->shards_count, 2);
        if (scenario->faults.reset + scenario->stop_rate > 0) {
            scenario->stop_rate = (uint32_t)max_u64(scenario->stop_rate, 10000);
            scenario->stop_ns_max = 500 * NS_PER_MS;
        }
    }
    scenario->programs_max = 1 + (uint32_t)world_below(world, PROGRAMS_MAX / 2);
    scenario->caches_count = 1 + (uint32_t)world_below(world, HISTORY_CACHES_MAX);
    scenario->keys_count = (uint32_t)PICK(world, 1, 8, 30, HISTORY_KEYS_MAX);
    scenario->trees = scenario->habits.is_monotonous ? 0 : (uint32_t)PICK(world, 0, 20, 50, 100);
}

/* What may happen to requests in this world. */
static void draw_permissions(struct scenario *scenario)
{
    const struct faults *faults = &scenario->faults;
    struct history *history = &scenario->history;
    bool has_trouble = faults->reset + faults->half + faults->clog + faults->deaf + faults->refuse +
                           scenario->stop_rate + scenario->refuse >
                       0;
    /* A few bytes at a time may take longer than a request waits. */
    bool is_slow = faults->piece_bytes_max < 100 || faults->read_bytes_max < 100 ||
                   faults->events_max < 100 || faults->buffer_bytes < 10000 ||
                   scenario->habits.naps > 0;
    /* Whoever subscribes gives up a link on which another shard speaks, and dials it again. */
    bool is_choosy = scenario->habits.watches > 0 && scenario->options.shards_count > 1;
    history->may_be_unknown = has_trouble || is_slow || is_choosy || scenario->is_forgetful;
    /* Where memory is refused or used up, requests fail for it. */
    history->may_be_full =
        scenario->refuse > 0 || scenario->is_forgetful ||
        scenario->options.history_bytes_max >= scenario->options.log_bytes_max / 2;
    history->may_be_forgotten = scenario->is_forgetful;
    history->may_reorder = scenario->refuse > 0 || scenario->is_forgetful;
}

/* ------------------------------------------------------------------------------------ trouble */

static void on_break(void *context, uint64_t unused)
{
    struct scenario *scenario = context;
    (void)unused;
    if (!scenario->is_resting) network_break_one(&scenario->network);
}

static void on_stop(void *context, uint64_t unused)
{
    struct scenario *scenario = context;
    struct world *world = &scenario->world;
    (void)unused;
    if (scenario->is_resting) return;
    world_at(world, world->now_ns + NS_PER_MS, on_stop, scenario, 0);
    if (!world_chance(world, scenario->stop_rate)) return;
    uint64_t for_ns = 1 + world_below(world, scenario->stop_ns_max);
    uint32_t shards = scenario->options.shards_count;
    bool is_whole = world_below(world, 2) == 0;
    if (!is_whole) {
        /* Shards came first. */
        uint32_t count = world_below(world, 2) == 0 ? shards : world->actors_count;
        actor_pause(world->actors[world_below(world, count)], for_ns);
        /* What is under way to it, or from it, may then find its link gone, and another in its place. */
        for (uint64_t i = world_below(world, 6); i > 0; i--)
            world_at(world, world->now_ns + world_below(world, for_ns), on_break, scenario, 0);
        return;
    }
    for (uint32_t i = 0; i < shards; i++) actor_pause(&scenario->node.members[i].actor, for_ns);
}

static void on_step(void *context, uint64_t unused)
{
    struct scenario *scenario = context;
    struct world *world = &scenario->world;
    (void)unused;
    if (scenario->is_resting) return;
    world_at(world, world->now_ns + NS_PER_S, on_step, scenario, 0);
    struct actor *actor = world->actors[world_below(world, world->actors_count)];
    actor->wall_offset_ms = (int64_t)world_below(world, 7200000) - 3600000;
    world_note(world, NOTE_STEP, actor->number, (uint64_t)actor->wall_offset_ms, 0, 0);
}

static void add_program(void *context, uint64_t unused)
{
    struct scenario *scenario = context;
    struct world *world = &scenario->world;
    (void)unused;
    if (scenario->is_resting || scenario->programs_count == PROGRAMS_MAX) return;
    struct program *program = &scenario->programs[scenario->programs_count++];
    program_open(program, world, &scenario->network, &scenario->history, &scenario->habits,
                 scenario->caches_count, rng_next(&world->rng) | 1);
    /* Somebody has to be left. */
    program->is_mortal = program->number > 0;
    program->add_another = add_program;
    program->add_context = scenario;
}

static void begin_trouble(struct scenario *scenario)
{
    struct world *world = &scenario->world;
    for (uint32_t i = 0; i < scenario->programs_max; i++)
        world_at(world, world->now_ns + world_below(world, 50 * NS_PER_MS), add_program, scenario,
                 0);
    if (scenario->stop_rate > 0) world_at(world, world->now_ns, on_stop, scenario, 0);
    if (scenario->has_steps) world_at(world, world->now_ns, on_step, scenario, 0);
    scenario->ledger->refuse = scenario->refuse;
}

static void end_trouble(struct scenario *scenario)
{
    scenario->is_resting = true;
    scenario->ledger->refuse = 0;
    network_heal(&scenario->network);
    buggify_end();
    for (uint32_t i = 0; i < scenario->world.actors_count; i++)
        scenario->world.actors[i]->paused_ns = 0;
    for (uint32_t i = 0; i < scenario->programs_count; i++) scenario->programs[i].may_end = true;
}

/* ------------------------------------------------------------------------------------- phases */

static bool is_up(void *context)
{
    return sim_node_is_up(&((const struct scenario *)context)->node);
}

static bool is_troubled_enough(void *context)
{
    const struct scenario *scenario = context;
    if (scenario->world.now_ns - scenario->phase_ns > TROUBLE_NS_MAX) return true;
    if (scenario->programs_count < scenario->programs_max) return false;
    for (uint32_t i = 0; i < scenario->programs_count; i++)
        if (!scenario->programs[i].is_killed &&
            scenario->programs[i].asks < scenario->habits.asks_max)
            return false;
    return true;
}

static bool are_programs_over(void *context)
{
    const struct scenario *scenario = context;
    for (uint32_t i = 0; i < scenario->programs_count; i++)
        if (!scenario->programs[i].actor.fiber.is_over) return false;
    return true;
}

static bool is_node_quiet(void *context)
{
    const struct scenario *scenario = context;
    for (uint32_t i = 0; i < scenario->options.shards_count; i++)
        if (scenario->node.shards[i]->counters.connections > 0 ||
            scenario->node.shards[i]->deferreds.count > 0)
            return false;
    return true;
}

static bool is_node_over(void *context)
{
    const struct scenario *scenario = context;
    for (uint32_t i = 0; i < scenario->options.shards_count; i++)
        if (!scenario->node.members[i].actor.fiber.is_over) return false;
    return true;
}

struct phase {
    struct scenario *scenario;
    bool (*is_over)(void *context);
    const char *name;
};

static bool is_phase_over(void *context)
{
    const struct phase *phase = context;
    struct scenario *scenario = phase->scenario;
    if (phase->is_over(scenario)) return true;
    if (scenario->world.now_ns - scenario->phase_ns > REST_NS_MAX)
        world_fail(&scenario->world, "%s takes longer than %" PRIu64 " s", phase->name,
                   REST_NS_MAX / NS_PER_S);
    return false;
}

static void run_phase(struct scenario *scenario, const char *name, bool (*is_over)(void *context))
{
    struct phase phase = {scenario, is_over, name};
    scenario->phase_ns = scenario->world.now_ns;
    world_note(&scenario->world, NOTE_PHASE, (uint64_t)name[0], 0, 0, 0);
    if (!world_run(&scenario->world, is_phase_over, &phase))
        world_fail(&scenario->world, "%s does not end: everybody waits for ever", name);
}

static void close_all(struct scenario *scenario)
{
    struct world *world = &scenario->world;
    sim_node_close(&scenario->node);
    for (uint32_t i = 0; i < scenario->programs_count; i++) program_close(&scenario->programs[i]);
    network_close(&scenario->network);
    history_close(&scenario->history);
    if (scenario->ledger->blocks != 0 || scenario->ledger->reservations != 0)
        world_fail(world, "%" PRIu64 " blocks and %" PRIu64 " reservations were not given back",
                   scenario->ledger->blocks, scenario->ledger->reservations);
}

struct scenario_result scenario_run(const struct scenario_options *options)
{
    struct scenario *scenario = calloc(1, sizeof *scenario);
    ASSERT(scenario != NULL);
    struct world *world = &scenario->world;
    char context[64];
    snprintf(context, sizeof context, "seed %" PRIu64, options->seed);
    assert_context_set(context);
    world_open(world, options->seed);
    world->is_traced = options->is_traced;
    world->events_max = EVENTS_MAX;
    world->look_ns = 1 * NS_PER_US;
    world->jitter_ns_max = PICK(world, 1, 10, 300) * NS_PER_US;
    scenario->ledger = ledger_begin();
    buggify_begin(world, options->plant, true);
    draw_faults(scenario);
    draw_habits(scenario);
    draw_monotony(scenario);
    spare_slow_worlds(scenario);
    draw_options(scenario);
    network_open(&scenario->network, world, &scenario->faults);
    history_open(&scenario->history, world, scenario->options.shards_count, scenario->caches_count,
                 scenario->keys_count, scenario->trees);
    draw_permissions(scenario);
    sim_node_open(&scenario->node, world, &scenario->network, &scenario->history,
                  &scenario->options, scenario->caches_count);
    run_phase(scenario, "the start", is_up);
    begin_trouble(scenario);
    run_phase(scenario, "the trouble", is_troubled_enough);
    end_trouble(scenario);
    run_phase(scenario, "healing", are_programs_over);
    run_phase(scenario, "closing", is_node_quiet);
    sim_node_check_quiet(&scenario->node);
    history_check_state(&scenario->history);
    history_truncate(&scenario->history);
    sim_node_stop(&scenario->node, NS_PER_S);
    run_phase(scenario, "stopping", is_node_over);
    struct scenario_result result = {.hash = world->hash,
                                     .events = world->events_done,
                                     .asked = scenario->history.asked,
                                     .applied = scenario->history.applied,
                                     .resets = scenario->network.resets,
                                     .virtual_ns = world->now_ns};
    for (unsigned i = 0; i < ARRAY_COUNT(result.outcomes); i++)
        result.outcomes[i] = scenario->history.outcomes[i];
    close_all(scenario);
    world_close(world);
    assert_context_set(NULL);
    free(scenario);
    return result;
}
