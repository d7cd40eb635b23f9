/*
 * A peer says in HELLO how large a frame it takes: nothing longer is sent to it, and it hears why.
 */
#include "shard/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "tests/support/node.h"

#define FRAME_MAX 5000
/* What fits exactly behind the header of a reply. */
#define VALUE_MAX (FRAME_MAX - FRAME_REPLY_BYTES)

static struct node node;
static struct peer peer; /* of shard 0, with the limit */
static char near_key[NODE_KEY_BYTES];
static char far_key[NODE_KEY_BYTES]; /* of shard 1 */
static char fits[VALUE_MAX + 1];
static char too_long[VALUE_MAX + 2];

static const struct cache_verb verbs[] = {{"echo", node_echo, NULL}};

static struct frame_hello hello_with(uint32_t frame_bytes_max)
{
    struct frame_hello hello = hello_any();
    hello.frame_bytes_max = frame_bytes_max;
    return hello;
}

static int setup(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(2);
    node_open(&node, &options);
    node_add_cache(&node, "demo", verbs, 1, NULL);
    peer = peer_greeted_as(&node, 0, hello_with(FRAME_MAX));
    node_key(&node, 0, "near", near_key);
    node_key(&node, 1, "far", far_key);
    memset(fits, 'v', VALUE_MAX);
    memset(too_long, 'v', VALUE_MAX + 1);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    peer_free(&peer);
    for (uint32_t i = 0; i < 2; i++) assert_int_equal(node.shards[i]->handed_over, 0);
    assert_int_equal(node.shards[0]->callers[0].reserved_bytes, 0);
    node_close(&node);
    return 0;
}

/* FAIL with both sizes in its text. */
static void expect_too_long(uint32_t seq)
{
    peer_expect_failure(&peer, seq, ERROR_TOO_BIG, "5001 bytes");
    assert_non_null(memmem(peer_tail(&peer, FRAME_REPLY_BYTES).data,
                           peer_tail(&peer, FRAME_REPLY_BYTES).size, "at most 5000", 12));
}

static void expect_limit(const char *key)
{
    peer_ask(&peer, ask_update(1, key, fits));
    peer_ask(&peer, ask_get(2, key));
    peer_ask(&peer, ask_update(3, key, too_long));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_expect_string(&peer, 2, fits);
    peer_expect_offset(&peer, 3, 2); /* what it sends has other limits: those of WELCOME */
    peer_ask(&peer, ask_get(4, key));
    node_settle(&node);
    expect_too_long(4);
    peer_ask(&peer, ask_verb(5, "echo", key, fits));
    node_settle(&node);
    peer_expect_string(&peer, 5, fits);
    peer_ask(&peer, ask_verb(6, "echo", key, too_long));
    node_settle(&node);
    expect_too_long(6);
    peer_ask(&peer, ask_verb(7, "echo", key, "and the link goes on"));
    node_settle(&node);
    peer_expect_string(&peer, 7, "and the link goes on");
}

static void a_reply_over_the_limit_is_a_failure(void **unused)
{
    (void)unused;
    expect_limit(near_key);
    assert_int_equal(node.shards[0]->counters.errors, 2);
}

static void so_it_is_over_a_lane(void **unused)
{
    (void)unused;
    expect_limit(far_key);
    assert_int_equal(node.shards[0]->counters.crossed_out, 7);
}

/* Up to 4096 bytes of value a reply lies in its mail, not in a block. */
static void so_it_is_in_one_mail(void **unused)
{
    (void)unused;
    peer_free(&peer);
    peer = peer_greeted_as(&node, 0, hello_with(4096));
    too_long[4081] = 0;
    peer_ask(&peer, ask_update(1, far_key, too_long));
    peer_ask(&peer, ask_get(2, far_key));
    too_long[4080] = 0;
    peer_ask(&peer, ask_update(3, far_key, too_long));
    peer_ask(&peer, ask_get(4, far_key));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    peer_expect_failure(&peer, 2, ERROR_TOO_BIG,
                        "4097 bytes, but frames on this link at most 4096");
    peer_expect_offset(&peer, 3, 2);
    peer_expect_string(&peer, 4, too_long);
    assert_int_equal(node.shards[0]->counters.replies + node.shards[1]->counters.replies, 4);
}

static void who_names_no_limit_hears_all(void **unused)
{
    (void)unused;
    struct peer other = peer_greeted(&node, 0, 0, 1);
    peer_ask(&other, ask_update(1, near_key, too_long));
    peer_ask(&other, ask_get(2, near_key));
    node_settle(&node);
    peer_expect_offset(&other, 1, 1);
    peer_expect_string(&other, 2, too_long);
    peer_free(&other);
}

static void what_nobody_hears_is_no_error(void **unused)
{
    (void)unused;
    struct ask ask = ask_verb(1, "echo", near_key, too_long);
    ask.want = WANT_ACK;
    peer_ask(&peer, ask);
    node_settle(&node);
    assert_int_equal(peer_expect_ack(&peer).requests, 1);
    peer_expect_silence(&peer);
    assert_int_equal(node.shards[0]->counters.errors, 0);
}

static void info_has_the_same_limit(void **unused)
{
    (void)unused;
    static char names[NODE_CACHES_MAX][FRAME_NAME_BYTES_MAX + 1];
    struct ask ask = ask_get(1, "");
    ask.type = FRAME_INFO;
    /* Names of quotes, each of which takes two bytes, make it long. */
    for (uint32_t i = 1; i < NODE_CACHES_MAX; i++) {
        memset(names[i], '"', FRAME_NAME_BYTES_MAX - 1);
        names[i][FRAME_NAME_BYTES_MAX - 1] = (char)('0' + i);
        node_add_cache(&node, names[i], NULL, 0, NULL);
    }
    struct peer other = peer_greeted(&node, 0, 0, 1);
    peer_ask(&other, ask);
    peer_ask(&peer, ask);
    node_settle(&node);
    assert_in_range(peer_expect(&other, 1, OUTCOME_OK, ERROR_NONE).length, FRAME_MAX + 1, 64 * KIB);
    peer_expect_failure(&peer, 1, ERROR_TOO_BIG, "at most 5000");
    peer_free(&other);
}

/* OPENED has no text: the cache cannot be opened on this link. */
static void a_list_of_verbs_over_the_limit_fails_the_open(void **unused)
{
    (void)unused;
    static char names[40][FRAME_NAME_BYTES_MAX + 1];
    static struct cache_verb many[40];
    for (unsigned i = 0; i < ARRAY_COUNT(many); i++) {
        memset(names[i], 'a', FRAME_NAME_BYTES_MAX);
        snprintf(names[i], sizeof names[i], "%u", i);
        names[i][strlen(names[i])] = 'a';
        many[i] = (struct cache_verb){names[i], node_echo, NULL};
    }
    node_add_cache(&node, "wordy", many, ARRAY_COUNT(many), NULL);
    for (unsigned i = 0; i < 2; i++) {
        struct stream stream = {0};
        stream_open(&stream, i, i == 0 ? "wordy" : "demo");
        peer_send_stream(&peer, &stream);
        node_settle(&node);
        const struct frame_prefix *prefix = peer_next(&peer);
        assert_non_null(prefix);
        assert_int_equal(prefix->type, FRAME_OPENED);
        assert_int_equal(prefix->small, i == 0 ? reply_code(OUTCOME_FAIL, ERROR_TOO_BIG) : 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_reply_over_the_limit_is_a_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(so_it_is_over_a_lane, setup, teardown),
        cmocka_unit_test_setup_teardown(so_it_is_in_one_mail, setup, teardown),
        cmocka_unit_test_setup_teardown(who_names_no_limit_hears_all, setup, teardown),
        cmocka_unit_test_setup_teardown(what_nobody_hears_is_no_error, setup, teardown),
        cmocka_unit_test_setup_teardown(info_has_the_same_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(a_list_of_verbs_over_the_limit_fails_the_open, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
