#include "cli/live.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

int live_open(struct live *live, const struct command *command,
              const struct client_options *options, const char *name)
{
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    live->signals = signalfd(-1, &ends, SFD_CLOEXEC);
    if (live->signals < 0) {
        complain(command, "no descriptor for signals: %s", strerror(errno));
        return STATUS_NOT_FOUND;
    }
    int status = cli_open(&live->client, command, options, name);
    if (status != STATUS_OK) close(live->signals);
    return status;
}

int live_run(struct live *live)
{
    fero *runtime = live->client.runtime;
    struct pollfd ready[3] = {{.fd = fero_fd(runtime), .events = POLLIN},
                              {.fd = live->signals, .events = POLLIN},
                              {.fd = STDOUT_FILENO}}; /* only to hear that its reader is gone */
    if (ready[0].fd < 0) return client_complain(&live->client, ready[0].fd);
    while (!live->is_done) {
        int err = fero_run(runtime, 0);
        if (err < 0) return client_complain(&live->client, err);
        if (fflush(stdout) != 0 || ferror(stdout) != 0) break;
        if (err > 0 || live->is_done) continue;
        if (poll(ready, 3, -1) < 0 && errno != EINTR) break;
        if (ready[1].revents != 0 || (ready[2].revents & (POLLERR | POLLNVAL)) != 0) break;
    }
    return STATUS_OK;
}

void live_close(struct live *live)
{
    fero_stream_free(live->stream);
    cli_close(&live->client);
    close(live->signals);
}

const char *live_event_name(int32_t type)
{
    static const char *const names[] = {"unknown",   "started",        "trimmed",      "gap",
                                        "truncated", "snapshot-begin", "snapshot-end", "live",
                                        "ended",     "lost",           "resumed"};
    bool is_known = type > 0 && (size_t)type < sizeof names / sizeof names[0];
    return names[is_known ? type : 0];
}

void live_complain(const struct live *live, const fero_stream_event *event)
{
    const struct command *command = live->client.command;
    switch (event->type) {
    case FERO_STREAM_TRIMMED:
        complain(command,
                 "shard %d does not keep changes from there on any more: its state follows",
                 event->shard);
        break;
    case FERO_STREAM_GAP:
        complain(command, "gap: shard %d went on without us, its state follows", event->shard);
        break;
    case FERO_STREAM_TRUNCATED:
        complain(command, "shard %d took changes back: its state follows", event->shard);
        break;
    case FERO_STREAM_LOST:
        complain(command, "lost shard %d (%.*s); trying again", event->shard, (int)event->text.len,
                 (const char *)event->text.ptr);
        break;
    case FERO_STREAM_RESUMED:
        if (event->is_all) complain(command, "connected again");
        break;
    case FERO_STREAM_ENDED:
        if (event->error != 0)
            complain(command, "shard %d: %s", event->shard, fero_strerror(event->error));
        break;
    default: break;
    }
}
