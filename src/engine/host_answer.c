/*
 * Threads of the program answer deferred requests: by mail to the shard that keeps the request.
 */
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "engine/host_state.h"
#include "shard/waiter.h"

static int push_answer(struct host *host, uint32_t shard, struct deferred_name name,
                       const struct deferred_answer *answer)
{
    bool is_block = answer->bytes > CROSSING_INLINE_BYTES_MAX;
    uint8_t *block = is_block ? memory_take(answer->bytes) : NULL;
    if (is_block && block == NULL) return error_set(FERO_E_NOMEM, "no memory for a reply");
    struct mail *mail =
        port_try_push(&host->port, shard, mail_answer_bytes(answer->bytes, is_block), MAIL_ANSWER);
    if (mail == NULL) {
        memory_put(block);
        return host_full(host, shard);
    }
    if (is_block) memcpy(block, answer->value, answer->bytes);
    mail_answer_write(mail, name, answer, block);
    return 0;
}

int host_answer(struct hosts *hosts, uint32_t shard, struct deferred_name name,
                const struct deferred_answer *answer)
{
    struct host *host = NULL;
    if (load_acquire_u32(&hosts->closed) != 0 && host_find(hosts) == NULL) return host_is_closed();
    int err = host_here(hosts, &host);
    if (err < 0) return err;
    ASSERT(host != NULL);
    if ((err = host_enter(host)) < 0) return err;
    err = push_answer(host, shard, name, answer);
    host_publish(host);
    host_exit(host);
    return err;
}
