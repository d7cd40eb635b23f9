/*
 * What a shard remembers of sessions: what is found again, what must not be forgotten, and in which
 * order it is.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "shard/session.h"

#define SEED 4711
/* Of a session as it begins. */
#define ENTRIES_FIRST 256
#define SESSION_BYTES (sizeof(struct session) + ENTRIES_FIRST * sizeof(struct session_entry))

static struct sessions sessions_of(size_t bytes_max)
{
    struct sessions sessions;
    assert_int_equal(sessions_init(&sessions, bytes_max, SEED), 0);
    return sessions;
}

static struct session *attach(struct sessions *sessions, uint64_t id)
{
    struct session *session = sessions_attach(sessions, id);
    assert_non_null(session);
    assert_int_equal(session->id, id);
    return session;
}

/* As a shard does it: grows where it must. */
static void remember(struct sessions *sessions, struct session *session, uint64_t seq)
{
    if (session_must_grow(session, seq)) assert_int_equal(sessions_grow(sessions, session, seq), 0);
    session_remember(session, seq, seq * 8);
}

static void assert_known(const struct session *session, uint64_t seq)
{
    uint32_t address = 0;
    assert_int_equal(session_probe(session, seq, &address), SESSION_KNOWN);
    assert_int_equal(address, (uint32_t)seq);
}

static void assert_new(const struct session *session, uint64_t seq)
{
    uint32_t address;
    assert_int_equal(session_probe(session, seq, &address), SESSION_NEW);
}

static bool is_remembered(struct sessions *sessions, uint64_t id, uint64_t seq)
{
    uint32_t address;
    struct session *session = attach(sessions, id);
    bool is_known = session_probe(session, seq, &address) == SESSION_KNOWN;
    sessions_detach(sessions, session);
    return is_known;
}

static void a_whole_window_is_remembered(void **state)
{
    (void)state;
    const uint64_t first = ((uint64_t)3 << 32) - SESSION_WINDOW / 2;
    struct sessions sessions = sessions_of(MIB);
    struct session *session = attach(&sessions, 7);
    for (uint64_t i = 0; i < 2 * SESSION_WINDOW; i++) remember(&sessions, session, first + i);
    uint64_t highest = first + 2 * SESSION_WINDOW - 1;
    for (uint64_t i = 0; i < SESSION_WINDOW; i++) assert_known(session, highest - i);
    uint32_t address;
    assert_int_equal(session_probe(session, highest - SESSION_WINDOW, &address), SESSION_STALE);
    assert_new(session, highest + 1);
    sessions_deinit(&sessions);
}

/* On two links of a session an earlier number may come later, and must not push out a later one. */
static void an_older_number_does_not_push_out_a_newer_one(void **state)
{
    (void)state;
    struct sessions sessions = sessions_of(MIB);
    struct session *session = attach(&sessions, 7);
    for (uint64_t seq = 20 * ENTRIES_FIRST + 9; seq > ENTRIES_FIRST; seq -= ENTRIES_FIRST) {
        assert_new(session, seq);
        remember(&sessions, session, seq);
    }
    for (uint64_t seq = 20 * ENTRIES_FIRST + 9; seq > ENTRIES_FIRST; seq -= ENTRIES_FIRST)
        assert_known(session, seq);
    sessions_deinit(&sessions);
}

/* A shard sees some of a session's numbers only. */
static void numbers_with_gaps_push_out_nothing(void **state)
{
    (void)state;
    const uint64_t step = 16 * ENTRIES_FIRST;
    struct sessions sessions = sessions_of(MIB);
    struct session *session = attach(&sessions, 7);
    for (uint64_t seq = 1; seq < SESSION_WINDOW; seq += step) remember(&sessions, session, seq);
    for (uint64_t seq = 1; seq < SESSION_WINDOW; seq += step) assert_known(session, seq);
    sessions_deinit(&sessions);
}

static void the_longest_idle_session_is_forgotten_first(void **state)
{
    (void)state;
    struct sessions sessions = sessions_of(3 * SESSION_BYTES);
    for (uint64_t id = 1; id <= 3; id++) {
        struct session *session = attach(&sessions, id);
        remember(&sessions, session, 5);
        sessions_detach(&sessions, session);
    }
    assert_true(is_remembered(&sessions, 1, 5));
    sessions_detach(&sessions, attach(&sessions, 4));
    assert_true(is_remembered(&sessions, 1, 5));
    assert_true(is_remembered(&sessions, 3, 5));
    assert_int_equal(sessions.forgotten, 1);
    assert_int_equal(sessions.count, 3);
    assert_false(is_remembered(&sessions, 2, 5));
    sessions_deinit(&sessions);
}

/* Requests that come over a lane have no link here, and yet their session is in use. */
static void a_session_in_use_is_not_the_longest_idle_one(void **state)
{
    (void)state;
    struct sessions sessions = sessions_of(4 * SESSION_BYTES);
    for (uint64_t id = 100; id < 200; id++) {
        struct session *session = sessions_use(&sessions, 1);
        assert_non_null(session);
        assert_int_equal(session->links, 0);
        if (id > 100) assert_known(session, id - 1);
        remember(&sessions, session, id);
        /* Somebody opens one session after the other. */
        sessions_detach(&sessions, attach(&sessions, id));
    }
    assert_true(sessions.forgotten > 90);
    assert_true(sessions.bytes <= sessions.bytes_max);
    sessions_deinit(&sessions);
}

static void a_session_makes_no_room_by_forgetting_itself(void **state)
{
    (void)state;
    struct sessions sessions = sessions_of(SESSION_BYTES);
    struct session *session = sessions_use(&sessions, 1);
    assert_non_null(session);
    remember(&sessions, session, 1);
    assert_true(session_must_grow(session, 1 + ENTRIES_FIRST));
    assert_int_equal(sessions_grow(&sessions, session, 1 + ENTRIES_FIRST), -ENOMEM);
    assert_int_equal(sessions.forgotten, 0);
    assert_known(session, 1);
    assert_true(is_remembered(&sessions, 1, 1));
    sessions_deinit(&sessions);
}

static void sessions_with_links_are_not_forgotten(void **state)
{
    (void)state;
    struct sessions sessions = sessions_of(2 * SESSION_BYTES);
    struct session *first = attach(&sessions, 1);
    attach(&sessions, 2);
    assert_null(sessions_attach(&sessions, 3));
    assert_null(sessions_use(&sessions, 3));
    assert_ptr_equal(attach(&sessions, 1), first);
    sessions_detach(&sessions, first);
    assert_null(sessions_attach(&sessions, 3));
    sessions_detach(&sessions, first);
    attach(&sessions, 3);
    assert_int_equal(sessions.forgotten, 1);
    sessions_deinit(&sessions);
}

static size_t longest_chain(const struct sessions *sessions)
{
    size_t longest = 0;
    for (uint64_t i = 0; i <= sessions->chains_mask; i++) {
        size_t length = 0;
        for (const struct session *at = sessions->chains[i]; at != NULL; at = at->next) length++;
        if (length > longest) longest = length;
    }
    return longest;
}

/* Clients choose the ids: multiples of a large power of two are as good as any. */
static void no_choice_of_ids_makes_a_long_chain(void **state)
{
    (void)state;
    enum { COUNT = 2000 };
    struct sessions sessions = sessions_of(COUNT * SESSION_BYTES);
    for (uint64_t id = 1; id <= COUNT; id++)
        sessions_detach(&sessions, attach(&sessions, id << 10 | id << 42));
    assert_int_equal(sessions.count, COUNT);
    assert_true(longest_chain(&sessions) < 16);
    sessions_deinit(&sessions);
}

static void no_memory_leaves_all_as_it_was(void **state)
{
    (void)state;
    struct sessions sessions;
    memory_fail_after(1);
    assert_int_equal(sessions_init(&sessions, MIB, SEED), -ENOMEM);
    memory_fail_after(0);
    sessions = sessions_of(MIB);
    for (uint64_t countdown = 1; countdown <= 2; countdown++) {
        memory_fail_after(countdown);
        assert_null(sessions_attach(&sessions, 1));
        memory_fail_after(0);
        assert_int_equal(sessions.bytes, 0);
        assert_int_equal(sessions.count, 0);
    }
    struct session *session = attach(&sessions, 1);
    remember(&sessions, session, 1);
    memory_fail_after(1);
    assert_int_equal(sessions_grow(&sessions, session, 1 + ENTRIES_FIRST), -ENOMEM);
    memory_fail_after(0);
    assert_int_equal(sessions.bytes, SESSION_BYTES);
    assert_known(session, 1);
    sessions_deinit(&sessions);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_window_is_remembered),
        cmocka_unit_test(an_older_number_does_not_push_out_a_newer_one),
        cmocka_unit_test(numbers_with_gaps_push_out_nothing),
        cmocka_unit_test(the_longest_idle_session_is_forgotten_first),
        cmocka_unit_test(a_session_in_use_is_not_the_longest_idle_one),
        cmocka_unit_test(a_session_makes_no_room_by_forgetting_itself),
        cmocka_unit_test(sessions_with_links_are_not_forgotten),
        cmocka_unit_test(no_choice_of_ids_makes_a_long_chain),
        cmocka_unit_test(no_memory_leaves_all_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
