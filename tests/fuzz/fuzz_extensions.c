/*
 * The decoder of extension blocks. What it accepts must mean the same when it is encoded again, and
 * one encoding of a meaning must be a fixed point.
 */
#include "base/assert.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_equal(const struct extensions *a, const struct extensions *b)
{
    ASSERT(a->present == b->present);
    ASSERT(a->deadline_ms == b->deadline_ms);
    ASSERT(a->ttl_ms == b->ttl_ms);
    ASSERT(a->commit == b->commit);
    ASSERT(a->hops == b->hops);
    ASSERT(a->partition_bytes == b->partition_bytes);
    ASSERT(a->hop_view == b->hop_view);
    ASSERT(a->if_offset == b->if_offset);
    ASSERT(a->session == b->session);
    ASSERT(a->seq == b->seq);
    ASSERT(a->floor == b->floor);
    ASSERT(a->offset == b->offset);
    ASSERT(a->view == b->view);
    ASSERT(bytes_equal(a->verb, b->verb));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct extensions first;
    int64_t taken = extensions_decode(&first, data, bytes);
    if (taken < 0) return 0;
    ASSERT(taken >= 8 && taken % 8 == 0 && (size_t)taken <= bytes);

    uint8_t encoded[EXTENSIONS_BYTES_MAX];
    size_t encoded_bytes = extensions_encode(&first, encoded);
    ASSERT(encoded_bytes <= (size_t)taken); /* optional kinds are not kept */
    if (encoded_bytes == 0) return 0;

    struct extensions second;
    ASSERT(extensions_decode(&second, encoded, encoded_bytes) == (int64_t)encoded_bytes);
    check_equal(&first, &second);
    uint8_t again[EXTENSIONS_BYTES_MAX];
    ASSERT(extensions_encode(&second, again) == encoded_bytes);
    ASSERT(memcmp(again, encoded, encoded_bytes) == 0);
    return 0;
}
