/*
 * The limits that strangers and memory have, each reached on a node that was told a small one:
 *
 *   limits ADDRESS PID CASE...      a node of the cache "demo"; prints facts, see tests/support/fact.h
 *
 * tests/e2e/limits.sh says which options each case expects.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/rng.h"
#include "tests/support/fact.h"
#include "tests/support/stranger.h"

#define CACHE "demo"

struct node {
    const char *address;
    pid_t pid;
};

static const struct bytes nothing = {NULL, 0};

/* The refusal that ends the link; false: none came. */
static bool read_refusal(struct stranger *peer, struct frame_refuse *refuse,
                         char text[REFUSE_BYTES_MAX])
{
    const uint8_t *frame;
    while (stranger_next(peer, STRANGER_WAIT_MS, &frame) == STRANGER_FRAME) {
        if (frame[4] != FRAME_REFUSE) continue;
        memcpy(refuse, frame, sizeof *refuse);
        size_t bytes = refuse->prefix.length - sizeof *refuse;
        memcpy(text, frame + sizeof *refuse, bytes);
        text[bytes] = 0;
        return true;
    }
    return false;
}

static bool is_refused_with(struct stranger *peer, enum reply_error error, uint64_t limit,
                            const char *words)
{
    struct frame_refuse refuse;
    char text[REFUSE_BYTES_MAX];
    return read_refusal(peer, &refuse, text) && refuse.prefix.small == error &&
           refuse.limit == limit && strstr(text, words) != NULL;
}

/* One update is asked for and done. */
static bool is_served(struct stranger *peer, uint32_t seq, const char *key)
{
    struct frame_reply reply;
    struct bytes value;
    stranger_put_request(peer, FRAME_UPDATE, seq, bytes_of(key), bytes_of("value"));
    return stranger_flush(peer) && stranger_reply(peer, seq, &reply, &value) && reply.code == 0;
}

static void wait_ms(int ms)
{
    poll(NULL, 0, ms);
}

/* ---------------------------------------------------------------------------------- strangers */

/* Many that say nothing, and some that greet: --half-open.max 64. */
#define SILENT_COUNT 200
#define HALF_OPEN_MAX 64

static void half_open(const struct node *node)
{
    static struct stranger peers[SILENT_COUNT];
    unsigned served = 0;
    unsigned told = 0;
    for (unsigned i = 0; i < SILENT_COUNT; i++) {
        if (stranger_connect(&peers[i], node->address) < 0) return;
        /* Nobody who came a moment ago is dropped. */
        if (i >= HALF_OPEN_MAX && i % 16 == 0) wait_ms(60);
    }
    wait_ms(60);
    for (unsigned i = 0; i < 50; i++) {
        struct stranger peer;
        served += stranger_open(&peer, node->address, CACHE, 0) && is_served(&peer, 1, "k");
        stranger_close(&peer, false);
    }
    fact(served == 50, "half-open: who greets is served all the while", "%u of 50", served);
    for (unsigned i = 0; i < SILENT_COUNT; i++) {
        struct frame_refuse refuse = {.limit = 0};
        char text[REFUSE_BYTES_MAX];
        bool came = read_refusal(&peers[i], &refuse, text);
        told += came && refuse.prefix.small == ERROR_BUSY && refuse.limit == HALF_OPEN_MAX;
        stranger_close(&peers[i], false);
    }
    fact(told >= SILENT_COUNT / 2 && told < SILENT_COUNT, "half-open: the others are told BUSY",
         "%u of %u", told, SILENT_COUNT);
}

/* --handshake.ms 200 */
static void handshake(const struct node *node)
{
    struct stranger peer;
    uint64_t begin_ns = clock_now_ns();
    int err = stranger_connect(&peer, node->address);
    bool is_told = err == 0 && is_refused_with(&peer, ERROR_TIMEOUT, 200, "no HELLO");
    uint64_t took_ms = (clock_now_ns() - begin_ns) / NS_PER_MS;
    fact(is_told, "handshake: who says nothing is told so", "error %d", err);
    fact(took_ms >= 199 && took_ms < fact_limit_ms(1500), "handshake: in time", "%llu ms",
         (unsigned long long)took_ms);
    stranger_close(&peer, false);
}

/* An update of 2,000 bytes in pieces; false: the link ended before the last one. */
static bool send_slowly(struct stranger *peer, size_t piece)
{
    static uint8_t value[2000];
    stranger_put_request(peer, FRAME_UPDATE, 1, bytes_of("slow"),
                         (struct bytes){value, sizeof value});
    for (size_t at = 0; at < peer->out_bytes; at += piece) {
        size_t bytes = min_u64(piece, peer->out_bytes - at);
        struct pollfd ready = {.fd = peer->fd, .events = POLLIN};
        if (send(peer->fd, peer->out + at, bytes, MSG_NOSIGNAL) < 0) return false;
        if (poll(&ready, 1, 20) > 0 && at + bytes < peer->out_bytes) return false;
    }
    return true;
}

/* --progress.ms 300 --progress.bytes 200: a byte each 20 ms is too slow, a hundred are not. */
static void dribble(const struct node *node)
{
    struct stranger peer;
    struct frame_reply reply;
    struct bytes value;
    bool is_open = stranger_open(&peer, node->address, CACHE, 0);
    bool is_sent = is_open && send_slowly(&peer, 1);
    fact(is_open && !is_sent && is_refused_with(&peer, ERROR_TIMEOUT, 200, "too slowly"),
         "dribble: a byte at a time ends the link", "open %d, sent %d", is_open, is_sent);
    stranger_close(&peer, false);
    is_open = stranger_open(&peer, node->address, CACHE, 0);
    is_sent = is_open && send_slowly(&peer, 100);
    fact(is_sent && stranger_reply(&peer, 1, &reply, &value) && reply.code == 0,
         "dribble: who goes on fast enough has all the time", "open %d, sent %d", is_open, is_sent);
    peer.out_bytes = 0;
    wait_ms(700);
    fact(is_served(&peer, 2, "k"), "dribble: and so has who says nothing", "no reply");
    stranger_close(&peer, false);
}

/* --connections.max 50 */
#define CONNECTIONS_MAX 50

static void crowd(const struct node *node)
{
    struct stranger peers[CONNECTIONS_MAX + 20];
    unsigned welcome = 0;
    unsigned told = 0;
    unsigned count = ARRAY_COUNT(peers);
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        welcome += stranger_open(&peers[i], node->address, CACHE, 0);
    for (unsigned i = CONNECTIONS_MAX; i < count; i++)
        told += stranger_connect(&peers[i], node->address) == 0 &&
                is_refused_with(&peers[i], ERROR_BUSY, CONNECTIONS_MAX, "connections.max");
    fact(welcome == CONNECTIONS_MAX && told == count - CONNECTIONS_MAX,
         "crowd: one too many is told so", "%u welcome, %u told", welcome, told);
    fact(is_served(&peers[0], 1, "k") && is_served(&peers[CONNECTIONS_MAX - 1], 1, "k"),
         "crowd: the others are served", "no reply");
    for (unsigned i = CONNECTIONS_MAX - 1; i < count; i++) stranger_close(&peers[i], false);
    /* The node hears of it a little later. */
    struct stranger late;
    bool is_open = false;
    for (unsigned i = 0; i < 1000 && !is_open; i++) {
        is_open = stranger_open(&late, node->address, CACHE, 0);
        if (is_open) break;
        stranger_close(&late, false);
        wait_ms(10);
    }
    fact(is_open, "crowd: there is room again when one leaves", "%s", "refused");
    if (is_open) stranger_close(&late, false);
    for (unsigned i = 0; i + 1 < CONNECTIONS_MAX; i++) stranger_close(&peers[i], false);
}

/* The node may open a few more descriptors only; then as many as before. */
#define LATE_COUNT 40

static void descriptors(const struct node *node)
{
    struct stranger peers[LATE_COUNT];
    struct stranger old;
    struct rlimit before;
    bool is_open = stranger_open(&old, node->address, CACHE, 0);
    ASSERT(is_open);
    if (prlimit(node->pid, RLIMIT_NOFILE, NULL, &before) != 0) return;
    struct rlimit few = {.rlim_cur = (rlim_t)process_descriptors(node->pid) + 12,
                         .rlim_max = before.rlim_max};
    if (prlimit(node->pid, RLIMIT_NOFILE, &few, NULL) != 0) return;
    for (unsigned i = 0; i < LATE_COUNT; i++)
        if (stranger_connect(&peers[i], node->address) < 0) peers[i].fd = -1;
    bool is_good = true;
    for (uint32_t seq = 1; seq <= 50 && is_good; seq++) {
        is_good = is_served(&old, seq, "k");
        wait_ms(5);
    }
    fact(is_good, "descriptors: links that are up are served without any left", "no reply");
    int used = process_descriptors(node->pid);
    fact(used >= 0 && (rlim_t)used <= few.rlim_cur, "descriptors: none is leaked", "%d", used);
    for (unsigned i = 0; i < LATE_COUNT; i++)
        if (peers[i].fd >= 0) stranger_close(&peers[i], false);
    if (prlimit(node->pid, RLIMIT_NOFILE, &before, NULL) != 0) return;
    uint64_t begin_ns = clock_now_ns();
    struct stranger late;
    is_open = stranger_open(&late, node->address, CACHE, 0);
    uint64_t took_ms = (clock_now_ns() - begin_ns) / NS_PER_MS;
    fact(is_open && took_ms < fact_limit_ms(2000),
         "descriptors: accepting goes on when there are some", "open %d after %llu ms", is_open,
         (unsigned long long)took_ms);
    if (is_open) stranger_close(&late, false);
    stranger_close(&old, false);
}

/* One client that comes again and again, as the same session. */
#define RECONNECTS 10000

static void reconnects(const struct node *node)
{
    unsigned served = 0;
    int64_t memory_kib = 0;
    for (uint32_t i = 1; i <= RECONNECTS; i++) {
        struct stranger peer;
        served +=
            stranger_open(&peer, node->address, CACHE, 0x5e55) && is_served(&peer, i, "again");
        stranger_close(&peer, i % 2 == 0);
        if (i == RECONNECTS / 10) memory_kib = process_memory_kib(node->pid);
    }
    int64_t growth_kib = process_memory_kib(node->pid) - memory_kib;
    fact(served == RECONNECTS, "reconnects: each time it is served", "%u of %u", served,
         RECONNECTS);
    /* Its 9,000 changes take 80 bytes each, and the session's numbers 128 KiB. */
    fact(growth_kib < FACT_MEMORY_FACTOR * (8 << 10), "reconnects: memory stays", "%lld KiB more",
         (long long)growth_kib);
}

/* ------------------------------------------------------------------------------------- memory */

#define RUN 500

static void put_key(char key[16], uint32_t number)
{
    snprintf(key, 16, "key %08u", number % 100000000u);
}

struct filled {
    uint32_t keys; /* that were sent; most are there */
    uint32_t seq;
    bool is_named; /* each failure names memory.max */
};

/* Sends what was put and reads `count` replies, in whatever order they come; false: they do not. */
static bool ask_all(struct stranger *peer, uint32_t count, struct filled *filled,
                    uint32_t failed[ERROR_STALE + 1])
{
    const uint8_t *frame;
    if (!stranger_flush(peer)) return false;
    for (uint32_t replies = 0; replies < count;) {
        struct frame_reply reply;
        if (stranger_next(peer, STRANGER_WAIT_MS, &frame) != STRANGER_FRAME) return false;
        if (frame[4] != FRAME_REPLY) continue;
        memcpy(&reply, frame, sizeof reply);
        replies++;
        uint16_t error = reply.code & REPLY_ERROR;
        if (reply.code == 0 || error > ERROR_STALE) continue;
        failed[error]++;
        size_t bytes = reply.length - sizeof reply;
        if (error == ERROR_NO_MEMORY)
            filled->is_named = filled->is_named && reply_outcome(reply.code) == OUTCOME_FAIL &&
                               memmem(frame + sizeof reply, bytes, "memory.max", 10) != NULL;
    }
    filled->seq += count;
    return true;
}

/* Updates of new keys until the node takes no more of them. */
static bool fill(struct stranger *peer, struct filled *filled)
{
    static const uint8_t value[200];
    uint32_t failed[ERROR_STALE + 1] = {0};
    *filled = (struct filled){.seq = 1, .is_named = true};
    /* Each shard is full when its half fails. */
    while (failed[ERROR_NO_MEMORY] < RUN) {
        char key[16];
        memset(failed, 0, sizeof failed);
        for (uint32_t i = 0; i < RUN; i++) {
            put_key(key, filled->keys++);
            stranger_put_request(peer, FRAME_UPDATE, filled->seq + i, bytes_of(key),
                                 (struct bytes){value, sizeof value});
        }
        if (!ask_all(peer, RUN, filled, failed)) return false;
    }
    return true;
}

/* Removes all keys, from all over; returns how many removals or reads found no memory. */
static uint32_t empty(struct stranger *peer, struct filled *filled, uint32_t *absent)
{
    const uint32_t step = 7919;
    uint32_t failed[ERROR_STALE + 1] = {0};
    for (uint32_t i = 0; i < filled->keys; i += RUN / 2) {
        uint32_t count = (uint32_t)min_u64(RUN / 2, filled->keys - i);
        for (uint32_t j = 0; j < count; j++) {
            char key[16];
            uint32_t seq = filled->seq + 2 * j;
            put_key(key, (uint32_t)((uint64_t)(i + j) * step % filled->keys));
            stranger_put_request(peer, FRAME_GET, seq, bytes_of(key), nothing);
            stranger_put_request(peer, FRAME_REMOVE, seq + 1, bytes_of(key), nothing);
        }
        if (!ask_all(peer, 2 * count, filled, failed)) return UINT32_MAX;
    }
    *absent = failed[ERROR_NOT_FOUND] / 2;
    return failed[ERROR_NO_MEMORY];
}

/* --memory.max 128M, which is soon reached; and what a node has beside it. */
#define MEMORY_KIB_MAX ((128 + 32) << 10)

static void full(const struct node *node)
{
    struct stranger peer;
    struct filled filled;
    bool is_open = stranger_open(&peer, node->address, CACHE, rng_secret_u64());
    fact(is_open, "full: it connects", "no answer");
    if (!is_open) return;
    bool is_filled = fill(&peer, &filled);
    fact(is_filled && filled.keys > 100000 && filled.is_named, "full: writes fail with the reason",
         "%u keys, named %d", filled.keys, filled.is_named);
    int64_t memory_kib = process_memory_kib(node->pid);
    uint32_t absent = 0;
    uint32_t failed = empty(&peer, &filled, &absent);
    fact(failed == 0, "full: reads and removals go on", "%u of %u fail", failed, filled.keys);
    fact(absent < filled.keys / 10, "full: what was written was there", "%u of %u were not", absent,
         filled.keys);
    int64_t after_kib = process_memory_kib(node->pid);
    fact(after_kib < FACT_MEMORY_FACTOR * MEMORY_KIB_MAX, "full: within memory.max",
         "%lld KiB before the removals, %lld after", (long long)memory_kib, (long long)after_kib);
    unsigned again = 0;
    for (uint32_t i = 1; i <= 1000; i++) {
        char key[16];
        put_key(key, i);
        again += is_served(&peer, filled.seq + i, key);
    }
    fact(again == 1000, "full: and then writes do", "%u of 1000", again);
    stranger_close(&peer, false);
}

/* ----------------------------------------------------------------------------------------- main */

struct limits_case {
    const char *name;
    void (*run)(const struct node *node);
};

static const struct limits_case cases[] = {
    {"half-open", half_open}, {"handshake", handshake},   {"dribble", dribble},
    {"crowd", crowd},         {"reconnects", reconnects}, {"descriptors", descriptors},
    {"full", full},
};

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: limits ADDRESS PID CASE...\n");
        return 2;
    }
    const struct node node = {argv[1], (pid_t)strtol(argv[2], NULL, 10)};
    signal(SIGPIPE, SIG_IGN);
    for (int i = 3; i < argc; i++) {
        unsigned known = 0;
        uint64_t begin_ns = clock_now_ns();
        for (size_t j = 0; j < ARRAY_COUNT(cases); j++) {
            if (strcmp(argv[i], cases[j].name) != 0) continue;
            cases[j].run(&node);
            known++;
        }
        if (known == 0) fact(false, argv[i], "no such case");
        printf("# %s: %llu ms\n", argv[i],
               (unsigned long long)((clock_now_ns() - begin_ns) / NS_PER_MS));
    }
    return facts_failed() > 0 ? 1 : 0;
}
