/*
 * Callers that take their time: each has a deadline for its HELLO, and for taking its refusal. And
 * those that take the time of others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ring/slot.h"
#include "tests/support/node.h"

#define PEERS_COUNT 5

static struct node node;
static struct peer peers[PEERS_COUNT];

static void open_node(void)
{
    struct shard_options options = node_options(1);
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    for (int i = 0; i < PEERS_COUNT; i++) peers[i] = peer_dial(&node, 0);
    node_settle(&node);
}

static void close_node(void)
{
    for (int i = 0; i < PEERS_COUNT; i++) peer_free(&peers[i]);
    node_close(&node);
}

/* The time of the first one in the queue is over, and what follows from it is done. */
static void expire(const struct caller_queue *queue)
{
    queue->first->deadline_ns = 0;
    for (int i = 0; i < 4; i++) node_turn(&node);
}

static void say_hello(struct peer *peer)
{
    struct stream stream = {0};
    stream_hello(&stream, hello_any());
    peer_send_stream(peer, &stream);
}

static void who_does_not_greet_in_time_is_refused(void **state)
{
    (void)state;
    open_node();
    struct shard *shard = node.shards[0];
    /* The first, one between and the last leave the queue. */
    say_hello(&peers[0]);
    peer_hang_up(&peers[2]);
    say_hello(&peers[4]);
    node_settle(&node);
    expire(&shard->greeting);
    peer_expect_refuse(&peers[1], ERROR_TIMEOUT, 0, shard->options->greeting_ns_max / 1000000,
                       "no HELLO");
    assert_true(peer_is_up(&peers[3]));
    expire(&shard->greeting);
    assert_false(peer_is_up(&peers[3]));
    assert_null(shard->greeting.first);
    assert_null(shard->greeting.last);
    assert_true(peer_is_up(&peers[0]));
    assert_true(peer_is_up(&peers[4]));
    assert_int_equal(shard->counters.connections, 2);
    close_node();
}

static void who_does_not_take_a_refusal_is_closed(void **state)
{
    (void)state;
    open_node();
    struct shard *shard = node.shards[0];
    for (int i = 0; i < PEERS_COUNT; i++) {
        fake_io_hold_sends(node.ios[0], peers[i].conn, true);
        peer_send(&peers[i], "no hello at all!", 16);
    }
    node_settle(&node);
    assert_null(shard->greeting.first);
    assert_int_equal(shard->counters.refused, PEERS_COUNT);
    peer_hang_up(&peers[1]);
    node_settle(&node);
    assert_int_equal(shard->counters.connections, PEERS_COUNT - 1);
    expire(&shard->closing);
    assert_int_equal(shard->counters.connections, PEERS_COUNT - 2);
    while (shard->closing.first != NULL) expire(&shard->closing);
    assert_null(shard->closing.last);
    assert_int_equal(shard->counters.connections, 0);
    close_node();
}

static struct ask ask_info(uint32_t seq)
{
    return (struct ask){.type = FRAME_INFO, .want = WANT_REPLY, .slot = FRAME_SLOT_ANY, .seq = seq};
}

static void a_caller_has_one_info_a_turn(void **state)
{
    (void)state;
    enum { COUNT = 20 };
    open_node();
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    struct stream stream = {0};
    struct ask ask = ask_get(COUNT + 1, "k");
    for (uint32_t seq = 1; seq <= COUNT; seq++) {
        struct ask info = ask_info(seq);
        stream_ask(&stream, &info);
    }
    stream_ask(&stream, &ask);
    peer_send_stream(&peer, &stream);
    uint32_t seq = 1;
    for (int turn = 0; turn < 4 * COUNT && seq <= COUNT; turn++) {
        node_turn(&node);
        const struct frame_prefix *prefix = peer_next_answer(&peer);
        if (prefix == NULL) continue;
        struct frame_reply reply;
        memcpy(&reply, prefix, sizeof reply);
        assert_int_equal(reply.seq, seq++);
        assert_int_equal(reply.flags, VALUE_JSON);
        assert_null(peer_next_answer(&peer));
    }
    node_settle(&node);
    peer_expect_failure(&peer, COUNT + 1, ERROR_NOT_FOUND, "no such");
    peer_free(&peer);
    close_node();
}

/* A second has gone by, and every caller is looked at. */
static void trim(void)
{
    node.shards[0]->trim_ns = 0;
    node_turn(&node);
}

static void an_idle_caller_keeps_no_large_buffers(void **state)
{
    (void)state;
    enum { LARGE_BYTES = 200000 };
    static char value[LARGE_BYTES + 1];
    struct shard_options options = node_options(1);
    options.value_bytes_max = LARGE_BYTES;
    options.frame_bytes_max = LARGE_BYTES + 1000;
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    memset(value, 'x', LARGE_BYTES);
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    const struct link *link = &node.shards[0]->callers[0].link;
    fake_io_segment(node.ios[0], 60000);
    peer_ask(&peer, ask_update(1, "k", value));
    peer_ask(&peer, ask_get(2, "k"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_expect_string(&peer, 2, value);
    trim();
    assert_true(link->partial.capacity >= LARGE_BYTES);
    assert_true(link->out[0].capacity + link->out[1].capacity >= LARGE_BYTES);
    trim();
    assert_int_equal(link->partial.capacity, 0);
    assert_true(link->out[0].capacity + link->out[1].capacity < LARGE_BYTES / 2);
    /* It works as before, and is left alone while it does or has half a frame. */
    for (uint32_t seq = 3; seq < 6; seq++) {
        peer_ask(&peer, ask_get(seq, "k"));
        node_settle(&node);
        peer_expect_string(&peer, seq, value);
        size_t before = link->out[0].capacity + link->out[1].capacity;
        trim();
        assert_int_equal(link->out[0].capacity + link->out[1].capacity, before);
    }
    struct stream stream = {0};
    struct ask ask = ask_update(6, "k", value);
    stream_ask(&stream, &ask);
    peer_send(&peer, stream.data, LARGE_BYTES / 2);
    node_settle(&node);
    for (int i = 0; i < 3; i++) trim();
    peer_send(&peer, stream.data + LARGE_BYTES / 2, stream.bytes - LARGE_BYTES / 2);
    stream_free(&stream);
    node_settle(&node);
    peer_expect_offset(&peer, 6, 2);
    peer_free(&peer);
    node_close(&node);
}

static void an_info_has_no_key_and_no_slot(void **state)
{
    (void)state;
    struct shard_options options = node_options(2);
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    for (uint32_t seq = 1; seq <= 4; seq++) {
        struct ask ask = ask_info(seq);
        ask.slot = seq % 2 == 1 ? SLOTS_COUNT : UINT16_MAX - 1;
        if (seq > 2) ask.key = bytes_of("k");
        peer_ask(&peer, ask);
        node_settle(&node);
        if (seq <= 2)
            peer_expect(&peer, seq, OUTCOME_OK, ERROR_NONE);
        else
            peer_expect_failure(&peer, seq, ERROR_INVALID, "1 bytes of key");
    }
    peer_free(&peer);
    node_close(&node);
}

static void info_quotes_the_names_of_caches(void **state)
{
    (void)state;
    open_node();
    node_add_cache(&node, "a\"b\\c", NULL, 0, NULL);
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    peer_ask(&peer, ask_info(1));
    node_settle(&node);
    peer_expect(&peer, 1, OUTCOME_OK, ERROR_NONE);
    struct bytes text = peer_tail(&peer, sizeof(struct frame_reply));
    const char wanted[] = "\"caches\":[\"demo\",\"a\\\"b\\\\c\"]";
    assert_non_null(memmem(text.data, text.size, wanted, strlen(wanted)));
    peer_free(&peer);
    close_node();
}

/* ------------------------------------------------------------------- what all links hold together */

#define LINKS_BYTES_MAX (300 * KIB)
#define LARGE_BYTES 20000

static void open_tight(void)
{
    static char large[LARGE_BYTES + 1];
    struct shard_options options = node_options(1);
    options.links_bytes_max = LINKS_BYTES_MAX;
    options.outbox_bytes_max = 200 * KIB;
    options.frame_bytes_max = 1 * MIB;
    options.value_bytes_max = 1000 * KIB;
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    for (int i = 0; i < 3; i++) peers[i] = peer_greeted(&node, 0, 0, 1);
    memset(large, 'L', LARGE_BYTES);
    peer_ask(&peers[0], ask_update(1, "large", large));
    node_settle(&node);
    peer_expect_offset(&peers[0], 1, 1);
}

static void close_tight(void)
{
    for (int i = 0; i < 3; i++) peer_hang_up(&peers[i]);
    node_settle(&node);
    assert_int_equal(node.shards[0]->links.bytes, 0);
    for (int i = 0; i < 3; i++) peer_free(&peers[i]);
    node_close(&node);
}

/* Asks for the large value `count` times, and takes none. */
static void ask_and_not_read(struct peer *peer, unsigned count)
{
    struct stream stream = {0};
    for (uint32_t i = 0; i < count; i++) {
        struct ask ask = ask_get(10 + i, "large");
        stream_ask(&stream, &ask);
    }
    fake_io_hold_sends(node.ios[0], peer->conn, true);
    peer_send_stream(peer, &stream);
}

static void expect_served(struct peer *peer)
{
    peer_ask(peer, ask_update(2, "k", "v"));
    node_settle(&node);
    assert_int_equal(peer_expect(peer, 2, OUTCOME_OK, ERROR_NONE).code, 0);
}

static void where_links_hold_much_each_may_have_less(void **state)
{
    (void)state;
    open_tight();
    const struct shard *shard = node.shards[0];
    ask_and_not_read(&peers[0], 50);
    node_turn(&node);
    assert_in_range(shard->links.bytes, LINKS_BYTES_MAX / 2, LINKS_BYTES_MAX);
    ask_and_not_read(&peers[1], 50);
    for (int i = 0; i < 5; i++) node_turn(&node);
    assert_true(shard->links.bytes <= LINKS_BYTES_MAX);
    assert_true(peer_is_up(&peers[0]) && peer_is_up(&peers[1]));
    expect_served(&peers[2]);
    /* Who reads at last finds everything. */
    for (int i = 0; i < 2; i++) fake_io_hold_sends(node.ios[0], peers[i].conn, false);
    node_settle(&node);
    for (int i = 0; i < 2; i++)
        for (uint32_t seq = 10; seq < 60; seq++)
            assert_int_equal(peer_expect(&peers[i], seq, OUTCOME_OK, ERROR_NONE).code, 0);
    assert_int_equal(shard->counters.evicted, 0);
    close_tight();
}

static void who_holds_most_and_does_not_read_is_closed(void **state)
{
    (void)state;
    open_tight();
    const struct shard *shard = node.shards[0];
    ask_and_not_read(&peers[0], 50);
    ask_and_not_read(&peers[1], 5);
    node_settle(&node);
    assert_false(peer_is_up(&peers[0]));
    assert_true(peer_is_up(&peers[1]));
    assert_int_equal(shard->counters.evicted, 1);
    assert_true(shard->links.bytes <= LINKS_BYTES_MAX);
    expect_served(&peers[2]);
    close_tight();
}

static void as_many_are_closed_in_a_turn_as_must_be(void **state)
{
    (void)state;
    open_tight();
    const struct shard *shard = node.shards[0];
    for (unsigned i = 0; i < 3; i++) ask_and_not_read(&peers[i], 40 + 5 * i);
    node_turn(&node);
    assert_true(shard->links.bytes <= LINKS_BYTES_MAX);
    assert_int_equal(shard->counters.evicted, 2);
    node_settle(&node);
    unsigned up_count = 0;
    for (int i = 0; i < 3; i++) {
        if (!peer_is_up(&peers[i])) continue;
        up_count++;
        fake_io_hold_sends(node.ios[0], peers[i].conn, false);
    }
    assert_int_equal(up_count, 1);
    node_settle(&node);
    close_tight();
}

static void what_the_io_holds_is_counted_with_links(void **state)
{
    (void)state;
    open_tight();
    const struct shard *shard = node.shards[0];
    shard->io->counters.held_bytes = 12345;
    node_turn(&node);
    assert_int_equal(shard->counters.links_bytes, shard->links.bytes + 12345);
    shard->io->counters.held_bytes = 0;
    close_tight();
}

static void half_received_frames_count_too(void **state)
{
    (void)state;
    open_tight();
    struct stream stream = {0};
    char *value = calloc(1, 900 * KIB);
    assert_non_null(value);
    memset(value, 'v', 900 * KIB - 1);
    struct ask ask = ask_update(2, "k", value);
    stream_ask(&stream, &ask);
    peer_send(&peers[0], stream.data, 200 * KIB);
    peer_send(&peers[1], stream.data, 100 * KIB);
    node_settle(&node);
    peer_expect_refuse(&peers[0], ERROR_NO_MEMORY, 256 * KIB, LINKS_BYTES_MAX, "links.bytes");
    assert_true(peer_is_up(&peers[1]));
    expect_served(&peers[2]);
    stream_free(&stream);
    free(value);
    close_tight();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_does_not_greet_in_time_is_refused),
        cmocka_unit_test(who_does_not_take_a_refusal_is_closed),
        cmocka_unit_test(a_caller_has_one_info_a_turn),
        cmocka_unit_test(an_idle_caller_keeps_no_large_buffers),
        cmocka_unit_test(where_links_hold_much_each_may_have_less),
        cmocka_unit_test(who_holds_most_and_does_not_read_is_closed),
        cmocka_unit_test(half_received_frames_count_too),
        cmocka_unit_test(as_many_are_closed_in_a_turn_as_must_be),
        cmocka_unit_test(what_the_io_holds_is_counted_with_links),
        cmocka_unit_test(an_info_has_no_key_and_no_slot),
        cmocka_unit_test(info_quotes_the_names_of_caches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
