#include "net/choice.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "net/epoll.h"

static int open_uring(const struct choice_options *options, struct io **io, char *reason)
{
    const struct uring_options uring = {.features = options->features,
                                        .connections_max = options->connections_max,
                                        .trace = options->trace};
    return uring_open(&uring, io, reason);
}

static int open_epoll(const struct choice_options *options, struct io **io, struct chosen *chosen)
{
    const struct epoll_options epoll = {.connections_max = options->connections_max,
                                        .trace = options->trace};
    chosen->name = "epoll";
    int err = epoll_open(&epoll, io);
    if (err == 0) return 0;
    snprintf(chosen->why, sizeof chosen->why,
             err == -EMFILE || err == -ENFILE
                 ? "no file descriptor left for epoll; type: ulimit -n 65536, or set "
                   "LimitNOFILE=65536 in the systemd unit"
                 : "epoll cannot be opened: %s",
             strerror(-err));
    return err;
}

/* Where the owner left it open, the environment may say. */
static enum choice choice_of(enum choice asked, const char **who)
{
    const char *text = asked == CHOICE_AUTO ? getenv(CHOICE_VARIABLE) : NULL;
    *who = "it was asked for";
    if (text == NULL) return asked;
    *who = CHOICE_VARIABLE " says so";
    if (strcmp(text, "epoll") == 0) return CHOICE_EPOLL;
    return strcmp(text, "uring") == 0 ? CHOICE_URING : CHOICE_AUTO;
}

int choice_open(const struct choice_options *options, struct io **io, struct chosen *chosen)
{
    const char *who;
    char reason[URING_REASON_BYTES] = "";
    enum choice choice = choice_of(options->choice, &who);
    chosen->why[0] = '\0';
    if (choice == CHOICE_EPOLL) {
        snprintf(chosen->why, sizeof chosen->why, "%s", who);
        return open_epoll(options, io, chosen);
    }
    int err = open_uring(options, io, reason);
    if (err == 0) {
        chosen->name = "io_uring";
        snprintf(chosen->why, sizeof chosen->why, "%s",
                 choice == CHOICE_URING ? who : "this machine allows it");
        return 0;
    }
    if (choice == CHOICE_URING) {
        snprintf(chosen->why, sizeof chosen->why, "%s", reason);
        return err;
    }
    snprintf(chosen->why, sizeof chosen->why, "io_uring is refused: %s", reason);
    return open_epoll(options, io, chosen);
}
