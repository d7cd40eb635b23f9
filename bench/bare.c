#include "bench/bare.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "base/memory.h"
#include "net/buffers.h"
#include "net/queue.h"
#include "net/uring.h"
#include "wire/frame.h"

#define RECEIVE_BYTES 16384
#define EVENTS_MAX 256
#define BUFFERS_COUNT 64
#define REQUESTS_COUNT 1024
#define COMPLETIONS_COUNT 8192

/* Bytes came, or the end of them (0), or an error. */
static void received(struct bare *bare, uint32_t index, int64_t result)
{
    struct bare_peer *peer = &bare->peers[index];
    if (result <= 0) {
        bare->lost_count += !peer->is_lost;
        peer->is_lost = 1;
        if (result < 0 && bare->err == 0) bare->err = (int)result;
        return;
    }
    peer->bytes += (uint32_t)result;
    if (peer->is_due || peer->bytes < bare->options.request_bytes) return;
    peer->is_due = 1;
    bare->due[bare->due_count++] = index;
}

/* Bytes of the replies to what is whole of the peer's requests. */
static uint32_t answer(struct bare *bare, uint32_t index)
{
    struct bare_peer *peer = &bare->peers[index];
    uint32_t requests = peer->bytes / bare->options.request_bytes;
    ASSERT(requests > 0);
    ASSERT(requests <= bare->options.in_flight_max);
    peer->bytes -= requests * bare->options.request_bytes;
    peer->is_due = 0;
    return requests * FRAME_REPLY_BYTES;
}

static bool is_over(const struct bare *bare)
{
    return bare->err < 0 || bare->lost_count == bare->wiring.count;
}

/* ------------------------------------------------------------------------------------ epoll */

static void epoll_turn(struct bare *bare)
{
    struct epoll_event events[EVENTS_MAX];
    uint8_t in[RECEIVE_BYTES];
    const int *fds = bare->wiring.server_fds;
    int count = epoll_wait(bare->poller, events, EVENTS_MAX, -1);
    if (count < 0 && errno != EINTR) bare->err = -errno;
    for (int i = 0; i < count; i++) {
        uint32_t index = events[i].data.u32;
        if (bare->peers[index].is_lost) continue;
        ssize_t bytes = recv(fds[index], in, sizeof in, MSG_DONTWAIT);
        if (bytes >= 0 || errno != EAGAIN) received(bare, index, bytes < 0 ? -errno : bytes);
    }
    for (uint32_t i = 0; i < bare->due_count; i++) {
        uint32_t bytes = answer(bare, bare->due[i]);
        /* Few small replies always have room. */
        ssize_t sent = send(fds[bare->due[i]], bare->replies, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent != (ssize_t)bytes) bare->err = sent < 0 ? -errno : -EMSGSIZE;
    }
    bare->due_count = 0;
}

static void *epoll_thread(void *context)
{
    struct bare *bare = context;
    if (cpus_pin(bare->options.cpu) < 0) bare->err = -EINVAL;
    while (!is_over(bare)) epoll_turn(bare);
    limit_hang_up(bare->wiring.server_fds, bare->wiring.count);
    return NULL;
}

/* --------------------------------------------------------------------------------- io_uring */

struct bare_ring {
    struct queue queue;
    struct buffers buffers;
    uint64_t enters;
    uint64_t overflows;
};

static int ring_open(struct bare_ring *ring)
{
    const struct queue_options options = {.requests = REQUESTS_COUNT,
                                          .completions = COMPLETIONS_COUNT,
                                          .features = URING_FEATURES_DEFAULT,
                                          .enters = &ring->enters,
                                          .overflows = &ring->overflows};
    const struct buffers_options buffers = {.count = BUFFERS_COUNT, .data_bytes = RECEIVE_BYTES};
    int err = queue_open(&ring->queue, &options);
    if (err < 0) return err;
    err = buffers_open(&ring->buffers, &buffers, &ring->queue.uring);
    if (err < 0) queue_close(&ring->queue);
    return err;
}

static void ring_close(struct bare_ring *ring)
{
    queue_cancel_all(&ring->queue);
    queue_close(&ring->queue);
    buffers_close(&ring->buffers);
}

static void ring_receive(struct bare *bare, struct bare_ring *ring, uint32_t index)
{
    struct io_uring_sqe *request = queue_request(&ring->queue);
    if (request == NULL) {
        bare->err = -EBUSY;
        return;
    }
    io_uring_prep_recv_multishot(request, bare->wiring.server_fds[index], NULL, 0, 0);
    request->flags |= IOSQE_BUFFER_SELECT;
    queue_start(&ring->queue, request, user_data_of(OPERATION_RECEIVE, 0, index));
}

static void ring_send(struct bare *bare, struct bare_ring *ring, uint32_t index)
{
    struct io_uring_sqe *request = queue_request(&ring->queue);
    if (request == NULL) {
        bare->err = -EBUSY;
        return;
    }
    io_uring_prep_send(request, bare->wiring.server_fds[index], bare->replies, answer(bare, index),
                       MSG_WAITALL | MSG_NOSIGNAL);
    queue_start(&ring->queue, request, user_data_of(OPERATION_SEND, 0, index));
}

static void ring_reap(struct bare *bare, struct bare_ring *ring)
{
    struct completion completion;
    while (queue_pop(&ring->queue, &completion)) {
        uint32_t index = user_data_index(completion.user_data);
        int32_t result = completion.result;
        if (user_data_operation(completion.user_data) == OPERATION_SEND) {
            if (result < 0 && bare->err == 0) bare->err = result;
            continue;
        }
        if (completion.flags & IORING_CQE_F_BUFFER)
            buffers_put(&ring->buffers, (uint16_t)(completion.flags >> IORING_CQE_BUFFER_SHIFT));
        if (result == -ENOBUFS)
            buffers_need_more(&ring->buffers);
        else
            received(bare, index, result);
        bool is_armed = (completion.flags & IORING_CQE_F_MORE) != 0;
        if (!is_armed && !bare->peers[index].is_lost) ring_receive(bare, ring, index);
    }
}

static void *uring_thread(void *context)
{
    struct bare *bare = context;
    struct bare_ring ring = {0};
    if (cpus_pin(bare->options.cpu) < 0) bare->err = -EINVAL;
    int err = ring_open(&ring);
    if (err < 0) bare->err = err;
    for (uint32_t i = 0; err == 0 && i < bare->wiring.count; i++) ring_receive(bare, &ring, i);
    while (!is_over(bare)) {
        (void)queue_enter(&ring.queue, TIME_NEVER);
        ring_reap(bare, &ring);
        for (uint32_t i = 0; i < bare->due_count; i++) ring_send(bare, &ring, bare->due[i]);
        bare->due_count = 0;
        buffers_publish(&ring.buffers);
    }
    if (err == 0) ring_close(&ring);
    /* Clients must not wait for it, whatever it ended for. */
    limit_hang_up(bare->wiring.server_fds, bare->wiring.count);
    return NULL;
}

/* ------------------------------------------------------------------------------ start, stop */

static int memory_open(struct bare *bare)
{
    const struct frame_reply reply = {.length = FRAME_REPLY_BYTES, .type = FRAME_REPLY};
    uint32_t count = bare->options.connections;
    bare->peers = memory_take(count * sizeof *bare->peers);
    bare->due = memory_take(count * sizeof *bare->due);
    bare->replies = memory_take((size_t)bare->options.in_flight_max * sizeof reply);
    if (bare->peers == NULL || bare->due == NULL || bare->replies == NULL) return -ENOMEM;
    for (uint32_t i = 0; i < bare->options.in_flight_max; i++)
        memcpy(bare->replies + i * sizeof reply, &reply, sizeof reply);
    return 0;
}

int bare_start(struct bare *bare, const struct bare_options *options)
{
    ASSERT(options->connections > 0);
    ASSERT(options->request_bytes > 0);
    *bare = (struct bare){.options = *options, .poller = -1};
    int err = memory_open(bare);
    if (err == 0) err = limit_wiring_init(&bare->wiring, options->connections, 0);
    if (err == 0 && options->way == BARE_EPOLL) {
        bare->poller = limit_poller_open(bare->wiring.server_fds, options->connections);
        if (bare->poller < 0) err = bare->poller;
    }
    if (err < 0) return err;
    void *(*thread)(void *) = options->way == BARE_EPOLL ? epoll_thread : uring_thread;
    err = -pthread_create(&bare->thread, NULL, thread, bare);
    bare->runs = err == 0;
    if (err == 0) err = -pthread_getcpuclockid(bare->thread, &bare->cpu_clock);
    return err;
}

uint64_t bare_cpu_ns(const struct bare *bare)
{
    struct timespec time = {0};
    (void)clock_gettime(bare->cpu_clock, &time);
    return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

void bare_stop(struct bare *bare)
{
    if (bare->runs) {
        limit_hang_up(bare->wiring.client_fds, bare->wiring.count);
        pthread_join(bare->thread, NULL);
    }
    if (bare->poller >= 0) close(bare->poller);
    limit_wiring_deinit(&bare->wiring);
    memory_put(bare->peers);
    memory_put(bare->due);
    memory_put(bare->replies);
    *bare = (struct bare){.poller = -1};
}
