/*
 * A request of a thread of the program goes to the owner of its key as a frame in the thread's lane
 * there, as one of another shard would, and its answer comes back in the lane of the opposite
 * direction. So shards know nothing of who asks, and nothing is shared but the lanes.
 *
 * A request is pushed only if its answer is sure to find room: the thread counts the bytes that are
 * promised of each lane. Requests are published at once, by themselves; those that callbacks make,
 * together. Requests are never sent again, so they need no session and are not remembered.
 *
 * Stopping. A node must not let go of its shards while a thread looks at them, and a thread must
 * not wait for a lock in each call. So a thread says that it calls (`busy`, with a full barrier),
 * then looks whether the node has closed; the node closes (with a full barrier), then looks who
 * calls. One of the two sees the other: it is the wake-up protocol's proof again (mailbox.c).
 */
#include "engine/host.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "engine/driver.h"
#include "engine/pull.h"
#include "engine/result.h"
#include "engine/server.h"
#include "net/io.h"
#include "ring/slot.h"
#include "shard/crossing.h"
#include "shard/mailbox.h"
#include "shard/peek.h"
#include "shard/waiter.h"

/* How often the thread that stops a node looks whether the others have left. */
#define LEAVE_POLL_NS (50 * NS_PER_US)
/* Nobody tells a thread that a lane has room again: it looks this often. */
#define ROOM_POLL_NS (100 * NS_PER_US)
#define ROOM_POLL_FD_NS NS_PER_MS
#define SPIN_LOOKS 64
#define SPIN_NS_MIN (5 * NS_PER_US)

static _Thread_local struct host *first_here; /* of all nodes */
static pthread_key_t thread_end_key;
static pthread_once_t thread_end_once = PTHREAD_ONCE_INIT;
static bool thread_end_known;

/* ----------------------------------------------------------------------------------- flights */

/* NULL: the window is full. */
static struct host_flight *flight_take(struct host *host)
{
    uint32_t index = host->flights_free;
    struct host_flight *flight;
    if (index != 0) {
        flight = &host->flights[index - 1];
        host->flights_free = flight->op;
    } else if (host->flights_fresh < host->hosts->options->window_requests) {
        flight = &host->flights[host->flights_fresh++];
    } else {
        return NULL;
    }
    flight->generation++;
    ASSERT((flight->generation & 1) == 1);
    host->flights_count++;
    return flight;
}

static void flight_put(struct host *host, struct host_flight *flight)
{
    ASSERT((flight->generation & 1) == 1);
    flight->generation++;
    flight->op = host->flights_free;
    host->flights_free = (uint32_t)(flight - host->flights) + 1;
    host->flights_count--;
}

/* The request ends: its place is free, then whoever waits is told. */
static void flight_end(struct host *host, struct host_flight *flight, fero_result *result,
                       bool calls_back)
{
    struct host_flight ended = *flight;
    result->seq = ended.seq;
    flight_put(host, flight);
    host->finished++;
    if (ended.op != 0) op_finish(ops_at(host->ops, ended.op), result);
    if (ended.done != NULL && calls_back) ended.done(result, ended.ud);
}

/* ------------------------------------------------------------------------------ being in a call */

static COLD int is_closed(void)
{
    return error_set(FERO_E_CLOSED, "the runtime is stopping");
}

int host_enter(struct host *host)
{
    exchange_full_u32(&host->busy, HOST_CALLS);
    if (LIKELY(load_acquire_u32(&host->hosts->closed) == 0 && !host->is_leaving)) return 0;
    host_exit(host);
    return is_closed();
}

void host_exit(struct host *host)
{
    /* A callback's call is made while its thread waits. */
    store_release_u32(&host->busy, host->is_in_turn ? HOST_WAITS : HOST_OUT);
}

static void publish(struct host *host)
{
    const struct hosts *hosts = host->hosts;
    bool has_news = host->port.dirty != 0;
    uint64_t sleepers = port_publish(&host->port, hosts->mailboxes);
    if (host->drives) {
        if (has_news) driver_take(hosts->driver, host->port.index);
        return;
    }
    for (; sleepers != 0; sleepers &= sleepers - 1)
        io_wake(hosts->shards[__builtin_ctzll(sleepers)]->io, NULL);
}

void host_publish(struct host *host)
{
    if (!host->is_in_turn || host->drives) publish(host);
}

/*
 * Tells the shard of a deferred request what this thread has taken, or (`error`) that it does not
 * wait any more. False: the lane is full.
 */
static bool try_tell(struct host *host, const struct mail_late *about, uint32_t shard,
                     uint32_t credit_bytes, enum reply_error error)
{
    struct mail *mail = port_try_push(&host->port, shard, sizeof(struct mail_word), MAIL_WORD);
    if (mail == NULL) return false;
    struct mail_word *told = (struct mail_word *)mail;
    told->name = about->name;
    told->word = (struct deferred_word){
        .home = {FROM_PORTS + host->port.index, about->caller, about->generation},
        .credit_bytes = credit_bytes,
        .error = error};
    return true;
}

/* Nobody waits for this one any more. A handler that answers later is told so. */
static void tell_unwanted(struct host *host, const struct host_flight *flight)
{
    const struct mail_late about = {.name = flight->deferred,
                                    .caller = (uint32_t)(flight - host->flights),
                                    .generation = flight->generation};
    if (flight->deferred.generation != 0) try_tell(host, &about, flight->shard, 0, ERROR_GONE);
}

/* Ends those whose deadline is not after `now_ns`. */
static void end_late(struct host *host, uint64_t now_ns, int error, bool calls_back)
{
    uint64_t due_ns = TIME_NEVER;
    host->due_ns = TIME_NEVER; /* callbacks may make requests, which lower it */
    for (uint32_t i = 0; i < host->flights_fresh; i++) {
        struct host_flight *flight = &host->flights[i];
        if ((flight->generation & 1) == 0) continue;
        if (flight->deadline_ns > now_ns) {
            due_ns = min_u64(due_ns, flight->deadline_ns);
            continue;
        }
        fero_result result = {.outcome = FERO_OUTCOME_UNKNOWN, .error = error};
        if (error == FERO_E_TIMEOUT) tell_unwanted(host, flight);
        flight_end(host, flight, &result, calls_back);
    }
    host->due_ns = min_u64(host->due_ns, due_ns);
}

/* ------------------------------------------------------------------------ coming and leaving */

/* Handlers that answer later hear that nobody waits any more. */
static void tell_of_leaving(struct host *host)
{
    if (host_enter(host) < 0) return;
    for (uint32_t i = 0; i < host->flights_fresh; i++)
        if ((host->flights[i].generation & 1) != 0) tell_unwanted(host, &host->flights[i]);
    publish(host);
    host_exit(host);
}

/* The thread leaves the node; without `calls_back` nobody is told of what is on its way. */
static void leave(struct host *host, bool calls_back)
{
    struct hosts *hosts = host->hosts;
    struct host **link = &first_here;
    tell_of_leaving(host);
    feedings_close(host, NULL);
    host->is_leaving = true;
    host->is_in_turn = true;
    end_late(host, TIME_NEVER, FERO_E_CLOSED, calls_back);
    host->is_in_turn = false;
    host->is_leaving = false;
    pulls_leave(&host->queues, !calls_back);
    ops_leave(host->ops);
    host->ops = NULL;
    host->drain = NULL;
    host->is_starved = false;
    while (*link != host) link = &(*link)->next_here;
    *link = host->next_here;
    pthread_mutex_lock(&hosts->lock);
    host->is_taken = false;
    bool is_last = --hosts->users == 0;
    pthread_mutex_unlock(&hosts->lock);
    if (is_last) hosts->free(hosts);
}

/* The stack of the thread's own function is gone by now, so no callback of its may run. */
static void thread_ends(void *first)
{
    (void)first;
    while (first_here != NULL) leave(first_here, false);
}

static void make_thread_end_key(void)
{
    thread_end_known = pthread_key_create(&thread_end_key, thread_ends) == 0;
}

static struct host *host_make(struct hosts *hosts)
{
    uint32_t index = hosts->ports.fresh;
    struct host *host = memory_take(sizeof *host);
    if (host == NULL) return NULL;
    size_t flights_bytes = hosts->options->window_requests * sizeof *host->flights;
    host->hosts = hosts;
    host->due_ns = TIME_NEVER;
    host->spin_ns = hosts->spin_ns_max;
    host->flights = memory_reserve(flights_bytes, 0);
    if (host->flights == NULL) goto put_host;
    if (port_init(&host->port, index, hosts->options->shards_count, hosts->options->lane_bytes,
                  &hosts->gone) < 0)
        goto release_flights;
    hosts->hosts[index] = host;
    ports_add(&hosts->ports, &host->port);
    return host;

release_flights:
    memory_release(host->flights, flights_bytes);
put_host:
    memory_put(host);
    return NULL;
}

/* A port that no thread has, or a new one. Under the lock. NULL: `err` says why not. */
static struct host *find_free(struct hosts *hosts, int *err)
{
    uint32_t index = 0;
    if (load_acquire_u32(&hosts->closed) != 0) {
        *err = error_set(FERO_E_CLOSED, "the runtime has stopped");
        return NULL;
    }
    while (index < hosts->ports.fresh && hosts->hosts[index]->is_taken) index++;
    if (index < hosts->ports.fresh) return hosts->hosts[index];
    if (index == hosts->hosts_max) {
        *err = error_set(FERO_E_NOMEM,
                         "%u threads use this runtime already (threads.max): let one of them call "
                         "fero_thread_unregister",
                         hosts->hosts_max);
        return NULL;
    }
    struct host *host = host_make(hosts);
    if (host == NULL) *err = error_set(FERO_E_NOMEM, "no memory for the lanes of a thread");
    return host;
}

static NO_INLINE int come(struct hosts *hosts, struct host **out)
{
    int err = 0;
    pthread_once(&thread_end_once, make_thread_end_key);
    struct ops *ops = ops_make();
    if (ops == NULL || !thread_end_known || pthread_setspecific(thread_end_key, &first_here) != 0) {
        if (ops != NULL) ops_leave(ops);
        return error_set(FERO_E_NOMEM, "no memory to register a thread");
    }
    pthread_mutex_lock(&hosts->lock);
    struct host *host = find_free(hosts, &err);
    if (host != NULL) {
        host->is_taken = true;
        hosts->users++;
    }
    pthread_mutex_unlock(&hosts->lock);
    if (host == NULL) {
        ops_leave(ops);
        return err;
    }
    ops->host = host;
    host->ops = ops;
    host->drives = hosts->driver != NULL && driver_is_here(hosts->driver);
    host->next_here = first_here;
    first_here = host;
    *out = host;
    return 0;
}

static struct host *find_here(const struct hosts *hosts)
{
    struct host *host = first_here;
    while (host != NULL && UNLIKELY(host->hosts != hosts)) host = host->next_here;
    return host;
}

int host_here(struct hosts *hosts, struct host **out)
{
    if (UNLIKELY(shard_running() != NULL))
        return error_set(FERO_E_INVAL, "a handler must not make requests by this function");
    *out = find_here(hosts);
    return LIKELY(*out != NULL) ? 0 : come(hosts, out);
}

int host_register(struct hosts *hosts)
{
    struct host *host = NULL;
    return host_here(hosts, &host);
}

int host_unregister(struct hosts *hosts)
{
    struct host *host = find_here(hosts);
    if (host == NULL) return error_set(FERO_E_NOTFOUND, "this thread is not registered");
    if (host->is_in_turn)
        return error_set(FERO_E_INVAL, "fero_thread_unregister cannot be called by a callback");
    leave(host, true);
    return 0;
}

/* ------------------------------------------------------------------------ the node and its end */

void hosts_init(struct hosts *hosts)
{
    pthread_mutex_init(&hosts->lock, NULL);
    hosts->users = 1;
}

void hosts_deinit(struct hosts *hosts)
{
    size_t flights_bytes = hosts->options->window_requests * sizeof(struct host_flight);
    for (uint32_t i = 0; i < hosts->ports.fresh; i++) {
        port_deinit(&hosts->hosts[i]->port);
        memory_release(hosts->hosts[i]->flights, flights_bytes);
        memory_put(hosts->hosts[i]);
    }
    pthread_mutex_destroy(&hosts->lock);
}

void hosts_share(struct hosts *hosts)
{
    pthread_mutex_lock(&hosts->lock);
    hosts->users++;
    pthread_mutex_unlock(&hosts->lock);
}

void hosts_unshare(struct hosts *hosts)
{
    pthread_mutex_lock(&hosts->lock);
    bool is_last = --hosts->users == 0;
    pthread_mutex_unlock(&hosts->lock);
    if (is_last) hosts->free(hosts);
}

static void wait_until_none(struct hosts *hosts, bool (*is_busy)(const struct host *host))
{
    struct timespec pause = {0, LEAVE_POLL_NS};
    const struct host *own = find_here(hosts);
    for (uint32_t i = 0; i < hosts->ports.fresh; i++)
        while (hosts->hosts[i] != own && is_busy(hosts->hosts[i])) nanosleep(&pause, NULL);
}

static bool is_calling(const struct host *host)
{
    return load_acquire_u32(&host->busy) == HOST_CALLS;
}

static bool is_in(const struct host *host)
{
    return load_acquire_u32(&host->busy) != HOST_OUT;
}

int hosts_close(struct hosts *hosts)
{
    const struct host *own = find_here(hosts);
    if (shard_running() != NULL || (own != NULL && own->is_in_turn))
        return error_set(FERO_E_INVAL, "fero_stop cannot be called by a callback or a handler");
    /* Nobody comes any more: the number of hosts stays. */
    pthread_mutex_lock(&hosts->lock);
    exchange_full_u32(&hosts->closed, 1);
    pthread_mutex_unlock(&hosts->lock);
    wait_until_none(hosts, is_calling);
    return 0;
}

void hosts_end(struct hosts *hosts)
{
    exchange_full_u32(&hosts->gone, 1);
    for (uint32_t i = 0; i < hosts->ports.fresh; i++) port_wake(&hosts->hosts[i]->port);
    wait_until_none(hosts, is_in);
}

/* ------------------------------------------------------------------------------------ answers */

static void take_reply(struct host *host, struct port_lanes *lanes, const struct mail *mail)
{
    const struct mail_reply *reply = (const struct mail_reply *)mail;
    const uint8_t *frame = (const uint8_t *)(reply + 1);
    size_t bytes = mail->bytes - sizeof *reply;
    uint8_t *block = NULL;
    if (UNLIKELY(mail->kind == MAIL_REPLY_BLOCK)) {
        const struct mail_block *given = (const struct mail_block *)(reply + 1);
        block = given->data;
        frame = given->data;
        bytes = given->bytes;
    }
    lanes->promised_bytes -= promise_mail_bytes(mail->small);
    ASSERT(reply->caller < host->flights_fresh);
    struct host_flight *flight = &host->flights[reply->caller];
    if (LIKELY(flight->generation == reply->generation)) {
        fero_result result;
        result_read(&result, frame, bytes);
        flight_end(host, flight, &result, true);
    }
    memory_put(block);
}

static struct host_flight *flight_of(struct host *host, uint32_t index, uint32_t generation)
{
    ASSERT(index < host->flights_fresh);
    struct host_flight *flight = &host->flights[index];
    return flight->generation == generation ? flight : NULL;
}

static void take_deferred(struct host *host, uint32_t shard, const struct mail *mail)
{
    const struct mail_deferred *deferred = (const struct mail_deferred *)mail;
    struct host_flight *flight = flight_of(host, deferred->caller, deferred->generation);
    const struct mail_late about = {
        .name = deferred->name, .caller = deferred->caller, .generation = deferred->generation};
    if (flight != NULL)
        flight->deferred = deferred->name;
    else
        try_tell(host, &about, shard, 0, ERROR_GONE);
}

/* Its promise is kept until its end, so that all its answers find room. */
static void take_late(struct host *host, uint32_t shard, const struct mail *mail)
{
    const struct mail_late *late = (const struct mail_late *)mail;
    const struct mail_block *block = (const struct mail_block *)(late + 1);
    bool is_block = mail->kind == MAIL_LATE_BLOCK;
    bool is_last = (mail->small & LATE_LAST) != 0;
    const uint8_t *frame = is_block ? block->data : (const uint8_t *)(late + 1);
    size_t bytes = is_block ? block->bytes : mail->bytes - sizeof *late;
    struct host_flight *flight = flight_of(host, late->caller, late->generation);
    if (is_last)
        host->port.lanes[shard].promised_bytes -=
            promise_mail_bytes((uint16_t)(mail->small & ~LATE_LAST));
    if (flight == NULL && !is_last) try_tell(host, late, shard, 0, ERROR_GONE);
    if (flight != NULL && is_last) {
        fero_result result;
        result_read(&result, frame, bytes);
        flight_end(host, flight, &result, true);
    }
    if (is_block) memory_put(block->data);
}

static void take_mail(struct host *host, uint32_t shard)
{
    struct port_lanes *lanes = &host->port.lanes[shard];
    const struct mail *mail;
    while ((mail = lane_peek(&lanes->out)) != NULL) {
        switch ((enum mail_kind)mail->kind) {
        case MAIL_REPLY:
        case MAIL_REPLY_BLOCK: take_reply(host, lanes, mail); break;
        case MAIL_DEFERRED: take_deferred(host, shard, mail); break;
        case MAIL_LATE:
        case MAIL_LATE_BLOCK: take_late(host, shard, mail); break;
        case MAIL_REQUEST:
        case MAIL_REQUEST_BLOCK:
        case MAIL_ADOPT:
        case MAIL_BUNDLE:
        case MAIL_BUNDLE_REPLIES:
        case MAIL_WORD:
        case MAIL_ANSWER:
        case MAIL_FEED_OPEN:
        case MAIL_FEED_WORD: ASSERT(false); break;
        case MAIL_FEED_BATCH:
            feeding_arrive(host, shard, (const struct mail_feed_batch *)mail);
            break;
        }
        lane_pop(&lanes->out);
    }
    lane_release(&lanes->out);
}

/* ----------------------------------------------------------------------------------- requests */

/* "Full" is part of normal operation and must not cost a formatted line. */
static int full(struct host *host, uint32_t shard)
{
    host->is_starved = true;
    host->starved_by = shard;
    return error_set_text(FERO_E_AGAIN,
                          "the lane or the window is full: call fero_run, then try again");
}

static size_t lane_allows(const struct host *host)
{
    return host->hosts->options->lane_bytes - LANE_SLACK_BYTES;
}

/* The shard that a request goes to; one without a key goes to each in turn. */
static uint32_t choose_shard(struct host *host, struct message *message)
{
    const struct hosts *hosts = host->hosts;
    if (hosts->options->shards_count == 1) return 0;
    if (message->key.len == 0) return host->next_shard++ % hosts->options->shards_count;
    message->slot = slot_of_key(message->key.ptr, message->key.len);
    return hosts->slot_owner[message->slot];
}

/* Writes the head of a request's mail, and returns where its frame goes; NULL: there is no room. */
static uint8_t *push(struct host *host, uint32_t shard, uint16_t promise, uint8_t *block,
                     size_t padded, struct mail_request **out)
{
    bool is_block = block != NULL;
    size_t body = is_block ? sizeof(struct mail_block) : padded;
    struct mail *mail = port_try_push(&host->port, shard, sizeof(struct mail_request) + body,
                                      is_block ? MAIL_REQUEST_BLOCK : MAIL_REQUEST);
    if (mail == NULL) return NULL;
    struct mail_request *head = (struct mail_request *)mail;
    *out = head;
    head->mail.small = promise;
    head->caller = 0;
    head->generation = 0;
    head->claim = (struct session_claim){0};
    head->seq = ++host->seq;
    head->deadline_ns = 0;
    if (!is_block) return (uint8_t *)(head + 1);
    *(struct mail_block *)(head + 1) = (struct mail_block){block, padded};
    return block;
}

/* An operation for the request; one that nobody will answer is done. */
static int take_op(struct host *host, bool waits, fero_op **op)
{
    *op = ops_take(host->ops);
    if (*op == NULL)
        return error_set(FERO_E_NOMEM, "no memory for an operation, or over %d are not freed",
                         OPS_BLOCK_COUNT * OPS_BLOCKS_MAX);
    if (!waits) op_finish(*op, &(fero_result){.outcome = FERO_OUTCOME_OK});
    return 0;
}

static void start_flight(struct host *host, struct host_flight *flight, uint32_t shard,
                         const struct wish *wish, struct mail_request *head, const fero_op *op)
{
    uint64_t now_ns = clock_now_ns();
    int64_t timeout_ms = wish->timeout_ms > 0 ? wish->timeout_ms : TIMEOUT_MS_DEFAULT;
    flight->done = wish->done;
    flight->ud = wish->ud;
    flight->seq = head->seq;
    flight->shard = shard;
    flight->deferred = (struct deferred_name){0};
    flight->owed_bytes = 0;
    flight->deadline_ns = now_ns + (uint64_t)timeout_ms * NS_PER_MS;
    flight->op = op != NULL ? op->number : 0;
    host->due_ns = min_u64(host->due_ns, flight->deadline_ns);
    head->caller = (uint32_t)(flight - host->flights);
    head->generation = flight->generation;
    if (wish->deadline_ms > 0) head->deadline_ns = now_ns + wish->deadline_ms * NS_PER_MS;
}

static int give(struct host *host, uint32_t cache, struct message *message, const struct wish *wish,
                fero_op **op)
{
    uint32_t shard = choose_shard(host, message);
    struct port_lanes *lanes = &host->port.lanes[shard];
    size_t length = sizeof(struct frame_request) + message->extensions.size + message->key.len +
                    message->value.size;
    size_t padded = round_up_8(length);
    bool waits = wish->want == FERO_REPLY;
    uint16_t promise = crossing_promise(message->type, (uint8_t)wish->want);
    struct host_flight *flight = NULL;
    uint8_t *block = NULL;
    int err;
    if (length > host->hosts->options->frame_bytes_max)
        return error_set(FERO_E_TOOBIG, "a request of %zu bytes is over the node's limit of %zu",
                         length, host->hosts->options->frame_bytes_max);
    if (lanes->promised_bytes + promise_mail_bytes(promise) > lane_allows(host))
        return full(host, shard);
    if (waits && (flight = flight_take(host)) == NULL) return full(host, shard);
    if (op != NULL && (err = take_op(host, waits, op)) < 0) goto put_flight;
    if (padded > CROSSING_INLINE_BYTES_MAX && (block = memory_take(padded)) == NULL) {
        err = error_set(FERO_E_NOMEM, "no memory for a request of %zu bytes", length);
        goto put_op;
    }
    struct mail_request *head;
    uint8_t *to = push(host, shard, promise, block, padded, &head);
    if (to == NULL) {
        err = full(host, shard);
        goto put_block;
    }
    message_encode(to, message, (uint32_t)head->seq, (uint16_t)cache, wish->want, length, padded);
    if (waits) start_flight(host, flight, shard, wish, head, op != NULL ? *op : NULL);
    lanes->promised_bytes += promise_mail_bytes(promise);
    return 0;

put_block:
    memory_put(block);
put_op:
    if (op != NULL) {
        ops_put(*op);
        *op = NULL;
    }
put_flight:
    if (flight != NULL) flight_put(host, flight);
    return err;
}

int host_request(struct hosts *hosts, uint32_t cache, struct message *message,
                 const fero_wopts *opts, fero_op **op)
{
    struct host *host = NULL;
    struct wish wish = {0};
    uint8_t block[EXTENSIONS_BYTES_MAX];
    int err = host_here(hosts, &host);
    if (UNLIKELY(err < 0) || UNLIKELY((err = wish_read(&wish, opts)) < 0)) return err;
    ASSERT(host != NULL);
    /* Whoever waits without saying for what waits for the reply. */
    if (op != NULL && opts == NULL) wish.want = FERO_REPLY;
    if (message->verb.size > 0) {
        struct extensions extensions = {.present = 1u << EXT_VERB, .verb = message->verb};
        message->extensions = (struct bytes){block, extensions_encode(&extensions, block)};
    }
    struct pull_owner owner = {.host = host};
    if (wish.queue != NULL && (err = pull_begin(owner, &wish)) < 0) return err;
    err = host_enter(host);
    if (LIKELY(err == 0)) {
        err = give(host, cache, message, &wish, op);
        host_publish(host);
        host_exit(host);
    }
    if (UNLIKELY(err < 0) && wish.queue != NULL) pull_cancel(&wish);
    return err;
}

/* ------------------------------------------------------------------------------------ reading */

static int read_here(const struct store *store, fero_slice key, void *buffer, size_t bytes,
                     fero_val *value, uint64_t *offset)
{
    struct peek peek;
    switch (store_peek(store, key.ptr, key.len, buffer, bytes, &peek)) {
    case PEEK_NO_KEY: return error_set_text(FERO_E_NOTFOUND, "there is no such key");
    case PEEK_TOO_SMALL:
        value->type = peek.value_type;
        value->s.len = peek.value_bytes;
        return error_set_text(FERO_E_TOOBIG, "the buffer is too small for the value");
    case PEEK_UNSURE: return FERO_E_AGAIN;
    case PEEK_FOUND: break;
    }
    int fixed = value_type_bytes((enum value_type)peek.value_type);
    const void *from = fixed < 0 ? buffer : peek.fixed;
    bool is_valid = result_value_read(value, peek.value_type, from, peek.value_bytes);
    ASSERT(is_valid);
    if (offset != NULL) *offset = peek.offset;
    return 0;
}

/* What cannot be read here is asked of the shard that owns it. */
static NO_INLINE int read_by_asking(struct host *host, uint32_t cache, fero_slice key, void *buffer,
                                    size_t bytes, fero_val *value, uint64_t *offset)
{
    struct message message = {.type = FRAME_GET, .key = key, .slot = FRAME_SLOT_ANY};
    fero_op *op = NULL;
    if (host->is_in_turn)
        return error_set(FERO_E_AGAIN, "the key's shard has to be asked, which a callback cannot: "
                                       "use fero_get");
    int err = host_request(host->hosts, cache, &message, NULL, &op);
    if (err < 0) return err;
    ASSERT(op != NULL);
    err = host_wait(op, -1);
    const fero_result *result = &op->result;
    if (err == 0) err = result->error;
    if (err == 0) {
        *value = result->value;
        if (offset != NULL) *offset = result->offset;
        value->s.ptr = value->s.len > 0 ? buffer : NULL;
        if (value->s.len > bytes)
            err = error_set(FERO_E_TOOBIG, "the buffer is too small for the value");
        else if (value->s.len > 0)
            memcpy(buffer, result->value.s.ptr, value->s.len);
    }
    fero_op_free(op);
    return err;
}

int host_read(const struct server_cache *cache, fero_slice key, void *buffer, size_t bytes,
              fero_val *value, uint64_t *offset)
{
    struct hosts *hosts = cache->hosts;
    uint32_t number = cache->definition.number;
    struct host *host = NULL;
    uint32_t shard = 0;
    *value = (fero_val){0};
    int err = host_here(hosts, &host);
    if (UNLIKELY(err < 0)) return err;
    ASSERT(host != NULL);
    if (hosts->options->shards_count > 1) shard = hosts->slot_owner[slot_of_key(key.ptr, key.len)];
    if (UNLIKELY((err = host_enter(host)) < 0)) return err;
    err =
        read_here(&hosts->shards[shard]->caches[number]->store, key, buffer, bytes, value, offset);
    host_exit(host);
    if (UNLIKELY(err == FERO_E_AGAIN))
        return read_by_asking(host, number, key, buffer, bytes, value, offset);
    return err;
}

/* ---------------------------------------------------------------- replies to deferred requests */

static int push_answer(struct host *host, uint32_t shard, struct deferred_name name,
                       const struct deferred_answer *answer)
{
    bool is_block = answer->bytes > CROSSING_INLINE_BYTES_MAX;
    uint8_t *block = is_block ? memory_take(answer->bytes) : NULL;
    if (is_block && block == NULL) return error_set(FERO_E_NOMEM, "no memory for a reply");
    struct mail *mail =
        port_try_push(&host->port, shard, mail_answer_bytes(answer->bytes, is_block), MAIL_ANSWER);
    if (mail == NULL) {
        memory_put(block);
        return full(host, shard);
    }
    if (is_block) memcpy(block, answer->value, answer->bytes);
    mail_answer_write(mail, name, answer, block);
    return 0;
}

int host_answer(struct hosts *hosts, uint32_t shard, struct deferred_name name,
                const struct deferred_answer *answer)
{
    struct host *host = NULL;
    if (load_acquire_u32(&hosts->closed) != 0 && find_here(hosts) == NULL) return is_closed();
    int err = host_here(hosts, &host);
    if (err < 0) return err;
    ASSERT(host != NULL);
    if ((err = host_enter(host)) < 0) return err;
    err = push_answer(host, shard, name, answer);
    host_publish(host);
    host_exit(host);
    return err;
}

/* ------------------------------------------------------------------------------------ running */

/* Whether who was told FERO_E_AGAIN would find room now. */
static bool has_room(struct host *host)
{
    struct port_lanes *lanes = &host->port.lanes[host->starved_by];
    uint64_t used = lanes->in.producer.tail - load_acquire_u64(&lanes->in.consumed.head);
    return used <= host->hosts->options->lane_bytes / 2 &&
           lanes->promised_bytes <= lane_allows(host) / 2 &&
           host->flights_count <= host->hosts->options->window_requests / 2;
}

void host_has_room(struct host *host)
{
    host->is_starved = true;
}

void host_ring(struct host *host)
{
    if (host->drives)
        driver_ring(host->hosts->driver);
    else if (host->port.is_polled != 0)
        bell_ring(&host->port.bell);
}

static void tell_room(struct host *host)
{
    if (!host->is_starved || !has_room(host)) return;
    host->is_starved = false;
    host->finished++;
    if (host->drain != NULL) host->drain(host->drain_ud);
}

static bool is_gone(const struct host *host)
{
    return load_acquire_u32(&host->hosts->gone) != 0;
}

static bool something_ready(const struct host *host)
{
    return port_has_mail(&host->port) || is_gone(host);
}

/* Spins until something is ready or the time is over; true: ready. */
static bool spin(struct host *host, uint64_t until_ns)
{
    for (;;) {
        for (unsigned looks = 0; looks < SPIN_LOOKS; looks++) {
            if (something_ready(host)) return true;
            clock_pause();
        }
        if (clock_now_ns() >= until_ns) return false;
    }
}

static void wait_for_mail(struct host *host, uint64_t now_ns, uint64_t wait_ns)
{
    const struct shard_options *options = host->hosts->options;
    uint64_t until_ns = wait_ns == TIME_NEVER ? TIME_NEVER : now_ns + wait_ns;
    if (host->drives) {
        if (port_has_mail(&host->port)) wait_ns = 0;
        host->finished += (uint32_t)driver_turn(host->hosts->driver, wait_ns);
        return;
    }
    if (something_ready(host) || wait_ns == 0) return;
    if (options->idle == IDLE_BUSY_POLL) {
        spin(host, until_ns);
        return;
    }
    if (options->idle == IDLE_ADAPTIVE) {
        if (spin(host, min_u64(until_ns, now_ns + host->spin_ns))) {
            host->spin_ns = min_u64(host->spin_ns * 2, host->hosts->spin_ns_max);
            return;
        }
        host->spin_ns = max_u64(host->spin_ns / 2, min_u64(SPIN_NS_MIN, host->hosts->spin_ns_max));
    }
    if (!port_sleep(&host->port)) return;
    port_block(&host->port, wait_ns);
    port_awake(&host->port);
}

/* Takes answers, and waits up to `wait_ns` for the first one. Returns the time. */
static uint64_t turn(struct host *host, uint64_t now_ns, uint64_t wait_ns)
{
    if (host->due_ns != TIME_NEVER)
        wait_ns = min_u64(wait_ns, host->due_ns - min_u64(host->due_ns, now_ns));
    if (host->is_starved) wait_ns = min_u64(wait_ns, ROOM_POLL_NS);
    wait_for_mail(host, now_ns, wait_ns);
    bool gone = is_gone(host);
    for (uint32_t i = 0; i < host->port.shards_count; i++) take_mail(host, i);
    tell_room(host);
    now_ns = clock_now_ns();
    if (gone)
        end_late(host, TIME_NEVER, FERO_E_CLOSED, true);
    else if (now_ns >= host->due_ns)
        end_late(host, now_ns, FERO_E_TIMEOUT, true);
    publish(host);
    return now_ns;
}

/* The thread has control again, and may go and wait for something else. */
static void give_control(struct host *host)
{
    uint64_t due_ns = host->due_ns;
    if (host->drives) {
        bool is_idle = !host->is_starved && !pulls_are_ready(host->queues);
        driver_rest(host->hosts->driver, is_idle ? due_ns : 0);
        return;
    }
    if (host->port.is_polled == 0) return;
    bell_silence(&host->port.bell);
    if (host->is_starved) due_ns = min_u64(due_ns, clock_now_ns() + ROOM_POLL_FD_NS);
    if (due_ns != TIME_NEVER) bell_set(&host->port.bell, due_ns);
    if (!port_sleep(&host->port) || pulls_are_ready(host->queues)) bell_ring(&host->port.bell);
}

/* Turns until `is_done` or the time is over. */
static int turns(struct host *host, int64_t timeout_ms, bool (*is_done)(const void *context),
                 const void *context)
{
    uint64_t now_ns = clock_now_ns();
    uint64_t until_ns = TIME_NEVER;
    if (host->is_in_turn)
        return error_set(FERO_E_INVAL, "fero_run and fero_wait cannot be called by a callback");
    if (timeout_ms >= 0 && timeout_ms < (int64_t)(UINT64_MAX / 4 / NS_PER_MS))
        until_ns = now_ns + (uint64_t)timeout_ms * NS_PER_MS;
    host->finished = 0;
    exchange_full_u32(&host->busy, HOST_WAITS);
    if (host->port.is_polled != 0) port_awake(&host->port);
    host->is_in_turn = true;
    do {
        uint64_t wait_ns = until_ns == TIME_NEVER ? TIME_NEVER : until_ns - now_ns;
        now_ns = turn(host, now_ns, wait_ns);
    } while (!is_done(context) && now_ns < until_ns && !is_gone(host));
    host->is_in_turn = false;
    give_control(host);
    store_release_u32(&host->busy, HOST_OUT);
    return (int)host->finished;
}

static bool has_finished(const void *context)
{
    return ((const struct host *)context)->finished > 0;
}

int host_run(struct hosts *hosts, int64_t timeout_ms)
{
    struct host *host = NULL;
    int err = host_here(hosts, &host);
    if (err < 0) return err;
    ASSERT(host != NULL);
    int finished = turns(host, timeout_ms, has_finished, host);
    return finished == 0 && is_gone(host) ? is_closed() : finished;
}

static bool op_is_done(const void *context)
{
    return ((const struct fero_op *)context)->is_done;
}

int host_wait(fero_op *op, int64_t timeout_ms)
{
    struct host *host = op->ops->host;
    if (shard_running() != NULL)
        return error_set(FERO_E_INVAL, "fero_wait cannot be called by a handler");
    if (find_here(host->hosts) != host)
        return error_set(FERO_E_INVAL, "an operation belongs to the thread that made it");
    int finished = turns(host, timeout_ms, op_is_done, op);
    return finished < 0 ? finished : 0;
}

static int no_descriptor(int err)
{
    return error_set(FERO_E_SYS, "no descriptor to poll can be made: %s", strerror(-err));
}

int host_fd(struct hosts *hosts)
{
    struct host *host = NULL;
    int err = host_here(hosts, &host);
    if (err < 0) return err;
    ASSERT(host != NULL);
    if (host->port.is_polled != 0) return host->port.bell.fd;
    if (host->drives) {
        int fd = driver_fd(hosts->driver);
        if (fd < 0) return no_descriptor(fd);
        give_control(host);
        return fd;
    }
    err = bell_open(&host->port.bell);
    if (err < 0) return no_descriptor(err);
    host->port.is_polled = 1;
    give_control(host);
    return host->port.bell.fd;
}

int host_on_drain(struct hosts *hosts, fero_drain_fn drain, void *ud)
{
    struct host *host = NULL;
    int err = host_here(hosts, &host);
    if (err < 0) return err;
    ASSERT(host != NULL);
    host->drain = drain;
    host->drain_ud = ud;
    return 0;
}

void hosts_leave(struct hosts *hosts)
{
    struct host *own = find_here(hosts);
    if (own != NULL) {
        own->finished = 0;
        own->is_in_turn = true;
        for (uint32_t i = 0; i < own->port.shards_count; i++) take_mail(own, i);
        own->is_in_turn = false;
        leave(own, true);
    }
    pthread_mutex_lock(&hosts->lock);
    bool is_last = --hosts->users == 0;
    pthread_mutex_unlock(&hosts->lock);
    if (is_last) hosts->free(hosts);
}
