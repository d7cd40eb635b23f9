/*
 * A node inside a loop of the program's own, without a thread: poll(2) waits for the standard input
 * and for fero at once. Each line that comes, "KEY VALUE", is set, and is there as soon as the call
 * returns; "KEY" alone prints its value, whoever has set it. Clients may connect meanwhile:
 *
 *   cc -o inline examples/inline.c $(pkg-config --cflags --libs fero)
 *   ./inline demo
 *   fero set demo 28 david --seeds 127.0.0.1:PORT
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <fero.h>

static int set(fero_cache *cache, fero_slice key, const char *text)
{
    fero_val value = {.type = FERO_T_STRING, .s = fero_str(text)};
    return fero_update(cache, key, &value, NULL, NULL);
}

static int print(fero_cache *cache, fero_slice key)
{
    char buffer[4096];
    fero_val value;
    int err = fero_read(cache, key, buffer, sizeof buffer, &value, NULL);
    if (err == FERO_E_NOTFOUND) {
        printf("no %.*s\n", (int)key.len, (const char *)key.ptr);
        return 0;
    }
    if (err == 0) printf("%.*s\n", (int)value.s.len, value.s.len > 0 ? buffer : "");
    return err;
}

/* One line of the input. 1: it was the last one. */
static int do_line(fero_cache *cache)
{
    char line[4096];
    if (fgets(line, sizeof line, stdin) == NULL) return 1;
    line[strcspn(line, "\n")] = 0;
    char *space = strchr(line, ' ');
    fero_slice key = {line, space != NULL ? (size_t)(space - line) : strlen(line)};
    int err = space != NULL ? set(cache, key, space + 1) : print(cache, key);
    fflush(stdout);
    return err;
}

/* The loop: it blocks in poll only, and fero_run does what the node has to do. */
static int run(fero *node, fero_cache *cache)
{
    struct pollfd fds[] = {{.fd = fero_fd(node), .events = POLLIN},
                           {.fd = STDIN_FILENO, .events = POLLIN}};
    int err = fds[0].fd < 0 ? fds[0].fd : 0;
    setvbuf(stdin, NULL, _IONBF, 0); /* what stdio has read, poll would not see */
    while (err == 0) {
        if (poll(fds, 2, -1) < 0) continue; /* a signal */
        if (fds[0].revents != 0 && (err = fero_run(node, 0)) > 0) err = 0;
        if (err == 0 && fds[1].revents != 0) err = do_line(cache);
    }
    return err;
}

int main(int argc, char **argv)
{
    fero_runtime_opts opts = {.size = sizeof opts, .shards = FERO_INLINE};
    fero_cache *cache;
    fero *node;
    if (fero_start(&opts, &node) < 0) {
        fprintf(stderr, "fero_start: %s\n", fero_errmsg());
        return 1;
    }
    int err = fero_open(node, argc > 1 ? argv[1] : "demo", NULL, &cache);
    if (err == 0) {
        printf("listening on %s\n", fero_address(node));
        fflush(stdout);
        err = run(node, cache);
    }
    if (err < 0) fprintf(stderr, "inline: %s\n", fero_errmsg());
    fero_stop(node, 0);
    return err < 0 ? 1 : 0;
}
