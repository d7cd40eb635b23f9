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
#define ENTRIES_FIRST 64
#define SESSION_BYTES (sizeof(struct session) + ENTRIES_FIRST * sizeof(struct session_entry))

static struct sessions sessions_of(size_t bytes_max)
{
    struct sessions sessions;
    assert_int_equal(sessions_init(&sessions, bytes_max, SEED), 0);
    return sessions;
}

/* A client that began with `start` and has sent nothing yet. */
static struct session_claim claim_of(uint64_t id, uint64_t start)
{
    return (struct session_claim){.id = id, .start = start, .seq_unsent = 1, .floor = 1};
}

static struct session *try_attach(struct sessions *sessions, uint64_t id)
{
    const struct session_claim claim = claim_of(id, id);
    return sessions_attach(sessions, &claim);
}

static struct session *use(struct sessions *sessions, uint64_t id)
{
    const struct session_claim claim = claim_of(id, id);
    return sessions_use(sessions, &claim);
}

static struct session *attach(struct sessions *sessions, uint64_t id)
{
    struct session *session = try_attach(sessions, id);
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

static void assert_stale(const struct session *session, uint64_t seq)
{
    uint32_t address;
    assert_int_equal(session_probe(session, seq, &address), SESSION_STALE);
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
        struct session *session = use(&sessions, 1);
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
    struct session *session = use(&sessions, 1);
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
    assert_null(try_attach(&sessions, 3));
    assert_null(use(&sessions, 3));
    assert_ptr_equal(attach(&sessions, 1), first);
    sessions_detach(&sessions, first);
    assert_null(try_attach(&sessions, 3));
    sessions_detach(&sessions, first);
    attach(&sessions, 3);
    assert_int_equal(sessions.forgotten, 1);
    sessions_deinit(&sessions);
}

/* ------------------------------------------------------------------- forgotten, and come back */

/* Sessions 1 to 3 were here, of which the first was forgotten; it began at 1. */
static struct sessions with_one_forgotten(void)
{
    struct sessions sessions = sessions_of(2 * SESSION_BYTES);
    for (uint64_t id = 1; id <= 3; id++) {
        struct session *session = attach(&sessions, id);
        for (uint64_t seq = 1; seq <= 9; seq++) remember(&sessions, session, seq);
        sessions_detach(&sessions, session);
    }
    assert_int_equal(sessions.forgotten, 1);
    return sessions;
}

static void a_forgotten_session_has_no_number_applied_twice(void **state)
{
    (void)state;
    struct sessions sessions = with_one_forgotten();
    struct session_claim claim = claim_of(1, 1);
    claim.seq_unsent = 10;
    struct session *session = sessions_attach(&sessions, &claim);
    assert_non_null(session);
    for (uint64_t seq = 1; seq <= 9; seq++) assert_stale(session, seq);
    assert_new(session, 10);
    remember(&sessions, session, 10);
    assert_known(session, 10);
    assert_stale(session, 9);
    assert_new(session, 11);
    sessions_deinit(&sessions);
}

/* Whoever began later was never forgotten: what it sends again may never have come. */
static void a_session_that_began_later_was_not_forgotten(void **state)
{
    (void)state;
    struct sessions sessions = with_one_forgotten();
    struct session_claim claim = claim_of(7, 2);
    claim.seq_unsent = 10;
    struct session *session = sessions_attach(&sessions, &claim);
    assert_non_null(session);
    assert_new(session, 1);
    assert_new(session, 9);
    sessions_deinit(&sessions);
}

static void what_is_known_is_known_whatever_was_forgotten(void **state)
{
    (void)state;
    struct sessions sessions = with_one_forgotten();
    struct session_claim claim = claim_of(3, 0);
    claim.seq_unsent = 10;
    struct session *session = sessions_attach(&sessions, &claim);
    for (uint64_t seq = 1; seq <= 9; seq++) assert_known(session, seq);
    assert_new(session, 10);
    sessions_deinit(&sessions);
}

/* Over a lane a session may be forgotten while its link to the other shard goes on. */
static void a_session_forgotten_over_a_lane_goes_on_with_new_numbers_only(void **state)
{
    (void)state;
    struct sessions sessions = with_one_forgotten();
    struct session_claim link = claim_of(1, 1);
    struct session_claim claim = session_claim_at(&link, 10);
    struct session *session = sessions_use(&sessions, &claim);
    assert_new(session, 10);
    remember(&sessions, session, 10);
    assert_stale(session, 9);
    /* The same after a reconnect, where what is sent again comes first. */
    sessions_deinit(&sessions);
    sessions = with_one_forgotten();
    link.seq_unsent = 10;
    claim = session_claim_at(&link, 5);
    session = sessions_use(&sessions, &claim);
    for (uint64_t seq = 1; seq <= 9; seq++) assert_stale(session, seq);
    assert_new(session, 10);
    sessions_deinit(&sessions);
}

static void numbers_below_the_floor_are_stale_but_for_those_remembered(void **state)
{
    (void)state;
    struct sessions sessions = sessions_of(MIB);
    struct session *session = attach(&sessions, 7);
    remember(&sessions, session, 5);
    struct session_claim claim = claim_of(7, 7);
    claim.floor = 100;
    assert_ptr_equal(sessions_attach(&sessions, &claim), session);
    assert_known(session, 5);
    assert_stale(session, 6);
    assert_stale(session, 99);
    assert_new(session, 100);
    /* It never falls; and a lie harms who tells it. */
    claim.floor = 1;
    assert_ptr_equal(sessions_attach(&sessions, &claim), session);
    assert_stale(session, 99);
    claim.floor = UINT64_MAX;
    assert_ptr_equal(sessions_attach(&sessions, &claim), session);
    assert_stale(session, 100);
    assert_stale(session, (uint64_t)1 << 48);
    sessions_deinit(&sessions);
}

/* A shard that sees one number in a billion keeps entries for as long as the low halves go round. */
/* A request that came over a lane says what its link was told, whoever else uses the session. */
static void every_use_raises_the_floor(void **state)
{
    (void)state;
    struct sessions sessions = sessions_of(MIB);
    struct session_claim claim = claim_of(1, 1);
    struct session *session = sessions_use(&sessions, &claim);
    remember(&sessions, session, 20);
    for (uint64_t floor = 5; floor <= 10; floor += 5) {
        claim.floor = floor;
        assert_new(session, floor - 1);
        assert_ptr_equal(sessions_use(&sessions, &claim), session);
        assert_stale(session, floor - 1);
        assert_new(session, floor);
        attach(&sessions, 1);
    }
    sessions_deinit(&sessions);
}

static void a_number_is_not_taken_for_one_that_is_2_to_the_32_below(void **state)
{
    (void)state;
    static const uint64_t steps[] = {1 << 20, ((uint64_t)1 << 29) - 3, (uint64_t)1 << 31,
                                     (uint64_t)1 << 32, (uint64_t)5 << 32};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct sessions sessions = sessions_of(MIB);
        struct session *session = attach(&sessions, 7);
        const uint64_t other = 1000;
        remember(&sessions, session, other);
        uint64_t end = other + 10 + ((uint64_t)3 << 32);
        for (uint64_t seq = other + 10; seq <= end; seq += steps[i]) {
            uint64_t round = seq >> 32;
            if (seq != other + 10) remember(&sessions, session, seq);
            if (round > 0 && (uint32_t)seq - (uint32_t)other < SESSION_WINDOW)
                assert_new(session, other + (round << 32));
        }
        sessions_deinit(&sessions);
    }
}

/* The same where runs of plain updates write the entries themselves. */
static void nor_in_a_run_of_plain_updates(void **state)
{
    (void)state;
    struct sessions sessions = sessions_of(MIB);
    struct session *session = attach(&sessions, 7);
    remember(&sessions, session, 1000);
    for (uint64_t seq = 1 << 20; seq <= ((uint64_t)1 << 32) + 1010; seq += 1 << 20) {
        session_before_run(session);
        session->seq_highest = seq;
    }
    session->seq_highest = ((uint64_t)1 << 32) + 1010;
    session_before_run(session);
    assert_new(session, ((uint64_t)1 << 32) + 1000);
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
        assert_null(try_attach(&sessions, 1));
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
        cmocka_unit_test(a_forgotten_session_has_no_number_applied_twice),
        cmocka_unit_test(a_session_that_began_later_was_not_forgotten),
        cmocka_unit_test(what_is_known_is_known_whatever_was_forgotten),
        cmocka_unit_test(a_session_forgotten_over_a_lane_goes_on_with_new_numbers_only),
        cmocka_unit_test(numbers_below_the_floor_are_stale_but_for_those_remembered),
        cmocka_unit_test(every_use_raises_the_floor),
        cmocka_unit_test(a_number_is_not_taken_for_one_that_is_2_to_the_32_below),
        cmocka_unit_test(nor_in_a_run_of_plain_updates),
        cmocka_unit_test(no_choice_of_ids_makes_a_long_chain),
        cmocka_unit_test(no_memory_leaves_all_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
