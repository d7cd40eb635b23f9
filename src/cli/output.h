/*
 * What goes to a terminal or into JSON.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Whether colours are welcome: a terminal, and no NO_COLOR. */
bool output_is_colored(FILE *to);
/* Writes `text` as a JSON string with its quotes. What is not UTF-8 becomes U+FFFD. */
void json_put_string(FILE *to, const void *text, size_t bytes);
/* The shortest decimal that reads back as the same double. */
void double_put(FILE *to, double number);
/* Length of the UTF-8 sequence at `text`, at most `bytes` long; 0 where it is none. */
size_t utf8_length(const unsigned char *text, size_t bytes);
bool utf8_is_valid(const void *text, size_t bytes);
