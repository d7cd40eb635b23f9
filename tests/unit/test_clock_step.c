/*
 * The wall clock is stepped, by hand or by a time server: changes stay in order, and no time that
 * anybody was given gets shorter or longer, since those are the monotonic clock's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "ring/slot.h"
#include "tests/support/node.h"

#define HOUR_MS ((uint64_t)3600 * 1000)

static uint64_t wall_ms;
static struct node node;
static struct peer peer;

/* The linker calls this instead: see test_clock_step.mk. */
uint64_t __wrap_clock_wall_ms(void);
uint64_t __wrap_clock_wall_ms(void)
{
    return wall_ms;
}

static int setup(void **unused)
{
    (void)unused;
    wall_ms = 1700000000000;
    struct shard_options options = node_options(1);
    options.greeting_ns_max = 3600 * NS_PER_S;
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    peer = peer_greeted(&node, 0, 5, 1);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    peer_free(&peer);
    node_close(&node);
    return 0;
}

/* The wall clock shows another time, and the shard looks at it. */
static void step_to(uint64_t ms)
{
    wall_ms = ms;
    node.shards[0]->wall_read_ns = 0;
}

/* Changes a key; returns when, as its record says. */
static uint64_t change_at_hlc(uint32_t seq)
{
    struct slot_walk walk;
    peer_ask(&peer, ask_update(seq, "k", "v"));
    node_settle(&node);
    peer_expect_offset(&peer, seq, seq);
    slot_walk_begin(&walk, &node.shards[0]->caches[0]->store.log, slot_of_key("k", 1));
    return slot_walk_next(&walk)->hlc;
}

static void changes_stay_in_order_whatever_the_wall_clock_does(void **unused)
{
    (void)unused;
    static const int64_t steps[] = {0, -1, 1, -24, 3, -100, -1, 200, -300};
    uint64_t last = change_at_hlc(1);
    uint64_t ms = wall_ms;
    for (uint32_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        ms += (uint64_t)steps[i] * HOUR_MS;
        step_to(ms);
        uint64_t hlc = change_at_hlc(2 + i);
        assert_true(hlc > last);
        assert_true(hlc >> 16 >= ms);
        last = hlc;
    }
}

static void nobody_is_late_for_it(void **unused)
{
    (void)unused;
    struct peer silent = peer_dial(&node, 0);
    struct ask ask = ask_update(1, "k", "v");
    ask.extensions =
        (struct extensions){.present = 1u << EXT_DEADLINE_MS, .deadline_ms = 1800 * 1000};
    step_to(wall_ms + 10 * HOUR_MS);
    peer_ask(&peer, ask);
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1);
    step_to(wall_ms - 20 * HOUR_MS);
    node_settle(&node);
    assert_true(peer_is_up(&silent));
    assert_in_range(node.shards[0]->greeting.first->deadline_ns,
                    node.shards[0]->now_ns + 3500 * NS_PER_S,
                    node.shards[0]->now_ns + 3600 * NS_PER_S);
    peer_free(&silent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(changes_stay_in_order_whatever_the_wall_clock_does, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(nobody_is_late_for_it, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
