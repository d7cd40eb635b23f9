/*
 * A thread takes its answers, and waits for them: it spins for a while, then sleeps as a shard does.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "engine/driver.h"
#include "engine/host_state.h"
#include "engine/pull.h"
#include "shard/mailbox.h"

/* Nobody tells a thread that a lane has room again: it looks this often. */
#define ROOM_POLL_NS (100 * NS_PER_US)
#define ROOM_POLL_FD_NS NS_PER_MS
#define SPIN_LOOKS 64
#define SPIN_NS_MIN (5 * NS_PER_US)

/* Whether who was told FERO_E_AGAIN would find room now. */
static bool has_room(struct host *host)
{
    struct port_lanes *lanes = &host->port.lanes[host->starved_by];
    const struct shard *shard = host->hosts->shards[host->starved_by];
    if (host->awaits_parts && load_acquire_u64(&shard->parts_taken) == host->parts_seen)
        return false;
    uint64_t used = lanes->in.producer.tail - load_acquire_u64(&lanes->in.consumed.head);
    return used <= host->hosts->options->lane_bytes / 2 &&
           lanes->promised_bytes <= host_lane_allows(host) / 2 &&
           host->flights_count <= host->hosts->options->window_requests / 2;
}

void host_has_room(struct host *host)
{
    host->is_starved = true;
}

void host_ring(struct host *host)
{
    if (host->drives)
        driver_ring(host->hosts->driver);
    else if (host->port.is_polled != 0)
        bell_ring(&host->port.bell);
}

static void tell_room(struct host *host)
{
    if (!host->is_starved || !has_room(host)) return;
    host->is_starved = false;
    host->finished++;
    if (host->drain != NULL) host->drain(host->drain_ud);
}

static bool something_ready(const struct host *host)
{
    return port_has_mail(&host->port) || host_is_gone(host);
}

/* Spins until something is ready or the time is over; true: ready. */
static bool spin(struct host *host, uint64_t until_ns)
{
    for (;;) {
        for (unsigned looks = 0; looks < SPIN_LOOKS; looks++) {
            if (something_ready(host)) return true;
            clock_pause();
        }
        if (clock_now_ns() >= until_ns) return false;
    }
}

static void wait_for_mail(struct host *host, uint64_t now_ns, uint64_t wait_ns)
{
    const struct shard_options *options = host->hosts->options;
    uint64_t until_ns = wait_ns == TIME_NEVER ? TIME_NEVER : now_ns + wait_ns;
    if (host->drives) {
        if (port_has_mail(&host->port)) wait_ns = 0;
        host->finished += (uint32_t)driver_turn(host->hosts->driver, wait_ns);
        return;
    }
    if (something_ready(host) || wait_ns == 0) return;
    if (options->idle == IDLE_BUSY_POLL) {
        spin(host, until_ns);
        return;
    }
    if (options->idle == IDLE_ADAPTIVE) {
        if (spin(host, min_u64(until_ns, now_ns + host->spin_ns))) {
            host->spin_ns = min_u64(host->spin_ns * 2, host->hosts->spin_ns_max);
            return;
        }
        host->spin_ns = max_u64(host->spin_ns / 2, min_u64(SPIN_NS_MIN, host->hosts->spin_ns_max));
    }
    if (!port_sleep(&host->port)) return;
    port_block(&host->port, wait_ns);
    port_awake(&host->port);
}

/* Takes answers, and waits up to `wait_ns` for the first one. Returns the time. */
static uint64_t turn(struct host *host, uint64_t now_ns, uint64_t wait_ns)
{
    if (host->due_ns != TIME_NEVER)
        wait_ns = min_u64(wait_ns, host->due_ns - min_u64(host->due_ns, now_ns));
    if (host->is_starved) wait_ns = min_u64(wait_ns, ROOM_POLL_NS);
    wait_for_mail(host, now_ns, wait_ns);
    bool gone = host_is_gone(host);
    for (uint32_t i = 0; i < host->port.shards_count; i++) host_take_mail(host, i);
    if (host->has_debts) host_pay(host);
    tell_room(host);
    now_ns = clock_now_ns();
    if (gone)
        host_end_late(host, TIME_NEVER, FERO_E_CLOSED, true);
    else if (now_ns >= host->due_ns)
        host_end_late(host, now_ns, FERO_E_TIMEOUT, true);
    host_publish_now(host);
    return now_ns;
}

/* The thread has control again, and may go and wait for something else. */
static void give_control(struct host *host)
{
    uint64_t due_ns = host->due_ns;
    if (host->drives) {
        bool is_idle = !host->is_starved && !pulls_are_ready(host->queues);
        driver_rest(host->hosts->driver, is_idle ? due_ns : 0);
        return;
    }
    if (host->port.is_polled == 0) return;
    bell_silence(&host->port.bell);
    if (host->is_starved) due_ns = min_u64(due_ns, clock_now_ns() + ROOM_POLL_FD_NS);
    if (due_ns != TIME_NEVER) bell_set(&host->port.bell, due_ns);
    if (!port_sleep(&host->port) || pulls_are_ready(host->queues)) bell_ring(&host->port.bell);
}

/* Turns until `is_done` or the time is over. */
static int turns(struct host *host, int64_t timeout_ms, bool (*is_done)(const void *context),
                 const void *context)
{
    uint64_t now_ns = clock_now_ns();
    uint64_t until_ns = TIME_NEVER;
    if (host->is_in_turn)
        return error_set(FERO_E_INVAL, "fero_run and fero_wait cannot be called by a callback");
    if (timeout_ms >= 0 && timeout_ms < (int64_t)(UINT64_MAX / 4 / NS_PER_MS))
        until_ns = now_ns + (uint64_t)timeout_ms * NS_PER_MS;
    host->finished = 0;
    exchange_full_u32(&host->busy, HOST_WAITS);
    if (host->port.is_polled != 0) port_awake(&host->port);
    host->is_in_turn = true;
    do {
        uint64_t wait_ns = until_ns == TIME_NEVER ? TIME_NEVER : until_ns - now_ns;
        now_ns = turn(host, now_ns, wait_ns);
    } while (!is_done(context) && now_ns < until_ns && !host_is_gone(host));
    host->is_in_turn = false;
    give_control(host);
    store_release_u32(&host->busy, HOST_OUT);
    return (int)host->finished;
}

static bool has_finished(const void *context)
{
    return ((const struct host *)context)->finished > 0;
}

int host_run(struct hosts *hosts, int64_t timeout_ms)
{
    struct host *host = NULL;
    int err = host_here(hosts, &host);
    if (err < 0) return err;
    ASSERT(host != NULL);
    int finished = turns(host, timeout_ms, has_finished, host);
    return finished == 0 && host_is_gone(host) ? host_is_closed() : finished;
}

static bool op_is_done(const void *context)
{
    return ((const struct fero_op *)context)->is_done;
}

int host_wait(fero_op *op, int64_t timeout_ms)
{
    struct host *host = op->ops->host;
    if (shard_running() != NULL)
        return error_set(FERO_E_INVAL, "fero_wait cannot be called by a handler");
    if (host_find(host->hosts) != host)
        return error_set(FERO_E_INVAL, "an operation belongs to the thread that made it");
    int finished = turns(host, timeout_ms, op_is_done, op);
    return finished < 0 ? finished : 0;
}

static int no_descriptor(int err)
{
    return error_set(FERO_E_SYS, "no descriptor to poll can be made: %s", strerror(-err));
}

int host_fd(struct hosts *hosts)
{
    struct host *host = NULL;
    int err = host_here(hosts, &host);
    if (err < 0) return err;
    ASSERT(host != NULL);
    if (host->port.is_polled != 0) return host->port.bell.fd;
    if (host->drives) {
        int fd = driver_fd(hosts->driver);
        if (fd < 0) return no_descriptor(fd);
        give_control(host);
        return fd;
    }
    err = bell_open(&host->port.bell);
    if (err < 0) return no_descriptor(err);
    host->port.is_polled = 1;
    give_control(host);
    return host->port.bell.fd;
}

int host_on_drain(struct hosts *hosts, fero_drain_fn drain, void *ud)
{
    struct host *host = NULL;
    int err = host_here(hosts, &host);
    if (err < 0) return err;
    ASSERT(host != NULL);
    host->drain = drain;
    host->drain_ud = ud;
    return 0;
}
