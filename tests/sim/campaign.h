/*
 * Many seeds, each in a process of its own, so that a failed assertion is a finding like any other.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tests/sim/scenario.h"

enum verdict {
    VERDICT_CLEAN,
    VERDICT_FOUND,   /* a checker spoke */
    VERDICT_BROKEN,  /* it ended by a signal: an assertion, or a sanitizer */
    VERDICT_TOO_LONG /* of the machine's time */
};

/* Runs one seed; its report goes to this process' stderr, unless `is_quiet`. */
enum verdict campaign_run_one(const struct scenario_options *options, bool is_quiet,
                              struct scenario_result *result);

struct campaign {
    uint64_t seed_first;
    uint64_t seeds_count; /* 0: no end of their own */
    uint64_t seconds_max; /* 0: no limit */
    const char *plant;
    unsigned workers;   /* processes at the same time */
    bool is_quiet;      /* findings are not reported */
    bool ends_at_first; /* finding */
    bool has_progress;  /* a line that is written over, on a terminal */
    unsigned twice;     /* each so many-th seed is run again, and must be the same; 0: none */
};

struct campaign_result {
    uint64_t seeds; /* that were run to their end */
    uint64_t clean;
    uint64_t found;
    uint64_t first_found; /* the lowest seed with a finding */
    uint64_t different;   /* that were not the same again */
    uint64_t first_different;
    uint64_t asked;
    uint64_t applied;
    uint64_t events;
    uint64_t outcomes[3];
    uint64_t resets;
    uint64_t virtual_ns;
    double seconds;
};

void campaign_run(const struct campaign *campaign, struct campaign_result *result);
