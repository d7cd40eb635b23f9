#include "shard/lent.h"

#include "base/memory.h"
#include "shard/shard.h"

struct lent {
    struct lent *next;
    uint8_t bytes[];
};

uint8_t *lent_take(struct shard *shard, size_t bytes)
{
    struct lent *lent = memory_take(sizeof *lent + bytes);
    if (lent == NULL) return NULL;
    lent->next = shard->lent;
    shard->lent = lent;
    return lent->bytes;
}

void lent_put_all(struct shard *shard)
{
    while (shard->lent != NULL) {
        struct lent *first = shard->lent;
        shard->lent = first->next;
        memory_put(first);
    }
}
