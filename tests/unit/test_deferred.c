/*
 * Handlers that answer later: everything that can become of such a request, with its caller on the
 * same shard and on another one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/memory.h"
#include "engine/handler.h"
#include "tests/support/node.h"

#define KEPT_MAX 16
/* No turn of a test takes as long. */
#define PATIENCE_NS (20 * NS_PER_S)

static struct node node;
static struct cache_definition definition;
static char key[NODE_KEY_BYTES]; /* shard 0's */
static uint32_t at;              /* the shard of the caller's link */

/* What handlers keep, and what they were told. */
static fero_req *kept[KEPT_MAX];
static unsigned kept_count;
static unsigned calls;
static int32_t heard_event;
static int32_t heard_error;
static unsigned heard_count;
static void (*action)(void);

static void hear(fero_req *req, int32_t event, int32_t error, void *ud)
{
    assert_ptr_equal(ud, &kept);
    assert_non_null(req->key.ptr);
    heard_event = event;
    heard_error = error;
    heard_count++;
}

static int32_t keep(fero_req *req, void *ud)
{
    (void)ud;
    calls++;
    fero_req *own = fero_req_retain(req);
    if (own == NULL) return FERO_H_DEFER;
    assert_int_equal(fero_req_on(own, hear, &kept), 0);
    kept[kept_count++] = own;
    return FERO_H_DEFER;
}

/* Runs `action` on the shard. */
static int32_t act(fero_req *req, void *ud)
{
    (void)ud;
    action();
    return fero_reply(req, 0, NULL);
}

static void on_timer(fero_shard *shard, void *ud)
{
    fero_val value = {.type = FERO_T_STRING, .s = fero_str("late")};
    (void)shard;
    assert_int_equal(fero_reply(ud, 0, &value), 0);
    fero_req_release(ud);
}

static int32_t reply_after(fero_req *req, void *ud)
{
    (void)ud;
    fero_req *own = fero_req_retain(req);
    assert_non_null(own);
    assert_true(fero_after(own->shard, 1, on_timer, own) > 0);
    return FERO_H_DEFER;
}

static int32_t keep_and_return(fero_req *req, void *ud)
{
    fero_req *own = fero_req_retain(req);
    assert_non_null(own);
    fero_req_release(fero_req_retain(own) == own ? own : NULL);
    if (ud != NULL) kept[kept_count++] = own;
    if (ud == NULL) fero_req_release(own);
    return ud != NULL ? *(int32_t *)ud : FERO_H_DEFER;
}

static int32_t returned;

static int32_t defer_without_retaining(fero_req *req, void *ud)
{
    (void)req;
    (void)ud;
    return FERO_H_DEFER;
}

static const fero_verb verbs[] = {{"keep", keep, NULL},
                                  {"act", act, NULL},
                                  {"after", reply_after, NULL},
                                  {"returns", keep_and_return, &returned},
                                  {"releases", keep_and_return, NULL},
                                  {"forgets", defer_without_retaining, NULL}};

static int setup_at(uint32_t shard)
{
    struct shard_options options = node_options(2);
    options.lane_bytes = 16 * KIB;
    at = shard;
    kept_count = 0;
    calls = 0;
    heard_count = 0;
    heard_event = 0;
    heard_error = 0;
    node_open(&node, &options);
    const fero_opts opts = {
        .size = sizeof opts, .verbs = verbs, .verbs_count = ARRAY_COUNT(verbs), .handler = keep};
    assert_int_equal(definition_make(&definition, "demo", 0, &opts, NULL), 0);
    for (uint32_t i = 0; i < 2; i++) {
        node.shards[i]->command_argument = &definition;
        node.shards[i]->command = COMMAND_OPEN_CACHE;
        node_turn_one(&node, i);
        assert_int_equal(node.shards[i]->command_result, 0);
    }
    node_key(&node, 0, "key", key);
    return 0;
}

static int setup_same(void **unused)
{
    (void)unused;
    return setup_at(0);
}

static int setup_other(void **unused)
{
    (void)unused;
    return setup_at(1);
}

static int teardown(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < kept_count; i++) fero_req_release(kept[i]);
    node_close(&node);
    definition_free(&definition);
    return 0;
}

static struct peer connect_peer(uint64_t session, uint64_t seq_first)
{
    return peer_greeted(&node, at, session, seq_first);
}

/* Of a request that is kept; its session comes back, or does not. */
static struct peer lose_caller_of_kept(void)
{
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    peer_hang_up(&peer);
    node_settle(&node);
    return peer;
}

/* On the thread of the shard that the handlers run on. */
static void on_shard(void (*function)(void))
{
    struct peer peer = peer_greeted(&node, 0, 0, 1);
    action = function;
    peer_ask(&peer, ask_verb(1, "act", key, ""));
    node_settle(&node);
    peer_expect(&peer, 1, OUTCOME_OK, ERROR_NONE);
    peer_hang_up(&peer);
    node_settle(&node);
    peer_free(&peer);
}

static void reply_hello(void)
{
    fero_val value = {.type = FERO_T_STRING, .s = fero_str("hello")};
    assert_int_equal(fero_reply(kept[0], 0, &value), 0);
}

static int replied;
static void try_to_reply(void)
{
    replied = fero_reply(kept[0], 0, NULL);
}

static void expect_nothing_left(void)
{
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(node.shards[i]->deferreds.count, 0);
        assert_int_equal(node.shards[i]->counters.deferred, 0);
        assert_int_equal(node.shards[i]->handed_over, 0);
        assert_int_equal(node.shards[i]->crossing[1 - i].promised_bytes, 0);
    }
}

/* --------------------------------------------------------------------------------------- replies */

static void a_timer_replies(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    uint64_t until_ns = clock_now_ns() + PATIENCE_NS;
    const struct frame_prefix *prefix = NULL;
    peer_ask(&peer, ask_verb(1, "after", key, "x"));
    while (prefix == NULL && clock_now_ns() < until_ns) {
        node_turn(&node);
        prefix = peer_next_answer(&peer);
    }
    assert_non_null(prefix);
    assert_int_equal(prefix->type, FRAME_REPLY);
    assert_true(bytes_equal(peer_tail(&peer, FRAME_REPLY_BYTES), bytes_of("late")));
    node_settle(&node);
    expect_nothing_left();
    peer_free(&peer);
}

static void a_retained_request_keeps_what_it_says(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_verb(1, "keep", key, "value"));
    node_settle(&node);
    peer_ask(&peer, ask_verb(2, "keep", key, "another")); /* over what the first one lay in */
    node_settle(&node);
    assert_int_equal(kept_count, 2);
    assert_int_equal(kept[0]->verb.len, 4);
    assert_memory_equal(kept[0]->verb.ptr, "keep", 4);
    assert_int_equal(kept[0]->key.len, strlen(key));
    assert_memory_equal(kept[0]->key.ptr, key, strlen(key));
    assert_int_equal(kept[0]->value.s.len, 5);
    assert_memory_equal(kept[0]->value.s.ptr, "value", 5);
    assert_int_equal(kept[0]->seq, 1);
    assert_int_equal(kept[0]->session, 77);
    peer_free(&peer);
}

static void answers_come_in_any_order(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    peer_ask(&peer, ask_get(2, key));
    node_settle(&node);
    peer_expect_failure(&peer, 2, ERROR_NOT_FOUND, "");
    on_shard(reply_hello);
    peer_expect_string(&peer, 1, "hello");
    expect_nothing_left();
    peer_free(&peer);
}

static void a_second_reply_is_refused_and_not_sent(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    on_shard(reply_hello);
    peer_expect_string(&peer, 1, "hello");
    on_shard(try_to_reply);
    assert_int_equal(replied, FERO_E_INVAL);
    peer_expect_silence(&peer);
    assert_int_equal(heard_count, 0);
    peer_free(&peer);
}

static void another_thread_than_the_shards_is_told_so(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    assert_int_equal(fero_req_on(kept[0], NULL, NULL), FERO_E_INVAL);
    assert_int_equal(fero_next(kept[0], NULL), FERO_E_UNSUPPORTED);
    assert_int_equal(fero_after(kept[0]->shard, 1, on_timer, NULL), FERO_E_INVAL);
    assert_int_equal(fero_shard_get(kept[0]->shard, fero_str(key), NULL, NULL), FERO_E_INVAL);
    peer_free(&peer);
}

static uint8_t large[20000];
static void reply_large(void)
{
    fero_val value = {.type = FERO_T_BYTES, .s = {large, 20000}};
    assert_int_equal(fero_reply(kept[0], 0, &value), 0);
}

static void reply_too_large(void)
{
    fero_val value = {.type = FERO_T_BYTES, .s = {large, node.options.value_bytes_max + 1}};
    assert_int_equal(fero_reply(kept[0], 0, &value), FERO_E_TOOBIG);
    assert_int_equal(fero_reply(kept[0], 1, NULL), FERO_E_INVAL);
    value.type = 99;
    assert_int_equal(fero_reply(kept[0], 0, &value), FERO_E_TYPE);
}

static void a_large_reply_arrives_whole(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    for (size_t i = 0; i < sizeof large; i++) large[i] = (uint8_t)(i * 7);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    on_shard(reply_too_large);
    on_shard(reply_large);
    struct frame_reply reply = peer_expect(&peer, 1, OUTCOME_OK, ERROR_NONE);
    assert_true(bytes_equal(peer_tail(&peer, sizeof reply), (struct bytes){large, sizeof large}));
    expect_nothing_left();
    peer_free(&peer);
}

static void what_a_handler_returns_counts_if_it_did_not_defer(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    returned = FERO_E_CONFLICT;
    peer_ask(&peer, ask_verb(1, "returns", key, ""));
    node_settle(&node);
    peer_expect_failure(&peer, 1, ERROR_CONFLICT, "");
    returned = FERO_H_REPLIED;
    peer_ask(&peer, ask_verb(2, "returns", key, ""));
    node_settle(&node);
    peer_expect_failure(&peer, 2, ERROR_NO_REPLY, "");
    expect_nothing_left();
    on_shard(try_to_reply);
    assert_int_equal(replied, FERO_E_NOTCONN);
    peer_free(&peer);
}

static void deferring_without_retaining_is_declining(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_verb(1, "forgets", key, ""));
    node_settle(&node);
    peer_expect_failure(&peer, 1, ERROR_NO_REPLY, "declined");
    peer_free(&peer);
}

static void the_last_reference_given_back_is_declining(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_verb(1, "releases", key, ""));
    node_settle(&node);
    peer_expect_failure(&peer, 1, ERROR_NO_REPLY, "declined");
    expect_nothing_left();
    peer_free(&peer);
}

static void one_that_wants_no_reply_gets_none(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    struct ask ask = ask_verb(1, "keep", key, "");
    ask.want = WANT_NOTHING;
    peer_ask(&peer, ask);
    node_settle(&node);
    on_shard(reply_hello);
    assert_null(peer_next_answer(&peer));
    expect_nothing_left();
    peer_free(&peer);
}

/* --------------------------------------------------------------------------------- too many, too late */

static void more_than_allowed_are_told_to_come_later(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    for (uint32_t i = 1; i <= node.options.deferred_max; i++)
        peer_ask(&peer, ask_verb(i, "keep", key, ""));
    node_settle(&node);
    assert_int_equal(kept_count, node.options.deferred_max);
    peer_ask(&peer, ask_verb(100, "keep", key, ""));
    node_settle(&node);
    peer_expect_failure(&peer, 100, ERROR_BUSY, "");
    on_shard(reply_hello);
    peer_expect_string(&peer, 1, "hello");
    peer_ask(&peer, ask_verb(101, "keep", key, ""));
    node_settle(&node);
    assert_int_equal(kept_count, node.options.deferred_max + 1);
    peer_free(&peer);
}

static void turn_until_heard(unsigned count)
{
    uint64_t until_ns = clock_now_ns() + PATIENCE_NS;
    while (heard_count < count && clock_now_ns() < until_ns) node_turn(&node);
    assert_int_equal(heard_count, count);
    node_settle(&node);
}

static void a_deadline_ends_it_and_the_handler_hears(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    struct ask ask = ask_verb(1, "keep", key, "");
    ask.extensions.present |= 1u << EXT_DEADLINE_MS;
    ask.extensions.deadline_ms = 50;
    peer_ask(&peer, ask);
    turn_until_heard(1);
    assert_int_equal(heard_event, FERO_REQ_STOPPED);
    assert_int_equal(heard_error, FERO_E_TIMEOUT);
    peer_expect(&peer, 1, OUTCOME_UNKNOWN, ERROR_TIMEOUT);
    on_shard(try_to_reply);
    assert_int_equal(replied, FERO_E_TIMEOUT);
    peer_expect_silence(&peer);
    expect_nothing_left();
    peer_free(&peer);
}

static void without_a_session_a_lost_link_ends_it(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(0, 1);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    peer_hang_up(&peer);
    turn_until_heard(1);
    assert_int_equal(heard_event, FERO_REQ_STOPPED);
    assert_int_equal(heard_error, FERO_E_NOTCONN);
    on_shard(try_to_reply);
    assert_int_equal(replied, FERO_E_NOTCONN);
    expect_nothing_left();
    peer_free(&peer);
}

/* --------------------------------------------------------------------------------------- sent again */

static void sent_again_the_handler_is_not_called_again(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    assert_int_equal(calls, 1);
    on_shard(reply_hello);
    peer_expect_string(&peer, 1, "hello");
    peer_expect_silence(&peer);
    expect_nothing_left();
    peer_free(&peer);
}

static void the_answer_goes_to_the_link_that_came_back(void **unused)
{
    (void)unused;
    struct peer lost = lose_caller_of_kept();
    at = 1 - at; /* wherever it comes */
    struct peer peer = connect_peer(77, 2);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    assert_int_equal(calls, 1);
    on_shard(reply_hello);
    peer_expect_string(&peer, 1, "hello");
    assert_int_equal(heard_count, 0);
    expect_nothing_left();
    peer_free(&lost);
    peer_free(&peer);
}

static void an_answer_waits_for_its_caller_to_come_back(void **unused)
{
    (void)unused;
    struct peer lost = lose_caller_of_kept();
    on_shard(reply_hello);
    struct peer peer = connect_peer(77, 2);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    assert_int_equal(calls, 1);
    peer_expect_string(&peer, 1, "hello");
    expect_nothing_left();
    peer_free(&lost);
    peer_free(&peer);
}

/* Half of them fill a lane. */
#define ANSWERS 8
static char much[4001];
static void reply_much(void)
{
    fero_val value = {.type = FERO_T_STRING, .s = fero_str(much)};
    for (unsigned i = 0; i < kept_count; i++) assert_int_equal(fero_reply(kept[i], 0, &value), 0);
}

/* More than the lane takes: the rest waits for room in it when the link is lost. */
static void answers_that_no_lane_took_wait_for_their_caller(void **unused)
{
    (void)unused;
    memset(much, 'x', sizeof much - 1);
    struct peer lost = connect_peer(77, 1);
    for (uint32_t seq = 1; seq <= ANSWERS; seq++) peer_ask(&lost, ask_verb(seq, "keep", key, ""));
    node_settle(&node);
    assert_int_equal(calls, ANSWERS);
    struct peer acting = peer_greeted(&node, 0, 0, 1);
    action = reply_much;
    peer_hang_up(&lost);
    node_turn_one(&node, 1);
    node_turn_one(&node, 1);
    peer_ask(&acting, ask_verb(1, "act", key, ""));
    node_turn_one(&node, 0);
    node_turn_one(&node, 0);
    node_settle(&node);
    peer_expect(&acting, 1, OUTCOME_OK, ERROR_NONE);
    struct peer peer = connect_peer(77, ANSWERS + 1);
    peer_ask(&peer, ask_verb(ANSWERS, "keep", key, ""));
    node_settle(&node);
    peer_expect_string(&peer, ANSWERS, much);
    assert_int_equal(calls, ANSWERS);
    peer_free(&lost);
    peer_free(&acting);
    peer_free(&peer);
}

static void another_link_of_the_session_takes_it_over(void **unused)
{
    (void)unused;
    struct peer first = connect_peer(77, 1);
    struct peer second = connect_peer(77, 2);
    peer_ask(&first, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    peer_ask(&second, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    peer_hang_up(&first);
    node_settle(&node);
    on_shard(reply_hello);
    peer_expect_string(&second, 1, "hello");
    assert_int_equal(calls, 1);
    expect_nothing_left();
    peer_free(&first);
    peer_free(&second);
}

/* ----------------------------------------------------------------------------------------- streams */

static struct ask ask_stop(uint32_t seq, const uint64_t *stopped)
{
    struct ask ask = ask_get(seq, "");
    ask.type = FRAME_STOP;
    ask.value_type = VALUE_INT64;
    ask.value = (struct bytes){stopped, sizeof *stopped};
    return ask;
}

static void a_caller_stops_its_request(void **unused)
{
    (void)unused;
    static const uint64_t first = 1;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    peer_ask(&peer, ask_stop(2, &first));
    node_settle(&node);
    peer_expect(&peer, 2, OUTCOME_OK, ERROR_NONE);
    peer_expect(&peer, 1, OUTCOME_UNKNOWN, ERROR_STOPPED);
    assert_int_equal(heard_error, FERO_E_STOPPED);
    on_shard(try_to_reply);
    assert_int_equal(replied, FERO_E_STOPPED);
    peer_ask(&peer, ask_stop(3, &first));
    node_settle(&node);
    peer_expect_failure(&peer, 3, ERROR_NOT_FOUND, "");
    expect_nothing_left();
    peer_free(&peer);
}

/* Where it crosses a lane, the caller's shard has not heard yet that it is deferred. */
static void a_stop_right_behind_its_request_is_not_lost(void **unused)
{
    (void)unused;
    static const uint64_t first = 1;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    peer_ask(&peer, ask_stop(2, &first));
    node_settle(&node);
    peer_expect(&peer, 2, OUTCOME_OK, ERROR_NONE);
    peer_expect(&peer, 1, OUTCOME_UNKNOWN, ERROR_STOPPED);
    assert_int_equal(heard_error, FERO_E_STOPPED);
    expect_nothing_left();
    peer_free(&peer);
}

static unsigned parts;
static void reply_parts(void)
{
    fero_val value = {.type = FERO_T_BYTES, .s = {large, 1000}};
    int err = 0;
    for (parts = 0; parts < 100000 && err == 0; parts += err == 0)
        err = fero_reply_part(kept[0], &value);
    assert_int_equal(err, FERO_E_AGAIN);
}

/* The peer reads nothing: what is under way is bounded, and goes on when it reads. */
static void a_stream_waits_for_its_reader(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    unsigned read = 0;
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    on_shard(reply_parts);
    size_t bound = DEFERRED_ROOM_BYTES + node.options.outbox_bytes_max;
    assert_true(parts > 10 && parts * 1000 <= bound + 1000);
    node_settle(&node);
    for (const struct frame_prefix *prefix; (prefix = peer_next_answer(&peer)) != NULL; read++)
        assert_true((prefix->flags & REPLY_MORE) != 0);
    assert_int_equal(read, parts);
    node_settle(&node);
    assert_int_equal(heard_event, FERO_REQ_ROOM);
    on_shard(reply_hello);
    peer_expect_string(&peer, 1, "hello");
    expect_nothing_left();
    peer_free(&peer);
}

/* Its first part is what the caller hears first, also where he was away when the handler had it. */
static void a_stream_waits_for_its_caller_to_come_back(void **unused)
{
    (void)unused;
    struct peer lost = lose_caller_of_kept();
    on_shard(reply_parts);
    assert_int_equal(parts, 0);
    struct peer peer = connect_peer(77, 2);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    assert_int_equal(calls, 1);
    assert_int_equal(heard_event, FERO_REQ_ROOM);
    on_shard(reply_parts);
    assert_true(parts > 0);
    const struct frame_prefix *prefix = peer_next_answer(&peer);
    assert_true((prefix->flags & REPLY_MORE) != 0);
    on_shard(reply_hello);
    while ((prefix = peer_next_answer(&peer)) != NULL && (prefix->flags & REPLY_MORE) != 0) {
    }
    expect_nothing_left();
    peer_free(&lost);
    peer_free(&peer);
}

/* --------------------------------------------------------------------------------- the default handler */

static fero_result next_result;
static void next_and_reply(void)
{
    fero_val value = {.type = FERO_T_STRING, .s = fero_str("checked")};
    assert_int_equal(fero_next(kept[0], &next_result), 0);
    assert_int_equal(fero_next(kept[0], &next_result), FERO_E_INVAL);
    assert_int_equal(fero_reply(kept[0], next_result.error, &value), 0);
}

static void next_applies_a_deferred_update(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_update(1, key, "david"));
    node_settle(&node);
    on_shard(next_and_reply);
    assert_int_equal(next_result.outcome, FERO_OUTCOME_OK);
    assert_int_equal(next_result.offset, 1);
    struct frame_reply reply = peer_expect(&peer, 1, OUTCOME_OK, ERROR_NONE);
    assert_int_equal(reply.offset, 1);
    assert_true(bytes_equal(peer_tail(&peer, sizeof reply), bytes_of("checked")));
    peer_ask(&peer, ask_get(2, key));
    node_settle(&node);
    peer_expect_string(&peer, 2, "david");
    expect_nothing_left();
    peer_free(&peer);
}

static void next_after_a_resent_update_applies_it_once(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_update(1, key, "david"));
    node_settle(&node);
    on_shard(next_and_reply);
    peer_expect(&peer, 1, OUTCOME_OK, ERROR_NONE);
    peer_ask(&peer, ask_update(1, key, "david"));
    node_settle(&node);
    assert_int_equal(kept_count, 2); /* verbs and their like are not remembered, changes are */
    fero_req_release(kept[0]);
    kept[0] = kept[1];
    kept_count = 1;
    on_shard(next_and_reply);
    assert_int_equal(next_result.offset, 1);
    peer_expect_offset(&peer, 1, 1);
    peer_free(&peer);
}

static void next_of_a_missing_key_tells_the_failure(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_remove(1, key));
    node_settle(&node);
    on_shard(next_and_reply);
    assert_int_equal(next_result.outcome, FERO_OUTCOME_FAIL);
    assert_int_equal(next_result.error, FERO_E_NOTFOUND);
    peer_expect_failure(&peer, 1, ERROR_NOT_FOUND, "checked");
    peer_free(&peer);
}

/* ------------------------------------------------------------------------------------------ the end */

static void a_node_that_stops_ends_them(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    peer_ask(&peer, ask_verb(1, "keep", key, ""));
    node_settle(&node);
    node_stop(&node, 0);
    node_stop(&node, 1);
    turn_until_heard(1);
    assert_int_equal(heard_error, FERO_E_CLOSED);
    peer_expect(&peer, 1, OUTCOME_UNKNOWN, ERROR_CLOSED);
    assert_int_equal(node.shards[0]->deferreds.count, 0);
    peer_free(&peer);
}

static void any_allocation_may_fail(void **unused)
{
    (void)unused;
    struct peer peer = connect_peer(77, 1);
    unsigned failed = 0;
    /* The link's own buffers are there already: without memory for those it is closed. */
    for (uint32_t seq = 100; seq < 110; seq++) {
        peer_ask(&peer, ask_get(seq, key));
        node_settle(&node);
        peer_expect_failure(&peer, seq, ERROR_NOT_FOUND, "");
    }
    for (uint32_t nth = 1; nth < 12; nth++) {
        struct ask ask = ask_verb(nth, "keep", key, "");
        ask.extensions.present |= 1u << EXT_DEADLINE_MS;
        ask.extensions.deadline_ms = 100000;
        peer_ask(&peer, ask);
        memory_fail_after(nth);
        node_settle(&node);
        memory_fail_after(0);
        if (kept_count == 0) {
            failed++;
            struct frame_reply reply;
            const struct frame_prefix *prefix = peer_next_answer(&peer);
            assert_non_null(prefix);
            memcpy(&reply, prefix, sizeof reply);
            assert_int_equal(reply_outcome(reply.code), OUTCOME_FAIL);
        } else {
            on_shard(reply_hello);
            peer_expect_string(&peer, nth, "hello");
            fero_req_release(kept[--kept_count]);
        }
        expect_nothing_left();
    }
    assert_true(failed > 0 && failed < 11);
    peer_free(&peer);
}

/* clang-format off */
#define TEST(name)                                                                                 \
    {#name " (same shard)", name, setup_same, teardown, NULL},                                     \
    {#name " (other shard)", name, setup_other, teardown, NULL}
/* clang-format on */

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_timer_replies),
        TEST(a_retained_request_keeps_what_it_says),
        TEST(answers_come_in_any_order),
        TEST(a_second_reply_is_refused_and_not_sent),
        TEST(another_thread_than_the_shards_is_told_so),
        TEST(a_large_reply_arrives_whole),
        TEST(what_a_handler_returns_counts_if_it_did_not_defer),
        TEST(deferring_without_retaining_is_declining),
        TEST(the_last_reference_given_back_is_declining),
        TEST(one_that_wants_no_reply_gets_none),
        TEST(more_than_allowed_are_told_to_come_later),
        TEST(a_deadline_ends_it_and_the_handler_hears),
        TEST(without_a_session_a_lost_link_ends_it),
        TEST(sent_again_the_handler_is_not_called_again),
        TEST(the_answer_goes_to_the_link_that_came_back),
        TEST(an_answer_waits_for_its_caller_to_come_back),
        TEST(answers_that_no_lane_took_wait_for_their_caller),
        TEST(another_link_of_the_session_takes_it_over),
        TEST(a_caller_stops_its_request),
        TEST(a_stop_right_behind_its_request_is_not_lost),
        TEST(a_stream_waits_for_its_reader),
        TEST(a_stream_waits_for_its_caller_to_come_back),
        TEST(next_applies_a_deferred_update),
        TEST(next_after_a_resent_update_applies_it_once),
        TEST(next_of_a_missing_key_tells_the_failure),
        TEST(a_node_that_stops_ends_them),
        TEST(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
