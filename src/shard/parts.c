#include "shard/parts.h"

#include <errno.h>

#include "base/assert.h"
#include "base/memory.h"

int parts_push(struct parts *parts, const struct part *part)
{
    struct part *added = memory_take(sizeof *added);
    if (added == NULL) return -ENOMEM;
    *added = *part;
    added->next = NULL;
    if (parts->last != NULL)
        parts->last->next = added;
    else
        parts->first = added;
    parts->last = added;
    return 0;
}

void parts_pop(struct parts *parts)
{
    struct part *first = parts->first;
    ASSERT(first != NULL);
    parts->first = first->next;
    if (parts->first == NULL) parts->last = NULL;
    memory_put(first);
}

uint64_t parts_drop(struct parts *parts)
{
    uint64_t given_bytes = 0;
    while (parts->first != NULL) {
        given_bytes += parts->first->given_bytes;
        memory_put(parts->first->frame);
        parts_pop(parts);
    }
    return given_bytes;
}
