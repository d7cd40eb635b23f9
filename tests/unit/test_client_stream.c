/*
 * A client's streams and a node that is played by the test: what is asked for, what is shown, how a
 * stream goes on after a lost link, and what a node must not send. Time is virtual.
 */
#include "engine/stream.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "engine/client.h"
#include "log/change.h"
#include "tests/support/fake_io.h"
#include "wire/stream.h"

#define NODE 0xd0e
#define SAID_MAX 64
#define RECORD_BYTES 64

static struct {
    struct fake_io *fake;
    struct client *client;
    fero_cache *cache;
    fero_stream *stream;
    unsigned dialled;
    uint32_t conn; /* the newest connection */
    uint64_t node;
    /* What the client sent, newest last. */
    struct frame_subscribe asked[SAID_MAX];
    char prefix[64];
    unsigned asked_count;
    struct frame_credit credits[SAID_MAX];
    unsigned credits_count;
    /* What it showed. */
    char keys[SAID_MAX][16];
    fero_change changes[SAID_MAX];
    unsigned changes_count;
    fero_stream_event events[SAID_MAX];
    unsigned events_count;
    bool stops; /* the stream, in its first change */
    bool frees;
} play;

/* ------------------------------------------------------------------------------ the node */

static void say(const void *data, size_t bytes)
{
    fake_io_receive(play.fake, play.conn, data, bytes);
}

static void say_welcome(void)
{
    uint8_t data[256];
    const uint16_t first_slots[] = {0};
    struct frame_welcome welcome = {.cluster = 1,
                                    .node = play.node,
                                    .view = 1,
                                    .incarnation = 1,
                                    .shards_count = 1,
                                    .slots_count = SLOTS_COUNT,
                                    .window_requests = 100,
                                    .window_bytes = 1 << 20,
                                    .frame_bytes_max = 1 << 20,
                                    .key_bytes_max = 100,
                                    .value_bytes_max = 100000};
    say(data, welcome_encode(&welcome, first_slots, data));
}

static void say_opened(uint32_t seq)
{
    uint8_t data[64];
    struct frame_opened opened = {.seq = seq, .cache = 3, .slots_count = SLOTS_COUNT};
    say(data, opened_encode(&opened, (struct bytes){NULL, 0}, data));
}

static void take_frame(const uint8_t *frame, size_t length)
{
    struct refusal refusal;
    struct bytes bytes;
    struct frame_open open;
    switch (frame[4]) {
    case FRAME_HELLO: say_welcome(); break;
    case FRAME_OPEN:
        assert_int_equal(open_decode(&open, &bytes, frame, length, &refusal), 0);
        say_opened(open.seq);
        break;
    case FRAME_SUBSCRIBE:
        assert_true(play.asked_count < SAID_MAX);
        assert_int_equal(
            subscribe_decode(&play.asked[play.asked_count++], &bytes, frame, length, &refusal), 0);
        snprintf(play.prefix, sizeof play.prefix, "%.*s", (int)bytes.size,
                 bytes.size > 0 ? (const char *)bytes.data : "");
        break;
    case FRAME_CREDIT:
        assert_true(play.credits_count < SAID_MAX);
        assert_int_equal(
            credit_decode(&play.credits[play.credits_count++], frame, length, &refusal), 0);
        break;
    default: fail_msg("a frame of type %u", frame[4]);
    }
}

/* A fake_io_fn: the node's turn. */
static void act(struct fake_io *fake, void *context)
{
    size_t bytes;
    size_t at = 0;
    (void)context;
    for (; play.dialled < fake_io_connects_count(fake); play.dialled++) {
        if (!fake_io_connect_waits(fake, play.dialled)) continue;
        play.conn = fake_io_connect_conn(fake, play.dialled);
        fake_io_connected(fake, play.conn);
    }
    if (play.dialled == 0 || !fake_io_is_up(fake, play.conn)) return;
    const uint8_t *sent = fake_io_sent(fake, play.conn, &bytes);
    while (bytes - at >= FRAME_PREFIX_BYTES) {
        uint32_t length;
        memcpy(&length, sent + at, sizeof length);
        if (round_up_8(length) > bytes - at) break;
        take_frame(sent + at, length);
        at += round_up_8(length);
    }
    fake_io_consume(fake, play.conn, at);
}

/* ------------------------------------------------------------------------------ the client */

static void on_change(const fero_change *change, void *ud)
{
    assert_ptr_equal(ud, &play);
    assert_true(play.changes_count < SAID_MAX);
    play.changes[play.changes_count] = *change;
    snprintf(play.keys[play.changes_count++], 16, "%.*s", (int)change->key.len,
             (const char *)change->key.ptr);
    if (play.stops) fero_stream_stop(play.stream);
    if (play.frees) fero_stream_free(play.stream);
    if (play.frees) play.stream = NULL;
}

static void on_event(const fero_stream_event *event, void *ud)
{
    assert_ptr_equal(ud, &play);
    assert_true(play.events_count < SAID_MAX);
    play.events[play.events_count++] = *event;
}

static fero_stream_opts opts_from(int32_t from)
{
    return (fero_stream_opts){.size = sizeof(fero_stream_opts),
                              .from = from,
                              .credit_bytes = 1000,
                              .change = on_change,
                              .event = on_event,
                              .ud = &play};
}

static void turns(void)
{
    for (int i = 0; i < 10; i++) client_run(play.client, 10);
}

static void subscribe(fero_stream_opts opts)
{
    assert_int_equal(fero_subscribe(play.cache, &opts, &play.stream), 0);
    turns();
}

static void begin(struct client_seams seams)
{
    const fero_runtime_opts runtime_opts = {.idle = FERO_IDLE_SLEEP};
    assert_int_equal(client_start_on(&runtime_opts, &seams, &play.client), 0);
    fero_opts opts = {.size = sizeof opts, .timeout_ms = 3000};
    if (client_open(play.client, "demo", &opts, &play.cache) != 0) fail_msg("%s", fero_errmsg());
}

static int setup(void **unused)
{
    (void)unused;
    memset(&play, 0, sizeof play);
    play.fake = fake_io_make();
    play.node = NODE;
    fake_io_on_wait(play.fake, act, NULL);
    begin((struct client_seams){.io = fake_io_base(play.fake),
                                .now_ns = fake_io_now_ns,
                                .context = play.fake,
                                .session = 1,
                                .seq_first = 1});
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    assert_int_equal(client_stop(play.client, 0), 0);
    fero_stream_free(play.stream);
    return 0;
}

/* ---------------------------------------------------------------------------- what it says */

static uint32_t number(void)
{
    return play.asked[play.asked_count - 1].number;
}

static void say_event_of(uint32_t stream, enum stream_event event, uint64_t position)
{
    uint8_t data[64];
    struct frame_event frame = {.number = stream, .event = (uint8_t)event, .position = position};
    say(data, event_encode(&frame, 0, data));
    turns();
}

static void say_event(enum stream_event event, uint64_t position)
{
    say_event_of(number(), event, position);
}

/* A record of RECORD_BYTES: key of 2 bytes, value of 6. */
static void put_record(uint8_t *to, const char *key, uint64_t offset)
{
    struct change change = {.length = RECORD_BYTES,
                            .type = FRAME_UPDATE,
                            .flags = VALUE_BYTES,
                            .key_len = 2,
                            .offset_and_floor = offset,
                            .hlc = (uint64_t)1700000000123 << 16};
    memcpy(to, &change, sizeof change);
    memcpy(to + sizeof change, key, 2);
    memcpy(to + sizeof change + 2, "values", 6);
}

static size_t put_changes(uint8_t *to, uint32_t stream, unsigned count, uint64_t position)
{
    struct frame_changes frame = {.number = stream, .position = position};
    size_t at = changes_encode(&frame, count, count * RECORD_BYTES, to);
    for (unsigned i = 0; i < count; i++, at += RECORD_BYTES) put_record(to + at, "k1", 7 + i);
    return at;
}

static void say_changes(unsigned count, uint64_t position)
{
    uint8_t data[4096];
    say(data, put_changes(data, number(), count, position));
    turns();
}

static int32_t last_event(void)
{
    return play.events_count > 0 ? play.events[play.events_count - 1].type : 0;
}

/* ---------------------------------------------------------------------------------- tests */

static void a_subscription_says_what_was_asked_for(void **unused)
{
    (void)unused;
    fero_stream_opts opts = opts_from(FERO_FROM_OFFSET);
    opts.prefix = fero_str("28.email");
    opts.offset = 17;
    opts.until_live = 1;
    subscribe(opts);
    assert_int_equal(play.asked_count, 1);
    assert_int_equal(play.asked[0].from, STREAM_FROM_OFFSET);
    assert_int_equal(play.asked[0].at, 17);
    assert_int_equal(play.asked[0].match, STREAM_MATCH_PATH);
    assert_int_equal(play.asked[0].cache, 3);
    assert_int_equal(play.asked[0].shard, 0);
    assert_int_equal(play.asked[0].credit_bytes, 1000);
    assert_int_equal(play.asked[0].prefix.flags, SUBSCRIBE_UNTIL_LIVE);
    assert_string_equal(play.prefix, "28.email");
}

static void changes_and_events_are_shown(void **unused)
{
    (void)unused;
    subscribe(opts_from(FERO_FROM_NOW));
    say_event(STREAM_STARTED, 5);
    say_changes(2, 7);
    say_event(STREAM_LIVE, 7);
    assert_int_equal(play.changes_count, 2);
    assert_string_equal(play.keys[0], "k1");
    assert_int_equal(play.changes[1].type, FERO_CHANGE_UPDATE);
    assert_int_equal(play.changes[1].offset, 8);
    assert_int_equal(play.changes[1].time_ms, 1700000000123);
    assert_int_equal(play.changes[1].value.type, FERO_T_BYTES);
    assert_int_equal(play.changes[1].value.s.len, 6);
    assert_int_equal(play.events_count, 2);
    assert_int_equal(play.events[0].type, FERO_STREAM_STARTED);
    assert_int_equal(play.events[1].type, FERO_STREAM_LIVE);
    assert_true(play.events[1].is_all);
}

static void credit_is_given_when_half_of_it_is_taken(void **unused)
{
    (void)unused;
    subscribe(opts_from(FERO_FROM_NOW));
    say_event(STREAM_STARTED, 5);
    say_changes(7, 12);
    assert_int_equal(play.credits_count, 0);
    say_changes(1, 13);
    assert_int_equal(play.credits_count, 1);
    assert_int_equal(play.credits[0].credit_bytes, 8 * RECORD_BYTES + 1000);
    assert_int_equal(play.credits[0].credit_records, CREDIT_ALL);
}

static void a_paused_stream_gives_no_credit(void **unused)
{
    (void)unused;
    subscribe(opts_from(FERO_FROM_NOW));
    say_event(STREAM_STARTED, 5);
    fero_stream_pause(play.stream);
    say_changes(15, 20);
    assert_int_equal(play.credits_count, 0);
    assert_int_equal(play.changes_count, 15);
    fero_stream_resume(play.stream);
    turns();
    assert_int_equal(play.credits_count, 1);
    assert_int_equal(play.credits[0].credit_bytes, 15 * RECORD_BYTES + 1000);
}

static void a_lost_stream_goes_on_where_it_stood(void **unused)
{
    (void)unused;
    subscribe(opts_from(FERO_FROM_NOW));
    say_event(STREAM_STARTED, 5);
    say_changes(2, 7);
    fake_io_hang_up(play.fake, play.conn, 0);
    turns();
    assert_int_equal(play.events[1].type, FERO_STREAM_LOST);
    for (int i = 0; i < 100 && play.asked_count < 2; i++) client_run(play.client, 1000);
    assert_int_equal(play.asked_count, 2);
    assert_int_equal(play.asked[1].from, STREAM_FROM_POSITION);
    assert_int_equal(play.asked[1].at, 7);
    assert_int_equal(play.asked[1].owner, NODE);
    say_event(STREAM_STARTED, 7);
    assert_int_equal(last_event(), FERO_STREAM_RESUMED);
    say_changes(1, 8);
    assert_int_equal(play.changes_count, 3);
}

/* The node hears where it stood, and not of the offset that it was to begin with. */
static void a_lost_stream_still_begins_at_its_offset(void **unused)
{
    (void)unused;
    fero_stream_opts opts = opts_from(FERO_FROM_OFFSET);
    opts.prefix = fero_str("k1");
    opts.offset = 9;
    subscribe(opts);
    say_event(STREAM_STARTED, 5);
    fake_io_hang_up(play.fake, play.conn, 0);
    for (int i = 0; i < 100 && play.asked_count < 2; i++) client_run(play.client, 1000);
    assert_int_equal(play.asked[1].from, STREAM_FROM_POSITION);
    say_event(STREAM_STARTED, 5);
    say_changes(3, 8);
    assert_int_equal(play.changes_count, 1);
    assert_int_equal(play.changes[0].offset, 9);
    /* Removed and forgotten, the partition begins anew. */
    say_changes(1, 9);
    assert_int_equal(play.changes_count, 2);
    assert_int_equal(play.changes[1].offset, 7);
}

static void a_snapshot_that_was_cut_off_is_asked_for_again(void **unused)
{
    (void)unused;
    subscribe(opts_from(FERO_FROM_START));
    say_event(STREAM_TRIMMED, 0);
    say_event(STREAM_SNAPSHOT_BEGIN, 0);
    say_changes(2, 0);
    fake_io_hang_up(play.fake, play.conn, -ECONNRESET);
    for (int i = 0; i < 100 && play.asked_count < 2; i++) client_run(play.client, 1000);
    assert_int_equal(play.asked_count, 2);
    assert_int_equal(play.asked[1].from, STREAM_FROM_SNAPSHOT);
}

/* After the last of these events, whose snapshot did not come any more. */
static void expect_snapshot_asked_for_again(int from, const uint8_t *events, size_t count)
{
    subscribe(opts_from(from));
    for (size_t i = 0; i < count; i++) say_event(events[i], 5);
    fake_io_hang_up(play.fake, play.conn, 0);
    for (int i = 0; i < 100 && play.asked_count < 2; i++) client_run(play.client, 1000);
    assert_int_equal(play.asked_count, 2);
    assert_int_equal(play.asked[1].from, STREAM_FROM_SNAPSHOT);
}

static void so_is_one_that_was_asked_for_and_did_not_come(void **unused)
{
    (void)unused;
    const uint8_t events[] = {STREAM_STARTED};
    expect_snapshot_asked_for_again(FERO_FROM_SNAPSHOT, events, 1);
}

static void and_one_that_was_to_follow_what_is_trimmed(void **unused)
{
    (void)unused;
    const uint8_t events[] = {STREAM_TRIMMED};
    expect_snapshot_asked_for_again(FERO_FROM_START, events, 1);
}

static void and_one_that_was_to_follow_a_gap(void **unused)
{
    (void)unused;
    const uint8_t events[] = {STREAM_STARTED, STREAM_LIVE, STREAM_GAP};
    expect_snapshot_asked_for_again(FERO_FROM_NOW, events, 3);
}

static void what_never_began_is_asked_for_as_it_was(void **unused)
{
    (void)unused;
    subscribe(opts_from(FERO_FROM_OLDEST));
    fake_io_hang_up(play.fake, play.conn, 0);
    for (int i = 0; i < 100 && play.asked_count < 2; i++) client_run(play.client, 1000);
    assert_int_equal(play.asked_count, 2);
    assert_int_equal(play.asked[1].from, STREAM_FROM_OLDEST);
}

static void a_stopped_stream_hears_nothing_more(void **unused)
{
    (void)unused;
    play.stops = true;
    subscribe(opts_from(FERO_FROM_NOW));
    say_event(STREAM_STARTED, 5);
    say_changes(3, 8);
    assert_int_equal(play.changes_count, 1);
    assert_int_equal(play.credits_count, 1);
    assert_int_equal(play.credits[0].prefix.flags, CREDIT_END);
    say_changes(3, 11);
    say_event(STREAM_ENDED, 11);
    assert_int_equal(play.changes_count, 1);
    assert_int_equal(play.events_count, 1);
}

static void a_callback_may_free_its_stream(void **unused)
{
    (void)unused;
    play.frees = true;
    subscribe(opts_from(FERO_FROM_NOW));
    say_event(STREAM_STARTED, 5);
    say_changes(3, 8);
    assert_int_equal(play.changes_count, 1);
    assert_true(fake_io_is_up(play.fake, play.conn));
}

static void streams_end_with_their_cache_and_are_still_freed(void **unused)
{
    (void)unused;
    subscribe(opts_from(FERO_FROM_NOW));
    say_event(STREAM_STARTED, 5);
    assert_int_equal(client_close((struct client_cache *)play.cache), 0);
    fero_stream_pause(play.stream);
    fero_stream_resume(play.stream);
    fero_stream_stop(play.stream);
    assert_null(play.client->streams);
}

static void wrong_options_are_refused(void **unused)
{
    (void)unused;
    fero_stream_opts opts = opts_from(5);
    assert_int_equal(fero_subscribe(play.cache, &opts, &play.stream), FERO_E_INVAL);
    opts = opts_from(FERO_FROM_OFFSET);
    assert_int_equal(fero_subscribe(play.cache, &opts, &play.stream), FERO_E_INVAL);
    assert_non_null(strstr(fero_errmsg(), "partition"));
    opts = opts_from(FERO_FROM_NOW);
    opts.match = 2;
    assert_int_equal(fero_subscribe(play.cache, &opts, &play.stream), FERO_E_INVAL);
    opts = opts_from(FERO_FROM_NOW);
    opts.credit_bytes = -1;
    assert_int_equal(fero_subscribe(play.cache, &opts, &play.stream), FERO_E_INVAL);
    char longest[102];
    memset(longest, 'k', 101);
    longest[101] = 0;
    opts = opts_from(FERO_FROM_NOW);
    opts.prefix = fero_str(longest);
    assert_int_equal(fero_subscribe(play.cache, &opts, &play.stream), FERO_E_TOOBIG);
    assert_int_equal(fero_subscribe(NULL, &opts, &play.stream), FERO_E_INVAL);
    assert_null(play.stream);
}

static void a_path_that_no_key_can_have_is_refused(void **unused)
{
    (void)unused;
    static const char *const paths[] = {"a..b", ".a", "a.", ".", "a.\xff"};
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++) {
        fero_stream_opts opts = opts_from(FERO_FROM_NOW);
        opts.prefix = fero_str(paths[i]);
        assert_int_equal(fero_subscribe(play.cache, &opts, &play.stream), FERO_E_INVAL);
        assert_non_null(strstr(fero_errmsg(), "part"));
        assert_null(play.stream);
    }
}

/* Keys that begin with a\.b are those of many partitions; the first part of those with a.b is a. */
static void only_a_dot_that_separates_ends_a_partition(void **unused)
{
    (void)unused;
    const struct {
        const char *prefix;
        int32_t match;
        bool has_partition;
    } cases[] = {{"", FERO_MATCH_PATH, false},         {"a", FERO_MATCH_PATH, true},
                 {"a", FERO_MATCH_PREFIX, false},      {"a.b", FERO_MATCH_PREFIX, true},
                 {"a\\.b", FERO_MATCH_PREFIX, false},  {"a.", FERO_MATCH_PREFIX, true},
                 {"a\\.b.c", FERO_MATCH_PREFIX, true}, {"a\\\\.b", FERO_MATCH_PREFIX, true}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        fero_stream_opts opts = opts_from(FERO_FROM_NOW);
        opts.prefix = fero_str(cases[i].prefix);
        opts.match = cases[i].match;
        assert_int_equal(stream_has_partition(&opts), cases[i].has_partition);
    }
}

/* Whatever the node must not send ends the link, and never more than that. */
static void expect_closed(const void *data, size_t bytes)
{
    unsigned dialled = play.dialled;
    unsigned asked = play.asked_count;
    say(data, bytes);
    client_run(play.client, 0);
    assert_false(fake_io_is_up(play.fake, play.conn));
    for (int i = 0; i < 100 && play.asked_count == asked; i++) client_run(play.client, 60000);
    assert_true(play.dialled > dialled);
    say_event(STREAM_STARTED, 5);
}

static void what_a_node_must_not_send_ends_the_link(void **unused)
{
    (void)unused;
    static const struct {
        size_t at;
        uint8_t value;
    } wrong[] = {{24, 65},                        /* length of the record */
                 {24, 0},   {27, 0x80}, {28, 18}, /* its type */
                 {28, 0},   {29, 9},              /* a type of value that there is not */
                 {29, 7},                         /* an int64 of 6 bytes */
                 {30, 0},                         /* no key */
                 {30, 200}, {6, 2},               /* more records than there are */
                 {5, 1},    {12, 1}};
    uint8_t data[256];
    subscribe(opts_from(FERO_FROM_NOW));
    /* Before the node said that it begins. */
    expect_closed(data, put_changes(data, number(), 1, 6));
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        size_t bytes = put_changes(data, number(), 1, 6);
        assert_int_not_equal(data[wrong[i].at], wrong[i].value);
        data[wrong[i].at] = wrong[i].value;
        expect_closed(data, bytes);
    }
    struct frame_event event = {.number = number(), .event = STREAM_EVENTS_END};
    expect_closed(data, event_encode(&event, 0, data));
    /* Of a stream that there is not: one may have been stopped. */
    say_event_of(number() + 1, STREAM_LIVE, 5);
    say(data, put_changes(data, number() + 1, 1, 6));
    turns();
    assert_true(fake_io_is_up(play.fake, play.conn));
}

static void frames_may_come_in_any_pieces(void **unused)
{
    (void)unused;
    uint8_t data[256];
    subscribe(opts_from(FERO_FROM_NOW));
    say_event(STREAM_STARTED, 5);
    size_t bytes = put_changes(data, number(), 2, 7);
    for (size_t cut = 1; cut < bytes; cut++) {
        play.changes_count = 0;
        say(data, cut);
        client_run(play.client, 0);
        assert_int_equal(play.changes_count, 0);
        say(data + cut, bytes - cut);
        client_run(play.client, 0);
        assert_int_equal(play.changes_count, 2);
        play.credits_count = 0;
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_subscription_says_what_was_asked_for),
        TEST(changes_and_events_are_shown),
        TEST(credit_is_given_when_half_of_it_is_taken),
        TEST(a_paused_stream_gives_no_credit),
        TEST(a_lost_stream_goes_on_where_it_stood),
        TEST(a_lost_stream_still_begins_at_its_offset),
        TEST(a_snapshot_that_was_cut_off_is_asked_for_again),
        TEST(so_is_one_that_was_asked_for_and_did_not_come),
        TEST(and_one_that_was_to_follow_what_is_trimmed),
        TEST(and_one_that_was_to_follow_a_gap),
        TEST(what_never_began_is_asked_for_as_it_was),
        TEST(a_stopped_stream_hears_nothing_more),
        TEST(a_callback_may_free_its_stream),
        TEST(streams_end_with_their_cache_and_are_still_freed),
        TEST(wrong_options_are_refused),
        TEST(a_path_that_no_key_can_have_is_refused),
        TEST(only_a_dot_that_separates_ends_a_partition),
        TEST(what_a_node_must_not_send_ends_the_link),
        TEST(frames_may_come_in_any_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
