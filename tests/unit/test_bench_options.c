/*
 * What the benches with servers have in common on the command line.
 */
#include "bench/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"

struct fields {
    struct options_common common;
};

static const struct option_spec specs[] = {OPTIONS_COMMON_SPECS(struct fields, common)};
static const struct command command = {.name = "bench test",
                                       .arguments = "",
                                       .summary = "",
                                       .options = specs,
                                       .options_count = ARRAY_COUNT(specs)};

static int parse(struct fields *fields, const char *first, const char *second)
{
    char *arguments[] = {(char *)(uintptr_t)first, (char *)(uintptr_t)second};
    int count;
    *fields = (struct fields){.common = OPTIONS_COMMON_DEFAULT};
    return command_parse(&command, second != NULL ? 2 : first != NULL, arguments, fields, &count);
}

static void defaults_are_one_shard_of_demo(void **state)
{
    (void)state;
    struct fields fields;
    assert_int_equal(parse(&fields, NULL, NULL), COMMAND_GO_ON);
    assert_null(fields.common.seeds);
    assert_string_equal(fields.common.name, "demo");
    assert_int_equal(fields.common.shards, 1);
    assert_int_equal(options_waiting(&fields.common), NODES_ADAPTIVE);
}

static void waiting_is_what_was_asked_for(void **state)
{
    (void)state;
    struct fields fields;
    assert_int_equal(parse(&fields, "--busy-poll", NULL), COMMAND_GO_ON);
    assert_int_equal(options_waiting(&fields.common), NODES_BUSY_POLL);
    assert_int_equal(parse(&fields, "--idle", NULL), COMMAND_GO_ON);
    assert_int_equal(options_waiting(&fields.common), NODES_SLEEP);
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    struct fields fields;
    assert_int_equal(parse(&fields, "--busy-poll", "--idle"), COMMAND_GO_ON);
    assert_int_equal(options_settle(&command, &fields.common, true), STATUS_USAGE);
    assert_int_equal(parse(&fields, "--seeds", "127.0.0.1:1"), COMMAND_GO_ON);
    assert_int_equal(options_settle(&command, &fields.common, true), STATUS_USAGE);
}

static void seeds_of_the_user_are_kept(void **state)
{
    (void)state;
    struct fields fields;
    assert_int_equal(parse(&fields, "--seeds", "127.0.0.1:1"), COMMAND_GO_ON);
    assert_int_equal(options_settle(&command, &fields.common, false), COMMAND_GO_ON);
    assert_string_equal(fields.common.seeds, "127.0.0.1:1");
}

static void own_servers_need_no_seeds(void **state)
{
    (void)state;
    struct fields fields;
    assert_int_equal(parse(&fields, NULL, NULL), COMMAND_GO_ON);
    assert_int_equal(options_settle(&command, &fields.common, true), COMMAND_GO_ON);
    assert_null(fields.common.seeds);
}

static void shards_have_bounds(void **state)
{
    (void)state;
    struct fields fields;
    assert_int_equal(parse(&fields, "--shards", "256"), COMMAND_GO_ON);
    assert_int_equal(fields.common.shards, 256);
    assert_int_equal(parse(&fields, "--shards", "0"), STATUS_USAGE);
    assert_int_equal(parse(&fields, "--shards", "257"), STATUS_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_one_shard_of_demo),
        cmocka_unit_test(waiting_is_what_was_asked_for),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(seeds_of_the_user_are_kept),
        cmocka_unit_test(own_servers_need_no_seeds),
        cmocka_unit_test(shards_have_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
