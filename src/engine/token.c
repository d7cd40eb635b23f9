#include "engine/token.h"

#include <string.h>

#include "engine/error.h"
#include "fero.h"

int token_read(const char *path, struct secret **out)
{
    int err = 0;
    *out = NULL;
    if (path == NULL) return 0;
    switch (secret_read(path, out, &err)) {
    case SECRET_NO_FAULT: return 0;
    case SECRET_NO_MEMORY: return error_set(FERO_E_NOMEM, "no memory for a token");
    case SECRET_NOT_READABLE:
        return error_set(FERO_E_INVAL, "cannot read the token file \"%s\": %s", path,
                         strerror(-err));
    case SECRET_NO_FILE:
        return error_set(FERO_E_INVAL, "the token file \"%s\" is not a file", path);
    case SECRET_OPEN_TO_OTHERS:
        return error_set(FERO_E_INVAL,
                         "the token file \"%s\" is open to others than its owner: chmod 600 %s",
                         path, path);
    case SECRET_EMPTY:
        return error_set(FERO_E_INVAL,
                         "the token file \"%s\" is empty: openssl rand -hex 32 >%s makes a token",
                         path, path);
    case SECRET_TOO_LONG:
        return error_set(FERO_E_INVAL,
                         "the token file \"%s\" has more than %d bytes: openssl rand -hex 32 makes "
                         "a token of 64",
                         path, SECRET_BYTES_MAX);
    }
    return FERO_E_INVAL;
}
