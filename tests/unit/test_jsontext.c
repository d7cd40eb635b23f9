#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "wire/jsontext.h"

static bool is_valid(const char *text)
{
    return jsontext_is_valid(text, strlen(text));
}

static void what_is_json_is_taken(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}",
        "[]",
        " [ ] ",
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1.5e+10",
        "1E5",
        "\"\"",
        "\"\\u0000\\ud83d\\ude00\\n\\/\"",
        "{\"a\":{\"b\":[1,{\"c\":null},[]]},\"\":0}",
        "\t\r\n {\"a\" : [ 1 , 2 ] } ",
        "\"\xc3\xa4\xf0\x9f\x98\x80\"",
        "{\"a\":1,\"a\":2}",
        "\"a long string without anything in it that stands for something else\""};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        if (!is_valid(texts[i])) fail_msg("%s", texts[i]);
}

static void what_is_no_json_is_not(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        " ",
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        "[1",
                                        "[1,",
                                        "[1,]",
                                        "[,1]",
                                        "{\"a\"}",
                                        "{\"a\":}",
                                        "{\"a\":1,}",
                                        "{a:1}",
                                        "{1:1}",
                                        "[1 2]",
                                        "01",
                                        "+1",
                                        "1.",
                                        ".5",
                                        "1e",
                                        "-",
                                        "tru",
                                        "nul",
                                        "True",
                                        "1 2",
                                        "\"",
                                        "\"a",
                                        "\"\\x\"",
                                        "\"\\u12\"",
                                        "\"\\ud800\"",
                                        "\"\\ud800\\u0041\"",
                                        "\"\\udc00\"",
                                        "\"\n\"",
                                        "\"\xff\"",
                                        "\"\xc3\"",
                                        "\"\xed\xa0\x80\"",
                                        "[1}",
                                        "{\"a\":1]",
                                        "[]]",
                                        "{}{}",
                                        "'a'",
                                        "NaN",
                                        "Infinity",
                                        "// c\n1",
                                        "[\"a\",\"b\"",
                                        "{\"a\":1 \"b\":2}"};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        if (is_valid(texts[i])) fail_msg("%s", texts[i]);
    assert_false(jsontext_is_valid("1\0", 2));
}

static void it_is_told_where_text_stops_being_json(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t valid_bytes;
    } cases[] = {{"", 0},     {"nothing", 0},     {"{\"a\":x}", 5},
                 {"[1,2", 4}, {"{\"a\":1} 2", 8}, {"\"ab\xff\"", 3},
                 {"[1,]", 3}, {"{\"a\":1}", 7},   {"\"0123456789\t\"", 11}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        assert_int_equal(jsontext_valid_bytes(cases[i].text, strlen(cases[i].text)),
                         cases[i].valid_bytes);
}

/* Each byte at each place of a word, in front of each length of a rest. */
static void every_byte_of_a_string_counts(void **state)
{
    (void)state;
    char text[40];
    for (unsigned byte = 1; byte < 256; byte++) {
        bool is_plain = byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
        for (size_t at = 0; at < 20; at++) {
            for (size_t bytes = at + 1; bytes < at + 18; bytes++) {
                memset(text, 'a', sizeof text);
                text[0] = text[bytes + 1] = '"';
                text[1 + at] = (char)byte;
                /* What follows a backslash is an escape: \\a is none. */
                if (jsontext_is_valid(text, bytes + 2) != is_plain)
                    fail_msg("byte %u at %zu of %zu", byte, at, bytes);
            }
        }
    }
}

static void depth_has_a_bound(void **state)
{
    (void)state;
    static char text[2 * JSONTEXT_DEPTH_MAX + 2];
    memset(text, '[', JSONTEXT_DEPTH_MAX);
    memset(text + JSONTEXT_DEPTH_MAX, ']', JSONTEXT_DEPTH_MAX);
    assert_true(jsontext_is_valid(text, (size_t)2 * JSONTEXT_DEPTH_MAX));
    memset(text, '[', JSONTEXT_DEPTH_MAX + 1);
    memset(text + JSONTEXT_DEPTH_MAX + 1, ']', JSONTEXT_DEPTH_MAX + 1);
    assert_false(jsontext_is_valid(text, (size_t)2 * JSONTEXT_DEPTH_MAX + 2));
}

static struct jsontext text_of(const char *text)
{
    assert_true(is_valid(text));
    return jsontext_of(text, strlen(text));
}

static void check_text(struct jsontext value, const char *expected)
{
    assert_int_equal(jsontext_bytes(value), strlen(expected));
    assert_memory_equal(value.at, expected, strlen(expected));
}

static void members_and_elements_are_found(void **state)
{
    (void)state;
    struct jsontext value;
    struct jsontext object = text_of(
        " {\"a\" : [1, {\"x]\":\"}\"} ,\"[\"] , \"b\":-1.5e3,\"\\u0061\":\"last\",\"c\\\"\":null}");
    assert_true(jsontext_member(object, "a", 1, &value));
    check_text(value, "\"last\"");
    assert_true(jsontext_member(object, "b", 1, &value));
    check_text(value, "-1.5e3");
    assert_true(jsontext_member(object, "c\"", 2, &value));
    check_text(value, "null");
    assert_false(jsontext_member(object, "x]", 2, &value));
    struct jsontext array = text_of("[1, {\"x]\":\"}\"} ,\"[\"]");
    assert_int_equal(jsontext_elements_count(array), 3);
    assert_true(jsontext_element(array, 1, &value));
    check_text(value, "{\"x]\":\"}\"}");
    assert_false(jsontext_element(array, 3, &value));
    assert_int_equal(jsontext_elements_count(text_of("[ ]")), 0);
}

static void check_value(const char *text, enum value_type type, const void *bytes, size_t count)
{
    struct jsontext_value value;
    uint8_t copy[64];
    jsontext_value(&value, text_of(text));
    assert_int_equal(value.type, type);
    assert_int_equal(value.bytes, count);
    jsontext_value_copy(copy, &value);
    if (count > 0) assert_memory_equal(copy, bytes, count);
}

static void values_get_their_own_types(void **state)
{
    (void)state;
    int64_t whole = INT64_MIN;
    double number = 1.5;
    check_value("-9223372036854775808", VALUE_INT64, &whole, 8);
    whole = INT64_MAX;
    check_value(" 9223372036854775807 ", VALUE_INT64, &whole, 8);
    check_value("9223372036854775808", VALUE_JSON, "9223372036854775808", 19);
    check_value("1.5", VALUE_DOUBLE, &number, 8);
    number = 100;
    check_value("1e2", VALUE_DOUBLE, &number, 8);
    number = -0.0;
    check_value("-0", VALUE_DOUBLE, &number, 8);
    check_value("1e999", VALUE_JSON, "1e999", 5);
    check_value("true", VALUE_BOOL, "\1", 1);
    check_value("false", VALUE_BOOL, "\0", 1);
    check_value("null", VALUE_NULL, NULL, 0);
    check_value("\"a\"", VALUE_STRING, "a", 1);
    check_value("\"\\u00e4\\ud83d\\ude00\\n\"", VALUE_STRING, "\xc3\xa4\xf0\x9f\x98\x80\n", 7);
    check_value("[1, 2]", VALUE_JSON, "[1, 2]", 6);
}

static void check_put(enum value_type type, const void *value, size_t bytes, const char *expected)
{
    uint8_t text[256];
    struct jsontext_out measured = {.to = NULL};
    struct jsontext_out out = {.to = text};
    jsontext_put_value(&measured, type, value, bytes);
    jsontext_put_value(&out, type, value, bytes);
    assert_int_equal(measured.bytes, out.bytes);
    assert_int_equal(out.bytes, strlen(expected));
    assert_memory_equal(text, expected, out.bytes);
}

static void check_double(double number, const char *expected)
{
    check_put(VALUE_DOUBLE, &number, sizeof number, expected);
    if (isfinite(number)) assert_true(strtod(expected, NULL) == number);
}

static void values_are_written_exactly(void **state)
{
    (void)state;
    int64_t whole = INT64_MIN;
    check_put(VALUE_INT64, &whole, 8, "-9223372036854775808");
    check_double(5, "5.0");
    check_double(0.1, "0.1");
    check_double(0.1 + 0.2, "0.30000000000000004");
    check_double(1e300, "1e+300");
    check_double(-0.0, "-0.0");
    check_double(5e-324, "4.94065645841247e-324");
    check_double((double)INFINITY, "null");
    check_double((double)NAN, "null");
    check_put(VALUE_STRING, "a\"\\/\n\t\x01\x7f\xc3\xa4", 10,
              "\"a\\\"\\\\/\\n\\t\\u0001\x7f\xc3\xa4\"");
    check_put(VALUE_BYTES, "\x00\xff", 2, "\"00ff\"");
    check_put(VALUE_BOOL, "\1", 1, "true");
    check_put(VALUE_NULL, NULL, 0, "null");
    check_put(VALUE_UNDEFINED, NULL, 0, "null");
    check_put(VALUE_JSON, "[1, 2]", 6, "[1, 2]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_json_is_taken),
        cmocka_unit_test(what_is_no_json_is_not),
        cmocka_unit_test(it_is_told_where_text_stops_being_json),
        cmocka_unit_test(every_byte_of_a_string_counts),
        cmocka_unit_test(depth_has_a_bound),
        cmocka_unit_test(members_and_elements_are_found),
        cmocka_unit_test(values_get_their_own_types),
        cmocka_unit_test(values_are_written_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
