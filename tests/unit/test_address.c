#include "net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"

#define PORT_DEFAULT 7171

static struct address parsed(const char *text)
{
    struct address address;
    assert_int_equal(address_parse(&address, text, PORT_DEFAULT), 0);
    return address;
}

static void reads_every_form(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *formatted;
    } cases[] = {
        {"127.0.0.1:80", "127.0.0.1:80"},
        {"0.0.0.0:0", "0.0.0.0:0"},
        {"10.1.2.3", "10.1.2.3:7171"},
        {"localhost", "127.0.0.1:7171"},
        {"localhost:65535", "127.0.0.1:65535"},
        {":9000", "127.0.0.1:9000"},
        {"[::1]:80", "[::1]:80"},
        {"[::1]", "[::1]:7171"},
        {"::1", "[::1]:7171"},
        {"::", "[::]:7171"},
        {"[2001:db8::17]:0080", "[2001:db8::17]:80"},
        {"[fe80::1%lo]:80", "[fe80::1%lo]:80"},
        {"[fe80::1%1]:80", "[fe80::1%lo]:80"},
        {"[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char text[ADDRESS_TEXT_BYTES];
        struct address address = parsed(cases[i].text);
        assert_string_equal(address_format(&address, text), cases[i].formatted);
    }
}

static void refuses_what_is_no_address(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        ":",
        "host",
        "example.com:80",
        "1.2.3",
        "1.2.3.4.5",
        "256.0.0.1",
        "1.2.3.4:",
        "1.2.3.4:65536",
        "1.2.3.4:-1",
        "1.2.3.4:8o",
        "1.2.3.4:99999999999999999999",
        "1.2.3.4 :80",
        "[",
        "[]",
        "[]:80",
        "[::1",
        "[::1]80",
        "[::1]:",
        "[1.2.3.4]:80",
        "[localhost]:80",
        "[::1%]:80",
        "[fe80::1%nosuchinterface]:80",
        "::1:zz",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999",
        "11111111111111111111111111111111111111111111111111111111111111111111111111111111111111",
    };
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct address address;
        assert_int_equal(address_parse(&address, texts[i], PORT_DEFAULT), -EINVAL);
    }
}

static void a_formatted_address_reads_back(void **state)
{
    (void)state;
    static const char *const texts[] = {"1.2.3.4:5", "[::1]:6", "[fe80::abcd%lo]:7", "[::]:0"};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        char text[ADDRESS_TEXT_BYTES];
        struct address once = parsed(texts[i]);
        struct address twice = parsed(address_format(&once, text));
        assert_true(address_equal(&once, &twice));
    }
}

/* A link-local address whose interface has no name: the longest text there is. */
static void the_longest_text_fits(void **state)
{
    (void)state;
    char text[ADDRESS_TEXT_BYTES];
    struct address address = {.v6 = {.sin6_family = AF_INET6, .sin6_scope_id = UINT32_MAX}};
    memset(&address.v6.sin6_addr, 0xfe, sizeof address.v6.sin6_addr);
    address_set_port(&address, UINT16_MAX);
    assert_string_equal(address_format(&address, text),
                        "[fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe%4294967295]:65535");
}

static void loopback_is_recognized(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_loopback;
    } cases[] = {
        {"127.0.0.1", true},
        {"127.9.9.9", true},
        {"128.0.0.1", false},
        {"0.0.0.0", false},
        {"10.0.0.127", false},
        {"::1", true},
        {"::2", false},
        {"::", false},
        {"[::ffff:127.0.0.1]", true},
        {"fe80::1%lo", false},
        {"[::ffff:126.0.0.1]", false},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct address address = parsed(cases[i].text);
        assert_int_equal(address_is_loopback(&address), cases[i].is_loopback);
    }
    struct address address = address_loopback(17);
    assert_true(address_is_loopback(&address));
    assert_int_equal(address_port(&address), 17);
}

static void addresses_differ_in_each_part(void **state)
{
    (void)state;
    static const char *const texts[] = {"1.2.3.4:5", "1.2.3.4:6", "1.2.3.5:5",  "[::1]:5",
                                        "[::1]:6",   "[::2]:5",   "[::1%lo]:5", "127.0.0.1:5"};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        for (size_t j = 0; j < ARRAY_COUNT(texts); j++) {
            struct address a = parsed(texts[i]);
            struct address b = parsed(texts[j]);
            assert_int_equal(address_equal(&a, &b), i == j);
        }
    }
}

static void the_port_changes_alone(void **state)
{
    (void)state;
    static const char *const hosts[] = {"1.2.3.4", "::1"};
    for (size_t i = 0; i < ARRAY_COUNT(hosts); i++) {
        struct address before = parsed(hosts[i]);
        struct address after = before;
        address_set_port(&after, 1);
        assert_int_equal(address_port(&after), 1);
        assert_false(address_equal(&before, &after));
        address_set_port(&after, PORT_DEFAULT);
        assert_true(address_equal(&before, &after));
    }
}

static void the_size_is_that_of_the_family(void **state)
{
    (void)state;
    struct address v4 = parsed("1.2.3.4");
    struct address v6 = parsed("::1");
    assert_int_equal(address_bytes(&v4), sizeof(struct sockaddr_in));
    assert_int_equal(address_bytes(&v6), sizeof(struct sockaddr_in6));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_form),
        cmocka_unit_test(refuses_what_is_no_address),
        cmocka_unit_test(a_formatted_address_reads_back),
        cmocka_unit_test(the_longest_text_fits),
        cmocka_unit_test(loopback_is_recognized),
        cmocka_unit_test(addresses_differ_in_each_part),
        cmocka_unit_test(the_port_changes_alone),
        cmocka_unit_test(the_size_is_that_of_the_family),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
