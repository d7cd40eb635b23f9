#include "shard/lane.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/rng.h"

#define KIND 7
#define HEAD_BYTES sizeof(struct mail)

/* The oracle: what a queue of mails is, without wrap, cache or batch. */
#define MODEL_MAILS_MAX 4096
struct model {
    size_t sizes[MODEL_MAILS_MAX];
    uint64_t pushed; /* counts, never taken modulo: the index of a mail is also its content */
    uint64_t published;
    uint64_t popped;
    struct mail *last; /* that was pushed */
};

static uint8_t content_of(uint64_t mail_index, size_t at)
{
    return (uint8_t)(mail_index * 31 + at + 1);
}

static void open_lane(struct lane *lane, size_t bytes)
{
    assert_int_equal(lane_init(lane, bytes), 0);
}

static void assert_inside(const struct lane *lane, const struct mail *mail, size_t bytes)
{
    const uint8_t *start = (const uint8_t *)mail;
    assert_true(start >= lane->memory);
    assert_true(start + bytes <= lane->memory + lane->bytes);
}

/* Pushes one mail and fills its body; false when the lane is full. */
static bool push(struct lane *lane, struct model *model, size_t bytes)
{
    struct mail *mail = lane_try_push(lane, bytes, KIND);
    if (mail == NULL) return false;
    assert_inside(lane, mail, bytes);
    mail->small = (uint16_t)model->pushed;
    uint8_t *body = (uint8_t *)(mail + 1);
    for (size_t i = 0; i < bytes - HEAD_BYTES; i++) body[i] = content_of(model->pushed, i);
    model->sizes[model->pushed % MODEL_MAILS_MAX] = bytes;
    model->pushed++;
    model->last = mail;
    return true;
}

/* Makes the last mail longer; false when it cannot be. */
static bool extend(struct lane *lane, struct model *model, size_t bytes)
{
    size_t before = model->last->bytes;
    if (!lane_try_extend(lane, model->last, bytes)) return false;
    assert_int_equal(model->last->bytes, before + bytes);
    assert_inside(lane, model->last, before + bytes);
    uint8_t *body = (uint8_t *)(model->last + 1);
    for (size_t i = before - HEAD_BYTES; i < before + bytes - HEAD_BYTES; i++)
        body[i] = content_of(model->pushed - 1, i);
    model->sizes[(model->pushed - 1) % MODEL_MAILS_MAX] = before + bytes;
    return true;
}

/* Makes the last mail shorter, down to `bytes`. */
static void shrink(struct lane *lane, struct model *model, size_t bytes)
{
    uint64_t tail = lane->producer.tail - model->last->bytes + bytes;
    lane_shrink(lane, model->last, bytes);
    assert_int_equal(model->last->bytes, bytes);
    assert_int_equal(lane->producer.tail, tail);
    model->sizes[(model->pushed - 1) % MODEL_MAILS_MAX] = bytes;
}

static void publish(struct lane *lane, struct model *model)
{
    bool had = lane_publish(lane);
    assert_int_equal(had, model->published != model->pushed);
    model->published = model->pushed;
}

/* Takes one mail and compares it with the model; false when both have none. */
static bool pop(struct lane *lane, struct model *model)
{
    const struct mail *mail = lane_peek(lane);
    if (model->popped == model->published) {
        assert_null(mail);
        return false;
    }
    assert_non_null(mail);
    assert_ptr_equal(lane_peek(lane), mail);
    size_t bytes = model->sizes[model->popped % MODEL_MAILS_MAX];
    assert_int_equal(mail->bytes, bytes);
    assert_int_equal(mail->kind, KIND);
    assert_int_equal(mail->small, (uint16_t)model->popped);
    assert_inside(lane, mail, bytes);
    const uint8_t *body = (const uint8_t *)(mail + 1);
    for (size_t i = 0; i < bytes - HEAD_BYTES; i++) {
        assert_int_equal(body[i], content_of(model->popped, i));
    }
    lane_pop(lane);
    model->popped++;
    return true;
}

static void drain(struct lane *lane, struct model *model)
{
    publish(lane, model);
    while (pop(lane, model)) continue;
    lane_release(lane);
}

/* Moves both ends of an empty lane to `offset` in its memory, by the smallest mails. */
static void move_to(struct lane *lane, struct model *model, size_t offset)
{
    while ((lane->producer.tail & (lane->bytes - 1)) != offset) {
        assert_true(push(lane, model, HEAD_BYTES));
        drain(lane, model);
    }
}

static void a_new_lane_is_empty(void **unused)
{
    (void)unused;
    struct lane lane;
    open_lane(&lane, 256);
    assert_null(lane_peek(&lane));
    assert_false(lane_has_mail(&lane));
    assert_false(lane_publish(&lane));
    assert_int_equal(lane_room(&lane), 256);
    lane_deinit(&lane);
}

static void init_fails_without_memory(void **unused)
{
    (void)unused;
    struct lane lane;
    memory_fail_after(1);
    assert_int_equal(lane_init(&lane, 256), -ENOMEM);
    memory_fail_after(0);
    assert_null(lane.memory);
    lane_deinit(&lane);
}

static void push_writes_the_head(void **unused)
{
    (void)unused;
    struct lane lane;
    open_lane(&lane, 256);
    struct mail *mail = lane_try_push(&lane, 24, 9);
    assert_int_equal(mail->bytes, 24);
    assert_int_equal(mail->kind, 9);
    assert_int_equal(mail->small, 0);
    lane_deinit(&lane);
}

static void mail_is_unseen_until_it_is_published(void **unused)
{
    (void)unused;
    struct lane lane;
    struct model model = {0};
    open_lane(&lane, 256);
    assert_true(push(&lane, &model, 16));
    assert_true(push(&lane, &model, 24));
    assert_false(lane_has_mail(&lane));
    assert_null(lane_peek(&lane));

    assert_true(lane_publish(&lane));
    model.published = model.pushed;
    assert_true(lane_has_mail(&lane));
    assert_true(push(&lane, &model, 32)); /* the third stays unseen behind the two */
    assert_true(pop(&lane, &model));
    assert_true(pop(&lane, &model));
    assert_false(lane_has_mail(&lane));
    assert_null(lane_peek(&lane));
    lane_deinit(&lane);
}

static void publish_says_whether_there_was_something(void **unused)
{
    (void)unused;
    struct lane lane;
    open_lane(&lane, 256);
    assert_false(lane_publish(&lane));
    assert_non_null(lane_try_push(&lane, 8, KIND));
    assert_true(lane_publish(&lane));
    assert_false(lane_publish(&lane));
    lane_deinit(&lane);
}

static void a_pad_is_unseen_until_it_is_published(void **unused)
{
    (void)unused;
    struct lane lane;
    struct model model = {0};
    open_lane(&lane, 256);
    move_to(&lane, &model, 240);
    assert_true(push(&lane, &model, 32)); /* 16 bytes of pad, then the mail at the start */
    assert_false(lane_has_mail(&lane));
    assert_null(lane_peek(&lane));
    drain(&lane, &model);
    assert_int_equal(model.popped, model.pushed);
    lane_deinit(&lane);
}

static void every_byte_of_the_memory_can_be_used(void **unused)
{
    (void)unused;
    struct lane lane;
    open_lane(&lane, 256);
    for (size_t i = 0; i < 256 / HEAD_BYTES; i++) {
        assert_non_null(lane_try_push(&lane, HEAD_BYTES, KIND));
    }
    assert_null(lane_try_push(&lane, HEAD_BYTES, KIND));
    lane_deinit(&lane);
}

static void a_refused_push_leaves_no_trace(void **unused)
{
    (void)unused;
    struct lane lane;
    struct model model = {0};
    open_lane(&lane, 256);
    move_to(&lane, &model, 128);
    assert_true(push(&lane, &model, 104)); /* 24 bytes remain before the end, 128 after it */
    assert_true(push(&lane, &model, 120));
    assert_false(push(&lane, &model, 16));
    assert_false(push(&lane, &model, 120));
    assert_true(push(&lane, &model, 8)); /* what is left still holds a smaller mail */
    drain(&lane, &model);
    assert_int_equal(model.popped, model.pushed);
    lane_deinit(&lane);
}

static void only_release_makes_room(void **unused)
{
    (void)unused;
    struct lane lane;
    struct model model = {0};
    open_lane(&lane, 256);
    assert_true(push(&lane, &model, 120));
    assert_true(push(&lane, &model, 120));
    assert_false(push(&lane, &model, 24));
    publish(&lane, &model);
    const struct mail *first = lane_peek(&lane);
    assert_true(pop(&lane, &model));
    assert_false(push(&lane, &model, 24));
    /* Popped, not released: still what it was. */
    assert_int_equal(first->bytes, 120);
    assert_int_equal(((const uint8_t *)(first + 1))[111], content_of(0, 111));

    lane_release(&lane);
    assert_true(push(&lane, &model, 24));
    drain(&lane, &model);
    lane_deinit(&lane);
}

static void the_largest_mail_fits_an_empty_lane_at_every_offset(void **unused)
{
    (void)unused;
    for (size_t bytes = 256; bytes <= 4096; bytes *= 2) {
        struct lane lane;
        struct model model = {0};
        open_lane(&lane, bytes);
        for (size_t offset = 0; offset < bytes; offset += 8) {
            move_to(&lane, &model, offset);
            assert_true(push(&lane, &model, LANE_MAIL_BYTES_MAX(bytes)));
            drain(&lane, &model);
        }
        lane_deinit(&lane);
    }
}

/* Two sizes in turn until the lane is full, from one offset; then all of it comes out again. */
static void fill_and_drain(struct lane *lane, struct model *model, size_t first, size_t second)
{
    uint64_t before = model->pushed;
    for (uint64_t i = 0; push(lane, model, i % 2 == 0 ? first : second); i++) continue;
    assert_true(model->pushed > before);
    drain(lane, model);
    assert_int_equal(model->popped, model->pushed);
    assert_false(lane_has_mail(lane));
}

static void mails_of_all_sizes_wrap_at_every_offset(void **unused)
{
    (void)unused;
    for (size_t bytes = 256; bytes <= 512; bytes *= 2) {
        struct lane lane;
        struct model model = {0};
        open_lane(&lane, bytes);
        for (size_t offset = 0; offset < bytes; offset += 8) {
            for (size_t first = 8; first <= LANE_MAIL_BYTES_MAX(bytes); first += 8) {
                for (size_t second = 8; second <= LANE_MAIL_BYTES_MAX(bytes); second += 8) {
                    move_to(&lane, &model, offset);
                    fill_and_drain(&lane, &model, first, second);
                }
            }
        }
        lane_deinit(&lane);
    }
}

/* Whatever stands unread in the lane, a push that fits behind it must not touch it. */
static void a_wrap_spares_what_is_unread(void **unused)
{
    (void)unused;
    struct lane lane;
    struct model model = {0};
    open_lane(&lane, 256);
    for (size_t offset = 0; offset < 256; offset += 8) {
        for (size_t unread = 8; unread <= LANE_MAIL_BYTES_MAX(256); unread += 8) {
            for (size_t bytes = 8; bytes <= LANE_MAIL_BYTES_MAX(256); bytes += 8) {
                move_to(&lane, &model, offset);
                assert_true(push(&lane, &model, unread));
                publish(&lane, &model);
                while (push(&lane, &model, bytes)) continue;
                assert_true(pop(&lane, &model));
                lane_release(&lane);
                while (push(&lane, &model, bytes)) continue;
                drain(&lane, &model);
                assert_int_equal(model.popped, model.pushed);
            }
        }
    }
    lane_deinit(&lane);
}

static void room_is_what_can_be_pushed_without_a_wrap(void **unused)
{
    (void)unused;
    struct lane lane;
    struct model model = {0};
    open_lane(&lane, 256);
    for (size_t offset = 0; offset < 256; offset += 8) {
        move_to(&lane, &model, offset);
        size_t room = lane_room(&lane);
        assert_int_equal(room, 256 - offset);
        for (size_t left = room; left > 0; left -= 8) {
            assert_int_equal(lane_room(&lane), left);
            assert_int_equal(lane.producer.tail & 255, 256 - left);
            assert_true(push(&lane, &model, 8));
        }
        drain(&lane, &model);
    }
    lane_deinit(&lane);
}

static void room_is_bounded_by_what_is_unread(void **unused)
{
    (void)unused;
    struct lane lane;
    struct model model = {0};
    open_lane(&lane, 256);
    move_to(&lane, &model, 192);
    assert_true(push(&lane, &model, 64)); /* the lap ends; 192 bytes are free at the start */
    assert_int_equal(lane_room(&lane), 192);
    assert_true(push(&lane, &model, 120));
    assert_true(push(&lane, &model, 72));
    assert_int_equal(lane_room(&lane), 0);
    publish(&lane, &model);
    assert_true(pop(&lane, &model));
    assert_int_equal(lane_room(&lane), 0);
    lane_release(&lane);
    assert_int_equal(lane_room(&lane), 64);
    lane_deinit(&lane);
}

static void room_at_the_end_is_small_but_a_push_wraps(void **unused)
{
    (void)unused;
    struct lane lane;
    struct model model = {0};
    open_lane(&lane, 256);
    move_to(&lane, &model, 248);
    assert_int_equal(lane_room(&lane), 8);
    assert_true(push(&lane, &model, LANE_MAIL_BYTES_MAX(256)));
    lane_deinit(&lane);
}

static void a_shrunk_mail_gives_its_rest_back(void **unused)
{
    (void)unused;
    for (size_t offset = 0; offset < 256; offset += 8) {
        for (size_t bytes = 8; bytes <= LANE_MAIL_BYTES_MAX(256); bytes += 8) {
            for (size_t rest = 8; rest <= bytes; rest += 8) {
                struct model model = {0};
                struct lane lane;
                open_lane(&lane, 256);
                move_to(&lane, &model, offset);
                assert_true(push(&lane, &model, bytes));
                shrink(&lane, &model, rest);
                while (push(&lane, &model, 16)) continue;
                drain(&lane, &model);
                assert_int_equal(model.popped, model.pushed);
                lane_deinit(&lane);
            }
        }
    }
}

/* Others were pushed behind it, as a handler does that sends mail before it replies. */
static void a_mail_that_is_not_the_last_can_be_shortened(void **unused)
{
    (void)unused;
    for (size_t offset = 0; offset < 256; offset += 8) {
        for (size_t rest = 8; rest <= 64; rest += 8) {
            for (unsigned behind = 1; behind <= 2; behind++) {
                struct lane lane;
                struct model model = {0};
                open_lane(&lane, 256);
                move_to(&lane, &model, offset);
                assert_true(push(&lane, &model, 64));
                struct mail *first = model.last;
                for (unsigned i = 0; i < behind; i++) assert_true(push(&lane, &model, 24));
                uint64_t tail = lane.producer.tail;
                lane_shrink(&lane, first, rest);
                assert_int_equal(lane.producer.tail, tail);
                model.sizes[(model.pushed - 1 - behind) % MODEL_MAILS_MAX] = rest;
                drain(&lane, &model);
                assert_int_equal(model.popped, model.pushed);
                lane_deinit(&lane);
            }
        }
    }
}

/* When it was pushed the room was looked up again, and the limit became one of the next lap. */
static void none_straddles_the_end_behind_a_shrunk_mail(void **unused)
{
    (void)unused;
    for (size_t bytes = 8; bytes <= 120; bytes += 8) {
        struct lane lane;
        struct model model = {0};
        open_lane(&lane, 256);
        assert_true(push(&lane, &model, 120));
        assert_true(push(&lane, &model, 120));
        drain(&lane, &model);
        assert_true(push(&lane, &model, 16));
        assert_true(push(&lane, &model, 120)); /* sees the first two gone: room to 240 */
        drain(&lane, &model);
        assert_true(push(&lane, &model, 120));
        assert_true(push(&lane, &model, 16)); /* over that, and to the end */
        assert_int_equal(lane.producer.tail & 255, 0);
        shrink(&lane, &model, 8);
        while (push(&lane, &model, bytes)) continue;
        drain(&lane, &model);
        assert_int_equal(model.popped, model.pushed);
        lane_deinit(&lane);
    }
}

static void a_mail_can_be_extended_to_the_end_of_the_memory(void **unused)
{
    (void)unused;
    for (size_t offset = 0; offset < 256; offset += 8) {
        for (size_t bytes = 8; bytes <= 64; bytes += 8) {
            struct lane lane;
            struct model model = {0};
            open_lane(&lane, 256);
            move_to(&lane, &model, offset);
            assert_true(push(&lane, &model, HEAD_BYTES));
            size_t begins = (size_t)((uint8_t *)model.last - lane.memory);
            while (extend(&lane, &model, bytes)) continue;
            /* One that began at the start has all of the memory. */
            assert_true(begins + model.last->bytes + bytes > 256);
            while (push(&lane, &model, 16)) continue;
            drain(&lane, &model);
            assert_int_equal(model.popped, model.pushed);
            lane_deinit(&lane);
        }
    }
}

static void one_random_step(struct lane *lane, struct model *model, struct rng *rng)
{
    size_t sizes_count = LANE_MAIL_BYTES_MAX(lane->bytes) / 8;
    switch (rng_below(rng, 13)) {
    case 0:
    case 1:
    case 2: (void)push(lane, model, 8 + 8 * rng_below(rng, rng_below(rng, sizes_count) + 1)); break;
    case 3: publish(lane, model); break;
    case 4: lane_release(lane); break;
    case 5:
    case 6:
        if (model->pushed > model->published)
            (void)extend(lane, model, 8 + 8 * rng_below(rng, sizes_count));
        break;
    case 7:
    case 8:
        if (model->pushed > model->published)
            shrink(lane, model, 8 + 8 * rng_below(rng, model->last->bytes / 8));
        break;
    case 9: (void)lane_room(lane); break;
    default: (void)pop(lane, model); break;
    }
    uint64_t unread = lane->published.tail - lane->consumer.head;
    assert_int_equal(lane_has_mail(lane), unread > 0);
    assert_true(lane->producer.tail - lane->consumed.head <= lane->bytes);
}

static void random_steps_match_the_model(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rng rng;
        struct lane lane;
        struct model model = {0};
        rng_init(&rng, seed);
        open_lane(&lane, (size_t)256 << rng_below(&rng, 4));
        for (uint32_t i = 0; i < 20000; i++) one_random_step(&lane, &model, &rng);
        drain(&lane, &model);
        assert_int_equal(model.popped, model.pushed);
        lane_deinit(&lane);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_lane_is_empty),
        cmocka_unit_test(init_fails_without_memory),
        cmocka_unit_test(push_writes_the_head),
        cmocka_unit_test(mail_is_unseen_until_it_is_published),
        cmocka_unit_test(publish_says_whether_there_was_something),
        cmocka_unit_test(a_pad_is_unseen_until_it_is_published),
        cmocka_unit_test(every_byte_of_the_memory_can_be_used),
        cmocka_unit_test(a_refused_push_leaves_no_trace),
        cmocka_unit_test(only_release_makes_room),
        cmocka_unit_test(the_largest_mail_fits_an_empty_lane_at_every_offset),
        cmocka_unit_test(mails_of_all_sizes_wrap_at_every_offset),
        cmocka_unit_test(a_wrap_spares_what_is_unread),
        cmocka_unit_test(room_is_what_can_be_pushed_without_a_wrap),
        cmocka_unit_test(room_is_bounded_by_what_is_unread),
        cmocka_unit_test(room_at_the_end_is_small_but_a_push_wraps),
        cmocka_unit_test(a_shrunk_mail_gives_its_rest_back),
        cmocka_unit_test(a_mail_that_is_not_the_last_can_be_shortened),
        cmocka_unit_test(none_straddles_the_end_behind_a_shrunk_mail),
        cmocka_unit_test(a_mail_can_be_extended_to_the_end_of_the_memory),
        cmocka_unit_test(random_steps_match_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
