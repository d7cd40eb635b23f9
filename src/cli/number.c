#include "cli/number.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int number_parse(const char *text, int64_t *number)
{
    if (!isdigit((unsigned char)text[0]) && text[0] != '-' && text[0] != '+') return -EINVAL;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != 0) return -EINVAL;
    if (errno == ERANGE) return -ERANGE;
    *number = value;
    return 0;
}

/* How far to shift for a unit, or -EINVAL: "", "B", "k", "kB", "KiB", ... */
static int unit_shift(const char *unit)
{
    static const char letters[] = "kmgt";
    if (unit[0] == 0 || strcasecmp(unit, "b") == 0) return 0;
    const char *letter = strchr(letters, tolower((unsigned char)unit[0]));
    if (letter == NULL) return -EINVAL;
    unit++;
    if (unit[0] != 0 && strcasecmp(unit, "b") != 0 && strcasecmp(unit, "ib") != 0) return -EINVAL;
    return 10 * (int)(letter - letters + 1);
}

int size_parse(const char *text, int64_t *bytes, bool *has_unit)
{
    if (!isdigit((unsigned char)text[0])) return -EINVAL;
    char *end;
    errno = 0;
    unsigned long long whole = strtoull(text, &end, 10);
    if (errno == ERANGE || whole > (unsigned long long)INT64_MAX) return -ERANGE;
    /* Three digits behind the point are enough of "1.5G". */
    unsigned thousandths = 0;
    if (*end == '.') {
        end++;
        if (!isdigit((unsigned char)*end)) return -EINVAL;
        for (unsigned weight = 100; isdigit((unsigned char)*end); end++, weight /= 10)
            thousandths += weight * (unsigned)(*end - '0');
    }
    int shift = unit_shift(end);
    if (shift < 0) return -EINVAL;
    if (shift == 0 && thousandths != 0) return -EINVAL;
    if (whole > ((unsigned long long)INT64_MAX >> shift) - 1) return -ERANGE;
    *bytes = (int64_t)((whole << shift) + (((unsigned long long)thousandths << shift) / 1000));
    *has_unit = *end != 0;
    return 0;
}

const char *size_format(uint64_t bytes, char text[SIZE_TEXT_BYTES])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        snprintf(text, SIZE_TEXT_BYTES, "%llu bytes", (unsigned long long)bytes);
        return text;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    /* What would be printed as 1024.0 is one of the next unit. */
    while (value >= 1023.95 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    const char *format = value == (double)(uint64_t)value ? "%.0f %s" : "%.1f %s";
    snprintf(text, SIZE_TEXT_BYTES, format, value, units[unit]);
    return text;
}
