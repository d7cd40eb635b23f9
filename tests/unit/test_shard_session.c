/*
 * What a shard remembers of sessions: src/shard/session.c. The client's side is in test_session.c.
 */
#include "shard/session.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/rng.h"

static struct sessions sessions_of(size_t bytes_max)
{
    struct sessions sessions;
    assert_int_equal(sessions_init(&sessions, bytes_max), 0);
    return sessions;
}

static struct session *attach(struct sessions *sessions, uint64_t id)
{
    struct session *session = sessions_attach(sessions, id);
    assert_non_null(session);
    return session;
}

/* As the shard does it: grows first where something of the window would be lost. */
static void remember(struct sessions *sessions, struct session *session, uint64_t seq,
                     uint64_t address)
{
    while (session_must_grow(session, seq)) assert_int_equal(sessions_grow(sessions, session), 0);
    session_remember(session, seq, address);
}

static enum session_verdict probe(const struct session *session, uint64_t seq)
{
    uint32_t address = 0;
    return session_probe(session, seq, &address);
}

/* ---------------------------------------------------------------------------- one session */

static void request_is_new_then_known_then_stale(void **state)
{
    (void)state;
    struct sessions sessions = sessions_of(16 * MIB);
    struct session *session = attach(&sessions, 1);
    uint32_t address = 0;
    assert_int_equal(probe(session, 1), SESSION_NEW);
    remember(&sessions, session, 1, 4096);
    assert_int_equal(session_probe(session, 1, &address), SESSION_KNOWN);
    assert_int_equal(address, 4096 / 8);
    remember(&sessions, session, SESSION_WINDOW, 8192);
    assert_int_equal(probe(session, 1), SESSION_KNOWN);
    assert_int_equal(probe(session, 2), SESSION_NEW);
    remember(&sessions, session, SESSION_WINDOW + 1, 8192);
    assert_int_equal(probe(session, 1), SESSION_STALE);
    assert_int_equal(probe(session, 2), SESSION_NEW);
    sessions_deinit(&sessions);
}

static void whole_window_is_remembered(void **state)
{
    (void)state;
    static const uint64_t firsts[] = {1, 1000, UINT32_MAX - 9000, UINT64_MAX / 2};
    for (size_t i = 0; i < ARRAY_COUNT(firsts); i++) {
        struct sessions sessions = sessions_of(16 * MIB);
        struct session *session = attach(&sessions, 1);
        uint64_t first = firsts[i];
        uint64_t last = first + 3 * SESSION_WINDOW;
        for (uint64_t seq = first; seq <= last; seq++) {
            assert_int_equal(probe(session, seq), SESSION_NEW);
            remember(&sessions, session, seq, seq * 64);
        }
        for (uint64_t seq = first; seq <= last; seq++) {
            uint32_t address = 0;
            enum session_verdict verdict = session_probe(session, seq, &address);
            bool is_stale = last - seq >= SESSION_WINDOW;
            assert_int_equal(verdict, is_stale ? SESSION_STALE : SESSION_KNOWN);
            if (!is_stale) assert_int_equal(address, (uint32_t)(seq * 8));
        }
        assert_int_equal(session->mask, SESSION_WINDOW - 1);
        sessions_deinit(&sessions);
    }
}

static void session_agrees_with_a_model(void **state)
{
    (void)state;
    static uint64_t addresses[4 * SESSION_WINDOW];
    struct rng rng;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct sessions sessions = sessions_of(16 * MIB);
        struct session *session = attach(&sessions, seed);
        uint64_t highest = 0;
        memset(addresses, 0, sizeof addresses);
        rng_init(&rng, seed);
        while (highest < ARRAY_COUNT(addresses) - 600) {
            uint64_t seq = highest + rng_below(&rng, 500) + 1;
            if (rng_below(&rng, 3) != 0)
                seq -= min_u64(seq - 1, rng_below(&rng, SESSION_WINDOW + 500));
            uint32_t address = 0;
            enum session_verdict verdict = session_probe(session, seq, &address);
            if (seq <= highest && highest - seq >= SESSION_WINDOW) {
                assert_int_equal(verdict, SESSION_STALE);
            } else if (addresses[seq] != 0) {
                assert_int_equal(verdict, SESSION_KNOWN);
                assert_int_equal(address, addresses[seq] / 8);
            } else {
                assert_int_equal(verdict, SESSION_NEW);
                addresses[seq] = 64 + rng_below(&rng, 1 << 20) * 8;
                remember(&sessions, session, seq, addresses[seq]);
                highest = max_u64(highest, seq);
            }
            assert_int_equal(session->seq_highest, highest);
        }
        sessions_deinit(&sessions);
    }
}

static void session_that_cannot_grow_stays_as_it_was(void **state)
{
    (void)state;
    struct sessions sessions = sessions_of(16 * MIB);
    struct session *session = attach(&sessions, 1);
    for (uint64_t seq = 1; seq <= session->mask + 1; seq++) remember(&sessions, session, seq, 64);
    size_t bytes = sessions.bytes;
    uint32_t mask = session->mask;
    memory_fail_after(1);
    assert_int_equal(sessions_grow(&sessions, session), -ENOMEM);
    memory_fail_after(0);
    assert_int_equal(session->mask, mask);
    assert_int_equal(sessions.bytes, bytes);
    for (uint64_t seq = 1; seq <= mask + 1; seq++)
        assert_int_equal(probe(session, seq), SESSION_KNOWN);
    sessions_deinit(&sessions);
}

/* ---------------------------------------------------------------------------- all sessions */

static void session_is_one_however_many_links_carry_it(void **state)
{
    (void)state;
    struct sessions sessions = sessions_of(16 * MIB);
    struct session *session = attach(&sessions, 9);
    assert_ptr_equal(attach(&sessions, 9), session);
    remember(&sessions, session, 5, 64);
    sessions_detach(&sessions, session);
    sessions_detach(&sessions, session);
    assert_ptr_equal(sessions_find(&sessions, 9), session);
    assert_ptr_equal(attach(&sessions, 9), session);
    assert_int_equal(probe(session, 5), SESSION_KNOWN);
    assert_int_equal(sessions.count, 1);
    assert_null(sessions_find(&sessions, 10));
    sessions_deinit(&sessions);
}

/* Room for just so many sessions of the smallest size. */
static struct sessions sessions_for(unsigned count)
{
    struct sessions sessions = sessions_of(MIB);
    attach(&sessions, 1);
    size_t bytes = sessions.bytes;
    sessions_deinit(&sessions);
    return sessions_of(count * bytes);
}

static void longest_idle_session_is_forgotten_first(void **state)
{
    (void)state;
    struct sessions sessions = sessions_for(4);
    struct session *held[5];
    for (uint64_t id = 1; id <= 4; id++) held[id] = attach(&sessions, id);
    sessions_detach(&sessions, held[3]);
    sessions_detach(&sessions, held[1]);
    sessions_detach(&sessions, held[2]);
    attach(&sessions, 3);
    attach(&sessions, 5);
    assert_null(sessions_find(&sessions, 1));
    assert_non_null(sessions_find(&sessions, 2));
    attach(&sessions, 6);
    assert_null(sessions_find(&sessions, 2));
    assert_non_null(sessions_find(&sessions, 3));
    assert_int_equal(sessions.forgotten, 2);
    assert_int_equal(sessions.count, 4);
    sessions_deinit(&sessions);
}

static void sessions_in_use_are_never_forgotten(void **state)
{
    (void)state;
    struct sessions sessions = sessions_for(3);
    for (uint64_t id = 1; id <= 3; id++) attach(&sessions, id);
    assert_null(sessions_attach(&sessions, 4));
    assert_int_equal(sessions_grow(&sessions, sessions_find(&sessions, 2)), -ENOMEM);
    for (uint64_t id = 1; id <= 3; id++) assert_non_null(sessions_find(&sessions, id));
    sessions_detach(&sessions, sessions_find(&sessions, 2));
    attach(&sessions, 4);
    assert_null(sessions_find(&sessions, 2));
    sessions_deinit(&sessions);
}

static void growing_makes_room_for_itself(void **state)
{
    (void)state;
    struct sessions sessions = sessions_for(4);
    for (uint64_t id = 1; id <= 4; id++) attach(&sessions, id);
    for (uint64_t id = 2; id <= 3; id++) sessions_detach(&sessions, sessions_find(&sessions, id));
    struct session *session = sessions_find(&sessions, 1);
    assert_int_equal(sessions_grow(&sessions, session), 0);
    assert_true(sessions.bytes <= sessions.bytes_max);
    assert_null(sessions_find(&sessions, 2));
    assert_non_null(sessions_find(&sessions, 4));
    sessions_deinit(&sessions);
}

/* The bytes add up whatever comes and goes, and identities that fall into one chain stay apart. */
static void bytes_stay_within_their_bound(void **state)
{
    (void)state;
    struct sessions sessions = sessions_for(40);
    struct session *held[20] = {NULL};
    struct rng rng;
    rng_init(&rng, 12);
    for (unsigned step = 0; step < 20000; step++) {
        size_t at = rng_below(&rng, ARRAY_COUNT(held));
        if (held[at] != NULL && rng_below(&rng, 3) == 0) {
            sessions_detach(&sessions, held[at]);
            held[at] = NULL;
        } else if (held[at] != NULL && rng_below(&rng, 10) == 0) {
            if (held[at]->mask + 1 < SESSION_WINDOW) (void)!sessions_grow(&sessions, held[at]);
        } else if (held[at] == NULL) {
            uint64_t id = 1 + rng_below(&rng, 200) * 1024;
            held[at] = sessions_attach(&sessions, id);
            if (held[at] != NULL) assert_int_equal(held[at]->id, id);
        }
        assert_true(sessions.bytes <= sessions.bytes_max);
        for (size_t i = 0; i < ARRAY_COUNT(held); i++)
            if (held[i] != NULL) assert_ptr_equal(sessions_find(&sessions, held[i]->id), held[i]);
    }
    for (size_t i = 0; i < ARRAY_COUNT(held); i++)
        if (held[i] != NULL) sessions_detach(&sessions, held[i]);
    sessions_deinit(&sessions);
}

static void lack_of_memory_is_no_session(void **state)
{
    (void)state;
    struct sessions sessions;
    memory_fail_after(1);
    assert_int_equal(sessions_init(&sessions, MIB), -ENOMEM);
    memory_fail_after(0);
    sessions_deinit(&sessions);
    sessions = sessions_of(MIB);
    for (uint64_t n = 1; n <= 2; n++) {
        memory_fail_after(n);
        assert_null(sessions_attach(&sessions, 7));
        memory_fail_after(0);
        assert_int_equal(sessions.count, 0);
        assert_int_equal(sessions.bytes, 0);
    }
    attach(&sessions, 7);
    sessions_deinit(&sessions);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_new_then_known_then_stale),
        cmocka_unit_test(whole_window_is_remembered),
        cmocka_unit_test(session_agrees_with_a_model),
        cmocka_unit_test(session_that_cannot_grow_stays_as_it_was),
        cmocka_unit_test(session_is_one_however_many_links_carry_it),
        cmocka_unit_test(longest_idle_session_is_forgotten_first),
        cmocka_unit_test(sessions_in_use_are_never_forgotten),
        cmocka_unit_test(growing_makes_room_for_itself),
        cmocka_unit_test(bytes_stay_within_their_bound),
        cmocka_unit_test(lack_of_memory_is_no_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
