#include "cli/value.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/json.h"
#include "cli/output.h"

const char *const value_as_names[] = {"auto", "string", "double",    "int64", "json",
                                      "bool", "null",   "undefined", "bytes", NULL};

#define NUMBER_TEXT_BYTES 512

/* strtod and strtoll want an end; a number's text is short. */
static const char *copy_number(char to[NUMBER_TEXT_BYTES], const char *text, size_t bytes)
{
    if (bytes == 0 || bytes >= NUMBER_TEXT_BYTES || isspace((unsigned char)text[0])) return NULL;
    memcpy(to, text, bytes);
    to[bytes] = 0;
    return strlen(to) == bytes ? to : NULL;
}

static bool read_int64(fero_val *value, const char *text, size_t bytes)
{
    char copy[NUMBER_TEXT_BYTES];
    if (copy_number(copy, text, bytes) == NULL || copy[0] == '+') return false;
    char *end;
    errno = 0;
    long long number = strtoll(copy, &end, 10);
    if (end == copy || *end != 0 || errno == ERANGE) return false;
    value->type = FERO_T_INT64;
    value->i64 = number;
    return true;
}

static bool read_double(fero_val *value, const char *text, size_t bytes)
{
    char copy[NUMBER_TEXT_BYTES];
    if (copy_number(copy, text, bytes) == NULL) return false;
    char *end;
    errno = 0;
    double number = strtod(copy, &end);
    if (end == copy || *end != 0) return false;
    /* Too small a number is nearly 0, but too large a one is not what was meant. */
    if (errno == ERANGE && isinf(number)) return false;
    value->type = FERO_T_DOUBLE;
    value->num = number;
    return true;
}

static bool is_word(const char *text, size_t bytes, const char *word)
{
    return bytes == strlen(word) && memcmp(text, word, bytes) == 0;
}

static bool read_bool(fero_val *value, const char *text, size_t bytes)
{
    value->type = FERO_T_BOOL;
    value->i64 = is_word(text, bytes, "true");
    return value->i64 != 0 || is_word(text, bytes, "false");
}

static void read_bytes(fero_val *value, int32_t type, const char *text, size_t bytes)
{
    value->type = type;
    value->s = (fero_slice){text, bytes};
}

static void trim(const char **text, size_t *bytes)
{
    while (*bytes > 0 && isspace((unsigned char)**text)) {
        (*text)++;
        (*bytes)--;
    }
    while (*bytes > 0 && isspace((unsigned char)(*text)[*bytes - 1])) (*bytes)--;
}

/* JSON numbers: an integer that fits is one, "-0" is not. */
static void read_json_number(fero_val *value, const char *text, size_t bytes)
{
    trim(&text, &bytes);
    if (!is_word(text, bytes, "-0") && read_int64(value, text, bytes)) return;
    if (!read_double(value, text, bytes)) read_bytes(value, FERO_T_JSON, text, bytes);
}

static void read_json_word(fero_val *value, const char *text, size_t bytes)
{
    trim(&text, &bytes);
    if (!read_bool(value, text, bytes)) value->type = FERO_T_NULL;
}

static void read_auto(fero_val *value, const char *text, size_t bytes, char *scratch)
{
    switch (json_classify(text, bytes)) {
    case JSON_INVALID:
        read_bytes(value, utf8_is_valid(text, bytes) ? FERO_T_STRING : FERO_T_BYTES, text, bytes);
        return;
    case JSON_OBJECT:
    case JSON_ARRAY: read_bytes(value, FERO_T_JSON, text, bytes); return;
    case JSON_STRING:
        read_bytes(value, FERO_T_STRING, scratch, json_unescape(text, bytes, scratch));
        return;
    case JSON_NUMBER: read_json_number(value, text, bytes); return;
    case JSON_WORD: read_json_word(value, text, bytes); return;
    }
}

const char *value_read(fero_val *value, const char *text, size_t bytes, enum value_as as,
                       char *scratch)
{
    *value = (fero_val){0};
    switch (as) {
    case VALUE_AS_AUTO: read_auto(value, text, bytes, scratch); return NULL;
    case VALUE_AS_STRING:
        read_bytes(value, FERO_T_STRING, text, bytes);
        return utf8_is_valid(text, bytes) ? NULL : "UTF-8 text; --type bytes takes anything";
    case VALUE_AS_BYTES: read_bytes(value, FERO_T_BYTES, text, bytes); return NULL;
    case VALUE_AS_DOUBLE:
        return read_double(value, text, bytes) ? NULL : "a number such as 1.5 or 2e9";
    case VALUE_AS_INT64:
        return read_int64(value, text, bytes) ? NULL : "a whole number from -2^63 to 2^63-1";
    case VALUE_AS_JSON:
        read_bytes(value, FERO_T_JSON, text, bytes);
        return json_classify(text, bytes) != JSON_INVALID ? NULL : "JSON such as {\"a\":1}";
    case VALUE_AS_BOOL: return read_bool(value, text, bytes) ? NULL : "true or false";
    case VALUE_AS_NULL:
        value->type = FERO_T_NULL;
        return bytes == 0 || is_word(text, bytes, "null") ? NULL : "null";
    case VALUE_AS_UNDEFINED:
        value->type = FERO_T_UNDEFINED;
        return bytes == 0 || is_word(text, bytes, "undefined") ? NULL : "undefined";
    }
    return "a value";
}

const char *value_type_name(int32_t type)
{
    switch (type) {
    case FERO_T_UNDEFINED: return "undefined";
    case FERO_T_STRING: return "string";
    case FERO_T_DOUBLE: return "double";
    case FERO_T_JSON: return "json";
    case FERO_T_BOOL: return "bool";
    case FERO_T_NULL: return "null";
    case FERO_T_BYTES: return "bytes";
    case FERO_T_INT64: return "int64";
    default: return "unknown";
    }
}

static void put_hex(FILE *to, const fero_slice *slice)
{
    const unsigned char *at = slice->ptr;
    fputc('"', to);
    for (size_t i = 0; i < slice->len; i++) fprintf(to, "%02x", at[i]);
    fputc('"', to);
}

void value_put_plain(FILE *to, const fero_val *value)
{
    switch (value->type) {
    case FERO_T_STRING:
    case FERO_T_JSON:
    case FERO_T_BYTES:
        if (value->s.len > 0) fwrite(value->s.ptr, 1, value->s.len, to);
        /* Bytes are somebody's file: not one more. */
        if (value->type != FERO_T_BYTES) fputc('\n', to);
        return;
    case FERO_T_DOUBLE:
        double_put(to, value->num);
        fputc('\n', to);
        return;
    case FERO_T_INT64: fprintf(to, "%lld\n", (long long)value->i64); return;
    case FERO_T_BOOL: fprintf(to, "%s\n", value->i64 != 0 ? "true" : "false"); return;
    default: fprintf(to, "%s\n", value_type_name(value->type)); return;
    }
}

/*
 * As it was stored, but in one line: whoever reads lines finds an object in each. What a handler
 * replies with is read by nobody before us, so it may as well be none; then it is a string.
 */
static void put_json_text(FILE *to, const char *text, size_t bytes)
{
    if (json_classify(text, bytes) == JSON_INVALID) {
        json_put_string(to, text, bytes);
        return;
    }
    /* Between its tokens only: in a string they are escaped. */
    for (size_t i = 0; i < bytes; i++)
        putc_unlocked(text[i] == '\n' || text[i] == '\r' ? ' ' : text[i], to);
}

void value_put_json(FILE *to, const fero_val *value)
{
    switch (value->type) {
    case FERO_T_STRING: json_put_string(to, value->s.ptr, value->s.len); return;
    case FERO_T_JSON: put_json_text(to, value->s.ptr, value->s.len); return;
    case FERO_T_BYTES: put_hex(to, &value->s); return;
    case FERO_T_DOUBLE:
        /* JSON knows neither infinities nor NaN. */
        if (isfinite(value->num))
            double_put(to, value->num);
        else
            fputs("null", to);
        return;
    case FERO_T_INT64: fprintf(to, "%lld", (long long)value->i64); return;
    case FERO_T_BOOL: fputs(value->i64 != 0 ? "true" : "false", to); return;
    default: fputs("null", to); return;
    }
}
