/*
 * The answer to INFO: what the node is and what its shards have counted, as one JSON object.
 */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "base/ck.h"
#include "base/clock.h"
#include "shard/shard.h"
#include "wire/utf8.h"

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
#define PUT_COUNTER(kind, name)                                                                    \
    put(text, ",\"" #name "\":%llu", (unsigned long long)load_relaxed_u64(&counters->name));
    SHARD_COUNTERS(PUT_COUNTER)
#undef PUT_COUNTER
    put(text, "}");
}

/* The counters that tell how much there is now; the others only grow. */
static void put_levels(struct text *text)
{
    bool is_first = true;
#define COUNT false
#define LEVEL true
#define PUT_LEVEL(kind, name)                                                                      \
    if (kind) put(text, is_first ? "\"%s\"" : ",\"%s\"", #name);                                   \
    is_first = is_first && !(kind);
    SHARD_COUNTERS(PUT_LEVEL)
#undef PUT_LEVEL
#undef LEVEL
#undef COUNT
}

/* What both answers begin with. */
static void put_node(struct text *text, const struct shard *shard, uint64_t now_ns)
{
    const struct shard_options *options = shard->options;
    uint64_t uptime_ns = now_ns - min_u64(now_ns, options->start_ns);
    put(text, "{\"node\":\"%016llx\",\"shards_count\":%u,\"uptime_ms\":%llu",
        (unsigned long long)options->node, options->shards_count,
        (unsigned long long)(uptime_ns / NS_PER_MS));
}

size_t info_write(const struct shard *shard, char *buffer, size_t bytes)
{
    struct text text = {buffer, buffer + bytes};
    const struct shard_options *options = shard->options;
    uint64_t now_ns = clock_now_ns(); /* of this thread, which need not be the shard's */
    put_node(&text, shard, now_ns);
    put(&text, ",\"time_ns\":%llu,\"view\":%llu", (unsigned long long)now_ns,
        (unsigned long long)options->view);
    if (shard->io_name != NULL) {
        put(&text, ",\"io\":\"%s\",\"io_why\":", shard->io_name);
        put_string(&text, shard->io_why);
    }
    put(&text, ",\"caches\":[");
    for (uint32_t i = 0; i < shard->caches_count; i++) {
        if (i > 0) put(&text, ",");
        put_string(&text, shard->caches[i]->definition->name);
    }
    put(&text, "],\"levels\":[");
    put_levels(&text);
    put(&text, "],\"shards\":[");
    for (uint32_t i = 0; i < options->shards_count; i++) {
        if (i > 0) put(&text, ",");
        put_shard(&text, shard->peers[i]);
    }
    put(&text, "]}");
    /* A text that reaches the last byte may have been cut there. */
    return text.at + 1 < text.end ? (size_t)(text.at - buffer) : 0;
}

/* ----------------------------------------------------------------------------------- errors */

#define ERROR_LINE_BYTES_MAX 320

static void format_error(const struct error_entry *entry, char line[ERROR_LINE_BYTES_MAX])
{
    const char *text = (const char *)(uintptr_t)load_acquire_u64(&entry->text);
    unsigned long long got = load_relaxed_u64(&entry->got);
    unsigned long long limit = load_relaxed_u64(&entry->limit);
    enum error_kind kind = (enum error_kind)(load_relaxed_u64(&entry->code) >> 32);
    if (entry->example_bytes > 0) {
        snprintf(line, ERROR_LINE_BYTES_MAX, "%.*s", (int)entry->example_bytes, entry->example);
        bool is_text = utf8_is_text(line, strlen(line));
        for (char *at = line; *at != 0; at++)
            if ((unsigned char)*at < 0x20 || *at == 0x7f || (!is_text && (*at & 0x80) != 0))
                *at = '?';
        return;
    }
    if (kind != ERROR_OF_REPLY) {
        bool has_values = got != 0 || limit != 0;
        int bytes = snprintf(line, ERROR_LINE_BYTES_MAX, "%s", text);
        if (has_values && bytes > 0 && bytes < ERROR_LINE_BYTES_MAX)
            snprintf(line + bytes, ERROR_LINE_BYTES_MAX - (size_t)bytes,
                     " (got %llu, expected %llu)", got, limit);
        return;
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    /* cppcheck-suppress wrongPrintfScanfArgNum */
    snprintf(line, ERROR_LINE_BYTES_MAX, text, got, limit);
#pragma GCC diagnostic pop
}

/* An error with what all shards from `from` on have seen of it. */
static void put_error(struct text *text, const struct shard *shard, uint32_t from,
                      const struct error_entry *entry)
{
    static const char *const kinds[] = {
        [ERROR_OF_REPLY] = "reply", [ERROR_OF_LINK] = "link", [ERROR_OF_HANDLER] = "handler"};
    uint64_t key = load_acquire_u64(&entry->text);
    uint64_t code = load_relaxed_u64(&entry->code);
    uint64_t count = 0;
    uint64_t first_ms = UINT64_MAX;
    uint64_t last_ms = 0;
    for (uint32_t i = from; i < shard->options->shards_count; i++) {
        const struct error_entry *other = errors_find(&shard->peers[i]->errors, key, code);
        if (other == NULL) continue;
        count += load_relaxed_u64(&other->count);
        first_ms = min_u64(first_ms, load_relaxed_u64(&other->first_ms));
        if (load_relaxed_u64(&other->last_ms) <= last_ms) continue;
        last_ms = load_relaxed_u64(&other->last_ms);
        entry = other;
    }
    char line[ERROR_LINE_BYTES_MAX];
    format_error(entry, line);
    put(text, "{\"kind\":\"%s\",\"error\":%u,\"count\":%llu,\"first_ms\":%llu,\"last_ms\":%llu",
        kinds[code >> 32], (uint32_t)code, (unsigned long long)count, (unsigned long long)first_ms,
        (unsigned long long)last_ms);
    put(text, ",\"text\":");
    put_string(text, line);
    put(text, "}");
}

/* Whether a shard before `index` has it, too, and so it has been written. */
static bool is_written(const struct shard *shard, uint32_t index, const struct error_entry *entry)
{
    uint64_t code = load_relaxed_u64(&entry->code);
    for (uint32_t i = 0; i < index; i++)
        if (errors_find(&shard->peers[i]->errors, load_acquire_u64(&entry->text), code) != NULL)
            return true;
    return false;
}

size_t info_write_errors(const struct shard *shard, char *buffer, size_t bytes)
{
    struct text text = {buffer, buffer + bytes};
    uint64_t left_out = 0;
    bool is_first = true;
    put_node(&text, shard, clock_now_ns());
    put(&text, ",\"errors\":[");
    for (uint32_t i = 0; i < shard->options->shards_count; i++) {
        const struct errors *errors = &shard->peers[i]->errors;
        if (!errors_are_ready(errors)) continue;
        left_out += load_relaxed_u64(&errors->others);
        for (uint32_t at = 0; at <= errors->mask; at++) {
            const struct error_entry *entry = &errors->entries[at];
            if (load_acquire_u64(&entry->text) == 0 || is_written(shard, i, entry)) continue;
            if ((size_t)(text.end - text.at) < 3 * ERROR_LINE_BYTES_MAX) {
                left_out += load_relaxed_u64(&entry->count);
                continue;
            }
            if (!is_first) put(&text, ",");
            is_first = false;
            put_error(&text, shard, i, entry);
        }
    }
    put(&text, "],\"others\":%llu}", (unsigned long long)left_out);
    return (size_t)(text.at - buffer);
}
