/*
 * Addresses of sockets: IPv4 and IPv6, as text and as the kernel wants them.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/attr.h"

/* Room for "[ipv6%scope]:port" and a final zero. */
#define ADDRESS_TEXT_BYTES 80

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
};

/* 127.0.0.1 with `port`. */
struct address address_loopback(uint16_t port);
/*
 * Reads "HOST:PORT", "[IPV6]:PORT", "HOST" (then `port_default`) or ":PORT" (then 127.0.0.1). HOST
 * is an IPv4 or IPv6 address or "localhost"; no name is looked up. Returns 0 or -EINVAL.
 */
MUST_CHECK int address_parse(struct address *address, const char *text, uint16_t port_default);
/* Writes "HOST:PORT" and returns `text`, which has room for ADDRESS_TEXT_BYTES. */
const char *address_format(const struct address *address, char *text);
uint16_t address_port(const struct address *address);
void address_set_port(struct address *address, uint16_t port);
bool address_is_loopback(const struct address *address);
bool address_equal(const struct address *a, const struct address *b);
/* Bytes of the sockaddr inside. */
socklen_t address_bytes(const struct address *address);
