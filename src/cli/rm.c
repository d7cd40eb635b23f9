#include "cli/client.h"
#include "cli/commands.h"

struct rm_options {
    struct client_options client;
};

static const struct option_spec rm_specs[] = {
    CLIENT_OPTION_SPECS(struct rm_options, client),
};

static int run_rm(const struct command *command, int argc, char **argv)
{
    struct rm_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    struct client client;
    status = cli_open(&client, command, &options.client, argv[0]);
    if (status != STATUS_OK) return status;

    fero_op *op = NULL;
    fero_result result;
    fero_wopts wopts = client_wopts(&client);
    int err = fero_remove(client.cache, fero_str(argv[1]), &wopts, &op);
    status = client_wait(&client, err, op, &result);
    if (status == STATUS_NOT_FOUND) {
        complain(command, "%s has no key \"%s\"", argv[0], argv[1]);
    } else if (status == STATUS_OK) {
        client_print_offset(&client, argv[1], result.offset);
    }
    if (op != NULL) fero_op_free(op);
    cli_close(&client);
    return status;
}

const struct command command_rm = {
    .name = "rm",
    .arguments = "NAME KEY",
    .summary = "remove a key",
    .details = "KEY may lead inside of a value, as that of set. An element that is removed from "
               "the middle\n"
               "of an array leaves null.\n"
               "Prints the offset of the change in the log of the key's partition.",
    .options = rm_specs,
    .options_count = sizeof rm_specs / sizeof rm_specs[0],
    .arguments_min = 2,
    .arguments_max = 2,
    .examples = {"fero rm demo 28", "fero rm demo 28 --json",
                 "fero rm demo 28 --seeds 127.0.0.1:7701,127.0.0.1:7702"},
    .run = run_rm,
};
