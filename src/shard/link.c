#include "shard/link.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/bytes.h"
#include "base/memory.h"
#include "base/secret.h"
#include "wire/frame.h"

/* Enough for a greeting: most of very many links say little more. */
#define BUFFER_BYTES_MIN ((size_t)512)
/* An idle link keeps buffers up to this. */
#define BUFFER_BYTES_KEPT (64 * KIB)

void link_init(struct link *link, struct io *io, uint32_t conn, size_t frame_bytes_max)
{
    ASSERT(frame_bytes_max <= FRAME_BYTES_MAX);
    *link = (struct link){.io = io, .conn = conn, .frame_bytes_max = (uint32_t)frame_bytes_max};
}

/* Small buffers are not counted: there may be as many as connections, whatever they hold. */
static uint64_t counted(size_t capacity)
{
    return capacity > BUFFER_BYTES_KEPT ? capacity : 0;
}

static void buffer_free(struct link *link, struct link_buffer *buffer)
{
    if (link->budget != NULL) link->budget->bytes -= counted(buffer->capacity);
    memory_put(buffer->data);
    *buffer = (struct link_buffer){0};
}

void link_deinit(struct link *link)
{
    buffer_free(link, &link->out[0]);
    buffer_free(link, &link->out[1]);
    buffer_free(link, &link->partial);
    *link = (struct link){.conn = IO_NONE};
}

static int buffer_grow(struct link *link, struct link_buffer *buffer, size_t capacity)
{
    if (buffer->capacity >= capacity) return 0;
    size_t larger = buffer->capacity > 0 ? buffer->capacity : BUFFER_BYTES_MIN;
    while (larger < capacity) larger *= 2;
    uint8_t *data = memory_resize(buffer->data, buffer->bytes, larger);
    if (data == NULL) return -ENOMEM;
    if (link->budget != NULL) link->budget->bytes += counted(larger) - counted(buffer->capacity);
    buffer->data = data;
    buffer->capacity = larger;
    return 0;
}

/* Bytes that the frame at `data` needs with its padding; 0 where its prefix is incomplete. */
static int64_t frame_needs(const struct link *link, const uint8_t *data, size_t size)
{
    uint32_t length;
    if (size < FRAME_PREFIX_BYTES) return 0;
    memcpy(&length, data, sizeof length);
    if (length < FRAME_PREFIX_BYTES) return -EPROTO;
    if (length > link->frame_bytes_max) return -EMSGSIZE;
    return (int64_t)round_up_8(length);
}

/* Appends up to `bytes` of `data` to the partial frame. */
static int partial_append(struct link *link, const uint8_t *data, size_t bytes)
{
    int err = buffer_grow(link, &link->partial, link->partial.bytes + bytes);
    if (err < 0) return err;
    memcpy(link->partial.data + link->partial.bytes, data, bytes);
    link->partial.bytes += bytes;
    if (PLANTED("partial_too_short") && link->partial.bytes > 200) link->partial.bytes -= 8;
    return 0;
}

/* Gathers a long frame; returns how much of `data` it took, or a negative errno. */
static int64_t gather(struct link *link, const uint8_t *data, size_t size)
{
    int64_t needed = frame_needs(link, link->partial.data, link->partial.bytes);
    if (needed < 0) return needed;
    ASSERT((size_t)needed > link->partial.bytes);
    size_t taken = min_u64((size_t)needed - link->partial.bytes, size);
    int err = partial_append(link, data, taken);
    return err < 0 ? err : (int64_t)taken;
}

static bool gathered_all(const struct link *link)
{
    return frame_needs(link, link->partial.data, link->partial.bytes) ==
           (int64_t)link->partial.bytes;
}

/* Puts a kept partial frame in front of the receive; there is headroom for it. */
static void put_in_front(struct link *link, uint8_t **data, size_t *size)
{
    ASSERT(link->partial.bytes <= IO_HEADROOM_BYTES);
    *data -= link->partial.bytes;
    *size += link->partial.bytes;
    memcpy(*data, link->partial.data, link->partial.bytes);
    link->partial.bytes = 0;
}

/* The consumer could not take the gathered frame: it goes back to the io with all that follows. */
static int give_back(struct link *link, const uint8_t *data, size_t size)
{
    int err = size > 0 ? partial_append(link, data, size) : 0;
    if (err < 0) return err;
    io_pause(link->io, link->conn, link->partial.data, link->partial.bytes);
    link->partial.bytes = 0;
    return 0;
}

/* Feeds the frames that lie in the receive itself and keeps the partial one at its end. */
static int receive_in_place(struct link *link, uint8_t *data, size_t size, link_consume_fn consume,
                            void *context)
{
    int64_t taken = consume(context, data, size);
    if (taken < 0) return (int)taken;
    ASSERT((size_t)taken <= size);
    data += taken;
    size -= (size_t)taken;
    if (link->blocked) {
        io_pause(link->io, link->conn, data, size);
        return 0;
    }
    int64_t needed = frame_needs(link, data, size);
    if (needed < 0) return (int)needed;
    ASSERT(needed == 0 || (size_t)needed > size);
    return size > 0 ? partial_append(link, data, size) : 0;
}

int link_receive(struct link *link, uint8_t *data, size_t size, link_consume_fn consume,
                 void *context)
{
    ASSERT(!link->blocked);
    if (link->partial.bytes > 0 && link->partial.bytes <= IO_HEADROOM_BYTES) {
        put_in_front(link, &data, &size);
    } else if (link->partial.bytes > 0) {
        int64_t taken = gather(link, data, size);
        if (taken < 0) return (int)taken;
        data += taken;
        size -= (size_t)taken;
        if (!gathered_all(link)) return 0;
        int64_t consumed = consume(context, link->partial.data, link->partial.bytes);
        if (consumed < 0) return (int)consumed;
        if (link->blocked && consumed == 0) return give_back(link, data, size);
        ASSERT((size_t)consumed == link->partial.bytes);
        link->partial.bytes = 0;
        if (link->blocked) {
            io_pause(link->io, link->conn, data, size);
            return 0;
        }
    }
    return size > 0 ? receive_in_place(link, data, size, consume, context) : 0;
}

void link_unblock(struct link *link)
{
    if (!link->blocked) return;
    link->blocked = false;
    io_resume(link->io, link->conn);
}

uint8_t *link_grow(struct link *link, size_t bytes)
{
    struct link_buffer *out = &link->out[link->current];
    if (buffer_grow(link, out, out->bytes + bytes) < 0) return NULL;
    return out->data + out->bytes;
}

static void buffer_trim(struct link *link, struct link_buffer *buffer)
{
    if (buffer->bytes == 0 && counted(buffer->capacity) > 0) buffer_free(link, buffer);
}

uint64_t link_memory(const struct link *link)
{
    return counted(link->out[0].capacity) + counted(link->out[1].capacity) +
           counted(link->partial.capacity);
}

bool link_shrink(struct link *link)
{
    uint64_t before = link_memory(link);
    buffer_trim(link, &link->out[0]);
    buffer_trim(link, &link->out[1]);
    buffer_trim(link, &link->partial);
    return link_memory(link) < before;
}

void link_drop_partial(struct link *link)
{
    buffer_free(link, &link->partial);
}

void link_trim(struct link *link)
{
    bool is_idle = link->written_bytes == link->trimmed_bytes && !link->sending;
    link->trimmed_bytes = link->written_bytes;
    if (!is_idle) return;
    /* The small ones, too: of very many idle links they are most of the memory. */
    if (link->out[0].bytes == 0) buffer_free(link, &link->out[0]);
    if (link->out[1].bytes == 0) buffer_free(link, &link->out[1]);
    if (link->partial.bytes == 0) buffer_free(link, &link->partial);
}

/* Gives the kernel what is left of the buffer that is on its way, or the next frame of it. */
static void send_next(struct link *link)
{
    const struct link_buffer *out = &link->out[link->current ^ 1u];
    struct iovec part = {out->data + link->handed_bytes, out->bytes - link->handed_bytes};
    if (UNLIKELY(link->one_by_one)) {
        uint32_t length;
        memcpy(&length, part.iov_base, sizeof length);
        part.iov_len = round_up_8(length);
    }
    link->handed_bytes += part.iov_len;
    ASSERT(link->handed_bytes <= out->bytes);
    io_send(link->io, link->conn, &part, 1);
}

void link_flush(struct link *link)
{
    if (link->sending || link->out[link->current].bytes == 0) return;
    link->sending = true;
    link->handed_bytes = 0;
    link->current ^= 1u;
    ASSERT(link->out[link->current].bytes == 0);
    send_next(link);
}

void link_sent(struct link *link)
{
    struct link_buffer *sent = &link->out[link->current ^ 1u];
    ASSERT(link->sending);
    if (link->handed_bytes < sent->bytes) {
        send_next(link);
        return;
    }
    link->sending = false;
    link->sent_bytes += sent->bytes;
    sent->bytes = 0;
}

void link_wipe_sent(struct link *link)
{
    const struct link_buffer *sent = &link->out[link->current ^ 1u];
    if (!link->sending && sent->capacity > 0) secret_wipe(sent->data, sent->capacity);
}
