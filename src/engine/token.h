/*
 * The token that a node demands of whoever connects, and that a client shows: from the file that an
 * option names.
 */
#pragma once

#include "base/attr.h"
#include "base/secret.h"

/*
 * Reads it; `path` NULL is none. FERO_E_INVAL or FERO_E_NOMEM with fero_errmsg naming the file and
 * what to do. Give it back with secret_put.
 */
MUST_CHECK int token_read(const char *path, struct secret **out);
