/*
 * What a shell completes: names of commands and, behind one, of its options. From the tables, so that
 * it knows what this fero knows.
 */
#include <string.h>

#include "cli/commands.h"

static void put_options(const struct command *command)
{
    for (size_t i = 0; i < command->options_count; i++) printf(" --%s", command->options[i].name);
    printf(" --help");
}

static void print_bash(void)
{
    printf("# Completion of fero for bash: source it, or keep it where bash-completion looks.\n"
           "_fero()\n{\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} words\n"
           "    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ] || { [ \"$COMP_CWORD\" -eq 2 ] && [ "
           "\"${COMP_WORDS[1]}\" = "
           "help ]; }; then\n"
           "        words='");
    for (size_t i = 0; commands[i] != NULL; i++)
        printf("%s%s", i > 0 ? " " : "", commands[i]->name);
    printf("'\n    else\n        case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; commands[i] != NULL; i++) {
        printf("            %s) words='", commands[i]->name);
        put_options(commands[i]);
        printf("' ;;\n");
    }
    printf("        esac\n"
           "        case $word in\n"
           "            -*) ;;\n"
           "            *) words= ;;\n"
           "        esac\n"
           "    fi\n"
           "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
           "}\n"
           "complete -o default -F _fero fero\n");
}

static int run_completion(const struct command *command, int argc, char **argv)
{
    char unused;
    int count;
    int status = command_parse(command, argc, argv, &unused, &count);
    if (status != COMMAND_GO_ON) return status;
    if (strcmp(argv[0], "bash") != 0) {
        complain(command, "there is no completion for \"%s\"; did you mean bash?", argv[0]);
        return STATUS_USAGE;
    }
    print_bash();
    return STATUS_OK;
}

const struct command command_completion = {
    .name = "completion",
    .arguments = "SHELL",
    .summary = "print what a shell needs to complete commands and options",
    .details = "SHELL is bash.",
    .arguments_min = 1,
    .arguments_max = 1,
    .examples = {"fero completion bash > ~/.local/share/bash-completion/completions/fero",
                 "fero completion bash > fero.bash; source fero.bash",
                 "fero completion bash | less"},
    .run = run_completion,
};
