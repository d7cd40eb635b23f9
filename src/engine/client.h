/*
 * A client's runtime: one thread (the caller's), one io, one session, one link to every shard of
 * one node. It is made of
 *
 *   client       start, stop, open, close, the loop, deadlines
 *   client_link  a link, with client_greeting, client_resend, client_answer: see client_link.h
 *   client_api   requests, as include/fero.h describes them: the fast path
 *   window       requests without an answer          dial      when to dial again, and whom
 *   backlog      their bytes, until answered         runs      which cache they belong to
 *   ops          what fero_wait waits for
 *
 * The structs are open to those three files only; others see the functions under "runtime".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/rng.h"
#include "base/secret.h"
#include "base/trace.h"
#include "engine/backlog.h"
#include "engine/dial.h"
#include "engine/ops.h"
#include "engine/runs.h"
#include "engine/runtime.h"
#include "engine/window.h"
#include "fero.h"
#include "net/io.h"
#include "ring/slot.h"
#include "shard/link.h"
#include "wire/hello.h"

#define CLIENT_CACHES_MAX 64
#define CLIENT_EVENTS_MAX 256
#define CLIENT_REASON_BYTES 256
/* How long fero_close, and fero_stop unless told so, wait for what is on its way. */
#define CLIENT_DRAIN_NS (2 * NS_PER_S)
/* A cache has no number on a link that has not opened it, or whose node does not have it. */
#define CLIENT_CACHE_UNKNOWN 0xffffu
/* What stands for one without a name, which no node opens: no node has so many. */
#define CLIENT_CACHE_NONE 0xfffeu

struct client;

/* ---------------------------------------------------------------------------------- caches */

struct client_verb {
    uint8_t type;
    uint8_t bytes;
    char name[FRAME_NAME_BYTES_MAX];
};

struct client_cache {
    struct runtime_head head; /* tells it from a server's cache */
    uint32_t index;           /* in client->caches */
    uint32_t open_seq;        /* of its OPENs: another one than that of who had the index before */
    struct client *client;
    fero_counts counts;
    struct client_verb *verbs;
    uint32_t verbs_count;
    uint32_t verb_last;  /* index of the one used last */
    uint32_t links_open; /* links on which it has a number */
    bool has_new_verbs;  /* a node numbered them anew: those on their way cannot be sent again */
    int open_error;      /* FERO_E_..., why a node would not open it */
    struct bytes name;   /* empty: it is only there to ask the node about itself */
    char name_bytes[FRAME_NAME_BYTES_MAX + 1];
    uint16_t numbers[WINDOW_LINKS_MAX]; /* by link */
};

/* ----------------------------------------------------------------------------------- links */

enum client_link_state {
    CLIENT_LINK_DOWN,       /* no connection; dial.retry_ns says when to try */
    CLIENT_LINK_CONNECTING, /* IO_CONNECTED has not come */
    CLIENT_LINK_GREETING,   /* HELLO and OPENs are on their way */
    CLIENT_LINK_OPENING,    /* WELCOME has come */
    CLIENT_LINK_UP,
    CLIENT_LINK_CLOSING /* io_close was called, IO_CLOSED has not come */
};

enum client_sending { SENDING_NOTHING, SENDING_CONTROL, SENDING_REQUESTS };

struct client_link {
    struct backlog backlog; /* requests; `link` below has an outbox for control frames only */
    uint8_t *stop;          /* requests may be written up to here without asking */
    uint64_t requests;      /* written on this connection */
    uint32_t run_cache;     /* of the last request */
    uint32_t index;
    struct flight_list acks;
    struct client *client;

    uint8_t state;   /* enum client_link_state */
    uint8_t sending; /* enum client_sending */
    bool has_shard;  /* `index` is real: a node has told how many shards it has */
    bool is_leaving; /* the node has fewer shards now: gone after IO_CLOSED */
    uint32_t opens_pending;
    uint64_t handed_requests; /* given to the kernel */
    uint64_t acked_requests;
    uint64_t consumed_bytes;
    uint64_t late_replies; /* replies that may come although their requests timed out */
    uint64_t carried_end;  /* connections that are lost carried lower numbers only */
    uint64_t given_up_low; /* since HELLO was written: the lowest of these that was given up */
    uint64_t seq_seen;     /* what the window had reached when it last sent */
    uint64_t deadline_ns;  /* of being up */
    uint64_t up_since_ns;
    struct address address;
    struct dial dial;
    struct runs runs;
    struct link link;
};

/* ----------------------------------------------------------------------------------- client */

/* What the loop reads of the outside, so that a test may be the outside. */
struct client_seams {
    struct io *io;
    uint64_t (*now_ns)(void *context);
    void *context;
    uint64_t session;   /* random, not 0 */
    uint64_t seq_first; /* 1, except in tests */
};

struct client {
    struct runtime_head head;
    uint32_t now_tick; /* of this turn, see client_tick */
    struct window window;
    uint32_t links_count;
    uint32_t next_link; /* for requests without a key */
    struct fero_stream *streams;
    uint32_t stream_number; /* of the last one */
    uint64_t home_node;     /* identity of `home` */
    uint32_t key_bytes_max;
    uint32_t value_bytes_max;
    uint32_t frame_bytes_max; /* that the node takes, as its limits of keys and values */
    bool is_unbatched;        /* every request is a send of its own */
    bool is_in_turn;          /* a callback may be running */
    bool is_polled;           /* the caller waits for client_fd, not in client_turn */
    bool is_due;              /* client_fd was made readable, because there are requests to send */
    bool is_stopping;
    bool is_starved;   /* somebody was told FERO_E_AGAIN since the last turn */
    bool has_progress; /* room was made since then */
    bool has_room;     /* in a pull queue that was full */
    bool clock_is_old; /* the caller had control since it was read */
    uint32_t finished; /* requests that ended in this turn, and links that came or went */
    uint64_t now_ns;
    uint64_t traffic_ns; /* when something last came */
    uint64_t spin_ns;    /* spent on looking for something, since the start */
    struct client_seams seams;

    struct client_cache *caches[CLIENT_CACHES_MAX + 1]; /* unused ones are &nobody */
    uint32_t caches_count;
    uint32_t caches_closed; /* ever */
    struct client_link *links[WINDOW_LINKS_MAX];
    struct client_link *seeker; /* the first link ever, before its node said how many there are */
    uint32_t links_up;
    bool has_home;
    struct address home; /* of the node that all links go to */
    char home_text[ADDRESS_TEXT_BYTES];
    struct seeds seeds;
    uint32_t seek_rounds; /* times that no seed was any good, since the last home */
    bool all_refuse;      /* no connection was had, and none waited for, since the last fero_open */
    struct ops *ops;
    struct chunk_pool pool;
    struct rng rng;
    uint64_t session;
    uint64_t session_start; /* milliseconds of the wall clock << 16: a hybrid logical clock */
    uint64_t outbox_bytes_max;
    uint64_t window_bytes_max; /* our option */
    uint64_t window_bytes;     /* and the node's, if less */
    uint32_t window_requests_max;
    uint32_t *stream_ticks; /* timeouts of streams, by place in the window; NULL: none yet */
    int idle;               /* FERO_IDLE_... */
    int refusal;            /* FERO_E_... that a node refused us with, 0: none */
    char reason[CLIENT_REASON_BYTES]; /* why the last link was lost or could not be had */
    struct secret *token;             /* NULL: none */
    uint32_t deaf_rounds; /* times that a seed closed the link without an answer to HELLO */
    struct trace trace;
    fero_log_fn log;
    void *log_ud;
    fero_queue *queues;
    fero_drain_fn drain; /* NULL: nobody wants to know when there is room again */
    void *drain_ud;
    uint16_t slot_link[SLOTS_COUNT];
    struct io_event events[CLIENT_EVENTS_MAX];
    uint32_t events_count;      /* received, not handled yet */
    struct client_cache nobody; /* owner of requests whose cache was closed, and of our own */
};

/* A tick is about a millisecond: 2^20 ns. Deadlines are compared modulo 2^32 of them. */
#define CLIENT_TICK_SHIFT 20
static inline uint32_t client_tick(uint64_t now_ns)
{
    return (uint32_t)(now_ns >> CLIENT_TICK_SHIFT);
}

/* --------------------------------------------------------------------------------- runtime */

/* As fero_start, fero_stop, fero_open, fero_run and fero_fd describe them, for clients. */
MUST_CHECK int client_start(const fero_runtime_opts *opts, struct client **out);
/* Takes the io, also where it fails. */
MUST_CHECK int client_start_on(const fero_runtime_opts *opts, const struct client_seams *seams,
                               struct client **out);
int client_stop(struct client *client, uint64_t drain_ns);
MUST_CHECK int client_open(struct client *client, const char *name, const fero_opts *opts,
                           fero_cache **out);
int client_close(struct client_cache *cache);
int client_run(struct client *client, int64_t timeout_ms);
int client_fd(struct client *client);
/* Its descriptor, if it has one, becomes readable; drain is to be called by its next run. */
void client_ring(struct client *client);
void client_has_room(struct client *client);
void client_on_drain(struct client *client, fero_drain_fn drain, void *ud);
/* Of the CPU time that this client has used: how much it waited by looking again and again. */
uint64_t client_spin_ns(const fero_cache *cache);

/* ---------------------------------------------------------------------------- for its files */

/* client.c */
uint64_t client_now(struct client *client);
/* One turn: sends, waits up to `wait_ns`, does what came. */
void client_turn(struct client *client, uint64_t wait_ns);
/* The caller has control again, and may go and wait for something else. */
void client_leave(struct client *client);
/* A caller who polls made a request: client_fd is readable, so that he runs and it is sent. */
void client_due(struct client *client);
/* Sends what a link has, at once: for requests that are not batched. */
void client_send_now(struct client *client, struct client_link *link);
/* The request ends: its place is freed, then whoever waits is told. */
void client_end(struct client *client, struct flight *flight, const fero_result *result);
/*
 * Ends without an answer the requests that `match` says; those that nobody is called back for come
 * first, because callbacks may send.
 */
typedef bool (*client_match_fn)(const struct client *client, const struct flight *flight,
                                const void *context);
void client_end_matching(struct client *client, client_match_fn match, const void *context,
                         int error);

/* A link: see client_link.h. */
/* NULL: no memory. */
struct client_link *client_link_make(struct client *client, uint32_t index);
/* The io has let go of it. */
void client_link_free(struct client_link *link);
void client_link_event(struct client_link *link, const struct io_event *event);
/* Starts a send, unless one is on its way or there is nothing. True: it started one. */
bool client_link_flush(struct client_link *link);
/* Timers: dials what is due, gives up what takes too long. */
void client_link_tick(struct client_link *link);
/* When client_link_tick has something to do. */
uint64_t client_link_timer_ns(const struct client_link *link);
/* Asks a link that has greeted to open one more cache. -ENOMEM. */
MUST_CHECK int client_link_open(struct client_link *link, struct client_cache *cache);
/* Sets `stop` by all limits. Returns how many bytes may be written at once. */
size_t client_link_credit(struct client_link *link);
/*
 * client_api.c: asks the node to stop a request on its way, which its link has taken. 0, or as requests
 * do: FERO_E_AGAIN.
 */
int client_stop_request(struct client *client, uint64_t seq);
