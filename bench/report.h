/*
 * How figures are printed. The layout of the blocks is the original's, so that old and new results
 * can be compared line by line: numbers are cut, not rounded, after two digits, without zeros at the
 * end.
 */
#pragma once

#include <stdio.h>

#include "bench/crossing.h"
#include "bench/histogram.h"
#include "bench/latency.h"
#include "bench/speed.h"

#define REPORT_NUMBER_BYTES 40
/* 4814.669 is "4814.66", 0.3 is "0.3", 2 is "2". Returns `text`. */
const char *report_number(double number, char text[REPORT_NUMBER_BYTES]);

/* The block of one permutation: stable, connected, tacks, yacks, sacks. */
void report_block(FILE *to, const struct speed_result *result);
/* What else was found: the runs' range, both sides' CPU time, the limit, latencies, the check. */
void report_notes(FILE *to, const struct speed_result *result);
/* One JSON object in one line. */
void report_json(FILE *to, const struct speed_result *result);

/* Mean and percentiles in ms. */
void report_latency(FILE *to, const struct histogram *histogram);
void report_latency_json(FILE *to, const struct latency_result *result);

void report_crossing_json(FILE *to, const struct crossing_result *result);

/* 1234567 is "1.23M". Returns `text`. */
const char *report_rate(double per_s, char text[REPORT_NUMBER_BYTES]);
/* {"cpu":...}: the machine, as the members of a JSON object without its braces. */
void report_machine_json(FILE *to);
