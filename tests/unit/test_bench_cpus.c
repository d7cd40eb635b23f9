/*
 * Which processor does what in a bench.
 */
#include "bench/cpus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* A plan for processors 10, 11, ..., whatever this machine has. */
static struct cpus_plan plan_for(uint32_t cpus, uint32_t clients, uint32_t servers)
{
    struct cpu_list allowed = {.count = cpus};
    struct cpus_plan plan;
    for (uint32_t i = 0; i < cpus; i++) allowed.cpus[i] = (uint16_t)(10 + i);
    cpus_plan_for(&plan, &allowed, clients, servers);
    return plan;
}

static void two_sides_share_no_cpu_where_there_are_enough(void **state)
{
    (void)state;
    for (uint32_t cpus = 2; cpus <= 9; cpus++) {
        for (uint32_t clients = 1; clients <= 9; clients++) {
            for (uint32_t servers = 1; servers <= 9; servers++) {
                struct cpus_plan plan = plan_for(cpus, clients, servers);
                assert_false(plan.is_shared);
                assert_int_equal(plan.is_crowded, clients + servers > cpus);
                for (uint32_t c = 0; c < clients; c++)
                    for (uint32_t s = 0; s < servers; s++)
                        assert_true(cpus_of_client(&plan, c) < cpus_of_server(&plan, s));
            }
        }
    }
}

static void threads_have_a_cpu_each_where_there_are_enough(void **state)
{
    (void)state;
    struct cpus_plan plan = plan_for(5, 2, 3);
    assert_int_equal(cpus_of_client(&plan, 0), 10);
    assert_int_equal(cpus_of_client(&plan, 1), 11);
    assert_int_equal(cpus_of_server(&plan, 0), 14);
    assert_int_equal(cpus_of_server(&plan, 1), 13);
    assert_int_equal(cpus_of_server(&plan, 2), 12);
}

static void one_cpu_is_shared_and_that_is_said(void **state)
{
    (void)state;
    char text[CPUS_TEXT_BYTES];
    struct cpus_plan plan = plan_for(1, 1, 1);
    assert_true(plan.is_shared);
    assert_int_equal(cpus_of_client(&plan, 0), cpus_of_server(&plan, 0));
    assert_non_null(strstr(cpus_describe(&plan, text), "only one is allowed"));
}

static void a_description_names_the_cpus(void **state)
{
    (void)state;
    char text[CPUS_TEXT_BYTES];
    struct cpus_plan plan = plan_for(3, 1, 2);
    assert_string_equal(cpus_describe(&plan, text), "clients on cpu 10, servers on cpu 11,12");
    plan = plan_for(2, 1, 2);
    assert_string_equal(cpus_describe(&plan, text),
                        "clients on cpu 10, servers on cpu 11; there are more threads than cpus, "
                        "so they take turns");
}

static void a_long_description_is_cut(void **state)
{
    (void)state;
    char text[CPUS_TEXT_BYTES];
    struct cpus_plan plan = plan_for(CPUS_MAX, 1, CPUS_MAX);
    assert_true(strlen(cpus_describe(&plan, text)) < CPUS_TEXT_BYTES);
}

static void the_machine_has_a_name(void **state)
{
    (void)state;
    char text[CPUS_TEXT_BYTES];
    assert_non_null(strstr(cpus_machine(text), " cpus, Linux "));
    assert_null(strchr(text, '\n'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_sides_share_no_cpu_where_there_are_enough),
        cmocka_unit_test(threads_have_a_cpu_each_where_there_are_enough),
        cmocka_unit_test(one_cpu_is_shared_and_that_is_said),
        cmocka_unit_test(a_description_names_the_cpus),
        cmocka_unit_test(a_long_description_is_cut),
        cmocka_unit_test(the_machine_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
