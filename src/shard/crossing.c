/*
 * A request whose slot another shard owns crosses one lane as a copy of its frame, and its reply
 * comes back on the lane of the opposite direction. Plain updates cross many in a mail (bundle.c),
 * everything else by itself. Nothing is shared: a caller is named by index and generation, so a
 * reply for a caller that has gone is dropped.
 *
 * Nobody waits. A request is sent only if the room of its reply is promised, in the caller's outbox
 * and in the lane back; otherwise its source stops being read. Requests may fill one half of a lane
 * and promised replies the other, so a reply always finds room and lanes cannot wait for each other
 * in a circle.
 *
 * What is larger than CROSSING_INLINE_BYTES_MAX travels as a block on the heap: the receiver of the
 * mail frees it. Blocks are bounded by the same promises.
 */
#include "shard/crossing.h"

#include <errno.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/memory.h"
#include "shard/asks.h"
#include "shard/bundle.h"
#include "shard/feed.h"
#include "shard/request_reply.h"
#include "shard/run.h"
#include "shard/waiter.h"

struct mail_adopt {
    struct mail mail;
    int32_t fd;
    uint32_t bytes;
};

/* What a link that may go on is taken to send at once. */
#define RESUMED_BYTES (64 * KIB)

static uint16_t promise_of(const struct request *request)
{
    return (uint16_t)((request_reply_bytes_max(request) + PROMISE_UNIT - 1) / PROMISE_UNIT);
}

uint16_t crossing_promise(uint8_t frame_type, uint8_t want)
{
    struct request request = {.frame_type = frame_type, .want = want};
    return promise_of(&request);
}

static size_t lane_half(const struct shard *shard)
{
    return shard->options->lane_bytes / 2 - LANE_SLACK_BYTES;
}

/* Bytes in the lane to `to`, looked up again only if the last answer was over `enough`. */
static uint64_t lane_used(struct shard *shard, uint32_t to, uint64_t enough)
{
    struct lane *lane = shard->mailbox->out[to];
    struct crossing_peer *peer = &shard->crossing[to];
    if (lane->producer.tail - peer->head_seen > enough)
        peer->head_seen = load_acquire_u64(&lane->consumed.head);
    return lane->producer.tail - peer->head_seen;
}

static bool lane_allows(struct shard *shard, uint32_t to, size_t request_bytes, size_t reply_bytes)
{
    size_t half = lane_half(shard);
    if (BUGGIFY("lane_is_full")) return false;
    return shard->crossing[to].promised_bytes + reply_bytes <= half &&
           lane_used(shard, to, half - request_bytes) + request_bytes <= half;
}

struct crossing_room crossing_room(struct shard *shard, uint32_t to)
{
    size_t half = lane_half(shard);
    return (struct crossing_room){half - min_u64(lane_used(shard, to, half / 2), half),
                                  half - min_u64(shard->crossing[to].promised_bytes, half)};
}

/*
 * As many as may fill what is free, and no more: those that found no room would queue up behind the
 * others again, and the first ones would be the same each time.
 */
bool crossing_may_resume(struct shard *shard, uint32_t to)
{
    struct crossing_peer *peer = &shard->crossing[to];
    size_t quarter = lane_half(shard) / 2;
    if (peer->resumed_turn != shard->counters.turns) peer->resumed_bytes = 0;
    peer->resumed_turn = shard->counters.turns;
    if (peer->promised_bytes + peer->resumed_bytes > quarter) return false;
    if (lane_used(shard, to, 0) + peer->resumed_bytes > quarter) return false;
    peer->resumed_bytes += RESUMED_BYTES;
    return true;
}

/* `block` holds the frame where it is too large for a mail; it goes with the mail. */
static bool try_push_request(struct caller *caller, const struct request *request, uint32_t to,
                             uint16_t promise, uint8_t *block)
{
    struct shard *shard = caller->shard;
    bool is_block = block != NULL;
    size_t body = is_block ? sizeof(struct mail_block) : request->frame_bytes;
    struct mail *mail = mailbox_try_push(shard->mailbox, to, sizeof(struct mail_request) + body,
                                         is_block ? MAIL_REQUEST_BLOCK : MAIL_REQUEST);
    if (UNLIKELY(mail == NULL)) return false;
    struct mail_request *head = (struct mail_request *)mail;
    head->mail.small = promise;
    head->caller = caller->index;
    head->generation = caller->generation;
    head->claim = session_claim_at(&caller->claim,
                                   max_u64(request->store.seq_whole, caller->seq_highest + 1));
    head->seq = request->store.seq_whole;
    head->deadline_ns = request->deadline_ns;
    if (UNLIKELY(is_block))
        *(struct mail_block *)(head + 1) = (struct mail_block){block, request->frame_bytes};
    else
        memcpy(head + 1, request->frame, request->frame_bytes);
    return true;
}

/* The frame of a large request on the heap; NULL: no memory. */
static COLD uint8_t *block_of(const struct request *request)
{
    uint8_t *block = memory_take(request->frame_bytes);
    if (block != NULL) memcpy(block, request->frame, request->frame_bytes);
    return block;
}

/* Waiting would not help: nobody says when there is memory again. */
static COLD void fail_for_memory(struct caller *caller, struct request *request)
{
    struct request_context context = {.shard = caller->shard, .caller = caller, .request = request};
    request_fail(&context, ERROR_NO_MEMORY, "no memory to hand %llu bytes to another shard",
                 request->frame_bytes, 0);
}

bool crossing_try_send(struct caller *caller, struct request *request)
{
    struct shard *shard = caller->shard;
    uint16_t promise = promise_of(request);
    uint32_t to = shard->slot_owner[request->store.slot];
    bool is_block = request->frame_bytes > CROSSING_INLINE_BYTES_MAX;
    size_t bytes =
        sizeof(struct mail_request) + min_u64(request->frame_bytes, CROSSING_INLINE_BYTES_MAX);
    size_t reply_bytes = promise_mail_bytes(promise);
    uint8_t *block = NULL;
    if (!caller_has_room(caller, shard->outbox_bytes)) return false;
    if (!lane_allows(shard, to, bytes, reply_bytes)) {
        caller->waits_for = to;
        return false;
    }
    if (UNLIKELY(is_block) && (block = block_of(request)) == NULL) {
        fail_for_memory(caller, request);
        return true;
    }
    if (UNLIKELY(!try_push_request(caller, request, to, promise, block))) {
        memory_put(block);
        caller->waits_for = to;
        return false;
    }
    shard->crossing[to].promised_bytes += reply_bytes;
    caller->reserved_bytes += (uint64_t)promise * PROMISE_UNIT;
    if (promise > 0) shard->handed_over++;
    count(&shard->counters.crossed_out, 1);
    return true;
}

bool crossing_try_ask(struct shard *shard, uint32_t to, uint32_t ask, uint8_t type,
                      const uint8_t *frame, size_t bytes)
{
    uint16_t promise = crossing_promise(type, WANT_REPLY);
    bool is_block = bytes > CROSSING_INLINE_BYTES_MAX;
    size_t mail_bytes =
        sizeof(struct mail_request) + (is_block ? sizeof(struct mail_block) : bytes);
    if (!lane_allows(shard, to, mail_bytes, promise_mail_bytes(promise))) return false;
    struct mail_block block = {is_block ? memory_take(bytes) : NULL, bytes};
    if (is_block && block.data == NULL) return false;
    struct mail *mail = mailbox_try_push(shard->mailbox, to, mail_bytes,
                                         is_block ? MAIL_REQUEST_BLOCK : MAIL_REQUEST);
    if (mail == NULL) {
        memory_put(block.data);
        return false;
    }
    struct mail_request *head = (struct mail_request *)mail;
    head->mail.small = promise;
    head->caller = CROSSING_ASKS;
    head->generation = ask;
    head->claim = (struct session_claim){0};
    head->seq = 0;
    head->deadline_ns = 0;
    memcpy(is_block ? block.data : (uint8_t *)(head + 1), frame, bytes);
    if (is_block) *(struct mail_block *)(head + 1) = block;
    shard->crossing[to].promised_bytes += promise_mail_bytes(promise);
    shard->handed_over++;
    count(&shard->counters.crossed_out, 1);
    return true;
}

bool crossing_is_quiet(const struct shard *shard)
{
    return shard->handed_over == 0;
}

/* ------------------------------------------------------------------- the owner's side */

uint8_t *crossing_reply_room(struct request_context *context, size_t bytes)
{
    struct mail_reply *reply = (struct mail_reply *)context->mail;
    struct lane *lane = mailbox_out(context->shard->mailbox, context->from);
    size_t room = context->mail->bytes - sizeof *reply;
    if (LIKELY(bytes <= room)) {
        lane_shrink(lane, context->mail, sizeof *reply + bytes);
        return (uint8_t *)(reply + 1);
    }
    struct mail_block block = {memory_take(bytes), bytes};
    if (block.data == NULL) return NULL;
    reply->mail.kind = MAIL_REPLY_BLOCK;
    lane_shrink(lane, context->mail, sizeof *reply + sizeof block);
    *(struct mail_block *)(reply + 1) = block;
    return block.data;
}

void crossing_defer(struct request_context *context, const struct mail_deferred *news)
{
    struct mail_deferred *deferred = (struct mail_deferred *)context->mail;
    struct mail mail = context->mail != NULL ? *context->mail : (struct mail){0};
    ASSERT(mail.bytes >= sizeof *news);
    *deferred = *news;
    deferred->mail = mail; /* `small` is the promise, which goes back */
    deferred->mail.kind = MAIL_DEFERRED;
    lane_shrink(mailbox_out(context->shard->mailbox, context->from), &deferred->mail,
                sizeof *deferred);
    context->mail = NULL;
}

struct mail *crossing_try_push_late(struct shard *shard, uint32_t to, size_t bytes, uint16_t kind)
{
    if (to < FROM_PORTS && !lane_allows(shard, to, bytes, 0)) return NULL;
    return mailbox_try_push_to(shard->mailbox, to, bytes, kind);
}

bool crossing_has_room_late(struct shard *shard, uint32_t to)
{
    return to >= FROM_PORTS || lane_allows(shard, to, CROSSING_INLINE_BYTES_MAX, 0);
}

/* A request as it lies in its lane. */
struct incoming {
    struct request request;
    const struct session_claim *claim; /* where it lies in the lane */
    uint8_t *block;                    /* to be freed */
};

/* It was checked by the shard that sent it. */
static void incoming_decode(struct incoming *incoming, struct shard *shard,
                            const struct mail_request *head, const uint8_t *frame,
                            size_t frame_bytes)
{
    struct refusal refusal;
    struct request *request = &incoming->request;
    enum decoded decoded = request_decode(request, shard, frame, frame_bytes, &refusal);
    ASSERT(decoded == DECODED_REQUEST);
    request->store.seq_whole = head->seq;
    request->store.session = head->claim.id;
    request->deadline_ns = head->deadline_ns;
    request->caller = head->caller;
    request->generation = head->generation;
    request->promise = head->mail.small;
    request->is_direct = head->caller == CROSSING_ASKS;
    incoming->claim = &head->claim;
    incoming->block = NULL;
    if (request->is_keyed) store_prefetch(&request->cache->store, &request->store);
}

static void incoming_open(struct incoming *incoming, struct shard *shard, const struct mail *mail)
{
    const struct mail_request *head = (const struct mail_request *)mail;
    const struct mail_block *block = (const struct mail_block *)(head + 1);
    if (LIKELY(mail->kind == MAIL_REQUEST)) {
        incoming_decode(incoming, shard, head, (const uint8_t *)(head + 1),
                        mail->bytes - sizeof *head);
        return;
    }
    incoming_decode(incoming, shard, head, block->data, block->bytes);
    incoming->block = block->data;
}

struct session *crossing_session(struct shard *shard, const struct session_claim *claim)
{
    return claim->id == 0 ? NULL : sessions_use(&shard->sessions, claim);
}

/* There is no memory for its session. What was sent before may have been done before. */
static COLD void fail_forgotten(struct request_context *context, const struct session_claim *claim)
{
    bool is_new = context->request->store.seq_whole >= claim->seq_unsent;
    enum outcome outcome = is_new ? OUTCOME_FAIL : OUTCOME_UNKNOWN;
    request_reply_text(context, reply_code(outcome, ERROR_NO_MEMORY),
                       "no memory to remember the session", 0, 0);
}

static void apply_with_reply(struct incoming *incoming, struct shard *shard, uint32_t from,
                             struct mail *reply_mail)
{
    struct request *request = &incoming->request;
    struct request_context context = {
        .shard = shard, .request = request, .mail = reply_mail, .from = from};
    request->session = crossing_session(shard, incoming->claim);
    if (reply_mail != NULL) {
        struct mail_reply *reply = (struct mail_reply *)reply_mail;
        reply_mail->small = request->promise;
        reply->caller = request->caller;
        reply->generation = request->generation;
    }
    if (UNLIKELY(request->session == NULL && request->store.session != 0))
        fail_forgotten(&context, incoming->claim);
    else if (UNLIKELY(request_is_late(shard, request)))
        request_fail_late(&context);
    else
        request_apply(&context);
    memory_put(incoming->block);
}

static void incoming_apply(struct incoming *incoming, struct shard *shard, uint32_t from)
{
    size_t bytes = promise_mail_bytes(incoming->request.promise);
    struct mail *reply = NULL;
    if (bytes > 0) {
        reply = mailbox_try_push_to(shard->mailbox, from, bytes, MAIL_REPLY);
        ASSERT(reply != NULL); /* promised by lane_allows, or by the port */
    }
    apply_with_reply(incoming, shard, from, reply);
}

static void incoming_probe(struct incoming *incoming)
{
    struct request *request = &incoming->request;
    if (request->is_keyed) store_probe(&request->cache->store, &request->store);
}

void crossing_apply(struct shard *shard, uint32_t from, const struct mail_request *head,
                    const uint8_t *frame, size_t frame_bytes)
{
    struct incoming incoming;
    incoming_decode(&incoming, shard, head, frame, frame_bytes);
    incoming_probe(&incoming);
    incoming_apply(&incoming, shard, from);
    shard->work++;
    count(&shard->counters.crossed_in, 1);
}

/* Takes a run of requests from one lane. */
static void drain_requests(struct shard *shard, uint32_t from)
{
    struct incoming incoming[RUN_MAX];
    struct lane *lane = mailbox_in(shard->mailbox, from);
    unsigned taken = 0;
    const struct mail *mail;
    while (taken < RUN_MAX && (mail = lane_peek(lane)) != NULL &&
           (mail->kind == MAIL_REQUEST || mail->kind == MAIL_REQUEST_BLOCK)) {
        incoming_open(&incoming[taken++], shard, mail);
        lane_pop(lane);
    }
    for (unsigned i = 0; i < taken; i++) incoming_probe(&incoming[i]);
    for (unsigned i = 0; i < taken; i++) incoming_apply(&incoming[i], shard, from);
    shard->work += taken;
    count(&shard->counters.crossed_in, taken);
}

/* ------------------------------------------------------------------ the caller's side */

/* The replies at `data`: one, or several short ones. */
static void deliver(struct caller *caller, const uint8_t *data, size_t bytes)
{
    struct frame_reply first;
    memcpy(&first, data, sizeof first);
    if (UNLIKELY(first.length > caller->frame_bytes_max)) {
        request_reply_too_long(caller, first.seq, first.length);
        return;
    }
    uint8_t *to = link_reserve(&caller->link, bytes);
    if (LIKELY(to != NULL)) {
        memcpy(to, data, bytes);
        link_commit(&caller->link, bytes);
    } else {
        const struct refusal refusal = {ERROR_NO_MEMORY, bytes, 0, "no memory for a reply"};
        caller_refuse(caller, &refusal);
    }
}

void crossing_deliver(struct shard *shard, const struct mail_reply *reply, const uint8_t *data,
                      size_t bytes, size_t reserved_bytes)
{
    struct caller *caller = caller_of(shard, reply->caller, reply->generation);
    if (UNLIKELY(caller == NULL || !caller_is_open(caller))) return;
    if (!(PLANTED("reply_dropped") && caller->waiting)) deliver(caller, data, bytes);
    caller->reserved_bytes -= reserved_bytes;
    caller_mark_dirty(caller);
}

static void take_reply(struct shard *shard, uint32_t from, const struct mail *mail)
{
    const struct mail_reply *reply = (const struct mail_reply *)mail;
    const uint8_t *data = (const uint8_t *)(reply + 1);
    size_t bytes = mail->bytes - sizeof *reply;
    uint8_t *block = NULL;
    if (UNLIKELY(mail->kind == MAIL_REPLY_BLOCK)) {
        const struct mail_block *given = (const struct mail_block *)(reply + 1);
        block = given->data;
        data = given->data;
        bytes = given->bytes;
    }
    shard->handed_over--;
    shard->work++;
    if (!(PLANTED("promise_kept") && block != NULL))
        shard->crossing[from].promised_bytes -= promise_mail_bytes(mail->small);
    if (UNLIKELY(reply->caller == CROSSING_ASKS))
        asks_answer(shard, reply->generation, data, bytes);
    else
        crossing_deliver(shard, reply, data, bytes, (size_t)mail->small * PROMISE_UNIT);
    memory_put(block);
}

/* No reply yet: what was promised to it is free again. */
static void take_deferred(struct shard *shard, uint32_t from, const struct mail *mail)
{
    const struct mail_deferred *deferred = (const struct mail_deferred *)mail;
    struct caller *caller = caller_of(shard, deferred->caller, deferred->generation);
    shard->handed_over--;
    shard->work++;
    shard->crossing[from].promised_bytes -= promise_mail_bytes(mail->small);
    if (caller != NULL && caller_is_open(caller))
        caller->reserved_bytes -= (uint64_t)mail->small * PROMISE_UNIT;
    waiter_open(shard, from, deferred);
}

static void take_late(struct shard *shard, uint32_t from, const struct mail *mail)
{
    const struct mail_late *late = (const struct mail_late *)mail;
    const struct mail_block *block = (const struct mail_block *)(late + 1);
    bool is_block = mail->kind == MAIL_LATE_BLOCK;
    shard->work++;
    waiter_deliver(shard, from, late->name, is_block ? block->data : (const uint8_t *)(late + 1),
                   is_block ? block->bytes : mail->bytes - sizeof *late,
                   (mail->small & LATE_LAST) != 0);
    if (is_block) memory_put(block->data);
}

static void take_word(struct shard *shard, const struct mail *mail)
{
    const struct mail_word *told = (const struct mail_word *)mail;
    shard->work++;
    deferred_told(shard, told->name, &told->word);
}

void mail_answer_write(struct mail *mail, struct deferred_name name,
                       const struct deferred_answer *answer, uint8_t *block)
{
    struct mail_answer *to = (struct mail_answer *)mail;
    to->mail.small = block != NULL;
    to->name = name;
    to->bytes = answer->bytes;
    to->offset = answer->offset;
    to->code = answer->code;
    to->type = (uint8_t)answer->type;
    to->is_part = answer->is_part;
    if (block != NULL)
        *(struct mail_block *)(to + 1) = (struct mail_block){block, answer->bytes};
    else if (answer->bytes > 0)
        memcpy(to + 1, answer->value, answer->bytes);
}

static void take_answer(struct shard *shard, const struct mail *mail)
{
    const struct mail_answer *from = (const struct mail_answer *)mail;
    const struct mail_block *block = (const struct mail_block *)(from + 1);
    bool is_part = from->is_part != 0;
    const struct deferred_answer answer = {
        .code = from->code,
        .is_part = is_part,
        .given_bytes = is_part ? mail_answer_given_bytes(from->bytes) : 0,
        .type = (enum value_type)from->type,
        .value = mail->small != 0 ? (const void *)block->data : (const void *)(from + 1),
        .bytes = from->bytes,
        .offset = from->offset};
    shard->work++;
    /* It may have ended meanwhile. Without memory for it the caller's own time runs out. */
    if (deferred_reply(shard, from->name, &answer) == -ENOMEM)
        deferred_fail(shard, from->name, reply_code(OUTCOME_UNKNOWN, ERROR_NO_MEMORY),
                      "no memory for a reply");
    if (mail->small != 0) memory_put(block->data);
}

static size_t adopt_mail_bytes(size_t size)
{
    ASSERT(size <= CROSSING_INLINE_BYTES_MAX);
    return sizeof(struct mail_adopt) + round_up_8(size);
}

/* Connections share the half of the lane that requests have: the other one is promised. */
bool crossing_may_adopt(struct shard *shard, uint32_t to, size_t size)
{
    return lane_allows(shard, to, adopt_mail_bytes(size), 0);
}

void crossing_adopt(struct shard *shard, uint32_t to, int fd, const uint8_t *data, size_t size)
{
    struct mail *mail = mailbox_try_push(shard->mailbox, to, adopt_mail_bytes(size), MAIL_ADOPT);
    ASSERT(mail != NULL); /* crossing_may_adopt said so */
    struct mail_adopt *adopt = (struct mail_adopt *)mail;
    adopt->fd = fd;
    adopt->bytes = (uint32_t)size;
    memcpy(adopt + 1, data, size);
}

void crossing_take(struct shard *shard, uint32_t from)
{
    struct lane *lane = mailbox_in(shard->mailbox, from);
    const struct mail *mail;
    while ((mail = lane_peek(lane)) != NULL) {
        switch ((enum mail_kind)mail->kind) {
        case MAIL_REQUEST:
        case MAIL_REQUEST_BLOCK: drain_requests(shard, from); continue;
        case MAIL_REPLY:
        case MAIL_REPLY_BLOCK: take_reply(shard, from, mail); break;
        case MAIL_BUNDLE: bundle_apply(shard, from, mail); break;
        case MAIL_BUNDLE_REPLIES: bundle_take_replies(shard, from, mail); break;
        case MAIL_DEFERRED: take_deferred(shard, from, mail); break;
        case MAIL_LATE:
        case MAIL_LATE_BLOCK: take_late(shard, from, mail); break;
        case MAIL_WORD: take_word(shard, mail); break;
        case MAIL_ANSWER: take_answer(shard, mail); break;
        case MAIL_FEED_OPEN: feed_open(shard, from, (const struct mail_feed_open *)mail); break;
        case MAIL_FEED_WORD:
            feed_take_word(shard, from, (const struct mail_feed_word *)mail);
            break;
        case MAIL_FEED_BATCH: ASSERT(false); break;
        case MAIL_ADOPT: {
            const struct mail_adopt *adopt = (const struct mail_adopt *)mail;
            caller_adopt(shard, adopt->fd, (const uint8_t *)(adopt + 1), adopt->bytes);
            break;
        }
        }
        lane_pop(lane);
    }
    lane_release(lane);
}

void crossing_drain(struct shard *shard)
{
    for (uint32_t from = 0; from < shard->options->shards_count; from++)
        if (from != shard->index) crossing_take(shard, from);
    uint32_t ports = mailbox_ports_count(shard->mailbox);
    for (uint32_t i = 0; i < ports; i++) crossing_take(shard, FROM_PORTS + i);
}

static void mail_discard(const struct mail *mail)
{
    const struct mail_block *block = NULL;
    if (mail->kind == MAIL_REQUEST_BLOCK)
        block = (const struct mail_block *)((const struct mail_request *)mail + 1);
    if (mail->kind == MAIL_REPLY_BLOCK)
        block = (const struct mail_block *)((const struct mail_reply *)mail + 1);
    if (mail->kind == MAIL_LATE_BLOCK)
        block = (const struct mail_block *)((const struct mail_late *)mail + 1);
    if (mail->kind == MAIL_ANSWER && mail->small != 0)
        block = (const struct mail_block *)((const struct mail_answer *)mail + 1);
    if (block != NULL) memory_put(block->data);
    if (mail->kind == MAIL_ADOPT) close(((const struct mail_adopt *)mail)->fd);
}

void lane_discard(struct lane *lane)
{
    if (lane->memory == NULL) return;
    for (const struct mail *mail; (mail = lane_peek(lane)) != NULL; lane_pop(lane))
        mail_discard(mail);
}

void crossing_discard(struct shard *shard)
{
    for (uint32_t from = 0; from < shard->options->shards_count; from++)
        if (from != shard->index) lane_discard(shard->mailbox->in[from]);
}
