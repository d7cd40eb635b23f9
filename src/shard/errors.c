#include "shard/errors.h"

#include <errno.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/ck.h"
#include "base/memory.h"

static size_t bytes_of_table(const struct errors *errors)
{
    return ((size_t)errors->mask + 1) * sizeof *errors->entries;
}

int errors_init(struct errors *errors, uint32_t max)
{
    *errors = (struct errors){.max = max};
    /* Twice as many as may be used, so that a search ends soon, and at all. */
    uint32_t capacity = 2;
    while (capacity < 2 * max) capacity *= 2;
    errors->mask = capacity - 1;
    errors->entries = memory_reserve(bytes_of_table(errors), 0);
    if (errors->entries == NULL) return -ENOMEM;
    store_release_u64(&errors->is_ready, 1);
    return 0;
}

bool errors_are_ready(const struct errors *errors)
{
    return load_acquire_u64(&errors->is_ready) != 0;
}

void errors_deinit(struct errors *errors)
{
    store_release_u64(&errors->is_ready, 0);
    if (errors->entries != NULL) memory_release(errors->entries, bytes_of_table(errors));
    errors->entries = NULL;
}

static uint32_t first_place(const struct errors *errors, uint64_t text, uint64_t code)
{
    return (uint32_t)(((text ^ code << 20) * 0x9e3779b97f4a7c15) >> 32) & errors->mask;
}

/* The entry, or the free one where it belongs. */
static struct error_entry *place_of(const struct errors *errors, uint64_t text, uint64_t code)
{
    uint32_t at = first_place(errors, text, code);
    while (true) {
        struct error_entry *entry = &errors->entries[at];
        uint64_t found = load_acquire_u64(&entry->text);
        if (found == 0) return entry;
        if (found == text && load_relaxed_u64(&entry->code) == code) return entry;
        at = (at + 1) & errors->mask;
    }
}

/* One more of an error. `entry->text` is still 0 where it is the first; NULL: there is no room. */
static struct error_entry *count_one(struct errors *errors, uint64_t text, uint64_t code,
                                     uint64_t now_ms)
{
    struct error_entry *entry = place_of(errors, text, code);
    if (entry->text == 0 && errors->count == errors->max) {
        count_up_u64(&errors->others, 1);
        return NULL;
    }
    store_relaxed_u64(&entry->last_ms, now_ms);
    count_up_u64(&entry->count, 1);
    return entry;
}

/* From now on readers see it. */
static void publish(struct errors *errors, struct error_entry *entry, uint64_t text, uint64_t code)
{
    errors->count++;
    store_relaxed_u64(&entry->code, code);
    store_relaxed_u64(&entry->first_ms, entry->last_ms);
    store_release_u64(&entry->text, text);
}

void errors_note(struct errors *errors, enum error_kind kind, enum reply_error code,
                 const char *text, uint64_t got, uint64_t limit, uint64_t now_ms)
{
    uint64_t key = (uint64_t)(uintptr_t)text;
    uint64_t key_code = error_entry_code(kind, code);
    ASSERT(text != NULL);
    struct error_entry *entry = count_one(errors, key, key_code, now_ms);
    if (entry == NULL) return;
    store_relaxed_u64(&entry->got, got);
    store_relaxed_u64(&entry->limit, limit);
    if (entry->text == 0) publish(errors, entry, key, key_code);
}

void errors_note_example(struct errors *errors, enum error_kind kind, enum reply_error code,
                         const char *text, struct bytes example, uint64_t now_ms)
{
    uint64_t key = (uint64_t)(uintptr_t)text;
    uint64_t key_code = error_entry_code(kind, code);
    ASSERT(text != NULL);
    struct error_entry *entry = count_one(errors, key, key_code, now_ms);
    if (entry == NULL || entry->text != 0) return;
    entry->example_bytes = min_u64(example.size, sizeof entry->example - 1);
    if (entry->example_bytes > 0) memcpy(entry->example, example.data, entry->example_bytes);
    publish(errors, entry, key, key_code);
}

const struct error_entry *errors_find(const struct errors *errors, uint64_t text, uint64_t code)
{
    if (!errors_are_ready(errors)) return NULL;
    const struct error_entry *entry = place_of(errors, text, code);
    return load_acquire_u64(&entry->text) != 0 ? entry : NULL;
}
