#include "cli/output.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool output_is_colored(FILE *to)
{
    const char *no_color = getenv("NO_COLOR");
    return isatty(fileno(to)) != 0 && (no_color == NULL || no_color[0] == 0);
}

/* The smallest code point that needs so many bytes: shorter ones must not be stretched. */
static const unsigned utf8_smallest[] = {0, 0, 0x80, 0x800, 0x10000};

size_t utf8_length(const unsigned char *text, size_t bytes)
{
    if (bytes == 0) return 0;
    if (text[0] < 0x80) return 1;
    size_t length = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
    if (text[0] < 0xc2 || text[0] > 0xf4 || length > bytes) return 0;
    unsigned point = text[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80) return 0;
        point = point << 6 | (text[i] & 0x3fu);
    }
    bool surrogate = point >= 0xd800 && point <= 0xdfff;
    return point < utf8_smallest[length] || surrogate || point > 0x10ffff ? 0 : length;
}

bool utf8_is_valid(const void *text, size_t bytes)
{
    const unsigned char *at = text;
    while (bytes > 0) {
        size_t length = utf8_length(at, bytes);
        if (length == 0) return false;
        at += length;
        bytes -= length;
    }
    return true;
}

static void put_ascii(FILE *to, unsigned char letter)
{
    switch (letter) {
    case '"': fputs("\\\"", to); return;
    case '\\': fputs("\\\\", to); return;
    case '\n': fputs("\\n", to); return;
    case '\r': fputs("\\r", to); return;
    case '\t': fputs("\\t", to); return;
    default: break;
    }
    if (letter < 0x20 || letter == 0x7f)
        fprintf(to, "\\u%04x", letter);
    else
        fputc(letter, to);
}

void json_put_string(FILE *to, const void *text, size_t bytes)
{
    const unsigned char *at = text;
    fputc('"', to);
    while (bytes > 0) {
        size_t length = utf8_length(at, bytes);
        if (length == 1)
            put_ascii(to, *at);
        else if (length == 0)
            fputs("\\ufffd", to);
        else
            fwrite(at, 1, length, to);
        if (length == 0) length = 1;
        at += length;
        bytes -= length;
    }
    fputc('"', to);
}

void double_put(FILE *to, double number)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number) break;
    }
    fputs(text, to);
}
