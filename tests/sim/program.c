#include "tests/sim/program.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "tests/sim/clock.h"
#include "tests/sim/partition.h"
#include "tests/sim/servant.h"

/*
 * When nothing breaks any more, each program asks for every key once more, and may be sure of answers. It may
 * have to wait for its next attempt to connect, a minute.
 */
#define LAST_NS_MAX (100 * NS_PER_S)

static void on_done(const fero_result *result, void *ud);

static const char *const cache_names[HISTORY_CACHES_MAX] = {"first", "second"};

static uint64_t below(const struct program *program, uint64_t bound)
{
    return world_below(program->world, bound);
}

static bool chance(const struct program *program, uint32_t in_million)
{
    return world_chance(program->world, in_million);
}

/* ------------------------------------------------------------------------------------ asking */

static enum ask_type draw_type(const struct program *program)
{
    const struct habits *habits = program->habits;
    uint64_t all = habits->updates + habits->removes + habits->gets + habits->verbs;
    uint64_t drawn = below(program, all);
    if (drawn < habits->updates) return ASK_UPDATE;
    if (drawn < habits->updates + habits->removes) return ASK_REMOVE;
    return drawn < habits->updates + habits->removes + habits->gets ? ASK_GET : ASK_VERB;
}

static uint32_t draw_value_bytes(const struct program *program)
{
    const struct habits *habits = program->habits;
    if (chance(program, habits->large)) return (uint32_t)below(program, HISTORY_VALUE_BYTES_MAX);
    if (habits->is_monotonous) return habits->value_bytes_max;
    return (uint32_t)below(program, habits->value_bytes_max);
}

/* Makes the request; the library's answer to that. */
static int make(const struct program *program, const struct asked *asked, const fero_wopts *opts)
{
    const struct history_key *key = &program->history->keys[asked->cache][asked->key];
    uint8_t bytes[HISTORY_VALUE_BYTES_MAX];
    fero_cache *cache = program->caches[asked->cache];
    char deep[HISTORY_KEY_BYTES];
    fero_slice name = fero_str(key->text);
    fero_val value = {.type = asked->value_type, .s = {bytes, asked->value_bytes}};
    history_value(program->history, asked, bytes);
    if (key->is_tree) name = (fero_slice){deep, partition_key(program->history, asked, deep)};
    if (value.type == FERO_T_INT64) memcpy(&value.i64, bytes, sizeof value.i64);
    switch ((enum ask_type)asked->type) {
    case ASK_UPDATE: return fero_update(cache, name, &value, opts, NULL);
    case ASK_REMOVE: return fero_remove(cache, name, opts, NULL);
    case ASK_GET: return fero_get(cache, name, opts, NULL);
    case ASK_VERB:
        return fero_send(cache, fero_str(servant_verbs[asked->shape].name), name, &value, opts,
                         NULL);
    case ASK_ADD: return fero_add(cache, name, &value, opts, NULL);
    case ASK_PUSH: return fero_push(cache, name, &value, opts, NULL);
    case ASK_PATCH: return fero_patch(cache, name, value.s, opts, NULL);
    }
    return FERO_E_INVAL;
}

/* Whether a request may be refused like this at once. */
static bool may_be_refused(const struct program *program, int err)
{
    if (err == FERO_E_AGAIN || err == FERO_E_NOTCONN) return true;
    return err == FERO_E_CLOSED && program->is_killed;
}

/* A request that goes inside of a partition; what would be an update may be another kind of change. */
static void go_deep(const struct program *program, struct asked *asked)
{
    static const enum ask_type kinds[] = {ASK_ADD, ASK_PUSH, ASK_PATCH};
    if (asked->type == ASK_UPDATE && below(program, 100) < program->habits->deep)
        asked->type = (uint8_t)kinds[below(program, ARRAY_COUNT(kinds))];
    partition_draw(program->history, asked);
}

/* One request; 0, or why the library did not take it. */
static int ask(struct program *program, enum ask_type type, uint32_t key, bool is_last)
{
    const struct habits *habits = program->habits;
    uint8_t value[PARTITION_VALUE_BYTES];
    struct asked *asked = history_make(program->history, program->number);
    asked->type = (uint8_t)type;
    asked->key = (uint16_t)key;
    asked->cache = (uint16_t)below(program, program->caches_count);
    asked->value_type = below(program, 2) == 0 ? FERO_T_BYTES : FERO_T_STRING;
    if (type == ASK_UPDATE || type == ASK_VERB) asked->value_bytes = draw_value_bytes(program);
    if (type == ASK_VERB && chance(program, habits->patient))
        asked->shape = (uint8_t)below(program, SERVANT_VERBS_MAX);
    bool is_deep = program->history->keys[asked->cache][key].is_tree && type != ASK_VERB;
    if (is_deep) go_deep(program, asked);
    bool is_silent =
        !is_last && type != ASK_GET && type != ASK_VERB && chance(program, habits->silent);
    asked->wants_answer = !is_silent;
    asked->is_last = is_last;
    asked->asker = program;
    fero_wopts opts = {.size = sizeof opts, .want = FERO_REPLY, .done = on_done, .ud = asked};
    if (is_silent) opts = (fero_wopts){.size = sizeof opts, .want = (int32_t)below(program, 2)};
    bool is_mute = type == ASK_VERB && asked->shape == SERVICE_NEVER;
    if (type == ASK_VERB && asked->shape == SERVICE_IN_PARTS) opts.want = FERO_STREAM;
    if (is_mute || (!is_last && !is_silent && chance(program, habits->hurried))) {
        asked->has_deadline = true;
        opts.timeout_ms = 1 + (int64_t)below(program, 200);
    }
    asked->seq = program->client->window.next; /* its value depends on it */
    if (is_deep) asked->value_bytes = (uint32_t)partition_value(program->history, asked, value);
    int err = make(program, asked, &opts);
    if (err == 0) {
        history_ask(program->history, asked, program->client->window.next - 1);
        program->asks++;
        return 0;
    }
    free(asked);
    if (!may_be_refused(program, err))
        world_fail(program->world, "client %u: a request is refused: %s (%d)", program->number,
                   fero_errmsg(), err);
    return err;
}

static int ask_anything(struct program *program)
{
    return ask(program, draw_type(program), (uint32_t)below(program, program->history->keys_count),
               false);
}

static void on_done(const fero_result *result, void *ud)
{
    struct asked *asked = ud;
    struct program *program = asked->asker;
    if ((result->flags & FERO_R_MORE) != 0) {
        history_part(program->history, asked, result);
        return;
    }
    history_answer(program->history, asked, result);
    /* Callbacks may ask, too. */
    bool may_ask = program->phase == PROGRAM_RUNS && !program->is_killed &&
                   program->asks < program->habits->asks_max;
    if (may_ask && below(program, 4) == 0) ask_anything(program);
}

/* -------------------------------------------------------------------------------- its phases */

static void wait_ns(struct program *program, uint64_t for_ns)
{
    actor_wait(&program->actor, 1 + below(program, for_ns), false);
}

static void run(struct program *program, int64_t timeout_ms)
{
    int err = fero_run((fero *)program->client, timeout_ms);
    if (err < 0)
        world_fail(program->world, "client %u: fero_run says %s", program->number, fero_errmsg());
}

/* Nobody sends what may not be sent. */
static void on_log(int32_t level, const char *line, void *ud)
{
    const struct program *program = ud;
    (void)level;
    if (program->world->is_traced)
        fprintf(stderr, "              client %u: %s\n", program->number, line);
    if (strstr(line, "does not speak") != NULL || strstr(line, "a broken frame") != NULL)
        world_fail(program->world, "client %u: %s", program->number, line);
}

static void start(struct program *program)
{
    static const char *const seeds[] = {"127.0.0.1:7700", NULL};
    const struct habits *habits = program->habits;
    struct history_client *known = &program->history->clients[program->number];
    struct client_seams seams = {.io = sim_io_base(program->io),
                                 .now_ns = clock_read,
                                 .session = known->session,
                                 .seq_first = known->seq_first};
    fero_runtime_opts opts = {.size = sizeof opts,
                              .client = 1,
                              .seeds = seeds,
                              .idle = habits->idle,
                              .window_requests = habits->window_requests,
                              .window_bytes = habits->window_bytes,
                              .outbox_max_bytes = habits->outbox_bytes,
                              .log_level = FERO_LOG_DEBUG,
                              .log = on_log,
                              .log_ud = program};
    int err = client_start_on(&opts, &seams, &program->client);
    if (err < 0) world_fail(program->world, "a client does not start: %s", fero_errmsg());
    for (uint32_t i = 0; i < program->caches_count; i++) {
        fero_opts open = {.size = sizeof open, .timeout_ms = habits->open_ms};
        do {
            err = client_open(program->client, cache_names[i], &open, &program->caches[i]);
            /* A connection that breaks while it is greeted looks like one that is denied. */
        } while (err == FERO_E_NOTCONN || err == FERO_E_CLOSED || err == FERO_E_DENIED);
        if (err < 0)
            world_fail(program->world, "client %u: a cache does not open: %s (%d)", program->number,
                       fero_errmsg(), err);
    }
}

/* Its process ends in the middle of something. */
static void die(struct program *program)
{
    world_note(program->world, NOTE_KILL, program->number, 0, 0, 0);
    program->is_killed = true;
    program->history->clients[program->number].is_killed = true;
    sim_io_kill(program->io);
    uint64_t after_ns = below(program, 5 * NS_PER_MS);
    world_at(program->world, program->world->now_ns + after_ns, program->add_another,
             program->add_context, 0);
}

static void watch(struct program *program)
{
    for (uint32_t i = 0; i < program->watchers_count; i++) watcher_act(&program->watchers[i]);
    if (program->watchers_count == PROGRAM_WATCHERS_MAX ||
        !chance(program, program->habits->watches))
        return;
    uint32_t cache = (uint32_t)below(program, program->caches_count);
    int err = watcher_open(&program->watchers[program->watchers_count], program->history,
                           program->number, program->caches[cache], cache);
    if (err < 0)
        world_fail(program->world, "client %u: a subscription is refused: %s", program->number,
                   fero_errmsg());
    program->watchers_count++;
}

static bool are_watchers_level(const struct program *program)
{
    for (uint32_t i = 0; i < program->watchers_count; i++)
        if (!watcher_is_level(&program->watchers[i])) return false;
    return true;
}

/* Who subscribed must get all there is now, and soon. */
static void catch_up(struct program *program)
{
    uint64_t until_ns = program->world->now_ns + LAST_NS_MAX;
    while (!are_watchers_level(program)) {
        run(program, 5);
        if (program->world->now_ns > until_ns)
            world_fail(program->world,
                       "client %u: nothing breaks any more, and a subscriber lacks changes",
                       program->number);
    }
}

static void work(struct program *program)
{
    const struct habits *habits = program->habits;
    while (!program->may_end && !program->is_killed) {
        uint64_t burst = 1 + below(program, habits->burst_max);
        for (uint64_t i = 0; i < burst && program->asks < habits->asks_max; i++)
            if (ask_anything(program) < 0) break;
        run(program, (int64_t)below(program, 20));
        if (chance(program, habits->naps))
            wait_ns(program, habits->nap_ns_max);
        else if (habits->think_ns_max > 0)
            wait_ns(program, habits->think_ns_max);
        if (program->asks >= habits->asks_max) wait_ns(program, 10 * NS_PER_MS);
        watch(program);
        if (program->is_mortal && chance(program, habits->kill)) die(program);
    }
}

/* What has broken already is heard of now, and not when the last requests are under way. */
static void hear_of_the_past(struct program *program)
{
    uint64_t until_ns = program->world->now_ns + NS_PER_S;
    while (program->world->now_ns < until_ns) run(program, 100);
}

/* Of what was sent nothing is under way: the node has taken it all, and said so. */
static bool is_window_whole(const struct program *program)
{
    const struct client *client = program->client;
    for (uint32_t i = 0; i < client->links_count; i++) {
        const struct client_link *link = client->links[i];
        if (link->state == CLIENT_LINK_UP &&
            (link->consumed_bytes != backlog_written_bytes(&link->backlog) ||
             link->acked_requests != link->requests))
            return false;
    }
    return true;
}

static void check_window(struct program *program)
{
    uint64_t until_ns = program->world->now_ns + LAST_NS_MAX;
    while (!is_window_whole(program)) {
        run(program, 5);
        if (program->world->now_ns > until_ns)
            world_fail(program->world, "client %u: all is answered, and its window is not whole",
                       program->number);
    }
}

/* Every request must end now, and soon. */
static void finish(struct program *program)
{
    for (uint32_t i = 0; i < program->watchers_count; i++) watcher_rest(&program->watchers[i]);
    hear_of_the_past(program);
    uint64_t until_ns = program->world->now_ns + LAST_NS_MAX;
    uint32_t key = 0;
    int err = 0;
    while (key < program->history->keys_count ||
           history_open_count(program->history, program->number) > 0) {
        enum ask_type type = below(program, 2) == 0 ? ASK_UPDATE : ASK_GET;
        while (key < program->history->keys_count && (err = ask(program, type, key, true)) == 0)
            key++;
        run(program, 5);
        if (program->world->now_ns > until_ns)
            world_fail(program->world,
                       "client %u: nothing breaks any more, and %" PRIu64
                       " requests have no answer after %" PRIu64 " s (%s)",
                       program->number, history_open_count(program->history, program->number),
                       LAST_NS_MAX / NS_PER_S, err < 0 ? fero_errmsg() : "all were taken");
    }
    catch_up(program);
    check_window(program);
}

static void program_main(void *context)
{
    struct program *program = context;
    start(program);
    work(program);
    program->phase = PROGRAM_ENDS;
    if (!program->is_killed) finish(program);
    fero_stop((fero *)program->client, program->is_killed ? FERO_OFF : 0);
    for (uint32_t i = 0; i < program->watchers_count; i++) watcher_close(&program->watchers[i]);
    uint64_t open = history_open_count(program->history, program->number);
    if (open > 0)
        world_fail(program->world, "client %u has stopped, and %" PRIu64 " requests never ended",
                   program->number, open);
    program->phase = PROGRAM_IS_OVER;
}

void program_open(struct program *program, struct world *world, struct network *network,
                  struct history *history, const struct habits *habits, uint32_t caches_count,
                  uint64_t session)
{
    *program = (struct program){
        .world = world, .history = history, .habits = habits, .caches_count = caches_count};
    program->number = history_add_client(history, session, habits->seq_first);
    program->io = sim_io_make(network, &program->actor);
    snprintf(program->name, sizeof program->name, "client %u", program->number);
    actor_open(&program->actor, world, program->name, program_main, program);
}

void program_close(struct program *program)
{
    actor_close(&program->actor);
    sim_io_free(program->io);
}
