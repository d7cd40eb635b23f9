/*
 * What the benches found, as charts (chart.h says what those look like). `bench` is for complaints:
 * "bench speed".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bench/latency.h"
#include "bench/promise.h"
#include "bench/speed.h"

/* Tried before the first run, so that nobody measures for minutes and then learns of a wrong path. */
bool draw_may_write(const char *bench, const char *path);

/* These write `path` anew; false after one line. */
bool draw_speed(const char *bench, const char *path, const struct speed_result *results,
                uint32_t count);
bool draw_promises(const char *bench, const char *path, const struct promise *promises,
                   uint32_t count, const struct cpus_plan *plan);
bool draw_latency(const char *bench, const char *path, const struct latency_result *result);
