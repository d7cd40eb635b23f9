#include <string.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/value.h"

struct get_options {
    struct client_options client;
};

static const struct option_spec get_specs[] = {
    CLIENT_OPTION_SPECS(struct get_options, client),
};

static void print_result(const char *key, const fero_result *result, bool json)
{
    if (!json) {
        value_put_plain(stdout, &result->value);
        return;
    }
    printf("{\"key\":");
    json_put_string(stdout, key, strlen(key));
    printf(",\"type\":\"%s\",\"value\":", value_type_name(result->value.type));
    value_put_json(stdout, &result->value);
    printf(",\"offset\":%llu}\n", (unsigned long long)result->offset);
}

static int run_get(const struct command *command, int argc, char **argv)
{
    struct get_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    struct client client;
    status = cli_open(&client, command, &options.client, argv[0]);
    if (status != STATUS_OK) return status;

    fero_op *op = NULL;
    fero_result result;
    fero_wopts wopts = client_wopts(&client);
    int err = fero_get(client.cache, fero_str(argv[1]), &wopts, &op);
    status = client_wait(&client, err, op, &result);
    if (status == STATUS_NOT_FOUND)
        complain(command, "%s has no key \"%s\"", argv[0], argv[1]);
    else if (status == STATUS_OK)
        print_result(argv[1], &result, options.client.json);
    if (op != NULL) fero_op_free(op);
    cli_close(&client);
    return status;
}

const struct command command_get = {
    .name = "get",
    .arguments = "NAME KEY",
    .summary = "print the value of a key",
    .details =
        "Bytes are printed as they are, without a newline; with --json as hexadecimal digits.",
    .options = get_specs,
    .options_count = sizeof get_specs / sizeof get_specs[0],
    .arguments_min = 2,
    .arguments_max = 2,
    .examples = {"fero get demo 28", "fero get demo 28 --json",
                 "fero get demo logo --seeds 127.0.0.1:7701 > logo.png"},
    .run = run_get,
};
