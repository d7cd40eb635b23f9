#include "engine/dial.h"

#include <errno.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/bytes.h"

uint64_t dial_delay_ns(uint32_t failures, struct rng *rng)
{
    uint64_t delay_ns = DIAL_DELAY_NS_MAX;
    /* 2^10 times the first delay is beyond the longest. */
    if (failures < 10) delay_ns = min_u64(DIAL_DELAY_NS_FIRST << failures, DIAL_DELAY_NS_MAX);
    return delay_ns - rng_below(rng, delay_ns / 2 + 1);
}

void dial_failed(struct dial *dial, uint64_t now_ns, struct rng *rng)
{
    dial->retry_ns = now_ns + dial_delay_ns(dial->failures, rng);
    if (dial->failures < UINT32_MAX) dial->failures++;
}

void dial_now(struct dial *dial, uint64_t now_ns)
{
    *dial = (struct dial){.retry_ns = now_ns};
}

int seeds_parse(struct seeds *seeds, const char *const *texts, const char **wrong)
{
    *seeds = (struct seeds){0};
    for (; texts != NULL && *texts != NULL; texts++) {
        *wrong = *texts;
        if (seeds->count == SEEDS_MAX) return -E2BIG;
        struct address *address = &seeds->addresses[seeds->count];
        if (address_parse(address, *texts, DIAL_PORT_DEFAULT) < 0) return -EINVAL;
        if (address_port(address) == 0) return -EINVAL;
        seeds->count++;
    }
    if (seeds->count == 0) seeds->addresses[seeds->count++] = address_loopback(DIAL_PORT_DEFAULT);
    return 0;
}

const struct address *seeds_take(struct seeds *seeds, bool *round_ends)
{
    ASSERT(seeds->next < seeds->count);
    const struct address *address = &seeds->addresses[seeds->next];
    seeds->next = (seeds->next + 1) % seeds->count;
    *round_ends = seeds->next == 0;
    return address;
}

const char *seeds_format(const struct seeds *seeds, char *text, size_t bytes)
{
    size_t at = 0;
    ASSERT(bytes > 0);
    text[0] = 0;
    for (uint32_t i = 0; i < seeds->count; i++) {
        char one[ADDRESS_TEXT_BYTES];
        int wrote = snprintf(text + at, bytes - at, "%s%s", i > 0 ? ", " : "",
                             address_format(&seeds->addresses[i], one));
        if (wrote < 0 || (size_t)wrote >= bytes - at) {
            text[at] = 0;
            break;
        }
        at += (size_t)wrote;
    }
    return text;
}
