/*
 * How the default handlers of shard/request_apply.c write their replies. What everybody may call is in
 * shard/request.h.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "shard/request.h"

/* The 16-byte reply of an update or a removal: by far the most frequent one. */
void request_reply_changed(struct request_context *context, uint64_t offset, uint8_t flags);
void request_reply_write(struct request_context *context, uint16_t code, uint64_t offset,
                         uint8_t flags, const void *value, size_t value_bytes);
/* `text` is a constant with two %llu at most. */
void request_reply_text(struct request_context *context, uint16_t code, const char *text,
                        uint64_t got, uint64_t limit);
/* Writes one, or says so if the caller's peer does not take one of that length. */
void request_reply_value(struct request_context *context, uint16_t code, uint64_t offset,
                         enum value_type type, const void *value, size_t value_bytes);
/*
 * The same in two steps: returns where the value goes; request_reply_done with `padded_bytes` ends it.
 * NULL: nobody wants a reply, or it was lost, or it does not fit, and it is done.
 */
uint8_t *request_reply_begin(struct request_context *context, uint16_t code, uint64_t offset,
                             uint8_t flags, size_t value_bytes, size_t *padded_bytes);
void request_reply_done(struct request_context *context, size_t padded_bytes);
