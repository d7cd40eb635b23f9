/*
 * The machine's limit: a bare loop over TCP on loopback that moves the bytes of fero's server and
 * does the memory work of a replicated store, and nothing else.
 *
 * What the server does for each message, as any store of this kind must: check the header and its
 * bounds, hash the key (XXH3, seeded), find its bucket (one line of 64 bytes, about 4 keys each),
 * compare the key with the record that the bucket points to, append the change to a log in memory
 * (a header of 56 bytes, key, value), point the bucket at it, write a reply. All keys are in the
 * table before the first message.
 *
 * What it leaves out: sessions and retries, clocks, handlers, checksums of the log, replicas, other
 * shards, flow control beyond TCP's, limits on memory, io_uring. So fero cannot be faster than this
 * by being clever; how near it comes is what a bench of fero tells.
 *
 * The frames are fero's (src/wire/frame.h) but written down here again, for the limit must not move
 * when fero does:
 *
 *   request   24 bytes of header, 8 of key, the value, zeros up to a multiple of 8
 *   reply     16 bytes of header, its value, zeros up to a multiple of 8
 *   record    56 bytes of header, then key, value and zeros as in the request
 */
#include "bench/limit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "base/hash.h"
#include "base/memory.h"
#include "bench/cpus.h"
#include "cli/command.h"
#include "cli/number.h"

struct header {
    uint32_t length; /* header, key and value */
    uint8_t type;
    uint8_t flags;
    uint16_t key_len;
    uint16_t cache;
    uint16_t slot;
    uint32_t seq;
    uint64_t hash; /* a client sends 0: the server hashes */
};
_Static_assert(sizeof(struct header) == 24, "as on the wire");

struct request {
    struct header header;
    uint64_t key; /* every key has 8 bytes here; the value follows */
};
#define KEY_BYTES sizeof(uint64_t)

struct reply {
    uint32_t length;
    uint8_t type;
    uint8_t flags;
    uint16_t code;
    uint32_t seq;
    uint32_t offset;
};
_Static_assert(sizeof(struct reply) == 16, "as on the wire");

struct record {
    struct header header;
    uint64_t place;
    uint64_t offset;
    uint64_t time;
    uint64_t hash; /* beside the key, so that the comparison costs one line */
    uint64_t key;  /* the value follows */
};
_Static_assert(offsetof(struct record, key) == 56, "the header of a change");
#define RECORD_GROWTH (sizeof(struct record) - sizeof(struct request))

#define TYPE_REPLY 7
#define TYPE_UPDATE 16

/* Copies run in whole lines, up to a line beyond their end. */
#define SLACK CACHE_LINE

static ALWAYS_INLINE void copy_lines(uint8_t *to, const uint8_t *from, size_t bytes)
{
    size_t at = 0;
    do {
        memcpy(to + at, from + at, CACHE_LINE);
        at += CACHE_LINE;
    } while (at < bytes);
}

/* ---- The store ------------------------------------------------------------------------------ */

#define BUCKET_ENTRIES 7
#define KEYS_PER_BUCKET 4
#define ADDRESS_BITS 37
#define ADDRESS (((uint64_t)1 << ADDRESS_BITS) - 1)
#define BYTE_ONES 0x0101010101010101u
#define HASH_SEED 0x9e3779b97f4a7c15u

/* An entry is 27 bits of the key's hash above its record's address in units of 8 bytes. */
struct bucket {
    uint64_t tags; /* a byte of the hash for each entry; 0: no entry; the top byte is unused */
    uint64_t entries[BUCKET_ENTRIES];
};
_Static_assert(sizeof(struct bucket) == CACHE_LINE, "one bucket is one cache line");

struct store {
    struct bucket *buckets;
    uint64_t buckets_count; /* a power of two */
    uint8_t *log;           /* a ring; a record never wraps */
    uint64_t log_bytes;
    uint64_t tail;
    uint64_t laps;
    uint64_t places;
    uint64_t matched; /* records whose key was the one looked for */
};

/* Requests on their way through the three passes. */
#define GROUP 32
#define LOG_AHEAD (2 * KIB)
struct step {
    const struct request *request;
    uint32_t bytes; /* of the frame, padded */
    uint64_t hash;
    struct bucket *bucket;
    uint64_t *entry;
    const struct record *old; /* NULL: the key is new */
};

static int store_init(struct store *store, uint32_t keys, uint64_t log_bytes)
{
    uint64_t count = 1;
    while (count * KEYS_PER_BUCKET < keys) count *= 2;
    *store = (struct store){.buckets_count = count, .log_bytes = log_bytes};
    store->buckets = memory_reserve(count * sizeof(struct bucket), 1);
    store->log = memory_reserve(log_bytes + SLACK, 1);
    if (store->buckets == NULL || store->log == NULL) return -ENOMEM;
    memory_touch(store->buckets, count * sizeof(struct bucket));
    memory_touch(store->log, log_bytes + SLACK);
    return 0;
}

/* After a failed init too. */
static void store_deinit(struct store *store)
{
    memory_release(store->log, store->log_bytes + SLACK);
    memory_release(store->buckets, store->buckets_count * sizeof(struct bucket));
}

static ALWAYS_INLINE uint64_t tag_of(uint64_t hash)
{
    uint64_t tag = hash >> 56;
    return tag == 0 ? 1 : tag;
}

static ALWAYS_INLINE uint64_t hash_bits(uint64_t hash)
{
    return hash >> 6 << ADDRESS_BITS;
}

/* A bit, the top one of its byte, for each tag that is `tag`; perhaps one above a right one too. */
static ALWAYS_INLINE uint64_t tags_match(uint64_t tags, uint64_t tag)
{
    uint64_t difference = tags ^ (tag * BYTE_ONES);
    uint64_t zeros = (difference - BYTE_ONES) & ~difference & (BYTE_ONES << 7);
    return zeros << 8 >> 8;
}

static ALWAYS_INLINE void step_hash(const struct store *store, struct step *step)
{
    step->hash = hash_key(&step->request->key, KEY_BYTES, HASH_SEED);
    step->bucket = &store->buckets[step->hash & (store->buckets_count - 1)];
    __builtin_prefetch(step->bucket, 1);
}

static ALWAYS_INLINE void step_probe(const struct store *store, struct step *step)
{
    struct bucket *bucket = step->bucket;
    uint64_t match = tags_match(bucket->tags, tag_of(step->hash));
    step->old = NULL;
    for (; match != 0; match &= match - 1) {
        uint64_t *entry = &bucket->entries[__builtin_ctzll(match) / 8];
        if (((*entry ^ hash_bits(step->hash)) & ~ADDRESS) != 0) continue;
        step->entry = entry;
        step->old = (const struct record *)(store->log + ((*entry & ADDRESS) << 3));
        __builtin_prefetch(&step->old->hash, 0, 0); /* read once: it is garbage afterwards */
        return;
    }
}

/* An entry for a new key; in a full bucket it takes another key's. */
static NO_INLINE uint64_t *bucket_add(struct bucket *bucket, uint64_t hash)
{
    uint64_t free = tags_match(bucket->tags, 0);
    unsigned at = (unsigned)(hash >> 32) % BUCKET_ENTRIES;
    if (free != 0) at = (unsigned)__builtin_ctzll(free) / 8;
    bucket->tags &= ~((uint64_t)0xff << 8 * at);
    bucket->tags |= tag_of(hash) << 8 * at;
    return &bucket->entries[at];
}

static ALWAYS_INLINE struct record *log_append(struct store *store, const struct step *step)
{
    size_t bytes = step->bytes + RECORD_GROWTH;
    if (UNLIKELY(store->tail + bytes > store->log_bytes)) {
        store->tail = 0;
        store->laps++;
    }
    struct record *record = (struct record *)(store->log + store->tail);
    store->tail += bytes;
    /* A store to a line in no cache would wait for it. */
    uint8_t *ahead = store->log + store->tail + LOG_AHEAD;
    for (size_t at = 0; at < bytes; at += CACHE_LINE) __builtin_prefetch(ahead + at, 1);
    copy_lines((uint8_t *)&record->key, (const uint8_t *)&step->request->key,
               step->bytes - sizeof(struct header));
    record->header = step->request->header;
    record->header.length += RECORD_GROWTH;
    record->header.hash = step->hash;
    record->place = ++store->places;
    record->offset = store->places;
    record->time = store->places;
    record->hash = step->hash;
    return record;
}

static ALWAYS_INLINE void step_apply(struct store *store, struct step *step)
{
    const struct request *request = step->request;
    const struct record *old = step->old;
    if (LIKELY(old != NULL)) {
        store->matched += old->hash == step->hash && old->key == request->key;
    } else {
        step->entry = bucket_add(step->bucket, step->hash);
    }
    const struct record *record = log_append(store, step);
    uint64_t address = (uint64_t)((const uint8_t *)record - store->log);
    *step->entry = hash_bits(step->hash) | address >> 3;
}

/* Requests of 1 to `keys` as a run without a network, so that every key is there. */
static void store_fill(struct store *store, uint32_t keys, struct request *request)
{
    struct step step = {.request = request, .bytes = (uint32_t)round_up_8(request->header.length)};
    for (uint32_t key = 0; key < keys; key++) {
        request->key = key;
        step_hash(store, &step);
        step_probe(store, &step);
        step_apply(store, &step);
    }
}

/*
 * Reads all that the bucket entries point to: a checksum, or 0 where a record is not the entry's.
 * After more than one lap of the ring old entries point to bytes of other records.
 */
static uint64_t store_checksum(const struct store *store)
{
    uint64_t sum = store->matched + store->places;
    for (uint64_t b = 0; b < store->buckets_count; b++) {
        const struct bucket *bucket = &store->buckets[b];
        for (unsigned i = 0; i < BUCKET_ENTRIES; i++) {
            if ((bucket->tags >> 8 * i & 0xff) == 0) continue;
            uint64_t address = (bucket->entries[i] & ADDRESS) << 3;
            const struct record *record = (const struct record *)(store->log + address);
            uint64_t hash = hash_key(&record->key, KEY_BYTES, HASH_SEED);
            bool same = ((bucket->entries[i] ^ hash_bits(hash)) & ~ADDRESS) == 0;
            if (!same && store->laps == 0) return 0;
            sum = (sum ^ hash ^ bucket->entries[i]) * HASH_SEED;
        }
    }
    return sum | 1;
}

/* ---- Sockets -------------------------------------------------------------------------------- */

/* What both threads of a run share; neither writes it while they run. */
struct wiring {
    int *server_fds;
    int *client_fds;
    uint32_t count;
};

static int socket_tune(int fd, uint32_t socket_bytes)
{
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0) return -errno;
    if (socket_bytes == 0) return 0;
    int bytes = (int)socket_bytes;
    /* More than net.core.wmem_max takes privilege; without it the kernel gives what it may. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) < 0) {
        return -errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0 &&
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)) < 0) {
        return -errno;
    }
    return 0;
}

static int listen_anywhere(uint32_t socket_bytes, struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(*address);
    int err = socket_tune(fd, socket_bytes);
    if (err == 0 && (bind(fd, (struct sockaddr *)address, bytes) < 0 || listen(fd, 16) < 0 ||
                     getsockname(fd, (struct sockaddr *)address, &bytes) < 0)) {
        err = -errno;
    }
    if (err == 0) return fd;
    close(fd);
    return err;
}

static int connect_one(int listener, const struct sockaddr_in *address, uint32_t socket_bytes,
                       int *server_fd, int *client_fd)
{
    *client_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*client_fd < 0) return -errno;
    int err = socket_tune(*client_fd, socket_bytes);
    if (err < 0) return err;
    if (connect(*client_fd, (const struct sockaddr *)address, sizeof(*address)) < 0) return -errno;
    *server_fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC); /* cppcheck-suppress nullPointer */
    if (*server_fd < 0) return -errno;
    return socket_tune(*server_fd, socket_bytes);
}

static void wiring_deinit(struct wiring *wiring)
{
    for (uint32_t i = 0; wiring->server_fds != NULL && i < 2 * wiring->count; i++) {
        if (wiring->server_fds[i] >= 0) close(wiring->server_fds[i]);
    }
    memory_put(wiring->server_fds);
    *wiring = (struct wiring){0};
}

/* Connects `count` pairs of sockets. */
static int wiring_init(struct wiring *wiring, uint32_t count, uint32_t socket_bytes)
{
    *wiring = (struct wiring){.count = count};
    wiring->server_fds = memory_take(2 * count * sizeof(int));
    if (wiring->server_fds == NULL) return -ENOMEM;
    wiring->client_fds = wiring->server_fds + count;
    for (uint32_t i = 0; i < 2 * count; i++) wiring->server_fds[i] = -1;

    struct sockaddr_in address;
    int listener = listen_anywhere(socket_bytes, &address);
    int err = listener < 0 ? listener : 0;
    for (uint32_t i = 0; err == 0 && i < count; i++) {
        err = connect_one(listener, &address, socket_bytes, &wiring->server_fds[i],
                          &wiring->client_fds[i]);
    }
    if (listener >= 0) close(listener);
    if (err < 0) wiring_deinit(wiring);
    return err;
}

/* Wakes the other side out of whatever it waits for. */
static void wiring_hang_up(const int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) shutdown(fds[i], SHUT_RDWR);
}

static int epoll_of(const int *fds, uint32_t count)
{
    int poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) return -errno;
    for (uint32_t i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fds[i], &event) < 0) {
            int err = -errno;
            close(poller);
            return err;
        }
    }
    return poller;
}

static bool is_later(int err)
{
    return err == -EAGAIN || err == -EINTR;
}

/* Bytes, or a negative errno; the end of the stream is -EPIPE. */
static ssize_t receive(int fd, uint8_t *to, size_t bytes, int flags)
{
    ssize_t got = recv(fd, to, bytes, flags);
    if (got < 0) return -errno;
    return got == 0 ? -EPIPE : got;
}

static ssize_t send_some(int fd, const uint8_t *from, size_t bytes, int flags)
{
    ssize_t sent = send(fd, from, bytes, flags | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

/* ---- The server ----------------------------------------------------------------------------- */

#define OUT_BYTES ((size_t)256 * KIB)
#define EVENTS_MAX 64

/* A received frame that is not whole yet. */
struct spill {
    uint8_t *data;
    size_t bytes;
};

struct server {
    const struct limit_options *options;
    const struct wiring *wiring;
    struct store store;
    struct spill *spills; /* one a connection */
    uint8_t *in;
    uint8_t *out;
    uint8_t *answer; /* the value of replies, unless they echo */
    size_t out_bytes_max;
    size_t reply_bytes_max; /* a whole reply frame */
    size_t reply_value;     /* LIMIT_REPLY_ECHO, or its bytes */
    size_t frame_bytes_max;
    bool spins;
    uint64_t handled;
    uint64_t receives; /* measured ones */
    uint64_t cpu_start_ns;
    uint64_t cpu_end_ns;
    int err;
};

/* Checks the frame at `data`. Its padded bytes, 0 where it is not whole, or -EBADMSG. */
static ALWAYS_INLINE int64_t decode(const uint8_t *data, size_t bytes)
{
    if (bytes < sizeof(struct request)) return 0;
    const struct header *header = (const struct header *)data;
    size_t padded = round_up_8((size_t)header->length);
    if (UNLIKELY(header->length < sizeof(struct request) || header->type != TYPE_UPDATE ||
                 header->key_len != KEY_BYTES ||
                 padded > LIMIT_MESSAGE_BYTES_MAX + sizeof(struct request))) {
        return -EBADMSG;
    }
    return padded > bytes ? 0 : (int64_t)padded;
}

/* First pass: as many frames as are whole, up to a group. */
static ALWAYS_INLINE int decode_group(const struct server *server, struct step *steps,
                                      const uint8_t *data, size_t bytes, size_t *used)
{
    int count = 0;
    size_t at = 0;
    while (count < GROUP) {
        int64_t frame_bytes = decode(data + at, bytes - at);
        if (UNLIKELY(frame_bytes <= 0)) {
            if (frame_bytes < 0) return (int)frame_bytes;
            break;
        }
        steps[count].request = (const struct request *)(data + at);
        steps[count].bytes = (uint32_t)frame_bytes;
        step_hash(&server->store, &steps[count]);
        at += (size_t)frame_bytes;
        count++;
    }
    *used = at;
    return count;
}

static ALWAYS_INLINE size_t put_reply(const struct server *server, const struct step *step,
                                      uint8_t *to)
{
    const struct request *request = step->request;
    bool echoes = server->reply_value == LIMIT_REPLY_ECHO;
    size_t value_bytes =
        echoes ? request->header.length - sizeof(struct header) : server->reply_value;
    struct reply *reply = (struct reply *)to;
    reply->length = (uint32_t)(sizeof(*reply) + value_bytes);
    reply->type = TYPE_REPLY;
    reply->flags = 0;
    reply->code = 0;
    reply->seq = request->header.seq;
    reply->offset = (uint32_t)server->store.places;
    if (value_bytes > 0) {
        copy_lines(to + sizeof(*reply), echoes ? (const uint8_t *)&request->key : server->answer,
                   value_bytes);
    }
    return sizeof(*reply) + round_up_8(value_bytes);
}

static int flush(const struct server *server, int fd, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t sent = send_some(fd, server->out + at, bytes - at, 0);
        if (sent < 0 && !is_later((int)sent)) return (int)sent;
        if (sent > 0) at += (size_t)sent;
    }
    return 0;
}

/* Handles all whole frames of `data` and sends their replies. Returns the bytes used. */
static int64_t handle(struct server *server, int fd, const uint8_t *data, size_t bytes)
{
    struct step steps[GROUP];
    size_t at = 0;
    size_t out = 0;
    while (true) {
        size_t used = 0;
        int count = decode_group(server, steps, data + at, bytes - at, &used);
        if (count < 0) return count;
        if (count == 0) break;
        at += used;
        for (int i = 0; i < count; i++) step_probe(&server->store, &steps[i]);
        for (int i = 0; i < count; i++) {
            step_apply(&server->store, &steps[i]);
            out += put_reply(server, &steps[i], server->out + out);
        }
        server->handled += (uint64_t)count;
        if (out + GROUP * server->reply_bytes_max > server->out_bytes_max) {
            int err = flush(server, fd, out);
            if (err < 0) return err;
            out = 0;
        }
    }
    int err = flush(server, fd, out);
    return err < 0 ? err : (int64_t)at;
}

/* One receive of one connection, and its replies. */
static int serve_once(struct server *server, uint32_t link, int flags)
{
    struct spill *spill = &server->spills[link];
    int fd = server->wiring->server_fds[link];
    if (spill->bytes > 0) memcpy(server->in, spill->data, spill->bytes);
    ssize_t got = receive(fd, server->in + spill->bytes, server->options->receive_bytes, flags);
    if (got < 0) return is_later((int)got) ? 0 : (int)got;
    size_t bytes = spill->bytes + (size_t)got;
    int64_t used = handle(server, fd, server->in, bytes);
    if (used < 0) return (int)used;
    spill->bytes = bytes - (size_t)used;
    ASSERT(spill->bytes < server->frame_bytes_max);
    if (spill->bytes > 0) memcpy(spill->data, server->in + used, spill->bytes);
    server->receives++;
    return 0;
}

static int serve_ready(struct server *server, int poller)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(poller, events, EVENTS_MAX, server->spins ? 0 : -1);
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        int err = serve_once(server, events[i].data.u32, MSG_DONTWAIT);
        if (err < 0) return err;
    }
    return 0;
}

/* Until `handled` is `until`. */
static int serve(struct server *server, int poller, uint64_t until)
{
    int err = 0;
    int flags = server->spins ? MSG_DONTWAIT : 0;
    while (err == 0 && server->handled < until) {
        err = poller >= 0 ? serve_ready(server, poller) : serve_once(server, 0, flags);
    }
    return err;
}

static int server_run(struct server *server)
{
    const struct limit_options *options = server->options;
    const struct wiring *wiring = server->wiring;
    int poller = -1;
    if (wiring->count > 1) {
        poller = epoll_of(wiring->server_fds, wiring->count);
        if (poller < 0) return poller;
    }
    int err = serve(server, poller, options->records_warmup);
    uint64_t early = server->handled;
    server->receives = 0;
    server->cpu_start_ns = clock_thread_cpu_ns();
    if (err == 0) err = serve(server, poller, options->records_warmup + options->records);
    server->cpu_end_ns = clock_thread_cpu_ns();
    server->handled -= early;
    if (poller >= 0) close(poller);
    return err;
}

static void *server_thread(void *context)
{
    struct server *server = context;
    server->err = cpus_pin((uint16_t)server->options->server_cpu);
    if (server->err == 0) server->err = server_run(server);
    if (server->err < 0) wiring_hang_up(server->wiring->server_fds, server->wiring->count);
    return NULL;
}

/* ---- The client ----------------------------------------------------------------------------- */

struct client_link {
    int fd;
    uint8_t *frames;    /* a batch, built once; key and seq are patched */
    size_t unsent_from; /* bytes of the batch that the kernel has not taken yet */
    size_t unsent_to;
    uint64_t left; /* requests not yet made */
    uint32_t in_flight;
    uint32_t seq; /* of the last request */
    uint32_t seq_replied;
    bool blocked; /* the kernel's buffer was full */
    struct spill spill;
};

struct client {
    const struct limit_options *options;
    const struct wiring *wiring;
    struct client_link *links;
    uint8_t *in;
    uint8_t *memory; /* of frames and spills */
    size_t memory_bytes;
    size_t frame_bytes;
    size_t reply_bytes; /* of a whole reply frame */
    uint32_t window;    /* requests in flight on a connection */
    uint32_t batch;     /* requests in a send */
    bool spins;
    uint64_t random;
    uint64_t received;
    uint64_t start_ns;
    uint64_t end_ns;
    uint64_t cpu_start_ns;
    uint64_t cpu_end_ns;
    int err;
};

/* Wang Yi's wyrand: one multiplication for a key. */
static ALWAYS_INLINE uint64_t random_below(uint64_t *state, uint32_t bound)
{
    *state += 0xa0761d6478bd642fu;
    unsigned __int128 product = (unsigned __int128)*state * (*state ^ 0xe7037ed1a0b428dbu);
    uint64_t random = (uint64_t)(product >> 64) ^ (uint64_t)product;
    return (random >> 32) * bound >> 32;
}

static void make_requests(struct client *client, struct client_link *link, uint32_t count)
{
    uint64_t random = client->random;
    uint8_t *frame = link->frames;
    for (uint32_t i = 0; i < count; i++, frame += client->frame_bytes) {
        struct request *request = (struct request *)frame;
        request->header.seq = ++link->seq;
        request->key = random_below(&random, client->options->keys);
    }
    client->random = random;
    link->left -= count;
    link->in_flight += count;
    link->unsent_from = 0;
    link->unsent_to = count * client->frame_bytes;
}

/* Sends batches while the window has room for one. */
static int send_requests(struct client *client, struct client_link *link)
{
    link->blocked = false;
    while (true) {
        if (link->unsent_from == link->unsent_to) {
            uint32_t count = (uint32_t)min_u64(client->batch, link->left);
            if (count == 0 || link->in_flight + count > client->window) return 0;
            make_requests(client, link, count);
        }
        ssize_t sent = send_some(link->fd, link->frames + link->unsent_from,
                                 link->unsent_to - link->unsent_from, MSG_DONTWAIT);
        if (sent == -EAGAIN) {
            link->blocked = true;
            return 0;
        }
        if (sent < 0 && sent != -EINTR) return (int)sent;
        if (sent > 0) link->unsent_from += (size_t)sent;
    }
}

/* Checks every reply of `data`. Returns the bytes used. */
static int64_t check_replies(struct client *client, struct client_link *link, const uint8_t *data,
                             size_t bytes)
{
    size_t at = 0;
    uint32_t seq = link->seq_replied;
    size_t reply_bytes = client->reply_bytes;
    for (; at + reply_bytes <= bytes; at += reply_bytes) {
        const struct reply *reply = (const struct reply *)(data + at);
        if (UNLIKELY(reply->seq != ++seq || round_up_8(reply->length) != reply_bytes ||
                     reply->type != TYPE_REPLY || reply->code != 0)) {
            return -EBADMSG;
        }
    }
    uint32_t count = seq - link->seq_replied;
    if (count > link->in_flight) return -EBADMSG;
    link->in_flight -= count;
    link->seq_replied = seq;
    client->received += count;
    return (int64_t)at;
}

/* 1 where there was something, 0 where not. */
static int receive_replies(struct client *client, struct client_link *link, int flags)
{
    struct spill *spill = &link->spill;
    if (spill->bytes > 0) memcpy(client->in, spill->data, spill->bytes);
    ssize_t got =
        receive(link->fd, client->in + spill->bytes, client->options->receive_bytes, flags);
    if (got < 0) return is_later((int)got) ? 0 : (int)got;
    size_t bytes = spill->bytes + (size_t)got;
    int64_t used = check_replies(client, link, client->in, bytes);
    if (used < 0) return (int)used;
    spill->bytes = bytes - (size_t)used;
    if (spill->bytes > 0) memcpy(spill->data, client->in + used, spill->bytes);
    return 1;
}

/* A send that found no room waits for either direction: the server may wait for us to receive. */
static int wait_for_room(const struct client_link *link)
{
    struct pollfd poller = {.fd = link->fd, .events = POLLIN | POLLOUT};
    return poll(&poller, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

static int ask_one(struct client *client, struct client_link *link)
{
    int err = send_requests(client, link);
    if (err < 0) return err;
    bool may_block = !client->spins && !link->blocked;
    int got = receive_replies(client, link, may_block ? 0 : MSG_DONTWAIT);
    if (got == 0 && link->blocked && !client->spins) return wait_for_room(link);
    return got < 0 ? got : 0;
}

static int ask_ready(struct client *client, int poller)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(poller, events, EVENTS_MAX, client->spins ? 0 : -1);
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        struct client_link *link = &client->links[events[i].data.u32];
        bool was_blocked = link->blocked;
        int err = receive_replies(client, link, MSG_DONTWAIT);
        if (err >= 0) err = send_requests(client, link);
        if (err < 0) return err;
        if (link->blocked == was_blocked) continue;
        struct epoll_event event = {.events = link->blocked ? EPOLLIN | EPOLLOUT : EPOLLIN,
                                    .data.u32 = events[i].data.u32};
        if (epoll_ctl(poller, EPOLL_CTL_MOD, link->fd, &event) < 0) return -errno;
    }
    return 0;
}

static int ask(struct client *client, int poller, uint64_t until)
{
    int err = 0;
    while (err == 0 && client->received < until) {
        err = poller >= 0 ? ask_ready(client, poller) : ask_one(client, &client->links[0]);
    }
    return err;
}

/* With many connections the first requests must go before there can be replies to wait for. */
static int ask_first(struct client *client, int poller)
{
    for (uint32_t i = 0; i < client->wiring->count; i++) {
        struct client_link *link = &client->links[i];
        int err = send_requests(client, link);
        if (err < 0) return err;
        if (!link->blocked) continue;
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.u32 = i};
        if (epoll_ctl(poller, EPOLL_CTL_MOD, link->fd, &event) < 0) return -errno;
    }
    return 0;
}

static int client_run(struct client *client)
{
    const struct limit_options *options = client->options;
    const struct wiring *wiring = client->wiring;
    int poller = -1;
    int err = 0;
    if (wiring->count > 1) {
        poller = epoll_of(wiring->client_fds, wiring->count);
        if (poller < 0) return poller;
        err = ask_first(client, poller);
    }
    if (err == 0) err = ask(client, poller, options->records_warmup);
    uint64_t early = client->received;
    client->start_ns = clock_now_ns();
    client->cpu_start_ns = clock_thread_cpu_ns();
    if (err == 0) err = ask(client, poller, options->records_warmup + options->records);
    client->cpu_end_ns = clock_thread_cpu_ns();
    client->end_ns = clock_now_ns();
    client->received -= early;
    if (poller >= 0) close(poller);
    return err;
}

static void *client_thread(void *context)
{
    struct client *client = context;
    client->err = cpus_pin((uint16_t)client->options->client_cpu);
    if (client->err == 0) client->err = client_run(client);
    if (client->err < 0) wiring_hang_up(client->wiring->client_fds, client->wiring->count);
    return NULL;
}

/* ---- Throughput ----------------------------------------------------------------------------- */

static size_t frame_bytes_of(const struct limit_options *options)
{
    return round_up_8(sizeof(struct header) + options->message_bytes);
}

static size_t reply_value_of(const struct limit_options *options)
{
    return options->reply_bytes == LIMIT_REPLY_ECHO ? options->message_bytes : options->reply_bytes;
}

static size_t reply_frame_bytes_of(const struct limit_options *options)
{
    return sizeof(struct reply) + round_up_8(reply_value_of(options));
}

static void request_init(struct request *request, size_t message_bytes)
{
    uint8_t *value = (uint8_t *)(request + 1);
    *request =
        (struct request){.header = {.length = (uint32_t)(sizeof(struct header) + message_bytes),
                                    .type = TYPE_UPDATE,
                                    .key_len = KEY_BYTES,
                                    .cache = 1,
                                    .slot = UINT16_MAX}};
    for (size_t i = 0; i < message_bytes - KEY_BYTES; i++) value[i] = (uint8_t)('a' + i % 26);
}

static size_t server_in_bytes(const struct server *server)
{
    return server->frame_bytes_max + server->options->receive_bytes + SLACK;
}

static size_t server_answer_bytes(const struct server *server)
{
    return server->reply_bytes_max + SLACK;
}

/* After a failed init too. */
static void server_deinit(struct server *server)
{
    store_deinit(&server->store);
    memory_release(server->in, server_in_bytes(server));
    memory_release(server->out, server->out_bytes_max + SLACK);
    memory_release(server->answer, server_answer_bytes(server));
    for (uint32_t i = 0; server->spills != NULL && i < server->wiring->count; i++) {
        memory_put(server->spills[i].data);
    }
    memory_put(server->spills);
}

static int server_init(struct server *server, const struct limit_options *options,
                       const struct wiring *wiring)
{
    *server = (struct server){.options = options,
                              .wiring = wiring,
                              .reply_value = options->reply_bytes,
                              .reply_bytes_max = reply_frame_bytes_of(options),
                              .frame_bytes_max = frame_bytes_of(options),
                              .spins = options->wait == LIMIT_WAIT_SPIN};
    server->out_bytes_max = max_u64(OUT_BYTES, 2 * GROUP * server->reply_bytes_max);
    server->in = memory_reserve(server_in_bytes(server), 1);
    server->out = memory_reserve(server->out_bytes_max + SLACK, 1);
    server->answer = memory_reserve(server_answer_bytes(server), 0);
    server->spills = memory_take(wiring->count * sizeof(struct spill));
    int err = store_init(&server->store, options->keys, options->log_bytes);
    if (err < 0) return err;
    if (server->in == NULL || server->out == NULL || server->answer == NULL ||
        server->spills == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < wiring->count; i++) {
        server->spills[i].data = memory_take(server->frame_bytes_max);
        if (server->spills[i].data == NULL) return -ENOMEM;
    }
    memory_touch(server->in, server_in_bytes(server));
    memory_touch(server->out, server->out_bytes_max + SLACK);
    memset(server->answer, 'a', server_answer_bytes(server));
    request_init((struct request *)server->in, options->message_bytes);
    store_fill(&server->store, options->keys, (struct request *)server->in);
    return 0;
}

static size_t client_in_bytes(const struct client *client)
{
    return client->reply_bytes + client->options->receive_bytes;
}

/* After a failed init too. */
static void client_deinit(struct client *client)
{
    memory_release(client->in, client_in_bytes(client));
    memory_release(client->memory, client->memory_bytes);
    memory_put(client->links);
}

static int client_init(struct client *client, const struct limit_options *options,
                       const struct wiring *wiring)
{
    *client = (struct client){.options = options,
                              .wiring = wiring,
                              .random = HASH_SEED,
                              .frame_bytes = frame_bytes_of(options),
                              .reply_bytes = reply_frame_bytes_of(options),
                              .spins = options->wait == LIMIT_WAIT_SPIN};
    uint64_t window = options->window_bytes / wiring->count / client->frame_bytes;
    uint64_t batch = min_u64(options->batch_bytes / client->frame_bytes, window / 2);
    client->window = (uint32_t)max_u64(window, 1);
    client->batch = (uint32_t)max_u64(batch, 1);

    size_t batch_bytes = client->batch * client->frame_bytes;
    size_t link_bytes = round_up(batch_bytes + client->reply_bytes, CACHE_LINE);
    client->memory_bytes = link_bytes * wiring->count;
    client->memory = memory_reserve(client->memory_bytes, 1);
    client->in = memory_reserve(client_in_bytes(client), 1);
    client->links = memory_take(wiring->count * sizeof(struct client_link));
    if (client->memory == NULL || client->in == NULL || client->links == NULL) return -ENOMEM;
    memory_touch(client->in, client_in_bytes(client));
    uint64_t records = options->records_warmup + options->records;
    for (uint32_t i = 0; i < wiring->count; i++) {
        struct client_link *link = &client->links[i];
        link->fd = wiring->client_fds[i];
        link->frames = client->memory + i * link_bytes;
        link->spill.data = link->frames + batch_bytes;
        link->left = records / wiring->count + (i < records % wiring->count);
        for (size_t at = 0; at < batch_bytes; at += client->frame_bytes) {
            request_init((struct request *)(link->frames + at), options->message_bytes);
        }
    }
    return 0;
}

/* Runs both functions in a thread each, to their ends. */
static int run_threads(void *(*server)(void *), void *server_context, void *(*client)(void *),
                       void *client_context, const struct wiring *wiring)
{
    pthread_t threads[2];
    int err = -pthread_create(&threads[0], NULL, server, server_context);
    if (err < 0) return err;
    err = -pthread_create(&threads[1], NULL, client, client_context);
    if (err < 0) wiring_hang_up(wiring->client_fds, wiring->count);
    pthread_join(threads[0], NULL);
    if (err == 0) pthread_join(threads[1], NULL);
    return err;
}

/* A hang-up is the consequence of what the other side found. */
static int error_of_two(int a, int b)
{
    if (a == 0 || b == 0) return a == 0 ? b : a;
    return a == -EPIPE || a == -ECONNRESET ? b : a;
}

/* Fills in the cpus. Where both sides share one, a side that spins only keeps the other waiting. */
static void choose_cpus(int *server_cpu, int *client_cpu, enum limit_wait *wait)
{
    struct cpu_list allowed;
    cpus_allowed(&allowed);
    for (uint32_t i = 0; i < allowed.count && *client_cpu < 0; i++) {
        if (allowed.cpus[i] != *server_cpu) *client_cpu = allowed.cpus[i];
    }
    for (uint32_t i = 0; i < allowed.count && *server_cpu < 0; i++) {
        if (allowed.cpus[i] != *client_cpu) *server_cpu = allowed.cpus[i];
    }
    if (*client_cpu < 0) *client_cpu = *server_cpu;
    if (*server_cpu < 0) *server_cpu = *client_cpu;
    if (*server_cpu == *client_cpu) *wait = LIMIT_WAIT_BLOCK;
}

/* The defaults of what was left 0. */
static void complete(struct limit_options *options)
{
    if (options->message_bytes == 0) options->message_bytes = 100;
    if (options->records == 0) options->records = 10000000;
    if (options->records_warmup == 0) options->records_warmup = 2000000;
    if (options->keys == 0) options->keys = 1000000;
    if (options->connections == 0) options->connections = 1;
    if (options->window_bytes == 0) options->window_bytes = 2 * MIB;
    if (options->batch_bytes == 0) options->batch_bytes = 128 * KIB;
    if (options->receive_bytes == 0) options->receive_bytes = 256 * KIB;
    if (options->log_bytes == 0) options->log_bytes = 1 * GIB;
    if (options->wait == LIMIT_WAIT_BEST) options->wait = LIMIT_WAIT_SPIN;
    choose_cpus(&options->server_cpu, &options->client_cpu, &options->wait);
}

static bool are_valid(const struct limit_options *options)
{
    return options->message_bytes >= LIMIT_MESSAGE_BYTES_MIN &&
           options->message_bytes <= LIMIT_MESSAGE_BYTES_MAX &&
           reply_value_of(options) <= LIMIT_MESSAGE_BYTES_MAX &&
           options->connections <= LIMIT_CONNECTIONS_MAX && options->log_bytes % 4096 == 0 &&
           options->log_bytes >= 2 * (frame_bytes_of(options) + RECORD_GROWTH) &&
           options->log_bytes <= ADDRESS << 3;
}

void limit_options_init(struct limit_options *options)
{
    *options = (struct limit_options){.server_cpu = LIMIT_CPU_ANY, .client_cpu = LIMIT_CPU_ANY};
}

static void report(const struct server *server, const struct client *client,
                   struct limit_result *result)
{
    double received = (double)client->received;
    double handled = (double)server->handled;
    *result = (struct limit_result){
        .seconds = (double)(client->end_ns - client->start_ns) / (double)NS_PER_S,
        .records = client->received,
        .server_cpu_ns = server->cpu_end_ns - server->cpu_start_ns,
        .client_cpu_ns = client->cpu_end_ns - client->cpu_start_ns,
        .frame_bytes = client->frame_bytes,
        .reply_frame_bytes = client->reply_bytes,
        .bytes = client->received * (client->frame_bytes + client->reply_bytes),
        .checksum = store_checksum(&server->store),
        .server_cpu = server->options->server_cpu,
        .client_cpu = server->options->client_cpu,
    };
    result->per_s = received / result->seconds;
    result->server_ns_per_msg = (double)result->server_cpu_ns / handled;
    result->client_ns_per_msg = (double)result->client_cpu_ns / received;
    result->records_per_receive = handled / (double)server->receives;
}

int limit_throughput(const struct limit_options *given, struct limit_result *result)
{
    struct limit_options options = *given;
    complete(&options);
    if (!are_valid(&options)) return -EINVAL;
    struct wiring wiring;
    struct server server;
    struct client client;
    int err = wiring_init(&wiring, options.connections, options.socket_bytes);
    if (err < 0) return err;
    err = server_init(&server, &options, &wiring);
    if (err < 0) goto deinit_server;
    err = client_init(&client, &options, &wiring);
    if (err < 0) goto deinit_client;

    err = run_threads(server_thread, &server, client_thread, &client, &wiring);
    if (err == 0) err = error_of_two(server.err, client.err);
    if (err < 0) goto deinit_client;
    report(&server, &client, result);
    if (result->checksum == 0) err = -EBADMSG;

deinit_client:
    client_deinit(&client);
deinit_server:
    server_deinit(&server);
    wiring_deinit(&wiring);
    return err;
}

/* ---- Ping-pong ------------------------------------------------------------------------------ */

#define PINGPONG_BYTES_MAX ((size_t)64 * KIB)

struct pingpong {
    const struct limit_pingpong_options *options;
    const struct wiring *wiring;
    struct histogram *histogram;
    uint8_t *memory; /* a message for each side */
    int server_err;
    int client_err;
};

static int receive_whole(int fd, uint8_t *to, size_t bytes, int flags)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t got = receive(fd, to + at, bytes - at, flags);
        if (got < 0 && !is_later((int)got)) return (int)got;
        if (got > 0) at += (size_t)got;
    }
    return 0;
}

static int send_whole(int fd, const uint8_t *from, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t sent = send_some(fd, from + at, bytes - at, 0);
        if (sent < 0 && !is_later((int)sent)) return (int)sent;
        if (sent > 0) at += (size_t)sent;
    }
    return 0;
}

static int flags_of(const struct pingpong *pingpong)
{
    return pingpong->options->wait == LIMIT_WAIT_SPIN ? MSG_DONTWAIT : 0;
}

static void *pong_thread(void *context)
{
    struct pingpong *pingpong = context;
    const struct limit_pingpong_options *options = pingpong->options;
    int fd = pingpong->wiring->server_fds[0];
    uint8_t *message = pingpong->memory;
    int err = cpus_pin((uint16_t)options->server_cpu);
    for (uint64_t i = 0; err == 0 && i < options->messages_warmup + options->messages; i++) {
        err = receive_whole(fd, message, options->bytes, flags_of(pingpong));
        if (err == 0) err = send_whole(fd, message, options->bytes);
    }
    if (err < 0) wiring_hang_up(&fd, 1);
    pingpong->server_err = err;
    return NULL;
}

/* One round trip. */
static int ping(const struct pingpong *pingpong, uint8_t *message, uint64_t seq)
{
    int fd = pingpong->wiring->client_fds[0];
    uint64_t echoed;
    memcpy(message, &seq, sizeof(seq));
    int err = send_whole(fd, message, pingpong->options->bytes);
    if (err < 0) return err;
    memset(message, 0, sizeof(seq));
    err = receive_whole(fd, message, pingpong->options->bytes, flags_of(pingpong));
    if (err < 0) return err;
    memcpy(&echoed, message, sizeof(echoed));
    return echoed == seq ? 0 : -EBADMSG;
}

static void *ping_thread(void *context)
{
    struct pingpong *pingpong = context;
    const struct limit_pingpong_options *options = pingpong->options;
    int fd = pingpong->wiring->client_fds[0];
    uint8_t *message = pingpong->memory + PINGPONG_BYTES_MAX;
    int err = cpus_pin((uint16_t)options->client_cpu);
    uint64_t seq = 0;
    while (err == 0 && seq < options->messages_warmup) err = ping(pingpong, message, ++seq);
    uint64_t before_ns = clock_now_ns();
    for (uint64_t i = 0; err == 0 && i < options->messages; i++) {
        err = ping(pingpong, message, ++seq);
        uint64_t now_ns = clock_now_ns();
        histogram_record(pingpong->histogram, now_ns - before_ns);
        before_ns = now_ns;
    }
    if (err < 0) wiring_hang_up(&fd, 1);
    pingpong->client_err = err;
    return NULL;
}

void limit_pingpong_options_init(struct limit_pingpong_options *options)
{
    *options =
        (struct limit_pingpong_options){.server_cpu = LIMIT_CPU_ANY, .client_cpu = LIMIT_CPU_ANY};
}

int limit_pingpong(const struct limit_pingpong_options *given, struct histogram *histogram)
{
    struct limit_pingpong_options options = *given;
    if (options.bytes == 0) options.bytes = 128;
    if (options.messages == 0) options.messages = 100000;
    if (options.messages_warmup == 0) options.messages_warmup = 20000;
    if (options.wait == LIMIT_WAIT_BEST) options.wait = LIMIT_WAIT_SPIN;
    choose_cpus(&options.server_cpu, &options.client_cpu, &options.wait);
    if (options.bytes < sizeof(uint64_t) || options.bytes > PINGPONG_BYTES_MAX) return -EINVAL;

    struct wiring wiring;
    int err = wiring_init(&wiring, 1, 0);
    if (err < 0) return err;
    struct pingpong pingpong = {.options = &options, .wiring = &wiring, .histogram = histogram};
    pingpong.memory = memory_take(2 * PINGPONG_BYTES_MAX);
    err = pingpong.memory == NULL
              ? -ENOMEM
              : run_threads(pong_thread, &pingpong, ping_thread, &pingpong, &wiring);
    if (err == 0) err = error_of_two(pingpong.server_err, pingpong.client_err);
    memory_put(pingpong.memory);
    wiring_deinit(&wiring);
    return err;
}

/* ---- The command ---------------------------------------------------------------------------- */

#define RUNS_MAX 99

struct settings {
    struct number_list sizes;
    int64_t records;
    int64_t keys;
    int64_t connections;
    int64_t window_bytes;
    int64_t batch_bytes;
    int64_t receive_bytes;
    int64_t socket_bytes;
    int64_t messages;
    int64_t runs;
    const char *reply;
    size_t reply_bytes; /* what `reply` says */
    bool pingpong;
    bool blocking;
    bool spinning;
    bool json;
};

/* All runs of one size of message. */
struct figures {
    struct limit_result results[RUNS_MAX];
};

static const char details[] =
    "Two threads over TCP on loopback: the server does the memory work of a replicated store for\n"
    "each message and answers it, the client checks every answer. Prints the median of the runs\n"
    "and their range. Takes about two seconds a run; needs two idle cpus.";

#define FIELD(name) offsetof(struct settings, name)
/* clang-format off */
static const struct option_spec specs[] = {
    {.name = "message", .letter = 'm', .kind = OPTION_NUMBERS, .offset = FIELD(sizes),
     .shows = "BYTES,...", .low = LIMIT_MESSAGE_BYTES_MIN, .high = LIMIT_MESSAGE_BYTES_MAX,
     .help = "sizes of key and value (100)"},
    {.name = "records", .letter = 'r', .kind = OPTION_NUMBER, .offset = FIELD(records),
     .shows = "N", .low = 1000, .high = 1000000000000,
     .help = "messages a run, after a fifth more for warming up (10000000)"},
    {.name = "reply", .kind = OPTION_TEXT, .offset = FIELD(reply), .shows = "BYTES|echo",
     .help = "value of a reply besides its 16 bytes; echo: the message (0)"},
    {.name = "keys", .kind = OPTION_NUMBER, .offset = FIELD(keys), .shows = "N",
     .low = 1, .high = 100000000, .help = "different keys, in random order (1000000)"},
    {.name = "connections", .kind = OPTION_NUMBER, .offset = FIELD(connections), .shows = "N",
     .low = 1, .high = LIMIT_CONNECTIONS_MAX, .help = "TCP connections (1)"},
    {.name = "window", .kind = OPTION_SIZE, .offset = FIELD(window_bytes), .shows = "BYTES",
     .low = 1, .high = 1 << 30, .help = "requests in flight, over all connections (2M)"},
    {.name = "batch", .kind = OPTION_SIZE, .offset = FIELD(batch_bytes), .shows = "BYTES",
     .low = 1, .high = 1 << 30, .help = "requests in one send, at most (128k)"},
    {.name = "receive", .kind = OPTION_SIZE, .offset = FIELD(receive_bytes), .shows = "BYTES",
     .low = 4096, .high = 1 << 30, .help = "bytes in one receive, at most (256k)"},
    {.name = "socket", .kind = OPTION_SIZE, .offset = FIELD(socket_bytes), .shows = "BYTES",
     .low = 4096, .high = 1 << 30, .help = "buffers of a socket (the kernel's choice)"},
    {.name = "pingpong", .kind = OPTION_FLAG, .offset = FIELD(pingpong),
     .help = "one message in flight: latency instead of throughput"},
    {.name = "messages", .kind = OPTION_NUMBER, .offset = FIELD(messages), .shows = "N",
     .low = 1, .high = 1000000000, .help = "with --pingpong: round trips a run (100000)"},
    {.name = "blocking", .kind = OPTION_FLAG, .offset = FIELD(blocking),
     .help = "both sides sleep while they wait"},
    {.name = "spinning", .kind = OPTION_FLAG, .offset = FIELD(spinning),
     .help = "both sides poll while they wait (the default)"},
    {.name = "runs", .kind = OPTION_NUMBER, .offset = FIELD(runs), .shows = "N",
     .low = 1, .high = RUNS_MAX, .help = "runs of each size, in turn (5)"},
    {.name = "json", .kind = OPTION_FLAG, .offset = FIELD(json),
     .help = "one object per line instead of a table"},
};
/* clang-format on */

static const struct command command = {
    .name = "bench limit",
    .arguments = "",
    .summary = "how fast could this machine be with nothing around it?",
    .details = details,
    .options = specs,
    .options_count = ARRAY_COUNT(specs),
    .examples = {"fero bench limit -m 10,100,1000",
                 "fero bench limit --reply echo --connections 64 --json",
                 "fero bench limit --pingpong --blocking --messages 10000"},
};

static enum limit_wait wait_of(const struct settings *settings)
{
    if (settings->blocking) return LIMIT_WAIT_BLOCK;
    return settings->spinning ? LIMIT_WAIT_SPIN : LIMIT_WAIT_BEST;
}

/* What the figures depend on, and who runs where. */
static void machine_line(FILE *to)
{
    char machine[CPUS_TEXT_BYTES];
    int server_cpu = LIMIT_CPU_ANY;
    int client_cpu = LIMIT_CPU_ANY;
    enum limit_wait wait = LIMIT_WAIT_BEST;
    choose_cpus(&server_cpu, &client_cpu, &wait);
    fprintf(to, "Machine: %s; server on cpu %d, client on cpu %d\n", cpus_machine(machine),
            server_cpu, client_cpu);
    if (server_cpu != client_cpu) return;
    complain(&command, "only one cpu is allowed, so server and client share it: this is no limit");
}

static int compare_results(const void *a, const void *b)
{
    double left = ((const struct limit_result *)a)->per_s;
    double right = ((const struct limit_result *)b)->per_s;
    return (left > right) - (left < right);
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

/* Of the thread's costs each has its own median: the fastest run is not the cheapest. */
static double median_of(const struct figures *figures, size_t count, size_t offset)
{
    double values[RUNS_MAX] = {0};
    for (size_t i = 0; i < count; i++) {
        memcpy(&values[i], (const uint8_t *)&figures->results[i] + offset, sizeof(double));
    }
    qsort(values, count, sizeof(double), compare_doubles);
    return values[count / 2];
}

static void print_figures(const struct settings *settings, int64_t message_bytes,
                          struct figures *figures)
{
    size_t runs = (size_t)settings->runs;
    qsort(figures->results, runs, sizeof(figures->results[0]), compare_results);
    const struct limit_result *middle = &figures->results[runs / 2];
    double low = figures->results[0].per_s;
    double high = figures->results[runs - 1].per_s;
    double server_ns = median_of(figures, runs, offsetof(struct limit_result, server_ns_per_msg));
    double client_ns = median_of(figures, runs, offsetof(struct limit_result, client_ns_per_msg));
    size_t reply_bytes =
        settings->reply_bytes == LIMIT_REPLY_ECHO ? (size_t)message_bytes : settings->reply_bytes;
    if (settings->json) {
        printf("{\"bench\":\"limit\",\"message_bytes\":%" PRId64 ",\"reply_bytes\":%zu,"
               "\"connections\":%" PRId64 ",\"keys\":%" PRId64 ",\"records\":%" PRIu64
               ",\"runs\":%zu,\"limit_per_s\":%.0f,\"limit_per_s_min\":%.0f,"
               "\"limit_per_s_max\":%.0f,\"server_ns_per_msg\":%.2f,\"client_ns_per_msg\":%.2f,"
               "\"records_per_receive\":%.0f,\"shared_cpu\":%s,\"checksum\":\"%016" PRIx64 "\"}\n",
               message_bytes, reply_bytes, settings->connections, settings->keys, middle->records,
               runs, middle->per_s, low, high, server_ns, client_ns, middle->records_per_receive,
               middle->server_cpu == middle->client_cpu ? "true" : "false", middle->checksum);
    } else {
        printf("%7" PRId64 "  %6zu  %6zu  %12.0f  %8.2f M - %6.2f M  %8.1f  %9.1f  %9.1f\n",
               message_bytes, middle->frame_bytes, middle->reply_frame_bytes, middle->per_s,
               low / 1e6, high / 1e6, middle->per_s * (double)message_bytes / (double)MIB,
               server_ns, client_ns);
    }
    fflush(stdout);
}

static int measure(const struct settings *settings, struct figures *figures)
{
    struct limit_options options;
    limit_options_init(&options);
    options.reply_bytes = settings->reply_bytes;
    options.records = (uint64_t)settings->records;
    options.records_warmup = options.records / 5;
    options.keys = (uint32_t)settings->keys;
    options.connections = (uint32_t)settings->connections;
    options.window_bytes = (uint32_t)settings->window_bytes;
    options.batch_bytes = (uint32_t)settings->batch_bytes;
    options.receive_bytes = (uint32_t)settings->receive_bytes;
    options.socket_bytes = (uint32_t)settings->socket_bytes;
    options.wait = wait_of(settings);
    for (int64_t run = 0; run < settings->runs; run++) {
        for (uint32_t i = 0; i < settings->sizes.count; i++) {
            options.message_bytes = (size_t)settings->sizes.values[i];
            int err = limit_throughput(&options, &figures[i].results[run]);
            if (err < 0) return err;
        }
    }
    return 0;
}

static int show_throughput(const struct settings *settings)
{
    struct figures *figures = memory_take(settings->sizes.count * sizeof(*figures));
    if (figures == NULL) return -ENOMEM;
    int err = measure(settings, figures);
    if (err == 0 && !settings->json) {
        printf("%" PRId64 " messages a run, %" PRId64 " runs, %" PRId64 " keys, %" PRId64
               " connection%s; bytes of a message, of its frame, of its reply's frame\n\n",
               settings->records, settings->runs, settings->keys, settings->connections,
               settings->connections == 1 ? "" : "s");
        printf("%7s  %6s  %6s  %12s  %19s  %8s  %9s  %9s\n", "message", "frame", "reply",
               "messages/s", "lowest - highest", "MB/s", "server ns", "client ns");
    }
    for (uint32_t i = 0; err == 0 && i < settings->sizes.count; i++) {
        print_figures(settings, settings->sizes.values[i], &figures[i]);
    }
    memory_put(figures);
    return err;
}

/* ---- The command for one message in flight -------------------------------------------------- */

static double us_at(const struct histogram *histogram, double percentile)
{
    return (double)histogram_percentile_ns(histogram, percentile) / (double)NS_PER_US;
}

static void print_pingpong(const struct settings *settings, int64_t message_bytes,
                           const struct histogram *histogram, const double *medians)
{
    double mean_us = histogram_mean_ns(histogram) / (double)NS_PER_US;
    double low = medians[0];
    double high = medians[settings->runs - 1];
    if (settings->json) {
        printf("{\"bench\":\"limit pingpong\",\"message_bytes\":%" PRId64
               ",\"reply_bytes\":%" PRId64 ",\"connections\":1,\"messages\":%" PRIu64
               ",\"runs\":%" PRId64 ",\"blocking\":%s,\"mean_us\":%.3f,\"p50_us\":%.3f,"
               "\"p50_us_min\":%.3f,\"p50_us_max\":%.3f,\"p90_us\":%.3f,\"p99_us\":%.3f,"
               "\"p999_us\":%.3f,\"p9999_us\":%.3f,\"max_us\":%.3f}\n",
               message_bytes, message_bytes, histogram->count, settings->runs,
               settings->blocking ? "true" : "false", mean_us, us_at(histogram, 50), low, high,
               us_at(histogram, 90), us_at(histogram, 99), us_at(histogram, 99.9),
               us_at(histogram, 99.99), us_at(histogram, 100));
    } else {
        printf("%7" PRId64 "  %8.2f  %8.2f  %7.2f - %7.2f  %8.2f  %8.2f  %8.2f  %9.2f  %9.2f\n",
               message_bytes, mean_us, us_at(histogram, 50), low, high, us_at(histogram, 90),
               us_at(histogram, 99), us_at(histogram, 99.9), us_at(histogram, 99.99),
               us_at(histogram, 100));
    }
    fflush(stdout);
}

/* All runs of one size; `all` and `one` are for the caller to keep. */
static int measure_pingpong(const struct settings *settings, int64_t message_bytes,
                            struct histogram *all, struct histogram *one)
{
    double medians[RUNS_MAX] = {0};
    struct limit_pingpong_options options;
    limit_pingpong_options_init(&options);
    options.bytes = round_up_8(sizeof(struct header) + (size_t)message_bytes);
    options.messages = (uint64_t)settings->messages;
    options.wait = wait_of(settings);
    histogram_reset(all);
    for (int64_t run = 0; run < settings->runs; run++) {
        histogram_reset(one);
        int err = limit_pingpong(&options, one);
        if (err < 0) return err;
        medians[run] = us_at(one, 50);
        histogram_merge(all, one);
    }
    qsort(medians, (size_t)settings->runs, sizeof(double), compare_doubles);
    print_pingpong(settings, message_bytes, all, medians);
    return 0;
}

static int show_pingpong(const struct settings *settings)
{
    struct histogram *histograms = memory_take(2 * sizeof(*histograms));
    if (histograms == NULL) return -ENOMEM;
    if (!settings->json) {
        printf("%" PRId64 " round trips a run, %" PRId64 " runs, %s; microseconds of all runs\n\n",
               settings->messages, settings->runs,
               settings->blocking ? "both sides sleep" : "both sides poll");
        printf("%7s  %8s  %8s  %17s  %8s  %8s  %8s  %9s  %9s\n", "message", "mean", "p50",
               "p50 of the runs", "p90", "p99", "p99.9", "p99.99", "max");
    }
    int err = 0;
    for (uint32_t i = 0; err == 0 && i < settings->sizes.count; i++) {
        err = measure_pingpong(settings, settings->sizes.values[i], &histograms[0], &histograms[1]);
    }
    memory_put(histograms);
    return err;
}

/* Reads what the table of options cannot say. */
static bool settle(struct settings *settings)
{
    int64_t bytes = 0;
    bool has_unit;
    if (settings->sizes.count == 0) {
        settings->sizes = (struct number_list){.values = {100}, .count = 1};
    }
    if (settings->blocking && settings->spinning) {
        complain(&command, "--blocking and --spinning exclude each other");
        return false;
    }
    if (strcmp(settings->reply, "echo") == 0) {
        settings->reply_bytes = LIMIT_REPLY_ECHO;
        return true;
    }
    if (size_parse(settings->reply, &bytes, &has_unit) < 0 || bytes < 0 ||
        (size_t)bytes > LIMIT_MESSAGE_BYTES_MAX) {
        complain(&command, "--reply needs \"echo\" or a number such as 0, 100 or 4k, not \"%s\"",
                 settings->reply);
        return false;
    }
    settings->reply_bytes = (size_t)bytes;
    return true;
}

int bench_limit_main(int argc, char **argv)
{
    struct settings settings = {.records = 10000000,
                                .keys = 1000000,
                                .connections = 1,
                                .messages = 100000,
                                .runs = 5,
                                .reply = "0"};
    int arguments_count = 0;
    int status = command_parse(&command, argc - 1, argv + 1, &settings, &arguments_count);
    if (status != COMMAND_GO_ON) return status;
    if (!settle(&settings)) return STATUS_USAGE;
    machine_line(settings.json ? stderr : stdout);
    int err = settings.pingpong ? show_pingpong(&settings) : show_throughput(&settings);
    if (err == 0) return STATUS_OK;
    complain(&command, "%s%s", strerror(-err),
             err == -ENOMEM ? ": it needs 1 GiB for the log and 64 bytes for every 4 keys" : "");
    return STATUS_NOT_FOUND;
}
