/*
 * One seed: what kind of node, of programs and of trouble there is, and the run from the start to
 * the end, when nothing breaks any more and everything must come to rest and be accounted for.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct scenario_options {
    uint64_t seed;
    const char *plant; /* a bug to be found; NULL: none */
    bool is_traced;
};

struct scenario_result {
    uint64_t hash; /* of everything that happened */
    uint64_t events;
    uint64_t asked;
    uint64_t applied;
    uint64_t outcomes[3];
    uint64_t resets;
    uint64_t virtual_ns;
};

/* Ends the process with 1 where something is found, as assertions do with a signal. */
struct scenario_result scenario_run(const struct scenario_options *options);
