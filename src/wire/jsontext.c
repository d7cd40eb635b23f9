/*
 * Two readers. The first one believes nothing: a loop over tokens with a stack of bits that says
 * whether the container at hand is an object, so that deep text costs a bound and no stack. The
 * second one goes through text that the first has accepted, and so needs to look only for quotes and
 * brackets.
 *
 * Text is never copied to be read: a value is a pointer into it.
 */
#include "wire/jsontext.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/attr.h"
#include "wire/utf8.h"

/* The longest text of a number that is copied to be read; a longer one stays text. */
#define NUMBER_BYTES_MAX 340

/* ------------------------------------------------------------------------------- checking */

struct scanner {
    const uint8_t *at;
    const uint8_t *end;
};

static ALWAYS_INLINE bool is_space(uint8_t byte)
{
    if (LIKELY(byte > ' ')) return false;
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static ALWAYS_INLINE void skip_space(struct scanner *scanner)
{
    while (scanner->at < scanner->end && is_space(*scanner->at)) scanner->at++;
}

static ALWAYS_INLINE bool take(struct scanner *scanner, char wanted)
{
    if (scanner->at == scanner->end || *scanner->at != (uint8_t)wanted) return false;
    scanner->at++;
    return true;
}

static ALWAYS_INLINE bool take_digits(struct scanner *scanner)
{
    const uint8_t *begin = scanner->at;
    while (scanner->at < scanner->end && is_digit(*scanner->at)) scanner->at++;
    return scanner->at > begin;
}

static bool take_number(struct scanner *scanner)
{
    take(scanner, '-');
    if (!take(scanner, '0') && !take_digits(scanner)) return false;
    if (take(scanner, '.') && !take_digits(scanner)) return false;
    if (!take(scanner, 'e') && !take(scanner, 'E')) return true;
    if (!take(scanner, '+')) take(scanner, '-');
    return take_digits(scanner);
}

static bool take_word(struct scanner *scanner, const char *word)
{
    size_t bytes = strlen(word);
    if ((size_t)(scanner->end - scanner->at) < bytes) return false;
    if (memcmp(scanner->at, word, bytes) != 0) return false;
    scanner->at += bytes;
    return true;
}

static int hex_digit(uint8_t byte)
{
    if (is_digit(byte)) return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* Four hexadecimal digits at `at`, or -1. */
static int32_t read_hex4(const uint8_t *at, const uint8_t *end)
{
    int32_t number = 0;
    if (end - at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(at[i]);
        if (digit < 0) return -1;
        number = number << 4 | digit;
    }
    return number;
}

/* Bytes of the escape at `at`, which begins with a backslash, and its character; 0: broken. */
static size_t read_escape(const uint8_t *at, const uint8_t *end, uint32_t *character)
{
    static const char names[] = "\"\\/bfnrt";
    static const char means[] = "\"\\/\b\f\n\r\t";
    if (end - at < 2) return 0;
    const char *found = at[1] != 0 ? strchr(names, at[1]) : NULL;
    if (found != NULL) {
        *character = (uint8_t)means[found - names];
        return 2;
    }
    if (at[1] != 'u') return 0;
    int32_t first = read_hex4(at + 2, end);
    if (first < 0 || (first >= 0xdc00 && first <= 0xdfff)) return 0;
    *character = (uint32_t)first;
    if (first < 0xd800 || first > 0xdbff) return 6;
    if (end - at < 12 || at[6] != '\\' || at[7] != 'u') return 0;
    int32_t second = read_hex4(at + 8, end);
    if (second < 0xdc00 || second > 0xdfff) return 0;
    *character = 0x10000 + ((uint32_t)(first - 0xd800) << 10) + (uint32_t)(second - 0xdc00);
    return 12;
}

/* Bytes at `at` that stand for themselves in a string, and are ASCII. */
static ALWAYS_INLINE size_t plain_run(const uint8_t *at, const uint8_t *end)
{
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t highs = ones << 7;
    const uint8_t *begin = at;
    for (; end - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        uint64_t quote = word ^ (ones * '"');
        uint64_t backslash = word ^ (ones * '\\');
        uint64_t found = ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) |
                         (word - ones * 0x20) | word;
        found &= highs;
        /* Borrows make bits above the lowest one doubtful, but never that one. */
        if (found != 0) return (size_t)(at - begin) + (size_t)__builtin_ctzll(found) / 8;
    }
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\') at++;
    return (size_t)(at - begin);
}

/* What stands behind the opening quote, with the closing one. */
static bool take_string(struct scanner *scanner)
{
    while (scanner->at < scanner->end) {
        scanner->at += plain_run(scanner->at, scanner->end);
        if (scanner->at == scanner->end) return false;
        uint32_t character;
        size_t step = 1;
        if (*scanner->at == '"') {
            scanner->at++;
            return true;
        }
        if (*scanner->at < 0x20) return false;
        if (*scanner->at == '\\')
            step = read_escape(scanner->at, scanner->end, &character);
        else
            step = utf8_bytes_of(scanner->at, (size_t)(scanner->end - scanner->at));
        if (step == 0) return false;
        scanner->at += step;
    }
    return false;
}

/* The containers that are open: a bit for each, set where it is an object. */
struct nesting {
    uint64_t is_object[JSONTEXT_DEPTH_MAX / 64];
    unsigned depth;
};

static ALWAYS_INLINE bool nesting_open(struct nesting *nesting, bool is_object)
{
    if (nesting->depth == JSONTEXT_DEPTH_MAX) return false;
    uint64_t *word = &nesting->is_object[nesting->depth / 64];
    uint64_t bit = (uint64_t)1 << nesting->depth % 64;
    *word = is_object ? *word | bit : *word & ~bit;
    nesting->depth++;
    return true;
}

static ALWAYS_INLINE bool in_object(const struct nesting *nesting)
{
    unsigned at = nesting->depth - 1;
    return (nesting->is_object[at / 64] >> at % 64 & 1) != 0;
}

static ALWAYS_INLINE bool take_name(struct scanner *scanner)
{
    skip_space(scanner);
    if (!take(scanner, '"') || !take_string(scanner)) return false;
    skip_space(scanner);
    return take(scanner, ':');
}

/* Takes a value that is no container. */
static bool take_scalar(struct scanner *scanner)
{
    if (scanner->at == scanner->end) return false;
    switch (*scanner->at) {
    case '"': scanner->at++; return take_string(scanner);
    case 't': return take_word(scanner, "true");
    case 'f': return take_word(scanner, "false");
    case 'n': return take_word(scanner, "null");
    default: return take_number(scanner);
    }
}

/* Behind a value: closes what ends here, and goes to the next value. False: broken, or the end. */
static ALWAYS_INLINE bool take_between(struct scanner *scanner, struct nesting *nesting)
{
    while (nesting->depth > 0) {
        skip_space(scanner);
        bool is_object = in_object(nesting);
        if (take(scanner, ',')) return !is_object || take_name(scanner);
        if (!take(scanner, is_object ? '}' : ']')) return false;
        nesting->depth--;
    }
    return false;
}

/* Opens the container at hand. True: a value follows. `ended`: it is empty, or broken. */
static ALWAYS_INLINE bool take_open(struct scanner *scanner, struct nesting *nesting,
                                    bool *is_broken)
{
    bool is_object = *scanner->at++ == '{';
    *is_broken = !nesting_open(nesting, is_object);
    if (*is_broken) return false;
    skip_space(scanner);
    if (take(scanner, is_object ? '}' : ']')) {
        nesting->depth--;
        return false;
    }
    if (!is_object) return true;
    *is_broken = !take_name(scanner);
    return !*is_broken;
}

/* Takes one whole value and space around it. False: the scanner is at what is wrong, or at the end. */
static ALWAYS_INLINE bool take_text(struct scanner *scanner)
{
    struct nesting nesting = {.depth = 0};
    do {
        bool is_broken = false;
        bool goes_in = false;
        skip_space(scanner);
        if (scanner->at < scanner->end && (*scanner->at == '{' || *scanner->at == '['))
            goes_in = take_open(scanner, &nesting, &is_broken);
        else
            is_broken = !take_scalar(scanner);
        if (is_broken) return false;
        if (goes_in) continue;
        if (nesting.depth == 0) break;
        if (!take_between(scanner, &nesting)) break;
    } while (true);
    skip_space(scanner);
    return nesting.depth == 0 && scanner->at == scanner->end;
}

bool jsontext_is_valid(const void *text, size_t bytes)
{
    struct scanner scanner = {text, (const uint8_t *)text + bytes};
    return bytes > 0 && take_text(&scanner);
}

size_t jsontext_valid_bytes(const void *text, size_t bytes)
{
    struct scanner scanner = {text, (const uint8_t *)text + bytes};
    return bytes > 0 && !take_text(&scanner) ? (size_t)(scanner.at - (const uint8_t *)text) : bytes;
}

/* ------------------------------------------------------------------- reading what was checked */

static struct jsontext skip(const uint8_t *at, const uint8_t *end)
{
    while (at < end && is_space(*at)) at++;
    return (struct jsontext){at, end};
}

struct jsontext jsontext_of(const void *text, size_t bytes)
{
    return skip(text, (const uint8_t *)text + bytes);
}

enum jsontext_kind jsontext_kind(struct jsontext value)
{
    ASSERT(value.at < value.end);
    switch (*value.at) {
    case '{': return JSONTEXT_OBJECT;
    case '[': return JSONTEXT_ARRAY;
    case '"': return JSONTEXT_STRING;
    case 't': return JSONTEXT_TRUE;
    case 'f': return JSONTEXT_FALSE;
    case 'n': return JSONTEXT_NULL;
    default: return JSONTEXT_NUMBER;
    }
}

/* Behind the string whose opening quote is at `at`. */
static const uint8_t *string_end(const uint8_t *at, const uint8_t *end)
{
    for (at++; at < end && *at != '"'; at++) {
        at += plain_run(at, end);
        if (at < end && *at == '"') break;
        if (at < end && *at == '\\') at++;
    }
    ASSERT(at < end);
    return at + 1;
}

static const uint8_t *container_end(const uint8_t *at, const uint8_t *end)
{
    unsigned depth = 0;
    while (at < end) {
        uint8_t byte = *at;
        if (byte == '"') {
            at = string_end(at, end);
            continue;
        }
        at++;
        if (byte == '{' || byte == '[') depth++;
        if ((byte == '}' || byte == ']') && --depth == 0) break;
    }
    ASSERT(depth == 0);
    return at;
}

size_t jsontext_bytes(struct jsontext value)
{
    const uint8_t *at = value.at;
    switch (jsontext_kind(value)) {
    case JSONTEXT_OBJECT:
    case JSONTEXT_ARRAY: return (size_t)(container_end(at, value.end) - at);
    case JSONTEXT_STRING: return (size_t)(string_end(at, value.end) - at);
    case JSONTEXT_TRUE:
    case JSONTEXT_NULL: return 4;
    case JSONTEXT_FALSE: return 5;
    case JSONTEXT_NUMBER: break;
    }
    while (at < value.end && !is_space(*at) && *at != ',' && *at != ']' && *at != '}') at++;
    return (size_t)(at - value.at);
}

void jsontext_walk_begin(struct jsontext_walk *walk, struct jsontext container)
{
    walk->is_object = *container.at == '{';
    ASSERT(walk->is_object || *container.at == '[');
    walk->at = skip(container.at + 1, container.end);
}

bool jsontext_walk_next(struct jsontext_walk *walk, struct jsontext_member *member)
{
    const uint8_t *at = walk->at.at;
    const uint8_t *end = walk->at.end;
    if (*at == '}' || *at == ']') return false;
    member->name = (struct bytes){at, 0};
    if (walk->is_object) {
        const uint8_t *behind = string_end(at, end);
        member->name = (struct bytes){at + 1, (size_t)(behind - at) - 2};
        at = skip(behind, end).at + 1; /* the colon */
    }
    member->value = skip(at, end);
    member->value_bytes = jsontext_bytes(member->value);
    walk->at = skip(member->value.at + member->value_bytes, end);
    if (*walk->at.at == ',') walk->at = skip(walk->at.at + 1, end);
    return true;
}

bool jsontext_member(struct jsontext object, const void *name, size_t bytes, struct jsontext *value)
{
    struct jsontext_walk walk;
    struct jsontext_member member;
    bool is_found = false;
    jsontext_walk_begin(&walk, object);
    while (jsontext_walk_next(&walk, &member)) {
        if (!jsontext_name_is(member.name, name, bytes)) continue;
        *value = member.value;
        is_found = true;
    }
    return is_found;
}

bool jsontext_element(struct jsontext array, uint32_t index, struct jsontext *value)
{
    struct jsontext_walk walk;
    struct jsontext_member member;
    jsontext_walk_begin(&walk, array);
    while (jsontext_walk_next(&walk, &member)) {
        if (index-- > 0) continue;
        *value = member.value;
        return true;
    }
    return false;
}

uint32_t jsontext_elements_count(struct jsontext array)
{
    struct jsontext_walk walk;
    struct jsontext_member member;
    uint32_t count = 0;
    jsontext_walk_begin(&walk, array);
    while (jsontext_walk_next(&walk, &member)) count++;
    return count;
}

/* Writes a character as UTF-8; returns its bytes. */
static size_t put_utf8(uint8_t to[4], uint32_t character)
{
    if (character < 0x80) {
        to[0] = (uint8_t)character;
        return 1;
    }
    size_t bytes = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (size_t i = bytes; i-- > 1; character >>= 6) to[i] = (uint8_t)(0x80 | (character & 0x3f));
    to[0] = (uint8_t)(0xf00u >> bytes | character);
    return bytes;
}

/* The next character of a checked string, as UTF-8; returns what it took of the text. */
static size_t next_character(const uint8_t *at, const uint8_t *end, uint8_t to[4], size_t *bytes)
{
    uint32_t character;
    if (*at != '\\') {
        to[0] = *at;
        *bytes = 1;
        return 1;
    }
    size_t step = read_escape(at, end, &character);
    ASSERT(step > 0);
    *bytes = put_utf8(to, character);
    return step;
}

size_t jsontext_unescape(uint8_t *to, size_t room, const uint8_t *from, size_t bytes)
{
    const uint8_t *end = from + bytes;
    size_t written = 0;
    while (from < end) {
        uint8_t character[4];
        size_t count;
        from += next_character(from, end, character, &count);
        if (written + count <= room) memcpy(to + written, character, count);
        written += count;
    }
    return written;
}

bool jsontext_name_is(struct bytes escaped, const void *name, size_t bytes)
{
    const uint8_t *at = escaped.data;
    const uint8_t *end = at + escaped.size;
    const uint8_t *wanted = name;
    if (escaped.size < bytes) return false;
    if (escaped.size == bytes && memcmp(at, name, bytes) == 0)
        return memchr(at, '\\', bytes) == NULL;
    if (memchr(at, '\\', escaped.size) == NULL) return false;
    while (at < end) {
        uint8_t character[4];
        size_t count;
        at += next_character(at, end, character, &count);
        if (bytes < count || memcmp(wanted, character, count) != 0) return false;
        wanted += count;
        bytes -= count;
    }
    return bytes == 0;
}

/* strtod wants the decimal point of the program's locale. */
static bool read_double(const uint8_t *text, size_t bytes, double *number)
{
    char copy[NUMBER_BYTES_MAX + 1];
    if (bytes > NUMBER_BYTES_MAX) return false;
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    char *point = strchr(copy, '.');
    if (point != NULL) *point = *localeconv()->decimal_point;
    *number = strtod(copy, NULL);
    return isfinite(*number);
}

/* Which only a double can be. */
static bool is_minus_zero(const uint8_t *text, size_t bytes)
{
    return bytes == 2 && memcmp(text, "-0", 2) == 0;
}

static bool read_int64(const uint8_t *text, size_t bytes, int64_t *number)
{
    char copy[24];
    if (bytes >= sizeof copy || is_minus_zero(text, bytes)) return false;
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    errno = 0;
    *number = strtoll(copy, NULL, 10);
    return errno == 0;
}

static void number_value(struct jsontext_value *to, const uint8_t *text, size_t bytes)
{
    int64_t whole;
    double number;
    bool is_whole = memchr(text, '.', bytes) == NULL && memchr(text, 'e', bytes) == NULL &&
                    memchr(text, 'E', bytes) == NULL;
    if (is_whole && read_int64(text, bytes, &whole)) {
        *to = (struct jsontext_value){.type = VALUE_INT64, .bytes = sizeof whole};
        memcpy(to->fixed, &whole, sizeof whole);
    } else if ((!is_whole || is_minus_zero(text, bytes)) && read_double(text, bytes, &number)) {
        *to = (struct jsontext_value){.type = VALUE_DOUBLE, .bytes = sizeof number};
        memcpy(to->fixed, &number, sizeof number);
    }
}

static void string_value(struct jsontext_value *to, const uint8_t *text, size_t bytes)
{
    to->type = VALUE_STRING;
    to->text = (struct bytes){text, bytes};
    to->is_escaped = memchr(text, '\\', bytes) != NULL;
    to->bytes = to->is_escaped ? jsontext_unescape(NULL, 0, text, bytes) : bytes;
}

void jsontext_value(struct jsontext_value *to, struct jsontext value)
{
    size_t bytes = jsontext_bytes(value);
    *to = (struct jsontext_value){.type = VALUE_JSON, .bytes = bytes, .text = {value.at, bytes}};
    switch (jsontext_kind(value)) {
    case JSONTEXT_OBJECT:
    case JSONTEXT_ARRAY: return;
    case JSONTEXT_STRING: string_value(to, value.at + 1, bytes - 2); return;
    case JSONTEXT_NUMBER: number_value(to, value.at, bytes); return;
    case JSONTEXT_TRUE:
        *to = (struct jsontext_value){.type = VALUE_BOOL, .bytes = 1, .fixed = {1}};
        return;
    case JSONTEXT_FALSE: *to = (struct jsontext_value){.type = VALUE_BOOL, .bytes = 1}; return;
    case JSONTEXT_NULL: *to = (struct jsontext_value){.type = VALUE_NULL}; return;
    }
}

void jsontext_value_copy(uint8_t *to, const struct jsontext_value *value)
{
    if (value->is_escaped)
        jsontext_unescape(to, value->bytes, value->text.data, value->text.size);
    else if (value->bytes > 0)
        memcpy(to, value->text.data != NULL ? value->text.data : value->fixed, value->bytes);
}

/* -------------------------------------------------------------------------------- writing */

void jsontext_put(struct jsontext_out *out, const void *bytes, size_t count)
{
    if (out->to != NULL && count > 0) memcpy(out->to + out->bytes, bytes, count);
    out->bytes += count;
}

void jsontext_put_char(struct jsontext_out *out, char character)
{
    if (out->to != NULL) out->to[out->bytes] = (uint8_t)character;
    out->bytes++;
}

static void put_escaped(struct jsontext_out *out, uint8_t byte)
{
    static const char names[] = "\"\\bfnrt";
    static const char means[] = "\"\\\b\f\n\r\t";
    static const char digits[] = "0123456789abcdef";
    const char *found = byte != 0 ? strchr(means, byte) : NULL;
    jsontext_put_char(out, '\\');
    if (found != NULL) {
        jsontext_put_char(out, names[found - means]);
        return;
    }
    jsontext_put(out, "u00", 3);
    jsontext_put_char(out, digits[byte >> 4]);
    jsontext_put_char(out, digits[byte & 15]);
}

void jsontext_put_string(struct jsontext_out *out, const void *text, size_t bytes)
{
    const uint8_t *at = text;
    const uint8_t *end = at + bytes;
    jsontext_put_char(out, '"');
    while (at < end) {
        const uint8_t *begin = at;
        at += plain_run(at, end);
        while (at < end && *at >= 0x20 && *at != '"' && *at != '\\') at++;
        jsontext_put(out, begin, (size_t)(at - begin));
        if (at < end) put_escaped(out, *at++);
    }
    jsontext_put_char(out, '"');
}

static void put_double(struct jsontext_out *out, double number)
{
    char text[32];
    int bytes = 0;
    if (!isfinite(number)) {
        jsontext_put(out, "null", 4);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        bytes = snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number) break;
    }
    char *point = strchr(text, *localeconv()->decimal_point);
    if (point != NULL) *point = '.';
    jsontext_put(out, text, (size_t)bytes);
    /* Without a point it would read back as a whole number. */
    if (point == NULL && strchr(text, 'e') == NULL) jsontext_put(out, ".0", 2);
}

static void put_int64(struct jsontext_out *out, int64_t number)
{
    char text[24];
    jsontext_put(out, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)number));
}

static void put_hex(struct jsontext_out *out, const uint8_t *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    jsontext_put_char(out, '"');
    for (size_t i = 0; i < count; i++) {
        jsontext_put_char(out, digits[bytes[i] >> 4]);
        jsontext_put_char(out, digits[bytes[i] & 15]);
    }
    jsontext_put_char(out, '"');
}

void jsontext_put_value(struct jsontext_out *out, enum value_type type, const void *value,
                        size_t bytes)
{
    double number;
    int64_t whole;
    switch (type) {
    case VALUE_STRING: jsontext_put_string(out, value, bytes); return;
    case VALUE_DOUBLE:
        memcpy(&number, value, sizeof number);
        put_double(out, number);
        return;
    case VALUE_JSON: jsontext_put(out, value, bytes); return;
    case VALUE_BOOL:
        if (*(const uint8_t *)value != 0)
            jsontext_put(out, "true", 4);
        else
            jsontext_put(out, "false", 5);
        return;
    case VALUE_BYTES: put_hex(out, value, bytes); return;
    case VALUE_INT64:
        memcpy(&whole, value, sizeof whole);
        put_int64(out, whole);
        return;
    case VALUE_UNDEFINED:
    case VALUE_NULL:
    case VALUE_TYPES_COUNT: jsontext_put(out, "null", 4); return;
    }
}
