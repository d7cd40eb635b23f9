#include "tests/sim/plants.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

const struct plant plants[] = {
    {"session_forgotten", "a session is forgotten with its last link", 20},
    {"newest_is_new", "a session takes its highest number for a new one", 20},
    {"removal_tried_again", "a removal that failed is tried again when it is sent again", 70},
    {"resent_as_another", "a request is sent again with another number", 20},
    {"reply_dropped", "a reply of another shard is dropped while its caller waits for room", 20},
    {"promise_kept", "the promise of a large reply of another shard is never given back", 70},
    {"partial_too_short", "of a long partial frame 8 bytes are forgotten", 20},
    {"ack_too_early", "an ACK counts a request that has not come", 20},
    {"wake_forgotten", "one of the shards that sleep is not woken", 20},
    {"chain_cut", "a removal begins its slot's chain anew", 20},
    {"history_too_short", "the history is trimmed as if its bound were nothing", 20},
    {"newest_dropped", "compaction drops the newest change of a key", 150},
    {"opened_for_another", "an answer to OPEN is taken for that of the cache that came after", 70},
    {"home_left_early", "a client leaves a node that has not opened its cache yet", 150},
    {"push_over_last", "a push takes the place of the last element", 20},
    {"patch_cut", "only the first field of a patch is set", 20},
    {"snapshot_cut", "a snapshot lacks removals that were superseded meanwhile", 150},
    {"credit_leaks", "of each batch of a subscription 8 bytes of credit are lost", 20},
    {"window_leaks", "what was taken before a caller had to wait is never given credit for again",
     70},
    {"stale_caller", "replies go to whoever has the place of their caller now", 150},
    {"part_for_nobody", "parts of a stream are dropped while its caller's link is lost", 70},
    {"watermark_kept", "that a session was forgotten is forgotten, too", 150},
    {"truncated_left", "a key that a truncation takes back stays in the table", 20},
};
const size_t plants_count = ARRAY_COUNT(plants);

const struct plant *plant_find(const char *name)
{
    for (size_t i = 0; i < plants_count; i++)
        if (strcmp(plants[i].name, name) == 0) return &plants[i];
    return NULL;
}

void plants_print(void)
{
    for (size_t i = 0; i < plants_count; i++) printf("%-20s %s\n", plants[i].name, plants[i].what);
}
