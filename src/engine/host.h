/*
 * Threads of the host program that make requests of a node in their own process: each registers
 * once, with its first request or before, and gets a port (shard/port.h), a window of requests
 * without an answer, and operations to wait for. All of that is the thread's alone.
 *
 * What they have in common is struct hosts, a part of the node: who is registered, and whether the
 * node still takes requests. It lives until the last registered thread has left, although its node
 * may have stopped before, so that a thread that calls too late is told so.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "engine/feeding.h"
#include "engine/message.h"
#include "engine/ops.h"
#include "shard/port.h"
#include "shard/shard.h"

struct driver;
struct hosts;

/* A request without an answer. */
struct host_flight {
    fero_done_fn done;
    void *ud;
    uint64_t seq;
    uint64_t deadline_ns;
    uint32_t generation; /* odd: there is one */
    uint32_t op;         /* its number, 0: none; of a free one, the next free one */
    uint32_t shard;
    struct deferred_name deferred; /* what it is called there; generation 0: it is not deferred */
    uint32_t owed_bytes; /* of a stream's parts, that the shard does not know to be taken */
    bool is_stream;      /* `done` is called for each part */
    bool is_stopped;     /* its shard has to be told so, when it is known to be deferred */
    uint64_t timeout_ns; /* that begins anew with each part */
};

/* What a thread does with its node, as the thread that stops the node must know it. */
enum host_busy { HOST_OUT, HOST_CALLS, HOST_WAITS };

struct host {
    struct port port;
    uint32_t busy __attribute__((aligned(CACHE_PAIR))); /* enum host_busy; release */
    bool is_taken;                                      /* by a thread; under the lock */
    bool is_in_turn;                                    /* a callback may be running */
    bool drives;                                        /* it is the thread that drives the node */
    bool is_leaving;                                    /* it makes no requests any more */
    bool is_starved;                                    /* was told FERO_E_AGAIN by `starved_by` */
    uint32_t starved_by;                                /* shard */
    bool awaits_parts; /* what was refused is a part of a stream; and so much had been taken: */
    uint64_t parts_seen;
    bool has_debts;      /* flights have owed_bytes that found no room in a lane */
    uint32_t next_shard; /* for requests without a key */
    struct hosts *hosts;
    struct host *next_here; /* of this thread: its port to another node */
    struct ops *ops;
    struct host_flight *flights; /* options->window_requests, reserved */
    uint32_t flights_fresh;
    uint32_t flights_free;  /* index + 1 */
    uint32_t flights_count; /* in use */
    uint32_t finished;      /* requests that ended in this run */
    uint64_t seq;
    uint64_t due_ns; /* no deadline is before it */
    uint64_t spin_ns;
    fero_queue *queues;
    struct feedings feedings;
    fero_drain_fn drain;
    void *drain_ud;
};

struct hosts {
    struct ports ports;
    uint32_t closed;               /* it stops, and takes no more requests; release, acquire */
    uint32_t gone;                 /* its shards turn no more; release, acquire */
    struct host *hosts[PORTS_MAX]; /* as many as ports */
    uint32_t hosts_max;
    uint64_t spin_ns_max;
    const struct shard_options *options;
    struct shard **shards;
    struct mailbox *mailboxes;
    const uint16_t *slot_owner;
    pthread_mutex_t lock;  /* of registering and leaving */
    uint32_t users;        /* registered threads, and the node itself until it has stopped */
    struct driver *driver; /* of a node without threads; NULL: its shards have some */
    void (*free)(struct hosts *hosts); /* the last user has left */
};

/* The caller has filled hosts_max, spin_ns_max, options, shards, mailboxes, slot_owner and free. */
void hosts_init(struct hosts *hosts);
/* By `free`: lets go of ports and lanes. */
void hosts_deinit(struct hosts *hosts);

/*
 * The steps of a node that stops. hosts_close: no request is taken any more, and those that were
 * have been given to the shards; FERO_E_INVAL in a callback or on a shard's thread. hosts_end: all
 * shards have stopped; returns when no other thread looks at them any more. hosts_leave: nothing of
 * the node but `hosts` is left; ends the requests of this thread. May free `hosts`.
 */
MUST_CHECK int hosts_close(struct hosts *hosts);
void hosts_end(struct hosts *hosts);
void hosts_leave(struct hosts *hosts);
/* The calling thread's, which is registered if it was not. */
MUST_CHECK int host_here(struct hosts *hosts, struct host **out);
/*
 * Between these two the shards of the node are there. FERO_E_CLOSED: they may not be.
 */
MUST_CHECK int host_enter(struct host *host);
void host_exit(struct host *host);
/* Publishes what was pushed to the port, unless a callback is running. */
void host_publish(struct host *host);

/*
 * Keeps `hosts` in memory for whoever may call later, from any thread; and gives it back, which may
 * free it.
 */
void hosts_share(struct hosts *hosts);
void hosts_unshare(struct hosts *hosts);
/*
 * Gives the shard a reply to one of its deferred requests, or a part, counted in `given` of its request. 0 or a FERO_E_..., with fero_errmsg.
 */
MUST_CHECK int host_answer(struct hosts *hosts, uint32_t shard, struct deferred_name name,
                           const struct deferred_answer *answer, struct given *given);

/* As include/fero.h describes them, for the threads of a server. */
int host_register(struct hosts *hosts);
/* Its descriptor, if it has one, becomes readable; drain is to be called by its next run. */
void host_ring(struct host *host);
void host_has_room(struct host *host);
int host_unregister(struct hosts *hosts);
int host_request(struct hosts *hosts, uint32_t cache, struct message *message,
                 const fero_wopts *opts, fero_op **op);
struct server_cache;
int host_read(const struct server_cache *cache, fero_slice key, void *buffer, size_t bytes,
              fero_val *value, uint64_t *offset);
int64_t host_read_many(const struct server_cache *cache, fero_reading *readings, size_t count);
int host_run(struct hosts *hosts, int64_t timeout_ms);
int host_fd(struct hosts *hosts);
int host_on_drain(struct hosts *hosts, fero_drain_fn drain, void *ud);
/* Stops the request that `op`, which is not done, waits for, if a handler keeps it or comes to. */
int host_cancel(const fero_op *op);
/* Runs until `op`, which is not done, is done or the time is over. */
int host_wait(fero_op *op, int64_t timeout_ms);
