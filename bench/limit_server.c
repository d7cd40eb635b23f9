#include "bench/limit_server.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "base/memory.h"

#define OUT_BYTES ((size_t)256 * KIB)
#define EVENTS_MAX 64

/* Checks the frame at `data`. Its padded bytes, 0 where it is not whole, or -EBADMSG. */
static ALWAYS_INLINE int64_t decode(const uint8_t *data, size_t bytes)
{
    if (bytes < sizeof(struct limit_request)) return 0;
    const struct limit_header *header = (const struct limit_header *)data;
    size_t padded = round_up_8((size_t)header->length);
    if (UNLIKELY(header->length < sizeof(struct limit_request) ||
                 header->type != LIMIT_TYPE_UPDATE || header->key_len != LIMIT_KEY_BYTES ||
                 padded > LIMIT_MESSAGE_BYTES_MAX + sizeof(struct limit_request))) {
        return -EBADMSG;
    }
    return padded > bytes ? 0 : (int64_t)padded;
}

/* First pass: as many frames as are whole, up to a group. */
static ALWAYS_INLINE int decode_group(const struct limit_server *server, struct limit_step *steps,
                                      const uint8_t *data, size_t bytes, size_t *used)
{
    int count = 0;
    size_t at = 0;
    while (count < LIMIT_GROUP) {
        int64_t frame_bytes = decode(data + at, bytes - at);
        if (UNLIKELY(frame_bytes <= 0)) {
            if (frame_bytes < 0) return (int)frame_bytes;
            break;
        }
        steps[count].request = (const struct limit_request *)(data + at);
        steps[count].bytes = (uint32_t)frame_bytes;
        limit_step_hash(&server->store, &steps[count]);
        at += (size_t)frame_bytes;
        count++;
    }
    *used = at;
    return count;
}

static ALWAYS_INLINE size_t put_reply(const struct limit_server *server,
                                      const struct limit_step *step, uint8_t *to)
{
    const struct limit_request *request = step->request;
    bool echoes = server->reply_value == LIMIT_REPLY_ECHO;
    size_t value_bytes =
        echoes ? request->header.length - sizeof(struct limit_header) : server->reply_value;
    struct limit_reply *reply = (struct limit_reply *)to;
    reply->length = (uint32_t)(sizeof(*reply) + value_bytes);
    reply->type = LIMIT_TYPE_REPLY;
    reply->flags = 0;
    reply->code = 0;
    reply->seq = request->header.seq;
    reply->offset = (uint32_t)server->store.places;
    if (value_bytes > 0) {
        limit_copy_lines(to + sizeof(*reply),
                         echoes ? (const uint8_t *)&request->key : server->answer, value_bytes);
    }
    return sizeof(*reply) + round_up_8(value_bytes);
}

static int flush(const struct limit_server *server, int fd, size_t bytes)
{
    int flags = server->spins ? MSG_DONTWAIT : 0;
    for (size_t at = 0; at < bytes;) {
        ssize_t sent = limit_send(fd, server->out + at, bytes - at, flags);
        if (sent < 0 && !limit_is_later((int)sent)) return (int)sent;
        if (sent > 0) at += (size_t)sent;
    }
    return 0;
}

/* Handles all whole frames of `data` and sends their replies. Returns the bytes used. */
static int64_t handle(struct limit_server *server, int fd, const uint8_t *data, size_t bytes)
{
    struct limit_step steps[LIMIT_GROUP];
    size_t at = 0;
    size_t out = 0;
    while (true) {
        size_t used = 0;
        int count = decode_group(server, steps, data + at, bytes - at, &used);
        if (count < 0) return count;
        if (count == 0) break;
        at += used;
        for (int i = 0; i < count; i++) limit_step_probe(&server->store, &steps[i]);
        for (int i = 0; i < count; i++) {
            limit_step_apply(&server->store, &steps[i]);
            out += put_reply(server, &steps[i], server->out + out);
        }
        server->handled += (uint64_t)count;
        if (out + LIMIT_GROUP * server->reply_bytes_max > server->out_bytes_max) {
            int err = flush(server, fd, out);
            if (err < 0) return err;
            out = 0;
        }
    }
    int err = flush(server, fd, out);
    return err < 0 ? err : (int64_t)at;
}

/* One receive of one connection, and its replies. */
static int serve_once(struct limit_server *server, uint32_t link, int flags)
{
    struct limit_spill *spill = &server->spills[link];
    int fd = server->wiring->server_fds[link];
    if (spill->bytes > 0) memcpy(server->in, spill->data, spill->bytes);
    ssize_t got =
        limit_receive(fd, server->in + spill->bytes, server->options->receive_bytes, flags);
    if (got < 0) return limit_is_later((int)got) ? 0 : (int)got;
    size_t bytes = spill->bytes + (size_t)got;
    int64_t used = handle(server, fd, server->in, bytes);
    if (used < 0) return (int)used;
    spill->bytes = bytes - (size_t)used;
    ASSERT(spill->bytes < server->frame_bytes_max);
    if (spill->bytes > 0) memcpy(spill->data, server->in + used, spill->bytes);
    server->receives++;
    return 0;
}

static int serve_ready(struct limit_server *server, int poller)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(poller, events, EVENTS_MAX, server->spins ? 0 : -1);
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        int err = serve_once(server, events[i].data.u32, MSG_DONTWAIT);
        if (err < 0) return err;
    }
    return 0;
}

/* Until `handled` is `until`. */
static int serve(struct limit_server *server, int poller, uint64_t until)
{
    int err = 0;
    int flags = server->spins ? MSG_DONTWAIT : 0;
    while (err == 0 && server->handled < until) {
        err = poller >= 0 ? serve_ready(server, poller) : serve_once(server, 0, flags);
    }
    return err;
}

static int server_run(struct limit_server *server)
{
    const struct limit_options *options = server->options;
    const struct limit_wiring *wiring = server->wiring;
    int poller = -1;
    if (wiring->count > 1) {
        poller = limit_poller_open(wiring->server_fds, wiring->count);
        if (poller < 0) return poller;
    }
    int err = serve(server, poller, options->records_warmup);
    uint64_t early = server->handled;
    server->receives = 0;
    server->cpu_start_ns = clock_thread_cpu_ns();
    if (err == 0) err = serve(server, poller, options->records_warmup + options->records);
    server->cpu_end_ns = clock_thread_cpu_ns();
    server->handled -= early;
    if (poller >= 0) close(poller);
    return err;
}

void *limit_server_thread(void *context)
{
    struct limit_server *server = context;
    server->err = cpus_pin((uint16_t)server->options->server_cpu);
    if (server->err == 0) server->err = server_run(server);
    if (server->err < 0) limit_hang_up(server->wiring->server_fds, server->wiring->count);
    return NULL;
}

static size_t server_in_bytes(const struct limit_server *server)
{
    return server->frame_bytes_max + server->options->receive_bytes + LIMIT_SLACK;
}

static size_t server_answer_bytes(const struct limit_server *server)
{
    return server->reply_bytes_max + LIMIT_SLACK;
}

void limit_server_deinit(struct limit_server *server)
{
    limit_store_deinit(&server->store);
    memory_release(server->in, server_in_bytes(server));
    memory_release(server->out, server->out_bytes_max + LIMIT_SLACK);
    memory_release(server->answer, server_answer_bytes(server));
    for (uint32_t i = 0; server->spills != NULL && i < server->wiring->count; i++) {
        memory_put(server->spills[i].data);
    }
    memory_put(server->spills);
}

int limit_server_init(struct limit_server *server, const struct limit_options *options,
                      const struct limit_wiring *wiring)
{
    *server = (struct limit_server){.options = options,
                                    .wiring = wiring,
                                    .reply_value = options->reply_bytes,
                                    .reply_bytes_max = limit_reply_frame_bytes(options),
                                    .frame_bytes_max = limit_frame_bytes(options),
                                    .spins = options->wait == LIMIT_WAIT_SPIN};
    server->out_bytes_max = max_u64(OUT_BYTES, 2 * LIMIT_GROUP * server->reply_bytes_max);
    server->in = memory_reserve(server_in_bytes(server), 1);
    server->out = memory_reserve(server->out_bytes_max + LIMIT_SLACK, 1);
    server->answer = memory_reserve(server_answer_bytes(server), 0);
    server->spills = memory_take(wiring->count * sizeof(struct limit_spill));
    int err = limit_store_init(&server->store, options->keys, options->log_bytes);
    if (err < 0) return err;
    if (server->in == NULL || server->out == NULL || server->answer == NULL ||
        server->spills == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < wiring->count; i++) {
        server->spills[i].data = memory_take(server->frame_bytes_max);
        if (server->spills[i].data == NULL) return -ENOMEM;
    }
    memory_touch(server->in, server_in_bytes(server));
    memory_touch(server->out, server->out_bytes_max + LIMIT_SLACK);
    memset(server->answer, 'a', server_answer_bytes(server));
    limit_request_init((struct limit_request *)server->in, options->message_bytes);
    limit_store_fill(&server->store, options->keys, (struct limit_request *)server->in);
    return 0;
}
