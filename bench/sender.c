/*
 * Clients that send as fast as they can, or at a rate.
 *
 * A run is timed by each client's own thread: its start, when its last request had been written to
 * the kernel (tack), when the last had been acknowledged (yack), when the last reply was there
 * (sack). The figures are from the first start to the last end. The loop makes a key and patches a
 * number into the value, a few nanoseconds; it reads the clock only for a sample of the messages.
 * Who checks the replies does so outside of it:
 *
 *   keys     A key is a number of this client's range through a bijection of 64 bits: distinct
 *            without a table of them. Which one comes next is drawn from a generator, whose
 *            sequence can be repeated.
 *   values   begin with the record's number in little-endian, as many bytes as fit, then a pattern.
 *   update   After the run, the sequence is drawn again to learn the last number sent to each key;
 *            then every touched key is read, and its whole value compared.
 *   echo     Numbers of the replies are added up, plain and mixed; one of SENDER_SAMPLE_EVERY is
 *            compared as a whole.
 *
 * Numbers go on from run to run, so that a value left over from an earlier run is a mismatch.
 *
 * In the open loop a message has an intended time, and its latency counts from there: a server that
 * stalls is charged for the messages that should have been sent meanwhile.
 */
#include "bench/sender.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/ck.h"
#include "base/clock.h"
#include "base/memory.h"
#include "bench/keys.h"
#include "bench/progress.h"
#include "cli/json.h"
#include "engine/client.h"
#include "wire/frame.h"

#define CONNECT_MS 10000
/* Without any reply for so long, a run has failed. */
#define STALLED_NS (10 * NS_PER_S)
/* The client's library does its work once in a burst: so many bytes make a large send. */
#define BURST_BYTES (128 * KIB)
#define BURST_MESSAGES_MIN 16
#define BURST_MESSAGES_MAX 1024
/* More than a session's window, so that a slot is free when its turn comes again. */
#define SLOTS 65536
#define PATTERN 0x5a
#define PROGRESS_MS 50
#define WARMUP_MAX 4000000
/* As the limit's: more would not be faster, and fall out of the caches. */
#define WINDOW_BYTES (1 * MIB)
#define WINDOW_BYTES_MIN (64 * KIB)

const char *const sender_verb_names[] = {"echo", "update", NULL};

enum sender_task { TASK_CONNECT, TASK_WARM, TASK_SETTLE, TASK_ASK, TASK_RUN, TASK_CHECK, TASK_END };

struct sender;

/* What a reply that must be looked at comes back with. */
struct slot {
    struct sender *sender; /* NULL: free */
    uint64_t word;         /* a time in ns, or a number */
};

/* One node as this client sees it through one runtime. */
struct target {
    fero *runtime;
    fero_cache *cache;
    uint64_t tacks_base;
    uint64_t yacks_base;
    uint64_t sacks_base;
    uint64_t failed_base;
};

struct sender {
    struct senders *all;
    pthread_t thread;
    uint32_t index;
    uint32_t targets_count;
    struct target *targets; /* one for each socket of each node */
    uint64_t records;
    uint64_t keys_first; /* of this client's range */
    uint64_t keys_count;
    uint64_t number_next; /* of the next record, over all runs */
    uint64_t burst;       /* messages between two calls of fero_run */
    uint32_t value_bytes;
    uint64_t number_mask; /* the bits of a number that fit into a value */
    uint8_t *value;
    struct slot *slots;
    struct histogram *latencies;
    uint32_t *last; /* of each key: 1 + place in the run of the last update, 0: none */

    /* Of the run at hand. */
    uint64_t seed;
    uint64_t first; /* number of its first record */
    bool failed;
    uint64_t start_ns;
    uint64_t tacks_ns;
    uint64_t yacks_ns;
    uint64_t sacks_ns;
    uint64_t cpu_ns;
    uint64_t spin_ns; /* of it */
    uint64_t replies_failed;
    uint64_t keys_checked;
    uint64_t mismatches;
    uint64_t sum;
    uint64_t sum_mixed;
    uint64_t server_cpu_ns;
    uint64_t server_spin_ns;
    uint64_t server_memory_bytes;
    uint64_t progress __attribute__((aligned(CACHE_PAIR))); /* replies; the main thread reads it */
};

struct senders {
    struct sender_options options;
    enum sender_task task;
    const char *step;
    pthread_barrier_t barrier;
    uint32_t started;
    uint64_t runs;
    struct sender *list;
};

/* ---------------------------------------------------------------------------- keys and values */

/* The finalizer of splitmix64: a bijection, so different numbers are different keys. */
static inline uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* wyrand (Wang Yi): the cheapest generator that is good enough to pick keys. */
static inline uint64_t draw(uint64_t *state, uint64_t bound)
{
    *state += 0xa0761d6478bd642fu;
    unsigned __int128 product = (unsigned __int128)*state * (*state ^ 0xe7037ed1a0b428dbu);
    uint64_t random = (uint64_t)(product >> 64) ^ (uint64_t)product;
    return (uint64_t)(((unsigned __int128)random * bound) >> 64);
}

static inline uint64_t key_of(const struct sender *sender, uint64_t index)
{
    return keys_scattered(sender->keys_first + index);
}

/* The value's buffer has room for a whole number, however short the value is. */
static inline void value_number(struct sender *sender, uint64_t number)
{
    memcpy(sender->value, &number, sizeof number);
}

/* Whether `value` is the one that was sent with `number`. */
static bool value_matches(const struct sender *sender, const fero_val *value, uint64_t number)
{
    uint8_t begin[8];
    size_t begin_bytes = sender->value_bytes < 8 ? sender->value_bytes : 8;
    if (value->type != FERO_T_BYTES || value->s.len != sender->value_bytes) return false;
    memcpy(begin, &number, sizeof begin);
    return memcmp(value->s.ptr, begin, begin_bytes) == 0 &&
           memcmp((const uint8_t *)value->s.ptr + begin_bytes, sender->value + begin_bytes,
                  sender->value_bytes - begin_bytes) == 0;
}

/* ------------------------------------------------------------------------------------ replies */

static inline void record_latency(struct slot *slot)
{
    uint64_t now_ns = clock_now_ns();
    struct sender *sender = slot->sender;
    histogram_record(sender->latencies, now_ns > slot->word ? now_ns - slot->word : 0);
    slot->sender = NULL;
}

static void on_timed(const fero_result *result, void *ud)
{
    (void)result;
    record_latency(ud);
}

static inline void take_echo(struct sender *sender, const fero_result *result)
{
    uint64_t number = 0;
    if (UNLIKELY(result->value.s.len != sender->value_bytes)) {
        sender->mismatches++;
        return;
    }
    memcpy(&number, result->value.s.ptr, sender->value_bytes < 8 ? sender->value_bytes : 8);
    sender->sum += number;
    sender->sum_mixed += mix(number);
}

static void on_echo(const fero_result *result, void *ud)
{
    take_echo(ud, result);
}

static void on_echo_timed(const fero_result *result, void *ud)
{
    struct slot *slot = ud;
    struct sender *sender = slot->sender;
    uint64_t number = 0;
    take_echo(sender, result);
    if (result->value.s.len == sender->value_bytes) {
        memcpy(&number, result->value.s.ptr, sender->value_bytes < 8 ? sender->value_bytes : 8);
        if (!value_matches(sender, &result->value, number)) sender->mismatches++;
    }
    record_latency(slot);
}

static void on_checked(const fero_result *result, void *ud)
{
    struct slot *slot = ud;
    struct sender *sender = slot->sender;
    sender->keys_checked++;
    if (result->outcome != FERO_OUTCOME_OK || !value_matches(sender, &result->value, slot->word))
        sender->mismatches++;
    slot->sender = NULL;
}

/* --------------------------------------------------------------------------------------- pump */

static void complain_of(struct sender *sender, const char *what)
{
    if (!sender->failed)
        fprintf(stderr, "fero %s: client %u: %s: %s\n", sender->all->options.bench,
                sender->index + 1, what, fero_errmsg());
    sender->failed = true;
}

static void targets_begin(struct sender *sender)
{
    for (uint32_t i = 0; i < sender->targets_count; i++) {
        struct target *target = &sender->targets[i];
        fero_counts counts;
        fero_counts_get(target->cache, &counts);
        target->tacks_base = counts.tacks;
        target->yacks_base = counts.yacks;
        target->sacks_base = counts.sacks;
        target->failed_base = counts.failed;
    }
    sender->tacks_ns = sender->yacks_ns = sender->sacks_ns = 0;
}

struct so_far {
    uint64_t tacks;
    uint64_t yacks;
    uint64_t sacks;
    uint64_t failed;
};

static struct so_far targets_so_far(const struct sender *sender)
{
    struct so_far so_far = {0};
    for (uint32_t i = 0; i < sender->targets_count; i++) {
        const struct target *target = &sender->targets[i];
        fero_counts counts;
        fero_counts_get(target->cache, &counts);
        so_far.tacks += counts.tacks - target->tacks_base;
        so_far.yacks += counts.yacks - target->yacks_base;
        so_far.sacks += counts.sacks - target->sacks_base;
        so_far.failed += counts.failed - target->failed_base;
    }
    return so_far;
}

/* CPU time that the client's side has spent on waiting, over all runs. */
static uint64_t targets_spin_ns(const struct sender *sender)
{
    uint64_t spin_ns = 0;
    for (uint32_t i = 0; i < sender->targets_count; i++)
        spin_ns += client_spin_ns(sender->targets[i].cache);
    return spin_ns;
}

/* Events done, or negative after one line. */
static inline int pump_target(struct sender *sender, uint64_t target, int64_t wait_ms)
{
    int done = fero_run(sender->targets[target].runtime, wait_ms);
    if (UNLIKELY(done < 0)) complain_of(sender, "lost");
    return done;
}

/* Lets the library work, waiting up to `wait_ms` where there is nothing to do; false: it failed. */
static bool pump(struct sender *sender, int64_t wait_ms)
{
    /* With several servers, nobody may sleep on one of them for long. */
    if (sender->targets_count > 1 && wait_ms > 1) wait_ms = 0;
    for (uint32_t i = 0; i < sender->targets_count; i++)
        if (UNLIKELY(pump_target(sender, i, wait_ms) < 0)) return false;
    return true;
}

/* Notes which of the three ends have been reached with `count` requests; true: all. */
static bool note_ends(struct sender *sender, uint64_t count)
{
    struct so_far so_far = targets_so_far(sender);
    store_relaxed_u64(&sender->progress, so_far.sacks);
    if (so_far.tacks < count) return false;
    if (sender->tacks_ns == 0) sender->tacks_ns = clock_now_ns();
    if (sender->yacks_ns == 0 && (so_far.yacks >= count || so_far.sacks >= count))
        sender->yacks_ns = clock_now_ns();
    if (so_far.sacks < count) return false;
    sender->sacks_ns = clock_now_ns();
    sender->replies_failed = so_far.failed;
    return true;
}

/* Waits until all of `count` requests are replied to. */
static bool wait_for_ends(struct sender *sender, uint64_t count)
{
    uint64_t seen = 0;
    uint64_t seen_ns = clock_now_ns();
    while (!note_ends(sender, count)) {
        if (!pump(sender, 100)) return false;
        uint64_t sacks = targets_so_far(sender).sacks;
        if (sacks != seen) {
            seen = sacks;
            seen_ns = clock_now_ns();
        } else if (clock_now_ns() - seen_ns > STALLED_NS) {
            complain_of(sender, "no reply for 10 s");
            return false;
        }
    }
    return true;
}

/* A slot that no reply is waiting for; NULL: the library failed meanwhile. */
static struct slot *take_slot(struct sender *sender, uint64_t number)
{
    struct slot *slot = &sender->slots[number % SLOTS];
    while (UNLIKELY(slot->sender != NULL))
        if (!pump(sender, 1)) return NULL;
    slot->sender = sender;
    return slot;
}

/* --------------------------------------------------------------------------------------- send */

/* Sends one record; what the library answered. */
static ALWAYS_INLINE int send_record(struct sender *sender, enum sender_verb verb,
                                     const fero_val *value, uint64_t index, const fero_wopts *wopts)
{
    uint32_t targets = sender->targets_count;
    fero_cache *cache = sender->targets[targets == 1 ? 0 : index % targets].cache;
    if (verb == SENDER_ECHO)
        return fero_send(cache, (fero_slice){"ECHO", 4}, (fero_slice){NULL, 0}, value, wopts, NULL);
    uint64_t key = key_of(sender, index);
    return fero_update(cache, (fero_slice){&key, sizeof key}, value, wopts, NULL);
}

/*
 * The key of a run's record `i`. A key always goes to the same target, so that its updates stay in
 * order; with several targets the records of a burst have keys of one of them, so that they leave in
 * one send.
 */
static inline uint64_t draw_index(const struct sender *sender, uint64_t *state, uint64_t i)
{
    uint64_t targets = sender->targets_count;
    uint64_t index = draw(state, sender->keys_count);
    if (targets == 1) return index;
    uint64_t moved = index - index % targets + i / sender->burst % targets;
    return moved < sender->keys_count ? moved : index;
}

/* How the records of a run are chosen and timed. */
struct course {
    uint64_t count;
    bool in_order;    /* every key once, instead of drawn ones */
    bool sampled;     /* time one of SENDER_SAMPLE_EVERY */
    double period_ns; /* between intended starts; 0: closed loop */
};

static ALWAYS_INLINE uint64_t next_index(const struct sender *sender, const struct course *course,
                                         uint64_t *state, uint64_t i)
{
    return course->in_order ? i % sender->keys_count : draw_index(sender, state, i);
}

static fero_wopts wopts_of(const struct sender *sender, enum sender_verb verb, bool timed)
{
    fero_done_fn echo = timed ? on_echo_timed : on_echo;
    fero_done_fn update = timed ? on_timed : NULL;
    return (fero_wopts){.size = sizeof(fero_wopts),
                        .want = FERO_REPLY,
                        .done = verb == SENDER_ECHO ? echo : update,
                        .ud = (void *)(uintptr_t)sender};
}

/* After a burst whose last record was `i`: with many sockets only its own has something to do. */
static inline bool pump_burst(struct sender *sender, const struct course *course, uint64_t i,
                              int err)
{
    if (err == FERO_E_AGAIN) return pump(sender, 100);
    ASSERT(sender->burst > 0);
    if (sender->targets_count == 1 || course->in_order) return pump(sender, 0);
    return pump_target(sender, i / sender->burst % sender->targets_count, 0) >= 0;
}

/* As fast as the window allows. `verb` is a constant to the compiler in each of its two copies. */
static ALWAYS_INLINE bool send_closed(struct sender *sender, enum sender_verb verb,
                                      const struct course *course)
{
    fero_wopts plain = wopts_of(sender, verb, false);
    fero_wopts timed = wopts_of(sender, verb, true);
    fero_val value = {.type = FERO_T_BYTES, .s = {sender->value, sender->value_bytes}};
    uint64_t state = sender->seed;
    uint64_t index = course->count > 0 ? next_index(sender, course, &state, 0) : 0;
    uint64_t i = 0;
    while (i < course->count) {
        int err = 0;
        uint64_t burst_end = min_u64(i + sender->burst, course->count);
        while (i < burst_end) {
            const fero_wopts *wopts = &plain;
            value_number(sender, sender->first + i);
            if (course->sampled && i % SENDER_SAMPLE_EVERY == 0) {
                struct slot *slot = take_slot(sender, i / SENDER_SAMPLE_EVERY);
                if (slot == NULL) return false;
                slot->word = clock_now_ns();
                timed.ud = slot;
                wopts = &timed;
            }
            err = send_record(sender, verb, &value, index, wopts);
            if (UNLIKELY(err < 0)) {
                if (wopts == &timed) ((struct slot *)timed.ud)->sender = NULL;
                break;
            }
            i++;
            index = next_index(sender, course, &state, i);
        }
        if (UNLIKELY(err < 0 && err != FERO_E_AGAIN)) {
            complain_of(sender, "cannot send");
            return false;
        }
        if (!pump_burst(sender, course, i - 1, err)) return false;
        store_relaxed_u64(&sender->progress, i);
    }
    return wait_for_ends(sender, course->count);
}

/* At a rate: a message that is late is sent at once, and its latency counts from when it was due. */
static bool send_open(struct sender *sender, enum sender_verb verb, const struct course *course)
{
    fero_wopts timed = wopts_of(sender, verb, true);
    fero_val value = {.type = FERO_T_BYTES, .s = {sender->value, sender->value_bytes}};
    uint64_t state = sender->seed;
    uint64_t index = next_index(sender, course, &state, 0);
    uint64_t i = 0;
    while (i < course->count) {
        uint64_t elapsed_ns = clock_now_ns() - sender->start_ns;
        uint64_t due =
            min_u64((uint64_t)((double)elapsed_ns / course->period_ns) + 1, course->count);
        int err = 0;
        due = min_u64(due, i + sender->burst);
        while (i < due && err == 0) {
            struct slot *slot = take_slot(sender, i);
            if (slot == NULL) return false;
            slot->word = sender->start_ns + (uint64_t)((double)i * course->period_ns);
            timed.ud = slot;
            value_number(sender, sender->first + i);
            err = send_record(sender, verb, &value, index, &timed);
            if (err < 0) {
                slot->sender = NULL;
                break;
            }
            i++;
            index = next_index(sender, course, &state, i);
        }
        if (err < 0 && err != FERO_E_AGAIN) {
            complain_of(sender, "cannot send");
            return false;
        }
        if (!pump(sender, 0)) return false;
        store_relaxed_u64(&sender->progress, i);
    }
    return wait_for_ends(sender, course->count);
}

static void run_course(struct sender *sender, const struct course *course)
{
    targets_begin(sender);
    sender->first = sender->number_next;
    sender->number_next += course->count;
    uint64_t spin_begin_ns = targets_spin_ns(sender);
    uint64_t cpu_begin_ns = clock_thread_cpu_ns();
    sender->start_ns = clock_now_ns();
    bool good;
    if (course->period_ns > 0)
        good = send_open(sender, sender->all->options.verb, course);
    else if (sender->all->options.verb == SENDER_ECHO)
        good = send_closed(sender, SENDER_ECHO, course);
    else
        good = send_closed(sender, SENDER_UPDATE, course);
    sender->cpu_ns = clock_thread_cpu_ns() - cpu_begin_ns;
    sender->spin_ns = targets_spin_ns(sender) - spin_begin_ns;
    if (!good) sender->failed = true;
}

/* -------------------------------------------------------------------------------------- tasks */

/* Of one socket: all of a client's together have about the window of one. */
static uint64_t window_bytes_of(const struct sender_options *options)
{
    return max_u64(WINDOW_BYTES / options->sockets, WINDOW_BYTES_MIN);
}

static void connect_targets(struct sender *sender)
{
    const struct sender_options *options = &sender->all->options;
    static const int32_t idle[] = {FERO_IDLE_ADAPTIVE, FERO_IDLE_BUSY_POLL, FERO_IDLE_SLEEP};
    uint32_t nodes = options->nodes->count;
    for (uint32_t i = 0; i < nodes * options->sockets; i++) {
        struct target *target = &sender->targets[i];
        const char *seeds[] = {options->nodes->list[i % nodes].address, NULL};
        fero_runtime_opts runtime_opts = {.size = sizeof runtime_opts,
                                          .client = 1,
                                          .seeds = seeds,
                                          .window_bytes = (int64_t)window_bytes_of(options),
                                          .idle = idle[options->waiting],
                                          .io = options->nodes->io,
                                          .token_file = options->nodes->token_file};
        if (fero_start(&runtime_opts, &target->runtime) < 0) {
            complain_of(sender, "cannot start");
            return;
        }
        sender->targets_count = i + 1;
        fero_opts opts = {.size = sizeof opts, .timeout_ms = CONNECT_MS};
        if (fero_open(target->runtime, options->name, &opts, &target->cache) < 0) {
            complain_of(sender, "cannot connect");
            return;
        }
    }
}

static void warm_up(struct sender *sender)
{
    const struct sender_options *options = &sender->all->options;
    uint64_t own = options->warmup / options->clients;
    struct course course = {.count = own, .in_order = true};
    if (own == 0 && options->verb == SENDER_UPDATE)
        course.count = min_u64(sender->keys_count, WARMUP_MAX / options->clients);
    if (own == 0 && options->verb == SENDER_ECHO)
        course.count = max_u64(min_u64(sender->records / 10, 500000), 10000);
    sender->seed = mix(options->seed);
    run_course(sender, &course);
}

/* Messages of all clients between two looks at the servers' memory. */
static uint64_t chunk_of(const struct sender_options *options)
{
    return min_u64(SETTLE_CHUNK_BYTES / options->message_bytes, options->records);
}

/* More of what a run does. */
static void run_chunk(struct sender *sender)
{
    const struct sender_options *options = &sender->all->options;
    struct course course = {.count = chunk_of(options) / options->clients};
    sender->seed = mix(sender->seed);
    run_course(sender, &course);
}

static void run_timed(struct sender *sender)
{
    const struct sender_options *options = &sender->all->options;
    struct course course = {.count = sender->records, .sampled = true};
    if (options->rate_per_s > 0) course.period_ns = 1e9 * options->clients / options->rate_per_s;
    sender->seed = mix(options->seed + sender->index * 1000003 + sender->all->runs);
    sender->mismatches = sender->keys_checked = 0;
    sender->sum = sender->sum_mixed = 0;
    histogram_reset(sender->latencies);
    run_course(sender, &course);
}

/* Adds up what the replies to an echo run must have carried. */
static void check_echo(struct sender *sender)
{
    uint64_t sum = 0;
    uint64_t sum_mixed = 0;
    for (uint64_t i = 0; i < sender->records; i++) {
        uint64_t number = (sender->first + i) & sender->number_mask;
        sum += number;
        sum_mixed += mix(number);
    }
    if (sum != sender->sum || sum_mixed != sender->sum_mixed) sender->mismatches++;
}

/* Reads every key that the run touched. */
static void check_updates(struct sender *sender)
{
    uint64_t state = sender->seed;
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY};
    wopts.done = on_checked;
    memset(sender->last, 0, sender->keys_count * sizeof *sender->last);
    for (uint64_t i = 0; i < sender->records; i++)
        sender->last[draw_index(sender, &state, i)] = (uint32_t)i + 1;
    uint64_t asked = 0;
    targets_begin(sender);
    for (uint64_t index = 0; index < sender->keys_count; index++) {
        if (sender->last[index] == 0) continue;
        uint64_t key = key_of(sender, index);
        fero_cache *cache = sender->targets[index % sender->targets_count].cache;
        struct slot *slot = take_slot(sender, asked);
        if (slot == NULL) return;
        slot->word = sender->first + sender->last[index] - 1;
        wopts.ud = slot;
        int err;
        while ((err = fero_get(cache, (fero_slice){&key, sizeof key}, &wopts, NULL)) ==
               FERO_E_AGAIN)
            if (!pump(sender, 100)) return;
        if (err < 0) {
            complain_of(sender, "cannot read back");
            return;
        }
        asked++;
        if (asked % sender->burst == 0 && !pump(sender, 0)) return;
    }
    while (sender->keys_checked < asked)
        if (!wait_for_ends(sender, asked)) return;
}

/* Asks each node how much CPU time and memory its shards have used. The first client's task. */
static void ask_servers(struct sender *sender)
{
    sender->server_cpu_ns = sender->server_spin_ns = 0;
    sender->server_memory_bytes = 0;
    /* The first socket of each node will do. */
    for (uint32_t i = 0; i < sender->all->options.nodes->count; i++) {
        fero_op *op = NULL;
        fero_result result;
        fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY};
        int err = fero_ask_info(sender->targets[i].cache, -1, &wopts, &op);
        if (err == 0) err = fero_wait(op, CONNECT_MS, &result);
        if (err == 0 && result.outcome == FERO_OUTCOME_OK) {
            sender->server_cpu_ns += json_sum(result.value.s.ptr, result.value.s.len, "cpu_ns");
            sender->server_spin_ns += json_sum(result.value.s.ptr, result.value.s.len, "spin_ns");
            sender->server_memory_bytes +=
                json_sum(result.value.s.ptr, result.value.s.len, "memory_bytes");
        }
        if (op != NULL) fero_op_free(op);
    }
    /* A kernel may not tell one thread about another; then the process will do. */
    if (sender->server_cpu_ns == 0)
        sender->server_cpu_ns = nodes_cpu_ns(sender->all->options.nodes);
}

static void do_task(struct sender *sender)
{
    if (sender->failed) return;
    switch (sender->all->task) {
    case TASK_CONNECT: connect_targets(sender); return;
    case TASK_WARM: warm_up(sender); return;
    case TASK_SETTLE: run_chunk(sender); return;
    case TASK_ASK:
        if (sender->index == 0) ask_servers(sender);
        return;
    case TASK_RUN: run_timed(sender); return;
    case TASK_CHECK:
        if (sender->all->options.verb == SENDER_ECHO)
            check_echo(sender);
        else
            check_updates(sender);
        return;
    case TASK_END: return;
    }
}

static void *sender_thread(void *argument)
{
    struct sender *sender = argument;
    struct senders *all = sender->all;
    bool ended = false;
    cpus_pin(cpus_of_client(all->options.plan, sender->index));
    while (!ended) {
        pthread_barrier_wait(&all->barrier);
        ended = all->task == TASK_END;
        do_task(sender);
        /* Done, or failed: there is no more to wait for. */
        store_relaxed_u64(&sender->progress, sender->records);
        pthread_barrier_wait(&all->barrier);
    }
    for (uint32_t i = 0; i < sender->targets_count; i++) {
        if (sender->targets[i].cache != NULL) fero_close(sender->targets[i].cache);
        fero_stop(sender->targets[i].runtime, 0);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------- main thread */

/* Says how far the run is, for as long as it takes to send it. */
static void watch(const struct senders *senders)
{
    while (progress_is_shown()) {
        uint64_t sent = 0;
        for (uint32_t i = 0; i < senders->options.clients; i++)
            sent += load_relaxed_u64(&senders->list[i].progress);
        if (sent >= senders->options.records) return;
        progress_say("%s: %.0f %%", senders->step,
                     100 * (double)sent / (double)senders->options.records);
        poll(NULL, 0, PROGRESS_MS);
    }
}

/* All clients do `task`; false if one has failed by now. */
static bool everyone(struct senders *senders, enum sender_task task)
{
    bool good = true;
    senders->task = task;
    for (uint32_t i = 0; i < senders->options.clients; i++)
        store_relaxed_u64(&senders->list[i].progress, 0);
    pthread_barrier_wait(&senders->barrier);
    if (task == TASK_RUN) watch(senders);
    pthread_barrier_wait(&senders->barrier);
    for (uint32_t i = 0; i < senders->options.clients; i++)
        if (senders->list[i].failed) good = false;
    return good;
}

/* Messages that fill BURST_BYTES, but no more than half of what may be in flight. */
static uint64_t burst_of(const struct sender_options *options)
{
    uint64_t bytes = min_u64(BURST_BYTES, window_bytes_of(options) / 2);
    uint64_t messages = bytes / (options->message_bytes + sizeof(struct frame_request));
    return min_u64(max_u64(messages, BURST_MESSAGES_MIN), BURST_MESSAGES_MAX);
}

static bool sender_init(struct sender *sender, struct senders *all, uint32_t index)
{
    const struct sender_options *options = &all->options;
    uint64_t clients = options->clients;
    uint64_t keys = max_u64(options->keys / clients, 1);
    *sender = (struct sender){.all = all,
                              .index = index,
                              .records = options->records / clients +
                                         (index < options->records % clients ? 1 : 0),
                              .keys_first = options->seed * 0x9e3779b97f4a7c15u + index * keys,
                              .keys_count = keys,
                              .burst = burst_of(options)};
    bool update = options->verb == SENDER_UPDATE;
    sender->value_bytes = options->message_bytes - (update ? SENDER_KEY_BYTES : 0);
    sender->number_mask =
        sender->value_bytes >= 8 ? UINT64_MAX : ((uint64_t)1 << (8 * sender->value_bytes)) - 1;
    sender->value = memory_take(sender->value_bytes + 8);
    sender->targets = memory_take(options->nodes->count * options->sockets * sizeof(struct target));
    sender->slots = memory_take(SLOTS * sizeof(struct slot));
    sender->latencies = memory_take(sizeof(struct histogram));
    if (update) sender->last = memory_take(keys * sizeof *sender->last);
    if (sender->value == NULL || sender->targets == NULL || sender->slots == NULL ||
        sender->latencies == NULL)
        return false;
    memset(sender->value, PATTERN, sender->value_bytes + 8);
    histogram_reset(sender->latencies);
    return !update || sender->last != NULL;
}

static void senders_free(struct senders *senders)
{
    for (uint32_t i = 0; senders->list != NULL && i < senders->options.clients; i++) {
        memory_put(senders->list[i].value);
        memory_put(senders->list[i].targets);
        memory_put(senders->list[i].slots);
        memory_put(senders->list[i].latencies);
        memory_put(senders->list[i].last);
    }
    memory_put(senders->list);
    memory_put(senders);
}

static bool start_threads(struct senders *senders)
{
    uint32_t clients = senders->options.clients;
    if (pthread_barrier_init(&senders->barrier, NULL, clients + 1) != 0) return false;
    for (uint32_t i = 0; i < clients; i++) {
        struct sender *sender = &senders->list[i];
        /* Without all of them the barrier never opens, so there is no way back from here. */
        int err = pthread_create(&sender->thread, NULL, sender_thread, sender);
        if (err != 0) {
            fprintf(stderr, "fero %s: cannot start thread %u: %s\n", senders->options.bench, i + 1,
                    strerror(err));
            exit(1);
        }
    }
    senders->started = clients;
    return true;
}

/*
 * First touches of memory cost more than the work, so a server that stores is kept busy until its
 * memory grows no more. False: a client has failed.
 */
static bool settle(struct senders *senders)
{
    const struct sender_options *options = &senders->options;
    uint64_t begin_ns = clock_now_ns();
    uint64_t left = SETTLE_RECORDS_FACTOR * options->records;
    const uint64_t *memory_bytes = &senders->list[0].server_memory_bytes;
    unsigned quiet = 0;
    if (options->verb != SENDER_UPDATE || options->warmup > 0) return true;
    progress_say("warming up");
    if (!everyone(senders, TASK_ASK)) return false;
    while (quiet < SETTLE_CHUNKS && left > 0 && clock_now_ns() - begin_ns < SETTLE_NS) {
        uint64_t before_bytes = *memory_bytes;
        left -= min_u64(left, chunk_of(options));
        if (!everyone(senders, TASK_SETTLE) || !everyone(senders, TASK_ASK)) return false;
        quiet = *memory_bytes > before_bytes ? 0 : quiet + 1;
    }
    return true;
}

struct senders *senders_start(const struct sender_options *options, double *connected_ms)
{
    ASSERT(options->clients > 0);
    ASSERT(options->clients <= SENDERS_MAX);
    ASSERT(options->sockets > 0);
    ASSERT(options->sockets <= SENDER_SOCKETS_MAX);
    ASSERT(options->records < UINT32_MAX);
    ASSERT(options->verb != SENDER_UPDATE || options->message_bytes >= SENDER_UPDATE_BYTES_MIN);
    struct senders *senders = memory_take(sizeof *senders);
    if (senders == NULL) return NULL;
    senders->options = *options;
    senders->list = memory_take(options->clients * sizeof *senders->list);
    bool good = senders->list != NULL;
    for (uint32_t i = 0; good && i < options->clients; i++)
        good = sender_init(&senders->list[i], senders, i);
    if (!good || !start_threads(senders)) {
        fprintf(stderr, "fero %s: no memory for %u clients with %llu keys\n", options->bench,
                options->clients, (unsigned long long)options->keys);
        senders_free(senders);
        return NULL;
    }
    uint64_t begin_ns = clock_now_ns();
    good = everyone(senders, TASK_CONNECT);
    *connected_ms = (double)(clock_now_ns() - begin_ns) / (double)NS_PER_MS;
    if (good && everyone(senders, TASK_WARM) && settle(senders)) return senders;
    senders_stop(senders);
    return NULL;
}

static void add_up(const struct senders *senders, struct sender_figures *figures,
                   struct histogram *latencies)
{
    uint64_t start_ns = UINT64_MAX;
    uint64_t tacks_ns = 0;
    uint64_t yacks_ns = 0;
    uint64_t sacks_ns = 0;
    for (uint32_t i = 0; i < senders->options.clients; i++) {
        const struct sender *sender = &senders->list[i];
        start_ns = min_u64(start_ns, sender->start_ns);
        tacks_ns = max_u64(tacks_ns, sender->tacks_ns);
        yacks_ns = max_u64(yacks_ns, sender->yacks_ns);
        sacks_ns = max_u64(sacks_ns, sender->sacks_ns);
        figures->replies += sender->records;
        figures->failed += sender->replies_failed;
        figures->client_cpu_ns += sender->cpu_ns;
        figures->client_spin_ns += sender->spin_ns;
        histogram_merge(latencies, sender->latencies);
    }
    figures->tacks_s = (double)(tacks_ns - start_ns) / 1e9;
    figures->yacks_s = (double)(yacks_ns - start_ns) / 1e9;
    figures->sacks_s = (double)(sacks_ns - start_ns) / 1e9;
}

bool senders_run(struct senders *senders, const char *step, struct sender_figures *figures,
                 struct histogram *latencies)
{
    senders->step = step;
    *figures = (struct sender_figures){0};
    senders->runs++;
    if (!everyone(senders, TASK_ASK)) return false;
    uint64_t cpu_begin_ns = senders->list[0].server_cpu_ns;
    uint64_t spin_begin_ns = senders->list[0].server_spin_ns;
    if (!everyone(senders, TASK_RUN)) return false;
    add_up(senders, figures, latencies);
    if (!everyone(senders, TASK_ASK)) return false;
    figures->server_cpu_ns = senders->list[0].server_cpu_ns - cpu_begin_ns;
    figures->server_spin_ns = senders->list[0].server_spin_ns - spin_begin_ns;
    bool good = everyone(senders, TASK_CHECK);
    for (uint32_t i = 0; i < senders->options.clients; i++) {
        figures->keys_checked += senders->list[i].keys_checked;
        figures->mismatches += senders->list[i].mismatches;
    }
    return good;
}

void senders_stop(struct senders *senders)
{
    everyone(senders, TASK_END);
    for (uint32_t i = 0; i < senders->started; i++) pthread_join(senders->list[i].thread, NULL);
    pthread_barrier_destroy(&senders->barrier);
    senders_free(senders);
}
