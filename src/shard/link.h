/*
 * A link: one connection with its framing and its outbox. Servers and clients use the same.
 *
 * In:  the bytes of a receive become runs of whole frames, where they lie. A partial frame at the
 *      end is kept and put in front of the next receive (io.h leaves headroom for that); a frame
 *      longer than the headroom is gathered in a buffer of its own that grows as its bytes come.
 * Out: frames are written into one of two buffers; the other one is on its way. One send at a time,
 *      started by link_flush, normally once a turn.
 *
 * A link never looks behind a frame's prefix and never decides to close.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "net/io.h"

struct link_buffer {
    uint8_t *data;
    size_t bytes;
    size_t capacity;
};

/* What the large buffers of many links take together: those that idle links do not keep. */
struct link_budget {
    uint64_t bytes;
    uint64_t bytes_max;
};

struct link {
    struct io *io;
    struct link_budget *budget; /* NULL: nobody counts; set by the owner before anything is sent */
    uint32_t conn;
    uint32_t frame_bytes_max; /* larger frames are refused */
    bool sending;
    bool one_by_one; /* each frame is sent by itself, the next when it has been taken */
    bool blocked;    /* set by the consumer: it cannot take more now */
    uint8_t current; /* of out[]: the one that is written to */
    struct link_buffer out[2];
    size_t handed_bytes; /* of the buffer that is on its way: given to the kernel */
    struct link_buffer partial;
    uint64_t sent_bytes;    /* taken by the kernel */
    uint64_t written_bytes; /* ever committed */
    uint64_t trimmed_bytes; /* written_bytes at the last link_trim */
};

/*
 * Takes whole frames from `data` on and returns how many bytes it took, a whole number of padded
 * frames; the last frame of a run may lack its padding only if the run ends there. Returns a
 * negative errno to give the link up. It may take fewer when it sets link->blocked.
 */
typedef int64_t (*link_consume_fn)(void *context, uint8_t *data, size_t size);

void link_init(struct link *link, struct io *io, uint32_t conn, size_t frame_bytes_max);
/* Frees the buffers. The kernel must have let go of them (IO_CLOSED came). */
void link_deinit(struct link *link);

/*
 * Feeds the bytes of one IO_RECEIVED. If the consumer blocks, the rest is given back to the io and
 * receiving pauses; the caller resumes it with link_unblock when there is room again.
 *
 *   -EPROTO    a prefix with a length below its own size.
 *   -EMSGSIZE  a frame over frame_bytes_max.
 *   -ENOMEM    no memory to gather a long frame.
 *   or what the consumer returned. The caller refuses and closes the link.
 */
MUST_CHECK int link_receive(struct link *link, uint8_t *data, size_t size, link_consume_fn consume,
                            void *context);
void link_unblock(struct link *link);

/* Makes room for `bytes` at least, or returns NULL where there is no memory. */
MUST_CHECK uint8_t *link_grow(struct link *link, size_t bytes);

/* Room for `bytes` at the end of the outbox; valid until the next call on this link. */
MUST_CHECK static inline uint8_t *link_reserve(struct link *link, size_t bytes)
{
    struct link_buffer *out = &link->out[link->current];
    if (LIKELY(out->capacity - out->bytes >= bytes)) return out->data + out->bytes;
    return link_grow(link, bytes);
}

/* The first `bytes` of what was reserved are now part of the outbox. */
static inline void link_commit(struct link *link, size_t bytes)
{
    link->out[link->current].bytes += bytes;
    link->written_bytes += bytes;
}

/* Bytes in the outbox: not sent, or on their way. */
static inline size_t link_out_bytes(const struct link *link)
{
    return link->out[link->current].bytes +
           (link->sending ? link->out[link->current ^ 1u].bytes : 0);
}

/* Bytes of its buffers, as the budget counts them. */
uint64_t link_memory(const struct link *link);
/* Gives back large buffers that nothing is in; false: there was none. */
bool link_shrink(struct link *link);
/* Forgets the frame that has come in part; nothing more may be received. */
void link_drop_partial(struct link *link);
/* Gives back large buffers if nothing was written since the last call and nothing is in them. */
void link_trim(struct link *link);
/* Starts sending what there is, unless a send is on its way. */
void link_flush(struct link *link);
/* IO_SENT came. The caller flushes again at the end of the turn if there is more. */
void link_sent(struct link *link);
/* Right behind link_sent: leaves nothing of what was sent in the outbox. */
void link_wipe_sent(struct link *link);
