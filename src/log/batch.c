#include "log/batch.h"

#include "base/hash.h"
#include "log/change.h"
#include "log/checksum.h"

/*
 * The checksum streams head and changes separately, so that the head need not be copied: XXH3 of
 * the changes, mixed with XXH3 of the head whose checksum field is 0.
 */
uint64_t batch_checksum(const struct batch *batch)
{
    struct batch head = *batch;
    head.checksum = 0;
    uint64_t changes = checksum_choose()(batch + 1, batch->length - BATCH_BYTES);
    return hash_key(&head, sizeof head, changes);
}

static bool changes_add_up(const struct batch *batch)
{
    const uint8_t *at = (const uint8_t *)(batch + 1);
    const uint8_t *end = (const uint8_t *)batch + batch->length;
    uint32_t size = 0;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct change change;
        if ((size_t)(end - at) < CHANGE_BYTES) return false;
        memcpy(&change, at, sizeof change);
        if (change.length < CHANGE_BYTES + change.key_len || change.key_len == 0) return false;
        if ((size_t)(end - at) < change_padded_bytes(&change)) return false;
        at += change_padded_bytes(&change);
        size = batch_size_of_all(size, change_padded_bytes(&change));
    }
    return at == end && ((batch->flags & BATCH_ALIKE) == 0 || size != UINT32_MAX);
}

bool batch_is_valid(const struct batch *batch, size_t size)
{
    if (size < BATCH_BYTES || batch->length < BATCH_BYTES || batch->length > size) return false;
    if (batch->type != FRAME_BATCH || batch->version != BATCH_VERSION) return false;
    if (batch->count == 0 || (batch->length & 7) != 0 || batch->checksum != batch_checksum(batch))
        return false;
    return changes_add_up(batch);
}
