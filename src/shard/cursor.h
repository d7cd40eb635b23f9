/*
 * A cursor: reads the changes of a store in the order of its log, in batches of pointers straight
 * into log memory. It may read everything, one slot, or the keys below a prefix.
 *
 * See cursor.c for how it keeps its place while the log is compacted and truncated under it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "log/change.h"

struct store;

/* As many changes as one read can give. */
#define CURSOR_CHANGES_MAX 256
#define CURSOR_ALL_SLOTS UINT32_MAX

enum cursor_match {
    CURSOR_MATCH_PREFIX, /* keys that begin with the bytes; all, where there are none */
    /* The key itself; those that go on with a '.' behind it; and those that it is inside of. */
    CURSOR_MATCH_PATH
};

struct cursor_filter {
    uint32_t slot;       /* CURSOR_ALL_SLOTS: any */
    uint8_t match;       /* enum cursor_match */
    struct bytes prefix; /* borrowed as long as the cursor is open */
    uint64_t offset_min; /* changes with lower offsets are passed over, until the first one */
};

enum cursor_answer {
    CURSOR_CHANGES,   /* here are some */
    CURSOR_MORE,      /* none of those that were looked at, but there are more to look at */
    CURSOR_NO_MEMORY, /* none now: what comes next has to be moved, and cannot be yet */
    CURSOR_CAUGHT_UP, /* there are no more now */
    CURSOR_TRIMMED,   /* what comes next is not kept any more: take a snapshot */
    CURSOR_TRUNCATED  /* changes that it gave were taken back, see `slot` and `place` below */
};

/* How much one read may give. */
struct cursor_limits {
    uint32_t changes_max;  /* 1 .. CURSOR_CHANGES_MAX */
    size_t bytes_max;      /* padded; the first change may be longer */
    size_t look_bytes_max; /* of log that is looked at, about */
};

struct cursor_batch {
    /* They never change, and stay where they are until the cursor is read again. */
    const struct change *changes[CURSOR_CHANGES_MAX];
    uint32_t count;
    uint32_t segment; /* where all of them lie, see cursor_lend */
    size_t bytes;     /* padded, of all of them */
    uint16_t slot;    /* CURSOR_TRUNCATED: of this slot, those behind `place` */
    uint64_t place;
};

struct cursor {
    struct store *store; /* NULL: not open */
    struct cursor_filter filter;
    uint32_t segment;   /* where it stands; SEGMENT_NONE: nowhere */
    uint32_t at;        /* bytes of the segment that were read */
    uint32_t batch_end; /* of the batch it is in; `at`: between two */
    uint32_t stride;    /* padded size of all changes of that batch; 0: they differ */
    uint64_t position;  /* of the next change in the stream; not in a snapshot */
    bool is_trimmed;
    bool is_snapshot;      /* it gives the state, and has not caught up yet */
    uint32_t snapshot_seq; /* of the segment that was active when the snapshot began, ... */
    uint32_t snapshot_at;  /* ... and what was in it */
    bool is_truncated;
    uint16_t truncated_slot;
    uint64_t truncated_place;
    struct cursor *newer; /* among the store's cursors, by when they last moved on */
    struct cursor *older;
};

/* It stands at the end of the log. The cursor is the caller's memory, which must not move. */
void cursor_open(struct cursor *cursor, struct store *store, const struct cursor_filter *filter);
void cursor_close(struct cursor *cursor);

/*
 * Where to read on. Each says whether all changes from there on are kept; if not, the cursor answers
 * CURSOR_TRIMMED until it is told another place. The open batch must be sealed, here and below.
 */
/* The first change ever. */
bool cursor_seek_start(struct cursor *cursor);
/* The oldest change from which on all are kept. Always true. */
bool cursor_seek_oldest(struct cursor *cursor);
void cursor_seek_end(struct cursor *cursor);
/* The change with this number in the stream, from 1; also the next one to come. */
bool cursor_seek_position(struct cursor *cursor, uint64_t position);
/* The change behind `place` (0: the first one) of the slot of the filter. */
bool cursor_seek_place(struct cursor *cursor, uint64_t place);
/* The change with this offset of the partition that the filter's prefix names. */
bool cursor_seek_offset(struct cursor *cursor, uint64_t offset);
/*
 * The state: each key's newest change, removed keys left out, in the order of the log; those that
 * come meanwhile are part of it. It is complete when the cursor has caught up, and from then on the
 * cursor gives every change.
 */
void cursor_snapshot(struct cursor *cursor);

/* Reads on. Only CURSOR_CHANGES fills the batch's changes. */
enum cursor_answer cursor_read(struct cursor *cursor, const struct cursor_limits *limits,
                               struct cursor_batch *batch);
/* Whether cursor_read has anything else to say than CURSOR_CAUGHT_UP. */
bool cursor_is_behind(const struct cursor *cursor);

/*
 * Keeps the changes of a batch where they are, over further reads and the end of the cursor, until
 * cursor_give_back. The bound on what cursors hold does not know of this: the caller has his own.
 */
void cursor_lend(struct store *store, uint32_t segment);
void cursor_give_back(struct store *store, uint32_t segment);

/* For store.c and truncate.c. */
/* Cuts off cursors where they hold more than they may; those that stand still longest come first. */
void cursors_bound(struct store *store);
/* `slot` is about to be truncated to `place`. */
void cursors_truncate(struct store *store, uint16_t slot, uint64_t place);
/* Cuts all of them off. */
void cursors_end(struct store *store);
