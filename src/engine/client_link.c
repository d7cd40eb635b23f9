/*
 * A link's life.
 *
 *   DOWN -> CONNECTING -> GREETING -> OPENING -> UP -> CLOSING -> DOWN
 *
 * Here it is dialled, given up, lost, and sent from; client_greeting.c brings it from GREETING to UP,
 * client_resend.c says what goes out again then, client_answer.c takes what the node says.
 *
 * As long as any link has its welcome the node is `home`, and lost links are dialled there. When the last
 * one is gone, link 0 goes round the seeds until a node welcomes it, and the others follow.
 */
#include "engine/client_link.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/memory.h"
#include "engine/stream.h"

/* A number this far from the last one on its link would be read wrongly by the node. */
#define SEQ_DISTANCE_MAX ((uint64_t)1 << 30)
/* A node that ends just when it is greeted does so once. */
#define DEAF_ROUNDS_MAX 2

struct client_link *client_link_make(struct client *client, uint32_t index)
{
    struct client_link *link = memory_take(sizeof *link);
    if (link == NULL) return NULL;
    link->client = client;
    link->index = index;
    link->run_cache = RUN_NO_CACHE;
    link->link.conn = IO_NONE;
    link->dial.retry_ns = TIME_NEVER;
    backlog_init(&link->backlog, &client->pool);
    runs_init(&link->runs);
    return link;
}

void client_link_free(struct client_link *link)
{
    if (link == NULL) return;
    link_deinit(&link->link);
    backlog_deinit(&link->backlog);
    runs_deinit(&link->runs);
    memory_put(link);
}

/* ---------------------------------------------------------------------------------- limits */

/* No requests until client_link_credit. */
static void credit_none(struct client_link *link)
{
    link->stop = link->backlog.at;
}

static uint64_t left_of(uint64_t limit, uint64_t used)
{
    return limit - min_u64(limit, used);
}

size_t client_link_credit(struct client_link *link)
{
    const struct client *client = link->client;
    const struct backlog *backlog = &link->backlog;
    credit_none(link);
    if (link->state != CLIENT_LINK_UP || BUGGIFY("no_credit")) return 0;
    uint64_t in_flight = backlog_written_bytes(backlog) - link->consumed_bytes;
    uint64_t unsent = backlog_unsent_bytes(backlog);
    /* What is kept may exceed both limits while an early request waits, but not without end. */
    uint64_t held_max = 2 * client->window_bytes + client->outbox_bytes_max + 4 * CHUNK_BYTES;
    if (backlog->held_bytes >= held_max) return 0;
    uint64_t window = left_of(client->window_bytes, in_flight);
    uint64_t outbox = left_of(client->outbox_bytes_max, unsent);
    uint64_t credit = min_u64(min_u64(window, outbox), backlog_room(backlog));
    if (backlog->at != NULL) link->stop = backlog->at + credit;
    /* One request may be larger than a limit, if it is alone. */
    if (in_flight == 0) window = UINT64_MAX;
    if (unsent == 0) outbox = UINT64_MAX;
    return (size_t)min_u64(window, outbox);
}

/* ---------------------------------------------------------------------------------- dialling */

static void remember_reason(struct client *client, const char *text)
{
    snprintf(client->reason, sizeof client->reason, "%s", text);
}

/* The system's words, as they stand inside a sentence. */
static void reason_of_errno(char *text, size_t bytes, int err)
{
    snprintf(text, bytes, "%s", strerror(err));
    text[0] = (char)tolower((unsigned char)text[0]);
}

static bool is_seeker(const struct client_link *link)
{
    const struct client *client = link->client;
    if (client->has_home) return false;
    return client->links_count == 0 ? link == client->seeker : link->index == 0;
}

static void retry_later(struct client_link *link, bool round_ends)
{
    struct client *client = link->client;
    if (!is_seeker(link) && !client->has_home) {
        link->dial.retry_ns = TIME_NEVER; /* until the seeker finds a home */
    } else if (is_seeker(link) && !round_ends) {
        link->dial.retry_ns = client->now_ns;
    } else {
        dial_failed(&link->dial, client->now_ns, &client->rng);
        if (is_seeker(link)) client->seek_rounds++;
    }
}

static void dial(struct client_link *link)
{
    struct client *client = link->client;
    bool round_ends = true;
    ASSERT(link->state == CLIENT_LINK_DOWN);
    link->address = client->has_home ? client->home : *seeds_take(&client->seeds, &round_ends);
    int64_t conn = io_connect(client->seams.io, &link->address, link);
    if (conn < 0) {
        char reason[128];
        reason_of_errno(reason, sizeof reason, (int)-conn);
        remember_reason(client, reason);
        retry_later(link, round_ends);
        return;
    }
    link_init(&link->link, client->seams.io, (uint32_t)conn, FRAME_BYTES_MAX);
    link->state = CLIENT_LINK_CONNECTING;
    link->deadline_ns = client->now_ns + DIAL_GREETING_NS;
    link->dial.retry_ns = TIME_NEVER;
}

void client_link_close(struct client_link *link)
{
    if (link->state == CLIENT_LINK_CLOSING || link->state == CLIENT_LINK_DOWN) return;
    if (link->state == CLIENT_LINK_UP) {
        link->client->links_up--;
        link->client->finished++;
    }
    link->state = CLIENT_LINK_CLOSING;
    credit_none(link);
    io_close(link->link.io, link->link.conn);
}

void client_link_fail(struct client_link *link, const char *format, ...)
{
    struct client *client = link->client;
    char address[ADDRESS_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(client->reason, sizeof client->reason, format, arguments);
    va_end(arguments);
    trace_line(&client->trace, TRACE_WARN, "client: closing the link to shard %u of %s: %s",
               link->index, address_format(&link->address, address), client->reason);
    client_link_close(link);
}

int client_link_broke(struct client_link *link, const char *text, uint64_t got, uint64_t limit)
{
    link->client->refusal = FERO_E_PROTO;
    client_link_fail(link, "the peer does not speak fero's protocol: %s (got %llu, expected %llu)",
                     text, (unsigned long long)got, (unsigned long long)limit);
    return -EPROTO;
}

/* Forgets what was true of this connection only. */
static void reset(struct client_link *link)
{
    struct client *client = link->client;
    link_deinit(&link->link);
    link->state = CLIENT_LINK_DOWN;
    link->sending = SENDING_NOTHING;
    link->opens_pending = 0;
    link->late_replies = 0;
    credit_none(link);
    if (!link->has_shard) return;
    for (uint32_t i = 0; i < CLIENT_CACHES_MAX; i++) {
        struct client_cache *cache = client->caches[i];
        if (cache == &client->nobody || cache->numbers[link->index] == CLIENT_CACHE_UNKNOWN)
            continue;
        cache->numbers[link->index] = CLIENT_CACHE_UNKNOWN;
        cache->links_open--;
    }
}

/* Nodes do so to who shows no token, or a wrong one; but one that ends just then does, too. */
static void deaf(struct client_link *link)
{
    struct client *client = link->client;
    char address[ADDRESS_TEXT_BYTES];
    snprintf(client->reason, sizeof client->reason,
             "%s closed the connection without a word: does it want %s? See --token-file",
             address_format(&link->address, address),
             client->token != NULL ? "another token" : "a token");
    if (++client->deaf_rounds >= DEAF_ROUNDS_MAX) client->refusal = FERO_E_DENIED;
}

/* Whether any link has a welcome of the node that is home. */
static bool is_at_home(const struct client *client)
{
    for (uint32_t i = 0; i < client->links_count; i++) {
        uint8_t state = client->links[i]->state;
        if (state == CLIENT_LINK_OPENING || state == CLIENT_LINK_UP) return true;
    }
    return false;
}

/* A client_match_fn: parts that came cannot be taken back, and those to come are lost. */
static bool is_begun(const struct client *client, const struct flight *flight, const void *context)
{
    const struct client_link *link = context;
    (void)client;
    return flight_link(flight) == link->index && (flight->flags & FLIGHT_BEGUN) != 0;
}

/* IO_CLOSED came: whoever closed it, the connection is gone. */
static void lost(struct client_link *link, int result)
{
    struct client *client = link->client;
    bool by_us = link->state == CLIENT_LINK_CLOSING;
    bool was_up = link->state == CLIENT_LINK_UP;
    bool was_greeting = link->state == CLIENT_LINK_GREETING;
    char reason[128];
    if (link->is_leaving) {
        streams_link_lost(link);
        client_link_free(link);
        return;
    }
    if (was_up) {
        client->links_up--;
        client->finished++;
    }
    if (was_greeting && is_seeker(link)) {
        deaf(link);
    } else if (!by_us) {
        if (result < 0)
            reason_of_errno(reason, sizeof reason, -result);
        else
            snprintf(reason, sizeof reason, "the peer closed the connection");
        remember_reason(client, reason);
    }
    client_end_matching(client, is_begun, link, FERO_E_NOTCONN);
    if (was_up) link->carried_end = client->window.next;
    bool was_useful = link->up_since_ns != 0;
    if (was_useful && client->now_ns - link->up_since_ns >= DIAL_STABLE_NS) link->dial.failures = 0;
    link->up_since_ns = 0;
    reset(link);
    streams_link_lost(link);
    bool is_away = PLANTED("home_left_early") ? client->links_up == 0 : !is_at_home(client);
    if (client->has_home && is_away) {
        client->has_home = false;
        client->seek_rounds = 0;
        struct client_link *seeker = client->links[0];
        if (seeker->state == CLIENT_LINK_DOWN && seeker->dial.retry_ns == TIME_NEVER)
            retry_later(seeker, true);
    }
    /* Another seed at once, but never the same one, and never after a link that was up. */
    retry_later(link, was_useful || client->seeds.next == 0);
    if (was_up)
        trace_line(&client->trace, TRACE_WARN, "client: lost shard %u of %s (%s)", link->index,
                   client->home_text, client->reason);
}

/* -------------------------------------------------------------------------------- receiving */

static void received(struct client_link *link, const struct io_event *event)
{
    if (link->state < CLIENT_LINK_GREETING || link->state > CLIENT_LINK_UP) return;
    link->client->has_progress = true;
    int err = link_receive(&link->link, event->data, event->size, client_link_consume, link);
    /* Who fails inside has said why already. */
    if (err < 0 && link->state != CLIENT_LINK_CLOSING)
        client_link_fail(link, "a broken frame, or one over %u bytes: %s",
                         link->link.frame_bytes_max, strerror(-err));
}

/* ----------------------------------------------------------------------------------- sending */

/* A request of no use but its number: see SEQ_DISTANCE_MAX. Nobody waits for it. */
static void keep_near(struct client_link *link)
{
    struct client *client = link->client;
    struct window *window = &client->window;
    if (LIKELY(window->next - link->seq_seen < SEQ_DISTANCE_MAX)) return;
    window_begin(window, client->now_tick);
    if (window_is_full(window) || client_link_credit(link) < FRAME_REQUEST_BYTES) return;
    if (backlog_room(&link->backlog) < FRAME_REQUEST_BYTES &&
        backlog_grow(&link->backlog, FRAME_REQUEST_BYTES, window->next, link->requests) < 0)
        return;
    if (runs_push(&link->runs, RUN_NO_CACHE, link->requests + 1) < 0) return;
    link->run_cache = CLIENT_CACHES_MAX;
    struct frame_request frame = {.length = sizeof frame,
                                  .type = FRAME_INFO,
                                  .flags = WANT_NOTHING << FRAME_WANT_SHIFT,
                                  .slot = FRAME_SLOT_ANY,
                                  .seq = (uint32_t)window->next};
    uint64_t seq = window->next;
    window_add(window, flight_tag(FLIGHT_ACK, link->index), CLIENT_CACHES_MAX, 0,
               client->now_tick + WINDOW_TICKS_MAX - 1);
    window_list_push(window, &link->acks, seq);
    memcpy(link->backlog.at, &frame, sizeof frame);
    link->backlog.at += sizeof frame;
    link->requests++;
    window_hold(window);
    client_link_credit(link);
}

bool client_link_flush(struct client_link *link)
{
    struct iovec parts[IO_SEND_PARTS_MAX];
    if (link->sending != SENDING_NOTHING) return false;
    if (link->state < CLIENT_LINK_GREETING || link->state > CLIENT_LINK_UP) return false;
    if (UNLIKELY(link_out_bytes(&link->link) > 0)) {
        link->sending = SENDING_CONTROL;
        link_flush(&link->link);
        return true;
    }
    if (link->state != CLIENT_LINK_UP) return false;
    keep_near(link);
    unsigned count = UNLIKELY(link->client->is_unbatched)
                         ? backlog_send_one(&link->backlog, parts, &link->handed_requests)
                         : backlog_send(&link->backlog, parts, IO_SEND_PARTS_MAX, link->requests,
                                        &link->handed_requests);
    if (count == 0) return false;
    link->sending = SENDING_REQUESTS;
    link->seq_seen = link->client->window.next;
    io_send(link->link.io, link->link.conn, parts, count);
    return true;
}

static void sent(struct client_link *link)
{
    uint8_t what = link->sending;
    link->sending = SENDING_NOTHING;
    if (what == SENDING_CONTROL) {
        link_sent(&link->link);
        /* It may have been a HELLO. */
        if (link->client->token != NULL) link_wipe_sent(&link->link);
    } else if (what == SENDING_REQUESTS) {
        backlog_sent(&link->backlog);
        client_link_count(link, RUN_WRITTEN, link->handed_requests);
        link->client->has_progress = true;
    }
}

/* ------------------------------------------------------------------------- events and timers */

void client_link_event(struct client_link *link, const struct io_event *event)
{
    switch ((enum io_event_type)event->type) {
    case IO_CONNECTED:
        if (link->state == CLIENT_LINK_CONNECTING) client_link_connected(link);
        break;
    case IO_RECEIVED: received(link, event); break;
    case IO_SENT: sent(link); break;
    case IO_EOF: io_close(link->link.io, link->link.conn); break; /* it will answer no more */
    case IO_CLOSED: lost(link, event->result); break;
    case IO_ACCEPTED:
    case IO_DATAGRAM:
    case IO_WOKEN: break;
    }
}

uint64_t client_link_timer_ns(const struct client_link *link)
{
    switch ((enum client_link_state)link->state) {
    case CLIENT_LINK_DOWN: return link->client->caches_count > 0 ? link->dial.retry_ns : TIME_NEVER;
    case CLIENT_LINK_CONNECTING:
    case CLIENT_LINK_GREETING:
    case CLIENT_LINK_OPENING: return link->deadline_ns;
    case CLIENT_LINK_UP:
    case CLIENT_LINK_CLOSING: break;
    }
    return TIME_NEVER;
}

void client_link_tick(struct client_link *link)
{
    struct client *client = link->client;
    if (client_link_timer_ns(link) > client->now_ns) return;
    if (link->state == CLIENT_LINK_DOWN) {
        dial(link);
        return;
    }
    client->all_refuse = false;
    client_link_fail(link, "no welcome within %llu ms",
                     (unsigned long long)(DIAL_GREETING_NS / NS_PER_MS));
}
