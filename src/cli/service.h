/*
 * A service in a shared object, for `fero serve --handler`.
 */
#pragma once

#include "cli/command.h"
#include "fero.h"

struct service {
    void *object; /* dlopen's; NULL: none was loaded */
    const fero_service *about;
};

/*
 * Loads the file and lets its service prepare. STATUS_OK, or a status after one line that says what
 * is wrong with the file.
 */
int service_load(struct service *service, const struct command *command, const char *path);
/* After the node has stopped. Allowed where nothing was loaded. */
void service_unload(struct service *service);
