/*
 * A value given as an argument, or "-" for the standard input.
 */
#pragma once

#include "cli/command.h"
#include "cli/value.h"
#include "fero.h"

struct input {
    char *text;    /* what was read, or NULL: it is the argument */
    char *scratch; /* for what the text means */
};

/*
 * Reads `argument` as a value of the kind `as`. Returns STATUS_OK, or a status after one line; then
 * too, input_free is needed. One newline at the end of the standard input is not part of the value,
 * unless that is bytes.
 */
int input_read(struct input *input, const struct command *command, const char *argument,
               enum value_as as, fero_val *value);
void input_free(struct input *input);
