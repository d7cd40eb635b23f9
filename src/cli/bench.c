#include "bench/bench.h"

#include "cli/commands.h"

static int run_bench(const struct command *command, int argc, char **argv)
{
    (void)command;
    return bench_main(argc, argv);
}

/* The benches read their own arguments and print their own help. */
const struct command command_bench = {
    .name = "bench",
    .arguments = "BENCH",
    .summary = "measure speed and latency, beside the limit of the machine",
    .examples = {"fero bench speed -m 10,100,1000", "fero bench latency", "fero bench all"},
    .run = run_bench,
};
