/*
 * A node in the foreground. The library installs no signal handlers, so this thread blocks the two
 * that end a node before any shard thread is born, and waits for them.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/commands.h"
#include "cli/config.h"
#include "cli/json.h"
#include "cli/nearest.h"
#include "cli/number.h"
#include "cli/output.h"
#include "cli/ports.h"
#include "cli/serve_options.h"
#include "cli/service.h"
#include "cli/trace.h"
#include "fero.h"

#define CACHES_MAX 64
#define VERBS_MAX 192
/* Leaves half a second of the two that SIGTERM may take for giving memory back. */
#define DRAIN_MS 1500
#define SAME_SIGNAL_MS 300
#define IO_BYTES 512
#define INFO_BYTES ((size_t)1 << 20)

/* --------------------------------------------------------------------------------- callbacks */

static int32_t on_echo(fero_req *req, void *ud)
{
    (void)ud;
    int err = fero_reply(req, FERO_OK, &req->value);
    return err < 0 ? err : FERO_H_REPLIED;
}

/* A connection is a descriptor, and the usual soft limit allows 1,024. */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* ------------------------------------------------------------------------------------- start */

/* The exit status of a start that failed for another reason than the port. */
static int status_of_start(int err)
{
    if (err == FERO_E_INVAL) return STATUS_USAGE;
    return err == FERO_E_DENIED ? STATUS_REFUSED : STATUS_NOT_FOUND;
}

static int complain_of_start(const struct command *command, const fero_runtime_opts *opts, int err)
{
    if (err != FERO_E_EXISTS) {
        complain(command, "%s", fero_errmsg());
        return status_of_start(err);
    }
    char holder[PORT_HOLDER_BYTES];
    char stop[64] = "";
    int pid;
    port_holder(opts->port_first, holder, &pid);
    if (pid > 0) snprintf(stop, sizeof stop, "stop it with \"kill %d\", or ", pid);
    if (opts->port_first == opts->port_last)
        complain(command, "port %u is in use by %s; %stake another: --ports %u-%u",
                 opts->port_first, holder, stop, opts->port_first,
                 opts->port_first > 65435 ? 65535 : opts->port_first + 99);
    else
        complain(command, "all ports from %u to %u are in use, %u by %s; %stake others: --ports 0",
                 opts->port_first, opts->port_last, opts->port_first, holder, stop);
    return STATUS_NOT_FOUND;
}

/* The service's verbs, and ECHO where it has none and there is room. Returns their number. */
static size_t list_verbs(fero_verb verbs[VERBS_MAX], const fero_service *about)
{
    size_t count = about != NULL && about->verbs_count < VERBS_MAX ? about->verbs_count : 0;
    bool has_echo = count == VERBS_MAX;
    for (size_t i = 0; i < count; i++) {
        verbs[i] = about->verbs[i];
        if (verbs[i].name != NULL && strcmp(verbs[i].name, "ECHO") == 0) has_echo = true;
    }
    if (!has_echo) verbs[count++] = (fero_verb){.name = "ECHO", .fn = on_echo};
    return count;
}

static int open_caches(const struct command *command, const fero_service *about, fero *runtime,
                       char **names, int count)
{
    fero_verb verbs[VERBS_MAX];
    fero_opts opts = {.size = sizeof opts, .verbs = verbs};
    opts.verbs_count = list_verbs(verbs, about);
    if (about != NULL) {
        opts.handler = about->handler;
        opts.handler_ud = about->handler_ud;
    }
    for (int i = 0; i < count; i++) {
        fero_cache *cache;
        int err = fero_open(runtime, names[i], &opts, &cache);
        if (err == 0) continue;
        complain(command, "cannot open the cache \"%s\": %s", names[i], fero_errmsg());
        return err == FERO_E_INVAL ? STATUS_USAGE : STATUS_NOT_FOUND;
    }
    return COMMAND_GO_ON;
}

/* ------------------------------------------------------------------------------------- facts */

struct facts {
    const char *address;
    const char *token_file;
    char *info; /* JSON */
    size_t info_bytes;
    uint64_t shards;
    uint64_t memory_max_bytes;
    char cpus[256];
    char io[IO_BYTES];     /* "io_uring" or "epoll" */
    char io_why[IO_BYTES]; /* JSON text of the reason */
};

/* Writes the cpus of the shards, "0-3,6", in the order of the shards. */
static void write_cpus(struct facts *facts)
{
    const char *end = facts->info + facts->info_bytes;
    const char *at = facts->info;
    size_t used = 0;
    long first = -2;
    long last = -2;
    while (at != NULL && used + 32 < sizeof facts->cpus) {
        at = memmem(at, (size_t)(end - at), "\"cpu\":", 6);
        long cpu = at != NULL ? strtol(at + 6, NULL, 10) : -3;
        if (at != NULL) at += 6;
        if (cpu == last + 1 && last >= 0) {
            last = cpu;
            continue;
        }
        if (first >= 0)
            used += (size_t)snprintf(facts->cpus + used, sizeof facts->cpus - used,
                                     first == last ? "%s%ld" : "%s%ld-%ld", used > 0 ? "," : "",
                                     first, last);
        first = last = cpu;
    }
}

static bool facts_make(struct facts *facts, fero *runtime, const char *token_file)
{
    *facts = (struct facts){
        .address = fero_address(runtime), .token_file = token_file, .info = malloc(INFO_BYTES)};
    if (facts->info == NULL) return false;
    int64_t bytes = fero_info(runtime, facts->info, INFO_BYTES);
    if (bytes < 0) return false;
    facts->info_bytes = (size_t)bytes;
    facts->shards = json_sum(facts->info, facts->info_bytes, "shards_count");
    facts->memory_max_bytes = json_sum(facts->info, facts->info_bytes, "memory_max_bytes");
    write_cpus(facts);
    return json_string(facts->info, facts->info_bytes, "io", facts->io, sizeof facts->io) &&
           json_string(facts->info, facts->info_bytes, "io_why", facts->io_why,
                       sizeof facts->io_why);
}

static void print_json(const struct facts *facts, char **names, int count)
{
    printf("{\"address\":\"%s\",\"pid\":%d,\"caches\":[", facts->address, (int)getpid());
    for (int i = 0; i < count; i++) {
        if (i > 0) putchar(',');
        json_put_string(stdout, names[i], strlen(names[i]));
    }
    printf("],\"shards_count\":%llu,\"cpus\":\"%s\",\"memory_max_bytes\":%llu,\"version\":\"%s\"",
           (unsigned long long)facts->shards, facts->cpus,
           (unsigned long long)facts->memory_max_bytes, FERO_VERSION);
    printf(",\"io\":\"%s\",\"io_why\":", facts->io);
    json_put_string(stdout, facts->io_why, strlen(facts->io_why));
    printf("}\n");
}

static void print_try(const char *program, const char *what, const char *name, const char *seeds)
{
    printf("  %s %s%s%s\n", program, what, name, seeds);
}

static void print_facts(const struct facts *facts, const char *program, char **names, int count)
{
    char memory[SIZE_TEXT_BYTES];
    const char *bold = output_is_colored(stdout) ? "\033[1m" : "";
    const char *plain = bold[0] != 0 ? "\033[0m" : "";
    char seeds[512] = "";
    if (strcmp(facts->address, CLIENT_SEEDS_DEFAULT) != 0)
        snprintf(seeds, sizeof seeds, " --seeds %s", facts->address);
    printf("fero %s serves %s%s", FERO_VERSION, bold, names[0]);
    for (int i = 1; i < count; i++) printf(", %s", names[i]);
    printf("%s\n", plain);
    printf("  listening on  %s%s%s\n", bold, facts->address, plain);
    printf("  shards        %llu%s%s\n", (unsigned long long)facts->shards,
           facts->cpus[0] != 0 ? ", on the cpus " : "", facts->cpus);
    printf("  memory        at most %s for logs and tables\n",
           size_format(facts->memory_max_bytes, memory));
    printf("  io            %s, because %s\n", facts->io, facts->io_why);
    printf("\nTry, in another shell:\n");
    char set[256];
    char get[256];
    size_t used = strlen(seeds);
    if (facts->token_file != NULL)
        snprintf(seeds + used, sizeof seeds - used, " --token-file %s", facts->token_file);
    snprintf(set, sizeof set, "%s 28 david", names[0]);
    snprintf(get, sizeof get, "%s 28", names[0]);
    print_try(program, "set ", set, seeds);
    print_try(program, "get ", get, seeds);
    bool is_default = strcmp(names[0], "demo") == 0;
    print_try(program, is_default ? "bench latency" : "bench latency --name ",
              is_default ? "" : names[0], seeds);
    printf("\nCtrl-C stops it.\n");
}

/* -------------------------------------------------------------------------------------- life */

/* When the first signal came, for the handler of the second: a handler has no other way to know. */
static volatile int64_t first_signal_ms;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Ends the process without another word. Programs such as timeout and make signal both the process
 * and its group, so what follows at once is the first signal again.
 */
static void on_second_signal(int number)
{
    int saved = errno;
    if (now_ms() - first_signal_ms > SAME_SIGNAL_MS) _exit(128 + number);
    errno = saved;
}

static void wait_for_signal(void)
{
    sigset_t ends;
    int number = 0;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    while (sigwait(&ends, &number) != 0) {
    }
    first_signal_ms = now_ms();
    const struct sigaction second = {.sa_handler = on_second_signal, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &second, NULL);
    sigaction(SIGINT, &second, NULL);
    sigprocmask(SIG_UNBLOCK, &ends, NULL);
}

static int serve(const struct command *command, const struct serve_options *options, fero *runtime,
                 char **names, int count)
{
    int status = open_caches(command, options->service.about, runtime, names, count);
    if (status != COMMAND_GO_ON) return status;
    struct facts facts;
    if (!facts_make(&facts, runtime, options->token_file)) {
        complain(command, "cannot tell about the node: %s", fero_errmsg());
    } else if (options->json) {
        print_json(&facts, names, count);
    } else {
        const char *program = program_invocation_name;
        print_facts(&facts, program != NULL && program[0] != 0 ? program : "fero", names, count);
    }
    free(facts.info);
    fflush(stdout);
    if (options->insecure)
        complain(command,
                 "WARNING: --insecure: whoever reaches %s may read and write everything; "
                 "--token-file FILE closes it",
                 fero_address(runtime));

    wait_for_signal();
    if (!options->json && isatty(STDERR_FILENO) != 0)
        fprintf(stderr, "\nAnswering what was accepted; again to stop at once.\n");
    return STATUS_OK;
}

static int run_node(const struct command *command, const struct serve_options *options,
                    const fero_runtime_opts *opts, char **names, int count)
{
    fero *runtime;
    int err = fero_start(opts, &runtime);
    if (err < 0) return complain_of_start(command, opts, err);
    int status = serve(command, options, runtime, names, count);
    err = fero_stop(runtime, DRAIN_MS);
    if (err < 0) {
        complain(command, "stopped, but not cleanly: %s", fero_errmsg());
        return STATUS_NOT_FOUND;
    }
    return status;
}

/* What is given twice is a slip; the second one would be the first. */
static int check_names(const struct command *command, char **names, int count)
{
    for (int i = 1; i < count; i++) {
        for (int other = 0; other < i; other++) {
            if (strcmp(names[i], names[other]) != 0) continue;
            complain(command, "the cache \"%s\" is named twice: each has a name of its own",
                     names[i]);
            return STATUS_USAGE;
        }
    }
    return COMMAND_GO_ON;
}

static int run_serve(const struct command *command, int argc, char **argv)
{
    struct serve_options options = {.log_level = TRACE_NOT_GIVEN};
    struct option_given given[SERVE_SPECS_COUNT] = {{0}};
    int count;
    int status = command_parse_noting(command, argc, argv, &options, &count, given);
    if (status != COMMAND_GO_ON) return status;
    status = check_names(command, argv, count);
    if (status != COMMAND_GO_ON) return status;
    fero_runtime_opts opts;
    status = serve_options_read(command, &options, &opts);
    if (status != COMMAND_GO_ON) return status;
    if (options.print_config) {
        raise_descriptors();
        return config_print(command, &opts, given, options.json);
    }

    raise_descriptors();
    signal(SIGPIPE, SIG_IGN);
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);

    if (options.handler != NULL) status = service_load(&options.service, command, options.handler);
    if (options.handler != NULL && status != STATUS_OK) return status;
    status = run_node(command, &options, &opts, argv, count);
    service_unload(&options.service);
    return status;
}

const struct command command_serve = {
    .name = "serve",
    .arguments = "NAME...",
    .summary = "start a node with these caches",
    .details =
        "Runs until SIGTERM or Ctrl-C, which let it answer every request that it accepted. "
        "Options\n"
        "with a dot in their name may also be written --constants.NAME=VALUE. Every cache has\n"
        "the verb ECHO, which replies with its body.",
    .options = serve_specs,
    .options_count = SERVE_SPECS_COUNT,
    .arguments_min = 1,
    .arguments_max = CACHES_MAX,
    .examples = {"fero serve demo", "fero serve users teams --ports 7701 --shards 2 --cpus 2-3",
                 "fero serve demo --memory.max 2G --constants.partitions.history.max=64M"},
    .run = run_serve,
};
