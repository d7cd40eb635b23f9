/*
 * What a shard decides on a HELLO.
 */
#include "shard/greeting.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"

static const struct greeting_node node_plain = {
    .shard = 1, .shards_count = 4, .shard_any = 3, .cluster = 0xc1};

/* Decides on a copy in a block of its own size, so that a sanitizer sees a read past its end. */
static struct greeting decide(const struct greeting_node *node, const void *frame, size_t length)
{
    struct greeting greeting;
    memset(&greeting, 0xee, sizeof greeting);
    uint8_t *copy = malloc(length);
    assert_non_null(copy);
    memcpy(copy, frame, length);
    greeting_decide(&greeting, node, copy, length);
    free(copy);
    return greeting;
}

static struct greeting decide_hello(const struct greeting_node *node, struct frame_hello hello)
{
    uint8_t frame[sizeof hello + 8];
    if (hello.role == 0) hello.role = ROLE_CLIENT;
    hello_encode(&hello, (struct bytes){NULL, 0}, frame);
    return decide(node, frame, sizeof hello);
}

static void the_named_shard_speaks(void **unused)
{
    (void)unused;
    for (uint16_t shard = 0; shard < 4; shard++) {
        struct greeting greeting =
            decide_hello(&node_plain, (struct frame_hello){.shard = shard, .session = 9});
        assert_int_equal(greeting.action, shard == 1 ? GREETING_WELCOME : GREETING_HAND_OVER);
        assert_int_equal(greeting.shard, shard);
        assert_int_equal(greeting.hello.session, 9);
    }
}

static void any_shard_is_the_one_whose_turn_it_is(void **unused)
{
    (void)unused;
    struct greeting_node node = node_plain;
    struct frame_hello hello = {.shard = HELLO_SHARD_ANY};
    struct greeting greeting = decide_hello(&node, hello);
    assert_int_equal(greeting.action, GREETING_HAND_OVER);
    assert_int_equal(greeting.shard, 3);
    node.shard_any = 1;
    assert_int_equal(decide_hello(&node, hello).action, GREETING_WELCOME);
}

static void refusals_name_both_values(void **unused)
{
    (void)unused;
    struct greeting_node stopping = node_plain;
    stopping.stopping = true;
    const struct {
        const struct greeting_node *node;
        struct frame_hello hello;
        enum reply_error error;
        uint64_t got;
        uint64_t limit;
    } cases[] = {
        {&node_plain, {.shard = 4}, ERROR_INVALID, 4, 3},
        {&node_plain, {.shard = 65534}, ERROR_INVALID, 65534, 3},
        {&node_plain, {.cluster = 0xc2}, ERROR_DENIED, 0xc2, 0xc1},
        {&node_plain, {.role = ROLE_NODE}, ERROR_UNSUPPORTED, ROLE_NODE, ROLE_CLIENT},
        {&stopping, {.shard = 1}, ERROR_CLOSED, 0, 0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct greeting greeting = decide_hello(cases[i].node, cases[i].hello);
        assert_int_equal(greeting.action, GREETING_REFUSE);
        assert_int_equal(greeting.refusal.error, cases[i].error);
        assert_int_equal(greeting.refusal.got, cases[i].got);
        assert_int_equal(greeting.refusal.limit, cases[i].limit);
        assert_true(strlen(greeting.refusal.text) > 5);
    }
    assert_int_equal(decide_hello(&node_plain, (struct frame_hello){.cluster = 0xc1}).action,
                     GREETING_HAND_OVER);
}

static void no_other_frame_begins_a_link(void **unused)
{
    (void)unused;
    for (unsigned type = 0; type <= UINT8_MAX; type++) {
        struct frame_prefix prefix = {.length = sizeof prefix, .type = (uint8_t)type};
        struct greeting greeting = decide(&node_plain, &prefix, sizeof prefix);
        assert_int_equal(greeting.action, GREETING_REFUSE);
        assert_int_equal(greeting.refusal.error, ERROR_PROTOCOL);
        if (type == FRAME_HELLO) continue;
        assert_int_equal(greeting.refusal.got, type);
        assert_int_equal(greeting.refusal.limit, FRAME_HELLO);
    }
}

/* Version, then the rest: a peer of another version hears of that and nothing else. */
static void another_version_is_named_before_anything_else(void **unused)
{
    (void)unused;
    uint8_t frame[256] = {0};
    struct frame_prefix prefix = {.type = FRAME_HELLO, .small = 7};
    for (uint32_t length = 12; length < sizeof frame; length++) {
        prefix.length = length;
        memset(frame, 0xff, sizeof frame);
        memcpy(frame, &prefix, sizeof prefix);
        memcpy(frame + sizeof prefix, "FERO", 4);
        struct greeting greeting = decide(&node_plain, frame, length);
        assert_int_equal(greeting.action, GREETING_REFUSE);
        assert_int_equal(greeting.refusal.error, ERROR_PROTOCOL);
        assert_int_equal(greeting.refusal.got, 7);
        assert_int_equal(greeting.refusal.limit, FRAME_VERSION);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_named_shard_speaks),
        cmocka_unit_test(any_shard_is_the_one_whose_turn_it_is),
        cmocka_unit_test(refusals_name_both_values),
        cmocka_unit_test(no_other_frame_begins_a_link),
        cmocka_unit_test(another_version_is_named_before_anything_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
