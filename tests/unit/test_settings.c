/*
 * From options to the numbers that a node runs with.
 */
#include "engine/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "shard/crossing.h"

#define MACHINE (16 * GIB)
#define DESCRIPTORS 1024

static int make(struct settings *settings, const fero_runtime_opts *opts)
{
    struct cpu_list cpus = {.count = 4, .cpus = {0, 1, 2, 3}};
    return settings_make(settings, opts, MACHINE, &cpus, DESCRIPTORS);
}

static struct settings made(fero_runtime_opts opts)
{
    struct settings settings;
    int err = make(&settings, &opts);
    if (err != 0) fail_msg("%s", fero_errmsg());
    return settings;
}

static void zero_means_the_default(void **unused)
{
    (void)unused;
    struct settings settings = made((fero_runtime_opts){0});
    const struct shard_options *shard = &settings.shard;
    assert_int_equal(shard->shards_count, 4);
    assert_int_equal(shard->idle, IDLE_ADAPTIVE);
    assert_int_equal(settings.memory_max_bytes, MACHINE / 10 * 8);
    assert_int_equal(settings.history_max_bytes, 128 * MIB);
    assert_int_equal(shard->key_bytes_max, 1 * KIB);
    assert_int_equal(shard->value_bytes_max, 1 * MIB);
    assert_int_equal(shard->frame_bytes_max, 24 + 512 + 1 * KIB + 1 * MIB);
    assert_int_equal(shard->outbox_bytes_max, 1 * MIB);
    assert_false(shard->unbatched);
    assert_int_equal(shard->window_requests, SESSION_WINDOW);
    assert_int_equal(shard->window_bytes, 4 * MIB);
    assert_int_equal(shard->lane_bytes, 1 * MIB);
    assert_int_equal(shard->deferred_max, 4096);
    assert_int_equal(shard->connections_max, DESCRIPTORS - 256);
    assert_int_equal(settings.connections_wanted, DESCRIPTORS - 256);
    assert_int_equal(shard->half_open_max, 256);
    assert_int_equal(shard->half_open_source_max, 16);
    assert_true(shard->half_open_spares_loopback);
    assert_int_equal(shard->progress_ns, 10 * NS_PER_S);
    assert_int_equal(shard->progress_bytes, 10 * KIB);
    assert_int_equal(shard->links_bytes_max, MACHINE / 10 * 8 / 8 / 4);
    assert_int_equal(shard->history_records_max, 0);
    assert_int_equal(shard->greeting_ns_max, 2 * NS_PER_S);
}

static void nodes_draw_their_identities(void **unused)
{
    (void)unused;
    struct settings a = made((fero_runtime_opts){0});
    struct settings b = made((fero_runtime_opts){0});
    assert_int_not_equal(a.shard.node, b.shard.node);
    assert_int_not_equal(a.shard.cluster, b.shard.cluster);
    assert_int_not_equal(a.shard.hash_seed, b.shard.hash_seed);
}

/* Each number: its bounds are taken, and one step further is refused, naming option and value. */
static void numbers_have_ranges(void **unused)
{
    (void)unused;
    static const struct {
        size_t offset;
        int64_t low;
        int64_t high;
        const char *name;
    } ranges[] = {
        {offsetof(fero_runtime_opts, outbox_max_bytes), 4096, 1 << 30, "outbox.max"},
        {offsetof(fero_runtime_opts, key_max_bytes), 1, 65535, "key.max"},
        {offsetof(fero_runtime_opts, value_max_bytes), 8, (16 << 20) - 536 - 1024 - 1024,
         "value.max"},
        {offsetof(fero_runtime_opts, window_requests), 1, SESSION_WINDOW, "window.requests"},
        {offsetof(fero_runtime_opts, window_bytes), 4096, 1 << 30, "window.bytes"},
        {offsetof(fero_runtime_opts, lane_bytes), 128 << 10, 1 << 30, "lane.bytes"},
        {offsetof(fero_runtime_opts, deferred_max), 1, 65536, "deferred.max"},
        {offsetof(fero_runtime_opts, streams_max), 1, 65536, "streams.max"},
        {offsetof(fero_runtime_opts, connections_max), 1, 1000000, "connections.max"},
        {offsetof(fero_runtime_opts, handshake_ms), 1, 86400000, "handshake.ms"},
        {offsetof(fero_runtime_opts, half_open_max), 1, 1000000, "half-open.max"},
        {offsetof(fero_runtime_opts, half_open_source_max), 1, 1000000, "half-open.source.max"},
        {offsetof(fero_runtime_opts, progress_ms), 1, 86400000, "progress.ms"},
        {offsetof(fero_runtime_opts, links_bytes), 4 * 4 * (2 * MIB + 1560), (int64_t)1 << 46,
         "links.bytes"},
        {offsetof(fero_runtime_opts, progress_bytes), 1, 16 << 20, "progress.bytes"},
        {offsetof(fero_runtime_opts, memory_max_bytes), 4 * 64 << 20, (int64_t)1 << 46,
         "memory.max"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(ranges); i++) {
        const int64_t wrong[] = {ranges[i].low - 1, ranges[i].high + 1, -2, INT64_MIN, INT64_MAX};
        const int64_t right[] = {ranges[i].low, ranges[i].high, 0};
        struct settings settings;
        for (size_t j = 0; j < ARRAY_COUNT(right); j++) {
            fero_runtime_opts opts = {0};
            memcpy((char *)&opts + ranges[i].offset, &right[j], sizeof right[j]);
            if (make(&settings, &opts) != 0) fail_msg("%s", fero_errmsg());
        }
        for (size_t j = 0; j < ARRAY_COUNT(wrong); j++) {
            fero_runtime_opts opts = {0};
            if (wrong[j] == 0) continue; /* the default */
            memcpy((char *)&opts + ranges[i].offset, &wrong[j], sizeof wrong[j]);
            assert_int_equal(make(&settings, &opts), FERO_E_INVAL);
            char value[32];
            snprintf(value, sizeof value, "%lld", (long long)wrong[j]);
            assert_non_null(strstr(fero_errmsg(), ranges[i].name));
            assert_non_null(strstr(fero_errmsg(), value));
        }
    }
}

/* Some descriptors are left for other things, however many connections are wanted. */
static void connections_leave_descriptors_over(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t descriptors;
        int64_t wanted;
        uint32_t connections;
    } cases[] = {{1 << 20, 0, 65536},
                 {1 << 20, 100000, 100000},
                 {1024, 0, 768},
                 {1024, 768, 768},
                 {1024, 769, 768},
                 {1024, 10, 10},
                 {512, 0, 256},
                 {20, 1000, 10},
                 {1, 0, 1}};
    struct cpu_list cpus = {.count = 1};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct settings settings;
        fero_runtime_opts opts = {.connections_max = cases[i].wanted};
        int err = settings_make(&settings, &opts, MACHINE, &cpus, cases[i].descriptors);
        assert_int_equal(err, 0);
        assert_int_equal(settings.shard.connections_max, cases[i].connections);
        assert_int_equal(settings.connections_wanted > settings.shard.connections_max,
                         cases[i].wanted > cases[i].connections);
    }
}

static void strangers_limits_may_be_off(void **unused)
{
    (void)unused;
    struct settings settings =
        made((fero_runtime_opts){.half_open_source_max = FERO_OFF, .progress_ms = FERO_OFF});
    assert_int_equal(settings.shard.half_open_source_max, 0);
    assert_int_equal(settings.shard.progress_bytes, 0);
    settings = made((fero_runtime_opts){.half_open_source_max = 3, .handshake_ms = 50});
    assert_int_equal(settings.shard.half_open_source_max, 3);
    assert_false(settings.shard.half_open_spares_loopback);
    assert_int_equal(settings.shard.greeting_ns_max, 50 * NS_PER_MS);
}

static void off_is_no_batching(void **unused)
{
    (void)unused;
    struct settings settings = made((fero_runtime_opts){.outbox_max_bytes = FERO_OFF});
    assert_true(settings.shard.unbatched);
    assert_int_equal(settings.shard.outbox_bytes_max, 1 * MIB); /* it pushes back all the same */
}

static void a_frame_holds_the_largest_key_and_value(void **unused)
{
    (void)unused;
    struct settings settings =
        made((fero_runtime_opts){.key_max_bytes = 65535, .value_max_bytes = 15 << 20});
    assert_true(settings.shard.frame_bytes_max <= FRAME_BYTES_MAX);
    assert_true(settings.shard.frame_bytes_max >=
                FRAME_REQUEST_BYTES + EXTENSIONS_BYTES_MAX + 65535 + (15 << 20));
    /* A window holds at least one. */
    settings = made((fero_runtime_opts){.value_max_bytes = 8 << 20, .window_bytes = 4096});
    assert_true(settings.shard.window_bytes >= settings.shard.frame_bytes_max);
}

static void lanes_are_powers_of_two_that_hold_a_request_and_its_reply(void **unused)
{
    (void)unused;
    struct settings settings;
    fero_runtime_opts opts = {.lane_bytes = (128 << 10) + 8};
    assert_int_equal(make(&settings, &opts), FERO_E_INVAL);
    assert_non_null(strstr(fero_errmsg(), "power of two"));
    settings = made((fero_runtime_opts){.lane_bytes = 128 << 10});
    assert_true(LANE_MAIL_BYTES_MAX(settings.shard.lane_bytes) >
                4 * (size_t)CROSSING_INLINE_BYTES_MAX);
}

static void memory_is_shared_among_shards(void **unused)
{
    (void)unused;
    for (int32_t shards = 1; shards <= SHARDS_MAX; shards *= 2) {
        struct settings settings = made((fero_runtime_opts){
            .shards = shards, .memory_max_bytes = (int64_t)shards << 30, .history_max_records = 7});
        assert_int_equal(settings.shard.shards_count, shards);
        assert_int_equal(settings.shard.log_bytes_max, GIB / 5 * 4);
        assert_true(settings.shard.history_bytes_max * (size_t)shards <=
                    settings.history_max_bytes);
        assert_true(settings.shard.history_records_max >= 1);
    }
    /* More shards than the machine has memory for raise the default cap to their minimum. */
    struct settings settings;
    struct cpu_list cpus = {.count = 1};
    fero_runtime_opts opts = {.shards = 64};
    assert_int_equal(settings_make(&settings, &opts, 1 * GIB, &cpus, DESCRIPTORS), 0);
    assert_int_equal(settings.memory_max_bytes, 64 * 64 * MIB);
    assert_true(settings.shard.spin_ns_max < 10 * NS_PER_US); /* they share a cpu */
}

static void wrong_words_are_named(void **unused)
{
    (void)unused;
    static const struct {
        fero_runtime_opts opts;
        const char *text;
    } cases[] = {
        {{.cpus = "two"}, "two"},
        {{.cpus = "3-1"}, "3-1"},
        {{.shards = 65}, "65"},
        {{.shards = -1}, "-1"},
        {{.idle = 3}, "3"},
        {{.idle = -1}, "-1"},
        {{.io_features = "+warp"}, "warp"},
        {{.io = -1}, "io is -1"},
        {{.io = 3}, "io is 3"},
        {{.io = FERO_IO_EPOLL, .io_features = "-msg_ring"}, "leave one out"},
        {{.history_max_bytes = (int64_t)1 << 60}, "history"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct settings settings;
        assert_int_equal(make(&settings, &cases[i].opts), FERO_E_INVAL);
        assert_non_null(strstr(fero_errmsg(), cases[i].text));
    }
}

static void the_last_port_is_not_before_the_first(void **unused)
{
    (void)unused;
    struct settings settings = made((fero_runtime_opts){.port_first = 7700, .port_last = 7710});
    assert_int_equal(settings.port_last, 7710);
    settings = made((fero_runtime_opts){.port_first = 7700});
    assert_int_equal(settings.port_last, 7700);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_means_the_default),
        cmocka_unit_test(nodes_draw_their_identities),
        cmocka_unit_test(numbers_have_ranges),
        cmocka_unit_test(connections_leave_descriptors_over),
        cmocka_unit_test(strangers_limits_may_be_off),
        cmocka_unit_test(off_is_no_batching),
        cmocka_unit_test(a_frame_holds_the_largest_key_and_value),
        cmocka_unit_test(lanes_are_powers_of_two_that_hold_a_request_and_its_reply),
        cmocka_unit_test(memory_is_shared_among_shards),
        cmocka_unit_test(wrong_words_are_named),
        cmocka_unit_test(the_last_port_is_not_before_the_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
