#include "cli/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/number.h"
#include "cli/output.h"
#include "cli/trace.h"

#define SEED_BYTES 256

const char *const client_io_names[] = {"auto", "uring", "epoll", NULL};

/* The details if the library has some, else what the code means. */
static const char *reason_of(int err)
{
    const char *details = fero_errmsg();
    return details != NULL && details[0] != 0 ? details : fero_strerror(err);
}

int client_status(int err)
{
    switch (err) {
    case FERO_E_NOTFOUND:
    case FERO_E_SYS: return STATUS_NOT_FOUND;
    case FERO_E_INVAL: return STATUS_USAGE;
    case FERO_E_NOTCONN: return STATUS_NOT_CONNECTED;
    case FERO_E_TIMEOUT: return STATUS_TIMED_OUT;
    default: return STATUS_REFUSED;
    }
}

int client_complain(const struct client *client, int err)
{
    const char *seeds = client->options->seeds;
    switch (err) {
    case FERO_E_NOTCONN:
        complain(client->command,
                 "the connection to %s is lost, or not there yet: is the node still running?",
                 seeds);
        break;
    case FERO_E_TIMEOUT:
        complain(client->command, "no answer from %s within %lld ms; --timeout MS waits longer",
                 seeds, (long long)client->options->timeout_ms);
        break;
    default: complain(client->command, "%s", reason_of(err)); break;
    }
    return client_status(err);
}

/* Checks "HOST:PORT" here, so that a slip costs no time-out. */
static bool seed_is_good(const char *seed)
{
    const char *colon = strrchr(seed, ':');
    int64_t port;
    return colon != NULL && colon != seed && number_parse(colon + 1, &port) == 0 && port >= 1 &&
           port <= 65535;
}

/* Splits the list into `texts`, with `seeds` pointing at each; false after a line. */
static bool split_seeds(const struct client *client, char texts[CLIENT_SEEDS_MAX][SEED_BYTES],
                        const char *seeds[CLIENT_SEEDS_MAX + 1])
{
    const char *at = client->options->seeds;
    size_t count = 0;
    while (true) {
        size_t bytes = strcspn(at, ",");
        if (count == CLIENT_SEEDS_MAX || bytes >= SEED_BYTES) {
            complain(client->command, "--seeds lists more than %d nodes, or a name over %d bytes",
                     CLIENT_SEEDS_MAX, SEED_BYTES - 1);
            return false;
        }
        memcpy(texts[count], at, bytes);
        texts[count][bytes] = 0;
        if (!seed_is_good(texts[count])) {
            complain(client->command, "--seeds needs HOST:PORT such as %s, not \"%s\"",
                     CLIENT_SEEDS_DEFAULT, texts[count]);
            return false;
        }
        seeds[count] = texts[count];
        count++;
        if (at[bytes] == 0) break;
        at += bytes + 1;
    }
    seeds[count] = NULL;
    return true;
}

int cli_open(struct client *client, const struct command *command,
             const struct client_options *options, const char *name)
{
    char texts[CLIENT_SEEDS_MAX][SEED_BYTES];
    const char *seeds[CLIENT_SEEDS_MAX + 1];
    *client = (struct client){.command = command, .options = options};
    if (!split_seeds(client, texts, seeds)) return STATUS_USAGE;

    fero_runtime_opts runtime_opts = {.size = sizeof runtime_opts,
                                      .client = 1,
                                      .seeds = seeds,
                                      .idle = FERO_IDLE_SLEEP,
                                      .io = options->io,
                                      .token_file = options->token_file,
                                      .log = trace_print};
    /* What goes wrong is told at the end; the rest only who asks for it. */
    int status = trace_settle(command, TRACE_NOT_GIVEN, FERO_LOG_ERROR, &runtime_opts.log_level);
    if (status != COMMAND_GO_ON) return status;
    int err = fero_start(&runtime_opts, &client->runtime);
    if (err < 0) return client_complain(client, err);
    fero_opts opts = {.size = sizeof opts, .timeout_ms = options->timeout_ms};
    err = fero_open(client->runtime, name, &opts, &client->cache);
    if (err == 0) return STATUS_OK;
    if (err == FERO_E_NOTFOUND)
        complain(command,
                 "the node at %s has no cache \"%s\"; it can be started with one: fero serve %s",
                 options->seeds, name, name);
    else
        complain(command, "%s", reason_of(err));
    fero_stop(client->runtime, 0);
    return client_status(err);
}

void cli_close(struct client *client)
{
    fero_close(client->cache);
    fero_stop(client->runtime, 0);
}

void client_print_offset(const struct client *client, const char *key, uint64_t offset)
{
    if (!client->options->json) {
        printf("offset %llu\n", (unsigned long long)offset);
        return;
    }
    printf("{\"key\":");
    json_put_string(stdout, key, strlen(key));
    printf(",\"offset\":%llu}\n", (unsigned long long)offset);
}

fero_wopts client_wopts(const struct client *client)
{
    return (fero_wopts){
        .size = sizeof(fero_wopts), .want = FERO_REPLY, .timeout_ms = client->options->timeout_ms};
}

int client_wait(struct client *client, int err, fero_op *op, fero_result *result)
{
    if (err == 0) err = fero_wait(op, client->options->timeout_ms, result);
    if (err == 0 && result->outcome != FERO_OUTCOME_OK)
        err = result->error != 0 ? result->error : FERO_E_PROTO;
    if (err >= 0) return STATUS_OK;
    if (err == FERO_E_NOTFOUND) return STATUS_NOT_FOUND;
    return client_complain(client, err);
}

int client_ask_node(struct client *client, client_ask_fn ask, char **text)
{
    fero_op *op = NULL;
    fero_result result = {0};
    *text = NULL;
    fero_wopts wopts = client_wopts(client);
    int err = ask(client->cache, -1, &wopts, &op);
    int status = client_wait(client, err, op, &result);
    if (status == STATUS_OK && result.value.s.ptr != NULL) {
        *text = strndup(result.value.s.ptr, result.value.s.len);
    }
    if (status == STATUS_OK && *text == NULL) {
        complain(client->command, "the node's answer has no text");
        status = STATUS_REFUSED;
    }
    if (op != NULL) fero_op_free(op);
    return status;
}
