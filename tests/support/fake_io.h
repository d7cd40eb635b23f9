/*
 * A struct io in memory, for tests: the test plays the kernel and the peers.
 *
 * What the code under test asks for is written down; what it hears is what the test injects, in the
 * order it was injected. Time is virtual: a wait without events moves the clock on by what it would
 * have slept, so nothing takes long and every run is the same.
 *
 * Where code blocks (a loop around io_wait), the test's script runs in `on_wait`, which is called at
 * the beginning of every wait and of every look at io_ready, and may inject what it likes.
 *
 * Memory of a received event is exactly as large as io.h promises (headroom, then the bytes) and is
 * freed at the next wait, so that the address sanitizer sees whoever keeps it. Handles that are used
 * after IO_CLOSED, sends while one is in flight, and waiting for ever with no script abort.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "net/io.h"

struct fake_io;

typedef void (*fake_io_fn)(struct fake_io *fake, void *context);

struct fake_io *fake_io_make(void);
/* What the code under test gets. It also frees it, by io_destroy; or else the test does. */
struct io *fake_io_base(struct fake_io *fake);
/* The other way round. */
struct fake_io *fake_io_of(struct io *io);

void fake_io_on_wait(struct fake_io *fake, fake_io_fn function, void *context);
/* Set when io_destroy frees it; borrowed until then. NULL: nobody wants to know. */
void fake_io_on_destroy(struct fake_io *fake, bool *destroyed);

/* ---- time ---------------------------------------------------------------------------------- */

/* Virtual nanoseconds. Has the shape of a clock function; `fake` is a struct fake_io. */
uint64_t fake_io_now_ns(void *fake);
void fake_io_advance_ns(struct fake_io *fake, uint64_t by_ns);
/* What each look at io_ready takes, so that spinning ends: 50 ns unless told otherwise. */
void fake_io_set_spin_ns(struct fake_io *fake, uint64_t spin_ns);

/* ---- polling --------------------------------------------------------------------------------- */

/* When the descriptor would be readable if nothing came: what io_arm was told; TIME_NEVER: never. */
uint64_t fake_io_due_ns(const struct fake_io *fake);
/* The next io_fd returns this negative errno; once. */
void fake_io_fail_fd(struct fake_io *fake, int err);

/* ---- connections that the code under test dials --------------------------------------------- */

/* Attempts so far, answered or not. */
unsigned fake_io_connects_count(const struct fake_io *fake);
/* The handle and the address of the n-th attempt. */
uint32_t fake_io_connect_conn(const struct fake_io *fake, unsigned n);
struct address fake_io_connect_address(const struct fake_io *fake, unsigned n);
/* Whether that attempt has neither been answered nor closed. */
bool fake_io_connect_waits(const struct fake_io *fake, unsigned n);
/* IO_CONNECTED. */
void fake_io_connected(struct fake_io *fake, uint32_t conn);
/* IO_CLOSED with `err`, a negative errno. */
void fake_io_refused(struct fake_io *fake, uint32_t conn, int err);
/* The next io_connect returns this negative errno itself; once. */
void fake_io_fail_connect(struct fake_io *fake, int err);

/* ---- connections that peers make to the code under test -------------------------------------- */

/* IO_ACCEPTED from `peer`; it listens, or this aborts. Returns the handle. */
uint32_t fake_io_dial(struct fake_io *fake, const struct address *peer);
bool fake_io_is_listening(const struct fake_io *fake);

/* How many connections were adopted, and the handle of the last one. */
unsigned fake_io_adopts_count(const struct fake_io *fake, uint32_t *conn);
/* The next io_adopt or io_detach returns this negative errno; once. */
void fake_io_fail_handing(struct fake_io *fake, int err);

/* ---- on any connection ------------------------------------------------------------------------ */

/* Is up: neither connecting nor closed by anybody. */
bool fake_io_is_up(const struct fake_io *fake, uint32_t conn);
/* io_pause was called (or the connection paused by itself) and io_resume was not. */
bool fake_io_is_paused(const struct fake_io *fake, uint32_t conn);
/* io_close was called; its IO_CLOSED may not be delivered yet. */
bool fake_io_is_closing(const struct fake_io *fake, uint32_t conn);

/*
 * The peer sends. What is sent before the next wait comes as one IO_RECEIVED, or as several of at
 * most `segment` bytes (fake_io_segment), one a wait.
 */
void fake_io_receive(struct fake_io *fake, uint32_t conn, const void *data, size_t size);
/* Cuts what is received from now on; 0: not at all. */
void fake_io_segment(struct fake_io *fake, size_t bytes);
/* The peer sends no more, but reads on: IO_EOF behind what it has sent. */
void fake_io_end(struct fake_io *fake, uint32_t conn);
/* The peer goes: IO_CLOSED with 0 or a negative errno, behind what it has sent. */
void fake_io_hang_up(struct fake_io *fake, uint32_t conn, int result);

/*
 * What was sent and not yet consumed by the test, of a connection that has ended too, until its
 * handle's place is taken again. Valid until the next call with this fake.
 */
const uint8_t *fake_io_sent(const struct fake_io *fake, uint32_t conn, size_t *size);
void fake_io_consume(struct fake_io *fake, uint32_t conn, size_t bytes);
/* While held, a send stays in flight: the bytes are not read, IO_SENT does not come. */
void fake_io_hold_sends(struct fake_io *fake, uint32_t conn, bool hold);
/* For measuring: forgets what is sent instead of keeping it. */
void fake_io_discard_sent(struct fake_io *fake, bool discard);

/* ---- datagrams ---------------------------------------------------------------------------------- */

/* IO_DATAGRAM on the UDP socket `conn`. */
void fake_io_datagram(struct fake_io *fake, uint32_t conn, const struct address *from,
                      const void *data, size_t size);
unsigned fake_io_datagrams_count(const struct fake_io *fake);
/* The n-th datagram sent. */
struct io_datagram fake_io_datagram_sent(const struct fake_io *fake, unsigned n);
