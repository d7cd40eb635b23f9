/*
 * What a lost connection left unanswered is sent again, with the numbers it had: the node answers those
 * again that it knows and never applies one twice.
 */
#include <string.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "engine/client_link.h"

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

void client_link_count(struct client_link *link, enum run_mark mark, uint64_t to)
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

int client_link_resend(struct client_link *link)
{
    struct client *client = link->client;
    struct resend resend = {.link = link,
                            .frame = link->requests - backlog_frames_count(&link->backlog),
                            .handed = link->handed_requests,
                            .written = link->runs.cursors[RUN_WRITTEN].at,
                            .received = link->runs.cursors[RUN_RECEIVED].at};
    uint64_t bytes;
    client_link_count(link, RUN_WRITTEN, link->requests);
    client_link_count(link, RUN_RECEIVED, link->requests);
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
