/*
 * The calls of include/fero.h that clients make for every request. What is written here is the fast
 * path: a request is checked, given a number and a place in the window, and encoded where it will
 * be sent from. Everything that is not so in each request is behind one of four comparisons: is the
 * link's credit used up, is the window full (or held, see client.c), has the cache no number on
 * this link, did the last request belong to another cache.
 */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "engine/client.h"
#include "engine/error.h"
#include "engine/host.h"
#include "engine/message.h"
#include "engine/pull.h"
#include "engine/server.h"

/* ---------------------------------------------------------------------------- the rare cases */

static COLD int key_is_bad(size_t bytes_max, size_t bytes)
{
    if (bytes == 0) return error_set(FERO_E_INVAL, "the key is empty");
    return error_set(FERO_E_TOOBIG, "a key of %zu bytes is over the node's limit of %zu", bytes,
                     bytes_max);
}

static COLD int verb_is_bad(size_t bytes)
{
    return error_set(FERO_E_INVAL, "a verb of %zu bytes, but it must have 1 to %d", bytes,
                     FRAME_NAME_BYTES_MAX);
}

static COLD int frame_is_bad(const struct client *client, size_t bytes)
{
    return error_set(FERO_E_TOOBIG, "a request of %zu bytes is over the node's limit of %u", bytes,
                     client->frame_bytes_max);
}

static COLD int link_is_down(struct client *client, const struct client_link *link)
{
    const char *reason = client->reason[0] != 0 ? client->reason : "not connected yet";
    return error_set(FERO_E_NOTCONN, "the link to shard %u is down (%s): fero_run dials it again",
                     link->index, reason);
}

/* "Full" is part of normal operation and must not cost a formatted line. */
static int full(struct client *client)
{
    client->is_starved = true;
    return error_set_text(FERO_E_AGAIN,
                          "the window or the outbox is full: call fero_run, then try again");
}

static int open_room(struct client_cache *cache, struct client_link *link, size_t bytes)
{
    struct client *client = cache->client;
    struct window *window = &client->window;
    if (link->state != CLIENT_LINK_UP) return link_is_down(client, link);
    if (cache->numbers[link->index] == CLIENT_CACHE_UNKNOWN)
        return error_set(FERO_E_NOTFOUND, "the node at %s has no cache \"%s\"", client->home_text,
                         cache->name_bytes);
    window_begin(window, client->now_tick);
    if (window_is_full(window)) return full(client);
    if (client_link_credit(link) < bytes) return full(client);
    if (backlog_room(&link->backlog) < bytes) {
        if (backlog_grow(&link->backlog, bytes, window->next, link->requests) < 0)
            return error_set(FERO_E_NOMEM, "no memory for a request of %zu bytes", bytes);
        client_link_credit(link);
    }
    if (link->run_cache != cache->index) {
        if (runs_push(&link->runs, cache->index, link->requests + 1) < 0)
            return error_set(FERO_E_NOMEM, "no memory to count requests");
        link->run_cache = cache->index;
    }
    /* One that is larger than what `stop` allows was asked for alone. */
    if ((size_t)(link->stop - link->backlog.at) < bytes) link->stop = link->backlog.at + bytes;
    return 0;
}

/*
 * Makes sure that a request of `bytes` may be written: opens the window, reads the clock, asks for
 * credit, begins a chunk or a run. After it, the four comparisons hold.
 */
static NO_INLINE int make_room(struct client_cache *cache, struct client_link *link, size_t bytes)
{
    struct client *client = cache->client;
    if (client->is_stopping) return error_set(FERO_E_CLOSED, "the runtime is stopping");
    if (client->clock_is_old && !client->is_in_turn) {
        client_now(client);
        client->clock_is_old = false;
    }
    int err = open_room(cache, link, bytes);
    if (LIKELY(!client->is_polled || client->is_in_turn)) return err;
    /* Who polls is woken for the first request that is accepted: until then each asks here. */
    if (err < 0)
        window_hold(&client->window);
    else
        client_due(client);
    return err;
}

/* An operation for the request. */
static NO_INLINE int take_op(struct client *client, fero_op **op, uint32_t *number)
{
    *op = ops_take(client->ops);
    if (*op == NULL)
        return error_set(FERO_E_NOMEM, "no memory for an operation, or over %d are not freed",
                         OPS_BLOCK_COUNT * OPS_BLOCKS_MAX);
    *number = (*op)->number;
    return 0;
}

/* ------------------------------------------------------------------------------ the fast path */

static ALWAYS_INLINE struct client_link *link_of_key(struct client *client, fero_slice key,
                                                     uint16_t *slot)
{
    *slot = FRAME_SLOT_ANY;
    if (client->links_count <= 1) return client->links[0];
    *slot = slot_of_key(key.ptr, key.len);
    return client->links[client->slot_link[*slot]];
}

static ALWAYS_INLINE int write_request(struct client_cache *cache, struct client_link *link,
                                       const struct message *message, struct wish *wish,
                                       fero_op **op)
{
    struct client *client = cache->client;
    struct window *window = &client->window;
    uint32_t op_number = 0;
    int err;
    size_t length = sizeof(struct frame_request) + message->extensions.size + message->key.len +
                    message->value.size;
    size_t padded = round_up_8(length);
    if (UNLIKELY(length > client->frame_bytes_max)) return frame_is_bad(client, length);
    bool is_ready = (size_t)(link->stop - link->backlog.at) >= padded && !window_is_full(window) &&
                    link->run_cache == cache->index &&
                    cache->numbers[link->index] != CLIENT_CACHE_UNKNOWN;
    if (UNLIKELY(!is_ready) && (err = make_room(cache, link, padded)) < 0) return err;
    if (UNLIKELY(op != NULL) && (err = take_op(client, op, &op_number)) < 0) return err;

    int64_t timeout_ms = wish->timeout_ms > 0 ? wish->timeout_ms : TIMEOUT_MS_DEFAULT;
    /* Two more: the one that has begun, and the one that the division cut off. */
    uint32_t ticks = (uint32_t)((uint64_t)timeout_ms * NS_PER_MS >> CLIENT_TICK_SHIFT) + 2;
    uint64_t seq = window->next;
    bool waits = LIKELY(wish->want == FERO_REPLY);
    struct flight *flight =
        window_add(window, flight_tag(waits ? FLIGHT_REPLY : FLIGHT_ACK, link->index), cache->index,
                   op_number, client->now_tick + ticks);
    if (waits) {
        flight->done = wish->done;
        flight->ud = wish->ud;
    } else {
        window_list_push(window, &link->acks, seq);
    }
    if (message->type >= FRAME_VERB_FIRST) flight->flags = FLIGHT_NUMBERED | FLIGHT_KEPT;
    message_encode(link->backlog.at, message, (uint32_t)seq, cache->numbers[link->index],
                   wish->want, length, padded);
    link->backlog.at += padded;
    link->requests++;
    cache->counts.sent++;
    if (UNLIKELY(client->is_unbatched)) client_send_now(client, link);
    return 0;
}

/* A request that needs an extension block: a verb's name, the caller's own timeout. */
static NO_INLINE int write_extended(struct client_cache *cache, struct client_link *link,
                                    const struct message *message, struct wish *wish, fero_op **op)
{
    uint8_t block[EXTENSIONS_BYTES_MAX];
    struct message extended = *message;
    struct extensions extensions = {.verb = message->verb, .deadline_ms = wish->deadline_ms};
    if (message->verb.size > 0) extensions.present |= 1u << EXT_VERB;
    if (wish->deadline_ms > 0) extensions.present |= 1u << EXT_DEADLINE_MS;
    extended.extensions = (struct bytes){block, extensions_encode(&extensions, block)};
    if (!wish->is_stream) {
        int err = write_request(cache, link, &extended, wish, op);
        struct window *window = &cache->client->window;
        if (err == 0 && message->verb.size > 0)
            window_at(window, window->next - 1)->flags |= FLIGHT_KEPT;
        return err;
    }
    struct client *client = cache->client;
    struct window *window = &client->window;
    if (client->stream_ticks == NULL)
        client->stream_ticks = memory_take((window->mask + (size_t)1) * sizeof(uint32_t));
    if (client->stream_ticks == NULL) return error_set(FERO_E_NOMEM, "no memory for a stream");
    int err = write_request(cache, link, &extended, wish, op);
    if (err < 0) return err;
    struct flight *flight = window_at(window, window->next - 1);
    flight->flags |= FLIGHT_STREAM | FLIGHT_KEPT;
    client->stream_ticks[(window->next - 1) & window->mask] = flight->deadline - client->now_tick;
    return 0;
}

/* A request whose answer goes to a queue. */
static NO_INLINE int request_queued(struct client_cache *cache, struct client_link *link,
                                    const struct message *message, struct wish *wish, fero_op **op)
{
    struct pull_owner owner = {.client = cache->client};
    int err = pull_begin(owner, wish);
    if (err < 0) return err;
    err = wish->deadline_ms > 0 || message->verb.size > 0
              ? write_extended(cache, link, message, wish, op)
              : write_request(cache, link, message, wish, op);
    if (err < 0) pull_cancel(wish);
    return err;
}

static ALWAYS_INLINE int request(struct client_cache *cache, struct client_link *link,
                                 const struct message *message, const fero_wopts *opts,
                                 fero_op **op)
{
    struct wish wish = {0};
    int err = wish_read(&wish, opts);
    if (UNLIKELY(err < 0)) return err;
    /* Whoever waits without saying for what waits for the reply. */
    if (UNLIKELY(op != NULL) && opts == NULL) wish.want = FERO_REPLY;
    if (UNLIKELY(wish.queue != NULL)) return request_queued(cache, link, message, &wish, op);
    if (UNLIKELY(wish.deadline_ms > 0 || message->verb.size > 0 || wish.is_stream))
        return write_extended(cache, link, message, &wish, op);
    return write_request(cache, link, message, &wish, op);
}

/* --------------------------------------------------------------------------------- requests */

static ALWAYS_INLINE bool is_client(const struct client_cache *cache)
{
    return cache != NULL && cache->head.kind == RUNTIME_CLIENT;
}

/* The same request by a thread of the node's own program, or to nobody. */
static NO_INLINE int request_of_server(fero_cache *handle, const struct message *wanted,
                                       const fero_val *value, const fero_wopts *opts, fero_op **op)
{
    const struct server_cache *cache = (const struct server_cache *)handle;
    uint8_t truth = 0;
    if (cache == NULL) return error_set(FERO_E_INVAL, "the cache is NULL");
    const struct shard_options *options = cache->hosts->options;
    char id[24];
    struct message message = *wanted;
    if (message.type == FRAME_ADD && message.key.len == 0) {
        message.type = FRAME_INSERT;
        message.key.ptr = id;
        message.key.len = (size_t)snprintf(
            id, sizeof id, "%llu", (unsigned long long)cache_next_id(cache->definition.ids));
    }
    bool may_be_empty = message.type == FRAME_VERB || message.type == FRAME_INFO;
    if (message.key.len > options->key_bytes_max || (message.key.len == 0 && !may_be_empty))
        return key_is_bad(options->key_bytes_max, message.key.len);
    int err = message_read_value(&message, (uint32_t)options->value_bytes_max, value, &truth);
    if (err < 0) return err;
    return host_request(cache->hosts, cache->definition.number, &message, opts, op);
}

/* A request that must have a key. */
static ALWAYS_INLINE int request_with_key(fero_cache *handle, uint8_t type, fero_slice key,
                                          const fero_val *value, const fero_wopts *opts,
                                          fero_op **op)
{
    struct client_cache *cache = (struct client_cache *)handle;
    struct message message = {.type = type, .key = key};
    uint8_t truth = 0;
    if (UNLIKELY(!is_client(cache))) {
        message.slot = FRAME_SLOT_ANY;
        return request_of_server(handle, &message, value, opts, op);
    }
    struct client *client = cache->client;
    if (UNLIKELY(key.len - 1 >= client->key_bytes_max))
        return key_is_bad(client->key_bytes_max, key.len);
    int err = message_read_value(&message, client->value_bytes_max, value, &truth);
    if (UNLIKELY(err < 0)) return err;
    struct client_link *link = link_of_key(client, key, &message.slot);
    return request(cache, link, &message, opts, op);
}

/* Always by the same shard, which remembers the number if the request is sent again. */
static int add_partition(struct client_cache *cache, const fero_val *value, const fero_wopts *opts,
                         fero_op **op)
{
    struct message message = {.type = FRAME_ADD};
    uint8_t truth = 0;
    int err = message_read_value(&message, cache->client->value_bytes_max, value, &truth);
    if (err < 0) return err;
    struct client_link *link = link_of_key(cache->client, message.key, &message.slot);
    message.slot = FRAME_SLOT_ANY;
    return request(cache, link, &message, opts, op);
}

int fero_update(fero_cache *cache, fero_slice key, const fero_val *value, const fero_wopts *opts,
                fero_op **op)
{
    return request_with_key(cache, FRAME_UPDATE, key, value, opts, op);
}

int fero_add(fero_cache *cache, fero_slice key, const fero_val *value, const fero_wopts *opts,
             fero_op **op)
{
    struct client_cache *own = (struct client_cache *)cache;
    if (key.len == 0 && is_client(own)) return add_partition(own, value, opts, op);
    return request_with_key(cache, FRAME_ADD, key, value, opts, op);
}

int fero_push(fero_cache *cache, fero_slice key, const fero_val *value, const fero_wopts *opts,
              fero_op **op)
{
    return request_with_key(cache, FRAME_PUSH, key, value, opts, op);
}

int fero_patch(fero_cache *cache, fero_slice key, fero_slice fields, const fero_wopts *opts,
               fero_op **op)
{
    fero_val value = {.type = FERO_T_JSON, .s = fields};
    return request_with_key(cache, FRAME_PATCH, key, &value, opts, op);
}

int fero_remove(fero_cache *cache, fero_slice key, const fero_wopts *opts, fero_op **op)
{
    return request_with_key(cache, FRAME_REMOVE, key, NULL, opts, op);
}

int fero_get(fero_cache *cache, fero_slice key, const fero_wopts *opts, fero_op **op)
{
    return request_with_key(cache, FRAME_GET, key, NULL, opts, op);
}

/* Whether the cache has a state to read here. */
static ALWAYS_INLINE int check_readable(const struct server_cache *cache)
{
    if (LIKELY(cache->head.kind != RUNTIME_CLIENT)) return 0;
    return error_set(FERO_E_UNSUPPORTED, "a client has no state of its own: use fero_get");
}

int64_t fero_read_many(fero_cache *handle, fero_reading *readings, size_t count)
{
    const struct server_cache *cache = (const struct server_cache *)handle;
    if (cache == NULL || (readings == NULL && count > 0))
        return error_set(FERO_E_INVAL, "fero_read_many needs a cache and keys");
    int err = check_readable(cache);
    if (err < 0) return err;
    size_t key_bytes_max = cache->hosts->options->key_bytes_max;
    for (size_t i = 0; i < count; i++) {
        const fero_reading *reading = &readings[i];
        if (UNLIKELY(reading->key.len - 1 >= key_bytes_max))
            return key_is_bad(key_bytes_max, reading->key.len);
        if (UNLIKELY(reading->buffer == NULL && reading->bytes > 0))
            return error_set(FERO_E_INVAL, "reading %zu has no buffer of %zu bytes", i,
                             reading->bytes);
    }
    return host_read_many(cache, readings, count);
}

int fero_read(fero_cache *handle, fero_slice key, void *buffer, size_t bytes, fero_val *value,
              uint64_t *offset)
{
    const struct server_cache *cache = (const struct server_cache *)handle;
    if (cache == NULL || value == NULL || (buffer == NULL && bytes > 0))
        return error_set(FERO_E_INVAL, "fero_read needs a cache, a buffer and a value");
    int err = check_readable(cache);
    if (UNLIKELY(err < 0)) return err;
    size_t key_bytes_max = cache->hosts->options->key_bytes_max;
    if (UNLIKELY(key.len - 1 >= key_bytes_max)) return key_is_bad(key_bytes_max, key.len);
    return host_read(cache, key, buffer, bytes, value, offset);
}

/* The next link in turn that is up, or the next one. */
static struct client_link *any_link(struct client *client)
{
    for (uint32_t tried = 0; tried < client->links_count; tried++) {
        uint32_t index = client->next_link++ % client->links_count;
        if (client->links[index]->state == CLIENT_LINK_UP) return client->links[index];
    }
    return client->links[0];
}

static bool is_verb(const struct client_verb *verb, fero_slice name)
{
    return verb->bytes == name.len && memcmp(verb->name, name.ptr, name.len) == 0;
}

/* The number of a verb, or FRAME_VERB where the node gave it none. */
static uint8_t verb_number(struct client_cache *cache, fero_slice name)
{
    if (cache->verbs_count == 0) return FRAME_VERB;
    if (LIKELY(is_verb(&cache->verbs[cache->verb_last], name)))
        return cache->verbs[cache->verb_last].type;
    for (uint32_t i = 0; i < cache->verbs_count; i++) {
        if (!is_verb(&cache->verbs[i], name)) continue;
        cache->verb_last = i;
        return cache->verbs[i].type;
    }
    return FRAME_VERB;
}

int fero_send(fero_cache *handle, fero_slice verb, fero_slice key, const fero_val *value,
              const fero_wopts *opts, fero_op **op)
{
    struct client_cache *cache = (struct client_cache *)handle;
    uint8_t truth = 0;
    if (UNLIKELY(verb.len == 0 || verb.len > FRAME_NAME_BYTES_MAX)) return verb_is_bad(verb.len);
    if (UNLIKELY(!is_client(cache))) {
        struct message message = {
            .type = FRAME_VERB, .key = key, .slot = FRAME_SLOT_ANY, .verb = {verb.ptr, verb.len}};
        return request_of_server(handle, &message, value, opts, op);
    }
    struct client *client = cache->client;
    if (UNLIKELY(key.len > client->key_bytes_max))
        return key_is_bad(client->key_bytes_max, key.len);
    struct message message = {.type = verb_number(cache, verb), .key = key, .slot = FRAME_SLOT_ANY};
    int err = message_read_value(&message, client->value_bytes_max, value, &truth);
    if (UNLIKELY(err < 0)) return err;
    struct client_link *link =
        key.len > 0 ? link_of_key(client, key, &message.slot) : any_link(client);
    if (UNLIKELY(message.type == FRAME_VERB)) message.verb = (struct bytes){verb.ptr, verb.len};
    return request(cache, link, &message, opts, op);
}

/* `about` is what is asked for: "" the facts. */
static int ask_node(fero_cache *handle, const char *about, int32_t shard, const fero_wopts *opts,
                    fero_op **op)
{
    struct client_cache *cache = (struct client_cache *)handle;
    struct message message = {.type = FRAME_INFO, .slot = FRAME_SLOT_ANY, .key = fero_str(about)};
    if (!is_client(cache)) return request_of_server(handle, &message, NULL, opts, op);
    struct client *client = cache->client;
    if (shard < -1 || (shard >= 0 && (uint32_t)shard >= client->links_count))
        return error_set(FERO_E_INVAL, "shard is %d, but must be from 0 to %d, or -1 for any",
                         shard, (int)client->links_count - 1);
    struct client_link *link = shard < 0 ? any_link(client) : client->links[shard];
    return request(cache, link, &message, opts, op);
}

int fero_ask_info(fero_cache *cache, int32_t shard, const fero_wopts *opts, fero_op **op)
{
    return ask_node(cache, "", shard, opts, op);
}

int fero_ask_errors(fero_cache *cache, int32_t shard, const fero_wopts *opts, fero_op **op)
{
    return ask_node(cache, "errors", shard, opts, op);
}

/* ------------------------------------------------------------------------------- operations */

int fero_wait(fero_op *op, int64_t timeout_ms, fero_result *result)
{
    if (op == NULL || op->is_freed) return error_set(FERO_E_INVAL, "no operation, or a freed one");
    struct client *client = op->ops->client;
    if (!op->is_done && client == NULL) {
        int err = host_wait(op, timeout_ms);
        if (err < 0) return err;
    } else if (!op->is_done) {
        ASSERT(!op->ops->is_left);
        if (client->is_in_turn)
            return error_set(FERO_E_INVAL, "fero_wait cannot be called by a callback");
        uint64_t until_ns = TIME_NEVER;
        uint64_t now_ns = client_now(client);
        if (timeout_ms >= 0 && timeout_ms < TIMEOUT_MS_MAX)
            until_ns = now_ns + (uint64_t)timeout_ms * NS_PER_MS;
        do {
            client_turn(client, until_ns == TIME_NEVER
                                    ? TIME_NEVER
                                    : until_ns - min_u64(until_ns, client->now_ns));
        } while (!op->is_done && client->now_ns < until_ns);
        client_leave(client);
    }
    if (!op->is_done)
        return error_set(FERO_E_TIMEOUT, "no answer within %lld ms; the operation goes on",
                         (long long)timeout_ms);
    const fero_val *value = &op->result.value;
    if (op->result.outcome != FERO_OUTCOME_OK)
        error_set(op->result.error, "%.*s",
                  value->type == FERO_T_STRING ? (int)min_u64(value->s.len, 400) : 64,
                  value->type == FERO_T_STRING ? (const char *)value->s.ptr
                                               : fero_strerror(op->result.error));
    if (result != NULL) *result = op->result;
    return 0;
}

/* The request that the operation waits for, or 0. */
static uint64_t seq_of_op(const struct client *client, const fero_op *op)
{
    const struct window *window = &client->window;
    for (uint64_t seq = window_next_waiting(window, window->floor); seq != 0;
         seq = window_next_waiting(window, seq + 1))
        if (window_at(window, seq)->op == op->number) return seq;
    return 0;
}

int client_stop_request(struct client *client, uint64_t seq)
{
    const struct flight *flight = window_at(&client->window, seq);
    struct client_cache *cache = client->caches[flight->cache];
    struct client_link *link = client->links[flight_link(flight)];
    struct message message = {.type = FRAME_STOP,
                              .value_type = VALUE_INT64,
                              .slot = FRAME_SLOT_ANY,
                              .value = {&seq, sizeof seq}};
    struct wish wish = {.want = FERO_NOTHING};
    return write_request(cache, link, &message, &wish, NULL);
}

int fero_op_cancel(fero_op *op)
{
    if (op == NULL || op->is_freed) return error_set(FERO_E_INVAL, "no operation, or a freed one");
    struct client *client = op->ops->client;
    if (op->is_done) return error_set(FERO_E_NOTFOUND, "the request has ended");
    if (client == NULL) return host_cancel(op);
    uint64_t seq = seq_of_op(client, op);
    if (seq == 0) return error_set(FERO_E_NOTFOUND, "the request has ended");
    return client_stop_request(client, seq);
}

void fero_op_free(fero_op *op)
{
    if (op == NULL) return;
    ASSERT(!op->is_freed);
    if (op->is_done)
        ops_put(op);
    else
        op->is_freed = true;
}

/* ----------------------------------------------------------------------------------- caches */

int fero_close(fero_cache *handle)
{
    struct client_cache *cache = (struct client_cache *)handle;
    if (cache == NULL) return error_set(FERO_E_INVAL, "the cache is NULL");
    /* A server's cache lives as long as its runtime. */
    return is_client(cache) ? client_close(cache) : 0;
}

void fero_counts_get(const fero_cache *handle, fero_counts *counts)
{
    const struct client_cache *cache = (const struct client_cache *)handle;
    *counts = is_client(cache) ? cache->counts : (fero_counts){0};
}

uint64_t client_spin_ns(const fero_cache *handle)
{
    const struct client_cache *cache = (const struct client_cache *)handle;
    return is_client(cache) ? cache->client->spin_ns : 0;
}

int fero_shards(const fero_cache *handle)
{
    const struct client_cache *cache = (const struct client_cache *)handle;
    return is_client(cache) ? (int)cache->client->links_count : 0;
}
