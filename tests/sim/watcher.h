/*
 * A subscriber, and whether what it gets is what happened: outside of snapshots each change of a key is the
 * one behind the last one it got, nothing twice and nothing left out but where a gap is announced; and
 * what a snapshot adds up to is the state of its shard at one moment.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fero.h"
#include "tests/sim/history.h"

/* What is known of a key. */
enum watched_state {
    WATCHED_NOTHING, /* nothing came of it yet */
    WATCHED_AT,      /* what came last is this version */
    WATCHED_LIKE     /* a snapshot had it like this, which may be several versions */
};

struct watched {
    enum watched_state state;
    size_t version;
    struct json_t *fold; /* of partitions with trees, inside of a snapshot and behind it */
};

struct watcher_part {
    bool is_live;
    bool has_ended;
    bool is_in_snapshot;
    bool had_snapshot;
    uint64_t started; /* moments */
    uint64_t low;     /* the snapshot was so not before this one */
};

struct watcher {
    struct history *history;
    uint32_t client;
    uint32_t cache;
    uint32_t key; /* HISTORY_KEYS_MAX: all */
    int32_t from;
    uint64_t offset;
    uint64_t begun; /* moment */
    bool is_until_live;
    bool is_paused;
    bool is_over; /* stopped, or it ended */
    fero_stream *stream;
    struct watched keys[HISTORY_KEYS_MAX];
    struct watcher_part parts[HISTORY_SHARDS_MAX];
};

/* Subscribes at random. The library's answer; where it is not 0, nothing is to be closed. */
int watcher_open(struct watcher *watcher, struct history *history, uint32_t client,
                 fero_cache *cache, uint32_t cache_number);
void watcher_close(struct watcher *watcher);
/* Now and then: pauses, goes on, or stops. */
void watcher_act(struct watcher *watcher);
/* It is to take all there is from now on. */
void watcher_rest(struct watcher *watcher);
/* Whether it has got everything that happened until now. */
bool watcher_is_level(const struct watcher *watcher);
