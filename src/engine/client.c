/*
 * A client's runtime and its loop.
 *
 * A turn: send what the links have, wait, do what came, then what is due. Requests are written into
 * their link's backlog by the caller or by callbacks, and leave with the next turn, so the batch is
 * as large as the caller is fast; whatever runs turns ends with a submission where callbacks wrote
 * something, so that a caller who waits for something else never holds up his own requests.
 *
 * A caller may wait for fero_fd: when he gets control, it is armed with what is due, and the first
 * request that he makes then makes it readable.
 *
 * The clock is read once a turn. While the caller has control it may grow old, and so the window is
 * held: it looks full, the first request of a batch takes the slow path and reads the clock, and
 * the others do not.
 */
#include "engine/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "engine/error.h"
#include "engine/pull.h"
#include "engine/settings.h"
#include "engine/stream.h"
#include "engine/token.h"

#define OUTBOX_DEFAULT (1 * MIB)
#define WINDOW_BYTES_DEFAULT (4 * MIB)
#define SIZE_OPTION_MAX ((int64_t)1 << 40)
#define CONNECTIONS_DEFAULT 256
#define OPEN_TIMEOUT_MS 10000
#define OPEN_REFUSED_MS 1000
#define OPEN_MS_MAX ((int64_t)1 << 40)
/* Waiting adaptively: how long after the last traffic it spins. */
#define SPIN_NS (50 * NS_PER_US)
/* Looks at the ring between two looks at the clock. */
#define SPINS_PER_CLOCK 32

/* --------------------------------------------------------------------------------- options */

static int take_size(uint64_t *to, const char *name, int64_t given, uint64_t fallback, int64_t low,
                     int64_t high)
{
    *to = fallback;
    if (given == 0) return 0;
    if (given < low || given > high)
        return error_set(FERO_E_INVAL, "%s is %lld, but must be from %lld to %lld", name,
                         (long long)given, (long long)low, (long long)high);
    *to = (uint64_t)given;
    return 0;
}

static void forward_log(enum trace_level level, const char *line, void *context)
{
    const struct client *client = context;
    client->log((int32_t)level, line, client->log_ud);
}

static int take_options(struct client *client, const fero_runtime_opts *opts)
{
    uint64_t window;
    const char *wrong = "";
    int64_t outbox = opts->outbox_max_bytes;
    client->is_unbatched = outbox == FERO_OFF;
    int err = take_size(&client->outbox_bytes_max, "outbox.max", outbox == FERO_OFF ? 0 : outbox,
                        OUTBOX_DEFAULT, 1, SIZE_OPTION_MAX);
    if (err < 0) return err;
    err = take_size(&client->window_bytes_max, "window.bytes", opts->window_bytes,
                    WINDOW_BYTES_DEFAULT, 1, SIZE_OPTION_MAX);
    if (err < 0) return err;
    err = take_size(&window, "window.requests", opts->window_requests, WINDOW_REQUESTS_MAX, 1,
                    WINDOW_REQUESTS_MAX);
    if (err < 0) return err;
    client->window_requests_max = (uint32_t)window;
    client->window_bytes = client->window_bytes_max;
    if (opts->idle < FERO_IDLE_ADAPTIVE || opts->idle > FERO_IDLE_SLEEP)
        return error_set(FERO_E_INVAL, "idle is %d, but must be from 0 to 2", opts->idle);
    client->idle = opts->idle;
    err = seeds_parse(&client->seeds, opts->seeds, &wrong);
    if (err == -E2BIG)
        return error_set(FERO_E_INVAL, "more than %d seeds: leave out \"%s\" and what follows",
                         SEEDS_MAX, wrong);
    if (err < 0)
        return error_set(FERO_E_INVAL, "seed \"%s\": write HOST:PORT, HOST being an address",
                         wrong);
    err = token_read(opts->token_file, &client->token);
    if (err < 0) return err;
    client->log = opts->log;
    client->log_ud = opts->log_ud;
    client->trace = (struct trace){.function = opts->log != NULL ? forward_log : NULL,
                                   .context = client,
                                   .level = (enum trace_level)opts->log_level};
    return 0;
}

/* ------------------------------------------------------------------------ start, stop, free */

static void client_free(struct client *client)
{
    io_destroy(client->seams.io); /* lets go of all buffers, so it comes first */
    client_link_free(client->seeker);
    for (uint32_t i = 0; i < WINDOW_LINKS_MAX; i++) client_link_free(client->links[i]);
    for (uint32_t i = 0; i < CLIENT_CACHES_MAX; i++) {
        if (client->caches[i] == NULL || client->caches[i] == &client->nobody) continue;
        memory_put(client->caches[i]->verbs);
        memory_put(client->caches[i]);
    }
    chunk_pool_deinit(&client->pool);
    window_deinit(&client->window);
    memory_put(client->stream_ticks);
    ops_leave(client->ops);
    secret_put(client->token);
    memory_put(client);
}

int client_start_on(const fero_runtime_opts *opts, const struct client_seams *seams,
                    struct client **out)
{
    struct client *client = memory_take(sizeof *client);
    if (client == NULL) {
        io_destroy(seams->io);
        return error_set(FERO_E_NOMEM, "no memory for a client");
    }
    client->head.kind = RUNTIME_CLIENT;
    client->seams = *seams;
    client->session = seams->session;
    client->session_start = clock_wall_ms() << 16;
    client->clock_is_old = true;
    rng_init(&client->rng, seams->session);
    for (uint32_t i = 0; i <= CLIENT_CACHES_MAX; i++) client->caches[i] = &client->nobody;
    memset(client->nobody.numbers, 0xff, sizeof client->nobody.numbers);
    int err = take_options(client, opts);
    if (err < 0) goto free_client;
    err = error_set(FERO_E_NOMEM, "no memory for a window of %u requests",
                    client->window_requests_max);
    if (window_init(&client->window, client->window_requests_max, seams->seq_first) < 0)
        goto free_client;
    window_hold(&client->window);
    client->ops = ops_make();
    if (client->ops == NULL) goto free_client;
    client->ops->client = client;
    *out = client;
    return 0;

free_client:
    client_free(client);
    return err;
}

static uint64_t read_clock(void *context)
{
    (void)context;
    return clock_now_ns();
}

static int open_io(const fero_runtime_opts *opts, struct io **io)
{
    struct chosen chosen;
    struct choice_options options = {.connections_max = CONNECTIONS_DEFAULT};
    int err = settings_take_io(opts, &options.choice, &options.features);
    if (err < 0) return err;
    if (opts->connections_max < 0 || opts->connections_max > (int64_t)64 * 1024)
        return error_set(FERO_E_INVAL, "connections.max is %lld, but must be from 1 to 65536",
                         (long long)opts->connections_max);
    if (opts->connections_max > 0) options.connections_max = (uint32_t)opts->connections_max;
    err = choice_open(&options, io, &chosen);
    if (err < 0)
        return error_set(FERO_E_SYS, "%s", chosen.why[0] != 0 ? chosen.why : strerror(-err));
    return 0;
}

int client_start(const fero_runtime_opts *opts, struct client **out)
{
    struct client_seams seams = {.now_ns = read_clock, .seq_first = 1};
    int err = open_io(opts, &seams.io);
    if (err < 0) return err;
    while (seams.session == 0) seams.session = rng_secret_u64();
    return client_start_on(opts, &seams, out);
}

/* ---------------------------------------------------------------------------- ends of requests */

void client_end(struct client *client, struct flight *flight, const fero_result *result)
{
    struct client_cache *cache = client->caches[flight->cache];
    fero_done_fn done = flight_state(flight) == FLIGHT_REPLY ? flight->done : NULL;
    void *ud = flight->ud;
    uint32_t op = flight->op;
    if (result->outcome != FERO_OUTCOME_OK) cache->counts.failed++;
    client->finished++;
    window_end(&client->window, flight);
    if (op != 0) op_finish(ops_at(client->ops, op), result);
    if (done != NULL) done(result, ud);
}

static void end_unknown(struct client *client, uint64_t seq, int error)
{
    struct flight *flight = window_at(&client->window, seq);
    struct client_link *link = client->links[flight_link(flight)];
    fero_result result = {.outcome = FERO_OUTCOME_UNKNOWN, .error = error, .seq = seq};
    bool may_come = link != NULL && link->state == CLIENT_LINK_UP;
    if (may_come && flight_state(flight) == FLIGHT_REPLY) link->late_replies++;
    if (error == FERO_E_TIMEOUT) {
        flight->flags |= FLIGHT_GIVEN_UP;
        if (link != NULL && seq < link->carried_end)
            link->given_up_low = min_u64(link->given_up_low, seq);
    }
    client_end(client, flight, &result);
}

/* The lists of what ends with an ACK, without those that ended otherwise. */
static void rebuild_lists(struct client *client)
{
    struct window *window = &client->window;
    for (uint32_t i = 0; i < client->links_count; i++)
        client->links[i]->acks = (struct flight_list){0};
    for (uint64_t seq = window_next_waiting(window, window->floor); seq != 0;
         seq = window_next_waiting(window, seq + 1)) {
        const struct flight *flight = window_at(window, seq);
        if (flight_state(flight) == FLIGHT_ACK)
            window_list_push(window, &client->links[flight_link(flight)]->acks, seq);
    }
}

/*
 * Nobody waits for it any more: a handler that keeps it is told so, if there is a way. Where there is none,
 * the handler hears that its caller has gone, or goes on until it replies.
 */
static void stop_kept(struct client *client, uint64_t seq)
{
    const struct flight *flight = window_at(&client->window, seq);
    const struct client_link *link = client->links[flight_link(flight)];
    if ((flight->flags & FLIGHT_KEPT) == 0 || link == NULL || link->state != CLIENT_LINK_UP) return;
    (void)client_stop_request(client, seq);
}

/* Ends those that match and are in `state`; true if there was one. */
static bool end_in_state(struct client *client, enum flight_state state, client_match_fn match,
                         const void *context, int error)
{
    const struct window *window = &client->window;
    bool any = false;
    /* What a callback sends comes behind `end`, and the window may advance under us. */
    uint64_t end = window->next;
    for (uint64_t seq = max_u64(window->floor, 1); seq < end;
         seq = max_u64(seq + 1, window->floor)) {
        const struct flight *flight = window_at(window, seq);
        if (flight->tag == 0 || flight_state(flight) != state) continue;
        if (!match(client, flight, context)) continue;
        if (error == FERO_E_TIMEOUT) stop_kept(client, seq);
        end_unknown(client, seq, error);
        any = true;
    }
    return any;
}

void client_end_matching(struct client *client, client_match_fn match, const void *context,
                         int error)
{
    /* Their places may be taken again as soon as a callback sends, so they leave the lists first. */
    if (end_in_state(client, FLIGHT_ACK, match, context, error)) rebuild_lists(client);
    end_in_state(client, FLIGHT_REPLY, match, context, error);
}

/* client_match_fn */
static bool is_expired(const struct client *client, const struct flight *flight,
                       const void *context)
{
    (void)context;
    return flight_is_expired(flight, client->now_tick);
}

static bool is_of_cache(const struct client *client, const struct flight *flight,
                        const void *context)
{
    (void)client;
    return flight->cache == *(const uint32_t *)context;
}

/* Its number may be another cache's soon: what was given up is not sent again. */
static void forget_given_up(struct client *client, uint32_t cache)
{
    const struct window *window = &client->window;
    for (uint64_t seq = window->floor; seq != window->next; seq++) {
        struct flight *flight = window_at(window, seq);
        if (flight->cache == cache) flight->flags &= (uint16_t)~FLIGHT_GIVEN_UP;
    }
}

static bool is_any(const struct client *client, const struct flight *flight, const void *context)
{
    (void)client;
    (void)flight;
    (void)context;
    return true;
}

/* ---------------------------------------------------------------------------------- the turn */

uint64_t client_now(struct client *client)
{
    client->now_ns = client->seams.now_ns(client->seams.context);
    client->now_tick = client_tick(client->now_ns);
    return client->now_ns;
}

static bool flush(struct client *client)
{
    bool any = client->seeker != NULL && client_link_flush(client->seeker);
    for (uint32_t i = 0; i < client->links_count; i++)
        if (client_link_flush(client->links[i])) any = true;
    return any;
}

/* When the next deadline or dial is due. */
static uint64_t timer_ns(const struct client *client)
{
    uint64_t due_ns = TIME_NEVER;
    if (client->window.count > 0) {
        int32_t ticks = (int32_t)(client->window.deadline - client->now_tick);
        due_ns = client->now_ns + ((uint64_t)(ticks > 0 ? ticks : 0) << CLIENT_TICK_SHIFT);
    }
    if (client->seeker != NULL) due_ns = min_u64(due_ns, client_link_timer_ns(client->seeker));
    if (client->links_up == client->links_count) return due_ns;
    for (uint32_t i = 0; i < client->links_count; i++)
        due_ns = min_u64(due_ns, client_link_timer_ns(client->links[i]));
    return due_ns;
}

static void fire_timers(struct client *client)
{
    if (window_may_expire(&client->window, client->now_tick)) {
        client_end_matching(client, is_expired, NULL, FERO_E_TIMEOUT);
        window_rebound(&client->window, client->now_tick);
    }
    if (client->seeker != NULL) client_link_tick(client->seeker);
    if (client->links_up == client->links_count) return;
    for (uint32_t i = 0; i < client->links_count; i++) client_link_tick(client->links[i]);
}

/* Gives back what is answered. */
static void release(struct client *client)
{
    struct window *window = &client->window;
    window_advance(window);
    for (uint32_t i = 0; i < client->links_count; i++) {
        struct client_link *link = client->links[i];
        backlog_release(&link->backlog, window->floor, window->next);
        /* It may write at another place now. */
        link->stop = link->backlog.at;
    }
    window_hold(window);
}

static void handle(struct client *client)
{
    for (uint32_t i = 0; i < client->events_count; i++) {
        const struct io_event *event = &client->events[i];
        if (event->context != NULL) client_link_event(event->context, event);
    }
    client->events_count = 0;
}

static void collect(struct client *client, uint64_t wait_ns)
{
    ASSERT(client->events_count == 0);
    client->events_count = io_wait(client->seams.io, client->events, CLIENT_EVENTS_MAX, wait_ns);
}

/* Looks until something comes or `until_ns`. */
static void spin(struct client *client, uint64_t until_ns)
{
    uint64_t begin_ns = client_now(client);
    bool is_ready = false;
    while (!is_ready && client->now_ns < until_ns) {
        for (int i = 0; i < SPINS_PER_CLOCK && !is_ready; i++) {
            is_ready = io_ready(client->seams.io);
            if (!is_ready) clock_pause();
        }
        client_now(client);
    }
    client->spin_ns += client->now_ns - begin_ns;
}

/* Submits, and waits as the options say. */
static void wait_for_events(struct client *client, uint64_t wait_ns)
{
    uint64_t until_ns = wait_ns == TIME_NEVER ? TIME_NEVER : client->now_ns + wait_ns;
    if (wait_ns == 0 || client->idle == FERO_IDLE_SLEEP) {
        collect(client, wait_ns);
        return;
    }
    collect(client, 0);
    if (client->events_count > 0) return;
    if (client->idle == FERO_IDLE_BUSY_POLL) {
        spin(client, until_ns);
        collect(client, 0);
        return;
    }
    uint64_t spin_until_ns = min_u64(until_ns, client->traffic_ns + SPIN_NS);
    if (client->now_ns < spin_until_ns) spin(client, spin_until_ns);
    if (until_ns != TIME_NEVER) wait_ns = until_ns - min_u64(until_ns, client->now_ns);
    collect(client, wait_ns);
}

/* Who was told FERO_E_AGAIN may try again. */
static void tell_room(struct client *client)
{
    bool has_room = client->has_room || (client->is_starved && client->has_progress);
    if (!has_room || client->drain == NULL) return;
    client->has_room = false;
    client->is_starved = false;
    client->finished++;
    client->drain(client->drain_ud);
}

void client_turn(struct client *client, uint64_t wait_ns)
{
    client->is_in_turn = true;
    if (client->events_count == 0) {
        flush(client);
        uint64_t due_ns = timer_ns(client);
        if (due_ns != TIME_NEVER)
            wait_ns = min_u64(wait_ns, due_ns - min_u64(due_ns, client->now_ns));
        wait_for_events(client, wait_ns);
    }
    client_now(client);
    if (client->events_count > 0) client->traffic_ns = client->now_ns;
    handle(client);
    fire_timers(client);
    release(client);
    tell_room(client);
    client->is_in_turn = false;
}

/*
 * Submits what links have begun to send, unless something that was received waits for the next
 * turn: its bytes are ours only until the io is asked again. What is received with it waits, too,
 * but a send that ended makes room for another at once.
 */
static void submit(struct client *client)
{
    bool only_sent = true;
    if (client->events_count > 0) return;
    collect(client, 0);
    for (uint32_t i = 0; i < client->events_count; i++)
        if (client->events[i].type != IO_SENT) only_sent = false;
    if (only_sent) handle(client);
}

void client_send_now(struct client *client, struct client_link *link)
{
    while (client_link_flush(link) && !client->is_in_turn) submit(client);
}

/* Tells the descriptor when a turn has something to do. */
static void arm(struct client *client)
{
    if (!client->is_polled) return;
    client->is_due = false;
    bool is_ready = client->events_count > 0 || pulls_are_ready(client->queues);
    io_arm(client->seams.io, is_ready ? 0 : timer_ns(client));
}

void client_leave(struct client *client)
{
    while (flush(client)) submit(client);
    client->clock_is_old = true;
    arm(client);
}

void client_due(struct client *client)
{
    if (client->is_due) return;
    client->is_due = true;
    io_arm(client->seams.io, 0);
}

void client_ring(struct client *client)
{
    if (client->is_polled) client_due(client);
}

void client_has_room(struct client *client)
{
    client->has_room = true;
}

void client_on_drain(struct client *client, fero_drain_fn drain, void *ud)
{
    client->drain = drain;
    client->drain_ud = ud;
}

int client_fd(struct client *client)
{
    int fd = io_fd(client->seams.io);
    if (fd < 0)
        return error_set(FERO_E_SYS, "no descriptor to poll can be made: %s", strerror(-fd));
    client_now(client);
    client->is_polled = true;
    arm(client);
    return fd;
}

static int turns_until(struct client *client, uint64_t until_ns)
{
    client->finished = 0;
    do {
        uint64_t left_ns =
            until_ns == TIME_NEVER ? TIME_NEVER : until_ns - min_u64(until_ns, client->now_ns);
        client->has_progress = false;
        client_turn(client, left_ns);
        if (client->is_starved && client->has_progress) client->finished++;
    } while (client->finished == 0 && client->now_ns < until_ns);
    client->is_starved = false;
    return (int)client->finished;
}

int client_run(struct client *client, int64_t timeout_ms)
{
    if (client->is_in_turn)
        return error_set(FERO_E_INVAL, "fero_run and fero_wait cannot be called by a callback");
    uint64_t now_ns = client_now(client);
    uint64_t until_ns = TIME_NEVER;
    if (timeout_ms >= 0 && timeout_ms < (int64_t)(UINT64_MAX / 4 / NS_PER_MS))
        until_ns = now_ns + (uint64_t)timeout_ms * NS_PER_MS;
    int events = turns_until(client, until_ns);
    client_leave(client);
    return events;
}

/* Turns until `is_quiet` or `drain_ns` have passed. */
static void drain(struct client *client, uint64_t drain_ns,
                  bool (*is_quiet)(const struct client *, const void *), const void *context)
{
    uint64_t until_ns = client_now(client) + drain_ns;
    while (!is_quiet(client, context) && client->now_ns < until_ns)
        client_turn(client, until_ns - client->now_ns);
}

/* ------------------------------------------------------------------------------------ caches */

static int cache_make(struct client *client, const char *name, struct client_cache **out)
{
    size_t bytes = name != NULL ? strlen(name) : 0;
    uint32_t index = 0;
    /* A node refuses the whole link over such a name, and so all other caches with it. */
    if (name != NULL && !name_is_valid((struct bytes){name, bytes}))
        return error_set(
            FERO_E_INVAL,
            "a cache's name has %zu bytes, but must have 1 to %d, UTF-8 without control characters",
            bytes, FRAME_NAME_BYTES_MAX);
    while (index < CLIENT_CACHES_MAX && client->caches[index] != &client->nobody) index++;
    if (index == CLIENT_CACHES_MAX)
        return error_set(FERO_E_NOMEM, "a client opens at most %d caches", CLIENT_CACHES_MAX);
    struct client_cache *cache = memory_take(sizeof *cache);
    if (cache == NULL) return error_set(FERO_E_NOMEM, "no memory for a cache");
    cache->head.kind = RUNTIME_CLIENT;
    cache->index = index;
    cache->open_seq = client->caches_closed * CLIENT_CACHES_MAX + index;
    cache->client = client;
    if (bytes > 0) memcpy(cache->name_bytes, name, bytes);
    cache->name = (struct bytes){cache->name_bytes, bytes};
    memset(cache->numbers, 0xff, sizeof cache->numbers);
    client->caches[index] = cache;
    client->caches_count++;
    *out = cache;
    return 0;
}

static void cache_free(struct client_cache *cache)
{
    struct client *client = cache->client;
    streams_end(client, cache);
    client_end_matching(client, is_of_cache, &cache->index, FERO_E_CLOSED);
    forget_given_up(client, cache->index);
    for (uint32_t i = 0; i < client->links_count; i++)
        runs_forget(&client->links[i]->runs, cache->index);
    /* The next cache with this index must begin a run of its own. */
    for (uint32_t i = 0; i < client->links_count; i++)
        if (client->links[i]->run_cache == cache->index) client->links[i]->run_cache = RUN_NO_CACHE;
    client->caches[cache->index] = &client->nobody;
    client->caches_count--;
    client->caches_closed++;
    memory_put(cache->verbs);
    memory_put(cache);
}

/* Asks the links that are past their greeting, and wakes those that wait for a reason to dial. */
static int ask_links(struct client *client, struct client_cache *cache)
{
    if (client->links_count == 0 && client->seeker == NULL) {
        client->seeker = client_link_make(client, 0);
        if (client->seeker == NULL) return -ENOMEM;
        dial_now(&client->seeker->dial, client->now_ns);
    }
    if (client->seeker != NULL && client->seeker->state == CLIENT_LINK_DOWN)
        dial_now(&client->seeker->dial, client->now_ns);
    for (uint32_t i = 0; i < client->links_count; i++) {
        struct client_link *link = client->links[i];
        bool has_greeted = link->state >= CLIENT_LINK_GREETING && link->state <= CLIENT_LINK_UP;
        if (has_greeted && client_link_open(link, cache) < 0) return -ENOMEM;
        if (link->state == CLIENT_LINK_DOWN && (client->has_home || i == 0))
            dial_now(&link->dial, client->now_ns);
    }
    return 0;
}

/* How long fero_open goes on, by its options. */
struct patience {
    int64_t timeout_ms;
    uint64_t until_ns;
    uint64_t refused_until_ns; /* where nothing takes a connection */
};

static int take_patience(struct patience *patience, const struct client *client,
                         const fero_opts *opts)
{
    int64_t timeout_ms = opts->timeout_ms > 0 ? opts->timeout_ms : OPEN_TIMEOUT_MS;
    int64_t refused_ms = opts->refused_ms > 0 ? opts->refused_ms : OPEN_REFUSED_MS;
    if (opts->timeout_ms < 0 || timeout_ms > OPEN_MS_MAX)
        return error_set(FERO_E_INVAL, "timeout_ms is %lld, but must be from 0 to %lld",
                         (long long)opts->timeout_ms, (long long)OPEN_MS_MAX);
    if (opts->refused_ms == FERO_OFF) refused_ms = 0;
    if (opts->refused_ms < FERO_OFF || refused_ms > OPEN_MS_MAX)
        return error_set(FERO_E_INVAL, "refused_ms is %lld, but must be FERO_OFF or from 0 to %lld",
                         (long long)opts->refused_ms, (long long)OPEN_MS_MAX);
    *patience = (struct patience){.timeout_ms = timeout_ms,
                                  .until_ns = client->now_ns + (uint64_t)timeout_ms * NS_PER_MS};
    patience->refused_until_ns =
        min_u64(patience->until_ns, client->now_ns + (uint64_t)refused_ms * NS_PER_MS);
    return 0;
}

/* Whether all seeds were tried and none took a connection. */
static bool is_refused_by_all(const struct client *client)
{
    return client->all_refuse && client->seek_rounds > 0 && !client->has_home;
}

/* What makes a node listen where the one seed is, if that needs to be said. */
static const char *ports_option(const struct client *client, char *text, size_t bytes)
{
    uint16_t port = address_port(&client->seeds.addresses[0]);
    text[0] = 0;
    if (client->seeds.count == 1 && port != DIAL_PORT_DEFAULT)
        snprintf(text, bytes, " --ports %u", port);
    return text;
}

static int not_connected(const struct client *client, const struct patience *patience,
                         const char *name)
{
    char seeds[256];
    char ports[16];
    const char *reason = client->reason[0] != 0 ? client->reason : "no answer";
    seeds_format(&client->seeds, seeds, sizeof seeds);
    ports_option(client, ports, sizeof ports);
    if (client->has_home)
        return error_set(FERO_E_NOTCONN, "only %u of %u shards of %s answered within %lld ms (%s)",
                         client->links_up, client->links_count, client->home_text,
                         (long long)patience->timeout_ms, client->reason);
    if (is_refused_by_all(client))
        return error_set(FERO_E_NOTCONN,
                         "no node listens at %s (%s): start one with `fero serve %s%s`, or name "
                         "another with --seeds",
                         seeds, reason, name, ports);
    return error_set(FERO_E_NOTCONN,
                     "no node answered at %s within %lld ms (%s): start one with `fero serve "
                     "%s%s`, or name another with --seeds",
                     seeds, (long long)patience->timeout_ms, reason, name, ports);
}

static bool is_open(const struct client_cache *cache)
{
    const struct client *client = cache->client;
    return client->links_count > 0 && client->links_up == client->links_count &&
           cache->links_open == client->links_count;
}

/* Turns until the cache is open on every link; FERO_E_... with fero_errmsg if it cannot be. */
static int wait_open(struct client_cache *cache, const struct patience *patience)
{
    struct client *client = cache->client;
    while (!is_open(cache)) {
        if (cache->open_error != 0)
            return error_set(cache->open_error,
                             cache->open_error == FERO_E_NOTFOUND
                                 ? "the node at %s has no cache \"%s\" (%s)"
                                 : "the node at %s cannot open the cache \"%s\": %s",
                             client->home_text, cache->name_bytes,
                             fero_strerror(cache->open_error));
        bool is_refused = client->refusal != 0 && client->links_up == 0;
        if (is_refused && (client->seek_rounds > 0 || client->has_home))
            return error_set(client->refusal, "%s", client->reason);
        uint64_t until_ns =
            is_refused_by_all(client) ? patience->refused_until_ns : patience->until_ns;
        if (client->now_ns >= until_ns)
            return not_connected(client, patience,
                                 cache->name.size > 0 ? cache->name_bytes : "NAME");
        client_turn(client, until_ns - client->now_ns);
    }
    return 0;
}

int client_open(struct client *client, const char *name, const fero_opts *opts, fero_cache **out)
{
    struct patience patience = {0};
    if (client->is_in_turn)
        return error_set(FERO_E_INVAL, "fero_open cannot be called by a callback");
    client_now(client);
    int err = take_patience(&patience, client, opts);
    if (err < 0) return err;
    struct client_cache *cache = NULL;
    err = cache_make(client, name, &cache);
    if (cache == NULL) return err;
    client->refusal = 0;
    client->seek_rounds = 0;
    client->deaf_rounds = 0;
    client->all_refuse = true;
    err = ask_links(client, cache) < 0 ? error_set(FERO_E_NOMEM, "no memory for a link")
                                       : wait_open(cache, &patience);
    if (err < 0)
        cache_free(cache);
    else
        *out = (fero_cache *)cache;
    client_leave(client);
    return err;
}

static bool has_no_flights(const struct client *client, const void *context)
{
    const struct client_cache *cache = context;
    const struct window *window = &client->window;
    for (uint64_t seq = window_next_waiting(window, window->floor); seq != 0;
         seq = window_next_waiting(window, seq + 1))
        if (window_at(window, seq)->cache == cache->index) return false;
    return true;
}

int client_close(struct client_cache *cache)
{
    struct client *client = cache->client;
    if (client->is_in_turn)
        return error_set(FERO_E_INVAL, "fero_close cannot be called by a callback");
    drain(client, CLIENT_DRAIN_NS, has_no_flights, cache);
    client->is_in_turn = true;
    cache_free(cache);
    client->is_in_turn = false;
    client_leave(client);
    return 0;
}

/* Whether all that nobody waits for has arrived, as far as links are up. */
static bool has_arrived(const struct client *client, const void *context)
{
    (void)context;
    for (uint32_t i = 0; i < client->links_count; i++) {
        const struct client_link *link = client->links[i];
        if (link->state != CLIENT_LINK_UP) continue;
        if (backlog_unsent_bytes(&link->backlog) > 0 || link->acks.first != 0) return false;
    }
    return true;
}

int client_stop(struct client *client, uint64_t drain_ns)
{
    if (client->is_in_turn)
        return error_set(FERO_E_INVAL, "fero_stop cannot be called by a callback");
    drain(client, drain_ns, has_arrived, NULL);
    client->is_in_turn = true;
    client->is_stopping = true;
    window_hold(&client->window);
    client_end_matching(client, is_any, NULL, FERO_E_CLOSED);
    pulls_leave(&client->queues, false);
    streams_end(client, NULL);
    client_free(client);
    return 0;
}
