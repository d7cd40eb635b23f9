#include "engine/result.h"

#include <string.h>

#include "base/assert.h"
#include "wire/frame.h"

bool result_value_read(fero_val *to, uint8_t type, const uint8_t *data, size_t bytes)
{
    if (!value_is_valid((enum value_type)type, data, bytes)) return false;
    to->type = type;
    switch ((enum value_type)type) {
    case VALUE_DOUBLE: memcpy(&to->num, data, sizeof to->num); break;
    case VALUE_INT64: memcpy(&to->i64, data, sizeof to->i64); break;
    case VALUE_BOOL: to->i64 = data[0]; break;
    case VALUE_STRING:
    case VALUE_JSON:
    case VALUE_BYTES: to->s = (fero_slice){data, bytes}; break;
    case VALUE_UNDEFINED:
    case VALUE_NULL:
    case VALUE_TYPES_COUNT: break;
    }
    return true;
}

void result_read(fero_result *result, const uint8_t *frame, size_t bytes)
{
    struct frame_reply header;
    ASSERT(bytes >= sizeof header);
    memcpy(&header, frame, sizeof header);
    ASSERT(header.length >= sizeof header && header.length <= bytes);
    const uint8_t *value = frame + sizeof header;
    size_t value_bytes = header.length - sizeof header;
    *result = (fero_result){.outcome = (int32_t)reply_outcome(header.code),
                            .error = -(header.code & REPLY_ERROR),
                            .offset = header.offset};
    if ((header.flags & FRAME_EXTENDED) != 0) {
        struct extensions extensions;
        int64_t taken = extensions_decode(&extensions, value, value_bytes);
        ASSERT(taken > 0);
        value += taken;
        value_bytes -= (size_t)taken;
        if ((extensions.present & 1u << EXT_OFFSET) != 0) result->offset = extensions.offset;
    }
    bool is_valid =
        result_value_read(&result->value, header.flags & FRAME_VALUE_TYPE, value, value_bytes);
    ASSERT(is_valid);
}
