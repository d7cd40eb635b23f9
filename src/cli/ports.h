/*
 * Who has taken a TCP port?
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PORT_HOLDER_BYTES 128

/* Whether anybody of this network namespace listens on `port`. */
bool port_is_taken(uint16_t port);
/*
 * Writes "fero (pid 12)" for the process that listens on `port`, as far as this user may know, else
 * "another process". Returns `text`.
 */
const char *port_holder(uint16_t port, char text[PORT_HOLDER_BYTES], int *pid);
