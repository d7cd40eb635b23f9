/*
 * A stream has a part for each shard: a subscription on that shard's link, with what the node has
 * said of it. When a link is lost its parts wait, and are subscribed to again on the next one: behind
 * the last change that came, which the node knows by its number in the shard's stream; where that is
 * not possible, because the node is another one or a snapshot was not complete, with a snapshot.
 *
 * What a node sends is hostile input: each record's lengths are checked before it is shown.
 */
#include "engine/stream.h"

#include <errno.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/buggify.h"
#include "base/memory.h"
#include "engine/client.h"
#include "engine/error.h"
#include "engine/result.h"
#include "log/change.h"
#include "wire/path.h"
#include "wire/stream.h"

#define CREDIT_DEFAULT (4 * MIB)
#define CREDIT_MAX ((int64_t)1 << 40)
_Static_assert(FERO_FROM_START == STREAM_FROM_START && FERO_FROM_NOW == STREAM_FROM_NOW &&
                   FERO_FROM_OFFSET == STREAM_FROM_OFFSET &&
                   FERO_FROM_OLDEST == STREAM_FROM_OLDEST &&
                   FERO_FROM_SNAPSHOT == STREAM_FROM_SNAPSHOT,
               "the public numbers are those on the wire");
_Static_assert(FERO_STREAM_STARTED == STREAM_STARTED && FERO_STREAM_ENDED == STREAM_ENDED,
               "likewise");

enum part_state {
    PART_WAITING, /* for a link */
    PART_ASKED,   /* SUBSCRIBE was sent; STARTED or TRIMMED has not come */
    PART_RUNNING,
    PART_ENDED
};

struct part {
    uint8_t state; /* enum part_state */
    bool was_lost; /* and nobody was told that it goes on */
    bool has_begun;
    bool is_live;
    bool owes_snapshot; /* one was asked for or announced, and its end has not come */
    uint64_t owner;     /* node that `position` is of */
    uint64_t position;  /* behind the last change; 0: it cannot be said */
    uint64_t taken_bytes;
    uint64_t credit_bytes;
};

struct fero_stream {
    struct client *client; /* NULL: it is over */
    struct client_cache *cache;
    struct fero_stream *next;
    fero_stream_opts opts;
    uint32_t number;
    uint32_t slot;     /* the only one that matters, or SLOTS_COUNT */
    uint64_t begun_on; /* identity of the first node that it began on; 0: none yet */
    bool is_paused;
    bool is_in_callback;
    bool is_freed; /* by a callback of its own */
    uint32_t parts_count;
    struct part *parts; /* by shard */
    size_t prefix_bytes;
    uint8_t prefix[];
};

/* ------------------------------------------------------------------------------- callbacks */

static void stream_forget(struct fero_stream *stream)
{
    memory_put(stream->parts);
    memory_put(stream);
}

static bool has_part(const struct fero_stream *stream, uint32_t shard)
{
    return stream->slot == SLOTS_COUNT || stream->client->slot_link[stream->slot] == shard;
}

/* Whether every part is live, running again or ended, as `type` says. */
static bool is_all(const struct fero_stream *stream, int32_t type)
{
    for (uint32_t i = 0; i < stream->client->links_count; i++) {
        if (!has_part(stream, i)) continue;
        if (i >= stream->parts_count) return false;
        const struct part *part = &stream->parts[i];
        bool is_ended = part->state == PART_ENDED;
        if (type == FERO_STREAM_ENDED && !is_ended) return false;
        if (type == FERO_STREAM_LIVE && !part->is_live && !is_ended) return false;
        if (type == FERO_STREAM_RESUMED && part->state != PART_RUNNING && !is_ended) return false;
    }
    return true;
}

static void tell(struct fero_stream *stream, uint32_t shard, int32_t type, int error,
                 const char *text)
{
    fero_stream_event event = {.type = type,
                               .shard = (int32_t)shard,
                               .error = error,
                               .text = fero_str(text),
                               .is_all = stream->client != NULL && is_all(stream, type)};
    if (stream->client != NULL) stream->client->finished++;
    if (stream->opts.event != NULL) stream->opts.event(&event, stream->opts.ud);
}

/* Its own callbacks may stop and free it; it goes when they have returned. */
static void callbacks_begin(struct fero_stream *stream)
{
    ASSERT(!stream->is_in_callback);
    stream->is_in_callback = true;
}

/* False: there is no stream any more. */
static bool callbacks_end(struct fero_stream *stream)
{
    stream->is_in_callback = false;
    if (stream->is_freed)
        stream_forget(stream);
    else if (stream->client != NULL)
        return true;
    return false;
}

/* ---------------------------------------------------------------------------------- asking */

static int send_credit(struct client_link *link, const struct fero_stream *stream, bool is_end)
{
    const struct part *part = &stream->parts[link->index];
    struct frame_credit frame = {
        .number = stream->number, .credit_bytes = part->credit_bytes, .credit_records = CREDIT_ALL};
    uint8_t *to = link_reserve(&link->link, sizeof frame);
    if (to == NULL) return -ENOMEM;
    link_commit(&link->link, credit_encode(&frame, is_end, to));
    return 0;
}

/* More may come when half of what may come has been taken. */
static int extend_credit(struct client_link *link, struct fero_stream *stream)
{
    struct part *part = &stream->parts[link->index];
    uint64_t window = (uint64_t)stream->opts.credit_bytes;
    if (stream->is_paused || part->state == PART_ENDED || part->state == PART_WAITING) return 0;
    if (part->credit_bytes > part->taken_bytes + window / 2) return 0;
    part->credit_bytes = part->taken_bytes + window;
    return send_credit(link, stream, false);
}

/* Where the next subscription of the part begins. */
static void choose_from(const struct fero_stream *stream, const struct part *part,
                        struct frame_subscribe *frame)
{
    bool is_first_node = stream->begun_on == 0 || stream->begun_on == stream->client->home_node;
    if (!part->has_begun && is_first_node) {
        frame->from = (uint8_t)stream->opts.from;
        frame->at = stream->opts.from == FERO_FROM_OFFSET ? stream->opts.offset : 0;
    } else if (part->position != 0 && !part->owes_snapshot) {
        frame->from = STREAM_FROM_POSITION;
        frame->at = part->position;
        frame->owner = part->owner;
    } else {
        frame->from = STREAM_FROM_SNAPSHOT;
    }
}

static int ask(struct client_link *link, struct fero_stream *stream)
{
    struct part *part = &stream->parts[link->index];
    struct frame_subscribe frame = {
        .prefix = {.flags = stream->opts.until_live != 0 ? SUBSCRIBE_UNTIL_LIVE : 0},
        .number = stream->number,
        .cache = stream->cache->numbers[link->index],
        .match = stream->opts.match == FERO_MATCH_PATH ? STREAM_MATCH_PATH : STREAM_MATCH_PREFIX,
        .shard = (uint16_t)link->index,
        .credit_records = CREDIT_ALL};
    if (stream->prefix_bytes == 0) frame.match = STREAM_MATCH_PREFIX;
    part->taken_bytes = 0;
    part->credit_bytes = stream->is_paused ? 0 : (uint64_t)stream->opts.credit_bytes;
    frame.credit_bytes = part->credit_bytes;
    choose_from(stream, part, &frame);
    part->owes_snapshot = frame.from == STREAM_FROM_SNAPSHOT;
    uint8_t *to = link_reserve(&link->link, sizeof frame + stream->prefix_bytes + 8);
    if (to == NULL) return -ENOMEM;
    struct bytes prefix = {stream->prefix, stream->prefix_bytes};
    link_commit(&link->link, subscribe_encode(&frame, prefix, to));
    part->state = PART_ASKED;
    return 0;
}

/* Room for a part of every shard that the node has. */
static int grow(struct fero_stream *stream, uint32_t count)
{
    if (count <= stream->parts_count) return 0;
    size_t old_bytes = stream->parts_count * sizeof *stream->parts;
    struct part *parts = memory_resize(stream->parts, old_bytes, count * sizeof *parts);
    if (parts == NULL) return -ENOMEM;
    memset((uint8_t *)parts + old_bytes, 0, count * sizeof *parts - old_bytes);
    stream->parts = parts;
    stream->parts_count = count;
    return 0;
}

static int ask_if_needed(struct client_link *link, struct fero_stream *stream)
{
    if (link->state != CLIENT_LINK_UP || !has_part(stream, link->index)) return 0;
    if (stream->cache->numbers[link->index] == CLIENT_CACHE_UNKNOWN) return 0;
    if (grow(stream, stream->client->links_count) < 0) return -ENOMEM;
    return stream->parts[link->index].state == PART_WAITING ? ask(link, stream) : 0;
}

int streams_link_up(struct client_link *link)
{
    for (struct fero_stream *stream = link->client->streams; stream != NULL; stream = stream->next)
        if (ask_if_needed(link, stream) < 0) return -ENOMEM;
    return 0;
}

/* A callback may free any stream, so the walk begins anew behind each. */
void streams_link_lost(struct client_link *link)
{
    struct client *client = link->client;
    struct fero_stream *stream = client->streams;
    while (stream != NULL) {
        struct part *part = link->index < stream->parts_count ? &stream->parts[link->index] : NULL;
        if (part == NULL || part->state == PART_WAITING || part->state == PART_ENDED) {
            stream = stream->next;
            continue;
        }
        part->state = PART_WAITING;
        part->is_live = false;
        part->was_lost = true;
        callbacks_begin(stream);
        tell(stream, link->index, FERO_STREAM_LOST, 0, client->reason);
        callbacks_end(stream);
        stream = client->streams;
    }
}

/* --------------------------------------------------------------------------------- changes */

static struct fero_stream *find(const struct client *client, uint32_t number)
{
    struct fero_stream *stream = client->streams;
    while (stream != NULL && stream->number != number) stream = stream->next;
    return stream;
}

static int32_t type_of(uint8_t type)
{
    switch (type) {
    case FRAME_UPDATE: return FERO_CHANGE_UPDATE;
    case FRAME_REMOVE: return FERO_CHANGE_REMOVE;
    default: return FERO_CHANGE_ADD;
    }
}

static bool is_known_type(uint8_t type)
{
    return type >= FRAME_UPDATE && type < FRAME_GET + 2 && type != FRAME_GET;
}

bool stream_read_change(fero_change *to, const void *record)
{
    const uint8_t *key = (const uint8_t *)record + CHANGE_BYTES;
    struct change change;
    memcpy(&change, record, sizeof change);
    to->type = type_of(change.type);
    to->key = (fero_slice){key, change.key_len};
    to->offset = change_offset(&change);
    to->time_ms = (int64_t)(change.hlc >> 16);
    to->clock = change.hlc;
    to->session = change.session;
    to->seq = change_seq(&change);
    to->value = (fero_val){0};
    return is_known_type(change.type) &&
           result_value_read(&to->value, (uint8_t)change_value_type(&change), key + change.key_len,
                             change_value_bytes(&change));
}

static int broken(struct refusal *wrong, const char *text, uint64_t got, uint64_t limit)
{
    *wrong = (struct refusal){ERROR_PROTOCOL, got, limit, text};
    return -EPROTO;
}

/* Shows the records one after the other, as long as somebody wants to see them. */
static int show(struct fero_stream *stream, uint32_t shard, const struct frame_changes *frame,
                struct bytes records, struct refusal *wrong)
{
    const uint8_t *at = records.data;
    size_t left = records.size;
    fero_change change = {.shard = (int32_t)shard};
    for (uint32_t i = 0; i < frame->prefix.small; i++) {
        size_t padded = change_checked_bytes(at, left);
        if (padded == 0) return broken(wrong, "record of a change", left, CHANGE_BYTES);
        if (!stream_read_change(&change, at))
            return broken(wrong, "type of a change", at[4], FRAME_UPDATE);
        /* A node that is asked to go on where it stood does not know what the first one is to be. */
        bool is_early =
            stream->opts.from == FERO_FROM_OFFSET && change.offset < stream->opts.offset;
        if (!is_early) stream->opts.offset = 0;
        if (!is_early && stream->client != NULL && stream->opts.change != NULL)
            stream->opts.change(&change, stream->opts.ud);
        at += padded;
        left -= padded;
    }
    return left == 0 ? 0 : broken(wrong, "bytes behind the changes", left, 0);
}

static int on_changes(struct client_link *link, const uint8_t *frame, size_t length,
                      struct refusal *wrong)
{
    struct frame_changes head;
    struct bytes records;
    if (changes_decode(&head, &records, frame, length, wrong) < 0) return -EPROTO;
    struct fero_stream *stream = find(link->client, head.number);
    if (stream == NULL) return 0; /* it was stopped meanwhile */
    if (link->index >= stream->parts_count || stream->parts[link->index].state != PART_RUNNING)
        return broken(wrong, "CHANGES of no subscription", head.number, 0);
    struct part *part = &stream->parts[link->index];
    link->client->finished++;
    part->taken_bytes += records.size - (PLANTED("credit_leaks") ? 8 : 0);
    callbacks_begin(stream);
    int err = show(stream, link->index, &head, records, wrong);
    if (!callbacks_end(stream)) return err;
    if (err < 0) return err;
    part->position = head.position;
    return extend_credit(link, stream);
}

/* ---------------------------------------------------------------------------------- events */

static void note(struct fero_stream *stream, struct part *part, const struct frame_event *event)
{
    part->owner = stream->client->home_node;
    if (stream->begun_on == 0) stream->begun_on = part->owner;
    part->position = event->position;
    switch ((enum stream_event)event->event) {
    case STREAM_STARTED:
    case STREAM_TRIMMED:
        part->state = PART_RUNNING;
        part->has_begun = true;
        part->owes_snapshot |= event->event == STREAM_TRIMMED;
        break;
    case STREAM_SNAPSHOT_BEGIN:
        part->owes_snapshot = true;
        part->is_live = false;
        stream->opts.offset = 0; /* a state is all that there is */
        break;
    case STREAM_SNAPSHOT_END: part->owes_snapshot = false; break;
    case STREAM_LIVE: part->is_live = true; break;
    case STREAM_ENDED: part->state = PART_ENDED; break;
    case STREAM_GAP:
    case STREAM_TRUNCATED: part->owes_snapshot = true; break;
    case STREAM_EVENTS_END: break;
    }
}

static int on_event(struct client_link *link, const uint8_t *frame, size_t length,
                    struct refusal *wrong)
{
    struct frame_event event;
    if (event_decode(&event, frame, length, wrong) < 0) return -EPROTO;
    struct fero_stream *stream = find(link->client, event.number);
    if (stream == NULL) return 0;
    struct part *part = link->index < stream->parts_count ? &stream->parts[link->index] : NULL;
    bool begins = event.event == STREAM_STARTED || event.event == STREAM_TRIMMED;
    bool is_right = part != NULL && (begins || event.event == STREAM_ENDED
                                         ? part->state == PART_ASKED || part->state == PART_RUNNING
                                         : part->state == PART_RUNNING);
    if (!is_right) return broken(wrong, "EVENT of no subscription", event.event, STREAM_STARTED);
    int error = event.prefix.small & REPLY_ERROR;
    /* The link speaks for another shard than the one it was dialled for: the next one may be right. */
    if (event.event == STREAM_ENDED && error == ERROR_NOT_OWNER) return -EREMOTE;
    note(stream, part, &event);
    callbacks_begin(stream);
    bool resumes = begins && part->was_lost;
    if (begins) part->was_lost = false;
    if (resumes) tell(stream, link->index, FERO_STREAM_RESUMED, 0, NULL);
    bool is_wanted = stream->client != NULL && !(resumes && event.event == STREAM_STARTED);
    if (is_wanted) tell(stream, link->index, event.event, -error, NULL);
    callbacks_end(stream);
    return 0;
}

int streams_frame(struct client_link *link, const uint8_t *frame, size_t length,
                  struct refusal *wrong)
{
    return frame[4] == FRAME_CHANGES ? on_changes(link, frame, length, wrong)
                                     : on_event(link, frame, length, wrong);
}

/* ------------------------------------------------------------------------------- begin, end */

/* What was written waits for a turn. */
static void wake(struct client *client)
{
    if (client->is_polled && !client->is_in_turn) client_due(client);
}

/* Off the client's list. */
static void leave(struct fero_stream *stream)
{
    struct fero_stream **link = &stream->client->streams;
    while (*link != stream) link = &(*link)->next;
    *link = stream->next;
    stream->client = NULL;
}

void streams_end(struct client *client, const struct client_cache *cache)
{
    struct fero_stream *stream = client->streams;
    while (stream != NULL) {
        if (cache != NULL && stream->cache != cache) {
            stream = stream->next;
            continue;
        }
        fero_stream_stop(stream);
        stream = client->streams;
    }
}

bool stream_has_partition(const fero_stream_opts *opts)
{
    const fero_slice *prefix = &opts->prefix;
    if (prefix->len == 0) return false;
    return opts->match == FERO_MATCH_PATH ||
           path_partition_bytes(prefix->ptr, prefix->len) < prefix->len;
}

/* A path that no key can have would wait forever. */
static int check_path(const fero_slice *path)
{
    switch (path_check(path->ptr, path->len)) {
    case PATH_OK: break;
    case PATH_EMPTY_PART:
        return error_set(FERO_E_INVAL,
                         "key \"%.*s\" has an empty part: \"\\.\" is a dot inside of a part",
                         (int)path->len, (const char *)path->ptr);
    case PATH_TOO_DEEP:
        return error_set(FERO_E_INVAL, "a key of %zu bytes has more than %d parts", path->len,
                         PATH_PARTS_MAX + 1);
    case PATH_NOT_UTF8:
        return error_set(FERO_E_INVAL, "a key of %zu bytes has a part that is not UTF-8",
                         path->len);
    }
    return 0;
}

int stream_check_opts(const fero_stream_opts *opts)
{
    if (opts->from < FERO_FROM_START || opts->from > FERO_FROM_SNAPSHOT)
        return error_set(FERO_E_INVAL, "from is %d, but must be from 0 to 4", opts->from);
    if (opts->match != FERO_MATCH_PATH && opts->match != FERO_MATCH_PREFIX)
        return error_set(FERO_E_INVAL, "match is %d, but must be 0 or 1", opts->match);
    bool is_path = opts->match == FERO_MATCH_PATH && opts->prefix.len > 0;
    return is_path ? check_path(&opts->prefix) : 0;
}

static int check(const struct client *client, const fero_stream_opts *opts)
{
    int err = stream_check_opts(opts);
    if (err < 0) return err;
    if (opts->prefix.len > client->key_bytes_max)
        return error_set(FERO_E_TOOBIG, "a prefix of %zu bytes is over the node's limit of %u",
                         opts->prefix.len, client->key_bytes_max);
    if (opts->credit_bytes < 0 || opts->credit_bytes > CREDIT_MAX)
        return error_set(FERO_E_INVAL, "credit_bytes is %lld, but must be from 1 to %lld",
                         (long long)opts->credit_bytes, (long long)CREDIT_MAX);
    return client->is_stopping ? error_set(FERO_E_CLOSED, "the runtime is stopping") : 0;
}

/* The slot of all keys that match, or SLOTS_COUNT where there may be several. */
static uint32_t slot_of_stream(const fero_stream_opts *opts)
{
    const fero_slice *prefix = &opts->prefix;
    return stream_has_partition(opts) ? slot_of_key(prefix->ptr, prefix->len) : SLOTS_COUNT;
}

int client_subscribe(struct client_cache *cache, const fero_stream_opts *opts, fero_stream **out)
{
    struct client *client = cache->client;
    int err = check(client, opts);
    if (err < 0) return err;
    uint32_t slot = slot_of_stream(opts);
    if (opts->from == FERO_FROM_OFFSET && slot == SLOTS_COUNT)
        return error_set(FERO_E_INVAL, "an offset belongs to one partition: name it as the prefix");
    struct fero_stream *stream = memory_take(sizeof *stream + opts->prefix.len);
    if (stream == NULL) return error_set(FERO_E_NOMEM, "no memory for a stream");
    stream->client = client;
    stream->cache = cache;
    stream->opts = *opts;
    if (opts->credit_bytes == 0) stream->opts.credit_bytes = CREDIT_DEFAULT;
    stream->number = ++client->stream_number;
    stream->slot = slot;
    stream->prefix_bytes = opts->prefix.len;
    if (opts->prefix.len > 0) memcpy(stream->prefix, opts->prefix.ptr, opts->prefix.len);
    stream->next = client->streams;
    client->streams = stream;
    err = grow(stream, client->links_count);
    for (uint32_t i = 0; i < client->links_count && err == 0; i++)
        err = ask_if_needed(client->links[i], stream);
    if (err < 0) {
        fero_stream_free(stream);
        return error_set(FERO_E_NOMEM, "no memory for a stream");
    }
    wake(client);
    *out = stream;
    return 0;
}

static struct client_link *link_of_part(const struct fero_stream *stream, uint32_t shard)
{
    const struct part *part = &stream->parts[shard];
    const struct client *client = stream->client;
    if (part->state != PART_ASKED && part->state != PART_RUNNING) return NULL;
    if (shard >= client->links_count) return NULL;
    struct client_link *link = client->links[shard];
    return link->state == CLIENT_LINK_UP ? link : NULL;
}

void fero_stream_stop(fero_stream *handle)
{
    struct fero_stream *stream = handle;
    if (stream == NULL || stream->client == NULL) return;
    struct client *client = stream->client;
    for (uint32_t i = 0; i < stream->parts_count; i++) {
        struct client_link *link = link_of_part(stream, i);
        /* Without memory the node sends what its credit allows, to nobody. */
        if (link != NULL) (void)!send_credit(link, stream, true);
    }
    leave(stream);
    wake(client);
}

void fero_stream_pause(fero_stream *handle)
{
    struct fero_stream *stream = handle;
    if (stream != NULL) stream->is_paused = true;
}

void fero_stream_resume(fero_stream *handle)
{
    struct fero_stream *stream = handle;
    if (stream == NULL || stream->client == NULL) return;
    stream->is_paused = false;
    for (uint32_t i = 0; i < stream->parts_count; i++) {
        struct client_link *link = link_of_part(stream, i);
        if (link != NULL) (void)!extend_credit(link, stream);
    }
    wake(stream->client);
}

void fero_stream_free(fero_stream *handle)
{
    struct fero_stream *stream = handle;
    if (stream == NULL) return;
    fero_stream_stop(handle);
    if (stream->is_in_callback)
        stream->is_freed = true;
    else
        stream_forget(stream);
}
