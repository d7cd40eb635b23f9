/*
 * What is JSON, what a JSON string says, and what stands behind a key.
 */
#include "cli/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/rng.h"

/* Classifies a copy in a block of its own size, so that a sanitizer sees a read past its end. */
static enum json_kind classify(const char *text, size_t bytes)
{
    char *copy = malloc(bytes > 0 ? bytes : 1);
    assert_non_null(copy);
    memcpy(copy, text, bytes);
    enum json_kind kind = json_classify(copy, bytes);
    free(copy);
    return kind;
}

static void json_is_told_from_what_is_not(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        enum json_kind kind;
    } cases[] = {
        {"{}", JSON_OBJECT},
        {" \t\r\n{ } \n", JSON_OBJECT},
        {"{\"a\":1}", JSON_OBJECT},
        {"{ \"a\" : [ ] , \"b\" : { \"c\" : null } }", JSON_OBJECT},
        {"[]", JSON_ARRAY},
        {"[1,2.5,-3e+4,\"x\",true,false,null,[],{}]", JSON_ARRAY},
        {"\"\"", JSON_STRING},
        {"\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\ud83d\\ude00\"", JSON_STRING},
        {"0", JSON_NUMBER},
        {"-0", JSON_NUMBER},
        {"-12.50e-7", JSON_NUMBER},
        {"1E5", JSON_NUMBER},
        {"true", JSON_WORD},
        {"false", JSON_WORD},
        {" null ", JSON_WORD},
        {"", JSON_INVALID},
        {" ", JSON_INVALID},
        {"{", JSON_INVALID},
        {"}", JSON_INVALID},
        {"{]", JSON_INVALID},
        {"[}", JSON_INVALID},
        {"[1", JSON_INVALID},
        {"[1,", JSON_INVALID},
        {"[1,]", JSON_INVALID},
        {"[,1]", JSON_INVALID},
        {"[1 2]", JSON_INVALID},
        {"{\"a\"}", JSON_INVALID},
        {"{\"a\":}", JSON_INVALID},
        {"{\"a\":1,}", JSON_INVALID},
        {"{a:1}", JSON_INVALID},
        {"{1:1}", JSON_INVALID},
        {"{\"a\" 1}", JSON_INVALID},
        {"[] []", JSON_INVALID},
        {"1 2", JSON_INVALID},
        {"01", JSON_INVALID},
        {"-", JSON_INVALID},
        {"+1", JSON_INVALID},
        {".5", JSON_INVALID},
        {"1.", JSON_INVALID},
        {"1e", JSON_INVALID},
        {"1e+", JSON_INVALID},
        {"0x10", JSON_INVALID},
        {"NaN", JSON_INVALID},
        {"True", JSON_INVALID},
        {"nul", JSON_INVALID},
        {"nullx", JSON_INVALID},
        {"\"", JSON_INVALID},
        {"\"a", JSON_INVALID},
        {"\"\\\"", JSON_INVALID},
        {"\"\\x\"", JSON_INVALID},
        {"\"\\u12g4\"", JSON_INVALID},
        {"\"\\u123\"", JSON_INVALID},
        {"\"\\ud800\"", JSON_INVALID},
        {"\"\\udc00\"", JSON_INVALID},
        {"\"\\ud800\\u0041\"", JSON_INVALID},
        {"\"a\nb\"", JSON_INVALID},
        {"\"\xff\"", JSON_INVALID},
        {"\"\xc0\x80\"", JSON_INVALID},
        {"\"\xed\xa0\x80\"", JSON_INVALID},
        {"'a'", JSON_INVALID},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        if (classify(cases[i].text, strlen(cases[i].text)) != cases[i].kind)
            fail_msg("%s is not %d", cases[i].text, (int)cases[i].kind);
    assert_int_equal(classify("\"a\0b\"", 5), JSON_INVALID);
    assert_int_equal(classify("[1]\0", 4), JSON_INVALID);
}

static void every_cut_of_a_container_is_invalid(void **unused)
{
    (void)unused;
    static const char text[] = "{\"a\":[1,{\"b\":\"\\u00e4\xc3\xa4\"},null],\"c\":-1.5e3}";
    for (size_t cut = 0; cut + 1 < sizeof text; cut++)
        assert_int_equal(classify(text, cut), JSON_INVALID);
    assert_int_equal(classify(text, sizeof text - 1), JSON_OBJECT);
}

static void containers_nest_up_to_a_bound(void **unused)
{
    (void)unused;
    static char text[2 * (JSON_DEPTH_MAX + 2)];
    for (size_t depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 2; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        /* The innermost one is empty and needs no place. */
        assert_int_equal(classify(text, 2 * depth),
                         depth <= JSON_DEPTH_MAX + 1 ? JSON_ARRAY : JSON_INVALID);
    }
    static char deep[100000];
    memset(deep, '[', sizeof deep);
    assert_int_equal(classify(deep, sizeof deep), JSON_INVALID);
}

static void random_bytes_do_no_harm(void **unused)
{
    (void)unused;
    static const char letters[] = "{}[]\",:\\u019e.-+truefalsn \xc3\xa4";
    struct rng rng;
    rng_init(&rng, 3);
    for (unsigned i = 0; i < 100000; i++) {
        char text[24];
        size_t bytes = (size_t)rng_below(&rng, sizeof text);
        for (size_t j = 0; j < bytes; j++) text[j] = letters[rng_below(&rng, sizeof letters)];
        char to[sizeof text];
        if (classify(text, bytes) == JSON_STRING)
            assert_true(json_unescape(text, bytes, to) <= bytes);
    }
}

static void strings_are_unescaped(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        const char *says;
    } cases[] = {
        {"\"\"", ""},
        {" \"a\" ", "a"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00e4\\u20ac\\uD83D\\uDE00\"", "A\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"\"\xc3\xa4\"", "\xc3\xa4"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char to[64];
        size_t bytes = json_unescape(cases[i].text, strlen(cases[i].text), to);
        assert_int_equal(bytes, strlen(cases[i].says));
        assert_memory_equal(to, cases[i].says, bytes);
    }
    char to[8];
    assert_int_equal(json_unescape("\"\\u0000\"", 8, to), 1);
    assert_int_equal(to[0], 0);
}

static void keys_are_looked_up(void **unused)
{
    (void)unused;
    static const char text[] =
        "{\"a\":1,\"aa\":20,\"name\":\"x:y\",\"b\":[{\"a\":300},{\"a\":4000}],"
        "\"say\":\"\\\"a\\\":5\",\"empty\":\"\"}";
    size_t bytes = sizeof text - 1;
    char to[8];
    assert_int_equal(json_sum(text, bytes, "a"), 4301);
    assert_int_equal(json_sum(text, bytes, "aa"), 20);
    assert_int_equal(json_sum(text, bytes, "none"), 0);
    assert_true(json_string(text, bytes, "name", to, sizeof to));
    assert_string_equal(to, "x:y");
    assert_true(json_string(text, bytes, "empty", to, sizeof to));
    assert_string_equal(to, "");
    assert_false(json_string(text, bytes, "a", to, sizeof to));
    assert_false(json_string(text, bytes, "name", to, 3));
    assert_false(json_string("{\"name\":\"x", 10, "name", to, sizeof to));
}

static struct json_span span_of(const char *text)
{
    return (struct json_span){text, strlen(text)};
}

static void members_and_elements_are_walked(void **unused)
{
    (void)unused;
    static const char text[] =
        "{ \"a\" : 1, \"list\":[{\"x\":[1,[2]]},\"]\\\"}\",{}],\"b\":{\"a\":7},\"c\":-1}";
    struct json_span value;
    struct json_span key;
    uint64_t number;
    assert_true(json_find(span_of(text), "a", &value));
    assert_true(json_whole(value, &number));
    assert_int_equal(number, 1);
    assert_true(json_find(span_of(text), "b", &value));
    assert_int_equal(value.bytes, strlen("{\"a\":7}"));
    assert_true(json_find(span_of(text), "c", &value));
    assert_false(json_whole(value, &number));
    assert_false(json_find(span_of(text), "x", &value));
    assert_true(json_find(span_of(text), "list", &value));
    static const char *const elements[] = {"{\"x\":[1,[2]]}", "\"]\\\"}\"", "{}"};
    struct json_span list = value;
    size_t count = 0;
    for (const char *at = NULL; json_element_next(list, &at, &value); count++) {
        assert_true(count < 3);
        assert_int_equal(value.bytes, strlen(elements[count]));
        assert_memory_equal(value.at, elements[count], value.bytes);
    }
    assert_int_equal(count, 3);
    const char *at = NULL;
    assert_false(json_element_next(span_of("[]"), &at, &value));
    assert_false(json_member_next(span_of("{}"), &at, &key, &value));
    assert_false(json_member_next(span_of("[1]"), &at, &key, &value));
}

/* In a block of its own size, so that a sanitizer sees a read past its end. */
static void cut_text_is_walked_no_further(void **unused)
{
    (void)unused;
    static const char text[] = "{\"a\":[1,{\"b\":\"c\\\"\"}],\"d\":2}";
    for (size_t bytes = 0; bytes < sizeof text; bytes++) {
        char *copy = malloc(bytes + 1);
        struct json_span key;
        struct json_span value;
        assert_non_null(copy);
        memcpy(copy, text, bytes);
        char *exact = realloc(copy, bytes > 0 ? bytes : 1);
        assert_non_null(exact);
        struct json_span object = {exact, bytes};
        for (const char *at = NULL; json_member_next(object, &at, &key, &value);) {
            assert_true(value.at >= exact && value.at + value.bytes <= exact + bytes);
            struct json_span element;
            for (const char *in = NULL; json_element_next(value, &in, &element);)
                assert_true(element.at + element.bytes <= exact + bytes);
        }
        free(exact);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_is_told_from_what_is_not),
        cmocka_unit_test(every_cut_of_a_container_is_invalid),
        cmocka_unit_test(containers_nest_up_to_a_bound),
        cmocka_unit_test(random_bytes_do_no_harm),
        cmocka_unit_test(strings_are_unescaped),
        cmocka_unit_test(keys_are_looked_up),
        cmocka_unit_test(members_and_elements_are_walked),
        cmocka_unit_test(cut_text_is_walked_no_further),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
