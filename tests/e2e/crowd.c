/*
 * Links that do nothing: opens them, says so with one line, and holds them until its input ends.
 *
 *   crowd ADDRESS COUNT      a node of the cache "demo"
 *
 * They come from 127.0.0.1, 127.0.0.2 and so on, as one address has ports for few of them only.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/rng.h"
#include "tests/support/stranger.h"

#define CONNECTIONS_PER_SOURCE 20000

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: crowd ADDRESS COUNT\n");
        return 2;
    }
    size_t count = strtoul(argv[2], NULL, 10);
    struct stranger *peers = memory_take(count * sizeof *peers);
    ASSERT(peers != NULL);
    for (size_t i = 0; i < count; i++) {
        char source[32];
        snprintf(source, sizeof source, "127.0.0.%zu", 1 + i / CONNECTIONS_PER_SOURCE);
        if (!stranger_open_from(&peers[i], source, argv[1], "demo", rng_secret_u64())) return 1;
    }
    printf("%zu open\n", count);
    fflush(stdout);
    while (getchar() != EOF) {
    }
    for (size_t i = 0; i < count; i++) stranger_close(&peers[i], false);
    memory_put(peers);
    return 0;
}
