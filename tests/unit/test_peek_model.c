/*
 * The steps of src/shard/peek.c against those of a shard, in every interleaving.
 *
 * The shard is a list of stores, each whole and seen in order, as release stores and x86 make them.
 * The thread that looks only loads, so a run is told by how many of the stores were made before each
 * of its loads: a sequence that never falls. All such sequences are tried, for each list below.
 *
 *   load          peek.c                      store           the shard
 *   HEAD          the bucket's tags           key, low, high  a record, in three words
 *   ENTRY         the entry                   entry           POINT, AWAY
 *   BEFORE        the unit's generation       tag             TAG, or its clearing
 *   AGAIN         tag, then entry             generation      PUT
 *   READ          key, low, high
 *   AFTER         the generation
 *
 * What must hold: whatever it takes for the value of key K is one that K had at some time between its
 * first load and its last one, whole. The model is checked itself: each bug that the order of steps
 * is meant to exclude is planted, and must be found. If you change the steps there, change them here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"

/* Two units with one record each. */
enum { A, B, UNITS_COUNT };
enum { NOBODY, K, OTHER };

enum field { KEY_A, LOW_A, HIGH_A, KEY_B, LOW_B, HIGH_B, GEN_A, GEN_B, ENTRY, TAG, FIELDS_COUNT };

struct store {
    uint8_t field;
    uint8_t value;
};

#define STORES_MAX 16
struct scenario {
    const char *name;
    uint8_t start[FIELDS_COUNT];
    struct store stores[STORES_MAX];
    unsigned count;
    bool is_bug; /* in the order of stores */
};

#define AT_A                                                                                       \
    {                                                                                              \
        K, 1, 1, NOBODY, 0, 0, 0, 0, A, 1                                                          \
    }
#define RECORD_B(key, value)                                                                       \
    {KEY_B, key}, {LOW_B, value},                                                                  \
    {                                                                                              \
        HIGH_B, value                                                                              \
    }
#define RECORD_A(key, value)                                                                       \
    {KEY_A, key}, {LOW_A, value},                                                                  \
    {                                                                                              \
        HIGH_A, value                                                                              \
    }

static const struct scenario scenarios[] = {
    {"an update, and the old unit used for another key",
     AT_A,
     {RECORD_B(K, 2), {ENTRY, B}, {GEN_A, 1}, RECORD_A(OTHER, 9)},
     8,
     false},
    {"two updates, the second in the unit of the first",
     AT_A,
     {RECORD_B(K, 2), {ENTRY, B}, {GEN_A, 1}, RECORD_A(K, 3), {ENTRY, A}},
     9,
     false},
    {"a removal, and another key in the entry and in the unit",
     AT_A,
     {{TAG, 0}, {GEN_A, 1}, RECORD_A(OTHER, 9), {ENTRY, A}, {TAG, 1}},
     7,
     false},
    {"a removal, the unit used while the entry is stale, the key again",
     AT_A,
     {{TAG, 0}, {GEN_A, 1}, RECORD_A(OTHER, 9), RECORD_B(K, 4), {ENTRY, B}, {TAG, 1}},
     10,
     false},
    {"a removal, the unit used for the key while the entry is stale",
     AT_A,
     {{TAG, 0}, {GEN_A, 1}, RECORD_A(K, 5), {ENTRY, A}, {TAG, 1}},
     7,
     false},
    {"bug: the generation grows behind the first store",
     AT_A,
     {RECORD_B(K, 2), {ENTRY, B}, {KEY_A, K}, {LOW_A, 9}, {GEN_A, 1}, {HIGH_A, 9}},
     8,
     true},
    {"bug: the entry points to a record that is not written",
     AT_A,
     {{KEY_B, K}, {LOW_B, 2}, {ENTRY, B}, {HIGH_B, 2}},
     4,
     true},
    {"bug: the tag stands before the entry is pointed",
     AT_A,
     {{TAG, 0}, {GEN_A, 1}, {TAG, 1}, {KEY_A, K}, {LOW_A, 9}, RECORD_B(K, 4), {ENTRY, B}},
     9,
     true},
};

/* Steps that the one who looks may leave out. */
enum lapse { NO_LAPSE, NO_AGAIN, NO_AGAIN_TAG, NO_AFTER };

#define LOADS_COUNT 9
enum load {
    HEAD,
    LOAD_ENTRY,
    BEFORE,
    AGAIN_TAG,
    AGAIN_ENTRY,
    READ_KEY,
    READ_LOW,
    READ_HIGH,
    AFTER
};

/* The memory after so many stores. */
static uint8_t states[STORES_MAX + 1][FIELDS_COUNT];

static void make_states(const struct scenario *scenario)
{
    for (unsigned field = 0; field < FIELDS_COUNT; field++)
        states[0][field] = scenario->start[field];
    for (unsigned i = 0; i < scenario->count; i++) {
        for (unsigned field = 0; field < FIELDS_COUNT; field++)
            states[i + 1][field] = states[i][field];
        states[i + 1][scenario->stores[i].field] = scenario->stores[i].value;
    }
}

static uint8_t record_field(uint8_t unit, enum field field_of_a)
{
    return (uint8_t)(unit == A ? field_of_a : field_of_a + KEY_B);
}

/* The value that K has in a state, 0: none. */
static uint8_t value_of_k(const uint8_t *state)
{
    if (state[TAG] == 0) return 0;
    uint8_t unit = state[ENTRY];
    return state[record_field(unit, KEY_A)] == K ? state[record_field(unit, HIGH_A)] : 0;
}

/* One run; `at` says how many stores were made before each load. False: it took what K never had. */
static bool is_right(const uint8_t *at, enum lapse lapse)
{
    if (states[at[HEAD]][TAG] == 0) return true; /* not found: another matter */
    uint8_t unit = states[at[LOAD_ENTRY]][ENTRY];
    uint8_t generation = unit == A ? GEN_A : GEN_B;
    uint8_t before = states[at[BEFORE]][generation];
    bool skips_tag = lapse == NO_AGAIN || lapse == NO_AGAIN_TAG;
    if (!skips_tag && states[at[AGAIN_TAG]][TAG] == 0) return true;
    if (lapse != NO_AGAIN && states[at[AGAIN_ENTRY]][ENTRY] != unit) return true;
    uint8_t key = states[at[READ_KEY]][record_field(unit, KEY_A)];
    uint8_t low = states[at[READ_LOW]][record_field(unit, LOW_A)];
    uint8_t high = states[at[READ_HIGH]][record_field(unit, HIGH_A)];
    if (lapse != NO_AFTER && states[at[AFTER]][generation] != before) return true;
    if (key != K) return true;
    if (low != high) return false;
    for (unsigned i = at[HEAD]; i <= at[AFTER]; i++)
        if (value_of_k(states[i]) == low) return true;
    return false;
}

/* The next sequence that never falls, of numbers up to `most`. False: that was the last one. */
static bool next_sequence(uint8_t *at, uint8_t most)
{
    int i = LOADS_COUNT - 1;
    while (i >= 0 && at[i] == most) i--;
    if (i < 0) return false;
    uint8_t value = (uint8_t)(at[i] + 1);
    for (; i < LOADS_COUNT; i++) at[i] = value;
    return true;
}

/* Tries all interleavings; returns how many were wrong. */
static unsigned count_wrong(const struct scenario *scenario, enum lapse lapse)
{
    uint8_t at[LOADS_COUNT] = {0};
    unsigned wrong = 0;
    make_states(scenario);
    do wrong += !is_right(at, lapse);
    while (next_sequence(at, (uint8_t)scenario->count));
    return wrong;
}

static void what_is_found_is_whole_and_was_there(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < ARRAY_COUNT(scenarios); i++) {
        unsigned wrong = count_wrong(&scenarios[i], NO_LAPSE);
        if ((wrong > 0) != scenarios[i].is_bug) fail_msg("%s: %u wrong", scenarios[i].name, wrong);
    }
}

static unsigned wrong_in_all(enum lapse lapse)
{
    unsigned wrong = 0;
    for (size_t i = 0; i < ARRAY_COUNT(scenarios); i++)
        if (!scenarios[i].is_bug) wrong += count_wrong(&scenarios[i], lapse);
    return wrong;
}

static void each_step_is_needed(void **unused)
{
    (void)unused;
    assert_true(wrong_in_all(NO_AGAIN) > 0);
    assert_true(wrong_in_all(NO_AGAIN_TAG) > 0);
    assert_true(wrong_in_all(NO_AFTER) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_found_is_whole_and_was_there),
        cmocka_unit_test(each_step_is_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
