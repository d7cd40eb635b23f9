/*
 * A whole node under threads: shards that sleep whenever they can, so that mail wakes them through
 * the kernel all the time, and clients that are each connected to one shard and ask for keys of all.
 * Meanwhile the control thread reads counters and opens caches, and in the end it stops the node
 * under load. Run under ThreadSanitizer too (make tsan).
 *
 * The clients are bare sockets: fero's own client would connect to every shard, and nothing would
 * cross. A lost wake-up leaves somebody waiting, which a timeout of the sockets makes a failure.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/ck.h"
#include "base/rng.h"
#include "fero.h"
#include "wire/hello.h"

#define SHARDS 3
#define CLIENTS 4
#define ROUNDS 300
#define BATCH_MAX 60
/* Larger than what fits into a mail, so that blocks cross too. */
#define VALUE_BYTES_LARGE 9000
#define BUFFER_BYTES (BATCH_MAX * (VALUE_BYTES_LARGE + 64))
#define LOST_WAKE_S 20
#define CACHES 20

struct client {
    pthread_t thread;
    uint16_t port;
    uint16_t shard;
    uint64_t session;
    int fd;
    struct rng rng;
    uint32_t seq;
    uint64_t rounds; /* finished; the control thread reads it */
    bool until_closed;
    uint8_t *out;
    uint8_t *in;
};

/* Reads exactly `bytes`; false at the end of the connection. */
static bool read_all(int fd, void *to, size_t bytes)
{
    size_t got = 0;
    while (got < bytes) {
        ssize_t part = recv(fd, (uint8_t *)to + got, bytes - got, 0);
        if (part == 0) return false;
        if (part < 0) {
            ASSERT(errno == ECONNRESET); /* not EAGAIN: an answer that does not come */
            return false;
        }
        got += (size_t)part;
    }
    return true;
}

static bool send_all(int fd, const void *from, size_t bytes)
{
    size_t sent = 0;
    while (sent < bytes) {
        ssize_t part = send(fd, (const uint8_t *)from + sent, bytes - sent, MSG_NOSIGNAL);
        if (part <= 0) {
            ASSERT(errno != EAGAIN);
            return false;
        }
        sent += (size_t)part;
    }
    return true;
}

/* The next frame with its padding; its type, or 0 at the end. */
static uint8_t read_frame(struct client *client)
{
    struct frame_prefix prefix;
    if (!read_all(client->fd, &prefix, sizeof prefix)) return 0;
    size_t padded = round_up_8((size_t)prefix.length);
    ASSERT(padded >= sizeof prefix && padded <= BUFFER_BYTES);
    memcpy(client->in, &prefix, sizeof prefix);
    if (!read_all(client->fd, client->in + sizeof prefix, padded - sizeof prefix)) return 0;
    return prefix.type;
}

static void greet(struct client *client)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(client->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval timeout = {.tv_sec = LOST_WAKE_S};
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT(client->fd >= 0);
    setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    int err = connect(client->fd, (struct sockaddr *)&address, sizeof address);
    ASSERT(err == 0);
    struct frame_hello hello = {.shard = client->shard,
                                .role = ROLE_CLIENT,
                                .session = client->session,
                                .session_start = 1,
                                .seq_first = 1,
                                .frame_bytes_max = MIB};
    size_t bytes = hello_encode(&hello, (struct bytes){NULL, 0}, client->out);
    bytes += open_encode(1, bytes_of("stress"), client->out + bytes);
    ASSERT(send_all(client->fd, client->out, bytes));
    ASSERT(read_frame(client) == FRAME_WELCOME);
    struct frame_welcome welcome;
    memcpy(&welcome, client->in, sizeof welcome);
    ASSERT(welcome.shard == client->shard); /* it was handed over */
    ASSERT(read_frame(client) == FRAME_OPENED);
}

static size_t encode(struct client *client, uint8_t type, uint8_t *to)
{
    uint64_t key = rng_below(&client->rng, 5000);
    bool is_large = rng_below(&client->rng, 20) == 0;
    size_t value_bytes = is_large ? VALUE_BYTES_LARGE : rng_below(&client->rng, 200);
    if (type != FRAME_UPDATE && type < FRAME_VERB_FIRST) value_bytes = 0;
    size_t key_bytes = type == FRAME_INFO ? 0 : sizeof key;
    struct frame_request frame = {.length =
                                      (uint32_t)(FRAME_REQUEST_BYTES + key_bytes + value_bytes),
                                  .type = type,
                                  .flags = WANT_REPLY << FRAME_WANT_SHIFT,
                                  .key_len = (uint16_t)key_bytes,
                                  .slot = FRAME_SLOT_ANY,
                                  .seq = ++client->seq};
    if (value_bytes > 0) frame.flags |= VALUE_BYTES;
    size_t padded = round_up_8((size_t)frame.length);
    memset(to, 0, padded);
    memcpy(to, &frame, sizeof frame);
    memcpy(to + sizeof frame, &key, key_bytes);
    return padded;
}

/* Sends a batch and takes its replies; false when the node has ended the connection. */
static bool make_round(struct client *client)
{
    static const uint8_t types[] = {FRAME_UPDATE, FRAME_UPDATE, FRAME_UPDATE,    FRAME_GET,
                                    FRAME_GET,    FRAME_REMOVE, FRAME_VERB_FIRST};
    unsigned count = 1 + (unsigned)rng_below(&client->rng, rng_below(&client->rng, BATCH_MAX) + 1);
    size_t bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        uint8_t type = types[rng_below(&client->rng, sizeof types)];
        if (rng_below(&client->rng, 200) == 0) type = FRAME_INFO;
        bytes += encode(client, type, client->out + bytes);
    }
    if (!send_all(client->fd, client->out, bytes)) return false;
    for (unsigned replies = 0; replies < count;) {
        uint8_t type = read_frame(client);
        /* A node that stops says so last. */
        if (type == 0 || (type == FRAME_REFUSE && client->until_closed)) return false;
        ASSERT(type == FRAME_REPLY || type == FRAME_ACK);
        if (type == FRAME_REPLY) replies++;
    }
    return true;
}

static void *client_thread(void *context)
{
    struct client *client = context;
    uint64_t rounds = 0;
    greet(client);
    while ((client->until_closed || rounds < ROUNDS) && make_round(client))
        store_release_u64(&client->rounds, ++rounds);
    ASSERT(client->until_closed || rounds == ROUNDS);
    close(client->fd);
    return NULL;
}

static void start_client(struct client *client, const char *address, unsigned index,
                         bool until_closed)
{
    *client = (struct client){
        .shard = (uint16_t)(index % SHARDS), .session = index + 1, .until_closed = until_closed};
    client->port = (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10);
    client->out = malloc(BUFFER_BYTES);
    client->in = malloc(BUFFER_BYTES);
    assert_non_null(client->out);
    assert_non_null(client->in);
    rng_init(&client->rng, client->session);
    assert_int_equal(pthread_create(&client->thread, NULL, client_thread, client), 0);
}

static void join_client(struct client *client)
{
    pthread_join(client->thread, NULL);
    free(client->out);
    free(client->in);
}

static int32_t echo(fero_req *req, void *ud)
{
    (void)ud;
    return fero_reply(req, 0, &req->value);
}

static fero *start_node(int32_t idle)
{
    const fero_runtime_opts opts = {.size = sizeof opts,
                                    .shards = SHARDS,
                                    .idle = idle,
                                    .memory_max_bytes = 512 * (int64_t)MIB,
                                    .history_max_bytes = 8 * (int64_t)MIB,
                                    .lane_bytes = 128 * (int64_t)KIB};
    const fero_verb verb = {.name = "echo", .fn = echo};
    const fero_opts cache_opts = {.size = sizeof cache_opts, .verbs = &verb, .verbs_count = 1};
    fero *node;
    fero_cache *cache;
    assert_int_equal(fero_start(&opts, &node), 0);
    assert_int_equal(fero_open(node, "stress", &cache_opts, &cache), 0);
    return node;
}

/* What the control thread does while others work. */
static void look_and_open(fero *node, unsigned number)
{
    static char info[64 * 1024];
    char name[20];
    fero_cache *cache;
    snprintf(name, sizeof name, "cache %u", number % CACHES);
    assert_int_equal(fero_open(node, name, NULL, &cache), 0);
    assert_true(fero_info(node, info, sizeof info) > 0);
}

static void run(int32_t idle)
{
    struct client clients[CLIENTS];
    fero *node = start_node(idle);
    for (unsigned i = 0; i < CLIENTS; i++) start_client(&clients[i], fero_address(node), i, false);
    for (unsigned i = 0; i < CLIENTS; i++)
        for (unsigned j = 0; load_acquire_u64(&clients[i].rounds) < ROUNDS; j++)
            look_and_open(node, j);
    for (unsigned i = 0; i < CLIENTS; i++) join_client(&clients[i]);
    assert_int_equal(fero_stop(node, 0), 0);
}

static void sleeping_shards_answer_everything(void **state)
{
    (void)state;
    run(FERO_IDLE_SLEEP);
}

static void spinning_shards_answer_everything(void **state)
{
    (void)state;
    run(FERO_IDLE_ADAPTIVE);
}

static void a_node_stops_under_load(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        struct client clients[CLIENTS];
        fero *node = start_node(FERO_IDLE_SLEEP);
        for (unsigned j = 0; j < CLIENTS; j++)
            start_client(&clients[j], fero_address(node), j, true);
        for (unsigned j = 0; j < CLIENTS; j++)
            while (load_acquire_u64(&clients[j].rounds) < 5) look_and_open(node, j);
        assert_int_equal(fero_stop(node, 0), 0);
        for (unsigned j = 0; j < CLIENTS; j++) join_client(&clients[j]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sleeping_shards_answer_everything),
        cmocka_unit_test(spinning_shards_answer_everything),
        cmocka_unit_test(a_node_stops_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
