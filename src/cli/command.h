/*
 * A command as a table: what it is called, what it takes, how its help reads. One table serves the
 * parser, the help and the suggestion of the nearest name, so that they cannot disagree. The
 * benches describe themselves with the same table.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum option_kind {
    OPTION_FLAG,    /* bool: takes no value */
    OPTION_TEXT,    /* const char * */
    OPTION_NUMBER,  /* int64_t */
    OPTION_SIZE,    /* int64_t, with 64k, 1M, 2G */
    OPTION_CHOICE,  /* int32_t: index in `choices` */
    OPTION_NUMBERS, /* struct number_list: a comma list of sizes */
};

/* What a number may also be. */
#define OPTION_MAY_BE_OFF 1u      /* "off": `off_value` */
#define OPTION_MAY_BE_INFINITE 2u /* "Infinity": INT64_MAX */
#define OPTION_CONSTANT 4u        /* also written --constants.NAME */
#define OPTION_BARE_NUMBER 8u     /* OPTION_SIZE: a number without a unit goes to `bare_offset` */
#define OPTION_NO_ENVIRONMENT 16u /* of this call only: the environment does not give it */

#define NUMBER_LIST_MAX 16
struct number_list {
    int64_t values[NUMBER_LIST_MAX];
    uint32_t count; /* 0: not given */
};

struct option_spec {
    const char *name; /* without its dashes */
    char letter;      /* 0: none */
    enum option_kind kind;
    size_t offset;      /* of the field in the command's struct */
    const char *shows;  /* what stands for the value in help */
    const char *help;   /* one line */
    const char *manual; /* sentences that the manual page has in its place, or NULL */
    int64_t low;        /* of numbers, both inclusive */
    int64_t high;
    int64_t off_value;
    const char *const *choices; /* ends with NULL */
    size_t bare_offset;
    uint32_t flags;
};

#define COMMAND_EXAMPLES 3
struct command {
    const char *name;      /* "serve", "bench speed" */
    const char *arguments; /* "NAME KEY VALUE" */
    const char *summary;   /* one line */
    const char *details;   /* more lines for help, or NULL */
    const struct option_spec *options;
    size_t options_count;
    uint32_t arguments_min;
    uint32_t arguments_max;
    const char *examples[COMMAND_EXAMPLES];
    int (*run)(const struct command *command, int argc, char **argv);
};

/* Exit statuses: the same for every command. See "EXIT STATUS" in docs/man/fero.1. */
enum status {
    STATUS_OK = 0,
    STATUS_NOT_FOUND = 1,     /* no such key or cache; or this machine could not do it */
    STATUS_USAGE = 2,         /* no node would take it */
    STATUS_NOT_CONNECTED = 3, /* no node is there */
    STATUS_TIMED_OUT = 4,
    STATUS_REFUSED = 5, /* by the node: what it holds, its limits, handlers or token */
};
/* Where the value of an option comes from. */
enum option_source { SOURCE_DEFAULT, SOURCE_ENVIRONMENT, SOURCE_COMMAND_LINE };
struct option_given {
    enum option_source source;
    const char *text; /* as it was given; NULL: not at all, or it is a flag */
};

/* What command_parse returns where the command should go on. */
#define COMMAND_GO_ON (-1)

/*
 * Reads options into `fields`, which holds the defaults, and moves the other arguments to the front
 * of `argv`. Returns COMMAND_GO_ON with their number in `*arguments_count`, or an exit status:
 * STATUS_OK when help was asked for and printed, STATUS_USAGE after one line that says what is wrong.
 */
int command_parse(const struct command *command, int argc, char **argv, void *fields,
                  int *arguments_count);

/* Writes the name of the variable that gives the option, "FERO_MEMORY_MAX". */
void command_environment_name(const struct option_spec *option, char *name, size_t bytes);

/* The same, and `given`, which has an item for each option, says where their values come from. */
int command_parse_noting(const struct command *command, int argc, char **argv, void *fields,
                         int *arguments_count, struct option_given *given);

void command_help(FILE *to, const struct command *command);

/* One line to stderr, "fero serve: ..."; `command` NULL: "fero: ...". */
__attribute__((format(printf, 2, 3))) void complain(const struct command *command,
                                                    const char *format, ...);
