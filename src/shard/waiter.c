#include "shard/waiter.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "shard/crossing.h"
#include "shard/request.h"
#include "shard/shard.h"

/* Requests that a caller has stopped before it was known whether they are deferred: the newest ones. */
#define STOPS_MAX 64
struct stops {
    uint64_t seqs[STOPS_MAX];
    uint32_t next;
    uint32_t count;
};

static size_t entries_count(const struct shard *shard)
{
    return (size_t)shard->options->shards_count * shard->options->deferred_max;
}

int waiters_init(struct shard *shard)
{
    if (shard->options->deferred_max == 0) return 0;
    shard->waiters.entries =
        memory_reserve(entries_count(shard) * sizeof *shard->waiters.entries, 0);
    return shard->waiters.entries != NULL ? 0 : -ENOMEM;
}

void waiters_deinit(struct shard *shard)
{
    if (shard->waiters.entries == NULL) return;
    memory_release(shard->waiters.entries, entries_count(shard) * sizeof *shard->waiters.entries);
    shard->waiters = (struct waiters){0};
}

static struct waiter *slot_of(const struct shard *shard, uint32_t owner, uint32_t index)
{
    DEBUG_ASSERT(index < shard->options->deferred_max);
    return &shard->waiters.entries[(size_t)owner * shard->options->deferred_max + index];
}

static struct waiter *waiter_of(const struct shard *shard, uint32_t owner,
                                struct deferred_name name)
{
    struct waiter *waiter = slot_of(shard, owner, name.index);
    bool is_it = waiter->generation == name.generation && waiter->caller != NULL;
    return is_it ? waiter : NULL;
}

/* Its caller waits for it no longer. */
static void leave_caller(struct waiter *waiter)
{
    struct caller *caller = waiter->caller;
    ASSERT(caller != NULL);
    if (waiter->next != NULL) waiter->next->previous = waiter->previous;
    if (waiter->previous != NULL)
        waiter->previous->next = waiter->next;
    else
        caller->waiters = waiter->next;
    if (waiter->owed_bytes > 0) caller->debts_count--;
    caller->waiters_count--;
    waiter->caller = NULL;
    waiter->owed_bytes = 0;
    waiter->next = NULL;
    waiter->previous = NULL;
    caller_mark_dirty(caller); /* it may have been the last thing that it waited for */
}

/* What its owner has to know. False: the lane is full. */
static bool try_tell(struct shard *shard, struct waiter *waiter)
{
    struct deferred_name name = {waiter->index, waiter->generation};
    struct deferred_word word = {
        .home = {shard->index, waiter->caller_index, waiter->caller_generation},
        .credit_bytes = waiter->owed_bytes,
        .error = waiter->error};
    if (waiter->owner == shard->index) {
        deferred_told(shard, name, &word);
    } else {
        struct mail *mail =
            crossing_try_push_late(shard, waiter->owner, sizeof(struct mail_word), MAIL_WORD);
        if (mail == NULL) return false;
        struct mail_word *told = (struct mail_word *)mail;
        told->name = name;
        told->word = word;
    }
    if (waiter->owed_bytes > 0 && waiter->caller != NULL) waiter->caller->debts_count--;
    waiter->owed_bytes = 0;
    waiter->error = 0;
    return true;
}

static void tell(struct shard *shard, struct waiter *waiter)
{
    if (waiter->is_unsent || try_tell(shard, waiter)) return;
    waiter->is_unsent = true;
    waiter->next_unsent = shard->waiters.unsent;
    shard->waiters.unsent = waiter;
}

void waiters_turn(struct shard *shard)
{
    struct waiter *left = shard->waiters.unsent;
    shard->waiters.unsent = NULL;
    while (left != NULL) {
        struct waiter *waiter = left;
        left = waiter->next_unsent;
        waiter->is_unsent = false;
        waiter->next_unsent = NULL;
        /* Its request may have ended meanwhile, and another one may be here. */
        if (waiter->owed_bytes > 0 || waiter->error != 0) tell(shard, waiter);
    }
}

static void give_up(struct shard *shard, struct waiter *waiter, enum reply_error error)
{
    leave_caller(waiter);
    waiter->error = (uint16_t)error;
    tell(shard, waiter);
}

/* False: no memory. */
static bool remember_stop(struct caller *caller, uint64_t seq)
{
    if (caller->stops == NULL) caller->stops = memory_take(sizeof *caller->stops);
    struct stops *stops = caller->stops;
    if (stops == NULL) return false;
    stops->seqs[stops->next] = seq;
    stops->next = (stops->next + 1) % STOPS_MAX;
    stops->count = (uint32_t)min_u64(stops->count + 1, STOPS_MAX);
    return true;
}

static bool was_stopped(const struct caller *caller, uint64_t seq)
{
    const struct stops *stops = caller->stops;
    for (uint32_t i = 0; stops != NULL && i < stops->count; i++)
        if (stops->seqs[i] == seq) return true;
    return false;
}

void waiters_forget_stops(struct caller *caller)
{
    memory_put(caller->stops);
    caller->stops = NULL;
}

void waiter_open(struct shard *shard, uint32_t owner, const struct mail_deferred *deferred)
{
    struct caller *caller = caller_of(shard, deferred->caller, deferred->generation);
    struct waiter *waiter = slot_of(shard, owner, deferred->name.index);
    bool is_unsent = waiter->is_unsent;
    struct waiter *next_unsent = waiter->next_unsent;
    if (waiter->caller != NULL) leave_caller(waiter);
    *waiter = (struct waiter){.generation = deferred->name.generation,
                              .owner = owner,
                              .index = deferred->name.index,
                              .seq = deferred->seq,
                              .caller_index = deferred->caller,
                              .caller_generation = deferred->generation,
                              .is_unsent = is_unsent,
                              .next_unsent = next_unsent};
    if (caller == NULL || !caller_is_open(caller)) {
        waiter->error = ERROR_GONE;
        tell(shard, waiter);
        return;
    }
    waiter->caller = caller;
    waiter->next = caller->waiters;
    if (waiter->next != NULL) waiter->next->previous = waiter;
    caller->waiters = waiter;
    caller->waiters_count++;
    if (!was_stopped(caller, waiter->seq)) return;
    waiter->error = ERROR_STOPPED;
    tell(shard, waiter);
}

/* Half of the outbox is free: its streams may go on. */
static bool has_room(const struct caller *caller)
{
    return caller_has_room(caller, caller->shard->options->outbox_bytes_max / 2);
}

static void write_answer(struct caller *caller, const uint8_t *frame, size_t bytes)
{
    uint8_t *to = link_reserve(&caller->link, bytes);
    if (to == NULL) {
        const struct refusal refusal = {ERROR_NO_MEMORY, bytes, 0, "no memory for a reply"};
        caller_refuse(caller, &refusal);
        return;
    }
    memcpy(to, frame, bytes);
    link_commit(&caller->link, bytes);
    caller_mark_dirty(caller);
}

void waiter_deliver(struct shard *shard, uint32_t owner, struct deferred_name name,
                    const uint8_t *frame, size_t bytes, bool is_last)
{
    struct waiter *waiter = waiter_of(shard, owner, name);
    struct frame_reply reply;
    if (waiter == NULL) return;
    struct caller *caller = waiter->caller;
    memcpy(&reply, frame, sizeof reply);
    bool is_long = reply.length > caller->frame_bytes_max;
    /* A stream has no end that such a link could wait for. */
    bool is_gone = !is_last && caller->is_ended;
    if (is_last)
        leave_caller(waiter);
    else if (is_gone || is_long)
        give_up(shard, waiter, ERROR_GONE);
    if (is_gone) return;
    if (is_long) {
        request_reply_too_long(caller, reply.seq, reply.length);
        caller_mark_dirty(caller);
        return;
    }
    write_answer(caller, frame, bytes);
    if (is_last || waiter->caller == NULL) return;
    waiter->has_parts = true;
    if (waiter->owed_bytes == 0) caller->debts_count++;
    waiter->owed_bytes += (uint32_t)(sizeof(struct mail_late) + bytes);
    if (has_room(caller)) tell(shard, waiter);
}

void waiters_pay(struct caller *caller)
{
    if (!has_room(caller)) return;
    for (struct waiter *waiter = caller->waiters; waiter != NULL; waiter = waiter->next)
        if (waiter->owed_bytes > 0) tell(caller->shard, waiter);
}

bool waiters_stop(struct caller *caller, uint64_t seq)
{
    struct waiter *waiter = caller->waiters;
    while (waiter != NULL && waiter->seq != seq) waiter = waiter->next;
    if (waiter == NULL) return caller->reserved_bytes > 0 && remember_stop(caller, seq);
    waiter->error = ERROR_STOPPED;
    tell(caller->shard, waiter);
    return true;
}

void waiters_leave(struct caller *caller)
{
    while (caller->waiters != NULL) give_up(caller->shard, caller->waiters, ERROR_GONE);
}

void waiters_half_close(struct caller *caller)
{
    for (struct waiter *next, *waiter = caller->waiters; waiter != NULL; waiter = next) {
        next = waiter->next;
        if (waiter->has_parts) give_up(caller->shard, waiter, ERROR_GONE);
    }
}
