/*
 * Adds, pushes and patches as they are on the wire, sent to nodes of one and of three shards: what
 * the owner gives, and that nothing is given twice when it is sent again over another link.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "fero.h"
#include "tests/support/stranger.h"

#define SESSION 0x1122334455667788u

static fero *node;

static int start(void **state)
{
    fero_cache *cache;
    fero_runtime_opts opts = {.size = sizeof opts, .shards = *state == NULL ? 1 : 3};
    if (fero_start(&opts, &node) < 0) return -1;
    return fero_open(node, "users", NULL, &cache);
}

static int stop(void **state)
{
    (void)state;
    return fero_stop(node, 0);
}

static int three_shards;

/* A reply, and the number in it; -1: it has none. */
struct answer {
    struct frame_reply reply;
    int64_t number;
};

static struct answer ask(struct stranger *peer, enum frame_type type, uint32_t seq, const char *key,
                         const char *value)
{
    struct answer answer = {.number = -1};
    struct bytes found;
    stranger_put_request(peer, type, seq, bytes_of(key), bytes_of(value));
    assert_true(stranger_flush(peer));
    assert_true(stranger_reply(peer, seq, &answer.reply, &found));
    if ((answer.reply.flags & FRAME_VALUE_TYPE) == VALUE_INT64)
        memcpy(&answer.number, found.data, sizeof answer.number);
    return answer;
}

static void open_link(struct stranger *peer)
{
    assert_true(stranger_open(peer, fero_address(node), "users", SESSION));
}

static void adds_without_a_key_count_from_one(void **state)
{
    (void)state;
    struct stranger peer;
    open_link(&peer);
    for (uint32_t seq = 1; seq <= 50; seq++) {
        struct answer answer = ask(&peer, FRAME_ADD, seq, "", "x");
        assert_int_equal(answer.reply.code, 0);
        assert_int_equal(answer.number, seq);
        assert_int_equal(answer.reply.offset, 1);
    }
    assert_int_equal(ask(&peer, FRAME_GET, 51, "50", "").reply.code, 0);
    assert_int_equal(reply_outcome(ask(&peer, FRAME_GET, 52, "51", "").reply.code), OUTCOME_FAIL);
    stranger_close(&peer, false);
}

static void an_add_that_is_sent_again_has_the_number_that_it_had(void **state)
{
    (void)state;
    struct stranger peer;
    open_link(&peer);
    uint16_t shard = peer.shard;
    for (uint32_t seq = 1; seq <= 20; seq++) ask(&peer, FRAME_ADD, seq, "", "x");
    stranger_close(&peer, true);
    /* As fero's client does, again to the shard that took them. */
    assert_int_equal(stranger_connect(&peer, fero_address(node)), 0);
    stranger_put_hello(&peer, SESSION, shard);
    stranger_put_open(&peer, "users");
    assert_true(stranger_flush(&peer));
    const uint8_t *frame;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(stranger_next(&peer, STRANGER_WAIT_MS, &frame), STRANGER_FRAME);
        if (frame[4] != FRAME_OPENED) continue;
        struct frame_opened opened;
        memcpy(&opened, frame, sizeof opened);
        peer.cache = opened.cache;
    }
    for (uint32_t seq = 1; seq <= 20; seq++) {
        struct answer answer = ask(&peer, FRAME_ADD, seq, "", "x");
        assert_int_equal(answer.number, seq);
        assert_true((answer.reply.flags & REPLY_DUPLICATE) != 0);
    }
    assert_int_equal(ask(&peer, FRAME_ADD, 21, "", "x").number, 21);
    stranger_close(&peer, false);
}

static void what_is_sent_again_and_was_refused_is_refused_alike(void **state)
{
    (void)state;
    struct stranger peer;
    open_link(&peer);
    ask(&peer, FRAME_UPDATE, 1, "28", "x");
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(ask(&peer, FRAME_INSERT, 2, "28", "y").reply.code,
                         reply_code(OUTCOME_FAIL, ERROR_CONFLICT));
    stranger_close(&peer, false);
}

/* It may have been given a number that nobody remembers. */
static void an_add_that_is_too_old_is_unknown(void **state)
{
    (void)state;
    struct stranger peer;
    open_link(&peer);
    assert_int_equal(ask(&peer, FRAME_ADD, 1, "", "x").number, 1);
    assert_int_equal(ask(&peer, FRAME_ADD, 40000, "", "x").number, 2);
    assert_int_equal(ask(&peer, FRAME_ADD, 1, "", "x").reply.code,
                     reply_code(OUTCOME_UNKNOWN, ERROR_STALE));
    stranger_close(&peer, false);
}

static void numbers_are_above_all_that_are_there(void **state)
{
    (void)state;
    struct stranger peer;
    open_link(&peer);
    ask(&peer, FRAME_UPDATE, 1, "28", "x");
    assert_int_equal(ask(&peer, FRAME_ADD, 2, "", "x").number, 29);
    ask(&peer, FRAME_UPDATE, 3, "40.a", "x");
    assert_int_equal(ask(&peer, FRAME_ADD, 4, "", "x").number, 41);
    ask(&peer, FRAME_UPDATE, 5, "050", "x");
    ask(&peer, FRAME_UPDATE, 6, "60a", "x");
    assert_int_equal(ask(&peer, FRAME_ADD, 7, "", "x").number, 42);
    struct answer taken = ask(&peer, FRAME_INSERT, 8, "28", "y");
    assert_int_equal(taken.reply.code, reply_code(OUTCOME_FAIL, ERROR_CONFLICT));
    assert_int_equal(ask(&peer, FRAME_INSERT, 9, "43", "y").number, 43);
    stranger_close(&peer, false);
}

static void what_is_pushed_again_is_there_once(void **state)
{
    (void)state;
    struct stranger peer;
    open_link(&peer);
    for (uint32_t seq = 1; seq <= 5; seq++)
        assert_int_equal(ask(&peer, FRAME_PUSH, seq, "a.list", "x").number, seq - 1);
    stranger_close(&peer, true);
    open_link(&peer);
    for (uint32_t seq = 1; seq <= 5; seq++) {
        struct answer answer = ask(&peer, FRAME_PUSH, seq, "a.list", "x");
        assert_int_equal(answer.number, seq - 1);
        assert_int_equal(answer.reply.offset, seq);
        assert_true((answer.reply.flags & REPLY_DUPLICATE) != 0);
    }
    struct answer update = ask(&peer, FRAME_UPDATE, 6, "a.b.c", "x");
    assert_int_equal(update.reply.offset, 6);
    update = ask(&peer, FRAME_UPDATE, 6, "a.b.c", "x");
    assert_int_equal(update.reply.offset, 6);
    assert_true((update.reply.flags & REPLY_DUPLICATE) != 0);
    assert_int_equal(ask(&peer, FRAME_PUSH, 7, "a.list", "x").number, 5);
    stranger_close(&peer, false);
}

/* Pushes until one is refused; returns how many were not. */
static uint64_t push_until_full(struct stranger *peer, uint32_t *seq)
{
    static const char value[400] = "x";
    for (uint64_t pushed = 0;;) {
        uint32_t first = *seq + 1;
        bool is_full = false;
        for (unsigned i = 0; i < 500; i++)
            stranger_put_request(peer, FRAME_PUSH, ++*seq, bytes_of("full.list"),
                                 (struct bytes){value, sizeof value});
        assert_true(stranger_flush(peer));
        for (uint32_t at = first; at <= *seq; at++) {
            struct frame_reply reply;
            struct bytes found;
            assert_true(stranger_reply(peer, at, &reply, &found));
            pushed += reply.code == 0;
            if (reply.code == 0) continue;
            assert_int_equal(reply.code, reply_code(OUTCOME_FAIL, ERROR_NO_MEMORY));
            is_full = true;
        }
        if (is_full) return pushed;
    }
}

static void memory_that_is_full_of_elements_takes_their_removal(void **state)
{
    (void)state;
    struct stranger peer;
    uint32_t seq = 0;
    open_link(&peer);
    uint64_t pushed = push_until_full(&peer, &seq);
    assert_true(pushed > 50000);
    /* One of them is there, and can go. */
    assert_int_equal(ask(&peer, FRAME_GET, ++seq, "full.list.77", "").reply.code, 0);
    assert_int_equal(ask(&peer, FRAME_REMOVE, ++seq, "full.list.77", "").reply.code, 0);
    assert_int_equal(ask(&peer, FRAME_REMOVE, ++seq, "full", "").reply.code, 0);
    /* Their memory comes back while the node goes on: what is refused meanwhile makes it hurry. */
    uint64_t again = 0;
    for (unsigned rounds = 0; rounds < 500 && again <= pushed / 2; rounds++)
        again += push_until_full(&peer, &seq);
    assert_true(again > pushed / 2);
    stranger_close(&peer, false);
}

static int start_small(void **state)
{
    fero_cache *cache;
    fero_runtime_opts opts = {
        .size = sizeof opts, .shards = 1, .memory_max_bytes = 64 << 20, .history_max_bytes = 1};
    (void)state;
    if (fero_start(&opts, &node) < 0) return -1;
    return fero_open(node, "users", NULL, &cache);
}

/* Ends a request of this thread; its error. */
static int32_t ended(int err, fero_op **op)
{
    fero_result result;
    assert_int_equal(err, 0);
    assert_int_equal(fero_wait(*op, -1, &result), 0);
    int32_t error = result.outcome == FERO_OUTCOME_OK ? 0 : result.error;
    fero_op_free(*op);
    return error;
}

/* What a removal inside of a flat value needs is not what updates may take. */
static void memory_that_is_full_takes_the_removal_of_a_field(void **state)
{
    (void)state;
    static const char text[4000] = "x";
    const fero_val object = {.type = FERO_T_JSON, .s = fero_str("{\"a\":1,\"b\":2}")};
    const fero_val value = {.type = FERO_T_BYTES, .s = {text, sizeof text}};
    fero_cache *cache;
    fero_op *op;
    char key[16];
    assert_int_equal(fero_open(node, "users", NULL, &cache), 0);
    assert_int_equal(ended(fero_update(cache, fero_str("doc"), &object, NULL, &op), &op), 0);
    int32_t error = 0;
    for (unsigned i = 0; i < 50000 && error == 0; i++) {
        snprintf(key, sizeof key, "k%u", i);
        error = ended(fero_update(cache, fero_str(key), &value, NULL, &op), &op);
    }
    assert_int_equal(error, FERO_E_NOMEM);
    assert_int_equal(ended(fero_remove(cache, fero_str("none.a"), NULL, &op), &op),
                     FERO_E_NOTFOUND);
    assert_int_equal(ended(fero_remove(cache, fero_str("doc.a"), NULL, &op), &op), 0);
    assert_int_equal(ended(fero_get(cache, fero_str("doc.a"), NULL, &op), &op), FERO_E_NOTFOUND);
    assert_int_equal(ended(fero_get(cache, fero_str("doc.b"), NULL, &op), &op), 0);
}

int main(void)
{
#define ON_BOTH(test)                                                                              \
    cmocka_unit_test_prestate_setup_teardown(test, start, stop, NULL),                             \
        cmocka_unit_test_prestate_setup_teardown(test, start, stop, &three_shards)
    const struct CMUnitTest tests[] = {
        ON_BOTH(adds_without_a_key_count_from_one),
        ON_BOTH(an_add_that_is_sent_again_has_the_number_that_it_had),
        ON_BOTH(what_is_sent_again_and_was_refused_is_refused_alike),
        ON_BOTH(an_add_that_is_too_old_is_unknown),
        ON_BOTH(numbers_are_above_all_that_are_there),
        ON_BOTH(what_is_pushed_again_is_there_once),
        cmocka_unit_test_setup_teardown(memory_that_is_full_of_elements_takes_their_removal,
                                        start_small, stop),
        cmocka_unit_test_setup_teardown(memory_that_is_full_takes_the_removal_of_a_field,
                                        start_small, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
