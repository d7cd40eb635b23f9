/*
 * A request of a thread of the program goes to the owner of its key as a frame in the thread's lane
 * there, as one of another shard would, and its answer comes back in the lane of the opposite
 * direction. So shards know nothing of who asks, and nothing is shared but the lanes.
 *
 * A request is pushed only if its answer is sure to find room: the thread counts the bytes that are
 * promised of each lane. Requests are published at once, by themselves; those that callbacks make,
 * together. Requests are never sent again, so they need no session and are not remembered.
 */
#include "base/assert.h"
#include "base/clock.h"
#include "base/memory.h"
#include "engine/host_state.h"
#include "engine/pull.h"
#include "ring/slot.h"

int host_full(struct host *host, uint32_t shard)
{
    host->is_starved = true;
    host->awaits_parts = false;
    host->starved_by = shard;
    return error_set_text(FERO_E_AGAIN,
                          "the lane or the window is full: call fero_run, then try again");
}

/* The shard that a request goes to; one without a key goes to each in turn. */
static uint32_t choose_shard(struct host *host, struct message *message)
{
    const struct hosts *hosts = host->hosts;
    if (hosts->options->shards_count == 1) return 0;
    if (message->key.len == 0) return host->next_shard++ % hosts->options->shards_count;
    message->slot = slot_of_key(message->key.ptr, message->key.len);
    return hosts->slot_owner[message->slot];
}

/* Writes the head of a request's mail, and returns where its frame goes; NULL: there is no room. */
static uint8_t *push(struct host *host, uint32_t shard, uint16_t promise, uint8_t *block,
                     size_t padded, struct mail_request **out)
{
    bool is_block = block != NULL;
    size_t body = is_block ? sizeof(struct mail_block) : padded;
    struct mail *mail = port_try_push(&host->port, shard, sizeof(struct mail_request) + body,
                                      is_block ? MAIL_REQUEST_BLOCK : MAIL_REQUEST);
    if (mail == NULL) return NULL;
    struct mail_request *head = (struct mail_request *)mail;
    *out = head;
    head->mail.small = promise;
    head->caller = 0;
    head->generation = 0;
    head->claim = (struct session_claim){0};
    head->seq = ++host->seq;
    head->deadline_ns = 0;
    if (!is_block) return (uint8_t *)(head + 1);
    *(struct mail_block *)(head + 1) = (struct mail_block){block, padded};
    return block;
}

/* An operation for the request; one that nobody will answer is done. */
static int take_op(struct host *host, bool waits, fero_op **op)
{
    *op = ops_take(host->ops);
    if (*op == NULL)
        return error_set(FERO_E_NOMEM, "no memory for an operation, or over %d are not freed",
                         OPS_BLOCK_COUNT * OPS_BLOCKS_MAX);
    if (!waits) op_finish(*op, &(fero_result){.outcome = FERO_OUTCOME_OK});
    return 0;
}

static void start_flight(struct host *host, struct host_flight *flight, uint32_t shard,
                         const struct wish *wish, struct mail_request *head, const fero_op *op)
{
    uint64_t now_ns = clock_now_ns();
    int64_t timeout_ms = wish->timeout_ms > 0 ? wish->timeout_ms : TIMEOUT_MS_DEFAULT;
    flight->done = wish->done;
    flight->ud = wish->ud;
    flight->seq = head->seq;
    flight->shard = shard;
    flight->deferred = (struct deferred_name){0};
    flight->owed_bytes = 0;
    flight->is_stream = wish->is_stream;
    flight->is_stopped = false;
    flight->timeout_ns = (uint64_t)timeout_ms * NS_PER_MS;
    flight->deadline_ns = now_ns + flight->timeout_ns;
    flight->op = op != NULL ? op->number : 0;
    host->due_ns = min_u64(host->due_ns, flight->deadline_ns);
    head->caller = (uint32_t)(flight - host->flights);
    head->generation = flight->generation;
    if (wish->deadline_ms > 0) head->deadline_ns = now_ns + wish->deadline_ms * NS_PER_MS;
}

static int give(struct host *host, uint32_t cache, struct message *message, const struct wish *wish,
                fero_op **op)
{
    uint32_t shard = choose_shard(host, message);
    struct port_lanes *lanes = &host->port.lanes[shard];
    size_t length = sizeof(struct frame_request) + message->extensions.size + message->key.len +
                    message->value.size;
    size_t padded = round_up_8(length);
    bool waits = wish->want == FERO_REPLY;
    uint16_t promise = crossing_promise(message->type, (uint8_t)wish->want);
    struct host_flight *flight = NULL;
    uint8_t *block = NULL;
    int err;
    if (length > host->hosts->options->frame_bytes_max)
        return error_set(FERO_E_TOOBIG, "a request of %zu bytes is over the node's limit of %zu",
                         length, host->hosts->options->frame_bytes_max);
    if (lanes->promised_bytes + promise_mail_bytes(promise) > host_lane_allows(host))
        return host_full(host, shard);
    if (waits && (flight = host_flight_take(host)) == NULL) return host_full(host, shard);
    if (op != NULL && (err = take_op(host, waits, op)) < 0) goto put_flight;
    if (padded > CROSSING_INLINE_BYTES_MAX && (block = memory_take(padded)) == NULL) {
        err = error_set(FERO_E_NOMEM, "no memory for a request of %zu bytes", length);
        goto put_op;
    }
    struct mail_request *head;
    uint8_t *to = push(host, shard, promise, block, padded, &head);
    if (to == NULL) {
        err = host_full(host, shard);
        goto put_block;
    }
    message_encode(to, message, (uint32_t)head->seq, (uint16_t)cache, wish->want, length, padded);
    if (waits) start_flight(host, flight, shard, wish, head, op != NULL ? *op : NULL);
    lanes->promised_bytes += promise_mail_bytes(promise);
    return 0;

put_block:
    memory_put(block);
put_op:
    if (op != NULL) {
        ops_put(*op);
        *op = NULL;
    }
put_flight:
    if (flight != NULL) host_flight_put(host, flight);
    return err;
}

int host_request(struct hosts *hosts, uint32_t cache, struct message *message,
                 const fero_wopts *opts, fero_op **op)
{
    struct host *host = NULL;
    struct wish wish = {0};
    uint8_t block[EXTENSIONS_BYTES_MAX];
    int err = host_here(hosts, &host);
    if (UNLIKELY(err < 0) || UNLIKELY((err = wish_read(&wish, opts)) < 0)) return err;
    ASSERT(host != NULL);
    /* Whoever waits without saying for what waits for the reply. */
    if (op != NULL && opts == NULL) wish.want = FERO_REPLY;
    if (message->verb.size > 0) {
        struct extensions extensions = {.present = 1u << EXT_VERB, .verb = message->verb};
        message->extensions = (struct bytes){block, extensions_encode(&extensions, block)};
    }
    struct pull_owner owner = {.host = host};
    if (wish.queue != NULL && (err = pull_begin(owner, &wish)) < 0) return err;
    err = host_enter(host);
    if (LIKELY(err == 0)) {
        err = give(host, cache, message, &wish, op);
        host_publish(host);
        host_exit(host);
    }
    if (UNLIKELY(err < 0) && wish.queue != NULL) pull_cancel(&wish);
    return err;
}
