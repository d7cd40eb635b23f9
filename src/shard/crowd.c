/*
 * Anybody can connect and say nothing. A connection without a HELLO costs a descriptor and a few
 * hundred bytes for as long as it may wait, so there are limits on how many there are, in all and of
 * one source. Above a limit one of them, drawn at random, has to go for each that comes: whoever
 * floods a node mostly drops its own, and a client that greets soon has a good chance however many
 * there are (as with SYNs, where early drop at random does the same). Those that came a moment ago are
 * spared: a thousand clients that connect at once are no flood, they only have not had their turn.
 *
 * A source is an IPv4 address or an IPv6 network of 64 bits. All of one machine's programs come from
 * its loopback addresses, so those are no source unless the limit was given.
 *
 * The number of connections is the node's: a shard adds up what all of them count. One that is on
 * its way to another shard is in neither's count. The counts are read in an order that errs on the
 * safe side: what was adopted before what there is, so that a connection may be seen twice, and never
 * not at all.
 */
#include "shard/crowd.h"

#include <netinet/in.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/hash.h"
#include "shard/shard.h"

/* Whoever came so lately is spared. */
#define SPARED_NS (50 * NS_PER_MS)
/* The victim is one of so many that have waited the longest, at most: nobody walks a long queue. */
#define CANDIDATES_MAX 1024
#define NETWORK_BYTES_V6 8

_Static_assert((CROWD_SOURCES & (CROWD_SOURCES - 1)) == 0, "a mask away from a hash");
_Static_assert(CROWD_SOURCES <= CROWD_NO_SOURCE, "it is none of them");

uint16_t crowd_source(const struct shard *shard, const struct address *peer)
{
    const struct shard_options *options = shard->options;
    bool is_spared = options->half_open_spares_loopback && address_is_loopback(peer);
    if (is_spared || options->half_open_source_max == 0) return CROWD_NO_SOURCE;
    const struct in6_addr *host = &peer->v6.sin6_addr;
    const void *bytes = &peer->v4.sin_addr;
    size_t size = sizeof peer->v4.sin_addr;
    if (peer->any.sa_family == AF_INET6) {
        bool is_v4 = IN6_IS_ADDR_V4MAPPED(host);
        bytes = is_v4 ? &host->s6_addr[12] : &host->s6_addr[0];
        size = is_v4 ? sizeof peer->v4.sin_addr : NETWORK_BYTES_V6;
    }
    return (uint16_t)(hash_key(bytes, size, options->hash_seed) & (CROWD_SOURCES - 1));
}

void crowd_enter(struct shard *shard, struct caller *caller)
{
    ASSERT(!caller->is_half_open);
    caller->is_half_open = true;
    shard->crowd.count++;
    if (caller->source != CROWD_NO_SOURCE) shard->crowd.counts[caller->source]++;
}

void crowd_leave(struct shard *shard, struct caller *caller)
{
    if (!caller->is_half_open) return;
    caller->is_half_open = false;
    ASSERT(shard->crowd.count > 0);
    shard->crowd.count--;
    if (caller->source != CROWD_NO_SOURCE) shard->crowd.counts[caller->source]--;
}

/* The n-th of `source`, or of all, among those that are not spared; NULL: there are no more than n. */
static struct caller *candidate(const struct shard *shard, uint16_t source, uint32_t n,
                                uint32_t *count)
{
    uint64_t waits_ns = shard->options->greeting_ns_max;
    struct caller *caller = shard->greeting.first;
    uint32_t seen = 0;
    *count = 0;
    for (; caller != NULL && seen < CANDIDATES_MAX; caller = caller->next, seen++) {
        if (caller->deadline_ns + SPARED_NS > shard->now_ns + waits_ns) break;
        if (source != CROWD_NO_SOURCE && caller->source != source) continue;
        if ((*count)++ == n) return caller;
    }
    return NULL;
}

static struct caller *draw(struct shard *shard, uint16_t source)
{
    uint32_t count;
    (void)candidate(shard, source, UINT32_MAX, &count);
    if (count == 0) return NULL;
    return candidate(shard, source, (uint32_t)rng_below(&shard->crowd.rng, count), &count);
}

struct caller *crowd_victim(struct shard *shard, const struct caller *newest, uint32_t *limit)
{
    const struct shard_options *options = shard->options;
    uint16_t source = newest->source;
    *limit = options->half_open_source_max;
    if (source != CROWD_NO_SOURCE && shard->crowd.counts[source] > *limit)
        return draw(shard, source);
    *limit = options->half_open_max;
    return shard->crowd.count > *limit ? draw(shard, CROWD_NO_SOURCE) : NULL;
}

uint64_t crowd_connections(const struct shard *shard)
{
    uint32_t shards = shard->options->shards_count;
    uint64_t adopted = 0;
    uint64_t there = 0;
    for (uint32_t i = 0; i < shards; i++) adopted += load_acquire_u64(&shard->peers[i]->adopted);
    for (uint32_t i = 0; i < shards; i++) {
        const struct shard_counters *counters = &shard->peers[i]->counters;
        there += load_relaxed_u64(&counters->connections) + load_relaxed_u64(&counters->handed);
    }
    return there - adopted - shard->crowd.turned_away;
}
