#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/attr.h"
#include "base/bytes.h"

static bool is_zero(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i] != 0) return false;
    return true;
}

static void reservation_is_zero_and_aligned(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 4095, 4096, 4097, 2 * MIB - 1, 2 * MIB, 5 * MIB + 1};
    for (size_t i = 0; i < 2 * ARRAY_COUNT(sizes); i++) {
        size_t bytes = sizes[i / 2];
        uint8_t *memory = memory_reserve(bytes, i % 2);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory & (i % 2 == 0 ? 4095 : 2 * MIB - 1), 0);
        assert_true(is_zero(memory, bytes));
        memset(memory, 1, bytes);
        memory_release(memory, bytes);
    }
}

/* Far more than the machine has: it is address space, not memory. */
static void reservation_costs_nothing_until_it_is_touched(void **state)
{
    (void)state;
    size_t bytes = 1024 * GIB;
    uint8_t *memory = memory_reserve(bytes, 0);
    if (memory == NULL) skip();
    memory[0] = 1;
    memory[bytes - 1] = 1;
    memory_release(memory, bytes);
}

static void discarded_pages_are_zero_and_their_neighbours_are_not(void **state)
{
    (void)state;
    uint8_t *memory = memory_reserve(64 * KIB, 0);
    assert_non_null(memory);
    memset(memory, 7, 64 * KIB);
    memory_discard(memory + 4096, 8192);
    assert_int_equal(memory[4095], 7);
    assert_true(is_zero(memory + 4096, 8192));
    assert_int_equal(memory[4096 + 8192], 7);
    memory_release(memory, 64 * KIB);
}

static void touching_changes_nothing(void **state)
{
    (void)state;
    uint8_t *memory = memory_reserve(64 * KIB, 0);
    assert_non_null(memory);
    memset(memory, 9, 10000);
    memory_touch(memory, 64 * KIB);
    for (size_t i = 0; i < 10000; i++) assert_int_equal(memory[i], 9);
    assert_true(is_zero(memory + 10000, 64 * KIB - 10000));
    memory_release(memory, 64 * KIB);
}

static void taken_memory_is_zero_and_aligned(void **state)
{
    (void)state;
    for (size_t bytes = 1; bytes < 3000; bytes += 61) {
        uint8_t *memory = memory_take(bytes);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % CACHE_PAIR, 0);
        assert_true(is_zero(memory, bytes));
        memset(memory, 0xff, bytes);
        memory_put(memory);
    }
    memory_put(NULL);
    memory_release(NULL, 5);
}

static void resized_memory_keeps_what_fits_and_is_zero_behind(void **state)
{
    (void)state;
    uint8_t *memory = memory_resize(NULL, 0, 100);
    assert_non_null(memory);
    assert_true(is_zero(memory, 100));
    memset(memory, 3, 100);
    memory = memory_resize(memory, 100, 500);
    assert_non_null(memory);
    for (size_t i = 0; i < 100; i++) assert_int_equal(memory[i], 3);
    assert_true(is_zero(memory + 100, 400));
    memory = memory_resize(memory, 500, 10);
    assert_non_null(memory);
    for (size_t i = 0; i < 10; i++) assert_int_equal(memory[i], 3);
    memory_put(memory);
}

static void failed_resize_leaves_the_memory_as_it_was(void **state)
{
    (void)state;
    uint8_t *memory = memory_take(10);
    assert_non_null(memory);
    memory[9] = 4;
    memory_fail_after(1);
    assert_null(memory_resize(memory, 10, 20));
    memory_fail_after(0);
    assert_int_equal(memory[9], 4);
    memory_put(memory);
}

static void the_nth_call_fails_and_no_other(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 6; n++) {
        uint64_t before = memory_calls_count();
        memory_fail_after(n);
        for (uint64_t call = 1; call <= 8; call++) {
            void *memory = call % 2 == 0 ? memory_take(8) : memory_reserve(4096, 0);
            assert_int_equal(memory == NULL, call == n);
            if (call % 2 == 0)
                memory_put(memory);
            else
                memory_release(memory, 4096);
        }
        assert_int_equal(memory_calls_count() - before, 8);
    }
    memory_fail_after(1);
    memory_fail_after(0);
    void *memory = memory_take(8);
    assert_non_null(memory);
    memory_put(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reservation_is_zero_and_aligned),
        cmocka_unit_test(reservation_costs_nothing_until_it_is_touched),
        cmocka_unit_test(discarded_pages_are_zero_and_their_neighbours_are_not),
        cmocka_unit_test(touching_changes_nothing),
        cmocka_unit_test(taken_memory_is_zero_and_aligned),
        cmocka_unit_test(resized_memory_keeps_what_fits_and_is_zero_behind),
        cmocka_unit_test(failed_resize_leaves_the_memory_as_it_was),
        cmocka_unit_test(the_nth_call_fails_and_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
