/*
 * How arguments are read. An option is --name VALUE, --name=VALUE, -n VALUE or -nVALUE; it may stand
 * anywhere; "--" ends the options; "-" and negative numbers are arguments. Nothing is guessed: a name
 * that is not in the table is an error that names the nearest one that is.
 *
 * Every option may come from the environment, too: FERO_ and its name in capitals, with underscores
 * for dots and dashes (FERO_MEMORY_MAX). The command line is stronger.
 */
#include "cli/command.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/nearest.h"
#include "cli/number.h"
#include "cli/output.h"

#define CONSTANTS_PREFIX "constants."
#define HELP_COLUMN 30

void complain(const struct command *command, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    /* One line, whatever a user or a peer has put into it. */
    for (char *at = text; *at != 0; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f) *at = '?';
    const char *red = output_is_colored(stderr) ? "\033[31m" : "";
    const char *plain = red[0] != 0 ? "\033[0m" : "";
    if (command != NULL)
        fprintf(stderr, "%sfero %s:%s %s\n", red, command->name, plain, text);
    else
        fprintf(stderr, "%sfero:%s %s\n", red, plain, text);
}

/* ------------------------------------------------------------------------------------- help */

static void help_option(FILE *to, const struct option_spec *option)
{
    char left[96];
    int bytes = 0;
    if (option->letter != 0)
        bytes = snprintf(left, sizeof left, "-%c, --%s", option->letter, option->name);
    else
        bytes = snprintf(left, sizeof left, "    --%s", option->name);
    if (option->shows != NULL && bytes > 0)
        snprintf(left + bytes, sizeof left - (size_t)bytes, " %s", option->shows);
    if (strlen(left) < HELP_COLUMN)
        fprintf(to, "  %-*s %s\n", HELP_COLUMN, left, option->help);
    else
        fprintf(to, "  %s\n  %-*s %s\n", left, HELP_COLUMN, "", option->help);
}

void command_help(FILE *to, const struct command *command)
{
    fprintf(to, "fero %s: %s\n\nUsage: fero %s%s%s%s\n", command->name, command->summary,
            command->name, command->arguments[0] != 0 ? " " : "", command->arguments,
            command->options_count > 0 ? " [options]" : "");
    if (command->details != NULL) fprintf(to, "\n%s\n", command->details);
    fprintf(to, "\nOptions:\n");
    for (size_t i = 0; i < command->options_count; i++) help_option(to, &command->options[i]);
    const struct option_spec help = {.name = "help", .letter = 'h', .help = "print this"};
    help_option(to, &help);
    fprintf(to, "\nExamples:\n");
    for (size_t i = 0; i < COMMAND_EXAMPLES; i++)
        if (command->examples[i] != NULL) fprintf(to, "  %s\n", command->examples[i]);
}

/* ------------------------------------------------------------------------------------ values */

static void *field_of(void *fields, size_t offset)
{
    return (char *)fields + offset;
}

/* One value that was given, and where: "--shards" or "FERO_SHARDS" in what is said about it. */
struct given {
    const struct command *command;
    const struct option_spec *option;
    struct option_given *note; /* of each option; NULL: nobody wants to know */
    char place[NEAREST_BYTES_MAX + 16];
};

/* Writes a bound as it would be typed: "64k" where that is exact. */
static void bound(const struct option_spec *option, int64_t number, char text[32])
{
    static const char units[] = "kMGT";
    int unit = -1;
    if (option->kind == OPTION_SIZE || option->kind == OPTION_NUMBERS) {
        for (; unit < 3 && number != 0 && number % 1024 == 0; unit++) number /= 1024;
    }
    snprintf(text, 32, unit >= 0 ? "%lld%c" : "%lld", (long long)number,
             units[unit >= 0 ? unit : 0]);
}

static int range_error(const struct given *given, const char *text)
{
    const struct option_spec *option = given->option;
    char low[32];
    char high[32];
    bound(option, option->low, low);
    bound(option, option->high, high);
    if (option->high == INT64_MAX)
        complain(given->command, "%s is %s, but must be %s or more", given->place, text, low);
    else
        complain(given->command, "%s is %s, but must be from %s to %s", given->place, text, low,
                 high);
    return STATUS_USAGE;
}

static int take_choice(const struct given *given, const char *text, int32_t *field)
{
    const struct option_spec *option = given->option;
    struct nearest nearest = {.wanted = text};
    for (int32_t i = 0; option->choices[i] != NULL; i++) {
        if (strcasecmp(option->choices[i], text) == 0) {
            *field = i;
            return COMMAND_GO_ON;
        }
        nearest_offer(&nearest, option->choices[i]);
    }
    complain(given->command, "%s cannot be \"%s\"; did you mean %s? (one of %s)", given->place,
             text, nearest.best, option->shows);
    return STATUS_USAGE;
}

/* One number with what the option allows; `*bare`: it had no unit. */
static int take_number(const struct given *given, const char *text, int64_t *number, bool *bare)
{
    const struct option_spec *option = given->option;
    *bare = false;
    if ((option->flags & OPTION_MAY_BE_OFF) != 0 && strcasecmp(text, "off") == 0) {
        *number = option->off_value;
        return COMMAND_GO_ON;
    }
    if ((option->flags & OPTION_MAY_BE_INFINITE) != 0 && strcasecmp(text, "infinity") == 0) {
        *number = INT64_MAX;
        return COMMAND_GO_ON;
    }
    bool has_unit = true;
    int err = option->kind == OPTION_NUMBER ? number_parse(text, number)
                                            : size_parse(text, number, &has_unit);
    if (err == 0 && (option->flags & OPTION_MAY_BE_OFF) != 0 && *number == 0) {
        *number = option->off_value;
        return COMMAND_GO_ON;
    }
    if (err == -ERANGE || (err == 0 && (*number < option->low || *number > option->high)))
        return range_error(given, text);
    if (err < 0) {
        const char *like = option->kind == OPTION_NUMBER ? "such as 4" : "such as 4096, 64k or 1M";
        const char *off = (option->flags & OPTION_MAY_BE_OFF) != 0 ? " or off" : "";
        const char *infinity = (option->flags & OPTION_MAY_BE_INFINITE) != 0 ? " or Infinity" : "";
        complain(given->command, "%s needs a number %s%s%s, not \"%s\"", given->place, like, off,
                 infinity, text);
        return STATUS_USAGE;
    }
    *bare = !has_unit;
    return COMMAND_GO_ON;
}

static int take_numbers(const struct given *given, const char *text, struct number_list *list)
{
    list->count = 0;
    while (true) {
        char one[40];
        size_t bytes = strcspn(text, ",");
        if (bytes >= sizeof one) return range_error(given, text);
        memcpy(one, text, bytes);
        one[bytes] = 0;
        if (list->count == NUMBER_LIST_MAX) {
            complain(given->command, "%s lists more than %d numbers", given->place,
                     NUMBER_LIST_MAX);
            return STATUS_USAGE;
        }
        bool bare;
        int status = take_number(given, one, &list->values[list->count], &bare);
        if (status != COMMAND_GO_ON) return status;
        list->count++;
        if (text[bytes] == 0) return COMMAND_GO_ON;
        text += bytes + 1;
    }
}

static void note(const struct given *given, enum option_source source, const char *text)
{
    if (given->note == NULL) return;
    given->note[given->option - given->command->options] = (struct option_given){source, text};
}

static int take_value(const struct given *given, const char *text, void *fields)
{
    const struct option_spec *option = given->option;
    void *field = field_of(fields, option->offset);
    bool bare = false;
    int64_t number = 0;
    switch (option->kind) {
    case OPTION_FLAG: *(bool *)field = true; return COMMAND_GO_ON;
    case OPTION_TEXT:
        if (text[0] == 0) {
            complain(given->command, "%s needs a value, not an empty one", given->place);
            return STATUS_USAGE;
        }
        *(const char **)field = text;
        return COMMAND_GO_ON;
    case OPTION_CHOICE: return take_choice(given, text, field);
    case OPTION_NUMBERS: return take_numbers(given, text, field);
    case OPTION_NUMBER:
    case OPTION_SIZE: break;
    }
    int status = take_number(given, text, &number, &bare);
    if (status != COMMAND_GO_ON) return status;
    if (bare && (option->flags & OPTION_BARE_NUMBER) != 0)
        field = field_of(fields, option->bare_offset);
    *(int64_t *)field = number;
    return COMMAND_GO_ON;
}

/* ------------------------------------------------------------------------------------- names */

static const struct option_spec *find_letter(const struct command *command, char letter)
{
    for (size_t i = 0; i < command->options_count; i++)
        if (command->options[i].letter == letter) return &command->options[i];
    return NULL;
}

/* The option called `name`, or NULL after a line that names the nearest. */
static const struct option_spec *find_name(const struct command *command, const char *name)
{
    bool constants = strncmp(name, CONSTANTS_PREFIX, strlen(CONSTANTS_PREFIX)) == 0;
    const char *prefix = constants ? CONSTANTS_PREFIX : "";
    const char *bare = name + strlen(prefix);
    struct nearest nearest = {.wanted = bare};
    for (size_t i = 0; i < command->options_count; i++) {
        const struct option_spec *option = &command->options[i];
        if (constants && (option->flags & OPTION_CONSTANT) == 0) continue;
        if (strcmp(option->name, bare) == 0) return option;
        nearest_offer(&nearest, option->name);
    }
    if (!constants) nearest_offer(&nearest, "help");
    if (nearest.best == NULL)
        complain(command, "has no constants, so not --%s; see fero %s --help", name, command->name);
    else
        complain(command, "unknown option --%s; did you mean --%s%s?", name, prefix, nearest.best);
    return NULL;
}

static bool is_argument(const char *text)
{
    return text[0] != '-' || text[1] == 0 || isdigit((unsigned char)text[1]) ||
           (text[1] == '.' && isdigit((unsigned char)text[2]));
}

/* Splits argv[*at] into its option and the value, and steps over both. */
static int take_option(const struct command *command, char **argv, int argc, int *at, void *fields,
                       struct option_given *notes)
{
    char *text = argv[*at];
    char name[NEAREST_BYTES_MAX + 1];
    const struct option_spec *option;
    const char *value = NULL;
    if (text[1] == '-') {
        size_t bytes = strcspn(text + 2, "=");
        snprintf(name, sizeof name, "%.*s", (int)bytes, text + 2);
        option = find_name(command, name);
        if (option == NULL) return STATUS_USAGE;
        if (text[2 + bytes] == '=') value = text + 2 + bytes + 1;
    } else {
        option = find_letter(command, text[1]);
        if (option == NULL) {
            char letter[2] = {text[1], 0};
            struct nearest nearest = {.wanted = letter, .best = "help"};
            nearest.distance = nearest_distance(letter, "help");
            for (size_t i = 0; i < command->options_count; i++)
                nearest_offer(&nearest, command->options[i].name);
            complain(command, "unknown option -%c; did you mean --%s?", text[1], nearest.best);
            return STATUS_USAGE;
        }
        if (text[2] != 0) value = text + 2;
    }
    if (option->kind == OPTION_FLAG && value != NULL) {
        complain(command, "--%s takes no value, so not \"%s\"", option->name, value);
        return STATUS_USAGE;
    }
    if (option->kind != OPTION_FLAG && value == NULL) {
        if (*at + 1 >= argc) {
            complain(command, "--%s needs a value: --%s %s", option->name, option->name,
                     option->shows);
            return STATUS_USAGE;
        }
        value = argv[++*at];
    }
    struct given given = {.command = command, .option = option, .note = notes};
    snprintf(given.place, sizeof given.place, "--%s", option->name);
    note(&given, SOURCE_COMMAND_LINE, value);
    return take_value(&given, value, fields);
}

/* ------------------------------------------------------------------------------- environment */

void command_environment_name(const struct option_spec *option, char *name, size_t bytes)
{
    snprintf(name, bytes, "FERO_%s", option->name);
    for (char *at = name; *at != 0; at++)
        *at = *at == '.' || *at == '-' ? '_' : (char)toupper((unsigned char)*at);
}

/* "1", "true", "yes" and "on", or their contraries; false: neither. */
static bool parse_truth(const char *text, bool *truth)
{
    static const char *const words[] = {"0", "1", "false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) != 0) continue;
        *truth = i % 2 == 1;
        return true;
    }
    return false;
}

/* What the environment says, before the command line has its say. One that is empty is not set. */
static int take_environment(const struct command *command, void *fields, struct option_given *notes)
{
    for (size_t i = 0; i < command->options_count; i++) {
        struct given given = {.command = command, .option = &command->options[i], .note = notes};
        if ((given.option->flags & OPTION_NO_ENVIRONMENT) != 0) continue;
        command_environment_name(given.option, given.place, sizeof given.place);
        const char *text = getenv(given.place);
        if (text == NULL || text[0] == 0) continue;
        bool *flag = field_of(fields, given.option->offset);
        if (given.option->kind == OPTION_FLAG && !parse_truth(text, flag)) {
            complain(command, "%s must be 1 or 0, not \"%s\"", given.place, text);
            return STATUS_USAGE;
        }
        bool is_flag = given.option->kind == OPTION_FLAG;
        if (!is_flag || *flag) note(&given, SOURCE_ENVIRONMENT, is_flag ? NULL : text);
        if (is_flag) continue;
        int status = take_value(&given, text, fields);
        if (status != COMMAND_GO_ON) return status;
    }
    return COMMAND_GO_ON;
}

static bool is_help(const char *text)
{
    return strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0;
}

int command_parse(const struct command *command, int argc, char **argv, void *fields,
                  int *arguments_count)
{
    return command_parse_noting(command, argc, argv, fields, arguments_count, NULL);
}

int command_parse_noting(const struct command *command, int argc, char **argv, void *fields,
                         int *arguments_count, struct option_given *given)
{
    int count = 0;
    bool options_ended = false;
    /* Help is given whatever the environment is. */
    for (int at = 0; at < argc && strcmp(argv[at], "--") != 0; at++) {
        if (!is_help(argv[at])) continue;
        command_help(stdout, command);
        return STATUS_OK;
    }
    int status = take_environment(command, fields, given);
    if (status != COMMAND_GO_ON) return status;
    for (int at = 0; at < argc; at++) {
        char *text = argv[at];
        if (options_ended || is_argument(text)) {
            argv[count++] = text;
        } else if (strcmp(text, "--") == 0) {
            options_ended = true;
        } else {
            status = take_option(command, argv, argc, &at, fields, given);
            if (status != COMMAND_GO_ON) return status;
        }
    }
    *arguments_count = count;
    if (count < (int)command->arguments_min) {
        complain(command, "needs %s; see fero %s --help", command->arguments, command->name);
        return STATUS_USAGE;
    }
    if (count > (int)command->arguments_max) {
        char most[32] = "";
        if (strstr(command->arguments, "...") != NULL)
            snprintf(most, sizeof most, ", %u at most", (unsigned)command->arguments_max);
        complain(command, "unexpected argument \"%s\"; it takes %s%s", argv[command->arguments_max],
                 command->arguments[0] != 0 ? command->arguments : "none", most);
        return STATUS_USAGE;
    }
    return COMMAND_GO_ON;
}
