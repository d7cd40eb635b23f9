/*
 * A client inside a loop of the program's own: poll(2) waits for the standard input and for fero at
 * once. Each line that comes, "KEY VALUE", is an update; each answer is printed when it comes.
 *
 *   cc -o loop examples/loop.c $(pkg-config --cflags --libs fero)
 *   printf '28 david\n29 mark\n' | ./loop 127.0.0.1:7700 demo
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <fero.h>

struct loop {
    fero_cache *cache;
    unsigned waiting; /* for answers */
    char input[4096];
    size_t bytes; /* in it: lines, and the beginning of one */
    int is_over;  /* the input */
};

/* Inside fero_run. */
static void on_done(const fero_result *result, void *ud)
{
    struct loop *loop = ud;
    loop->waiting--;
    if (result->outcome == FERO_OUTCOME_OK)
        printf("change %llu\n", (unsigned long long)result->offset);
    else
        printf("failed: %s\n", fero_strerror(result->error));
    fflush(stdout);
}

/* Reads what is there. It is the loop that waited for it. */
static void read_input(struct loop *loop)
{
    ssize_t bytes = read(STDIN_FILENO, loop->input + loop->bytes, sizeof loop->input - loop->bytes);
    if (bytes > 0) loop->bytes += (size_t)bytes;
    if (bytes == 0 || (bytes < 0 && errno != EINTR)) loop->is_over = 1;
}

/* Sends one line; returns 0, or what else than "full" was said, or 1 for "full". */
static int send_line(struct loop *loop, const char *line, size_t bytes)
{
    const char *space = memchr(line, ' ', bytes);
    size_t key_bytes = space != NULL ? (size_t)(space - line) : bytes;
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY, .done = on_done, .ud = loop};
    fero_val value = {.type = FERO_T_STRING};
    if (space != NULL) value.s = (fero_slice){space + 1, bytes - key_bytes - 1};
    int err = fero_update(loop->cache, (fero_slice){line, key_bytes}, &value, &wopts, NULL);
    if (err == 0) loop->waiting++;
    /* A link that is down for the moment passes, too, while the loop runs. */
    return err == FERO_E_AGAIN || err == FERO_E_NOTCONN ? 1 : err;
}

/* Sends the whole lines of the input, as far as there is room; the last one may lack its end. */
static int send_lines(struct loop *loop)
{
    size_t at = 0;
    int err = 0;
    while (err == 0 && at < loop->bytes) {
        const char *line = loop->input + at;
        const char *end = memchr(line, '\n', loop->bytes - at);
        if (end == NULL && !loop->is_over && (at > 0 || loop->bytes < sizeof loop->input)) break;
        size_t bytes = end != NULL ? (size_t)(end - line) : loop->bytes - at;
        err = send_line(loop, line, bytes);
        if (err == 0) at += bytes + (end != NULL);
    }
    loop->bytes -= at;
    memmove(loop->input, loop->input + at, loop->bytes);
    return err < 0 ? err : 0;
}

/* The loop: it blocks in poll only, and fero_run does what there is to do. */
static int run(fero *client, struct loop *loop)
{
    struct pollfd fds[] = {{.fd = fero_fd(client), .events = POLLIN},
                           {.fd = STDIN_FILENO, .events = POLLIN}};
    int err = fds[0].fd < 0 ? fds[0].fd : 0;
    while (err == 0 && !(loop->is_over && loop->waiting == 0 && loop->bytes == 0)) {
        /* A full buffer waits for room at fero; then more may be read. */
        fds[1].fd = loop->is_over || loop->bytes == sizeof loop->input ? -1 : STDIN_FILENO;
        if (poll(fds, 2, -1) < 0) continue; /* a signal */
        err = fds[0].revents != 0 ? fero_run(client, 0) : 0;
        if (err < 0) break;
        if (fds[1].revents != 0 && fds[1].fd >= 0) read_input(loop);
        err = send_lines(loop);
    }
    return err;
}

int main(int argc, char **argv)
{
    const char *seeds[] = {argc > 1 ? argv[1] : "127.0.0.1:7700", NULL};
    fero_runtime_opts opts = {.size = sizeof opts, .client = 1, .seeds = seeds};
    struct loop loop = {0};
    fero *client;
    if (fero_start(&opts, &client) < 0) {
        fprintf(stderr, "fero_start: %s\n", fero_errmsg());
        return 1;
    }
    int err = fero_open(client, argc > 2 ? argv[2] : "demo", NULL, &loop.cache);
    if (err == 0) err = run(client, &loop);
    if (err < 0) fprintf(stderr, "loop: %s\n", fero_errmsg());
    fero_stop(client, 0);
    return err < 0 ? 1 : 0;
}
