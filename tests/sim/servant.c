#include "tests/sim/servant.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "shard/deferred.h"
#include "shard/request.h"
#include "shard/shard.h"

#define LATER_NS_MAX (40 * NS_PER_MS)

/* Who serves which shard of the node; handlers are called with their shard only. */
static struct servant *servants[SHARDS_MAX];

void servant_init(struct servant *servant, struct world *world, struct shard *shard)
{
    *servant = (struct servant){.world = world, .shard = shard};
    servants[shard->index] = servant;
}

void servant_deinit(struct servant *servant)
{
    for (unsigned i = 0; i < SERVANT_PROMISES_MAX; i++)
        if (servant->promises[i].is_kept)
            world_fail(servant->world, "a handler keeps a request of a node that is gone");
}

static void on_due(const struct timer_call *call);

/* Without memory for a timer it is never answered, which may be, too. */
static void plan(struct promise *promise)
{
    struct servant *servant = promise->servant;
    const struct timer_call call = {.function = on_due, .context = promise};
    uint64_t after_ns = 1 + world_below(servant->world, LATER_NS_MAX);
    promise->timer = timers_add(&servant->shard->timers, servant->shard->now_ns + after_ns, &call);
}

/* A deferred_fn. */
static void on_news(void *context, enum deferred_news news, enum reply_error error)
{
    struct promise *promise = context;
    (void)error;
    ASSERT(promise->is_kept);
    if (news != DEFERRED_OVER) return;
    timers_cancel(&promise->servant->shard->timers, promise->timer);
    free(promise->value);
    *promise = (struct promise){0};
}

static int32_t serve(struct request_context *context, const void *verb)
{
    struct servant *servant = servants[context->shard->index];
    enum service service = (enum service)(uintptr_t)verb;
    const struct request *request = context->request;
    const uint8_t *value = request->store.body + request->store.key_len;
    size_t bytes = request->store.body_bytes - request->store.key_len;
    if (service == SERVICE_AT_ONCE) {
        request_reply(context, reply_code(OUTCOME_OK, ERROR_NONE),
                      (enum value_type)request->store.flags, value, bytes);
        return HANDLED_REPLIED;
    }
    struct promise *promise = servant->promises;
    while (promise < servant->promises + SERVANT_PROMISES_MAX && promise->is_kept) promise++;
    if (promise == servant->promises + SERVANT_PROMISES_MAX) return -ERROR_BUSY;
    const struct deferred_holder holder = {.notify = on_news, .context = promise};
    int err = deferred_open(context, &holder);
    if (err < 0) return err == -EBUSY ? -ERROR_BUSY : -ERROR_NO_MEMORY;
    *promise = (struct promise){.servant = servant,
                                .service = service,
                                .is_kept = true,
                                .name = {context->deferred.index, context->deferred.generation},
                                .value_type = request->store.flags & FRAME_VALUE_TYPE,
                                .value = malloc(bytes + 1),
                                .value_bytes = bytes};
    ASSERT(promise->value != NULL);
    memcpy(promise->value, value, bytes);
    if (service != SERVICE_NEVER) plan(promise);
    return HANDLED_DEFERRED;
}

/* One part, or the last word. */
static void answer(struct promise *promise)
{
    struct shard *shard = promise->servant->shard;
    struct deferred_name name = {promise->name[0], promise->name[1]};
    enum service service = promise->service;
    struct world *world = promise->servant->world;
    int64_t number = promise->parts;
    bool is_part = service == SERVICE_IN_PARTS && promise->parts < SERVICE_PARTS;
    struct deferred_answer answer = {.code = reply_code(OUTCOME_OK, ERROR_NONE),
                                     .type = (enum value_type)promise->value_type,
                                     .value = promise->value,
                                     .bytes = promise->value_bytes};
    if (is_part)
        answer = (struct deferred_answer){
            .is_part = true, .type = VALUE_INT64, .value = &number, .bytes = sizeof number};
    int err = deferred_reply(shard, name, &answer);
    if (err == -EMSGSIZE) world_fail(world, "a value that came cannot be replied");
    bool goes_on = is_part || err == -EAGAIN || err == -ENOMEM;
    if (err == 0 && is_part) promise->parts++;
    if (err != -ENOENT && goes_on && promise->is_kept) plan(promise);
    if (service != SERVICE_TWICE || err != 0) return;
    uint8_t again = 0;
    answer = (struct deferred_answer){
        .code = answer.code, .type = VALUE_BYTES, .value = &again, .bytes = 1};
    if (deferred_reply(shard, name, &answer) == 0)
        world_fail(world, "a request was replied to twice");
}

/* A timer's function. */
static void on_due(const struct timer_call *call)
{
    struct promise *promise = call->context;
    promise->timer = 0;
    answer(promise);
}

bool servant_is_idle(const struct servant *servant)
{
    for (unsigned i = 0; i < SERVANT_PROMISES_MAX; i++)
        if (servant->promises[i].is_kept) return false;
    return true;
}

#define VERB(number) (const void *)(uintptr_t)(number)
const struct cache_verb servant_verbs[SERVANT_VERBS_MAX] = {
    {(char *)(uintptr_t) "echo", serve, VERB(SERVICE_AT_ONCE)},
    {(char *)(uintptr_t) "late", serve, VERB(SERVICE_LATER)},
    {(char *)(uintptr_t) "twin", serve, VERB(SERVICE_TWICE)},
    {(char *)(uintptr_t) "mute", serve, VERB(SERVICE_NEVER)},
    {(char *)(uintptr_t) "part", serve, VERB(SERVICE_IN_PARTS)}};
const uint8_t servant_verbs_bytes[] = {
    FRAME_VERB_FIRST,     4, 'e', 'c', 'h', 'o', FRAME_VERB_FIRST + 1, 4, 'l', 'a', 't', 'e',
    FRAME_VERB_FIRST + 2, 4, 't', 'w', 'i', 'n', FRAME_VERB_FIRST + 3, 4, 'm', 'u', 't', 'e',
    FRAME_VERB_FIRST + 4, 4, 'p', 'a', 'r', 't'};
const size_t servant_verbs_bytes_count = sizeof servant_verbs_bytes;
