#include "bench/limit_client.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "base/memory.h"
#include "bench/limit_frames.h"

#define EVENTS_MAX 64
#define RANDOM_SEED 0x9e3779b97f4a7c15u

/* Wang Yi's wyrand: one multiplication for a key. */
static ALWAYS_INLINE uint64_t random_below(uint64_t *state, uint32_t bound)
{
    *state += 0xa0761d6478bd642fu;
    unsigned __int128 product = (unsigned __int128)*state * (*state ^ 0xe7037ed1a0b428dbu);
    uint64_t random = (uint64_t)(product >> 64) ^ (uint64_t)product;
    return (random >> 32) * bound >> 32;
}

static void make_requests(struct limit_client *client, struct limit_client_link *link,
                          uint32_t count)
{
    uint64_t random = client->random;
    uint8_t *frame = link->frames;
    for (uint32_t i = 0; i < count; i++, frame += client->frame_bytes) {
        struct limit_request *request = (struct limit_request *)frame;
        request->header.seq = ++link->seq;
        request->key = random_below(&random, client->options->keys);
    }
    client->random = random;
    link->left -= count;
    link->in_flight += count;
    link->unsent_from = 0;
    link->unsent_to = count * client->frame_bytes;
}

/* Sends batches while the window has room for one. */
static int send_requests(struct limit_client *client, struct limit_client_link *link)
{
    link->blocked = false;
    while (true) {
        if (link->unsent_from == link->unsent_to) {
            uint32_t count = (uint32_t)min_u64(client->batch, link->left);
            if (count == 0 || link->in_flight + count > client->window) return 0;
            make_requests(client, link, count);
        }
        ssize_t sent = limit_send(link->fd, link->frames + link->unsent_from,
                                  link->unsent_to - link->unsent_from, MSG_DONTWAIT);
        if (sent == -EAGAIN) {
            link->blocked = true;
            return 0;
        }
        if (sent < 0 && sent != -EINTR) return (int)sent;
        if (sent > 0) link->unsent_from += (size_t)sent;
    }
}

/* Checks every reply of `data`. Returns the bytes used. */
static int64_t check_replies(struct limit_client *client, struct limit_client_link *link,
                             const uint8_t *data, size_t bytes)
{
    size_t at = 0;
    uint32_t seq = link->seq_replied;
    size_t reply_bytes = client->reply_bytes;
    for (; at + reply_bytes <= bytes; at += reply_bytes) {
        const struct limit_reply *reply = (const struct limit_reply *)(data + at);
        if (UNLIKELY(reply->seq != ++seq || round_up_8(reply->length) != reply_bytes ||
                     reply->type != LIMIT_TYPE_REPLY || reply->code != 0)) {
            return -EBADMSG;
        }
    }
    uint32_t count = seq - link->seq_replied;
    if (count > link->in_flight) return -EBADMSG;
    link->in_flight -= count;
    link->seq_replied = seq;
    client->received += count;
    return (int64_t)at;
}

/* 1 where there was something, 0 where not. */
static int receive_replies(struct limit_client *client, struct limit_client_link *link, int flags)
{
    struct limit_spill *spill = &link->spill;
    if (spill->bytes > 0) memcpy(client->in, spill->data, spill->bytes);
    ssize_t got =
        limit_receive(link->fd, client->in + spill->bytes, client->options->receive_bytes, flags);
    if (got < 0) return limit_is_later((int)got) ? 0 : (int)got;
    size_t bytes = spill->bytes + (size_t)got;
    int64_t used = check_replies(client, link, client->in, bytes);
    if (used < 0) return (int)used;
    spill->bytes = bytes - (size_t)used;
    if (spill->bytes > 0) memcpy(spill->data, client->in + used, spill->bytes);
    return 1;
}

/* A send that found no room waits for either direction: the server may wait for us to receive. */
static int wait_for_room(const struct limit_client_link *link)
{
    struct pollfd poller = {.fd = link->fd, .events = POLLIN | POLLOUT};
    return poll(&poller, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

static int ask_one(struct limit_client *client, struct limit_client_link *link)
{
    int err = send_requests(client, link);
    if (err < 0) return err;
    bool may_block = !client->spins && !link->blocked;
    int got = receive_replies(client, link, may_block ? 0 : MSG_DONTWAIT);
    if (got == 0 && link->blocked && !client->spins) return wait_for_room(link);
    return got < 0 ? got : 0;
}

static int ask_ready(struct limit_client *client, int poller)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(poller, events, EVENTS_MAX, client->spins ? 0 : -1);
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        struct limit_client_link *link = &client->links[events[i].data.u32];
        bool was_blocked = link->blocked;
        int err = receive_replies(client, link, MSG_DONTWAIT);
        if (err >= 0) err = send_requests(client, link);
        if (err < 0) return err;
        if (link->blocked == was_blocked) continue;
        struct epoll_event event = {.events = link->blocked ? EPOLLIN | EPOLLOUT : EPOLLIN,
                                    .data.u32 = events[i].data.u32};
        if (epoll_ctl(poller, EPOLL_CTL_MOD, link->fd, &event) < 0) return -errno;
    }
    return 0;
}

static int ask(struct limit_client *client, int poller, uint64_t until)
{
    int err = 0;
    while (err == 0 && client->received < until) {
        err = poller >= 0 ? ask_ready(client, poller) : ask_one(client, &client->links[0]);
    }
    return err;
}

/* With many connections the first requests must go before there can be replies to wait for. */
static int ask_first(struct limit_client *client, int poller)
{
    for (uint32_t i = 0; i < client->wiring->count; i++) {
        struct limit_client_link *link = &client->links[i];
        int err = send_requests(client, link);
        if (err < 0) return err;
        if (!link->blocked) continue;
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.u32 = i};
        if (epoll_ctl(poller, EPOLL_CTL_MOD, link->fd, &event) < 0) return -errno;
    }
    return 0;
}

static int client_run(struct limit_client *client)
{
    const struct limit_options *options = client->options;
    const struct limit_wiring *wiring = client->wiring;
    int poller = -1;
    int err = 0;
    if (wiring->count > 1) {
        poller = limit_poller_open(wiring->client_fds, wiring->count);
        if (poller < 0) return poller;
        err = ask_first(client, poller);
    }
    if (err == 0) err = ask(client, poller, options->records_warmup);
    uint64_t early = client->received;
    client->start_ns = clock_now_ns();
    client->cpu_start_ns = clock_thread_cpu_ns();
    if (err == 0) err = ask(client, poller, options->records_warmup + options->records);
    client->cpu_end_ns = clock_thread_cpu_ns();
    client->end_ns = clock_now_ns();
    client->received -= early;
    if (poller >= 0) close(poller);
    return err;
}

void *limit_client_thread(void *context)
{
    struct limit_client *client = context;
    client->err = cpus_pin((uint16_t)client->options->client_cpu);
    if (client->err == 0) client->err = client_run(client);
    if (client->err < 0) limit_hang_up(client->wiring->client_fds, client->wiring->count);
    return NULL;
}

static size_t client_in_bytes(const struct limit_client *client)
{
    return client->reply_bytes + client->options->receive_bytes;
}

void limit_client_deinit(struct limit_client *client)
{
    memory_release(client->in, client_in_bytes(client));
    memory_release(client->memory, client->memory_bytes);
    memory_put(client->links);
}

int limit_client_init(struct limit_client *client, const struct limit_options *options,
                      const struct limit_wiring *wiring)
{
    *client = (struct limit_client){.options = options,
                                    .wiring = wiring,
                                    .random = RANDOM_SEED,
                                    .frame_bytes = limit_frame_bytes(options),
                                    .reply_bytes = limit_reply_frame_bytes(options),
                                    .spins = options->wait == LIMIT_WAIT_SPIN};
    uint64_t window = options->window_bytes / wiring->count / client->frame_bytes;
    uint64_t batch = min_u64(options->batch_bytes / client->frame_bytes, window / 2);
    client->window = (uint32_t)max_u64(window, 1);
    client->batch = (uint32_t)max_u64(batch, 1);

    size_t batch_bytes = client->batch * client->frame_bytes;
    size_t link_bytes = round_up(batch_bytes + client->reply_bytes, CACHE_LINE);
    client->memory_bytes = link_bytes * wiring->count;
    client->memory = memory_reserve(client->memory_bytes, 1);
    client->in = memory_reserve(client_in_bytes(client), 1);
    client->links = memory_take(wiring->count * sizeof(struct limit_client_link));
    if (client->memory == NULL || client->in == NULL || client->links == NULL) return -ENOMEM;
    memory_touch(client->in, client_in_bytes(client));
    uint64_t records = options->records_warmup + options->records;
    for (uint32_t i = 0; i < wiring->count; i++) {
        struct limit_client_link *link = &client->links[i];
        link->fd = wiring->client_fds[i];
        link->frames = client->memory + i * link_bytes;
        link->spill.data = link->frames + batch_bytes;
        link->left = records / wiring->count + (i < records % wiring->count);
        for (size_t at = 0; at < batch_bytes; at += client->frame_bytes) {
            limit_request_init((struct limit_request *)(link->frames + at), options->message_bytes);
        }
    }
    return 0;
}
