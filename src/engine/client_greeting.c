/*
 * How a link comes up. HELLO and one OPEN for each cache go out together. WELCOME of the first link
 * tells how many shards the node has; then each other one is dialled at the same address. A link is up
 * when all its OPENs are answered; what its last connection left unanswered is sent again then, before
 * any new request.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/memory.h"
#include "engine/client_link.h"
#include "engine/stream.h"

/* Room for what does not depend on the longest value: the longest INFO is 192 KiB. */
#define REPLY_OVERHEAD_BYTES (256 * KIB)

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

void client_link_connected(struct client_link *link)
{
    link->client->all_refuse = false;
    window_advance(&link->client->window);
    window_hold(&link->client->window);
    if (greet(link) < 0) client_link_fail(link, "no memory for an outbox");
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
            client_link_close(link);
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
        client_link_fail(link, "no memory for %u links", welcome->shards_count);
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
        client_link_fail(link, "requests were given up meanwhile, of which HELLO did not know");
        return -ETIMEDOUT;
    }
    if (client_link_resend(link) < 0) {
        client_link_fail(link, "no memory to send requests again");
        return -ENOMEM;
    }
    link->state = CLIENT_LINK_UP;
    link->up_since_ns = max_u64(client->now_ns, 1);
    link->seq_seen = client->window.next;
    client->links_up++;
    client->finished++;
    client_link_credit(link);
    if (streams_link_up(link) < 0) {
        client_link_fail(link, "no memory to subscribe again");
        return -ENOMEM;
    }
    trace_line(&client->trace, TRACE_INFO, "client: connected to shard %u of %s, which has %u",
               link->index, client->home_text, client->links_count);
    return 0;
}

int64_t client_link_welcome(struct client_link *link, const uint8_t *frame, size_t length)
{
    struct client *client = link->client;
    struct frame_welcome welcome;
    struct refusal refusal;
    const uint8_t *shard_slots;
    if (link->state != CLIENT_LINK_GREETING) return client_link_broke(link, "WELCOME twice", 2, 1);
    if (welcome_decode(&welcome, &shard_slots, frame, length, &refusal) < 0)
        return client_link_broke(link, refusal.text, refusal.got, refusal.limit);
    if (welcome.slots_count != SLOTS_COUNT)
        return client_link_broke(link, "number of slots", welcome.slots_count, SLOTS_COUNT);
    if (client->has_home) {
        if (welcome.shards_count != client->links_count)
            return client_link_broke(link, "number of shards changed", welcome.shards_count,
                                     client->links_count);
    } else if (link->has_shard && link->index >= welcome.shards_count) {
        return client_link_broke(link, "shard", link->index, welcome.shards_count);
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

int64_t client_link_opened(struct client_link *link, const uint8_t *frame, size_t length)
{
    struct client *client = link->client;
    struct frame_opened opened;
    struct refusal refusal;
    struct bytes verbs;
    if (link->state != CLIENT_LINK_OPENING && link->state != CLIENT_LINK_UP)
        return client_link_broke(link, "OPENED before WELCOME", FRAME_OPENED, FRAME_WELCOME);
    if (opened_decode(&opened, &verbs, frame, length, &refusal) < 0)
        return client_link_broke(link, refusal.text, refusal.got, refusal.limit);
    if (link->opens_pending == 0)
        return client_link_broke(link, "OPENED that nobody asked for", opened.seq,
                                 link->opens_pending);
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
            return client_link_broke(link, "number of a cache", opened.cache,
                                     CLIENT_CACHE_UNKNOWN - 1);
        if (learn_verbs(cache, verbs, opened.verbs_count) < 0) {
            client_link_fail(link, "no memory for the verbs of a cache");
            return -ENOMEM;
        }
        cache->numbers[link->index] = opened.cache;
        cache->links_open++;
    }
    int err = ready(link);
    return err < 0 ? err : (int64_t)round_up_8(length);
}

int64_t client_link_refuse(struct client_link *link, const uint8_t *frame, size_t length)
{
    struct client *client = link->client;
    struct frame_refuse refuse;
    struct bytes text;
    if (refuse_decode(&refuse, &text, frame, length) < 0)
        return client_link_broke(link, "REFUSE", length, sizeof refuse);
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
        client_link_fail(link, "the node refuses the link: %s", shown);
    else
        client_link_fail(link, "the node refuses the link: %s (got %llu, expected %llu)", shown,
                         (unsigned long long)refuse.got, (unsigned long long)refuse.limit);
    return -ECONNREFUSED;
}
