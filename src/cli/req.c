#include <signal.h>
#include <string.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/nearest.h"
#include "cli/output.h"
#include "cli/value.h"

struct req_options {
    struct client_options client;
    int32_t type;
    int64_t count;
};

/* What is printed as it comes. */
struct printing {
    bool json;
    int64_t left; /* parts still to be printed; 0: all */
    bool is_full; /* as many as were asked for */
    bool is_over;
    int32_t error;
    bool has_text; /* with `error`: the node, or the handler, says why */
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

static const struct option_spec req_specs[] = {
    {.name = "type",
     .letter = 't',
     .kind = OPTION_CHOICE,
     .offset = offsetof(struct req_options, type),
     .shows = VALUE_AS_TEXT,
     .help = "send the body as this",
     .choices = value_as_names},
    {.name = "count",
     .kind = OPTION_NUMBER,
     .offset = offsetof(struct req_options, count),
     .shows = "N",
     .low = 1,
     .high = 1000000000,
     .help = "stop a stream after so many parts (all)"},
    CLIENT_OPTION_SPECS(struct req_options, client),
};

/* What every node of `fero serve` handles; all but the first have calls of their own. */
static const char *const verbs[] = {"ECHO", "UPDATE", "REMOVE", "GET", "ADD", "PUSH", "PATCH"};

static int send_request(fero_cache *cache, const char *verb, fero_slice key, const fero_val *body,
                        const fero_wopts *wopts, fero_op **op)
{
    if (strcmp(verb, "UPDATE") == 0) return fero_update(cache, key, body, wopts, op);
    if (strcmp(verb, "REMOVE") == 0) return fero_remove(cache, key, wopts, op);
    if (strcmp(verb, "ADD") == 0) return fero_add(cache, key, body, wopts, op);
    if (strcmp(verb, "PUSH") == 0) return fero_push(cache, key, body, wopts, op);
    if (strcmp(verb, "PATCH") == 0)
        return fero_patch(cache, key, body != NULL ? body->s : (fero_slice){0}, wopts, op);
    if (strcmp(verb, "GET") == 0) return fero_get(cache, key, wopts, op);
    return fero_send(cache, fero_str(verb), key, body, wopts, op);
}

static void complain_of_verb(const struct command *command, const char *name, const char *verb)
{
    struct nearest nearest = {.wanted = verb};
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) nearest_offer(&nearest, verbs[i]);
    complain(command, "\"%s\" in %s: %s; did you mean %s?", verb, name, fero_errmsg(),
             nearest.best);
}

static void print_result(const fero_result *result, bool json)
{
    /* The end of a stream without a value is no part of it. */
    if (!json) {
        /* A reply without a value is silence, not a word. */
        if (result->value.type != FERO_T_UNDEFINED) value_put_plain(stdout, &result->value);
        return;
    }
    printf("{\"type\":\"%s\",\"value\":", value_type_name(result->value.type));
    value_put_json(stdout, &result->value);
    printf(",\"offset\":%llu}\n", (unsigned long long)result->offset);
}

/* A fero_done_fn: each part, and the end. */
static void on_part(const fero_result *result, void *ud)
{
    struct printing *printing = ud;
    bool is_part = (result->flags & FERO_R_MORE) != 0;
    if (!is_part) {
        printing->is_over = true;
        printing->error = result->outcome != FERO_OUTCOME_OK ? result->error : 0;
        printing->has_text = result->value.type == FERO_T_STRING && result->value.s.len > 0;
    }
    if ((!is_part && printing->error != 0) || printing->is_full) return;
    print_result(result, printing->json);
    if (is_part) fflush(stdout);
    if (printing->left > 0 && --printing->left == 0) printing->is_full = true;
}

/* Runs until the request has ended, and stops it when that is asked for. */
static int print_parts(struct client *client, fero_op *op, struct printing *printing)
{
    bool is_stopped = false;
    int err = 0;
    while (err >= 0 && !printing->is_over) {
        bool wants_end = interrupted != 0 || printing->is_full;
        if (wants_end && !is_stopped) is_stopped = fero_op_cancel(op) == 0;
        err = fero_run(client->runtime, 50);
    }
    if (err < 0) return err;
    return is_stopped && printing->error == FERO_E_STOPPED ? 0 : printing->error;
}

static int ask(const struct command *command, const struct req_options *options, char **argv,
               fero_slice key, const fero_val *body)
{
    struct client client;
    int status = cli_open(&client, command, &options->client, argv[0]);
    if (status != STATUS_OK) return status;
    fero_op *op = NULL;
    fero_result result = {0};
    struct printing printing = {.json = options->client.json, .left = options->count};
    fero_wopts wopts = client_wopts(&client);
    wopts.want = FERO_STREAM;
    wopts.done = on_part;
    wopts.ud = &printing;
    signal(SIGINT, on_interrupt);
    int err = send_request(client.cache, argv[1], key, body, &wopts, &op);
    if (err == 0) err = print_parts(&client, op, &printing);
    if (err < 0 && printing.is_over) fero_wait(op, 0, &result); /* sets fero_errmsg */
    if (err == FERO_E_UNSUPPORTED) {
        complain_of_verb(command, argv[0], argv[1]);
        status = STATUS_REFUSED;
    } else if (err == FERO_E_NOTFOUND) {
        complain(command, "%s of \"%s\" in %s: %s", argv[1], (const char *)key.ptr, argv[0],
                 fero_errmsg());
        status = STATUS_NOT_FOUND;
    } else if (err < 0 && printing.is_over && printing.has_text) {
        complain(command, "%s", fero_errmsg());
        status = client_status(err);
    } else if (err < 0) {
        status = client_complain(&client, err);
    }
    if (op != NULL) fero_op_free(op);
    cli_close(&client);
    return status;
}

static int run_req(const struct command *command, int argc, char **argv)
{
    struct req_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    struct input input = {NULL, NULL};
    fero_val body = {.type = FERO_T_UNDEFINED};
    if (count > 3)
        status = input_read(&input, command, argv[3], (enum value_as)options.type, &body);
    if (count <= 3 || status == STATUS_OK)
        status = ask(command, &options, argv, fero_str(count > 2 ? argv[2] : ""), &body);
    input_free(&input);
    return status;
}

const struct command command_req = {
    .name = "req",
    .arguments = "NAME VERB [KEY] [BODY]",
    .summary = "send a request to the handler of a verb and print its reply",
    .details =
        "BODY is read as the value of \"fero set\" is; an empty KEY lets any shard handle it.",
    .options = req_specs,
    .options_count = sizeof req_specs / sizeof req_specs[0],
    .arguments_min = 2,
    .arguments_max = 4,
    .examples = {"fero req demo ECHO '' hello", "fero req demo UPDATE 28 david --json",
                 "fero req demo ECHO 28 - --timeout 500 < letter.txt"},
    .run = run_req,
};
