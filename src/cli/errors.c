#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/table.h"

#define ERRORS_SHOWN_MAX 4096

struct errors_options {
    struct client_options client;
};

static const struct option_spec errors_specs[] = {
    CLIENT_OPTION_SPECS(struct errors_options, client),
};

static uint64_t number_of(struct json_span object, const char *key)
{
    struct json_span value;
    uint64_t number = 0;
    return json_find(object, key, &value) && json_whole(value, &number) ? number : 0;
}

/* qsort: the newest first. */
static int compare_last(const void *a, const void *b)
{
    uint64_t a_ms = number_of(*(const struct json_span *)a, "last_ms");
    uint64_t b_ms = number_of(*(const struct json_span *)b, "last_ms");
    return a_ms > b_ms ? -1 : a_ms < b_ms;
}

static void put_time(struct table *table, uint64_t ms)
{
    char text[64];
    struct tm local;
    time_t seconds = (time_t)(ms / 1000);
    if (localtime_r(&seconds, &local) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local) == 0)
        text[0] = 0;
    table_put(table, text);
}

/* Without what a terminal would take for a command: the text may come from a peer of another kind. */
static void put_string(struct table *table, struct json_span value)
{
    char text[512] = "";
    if (value.bytes >= 2 && value.bytes < sizeof text)
        text[json_unescape(value.at, value.bytes, text)] = 0;
    for (char *at = text; *at != 0; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f) *at = '?';
    table_put(table, text);
}

static void put_error(struct table *table, struct json_span error)
{
    char count[COUNT_TEXT_BYTES];
    struct json_span value = {0};
    table_put(table, count_format(number_of(error, "count"), count));
    put_time(table, number_of(error, "first_ms"));
    put_time(table, number_of(error, "last_ms"));
    if (!json_find(error, "kind", &value)) value.bytes = 0;
    put_string(table, value);
    uint64_t code = number_of(error, "error");
    table_printf(table, "%llu (%s)", (unsigned long long)code, fero_strerror(-(int)code));
    if (!json_find(error, "text", &value)) value.bytes = 0;
    put_string(table, value);
}

static void print_errors(const struct client *client, struct json_span text)
{
    static struct json_span list[ERRORS_SHOWN_MAX];
    struct json_span errors = {0};
    size_t count = 0;
    char uptime[COUNT_TEXT_BYTES];
    char others[COUNT_TEXT_BYTES];
    if (!json_find(text, "errors", &errors)) errors.bytes = 0;
    const char *at = NULL;
    while (count < ERRORS_SHOWN_MAX && json_element_next(errors, &at, &list[count])) count++;
    duration_format(number_of(text, "uptime_ms"), uptime);
    if (count == 0) {
        printf("fero at %s, up %s: no errors\n", client->options->seeds, uptime);
    } else {
        printf("fero at %s, up %s: %zu distinct errors\n", client->options->seeds, uptime, count);
        qsort(list, count, sizeof list[0], compare_last);
        struct table table = {.columns_count = 6, .left_columns = 0x3e};
        table_put(&table, "count");
        table_put(&table, "first");
        table_put(&table, "last");
        table_put(&table, "of");
        table_put(&table, "error");
        table_put(&table, "what");
        for (size_t i = 0; i < count; i++) put_error(&table, list[i]);
        table_print(&table, stdout, output_is_colored(stdout));
    }
    uint64_t others_count = number_of(text, "others");
    if (others_count > 0)
        printf("and %s that found no room: see serve --errors.max\n",
               count_format(others_count, others));
}

static int run_errors(const struct command *command, int argc, char **argv)
{
    struct errors_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    struct client client;
    char *text;
    status = cli_open(&client, command, &options.client, count > 0 ? argv[0] : NULL);
    if (status != STATUS_OK) return status;
    status = client_ask_node(&client, fero_ask_errors, &text);
    if (status == STATUS_OK) {
        if (options.client.json)
            printf("%s\n", text);
        else
            print_errors(&client, (struct json_span){text, strlen(text)});
        free(text);
    }
    cli_close(&client);
    return status;
}

const struct command command_errors = {
    .name = "errors",
    .arguments = "[NAME]",
    .summary = "show what went wrong in a node, each distinct error once",
    .details =
        "For each: how often, when first and last, whether a request failed (reply), a connection\n"
        "was refused (link) or a handler replied with an error (handler), and the values of the\n"
        "last time. With NAME, only of a node that has this cache.",
    .options = errors_specs,
    .options_count = sizeof errors_specs / sizeof errors_specs[0],
    .arguments_max = 1,
    .examples = {"fero errors", "fero errors --seeds 127.0.0.1:7701", "fero errors --json"},
    .run = run_errors,
};
