#include "shard/asks.h"

#include "base/assert.h"
#include "base/memory.h"
#include "shard/shard.h"

static bool grow(struct asks *asks)
{
    uint32_t capacity = asks->capacity > 0 ? asks->capacity * 2 : 64;
    if (capacity > ASKS_MAX) return false;
    struct asking *entries =
        memory_resize(asks->entries, asks->capacity * sizeof *entries, capacity * sizeof *entries);
    if (entries == NULL) return false;
    asks->entries = entries;
    asks->capacity = capacity;
    return true;
}

uint32_t asks_take(struct shard *shard, const struct asking *ask)
{
    struct asks *asks = &shard->asks;
    uint32_t index = asks->free - 1;
    ASSERT(ask->function != NULL);
    if (asks->free == 0) {
        if (asks->fresh == asks->capacity && !grow(asks)) return ASKS_NONE;
        index = asks->fresh++;
    } else {
        asks->free = asks->entries[index].next_free;
    }
    asks->entries[index] = *ask;
    return index;
}

void asks_put(struct shard *shard, uint32_t index)
{
    struct asks *asks = &shard->asks;
    ASSERT(index < asks->fresh && asks->entries[index].function != NULL);
    asks->entries[index] = (struct asking){.next_free = asks->free};
    asks->free = index + 1;
}

void asks_answer(struct shard *shard, uint32_t index, const uint8_t *frame, size_t bytes)
{
    ASSERT(index < shard->asks.fresh);
    struct asking ask = shard->asks.entries[index];
    asks_put(shard, index);
    ask.function(&ask, frame, bytes);
}

void asks_deinit(struct asks *asks)
{
    memory_put(asks->entries);
    *asks = (struct asks){0};
}
