/*
 * What connections cost that have few requests in flight each: not the engine, but the calls that
 * bring and take their bytes. One thread speaks the protocol over all of them, as it is written in
 * docs/protocol.md. Two servers of one shard, one on io_uring and one on epoll, take turns, and with
 * --limit the machine's limit does, of as many connections with as many requests. Servers sleep when
 * they have nothing to do, so that their CPU time is work. With --bare the same two loops take turns,
 * too, with nothing around them (bare.h): their ratio is the kernel's.
 *
 * In a run every connection has `in_flight` requests open until the records have been sent, and sends
 * as many as it got replies to. Which one gets ahead is the server's doing: `least` is the share of
 * the mean that the slowest got.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "bench/bare.h"
#include "bench/bench.h"
#include "bench/keys.h"
#include "bench/limit.h"
#include "bench/nodes.h"
#include "bench/progress.h"
#include "bench/report.h"
#include "bench/sender.h"
#include "bench/speed.h"
#include "cli/command.h"
#include "wire/hello.h"

#define CONNECTIONS_MAX LIMIT_CONNECTIONS_MAX
#define IN_FLIGHT_MAX 64
#define IN_BYTES 4096
#define EVENTS_MAX 256
#define SILENT_MS 10000
/* What a node that has settled may still grow by. */
#define SETTLE_SLACK_BYTES (4 * MIB)

/* Ours, and the same loops with nothing around them. */
enum kind { KIND_URING, KIND_EPOLL, KIND_BARE_URING, KIND_BARE_EPOLL, KINDS };

static const int32_t kind_ios[] = {FERO_IO_URING, FERO_IO_EPOLL};
static const enum bare_way kind_ways[] = {
    [KIND_BARE_URING] = BARE_URING, [KIND_BARE_EPOLL] = BARE_EPOLL};
static const char *const kind_names[KINDS] = {"uring", "epoll", "bare uring", "bare epoll"};
static const char *const kind_keys[KINDS] = {"uring", "epoll", "bare_uring", "bare_epoll"};

struct peer {
    int fd;
    uint16_t cache;
    uint32_t seq;     /* of the last request */
    uint64_t replies; /* of this run */
    size_t in_bytes;
    uint8_t in[IN_BYTES];
};

struct options {
    int64_t connections;
    int64_t in_flight;
    int64_t records;
    int64_t size;
    int64_t keys;
    int64_t runs;
    bool bare;
    bool limit;
    bool json;
};

/* All connections to one of the servers, and what was measured of it. */
struct crew {
    const struct options *options;
    struct nodes nodes;
    struct bare bare; /* instead, where the kind is */
    struct peer *peers;
    int poller;
    struct rng rng;
    uint8_t *frames; /* of one connection's requests */
    size_t frame_bytes;
    uint64_t unsent; /* of this run */
    uint64_t replies;
    uint64_t failed;
    struct speed_series per_s;
    struct speed_series server_ns_per_msg;
    struct speed_series least;
};

struct measured {
    struct crew crews[KINDS];
    uint32_t kinds; /* so many of them take part */
    struct speed_series ratio;
    struct speed_series bare_ratio;
    struct speed_series limit_per_s;
    struct cpus_plan plan;
};

/* ------------------------------------------------------------------------------------- bytes */

static int send_all(int fd, const uint8_t *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t sent = send(fd, data, bytes, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) return -errno;
        if (sent > 0) {
            data += sent;
            bytes -= (size_t)sent;
        }
    }
    return 0;
}

static int send_requests(struct crew *crew, struct peer *peer, uint64_t count)
{
    uint8_t *at = crew->frames;
    count = min_u64(count, crew->unsent);
    crew->unsent -= count;
    for (uint64_t i = 0; i < count; i++, at += crew->frame_bytes) {
        struct frame_request request = {
            .length = (uint32_t)(FRAME_REQUEST_BYTES + (size_t)crew->options->size),
            .type = FRAME_UPDATE,
            .flags = VALUE_BYTES | WANT_REPLY << FRAME_WANT_SHIFT,
            .key_len = SENDER_KEY_BYTES,
            .cache = peer->cache,
            .slot = FRAME_SLOT_ANY,
            .seq = ++peer->seq,
        };
        uint64_t key = keys_scattered(rng_below(&crew->rng, (uint64_t)crew->options->keys));
        memcpy(at, &request, sizeof request);
        memcpy(at + sizeof request, &key, sizeof key);
    }
    return send_all(peer->fd, crew->frames, count * crew->frame_bytes);
}

/* Takes the whole frames of what has been received; returns the replies among them. */
static int64_t take_replies(struct crew *crew, struct peer *peer)
{
    int64_t replies = 0;
    size_t at = 0;
    while (peer->in_bytes - at >= FRAME_PREFIX_BYTES) {
        struct frame_prefix prefix;
        struct frame_reply reply;
        memcpy(&prefix, peer->in + at, sizeof prefix);
        size_t bytes = round_up_8((size_t)prefix.length);
        bool is_bad = prefix.length < FRAME_PREFIX_BYTES || bytes > IN_BYTES ||
                      prefix.type == FRAME_REFUSE ||
                      (prefix.type == FRAME_REPLY && prefix.length < FRAME_REPLY_BYTES);
        if (is_bad) return -EPROTO;
        if (bytes > peer->in_bytes - at) break;
        if (prefix.type == FRAME_REPLY) {
            memcpy(&reply, peer->in + at, sizeof reply);
            if (reply_outcome(reply.code) != OUTCOME_OK) crew->failed++;
            replies++;
        }
        at += bytes;
    }
    memmove(peer->in, peer->in + at, peer->in_bytes - at);
    peer->in_bytes -= at;
    return replies;
}

static int receive_some(struct peer *peer, int flags)
{
    ssize_t bytes = recv(peer->fd, peer->in + peer->in_bytes, IN_BYTES - peer->in_bytes, flags);
    if (bytes == 0) return -EPIPE;
    if (bytes < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    peer->in_bytes += (size_t)bytes;
    return 0;
}

/* ----------------------------------------------------------------------------------- connect */

static int dial(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int one = 1;
    const char *colon = strrchr(address, ':');
    ASSERT(colon != NULL);
    to.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0)
        return fd;
    int err = -errno;
    close(fd);
    return err;
}

/* Waits for the frame that is next, and drops it when it has been copied. */
static int next_frame(struct peer *peer, enum frame_type type, void *to, size_t to_bytes)
{
    struct frame_prefix prefix = {0};
    while (true) {
        if (peer->in_bytes >= sizeof prefix) memcpy(&prefix, peer->in, sizeof prefix);
        size_t bytes = round_up_8((size_t)prefix.length);
        if (bytes > IN_BYTES) return -EPROTO;
        if (prefix.length > 0 && bytes <= peer->in_bytes) break;
        int err = receive_some(peer, 0);
        if (err < 0) return err;
    }
    if (prefix.type != type || prefix.length < to_bytes) return -EPROTO;
    memcpy(to, peer->in, to_bytes);
    size_t bytes = round_up_8((size_t)prefix.length);
    peer->in_bytes -= bytes;
    memmove(peer->in, peer->in + bytes, peer->in_bytes);
    return 0;
}

static int greet(struct peer *peer, const char *name)
{
    uint8_t out[256];
    struct frame_welcome welcome = {0};
    struct frame_opened opened = {0};
    struct frame_hello hello = {.role = ROLE_CLIENT, .seq_first = 1, .floor = 1};
    hello.session = rng_secret_u64() | 1;
    hello.session_start = clock_wall_ms() << 16;
    size_t bytes = hello_encode(&hello, (struct bytes){NULL, 0}, out);
    bytes += open_encode(1, (struct bytes){(const uint8_t *)name, strlen(name)}, out + bytes);
    int err = send_all(peer->fd, out, bytes);
    if (err == 0) err = next_frame(peer, FRAME_WELCOME, &welcome, sizeof welcome);
    if (err == 0) err = next_frame(peer, FRAME_OPENED, &opened, sizeof opened);
    if (err < 0) return err;
    peer->cache = opened.cache;
    return reply_outcome(opened.prefix.small) == OUTCOME_OK ? 0 : -ENOENT;
}

static bool is_bare(enum kind kind)
{
    return kind >= KIND_BARE_URING;
}

static int crew_connect(struct crew *crew, enum kind kind)
{
    crew->poller = epoll_create1(EPOLL_CLOEXEC);
    if (crew->poller < 0) return -errno;
    for (int64_t i = 0; i < crew->options->connections; i++) {
        struct peer *peer = &crew->peers[i];
        int fd =
            is_bare(kind) ? crew->bare.wiring.client_fds[i] : dial(crew->nodes.list[0].address);
        if (fd < 0) return fd;
        peer->fd = fd;
        int err = is_bare(kind) ? 0 : greet(peer, "bench");
        if (err < 0) return err;
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (epoll_ctl(crew->poller, EPOLL_CTL_ADD, fd, &event) < 0) return -errno;
    }
    return 0;
}

static int crew_start_bare(struct crew *crew, enum kind kind, const struct cpus_plan *plan)
{
    const struct bare_options bare = {.way = kind_ways[kind],
                                      .connections = (uint32_t)crew->options->connections,
                                      .request_bytes = (uint32_t)crew->frame_bytes,
                                      .in_flight_max = IN_FLIGHT_MAX,
                                      .cpu = cpus_of_server(plan, 0)};
    return bare_start(&crew->bare, &bare);
}

static int crew_start_node(struct crew *crew, enum kind kind, const struct cpus_plan *plan)
{
    struct nodes_options nodes = {.bench = "bench connections",
                                  .name = "bench",
                                  .count = 1,
                                  .shards = 1,
                                  .waiting = NODES_SLEEP,
                                  .io = kind_ios[kind],
                                  .plan = plan};
    return nodes_start(&crew->nodes, &nodes);
}

static int crew_start(struct crew *crew, const struct options *options, enum kind kind,
                      const struct cpus_plan *plan)
{
    crew->options = options;
    crew->frame_bytes = round_up_8(FRAME_REQUEST_BYTES + (size_t)options->size);
    crew->peers = memory_take((size_t)options->connections * sizeof *crew->peers);
    crew->frames = memory_take(IN_FLIGHT_MAX * crew->frame_bytes);
    rng_init(&crew->rng, 20170627);
    int err = crew->peers == NULL || crew->frames == NULL ? -ENOMEM : 0;
    if (err == 0 && is_bare(kind)) err = crew_start_bare(crew, kind, plan);
    if (err == 0 && !is_bare(kind)) {
        int status = crew_start_node(crew, kind, plan);
        if (status != 0) return status;
    }
    if (err == 0) err = crew_connect(crew, kind);
    if (err < 0) fprintf(stderr, "fero bench connections: cannot connect: %s\n", strerror(-err));
    return err < 0 ? 3 : 0;
}

static void crew_stop(struct crew *crew, enum kind kind)
{
    if (crew->poller > 0) close(crew->poller);
    if (is_bare(kind)) {
        bare_stop(&crew->bare);
    } else {
        for (int64_t i = 0; crew->peers != NULL && i < crew->options->connections; i++)
            if (crew->peers[i].fd > 0) close(crew->peers[i].fd);
        nodes_stop(&crew->nodes);
    }
    memory_put(crew->peers);
    memory_put(crew->frames);
}

static uint64_t crew_cpu_ns(const struct crew *crew)
{
    return crew->bare.runs ? bare_cpu_ns(&crew->bare) : nodes_cpu_ns(&crew->nodes);
}

/* ----------------------------------------------------------------------------------- measure */

static int answer_ready(struct crew *crew)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(crew->poller, events, EVENTS_MAX, SILENT_MS);
    if (count < 0) return errno == EINTR ? 0 : -errno;
    if (count == 0) return -ETIMEDOUT;
    for (int i = 0; i < count; i++) {
        struct peer *peer = &crew->peers[events[i].data.u32];
        int64_t replies = receive_some(peer, MSG_DONTWAIT);
        if (replies == 0) replies = take_replies(crew, peer);
        if (replies < 0) return (int)replies;
        peer->replies += (uint64_t)replies;
        crew->replies += (uint64_t)replies;
        int err = replies > 0 ? send_requests(crew, peer, (uint64_t)replies) : 0;
        if (err < 0) return err;
    }
    return 0;
}

static int run_records(struct crew *crew, uint64_t records, uint64_t in_flight)
{
    const struct options *options = crew->options;
    crew->unsent = records;
    crew->replies = 0;
    for (int64_t i = 0; i < options->connections; i++) {
        crew->peers[i].replies = 0;
        int err = send_requests(crew, &crew->peers[i], in_flight);
        if (err < 0) return err;
    }
    while (crew->replies < records) {
        int err = answer_ready(crew);
        if (err < 0) return err;
    }
    return 0;
}

/* The slowest connection's replies by the mean. */
static double least_of(const struct crew *crew)
{
    uint64_t least = UINT64_MAX;
    int64_t connections = crew->options->connections;
    for (int64_t i = 0; i < connections; i++) least = min_u64(least, crew->peers[i].replies);
    return (double)least * (double)connections / (double)crew->replies;
}

static int measure_crew(struct crew *crew, double *ns_per_msg)
{
    uint64_t records = (uint64_t)crew->options->records;
    uint64_t cpu_begin_ns = crew_cpu_ns(crew);
    uint64_t begin_ns = clock_now_ns();
    int err = run_records(crew, records, (uint64_t)crew->options->in_flight);
    double seconds = (double)(clock_now_ns() - begin_ns) / 1e9;
    *ns_per_msg = (double)(crew_cpu_ns(crew) - cpu_begin_ns) / (double)records;
    if (err < 0) return err;
    speed_series_add(&crew->per_s, (double)records / seconds);
    speed_series_add(&crew->server_ns_per_msg, *ns_per_msg);
    speed_series_add(&crew->least, least_of(crew));
    return 0;
}

static int measure_limit(struct measured *measured, const struct options *options)
{
    struct limit_options limit;
    struct limit_result result;
    limit_options_init(&limit);
    limit.message_bytes = max_u64((uint64_t)options->size, LIMIT_MESSAGE_BYTES_MIN);
    limit.records = (uint64_t)options->records;
    limit.records_warmup = limit.records / 4;
    limit.keys = (uint32_t)options->keys;
    limit.connections = (uint32_t)options->connections;
    limit.window_bytes = (uint32_t)(options->connections * options->in_flight *
                                    (int64_t)measured->crews[0].frame_bytes);
    limit.client_cpu = cpus_of_client(&measured->plan, 0);
    limit.server_cpu = cpus_of_server(&measured->plan, 0);
    limit.wait = LIMIT_WAIT_BLOCK;
    int err = limit_throughput(&limit, &result);
    if (err == 0) speed_series_add(&measured->limit_per_s, result.per_s);
    return err;
}

/*
 * Until the node's memory grows no more, as its first touches cost more than the work: with many
 * requests in flight, which takes a tenth of the time. Then in the shape that is measured.
 */
static int warm_up(struct crew *crew)
{
    const struct options *options = crew->options;
    uint64_t records = (uint64_t)options->records;
    uint64_t chunk = max_u64(2 * (uint64_t)options->keys,
                             min_u64(records, SETTLE_CHUNK_BYTES / (uint64_t)options->size));
    uint64_t left = SETTLE_RECORDS_FACTOR * records;
    uint64_t begin_ns = clock_now_ns();
    uint64_t before_bytes;
    do {
        before_bytes = nodes_resident_bytes(&crew->nodes) + SETTLE_SLACK_BYTES;
        left -= min_u64(left, chunk);
        int err = run_records(crew, chunk, IN_FLIGHT_MAX);
        if (err < 0) return err;
    } while (nodes_resident_bytes(&crew->nodes) > before_bytes && left > 0 &&
             clock_now_ns() - begin_ns < SETTLE_NS);
    return run_records(crew, max_u64(records / 4, 1), (uint64_t)options->in_flight);
}

static int measure_runs(struct measured *measured, const struct options *options)
{
    int err = 0;
    progress_say("warming up");
    for (uint32_t kind = 0; err == 0 && kind < measured->kinds; kind++)
        err = warm_up(&measured->crews[kind]);
    for (int64_t run = 0; err == 0 && run < options->runs; run++) {
        double ns[KINDS] = {0};
        progress_say("run %" PRId64 " of %" PRId64, run + 1, options->runs);
        for (uint32_t kind = 0; err == 0 && kind < measured->kinds; kind++)
            err = measure_crew(&measured->crews[kind], &ns[kind]);
        if (err == 0) speed_series_add(&measured->ratio, ns[KIND_URING] / ns[KIND_EPOLL]);
        if (err == 0 && options->bare)
            speed_series_add(&measured->bare_ratio, ns[KIND_BARE_URING] / ns[KIND_BARE_EPOLL]);
        if (err == 0 && options->limit) err = measure_limit(measured, options);
    }
    progress_clear();
    if (err < 0) fprintf(stderr, "fero bench connections: lost: %s\n", strerror(-err));
    return err < 0 ? 3 : 0;
}

static int measure(struct measured *measured, const struct options *options)
{
    cpu_set_t before;
    cpus_plan_make(&measured->plan, 1, 1);
    int status = 0;
    measured->kinds = options->bare ? KINDS : KIND_BARE_URING;
    for (uint32_t kind = 0; status == 0 && kind < measured->kinds; kind++)
        status = crew_start(&measured->crews[kind], options, kind, &measured->plan);
    if (status == 0) {
        bool pinned = sched_getaffinity(0, sizeof before, &before) == 0 &&
                      cpus_pin(cpus_of_client(&measured->plan, 0)) == 0;
        status = measure_runs(measured, options);
        if (pinned) sched_setaffinity(0, sizeof before, &before);
    }
    for (uint32_t kind = 0; kind < measured->kinds; kind++) crew_stop(&measured->crews[kind], kind);
    return status;
}

/* ------------------------------------------------------------------------------------ report */

static void print_json(const struct measured *measured, const struct options *options)
{
    printf("{\"bench\":\"connections\",\"connections\":%" PRId64 ",\"in_flight\":%" PRId64
           ",\"message_bytes\":%" PRId64 ",\"records\":%" PRId64 ",\"runs\":%u",
           options->connections, options->in_flight, options->size, options->records,
           measured->ratio.count);
    for (uint32_t kind = 0; kind < measured->kinds; kind++) {
        const struct crew *crew = &measured->crews[kind];
        printf(",\"%s\":{\"per_s\":%.0f,\"server_ns_per_msg\":%.1f,\"least_of_mean\":%.2f,"
               "\"failed\":%" PRIu64 "}",
               kind_keys[kind], speed_series_median(&crew->per_s),
               speed_series_median(&crew->server_ns_per_msg), speed_series_min(&crew->least),
               crew->failed);
    }
    printf(",\"ratio\":%.3f,\"ratio_min\":%.3f,\"ratio_max\":%.3f,\"limit_per_s\":%.0f,",
           speed_series_median(&measured->ratio), speed_series_min(&measured->ratio),
           speed_series_max(&measured->ratio), speed_series_median(&measured->limit_per_s));
    if (options->bare)
        printf("\"bare_ratio\":%.3f,\"bare_ratio_min\":%.3f,\"bare_ratio_max\":%.3f,",
               speed_series_median(&measured->bare_ratio), speed_series_min(&measured->bare_ratio),
               speed_series_max(&measured->bare_ratio));
    report_machine_json(stdout);
    printf("}\n");
}

static void print_ratio(const char *what, const struct speed_series *ratio)
{
    printf("  %s: %.2f of epoll's with io_uring, from %.2f to %.2f\n", what,
           speed_series_median(ratio), speed_series_min(ratio), speed_series_max(ratio));
}

static void print_result(const struct measured *measured, const struct options *options)
{
    char rate[REPORT_NUMBER_BYTES];
    double limit = speed_series_median(&measured->limit_per_s);
    printf("%" PRId64 " connections with %" PRId64 " in flight each, %" PRId64
           " updates of %" PRId64 " bytes a run, median of %u runs\n",
           options->connections, options->in_flight, options->records, options->size,
           measured->ratio.count);
    for (uint32_t kind = 0; kind < measured->kinds; kind++) {
        const struct crew *crew = &measured->crews[kind];
        double per_s = speed_series_median(&crew->per_s);
        printf("  %s:  server %.1f ns/msg, %s/s", kind_names[kind],
               speed_series_median(&crew->server_ns_per_msg), report_rate(per_s, rate));
        if (limit > 0) printf(", %.2f of the limit", per_s / limit);
        printf("; the slowest connection had %.2f of the mean\n", speed_series_min(&crew->least));
        if (crew->failed > 0) printf("  NOT verified: %" PRIu64 " failed\n", crew->failed);
    }
    print_ratio("server CPU a message", &measured->ratio);
    if (options->bare) print_ratio("with nothing around the two loops", &measured->bare_ratio);
    if (limit > 0) printf("  limit: %s/s\n", report_rate(limit, rate));
}

/* clang-format off */
#define FIELD(field) .offset = offsetof(struct options, field)
static const struct option_spec specs[] = {
    {.name = "connections", .letter = 'l', .kind = OPTION_NUMBER, FIELD(connections), .shows = "N",
     .low = 1, .high = CONNECTIONS_MAX, .help = "to each server (64)"},
    {.name = "in-flight", .kind = OPTION_NUMBER, FIELD(in_flight), .shows = "N", .low = 1,
     .high = IN_FLIGHT_MAX, .help = "requests that each has open (1)"},
    {.name = "records", .letter = 'r', .kind = OPTION_SIZE, FIELD(records), .shows = "N",
     .low = 1000, .high = 1000000000, .help = "updates of a run (500000)"},
    {.name = "message", .letter = 'm', .kind = OPTION_SIZE, FIELD(size), .shows = "BYTES",
     .low = SENDER_UPDATE_BYTES_MIN, .high = 2048, .help = "key and value (100)"},
    {.name = "keys", .kind = OPTION_SIZE, FIELD(keys), .shows = "N", .low = 1, .high = 1 << 26,
     .help = "distinct random keys (10000)"},
    {.name = "runs", .kind = OPTION_NUMBER, FIELD(runs), .shows = "N", .low = 1,
     .high = SPEED_RUNS_MAX, .help = "of each kind, in turn; medians are printed (5)"},
    {.name = "bare", .kind = OPTION_FLAG, FIELD(bare),
     .help = "alternate with the same loops and nothing around them"},
    {.name = "limit", .kind = OPTION_FLAG, FIELD(limit),
     .help = "alternate with the machine's limit in the same shape"},
    {.name = "json", .kind = OPTION_FLAG, FIELD(json), .help = "print one JSON object"},
};
/* clang-format on */

static const struct command command_connections = {
    .name = "bench connections",
    .arguments = "",
    .summary = "what many connections cost, with io_uring and with epoll",
    .details =
        "Starts two servers of one shard, one on io_uring and one on epoll, and measures the CPU\n"
        "time that a message costs them while many connections have few requests in flight each.",
    .options = specs,
    .options_count = ARRAY_COUNT(specs),
    .examples = {"fero bench connections --runs 9 --json", "fero bench connections --bare",
                 "fero bench connections -l 1000 --in-flight 10 --limit"},
};

static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int bench_connections_main(int argc, char **argv)
{
    struct options options = {.connections = 64,
                              .in_flight = 1,
                              .records = 500000,
                              .size = 100,
                              .keys = 10000,
                              .runs = 5};
    int count;
    int status = command_parse(&command_connections, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    raise_descriptors();
    struct measured *measured = memory_take(sizeof *measured);
    if (measured == NULL) return 1;
    status = measure(measured, &options);
    if (status == 0) {
        if (options.json)
            print_json(measured, &options);
        else
            print_result(measured, &options);
        if (measured->crews[KIND_URING].failed + measured->crews[KIND_EPOLL].failed > 0) status = 1;
    }
    memory_put(measured);
    return status;
}
