/*
 * Requests are taken in runs, so that their cache misses overlap: all are decoded and checked, then
 * all keys are hashed and their buckets fetched, then all records, and only then is the first one
 * applied. (MICA and CuckooSwitch do the same; without it a million random keys cost a third more.)
 *
 * A run is applied in order. A request of another shard's slot is copied into that shard's lane at
 * its turn; if the lane is full, the run ends there and the caller's receiving pauses with it.
 */
#include "shard/run.h"

#include <errno.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "ring/slot.h"
#include "shard/bundle.h"
#include "shard/crossing.h"
#include "shard/request.h"

struct run {
    struct request requests[RUN_MAX];
    uint64_t foreign; /* a bit for each request that another shard owns */
    unsigned count;
};

/* The shard that owns the request's slot; requests without a key are handled where they arrive. */
static ALWAYS_INLINE uint32_t owner_of(const struct shard *shard, struct request *request)
{
    if (shard->options->shards_count == 1 || !request->is_keyed) return shard->index;
    if (request->store.slot == FRAME_SLOT_ANY)
        request->store.slot = slot_of_key(request->store.body, request->store.key_len);
    return shard->slot_owner[request->store.slot];
}

static bool is_control(const uint8_t *data, size_t size)
{
    return size >= FRAME_PREFIX_BYTES && data[4] < FRAME_UPDATE && data[4] != FRAME_INFO;
}

/*
 * What updates.c left: a single update that looks plain, behind which others may be so, or a run of
 * other requests. Updates that it never takes come in runs, too: those with a timeout of their own,
 * or that want no reply, or of numbers.
 */
static unsigned run_length(const uint8_t *data, size_t size)
{
    if (size < FRAME_PREFIX_BYTES || data[4] != FRAME_UPDATE) return RUN_MAX;
    uint8_t flags = data[5];
    bool looks_plain = (flags & (FRAME_WANT | FRAME_EXTENDED)) == WANT_REPLY << FRAME_WANT_SHIFT &&
                       request_takes_any_bytes(flags & FRAME_VALUE_TYPE);
    return looks_plain && !request_looks_deep(data, size) ? 1 : RUN_MAX;
}

static bool wants_id(const struct request *request)
{
    return UNLIKELY(request->frame_type == FRAME_ADD) && request->store.key_len == 0 &&
           request->error == 0;
}

/* Decodes up to RUN_MAX requests at `data` and starts fetching what they need. */
static enum decoded run_decode(struct run *run, struct caller *caller, const uint8_t *data,
                               size_t size, struct refusal *refusal)
{
    struct shard *shard = caller->shard;
    enum decoded decoded = DECODED_REQUEST;
    uint64_t highest = caller->seq_highest;
    size_t at = 0;
    run->count = 0;
    run->foreign = 0;
    unsigned count_max = run_length(data, size);
    while (run->count < count_max && at < size) {
        struct request *request = &run->requests[run->count];
        if (UNLIKELY(is_control(data + at, size - at))) break;
        decoded = request_decode(request, shard, data + at, size - at, refusal);
        if (UNLIKELY(decoded != DECODED_REQUEST)) break;
        /* Its time runs from when it was first read. */
        if (UNLIKELY(request->deadline_ns != 0) && at < caller->again_bytes)
            request->deadline_ns -= shard->now_ns - caller->again_ns;
        at += request->frame_bytes;
        request->input_bytes = request->frame_bytes;
        request->store.seq_whole = request_seq_nearest(highest, request->link_seq);
        highest = max_u64(highest, request->store.seq_whole);
        bool was_given_id = wants_id(request);
        if (UNLIKELY(was_given_id)) request_give_id(request, caller);
        request->store.session = caller->claim.id;
        request->session = caller->session;
        if (owner_of(shard, request) != shard->index) {
            run->foreign |= (uint64_t)1 << run->count;
        } else if (request->is_keyed) {
            store_prefetch(&request->cache->store, &request->store);
        }
        run->count++;
        if (UNLIKELY(request->frame_type == FRAME_INFO || was_given_id)) break;
    }
    for (unsigned i = 0; i < run->count; i++) {
        struct request *request = &run->requests[i];
        if ((run->foreign >> i & 1) == 0 && request->is_keyed)
            store_probe(&request->cache->store, &request->store);
    }
    return decoded;
}

/* Applies one request, here or over there. False: no room, nothing was done. */
static ALWAYS_INLINE bool run_one(struct caller *caller, struct request *request, bool foreign)
{
    struct shard *shard = caller->shard;
    if (UNLIKELY(foreign)) return crossing_try_send(caller, request);
    struct request_context context = {.shard = shard, .caller = caller, .request = request};
    if (UNLIKELY(request_is_late(shard, request)))
        request_fail_late(&context);
    else
        request_apply(&context);
    return true;
}

/* These bytes of the caller's were taken. */
static ALWAYS_INLINE void took(struct caller *caller, size_t bytes)
{
    if (UNLIKELY(caller->again_bytes > 0))
        caller->again_bytes -= min_u64(caller->again_bytes, bytes);
}

/* Applies the run in order; returns the bytes of what was applied. */
static size_t run_apply(struct run *run, struct caller *caller)
{
    struct shard *shard = caller->shard;
    size_t room = shard->outbox_bytes;
    size_t bytes = 0;
    unsigned i = 0;
    bool small = true; /* only replies of 16 bytes since the outbox was looked at */
    if (UNLIKELY(!caller_has_room(caller, room))) return 0;
    for (; i < run->count; i++) {
        struct request *request = &run->requests[i];
        if (UNLIKELY(!small) && !caller_has_room(caller, room)) break;
        if (UNLIKELY(caller->state != CALLER_READY)) break;
        if (!run_one(caller, request, (run->foreign >> i & 1) != 0)) break;
        if (request->frame_type != FRAME_UPDATE) small = false;
        caller->seq_highest = max_u64(caller->seq_highest, request->store.seq_whole);
        caller->seq_last = request->link_seq;
        bytes += request->input_bytes;
    }
    caller->requests += i;
    caller->consumed_bytes += PLANTED("window_leaks") && i < run->count ? 0 : bytes;
    took(caller, bytes);
    shard->work += i;
    count(&shard->counters.requests, i);
    return bytes;
}

static int64_t run_refuse(struct caller *caller, const struct refusal *refusal)
{
    caller_refuse(caller, refusal);
    return -EPROTO;
}

/* INFO costs as much as a thousand other requests: a caller has one of them a turn. */
static bool is_costly(const struct run *run)
{
    return run->count > 0 && run->requests[run->count - 1].frame_type == FRAME_INFO;
}

/*
 * What comes next must wait, for room or for the next turn: its receiving pauses. The `bytes` that
 * are left come again. If some of them did before, their time is kept, and that of the others begins
 * when they come again: rather late than early.
 */
static void run_block(struct caller *caller, size_t bytes)
{
    if (caller->again_bytes == 0) {
        caller->again_bytes = bytes;
        caller->again_ns = caller->shard->now_ns;
    }
    caller->link.blocked = true;
    caller_mark_waiting(caller);
}

/* The short way: plain updates from the start of `data`; returns their bytes. */
static size_t take_plain(struct caller *caller, const uint8_t *data, size_t size)
{
    struct shard *shard = caller->shard;
    struct bundles bundles;
    struct updates updates = {.shard = shard,
                              .session = caller->session,
                              .session_id = caller->claim.id,
                              .seq = caller->seq_highest};
    if (size < UPDATES_SLACK_BYTES || data[4] != FRAME_UPDATE) return 0;
    if (BUGGIFY("general_way")) return 0;
    if (UNLIKELY(request_looks_deep(data, size))) return 0;
    if (UNLIKELY(!caller_has_room(caller, shard->outbox_bytes))) return 0;
    updates.replies = link_reserve(&caller->link, UPDATES_MAX * FRAME_REPLY_BYTES);
    if (UNLIKELY(updates.replies == NULL)) return 0;
    if (caller->session != NULL) session_before_run(caller->session);
    bundles_init(&bundles, caller);
    if (shard->options->shards_count > 1) updates.bundles = &bundles;
    size_t bytes = shard->updates_take(&updates, data, size);
    if (bytes == 0) return 0;
    bundles_end(&bundles);
    link_commit(&caller->link, updates.applied * FRAME_REPLY_BYTES);
    uint32_t taken = updates.applied + bundles.pushed;
    caller->seq_highest = max_u64(updates.seq, bundles.seq);
    caller->seq_last = updates.seq_last;
    caller->requests += taken;
    caller->consumed_bytes += bytes;
    caller->must_ack = true;
    took(caller, bytes);
    shard->work += taken;
    count(&shard->counters.requests, taken);
    return bytes;
}

int64_t run_from_caller(void *context, uint8_t *data, size_t size)
{
    struct caller *caller = context;
    struct refusal refusal;
    struct run run;
    size_t at = 0;
    while (at < size) {
        size_t plain;
        while ((plain = take_plain(caller, data + at, size - at)) > 0) at += plain;
        if (at == size) break;
        enum decoded decoded = run_decode(&run, caller, data + at, size - at, &refusal);
        size_t run_bytes = 0;
        for (unsigned i = 0; i < run.count; i++) run_bytes += run.requests[i].input_bytes;
        size_t applied = run_apply(&run, caller);
        at += applied;
        caller->must_ack |= applied > 0;
        if (caller->state != CALLER_READY) return -EPIPE;
        if (applied < run_bytes || (UNLIKELY(is_costly(&run)) && at < size)) {
            run_block(caller, size - at);
            break;
        }
        if (decoded == DECODED_BROKEN) return run_refuse(caller, &refusal);
        if (decoded == DECODED_PARTIAL) break;
        if (run.count > 0 || at == size) continue;
        if (!caller_has_room(caller, caller->shard->outbox_bytes)) {
            run_block(caller, size - at);
            break;
        }
        int64_t taken = caller_control(caller, data + at, size - at);
        if (taken < 0) return taken;
        if (taken == 0) break;
        at += (size_t)taken;
        took(caller, (size_t)taken);
    }
    caller_mark_dirty(caller);
    return (int64_t)at;
}
