/*
 * A handler may answer later: from a timer, from a callback, from another thread; once, or in parts
 * as a stream. Until then the request is an entry of the shard that ran the handler. It is named by
 * shard, index and generation wherever else it is known, so that whoever comes too late finds
 * nothing, and nobody finds another one's.
 *
 * It ends exactly once: with the first answer that is no part, or with one of the node's own when its
 * deadline comes, its caller stops it or goes away, or the node stops. Holders hear of the latter at
 * one place of the turn, never inside of something else.
 *
 * Answers go home: to the shard of the caller's link, which may be this one, or to a thread's port.
 * What the request was promised in the lane and in the outbox is given back when it is deferred,
 * since it may take long; so an answer competes with requests for its lane, and waits here if that
 * is full. A part does not wait: its holder does, and is told when there is room. How much of a
 * stream may be under way is the entry's `room_bytes`, which the link gives back as it takes them.
 * A port keeps its promise instead, and the room is what was promised.
 *
 * Other threads give their parts by mail, and cannot know what room there is here: what finds none
 * waits in the entry (parts.h), in order, and so does an answer that comes behind it. What a thread has
 * given and is not under way yet is counted, and bounded by the thread itself; when it is counted down
 * the shard's `parts_taken` grows, which threads that wait for room look at.
 *
 * A caller whose link is lost may come back and send the request again: with a session, an entry
 * waits a little for that, keeps an answer that comes meanwhile, and takes the new link for its home.
 * A stream that has begun does not: its parts are lost.
 */
#include "shard/deferred.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/ck.h"
#include "base/clock.h"
#include "base/memory.h"
#include "shard/crossing.h"
#include "shard/parts.h"
#include "shard/request.h"
#include "shard/shard.h"
#include "shard/waiter.h"

enum deferred_state {
    DEFERRED_FREE,
    DEFERRED_OPEN,
    DEFERRED_HELD /* it has its answer, which waits for room or for its caller to come back */
};

enum deferred_in { IN_NO_LIST, IN_NEWS, IN_UNSENT };

struct deferred {
    uint32_t index;
    uint32_t generation;
    uint8_t state; /* enum deferred_state */
    uint8_t in;    /* enum deferred_in */
    bool has_parts;
    bool wants_room; /* a part was refused */
    bool is_orphan;  /* its link was lost, and may come back */
    uint16_t error;  /* nobody waits any more: the holder is to be told why; 0: somebody does */
    uint16_t cache;
    uint16_t promise; /* that `port` keeps until its end */
    uint32_t port;
    uint32_t link_seq;
    struct deferred_home home;
    int64_t room_bytes;
    uint64_t session; /* 0: it is not looked for */
    uint64_t seq;
    struct session_claim claim;
    uint64_t patience_ns; /* of its caller, renewed with each part; 0: without end */
    uint64_t timer;
    struct deferred_holder holder;
    struct parts given; /* of other threads: they go before the answer */
    uint8_t *held;      /* the frame of its answer */
    uint32_t held_bytes;
    uint32_t next_chained; /* index + 1 */
    struct deferred *next;
    struct deferred *previous;
};

/* ----------------------------------------------------------------------------------- the table */

int deferreds_init(struct shard *shard)
{
    struct deferreds *deferreds = &shard->deferreds;
    size_t chains = 1;
    if (shard->options->deferred_max == 0) return 0;
    while (chains < shard->options->deferred_max) chains *= 2;
    deferreds->chains_mask = (uint32_t)chains - 1;
    deferreds->entries =
        memory_reserve(shard->options->deferred_max * sizeof *deferreds->entries, 0);
    if (deferreds->entries == NULL) return -ENOMEM;
    deferreds->chains = memory_reserve(chains * sizeof *deferreds->chains, 0);
    if (deferreds->chains != NULL) return 0;
    memory_release(deferreds->entries, shard->options->deferred_max * sizeof *deferreds->entries);
    deferreds->entries = NULL;
    return -ENOMEM;
}

static void list_push(struct deferred_list *list, struct deferred *deferred, enum deferred_in in)
{
    ASSERT(deferred->in == IN_NO_LIST);
    deferred->in = (uint8_t)in;
    deferred->next = NULL;
    deferred->previous = list->last;
    if (list->last != NULL)
        list->last->next = deferred;
    else
        list->first = deferred;
    list->last = deferred;
}

static void unlist(struct shard *shard, struct deferred *deferred)
{
    struct deferred_list *list =
        deferred->in == IN_NEWS ? &shard->deferreds.news : &shard->deferreds.unsent;
    if (deferred->in == IN_NO_LIST) return;
    if (deferred->previous != NULL)
        deferred->previous->next = deferred->next;
    else
        list->first = deferred->next;
    if (deferred->next != NULL)
        deferred->next->previous = deferred->previous;
    else
        list->last = deferred->previous;
    deferred->in = IN_NO_LIST;
}

static void have_news(struct shard *shard, struct deferred *deferred)
{
    if (deferred->in == IN_NEWS) return;
    unlist(shard, deferred);
    list_push(&shard->deferreds.news, deferred, IN_NEWS);
    shard->work++;
}

static void wait_for_lane(struct shard *shard, struct deferred *deferred)
{
    if (deferred->in == IN_NO_LIST) list_push(&shard->deferreds.unsent, deferred, IN_UNSENT);
}

static uint32_t *chain_of(const struct deferreds *deferreds, uint64_t session, uint64_t seq)
{
    uint64_t key[2] = {session, seq};
    return &deferreds->chains[hash_key(key, sizeof key, 0) & deferreds->chains_mask];
}

static void chain(struct deferreds *deferreds, struct deferred *deferred)
{
    uint32_t *head = chain_of(deferreds, deferred->session, deferred->seq);
    deferred->next_chained = *head;
    *head = deferred->index + 1;
}

static void unchain(struct deferreds *deferreds, struct deferred *deferred)
{
    if (deferred->session == 0) return;
    uint32_t *link = chain_of(deferreds, deferred->session, deferred->seq);
    while (*link != deferred->index + 1) {
        ASSERT(*link != 0);
        link = &deferreds->entries[*link - 1].next_chained;
    }
    *link = deferred->next_chained;
    deferred->session = 0;
}

static struct deferred *find(const struct deferreds *deferreds, uint16_t cache, uint64_t session,
                             uint64_t seq)
{
    for (uint32_t at = *chain_of(deferreds, session, seq); at != 0;) {
        struct deferred *deferred = &deferreds->entries[at - 1];
        if (deferred->session == session && deferred->seq == seq && deferred->cache == cache)
            return deferred;
        at = deferred->next_chained;
    }
    return NULL;
}

static struct deferred *entry_take(struct shard *shard)
{
    struct deferreds *deferreds = &shard->deferreds;
    struct deferred *deferred = deferreds->free;
    if (deferred != NULL) {
        deferreds->free = deferred->next;
    } else if (deferreds->fresh < shard->options->deferred_max) {
        deferred = &deferreds->entries[deferreds->fresh];
        deferred->index = deferreds->fresh++;
        deferred->generation = 1;
    } else {
        return NULL;
    }
    deferreds->count++;
    count(&shard->counters.deferred, 1);
    return deferred;
}

static struct deferred_name name_of(const struct deferred *deferred)
{
    return (struct deferred_name){deferred->index, deferred->generation};
}

/* A port counts what it promised until it is told the end; nobody waits for this one. */
static void give_back(struct shard *shard, const struct deferred *deferred)
{
    struct mail *mail =
        crossing_try_push_late(shard, deferred->port, sizeof(struct mail_late), MAIL_LATE);
    ASSERT(mail != NULL);
    mail->small = (uint16_t)(LATE_LAST | deferred->promise);
    struct mail_late *late = (struct mail_late *)mail;
    late->name = name_of(deferred);
    late->caller = deferred->home.caller;
    late->generation = deferred->home.generation;
}

/* Threads that wait for room may look again, and the holder is told if one of them was refused. */
static void count_taken(struct shard *shard, struct deferred *deferred, uint64_t given_bytes)
{
    struct given *given = deferred->holder.given;
    if (given_bytes == 0) return;
    store_release_u64(&shard->parts_taken, shard->parts_taken + 1);
    if (given == NULL) return;
    add_u64(&given->bytes, -given_bytes);
    if (exchange_full_u32(&given->wants_room, 0) == 0) return;
    deferred->wants_room = true;
    have_news(shard, deferred);
}

static void drop_given(struct shard *shard, struct deferred *deferred)
{
    count_taken(shard, deferred, parts_drop(&deferred->given));
}

static void entry_put(struct shard *shard, struct deferred *deferred)
{
    if (deferred->promise > 0) give_back(shard, deferred);
    struct deferreds *deferreds = &shard->deferreds;
    uint32_t index = deferred->index;
    uint32_t generation = deferred->generation + 1;
    timers_cancel(&shard->timers, deferred->timer);
    unlist(shard, deferred);
    unchain(deferreds, deferred);
    memory_put(deferred->held);
    *deferred = (struct deferred){
        .index = index, .generation = generation != 0 ? generation : 1, .next = deferreds->free};
    deferreds->free = deferred;
    deferreds->count--;
    count(&shard->counters.deferred, -(uint64_t)1);
}

/* The holder has no more to do with it. */
static void let_go(struct deferred *deferred)
{
    if (deferred->holder.notify == NULL) return;
    struct deferred_holder holder = deferred->holder;
    deferred->holder = (struct deferred_holder){0};
    holder.notify(holder.context, DEFERRED_OVER, ERROR_NONE);
}

static void end(struct shard *shard, struct deferred *deferred)
{
    drop_given(shard, deferred);
    let_go(deferred);
    entry_put(shard, deferred);
}

void deferreds_deinit(struct shard *shard)
{
    struct deferreds *deferreds = &shard->deferreds;
    if (deferreds->entries == NULL) return;
    for (uint32_t i = 0; i < deferreds->fresh; i++) {
        struct deferred *deferred = &deferreds->entries[i];
        deferred->promise = 0; /* ports have ended theirs by themselves */
        if (deferred->state != DEFERRED_FREE) end(shard, deferred);
    }
    memory_release(deferreds->entries, shard->options->deferred_max * sizeof *deferreds->entries);
    memory_release(deferreds->chains, (deferreds->chains_mask + (size_t)1) * sizeof(uint32_t));
    *deferreds = (struct deferreds){0};
}

static struct deferred *entry_of(const struct shard *shard, struct deferred_name name)
{
    if (name.generation == 0 || name.index >= shard->deferreds.fresh) return NULL;
    struct deferred *deferred = &shard->deferreds.entries[name.index];
    return deferred->generation == name.generation ? deferred : NULL;
}

/* One that may be replied to. */
static struct deferred *open_of(const struct shard *shard, struct deferred_name name)
{
    struct deferred *deferred = entry_of(shard, name);
    return deferred != NULL && deferred->state == DEFERRED_OPEN ? deferred : NULL;
}

bool deferred_is_open(const struct shard *shard, struct deferred_name name)
{
    return open_of(shard, name) != NULL;
}

/* --------------------------------------------------------------------------- nobody waits any more */

/* Its holder hears of it with the other news, and may have the last word. */
static void stop(struct shard *shard, struct deferred *deferred, enum reply_error error)
{
    /* Who has gone does not take an answer any more, whatever the reason was before. */
    if (deferred->error == 0 || error == ERROR_GONE) deferred->error = (uint16_t)error;
    have_news(shard, deferred);
}

/* The deadline, or nobody came back. */
static void on_time(const struct timer_call *call)
{
    struct shard *shard = call->context;
    struct deferred *deferred = call->argument;
    deferred->timer = 0;
    if (deferred->state == DEFERRED_HELD)
        end(shard, deferred);
    else
        stop(shard, deferred, deferred->is_orphan ? ERROR_GONE : ERROR_TIMEOUT);
}

/* False: no memory. */
static bool set_timer(struct shard *shard, struct deferred *deferred, uint64_t patience_ns)
{
    timers_cancel(&shard->timers, deferred->timer);
    deferred->timer = 0;
    if (patience_ns == 0) return true;
    const struct timer_call call = {.function = on_time, .context = shard, .argument = deferred};
    deferred->timer = timers_add(&shard->timers, shard->now_ns + patience_ns, &call);
    return deferred->timer != 0;
}

/* The answer is there; the parts that it waits for are not wanted any more. */
static void cut_short(struct shard *shard, struct deferred *deferred)
{
    if (deferred->given.first == NULL) return;
    drop_given(shard, deferred);
    have_news(shard, deferred);
}

/* The link is gone, and with it the way home. */
static void orphan(struct shard *shard, struct deferred *deferred)
{
    bool may_return = deferred->session != 0 && !deferred->has_parts && deferred->error == 0;
    deferred->home.from = DEFERRED_NO_HOME;
    if (deferred->in == IN_UNSENT) unlist(shard, deferred); /* no lane leads there */
    deferred->is_orphan =
        may_return && !shard->stopping && set_timer(shard, deferred, DEFERRED_ORPHAN_NS);
    if (deferred->is_orphan) return;
    if (deferred->state == DEFERRED_HELD)
        end(shard, deferred);
    else
        stop(shard, deferred, ERROR_GONE);
}

static bool is_home(const struct deferred_home *a, const struct deferred_home *b)
{
    return a->from == b->from && a->caller == b->caller && a->generation == b->generation;
}

void deferred_told(struct shard *shard, struct deferred_name name, const struct deferred_word *word)
{
    struct deferred *deferred = entry_of(shard, name);
    if (deferred == NULL || !is_home(&deferred->home, &word->home)) return;
    deferred->room_bytes += word->credit_bytes;
    bool is_open = deferred->state == DEFERRED_OPEN;
    bool waits = (deferred->wants_room && is_open) || deferred->given.first != NULL;
    if (waits && deferred->room_bytes > 0 && deferred->in == IN_NO_LIST) have_news(shard, deferred);
    if (word->error == ERROR_GONE)
        orphan(shard, deferred);
    else if (word->error != 0 && is_open)
        stop(shard, deferred, (enum reply_error)word->error);
    else if (word->error != 0)
        cut_short(shard, deferred);
}

/* ------------------------------------------------------------------------------------- deferring */

/* What of a port's promise is for the news that it is deferred, a last part and the last answer. */
#define PORT_KEPT_BYTES                                                                            \
    (sizeof(struct mail_deferred) + 2 * (sizeof(struct mail_late) + sizeof(struct mail_block)))

/* What is left of the request's time, from now on: 0 is all of it. */
static uint64_t patience_of(const struct request *request, uint64_t now_ns)
{
    return request->deadline_ns == 0 ? 0 : max_u64(request->deadline_ns, now_ns + 1) - now_ns;
}

/* Its answers go to where this request came from; what that was promised is given back. */
static void go_home(struct deferred *deferred, struct request_context *context)
{
    struct shard *shard = context->shard;
    const struct request *request = context->request;
    struct mail_deferred news = {.name = name_of(deferred), .seq = request->store.seq_whole};
    deferred->link_seq = request->link_seq;
    deferred->is_orphan = false;
    deferred->home = (struct deferred_home){.from = DEFERRED_NO_HOME};
    deferred->room_bytes = (int64_t)min_u64(DEFERRED_ROOM_BYTES, shard->options->outbox_bytes_max);
    if (request->want < WANT_REPLY) return;
    if (context->caller != NULL) {
        news.caller = context->caller->index;
        news.generation = context->caller->generation;
        deferred->home = (struct deferred_home){shard->index, news.caller, news.generation};
        waiter_open(shard, shard->index, &news);
        return;
    }
    news.caller = request->caller;
    news.generation = request->generation;
    deferred->home = (struct deferred_home){context->from, news.caller, news.generation};
    if (context->from >= FROM_PORTS) {
        deferred->promise = request->promise;
        deferred->port = context->from;
        deferred->room_bytes =
            (int64_t)promise_mail_bytes(request->promise) - (int64_t)PORT_KEPT_BYTES;
    }
    crossing_defer(context, &news);
}

int deferred_open(struct request_context *context, const struct deferred_holder *holder)
{
    struct shard *shard = context->shard;
    const struct request *request = context->request;
    ASSERT(context->deferred.generation == 0 && !context->replied);
    struct deferred *deferred = entry_take(shard);
    if (deferred == NULL) return -EBUSY;
    deferred->patience_ns = patience_of(request, shard->now_ns);
    if (!set_timer(shard, deferred, deferred->patience_ns)) {
        entry_put(shard, deferred);
        return -ENOMEM;
    }
    deferred->state = DEFERRED_OPEN;
    deferred->holder = *holder;
    deferred->cache = (uint16_t)request->cache->definition->number;
    deferred->seq = request->store.seq_whole;
    deferred->session = request->store.session;
    if (request->session != NULL)
        deferred->claim = (struct session_claim){.id = request->session->id,
                                                 .start = request->session->start,
                                                 .seq_unsent = deferred->seq,
                                                 .floor = request->session->floor};
    if (deferred->session != 0) chain(&shard->deferreds, deferred);
    go_home(deferred, context);
    context->deferred = name_of(deferred);
    return 0;
}

/* --------------------------------------------------------------------------------------- answers */

static size_t frame_bytes(const struct deferred_answer *answer)
{
    size_t offset_bytes = answer->offset > UINT32_MAX ? sizeof(struct extension) + 8 : 0;
    return sizeof(struct frame_reply) + offset_bytes + answer->bytes;
}

static void write_frame(uint8_t *to, const struct deferred *deferred,
                        const struct deferred_answer *answer)
{
    size_t length = frame_bytes(answer);
    struct frame_reply reply = {.length = (uint32_t)length,
                                .type = FRAME_REPLY,
                                .flags = (uint8_t)answer->type,
                                .code = answer->code,
                                .seq = deferred->link_seq,
                                .offset = (uint32_t)answer->offset};
    if (answer->is_part) reply.flags |= REPLY_MORE;
    memset(to + round_up_8(length) - 8, 0, 8);
    if (answer->offset > UINT32_MAX) {
        struct extensions extensions = {.present = 1u << EXT_OFFSET, .offset = answer->offset};
        reply.flags |= FRAME_EXTENDED;
        extensions_encode(&extensions, to + sizeof reply);
    }
    memcpy(to, &reply, sizeof reply);
    if (answer->bytes > 0) memcpy(to + length - answer->bytes, answer->value, answer->bytes);
}

/* Sends a frame over the lane; it becomes the mail's, and is freed, if it is a large one. */
static bool try_mail(struct shard *shard, struct deferred *deferred, uint8_t *frame, size_t bytes,
                     bool is_last, bool *is_taken)
{
    uint32_t to = deferred->home.from;
    size_t room = to >= FROM_PORTS && deferred->room_bytes > 0 ? (size_t)deferred->room_bytes : 0;
    bool is_block = bytes > CROSSING_INLINE_BYTES_MAX || (to >= FROM_PORTS && bytes > room);
    size_t body = is_block ? sizeof(struct mail_block) : bytes;
    struct mail *mail = crossing_try_push_late(shard, to, sizeof(struct mail_late) + body,
                                               is_block ? MAIL_LATE_BLOCK : MAIL_LATE);
    if (mail == NULL) return false;
    struct mail_late *late = (struct mail_late *)mail;
    late->mail.small = is_last ? (uint16_t)(LATE_LAST | deferred->promise) : 0;
    if (is_last) deferred->promise = 0;
    late->name = name_of(deferred);
    late->caller = deferred->home.caller;
    late->generation = deferred->home.generation;
    if (is_block)
        *(struct mail_block *)(late + 1) = (struct mail_block){frame, bytes};
    else
        memcpy(late + 1, frame, bytes);
    *is_taken = is_block;
    return true;
}

/* Sends home a frame on the heap, which is freed. False: there is no room, and it is not. */
static bool try_send(struct shard *shard, struct deferred *deferred, uint8_t *frame, size_t bytes,
                     bool is_last)
{
    bool is_taken = false;
    if (deferred->home.from == shard->index)
        waiter_deliver(shard, shard->index, name_of(deferred), frame, bytes, is_last);
    else if (!try_mail(shard, deferred, frame, bytes, is_last, &is_taken))
        return false;
    shard->work++;
    if (!is_taken) memory_put(frame);
    return true;
}

/* Its holder has no more to do; the answer waits. */
static void hold(struct shard *shard, struct deferred *deferred, uint8_t *frame, size_t bytes)
{
    let_go(deferred);
    deferred->state = DEFERRED_HELD;
    deferred->held = frame;
    deferred->held_bytes = (uint32_t)bytes;
    if (deferred->home.from != DEFERRED_NO_HOME) set_timer(shard, deferred, 0);
}

/* The answer is known. It goes home, or waits for a way, or for the parts before it. */
static void finish(struct shard *shard, struct deferred *deferred, uint8_t *frame, size_t bytes)
{
    bool has_home = deferred->home.from != DEFERRED_NO_HOME;
    bool is_lost = !has_home && !deferred->is_orphan;
    if (is_lost) drop_given(shard, deferred);
    if (deferred->given.first != NULL) {
        hold(shard, deferred, frame, bytes);
        if (has_home) have_news(shard, deferred);
        return;
    }
    unlist(shard, deferred);
    if (is_lost) memory_put(frame);
    if (is_lost || (has_home && try_send(shard, deferred, frame, bytes, true))) {
        end(shard, deferred);
        return;
    }
    hold(shard, deferred, frame, bytes);
    if (has_home) wait_for_lane(shard, deferred);
}

/* Sends a part, whose frame is freed. False: there is no room, and it is not. */
static bool try_send_part(struct shard *shard, struct deferred *deferred, uint8_t *frame,
                          size_t bytes)
{
    /* Who comes back is to get the stream from its first part on: there is no room until then. */
    if (deferred->home.from == DEFERRED_NO_HOME || deferred->room_bytes <= 0) return false;
    if (!try_send(shard, deferred, frame, bytes, false)) {
        wait_for_lane(shard, deferred);
        return false;
    }
    deferred->room_bytes -= (int64_t)(sizeof(struct mail_late) + bytes);
    deferred->has_parts = true;
    if (deferred->patience_ns > 0 && deferred->state == DEFERRED_OPEN)
        set_timer(shard, deferred, deferred->patience_ns);
    return true;
}

/* Sends parts that wait, as far as there is room; true: all are under way. */
static bool send_given(struct shard *shard, struct deferred *deferred)
{
    while (deferred->given.first != NULL) {
        const struct part part = *deferred->given.first;
        if (!try_send_part(shard, deferred, part.frame, part.frame_bytes)) return false;
        parts_pop(&deferred->given);
        count_taken(shard, deferred, part.given_bytes);
    }
    return true;
}

static int send_part(struct shard *shard, struct deferred *deferred, uint8_t *frame, size_t bytes,
                     uint32_t given_bytes)
{
    bool has_home = deferred->home.from != DEFERRED_NO_HOME;
    bool is_wanted = has_home || (deferred->is_orphan && !PLANTED("part_for_nobody"));
    bool is_first = deferred->given.first == NULL;
    if (is_first && try_send_part(shard, deferred, frame, bytes)) {
        count_taken(shard, deferred, given_bytes);
        return 0;
    }
    const struct part part = {
        .frame = frame, .frame_bytes = (uint32_t)bytes, .given_bytes = given_bytes};
    if (is_wanted && given_bytes > 0 && parts_push(&deferred->given, &part) == 0) return 0;
    memory_put(frame);
    count_taken(shard, deferred, given_bytes);
    if (!is_wanted) return 0; /* nobody wanted to hear of it */
    if (given_bytes > 0) return -ENOMEM;
    deferred->wants_room = true;
    return -EAGAIN;
}

/* It will not be sent; `deferred` is NULL where it has ended. */
static void give_up_part(struct shard *shard, struct deferred *deferred,
                         const struct deferred_answer *answer)
{
    if (answer->given_bytes == 0) return;
    if (deferred != NULL)
        count_taken(shard, deferred, answer->given_bytes);
    else
        store_release_u64(&shard->parts_taken, shard->parts_taken + 1);
}

int deferred_reply(struct shard *shard, struct deferred_name name,
                   const struct deferred_answer *answer)
{
    struct deferred *deferred = open_of(shard, name);
    /* Nobody hears a part of what is stopped. */
    bool is_over = deferred == NULL || deferred->error == ERROR_GONE ||
                   (answer->is_part && deferred->error != 0);
    size_t bytes = round_up_8(frame_bytes(answer));
    if (is_over) {
        give_up_part(shard, deferred, answer);
        return -ENOENT;
    }
    if (answer->bytes > shard->options->value_bytes_max) return -EMSGSIZE;
    uint8_t *frame = memory_take(bytes);
    if (frame == NULL) {
        give_up_part(shard, deferred, answer);
        return -ENOMEM;
    }
    write_frame(frame, deferred, answer);
    if (answer->is_part) return send_part(shard, deferred, frame, bytes, answer->given_bytes);
    count(&shard->counters.replies, 1);
    if (reply_outcome(answer->code) != OUTCOME_OK) {
        count(&shard->counters.errors, 1);
        note_error(shard, ERROR_OF_HANDLER, (enum reply_error)(answer->code & REPLY_ERROR),
                   "a handler replied later with an error", 0, 0);
    }
    finish(shard, deferred, frame, bytes);
    return 0;
}

void deferred_fail(struct shard *shard, struct deferred_name name, uint16_t code, const char *text)
{
    struct deferred_answer answer = {
        .code = code, .type = VALUE_STRING, .value = text, .bytes = strlen(text)};
    if (open_of(shard, name) == NULL) return;
    /* Without memory for it the caller's own time runs out. */
    if (deferred_reply(shard, name, &answer) < 0) end(shard, open_of(shard, name));
}

bool deferred_takes(struct request_context *context)
{
    struct shard *shard = context->shard;
    const struct request *request = context->request;
    if (request->store.session == 0) return false;
    struct deferred *deferred =
        find(&shard->deferreds, (uint16_t)request->cache->definition->number,
             request->store.session, request->store.seq_whole);
    if (deferred == NULL || deferred->error != 0) return false;
    if (deferred->has_parts) {
        orphan(shard, deferred);
        unchain(&shard->deferreds, deferred);
        return false;
    }
    count(&shard->counters.duplicates, 1);
    context->replied = true;
    go_home(deferred, context);
    if (deferred->state == DEFERRED_OPEN) {
        deferred->patience_ns = patience_of(request, shard->now_ns);
        set_timer(shard, deferred, deferred->patience_ns);
        bool waits = deferred->wants_room || deferred->given.first != NULL;
        if (waits && deferred->in == IN_NO_LIST) have_news(shard, deferred);
        return true;
    }
    uint8_t *frame = deferred->held;
    uint32_t bytes = deferred->held_bytes;
    deferred->held = NULL;
    finish(shard, deferred, frame, bytes);
    return true;
}

/* ------------------------------------------------------------------------------ the default handler */

/* The copy of the request, as if it came now. */
static int decode_again(struct shard *shard, const struct deferred *deferred,
                        struct request *request)
{
    struct refusal refusal;
    struct session_claim claim = deferred->claim;
    enum decoded decoded = request_decode(request, shard, deferred->holder.frame,
                                          deferred->holder.frame_bytes, &refusal);
    ASSERT(decoded == DECODED_REQUEST);
    request->store.seq_whole = deferred->seq;
    request->store.session = claim.id;
    request->session = crossing_session(shard, &claim);
    return request->session == NULL && claim.id != 0 ? -ENOMEM : 0;
}

int deferred_next(struct shard *shard, struct deferred_name name, struct captured *captured)
{
    struct deferred *deferred = open_of(shard, name);
    struct request request;
    if (deferred == NULL || deferred->error == ERROR_GONE) return -ENOENT;
    int err = decode_again(shard, deferred, &request);
    if (err == 0) request_capture(shard, &request, captured);
    return err;
}

void deferred_pass(struct shard *shard, struct deferred_name name)
{
    struct captured captured;
    struct frame_reply reply;
    int err = deferred_next(shard, name, &captured);
    if (err == -ENOMEM)
        deferred_fail(shard, name, reply_code(OUTCOME_FAIL, ERROR_NO_MEMORY),
                      "no memory to remember the session");
    if (err < 0) return;
    struct deferred *deferred = open_of(shard, name);
    memcpy(&reply, captured.frame, sizeof reply);
    reply.seq = deferred->link_seq;
    size_t bytes = round_up_8(reply.length);
    uint8_t *frame = memory_take(bytes);
    if (frame != NULL) {
        memcpy(frame, captured.frame, bytes);
        memcpy(frame, &reply, sizeof reply);
        finish(shard, deferred, frame, bytes);
    } else {
        end(shard, deferred);
    }
    captured_deinit(&captured);
}

/* -------------------------------------------------------------------------------------- each turn */

static const char *text_of(enum reply_error error)
{
    if (error == ERROR_TIMEOUT) return "the handler did not reply in time";
    return error == ERROR_STOPPED ? "its caller stopped it" : "the node is stopping";
}

/* The answer that waited behind its parts goes home. */
static void send_held(struct shard *shard, struct deferred *deferred)
{
    uint8_t *frame = deferred->held;
    deferred->held = NULL;
    finish(shard, deferred, frame, deferred->held_bytes);
}

static void tell(struct shard *shard, struct deferred *deferred)
{
    struct deferred_name name = name_of(deferred);
    struct deferred_holder holder = deferred->holder;
    enum reply_error error = (enum reply_error)deferred->error;
    if (error != 0) drop_given(shard, deferred);
    if (!send_given(shard, deferred)) return;
    if (deferred->state == DEFERRED_HELD) {
        send_held(shard, deferred);
        return;
    }
    if (error == 0) {
        if (!deferred->wants_room || deferred->room_bytes <= 0) return;
        deferred->wants_room = false;
        holder.notify(holder.context, DEFERRED_ROOM, ERROR_NONE);
        return;
    }
    holder.notify(holder.context, DEFERRED_STOPPED, error);
    deferred = open_of(shard, name);
    if (deferred == NULL) return;
    if (deferred->home.from == DEFERRED_NO_HOME)
        end(shard, deferred);
    else
        deferred_fail(shard, name, reply_code(OUTCOME_UNKNOWN, error), text_of(error));
}

/* The lane may have room again: for an answer, or for the holder's next part. */
static bool try_unsent(struct shard *shard, struct deferred *deferred)
{
    if (deferred->state == DEFERRED_OPEN || deferred->given.first != NULL) {
        if (!crossing_has_room_late(shard, deferred->home.from)) return false;
        have_news(shard, deferred);
        return true;
    }
    if (!try_send(shard, deferred, deferred->held, deferred->held_bytes, true)) return false;
    deferred->held = NULL;
    end(shard, deferred);
    return true;
}

void deferreds_turn(struct shard *shard)
{
    struct deferreds *deferreds = &shard->deferreds;
    for (struct deferred *next, *at = deferreds->unsent.first; at != NULL; at = next) {
        next = at->next;
        if (!try_unsent(shard, at)) break;
    }
    /* What holders do in their callbacks may be news again: for the next turn. */
    struct deferred *last = deferreds->news.last;
    for (bool is_last = last == NULL; !is_last && deferreds->news.first != NULL;) {
        struct deferred *first = deferreds->news.first;
        is_last = first == last;
        unlist(shard, first);
        tell(shard, first);
    }
}

void deferreds_stop(struct shard *shard)
{
    for (uint32_t i = 0; i < shard->deferreds.fresh; i++) {
        struct deferred *deferred = &shard->deferreds.entries[i];
        if (deferred->state == DEFERRED_HELD && deferred->home.from == DEFERRED_NO_HOME)
            end(shard, deferred);
        else if (deferred->state == DEFERRED_HELD)
            cut_short(shard, deferred);
        else if (deferred->state == DEFERRED_OPEN && deferred->error == 0)
            stop(shard, deferred, ERROR_CLOSED);
    }
}
