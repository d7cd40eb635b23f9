/*
 * A link's life.
 *
 *   DOWN -> CONNECTING -> GREETING -> OPENING -> UP -> CLOSING -> DOWN
 *
 * HELLO and one OPEN for each cache go out together. WELCOME of the first link tells how many
 * shards the node has; then each other one is dialled at the same address. A link is up when all
 * its OPENs are answered. Then the requests that its last connection left unanswered are sent
 * again, before any new one, with the numbers they had: the node answers those again that it knows
 * and never applies one twice.
 *
 * As long as any link has its welcome the node is `home`, and lost links are dialled there. When the last
 * one is gone, link 0 goes round the seeds until a node welcomes it, and the others follow.
 *
 * What the node sends is hostile input: every length, code and count is checked, and what does not
 * fit closes the link. It then counts as lost, so nothing hangs on the node's good behaviour but
 * time.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/memory.h"
#include "engine/client.h"
#include "engine/result.h"
#include "engine/stream.h"

/* A number this far from the last one on its link would be read wrongly by the node. */
#define SEQ_DISTANCE_MAX ((uint64_t)1 << 30)
/* Room for what does not depend on the longest value: the longest INFO is 192 KiB. */
#define REPLY_OVERHEAD_BYTES (256 * KIB)
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

static void close_link(struct client_link *link)
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

/* Gives the link up, with a line that says why. */
static PRINTF_LIKE(2, 3) void fail(struct client_link *link, const char *format, ...)
{
    struct client *client = link->client;
    char address[ADDRESS_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(client->reason, sizeof client->reason, format, arguments);
    va_end(arguments);
    trace_line(&client->trace, TRACE_WARN, "client: closing the link to shard %u of %s: %s",
               link->index, address_format(&link->address, address), client->reason);
    close_link(link);
}

/* The peer broke the protocol: nobody may hope that another try helps. */
static int broke(struct client_link *link, const char *text, uint64_t got, uint64_t limit)
{
    link->client->refusal = FERO_E_PROTO;
    fail(link, "the peer does not speak fero's protocol: %s (got %llu, expected %llu)", text,
         (unsigned long long)got, (unsigned long long)limit);
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

/* -------------------------------------------------------------------------------- greeting */

/* A cache without a name is open where the link is. */
static void open_nameless(struct client_link *link, struct client_cache *cache)
{
    if (cache->name.size > 0 || cache->numbers[link->index] != CLIENT_CACHE_UNKNOWN) return;
    cache->numbers[link->index] = CLIENT_CACHE_NONE;
    cache->links_open++;
}

int client_link_open(struct client_link *link, struct client_cache *cache)
{
    if (cache->name.size == 0) {
        if (link->state == CLIENT_LINK_UP) open_nameless(link, cache);
        return 0;
    }
    uint8_t *to = link_reserve(&link->link, sizeof(struct frame_open) + FRAME_NAME_BYTES_MAX + 8);
    if (to == NULL) return -ENOMEM;
    link_commit(&link->link, open_encode(cache->open_seq, cache->name, to));
    link->opens_pending++;
    return 0;
}

/* The lowest number that was given up of those that lost connections carried; UINT64_MAX: none. */
static uint64_t lowest_given_up(const struct client_link *link)
{
    const struct window *window = &link->client->window;
    for (uint64_t seq = window->floor; seq < link->carried_end; seq++)
        if ((window_at(window, seq)->flags & FLIGHT_GIVEN_UP) != 0) return seq;
    return UINT64_MAX;
}

static int greet(struct client_link *link)
{
    struct client *client = link->client;
    const struct window *window = &client->window;
    struct frame_hello hello = {.shard = link->has_shard ? (uint16_t)link->index : HELLO_SHARD_ANY,
                                .role = ROLE_CLIENT,
                                .session = client->session,
                                .session_start = client->session_start,
                                /* What is sent again is below, in [floor, next). */
                                .seq_first = window->next,
                                .floor = window->floor,
                                .frame_bytes_max = FRAME_BYTES_MAX};
    struct bytes token = {NULL, 0};
    if (client->token != NULL) token = (struct bytes){client->token->data, client->token->bytes};
    uint8_t *to = link_reserve(&link->link, sizeof hello + token.size + 8);
    if (to == NULL) return -ENOMEM;
    link_commit(&link->link, hello_encode(&hello, token, to));
    for (uint32_t i = 0; i < CLIENT_CACHES_MAX; i++) {
        struct client_cache *cache = client->caches[i];
        if (cache != &client->nobody && client_link_open(link, cache) < 0) return -ENOMEM;
    }
    link->state = CLIENT_LINK_GREETING;
    link->given_up_low = lowest_given_up(link);
    return 0;
}

static void connected(struct client_link *link)
{
    link->client->all_refuse = false;
    window_advance(&link->client->window);
    window_hold(&link->client->window);
    if (greet(link) < 0) fail(link, "no memory for an outbox");
}

/* A client_match_fn. */
static bool is_on_link_from(const struct client *client, const struct flight *flight,
                            const void *context)
{
    (void)client;
    return flight_link(flight) >= *(const uint32_t *)context;
}

/* The node has fewer shards than the one before: what waits on those links has nowhere to go. */
static void drop_links(struct client *client, uint32_t links_count)
{
    client_end_matching(client, is_on_link_from, &links_count, FERO_E_CLOSED);
    for (uint32_t i = links_count; i < client->links_count; i++) {
        struct client_link *link = client->links[i];
        client->links[i] = NULL;
        link->is_leaving = true;
        if (link->state == CLIENT_LINK_DOWN)
            client_link_free(link);
        else
            close_link(link);
    }
    client->links_count = links_count;
}

/* Links up to this count, but `taken`, exist. */
static int make_links(struct client *client, uint32_t links_count, uint32_t taken)
{
    for (uint32_t i = client->links_count; i < links_count; i++) {
        if (i == taken || client->links[i] != NULL) continue;
        client->links[i] = client_link_make(client, i);
        if (client->links[i] == NULL) return -ENOMEM;
    }
    return 0;
}

/* The one that found the node has one of its shards now. */
static void seat(struct client *client, struct client_link *link, uint32_t index)
{
    client_link_free(client->links[index]); /* made for a node where this was another's */
    client->links[index] = link;
    client->seeker = NULL;
    link->index = index;
}

static void learn_slots(struct client *client, const uint8_t *shard_slots)
{
    for (uint32_t shard = 0; shard < client->links_count; shard++) {
        uint16_t first;
        memcpy(&first, shard_slots + shard * sizeof first, sizeof first);
        for (uint32_t slot = first; slot < SLOTS_COUNT; slot++)
            client->slot_link[slot] = (uint16_t)shard;
    }
}

/* The first welcome of a node: how many links, and which has which slots. */
static int learn_home(struct client_link *link, const struct frame_welcome *welcome,
                      const uint8_t *shard_slots)
{
    struct client *client = link->client;
    bool is_seeker = link == client->seeker;
    if (welcome->shards_count < client->links_count) drop_links(client, welcome->shards_count);
    /* Before it takes its seat: where there is no memory, the seeker has to try again. */
    if (make_links(client, welcome->shards_count, is_seeker ? welcome->shard : UINT32_MAX) < 0) {
        fail(link, "no memory for %u links", welcome->shards_count);
        return -ENOMEM;
    }
    if (is_seeker) seat(client, link, welcome->shard);
    for (; client->links_count < welcome->shards_count; client->links_count++)
        client->links[client->links_count]->has_shard = true;
    learn_slots(client, shard_slots);
    client->has_home = true;
    client->home = link->address;
    client->home_node = welcome->node;
    address_format(&client->home, client->home_text);
    client->seek_rounds = 0;
    client->refusal = 0;
    client->key_bytes_max = (uint32_t)min_u64(welcome->key_bytes_max, FRAME_KEY_BYTES_MAX);
    client->value_bytes_max = (uint32_t)min_u64(welcome->value_bytes_max, FRAME_BYTES_MAX);
    client->frame_bytes_max = welcome->frame_bytes_max;
    client->window_bytes = min_u64(client->window_bytes_max, welcome->window_bytes);
    window_set_max(&client->window,
                   (uint32_t)min_u64(welcome->window_requests, client->window_requests_max));
    window_hold(&client->window);
    for (uint32_t i = 0; i < client->links_count; i++)
        if (client->links[i]->state == CLIENT_LINK_DOWN)
            dial_now(&client->links[i]->dial, client->now_ns);
    return 0;
}

/* --------------------------------------------------------------------------- sending again */

struct resend {
    struct client_link *link;
    uint64_t frame; /* number of the frame that is looked at, on the lost connection */
    uint64_t handed;
    uint64_t written;
    uint64_t received;
    uint64_t kept;
    uint64_t kept_written; /* kept frames that were counted already, at each mark */
    uint64_t kept_received;
};

/* Adds what is newly counted at a mark to the caches it belongs to. */
static void count_up_to(struct client_link *link, enum run_mark mark, uint64_t to)
{
    for (;;) {
        struct run_part part = runs_advance(&link->runs, mark, to);
        if (part.requests == 0) return;
        if (part.cache == RUN_NO_CACHE) continue;
        fero_counts *counts = &link->client->caches[part.cache]->counts;
        if (mark == RUN_WRITTEN)
            counts->tacks += part.requests;
        else
            counts->yacks += part.requests;
    }
}

/* What is left of the caller's own timeout, where the frame says it: this is its new arrival. */
static void shorten_deadline(uint8_t *frame, const struct flight *flight, uint32_t now_tick)
{
    struct extension first; /* a lower kind is never sent */
    uint8_t *at = frame + FRAME_REQUEST_BYTES;
    memcpy(&first, at, sizeof first);
    if ((first.kind & ~EXT_LAST) != EXT_DEADLINE_MS) return;
    int32_t ticks = (int32_t)(flight->deadline - now_tick);
    uint64_t left_ns = (uint64_t)(ticks > 0 ? ticks : 0) << CLIENT_TICK_SHIFT;
    first.argument = (uint32_t)min_u64(first.argument, left_ns / NS_PER_MS);
    memcpy(at, &first, sizeof first);
}

/*
 * A change that was given up may still lie unread in a lost connection, and be done behind newer ones
 * that are sent again or asked for now. So it is sent again in its place, with no time left: then it
 * is done there, or never. Numbers below the floor of HELLO need no such care.
 */
static bool is_dangling(const struct client_link *link, const struct flight *flight,
                        const struct frame_request *header)
{
    const uint16_t both = FLIGHT_GIVEN_UP | FLIGHT_CARRIED;
    const struct client_cache *cache = link->client->caches[flight->cache];
    bool is_change =
        header->type >= FRAME_UPDATE && header->type <= FRAME_INSERT && header->type != FRAME_GET;
    return flight->tag == 0 && (flight->flags & both) == both && is_change &&
           cache->numbers[link->index] != CLIENT_CACHE_UNKNOWN;
}

/* A backlog_keep_fn: requests that still wait are sent again, and those of is_dangling. */
static bool keep_waiting(void *context, uint8_t *frame)
{
    struct resend *resend = context;
    struct client_link *link = resend->link;
    struct client *client = link->client;
    const struct window *window = &client->window;
    struct frame_request header;
    memcpy(&header, frame, sizeof header);
    resend->frame++;
    uint64_t seq = window->floor + (uint32_t)(header.seq - (uint32_t)window->floor);
    if (seq >= window->next) return false;
    struct flight *flight = window_at(window, seq);
    if (resend->frame <= resend->handed) flight->flags |= FLIGHT_CARRIED;
    if (flight->tag == 0 ? !is_dangling(link, flight, &header) : flight_link(flight) != link->index)
        return false;
    if (UNLIKELY(header.length > client->frame_bytes_max)) {
        flight->flags |= FLIGHT_TOO_LONG;
        return false;
    }
    struct client_cache *cache = client->caches[flight->cache];
    if (PLANTED("resent_as_another")) header.seq++;
    if (cache != &client->nobody && header.type != FRAME_INFO) {
        header.cache = cache->numbers[link->index];
        memcpy(frame, &header, sizeof header);
    }
    if ((header.flags & FRAME_EXTENDED) != 0) shorten_deadline(frame, flight, client->now_tick);
    bool wants_reply = (header.flags & FRAME_WANT) == WANT_REPLY << FRAME_WANT_SHIFT;
    if (flight->tag == 0 && wants_reply) link->late_replies++;
    cache->counts.resent++;
    resend->kept++;
    if (resend->frame <= resend->written)
        resend->kept_written++;
    else
        cache->counts.tacks--;
    if (resend->frame <= resend->received)
        resend->kept_received++;
    else
        cache->counts.yacks--;
    return true;
}

/* A client_match_fn: the node would end the link over it, again and again. */
static bool is_too_long(const struct client *client, const struct flight *flight,
                        const void *context)
{
    const struct client_link *link = context;
    (void)client;
    return flight_link(flight) == link->index && (flight->flags & FLIGHT_TOO_LONG) != 0;
}

struct noting {
    struct client_link *link;
    uint64_t number;
    int err;
};

/* A backlog_visit_fn: the caches of what is sent again, in order. */
static void note_run(void *context, const uint8_t *frame)
{
    struct noting *noting = context;
    struct client_link *link = noting->link;
    const struct window *window = &link->client->window;
    struct frame_request header;
    memcpy(&header, frame, sizeof header);
    const struct flight *flight = window_at(window, header.seq);
    noting->number++;
    if (flight->cache == link->run_cache || noting->err < 0) return;
    link->run_cache = flight->cache;
    uint32_t cache = flight->cache == CLIENT_CACHES_MAX ? RUN_NO_CACHE : flight->cache;
    noting->err = runs_push(&link->runs, cache, noting->number);
}

/*
 * Makes the backlog begin anew. What the old connection left uncounted is counted as if all of it
 * had arrived, except what is sent again, which is counted when it really does.
 */
static int resend(struct client_link *link)
{
    struct client *client = link->client;
    struct resend resend = {.link = link,
                            .frame = link->requests - backlog_frames_count(&link->backlog),
                            .handed = link->handed_requests,
                            .written = link->runs.cursors[RUN_WRITTEN].at,
                            .received = link->runs.cursors[RUN_RECEIVED].at};
    uint64_t bytes;
    count_up_to(link, RUN_WRITTEN, link->requests);
    count_up_to(link, RUN_RECEIVED, link->requests);
    link->requests =
        backlog_rewind(&link->backlog, keep_waiting, &resend, client->window.next, &bytes);
    ASSERT(link->requests == resend.kept);
    client_end_matching(client, is_too_long, link, FERO_E_TOOBIG);
    link->handed_requests = 0;
    link->acked_requests = 0;
    link->consumed_bytes = 0;
    runs_restart(&link->runs, resend.kept_written, resend.kept_received);
    if (link->requests > 0)
        trace_line(&client->trace, TRACE_INFO,
                   "client: sending %llu requests (%llu bytes) again to shard %u",
                   (unsigned long long)link->requests, (unsigned long long)bytes, link->index);
    struct noting noting = {.link = link};
    link->run_cache = RUN_NO_CACHE;
    backlog_visit(&link->backlog, note_run, &noting);
    return noting.err;
}

/*
 * A client_match_fn: requests on the link that the node cannot take any more, because it does not
 * have the cache, or numbers the verbs differently.
 */
static bool is_homeless(const struct client *client, const struct flight *flight,
                        const void *context)
{
    const struct client_link *link = context;
    const struct client_cache *cache = client->caches[flight->cache];
    if (flight_link(flight) != link->index || flight->cache == CLIENT_CACHES_MAX) return false;
    if ((flight->flags & FLIGHT_NUMBERED) != 0 && cache->has_new_verbs) return true;
    return cache->numbers[link->index] == CLIENT_CACHE_UNKNOWN;
}

static int ready(struct client_link *link)
{
    struct client *client = link->client;
    if (link->state != CLIENT_LINK_OPENING || link->opens_pending > 0) return 0;
    for (uint32_t i = 0; i < CLIENT_CACHES_MAX; i++)
        if (client->caches[i] != &client->nobody) open_nameless(link, client->caches[i]);
    client_end_matching(client, is_homeless, link, FERO_E_NOTFOUND);
    window_advance(&client->window);
    window_hold(&client->window);
    if (link->given_up_low < client->window.floor) {
        fail(link, "requests were given up meanwhile, of which HELLO did not know");
        return -ETIMEDOUT;
    }
    if (resend(link) < 0) {
        fail(link, "no memory to send requests again");
        return -ENOMEM;
    }
    link->state = CLIENT_LINK_UP;
    link->up_since_ns = max_u64(client->now_ns, 1);
    link->seq_seen = client->window.next;
    client->links_up++;
    client->finished++;
    client_link_credit(link);
    if (streams_link_up(link) < 0) {
        fail(link, "no memory to subscribe again");
        return -ENOMEM;
    }
    trace_line(&client->trace, TRACE_INFO, "client: connected to shard %u of %s, which has %u",
               link->index, client->home_text, client->links_count);
    return 0;
}

static int64_t on_welcome(struct client_link *link, const uint8_t *frame, size_t length)
{
    struct client *client = link->client;
    struct frame_welcome welcome;
    struct refusal refusal;
    const uint8_t *shard_slots;
    if (link->state != CLIENT_LINK_GREETING) return broke(link, "WELCOME twice", 2, 1);
    if (welcome_decode(&welcome, &shard_slots, frame, length, &refusal) < 0)
        return broke(link, refusal.text, refusal.got, refusal.limit);
    if (welcome.slots_count != SLOTS_COUNT)
        return broke(link, "number of slots", welcome.slots_count, SLOTS_COUNT);
    if (client->has_home) {
        if (welcome.shards_count != client->links_count)
            return broke(link, "number of shards changed", welcome.shards_count,
                         client->links_count);
    } else if (link->has_shard && link->index >= welcome.shards_count) {
        return broke(link, "shard", link->index, welcome.shards_count);
    } else {
        int err = learn_home(link, &welcome, shard_slots);
        if (err < 0) return err;
    }
    link->state = CLIENT_LINK_OPENING;
    link->link.frame_bytes_max = (uint32_t)min_u64(
        FRAME_BYTES_MAX, (uint64_t)client->value_bytes_max + REPLY_OVERHEAD_BYTES);
    /* Where no cache has a name there is nothing to wait for. */
    int err = ready(link);
    return err < 0 ? err : (int64_t)round_up_8(length);
}

/* ----------------------------------------------------------------------------------- verbs */

static bool verbs_equal(const struct client_cache *cache, struct bytes verbs, uint32_t count)
{
    uint8_t type;
    struct bytes name;
    if (cache->verbs_count != count) return false;
    for (uint32_t i = 0; opened_verb_next(&verbs, &type, &name); i++) {
        struct bytes known = {cache->verbs[i].name, cache->verbs[i].bytes};
        if (cache->verbs[i].type != type || !bytes_equal(known, name)) return false;
    }
    return true;
}

/*
 * Takes the verbs of a cache from OPENED. The first link tells them; if another one or a node later
 * on numbers them differently, they are called by name from then on, which is always right.
 */
static int learn_verbs(struct client_cache *cache, struct bytes verbs, uint32_t count)
{
    if (verbs_equal(cache, verbs, count)) return 0;
    bool is_first = cache->links_open == 0 && cache->verbs == NULL;
    struct client_verb *table = NULL;
    if (is_first && count > 0) {
        table = memory_take(count * sizeof *table);
        if (table == NULL) return -ENOMEM;
        uint8_t type;
        struct bytes name;
        for (uint32_t i = 0; opened_verb_next(&verbs, &type, &name); i++) {
            ASSERT(i < count && name.size <= FRAME_NAME_BYTES_MAX);
            table[i].type = type;
            table[i].bytes = (uint8_t)name.size;
            memcpy(table[i].name, name.data, name.size);
        }
    }
    memory_put(cache->verbs);
    cache->verbs = table;
    cache->verbs_count = table != NULL ? count : 0;
    cache->verb_last = 0;
    cache->has_new_verbs = cache->has_new_verbs || !is_first;
    return 0;
}

static int64_t on_opened(struct client_link *link, const uint8_t *frame, size_t length)
{
    struct client *client = link->client;
    struct frame_opened opened;
    struct refusal refusal;
    struct bytes verbs;
    if (link->state != CLIENT_LINK_OPENING && link->state != CLIENT_LINK_UP)
        return broke(link, "OPENED before WELCOME", FRAME_OPENED, FRAME_WELCOME);
    if (opened_decode(&opened, &verbs, frame, length, &refusal) < 0)
        return broke(link, refusal.text, refusal.got, refusal.limit);
    if (link->opens_pending == 0)
        return broke(link, "OPENED that nobody asked for", opened.seq, link->opens_pending);
    link->opens_pending--;
    struct client_cache *cache = client->caches[opened.seq % CLIENT_CACHES_MAX];
    uint16_t code = opened.prefix.small;
    bool is_other = cache->open_seq != opened.seq && !PLANTED("opened_for_another");
    if (cache == &client->nobody || is_other) {
        /* It was closed meanwhile, and its place may be another one's. */
    } else if (code != 0) {
        cache->open_error = -(int)(code & REPLY_ERROR);
    } else {
        if (opened.cache == CLIENT_CACHE_UNKNOWN ||
            cache->numbers[link->index] != CLIENT_CACHE_UNKNOWN)
            return broke(link, "number of a cache", opened.cache, CLIENT_CACHE_UNKNOWN - 1);
        if (learn_verbs(cache, verbs, opened.verbs_count) < 0) {
            fail(link, "no memory for the verbs of a cache");
            return -ENOMEM;
        }
        cache->numbers[link->index] = opened.cache;
        cache->links_open++;
    }
    int err = ready(link);
    return err < 0 ? err : (int64_t)round_up_8(length);
}

static int64_t on_refuse(struct client_link *link, const uint8_t *frame, size_t length)
{
    struct client *client = link->client;
    struct frame_refuse refuse;
    struct bytes text;
    if (refuse_decode(&refuse, &text, frame, length) < 0)
        return broke(link, "REFUSE", length, sizeof refuse);
    char shown[REFUSE_BYTES_MAX];
    size_t bytes = min_u64(text.size, sizeof shown - 1);
    memcpy(shown, text.data, bytes);
    shown[bytes] = 0;
    for (size_t i = 0; i < bytes; i++)
        if (!isprint((unsigned char)shown[i])) shown[i] = '?';
    uint16_t error = refuse.prefix.small & REPLY_ERROR;
    /* A node that is busy or stopping may be asked again. */
    bool passes = error == ERROR_BUSY || error == ERROR_CLOSED || error == ERROR_NO_MEMORY ||
                  error == ERROR_TIMEOUT;
    if (!passes) client->refusal = error != 0 ? -(int)error : FERO_E_PROTO;
    if (refuse.got == 0 && refuse.limit == 0)
        fail(link, "the node refuses the link: %s", shown);
    else
        fail(link, "the node refuses the link: %s (got %llu, expected %llu)", shown,
             (unsigned long long)refuse.got, (unsigned long long)refuse.limit);
    return -ECONNREFUSED;
}

/* ------------------------------------------------------------------------ acks and replies */

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
    if (link->state != CLIENT_LINK_UP) return broke(link, "ACK before WELCOME", FRAME_ACK, 0);
    if (ack_decode(&ack, frame, length, &refusal) < 0)
        return broke(link, refusal.text, refusal.got, refusal.limit);
    uint64_t requests =
        link->acked_requests + (uint32_t)(ack.requests - (uint32_t)link->acked_requests);
    if (requests > link->handed_requests)
        return broke(link, "ACK of requests never sent", requests, link->handed_requests);
    if (ack.consumed_bytes < link->consumed_bytes ||
        ack.consumed_bytes > backlog_handed_bytes(&link->backlog))
        return broke(link, "ACK of bytes never sent", ack.consumed_bytes,
                     backlog_handed_bytes(&link->backlog));
    /* Whatever the list holds was handed over if its number is below that of unsent requests. */
    if (requests > link->acked_requests && (int32_t)(ack.seq - (uint32_t)client->window.next) >= 0)
        return broke(link, "ACK of a number never sent", ack.seq, (uint32_t)client->window.next);
    bool is_new = requests > link->acked_requests;
    link->acked_requests = requests;
    link->consumed_bytes = ack.consumed_bytes;
    client->has_progress = true;
    /* The kernel's word may come later than the node's. */
    count_up_to(link, RUN_WRITTEN, requests);
    count_up_to(link, RUN_RECEIVED, requests);
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
    return broke(link, "reply to no request", seq, (uint32_t)link->client->window.next);
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
    if (length < sizeof header) return broke(link, "length of a reply", length, sizeof header);
    if (link->state != CLIENT_LINK_UP) return broke(link, "reply before OPENED", FRAME_REPLY, 0);
    memcpy(&header, frame, sizeof header);
    const uint8_t *value = frame + sizeof header;
    size_t bytes = length - sizeof header;
    if ((header.flags & FRAME_EXTENDED) != 0) {
        int64_t taken = extensions_decode(&extensions, value, bytes);
        if (taken < 0) return broke(link, "extensions of a reply", bytes, 0);
        value += taken;
        bytes -= (size_t)taken;
    }
    /* A fourth outcome is a later version's, and as good as unknown. */
    int outcome = (int)min_u64(reply_outcome(header.code), FERO_OUTCOME_UNKNOWN);
    int error = header.code & REPLY_ERROR;
    if ((outcome == FERO_OUTCOME_OK) != (error == 0))
        return broke(link, "code of a reply", header.code, 0);
    fero_result result = {.outcome = outcome, .error = -error, .offset = header.offset};
    if ((extensions.present & 1u << EXT_OFFSET) != 0) result.offset = extensions.offset;
    if (!result_value_read(&result.value, header.flags & FRAME_VALUE_TYPE, value, bytes))
        return broke(link, "value of a reply", bytes, header.flags & FRAME_VALUE_TYPE);
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
    if (link->state != CLIENT_LINK_UP) return broke(link, "a stream before OPENED", frame[4], 0);
    link->client->has_progress = true;
    int err = streams_frame(link, frame, length, &refusal);
    if (err == -EPROTO) return broke(link, refusal.text, refusal.got, refusal.limit);
    if (err == -EREMOTE) {
        fail(link, "another shard speaks on it, and there is something to subscribe to");
        return err;
    }
    if (err < 0) {
        fail(link, "no memory for the credit of a stream");
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
        return broke(link, "length of a frame", prefix.length, sizeof prefix);
    if (prefix.length > link->link.frame_bytes_max)
        return broke(link, "length of a frame", prefix.length, link->link.frame_bytes_max);
    /* What is no answer is refused before all of it has come. */
    bool is_stream = prefix.type == FRAME_CHANGES || prefix.type == FRAME_EVENT;
    bool is_answer = is_stream || (prefix.type >= FRAME_WELCOME && prefix.type <= FRAME_REPLY &&
                                   prefix.type != FRAME_OPEN);
    if (!is_answer) return broke(link, "type of a frame", prefix.type, FRAME_REPLY);
    if (round_up_8(prefix.length) > size) return 0;
    switch (prefix.type) {
    case FRAME_WELCOME: return on_welcome(link, data, prefix.length);
    case FRAME_OPENED: return on_opened(link, data, prefix.length);
    case FRAME_ACK: return on_ack(link, data, prefix.length);
    case FRAME_REFUSE: return on_refuse(link, data, prefix.length);
    case FRAME_CHANGES:
    case FRAME_EVENT: return on_stream(link, data, prefix.length);
    default: return on_reply(link, data, prefix.length);
    }
}

/* First 8 bytes of the reply that says no more than "done". */
#define REPLY_PLAIN ((uint64_t)FRAME_REPLY << 32 | FRAME_REPLY_BYTES)

/* A link_consume_fn: everything that a node sends. The loop is the fast path of replies. */
static int64_t consume(void *context, uint8_t *data, size_t size)
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

static void received(struct client_link *link, const struct io_event *event)
{
    if (link->state < CLIENT_LINK_GREETING || link->state > CLIENT_LINK_UP) return;
    link->client->has_progress = true;
    int err = link_receive(&link->link, event->data, event->size, consume, link);
    /* Who fails inside has said why already. */
    if (err < 0 && link->state != CLIENT_LINK_CLOSING)
        fail(link, "a broken frame, or one over %u bytes: %s", link->link.frame_bytes_max,
             strerror(-err));
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
        count_up_to(link, RUN_WRITTEN, link->handed_requests);
        link->client->has_progress = true;
    }
}

/* ------------------------------------------------------------------------- events and timers */

void client_link_event(struct client_link *link, const struct io_event *event)
{
    switch ((enum io_event_type)event->type) {
    case IO_CONNECTED:
        if (link->state == CLIENT_LINK_CONNECTING) connected(link);
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
    fail(link, "no welcome within %llu ms", (unsigned long long)(DIAL_GREETING_NS / NS_PER_MS));
}
