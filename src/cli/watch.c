/*
 * The changes of a cache as they come (watch), and those of one partition that are still kept (log).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/live.h"
#include "cli/number.h"
#include "cli/output.h"
#include "cli/value.h"

struct watch_options {
    struct client_options client;
    const char *from;
    int64_t count;
};

struct watch {
    struct live live;
    const struct watch_options *options;
    bool is_log;
    uint64_t offset_min;
    uint64_t printed;
    uint64_t offset_from; /* of --from; 0: no offset */
    int status;
};

/* clang-format off */
#define FIELD(name) .offset = offsetof(struct watch_options, name)
static const struct option_spec watch_specs[] = {
    {.name = "from", .kind = OPTION_TEXT, FIELD(from), .shows = "start|now|OFFSET",
     .help = "where to begin; an offset is one partition's (now)"},
    {.name = "count", .letter = 'n', .kind = OPTION_NUMBER, FIELD(count), .shows = "N", .low = 1,
     .high = INT64_MAX, .help = "end after so many changes"},
    CLIENT_OPTION_SPECS(struct watch_options, client),
};
static const struct option_spec log_specs[] = {
    {.name = "from", .kind = OPTION_TEXT, FIELD(from), .shows = "OFFSET",
     .help = "the first offset to print (the oldest that is kept)"},
    {.name = "limit", .letter = 'n', .kind = OPTION_NUMBER, FIELD(count), .shows = "N", .low = 1,
     .high = INT64_MAX, .help = "print so many at most"},
    CLIENT_OPTION_SPECS(struct watch_options, client),
};
/* clang-format on */

/* --------------------------------------------------------------------------------- printing */

static const char *type_name(int32_t type)
{
    switch (type) {
    case FERO_CHANGE_UPDATE: return "update";
    case FERO_CHANGE_REMOVE: return "remove";
    default: return "add";
    }
}

/* As ISO 8601 writes it, in UTC. */
static void put_time(FILE *to, int64_t time_ms)
{
    time_t seconds = (time_t)(time_ms / 1000);
    struct tm parts;
    char text[32];
    if (gmtime_r(&seconds, &parts) == NULL) return;
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    fprintf(to, "%s.%03dZ", text, (int)(time_ms % 1000));
}

static void put_json(const fero_change *change)
{
    printf("{\"type\":\"%s\",\"key\":", type_name(change->type));
    json_put_string(stdout, change->key.ptr, change->key.len);
    printf(",\"offset\":%" PRIu64 ",\"time\":\"", change->offset);
    put_time(stdout, change->time_ms);
    printf("\",\"shard\":%d", change->shard);
    if (change->type != FERO_CHANGE_REMOVE) {
        printf(",\"value_type\":\"%s\",\"value\":", value_type_name(change->value.type));
        value_put_json(stdout, &change->value);
    }
    printf("}\n");
}

/* What a terminal would obey stays out of it: one line a change, whatever is in it. */
static void put_text(const void *text, size_t bytes)
{
    const unsigned char *at = text;
    while (bytes > 0) {
        size_t length = utf8_length(at, bytes);
        bool is_shown = length > 1 || (length == 1 && *at >= 0x20 && *at != 0x7f);
        if (length == 0) length = 1;
        if (is_shown)
            fwrite(at, 1, length, stdout);
        else
            printf("\\x%02x", *at);
        at += length;
        bytes -= length;
    }
}

static void put_value(const fero_val *value)
{
    if (value->type == FERO_T_STRING || value->type == FERO_T_JSON || value->type == FERO_T_BYTES) {
        put_text(value->s.ptr, value->s.len);
        printf("\n");
    } else {
        value_put_plain(stdout, value);
    }
}

static void put_plain(const struct watch *watch, const fero_change *change)
{
    if (watch->is_log) {
        printf("%-8" PRIu64 " ", change->offset);
        put_time(stdout, change->time_ms);
        printf(" %s ", type_name(change->type));
    }
    put_text(change->key.ptr, change->key.len);
    if (change->type == FERO_CHANGE_REMOVE) {
        printf(watch->is_log ? "\n" : " removed\n");
        return;
    }
    printf(" = ");
    put_value(&change->value);
}

/* -------------------------------------------------------------------------------- callbacks */

static void on_change(const fero_change *change, void *ud)
{
    struct watch *watch = ud;
    if (watch->live.is_done || change->offset < watch->offset_min) return;
    if (watch->options->client.json)
        put_json(change);
    else
        put_plain(watch, change);
    watch->printed++;
    if (watch->options->count > 0 && watch->printed >= (uint64_t)watch->options->count)
        watch->live.is_done = true;
}

/* Who asked for what is to come would else look at nothing, and not know why. */
static void complain_of_waiting(struct watch *watch)
{
    if (watch->offset_from == 0 || watch->printed > 0) return;
    complain(watch->live.client.command,
             "no change from offset %" PRIu64 " on is there yet: waiting for it",
             watch->offset_from);
    watch->offset_from = 0;
}

/* Of a log, what is printed is all that is kept, unless it went away while it was read. */
static void complain_of_log(const struct watch *watch, const fero_stream_event *event)
{
    if (event->type == FERO_STREAM_GAP || event->type == FERO_STREAM_TRIMMED)
        complain(watch->live.client.command,
                 "older changes were dropped while they were read: the newest follow; "
                 "--partitions.history.max of fero serve keeps more");
    else
        live_complain(&watch->live, event);
}

/* In JSON, whoever keeps a state by it needs every event; a person needs those that surprise. */
static void on_event(const fero_stream_event *event, void *ud)
{
    struct watch *watch = ud;
    bool is_surprise = event->type != FERO_STREAM_STARTED && event->type != FERO_STREAM_LIVE &&
                       event->type != FERO_STREAM_ENDED;
    if (event->type == FERO_STREAM_ENDED && event->error != 0) {
        watch->status = STATUS_REFUSED;
        live_complain(&watch->live, event);
    }
    if (event->type == FERO_STREAM_ENDED && event->is_all) watch->live.is_done = true;
    if (event->type == FERO_STREAM_LIVE) complain_of_waiting(watch);
    if (watch->is_log && is_surprise)
        complain_of_log(watch, event);
    else if (!watch->options->client.json && is_surprise)
        live_complain(&watch->live, event);
    else if (watch->options->client.json && !watch->is_log)
        printf("{\"event\":\"%s\",\"shard\":%d}\n", live_event_name(event->type), event->shard);
}

/* ---------------------------------------------------------------------------------- options */

/* "start", "now" or an offset; false after a line. */
static bool take_from(const struct command *command, const char *text, fero_stream_opts *opts)
{
    int64_t offset;
    opts->from = FERO_FROM_NOW;
    if (text == NULL || strcmp(text, "now") == 0) return true;
    if (strcmp(text, "start") == 0) {
        opts->from = FERO_FROM_START;
        return true;
    }
    if (number_parse(text, &offset) < 0 || offset < 0) {
        complain(command, "--from is \"%s\", but must be start, now or an offset such as 17", text);
        return false;
    }
    if (opts->prefix.len == 0 || opts->match == FERO_MATCH_PREFIX) {
        complain(command,
                 "--from %s is an offset, which belongs to one partition: name it, as in "
                 "fero watch NAME 28 --from %s",
                 text, text);
        return false;
    }
    opts->from = FERO_FROM_OFFSET;
    opts->offset = (uint64_t)offset;
    return true;
}

/* "28" is the key and what is below it; "2*" is what begins so. */
static void take_prefix(const char *text, fero_stream_opts *opts)
{
    size_t bytes = text != NULL ? strlen(text) : 0;
    bool has_star = bytes > 0 && text[bytes - 1] == '*';
    opts->prefix = (fero_slice){text, bytes - has_star};
    opts->match = has_star ? FERO_MATCH_PREFIX : FERO_MATCH_PATH;
}

static int run_stream(struct watch *watch, const struct command *command, const char *name,
                      const fero_stream_opts *opts)
{
    int status = live_open(&watch->live, command, &watch->options->client, name);
    if (status != STATUS_OK) return status;
    int err = fero_subscribe(watch->live.client.cache, opts, &watch->live.stream);
    status = err < 0 ? client_complain(&watch->live.client, err) : live_run(&watch->live);
    live_close(&watch->live);
    return status != STATUS_OK ? status : watch->status;
}

static int run_watch(const struct command *command, int argc, char **argv)
{
    struct watch_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    struct watch watch = {.options = &options};
    fero_stream_opts opts = {
        .size = sizeof opts, .change = on_change, .event = on_event, .ud = &watch};
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    if (count > 1 && argv[1][0] == 0) {
        complain(command, "the key is empty; without one, all changes are watched");
        return STATUS_USAGE;
    }
    take_prefix(count > 1 ? argv[1] : NULL, &opts);
    if (!take_from(command, options.from, &opts)) return STATUS_USAGE;
    watch.offset_from = opts.from == FERO_FROM_OFFSET ? opts.offset : 0;
    return run_stream(&watch, command, argv[0], &opts);
}

/* Everything up to the first '.' is the partition, and what has a history. */
static int run_log(const struct command *command, int argc, char **argv)
{
    struct watch_options options = {.client = CLIENT_OPTIONS_DEFAULT};
    struct watch watch = {.options = &options, .is_log = true};
    fero_stream_opts opts = {.size = sizeof opts,
                             .from = FERO_FROM_OLDEST,
                             .until_live = 1,
                             .change = on_change,
                             .event = on_event,
                             .ud = &watch};
    int64_t offset = 0;
    int count;
    int status = command_parse(command, argc, argv, &options, &count);
    if (status != COMMAND_GO_ON) return status;
    opts.prefix = fero_str(argv[1]);
    if (opts.prefix.len == 0) {
        complain(command, "needs the name of a partition, such as 28");
        return STATUS_USAGE;
    }
    if (options.from != NULL && (number_parse(options.from, &offset) < 0 || offset < 0)) {
        complain(command, "--from is \"%s\", but must be an offset such as 17", options.from);
        return STATUS_USAGE;
    }
    watch.offset_min = (uint64_t)offset;
    status = run_stream(&watch, command, argv[0], &opts);
    if (status != STATUS_OK || watch.printed > 0) return status;
    complain(command,
             "%s keeps no changes of \"%s\"%s: fero get prints what it is, and "
             "--partitions.history.max of fero serve keeps more",
             argv[0], argv[1], options.from != NULL ? " from there on" : "");
    return STATUS_NOT_FOUND;
}

const struct command command_watch = {
    .name = "watch",
    .arguments = "NAME [KEY | PREFIX*]",
    .summary = "print changes as they come",
    .details = "A KEY stands for itself, all keys below it and those that it is inside of; PREFIX* "
               "for all\n"
               "keys that begin so. Changes of a key come in their order, and nothing is left out: "
               "where the\n"
               "node does not keep them any more, a line says so and the state follows. A lost "
               "connection is\n"
               "made again, and it goes on where it stood. With --json each line is an object, "
               "with a \"type\"\n"
               "or an \"event\".",
    .options = watch_specs,
    .options_count = sizeof watch_specs / sizeof watch_specs[0],
    .arguments_min = 1,
    .arguments_max = 2,
    .examples = {"fero watch demo", "fero watch demo 28 --from start --json",
                 "fero watch demo 'user*' --count 10"},
    .run = run_watch,
};

const struct command command_log = {
    .name = "log",
    .arguments = "NAME KEY",
    .summary = "print the changes of a key that are still kept",
    .details =
        "One line a change: offset, time, type, key and value, the oldest first. With --json\n"
        "one object a line. The node's history bounds how many are kept.",
    .options = log_specs,
    .options_count = sizeof log_specs / sizeof log_specs[0],
    .arguments_min = 2,
    .arguments_max = 2,
    .examples = {"fero log demo 28", "fero log demo 28 --from 17 --limit 10",
                 "fero log demo 28 --json"},
    .run = run_log,
};
