/*
 * The two queues of io_uring, requests to the kernel and completions from it, and the one system
 * call that moves both.
 *
 * The ring is set up so that completions run inside our own call only (DEFER_TASKRUN), never as an
 * interruption. The kernel then sets a flag in shared memory when there is something to run, so a
 * spinning thread learns of it without a system call.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "net/uring_compat.h"

/*
 * What a request was for. A request's user_data is {operation, generation, index}, so that its
 * completion finds its owner without a pointer and a completion of the past is told from one of now.
 */
enum operation {
    OPERATION_RECEIVE, /* these have a connection's index */
    OPERATION_SEND,
    OPERATION_CONNECT,
    OPERATION_CANCEL,
    OPERATION_UDP_RECEIVE,
    OPERATION_UDP_SEND, /* index: of the send slot */
    OPERATION_ACCEPT,   /* from here on there is one of each an io */
    OPERATION_ACCEPT_CANCEL,
    OPERATION_WAKE_POLL, /* our own eventfd was written to */
    OPERATION_WOKEN,     /* another ring sent a message */
    OPERATION_WAKE_SEND  /* waking somebody; index: his eventfd */
};

static inline uint64_t user_data_of(enum operation operation, uint32_t generation, uint32_t index)
{
    return (uint64_t)operation << 56 | (uint64_t)(generation & 0xffffff) << 32 | index;
}
static inline enum operation user_data_operation(uint64_t user_data)
{
    return (enum operation)(user_data >> 56);
}
static inline uint32_t user_data_generation(uint64_t user_data)
{
    return (uint32_t)(user_data >> 32) & 0xffffff;
}
static inline uint32_t user_data_index(uint64_t user_data)
{
    return (uint32_t)user_data;
}

struct queue {
    struct io_uring uring;
    uint32_t features;    /* enum uring_feature: in use */
    uint32_t enter_flags; /* of every call */
    uint64_t *enters;     /* counters that are not ours */
    uint64_t *overflows;
    uint32_t overflows_seen; /* of the kernel's own count */
    /* Tests: the operation that fails, and how. */
    uint64_t fail_countdown;
    int fail_err;
    uint64_t fail_user_data; /* its completion gets fail_err; 0: none */
};

struct queue_options {
    uint32_t requests; /* entries; clamped to what the kernel allows */
    uint32_t completions;
    uint32_t features; /* wanted */
    uint64_t *enters;
    uint64_t *overflows;
};

/* -errno of io_uring_setup, or -EINVAL where the kernel is older than 6.0. */
MUST_CHECK int queue_open(struct queue *queue, const struct queue_options *options);
void queue_close(struct queue *queue);

/*
 * An empty request, or NULL when the queue is full and the kernel does not take any now: try again
 * in the next turn. Fill it with io_uring_prep_*, then call queue_start.
 */
MUST_CHECK struct io_uring_sqe *queue_request(struct queue *queue);
/* The request is complete; the next queue_enter submits it. */
void queue_start(struct queue *queue, struct io_uring_sqe *request, uint64_t user_data);

/*
 * Submits, runs what is to be completed, and waits up to `wait_ns` for a completion. Returns 0, or
 * -EAGAIN or -EBUSY where the kernel could not take the requests: they stay queued.
 */
int queue_enter(struct queue *queue, uint64_t wait_ns);

/*
 * From now on the kernel writes to `event_fd` when there are completions, or work that a call would
 * turn into some. -errno.
 */
MUST_CHECK int queue_watch(struct queue *queue, int event_fd);

/* Waits until everything in flight was cancelled. Completions still have to be read. */
void queue_cancel_all(struct queue *queue);

static inline unsigned queue_requests_count(const struct queue *queue)
{
    const struct io_uring_sq *sq = &queue->uring.sq;
    return sq->sqe_tail - *sq->khead;
}

static inline bool queue_has_completions(const struct queue *queue)
{
    const struct io_uring_cq *cq = &queue->uring.cq;
    return *cq->khead != io_uring_smp_load_acquire(cq->ktail);
}

/* Whether the kernel has completions to run, or to move into the queue, that need a call. */
static inline bool queue_needs_enter(const struct queue *queue)
{
    return (IO_URING_READ_ONCE(*queue->uring.sq.kflags) &
            (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

struct completion {
    uint64_t user_data;
    int32_t result;
    uint32_t flags;
};

/* Takes the next completion; false when there is none. */
static inline bool queue_pop(struct queue *queue, struct completion *completion)
{
    struct io_uring_cq *cq = &queue->uring.cq;
    unsigned head = *cq->khead;
    if (head == io_uring_smp_load_acquire(cq->ktail)) return false;
    const struct io_uring_cqe *cqe = &cq->cqes[head & cq->ring_mask];
    *completion = (struct completion){cqe->user_data, cqe->res, cqe->flags};
    /* Release: the kernel may write over it from now on, and it was read. */
    io_uring_smp_store_release(cq->khead, head + 1);
    if (UNLIKELY(queue->fail_user_data != 0) && completion->user_data == queue->fail_user_data) {
        completion->result = queue->fail_err;
        queue->fail_user_data = 0;
    }
    return true;
}

/* Whether the test's countdown makes this operation fail. */
static inline bool queue_fails_now(struct queue *queue)
{
    return UNLIKELY(queue->fail_countdown > 0) && --queue->fail_countdown == 0;
}
