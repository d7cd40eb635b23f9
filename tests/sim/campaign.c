#include "tests/sim/campaign.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"

#define WORKERS_MAX 64
/* Of the machine's time, for one seed: an endless loop, else. Sanitizers are slow. */
#define SEED_SECONDS_MAX 120

/* A seed in a process of its own. */
struct worker {
    pid_t pid; /* 0: none */
    int pipe;
    uint64_t seed;
    bool is_second;
    uint64_t first_hash; /* of the first run of a second one */
};

static double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static _Noreturn void run_here(const struct scenario_options *options, bool is_quiet, int pipe)
{
    /* The test's own handlers would take what breaks here for a failure of theirs, and say so. */
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS};
    for (size_t i = 0; i < ARRAY_COUNT(crashes); i++) signal(crashes[i], SIG_DFL);
    alarm(SEED_SECONDS_MAX);
    if (is_quiet) {
        int nowhere = open("/dev/null", O_WRONLY);
        if (nowhere >= 0) dup2(nowhere, STDERR_FILENO);
    }
    struct scenario_result result = scenario_run(options);
    ssize_t written = write(pipe, &result, sizeof result);
    /* By exit, so that the leak sanitizer looks. */
    exit(written == (ssize_t)sizeof result ? 0 : 1);
}

static void start(struct worker *worker, const struct scenario_options *options, bool is_quiet)
{
    int ends[2];
    ASSERT(pipe2(ends, O_CLOEXEC) == 0);
    fflush(NULL);
    worker->seed = options->seed;
    worker->pid = fork();
    ASSERT(worker->pid >= 0);
    if (worker->pid == 0) run_here(options, is_quiet, ends[1]);
    close(ends[1]);
    worker->pipe = ends[0];
}

/* Its process has ended. */
static enum verdict end(struct worker *worker, int status, struct scenario_result *result)
{
    ssize_t got = read(worker->pipe, result, sizeof *result);
    close(worker->pipe);
    worker->pid = 0;
    if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGALRM ? VERDICT_TOO_LONG : VERDICT_BROKEN;
    bool is_clean = WEXITSTATUS(status) == 0 && got == (ssize_t)sizeof *result;
    return is_clean ? VERDICT_CLEAN : VERDICT_FOUND;
}

enum verdict campaign_run_one(const struct scenario_options *options, bool is_quiet,
                              struct scenario_result *result)
{
    struct worker worker = {0};
    int status = 0;
    start(&worker, options, is_quiet);
    while (waitpid(worker.pid, &status, 0) < 0) ASSERT(errno == EINTR);
    return end(&worker, status, result);
}

struct state {
    const struct campaign *campaign;
    struct campaign_result *result;
    struct worker workers[WORKERS_MAX];
    unsigned running;
    uint64_t next; /* seed */
    double begun;
    double shown;
    bool is_ended;
};

static void add(struct state *state, const struct worker *worker, enum verdict verdict,
                const struct scenario_result *one)
{
    struct campaign_result *all = state->result;
    all->seeds++;
    if (verdict != VERDICT_CLEAN) {
        if (all->found++ == 0 || worker->seed < all->first_found) all->first_found = worker->seed;
        if (state->campaign->ends_at_first) state->is_ended = true;
        return;
    }
    all->clean++;
    all->asked += one->asked;
    all->applied += one->applied;
    all->events += one->events;
    all->resets += one->resets;
    all->virtual_ns += one->virtual_ns;
    for (unsigned i = 0; i < ARRAY_COUNT(all->outcomes); i++) all->outcomes[i] += one->outcomes[i];
    if (worker->is_second && one->hash != worker->first_hash && all->different++ == 0)
        all->first_different = worker->seed;
}

static void report(const struct state *state, const struct worker *worker, enum verdict verdict)
{
    const char *plant = state->campaign->plant;
    if (state->campaign->is_quiet) return;
    if (verdict == VERDICT_TOO_LONG)
        fprintf(stderr, "seed %" PRIu64 ": it took over %d s\n", worker->seed, SEED_SECONDS_MAX);
    if (verdict != VERDICT_CLEAN)
        fprintf(stderr, "run it again: build/fero-sim --seed %" PRIu64 "%s%s --trace\n",
                worker->seed, plant != NULL ? " --plant " : "", plant != NULL ? plant : "");
}

static void start_seed(struct state *state, struct worker *worker, uint64_t seed)
{
    const struct scenario_options options = {.seed = seed, .plant = state->campaign->plant};
    start(worker, &options, state->campaign->is_quiet);
    state->running++;
}

/* Waits for one process to end; starts its seed again where that is to be compared. */
static void finish_one(struct state *state)
{
    const struct campaign *campaign = state->campaign;
    struct scenario_result one = {0};
    int status = 0;
    pid_t pid = waitpid(-1, &status, 0);
    if (pid < 0) {
        ASSERT(errno == EINTR);
        return;
    }
    struct worker *worker = state->workers;
    while (worker->pid != pid) ASSERT(++worker < state->workers + WORKERS_MAX);
    state->running--;
    enum verdict verdict = end(worker, status, &one);
    report(state, worker, verdict);
    add(state, worker, verdict, &one);
    bool is_again = verdict == VERDICT_CLEAN && !worker->is_second && campaign->twice > 0 &&
                    worker->seed % campaign->twice == 0;
    worker->is_second = is_again;
    worker->first_hash = one.hash;
    if (is_again) start_seed(state, worker, worker->seed);
}

static bool has_more(const struct state *state)
{
    const struct campaign *campaign = state->campaign;
    if (state->is_ended) return false;
    if (campaign->seeds_count > 0 && state->next - campaign->seed_first >= campaign->seeds_count)
        return false;
    return campaign->seconds_max == 0 ||
           now_seconds() - state->begun < (double)campaign->seconds_max;
}

static void show(struct state *state)
{
    const struct campaign_result *result = state->result;
    double now = now_seconds();
    if (!state->campaign->has_progress || now - state->shown < 0.2) return;
    state->shown = now;
    fprintf(stderr, "\r%" PRIu64 " seeds, %" PRIu64 " found, %.0f s, %.0f virtual minutes ",
            result->seeds, result->found, now - state->begun, (double)result->virtual_ns / 6e10);
}

void campaign_run(const struct campaign *campaign, struct campaign_result *result)
{
    struct state state = {.campaign = campaign, .result = result, .next = campaign->seed_first};
    unsigned workers = (unsigned)min_u64(max_u64(campaign->workers, 1), WORKERS_MAX);
    *result = (struct campaign_result){0};
    state.begun = now_seconds();
    while (has_more(&state) || state.running > 0) {
        for (unsigned i = 0; i < workers && has_more(&state); i++)
            if (state.workers[i].pid == 0) start_seed(&state, &state.workers[i], state.next++);
        if (state.running > 0) finish_one(&state);
        show(&state);
    }
    if (campaign->has_progress) fprintf(stderr, "\r%60s\r", "");
    result->seconds = now_seconds() - state.begun;
}
