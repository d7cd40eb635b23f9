/*
 * Whether a promise is kept, and how it is written down.
 */
#include "bench/promise.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "cli/json.h"

static const struct {
    const char *what;
    struct promise promise;
    enum promise_verdict verdict;
    const char *target;
} cases[] = {
    {"a rate at its target",
     {.kind = PROMISE_RATE, .ours = 5, .limit = 10, .target = 0.5, .is_verified = true},
     PROMISE_MET,
     ">= 0.50"},
    {"a rate below its target",
     {.kind = PROMISE_RATE, .ours = 4.9, .limit = 10, .target = 0.5, .is_verified = true},
     PROMISE_MISSED,
     ">= 0.50"},
    {"a rate too low on a fast machine",
     {.kind = PROMISE_RATE,
      .ours = 8.5e6,
      .limit = 17e6,
      .target = 0.5,
      .per_s = 9e6,
      .if_limit_s = 16e6,
      .is_verified = true},
     PROMISE_MISSED,
     ">= 0.50 and 9M/s"},
    {"the same rate on a slower machine",
     {.kind = PROMISE_RATE,
      .ours = 8e6,
      .limit = 15.9e6,
      .target = 0.5,
      .per_s = 9e6,
      .if_limit_s = 16e6,
      .is_verified = true},
     PROMISE_MET,
     ">= 0.50"},
    {"a latency at its target",
     {.kind = PROMISE_LATENCY, .ours = 15, .limit = 10, .target = 1.5, .is_verified = true},
     PROMISE_MET,
     "<= 1.50"},
    {"a latency over its target",
     {.kind = PROMISE_LATENCY, .ours = 15.1, .limit = 10, .target = 1.5, .is_verified = true},
     PROMISE_MISSED,
     "<= 1.50"},
    {"a cost over its target",
     {.kind = PROMISE_COST, .ours = 17, .limit = 10, .target = 1.6, .is_verified = true},
     PROMISE_MISSED,
     "<= 1.60"},
    {"no promise",
     {.kind = PROMISE_RATE, .ours = 1, .limit = 10, .is_verified = true},
     PROMISE_NONE,
     ""},
    {"a good figure with wrong answers",
     {.kind = PROMISE_RATE, .ours = 9, .limit = 10, .target = 0.5},
     PROMISE_UNVERIFIED,
     ">= 0.50"},
    {"no limit",
     {.kind = PROMISE_RATE, .ours = 9, .target = 0.5, .is_verified = true},
     PROMISE_UNVERIFIED,
     ">= 0.50"},
    {"nothing measured",
     {.kind = PROMISE_LATENCY, .limit = 9, .target = 0.5, .is_verified = true},
     PROMISE_UNVERIFIED,
     "<= 0.50"},
};

static void every_case_is_judged_right(void **state)
{
    (void)state;
    char text[PROMISE_TEXT_BYTES];
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        enum promise_verdict verdict = promise_judge(&cases[i].promise);
        if (verdict != cases[i].verdict) print_message("%s\n", cases[i].what);
        assert_int_equal(verdict, cases[i].verdict);
        assert_string_equal(promise_target_text(&cases[i].promise, text), cases[i].target);
    }
}

static void figures_have_their_units(void **state)
{
    (void)state;
    char text[PROMISE_TEXT_BYTES];
    struct promise rate = {.kind = PROMISE_RATE};
    struct promise latency = {.kind = PROMISE_LATENCY};
    struct promise cost = {.kind = PROMISE_COST};
    assert_string_equal(promise_figure_text(&rate, 9210000, text), "9.21M/s");
    assert_string_equal(promise_figure_text(&latency, 8.44, text), "8.4 us");
    assert_string_equal(promise_figure_text(&cost, 81.25, text), "81.2 ns");
}

static const struct promise two[] = {
    {.what = "a \"quoted\" rate",
     .kind = PROMISE_RATE,
     .ours = 6e6,
     .limit = 10e6,
     .server_ns_per_msg = 81.25,
     .target = 0.5,
     .is_verified = true},
    {.what = "a latency",
     .kind = PROMISE_LATENCY,
     .ours = 30,
     .limit = 10,
     .target = 1.5,
     .is_verified = true},
};

static void the_table_has_a_line_for_each(void **state)
{
    (void)state;
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    promise_put_table(to, two, 2);
    fclose(to);
    unsigned lines = 0;
    for (const char *at = text; *at != 0; at++) lines += *at == '\n';
    assert_int_equal(lines, 4);
    assert_non_null(
        strstr(text, "6.00M/s   10.00M/s   0.60     81.2           >= 0.50           met"));
    assert_non_null(
        strstr(text, "30.0 us    10.0 us   3.00                    <= 1.50           missed"));
    free(text);
}

static void json_has_an_object_for_each(void **state)
{
    (void)state;
    for (uint32_t count = 0; count <= 2; count++) {
        char *text = NULL;
        size_t bytes;
        FILE *to = open_memstream(&text, &bytes);
        assert_non_null(to);
        promise_put_json(to, two, count);
        fclose(to);
        assert_int_equal(json_classify(text, bytes), JSON_ARRAY);
        if (count == 2) {
            assert_non_null(strstr(text, "\"what\":\"a \\\"quoted\\\" rate\",\"unit\":\"per_s\""));
            assert_non_null(strstr(text, "\"at_least\":0.50,\"met\":true,\"verified\":true}"));
            assert_non_null(strstr(text, "\"ratio\":3.0000,\"at_most\":1.50,\"met\":false,"));
        }
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_is_judged_right),
        cmocka_unit_test(figures_have_their_units),
        cmocka_unit_test(the_table_has_a_line_for_each),
        cmocka_unit_test(json_has_an_object_for_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
