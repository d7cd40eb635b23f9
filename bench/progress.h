/*
 * A line on the terminal that says what is being measured. Nothing where stderr is no terminal.
 */
#pragma once

#include <stdbool.h>

bool progress_is_shown(void);
/* Replaces the line. */
__attribute__((format(printf, 1, 2))) void progress_say(const char *format, ...);
/* Takes it away, before anything else is printed. */
void progress_clear(void);
