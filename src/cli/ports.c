/*
 * The kernel lists listening sockets with their inodes in /proc/net/tcp and tcp6; which process has
 * such a socket open is in the links of /proc/PID/fd. Both are read without privileges, the second
 * only for the user's own processes.
 */
#include "cli/ports.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TCP_STATE_LISTEN 0x0a

/* Inode of the socket that listens on `port` as one file tells; 0: none. */
static unsigned long listener_in(const char *path, uint16_t port)
{
    unsigned long found = 0;
    char line[512];
    FILE *file = fopen(path, "re");
    if (file == NULL) return 0;
    while (found == 0 && fgets(line, sizeof line, file) != NULL) {
        unsigned local_port;
        unsigned state;
        unsigned long inode;
        int fields =
            sscanf(line, " %*u: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*u %*u %lu",
                   &local_port, &state, &inode);
        if (fields == 3 && local_port == port && state == TCP_STATE_LISTEN) found = inode;
    }
    fclose(file);
    return found;
}

static unsigned long listener(uint16_t port)
{
    unsigned long inode = listener_in("/proc/net/tcp", port);
    return inode != 0 ? inode : listener_in("/proc/net/tcp6", port);
}

static bool has_socket(const char *pid, const char *wanted)
{
    char path[300];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *folder = opendir(path);
    if (folder == NULL) return false;
    for (struct dirent *entry; !found && (entry = readdir(folder)) != NULL;) {
        char target[64];
        ssize_t bytes = readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1);
        if (bytes <= 0) continue;
        target[bytes] = 0;
        found = strcmp(target, wanted) == 0;
    }
    closedir(folder);
    return found;
}

static void name_of(const char *pid, char *name, size_t bytes)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/comm", pid);
    snprintf(name, bytes, "a process");
    FILE *file = fopen(path, "re");
    if (file == NULL) return;
    if (fgets(name, (int)bytes, file) != NULL) name[strcspn(name, "\n")] = 0;
    fclose(file);
}

const char *port_holder(uint16_t port, char text[PORT_HOLDER_BYTES], int *pid)
{
    char wanted[64];
    char name[64];
    *pid = 0;
    snprintf(text, PORT_HOLDER_BYTES, "another process");
    unsigned long inode = listener(port);
    DIR *folder = inode != 0 ? opendir("/proc") : NULL;
    if (folder == NULL) return text;
    snprintf(wanted, sizeof wanted, "socket:[%lu]", inode);
    for (struct dirent *entry; *pid == 0 && (entry = readdir(folder)) != NULL;) {
        if (!isdigit((unsigned char)entry->d_name[0]) || !has_socket(entry->d_name, wanted))
            continue;
        *pid = (int)strtol(entry->d_name, NULL, 10);
        name_of(entry->d_name, name, sizeof name);
        snprintf(text, PORT_HOLDER_BYTES, "%s (pid %d)", name, *pid);
    }
    closedir(folder);
    return text;
}
