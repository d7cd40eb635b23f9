#include "cli/commands.h"
#include "fero.h"

struct version_options {
    bool json;
};

static const struct option_spec version_specs[] = {
    {.name = "json",
     .kind = OPTION_FLAG,
     .offset = offsetof(struct version_options, json),
     .help = "print one JSON object"},
};

static int run_version(const struct command *command, int argc, char **argv)
{
    struct version_options options = {false};
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    printf(options.json ? "{\"version\":\"%s\"}\n" : "fero %s\n", FERO_VERSION);
    return STATUS_OK;
}

const struct command command_version = {
    .name = "version",
    .arguments = "",
    .summary = "print the version",
    .options = version_specs,
    .options_count = sizeof version_specs / sizeof version_specs[0],
    .examples = {"fero version", "fero version --json", "fero --version"},
    .run = run_version,
};
