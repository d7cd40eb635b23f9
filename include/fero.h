/*
 * fero.h - the public interface of libfero.
 *
 * A runtime (struct fero) is shards, connections and memory; a cache is a named service and its
 * state. A server's runtime has one thread for every shard. A client's runtime has no thread: the
 * caller's own loop drives it, through fero_run. examples/ has a program for each.
 *
 * Rules of this header
 *   - Handles are opaque. Every struct that the caller fills begins with `size`, to be set to
 *     sizeof the struct; 0 in another field means the default, FERO_OFF means none or switched off
 *     where the field says so.
 *   - Units stand last in a name: _ms, _bytes. Times are durations, measured from the call.
 *   - Functions return 0 (or a count) or a negative FERO_E_...; fero_errmsg has the details of the
 *     calling thread's last failure, and says what to do next. Where no error is listed, only
 *     FERO_E_INVAL is possible, for a NULL or a handle of the other kind of runtime.
 *   - A pointer given to a function is borrowed until it returns, unless its comment says
 *     otherwise. Memory handed to a callback is borrowed until the callback returns.
 *   - Nothing blocks except fero_start, fero_open, fero_run, fero_wait, fero_close and fero_stop.
 *   - Threads: a client's runtime, its caches and its operations belong to the thread that started
 *     it; another thread starts a runtime of its own. A server's runtime may be started, opened and
 *     stopped by any thread, by one at a time; requests of its caches are made by any number of
 *     threads at once (see fero_thread_register), and an operation belongs to the thread that made
 *     it. Handlers run on shard threads.
 *   - The library installs no signal handler, prints nothing, and ends the process only where it
 *     finds itself broken (an assertion).
 */
#ifndef FERO_H
#define FERO_H 1

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) || defined(__clang__)
#define FERO_API __attribute__((visibility("default")))
#define FERO_NODISCARD __attribute__((warn_unused_result))
#else
#define FERO_API
#define FERO_NODISCARD
#endif

#define FERO_VERSION "0.1.0"
#define FERO_OFF ((int64_t)-1)

typedef struct fero fero;             /* a runtime: fero_start to fero_stop */
typedef struct fero_cache fero_cache; /* fero_open to fero_close, or the runtime's fero_stop */
typedef struct fero_queue fero_queue; /* fero_queue_open to fero_queue_close */
typedef struct fero_op fero_op;       /* a request to wait for: a call's `op` to fero_op_free */
typedef struct fero_shard fero_shard; /* a cache's part on one shard, as its handlers see it */

/* ---------------------------------------------------------------------------------- values */

/* A run of bytes. `ptr` may be NULL where `len` is 0. */
typedef struct fero_slice {
    const void *ptr;
    size_t len; /* bytes */
} fero_slice;

/* A value is stored and given back as it is. A string that is not UTF-8 and JSON text that is not one
   JSON value, at most 512 levels deep, are refused with FERO_E_TYPE. */

#define FERO_T_UNDEFINED 0
#define FERO_T_STRING 1 /* UTF-8 */
#define FERO_T_DOUBLE 2 /* in .num */
#define FERO_T_JSON 3   /* UTF-8 JSON text */
#define FERO_T_BOOL 4   /* in .i64, 0 or 1 */
#define FERO_T_NULL 5
#define FERO_T_BYTES 6
#define FERO_T_INT64 7 /* in .i64 */

/* A value. Only the field that belongs to its type is read; the library sets the others to 0. */
typedef struct fero_val {
    int32_t type; /* FERO_T_... */
    int32_t reserved;
    fero_slice s; /* string, JSON text, bytes; borrowed */
    double num;
    int64_t i64;
} fero_val;

/* ---------------------------------------------------------------------------------- errors */

#define FERO_OK 0
#define FERO_E_INVAL -1        /* bad argument or option */
#define FERO_E_NOMEM -2        /* memory.max is reached, or the system has no more */
#define FERO_E_AGAIN -3        /* full: call fero_run and try again; see fero_on_drain */
#define FERO_E_TIMEOUT -4      /* the deadline passed; see fero_result.outcome */
#define FERO_E_CLOSED -5       /* stopped or stopping */
#define FERO_E_NOTCONN -6      /* no node answers at the seeds */
#define FERO_E_NOTFOUND -7     /* no such key or cache */
#define FERO_E_EXISTS -8       /* the port is taken */
#define FERO_E_CONFLICT -9     /* there is such a key already */
#define FERO_E_NOTOWNER -10    /* another node owns the key; not yet */
#define FERO_E_TOOBIG -11      /* key or value over the limit */
#define FERO_E_DENIED -13      /* no token, or another than the node's; another cluster */
#define FERO_E_TYPE -14        /* no such type of value, or its bytes do not fit the type */
#define FERO_E_SYS -15         /* a system call failed; fero_errmsg names it */
#define FERO_E_PROTO -16       /* the peer does not speak fero, or another version of it */
#define FERO_E_NOREPLY -17     /* the handler declined */
#define FERO_E_UNSUPPORTED -20 /* no handler for this verb, or not in this version */
#define FERO_E_STALE -21       /* sent again too late to tell whether it was applied */
#define FERO_E_STOPPED -22     /* its caller stopped it */

/* What a FERO_E_... means, in a few words; never NULL. Constant text, any thread. */
FERO_API const char *fero_strerror(int err);
/*
 * One line about this thread's last failure, "" if there was none; never NULL. A success does not
 * clear it. Valid until this thread's next call.
 */
FERO_API const char *fero_errmsg(void);

/* --------------------------------------------------------------------------------- runtime */

#define FERO_LOG_ERROR 0
#define FERO_LOG_WARN 1
#define FERO_LOG_INFO 2
#define FERO_LOG_DEBUG 3
/* One line, without a newline, borrowed. From several threads at once; must not call the library. */
typedef void (*fero_log_fn)(int32_t level, const char *line, void *ud);

#define FERO_IDLE_ADAPTIVE 0  /* spin while traffic is recent, then sleep */
#define FERO_IDLE_BUSY_POLL 1 /* never sleep */
#define FERO_IDLE_SLEEP 2     /* sleep at once */

/* How a runtime speaks to the kernel. The default is io_uring where it may be used, else epoll; the
   environment variable FERO_IO ("uring" or "epoll") decides where it is set. */
#define FERO_IO_AUTO 0
#define FERO_IO_URING 1 /* or fero_start fails, and says what refuses it */
#define FERO_IO_EPOLL 2

/*
 * As `shards`: a server with one shard and no thread. The thread that starts it drives it, by fero_run
 * and fero_fd in a loop of its own (poll, epoll, libuv ...), and it alone opens caches and stops it.
 * Connections are served and handlers called inside fero_run; the thread's own requests are applied
 * before the call returns, so that what was written is there (for fero_read, too), and their handlers
 * are called inside the call; answers are told by fero_run or fero_wait as ever. Other threads may
 * make requests as of any server: they are served by fero_run. See examples/inline.c.
 */
#define FERO_INLINE (-2)

/*
 * Options of a runtime. All but `seeds` concern servers; clients read those marked (c) too.
 */
typedef struct fero_runtime_opts {
    size_t size;
    int32_t client;              /* 1: no shards and no threads; fero_run drives it (c) */
    int32_t shards;              /* 1 to 64; 0: one for each allowed cpu, at most 64; FERO_INLINE:
                                    one without a thread */
    const char *cpus;            /* "2-7,10": pin the shards to these; NULL: the allowed ones */
    const char *listen;          /* an IPv4 or IPv6 address; NULL: 127.0.0.1. One that is not a
                                    loopback address needs `token_file` or `insecure` */
    uint16_t port_first;         /* 0 with port_last 0: any free port */
    uint16_t port_last;          /* the first free one from port_first on is taken */
    int32_t idle;                /* FERO_IDLE_... (c) */
    const char *const *seeds;    /* clients: "HOST:PORT" of nodes, HOST being an address; NULL at
                                  the end; at most 64 */
    int32_t io;                  /* FERO_IO_... (c) */
    const char *io_features;     /* "-msg_ring,+send_zc"; NULL: what measured best (c) */
    int64_t memory_max_bytes;    /* cap on logs and tables of all shards, at least 64 MiB each; 0:
                                  80 % of the machine's or control group's */
    int64_t history_max_bytes;   /* newest changes kept, superseded or not; 0: 10 % of the cap, at
                                  most 128 MiB; FERO_OFF: none; INT64_MAX: as far as the cap */
    int64_t history_max_records; /* likewise by number; 0: no limit of its own */
    int64_t outbox_max_bytes;    /* a connection's; 0: 1 MiB; FERO_OFF: no batching (c) */
    int64_t key_max_bytes;       /* at most 65,535; 0: 1 KiB */
    int64_t value_max_bytes;     /* key, value and 1,560 bytes fit in 16 MiB; 0: 1 MiB */
    int64_t connections_max; /* of all shards; 0: 65,536; at most the limit of descriptors less 256;
                                    a client's: 256 (c) */
    int64_t window_requests; /* unanswered requests a session; 0: 16,384, the most (c) */
    int64_t window_bytes;    /* request bytes in flight a link; 0: 4 MiB (c) */
    int64_t lane_bytes;      /* of each lane between two shards, a power of two from 128 KiB to
                                    1 GiB; 0: 1 MiB */
    int64_t deferred_max;    /* requests a shard, retained by handlers and not replied to; 0:
                                4,096; at most 65,536 */
    int64_t threads_max;     /* of the program that make requests of a server at the same time:
                                    each has two lanes to every shard. 0: 64; at most 256; FERO_OFF:
                                    none may */
    int64_t streams_max;     /* subscriptions of a connection; 0: 64; at most 65,536 */
    int64_t streams_lent_max_bytes; /* of log beyond the history that slow subscribers may hold; 0:
                                       2 % of the cap, at most 64 MiB; FERO_OFF: none */
    int64_t handshake_ms;           /* from connecting to HELLO; 0: 2,000 */
    int64_t half_open_max;          /* connections that have not said HELLO: above it, one drawn at
                                    random is dropped for each that comes; 0: 256 */
    int64_t half_open_source_max; /* likewise from one address; 0: 16, loopback addresses excepted;
                                     FERO_OFF: as many as half_open_max */
    int64_t progress_ms;          /* a half-received frame has to grow by progress_bytes in this
                                    time; 0: 10,000; FERO_OFF: it may take its time */
    int64_t progress_bytes;       /* 0: 10 KiB */
    int64_t
        links_bytes; /* of all outboxes and half-received frames above 64 KiB each: over half of it
                            outboxes may have less, over all of it the largest link ends; 0: an
                            eighth of the cap on logs and tables, at least 64 MiB a shard */
    int64_t errors_max;     /* distinct errors that a shard remembers for fero_errors; 0: 256; at
                                    most 65,536; FERO_OFF: none */
    const char *token_file; /* a server answers nobody who does not show what this file holds, a
                                    client shows it; 1 to 256 bytes and a newline, to be read by its
                                    owner only; NULL: no token (c) */
    int32_t insecure;       /* 1: `listen` may be any address, and everybody is let in */
    int32_t log_level;      /* FERO_LOG_...: lines above it are not made (c) */
    fero_log_fn log;        /* NULL: the library is silent (c) */
    void *log_ud;
} fero_runtime_opts;

/*
 * Starts a runtime. A server listens when this returns, and its shards' threads inherit the
 * caller's signal mask; a client has not connected yet. `opts` NULL is a server with defaults;
 * what it points to is copied or no longer needed when this returns, except log_ud.
 *
 *   FERO_E_INVAL   an option is out of its range, or the token file is none.
 *   FERO_E_EXISTS  every port from port_first to port_last is taken.
 *   FERO_E_DENIED  `listen` is not a loopback address, and there is neither a token nor `insecure`.
 *   FERO_E_NOMEM   no memory for the shards, or for the client's window.
 *   FERO_E_SYS     `io` is refused, address space cannot be reserved, or listening failed.
 */
FERO_API int fero_start(const fero_runtime_opts *opts, fero **out) FERO_NODISCARD;
/*
 * Stops it and frees it with its caches, which are then no longer good.
 *
 * A server stops accepting connections, answers every request already accepted, joins its threads.
 * While its clients keep it busy it takes requests for half of `drain_ms`, then answers those only;
 * a client that does not read its answers is waited for until `drain_ms` is over, and then closed.
 * A client waits until what it sent without wanting a reply is received, for `drain_ms` at most; then
 * whatever has no answer ends with outcome UNKNOWN and FERO_E_CLOSED.
 *
 * Other threads may be in calls of a server's runtime and caches meanwhile: new requests are refused
 * with FERO_E_CLOSED, and so are those that come later, until the thread unregisters; a fero_wait or
 * fero_run that waits goes on until the shards have stopped. What a thread then has no answer to ends
 * with outcome UNKNOWN and FERO_E_CLOSED in its next fero_run or fero_wait; what this one has,
 * inside fero_stop.
 *
 * `drain_ms` 0 is a second for a server and two for a client; with FERO_OFF nothing is waited for,
 * and a request that was accepted may end without its answer.
 *
 *   FERO_E_INVAL  called by a callback, or `drain_ms` is another negative number: nothing is
 *                 stopped. A handler must not call it at all.
 */
FERO_API int fero_stop(fero *rt, int64_t drain_ms);

/*
 * Servers: writes a JSON object about the runtime (address, memory, shards and their counters) to
 * `buffer`, which has `bytes`; returns its length without the final 0 that follows where there is
 * room. About 1 KiB a shard. Does not disturb the shards: counters are read as they run.
 *
 *   FERO_E_TOOBIG       not even the address fits. A text that is too long for `bytes` is cut.
 *   FERO_E_UNSUPPORTED  a client's runtime: ask the node with fero_ask_info.
 */
FERO_API int64_t fero_info(fero *rt, char *buffer, size_t bytes);
/*
 * Servers: writes a JSON object about what went wrong since the start, as fero_info writes one about
 * the rest: `errors`, each with its kind (reply, link, handler), error (a FERO_E_... without its
 * sign), text with the values of the last time, count, first_ms and last_ms since 1970; and
 * `others`, how many found no room (errors_max).
 *
 *   FERO_E_TOOBIG       `bytes` is below 4,096. Where all do not fit, some are counted in `others`.
 *   FERO_E_UNSUPPORTED  a client's runtime: ask the node with fero_ask_errors.
 */
FERO_API int64_t fero_errors(fero *rt, char *buffer, size_t bytes);
/*
 * The address that a server really listens on, "127.0.0.1:7700"; "" for a client. Lives as long as
 * the runtime.
 */
FERO_API const char *fero_address(const fero *rt);

/*
 * Servers: a thread of the program (no shard's) that makes requests is registered by its first one,
 * or by this, and gets two lanes of its own to every shard, each of lane_bytes, and a window of
 * window_requests. It unregisters by fero_thread_unregister, or when it ends. Then what it has given
 * to the shards is still done; a request without an answer ends with outcome UNKNOWN and
 * FERO_E_CLOSED: by fero_thread_unregister `done` is called for it, at the end of a thread it is not.
 * Afterwards its operations can be freed, and no longer waited for. A thread may register again.
 *
 *   FERO_E_NOMEM     no memory, or threads_max are registered.
 *   FERO_E_CLOSED    the runtime has stopped.
 *   FERO_E_NOTFOUND  fero_thread_unregister: it is not registered.
 *   FERO_E_INVAL     a client's runtime, a handler, or unregistering in a callback.
 */
FERO_API int fero_thread_register(fero *rt);
FERO_API int fero_thread_unregister(fero *rt);

/*
 * Inline servers, on the thread that drives: does what the node has to do, waits up to `timeout_ms` (0:
 * not at all, below 0: for ever) until something was done, and returns how much: requests served, and
 * own ones that ended.
 *
 * Threads of a server: answers to the calling thread's requests are taken here, and `done` is called
 * inside. It waits up to `timeout_ms` until a request ended, and returns how many did. Requests need
 * no fero_run to be sent. FERO_E_CLOSED: the runtime has stopped.
 *
 * Clients: sends what was asked for, does what is ready, and waits up to `timeout_ms` (0: not at
 * all, below 0: for ever) until something was done. Returns how much was done: requests that ended,
 * links that came or went; 0 when the time is over. All callbacks run inside it. Links that were
 * lost are dialled here, and unanswered requests sent again over them.
 *
 *   FERO_E_INVAL  called by a callback or a handler.
 */
FERO_API int fero_run(fero *rt, int64_t timeout_ms);
/*
 * A descriptor for a loop of the caller's (poll, epoll, select, asyncio, libuv). It becomes
 * readable when fero_run(rt, 0), which never blocks, has something to do: answers have come, requests
 * wait to be sent, a timeout or an attempt to connect is due; now and then for nothing. fero_run
 * makes it silent again, and so do the other calls that run the client. Nothing is to be read from
 * it. It belongs to the runtime, is the same for life, and costs a runtime that does not ask for it
 * nothing. See examples/loop.c. Each thread of a server has one of its own, for its own requests.
 *
 *   FERO_E_SYS  no more descriptors.
 */
FERO_API int fero_fd(fero *rt);

/* There is room again: a call that returned FERO_E_AGAIN may be made again. As fero_done_fn. */
typedef void (*fero_drain_fn)(void *ud);
/*
 * `drain` is called once after each FERO_E_AGAIN, inside a later fero_run or fero_wait of this
 * thread (of this client), when enough has been taken that it is worth trying. NULL: not any more.
 */
FERO_API int fero_on_drain(fero *rt, fero_drain_fn drain, void *ud);

/* --------------------------------------------------------------------------------- results */

#define FERO_OUTCOME_OK 0
#define FERO_OUTCOME_FAIL 1    /* it did not happen and will not */
#define FERO_OUTCOME_UNKNOWN 2 /* it may have happened */

typedef struct fero_result {
    int32_t outcome; /* FERO_OUTCOME_... */
    int32_t error;   /* 0 or FERO_E_... */
    uint64_t seq;    /* of the request in its session */
    uint64_t offset; /* of the change in its partition, 0: none */
    fero_val value;  /* borrowed; with FAIL and UNKNOWN often a string that says why */
    uint32_t flags;  /* FERO_R_... */
    uint32_t reserved;
} fero_result;
#define FERO_R_MORE 1u /* a part of a stream: more will come */

/* -------------------------------------------------------------------------------- handlers */

/* What a handler sees; borrowed until the handler returns. */
typedef struct fero_req {
    size_t size;
    fero_cache *cache;
    fero_slice
        verb; /* "UPDATE", "REMOVE", "ADD", "PUSH" and "PATCH" too, where the cache has a handler
                        of everything */
    fero_slice key;
    fero_val value;
    uint64_t session;  /* 0: the caller has none */
    uint64_t seq;      /* with `session`: names the request; the same when it is sent again */
    fero_shard *shard; /* that the handler runs on; for its keys and timers */
} fero_req;

#define FERO_H_REPLIED 0 /* fero_reply was called; if it was not, as FERO_H_IGNORE */
#define FERO_H_NEXT 1    /* run the default handler and reply with its result */
#define FERO_H_IGNORE 2  /* declined: the caller gets FERO_E_NOREPLY at once */
#define FERO_H_DEFER 3   /* it was retained, and will be replied to later */
/*
 * A handler. Returns one of the above, or a negative FERO_E_... to reply with that error, whose text is
 * that of the call in it that failed so, if one did; fero_reply says another one. It runs
 * on the thread of the shard that owns the key, where the data are, and on several threads at once
 * for different keys: `ud` is theirs to share. It must not block, and must not call the library but
 * for what is in this section, fero_errmsg and fero_strerror. The same holds for the callbacks of
 * this section, which run on that thread, too.
 */
typedef int32_t (*fero_handler_fn)(fero_req *req, void *ud);

/* A verb of its own. Verbs change nothing by themselves: what they keep is the program's. */
typedef struct fero_verb {
    const char *name; /* 1 to 255 bytes of UTF-8 without control characters; copied */
    fero_handler_fn fn;
    void *ud;
} fero_verb;

/*
 * Replies to `req`, once: inside its handler, or later where it is retained, from any thread of the
 * process. `status` 0 is success, a negative FERO_E_... a failure, for which `value` may be a string
 * that says why. `value` may be NULL; it is copied. A thread that is no shard's is registered by it
 * (see fero_thread_register), and there, or on the thread of another shard of the same runtime, 0
 * means that the shard was given the reply.
 *
 *   FERO_E_INVAL    it was replied to before, or `status` is neither 0 nor an error.
 *   FERO_E_TYPE     there is no such type of value.
 *   FERO_E_TOOBIG   the value is over value_max_bytes; it is not replied to yet.
 *   FERO_E_NOMEM    no memory for it; it is not replied to yet.
 *   FERO_E_AGAIN    from another thread: its lane is full; it is not replied to yet.
 * and of a retained request to which nobody listens any more, so that nothing is sent:
 *   FERO_E_TIMEOUT  its caller's own timeout is over.
 *   FERO_E_STOPPED  its caller stopped it.
 *   FERO_E_NOTCONN  its caller has gone.
 *   FERO_E_CLOSED   the runtime stops.
 */
FERO_API int fero_reply(fero_req *req, int32_t status, const fero_val *value);

/*
 * Replies to a retained request with one part of a stream, from any thread: more will come, and
 * fero_reply ends it. A caller who asked with FERO_STREAM gets each part, others the end only. Each part
 * gives the caller's timeout anew. Parts of one thread come in their order, and before its fero_reply.
 *
 * Whoever makes parts faster than the caller takes them gets FERO_E_AGAIN, and the request's callback
 * (fero_req_on) hears FERO_REQ_ROOM when it is worth trying again: on the shard's thread, from where it
 * may wake another one. A thread of the program that runs its own requests may wait for its fero_on_drain
 * instead, and any may just try again a little later. When the caller has stopped it or gone, the next
 * part says so, as fero_reply does.
 *
 *   FERO_E_AGAIN  the caller has to take some of what it was sent first, or to come back from a lost
 *                 link; or the lane is full.
 *   FERO_E_INVAL  it is not retained, or was replied to.
 * and as fero_reply.
 */
FERO_API int fero_reply_part(fero_req *req, const fero_val *value);

/*
 * Keeps the request beyond the handler's call, which then returns FERO_H_DEFER. What is returned is
 * the same request, good until fero_req_release: its verb, key and value stay where they are, and it
 * is replied to by fero_reply, once, at any time. One that is retained again has one reference more.
 *
 * A request ends without the handler when its caller's own timeout is over, when the caller stops it
 * or goes away, and when the runtime stops. The caller then gets outcome UNKNOWN. A caller whose link
 * was lost may come back and send the request again: that is the same request, and no handler is
 * called for it.
 *
 * Returns NULL, and fero_errmsg says why, if it was replied to, if there is no memory, or if
 * `deferred_max` requests of this shard are retained already: then the handler may still reply, and
 * FERO_H_DEFER replies with FERO_E_AGAIN.
 */
FERO_API fero_req *fero_req_retain(fero_req *req) FERO_NODISCARD;
/*
 * Gives one reference back. With the last one a request that was not replied to is declined:
 * FERO_E_NOREPLY. NULL is allowed.
 */
FERO_API void fero_req_release(fero_req *req);

#define FERO_REQ_ROOM 1    /* fero_reply_part may be tried again after FERO_E_AGAIN */
#define FERO_REQ_STOPPED 2 /* nobody waits any more; `error` says why, as fero_reply would */
/*
 * News of a retained request, on its shard's thread. In FERO_REQ_STOPPED it may still be replied to,
 * unless the caller has gone; if it is not, the library does it.
 */
typedef void (*fero_req_fn)(fero_req *req, int32_t event, int32_t error, void *ud);
/*
 * Has `fn` called with the news of a retained request, from now on. On its shard's thread.
 *
 *   FERO_E_INVAL  it is not retained, or this is another thread.
 */
FERO_API int fero_req_on(fero_req *req, fero_req_fn fn, void *ud);

/*
 * Runs the default handler for an UPDATE or REMOVE, once, and tells its result without replying:
 * `result` has outcome, error, offset and, where it failed, a text; good until the handler returns,
 * or the retained request is released. A later fero_reply with status 0 carries the offset.
 * On the shard's thread.
 *
 *   FERO_E_UNSUPPORTED  the request is for a verb, which has no default handler.
 *   FERO_E_INVAL        it was called or replied to before, or this is another thread.
 * and as fero_reply where nobody listens any more.
 */
FERO_API int fero_next(fero_req *req, fero_result *result);

/*
 * Keys of a cache on the shard that a handler or callback runs on. Its own keys, and what is inside of
 * them, are read and written at once, by the default handler. `offset` may be NULL.
 *
 *   FERO_E_NOTOWNER  the key is another shard's.
 *   FERO_E_NOTFOUND  there is no such key.
 *   FERO_E_INVAL     an empty key, or another thread than the shard's.
 *   FERO_E_TOOBIG, FERO_E_TYPE, FERO_E_NOMEM  as for requests; nothing was changed.
 */

/*
 * The value lies in the cache's memory, borrowed until this call of the handler returns. One that has to
 * be put together as JSON, of an object whose fields were changed, is written for this call.
 */
FERO_API int fero_shard_get(fero_shard *shard, fero_slice key, fero_val *value, uint64_t *offset);
FERO_API int fero_shard_update(fero_shard *shard, fero_slice key, const fero_val *value,
                               uint64_t *offset);
FERO_API int fero_shard_remove(fero_shard *shard, fero_slice key, uint64_t *offset);
/* As fero_add, fero_push and fero_patch, with a key. `id` and `index`, of what is new, may be NULL. */
FERO_API int fero_shard_add(fero_shard *shard, fero_slice key, const fero_val *value, int64_t *id,
                            uint64_t *offset);
FERO_API int fero_shard_push(fero_shard *shard, fero_slice key, const fero_val *value,
                             int64_t *index, uint64_t *offset);
FERO_API int fero_shard_patch(fero_shard *shard, fero_slice key, fero_slice fields,
                              uint64_t *offset);

#define FERO_ASK_GET 1
#define FERO_ASK_UPDATE 2
#define FERO_ASK_REMOVE 3
#define FERO_ASK_ADD 4   /* the result's value is the new id */
#define FERO_ASK_PUSH 5  /* the result's value is the new index */
#define FERO_ASK_PATCH 6 /* `value` is JSON */
/* The answer to fero_shard_ask, on the asking shard's thread. What `result` points to is borrowed. */
typedef void (*fero_answer_fn)(fero_shard *shard, const fero_result *result, void *ud);
/*
 * Reads or writes a key of whatever shard, by the default handler there. `fn` is called exactly once
 * with the answer: before this returns where the key is this shard's own, else later. `value` is for
 * those that write one. To reply to a request when the answer is there, retain it.
 *
 *   FERO_E_AGAIN  too much is on its way to that shard: tell your caller so, or try again from a timer.
 *   FERO_E_INVAL, FERO_E_TOOBIG, FERO_E_TYPE, FERO_E_NOMEM  as above; `fn` is not called.
 */
FERO_API int fero_shard_ask(fero_shard *shard, int32_t what, fero_slice key, const fero_val *value,
                            fero_answer_fn fn, void *ud);
/* Its number, from 0 on: for what a program keeps for each shard. */
FERO_API int fero_shard_index(const fero_shard *shard);

/* On the shard's thread. */
typedef void (*fero_timer_fn)(fero_shard *shard, void *ud);
/*
 * Calls `fn` once after `ms`, on this shard, unless the runtime stops before. Returns the timer's
 * number, above 0, or FERO_E_INVAL, or FERO_E_NOMEM: no memory, or 1,048,576 of them are running.
 */
FERO_API int64_t fero_after(fero_shard *shard, int64_t ms, fero_timer_fn fn, void *ud);
/* Takes the timer back. FERO_E_NOTFOUND: it has been called. */
FERO_API int fero_after_cancel(fero_shard *shard, int64_t timer);

/* ----------------------------------------------------------------------------------- cache */

typedef struct fero_opts {
    size_t size;
    const fero_verb *verbs;  /* servers: copied */
    size_t verbs_count;      /* at most 192 */
    fero_handler_fn handler; /* servers: sees every update, every removal, and what no verb
                                matched; never a get. NULL: the default handler */
    void *handler_ud;
    int64_t timeout_ms; /* clients: how long fero_open waits for a node; 0: 10,000 */
    int64_t refused_ms; /* clients: how long of it while no seed can even be connected to, because a
                           node may just be starting; 0: 1,000; FERO_OFF: each is tried once */
} fero_opts;

/*
 * Opens a cache. `name` has 1 to 255 bytes of UTF-8 without control characters; it is copied. A
 * client's may be NULL: it then connects to a node and opens nothing there, which is enough for
 * fero_ask_info and fero_ask_errors; other requests fail with FERO_E_NOTFOUND.
 * `opts` may be NULL.
 *
 * A server makes it if there is none of that name, at most 256; else it returns that one, as it
 * was opened first. A client connects to a node of the seeds, then to each of its shards; the first
 * cache decides on the node. A client has at most 64. Not from a callback or handler.
 *
 *   FERO_E_NOTCONN   no node answered in time, or no seed could be connected to.
 *   FERO_E_NOTFOUND  the node has no such cache.
 *   FERO_E_NOMEM     no memory, or too many caches.
 *   FERO_E_DENIED    the node wants a token, or another one.
 *   FERO_E_PROTO, FERO_E_CLOSED ...  the node refused; fero_errmsg has its reason.
 */
FERO_API int fero_open(fero *rt, const char *name, const fero_opts *opts,
                       fero_cache **out) FERO_NODISCARD;
/*
 * Closes a client's cache, which is no longer good: waits up to two seconds for the answers of its
 * requests, then ends the rest with outcome UNKNOWN. A server's cache stays as long as its runtime,
 * and this does nothing. Not from a callback: FERO_E_INVAL.
 */
FERO_API int fero_close(fero_cache *cache);

/* -------------------------------------------------------------------------------- requests */

/* What the caller wants to hear of a request. */
#define FERO_NOTHING 0 /* fire and forget */
#define FERO_ACK 1     /* received by the node: counted only, see fero_counts */
#define FERO_REPLY 2   /* processed by the owner */
#define FERO_STREAM                                                                                \
    3 /* the same, and each part if the handler replies with a stream: `done` is called
                          for each, with FERO_R_MORE for all but the last, and timeout_ms begins anew
                          with each. A stream that has begun ends with its link: FERO_E_NOTCONN. To a
                          queue only the end comes */

/*
 * A request has ended. On the thread that made it, inside fero_run, fero_wait, fero_open, fero_close or
 * fero_stop. May make requests and free operations; must not run, wait, open, close or stop.
 */
typedef void (*fero_done_fn)(const fero_result *result, void *ud);

typedef struct fero_wopts {
    size_t size;
    int32_t want; /* FERO_NOTHING, FERO_ACK, FERO_REPLY */
    int32_t reserved;
    /*
     * 0: 10,000; FERO_OFF: eleven days. Afterwards the outcome is UNKNOWN. A number of your own goes
     * with a request that wants FERO_REPLY: the node does not begin with it when that time is over.
     * That takes 8 bytes and the node's general way, half again as long as an update that is plain.
     */
    int64_t timeout_ms;
    fero_done_fn done; /* with FERO_REPLY: called exactly once */
    void *ud;
    fero_queue *queue; /* with FERO_REPLY and instead of `done`: the answer is to be taken there */
} fero_wopts;

/*
 * Requests, of a client or of a thread of a server's own program. They return at once: key and value
 * are copied. A client sends them with the next fero_run or fero_wait, with all others made until
 * then; to the shards of a server they are given at once. `opts` NULL is fire and forget, or with `op` FERO_REPLY.
 * With `op` not NULL the caller gets an operation to wait for and must free it; then `done` may
 * still be set. A request that is accepted ends exactly once, whatever becomes of its link: it is
 * sent again over the next one, with the number it had, and a node that has not restarted meanwhile
 * never applies one twice.
 * Requests for one key are applied in the order of the calls.
 *
 *   FERO_E_AGAIN    the window, the outbox or the lane is full: call fero_run, then try again; or
 *                   the queue is: take from it and give back.
 *   FERO_E_NOTCONN  the shard's link is down; fero_run dials it again.
 *   FERO_E_TOOBIG   key or value is over the node's limit; nothing was sent.
 *   FERO_E_TYPE     there is no such type of value.
 *   FERO_E_NOTFOUND the node that it is connected to now has no such cache.
 *   FERO_E_CLOSED   the runtime is stopping.
 *   FERO_E_NOMEM    no memory, or 65,536 operations that were not freed.
 */

/*
 * A key is a path: "28.email" is the field "email" of the partition "28", "28.list.0" the first
 * element of its array "list". '.' separates, "\." is a dot inside of a part; there are at most 32
 * parts, none empty, and those behind the first are UTF-8. Updates make the objects that are missing
 * on the way. An object or array is given back as JSON: numbers exactly, bytes as a string of
 * hexadecimal digits, undefined fields left out, and undefined elements, and those that were removed
 * before the last one, as null. The outcome is FAIL where a path goes through something that has no
 * parts (FERO_E_TYPE), or a key is not a path or no index of its array (FERO_E_INVAL).
 */

/* Sets the value of `key`, 1 byte or more; `value` NULL is undefined. The reply has the offset. */
FERO_API int fero_update(fero_cache *cache, fero_slice key, const fero_val *value,
                         const fero_wopts *opts, fero_op **op);
/*
 * Sets the next field, 1, 2, 3 ..., of the object at `key`, which is made where there is none. With
 * an empty key, the next partition of the cache: a number above all that are partitions; the result
 * is FERO_E_CONFLICT if somebody set that one at the same moment: add it again. The reply's value is
 * the number, an int64.
 */
FERO_API int fero_add(fero_cache *cache, fero_slice key, const fero_val *value,
                      const fero_wopts *opts, fero_op **op);
/*
 * Appends to the array at `key`, which is made where there is none. The reply's value is the index of
 * the new element, an int64.
 */
FERO_API int fero_push(fero_cache *cache, fero_slice key, const fero_val *value,
                       const fero_wopts *opts, fero_op **op);
/*
 * Sets the fields of `fields`, the text of a JSON object, in the object at `key`, all of them or
 * none, and leaves its other fields. Each is a change of its own; the reply has the last one's offset.
 */
FERO_API int fero_patch(fero_cache *cache, fero_slice key, fero_slice fields,
                        const fero_wopts *opts, fero_op **op);
/* Removes `key`; FERO_E_NOTFOUND in the result where there is none. The reply has the offset. */
FERO_API int fero_remove(fero_cache *cache, fero_slice key, const fero_wopts *opts, fero_op **op);
/* Asks for the value of `key`; FERO_E_NOTFOUND in the result where there is none. */
FERO_API int fero_get(fero_cache *cache, fero_slice key, const fero_wopts *opts, fero_op **op);
/*
 * Threads of a server's own program: the value of `key` at once, without asking the shard that owns
 * it, taking no lock and disturbing nobody. A string, JSON text or bytes are copied to `buffer`, which
 * has `bytes`, and `value` points there; other types are in `value` alone. `offset` may be NULL. What
 * is read is whole: the value as some update left it, and no older than the last one whose reply has
 * come to anybody. Deep keys are asked for, as by fero_get and fero_wait, and so is, very rarely, a key
 * whose table grows meanwhile: then this blocks for a round trip. Not by a handler.
 *
 *   FERO_E_NOTFOUND     there is no such key.
 *   FERO_E_TOOBIG       the buffer is too small: value->s.len says what it needs, value->s.ptr is
 *                       NULL; or the key is over the limit.
 *   FERO_E_AGAIN        in a callback, where a key would have to be asked for.
 *   FERO_E_UNSUPPORTED  a client's cache.
 *   FERO_E_NOMEM, FERO_E_CLOSED  as fero_thread_register.
 */
FERO_API int fero_read(fero_cache *cache, fero_slice key, void *buffer, size_t bytes,
                       fero_val *value, uint64_t *offset);

/* One key of fero_read_many: the first three are the caller's, the others are filled in. */
typedef struct fero_reading {
    fero_slice key;
    void *buffer; /* as fero_read's */
    size_t bytes;
    fero_val value;
    uint64_t offset;
    int32_t error; /* 0, or what fero_read would return for this key */
    int32_t reserved;
} fero_reading;
/*
 * The same for many keys at once, which costs less for each where they are in no cache of the processor:
 * their memory is waited for together. Each is read by itself, some time during the call. Returns how
 * many were found; `readings` are in the caller's order.
 *
 *   FERO_E_INVAL, FERO_E_TOOBIG  a key or a buffer is none; nothing was read.
 *   FERO_E_UNSUPPORTED, FERO_E_NOMEM, FERO_E_CLOSED  as fero_read.
 */
FERO_API int64_t fero_read_many(fero_cache *cache, fero_reading *readings, size_t count);
/*
 * A request to the handler of `verb`, 1 to 255 bytes. An empty key may be handled by any shard;
 * `value` NULL is undefined. When it is sent again after a lost link the handler is called again,
 * with the same session and seq.
 */
FERO_API int fero_send(fero_cache *cache, fero_slice verb, fero_slice key, const fero_val *value,
                       const fero_wopts *opts, fero_op **op);
/*
 * Asks for the node's facts and counters, all shards', as JSON text, through the link to `shard`
 * (0 to fero_shards - 1; -1: any).
 */
FERO_API int fero_ask_info(fero_cache *cache, int32_t shard, const fero_wopts *opts, fero_op **op);
/* The same for the errors that the node has met, as fero_errors describes them. */
FERO_API int fero_ask_errors(fero_cache *cache, int32_t shard, const fero_wopts *opts,
                             fero_op **op);

/*
 * Runs, as fero_run does, until `op` is done or `timeout_ms` is over (below 0: never).
 * Returns 0 when it is done, whatever the outcome: look at `result`, whose value is valid until
 * fero_op_free. With FAIL and UNKNOWN fero_errmsg says why. `result` may be NULL.
 *
 *   FERO_E_TIMEOUT  not yet done; the operation goes on and may be waited for again.
 *   FERO_E_INVAL    a NULL or freed operation, or called by a callback.
 */
FERO_API int fero_wait(fero_op *op, int64_t timeout_ms, fero_result *result);
/*
 * Asks for the end of a request that a handler answers later or as a stream. It ends as any other does:
 * with what the handler says to that, or with FERO_E_STOPPED; parts may still come before. A request that
 * the node has answered is not changed by it, nor one that no handler keeps.
 *
 *   FERO_E_NOTFOUND  it has ended.
 *   FERO_E_INVAL     a NULL or freed operation, or one of another thread.
 *   FERO_E_AGAIN     clients: as requests do; it is sent by fero_run.
 */
FERO_API int fero_op_cancel(fero_op *op);
/*
 * Gives an operation back, done or not: a request on its way goes on, and `done` is still called.
 * NULL is allowed. Operations may outlive fero_stop; what is not freed is not given back.
 */
FERO_API void fero_op_free(fero_op *op);

/* How far the requests of a client's cache have come; numbers of requests, cumulative. */
typedef struct fero_counts {
    uint64_t sent;   /* accepted by fero_update and the like */
    uint64_t tacks;  /* written to the kernel */
    uint64_t yacks;  /* received and queued by the node */
    uint64_t sacks;  /* replied to */
    uint64_t failed; /* ended with outcome FAIL or UNKNOWN */
    uint64_t resent; /* sent again after a lost link */
} fero_counts;
/* Writes them; zeros for a server's cache. */
FERO_API void fero_counts_get(const fero_cache *cache, fero_counts *counts);
/* Shards of the node that this client is connected to, with a link each; 0 for a server's cache. */
FERO_API int fero_shards(const fero_cache *cache);

/* --------------------------------------------------------------------- streams of changes */

typedef struct fero_stream fero_stream; /* fero_subscribe to fero_stream_free */

#define FERO_CHANGE_UPDATE 1
#define FERO_CHANGE_REMOVE 2
#define FERO_CHANGE_ADD 3

/* One change of one key; borrowed until the callback returns. */
typedef struct fero_change {
    int32_t type;  /* FERO_CHANGE_... */
    int32_t shard; /* whose stream it came on */
    fero_slice key;
    fero_val value;   /* undefined where there is none */
    uint64_t offset;  /* in its partition, as in the reply to who made it */
    int64_t time_ms;  /* when it was made, by the node's clock: milliseconds since 1970 */
    uint64_t clock;   /* the same with a counter in its lower 16 bits: grows with every change */
    uint64_t session; /* with `seq`: the request that made it; 0: it had none */
    uint64_t seq;
} fero_change;

/* What happens between two changes. Each of a node's shards has its own stream. */
#define FERO_STREAM_STARTED 1        /* changes follow, from where it was asked for */
#define FERO_STREAM_TRIMMED 2        /* that is not kept any more: a snapshot follows */
#define FERO_STREAM_GAP 3            /* it was too slow, and changes are lost: a snapshot follows */
#define FERO_STREAM_TRUNCATED 4      /* changes were taken back: a snapshot follows */
#define FERO_STREAM_SNAPSHOT_BEGIN 5 /* forget what you know of the keys of this shard */
#define FERO_STREAM_SNAPSHOT_END 6   /* what came since then is the state */
#define FERO_STREAM_LIVE 7           /* it has caught up */
#define FERO_STREAM_ENDED 8          /* nothing more comes of this shard; `error` says why */
#define FERO_STREAM_LOST 9           /* the link is lost; it goes on when there is another one */
#define FERO_STREAM_RESUMED 10       /* it does, where it stood */

typedef struct fero_stream_event {
    int32_t type; /* FERO_STREAM_... */
    int32_t shard;
    int32_t is_all;  /* LIVE, ENDED, RESUMED: with this one every shard is, or has */
    int32_t error;   /* ENDED: 0 as asked for, or FERO_E_... */
    fero_slice text; /* LOST: why; borrowed */
} fero_stream_event;

#define FERO_FROM_START 0  /* the first change; where that is not kept any more, with a snapshot */
#define FERO_FROM_NOW 1    /* what comes next */
#define FERO_FROM_OFFSET 2 /* `offset` of the partition that `prefix` names */
#define FERO_FROM_OLDEST 3 /* all that is kept, without a snapshot */
#define FERO_FROM_SNAPSHOT 4 /* the state as it is, then what changes it */

/* The key `prefix` itself, all below it, and those that it is inside of. For 28.name: 28.name.first
   and 28 too, never 28.names or 280. */
#define FERO_MATCH_PATH 0
#define FERO_MATCH_PREFIX 1 /* keys that begin with these bytes */

typedef struct fero_stream_opts {
    size_t size;
    fero_slice prefix; /* none: all keys */
    int32_t match;     /* FERO_MATCH_... */
    int32_t from;      /* FERO_FROM_... */
    uint64_t offset;
    int32_t until_live; /* 1: it ends when it has caught up */
    int32_t reserved;
    int64_t credit_bytes; /* that a shard may send before it was taken; 0: 4 MiB */
    /* Inside fero_run and the others that run the client. Each may be NULL. They may make requests
       and stop or free streams. */
    void (*change)(const fero_change *change, void *ud);
    void (*event)(const fero_stream_event *event, void *ud);
    void *ud;
} fero_stream_opts;

/*
 * Clients: subscribes to the changes of a cache, on all shards that have such keys. Changes of one
 * shard come in the order in which they were made there, so those of a key in that of their offsets;
 * whoever applies them to what he has knows the state. A subscriber who is too slow costs the node
 * nothing: what it no longer keeps for him is replaced by a snapshot. After a lost link the stream
 * goes on by itself where it stood, or with a snapshot.
 *
 *   FERO_E_INVAL  an option is out of its range, or FERO_FROM_OFFSET without a partition.
 *   FERO_E_TOOBIG, FERO_E_NOMEM, FERO_E_CLOSED
 */
FERO_API int fero_subscribe(fero_cache *cache, const fero_stream_opts *opts,
                            fero_stream **out) FERO_NODISCARD;
/*
 * Takes no more: no callback comes after this, and the node is told. The stream is still to be
 * freed. NULL is allowed.
 */
FERO_API void fero_stream_stop(fero_stream *stream);
/* No more credit until fero_stream_resume: what is on its way still comes. */
FERO_API void fero_stream_pause(fero_stream *stream);
FERO_API void fero_stream_resume(fero_stream *stream);
/* Stops and frees it, also after fero_close and fero_stop. NULL is allowed. */
FERO_API void fero_stream_free(fero_stream *stream);
/* -------------------------------------------------------------------------------- services */

/*
 * A service in a shared object, which `fero serve NAME --handler FILE.so` loads: the handlers of its
 * caches, and what is to be done before and after. The object defines one with FERO_SERVICE, and is
 * linked with nothing of fero: the functions it calls are those of the program that loads it.
 *
 *   FERO_SERVICE(.name = "greeter", .verbs = verbs, .verbs_count = 1);
 *
 *   cc -shared -fPIC -o greeter.so greeter.c
 */
#define FERO_SERVICE_ABI 1
typedef struct fero_service {
    uint32_t abi;           /* FERO_SERVICE_ABI */
    uint32_t size;          /* of this struct */
    const char *name;       /* for messages */
    const fero_verb *verbs; /* as in fero_opts */
    size_t verbs_count;
    fero_handler_fn handler; /* likewise */
    void *handler_ud;
    int32_t (*init)(
        void);            /* before the node starts, which it does if this returns 0; may be NULL */
    void (*deinit)(void); /* after it has stopped; may be NULL */
} fero_service;
#define FERO_SERVICE(...)                                                                          \
    FERO_API extern const fero_service fero_service_v1;                                            \
    const fero_service fero_service_v1 = {                                                         \
        .abi = FERO_SERVICE_ABI, .size = sizeof(fero_service), __VA_ARGS__}

/* ------------------------------------------------------------------------------- pull queues */

/*
 * For programs that want no callbacks: answers and changes are taken from a queue, in batches, by the
 * thread that opened it. A queue has room for `capacity` events, from when a request is made (or a
 * shard sends a change) to when its event is given back, and never grows: a request that finds no room
 * gets FERO_E_AGAIN, and fero_on_drain tells of room; a feed waits.
 */
#define FERO_EVENT_RESULT 1 /* a request with this queue has ended: .result */
#define FERO_EVENT_CHANGE 2 /* of a feed: .change */
#define FERO_EVENT_STREAM 3 /* what happened between two changes of a feed: .stream */

/* What its pointers lead to lives until the event is given back, its queue is closed, or (changes) its
   runtime stops. */
typedef struct fero_event {
    int32_t kind; /* FERO_EVENT_... */
    int32_t reserved;
    void *ud;    /* of the request's fero_wopts, or the feed's fero_stream_opts */
    void *owner; /* the library's */
    union {
        fero_result result;
        fero_change change;
        fero_stream_event stream;
    };
} fero_event;

/*
 * Opens one of 1 to 16,777,216 events, for requests of a client or of this thread of a server. What
 * it takes is a hundred bytes for each answer, and a copy of its value.
 *
 *   FERO_E_NOMEM, FERO_E_CLOSED  as fero_thread_register.
 */
FERO_API int fero_queue_open(fero *rt, size_t capacity, fero_queue **out) FERO_NODISCARD;
/* A descriptor to poll: readable when something is to be taken, now and then for nothing. It is that
   of fero_fd. */
FERO_API int fero_queue_fd(fero_queue *queue);
/*
 * Threads of a server: the changes of a cache come into the queue, from all shards that have such keys,
 * as fero_subscribe describes them; without a link, nothing is lost and resumed. They are not copied: keys
 * and values lie in the log's memory, which is lent until the event is given back. The feed takes half of
 * the room that the queue has, and sends nothing more while all of that is taken and not given back: who
 * is too slow is told of a gap, and gets a snapshot. It ends with its queue. Of `opts`, which may be NULL,
 * `change`, `event` and `credit_bytes` must be 0.
 *
 *   FERO_E_AGAIN        the queue or the lanes (lane_bytes) have too little room for a feed.
 *   FERO_E_UNSUPPORTED  a client's cache.
 *   FERO_E_INVAL, FERO_E_TOOBIG, FERO_E_NOMEM, FERO_E_CLOSED  as fero_subscribe; 64 feeds a thread.
 */
FERO_API int fero_queue_feed(fero_queue *queue, fero_cache *cache, const fero_stream_opts *opts);
/*
 * Takes up to `count` events, in the order in which they came; if there are none, runs, as
 * fero_run does, up to `timeout_ms` until there is one. Returns how many; 0 when the time is over.
 *
 *   FERO_E_CLOSED  the queue is empty, and its runtime has stopped or its thread has unregistered.
 *   FERO_E_INVAL   called by a callback, where there are none.
 */
FERO_API int64_t fero_queue_take(fero_queue *queue, fero_event *events, size_t count,
                                 int64_t timeout_ms);
/* Gives events back, in any order and each once: what they point to is no longer good. */
FERO_API void fero_queue_give(fero_queue *queue, const fero_event *events, size_t count);
/* Closes it: events that were not given back are no longer good, answers to come are dropped. NULL is
   allowed. Also after fero_stop; a thread that ends closes its own. */
FERO_API void fero_queue_close(fero_queue *queue);

/* ----------------------------------------------------------------------------------- sugar */

/* The bytes of `text` without its final 0, borrowed; none where it is NULL. */
static inline fero_slice fero_str(const char *text)
{
    fero_slice slice = {text, 0};
    if (text != NULL)
        while (text[slice.len] != 0) slice.len++;
    return slice;
}

#ifdef __cplusplus
}
#endif
#endif /* FERO_H */
