/*
 * Peers that no client would be: each case does to a node what a broken or a hostile program would,
 * while a witness on another link goes on asking and checking. After each case the node must have as
 * many descriptors as before, and hardly more memory.
 *
 *   hostile ADDRESS PID CASE...      a node of the cache "demo"; prints facts, see tests/support/fact.h
 *
 * SEED and STREAMS in the environment choose the mutations of the case "mutated".
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "tests/support/fact.h"
#include "tests/support/stranger.h"

#define CACHE "demo"
/* What a case may leave behind: caches of the allocator, keys and sessions that mutations made up. */
#define GROWTH_KIB_MAX (FACT_MEMORY_FACTOR * ((int64_t)96 << 10))
/* Of the witness's median round trip while a case runs: slow machines and sanitizers included. */
#define WITNESS_MS_MAX 100

struct node {
    const char *address;
    pid_t pid;
};

/* --------------------------------------------------------------------------------- the witness */

#define TRIPS_MAX 100000

struct witness {
    const struct node *node;
    pthread_t thread;
    atomic_bool must_end;
    bool is_good;
    uint32_t trips;
    uint32_t trips_ns[TRIPS_MAX];
};

/* One update and one read of it, checked. */
static bool round_trip(struct stranger *peer, uint32_t trip)
{
    char text[32];
    struct frame_reply reply;
    struct bytes got;
    uint32_t seq = 2 * trip + 1;
    struct bytes key = bytes_of("witness");
    snprintf(text, sizeof text, "trip %u", trip);
    stranger_put_request(peer, FRAME_UPDATE, seq, key, bytes_of(text));
    stranger_put_request(peer, FRAME_GET, seq + 1, key, (struct bytes){NULL, 0});
    if (!stranger_flush(peer)) return false;
    if (!stranger_reply(peer, seq, &reply, &got) || reply.code != 0) return false;
    return stranger_reply(peer, seq + 1, &reply, &got) && reply.code == 0 &&
           bytes_equal(got, bytes_of(text));
}

static void *witness_run(void *argument)
{
    struct witness *witness = argument;
    struct stranger peer;
    witness->is_good = stranger_open(&peer, witness->node->address, CACHE, rng_secret_u64());
    /* Once at least, however short the case is. */
    while (witness->is_good && witness->trips < TRIPS_MAX &&
           (witness->trips == 0 || !atomic_load(&witness->must_end))) {
        uint64_t begin_ns = clock_now_ns();
        witness->is_good = round_trip(&peer, witness->trips);
        witness->trips_ns[witness->trips++] =
            (uint32_t)min_u64(clock_now_ns() - begin_ns, UINT32_MAX);
        poll(NULL, 0, 1); /* it measures the node, and should not be its load */
    }
    stranger_close(&peer, false);
    return NULL;
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static void witness_start(struct witness *witness, const struct node *node)
{
    witness->node = node;
    witness->trips = 0;
    atomic_store(&witness->must_end, false);
    int err = pthread_create(&witness->thread, NULL, witness_run, witness);
    ASSERT(err == 0);
}

static void witness_end(struct witness *witness, const char *name)
{
    char text[80];
    atomic_store(&witness->must_end, true);
    pthread_join(witness->thread, NULL);
    snprintf(text, sizeof text, "%s: others are answered as ever", name);
    fact(witness->is_good && witness->trips > 0, text, "wrong or no answer after %u round trips",
         witness->trips);
    if (witness->trips == 0) return;
    qsort(witness->trips_ns, witness->trips, sizeof *witness->trips_ns, compare_u32);
    uint32_t median = witness->trips_ns[witness->trips / 2];
    snprintf(text, sizeof text, "%s: and soon", name);
    fact(median <= fact_limit_ms(WITNESS_MS_MAX) * NS_PER_MS, text, "median %u ns", median);
    printf("# %s: %u round trips, median %u us, worst %u us\n", name, witness->trips, median / 1000,
           witness->trips_ns[witness->trips - 1] / 1000);
}

/* ------------------------------------------------------------------------------------ small things */

static const struct bytes nothing = {NULL, 0};

static uint64_t environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != 0 ? strtoull(text, NULL, 10) : otherwise;
}

/* What the node says that its data take: logs, tables and sessions of all shards. */
static int64_t data_kib(const struct node *node)
{
    struct stranger peer;
    struct frame_reply reply;
    struct bytes text = {NULL, 0};
    int64_t bytes = 0;
    if (!stranger_open(&peer, node->address, CACHE, 0)) return 0;
    stranger_put_request(&peer, FRAME_INFO, 1, (struct bytes){NULL, 0}, (struct bytes){NULL, 0});
    if (stranger_flush(&peer) && stranger_reply(&peer, 1, &reply, &text)) {
        static const char name[] = "\"memory_bytes\":";
        const char *at = text.data;
        const char *end = at + text.size;
        while ((at = memmem(at, (size_t)(end - at), name, sizeof name - 1)) != NULL)
            bytes += strtoll(at += sizeof name - 1, NULL, 10);
    }
    stranger_close(&peer, false);
    return bytes >> 10;
}

/* Memory of the process beside its data. */
static int64_t overhead_kib(const struct node *node)
{
    return process_memory_kib(node->pid) - data_kib(node);
}

/* Reads until the node ends the link; false: it does not, or what it sends is broken. */
static bool read_to_end(struct stranger *peer)
{
    const uint8_t *frame;
    enum stranger_got got;
    do {
        got = stranger_next(peer, STRANGER_WAIT_MS, &frame);
    } while (got == STRANGER_FRAME);
    return got == STRANGER_OVER;
}

/* The refusal that ends the link; false: none came. */
static bool read_refusal(struct stranger *peer, struct frame_refuse *refuse)
{
    const uint8_t *frame;
    while (stranger_next(peer, STRANGER_WAIT_MS, &frame) == STRANGER_FRAME) {
        if (frame[4] != FRAME_REFUSE) continue;
        memcpy(refuse, frame, sizeof *refuse);
        return true;
    }
    return false;
}

static uint8_t *filled(size_t bytes)
{
    uint8_t *data = memory_take(bytes);
    ASSERT(data != NULL);
    memset(data, 'v', bytes);
    return data;
}

/* ---------------------------------------------------------------------------------------- cases */

/*
 * A process that sends updates without end is killed in the middle of one, again and again.
 */
#define KILLED_COUNT 40

static pid_t fork_sender(struct stranger *peer)
{
    static uint8_t value[5000];
    pid_t pid = fork();
    if (pid != 0) return pid;
    peer->out_bytes = 0;
    for (uint32_t seq = 1; seq < 100; seq++)
        stranger_put_request(peer, FRAME_UPDATE, seq, bytes_of("killed"),
                             (struct bytes){value, sizeof value - seq % 8});
    /* An odd number of bytes at a time: the end of what was written is never a frame's. */
    for (size_t sent = 0;; sent = (sent + 4999) % (peer->out_bytes - 4999))
        if (send(peer->fd, peer->out + sent, 4999, MSG_NOSIGNAL) < 0) _exit(0);
}

static void killed(const struct node *node)
{
    unsigned opened = 0;
    for (unsigned i = 0; i < KILLED_COUNT; i++) {
        struct stranger peer;
        const uint8_t *frame;
        if (!stranger_open(&peer, node->address, CACHE, 0)) break;
        pid_t pid = fork_sender(&peer);
        ASSERT(pid > 0);
        /* It is under way when something of it has an answer. */
        bool answered = stranger_next(&peer, STRANGER_WAIT_MS, &frame) == STRANGER_FRAME;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        stranger_close(&peer, i % 2 == 0);
        opened += answered;
    }
    fact(opened == KILLED_COUNT, "killed: each sender was under way", "%u", opened);
}

/*
 * Peers that ask for large values and read none of them. Their requests stop being taken, so what
 * they can send is bounded; and when they read at last, all is there.
 */
#define NEVER_READ_PEERS 8
#define NEVER_READ_VALUE ((size_t)8 << 10)
/* Nobody takes a byte for so long: the node has stopped reading. */
#define NEVER_READ_QUIET_MS 300
/* What the kernel's buffers and the node's window hold of 32-byte requests, generously. */
#define NEVER_READ_BYTES_MAX ((uint64_t)32 << 20)

static uint64_t ask_until_stopped(struct stranger *peer, uint32_t *asked)
{
    uint64_t sent = 0;
    while (sent < NEVER_READ_BYTES_MAX) {
        while (peer->out_bytes < 32768)
            stranger_put_request(peer, FRAME_GET, ++*asked, bytes_of("large"), nothing);
        size_t before = peer->out_bytes;
        (void)stranger_try_flush(peer);
        sent += before - peer->out_bytes;
        struct pollfd ready = {.fd = peer->fd, .events = POLLOUT};
        if (poll(&ready, 1, NEVER_READ_QUIET_MS) == 0) break;
    }
    return sent;
}

static bool reads_all(struct stranger *peer, uint32_t asked)
{
    const uint8_t *frame;
    while (peer->replies < asked) {
        if (peer->out_bytes > 0) (void)stranger_try_flush(peer);
        enum stranger_got got = stranger_take(peer, &frame);
        if (got == STRANGER_SILENCE) got = stranger_next(peer, STRANGER_WAIT_MS, &frame);
        if (got != STRANGER_FRAME) return false;
    }
    return true;
}

static void never_reads(const struct node *node)
{
    struct stranger peers[NEVER_READ_PEERS];
    uint32_t asked[NEVER_READ_PEERS] = {0};
    struct frame_reply reply;
    struct bytes got;
    uint64_t sent_most = 0;
    uint8_t *value = filled(NEVER_READ_VALUE);
    for (unsigned i = 0; i < NEVER_READ_PEERS; i++) {
        if (!stranger_open(&peers[i], node->address, CACHE, 0)) {
            fact(false, "never reads: the peers connect", "%u did", i);
            return;
        }
    }
    stranger_put_request(&peers[0], FRAME_UPDATE, 0, bytes_of("large"),
                         (struct bytes){value, NEVER_READ_VALUE});
    memory_put(value);
    bool is_set = stranger_flush(&peers[0]) && stranger_reply(&peers[0], 0, &reply, &got);
    peers[0].replies = 0;
    fact(is_set, "never reads: there is something to ask for", "no reply");
    int64_t memory_kib = process_memory_kib(node->pid);
    for (unsigned i = 0; i < NEVER_READ_PEERS; i++)
        sent_most = max_u64(sent_most, ask_until_stopped(&peers[i], &asked[i]));
    int64_t growth_kib = process_memory_kib(node->pid) - memory_kib;
    fact(sent_most < NEVER_READ_BYTES_MAX, "never reads: the node stops reading such a peer",
         "it took %llu bytes", (unsigned long long)sent_most);
    /* An outbox of 1 MiB, twice, and a window of 4 MiB, each at its worst twice its size. */
    fact(growth_kib < FACT_MEMORY_FACTOR * NEVER_READ_PEERS * (12 << 10),
         "never reads: memory is bounded", "%u peers cost %lld KiB", NEVER_READ_PEERS,
         (long long)growth_kib);
    printf("# never reads: a peer sends %llu bytes, %u cost %lld KiB\n",
           (unsigned long long)sent_most, NEVER_READ_PEERS, (long long)growth_kib);
    fact(reads_all(&peers[0], asked[0]), "never reads: who reads at last finds all replies",
         "%llu of %u", (unsigned long long)peers[0].replies, asked[0]);
    for (unsigned i = 0; i < NEVER_READ_PEERS; i++) stranger_close(&peers[i], i % 2 == 0);
}

/* Thousands of connections that come to nothing: closed, reset, or with a piece of HELLO sent. */
#define STORM_COUNT 4000

static void storm(const struct node *node)
{
    unsigned connected = 0;
    for (unsigned i = 0; i < STORM_COUNT; i++) {
        struct stranger peer;
        if (stranger_connect(&peer, node->address) < 0) continue;
        connected++;
        stranger_put_hello(&peer, i, HELLO_SHARD_ANY);
        if (i % 4 == 1) peer.out_bytes = i % peer.out_bytes;
        if (i % 4 == 2) stranger_put_bytes(&peer, "GET / HTTP/1.1\r\n\r\n", 18);
        if (i % 4 != 0) (void)stranger_try_flush(&peer);
        stranger_close(&peer, i % 3 == 0);
    }
    fact(connected == STORM_COUNT, "storm: each connection is taken", "%u of %u", connected,
         STORM_COUNT);
}

/* A whole conversation, one byte a packet. */
static void slow(const struct node *node)
{
    struct stranger peer;
    struct frame_reply reply;
    struct bytes value;
    bool is_sent = stranger_connect(&peer, node->address) == 0;
    stranger_put_hello(&peer, rng_secret_u64(), HELLO_SHARD_ANY);
    stranger_put_open(&peer, CACHE);
    stranger_put_request(&peer, FRAME_UPDATE, 1, bytes_of("slow"), bytes_of("but sure"));
    stranger_put_request(&peer, FRAME_GET, 2, bytes_of("slow"), nothing);
    for (size_t i = 0; i < peer.out_bytes && is_sent; i++)
        is_sent = send(peer.fd, peer.out + i, 1, MSG_NOSIGNAL) == 1;
    fact(is_sent, "slow: byte by byte goes out", "%s", strerror(errno));
    fact(is_sent && stranger_reply(&peer, 2, &reply, &value) &&
             bytes_equal(value, bytes_of("but sure")),
         "slow: byte by byte is answered", "%llu replies", (unsigned long long)peer.replies);
    stranger_close(&peer, false);
}

/* Peers that never finish their HELLO, and some that say nothing. */
#define SILENT_COUNT 200

static void silent(const struct node *node)
{
    static struct stranger peers[SILENT_COUNT];
    unsigned timed_out = 0;
    unsigned ended = 0;
    for (unsigned i = 0; i < SILENT_COUNT; i++) {
        if (stranger_connect(&peers[i], node->address) < 0) continue;
        stranger_put_hello(&peers[i], 1, HELLO_SHARD_ANY);
        peers[i].out_bytes = i % peers[i].out_bytes;
        (void)stranger_try_flush(&peers[i]);
    }
    for (unsigned i = 0; i < SILENT_COUNT; i++) {
        struct frame_refuse refuse;
        timed_out += read_refusal(&peers[i], &refuse) && refuse.prefix.small == ERROR_TIMEOUT &&
                     refuse.limit > 0;
        ended += read_to_end(&peers[i]);
        stranger_close(&peers[i], false);
    }
    fact(timed_out == SILENT_COUNT, "silent: who says no HELLO is told so", "%u of %u", timed_out,
         SILENT_COUNT);
    fact(ended == SILENT_COUNT, "silent: and its link ends", "%u of %u", ended, SILENT_COUNT);
}

/* Many requests, then the end of writing: all are answered, then the link ends in order. */
#define HALF_CLOSED_REQUESTS 20000

static void half_closed(const struct node *node)
{
    struct stranger peer;
    bool is_open = stranger_open(&peer, node->address, CACHE, rng_secret_u64());
    fact(is_open, "half-closed: it connects", "no answer");
    if (!is_open) return;
    for (uint32_t seq = 1; seq <= HALF_CLOSED_REQUESTS; seq++) {
        char key[16];
        snprintf(key, sizeof key, "half %u", seq % 1000);
        stranger_put_request(&peer, seq % 2 == 0 ? FRAME_GET : FRAME_UPDATE, seq, bytes_of(key),
                             seq % 2 == 0 ? nothing : bytes_of("value"));
    }
    bool is_sent = stranger_flush(&peer);
    shutdown(peer.fd, SHUT_WR);
    bool is_over = read_to_end(&peer);
    fact(is_sent && peer.replies == HALF_CLOSED_REQUESTS, "half-closed: all replies come",
         "%llu of %u", (unsigned long long)peer.replies, HALF_CLOSED_REQUESTS);
    fact(is_over && peer.over_err == 0, "half-closed: then the link ends in order", "%s",
         strerror(-peer.over_err));
    stranger_close(&peer, false);
}

/*
 * Updates that want no reply, of the slots of all shards, more than lanes and windows hold: none of
 * them is told when there is room again, and yet all are applied.
 */
#define UNASKED_REQUESTS 100000

static void unasked(const struct node *node)
{
    struct stranger peer;
    const uint8_t value[100] = "value";
    const uint8_t *frame;
    bool is_open = stranger_open(&peer, node->address, CACHE, 0);
    for (uint32_t seq = 1; seq <= UNASKED_REQUESTS && is_open; seq++) {
        char key[24];
        size_t bytes = (size_t)snprintf(key, sizeof key, "unasked %u", seq % 10000);
        size_t at = peer.out_bytes;
        stranger_put_request(&peer, FRAME_UPDATE, seq, (struct bytes){key, bytes},
                             (struct bytes){value, sizeof value});
        peer.out[at + 5] &= (uint8_t)~FRAME_WANT;
    }
    bool is_sent = is_open && stranger_flush(&peer);
    while (is_sent && peer.acked_requests < UNASKED_REQUESTS)
        if (stranger_next(&peer, STRANGER_WAIT_MS, &frame) != STRANGER_FRAME) break;
    fact(peer.acked_requests == UNASKED_REQUESTS, "unasked: all are taken", "%u of %u",
         peer.acked_requests, UNASKED_REQUESTS);
    stranger_close(&peer, false);
}

/* Links that want any shard are dealt to all of them. */
static void spread(const struct node *node)
{
    struct stranger peers[16];
    uint64_t shards = environment("SHARDS", 1);
    unsigned seen[16] = {0};
    for (unsigned i = 0; i < ARRAY_COUNT(peers); i++)
        if (stranger_open(&peers[i], node->address, CACHE, 0)) seen[peers[i].shard % 16]++;
    for (uint64_t i = 0; i < shards; i++)
        fact(seen[i] >= ARRAY_COUNT(peers) / shards / 2, "spread: each shard has its share",
             "shard %llu has %u of %zu", (unsigned long long)i, seen[i], ARRAY_COUNT(peers));
    for (unsigned i = 0; i < ARRAY_COUNT(peers); i++) stranger_close(&peers[i], false);
}

/* ------------------------------------------------------------------------------------- refusals */

struct refused {
    const char *name;
    enum reply_error error;
    uint64_t got;
    uint64_t limit;
};

/* Sends what was put; the node must refuse it so, and end the link. */
static void expect_refusal(struct stranger *peer, const struct refused *expected)
{
    struct frame_refuse refuse = {.prefix.small = 0};
    bool is_sent = stranger_flush(peer);
    bool is_refused = is_sent && read_refusal(peer, &refuse);
    fact(is_refused && refuse.prefix.small == expected->error && refuse.got == expected->got &&
             refuse.limit == expected->limit,
         expected->name, "error %u, got %llu, limit %llu", refuse.prefix.small,
         (unsigned long long)refuse.got, (unsigned long long)refuse.limit);
    bool is_over = read_to_end(peer);
    if (!is_over) fact(false, expected->name, "the link does not end");
    stranger_close(peer, false);
}

/* A HELLO with one field changed: `bytes` at `offset`. */
static void refuse_hello(const struct node *node, size_t offset, const void *bytes, size_t size,
                         const struct refused *expected)
{
    struct stranger peer;
    int err = stranger_connect(&peer, node->address);
    ASSERT(err == 0);
    stranger_put_hello(&peer, 0, HELLO_SHARD_ANY);
    memcpy(peer.out + offset, bytes, size);
    expect_refusal(&peer, expected);
}

/* A request whose header has one field changed. */
static void refuse_request(const struct node *node, size_t offset, const void *bytes, size_t size,
                           const struct refused *expected)
{
    struct stranger peer;
    if (!stranger_open(&peer, node->address, CACHE, 0)) {
        fact(false, expected->name, "no connection");
        return;
    }
    stranger_put_request(&peer, FRAME_UPDATE, 1, bytes_of("28"), bytes_of("changed"));
    memcpy(peer.out + offset, bytes, size);
    expect_refusal(&peer, expected);
}

static void refused_hellos(const struct node *node)
{
    const uint16_t version = 7;
    const uint16_t shard = 999;
    const uint8_t magic = 'X';
    const uint32_t length = 1u << 20;
    const uint32_t too_short = 3;
    refuse_hello(node, 6, &version, sizeof version,
                 &(struct refused){"refused: another version", ERROR_PROTOCOL, 7, 1});
    refuse_hello(
        node, 8, &magic, sizeof magic,
        &(struct refused){"refused: another magic", ERROR_PROTOCOL, 0x4f524558u, HELLO_MAGIC});
    refuse_hello(node, 12, &shard, sizeof shard,
                 &(struct refused){"refused: a shard that is not there", ERROR_INVALID, 999,
                                   environment("SHARDS", 1) - 1});
    refuse_hello(node, 0, &too_short, sizeof too_short,
                 &(struct refused){"refused: a first frame shorter than its prefix", ERROR_PROTOCOL,
                                   3, sizeof(struct frame_prefix)});
    refuse_hello(
        node, 0, &length, sizeof length,
        &(struct refused){"refused: a first frame over the limit", ERROR_PROTOCOL, length, 4096});
}

/* A whole frame that has less than a request's header, and nothing behind it. */
static void refuse_short(const struct node *node, uint32_t length)
{
    struct stranger peer;
    char name[80];
    const struct frame_prefix prefix = {.length = length, .type = FRAME_UPDATE};
    const uint8_t zeros[FRAME_REQUEST_BYTES] = {0};
    snprintf(name, sizeof name, "refused: a request of %u bytes and no more", length);
    if (!stranger_open(&peer, node->address, CACHE, 0)) {
        fact(false, name, "no connection");
        return;
    }
    stranger_put_bytes(&peer, &prefix, sizeof prefix);
    stranger_put_bytes(&peer, zeros, round_up_8(length) - sizeof prefix);
    expect_refusal(&peer, &(struct refused){name, ERROR_PROTOCOL, length, FRAME_REQUEST_BYTES});
}

static void refused_requests(const struct node *node)
{
    const uint32_t too_long = 15u << 20;
    const uint32_t too_short = 7;
    const uint32_t shorter_than_header = 16;
    const uint16_t key_len = 60000;
    const uint8_t reserved_flag = 0xa6;
    const uint8_t server_type = FRAME_WELCOME;
    refuse_short(node, 8);
    refuse_short(node, 15);
    refuse_short(node, 16);
    refuse_short(node, 23);
    refuse_request(node, 0, &too_long, sizeof too_long,
                   &(struct refused){"refused: a frame over the limit", ERROR_PROTOCOL, too_long,
                                     environment("FRAME_MAX", 1050136)});
    refuse_request(node, 0, &too_short, sizeof too_short,
                   &(struct refused){"refused: a frame shorter than its prefix", ERROR_PROTOCOL, 7,
                                     sizeof(struct frame_request)});
    refuse_request(node, 0, &shorter_than_header, sizeof shorter_than_header,
                   &(struct refused){"refused: a request shorter than its header", ERROR_PROTOCOL,
                                     16, sizeof(struct frame_request)});
    refuse_request(
        node, 6, &key_len, sizeof key_len,
        &(struct refused){"refused: a key longer than its frame", ERROR_PROTOCOL, 60000, 9});
    refuse_request(node, 5, &reserved_flag, sizeof reserved_flag,
                   &(struct refused){"refused: a reserved flag", ERROR_PROTOCOL, 0xa6, 0x26});
    refuse_request(node, 4, &server_type, sizeof server_type,
                   &(struct refused){"refused: a frame that only nodes send", ERROR_PROTOCOL,
                                     FRAME_WELCOME, FRAME_UPDATE});
}

static void failed_request(struct stranger *peer, uint32_t seq, enum reply_error error,
                           const char *words, const char *name)
{
    struct frame_reply reply = {.code = 0};
    struct bytes text = nothing;
    bool is_sent = stranger_flush(peer);
    bool came = is_sent && stranger_reply(peer, seq, &reply, &text);
    char copy[300] = "";
    if (came) memcpy(copy, text.data, min_u64(text.size, sizeof copy - 1));
    fact(came && reply.code == reply_code(OUTCOME_FAIL, error) && strstr(copy, words) != NULL, name,
         "code %x, \"%s\"", reply.code, copy);
}

static void refused(const struct node *node)
{
    struct stranger peer;
    struct frame_reply reply;
    struct bytes value;
    bool is_open = stranger_open(&peer, node->address, CACHE, 0);
    ASSERT(is_open);
    stranger_put_request(&peer, FRAME_UPDATE, 1, bytes_of("28"), bytes_of("before"));
    bool is_set = stranger_flush(&peer) && stranger_reply(&peer, 1, &reply, &value);
    fact(is_set, "refused: there is something to change", "no reply");
    refused_hellos(node);
    refused_requests(node);

    uint8_t *large = filled(1048577);
    stranger_put_request(&peer, FRAME_UPDATE, 2, (struct bytes){large, 1025}, bytes_of("x"));
    failed_request(&peer, 2, ERROR_TOO_BIG, "1025 bytes is over the limit of 1024",
                   "refused: a key over the limit, both values named");
    stranger_put_request(&peer, FRAME_UPDATE, 3, bytes_of("28"), (struct bytes){large, 1048577});
    failed_request(&peer, 3, ERROR_TOO_BIG, "1048577 bytes is over the limit of 1048576",
                   "refused: a value over the limit, both values named");
    memory_put(large);
    stranger_put_request(&peer, FRAME_UPDATE, 4, nothing, bytes_of("x"));
    failed_request(&peer, 4, ERROR_INVALID, "key of 0 bytes", "refused: an empty key");
    const uint16_t no_slot = 60000;
    stranger_put_request(&peer, FRAME_INFO, 6, bytes_of("28"), nothing);
    memcpy(peer.out + 10, &no_slot, sizeof no_slot);
    failed_request(&peer, 6, ERROR_INVALID, "2 bytes of key", "refused: a key for INFO");
    stranger_put_request(&peer, FRAME_GET, 7, bytes_of("28"), nothing);
    memcpy(peer.out + 10, &no_slot, sizeof no_slot);
    failed_request(&peer, 7, ERROR_INVALID, "slot 60000 is not below 4096",
                   "refused: a slot that is none");

    stranger_put_request(&peer, FRAME_GET, 5, bytes_of("28"), nothing);
    bool came = stranger_flush(&peer) && stranger_reply(&peer, 5, &reply, &value);
    fact(came && bytes_equal(value, bytes_of("before")), "refused: and nothing has changed",
         "code %x", came ? reply.code : 0xffffu);
    stranger_close(&peer, false);
}

/* ------------------------------------------------------------------------------------- mutations */

struct stream {
    uint8_t *data;
    size_t size;
    size_t room;
};

#define FRAMES_MAX 64
/* Less than the node waits for anything. */
#define LATE_NS (1500 * NS_PER_MS)

/* Where the frames of a stream begin; the last one is its end. */
static unsigned frames_of(const uint8_t *data, size_t size, size_t begins[FRAMES_MAX + 1])
{
    unsigned count = 0;
    size_t at = 0;
    while (at < size && count < FRAMES_MAX) {
        uint32_t length;
        memcpy(&length, data + at, sizeof length);
        begins[count++] = at;
        at += round_up_8(length);
    }
    begins[count] = size;
    return count;
}

static void put_random_request(struct stranger *peer, struct rng *rng, uint32_t seq)
{
    static const uint8_t types[] = {FRAME_UPDATE, FRAME_UPDATE, FRAME_GET, FRAME_REMOVE,
                                    FRAME_VERB,   FRAME_INFO,   64,        FRAME_UPDATE};
    static uint8_t value[9000];
    char key[32];
    enum frame_type type = types[rng_below(rng, sizeof types)];
    struct extensions extensions = {.deadline_ms = 1000, .floor = 1, .verb = bytes_of("ECHO")};
    if (rng_below(rng, 3) == 0) extensions.present |= 1u << EXT_DEADLINE_MS | 1u << EXT_FLOOR;
    if (type == FRAME_VERB) extensions.present |= 1u << EXT_VERB;
    size_t key_bytes =
        (size_t)snprintf(key, sizeof key, "key %llu.part", (unsigned long long)rng_below(rng, 500));
    if (type == FRAME_INFO) key_bytes = 0;
    bool has_value = type == FRAME_UPDATE || type == FRAME_VERB || type == 64;
    size_t most = rng_below(rng, 8) == 0 ? sizeof value : 200;
    size_t value_bytes = has_value ? 1 + rng_below(rng, most - 1) : 0;
    stranger_put_extended(peer, type, seq, &extensions, (struct bytes){key, key_bytes},
                          (struct bytes){value, value_bytes});
}

/* A stream that a good client could send, in the peer's output. */
static void put_valid_stream(struct stranger *peer, struct rng *rng)
{
    stranger_put_hello(peer, rng_below(rng, 3) == 0 ? 0 : rng_next(rng), HELLO_SHARD_ANY);
    stranger_put_open(peer, CACHE);
    unsigned requests = (unsigned)rng_below(rng, 30);
    for (uint32_t seq = 1; seq <= requests; seq++) put_random_request(peer, rng, seq);
}

/* Exchanges two frames, or puts one in twice, or leaves one out. */
static void mutate_frames(struct stranger *peer, struct rng *rng)
{
    size_t begins[FRAMES_MAX + 1];
    unsigned count = frames_of(peer->out, peer->out_bytes, begins);
    if (count == 0) return;
    unsigned from = (unsigned)rng_below(rng, count);
    size_t size = begins[from + 1] - begins[from];
    uint8_t *copy = memory_take(size);
    ASSERT(copy != NULL);
    memcpy(copy, peer->out + begins[from], size);
    uint64_t way = rng_below(rng, 3);
    if (way > 0) { /* out it goes ... */
        memmove(peer->out + begins[from], peer->out + begins[from + 1],
                peer->out_bytes - begins[from + 1]);
        peer->out_bytes -= size;
    }
    if (way < 2) { /* ... and in, before another one or at the end */
        count = frames_of(peer->out, peer->out_bytes, begins);
        size_t to = begins[rng_below(rng, count + 1)];
        size_t behind = peer->out_bytes - to;
        stranger_put_bytes(peer, copy, size); /* for the room */
        memmove(peer->out + to + size, peer->out + to, behind);
        memcpy(peer->out + to, copy, size);
    }
    memory_put(copy);
}

/* A length, or another field of a header, that is not true. */
static void mutate_header(struct stranger *peer, struct rng *rng)
{
    static const uint32_t lies[] = {0,
                                    1,
                                    7,
                                    8,
                                    9,
                                    15,
                                    16,
                                    23,
                                    24,
                                    25,
                                    31,
                                    71,
                                    72,
                                    73,
                                    4095,
                                    4096,
                                    4097,
                                    65535,
                                    65536,
                                    1050136,
                                    1050137,
                                    1 << 24,
                                    (1 << 24) + 1,
                                    0x7fffffff,
                                    0x80000000,
                                    0xffffffff};
    size_t begins[FRAMES_MAX + 1];
    unsigned count = frames_of(peer->out, peer->out_bytes, begins);
    uint8_t *frame = peer->out + begins[rng_below(rng, count)];
    uint32_t lie = lies[rng_below(rng, ARRAY_COUNT(lies))];
    switch (rng_below(rng, 4)) {
    case 0: memcpy(frame, &lie, sizeof lie); break;
    case 1: frame[4] = (uint8_t)rng_next(rng); break;
    case 2: frame[5] = (uint8_t)rng_next(rng); break;
    default: memcpy(frame + 6, &lie, sizeof(uint16_t)); break;
    }
}

static void mutate_bits(struct stranger *peer, struct rng *rng)
{
    uint64_t flips = 1 + rng_below(rng, 8);
    /* Mostly near the beginning of a frame: a flip inside a value harms nobody. */
    size_t begins[FRAMES_MAX + 1];
    unsigned count = frames_of(peer->out, peer->out_bytes, begins);
    for (uint64_t i = 0; i < flips; i++) {
        size_t at = rng_below(rng, 2) == 0 ? rng_below(rng, peer->out_bytes)
                                           : begins[rng_below(rng, count)] + rng_below(rng, 16);
        if (at < peer->out_bytes) peer->out[at] ^= (uint8_t)(1u << rng_below(rng, 8));
    }
}

static void mutate(struct stranger *peer, struct rng *rng)
{
    uint64_t times = 1 + rng_below(rng, 3);
    /* Frames are found by their lengths, so what breaks those comes last. */
    for (uint64_t i = 0; i < times; i++) mutate_frames(peer, rng);
    if (peer->out_bytes == 0) return;
    switch (rng_below(rng, 5)) {
    case 0: break;
    case 1: peer->out_bytes = rng_below(rng, peer->out_bytes); break;
    case 2: mutate_header(peer, rng); break;
    case 3: mutate_bits(peer, rng); break;
    default:
        mutate_bits(peer, rng);
        mutate_bits(peer, rng);
        break;
    }
}

/* Noise from the first byte on, or behind a greeting. */
static void put_noise(struct stranger *peer, struct rng *rng)
{
    uint8_t noise[600];
    size_t bytes = rng_below(rng, sizeof noise);
    for (size_t i = 0; i < bytes; i++) noise[i] = (uint8_t)rng_next(rng);
    if (rng_below(rng, 2) == 0) {
        stranger_put_hello(peer, rng_next(rng), HELLO_SHARD_ANY);
        stranger_put_open(peer, CACHE);
    }
    stranger_put_bytes(peer, noise, bytes);
}

/* Bytes of requests in a stream of whole frames. */
static uint64_t request_bytes(const uint8_t *data, size_t size)
{
    uint64_t bytes = 0;
    for (size_t at = 0; at + FRAME_PREFIX_BYTES <= size;) {
        uint32_t length;
        memcpy(&length, data + at, sizeof length);
        size_t padded = round_up_8((size_t)length);
        if (length < FRAME_PREFIX_BYTES) return UINT64_MAX;
        if (data[at + 4] == FRAME_INFO || data[at + 4] >= FRAME_UPDATE) bytes += padded;
        at += padded;
    }
    return bytes;
}

/* A refusal that says what is wrong: an error of the protocol, and a text that can be read. */
static bool names_its_error(const uint8_t *frame)
{
    struct frame_refuse refuse;
    memcpy(&refuse, frame, sizeof refuse);
    uint16_t error = refuse.prefix.small;
    size_t bytes = refuse.prefix.length - sizeof refuse;
    bool is_named = error == ERROR_PROTOCOL || error == ERROR_INVALID || error == ERROR_DENIED ||
                    error == ERROR_UNSUPPORTED || error == ERROR_TIMEOUT || error == ERROR_BUSY;
    for (size_t i = 0; i < bytes; i++)
        if (frame[sizeof refuse + i] < ' ' || frame[sizeof refuse + i] > '~') return false;
    return is_named && bytes > 8;
}

/* What became of streams. */
struct ends {
    uint64_t refused; /* and told why */
    uint64_t taken;   /* to the last byte */
    uint64_t reset;   /* so that nobody knows what else was said */
    uint64_t left;    /* by us, without waiting */
};

/* Reads to the end of the link: it was refused with a reason, or all of it was taken. */
static bool ends_rightly(struct stranger *peer, size_t sent, struct ends *ends)
{
    const uint8_t *frame;
    enum stranger_got got;
    bool is_told = false;
    while ((got = stranger_next(peer, STRANGER_WAIT_MS, &frame)) == STRANGER_FRAME) {
        if (is_told) return false; /* it is the last frame */
        if (frame[4] == FRAME_REFUSE && !names_its_error(frame)) return false;
        is_told = frame[4] == FRAME_REFUSE;
    }
    /* Reset while frames were under way: the last one may be cut. */
    bool is_reset = peer->over_err != 0;
    if (got != STRANGER_OVER && !is_reset) return false;
    bool is_taken = request_bytes(peer->out, sent) == peer->acked_bytes;
    ends->refused += is_told;
    ends->reset += !is_told && is_reset;
    ends->taken += !is_told && !is_reset && is_taken;
    return is_told || is_reset || is_taken;
}

/* One stream: whatever becomes of it, the node must end the link when we have. */
static bool send_mutated(const struct node *node, struct rng *rng, struct ends *ends)
{
    struct stranger peer;
    if (stranger_connect(&peer, node->address) < 0) return false;
    if (rng_below(rng, 8) == 0) {
        put_noise(&peer, rng);
    } else {
        put_valid_stream(&peer, rng);
        mutate(&peer, rng);
    }
    /* In one piece or in several; the node may end the link meanwhile. */
    uint64_t pieces = 1 + rng_below(rng, 4);
    size_t sent = 0;
    for (uint64_t i = 1; i <= pieces && sent < peer.out_bytes; i++) {
        size_t until = i == pieces ? peer.out_bytes : peer.out_bytes * i / pieces;
        ssize_t bytes = send(peer.fd, peer.out + sent, until - sent, MSG_NOSIGNAL);
        if (bytes < 0) break;
        sent += (size_t)bytes;
    }
    bool ended = true;
    if (rng_below(rng, 8) > 0) {
        shutdown(peer.fd, SHUT_WR);
        ended = ends_rightly(&peer, sent, ends);
    } else {
        ends->left++;
    }
    stranger_close(&peer, rng_below(rng, 4) == 0);
    return ended;
}

static void mutated(const struct node *node)
{
    uint64_t seed = environment("SEED", 20);
    uint64_t streams = environment("STREAMS", 10000);
    int64_t memory_kib = 0;
    uint64_t bad = 0;
    uint64_t late = 0;
    struct ends ends = {0};
    for (uint64_t i = 0; i < streams; i++) {
        struct rng rng;
        rng_init(&rng, seed + i);
        uint64_t begin_ns = clock_now_ns();
        bool is_good = send_mutated(node, &rng, &ends);
        late += clock_now_ns() - begin_ns > LATE_NS;
        if (!is_good) {
            if (bad++ == 0)
                printf("# mutated: the first one with SEED=%llu STREAMS=1\n",
                       (unsigned long long)(seed + i));
            if (kill(node->pid, 0) != 0) break;
        }
        if (i == streams / 5) memory_kib = overhead_kib(node);
    }
    int64_t growth_kib = overhead_kib(node) - memory_kib;
    fact(bad == 0, "mutated: each is taken whole, or ends with a named error", "%llu do not",
         (unsigned long long)bad);
    fact(ends.refused > streams / 4 && ends.reset < streams / 50,
         "mutated: and hears of it, as no link is reset", "%llu were refused, %llu reset",
         (unsigned long long)ends.refused, (unsigned long long)ends.reset);
    fact(late == 0, "mutated: and soon after its last byte", "%llu do not",
         (unsigned long long)late);
    fact(growth_kib < GROWTH_KIB_MAX / 2,
         "mutated: the last four fifths cost no memory but for data", "%lld KiB",
         (long long)growth_kib);
    printf("# mutated: %llu streams: %llu refused, %llu taken whole, %llu reset, %llu left\n",
           (unsigned long long)streams, (unsigned long long)ends.refused,
           (unsigned long long)ends.taken, (unsigned long long)ends.reset,
           (unsigned long long)ends.left);
    printf("# mutated: the last four fifths cost %lld KiB\n", (long long)growth_kib);
}

/* ----------------------------------------------------------------------------------------- main */

struct hostile_case {
    const char *name;
    void (*run)(const struct node *node);
    bool is_alone; /* without the witness, whose requests keep a node awake */
};

static const struct hostile_case cases[] = {
    {.name = "killed", .run = killed},   {.name = "never-reads", .run = never_reads},
    {.name = "storm", .run = storm},     {.name = "slow", .run = slow},
    {.name = "silent", .run = silent},   {.name = "half-closed", .run = half_closed},
    {.name = "refused", .run = refused}, {.name = "mutated", .run = mutated},
    {.name = "spread", .run = spread},   {.name = "unasked", .run = unasked, .is_alone = true},
};

/* The node closes a link some time after its peer has: waits for that. */
static int settled_descriptors(const struct node *node, int wanted)
{
    int count = -1;
    for (unsigned i = 0; i < STRANGER_WAIT_MS / 10; i++) {
        count = process_descriptors(node->pid);
        if (count <= wanted) break;
        poll(NULL, 0, 10);
    }
    return count;
}

static void run_case(const struct node *node, const struct hostile_case *one)
{
    static struct witness witness;
    char text[80];
    int descriptors = process_descriptors(node->pid);
    int64_t memory_kib = overhead_kib(node);
    uint64_t begin_ns = clock_now_ns();
    if (!one->is_alone) witness_start(&witness, node);
    one->run(node);
    if (!one->is_alone) witness_end(&witness, one->name);
    int left = settled_descriptors(node, descriptors);
    snprintf(text, sizeof text, "%s: no descriptor is left open", one->name);
    fact(left >= 0 && left <= descriptors, text, "%d before, %d after", descriptors, left);
    int64_t growth_kib = overhead_kib(node) - memory_kib;
    snprintf(text, sizeof text, "%s: memory is as before", one->name);
    fact(growth_kib < GROWTH_KIB_MAX, text, "%lld KiB more", (long long)growth_kib);
    printf("# %s: %lld KiB more, %llu ms\n", one->name, (long long)growth_kib,
           (unsigned long long)((clock_now_ns() - begin_ns) / NS_PER_MS));
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: hostile ADDRESS PID CASE...\n");
        return 2;
    }
    const struct node node = {argv[1], (pid_t)strtol(argv[2], NULL, 10)};
    signal(SIGPIPE, SIG_IGN);
    for (int i = 3; i < argc; i++) {
        unsigned known = 0;
        for (size_t j = 0; j < ARRAY_COUNT(cases); j++) {
            if (strcmp(argv[i], cases[j].name) != 0) continue;
            run_case(&node, &cases[j]);
            known++;
        }
        if (known == 0) fact(false, argv[i], "no such case");
    }
    return facts_failed() > 0 ? 1 : 0;
}
