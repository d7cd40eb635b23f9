#include <stdio.h>
#include <stdlib.h>

#include "cli/client.h"
#include "cli/commands.h"

struct info_options {
    struct client_options client;
};

static const struct option_spec info_specs[] = {
    CLIENT_OPTION_SPECS(struct info_options, client),
};

static int run_info(const struct command *command, int argc, char **argv)
{
    struct info_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    struct client client;
    char *text;
    status = cli_open(&client, command, &options.client, count > 0 ? argv[0] : NULL);
    if (status != STATUS_OK) return status;
    status = client_ask_node(&client, fero_ask_info, &text);
    if (status == STATUS_OK) {
        printf("%s\n", text);
        free(text);
    }
    cli_close(&client);
    return status;
}

const struct command command_info = {
    .name = "info",
    .arguments = "[NAME]",
    .summary = "print what a node is and has counted, as JSON",
    .details = "With NAME, only of a node that has this cache.",
    .options = info_specs,
    .options_count = sizeof info_specs / sizeof info_specs[0],
    .arguments_max = 1,
    .examples = {"fero info", "fero info --seeds 127.0.0.1:7701", "fero info demo --timeout 500"},
    .run = run_info,
};
