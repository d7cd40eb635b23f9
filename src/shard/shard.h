/*
 * One core's thread and all that it owns: its io, its callers, its part of every cache, its end of
 * the lanes. The only place where the layers below meet. See shard.c for the turn.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/ck.h"
#include "base/secret.h"
#include "base/timers.h"
#include "base/trace.h"
#include "net/io.h"
#include "shard/asks.h"
#include "shard/cache.h"
#include "shard/caller.h"
#include "shard/counters.h"
#include "shard/crowd.h"
#include "shard/deferred.h"
#include "shard/errors.h"
#include "shard/mailbox.h"
#include "shard/updates.h"
#include "shard/waiter.h"
#include "wire/hello.h"

#define SHARD_EVENTS_MAX 256

enum memory_level { MEMORY_ENOUGH, MEMORY_LOW, MEMORY_FULL };

enum shard_idle { IDLE_ADAPTIVE, IDLE_BUSY_POLL, IDLE_SLEEP };

/* The same for every shard of a node. */
struct shard_options {
    uint32_t shards_count;
    enum shard_idle idle;
    uint64_t spin_ns_max;     /* of adaptive waiting */
    size_t log_bytes_max;     /* of this shard, index included */
    size_t history_bytes_max; /* of a cache on this shard */
    uint64_t history_records_max;
    size_t garbage_bytes_max; /* likewise */
    size_t sessions_bytes_max;
    size_t outbox_bytes_max;    /* of a link */
    size_t links_bytes_max;     /* of the buffers of all links of a shard */
    size_t lent_bytes_max;      /* of a cache's log beyond its history, for slow subscribers */
    uint32_t subscriptions_max; /* of a link */
    bool unbatched;             /* every frame is sent by itself */
    size_t key_bytes_max;
    size_t value_bytes_max;
    size_t frame_bytes_max;
    uint32_t connections_max;       /* of the whole node */
    uint32_t half_open_max;         /* callers that have not greeted, of a shard, */
    uint32_t half_open_source_max;  /* and of one address; 0: as many as that */
    bool half_open_spares_loopback; /* which is no source then */
    uint32_t window_requests;
    uint64_t window_bytes;
    size_t lane_bytes;
    uint32_t deferred_max;    /* requests that handlers have not answered yet */
    uint64_t greeting_ns_max; /* from accept to HELLO */
    uint64_t progress_ns;     /* a half-received frame is looked at so often, */
    uint64_t progress_bytes;  /* and has to have grown by so much; 0: it may take its time */
    uint64_t node;
    uint64_t cluster;
    uint64_t view;
    uint32_t incarnation;
    uint64_t hash_seed;
    uint32_t errors_max;        /* distinct ones that are remembered */
    uint64_t start_ns;          /* when the node was started, as clock_now_ns tells it */
    const struct secret *token; /* that callers must show; NULL: none */
    const struct trace *trace;
};

/* What a shard keeps of its lanes to another shard: see crossing.c and bundle.c. */
struct crossing_peer {
    uint64_t promised_bytes;    /* of replies that will come back */
    uint64_t head_seen;         /* last position of the consumer that was looked up */
    uint64_t resumed_turn;      /* the last one in which callers that waited for it went on ... */
    uint64_t resumed_bytes;     /* ... and what they may send in it */
    struct mail_bundle *bundle; /* that is being written, */
    uint32_t bundle_left;       /* and the updates that it may still take; 0: there is none */
};

/* The argument is the cache's definition, and how long stopping may take: a uint64_t, nanoseconds. */
enum shard_command { COMMAND_NONE, COMMAND_OPEN_CACHE, COMMAND_STOP };

struct lent;

struct shard {
    uint32_t index;
    bool stopping;
    bool reading_ended; /* it stops, and takes no more from its callers */
    struct io *io;
    struct mailbox *mailbox;
    struct shard **peers; /* by index; read only what is declared shared */
    const struct shard_options *options;
    struct cache *caches[CACHES_MAX];
    uint32_t caches_count;
    struct segments segments;
    struct sessions sessions;
    uint64_t hlc;
    uint64_t now_ns; /* of this turn */
    uint64_t wall_offset_ms;
    uint64_t wall_read_ns;
    uint64_t drain_ns; /* how long it may take to stop */
    uint64_t stop_deadline_ns;
    uint64_t quiet_since_ns;
    uint64_t spin_ns;
    int32_t cpu;         /* pinned to, or -1; set before the thread runs */
    int32_t cpu_clock;   /* clockid_t of the thread's CPU time; 0: not running */
    const char *io_name; /* which implementation of struct io, and why; NULL: of a test */
    const char *io_why;
    uint16_t *slot_owner; /* shard of each slot; shared and constant */

    struct caller *callers; /* shard_callers_max, reserved */
    uint32_t callers_fresh;
    struct caller *callers_free;
    struct caller_queue greeting; /* by their deadlines */
    struct caller_queue closing;
    struct caller_queue halfway; /* with a half-received frame */
    struct crowd crowd;
    struct link_budget links; /* buffers of all callers */
    size_t outbox_bytes;      /* that a caller may have now; less where links hold much */
    uint32_t trim_next;       /* the caller that callers_trim looks at next */
    uint64_t trim_ns;         /* when it begins its next round */
    struct caller **dirty;
    uint32_t dirty_count;
    struct caller **waiting;
    uint32_t waiting_count;
    uint32_t lane_waits_count; /* of those that wait, for a lane that is still full */
    uint32_t next_shard;       /* for callers that want any */
    uint64_t work;             /* things done this turn */
    uint64_t appended_bytes;   /* this turn */
    bool is_compacting;        /* so it was told */
    uint8_t memory_level;      /* enum memory_level; so it was told, */
    uint64_t memory_told_ns;   /* then */
    bool was_full;             /* something was not appended this turn: memory.max is reached */
    struct crossing_peer crossing[SHARDS_MAX];
    struct timers timers;
    struct deferreds deferreds;
    struct lent *lent;    /* to handlers, for this turn */
    uint64_t parts_taken; /* grows when threads have room for parts of streams; release, acquire */
    struct waiters waiters;
    struct asks asks;
    updates_fn updates_take; /* the variant for this processor */
    uint8_t *scratch;        /* for a frame that is rewritten */
    size_t scratch_bytes;
    uint32_t handed_over; /* lanes' requests without a reply yet */
    struct feed *feeds;   /* of threads of the program */
    bool must_feed;       /* some of them may go on although nothing was appended */
    struct subscription *subscriptions;
    bool must_serve; /* some of them may go on although nothing was appended */

    /* Shared: written by this shard, read by others. */
    struct shard_counters counters __attribute__((aligned(CACHE_PAIR)));
    uint64_t adopted; /* connections that came from other shards, ever; after `connections` */
    struct errors errors;
    uint32_t is_needed; /* it may have requests for other shards, or answers to come */
    /* Shared: the control thread writes, this shard takes. */
    uint32_t command __attribute__((aligned(CACHE_PAIR))); /* enum shard_command */
    uint32_t command_done;
    const void *command_argument;
    int command_result;
};

/* Entries of a shard's table of callers: any of them may have all of the node's. */
static inline uint32_t shard_callers_max(const struct shard_options *options)
{
    return options->connections_max + CROWD_TURNED_AWAY_MAX;
}

/* Called by the shard's own thread, `io` opened there. 0 or -ENOMEM. */
MUST_CHECK int shard_init(struct shard *shard, uint32_t index, struct io *io,
                          struct mailbox *mailbox, struct shard **peers, uint16_t *slot_owner,
                          const struct shard_options *options);
/* After all shards have stopped, and before their mailboxes are gone. */
void shard_deinit(struct shard *shard);

/* One turn, waiting for something to do as the options say. False: the shard has stopped. */
bool shard_turn(struct shard *shard);
/* The one whose turn the calling thread is in, NULL: none. */
struct shard *shard_running(void);
/* The same, waiting for `wait_ns_max` at most. */
bool shard_turn_within(struct shard *shard, uint64_t wait_ns_max);
/* When it has something to do, although nothing happens. */
uint64_t shard_due_ns(const struct shard *shard);
/* Between two turns, for one who drives the shard by turns: does what a port has sent, or the command. */
void shard_take_port(struct shard *shard, uint32_t port);
void shard_take_command(struct shard *shard);
/* Turns until the shard has stopped. */
void shard_run(struct shard *shard);

/* The parts below are for the shard's own files. */

/* caller.c */
void caller_accept(struct shard *shard, uint32_t conn, const struct address *peer);
/* Takes over a connection whose HELLO (in `data`) named this shard. */
void caller_adopt(struct shard *shard, int fd, const uint8_t *data, size_t size);
void caller_event(struct shard *shard, const struct io_event *event);
void caller_refuse(struct caller *caller, const struct refusal *refusal);
void caller_mark_dirty(struct caller *caller);
/* The io is gone, and with it all connections. */
void caller_release(struct caller *caller);
void caller_mark_waiting(struct caller *caller);
/* End of the turn: acknowledges, flushes; then lets waiting callers go on. */
void callers_flush(struct shard *shard);
void callers_unblock(struct shard *shard);
/* Lets a few callers that have been idle for a while give back memory. */
void callers_trim(struct shard *shard);
/* Keeps the buffers of all callers within their bound: less for each, and then none for the largest. */
void callers_relieve(struct shard *shard);
/*
 * Takes nothing more from any caller, for good. What was taken is answered, then they hear that the
 * node is stopping.
 */
void callers_end_reading(struct shard *shard);
/* Whether everything that was written to callers has gone out. */
bool callers_are_flushed(const struct shard *shard);
void callers_expire(struct shard *shard);
uint64_t callers_deadline_ns(const struct shard *shard);
struct caller *caller_of(struct shard *shard, uint32_t index, uint32_t generation);
/* Room in the outbox for `bytes` more, promised bytes included. */
static inline bool caller_has_room(const struct caller *caller, size_t bytes_max)
{
    return link_out_bytes(&caller->link) + caller->reserved_bytes <= bytes_max;
}

/* caller.c: one control frame on a ready link; its bytes, 0 if it is partial, or -errno. */
MUST_CHECK int64_t caller_control(struct caller *caller, const uint8_t *data, size_t size);
/* crossing.c: takes mail from all lanes. */
void crossing_drain(struct shard *shard);
/* Lets go of what is in the lanes of a shard that has stopped. */
void crossing_discard(struct shard *shard);
/* Whether requests of this shard's callers are still on other shards. */
bool crossing_is_quiet(const struct shard *shard);
/* Enough for SHARDS_MAX shards and CACHES_MAX names. */
#define INFO_BYTES_MAX (192 * KIB)
/*
 * info.c: writes the node's facts and counters, or the errors of all its shards, as JSON; returns the
 * bytes. Of facts that are too many 0; of errors those that are too many are left out and counted.
 */
size_t info_write(const struct shard *shard, char *buffer, size_t bytes);
size_t info_write_errors(const struct shard *shard, char *buffer, size_t bytes);

/* The wall clock of this turn, in milliseconds. */
static inline uint64_t shard_wall_ms(const struct shard *shard)
{
    return shard->now_ns / 1000000 + shard->wall_offset_ms;
}

/* One more error; `text` is a constant of the program. */
static inline void note_error(struct shard *shard, enum error_kind kind, enum reply_error code,
                              const char *text, uint64_t got, uint64_t limit)
{
    errors_note(&shard->errors, kind, code, text, got, limit, shard_wall_ms(shard));
}

static inline void note_error_example(struct shard *shard, enum error_kind kind,
                                      enum reply_error code, const char *text, struct bytes example)
{
    errors_note_example(&shard->errors, kind, code, text, example, shard_wall_ms(shard));
}

static inline void count(uint64_t *counter, uint64_t by)
{
    count_up_u64(counter, by);
}
