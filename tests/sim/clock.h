/*
 * The clocks of base/clock.h as the simulator has them: whoever is linked with --wrap of their names
 * reads the time of the running actor. A look costs a little, so that who spins comes to an end.
 */
#pragma once

#include <stdint.h>

uint64_t __wrap_clock_now_ns(void);
uint64_t __wrap_clock_wall_ms(void);
/* As a function of a client's seams; the context is not looked at. */
uint64_t clock_read(void *context);
