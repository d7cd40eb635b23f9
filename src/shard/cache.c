#include "shard/cache.h"

#include "base/ck.h"

uint64_t cache_next_id(struct cache_ids *ids)
{
    for (;;) {
        uint64_t id = add_u64(&ids->given, 1) + 1;
        uint64_t highest = 0;
        for (uint32_t i = 0; i < SHARDS_MAX; i++)
            highest = max_u64(highest, load_relaxed_u64(&ids->shards[i].highest));
        if (id > highest) return id;
        /* Others may do so at once: then some numbers are left out. */
        add_u64(&ids->given, highest - id);
    }
}
