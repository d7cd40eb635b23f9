#include "cli/config.h"

#include <stdlib.h>
#include <string.h>

#include "cli/json.h"
#include "cli/output.h"
#include "cli/table.h"

#define INFO_BYTES ((size_t)1 << 20)
#define VALUE_BYTES 64

static void write_source(const struct option_spec *option, const struct option_given *given,
                         char *text, size_t bytes)
{
    char variable[128];
    switch (given->source) {
    case SOURCE_DEFAULT: snprintf(text, bytes, "default"); return;
    case SOURCE_COMMAND_LINE: snprintf(text, bytes, "command line"); return;
    case SOURCE_ENVIRONMENT: break;
    }
    command_environment_name(option, variable, sizeof variable);
    snprintf(text, bytes, "environment %s", variable);
}

/* The default, where a line of help ends with it: "(7700-7799)". */
static bool help_tells(const struct option_spec *option, char text[VALUE_BYTES])
{
    const char *open = strrchr(option->help, '(');
    size_t bytes = open != NULL ? strlen(open) : 0;
    if (bytes < 3 || bytes > VALUE_BYTES || open[bytes - 1] != ')') return false;
    memcpy(text, open + 1, bytes - 2);
    text[bytes - 2] = 0;
    return true;
}

/* What the node runs with, if it says so; else what was given, or what the help says of the default. */
static const char *value_of(struct json_span effective, const struct option_spec *option,
                            const struct option_given *given, char text[VALUE_BYTES])
{
    struct json_span value;
    /* A bare number is of another kind than what the node has beside it. */
    bool may_be_bare = (option->flags & OPTION_BARE_NUMBER) != 0;
    if (may_be_bare && given->text != NULL) return given->text;
    if (json_find(effective, option->name, &value) && value.bytes + 1 < VALUE_BYTES) {
        bool is_string = value.at[0] == '"';
        snprintf(text, VALUE_BYTES, "%.*s%s", (int)(value.bytes - (is_string ? 2 : 0)),
                 value.at + is_string, may_be_bare ? "B" : "");
        return text;
    }
    if (given->text != NULL) return given->text;
    if (option->kind != OPTION_FLAG && help_tells(option, text)) return text;
    return option->kind == OPTION_FLAG ? (given->source != SOURCE_DEFAULT ? "on" : "off") : "-";
}

static void print_table(const struct command *command, struct json_span effective,
                        const struct option_given *given)
{
    struct table table = {.columns_count = 3, .left_columns = 7};
    table_put(&table, "option");
    table_put(&table, "value");
    table_put(&table, "source");
    for (size_t i = 0; i < command->options_count; i++) {
        const struct option_spec *option = &command->options[i];
        char source[160];
        char value[VALUE_BYTES];
        if ((option->flags & OPTION_NO_ENVIRONMENT) != 0) continue;
        write_source(option, &given[i], source, sizeof source);
        table_put(&table, option->name);
        table_put(&table, value_of(effective, option, &given[i], value));
        table_put(&table, source);
    }
    table_print(&table, stdout, output_is_colored(stdout));
}

static void print_json(const struct command *command, struct json_span effective,
                       const struct option_given *given)
{
    bool is_first = true;
    printf("{\"options\":[");
    for (size_t i = 0; i < command->options_count; i++) {
        const struct option_spec *option = &command->options[i];
        char source[160];
        char text[VALUE_BYTES];
        if ((option->flags & OPTION_NO_ENVIRONMENT) != 0) continue;
        write_source(option, &given[i], source, sizeof source);
        const char *value = value_of(effective, option, &given[i], text);
        printf("%s{\"name\":\"%s\",\"value\":", is_first ? "" : ",", option->name);
        json_put_string(stdout, value, strlen(value));
        printf(",\"source\":\"%s\"}", source);
        is_first = false;
    }
    printf("]}\n");
}

int config_print(const struct command *command, const fero_runtime_opts *opts,
                 const struct option_given *given, bool json)
{
    fero_runtime_opts own = *opts;
    own.port_first = 0;
    own.port_last = 0;
    fero *runtime;
    int err = fero_start(&own, &runtime);
    if (err < 0) {
        complain(command, "%s", fero_errmsg());
        if (err == FERO_E_DENIED) return STATUS_REFUSED;
        return err == FERO_E_INVAL ? STATUS_USAGE : STATUS_NOT_FOUND;
    }
    char *info = malloc(INFO_BYTES);
    if (info == NULL) abort();
    int64_t bytes = fero_info(runtime, info, INFO_BYTES);
    struct json_span text = {info, bytes > 0 ? (size_t)bytes : 0};
    struct json_span effective = {0};
    if (!json_find(text, "options", &effective)) effective.bytes = 0;
    if (json)
        print_json(command, effective, given);
    else
        print_table(command, effective, given);
    free(info);
    fero_stop(runtime, FERO_OFF);
    return STATUS_OK;
}
