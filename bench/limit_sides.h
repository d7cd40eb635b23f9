/*
 * The two sides of a run: which cpus they have, and their threads.
 */
#pragma once

#include "base/attr.h"
#include "bench/limit.h"
#include "bench/limit_wiring.h"

/* Fills in the cpus. Where both sides share one, a side that spins only keeps the other waiting. */
void limit_sides_choose_cpus(int *server_cpu, int *client_cpu, enum limit_wait *wait);
/* Runs both functions in a thread each, to their ends. */
MUST_CHECK int limit_sides_run(void *(*server)(void *), void *server_context,
                               void *(*client)(void *), void *client_context,
                               const struct limit_wiring *wiring);
/* What went wrong, of what each side says went wrong. */
int limit_sides_error(int server_err, int client_err);
