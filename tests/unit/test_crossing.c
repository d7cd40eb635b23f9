/*
 * What happens when lanes are full: nobody is forgotten, nothing is promised that cannot be kept,
 * no peer makes a node keep more than its bounds, and a stopping node answers what it took.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/memory.h"
#include "shard/crossing.h"
#include "tests/support/node.h"

#define VALUE_BYTES 1000

static struct node node;

static void open_node(uint32_t shards_count)
{
    struct shard_options options = node_options(shards_count);
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
}

/* `count` requests of `type` for a key of `shard`, numbered from 1, of VALUE_BYTES where they may. */
static void send_many(struct peer *peer, uint32_t shard, struct ask ask, unsigned count)
{
    static const char value[VALUE_BYTES];
    char text[NODE_KEY_BYTES];
    struct stream stream = {0};
    ask.key = bytes_of(node_key(&node, shard, "k", text));
    if (ask.type == FRAME_UPDATE) ask.value = (struct bytes){value, sizeof value};
    for (ask.seq = 1; ask.seq <= count; ask.seq++) stream_ask(&stream, &ask);
    peer_send_stream(peer, &stream);
}

static void a_shard_looks_for_room_in_a_lane_by_itself(void **state)
{
    (void)state;
    enum { COUNT = 400 };
    open_node(2);
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    struct ask ask = ask_update(0, "", "");
    ask.want = WANT_ACK;
    send_many(&peer, 1, ask, COUNT);
    for (int i = 0; i < 4; i++) node_turn_one(&node, 0);
    assert_true(node.shards[0]->counters.crossed_out < COUNT);
    assert_true(fake_io_is_paused(node.ios[0], peer.conn));
    /* Nothing wakes it now: the other shard has no mail for it. A wait for ever would abort. */
    fake_io_on_wait(node.ios[0], NULL, NULL);
    for (int i = 0; i < 4; i++) node_turn_one(&node, 0);
    for (int i = 0; i < 100 && node.shards[1]->counters.crossed_in < COUNT; i++) node_turn(&node);
    assert_int_equal(node.shards[1]->counters.crossed_in, COUNT);
    peer_free(&peer);
    node_close(&node);
}

/* Replies have been promised their half of the lane before the connections come. */
static void connections_handed_over_leave_the_room_that_replies_need(void **state)
{
    (void)state;
    enum { COUNT = 30, GREETERS = 60 };
    open_node(2);
    struct peer asker = peer_greeted(&node, 1, 0, 1);
    send_many(&asker, 0, ask_get(0, ""), COUNT);
    node_turn_one(&node, 1);
    struct peer greeters[GREETERS];
    for (int i = 0; i < GREETERS; i++) {
        struct stream stream = {0};
        struct frame_hello hello = hello_any();
        hello.shard = 1;
        greeters[i] = peer_dial(&node, 0);
        stream_hello(&stream, hello);
        while (stream.bytes < 4000) stream_open(&stream, 0, "demo");
        peer_send_stream(&greeters[i], &stream);
    }
    node_settle(&node);
    for (uint32_t seq = 1; seq <= COUNT; seq++)
        peer_expect(&asker, seq, OUTCOME_FAIL, ERROR_NOT_FOUND);
    /* Those that found no room are greeted where they came. */
    unsigned welcomed = 0;
    for (int i = 0; i < GREETERS; i++) {
        const struct frame_prefix *prefix = peer_next(&greeters[i]);
        welcomed += prefix != NULL && prefix->type == FRAME_WELCOME;
    }
    assert_true(welcomed > 0);
    assert_int_equal(node.shards[0]->counters.connections + node.shards[1]->counters.connections,
                     GREETERS + 1);
    assert_int_equal(welcomed, node.shards[0]->counters.connections);
    assert_true(node.shards[1]->counters.connections > 1);
    for (int i = 0; i < GREETERS; i++) peer_free(&greeters[i]);
    peer_free(&asker);
    node_close(&node);
}

/* Whatever allocation fails: the caller hears something, and what he hears is no rubbish. */
static void a_large_value_that_finds_no_memory_is_an_answer(void **state)
{
    (void)state;
    enum { COUNTDOWN_MAX = 10 };
    static char large[3 * CROSSING_INLINE_BYTES_MAX];
    char text[NODE_KEY_BYTES];
    unsigned failures = 0;
    memset(large, 'x', sizeof large - 1);
    open_node(2);
    const char *key = node_key(&node, 1, "k", text);
    for (uint64_t countdown = 0; countdown < COUNTDOWN_MAX; countdown++) {
        struct peer peer = peer_greeted(&node, 0, 0, 1);
        peer_ask(&peer, ask_update(1, key, large));
        node_settle(&node);
        peer_expect(&peer, 1, OUTCOME_OK, ERROR_NONE);
        memory_fail_after(countdown);
        peer_ask(&peer, ask_get(2, key));
        node_settle(&node);
        memory_fail_after(0);
        node_settle(&node);
        const struct frame_prefix *prefix = peer_next_answer(&peer);
        assert_non_null(prefix);
        struct frame_reply reply;
        memcpy(&reply, prefix, sizeof reply);
        bool is_refused = reply.type == FRAME_REFUSE && reply.code == ERROR_NO_MEMORY;
        bool is_unknown = reply.code == reply_code(OUTCOME_UNKNOWN, ERROR_NO_MEMORY);
        if (reply.type == FRAME_REPLY && reply.code == 0)
            assert_int_equal(peer_tail(&peer, sizeof reply).size, sizeof large - 1);
        else
            assert_true(is_refused || is_unknown);
        failures += is_refused || is_unknown;
        peer_expect_silence(&peer);
        assert_int_equal(node.shards[0]->handed_over, 0);
        assert_int_equal(node.shards[0]->crossing[1].promised_bytes, 0);
        peer_hang_up(&peer);
        node_settle(&node);
        peer_free(&peer);
    }
    assert_true(failures >= 2);
    node_close(&node);
}

static void opens_whose_answers_are_not_read_wait(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    struct shard_options options = node_options(1);
    options.outbox_bytes_max = 32 * KIB;
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    struct stream stream = {0};
    for (uint32_t seq = 0; seq < COUNT; seq++) stream_open(&stream, seq, "demo");
    fake_io_hold_sends(node.ios[0], peer.conn, true);
    peer_send_stream(&peer, &stream);
    for (int i = 0; i < 100; i++) node_turn(&node);
    assert_true(fake_io_is_paused(node.ios[0], peer.conn));
    fake_io_hold_sends(node.ios[0], peer.conn, false);
    uint32_t seq = 0;
    for (int i = 0; i < 1000 && seq < COUNT; i++) {
        const struct frame_prefix *prefix;
        node_turn(&node);
        size_t bytes;
        fake_io_sent(node.ios[0], peer.conn, &bytes);
        assert_true(bytes <= 2 * node.options.outbox_bytes_max + KIB);
        while ((prefix = peer_next_answer(&peer)) != NULL) {
            struct frame_opened opened;
            memcpy(&opened, prefix, sizeof opened);
            assert_int_equal(opened.prefix.type, FRAME_OPENED);
            assert_int_equal(opened.seq, seq++);
        }
    }
    assert_int_equal(seq, COUNT);
    peer_free(&peer);
    node_close(&node);
}

/* Stops a shard that has been quiet for long, and has all the time it needs. */
static void stop_quietly(uint32_t shard)
{
    node_stop(&node, shard);
    assert_true(node_turn_one(&node, shard));
    node.shards[shard]->quiet_since_ns = 0;
    node.shards[shard]->stop_deadline_ns = TIME_NEVER;
}

static void a_shard_stops_when_no_other_one_needs_it(void **state)
{
    (void)state;
    char text[NODE_KEY_BYTES];
    open_node(2);
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    struct peer late = peer_greeted(&node, 1, 0, 1);
    const char *key = node_key(&node, 1, "k", text);
    stop_quietly(1);
    assert_true(node_turn_one(&node, 1));
    /* It takes no more from its own callers, and answers those of the other shard. */
    assert_true(fake_io_is_paused(node.ios[1], late.conn));
    assert_false(fake_io_is_paused(node.ios[0], peer.conn));
    peer_ask(&peer, ask_update(1, key, "one"));
    for (int i = 0; i < 3; i++) {
        assert_true(node_turn_one(&node, 0));
        assert_true(node_turn_one(&node, 1));
    }
    peer_expect_offset(&peer, 1, 1);
    peer_ask(&peer, ask_update(2, key, "two"));
    assert_true(node_turn_one(&node, 0));
    stop_quietly(0);
    for (int i = 0; i < 5; i++) node_turn(&node);
    peer_expect_offset(&peer, 2, 2);
    /* Then it waits for them to leave. */
    peer_hang_up(&peer);
    peer_hang_up(&late);
    while (node_turn_one(&node, 0)) node_turn_one(&node, 1);
    assert_false(node_turn_one(&node, 1));
    peer_free(&late);
    peer_free(&peer);
    node_close(&node);
}

/* The memory checker sees what is not. */
static void what_is_left_in_a_lane_is_let_go(void **state)
{
    (void)state;
    static char large[2 * CROSSING_INLINE_BYTES_MAX];
    char text[NODE_KEY_BYTES];
    memset(large, 'x', sizeof large - 1);
    open_node(2);
    const char *key = node_key(&node, 1, "k", text);
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    peer_ask(&peer, ask_update(1, key, large));
    node_settle(&node);
    peer_ask(&peer, ask_get(2, key));
    node_turn(&node);
    assert_true(mailbox_has_mail(&node.mailboxes[0])); /* the value */
    peer_ask(&peer, ask_update(3, key, large));
    struct peer greeter = peer_dial(&node, 0);
    struct stream stream = {0};
    struct frame_hello hello = hello_any();
    hello.shard = 1;
    stream_hello(&stream, hello);
    peer_send_stream(&greeter, &stream);
    for (int i = 0; i < 3; i++) node_turn_one(&node, 0);
    assert_true(mailbox_has_mail(&node.mailboxes[1])); /* the update and the connection */
    peer_free(&greeter);
    peer_free(&peer);
    node_close(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shard_looks_for_room_in_a_lane_by_itself),
        cmocka_unit_test(connections_handed_over_leave_the_room_that_replies_need),
        cmocka_unit_test(a_large_value_that_finds_no_memory_is_an_answer),
        cmocka_unit_test(opens_whose_answers_are_not_read_wait),
        cmocka_unit_test(a_shard_stops_when_no_other_one_needs_it),
        cmocka_unit_test(what_is_left_in_a_lane_is_let_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
