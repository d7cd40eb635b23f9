/*
 * The library's client connects to every shard, so nothing of its crosses. This one is written down
 * from docs/protocol.md and has one connection, to shard 0 of a server with two.
 *
 * Its keys come from two sets of the same size: one of keys that shard 0 owns, one of which shard 1
 * owns every other key. Runs of both take turns over the same connection. The server's side of it is
 * what counts: the CPU time of all its threads. Requests go out in batches; eight batches may be under
 * way, and the next is sent when all of the eighth before it has been answered.
 */
#include "bench/crossing.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "bench/bench.h"
#include "bench/keys.h"
#include "bench/progress.h"
#include "bench/report.h"
#include "cli/command.h"
#include "cli/json.h"
#include "ring/slot.h"
#include "wire/hello.h"

#define SHARDS 2
#define KEY_BYTES 8
#define BATCHES 8
#define BATCH_MAX 1024
#define IN_BYTES ((size_t)256 * KIB)
#define SILENT_MS 10000
/* Resident memory also grows by what is none of the log. */
#define SETTLE_SLACK_BYTES (4 * MIB)

/* The one connection. */
struct crossing {
    const struct crossing_case *about;
    struct nodes nodes;
    int fd;
    uint16_t cache;
    uint64_t *keys[2]; /* none crosses; every other one does */
    struct rng rng;
    uint8_t *frames; /* a batch */
    size_t frame_bytes;
    uint32_t batch;
    uint32_t open[BATCHES]; /* unanswered requests of each batch */
    uint64_t seq;           /* of the last request */
    size_t unsent_from;
    size_t unsent_to;
    uint8_t *in;
    size_t in_bytes;
    uint64_t replies;
    uint64_t failed;
    uint64_t crossed; /* what the last INFO said */
    bool is_informed;
};

static int fail(const struct crossing *crossing, const char *what, int err)
{
    fprintf(stderr, "fero %s: %s: %s\n", crossing->about->bench, what, strerror(-err));
    return 3;
}

/* ----------------------------------------------------------------------------------- receive */

static void take_reply(struct crossing *crossing, const uint8_t *frame)
{
    struct frame_reply reply;
    memcpy(&reply, frame, sizeof reply);
    if (reply.seq == 0) {
        /* The one to INFO. */
        crossing->crossed = json_sum((const char *)frame + sizeof reply,
                                     reply.length - sizeof reply, "crossed_out");
        crossing->is_informed = true;
        return;
    }
    if (reply_outcome(reply.code) != OUTCOME_OK) crossing->failed++;
    crossing->open[(reply.seq - 1) / crossing->batch % BATCHES]--;
    crossing->replies++;
}

/* Takes every whole frame of what has been received. */
static int take_frames(struct crossing *crossing)
{
    size_t at = 0;
    while (crossing->in_bytes - at >= FRAME_PREFIX_BYTES) {
        struct frame_prefix prefix;
        memcpy(&prefix, crossing->in + at, sizeof prefix);
        size_t bytes = round_up_8((size_t)prefix.length);
        if (prefix.length < FRAME_PREFIX_BYTES || bytes > IN_BYTES) return -EPROTO;
        if (bytes > crossing->in_bytes - at) break;
        if (prefix.type == FRAME_REFUSE) return -EPROTO;
        if (prefix.type == FRAME_REPLY) {
            if (prefix.length < FRAME_REPLY_BYTES) return -EPROTO;
            take_reply(crossing, crossing->in + at);
        }
        at += bytes;
    }
    memmove(crossing->in, crossing->in + at, crossing->in_bytes - at);
    crossing->in_bytes -= at;
    return 0;
}

/* Waits for bytes, or for room to send where there is something to send. */
static int await(const struct crossing *crossing)
{
    bool sends = crossing->unsent_from < crossing->unsent_to;
    struct pollfd wait = {.fd = crossing->fd, .events = (short)(sends ? POLLIN | POLLOUT : POLLIN)};
    int ready = poll(&wait, 1, SILENT_MS);
    if (ready < 0) return errno == EINTR ? 0 : -errno;
    return ready == 0 ? -ETIMEDOUT : 0;
}

static int receive_some(struct crossing *crossing)
{
    ssize_t bytes = recv(crossing->fd, crossing->in + crossing->in_bytes,
                         IN_BYTES - crossing->in_bytes, MSG_DONTWAIT);
    if (bytes == 0) return -EPIPE;
    if (bytes < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    crossing->in_bytes += (size_t)bytes;
    return 0;
}

/* -------------------------------------------------------------------------------------- send */

static int send_some(struct crossing *crossing)
{
    if (crossing->unsent_from == crossing->unsent_to) return 0;
    ssize_t bytes = send(crossing->fd, crossing->frames + crossing->unsent_from,
                         crossing->unsent_to - crossing->unsent_from, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (bytes < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    crossing->unsent_from += (size_t)bytes;
    return 0;
}

static void make_batch(struct crossing *crossing, const uint64_t *keys)
{
    uint8_t *at = crossing->frames;
    for (uint32_t i = 0; i < crossing->batch; i++, at += crossing->frame_bytes) {
        struct frame_request request = {
            .length = (uint32_t)(FRAME_REQUEST_BYTES + crossing->about->message_bytes),
            .type = FRAME_UPDATE,
            .flags = VALUE_BYTES | WANT_REPLY << FRAME_WANT_SHIFT,
            .key_len = KEY_BYTES,
            .cache = crossing->cache,
            .slot = FRAME_SLOT_ANY,
            .seq = (uint32_t)++crossing->seq,
        };
        uint64_t key = keys[rng_below(&crossing->rng, crossing->about->keys)];
        memcpy(at, &request, sizeof request);
        memcpy(at + sizeof request, &key, sizeof key);
    }
    crossing->unsent_from = 0;
    crossing->unsent_to = crossing->batch * crossing->frame_bytes;
}

static bool is_all_answered(const struct crossing *crossing)
{
    for (uint32_t i = 0; i < BATCHES; i++)
        if (crossing->open[i] > 0) return false;
    return true;
}

/* `batches` of requests and all of their replies. */
static int run_batches(struct crossing *crossing, const uint64_t *keys, uint64_t batches)
{
    uint64_t made = 0;
    while (made < batches || !is_all_answered(crossing)) {
        uint32_t *open = &crossing->open[crossing->seq / crossing->batch % BATCHES];
        if (made < batches && *open == 0 && crossing->unsent_from == crossing->unsent_to) {
            make_batch(crossing, keys);
            *open = crossing->batch;
            made++;
        }
        int err = send_some(crossing);
        if (err == 0) err = receive_some(crossing);
        if (err == 0) err = take_frames(crossing);
        open = &crossing->open[crossing->seq / crossing->batch % BATCHES];
        bool may_make =
            made < batches && *open == 0 && crossing->unsent_from == crossing->unsent_to;
        if (err == 0 && !may_make && !(made == batches && is_all_answered(crossing)))
            err = await(crossing);
        if (err < 0) return err;
    }
    return 0;
}

/* How many requests have crossed so far. */
static int ask_crossed(struct crossing *crossing, uint64_t *crossed)
{
    struct frame_request request = {.length = FRAME_REQUEST_BYTES,
                                    .type = FRAME_INFO,
                                    .flags = WANT_REPLY << FRAME_WANT_SHIFT,
                                    .slot = FRAME_SLOT_ANY};
    crossing->is_informed = false;
    if (send(crossing->fd, &request, sizeof request, MSG_NOSIGNAL) != sizeof request) return -EPIPE;
    while (!crossing->is_informed) {
        int err = await(crossing);
        if (err == 0) err = receive_some(crossing);
        if (err == 0) err = take_frames(crossing);
        if (err < 0) return err;
    }
    *crossed = crossing->crossed;
    return 0;
}

/* ----------------------------------------------------------------------------------- connect */

static int dial(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    const char *colon = strrchr(address, ':');
    if (colon == NULL) return -EINVAL;
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

/* The next frame, whole, at the beginning of `in`; its length, or a negative errno. */
static int64_t next_frame(struct crossing *crossing, struct frame_prefix *prefix)
{
    while (true) {
        if (crossing->in_bytes >= sizeof *prefix) {
            memcpy(prefix, crossing->in, sizeof *prefix);
            if (round_up_8((size_t)prefix->length) > IN_BYTES) return -EPROTO;
            if (round_up_8((size_t)prefix->length) <= crossing->in_bytes) return prefix->length;
        }
        int err = await(crossing);
        if (err == 0) err = receive_some(crossing);
        if (err < 0) return err;
    }
}

static void drop_frame(struct crossing *crossing, int64_t length)
{
    size_t bytes = round_up_8((size_t)length);
    crossing->in_bytes -= bytes;
    memmove(crossing->in, crossing->in + bytes, crossing->in_bytes);
}

static void learn_windows(struct crossing *crossing, const struct frame_welcome *welcome)
{
    uint64_t batch = min_u64(BATCH_MAX, welcome->window_requests / BATCHES);
    batch = min_u64(batch, welcome->window_bytes / BATCHES / crossing->frame_bytes);
    crossing->batch = (uint32_t)max_u64(batch, 1);
}

/* Fills both sets. `boundary` is shard 1's first slot. */
static void choose_keys(struct crossing *crossing, uint16_t boundary)
{
    uint64_t next = 1;
    for (uint32_t set = 0; set < 2; set++) {
        for (uint32_t i = 0; i < crossing->about->keys; next++) {
            uint64_t key = keys_scattered(next);
            bool crosses = slot_of_key(&key, sizeof key) >= boundary;
            if (crosses != (set == 1 && i % 2 == 1)) continue;
            crossing->keys[set][i++] = key;
        }
    }
}

static int greet(struct crossing *crossing)
{
    uint8_t out[256];
    struct frame_prefix prefix;
    struct refusal refusal;
    struct frame_welcome welcome;
    struct frame_opened opened;
    struct bytes verbs;
    const uint8_t *shard_slots;
    uint16_t boundary;
    struct frame_hello hello = {.role = ROLE_CLIENT, .seq_first = 1, .floor = 1};
    struct bytes name = {(const uint8_t *)crossing->about->name, strlen(crossing->about->name)};
    if (getrandom(&hello.session, sizeof hello.session, 0) != sizeof hello.session) return -errno;
    hello.session |= 1;
    hello.session_start = clock_wall_ms() << 16;
    size_t bytes = hello_encode(&hello, (struct bytes){NULL, 0}, out);
    bytes += open_encode(1, name, out + bytes);
    if (send(crossing->fd, out, bytes, MSG_NOSIGNAL) != (ssize_t)bytes) return -EPIPE;

    int64_t length = next_frame(crossing, &prefix);
    if (length < 0) return (int)length;
    if (prefix.type != FRAME_WELCOME ||
        welcome_decode(&welcome, &shard_slots, crossing->in, (size_t)length, &refusal) < 0)
        return -EPROTO;
    if (welcome.shard != 0 || welcome.shards_count != SHARDS) return -EPROTO;
    memcpy(&boundary, shard_slots + sizeof boundary, sizeof boundary);
    drop_frame(crossing, length);
    length = next_frame(crossing, &prefix);
    if (length < 0) return (int)length;
    if (prefix.type != FRAME_OPENED ||
        opened_decode(&opened, &verbs, crossing->in, (size_t)length, &refusal) < 0)
        return -EPROTO;
    if (reply_outcome(opened.prefix.small) != OUTCOME_OK) return -ENOENT;
    crossing->cache = opened.cache;
    drop_frame(crossing, length);
    learn_windows(crossing, &welcome);
    choose_keys(crossing, boundary);
    return 0;
}

/* ----------------------------------------------------------------------------------- measure */

static int measure_course(struct crossing *crossing, uint32_t set, double *ns_per_msg,
                          struct crossing_figures *figures)
{
    uint64_t batches = max_u64(crossing->about->records / crossing->batch, 1);
    double messages = (double)(batches * crossing->batch);
    uint64_t cpu_begin_ns = nodes_cpu_ns(&crossing->nodes);
    uint64_t begin_ns = clock_now_ns();
    int err = run_batches(crossing, crossing->keys[set], batches);
    double seconds = (double)(clock_now_ns() - begin_ns) / 1e9;
    *ns_per_msg = (double)(nodes_cpu_ns(&crossing->nodes) - cpu_begin_ns) / messages;
    if (err < 0) return err;
    speed_series_add(&figures->per_s, messages / seconds);
    speed_series_add(&figures->server_ns_per_msg, *ns_per_msg);
    return 0;
}

/*
 * Writes keys of both sets until the node's memory grows no more, as its first touches cost more
 * than the work; but for no more than ten times the messages of a run.
 */
static int warm_up(struct crossing *crossing)
{
    const struct crossing_case *about = crossing->about;
    uint64_t chunk = max_u64(2 * about->keys, SETTLE_CHUNK_BYTES / about->message_bytes);
    uint64_t batches = max_u64(chunk / crossing->batch, 1);
    uint64_t left = SETTLE_RECORDS_FACTOR * about->records;
    uint64_t begin_ns = clock_now_ns();
    uint64_t before_bytes;
    progress_say("%s, warming up", about->step);
    do {
        before_bytes = nodes_resident_bytes(&crossing->nodes) + SETTLE_SLACK_BYTES;
        left -= min_u64(left, 2 * chunk);
        int err = run_batches(crossing, crossing->keys[0], batches);
        if (err == 0) err = run_batches(crossing, crossing->keys[1], batches);
        if (err < 0) return err;
    } while (nodes_resident_bytes(&crossing->nodes) > before_bytes && left > 0 &&
             clock_now_ns() - begin_ns < SETTLE_NS);
    return 0;
}

/* The shares that crossed are taken over all runs. */
static int measure_runs(struct crossing *crossing, struct crossing_result *result)
{
    uint64_t before = 0;
    uint64_t after = 0;
    int err = warm_up(crossing);
    crossing->replies = 0;
    if (err == 0) err = ask_crossed(crossing, &before);
    for (uint32_t run = 0; err == 0 && run < crossing->about->runs; run++) {
        double none_ns = 0;
        double half_ns = 0;
        progress_say("%s, run %u of %u", crossing->about->step, run + 1, crossing->about->runs);
        err = measure_course(crossing, 0, &none_ns, &result->none);
        if (err == 0) err = measure_course(crossing, 1, &half_ns, &result->half);
        if (err == 0 && none_ns > 0) speed_series_add(&result->ratio, half_ns / none_ns);
    }
    if (err == 0) err = ask_crossed(crossing, &after);
    if (err < 0) return err;
    result->crossed = (double)(after - before) / ((double)crossing->replies / 2);
    result->replies = crossing->replies;
    result->failed = crossing->failed;
    return 0;
}

static int crossing_init(struct crossing *crossing, const struct crossing_case *about)
{
    *crossing = (struct crossing){.about = about, .fd = -1};
    crossing->frame_bytes = round_up_8(FRAME_REQUEST_BYTES + about->message_bytes);
    crossing->frames = memory_take(BATCH_MAX * crossing->frame_bytes);
    crossing->in = memory_take(IN_BYTES);
    crossing->keys[0] = memory_take(about->keys * sizeof(uint64_t));
    crossing->keys[1] = memory_take(about->keys * sizeof(uint64_t));
    rng_init(&crossing->rng, 20170627);
    return crossing->frames == NULL || crossing->in == NULL || crossing->keys[0] == NULL ||
                   crossing->keys[1] == NULL
               ? -ENOMEM
               : 0;
}

static void crossing_deinit(struct crossing *crossing)
{
    if (crossing->fd >= 0) close(crossing->fd);
    memory_put(crossing->frames);
    memory_put(crossing->in);
    memory_put(crossing->keys[0]);
    memory_put(crossing->keys[1]);
}

/* Both shards have a cpu of their own; with only two, the client is on the idler one. */
static void plan_cpus(struct cpus_plan *plan)
{
    cpus_plan_make(plan, 1, SHARDS);
    if (plan->allowed.count >= SHARDS) plan->servers_count = SHARDS;
    plan->is_crowded = false;
}

static int connect_and_measure(struct crossing *crossing, struct crossing_result *result)
{
    crossing->fd = dial(crossing->nodes.list[0].address);
    if (crossing->fd < 0) return fail(crossing, "cannot connect", crossing->fd);
    int err = greet(crossing);
    if (err < 0) return fail(crossing, "the greeting failed", err);
    err = measure_runs(crossing, result);
    return err < 0 ? fail(crossing, "lost", err) : 0;
}

int crossing_measure(const struct crossing_case *about, struct crossing_result *result)
{
    struct crossing crossing;
    cpu_set_t before;
    ASSERT(about->keys > 0);
    ASSERT(about->message_bytes >= KEY_BYTES);
    *result = (struct crossing_result){.about = *about};
    plan_cpus(&result->plan);
    struct nodes_options options = {.bench = about->bench,
                                    .name = about->name,
                                    .count = 1,
                                    .shards = SHARDS,
                                    .waiting = about->waiting,
                                    .plan = &result->plan};
    int err = crossing_init(&crossing, about);
    int status =
        err < 0 ? fail(&crossing, "no memory", err) : nodes_start(&crossing.nodes, &options);
    if (status == 0) {
        bool pinned = sched_getaffinity(0, sizeof before, &before) == 0 &&
                      cpus_pin(cpus_of_client(&result->plan, 0)) == 0;
        status = connect_and_measure(&crossing, result);
        if (pinned) sched_setaffinity(0, sizeof before, &before);
        progress_clear();
        nodes_stop(&crossing.nodes);
    }
    crossing_deinit(&crossing);
    return status;
}

bool crossing_is_verified(const struct crossing_result *result)
{
    /* Drawn from a set of which half crosses. */
    return result->failed == 0 && result->replies > 0 && fabs(result->crossed - 0.5) < 0.05;
}

/* -------------------------------------------------------------------------------------- main */

struct crossing_options {
    int64_t records;
    int64_t size;
    int64_t keys;
    int64_t runs;
    bool busy_poll;
    bool json;
};

/* clang-format off */
#define FIELD(field) .offset = offsetof(struct crossing_options, field)
static const struct option_spec crossing_specs[] = {
    {.name = "records", .letter = 'r', .kind = OPTION_SIZE, FIELD(records), .shows = "N", .low = 1,
     .high = 1000000000, .help = "updates of a run (1000000)"},
    {.name = "message", .letter = 'm', .kind = OPTION_SIZE, FIELD(size), .shows = "BYTES",
     .low = SENDER_UPDATE_BYTES_MIN, .high = 64 << 10, .help = "key and value (100)"},
    {.name = "keys", .kind = OPTION_SIZE, FIELD(keys), .shows = "N", .low = 2, .high = 1 << 26,
     .help = "distinct random keys of each kind of run (1000000)"},
    {.name = "runs", .kind = OPTION_NUMBER, FIELD(runs), .shows = "N", .low = 1,
     .high = SPEED_RUNS_MAX, .help = "of each kind, in turn; medians are printed (5)"},
    {.name = "busy-poll", .kind = OPTION_FLAG, FIELD(busy_poll),
     .help = "the server never sleeps, which then counts as its work"},
    {.name = "json", .kind = OPTION_FLAG, FIELD(json), .help = "print one JSON object"},
};
/* clang-format on */

static const struct command command_crossing = {
    .name = "bench crossing",
    .arguments = "",
    .summary = "what a request costs that another shard owns",
    .details =
        "Starts a server of two shards and connects to one of them. In every other run half\n"
        "of the requests belong to the other shard and cross a lane.",
    .options = crossing_specs,
    .options_count = ARRAY_COUNT(crossing_specs),
    .examples = {"fero bench crossing", "fero bench crossing --runs 9 --json"},
};

static void print_result(const struct crossing_result *result)
{
    char none[REPORT_NUMBER_BYTES];
    char half[REPORT_NUMBER_BYTES];
    char cpus[CPUS_TEXT_BYTES];
    printf("%" PRIu64 " updates a run, %u bytes, %u keys, median of %u runs; %s\n",
           result->about.records, result->about.message_bytes, result->about.keys,
           result->ratio.count, cpus_describe(&result->plan, cpus));
    printf("  none crosses:  server %.1f ns/msg, %s/s\n",
           speed_series_median(&result->none.server_ns_per_msg),
           report_rate(speed_series_median(&result->none.per_s), none));
    printf("  half crosses:  server %.1f ns/msg, %s/s\n",
           speed_series_median(&result->half.server_ns_per_msg),
           report_rate(speed_series_median(&result->half.per_s), half));
    printf("  CPU time a message: %.2f of none crossing, from %.2f to %.2f\n",
           speed_series_median(&result->ratio), speed_series_min(&result->ratio),
           speed_series_max(&result->ratio));
    if (!crossing_is_verified(result))
        printf("  NOT verified: %" PRIu64 " of %" PRIu64 " replies failed, %.3f crossed\n",
               result->failed, result->replies, result->crossed);
}

int bench_crossing_main(int argc, char **argv)
{
    struct crossing_options options = {.records = 1000000, .size = 100, .keys = 1000000, .runs = 5};
    struct crossing_result result;
    int count;
    int status = command_parse(&command_crossing, argc - 1, argv + 1, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    struct crossing_case about = {.bench = command_crossing.name,
                                  .step = "half crossing beside none",
                                  .name = "bench",
                                  .records = (uint64_t)options.records,
                                  .message_bytes = (uint32_t)options.size,
                                  .keys = (uint32_t)options.keys,
                                  .runs = (uint32_t)options.runs,
                                  .waiting = options.busy_poll ? NODES_BUSY_POLL : NODES_SLEEP};
    status = crossing_measure(&about, &result);
    if (status != 0) return status;
    if (options.json)
        report_crossing_json(stdout, &result);
    else
        print_result(&result);
    return crossing_is_verified(&result) ? 0 : 1;
}
