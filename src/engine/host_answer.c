/*
 * Threads of the program answer deferred requests: by mail to the shard that keeps the request. A shard
 * that runs a handler's callback may do it for another shard's request, over its own lane.
 *
 * A thread cannot know what room there is for a part of a stream. So it looks how much of that stream
 * has been given and not gone home yet, by all threads; the shard counts that down (shard/parts.h).
 */
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "engine/host_state.h"
#include "shard/parts.h"
#include "shard/waiter.h"

/* Who gives: a thread with its port, or a shard. */
struct giver {
    struct host *host;     /* NULL: it is a shard */
    struct shard *running; /* NULL: it is a thread */
};

static int no_room(const struct giver *giver, uint32_t shard)
{
    if (giver->host != NULL) return host_full(giver->host, shard);
    return error_set_text(FERO_E_AGAIN, "the lane to the request's shard is full");
}

static struct mail *try_push(const struct giver *giver, uint32_t shard, size_t bytes)
{
    if (giver->host != NULL) return port_try_push(&giver->host->port, shard, bytes, MAIL_ANSWER);
    return crossing_try_push_late(giver->running, shard, bytes, MAIL_ANSWER);
}

static int push_answer(const struct giver *giver, uint32_t shard, struct deferred_name name,
                       const struct deferred_answer *answer)
{
    bool is_block = answer->bytes > CROSSING_INLINE_BYTES_MAX;
    uint8_t *block = is_block ? memory_take(answer->bytes) : NULL;
    if (is_block && block == NULL) return error_set(FERO_E_NOMEM, "no memory for a reply");
    struct mail *mail = try_push(giver, shard, mail_answer_bytes(answer->bytes, is_block));
    if (mail == NULL) {
        memory_put(block);
        return no_room(giver, shard);
    }
    if (is_block) memcpy(block, answer->value, answer->bytes);
    mail_answer_write(mail, name, answer, block);
    return 0;
}

/* Who says that he wants room looks again: the shard counts down, then looks who wants some. */
static bool has_room(struct given *given)
{
    if (load_acquire_u64(&given->bytes) < PARTS_BYTES_MAX) return true;
    exchange_full_u32(&given->wants_room, 1);
    return load_acquire_u64(&given->bytes) < PARTS_BYTES_MAX;
}

static int push_part(const struct giver *giver, const struct hosts *hosts, uint32_t shard,
                     struct deferred_name name, const struct deferred_answer *answer,
                     struct given *given)
{
    uint64_t bytes = mail_answer_given_bytes(answer->bytes);
    /* Looked up before the room is: what is taken behind it, is told. */
    uint64_t seen = load_acquire_u64(&hosts->shards[shard]->parts_taken);
    if (!has_room(given)) {
        if (giver->host != NULL) {
            host_full(giver->host, shard);
            giver->host->awaits_parts = true;
            giver->host->parts_seen = seen;
        }
        return error_set_text(FERO_E_AGAIN, "the caller has to take some of it first");
    }
    /* It may come home before push_answer returns. */
    add_u64(&given->bytes, bytes);
    int err = push_answer(giver, shard, name, answer);
    if (err < 0) add_u64(&given->bytes, -bytes);
    return err;
}

static int push(const struct giver *giver, const struct hosts *hosts, uint32_t shard,
                struct deferred_name name, const struct deferred_answer *answer,
                struct given *given)
{
    if (answer->is_part) return push_part(giver, hosts, shard, name, answer, given);
    return push_answer(giver, shard, name, answer);
}

int host_answer(struct hosts *hosts, uint32_t shard, struct deferred_name name,
                const struct deferred_answer *answer, struct given *given)
{
    struct giver giver = {.running = shard_running()};
    if (answer->bytes > hosts->options->value_bytes_max)
        return error_set(FERO_E_TOOBIG, "the reply is over value.max");
    if (giver.running != NULL) {
        if (giver.running->peers != hosts->shards)
            return error_set(FERO_E_INVAL, "a handler of another runtime cannot reply to it");
        return push(&giver, hosts, shard, name, answer, given);
    }
    if (load_acquire_u32(&hosts->closed) != 0 && host_find(hosts) == NULL) return host_is_closed();
    int err = host_here(hosts, &giver.host);
    if (err < 0) return err;
    ASSERT(giver.host != NULL);
    if ((err = host_enter(giver.host)) < 0) return err;
    err = push(&giver, hosts, shard, name, answer, given);
    host_publish(giver.host);
    host_exit(giver.host);
    return err;
}
