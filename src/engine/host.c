/*
 * Stopping. A node must not let go of its shards while a thread looks at them, and a thread must
 * not wait for a lock in each call. So a thread says that it calls (`busy`, with a full barrier),
 * then looks whether the node has closed; the node closes (with a full barrier), then looks who
 * calls. One of the two sees the other: it is the wake-up protocol's proof again (mailbox.c).
 */
#include "engine/host.h"

#include <time.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "engine/driver.h"
#include "engine/host_state.h"
#include "engine/pull.h"
#include "net/io.h"

/* How often the thread that stops a node looks whether the others have left. */
#define LEAVE_POLL_NS (50 * NS_PER_US)

static _Thread_local struct host *first_here; /* of all nodes */
static pthread_key_t thread_end_key;
static pthread_once_t thread_end_once = PTHREAD_ONCE_INIT;
static bool thread_end_known;

/* ------------------------------------------------------------------------------ being in a call */

COLD int host_is_closed(void)
{
    return error_set(FERO_E_CLOSED, "the runtime is stopping");
}

int host_enter(struct host *host)
{
    exchange_full_u32(&host->busy, HOST_CALLS);
    if (LIKELY(load_acquire_u32(&host->hosts->closed) == 0 && !host->is_leaving)) return 0;
    host_exit(host);
    return host_is_closed();
}

void host_exit(struct host *host)
{
    /* A callback's call is made while its thread waits. */
    store_release_u32(&host->busy, host->is_in_turn ? HOST_WAITS : HOST_OUT);
}

void host_publish_now(struct host *host)
{
    const struct hosts *hosts = host->hosts;
    bool has_news = host->port.dirty != 0;
    uint64_t sleepers = port_publish(&host->port, hosts->mailboxes);
    if (host->drives) {
        if (has_news) driver_take(hosts->driver, host->port.index);
        return;
    }
    for (; sleepers != 0; sleepers &= sleepers - 1)
        io_wake(hosts->shards[__builtin_ctzll(sleepers)]->io, NULL);
}

void host_publish(struct host *host)
{
    if (!host->is_in_turn || host->drives) host_publish_now(host);
}

/* --------------------------------------------------------------------------- coming and leaving */

/* Handlers that answer later hear that nobody waits any more. */
static void tell_of_leaving(struct host *host)
{
    if (host_enter(host) < 0) return;
    for (uint32_t i = 0; i < host->flights_fresh; i++)
        if ((host->flights[i].generation & 1) != 0) host_tell_unwanted(host, &host->flights[i]);
    host_publish_now(host);
    host_exit(host);
}

/* The thread leaves the node; without `calls_back` nobody is told of what is on its way. */
static void leave(struct host *host, bool calls_back)
{
    struct hosts *hosts = host->hosts;
    struct host **link = &first_here;
    tell_of_leaving(host);
    feedings_close(host, NULL);
    host->is_leaving = true;
    host->is_in_turn = true;
    host_end_late(host, TIME_NEVER, FERO_E_CLOSED, calls_back);
    host->is_in_turn = false;
    host->is_leaving = false;
    pulls_leave(&host->queues, !calls_back);
    ops_leave(host->ops);
    host->ops = NULL;
    host->drain = NULL;
    host->is_starved = false;
    while (*link != host) link = &(*link)->next_here;
    *link = host->next_here;
    pthread_mutex_lock(&hosts->lock);
    host->is_taken = false;
    bool is_last = --hosts->users == 0;
    pthread_mutex_unlock(&hosts->lock);
    if (is_last) hosts->free(hosts);
}

/* The stack of the thread's own function is gone by now, so no callback of its may run. */
static void thread_ends(void *first)
{
    (void)first;
    while (first_here != NULL) leave(first_here, false);
}

static void make_thread_end_key(void)
{
    thread_end_known = pthread_key_create(&thread_end_key, thread_ends) == 0;
}

static struct host *host_make(struct hosts *hosts)
{
    uint32_t index = hosts->ports.fresh;
    struct host *host = memory_take(sizeof *host);
    if (host == NULL) return NULL;
    size_t flights_bytes = hosts->options->window_requests * sizeof *host->flights;
    host->hosts = hosts;
    host->due_ns = TIME_NEVER;
    host->spin_ns = hosts->spin_ns_max;
    host->flights = memory_reserve(flights_bytes, 0);
    if (host->flights == NULL) goto put_host;
    if (port_init(&host->port, index, hosts->options->shards_count, hosts->options->lane_bytes,
                  &hosts->gone) < 0)
        goto release_flights;
    hosts->hosts[index] = host;
    ports_add(&hosts->ports, &host->port);
    return host;

release_flights:
    memory_release(host->flights, flights_bytes);
put_host:
    memory_put(host);
    return NULL;
}

/* A port that no thread has, or a new one. Under the lock. NULL: `err` says why not. */
static struct host *find_free(struct hosts *hosts, int *err)
{
    uint32_t index = 0;
    if (load_acquire_u32(&hosts->closed) != 0) {
        *err = error_set(FERO_E_CLOSED, "the runtime has stopped");
        return NULL;
    }
    while (index < hosts->ports.fresh && hosts->hosts[index]->is_taken) index++;
    if (index < hosts->ports.fresh) return hosts->hosts[index];
    if (index == hosts->hosts_max) {
        *err = error_set(FERO_E_NOMEM,
                         "%u threads use this runtime already (threads.max): let one of them call "
                         "fero_thread_unregister",
                         hosts->hosts_max);
        return NULL;
    }
    struct host *host = host_make(hosts);
    if (host == NULL) *err = error_set(FERO_E_NOMEM, "no memory for the lanes of a thread");
    return host;
}

static NO_INLINE int come(struct hosts *hosts, struct host **out)
{
    int err = 0;
    pthread_once(&thread_end_once, make_thread_end_key);
    struct ops *ops = ops_make();
    if (ops == NULL || !thread_end_known || pthread_setspecific(thread_end_key, &first_here) != 0) {
        if (ops != NULL) ops_leave(ops);
        return error_set(FERO_E_NOMEM, "no memory to register a thread");
    }
    pthread_mutex_lock(&hosts->lock);
    struct host *host = find_free(hosts, &err);
    if (host != NULL) {
        host->is_taken = true;
        hosts->users++;
    }
    pthread_mutex_unlock(&hosts->lock);
    if (host == NULL) {
        ops_leave(ops);
        return err;
    }
    ops->host = host;
    host->ops = ops;
    host->drives = hosts->driver != NULL && driver_is_here(hosts->driver);
    host->next_here = first_here;
    first_here = host;
    *out = host;
    return 0;
}

struct host *host_find(const struct hosts *hosts)
{
    struct host *host = first_here;
    while (host != NULL && UNLIKELY(host->hosts != hosts)) host = host->next_here;
    return host;
}

int host_here(struct hosts *hosts, struct host **out)
{
    if (UNLIKELY(shard_running() != NULL))
        return error_set(FERO_E_INVAL, "a handler must not make requests by this function");
    *out = host_find(hosts);
    return LIKELY(*out != NULL) ? 0 : come(hosts, out);
}

int host_register(struct hosts *hosts)
{
    struct host *host = NULL;
    return host_here(hosts, &host);
}

int host_unregister(struct hosts *hosts)
{
    struct host *host = host_find(hosts);
    if (host == NULL) return error_set(FERO_E_NOTFOUND, "this thread is not registered");
    if (host->is_in_turn)
        return error_set(FERO_E_INVAL, "fero_thread_unregister cannot be called by a callback");
    leave(host, true);
    return 0;
}

/* ------------------------------------------------------------------------- the node and its end */

void hosts_init(struct hosts *hosts)
{
    pthread_mutex_init(&hosts->lock, NULL);
    hosts->users = 1;
}

void hosts_deinit(struct hosts *hosts)
{
    size_t flights_bytes = hosts->options->window_requests * sizeof(struct host_flight);
    for (uint32_t i = 0; i < hosts->ports.fresh; i++) {
        port_deinit(&hosts->hosts[i]->port);
        memory_release(hosts->hosts[i]->flights, flights_bytes);
        memory_put(hosts->hosts[i]);
    }
    pthread_mutex_destroy(&hosts->lock);
}

void hosts_share(struct hosts *hosts)
{
    pthread_mutex_lock(&hosts->lock);
    hosts->users++;
    pthread_mutex_unlock(&hosts->lock);
}

void hosts_unshare(struct hosts *hosts)
{
    pthread_mutex_lock(&hosts->lock);
    bool is_last = --hosts->users == 0;
    pthread_mutex_unlock(&hosts->lock);
    if (is_last) hosts->free(hosts);
}

static void wait_until_none(struct hosts *hosts, bool (*is_busy)(const struct host *host))
{
    struct timespec pause = {0, LEAVE_POLL_NS};
    const struct host *own = host_find(hosts);
    for (uint32_t i = 0; i < hosts->ports.fresh; i++)
        while (hosts->hosts[i] != own && is_busy(hosts->hosts[i])) nanosleep(&pause, NULL);
}

static bool is_calling(const struct host *host)
{
    return load_acquire_u32(&host->busy) == HOST_CALLS;
}

static bool is_in(const struct host *host)
{
    return load_acquire_u32(&host->busy) != HOST_OUT;
}

int hosts_close(struct hosts *hosts)
{
    const struct host *own = host_find(hosts);
    if (shard_running() != NULL || (own != NULL && own->is_in_turn))
        return error_set(FERO_E_INVAL, "fero_stop cannot be called by a callback or a handler");
    /* Nobody comes any more: the number of hosts stays. */
    pthread_mutex_lock(&hosts->lock);
    exchange_full_u32(&hosts->closed, 1);
    pthread_mutex_unlock(&hosts->lock);
    wait_until_none(hosts, is_calling);
    return 0;
}

void hosts_end(struct hosts *hosts)
{
    exchange_full_u32(&hosts->gone, 1);
    for (uint32_t i = 0; i < hosts->ports.fresh; i++) port_wake(&hosts->hosts[i]->port);
    wait_until_none(hosts, is_in);
}

void hosts_leave(struct hosts *hosts)
{
    struct host *own = host_find(hosts);
    if (own != NULL) {
        own->finished = 0;
        own->is_in_turn = true;
        for (uint32_t i = 0; i < own->port.shards_count; i++) host_take_mail(own, i);
        own->is_in_turn = false;
        leave(own, true);
    }
    pthread_mutex_lock(&hosts->lock);
    bool is_last = --hosts->users == 0;
    pthread_mutex_unlock(&hosts->lock);
    if (is_last) hosts->free(hosts);
}
