/*
 * A link over a fake io: frames whole and in pieces, what its consumer cannot take, its outbox.
 */
#include "shard/link.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/rng.h"
#include "tests/support/fake_io.h"
#include "wire/frame.h"

#define FRAME_MAX 20000
#define STREAM_MAX (1 << 20)

/* A link, and a consumer that checks numbered frames. */
struct rig {
    struct fake_io *fake;
    struct io *io;
    struct link link;
    uint32_t conn;
    uint32_t seen;       /* number of the next frame */
    size_t seen_bytes;   /* where it begins in `stream` */
    uint32_t budget;     /* frames that may be taken before the link blocks */
    int64_t give_up;     /* what the consumer returns instead */
    uint64_t runs_count; /* calls of it */
    uint8_t *stream;
    size_t stream_bytes;
    int err; /* what link_receive returned at last */
};

static void rig_open(struct rig *rig)
{
    struct address any = address_loopback(0);
    *rig = (struct rig){.fake = fake_io_make(), .budget = UINT32_MAX};
    rig->io = fake_io_base(rig->fake);
    assert_int_equal(io_listen(rig->io, &any, NULL), 0);
    rig->conn = fake_io_dial(rig->fake, &any);
    struct io_event event;
    assert_int_equal(io_wait(rig->io, &event, 1, 0), 1);
    io_resume(rig->io, rig->conn);
    link_init(&rig->link, rig->io, rig->conn, FRAME_MAX);
    rig->stream = malloc(STREAM_MAX);
    assert_non_null(rig->stream);
}

static void rig_close(struct rig *rig)
{
    link_deinit(&rig->link);
    io_destroy(rig->io);
    free(rig->stream);
}

/* Adds frame number n of `length`: its number behind the prefix, then bytes of its own. */
static void add_frame(struct rig *rig, uint32_t number, uint32_t length)
{
    uint8_t *at = rig->stream + rig->stream_bytes;
    struct frame_prefix prefix = {.length = length, .type = FRAME_UPDATE};
    assert_true(length >= 12 && rig->stream_bytes + round_up_8(length) <= STREAM_MAX);
    memset(at, 0, round_up_8(length));
    memset(at, (uint8_t)number, length);
    memcpy(at, &prefix, sizeof prefix);
    memcpy(at + sizeof prefix, &number, sizeof number);
    rig->stream_bytes += round_up_8(length);
}

static int64_t consume(void *context, uint8_t *data, size_t size)
{
    struct rig *rig = context;
    size_t at = 0;
    rig->runs_count++;
    if (rig->give_up < 0) return rig->give_up;
    for (;;) {
        uint32_t length;
        uint32_t number;
        if (size - at < FRAME_PREFIX_BYTES) break;
        memcpy(&length, data + at, sizeof length);
        if (length < FRAME_PREFIX_BYTES || length > FRAME_MAX || round_up_8(length) > size - at)
            break;
        if (rig->budget == 0) {
            rig->link.blocked = true;
            break;
        }
        rig->budget--;
        memcpy(&number, data + at + FRAME_PREFIX_BYTES, sizeof number);
        assert_int_equal(number, rig->seen++);
        assert_memory_equal(data + at, rig->stream + rig->seen_bytes, round_up_8(length));
        rig->seen_bytes += round_up_8(length);
        at += round_up_8(length);
    }
    return (int64_t)at;
}

/* Delivers what the fake io has; returns how many receives there were. */
static unsigned pump(struct rig *rig)
{
    struct io_event event;
    unsigned receives = 0;
    while (io_wait(rig->io, &event, 1, 0) == 1) {
        if (event.type == IO_SENT) link_sent(&rig->link);
        if (event.type != IO_RECEIVED) continue;
        receives++;
        rig->err = link_receive(&rig->link, event.data, event.size, consume, rig);
        if (rig->err < 0) break;
    }
    return receives;
}

static void receive(struct rig *rig, const void *data, size_t size)
{
    fake_io_receive(rig->fake, rig->conn, data, size);
    pump(rig);
}

/* -------------------------------------------------------------------------------- receiving */

static void frames_are_consumed_where_they_lie(void **unused)
{
    (void)unused;
    struct rig rig;
    rig_open(&rig);
    for (uint32_t i = 0; i < 100; i++) add_frame(&rig, i, 12 + i);
    receive(&rig, rig.stream, rig.stream_bytes);
    assert_int_equal(rig.seen, 100);
    assert_int_equal(rig.runs_count, 1);
    assert_int_equal(rig.link.partial.capacity, 0); /* nothing was copied */
    rig_close(&rig);
}

/* Short frames, and ones around what fits into the headroom. */
static void every_cut_gives_the_same_frames(void **unused)
{
    (void)unused;
    static const uint32_t lengths[] = {12, 13, 24, 31, 4088, 4097, 16, 5000, 12};
    struct rig rig;
    rig_open(&rig);
    for (uint32_t i = 0; i < ARRAY_COUNT(lengths); i++) add_frame(&rig, i, lengths[i]);
    for (size_t cut = 1; cut < rig.stream_bytes; cut++) {
        rig.seen = 0;
        rig.seen_bytes = 0;
        receive(&rig, rig.stream, cut);
        receive(&rig, rig.stream + cut, rig.stream_bytes - cut);
        assert_int_equal(rig.err, 0);
        assert_int_equal(rig.seen, ARRAY_COUNT(lengths));
        assert_int_equal(rig.link.partial.bytes, 0);
    }
    rig_close(&rig);
}

static void so_do_pieces_of_any_size(void **unused)
{
    (void)unused;
    static const uint32_t lengths[] = {12, 4095, 9000, 13, 20000, 4097, 100};
    struct rig rig;
    rig_open(&rig);
    for (uint32_t i = 0; i < ARRAY_COUNT(lengths); i++) add_frame(&rig, i, lengths[i]);
    for (size_t piece = 1; piece < 6000; piece += piece < 50 ? 1 : 97) {
        rig.seen = 0;
        rig.seen_bytes = 0;
        fake_io_segment(rig.fake, piece);
        receive(&rig, rig.stream, rig.stream_bytes);
        assert_int_equal(rig.seen, ARRAY_COUNT(lengths));
        fake_io_segment(rig.fake, 0);
    }
    rig_close(&rig);
}

static void what_cannot_be_taken_comes_again(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct rig rig;
        struct rng rng;
        rig_open(&rig);
        rng_init(&rng, seed);
        const uint32_t count = 60;
        for (uint32_t i = 0; i < count; i++) {
            uint64_t bound = rng_below(&rng, 6) == 0 ? 19000 : 60;
            add_frame(&rig, i, 12 + (uint32_t)rng_below(&rng, bound));
        }
        rig.budget = (uint32_t)rng_below(&rng, 4);
        fake_io_segment(rig.fake, 1 + rng_below(&rng, 9000));
        receive(&rig, rig.stream, rig.stream_bytes);
        while (rig.seen < count) {
            uint32_t before = rig.seen;
            assert_true(rig.link.blocked);
            assert_true(fake_io_is_paused(rig.fake, rig.conn));
            assert_int_equal(pump(&rig), 0); /* silence until it is unblocked */
            rig.budget = 1 + (uint32_t)rng_below(&rng, 5);
            link_unblock(&rig.link);
            assert_false(fake_io_is_paused(rig.fake, rig.conn));
            pump(&rig);
            assert_int_equal(rig.err, 0);
            assert_true(rig.seen > before);
        }
        rig_close(&rig);
    }
}

static void unblocking_what_is_not_blocked_resumes_nothing(void **unused)
{
    (void)unused;
    struct rig rig;
    rig_open(&rig);
    io_pause(rig.io, rig.conn, NULL, 0);
    link_unblock(&rig.link);
    assert_true(fake_io_is_paused(rig.fake, rig.conn));
    rig_close(&rig);
}

static void lengths_out_of_bounds_give_the_link_up(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t length;
        int err;
    } cases[] = {{0, -EPROTO}, {7, -EPROTO}, {FRAME_MAX + 1, -EMSGSIZE}, {UINT32_MAX, -EMSGSIZE}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        for (size_t cut = 1; cut <= 8; cut++) {
            struct rig rig;
            rig_open(&rig);
            add_frame(&rig, 0, 12);
            struct frame_prefix prefix = {.length = cases[i].length};
            memcpy(rig.stream + 16, &prefix, sizeof prefix);
            receive(&rig, rig.stream, 16 + cut);
            assert_int_equal(rig.err, cut < 8 ? 0 : cases[i].err);
            if (cut < 8) receive(&rig, rig.stream + 16 + cut, 8 - cut);
            assert_int_equal(rig.err, cases[i].err);
            assert_int_equal(rig.seen, 1);
            rig_close(&rig);
        }
    }
}

static void what_the_consumer_returns_gives_the_link_up(void **unused)
{
    (void)unused;
    struct rig rig;
    rig_open(&rig);
    rig.give_up = -EPIPE;
    add_frame(&rig, 0, 9000);
    receive(&rig, rig.stream, 100);
    assert_int_equal(rig.err, -EPIPE);
    rig_close(&rig);
    rig_open(&rig);
    add_frame(&rig, 0, 9000);
    receive(&rig, rig.stream, 5000);
    assert_int_equal(rig.err, 0);
    rig.give_up = -EPIPE;
    receive(&rig, rig.stream + 5000, 4000); /* gathered, then refused */
    assert_int_equal(rig.err, -EPIPE);
    rig_close(&rig);
}

static void without_memory_for_a_partial_frame_it_is_given_up(void **unused)
{
    (void)unused;
    struct rig rig;
    rig_open(&rig);
    add_frame(&rig, 0, 9000);
    memory_fail_after(1);
    receive(&rig, rig.stream, 100);
    memory_fail_after(0);
    assert_int_equal(rig.err, -ENOMEM);
    rig_close(&rig);
}

/* ---------------------------------------------------------------------------------- sending */

static void write_frame(struct rig *rig, uint32_t length, uint8_t mark)
{
    size_t padded = round_up_8(length);
    uint8_t *to = link_reserve(&rig->link, padded);
    assert_non_null(to);
    memset(to, mark, padded);
    memcpy(to, &length, sizeof length);
    link_commit(&rig->link, padded);
}

static void what_is_written_during_a_send_is_sent_after_it(void **unused)
{
    (void)unused;
    struct rig rig;
    size_t bytes;
    rig_open(&rig);
    write_frame(&rig, 16, 1);
    write_frame(&rig, 24, 2);
    link_flush(&rig.link);
    write_frame(&rig, 32, 3);
    link_flush(&rig.link); /* one send at a time */
    assert_int_equal(link_out_bytes(&rig.link), 72);
    pump(&rig);
    fake_io_sent(rig.fake, rig.conn, &bytes);
    assert_int_equal(bytes, 40);
    assert_int_equal(link_out_bytes(&rig.link), 32);
    link_flush(&rig.link);
    pump(&rig);
    const uint8_t *sent = fake_io_sent(rig.fake, rig.conn, &bytes);
    assert_int_equal(bytes, 72);
    assert_int_equal(sent[15], 1);
    assert_int_equal(sent[39], 2);
    assert_int_equal(sent[71], 3);
    assert_int_equal(link_out_bytes(&rig.link), 0);
    assert_int_equal(rig.link.sent_bytes, 72);
    assert_int_equal(rig.link.written_bytes, 72);
    link_flush(&rig.link);
    pump(&rig);
    assert_int_equal(rig.io->counters.sends, 2); /* nothing is no send */
    rig_close(&rig);
}

static void one_by_one_each_frame_is_a_send(void **unused)
{
    (void)unused;
    struct rig rig;
    size_t bytes;
    rig_open(&rig);
    rig.link.one_by_one = true;
    for (uint8_t i = 0; i < 10; i++) write_frame(&rig, 17u + i, i);
    link_flush(&rig.link);
    write_frame(&rig, 20, 10);
    pump(&rig);
    assert_int_equal(rig.io->counters.sends, 10);
    link_flush(&rig.link);
    pump(&rig);
    assert_int_equal(rig.io->counters.sends, 11);
    const uint8_t *sent = fake_io_sent(rig.fake, rig.conn, &bytes);
    assert_int_equal(bytes, rig.link.sent_bytes);
    assert_int_equal(bytes, rig.link.written_bytes);
    for (size_t at = 0, i = 0; at < bytes; i++) {
        assert_int_equal(sent[at + 8], i);
        at += round_up_8(sent[at]);
    }
    rig_close(&rig);
}

static void the_outbox_grows_and_keeps_what_it_has(void **unused)
{
    (void)unused;
    struct rig rig;
    size_t bytes;
    rig_open(&rig);
    for (uint32_t i = 0; i < 200; i++) write_frame(&rig, 1000, (uint8_t)i);
    memory_fail_after(1);
    uint8_t *none = link_reserve(&rig.link, 10 * MIB);
    memory_fail_after(0);
    assert_null(none);
    link_flush(&rig.link);
    pump(&rig);
    const uint8_t *sent = fake_io_sent(rig.fake, rig.conn, &bytes);
    assert_int_equal(bytes, 200 * 1000);
    for (uint32_t i = 0; i < 200; i++) assert_int_equal(sent[i * 1000 + 999], (uint8_t)i);
    rig_close(&rig);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_consumed_where_they_lie),
        cmocka_unit_test(every_cut_gives_the_same_frames),
        cmocka_unit_test(so_do_pieces_of_any_size),
        cmocka_unit_test(what_cannot_be_taken_comes_again),
        cmocka_unit_test(unblocking_what_is_not_blocked_resumes_nothing),
        cmocka_unit_test(lengths_out_of_bounds_give_the_link_up),
        cmocka_unit_test(what_the_consumer_returns_gives_the_link_up),
        cmocka_unit_test(without_memory_for_a_partial_frame_it_is_given_up),
        cmocka_unit_test(what_is_written_during_a_send_is_sent_after_it),
        cmocka_unit_test(one_by_one_each_frame_is_a_send),
        cmocka_unit_test(the_outbox_grows_and_keeps_what_it_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
