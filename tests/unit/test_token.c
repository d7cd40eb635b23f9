/*
 * A node that wants a token: who shows it is served, and nobody else is told anything.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/node.h"

static const struct secret token = {.bytes = 12, .data = "open, sesame"};
static struct node node;

static void open_node(void)
{
    struct shard_options options = node_options(2);
    options.token = &token;
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
}

static struct peer dial_with(struct frame_hello hello, const void *shown, size_t bytes)
{
    struct peer peer = peer_dial(&node, 0);
    uint8_t frame[sizeof hello + SECRET_BYTES_MAX + 8];
    size_t size = hello_encode(&hello, (struct bytes){shown, bytes}, frame);
    peer_send(&peer, frame, size);
    node_settle(&node);
    return peer;
}

/* The link is closed, without a byte, and the node goes on. */
static void expect_nothing(struct peer *peer, uint64_t refused)
{
    uint64_t sum = node.shards[0]->counters.refused + node.shards[1]->counters.refused;
    peer_expect_silence(peer);
    assert_false(peer_is_up(peer));
    assert_int_equal(sum, refused);
    assert_int_equal(node.shards[0]->counters.connections, 0);
    assert_int_equal(node.shards[1]->counters.connections, 0);
    peer_free(peer);
}

static void the_right_one_is_welcomed(void **unused)
{
    (void)unused;
    open_node();
    for (uint16_t shard = 0; shard < 2; shard++) {
        struct frame_hello hello = hello_any();
        hello.shard = shard;
        struct peer peer = dial_with(hello, token.data, token.bytes);
        if (shard == 1) {
            /* It was handed over, and does not show it again. */
            peer.shard = 1;
            assert_int_equal(fake_io_adopts_count(node.ios[1], &peer.conn), 1);
        }
        const struct frame_prefix *prefix = peer_next(&peer);
        assert_non_null(prefix);
        assert_int_equal(prefix->type, FRAME_WELCOME);
        peer_free(&peer);
        node_settle(&node);
    }
    node_close(&node);
}

static void others_are_told_nothing(void **unused)
{
    (void)unused;
    static const struct bytes cases[] = {
        {NULL, 0},
        {"o", 1},
        {"open, sesam", 11},
        {"open, sesame!", 13},
        {"open, sesamE", 12},
        {"Open, sesame", 12},
        {"open, sesame\0", 13},
    };
    open_node();
    uint64_t refused = 0;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct peer peer = dial_with(hello_any(), cases[i].data, cases[i].size);
        expect_nothing(&peer, ++refused);
    }
    char longest[SECRET_BYTES_MAX] = "open, sesame";
    struct peer peer = dial_with(hello_any(), longest, sizeof longest);
    expect_nothing(&peer, ++refused);
    node_close(&node);
}

/* What would be refused with a reason on a node without a token. */
static void mistakes_are_not_explained_before_it(void **unused)
{
    (void)unused;
    open_node();
    struct frame_hello hello = hello_any();
    hello.shard = 99;
    struct peer peer = dial_with(hello, NULL, 0);
    expect_nothing(&peer, 1);
    hello = hello_any();
    hello.cluster = 1;
    peer = dial_with(hello, "wrong", 5);
    expect_nothing(&peer, 2);
    hello = hello_any();
    hello.role = ROLE_NODE;
    peer = dial_with(hello, NULL, 0);
    expect_nothing(&peer, 3);
    peer = peer_dial(&node, 0);
    peer_send(&peer, "GET / HTTP/1.1\r\n\r\n", 18);
    node_settle(&node);
    expect_nothing(&peer, 4);
    /* A frame that is longer than a HELLO may be. */
    static const uint8_t long_hello[16] = {0xff, 0xff, 0, 0, FRAME_HELLO};
    peer = peer_dial(&node, 0);
    peer_send(&peer, long_hello, sizeof long_hello);
    node_settle(&node);
    expect_nothing(&peer, 5);
    /* Another version. */
    uint8_t other[sizeof hello + 8];
    hello = hello_any();
    hello_encode(&hello, (struct bytes){NULL, 0}, other);
    other[6] = 9;
    peer = peer_dial(&node, 0);
    peer_send(&peer, other, sizeof hello);
    node_settle(&node);
    expect_nothing(&peer, 6);
    node_close(&node);
}

static void who_is_too_slow_is_told_nothing(void **unused)
{
    (void)unused;
    open_node();
    struct peer peer = peer_dial(&node, 0);
    node_settle(&node);
    node.shards[0]->greeting.first->deadline_ns = 0;
    node_settle(&node);
    for (int i = 0; i < 4; i++) node_turn(&node);
    expect_nothing(&peer, 1);
    node_close(&node);
}

static void who_waits_when_the_node_stops_is_told_nothing(void **unused)
{
    (void)unused;
    open_node();
    struct peer waiting = peer_dial(&node, 0);
    struct frame_hello hello = hello_any();
    hello.shard = 0;
    struct peer known = dial_with(hello, token.data, token.bytes);
    assert_int_equal(peer_next(&known)->type, FRAME_WELCOME);
    callers_end_reading(node.shards[0]);
    for (int i = 0; i < 4; i++) node_turn(&node);
    peer_expect_silence(&waiting);
    assert_false(peer_is_up(&waiting));
    assert_int_equal(peer_next(&known)->type, FRAME_REFUSE);
    peer_free(&waiting);
    peer_free(&known);
    node_close(&node);
}

static void mistakes_are_explained_behind_it(void **unused)
{
    (void)unused;
    open_node();
    struct frame_hello hello = hello_any();
    hello.shard = 99;
    struct peer peer = dial_with(hello, token.data, token.bytes);
    peer_expect_refuse(&peer, ERROR_INVALID, 99, 1, "no such shard");
    peer_free(&peer);
    node_close(&node);
}

/* In pieces, it is gathered and compared as one. */
static void it_may_come_in_pieces(void **unused)
{
    (void)unused;
    open_node();
    struct frame_hello hello = hello_any();
    uint8_t frame[sizeof hello + SECRET_BYTES_MAX + 8];
    size_t size = hello_encode(&hello, (struct bytes){token.data, token.bytes}, frame);
    struct peer peer = peer_dial(&node, 0);
    for (size_t i = 0; i < size; i++) {
        peer_expect_silence(&peer);
        peer_send(&peer, frame + i, 1);
        node_settle(&node);
    }
    assert_int_equal(peer_next(&peer)->type, FRAME_WELCOME);
    peer_free(&peer);
    node_close(&node);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_right_one_is_welcomed),
        cmocka_unit_test(others_are_told_nothing),
        cmocka_unit_test(mistakes_are_not_explained_before_it),
        cmocka_unit_test(who_is_too_slow_is_told_nothing),
        cmocka_unit_test(who_waits_when_the_node_stops_is_told_nothing),
        cmocka_unit_test(mistakes_are_explained_behind_it),
        cmocka_unit_test(it_may_come_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
