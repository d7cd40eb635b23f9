#include "engine/error.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/bytes.h"
#include "fero.h"

#define TEXT_BYTES_MAX 512

static _Thread_local char last_text[TEXT_BYTES_MAX];
static _Thread_local const char *last = "";
_Thread_local int error_last;

int error_set(int err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_text, sizeof last_text, format, arguments);
    va_end(arguments);
    last = last_text;
    error_last = err;
    return err;
}

int error_set_text(int err, const char *text)
{
    last = text;
    error_last = err;
    return err;
}

const char *error_text_of(int err)
{
    return err == error_last && last[0] != 0 ? last : fero_strerror(err);
}

const char *fero_errmsg(void)
{
    return last;
}

const char *fero_strerror(int err)
{
    static const struct {
        int err;
        const char *text;
    } texts[] = {{FERO_OK, "success"},
                 {FERO_E_INVAL, "invalid argument or option"},
                 {FERO_E_NOMEM, "out of memory"},
                 {FERO_E_AGAIN, "full: run the loop and try again"},
                 {FERO_E_TIMEOUT, "the deadline passed"},
                 {FERO_E_CLOSED, "stopped or stopping"},
                 {FERO_E_NOTCONN, "no node answers"},
                 {FERO_E_NOTFOUND, "not found"},
                 {FERO_E_EXISTS, "exists already, or the port is taken"},
                 {FERO_E_CONFLICT, "conflict"},
                 {FERO_E_NOTOWNER, "another shard or node owns the key"},
                 {FERO_E_TOOBIG, "too big"},
                 {FERO_E_DENIED, "denied"},
                 {FERO_E_TYPE, "wrong type"},
                 {FERO_E_SYS, "a system call failed"},
                 {FERO_E_PROTO, "protocol error"},
                 {FERO_E_NOREPLY, "the handler declined to reply"},
                 {FERO_E_UNSUPPORTED, "not supported"},
                 {FERO_E_STALE, "too old to tell whether it was applied"},
                 {FERO_E_STOPPED, "stopped by its caller"}};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        if (texts[i].err == err) return texts[i].text;
    return "unknown error";
}
