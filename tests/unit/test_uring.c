/*
 * What io_uring alone has: its features, what it saves of system calls, and why it may be refused.
 * The rest is in test_io.c.
 */
#include "net/uring.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net/uring_probe.h"
#include "tests/support/io_pair.h"

static void every_feature_can_be_missing(void **state)
{
    (void)state;
    for (uint32_t bit = 1; bit <= URING_UDP_GRO; bit *= 2) {
        const struct io_shape shape = {.connections_max = TALKS_MAX, .features_off = bit};
        struct pair *pair = pair_open_with(&shape);
        assert_int_equal(uring_features(pair->server.io) & bit, 0);
        pair_echoes_all(pair);
        pair_close(pair);
    }
}

static void all_and_no_features_work(void **state)
{
    (void)state;
    uint32_t all = 0;
    const char *unknown;
    size_t unknown_bytes;
    assert_int_equal(uring_features_parse("all", &all, &unknown, &unknown_bytes), 0);
    for (int i = 0; i < 2; i++) {
        const struct io_shape shape = {
            .connections_max = TALKS_MAX, .features_on = all, .features_off = i == 0 ? 0 : all};
        struct pair *pair = pair_open_with(&shape);
        pair_echoes_all(pair);
        pair_close(pair);
    }
}

static void an_idle_turn_makes_no_system_call(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    (void)pair_connect(pair);
    pair_turn_some(pair);
    uint64_t enters = pair->server.io->counters.enters;
    for (int i = 0; i < 10; i++) {
        assert_false(io_ready(pair->server.io));
        assert_int_equal(end_wait(&pair->server, 0), 0);
    }
    assert_int_equal(pair->server.io->counters.enters, enters);
    pair_close(pair);
}

/* A turn that would enter the ring for one send alone sends without it: one system call either way. */
static void a_lone_send_goes_past_the_ring_and_is_counted(void **state)
{
    (void)state;
    struct pair *pair = pair_open();
    struct talk *talk = pair_connect(pair);
    pair_turn_some(pair);
    const struct io_counters before = pair->client.io->counters;
    talk_send(&pair->client, talk, (const uint8_t *)"x", 1);
    assert_int_equal(end_wait(&pair->client, 0), 1);
    assert_int_equal(pair->client.io->counters.sends, before.sends + 1);
    assert_int_equal(pair->client.io->counters.direct_sends, before.direct_sends + 1);
    assert_int_equal(pair->client.io->counters.enters, before.enters);
    /* One that waits as well enters the ring, once. */
    talk_send(&pair->client, talk, (const uint8_t *)"y", 1);
    assert_int_equal(end_wait(&pair->client, TIME_NEVER), 1);
    assert_int_equal(pair->client.io->counters.direct_sends, before.direct_sends + 1);
    assert_int_equal(pair->client.io->counters.enters, before.enters + 1);
    PAIR_UNTIL(pair, pair->server.talks[0].bytes_count == 2);
    pair_close(pair);
}

static void features_are_read_from_text(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t before;
        uint32_t after;
    } cases[] = {
        {"", 5, 5},
        {"none", 5, 0},
        {"all", 0, 127},
        {"-msg_ring", URING_MSG_RING | URING_RING_FD, URING_RING_FD},
        {"-msg_ring,+send_zc", URING_MSG_RING, URING_SEND_ZC},
        {"none,udp_gro", 127, URING_UDP_GRO},
        {"all,-defer_taskrun,-recv_bundle", 0,
         127 & ~(uint32_t)(URING_DEFER_TASKRUN | URING_RECV_BUNDLE)},
        {"no_iowait,,ring_fd,", 0, URING_NO_IOWAIT | URING_RING_FD},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint32_t features = cases[i].before;
        const char *unknown;
        size_t unknown_bytes;
        assert_int_equal(uring_features_parse(cases[i].text, &features, &unknown, &unknown_bytes),
                         0);
        assert_int_equal(features, cases[i].after);
    }
}

static void an_unknown_feature_is_reported(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *unknown;
    } cases[] = {
        {"sendzc", "sendzc"},        {"-msg_ring,+turbo,none", "+turbo"}, {"-", "-"},
        {"none,msg_rin", "msg_rin"}, {"msg_ringx", "msg_ringx"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint32_t features = 77;
        const char *unknown = NULL;
        size_t unknown_bytes = 0;
        assert_int_equal(uring_features_parse(cases[i].text, &features, &unknown, &unknown_bytes),
                         -EINVAL);
        assert_int_equal(features, 77);
        assert_int_equal(unknown_bytes, strlen(cases[i].unknown));
        assert_memory_equal(unknown, cases[i].unknown, unknown_bytes);
    }
}

static void a_refusal_names_its_cause_and_cure(void **state)
{
    (void)state;
    static const struct {
        struct uring_facts facts;
        const char *cause;
        const char *cure;
    } cases[] = {
        {{-EPERM, 2, -1, 0, UINT64_MAX}, "disabled is 2", "sysctl -w kernel.io_uring_disabled=0"},
        {{-EPERM, 1, -1, 0, UINT64_MAX}, "only root", "sysctl -w kernel.io_uring_disabled=0"},
        {{-EPERM, 1, 1234, 0, UINT64_MAX}, "group 1234", "sysctl -w kernel.io_uring_disabled=0"},
        {{-EPERM, 0, -1, 2, UINT64_MAX}, "seccomp", "docker run --security-opt seccomp="},
        {{-EPERM, -1, -1, 2, UINT64_MAX}, "seccomp", "docker run --security-opt seccomp="},
        {{-EACCES, 0, -1, 0, UINT64_MAX}, "does not permit", "SELinux"},
        {{-ENOSYS, -1, -1, 2, UINT64_MAX}, "seccomp", "docker run --security-opt seccomp="},
        {{-ENOSYS, -1, -1, 0, UINT64_MAX}, "no io_uring", "Linux 6.1"},
        {{-ENOMEM, 0, -1, 0, 64 * 1024}, "64 KiB", "ulimit -l unlimited"},
        {{-ENOMEM, 0, -1, 0, UINT64_MAX}, "no memory", "MemoryMax"},
        {{-EINVAL, 0, -1, 0, UINT64_MAX}, "too old", "Linux 6.1"},
        {{-EMFILE, 0, -1, 0, UINT64_MAX}, "descriptor", "ulimit -n"},
        {{-EIO, 0, -1, 0, UINT64_MAX}, "Input/output error", ""},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char line[URING_REASON_BYTES];
        assert_ptr_equal(uring_refusal(&cases[i].facts, line), line);
        assert_non_null(strstr(line, cases[i].cause));
        assert_non_null(strstr(line, cases[i].cure));
        assert_null(strchr(line, '\n'));
        assert_true(strlen(line) < URING_REASON_BYTES - 1);
    }
}

static void the_facts_of_this_machine_can_be_read(void **state)
{
    (void)state;
    struct uring_facts facts = uring_facts_read(-EPERM);
    assert_int_equal(facts.err, -EPERM);
    assert_in_range(facts.disabled + 1, 0, 3);
    assert_in_range(facts.seccomp_mode, 0, 2);
    assert_true(facts.memlock_bytes > 0);
}

int main(void)
{
    const struct CMUnitTest with_a_ring[] = {
        cmocka_unit_test(every_feature_can_be_missing),
        cmocka_unit_test(all_and_no_features_work),
        cmocka_unit_test(an_idle_turn_makes_no_system_call),
        cmocka_unit_test(a_lone_send_goes_past_the_ring_and_is_counted),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_are_read_from_text),
        cmocka_unit_test(an_unknown_feature_is_reported),
        cmocka_unit_test(a_refusal_names_its_cause_and_cure),
        cmocka_unit_test(the_facts_of_this_machine_can_be_read),
    };
    int failed = io_kind_run(&io_kind_uring, with_a_ring, ARRAY_COUNT(with_a_ring));
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
