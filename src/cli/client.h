/*
 * What the commands that speak to a node have in common: finding it, asking it, and saying why not.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cli/command.h"
#include "fero.h"

#define CLIENT_SEEDS_DEFAULT "127.0.0.1:7700"
#define CLIENT_TIMEOUT_MS_DEFAULT 5000

/* The first field of the struct of such a command's options. */
struct client_options {
    const char *seeds;
    const char *token_file; /* NULL: none */
    int64_t timeout_ms;
    int32_t io; /* FERO_IO_... */
    bool json;
};
/* What --io takes; ends with NULL. */
extern const char *const client_io_names[];
#define CLIENT_OPTIONS_DEFAULT                                                                     \
    {                                                                                              \
        .seeds = CLIENT_SEEDS_DEFAULT, .timeout_ms = CLIENT_TIMEOUT_MS_DEFAULT                     \
    }

/* The lines of its option table; `type` is the struct, `field` the client_options in it. */
/* clang-format off */
#define CLIENT_OPTION_SPECS(type, field)                                                           \
    {.name = "seeds", .kind = OPTION_TEXT, .offset = offsetof(type, field.seeds),                  \
     .shows = "HOST:PORT[,...]", .help = "nodes to ask (" CLIENT_SEEDS_DEFAULT ")",                \
     .manual = "Nodes to ask, up to 16: " CLIENT_SEEDS_DEFAULT " by default. HOST is an IPv4 "     \
               "address, or an IPv6 address in brackets."},                                        \
    {.name = "timeout", .kind = OPTION_NUMBER, .offset = offsetof(type, field.timeout_ms),         \
     .shows = "MS", .help = "how long to wait for the answer (5000)",                              \
     .manual = "How long to wait for the answer, in milliseconds: 5000.",                          \
     .low = 1, .high = 86400000},                                                                  \
    {.name = "token-file", .kind = OPTION_TEXT, .offset = offsetof(type, field.token_file),        \
     .shows = "FILE", .help = "holds the token that the node wants",                               \
     .manual = "Show the node the token that this file holds. The file must be open to its owner " \
               "only."},                                                                           \
    {.name = "io", .kind = OPTION_CHOICE, .offset = offsetof(type, field.io),                      \
     .shows = "auto, uring, epoll", .choices = client_io_names,                                    \
     .help = "how to speak to the kernel (io_uring if allowed)",                                   \
     .manual = "How to speak to the kernel; see fero-serve(1)."},                                  \
    {.name = "json", .kind = OPTION_FLAG, .offset = offsetof(type, field.json),                    \
     .help = "print one JSON object"}
/* clang-format on */

#define CLIENT_SEEDS_MAX 16
struct client {
    const struct command *command;
    const struct client_options *options;
    fero *runtime;
    fero_cache *cache;
};

/*
 * Connects to the cache `name`, or, where it is NULL, to a node, to ask it about itself. Returns an exit status; other than
 * STATUS_OK, one line has been printed and there is nothing to close.
 */
int cli_open(struct client *client, const struct command *command,
             const struct client_options *options, const char *name);
void cli_close(struct client *client);

/* Options of one request that waits for its reply. */
fero_wopts client_wopts(const struct client *client);
/*
 * Waits for `op` (`err` is what the call that made it returned). Returns STATUS_OK with `result`
 * filled in, or the status after one line; STATUS_NOT_FOUND has no line, the command words it.
 * `*op` stays the caller's to free, in any case.
 */
int client_wait(struct client *client, int err, fero_op *op, fero_result *result);
/*
 * Asks the node about itself, with fero_ask_info or fero_ask_errors. STATUS_OK with its answer in
 * `text`, to be freed, or the status after one line.
 */
typedef int (*client_ask_fn)(fero_cache *cache, int32_t shard, const fero_wopts *opts,
                             fero_op **op);
int client_ask_node(struct client *client, client_ask_fn ask, char **text);
/* Says that the change of `key` has this offset. */
void client_print_offset(const struct client *client, const char *key, uint64_t offset);
/* The exit status for what the library returned, or a reply says. */
int client_status(int err);
/* Writes the line for `err` and returns its status. */
int client_complain(const struct client *client, int err);
