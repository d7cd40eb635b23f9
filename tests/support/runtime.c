#include "tests/support/runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

fero_runtime_opts runtime_options(int shards)
{
    return (fero_runtime_opts){.size = sizeof(fero_runtime_opts),
                               .shards = shards,
                               .memory_max_bytes = (int64_t)256 << 20,
                               .lane_bytes = 128 << 10,
                               .idle = FERO_IDLE_SLEEP};
}

fero *runtime_start(const fero_runtime_opts *opts)
{
    fero *rt = NULL;
    int err = fero_start(opts, &rt);
    if (err == FERO_E_SYS) {
        print_message("%s\n", fero_errmsg());
        skip();
    }
    if (err < 0) fail_msg("%s", fero_errmsg());
    return rt;
}

fero_cache *runtime_open(fero *rt, const char *name, const fero_opts *opts)
{
    fero_cache *cache = NULL;
    if (fero_open(rt, name, opts, &cache) < 0) fail_msg("%s", fero_errmsg());
    return cache;
}

fero_val runtime_string(const char *text)
{
    return (fero_val){.type = FERO_T_STRING, .s = fero_str(text)};
}
