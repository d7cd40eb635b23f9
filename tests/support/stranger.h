/*
 * The client's side of the wire by hand, on a blocking socket: for tests that do what libfero's
 * client would never do. It can only wait for a bounded time, and it checks the shape of all that it
 * receives.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "wire/frame.h"
#include "wire/hello.h"
#include "wire/stream.h"

/* Longer than any answer takes, sanitizers and a busy machine included. */
#define STRANGER_WAIT_MS 20000

struct stranger {
    int fd; /* -1: closed */
    uint16_t cache;
    uint16_t shard; /* that speaks, as WELCOME says */
    /* What came from the node. */
    uint8_t *in;
    size_t in_begin;
    size_t in_end;
    size_t in_room;
    /* What was counted of it. */
    uint64_t replies;
    uint32_t acked_requests;
    uint64_t acked_bytes;
    bool is_over; /* the node ended the link ... */
    int over_err; /* ... in order (0), or so */
    /* What is to go out. */
    uint8_t *out;
    size_t out_bytes;
    size_t out_room;
};

enum stranger_got { STRANGER_FRAME, STRANGER_OVER, STRANGER_SILENCE, STRANGER_BROKEN };

/* "127.0.0.1:7700"; 0 or a negative errno. */
MUST_CHECK int stranger_connect(struct stranger *peer, const char *address);
/* Likewise from an address of this machine's, "127.0.0.2"; NULL: any. */
MUST_CHECK int stranger_connect_from(struct stranger *peer, const char *source,
                                     const char *address);
/* Connects, sends HELLO (any shard) and OPEN, and waits for both answers; false: it did not work. */
MUST_CHECK bool stranger_open(struct stranger *peer, const char *address, const char *cache,
                              uint64_t session);
MUST_CHECK bool stranger_open_from(struct stranger *peer, const char *source, const char *address,
                                   const char *cache, uint64_t session);
/* Closes the socket, with a reset instead of an orderly end if `resets`. */
void stranger_close(struct stranger *peer, bool resets);

/* Append frames to what is to go out. */
void stranger_put_hello(struct stranger *peer, uint64_t session, uint16_t shard);
void stranger_put_open(struct stranger *peer, const char *cache);
void stranger_put_request(struct stranger *peer, enum frame_type type, uint32_t seq,
                          struct bytes key, struct bytes value);
void stranger_put_extended(struct stranger *peer, enum frame_type type, uint32_t seq,
                           const struct extensions *extensions, struct bytes key,
                           struct bytes value);
void stranger_put_bytes(struct stranger *peer, const void *data, size_t bytes);

/* Sends all that was put; false: the node takes no more, or ended the link. */
MUST_CHECK bool stranger_flush(struct stranger *peer);
/* Sends what fits without waiting; returns whether all of it went. */
bool stranger_try_flush(struct stranger *peer);

/* The next frame, good until the next call; waits up to `wait_ms`. REPLY and ACK are counted. */
enum stranger_got stranger_next(struct stranger *peer, int wait_ms, const uint8_t **frame);
/* Takes what has come without waiting. */
enum stranger_got stranger_take(struct stranger *peer, const uint8_t **frame);
/* Waits for the reply to `seq`; its header and value. False: none came. */
bool stranger_reply(struct stranger *peer, uint32_t seq, struct frame_reply *reply,
                    struct bytes *value);
