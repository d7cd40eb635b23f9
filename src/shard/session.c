#include "shard/session.h"

#include <errno.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "base/memory.h"

#define ENTRIES_FIRST 64
#define SESSION_BYTES_MIN (sizeof(struct session) + ENTRIES_FIRST * sizeof(struct session_entry))
/*
 * How far numbers go between two sweeps. A run of plain updates may go 2^31 further before anybody
 * looks, and all of it must be less than 2^32: see session_sweep.
 */
#define SWEEP_STEP ((uint64_t)1 << 29)

_Static_assert((SESSION_WINDOW & (SESSION_WINDOW - 1)) == 0, "the window indexes a table");

enum session_verdict session_probe_slow(const struct session *session, uint64_t seq,
                                        uint32_t *address)
{
    if (session->seq_highest - seq >= SESSION_WINDOW) return SESSION_STALE;
    if (PLANTED("newest_is_new") && seq == session->seq_highest) return SESSION_NEW;
    const struct session_entry *entry = &session->entries[seq & session->mask];
    if (entry->address != 0 && entry->seq == (uint32_t)seq) {
        *address = entry->address;
        return SESSION_KNOWN;
    }
    return seq < session->floor ? SESSION_STALE : SESSION_NEW;
}

/*
 * An entry has the low half of its number. A shard that sees few of a session's numbers may keep one
 * for longer than these go round, and would take another number for it.
 */
void session_sweep(struct session *session, uint64_t seq)
{
    bool is_far = seq - session->seq_highest >= SWEEP_STEP && seq > session->seq_highest;
    for (uint32_t i = 0; i <= session->mask; i++) {
        struct session_entry *entry = &session->entries[i];
        if (is_far || (uint32_t)seq - entry->seq >= SESSION_WINDOW) entry->address = 0;
    }
    session->sweep_at = (seq / SWEEP_STEP + 1) * SWEEP_STEP;
}

/* Numbers below `floor` that are not remembered are stale from now on. */
static void session_raise(struct session *session, uint64_t floor)
{
    if (floor <= session->floor) return;
    session->floor = floor;
    session->seq_highest = max_u64(session->seq_highest, floor - 1);
}

static int session_grow(struct session *session)
{
    uint32_t count = (session->mask + 1) * 2;
    ASSERT(count <= SESSION_WINDOW);
    struct session_entry *entries = memory_take(count * sizeof *entries);
    if (entries == NULL) return -ENOMEM;
    for (uint32_t i = 0; i <= session->mask; i++) {
        struct session_entry entry = session->entries[i];
        if (entry.address != 0) entries[entry.seq & (count - 1)] = entry;
    }
    memory_put(session->entries);
    session->entries = entries;
    session->mask = count - 1;
    return 0;
}

static size_t session_bytes(const struct session *session)
{
    return sizeof *session + (session->mask + 1) * sizeof *session->entries;
}

static size_t chains_bytes(const struct sessions *sessions)
{
    return (sessions->chains_mask + 1) * sizeof(struct session *);
}

int sessions_init(struct sessions *sessions, size_t bytes_max, uint64_t hash_seed)
{
    uint64_t chains = 1;
    while (chains < bytes_max / SESSION_BYTES_MIN) chains *= 2;
    *sessions = (struct sessions){
        .chains_mask = chains - 1, .bytes_max = bytes_max, .hash_seed = hash_seed};
    sessions->chains = memory_reserve(chains_bytes(sessions), 0);
    return sessions->chains != NULL ? 0 : -ENOMEM;
}

static struct session **chain_of(const struct sessions *sessions, uint64_t id)
{
    return &sessions->chains[hash_key(&id, sizeof id, sessions->hash_seed) & sessions->chains_mask];
}

static void session_free(struct session *session)
{
    memory_put(session->entries);
    memory_put(session);
}

void sessions_deinit(struct sessions *sessions)
{
    if (sessions->chains == NULL) return;
    for (uint64_t i = 0; sessions->count > 0; i++) {
        while (sessions->chains[i] != NULL) {
            struct session *session = sessions->chains[i];
            sessions->chains[i] = session->next;
            sessions->count--;
            session_free(session);
        }
    }
    memory_release(sessions->chains, chains_bytes(sessions));
    *sessions = (struct sessions){0};
}

static struct session *sessions_find(const struct sessions *sessions, uint64_t id)
{
    struct session *session = *chain_of(sessions, id);
    while (session != NULL && session->id != id) session = session->next;
    return session;
}

static void idle_unlink(struct sessions *sessions, struct session *session)
{
    if (session->newer != NULL)
        session->newer->older = session->older;
    else
        sessions->idle_newest = session->older;
    if (session->older != NULL)
        session->older->newer = session->newer;
    else
        sessions->idle_oldest = session->newer;
    session->newer = NULL;
    session->older = NULL;
}

static void idle_push(struct sessions *sessions, struct session *session)
{
    session->older = sessions->idle_newest;
    if (session->older != NULL) session->older->newer = session;
    sessions->idle_newest = session;
    if (sessions->idle_oldest == NULL) sessions->idle_oldest = session;
}

static void forget(struct sessions *sessions, struct session *session)
{
    ASSERT(session->links == 0);
    idle_unlink(sessions, session);
    struct session **link = chain_of(sessions, session->id);
    while (*link != session) link = &(*link)->next;
    *link = session->next;
    sessions->bytes -= session_bytes(session);
    sessions->count--;
    sessions->forgotten++;
    if (!PLANTED("watermark_kept"))
        sessions->watermark = max_u64(sessions->watermark, session->start);
    session_free(session);
}

static bool make_room(struct sessions *sessions, size_t bytes)
{
    while (sessions->bytes + bytes > sessions->bytes_max) {
        if (sessions->idle_oldest == NULL) return false;
        forget(sessions, sessions->idle_oldest);
    }
    return true;
}

/* Whether a session that is not known may be one that was forgotten. */
static bool may_be_forgotten(const struct sessions *sessions, const struct session_claim *claim)
{
    return sessions->forgotten > 0 && claim->start <= sessions->watermark;
}

static struct session *session_make(struct sessions *sessions, const struct session_claim *claim)
{
    bool is_suspect = may_be_forgotten(sessions, claim);
    if (!make_room(sessions, SESSION_BYTES_MIN)) return NULL;
    struct session *session = memory_take(sizeof *session);
    if (session == NULL) return NULL;
    session->id = claim->id;
    session->start = claim->start;
    session->sweep_at = SWEEP_STEP;
    session->mask = ENTRIES_FIRST - 1;
    session->entries = memory_take(ENTRIES_FIRST * sizeof *session->entries);
    if (session->entries == NULL) {
        memory_put(session);
        return NULL;
    }
    struct session **chain = chain_of(sessions, claim->id);
    session->next = *chain;
    *chain = session;
    sessions->bytes += SESSION_BYTES_MIN;
    sessions->count++;
    if (is_suspect) session_raise(session, claim->seq_unsent);
    return session;
}

struct session *sessions_attach(struct sessions *sessions, const struct session_claim *claim)
{
    ASSERT(claim->id != 0);
    struct session *session = sessions_find(sessions, claim->id);
    if (session == NULL)
        session = session_make(sessions, claim);
    else if (session->links == 0)
        idle_unlink(sessions, session);
    if (session == NULL) return NULL;
    session_raise(session, claim->floor);
    session->links++;
    return session;
}

void sessions_detach(struct sessions *sessions, struct session *session)
{
    ASSERT(session->links > 0);
    if (--session->links == 0) idle_push(sessions, session);
    if (PLANTED("session_forgotten") && session->links == 0) forget(sessions, session);
}

struct session *sessions_use(struct sessions *sessions, const struct session_claim *claim)
{
    struct session *session = sessions_find(sessions, claim->id);
    /* With links it is in no list; the newest one is where it shall be. */
    if (session != NULL && (session->links > 0 || session == sessions->idle_newest)) {
        session_raise(session, claim->floor);
        return session;
    }
    session = sessions_attach(sessions, claim);
    if (session != NULL) sessions_detach(sessions, session);
    return session;
}

static int grow_once(struct sessions *sessions, struct session *session)
{
    size_t before = session_bytes(session);
    if (!make_room(sessions, before)) return -ENOMEM;
    int err = session_grow(session);
    if (err < 0) return err;
    sessions->bytes += session_bytes(session) - before;
    return 0;
}

int sessions_grow(struct sessions *sessions, struct session *session, uint64_t seq)
{
    int err = 0;
    /* Room is not made by forgetting the very session that needs it. */
    if (session->links++ == 0) idle_unlink(sessions, session);
    while (err == 0 && session_must_grow(session, seq)) err = grow_once(sessions, session);
    sessions_detach(sessions, session);
    return err;
}
