#include "cli/commands.h"

#include <stdio.h>
#include <string.h>

#include "cli/manual.h"
#include "cli/nearest.h"
#include "fero.h"

const struct command *const commands[] = {
    &command_serve,   &command_set,        &command_get,
    &command_rm,      &command_add,        &command_push,
    &command_patch,   &command_watch,      &command_log,
    &command_req,     &command_info,       &command_stat,
    &command_errors,  &command_bench,      &command_completion,
    &command_version, &command_help_pages, NULL};

static void print_overview(FILE *to)
{
    fprintf(to,
            "fero %s: a cluster of equal nodes that share a changelog\n\n"
            "Usage: fero COMMAND [arguments] [options]\n\nCommands:\n",
            FERO_VERSION);
    for (size_t i = 0; commands[i] != NULL; i++)
        fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(to, "\n\"fero COMMAND --help\" tells more, with examples.\n\n"
                "Examples:\n"
                "  fero serve demo            start a node with the cache \"demo\"\n"
                "  fero set demo 28 david     in another shell: store a value\n"
                "  fero get demo 28           and read it\n");
}

/* The command called `name`, or NULL after a line that names the nearest. */
static const struct command *find(const char *name)
{
    struct nearest nearest = {.wanted = name};
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
        nearest_offer(&nearest, commands[i]->name);
    }
    if (name[0] == '-') {
        nearest = (struct nearest){.wanted = name + strspn(name, "-")};
        nearest_offer(&nearest, "help");
        nearest_offer(&nearest, "version");
        complain(NULL, "unknown option %s; did you mean --%s?", name, nearest.best);
    } else {
        complain(NULL, "unknown command \"%s\"; did you mean %s?", name, nearest.best);
    }
    return NULL;
}

static bool is_any(const char *text, const char *const *names)
{
    for (; *names != NULL; names++)
        if (strcmp(text, *names) == 0) return true;
    return false;
}

int commands_run(int argc, char **argv)
{
    static const char *const help_names[] = {"-h", "--help", NULL};
    static const char *const version_names[] = {"-V", "-v", "--version", NULL};
    if (argc < 2) {
        print_overview(stderr);
        return STATUS_USAGE;
    }
    if (is_any(argv[1], help_names)) {
        print_overview(stdout);
        return STATUS_OK;
    }
    const struct command *command =
        is_any(argv[1], version_names) ? &command_version : find(argv[1]);
    if (command == NULL) return STATUS_USAGE;
    int status = command->run(command, argc - 2, argv + 2);
    if (fflush(stdout) == 0 && ferror(stdout) == 0) return status;
    complain(command, "cannot write to the standard output: is the disk full, or the pipe closed?");
    return status == STATUS_OK ? STATUS_NOT_FOUND : status;
}

/* ------------------------------------------------------------------------------------- help */

struct help_options {
    bool man;
};

static const struct option_spec help_specs[] = {
    {.name = "man",
     .kind = OPTION_FLAG,
     .offset = offsetof(struct help_options, man),
     .flags = OPTION_NO_ENVIRONMENT,
     .help = "print its manual page, in mdoc"},
};

static int run_help(const struct command *command, int argc, char **argv)
{
    struct help_options options = {false};
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    if (count == 0 && options.man) {
        complain(command, "--man needs a command, such as fero help --man serve");
        return STATUS_USAGE;
    }
    if (count == 0) {
        print_overview(stdout);
        return STATUS_OK;
    }
    const struct command *about = find(argv[0]);
    if (about == NULL) return STATUS_USAGE;
    char help[] = "--help";
    char *arguments[] = {argv[1], help, NULL};
    if (about == &command_bench && options.man) {
        complain(command, "the manual page of the benches is not made from their help: see "
                          "docs/man/fero-bench.1");
        return STATUS_USAGE;
    }
    /* "help bench speed": a bench prints its own. */
    if (about == &command_bench)
        return about->run(about, count, count == 2 ? arguments : &arguments[1]);
    if (count == 2) {
        complain(command, "unexpected argument \"%s\"; %s has no commands of its own", argv[1],
                 argv[0]);
        return STATUS_USAGE;
    }
    if (options.man)
        manual_print(stdout, about);
    else
        command_help(stdout, about);
    return STATUS_OK;
}

const struct command command_help_pages = {
    .name = "help",
    .arguments = "[COMMAND]",
    .summary = "explain a command",
    .options = help_specs,
    .options_count = sizeof help_specs / sizeof help_specs[0],
    .arguments_max = 2,
    .examples = {"fero help", "fero help serve", "fero help bench speed"},
    .run = run_help,
};
