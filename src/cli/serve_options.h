/*
 * The options of `fero serve`: what they are called and may be, and what they mean to the library.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cli/command.h"
#include "cli/service.h"
#include "fero.h"

struct serve_options {
    int64_t shards;
    const char *cpus;
    const char *listen;
    const char *token_file;
    bool insecure;
    const char *ports;
    bool busy_poll;
    bool idle;
    int32_t io;
    const char *io_features;
    int64_t memory_max_bytes;
    int64_t history_max_bytes;
    int64_t history_max_records;
    int64_t outbox_max_bytes;
    int64_t key_max_bytes;
    int64_t value_max_bytes;
    int64_t connections_max;
    int64_t window_requests;
    int64_t window_bytes;
    int64_t errors_max;
    int64_t lane_bytes;
    int64_t streams_max;
    int64_t streams_lent_max_bytes;
    int64_t handshake_ms;
    int64_t half_open_max;
    int64_t half_open_source_max;
    int64_t progress_ms;
    int64_t progress_bytes;
    int64_t deferred_max;
    int64_t threads_max;
    int64_t links_bytes;
    int32_t log_level;
    bool print_config;
    bool json;
    const char *handler;
    struct service service; /* what `handler` names */
};

#define SERVE_SPECS_COUNT 34
extern const struct option_spec serve_specs[SERVE_SPECS_COUNT];

/*
 * Fills in what the library takes. Returns COMMAND_GO_ON, or an exit status after one line that says
 * which option is wrong, or which two exclude each other.
 */
int serve_options_read(const struct command *command, const struct serve_options *options,
                       fero_runtime_opts *opts);
