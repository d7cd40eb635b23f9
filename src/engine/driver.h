/*
 * A node without threads: its one shard does what it has to do when the program's own loop says so,
 * on the thread that started it. See driver.c.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "shard/shard.h"

struct driver {
    struct shard *shard;
    pthread_t thread;
    bool is_polled; /* the loop waits for driver_fd */
    bool is_over;   /* the shard has stopped */
};

/* Whether the calling thread is the one that drives. */
bool driver_is_here(const struct driver *driver);
/* Turns until there is nothing to do, but not for long; waits up to `wait_ns` if there is not at
   first. Returns how much was done. */
uint64_t driver_turn(struct driver *driver, uint64_t wait_ns);
/* Makes it run, if it is polled. */
void driver_ring(struct driver *driver);
/* Applies what the driving thread has given to its port, at once. */
void driver_take(struct driver *driver, uint32_t port);
/* The loop goes and waits for something else: driver_fd rings when the shard has something to do, or
   at `due_ns`. */
void driver_rest(struct driver *driver, uint64_t due_ns);
/* A descriptor to poll, or -errno. */
MUST_CHECK int driver_fd(struct driver *driver);
