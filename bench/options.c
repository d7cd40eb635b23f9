#include "bench/options.h"

#define SEEDS_DEFAULT "127.0.0.1:7700"
#define PROBE_MS 1000

/* Whether the node on the default port has the cache. */
static bool node_is_there(const struct options_common *options)
{
    return nodes_is_listening(SEEDS_DEFAULT) &&
           nodes_try(SEEDS_DEFAULT, options->token_file, options->name, PROBE_MS, options->io) == 0;
}

int options_settle(const struct command *command, struct options_common *options, bool wants_own)
{
    if (options->busy_poll && options->idle) {
        complain(command, "--busy-poll and --idle exclude each other; leave one out");
        return STATUS_USAGE;
    }
    if (options->seeds != NULL && wants_own) {
        complain(command, "-c starts servers and --seeds uses running ones; leave one out");
        return STATUS_USAGE;
    }
    if (options->seeds == NULL && !wants_own && node_is_there(options))
        options->seeds = SEEDS_DEFAULT;
    return COMMAND_GO_ON;
}

enum nodes_waiting options_waiting(const struct options_common *options)
{
    if (options->busy_poll) return NODES_BUSY_POLL;
    return options->idle ? NODES_SLEEP : NODES_ADAPTIVE;
}

void options_tell_cpus(const struct cpus_plan *plan, const char *seeds)
{
    char text[CPUS_TEXT_BYTES];
    if (seeds != NULL)
        fprintf(stderr, "using the running node at %s; clients from cpu %u on\n", seeds,
                cpus_of_client(plan, 0));
    else
        fprintf(stderr, "%s\n", cpus_describe(plan, text));
}
