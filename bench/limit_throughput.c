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
 */
#include <errno.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "bench/limit.h"
#include "bench/limit_client.h"
#include "bench/limit_frames.h"
#include "bench/limit_server.h"
#include "bench/limit_sides.h"
#include "bench/limit_wiring.h"

/* Replies of the first window may come before the warm-up has ended: fewer would not be measured. */
#define WINDOWS_MIN 4

/* The defaults of what was left 0, and as many records as can be measured. */
static void complete(struct limit_options *options)
{
    if (options->message_bytes == 0) options->message_bytes = 100;
    if (options->records == 0) options->records = 10000000;
    if (options->records_warmup == 0) options->records_warmup = 2000000;
    if (options->keys == 0) options->keys = 1000000;
    if (options->connections == 0) options->connections = 1;
    if (options->window_bytes == 0) options->window_bytes = 1 * MIB;
    if (options->batch_bytes == 0) options->batch_bytes = 128 * KIB;
    if (options->receive_bytes == 0) options->receive_bytes = 256 * KIB;
    if (options->log_bytes == 0) options->log_bytes = 1 * GIB;
    options->records = max_u64(options->records, WINDOWS_MIN * (uint64_t)options->window_bytes /
                                                     limit_frame_bytes(options));
    if (options->wait == LIMIT_WAIT_BEST) options->wait = LIMIT_WAIT_SPIN;
    limit_sides_choose_cpus(&options->server_cpu, &options->client_cpu, &options->wait);
}

static bool are_valid(const struct limit_options *options)
{
    return options->message_bytes >= LIMIT_MESSAGE_BYTES_MIN &&
           options->message_bytes <= LIMIT_MESSAGE_BYTES_MAX &&
           limit_reply_value_bytes(options) <= LIMIT_MESSAGE_BYTES_MAX &&
           options->connections <= LIMIT_CONNECTIONS_MAX && options->log_bytes % 4096 == 0 &&
           options->log_bytes >= 2 * (limit_frame_bytes(options) + LIMIT_RECORD_GROWTH) &&
           options->log_bytes <= LIMIT_ADDRESS << 3;
}

void limit_options_init(struct limit_options *options)
{
    *options = (struct limit_options){.server_cpu = LIMIT_CPU_ANY, .client_cpu = LIMIT_CPU_ANY};
}

static void report(const struct limit_server *server, const struct limit_client *client,
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
        .checksum = limit_store_checksum(&server->store),
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
    struct limit_wiring wiring;
    struct limit_server server;
    struct limit_client client;
    int err = limit_wiring_init(&wiring, options.connections, options.socket_bytes);
    if (err < 0) return err;
    err = limit_server_init(&server, &options, &wiring);
    if (err < 0) goto deinit_server;
    err = limit_client_init(&client, &options, &wiring);
    if (err < 0) goto deinit_client;

    err = limit_sides_run(limit_server_thread, &server, limit_client_thread, &client, &wiring);
    if (err == 0) err = limit_sides_error(server.err, client.err);
    if (err < 0) goto deinit_client;
    report(&server, &client, result);
    if (result->checksum == 0) err = -EBADMSG;

deinit_client:
    limit_client_deinit(&client);
deinit_server:
    limit_server_deinit(&server);
    limit_wiring_deinit(&wiring);
    return err;
}
