/*
 * The turn
 *
 *   1  wait         submit what the last turn queued and collect what happened meanwhile
 *   2  events       bytes from callers become runs of requests; they are applied at once
 *   3  lanes        requests and replies of other shards, so that their replies leave this turn
 *   4  seal         the turn's changes become one batch with one checksum
 *   5  flush        changes for subscribers; one ACK and one send for each link that has output
 *   6  publish      one release store for each lane that has mail, then wake the sleepers
 *   7  unblock      links that had no room try again
 *   8  compact      a little, in proportion to what was appended
 *
 * Waiting is adaptive: after the last turn that did something the shard spins for a while without a
 * system call, because a wake-up from sleep costs far more than a turn; the while is halved when it
 * was useless and doubled when it paid. Then it sleeps until something happens or a timer is due.
 */
#include "shard/shard.h"

#include <errno.h>
#include <time.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/ck.h"
#include "base/clock.h"
#include "base/memory.h"
#include "ring/slot.h"
#include "shard/crossing.h"
#include "shard/feed.h"
#include "shard/lent.h"
#include "shard/subscription.h"

#define SPIN_NS_MIN (5 * NS_PER_US)
/* Looks for something to do between two looks at the clock, */
#define SPIN_LOOKS 64
/* and the most that they take: if it was longer, something else had the cpu meanwhile. */
#define SPIN_LOOKS_NS_MAX (20 * NS_PER_US)
/* Old log that is looked at for each appended byte while a compaction runs. */
#define COMPACT_PER_APPENDED 4
#define COMPACT_BYTES_MIN (64 * KIB)
/*
 * Where memory.max is reached, nothing is appended before enough has been looked at. Removals are, and
 * must not use up what only they may have: twice as much is looked at as a sweep must win a part of.
 */
#define COMPACT_BYTES_MIN_FULL (1 * MIB)
#define COMPACT_PER_APPENDED_FULL 64
#define WALL_READ_NS NS_PER_S
/* Nobody tells a shard that a lane has room again: it looks this often while it sleeps. */
#define LANE_POLL_NS (100 * NS_PER_US)
/* A stopping shard ends its reading when its links have been quiet for this long. */
#define QUIET_NS (20 * NS_PER_MS)

int shard_init(struct shard *shard, uint32_t index, struct io *io, struct mailbox *mailbox,
               struct shard **peers, uint16_t *slot_owner, const struct shard_options *options)
{
    ASSERT(index < options->shards_count);
    shard->index = index;
    shard->io = io;
    shard->mailbox = mailbox;
    shard->peers = peers;
    shard->slot_owner = slot_owner;
    shard->options = options;
    shard->spin_ns = options->spin_ns_max;
    shard->next_shard = index;
    shard->updates_take = updates_choose();
    size_t callers = shard_callers_max(options);
    shard->links.bytes_max = options->links_bytes_max;
    shard->outbox_bytes = options->outbox_bytes_max;
    rng_init(&shard->crowd.rng, options->hash_seed + index);
    int err = segments_init(&shard->segments, options->log_bytes_max);
    if (err < 0) return err;
    err = errors_init(&shard->errors, options->errors_max);
    if (err < 0) goto deinit_segments;
    err = sessions_init(&shard->sessions, options->sessions_bytes_max, options->hash_seed);
    if (err < 0) goto deinit_errors;
    err = -ENOMEM;
    shard->callers = memory_reserve(callers * sizeof *shard->callers, 0);
    if (shard->callers == NULL) goto deinit_sessions;
    shard->dirty = memory_reserve(callers * sizeof(struct caller *), 0);
    if (shard->dirty == NULL) goto release_callers;
    shard->waiting = memory_reserve(callers * sizeof(struct caller *), 0);
    if (shard->waiting == NULL) goto release_dirty;
    if (deferreds_init(shard) < 0) goto release_waiting;
    if (waiters_init(shard) < 0) goto deinit_deferreds;
    store_release_u32(&shard->is_needed, 1);
    return 0;

deinit_deferreds:
    deferreds_deinit(shard);
release_waiting:
    memory_release(shard->waiting, callers * sizeof(struct caller *));
release_dirty:
    memory_release(shard->dirty, callers * sizeof(struct caller *));
release_callers:
    memory_release(shard->callers, callers * sizeof *shard->callers);
deinit_sessions:
    sessions_deinit(&shard->sessions);
deinit_errors:
    errors_deinit(&shard->errors);
deinit_segments:
    segments_deinit(&shard->segments);
    return err;
}

void shard_deinit(struct shard *shard)
{
    size_t callers = shard_callers_max(shard->options);
    io_destroy(shard->io);
    shard->io = NULL;
    crossing_discard(shard);
    deferreds_deinit(shard);
    waiters_deinit(shard);
    asks_deinit(&shard->asks);
    lent_put_all(shard);
    timers_deinit(&shard->timers);
    for (uint32_t i = 0; i < shard->callers_fresh; i++)
        if (shard->callers[i].state != CALLER_FREE) caller_release(&shard->callers[i]);
    feeds_end(shard);
    for (uint32_t i = 0; i < shard->caches_count; i++) {
        store_deinit(&shard->caches[i]->store);
        memory_put(shard->caches[i]);
    }
    memory_release(shard->waiting, callers * sizeof(struct caller *));
    memory_release(shard->dirty, callers * sizeof(struct caller *));
    memory_release(shard->callers, callers * sizeof *shard->callers);
    memory_put(shard->scratch);
    sessions_deinit(&shard->sessions);
    errors_deinit(&shard->errors);
    segments_deinit(&shard->segments);
}

/* ------------------------------------------------------------------------------ commands */

static int open_cache(struct shard *shard, const struct cache_definition *definition)
{
    ASSERT(definition->number == shard->caches_count);
    ASSERT(shard->caches_count < CACHES_MAX);
    const struct shard_options *options = shard->options;
    struct cache *cache = memory_take(sizeof *cache);
    if (cache == NULL) return -ENOMEM;
    struct store_options store = {.log = {.history_bytes_max = options->history_bytes_max,
                                          .history_records_max = options->history_records_max,
                                          .owner = options->node,
                                          .view = options->view},
                                  .entries_max = options->log_bytes_max / 64,
                                  .hash_seed = options->hash_seed,
                                  .garbage_bytes_max = options->garbage_bytes_max,
                                  .lent_bytes_max = options->lent_bytes_max};
    int err = store_init(&cache->store, &shard->segments, &shard->hlc, &store);
    if (err < 0) {
        memory_put(cache);
        return err;
    }
    cache->definition = definition;
    if (definition->ids != NULL)
        cache->store.highest_id = &definition->ids->shards[shard->index].highest;
    cache->shard = shard;
    shard->caches[shard->caches_count++] = cache;
    return 0;
}

static void stop(struct shard *shard, uint64_t drain_ns)
{
    if (shard->stopping) return;
    shard->stopping = true;
    shard->drain_ns = drain_ns;
    shard->stop_deadline_ns = shard->now_ns + drain_ns;
    shard->quiet_since_ns = shard->now_ns;
    io_stop_listening(shard->io);
}

static void take_command(struct shard *shard)
{
    uint32_t command = load_acquire_u32(&shard->command);
    if (LIKELY(command == COMMAND_NONE)) return;
    shard->command_result = 0;
    if (command == COMMAND_OPEN_CACHE)
        shard->command_result = open_cache(shard, shard->command_argument);
    else
        stop(shard, *(const uint64_t *)shard->command_argument);
    shard->work++;
    store_release_u32(&shard->command, COMMAND_NONE);
    store_release_u32(&shard->command_done, 1);
}

/* ------------------------------------------------------------------------------- the turn */

static void read_clocks(struct shard *shard)
{
    shard->now_ns = clock_now_ns();
    if (shard->now_ns - shard->wall_read_ns >= WALL_READ_NS || shard->wall_read_ns == 0) {
        shard->wall_offset_ms = clock_wall_ms() - shard->now_ns / NS_PER_MS;
        shard->wall_read_ns = shard->now_ns;
    }
    shard->hlc = max_u64(shard->hlc, shard_wall_ms(shard) << 16);
}

static void take_events(struct shard *shard, const struct io_event *events, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct io_event *event = &events[i];
        if (event->type == IO_ACCEPTED)
            caller_accept(shard, event->conn, event->address);
        else if (event->type != IO_WOKEN)
            caller_event(shard, event);
    }
}

static void seal_logs(struct shard *shard)
{
    if (shard->appended_bytes == 0) return;
    for (uint32_t i = 0; i < shard->caches_count; i++) log_seal(&shard->caches[i]->store.log);
}

/* Tells when memory runs low, when there is none, and when there is enough again. */
static void watch_memory(struct shard *shard)
{
    const struct trace *trace = shard->options->trace;
    uint64_t used = segments_bytes(&shard->segments);
    uint64_t max = shard->options->log_bytes_max;
    uint8_t before = shard->memory_level;
    uint8_t level = before;
    if (shard->was_full)
        level = MEMORY_FULL;
    else if (used > max / 10 * 9)
        level = before == MEMORY_ENOUGH ? MEMORY_LOW : before;
    else if (used <= max / 10 * 8 || before == MEMORY_FULL)
        level = MEMORY_ENOUGH;
    /* Where it changes from turn to turn, one line a second is enough. */
    if (LIKELY(level == before) || shard->now_ns - shard->memory_told_ns < NS_PER_S) return;
    shard->memory_told_ns = shard->now_ns;
    bool is_worse = level > before;
    shard->memory_level = level;
    if (level == MEMORY_FULL)
        trace_line(trace, TRACE_WARN,
                   "memory: shard %u takes no more updates: memory.max is reached; remove keys or "
                   "raise it",
                   shard->index);
    else if (is_worse)
        trace_line(trace, TRACE_INFO, "memory: shard %u uses %llu of %llu bytes for its logs",
                   shard->index, (unsigned long long)used, (unsigned long long)max);
    else
        trace_line(trace, TRACE_INFO, "memory: shard %u has room again", shard->index);
}

static void tell_compaction(struct shard *shard, size_t looked_at)
{
    bool is_compacting = looked_at > 0;
    if (LIKELY(is_compacting == shard->is_compacting)) return;
    shard->is_compacting = is_compacting;
    trace_line(shard->options->trace, TRACE_DEBUG, "memory: shard %u %s compacting, at %llu bytes",
               shard->index, is_compacting ? "begins" : "ends",
               (unsigned long long)segments_bytes(&shard->segments));
}

static void compact(struct shard *shard)
{
    if (shard->appended_bytes == 0 && !shard->was_full) return;
    size_t budget_min = shard->was_full ? COMPACT_BYTES_MIN_FULL : COMPACT_BYTES_MIN;
    size_t per_appended =
        segments_are_full(&shard->segments) ? COMPACT_PER_APPENDED_FULL : COMPACT_PER_APPENDED;
    size_t budget = max_u64(shard->appended_bytes * per_appended, budget_min);
    size_t looked_at = 0;
    for (uint32_t i = 0; i < shard->caches_count; i++)
        looked_at += store_compact(&shard->caches[i]->store, budget);
    /* What is in the way may be another cache's, which nobody writes to. */
    for (uint32_t i = 0; shard->was_full && looked_at == 0 && i < shard->caches_count; i++)
        store_make_room(&shard->caches[i]->store);
    count(&shard->counters.compacted_bytes, looked_at);
    tell_compaction(shard, looked_at);
    watch_memory(shard);
    shard->appended_bytes = 0;
    shard->was_full = false;
}

static void wake_sleepers(struct shard *shard, uint64_t sleepers)
{
    for (; sleepers != 0; sleepers &= sleepers - 1)
        io_wake(shard->peers[__builtin_ctzll(sleepers)]->io, shard->io);
}

static void publish_counters(struct shard *shard)
{
    struct shard_counters *counters = &shard->counters;
    count(&counters->turns, 1);
    store_relaxed_u64(&counters->enters, shard->io->counters.enters);
    store_relaxed_u64(&counters->direct_sends, shard->io->counters.direct_sends);
    if (UNLIKELY(shard->io->counters.accept_pauses != counters->accept_pauses)) {
        store_relaxed_u64(&counters->accept_pauses, shard->io->counters.accept_pauses);
        note_error(shard, ERROR_OF_LINK, ERROR_BUSY,
                   "out of descriptors: accepting waits for a moment (ulimit -n)", 0, 0);
    }
    store_relaxed_u64(&counters->received_bytes, shard->io->counters.received_bytes);
    store_relaxed_u64(&counters->sent_bytes, shard->io->counters.sent_bytes);
    store_relaxed_u64(&counters->sessions, shard->sessions.count);
    store_relaxed_u64(&counters->links_bytes, shard->links.bytes + shard->io->counters.held_bytes);
    uint64_t keys = 0;
    uint64_t tables = 0;
    for (uint32_t i = 0; i < shard->caches_count; i++) {
        keys += store_keys_count(&shard->caches[i]->store);
        tables += table_bytes(&shard->caches[i]->store.table);
    }
    store_relaxed_u64(&counters->keys, keys);
    store_relaxed_u64(&counters->memory_bytes,
                      segments_bytes(&shard->segments) + tables + shard->sessions.bytes);
}

/* Whether any other shard may still send this one a request, or wait for its answer. */
static bool is_needed_by_others(const struct shard *shard)
{
    for (uint32_t i = 0; i < shard->options->shards_count; i++)
        if (i != shard->index && load_acquire_u32(&shard->peers[i]->is_needed) != 0) return true;
    return false;
}

/*
 * A stopping shard goes on until its links are quiet, or for half of its time. Then it takes no more
 * requests, and answers what it took; handlers that have not answered by three quarters of the time
 * do so no more. Once that has gone out it needs no other shard, and may stop
 * when none needs it and its callers have left, so that no reset overtakes the last replies. Mail is
 * looked for last, as it was sent before its sender said so.
 */
static bool may_stop(struct shard *shard)
{
    bool quiet = crossing_is_quiet(shard) && !mailbox_has_mail(shard->mailbox) &&
                 callers_are_flushed(shard) && shard->deferreds.count == 0;
    if (!quiet || shard->work > 0) shard->quiet_since_ns = shard->now_ns;
    bool reading_ends = shard->now_ns - shard->quiet_since_ns >= QUIET_NS ||
                        shard->now_ns + shard->drain_ns / 2 >= shard->stop_deadline_ns;
    if (reading_ends && !shard->reading_ended) callers_end_reading(shard);
    if (shard->now_ns + shard->drain_ns / 4 >= shard->stop_deadline_ns) deferreds_stop(shard);
    store_release_u32(&shard->is_needed, !(quiet && shard->reading_ended));
    bool is_over = quiet && shard->reading_ended && shard->counters.connections == 0 &&
                   !is_needed_by_others(shard) && !mailbox_has_mail(shard->mailbox);
    return is_over || shard->now_ns >= shard->stop_deadline_ns;
}

static bool something_ready(const struct shard *shard)
{
    return io_ready(shard->io) || mailbox_has_mail(shard->mailbox) ||
           load_acquire_u32(&shard->command) != COMMAND_NONE;
}

/*
 * Spins until something is ready or `spin_ns` have passed; true: ready. It counts what it took, with
 * the turn that found nothing to do: CPU time without that is work.
 */
static bool spin(struct shard *shard, uint64_t spin_ns)
{
    uint64_t at_ns = shard->now_ns;
    uint64_t spun_ns = 0;
    bool is_ready;
    do {
        unsigned looks = 0;
        while (!(is_ready = something_ready(shard)) && ++looks < SPIN_LOOKS) clock_pause();
        uint64_t now_ns = clock_now_ns();
        spun_ns += min_u64(now_ns - at_ns, SPIN_LOOKS_NS_MAX);
        at_ns = now_ns;
    } while (!is_ready && at_ns - shard->now_ns < spin_ns);
    count(&shard->counters.spin_ns, spun_ns);
    return is_ready;
}

static uint64_t sleep_ns(const struct shard *shard)
{
    uint64_t deadline = min_u64(callers_deadline_ns(shard), timers_next_ns(&shard->timers));
    if (shard->stopping)
        deadline =
            min_u64(deadline, min_u64(shard->now_ns + QUIET_NS / 4, shard->stop_deadline_ns));
    bool waits_for_lane = shard->lane_waits_count > 0 || shard->deferreds.unsent.first != NULL ||
                          shard->waiters.unsent != NULL;
    if (waits_for_lane) deadline = min_u64(deadline, shard->now_ns + LANE_POLL_NS);
    if (deadline == TIME_NEVER) return TIME_NEVER;
    return deadline > shard->now_ns ? deadline - shard->now_ns : 0;
}

uint64_t shard_due_ns(const struct shard *shard)
{
    uint64_t wait_ns = sleep_ns(shard);
    return wait_ns == TIME_NEVER ? TIME_NEVER : shard->now_ns + wait_ns;
}

/*
 * How long the next io_wait may block: 0 where there is, or soon will be, something to do, and never
 * more than `wait_ns_max`.
 */
static uint64_t prepare_to_wait(struct shard *shard, uint64_t wait_ns_max)
{
    const struct shard_options *options = shard->options;
    if (wait_ns_max == 0 || shard->work > 0 || something_ready(shard)) return 0;
    if (BUGGIFY("wakes_for_nothing")) return 0;
    if (options->idle == IDLE_BUSY_POLL) {
        spin(shard, min_u64(min_u64(sleep_ns(shard), wait_ns_max), 10 * NS_PER_MS));
        return 0;
    }
    if (options->idle == IDLE_ADAPTIVE) {
        if (spin(shard, min_u64(shard->spin_ns, wait_ns_max))) {
            shard->spin_ns = min_u64(shard->spin_ns * 2, options->spin_ns_max);
            return 0;
        }
        shard->spin_ns = max_u64(shard->spin_ns / 2, min_u64(SPIN_NS_MIN, options->spin_ns_max));
    }
    if (!mailbox_sleep(shard->mailbox)) return 0;
    if (load_acquire_u32(&shard->command) != COMMAND_NONE) return 0;
    count(&shard->counters.sleeps, 1);
    return min_u64(sleep_ns(shard), wait_ns_max);
}

static _Thread_local struct shard *running;

struct shard *shard_running(void)
{
    return running;
}

bool shard_turn_within(struct shard *shard, uint64_t wait_ns_max)
{
    struct io_event events[SHARD_EVENTS_MAX];
    uint64_t wait_ns = prepare_to_wait(shard, wait_ns_max);
    running = shard;
    shard->work = 0;
    unsigned count = io_wait(shard->io, events, SHARD_EVENTS_MAX, wait_ns); /* 1 */
    mailbox_awake(shard->mailbox);
    read_clocks(shard); /* the only clock read of a turn that does not spin */

    take_command(shard);
    take_events(shard, events, count); /* 2 */
    crossing_drain(shard);             /* 3 */
    timers_fire(&shard->timers, shard->now_ns);
    deferreds_turn(shard);
    waiters_turn(shard);
    callers_expire(shard);
    seal_logs(shard);           /* 4 */
    subscriptions_serve(shard); /* 5 */
    feeds_serve(shard);
    callers_flush(shard);
    wake_sleepers(shard, mailbox_publish(shard->mailbox)); /* 6 */
    callers_unblock(shard);                                /* 7 */
    callers_trim(shard);
    callers_relieve(shard);
    compact(shard); /* 8 */
    publish_counters(shard);
    lent_put_all(shard);
    bool goes_on = !shard->stopping || !may_stop(shard);
    running = NULL;
    return goes_on;
}

bool shard_turn(struct shard *shard)
{
    return shard_turn_within(shard, TIME_NEVER);
}

void shard_take_port(struct shard *shard, uint32_t port)
{
    running = shard;
    read_clocks(shard);
    crossing_take(shard, FROM_PORTS + port);
    lent_put_all(shard);
    running = NULL;
    wake_sleepers(shard, mailbox_publish(shard->mailbox));
}

void shard_take_command(struct shard *shard)
{
    take_command(shard);
}

void shard_run(struct shard *shard)
{
    while (shard_turn(shard)) {
    }
    store_release_u32(&shard->is_needed, 0);
}
