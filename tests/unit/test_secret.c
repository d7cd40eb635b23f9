/*
 * Secrets: which files hold one, and which bytes equal one.
 */
#include "base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/fero-secret-XXXXXX";

static void put_file(const void *data, size_t bytes, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, bytes), bytes);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static enum secret_fault fault_of(const void *data, size_t bytes, mode_t mode)
{
    struct secret *secret;
    int err;
    put_file(data, bytes, mode);
    enum secret_fault fault = secret_read(path, &secret, &err);
    if (fault != SECRET_NO_FAULT) assert_null(secret);
    secret_put(secret);
    return fault;
}

static struct secret *secret_of(const void *data, size_t bytes)
{
    struct secret *secret;
    int err;
    put_file(data, bytes, 0600);
    assert_int_equal(secret_read(path, &secret, &err), SECRET_NO_FAULT);
    return secret;
}

static void one_newline_at_its_end_is_none_of_it(void **unused)
{
    (void)unused;
    static const struct {
        const char *file;
        const char *secret;
    } cases[] = {{"token", "token"},       {"token\n", "token"},   {"token\r\n", "token"},
                 {"token\n\n", "token\n"}, {"to\nken", "to\nken"}, {" token ", " token "}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct secret *secret = secret_of(cases[i].file, strlen(cases[i].file));
        assert_int_equal(secret->bytes, strlen(cases[i].secret));
        assert_memory_equal(secret->data, cases[i].secret, secret->bytes);
        secret_put(secret);
    }
}

static void it_has_1_to_256_bytes(void **unused)
{
    (void)unused;
    char longest[SECRET_BYTES_MAX + 3];
    memset(longest, 'x', sizeof longest);
    assert_int_equal(fault_of("", 0, 0600), SECRET_EMPTY);
    assert_int_equal(fault_of("\n", 1, 0600), SECRET_EMPTY);
    assert_int_equal(fault_of("\r\n", 2, 0600), SECRET_EMPTY);
    assert_int_equal(fault_of("x", 1, 0600), SECRET_NO_FAULT);
    assert_int_equal(fault_of(longest, SECRET_BYTES_MAX, 0600), SECRET_NO_FAULT);
    assert_int_equal(fault_of(longest, SECRET_BYTES_MAX + 1, 0600), SECRET_TOO_LONG);
    assert_int_equal(fault_of(longest, SECRET_BYTES_MAX + 3, 0600), SECRET_TOO_LONG);
    longest[SECRET_BYTES_MAX] = '\n';
    assert_int_equal(fault_of(longest, SECRET_BYTES_MAX + 1, 0600), SECRET_NO_FAULT);
}

static void only_its_owner_may_read_the_file(void **unused)
{
    (void)unused;
    assert_int_equal(fault_of("token", 5, 0600), SECRET_NO_FAULT);
    assert_int_equal(fault_of("token", 5, 0400), SECRET_NO_FAULT);
    assert_int_equal(fault_of("token", 5, 0640), SECRET_OPEN_TO_OTHERS);
    assert_int_equal(fault_of("token", 5, 0620), SECRET_OPEN_TO_OTHERS);
    assert_int_equal(fault_of("token", 5, 0604), SECRET_OPEN_TO_OTHERS);
    assert_int_equal(fault_of("token", 5, 0602), SECRET_OPEN_TO_OTHERS);
    put_file("", 0, 0600);
}

static void what_is_no_file_is_named_so(void **unused)
{
    (void)unused;
    struct secret *secret;
    int err;
    assert_int_equal(secret_read("/", &secret, &err), SECRET_NO_FILE);
    assert_int_equal(secret_read("/dev/null", &secret, &err), SECRET_NO_FILE);
    assert_int_equal(secret_read("/nowhere/token", &secret, &err), SECRET_NOT_READABLE);
    assert_int_equal(err, -ENOENT);
    assert_null(secret);
}

/* Every length against every other one, with the same bytes: only the length tells. */
static void only_its_own_length_is_equal(void **unused)
{
    (void)unused;
    uint8_t zeros[SECRET_BYTES_MAX] = {0};
    for (size_t bytes = 1; bytes <= SECRET_BYTES_MAX; bytes += 15) {
        struct secret *secret = secret_of(zeros, bytes);
        for (size_t given = 0; given <= SECRET_BYTES_MAX; given++)
            assert_int_equal(secret_equals(secret, (struct bytes){zeros, given}), given == bytes);
        secret_put(secret);
    }
}

static void every_bit_counts(void **unused)
{
    (void)unused;
    uint8_t bytes[SECRET_BYTES_MAX];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7 + 1);
    struct secret *secret = secret_of(bytes, sizeof bytes);
    assert_true(secret_equals(secret, (struct bytes){bytes, sizeof bytes}));
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(secret_equals(secret, (struct bytes){bytes, sizeof bytes}));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_false(secret_equals(secret, (struct bytes){NULL, 0}));
    secret_put(secret);
}

/* Its page is marked in the kernel's list of mappings: "dd" is "not in core dumps". */
static void it_is_not_in_core_dumps(void **unused)
{
    (void)unused;
    struct secret *secret = secret_of("token", 5);
    FILE *maps = fopen("/proc/self/smaps", "re");
    char line[512];
    bool is_ours = false;
    bool is_marked = false;
    if (maps == NULL) skip();
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long first;
        unsigned long end;
        if (sscanf(line, "%lx-%lx ", &first, &end) == 2)
            is_ours = (uintptr_t)secret >= first && (uintptr_t)secret < end;
        if (is_ours && strncmp(line, "VmFlags:", 8) == 0) is_marked = strstr(line, " dd") != NULL;
    }
    fclose(maps);
    assert_true(is_marked);
    secret_put(secret);
}

static int make_file(void **unused)
{
    (void)unused;
    int fd = mkstemp(path);
    if (fd < 0) return -1;
    return close(fd);
}

static int remove_file(void **unused)
{
    (void)unused;
    return unlink(path);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_newline_at_its_end_is_none_of_it),
        cmocka_unit_test(it_has_1_to_256_bytes),
        cmocka_unit_test(only_its_owner_may_read_the_file),
        cmocka_unit_test(what_is_no_file_is_named_so),
        cmocka_unit_test(only_its_own_length_is_equal),
        cmocka_unit_test(every_bit_counts),
        cmocka_unit_test(it_is_not_in_core_dumps),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
