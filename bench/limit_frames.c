#include "bench/limit_frames.h"

size_t limit_frame_bytes(const struct limit_options *options)
{
    return round_up_8(sizeof(struct limit_header) + options->message_bytes);
}

size_t limit_reply_value_bytes(const struct limit_options *options)
{
    return options->reply_bytes == LIMIT_REPLY_ECHO ? options->message_bytes : options->reply_bytes;
}

size_t limit_reply_frame_bytes(const struct limit_options *options)
{
    return sizeof(struct limit_reply) + round_up_8(limit_reply_value_bytes(options));
}

void limit_request_init(struct limit_request *request, size_t message_bytes)
{
    uint8_t *value = (uint8_t *)(request + 1);
    *request = (struct limit_request){
        .header = {.length = (uint32_t)(sizeof(struct limit_header) + message_bytes),
                   .type = LIMIT_TYPE_UPDATE,
                   .key_len = LIMIT_KEY_BYTES,
                   .cache = 1,
                   .slot = UINT16_MAX}};
    for (size_t i = 0; i < message_bytes - LIMIT_KEY_BYTES; i++) value[i] = (uint8_t)('a' + i % 26);
}
