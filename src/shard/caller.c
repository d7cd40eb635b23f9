#include "shard/caller.h"

#include <errno.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/secret.h"
#include "ring/slot.h"
#include "shard/crossing.h"
#include "shard/greeting.h"
#include "shard/run.h"
#include "shard/shard.h"
#include "shard/subscription.h"
#include "shard/waiter.h"

/* A link that is refused has this long to take its REFUSE. */
#define CLOSING_NS_MAX (2 * NS_PER_S)
/* A peer that sends no more waits this long for handlers that answer later. */
#define HALF_CLOSED_NS_MAX (10 * NS_PER_S)
/* Each caller is looked at this often for memory that it does not use, a few of them a turn. */
#define TRIM_NS NS_PER_S
#define TRIM_CALLERS_COUNT 16
/* Where links hold half of what they all may, each may have this part of its outbox. */
#define TIGHT_PART 16
#define TIGHT_BYTES_MIN ((size_t)4096)
/* Callers that are closed in one turn for what they hold: each takes a look at all. */
#define EVICTED_MAX 16
/* What may come before a link is greeted: a HELLO and a few OPENs. */
#define GREETING_BYTES_MAX 4096
_Static_assert(GREETING_BYTES_MAX <= CROSSING_INLINE_BYTES_MAX, "it fits into one mail");

/* ------------------------------------------------------------------------ the table of callers */

static struct caller *caller_take(struct shard *shard)
{
    struct caller *caller = shard->callers_free;
    if (caller != NULL) {
        shard->callers_free = caller->next;
    } else if (shard->callers_fresh < shard_callers_max(shard->options)) {
        caller = &shard->callers[shard->callers_fresh];
        caller->index = shard->callers_fresh++;
    }
    return caller;
}

static void queue_push(struct caller_queue *queue, struct caller *caller, uint64_t deadline_ns)
{
    ASSERT(caller->queue == NULL);
    queue->count++;
    caller->queue = queue;
    caller->deadline_ns = deadline_ns;
    caller->next = NULL;
    caller->previous = queue->last;
    if (queue->last != NULL)
        queue->last->next = caller;
    else
        queue->first = caller;
    queue->last = caller;
}

static void queue_remove(struct caller *caller)
{
    struct caller_queue *queue = caller->queue;
    if (queue == NULL) return;
    queue->count--;
    caller->queue = NULL;
    if (caller->previous != NULL)
        caller->previous->next = caller->next;
    else
        queue->first = caller->next;
    if (caller->next != NULL)
        caller->next->previous = caller->previous;
    else
        queue->last = caller->previous;
    caller->next = NULL;
    caller->previous = NULL;
}

static struct caller *caller_open(struct shard *shard, uint32_t conn, uint16_t source)
{
    struct caller *caller = caller_take(shard);
    if (caller == NULL) return NULL;
    uint32_t index = caller->index;
    uint32_t generation = caller->generation + 1;
    *caller = (struct caller){.index = index,
                              .generation = generation,
                              .state = CALLER_GREETING,
                              .source = source,
                              .waits_for = IO_NONE,
                              .dirty = caller->dirty,
                              .waiting = caller->waiting,
                              .is_known = shard->options->token == NULL,
                              .shard = shard};
    link_init(&caller->link, shard->io, conn, GREETING_BYTES_MAX);
    caller->link.budget = &shard->links;
    caller->link.one_by_one = shard->options->unbatched;
    queue_push(&shard->greeting, caller, shard->now_ns + shard->options->greeting_ns_max);
    crowd_enter(shard, caller);
    io_set_context(shard->io, conn, caller);
    count(&shard->counters.connections, 1);
    return caller;
}

/* The kernel has let go: frees the caller. */
static void caller_free(struct caller *caller)
{
    struct shard *shard = caller->shard;
    queue_remove(caller);
    crowd_leave(shard, caller);
    shard->crowd.turned_away -= caller->is_turned_away;
    waiters_leave(caller);
    waiters_forget_stops(caller);
    subscriptions_end(caller);
    if (caller->session != NULL) sessions_detach(&shard->sessions, caller->session);
    timers_cancel(&shard->timers, caller->half_closed_timer);
    link_deinit(&caller->link);
    caller->session = NULL;
    caller->state = CALLER_FREE;
    caller->next = shard->callers_free;
    shard->callers_free = caller;
    count(&shard->counters.connections, -(uint64_t)1);
    count(&shard->counters.closed, 1);
}

void caller_release(struct caller *caller)
{
    subscriptions_end(caller);
    waiters_forget_stops(caller);
    link_deinit(&caller->link);
}

struct caller *caller_of(struct shard *shard, uint32_t index, uint32_t generation)
{
    ASSERT(index < shard->callers_fresh);
    struct caller *caller = &shard->callers[index];
    bool is_it = caller->generation == generation || PLANTED("stale_caller");
    return is_it && caller->state != CALLER_FREE ? caller : NULL;
}

void caller_mark_dirty(struct caller *caller)
{
    if (caller->dirty) return;
    caller->dirty = true;
    caller->shard->dirty[caller->shard->dirty_count++] = caller;
}

void caller_mark_waiting(struct caller *caller)
{
    if (caller->waiting) return;
    caller->waiting = true;
    caller->shard->waiting[caller->shard->waiting_count++] = caller;
}

/* --------------------------------------------------------------------------- closing */

static void caller_close(struct caller *caller)
{
    if (caller->state == CALLER_CLOSED || caller->state == CALLER_FREE) return;
    queue_remove(caller);
    waiters_leave(caller);
    caller->state = CALLER_CLOSED;
    io_close(caller->link.io, caller->link.conn);
}

/* The link's last frame. Whoever has not shown the token gets none. */
static void refuse(struct caller *caller, const struct refusal *refusal)
{
    struct shard *shard = caller->shard;
    if (!caller->is_known) {
        caller_close(caller);
        return;
    }
    queue_remove(caller);
    crowd_leave(shard, caller);
    waiters_leave(caller);
    caller->state = CALLER_CLOSING;
    queue_push(&shard->closing, caller, shard->now_ns + CLOSING_NS_MAX);
    io_pause(shard->io, caller->link.conn, NULL, 0);
    uint8_t *to = link_reserve(&caller->link, REFUSE_BYTES_MAX);
    if (to == NULL) {
        caller_close(caller);
        return;
    }
    link_commit(&caller->link, refuse_encode(refusal, to));
}

void caller_refuse(struct caller *caller, const struct refusal *refusal)
{
    struct shard *shard = caller->shard;
    if (caller->state != CALLER_GREETING && caller->state != CALLER_READY) return;
    count(&shard->counters.refused, 1);
    note_error(shard, ERROR_OF_LINK, refusal->error, refusal->text, refusal->got, refusal->limit);
    trace_line(shard->options->trace, TRACE_WARN,
               "link: %u.%u.%u is refused: %s (got %llu, limit %llu)", shard->index, caller->index,
               caller->generation, refusal->text, (unsigned long long)refusal->got,
               (unsigned long long)refusal->limit);
    refuse(caller, refusal);
    caller_mark_dirty(caller);
}

/* Told nothing, and at once: whoever guesses learns neither how near he was nor what this is. */
static void caller_deny(struct caller *caller)
{
    struct shard *shard = caller->shard;
    count(&shard->counters.refused, 1);
    note_error(shard, ERROR_OF_LINK, ERROR_DENIED, "wrong token, or none", 0, 0);
    trace_line(shard->options->trace, TRACE_WARN, "link: %u.%u.%u is closed: wrong token, or none",
               shard->index, caller->index, caller->generation);
    caller_close(caller);
}

/*
 * All is said. The peer may still be sending, and closing with bytes unread would be a reset, which
 * may take the last replies from it: what it sends is read and dropped until it ends, too.
 */
static void caller_finish(struct caller *caller)
{
    if (caller->is_ended) {
        caller_close(caller);
        return;
    }
    io_finish(caller->link.io, caller->link.conn);
    io_resume(caller->link.io, caller->link.conn);
}

/* Whether nothing is under way for it: no reply of another shard that it can take, no bytes. */
static bool is_answered(const struct caller *caller)
{
    bool is_owed =
        (caller->reserved_bytes > 0 || caller->waiters_count > 0) && caller_is_open(caller);
    return !is_owed && link_out_bytes(&caller->link) == 0;
}

static bool is_over(const struct caller *caller)
{
    return caller != NULL && caller->shard->now_ns >= caller->deadline_ns;
}

/* The time of a half-received frame begins. */
static void watch_progress(struct caller *caller)
{
    struct shard *shard = caller->shard;
    if (shard->options->progress_bytes == 0 || caller->state != CALLER_READY) return;
    caller->halfway_bytes = caller->link.partial.bytes;
    caller->halfway_after = caller->consumed_bytes;
    queue_push(&shard->halfway, caller, shard->now_ns + shard->options->progress_ns);
}

/*
 * Its time is over. The frame may be whole by now, or another one; and that of a caller who waits for
 * room is not read.
 */
static void check_progress(struct caller *caller)
{
    const struct shard_options *options = caller->shard->options;
    uint64_t grown = caller->link.partial.bytes - caller->halfway_bytes;
    bool is_same = caller->link.partial.bytes >= caller->halfway_bytes &&
                   caller->consumed_bytes == caller->halfway_after && !caller->link.blocked;
    queue_remove(caller);
    if (caller->link.partial.bytes == 0) return;
    if (is_same && grown < options->progress_bytes) {
        const struct refusal refusal = {ERROR_TIMEOUT, grown, options->progress_bytes,
                                        "a frame came too slowly (bytes within progress.ms)"};
        caller_refuse(caller, &refusal);
    } else {
        watch_progress(caller);
    }
}

void callers_expire(struct shard *shard)
{
    const struct refusal refusal = {ERROR_TIMEOUT, 0, shard->options->greeting_ns_max / NS_PER_MS,
                                    "no HELLO within the time allowed (milliseconds)"};
    while (is_over(shard->greeting.first)) caller_refuse(shard->greeting.first, &refusal);
    while (is_over(shard->closing.first)) caller_close(shard->closing.first);
    while (is_over(shard->halfway.first)) check_progress(shard->halfway.first);
}

uint64_t callers_deadline_ns(const struct shard *shard)
{
    const struct caller *greeting = shard->greeting.first;
    const struct caller *closing = shard->closing.first;
    const struct caller *halfway = shard->halfway.first;
    uint64_t deadline = greeting != NULL ? greeting->deadline_ns : TIME_NEVER;
    if (closing != NULL) deadline = min_u64(deadline, closing->deadline_ns);
    return halfway != NULL ? min_u64(deadline, halfway->deadline_ns) : deadline;
}

/* --------------------------------------------------------------------------- greeting */

static void no_room(struct shard *shard)
{
    note_error(shard, ERROR_OF_LINK, ERROR_BUSY, "no room for a connection (connections.max)", 0,
               shard->options->connections_max);
}

/* It is one too many, and is told so, unless there are many of those, too. */
static void turn_away(struct shard *shard, uint32_t conn)
{
    const uint32_t limit = shard->options->connections_max;
    const struct refusal refusal = {ERROR_BUSY, limit + (uint64_t)1, limit,
                                    "connections.max is reached: try again later"};
    struct caller *caller = NULL;
    if (shard->crowd.turned_away < CROWD_TURNED_AWAY_MAX)
        caller = caller_open(shard, conn, CROWD_NO_SOURCE);
    if (caller == NULL) {
        no_room(shard);
        io_close(shard->io, conn);
        return;
    }
    caller->is_turned_away = true;
    shard->crowd.turned_away++;
    caller_refuse(caller, &refusal);
}

/*
 * Where there are too many that have not greeted, one has to go; and of those that were told to go
 * before and have not yet, there are no more.
 */
static void drop_one(struct shard *shard, const struct caller *newest)
{
    uint32_t limit;
    struct caller *caller = crowd_victim(shard, newest, &limit);
    if (caller == NULL) return;
    const struct refusal refusal = {ERROR_BUSY, limit + (uint64_t)1, limit,
                                    "too many connections without HELLO: try again later"};
    count(&shard->counters.dropped, 1);
    caller_refuse(caller, &refusal);
    if (shard->closing.count > limit) caller_close(shard->closing.first);
}

/* Lines about a link name shard, place in its table and generation; only the first has the address. */
static void tell_accepted(const struct caller *caller, const struct address *peer)
{
    const struct trace *trace = caller->shard->options->trace;
    char text[ADDRESS_TEXT_BYTES];
    if (!trace_is_on(trace, TRACE_DEBUG)) return;
    trace_line(trace, TRACE_DEBUG, "link: %u.%u.%u comes from %s", caller->shard->index,
               caller->index, caller->generation,
               peer != NULL ? address_format(peer, text) : "somewhere");
}

static void tell_closed(const struct caller *caller, int result)
{
    const struct trace *trace = caller->shard->options->trace;
    const char *reason = result == 0            ? "its peer ended it"
                         : result == -ECANCELED ? "by this node"
                                                : strerror(-result);
    trace_line(trace, TRACE_DEBUG, "link: %u.%u.%u has ended after %u requests: %s",
               caller->shard->index, caller->index, caller->generation, caller->requests, reason);
}

void caller_accept(struct shard *shard, uint32_t conn, const struct address *peer)
{
    count(&shard->counters.accepted, 1);
    if (crowd_connections(shard) >= shard->options->connections_max) {
        turn_away(shard, conn);
        return;
    }
    struct caller *caller = caller_open(shard, conn, crowd_source(shard, peer));
    if (caller != NULL) {
        tell_accepted(caller, peer);
        drop_one(shard, caller);
        return;
    }
    no_room(shard);
    io_close(shard->io, conn);
}

static bool attach_session(struct caller *caller, const struct frame_hello *hello)
{
    struct shard *shard = caller->shard;
    caller->seq_highest = hello->seq_first > 0 ? hello->seq_first - 1 : 0;
    caller->claim = (struct session_claim){.id = hello->session,
                                           .start = hello->session_start,
                                           .seq_unsent = hello->seq_first,
                                           .floor = hello->floor};
    if (hello->session == 0) return true;
    caller->session = sessions_attach(&shard->sessions, &caller->claim);
    return caller->session != NULL;
}

static void welcome(struct caller *caller, const struct frame_hello *hello)
{
    struct shard *shard = caller->shard;
    const struct shard_options *options = shard->options;
    struct refusal refusal = {ERROR_NO_MEMORY, 0, 0, "no memory for another session"};
    if (!attach_session(caller, hello)) {
        caller_refuse(caller, &refusal);
        return;
    }
    uint16_t first_slots[SHARDS_MAX];
    for (uint32_t slot = SLOTS_COUNT; slot-- > 0;)
        first_slots[shard->slot_owner[slot]] = (uint16_t)slot;
    struct frame_welcome frame = {.cluster = options->cluster,
                                  .node = options->node,
                                  .view = options->view,
                                  .view_proposer = options->node,
                                  .incarnation = options->incarnation,
                                  .shard = (uint16_t)shard->index,
                                  .shards_count = (uint16_t)options->shards_count,
                                  .slots_count = SLOTS_COUNT,
                                  .window_requests = options->window_requests,
                                  .window_bytes = options->window_bytes,
                                  .frame_bytes_max = (uint32_t)options->frame_bytes_max,
                                  .key_bytes_max = (uint32_t)options->key_bytes_max,
                                  .value_bytes_max = (uint32_t)options->value_bytes_max};
    uint8_t *to = link_reserve(&caller->link, sizeof frame + sizeof first_slots + 8);
    if (to == NULL) {
        caller_refuse(caller, &refusal);
        return;
    }
    link_commit(&caller->link, welcome_encode(&frame, first_slots, to));
    queue_remove(caller);
    crowd_leave(shard, caller);
    caller->state = CALLER_READY;
    caller->link.frame_bytes_max = (uint32_t)options->frame_bytes_max;
    caller->frame_bytes_max = hello->frame_bytes_max != 0 ? hello->frame_bytes_max : UINT32_MAX;
    caller_mark_dirty(caller);
    trace_line(options->trace, TRACE_DEBUG, "link: %u.%u.%u is welcome, as session %016llx",
               shard->index, caller->index, caller->generation, (unsigned long long)hello->session);
}

/*
 * The whole receive goes with the connection; the other shard reads the HELLO again. Where that
 * cannot be (the HELLO came in pieces, the lane is full) this shard greets instead: it serves every
 * slot, only over a lane.
 */
static bool hand_over(struct caller *caller, uint32_t to, const uint8_t *data, size_t size)
{
    struct shard *shard = caller->shard;
    if (size > GREETING_BYTES_MAX || !crossing_may_adopt(shard, to, size)) return false;
    if (BUGGIFY("not_handed_over")) return false;
    int fd = io_detach(shard->io, caller->link.conn);
    if (fd < 0) return false;
    crossing_adopt(shard, to, fd, data, size);
    count(&shard->counters.handed, 1);
    caller_free(caller);
    return true;
}

/* Whether a frame may have this length; if not, the caller is refused. */
static bool check_length(struct caller *caller, uint32_t length)
{
    uint32_t length_max = caller->link.frame_bytes_max;
    struct refusal too_short = {ERROR_PROTOCOL, length, FRAME_PREFIX_BYTES,
                                "frame shorter than its prefix"};
    struct refusal too_long = {ERROR_PROTOCOL, length, length_max, "frame over the limit"};
    if (length >= FRAME_PREFIX_BYTES && length <= length_max) return true;
    caller_refuse(caller, length < FRAME_PREFIX_BYTES ? &too_short : &too_long);
    return false;
}

struct greeted {
    struct caller *caller;
    bool handed_over;
};

/* Takes the HELLO; what follows it is taken by the ready link. */
static int64_t greet(void *context, uint8_t *data, size_t size)
{
    struct greeted *greeted = context;
    struct caller *caller = greeted->caller;
    struct shard *shard = caller->shard;
    struct frame_prefix prefix;
    if (size < sizeof prefix) return 0;
    memcpy(&prefix, data, sizeof prefix);
    if (prefix.type == FRAME_HELLO && !check_length(caller, prefix.length)) return -EPROTO;
    size_t padded = round_up_8(prefix.length);
    /* A first frame that is no HELLO is refused before all of it has come. */
    if (prefix.type == FRAME_HELLO && padded > size) return 0;
    struct greeting_node node = {.shard = shard->index,
                                 .shards_count = shard->options->shards_count,
                                 .shard_any = caller->is_adopted ? shard->index : shard->next_shard,
                                 .cluster = shard->options->cluster,
                                 .stopping = shard->stopping,
                                 .token = caller->is_known ? NULL : shard->options->token};
    struct greeting greeting;
    greeting_decide(&greeting, &node, data, min_u64(prefix.length, size));
    /* Nobody needs the token any more, whatever becomes of these bytes. */
    if (prefix.type == FRAME_HELLO && prefix.length > sizeof greeting.hello)
        secret_wipe(data + sizeof greeting.hello, prefix.length - sizeof greeting.hello);
    if (greeting.action == GREETING_DENY) {
        caller_deny(caller);
        return -EPROTO;
    }
    if (greeting.is_known) caller->is_known = true;
    bool wants_any = greeting.action != GREETING_REFUSE && greeting.hello.shard == HELLO_SHARD_ANY;
    if (wants_any && !caller->is_adopted)
        shard->next_shard = (shard->next_shard + 1) % shard->options->shards_count;
    if (greeting.action == GREETING_HAND_OVER) {
        greeted->handed_over = hand_over(caller, greeting.shard, data, size);
        if (greeted->handed_over) return -EPIPE;
        greeting.action = GREETING_WELCOME;
    }
    if (greeting.action == GREETING_REFUSE) {
        caller_refuse(caller, &greeting.refusal);
        return -EPROTO;
    }
    welcome(caller, &greeting.hello);
    if (caller->state != CALLER_READY) return -EPIPE;
    if (padded == size) return (int64_t)padded;
    int64_t taken = run_from_caller(caller, data + padded, size - padded);
    return taken < 0 ? taken : (int64_t)padded + taken;
}

/* --------------------------------------------------------------------- a ready link */

static int64_t control_open(struct caller *caller, const uint8_t *data, size_t length)
{
    struct shard *shard = caller->shard;
    struct frame_open open;
    struct bytes name;
    struct refusal refusal;
    if (open_decode(&open, &name, data, length, &refusal) < 0) {
        caller_refuse(caller, &refusal);
        return -EPROTO;
    }
    const struct cache_definition *definition = NULL;
    for (uint32_t i = 0; i < shard->caches_count && definition == NULL; i++)
        if (bytes_equal(bytes_of(shard->caches[i]->definition->name), name))
            definition = shard->caches[i]->definition;
    struct frame_opened opened = {.seq = open.seq, .slots_count = SLOTS_COUNT};
    struct bytes verbs = {NULL, 0};
    if (definition != NULL &&
        sizeof opened + definition->verbs_bytes_count > caller->frame_bytes_max) {
        opened.prefix.small = reply_code(OUTCOME_FAIL, ERROR_TOO_BIG);
    } else if (definition != NULL) {
        verbs = (struct bytes){definition->verbs_bytes, definition->verbs_bytes_count};
        opened.cache = (uint16_t)definition->number;
        opened.verbs_count = (uint16_t)definition->verbs_count;
    } else {
        opened.prefix.small = reply_code(OUTCOME_FAIL, ERROR_NOT_FOUND);
    }
    uint8_t *to = link_reserve(&caller->link, sizeof opened + verbs.size + 8);
    if (to == NULL) return -ENOMEM;
    link_commit(&caller->link, opened_encode(&opened, verbs, to));
    return 0;
}

int64_t caller_control(struct caller *caller, const uint8_t *data, size_t size)
{
    struct frame_prefix prefix;
    if (size < sizeof prefix) return 0;
    memcpy(&prefix, data, sizeof prefix);
    bool is_stream = prefix.type == FRAME_SUBSCRIBE || prefix.type == FRAME_CREDIT;
    if (prefix.type != FRAME_OPEN && !is_stream) {
        struct refusal refusal = {ERROR_PROTOCOL, prefix.type, FRAME_UPDATE,
                                  "a frame of this type is not a client's to send"};
        caller_refuse(caller, &refusal);
        return -EPROTO;
    }
    if (!check_length(caller, prefix.length)) return -EPROTO;
    size_t padded = round_up_8(prefix.length);
    if (padded > size) return 0;
    int64_t err = is_stream ? subscription_control(caller, data, prefix.length)
                            : control_open(caller, data, prefix.length);
    return err < 0 ? err : (int64_t)padded;
}

static void caller_received(struct caller *caller, const struct io_event *event)
{
    struct greeted greeted = {.caller = caller};
    bool was_greeting = caller->state == CALLER_GREETING;
    uint32_t conn = caller->link.conn;
    if (caller->state != CALLER_GREETING && caller->state != CALLER_READY) return;
    int err = was_greeting
                  ? link_receive(&caller->link, event->data, event->size, greet, &greeted)
                  : link_receive(&caller->link, event->data, event->size, run_from_caller, caller);
    if (greeted.handed_over) return;
    if (err < 0) {
        /* Whoever found a broken frame has refused it; what is left is memory. */
        struct refusal refusal = {ERROR_NO_MEMORY, event->size, 0, "no memory to receive"};
        caller_refuse(caller, &refusal);
        return;
    }
    if (caller->link.partial.bytes > 0 && caller->queue == NULL) watch_progress(caller);
    /* The first receive of a connection paused it by itself. */
    if (was_greeting && !caller->link.blocked) io_resume(caller->link.io, conn);
}

void caller_adopt(struct shard *shard, int fd, const uint8_t *data, size_t size)
{
    int64_t conn = io_adopt(shard->io, fd, NULL);
    struct caller *caller = NULL;
    if (conn >= 0) caller = caller_open(shard, (uint32_t)conn, CROWD_NO_SOURCE);
    store_release_u64(&shard->adopted, shard->adopted + 1);
    if (conn < 0) close(fd);
    if (caller == NULL) {
        no_room(shard);
        if (conn >= 0) io_close(shard->io, (uint32_t)conn);
        return;
    }
    caller->is_adopted = true;
    caller->is_known = true;
    uint8_t copy[GREETING_BYTES_MAX];
    ASSERT(size <= sizeof copy);
    memcpy(copy, data, size);
    struct io_event event = {.type = IO_RECEIVED, .data = copy, .size = (uint32_t)size};
    caller_received(caller, &event);
}

static void caller_sent(struct caller *caller)
{
    link_sent(&caller->link);
    if (UNLIKELY(caller->debts_count > 0)) waiters_pay(caller);
    subscriptions_have_room(caller);
    if (link_out_bytes(&caller->link) > 0 || caller->is_ended)
        caller_mark_dirty(caller);
    else if (caller->state == CALLER_CLOSING)
        caller_finish(caller);
}

/*
 * The peer has sent all that it will, and has its answers. What is left of a frame is a mistake, and it
 * may still hear of that; who said nothing at all just looked whether somebody is here.
 */
static void end_caller(struct caller *caller)
{
    bool may_hear = caller->state == CALLER_GREETING || caller->state == CALLER_READY;
    if (may_hear && caller->link.partial.bytes > 0) {
        const struct refusal refusal = {ERROR_PROTOCOL, caller->link.partial.bytes, 0,
                                        "the connection ended within a frame"};
        caller_refuse(caller, &refusal);
    } else {
        caller_close(caller);
    }
}

/* Its peer ended its side long ago, and may have gone; its handlers did not answer. */
static void on_half_closed(const struct timer_call *call)
{
    struct caller *caller = call->argument;
    caller->half_closed_timer = 0;
    caller_close(caller);
}

static void half_close(struct caller *caller)
{
    struct shard *shard = caller->shard;
    const struct timer_call call = {.function = on_half_closed, .argument = caller};
    waiters_half_close(caller);
    if (caller->waiters_count == 0) return;
    caller->half_closed_timer =
        timers_add(&shard->timers, shard->now_ns + HALF_CLOSED_NS_MAX, &call);
    if (caller->half_closed_timer == 0) caller_close(caller);
}

static void caller_ended(struct caller *caller)
{
    caller->is_ended = true;
    subscriptions_end(caller);
    if (caller->state == CALLER_GREETING) {
        end_caller(caller);
        return;
    }
    half_close(caller);
    caller_mark_dirty(caller);
}

void caller_event(struct shard *shard, const struct io_event *event)
{
    struct caller *caller = event->context;
    if (caller == NULL) return;
    shard->work++;
    switch ((enum io_event_type)event->type) {
    case IO_RECEIVED: caller_received(caller, event); break;
    case IO_SENT: caller_sent(caller); break;
    case IO_EOF: caller_ended(caller); break;
    case IO_CLOSED:
        tell_closed(caller, event->result);
        caller_free(caller);
        break;
    case IO_ACCEPTED:
    case IO_CONNECTED:
    case IO_DATAGRAM:
    case IO_WOKEN: break;
    }
}

/* ------------------------------------------------------------------------ end of the turn */

static void acknowledge(struct caller *caller)
{
    uint8_t *to = link_reserve(&caller->link, sizeof(struct frame_ack));
    caller->must_ack = false;
    if (to == NULL) {
        caller_close(caller); /* it would wait for its window for ever */
        return;
    }
    uint32_t requests = caller->requests + (PLANTED("ack_too_early") ? 1 : 0);
    link_commit(&caller->link, ack_encode(caller->seq_last, requests, caller->consumed_bytes, to));
}

void callers_flush(struct shard *shard)
{
    for (uint32_t i = 0; i < shard->dirty_count; i++) {
        struct caller *caller = shard->dirty[i];
        caller->dirty = false;
        if (!caller_is_open(caller) && caller->state != CALLER_CLOSING) continue;
        if (caller->must_ack && caller_is_open(caller)) acknowledge(caller);
        bool is_owed = caller->reserved_bytes > 0 || caller->waiters_count > 0;
        if (caller->state == CALLER_STOPPING && !is_owed)
            refuse(caller, &(struct refusal){ERROR_CLOSED, 0, 0, "the node is stopping"});
        if (caller->state == CALLER_CLOSED) continue;
        link_flush(&caller->link);
        if (caller->is_ended && is_answered(caller)) end_caller(caller);
    }
    shard->dirty_count = 0;
}

/* Counts who waits for a lane: an outbox that has room again is an event, a lane is none. */
static bool may_resume(struct shard *shard, const struct caller *caller)
{
    if (!caller_has_room(caller, shard->outbox_bytes / 2)) return false;
    if (caller->waits_for == IO_NONE || crossing_may_resume(shard, caller->waits_for)) return true;
    shard->lane_waits_count++;
    return false;
}

void callers_unblock(struct shard *shard)
{
    uint32_t kept = 0;
    shard->lane_waits_count = 0;
    if (shard->reading_ended) return;
    for (uint32_t i = 0; i < shard->waiting_count; i++) {
        struct caller *caller = shard->waiting[i];
        if (caller->state == CALLER_READY && !may_resume(shard, caller)) {
            shard->waiting[kept++] = caller;
            continue;
        }
        caller->waiting = false;
        caller->waits_for = IO_NONE;
        if (caller->state == CALLER_READY) {
            link_unblock(&caller->link);
            shard->work++;
        }
    }
    shard->waiting_count = kept;
}

void callers_trim(struct shard *shard)
{
    if (shard->trim_next == 0) {
        if (LIKELY(shard->now_ns < shard->trim_ns)) return;
        shard->trim_ns = shard->now_ns + TRIM_NS;
    }
    for (unsigned i = 0; i < TRIM_CALLERS_COUNT && shard->trim_next < shard->callers_fresh; i++) {
        struct caller *caller = &shard->callers[shard->trim_next++];
        if (caller->state == CALLER_READY) link_trim(&caller->link);
    }
    if (shard->trim_next >= shard->callers_fresh) shard->trim_next = 0;
}

/*
 * Those whose links hold most, the largest first, in one walk: there may be very many callers.
 * Returns how many there are, EVICTED_MAX at most.
 */
static unsigned largest_callers(struct shard *shard, struct caller *largest[EVICTED_MAX])
{
    uint64_t bytes[EVICTED_MAX];
    unsigned count = 0;
    for (uint32_t i = 0; i < shard->callers_fresh; i++) {
        struct caller *caller = &shard->callers[i];
        if (caller->state == CALLER_FREE || caller->state == CALLER_CLOSED) continue;
        uint64_t holds = link_memory(&caller->link);
        if (holds == 0 || (count == EVICTED_MAX && holds <= bytes[count - 1])) continue;
        unsigned at = count < EVICTED_MAX ? count++ : count - 1;
        for (; at > 0 && bytes[at - 1] < holds; at--) {
            bytes[at] = bytes[at - 1];
            largest[at] = largest[at - 1];
        }
        bytes[at] = holds;
        largest[at] = caller;
    }
    return count;
}

/*
 * Whoever does not take what he asked for is closed without a word, since he would not read that
 * either. His buffers are the kernel's for a moment, and no longer counted.
 */
static void evict(struct shard *shard, struct caller *caller)
{
    uint64_t bytes = link_memory(&caller->link);
    if (link_shrink(&caller->link)) return;
    count(&shard->counters.evicted, 1);
    if (link_out_bytes(&caller->link) == 0 && caller->state != CALLER_CLOSING) {
        const struct refusal refusal = {ERROR_NO_MEMORY, bytes, shard->links.bytes_max,
                                        "links.bytes is reached, and no link holds more"};
        link_drop_partial(&caller->link);
        caller_refuse(caller, &refusal);
        return;
    }
    trace_line(shard->options->trace, TRACE_WARN,
               "link closed: it holds %llu bytes that its peer does not take, and links.bytes is "
               "reached (%llu)",
               (unsigned long long)bytes, (unsigned long long)shard->links.bytes_max);
    shard->links.bytes -= bytes;
    caller->link.budget = NULL;
    caller_close(caller);
}

void callers_relieve(struct shard *shard)
{
    const struct link_budget *links = &shard->links;
    size_t most = shard->options->outbox_bytes_max;
    bool is_tight = links->bytes > links->bytes_max / 2;
    shard->outbox_bytes = UNLIKELY(is_tight) ? max_u64(most / TIGHT_PART, TIGHT_BYTES_MIN) : most;
    if (LIKELY(links->bytes <= links->bytes_max)) return;
    struct caller *largest[EVICTED_MAX];
    unsigned count = largest_callers(shard, largest);
    for (unsigned i = 0; i < count && links->bytes > links->bytes_max; i++) {
        evict(shard, largest[i]);
        shard->work++;
    }
}

void callers_end_reading(struct shard *shard)
{
    shard->reading_ended = true;
    for (uint32_t i = 0; i < shard->callers_fresh; i++) {
        struct caller *caller = &shard->callers[i];
        if (caller->state != CALLER_GREETING && caller->state != CALLER_READY) continue;
        queue_remove(caller);
        caller->state = CALLER_STOPPING;
        io_pause(shard->io, caller->link.conn, NULL, 0);
        caller_mark_dirty(caller);
    }
}

bool callers_are_flushed(const struct shard *shard)
{
    for (uint32_t i = 0; i < shard->callers_fresh; i++) {
        const struct caller *caller = &shard->callers[i];
        if (caller->state != CALLER_FREE && link_out_bytes(&caller->link) > 0) return false;
    }
    return true;
}
