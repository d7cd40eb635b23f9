/*
 * The wake-up protocol of src/shard/mailbox.c, checked in every interleaving.
 *
 * Each thread is a small machine of atomic steps. Each has a store buffer, as on x86 (TSO): a
 * plain store goes into the buffer, and the oldest store of a buffer may reach memory at any time,
 * between any two steps of any thread; a load sees the youngest store of its own buffer, else
 * memory; a locked instruction (xchg, cmpxchg) waits until its own buffer is empty and then acts
 * on memory. From the start state all orders of all steps are followed, each state once.
 *
 *   model step   real code                                             instruction
 *   PUBLISH      mailbox_publish: lane_publish, `published.tail`       plain store
 *   FENCE        mailbox_publish: exchange_full_u32(&mailbox->fence)   xchg
 *   LOOK         mailbox_publish: load of the peer's `sleeping`        load
 *   CLAIM        mailbox_publish: swap_if_u32(sleeping, 1, 0)          cmpxchg
 *   WAKE         the caller of mailbox_publish: eventfd or msg_ring    system call
 *
 *   DRAIN        the turn: lane_peek, lane_pop of each lane            load, a lane a step
 *   ANNOUNCE     mailbox_sleep: exchange_full_u32(&sleeping, 1)        xchg
 *   LOOK_AGAIN   mailbox_sleep: mailbox_has_mail                       load, a lane a step
 *   TAKE_BACK    mailbox_sleep: store_release_u32(&sleeping, 0)        plain store
 *   ENTER        the caller of mailbox_sleep: waits for completions    system call begins
 *   BLOCK        the same, in the kernel, until a wake is pending
 *   AWAKE        mailbox_awake: store_release_u32(&sleeping, 0)        plain store
 *
 * Threads of the program (src/shard/port.c) take the same steps, with two differences:
 *
 *   REGISTER     ports_add: `fresh`, before the first PUBLISH             plain store
 *                DRAIN and LOOK_AGAIN load it before the lane's tail
 *   WAKE         port_wake: a futex, which wakes a sleeper that is in BLOCK and is not remembered;
 *   ENTER        port_block: the kernel compares `sleeping` and goes to BLOCK where it is still 1
 *
 * What must hold:
 *
 *   no lost wake   Never is the sleeper in ENTER or BLOCK with mail unread, published or in a store
 *                  buffer, no wake pending, and no sender between PUBLISH and the end of WAKE.
 *   no deaf end    Where nothing can move any more, the sleeper is in BLOCK and has read all mail.
 *   one wake       No announcement is claimed twice.
 *
 * The checker is itself checked: each bug that the protocol is meant to exclude is planted, and
 * must be found. If you change the steps of mailbox.c, change them here too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/memory.h"

enum bug {
    BUG_NONE,
    BUG_NO_FENCE_IN_SENDER,   /* FENCE does not wait for the buffer */
    BUG_NO_FENCE_IN_SLEEPER,  /* ANNOUNCE is a plain store */
    BUG_LOOK_BEFORE_ANNOUNCE, /* LOOK_AGAIN, then ANNOUNCE */
    BUG_PUBLISH_AFTER_LOOK,   /* FENCE, LOOK, CLAIM, WAKE, then PUBLISH */
    BUG_CLAIM_NOT_ATOMIC,     /* CLAIM is a plain store after LOOK */
    BUG_WAKE_NOT_REMEMBERED,  /* WAKE of a sleeper that is not yet in BLOCK has no effect */
    BUG_WORD_NOT_COMPARED,    /* the same of a sleep on a word, which ENTER does not compare */
    BUG_REGISTER_LATE,        /* REGISTER behind the first LOOK */
};

enum step {
    /* A sender's. */
    REGISTER,
    PUBLISH,
    FENCE,
    LOOK,
    CLAIM,
    WAKE,
    DONE,
    /* The sleeper's. */
    DRAIN,
    ANNOUNCE,
    LOOK_AGAIN,
    TAKE_BACK,
    ENTER,
    BLOCK,
    AWAKE,
};

static const char *const step_names[] = {
    [REGISTER] = "REGISTER",   [PUBLISH] = "PUBLISH",
    [FENCE] = "FENCE",         [LOOK] = "LOOK",
    [CLAIM] = "CLAIM",         [WAKE] = "WAKE",
    [DONE] = "DONE",           [DRAIN] = "DRAIN",
    [ANNOUNCE] = "ANNOUNCE",   [LOOK_AGAIN] = "LOOK_AGAIN",
    [TAKE_BACK] = "TAKE_BACK", [ENTER] = "ENTER",
    [BLOCK] = "BLOCK",         [AWAKE] = "AWAKE",
};

#define SENDERS_MAX 2
#define THREADS_MAX (SENDERS_MAX + 1)
#define STORES_MAX 4

/* Variables of the shared memory: the tail of sender i's lane is variable i. */
#define SLEEPING SENDERS_MAX
#define FRESH (SENDERS_MAX + 1) /* of the last sender, where it registers */
#define VARIABLES_COUNT (SENDERS_MAX + 2)

struct thread {
    uint8_t step;
    uint8_t lane;               /* the sleeper's: which lane DRAIN or LOOK_AGAIN is at */
    uint8_t stores_count;       /* stores in the buffer, oldest first */
    uint8_t stores[STORES_MAX]; /* the values */
    uint8_t stores_variable[STORES_MAX];
};

/* All bytes, no padding: states are hashed and compared as memory. Unused bytes are zero. */
struct state {
    uint8_t memory[VARIABLES_COUNT];
    uint8_t wakes_pending;              /* kept by the kernel until the sleeper blocks */
    uint8_t other_ends_left;            /* sleeps that a timer or a socket may still end */
    uint8_t claims;                     /* of the current announcement */
    uint8_t sent[SENDERS_MAX];          /* mails whose PUBLISH was executed, buffered or not */
    uint8_t read[SENDERS_MAX];          /* mails that DRAIN found */
    struct thread threads[THREADS_MAX]; /* the sleeper is the last */
};
_Static_assert(sizeof(struct state) ==
                   VARIABLES_COUNT + 3 + 2 * SENDERS_MAX + THREADS_MAX * sizeof(struct thread),
               "states are compared as bytes");

/* What the search passed through: a model that never sleeps would prove nothing. */
enum {
    SAW_BLOCKED_IDLE = 1 << 0,      /* asleep with nothing to read and nothing pending */
    SAW_TAKEN_BACK = 1 << 1,        /* LOOK_AGAIN found mail */
    SAW_WAKE_BEFORE_BLOCK = 1 << 2, /* the wake is pending before the sleeper blocks */
    SAW_BOTH = 1 << 3,              /* both sides saw each other: a wake for a sleep taken back */
    SAW_CLAIM_LOST = 1 << 4,        /* between LOOK and CLAIM, another claimed or the sleep ended */
    SAW_OTHER_END = 1 << 5,         /* a sleep that something else ended while announced */
    SAW_ALL = (1 << 6) - 1,
};

enum verdict { HOLDS, LOST_WAKE, DEAF_END, TWO_WAKES };

struct found {
    struct state state;
    uint32_t parent;
};

#define STATES_MAX ((uint32_t)1 << 21)
#define TABLE_SLOTS (STATES_MAX * 2)

struct search {
    enum bug bug;
    bool registers; /* the last sender */
    bool on_word;   /* the sleeper sleeps on the word, and nothing else remembers a wake */
    uint32_t senders_count;
    uint32_t mails_count; /* of each sender */
    uint32_t saw;
    enum verdict verdict;
    uint32_t culprit; /* index of the state that broke a rule */
    uint32_t looked_at;
    uint32_t found_count;
    struct found *found;
    uint32_t *table; /* index + 1 */
};

static struct thread *sleeper_of(struct search *search, struct state *state)
{
    return &state->threads[search->senders_count];
}

/* ---- The machine -------------------------------------------------------------------------- */

static bool can_store(const struct thread *thread)
{
    return thread->stores_count < STORES_MAX;
}

static void store(struct thread *thread, uint8_t variable, uint8_t value)
{
    thread->stores[thread->stores_count] = value;
    thread->stores_variable[thread->stores_count] = variable;
    thread->stores_count++;
}

static uint8_t load(const struct state *state, const struct thread *thread, uint8_t variable)
{
    for (uint32_t i = thread->stores_count; i > 0; i--) {
        if (thread->stores_variable[i - 1] == variable) return thread->stores[i - 1];
    }
    return state->memory[variable];
}

/* The oldest store of a buffer reaches memory. */
static bool flush_one(struct state *state, struct thread *thread)
{
    if (thread->stores_count == 0) return false;
    state->memory[thread->stores_variable[0]] = thread->stores[0];
    thread->stores_count--;
    for (uint32_t i = 0; i < thread->stores_count; i++) {
        thread->stores[i] = thread->stores[i + 1];
        thread->stores_variable[i] = thread->stores_variable[i + 1];
    }
    thread->stores[thread->stores_count] = 0;
    thread->stores_variable[thread->stores_count] = 0;
    return true;
}

/* ---- A sender: mailbox_publish and the wake ------------------------------------------------- */

static bool is_newcomer(const struct search *search, uint32_t sender)
{
    return search->registers && sender == search->senders_count - 1;
}

static enum step after_wake(const struct search *search, const struct state *state, uint32_t sender)
{
    if (search->bug == BUG_REGISTER_LATE && is_newcomer(search, sender) && state->sent[sender] == 1)
        return REGISTER;
    if (search->bug == BUG_PUBLISH_AFTER_LOOK) return PUBLISH;
    return state->sent[sender] == search->mails_count ? DONE : PUBLISH;
}

static enum step after_publish(const struct search *search, const struct state *state,
                               uint32_t sender)
{
    if (search->bug != BUG_PUBLISH_AFTER_LOOK) return FENCE;
    return state->sent[sender] == search->mails_count ? DONE : FENCE;
}

static enum step claim(struct search *search, struct state *state, struct thread *thread,
                       uint32_t sender)
{
    if (search->bug == BUG_CLAIM_NOT_ATOMIC) {
        store(thread, SLEEPING, 0);
        state->claims++;
        return WAKE;
    }
    if (state->memory[SLEEPING] == 0) {
        search->saw |= SAW_CLAIM_LOST;
        return after_wake(search, state, sender);
    }
    state->memory[SLEEPING] = 0;
    state->claims++;
    return WAKE;
}

static void wake(struct search *search, struct state *state)
{
    enum step asleep = sleeper_of(search, state)->step;
    if (search->on_word) {
        if (asleep == BLOCK) sleeper_of(search, state)->step = AWAKE;
        if (asleep == ENTER) search->saw |= SAW_WAKE_BEFORE_BLOCK;
        if (asleep == TAKE_BACK) search->saw |= SAW_BOTH;
        return;
    }
    if (search->bug == BUG_WAKE_NOT_REMEMBERED && asleep != BLOCK) return;
    if (asleep == ENTER) search->saw |= SAW_WAKE_BEFORE_BLOCK;
    if (asleep == TAKE_BACK) search->saw |= SAW_BOTH;
    state->wakes_pending++;
}

/* One step of a sender; false where it cannot move (a locked instruction waits for the buffer). */
static bool sender_moves(struct search *search, struct state *state, uint32_t sender)
{
    struct thread *thread = &state->threads[sender];
    bool drained = thread->stores_count == 0;
    switch (thread->step) {
    case REGISTER:
        if (!can_store(thread)) return false;
        store(thread, FRESH, 1);
        thread->step = state->sent[sender] == search->mails_count ? DONE : PUBLISH;
        return true;
    case PUBLISH:
        if (!can_store(thread)) return false;
        state->sent[sender]++;
        store(thread, (uint8_t)sender, state->sent[sender]);
        thread->step = (uint8_t)after_publish(search, state, sender);
        return true;
    case FENCE:
        if (!drained && search->bug != BUG_NO_FENCE_IN_SENDER) return false;
        thread->step = LOOK;
        return true;
    case LOOK:
        thread->step =
            load(state, thread, SLEEPING) != 0 ? CLAIM : (uint8_t)after_wake(search, state, sender);
        return true;
    case CLAIM:
        if (search->bug == BUG_CLAIM_NOT_ATOMIC ? !can_store(thread) : !drained) return false;
        thread->step = (uint8_t)claim(search, state, thread, sender);
        return true;
    case WAKE:
        wake(search, state);
        thread->step = (uint8_t)after_wake(search, state, sender);
        return true;
    default: return false;
    }
}

/* ---- The sleeper: mailbox_sleep, the block, mailbox_awake ----------------------------------- */

static enum step after_drain(const struct search *search)
{
    return search->bug == BUG_LOOK_BEFORE_ANNOUNCE ? LOOK_AGAIN : ANNOUNCE;
}

static enum step after_mail_found(struct search *search)
{
    search->saw |= SAW_TAKEN_BACK;
    return search->bug == BUG_LOOK_BEFORE_ANNOUNCE ? DRAIN : TAKE_BACK;
}

static bool announce(struct search *search, struct state *state, struct thread *thread)
{
    if (search->bug == BUG_NO_FENCE_IN_SLEEPER) {
        if (!can_store(thread)) return false;
        store(thread, SLEEPING, 1);
    } else {
        if (thread->stores_count > 0) return false;
        state->memory[SLEEPING] = 1;
    }
    state->claims = 0;
    thread->step = search->bug == BUG_LOOK_BEFORE_ANNOUNCE ? ENTER : LOOK_AGAIN;
    return true;
}

/* The load of one lane's tail, in DRAIN or in LOOK_AGAIN. */
static void look_at_lane(struct search *search, struct state *state, struct thread *thread)
{
    bool is_known = !is_newcomer(search, thread->lane) || load(state, thread, FRESH) != 0;
    uint8_t tail = load(state, thread, thread->lane);
    bool has_mail = is_known && tail != state->read[thread->lane];
    bool drains = thread->step == DRAIN;
    if (has_mail && drains) state->read[thread->lane] = tail;
    if (has_mail && !drains) {
        thread->lane = 0;
        thread->step = (uint8_t)after_mail_found(search);
        return;
    }
    thread->lane++;
    if (thread->lane < search->senders_count) return;
    thread->lane = 0;
    enum step after_look = search->bug == BUG_LOOK_BEFORE_ANNOUNCE ? ANNOUNCE : ENTER;
    thread->step = (uint8_t)(drains ? after_drain(search) : after_look);
}

/* One step of the sleeper; false where it cannot move. BLOCK moves only on a pending wake. */
static bool sleeper_moves(struct search *search, struct state *state)
{
    struct thread *thread = sleeper_of(search, state);
    switch (thread->step) {
    case DRAIN:
    case LOOK_AGAIN: look_at_lane(search, state, thread); return true;
    case ANNOUNCE: return announce(search, state, thread);
    case TAKE_BACK:
    case AWAKE:
        if (!can_store(thread)) return false;
        store(thread, SLEEPING, 0);
        thread->step = DRAIN;
        return true;
    case ENTER:
        thread->step = BLOCK;
        if (search->on_word && state->memory[SLEEPING] == 0 && search->bug != BUG_WORD_NOT_COMPARED)
            thread->step = AWAKE;
        return true;
    case BLOCK:
        if (state->wakes_pending == 0) return false;
        state->wakes_pending = 0;
        thread->step = AWAKE;
        return true;
    default: return false;
    }
}

/* A timer or a socket ends the sleep; bounded, so that every run ends. */
static bool other_end(struct search *search, struct state *state)
{
    struct thread *thread = sleeper_of(search, state);
    if (thread->step != BLOCK || state->other_ends_left == 0) return false;
    if (state->memory[SLEEPING] == 1) search->saw |= SAW_OTHER_END;
    state->other_ends_left--;
    thread->step = AWAKE;
    return true;
}

/* ---- The rules ------------------------------------------------------------------------------ */

static bool has_unread_mail(const struct search *search, const struct state *state)
{
    for (uint32_t i = 0; i < search->senders_count; i++) {
        if (state->sent[i] != state->read[i]) return true;
    }
    return false;
}

static bool has_wake_on_its_way(const struct search *search, const struct state *state)
{
    if (state->wakes_pending > 0) return true;
    bool is_entering = state->threads[search->senders_count].step == ENTER;
    if (search->on_word && is_entering && state->memory[SLEEPING] == 0) return true;
    for (uint32_t i = 0; i < search->senders_count; i++) {
        enum step step = state->threads[i].step;
        if (step == FENCE || step == LOOK || step == CLAIM || step == WAKE) return true;
    }
    return false;
}

static enum verdict judge(struct search *search, struct state *state)
{
    if (state->claims > 1) return TWO_WAKES;
    enum step asleep = sleeper_of(search, state)->step;
    if (asleep != ENTER && asleep != BLOCK) return HOLDS;
    bool on_its_way = has_wake_on_its_way(search, state);
    bool unread = has_unread_mail(search, state);
    if (unread && !on_its_way) return LOST_WAKE;
    if (!unread && !on_its_way) search->saw |= SAW_BLOCKED_IDLE;
    return HOLDS;
}

/* ---- The search ----------------------------------------------------------------------------- */

/* Keeps a state that was not met before. */
static void keep(struct search *search, const struct state *state, uint32_t parent)
{
    uint32_t slot = (uint32_t)hash_bytes(state, sizeof(*state)) & (TABLE_SLOTS - 1);
    while (search->table[slot] != 0) {
        const struct state *other = &search->found[search->table[slot] - 1].state;
        if (memcmp(other, state, sizeof(*state)) == 0) return;
        slot = (slot + 1) & (TABLE_SLOTS - 1);
    }
    assert_true(search->found_count < STATES_MAX);
    search->found[search->found_count] = (struct found){*state, parent};
    search->found_count++;
    search->table[slot] = search->found_count;
}

static void condemn(struct search *search, enum verdict verdict, uint32_t culprit)
{
    search->verdict = verdict;
    search->culprit = culprit;
}

/* Follows every move out of one state: each thread's step, each buffer's flush, another end. */
static void expand(struct search *search, uint32_t index)
{
    const struct state from = search->found[index].state;
    uint32_t moves_count = 0;
    for (uint32_t i = 0; i <= search->senders_count; i++) {
        struct state to = from;
        bool moved =
            i < search->senders_count ? sender_moves(search, &to, i) : sleeper_moves(search, &to);
        if (moved) {
            keep(search, &to, index);
            moves_count++;
        }
        to = from;
        if (flush_one(&to, &to.threads[i])) {
            keep(search, &to, index);
            moves_count++;
        }
    }
    struct state end = from;
    if (moves_count == 0 && sleeper_of(search, &end)->step != BLOCK) {
        condemn(search, DEAF_END, index);
    }
    if (moves_count == 0 && has_unread_mail(search, &end)) condemn(search, DEAF_END, index);
    if (other_end(search, &end)) keep(search, &end, index);
}

static void search_all(struct search *search)
{
    struct state start = {.other_ends_left = 2};
    for (uint32_t i = 0; i < search->senders_count; i++) {
        start.threads[i].step = search->bug == BUG_PUBLISH_AFTER_LOOK ? FENCE : PUBLISH;
        if (is_newcomer(search, i) && search->bug != BUG_REGISTER_LATE)
            start.threads[i].step = REGISTER;
    }
    sleeper_of(search, &start)->step = DRAIN;
    keep(search, &start, UINT32_MAX);

    /* Breadth first, so that the path to a broken rule is a shortest one. */
    for (uint32_t i = 0; i < search->found_count && search->verdict == HOLDS; i++) {
        enum verdict verdict = judge(search, &search->found[i].state);
        if (verdict != HOLDS) condemn(search, verdict, i);
        if (verdict == HOLDS) expand(search, i);
        search->looked_at++;
    }
}

static void print_state(const struct search *search, const struct state *state)
{
    print_message("tails");
    for (uint32_t i = 0; i < search->senders_count; i++) print_message(" %d", state->memory[i]);
    print_message("  sleeping %d  pending %d |", state->memory[SLEEPING], state->wakes_pending);
    for (uint32_t i = 0; i <= search->senders_count; i++) {
        const struct thread *thread = &state->threads[i];
        print_message(" %s(%d buffered)", step_names[thread->step], thread->stores_count);
    }
    print_message("\n");
}

/* Last state first: how the rule was broken. */
static void print_path(const struct search *search)
{
    for (uint32_t i = search->culprit; i != UINT32_MAX; i = search->found[i].parent) {
        print_state(search, &search->found[i].state);
    }
}

enum kind {
    PLAIN,
    REGISTERS, /* the last sender is a port that is new */
    ON_WORD    /* the sleeper is a port */
};

struct config {
    enum bug bug;
    uint32_t senders_count;
    uint32_t mails_count;
    enum verdict expected;
    enum kind kind;
};

static void check(const struct config *config)
{
    struct search search = {
        .bug = config->bug,
        .registers = config->kind == REGISTERS,
        .on_word = config->kind == ON_WORD,
        .senders_count = config->senders_count,
        .mails_count = config->mails_count,
    };
    search.found = memory_reserve(STATES_MAX * sizeof(*search.found), 0);
    search.table = memory_reserve(TABLE_SLOTS * sizeof(*search.table), 0);
    assert_non_null(search.found);
    assert_non_null(search.table);

    search_all(&search);
    print_message("%u senders, %u mails each: %u states\n", search.senders_count,
                  search.mails_count, search.looked_at);
    if (search.verdict != config->expected && search.verdict != HOLDS) print_path(&search);
    assert_int_equal(search.verdict, config->expected);
    if (config->bug == BUG_NONE) assert_int_equal(search.saw, SAW_ALL);
    memory_release(search.found, STATES_MAX * sizeof(*search.found));
    memory_release(search.table, TABLE_SLOTS * sizeof(*search.table));
}

static void no_wake_is_lost_and_none_is_doubled(void **unused)
{
    (void)unused;
    static const struct config configs[] = {
        {BUG_NONE, 1, 1, HOLDS, PLAIN}, {BUG_NONE, 1, 2, HOLDS, PLAIN},
        {BUG_NONE, 1, 4, HOLDS, PLAIN}, {BUG_NONE, 2, 1, HOLDS, PLAIN},
        {BUG_NONE, 2, 2, HOLDS, PLAIN}, {BUG_NONE, 2, 3, HOLDS, PLAIN},
    };
    for (size_t i = 0; i < ARRAY_COUNT(configs); i++) check(&configs[i]);
}

static void threads_of_the_program_lose_none_either(void **unused)
{
    (void)unused;
    for (uint32_t senders = 1; senders <= SENDERS_MAX; senders++) {
        for (uint32_t mails = 1; mails <= 3; mails++) {
            check(&(struct config){BUG_NONE, senders, mails, HOLDS, REGISTERS});
            check(&(struct config){BUG_NONE, senders, mails, HOLDS, ON_WORD});
        }
    }
}

static void a_port_that_is_shown_late_is_found(void **unused)
{
    (void)unused;
    for (uint32_t senders = 1; senders <= SENDERS_MAX; senders++)
        check(&(struct config){BUG_REGISTER_LATE, senders, 2, LOST_WAKE, REGISTERS});
}

static void a_word_that_is_not_compared_is_found(void **unused)
{
    (void)unused;
    for (uint32_t senders = 1; senders <= SENDERS_MAX; senders++)
        check(&(struct config){BUG_WORD_NOT_COMPARED, senders, 1, LOST_WAKE, ON_WORD});
}

static void check_bug(enum bug bug, enum verdict expected)
{
    for (uint32_t senders = 1; senders <= SENDERS_MAX; senders++) {
        for (uint32_t mails = 1; mails <= 2; mails++) {
            check(&(struct config){bug, senders, mails, expected, PLAIN});
        }
    }
}

static void a_sender_without_fence_is_found(void **unused)
{
    (void)unused;
    check_bug(BUG_NO_FENCE_IN_SENDER, LOST_WAKE);
}

static void a_sleeper_without_fence_is_found(void **unused)
{
    (void)unused;
    check_bug(BUG_NO_FENCE_IN_SLEEPER, LOST_WAKE);
}

static void a_look_before_the_announcement_is_found(void **unused)
{
    (void)unused;
    check_bug(BUG_LOOK_BEFORE_ANNOUNCE, LOST_WAKE);
}

static void publishing_after_the_look_is_found(void **unused)
{
    (void)unused;
    check_bug(BUG_PUBLISH_AFTER_LOOK, LOST_WAKE);
}

static void a_wake_that_is_not_remembered_is_found(void **unused)
{
    (void)unused;
    check_bug(BUG_WAKE_NOT_REMEMBERED, LOST_WAKE);
}

static void a_claim_that_is_not_atomic_is_found(void **unused)
{
    (void)unused;
    check(&(struct config){BUG_CLAIM_NOT_ATOMIC, 2, 1, TWO_WAKES, PLAIN});
    check(&(struct config){BUG_CLAIM_NOT_ATOMIC, 2, 2, TWO_WAKES, PLAIN});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_wake_is_lost_and_none_is_doubled),
        cmocka_unit_test(threads_of_the_program_lose_none_either),
        cmocka_unit_test(a_port_that_is_shown_late_is_found),
        cmocka_unit_test(a_word_that_is_not_compared_is_found),
        cmocka_unit_test(a_sender_without_fence_is_found),
        cmocka_unit_test(a_sleeper_without_fence_is_found),
        cmocka_unit_test(a_look_before_the_announcement_is_found),
        cmocka_unit_test(publishing_after_the_look_is_found),
        cmocka_unit_test(a_wake_that_is_not_remembered_is_found),
        cmocka_unit_test(a_claim_that_is_not_atomic_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
