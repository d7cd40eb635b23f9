/*
 * A table of texts on a terminal: columns as wide as what is in them, numbers to the right.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TABLE_COLUMNS_MAX 80

struct table {
    uint32_t columns_count;
    uint32_t left_columns; /* a bit for each of the first 32 that stands to the left */
    char **cells;          /* row after row */
    size_t cells_count;
    size_t cells_capacity;
};

/* One more cell; the row is full after `columns_count` of them. Copies `text`. */
void table_put(struct table *table, const char *text);
__attribute__((format(printf, 2, 3))) void table_printf(struct table *table, const char *format,
                                                        ...);
/* Prints it, the first row as its head, and frees it. */
void table_print(struct table *table, FILE *to, bool is_colored);

#define COUNT_TEXT_BYTES 40
/* "1,234,567". Returns `text`. */
const char *count_format(uint64_t count, char text[COUNT_TEXT_BYTES]);
/* "45 s", "3 h 12 min", "2 days 4 h". Returns `text`. */
const char *duration_format(uint64_t ms, char text[COUNT_TEXT_BYTES]);
