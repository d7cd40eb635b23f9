/*
 * The shard is the same as one with a thread of its own, and so is everything around it: requests of
 * the driving thread go through its port as those of other threads do. Only that nobody is woken for
 * them: the thread takes them out of the lane itself before its call returns, so that what it wrote is
 * there when it goes on. Replies come back through the lane and are told by the next fero_run.
 *
 * Polling. Before the loop sleeps, the shard announces it as in any sleep, so that other threads ring
 * the io (mailbox.c), and the io is armed, which makes its descriptor silent until there is something.
 * What was given to the kernel to do later is submitted before.
 */
#include "engine/driver.h"

#include "base/clock.h"
#include "net/io.h"
#include "shard/crossing.h"

/* Turns before the loop has control again, however much there is to do. */
#define TURNS_MAX 32

bool driver_is_here(const struct driver *driver)
{
    return pthread_equal(driver->thread, pthread_self()) != 0;
}

uint64_t driver_turn(struct driver *driver, uint64_t wait_ns)
{
    struct shard *shard = driver->shard;
    uint64_t done = 0;
    for (unsigned i = 0; i < TURNS_MAX && !driver->is_over; i++) {
        driver->is_over = !shard_turn_within(shard, done > 0 ? 0 : wait_ns);
        done += shard->work;
        wait_ns = 0;
        if (shard->work == 0 && !io_ready(shard->io)) break;
    }
    return done;
}

void driver_ring(struct driver *driver)
{
    if (driver->is_polled) io_arm(driver->shard->io, 0);
}

void driver_take(struct driver *driver, uint32_t port)
{
    shard_take_port(driver->shard, port);
    /* What follows from it, for others, is done when the loop runs. */
    driver_ring(driver);
}

void driver_rest(struct driver *driver, uint64_t due_ns)
{
    struct shard *shard = driver->shard;
    if (!driver->is_polled || driver->is_over) return;
    due_ns = min_u64(due_ns, shard_due_ns(shard));
    bool is_idle = shard->work == 0 && mailbox_sleep(shard->mailbox) && !io_ready(shard->io);
    io_arm(shard->io, is_idle ? due_ns : 0);
}

int driver_fd(struct driver *driver)
{
    int fd = io_fd(driver->shard->io);
    if (fd >= 0) driver->is_polled = true;
    return fd;
}
