#include "net/queue.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "net/uring.h"

/* Operations that liburing 2.3 names; a kernel of today knows more. */
#define PROBE_OPERATIONS 64
/* A destroyed io gives cancelled operations this long; in practice they take microseconds. */
#define CANCEL_SECONDS 5

/*
 * From the best set of flags to the poorest that still runs. CLAMP: large tables get what the
 * kernel allows. SUBMIT_ALL: one bad request does not hold the others back.
 */
static int setup(struct queue *queue, const struct queue_options *options)
{
    const uint32_t base = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    const uint32_t ladder[] = {
        base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER |
            IORING_SETUP_DEFER_TASKRUN,
        base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_COOP_TASKRUN,
        base | IORING_SETUP_SUBMIT_ALL,
        base,
    };
    int err = -EINVAL;
    for (size_t i = options->features & URING_DEFER_TASKRUN ? 0 : 1; i < ARRAY_COUNT(ladder); i++) {
        struct io_uring_params params = {.flags = ladder[i], .cq_entries = options->completions};
        err = io_uring_queue_init_params(options->requests, &queue->uring, &params);
        if (err == 0 && i == 0) queue->features |= URING_DEFER_TASKRUN;
        if (err != -EINVAL) break;
    }
    return err;
}

static bool has_operation(const struct io_uring_probe *probe, int operation)
{
    return operation <= probe->last_op &&
           (probe->ops[operation].flags & IO_URING_OP_SUPPORTED) != 0;
}

/* Which of the wanted features this kernel has. */
static int probe_features(struct queue *queue, uint32_t wanted)
{
    union {
        struct io_uring_probe probe;
        uint8_t room[sizeof(struct io_uring_probe) +
                     PROBE_OPERATIONS * sizeof(struct io_uring_probe_op)];
    } answer;
    memset(&answer, 0, sizeof answer);
    int err = io_uring_register_probe(&queue->uring, &answer.probe, PROBE_OPERATIONS);
    if (err < 0) return err;
    /* Zero-copy sends came with 6.0, and with it multishot receives, which cannot be probed. */
    if (!has_operation(&answer.probe, IORING_OP_SEND_ZC)) return -EINVAL;

    uint32_t kernel = queue->uring.features;
    uint32_t found = URING_SEND_ZC | URING_UDP_GRO;
    if ((kernel & (IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP)) !=
        (IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP))
        return -EINVAL;
    /* Before 6.11 a message to a ring with deferred work was slower than an eventfd. */
    if ((kernel & COMPAT_FEAT_MIN_TIMEOUT) && has_operation(&answer.probe, IORING_OP_MSG_RING))
        found |= URING_MSG_RING;
    if (kernel & COMPAT_FEAT_RECVSEND_BUNDLE) found |= URING_RECV_BUNDLE;
    if (kernel & COMPAT_FEAT_NO_IOWAIT) found |= URING_NO_IOWAIT;
    queue->features |= found & wanted;
    return 0;
}

int queue_open(struct queue *queue, const struct queue_options *options)
{
    *queue = (struct queue){.enters = options->enters, .overflows = options->overflows};
    int err = setup(queue, options);
    if (err < 0) return err;
    err = probe_features(queue, options->features);
    if (err < 0) {
        io_uring_queue_exit(&queue->uring);
        return err;
    }
    if ((options->features & URING_RING_FD) && io_uring_register_ring_fd(&queue->uring) == 1) {
        queue->features |= URING_RING_FD;
        queue->enter_flags |= IORING_ENTER_REGISTERED_RING;
    }
    if (queue->features & URING_NO_IOWAIT) queue->enter_flags |= COMPAT_ENTER_NO_IOWAIT;
    /* Request i is always at index i: the indirection through the array is not used. */
    for (unsigned i = 0; i < queue->uring.sq.ring_entries; i++) queue->uring.sq.array[i] = i;
    return 0;
}

void queue_close(struct queue *queue)
{
    io_uring_queue_exit(&queue->uring);
}

/* Makes the requests visible, and returns how many there are. */
static unsigned publish(struct queue *queue)
{
    struct io_uring_sq *sq = &queue->uring.sq;
    io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
    return queue_requests_count(queue);
}

static int enter(struct queue *queue, unsigned wait_count, unsigned flags,
                 struct io_uring_getevents_arg *argument)
{
    unsigned requests = publish(queue);
    ++*queue->enters;
    int err = io_uring_enter2((unsigned)queue->uring.enter_ring_fd, requests, wait_count,
                              flags | queue->enter_flags, (sigset_t *)argument,
                              argument != NULL ? sizeof *argument : 0);
    switch (err) {
    case -ETIME:
    case -EINTR: return 0;
    case -EAGAIN: /* no memory for a request */
    case -EBUSY: /* completions overflowed: they must be read first */ return err;
    default: break;
    }
    ASSERT(err >= 0);
    return 0;
}

struct io_uring_sqe *queue_request(struct queue *queue)
{
    struct io_uring_sqe *request = io_uring_get_sqe(&queue->uring);
    if (LIKELY(request != NULL)) return request;
    if (enter(queue, 0, 0, NULL) < 0) return NULL;
    return io_uring_get_sqe(&queue->uring);
}

void queue_start(struct queue *queue, struct io_uring_sqe *request, uint64_t user_data)
{
    if (queue_fails_now(queue)) {
        io_uring_prep_nop(request);
        request->flags = 0;
        queue->fail_user_data = user_data;
    }
    request->user_data = user_data;
}

static void count_overflows(struct queue *queue)
{
    uint32_t overflows = IO_URING_READ_ONCE(*queue->uring.cq.koverflow);
    bool now = (IO_URING_READ_ONCE(*queue->uring.sq.kflags) & IORING_SQ_CQ_OVERFLOW) != 0;
    *queue->overflows += (uint64_t)(overflows - queue->overflows_seen) + now;
    queue->overflows_seen = overflows;
}

int queue_enter(struct queue *queue, uint64_t wait_ns)
{
    int err;
    if (wait_ns == 0) {
        err = enter(queue, 0, IORING_ENTER_GETEVENTS, NULL);
    } else {
        struct __kernel_timespec timeout = {
            .tv_sec = (int64_t)(wait_ns / NS_PER_S),
            .tv_nsec = (long long)(wait_ns % NS_PER_S),
        };
        struct io_uring_getevents_arg argument = {
            .ts = wait_ns == TIME_NEVER ? 0 : (uint64_t)(uintptr_t)&timeout,
        };
        err = enter(queue, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument);
    }
    count_overflows(queue);
    return err;
}

int queue_watch(struct queue *queue, int event_fd)
{
    return io_uring_register_eventfd(&queue->uring, event_fd);
}

void queue_cancel_all(struct queue *queue)
{
    struct io_uring_sync_cancel_reg everything = {
        .fd = -1,
        .flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL,
        .timeout = {.tv_sec = CANCEL_SECONDS},
    };
    /* -ENOENT: nothing was in flight. */
    (void)io_uring_register_sync_cancel(&queue->uring, &everything);
}
