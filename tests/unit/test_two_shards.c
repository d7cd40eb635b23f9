/*
 * Two shards and their lanes: requests that cross, their replies, and what happens when something
 * is full, late or gone.
 */
#include "shard/crossing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "tests/support/node.h"

#define SESSION 0x5e5510

static struct node node;
static struct peer peer; /* of shard 0 */
static char near_key[NODE_KEY_BYTES];
static char far_key[NODE_KEY_BYTES]; /* of shard 1 */

static const struct cache_verb verbs[] = {{"echo", node_echo, NULL}};

static void open_two(const struct shard_options *options)
{
    node_open(&node, options);
    node_add_cache(&node, "demo", verbs, 1, NULL);
    peer = peer_greeted(&node, 0, SESSION, 1);
    node_key(&node, 0, "near", near_key);
    node_key(&node, 1, "far", far_key);
}

static int setup(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(2);
    open_two(&options);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    peer_free(&peer);
    for (uint32_t i = 0; i < 2; i++) {
        store_check(&node.shards[i]->caches[0]->store);
        assert_int_equal(node.shards[i]->crossing[1 - i].promised_bytes, 0);
        assert_int_equal(node.shards[i]->handed_over, 0);
    }
    node_close(&node);
    return 0;
}

/* ------------------------------------------------------------------------------ crossing */

static void every_kind_of_request_crosses(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_update(1, far_key, "a"));
    peer_ask(&peer, ask_update(2, far_key, "bb"));
    peer_ask(&peer, ask_get(3, far_key));
    peer_ask(&peer, ask_remove(4, far_key));
    peer_ask(&peer, ask_get(5, far_key));
    peer_ask(&peer, ask_verb(6, "echo", far_key, "there and back"));
    peer_ask(&peer, ask_verb(7, "unheard", far_key, ""));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_expect_offset(&peer, 2, 2);
    peer_expect_string(&peer, 3, "bb");
    peer_expect_offset(&peer, 4, 3);
    peer_expect_failure(&peer, 5, ERROR_NOT_FOUND, "no such key");
    peer_expect_string(&peer, 6, "there and back");
    peer_expect_failure(&peer, 7, ERROR_UNSUPPORTED, "no handler");
    assert_int_equal(node.shards[0]->counters.crossed_out, 7);
    assert_int_equal(node.shards[1]->counters.crossed_in, 7);
    assert_int_equal(node.shards[0]->counters.requests, 7);
    assert_int_equal(node.shards[1]->counters.requests, 0);
}

static void each_shard_does_its_own(void **unused)
{
    (void)unused;
    char key[NODE_KEY_BYTES];
    for (uint32_t seq = 1; seq <= 400; seq++) {
        snprintf(key, sizeof key, "k%u", seq);
        peer_ask(&peer, ask_update(seq, key, key));
    }
    node_settle(&node);
    bool answered[401] = {false};
    for (uint32_t i = 1; i <= 400; i++) {
        struct frame_reply reply;
        assert_non_null(peer_next_answer(&peer));
        memcpy(&reply, peer.frame, sizeof reply);
        assert_int_equal(reply.code, 0);
        assert_int_equal(reply.offset, 1);
        assert_in_range(reply.seq, 1, 400);
        assert_false(answered[reply.seq]);
        answered[reply.seq] = true;
    }
    for (uint32_t i = 0; i < 2; i++) assert_in_range(node.shards[i]->counters.keys, 100, 300);
    assert_int_equal(node.shards[0]->counters.keys + node.shards[1]->counters.keys, 400);
    assert_int_equal(node.shards[1]->counters.keys, node.shards[0]->counters.crossed_out);
}

static void a_named_slot_sends_it_to_that_slots_shard(void **unused)
{
    (void)unused;
    struct ask ask = ask_update(1, far_key, "v");
    ask.slot = slot_of_key(far_key, strlen(far_key));
    peer_ask(&peer, ask);
    ask.seq = 2;
    ask.slot = slot_of_key(near_key, strlen(near_key));
    peer_ask(&peer, ask);
    node_settle(&node);
    /* The wrong one fails where it arrives, and has not far to go. */
    peer_expect_failure(&peer, 2, ERROR_INVALID, "is not the key's");
    peer_expect_offset(&peer, 1, 1);
}

static void large_values_cross_as_blocks(void **unused)
{
    (void)unused;
    static char value[20001];
    uint32_t seq = 0;
    static const size_t sizes[] = {0,    4000, 4031, 4032, 4050, 4056, 4057,
                                   4064, 4096, 4097, 4104, 4105, 5000, 20000};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        memset(value, 'v', sizes[i]);
        value[sizes[i]] = 0;
        peer_ask(&peer, ask_update(++seq, far_key, value));
        peer_ask(&peer, ask_get(++seq, far_key));
        node_settle(&node);
        peer_expect_offset(&peer, seq - 1, i + 1);
        peer_expect_string(&peer, seq, value);
    }
}

static void what_nobody_wants_to_hear_of_comes_back_as_nothing(void **unused)
{
    (void)unused;
    for (uint32_t seq = 1; seq <= 50; seq++) {
        struct ask ask = seq % 2 == 0 ? ask_update(seq, far_key, "v") : ask_get(seq, far_key);
        ask.want = seq % 3 == 0 ? WANT_ACK : WANT_NOTHING;
        peer_ask(&peer, ask);
    }
    node_settle(&node);
    struct frame_ack ack = peer_expect_ack(&peer);
    assert_int_equal(ack.requests, 50);
    peer_expect_silence(&peer);
    assert_int_equal(node.shards[1]->counters.updates, 25);
    assert_int_equal(node.shards[0]->counters.replies, 0);
    assert_int_equal(node.shards[1]->counters.replies, 0);
}

static void a_key_that_info_has_crosses_no_lane(void **unused)
{
    (void)unused;
    static const uint16_t slots[] = {0, 4095, 4096, 5000, 65534, FRAME_SLOT_ANY};
    for (uint32_t i = 0; i < ARRAY_COUNT(slots); i++) {
        struct ask ask = ask_get(i, far_key);
        ask.type = FRAME_INFO;
        ask.slot = slots[i];
        peer_ask(&peer, ask);
        node_settle(&node);
        peer_expect_failure(&peer, i, ERROR_INVALID, "INFO");
    }
    struct ask ask = ask_update(9, "", "v");
    ask.type = FRAME_INFO;
    peer_ask(&peer, ask);
    node_settle(&node);
    peer_expect_failure(&peer, 9, ERROR_INVALID, "INFO");
}

static void info_tells_of_both_shards(void **unused)
{
    (void)unused;
    struct ask ask = ask_get(1, "");
    ask.type = FRAME_INFO;
    ask.cache = 77;
    peer_ask(&peer, ask);
    node_settle(&node);
    struct frame_reply reply = peer_expect(&peer, 1, OUTCOME_OK, ERROR_NONE);
    assert_int_equal(reply.flags, VALUE_JSON);
    struct bytes text = peer_tail(&peer, sizeof reply);
    assert_non_null(memmem(text.data, text.size, "\"shard\":0,", 10));
    assert_non_null(memmem(text.data, text.size, "\"shard\":1,", 10));
}

/* ------------------------------------------------------------------------------ bundles */

static void send_updates(uint32_t count, const char *const keys[2])
{
    struct stream stream = {0};
    for (uint32_t seq = 1; seq <= count; seq++) {
        struct ask ask = ask_update(seq, keys[seq % 2], "value");
        stream_ask(&stream, &ask);
    }
    peer_send_stream(&peer, &stream);
}

/* The next reply is OK; its offset goes up by one with each of its key. */
static uint32_t expect_next_offset(uint64_t offsets[2])
{
    struct frame_reply reply;
    assert_non_null(peer_next_answer(&peer));
    memcpy(&reply, peer.frame, sizeof reply);
    assert_int_equal(reply.type, FRAME_REPLY);
    assert_int_equal(reply.code, 0);
    assert_int_equal(reply.flags, 0);
    assert_int_equal(reply.offset, ++offsets[reply.seq % 2]);
    return reply.seq;
}

static void plain_updates_cross_in_one_mail(void **unused)
{
    (void)unused;
    const uint32_t count = 200;
    send_updates(count, (const char *const[2]){near_key, far_key});
    node_turn_one(&node, 0);
    struct lane *there = node.shards[1]->mailbox->in[0];
    const struct mail *mail = lane_peek(there);
    assert_non_null(mail);
    assert_int_equal(mail->kind, MAIL_BUNDLE);
    assert_int_equal(node.shards[0]->counters.requests, count);
    assert_int_equal(node.shards[0]->handed_over, count / 2);
    node_turn_one(&node, 1);
    const struct mail *replies = lane_peek(node.shards[0]->mailbox->in[1]);
    assert_non_null(replies);
    assert_int_equal(replies->kind, MAIL_BUNDLE_REPLIES);
    assert_int_equal(node.shards[1]->counters.crossed_in, count / 2);
    node_settle(&node);
    uint64_t offsets[2] = {0, 0};
    for (uint32_t i = 0; i < count; i++) expect_next_offset(offsets);
    assert_int_equal(node.shards[0]->counters.keys, 1);
    assert_int_equal(node.shards[1]->counters.keys, 1);
}

/* So that there are long ones, short ones, and one at each end of the lane's memory. */
static void bundles_go_round_the_lane(void **unused)
{
    (void)unused;
    uint64_t offsets[2] = {0, 0};
    uint32_t seq = 0;
    for (uint32_t round = 0; round < 400; round++) {
        struct stream stream = {0};
        for (uint32_t count = round * 7 % 300 + 1; count > 0; count--) {
            struct ask ask = ask_update(2 * ++seq + 1, far_key, "a value");
            ask.value.size = count % 8;
            stream_ask(&stream, &ask);
        }
        peer_send_stream(&peer, &stream);
        node_settle(&node);
    }
    assert_true(node.shards[0]->mailbox->out[1]->producer.tail > 10 * node.options.lane_bytes);
    for (uint32_t i = 1; i <= seq; i++) assert_int_equal(expect_next_offset(offsets), 2 * i + 1);
    assert_int_equal(node.shards[1]->counters.updates, seq);
}

/* A near one that is not plain any more when it is applied gives those behind it up again. */
static void nothing_crosses_twice_when_a_run_ends_early(void **unused)
{
    (void)unused;
    struct stream stream = {0};
    const uint32_t count = 300;
    peer_ask(&peer, ask_update(1, near_key, "v"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    for (uint32_t seq = 2; seq <= count; seq++) {
        struct ask ask = ask_update(seq, seq % 5 == 0 ? near_key : far_key, "v");
        /* A slot of the same shard, but not the key's. */
        if (seq % 35 == 0) ask.slot = slot_of_key(near_key, strlen(near_key)) ^ 1;
        stream_ask(&stream, &ask);
    }
    peer_send_stream(&peer, &stream);
    node_settle(&node);
    uint64_t far = 0;
    uint32_t near = 0;
    for (uint32_t i = 2; i <= count; i++) {
        struct frame_reply reply;
        assert_non_null(peer_next_answer(&peer));
        memcpy(&reply, peer.frame, sizeof reply);
        assert_int_equal(reply.code,
                         reply.seq % 35 == 0 ? reply_code(OUTCOME_FAIL, ERROR_INVALID) : 0);
        if (reply.seq % 5 != 0)
            assert_int_equal(reply.offset, ++far);
        else
            near++;
    }
    assert_int_equal(near, count / 5);
    assert_int_equal(node.shards[1]->counters.updates, far);
    assert_int_equal(node.shards[1]->counters.duplicates, 0);
    peer_expect_silence(&peer);
}

static void what_of_a_bundle_was_sent_again_is_known(void **unused)
{
    (void)unused;
    const char *const keys[2] = {near_key, far_key};
    send_updates(100, keys);
    node_settle(&node);
    uint64_t offsets[2] = {0, 0};
    for (uint32_t i = 0; i < 100; i++) expect_next_offset(offsets);
    peer_hang_up(&peer);
    node_settle(&node);
    peer_free(&peer);
    peer = peer_greeted(&node, 0, SESSION, 1);
    send_updates(120, keys);
    node_settle(&node);
    uint32_t duplicates = 0;
    for (uint32_t i = 0; i < 120; i++) {
        struct frame_reply reply;
        assert_non_null(peer_next_answer(&peer));
        memcpy(&reply, peer.frame, sizeof reply);
        assert_int_equal(reply.code, 0);
        assert_int_equal(reply.offset, (reply.seq + 1) / 2);
        assert_int_equal(reply.flags, reply.seq <= 100 ? REPLY_DUPLICATE : 0);
        duplicates += reply.flags == REPLY_DUPLICATE;
    }
    assert_int_equal(duplicates, 100);
}

static void a_bundle_whose_session_finds_no_memory_is_refused_in_whole(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(2);
    options.sessions_bytes_max = 1; /* the caller has none, so its shard needs none */
    node_open(&node, &options);
    node_add_cache(&node, "demo", verbs, 1, NULL);
    peer = peer_greeted(&node, 0, 0, 1);
    node_key(&node, 0, "near", near_key);
    node_key(&node, 1, "far", far_key);
    node.shards[0]->callers[0].claim.id = SESSION;
    for (uint32_t seq = 1; seq <= 20; seq++) peer_ask(&peer, ask_update(seq, far_key, "v"));
    node_settle(&node);
    for (uint32_t seq = 1; seq <= 20; seq++)
        peer_expect_failure(&peer, seq, ERROR_NO_MEMORY, "no memory to remember the session");
    assert_int_equal(node.shards[1]->counters.updates, 0);
}

/* It may have been done before its session was forgotten: nobody can say that it was not. */
static void what_is_sent_again_without_a_session_is_unknown(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(2);
    options.sessions_bytes_max = 1;
    node_open(&node, &options);
    node_add_cache(&node, "demo", verbs, 1, NULL);
    peer = peer_greeted(&node, 0, 0, 10);
    node_key(&node, 0, "near", near_key);
    node_key(&node, 1, "far", far_key);
    node.shards[0]->callers[0].claim.id = SESSION;
    node.shards[0]->callers[0].claim.seq_unsent = 10;
    peer_ask(&peer, ask_remove(9, far_key));
    peer_ask(&peer, ask_remove(10, far_key));
    node_settle(&node);
    peer_expect(&peer, 9, OUTCOME_UNKNOWN, ERROR_NO_MEMORY);
    peer_expect(&peer, 10, OUTCOME_FAIL, ERROR_NO_MEMORY);
}

/* ------------------------------------------------------------------------------ sessions */

static void expect_duplicate(uint32_t seq, uint64_t offset)
{
    struct frame_reply reply = peer_expect(&peer, seq, OUTCOME_OK, ERROR_NONE);
    assert_int_equal(reply.flags, REPLY_DUPLICATE);
    assert_int_equal(reply.offset, offset);
}

static void the_owner_knows_what_was_sent_again(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_update(1, far_key, "v"));
    peer_ask(&peer, ask_update(2, far_key, "w"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_expect_offset(&peer, 2, 2);
    peer_ask(&peer, ask_update(1, far_key, "v"));
    node_settle(&node);
    expect_duplicate(1, 1);
    peer_hang_up(&peer);
    node_settle(&node);
    peer_free(&peer);
    peer = peer_greeted(&node, 1, SESSION, 1);
    peer_ask(&peer, ask_update(1, far_key, "v"));
    peer_ask(&peer, ask_update(2, far_key, "w"));
    peer_ask(&peer, ask_update(3, far_key, "x"));
    node_settle(&node);
    expect_duplicate(1, 1);
    expect_duplicate(2, 2);
    peer_expect_offset(&peer, 3, 3);
}

static struct ask with_deadline(struct ask ask, uint32_t ms)
{
    ask.extensions.present |= 1u << EXT_DEADLINE_MS;
    ask.extensions.deadline_ms = ms;
    return ask;
}

static void what_is_late_is_not_done(void **unused)
{
    (void)unused;
    peer_ask(&peer, with_deadline(ask_update(1, far_key, "late"), 0));
    peer_ask(&peer, with_deadline(ask_update(2, far_key, "in time"), 60000));
    peer_ask(&peer, with_deadline(ask_get(3, far_key), 0));
    peer_ask(&peer, ask_get(4, far_key));
    node_settle(&node);
    peer_expect_failure(&peer, 1, ERROR_TIMEOUT, "deadline");
    peer_expect_offset(&peer, 2, 1);
    peer_expect_failure(&peer, 3, ERROR_TIMEOUT, "deadline");
    peer_expect_string(&peer, 4, "in time");
}

/* FAIL means that it did not happen, and it did. */
static void what_was_done_before_is_never_late(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_update(1, far_key, "done"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_ask(&peer, with_deadline(ask_update(1, far_key, "done"), 0));
    node_settle(&node);
    expect_duplicate(1, 1);
}

/* Its only link is on the other shard, so its owner may forget it, but not while it grows. */
static void a_session_that_grows_is_not_forgotten(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(2);
    options.sessions_bytes_max = 6 * KIB;
    open_two(&options);
    for (uint32_t seq = 1; seq <= 1000; seq++) peer_ask(&peer, ask_update(seq, far_key, "v"));
    node_settle(&node);
    unsigned done = 0;
    for (uint32_t seq = 1; seq <= 1000; seq++) {
        struct frame_reply reply;
        assert_non_null(peer_next_answer(&peer));
        memcpy(&reply, peer.frame, sizeof reply);
        assert_int_equal(reply.seq, seq);
        if (reply.code == 0)
            done++;
        else
            assert_int_equal(reply.code, reply_code(OUTCOME_FAIL, ERROR_NO_MEMORY));
    }
    assert_in_range(done, 256, 999);
    assert_int_equal(node.shards[1]->counters.sessions, 1);
}

/* Shard 1 forgets whatever session came over its lane before: others come, and it has little memory. */
static void let_forget(uint64_t first_id)
{
    for (uint64_t id = first_id; id < first_id + 4; id++) {
        struct frame_hello hello = hello_any();
        hello.session = id;
        hello.session_start = 1000 + id;
        struct peer other = peer_greeted_as(&node, 0, hello);
        peer_ask(&other, ask_update(1, far_key, "other"));
        node_settle(&node);
        peer_expect(&other, 1, OUTCOME_OK, ERROR_NONE);
        peer_hang_up(&other);
        node_settle(&node);
        peer_free(&other);
    }
}

static uint64_t far_changes(void)
{
    return node.shards[1]->counters.updates;
}

static void what_its_owner_forgot_is_not_applied_twice(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(2);
    options.sessions_bytes_max = 1700; /* two of them */
    open_two(&options);
    peer_ask(&peer, ask_update(1, far_key, "first"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    let_forget(1);
    uint64_t changes = far_changes();

    /* On the link that goes on, */
    peer_ask(&peer, ask_update(1, far_key, "first"));
    peer_ask(&peer, ask_get(2, far_key));
    peer_ask(&peer, ask_update(3, far_key, "third"));
    node_settle(&node);
    peer_expect_stale(&peer, 1, "too old");
    peer_expect_string(&peer, 2, "other");
    peer_expect_offset(&peer, 3, 6);
    peer_ask(&peer, ask_update(3, far_key, "third"));
    node_settle(&node);
    expect_duplicate(3, 6);
    let_forget(11);

    /* and after a reconnect, in a bundle or not. */
    peer_hang_up(&peer);
    node_settle(&node);
    peer_free(&peer);
    peer = peer_greeted(&node, 0, SESSION, 5);
    peer_ask(&peer, ask_update(3, far_key, "third"));
    peer_ask(&peer, ask_remove(4, far_key));
    for (uint32_t seq = 5; seq < 40; seq++) peer_ask(&peer, ask_update(seq, far_key, "new"));
    node_settle(&node);
    peer_expect_stale(&peer, 3, "too old");
    peer_expect_stale(&peer, 4, "too old");
    for (uint32_t seq = 5; seq < 40; seq++) peer_expect_offset(&peer, seq, 6 + seq);
    assert_int_equal(far_changes(), changes + 1 + 4 + 35);
}

/*
 * The link is lost while the request is in a lane, or its reply is: it is sent again over another
 * link, here or there, and whoever comes first is the one that counts.
 */
static void what_is_under_way_is_not_applied_twice(void **unused)
{
    (void)unused;
    for (uint32_t round = 0; round < 8; round++) {
        uint32_t seq = 1 + 2 * round;
        uint64_t before = store_keys_count(&node.shards[1]->caches[0]->store);
        struct peer again = peer_greeted(&node, round / 4, SESSION, seq + 2);
        peer_ask(&peer, ask_update(seq, far_key, "v"));
        /* So many turns of either shard until the link is lost. */
        for (uint32_t turn = 0; turn < round % 4; turn++) node_turn_one(&node, turn % 2);
        peer_hang_up(&peer);
        peer_ask(&again, ask_update(seq, far_key, "v"));
        peer_ask(&again, ask_update(seq + 1, far_key, "w"));
        node_settle(&node);
        struct frame_reply reply = peer_expect(&again, seq, OUTCOME_OK, ERROR_NONE);
        assert_int_equal(reply.offset, seq);
        peer_expect_offset(&again, seq + 1, seq + 1);
        assert_in_range(store_keys_count(&node.shards[1]->caches[0]->store), before, 1);
        peer_free(&peer);
        peer = again;
    }
}

/* ---------------------------------------------------------------------------- what is full */

/* Fire and forget brings no mail back that would wake the sender: it must look by itself. */
static void a_full_lane_stops_its_source_and_loses_nothing(void **unused)
{
    (void)unused;
    static char value[1001];
    const uint32_t count = 2000;
    memset(value, 'v', 1000);
    struct stream stream = {0};
    for (uint32_t seq = 1; seq <= count; seq++) {
        struct ask ask = ask_update(seq, far_key, value);
        ask.want = WANT_NOTHING;
        stream_ask(&stream, &ask);
    }
    peer_send_stream(&peer, &stream);
    node_turn_one(&node, 0);
    assert_true(fake_io_is_paused(node.ios[0], peer.conn));
    uint64_t crossed = node.shards[0]->counters.crossed_out;
    assert_in_range(crossed, 10, count - 1);
    for (int i = 0; i < 5; i++) node_turn_one(&node, 0);
    assert_int_equal(node.shards[0]->counters.crossed_out, crossed);

    /* From here on nobody wakes shard 0: it would wait for ever, and the fake io aborts. */
    fake_io_on_wait(node.ios[0], NULL, NULL);
    for (int i = 0; i < 1000 && node.shards[0]->counters.crossed_out < count; i++) {
        node_turn_one(&node, 1);
        node_turn_one(&node, 0);
    }
    node_turn_one(&node, 1);
    assert_int_equal(node.shards[1]->counters.updates, count);
    assert_false(fake_io_is_paused(node.ios[0], peer.conn));
}

static void replies_that_are_promised_stop_the_source_too(void **unused)
{
    (void)unused;
    struct stream stream = {0};
    for (uint32_t seq = 1; seq <= 500; seq++) {
        struct ask ask = ask_get(seq, far_key);
        stream_ask(&stream, &ask);
    }
    peer_send_stream(&peer, &stream);
    node_turn_one(&node, 0);
    /* 500 requests fit, but not the 4 KiB each that their replies may have. */
    assert_in_range(node.shards[0]->counters.crossed_out, 5, 30);
    assert_true(fake_io_is_paused(node.ios[0], peer.conn));
    node_settle(&node);
    for (uint32_t seq = 1; seq <= 500; seq++)
        peer_expect_failure(&peer, seq, ERROR_NOT_FOUND, "no such key");
}

static void both_ways_full_at_once_is_no_deadlock(void **unused)
{
    (void)unused;
    static char value[3001];
    memset(value, 'v', 3000);
    struct peer other = peer_greeted(&node, 1, SESSION + 1, 1);
    struct stream there = {0};
    struct stream back = {0};
    for (uint32_t seq = 1; seq <= 600; seq++) {
        struct ask ask = seq % 2 == 0 ? ask_get(seq, far_key) : ask_update(seq, far_key, value);
        stream_ask(&there, &ask);
        ask.key = bytes_of(near_key);
        stream_ask(&back, &ask);
    }
    peer_send_stream(&peer, &there);
    peer_send_stream(&other, &back);
    node_settle(&node);
    for (uint32_t seq = 1; seq <= 600; seq++) {
        if (seq % 2 == 0) {
            peer_expect_string(&peer, seq, value);
            peer_expect_string(&other, seq, value);
        } else {
            peer_expect_offset(&peer, seq, seq / 2 + 1);
            peer_expect_offset(&other, seq, seq / 2 + 1);
        }
    }
    peer_free(&other);
}

/* A peer that never reads: what it may have in the outbox, and then its source stops. */
static void a_full_outbox_stops_its_source(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(2);
    options.outbox_bytes_max = 16 * KIB;
    open_two(&options);
    fake_io_hold_sends(node.ios[0], peer.conn, true);
    struct stream stream = {0};
    for (uint32_t seq = 1; seq <= 3000; seq++) {
        struct ask ask = ask_update(seq, seq % 2 == 0 ? far_key : near_key, "v");
        stream_ask(&stream, &ask);
    }
    peer_send_stream(&peer, &stream);
    node_settle(&node);
    assert_true(fake_io_is_paused(node.ios[0], peer.conn));
    assert_in_range(node.shards[0]->counters.requests, 100, 2000);
    assert_in_range(link_out_bytes(&node.shards[0]->callers[0].link), 1, 20 * KIB);
    fake_io_hold_sends(node.ios[0], peer.conn, false);
    node_settle(&node);
    assert_false(fake_io_is_paused(node.ios[0], peer.conn));
    uint64_t offsets[2] = {0, 0};
    for (uint32_t i = 0; i < 3000; i++) {
        struct frame_reply reply;
        assert_non_null(peer_next_answer(&peer));
        memcpy(&reply, peer.frame, sizeof reply);
        assert_int_equal(reply.code, 0);
        assert_int_equal(reply.offset, ++offsets[reply.seq % 2]); /* in order, for one key */
    }
}

static void a_reply_to_who_has_gone_is_dropped(void **unused)
{
    (void)unused;
    for (uint32_t seq = 1; seq <= 20; seq++) peer_ask(&peer, ask_update(seq, far_key, "v"));
    node_turn_one(&node, 0);
    peer_hang_up(&peer);
    node_turn_one(&node, 0);
    node_turn_one(&node, 0);
    assert_int_equal(node.shards[0]->counters.connections, 0);
    /* Another takes its place before the replies come. */
    struct peer next = peer_dial(&node, 0);
    struct stream stream = {0};
    stream_hello(&stream, hello_any());
    peer_send_stream(&next, &stream);
    node_turn_one(&node, 0);
    node_settle(&node);
    assert_int_equal(peer_next(&next)->type, FRAME_WELCOME);
    peer_expect_silence(&next);
    assert_int_equal(node.shards[1]->counters.updates, 20);
    peer_free(&next);
}

/* ------------------------------------------------------------------------------ no memory */

static void a_reply_without_memory_says_so(void **unused)
{
    (void)unused;
    static char value[5001];
    memset(value, 'v', 5000);
    peer_ask(&peer, ask_update(1, far_key, value));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_ask(&peer, ask_get(2, far_key));
    peer_ask(&peer, ask_get(3, near_key));
    node_turn_one(&node, 0);
    memory_fail_after(1);
    node_turn_one(&node, 1);
    memory_fail_after(0);
    node_settle(&node);
    peer_expect_failure(&peer, 3, ERROR_NOT_FOUND, "");
    peer_expect(&peer, 2, OUTCOME_UNKNOWN, ERROR_NO_MEMORY);
    peer_ask(&peer, ask_get(4, far_key));
    node_settle(&node);
    peer_expect_string(&peer, 4, value);
}

/* ------------------------------------------------------------------------------ greeting */

/* The peer of the connection that `shard` adopted last. */
static struct peer adopted(uint32_t shard)
{
    const struct shard *owner = node.shards[shard];
    assert_true(owner->callers_fresh > 0);
    return (struct peer){
        .node = &node, .shard = shard, .conn = owner->callers[owner->callers_fresh - 1].link.conn};
}

static struct frame_welcome expect_welcome(struct peer *to)
{
    struct frame_welcome frame;
    const struct frame_prefix *prefix = peer_next(to);
    assert_non_null(prefix);
    assert_int_equal(prefix->type, FRAME_WELCOME);
    memcpy(&frame, to->frame, sizeof frame);
    assert_int_equal(frame.shards_count, 2);
    uint16_t first_slots[2];
    memcpy(first_slots, to->frame + sizeof frame, sizeof first_slots);
    assert_int_equal(first_slots[0], 0);
    assert_int_equal(first_slots[1], 2048);
    return frame;
}

static void a_link_is_handed_to_the_shard_it_names(void **unused)
{
    (void)unused;
    struct peer dialled = peer_dial(&node, 0);
    struct stream stream = {0};
    struct frame_hello hello = hello_any();
    hello.shard = 1;
    stream_hello(&stream, hello);
    stream_open(&stream, 5, "demo");
    peer_send_stream(&dialled, &stream);
    node_settle(&node);
    struct peer link = adopted(1);
    assert_int_equal(expect_welcome(&link).shard, 1);
    assert_int_equal(peer_next(&link)->type, FRAME_OPENED);
    peer_ask(&link, ask_update(1, far_key, "v"));
    peer_ask(&link, ask_update(2, near_key, "v"));
    node_settle(&node);
    peer_expect_offset(&link, 1, 1);
    peer_expect_offset(&link, 2, 1);
    assert_int_equal(node.shards[1]->counters.crossed_out, 1);
    peer_free(&link);
    peer_free(&dialled);
}

static void requests_behind_a_hello_go_with_it(void **unused)
{
    (void)unused;
    struct peer dialled = peer_dial(&node, 0);
    struct stream stream = {0};
    struct frame_hello hello = hello_any();
    hello.shard = 1;
    stream_hello(&stream, hello);
    struct ask ask = ask_update(1, far_key, "v");
    stream_ask(&stream, &ask);
    ask = ask_update(2, near_key, "v");
    stream_ask(&stream, &ask);
    stream_put(&stream, "\x20\0\0\0\x10", 5); /* and the start of one more */
    peer_send_stream(&dialled, &stream);
    node_settle(&node);
    struct peer link = adopted(1);
    assert_int_equal(expect_welcome(&link).shard, 1);
    peer_expect_offset(&link, 1, 1);
    peer_expect_offset(&link, 2, 1);
    peer_free(&link);
    peer_free(&dialled);
}

static void who_wants_any_shard_is_dealt_one_in_turn(void **unused)
{
    (void)unused;
    uint64_t before = node.shards[1]->counters.connections;
    for (unsigned i = 0; i < 10; i++) {
        struct peer dialled = peer_dial(&node, 0);
        struct stream stream = {0};
        stream_hello(&stream, hello_any());
        peer_send_stream(&dialled, &stream);
        node_settle(&node);
        peer_free(&dialled);
    }
    assert_int_equal(node.shards[1]->counters.connections - before, 5);
}

/* The shard that reads it greets itself where the HELLO came in pieces. */
static void a_hello_in_pieces_is_greeted_where_it_is(void **unused)
{
    (void)unused;
    struct peer dialled = peer_dial(&node, 0);
    struct stream stream = {0};
    struct frame_hello hello = hello_any();
    hello.shard = 1;
    stream_hello(&stream, hello);
    for (size_t at = 0; at < stream.bytes; at += 9) {
        peer_send(&dialled, stream.data + at, at + 9 < stream.bytes ? 9 : stream.bytes - at);
        node_turn(&node);
    }
    stream_free(&stream);
    node_settle(&node);
    if (peer_is_up(&dialled)) {
        assert_int_equal(expect_welcome(&dialled).shard, 0);
        peer_ask(&dialled, ask_update(1, far_key, "v"));
        node_settle(&node);
        peer_expect_offset(&dialled, 1, 1);
    } else {
        struct peer link = adopted(1);
        assert_int_equal(expect_welcome(&link).shard, 1);
        peer_free(&link);
    }
    peer_free(&dialled);
}

/* Connections that are handed over must leave the room that was promised to replies. */
static void handing_over_takes_no_room_from_replies(void **unused)
{
    (void)unused;
    struct peer others[40];
    struct peer asking = peer_greeted(&node, 1, 0, 1);
    for (unsigned i = 0; i < ARRAY_COUNT(others); i++) others[i] = peer_dial(&node, 0);
    for (uint32_t seq = 1; seq <= 10; seq++) peer_ask(&asking, ask_get(seq, near_key));
    node_turn_one(&node, 1); /* they cross to shard 0 */
    for (unsigned i = 0; i < ARRAY_COUNT(others); i++) {
        struct stream stream = {0};
        struct frame_hello hello = hello_any();
        hello.shard = 1;
        stream_hello(&stream, hello);
        while (stream.bytes < 4000) stream_open(&stream, 1, "demo");
        peer_send_stream(&others[i], &stream);
    }
    node_turn_one(&node, 0);
    node_settle(&node);
    for (uint32_t seq = 1; seq <= 10; seq++) peer_expect_failure(&asking, seq, ERROR_NOT_FOUND, "");
    /* Who found no room is served by the shard that it dialled. */
    assert_in_range(node.shards[1]->counters.connections, 5, 40);
    assert_int_equal(node.shards[0]->counters.connections + node.shards[1]->counters.connections,
                     ARRAY_COUNT(others) + 2);
    for (unsigned i = 0; i < ARRAY_COUNT(others); i++) peer_free(&others[i]);
    peer_free(&asking);
}

/* ------------------------------------------------------------------------------ stopping */

static void a_node_that_stops_answers_what_it_has_taken(void **unused)
{
    (void)unused;
    for (uint32_t seq = 1; seq <= 100; seq++) peer_ask(&peer, ask_update(seq, far_key, "v"));
    node_turn_one(&node, 0);
    node_stop(&node, 0);
    node_stop(&node, 1);
    bool running = true;
    while (running) {
        running = node_turn_one(&node, 0);
        running |= node_turn_one(&node, 1);
    }
    for (uint32_t seq = 1; seq <= 100; seq++) peer_expect_offset(&peer, seq, seq);
    assert_false(fake_io_is_listening(node.ios[0]));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
/* It opens the node itself, with options of its own. */
#define TEST_OWN(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(every_kind_of_request_crosses),
        TEST(each_shard_does_its_own),
        TEST(a_named_slot_sends_it_to_that_slots_shard),
        TEST(large_values_cross_as_blocks),
        TEST(what_nobody_wants_to_hear_of_comes_back_as_nothing),
        TEST(a_key_that_info_has_crosses_no_lane),
        TEST(info_tells_of_both_shards),
        TEST(plain_updates_cross_in_one_mail),
        TEST(bundles_go_round_the_lane),
        TEST(nothing_crosses_twice_when_a_run_ends_early),
        TEST(what_of_a_bundle_was_sent_again_is_known),
        TEST_OWN(a_bundle_whose_session_finds_no_memory_is_refused_in_whole),
        TEST_OWN(what_is_sent_again_without_a_session_is_unknown),
        TEST(the_owner_knows_what_was_sent_again),
        TEST(what_is_late_is_not_done),
        TEST(what_was_done_before_is_never_late),
        TEST_OWN(a_session_that_grows_is_not_forgotten),
        TEST(what_is_under_way_is_not_applied_twice),
        TEST_OWN(what_its_owner_forgot_is_not_applied_twice),
        TEST(a_full_lane_stops_its_source_and_loses_nothing),
        TEST(replies_that_are_promised_stop_the_source_too),
        TEST(both_ways_full_at_once_is_no_deadlock),
        TEST_OWN(a_full_outbox_stops_its_source),
        TEST(a_reply_to_who_has_gone_is_dropped),
        TEST(a_reply_without_memory_says_so),
        TEST(a_link_is_handed_to_the_shard_it_names),
        TEST(requests_behind_a_hello_go_with_it),
        TEST(who_wants_any_shard_is_dealt_one_in_turn),
        TEST(a_hello_in_pieces_is_greeted_where_it_is),
        TEST(handing_over_takes_no_room_from_replies),
        TEST(a_node_that_stops_answers_what_it_has_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
