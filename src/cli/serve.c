/*
 * A node in the foreground. The library installs no signal handlers, so this thread blocks the two
 * that end a node before any shard thread is born, and waits for them.
 */
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/json.h"
#include "cli/nearest.h"
#include "cli/number.h"
#include "cli/output.h"
#include "cli/ports.h"
#include "cli/service.h"
#include "cli/trace.h"
#include "fero.h"

#define CACHES_MAX 64
#define VERBS_MAX 192
#define PORT_FIRST_DEFAULT 7700
#define PORT_LAST_DEFAULT 7799
/* Leaves half a second of the two that SIGTERM may take for giving memory back. */
#define DRAIN_MS 1500
#define SAME_SIGNAL_MS 300
#define IO_BYTES 512
#define INFO_BYTES ((size_t)1 << 20)

struct serve_options {
    int64_t shards;
    const char *cpus;
    const char *listen;
    const char *token_file;
    bool insecure;
    const char *ports;
    bool busy_poll;
    bool idle;
    int32_t io;
    const char *io_features;
    int64_t memory_max_bytes;
    int64_t history_max_bytes;
    int64_t history_max_records;
    int64_t outbox_max_bytes;
    int64_t key_max_bytes;
    int64_t value_max_bytes;
    int64_t connections_max;
    int64_t window_requests;
    int64_t window_bytes;
    int64_t errors_max;
    int64_t lane_bytes;
    int64_t streams_max;
    int64_t streams_lent_max_bytes;
    int64_t handshake_ms;
    int64_t half_open_max;
    int64_t half_open_source_max;
    int64_t progress_ms;
    int64_t progress_bytes;
    int64_t deferred_max;
    int64_t threads_max;
    int64_t links_bytes;
    int32_t log_level;
    bool print_config;
    bool json;
    const char *handler;
    struct service service; /* what `handler` names */
};

/* clang-format off */
#define FIELD(name) .offset = offsetof(struct serve_options, name)
#define SIZE_MAX_GIVEN ((int64_t)1 << 46)
static const struct option_spec serve_specs[] = {
    {.name = "shards", .kind = OPTION_NUMBER, FIELD(shards), .shows = "N", .low = 1, .high = 64,
     .help = "threads, each with its part of the keys (one for each cpu)",
     .manual =
     "Threads, each with its part of the keys: 1 to 64. The default is one for each "
     "allowed cpu."},
    {.name = "cpus", .kind = OPTION_TEXT, FIELD(cpus), .shows = "LIST",
     .help = "pin the shards to these: 2-7,10 (the allowed ones)",
     .manual =
     "Pin the shards to these, for example \"2-7,10\". The default is the allowed ones. "
     "Shards in excess share them."},
    {.name = "listen", .kind = OPTION_TEXT, FIELD(listen), .shows = "ADDRESS",
     .help = "IPv4 or IPv6 address to listen on (127.0.0.1)",
     .manual =
     "IPv4 or IPv6 address to listen on, 127.0.0.1 by default. One that is not a "
     "loopback address needs --token-file or --insecure."},
    {.name = "token-file", .kind = OPTION_TEXT, FIELD(token_file), .shows = "FILE",
     .help = "answer only to clients that show what it holds",
     .manual =
     "Answer only to clients that show what the file holds, 1 to 256 bytes; a newline at "
     "its end does not count. Others are told nothing: the connection is closed. The "
     "file must be open to its owner only (\"chmod 600\")."},
    {.name = "insecure", .kind = OPTION_FLAG, FIELD(insecure),
     .help = "let everybody in who reaches the address",
     .manual =
     "Let everybody in who reaches the address, to read and to write. It says so loudly, and "
     "is there for networks that nobody else can reach."},
    {.name = "ports", .kind = OPTION_TEXT, FIELD(ports), .shows = "FIRST[-LAST]",
     .help = "the first free one is taken; 0: any (7700-7799)",
     .manual = "The first free port of these is taken; 0 is any. The default is 7700-7799."},
    {.name = "busy-poll", .kind = OPTION_FLAG, FIELD(busy_poll),
     .help = "never sleep: a core each, for the lowest latency",
     .manual = "Never sleep: each shard keeps its core busy, for the lowest latency."},
    {.name = "idle", .kind = OPTION_FLAG, FIELD(idle),
     .help = "sleep at once when there is nothing to do",
     .manual =
     "Sleep at once when there is nothing to do. Without this option and --busy-poll a "
     "shard spins for a moment after it had work, then sleeps."},
    {.name = "io", .kind = OPTION_CHOICE, FIELD(io), .shows = "auto, uring, epoll",
     .choices = client_io_names,
     .help = "how to speak to the kernel (io_uring if allowed, else epoll)",
     .manual =
     "How to speak to the kernel. auto, the default, is io_uring(7) where it may be used, else "
     "epoll(7); which one and why is told at the start and by \"fero info\". With uring a node "
     "does not start where it is refused, and says by what and what to type."},
    {.name = "io-features", .kind = OPTION_TEXT, FIELD(io_features), .shows = "LIST",
     .help = "switch io_uring features: -msg_ring,+send_zc",
     .manual =
     "Switch features of io_uring(7) that some kernels lack: defer_taskrun, ring_fd, "
     "msg_ring, no_iowait, udp_gro, on where the kernel has them, and recv_bundle and "
     "send_zc, off. A comma list in which \"+\" or nothing in front of a name switches "
     "it on and \"-\" switches it off; all and none stand for all of them."},
    {.name = "memory.max", .kind = OPTION_SIZE, FIELD(memory_max_bytes), .shows = "SIZE",
     .low = 1, .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT,
     .help = "cap on logs and tables (80 % of the machine's)",
     .manual =
     "Cap on logs and tables of all shards, at least 64M each. It is not taken before it "
     "is needed. The default is 80 % of the memory of the machine, or of the control "
     "group. When it is reached, updates fail with an error and removals still work. "
     "Superseded changes of a small data set take up to a tenth of it, at most 720M, "
     "before they are cleared away, so a smaller cap makes a smaller node."},
    {.name = "partitions.history.max", .kind = OPTION_SIZE, FIELD(history_max_bytes),
     .bare_offset = offsetof(struct serve_options, history_max_records),
     .shows = "SIZE|RECORDS", .low = 1, .high = SIZE_MAX_GIVEN, .off_value = FERO_OFF,
     .flags = OPTION_CONSTANT | OPTION_MAY_BE_OFF | OPTION_MAY_BE_INFINITE | OPTION_BARE_NUMBER,
     .help = "superseded changes kept: 64M is bytes, 64000 records; off",
     .manual =
     "How much of the newest changes is kept although they are superseded: a size with "
     "its unit (64M) or a number of records (64000); off for none, infinity for as much "
     "as there is memory for. The default is a tenth of --memory.max, at most 128M. The "
     "newest change of a key is kept in any case."},
    {.name = "outbox.max", .kind = OPTION_SIZE, FIELD(outbox_max_bytes), .shows = "SIZE",
     .low = 1, .high = SIZE_MAX_GIVEN, .off_value = FERO_OFF,
     .flags = OPTION_CONSTANT | OPTION_MAY_BE_OFF,
     .help = "bytes that a connection may have waiting; 0: no batching (1M)",
     .manual =
     "Bytes that may wait for one connection before the node stops reading it: 1M. 0 "
     "switches batching off: every reply is sent at once."},
    {.name = "key.max", .kind = OPTION_SIZE, FIELD(key_max_bytes), .shows = "SIZE", .low = 1,
     .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT, .help = "largest key (1k)",
     .manual = "Largest key: 1k, at most 65535."},
    {.name = "value.max", .kind = OPTION_SIZE, FIELD(value_max_bytes), .shows = "SIZE", .low = 1,
     .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT, .help = "largest value (1M)",
     .manual = "Largest value: 1M, at most a little under 16M."},
    {.name = "connections.max", .kind = OPTION_SIZE, FIELD(connections_max), .shows = "N",
     .low = 1, .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT | OPTION_MAY_BE_INFINITE,
     .help = "as many at a time (65,536, or the descriptors less 256)",
     .manual =
     "Connections at a time, of the whole node: 65,536, or the limit of descriptors less "
     "256, if that is less. Whoever is too many is told so, and may come again later."},
    {.name = "handshake.ms", .kind = OPTION_NUMBER, FIELD(handshake_ms), .shows = "MS", .low = 1,
     .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT,
     .help = "from connecting to HELLO (2000)",
     .manual = "How long a connection may take to say HELLO: 2000."},
    {.name = "half-open.max", .kind = OPTION_SIZE, FIELD(half_open_max), .shows = "N", .low = 1,
     .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT,
     .help = "without HELLO; above it one is dropped for each new one (256)",
     .manual =
     "Connections that have not said HELLO: 256. For each that comes above that, one "
     "that has waited for 50 ms or longer is dropped, at random."},
    {.name = "half-open.source.max", .kind = OPTION_SIZE, FIELD(half_open_source_max),
     .shows = "N", .low = 1, .high = SIZE_MAX_GIVEN, .off_value = FERO_OFF,
     .flags = OPTION_CONSTANT | OPTION_MAY_BE_OFF,
     .help = "likewise, of one address (16, but any number of loopback)",
     .manual =
     "The same for those of one IPv4 address, or IPv6 network of 64 bits: 16, but any "
     "number from loopback addresses, which all programs of a machine share. A number "
     "that is given holds for those, too. off is no limit but --half-open.max."},
    {.name = "progress.ms", .kind = OPTION_NUMBER, FIELD(progress_ms), .shows = "MS", .low = 1,
     .high = SIZE_MAX_GIVEN, .off_value = FERO_OFF, .flags = OPTION_CONSTANT | OPTION_MAY_BE_OFF,
     .help = "within this a half-sent frame must grow by progress.bytes (10000)",
     .manual =
     "A frame of which a part has come must grow by --progress.bytes within this time, "
     "or be whole: 10000. off lets it take its time."},
    {.name = "progress.bytes", .kind = OPTION_SIZE, FIELD(progress_bytes), .shows = "SIZE",
     .low = 1, .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT, .help = "see progress.ms (10k)",
     .manual = "See there: 10k."},
    {.name = "links.bytes", .kind = OPTION_SIZE, FIELD(links_bytes), .shows = "SIZE", .low = 1,
     .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT,
     .help = "buffers of all connections above 64k each (memory.max / 8)",
     .manual =
     "What the outboxes and half-received frames of all connections take, as far as they are "
     "larger than 64k each: an eighth of --memory.max, but at least 64M for each shard. Over "
     "half of it each connection may have a sixteenth of its --outbox.max waiting before the "
     "node stops reading it; over all of it the connection that holds the most ends."},
    {.name = "window.requests", .kind = OPTION_SIZE, FIELD(window_requests), .shows = "N",
     .low = 1, .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT,
     .help = "unanswered requests of a session (16k)",
     .manual = "Unanswered requests that a session may have: 16k, which is also the most."},
    {.name = "window.bytes", .kind = OPTION_SIZE, FIELD(window_bytes), .shows = "SIZE", .low = 1,
     .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT,
     .help = "request bytes in flight on a connection (4M)",
     .manual = "Request bytes in flight on a connection: 4M."},
    {.name = "errors.max", .kind = OPTION_SIZE, FIELD(errors_max), .shows = "N", .low = 1,
     .high = SIZE_MAX_GIVEN, .off_value = FERO_OFF, .flags = OPTION_CONSTANT | OPTION_MAY_BE_OFF,
     .help = "distinct errors that a shard remembers (256)",
     .manual = "Distinct errors that each shard remembers for errors: 256."},
    {.name = "lane.bytes", .kind = OPTION_SIZE, FIELD(lane_bytes), .shows = "SIZE", .low = 1,
     .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT,
     .help = "queue from one shard to another, a power of two (1M)",
     .manual = "Each queue from one shard to another, a power of two: 1M."},
    {.name = "deferred.max", .kind = OPTION_SIZE, FIELD(deferred_max), .shows = "N", .low = 1,
     .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT,
     .help = "requests of a shard that handlers answer later (4k)",
     .manual =
     "Requests of a shard that handlers keep and answer later: 4k. Further ones are told "
     "to come again."},
    {.name = "threads.max", .kind = OPTION_SIZE, FIELD(threads_max), .shows = "N", .low = 1,
     .high = 256, .flags = OPTION_CONSTANT,
     .help = "threads of the handler that make requests or answer (64)",
     .manual =
     "Threads of the service given with --handler that make requests, or answer some, at the "
     "same time: 64, of at most 256."},
    {.name = "streams.max", .kind = OPTION_SIZE, FIELD(streams_max), .shows = "N", .low = 1,
     .high = SIZE_MAX_GIVEN, .flags = OPTION_CONSTANT,
     .help = "subscriptions of a connection (64)",
     .manual = "Subscriptions that a connection may have: 64, at most 65536."},
    {.name = "streams.lent.max", .kind = OPTION_SIZE, FIELD(streams_lent_max_bytes),
     .shows = "SIZE", .low = 1, .high = SIZE_MAX_GIVEN, .off_value = FERO_OFF,
     .flags = OPTION_CONSTANT | OPTION_MAY_BE_OFF,
     .help = "log that slow subscribers may hold (2 % of memory.max)",
     .manual =
     "Log beyond the history that slow subscribers may hold: 2 % of memory.max, at most 64M; off: "
     "none. Above it, those that stand still longest are cut off, and get a snapshot when they go "
     "on."},
    {.name = "log-level", .kind = OPTION_CHOICE, FIELD(log_level),
     .shows = "error, warn, info, debug", .choices = trace_level_names,
     .help = "lines to stderr up to this (warn; DEBUG=fero: debug)",
     .manual =
     "Lines of diagnostics on the standard error output up to this level: warn, or what the "
     "environment variables FERO_LOG or DEBUG ask for."},
    {.name = "print-config", .kind = OPTION_FLAG, FIELD(print_config),
     .flags = OPTION_NO_ENVIRONMENT, .help = "print every option, its value and its source",
     .manual =
     "Check the options as if to start, print every one with its value and where that comes "
     "from (the command line, the environment, the default), and end."},
    {.name = "handler", .kind = OPTION_TEXT, FIELD(handler), .shows = "FILE.so",
     .help = "handlers of the caches: see FERO_SERVICE in fero.h",
     .manual =
     "A shared object with the handlers of the caches: see FERO_SERVICE in fero.h. The verb "
     "ECHO stays, unless it has one of its own."},
    {.name = "json", .kind = OPTION_FLAG, FIELD(json), .help = "print one JSON object when ready",
     .manual =
     "Print one JSON object when ready, with the address, the process number, caches, "
     "shards and memory cap."},
};
/* clang-format on */

/* --------------------------------------------------------------------------------- callbacks */

static int32_t on_echo(fero_req *req, void *ud)
{
    (void)ud;
    int err = fero_reply(req, FERO_OK, &req->value);
    return err < 0 ? err : FERO_H_REPLIED;
}

/* ----------------------------------------------------------------------------------- options */

/* "7700", "7700-7799" or "0"; false: neither. */
static bool parse_ports(const char *text, uint16_t *first, uint16_t *last)
{
    char copy[32];
    int64_t low;
    int64_t high;
    if (strlen(text) >= sizeof copy) return false;
    memcpy(copy, text, strlen(text) + 1);
    char *dash = strchr(copy, '-');
    if (dash != NULL) *dash++ = 0;
    if (!isdigit((unsigned char)copy[0]) || number_parse(copy, &low) < 0) return false;
    high = low;
    if (dash != NULL && (!isdigit((unsigned char)*dash) || number_parse(dash, &high) < 0))
        return false;
    if (low > 65535 || high > 65535 || high < low || (low == 0 && high != 0)) return false;
    *first = (uint16_t)low;
    *last = (uint16_t)high;
    return true;
}

static int make_opts(const struct command *command, const struct serve_options *options,
                     fero_runtime_opts *opts)
{
    *opts = (fero_runtime_opts){
        .size = sizeof *opts,
        .shards = (int32_t)options->shards,
        .cpus = options->cpus,
        .listen = options->listen,
        .token_file = options->token_file,
        .insecure = options->insecure,
        .idle = options->busy_poll ? FERO_IDLE_BUSY_POLL
                : options->idle    ? FERO_IDLE_SLEEP
                                   : FERO_IDLE_ADAPTIVE,
        .io = options->io,
        .io_features = options->io_features,
        .memory_max_bytes = options->memory_max_bytes,
        .history_max_bytes = options->history_max_bytes,
        .history_max_records = options->history_max_records,
        .outbox_max_bytes = options->outbox_max_bytes,
        .key_max_bytes = options->key_max_bytes,
        .value_max_bytes = options->value_max_bytes,
        .connections_max = options->connections_max == INT64_MAX ? 0 : options->connections_max,
        .window_requests = options->window_requests,
        .window_bytes = options->window_bytes,
        .errors_max = options->errors_max,
        .lane_bytes = options->lane_bytes,
        .streams_max = options->streams_max,
        .streams_lent_max_bytes = options->streams_lent_max_bytes,
        .handshake_ms = options->handshake_ms,
        .half_open_max = options->half_open_max,
        .half_open_source_max = options->half_open_source_max,
        .progress_ms = options->progress_ms,
        .progress_bytes = options->progress_bytes,
        .deferred_max = options->deferred_max,
        .threads_max = options->threads_max,
        .links_bytes = options->links_bytes,
        .log = trace_print};
    int status = trace_settle(command, options->log_level, FERO_LOG_WARN, &opts->log_level);
    if (status != COMMAND_GO_ON) return status;
    if (options->busy_poll && options->idle) {
        complain(command, "--busy-poll and --idle exclude each other; leave one out");
        return STATUS_USAGE;
    }
    if (options->insecure && options->token_file != NULL) {
        complain(command, "--insecure and --token-file exclude each other; leave one out");
        return STATUS_USAGE;
    }
    const char *ports = options->ports != NULL ? options->ports : "7700-7799";
    if (!parse_ports(ports, &opts->port_first, &opts->port_last)) {
        complain(command, "--ports is %s, but must be FIRST or FIRST-LAST from 1 to 65535, or 0",
                 ports);
        return STATUS_USAGE;
    }
    return COMMAND_GO_ON;
}

/* A connection is a descriptor, and the usual soft limit allows 1,024. */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* ------------------------------------------------------------------------------------- start */

/* The exit status of a start that failed for another reason than the port. */
static int status_of_start(int err)
{
    if (err == FERO_E_INVAL) return STATUS_USAGE;
    return err == FERO_E_DENIED ? STATUS_REFUSED : STATUS_NOT_FOUND;
}

static int complain_of_start(const struct command *command, const fero_runtime_opts *opts, int err)
{
    if (err != FERO_E_EXISTS) {
        complain(command, "%s", fero_errmsg());
        return status_of_start(err);
    }
    char holder[PORT_HOLDER_BYTES];
    char stop[64] = "";
    int pid;
    port_holder(opts->port_first, holder, &pid);
    if (pid > 0) snprintf(stop, sizeof stop, "stop it with \"kill %d\", or ", pid);
    if (opts->port_first == opts->port_last)
        complain(command, "port %u is in use by %s; %stake another: --ports %u-%u",
                 opts->port_first, holder, stop, opts->port_first,
                 opts->port_first > 65435 ? 65535 : opts->port_first + 99);
    else
        complain(command, "all ports from %u to %u are in use, %u by %s; %stake others: --ports 0",
                 opts->port_first, opts->port_last, opts->port_first, holder, stop);
    return STATUS_NOT_FOUND;
}

/* The service's verbs, and ECHO where it has none and there is room. Returns their number. */
static size_t list_verbs(fero_verb verbs[VERBS_MAX], const fero_service *about)
{
    size_t count = about != NULL && about->verbs_count < VERBS_MAX ? about->verbs_count : 0;
    bool has_echo = count == VERBS_MAX;
    for (size_t i = 0; i < count; i++) {
        verbs[i] = about->verbs[i];
        if (verbs[i].name != NULL && strcmp(verbs[i].name, "ECHO") == 0) has_echo = true;
    }
    if (!has_echo) verbs[count++] = (fero_verb){.name = "ECHO", .fn = on_echo};
    return count;
}

static int open_caches(const struct command *command, const fero_service *about, fero *runtime,
                       char **names, int count)
{
    fero_verb verbs[VERBS_MAX];
    fero_opts opts = {.size = sizeof opts, .verbs = verbs};
    opts.verbs_count = list_verbs(verbs, about);
    if (about != NULL) {
        opts.handler = about->handler;
        opts.handler_ud = about->handler_ud;
    }
    for (int i = 0; i < count; i++) {
        fero_cache *cache;
        int err = fero_open(runtime, names[i], &opts, &cache);
        if (err == 0) continue;
        complain(command, "cannot open the cache \"%s\": %s", names[i], fero_errmsg());
        return err == FERO_E_INVAL ? STATUS_USAGE : STATUS_NOT_FOUND;
    }
    return COMMAND_GO_ON;
}

/* ------------------------------------------------------------------------------------- facts */

struct facts {
    const char *address;
    const char *token_file;
    char *info; /* JSON */
    size_t info_bytes;
    uint64_t shards;
    uint64_t memory_max_bytes;
    char cpus[256];
    char io[IO_BYTES];     /* "io_uring" or "epoll" */
    char io_why[IO_BYTES]; /* JSON text of the reason */
};

/* Writes the cpus of the shards, "0-3,6", in the order of the shards. */
static void write_cpus(struct facts *facts)
{
    const char *end = facts->info + facts->info_bytes;
    const char *at = facts->info;
    size_t used = 0;
    long first = -2;
    long last = -2;
    while (at != NULL && used + 32 < sizeof facts->cpus) {
        at = memmem(at, (size_t)(end - at), "\"cpu\":", 6);
        long cpu = at != NULL ? strtol(at + 6, NULL, 10) : -3;
        if (at != NULL) at += 6;
        if (cpu == last + 1 && last >= 0) {
            last = cpu;
            continue;
        }
        if (first >= 0)
            used += (size_t)snprintf(facts->cpus + used, sizeof facts->cpus - used,
                                     first == last ? "%s%ld" : "%s%ld-%ld", used > 0 ? "," : "",
                                     first, last);
        first = last = cpu;
    }
}

static bool facts_make(struct facts *facts, fero *runtime, const char *token_file)
{
    *facts = (struct facts){
        .address = fero_address(runtime), .token_file = token_file, .info = malloc(INFO_BYTES)};
    if (facts->info == NULL) return false;
    int64_t bytes = fero_info(runtime, facts->info, INFO_BYTES);
    if (bytes < 0) return false;
    facts->info_bytes = (size_t)bytes;
    facts->shards = json_sum(facts->info, facts->info_bytes, "shards_count");
    facts->memory_max_bytes = json_sum(facts->info, facts->info_bytes, "memory_max_bytes");
    write_cpus(facts);
    return json_string(facts->info, facts->info_bytes, "io", facts->io, sizeof facts->io) &&
           json_string(facts->info, facts->info_bytes, "io_why", facts->io_why,
                       sizeof facts->io_why);
}

static void print_json(const struct facts *facts, char **names, int count)
{
    printf("{\"address\":\"%s\",\"pid\":%d,\"caches\":[", facts->address, (int)getpid());
    for (int i = 0; i < count; i++) {
        if (i > 0) putchar(',');
        json_put_string(stdout, names[i], strlen(names[i]));
    }
    printf("],\"shards_count\":%llu,\"cpus\":\"%s\",\"memory_max_bytes\":%llu,\"version\":\"%s\"",
           (unsigned long long)facts->shards, facts->cpus,
           (unsigned long long)facts->memory_max_bytes, FERO_VERSION);
    printf(",\"io\":\"%s\",\"io_why\":", facts->io);
    json_put_string(stdout, facts->io_why, strlen(facts->io_why));
    printf("}\n");
}

static void print_try(const char *program, const char *what, const char *name, const char *seeds)
{
    printf("  %s %s%s%s\n", program, what, name, seeds);
}

static void print_facts(const struct facts *facts, const char *program, char **names, int count)
{
    char memory[SIZE_TEXT_BYTES];
    const char *bold = output_is_colored(stdout) ? "\033[1m" : "";
    const char *plain = bold[0] != 0 ? "\033[0m" : "";
    char seeds[512] = "";
    if (strcmp(facts->address, CLIENT_SEEDS_DEFAULT) != 0)
        snprintf(seeds, sizeof seeds, " --seeds %s", facts->address);
    printf("fero %s serves %s%s", FERO_VERSION, bold, names[0]);
    for (int i = 1; i < count; i++) printf(", %s", names[i]);
    printf("%s\n", plain);
    printf("  listening on  %s%s%s\n", bold, facts->address, plain);
    printf("  shards        %llu%s%s\n", (unsigned long long)facts->shards,
           facts->cpus[0] != 0 ? ", on the cpus " : "", facts->cpus);
    printf("  memory        at most %s for logs and tables\n",
           size_format(facts->memory_max_bytes, memory));
    printf("  io            %s, because %s\n", facts->io, facts->io_why);
    printf("\nTry, in another shell:\n");
    char set[256];
    char get[256];
    size_t used = strlen(seeds);
    if (facts->token_file != NULL)
        snprintf(seeds + used, sizeof seeds - used, " --token-file %s", facts->token_file);
    snprintf(set, sizeof set, "%s 28 david", names[0]);
    snprintf(get, sizeof get, "%s 28", names[0]);
    print_try(program, "set ", set, seeds);
    print_try(program, "get ", get, seeds);
    bool is_default = strcmp(names[0], "demo") == 0;
    print_try(program, is_default ? "bench latency" : "bench latency --name ",
              is_default ? "" : names[0], seeds);
    printf("\nCtrl-C stops it.\n");
}

/* -------------------------------------------------------------------------------------- life */

/* When the first signal came, for the handler of the second: a handler has no other way to know. */
static volatile int64_t first_signal_ms;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Ends the process without another word. Programs such as timeout and make signal both the process
 * and its group, so what follows at once is the first signal again.
 */
static void on_second_signal(int number)
{
    int saved = errno;
    if (now_ms() - first_signal_ms > SAME_SIGNAL_MS) _exit(128 + number);
    errno = saved;
}

static void wait_for_signal(void)
{
    sigset_t ends;
    int number = 0;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    while (sigwait(&ends, &number) != 0) {
    }
    first_signal_ms = now_ms();
    const struct sigaction second = {.sa_handler = on_second_signal, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &second, NULL);
    sigaction(SIGINT, &second, NULL);
    sigprocmask(SIG_UNBLOCK, &ends, NULL);
}

static int serve(const struct command *command, const struct serve_options *options, fero *runtime,
                 char **names, int count)
{
    int status = open_caches(command, options->service.about, runtime, names, count);
    if (status != COMMAND_GO_ON) return status;
    struct facts facts;
    if (!facts_make(&facts, runtime, options->token_file)) {
        complain(command, "cannot tell about the node: %s", fero_errmsg());
    } else if (options->json) {
        print_json(&facts, names, count);
    } else {
        const char *program = program_invocation_name;
        print_facts(&facts, program != NULL && program[0] != 0 ? program : "fero", names, count);
    }
    free(facts.info);
    fflush(stdout);
    if (options->insecure)
        complain(command,
                 "WARNING: --insecure: whoever reaches %s may read and write everything; "
                 "--token-file FILE closes it",
                 fero_address(runtime));

    wait_for_signal();
    if (!options->json && isatty(STDERR_FILENO) != 0)
        fprintf(stderr, "\nAnswering what was accepted; again to stop at once.\n");
    return STATUS_OK;
}

static int run_node(const struct command *command, const struct serve_options *options,
                    const fero_runtime_opts *opts, char **names, int count)
{
    fero *runtime;
    int err = fero_start(opts, &runtime);
    if (err < 0) return complain_of_start(command, opts, err);
    int status = serve(command, options, runtime, names, count);
    err = fero_stop(runtime, DRAIN_MS);
    if (err < 0) {
        complain(command, "stopped, but not cleanly: %s", fero_errmsg());
        return STATUS_NOT_FOUND;
    }
    return status;
}

/* What is given twice is a slip; the second one would be the first. */
static int check_names(const struct command *command, char **names, int count)
{
    for (int i = 1; i < count; i++) {
        for (int other = 0; other < i; other++) {
            if (strcmp(names[i], names[other]) != 0) continue;
            complain(command, "the cache \"%s\" is named twice: each has a name of its own",
                     names[i]);
            return STATUS_USAGE;
        }
    }
    return COMMAND_GO_ON;
}

static int run_serve(const struct command *command, int argc, char **argv)
{
    struct serve_options options = {.log_level = TRACE_NOT_GIVEN};
    struct option_given given[sizeof serve_specs / sizeof serve_specs[0]] = {{0}};
    int count;
    int status = command_parse_noting(command, argc, argv, &options, &count, given);
    if (status != COMMAND_GO_ON) return status;
    status = check_names(command, argv, count);
    if (status != COMMAND_GO_ON) return status;
    fero_runtime_opts opts;
    status = make_opts(command, &options, &opts);
    if (status != COMMAND_GO_ON) return status;
    if (options.print_config) {
        raise_descriptors();
        return config_print(command, &opts, given, options.json);
    }

    raise_descriptors();
    signal(SIGPIPE, SIG_IGN);
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);

    if (options.handler != NULL) status = service_load(&options.service, command, options.handler);
    if (options.handler != NULL && status != STATUS_OK) return status;
    status = run_node(command, &options, &opts, argv, count);
    service_unload(&options.service);
    return status;
}

const struct command command_serve = {
    .name = "serve",
    .arguments = "NAME...",
    .summary = "start a node with these caches",
    .details =
        "Runs until SIGTERM or Ctrl-C, which let it answer every request that it accepted. "
        "Options\n"
        "with a dot in their name may also be written --constants.NAME=VALUE. Every cache has\n"
        "the verb ECHO, which replies with its body.",
    .options = serve_specs,
    .options_count = sizeof serve_specs / sizeof serve_specs[0],
    .arguments_min = 1,
    .arguments_max = CACHES_MAX,
    .examples = {"fero serve demo", "fero serve users teams --ports 7701 --shards 2 --cpus 2-3",
                 "fero serve demo --memory.max 2G --constants.partitions.history.max=64M"},
    .run = run_serve,
};
