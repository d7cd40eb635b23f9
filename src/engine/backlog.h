/*
 * A link's request frames: written here once, sent from here, and kept until they are answered, so
 * that a new connection can send again what the old one lost. Nothing is copied for that.
 *
 * Frames are appended to the newest of a queue of chunks and never move while the link is up. A
 * chunk is given back once the kernel has taken all of it and the session's window has left all
 * its requests behind, which is one comparison a chunk and nothing a message. So a backlog keeps
 * at most what was written since the oldest unanswered request, and its owner bounds that.
 *
 *   oldest                          unsent                   newest
 *   +----------------+   +----------------+   +----------------+
 *   | taken, waiting |-->| taken | unsent |-->| unsent |  room |
 *   +----------------+   +----------------+   +----------------+
 *                                                      ^ at
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/attr.h"

/* With its header a chunk takes 64 KiB, a good size of one send. */
#define CHUNK_BYTES ((size_t)64 * 1024)

struct chunk {
    struct chunk *next;
    uint64_t seq_end;      /* numbers of its requests are below; of the newest chunk: not set yet */
    uint64_t requests_end; /* requests on this connection up to its end; likewise */
    uint32_t used;         /* bytes written; of the newest chunk: see backlog_used */
    uint32_t taken;        /* bytes that the kernel has taken */
    uint32_t capacity;
    _Alignas(CACHE_LINE) uint8_t data[];
};

/* Chunks that nobody uses, shared by all links of a client. */
struct chunk_pool {
    struct chunk *free; /* of CHUNK_BYTES each */
    uint32_t free_count;
};
void chunk_pool_deinit(struct chunk_pool *pool);

struct backlog {
    uint8_t *at; /* where the next frame goes */
    uint8_t *end;
    struct chunk *newest; /* NULL: no chunk at all */
    struct chunk *oldest;
    struct chunk *unsent; /* the first chunk of which the kernel has not taken all; or newest */
    struct chunk_pool *pool;
    size_t held_bytes;      /* capacity of the chunks */
    uint64_t taken_bytes;   /* by the kernel, since the connection began */
    uint64_t closed_bytes;  /* written into the chunks before the newest */
    uint64_t sending_bytes; /* in the send on its way, 0: none */
};

void backlog_init(struct backlog *backlog, struct chunk_pool *pool);
/* The kernel must have let go of the chunks. */
void backlog_deinit(struct backlog *backlog);

static inline size_t backlog_room(const struct backlog *backlog)
{
    return (size_t)(backlog->end - backlog->at);
}

/* Bytes written since the connection began. */
static inline uint64_t backlog_written_bytes(const struct backlog *backlog)
{
    if (backlog->newest == NULL) return 0;
    return backlog->closed_bytes + (uint64_t)(backlog->at - backlog->newest->data);
}

/* Those of them that the kernel has not taken yet. */
static inline uint64_t backlog_unsent_bytes(const struct backlog *backlog)
{
    return backlog_written_bytes(backlog) - backlog->taken_bytes;
}

/* Those that were ever handed to the kernel. */
static inline uint64_t backlog_handed_bytes(const struct backlog *backlog)
{
    return backlog->taken_bytes + backlog->sending_bytes;
}

/*
 * Begins a new chunk with room for `bytes`; `seq_next` and `requests` are those of the window and
 * the link now. -ENOMEM leaves it as it was.
 */
MUST_CHECK int backlog_grow(struct backlog *backlog, size_t bytes, uint64_t seq_next,
                            uint64_t requests);

/*
 * Names what is to be sent, in order, at most `parts_max` parts; `requests` as above. Returns their
 * number and sets `requests_end` to the requests that are sent with them. 0: nothing to send.
 * backlog_sent must follow before the next call.
 */
unsigned backlog_send(struct backlog *backlog, struct iovec *parts, unsigned parts_max,
                      uint64_t requests, uint64_t *requests_end);
/* The same for the next frame alone; `requests_end` counts it. */
unsigned backlog_send_one(struct backlog *backlog, struct iovec *part, uint64_t *requests_end);
void backlog_sent(struct backlog *backlog);

/* Gives back the chunks whose requests are all below `floor`; all are below `seq_next`. */
void backlog_release(struct backlog *backlog, uint64_t floor, uint64_t seq_next);

typedef void (*backlog_visit_fn)(void *context, const uint8_t *frame);
/* Shows all frames in it, in order. */
void backlog_visit(const struct backlog *backlog, backlog_visit_fn visit, void *context);
/* Frames in it. O(n). */
uint64_t backlog_frames_count(const struct backlog *backlog);

/* Whether a frame shall be sent again. It may change the frame. */
typedef bool (*backlog_keep_fn)(void *context, uint8_t *frame);
/*
 * The connection was lost and the kernel has let go: drops the frames that `keep` does not want,
 * closes the gaps, and makes everything left unsent. Returns how many frames are left and sets
 * `bytes` to theirs.
 */
uint64_t backlog_rewind(struct backlog *backlog, backlog_keep_fn keep, void *context,
                        uint64_t seq_next, uint64_t *bytes);
