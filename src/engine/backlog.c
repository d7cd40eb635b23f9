#include "engine/backlog.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"
#include "wire/frame.h"

/* Free chunks kept for later, 4 MiB; more are given back to the system. */
#define POOL_CHUNKS_MAX 64

static struct chunk *chunk_take(struct chunk_pool *pool, size_t bytes)
{
    struct chunk *chunk = pool->free;
    size_t whole = CHUNK_BYTES;
    if (bytes > CHUNK_BYTES - sizeof *chunk) {
        whole = round_up(bytes + sizeof *chunk, CHUNK_BYTES);
        chunk = NULL;
    }
    if (chunk != NULL) {
        pool->free = chunk->next;
        pool->free_count--;
    } else {
        chunk = memory_take(whole);
        if (chunk == NULL) return NULL;
    }
    *chunk = (struct chunk){.capacity = (uint32_t)(whole - sizeof *chunk)};
    return chunk;
}

static void chunk_put(struct chunk_pool *pool, struct chunk *chunk)
{
    if (chunk->capacity != CHUNK_BYTES - sizeof *chunk || pool->free_count == POOL_CHUNKS_MAX) {
        memory_put(chunk);
        return;
    }
    chunk->next = pool->free;
    pool->free = chunk;
    pool->free_count++;
}

void chunk_pool_deinit(struct chunk_pool *pool)
{
    while (pool->free != NULL) {
        struct chunk *chunk = pool->free;
        pool->free = chunk->next;
        memory_put(chunk);
    }
    *pool = (struct chunk_pool){0};
}

void backlog_init(struct backlog *backlog, struct chunk_pool *pool)
{
    *backlog = (struct backlog){.pool = pool};
}

void backlog_deinit(struct backlog *backlog)
{
    while (backlog->oldest != NULL) {
        struct chunk *chunk = backlog->oldest;
        backlog->oldest = chunk->next;
        chunk_put(backlog->pool, chunk);
    }
    *backlog = (struct backlog){.pool = backlog->pool};
}

/* Bytes written into `chunk`. */
static uint32_t used_of(const struct backlog *backlog, const struct chunk *chunk)
{
    return chunk == backlog->newest ? (uint32_t)(backlog->at - chunk->data) : chunk->used;
}

static void write_into(struct backlog *backlog, struct chunk *chunk)
{
    backlog->newest = chunk;
    backlog->at = chunk != NULL ? chunk->data + chunk->used : NULL;
    backlog->end = chunk != NULL ? chunk->data + chunk->capacity : NULL;
}

int backlog_grow(struct backlog *backlog, size_t bytes, uint64_t seq_next, uint64_t requests)
{
    struct chunk *chunk = chunk_take(backlog->pool, bytes);
    if (chunk == NULL) return -ENOMEM;
    struct chunk *before = backlog->newest;
    backlog->held_bytes += chunk->capacity;
    if (before == NULL) {
        backlog->oldest = chunk;
        backlog->unsent = chunk;
    } else {
        before->used = used_of(backlog, before);
        before->seq_end = seq_next;
        before->requests_end = requests;
        before->next = chunk;
        backlog->closed_bytes += before->used;
        if (backlog->unsent == before && before->taken == before->used) backlog->unsent = chunk;
    }
    write_into(backlog, chunk);
    return 0;
}

unsigned backlog_send(struct backlog *backlog, struct iovec *parts, unsigned parts_max,
                      uint64_t requests, uint64_t *requests_end)
{
    unsigned count = 0;
    ASSERT(backlog->sending_bytes == 0);
    for (struct chunk *chunk = backlog->unsent; chunk != NULL && count < parts_max;
         chunk = chunk->next) {
        uint32_t bytes = used_of(backlog, chunk) - chunk->taken;
        if (bytes == 0) continue;
        parts[count++] = (struct iovec){chunk->data + chunk->taken, bytes};
        backlog->sending_bytes += bytes;
        *requests_end = chunk == backlog->newest ? requests : chunk->requests_end;
    }
    return count;
}

static size_t frame_bytes(const uint8_t *frame)
{
    uint32_t length;
    memcpy(&length, frame, sizeof length);
    return round_up_8(length);
}

unsigned backlog_send_one(struct backlog *backlog, struct iovec *part, uint64_t *requests_end)
{
    struct chunk *chunk = backlog->unsent;
    ASSERT(backlog->sending_bytes == 0);
    if (chunk == NULL || chunk->taken == used_of(backlog, chunk)) return 0;
    uint8_t *frame = chunk->data + chunk->taken;
    *part = (struct iovec){frame, frame_bytes(frame)};
    backlog->sending_bytes = part->iov_len;
    ++*requests_end;
    return 1;
}

void backlog_sent(struct backlog *backlog)
{
    uint64_t left = backlog->sending_bytes;
    ASSERT(left > 0);
    backlog->sending_bytes = 0;
    backlog->taken_bytes += left;
    while (left > 0) {
        struct chunk *chunk = backlog->unsent;
        uint32_t bytes = (uint32_t)min_u64(left, used_of(backlog, chunk) - chunk->taken);
        chunk->taken += bytes;
        left -= bytes;
        if (chunk != backlog->newest && chunk->taken == chunk->used) backlog->unsent = chunk->next;
    }
}

void backlog_release(struct backlog *backlog, uint64_t floor, uint64_t seq_next)
{
    struct chunk *chunk = backlog->oldest;
    while (chunk != backlog->unsent && chunk->seq_end <= floor) {
        backlog->oldest = chunk->next;
        backlog->held_bytes -= chunk->capacity;
        chunk_put(backlog->pool, chunk);
        chunk = backlog->oldest;
    }
    /* The last one is used again from its start, so that a ping-pong stays in the same lines. */
    if (chunk == NULL || chunk != backlog->newest || floor != seq_next) return;
    if (backlog->sending_bytes > 0 || chunk->taken != used_of(backlog, chunk)) return;
    backlog->closed_bytes += chunk->taken;
    chunk->used = 0;
    chunk->taken = 0;
    backlog->at = chunk->data;
}

void backlog_visit(const struct backlog *backlog, backlog_visit_fn visit, void *context)
{
    for (const struct chunk *chunk = backlog->oldest; chunk != NULL; chunk = chunk->next) {
        uint32_t used = used_of(backlog, chunk);
        for (size_t at = 0; at < used; at += frame_bytes(chunk->data + at))
            visit(context, chunk->data + at);
    }
}

/* A backlog_visit_fn. */
static void count_frame(void *context, const uint8_t *frame)
{
    uint64_t *count = context;
    (void)frame;
    ++*count;
}

uint64_t backlog_frames_count(const struct backlog *backlog)
{
    uint64_t count = 0;
    backlog_visit(backlog, count_frame, &count);
    return count;
}

/* Closes the gaps in one chunk; returns the frames left. */
static uint64_t chunk_sift(struct chunk *chunk, backlog_keep_fn keep, void *context)
{
    uint32_t to = 0;
    uint64_t count = 0;
    for (uint32_t from = 0; from < chunk->used;) {
        uint8_t *frame = chunk->data + from;
        uint32_t bytes = (uint32_t)frame_bytes(frame);
        ASSERT(bytes >= FRAME_REQUEST_BYTES && from + bytes <= chunk->used);
        from += bytes;
        if (!keep(context, frame)) continue;
        memmove(chunk->data + to, frame, bytes);
        to += bytes;
        count++;
    }
    chunk->used = to;
    chunk->taken = 0;
    return count;
}

uint64_t backlog_rewind(struct backlog *backlog, backlog_keep_fn keep, void *context,
                        uint64_t seq_next, uint64_t *bytes)
{
    uint64_t count = 0;
    struct chunk *last = NULL;
    struct chunk **to = &backlog->oldest;
    *bytes = 0;
    if (backlog->newest != NULL) {
        backlog->newest->used = used_of(backlog, backlog->newest);
        backlog->newest->seq_end = seq_next;
    }
    while (*to != NULL) {
        struct chunk *chunk = *to;
        count += chunk_sift(chunk, keep, context);
        if (chunk->used == 0) {
            *to = chunk->next;
            backlog->held_bytes -= chunk->capacity;
            chunk_put(backlog->pool, chunk);
            continue;
        }
        chunk->requests_end = count;
        *bytes += chunk->used;
        last = chunk;
        to = &chunk->next;
    }
    write_into(backlog, last);
    backlog->unsent = backlog->oldest;
    backlog->sending_bytes = 0;
    backlog->taken_bytes = 0;
    backlog->closed_bytes = last != NULL ? *bytes - last->used : 0;
    return count;
}
