/*
 * A caller: the server's end of a link, from accept to close. It belongs to one shard; others know
 * it by index and generation only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "shard/link.h"
#include "shard/session.h"

struct shard;
struct waiter;

enum caller_state {
    CALLER_FREE,
    CALLER_GREETING, /* HELLO has not come */
    CALLER_READY,
    CALLER_STOPPING, /* the node is: no more requests are taken, those that were are answered */
    CALLER_CLOSING,  /* what is in the outbox (a REFUSE) goes out, then it is closed */
    CALLER_CLOSED    /* io_close was called, IO_CLOSED has not come */
};

struct caller {
    struct link link;
    uint32_t index;
    uint32_t generation;
    uint8_t state;       /* enum caller_state */
    bool dirty;          /* in the shard's list of links to flush this turn */
    bool waiting;        /* in the shard's list of links that could not go on */
    bool must_ack;       /* requests were taken since the last ACK */
    bool is_ended;       /* the peer sends no more: closed when it has its answers */
    bool is_known;       /* it has shown the token, or there is none: before, it is told nothing */
    bool is_adopted;     /* another shard has handed it over, so this one greets it */
    bool is_half_open;   /* counted as one that has not greeted */
    bool is_turned_away; /* counted as one that there was no room for */
    uint16_t source;     /* see crowd.h */
    struct shard *shard;
    struct session *session;    /* NULL: none */
    struct session_claim claim; /* what HELLO said of it; its id is 0 where there is none */
    uint32_t frame_bytes_max;   /* its peer takes no longer ones: see HELLO */
    uint64_t seq_highest;       /* 64-bit, of the requests on this link */
    uint32_t requests;          /* since the link began */
    uint32_t seq_last;          /* low half of the last request's number */
    uint64_t consumed_bytes;    /* of request frames */
    uint32_t waits_for;         /* shard whose lane was full, or IO_NONE: its own outbox was */
    uint64_t again_bytes;       /* of what comes next: read before, and put back for want of room */
    uint64_t again_ns;          /* when they were read */
    uint64_t reserved_bytes;    /* outbox room promised to requests that crossed a lane */
    struct caller_queue *queue; /* that it is in, or NULL */
    uint64_t deadline_ns;       /* of its queue: greeting, closing or progress of a frame */
    uint64_t halfway_bytes;     /* of the half-received frame, when its time began, */
    uint64_t halfway_after;     /* and consumed_bytes then */
    struct waiter *waiters;     /* its deferred requests, the newest first */
    uint32_t waiters_count;
    uint32_t debts_count;       /* of those, streams that were not told what its link has taken */
    struct stops *stops;        /* of requests that cross a lane: see waiter.c; NULL: none */
    uint64_t half_closed_timer; /* 0: none */
    struct caller *next;        /* free list, or its queue */
    struct subscription *subscriptions;
    uint32_t subscriptions_count;
    struct caller *previous;
};

/* Whether replies may be written to it. */
static inline bool caller_is_open(const struct caller *caller)
{
    return caller->state == CALLER_READY || caller->state == CALLER_STOPPING;
}

/* Callers that have the same time for what they do, so that the first one's is over first. */
struct caller_queue {
    struct caller *first;
    struct caller *last;
    uint32_t count;
};
