/*
 * The manual page of a command, from the same table as its help.
 */
#pragma once

#include <stdio.h>

#include "cli/command.h"

/* Writes it in mdoc. Its date is "@DATE@", which scripts/man fills in. */
void manual_print(FILE *to, const struct command *command);
