#include "cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void table_put(struct table *table, const char *text)
{
    if (table->cells_count == table->cells_capacity) {
        size_t capacity = table->cells_capacity == 0 ? 64 : table->cells_capacity * 2;
        char **cells = realloc(table->cells, capacity * sizeof *cells);
        if (cells == NULL) abort();
        table->cells = cells;
        table->cells_capacity = capacity;
    }
    char *copy = strdup(text);
    if (copy == NULL) abort();
    table->cells[table->cells_count++] = copy;
}

void table_printf(struct table *table, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    table_put(table, text);
}

static bool is_left(const struct table *table, uint32_t column)
{
    return column < 32 && (table->left_columns >> column & 1) != 0;
}

void table_print(struct table *table, FILE *to, bool is_colored)
{
    size_t widths[TABLE_COLUMNS_MAX] = {0};
    uint32_t columns = table->columns_count;
    for (size_t i = 0; i < table->cells_count; i++) {
        size_t width = strlen(table->cells[i]);
        if (width > widths[i % columns]) widths[i % columns] = width;
    }
    for (size_t i = 0; i < table->cells_count; i++) {
        uint32_t column = (uint32_t)(i % columns);
        bool is_last = column + 1 == columns;
        bool is_bold = i < columns && is_colored;
        int width = (int)widths[column];
        if (is_bold) fputs("\033[1m", to);
        if (is_left(table, column))
            fprintf(to, "%-*s", is_last ? 0 : width, table->cells[i]);
        else
            fprintf(to, "%*s", width, table->cells[i]);
        if (is_bold) fputs("\033[0m", to);
        fputs(is_last ? "\n" : "  ", to);
        free(table->cells[i]);
    }
    free(table->cells);
    *table = (struct table){.columns_count = columns, .left_columns = table->left_columns};
}

const char *count_format(uint64_t count, char text[COUNT_TEXT_BYTES])
{
    char digits[24];
    size_t bytes = (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)count);
    char *at = text;
    for (size_t i = 0; i < bytes; i++) {
        if (i > 0 && (bytes - i) % 3 == 0) *at++ = ',';
        *at++ = digits[i];
    }
    *at = 0;
    return text;
}

const char *duration_format(uint64_t ms, char text[COUNT_TEXT_BYTES])
{
    unsigned long long s = ms / 1000;
    if (s < 60)
        snprintf(text, COUNT_TEXT_BYTES, "%llu s", s);
    else if (s < 3600)
        snprintf(text, COUNT_TEXT_BYTES, "%llu min %llu s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(text, COUNT_TEXT_BYTES, "%llu h %llu min", s / 3600, s / 60 % 60);
    else
        snprintf(text, COUNT_TEXT_BYTES, "%llu days %llu h", s / 86400, s / 3600 % 24);
    return text;
}
