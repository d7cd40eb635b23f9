/*
 * Plain updates (updates.c) that belong to another shard cross in bundles: one mail with a head that
 * says whose they are, and behind it the frames as they came, one after the other. What costs by the
 * mail (its head, the look at the session, the mail back) then costs next to nothing, and the owner
 * feeds the frames to the same passes that take them from a caller.
 *
 *   bundle   | struct mail_bundle | frame | frame | ... | UPDATES_SLACK_BYTES, whatever is in them |
 *   replies  | struct mail_reply  | reply of 16 bytes | ... |
 *
 * A bundle grows while it is the last mail of its lane and the call that began it goes on. It ends
 * where the lane's memory does, so long bundles waste no more of it than single requests. Its frames
 * have growing numbers; those of the first come soon after the number in the head.
 *
 * Room. The first pass asks how much there is and reads no more than that, so what comes to be pushed
 * has its place: a run that ends early has pushed nothing that it gives back to its reader. Each
 * update is promised what a single one is, since the owner answers in the general way where it must.
 */
#include "shard/bundle.h"

#include "base/assert.h"
#include "shard/crossing.h"

#define BUNDLE_UPDATES_MAX 256u
/* Sum of what else the bundles of one call may need in one lane: see bundles_begin. */
#define HEADS_BYTES ((2 + UPDATES_MAX / BUNDLE_UPDATES_MAX) * sizeof(struct bundle_ends))
#define PROMISE (CHANGED_REPLY_BYTES_MAX / PROMISE_UNIT)
#define PROMISE_MAIL_BYTES (sizeof(struct mail_reply) + CHANGED_REPLY_BYTES_MAX)
_Static_assert(CHANGED_REPLY_BYTES_MAX % PROMISE_UNIT == 0, "promises are whole units");
_Static_assert(BUNDLE_UPDATES_MAX *FRAME_REPLY_BYTES <= CROSSING_INLINE_BYTES_MAX,
               "a mail of replies wraps as others do");

struct mail_bundle {
    struct mail mail;
    uint32_t caller;
    uint32_t generation;
    struct session_claim claim;
    uint64_t seq; /* 64-bit; the first update's is higher */
};

/* What a bundle has beside its updates. */
struct bundle_ends {
    struct mail_bundle head;
    uint8_t slack[UPDATES_SLACK_BYTES];
};

/* ------------------------------------------------------------------ the caller's side */

void bundles_init(struct bundles *bundles, struct caller *caller)
{
    *bundles = (struct bundles){
        .caller = caller, .seq_read = (uint32_t)caller->seq_highest, .seq = caller->seq_highest};
}

/*
 * One number for all lanes, the smallest: the next call asks again. A call begins a bundle for each
 * BUNDLE_UPDATES_MAX updates, one where the memory ends and one where the known room did.
 */
void bundles_begin(struct bundles *bundles)
{
    const struct caller *caller = bundles->caller;
    struct shard *shard = caller->shard;
    size_t owed = link_out_bytes(&caller->link) + caller->reserved_bytes;
    size_t outbox = shard->outbox_bytes;
    size_t count = outbox < owed ? 0 : (outbox - owed) / CHANGED_REPLY_BYTES_MAX + 1;
    size_t bytes = SIZE_MAX;
    for (uint32_t to = 0; to < shard->options->shards_count; to++) {
        if (to == shard->index) continue;
        struct crossing_room room = crossing_room(shard, to);
        count = min_u64(count, room.reply_bytes / PROMISE_MAIL_BYTES);
        bytes = min_u64(bytes, room.request_bytes);
    }
    bundles->begun = true;
    bundles->count_left = (uint32_t)min_u64(count, UPDATES_MAX);
    bundles->bytes_left = bytes > HEADS_BYTES ? bytes - HEADS_BYTES : 0;
}

static NO_INLINE struct mail_bundle *open_bundle(const struct bundles *bundles,
                                                 const struct foreign *foreign)
{
    const struct caller *caller = bundles->caller;
    struct shard *shard = caller->shard;
    struct mail *mail = mailbox_try_push(shard->mailbox, foreign->to,
                                         sizeof(struct bundle_ends) + foreign->bytes, MAIL_BUNDLE);
    ASSERT(mail != NULL); /* bundles_begin found room */
    struct mail_bundle *bundle = (struct mail_bundle *)mail;
    uint32_t seq;
    memcpy(&seq, foreign->frame + offsetof(struct frame_request, seq), sizeof seq);
    bundle->caller = caller->index;
    bundle->generation = caller->generation;
    bundle->claim = session_claim_at(&caller->claim, bundles->seq + (seq - (uint32_t)bundles->seq));
    bundle->seq = bundles->seq;
    shard->crossing[foreign->to].bundle = bundle;
    shard->crossing[foreign->to].bundle_left = BUNDLE_UPDATES_MAX;
    return bundle;
}

/* Copies a frame; what lies behind it may be copied, too. */
static ALWAYS_INLINE void copy_frame(uint8_t *to, const uint8_t *from, size_t bytes)
{
    if (LIKELY(bytes <= FRAME_REQUEST_BYTES + UPDATES_SLACK_BYTES))
        memcpy(to, from, FRAME_REQUEST_BYTES + UPDATES_SLACK_BYTES);
    else
        memcpy(to, from, bytes);
}

/* Pushes the first ones that have the same owner; returns how many. */
static unsigned push_some(struct bundles *bundles, const struct foreign *foreign, unsigned count)
{
    struct shard *shard = bundles->caller->shard;
    struct crossing_peer *peer = &shard->crossing[foreign->to];
    struct lane *lane = shard->mailbox->out[foreign->to];
    struct mail_bundle *bundle = peer->bundle;
    unsigned some = 0;
    size_t bytes = 0;
    uint32_t seq;
    for (; some < count && some < peer->bundle_left; some++) {
        if (foreign[some].to != foreign->to) break;
        bytes += foreign[some].bytes;
    }
    if (UNLIKELY(some == 0 || !lane_try_extend(lane, &bundle->mail, bytes))) {
        bytes = foreign->bytes;
        if (some == 0 || !lane_try_extend(lane, &bundle->mail, bytes))
            bundle = open_bundle(bundles, foreign);
        some = 1;
    }
    uint8_t *to = (uint8_t *)bundle + bundle->mail.bytes - UPDATES_SLACK_BYTES - bytes;
    for (unsigned i = 0; i < some; to += foreign[i++].bytes)
        copy_frame(to, foreign[i].frame, foreign[i].bytes);
    memcpy(&seq, foreign[some - 1].frame + offsetof(struct frame_request, seq), sizeof seq);
    bundles->seq += seq - (uint32_t)bundles->seq;
    bundles->pushed += some;
    bundles->pushed_bytes += bytes;
    peer->promised_bytes += some * PROMISE_MAIL_BYTES;
    peer->bundle_left -= some;
    return some;
}

void bundles_push(struct bundles *bundles, const struct foreign *foreign, unsigned count)
{
    for (unsigned some; count > 0; foreign += some, count -= some)
        some = push_some(bundles, foreign, count);
}

void bundles_end(struct bundles *bundles)
{
    struct shard *shard = bundles->caller->shard;
    if (bundles->pushed == 0) return;
    for (uint32_t to = 0; to < shard->options->shards_count; to++)
        shard->crossing[to].bundle_left = 0;
    bundles->caller->reserved_bytes += (uint64_t)bundles->pushed * CHANGED_REPLY_BYTES_MAX;
    shard->handed_over += bundles->pushed;
    count(&shard->counters.crossed_out, bundles->pushed);
}

void bundle_take_replies(struct shard *shard, uint32_t from, const struct mail *mail)
{
    const struct mail_reply *reply = (const struct mail_reply *)mail;
    size_t bytes = mail->bytes - sizeof *reply;
    uint32_t replies = (uint32_t)(bytes / FRAME_REPLY_BYTES);
    shard->handed_over -= replies;
    shard->work += replies;
    shard->crossing[from].promised_bytes -= replies * PROMISE_MAIL_BYTES;
    crossing_deliver(shard, reply, (const uint8_t *)(reply + 1), bytes,
                     (size_t)replies * CHANGED_REPLY_BYTES_MAX);
}

/* ------------------------------------------------------------------- the owner's side */

/* Sends the replies of updates that were applied. */
static void send_replies(const struct updates *updates, uint32_t from,
                         const struct mail_bundle *bundle)
{
    size_t bytes = (size_t)updates->applied * FRAME_REPLY_BYTES;
    struct mail *mail = mailbox_try_push(updates->shard->mailbox, from,
                                         sizeof(struct mail_reply) + bytes, MAIL_BUNDLE_REPLIES);
    ASSERT(mail != NULL); /* promised */
    struct mail_reply *reply = (struct mail_reply *)mail;
    reply->caller = bundle->caller;
    reply->generation = bundle->generation;
    memcpy(reply + 1, updates->replies, bytes);
    updates->shard->work += updates->applied;
    count(&updates->shard->counters.crossed_in, updates->applied);
}

/* Applies the update at `frame` in the general way; returns its bytes. */
static size_t apply_one(struct updates *updates, uint32_t from, const struct mail_bundle *bundle,
                        const uint8_t *frame)
{
    struct frame_request request;
    memcpy(&request, frame, sizeof request);
    size_t bytes = round_up_8(request.length);
    updates->seq += request.seq - (uint32_t)updates->seq;
    struct mail_request head = {.mail = {.small = PROMISE},
                                .caller = bundle->caller,
                                .generation = bundle->generation,
                                .claim = bundle->claim,
                                .seq = updates->seq};
    crossing_apply(updates->shard, from, &head, frame, bytes);
    return bytes;
}

void bundle_apply(struct shard *shard, uint32_t from, const struct mail *mail)
{
    const struct mail_bundle *bundle = (const struct mail_bundle *)mail;
    const uint8_t *frames = (const uint8_t *)(bundle + 1);
    size_t size = mail->bytes - sizeof *bundle;
    size_t at = 0;
    uint8_t replies[BUNDLE_UPDATES_MAX * FRAME_REPLY_BYTES];
    struct updates updates = {.shard = shard,
                              .session = crossing_session(shard, &bundle->claim),
                              .session_id = bundle->claim.id,
                              .seq = bundle->seq,
                              .replies = replies};
    bool is_short = updates.session != NULL || bundle->claim.id == 0;
    if (updates.session != NULL) session_before_run(updates.session);
    while (at < size - UPDATES_SLACK_BYTES) {
        size_t bytes = 0;
        if (is_short && !request_looks_deep(frames + at, size - at))
            bytes = shard->updates_take(&updates, frames + at, size - at);
        if (LIKELY(bytes > 0))
            send_replies(&updates, from, bundle);
        else
            bytes = apply_one(&updates, from, bundle, frames + at);
        at += bytes;
    }
}
