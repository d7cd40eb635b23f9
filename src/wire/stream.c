#include "wire/stream.h"

#include <errno.h>

#include "base/assert.h"
#include "wire/check.h"

/* -------------------------------------------------------------------------------- decoders */

static bool is_place(struct refusal *refusal, const struct frame_subscribe *subscribe)
{
    bool has_at = subscribe->from == STREAM_FROM_OFFSET || subscribe->from == STREAM_FROM_POSITION;
    if (!has_at && !is_equal(refusal, "SUBSCRIBE at", subscribe->at, 0)) return false;
    return subscribe->from == STREAM_FROM_POSITION ||
           is_equal(refusal, "SUBSCRIBE owner", subscribe->owner, 0);
}

int subscribe_decode(struct frame_subscribe *subscribe, struct bytes *key, const void *data,
                     size_t length, struct refusal *refusal)
{
    if (!take_fixed(subscribe, sizeof *subscribe, FRAME_SUBSCRIBE, data, length, refusal))
        return -EPROTO;
    bool is_right =
        is_between(refusal, "SUBSCRIBE flags", subscribe->prefix.flags, 0, SUBSCRIBE_UNTIL_LIVE) &&
        is_between(refusal, "SUBSCRIBE from", subscribe->from, 0, STREAM_FROM_COUNT - 1) &&
        is_between(refusal, "SUBSCRIBE match", subscribe->match, 0, STREAM_MATCH_COUNT - 1) &&
        is_place(refusal, subscribe) &&
        is_equal(refusal, "SUBSCRIBE reserved", subscribe->reserved, 0) &&
        is_equal(refusal, "SUBSCRIBE reserved", subscribe->reserved2, 0) &&
        is_whole(refusal, length, sizeof *subscribe, subscribe->prefix.small);
    if (!is_right) return -EPROTO;
    *key = (struct bytes){(const uint8_t *)data + sizeof *subscribe, subscribe->prefix.small};
    return 0;
}

int credit_decode(struct frame_credit *credit, const void *data, size_t length,
                  struct refusal *refusal)
{
    if (!take_fixed(credit, sizeof *credit, FRAME_CREDIT, data, length, refusal)) return -EPROTO;
    bool is_right = is_between(refusal, "CREDIT flags", credit->prefix.flags, 0, CREDIT_END) &&
                    is_equal(refusal, "CREDIT reserved", credit->prefix.small, 0) &&
                    is_equal(refusal, "CREDIT reserved", credit->reserved, 0) &&
                    is_whole(refusal, length, sizeof *credit, 0);
    return is_right ? 0 : -EPROTO;
}

int changes_decode(struct frame_changes *changes, struct bytes *records, const void *data,
                   size_t length, struct refusal *refusal)
{
    if (!take_fixed(changes, sizeof *changes, FRAME_CHANGES, data, length, refusal)) return -EPROTO;
    bool is_right = is_equal(refusal, "CHANGES flags", changes->prefix.flags, 0) &&
                    is_between(refusal, "CHANGES count", changes->prefix.small, 1, UINT16_MAX) &&
                    is_equal(refusal, "CHANGES reserved", changes->reserved, 0) &&
                    is_equal(refusal, "CHANGES length modulo 8", length % FRAME_ALIGNMENT, 0);
    if (!is_right) return -EPROTO;
    *records = (struct bytes){(const uint8_t *)data + sizeof *changes, length - sizeof *changes};
    return 0;
}

int event_decode(struct frame_event *event, const void *data, size_t length,
                 struct refusal *refusal)
{
    if (!take_fixed(event, sizeof *event, FRAME_EVENT, data, length, refusal)) return -EPROTO;
    bool is_right =
        is_equal(refusal, "EVENT flags", event->prefix.flags, 0) &&
        is_between(refusal, "EVENT event", event->event, STREAM_STARTED, STREAM_EVENTS_END - 1) &&
        is_equal(refusal, "EVENT reserved", event->reserved, 0) &&
        is_equal(refusal, "EVENT reserved", event->reserved2, 0) &&
        is_whole(refusal, length, sizeof *event, 0);
    return is_right ? 0 : -EPROTO;
}

/* -------------------------------------------------------------------------------- encoders */

size_t subscribe_encode(struct frame_subscribe *subscribe, struct bytes key, void *data)
{
    uint8_t *to = data;
    size_t length = sizeof *subscribe + key.size;
    ASSERT(key.size <= FRAME_KEY_BYTES_MAX);
    subscribe->prefix.length = (uint32_t)length;
    subscribe->prefix.type = FRAME_SUBSCRIBE;
    subscribe->prefix.small = (uint16_t)key.size;
    memcpy(to, subscribe, sizeof *subscribe);
    if (key.size > 0) memcpy(to + sizeof *subscribe, key.data, key.size);
    memset(to + length, 0, round_up_8(length) - length);
    return round_up_8(length);
}

size_t credit_encode(struct frame_credit *credit, bool is_end, void *data)
{
    credit->prefix = (struct frame_prefix){
        .length = sizeof *credit, .type = FRAME_CREDIT, .flags = is_end ? CREDIT_END : 0};
    memcpy(data, credit, sizeof *credit);
    return sizeof *credit;
}

size_t changes_encode(struct frame_changes *changes, uint32_t count, size_t bytes, void *data)
{
    ASSERT(count > 0 && count <= UINT16_MAX);
    ASSERT(bytes % FRAME_ALIGNMENT == 0);
    changes->prefix = (struct frame_prefix){.length = (uint32_t)(sizeof *changes + bytes),
                                            .type = FRAME_CHANGES,
                                            .small = (uint16_t)count};
    memcpy(data, changes, sizeof *changes);
    return sizeof *changes;
}

size_t event_encode(struct frame_event *event, uint16_t code, void *data)
{
    event->prefix =
        (struct frame_prefix){.length = sizeof *event, .type = FRAME_EVENT, .small = code};
    memcpy(data, event, sizeof *event);
    return sizeof *event;
}
