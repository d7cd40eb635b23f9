/*
 * What a shard counts of its own waiting: the time that it spins, and nothing while it works.
 */
#include "shard/shard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "cli/json.h"
#include "tests/support/node.h"

/* An idle shard is woken so long after it has begun to look, and counts so much of it at least, */
#define IDLE_NS (50 * NS_PER_US)
/* even where something else has the cpu meanwhile. */
#define COUNTED_NS_MIN (20 * NS_PER_US)
#define TURNS 50

static struct node node;
static struct peer peer;
static uint64_t wake_ns; /* 0: it has not looked yet */

/* A fake_io_fn. */
static void wake_later(struct fake_io *fake, void *context)
{
    (void)context;
    if (wake_ns == 0) wake_ns = clock_now_ns() + IDLE_NS;
    if (clock_now_ns() >= wake_ns) io_wake(fake_io_base(fake), NULL);
}

static void open_with(enum shard_idle idle)
{
    struct shard_options options = node_options(1);
    options.idle = idle;
    options.spin_ns_max = 3600 * NS_PER_S; /* it never gives up */
    node_open(&node, &options);
    node_add_cache(&node, "demo", NULL, 0, NULL);
    peer = peer_greeted(&node, 0, 0, 1);
}

static void close_all(void)
{
    peer_free(&peer);
    node_close(&node);
}

static uint64_t spin_ns(void)
{
    return node.shards[0]->counters.spin_ns;
}

/* A turn that has nothing to do; what it counts. */
static uint64_t idle_turn(void)
{
    uint64_t before_ns = spin_ns();
    wake_ns = 0;
    fake_io_on_wait(node.ios[0], wake_later, NULL);
    node_turn(&node);
    return spin_ns() - before_ns;
}

static void an_idle_shard_counts_what_it_spins(void **unused)
{
    (void)unused;
    open_with(IDLE_ADAPTIVE);
    for (unsigned i = 0; i < TURNS; i++) assert_true(idle_turn() >= COUNTED_NS_MIN);
    close_all();
}

static void so_does_one_that_never_sleeps(void **unused)
{
    (void)unused;
    open_with(IDLE_BUSY_POLL);
    for (unsigned i = 0; i < TURNS; i++) assert_true(idle_turn() >= COUNTED_NS_MIN);
    close_all();
}

static void a_busy_shard_counts_nothing(void **unused)
{
    (void)unused;
    open_with(IDLE_ADAPTIVE);
    uint64_t before_ns = spin_ns();
    for (uint32_t seq = 1; seq <= TURNS; seq++) {
        peer_ask(&peer, ask_update(seq, "k", "v"));
        node_turn(&node);
    }
    assert_int_equal(node.shards[0]->counters.updates, TURNS);
    assert_int_equal(spin_ns(), before_ns);
    close_all();
}

static void a_shard_that_only_sleeps_counts_nothing(void **unused)
{
    (void)unused;
    open_with(IDLE_SLEEP);
    for (unsigned i = 0; i < TURNS; i++) node_turn(&node);
    assert_int_equal(spin_ns(), 0);
    close_all();
}

/* Whoever had the cpu for milliseconds meanwhile is not to be counted. */
static void what_is_counted_is_no_more_than_looking_takes(void **unused)
{
    (void)unused;
    open_with(IDLE_ADAPTIVE);
    node.shards[0]->now_ns -= NS_PER_S; /* the turn before was a second ago */
    assert_in_range(idle_turn(), COUNTED_NS_MIN, NS_PER_MS);
    close_all();
}

static void info_tells_it(void **unused)
{
    (void)unused;
    char text[INFO_BYTES_MAX];
    open_with(IDLE_ADAPTIVE);
    assert_true(idle_turn() > 0);
    size_t bytes = info_write(node.shards[0], text, sizeof text);
    assert_int_equal(json_sum(text, bytes, "spin_ns"), spin_ns());
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_shard_counts_what_it_spins),
        cmocka_unit_test(so_does_one_that_never_sleeps),
        cmocka_unit_test(a_busy_shard_counts_nothing),
        cmocka_unit_test(a_shard_that_only_sleeps_counts_nothing),
        cmocka_unit_test(what_is_counted_is_no_more_than_looking_takes),
        cmocka_unit_test(info_tells_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
