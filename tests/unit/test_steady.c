/*
 * The steady state, counted: a node and a client, each a process of its own, exchange updates over
 * loopback, and between two points at which all is answered nobody allocates, and nobody makes a
 * system call for a message.
 *
 * This process traces both and counts every system call of every thread, so none escapes: not those
 * of liburing, and not those that an allocation inside the C library would need. Our own allocations
 * are counted where they are made, by --wrap (test_steady.mk).
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/ck.h"
#include "base/rng.h"
#include "bench/keys.h"
#include "fero.h"
#include "tests/support/io_kind.h"

/* Slower by far under a sanitizer. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MESSAGES 300000
#else
#define MESSAGES 1000000
#endif
#define WARM_UP_MESSAGES 100000
#define KEYS 20000
#define VALUE_BYTES_COUNT 92
#define STARTUP_MS 20000
/* What asking for the counters, and being looked at a moment too early or late, may cost. */
#define TOLERANCE 16
/* Far fewer than there are, far more than one. */
#define MESSAGES_PER_CALL_MIN 8

enum role { NODE, CLIENT, ROLES_COUNT, NOBODY = ROLES_COUNT };

struct counts {
    uint64_t enters;      /* of io_uring */
    uint64_t sends;       /* without it: the cheaper call where nothing else is asked for */
    uint64_t others;      /* system calls, but for reading a clock that the kernel must read */
    uint64_t last_other;  /* the number of one of them */
    uint64_t allocations; /* calls of the allocator or for pages */
};

/* Shared by the three processes. */
struct shared {
    struct counts now[ROLES_COUNT];
    struct counts window[ROLES_COUNT]; /* of the messages after the warm-up */
    /* The node's own counts. */
    uint64_t turns;
    uint64_t requests;
    uint64_t calls;
    bool untraced; /* tracing is not allowed here */
    bool measured; /* the client came to its end */
    char problem[200];
};

static struct shared *shared;
static enum role role = NOBODY;

/* ---- Allocations ----------------------------------------------------------------------------- */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
int __real_posix_memalign(void **memory, size_t alignment, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *memory, size_t bytes);
int __real_madvise(void *memory, size_t bytes, int advice);

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *memory, size_t bytes);
int __wrap_madvise(void *memory, size_t bytes, int advice);

static void count_allocation(void)
{
    if (role != NOBODY) __atomic_fetch_add(&shared->now[role].allocations, 1, __ATOMIC_RELAXED);
}

void *__wrap_malloc(size_t bytes)
{
    count_allocation();
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    count_allocation();
    return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    count_allocation();
    return __real_realloc(memory, bytes);
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    count_allocation();
    return __real_posix_memalign(memory, alignment, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    count_allocation();
    return __real_aligned_alloc(alignment, bytes);
}

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    count_allocation();
    return __real_mmap(at, bytes, protection, flags, fd, offset);
}

int __wrap_munmap(void *memory, size_t bytes)
{
    count_allocation();
    return __real_munmap(memory, bytes);
}

int __wrap_madvise(void *memory, size_t bytes, int advice)
{
    count_allocation();
    return __real_madvise(memory, bytes, advice);
}

/* ---- The node and the client ------------------------------------------------------------------ */

static _Noreturn void give_up(const char *what)
{
    snprintf(shared->problem, sizeof shared->problem, "%s: %s", what, fero_errmsg());
    _exit(1);
}

/* Lets the parent trace this process, from here on. */
static void be_traced(void)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0)
        raise(SIGSTOP);
    else
        shared->untraced = true;
}

static _Noreturn void run_node(int address_fd)
{
    role = NODE;
    be_traced();
    /* So little history that compaction runs as well. */
    fero_runtime_opts opts = {.size = sizeof opts,
                              .shards = 1,
                              .memory_max_bytes = (int64_t)GIB,
                              .history_max_bytes = 16 * (int64_t)MIB};
    fero *runtime;
    fero_cache *cache;
    if (fero_start(&opts, &runtime) < 0) give_up("start");
    if (fero_open(runtime, "steady", NULL, &cache) < 0) give_up("open");
    const char *address = fero_address(runtime);
    if (write(address_fd, address, strlen(address) + 1) < 0) give_up("write");
    for (;;) pause(); /* until it is killed */
}

static void send_updates(fero *runtime, fero_cache *cache, struct rng *rng, uint64_t count)
{
    static const uint8_t bytes[VALUE_BYTES_COUNT];
    const fero_val value = {.type = FERO_T_BYTES, .s = {bytes, sizeof bytes}};
    const fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY};
    fero_counts counts;
    for (uint64_t sent = 0; sent < count;) {
        uint64_t key = keys_spread(rng_below(rng, KEYS));
        int err = fero_update(cache, (fero_slice){&key, sizeof key}, &value, &wopts, NULL);
        if (err == 0)
            sent++;
        else if (err != FERO_E_AGAIN || fero_run(runtime, STARTUP_MS) < 0)
            give_up("update");
    }
    do {
        if (fero_run(runtime, STARTUP_MS) < 0) give_up("run");
        fero_counts_get(cache, &counts);
    } while (counts.sacks < counts.sent);
    if (counts.failed > 0) give_up("an update failed");
}

static uint64_t number_in(const char *json, const char *name)
{
    char wanted[40];
    snprintf(wanted, sizeof wanted, "\"%s\":", name);
    const char *found = strstr(json, wanted);
    if (found == NULL) give_up(name);
    return strtoull(found + strlen(wanted), NULL, 10);
}

/* Adds what the node has counted, `sign` times. */
static void ask_node(fero_cache *cache, uint64_t sign)
{
    const fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY};
    char json[4096];
    fero_op *op;
    fero_result result;
    if (fero_ask_info(cache, -1, &wopts, &op) < 0) give_up("info");
    if (fero_wait(op, STARTUP_MS, &result) < 0) give_up("info");
    size_t bytes = min_u64(result.value.s.len, sizeof json - 1);
    memcpy(json, result.value.s.ptr, bytes);
    json[bytes] = 0;
    shared->turns += sign * number_in(json, "turns");
    shared->requests += sign * number_in(json, "requests");
    shared->calls += sign * (number_in(json, "enters") + number_in(json, "direct_sends"));
    fero_op_free(op);
}

static struct counts difference(const struct counts *later, const struct counts *earlier)
{
    return (struct counts){.enters = later->enters - earlier->enters,
                           .sends = later->sends - earlier->sends,
                           .others = later->others - earlier->others,
                           .last_other = later->last_other,
                           .allocations = later->allocations - earlier->allocations};
}

static _Noreturn void run_client(int address_fd)
{
    char address[100] = "";
    role = CLIENT;
    be_traced();
    if (read(address_fd, address, sizeof address - 1) <= 0) _exit(1); /* the node says why */
    const char *seeds[] = {address, NULL};
    fero_runtime_opts opts = {.size = sizeof opts, .client = 1, .seeds = seeds};
    fero *runtime;
    fero_cache *cache;
    struct rng rng;
    struct counts before[ROLES_COUNT];
    rng_init(&rng, 1);
    if (fero_start(&opts, &runtime) < 0) give_up("client");
    if (fero_open(runtime, "steady", NULL, &cache) < 0) give_up("client open");
    send_updates(runtime, cache, &rng, WARM_UP_MESSAGES);

    ask_node(cache, -(uint64_t)1);
    memcpy(before, shared->now, sizeof before);
    send_updates(runtime, cache, &rng, MESSAGES - WARM_UP_MESSAGES);
    for (unsigned i = 0; i < ROLES_COUNT; i++)
        shared->window[i] = difference(&shared->now[i], &before[i]);
    ask_node(cache, 1);
    shared->measured = true;
    _exit(0);
}

/* ---- The tracer ------------------------------------------------------------------------------- */

#define THREADS_MAX 64
struct tracer {
    pid_t pids[ROLES_COUNT];
    pid_t threads[THREADS_MAX];
    enum role roles[THREADS_MAX];
    unsigned count;
};

static enum role role_of(const struct tracer *tracer, pid_t thread)
{
    for (unsigned i = 0; i < tracer->count; i++)
        if (tracer->threads[i] == thread) return tracer->roles[i];
    return NOBODY;
}

static void add_thread(struct tracer *tracer, pid_t thread, enum role of)
{
    ASSERT(tracer->count < THREADS_MAX);
    tracer->threads[tracer->count] = thread;
    tracer->roles[tracer->count++] = of;
}

static void count_call(enum role of, pid_t thread)
{
    struct __ptrace_syscall_info info;
    if (of == NOBODY) return;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) < 0) return;
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return;
    struct counts *counts = &shared->now[of];
    if (info.entry.nr == SYS_io_uring_enter) {
        counts->enters++;
    } else if (info.entry.nr == SYS_sendto || info.entry.nr == SYS_sendmsg) {
        counts->sends++;
    } else if (info.entry.nr != SYS_clock_gettime) {
        counts->others++;
        counts->last_other = info.entry.nr;
    }
}

/* Deals with one stop of a traced thread and lets it go on. */
static void on_stop(struct tracer *tracer, pid_t thread, int status)
{
    int signal_number = WSTOPSIG(status);
    int event = status >> 16;
    int deliver = 0;
    if (signal_number == (SIGTRAP | 0x80)) {
        count_call(role_of(tracer, thread), thread);
    } else if (event == PTRACE_EVENT_CLONE) {
        unsigned long born = 0;
        ptrace(PTRACE_GETEVENTMSG, thread, NULL, &born);
        add_thread(tracer, (pid_t)born, role_of(tracer, thread));
    } else if (signal_number == SIGSTOP) {
        /* The process's own, or its thread's first: the options are kept by later threads. */
        ptrace(PTRACE_SETOPTIONS, thread, NULL,
               PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
    } else {
        deliver = signal_number;
    }
    ptrace(PTRACE_SYSCALL, thread, NULL, deliver);
}

/* Follows both until the client has ended. */
static void trace(struct tracer *tracer)
{
    for (;;) {
        int status;
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0 && errno == EINTR) continue;
        if (thread < 0) return;
        if (WIFSTOPPED(status)) {
            on_stop(tracer, thread, status);
        } else if (thread == tracer->pids[CLIENT]) {
            return;
        } else if (thread == tracer->pids[NODE]) {
            tracer->pids[NODE] = 0; /* by itself: the client will notice */
        }
    }
}

static pid_t start(struct tracer *tracer, enum role of, int fds[2])
{
    pid_t pid = fork();
    ASSERT(pid >= 0);
    if (pid == 0) {
        close(fds[of == NODE ? 0 : 1]);
        if (of == NODE) run_node(fds[1]);
        run_client(fds[0]);
    }
    tracer->pids[of] = pid;
    add_thread(tracer, pid, of);
    return pid;
}

static int measure(void **state)
{
    (void)state;
    struct tracer tracer = {.count = 0};
    int fds[2];
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT(shared != MAP_FAILED);
    ASSERT(pipe(fds) == 0);
    start(&tracer, NODE, fds);
    start(&tracer, CLIENT, fds);
    close(fds[0]);
    close(fds[1]);
    trace(&tracer);
    if (tracer.pids[NODE] > 0) kill(tracer.pids[NODE], SIGKILL);
    /* Its threads too are this process's to wait for. */
    while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR) {
    }
    print_message("%llu requests in %llu turns\n", (unsigned long long)shared->requests,
                  (unsigned long long)shared->turns);
    if (shared->problem[0] != 0) print_message("%s\n", shared->problem);
    for (unsigned i = 0; i < ROLES_COUNT && shared->measured; i++)
        print_message("%s: %llu enters, %llu sends, %llu others, %llu allocations\n",
                      i == NODE ? "node" : "client", (unsigned long long)shared->window[i].enters,
                      (unsigned long long)shared->window[i].sends,
                      (unsigned long long)shared->window[i].others,
                      (unsigned long long)shared->window[i].allocations);
    return 0;
}

static int forget(void **state)
{
    (void)state;
    return munmap(shared, sizeof *shared);
}

/* ---- The facts -------------------------------------------------------------------------------- */

static void needs_trace(void)
{
    assert_true(shared->measured);
    if (shared->untraced) {
        print_message("processes may not be traced here\n");
        skip();
    }
}

static void every_message_of_the_window_was_processed(void **state)
{
    (void)state;
    assert_true(shared->measured);
    assert_in_range(shared->requests, MESSAGES - WARM_UP_MESSAGES, MESSAGES - WARM_UP_MESSAGES + 2);
}

static void a_message_allocates_nothing(void **state)
{
    (void)state;
    assert_true(shared->measured);
    /* Buffers are kept, but may still double to the most that a turn ever needs. */
    assert_in_range(shared->window[NODE].allocations, 0, TOLERANCE);
    assert_in_range(shared->window[CLIENT].allocations, 0, TOLERANCE);
}

/* epoll needs a call for each receive and each send. */
static void needs_uring(void)
{
    if (!io_is_uring()) skip();
}

static void a_turn_calls_the_kernel_once(void **state)
{
    (void)state;
    needs_uring();
    needs_trace();
    assert_true(shared->window[NODE].enters > 0);
    uint64_t calls = shared->window[NODE].enters + shared->window[NODE].sends;
    assert_in_range(calls, 1, shared->turns + TOLERANCE);
}

static void the_node_counts_its_calls_itself(void **state)
{
    (void)state;
    needs_uring();
    needs_trace();
    uint64_t calls = shared->window[NODE].enters + shared->window[NODE].sends;
    assert_in_range(shared->calls, calls - min_u64(calls, TOLERANCE), calls + TOLERANCE);
}

static void nothing_else_is_asked_of_the_kernel(void **state)
{
    (void)state;
    needs_uring();
    needs_trace();
    for (unsigned i = 0; i < ROLES_COUNT; i++)
        if (shared->window[i].others > TOLERANCE)
            print_message("the last one is system call %llu\n",
                          (unsigned long long)shared->window[i].last_other);
    assert_in_range(shared->window[NODE].others, 0, TOLERANCE);
    assert_in_range(shared->window[CLIENT].others, 0, TOLERANCE);
}

static void many_messages_share_a_system_call(void **state)
{
    (void)state;
    needs_trace();
    for (unsigned i = 0; i < ROLES_COUNT; i++) {
        uint64_t calls = shared->window[i].enters + shared->window[i].sends;
        assert_in_range(calls, 1, (MESSAGES - WARM_UP_MESSAGES) / MESSAGES_PER_CALL_MIN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_of_the_window_was_processed),
        cmocka_unit_test(a_message_allocates_nothing),
        cmocka_unit_test(a_turn_calls_the_kernel_once),
        cmocka_unit_test(the_node_counts_its_calls_itself),
        cmocka_unit_test(nothing_else_is_asked_of_the_kernel),
        cmocka_unit_test(many_messages_share_a_system_call),
    };
    return cmocka_run_group_tests(tests, measure, forget);
}
