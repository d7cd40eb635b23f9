/*
 * Sockets as every implementation makes them, and when accepting has to pause.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/trace.h"
#include "net/address.h"
#include "net/io.h"

/* netinet/udp.h of glibc 2.36 has them; older ones do not. */
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif

/* Largest payload of a UDP datagram over IPv4, which is also the largest coalesced send. */
#define DATAGRAM_BYTES_MAX ((size_t)65507)
/* UDP_MAX_SEGMENTS of all kernels. */
#define SEGMENTS_MAX 64

/* The address that a socket is bound to. */
MUST_CHECK int socket_address(int fd, struct address *address);
/*
 * What TCP sockets of ours have in common, and what those that a listener accepts inherit: no delay,
 * and an end for a connection whose peer has vanished without a word.
 */
MUST_CHECK int socket_configure(int fd);
/* A socket that listens on `address`, or -errno. `flags` as those of socket(2). */
MUST_CHECK int socket_listen(const struct address *address, int flags);
/* A UDP socket bound to `address`, which coalesces what it receives if the kernel can. */
MUST_CHECK int socket_udp(const struct address *address, bool coalesces);
/* Descriptors are given out from the lowest free one on: whether this is one of the last. */
bool socket_is_spare(int fd);
/*
 * Whether this error of accept(2) belongs to the connection that was to be accepted, which is gone.
 * Any other one means that accepting has to pause.
 */
bool socket_is_gone(int err);
/* Whether a UDP socket goes on after this error of receiving. */
bool socket_goes_on(int err);
/* Counts a pause for want of descriptors, warns of the first, and returns until when it lasts. */
uint64_t socket_pause(struct io_counters *counters, const struct trace *trace, int err);
