#include "cli/input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No node takes a larger frame. */
#define INPUT_BYTES_MAX ((size_t)16 << 20)
#define INPUT_BYTES_FIRST ((size_t)64 << 10)

/* All of the standard input; `*bytes` of it. NULL with errno set. */
static char *read_all(size_t *bytes)
{
    size_t room = INPUT_BYTES_FIRST;
    char *text = malloc(room);
    *bytes = 0;
    while (text != NULL) {
        *bytes += fread(text + *bytes, 1, room - *bytes, stdin);
        if (*bytes < room) break;
        room *= 2;
        char *larger = room <= INPUT_BYTES_MAX * 2 ? realloc(text, room) : NULL;
        if (larger == NULL) {
            free(text);
            errno = EFBIG;
            return NULL;
        }
        text = larger;
    }
    if (text != NULL && ferror(stdin) != 0) {
        free(text);
        errno = EIO;
        return NULL;
    }
    return text;
}

static const char *const kinds[] = {
    [VALUE_AS_AUTO] = "value",  [VALUE_AS_STRING] = "string",       [VALUE_AS_DOUBLE] = "double",
    [VALUE_AS_INT64] = "int64", [VALUE_AS_JSON] = "json",           [VALUE_AS_BOOL] = "bool",
    [VALUE_AS_NULL] = "null",   [VALUE_AS_UNDEFINED] = "undefined", [VALUE_AS_BYTES] = "bytes",
};

int input_read(struct input *input, const struct command *command, const char *argument,
               enum value_as as, fero_val *value)
{
    *input = (struct input){NULL, NULL};
    const char *text = argument;
    size_t bytes = strlen(argument);
    if (strcmp(argument, "-") == 0) {
        input->text = read_all(&bytes);
        if (input->text == NULL) {
            complain(command, "cannot read the standard input: %s",
                     errno == EFBIG ? "it is over 16 MiB" : strerror(errno));
            return STATUS_NOT_FOUND;
        }
        text = input->text;
        if (as != VALUE_AS_BYTES && bytes > 0 && text[bytes - 1] == '\n') bytes--;
    }
    input->scratch = malloc(bytes + 1);
    if (input->scratch == NULL) {
        complain(command, "no memory for a value of %zu bytes", bytes);
        return STATUS_NOT_FOUND;
    }
    const char *expected = value_read(value, text, bytes, as, input->scratch);
    if (expected == NULL) return STATUS_OK;
    complain(command, "--type %s needs %s, not \"%.*s\"", kinds[as], expected,
             bytes > 60 ? 60 : (int)bytes, text);
    return STATUS_USAGE;
}

void input_free(struct input *input)
{
    free(input->text);
    free(input->scratch);
}
