/*
 * What the files of a client's link need of each other:
 *
 *   client_link      its life: dialling, loss, sending, events and timers
 *   client_greeting  from a connection to a link that is up
 *   client_resend    what a lost connection left unanswered
 *   client_answer    what the node says
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "engine/client.h"

/* client_link.c */
/* Closes the connection; the link is down when the io has let go of it. */
void client_link_close(struct client_link *link);
/* Gives the link up, with a line that says why. */
void client_link_fail(struct client_link *link, const char *format, ...) PRINTF_LIKE(2, 3);
/* The peer broke the protocol: nobody may hope that another try helps. Returns -EPROTO. */
int client_link_broke(struct client_link *link, const char *text, uint64_t got, uint64_t limit);

/* client_greeting.c: the functions for frames return the frame's padded bytes or -errno. */
/* IO_CONNECTED came: greets the node. */
void client_link_connected(struct client_link *link);
int64_t client_link_welcome(struct client_link *link, const uint8_t *frame, size_t length);
int64_t client_link_opened(struct client_link *link, const uint8_t *frame, size_t length);
int64_t client_link_refuse(struct client_link *link, const uint8_t *frame, size_t length);

/* client_resend.c */
/* Adds what is newly counted at a mark to the caches it belongs to. */
void client_link_count(struct client_link *link, enum run_mark mark, uint64_t to);
/*
 * Makes the backlog begin anew. What the old connection left uncounted is counted as if all of it
 * had arrived, except what is sent again, which is counted when it really does. -ENOMEM.
 */
MUST_CHECK int client_link_resend(struct client_link *link);

/* client_answer.c */
/* A link_consume_fn: everything that a node sends. The loop is the fast path of replies. */
int64_t client_link_consume(void *context, uint8_t *data, size_t size);
