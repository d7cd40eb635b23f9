/*
 * Values and numbers between the command line and the cache.
 */
#include "cli/value.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "cli/number.h"

static const char *read_as(fero_val *value, const char *text, enum value_as as)
{
    static char scratch[2000];
    assert_true(strlen(text) < sizeof scratch);
    return value_read(value, text, strlen(text), as, scratch);
}

/* What `value` looks like on paper. */
static const char *printed(const fero_val *value, void (*put)(FILE *, const fero_val *))
{
    static char *text;
    size_t bytes;
    free(text);
    FILE *to = open_memstream(&text, &bytes);
    assert_non_null(to);
    put(to, value);
    fclose(to);
    return text;
}

static void the_type_is_guessed(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        int32_t type;
        const char *json;
    } cases[] = {
        {"david", FERO_T_STRING, "\"david\""},
        {"", FERO_T_STRING, "\"\""},
        {"\"28\"", FERO_T_STRING, "\"28\""},
        {"\"a\\n\"", FERO_T_STRING, "\"a\\n\""},
        {"28", FERO_T_INT64, "28"},
        {" -28 ", FERO_T_INT64, "-28"},
        {"-0", FERO_T_DOUBLE, "-0"},
        {"9223372036854775807", FERO_T_INT64, "9223372036854775807"},
        {"-9223372036854775808", FERO_T_INT64, "-9223372036854775808"},
        {"9223372036854775808", FERO_T_DOUBLE, "9.223372036854776e+18"},
        {"1.5", FERO_T_DOUBLE, "1.5"},
        {"1e3", FERO_T_DOUBLE, "1000"},
        {"0.1", FERO_T_DOUBLE, "0.1"},
        {"1e999", FERO_T_JSON, "1e999"}, /* it is JSON, but no double */
        {"true", FERO_T_BOOL, "true"},
        {" false", FERO_T_BOOL, "false"},
        {"null", FERO_T_NULL, "null"},
        {"undefined", FERO_T_STRING, "\"undefined\""},
        {"{\"a\":1}", FERO_T_JSON, "{\"a\":1}"},
        {"[1]", FERO_T_JSON, "[1]"},
        {"{a}", FERO_T_STRING, "\"{a}\""},
        {"\xff\x01", FERO_T_BYTES, "\"ff01\""},
        {"\x01\x7f", FERO_T_STRING, "\"\\u0001\\u007f\""},
        {"0x10", FERO_T_STRING, "\"0x10\""},
        {"nan", FERO_T_STRING, "\"nan\""},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        fero_val value;
        assert_null(read_as(&value, cases[i].text, VALUE_AS_AUTO));
        if (value.type != cases[i].type)
            fail_msg("%s is %s", cases[i].text, value_type_name(value.type));
        assert_string_equal(printed(&value, value_put_json), cases[i].json);
    }
}

static void a_type_that_is_named_is_kept_to(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        enum value_as as;
        int32_t type; /* -1: refused */
        const char *plain;
    } cases[] = {
        {"28", VALUE_AS_STRING, FERO_T_STRING, "28\n"},
        {"\xff", VALUE_AS_STRING, -1, "UTF-8"},
        {"\xff", VALUE_AS_BYTES, FERO_T_BYTES, "\xff"},
        {"28", VALUE_AS_DOUBLE, FERO_T_DOUBLE, "28\n"},
        {"1e999", VALUE_AS_DOUBLE, -1, "a number"},
        {"-1e-999", VALUE_AS_DOUBLE, FERO_T_DOUBLE, "-0\n"},
        {"inf", VALUE_AS_DOUBLE, FERO_T_DOUBLE, "inf\n"},
        {"", VALUE_AS_DOUBLE, -1, "a number"},
        {" 1", VALUE_AS_DOUBLE, -1, "a number"},
        {"1 ", VALUE_AS_DOUBLE, -1, "a number"},
        {"1.5x", VALUE_AS_DOUBLE, -1, "a number"},
        {"-5", VALUE_AS_INT64, FERO_T_INT64, "-5\n"},
        {"+5", VALUE_AS_INT64, -1, "whole number"},
        {"1.0", VALUE_AS_INT64, -1, "whole number"},
        {"9223372036854775808", VALUE_AS_INT64, -1, "2^63"},
        {"", VALUE_AS_INT64, -1, "whole number"},
        {"{}", VALUE_AS_JSON, FERO_T_JSON, "{}\n"},
        {"david", VALUE_AS_JSON, -1, "JSON"},
        {"true", VALUE_AS_BOOL, FERO_T_BOOL, "true\n"},
        {"false", VALUE_AS_BOOL, FERO_T_BOOL, "false\n"},
        {"1", VALUE_AS_BOOL, -1, "true or false"},
        {"", VALUE_AS_NULL, FERO_T_NULL, "null\n"},
        {"null", VALUE_AS_NULL, FERO_T_NULL, "null\n"},
        {"0", VALUE_AS_NULL, -1, "null"},
        {"", VALUE_AS_UNDEFINED, FERO_T_UNDEFINED, "undefined\n"},
        {"null", VALUE_AS_UNDEFINED, -1, "undefined"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        fero_val value;
        const char *expected = read_as(&value, cases[i].text, cases[i].as);
        if (cases[i].type < 0) {
            assert_non_null(expected);
            assert_non_null(strstr(expected, cases[i].plain));
            continue;
        }
        assert_null(expected);
        assert_int_equal(value.type, cases[i].type);
        assert_string_equal(printed(&value, value_put_plain), cases[i].plain);
    }
}

static void doubles_read_back_as_they_were(void **unused)
{
    (void)unused;
    static const double numbers[] = {0.1,           1.0 / 3, 5e-324, 1.7976931348623157e308,
                                     123456789.125, -0.0,    1e21,   1e22,
                                     4.35,          2.5e-8};
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++) {
        fero_val value = {.type = FERO_T_DOUBLE, .num = numbers[i]};
        fero_val back;
        char text[64];
        snprintf(text, sizeof text, "%s", printed(&value, value_put_json));
        assert_null(read_as(&back, text, VALUE_AS_DOUBLE));
        assert_memory_equal(&back.num, &numbers[i], sizeof numbers[i]);
    }
    fero_val value = {.type = FERO_T_DOUBLE, .num = INFINITY};
    assert_string_equal(printed(&value, value_put_json), "null");
    value.num = NAN;
    assert_string_equal(printed(&value, value_put_json), "null");
}

static void json_is_printed_as_one_line_of_json(void **unused)
{
    (void)unused;
    const struct {
        const char *text;
        const char *printed;
    } cases[] = {{"{\n  \"a\": [1,\r\n2]\n}\n", "{   \"a\": [1,  2] } "},
                 {"{\"a\":\"\\n\"}", "{\"a\":\"\\n\"}"},
                 {"{\"a\":", "\"{\\\"a\\\":\""},
                 {"", "\"\""}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        fero_val value = {.type = FERO_T_JSON, .s = fero_str(cases[i].text)};
        assert_string_equal(printed(&value, value_put_json), cases[i].printed);
    }
}

static void a_long_number_is_no_overflow(void **unused)
{
    (void)unused;
    static char text[1000];
    fero_val value;
    memset(text, '7', 600);
    assert_null(read_as(&value, text, VALUE_AS_AUTO));
    assert_int_equal(value.type, FERO_T_JSON);
    assert_non_null(read_as(&value, text, VALUE_AS_DOUBLE));
    assert_non_null(read_as(&value, text, VALUE_AS_INT64));
}

/* -------------------------------------------------------------------------------- numbers */

static void numbers_are_whole(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        int err;
        int64_t number;
    } cases[] = {
        {"0", 0, 0},
        {"-7", 0, -7},
        {"+7", 0, 7},
        {"", -EINVAL, 0},
        {"-", -EINVAL, 0},
        {"+", -EINVAL, 0},
        {"7x", -EINVAL, 0},
        {" 7", -EINVAL, 0},
        {"x", -EINVAL, 0},
        {"1.5", -EINVAL, 0},
        {"9223372036854775807", 0, INT64_MAX},
        {"9223372036854775808", -ERANGE, 0},
        {"-9223372036854775809", -ERANGE, 0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        int64_t number = 0;
        assert_int_equal(number_parse(cases[i].text, &number), cases[i].err);
        assert_int_equal(number, cases[i].number);
    }
}

static void sizes_have_units(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        int err;
        int64_t bytes;
        bool has_unit;
    } cases[] = {
        {"0", 0, 0, false},
        {"64", 0, 64, false},
        {"64B", 0, 64, true},
        {"64k", 0, 65536, true},
        {"64K", 0, 65536, true},
        {"64kB", 0, 65536, true},
        {"64KiB", 0, 65536, true},
        {"1.5M", 0, 3 << 19, true},
        {"0.5g", 0, 1 << 29, true},
        {"2T", 0, (int64_t)2 << 40, true},
        {"2.0", 0, 2, false},
        {"1.0009k", 0, 1024, true},
        {"2.5", -EINVAL, 0, false},
        {"1.k", -EINVAL, 0, false},
        {".5k", -EINVAL, 0, false},
        {"", -EINVAL, 0, false},
        {"k", -EINVAL, 0, false},
        {"-1k", -EINVAL, 0, false},
        {"1kk", -EINVAL, 0, false},
        {"1kbit", -EINVAL, 0, false},
        {"1P", -EINVAL, 0, false},
        {"1 k", -EINVAL, 0, false},
        {"9223372036854775808", -ERANGE, 0, false},
        {"99999999999999999999", -ERANGE, 0, false},
        {"8388608T", -ERANGE, 0, false},
        {"8388606T", 0, (int64_t)8388606 << 40, true},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        int64_t bytes = 0;
        bool has_unit = false;
        if (size_parse(cases[i].text, &bytes, &has_unit) != cases[i].err)
            fail_msg("%s", cases[i].text);
        assert_int_equal(bytes, cases[i].bytes);
        assert_int_equal(has_unit, cases[i].has_unit);
    }
}

static void sizes_read_well(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0 bytes"},           {1023, "1023 bytes"},      {1024, "1 KiB"},
                 {1536, "1.5 KiB"},        {64 * KIB, "64 KiB"},      {MIB - 1, "1.0 MiB"},
                 {5 * GIB / 2, "2.5 GiB"}, {3 * GIB * 1024, "3 TiB"}, {GIB - 1, "1.0 GiB"}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char text[SIZE_TEXT_BYTES];
        assert_string_equal(size_format(cases[i].bytes, text), cases[i].text);
    }
    char text[SIZE_TEXT_BYTES];
    assert_true(strlen(size_format(UINT64_MAX, text)) < SIZE_TEXT_BYTES);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_type_is_guessed),
        cmocka_unit_test(a_type_that_is_named_is_kept_to),
        cmocka_unit_test(doubles_read_back_as_they_were),
        cmocka_unit_test(json_is_printed_as_one_line_of_json),
        cmocka_unit_test(a_long_number_is_no_overflow),
        cmocka_unit_test(numbers_are_whole),
        cmocka_unit_test(sizes_have_units),
        cmocka_unit_test(sizes_read_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
