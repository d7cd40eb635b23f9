/*
 * The validator is a loop over tokens with a stack of bits (object or array), not a recursion, so
 * that deep text costs a bound and not our stack. The look-ups below it search for the quoted key and
 * its colon: enough for the objects that a node writes about itself, where a string cannot hold an
 * unescaped quote.
 */
#include "cli/json.h"

#include <ctype.h>
#include <string.h>

#include "cli/output.h"

struct scanner {
    const unsigned char *at;
    const unsigned char *end;
};

static void skip_space(struct scanner *scanner)
{
    while (scanner->at < scanner->end && strchr(" \t\r\n", *scanner->at) != NULL &&
           *scanner->at != 0)
        scanner->at++;
}

static bool take_char(struct scanner *scanner, char wanted)
{
    if (scanner->at == scanner->end || *scanner->at != (unsigned char)wanted) return false;
    scanner->at++;
    return true;
}

static bool take_digits(struct scanner *scanner)
{
    const unsigned char *begin = scanner->at;
    while (scanner->at < scanner->end && isdigit(*scanner->at)) scanner->at++;
    return scanner->at > begin;
}

static bool take_number(struct scanner *scanner)
{
    take_char(scanner, '-');
    if (!take_char(scanner, '0') && !take_digits(scanner)) return false;
    if (take_char(scanner, '.') && !take_digits(scanner)) return false;
    if (take_char(scanner, 'e') || take_char(scanner, 'E')) {
        if (!take_char(scanner, '+')) take_char(scanner, '-');
        return take_digits(scanner);
    }
    return true;
}

static bool take_word(struct scanner *scanner, const char *word)
{
    size_t bytes = strlen(word);
    if ((size_t)(scanner->end - scanner->at) < bytes || memcmp(scanner->at, word, bytes) != 0)
        return false;
    scanner->at += bytes;
    return true;
}

static int hex_digit(unsigned char digit)
{
    if (isdigit(digit)) return digit - '0';
    digit = (unsigned char)tolower(digit);
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* Four hexadecimal digits, or -1. */
static int32_t take_hex4(struct scanner *scanner)
{
    if (scanner->end - scanner->at < 4) return -1;
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*scanner->at++);
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* Behind "\u": one code point, of two halves where it needs them; -1 where it is broken. */
static int32_t take_code_point(struct scanner *scanner)
{
    int32_t high = take_hex4(scanner);
    if (high < 0 || (high >= 0xdc00 && high <= 0xdfff)) return -1;
    if (high < 0xd800 || high > 0xdbff) return high;
    if (!take_char(scanner, '\\') || !take_char(scanner, 'u')) return -1;
    int32_t low = take_hex4(scanner);
    if (low < 0xdc00 || low > 0xdfff) return -1;
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

static size_t encode_utf8(int32_t point, char *to)
{
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    size_t length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        to[i] = (char)(0x80 | (point & 0x3f));
        point >>= 6;
    }
    to[0] = (char)((0xf00 >> length) | point);
    return length;
}

/* The letter behind a backslash; 0 where there is none such. */
static char unescaped(unsigned char letter)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    const char *found = letter != 0 ? strchr(from, letter) : NULL;
    return found != NULL ? to[found - from] : 0;
}

/* One string with its quotes; its bytes go to `to` unless that is NULL. -1: it is broken. */
static int64_t take_string(struct scanner *scanner, char *to)
{
    char scratch[4] = {0};
    int64_t written = 0;
    if (!take_char(scanner, '"')) return -1;
    while (scanner->at < scanner->end) {
        size_t length = 1;
        char *at = to != NULL ? to + written : scratch;
        if (take_char(scanner, '"')) return written;
        if (take_char(scanner, '\\')) {
            if (take_char(scanner, 'u')) {
                int32_t point = take_code_point(scanner);
                if (point < 0) return -1;
                length = encode_utf8(point, at);
            } else {
                if (scanner->at == scanner->end || unescaped(*scanner->at) == 0) return -1;
                *at = unescaped(*scanner->at++);
            }
        } else {
            if (*scanner->at < 0x20) return -1;
            length = utf8_length(scanner->at, (size_t)(scanner->end - scanner->at));
            if (length == 0) return -1;
            memcpy(at, scanner->at, length);
            scanner->at += length;
        }
        written += (int64_t)length;
    }
    return -1;
}

/* A value that holds no other; JSON_INVALID where it is none. */
static enum json_kind take_flat(struct scanner *scanner)
{
    if (scanner->at == scanner->end) return JSON_INVALID;
    if (*scanner->at == '"') return take_string(scanner, NULL) >= 0 ? JSON_STRING : JSON_INVALID;
    if (*scanner->at == '-' || isdigit(*scanner->at))
        return take_number(scanner) ? JSON_NUMBER : JSON_INVALID;
    if (take_word(scanner, "true") || take_word(scanner, "false") || take_word(scanner, "null"))
        return JSON_WORD;
    return JSON_INVALID;
}

/* The key of a member and its colon. */
static bool take_key(struct scanner *scanner)
{
    skip_space(scanner);
    if (take_string(scanner, NULL) < 0) return false;
    skip_space(scanner);
    return take_char(scanner, ':');
}

/* Which containers are open, a bit each: 1 for an object. */
struct nesting {
    uint64_t objects[JSON_DEPTH_MAX / 64];
    unsigned depth;
};

static bool is_in_object(const struct nesting *nesting)
{
    unsigned top = nesting->depth - 1;
    return (nesting->objects[top / 64] >> (top % 64) & 1) != 0;
}

static bool push(struct nesting *nesting, bool object)
{
    if (nesting->depth == JSON_DEPTH_MAX) return false;
    uint64_t bit = (uint64_t)1 << (nesting->depth % 64);
    uint64_t *word = &nesting->objects[nesting->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    nesting->depth++;
    return true;
}

/* Behind a value: closes what ends here, and steps to the next value if there is one. */
static bool take_behind_value(struct scanner *scanner, struct nesting *nesting)
{
    while (nesting->depth > 0) {
        bool object = is_in_object(nesting);
        skip_space(scanner);
        if (take_char(scanner, ',')) return !object || take_key(scanner);
        if (!take_char(scanner, object ? '}' : ']')) return false;
        nesting->depth--;
    }
    return true;
}

/* At a value: opens a container, whose first value follows, or takes a flat value or an empty one. */
static bool take_value(struct scanner *scanner, struct nesting *nesting, bool *is_whole)
{
    *is_whole = true;
    skip_space(scanner);
    bool object = scanner->at < scanner->end && *scanner->at == '{';
    if (!object && !(scanner->at < scanner->end && *scanner->at == '['))
        return take_flat(scanner) != JSON_INVALID;
    scanner->at++;
    skip_space(scanner);
    if (take_char(scanner, object ? '}' : ']')) return true;
    *is_whole = false;
    return push(nesting, object) && (!object || take_key(scanner));
}

static bool is_json(struct scanner *scanner)
{
    struct nesting nesting = {.depth = 0};
    do {
        bool is_whole;
        if (!take_value(scanner, &nesting, &is_whole)) return false;
        if (is_whole && !take_behind_value(scanner, &nesting)) return false;
        if (is_whole && nesting.depth == 0) break;
    } while (scanner->at < scanner->end);
    skip_space(scanner);
    return nesting.depth == 0 && scanner->at == scanner->end;
}

enum json_kind json_classify(const char *text, size_t bytes)
{
    struct scanner scanner = {(const unsigned char *)text, (const unsigned char *)text + bytes};
    skip_space(&scanner);
    if (scanner.at == scanner.end) return JSON_INVALID;
    unsigned char first = *scanner.at;
    if (!is_json(&scanner)) return JSON_INVALID;
    if (first == '{') return JSON_OBJECT;
    if (first == '[') return JSON_ARRAY;
    if (first == '"') return JSON_STRING;
    return first == '-' || isdigit(first) ? JSON_NUMBER : JSON_WORD;
}

size_t json_unescape(const char *text, size_t bytes, char *to)
{
    struct scanner scanner = {(const unsigned char *)text, (const unsigned char *)text + bytes};
    skip_space(&scanner);
    int64_t written = take_string(&scanner, to);
    return written < 0 ? 0 : (size_t)written;
}

/* ---------------------------------------------------------------------------------- look-ups */

/* Behind the next "key": from `at` on, or NULL. */
static const char *find_key(const char *at, const char *end, const char *key)
{
    size_t key_bytes = strlen(key);
    while ((at = memchr(at, '"', (size_t)(end - at))) != NULL) {
        at++;
        if ((size_t)(end - at) < key_bytes + 2) return NULL;
        if (memcmp(at, key, key_bytes) == 0 && at[key_bytes] == '"' && at[key_bytes + 1] == ':')
            return at + key_bytes + 2;
    }
    return NULL;
}

uint64_t json_sum(const char *text, size_t bytes, const char *key)
{
    uint64_t sum = 0;
    const char *end = text + bytes;
    for (const char *at = text; (at = find_key(at, end, key)) != NULL;) {
        uint64_t number = 0;
        for (; at < end && isdigit((unsigned char)*at); at++)
            number = number * 10 + (uint64_t)(*at - '0');
        sum += number;
    }
    return sum;
}

bool json_string(const char *text, size_t bytes, const char *key, char *to, size_t to_bytes)
{
    const char *end = text + bytes;
    const char *at = find_key(text, end, key);
    if (at == NULL || at == end || *at != '"') return false;
    at++;
    const char *quote = memchr(at, '"', (size_t)(end - at));
    if (quote == NULL || (size_t)(quote - at) >= to_bytes) return false;
    memcpy(to, at, (size_t)(quote - at));
    to[quote - at] = 0;
    return true;
}

/* ------------------------------------------------------------------------------- walking */

static const char *skip_space_at(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
    return at;
}

/* Behind the string that begins at `at`; `end` where it has none. */
static const char *skip_string(const char *at, const char *end)
{
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\') at++;
    return at < end ? at + 1 : end;
}

/* Behind the value that begins at `at`, however deep it is. */
static const char *skip_value(const char *at, const char *end)
{
    size_t depth = 0;
    while (at < end) {
        bool closes = *at == '}' || *at == ']';
        bool separates = strchr(",: \t\r\n", *at) != NULL;
        if (depth == 0 && (closes || separates)) return at;
        if (*at == '{' || *at == '[') depth++;
        if (closes) depth--;
        at = *at == '"' ? skip_string(at, end) : at + 1;
    }
    return end;
}

/* To the next item of `whole`, which begins with `open`; NULL at its end. */
static const char *next_item(struct json_span whole, const char *at, char open)
{
    const char *end = whole.at + whole.bytes;
    if (whole.bytes < 2 || *whole.at != open) return NULL;
    at = skip_space_at(at == NULL ? whole.at + 1 : at, end);
    if (at < end && *at == ',') at = skip_space_at(at + 1, end);
    return at < end && *at != '}' && *at != ']' ? at : NULL;
}

bool json_element_next(struct json_span array, const char **at, struct json_span *value)
{
    const char *begin = next_item(array, *at, '[');
    if (begin == NULL) return false;
    *at = skip_value(begin, array.at + array.bytes);
    *value = (struct json_span){begin, (size_t)(*at - begin)};
    return value->bytes > 0;
}

bool json_member_next(struct json_span object, const char **at, struct json_span *key,
                      struct json_span *value)
{
    const char *end = object.at + object.bytes;
    const char *begin = next_item(object, *at, '{');
    if (begin == NULL || *begin != '"') return false;
    const char *key_end = skip_string(begin, end);
    *key = (struct json_span){begin + 1, (size_t)(key_end - begin) - 2};
    begin = skip_space_at(key_end, end);
    if (begin == end || *begin != ':') return false;
    begin = skip_space_at(begin + 1, end);
    *at = skip_value(begin, end);
    *value = (struct json_span){begin, (size_t)(*at - begin)};
    return value->bytes > 0;
}

bool json_find(struct json_span object, const char *key, struct json_span *value)
{
    struct json_span found;
    size_t bytes = strlen(key);
    for (const char *at = NULL; json_member_next(object, &at, &found, value);)
        if (found.bytes == bytes && memcmp(found.at, key, bytes) == 0) return true;
    return false;
}

bool json_whole(struct json_span value, uint64_t *number)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < value.bytes; i++) {
        if (!isdigit((unsigned char)value.at[i])) return false;
        sum = sum * 10 + (uint64_t)(value.at[i] - '0');
    }
    *number = sum;
    return value.bytes > 0;
}
