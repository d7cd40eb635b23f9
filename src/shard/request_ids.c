#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "shard/request.h"
#include "shard/updates.h"

/* Numbers that a session was given are remembered as if they were addresses of another session. */
#define IDS_SESSION 0x6964732d67697665u

/*
 * The number for an add without a key: the one that it had if it is sent again. 0: there is none, and
 * the request says why.
 */
static COLD uint64_t id_for(struct request *request, struct caller *caller)
{
    struct shard *shard = caller->shard;
    struct cache_ids *ids = request->cache->definition->ids;
    uint64_t seq = request->store.seq_whole;
    uint32_t low = 0;
    struct session_claim claim = caller->claim;
    if (claim.id == 0) return cache_next_id(ids);
    claim.id ^= IDS_SESSION;
    struct session *session = claim.id != 0 ? sessions_use(&shard->sessions, &claim) : NULL;
    enum session_verdict verdict =
        session != NULL ? session_probe(session, seq, &low) : SESSION_NEW;
    if (verdict == SESSION_KNOWN) return request_seq_nearest(load_relaxed_u64(&ids->given), low);
    if (verdict == SESSION_STALE) {
        request_refuse(request, ERROR_STALE,
                       "sequence number %llu is below the session's window, which ends at %llu",
                       seq, session->seq_highest);
        return 0;
    }
    if (session == NULL ||
        (session_must_grow(session, seq) && sessions_grow(&shard->sessions, session, seq) < 0)) {
        request_refuse(request, ERROR_NO_MEMORY, "no memory to remember the request", 0, 0);
        return 0;
    }
    uint64_t id = cache_next_id(ids);
    session_remember(session, seq, id << 3);
    return id;
}

/*
 * An add without a key becomes an insert of the next number, for whichever shard that is. It lies in
 * the shard's scratch, so the run ends with it.
 */
COLD void request_give_id(struct request *request, struct caller *caller)
{
    struct shard *shard = caller->shard;
    struct frame_request frame;
    struct refusal refusal;
    char key[24];
    uint64_t id = id_for(request, caller);
    if (id == 0) return;
    struct request original = *request;
    size_t key_len = (size_t)snprintf(key, sizeof key, "%llu", (unsigned long long)id);
    size_t length = sizeof frame + key_len + original.store.body_bytes;
    size_t bytes = round_up_8(length) + UPDATES_SLACK_BYTES;
    if (shard->scratch_bytes < bytes) {
        uint8_t *scratch = memory_take(bytes);
        if (scratch == NULL) {
            request_refuse(request, ERROR_NO_MEMORY, "no memory for %llu bytes", bytes, 0);
            return;
        }
        memory_put(shard->scratch);
        shard->scratch = scratch;
        shard->scratch_bytes = bytes;
    }
    memcpy(&frame, request->frame, sizeof frame);
    frame.length = (uint32_t)length;
    frame.type = FRAME_INSERT;
    frame.flags &= (uint8_t)~FRAME_EXTENDED;
    frame.key_len = (uint16_t)key_len;
    frame.slot = FRAME_SLOT_ANY;
    memset(shard->scratch + round_up_8(length) - 8, 0, 8);
    memcpy(shard->scratch, &frame, sizeof frame);
    memcpy(shard->scratch + sizeof frame, key, key_len);
    memcpy(shard->scratch + sizeof frame + key_len, original.store.body, original.store.body_bytes);
    enum decoded decoded =
        request_decode(request, shard, shard->scratch, round_up_8(length), &refusal);
    if (decoded != DECODED_REQUEST) *request = original; /* it is too long now */
    request->input_bytes = original.input_bytes;
    request->deadline_ns = original.deadline_ns;
    request->store.seq_whole = original.store.seq_whole;
    if (decoded != DECODED_REQUEST)
        request_refuse(request, ERROR_TOO_BIG,
                       "a frame of %llu bytes with its key, of %llu at most", length,
                       shard->options->frame_bytes_max);
}
