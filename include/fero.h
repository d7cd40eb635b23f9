/*
 * fero.h - the public interface of libfero.
 *
 * A runtime (struct fero) is shards, connections and memory; a cache is a named service and its
 * state. A server's runtime has one thread for every shard. A client's runtime has no thread: the
 * caller's own loop drives it, through fero_run or by polling fero_fd.
 *
 * Rules of this header
 *   - Handles are opaque. Every struct that the caller fills begins with `size`; 0 in a field means
 *     the default, FERO_OFF means none or switched off.
 *   - Functions return 0 (or a count) or a negative FERO_E_...; fero_errmsg has the details of the
 *     calling thread's last failure, and says what to do next.
 *   - Memory handed to a callback is borrowed until the callback returns.
 *   - Nothing blocks except fero_start, fero_open, fero_run, fero_wait, fero_close and fero_stop.
 *   - A client's runtime belongs to the thread that started it. Handlers run on shard threads.
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

typedef struct fero fero;
typedef struct fero_cache fero_cache;
typedef struct fero_op fero_op;

/* ---------------------------------------------------------------------------------- values */

typedef struct fero_slice {
    const void *ptr;
    size_t len;
} fero_slice;

#define FERO_T_UNDEFINED 0
#define FERO_T_STRING 1 /* UTF-8 */
#define FERO_T_DOUBLE 2 /* in .num */
#define FERO_T_JSON 3   /* UTF-8 JSON text */
#define FERO_T_BOOL 4   /* in .i64, 0 or 1 */
#define FERO_T_NULL 5
#define FERO_T_BYTES 6
#define FERO_T_INT64 7 /* in .i64 */

typedef struct fero_val {
    int32_t type; /* FERO_T_... */
    int32_t reserved;
    fero_slice s; /* string, JSON text, bytes */
    double num;
    int64_t i64;
} fero_val;

/* ---------------------------------------------------------------------------------- errors */

#define FERO_OK 0
#define FERO_E_INVAL -1    /* bad argument or option */
#define FERO_E_NOMEM -2    /* memory.max is reached, or the system has no more */
#define FERO_E_AGAIN -3    /* full: call fero_run and try again */
#define FERO_E_TIMEOUT -4  /* the deadline passed; see fero_result.outcome */
#define FERO_E_CLOSED -5   /* stopped or stopping */
#define FERO_E_NOTCONN -6  /* no node answers at the seeds */
#define FERO_E_NOTFOUND -7 /* no such key or cache */
#define FERO_E_EXISTS -8   /* the port is taken */
#define FERO_E_CONFLICT -9 /* if_offset did not match */
#define FERO_E_NOTOWNER -10
#define FERO_E_TOOBIG -11 /* key or value over the limit */
#define FERO_E_DENIED -13
#define FERO_E_TYPE -14
#define FERO_E_SYS -15   /* a system call failed; fero_errmsg names it */
#define FERO_E_PROTO -16 /* the peer does not speak fero, or another version of it */
#define FERO_E_NOREPLY -17
#define FERO_E_UNSUPPORTED -20 /* no handler for this verb */
#define FERO_E_STALE -21

FERO_API const char *fero_strerror(int err);
/* One line about this thread's last failure; valid until its next call. */
FERO_API const char *fero_errmsg(void);

/* --------------------------------------------------------------------------------- runtime */

#define FERO_LOG_ERROR 0
#define FERO_LOG_WARN 1
#define FERO_LOG_INFO 2
#define FERO_LOG_DEBUG 3
/* One line, without a newline. From several threads at once. */
typedef void (*fero_log_fn)(int32_t level, const char *line, void *ud);

#define FERO_IDLE_ADAPTIVE 0  /* spin while traffic is recent, then sleep */
#define FERO_IDLE_BUSY_POLL 1 /* never sleep */
#define FERO_IDLE_SLEEP 2     /* sleep at once */

typedef struct fero_runtime_opts {
    size_t size;
    int32_t client;            /* 1: no shards and no threads; fero_run drives it */
    int32_t shards;            /* 0: one for each allowed cpu */
    const char *cpus;          /* "2-7,10": pin the shards to these; NULL: the allowed ones */
    const char *listen;        /* address of the listener; NULL: 127.0.0.1 */
    uint16_t port_first;       /* 0 with port_last 0: any free port */
    uint16_t port_last;        /* the first free one from port_first on is taken */
    int32_t idle;              /* FERO_IDLE_... */
    const char *const *seeds;  /* clients: "HOST:PORT" of nodes, NULL at the end */
    const char *io_features;   /* "-msg_ring,+send_zc"; NULL: what measured best */
    int64_t memory_max_bytes;  /* cap on logs and tables of all shards; 0: 80 % of the machine's */
    int64_t history_max_bytes; /* newest changes kept, superseded or not; 0: 10 % of the cap,
                                   at most 128 MiB */
    int64_t history_max_records; /* likewise by number; 0: no limit of its own */
    int64_t outbox_max_bytes;    /* a connection's; 0: 1 MiB; FERO_OFF: no batching */
    int64_t key_max_bytes;       /* 0: 1 KiB */
    int64_t value_max_bytes;     /* 0: 1 MiB */
    int64_t connections_max;     /* 0: what the descriptors allow, at most 65,536 */
    int64_t window_requests;     /* unanswered requests a session; 0: 16,384 */
    int64_t window_bytes;        /* request bytes in flight a link; 0: 4 MiB */
    int64_t lane_bytes;          /* of each lane between two shards; 0: 1 MiB */
    int32_t log_level;           /* lines above it are not made */
    int32_t reserved;
    fero_log_fn log; /* NULL: the library is silent */
    void *log_ud;
} fero_runtime_opts;

/*
 * Starts a runtime. A server listens when this returns; a client has not connected yet.
 *
 *   FERO_E_INVAL  an option is out of its range.
 *   FERO_E_SYS    io_uring is refused, the port is taken, memory cannot be reserved.
 */
FERO_API int fero_start(const fero_runtime_opts *opts, fero **out) FERO_NODISCARD;
/*
 * Stops it: accepting ends, every request already accepted is answered, threads are joined and all
 * memory is freed. A client's operations in flight end with outcome UNKNOWN. `drain_ms` bounds the
 * wait; 0 means 2,000.
 */
FERO_API int fero_stop(fero *rt, int64_t drain_ms);

/* Writes a JSON object about the runtime (address, shards, memory, counters); returns its bytes. */
FERO_API int64_t fero_info(fero *rt, char *buffer, size_t bytes);
/* The address that a server really listens on, "127.0.0.1:7700". Lives as long as the runtime. */
FERO_API const char *fero_address(const fero *rt);

/* Clients: does what is ready and waits up to `timeout_ms` for more; returns the events done. */
FERO_API int fero_run(fero *rt, int64_t timeout_ms);
/* Clients: a descriptor that is readable when fero_run(rt, 0) has something to do. */
FERO_API int fero_fd(fero *rt);

/* -------------------------------------------------------------------------------- requests */

/* What a handler sees; borrowed until the request is replied to. */
typedef struct fero_req {
    size_t size;
    fero_cache *cache;
    fero_slice verb;
    fero_slice key;
    fero_val value;
    uint64_t session; /* 0: the caller has none */
    uint64_t seq;
} fero_req;

#define FERO_H_REPLIED 0 /* fero_reply was called */
#define FERO_H_NEXT 1    /* run the default handler and reply with its result */
#define FERO_H_IGNORE 2  /* declined: the caller gets FERO_E_NOREPLY at once */
/* A negative FERO_E_... replies with that error. Shard thread; must not block. */
typedef int32_t (*fero_handler_fn)(fero_req *req, void *ud);

typedef struct fero_verb {
    const char *name;
    fero_handler_fn fn;
    void *ud;
} fero_verb;

/*
 * Replies to `req`, once, inside its handler. `status` 0 is success, a negative FERO_E_... a
 * failure. `value` may be NULL. FERO_E_INVAL when it was replied to before.
 */
FERO_API int fero_reply(fero_req *req, int32_t status, const fero_val *value);

/* ----------------------------------------------------------------------------------- cache */

typedef struct fero_opts {
    size_t size;
    const fero_verb *verbs; /* servers: copied */
    size_t verbs_count;
    fero_handler_fn handler; /* servers: sees what no verb matched; NULL: the default handler */
    void *handler_ud;
    int64_t timeout_ms; /* clients: how long fero_open waits for a node; 0: 10,000 */
} fero_opts;

/*
 * Opens a cache. A server makes it if there is none of that name. A client connects to a node of
 * the seeds, then to each of its shards.
 *
 *   FERO_E_NOTCONN   no node answered in time.
 *   FERO_E_NOTFOUND  the node has no such cache.
 */
FERO_API int fero_open(fero *rt, const char *name, const fero_opts *opts,
                       fero_cache **out) FERO_NODISCARD;
FERO_API int fero_close(fero_cache *cache);

/* ---------------------------------------------------------------------------- client calls */

/* What the caller wants to hear of a request. */
#define FERO_NOTHING 0 /* fire and forget */
#define FERO_ACK 1     /* received by the node: counted only, see fero_counts */
#define FERO_REPLY 2   /* processed by the owner */

#define FERO_OUTCOME_OK 0
#define FERO_OUTCOME_FAIL 1    /* it did not happen and will not */
#define FERO_OUTCOME_UNKNOWN 2 /* it may have happened */

typedef struct fero_result {
    int32_t outcome; /* FERO_OUTCOME_... */
    int32_t error;   /* 0 or FERO_E_... */
    uint64_t seq;    /* of the request in its session */
    uint64_t offset; /* of the change in its partition, 0: none */
    fero_val value;  /* borrowed */
} fero_result;

/* Runs inside fero_run, fero_wait or fero_stop. May send, must not close. */
typedef void (*fero_done_fn)(const fero_result *result, void *ud);

typedef struct fero_wopts {
    size_t size;
    int32_t want; /* FERO_NOTHING, FERO_ACK, FERO_REPLY */
    int32_t reserved;
    int64_t timeout_ms; /* 0: 10,000; afterwards the outcome is UNKNOWN */
    fero_done_fn done;  /* with FERO_REPLY: called exactly once */
    void *ud;
} fero_wopts;

/*
 * Requests. `opts` NULL is fire and forget. With `op` not NULL the caller gets an operation to wait
 * for and must free it; then `done` may still be set.
 *
 *   FERO_E_AGAIN    the window or the outbox is full: call fero_run, then try again.
 *   FERO_E_NOTCONN  the shard's link is down; fero_run dials it again.
 *   FERO_E_TOOBIG   key or value is over the node's limit; nothing was sent.
 */
FERO_API int fero_update(fero_cache *cache, fero_slice key, const fero_val *value,
                         const fero_wopts *opts, fero_op **op);
FERO_API int fero_remove(fero_cache *cache, fero_slice key, const fero_wopts *opts, fero_op **op);
FERO_API int fero_get(fero_cache *cache, fero_slice key, const fero_wopts *opts, fero_op **op);
/* A request to the handler of `verb`. An empty key may be handled by any shard. */
FERO_API int fero_send(fero_cache *cache, fero_slice verb, fero_slice key, const fero_val *value,
                       const fero_wopts *opts, fero_op **op);
/* The node's counters as JSON text, through the link to `shard` (-1: any). */
FERO_API int fero_ask_info(fero_cache *cache, int32_t shard, const fero_wopts *opts, fero_op **op);

/* Runs the client until `op` is done; `result` is valid until fero_op_free. FERO_E_TIMEOUT ... */
FERO_API int fero_wait(fero_op *op, int64_t timeout_ms, fero_result *result);
FERO_API void fero_op_free(fero_op *op);

/* How far the requests of a client's cache have come; cumulative. */
typedef struct fero_counts {
    uint64_t sent;   /* accepted by fero_update and the like */
    uint64_t tacks;  /* written to the kernel */
    uint64_t yacks;  /* received and queued by the node */
    uint64_t sacks;  /* replied to */
    uint64_t failed; /* of the replies: outcome FAIL or UNKNOWN */
    uint64_t resent; /* sent again after a lost link */
} fero_counts;
FERO_API void fero_counts_get(const fero_cache *cache, fero_counts *counts);
/* Shards of the node that this client is connected to. */
FERO_API int fero_shards(const fero_cache *cache);

/* ----------------------------------------------------------------------------------- sugar */

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
