/*
 * What commands that go on until Ctrl-C have in common: the two signals that end them, and a stream.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cli/client.h"

struct live {
    struct client client;
    fero_stream *stream;
    int signals;  /* descriptor that SIGINT and SIGTERM make readable */
    bool is_done; /* set by callbacks to end it */
};

/*
 * Connects to the cache `name` with the signals blocked from now on. Returns STATUS_OK, or the exit
 * status after one line.
 */
int live_open(struct live *live, const struct command *command,
              const struct client_options *options, const char *name);
/* Runs the client until `is_done`, a signal, or nobody reads the standard output any more. */
int live_run(struct live *live);
void live_close(struct live *live);
/* The line for an event that a person should know of; none for the others. */
void live_complain(const struct live *live, const fero_stream_event *event);
/* "started", "gap", ... */
const char *live_event_name(int32_t type);
