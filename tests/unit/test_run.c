/*
 * One shard and its peers: what each kind of request is answered with, how often, and what becomes
 * of those that are wrong.
 */
#include "shard/request.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "ring/slot.h"
#include "tests/support/node.h"

#define SESSION 0x5e5510

/* ------------------------------------------------------------------------------ fixtures */

static struct node node;
static struct peer peer;

static int32_t answer_twice(struct request_context *context, const void *verb)
{
    node_echo(context, verb);
    assert_int_equal(request_reply(context, 0, VALUE_NULL, NULL, 0), -EALREADY);
    assert_int_equal(request_fail(context, ERROR_BUSY, "no", 0, 0), -EALREADY);
    return HANDLED_REPLIED;
}

static int32_t forget_to_answer(struct request_context *context, const void *verb)
{
    (void)context;
    (void)verb;
    return HANDLED_REPLIED;
}

static int32_t decline(struct request_context *context, const void *verb)
{
    (void)context;
    (void)verb;
    return HANDLED_IGNORED;
}

static int32_t pass_on(struct request_context *context, const void *verb)
{
    (void)context;
    (void)verb;
    return HANDLED_NEXT;
}

static int32_t be_busy(struct request_context *context, const void *verb)
{
    (void)context;
    (void)verb;
    return -ERROR_BUSY;
}

static int32_t answer_too_much(struct request_context *context, const void *verb)
{
    static const uint8_t value[20001];
    (void)verb;
    assert_int_equal(request_reply(context, 0, VALUE_BYTES, value, sizeof value), -EMSGSIZE);
    return HANDLED_REPLIED;
}

static const struct cache_verb verbs[] = {{"echo", node_echo, NULL},
                                          {"twice", answer_twice, NULL},
                                          {"forget", forget_to_answer, NULL},
                                          {"decline", decline, NULL},
                                          {"next", pass_on, NULL},
                                          {"busy", be_busy, NULL},
                                          {"huge", answer_too_much, NULL}};

static void open_one(void)
{
    struct shard_options options = node_options(1);
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    node_add_cache(&node, "verbs", verbs, ARRAY_COUNT(verbs), NULL);
    peer = peer_greeted(&node, 0, SESSION, 1);
}

static int setup(void **unused)
{
    (void)unused;
    open_one();
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    peer_free(&peer);
    store_check(&node.shards[0]->caches[0]->store);
    node_close(&node);
    return 0;
}

/* The shard has `keys` keys, and the link lives and serves. */
static void expect_unharmed(uint32_t seq, uint64_t keys)
{
    assert_int_equal(node.shards[0]->counters.keys, keys);
    peer_ask(&peer, ask_get(seq, "nobody"));
    node_settle(&node);
    peer_expect_failure(&peer, seq, ERROR_NOT_FOUND, "no such key");
}

/* -------------------------------------------------------------------- broken frames */

static void a_request_shorter_than_its_header_ends_its_link_only(void **unused)
{
    (void)unused;
    for (uint32_t length = 8; length < FRAME_REQUEST_BYTES; length++) {
        struct peer broken = peer_greeted(&node, 0, 0, 1);
        uint8_t frame[FRAME_REQUEST_BYTES] = {
            [0] = (uint8_t)length, [4] = FRAME_UPDATE, [5] = 0x20};
        peer_send(&broken, frame, round_up_8(length));
        node_settle(&node);
        peer_expect_refuse(&broken, ERROR_PROTOCOL, length, FRAME_REQUEST_BYTES, "header");
        peer_free(&broken);
    }
    expect_unharmed(1, 0);
}

/* A frame of `length` bytes and this type, flags and key length; the rest is zeros. */
static void send_raw(struct peer *to, uint32_t length, uint8_t type, uint8_t flags,
                     uint16_t key_len)
{
    uint8_t frame[256] = {0};
    struct frame_request header = {
        .length = length, .type = type, .flags = flags, .key_len = key_len};
    assert_true(round_up_8(length) <= sizeof frame);
    memcpy(frame, &header, sizeof header);
    peer_send(to, frame, round_up_8(length));
}

static void broken_frames_end_their_link_with_what_was_wrong(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t length;
        uint8_t type;
        uint8_t flags;
        uint16_t key_len;
        uint64_t got;
        uint64_t limit;
        const char *text;
    } cases[] = {
        {32, FRAME_UPDATE, 0xa1, 4, 0xa1, 0x21, "reserved flag"},
        {32, FRAME_UPDATE, 0x21, 9, 9, 8, "key longer"},
        {24, FRAME_GET, 0x20, 1, 1, 0, "key longer"},
        {40, FRAME_UPDATE, 0x61, 1, 0, 0, "extension"},
        {24, FRAME_UPDATE, 0x61, 0, 0, 0, "extension"},
        {32, FRAME_HELLO, 0, 0, FRAME_HELLO, FRAME_UPDATE, "type"},
        {32, FRAME_WELCOME, 0, 0, FRAME_WELCOME, FRAME_UPDATE, "type"},
        {32, FRAME_OPENED, 0, 0, FRAME_OPENED, FRAME_UPDATE, "type"},
        {32, FRAME_ACK, 0, 0, FRAME_ACK, FRAME_UPDATE, "type"},
        {32, FRAME_REFUSE, 0, 0, FRAME_REFUSE, FRAME_UPDATE, "type"},
        {32, FRAME_REPLY, 0, 0, FRAME_REPLY, FRAME_UPDATE, "type"},
        {32, FRAME_BATCH, 0, 0, FRAME_BATCH, FRAME_UPDATE, "type"},
        {32, 0, 0, 0, 0, FRAME_UPDATE, "type"},
        {32, FRAME_CHANGES, 0, 0, FRAME_CHANGES, FRAME_UPDATE, "type"},
        {32, FRAME_EVENT, 0, 0, FRAME_EVENT, FRAME_UPDATE, "type"},
        {32, 15, 0, 0, 15, FRAME_UPDATE, "type"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct peer broken = peer_greeted(&node, 0, 0, 1);
        peer_ask(&broken, ask_update(1, "before", "x"));
        send_raw(&broken, cases[i].length, cases[i].type, cases[i].flags, cases[i].key_len);
        peer_ask(&broken, ask_update(2, "behind", "x"));
        node_settle(&node);
        peer_expect_offset(&broken, 1, i + 1);
        peer_expect_refuse(&broken, ERROR_PROTOCOL, cases[i].got, cases[i].limit, cases[i].text);
        peer_free(&broken);
    }
    expect_unharmed(1, 1); /* "before", not "behind" */
    assert_int_equal(node.shards[0]->counters.refused, ARRAY_COUNT(cases));
}

static void an_unknown_extension_ends_the_link_unless_it_is_optional(void **unused)
{
    (void)unused;
    for (unsigned kind = EXT_VIEW + 1; kind < 0x80; kind++) {
        struct peer one = peer_greeted(&node, 0, 0, 1);
        struct stream stream = {0};
        struct ask ask = ask_update(1, "k", "v");
        ask.extensions.present = 1u << EXT_DEADLINE_MS;
        ask.extensions.deadline_ms = 60000;
        stream_ask(&stream, &ask);
        stream.data[FRAME_REQUEST_BYTES] = (uint8_t)(kind | EXT_LAST);
        peer_send_stream(&one, &stream);
        node_settle(&node);
        if (kind < EXT_OPTIONAL)
            peer_expect_refuse(&one, ERROR_PROTOCOL, 0, 0, "extension");
        else
            peer_expect_offset(&one, 1, kind - EXT_OPTIONAL + 1);
        peer_hang_up(&one);
        node_settle(&node);
        peer_free(&one);
    }
}

/* Asks the same of a frame whose prefix alone has come. */
static void lengths_are_refused_as_soon_as_they_have_come(void **unused)
{
    (void)unused;
    static const uint32_t lengths[] = {0, 1, 7, 24001, 24008, 1u << 24, UINT32_MAX};
    for (size_t i = 0; i < ARRAY_COUNT(lengths); i++) {
        struct peer broken = peer_greeted(&node, 0, 0, 1);
        struct frame_prefix prefix = {.length = lengths[i], .type = FRAME_UPDATE};
        peer_ask(&broken, ask_update(1, "before", "x"));
        peer_send(&broken, &prefix, sizeof prefix);
        node_settle(&node);
        peer_expect_offset(&broken, 1, i + 1);
        peer_expect_refuse(&broken, ERROR_PROTOCOL, lengths[i], lengths[i] < 24 ? 24 : 24000,
                           lengths[i] < 24 ? "shorter" : "over the limit");
        peer_free(&broken);
    }
    expect_unharmed(1, 1);
}

static void a_link_that_is_refused_hears_what_was_done_before(void **unused)
{
    (void)unused;
    struct peer broken = peer_greeted(&node, 0, 0, 1);
    for (uint32_t seq = 1; seq <= 100; seq++) peer_ask(&broken, ask_update(seq, "k", "v"));
    send_raw(&broken, 8, FRAME_UPDATE, 0, 0);
    node_settle(&node);
    for (uint32_t seq = 1; seq <= 100; seq++) peer_expect_offset(&broken, seq, seq);
    peer_expect_refuse(&broken, ERROR_PROTOCOL, 8, 24, "header");
    peer_free(&broken);
    expect_unharmed(1, 1);
}

/* ------------------------------------------------------------------ requests that fail */

struct failing {
    struct ask ask;
    enum reply_error error;
    const char *first; /* both stand in the text */
    const char *second;
};

static struct failing failing(struct ask ask, enum reply_error error, const char *first,
                              const char *second)
{
    return (struct failing){ask, error, first, second};
}

static struct ask with_slot(struct ask ask, uint16_t slot)
{
    ask.slot = slot;
    return ask;
}

static struct ask with_cache(struct ask ask, uint16_t cache)
{
    ask.cache = cache;
    return ask;
}

static struct ask with_type(struct ask ask, uint8_t type)
{
    ask.type = type;
    return ask;
}

static struct ask with_value(struct ask ask, uint8_t value_type, const void *data, size_t bytes)
{
    ask.value_type = value_type;
    ask.value = (struct bytes){data, bytes};
    return ask;
}

static struct ask with_extension(struct ask ask, unsigned kind)
{
    ask.extensions.present |= 1u << kind;
    return ask;
}

/* Each: FAIL with the code and both values, nothing changed, and the next one works. */
static void a_wrong_request_fails_alone(void **unused)
{
    (void)unused;
    static char long_key[102];
    static char long_value[20002];
    memset(long_key, 'k', 101);
    memset(long_value, 'v', 20001);
    static const uint8_t two = 2;
    struct ask update = ask_update(0, "28", "v");
    struct ask get = ask_get(0, "28");
    const struct failing cases[] = {
        failing(ask_update(0, long_key, ""), ERROR_TOO_BIG, "key of 101", "100"),
        failing(ask_get(0, long_key), ERROR_TOO_BIG, "key of 101", "100"),
        failing(ask_remove(0, long_key), ERROR_TOO_BIG, "key of 101", "100"),
        failing(ask_update(0, "28", long_value), ERROR_TOO_BIG, "value of 20001", "20000"),
        failing(ask_update(0, "", "v"), ERROR_INVALID, "key of 0", "1"),
        failing(ask_get(0, ""), ERROR_INVALID, "key of 0", "1"),
        failing(with_type(update, FRAME_GET), ERROR_INVALID, "value of 1", "0"),
        failing(with_type(update, FRAME_REMOVE), ERROR_INVALID, "value of 1", "0"),
        failing(with_cache(update, 2), ERROR_NOT_FOUND, "2 is not open", "2 are"),
        failing(with_cache(update, 65535), ERROR_NOT_FOUND, "65535", "2 are"),
        failing(with_cache(get, 300), ERROR_NOT_FOUND, "300", "2 are"),
        failing(with_slot(update, 4096), ERROR_INVALID, "4096", "below 4096"),
        failing(with_slot(update, 65534), ERROR_INVALID, "65534", "4096"),
        failing(with_slot(update, 5), ERROR_INVALID, "slot 5", "1323"),
        failing(with_value(update, VALUE_DOUBLE, "1234567", 7), ERROR_TYPE, "type 2", "7 bytes"),
        failing(with_value(update, VALUE_INT64, "123456789", 9), ERROR_TYPE, "type 7", "9 bytes"),
        failing(with_value(update, VALUE_BOOL, &two, 1), ERROR_TYPE, "type 4", "1 bytes"),
        failing(with_value(update, VALUE_BOOL, "", 0), ERROR_TYPE, "type 4", "0 bytes"),
        failing(with_value(update, VALUE_NULL, "x", 1), ERROR_TYPE, "type 5", "1 bytes"),
        failing(with_value(update, VALUE_UNDEFINED, "x", 1), ERROR_TYPE, "type 0", "1 bytes"),
        failing(with_value(update, 8, "x", 1), ERROR_TYPE, "type 8", "1 bytes"),
        failing(with_value(update, 15, "", 0), ERROR_TYPE, "type 15", "0 bytes"),
        failing(with_type(update, 23), ERROR_UNSUPPORTED, "type 23", "64"),
        failing(with_type(update, 29), ERROR_UNSUPPORTED, "type 29", "64"),
        failing(with_type(update, 32), ERROR_UNSUPPORTED, "type 32", "64"),
        failing(with_type(update, 63), ERROR_UNSUPPORTED, "type 63", "64"),
        failing(with_type(update, FRAME_VERB), ERROR_INVALID, "type 31", "extension 7"),
        failing(with_type(update, 64), ERROR_UNSUPPORTED, "verb number 64", "0"),
        failing(with_type(with_cache(update, 1), 71), ERROR_UNSUPPORTED, "verb number 71", "7"),
        failing(with_extension(update, EXT_TTL_MS), ERROR_UNSUPPORTED, "extension 1", "11"),
        failing(with_extension(update, EXT_IF_OFFSET), ERROR_UNSUPPORTED, "extension 2", "11"),
        failing(with_extension(update, EXT_COMMIT), ERROR_UNSUPPORTED, "extension 3", "11"),
        failing(with_extension(update, EXT_HOP), ERROR_UNSUPPORTED, "extension 5", "11"),
        failing(with_extension(update, EXT_PARTITION), ERROR_UNSUPPORTED, "extension 6", "11"),
        failing(with_extension(get, EXT_SESSION), ERROR_UNSUPPORTED, "extension 8", "11"),
        failing(with_extension(get, EXT_OFFSET), ERROR_UNSUPPORTED, "extension 10", "11"),
        failing(with_extension(get, EXT_VIEW), ERROR_UNSUPPORTED, "extension 11", "11"),
        failing(ask_verb(0, "echo", "28", "v"), ERROR_UNSUPPORTED, "verb", "handler"),
        failing(with_value(update, VALUE_STRING, "ab\xff", 3), ERROR_TYPE,
                "string for \"28\" is not UTF-8", "2 of its 3 bytes"),
        failing(with_value(update, VALUE_JSON, "{\"a\":x}", 7), ERROR_TYPE,
                "value for \"28\" is not JSON", "5 of its 7 bytes"),
        failing(with_value(update, VALUE_JSON, "[1,", 3), ERROR_TYPE, "is not JSON", "3 of its 3"),
        failing(with_value(update, VALUE_JSON, "", 0), ERROR_TYPE, "is not JSON", "0 of its 0"),
        failing(get, ERROR_NOT_FOUND, "no such", "key"),
        failing(ask_remove(0, "28"), ERROR_NOT_FOUND, "no such", "key"),
    };
    uint32_t seq = 0;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct ask ask = cases[i].ask;
        ask.seq = ++seq;
        peer_ask(&peer, ask);
        peer_ask(&peer, ask_update(++seq, "alive", "v"));
        node_settle(&node);
        peer_expect_failure(&peer, seq - 1, cases[i].error, cases[i].first);
        struct bytes text = peer_tail(&peer, FRAME_REPLY_BYTES);
        assert_non_null(memmem(text.data, text.size, cases[i].second, strlen(cases[i].second)));
        peer_expect_offset(&peer, seq, i + 1);
    }
    assert_int_equal(node.shards[0]->counters.errors, ARRAY_COUNT(cases));
    expect_unharmed(++seq, 1);
}

/* Between others that are plain, of keys that are there: a run of them is read at once. */
static void a_text_that_is_not_what_its_type_says_changes_nothing(void **unused)
{
    (void)unused;
    enum { COUNT = 200 };
    static const char *const wrong[] = {"12345\xff\x37", "\xc3", "trux", "nul"};
    struct stream stream = {0};
    uint32_t seq = 0;
    for (uint32_t i = 0; i < 2 * COUNT; i++) {
        char key[9];
        uint32_t number = i % COUNT;
        bool is_wrong = i >= COUNT && number % 50 == 49;
        const char *text = is_wrong ? wrong[number / 50] : number < 100 ? "1234567" : "true";
        snprintf(key, sizeof key, "text%04u", number);
        struct ask ask = with_value(ask_update(++seq, key, ""),
                                    number < 100 ? VALUE_STRING : VALUE_JSON, text, strlen(text));
        stream_ask(&stream, &ask);
    }
    peer_send_stream(&peer, &stream);
    peer_ask(&peer, ask_get(++seq, "text0049"));
    node_settle(&node);
    for (uint32_t i = 0; i < 2 * COUNT; i++) {
        if (i >= COUNT && i % 50 == 49)
            peer_expect_failure(&peer, i + 1, ERROR_TYPE, "is not ");
        else
            peer_expect_offset(&peer, i + 1, i / COUNT + 1);
    }
    peer_expect_string(&peer, seq, "1234567");
    stream_free(&stream);
}

static void a_wrong_request_that_wants_nothing_fails_in_silence(void **unused)
{
    (void)unused;
    struct ask ask = ask_get(1, "nobody");
    ask.want = WANT_ACK;
    peer_ask(&peer, ask);
    ask = ask_update(2, "", "v");
    ask.want = WANT_NOTHING;
    peer_ask(&peer, ask);
    node_settle(&node);
    struct frame_ack ack = peer_expect_ack(&peer);
    assert_int_equal(ack.requests, 2);
    assert_int_equal(ack.seq, 2);
    peer_expect_silence(&peer);
    assert_int_equal(node.shards[0]->counters.errors, 2);
}

static void limits_are_inclusive(void **unused)
{
    (void)unused;
    static char key[101];
    static char value[20001];
    memset(key, 'k', 100);
    memset(value, 'v', 20000);
    peer_ask(&peer, ask_update(1, key, value));
    peer_ask(&peer, ask_get(2, key));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_expect_string(&peer, 2, value);
}

/* --------------------------------------------------------------------- what is answered */

static void only_who_wants_a_reply_gets_one(void **unused)
{
    (void)unused;
    for (uint8_t want = WANT_NOTHING; want <= WANT_COMMIT; want++) {
        struct ask ask = ask_update(1u + want, "k", "v");
        ask.want = want;
        peer_ask(&peer, ask);
        node_settle(&node);
        if (want >= WANT_REPLY) peer_expect_offset(&peer, ask.seq, 1u + want);
        struct frame_ack ack = peer_expect_ack(&peer);
        assert_int_equal(ack.seq, ask.seq);
        assert_int_equal(ack.requests, 1 + want);
        assert_int_equal(ack.consumed_bytes, 32 * (1 + want));
        peer_expect_silence(&peer);
    }
    assert_int_equal(node.shards[0]->counters.updates, 4); /* all were done */
}

static void one_ack_a_turn_counts_everything(void **unused)
{
    (void)unused;
    struct stream stream = {0};
    for (uint32_t seq = 1; seq <= 500; seq++) {
        struct ask ask = seq % 3 == 0 ? ask_get(seq, "k") : ask_update(seq, "k", "v");
        ask.want = seq % 5 == 0 ? WANT_NOTHING : WANT_ACK;
        stream_ask(&stream, &ask);
    }
    peer_send_stream(&peer, &stream);
    node_settle(&node);
    struct frame_ack ack = peer_expect_ack(&peer);
    assert_int_equal(ack.seq, 500);
    assert_int_equal(ack.requests, 500);
    assert_int_equal(ack.consumed_bytes, 500 * 32);
    peer_expect_silence(&peer);
}

static void no_ack_comes_where_no_request_came(void **unused)
{
    (void)unused;
    struct stream stream = {0};
    stream_open(&stream, 7, "demo");
    stream_open(&stream, 8, "no such cache");
    stream_open(&stream, 9, "verbs");
    peer_send_stream(&peer, &stream);
    node_settle(&node);
    for (uint32_t seq = 7; seq <= 9; seq++) {
        const struct frame_prefix *prefix = peer_next(&peer);
        struct frame_opened opened;
        assert_non_null(prefix);
        memcpy(&opened, peer.frame, sizeof opened);
        assert_int_equal(opened.prefix.type, FRAME_OPENED);
        assert_int_equal(opened.seq, seq);
        assert_int_equal(opened.prefix.small,
                         seq == 8 ? reply_code(OUTCOME_FAIL, ERROR_NOT_FOUND) : 0);
        assert_int_equal(opened.verbs_count, seq == 9 ? ARRAY_COUNT(verbs) : 0);
    }
    peer_expect_silence(&peer);
}

static void every_type_of_value_comes_back_as_it_was(void **unused)
{
    (void)unused;
    static const struct {
        uint8_t type;
        const char *data;
        size_t bytes;
    } values[] = {{VALUE_UNDEFINED, "", 0},      {VALUE_STRING, "", 0}, {VALUE_STRING, "hello", 5},
                  {VALUE_DOUBLE, "12345678", 8}, {VALUE_JSON, "{}", 2}, {VALUE_BOOL, "\0", 1},
                  {VALUE_BOOL, "\1", 1},         {VALUE_NULL, "", 0},   {VALUE_BYTES, "\0\xff", 2},
                  {VALUE_INT64, "abcdefgh", 8},  {VALUE_BYTES, "", 0}};
    uint32_t seq = 0;
    for (size_t i = 0; i < ARRAY_COUNT(values); i++) {
        peer_ask(&peer, with_value(ask_update(++seq, "k", ""), values[i].type, values[i].data,
                                   values[i].bytes));
        peer_ask(&peer, ask_get(++seq, "k"));
        node_settle(&node);
        peer_expect_offset(&peer, seq - 1, i + 1);
        struct frame_reply reply = peer_expect(&peer, seq, OUTCOME_OK, ERROR_NONE);
        assert_int_equal(reply.flags, values[i].type);
        assert_int_equal(reply.offset, i + 1);
        assert_true(bytes_equal(peer_tail(&peer, sizeof reply),
                                (struct bytes){values[i].data, values[i].bytes}));
    }
}

static void a_key_lives_from_its_update_to_its_removal(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_update(1, "28", "a"));
    peer_ask(&peer, with_slot(ask_update(2, "28", "b"), 1323));
    peer_ask(&peer, ask_get(3, "28"));
    peer_ask(&peer, with_slot(ask_remove(4, "28"), 1323));
    peer_ask(&peer, ask_get(5, "28"));
    peer_ask(&peer, ask_remove(6, "28"));
    peer_ask(&peer, ask_update(7, "28", "c"));
    peer_ask(&peer, ask_get(8, "28"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_expect_offset(&peer, 2, 2);
    peer_expect_string(&peer, 3, "b");
    peer_expect_offset(&peer, 4, 3);
    peer_expect_failure(&peer, 5, ERROR_NOT_FOUND, "no such key");
    peer_expect_failure(&peer, 6, ERROR_NOT_FOUND, "no such key");
    peer_expect_offset(&peer, 7, 4);
    peer_expect_string(&peer, 8, "c");
    assert_int_equal(node.shards[0]->counters.keys, 1);
}

/* What fails in one cache must not leave a batch open that another one's update then seals. */
static void a_failure_in_one_cache_is_none_in_another(void **unused)
{
    (void)unused;
    char value[201];
    memset(value, 'v', 200);
    value[200] = 0;
    struct ask ask = ask_update(1, "key", value);
    peer_ask(&peer, ask);
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    ask.seq = 2;
    ask.slot = slot_of_key("key", 3) ^ 1;
    peer_ask(&peer, ask);
    ask.seq = 3;
    ask.slot = FRAME_SLOT_ANY;
    ask.cache = 1;
    peer_ask(&peer, ask);
    node_settle(&node);
    peer_expect_failure(&peer, 2, ERROR_INVALID, "is not the key's");
    peer_expect_offset(&peer, 3, 1);
}

static void caches_do_not_see_each_others_keys(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_update(1, "28", "in demo"));
    peer_ask(&peer, with_cache(ask_get(2, "28"), 1));
    peer_ask(&peer, with_cache(ask_update(3, "28", "in verbs"), 1));
    peer_ask(&peer, ask_get(4, "28"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_expect_failure(&peer, 2, ERROR_NOT_FOUND, "");
    peer_expect_offset(&peer, 3, 1);
    peer_expect_string(&peer, 4, "in demo");
}

/* ------------------------------------------------------------------------------- verbs */

static void a_verb_answers_by_number_and_by_name(void **unused)
{
    (void)unused;
    peer_ask(&peer, with_cache(with_type(ask_update(1, "k", "by number"), 64), 1));
    peer_ask(&peer, with_cache(ask_verb(2, "echo", "k", "by name"), 1));
    peer_ask(&peer, with_cache(ask_verb(3, "echo", "", "without a key"), 1));
    peer_ask(&peer, with_cache(ask_verb(4, "twice", "k", "once"), 1));
    node_settle(&node);
    peer_expect_string(&peer, 1, "by number");
    peer_expect_string(&peer, 2, "by name");
    peer_expect_string(&peer, 3, "without a key");
    peer_expect_string(&peer, 4, "once");
    assert_int_equal(node.shards[0]->counters.verbs, 4);
}

static void a_verb_that_does_not_answer_is_answered_for(void **unused)
{
    (void)unused;
    peer_ask(&peer, with_cache(ask_verb(1, "forget", "k", ""), 1));
    peer_ask(&peer, with_cache(ask_verb(2, "decline", "k", ""), 1));
    peer_ask(&peer, with_cache(ask_verb(3, "next", "k", ""), 1));
    peer_ask(&peer, with_cache(ask_verb(4, "busy", "k", ""), 1));
    peer_ask(&peer, with_cache(ask_verb(5, "huge", "k", ""), 1));
    peer_ask(&peer, with_cache(ask_verb(6, "unheard", "k", ""), 1));
    node_settle(&node);
    peer_expect_failure(&peer, 1, ERROR_NO_REPLY, "declined");
    peer_expect_failure(&peer, 2, ERROR_NO_REPLY, "declined");
    peer_expect_failure(&peer, 3, ERROR_UNSUPPORTED, "no handler");
    peer_expect_failure(&peer, 4, ERROR_BUSY, "failed");
    peer_expect_failure(&peer, 5, ERROR_NO_REPLY, "declined");
    peer_expect_failure(&peer, 6, ERROR_UNSUPPORTED, "no handler");
    expect_unharmed(7, 0);
}

static void a_verb_that_wants_nothing_is_called_all_the_same(void **unused)
{
    (void)unused;
    struct ask ask = with_cache(ask_verb(1, "echo", "k", "unheard"), 1);
    ask.want = WANT_NOTHING;
    peer_ask(&peer, ask);
    node_settle(&node);
    assert_int_equal(node.shards[0]->counters.verbs, 1);
    peer_expect_ack(&peer);
    peer_expect_silence(&peer);
}

/* The handler of everything sees updates and removals and may leave them to the default. */
static void a_handler_of_everything_sees_what_no_verb_takes(void **unused)
{
    (void)unused;
    uint16_t all = (uint16_t)node_add_cache(&node, "all", NULL, 0, node_echo);
    uint16_t none = (uint16_t)node_add_cache(&node, "none", NULL, 0, pass_on);
    peer_ask(&peer, with_cache(ask_update(1, "k", "mine"), all));
    peer_ask(&peer, with_cache(ask_get(2, "k"), all));
    peer_ask(&peer, with_cache(ask_verb(3, "any", "k", "verb"), all));
    peer_ask(&peer, with_cache(ask_update(4, "k", "default"), none));
    peer_ask(&peer, with_cache(ask_get(5, "k"), none));
    peer_ask(&peer, with_cache(ask_remove(6, "k"), none));
    peer_ask(&peer, with_cache(ask_verb(7, "any", "k", "verb"), none));
    node_settle(&node);
    peer_expect_string(&peer, 1, "mine");
    peer_expect_failure(&peer, 2, ERROR_NOT_FOUND, "");
    peer_expect_string(&peer, 3, "verb");
    peer_expect_offset(&peer, 4, 1);
    peer_expect_string(&peer, 5, "default");
    peer_expect_offset(&peer, 6, 2);
    peer_expect_failure(&peer, 7, ERROR_UNSUPPORTED, "no handler");
}

/* ---------------------------------------------------------------------------- sessions */

static void expect_duplicate(uint32_t seq, uint64_t offset)
{
    struct frame_reply reply = peer_expect(&peer, seq, OUTCOME_OK, ERROR_NONE);
    assert_int_equal(reply.flags, REPLY_DUPLICATE);
    assert_int_equal(reply.offset, offset);
}

static void expect_held(uint32_t seq, const char *key, const char *value)
{
    peer_ask(&peer, ask_get(seq, key));
    node_settle(&node);
    peer_expect_string(&peer, seq, value);
}

static void reconnect(uint64_t session, uint64_t seq_first)
{
    peer_hang_up(&peer);
    node_settle(&node);
    peer_free(&peer);
    peer = peer_greeted(&node, 0, session, seq_first);
}

static void a_request_sent_again_gets_its_first_answer(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_update(1, "k", "first"));
    peer_ask(&peer, ask_update(2, "k", "second"));
    peer_ask(&peer, ask_remove(3, "k"));
    peer_ask(&peer, ask_update(4, "k", "third"));
    node_settle(&node);
    for (uint32_t seq = 1; seq <= 4; seq++) peer_expect_offset(&peer, seq, seq);
    peer_ask(&peer, ask_update(1, "k", "first"));
    peer_ask(&peer, ask_remove(3, "k"));
    peer_ask(&peer, ask_update(4, "k", "third"));
    node_settle(&node);
    expect_duplicate(1, 1);
    expect_duplicate(3, 3);
    expect_duplicate(4, 4);
    expect_held(5, "k", "third");
    assert_int_equal(node.shards[0]->counters.duplicates, 3);
}

static void and_after_a_reconnect_too(void **unused)
{
    (void)unused;
    for (uint32_t seq = 1; seq <= 6; seq++) {
        peer_ask(&peer, ask_update(seq, "k", "old"));
        if (seq == 3) peer_ask(&peer, ask_update(3, "k", "old")); /* in one run */
    }
    node_settle(&node);
    reconnect(SESSION, 2);
    for (uint32_t seq = 2; seq <= 8; seq++) peer_ask(&peer, ask_update(seq, "k", "new"));
    node_settle(&node);
    for (uint32_t seq = 2; seq <= 6; seq++) expect_duplicate(seq, seq);
    peer_expect_offset(&peer, 7, 7);
    peer_expect_offset(&peer, 8, 8);
    expect_held(9, "k", "new");
}

/* Tried again it would undo what came after it. */
static void what_changed_nothing_is_told_so_again(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_remove(1, "k"));
    peer_ask(&peer, with_slot(ask_update(2, "k", "v"), 1));
    peer_ask(&peer, ask_update(3, "k", "v"));
    peer_ask(&peer, ask_update(2, "k", "w"));
    peer_ask(&peer, ask_remove(1, "k"));
    node_settle(&node);
    peer_expect_failure(&peer, 1, ERROR_NOT_FOUND, "");
    peer_expect_failure(&peer, 2, ERROR_INVALID, "slot 1 ");
    peer_expect_offset(&peer, 3, 1);
    peer_expect_failure(&peer, 2, ERROR_INVALID, "refused before");
    peer_expect_failure(&peer, 1, ERROR_NOT_FOUND, "no such key");
    expect_held(4, "k", "v");
    assert_int_equal(node.shards[0]->counters.duplicates, 2);
}

static void what_was_late_is_late_again(void **unused)
{
    (void)unused;
    struct request request = {.frame_type = FRAME_UPDATE, .want = WANT_REPLY, .link_seq = 5};
    struct caller *caller = &node.shards[0]->callers[0];
    struct request_context context = {
        .shard = node.shards[0], .caller = caller, .request = &request};
    request.session = caller->session;
    request.store.seq_whole = 5;
    request_fail_late(&context);
    peer_ask(&peer, ask_update(6, "k", "later"));
    peer_ask(&peer, ask_update(5, "k", "late"));
    node_settle(&node);
    peer_expect_failure(&peer, 5, ERROR_TIMEOUT, "deadline");
    peer_expect_offset(&peer, 6, 1);
    peer_expect_failure(&peer, 5, ERROR_TIMEOUT, "deadline");
    expect_held(7, "k", "later");
}

static void sessions_do_not_answer_for_each_other(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_update(1, "k", "of one"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    reconnect(SESSION + 1, 1);
    peer_ask(&peer, ask_update(1, "k", "of the other"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 2);
    reconnect(0, 1);
    peer_ask(&peer, ask_update(1, "k", "of nobody"));
    peer_ask(&peer, ask_update(1, "k", "of nobody"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 3);
    peer_expect_offset(&peer, 1, 4);
}

static void two_links_of_a_session_share_its_memory(void **unused)
{
    (void)unused;
    struct peer other = peer_greeted(&node, 0, SESSION, 1);
    peer_ask(&peer, ask_update(1, "k", "v"));
    peer_ask(&peer, ask_update(4, "k", "v"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_expect_offset(&peer, 4, 2);
    for (uint32_t seq = 1; seq <= 5; seq++) peer_ask(&other, ask_update(seq, "k", "v"));
    node_settle(&node);
    struct frame_reply reply = peer_expect(&other, 1, OUTCOME_OK, ERROR_NONE);
    assert_int_equal(reply.flags, REPLY_DUPLICATE);
    peer_expect_offset(&other, 2, 3);
    peer_expect_offset(&other, 3, 4);
    reply = peer_expect(&other, 4, OUTCOME_OK, ERROR_NONE);
    assert_int_equal(reply.flags, REPLY_DUPLICATE);
    peer_expect_offset(&other, 5, 5);
    peer_ask(&peer, ask_update(5, "k", "v"));
    peer_ask(&peer, ask_update(6, "k", "v"));
    node_settle(&node);
    expect_duplicate(5, 5);
    peer_expect_offset(&peer, 6, 6);
    peer_free(&other);
}

static void numbers_may_have_gaps_and_go_back(void **unused)
{
    (void)unused;
    static const uint32_t seqs[] = {1, 10, 5, 5000, 4999, 6, 10001, 10000};
    for (size_t i = 0; i < ARRAY_COUNT(seqs); i++) peer_ask(&peer, ask_update(seqs[i], "k", "v"));
    node_settle(&node);
    for (size_t i = 0; i < ARRAY_COUNT(seqs); i++) peer_expect_offset(&peer, seqs[i], i + 1);
    for (size_t i = 0; i < ARRAY_COUNT(seqs); i++) peer_ask(&peer, ask_update(seqs[i], "k", "v"));
    node_settle(&node);
    for (size_t i = 0; i < ARRAY_COUNT(seqs); i++) expect_duplicate(seqs[i], i + 1);
}

static void a_number_below_the_window_is_stale(void **unused)
{
    (void)unused;
    const uint32_t highest = 3 * SESSION_WINDOW;
    peer_ask(&peer, ask_update(1, "k", "v"));
    peer_ask(&peer, ask_update(highest, "k", "v"));
    peer_ask(&peer, ask_update(highest - SESSION_WINDOW, "k", "stale"));
    peer_ask(&peer, ask_remove(1, "k"));
    peer_ask(&peer, ask_update(highest - SESSION_WINDOW + 1, "k", "last"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_expect_offset(&peer, highest, 2);
    peer_expect_stale(&peer, highest - SESSION_WINDOW, "49152");
    peer_expect_stale(&peer, 1, "number 1 ");
    peer_expect_offset(&peer, highest - SESSION_WINDOW + 1, 3);
}

/* Every number of a whole window, sent again in another order. */
static void a_whole_window_is_remembered(void **unused)
{
    (void)unused;
    char key[16];
    struct rng rng;
    rng_init(&rng, 5);
    for (uint32_t seq = 1; seq <= SESSION_WINDOW + 10; seq++) {
        snprintf(key, sizeof key, "k%u", seq % 1000);
        peer_ask(&peer, ask_update(seq, key, "v"));
    }
    node_settle(&node);
    for (uint32_t seq = 1; seq <= SESSION_WINDOW + 10; seq++)
        peer_expect(&peer, seq, OUTCOME_OK, ERROR_NONE);
    uint64_t updates = node.shards[0]->counters.keys;
    for (unsigned i = 0; i < 2000; i++) {
        uint32_t seq = 11 + (uint32_t)rng_below(&rng, SESSION_WINDOW);
        snprintf(key, sizeof key, "k%u", seq % 1000);
        peer_ask(&peer, ask_update(seq, key, "again"));
        node_settle(&node);
        expect_duplicate(seq, (seq - 1) / 1000 + 1);
    }
    assert_int_equal(node.shards[0]->counters.keys, updates);
    peer_ask(&peer, ask_update(10, "k10", "v"));
    node_settle(&node);
    peer_expect_stale(&peer, 10, "");
}

static void numbers_go_on_over_the_end_of_32_bits(void **unused)
{
    (void)unused;
    const uint64_t first = ((uint64_t)3 << 32) - 50;
    reconnect(SESSION, first);
    for (uint64_t seq = first; seq < first + 100; seq++)
        peer_ask(&peer, ask_update((uint32_t)seq, "k", "v"));
    node_settle(&node);
    for (uint64_t seq = first; seq < first + 100; seq++)
        peer_expect_offset(&peer, (uint32_t)seq, seq - first + 1);
    reconnect(SESSION, first + 30);
    for (uint64_t seq = first + 30; seq < first + 101; seq++)
        peer_ask(&peer, ask_update((uint32_t)seq, "k", "v"));
    node_settle(&node);
    for (uint64_t seq = first + 30; seq < first + 100; seq++)
        expect_duplicate((uint32_t)seq, seq - first + 1);
    peer_expect_offset(&peer, (uint32_t)(first + 100), 101);
}

/*
 * The low half names the number nearest to the highest one on the link, also where the one before it
 * in the same receive was far below. What a number was taken for shows when it is sent again, alone.
 */
static void numbers_are_nearest_to_the_highest_on_the_link(void **unused)
{
    (void)unused;
    const uint64_t first = (uint64_t)5 << 32;
    const uint64_t highest = first + INT32_MAX;
    static const struct {
        int64_t from_highest;
        bool is_stale;
    } cases[] = {{-1, false},
                 {-(int64_t)INT32_MAX, true}, /* nearest to this one, the next is 2^32 below */
                 {-2, false},
                 {INT32_MIN, true},
                 {-3, false}};
    reconnect(SESSION, first + 1);
    peer_ask(&peer, ask_update((uint32_t)highest, "k", "v"));
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        peer_ask(&peer,
                 ask_remove((uint32_t)(highest + (uint64_t)cases[i].from_highest), "no such key"));
    /* A step of 2^31 - 1 up is the longest that there is. */
    peer_ask(&peer, ask_update((uint32_t)(highest + INT32_MAX), "k", "v"));
    node_settle(&node);
    peer_expect_offset(&peer, (uint32_t)highest, 1);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint32_t seq = (uint32_t)(highest + (uint64_t)cases[i].from_highest);
        if (cases[i].is_stale)
            peer_expect_stale(&peer, seq, "");
        else
            peer_expect_failure(&peer, seq, ERROR_NOT_FOUND, "");
    }
    peer_expect_offset(&peer, (uint32_t)(highest + INT32_MAX), 2);
    reconnect(SESSION, highest + INT32_MAX);
    peer_ask(&peer, ask_update((uint32_t)(highest + INT32_MAX), "k", "v"));
    node_settle(&node);
    expect_duplicate((uint32_t)(highest + INT32_MAX), 2);
}

static void deadline_and_floor_are_taken(void **unused)
{
    (void)unused;
    struct ask ask = ask_update(1, "k", "v");
    ask.extensions = (struct extensions){
        .present = 1u << EXT_DEADLINE_MS | 1u << EXT_FLOOR, .deadline_ms = 60000, .floor = 1};
    peer_ask(&peer, ask);
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    expect_held(2, "k", "v");
}

static struct ask with_deadline(struct ask ask, uint32_t ms)
{
    ask.extensions = (struct extensions){.present = 1u << EXT_DEADLINE_MS, .deadline_ms = ms};
    return ask;
}

/* Requests that wait for room keep their time: it runs from when they were first read. */
static void what_waited_too_long_is_not_done(void **unused)
{
    (void)unused;
    static char large[20001];
    const uint32_t gets = 150; /* more than the outbox holds */
    uint32_t seq = gets + 3;
    memset(large, 'L', sizeof large - 1);
    peer_ask(&peer, ask_update(1, "large", large));
    peer_ask(&peer, ask_update(2, "done", "before"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_expect_offset(&peer, 2, 1);
    fake_io_hold_sends(node.ios[0], peer.conn, true);
    struct stream stream = {0};
    for (uint32_t i = 0; i < gets; i++) {
        struct ask ask = ask_get(3 + i, "large");
        stream_ask(&stream, &ask);
    }
    struct ask asks[] = {with_deadline(ask_update(seq, "k", "late"), 0),
                         with_deadline(ask_update(2, "done", "before"), 0),
                         with_deadline(ask_update(seq + 1, "k", "in time"), 60000),
                         with_deadline(ask_get(seq + 2, "k"), 0), ask_get(seq + 3, "k")};
    for (size_t i = 0; i < ARRAY_COUNT(asks); i++) stream_ask(&stream, &asks[i]);
    peer_send_stream(&peer, &stream);
    for (int i = 0; i < 10; i++) node_turn(&node);
    assert_true(fake_io_is_paused(node.ios[0], peer.conn));
    fake_io_hold_sends(node.ios[0], peer.conn, false);
    node_settle(&node);
    for (uint32_t i = 0; i < gets; i++) peer_expect_string(&peer, 3 + i, large);
    peer_expect_failure(&peer, seq, ERROR_TIMEOUT, "deadline");
    expect_duplicate(2, 1); /* it has been done, so it cannot be late */
    peer_expect_offset(&peer, seq + 1, 1);
    peer_expect_failure(&peer, seq + 2, ERROR_TIMEOUT, "deadline");
    peer_expect_string(&peer, seq + 3, "in time");
    assert_int_equal(node.shards[0]->callers[0].again_bytes, 0);
    /* What comes later has all its time. */
    peer_ask(&peer, with_deadline(ask_update(seq + 4, "k", "w"), 1));
    node_settle(&node);
    peer_expect_offset(&peer, seq + 4, 2);
}

/* As a client says of what it gave up, so that it is not done later, from wherever it may still come. */
static void what_has_no_time_left_is_never_done(void **unused)
{
    (void)unused;
    peer_ask(&peer, with_deadline(ask_update(1, "k", "v"), 0));
    node_settle(&node);
    peer_expect_failure(&peer, 1, ERROR_TIMEOUT, "deadline");
    struct peer other = peer_greeted(&node, 0, SESSION, 1);
    peer_ask(&other, ask_update(1, "k", "v"));
    node_settle(&node);
    peer_expect_failure(&other, 1, ERROR_TIMEOUT, "deadline");
    peer_free(&other);
}

/* -------------------------------------------------------------------------- every cut */

#define CUT_SEQS 30

/* A whole conversation: greeting, every kind of request, good and bad. */
static struct stream conversation(void)
{
    struct stream stream = {0};
    struct frame_hello hello = hello_any();
    static char large[5001];
    memset(large, 'L', 5000);
    hello.session = SESSION;
    stream_hello(&stream, hello);
    stream_open(&stream, 1, "demo");
    stream_open(&stream, 2, "nothing");
    struct ask asks[] = {
        ask_update(1, "a", "1"),
        ask_update(2, "a", "22"),
        with_extension(ask_update(3, "b", "333"), EXT_FLOOR),
        ask_update(4, "a.b", "4444"),
        ask_update(5, "a", "55555"),
        ask_get(6, "a"),
        ask_get(7, "none"),
        ask_update(8, "", "no key"),
        ask_update(2, "a", "again"),
        ask_remove(9, "a"),
        with_slot(ask_update(10, "a", "10"), 17),
        with_cache(ask_update(11, "a", "x"), 9),
        ask_update(12, "large", large),
        ask_verb(13, "unheard", "k", "v"),
        ask_update(14, "c", "7777777"),
        ask_get(15, "large"),
        with_value(ask_update(16, "d", ""), VALUE_BOOL, "\1", 1),
        with_value(ask_update(17, "d", ""), VALUE_INT64, "12345678", 8),
        ask_get(18, "d"),
    };
    asks[4].want = WANT_NOTHING;
    asks[14].want = WANT_ACK;
    for (size_t i = 0; i < ARRAY_COUNT(asks); i++) {
        stream_ask(&stream, &asks[i]);
        if (i == 6) stream_open(&stream, 3, "demo");
    }
    for (uint32_t seq = 19; seq <= CUT_SEQS; seq++) {
        struct ask ask = ask_update(seq, "a", "in a run");
        stream_ask(&stream, &ask);
    }
    return stream;
}

/* What one peer hears: everything but ACKs, in order, and the last ACK. */
struct heard {
    struct stream answers;
    struct frame_ack ack;
};

static void hear_out(struct heard *heard, struct peer *from)
{
    const struct frame_prefix *prefix;
    while ((prefix = peer_next(from)) != NULL) {
        if (prefix->type == FRAME_ACK)
            memcpy(&heard->ack, from->frame, sizeof heard->ack);
        else
            stream_put(&heard->answers, from->frame, round_up_8(prefix->length));
    }
}

/* Sends `stream` to a new node in pieces that end at the given places, a turn for each. */
static struct heard hear(const struct stream *stream, const size_t *cuts, size_t cuts_count)
{
    struct node fresh;
    struct heard heard = {0};
    struct shard_options options = node_options(1);
    node_open(&fresh, &options);
    node_add_cache(&fresh, "demo", NULL, 0, NULL);
    struct peer from = peer_dial(&fresh, 0);
    size_t at = 0;
    for (size_t i = 0; i <= cuts_count; i++) {
        size_t end = i < cuts_count ? cuts[i] : stream->bytes;
        peer_send(&from, stream->data + at, end - at);
        node_turn(&fresh);
        at = end;
    }
    node_settle(&fresh);
    hear_out(&heard, &from);
    peer_free(&from);
    node_close(&fresh);
    return heard;
}

static void assert_heard_equal(const struct heard *a, struct heard *b)
{
    assert_int_equal(a->answers.bytes, b->answers.bytes);
    assert_memory_equal(a->answers.data, b->answers.data, a->answers.bytes);
    assert_memory_equal(&a->ack, &b->ack, sizeof a->ack);
    stream_free(&b->answers);
}

static void a_stream_may_be_cut_anywhere(void **unused)
{
    (void)unused;
    struct stream stream = conversation();
    struct heard whole = hear(&stream, NULL, 0);
    assert_int_equal(whole.ack.requests, CUT_SEQS + 1);
    assert_int_equal(whole.ack.seq, CUT_SEQS);
    for (size_t cut = 1; cut < stream.bytes; cut++) {
        /* Inside the large value one place is like another. */
        if (cut % 61 != 0 && memcmp(stream.data + cut - 1, "LLLLLLLL", 8) == 0 &&
            memcmp(stream.data + cut - 40, "LLLLLLLL", 8) == 0)
            continue;
        struct heard heard = hear(&stream, &cut, 1);
        assert_heard_equal(&whole, &heard);
    }
    stream_free(&whole.answers);
    stream_free(&stream);
}

static void and_into_any_pieces(void **unused)
{
    (void)unused;
    struct stream stream = conversation();
    struct heard whole = hear(&stream, NULL, 0);
    size_t *cuts = malloc(stream.bytes * sizeof *cuts);
    assert_non_null(cuts);
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct rng rng;
        rng_init(&rng, seed);
        size_t count = 0;
        size_t longest = seed == 0 ? 1 : 1 + (size_t)rng_below(&rng, 1000);
        for (size_t at = 1 + rng_below(&rng, longest); at < stream.bytes;
             at += 1 + rng_below(&rng, longest))
            cuts[count++] = at;
        struct heard heard = hear(&stream, cuts, count);
        assert_heard_equal(&whole, &heard);
    }
    free(cuts);
    stream_free(&whole.answers);
    stream_free(&stream);
}

/* --------------------------------------------------- pointers into the table that have got old */

/* The `nth` key of 8 bytes whose bucket is `bucket`, while the table has its first 64. */
static void key_of_bucket(uint64_t bucket, unsigned nth, char key[9])
{
    uint64_t seed = node.shards[0]->caches[0]->store.hash_seed;
    unsigned found = 0;
    for (unsigned number = 0;; number++) {
        snprintf(key, 9, "k%07u", number);
        if (hash_key(key, 8, seed) % 64 == bucket && found++ == nth) return;
    }
}

/* An update with any bytes as its value. */
static void put_update(struct stream *stream, uint32_t seq, const char *key, struct bytes value)
{
    struct ask ask = ask_update(seq, key, "");
    if (!value_text_is_valid(VALUE_STRING, value.data, value.size)) ask.value_type = VALUE_BYTES;
    ask.value = value;
    stream_ask(stream, &ask);
}

/* A record as the log has it, with this key. */
static struct bytes forged_record(const char *key)
{
    static uint8_t record[CHANGE_BYTES + 16];
    struct change change = {.length = sizeof record,
                            .type = FRAME_UPDATE,
                            .flags = VALUE_BYTES,
                            .key_len = 8,
                            .slot = slot_of_key(key, 8),
                            .offset_and_floor = 1};
    memcpy(record, &change, sizeof change);
    memcpy(record + sizeof change, key, 8);
    return (struct bytes){record, sizeof record};
}

/*
 * The seventh entry of a bucket is looked up, then a new key of the same bucket puts the number of
 * an overflow bucket in its place: 16, and at 16 * 8 in the log lies what looks like its record.
 */
/* As if the key had been changed 2^32 times before. */
static void age_key(const char *key)
{
    struct store *store = &node.shards[0]->caches[0]->store;
    char body[8] = {0};
    const struct change *change;
    struct store_request request = {.body = (const uint8_t *)body,
                                    .body_bytes = (uint32_t)strlen(key),
                                    .key_len = (uint16_t)strlen(key),
                                    .slot = FRAME_SLOT_ANY,
                                    .type = FRAME_GET};
    memcpy(body, key, strlen(key));
    store_prepare(store, &request);
    assert_int_equal(store_get(store, &request, &change), STORE_OK);
    ((struct change *)(uintptr_t)change)->offset_and_floor += (uint64_t)1 << 32;
}

/* A reply with its offset in full behind the header; what follows that. */
static struct bytes expect_wide_offset(uint32_t seq, uint64_t offset)
{
    struct frame_reply reply = peer_expect(&peer, seq, OUTCOME_OK, ERROR_NONE);
    struct bytes tail = peer_tail(&peer, sizeof reply);
    struct extensions extensions;
    assert_int_equal(reply.flags & FRAME_EXTENDED, FRAME_EXTENDED);
    assert_int_equal(reply.offset, (uint32_t)offset);
    assert_int_equal(extensions_decode(&extensions, tail.data, tail.size), 16);
    assert_int_equal(extensions.present, 1u << EXT_OFFSET);
    assert_int_equal(extensions.offset, offset);
    return (struct bytes){(const uint8_t *)tail.data + 16, tail.size - 16};
}

static void an_offset_over_32_bits_is_in_an_extension(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_update(1, "k", "a"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    age_key("k");
    peer_ask(&peer, ask_get(2, "k"));
    peer_ask(&peer, ask_update(3, "k", "the second value"));
    peer_ask(&peer, ask_get(4, "k"));
    node_settle(&node);
    assert_true(bytes_equal(expect_wide_offset(2, 0x100000001), bytes_of("a")));
    assert_int_equal(expect_wide_offset(3, 0x100000002).size, 0);
    assert_true(bytes_equal(expect_wide_offset(4, 0x100000002), bytes_of("the second value")));
}

static void a_value_is_never_taken_for_a_record(void **unused)
{
    (void)unused;
    static const uint8_t filler[128];
    char victim[9];
    char key[9];
    uint32_t seq = 1;
    struct stream stream = {0};
    key_of_bucket(15, 6, victim);
    for (uint64_t bucket = 0; bucket < 16; bucket++) {
        for (unsigned nth = 0; nth < (bucket < 15 ? 8u : 7u); nth++) {
            key_of_bucket(bucket, nth, key);
            put_update(&stream, seq, key, seq == 1 ? forged_record(victim) : bytes_of("old"));
            seq++;
        }
    }
    const struct store *store = &node.shards[0]->caches[0]->store;
    peer_send_stream(&peer, &stream);
    node_settle(&node);
    assert_int_equal(store->table.overflow_fresh, 16);
    for (uint32_t i = 1; i < seq; i++) peer_expect_offset(&peer, i, 1);
    key_of_bucket(15, 7, key);
    put_update(&stream, seq, key, bytes_of("new"));
    put_update(&stream, seq + 1, victim, bytes_of("new"));
    /* The short way leaves the last 128 bytes of a receive alone. */
    put_update(&stream, seq + 2, "elsewhere", (struct bytes){filler, sizeof filler});
    peer_send_stream(&peer, &stream);
    peer_ask(&peer, ask_get(seq + 3, key));
    peer_ask(&peer, ask_get(seq + 4, victim));
    node_settle(&node);
    assert_int_equal(store->table.overflow_fresh, 17);
    peer_expect_offset(&peer, seq, 1);
    peer_expect_offset(&peer, seq + 1, 2);
    peer_expect_offset(&peer, seq + 2, 1);
    peer_expect_string(&peer, seq + 3, "new");
    peer_expect_string(&peer, seq + 4, "new");
}

/* ------------------------------------------------------------------------------ memory.max */

#define FULL_KEYS 300

/* A node whose log is small, and none of which leaves the history by itself. */
static void open_small(size_t log_bytes_max)
{
    struct shard_options options = node_options(1);
    options.log_bytes_max = log_bytes_max;
    options.history_bytes_max = GIB;
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    node_add_cache(&node, "other", NULL, 0, NULL);
    peer = peer_greeted(&node, 0, SESSION, 1);
}

/* Updates one of FULL_KEYS keys with a long value. Whether it was taken. */
static bool try_long_update(uint32_t seq, uint16_t cache)
{
    static const uint8_t value[19000];
    struct frame_reply reply;
    char key[9];
    snprintf(key, sizeof key, "%08u", seq % FULL_KEYS);
    struct ask ask = ask_update(seq, key, "");
    ask.cache = cache;
    ask.value = (struct bytes){value, sizeof value};
    peer_ask(&peer, ask);
    node_settle(&node);
    const struct frame_prefix *prefix = peer_next_answer(&peer);
    assert_non_null(prefix);
    assert_int_equal(prefix->type, FRAME_REPLY);
    memcpy(&reply, prefix, sizeof reply);
    return reply_outcome(reply.code) == OUTCOME_OK;
}

/* Each refusal is in a turn of its own, in which nothing was appended. */
static void a_full_node_that_is_only_updated_makes_room(void **unused)
{
    uint32_t refusals = 0;
    (void)unused;
    open_small(20 * MIB);
    for (uint32_t seq = 1; seq <= 4000; seq++) {
        bool is_taken = try_long_update(seq, 0);
        refusals = is_taken ? 0 : refusals + 1;
        assert_true(refusals < 20);
    }
    assert_int_equal(store_keys_count(&node.shards[0]->caches[0]->store), FULL_KEYS);
}

static void a_cache_that_never_got_memory_is_refused_and_no_more(void **unused)
{
    uint32_t seq = 0;
    (void)unused;
    open_small(20 * MIB);
    while (try_long_update(++seq, 0)) continue;
    for (uint32_t i = 0; i < 10; i++) {
        char key[9];
        try_long_update(++seq, 1);
        snprintf(key, sizeof key, "%08u", i);
        peer_ask(&peer, ask_remove(++seq, key));
        node_settle(&node);
        assert_non_null(peer_next_answer(&peer));
    }
}

/* The history of a cache that is idle is all that there is to give back. */
static void the_history_of_an_idle_cache_makes_room_for_another(void **unused)
{
    uint32_t seq = 0;
    uint32_t refusals = 0;
    (void)unused;
    open_small(30 * MIB);
    while (try_long_update(++seq, 0)) continue;
    for (uint32_t i = 0; i < 100; i++) {
        bool is_taken = try_long_update(++seq, 1);
        refusals = is_taken ? 0 : refusals + 1;
        assert_true(refusals < 40);
    }
    const struct shard *shard = node.shards[0];
    assert_int_equal(store_keys_count(&shard->caches[0]->store), FULL_KEYS);
    assert_in_range(store_keys_count(&shard->caches[1]->store), 1, FULL_KEYS);
    for (uint32_t i = 0; i < 2; i++) store_check(&shard->caches[i]->store);
}

/*
 * Removals of all keys of a node that is full of nothing but keys, as fast as they come, each `step`
 * keys from the one before.
 */
static void remove_all(size_t log_bytes_max, uint32_t step)
{
    enum { RUN = 1000 };
    char key[12];
    uint32_t keys = 0;
    uint32_t seq = 1;
    bool is_full = false;
    open_small(log_bytes_max);
    while (!is_full) {
        struct frame_reply reply;
        snprintf(key, sizeof key, "k%u", keys);
        for (uint32_t i = 0; i < RUN; i++) {
            snprintf(key, sizeof key, "k%u", keys + i);
            peer_ask(&peer, ask_update(seq + i, key, "x"));
        }
        node_settle(&node);
        for (uint32_t i = 0; i < RUN; i++) {
            const struct frame_prefix *prefix = peer_next_answer(&peer);
            assert_non_null(prefix);
            memcpy(&reply, prefix, sizeof reply);
            is_full |= reply_outcome(reply.code) != OUTCOME_OK;
            keys += !is_full;
        }
        seq += RUN;
    }
    assert_true(keys > 100000);
    keys -= keys % step == 0; /* then each key has its turn */
    for (uint32_t i = 0; i < keys; i += RUN) {
        uint32_t end = keys - i < RUN ? keys : i + RUN;
        peer_ask(&peer, ask_get(seq, "k0"));
        for (uint32_t j = i; j < end; j++) {
            snprintf(key, sizeof key, "k%u", (uint32_t)((uint64_t)j * step % keys));
            peer_ask(&peer, ask_remove(seq + 1 + j - i, key));
        }
        node_settle(&node);
        assert_non_null(peer_next_answer(&peer));
        for (uint32_t j = i; j < end; j++) peer_expect_offset(&peer, seq + 1 + j - i, 2);
        seq += RUN + 1;
    }
    assert_in_range(store_keys_count(&node.shards[0]->caches[0]->store), 0, 1);
    store_check(&node.shards[0]->caches[0]->store);
}

static void a_full_node_takes_every_removal(void **unused)
{
    (void)unused;
    remove_all(20 * MIB, 1);
}

/* Some of each segment: nothing is won before all of them were swept. */
static void and_of_keys_that_lie_all_over_the_log(void **unused)
{
    (void)unused;
    remove_all(60 * MIB, 7919);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_request_shorter_than_its_header_ends_its_link_only),
        TEST(broken_frames_end_their_link_with_what_was_wrong),
        TEST(an_unknown_extension_ends_the_link_unless_it_is_optional),
        TEST(lengths_are_refused_as_soon_as_they_have_come),
        TEST(a_link_that_is_refused_hears_what_was_done_before),
        TEST(a_wrong_request_fails_alone),
        TEST(a_text_that_is_not_what_its_type_says_changes_nothing),
        TEST(a_wrong_request_that_wants_nothing_fails_in_silence),
        TEST(limits_are_inclusive),
        TEST(only_who_wants_a_reply_gets_one),
        TEST(one_ack_a_turn_counts_everything),
        TEST(no_ack_comes_where_no_request_came),
        TEST(every_type_of_value_comes_back_as_it_was),
        TEST(a_key_lives_from_its_update_to_its_removal),
        TEST(caches_do_not_see_each_others_keys),
        TEST(a_failure_in_one_cache_is_none_in_another),
        TEST(a_verb_answers_by_number_and_by_name),
        TEST(a_verb_that_does_not_answer_is_answered_for),
        TEST(a_verb_that_wants_nothing_is_called_all_the_same),
        TEST(a_handler_of_everything_sees_what_no_verb_takes),
        TEST(a_request_sent_again_gets_its_first_answer),
        TEST(and_after_a_reconnect_too),
        TEST(what_changed_nothing_is_told_so_again),
        TEST(what_was_late_is_late_again),
        TEST(sessions_do_not_answer_for_each_other),
        TEST(two_links_of_a_session_share_its_memory),
        TEST(numbers_may_have_gaps_and_go_back),
        TEST(a_number_below_the_window_is_stale),
        TEST(a_whole_window_is_remembered),
        TEST(numbers_go_on_over_the_end_of_32_bits),
        TEST(numbers_are_nearest_to_the_highest_on_the_link),
        TEST(deadline_and_floor_are_taken),
        TEST(what_waited_too_long_is_not_done),
        TEST(what_has_no_time_left_is_never_done),
        TEST(an_offset_over_32_bits_is_in_an_extension),
        TEST(a_value_is_never_taken_for_a_record),
        cmocka_unit_test_teardown(a_full_node_that_is_only_updated_makes_room, teardown),
        cmocka_unit_test_teardown(a_cache_that_never_got_memory_is_refused_and_no_more, teardown),
        cmocka_unit_test_teardown(the_history_of_an_idle_cache_makes_room_for_another, teardown),
        cmocka_unit_test_teardown(a_full_node_takes_every_removal, teardown),
        cmocka_unit_test_teardown(and_of_keys_that_lie_all_over_the_log, teardown),
        cmocka_unit_test(a_stream_may_be_cut_anywhere),
        cmocka_unit_test(and_into_any_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
