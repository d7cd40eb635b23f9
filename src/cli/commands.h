/*
 * The commands of fero. Each is in the file of its name.
 */
#pragma once

#include "cli/command.h"

extern const struct command command_serve;
extern const struct command command_set;
extern const struct command command_get;
extern const struct command command_rm;
extern const struct command command_add;
extern const struct command command_push;
extern const struct command command_patch;
extern const struct command command_watch;
extern const struct command command_log;
extern const struct command command_req;
extern const struct command command_info;
extern const struct command command_stat;
extern const struct command command_errors;
extern const struct command command_bench;
extern const struct command command_completion;
extern const struct command command_version;
extern const struct command command_help_pages;

/* All of them, in the order of the help; NULL at the end. */
extern const struct command *const commands[];

/* Runs what argv names, as main() got it; returns the exit status. */
int commands_run(int argc, char **argv);
