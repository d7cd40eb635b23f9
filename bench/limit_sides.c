#include "bench/limit_sides.h"

#include <errno.h>
#include <pthread.h>

#include "base/cpus.h"

void limit_sides_choose_cpus(int *server_cpu, int *client_cpu, enum limit_wait *wait)
{
    struct cpu_list allowed;
    cpus_allowed(&allowed);
    for (uint32_t i = 0; i < allowed.count && *client_cpu < 0; i++) {
        if (allowed.cpus[i] != *server_cpu) *client_cpu = allowed.cpus[i];
    }
    for (uint32_t i = 0; i < allowed.count && *server_cpu < 0; i++) {
        if (allowed.cpus[i] != *client_cpu) *server_cpu = allowed.cpus[i];
    }
    if (*client_cpu < 0) *client_cpu = *server_cpu;
    if (*server_cpu < 0) *server_cpu = *client_cpu;
    if (*server_cpu == *client_cpu) *wait = LIMIT_WAIT_BLOCK;
}

int limit_sides_run(void *(*server)(void *), void *server_context, void *(*client)(void *),
                    void *client_context, const struct limit_wiring *wiring)
{
    pthread_t threads[2];
    int err = -pthread_create(&threads[0], NULL, server, server_context);
    if (err < 0) return err;
    err = -pthread_create(&threads[1], NULL, client, client_context);
    if (err < 0) limit_hang_up(wiring->client_fds, wiring->count);
    pthread_join(threads[0], NULL);
    if (err == 0) pthread_join(threads[1], NULL);
    return err;
}

/* A hang-up is the consequence of what the other side found. */
int limit_sides_error(int server_err, int client_err)
{
    if (server_err == 0) return client_err;
    if (client_err == 0) return server_err;
    return server_err == -EPIPE || server_err == -ECONNRESET ? client_err : server_err;
}
