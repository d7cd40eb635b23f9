#include <string.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/output.h"
#include "cli/value.h"

struct set_options {
    struct client_options client;
    int32_t type;
};

static const struct option_spec set_specs[] = {
    {.name = "type",
     .letter = 't',
     .kind = OPTION_CHOICE,
     .offset = offsetof(struct set_options, type),
     .shows = VALUE_AS_TEXT,
     .help = "store the value as this",
     .choices = value_as_names},
    CLIENT_OPTION_SPECS(struct set_options, client),
};

static void print_result(const char *key, int32_t type, uint64_t offset, bool json)
{
    if (!json) {
        printf("offset %llu\n", (unsigned long long)offset);
        return;
    }
    printf("{\"key\":");
    json_put_string(stdout, key, strlen(key));
    printf(",\"type\":\"%s\",\"offset\":%llu}\n", value_type_name(type),
           (unsigned long long)offset);
}

/* Stores `value` and says so. */
static int store(const struct command *command, const struct set_options *options, char **argv,
                 const fero_val *value)
{
    struct client client;
    int status = cli_open(&client, command, &options->client, argv[0]);
    if (status != STATUS_OK) return status;
    fero_op *op = NULL;
    fero_result result;
    fero_wopts wopts = client_wopts(&client);
    int err = fero_update(client.cache, fero_str(argv[1]), value, &wopts, &op);
    status = client_wait(&client, err, op, &result);
    if (status == STATUS_OK)
        print_result(argv[1], value->type, result.offset, options->client.json);
    else if (status == STATUS_NOT_FOUND)
        complain(command, "%s has no key \"%s\"", argv[0], argv[1]);
    if (op != NULL) fero_op_free(op);
    cli_close(&client);
    return status;
}

static int run_set(const struct command *command, int argc, char **argv)
{
    struct set_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    struct input input;
    fero_val value;
    status = input_read(&input, command, argv[2], (enum value_as)options.type, &value);
    if (status == STATUS_OK) status = store(command, &options, argv, &value);
    input_free(&input);
    return status;
}

const struct command command_set = {
    .name = "set",
    .arguments = "NAME KEY VALUE",
    .summary = "store a value under a key",
    .details =
        "KEY may lead inside of a value: 28.email is the field \"email\" of 28, 28.list.0 the "
        "first\n"
        "element of an array; \"\\.\" is a dot inside of a name.\n"
        "VALUE is JSON where it reads as JSON (28, true, null, \"28\", {\"a\":1}), else a string, "
        "or\n"
        "bytes where it is not UTF-8; with --type it must be what that says. \"-\" reads it from "
        "the\n"
        "standard input. Prints the offset of the change in the log of the key's partition.",
    .options = set_specs,
    .options_count = sizeof set_specs / sizeof set_specs[0],
    .arguments_min = 3,
    .arguments_max = 3,
    .examples = {"fero set demo 28 david", "fero set demo 28 '{\"name\":\"david\"}' --json",
                 "fero set demo logo - --type bytes < logo.png"},
    .run = run_set,
};
