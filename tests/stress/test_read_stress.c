/*
 * Threads of the program that read values, one or many, without asking, while a client over TCP and a thread of
 * the program write them, the tables grow, and the logs go round: far more is written than there is
 * memory, so each segment is used again and again. Run under ThreadSanitizer too (make tsan).
 *
 * A value is its key's number and a count, over and over, so that one that is torn, of another key or
 * of a segment in its next life is seen. Of one key, no reader may see a lower offset than before.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/ck.h"
#include "base/clock.h"
#include "base/rng.h"
#include "fero.h"

#define MEMORY_BYTES ((int64_t)128 << 20)
#define READERS 2
#define KEYS 3000         /* that always have a value, once it is there */
#define KEYS_FLEETING 500 /* that are removed, too */
#define WORDS_MAX 250
#define READS_MAX 40 /* at once */
/* Until so much was written, and no longer than this. */
#define BYTES_MIN ((uint64_t)200 << 20)
#define RUN_NS_MAX (20 * NS_PER_S)
#define RUN_NS_MIN (400 * NS_PER_MS)

struct world {
    fero *server;
    fero_cache *cache;
    uint64_t ended;
    uint64_t written_bytes;
};

static void key_of(uint64_t number, char key[9])
{
    snprintf(key, 9, "%08u", (unsigned)(number % 100000000));
}

static size_t fill(uint64_t *words, struct rng *rng, uint64_t number, uint64_t count)
{
    size_t pairs = 1 + rng_below(rng, WORDS_MAX);
    for (size_t i = 0; i < pairs; i++) {
        words[2 * i] = number;
        words[2 * i + 1] = count;
    }
    return pairs * 16;
}

struct reader {
    uint64_t *offsets; /* the newest that was seen of each key */
    uint64_t found;
    uint64_t absent;
};

/* What one look at a key found. */
static void check(struct reader *reader, uint64_t number, const fero_reading *reading)
{
    const uint64_t *words = reading->buffer;
    ASSERT(reading->error == 0 || reading->error == FERO_E_NOTFOUND);
    if (reading->error != 0) {
        /* What was there and is never removed stays there. */
        ASSERT(number >= KEYS || reader->offsets[number] == 0);
        reader->absent++;
        return;
    }
    const fero_slice value = reading->value.s;
    ASSERT(reading->value.type == FERO_T_BYTES && value.len % 16 == 0 && value.len >= 16);
    for (size_t i = 0; i < value.len / 8; i += 2)
        ASSERT(words[i] == number && words[i + 1] == words[1]);
    reader->found++;
    if (number >= KEYS) return;
    ASSERT(reading->offset >= reader->offsets[number]);
    reader->offsets[number] = reading->offset;
}

/* One key, or many at once. */
static void read_some(struct world *world, struct reader *reader, struct rng *rng,
                      uint64_t words[READS_MAX][2 * WORDS_MAX])
{
    char keys[READS_MAX][9];
    uint64_t numbers[READS_MAX];
    fero_reading readings[READS_MAX];
    size_t count = rng_below(rng, 2) == 0 ? 1 : 1 + rng_below(rng, READS_MAX);
    for (size_t i = 0; i < count; i++) {
        numbers[i] = rng_below(rng, KEYS + KEYS_FLEETING);
        key_of(numbers[i], keys[i]);
        readings[i] =
            (fero_reading){.key = {keys[i], 8}, .buffer = words[i], .bytes = sizeof words[i]};
    }
    if (count == 1)
        readings[0].error = fero_read(world->cache, readings[0].key, words[0], sizeof words[0],
                                      &readings[0].value, &readings[0].offset);
    else
        ASSERT(fero_read_many(world->cache, readings, count) >= 0);
    for (size_t i = 0; i < count; i++) check(reader, numbers[i], &readings[i]);
}

static void *read_values(void *argument)
{
    struct world *world = argument;
    uint64_t(*words)[2 * WORDS_MAX] = malloc(READS_MAX * sizeof *words);
    struct reader reader = {.offsets = calloc(KEYS, sizeof *reader.offsets)};
    struct rng rng;
    ASSERT(reader.offsets != NULL && words != NULL);
    rng_init(&rng, (uint64_t)(uintptr_t)words);
    while (load_acquire_u64(&world->ended) == 0) read_some(world, &reader, &rng, words);
    free(words);
    free(reader.offsets);
    ASSERT(reader.found > 0 && reader.absent > 0);
    return NULL;
}

/* Removes and sets keys that come and go, by the way of threads of the program. */
static void *let_come_and_go(void *argument)
{
    struct world *world = argument;
    uint64_t words[2 * WORDS_MAX];
    struct rng rng;
    rng_init(&rng, 5);
    for (uint64_t i = 1; load_acquire_u64(&world->ended) == 0; i++) {
        char key[9];
        uint64_t number = KEYS + rng_below(&rng, KEYS_FLEETING);
        key_of(number, key);
        fero_val value = {.type = FERO_T_BYTES, .s = {words, fill(words, &rng, number, i)}};
        fero_slice slice = {key, 8};
        int err = i % 3 == 0 ? fero_remove(world->cache, slice, NULL, NULL)
                             : fero_update(world->cache, slice, &value, NULL, NULL);
        ASSERT(err == 0 || err == FERO_E_AGAIN);
        if (err == FERO_E_AGAIN) fero_run(world->server, 100);
    }
    return NULL;
}

struct sent {
    uint64_t waiting;
    uint64_t failed;
};

static void count_answer(const fero_result *result, void *ud)
{
    struct sent *sent = ud;
    sent->waiting--;
    if (result->outcome != FERO_OUTCOME_OK) sent->failed++;
}

/* Writes over TCP: the short way of plain updates. Keys beyond KEYS make the tables grow. */
static void write_values(struct world *world, uint64_t begin_ns)
{
    uint64_t words[2 * WORDS_MAX];
    struct sent sent = {0};
    const char *seeds[] = {fero_address(world->server), NULL};
    fero_runtime_opts opts = {.size = sizeof opts, .client = 1, .seeds = seeds};
    fero_wopts wopts = {
        .size = sizeof wopts, .want = FERO_REPLY, .done = count_answer, .ud = &sent};
    struct rng rng;
    fero *rt;
    fero_cache *cache;
    assert_int_equal(fero_start(&opts, &rt), 0);
    assert_int_equal(fero_open(rt, "stress", NULL, &cache), 0);
    rng_init(&rng, 7);
    for (uint64_t i = 0;; i++) {
        char key[9];
        bool is_new = i % 8 == 0 && i < 400000;
        uint64_t number = is_new ? 1000000 + i : rng_below(&rng, KEYS);
        key_of(number, key);
        size_t bytes = fill(words, &rng, number, i);
        fero_val value = {.type = FERO_T_BYTES, .s = {words, is_new ? 16 : bytes}};
        int err;
        while ((err = fero_update(cache, (fero_slice){key, 8}, &value, &wopts, NULL)) ==
               FERO_E_AGAIN)
            assert_true(fero_run(rt, 10000) >= 0);
        assert_int_equal(err, 0);
        sent.waiting++;
        world->written_bytes += value.s.len;
        if (i % 1000 != 0) continue;
        uint64_t ran_ns = clock_now_ns() - begin_ns;
        if (world->written_bytes >= BYTES_MIN && ran_ns >= RUN_NS_MIN) break;
        if (ran_ns >= RUN_NS_MAX) break;
    }
    while (sent.waiting > 0) assert_true(fero_run(rt, 10000) > 0);
    assert_int_equal(fero_stop(rt, 0), 0);
    assert_int_equal(sent.failed, 0);
}

static void values_are_whole_while_everything_moves(void **unused)
{
    (void)unused;
    fero_runtime_opts opts = {.size = sizeof opts,
                              .shards = 2,
                              .memory_max_bytes = MEMORY_BYTES,
                              .history_max_bytes = FERO_OFF};
    struct world world = {0};
    pthread_t threads[READERS + 1];
    int err = fero_start(&opts, &world.server);
    if (err == FERO_E_SYS) skip();
    assert_int_equal(err, 0);
    assert_int_equal(fero_open(world.server, "stress", NULL, &world.cache), 0);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_values, &world), 0);
    assert_int_equal(pthread_create(&threads[READERS], NULL, let_come_and_go, &world), 0);
    write_values(&world, clock_now_ns());
    store_release_u64(&world.ended, 1);
    for (int i = 0; i <= READERS; i++) pthread_join(threads[i], NULL);
    print_message("%lu MiB written into %ld\n", (unsigned long)(world.written_bytes >> 20),
                  (long)(MEMORY_BYTES >> 20));
    assert_int_equal(fero_stop(world.server, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_whole_while_everything_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
