/*
 * A client and a node that is played by the test: it hears what the client sends, byte for byte,
 * and answers what it likes. Time is virtual.
 */
#include "engine/client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/error.h"
#include "tests/support/fake_io.h"
#include "tests/support/node.h" /* its streams */

#define SESSION 0x5e5510
#define LINKS_MAX 8
#define TAKEN_MAX 20000

/* One connection, as the node sees it. */
struct line {
    uint32_t conn;
    uint16_t shard;
    struct frame_hello hello;
    uint32_t requests;
    uint64_t consumed_bytes;
    uint32_t seq_last;
};

struct taken {
    uint32_t line;
    struct frame_request header;
    char key[16];
    uint32_t deadline_ms; /* 0: none */
};

/* What the node does by itself; the rest is up to the test. */
static struct {
    struct fake_io *fake;
    struct client *client;
    fero_cache *cache;
    unsigned dialled; /* connects that were looked at */
    uint16_t shards_count;
    uint16_t cache_number;
    uint32_t window_requests;
    uint64_t window_bytes;
    uint32_t frame_bytes_max;
    uint16_t opened_code;
    bool refuses_connects;
    unsigned refused_connect; /* only this one, from 1 on; 0: none */
    bool holds_opened;        /* of line 0, until that one was refused */
    uint32_t held_seq;        /* of its OPEN, and 1 */
    uint32_t late_seq;        /* of an OPEN, and 1: answered before the next one is, */
    uint16_t late_number;     /* with this number */
    uint32_t open_seq;        /* of the last OPEN */
    bool is_mute;             /* says nothing to HELLO */
    bool answers;             /* every request, at once, with the next offset */
    bool acks;                /* what it took, once a look */
    uint32_t offset;
    struct line lines[LINKS_MAX];
    uint32_t lines_count;
    struct taken taken[TAKEN_MAX];
    uint32_t taken_count;
} play;

/* ------------------------------------------------------------------------------ the node */

static void say(uint32_t line, const void *data, size_t bytes)
{
    fake_io_receive(play.fake, play.lines[line].conn, data, bytes);
}

static void say_welcome(uint32_t line)
{
    uint8_t frame[sizeof(struct frame_welcome) + 2 * LINKS_MAX + 8];
    uint16_t first_slots[LINKS_MAX];
    for (uint32_t i = 0; i < play.shards_count; i++)
        first_slots[i] = (uint16_t)(i * SLOTS_COUNT / play.shards_count);
    struct frame_welcome welcome = {.cluster = 1,
                                    .node = 2,
                                    .view = 1,
                                    .view_proposer = 2,
                                    .incarnation = 1,
                                    .shard = play.lines[line].shard,
                                    .shards_count = play.shards_count,
                                    .slots_count = SLOTS_COUNT,
                                    .window_requests = play.window_requests,
                                    .window_bytes = play.window_bytes,
                                    .frame_bytes_max = play.frame_bytes_max,
                                    .key_bytes_max = 100,
                                    .value_bytes_max = 100000};
    say(line, frame, welcome_encode(&welcome, first_slots, frame));
}

static void say_opened(uint32_t line, uint32_t seq)
{
    uint8_t frame[sizeof(struct frame_opened) + 32];
    static const uint8_t verbs[] = {64, 4, 'e', 'c', 'h', 'o', 70, 3, 'p', 'o', 'p'};
    struct frame_opened opened = {.prefix.small = play.opened_code,
                                  .seq = seq,
                                  .cache = play.cache_number,
                                  .verbs_count = 2,
                                  .slots_count = SLOTS_COUNT};
    say(line, frame, opened_encode(&opened, (struct bytes){verbs, sizeof verbs}, frame));
}

static void say_late_opened(uint32_t line)
{
    uint16_t number = play.cache_number;
    if (play.late_seq == 0) return;
    play.cache_number = play.late_number;
    say_opened(line, play.late_seq - 1);
    play.cache_number = number;
    play.late_seq = 0;
}

static void say_reply(uint32_t line, uint32_t seq, uint16_t code, uint8_t flags, uint32_t offset,
                      const char *value)
{
    uint8_t frame[256] = {0};
    size_t bytes = value != NULL ? strlen(value) : 0;
    struct frame_reply reply = {.length = (uint32_t)(sizeof reply + bytes),
                                .type = FRAME_REPLY,
                                .flags = flags,
                                .code = code,
                                .seq = seq,
                                .offset = offset};
    memcpy(frame, &reply, sizeof reply);
    if (bytes > 0) memcpy(frame + sizeof reply, value, bytes);
    say(line, frame, round_up_8(sizeof reply + bytes));
}

static void say_ack(uint32_t line)
{
    uint8_t frame[sizeof(struct frame_ack)];
    const struct line *from = &play.lines[line];
    say(line, frame, ack_encode(from->seq_last, from->requests, from->consumed_bytes, frame));
}

static void take_request(uint32_t line, const uint8_t *frame, size_t padded)
{
    struct taken *taken = &play.taken[play.taken_count++];
    assert_true(play.taken_count <= TAKEN_MAX);
    *taken = (struct taken){.line = line};
    memcpy(&taken->header, frame, sizeof taken->header);
    frame += sizeof taken->header;
    if ((taken->header.flags & FRAME_EXTENDED) != 0) {
        struct extensions extensions;
        int64_t bytes = extensions_decode(&extensions, frame, padded - sizeof taken->header);
        assert_true(bytes > 0);
        frame += bytes;
        if ((extensions.present & 1u << EXT_DEADLINE_MS) != 0)
            taken->deadline_ms = extensions.deadline_ms;
    }
    memcpy(taken->key, frame, min_u64(taken->header.key_len, sizeof taken->key - 1));
    struct line *from = &play.lines[line];
    from->requests++;
    from->consumed_bytes += padded;
    from->seq_last = taken->header.seq;
    if (play.answers && (taken->header.flags & FRAME_WANT) >= WANT_REPLY << FRAME_WANT_SHIFT)
        say_reply(line, taken->header.seq, 0, 0, ++play.offset, NULL);
}

static void take_frame(uint32_t line, const uint8_t *frame, const struct frame_prefix *prefix)
{
    struct refusal refusal;
    if (prefix->type == FRAME_HELLO) {
        struct bytes token;
        struct line *to = &play.lines[line];
        assert_int_equal(hello_decode(&to->hello, &token, frame, prefix->length, &refusal), 0);
        to->shard = to->hello.shard != HELLO_SHARD_ANY ? to->hello.shard : 0;
        if (!play.is_mute) say_welcome(line);
    } else if (prefix->type == FRAME_OPEN) {
        struct frame_open open;
        struct bytes name;
        assert_int_equal(open_decode(&open, &name, frame, prefix->length, &refusal), 0);
        play.open_seq = open.seq;
        if (play.holds_opened && line == 0) {
            play.held_seq = open.seq + 1;
        } else if (!play.is_mute) {
            say_late_opened(line);
            say_opened(line, open.seq);
        }
    } else {
        take_request(line, frame, round_up_8(prefix->length));
    }
}

static void take_line(uint32_t line)
{
    size_t bytes;
    size_t at = 0;
    uint32_t conn = play.lines[line].conn;
    uint32_t requests = play.lines[line].requests;
    if (!fake_io_is_up(play.fake, conn)) return;
    const uint8_t *sent = fake_io_sent(play.fake, conn, &bytes);
    while (bytes - at >= FRAME_PREFIX_BYTES) {
        struct frame_prefix prefix;
        memcpy(&prefix, sent + at, sizeof prefix);
        if (round_up_8(prefix.length) > bytes - at) break;
        for (size_t i = prefix.length; i < round_up_8(prefix.length); i++)
            assert_int_equal(sent[at + i], 0);
        take_frame(line, sent + at, &prefix);
        at += round_up_8(prefix.length);
    }
    fake_io_consume(play.fake, conn, at);
    if (play.acks && play.lines[line].requests != requests) say_ack(line);
}

/* A fake_io_fn: the node's turn. */
static void act(struct fake_io *fake, void *context)
{
    (void)context;
    if (play.held_seq > 0 && play.dialled >= play.refused_connect) {
        say_opened(0, play.held_seq - 1);
        play.held_seq = 0;
    }
    for (; play.dialled < fake_io_connects_count(fake); play.dialled++) {
        uint32_t conn = fake_io_connect_conn(fake, play.dialled);
        if (!fake_io_connect_waits(fake, play.dialled)) continue;
        if (play.refuses_connects || play.refused_connect == play.dialled + 1) {
            fake_io_refused(fake, conn, -ECONNREFUSED);
            continue;
        }
        fake_io_connected(fake, conn);
        assert_true(play.lines_count < LINKS_MAX);
        play.lines[play.lines_count++] = (struct line){.conn = conn};
    }
    for (uint32_t line = 0; line < play.lines_count; line++) take_line(line);
}

/* ------------------------------------------------------------------------------ the client */

static int start(const fero_runtime_opts *opts, uint64_t seq_first)
{
    struct client_seams seams = {.io = fake_io_base(play.fake),
                                 .now_ns = fake_io_now_ns,
                                 .context = play.fake,
                                 .session = SESSION,
                                 .seq_first = seq_first};
    return client_start_on(opts, &seams, &play.client);
}

static int open_cache(void)
{
    fero_opts opts = {.size = sizeof opts, .timeout_ms = 3000};
    return client_open(play.client, "demo", &opts, &play.cache);
}

static void prepare(void)
{
    memset(&play, 0, sizeof play);
    play.fake = fake_io_make();
    play.shards_count = 1;
    play.cache_number = 3;
    play.window_requests = 16384;
    play.window_bytes = 4 << 20;
    play.frame_bytes_max = 1 << 20;
    play.acks = true;
    play.answers = true;
    fake_io_on_wait(play.fake, act, NULL);
}

static void connect_with(fero_runtime_opts opts, uint64_t seq_first)
{
    opts.idle = FERO_IDLE_SLEEP;
    assert_int_equal(start(&opts, seq_first), 0);
    if (open_cache() != 0) fail_msg("%s", fero_errmsg());
}

static int setup(void **unused)
{
    (void)unused;
    prepare();
    connect_with((fero_runtime_opts){0}, 1);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    play.refuses_connects = true;
    assert_int_equal(client_stop(play.client, CLIENT_DRAIN_NS), 0);
    return 0;
}

/* Results in the order in which they came. */
static struct {
    fero_result results[TAKEN_MAX];
    char text[64]; /* of the last one's value */
    uint32_t count;
} got;

static void done(const fero_result *result, void *ud)
{
    assert_ptr_equal(ud, &got);
    got.results[got.count++] = *result;
    snprintf(got.text, sizeof got.text, "%.*s", (int)result->value.s.len,
             result->value.s.len > 0 ? (const char *)result->value.s.ptr : "");
}

static const fero_wopts wants_reply = {
    .size = sizeof(fero_wopts), .want = FERO_REPLY, .timeout_ms = 1000, .done = done, .ud = &got};

/* The same, but for as long as it takes by default. */
static const fero_wopts wants_plain = {
    .size = sizeof(fero_wopts), .want = FERO_REPLY, .done = done, .ud = &got};

static int update(const char *key, const fero_wopts *opts)
{
    const fero_val value = {.type = FERO_T_STRING, .s = {"v", 1}};
    return fero_update(play.cache, fero_str(key), &value, opts, NULL);
}

static void run_until(uint32_t results)
{
    for (int i = 0; i < 10000 && got.count < results; i++) client_run(play.client, 10);
    assert_int_equal(got.count, results);
}

static fero_counts counts(void)
{
    fero_counts all;
    fero_counts_get(play.cache, &all);
    return all;
}

static int setup_got(void **unused)
{
    memset(&got, 0, sizeof got);
    return setup(unused);
}

/* ------------------------------------------------------------------------------ opening */

static void a_link_is_dialled_again_though_the_first_one_is_not_open_yet(void **unused)
{
    (void)unused;
    prepare();
    play.shards_count = 2;
    play.holds_opened = true;
    play.refused_connect = 2;
    connect_with((fero_runtime_opts){0}, 1);
    assert_int_equal(play.client->links_up, 2);
    assert_int_equal(play.dialled, 3);
}

static void what_was_opened_too_late_is_not_taken_for_what_is_opened_now(void **unused)
{
    (void)unused;
    fero_opts opts = {.size = sizeof opts, .timeout_ms = 100};
    fero_cache *other = NULL;
    play.is_mute = true;
    assert_int_equal(client_open(play.client, "slow", &opts, &other), FERO_E_NOTCONN);
    play.late_seq = play.open_seq + 1;
    play.late_number = 8;
    play.cache_number = 9;
    play.is_mute = false;
    assert_int_equal(client_open(play.client, "other", &opts, &other), 0);
    assert_int_equal(fero_get(other, fero_str("28"), &wants_plain, NULL), 0);
    run_until(1);
    assert_int_equal(play.taken[0].header.cache, 9);
}

/* -------------------------------------------------------------------------- what is sent */

static void hello_and_requests_have_the_documented_bytes(void **unused)
{
    (void)unused;
    assert_int_equal(play.lines[0].hello.session, SESSION);
    assert_int_equal(play.lines[0].hello.shard, HELLO_SHARD_ANY);
    assert_int_equal(play.lines[0].hello.role, ROLE_CLIENT);
    assert_int_equal(play.lines[0].hello.seq_first, 1);
    assert_int_equal(play.lines[0].hello.floor, 1);
    assert_int_equal(update("28", &wants_plain), 0);
    assert_int_equal(fero_get(play.cache, fero_str("28.email"), &wants_plain, NULL), 0);
    assert_int_equal(fero_remove(play.cache, fero_str("28"), NULL, NULL), 0);
    assert_int_equal(
        fero_send(play.cache, fero_str("pop"), fero_str("28"), NULL, &wants_plain, NULL), 0);
    assert_int_equal(
        fero_send(play.cache, fero_str("other"), fero_str(""), NULL, &wants_plain, NULL), 0);
    run_until(4);
    static const struct {
        uint8_t type;
        uint8_t flags;
        uint16_t key_len;
    } expected[] = {{FRAME_UPDATE, 0x21, 2},
                    {FRAME_GET, 0x20, 8},
                    {FRAME_REMOVE, 0, 2},
                    {70, 0x20, 2},
                    {FRAME_VERB, 0x60, 0}};
    assert_int_equal(play.taken_count, ARRAY_COUNT(expected));
    for (uint32_t i = 0; i < play.taken_count; i++) {
        assert_int_equal(play.taken[i].header.type, expected[i].type);
        assert_int_equal(play.taken[i].header.flags, expected[i].flags);
        assert_int_equal(play.taken[i].header.key_len, expected[i].key_len);
        assert_int_equal(play.taken[i].header.seq, i + 1);
        assert_int_equal(play.taken[i].header.cache, 3);
        assert_int_equal(play.taken[i].header.key_hash, 0);
    }
    assert_string_equal(play.taken[0].key, "28");
}

static void each_key_goes_to_its_shard(void **unused)
{
    (void)unused;
    prepare();
    play.shards_count = 4;
    connect_with((fero_runtime_opts){0}, 1);
    assert_int_equal(fero_shards(play.cache), 4);
    for (unsigned i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i);
        assert_int_equal(update(key, &wants_reply), 0);
    }
    run_until(200);
    for (uint32_t i = 0; i < 200; i++) {
        const struct taken *taken = &play.taken[i];
        uint16_t slot = slot_of_key(taken->key, strlen(taken->key));
        assert_int_equal(taken->header.slot, slot);
        assert_int_equal(play.lines[taken->line].shard, slot / 1024);
    }
}

static void what_was_sent_and_done_is_counted(void **unused)
{
    (void)unused;
    fero_wopts ack = {.size = sizeof ack, .want = FERO_ACK};
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(update("a", NULL), 0);
        assert_int_equal(update("b", &ack), 0);
        assert_int_equal(update("c", &wants_reply), 0);
    }
    run_until(10);
    fero_counts all = counts();
    assert_int_equal(all.sent, 30);
    assert_int_equal(all.tacks, 30);
    assert_int_equal(all.yacks, 30);
    assert_int_equal(all.sacks, 10);
    assert_int_equal(all.failed, 0);
    assert_int_equal(all.resent, 0);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(got.results[i].seq, 3 * (i + 1));
        assert_int_equal(got.results[i].offset, i + 1);
    }
}

/* In memory that was used before, too. */
static void padding_is_zeros(void **unused)
{
    (void)unused;
    static uint8_t bytes[100];
    memset(bytes, 0xee, sizeof bytes);
    for (uint32_t i = 0; i < 10000; i++) {
        const fero_val value = {.type = FERO_T_BYTES, .s = {bytes, i % 97}};
        assert_int_equal(fero_update(play.cache, fero_str("key"), &value, &wants_reply, NULL), 0);
        if (i % 1000 == 999) run_until(i + 1);
    }
    assert_int_equal(play.taken_count, 10000);
}

static void wrong_requests_are_refused_at_once(void **unused)
{
    (void)unused;
    static char key[102];
    static char large[100002];
    memset(key, 'k', 101);
    memset(large, 'v', 100001);
    fero_val value = {.type = FERO_T_STRING, .s = fero_str(large)};
    assert_int_equal(update(key, NULL), FERO_E_TOOBIG);
    assert_non_null(strstr(fero_errmsg(), "101"));
    assert_non_null(strstr(fero_errmsg(), "100"));
    assert_int_equal(fero_update(play.cache, fero_str("k"), &value, NULL, NULL), FERO_E_TOOBIG);
    assert_non_null(strstr(fero_errmsg(), "100001"));
    assert_int_equal(update("", NULL), FERO_E_INVAL);
    value = (fero_val){.type = 8};
    assert_int_equal(fero_update(play.cache, fero_str("k"), &value, NULL, NULL), FERO_E_TYPE);
    fero_wopts wopts = {.size = sizeof wopts, .want = 4};
    assert_int_equal(update("k", &wopts), FERO_E_INVAL);
    wopts = (fero_wopts){.size = 4};
    assert_int_equal(update("k", &wopts), FERO_E_INVAL);
    wopts = (fero_wopts){.size = sizeof wopts, .timeout_ms = -7};
    assert_int_equal(update("k", &wopts), FERO_E_INVAL);
    assert_int_equal(fero_send(play.cache, fero_str(""), fero_str("k"), NULL, NULL, NULL),
                     FERO_E_INVAL);
    assert_int_equal(fero_ask_info(play.cache, 1, NULL, NULL), FERO_E_INVAL);
    assert_int_equal(counts().sent, 0);
}

static int update_bytes(size_t bytes, const fero_wopts *opts)
{
    static char large[2001];
    const fero_val value = {.type = FERO_T_BYTES, .s = {large, bytes}};
    return fero_update(play.cache, fero_str("28"), &value, opts, NULL);
}

/* A node's limit of frames may be less than what its limits of keys and values add up to. */
static void no_frame_is_longer_than_the_node_takes(void **unused)
{
    (void)unused;
    prepare();
    play.frame_bytes_max = 1000;
    connect_with((fero_runtime_opts){0}, 1);
    assert_int_equal(update_bytes(1000 - 24 - 2, &wants_plain), 0);
    assert_int_equal(update_bytes(1000 - 24 - 2 + 1, &wants_plain), FERO_E_TOOBIG);
    assert_non_null(strstr(fero_errmsg(), "1001"));
    assert_non_null(strstr(fero_errmsg(), "1000"));
    /* A timeout of one's own is 8 bytes of extension. */
    assert_int_equal(update_bytes(1000 - 24 - 8 - 2, &wants_reply), 0);
    assert_int_equal(update_bytes(1000 - 24 - 8 - 2 + 1, &wants_reply), FERO_E_TOOBIG);
    run_until(2);
    assert_int_equal(play.taken_count, 2);
    assert_int_equal(play.lines_count, 1);
}

/* ------------------------------------------------------------------------------ windows */

static void a_full_window_says_again(void **unused)
{
    (void)unused;
    prepare();
    play.window_requests = 10;
    play.answers = false;
    play.acks = false;
    connect_with((fero_runtime_opts){0}, 1);
    for (unsigned i = 0; i < 10; i++) assert_int_equal(update("k", &wants_reply), 0);
    assert_int_equal(update("k", &wants_reply), FERO_E_AGAIN);
    client_run(play.client, 0);
    assert_int_equal(update("k", &wants_reply), FERO_E_AGAIN);
    /* The window is of numbers: an answer in the middle makes no room, the first one does. */
    client_run(play.client, 0);
    say_reply(0, 2, 0, 0, 1, NULL);
    client_run(play.client, 0);
    assert_int_equal(got.count, 1);
    assert_int_equal(update("k", &wants_reply), FERO_E_AGAIN);
    say_reply(0, 1, 0, 0, 1, NULL);
    client_run(play.client, 0);
    assert_int_equal(update("k", &wants_reply), 0);
    assert_int_equal(update("k", &wants_reply), 0);
    assert_int_equal(update("k", &wants_reply), FERO_E_AGAIN);
}

static void a_full_byte_window_waits_for_acks(void **unused)
{
    (void)unused;
    prepare();
    play.window_bytes = 320; /* ten requests */
    play.acks = false;
    connect_with((fero_runtime_opts){0}, 1);
    uint32_t sent = 0;
    for (int i = 0; i < 50; i++) {
        while (sent < 100 && update("k", &wants_plain) == 0) sent++;
        client_run(play.client, 1);
    }
    assert_int_equal(sent, 10); /* all answered, none acknowledged */
    assert_int_equal(got.count, 10);
    play.acks = true;
    say_ack(0);
    for (int i = 0; i < 50; i++) {
        while (sent < 100 && update("k", &wants_plain) == 0) sent++;
        client_run(play.client, 1);
    }
    assert_int_equal(got.count, 100);
}

static void without_batching_each_request_is_a_send(void **unused)
{
    (void)unused;
    prepare();
    play.acks = false;
    connect_with((fero_runtime_opts){.outbox_max_bytes = FERO_OFF}, 1);
    uint64_t sends = fake_io_base(play.fake)->counters.sends;
    for (unsigned i = 0; i < 20; i++) assert_int_equal(update("k", NULL), 0);
    client_run(play.client, 0);
    assert_int_equal(play.taken_count, 20);
    assert_int_equal(fake_io_base(play.fake)->counters.sends, sends + 20);
    play.acks = true;
    say_ack(0);
}

/* What was received waits for the caller to run, and so do the requests; each by itself. */
static void and_so_it_is_where_an_ack_waits(void **unused)
{
    (void)unused;
    prepare();
    connect_with((fero_runtime_opts){.outbox_max_bytes = FERO_OFF}, 1);
    uint64_t sends = fake_io_base(play.fake)->counters.sends;
    for (unsigned i = 0; i < 20; i++) assert_int_equal(update("k", &wants_reply), 0);
    run_until(20);
    assert_int_equal(play.taken_count, 20);
    assert_int_equal(fake_io_base(play.fake)->counters.sends, sends + 20);
}

static void send_three(const fero_result *result, void *ud)
{
    done(result, ud);
    if (got.count > 1) return;
    for (unsigned i = 0; i < 3; i++) assert_int_equal(update("k", &wants_reply), 0);
}

static void and_so_it_is_in_a_callback(void **unused)
{
    (void)unused;
    prepare();
    connect_with((fero_runtime_opts){.outbox_max_bytes = FERO_OFF}, 1);
    fero_wopts wopts = wants_reply;
    wopts.done = send_three;
    uint64_t sends = fake_io_base(play.fake)->counters.sends;
    assert_int_equal(update("k", &wopts), 0);
    run_until(4);
    assert_int_equal(fake_io_base(play.fake)->counters.sends, sends + 4);
}

/* --------------------------------------------------------------------- a loop of the caller's */

/* When client_fd would wake a caller to whom nothing comes; TIME_NEVER: never. */
static uint64_t due_in_ns(void)
{
    uint64_t due_ns = fake_io_due_ns(play.fake);
    uint64_t now_ns = fake_io_now_ns(play.fake);
    if (due_ns == TIME_NEVER) return TIME_NEVER;
    return due_ns > now_ns ? due_ns - now_ns : 0;
}

static void who_polls_is_woken_for_what_is_due(void **unused)
{
    (void)unused;
    assert_true(client_fd(play.client) >= 0);
    assert_int_equal(due_in_ns(), TIME_NEVER);
    play.answers = false;
    assert_int_equal(update("k", &wants_reply), 0);
    assert_int_equal(due_in_ns(), 0); /* to be sent */
    while (due_in_ns() == 0) client_run(play.client, 0);
    assert_in_range(due_in_ns(), 990 * NS_PER_MS, 1010 * NS_PER_MS); /* its timeout */
    fake_io_advance_ns(play.fake, due_in_ns());
    client_run(play.client, 0);
    assert_int_equal(got.count, 1);
    assert_int_equal(got.results[0].error, FERO_E_TIMEOUT);
    play.refuses_connects = true;
    fake_io_hang_up(play.fake, play.lines[0].conn, -ECONNRESET);
    for (int i = 0; i < 3; i++) client_run(play.client, 0);
    assert_in_range(due_in_ns(), 1, 500 * NS_PER_MS); /* it dials again */
}

static void who_polls_is_not_woken_for_what_is_refused(void **unused)
{
    (void)unused;
    prepare();
    play.window_requests = 4;
    play.answers = false;
    connect_with((fero_runtime_opts){0}, 1);
    assert_true(client_fd(play.client) >= 0);
    for (unsigned i = 0; i < 4; i++) assert_int_equal(update("k", &wants_reply), 0);
    while (due_in_ns() == 0) client_run(play.client, 0);
    assert_int_equal(update("k", &wants_reply), FERO_E_AGAIN);
    assert_int_equal(update("k", &wants_reply), FERO_E_AGAIN);
    assert_true(due_in_ns() > 0);
    say_reply(0, 1, 0, 0, 1, NULL);
    client_run(play.client, 0);
    while (due_in_ns() == 0) client_run(play.client, 0);
    assert_int_equal(update("k", &wants_reply), 0);
    assert_int_equal(due_in_ns(), 0);
}

static void a_descriptor_that_cannot_be_had_is_an_error(void **unused)
{
    (void)unused;
    fake_io_fail_fd(play.fake, -EMFILE);
    assert_int_equal(client_fd(play.client), FERO_E_SYS);
    assert_int_equal(update("k", &wants_reply), 0);
    run_until(1);
    assert_true(client_fd(play.client) >= 0);
}

/* ---------------------------------------------------------------------------- deadlines */

static void who_waits_too_long_hears_unknown(void **unused)
{
    (void)unused;
    play.answers = false;
    assert_int_equal(update("k", &wants_reply), 0);
    uint64_t begin_ns = fake_io_now_ns(play.fake);
    while (got.count == 0) client_run(play.client, 100);
    uint64_t waited_ns = fake_io_now_ns(play.fake) - begin_ns;
    assert_in_range(waited_ns, 1000 * NS_PER_MS, 1100 * NS_PER_MS);
    assert_int_equal(got.results[0].outcome, FERO_OUTCOME_UNKNOWN);
    assert_int_equal(got.results[0].error, FERO_E_TIMEOUT);
    assert_int_equal(got.results[0].seq, 1);
    assert_int_equal(counts().failed, 1);
    /* A reply that comes later is nobody's, and no reason to close the link. */
    say_reply(0, 1, 0, 0, 1, NULL);
    play.answers = true;
    assert_int_equal(update("k", &wants_reply), 0);
    run_until(2);
    assert_int_equal(got.results[1].outcome, FERO_OUTCOME_OK);
    assert_int_equal(play.lines_count, 1);
}

/* A handler may keep a verb's request, and would go on for nobody. */
static void what_a_handler_may_keep_is_stopped_when_its_time_is_over(void **unused)
{
    (void)unused;
    play.answers = false;
    assert_int_equal(update("k", &wants_plain), 0);
    assert_int_equal(
        fero_send(play.cache, fero_str("other"), fero_str("k"), NULL, &wants_plain, NULL), 0);
    run_until(2);
    assert_int_equal(got.results[1].error, FERO_E_TIMEOUT);
    client_run(play.client, 0);
    client_run(play.client, 0);
    assert_int_equal(play.taken_count, 3);
    assert_int_equal(play.taken[2].header.type, FRAME_STOP);
    assert_int_equal(play.taken[2].header.key_len, 0);
    assert_int_equal(play.taken[2].header.flags & FRAME_VALUE_TYPE, VALUE_INT64);
}

/* The node hears how long the caller will wait, if the caller has said so. */
static void a_timeout_of_ones_own_travels_with_the_request(void **unused)
{
    (void)unused;
    static const struct {
        int32_t want;
        int64_t timeout_ms;
        uint32_t deadline_ms; /* 0: none */
    } cases[] = {{FERO_REPLY, 0, 0},          {FERO_REPLY, FERO_OFF, 0},
                 {FERO_REPLY, 250, 250},      {FERO_REPLY, 1000000000, 1000000000},
                 {FERO_REPLY, 1000000001, 0}, {FERO_ACK, 250, 0},
                 {FERO_NOTHING, 250, 0}};
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        fero_wopts wopts = {
            .size = sizeof wopts, .want = cases[i].want, .timeout_ms = cases[i].timeout_ms};
        assert_int_equal(update("key", &wopts), 0);
        client_run(play.client, 0);
        client_run(play.client, 0);
        assert_int_equal(play.taken_count, i + 1);
        assert_int_equal(play.taken[i].deadline_ms, cases[i].deadline_ms);
        assert_string_equal(play.taken[i].key, "key");
    }
    /* Beside a verb's name, too. */
    assert_int_equal(
        fero_send(play.cache, fero_str("other"), fero_str("k"), NULL, &wants_reply, NULL), 0);
    run_until(1);
    assert_int_equal(play.taken[ARRAY_COUNT(cases)].header.type, FRAME_VERB);
    assert_int_equal(play.taken[ARRAY_COUNT(cases)].deadline_ms, 1000);
}

static void what_is_sent_again_has_the_time_that_is_left(void **unused)
{
    (void)unused;
    play.answers = false;
    assert_int_equal(update("k", &wants_reply), 0);
    client_run(play.client, 0);
    fake_io_advance_ns(play.fake, 400 * NS_PER_MS);
    fake_io_hang_up(play.fake, play.lines[0].conn, -ECONNRESET);
    play.answers = true;
    run_until(1);
    assert_int_equal(got.results[0].outcome, FERO_OUTCOME_OK);
    assert_int_equal(play.taken_count, 2);
    assert_int_equal(play.taken[0].deadline_ms, 1000);
    assert_in_range(play.taken[1].deadline_ms, 1, 603);
}

static void deadlines_differ(void **unused)
{
    (void)unused;
    play.answers = false;
    fero_wopts wopts = wants_reply;
    static const int64_t timeouts_ms[] = {500, 100, 300, 200, 400};
    static const uint64_t order[] = {2, 4, 3, 5, 1};
    for (unsigned i = 0; i < 5; i++) {
        wopts.timeout_ms = timeouts_ms[i];
        assert_int_equal(update("k", &wopts), 0);
    }
    run_until(5);
    for (unsigned i = 0; i < 5; i++) assert_int_equal(got.results[i].seq, order[i]);
}

/* ------------------------------------------------------------------------ losing the link */

static void what_had_no_answer_is_sent_again_with_its_number(void **unused)
{
    (void)unused;
    play.answers = false;
    play.acks = false;
    for (unsigned i = 0; i < 6; i++) assert_int_equal(update("k", &wants_reply), 0);
    client_run(play.client, 0);
    client_run(play.client, 0);
    assert_int_equal(play.taken_count, 6);
    say_reply(0, 1, 0, 0, 1, NULL);
    say_reply(0, 4, 0, 0, 4, NULL);
    client_run(play.client, 0);
    assert_int_equal(got.count, 2);
    fake_io_hang_up(play.fake, play.lines[0].conn, -ECONNRESET);
    play.answers = true;
    run_until(6);
    assert_int_equal(play.lines_count, 2);
    assert_int_equal(play.lines[1].hello.session, SESSION);
    /* What it has not sent yet begins at 7; below, it may send what has no answer. */
    assert_int_equal(play.lines[1].hello.seq_first, 7);
    assert_int_equal(play.lines[1].hello.floor, 2);
    assert_int_equal(play.lines[1].hello.session_start, play.lines[0].hello.session_start);
    static const uint32_t again[] = {2, 3, 5, 6};
    assert_int_equal(play.taken_count, 10);
    for (unsigned i = 0; i < 4; i++) assert_int_equal(play.taken[6 + i].header.seq, again[i]);
    assert_int_equal(counts().resent, 4);
    assert_int_equal(counts().sacks, 6);
}

/* An update whose caller waits for so long. */
static void update_within(const char *key, int64_t timeout_ms)
{
    fero_wopts wopts = wants_reply;
    wopts.timeout_ms = timeout_ms;
    assert_int_equal(update(key, &wopts), 0);
}

/*
 * The lost connection may still carry what was given up: it is sent again in its place, with no time
 * left, so that it is not done behind what comes now. Neither what never left nor reads are.
 */
static void what_was_given_up_is_sent_again_to_be_void(void **unused)
{
    (void)unused;
    fero_wopts in_haste = wants_reply;
    in_haste.timeout_ms = 100;
    play.answers = false;
    play.acks = false;
    update_within("first", 9000);
    update_within("k", 100);
    assert_int_equal(fero_get(play.cache, fero_str("k"), &in_haste, NULL), 0);
    update_within("k", 9000);
    client_run(play.client, 0);
    client_run(play.client, 0);
    assert_int_equal(play.taken_count, 4);
    run_until(2);
    assert_int_equal(got.results[0].seq, 2);
    assert_int_equal(got.results[0].outcome, FERO_OUTCOME_UNKNOWN);
    fake_io_hang_up(play.fake, play.lines[0].conn, -ECONNRESET);
    play.answers = true;
    play.acks = true;
    run_until(4);
    static const uint32_t again[] = {1, 2, 4};
    assert_int_equal(play.lines_count, 2);
    assert_int_equal(play.taken_count, 7);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(play.taken[4 + i].header.seq, again[i]);
    assert_int_equal(play.taken[5].deadline_ms, 0);
    assert_int_not_equal(play.taken[5].header.flags & FRAME_EXTENDED, 0);
    assert_int_equal(counts().resent, 3);
    /* Nobody waits for its answer, and the link goes on. */
    update_within("k", 9000);
    run_until(5);
    assert_int_equal(play.lines_count, 2);
    assert_int_equal(counts().sacks, 3);
}

/* HELLO says which numbers will not come again: of those that went below that since it knows nothing. */
static void what_is_given_up_during_a_greeting_has_another_one(void **unused)
{
    (void)unused;
    play.answers = false;
    update_within("a", 300);
    update_within("b", 100);
    update_within("c", 9000);
    client_run(play.client, 0);
    client_run(play.client, 0);
    assert_int_equal(play.taken_count, 3);
    run_until(1);
    assert_int_equal(got.results[0].seq, 2);
    play.is_mute = true;
    fake_io_hang_up(play.fake, play.lines[0].conn, -ECONNRESET);
    while (play.lines_count < 2) client_run(play.client, 1);
    run_until(2);
    assert_int_equal(play.lines[1].hello.floor, 1);
    play.is_mute = false;
    play.answers = true;
    say_welcome(1);
    say_opened(1, play.open_seq);
    run_until(3);
    assert_int_equal(play.lines_count, 3);
    assert_int_equal(play.lines[2].hello.floor, 3);
    assert_int_equal(play.taken_count, 4);
    assert_int_equal(play.taken[3].header.seq, 3);
}

/* The node starts again with a lower limit: only what it takes is sent again. */
static void what_a_node_does_not_take_any_more_is_unknown(void **unused)
{
    (void)unused;
    play.answers = false;
    play.acks = false;
    fero_wopts wants_ack = wants_plain;
    wants_ack.want = FERO_ACK;
    assert_int_equal(update("k", &wants_plain), 0);
    assert_int_equal(update_bytes(2000, &wants_plain), 0);
    assert_int_equal(update_bytes(2000, &wants_ack), 0);
    assert_int_equal(update("k", &wants_plain), 0);
    client_run(play.client, 0);
    client_run(play.client, 0);
    assert_int_equal(play.taken_count, 4);
    play.frame_bytes_max = 1000;
    play.answers = true;
    play.acks = true;
    fake_io_hang_up(play.fake, play.lines[0].conn, -ECONNRESET);
    run_until(3);
    assert_int_equal(play.lines_count, 2);
    assert_int_equal(play.taken_count, 6);
    assert_int_equal(play.taken[4].header.seq, 1);
    assert_int_equal(play.taken[5].header.seq, 4);
    assert_int_equal(got.results[0].seq, 2);
    assert_int_equal(got.results[0].outcome, FERO_OUTCOME_UNKNOWN);
    assert_int_equal(got.results[0].error, FERO_E_TOOBIG);
    assert_int_equal(got.results[1].outcome, FERO_OUTCOME_OK);
    assert_int_equal(got.results[2].outcome, FERO_OUTCOME_OK);
    assert_int_equal(counts().resent, 2);
}

static void a_duplicates_answer_is_an_answer(void **unused)
{
    (void)unused;
    play.answers = false;
    assert_int_equal(update("k", &wants_reply), 0);
    client_run(play.client, 0);
    say_reply(0, 1, 0, REPLY_DUPLICATE, 7, NULL);
    run_until(1);
    assert_int_equal(got.results[0].outcome, FERO_OUTCOME_OK);
    assert_int_equal(got.results[0].offset, 7);
}

static void a_link_that_is_down_says_so(void **unused)
{
    (void)unused;
    play.refuses_connects = true;
    fake_io_hang_up(play.fake, play.lines[0].conn, 0);
    client_run(play.client, 10);
    assert_int_equal(update("k", &wants_reply), FERO_E_NOTCONN);
    assert_non_null(strstr(fero_errmsg(), "closed the connection"));
    play.refuses_connects = false;
    for (int i = 0; i < 100 && update("k", &wants_reply) != 0; i++) client_run(play.client, 1000);
    run_until(1);
}

/* A fake_io_fn: what the clock shows last, as the io is gone with its client. */
static uint64_t stopped_ns;
static void act_and_read_clock(struct fake_io *fake, void *context)
{
    stopped_ns = fake_io_now_ns(fake);
    act(fake, context);
}

static void stopping_ends_what_is_on_its_way(void **unused)
{
    (void)unused;
    prepare();
    connect_with((fero_runtime_opts){0}, 1);
    play.answers = false;
    assert_int_equal(update("k", &wants_reply), 0);
    assert_int_equal(client_stop(play.client, CLIENT_DRAIN_NS), 0);
    assert_int_equal(got.count, 1);
    assert_int_equal(got.results[0].outcome, FERO_OUTCOME_UNKNOWN);
    assert_int_equal(got.results[0].error, FERO_E_CLOSED);
    assert_int_equal(play.taken_count, 1); /* it was sent all the same */
}

static void stopping_waits_for_acks_as_long_as_told(void **unused)
{
    (void)unused;
    static const uint64_t drains_ns[] = {0, 300 * NS_PER_MS, CLIENT_DRAIN_NS, 5 * NS_PER_S};
    for (unsigned i = 0; i < ARRAY_COUNT(drains_ns); i++) {
        prepare();
        connect_with((fero_runtime_opts){0}, 1);
        play.acks = false;
        assert_int_equal(update("k", NULL), 0);
        uint64_t begin_ns = fake_io_now_ns(play.fake);
        stopped_ns = 0;
        fake_io_on_wait(play.fake, act_and_read_clock, NULL);
        assert_int_equal(client_stop(play.client, drains_ns[i]), 0);
        assert_int_equal(play.taken_count, drains_ns[i] > 0 ? 1 : 0);
        if (drains_ns[i] > 0) assert_int_equal(stopped_ns - begin_ns, drains_ns[i]);
    }
}

static void and_no_longer_than_it_must(void **unused)
{
    (void)unused;
    prepare();
    connect_with((fero_runtime_opts){0}, 1);
    assert_int_equal(update("k", NULL), 0);
    uint64_t begin_ns = fake_io_now_ns(play.fake);
    fake_io_on_wait(play.fake, act_and_read_clock, NULL);
    assert_int_equal(client_stop(play.client, 5 * NS_PER_S), 0);
    assert_int_equal(play.taken_count, 1);
    assert_in_range(stopped_ns - begin_ns, 0, NS_PER_MS);
}

/* ------------------------------------------------------------------------- what is heard */

static void replies_have_values(void **unused)
{
    (void)unused;
    play.answers = false;
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(fero_get(play.cache, fero_str("k"), &wants_reply, NULL), 0);
    client_run(play.client, 0);
    say_reply(0, 1, 0, VALUE_STRING, 9, "hello");
    run_until(1);
    assert_string_equal(got.text, "hello");
    assert_int_equal(got.results[0].value.type, FERO_T_STRING);
    assert_int_equal(got.results[0].offset, 9);
    say_reply(0, 2, reply_code(OUTCOME_FAIL, ERROR_NOT_FOUND), VALUE_STRING, 0, "no such key");
    run_until(2);
    assert_int_equal(got.results[1].outcome, FERO_OUTCOME_FAIL);
    assert_int_equal(got.results[1].error, FERO_E_NOTFOUND);
    assert_string_equal(got.text, "no such key");
    say_reply(0, 3, reply_code(OUTCOME_UNKNOWN, ERROR_NO_MEMORY), 0, 0, NULL);
    run_until(3);
    assert_int_equal(got.results[2].outcome, FERO_OUTCOME_UNKNOWN);
    say_reply(0, 4, reply_code(OUTCOME_FAIL, 999), VALUE_INT64, 0, "12345678");
    run_until(4);
    assert_int_equal(got.results[3].error, -999);
    assert_int_equal(got.results[3].value.i64, 0x3837363534333231);
}

/* A node of many shards and caches, whose values are short. */
static void info_may_be_longer_than_any_value(void **unused)
{
    (void)unused;
    static uint8_t frame[192 * KIB];
    struct frame_reply reply = {
        .length = sizeof frame, .type = FRAME_REPLY, .flags = VALUE_JSON, .seq = 1};
    play.answers = false;
    assert_int_equal(fero_ask_info(play.cache, -1, &wants_reply, NULL), 0);
    client_run(play.client, 0);
    memcpy(frame, &reply, sizeof reply);
    say(0, frame, sizeof frame);
    run_until(1);
    assert_int_equal(got.results[0].outcome, FERO_OUTCOME_OK);
    assert_int_equal(got.results[0].value.s.len, sizeof frame - sizeof reply);
}

/* docs/protocol.md, sections 5 and 13: what a client of this version must live with. */
static void later_additions_are_lived_with(void **unused)
{
    (void)unused;
    play.answers = false;
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(fero_get(play.cache, fero_str("k"), &wants_reply, NULL), 0);
    client_run(play.client, 0);
    say_reply(0, 1, 0, 0x80 | VALUE_STRING, 1, "reserved flag");
    run_until(1);
    assert_string_equal(got.text, "reserved flag");
    say_reply(0, 2, (uint16_t)(3u << REPLY_OUTCOME_SHIFT | 1), 0, 0, NULL);
    run_until(2);
    assert_int_equal(got.results[1].outcome, FERO_OUTCOME_UNKNOWN);
    say_reply(0, 3, (uint16_t)(2u << REPLY_LEVEL_SHIFT), 0, 5, NULL);
    run_until(3);
    assert_int_equal(got.results[2].outcome, FERO_OUTCOME_OK);
    say_reply(0, 4, 0, REPLY_MORE | VALUE_STRING, 0, "first part");
    say_reply(0, 4, 0, VALUE_STRING, 0, "last part");
    run_until(4);
    assert_string_equal(got.text, "last part");
    assert_int_equal(play.lines_count, 1);
}

/* Whatever breaks the rules costs the link, with a line that says what, and the next one works. */
static void hostile_frames_cost_the_link(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t length;
        uint8_t type;
        uint8_t flags;
        uint16_t small;
        uint32_t seq;
        const char *reason;
    } cases[] = {
        {16, FRAME_REPLY, 0, 0, 77, "reply to no request"},
        {16, FRAME_REPLY, 0, 0, 0, "reply to no request"},
        {16, FRAME_REPLY, VALUE_DOUBLE, 0, 1, "value of a reply"},
        {16, FRAME_REPLY, 15, 0, 1, "value of a reply"},
        {16, FRAME_REPLY, FRAME_EXTENDED, 0, 1, "extensions of a reply"},
        {12, FRAME_REPLY, 0, 0, 1, "length of a reply"},
        {4, FRAME_REPLY, 0, 0, 1, "length of a frame"},
        {UINT32_MAX, FRAME_REPLY, 0, 0, 1, "length of a frame"},
        {16, FRAME_UPDATE, 0, 0, 1, "type of a frame"},
        {16, FRAME_HELLO, 0, 0, 1, "type of a frame"},
        {16, FRAME_OPEN, 0, 0, 1, "type of a frame"},
        {16, 0, 0, 0, 1, "type of a frame"},
        {16, FRAME_WELCOME, 0, 1, 1, "WELCOME twice"},
        {24, FRAME_OPENED, 0, 0, 1, "OPENED"},
        {24, FRAME_ACK, 1, 0, 1, "ACK flags"},
        {24, FRAME_ACK, 0, 0, 1, "never sent"},
        {24, FRAME_REFUSE, 0, ERROR_CLOSED, 1, "the node refuses the link: "},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        uint8_t frame[64] = {0};
        struct frame_reply header = {.length = cases[i].length,
                                     .type = cases[i].type,
                                     .flags = cases[i].flags,
                                     .code = cases[i].small,
                                     .seq = cases[i].seq,
                                     .offset = 1000000};
        prepare();
        memset(&got, 0, sizeof got);
        connect_with((fero_runtime_opts){0}, 1);
        play.answers = false;
        play.acks = false;
        assert_int_equal(update("k", &wants_reply), 0);
        client_run(play.client, 0);
        client_run(play.client, 0);
        memcpy(frame, &header, sizeof header);
        say(0, frame, cases[i].length <= 24 ? round_up_8(cases[i].length) : 24);
        client_run(play.client, 0);
        if (cases[i].type == FRAME_REFUSE) assert_null(strstr(play.client->reason, "got 0"));
        if (strstr(play.client->reason, cases[i].reason) == NULL)
            fail_msg("%s: %s", cases[i].reason, play.client->reason);
        assert_false(fake_io_is_up(play.fake, play.lines[0].conn));
        play.answers = true;
        play.acks = true;
        run_until(1);
        assert_int_equal(got.results[0].outcome, FERO_OUTCOME_OK);
        assert_int_equal(counts().resent, 1);
        if (i + 1 < ARRAY_COUNT(cases)) teardown(NULL);
    }
}

/* All that a node says, cut at every place: the same results. */
static void what_is_heard_may_be_cut_anywhere(void **unused)
{
    (void)unused;
    struct stream stream = {0};
    play.answers = false;
    play.acks = false;
    for (size_t cut = 1;; cut++) {
        const uint32_t first = 1 + 6 * (uint32_t)(cut - 1);
        memset(&got, 0, sizeof got);
        for (unsigned i = 0; i < 6; i++)
            assert_int_equal(fero_get(play.cache, fero_str("k"), &wants_reply, NULL), 0);
        client_run(play.client, 0);
        client_run(play.client, 0);
        stream.bytes = 0;
        for (uint32_t i = 0; i < 6; i++) {
            uint8_t frame[40] = {0};
            struct frame_reply reply = {.length = i % 2 == 0 ? 16 : 16 + i,
                                        .type = FRAME_REPLY,
                                        .flags = i % 2 == 0 ? 0 : VALUE_STRING,
                                        .seq = first + i,
                                        .offset = i};
            memcpy(frame, &reply, sizeof reply);
            memset(frame + sizeof reply, 'x', reply.length - sizeof reply);
            stream_put(&stream, frame, round_up_8(reply.length));
            struct frame_ack ack;
            ack_encode(play.lines[0].seq_last, play.lines[0].requests, play.lines[0].consumed_bytes,
                       &ack);
            if (i == 3) stream_put(&stream, &ack, sizeof ack);
        }
        if (cut == stream.bytes) break;
        say(0, stream.data, cut);
        client_run(play.client, 0);
        say(0, stream.data + cut, stream.bytes - cut);
        run_until(6);
        for (uint32_t i = 0; i < 6; i++) {
            assert_int_equal(got.results[i].seq, first + i);
            assert_int_equal(got.results[i].value.s.len, i % 2 == 0 ? 0 : i);
        }
    }
    stream_free(&stream);
    play.answers = true;
    assert_int_equal(play.lines_count, 1);
}

/* ------------------------------------------------------------------------------ opening */

static int start_plain(void)
{
    fero_runtime_opts opts = {.idle = FERO_IDLE_SLEEP};
    prepare();
    assert_int_equal(start(&opts, 1), 0);
    return 0;
}

static void a_node_that_is_not_there_is_named(void **unused)
{
    (void)unused;
    start_plain();
    play.refuses_connects = true;
    assert_int_equal(open_cache(), FERO_E_NOTCONN);
    assert_non_null(strstr(fero_errmsg(), "127.0.0.1:7700"));
    assert_non_null(strstr(fero_errmsg(), "connection refused"));
    assert_non_null(strstr(fero_errmsg(), "`fero serve demo`"));
}

static uint64_t open_ms(int64_t timeout_ms, int64_t refused_ms, int expected)
{
    fero_opts opts = {.size = sizeof opts, .timeout_ms = timeout_ms, .refused_ms = refused_ms};
    uint64_t begin_ns = fake_io_now_ns(play.fake);
    assert_int_equal(client_open(play.client, "demo", &opts, &play.cache), expected);
    return (fake_io_now_ns(play.fake) - begin_ns) / NS_PER_MS;
}

static void where_all_refuse_it_is_given_up_soon(void **unused)
{
    static const char *const seeds[] = {"127.0.0.1:1", "127.0.0.1:2", NULL};
    fero_runtime_opts opts = {.idle = FERO_IDLE_SLEEP, .seeds = seeds};
    (void)unused;
    prepare();
    assert_int_equal(start(&opts, 1), 0);
    play.refuses_connects = true;
    assert_in_range(open_ms(0, 0, FERO_E_NOTCONN), 1000, 1010);
    assert_in_range(play.dialled, 6, 16); /* each of the two a few times */
    assert_in_range(open_ms(0, 3000, FERO_E_NOTCONN), 3000, 3010);
    assert_in_range(open_ms(200, 0, FERO_E_NOTCONN), 200, 210);
    play.dialled = fake_io_connects_count(play.fake);
    unsigned before = play.dialled;
    assert_in_range(open_ms(0, FERO_OFF, FERO_E_NOTCONN), 0, 10);
    assert_int_equal(play.dialled - before, 2);
    assert_int_equal(open_ms(0, -2, FERO_E_INVAL), 0);
    assert_non_null(strstr(fero_errmsg(), "refused_ms is -2"));
}

static void a_node_that_is_just_starting_is_waited_for(void **unused)
{
    (void)unused;
    start_plain();
    play.refused_connect = 1;
    assert_in_range(open_ms(0, 0, 0), 50, 101);
}

static void where_one_does_not_refuse_it_is_waited_for(void **unused)
{
    (void)unused;
    start_plain();
    play.is_mute = true;
    play.refused_connect = 2; /* the first took the connection, and said nothing */
    assert_in_range(open_ms(9000, 0, FERO_E_NOTCONN), 9000, 9010);
    assert_non_null(strstr(fero_errmsg(), "within 9000 ms"));
}

static void who_was_connected_dials_on_though_all_refuse(void **unused)
{
    fero_opts opts = {.size = sizeof opts};
    fero_cache *other;
    (void)unused;
    prepare();
    connect_with((fero_runtime_opts){0}, 1);
    play.refuses_connects = true;
    fake_io_hang_up(play.fake, play.lines[0].conn, -ECONNRESET);
    for (int i = 0; i < 100; i++) client_run(play.client, 100);
    assert_int_equal(client_open(play.client, "other", &opts, &other), FERO_E_NOTCONN);
    play.refuses_connects = false;
    while (play.client->links_up == 0) client_run(play.client, 100);
    assert_int_equal(client_open(play.client, "other", &opts, &other), 0);
}

static void a_node_that_says_nothing_is_given_up(void **unused)
{
    (void)unused;
    start_plain();
    play.is_mute = true;
    uint64_t begin_ns = fake_io_now_ns(play.fake);
    assert_int_equal(open_cache(), FERO_E_NOTCONN);
    assert_in_range(fake_io_now_ns(play.fake) - begin_ns, 3 * NS_PER_S, 4 * NS_PER_S);
}

static void a_cache_that_is_not_there_is_named(void **unused)
{
    (void)unused;
    start_plain();
    play.opened_code = reply_code(OUTCOME_FAIL, ERROR_NOT_FOUND);
    assert_int_equal(open_cache(), FERO_E_NOTFOUND);
    assert_non_null(strstr(fero_errmsg(), "\"demo\""));
    play.opened_code = 0;
    assert_int_equal(open_cache(), 0);
}

static void numbers_go_on_over_the_end_of_32_bits(void **unused)
{
    (void)unused;
    prepare();
    const uint64_t first = ((uint64_t)5 << 32) - 20;
    connect_with((fero_runtime_opts){0}, first);
    for (unsigned i = 0; i < 40; i++) assert_int_equal(update("k", &wants_reply), 0);
    run_until(40);
    assert_int_equal(play.lines[0].hello.seq_first, first);
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(got.results[i].seq, first + i);
        assert_int_equal(play.taken[i].header.seq, (uint32_t)(first + i));
    }
}

static void options_out_of_range_are_named(void **unused)
{
    (void)unused;
    static const char *const bad_seeds[] = {"somewhere:7700", NULL};
    const struct {
        fero_runtime_opts opts;
        const char *text;
    } cases[] = {
        {{.window_requests = 16385}, "16385"},
        {{.window_requests = -2}, "-2"},
        {{.window_bytes = -3}, "-3"},
        {{.outbox_max_bytes = -2}, "-2"},
        {{.idle = 7}, "7"},
        {{.seeds = bad_seeds}, "somewhere:7700"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        play.fake = fake_io_make();
        assert_int_equal(start(&cases[i].opts, 1), FERO_E_INVAL);
        assert_non_null(strstr(fero_errmsg(), cases[i].text));
    }
}

/* --------------------------------------------------------------------------- operations */

static void an_operation_keeps_its_result(void **unused)
{
    (void)unused;
    fero_op *op = NULL;
    fero_result result;
    play.answers = false;
    assert_int_equal(fero_get(play.cache, fero_str("k"), NULL, &op), 0);
    assert_int_equal(fero_wait(op, 20, &result), FERO_E_TIMEOUT);
    say_reply(0, 1, 0, VALUE_STRING, 4, "kept");
    assert_int_equal(fero_wait(op, 20, &result), 0);
    assert_int_equal(result.offset, 4);
    assert_int_equal(result.value.s.len, 4);
    assert_memory_equal(result.value.s.ptr, "kept", 4);
    fero_op_free(op);
    assert_int_equal(fero_get(play.cache, fero_str("k"), NULL, &op), 0);
    client_run(play.client, 0);
    say_reply(0, 2, reply_code(OUTCOME_FAIL, ERROR_NOT_FOUND), VALUE_STRING, 0, "not here");
    assert_int_equal(fero_wait(op, 20, &result), 0);
    assert_int_equal(result.outcome, FERO_OUTCOME_FAIL);
    assert_string_equal(fero_errmsg(), "not here");
    fero_op_free(op);
}

static void an_operation_may_be_freed_before_it_is_done(void **unused)
{
    (void)unused;
    play.answers = false;
    for (unsigned i = 0; i < 1000; i++) {
        fero_op *op = NULL;
        assert_int_equal(fero_get(play.cache, fero_str("k"), NULL, &op), 0);
        fero_op_free(op);
    }
    client_run(play.client, 0);
    assert_int_equal(play.client->ops->taken_count, 1000);
    client_run(play.client, 0);
    for (uint32_t seq = 1; seq <= 1000; seq++) say_reply(0, seq, 0, 0, 0, NULL);
    client_run(play.client, 0);
    assert_int_equal(play.client->ops->taken_count, 0);
}

static void a_callback_may_send_and_not_run(void **unused);

static void send_on(const fero_result *result, void *ud)
{
    uint32_t *left = ud;
    assert_int_equal(result->outcome, FERO_OUTCOME_OK);
    assert_int_equal(client_run(play.client, 0), FERO_E_INVAL);
    assert_int_equal(client_stop(play.client, CLIENT_DRAIN_NS), FERO_E_INVAL);
    if (--*left == 0) return;
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY, .done = send_on, .ud = ud};
    assert_int_equal(update("k", &wopts), 0);
}

static void a_callback_may_send_and_not_run(void **unused)
{
    (void)unused;
    uint32_t left = 100;
    fero_wopts wopts = {.size = sizeof wopts, .want = FERO_REPLY, .done = send_on, .ud = &left};
    assert_int_equal(update("k", &wopts), 0);
    for (int i = 0; i < 1000 && left > 0; i++) client_run(play.client, 10);
    assert_int_equal(left, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_got, teardown)
/* It starts a client itself, and stops it or leaves it to teardown. */
static int setup_own(void **unused)
{
    (void)unused;
    memset(&got, 0, sizeof got);
    return 0;
}
#define TEST_OWN(name) cmocka_unit_test_setup_teardown(name, setup_own, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST_OWN(a_link_is_dialled_again_though_the_first_one_is_not_open_yet),
        TEST(what_was_opened_too_late_is_not_taken_for_what_is_opened_now),
        TEST(hello_and_requests_have_the_documented_bytes),
        TEST_OWN(each_key_goes_to_its_shard),
        TEST(what_was_sent_and_done_is_counted),
        TEST(padding_is_zeros),
        TEST(wrong_requests_are_refused_at_once),
        TEST_OWN(no_frame_is_longer_than_the_node_takes),
        TEST_OWN(a_full_window_says_again),
        TEST_OWN(a_full_byte_window_waits_for_acks),
        TEST_OWN(without_batching_each_request_is_a_send),
        TEST_OWN(and_so_it_is_where_an_ack_waits),
        TEST_OWN(and_so_it_is_in_a_callback),
        TEST(who_polls_is_woken_for_what_is_due),
        TEST_OWN(who_polls_is_not_woken_for_what_is_refused),
        TEST(a_descriptor_that_cannot_be_had_is_an_error),
        TEST(who_waits_too_long_hears_unknown),
        TEST(what_a_handler_may_keep_is_stopped_when_its_time_is_over),
        TEST(a_timeout_of_ones_own_travels_with_the_request),
        TEST(what_is_sent_again_has_the_time_that_is_left),
        TEST(deadlines_differ),
        TEST(what_had_no_answer_is_sent_again_with_its_number),
        TEST(what_was_given_up_is_sent_again_to_be_void),
        TEST(what_is_given_up_during_a_greeting_has_another_one),
        TEST(what_a_node_does_not_take_any_more_is_unknown),
        TEST(a_duplicates_answer_is_an_answer),
        TEST(a_link_that_is_down_says_so),
        cmocka_unit_test_setup(stopping_ends_what_is_on_its_way, setup_own),
        cmocka_unit_test_setup(stopping_waits_for_acks_as_long_as_told, setup_own),
        cmocka_unit_test_setup(and_no_longer_than_it_must, setup_own),
        TEST(replies_have_values),
        TEST(info_may_be_longer_than_any_value),
        TEST(later_additions_are_lived_with),
        TEST_OWN(hostile_frames_cost_the_link),
        TEST(what_is_heard_may_be_cut_anywhere),
        TEST_OWN(a_node_that_is_not_there_is_named),
        TEST_OWN(where_all_refuse_it_is_given_up_soon),
        TEST_OWN(a_node_that_is_just_starting_is_waited_for),
        TEST_OWN(where_one_does_not_refuse_it_is_waited_for),
        TEST_OWN(who_was_connected_dials_on_though_all_refuse),
        TEST_OWN(a_node_that_says_nothing_is_given_up),
        TEST_OWN(a_cache_that_is_not_there_is_named),
        TEST_OWN(numbers_go_on_over_the_end_of_32_bits),
        cmocka_unit_test(options_out_of_range_are_named),
        TEST(an_operation_keeps_its_result),
        TEST(an_operation_may_be_freed_before_it_is_done),
        TEST(a_callback_may_send_and_not_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
