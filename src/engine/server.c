/*
 * A node is one runtime: this file starts its shards and stops them. The control thread (the
 * caller's) speaks to a shard through one command word and waits for its answer; everything else
 * that shards do, they do among themselves.
 */
#include "engine/server.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/ck.h"
#include "base/clock.h"
#include "base/memory.h"
#include "engine/driver.h"
#include "engine/error.h"
#include "engine/handler.h"
#include "engine/runtime.h"
#include "engine/settings.h"
#include "engine/token.h"
#include "net/choice.h"
#include "ring/slot.h"
#include "shard/mailbox.h"
#include "shard/shard.h"

/* How often the control thread looks for an answer. */
#define ANSWER_POLL_NS (100 * NS_PER_US)

/* Of the options, as settings_write writes them. */
#define OPTIONS_BYTES_MAX 2048
/* A token of so few may be found by trying. */
#define TOKEN_BYTES_FEW 16
/* Of a text about errors: the least that one and the frame around it need. */
#define ERRORS_BYTES_MIN 4096

struct server_thread {
    struct server *server;
    struct shard *shard;
    pthread_t thread;
    bool started;
    sem_t ready;   /* posted once: the shard is up, or `err` says why not */
    sem_t stopped; /* posted by the thread: it makes no turn any more */
    sem_t leave;   /* posted to the thread: no other shard will wake it again */
    int err;
    struct chosen io; /* the shard reads it */
    char reason[CHOICE_WHY_BYTES];
};

struct server {
    struct runtime_head head;
    struct settings settings;
    struct trace trace;
    struct secret *token;
    struct mailbox *mailboxes;
    struct shard *shards[SHARDS_MAX];
    struct server_thread *threads;
    uint16_t slot_owner[SLOTS_COUNT];
    struct server_cache *caches[CACHES_MAX];
    uint32_t caches_count;
    struct hosts hosts;
    struct driver driver; /* of a node without threads */
    struct address listen;
    uint16_t port_last;
    char address[ADDRESS_TEXT_BYTES];
};

static void forward_log(enum trace_level level, const char *line, void *context)
{
    const fero_runtime_opts *opts = context;
    opts->log((int32_t)level, line, opts->log_ud);
}

/* Contiguous ranges, as even as they can be. */
static void deal_slots(struct server *server)
{
    uint32_t shards = server->settings.shard.shards_count;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        server->slot_owner[slot] = (uint16_t)((uint64_t)slot * shards / SLOTS_COUNT);
}

/* ------------------------------------------------------------------------- a shard's thread */

static int listen_on_first_free(struct server *server, struct io *io)
{
    uint16_t port = address_port(&server->listen);
    int err;
    do {
        address_set_port(&server->listen, port);
        err = io_listen(io, &server->listen, NULL);
    } while (err == -EADDRINUSE && port++ < server->port_last);
    if (err < 0) return err;
    struct address real;
    err = io_listen_address(io, &real);
    if (err == 0) address_format(&real, server->address);
    return err;
}

static int thread_open(struct server_thread *thread)
{
    struct server *server = thread->server;
    struct shard *shard = thread->shard;
    uint32_t index = (uint32_t)(thread - server->threads);
    const struct cpu_list *cpus = &server->settings.cpus;
    uint16_t cpu = cpus->cpus[index % cpus->count];
    struct io *io;
    bool is_pinned = !server->settings.is_inline && cpus_pin(cpu) == 0;
    shard->cpu = is_pinned ? cpu : -1;
    const struct choice_options options = {.choice = server->settings.io,
                                           .features = server->settings.io_features,
                                           .connections_max =
                                               shard_callers_max(&server->settings.shard),
                                           .trace = &server->trace};
    int err = choice_open(&options, &io, &thread->io);
    if (err < 0) {
        snprintf(thread->reason, sizeof thread->reason, "%s", thread->io.why);
        return err;
    }
    shard->io_name = thread->io.name;
    shard->io_why = thread->io.why;
    if (index == 0)
        trace_line(&server->trace, TRACE_INFO, "io: %s, because %s", thread->io.name,
                   thread->io.why);
    err = shard_init(shard, index, io, &server->mailboxes[index], server->shards,
                     server->slot_owner, &server->settings.shard);
    if (err < 0) {
        snprintf(thread->reason, sizeof thread->reason,
                 "cannot reserve %llu bytes of address space: lower memory.max or raise ulimit -v",
                 (unsigned long long)server->settings.memory_max_bytes);
        io_destroy(io);
        return err;
    }
    if (index != 0) return 0;
    err = listen_on_first_free(server, io);
    if (err < 0) {
        char text[ADDRESS_TEXT_BYTES];
        snprintf(thread->reason, sizeof thread->reason, "cannot listen on %s: %s",
                 address_format(&server->listen, text), strerror(-err));
        shard_deinit(shard);
    }
    return err;
}

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0) {
    }
}

static void *thread_main(void *argument)
{
    struct server_thread *thread = argument;
    char name[16];
    uint32_t index = (uint32_t)(thread - thread->server->threads);
    snprintf(name, sizeof name, "fero-shard-%u", index % 1000);
    pthread_setname_np(pthread_self(), name);
    assert_context_set(name);
    clockid_t cpu_clock;
    if (pthread_getcpuclockid(pthread_self(), &cpu_clock) == 0)
        thread->shard->cpu_clock = cpu_clock;
    thread->err = thread_open(thread);
    bool up = thread->err == 0;
    sem_post(&thread->ready);
    if (!up) return NULL;
    shard_run(thread->shard);
    sem_post(&thread->stopped);
    wait_for(&thread->leave);
    shard_deinit(thread->shard); /* here: a ring belongs to the thread that made it */
    return NULL;
}

static int thread_start(struct server *server, uint32_t index)
{
    struct server_thread *thread = &server->threads[index];
    thread->server = server;
    thread->shard = server->shards[index];
    sem_init(&thread->ready, 0, 0);
    sem_init(&thread->stopped, 0, 0);
    sem_init(&thread->leave, 0, 0);
    int err = pthread_create(&thread->thread, NULL, thread_main, thread);
    if (err != 0) return -err;
    wait_for(&thread->ready);
    if (thread->err < 0) {
        pthread_join(thread->thread, NULL);
        return thread->err;
    }
    thread->started = true;
    return 0;
}

/* ------------------------------------------------------------------------ without a thread */

/* The shard begins on the calling thread, which drives it from now on. */
static int inline_start(struct server *server)
{
    struct server_thread *thread = &server->threads[0];
    thread->server = server;
    thread->shard = server->shards[0];
    server->driver = (struct driver){.shard = thread->shard, .thread = pthread_self()};
    server->hosts.driver = &server->driver;
    return thread_open(thread);
}

static int not_the_driver(const struct server *server)
{
    if (!server->settings.is_inline || driver_is_here(&server->driver)) return 0;
    return error_set(FERO_E_INVAL, "an inline server belongs to the thread that started it");
}

/* ------------------------------------------------------------------------------ commands */

static void command_post(struct shard *shard, enum shard_command command, const void *argument)
{
    shard->command_argument = argument;
    store_release_u32(&shard->command_done, 0);
    store_release_u32(&shard->command, command);
    io_wake(shard->io, NULL);
}

static int command_wait(const struct server *server, struct shard *shard)
{
    if (server->settings.is_inline) shard_take_command(shard);
    struct timespec pause = {0, ANSWER_POLL_NS};
    while (load_acquire_u32(&shard->command_done) == 0) nanosleep(&pause, NULL);
    return shard->command_result;
}

/* ------------------------------------------------------------------------- start and stop */

/* What the shards had. */
static void free_shards(struct server *server)
{
    uint32_t shards = server->settings.shard.shards_count;
    for (uint32_t i = 0; i < shards; i++) memory_put(server->shards[i]);
    memory_put(server->threads);
    if (server->mailboxes != NULL) mailboxes_deinit(server->mailboxes, shards);
    memory_put(server->mailboxes);
    memory_put(server->trace.context);
    secret_put(server->token);
}

/* The rest, which threads of the program may have looked at until now. */
static void server_free(struct hosts *hosts)
{
    struct server *server = (struct server *)((char *)hosts - offsetof(struct server, hosts));
    hosts_deinit(hosts);
    for (uint32_t i = 0; i < server->caches_count; i++)
        definition_free(&server->caches[i]->definition);
    for (uint32_t i = 0; i < server->caches_count; i++) memory_put(server->caches[i]);
    memory_put(server);
}

static int server_allocate(struct server *server, const fero_runtime_opts *opts)
{
    uint32_t shards = server->settings.shard.shards_count;
    fero_runtime_opts *copy = memory_take(sizeof *copy);
    if (copy == NULL) return -ENOMEM;
    *copy = *opts;
    server->trace = (struct trace){.function = opts->log != NULL ? forward_log : NULL,
                                   .context = copy,
                                   .level = (enum trace_level)opts->log_level};
    server->settings.shard.trace = &server->trace;
    const struct settings *settings = &server->settings;
    if (settings->connections_wanted > settings->shard.connections_max)
        trace_line(
            &server->trace, TRACE_WARN,
            "node: connections.max is %llu, but the descriptors allow %u. Type: ulimit -n %llu",
            (unsigned long long)settings->connections_wanted, settings->shard.connections_max,
            (unsigned long long)settings->connections_wanted + SETTINGS_DESCRIPTORS_SPARE);
    server->threads = memory_take(shards * sizeof *server->threads);
    if (server->threads == NULL) return -ENOMEM;
    for (uint32_t i = 0; i < shards; i++) {
        server->shards[i] = memory_take(sizeof(struct shard));
        if (server->shards[i] == NULL) return -ENOMEM;
    }
    struct mailbox *mailboxes = memory_take(shards * sizeof *mailboxes);
    if (mailboxes == NULL) return -ENOMEM;
    int err = mailboxes_init(mailboxes, shards, server->settings.shard.lane_bytes);
    if (err < 0) {
        memory_put(mailboxes);
        return err;
    }
    server->mailboxes = mailboxes;
    for (uint32_t i = 0; i < shards; i++) mailboxes[i].ports = &server->hosts.ports;
    server->hosts.mailboxes = mailboxes;
    return 0;
}

static void prepare_hosts(struct server *server)
{
    const struct settings *settings = &server->settings;
    struct hosts *hosts = &server->hosts;
    /* A thread that spins should not take the processor from the shard it waits for. */
    bool is_crowded = settings->shard.shards_count >= settings->cpus.count;
    hosts->hosts_max = settings->threads_max;
    hosts->spin_ns_max = is_crowded ? min_u64(settings->shard.spin_ns_max, SPIN_NS_CROWDED)
                                    : settings->shard.spin_ns_max;
    hosts->options = &settings->shard;
    hosts->shards = server->shards;
    hosts->slot_owner = server->slot_owner;
    hosts->free = server_free;
    hosts_init(hosts);
}

static void stop_inline(struct server *server, uint64_t drain_ns)
{
    command_post(server->shards[0], COMMAND_STOP, &drain_ns);
    while (!server->driver.is_over) driver_turn(&server->driver, TIME_NEVER);
    store_release_u32(&server->shards[0]->is_needed, 0);
    hosts_end(&server->hosts);
    shard_deinit(server->shards[0]);
}

static void stop_threads(struct server *server, uint64_t drain_ns)
{
    uint32_t shards = server->settings.shard.shards_count;
    for (uint32_t i = 0; i < shards; i++)
        if (server->threads[i].started) command_post(server->shards[i], COMMAND_STOP, &drain_ns);
    for (uint32_t i = 0; i < shards; i++)
        if (server->threads[i].started) wait_for(&server->threads[i].stopped);
    hosts_end(&server->hosts);
    /* Only now: until all have stopped, any of them may wake any other. */
    for (uint32_t i = 0; i < shards; i++)
        if (server->threads[i].started) sem_post(&server->threads[i].leave);
    for (uint32_t i = 0; i < shards; i++)
        if (server->threads[i].started) pthread_join(server->threads[i].thread, NULL);
}

static uint64_t descriptors_max(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 1024;
}

static int parse_listen(struct server *server, const fero_runtime_opts *opts)
{
    const char *text = opts->listen != NULL ? opts->listen : "127.0.0.1";
    if (address_parse(&server->listen, text, server->settings.port_first) < 0)
        return error_set(FERO_E_INVAL, "listen is \"%s\", but must be an address such as 127.0.0.1",
                         text);
    bool is_open = opts->token_file == NULL && !address_is_loopback(&server->listen);
    if (is_open && opts->insecure == 0)
        return error_set(FERO_E_DENIED,
                         "%s is not a loopback address, so others could write: give --token-file "
                         "FILE, or --insecure to let everybody in",
                         text);
    server->port_last = server->settings.port_last;
    return 0;
}

static void tell_start(const struct server *server, const fero_runtime_opts *opts)
{
    const struct trace *trace = &server->trace;
    for (uint32_t i = 0; i < server->settings.shard.shards_count; i++)
        trace_line(trace, TRACE_DEBUG, "node: shard %u runs, on cpu %d", i, server->shards[i]->cpu);
    if (server->token != NULL && server->token->bytes < TOKEN_BYTES_FEW)
        trace_line(
            trace, TRACE_WARN,
            "node: a token of %u bytes is guessed soon: openssl rand -hex 32 makes one of 64",
            server->token->bytes);
    if (opts->insecure != 0)
        trace_line(trace, TRACE_WARN, "node: whoever reaches %s may read and write everything",
                   server->address);
    trace_line(trace, TRACE_INFO,
               "node: listening on %s, with %u shards and at most %llu bytes for logs and tables",
               server->address, server->settings.shard.shards_count,
               (unsigned long long)server->settings.memory_max_bytes);
}

int server_start(const fero_runtime_opts *opts, struct server **out)
{
    struct cpu_list allowed;
    cpus_allowed(&allowed);
    struct server *server = memory_take(sizeof *server);
    if (server == NULL) return error_set(FERO_E_NOMEM, "no memory");
    server->head.kind = RUNTIME_SERVER;
    int err =
        settings_make(&server->settings, opts, machine_memory_bytes(), &allowed, descriptors_max());
    if (err == 0) err = parse_listen(server, opts);
    if (err == 0) err = token_read(opts->token_file, &server->token);
    if (err < 0) {
        memory_put(server);
        return err;
    }
    server->settings.shard.token = server->token;
    server->settings.shard.start_ns = clock_now_ns();
    deal_slots(server);
    prepare_hosts(server);
    if (server_allocate(server, opts) < 0) {
        err =
            error_set(FERO_E_NOMEM, "no memory for %u shards", server->settings.shard.shards_count);
        free_shards(server);
        hosts_leave(&server->hosts);
        return err;
    }
    for (uint32_t i = 0; i < server->settings.shard.shards_count; i++) {
        err = server->settings.is_inline ? inline_start(server) : thread_start(server, i);
        if (err == 0) continue;
        error_set(err == -EADDRINUSE ? FERO_E_EXISTS : FERO_E_SYS, "%s",
                  server->threads[i].reason[0] != 0 ? server->threads[i].reason : strerror(-err));
        stop_threads(server, SERVER_DRAIN_NS);
        free_shards(server);
        hosts_leave(&server->hosts);
        return err == -EADDRINUSE ? FERO_E_EXISTS : FERO_E_SYS;
    }
    tell_start(server, opts);
    *out = server;
    return 0;
}

int server_stop(struct server *server, uint64_t drain_ns)
{
    int err = not_the_driver(server);
    if (err < 0 || (err = hosts_close(&server->hosts)) < 0) return err;
    trace_line(&server->trace, TRACE_INFO, "node: stopping, within %llu ms",
               (unsigned long long)(drain_ns / NS_PER_MS));
    if (server->settings.is_inline)
        stop_inline(server, drain_ns);
    else
        stop_threads(server, drain_ns);
    trace_line(&server->trace, TRACE_INFO, "node: all shards have stopped");
    free_shards(server);
    hosts_leave(&server->hosts);
    return 0;
}

/*
 * Opens it on the shards that do not have it yet: all, unless memory ran out the time before. A shard
 * has the caches below its count, in order, and changes that only while it is told to open one.
 */
static int open_on_shards(struct server *server, const struct server_cache *cache)
{
    for (uint32_t i = 0; i < server->settings.shard.shards_count; i++) {
        struct shard *shard = server->shards[i];
        if (shard->caches_count > cache->definition.number) continue;
        command_post(shard, COMMAND_OPEN_CACHE, &cache->definition);
        if (command_wait(server, shard) < 0)
            return error_set(FERO_E_NOMEM, "no memory for cache %s on shard %u",
                             cache->definition.name, i);
    }
    return 0;
}

/* Makes a cache and opens it. One that is open on some shards only stays, to be opened again. */
static int open_new(struct server *server, const char *name, const fero_opts *opts)
{
    if (server->caches_count == CACHES_MAX)
        return error_set(FERO_E_NOMEM, "a node has at most %d caches", CACHES_MAX);
    struct server_cache *cache = memory_take(sizeof *cache);
    if (cache == NULL) return error_set(FERO_E_NOMEM, "no memory for cache %s", name);
    cache->head.kind = RUNTIME_SERVER;
    cache->server = server;
    cache->hosts = &server->hosts;
    int err = definition_make(&cache->definition, name, server->caches_count, opts, cache);
    if (err < 0) goto free_cache;
    err = open_on_shards(server, cache);
    if (err == 0) trace_line(&server->trace, TRACE_INFO, "node: the cache \"%s\" is open", name);
    if (err < 0 && server->shards[0]->caches_count == server->caches_count) goto free_definition;
    server->caches[server->caches_count++] = cache;
    return err;

free_definition:
    definition_free(&cache->definition);
free_cache:
    memory_put(cache);
    return err;
}

int server_open(struct server *server, const char *name, const fero_opts *opts, fero_cache **out)
{
    uint32_t count = server->caches_count;
    uint32_t i = 0;
    int err = not_the_driver(server);
    if (err < 0) return err;
    /* Only the last one may not be open everywhere, and no other can be opened before it is. */
    if (count > 0 && (err = open_on_shards(server, server->caches[count - 1])) < 0) return err;
    while (i < count && strcmp(server->caches[i]->definition.name, name) != 0) i++;
    if (i == count) err = open_new(server, name, opts);
    if (err < 0) return err;
    *out = (fero_cache *)server->caches[i];
    return 0;
}

int64_t server_info(struct server *server, char *buffer, size_t bytes)
{
    char options[OPTIONS_BYTES_MAX];
    int head = snprintf(buffer, bytes,
                        "{\"address\":\"%s\",\"memory_max_bytes\":%llu,\"options\":%s,"
                        "\"node_info\":",
                        server->address, (unsigned long long)server->settings.memory_max_bytes,
                        settings_write(&server->settings, options, sizeof options));
    size_t body = 0;
    if (head > 0 && (size_t)head + 2 < bytes)
        body = info_write(server->shards[0], buffer + head, bytes - (size_t)head - 1);
    if (body == 0)
        return error_set(FERO_E_TOOBIG, "a buffer of %zu bytes is too small for the info", bytes);
    buffer[(size_t)head + body] = '}';
    if ((size_t)head + body + 1 < bytes) buffer[(size_t)head + body + 1] = 0;
    return (int64_t)((size_t)head + body + 1);
}

int64_t server_errors(struct server *server, char *buffer, size_t bytes)
{
    if (bytes < ERRORS_BYTES_MIN)
        return error_set(FERO_E_TOOBIG, "a buffer of %zu bytes is too small for errors: give %d",
                         bytes, ERRORS_BYTES_MIN);
    return (int64_t)info_write_errors(server->shards[0], buffer, bytes);
}

const char *server_address(const struct server *server)
{
    return server->address;
}

struct hosts *server_hosts(struct server *server)
{
    return &server->hosts;
}
