/*
 * Points for the simulator (tests/sim), which compiles the files that have some a second time, with
 * FERO_SIM. Everywhere else they are constants, and leave nothing behind.
 *
 *   BUGGIFY("name")   true now and then: do what is allowed and rare, such as to find no room
 *   PLANTED("name")   true where the simulator is to find this bug, to show that it can
 */
#pragma once

#include <stdbool.h>

#ifdef FERO_SIM
bool buggify_fires(const char *point);
bool buggify_is_planted(const char *bug);
#define BUGGIFY(point) buggify_fires(point)
#define PLANTED(bug) buggify_is_planted(bug)
#else
#define BUGGIFY(point) false
#define PLANTED(bug) false
#endif
