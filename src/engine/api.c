/*
 * The public functions that concern both kinds of runtime: each asks the right one.
 */
#include "base/bytes.h"
#include "base/clock.h"
#include "engine/client.h"
#include "engine/error.h"
#include "engine/host.h"
#include "engine/runtime.h"
#include "engine/server.h"
#include "engine/stream.h"
#include "fero.h"

/* Longer waits are this long: ten years. */
#define DRAIN_MS_MAX ((uint64_t)10 * 366 * 24 * 3600 * 1000)

static enum runtime_kind kind_of(const void *runtime)
{
    return (enum runtime_kind)((const struct runtime_head *)runtime)->kind;
}

/* Copies what the caller's struct has, by its size, and leaves the rest 0: the default. */
static int take_opts(void *to, size_t to_bytes, const void *from, const char *name)
{
    memset(to, 0, to_bytes);
    if (from == NULL) return 0;
    size_t size;
    memcpy(&size, from, sizeof size);
    if (size < sizeof size)
        return error_set(FERO_E_INVAL, "%s.size is %zu: set it to sizeof the struct", name, size);
    memcpy(to, from, min_u64(size, to_bytes));
    return 0;
}

int fero_start(const fero_runtime_opts *opts, fero **out)
{
    fero_runtime_opts own;
    if (out == NULL) return error_set(FERO_E_INVAL, "fero_start needs a place for the runtime");
    int err = take_opts(&own, sizeof own, opts, "fero_runtime_opts");
    if (err < 0) return err;
    return own.client != 0 ? client_start(&own, (struct client **)out)
                           : server_start(&own, (struct server **)out);
}

int fero_stop(fero *rt, int64_t drain_ms)
{
    if (rt == NULL) return error_set(FERO_E_INVAL, "no runtime");
    if (drain_ms < 0 && drain_ms != FERO_OFF)
        return error_set(FERO_E_INVAL, "drain_ms is %lld", (long long)drain_ms);
    bool is_client = kind_of(rt) == RUNTIME_CLIENT;
    uint64_t drain_ns = is_client ? CLIENT_DRAIN_NS : SERVER_DRAIN_NS;
    if (drain_ms == FERO_OFF) drain_ns = 0;
    if (drain_ms > 0) drain_ns = min_u64((uint64_t)drain_ms, DRAIN_MS_MAX) * NS_PER_MS;
    return is_client ? client_stop((struct client *)rt, drain_ns)
                     : server_stop((struct server *)rt, drain_ns);
}

int fero_open(fero *rt, const char *name, const fero_opts *opts, fero_cache **out)
{
    fero_opts own;
    if (rt == NULL || out == NULL || (name == NULL && kind_of(rt) == RUNTIME_SERVER))
        return error_set(FERO_E_INVAL, "fero_open needs a runtime, a name and a place");
    int err = take_opts(&own, sizeof own, opts, "fero_opts");
    if (err < 0) return err;
    return kind_of(rt) == RUNTIME_CLIENT ? client_open((struct client *)rt, name, &own, out)
                                         : server_open((struct server *)rt, name, &own, out);
}

int fero_subscribe(fero_cache *cache, const fero_stream_opts *opts, fero_stream **out)
{
    fero_stream_opts own;
    if (cache == NULL || out == NULL)
        return error_set(FERO_E_INVAL, "fero_subscribe needs a cache and a place");
    if (kind_of(cache) != RUNTIME_CLIENT)
        return error_set(FERO_E_UNSUPPORTED, "subscriptions are made by clients");
    int err = take_opts(&own, sizeof own, opts, "fero_stream_opts");
    return err < 0 ? err : client_subscribe((struct client_cache *)cache, &own, out);
}

int64_t fero_info(fero *rt, char *buffer, size_t bytes)
{
    if (rt == NULL || buffer == NULL || bytes < 2)
        return error_set(FERO_E_INVAL, "fero_info needs a runtime and a buffer");
    if (kind_of(rt) == RUNTIME_SERVER) return server_info((struct server *)rt, buffer, bytes);
    return error_set(FERO_E_UNSUPPORTED, "a client has no info of its own: use fero_ask_info");
}

int64_t fero_errors(fero *rt, char *buffer, size_t bytes)
{
    if (rt == NULL || buffer == NULL)
        return error_set(FERO_E_INVAL, "fero_errors needs a runtime and a buffer");
    if (kind_of(rt) == RUNTIME_SERVER) return server_errors((struct server *)rt, buffer, bytes);
    return error_set(FERO_E_UNSUPPORTED, "a client has no errors of its own: use fero_ask_errors");
}

const char *fero_address(const fero *rt)
{
    return rt != NULL && kind_of(rt) == RUNTIME_SERVER ? server_address((const struct server *)rt)
                                                       : "";
}

int fero_run(fero *rt, int64_t timeout_ms)
{
    if (rt == NULL) return error_set(FERO_E_INVAL, "no runtime");
    return kind_of(rt) == RUNTIME_CLIENT ? client_run((struct client *)rt, timeout_ms)
                                         : host_run(server_hosts((struct server *)rt), timeout_ms);
}

int fero_fd(fero *rt)
{
    if (rt == NULL) return error_set(FERO_E_INVAL, "no runtime");
    return kind_of(rt) == RUNTIME_CLIENT ? client_fd((struct client *)rt)
                                         : host_fd(server_hosts((struct server *)rt));
}

int fero_on_drain(fero *rt, fero_drain_fn drain, void *ud)
{
    if (rt == NULL) return error_set(FERO_E_INVAL, "no runtime");
    if (kind_of(rt) == RUNTIME_SERVER)
        return host_on_drain(server_hosts((struct server *)rt), drain, ud);
    client_on_drain((struct client *)rt, drain, ud);
    return 0;
}

static int server_only(fero *rt, int (*function)(struct hosts *hosts))
{
    if (rt == NULL || kind_of(rt) == RUNTIME_CLIENT)
        return error_set(FERO_E_INVAL, "threads register with a server: a client is its thread's");
    return function(server_hosts((struct server *)rt));
}

int fero_thread_register(fero *rt)
{
    return server_only(rt, host_register);
}

int fero_thread_unregister(fero *rt)
{
    return server_only(rt, host_unregister);
}
