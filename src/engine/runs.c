#include "engine/runs.h"

#include <errno.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"

#define RUNS_FIRST 16

void runs_init(struct runs *runs)
{
    *runs = (struct runs){0};
}

void runs_deinit(struct runs *runs)
{
    memory_put(runs->runs);
    *runs = (struct runs){0};
}

static struct run *run_at(const struct runs *runs, uint64_t index)
{
    return &runs->runs[index & runs->mask];
}

static int grow(struct runs *runs)
{
    uint32_t places = runs->runs != NULL ? (runs->mask + 1) * 2 : RUNS_FIRST;
    struct run *larger = memory_take(places * sizeof *larger);
    if (larger == NULL) return -ENOMEM;
    for (uint64_t i = runs->oldest; i != runs->count; i++)
        larger[i & (places - 1)] = *run_at(runs, i);
    memory_put(runs->runs);
    runs->runs = larger;
    runs->mask = places - 1;
    return 0;
}

int runs_push(struct runs *runs, uint32_t cache, uint64_t first)
{
    bool full = runs->runs == NULL || runs->count - runs->oldest > runs->mask;
    if (full && grow(runs) < 0) return -ENOMEM;
    *run_at(runs, runs->count++) = (struct run){first, cache};
    return 0;
}

/* Runs that both marks have left are forgotten; the newest one stays open. */
static void release(struct runs *runs)
{
    runs->oldest = min_u64(runs->cursors[RUN_WRITTEN].run, runs->cursors[RUN_RECEIVED].run);
}

struct run_part runs_advance(struct runs *runs, enum run_mark mark, uint64_t to)
{
    struct run_cursor *cursor = &runs->cursors[mark];
    if (to <= cursor->at || runs->count == runs->oldest) return (struct run_part){RUN_NO_CACHE, 0};
    while (cursor->run + 1 < runs->count && run_at(runs, cursor->run + 1)->first <= cursor->at + 1)
        cursor->run++;
    const struct run *run = run_at(runs, cursor->run);
    bool is_newest = cursor->run + 1 == runs->count;
    uint64_t end = is_newest ? to : min_u64(to, run_at(runs, cursor->run + 1)->first - 1);
    struct run_part part = {run->cache, end - cursor->at};
    ASSERT(part.requests > 0);
    cursor->at = end;
    release(runs);
    return part;
}

void runs_restart(struct runs *runs, uint64_t written, uint64_t received)
{
    runs->oldest = 0;
    runs->count = 0;
    runs->cursors[RUN_WRITTEN] = (struct run_cursor){.at = written};
    runs->cursors[RUN_RECEIVED] = (struct run_cursor){.at = received};
}

void runs_forget(struct runs *runs, uint32_t cache)
{
    for (uint64_t i = runs->oldest; i != runs->count; i++)
        if (run_at(runs, i)->cache == cache) run_at(runs, i)->cache = RUN_NO_CACHE;
}
