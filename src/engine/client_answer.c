/*
 * What a node says once a link has greeted. It is hostile input: every length, code and count is
 * checked, and what does not fit closes the link. It then counts as lost, so nothing hangs on the
 * node's good behaviour but time.
 */
#include <errno.h>
#include <string.h>

#include "engine/client_link.h"
#include "engine/result.h"
#include "engine/stream.h"

/* Requests that wait for no more than the ACK. */
static void end_acked(struct client_link *link, uint32_t seq)
{
    struct client *client = link->client;
    fero_result result = {.outcome = FERO_OUTCOME_OK};
    for (;;) {
        result.seq = window_list_pop(&client->window, &link->acks, seq);
        if (result.seq == 0) return;
        client_end(client, window_at(&client->window, result.seq), &result);
    }
}

static int64_t on_ack(struct client_link *link, const uint8_t *frame, size_t length)
{
    struct client *client = link->client;
    struct frame_ack ack;
    struct refusal refusal;
    if (link->state != CLIENT_LINK_UP)
        return client_link_broke(link, "ACK before WELCOME", FRAME_ACK, 0);
    if (ack_decode(&ack, frame, length, &refusal) < 0)
        return client_link_broke(link, refusal.text, refusal.got, refusal.limit);
    uint64_t requests =
        link->acked_requests + (uint32_t)(ack.requests - (uint32_t)link->acked_requests);
    if (requests > link->handed_requests)
        return client_link_broke(link, "ACK of requests never sent", requests,
                                 link->handed_requests);
    if (ack.consumed_bytes < link->consumed_bytes ||
        ack.consumed_bytes > backlog_handed_bytes(&link->backlog))
        return client_link_broke(link, "ACK of bytes never sent", ack.consumed_bytes,
                                 backlog_handed_bytes(&link->backlog));
    /* Whatever the list holds was handed over if its number is below that of unsent requests. */
    if (requests > link->acked_requests && (int32_t)(ack.seq - (uint32_t)client->window.next) >= 0)
        return client_link_broke(link, "ACK of a number never sent", ack.seq,
                                 (uint32_t)client->window.next);
    bool is_new = requests > link->acked_requests;
    link->acked_requests = requests;
    link->consumed_bytes = ack.consumed_bytes;
    client->has_progress = true;
    /* The kernel's word may come later than the node's. */
    client_link_count(link, RUN_WRITTEN, requests);
    client_link_count(link, RUN_RECEIVED, requests);
    if (is_new) end_acked(link, ack.seq);
    return (int64_t)round_up_8(length);
}

/* A reply to nobody: to a request that timed out, or the peer is broken. */
static COLD int reply_unmatched(struct client_link *link, uint32_t seq)
{
    if (link->late_replies > 0) {
        link->late_replies--;
        return 0;
    }
    return client_link_broke(link, "reply to no request", seq, (uint32_t)link->client->window.next);
}

/* Of a stream. Whoever did not ask for parts waits for the end. */
static void take_part(struct client *client, struct flight *flight, fero_result *result)
{
    const struct window *window = &client->window;
    if ((flight->flags & FLIGHT_STREAM) == 0) return;
    flight->flags |= FLIGHT_BEGUN;
    flight->deadline = client->now_tick + client->stream_ticks[result->seq & window->mask];
    client->finished++;
    result->flags = FERO_R_MORE;
    if (flight->done != NULL) flight->done(result, flight->ud);
}

/* Any reply but the plain one. */
static int64_t on_reply(struct client_link *link, const uint8_t *frame, size_t length)
{
    struct client *client = link->client;
    struct frame_reply header;
    struct extensions extensions = {0};
    if (length < sizeof header)
        return client_link_broke(link, "length of a reply", length, sizeof header);
    if (link->state != CLIENT_LINK_UP)
        return client_link_broke(link, "reply before OPENED", FRAME_REPLY, 0);
    memcpy(&header, frame, sizeof header);
    const uint8_t *value = frame + sizeof header;
    size_t bytes = length - sizeof header;
    if ((header.flags & FRAME_EXTENDED) != 0) {
        int64_t taken = extensions_decode(&extensions, value, bytes);
        if (taken < 0) return client_link_broke(link, "extensions of a reply", bytes, 0);
        value += taken;
        bytes -= (size_t)taken;
    }
    /* A fourth outcome is a later version's, and as good as unknown. */
    int outcome = (int)min_u64(reply_outcome(header.code), FERO_OUTCOME_UNKNOWN);
    int error = header.code & REPLY_ERROR;
    if ((outcome == FERO_OUTCOME_OK) != (error == 0))
        return client_link_broke(link, "code of a reply", header.code, 0);
    fero_result result = {.outcome = outcome, .error = -error, .offset = header.offset};
    if ((extensions.present & 1u << EXT_OFFSET) != 0) result.offset = extensions.offset;
    if (!result_value_read(&result.value, header.flags & FRAME_VALUE_TYPE, value, bytes))
        return client_link_broke(link, "value of a reply", bytes, header.flags & FRAME_VALUE_TYPE);
    struct flight *flight = window_find(&client->window, header.seq, link->index, &result.seq);
    if ((header.flags & REPLY_MORE) != 0) {
        if (flight != NULL) take_part(client, flight, &result);
        return (int64_t)round_up_8(length);
    }
    if (flight == NULL) {
        int err = reply_unmatched(link, header.seq);
        return err < 0 ? err : (int64_t)round_up_8(length);
    }
    client->caches[flight->cache]->counts.sacks++;
    client_end(client, flight, &result);
    return (int64_t)round_up_8(length);
}

/* Changes that somebody subscribed to, or what happened to them. */
static int64_t on_stream(struct client_link *link, const uint8_t *frame, size_t length)
{
    struct refusal refusal;
    if (link->state != CLIENT_LINK_UP)
        return client_link_broke(link, "a stream before OPENED", frame[4], 0);
    link->client->has_progress = true;
    int err = streams_frame(link, frame, length, &refusal);
    if (err == -EPROTO) return client_link_broke(link, refusal.text, refusal.got, refusal.limit);
    if (err == -EREMOTE) {
        client_link_fail(link,
                         "another shard speaks on it, and there is something to subscribe to");
        return err;
    }
    if (err < 0) {
        client_link_fail(link, "no memory for the credit of a stream");
        return err;
    }
    return (int64_t)round_up_8(length);
}

/* One frame that is not a plain reply. Returns its bytes, 0 where it is partial, or -errno. */
static NO_INLINE int64_t consume_other(struct client_link *link, const uint8_t *data, size_t size)
{
    struct frame_prefix prefix;
    if (size < sizeof prefix) return 0;
    memcpy(&prefix, data, sizeof prefix);
    if (prefix.length < sizeof prefix)
        return client_link_broke(link, "length of a frame", prefix.length, sizeof prefix);
    if (prefix.length > link->link.frame_bytes_max)
        return client_link_broke(link, "length of a frame", prefix.length,
                                 link->link.frame_bytes_max);
    /* What is no answer is refused before all of it has come. */
    bool is_stream = prefix.type == FRAME_CHANGES || prefix.type == FRAME_EVENT;
    bool is_answer = is_stream || (prefix.type >= FRAME_WELCOME && prefix.type <= FRAME_REPLY &&
                                   prefix.type != FRAME_OPEN);
    if (!is_answer) return client_link_broke(link, "type of a frame", prefix.type, FRAME_REPLY);
    if (round_up_8(prefix.length) > size) return 0;
    switch (prefix.type) {
    case FRAME_WELCOME: return client_link_welcome(link, data, prefix.length);
    case FRAME_OPENED: return client_link_opened(link, data, prefix.length);
    case FRAME_ACK: return on_ack(link, data, prefix.length);
    case FRAME_REFUSE: return client_link_refuse(link, data, prefix.length);
    case FRAME_CHANGES:
    case FRAME_EVENT: return on_stream(link, data, prefix.length);
    default: return on_reply(link, data, prefix.length);
    }
}

/* First 8 bytes of the reply that says no more than "done". */
#define REPLY_PLAIN ((uint64_t)FRAME_REPLY << 32 | FRAME_REPLY_BYTES)

int64_t client_link_consume(void *context, uint8_t *data, size_t size)
{
    struct client_link *link = context;
    struct client *client = link->client;
    struct window *window = &client->window;
    fero_result done = {.outcome = FERO_OUTCOME_OK};
    size_t at = 0;
    for (;;) {
        struct {
            uint64_t prefix;
            uint32_t seq;
            uint32_t offset;
        } reply;
        _Static_assert(sizeof reply == FRAME_REPLY_BYTES, "a reply as two words");
        bool is_plain = false;
        if (LIKELY(size - at >= sizeof reply)) {
            memcpy(&reply, data + at, sizeof reply);
            is_plain = reply.prefix == REPLY_PLAIN && link->state == CLIENT_LINK_UP;
        }
        if (UNLIKELY(!is_plain)) {
            int64_t taken = consume_other(link, data + at, size - at);
            if (taken < 0) return taken;
            if (taken == 0) return (int64_t)at;
            at += (size_t)taken;
            continue;
        }
        struct flight *flight = window_find(window, reply.seq, link->index, &done.seq);
        at += sizeof reply;
        if (UNLIKELY(flight == NULL)) {
            int err = reply_unmatched(link, reply.seq);
            if (err < 0) return err;
            continue;
        }
        fero_done_fn function = flight->done;
        void *ud = flight->ud;
        done.offset = reply.offset;
        client->caches[flight->cache]->counts.sacks++;
        client->finished++;
        window_end(window, flight);
        /* The place stays ours until the window advances, which nothing does before the call. */
        if (UNLIKELY(flight->op != 0)) op_finish(ops_at(client->ops, flight->op), &done);
        if (LIKELY(function != NULL)) function(&done, ud);
    }
}
