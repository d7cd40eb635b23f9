#include "tests/sim/watcher.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "tests/sim/partition.h"
#include "tests/support/json_tree.h"

static _Noreturn void fail(const struct watcher *watcher, const struct history_key *key,
                           const char *what)
{
    world_fail(watcher->history->world, "client %u's subscription: key %s: %s", watcher->client,
               key->text, what);
}

static const struct history_key *key_at(const struct watcher *watcher, uint32_t key)
{
    return &watcher->history->keys[watcher->cache][key];
}

static bool does_match(const struct watcher *watcher, uint32_t key, uint32_t shard)
{
    bool is_wanted = watcher->key == HISTORY_KEYS_MAX || watcher->key == key;
    return is_wanted && key_at(watcher, key)->shard == shard;
}

static void forget(struct watched *watched)
{
    json_decref(watched->fold);
    *watched = (struct watched){0};
}

/* ---------------------------------------------------------------------------------- changes */

/* The version that the change made. */
static size_t version_of(const struct watcher *watcher, const struct history_key *key,
                         const struct asked *asked, const fero_change *change)
{
    for (size_t i = key->versions_count; i-- > 1;)
        if (key->versions[i].by == asked && key->versions[i].offset == change->offset) return i;
    fail(watcher, key, "a change that never was");
}

static void check_content(const struct watcher *watcher, const struct history_key *key,
                          const struct asked *asked, const fero_change *change)
{
    uint8_t value[HISTORY_VALUE_BYTES_MAX];
    bool is_removal = change->type == FERO_CHANGE_REMOVE;
    size_t bytes = strlen(key->text);
    if (change->key.len < bytes || memcmp(change->key.ptr, key->text, bytes) != 0)
        fail(watcher, key, "a change with another key");
    if (key->is_tree) return; /* what it adds up to is looked at */
    if (change->key.len != bytes || is_removal != (asked->type == ASK_REMOVE))
        fail(watcher, key, "another change");
    if (is_removal) return;
    history_value(watcher->history, asked, value);
    if (change->value.s.len != asked->value_bytes ||
        memcmp(value, change->value.s.ptr, asked->value_bytes) != 0)
        fail(watcher, key, "a change with another value");
}

/* What came first of a key must be what comes next where the stream begins. */
static void check_first(const struct watcher *watcher, const struct history_key *key, size_t at)
{
    const struct watcher_part *part = &watcher->parts[key->shard];
    const struct version *version = &key->versions[at];
    if (part->had_snapshot || part->started == 0) fail(watcher, key, "a change out of nowhere");
    switch (watcher->from) {
    case FERO_FROM_START:
        if (at != 1) fail(watcher, key, "its first changes are left out");
        break;
    case FERO_FROM_NOW:
        if (version->from < watcher->begun) fail(watcher, key, "a change of before now");
        if (version[-1].from > part->started) fail(watcher, key, "changes since now are left out");
        break;
    case FERO_FROM_OFFSET:
        if (version->offset < watcher->offset) fail(watcher, key, "a change below the offset");
        break;
    default: break;
    }
}

/* Behind a snapshot: the version before it must be like what the snapshot said. */
static bool is_like(const struct watcher *watcher, const struct history_key *key,
                    const struct watched *watched, size_t at)
{
    const struct version *version = &key->versions[at];
    if (version->until <= watcher->parts[key->shard].low) return false;
    if (!key->is_tree) return version->by == NULL || version->by->type == ASK_REMOVE;
    if (version->state == NULL || watched->fold == NULL)
        return version->state == NULL && watched->fold == NULL;
    json_t *left = json_tree_without_holes(version->state);
    json_t *right = json_tree_without_holes(watched->fold);
    bool is_equal = json_equal(left, right) != 0;
    json_decref(left);
    json_decref(right);
    return is_equal;
}

static void fold(struct watched *watched, const fero_change *change)
{
    /* The record lies around its key; what applies it needs its flags. */
    uint8_t flags =
        ((const uint8_t *)
             change->key.ptr)[-(ptrdiff_t)CHANGE_BYTES + (ptrdiff_t)offsetof(struct change, flags)];
    json_t *value = change->type == FERO_CHANGE_REMOVE ? NULL : partition_json(&change->value);
    json_tree_apply(&watched->fold, change->key.ptr, change->key.len, flags, value);
    json_decref(value);
}

static void on_change(const fero_change *change, void *ud)
{
    struct watcher *watcher = ud;
    struct history *history = watcher->history;
    const struct asked *asked = history_find(history, change->session, change->seq);
    if (asked == NULL || watcher->is_over || asked->cache != watcher->cache)
        world_fail(history->world, "client %u's subscription: a change of nobody, or after its end",
                   watcher->client);
    const struct history_key *key = key_at(watcher, asked->key);
    struct watched *watched = &watcher->keys[asked->key];
    const struct watcher_part *part = &watcher->parts[key->shard];
    if (!does_match(watcher, asked->key, (uint32_t)change->shard))
        fail(watcher, key, "a change that was not asked for");
    size_t at = version_of(watcher, key, asked, change);
    world_note(history->world, NOTE_CHANGE, watcher->client, asked->key, at, change->offset);
    check_content(watcher, key, asked, change);
    if (part->is_in_snapshot) {
        if (watched->state == WATCHED_AT && at < watched->version)
            fail(watcher, key, "a snapshot goes backwards");
        if (key->is_tree) fold(watched, change);
    } else if (watched->state == WATCHED_AT && at != watched->version + 1) {
        fail(watcher, key,
             at <= watched->version ? "a change comes twice" : "a change is left out");
    } else if (watched->state == WATCHED_LIKE && !is_like(watcher, key, watched, at - 1)) {
        fail(watcher, key, "a change is left out behind a snapshot");
    } else if (watched->state == WATCHED_NOTHING) {
        check_first(watcher, key, at);
    }
    watched->state = WATCHED_AT;
    watched->version = at;
}

/* -------------------------------------------------------------------------------- snapshots */

static void begin_snapshot(struct watcher *watcher, uint32_t shard)
{
    struct watcher_part *part = &watcher->parts[shard];
    part->is_in_snapshot = true;
    part->had_snapshot = true;
    part->is_live = false;
    for (uint32_t i = 0; i < watcher->history->keys_count; i++)
        if (does_match(watcher, i, shard)) forget(&watcher->keys[i]);
}

/* Whether the key was, at some moment between these two, what the snapshot has. */
static bool was_between(const struct watcher *watcher, const struct history_key *key,
                        const struct watched *watched, uint64_t low, uint64_t high)
{
    for (size_t i = key->versions_count; i-- > 0 && key->versions[i].until > low;)
        if (key->versions[i].from < high && !key->versions[i].is_partial &&
            is_like(watcher, key, watched, i))
            return true;
    return false;
}

/* The values that it has of flat keys must all have been so at one moment; the others then, too. */
static void end_snapshot(struct watcher *watcher, uint32_t shard)
{
    struct history *history = watcher->history;
    struct watcher_part *part = &watcher->parts[shard];
    uint64_t low = watcher->begun;
    uint64_t high = history->moment + 1;
    if (!part->is_in_snapshot)
        world_fail(history->world, "client %u: a snapshot ends that did not begin",
                   watcher->client);
    for (uint32_t i = 0; i < history->keys_count; i++) {
        const struct watched *watched = &watcher->keys[i];
        if (!does_match(watcher, i, shard) || watched->state != WATCHED_AT) continue;
        const struct version *version = &key_at(watcher, i)->versions[watched->version];
        low = max_u64(low, version->from);
        if (!key_at(watcher, i)->is_tree) high = min_u64(high, version->until);
    }
    part->low = 0;
    for (uint32_t i = 0; i < history->keys_count; i++) {
        struct watched *watched = &watcher->keys[i];
        const struct history_key *key = key_at(watcher, i);
        if (!does_match(watcher, i, shard)) continue;
        if (low >= high) fail(watcher, key, "a snapshot is of no moment");
        if (watched->state == WATCHED_AT && !key->is_tree) continue;
        if (!was_between(watcher, key, watched, low, high))
            fail(watcher, key, "a snapshot has it as it never was then");
        watched->state = WATCHED_LIKE;
    }
    part->low = low;
    part->is_in_snapshot = false;
}

static void on_event(const fero_stream_event *event, void *ud)
{
    struct watcher *watcher = ud;
    struct history *history = watcher->history;
    struct watcher_part *part = &watcher->parts[event->shard];
    world_note(history->world, NOTE_EVENT, watcher->client, (uint64_t)event->shard,
               (uint64_t)event->type, (uint64_t)-event->error);
    if (watcher->is_over)
        world_fail(history->world, "client %u: an event after the end of its subscription",
                   watcher->client);
    switch (event->type) {
    case FERO_STREAM_RESUMED: /* where the link was lost before it had started */
    case FERO_STREAM_STARTED:
        if (part->started == 0) part->started = ++history->moment;
        break;
    case FERO_STREAM_SNAPSHOT_BEGIN: begin_snapshot(watcher, (uint32_t)event->shard); break;
    case FERO_STREAM_SNAPSHOT_END: end_snapshot(watcher, (uint32_t)event->shard); break;
    case FERO_STREAM_LIVE:
        if (part->is_in_snapshot)
            world_fail(history->world, "client %u: live inside of a snapshot", watcher->client);
        part->is_live = true;
        break;
    case FERO_STREAM_TRIMMED:
        if (watcher->from == FERO_FROM_NOW && part->started == 0)
            world_fail(history->world, "client %u: what is to come is said to be gone",
                       watcher->client);
        break;
    case FERO_STREAM_ENDED:
        if (event->error != 0 && !(event->error == FERO_E_NOMEM && history->may_be_full) &&
            !history->clients[watcher->client].is_killed)
            world_fail(history->world, "client %u's subscription ends: error %d", watcher->client,
                       event->error);
        part->has_ended = true;
        break;
    default: break;
    }
}

/* ---------------------------------------------------------------------------------- its life */

int watcher_open(struct watcher *watcher, struct history *history, uint32_t client,
                 fero_cache *cache, uint32_t cache_number)
{
    static const int32_t froms[] = {FERO_FROM_START,   FERO_FROM_NOW,      FERO_FROM_OFFSET,
                                    FERO_FROM_OLDEST,  FERO_FROM_SNAPSHOT, FERO_FROM_SNAPSHOT,
                                    FERO_FROM_SNAPSHOT};
    static const int64_t credits[] = {1, 1, 500, 0};
    struct world *world = history->world;
    *watcher = (struct watcher){.history = history,
                                .client = client,
                                .cache = cache_number,
                                .key = HISTORY_KEYS_MAX,
                                .from = froms[world_below(world, ARRAY_COUNT(froms))],
                                .begun = ++history->moment,
                                .is_until_live = world_below(world, 6) == 0};
    if (watcher->from == FERO_FROM_OFFSET || world_below(world, 3) == 0)
        watcher->key = (uint32_t)world_below(world, history->keys_count);
    if (watcher->from == FERO_FROM_OFFSET) watcher->offset = 1 + world_below(world, 20);
    fero_stream_opts opts = {.size = sizeof opts,
                             .match = FERO_MATCH_PATH,
                             .from = watcher->from,
                             .offset = watcher->offset,
                             .until_live = watcher->is_until_live,
                             .credit_bytes = credits[world_below(world, ARRAY_COUNT(credits))],
                             .change = on_change,
                             .event = on_event,
                             .ud = watcher};
    if (watcher->key < HISTORY_KEYS_MAX)
        opts.prefix = fero_str(key_at(watcher, watcher->key)->text);
    return fero_subscribe(cache, &opts, &watcher->stream);
}

void watcher_close(struct watcher *watcher)
{
    fero_stream_free(watcher->stream);
    for (uint32_t i = 0; i < HISTORY_KEYS_MAX; i++) forget(&watcher->keys[i]);
}

void watcher_act(struct watcher *watcher)
{
    struct world *world = watcher->history->world;
    if (watcher->is_over || world_below(world, 20) != 0) return;
    if (world_below(world, 20) == 0) {
        fero_stream_stop(watcher->stream);
        watcher->is_over = true;
        return;
    }
    watcher->is_paused = !watcher->is_paused;
    if (watcher->is_paused)
        fero_stream_pause(watcher->stream);
    else
        fero_stream_resume(watcher->stream);
}

void watcher_rest(struct watcher *watcher)
{
    if (watcher->is_paused) fero_stream_resume(watcher->stream);
    watcher->is_paused = false;
}

/* Of a key: nothing has happened since. */
static bool is_key_level(const struct watcher *watcher, uint32_t index)
{
    const struct history_key *key = key_at(watcher, index);
    const struct watched *watched = &watcher->keys[index];
    const struct watcher_part *part = &watcher->parts[key->shard];
    const struct version *last = &key->versions[key->versions_count - 1];
    switch (watched->state) {
    case WATCHED_AT: return watched->version + 1 == key->versions_count;
    case WATCHED_LIKE: return is_like(watcher, key, watched, key->versions_count - 1);
    case WATCHED_NOTHING: break;
    }
    if (watcher->from == FERO_FROM_NOW) return last->from <= part->started;
    if (watcher->from == FERO_FROM_OFFSET) return last->offset < watcher->offset;
    return last->by == NULL || watcher->from == FERO_FROM_OLDEST;
}

bool watcher_is_level(const struct watcher *watcher)
{
    if (watcher->is_over) return true;
    for (uint32_t i = 0; i < watcher->history->keys_count; i++) {
        uint32_t shard = key_at(watcher, i)->shard;
        const struct watcher_part *part = &watcher->parts[shard];
        if (!does_match(watcher, i, shard) || part->has_ended) continue;
        if (!part->is_live || !is_key_level(watcher, i)) return false;
    }
    return true;
}
