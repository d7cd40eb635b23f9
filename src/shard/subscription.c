/*
 * A subscription is a cursor and a link. At the end of each turn that appended something, or in which
 * a link got room or credit, every subscription that is behind reads on, as far as its credit and
 * half of the outbox go; the other half is for replies. So a subscriber that stops reading costs one
 * outbox and a place in the log, and nobody waits for him. When he comes back and the log has gone
 * on without him, he is told of the gap and gets a snapshot.
 *
 * Frames are short, so that a client finds most of them whole in what it receives, and any client
 * can take them: HELLO_FRAME_BYTES_MIN. A longer one has a single record.
 */
#include "shard/subscription.h"

#include <errno.h>

#include "base/assert.h"
#include "base/memory.h"
#include "ring/slot.h"
#include "shard/cursor.h"
#include "wire/stream.h"

#define RECORDS_BYTES (HELLO_FRAME_BYTES_MIN - sizeof(struct frame_changes))
/* Log that one subscription looks at in a turn. */
#define LOOK_BYTES_MAX (4 * MIB)
/* And at a time, between two looks at its room. */
#define LOOK_BYTES (256 * KIB)

struct subscription {
    struct cursor cursor;
    struct caller *caller;
    struct subscription *next; /* of the shard */
    struct subscription *previous;
    struct subscription *next_of_caller;
    uint32_t number;
    bool until_live;
    bool is_live; /* it has been said */
    bool in_snapshot;
    uint64_t credit_bytes;
    uint64_t credit_records;
    uint64_t sent_bytes;
    uint64_t sent_records;
    uint8_t prefix[];
};

/* ---------------------------------------------------------------------------------- frames */

static uint64_t position_of(const struct subscription *subscription)
{
    return subscription->cursor.is_snapshot ? 0 : subscription->cursor.position;
}

/* No memory for what must be said: the link cannot go on. */
static void lose(struct caller *caller)
{
    caller_refuse(caller, &(struct refusal){ERROR_NO_MEMORY, 0, 0, "no memory for an event"});
}

static void put_event(struct caller *caller, struct frame_event *event, enum reply_error error)
{
    uint8_t *to = link_reserve(&caller->link, sizeof *event);
    uint16_t code = error == ERROR_NONE ? 0 : reply_code(OUTCOME_FAIL, error);
    if (to == NULL) {
        lose(caller);
        return;
    }
    link_commit(&caller->link, event_encode(event, code, to));
    caller_mark_dirty(caller);
}

static void say(const struct subscription *subscription, enum stream_event event)
{
    struct frame_event frame = {.number = subscription->number,
                                .event = (uint8_t)event,
                                .position = position_of(subscription)};
    put_event(subscription->caller, &frame, ERROR_NONE);
}

/* Another one that there is not, or not any more. */
static void say_ended(struct caller *caller, uint32_t number, uint64_t position,
                      enum reply_error error)
{
    struct frame_event frame = {.number = number, .event = STREAM_ENDED, .position = position};
    put_event(caller, &frame, error);
}

/* ----------------------------------------------------------------------------------- lists */

static struct subscription *find(const struct caller *caller, uint32_t number)
{
    struct subscription *subscription = caller->subscriptions;
    while (subscription != NULL && subscription->number != number)
        subscription = subscription->next_of_caller;
    return subscription;
}

static void list_push(struct shard *shard, struct subscription *subscription)
{
    subscription->next = shard->subscriptions;
    if (subscription->next != NULL) subscription->next->previous = subscription;
    shard->subscriptions = subscription;
}

static void list_remove(struct shard *shard, struct subscription *subscription)
{
    if (subscription->previous != NULL)
        subscription->previous->next = subscription->next;
    else
        shard->subscriptions = subscription->next;
    if (subscription->next != NULL) subscription->next->previous = subscription->previous;
}

static void drop(struct subscription *subscription)
{
    struct caller *caller = subscription->caller;
    struct subscription **link = &caller->subscriptions;
    while (*link != subscription) link = &(*link)->next_of_caller;
    *link = subscription->next_of_caller;
    caller->subscriptions_count--;
    count(&caller->shard->counters.subscriptions, -(uint64_t)1);
    list_remove(caller->shard, subscription);
    cursor_close(&subscription->cursor);
    memory_put(subscription);
}

static void end(struct subscription *subscription, enum reply_error error)
{
    say_ended(subscription->caller, subscription->number, position_of(subscription), error);
    drop(subscription);
}

void subscriptions_end(struct caller *caller)
{
    while (caller->subscriptions != NULL) drop(caller->subscriptions);
}

void subscriptions_have_room(struct caller *caller)
{
    if (caller->subscriptions != NULL) caller->shard->must_serve = true;
}

/* ------------------------------------------------------------------------- what is asked for */

static void begin_snapshot(struct subscription *subscription)
{
    cursor_snapshot(&subscription->cursor);
    subscription->in_snapshot = true;
    subscription->is_live = false;
    say(subscription, STREAM_SNAPSHOT_BEGIN);
}

/* The place that it asked for; false: it is not kept any more. */
static bool seek(struct subscription *subscription, const struct frame_subscribe *frame)
{
    struct cursor *cursor = &subscription->cursor;
    switch ((enum stream_from)frame->from) {
    case STREAM_FROM_START: return cursor_seek_start(cursor);
    case STREAM_FROM_OFFSET: return cursor_seek_offset(cursor, frame->at);
    case STREAM_FROM_OLDEST: return cursor_seek_oldest(cursor);
    case STREAM_FROM_POSITION:
        return frame->owner == subscription->caller->shard->options->node &&
               cursor_seek_position(cursor, frame->at);
    case STREAM_FROM_NOW:
    case STREAM_FROM_SNAPSHOT:
    case STREAM_FROM_COUNT: break;
    }
    return true;
}

static void begin(struct subscription *subscription, const struct frame_subscribe *frame)
{
    bool is_kept = seek(subscription, frame);
    say(subscription, is_kept ? STREAM_STARTED : STREAM_TRIMMED);
    if (!is_kept || frame->from == STREAM_FROM_SNAPSHOT) begin_snapshot(subscription);
    subscription->caller->shard->must_serve = true;
}

/* What is asked for, as a cursor is told it. A whole partition's name says which slot. */
static struct cursor_filter filter_of(const struct frame_subscribe *frame, struct bytes key)
{
    bool has_partition = key.size > 0 && (frame->match == STREAM_MATCH_PATH ||
                                          memchr(key.data, '.', key.size) != NULL);
    return (struct cursor_filter){
        .slot = has_partition ? slot_of_key(key.data, key.size) : CURSOR_ALL_SLOTS,
        .match = frame->match == STREAM_MATCH_PATH ? CURSOR_MATCH_PATH : CURSOR_MATCH_PREFIX,
        .prefix = key};
}

/* Why it cannot be had, or ERROR_NONE. */
static enum reply_error check(const struct caller *caller, const struct frame_subscribe *frame,
                              const struct cursor_filter *filter)
{
    const struct shard *shard = caller->shard;
    bool has_slot = filter->slot != CURSOR_ALL_SLOTS;
    if (frame->cache >= shard->caches_count) return ERROR_NOT_FOUND;
    if (frame->prefix.small > shard->options->key_bytes_max) return ERROR_TOO_BIG;
    if (frame->shard != HELLO_SHARD_ANY && frame->shard != shard->index) return ERROR_NOT_OWNER;
    if (has_slot && shard->slot_owner[filter->slot] != shard->index) return ERROR_NOT_OWNER;
    if (frame->from == STREAM_FROM_OFFSET && !has_slot) return ERROR_INVALID;
    if (find(caller, frame->number) != NULL) return ERROR_INVALID;
    if (caller->subscriptions_count == shard->options->subscriptions_max) return ERROR_BUSY;
    return ERROR_NONE;
}

static void subscribe(struct caller *caller, const struct frame_subscribe *frame, struct bytes key)
{
    struct shard *shard = caller->shard;
    struct cursor_filter filter = filter_of(frame, key);
    enum reply_error error = check(caller, frame, &filter);
    struct subscription *subscription = NULL;
    if (error == ERROR_NONE) {
        subscription = memory_take(sizeof *subscription + key.size);
        if (subscription == NULL) error = ERROR_NO_MEMORY;
    }
    if (subscription == NULL) {
        say_ended(caller, frame->number, 0, error);
        return;
    }
    if (key.size > 0) memcpy(subscription->prefix, key.data, key.size);
    filter.prefix.data = subscription->prefix;
    subscription->caller = caller;
    subscription->number = frame->number;
    subscription->until_live = (frame->prefix.flags & SUBSCRIBE_UNTIL_LIVE) != 0;
    subscription->credit_bytes = frame->credit_bytes;
    subscription->credit_records = frame->credit_records;
    struct store *store = &shard->caches[frame->cache]->store;
    /* What this turn appended is before it, wherever it begins. */
    log_seal(&store->log);
    cursor_open(&subscription->cursor, store, &filter);
    subscription->next_of_caller = caller->subscriptions;
    caller->subscriptions = subscription;
    caller->subscriptions_count++;
    count(&shard->counters.subscriptions, 1);
    list_push(shard, subscription);
    begin(subscription, frame);
}

/* Totals only grow; an older frame cannot come behind a newer one. */
static void credit(struct caller *caller, const struct frame_credit *frame)
{
    struct subscription *subscription = find(caller, frame->number);
    if (subscription == NULL) return; /* it has ended meanwhile */
    if ((frame->prefix.flags & CREDIT_END) != 0) {
        end(subscription, ERROR_NONE);
        return;
    }
    subscription->credit_bytes = max_u64(subscription->credit_bytes, frame->credit_bytes);
    subscription->credit_records = max_u64(subscription->credit_records, frame->credit_records);
    caller->shard->must_serve = true;
}

int subscription_control(struct caller *caller, const uint8_t *data, size_t length)
{
    struct frame_subscribe subscribed;
    struct frame_credit credited;
    struct bytes key;
    struct refusal refusal;
    bool is_credit = data[4] == FRAME_CREDIT;
    int err = is_credit ? credit_decode(&credited, data, length, &refusal)
                        : subscribe_decode(&subscribed, &key, data, length, &refusal);
    if (err < 0)
        caller_refuse(caller, &refusal);
    else if (is_credit)
        credit(caller, &credited);
    else
        subscribe(caller, &subscribed, key);
    return err;
}

/* ----------------------------------------------------------------------------------- serving */

/* False: the record is too long for its peer. */
static bool put_changes(struct subscription *subscription, const struct cursor_batch *batch)
{
    struct caller *caller = subscription->caller;
    struct frame_changes frame = {.number = subscription->number,
                                  .position = position_of(subscription)};
    if (sizeof frame + batch->bytes > caller->frame_bytes_max) return false;
    uint8_t *to = link_reserve(&caller->link, sizeof frame + batch->bytes);
    if (to == NULL) {
        lose(caller);
        return true;
    }
    to += changes_encode(&frame, batch->count, batch->bytes, to);
    for (uint32_t i = 0; i < batch->count; i++) {
        size_t padded = change_padded_bytes(batch->changes[i]);
        memcpy(to, batch->changes[i], padded);
        to += padded;
    }
    link_commit(&caller->link, sizeof frame + batch->bytes);
    caller_mark_dirty(caller);
    subscription->sent_bytes += batch->bytes;
    subscription->sent_records += batch->count;
    count(&caller->shard->counters.streamed, batch->count);
    return true;
}

static bool has_credit(const struct subscription *subscription)
{
    return subscription->sent_bytes < subscription->credit_bytes &&
           subscription->sent_records < subscription->credit_records;
}

static bool may_go(const struct subscription *subscription)
{
    const struct caller *caller = subscription->caller;
    return caller->state == CALLER_READY && cursor_is_behind(&subscription->cursor) &&
           caller_has_room(caller, caller->shard->outbox_bytes / 2);
}

static void say_truncated(const struct subscription *subscription, const struct cursor_batch *batch)
{
    struct frame_event frame = {.number = subscription->number,
                                .event = STREAM_TRUNCATED,
                                .slot = batch->slot,
                                .position = position_of(subscription),
                                .place = batch->place};
    put_event(subscription->caller, &frame, ERROR_NONE);
}

/* There is nothing more for now. False: the subscription is over. */
static bool rest(struct subscription *subscription)
{
    if (subscription->in_snapshot) say(subscription, STREAM_SNAPSHOT_END);
    subscription->in_snapshot = false;
    if (!subscription->is_live) say(subscription, STREAM_LIVE);
    subscription->is_live = true;
    if (!subscription->until_live) return true;
    end(subscription, ERROR_NONE);
    return false;
}

/* Goes on after a loss; what comes now is all that it has to know. */
static void start_over(struct subscription *subscription, const struct cursor_batch *batch)
{
    if (batch != NULL)
        say_truncated(subscription, batch);
    else
        say(subscription, STREAM_GAP);
    begin_snapshot(subscription);
}

/* Reads once and says what it found. False: enough for this turn, or it is over. */
static bool serve_some(struct subscription *subscription)
{
    struct cursor_batch batch;
    struct cursor_limits limits = {
        .changes_max = (uint32_t)min_u64(CURSOR_CHANGES_MAX,
                                         subscription->credit_records - subscription->sent_records),
        .bytes_max =
            (size_t)min_u64(RECORDS_BYTES, subscription->credit_bytes - subscription->sent_bytes),
        .look_bytes_max = LOOK_BYTES};
    switch (cursor_read(&subscription->cursor, &limits, &batch)) {
    case CURSOR_CHANGES:
        if (put_changes(subscription, &batch)) return true;
        end(subscription, ERROR_TOO_BIG);
        return false;
    case CURSOR_MORE: return true;
    case CURSOR_NO_MEMORY:
        /* In whichever turn comes next; compaction makes room meanwhile. */
        subscription->caller->shard->must_serve = true;
        return false;
    case CURSOR_TRIMMED: start_over(subscription, NULL); return true;
    case CURSOR_TRUNCATED: start_over(subscription, &batch); return true;
    case CURSOR_CAUGHT_UP: break;
    }
    rest(subscription);
    return false;
}

static void serve(struct subscription *subscription)
{
    struct shard *shard = subscription->caller->shard;
    size_t frames_max = LOOK_BYTES_MAX / RECORDS_BYTES;
    /* Who has credit and hears nothing yet may have nothing to wait for. */
    bool is_silent = !subscription->is_live && !cursor_is_behind(&subscription->cursor);
    if (is_silent && subscription->caller->state == CALLER_READY && !rest(subscription)) return;
    while (has_credit(subscription) && may_go(subscription)) {
        if (frames_max-- == 0) {
            shard->must_serve = true; /* the others first */
            shard->work++;
            return;
        }
        if (!serve_some(subscription)) return;
    }
}

void subscriptions_serve(struct shard *shard)
{
    if (LIKELY(shard->subscriptions == NULL)) return;
    if (shard->appended_bytes == 0 && !shard->must_serve) return;
    shard->must_serve = false;
    for (uint32_t i = 0; i < shard->caches_count; i++) cursors_bound(&shard->caches[i]->store);
    for (struct subscription *subscription = shard->subscriptions; subscription != NULL;) {
        struct subscription *next = subscription->next;
        serve(subscription);
        subscription = next;
    }
}
