#include "cli/client.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/json.h"

struct patch_options {
    struct client_options client;
};

static const struct option_spec patch_specs[] = {
    CLIENT_OPTION_SPECS(struct patch_options, client),
};

static int patch(const struct command *command, const struct patch_options *options, char **argv,
                 fero_slice fields)
{
    struct client client;
    int status = cli_open(&client, command, &options->client, argv[0]);
    if (status != STATUS_OK) return status;
    fero_op *op = NULL;
    fero_result result;
    fero_wopts wopts = client_wopts(&client);
    int err = fero_patch(client.cache, fero_str(argv[1]), fields, &wopts, &op);
    status = client_wait(&client, err, op, &result);
    if (status == STATUS_OK) client_print_offset(&client, argv[1], result.offset);
    if (op != NULL) fero_op_free(op);
    cli_close(&client);
    return status;
}

static int run_patch(const struct command *command, int argc, char **argv)
{
    struct patch_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    struct input input;
    fero_val value;
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    status = input_read(&input, command, argv[2], VALUE_AS_BYTES, &value);
    if (status == STATUS_OK && json_classify(value.s.ptr, value.s.len) != JSON_OBJECT) {
        complain(command, "FIELDS must be a JSON object such as {\"age\":28}, not \"%.60s\"",
                 argv[2]);
        status = STATUS_USAGE;
    }
    if (status == STATUS_OK) status = patch(command, &options, argv, value.s);
    input_free(&input);
    return status;
}

const struct command command_patch = {
    .name = "patch",
    .arguments = "NAME KEY FIELDS",
    .summary = "set several fields of an object",
    .details =
        "FIELDS is a JSON object; its fields are set in the object at KEY, all or none, and\n"
        "the others stay. \"-\" reads it from the standard input. Prints the offset of the\n"
        "last change.",
    .options = patch_specs,
    .options_count = sizeof patch_specs / sizeof patch_specs[0],
    .arguments_min = 3,
    .arguments_max = 3,
    .examples = {"fero patch demo 28 '{\"age\":28,\"city\":\"Bonn\"}'",
                 "fero patch demo 28.address '{\"zip\":\"53111\"}' --json",
                 "fero patch demo 28 - < fields.json"},
    .run = run_patch,
};
