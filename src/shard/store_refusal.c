#include "shard/store_refusal.h"

#include <stdarg.h>
#include <stdio.h>

#include "wire/jsontext.h"
#include "wire/utf8.h"

enum store_result store_refuse(struct store *store, enum reply_error error, const char *format, ...)
{
    struct store_refusal *refusal = &store->refusal;
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(refusal->text, sizeof refusal->text, format, arguments);
    va_end(arguments);
    refusal->error = error;
    refusal->format = format;
    refusal->bytes = min_u64((uint64_t)bytes, sizeof refusal->text - 1);
    return STORE_REFUSED;
}

struct shown shown_of(const void *key, size_t bytes)
{
    struct shown shown;
    const uint8_t *from = key;
    size_t some = min_u64(bytes, SHOWN_BYTES);
    while (some < bytes && some > 0 && (from[some] & 0xc0) == 0x80) some--;
    bool is_utf8 = utf8_is_text(from, some);
    for (size_t i = 0; i < some; i++) {
        bool is_plain = from[i] >= 0x20 && from[i] != 0x7f && (from[i] < 0x80 || is_utf8);
        shown.text[i] = is_plain ? (char)from[i] : '?';
    }
    memcpy(shown.text + some, some < bytes ? "..." : "", some < bytes ? 4 : 1);
    return shown;
}

enum store_result store_check_value(struct store *store, const struct store_request *request)
{
    const uint8_t *value = request->body + request->key_len;
    size_t bytes = request->body_bytes - request->key_len;
    if (value_text_is_valid((enum value_type)request->flags, value, bytes)) return STORE_OK;
    struct shown shown = shown_of(request->body, request->key_len);
    if (request->flags == VALUE_STRING)
        return store_refuse(
            store, ERROR_TYPE,
            "the string for \"%s\" is not UTF-8 after %zu of its %zu bytes: bytes may "
            "be anything",
            shown.text, utf8_text_bytes(value, bytes), bytes);
    return store_refuse(store, ERROR_TYPE,
                        "the value for \"%s\" is not JSON (of at most %d levels) after %zu of its "
                        "%zu bytes",
                        shown.text, JSONTEXT_DEPTH_MAX, jsontext_valid_bytes(value, bytes), bytes);
}
