/*
 * From the options that the caller gave to the numbers that a node runs with: defaults, ranges, and
 * what this machine has. Pure, but for reading the machine.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "fero.h"
#include "net/choice.h"
#include "shard/shard.h"

/* Of adaptive waiting where there are more threads than processors. */
#define SPIN_NS_CROWDED (5 * NS_PER_US)
/* Descriptors that are not connections: rings, events, files, and the host program's. */
#define SETTINGS_DESCRIPTORS_SPARE 256

struct settings {
    struct shard_options shard; /* per shard */
    struct cpu_list cpus;       /* one for each shard, or fewer shared by several */
    uint64_t memory_max_bytes;
    uint64_t history_max_bytes;
    uint64_t connections_wanted; /* more than shard.connections_max: descriptors allow that only */
    uint16_t port_first;
    uint16_t port_last;
    enum choice io;
    uint32_t io_features;
    bool is_inline;       /* no threads: the program's loop drives the one shard */
    uint32_t threads_max; /* of the program, that may make requests */
};

/*
 * Fills `settings`. `machine_bytes` is the memory of the machine or its control group, `allowed`
 * the cpus that this process may use. FERO_E_INVAL with fero_errmsg naming option, value and range.
 */
MUST_CHECK int settings_make(struct settings *settings, const fero_runtime_opts *opts,
                             uint64_t machine_bytes, const struct cpu_list *allowed,
                             uint64_t descriptors_max);
/* The io that a server or a client asks for. FERO_E_INVAL likewise. */
MUST_CHECK int settings_take_io(const fero_runtime_opts *opts, enum choice *io, uint32_t *features);
/*
 * Writes what came of the options as a JSON object, each under the name that the command line has for
 * it, and returns `text`. Who adds an option adds it here, for `fero serve --print-config`.
 */
const char *settings_write(const struct settings *settings, char *text, size_t bytes);
