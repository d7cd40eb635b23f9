/*
 * The decoders of the frames of subscriptions, one frame an input, as fuzz_hello.c has them for the
 * control frames: the first byte chooses the decoder, and unless its upper bit is set the frame's true
 * length and type are written over what stands there. What a decoder accepts must be what its encoder
 * writes; the records of CHANGES are walked through as a client does it.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "log/change.h"
#include "wire/stream.h"

#define FRAME_BYTES_SEEN_MAX 8192
#define CHOICE_DECODER 0x0fu
#define CHOICE_AS_IT_IS 0x80u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_again(const uint8_t *again, size_t written, const uint8_t *frame, size_t length)
{
    ASSERT(written <= round_up_8(length));
    ASSERT(memcmp(again, frame, written < length ? written : length) == 0);
}

static void try_subscribe(const uint8_t *frame, size_t length, uint8_t *again)
{
    struct frame_subscribe subscribe;
    struct bytes key;
    struct refusal refusal;
    if (subscribe_decode(&subscribe, &key, frame, length, &refusal) < 0) return;
    ASSERT(key.size == length - sizeof subscribe);
    check_again(again, subscribe_encode(&subscribe, key, again), frame, length);
}

static void try_credit(const uint8_t *frame, size_t length, uint8_t *again)
{
    struct frame_credit credit;
    struct refusal refusal;
    if (credit_decode(&credit, frame, length, &refusal) < 0) return;
    check_again(again, credit_encode(&credit, credit.prefix.flags != 0, again), frame, length);
}

/* Every byte of a record that is believed is read. */
static void walk(struct bytes records)
{
    const uint8_t *at = records.data;
    size_t left = records.size;
    size_t bytes;
    unsigned sum = 0;
    while ((bytes = change_checked_bytes(at, left)) > 0) {
        struct change change;
        memcpy(&change, at, sizeof change);
        ASSERT(change.key_len > 0 && CHANGE_BYTES + change.key_len <= change.length);
        ASSERT(bytes <= left && bytes % 8 == 0);
        for (size_t i = 0; i < change.length; i++) sum += at[i];
        at += bytes;
        left -= bytes;
    }
    ASSERT(sum <= records.size * 255);
}

static void try_changes(const uint8_t *frame, size_t length, uint8_t *again)
{
    struct frame_changes changes;
    struct bytes records;
    struct refusal refusal;
    if (changes_decode(&changes, &records, frame, length, &refusal) < 0) return;
    ASSERT(records.size == length - sizeof changes);
    walk(records);
    size_t head = changes_encode(&changes, changes.prefix.small, records.size, again);
    check_again(again, head, frame, length);
}

static void try_event(const uint8_t *frame, size_t length, uint8_t *again)
{
    struct frame_event event;
    struct refusal refusal;
    if (event_decode(&event, frame, length, &refusal) < 0) return;
    check_again(again, event_encode(&event, event.prefix.small, again), frame, length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static uint8_t again[FRAME_BYTES_SEEN_MAX + 8];
    if (bytes == 0 || bytes > FRAME_BYTES_SEEN_MAX) return 0;
    unsigned type = data[0] & CHOICE_DECODER;
    size_t length = bytes - 1;
    uint8_t *frame = malloc(length > 0 ? length : 1); /* of its size, so that a sanitizer sees */
    if (frame == NULL) return 0;
    memcpy(frame, data + 1, length);
    if ((data[0] & CHOICE_AS_IT_IS) == 0 && length >= FRAME_PREFIX_BYTES) {
        uint32_t true_length = (uint32_t)length;
        memcpy(frame, &true_length, sizeof true_length);
        frame[4] = (uint8_t)type;
    }
    if (type == FRAME_SUBSCRIBE) try_subscribe(frame, length, again);
    if (type == FRAME_CREDIT) try_credit(frame, length, again);
    if (type == FRAME_CHANGES) try_changes(frame, length, again);
    if (type == FRAME_EVENT) try_event(frame, length, again);
    free(frame);
    return 0;
}
