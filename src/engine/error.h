/*
 * The text of the calling thread's last failure, for fero_errmsg.
 */
#pragma once

#include "base/attr.h"

/* Remembers one line and returns `err` (a FERO_E_...), so that it can stand in a return. */
int error_set(int err, const char *format, ...) PRINTF_LIKE(2, 3);
/* The same for a text that lives for ever: costs no formatting. */
int error_set_text(int err, const char *text);
/* From now on until the next failure there was none, for error_text_of. */
void error_forget(void);
/* The text of the last failure if it was `err`, else what that means. */
const char *error_text_of(int err);
