/*
 * Which processor does what in a bench: clients from the first allowed one up, servers from the last
 * one down, so that the two sides share none unless there are too few.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cpus.h"

#define CPUS_TEXT_BYTES 512

struct cpus_plan {
    struct cpu_list allowed;
    uint32_t clients_count; /* processors for clients, the first of `allowed` */
    uint32_t servers_count; /* processors for servers, the last of them */
    bool is_shared;         /* both sides on one processor */
    bool is_crowded;        /* more threads than processors */
};

/* For so many client threads and server threads (shards of all servers). */
void cpus_plan_make(struct cpus_plan *plan, uint32_t clients, uint32_t server_threads);
/* The same for given processors; at least one. */
void cpus_plan_for(struct cpus_plan *plan, const struct cpu_list *allowed, uint32_t clients,
                   uint32_t server_threads);
uint16_t cpus_of_client(const struct cpus_plan *plan, uint32_t client);
/* The processor of a server's thread, counted through all servers. */
uint16_t cpus_of_server(const struct cpus_plan *plan, uint32_t thread);
/* "clients on 0, servers on 1", and what is wrong with that. Returns `text`. */
const char *cpus_describe(const struct cpus_plan *plan, char text[CPUS_TEXT_BYTES]);

/* "AMD EPYC, 2 cpus, Linux 6.1.0": what a figure depends on. Returns `text`. */
const char *cpus_machine(char text[CPUS_TEXT_BYTES]);
