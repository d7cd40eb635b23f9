#include "bench/nodes.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "cli/client.h"
#include "cli/command.h"
#include "cli/json.h"
#include "fero.h"

/* A node that runs answers sooner, whatever else the machine does. */
#define REACH_MS 3000
#define READY_MS 15000
#define STOP_MS 5000
#define LINE_BYTES 4096
#define ARGUMENTS_MAX 20

/* ------------------------------------------------------------------------------------- start */

/* In the child, between fork and exec: only what is safe there. */
static _Noreturn void become_server(char **arguments, int out, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* A bench that is killed must not leave servers behind. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    if (dup2(out, STDOUT_FILENO) < 0) _exit(1);
    execv("/proc/self/exe", arguments);
    _exit(127);
}

static int spawn(struct node *node, const struct nodes_options *options, uint32_t index)
{
    static const char *const waiting[] = {NULL, "--busy-poll", "--idle"};
    char shards[16];
    char cpus[CPUS_TEXT_BYTES] = "";
    for (uint32_t i = 0; i < options->shards && i < options->plan->servers_count; i++) {
        char one[16];
        uint16_t cpu = cpus_of_server(options->plan, index * options->shards + i);
        snprintf(one, sizeof one, "%s%u", i > 0 ? "," : "", cpu);
        strncat(cpus, one, sizeof cpus - strlen(cpus) - 1);
    }
    snprintf(shards, sizeof shards, "%u", options->shards);
    const char *arguments[ARGUMENTS_MAX] = {"fero",   "serve",    options->name, "--ports", "0",
                                            "--json", "--shards", shards,        "--cpus",  cpus};
    uint32_t count = 10;
    if (options->waiting != NODES_ADAPTIVE) arguments[count++] = waiting[options->waiting];
    if (options->io != FERO_IO_AUTO) {
        arguments[count++] = "--io";
        arguments[count++] = client_io_names[options->io];
    }
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) become_server((char **)(uintptr_t)arguments, ends[1], parent);
    int err = pid < 0 ? -errno : 0;
    close(ends[1]);
    if (err < 0) {
        close(ends[0]);
        return err;
    }
    node->pid = pid;
    node->out = ends[0];
    return 0;
}

/* Reads the line that a server prints when it is ready; false: it died or takes too long. */
static bool read_ready(struct node *node, uint64_t deadline_ns)
{
    char line[LINE_BYTES] = {0};
    size_t used = 0;
    while (used < sizeof line && memchr(line, '\n', used) == NULL) {
        struct pollfd wait = {.fd = node->out, .events = POLLIN};
        uint64_t now_ns = clock_now_ns();
        if (now_ns >= deadline_ns) return false;
        int ready = poll(&wait, 1, (int)((deadline_ns - now_ns) / NS_PER_MS + 1));
        if (ready < 0 && errno != EINTR) return false;
        if (ready <= 0) continue;
        ssize_t bytes = read(node->out, line + used, sizeof line - used);
        if (bytes <= 0) return false;
        used += (size_t)bytes;
    }
    return json_string(line, used, "address", node->address, sizeof node->address);
}

int nodes_start(struct nodes *nodes, const struct nodes_options *options)
{
    ASSERT(options->count > 0);
    ASSERT(options->count <= NODES_MAX);
    *nodes = (struct nodes){.bench = options->bench, .io = options->io};
    uint64_t begin_ns = clock_now_ns();
    /* It is meant for nodes that run already. */
    unsetenv("FERO_TOKEN_FILE");
    for (uint32_t i = 0; i < options->count; i++) {
        int err = spawn(&nodes->list[i], options, i);
        if (err < 0) {
            fprintf(stderr, "fero %s: cannot start a server: %s\n", options->bench, strerror(-err));
            nodes_stop(nodes);
            return 1;
        }
        nodes->count++;
    }
    for (uint32_t i = 0; i < nodes->count; i++) {
        if (read_ready(&nodes->list[i], begin_ns + READY_MS * NS_PER_MS)) continue;
        fprintf(stderr,
                "fero %s: server %u did not start; \"fero serve %s --ports 0\" may say why\n",
                options->bench, i + 1, options->name);
        nodes_stop(nodes);
        return 1;
    }
    nodes->stable_ms = (double)(clock_now_ns() - begin_ns) / (double)NS_PER_MS;
    return 0;
}

int nodes_try(const char *address, const char *token_file, const char *name, int64_t timeout_ms,
              int32_t io)
{
    const char *seeds[] = {address, NULL};
    fero_runtime_opts runtime_opts = {.size = sizeof runtime_opts,
                                      .client = 1,
                                      .seeds = seeds,
                                      .idle = FERO_IDLE_SLEEP,
                                      .io = io,
                                      .token_file = token_file};
    fero_opts opts = {.size = sizeof opts, .timeout_ms = timeout_ms};
    fero *runtime;
    fero_cache *cache;
    int err = fero_start(&runtime_opts, &runtime);
    if (err < 0) return err;
    err = fero_open(runtime, name, &opts, &cache);
    if (err == 0) fero_close(cache);
    fero_stop(runtime, 0);
    return err;
}

/* The first one that does not answer ends it. */
static int try_all(const struct nodes *nodes, const char *name)
{
    for (uint32_t i = 0; i < nodes->count; i++) {
        int err = nodes_try(nodes->list[i].address, nodes->token_file, name, REACH_MS, nodes->io);
        if (err == 0) continue;
        fprintf(stderr, "fero %s: cannot connect: %s\n", nodes->bench, fero_errmsg());
        if (err == FERO_E_DENIED) return STATUS_REFUSED;
        if (err == FERO_E_NOTFOUND || err == FERO_E_SYS) return STATUS_NOT_FOUND;
        return err == FERO_E_INVAL ? STATUS_USAGE : STATUS_NOT_CONNECTED;
    }
    return 0;
}

int nodes_use(struct nodes *nodes, const char *bench, const char *seeds, const char *token_file,
              const char *name, int32_t io)
{
    *nodes = (struct nodes){.bench = bench, .token_file = token_file, .io = io};
    for (const char *at = seeds; *at != 0;) {
        size_t bytes = strcspn(at, ",");
        if (nodes->count == NODES_MAX || bytes == 0 || bytes >= NODE_ADDRESS_BYTES) {
            fprintf(stderr, "fero %s: --seeds takes 1 to %d addresses HOST:PORT, not \"%s\"\n",
                    bench, NODES_MAX, seeds);
            return STATUS_USAGE;
        }
        struct node *node = &nodes->list[nodes->count++];
        memcpy(node->address, at, bytes);
        node->address[bytes] = 0;
        at += bytes;
        if (*at == ',') at++;
    }
    return try_all(nodes, name);
}

/* -------------------------------------------------------------------------------------- stop */

/* Waits for its end until `deadline_ns`; then there is no more waiting. */
static void reap(struct node *node, uint64_t deadline_ns)
{
    while (waitpid(node->pid, NULL, WNOHANG) == 0) {
        /* Its end of the pipe closes when it exits. */
        struct pollfd wait = {.fd = node->out, .events = POLLIN};
        poll(&wait, 1, 10);
        if (clock_now_ns() >= deadline_ns) kill(node->pid, SIGKILL);
    }
    close(node->out);
    node->pid = 0;
}

void nodes_stop(struct nodes *nodes)
{
    uint64_t deadline_ns = clock_now_ns() + STOP_MS * NS_PER_MS;
    for (uint32_t i = 0; i < nodes->count; i++)
        if (nodes->list[i].pid > 0) kill(nodes->list[i].pid, SIGTERM);
    for (uint32_t i = 0; i < nodes->count; i++)
        if (nodes->list[i].pid > 0) reap(&nodes->list[i], deadline_ns);
    nodes->count = 0;
}

static void signal_all(const struct nodes *nodes, int number)
{
    for (uint32_t i = 0; i < nodes->count; i++)
        if (nodes->list[i].pid > 0) kill(nodes->list[i].pid, number);
}

void nodes_pause(const struct nodes *nodes)
{
    signal_all(nodes, SIGSTOP);
}

void nodes_resume(const struct nodes *nodes)
{
    signal_all(nodes, SIGCONT);
}

/* ------------------------------------------------------------------------------------- facts */

/* The first number of schedstat is the time on a processor, in nanoseconds. */
static uint64_t process_cpu_ns(pid_t pid)
{
    char path[64];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *folder = opendir(path);
    if (folder == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char file_path[400];
        unsigned long long ns = 0;
        if (entry->d_name[0] == '.') continue;
        snprintf(file_path, sizeof file_path, "%s/%s/schedstat", path, entry->d_name);
        FILE *file = fopen(file_path, "re");
        if (file == NULL) continue;
        if (fscanf(file, "%llu", &ns) == 1) sum += ns;
        fclose(file);
    }
    closedir(folder);
    return sum;
}

uint64_t nodes_cpu_ns(const struct nodes *nodes)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < nodes->count; i++)
        if (nodes->list[i].pid > 0) sum += process_cpu_ns(nodes->list[i].pid);
    return sum;
}

uint64_t process_resident_bytes(pid_t pid)
{
    char path[64];
    unsigned long long pages[2] = {0};
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) return 0;
    int read = fscanf(file, "%llu %llu", &pages[0], &pages[1]);
    fclose(file);
    return read == 2 ? pages[1] * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

uint64_t nodes_resident_bytes(const struct nodes *nodes)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < nodes->count; i++)
        if (nodes->list[i].pid > 0) sum += process_resident_bytes(nodes->list[i].pid);
    return sum;
}

bool nodes_is_listening(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    char host[NODE_ADDRESS_BYTES];
    const char *colon = strrchr(address, ':');
    if (colon == NULL || (size_t)(colon - address) >= sizeof host) return false;
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = 0;
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1) return false;
    to.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool listening = connect(fd, (struct sockaddr *)&to, sizeof to) == 0;
    close(fd);
    return listening;
}
