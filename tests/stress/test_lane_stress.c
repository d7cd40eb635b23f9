/*
 * Shards as threads that send each other mail of random sizes, and sleep when they have nothing to
 * do. Run under ThreadSanitizer too (make tsan), where base/ck.h is made of C11 atomics.
 *
 * Every shard sends bursts to random others and waits until each mail of the burst is
 * acknowledged, so that the threads fall asleep and are woken all the time; acknowledgements carry
 * counts and so cannot pile up. A lost wake-up leaves everybody asleep, which poll(2)'s timeout
 * turns into a failure. Nothing waits for time to pass otherwise.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/rng.h"
#include "shard/mailbox.h"

#define SHARDS_COUNT_MAX 4
#define LANE_BYTES 4096
#define BURST_MAX 200
#define RUN_NS (400 * NS_PER_MS)
/* Far longer than any machine needs to run a thread that is ready. */
#define LOST_WAKE_MS 20000
/* Mails taken from one lane before the others get their turn. */
#define DRAIN_MAX 64

enum kind { KIND_PAD, KIND_DATA, KIND_ACK, KIND_BYE };

struct data {
    struct mail head;
    uint64_t sequence; /* of this pair of shards, from 0 */
    uint64_t checksum; /* of the words that follow */
    uint64_t words[];
};
#define WORDS_MAX ((LANE_MAIL_BYTES_MAX(LANE_BYTES) - sizeof(struct data)) / 8)

struct ack {
    struct mail head;
    uint64_t count;
};

struct shard {
    struct mailbox *mailbox;
    int wake_fd;
    int *wake_fds; /* of all shards */
    struct rng rng;
    uint32_t index;
    uint32_t shards_count;
    uint64_t end_ns;
    uint32_t burst_left; /* mails to send before waiting */
    uint64_t unanswered; /* mails sent and not acknowledged */
    uint32_t byes_missing;
    uint32_t byes_unsent; /* a bit for each shard */
    uint64_t sent[SHARDS_COUNT_MAX];
    uint64_t received[SHARDS_COUNT_MAX];
    uint64_t acks_owed[SHARDS_COUNT_MAX];
    uint64_t announcements; /* calls of mailbox_sleep */
    uint64_t sleeps;
    uint64_t wakes_received;
};

static struct mailbox mailboxes[SHARDS_COUNT_MAX];

/* ---- Sending; each returns false when the lane is full -------------------------------------- */

static bool send_data(struct shard *shard, uint32_t to)
{
    /* Mostly small, now and then the largest there is. */
    uint64_t words_count = rng_below(&shard->rng, rng_below(&shard->rng, WORDS_MAX) + 2);
    size_t bytes = sizeof(struct data) + words_count * 8;
    struct data *data = (struct data *)mailbox_try_push(shard->mailbox, to, bytes, KIND_DATA);
    if (data == NULL) return false;
    data->head.small = (uint16_t)shard->index;
    data->sequence = shard->sent[to];
    for (uint64_t i = 0; i < words_count; i++) data->words[i] = rng_next(&shard->rng);
    data->checksum = hash_bytes(data->words, words_count * 8);
    shard->sent[to]++;
    shard->unanswered++;
    return true;
}

static bool send_ack(struct shard *shard, uint32_t to)
{
    struct ack *ack =
        (struct ack *)mailbox_try_push(shard->mailbox, to, sizeof(struct ack), KIND_ACK);
    if (ack == NULL) return false;
    ack->count = shard->acks_owed[to];
    shard->acks_owed[to] = 0;
    return true;
}

/* Sends what it can; false when a lane was full and something is left. */
static bool send_all(struct shard *shard)
{
    bool all = true;
    for (uint32_t to = 0; to < shard->shards_count; to++) {
        if (shard->acks_owed[to] > 0 && !send_ack(shard, to)) all = false;
    }
    while (shard->burst_left > 0) {
        uint32_t step = 1 + (uint32_t)rng_below(&shard->rng, shard->shards_count - 1);
        if (!send_data(shard, (shard->index + step) % shard->shards_count)) return false;
        shard->burst_left--;
    }
    return all;
}

static bool send_byes(struct shard *shard)
{
    for (uint32_t to = 0; to < shard->shards_count; to++) {
        if ((shard->byes_unsent & 1u << to) == 0) continue;
        if (mailbox_try_push(shard->mailbox, to, sizeof(struct mail), KIND_BYE) == NULL) {
            return false;
        }
        shard->byes_unsent &= ~(1u << to);
    }
    return true;
}

/* ---- Receiving ------------------------------------------------------------------------------ */

static void on_data(struct shard *shard, uint32_t from, const struct data *data)
{
    ASSERT(data->head.small == from);
    ASSERT(data->sequence == shard->received[from]);
    ASSERT(data->checksum == hash_bytes(data->words, data->head.bytes - sizeof(*data)));
    shard->received[from]++;
    shard->acks_owed[from]++;
}

static void on_mail(struct shard *shard, uint32_t from, const struct mail *mail)
{
    switch ((enum kind)mail->kind) {
    case KIND_PAD: ASSERT(mail->kind != KIND_PAD); break;
    case KIND_DATA: on_data(shard, from, (const struct data *)mail); break;
    case KIND_ACK: {
        uint64_t count = ((const struct ack *)mail)->count;
        ASSERT(count <= shard->unanswered);
        shard->unanswered -= count;
        break;
    }
    case KIND_BYE: shard->byes_missing--; break;
    }
}

static bool drain(struct shard *shard)
{
    bool any = false;
    for (uint32_t from = 0; from < shard->shards_count; from++) {
        struct lane *lane = shard->mailbox->in[from];
        if (lane == NULL) continue;
        for (uint32_t i = 0; i < DRAIN_MAX; i++) {
            const struct mail *mail = lane_peek(lane);
            if (mail == NULL) break;
            on_mail(shard, from, mail);
            lane_pop(lane);
            any = true;
        }
        lane_release(lane);
    }
    return any;
}

/* ---- The turn ------------------------------------------------------------------------------- */

static void publish_and_wake(struct shard *shard)
{
    uint64_t wake = mailbox_publish(shard->mailbox);
    for (uint32_t to = 0; to < shard->shards_count; to++) {
        if ((wake >> to & 1) == 0) continue;
        int err = eventfd_write(shard->wake_fds[to], 1);
        ASSERT(err == 0);
    }
}

static void sleep_until_woken(struct shard *shard)
{
    shard->announcements++;
    if (!mailbox_sleep(shard->mailbox)) return;
    shard->sleeps++;
    struct pollfd wake = {.fd = shard->wake_fd, .events = POLLIN};
    int ready = poll(&wake, 1, LOST_WAKE_MS);
    mailbox_awake(shard->mailbox);
    ASSERT(ready == 1); /* else the wake-up was lost */
    eventfd_t wakes = 0;
    int err = eventfd_read(shard->wake_fd, &wakes);
    ASSERT(err == 0);
    shard->wakes_received += wakes;
}

static void start_burst(struct shard *shard)
{
    if (shard->unanswered > 0 || shard->burst_left > 0) return;
    if (clock_now_ns() >= shard->end_ns) return;
    shard->burst_left = 1 + (uint32_t)rng_below(&shard->rng, rng_below(&shard->rng, BURST_MAX) + 1);
}

/* Done with its own mails: says so to all. Ends when all have said so and nothing is owed. */
static bool is_finished(struct shard *shard, bool all_sent)
{
    bool own_done = shard->unanswered == 0 && shard->burst_left == 0;
    if (!own_done || !all_sent) return false;
    return send_byes(shard) && shard->byes_missing == 0;
}

static void *shard_thread(void *context)
{
    struct shard *shard = context;
    for (;;) {
        start_burst(shard);
        bool all_sent = send_all(shard);
        bool finished = is_finished(shard, all_sent);
        publish_and_wake(shard);
        bool any = drain(shard);
        if (finished && !any) return NULL;
        if (any) continue;
        /* Nobody wakes the sender when a full lane gets room, so it must not block. */
        bool can_sleep = all_sent && (shard->unanswered > 0 || shard->byes_unsent == 0);
        if (can_sleep) {
            sleep_until_woken(shard);
        } else {
            sched_yield();
        }
    }
}

/* ---- One run -------------------------------------------------------------------------------- */

static void shard_open(struct shard *shard, struct shard *shards, uint32_t shards_count,
                       int *wake_fds, uint64_t seed)
{
    uint32_t index = (uint32_t)(shard - shards);
    memset(shard, 0, sizeof(*shard));
    wake_fds[index] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(wake_fds[index] >= 0);
    shard->mailbox = &mailboxes[index];
    shard->wake_fd = wake_fds[index];
    shard->wake_fds = wake_fds;
    rng_init(&shard->rng, seed + index);
    shard->index = index;
    shard->shards_count = shards_count;
    shard->end_ns = clock_now_ns() + RUN_NS;
    shard->byes_missing = shards_count - 1;
    shard->byes_unsent = ((1u << shards_count) - 1) & ~(1u << index);
}

static void assert_all_arrived(const struct shard *shards, uint32_t shards_count)
{
    uint64_t mails = 0;
    uint64_t sleeps = 0;
    uint64_t announcements = 0;
    uint64_t wakes_sent = 0;
    uint64_t wakes_received = 0;
    for (uint32_t from = 0; from < shards_count; from++) {
        for (uint32_t to = 0; to < shards_count; to++) {
            assert_int_equal(shards[from].sent[to], shards[to].received[from]);
            mails += shards[from].sent[to];
        }
        sleeps += shards[from].sleeps;
        announcements += shards[from].announcements;
        wakes_received += shards[from].wakes_received;
        wakes_sent += mailboxes[from].wakes;
        assert_false(mailbox_has_mail(&mailboxes[from]));
    }
    assert_true(mails > 0);
    assert_true(sleeps > 0);
    assert_true(wakes_sent > 0);
    assert_true(wakes_sent <= announcements); /* no announcement is claimed twice */
    assert_true(wakes_received <= wakes_sent);
    assert_true(wakes_received >= sleeps);
    print_message("%u shards: %lu mails, %lu sleeps, %lu wakes\n", shards_count,
                  (unsigned long)mails, (unsigned long)sleeps, (unsigned long)wakes_sent);
}

static void run_shards(uint32_t shards_count, uint64_t seed)
{
    struct shard shards[SHARDS_COUNT_MAX];
    int wake_fds[SHARDS_COUNT_MAX];
    pthread_t threads[SHARDS_COUNT_MAX];
    assert_int_equal(mailboxes_init(mailboxes, shards_count, LANE_BYTES), 0);
    for (uint32_t i = 0; i < shards_count; i++) {
        shard_open(&shards[i], shards, shards_count, wake_fds, seed);
    }
    for (uint32_t i = 0; i < shards_count; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, shard_thread, &shards[i]), 0);
    }
    for (uint32_t i = 0; i < shards_count; i++) pthread_join(threads[i], NULL);

    assert_all_arrived(shards, shards_count);
    for (uint32_t i = 0; i < shards_count; i++) close(wake_fds[i]);
    mailboxes_deinit(mailboxes, shards_count);
}

static void two_shards_lose_nothing_and_always_wake(void **unused)
{
    (void)unused;
    run_shards(2, 1);
}

static void three_shards_lose_nothing_and_always_wake(void **unused)
{
    (void)unused;
    run_shards(3, 2);
}

static void four_shards_lose_nothing_and_always_wake(void **unused)
{
    (void)unused;
    run_shards(4, 3);
}

/* ---- One lane, one direction, always nearly full or nearly empty ----------------------------- */

#define STREAM_MAILS 200000
#define STREAM_LANE_BYTES 512

static void *stream_producer(void *context)
{
    struct lane *lane = context;
    struct rng rng;
    rng_init(&rng, 4);
    for (uint64_t sequence = 0; sequence < STREAM_MAILS;) {
        size_t words = 1 + rng_below(&rng, LANE_MAIL_BYTES_MAX(STREAM_LANE_BYTES) / 8 - 1);
        struct mail *mail;
        while ((mail = lane_try_push(lane, 8 + words * 8, KIND_DATA)) == NULL) {
            lane_publish(lane);
            sched_yield();
        }
        uint64_t *body = (uint64_t *)(mail + 1);
        for (size_t i = 0; i < words; i++) body[i] = sequence * 131 + i;
        sequence++;
        if (rng_below(&rng, 4) == 0) lane_publish(lane);
    }
    lane_publish(lane);
    return NULL;
}

static void stream_consume(struct lane *lane)
{
    for (uint64_t sequence = 0; sequence < STREAM_MAILS;) {
        const struct mail *mail = lane_peek(lane);
        if (mail == NULL) {
            lane_release(lane);
            sched_yield();
            continue;
        }
        const uint64_t *body = (const uint64_t *)(mail + 1);
        for (size_t i = 0; i < mail->bytes / 8 - 1; i++) ASSERT(body[i] == sequence * 131 + i);
        lane_pop(lane);
        sequence++;
        if (sequence % 3 == 0) lane_release(lane);
    }
    assert_null(lane_peek(lane));
}

static void a_stream_keeps_order_and_content(void **unused)
{
    (void)unused;
    static struct lane lane;
    pthread_t producer;
    assert_int_equal(lane_init(&lane, STREAM_LANE_BYTES), 0);
    assert_int_equal(pthread_create(&producer, NULL, stream_producer, &lane), 0);
    stream_consume(&lane);
    pthread_join(producer, NULL);
    lane_deinit(&lane);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_keeps_order_and_content),
        cmocka_unit_test(two_shards_lose_nothing_and_always_wake),
        cmocka_unit_test(three_shards_lose_nothing_and_always_wake),
        cmocka_unit_test(four_shards_lose_nothing_and_always_wake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
