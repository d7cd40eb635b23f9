#include "engine/settings.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/rng.h"
#include "engine/error.h"
#include "net/uring.h"
#include "wire/frame.h"

#define MEMORY_MIN (64 * MIB)
#define HISTORY_DEFAULT_MAX (128 * MIB)
#define GARBAGE_DEFAULT_MAX (720 * MIB)
#define LENT_DEFAULT_MAX (64 * MIB)
#define STREAMS_DEFAULT 64
#define STREAMS_HARD_MAX 65536
#define OUTBOX_DEFAULT (1 * MIB)
#define KEY_DEFAULT (1 * KIB)
#define VALUE_DEFAULT (1 * MIB)
#define WINDOW_BYTES_DEFAULT (4 * MIB)
#define LANE_DEFAULT (1 * MIB)
#define ERRORS_DEFAULT 256
#define ERRORS_MAX 65536
#define DEFERRED_DEFAULT 4096
#define DEFERRED_MAX 65536
#define THREADS_DEFAULT 64
#define CONNECTIONS_DEFAULT 65536
#define CONNECTIONS_HARD_MAX 1000000
#define SPIN_NS_DEFAULT (200 * NS_PER_US)
#define HANDSHAKE_MS_DEFAULT 2000
#define HALF_OPEN_DEFAULT 256
#define HALF_OPEN_SOURCE_DEFAULT 16
#define LINKS_PART 8
#define LINKS_MIN (64 * MIB)
#define PROGRESS_MS_DEFAULT 10000
#define PROGRESS_BYTES_DEFAULT (10 * KIB)
#define DAY_MS 86400000
/* What a request may have beside key and value. */
#define FRAME_OVERHEAD (FRAME_REQUEST_BYTES + EXTENSIONS_BYTES_MAX)

struct range {
    const char *name;
    uint64_t low;
    uint64_t high;
};

/* The option's value, or the default where it is 0; FERO_E_INVAL where it is out of its range. */
static int take(uint64_t *to, int64_t given, uint64_t fallback, const struct range *range)
{
    if (given == 0) {
        *to = fallback;
        return 0;
    }
    if (given < 0 || (uint64_t)given < range->low || (uint64_t)given > range->high)
        return error_set(FERO_E_INVAL, "%s is %lld, but must be from %llu to %llu", range->name,
                         (long long)given, (unsigned long long)range->low,
                         (unsigned long long)range->high);
    *to = (uint64_t)given;
    return 0;
}

static int take_memory(struct settings *settings, const fero_runtime_opts *opts,
                       uint64_t machine_bytes)
{
    struct shard_options *shard = &settings->shard;
    uint64_t shards = shard->shards_count;
    uint64_t cap = max_u64(machine_bytes / 10 * 8, MEMORY_MIN * shards);
    int err = take(&settings->memory_max_bytes, opts->memory_max_bytes, cap,
                   &(struct range){"memory.max", MEMORY_MIN * shards, (uint64_t)1 << 46});
    if (err < 0) return err;
    cap = settings->memory_max_bytes;
    int64_t history = opts->history_max_bytes;
    if (history == FERO_OFF) history = 1; /* the segment that is written to is kept in any case */
    if (history == INT64_MAX) history = (int64_t)cap;
    err = take(&settings->history_max_bytes, history, min_u64(cap / 10, HISTORY_DEFAULT_MAX),
               &(struct range){"partitions.history.max", 1, cap});
    if (err < 0) return err;
    err = take(&shard->history_records_max, opts->history_max_records, 0,
               &(struct range){"partitions.history.max (records)", 1, UINT64_MAX / 2});
    if (err < 0) return err;
    /* A fifth of each share is left for the table, whose size follows the number of keys. */
    shard->log_bytes_max = (size_t)(cap / shards / 5 * 4);
    shard->history_bytes_max = (size_t)(settings->history_max_bytes / shards);
    if (shard->history_records_max > 0)
        shard->history_records_max = max_u64(shard->history_records_max / shards, 1);
    uint64_t lent = 0;
    if (opts->streams_lent_max_bytes != FERO_OFF &&
        (err = take(&lent, opts->streams_lent_max_bytes, min_u64(cap / 50, LENT_DEFAULT_MAX),
                    &(struct range){"streams.lent.max", 1, cap})) < 0)
        return err;
    shard->lent_bytes_max = (size_t)(lent / shards);
    shard->garbage_bytes_max = (size_t)(min_u64(cap / 10, GARBAGE_DEFAULT_MAX) / shards);
    shard->sessions_bytes_max = (size_t)max_u64(cap / 50 / shards, 4 * MIB);
    return 0;
}

static int take_sizes(struct settings *settings, const fero_runtime_opts *opts)
{
    struct shard_options *shard = &settings->shard;
    uint64_t outbox = OUTBOX_DEFAULT;
    uint64_t window_requests = 0;
    uint64_t value_max = FRAME_BYTES_MAX - FRAME_OVERHEAD - KIB;
    int err;
    if (opts->outbox_max_bytes != FERO_OFF &&
        (err = take(&outbox, opts->outbox_max_bytes, OUTBOX_DEFAULT,
                    &(struct range){"outbox.max", 4 * KIB, GIB})) < 0)
        return err;
    uint64_t key = 0;
    if ((err = take(&key, opts->key_max_bytes, KEY_DEFAULT,
                    &(struct range){"key.max", 1, FRAME_KEY_BYTES_MAX})) < 0)
        return err;
    uint64_t value = 0;
    if ((err = take(&value, opts->value_max_bytes, VALUE_DEFAULT,
                    &(struct range){"value.max", 8, value_max - key})) < 0)
        return err;
    uint64_t errors = 0;
    if (opts->errors_max != FERO_OFF &&
        (err = take(&errors, opts->errors_max, ERRORS_DEFAULT,
                    &(struct range){"errors.max", 1, ERRORS_MAX})) < 0)
        return err;
    shard->errors_max = (uint32_t)errors;
    uint64_t lane = 0;
    if ((err = take(&lane, opts->lane_bytes, LANE_DEFAULT,
                    &(struct range){"lane.bytes", 128 * KIB, GIB})) < 0)
        return err;
    if (!is_power_of_two(lane))
        return error_set(FERO_E_INVAL, "lane.bytes is %llu, but must be a power of two",
                         (unsigned long long)lane);
    if ((err = take(&window_requests, opts->window_requests, SESSION_WINDOW,
                    &(struct range){"window.requests", 1, SESSION_WINDOW})) < 0)
        return err;
    if ((err = take(&shard->window_bytes, opts->window_bytes, WINDOW_BYTES_DEFAULT,
                    &(struct range){"window.bytes", 4 * KIB, GIB})) < 0)
        return err;
    uint64_t threads = 0;
    uint64_t deferred = 0;
    if ((err = take(&deferred, opts->deferred_max, DEFERRED_DEFAULT,
                    &(struct range){"deferred.max", 1, DEFERRED_MAX})) < 0)
        return err;
    shard->deferred_max = (uint32_t)deferred;
    if (opts->threads_max != FERO_OFF &&
        (err = take(&threads, opts->threads_max, THREADS_DEFAULT,
                    &(struct range){"threads.max", 1, PORTS_MAX})) < 0)
        return err;
    settings->threads_max = (uint32_t)threads;
    uint64_t streams = 0;
    if ((err = take(&streams, opts->streams_max, STREAMS_DEFAULT,
                    &(struct range){"streams.max", 1, STREAMS_HARD_MAX})) < 0)
        return err;
    shard->subscriptions_max = (uint32_t)streams;
    shard->outbox_bytes_max = (size_t)outbox;
    shard->unbatched = opts->outbox_max_bytes == FERO_OFF;
    shard->key_bytes_max = (size_t)key;
    shard->value_bytes_max = (size_t)value;
    shard->frame_bytes_max = round_up_8(FRAME_OVERHEAD + (size_t)key + (size_t)value);
    shard->lane_bytes = (size_t)lane;
    shard->window_requests = (uint32_t)window_requests;
    shard->window_bytes = max_u64(shard->window_bytes, shard->frame_bytes_max);
    return 0;
}

static int take_connections(struct settings *settings, const fero_runtime_opts *opts,
                            uint64_t descriptors_max)
{
    struct shard_options *shard = &settings->shard;
    uint64_t wanted = 0;
    uint64_t allowed = descriptors_max > SETTINGS_DESCRIPTORS_SPARE * 2
                           ? descriptors_max - SETTINGS_DESCRIPTORS_SPARE
                           : max_u64(descriptors_max / 2, 1);
    int err = take(&wanted, opts->connections_max, min_u64(allowed, CONNECTIONS_DEFAULT),
                   &(struct range){"connections.max", 1, CONNECTIONS_HARD_MAX});
    settings->connections_wanted = wanted;
    shard->connections_max = (uint32_t)min_u64(wanted, allowed);
    return err;
}

/* Connections that have not greeted. */
static int take_half_open(struct shard_options *shard, const fero_runtime_opts *opts)
{
    uint64_t handshake_ms = 0;
    uint64_t half_open = 0;
    uint64_t source = 0;
    int64_t source_given = opts->half_open_source_max;
    int err;
    if ((err = take(&handshake_ms, opts->handshake_ms, HANDSHAKE_MS_DEFAULT,
                    &(struct range){"handshake.ms", 1, DAY_MS})) < 0 ||
        (err = take(&half_open, opts->half_open_max, HALF_OPEN_DEFAULT,
                    &(struct range){"half-open.max", 1, CONNECTIONS_HARD_MAX})) < 0)
        return err;
    if (source_given != FERO_OFF &&
        (err = take(&source, source_given, HALF_OPEN_SOURCE_DEFAULT,
                    &(struct range){"half-open.source.max", 1, CONNECTIONS_HARD_MAX})) < 0)
        return err;
    shard->greeting_ns_max = handshake_ms * NS_PER_MS;
    shard->half_open_max = (uint32_t)half_open;
    shard->half_open_source_max = (uint32_t)source;
    shard->half_open_spares_loopback = source_given == 0;
    return 0;
}

/* A link may hold two outboxes, each with a reply more and at twice its size, and a frame. */
static int take_links(struct settings *settings, const fero_runtime_opts *opts)
{
    struct shard_options *shard = &settings->shard;
    uint64_t shards = shard->shards_count;
    uint64_t most = 4 * (shard->outbox_bytes_max + shard->frame_bytes_max);
    uint64_t fallback = max_u64(settings->memory_max_bytes / LINKS_PART / shards, LINKS_MIN);
    uint64_t bytes = 0;
    int err = take(&bytes, opts->links_bytes, max_u64(fallback, 2 * most) * shards,
                   &(struct range){"links.bytes", most * shards, (uint64_t)1 << 46});
    shard->links_bytes_max = (size_t)(bytes / shards);
    return err;
}

static int take_progress(struct shard_options *shard, const fero_runtime_opts *opts)
{
    uint64_t ms = 0;
    int err = take(&shard->progress_bytes, opts->progress_bytes, PROGRESS_BYTES_DEFAULT,
                   &(struct range){"progress.bytes", 1, FRAME_BYTES_MAX});
    if (err < 0) return err;
    if (opts->progress_ms == FERO_OFF)
        shard->progress_bytes = 0;
    else
        err = take(&ms, opts->progress_ms, PROGRESS_MS_DEFAULT,
                   &(struct range){"progress.ms", 1, DAY_MS});
    shard->progress_ns = ms * NS_PER_MS;
    return err;
}

static bool is_allowed(const struct cpu_list *allowed, uint16_t cpu)
{
    for (uint32_t i = 0; i < allowed->count; i++)
        if (allowed->cpus[i] == cpu) return true;
    return false;
}

static int take_cpus(struct settings *settings, const fero_runtime_opts *opts,
                     const struct cpu_list *allowed)
{
    settings->cpus = *allowed;
    if (opts->cpus != NULL && cpus_parse(&settings->cpus, opts->cpus) < 0)
        return error_set(FERO_E_INVAL, "cpus is \"%s\", but must be a list such as 2-7,10",
                         opts->cpus);
    for (uint32_t i = 0; i < settings->cpus.count; i++)
        if (!is_allowed(allowed, settings->cpus.cpus[i]))
            return error_set(FERO_E_INVAL,
                             "cpus is \"%s\", but this process may not run on %u: see nproc and "
                             "taskset -p",
                             opts->cpus, settings->cpus.cpus[i]);
    uint64_t shards = 0;
    settings->is_inline = opts->shards == FERO_INLINE;
    int err =
        take(&shards, settings->is_inline ? 1 : opts->shards,
             min_u64(settings->cpus.count, SHARDS_MAX), &(struct range){"shards", 1, SHARDS_MAX});
    if (err < 0) return err;
    settings->shard.shards_count = (uint32_t)shards;
    settings->shard.spin_ns_max = shards > settings->cpus.count ? SPIN_NS_CROWDED : SPIN_NS_DEFAULT;
    return 0;
}

int settings_take_io(const fero_runtime_opts *opts, enum choice *io, uint32_t *features)
{
    static const enum choice choices[] = {[FERO_IO_AUTO] = CHOICE_AUTO,
                                          [FERO_IO_URING] = CHOICE_URING,
                                          [FERO_IO_EPOLL] = CHOICE_EPOLL};
    const char *unknown;
    size_t unknown_bytes;
    *features = URING_FEATURES_DEFAULT;
    if (opts->io < FERO_IO_AUTO || opts->io > FERO_IO_EPOLL)
        return error_set(FERO_E_INVAL, "io is %d, but must be from 0 to 2", opts->io);
    *io = choices[opts->io];
    if (opts->io_features == NULL) return 0;
    if (opts->io == FERO_IO_EPOLL)
        return error_set(FERO_E_INVAL,
                         "io-features is \"%s\", but io is epoll, which has none: leave one out",
                         opts->io_features);
    if (uring_features_parse(opts->io_features, features, &unknown, &unknown_bytes) < 0)
        return error_set(FERO_E_INVAL, "io-features: \"%.*s\" is not a feature; these are: %s",
                         (int)unknown_bytes, unknown, uring_feature_names());
    return 0;
}

int settings_make(struct settings *settings, const fero_runtime_opts *opts, uint64_t machine_bytes,
                  const struct cpu_list *allowed, uint64_t descriptors_max)
{
    *settings = (struct settings){0};
    int err = take_cpus(settings, opts, allowed);
    if (err < 0) return err;
    if ((err = take_memory(settings, opts, machine_bytes)) < 0) return err;
    if ((err = take_sizes(settings, opts)) < 0) return err;
    if ((err = take_connections(settings, opts, descriptors_max)) < 0) return err;
    if ((err = take_half_open(&settings->shard, opts)) < 0) return err;
    if ((err = take_links(settings, opts)) < 0) return err;
    if ((err = take_progress(&settings->shard, opts)) < 0) return err;
    if (opts->idle < FERO_IDLE_ADAPTIVE || opts->idle > FERO_IDLE_SLEEP)
        return error_set(FERO_E_INVAL, "idle is %d, but must be from 0 to 2", opts->idle);
    settings->shard.idle = (enum shard_idle)opts->idle;
    settings->port_first = opts->port_first;
    settings->port_last = opts->port_last > opts->port_first ? opts->port_last : opts->port_first;
    err = settings_take_io(opts, &settings->io, &settings->io_features);
    if (err < 0) return err;
    settings->shard.node = rng_secret_u64();
    settings->shard.cluster = rng_secret_u64();
    settings->shard.hash_seed = rng_secret_u64();
    settings->shard.view = 1;
    settings->shard.incarnation = 1;
    return 0;
}

const char *settings_write(const struct settings *settings, char *text, size_t bytes)
{
    const struct shard_options *shard = &settings->shard;
    const struct {
        const char *name;
        uint64_t value;
    } items[] = {{"shards", shard->shards_count},
                 {"memory.max", settings->memory_max_bytes},
                 {"partitions.history.max", settings->history_max_bytes},
                 {"outbox.max", shard->unbatched ? 0 : shard->outbox_bytes_max},
                 {"key.max", shard->key_bytes_max},
                 {"value.max", shard->value_bytes_max},
                 {"connections.max", shard->connections_max},
                 {"handshake.ms", shard->greeting_ns_max / NS_PER_MS},
                 {"half-open.max", shard->half_open_max},
                 {"half-open.source.max", shard->half_open_source_max},
                 {"progress.ms", shard->progress_ns / NS_PER_MS},
                 {"progress.bytes", shard->progress_bytes},
                 {"errors.max", shard->errors_max},
                 {"deferred.max", shard->deferred_max},
                 {"window.requests", shard->window_requests},
                 {"window.bytes", shard->window_bytes},
                 {"lane.bytes", shard->lane_bytes}};
    size_t used = 0;
    for (size_t i = 0; i < ARRAY_COUNT(items); i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s\"%s\":%llu", i == 0 ? "{" : ",",
                                 items[i].name, (unsigned long long)items[i].value);
    snprintf(text + used, bytes - used, "}");
    return text;
}
