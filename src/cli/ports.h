/*
 * Who has taken a TCP port?
 */
#pragma once

#include <stdint.h>

#define PORT_HOLDER_BYTES 128

/*
 * Writes "fero (pid 12)" for the process that listens on `port`, as far as this user may know, else
 * "another process". Returns `text`.
 */
const char *port_holder(uint16_t port, char text[PORT_HOLDER_BYTES], int *pid);
