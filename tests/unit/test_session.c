/*
 * The parts of a client's session that know no I/O: the window of unanswered requests, the backlog
 * of their bytes, the runs that tell caches apart, the delays between attempts to connect.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/assert.h"
#include "base/memory.h"
#include "engine/backlog.h"
#include "engine/dial.h"
#include "engine/runs.h"
#include "engine/window.h"
#include "net/io.h"
#include "wire/frame.h"

/* ---------------------------------------------------------------------------------- window */

static struct window window_of(uint32_t requests_max, uint64_t seq_first)
{
    struct window window;
    assert_int_equal(window_init(&window, requests_max, seq_first), 0);
    window_begin(&window, 0);
    return window;
}

static uint64_t add(struct window *window, uint32_t link, uint32_t deadline)
{
    uint64_t seq = window->next;
    window_add(window, flight_tag(FLIGHT_REPLY, link), 0, 0, deadline)->done = NULL;
    return seq;
}

static bool answer(struct window *window, uint64_t seq, uint32_t link)
{
    uint64_t found;
    struct flight *flight = window_find(window, (uint32_t)seq, link, &found);
    if (flight == NULL) return false;
    assert_int_equal(found, seq);
    window_end(window, flight);
    return true;
}

static void window_spans_no_more_than_its_maximum(void **state)
{
    (void)state;
    struct window window = window_of(5, 1);
    for (int i = 0; i < 5; i++) {
        assert_false(window_is_full(&window));
        add(&window, 0, 100);
    }
    assert_true(window_is_full(&window));
    /* A gap in the middle makes no room: the node remembers by number. */
    assert_true(answer(&window, 3, 0));
    window_advance(&window);
    assert_true(window_is_full(&window));
    assert_int_equal(window.floor, 1);
    assert_true(answer(&window, 1, 0));
    window_advance(&window);
    assert_int_equal(window.floor, 2);
    assert_int_equal(window.limit - window.next, 1);
    assert_true(answer(&window, 2, 0));
    window_advance(&window);
    assert_int_equal(window.floor, 4);
    window_check(&window);
    window_deinit(&window);
}

static void window_refuses_a_second_answer_and_numbers_never_sent(void **state)
{
    (void)state;
    struct window window = window_of(8, 10);
    add(&window, 2, 100);
    add(&window, 2, 100);
    assert_true(answer(&window, 10, 2));
    assert_false(answer(&window, 10, 2));
    window_advance(&window);
    assert_false(answer(&window, 10, 2));
    assert_false(answer(&window, 9, 2));
    assert_false(answer(&window, 12, 2));
    assert_false(answer(&window, 11 + 8, 2));
    assert_false(answer(&window, 11, 1));
    assert_true(answer(&window, 11, 2));
    window_deinit(&window);
}

static void window_goes_on_over_the_end_of_32_bits(void **state)
{
    (void)state;
    const uint64_t first = ((uint64_t)7 << 32) - 20;
    struct window window = window_of(16, first);
    for (uint64_t seq = first; seq < first + 100; seq++) {
        if (window_is_full(&window)) {
            assert_true(answer(&window, seq - 16, 0));
            window_advance(&window);
        }
        assert_false(window_is_full(&window));
        assert_int_equal(add(&window, 0, 9), seq);
        window_check(&window);
    }
    window_deinit(&window);
}

static void window_made_narrower_keeps_what_is_on_its_way(void **state)
{
    (void)state;
    struct window window = window_of(16, 1);
    for (int i = 0; i < 10; i++) add(&window, 0, 1);
    window_set_max(&window, 4);
    assert_true(window_is_full(&window));
    for (uint64_t seq = 1; seq <= 7; seq++) assert_true(answer(&window, seq, 0));
    window_advance(&window);
    assert_int_equal(window.limit - window.next, 1);
    window_set_max(&window, 1000);
    assert_int_equal(window.requests_max, 16);
    window_check(&window);
    window_deinit(&window);
}

static void acked_requests_leave_their_links_list_in_order(void **state)
{
    (void)state;
    struct window window = window_of(16, UINT32_MAX - 2);
    struct flight_list lists[2] = {{0}};
    for (uint32_t i = 0; i < 8; i++) {
        uint64_t seq = window.next;
        window_add(&window, flight_tag(FLIGHT_ACK, i % 2), 0, 0, 1);
        window_list_push(&window, &lists[i % 2], seq);
    }
    const uint64_t first = UINT32_MAX - 2;
    assert_int_equal(window_list_pop(&window, &lists[0], (uint32_t)(first - 1)), 0);
    assert_int_equal(window_list_pop(&window, &lists[0], (uint32_t)(first + 3)), first);
    assert_int_equal(window_list_pop(&window, &lists[0], (uint32_t)(first + 3)), first + 2);
    assert_int_equal(window_list_pop(&window, &lists[0], (uint32_t)(first + 3)), 0);
    assert_int_equal(window_list_pop(&window, &lists[1], (uint32_t)(first + 7)), first + 1);
    assert_int_equal(window_list_pop(&window, &lists[1], (uint32_t)(first + 3)), first + 3);
    assert_int_equal(window_list_pop(&window, &lists[1], (uint32_t)(first + 3)), 0);
    window_deinit(&window);
}

static void deadlines_are_bounded_from_below(void **state)
{
    (void)state;
    struct window window = window_of(8, 1);
    window_begin(&window, UINT32_MAX - 5);
    add(&window, 0, 10); /* ticks wrap */
    add(&window, 0, UINT32_MAX);
    assert_false(window_may_expire(&window, UINT32_MAX - 1));
    assert_true(window_may_expire(&window, UINT32_MAX));
    assert_true(flight_is_expired(window_at(&window, 2), UINT32_MAX));
    assert_false(flight_is_expired(window_at(&window, 1), UINT32_MAX));
    assert_true(answer(&window, 2, 0));
    assert_true(window_may_expire(&window, UINT32_MAX)); /* only a bound */
    window_rebound(&window, UINT32_MAX);
    assert_false(window_may_expire(&window, UINT32_MAX));
    assert_true(window_may_expire(&window, 10));
    assert_true(answer(&window, 1, 0));
    assert_false(window_may_expire(&window, 1000));
    window_deinit(&window);
}

/* The slow model: one flag and one link a number, for ever. */
struct model {
    uint8_t waits[4096];
    uint32_t link[4096];
    uint32_t deadline[4096];
    uint32_t count;
};

static uint64_t model_floor(const struct model *model, uint32_t next)
{
    for (uint32_t i = 0; i < next; i++)
        if (model->waits[i]) return i;
    return next;
}

static void window_agrees_with_a_slow_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rng rng;
        rng_init(&rng, seed);
        const uint64_t first = ((uint64_t)seed << 32) - rng_below(&rng, 1000) - 1;
        const uint32_t max = 1 + (uint32_t)rng_below(&rng, 64);
        static struct model model;
        memset(&model, 0, sizeof model);
        struct window window = window_of(max, first);
        uint32_t next = 0;
        uint32_t tick = 0;
        for (int step = 0; step < 6000 && next < 4000; step++) {
            uint64_t what = rng_below(&rng, 10);
            window_advance(&window);
            assert_int_equal(window.floor - first, model_floor(&model, next));
            bool full = next - model_floor(&model, next) == max;
            assert_int_equal(window_is_full(&window), full);
            if (what < 5 && !full) {
                if (window.count == 0) window_begin(&window, tick);
                model.waits[next] = 1;
                model.link[next] = (uint32_t)rng_below(&rng, 3);
                model.deadline[next] = tick + 1 + (uint32_t)rng_below(&rng, 50);
                assert_int_equal(add(&window, model.link[next], model.deadline[next]),
                                 first + next);
                next++;
                model.count++;
            } else if (what < 9 && next > 0) {
                uint32_t at = next - 1 - (uint32_t)rng_below(&rng, min_u64(next, 2 * max));
                uint32_t link = (uint32_t)rng_below(&rng, 3);
                bool waits = model.waits[at] && model.link[at] == link;
                assert_int_equal(answer(&window, first + at, link), waits);
                if (!waits) continue;
                model.waits[at] = 0;
                model.count--;
            } else {
                tick += (uint32_t)rng_below(&rng, 10);
                bool due = false;
                for (uint32_t i = 0; i < next; i++)
                    if (model.waits[i] && model.deadline[i] <= tick) due = true;
                /* It may cry wolf, but never sleep. */
                if (due) assert_true(window_may_expire(&window, tick));
                window_rebound(&window, tick);
                assert_int_equal(window_may_expire(&window, tick), due);
            }
            assert_int_equal(window.count, model.count);
            window_check(&window);
        }
        window_deinit(&window);
    }
}

/* --------------------------------------------------------------------------------- backlog */

struct written {
    struct backlog backlog;
    struct chunk_pool pool;
    uint64_t seq;
    uint64_t requests;
};

static void write_frame(struct written *written, uint32_t bytes, uint8_t mark)
{
    struct backlog *backlog = &written->backlog;
    assert_int_equal(bytes % 8, 0);
    if (backlog_room(backlog) < bytes)
        assert_int_equal(backlog_grow(backlog, bytes, written->seq, written->requests), 0);
    struct frame_request frame = {.length = bytes, .seq = (uint32_t)written->seq};
    memset(backlog->at, mark, bytes);
    memcpy(backlog->at, &frame, sizeof frame);
    backlog->at += bytes;
    written->seq++;
    written->requests++;
}

static size_t send_all(struct written *written, uint8_t *to)
{
    struct iovec parts[IO_SEND_PARTS_MAX];
    size_t bytes = 0;
    uint64_t requests_end = 0;
    unsigned count;
    while ((count = backlog_send(&written->backlog, parts, IO_SEND_PARTS_MAX, written->requests,
                                 &requests_end)) > 0) {
        for (unsigned i = 0; i < count; i++) {
            if (to != NULL) memcpy(to + bytes, parts[i].iov_base, parts[i].iov_len);
            bytes += parts[i].iov_len;
        }
        backlog_sent(&written->backlog);
    }
    if (bytes > 0) assert_int_equal(requests_end, written->requests);
    assert_int_equal(backlog_unsent_bytes(&written->backlog), 0);
    return bytes;
}

static void written_init(struct written *written)
{
    *written = (struct written){.seq = 1};
    backlog_init(&written->backlog, &written->pool);
}

static void written_deinit(struct written *written)
{
    backlog_deinit(&written->backlog);
    chunk_pool_deinit(&written->pool);
}

static void backlog_sends_what_was_written_in_order(void **state)
{
    (void)state;
    struct written written;
    static uint8_t sent[4 << 20];
    written_init(&written);
    size_t bytes = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        uint32_t size = 24 + 8 * (i % 100);
        write_frame(&written, size, (uint8_t)i);
        bytes += size;
    }
    write_frame(&written, 200000, 7); /* larger than a chunk */
    bytes += 200000;
    assert_int_equal(backlog_unsent_bytes(&written.backlog), bytes);
    assert_int_equal(send_all(&written, sent), bytes);
    size_t at = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        struct frame_request frame;
        memcpy(&frame, sent + at, sizeof frame);
        assert_int_equal(frame.seq, i + 1);
        if (frame.length > sizeof frame) assert_int_equal(sent[at + sizeof frame], (uint8_t)i);
        at += frame.length;
    }
    assert_int_equal(at + 200000, bytes);
    written_deinit(&written);
}

static void backlog_sends_one_frame_at_a_time(void **state)
{
    (void)state;
    struct written written;
    struct iovec part;
    uint64_t requests_end = 0;
    written_init(&written);
    assert_int_equal(backlog_send_one(&written.backlog, &part, &requests_end), 0);
    for (uint32_t i = 0; i < 300; i++) write_frame(&written, 1024 + 8 * (i % 3), 1);
    for (uint32_t i = 0; i < 300; i++) {
        struct frame_request frame;
        assert_int_equal(backlog_send_one(&written.backlog, &part, &requests_end), 1);
        memcpy(&frame, part.iov_base, sizeof frame);
        assert_int_equal(part.iov_len, 1024 + 8 * (i % 3));
        assert_int_equal(frame.seq, i + 1);
        assert_int_equal(requests_end, i + 1);
        backlog_sent(&written.backlog);
    }
    assert_int_equal(backlog_unsent_bytes(&written.backlog), 0);
    assert_int_equal(backlog_send_one(&written.backlog, &part, &requests_end), 0);
    written_deinit(&written);
}

static void backlog_gives_chunks_back_when_the_floor_has_passed_them(void **state)
{
    (void)state;
    struct written written;
    written_init(&written);
    for (uint32_t i = 0; i < 300; i++) write_frame(&written, 1024, 1);
    size_t held = written.backlog.held_bytes;
    backlog_release(&written.backlog, written.seq, written.seq);
    assert_int_equal(written.backlog.held_bytes, held); /* nothing was taken by the kernel */
    send_all(&written, NULL);
    backlog_release(&written.backlog, 1, written.seq);
    assert_int_equal(written.backlog.held_bytes, held);
    backlog_release(&written.backlog, 150, written.seq);
    assert_true(written.backlog.held_bytes < held);
    backlog_release(&written.backlog, written.seq, written.seq);
    assert_ptr_equal(written.backlog.oldest, written.backlog.newest);
    assert_ptr_equal(written.backlog.at, written.backlog.newest->data);
    uint64_t calls = memory_calls_count();
    for (uint32_t i = 0; i < 300; i++) write_frame(&written, 1024, 1);
    assert_int_equal(memory_calls_count(), calls); /* the pool has them */
    written_deinit(&written);
}

static bool keep_odd(void *context, uint8_t *frame)
{
    struct frame_request header;
    memcpy(&header, frame, sizeof header);
    ++*(uint64_t *)context;
    return header.seq % 2 == 1;
}

static void rewound_backlog_sends_again_what_is_kept(void **state)
{
    (void)state;
    struct written written;
    static uint8_t sent[1 << 20];
    written_init(&written);
    for (uint32_t i = 0; i < 500; i++) write_frame(&written, 1000 + 8 * (i % 7), (uint8_t)i);
    send_all(&written, sent);
    for (uint32_t i = 500; i < 501; i++) write_frame(&written, 24, 9);
    uint64_t seen = 0;
    uint64_t bytes;
    assert_int_equal(backlog_frames_count(&written.backlog), 501);
    written.requests = backlog_rewind(&written.backlog, keep_odd, &seen, written.seq, &bytes);
    assert_int_equal(seen, 501);
    assert_int_equal(written.requests, 251);
    assert_int_equal(backlog_unsent_bytes(&written.backlog), bytes);
    write_frame(&written, 24, 1);
    bytes += 24;
    assert_int_equal(send_all(&written, sent), bytes);
    size_t at = 0;
    for (uint32_t seq = 1; seq <= 501; seq += 2) {
        struct frame_request frame;
        memcpy(&frame, sent + at, sizeof frame);
        assert_int_equal(frame.seq, seq);
        at += frame.length;
    }
    backlog_release(&written.backlog, written.seq, written.seq);
    assert_int_equal(backlog_frames_count(&written.backlog), 0);
    written_deinit(&written);
}

static void rewound_backlog_may_become_empty(void **state)
{
    (void)state;
    struct written written;
    written_init(&written);
    uint64_t seen = 1;
    uint64_t bytes;
    assert_int_equal(backlog_rewind(&written.backlog, keep_odd, &seen, 1, &bytes), 0);
    written.seq = 2;
    write_frame(&written, 24, 1);
    written.requests = backlog_rewind(&written.backlog, keep_odd, &seen, 3, &bytes);
    assert_int_equal(written.requests, 0);
    assert_int_equal(written.backlog.held_bytes, 0);
    assert_int_equal(backlog_room(&written.backlog), 0);
    write_frame(&written, 24, 1);
    assert_int_equal(send_all(&written, NULL), 24);
    written_deinit(&written);
}

/* ------------------------------------------------------------------------------------ runs */

static void runs_count_each_request_once_for_its_cache(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct rng rng;
        rng_init(&rng, seed);
        uint8_t cache_of[2000];
        uint64_t counted[RUN_MARKS_COUNT][4] = {{0}};
        uint64_t expected[4] = {0};
        struct runs runs;
        runs_init(&runs);
        uint64_t requests = 0;
        uint32_t cache = RUN_NO_CACHE;
        while (requests < 1999) {
            if (rng_below(&rng, 4) == 0 || cache == RUN_NO_CACHE) {
                uint32_t other = (uint32_t)rng_below(&rng, 4);
                if (other != cache) assert_int_equal(runs_push(&runs, other, requests + 1), 0);
                cache = other;
            }
            cache_of[++requests] = (uint8_t)cache;
            expected[cache]++;
            if (rng_below(&rng, 10) != 0) continue;
            enum run_mark mark = (enum run_mark)rng_below(&rng, RUN_MARKS_COUNT);
            uint64_t from = runs.cursors[mark].at;
            uint64_t to = from + rng_below(&rng, requests - from + 1);
            for (;;) {
                uint64_t at = runs.cursors[mark].at;
                struct run_part part = runs_advance(&runs, mark, to);
                if (part.requests == 0) break;
                for (uint64_t i = 1; i <= part.requests; i++)
                    assert_int_equal(cache_of[at + i], part.cache);
                counted[mark][part.cache] += part.requests;
            }
            assert_int_equal(runs.cursors[mark].at, to);
        }
        for (int mark = 0; mark < RUN_MARKS_COUNT; mark++) {
            struct run_part part;
            while ((part = runs_advance(&runs, (enum run_mark)mark, requests)).requests > 0)
                counted[mark][part.cache] += part.requests;
            for (int i = 0; i < 4; i++) assert_int_equal(counted[mark][i], expected[i]);
        }
        runs_deinit(&runs);
    }
}

static void restarted_runs_skip_what_was_counted(void **state)
{
    (void)state;
    struct runs runs;
    runs_init(&runs);
    assert_int_equal(runs_push(&runs, 1, 1), 0);
    assert_int_equal(runs_advance(&runs, RUN_WRITTEN, 10).requests, 10);
    runs_restart(&runs, 3, 1);
    assert_int_equal(runs_push(&runs, 1, 1), 0);
    assert_int_equal(runs_push(&runs, 2, 5), 0);
    assert_int_equal(runs_advance(&runs, RUN_WRITTEN, 6).requests, 1);
    assert_int_equal(runs_advance(&runs, RUN_WRITTEN, 6).requests, 2);
    assert_int_equal(runs_advance(&runs, RUN_RECEIVED, 1).requests, 0);
    runs_forget(&runs, 1);
    struct run_part part = runs_advance(&runs, RUN_RECEIVED, 4);
    assert_int_equal(part.requests, 3);
    assert_int_equal(part.cache, RUN_NO_CACHE);
    runs_deinit(&runs);
}

/* ------------------------------------------------------------------------------------ dial */

static void delays_double_up_to_a_minute_less_a_half_at_most(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 1);
    for (uint32_t failures = 0; failures < 40; failures++) {
        uint64_t whole = DIAL_DELAY_NS_MAX;
        if (failures < 10) whole = min_u64(whole, DIAL_DELAY_NS_FIRST << failures);
        uint64_t low = UINT64_MAX;
        uint64_t high = 0;
        for (int i = 0; i < 1000; i++) {
            uint64_t delay = dial_delay_ns(failures, &rng);
            assert_true(delay <= whole && delay >= whole / 2);
            low = min_u64(low, delay);
            high = max_u64(high, delay);
        }
        assert_true(high - low > whole / 3);
    }
    struct dial dial;
    dial_now(&dial, 5);
    assert_int_equal(dial.retry_ns, 5);
    dial_failed(&dial, 1000, &rng);
    assert_true(dial.retry_ns >= 1000 + DIAL_DELAY_NS_FIRST / 2);
    assert_int_equal(dial.failures, 1);
}

static void seeds_are_taken_in_turn(void **state)
{
    (void)state;
    struct seeds seeds;
    const char *wrong = NULL;
    const char *const texts[] = {"127.0.0.1:7001", "127.0.0.1", "[::1]:7003", NULL};
    assert_int_equal(seeds_parse(&seeds, texts, &wrong), 0);
    char text[128];
    assert_string_equal(seeds_format(&seeds, text, sizeof text),
                        "127.0.0.1:7001, 127.0.0.1:7700, [::1]:7003");
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < 3; i++) {
            bool ends;
            assert_ptr_equal(seeds_take(&seeds, &ends), &seeds.addresses[i]);
            assert_int_equal(ends, i == 2);
        }
    }
    assert_string_equal(seeds_format(&seeds, text, 20), "127.0.0.1:7001");
}

static void wrong_seeds_are_named(void **state)
{
    (void)state;
    struct seeds seeds;
    const char *wrong = NULL;
    const char *const bad[] = {"127.0.0.1:7001", "nowhere:x", NULL};
    assert_true(seeds_parse(&seeds, bad, &wrong) < 0);
    assert_string_equal(wrong, "nowhere:x");
    const char *const zero[] = {"127.0.0.1:0", NULL};
    assert_true(seeds_parse(&seeds, zero, &wrong) < 0);
    assert_int_equal(seeds_parse(&seeds, NULL, &wrong), 0);
    assert_int_equal(address_port(&seeds.addresses[0]), DIAL_PORT_DEFAULT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window_spans_no_more_than_its_maximum),
        cmocka_unit_test(window_refuses_a_second_answer_and_numbers_never_sent),
        cmocka_unit_test(window_goes_on_over_the_end_of_32_bits),
        cmocka_unit_test(window_made_narrower_keeps_what_is_on_its_way),
        cmocka_unit_test(acked_requests_leave_their_links_list_in_order),
        cmocka_unit_test(deadlines_are_bounded_from_below),
        cmocka_unit_test(window_agrees_with_a_slow_model),
        cmocka_unit_test(backlog_sends_what_was_written_in_order),
        cmocka_unit_test(backlog_sends_one_frame_at_a_time),
        cmocka_unit_test(backlog_gives_chunks_back_when_the_floor_has_passed_them),
        cmocka_unit_test(rewound_backlog_sends_again_what_is_kept),
        cmocka_unit_test(rewound_backlog_may_become_empty),
        cmocka_unit_test(runs_count_each_request_once_for_its_cache),
        cmocka_unit_test(restarted_runs_skip_what_was_counted),
        cmocka_unit_test(delays_double_up_to_a_minute_less_a_half_at_most),
        cmocka_unit_test(seeds_are_taken_in_turn),
        cmocka_unit_test(wrong_seeds_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
