#include "base/timers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/rng.h"

static struct timers timers;
static uintptr_t fired[4096];
static unsigned fired_count;

static void note(const struct timer_call *call)
{
    assert_ptr_equal(call->context, &timers);
    fired[fired_count++] = (uintptr_t)call->argument;
}

static uint64_t add(uint64_t due_ns, uintptr_t what)
{
    const struct timer_call call = {.function = note, .context = &timers, .argument = (void *)what};
    return timers_add(&timers, due_ns, &call);
}

static int setup(void **unused)
{
    (void)unused;
    timers = (struct timers){0};
    fired_count = 0;
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    timers_deinit(&timers);
    return 0;
}

static void they_fire_in_the_order_of_their_times(void **unused)
{
    (void)unused;
    assert_int_equal(timers_next_ns(&timers), UINT64_MAX);
    assert_true(add(30, 3) != 0);
    assert_true(add(10, 1) != 0);
    assert_true(add(20, 2) != 0);
    assert_int_equal(timers_next_ns(&timers), 10);
    assert_int_equal(timers_fire(&timers, 9), 0);
    assert_int_equal(timers_fire(&timers, 20), 2);
    assert_int_equal(fired[0], 1);
    assert_int_equal(fired[1], 2);
    assert_int_equal(timers_next_ns(&timers), 30);
}

static void those_of_one_time_fire_in_the_order_of_adding(void **unused)
{
    (void)unused;
    for (uintptr_t i = 0; i < 1000; i++) assert_true(add(5, i) != 0);
    assert_int_equal(timers_fire(&timers, 5), 1000);
    for (uintptr_t i = 0; i < 1000; i++) assert_int_equal(fired[i], i);
}

static void a_cancelled_one_does_not_fire_and_its_number_is_dead(void **unused)
{
    (void)unused;
    uint64_t first = add(5, 1);
    assert_true(timers_cancel(&timers, first));
    assert_false(timers_cancel(&timers, first));
    uint64_t second = add(5, 2); /* in the same place */
    assert_true(second != first);
    assert_false(timers_cancel(&timers, first));
    assert_int_equal(timers_fire(&timers, 5), 1);
    assert_int_equal(fired[0], 2);
    assert_false(timers_cancel(&timers, second));
    assert_false(timers_cancel(&timers, 0));
    assert_false(timers_cancel(&timers, UINT64_MAX));
}

static void add_again(const struct timer_call *call)
{
    assert_true(timers_add(&timers, 0, call) != 0);
    fired_count++;
}

static void one_that_adds_itself_fires_once_a_call(void **unused)
{
    (void)unused;
    const struct timer_call call = {.function = add_again};
    assert_true(timers_add(&timers, 0, &call) != 0);
    assert_int_equal(timers_fire(&timers, 100), 1);
    assert_int_equal(timers_fire(&timers, 100), 1);
    assert_int_equal(fired_count, 2);
}

/* Against a list that is searched from end to end. */
static void any_order_of_adding_and_cancelling_is_right(void **unused)
{
    (void)unused;
    struct {
        uint64_t due_ns;
        uint64_t number;
    } model[2000] = {0};
    struct rng rng;
    uint64_t now_ns = 0;
    rng_init(&rng, 7);
    for (uintptr_t i = 1; i < 2000; i++) {
        model[i].due_ns = now_ns + rng_next(&rng) % 100;
        model[i].number = add(model[i].due_ns, i);
        uint64_t other = rng_next(&rng) % i;
        if (rng_next(&rng) % 3 == 0) {
            bool runs = model[other].number != 0;
            assert_int_equal(timers_cancel(&timers, model[other].number), runs);
            model[other].number = 0;
        }
        now_ns += rng_next(&rng) % 3;
        fired_count = 0;
        timers_fire(&timers, now_ns);
        for (unsigned j = 0; j < fired_count; j++) {
            assert_true(model[fired[j]].number != 0);
            assert_true(model[fired[j]].due_ns <= now_ns);
            if (j > 0) assert_true(model[fired[j - 1]].due_ns <= model[fired[j]].due_ns);
            model[fired[j]].number = 0;
        }
        for (uintptr_t j = 1; j <= i; j++)
            assert_true(model[j].number == 0 || model[j].due_ns > now_ns);
    }
}

static void without_memory_none_is_added(void **unused)
{
    (void)unused;
    memory_fail_from(1);
    uint64_t number = add(5, 1);
    memory_fail_after(0);
    assert_int_equal(number, 0);
    memory_fail_after(2);
    number = add(5, 1);
    memory_fail_after(0);
    assert_int_equal(number, 0);
    assert_true(add(5, 1) != 0);
    assert_int_equal(timers_fire(&timers, 5), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(they_fire_in_the_order_of_their_times),
        TEST(those_of_one_time_fire_in_the_order_of_adding),
        TEST(a_cancelled_one_does_not_fire_and_its_number_is_dead),
        TEST(one_that_adds_itself_fires_once_a_call),
        TEST(any_order_of_adding_and_cancelling_is_right),
        TEST(without_memory_none_is_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
