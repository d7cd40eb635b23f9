#include "bench/cpus.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/assert.h"
#include "base/bytes.h"

void cpus_plan_make(struct cpus_plan *plan, uint32_t clients, uint32_t server_threads)
{
    struct cpu_list allowed;
    cpus_allowed(&allowed);
    cpus_plan_for(plan, &allowed, clients, server_threads);
}

void cpus_plan_for(struct cpus_plan *plan, const struct cpu_list *allowed, uint32_t clients,
                   uint32_t server_threads)
{
    ASSERT(clients > 0);
    ASSERT(server_threads > 0);
    ASSERT(allowed->count > 0);
    *plan = (struct cpus_plan){.allowed = *allowed};
    uint32_t count = plan->allowed.count;
    plan->is_crowded = clients + server_threads > count;
    plan->is_shared = count == 1;
    if (plan->is_shared) {
        plan->clients_count = plan->servers_count = 1;
        return;
    }
    /* Too few: the servers get theirs first, but a client needs one too. */
    plan->servers_count = server_threads < count ? server_threads : count - 1;
    uint32_t rest = count - plan->servers_count;
    plan->clients_count = clients < rest ? clients : rest;
}

uint16_t cpus_of_client(const struct cpus_plan *plan, uint32_t client)
{
    return plan->allowed.cpus[client % plan->clients_count];
}

uint16_t cpus_of_server(const struct cpus_plan *plan, uint32_t thread)
{
    return plan->allowed.cpus[plan->allowed.count - 1 - thread % plan->servers_count];
}

static void append(char *text, size_t bytes, const char *more)
{
    size_t used = strlen(text);
    if (used + 1 < bytes) snprintf(text + used, bytes - used, "%s", more);
}

static void append_cpus(char *text, size_t bytes, const uint16_t *cpus, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char one[16];
        snprintf(one, sizeof one, "%s%u", i > 0 ? "," : " ", cpus[i]);
        append(text, bytes, one);
    }
}

const char *cpus_describe(const struct cpus_plan *plan, char text[CPUS_TEXT_BYTES])
{
    const uint16_t *cpus = plan->allowed.cpus;
    snprintf(text, CPUS_TEXT_BYTES, "clients on cpu");
    append_cpus(text, CPUS_TEXT_BYTES, cpus, plan->clients_count);
    append(text, CPUS_TEXT_BYTES, ", servers on cpu");
    append_cpus(text, CPUS_TEXT_BYTES, cpus + plan->allowed.count - plan->servers_count,
                plan->servers_count);
    if (plan->is_shared)
        append(
            text, CPUS_TEXT_BYTES,
            "; only one is allowed, so both sides share it and the figures are of half a machine");
    else if (plan->is_crowded)
        append(text, CPUS_TEXT_BYTES, "; there are more threads than cpus, so they take turns");
    return text;
}

/* The value behind "model name : " of the first processor. */
static void read_model(char *model, size_t bytes)
{
    char line[256];
    snprintf(model, bytes, "unknown cpu");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (file == NULL) return;
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "model name", 10) != 0) continue;
        const char *colon = strchr(line, ':');
        if (colon == NULL) continue;
        colon += 1 + strspn(colon + 1, " \t");
        snprintf(model, bytes, "%.*s", (int)strcspn(colon, "\n"), colon);
        break;
    }
    fclose(file);
}

const char *cpus_machine(char text[CPUS_TEXT_BYTES])
{
    char model[128];
    struct utsname system = {0};
    struct cpu_list allowed;
    read_model(model, sizeof model);
    uname(&system);
    cpus_allowed(&allowed);
    snprintf(text, CPUS_TEXT_BYTES, "%s, %u cpus, %s %s %s", model, allowed.count, system.sysname,
             system.release, system.machine);
    return text;
}
