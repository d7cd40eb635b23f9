/*
 * The server's end of a link: how it begins, what it refuses, how it waits and how it ends.
 */
#include "shard/caller.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "cli/json.h"
#include "tests/support/node.h"

static struct node node;

static int setup(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    node_close(&node);
    return 0;
}

static void open_with(const struct shard_options *options)
{
    node_open(&node, options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
}

/* Others are served as before. */
static void expect_unharmed(void)
{
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    peer_ask(&peer, ask_get(1, "nobody"));
    node_settle(&node);
    peer_expect_failure(&peer, 1, ERROR_NOT_FOUND, "no such key");
    peer_free(&peer);
}

/* ------------------------------------------------------------------------------ greeting */

static void welcome_tells_all_that_a_client_needs(void **unused)
{
    (void)unused;
    struct peer peer = peer_dial(&node, 0);
    struct stream stream = {0};
    struct frame_hello hello = hello_any();
    hello.cluster = 0xc1;
    stream_hello(&stream, hello);
    peer_send_stream(&peer, &stream);
    node_settle(&node);
    const struct frame_prefix *prefix = peer_next(&peer);
    struct frame_welcome welcome;
    const uint8_t *shard_slots;
    struct refusal refusal;
    assert_non_null(prefix);
    assert_int_equal(welcome_decode(&welcome, &shard_slots, prefix, prefix->length, &refusal), 0);
    assert_int_equal(welcome.cluster, 0xc1);
    assert_int_equal(welcome.node, 0xd0e);
    assert_int_equal(welcome.view, 1);
    assert_int_equal(welcome.incarnation, 1);
    assert_int_equal(welcome.shard, 0);
    assert_int_equal(welcome.shards_count, 1);
    assert_int_equal(welcome.slots_count, SLOTS_COUNT);
    assert_int_equal(welcome.window_requests, SESSION_WINDOW);
    assert_int_equal(welcome.window_bytes, 4 * MIB);
    assert_int_equal(welcome.frame_bytes_max, 24000);
    assert_int_equal(welcome.key_bytes_max, 100);
    assert_int_equal(welcome.value_bytes_max, 20000);
    peer_expect_silence(&peer);
    peer_free(&peer);
}

/* A HELLO with one thing wrong: at `offset`, `bytes` of `value`. */
static void a_wrong_hello_is_refused_with_both_values(void **unused)
{
    (void)unused;
    static const struct {
        size_t offset;
        size_t bytes;
        uint64_t value;
        enum reply_error error;
        uint64_t got;
        uint64_t limit;
        const char *text;
    } cases[] = {
        {6, 2, 2, ERROR_PROTOCOL, 2, 1, "version"},
        {6, 2, 0, ERROR_PROTOCOL, 0, 1, "version"},
        {8, 4, 0x4f524547, ERROR_PROTOCOL, 0x4f524547, HELLO_MAGIC, "magic"},
        {12, 2, 1, ERROR_INVALID, 1, 0, "no such shard"},
        {12, 2, 65534, ERROR_INVALID, 65534, 0, "no such shard"},
        {14, 1, 2, ERROR_UNSUPPORTED, 2, 1, "between nodes"},
        {14, 1, 0, ERROR_PROTOCOL, 0, 1, "role"},
        {15, 1, 1, ERROR_PROTOCOL, 1, 0, "reserved"},
        {5, 1, 1, ERROR_PROTOCOL, 1, 0, "flags"},
        {64, 4, 4095, ERROR_PROTOCOL, 4095, 4096, "frame_bytes_max"},
        {48, 8, 7, ERROR_DENIED, 7, 0xc1, "cluster"},
        {0, 4, 5000, ERROR_PROTOCOL, 5000, 4096, "over the limit"},
        {0, 4, 7, ERROR_PROTOCOL, 7, 8, "shorter"},
        {0, 4, 64, ERROR_PROTOCOL, 64, 72, "shorter"},
        {4, 1, FRAME_OPEN, ERROR_PROTOCOL, FRAME_OPEN, FRAME_HELLO, "first frame"},
        {4, 1, FRAME_UPDATE, ERROR_PROTOCOL, FRAME_UPDATE, FRAME_HELLO, "first frame"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct peer peer = peer_dial(&node, 0);
        struct stream stream = {0};
        stream_hello(&stream, hello_any());
        memcpy(stream.data + cases[i].offset, &cases[i].value, cases[i].bytes);
        peer_send_stream(&peer, &stream);
        node_settle(&node);
        peer_expect_refuse(&peer, cases[i].error, cases[i].got, cases[i].limit, cases[i].text);
        peer_free(&peer);
    }
    assert_int_equal(node.shards[0]->counters.refused, ARRAY_COUNT(cases));
    assert_int_equal(node.shards[0]->counters.connections, 0);
    expect_unharmed();
}

static void another_protocol_is_refused_by_its_first_bytes(void **unused)
{
    (void)unused;
    static const char *const texts[] = {"GET / HTTP/1.1\r\n\r\n", "*1\r\n$4\r\nPING\r\n",
                                        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                                        "SSH-2.0-OpenSSH_9.2\r\n"};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct peer peer = peer_dial(&node, 0);
        size_t bytes = i == 2 ? 11 : strlen(texts[i]);
        peer_send(&peer, texts[i], bytes);
        node_settle(&node);
        peer_expect_refuse(&peer, ERROR_PROTOCOL, (uint8_t)texts[i][4], FRAME_HELLO, "HELLO");
        peer_free(&peer);
    }
    expect_unharmed();
}

static void a_second_hello_is_refused(void **unused)
{
    (void)unused;
    struct peer peer = peer_greeted(&node, 0, 5, 1);
    struct stream stream = {0};
    stream_hello(&stream, hello_any());
    peer_send_stream(&peer, &stream);
    node_settle(&node);
    peer_expect_refuse(&peer, ERROR_PROTOCOL, FRAME_HELLO, FRAME_UPDATE, "not a client's");
    peer_free(&peer);
}

static void a_wrong_open_is_refused(void **unused)
{
    (void)unused;
    static const struct {
        size_t offset;
        size_t bytes;
        uint64_t value;
        uint64_t got;
        uint64_t limit;
        const char *text;
    } cases[] = {
        {0, 4, 7, 7, 8, "shorter"},    {0, 4, 24001, 24001, 24000, "over the limit"},
        {0, 4, 12, 12, 16, "shorter"}, {0, 4, 24, 24, 20, "length"},
        {5, 1, 1, 1, 0, "flags"},      {6, 2, 5, 20, 21, "length"},
        {12, 4, 1, 1, 0, "reserved"},  {16, 1, 0x1f, 0, 4, "name"},
        {16, 2, 0x80c2, 0, 4, "name"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct peer peer = peer_greeted(&node, 0, 0, 1);
        struct stream stream = {0};
        stream_open(&stream, 1, "demo");
        memcpy(stream.data + cases[i].offset, &cases[i].value, cases[i].bytes);
        peer_send_stream(&peer, &stream);
        node_settle(&node);
        peer_expect_refuse(&peer, ERROR_PROTOCOL, cases[i].got, cases[i].limit, cases[i].text);
        peer_free(&peer);
    }
    expect_unharmed();
}

static void who_says_nothing_is_refused_in_time(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.greeting_ns_max = 1;
    open_with(&options);
    struct peer silent = peer_dial(&node, 0);
    struct peer half = peer_dial(&node, 0);
    peer_send(&half, "\x48\0\0\0\x01\0\x01\0FERO", 12);
    node_settle(&node);
    peer_expect_refuse(&silent, ERROR_TIMEOUT, 0, 0, "no HELLO");
    peer_expect_refuse(&half, ERROR_TIMEOUT, 0, 0, "no HELLO");
    assert_int_equal(node.shards[0]->counters.connections, 0);
    peer_free(&silent);
    peer_free(&half);
}

/* Every session with a link is kept, so one more finds no room. */
static void a_session_without_room_is_refused(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.sessions_bytes_max = 1500; /* two of them */
    open_with(&options);
    struct peer first = peer_greeted(&node, 0, 1, 1);
    struct peer second = peer_greeted(&node, 0, 2, 1);
    struct peer third = peer_dial(&node, 0);
    struct stream stream = {0};
    struct frame_hello hello = hello_any();
    hello.session = 3;
    stream_hello(&stream, hello);
    peer_send_stream(&third, &stream);
    node_settle(&node);
    peer_expect_refuse(&third, ERROR_NO_MEMORY, 0, 0, "session");
    expect_unharmed(); /* without a session */
    peer_hang_up(&first);
    node_settle(&node);
    struct peer fourth = peer_greeted(&node, 0, 4, 1);
    peer_free(&first);
    peer_free(&second);
    peer_free(&third);
    peer_free(&fourth);
}

/* It sends no more, but may still hear that it left something unsaid, behind its answers. */
static void who_ends_within_a_frame_is_told(void **unused)
{
    (void)unused;
    struct peer whole = peer_greeted(&node, 0, 0, 1);
    struct peer half = peer_greeted(&node, 0, 0, 1);
    struct peer greeting = peer_dial(&node, 0);
    struct peer silent = peer_dial(&node, 0);
    struct stream stream = {0};
    for (uint32_t seq = 1; seq <= 2; seq++) {
        struct ask ask = ask_update(seq, "k", "v");
        stream_ask(&stream, &ask);
    }
    peer_send(&whole, stream.data, stream.bytes);
    peer_send(&half, stream.data, stream.bytes - 1);
    peer_send(&greeting, "\x48\0\0\0\x01\0\x01\0FERO", 12);
    stream_free(&stream);
    peer_end(&whole);
    peer_end(&half);
    peer_end(&greeting);
    peer_end(&silent);
    node_settle(&node);
    peer_expect_offset(&whole, 1, 1);
    peer_expect_offset(&whole, 2, 2);
    assert_null(peer_next_answer(&whole));
    peer_expect_offset(&half, 1, 3);
    peer_expect_refuse(&half, ERROR_PROTOCOL, 31, 0, "within a frame");
    peer_expect_refuse(&greeting, ERROR_PROTOCOL, 12, 0, "within a frame");
    peer_expect_silence(&silent);
    assert_int_equal(node.shards[0]->counters.connections, 0);
    peer_free(&whole);
    peer_free(&half);
    peer_free(&greeting);
    peer_free(&silent);
}

static void a_node_that_stops_refuses_new_links(void **unused)
{
    (void)unused;
    struct peer peer = peer_dial(&node, 0);
    struct peer old = peer_greeted(&node, 0, 0, 1);
    struct stream stream = {0};
    stream_hello(&stream, hello_any());
    peer_send_stream(&peer, &stream);
    peer_ask(&old, ask_update(1, "k", "v"));
    node_stop(&node, 0);
    while (node_turn_one(&node, 0)) {
    }
    peer_expect_refuse(&peer, ERROR_CLOSED, 0, 0, "stopping");
    peer_expect_offset(&old, 1, 1);
    peer_free(&peer);
    peer_free(&old);
}

/* ------------------------------------------------------------------------ back-pressure */

/* Holds what is sent, sends `stream` again and again, and expects a bounded outbox. */
static void expect_bounded(struct peer *peer, const struct stream *stream)
{
    const struct link *link = &node.shards[0]->callers[0].link;
    fake_io_hold_sends(node.ios[0], peer->conn, true);
    for (unsigned i = 0; i < 100 && !fake_io_is_paused(node.ios[0], peer->conn); i++) {
        peer_send(peer, stream->data, stream->bytes);
        node_settle(&node);
    }
    assert_true(fake_io_is_paused(node.ios[0], peer->conn));
    assert_true(link_out_bytes(link) <= 8 * KIB + 24 * KIB);
    fake_io_hold_sends(node.ios[0], peer->conn, false);
    node_settle(&node);
    assert_false(fake_io_is_paused(node.ios[0], peer->conn));
}

static void a_peer_that_never_reads_stops_its_own_link(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.outbox_bytes_max = 8 * KIB;
    open_with(&options);
    static char value[2001];
    memset(value, 'v', 2000);
    for (unsigned kind = 0; kind < 4; kind++) {
        struct peer peer = peer_greeted(&node, 0, kind, 1);
        struct stream stream = {0};
        for (uint32_t i = 1; i <= 64; i++) {
            struct ask ask = kind == 0   ? ask_update(i, "k", value)
                             : kind == 1 ? ask_get(i, "k")
                                         : ask_get(i, "");
            if (kind == 3)
                stream_open(&stream, i, "demo");
            else
                stream_ask(&stream, &ask);
        }
        expect_bounded(&peer, &stream);
        /* Whoever reads meanwhile is served. */
        expect_unharmed();
        stream_free(&stream);
        peer_hang_up(&peer);
        node_settle(&node);
        peer_free(&peer);
    }
}

static void a_source_that_stopped_loses_nothing(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.outbox_bytes_max = 4 * KIB;
    open_with(&options);
    struct peer peer = peer_greeted(&node, 0, 9, 1);
    const uint32_t count = 20000;
    struct stream stream = {0};
    for (uint32_t seq = 1; seq <= count; seq++) {
        struct ask ask = seq % 100 == 0 ? ask_get(seq, "none") : ask_update(seq, "k", "v");
        stream_ask(&stream, &ask);
    }
    fake_io_segment(node.ios[0], 30001); /* frames are cut as well */
    peer_send_stream(&peer, &stream);
    uint64_t offset = 0;
    unsigned pauses = 0;
    for (uint32_t seq = 1; seq <= count;) {
        node_turn(&node);
        pauses += fake_io_is_paused(node.ios[0], peer.conn);
        const struct frame_prefix *prefix;
        while ((prefix = peer_next_answer(&peer)) != NULL) {
            struct frame_reply reply;
            memcpy(&reply, prefix, sizeof reply);
            assert_int_equal(reply.seq, seq);
            if (seq % 100 != 0) assert_int_equal(reply.offset, ++offset);
            seq++;
        }
    }
    assert_true(pauses > 10);
    peer_free(&peer);
}

static void without_batching_each_frame_is_sent_by_itself(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    options.unbatched = true;
    open_with(&options);
    struct peer peer = peer_greeted(&node, 0, 9, 1);
    uint64_t sends = fake_io_base(node.ios[0])->counters.sends;
    assert_int_equal(sends, 2); /* WELCOME, OPENED */
    struct stream stream = {0};
    for (uint32_t seq = 1; seq <= 50; seq++) {
        struct ask ask = seq % 10 == 0 ? ask_get(seq, "k") : ask_update(seq, "k", "v");
        stream_ask(&stream, &ask);
    }
    peer_send_stream(&peer, &stream);
    node_settle(&node);
    /* And one ACK. */
    assert_int_equal(fake_io_base(node.ios[0])->counters.sends, sends + 51);
    for (uint32_t seq = 1; seq <= 50; seq++) peer_expect(&peer, seq, OUTCOME_OK, ERROR_NONE);
    peer_free(&peer);
}

static void with_batching_a_turn_is_one_send(void **unused)
{
    (void)unused;
    struct peer peer = peer_greeted(&node, 0, 9, 1);
    uint64_t sends = fake_io_base(node.ios[0])->counters.sends;
    struct stream stream = {0};
    for (uint32_t seq = 1; seq <= 1000; seq++) {
        struct ask ask = ask_update(seq, "k", "v");
        stream_ask(&stream, &ask);
    }
    peer_send_stream(&peer, &stream);
    node_settle(&node);
    assert_int_equal(fake_io_base(node.ios[0])->counters.sends, sends + 1);
    peer_free(&peer);
}

/* -------------------------------------------------------------------------------- ending */

static void a_link_may_end_at_any_byte(void **unused)
{
    (void)unused;
    struct stream stream = {0};
    struct frame_hello hello = hello_any();
    static char value[4501];
    memset(value, 'v', 4500);
    hello.session = 77;
    stream_hello(&stream, hello);
    stream_open(&stream, 1, "demo");
    struct ask ask = ask_update(1, "k", "v");
    stream_ask(&stream, &ask);
    ask = ask_update(2, "large", value);
    stream_ask(&stream, &ask);
    for (size_t end = 0; end <= stream.bytes; end += end < 200 ? 1 : 37) {
        struct peer peer = peer_dial(&node, 0);
        peer_send(&peer, stream.data, end);
        node_turn(&node);
        peer_hang_up(&peer);
        node_settle(&node);
        assert_int_equal(node.shards[0]->counters.connections, 0);
        peer_free(&peer);
    }
    stream_free(&stream);
    assert_int_equal(node.shards[0]->counters.sessions, 1);
    expect_unharmed();
}

static void what_came_before_the_end_is_done(void **unused)
{
    (void)unused;
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    for (uint32_t seq = 1; seq <= 100; seq++) peer_ask(&peer, ask_update(seq, "k", "v"));
    peer_hang_up(&peer);
    node_settle(&node);
    assert_int_equal(node.shards[0]->counters.updates, 100);
    peer_free(&peer);
}

static void a_refused_link_that_does_not_read_is_closed(void **unused)
{
    (void)unused;
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    fake_io_hold_sends(node.ios[0], peer.conn, true);
    peer_send(&peer, "\x08\0\0\0\x01\0\0\0", 8);
    node_turn(&node);
    node_turn(&node);
    assert_true(peer_is_up(&peer));
    assert_int_equal(node.shards[0]->callers[0].state, CALLER_CLOSING);
    node.shards[0]->callers[0].deadline_ns = 1; /* two seconds later */
    node_settle(&node);
    assert_false(peer_is_up(&peer));
    assert_int_equal(node.shards[0]->counters.connections, 0);
    peer_free(&peer);
}

/* ------------------------------------------------------------------------------ no memory */

/* Whichever allocation of a link's life fails, the node lives and serves the next one. */
static void any_allocation_may_fail(void **unused)
{
    (void)unused;
    static char value[5001];
    memset(value, 'v', 5000);
    struct stream stream = {0};
    struct frame_hello hello = hello_any();
    hello.session = 5;
    stream_hello(&stream, hello);
    stream_open(&stream, 1, "demo");
    for (uint32_t seq = 1; seq <= 40; seq++) {
        struct ask ask = seq % 2 == 0 ? ask_get(seq, "large") : ask_update(seq, "large", value);
        stream_ask(&stream, &ask);
    }
    bool failed = true;
    for (uint64_t nth = 1; failed; nth++) {
        struct shard_options options = node_options(1);
        open_with(&options);
        struct peer peer = peer_dial(&node, 0);
        uint64_t before = memory_calls_count();
        memory_fail_after(nth);
        fake_io_segment(node.ios[0], 6000);
        peer_send(&peer, stream.data, stream.bytes);
        for (int i = 0; i < 100; i++) node_turn(&node);
        failed = memory_calls_count() - before >= nth;
        memory_fail_after(0);
        fake_io_segment(node.ios[0], 0);
        node_settle(&node);
        expect_unharmed();
        peer_free(&peer);
        if (failed) node_close(&node);
    }
    stream_free(&stream);
}

/* ---------------------------------------------------------------------------------- INFO */

static void info_is_json_whatever_a_cache_is_called(void **unused)
{
    (void)unused;
    static char longest[256];
    memset(longest, '"', 255);
    node_add_cache(&node, "say \"hello\" \\ \xc3\xa4", NULL, 0, NULL);
    node_add_cache(&node, longest, NULL, 0, NULL);
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    struct ask ask = ask_get(1, "");
    ask.type = FRAME_INFO;
    peer_ask(&peer, ask_update(2, "k", "v"));
    peer_ask(&peer, ask);
    node_settle(&node);
    peer_expect_offset(&peer, 2, 1);
    struct frame_reply reply = peer_expect(&peer, 1, OUTCOME_OK, ERROR_NONE);
    assert_int_equal(reply.flags, VALUE_JSON);
    struct bytes text = peer_tail(&peer, sizeof reply);
    assert_int_equal(json_classify(text.data, text.size), JSON_OBJECT);
    assert_int_equal(json_sum(text.data, text.size, "updates"), 1);
    assert_int_equal(json_sum(text.data, text.size, "connections"), 1);
    assert_int_equal(json_sum(text.data, text.size, "shards_count"), 1);
    static const char escaped[] = "\"say \\\"hello\\\" \\\\ \xc3\xa4\"";
    assert_non_null(memmem(text.data, text.size, escaped, sizeof escaped - 1));
    peer_free(&peer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
/* It opens the node itself, with options of its own. */
#define TEST_OWN(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(welcome_tells_all_that_a_client_needs),
        TEST(a_wrong_hello_is_refused_with_both_values),
        TEST(another_protocol_is_refused_by_its_first_bytes),
        TEST(a_second_hello_is_refused),
        TEST(a_wrong_open_is_refused),
        TEST_OWN(who_says_nothing_is_refused_in_time),
        TEST_OWN(a_session_without_room_is_refused),
        TEST(who_ends_within_a_frame_is_told),
        TEST(a_node_that_stops_refuses_new_links),
        TEST_OWN(a_peer_that_never_reads_stops_its_own_link),
        TEST_OWN(a_source_that_stopped_loses_nothing),
        TEST_OWN(without_batching_each_frame_is_sent_by_itself),
        TEST(with_batching_a_turn_is_one_send),
        TEST(a_link_may_end_at_any_byte),
        TEST(what_came_before_the_end_is_done),
        TEST(a_refused_link_that_does_not_read_is_closed),
        TEST_OWN(any_allocation_may_fail),
        TEST(info_is_json_whatever_a_cache_is_called),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
