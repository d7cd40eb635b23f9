/*
 * Subscriptions on a shard: what they are sent, how far credit and room go, and what is refused.
 */
#include "shard/subscription.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log/change.h"
#include "ring/slot.h"
#include "tests/support/node.h"
#include "wire/stream.h"

static struct node node;
static struct peer writer;
static struct peer reader;
static uint32_t seq;

/* ------------------------------------------------------------------------------ fixtures */

static void open_node(const struct shard_options *options)
{
    node_open(&node, options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    writer = peer_greeted(&node, 0, 0x11, 1);
    reader = peer_greeted(&node, 0, 0x22, 1);
    seq = 0;
}

static int open_one(void **state)
{
    (void)state;
    struct shard_options options = node_options(1);
    open_node(&options);
    return 0;
}

/* A history of one segment, and compaction at once: what is superseded goes soon. */
static int open_forgetful(void **state)
{
    (void)state;
    struct shard_options options = node_options(1);
    options.history_bytes_max = 1;
    options.garbage_bytes_max = 1;
    options.outbox_bytes_max = 64 * KIB;
    open_node(&options);
    return 0;
}

static int close_node(void **state)
{
    (void)state;
    peer_free(&writer);
    peer_free(&reader);
    node_close(&node);
    return 0;
}

static void set(const char *key, const char *value)
{
    peer_ask(&writer, ask_update(++seq, key, value));
    node_settle(&node);
    peer_expect(&writer, seq, OUTCOME_OK, ERROR_NONE);
}

static void drop_key(const char *key)
{
    peer_ask(&writer, ask_remove(++seq, key));
    node_settle(&node);
    peer_expect(&writer, seq, OUTCOME_OK, ERROR_NONE);
}

static struct frame_subscribe all_from(enum stream_from from)
{
    return (struct frame_subscribe){.number = 5,
                                    .from = (uint8_t)from,
                                    .shard = HELLO_SHARD_ANY,
                                    .credit_bytes = CREDIT_ALL,
                                    .credit_records = CREDIT_ALL};
}

static void subscribe(struct frame_subscribe frame, const char *prefix)
{
    uint8_t data[512];
    size_t bytes = subscribe_encode(&frame, bytes_of(prefix), data);
    peer_send(&reader, data, bytes);
    node_settle(&node);
}

static void credit(uint64_t bytes, uint64_t records, bool is_end)
{
    uint8_t data[64];
    struct frame_credit frame = {.number = 5, .credit_bytes = bytes, .credit_records = records};
    peer_send(&reader, data, credit_encode(&frame, is_end, data));
    node_settle(&node);
}

static struct frame_event expect_event(enum stream_event event)
{
    struct frame_event frame;
    const struct frame_prefix *prefix = peer_next_answer(&reader);
    assert_non_null(prefix);
    assert_int_equal(prefix->type, FRAME_EVENT);
    memcpy(&frame, reader.frame, sizeof frame);
    assert_int_equal(frame.event, event);
    assert_int_equal(frame.number, 5);
    return frame;
}

static void expect_ended(enum reply_error error)
{
    struct frame_event event = expect_event(STREAM_ENDED);
    assert_int_equal(event.prefix.small & REPLY_ERROR, error);
}

/* The next CHANGES; its first record is in `change`, its number is returned. */
static unsigned expect_changes(struct change *change)
{
    struct frame_changes frame;
    const struct frame_prefix *prefix = peer_next_answer(&reader);
    assert_non_null(prefix);
    assert_int_equal(prefix->type, FRAME_CHANGES);
    assert_true(prefix->length <= HELLO_FRAME_BYTES_MIN || prefix->small == 1);
    memcpy(&frame, reader.frame, sizeof frame);
    assert_int_equal(frame.number, 5);
    const uint8_t *at = reader.frame + sizeof frame;
    size_t left = prefix->length - sizeof frame;
    memcpy(change, at, sizeof *change);
    for (unsigned i = 0; i < prefix->small; i++) {
        size_t bytes = change_checked_bytes(at, left);
        assert_true(bytes > 0);
        at += bytes;
        left -= bytes;
    }
    assert_int_equal(left, 0);
    return prefix->small;
}

/* One change alone in its frame, with this key and value. */
static void expect_change(const char *key, const char *value)
{
    struct change change;
    assert_int_equal(expect_changes(&change), 1);
    const char *body = (const char *)reader.frame + sizeof(struct frame_changes) + sizeof change;
    assert_int_equal(change.type, value != NULL ? FRAME_UPDATE : FRAME_REMOVE);
    assert_int_equal(change.key_len, strlen(key));
    assert_memory_equal(body, key, strlen(key));
    if (value == NULL) return;
    assert_int_equal(change.length, sizeof change + strlen(key) + strlen(value));
    assert_memory_equal(body + strlen(key), value, strlen(value));
}

/* ---------------------------------------------------------------------------------- tests */

static void what_comes_from_now_on_is_sent(void **state)
{
    (void)state;
    set("a", "before");
    subscribe(all_from(STREAM_FROM_NOW), "");
    expect_event(STREAM_STARTED);
    expect_event(STREAM_LIVE);
    peer_expect_silence(&reader);
    set("a", "one");
    expect_change("a", "one");
    drop_key("a");
    expect_change("a", NULL);
    peer_expect_silence(&reader);
}

static void everything_from_the_start_is_sent_and_then_what_comes(void **state)
{
    struct change change;
    (void)state;
    for (int i = 0; i < 100; i++) set("a", "one");
    subscribe(all_from(STREAM_FROM_START), "");
    expect_event(STREAM_STARTED);
    unsigned records = 0;
    while (records < 100) {
        unsigned more = expect_changes(&change);
        assert_int_equal(change_place(&change), records + 1);
        assert_int_equal(change_offset(&change), records + 1);
        records += more;
    }
    assert_int_equal(expect_event(STREAM_LIVE).position, 101);
    set("b", "two");
    expect_change("b", "two");
}

static void only_keys_that_match_are_sent(void **state)
{
    (void)state;
    struct frame_subscribe path = all_from(STREAM_FROM_NOW);
    path.match = STREAM_MATCH_PATH;
    subscribe(path, "28");
    expect_event(STREAM_STARTED);
    expect_event(STREAM_LIVE);
    set("280", "no");
    set("2", "no");
    set("28.email", "yes");
    expect_change("28.email", "yes");
    set("28", "yes");
    expect_change("28", "yes");
    credit(0, 0, true);
    expect_ended(ERROR_NONE);
    subscribe(all_from(STREAM_FROM_NOW), "28");
    expect_event(STREAM_STARTED);
    expect_event(STREAM_LIVE);
    set("280", "now");
    expect_change("280", "now");
    set("2", "no");
    peer_expect_silence(&reader);
}

static void a_path_concerns_what_it_is_inside_of(void **state)
{
    (void)state;
    struct frame_subscribe path = all_from(STREAM_FROM_NOW);
    path.match = STREAM_MATCH_PATH;
    subscribe(path, "28.name");
    expect_event(STREAM_STARTED);
    expect_event(STREAM_LIVE);
    set("28.names", "no");
    set("28.name.first", "yes");
    expect_change("28.name.first", "yes");
    drop_key("28");
    expect_change("28", NULL);
    set("280", "no");
    peer_expect_silence(&reader);
}

/* The fold of a snapshot is the state: what was taken out of a value is not in it. */
static void a_snapshot_has_removals_inside_of_a_value(void **state)
{
    struct change change;
    (void)state;
    struct ask document = ask_update(++seq, "28", "{\"a\":1,\"b\":2}");
    document.value_type = VALUE_JSON;
    peer_ask(&writer, document);
    node_settle(&node);
    peer_expect(&writer, seq, OUTCOME_OK, ERROR_NONE);
    drop_key("28.a");
    set("29", "gone");
    drop_key("29");
    subscribe(all_from(STREAM_FROM_SNAPSHOT), "");
    expect_event(STREAM_STARTED);
    expect_event(STREAM_SNAPSHOT_BEGIN);
    assert_int_equal(expect_changes(&change), 2);
    assert_int_equal(change.type, FRAME_UPDATE);
    const uint8_t *second =
        reader.frame + sizeof(struct frame_changes) + change_padded_bytes(&change);
    memcpy(&change, second, sizeof change);
    assert_int_equal(change.type, FRAME_REMOVE);
    assert_int_equal(change.key_len, 4);
    expect_event(STREAM_SNAPSHOT_END);
}

/* What was given may be taken back before the snapshot ends; the removal is superseded soon. */
static void a_snapshot_has_removals_that_came_meanwhile(void **state)
{
    struct change change;
    (void)state;
    set("28.a", "one");
    set("28.b", "two");
    struct frame_subscribe frame = all_from(STREAM_FROM_SNAPSHOT);
    frame.credit_records = 1;
    subscribe(frame, "");
    expect_event(STREAM_STARTED);
    expect_event(STREAM_SNAPSHOT_BEGIN);
    expect_change("28.a", "one");
    drop_key("28.a");
    set("28.c", "three");
    credit(CREDIT_ALL, 2, false);
    expect_change("28.b", "two");
    credit(CREDIT_ALL, CREDIT_ALL, false);
    assert_int_equal(expect_changes(&change), 2);
    assert_int_equal(change.type, FRAME_REMOVE);
    expect_event(STREAM_SNAPSHOT_END);
}

static void no_more_is_sent_than_credit_allows(void **state)
{
    struct change change;
    (void)state;
    struct frame_subscribe frame = all_from(STREAM_FROM_START);
    frame.credit_records = 3;
    for (int i = 0; i < 10; i++) set("a", "one");
    subscribe(frame, "");
    expect_event(STREAM_STARTED);
    assert_int_equal(expect_changes(&change), 3);
    peer_expect_silence(&reader);
    credit(CREDIT_ALL, 4, false);
    assert_int_equal(expect_changes(&change), 1);
    assert_int_equal(change_place(&change), 4);
    peer_expect_silence(&reader);
    /* An older total takes nothing back. */
    credit(0, 2, false);
    peer_expect_silence(&reader);
    credit(CREDIT_ALL, CREDIT_ALL, false);
    assert_int_equal(expect_changes(&change), 6);
    expect_event(STREAM_LIVE);
}

static void the_last_record_may_go_over_a_credit_of_bytes(void **state)
{
    struct change change;
    (void)state;
    struct frame_subscribe frame = all_from(STREAM_FROM_START);
    frame.credit_bytes = 65;
    for (int i = 0; i < 10; i++) set("a", "one"); /* 64 bytes each, with padding */
    subscribe(frame, "");
    expect_event(STREAM_STARTED);
    assert_int_equal(expect_changes(&change), 1);
    assert_int_equal(expect_changes(&change), 1);
    peer_expect_silence(&reader);
    credit(128, CREDIT_ALL, false);
    peer_expect_silence(&reader);
    credit(129, CREDIT_ALL, false);
    assert_int_equal(expect_changes(&change), 1);
    assert_int_equal(change_place(&change), 3);
    peer_expect_silence(&reader);
}

static void a_stream_goes_on_where_another_one_stood(void **state)
{
    struct change change;
    (void)state;
    for (int i = 0; i < 10; i++) set("a", "one");
    struct frame_subscribe frame = all_from(STREAM_FROM_POSITION);
    frame.owner = node.options.node;
    frame.at = 8;
    frame.prefix.flags = SUBSCRIBE_UNTIL_LIVE;
    subscribe(frame, "");
    expect_event(STREAM_STARTED);
    assert_int_equal(expect_changes(&change), 3);
    assert_int_equal(change_place(&change), 8);
    expect_event(STREAM_LIVE);
    expect_ended(ERROR_NONE);
    /* Of another node, or one that is not yet: nobody knows what it means. */
    frame.owner++;
    subscribe(frame, "");
    expect_event(STREAM_TRIMMED);
    expect_event(STREAM_SNAPSHOT_BEGIN);
    assert_int_equal(expect_changes(&change), 1);
    assert_int_equal(change_place(&change), 10);
    expect_event(STREAM_SNAPSHOT_END);
    expect_event(STREAM_LIVE);
    expect_ended(ERROR_NONE);
    frame.owner--;
    frame.at = 12;
    subscribe(frame, "");
    expect_event(STREAM_TRIMMED);
}

static void an_offset_is_where_a_partition_begins_to_be_read(void **state)
{
    struct change change;
    (void)state;
    for (int i = 0; i < 10; i++) set("28", "one");
    struct frame_subscribe frame = all_from(STREAM_FROM_OFFSET);
    frame.match = STREAM_MATCH_PATH;
    frame.at = 9;
    subscribe(frame, "28");
    expect_event(STREAM_STARTED);
    assert_int_equal(expect_changes(&change), 2);
    assert_int_equal(change_offset(&change), 9);
    expect_event(STREAM_LIVE);
    credit(0, 0, true);
    expect_ended(ERROR_NONE);
    /* One that is to come. */
    frame.at = 12;
    subscribe(frame, "28");
    expect_event(STREAM_STARTED);
    expect_event(STREAM_LIVE);
    set("28", "eleven");
    peer_expect_silence(&reader);
    set("28", "twelve");
    expect_change("28", "twelve");
}

static void what_cannot_be_had_ends_with_an_error(void **state)
{
    (void)state;
    char key[NODE_KEY_BYTES + 101];
    struct frame_subscribe frame = all_from(STREAM_FROM_NOW);
    frame.cache = 1;
    subscribe(frame, "");
    expect_ended(ERROR_NOT_FOUND);
    memset(key, 'k', 101);
    key[101] = 0;
    subscribe(all_from(STREAM_FROM_NOW), key);
    expect_ended(ERROR_TOO_BIG);
    frame = all_from(STREAM_FROM_NOW);
    frame.shard = 1;
    subscribe(frame, "");
    expect_ended(ERROR_NOT_OWNER);
    frame = all_from(STREAM_FROM_OFFSET);
    subscribe(frame, "28");
    expect_ended(ERROR_INVALID);
    /* The link goes on. */
    subscribe(all_from(STREAM_FROM_NOW), "");
    expect_event(STREAM_STARTED);
    expect_event(STREAM_LIVE);
    subscribe(all_from(STREAM_FROM_NOW), "");
    expect_ended(ERROR_INVALID);
}

static void a_link_has_so_many_subscriptions(void **state)
{
    (void)state;
    struct frame_subscribe frame = all_from(STREAM_FROM_NOW);
    for (uint32_t i = 0; i < node.options.subscriptions_max; i++) {
        frame.number = 100 + i;
        subscribe(frame, "");
        assert_int_equal(peer_next_answer(&reader)->type, FRAME_EVENT);
        assert_int_equal(peer_next_answer(&reader)->type, FRAME_EVENT);
    }
    assert_int_equal(node.shards[0]->counters.subscriptions, node.options.subscriptions_max);
    subscribe(all_from(STREAM_FROM_NOW), "");
    expect_ended(ERROR_BUSY);
    peer_hang_up(&reader);
    node_settle(&node);
    assert_int_equal(node.shards[0]->counters.subscriptions, 0);
}

static void a_broken_frame_is_refused(void **state)
{
    (void)state;
    uint8_t data[64];
    struct frame_subscribe frame = all_from(STREAM_FROM_NOW);
    size_t bytes = subscribe_encode(&frame, bytes_of(""), data);
    data[14] = 99;
    peer_send(&reader, data, bytes);
    node_settle(&node);
    peer_expect_refuse(&reader, ERROR_PROTOCOL, 99, STREAM_FROM_COUNT - 1, "from");
}

static void a_frame_may_come_byte_by_byte(void **state)
{
    (void)state;
    uint8_t data[64];
    struct frame_subscribe frame = all_from(STREAM_FROM_NOW);
    size_t bytes = subscribe_encode(&frame, bytes_of("abc"), data);
    for (size_t i = 0; i < bytes; i++) {
        peer_expect_silence(&reader);
        peer_send(&reader, data + i, 1);
        node_settle(&node);
    }
    expect_event(STREAM_STARTED);
}

static void credit_for_nothing_is_ignored(void **state)
{
    (void)state;
    credit(100, 100, false);
    credit(100, 100, true);
    peer_expect_silence(&reader);
}

/* Overwrites `keys` keys until far more was logged than is kept. */
static void churn(unsigned keys, unsigned rounds)
{
    char value[4000];
    char key[32];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = 0;
    for (unsigned i = 0; i < keys * rounds; i++) {
        snprintf(key, sizeof key, "key%u", i % keys);
        set(key, value);
    }
}

static void what_is_not_kept_is_replaced_by_the_state(void **state)
{
    struct change change;
    (void)state;
    churn(20, 300);
    set("last", "one");
    drop_key("key7");
    struct frame_subscribe frame = all_from(STREAM_FROM_START);
    frame.prefix.flags = SUBSCRIBE_UNTIL_LIVE;
    subscribe(frame, "");
    expect_event(STREAM_TRIMMED);
    expect_event(STREAM_SNAPSHOT_BEGIN);
    unsigned records = 0;
    uint64_t hlc = 0;
    while (records < 20) {
        records += expect_changes(&change);
        assert_true(change.hlc > hlc);
        hlc = change.hlc;
    }
    assert_int_equal(records, 20); /* 20 keys and "last", without the removed one */
    expect_event(STREAM_SNAPSHOT_END);
    expect_event(STREAM_LIVE);
    expect_ended(ERROR_NONE);
}

/* Trimmed, the state has what was changed last before the offset, too. */
static void a_state_has_no_lowest_offset(void **state)
{
    struct change change;
    (void)state;
    set("28.old", "one");
    for (unsigned i = 0; i < 10; i++) set("28.new", "two");
    churn(20, 300);
    struct frame_subscribe frame = all_from(STREAM_FROM_OFFSET);
    frame.match = STREAM_MATCH_PATH;
    frame.at = 5;
    subscribe(frame, "28");
    expect_event(STREAM_TRIMMED);
    expect_event(STREAM_SNAPSHOT_BEGIN);
    assert_int_equal(expect_changes(&change), 2);
    assert_int_equal(change_offset(&change), 1);
    expect_event(STREAM_SNAPSHOT_END);
}

static void whoever_does_not_read_is_told_of_the_gap_when_he_does(void **state)
{
    struct change change;
    (void)state;
    struct frame_subscribe frame = all_from(STREAM_FROM_NOW);
    frame.credit_records = 2;
    subscribe(frame, "");
    expect_event(STREAM_STARTED);
    expect_event(STREAM_LIVE);
    churn(20, 300);
    /* What he may have, and no more; the log did not wait for him. */
    assert_int_equal(expect_changes(&change), 1);
    assert_int_equal(expect_changes(&change), 1);
    peer_expect_silence(&reader);
    assert_true(segments_bytes(&node.shards[0]->segments) < 20 * MIB);
    credit(CREDIT_ALL, CREDIT_ALL, false);
    unsigned before = 0;
    const struct frame_prefix *prefix = peer_next_answer(&reader);
    /* The segment where he stood was kept for him. */
    for (; prefix != NULL && prefix->type == FRAME_CHANGES; prefix = peer_next_answer(&reader)) {
        before += prefix->small;
        node_settle(&node);
    }
    assert_non_null(prefix);
    struct frame_event event;
    memcpy(&event, reader.frame, sizeof event);
    assert_int_equal(event.event, STREAM_GAP);
    assert_in_range(before, 0, 600);
    expect_event(STREAM_SNAPSHOT_BEGIN);
    unsigned records = 0;
    while (records < 20) {
        records += expect_changes(&change);
        node_settle(&node);
    }
    assert_int_equal(records, 20);
    expect_event(STREAM_SNAPSHOT_END);
    expect_event(STREAM_LIVE);
    set("key0", "now");
    expect_change("key0", "now");
}

static void what_was_taken_back_is_said_and_the_state_follows(void **state)
{
    (void)state;
    struct store *store = &node.shards[0]->caches[0]->store;
    set("a", "kept");
    subscribe(all_from(STREAM_FROM_NOW), "");
    expect_event(STREAM_STARTED);
    expect_event(STREAM_LIVE);
    set("a", "gone");
    expect_change("a", "gone");
    uint16_t slot = slot_of_key("a", 1);
    assert_int_equal(store_truncate(store, slot, 1), 0);
    set("b", "new");
    struct frame_event event = expect_event(STREAM_TRUNCATED);
    assert_int_equal(event.slot, slot);
    assert_int_equal(event.place, 1);
    expect_event(STREAM_SNAPSHOT_BEGIN);
    struct change change;
    assert_int_equal(expect_changes(&change), 2);
    assert_int_equal(change_offset(&change), 1);
    expect_event(STREAM_SNAPSHOT_END);
    expect_event(STREAM_LIVE);
    set("a", "again");
    expect_change("a", "again");
}

static void whoever_takes_only_short_frames_gets_no_long_record(void **state)
{
    (void)state;
    struct frame_hello hello = hello_any();
    hello.frame_bytes_max = 4096;
    hello.session = 0x33;
    hello.session_start = 1;
    peer_free(&reader);
    reader = peer_greeted_as(&node, 0, hello);
    subscribe(all_from(STREAM_FROM_NOW), "");
    expect_event(STREAM_STARTED);
    expect_event(STREAM_LIVE);
    char value[5000];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = 0;
    set("a", value);
    expect_ended(ERROR_TOO_BIG);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_one, close_node)
#define TEST_FORGETFUL(name) cmocka_unit_test_setup_teardown(name, open_forgetful, close_node)
    const struct CMUnitTest tests[] = {
        TEST(what_comes_from_now_on_is_sent),
        TEST(everything_from_the_start_is_sent_and_then_what_comes),
        TEST(only_keys_that_match_are_sent),
        TEST(a_path_concerns_what_it_is_inside_of),
        TEST(a_snapshot_has_removals_inside_of_a_value),
        TEST(a_snapshot_has_removals_that_came_meanwhile),
        TEST(no_more_is_sent_than_credit_allows),
        TEST(the_last_record_may_go_over_a_credit_of_bytes),
        TEST(a_stream_goes_on_where_another_one_stood),
        TEST(an_offset_is_where_a_partition_begins_to_be_read),
        TEST(what_cannot_be_had_ends_with_an_error),
        TEST(a_link_has_so_many_subscriptions),
        TEST(a_broken_frame_is_refused),
        TEST(a_frame_may_come_byte_by_byte),
        TEST(credit_for_nothing_is_ignored),
        TEST_FORGETFUL(what_is_not_kept_is_replaced_by_the_state),
        TEST_FORGETFUL(a_state_has_no_lowest_offset),
        TEST_FORGETFUL(whoever_does_not_read_is_told_of_the_gap_when_he_does),
        TEST(what_was_taken_back_is_said_and_the_state_follows),
        TEST(whoever_takes_only_short_frames_gets_no_long_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
