/*
 * What fero promises of its speed, and whether a measurement keeps it. A promise is a ratio, because
 * machines differ: our rate is at least so much of the machine's limit, our latency at most so many
 * times the bare one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define PROMISE_TEXT_BYTES 48

enum promise_kind { PROMISE_RATE, PROMISE_LATENCY, PROMISE_COST };
enum promise_verdict { PROMISE_NONE, PROMISE_MET, PROMISE_MISSED, PROMISE_UNVERIFIED };

struct promise {
    char what[PROMISE_TEXT_BYTES];
    enum promise_kind kind;
    double ours; /* records a second, microseconds, or ns a message */
    double limit;
    double ours_min; /* of several runs; 0: unknown */
    double ours_max;
    double server_ns_per_msg; /* 0: unknown */
    double client_ns_per_msg;
    double target;     /* of ours / limit: at least for rates, at most for others; 0: none */
    double per_s;      /* rates: at least this too ... */
    double if_limit_s; /* ... where the limit reaches this; 0: no such promise */
    bool is_verified;
};

/* 0 where there is no limit. */
double promise_ratio(const struct promise *promise);
enum promise_verdict promise_judge(const struct promise *promise);
/* "met", "missed", "NOT VERIFIED" or "". */
const char *promise_verdict_text(enum promise_verdict verdict);
/* ">= 0.50 and 8M/s", "<= 1.30"; empty where nothing is promised. Returns `text`. */
const char *promise_target_text(const struct promise *promise, char text[PROMISE_TEXT_BYTES]);
/* "9.21M/s", "8.4 us", "81.2 ns". Returns `text`. */
const char *promise_figure_text(const struct promise *promise, double figure,
                                char text[PROMISE_TEXT_BYTES]);

void promise_put_table(FILE *to, const struct promise *promises, uint32_t count);
/* An array. */
void promise_put_json(FILE *to, const struct promise *promises, uint32_t count);
