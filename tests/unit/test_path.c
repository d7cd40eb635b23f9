#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "wire/path.h"

static uint8_t scratch[256];

static enum path_result read_key(struct path *path, const char *key)
{
    enum path_result result = path_read(path, key, strlen(key), scratch);
    assert_int_equal(path_check(key, strlen(key)), result);
    return result;
}

static void check_part(const struct path *path, unsigned at, const char *name)
{
    assert_int_equal(path->parts[at].bytes, strlen(name));
    assert_memory_equal(path->parts[at].name, name, strlen(name));
}

static void dots_separate_parts(void **state)
{
    (void)state;
    struct path path;
    assert_int_equal(read_key(&path, "28"), PATH_OK);
    assert_int_equal(path.count, 0);
    assert_int_equal(path.partition_bytes, 2);
    assert_int_equal(read_key(&path, "28.address.city"), PATH_OK);
    assert_int_equal(path.count, 2);
    check_part(&path, 0, "address");
    check_part(&path, 1, "city");
    assert_int_equal(path.parts[0].end, 10);
    assert_int_equal(path.parts[1].end, 15);
}

static void a_backslash_makes_a_dot_part_of_a_name(void **state)
{
    (void)state;
    struct path path;
    assert_int_equal(read_key(&path, "a\\.b"), PATH_OK);
    assert_int_equal(path.count, 0);
    assert_int_equal(path.partition_bytes, 4);
    assert_int_equal(read_key(&path, "a\\.b.c\\.d.e\\\\.f\\g"), PATH_OK);
    assert_int_equal(path.count, 3);
    check_part(&path, 0, "c.d");
    check_part(&path, 1, "e\\");
    check_part(&path, 2, "f\\g");
}

static void what_is_no_path_is_named(void **state)
{
    (void)state;
    struct path path;
    static const struct {
        const char *key;
        enum path_result result;
    } cases[] = {{".", PATH_EMPTY_PART},
                 {"", PATH_EMPTY_PART},
                 {".a", PATH_EMPTY_PART},
                 {"a.", PATH_EMPTY_PART},
                 {"a..b", PATH_EMPTY_PART},
                 {"a.b.", PATH_EMPTY_PART},
                 {"a.\xff", PATH_NOT_UTF8},
                 {"a.\xc0\x80", PATH_NOT_UTF8},
                 {"a.\xed\xa0\x80", PATH_NOT_UTF8},
                 {"\xff.a", PATH_OK},
                 {"a\\", PATH_OK}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        assert_int_equal(read_key(&path, cases[i].key), cases[i].result);
}

static void there_are_32_parts_at_most(void **state)
{
    (void)state;
    struct path path;
    char key[128] = "p";
    for (unsigned i = 0; i < PATH_PARTS_MAX; i++) memcpy(key + 1 + 2 * i, ".x", 2);
    assert_int_equal(read_key(&path, key), PATH_OK);
    assert_int_equal(path.count, PATH_PARTS_MAX);
    memcpy(key + 1 + 2 * PATH_PARTS_MAX, ".x", 2);
    assert_int_equal(read_key(&path, key), PATH_TOO_DEEP);
}

static void an_escaped_name_reads_as_it_was(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "a.b", "\\", "\\.", "..", "a\\b.c\\\\", "\\\\."};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        struct path path;
        uint8_t key[64] = "p.";
        size_t bytes = 2 + path_escape(key + 2, names[i], strlen(names[i]));
        assert_int_equal(path_read(&path, key, bytes, scratch), PATH_OK);
        assert_int_equal(path.count, 1);
        check_part(&path, 0, names[i]);
    }
}

static void an_index_is_digits_without_zeros_in_front(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t index; /* -1: none */
    } cases[] = {{"0", 0},           {"7", 7},   {"4294967294", 4294967294},
                 {"4294967295", -1}, {"07", -1}, {"99999999999", -1},
                 {"-1", -1},         {"1a", -1}, {" 1", -1}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct path_part part = {.name = (const uint8_t *)cases[i].text,
                                 .bytes = (uint16_t)strlen(cases[i].text)};
        uint32_t index = 0;
        assert_int_equal(path_index(&part, &index), cases[i].index >= 0);
        if (cases[i].index >= 0) assert_int_equal(index, cases[i].index);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dots_separate_parts),
        cmocka_unit_test(a_backslash_makes_a_dot_part_of_a_name),
        cmocka_unit_test(what_is_no_path_is_named),
        cmocka_unit_test(there_are_32_parts_at_most),
        cmocka_unit_test(an_escaped_name_reads_as_it_was),
        cmocka_unit_test(an_index_is_digits_without_zeros_in_front),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
