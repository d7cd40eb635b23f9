#include <fcntl.h>
#include <unistd.h>

#include "cli/commands.h"

/*
 * Where a standard stream was closed, the next descriptor would take its place, and what is printed
 * would go to a socket. It gets one that fails as a closed one does.
 */
static void keep_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) continue;
        /* The lowest free one is given, which is this one. */
        if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) return;
    }
}

int main(int argc, char **argv)
{
    keep_standard_streams();
    return commands_run(argc, argv);
}
