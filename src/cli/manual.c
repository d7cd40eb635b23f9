#include "cli/manual.h"

#include <ctype.h>
#include <string.h>

#include "fero.h"

/* ------------------------------------------------------------------------------------- text */

/* One line of text as roff wants it: no line begins with a request, and dashes can be copied. */
static void put_line(FILE *to, const char *text, size_t bytes)
{
    if (bytes > 0 && (text[0] == '.' || text[0] == '\'')) fputs("\\&", to);
    for (size_t i = 0; i < bytes; i++) {
        bool is_dash = text[i] == '-' && i + 1 < bytes && text[i + 1] == '-';
        bool is_second = text[i] == '-' && i > 0 && text[i - 1] == '-';
        if (text[i] == '\\')
            fputs("\\e", to);
        else if (is_dash || is_second)
            fputs("\\-", to);
        else
            fputc(text[i], to);
    }
    fputc('\n', to);
}

/* Where a sentence ends at `at`, before a space. */
static bool ends_sentence(const char *text, size_t at)
{
    return (text[at] == '.' || text[at] == '!' || text[at] == '?') &&
           (isspace((unsigned char)text[at + 1]) || text[at + 1] == 0);
}

/*
 * Sentences, each on lines of its own. Line ends in `text` are those of the help and mean nothing,
 * except that an empty line begins a paragraph. The first letter becomes a capital, and where
 * `is_phrase`, a full stop ends it.
 */
static void put_text(FILE *to, const char *text, bool is_phrase)
{
    char line[512];
    size_t used = 0;
    for (size_t i = 0; text[i] != 0; i++) {
        if (text[i] == '\n' && text[i + 1] == '\n') {
            put_line(to, line, used);
            fputs(".Pp\n", to);
            used = 0;
            i++;
            continue;
        }
        bool is_space = text[i] == ' ' || text[i] == '\n';
        if (is_space && used == 0) continue;
        line[used++] = is_space ? ' ' : i == 0 ? (char)toupper((unsigned char)text[i]) : text[i];
        bool is_full = is_space && used > 70;
        if (!ends_sentence(text, i) && !is_full && used < sizeof line - 1) continue;
        put_line(to, line, is_full ? used - 1 : used);
        used = 0;
    }
    size_t bytes = strlen(text);
    if (is_phrase && bytes > 0 && strchr(".!?", text[bytes - 1]) == NULL && used < sizeof line)
        line[used++] = '.';
    if (used > 0) put_line(to, line, used);
}

static void put_lower(FILE *to, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) fputc(tolower((unsigned char)text[i]), to);
}

static void put_upper(FILE *to, const char *text)
{
    for (; *text != 0; text++) fputc(*text == ' ' ? '-' : toupper((unsigned char)*text), to);
}

/* "fero-bench-speed" of "bench speed". */
static void put_page_name(FILE *to, const struct command *command)
{
    fputs("fero-", to);
    for (const char *at = command->name; *at != 0; at++) fputc(*at == ' ' ? '-' : *at, to);
}

/* ------------------------------------------------------------------------------------- parts */

/* "NAME [KEY]": each word an argument, in brackets where it may be missing. */
static void put_arguments(FILE *to, const char *arguments)
{
    while (*arguments != 0) {
        size_t bytes = strcspn(arguments, " ");
        bool is_optional = arguments[0] == '[';
        size_t skip = is_optional ? 1 : 0;
        size_t word = bytes - skip - (is_optional && arguments[bytes - 1] == ']' ? 1 : 0);
        fputs(is_optional ? ".Op Ar " : ".Ar ", to);
        put_lower(to, arguments + skip, word);
        fputc('\n', to);
        arguments += bytes;
        while (*arguments == ' ') arguments++;
    }
}

static void put_option(FILE *to, const struct option_spec *option)
{
    fputs(".It ", to);
    if (option->letter != 0) fprintf(to, "Fl %c , ", option->letter);
    fprintf(to, "Fl -%s", option->name);
    if (option->shows != NULL) {
        fputs(" Ar \"", to);
        put_lower(to, option->shows, strlen(option->shows));
        fputc('"', to);
    }
    fputc('\n', to);
    put_text(to, option->manual != NULL ? option->manual : option->help, true);
}

static void put_examples(FILE *to, const struct command *command)
{
    fputs(".Sh EXAMPLES\n.Bd -literal\n", to);
    for (size_t i = 0; i < COMMAND_EXAMPLES; i++)
        if (command->examples[i] != NULL)
            put_line(to, command->examples[i], strlen(command->examples[i]));
    fputs(".Ed\n", to);
}

void manual_print(FILE *to, const struct command *command)
{
    fputs(".\\\" Made from the table of commands by \"fero help --man\".\n.Dd @DATE@\n.Dt FERO-",
          to);
    put_upper(to, command->name);
    fprintf(to, " 1\n.Os fero %s\n.Sh NAME\n.Nm ", FERO_VERSION);
    put_page_name(to, command);
    fprintf(to, "\n.Nd %s\n.Sh SYNOPSIS\n.Nm fero %s\n", command->summary, command->name);
    put_arguments(to, command->arguments);
    fputs(".Op Ar options\n.Sh DESCRIPTION\n", to);
    put_text(to, command->summary, true);
    if (command->details != NULL) {
        fputs(".Pp\n", to);
        put_text(to, command->details, true);
    }
    fputs(".Sh OPTIONS\n.Bl -tag -width Ds\n", to);
    for (size_t i = 0; i < command->options_count; i++) put_option(to, &command->options[i]);
    fputs(".It Fl h , Fl -help\nPrint a summary, and end.\n.El\n", to);
    fputs(".Sh ENVIRONMENT\n"
          "An option may be given by a variable: FERO_ and its name in capitals, with underscores\n"
          "for dots and dashes.\nThe command line is stronger.\n"
          ".Sh EXIT STATUS\nSee\n.Xr fero 1 .\n",
          to);
    put_examples(to, command);
    fputs(".Sh SEE ALSO\n.Xr fero 1\n", to);
}
