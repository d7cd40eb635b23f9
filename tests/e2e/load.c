/*
 * Load until the node goes: links with many requests under way, a signal in the middle of it, and
 * then the sums. A node that ends in order has answered all that it took: each link ends without a
 * reset, behind a whole frame, with as many replies as its last ACK counts requests.
 *
 *   load ADDRESS PID LINKS SIGNAL...     sends the signals at once; prints facts
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/rng.h"
#include "tests/support/fact.h"
#include "tests/support/stranger.h"

#define LINKS_MAX 64
/* Unanswered requests of a link. */
#define UNDER_WAY_MAX 2000
/* The signal is sent when each link has had so many replies. */
#define REPLIES_FIRST 5000

struct load_link {
    struct stranger peer;
    uint32_t seq;
    enum stranger_got got; /* STRANGER_FRAME while it goes on */
    bool is_refused;
    uint32_t wrong; /* replies that are neither OK, nor of a key that was never set */
};

struct load {
    struct load_link links[LINKS_MAX];
    unsigned count;
    struct rng rng;
};

/* Updates, and a read now and then, of random keys of all shards. */
static void put_requests(struct load *load, struct load_link *link)
{
    static const uint8_t value[200] = "value";
    struct stranger *peer = &link->peer;
    while (link->seq - peer->replies < UNDER_WAY_MAX && peer->out_bytes < 65536) {
        char key[24];
        size_t bytes = (size_t)snprintf(key, sizeof key, "%llu",
                                        (unsigned long long)rng_below(&load->rng, 20000));
        bool reads = rng_below(&load->rng, 4) == 0;
        stranger_put_request(peer, reads ? FRAME_GET : FRAME_UPDATE, ++link->seq,
                             (struct bytes){key, bytes},
                             reads ? (struct bytes){NULL, 0} : (struct bytes){value, sizeof value});
    }
}

static void take_frame(struct load_link *link, const uint8_t *frame)
{
    struct frame_reply reply;
    if (frame[4] == FRAME_REFUSE) link->is_refused = true;
    if (frame[4] != FRAME_REPLY) return;
    memcpy(&reply, frame, sizeof reply);
    link->wrong += reply.code != 0 && reply.code != reply_code(OUTCOME_FAIL, ERROR_NOT_FOUND);
}

/* Reads what has come; after that the link may be over. */
static void take_frames(struct load_link *link)
{
    const uint8_t *frame;
    /* poll said that there is something, so the first call does not wait. */
    enum stranger_got got = stranger_next(&link->peer, STRANGER_WAIT_MS, &frame);
    while (got == STRANGER_FRAME) {
        take_frame(link, frame);
        got = stranger_take(&link->peer, &frame);
    }
    if (got == STRANGER_SILENCE) return;
    link->got = got;
    /* A node that is done waits for its callers to go, if not for long. */
    shutdown(link->peer.fd, SHUT_WR);
}

static void turn(struct load *load)
{
    struct pollfd ready[LINKS_MAX];
    for (unsigned i = 0; i < load->count; i++) {
        struct load_link *link = &load->links[i];
        bool goes_on = link->got == STRANGER_FRAME;
        if (goes_on) put_requests(load, link);
        /* A link that is over is not asked, which poll knows by a negative descriptor. */
        ready[i] = (struct pollfd){.fd = goes_on ? link->peer.fd : -1, .events = POLLIN};
        if (goes_on && link->peer.out_bytes > 0) ready[i].events |= POLLOUT;
    }
    if (poll(ready, load->count, STRANGER_WAIT_MS) <= 0) {
        for (unsigned i = 0; i < load->count; i++)
            if (load->links[i].got == STRANGER_FRAME) load->links[i].got = STRANGER_SILENCE;
        return;
    }
    for (unsigned i = 0; i < load->count; i++) {
        if (ready[i].revents & POLLOUT) (void)stranger_try_flush(&load->links[i].peer);
        if (ready[i].revents & (POLLIN | POLLHUP | POLLERR)) take_frames(&load->links[i]);
    }
}

static unsigned links_that_go_on(const struct load *load)
{
    unsigned count = 0;
    for (unsigned i = 0; i < load->count; i++) count += load->links[i].got == STRANGER_FRAME;
    return count;
}

static uint64_t replies_fewest(const struct load *load)
{
    uint64_t fewest = UINT64_MAX;
    for (unsigned i = 0; i < load->count; i++)
        fewest = min_u64(fewest, load->links[i].peer.replies);
    return fewest;
}

static void judge(const struct load *load)
{
    unsigned in_order = 0;
    unsigned answered = 0;
    unsigned right = 0;
    unsigned told = 0;
    const struct load_link *odd = NULL;
    for (unsigned i = 0; i < load->count; i++) {
        const struct load_link *link = &load->links[i];
        bool ends_well = link->got == STRANGER_OVER && link->peer.over_err == 0;
        bool is_answered = (uint32_t)link->peer.replies == link->peer.acked_requests;
        in_order += ends_well;
        answered += is_answered;
        right += link->wrong == 0;
        told += link->is_refused;
        if (!ends_well || !is_answered) odd = link;
    }
    fact(in_order == load->count, "each link ends in order, behind a whole frame",
         "%u of %u; one: %s, %s", in_order, load->count,
         odd == NULL                    ? ""
         : odd->got == STRANGER_SILENCE ? "silent"
         : odd->got == STRANGER_BROKEN  ? "cut"
                                        : "over",
         odd != NULL ? strerror(-odd->peer.over_err) : "");
    fact(answered == load->count, "each request that was taken is answered",
         "on %u of %u links; on one %u of %u", answered, load->count,
         odd != NULL ? (unsigned)odd->peer.replies : 0, odd != NULL ? odd->peer.acked_requests : 0);
    fact(right == load->count, "and rightly", "on %u of %u links", right, load->count);
    fact(told == load->count, "each link is told that the node is stopping", "%u of %u", told,
         load->count);
}

static void judge_end(pid_t pid, uint64_t begin_ns)
{
    uint64_t limit_ms = fact_limit_ms(2000);
    uint64_t took_ms = 0;
    while (process_memory_kib(pid) >= 0 && took_ms <= limit_ms) {
        poll(NULL, 0, 1);
        took_ms = (clock_now_ns() - begin_ns) / NS_PER_MS;
    }
    fact(took_ms <= limit_ms, "the node ends within two seconds", "%llu ms",
         (unsigned long long)took_ms);
}

int main(int argc, char **argv)
{
    static struct load load;
    if (argc < 5 || strtoul(argv[3], NULL, 10) > LINKS_MAX) {
        fprintf(stderr, "usage: load ADDRESS PID LINKS SIGNAL...\n");
        return 2;
    }
    pid_t pid = (pid_t)strtol(argv[2], NULL, 10);
    load.count = (unsigned)strtoul(argv[3], NULL, 10);
    rng_init(&load.rng, 1);
    for (unsigned i = 0; i < load.count; i++) {
        bool is_open = stranger_open(&load.links[i].peer, argv[1], "demo", rng_secret_u64());
        load.links[i].got = is_open ? STRANGER_FRAME : STRANGER_BROKEN;
    }
    while (links_that_go_on(&load) == load.count && replies_fewest(&load) < REPLIES_FIRST)
        turn(&load);
    fact(links_that_go_on(&load) == load.count, "the load is under way", "%u of %u links",
         links_that_go_on(&load), load.count);
    for (int i = 4; i < argc; i++) kill(pid, (int)strtol(argv[i], NULL, 10));
    uint64_t begin_ns = clock_now_ns();
    uint64_t before = replies_fewest(&load);
    while (links_that_go_on(&load) > 0) turn(&load);
    printf("# all over after %llu ms, %llu more replies on the first link\n",
           (unsigned long long)((clock_now_ns() - begin_ns) / NS_PER_MS),
           (unsigned long long)(load.links[0].peer.replies - before));
    judge_end(pid, begin_ns);
    judge(&load);
    for (unsigned i = 0; i < load.count; i++) stranger_close(&load.links[i].peer, false);
    return facts_failed() > 0 ? 1 : 0;
}
