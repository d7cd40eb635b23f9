/*
 * A struct io of the simulator: what net/io.h promises, over a simulated network, for one actor. It
 * uses every freedom that the contract leaves: events in any order, few at a time, returning for
 * nothing, a descriptor that cannot be handed over just now.
 *
 * Memory of a received event is exactly as large as promised and freed at the next wait, so that the
 * address sanitizer sees whoever keeps it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "net/io.h"
#include "tests/sim/network.h"

struct sim_io;

/* io_destroy ends its use, sim_io_free frees it: events may speak of it until the world ends. */
struct sim_io *sim_io_make(struct network *network, struct actor *actor);
struct io *sim_io_base(struct sim_io *io);
void sim_io_free(struct sim_io *io);
/* Connections that were not freed yet. */
uint32_t sim_io_connections_count(const struct sim_io *io);
/* Breaks all its connections, as the end of its process does: the peers see them closed. */
void sim_io_kill(struct sim_io *io);

/* ---- for the network ---------------------------------------------------------------------- */

void sim_io_notify(struct sim_io *io);
/* Whether the attempt has not been given up. */
bool sim_io_wants(const struct sim_io *io, uint32_t conn);
void sim_io_dialled(struct sim_io *io, uint32_t conn, struct end *end);
void sim_io_connected(struct sim_io *io, uint32_t conn);
void sim_io_refused(struct sim_io *io, uint32_t conn, int error);
void sim_io_accept(struct sim_io *io, struct end *end);
void sim_io_sent(struct sim_io *io, uint32_t conn);
