/*
 * The small parts of base that have a file of a screen each: bytes, hash, rng, clock, cpus, trace,
 * assert. Memory has its own tests.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "base/hash.h"
#include "base/rng.h"
#include "base/trace.h"
#include "tests/support/key_of_hash.h"

/* ---------------------------------------------------------------------------- bytes */

static void rounding_goes_up_to_the_next_multiple(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes < 100; bytes++) {
        assert_int_equal(round_up_8(bytes), (bytes + 7) / 8 * 8);
        assert_int_equal(round_up(bytes, 16), (bytes + 15) / 16 * 16);
        assert_int_equal(round_up(bytes, 1), bytes);
    }
    /* A length of 32 bits does not wrap to 0. */
    assert_int_equal(round_up_8(UINT32_MAX), (size_t)1 << 32);
}

static void powers_of_two_have_one_bit(void **state)
{
    (void)state;
    assert_false(is_power_of_two(0));
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t power = (uint64_t)1 << bit;
        assert_true(is_power_of_two(power));
        assert_int_equal(is_power_of_two(power + 1), power == 1);
        assert_int_equal(is_power_of_two(power - 1), power == 2);
    }
}

static void runs_of_bytes_are_equal_if_size_and_bytes_are(void **state)
{
    (void)state;
    assert_true(bytes_equal(bytes_of("abc"), bytes_of("abc")));
    assert_false(bytes_equal(bytes_of("abc"), bytes_of("ab")));
    assert_false(bytes_equal(bytes_of("abc"), bytes_of("abd")));
    assert_true(bytes_equal((struct bytes){NULL, 0}, bytes_of("")));
    assert_true(bytes_equal((struct bytes){"a\0b", 3}, (struct bytes){"a\0b", 3}));
    assert_false(bytes_equal((struct bytes){"a\0b", 3}, (struct bytes){"a\0c", 3}));
    assert_int_equal(max_u64(1, UINT64_MAX), UINT64_MAX);
    assert_int_equal(min_u64(1, UINT64_MAX), 1);
}

/* ---------------------------------------------------------------------------- hash, rng */

/* Every node of a cluster computes the same: these are published values of XXH3. */
static void hashes_are_those_of_xxh3(void **state)
{
    (void)state;
    assert_int_equal(hash_bytes("", 0), 0x2d06800538d394c2u);
    assert_int_equal(hash_key("", 0, 0), 0x2d06800538d394c2u);
    assert_int_equal(hash_key("abc", 3, 0), hash_bytes("abc", 3));
    assert_int_not_equal(hash_key("abc", 3, 1), hash_key("abc", 3, 2));
}

/* updates.c stands on it. */
static void keys_of_8_bytes_have_hashes_of_their_own(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 8);
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t seed = rng_next(&rng);
        uint64_t key = i < 64 ? (uint64_t)1 << i : rng_next(&rng);
        uint64_t hash = hash_key(&key, sizeof key, seed);
        assert_int_equal(hash, hash_key_8(key, hash_of_8(seed)));
        assert_int_equal(key_of_hash(hash, seed), key);
    }
}

/* Seeds are written down in reports of failures, so that their numbers may never change. */
static void seed_gives_the_same_numbers_for_ever(void **state)
{
    (void)state;
    static const uint64_t known[] = {0x99ec5f36cb75f2b4u, 0xbf6e1f784956452au, 0x1a5f849d4933e6e0u};
    struct rng rng;
    rng_init(&rng, 0);
    for (size_t i = 0; i < ARRAY_COUNT(known); i++) assert_int_equal(rng_next(&rng), known[i]);
}

static void numbers_below_a_bound_are_below_it_and_even(void **state)
{
    (void)state;
    struct rng rng;
    unsigned counts[10] = {0};
    rng_init(&rng, 5);
    for (int i = 0; i < 100000; i++) counts[rng_below(&rng, 10)]++;
    for (int i = 0; i < 10; i++) assert_in_range(counts[i], 9500, 10500);
    for (int i = 0; i < 100; i++) assert_int_equal(rng_below(&rng, 1), 0);
    for (int i = 0; i < 100; i++) assert_true(rng_below(&rng, UINT64_MAX) < UINT64_MAX);
}

static void secrets_differ(void **state)
{
    (void)state;
    assert_int_not_equal(rng_secret_u64(), rng_secret_u64());
}

/* ---------------------------------------------------------------------------- clock */

static void clocks_go_on(void **state)
{
    (void)state;
    uint64_t start_ns = clock_now_ns();
    uint64_t cpu_ns = clock_thread_cpu_ns();
    /* Busy until the slowest of them has moved. */
    while (clock_now_ns() == start_ns || clock_thread_cpu_ns() == cpu_ns) clock_pause();
    assert_true(clock_now_ns() > start_ns);
    assert_true(clock_thread_cpu_ns() > cpu_ns);
    /* After 2020. */
    assert_true(clock_wall_ms() > (uint64_t)1577836800000);
}

/* ---------------------------------------------------------------------------- cpus */

static void lists_of_cpus_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t count;
        uint16_t first;
        uint16_t last;
    } cases[] = {{"0", 1, 0, 0},   {"2-7,10", 7, 2, 10},    {"3,1", 2, 3, 1},
                 {"5-5", 1, 5, 5}, {"1023", 1, 1023, 1023}, {"0-1023", 1024, 0, 1023}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct cpu_list list;
        assert_int_equal(cpus_parse(&list, cases[i].text), 0);
        assert_int_equal(list.count, cases[i].count);
        assert_int_equal(list.cpus[0], cases[i].first);
        assert_int_equal(list.cpus[list.count - 1], cases[i].last);
    }
}

static void what_is_no_list_of_cpus_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",         ",",    "1,",    ",1",
                                        "-1",       "1-",   "a",     "1a",
                                        "7-2",      "1--2", "1 ,2",  " 1",
                                        "+1",       "1024", "0x1",   "1-1024",
                                        "0-1023,0", "1,,2", "1-2-3", "99999999999999999999999"};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct cpu_list list;
        assert_int_equal(cpus_parse(&list, texts[i]), -EINVAL);
    }
}

static void thread_is_pinned_to_what_it_may_use(void **state)
{
    (void)state;
    struct cpu_list before;
    struct cpu_list after;
    cpus_allowed(&before);
    assert_true(before.count >= 1);
    assert_int_equal(cpus_pin(before.cpus[before.count - 1]), 0);
    cpus_allowed(&after);
    assert_int_equal(after.count, 1);
    assert_int_equal(after.cpus[0], before.cpus[before.count - 1]);
    assert_int_equal(cpus_pin(CPUS_MAX - 1), -EINVAL);
}

static void machine_has_memory(void **state)
{
    (void)state;
    assert_in_range(machine_memory_bytes(), 16 * MIB, (uint64_t)1 << 50);
}

/* ---------------------------------------------------------------------------- trace */

struct heard {
    unsigned count;
    enum trace_level level;
    char line[2048];
};

static void hear(enum trace_level level, const char *line, void *context)
{
    struct heard *heard = context;
    heard->count++;
    heard->level = level;
    snprintf(heard->line, sizeof heard->line, "%s", line);
}

static void lines_up_to_the_level_are_heard(void **state)
{
    (void)state;
    struct heard heard = {0};
    struct trace trace = {.function = hear, .context = &heard, .level = TRACE_INFO};
    trace_line(&trace, TRACE_ERROR, "port %d is in use", 7700);
    assert_string_equal(heard.line, "port 7700 is in use");
    assert_int_equal(heard.level, TRACE_ERROR);
    trace_line(&trace, TRACE_INFO, "here");
    trace_line(&trace, TRACE_DEBUG, "not heard");
    assert_string_equal(heard.line, "here");
    assert_int_equal(heard.count, 2);
}

static void trace_without_a_function_is_silent(void **state)
{
    (void)state;
    struct trace trace = {.level = TRACE_DEBUG};
    trace_line(&trace, TRACE_ERROR, "nobody hears");
    trace_line(NULL, TRACE_ERROR, "nobody hears");
}

static void long_lines_are_cut(void **state)
{
    (void)state;
    char text[3000];
    struct heard heard = {0};
    struct trace trace = {.function = hear, .context = &heard, .level = TRACE_INFO};
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    trace_line(&trace, TRACE_ERROR, "%s", text);
    assert_in_range(strlen(heard.line), 1000, 1024);
}

/* ---------------------------------------------------------------------------- assert */

static void failed_assertion_says_what_and_where_and_aborts(void **state)
{
    (void)state;
    int ends[2];
    char text[512] = {0};
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        assert_context_set("seed 17");
        ASSERT(1 + 1 == 3);
        _exit(0);
    }
    assert_true(child > 0);
    close(ends[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(read(ends[0], text, sizeof text - 1) > 0);
    close(ends[0]);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_non_null(strstr(text, "1 + 1 == 3"));
    assert_non_null(strstr(text, "test_base.c:"));
    assert_non_null(strstr(text, "seed 17"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounding_goes_up_to_the_next_multiple),
        cmocka_unit_test(powers_of_two_have_one_bit),
        cmocka_unit_test(runs_of_bytes_are_equal_if_size_and_bytes_are),
        cmocka_unit_test(hashes_are_those_of_xxh3),
        cmocka_unit_test(keys_of_8_bytes_have_hashes_of_their_own),
        cmocka_unit_test(seed_gives_the_same_numbers_for_ever),
        cmocka_unit_test(numbers_below_a_bound_are_below_it_and_even),
        cmocka_unit_test(secrets_differ),
        cmocka_unit_test(clocks_go_on),
        cmocka_unit_test(lists_of_cpus_are_read),
        cmocka_unit_test(what_is_no_list_of_cpus_is_refused),
        cmocka_unit_test(thread_is_pinned_to_what_it_may_use),
        cmocka_unit_test(machine_has_memory),
        cmocka_unit_test(lines_up_to_the_level_are_heard),
        cmocka_unit_test(trace_without_a_function_is_silent),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(failed_assertion_says_what_and_where_and_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
