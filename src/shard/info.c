/*
 * The answer to INFO: what the node is and what its shards have counted, as one JSON object.
 */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "base/ck.h"
#include "base/clock.h"
#include "shard/shard.h"

struct text {
    char *at;
    char *end;
};

static PRINTF_LIKE(2, 3) void put(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(text->at, (size_t)(text->end - text->at), format, arguments);
    va_end(arguments);
    text->at += min_u64((uint64_t)bytes, (uint64_t)(text->end - text->at - 1));
}

/* Names have no control characters (engine/handler.c), and UTF-8 stands for itself. */
static void put_string(struct text *text, const char *string)
{
    put(text, "\"");
    for (; *string != 0; string++)
        put(text, *string == '"' || *string == '\\' ? "\\%c" : "%c", *string);
    put(text, "\"");
}

static uint64_t cpu_ns(const struct shard *shard)
{
    struct timespec used = {0};
    if (shard->cpu_clock == 0 || clock_gettime(shard->cpu_clock, &used) != 0) return 0;
    return (uint64_t)used.tv_sec * NS_PER_S + (uint64_t)used.tv_nsec;
}

static void put_shard(struct text *text, const struct shard *shard)
{
    const struct shard_counters *counters = &shard->counters;
    put(text, "{\"shard\":%u,\"cpu\":%d,\"cpu_ns\":%llu", shard->index, shard->cpu,
        (unsigned long long)cpu_ns(shard));
#define PUT_COUNTER(name)                                                                          \
    put(text, ",\"" #name "\":%llu", (unsigned long long)load_relaxed_u64(&counters->name))
    PUT_COUNTER(requests);
    PUT_COUNTER(updates);
    PUT_COUNTER(removes);
    PUT_COUNTER(gets);
    PUT_COUNTER(verbs);
    PUT_COUNTER(replies);
    PUT_COUNTER(errors);
    PUT_COUNTER(duplicates);
    PUT_COUNTER(crossed_out);
    PUT_COUNTER(crossed_in);
    PUT_COUNTER(accepted);
    PUT_COUNTER(closed);
    PUT_COUNTER(refused);
    PUT_COUNTER(dropped);
    PUT_COUNTER(connections);
    PUT_COUNTER(sessions);
    PUT_COUNTER(turns);
    PUT_COUNTER(enters);
    PUT_COUNTER(direct_sends);
    PUT_COUNTER(sleeps);
    PUT_COUNTER(spin_ns);
    PUT_COUNTER(received_bytes);
    PUT_COUNTER(sent_bytes);
    PUT_COUNTER(keys);
    PUT_COUNTER(memory_bytes);
#undef PUT_COUNTER
    put(text, "}");
}

size_t info_write(const struct shard *shard, char *buffer, size_t bytes)
{
    struct text text = {buffer, buffer + bytes};
    const struct shard_options *options = shard->options;
    put(&text, "{\"node\":\"%016llx\",\"shards_count\":%u,\"view\":%llu,\"caches\":[",
        (unsigned long long)options->node, options->shards_count,
        (unsigned long long)options->view);
    for (uint32_t i = 0; i < shard->caches_count; i++) {
        if (i > 0) put(&text, ",");
        put_string(&text, shard->caches[i]->definition->name);
    }
    put(&text, "],\"shards\":[");
    for (uint32_t i = 0; i < options->shards_count; i++) {
        if (i > 0) put(&text, ",");
        put_shard(&text, shard->peers[i]);
    }
    put(&text, "]}");
    /* A text that reaches the last byte may have been cut there. */
    return text.at + 1 < text.end ? (size_t)(text.at - buffer) : 0;
}
