/*
 * The commands whose key the owner completes: with the next whole number, or the next index.
 */
#include <string.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/output.h"
#include "cli/value.h"

struct add_options {
    struct client_options client;
    int32_t type;
};

static const struct option_spec add_specs[] = {
    {.name = "type",
     .letter = 't',
     .kind = OPTION_CHOICE,
     .offset = offsetof(struct add_options, type),
     .shows = VALUE_AS_TEXT,
     .help = "store the value as this",
     .choices = value_as_names},
    CLIENT_OPTION_SPECS(struct add_options, client),
};

typedef int add_fn(fero_cache *cache, fero_slice key, const fero_val *value, const fero_wopts *opts,
                   fero_op **op);

/* What the number is called where it is printed. */
struct adding {
    add_fn *function;
    const char *number;
    const char *name; /* of the cache */
    const char *key;
};

static void print_result(const struct adding *adding, const fero_result *result, int32_t type,
                         bool json)
{
    long long number = (long long)result->value.i64;
    if (!json) {
        printf("%s %lld\noffset %llu\n", adding->number, number,
               (unsigned long long)result->offset);
        return;
    }
    printf("{\"key\":");
    json_put_string(stdout, adding->key, strlen(adding->key));
    printf(",\"%s\":%lld,\"type\":\"%s\",\"offset\":%llu}\n", adding->number, number,
           value_type_name(type), (unsigned long long)result->offset);
}

static int store(const struct command *command, const struct add_options *options,
                 const struct adding *adding, const fero_val *value)
{
    struct client client;
    int status = cli_open(&client, command, &options->client, adding->name);
    if (status != STATUS_OK) return status;
    fero_op *op = NULL;
    fero_result result;
    fero_wopts wopts = client_wopts(&client);
    int err = adding->function(client.cache, fero_str(adding->key), value, &wopts, &op);
    status = client_wait(&client, err, op, &result);
    if (status == STATUS_OK) print_result(adding, &result, value->type, options->client.json);
    if (op != NULL) fero_op_free(op);
    cli_close(&client);
    return status;
}

/* `adding` says what to do; the last argument is the value, and the one before it may be the key. */
static int run(const struct command *command, int argc, char **argv, struct adding *adding)
{
    struct add_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    struct input input;
    fero_val value;
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    adding->name = argv[0];
    adding->key = count == 3 ? argv[1] : "";
    status = input_read(&input, command, argv[count - 1], (enum value_as)options.type, &value);
    if (status == STATUS_OK) status = store(command, &options, adding, &value);
    input_free(&input);
    return status;
}

static int run_add(const struct command *command, int argc, char **argv)
{
    struct adding adding = {.function = fero_add, .number = "id"};
    return run(command, argc, argv, &adding);
}

static int run_push(const struct command *command, int argc, char **argv)
{
    struct adding adding = {.function = fero_push, .number = "index"};
    return run(command, argc, argv, &adding);
}

const struct command command_add = {
    .name = "add",
    .arguments = "NAME [KEY] VALUE",
    .summary = "store a value under the next number",
    .details =
        "Numbers are 1, 2, 3 and so on: of the keys of the cache, or of the fields of the\n"
        "object at KEY, which is made where there is none. Prints the number and the offset.",
    .options = add_specs,
    .options_count = sizeof add_specs / sizeof add_specs[0],
    .arguments_min = 2,
    .arguments_max = 3,
    .examples = {"fero add demo '{\"name\":\"david\"}'", "fero add demo 28.orders '{\"item\":7}'",
                 "fero add demo 28.notes - --type string --json < note.txt"},
    .run = run_add,
};

const struct command command_push = {
    .name = "push",
    .arguments = "NAME KEY VALUE",
    .summary = "append a value to an array",
    .details = "The array at KEY is made where there is none. Prints the index of the new element\n"
               "and the offset.",
    .options = add_specs,
    .options_count = sizeof add_specs / sizeof add_specs[0],
    .arguments_min = 3,
    .arguments_max = 3,
    .examples = {"fero push demo 28.list x", "fero push demo 28.list '{\"item\":7}' --json",
                 "fero push demo 28.list 007 --type string"},
    .run = run_push,
};
