#include "tests/support/stranger.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "net/address.h"

#define ROOM_FIRST ((size_t)64 << 10)

/* ------------------------------------------------------------------------------ connecting */

int stranger_connect(struct stranger *peer, const char *address_text)
{
    return stranger_connect_from(peer, NULL, address_text);
}

int stranger_connect_from(struct stranger *peer, const char *source_text, const char *address_text)
{
    struct address address;
    struct address source;
    const int on = 1;
    *peer = (struct stranger){.fd = -1};
    int err = address_parse(&address, address_text, 0);
    if (err == 0 && source_text != NULL) err = address_parse(&source, source_text, 0);
    if (err < 0) return err;
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    /* The port is chosen when it connects: one of another receiver may be taken again. */
    bool is_bound = source_text == NULL ||
                    (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) == 0 &&
                     bind(fd, &source.any, address_bytes(&source)) == 0);
    if (!is_bound || connect(fd, &address.any, address_bytes(&address)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) {
        err = -errno;
        close(fd);
        return err;
    }
    peer->fd = fd;
    return 0;
}

void stranger_close(struct stranger *peer, bool resets)
{
    const struct linger reset = {.l_onoff = 1};
    if (peer->fd >= 0 && resets) setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (peer->fd >= 0) close(peer->fd);
    memory_put(peer->in);
    memory_put(peer->out);
    *peer = (struct stranger){.fd = -1};
}

bool stranger_open(struct stranger *peer, const char *address, const char *cache, uint64_t session)
{
    return stranger_open_from(peer, NULL, address, cache, session);
}

bool stranger_open_from(struct stranger *peer, const char *source, const char *address,
                        const char *cache, uint64_t session)
{
    const uint8_t *frame;
    if (stranger_connect_from(peer, source, address) < 0) return false;
    stranger_put_hello(peer, session, HELLO_SHARD_ANY);
    stranger_put_open(peer, cache);
    if (!stranger_flush(peer)) return false;
    if (stranger_next(peer, STRANGER_WAIT_MS, &frame) != STRANGER_FRAME ||
        frame[4] != FRAME_WELCOME)
        return false;
    struct frame_welcome welcome;
    memcpy(&welcome, frame, sizeof welcome);
    peer->shard = welcome.shard;
    if (stranger_next(peer, STRANGER_WAIT_MS, &frame) != STRANGER_FRAME || frame[4] != FRAME_OPENED)
        return false;
    struct frame_opened opened;
    memcpy(&opened, frame, sizeof opened);
    peer->cache = opened.cache;
    return opened.prefix.small == 0;
}

/* --------------------------------------------------------------------------------- sending */

static uint8_t *out_reserve(struct stranger *peer, size_t bytes)
{
    if (peer->out_bytes + bytes > peer->out_room) {
        size_t room = max_u64(ROOM_FIRST, 2 * (peer->out_bytes + bytes));
        peer->out = memory_resize(peer->out, peer->out_bytes, room);
        ASSERT(peer->out != NULL);
        peer->out_room = room;
    }
    return peer->out + peer->out_bytes;
}

void stranger_put_hello(struct stranger *peer, uint64_t session, uint16_t shard)
{
    struct frame_hello hello = {
        .shard = shard, .role = ROLE_CLIENT, .session = session, .seq_first = 1, .floor = 1};
    const struct bytes no_token = {NULL, 0};
    uint8_t *to = out_reserve(peer, sizeof hello + FRAME_ALIGNMENT);
    peer->out_bytes += hello_encode(&hello, no_token, to);
}

void stranger_put_open(struct stranger *peer, const char *cache)
{
    struct bytes name = bytes_of(cache);
    uint8_t *to = out_reserve(peer, sizeof(struct frame_open) + name.size + FRAME_ALIGNMENT);
    peer->out_bytes += open_encode(1, name, to);
}

void stranger_put_extended(struct stranger *peer, enum frame_type type, uint32_t seq,
                           const struct extensions *extensions, struct bytes key,
                           struct bytes value)
{
    struct frame_request header = {.type = (uint8_t)type,
                                   .flags = WANT_REPLY << FRAME_WANT_SHIFT,
                                   .key_len = (uint16_t)key.size,
                                   .cache = peer->cache,
                                   .slot = FRAME_SLOT_ANY,
                                   .seq = seq};
    if (value.size > 0) header.flags |= VALUE_BYTES;
    size_t room = sizeof header + EXTENSIONS_BYTES_MAX + key.size + value.size + FRAME_ALIGNMENT;
    uint8_t *to = out_reserve(peer, room);
    size_t bytes = sizeof header;
    size_t block = extensions != NULL ? extensions_encode(extensions, to + bytes) : 0;
    if (block > 0) header.flags |= FRAME_EXTENDED;
    bytes += block;
    if (key.size > 0) memcpy(to + bytes, key.data, key.size);
    bytes += key.size;
    if (value.size > 0) memcpy(to + bytes, value.data, value.size);
    bytes += value.size;
    header.length = (uint32_t)bytes;
    memcpy(to, &header, sizeof header);
    memset(to + bytes, 0, round_up_8(bytes) - bytes);
    peer->out_bytes += round_up_8(bytes);
}

void stranger_put_request(struct stranger *peer, enum frame_type type, uint32_t seq,
                          struct bytes key, struct bytes value)
{
    stranger_put_extended(peer, type, seq, NULL, key, value);
}

void stranger_put_bytes(struct stranger *peer, const void *data, size_t bytes)
{
    memcpy(out_reserve(peer, bytes), data, bytes);
    peer->out_bytes += bytes;
}

bool stranger_flush(struct stranger *peer)
{
    size_t sent = 0;
    while (sent < peer->out_bytes) {
        struct pollfd ready = {.fd = peer->fd, .events = POLLOUT};
        if (poll(&ready, 1, STRANGER_WAIT_MS) != 1) return false;
        ssize_t bytes =
            send(peer->fd, peer->out + sent, peer->out_bytes - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (bytes < 0 && errno != EAGAIN && errno != EINTR) return false;
        if (bytes > 0) sent += (size_t)bytes;
    }
    peer->out_bytes = 0;
    return true;
}

bool stranger_try_flush(struct stranger *peer)
{
    ssize_t bytes = send(peer->fd, peer->out, peer->out_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (bytes <= 0) return false;
    peer->out_bytes -= (size_t)bytes;
    memmove(peer->out, peer->out + bytes, peer->out_bytes);
    return peer->out_bytes == 0;
}

/* ------------------------------------------------------------------------------- receiving */

static void in_reserve(struct stranger *peer, size_t bytes)
{
    size_t waiting = peer->in_end - peer->in_begin;
    if (peer->in_begin > 0) memmove(peer->in, peer->in + peer->in_begin, waiting);
    peer->in_begin = 0;
    peer->in_end = waiting;
    if (waiting + bytes <= peer->in_room) return;
    peer->in_room = max_u64(ROOM_FIRST, 2 * (waiting + bytes));
    peer->in = memory_resize(peer->in, waiting, peer->in_room);
    ASSERT(peer->in != NULL);
}

/* One read; false: nothing came in time, or the link is over. */
static bool receive(struct stranger *peer, int wait_ms)
{
    struct pollfd ready = {.fd = peer->fd, .events = POLLIN};
    if (peer->is_over || poll(&ready, 1, wait_ms) != 1) return false;
    in_reserve(peer, ROOM_FIRST / 2);
    ssize_t bytes =
        recv(peer->fd, peer->in + peer->in_end, peer->in_room - peer->in_end, MSG_DONTWAIT);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (bytes <= 0) {
        peer->is_over = true;
        peer->over_err = bytes < 0 ? -errno : 0;
        return false;
    }
    peer->in_end += (size_t)bytes;
    return true;
}

/* What nodes send, and of which length at least. */
static bool frame_is_good(const uint8_t *frame, size_t length)
{
    switch ((enum frame_type)frame[4]) {
    case FRAME_WELCOME: return length >= sizeof(struct frame_welcome);
    case FRAME_OPENED: return length >= sizeof(struct frame_opened);
    case FRAME_ACK: return length == sizeof(struct frame_ack);
    case FRAME_REFUSE: return length >= sizeof(struct frame_refuse);
    case FRAME_REPLY: return length >= sizeof(struct frame_reply);
    case FRAME_CHANGES: return length > sizeof(struct frame_changes);
    case FRAME_EVENT: return length == sizeof(struct frame_event);
    case FRAME_HELLO:
    case FRAME_OPEN:
    case FRAME_BATCH:
    case FRAME_INFO:
    case FRAME_SUBSCRIBE:
    case FRAME_CREDIT:
    case FRAME_UPDATE:
    case FRAME_REMOVE:
    case FRAME_GET:
    case FRAME_ADD:
    case FRAME_PUSH:
    case FRAME_PATCH:
    case FRAME_INSERT:
    case FRAME_STOP:
    case FRAME_VERB:
    case FRAME_VERB_FIRST: return false;
    }
    return false;
}

static void tally(struct stranger *peer, const uint8_t *frame)
{
    struct frame_ack ack;
    if (frame[4] == FRAME_REPLY) peer->replies++;
    if (frame[4] != FRAME_ACK) return;
    memcpy(&ack, frame, sizeof ack);
    peer->acked_requests = ack.requests;
    peer->acked_bytes = ack.consumed_bytes;
}

enum stranger_got stranger_take(struct stranger *peer, const uint8_t **frame)
{
    uint32_t length;
    size_t waiting = peer->in_end - peer->in_begin;
    if (waiting < FRAME_PREFIX_BYTES) return STRANGER_SILENCE;
    *frame = peer->in + peer->in_begin;
    memcpy(&length, *frame, sizeof length);
    if (length < FRAME_PREFIX_BYTES || length > FRAME_BYTES_MAX) return STRANGER_BROKEN;
    size_t padded = round_up_8((size_t)length);
    if (padded > waiting) return STRANGER_SILENCE;
    if (!frame_is_good(*frame, length)) return STRANGER_BROKEN;
    peer->in_begin += padded;
    tally(peer, *frame);
    return STRANGER_FRAME;
}

enum stranger_got stranger_next(struct stranger *peer, int wait_ms, const uint8_t **frame)
{
    uint64_t until_ns = clock_now_ns() + (uint64_t)wait_ms * NS_PER_MS;
    for (;;) {
        enum stranger_got got = stranger_take(peer, frame);
        if (got != STRANGER_SILENCE) return got;
        uint64_t now_ns = clock_now_ns();
        if (now_ns > until_ns) return STRANGER_SILENCE;
        bool came = receive(peer, (int)((until_ns - now_ns) / NS_PER_MS) + 1);
        if (came || !peer->is_over) continue;
        /* An end in the middle of a frame is none in order. */
        return peer->in_begin == peer->in_end ? STRANGER_OVER : STRANGER_BROKEN;
    }
}

bool stranger_reply(struct stranger *peer, uint32_t seq, struct frame_reply *reply,
                    struct bytes *value)
{
    const uint8_t *frame;
    while (stranger_next(peer, STRANGER_WAIT_MS, &frame) == STRANGER_FRAME) {
        if (frame[4] != FRAME_REPLY) continue;
        memcpy(reply, frame, sizeof *reply);
        *value = (struct bytes){frame + sizeof *reply, reply->length - sizeof *reply};
        if (reply->seq == seq) return true;
    }
    return false;
}
