/*
 * The text of the calling thread's last failure, for fero_errmsg.
 */
#pragma once

#include "base/attr.h"

/* Remembers one line and returns `err` (a FERO_E_...), so that it can stand in a return. */
int error_set(int err, const char *format, ...) PRINTF_LIKE(2, 3);
/* The same for a text that lives for ever: costs no formatting. */
int error_set_text(int err, const char *text);
/* What the last failure was, 0: none since error_forget. Of the calling thread, as its text. */
extern _Thread_local int error_last __attribute__((tls_model("initial-exec")));
/* For error_text_of there was no failure before now. Called for each request of a handler. */
static inline void error_forget(void)
{
    error_last = 0;
}
/* The text of the last failure if it was `err`, else what that means. */
const char *error_text_of(int err);
