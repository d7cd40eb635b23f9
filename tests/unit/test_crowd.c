/*
 * Many strangers at once: how many connections a node has, how many of them without a HELLO, of one
 * address and in all, and frames that do not go on.
 */
#include "shard/crowd.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "tests/support/node.h"

#define PEERS_MAX 200

static struct node node;
static struct peer peers[PEERS_MAX];
static unsigned peers_count;
static bool told[PEERS_MAX]; /* has read its refusal */

static void open_node(const struct shard_options *options)
{
    node_open(&node, options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    peers_count = 0;
    memset(told, 0, sizeof told);
}

static int close_node(void **unused)
{
    (void)unused;
    while (peers_count > 0) peer_free(&peers[--peers_count]);
    node_close(&node);
    return 0;
}

static struct address address_from(const char *host)
{
    struct address address;
    assert_int_equal(address_parse(&address, host, 40000), 0);
    return address;
}

/* Somebody connects from there and says nothing. */
static struct peer *come_from(const char *host)
{
    struct address address = address_from(host);
    struct peer *peer = &peers[peers_count++];
    assert_true(peers_count < PEERS_MAX);
    *peer = (struct peer){.node = &node};
    peer->conn = fake_io_dial(node.ios[0], &address);
    node_turn_one(&node, 0);
    return peer;
}

/* As if all that have not greeted had waited for that long already. */
static void let_wait(uint64_t ns)
{
    struct caller *caller = node.shards[0]->greeting.first;
    for (; caller != NULL; caller = caller->next) caller->deadline_ns -= ns;
}

static unsigned up_count(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < peers_count; i++) count += peer_is_up(&peers[i]);
    return count;
}

/* Whoever was dropped since the last call reads why; returns the number of the last one. */
static unsigned read_refusals(uint64_t limit)
{
    unsigned last = PEERS_MAX;
    node_settle(&node);
    for (unsigned i = 0; i < peers_count; i++) {
        if (told[i] || peer_is_up(&peers[i])) continue;
        peer_expect_refuse(&peers[i], ERROR_BUSY, limit + 1, limit, "without HELLO");
        told[i] = true;
        last = i;
    }
    return last;
}

/* -------------------------------------------------------------------------------- half-open */

static void above_the_limit_one_goes_for_each_that_comes(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.half_open_max = 10;
    open_node(&options);
    for (unsigned i = 0; i < 10; i++) come_from("127.0.0.1");
    let_wait(NS_PER_S);
    assert_int_equal(up_count(), 10);
    for (unsigned i = 0; i < 8; i++) {
        come_from("127.0.0.1");
        assert_true(read_refusals(10) < 10);
    }
    assert_int_equal(up_count(), 10);
    assert_int_equal(node.shards[0]->crowd.count, 10);
    assert_int_equal(node.shards[0]->counters.dropped, 8);
    /* The newest are never drawn, so whoever greets at once gets through. */
    for (unsigned i = 10; i < peers_count; i++) assert_true(peer_is_up(&peers[i]));
    peers[peers_count++] = peer_greeted(&node, 0, 0, 1);
    assert_true(peer_is_up(&peers[peers_count - 1]));
}

static void a_burst_of_clients_is_no_flood(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.half_open_max = 2;
    open_node(&options);
    for (unsigned i = 0; i < 40; i++) come_from("127.0.0.1");
    assert_int_equal(up_count(), 40);
    for (unsigned i = 0; i < 40; i++) {
        struct stream stream = {0};
        stream_hello(&stream, hello_any());
        peer_send_stream(&peers[i], &stream);
    }
    node_settle(&node);
    assert_int_equal(up_count(), 40);
    assert_int_equal(node.shards[0]->crowd.count, 0);
    assert_int_equal(node.shards[0]->counters.dropped, 0);
}

static void one_address_does_not_crowd_out_another(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.half_open_source_max = 4;
    open_node(&options);
    struct peer *other = come_from("192.0.2.7");
    struct peer *v6 = come_from("2001:db8:0:1::1");
    for (unsigned i = 0; i < 4; i++) come_from("192.0.2.1");
    for (unsigned i = 0; i < 4; i++) come_from("127.0.0.1"); /* no source unless it is asked for */
    for (unsigned i = 0; i < 4; i++) come_from("::1");
    for (unsigned i = 0; i < 3; i++) come_from("127.0.0.2");
    let_wait(NS_PER_S);
    for (unsigned i = 0; i < 9; i++) {
        come_from(i % 3 == 0 ? "127.0.0.1" : "192.0.2.1");
        (void)read_refusals(4);
    }
    assert_int_equal(node.shards[0]->counters.dropped, 4); /* the later ones are spared */
    assert_true(peer_is_up(other));
    assert_true(peer_is_up(v6));
    for (unsigned i = 0; i < peers_count; i++) assert_int_equal(told[i], i >= 2 && i < 6);
    /* An IPv6 network is one source. */
    for (unsigned i = 2; i < 5; i++) {
        char host[40];
        snprintf(host, sizeof host, "2001:db8:0:1::%x", i);
        come_from(host);
    }
    let_wait(NS_PER_S);
    uint64_t dropped = node.shards[0]->counters.dropped;
    come_from("2001:db8:0:2::1");
    assert_int_equal(node.shards[0]->counters.dropped, dropped);
    come_from("2001:db8:0:1:ffff::1");
    assert_int_equal(node.shards[0]->counters.dropped, dropped + 1);
}

static void a_limit_that_is_given_holds_for_loopback(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.half_open_source_max = 4;
    options.half_open_spares_loopback = false;
    open_node(&options);
    for (unsigned i = 0; i < 4; i++) come_from("127.0.0.1");
    let_wait(NS_PER_S);
    come_from("127.0.0.1");
    assert_int_equal(node.shards[0]->counters.dropped, 1);
    assert_int_equal(
        node.shards[0]->crowd.counts[crowd_source(
            node.shards[0], &(struct address){.v4 = {.sin_family = AF_INET,
                                                     .sin_addr = {htonl(INADDR_LOOPBACK)}}})],
        4);
}

/* Who was told to go and does not is closed when others are told. */
static void those_who_were_told_to_go_are_few_too(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.half_open_max = 5;
    open_node(&options);
    for (unsigned i = 0; i < 40; i++) {
        struct peer *peer = come_from("127.0.0.1");
        fake_io_hold_sends(node.ios[0], peer->conn, true);
        let_wait(NS_PER_S / 8);
    }
    node_settle(&node);
    assert_int_equal(node.shards[0]->greeting.count, 5);
    assert_in_range(node.shards[0]->closing.count, 1, 5);
    assert_in_range(node.shards[0]->counters.connections, 6, 10);
}

static void counts_are_true_whoever_comes_and_goes(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.half_open_source_max = 3;
    options.half_open_max = 6;
    struct rng rng;
    rng_init(&rng, 3);
    open_node(&options);
    static const char *const hosts[] = {"192.0.2.1", "192.0.2.2", "127.0.0.1", "2001:db8::1"};
    for (unsigned i = 0; i < PEERS_MAX - 1; i++) {
        come_from(hosts[rng_below(&rng, 4)]);
        struct peer *one = &peers[rng_below(&rng, peers_count)];
        uint64_t what = rng_below(&rng, 4);
        struct stream stream = {0};
        stream_hello(&stream, hello_any());
        if (what == 0 && peer_is_up(one)) peer_hang_up(one);
        if (what == 1 && peer_is_up(one)) peer_send_stream(one, &stream);
        if (what == 2) let_wait(NS_PER_S / 4);
        stream_free(&stream);
        node_settle(&node);
        const struct shard *shard = node.shards[0];
        uint32_t sum = 0;
        for (unsigned j = 0; j < CROWD_SOURCES; j++) sum += shard->crowd.counts[j];
        assert_int_equal(shard->crowd.count, shard->greeting.count);
        assert_true(sum <= shard->crowd.count);
    }
}

/* ------------------------------------------------------------------------------ connections */

static void one_too_many_is_told_so(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.connections_max = 3;
    open_node(&options);
    for (unsigned i = 0; i < 3; i++) peers[peers_count++] = peer_greeted(&node, 0, 0, 1);
    struct peer *extra = come_from("127.0.0.1");
    node_settle(&node);
    peer_expect_refuse(extra, ERROR_BUSY, 4, 3, "connections.max");
    assert_int_equal(node.shards[0]->crowd.turned_away, 0);
    peer_hang_up(&peers[1]);
    node_settle(&node);
    peers[peers_count++] = peer_greeted(&node, 0, 0, 1);
    peer_ask(&peers[peers_count - 1], ask_get(1, "nobody"));
    node_settle(&node);
    peer_expect_failure(&peers[peers_count - 1], 1, ERROR_NOT_FOUND, "no such key");
}

/* Those who are told so and stay take nobody's place, and a crowd of them is closed unheard. */
static void those_who_are_too_many_take_no_place(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.connections_max = 3;
    open_node(&options);
    for (unsigned i = 0; i < 3; i++) peers[peers_count++] = peer_greeted(&node, 0, 0, 1);
    for (unsigned i = 0; i < CROWD_TURNED_AWAY_MAX + 9; i++) {
        struct peer *extra = come_from("127.0.0.1");
        fake_io_hold_sends(node.ios[0], extra->conn, true);
    }
    node_settle(&node);
    assert_int_equal(node.shards[0]->crowd.turned_away, CROWD_TURNED_AWAY_MAX);
    for (unsigned i = peers_count - 9; i < peers_count; i++) {
        assert_false(peer_is_up(&peers[i]));
        peer_expect_silence(&peers[i]);
    }
    peer_hang_up(&peers[0]);
    node_settle(&node);
    peers[peers_count++] = peer_greeted(&node, 0, 0, 1);
    assert_true(peer_is_up(&peers[peers_count - 1]));
}

static struct peer *come_for_any(void)
{
    struct peer *peer = come_from("127.0.0.1");
    struct stream stream = {0};
    stream_hello(&stream, hello_any());
    peer_send_stream(peer, &stream);
    return peer;
}

static void the_limit_is_the_nodes_wherever_they_are(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(3);
    options.connections_max = 9;
    open_node(&options);
    for (unsigned i = 0; i < 9; i++) come_for_any();
    /* Some are on their way to another shard, which has not taken them yet. */
    for (unsigned i = 0; i < 3; i++) node_turn_one(&node, 0);
    assert_int_equal(node.shards[0]->counters.connections, 3);
    assert_int_equal(crowd_connections(node.shards[0]), 9);
    struct peer *extra = come_for_any();
    node_settle(&node);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(node.shards[i]->counters.connections, 3);
        assert_int_equal(crowd_connections(node.shards[i]), 9);
    }
    peer_expect_refuse(extra, ERROR_BUSY, 10, 9, "connections.max");
}

/* ---------------------------------------------------------------------------------- progress */

static void open_hasty(void)
{
    struct shard_options options = node_options(1);
    options.progress_ns = 10 * NS_PER_S;
    options.progress_bytes = 1000;
    open_node(&options);
    peers[peers_count++] = peer_greeted(&node, 0, 0, 1);
}

/* Sends a part of an update of 10,000 bytes. */
static struct stream part_of_update(size_t bytes)
{
    static char value[10001];
    memset(value, 'v', sizeof value - 1);
    struct stream stream = {0};
    struct ask ask = ask_update(1, "k", value);
    stream_ask(&stream, &ask);
    peer_send(&peers[0], stream.data, bytes);
    node_settle(&node);
    return stream;
}

/* The time of the half-received frame is over. */
static void let_time_pass(void)
{
    struct caller *caller = node.shards[0]->halfway.first;
    if (caller != NULL) caller->deadline_ns = 0;
    for (int i = 0; i < 3; i++) node_turn(&node);
}

static void a_frame_that_does_not_go_on_ends_the_link(void **unused)
{
    (void)unused;
    open_hasty();
    struct stream stream = part_of_update(3000);
    assert_int_equal(node.shards[0]->halfway.count, 1);
    peer_send(&peers[0], stream.data + 3000, 999);
    node_settle(&node);
    let_time_pass();
    peer_expect_refuse(&peers[0], ERROR_TIMEOUT, 999, 1000, "too slowly");
    assert_int_equal(node.shards[0]->halfway.count, 0);
    stream_free(&stream);
}

static void a_frame_that_goes_on_has_its_time(void **unused)
{
    (void)unused;
    open_hasty();
    struct stream stream = part_of_update(10);
    for (size_t at = 10; at < 9010; at += 1000) {
        peer_send(&peers[0], stream.data + at, 1000);
        node_settle(&node);
        let_time_pass();
        assert_true(peer_is_up(&peers[0]));
    }
    peer_send(&peers[0], stream.data + 9010, stream.bytes - 9010);
    node_settle(&node);
    peer_expect_offset(&peers[0], 1, 1);
    let_time_pass();
    assert_int_equal(node.shards[0]->halfway.count, 0);
    assert_true(peer_is_up(&peers[0]));
    stream_free(&stream);
}

/* One byte each: small frames that each get done have as much time. */
static void each_frame_has_its_own_time(void **unused)
{
    (void)unused;
    open_hasty();
    struct stream stream = {0};
    for (uint32_t seq = 1; seq <= 4; seq++) {
        struct ask ask = ask_update(seq, "k", "v");
        stream_ask(&stream, &ask);
    }
    size_t frame = stream.bytes / 4;
    for (size_t at = 0; at < stream.bytes - 1; at++) {
        peer_send(&peers[0], stream.data + at, 1);
        node_settle(&node);
        if (at % frame == 3 && at > frame) let_time_pass();
        assert_true(peer_is_up(&peers[0]));
    }
    for (int i = 0; i < 2; i++) let_time_pass();
    assert_false(peer_is_up(&peers[0]));
    stream_free(&stream);
}

static void no_limit_is_no_limit(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    open_node(&options);
    peers[peers_count++] = peer_greeted(&node, 0, 0, 1);
    struct stream stream = part_of_update(100);
    assert_int_equal(node.shards[0]->halfway.count, 0);
    stream_free(&stream);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, close_node)
    const struct CMUnitTest tests[] = {
        TEST(above_the_limit_one_goes_for_each_that_comes),
        TEST(a_burst_of_clients_is_no_flood),
        TEST(one_address_does_not_crowd_out_another),
        TEST(a_limit_that_is_given_holds_for_loopback),
        TEST(those_who_were_told_to_go_are_few_too),
        TEST(counts_are_true_whoever_comes_and_goes),
        TEST(one_too_many_is_told_so),
        TEST(those_who_are_too_many_take_no_place),
        TEST(the_limit_is_the_nodes_wherever_they_are),
        TEST(a_frame_that_does_not_go_on_ends_the_link),
        TEST(a_frame_that_goes_on_has_its_time),
        TEST(each_frame_has_its_own_time),
        TEST(no_limit_is_no_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
