#include "cli/serve_options.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

#include "cli/client.h"
#include "cli/number.h"
#include "cli/trace.h"

/* clang-format off */
#define FIELD(name) .offset = offsetof(struct serve_options, name)
#define SIZE_MAX_GIVEN ((int64_t)1 << 46)
const struct option_spec serve_specs[] = {
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
_Static_assert(sizeof serve_specs / sizeof serve_specs[0] == SERVE_SPECS_COUNT,
               "the header says how many there are");

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

int serve_options_read(const struct command *command, const struct serve_options *options,
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
