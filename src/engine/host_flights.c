/*
 * Requests of a thread that have no answer yet, from when they are given to a shard to when their
 * answer comes, their time is over, or the thread or the node leaves.
 */
#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "engine/host_state.h"
#include "engine/result.h"
#include "shard/waiter.h"

struct host_flight *host_flight_take(struct host *host)
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

void host_flight_put(struct host *host, struct host_flight *flight)
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
    host_flight_put(host, flight);
    host->finished++;
    if (ended.op != 0) op_finish(ops_at(host->ops, ended.op), result);
    if (ended.done != NULL && calls_back) ended.done(result, ended.ud);
}

/* --------------------------------------------------------------------------------- nobody waits */

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

static bool tell(struct host *host, const struct host_flight *flight, uint32_t credit_bytes,
                 enum reply_error error)
{
    const struct mail_late about = {.name = flight->deferred,
                                    .caller = (uint32_t)(flight - host->flights),
                                    .generation = flight->generation};
    return try_tell(host, &about, flight->shard, credit_bytes, error);
}

void host_tell_unwanted(struct host *host, const struct host_flight *flight)
{
    if (flight->deferred.generation != 0) tell(host, flight, 0, ERROR_GONE);
}

/* Tells the shard what was taken of a stream, and whether it is to stop, or does so later. */
static void pay(struct host *host, struct host_flight *flight)
{
    if (tell(host, flight, flight->owed_bytes, flight->is_stopped ? ERROR_STOPPED : ERROR_NONE)) {
        flight->owed_bytes = 0;
        flight->is_stopped = false;
    } else {
        host->has_debts = true;
    }
}

static bool has_debt(const struct host_flight *flight)
{
    bool is_kept = (flight->generation & 1) != 0 && flight->deferred.generation != 0;
    return is_kept && (flight->owed_bytes > 0 || flight->is_stopped);
}

void host_pay(struct host *host)
{
    host->has_debts = false;
    for (uint32_t i = 0; i < host->flights_fresh; i++)
        if (has_debt(&host->flights[i])) pay(host, &host->flights[i]);
}

/* NULL: it has ended. */
static struct host_flight *flight_of_op(struct host *host, const fero_op *op)
{
    for (uint32_t i = 0; i < host->flights_fresh; i++) {
        struct host_flight *flight = &host->flights[i];
        if ((flight->generation & 1) != 0 && flight->op == op->number) return flight;
    }
    return NULL;
}

int host_cancel(const fero_op *op)
{
    struct host *host = op->ops->host;
    if (shard_running() != NULL || host_find(host->hosts) != host)
        return error_set(FERO_E_INVAL, "an operation belongs to the thread that made it");
    struct host_flight *flight = flight_of_op(host, op);
    if (flight == NULL) return error_set(FERO_E_NOTFOUND, "the request has ended");
    int err = host_enter(host);
    if (err < 0) return err;
    flight->is_stopped = true;
    if (has_debt(flight)) pay(host, flight);
    host_publish(host);
    host_exit(host);
    return 0;
}

void host_end_late(struct host *host, uint64_t now_ns, int error, bool calls_back)
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
        if (error == FERO_E_TIMEOUT) host_tell_unwanted(host, flight);
        flight_end(host, flight, &result, calls_back);
    }
    host->due_ns = min_u64(host->due_ns, due_ns);
}

/* -------------------------------------------------------------------------------------- answers */

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
    if (flight == NULL) {
        try_tell(host, &about, shard, 0, ERROR_GONE);
        return;
    }
    flight->deferred = deferred->name;
    if (has_debt(flight)) pay(host, flight);
}

static void take_part(struct host *host, struct host_flight *flight, const uint8_t *frame,
                      size_t bytes)
{
    fero_result result;
    flight->owed_bytes += (uint32_t)(sizeof(struct mail_late) + bytes); /* as it was counted */
    flight->deadline_ns = clock_now_ns() + flight->timeout_ns;
    pay(host, flight);
    if (!flight->is_stream || flight->done == NULL) return;
    result_read(&result, frame, bytes);
    result.seq = flight->seq;
    result.flags = FERO_R_MORE;
    host->finished++;
    flight->done(&result, flight->ud);
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
    if (flight != NULL && !is_last) take_part(host, flight, frame, bytes);
    if (is_block) memory_put(block->data);
}

void host_take_mail(struct host *host, uint32_t shard)
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
