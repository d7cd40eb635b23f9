/*
 * The table of distinct errors: what is one error, what is kept of it, and what has no room.
 */
#include "shard/errors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"

static const char *const disk = "the disk is full";
static const char *const key = "no such key";

static const struct error_entry *find(const struct errors *errors, enum error_kind kind,
                                      enum reply_error code, const char *text)
{
    return errors_find(errors, (uintptr_t)text, error_entry_code(kind, code));
}

static void one_that_comes_again_is_counted(void **unused)
{
    (void)unused;
    struct errors errors;
    assert_int_equal(errors_init(&errors, 4), 0);
    errors_note(&errors, ERROR_OF_REPLY, ERROR_NOT_FOUND, key, 1, 2, 1000);
    errors_note(&errors, ERROR_OF_REPLY, ERROR_NOT_FOUND, key, 3, 4, 5000);
    const struct error_entry *entry = find(&errors, ERROR_OF_REPLY, ERROR_NOT_FOUND, key);
    assert_non_null(entry);
    assert_int_equal(entry->count, 2);
    assert_int_equal(entry->first_ms, 1000);
    assert_int_equal(entry->last_ms, 5000);
    assert_int_equal(entry->got, 3);
    assert_int_equal(entry->limit, 4);
    assert_int_equal(errors.count, 1);
    errors_deinit(&errors);
}

static void text_code_and_kind_tell_them_apart(void **unused)
{
    (void)unused;
    struct errors errors;
    assert_int_equal(errors_init(&errors, 8), 0);
    errors_note(&errors, ERROR_OF_REPLY, ERROR_NOT_FOUND, key, 0, 0, 1);
    errors_note(&errors, ERROR_OF_REPLY, ERROR_NOT_FOUND, disk, 0, 0, 1);
    errors_note(&errors, ERROR_OF_REPLY, ERROR_NO_MEMORY, disk, 0, 0, 1);
    errors_note(&errors, ERROR_OF_LINK, ERROR_NO_MEMORY, disk, 0, 0, 1);
    assert_int_equal(errors.count, 4);
    assert_null(find(&errors, ERROR_OF_HANDLER, ERROR_NO_MEMORY, disk));
    assert_null(find(&errors, ERROR_OF_LINK, ERROR_NOT_FOUND, key));
    assert_int_equal(find(&errors, ERROR_OF_LINK, ERROR_NO_MEMORY, disk)->count, 1);
    errors_deinit(&errors);
}

static void the_example_is_that_of_the_first(void **unused)
{
    (void)unused;
    char longest[2 * ERROR_EXAMPLE_BYTES];
    memset(longest, 'x', sizeof longest);
    struct errors errors;
    assert_int_equal(errors_init(&errors, 8), 0);
    errors_note_example(&errors, ERROR_OF_REPLY, ERROR_INVALID, key, bytes_of("key \"a\""), 1);
    errors_note_example(&errors, ERROR_OF_REPLY, ERROR_INVALID, key, bytes_of("key \"b\""), 9);
    const struct error_entry *entry = find(&errors, ERROR_OF_REPLY, ERROR_INVALID, key);
    assert_int_equal(entry->count, 2);
    assert_int_equal(entry->last_ms, 9);
    assert_memory_equal(entry->example, "key \"a\"", entry->example_bytes);
    struct bytes too_long = {longest, sizeof longest};
    errors_note_example(&errors, ERROR_OF_REPLY, ERROR_INVALID, disk, too_long, 1);
    entry = find(&errors, ERROR_OF_REPLY, ERROR_INVALID, disk);
    assert_int_equal(entry->example_bytes, ERROR_EXAMPLE_BYTES - 1);
    errors_deinit(&errors);
}

static void those_without_room_are_counted_together(void **unused)
{
    (void)unused;
    static const char texts[100] = "";
    struct errors errors;
    assert_int_equal(errors_init(&errors, 10), 0);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 100; i++)
            errors_note(&errors, ERROR_OF_REPLY, ERROR_TYPE, texts + i, 0, 0, 1);
    assert_int_equal(errors.count, 10);
    assert_int_equal(errors.others, 3 * 90);
    for (int i = 0; i < 10; i++)
        assert_int_equal(find(&errors, ERROR_OF_REPLY, ERROR_TYPE, texts + i)->count, 3);
    assert_null(find(&errors, ERROR_OF_REPLY, ERROR_TYPE, texts + 10));
    errors_deinit(&errors);
}

/* Another shard may be asked while this one starts. */
static void a_table_that_is_not_there_yet_has_none(void **unused)
{
    (void)unused;
    struct errors errors = {0};
    assert_false(errors_are_ready(&errors));
    assert_null(find(&errors, ERROR_OF_REPLY, ERROR_TYPE, key));
    assert_int_equal(errors_init(&errors, 1), 0);
    assert_true(errors_are_ready(&errors));
    errors_deinit(&errors);
}

static void none_may_be_kept(void **unused)
{
    (void)unused;
    struct errors errors;
    assert_int_equal(errors_init(&errors, 0), 0);
    errors_note(&errors, ERROR_OF_REPLY, ERROR_TYPE, key, 0, 0, 1);
    assert_null(find(&errors, ERROR_OF_REPLY, ERROR_TYPE, key));
    assert_int_equal(errors.others, 1);
    errors_deinit(&errors);
}

static void without_memory_there_is_no_table(void **unused)
{
    (void)unused;
    struct errors errors;
    memory_fail_after(1);
    assert_true(errors_init(&errors, 4) < 0);
    memory_fail_after(0);
    errors_deinit(&errors);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_comes_again_is_counted),
        cmocka_unit_test(text_code_and_kind_tell_them_apart),
        cmocka_unit_test(the_example_is_that_of_the_first),
        cmocka_unit_test(those_without_room_are_counted_together),
        cmocka_unit_test(a_table_that_is_not_there_yet_has_none),
        cmocka_unit_test(none_may_be_kept),
        cmocka_unit_test(without_memory_there_is_no_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
