/*
 * The decoders of the control frames, one frame an input. The first byte chooses the decoder; the
 * rest is the frame, with the true length written over its first 4 bytes and the type over the
 * fifth unless the first byte's upper half says to leave them: otherwise nearly every input would
 * end at them. What a decoder accepts must be what its encoder writes.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "wire/hello.h"

#define FRAME_BYTES_SEEN_MAX 4096
#define CHOICE_DECODER 0x0fu
#define CHOICE_AS_IT_IS 0x80u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* The encoder wrote `padded` bytes for a frame of `length`. */
static void check_again(const uint8_t *again, size_t padded, const uint8_t *frame, size_t length)
{
    ASSERT(padded == round_up_8(length));
    ASSERT(memcmp(again, frame, length) == 0);
    for (size_t i = length; i < padded; i++) ASSERT(again[i] == 0);
}

static void try_hello(const uint8_t *frame, size_t length, uint8_t *again, struct refusal *refusal)
{
    struct frame_hello hello;
    struct bytes token;
    if (hello_decode(&hello, &token, frame, length, refusal) < 0) return;
    check_again(again, hello_encode(&hello, token, again), frame, length);
}

static void try_welcome(const uint8_t *frame, size_t length, uint8_t *again,
                        struct refusal *refusal)
{
    struct frame_welcome welcome;
    const uint8_t *shard_slots;
    uint16_t slots[1024];
    if (welcome_decode(&welcome, &shard_slots, frame, length, refusal) < 0) return;
    ASSERT(welcome.shards_count <= ARRAY_COUNT(slots));
    memcpy(slots, shard_slots, welcome.shards_count * sizeof *slots);
    check_again(again, welcome_encode(&welcome, slots, again), frame, length);
}

static void try_open(const uint8_t *frame, size_t length, uint8_t *again, struct refusal *refusal)
{
    struct frame_open open;
    struct bytes name;
    if (open_decode(&open, &name, frame, length, refusal) < 0) return;
    check_again(again, open_encode(open.seq, name, again), frame, length);
}

static void try_opened(const uint8_t *frame, size_t length, uint8_t *again, struct refusal *refusal)
{
    struct frame_opened opened;
    struct bytes verbs;
    if (opened_decode(&opened, &verbs, frame, length, refusal) < 0) return;
    check_again(again, opened_encode(&opened, verbs, again), frame, length);

    struct bytes name;
    uint8_t type;
    unsigned count = 0;
    while (opened_verb_next(&verbs, &type, &name)) {
        ASSERT(type >= FRAME_VERB_FIRST && name.size > 0);
        count++;
    }
    ASSERT(verbs.size == 0 && count == opened.verbs_count);
}

static void try_ack(const uint8_t *frame, size_t length, uint8_t *again, struct refusal *refusal)
{
    struct frame_ack ack;
    if (ack_decode(&ack, frame, length, refusal) < 0) return;
    size_t padded = ack_encode(ack.seq, ack.requests, ack.consumed_bytes, again);
    check_again(again, padded, frame, length);
}

static void try_refuse(const uint8_t *frame, size_t length)
{
    struct frame_refuse refuse;
    struct bytes text;
    if (refuse_decode(&refuse, &text, frame, length) < 0) return;
    ASSERT(text.size == 0 || text.size == length - sizeof refuse);
    for (size_t i = 0; i < text.size; i++) ASSERT(((const uint8_t *)text.data)[i] >= 0x20);
}

static void try_frame(enum frame_type type, const uint8_t *frame, size_t length)
{
    static uint8_t again[FRAME_BYTES_SEEN_MAX + 8];
    struct refusal refusal = {.text = "accepted"};
    if (type == FRAME_HELLO) try_hello(frame, length, again, &refusal);
    if (type == FRAME_WELCOME) try_welcome(frame, length, again, &refusal);
    if (type == FRAME_OPEN) try_open(frame, length, again, &refusal);
    if (type == FRAME_OPENED) try_opened(frame, length, again, &refusal);
    if (type == FRAME_ACK) try_ack(frame, length, again, &refusal);
    if (type == FRAME_REFUSE) try_refuse(frame, length);
    /* A refusal has a text that REFUSE can carry. */
    uint8_t refused[REFUSE_BYTES_MAX];
    ASSERT(refuse_encode(&refusal, refused) <= sizeof refused);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0 || bytes > FRAME_BYTES_SEEN_MAX) return 0;
    enum frame_type type = (enum frame_type)(data[0] & CHOICE_DECODER);
    size_t length = bytes - 1;
    uint8_t *frame = malloc(length > 0 ? length : 1); /* of its size, so that a sanitizer sees */
    if (frame == NULL) return 0;
    memcpy(frame, data + 1, length);
    if ((data[0] & CHOICE_AS_IT_IS) == 0 && length >= FRAME_PREFIX_BYTES) {
        uint32_t true_length = (uint32_t)length;
        memcpy(frame, &true_length, sizeof true_length);
        frame[4] = (uint8_t)type;
    }
    try_frame(type, frame, length);
    free(frame);
    return 0;
}
