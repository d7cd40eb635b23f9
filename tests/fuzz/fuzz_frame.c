/*
 * A stream of bytes as a link sees it: frame after frame, each by its prefix. A request or a reply
 * is taken apart down to its value; a control frame goes to its decoder. The walk is made twice,
 * over all bytes at once and over bytes that come one after the other, and must see the same.
 */
#include "base/assert.h"
#include "wire/hello.h"

/* As a node might announce them, but small, so that a fuzzer finds the limits. */
#define FRAME_BYTES_SEEN_MAX 2048

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* What a walk saw: equal walks have equal numbers. */
struct walk {
    size_t frames;
    size_t bytes;
    uint64_t sum;
    bool is_broken;
};

static void see(struct walk *walk, uint64_t number)
{
    walk->sum = (walk->sum ^ number) * 0x9e3779b97f4a7c15u;
}

static void see_bytes(struct walk *walk, struct bytes bytes)
{
    const uint8_t *data = bytes.data;
    see(walk, bytes.size);
    for (size_t i = 0; i < bytes.size; i++) see(walk, data[i]);
}

/* Takes the extension block off the front of `body`. */
static bool take_extensions(struct walk *walk, struct bytes *body)
{
    struct extensions extensions;
    int64_t bytes = extensions_decode(&extensions, body->data, body->size);
    if (bytes < 0) return false;
    ASSERT((size_t)bytes <= body->size);
    see(walk, extensions.present);
    see_bytes(walk, extensions.verb);
    *body = (struct bytes){(const uint8_t *)body->data + bytes, body->size - (size_t)bytes};
    return true;
}

static bool take_request(struct walk *walk, const uint8_t *data, size_t length)
{
    struct frame_request request;
    if (length < sizeof request) return false;
    memcpy(&request, data, sizeof request);
    if ((request.flags & FRAME_RESERVED) != 0) return false;
    struct bytes body = {data + sizeof request, length - sizeof request};
    if ((request.flags & FRAME_EXTENDED) != 0 && !take_extensions(walk, &body)) return false;
    if (request.key_len > body.size) return false;
    const uint8_t *value = (const uint8_t *)body.data + request.key_len;
    size_t value_bytes = body.size - request.key_len;
    enum value_type type = (enum value_type)(request.flags & FRAME_VALUE_TYPE);
    see_bytes(walk, (struct bytes){body.data, request.key_len});
    see(walk, value_is_valid(type, value, value_bytes));
    return true;
}

static bool take_reply(struct walk *walk, const uint8_t *data, size_t length)
{
    struct frame_reply reply;
    if (length < sizeof reply) return false;
    memcpy(&reply, data, sizeof reply);
    struct bytes body = {data + sizeof reply, length - sizeof reply};
    if ((reply.flags & FRAME_EXTENDED) != 0 && !take_extensions(walk, &body)) return false;
    see(walk, reply_outcome(reply.code));
    see(walk,
        value_is_valid((enum value_type)(reply.flags & FRAME_VALUE_TYPE), body.data, body.size));
    return true;
}

static bool take_control(struct walk *walk, unsigned type, const uint8_t *data, size_t length)
{
    struct refusal refusal;
    struct frame_hello hello;
    struct frame_welcome welcome;
    struct frame_open open;
    struct frame_opened opened;
    struct frame_ack ack;
    struct frame_refuse refuse;
    const uint8_t *shard_slots;
    struct bytes tail;
    int result = -1;
    if (type == FRAME_HELLO) result = hello_decode(&hello, &tail, data, length, &refusal);
    if (type == FRAME_WELCOME)
        result = welcome_decode(&welcome, &shard_slots, data, length, &refusal);
    if (type == FRAME_OPEN) result = open_decode(&open, &tail, data, length, &refusal);
    if (type == FRAME_OPENED) result = opened_decode(&opened, &tail, data, length, &refusal);
    if (type == FRAME_ACK) result = ack_decode(&ack, data, length, &refusal);
    if (type == FRAME_REFUSE) result = refuse_decode(&refuse, &tail, data, length);
    see(walk, (uint64_t)result);
    return result == 0;
}

/*
 * Takes the frame at `data` and returns its bytes with the padding; 0 where `size` bytes do not
 * hold all of it.
 */
static size_t take_frame(struct walk *walk, const uint8_t *data, size_t size)
{
    struct frame_prefix prefix;
    if (size < sizeof prefix) return 0;
    memcpy(&prefix, data, sizeof prefix);
    walk->is_broken = prefix.length < sizeof prefix || prefix.length > FRAME_BYTES_SEEN_MAX;
    size_t padded = round_up_8(prefix.length);
    if (walk->is_broken || padded > size) return 0;
    see(walk, prefix.type);
    bool is_right;
    if (prefix.type == FRAME_REPLY)
        is_right = take_reply(walk, data, prefix.length);
    else if (prefix.type == FRAME_INFO || prefix.type >= FRAME_UPDATE)
        is_right = take_request(walk, data, prefix.length);
    else
        is_right = take_control(walk, prefix.type, data, prefix.length);
    walk->is_broken = !is_right;
    walk->frames++;
    walk->bytes += padded;
    return padded;
}

/* `step` more bytes come at a time. */
static struct walk walk_stream(const uint8_t *data, size_t bytes, size_t step)
{
    struct walk walk = {0};
    for (size_t come = 0; come < bytes && !walk.is_broken;) {
        come = min_u64(come + step, bytes);
        while (!walk.is_broken && take_frame(&walk, data + walk.bytes, come - walk.bytes) > 0) {
        }
    }
    return walk;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct walk whole = walk_stream(data, bytes, SIZE_MAX / 2);
    struct walk pieces = walk_stream(data, bytes, 1);
    ASSERT(whole.bytes <= bytes && whole.bytes % FRAME_ALIGNMENT == 0);
    ASSERT(whole.frames == pieces.frames && whole.bytes == pieces.bytes);
    ASSERT(whole.sum == pieces.sum && whole.is_broken == pieces.is_broken);
    return 0;
}
