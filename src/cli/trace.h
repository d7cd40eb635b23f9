/*
 * The lines of diagnostics that the library gives: which of them are shown on stderr, and how.
 *
 *   --log-level LEVEL, FERO_LOG_LEVEL, FERO_LOG   error, warn, info, debug; the first that is given
 *   DEBUG=fero                                    debug, where none of them is
 *   DEBUG=fero:link,fero:memory                   debug, of these scopes only
 *
 * A line begins with its scope and a colon: node, link, memory, client, net.
 */
#pragma once

#include <stdint.h>

#include "cli/command.h"
#include "fero.h"

/* Of an option that nobody gave. */
#define TRACE_NOT_GIVEN (-1)
extern const char *const trace_level_names[]; /* by FERO_LOG_...; ends with NULL */

/*
 * Settles the level: `given` is an option's, or TRACE_NOT_GIVEN; `fallback` is taken where the
 * environment says nothing, either. COMMAND_GO_ON, or STATUS_USAGE after one line.
 */
int trace_settle(const struct command *command, int32_t given, int32_t fallback, int32_t *level);
/* The fero_log_fn. */
void trace_print(int32_t level, const char *line, void *ud);
