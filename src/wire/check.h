/*
 * The questions that decoders of control frames ask, one after the other. The first answer that is
 * wrong becomes the refusal, and the decoder ends.
 */
#pragma once

#include "wire/hello.h"

/* `limit` of a refusal is the nearest value that would have been right. */
static inline bool is_between(struct refusal *refusal, const char *field, uint64_t got,
                              uint64_t least, uint64_t most)
{
    if (LIKELY(got >= least && got <= most)) return true;
    *refusal = (struct refusal){ERROR_PROTOCOL, got, got < least ? least : most, field};
    return false;
}

static inline bool is_equal(struct refusal *refusal, const char *field, uint64_t got,
                            uint64_t right)
{
    return is_between(refusal, field, got, right, right);
}

/* The frame is all there, and is of the type; its fixed part is copied to `fixed`. */
static inline bool take_fixed(void *fixed, size_t fixed_bytes, enum frame_type type,
                              const void *data, size_t length, struct refusal *refusal)
{
    if (!is_between(refusal, "frame shorter than its fixed part", length, fixed_bytes, SIZE_MAX))
        return false;
    memcpy(fixed, data, fixed_bytes);
    struct frame_prefix prefix;
    memcpy(&prefix, data, sizeof prefix);
    return is_equal(refusal, "type of the frame", prefix.type, type) &&
           is_equal(refusal, "length of the frame", length, prefix.length);
}

/* Nothing is missing behind the fixed part, and nothing is too much. */
static inline bool is_whole(struct refusal *refusal, size_t length, size_t fixed_bytes,
                            size_t tail_bytes)
{
    return is_equal(refusal, "length of the frame, by its fields", length,
                    fixed_bytes + tail_bytes);
}
