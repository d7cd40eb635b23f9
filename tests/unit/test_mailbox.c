#include "shard/mailbox.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/memory.h"

#define KIND 3
#define LANE_BYTES 1024

static const uint32_t groups[] = {1, 2, 3, SHARDS_MAX};

static struct mailbox mailboxes[SHARDS_MAX];

static void open_group(uint32_t shards_count)
{
    assert_int_equal(mailboxes_init(mailboxes, shards_count, LANE_BYTES), 0);
}

static uint64_t bit(uint32_t shard)
{
    return (uint64_t)1 << shard;
}

static void push(uint32_t from, uint32_t to)
{
    struct mail *mail = mailbox_try_push(&mailboxes[from], to, 16, KIND);
    assert_non_null(mail);
    mail->small = (uint16_t)(from * SHARDS_MAX + to);
}

/* The mail from `from` to `to`, popped; -1 where there is none. */
static int take(uint32_t from, uint32_t to)
{
    struct lane *lane = mailboxes[to].in[from];
    const struct mail *mail = lane_peek(lane);
    if (mail == NULL) return -1;
    int small = mail->small;
    lane_pop(lane);
    lane_release(lane);
    return small;
}

static void one_shard_has_no_lanes(void **unused)
{
    (void)unused;
    open_group(1);
    assert_null(mailboxes[0].in[0]);
    assert_null(mailboxes[0].out[0]);
    assert_ptr_equal(mailboxes[0].peers[0], &mailboxes[0]);
    assert_false(mailbox_has_mail(&mailboxes[0]));
    assert_int_equal(mailbox_publish(&mailboxes[0]), 0);
    assert_true(mailbox_sleep(&mailboxes[0]));
    mailbox_awake(&mailboxes[0]);
    mailboxes_deinit(mailboxes, 1);
}

static void every_ordered_pair_has_its_own_lane(void **unused)
{
    (void)unused;
    for (size_t g = 0; g < ARRAY_COUNT(groups); g++) {
        uint32_t count = groups[g];
        open_group(count);
        for (uint32_t from = 0; from < count; from++) {
            for (uint32_t to = 0; to < count; to++) {
                if (to != from) push(from, to);
            }
            assert_int_equal(mailbox_publish(&mailboxes[from]), 0);
        }
        for (uint32_t to = 0; to < count; to++) {
            assert_int_equal(mailbox_has_mail(&mailboxes[to]), count > 1);
            for (uint32_t from = 0; from < count; from++) {
                if (from == to) continue;
                assert_int_equal(take(from, to), (int)(from * SHARDS_MAX + to));
                assert_int_equal(take(from, to), -1);
            }
            assert_false(mailbox_has_mail(&mailboxes[to]));
        }
        mailboxes_deinit(mailboxes, count);
    }
}

static void mail_is_unseen_until_it_is_published(void **unused)
{
    (void)unused;
    open_group(2);
    push(0, 1);
    assert_false(mailbox_has_mail(&mailboxes[1]));
    assert_int_equal(mailbox_publish(&mailboxes[0]), 0);
    assert_true(mailbox_has_mail(&mailboxes[1]));
    mailboxes_deinit(mailboxes, 2);
}

static void publish_hands_out_the_sleepers_that_got_mail(void **unused)
{
    (void)unused;
    for (size_t g = 0; g < ARRAY_COUNT(groups); g++) {
        uint32_t count = groups[g];
        if (count < 3) continue;
        open_group(count);
        uint32_t last = count - 1;
        assert_true(mailbox_sleep(&mailboxes[1]));
        if (last > 2) assert_true(mailbox_sleep(&mailboxes[2])); /* sleeps, but gets no mail */
        push(0, last);
        assert_int_equal(mailbox_publish(&mailboxes[0]), 0); /* gets mail, but does not sleep */

        push(0, 1);
        assert_int_equal(mailbox_publish(&mailboxes[0]), bit(1));
        assert_int_equal(mailboxes[0].wakes, 1);
        mailboxes_deinit(mailboxes, count);
    }
}

static void all_sleepers_are_woken_by_one_publish(void **unused)
{
    (void)unused;
    open_group(SHARDS_MAX);
    uint32_t sender = 5;
    uint64_t others = ~bit(sender);
    for (uint32_t to = 0; to < SHARDS_MAX; to++) {
        if (to == sender) continue;
        assert_true(mailbox_sleep(&mailboxes[to]));
        push(sender, to);
    }
    assert_true(mailbox_publish(&mailboxes[sender]) == others);
    assert_int_equal(mailboxes[sender].wakes, SHARDS_MAX - 1);
    mailboxes_deinit(mailboxes, SHARDS_MAX);
}

static void a_sleeper_is_handed_to_exactly_one_sender(void **unused)
{
    (void)unused;
    open_group(3);
    assert_true(mailbox_sleep(&mailboxes[0]));
    push(1, 0);
    push(2, 0);
    assert_int_equal(mailbox_publish(&mailboxes[2]), bit(0));
    assert_int_equal(mailbox_publish(&mailboxes[1]), 0);
    push(2, 0);
    assert_int_equal(mailbox_publish(&mailboxes[2]), 0);
    assert_int_equal(mailboxes[1].wakes + mailboxes[2].wakes, 1);
    mailboxes_deinit(mailboxes, 3);
}

static void publish_without_new_mail_wakes_nobody(void **unused)
{
    (void)unused;
    open_group(2);
    assert_true(mailbox_sleep(&mailboxes[1]));
    assert_int_equal(mailbox_publish(&mailboxes[0]), 0);
    push(0, 1);
    assert_int_equal(mailbox_publish(&mailboxes[0]), bit(1));
    assert_int_equal(mailbox_publish(&mailboxes[0]), 0);
    mailboxes_deinit(mailboxes, 2);
}

static void a_shard_with_mail_does_not_sleep(void **unused)
{
    (void)unused;
    open_group(2);
    push(0, 1);
    assert_int_equal(mailbox_publish(&mailboxes[0]), 0);
    assert_false(mailbox_sleep(&mailboxes[1]));
    /* The announcement is taken back: nobody wakes a shard that is awake. */
    push(0, 1);
    assert_int_equal(mailbox_publish(&mailboxes[0]), 0);
    mailboxes_deinit(mailboxes, 2);
}

static void an_awake_shard_is_not_woken(void **unused)
{
    (void)unused;
    open_group(2);
    assert_true(mailbox_sleep(&mailboxes[1]));
    mailbox_awake(&mailboxes[1]); /* a timer ended the sleep */
    push(0, 1);
    assert_int_equal(mailbox_publish(&mailboxes[0]), 0);
    mailboxes_deinit(mailboxes, 2);
}

static void a_woken_shard_can_sleep_again(void **unused)
{
    (void)unused;
    open_group(2);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(mailbox_sleep(&mailboxes[1]));
        push(0, 1);
        assert_int_equal(mailbox_publish(&mailboxes[0]), bit(1));
        mailbox_awake(&mailboxes[1]);
        assert_false(mailbox_sleep(&mailboxes[1]));
        assert_int_equal(take(0, 1), 1);
    }
    assert_int_equal(mailboxes[0].wakes, 3);
    mailboxes_deinit(mailboxes, 2);
}

static void a_full_lane_stops_only_its_own_pair(void **unused)
{
    (void)unused;
    open_group(3);
    while (mailbox_try_push(&mailboxes[0], 1, 64, KIND) != NULL) continue;
    push(0, 2);
    assert_true(mailbox_sleep(&mailboxes[1]));
    /* What was pushed before the refusal is published and wakes its receiver. */
    assert_int_equal(mailbox_publish(&mailboxes[0]), bit(1));
    assert_int_equal(take(0, 2), 2);
    assert_null(mailbox_try_push(&mailboxes[0], 1, 64, KIND));
    assert_int_equal(mailbox_publish(&mailboxes[0]), 0);
    mailboxes_deinit(mailboxes, 3);
}

/* Address space of this process, in bytes. */
static size_t address_space_bytes(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Lanes so large that one which is not given back shows in the size of the process. */
static void init_gives_all_back_when_an_allocation_fails(void **unused)
{
    (void)unused;
    size_t lane_bytes = GIB;
    uint64_t calls_before = memory_calls_count();
    assert_int_equal(mailboxes_init(mailboxes, 3, lane_bytes), 0);
    uint64_t calls = memory_calls_count() - calls_before;
    mailboxes_deinit(mailboxes, 3);
    assert_true(calls >= 6);

    size_t before = address_space_bytes();
    for (uint64_t n = 1; n <= calls; n++) {
        memory_fail_after(n);
        assert_int_equal(mailboxes_init(mailboxes, 3, lane_bytes), -ENOMEM);
        assert_true(address_space_bytes() < before + lane_bytes / 2);
    }
    memory_fail_after(calls + 1);
    assert_int_equal(mailboxes_init(mailboxes, 3, lane_bytes), 0);
    memory_fail_after(0);
    mailboxes_deinit(mailboxes, 3);
    assert_true(address_space_bytes() < before + lane_bytes / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_shard_has_no_lanes),
        cmocka_unit_test(every_ordered_pair_has_its_own_lane),
        cmocka_unit_test(mail_is_unseen_until_it_is_published),
        cmocka_unit_test(publish_hands_out_the_sleepers_that_got_mail),
        cmocka_unit_test(all_sleepers_are_woken_by_one_publish),
        cmocka_unit_test(a_sleeper_is_handed_to_exactly_one_sender),
        cmocka_unit_test(publish_without_new_mail_wakes_nobody),
        cmocka_unit_test(a_shard_with_mail_does_not_sleep),
        cmocka_unit_test(an_awake_shard_is_not_woken),
        cmocka_unit_test(a_woken_shard_can_sleep_again),
        cmocka_unit_test(a_full_lane_stops_only_its_own_pair),
        cmocka_unit_test(init_gives_all_back_when_an_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
