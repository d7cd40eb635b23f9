/*
 * What the benches that talk to servers have in common on the command line.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bench/cpus.h"
#include "bench/nodes.h"
#include "cli/client.h"
#include "cli/command.h"

struct options_common {
    const char *seeds;      /* NULL: own servers, once settled */
    const char *token_file; /* of running ones; NULL: none */
    const char *name;
    int64_t shards;
    int32_t io; /* FERO_IO_... */
    bool busy_poll;
    bool idle;
    bool limit;
    bool json;
};
#define OPTIONS_COMMON_DEFAULT                                                                     \
    {                                                                                              \
        .name = "demo", .shards = 1                                                                \
    }

/* The lines of an option table; `type` is the struct, `field` the options_common in it. */
/* clang-format off */
#define OPTIONS_COMMON_SPECS(type, field)                                                          \
    {.name = "seeds", .kind = OPTION_TEXT, .offset = offsetof(type, field.seeds),                  \
     .shows = "HOST:PORT[,...]", .help = "use these running nodes"},                               \
    {.name = "token-file", .kind = OPTION_TEXT, .offset = offsetof(type, field.token_file),        \
     .shows = "FILE", .help = "holds the token that running nodes want"},                          \
    {.name = "name", .kind = OPTION_TEXT, .offset = offsetof(type, field.name), .shows = "NAME",   \
     .help = "the cache (demo)"},                                                                  \
    {.name = "shards", .kind = OPTION_NUMBER, .offset = offsetof(type, field.shards),              \
     .shows = "N", .low = 1, .high = 256, .help = "of each server that is started (1)"},           \
    {.name = "io", .kind = OPTION_CHOICE, .offset = offsetof(type, field.io),                      \
     .shows = "auto, uring, epoll", .choices = client_io_names,                                    \
     .help = "how both sides speak to the kernel"},                                                \
    {.name = "busy-poll", .kind = OPTION_FLAG, .offset = offsetof(type, field.busy_poll),          \
     .help = "both sides never sleep"},                                                            \
    {.name = "idle", .kind = OPTION_FLAG, .offset = offsetof(type, field.idle),                    \
     .help = "both sides sleep at once when there is nothing to do"},                              \
    {.name = "limit", .kind = OPTION_FLAG, .offset = offsetof(type, field.limit),                  \
     .help = "alternate with the machine's limit and print the share of it"},                      \
    {.name = "json", .kind = OPTION_FLAG, .offset = offsetof(type, field.json),                    \
     .help = "print one JSON object a line"}
/* clang-format on */

/*
 * Decides whose servers are used: those of --seeds; else, unless the user asked for servers
 * (`wants_own`), a node that runs on the default port and has the cache; else own ones.
 * COMMAND_GO_ON, or an exit status after one line.
 */
int options_settle(const struct command *command, struct options_common *options, bool wants_own);
enum nodes_waiting options_waiting(const struct options_common *options);
/* Says on stderr which cpus do what. */
void options_tell_cpus(const struct cpus_plan *plan, const char *seeds);
