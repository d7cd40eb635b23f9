#include "net/held.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"
#include "net/io.h"

#define CAPACITY_MIN (2 * IO_HEADROOM_BYTES)

static void retire(struct held *held, struct held_blocks *blocks)
{
    if (held->block == NULL) return;
    held->block->next = blocks->retired;
    blocks->retired = held->block;
    held->block = NULL;
}

/* Moves what waits to a block with room for `front` bytes before it, headroom not counted, and
 * `back` after it. */
static int rehouse(struct held *held, size_t front, size_t back, struct held_blocks *blocks)
{
    size_t waiting = held_bytes(held);
    size_t start = round_up(IO_HEADROOM_BYTES + front, CACHE_LINE);
    size_t capacity = max_u64(start + 2 * (waiting + back), CAPACITY_MIN);
    struct held_block *block = memory_take(sizeof *block + capacity);
    if (block == NULL) return -ENOMEM;
    block->capacity = capacity;
    *blocks->bytes += sizeof *block + capacity;
    if (held->block != NULL) memcpy(block->data + start, held->block->data + held->start, waiting);
    retire(held, blocks);
    *held = (struct held){.block = block, .start = start, .end = start + waiting};
    return 0;
}

int held_append(struct held *held, const void *data, size_t bytes, struct held_blocks *blocks)
{
    if (bytes == 0) return 0;
    if (held->block == NULL || held->block->capacity - held->end < bytes) {
        int err = rehouse(held, 0, bytes, blocks);
        if (err < 0) return err;
    }
    memcpy(held->block->data + held->end, data, bytes);
    held->end += bytes;
    ASSERT(held->end <= held->block->capacity);
    return 0;
}

int held_put_back(struct held *held, const void *data, size_t bytes, struct held_blocks *blocks)
{
    if (bytes == 0) return 0;
    if (held->block != NULL && held->start >= bytes &&
        (const uint8_t *)data == held->block->data + held->start - bytes) {
        held->start -= bytes;
        return 0;
    }
    int err = rehouse(held, bytes, 0, blocks);
    if (err < 0) return err;
    held->start -= bytes;
    ASSERT(held->start >= IO_HEADROOM_BYTES);
    memcpy(held->block->data + held->start, data, bytes);
    return 0;
}

int64_t held_take(struct held *held, size_t bytes_max, uint8_t **data, struct held_blocks *blocks)
{
    ASSERT(held_bytes(held) > 0);
    /* The owner put its headroom back as well, so there is too little left of it. */
    if (held->start < IO_HEADROOM_BYTES) {
        int err = rehouse(held, 0, 0, blocks);
        if (err < 0) return err;
    }
    size_t bytes = min_u64(held_bytes(held), bytes_max);
    *data = held->block->data + held->start;
    held->start += bytes;
    return (int64_t)bytes;
}

void held_clear(struct held *held, struct held_blocks *blocks)
{
    retire(held, blocks);
    *held = (struct held){0};
}

void held_blocks_free(struct held_blocks *blocks)
{
    while (blocks->retired != NULL) {
        struct held_block *block = blocks->retired;
        blocks->retired = block->next;
        *blocks->bytes -= sizeof *block + block->capacity;
        memory_put(block);
    }
}
