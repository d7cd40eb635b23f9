/*
 * What a node would run with: every option of `fero serve`, its value and where that comes from.
 */
#pragma once

#include "cli/command.h"
#include "fero.h"

/*
 * Starts the node on a port that nobody uses, asks it what it has made of the options, stops it, and
 * prints that. `given` has an item for each option of the command.
 */
int config_print(const struct command *command, const fero_runtime_opts *opts,
                 const struct option_given *given, bool json);
