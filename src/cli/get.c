#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/live.h"
#include "cli/output.h"
#include "cli/value.h"

struct get_options {
    struct client_options client;
    bool once;
};

static const struct option_spec get_specs[] = {
    {.name = "once",
     .kind = OPTION_FLAG,
     .offset = offsetof(struct get_options, once),
     .help = "print it once, also on a terminal"},
    CLIENT_OPTION_SPECS(struct get_options, client),
};

static void print_result(const char *key, const fero_result *result, bool json)
{
    if (!json) {
        value_put_plain(stdout, &result->value);
        return;
    }
    printf("{\"key\":");
    json_put_string(stdout, key, strlen(key));
    printf(",\"type\":\"%s\",\"value\":", value_type_name(result->value.type));
    value_put_json(stdout, &result->value);
    printf(",\"offset\":%llu}\n", (unsigned long long)result->offset);
}

/* ------------------------------------------------------------------- on a terminal: live */

/* The value as it is now, drawn over the one before. */
struct picture {
    struct live live;
    const char *key;
    bool is_asking;
    bool is_stale; /* it changed since it was asked for */
    unsigned rows; /* of the terminal that the last one took */
    int status;
};

static void ask(struct picture *picture);

/* Rows that `bytes` of text take where it is printed; tabs and wide characters make it a guess. */
static unsigned rows_of(const char *text, size_t bytes)
{
    struct winsize size = {0};
    size_t columns = 80;
    size_t column = 0;
    unsigned rows = 0;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) columns = size.ws_col;
    for (size_t i = 0; i < bytes; i++) {
        bool continues = ((unsigned char)text[i] & 0xc0) == 0x80;
        if (text[i] == '\n' || (column == columns && !continues)) {
            rows++;
            column = 0;
        }
        if (text[i] != '\n' && !continues) column++;
    }
    return rows;
}

/* What a terminal would obey is shown as a question mark. */
static void make_harmless(char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)text[i];
        if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f) text[i] = '?';
    }
}

static void draw(struct picture *picture, const fero_val *value)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    if (to == NULL) return;
    if (value != NULL)
        value_put_plain(to, value);
    else
        fprintf(to, "(no such key)\n");
    if (fclose(to) == 0) {
        make_harmless(text, bytes);
        if (picture->rows > 0) printf("\033[%uA\r\033[J", picture->rows);
        fwrite(text, 1, bytes, stdout);
        if (bytes > 0 && text[bytes - 1] != '\n') fputc('\n', stdout);
        picture->rows = rows_of(text, bytes) + (bytes > 0 && text[bytes - 1] != '\n');
    }
    free(text);
}

static void on_value(const fero_result *result, void *ud)
{
    struct picture *picture = ud;
    picture->is_asking = false;
    if (result->outcome == FERO_OUTCOME_OK)
        draw(picture, &result->value);
    else if (result->error == FERO_E_NOTFOUND)
        draw(picture, NULL);
    else if (result->error == FERO_E_TIMEOUT)
        picture->is_stale = true; /* the node is away, or busy */
    if (picture->is_stale) ask(picture);
}

/* One at a time: a key that changes often is drawn as often as it can be fetched. */
static void ask(struct picture *picture)
{
    if (picture->is_asking) {
        picture->is_stale = true;
        return;
    }
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY, .done = on_value, .ud = picture};
    picture->is_asking = true;
    picture->is_stale = false;
    int err = fero_get(picture->live.client.cache, fero_str(picture->key), &wopts, NULL);
    if (err < 0) picture->is_asking = false; /* the stream will begin anew, and ask again */
}

static void on_change(const fero_change *change, void *ud)
{
    (void)change;
    ask(ud);
}

static void on_event(const fero_stream_event *event, void *ud)
{
    struct picture *picture = ud;
    if (event->type == FERO_STREAM_LOST || event->type == FERO_STREAM_RESUMED ||
        event->error != 0) {
        live_complain(&picture->live, event);
        picture->rows = 0; /* the line stands below the value */
    }
    if (event->type == FERO_STREAM_LIVE || event->type == FERO_STREAM_RESUMED) ask(picture);
    if (event->type != FERO_STREAM_ENDED || !event->is_all) return;
    picture->status = STATUS_REFUSED;
    picture->live.is_done = true;
}

static int run_live(const struct command *command, const struct get_options *options, char **argv)
{
    struct picture picture = {.key = argv[1]};
    int status = live_open(&picture.live, command, &options->client, argv[0]);
    if (status != STATUS_OK) return status;
    fero_stream_opts opts = {.size = sizeof opts,
                             .prefix = fero_str(argv[1]), /* what it is inside of counts, too */
                             .from = FERO_FROM_NOW,
                             .change = on_change,
                             .event = on_event,
                             .ud = &picture};
    int err = fero_subscribe(picture.live.client.cache, &opts, &picture.live.stream);
    status = err < 0 ? client_complain(&picture.live.client, err) : live_run(&picture.live);
    live_close(&picture.live);
    return status != STATUS_OK ? status : picture.status;
}

static int run_get(const struct command *command, int argc, char **argv)
{
    struct get_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    if (isatty(STDOUT_FILENO) && !options.once && !options.client.json)
        return run_live(command, &options, argv);
    struct client client;
    status = cli_open(&client, command, &options.client, argv[0]);
    if (status != STATUS_OK) return status;

    fero_op *op = NULL;
    fero_result result;
    fero_wopts wopts = client_wopts(&client);
    int err = fero_get(client.cache, fero_str(argv[1]), &wopts, &op);
    status = client_wait(&client, err, op, &result);
    if (status == STATUS_NOT_FOUND)
        complain(command, "%s has no key \"%s\"", argv[0], argv[1]);
    else if (status == STATUS_OK)
        print_result(argv[1], &result, options.client.json);
    if (op != NULL) fero_op_free(op);
    cli_close(&client);
    return status;
}

const struct command command_get = {
    .name = "get",
    .arguments = "NAME KEY",
    .summary = "print the value of a key",
    .details =
        "KEY may lead inside of a value, as that of set. Objects and arrays are printed as JSON.\n"
        "On a terminal the value is drawn again whenever it changes, until Ctrl-C; with "
        "--once, with\n"
        "--json, or into a pipe or file it is printed once. Bytes are printed as they are, "
        "without a\n"
        "newline; with --json as hexadecimal digits.",
    .options = get_specs,
    .options_count = sizeof get_specs / sizeof get_specs[0],
    .arguments_min = 2,
    .arguments_max = 2,
    .examples = {"fero get demo 28", "fero get demo 28 --json",
                 "fero get demo logo --seeds 127.0.0.1:7701 > logo.png"},
    .run = run_get,
};
