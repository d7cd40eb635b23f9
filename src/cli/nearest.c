#include "cli/nearest.h"

#include <ctype.h>
#include <string.h>

/* Half letters, so that a wrong capital is a smaller mistake than a wrong letter. */
#define LETTER 2u
#define CAPITAL 1u

static unsigned min_unsigned(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static unsigned change_cost(char a, char b)
{
    if (a == b) return 0;
    return tolower((unsigned char)a) == tolower((unsigned char)b) ? CAPITAL : LETTER;
}

/* Optimal string alignment (Levenshtein and swaps of neighbours), three rows at a time. */
unsigned nearest_distance(const char *a, const char *b)
{
    unsigned rows[3][NEAREST_BYTES_MAX + 1];
    size_t a_len = strnlen(a, NEAREST_BYTES_MAX);
    size_t b_len = strnlen(b, NEAREST_BYTES_MAX);
    for (size_t j = 0; j <= b_len; j++) rows[0][j] = (unsigned)j * LETTER;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *above = rows[(i - 1) % 3];
        const unsigned *above2 = rows[(i + 1) % 3];
        row[0] = (unsigned)i * LETTER;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned best = above[j - 1] + change_cost(a[i - 1], b[j - 1]);
            best = min_unsigned(best, min_unsigned(above[j], row[j - 1]) + LETTER);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = min_unsigned(best, above2[j - 2] + LETTER);
            row[j] = best;
        }
    }
    return rows[a_len % 3][b_len];
}

void nearest_offer(struct nearest *nearest, const char *name)
{
    unsigned distance = nearest_distance(nearest->wanted, name);
    /* "s" means something that begins with it rather than any name of one letter more. */
    size_t wanted_len = strlen(nearest->wanted);
    if (wanted_len > 0 && strncmp(nearest->wanted, name, wanted_len) == 0) distance = 1;
    if (nearest->best != NULL && distance >= nearest->distance) return;
    nearest->best = name;
    nearest->distance = distance;
}
