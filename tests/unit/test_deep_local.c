/*
 * What is inside of partitions, as handlers and threads of the program read and write it in their own
 * process: on the shard, asked of another shard, and without asking.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "fero.h"
#include "tests/support/runtime.h"

#define PATIENCE_MS 60000

static fero_val json(const char *text)
{
    return (fero_val){.type = FERO_T_JSON, .s = fero_str(text)};
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) return -__LINE__;                                                        \
    } while (0)

static int is_value(fero_shard *shard, const char *key, int32_t type, const char *text)
{
    fero_val value;
    int err = fero_shard_get(shard, fero_str(key), &value, NULL);
    if (err < 0) return err;
    if (value.type != type) return 1000 + value.type;
    return value.s.len == strlen(text) && memcmp(value.s.ptr, text, value.s.len) == 0 ? 0 : 2000;
}

/* Asserts must not run on a shard's thread: the number of the line that fails is the reply. */
static int use_deep_keys(fero_shard *shard)
{
    fero_val value = json("{\"name\":\"david\",\"tags\":[\"a\"]}");
    fero_val ann = runtime_string("ann");
    fero_val found;
    uint64_t offset = 0;
    int64_t number = -1;
    CHECK(fero_shard_get(shard, fero_str("28.email"), &found, NULL) == FERO_E_NOTFOUND);
    CHECK(fero_shard_update(shard, fero_str("28"), &value, &offset) == 0 && offset == 1);
    /* Flat text, looked into. */
    CHECK(is_value(shard, "28.name", FERO_T_STRING, "david") == 0);
    CHECK(is_value(shard, "28.tags", FERO_T_JSON, "[\"a\"]") == 0);
    CHECK(fero_shard_get(shard, fero_str("28.email"), NULL, NULL) == FERO_E_NOTFOUND);
    /* A tree. */
    CHECK(fero_shard_update(shard, fero_str("28.email"), &ann, &offset) == 0 && offset == 2);
    CHECK(is_value(shard, "28.email", FERO_T_STRING, "ann") == 0);
    CHECK(is_value(shard, "28.name", FERO_T_STRING, "david") == 0);
    CHECK(is_value(shard, "28", FERO_T_JSON,
                   "{\"name\":\"david\",\"tags\":[\"a\"],\"email\":\"ann\"}") == 0);
    CHECK(fero_shard_get(shard, fero_str("28"), NULL, &offset) == 0 && offset == 2);
    CHECK(fero_shard_push(shard, fero_str("28.tags"), &ann, &number, &offset) == 0);
    CHECK(number == 1 && offset == 3);
    CHECK(is_value(shard, "28.tags.1", FERO_T_STRING, "ann") == 0);
    CHECK(fero_shard_add(shard, fero_str("28.mails"), &ann, &number, &offset) == 0);
    CHECK(number == 1 && offset == 4);
    CHECK(fero_shard_add(shard, fero_str("28.mails"), &ann, &number, NULL) == 0 && number == 2);
    CHECK(fero_shard_patch(shard, fero_str("28.where"), fero_str("{\"town\":\"Rome\",\"zip\":1}"),
                           &offset) == 0);
    CHECK(is_value(shard, "28.where", FERO_T_JSON, "{\"town\":\"Rome\",\"zip\":1}") == 0);
    CHECK(fero_shard_get(shard, fero_str("28.where.zip"), &found, NULL) == 0);
    CHECK(found.type == FERO_T_INT64 ? found.i64 == 1 : found.num == 1);
    CHECK(fero_shard_remove(shard, fero_str("28.mails"), NULL) == 0);
    CHECK(fero_shard_get(shard, fero_str("28.mails"), NULL, NULL) == FERO_E_NOTFOUND);
    CHECK(fero_shard_get(shard, fero_str("28.mails.1"), NULL, NULL) == FERO_E_NOTFOUND);
    /* What cannot be: nothing is changed. */
    CHECK(fero_shard_update(shard, fero_str("28.email.x"), &ann, NULL) == FERO_E_TYPE);
    CHECK(strstr(fero_errmsg(), "28.email") != NULL);
    CHECK(fero_shard_push(shard, fero_str("28.email"), &ann, NULL, NULL) == FERO_E_TYPE);
    CHECK(fero_shard_add(shard, fero_str("28.tags"), &ann, NULL, NULL) == FERO_E_TYPE);
    CHECK(fero_shard_patch(shard, fero_str("28.where"), fero_str("7"), NULL) == FERO_E_TYPE);
    CHECK(fero_shard_get(shard, fero_str("28..x"), NULL, NULL) == FERO_E_INVAL);
    CHECK(fero_shard_add(shard, (fero_slice){0}, &ann, NULL, NULL) == FERO_E_INVAL);
    CHECK(fero_shard_remove(shard, fero_str("28"), NULL) == 0);
    CHECK(fero_shard_get(shard, fero_str("28.email"), NULL, NULL) == FERO_E_NOTFOUND);
    return 0;
}

static int32_t use(fero_req *req, void *ud)
{
    (void)ud;
    fero_val line = {.type = FERO_T_INT64, .i64 = use_deep_keys(req->shard)};
    fero_reply(req, 0, &line);
    return FERO_H_REPLIED;
}

/* Asks for `value` under "28.email", of whatever shard; the key is that of this request. */
struct step {
    int32_t what;
    const char *key;
};
static const struct step steps[] = {{FERO_ASK_UPDATE, "28.email"}, {FERO_ASK_GET, "28.email"},
                                    {FERO_ASK_PUSH, "28.tags"},    {FERO_ASK_ADD, "28.mails"},
                                    {FERO_ASK_PATCH, "28.where"},  {FERO_ASK_GET, "28.where.town"},
                                    {FERO_ASK_REMOVE, "28.mails"}, {FERO_ASK_GET, "28.mails"}};

static void on_answer(fero_shard *shard, const fero_result *result, void *ud)
{
    (void)shard;
    fero_reply(ud, result->error, &result->value);
    fero_req_release(ud);
}

static int32_t ask(fero_req *req, void *ud)
{
    (void)ud;
    const struct step *step = &steps[req->value.i64];
    fero_val value =
        step->what == FERO_ASK_PATCH ? json("{\"town\":\"Rome\"}") : runtime_string("ann");
    fero_req *own = fero_req_retain(req);
    if (own == NULL) return FERO_E_NOMEM;
    int err = fero_shard_ask(own->shard, step->what, fero_str(step->key), &value, on_answer, own);
    if (err == 0) return FERO_H_DEFER;
    fero_reply(own, err, NULL);
    fero_req_release(own);
    return FERO_H_DEFER;
}

static const fero_verb verbs[] = {{"use", use, NULL}, {"ask", ask, NULL}};

static fero_result send_verb(fero_cache *cache, const char *verb, const char *key, int64_t number,
                             fero_op **op)
{
    fero_val value = {.type = FERO_T_INT64, .i64 = number};
    fero_result result;
    assert_int_equal(fero_send(cache, fero_str(verb), fero_str(key), &value, NULL, op), 0);
    assert_int_equal(fero_wait(*op, PATIENCE_MS, &result), 0);
    return result;
}

static fero_cache *open_demo(fero **rt, int shards)
{
    fero_runtime_opts opts = runtime_options(shards);
    const fero_opts about = {
        .size = sizeof about, .verbs = verbs, .verbs_count = ARRAY_COUNT(verbs)};
    *rt = runtime_start(&opts);
    return runtime_open(*rt, "demo", &about);
}

static void handlers_use_deep_keys_of_their_shard(void **unused)
{
    (void)unused;
    static const int kinds[] = {1, 2, FERO_INLINE};
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        fero *rt;
        fero_op *op;
        fero_cache *cache = open_demo(&rt, kinds[i]);
        fero_result result = send_verb(cache, "use", "28", 0, &op);
        assert_int_equal(result.outcome, FERO_OUTCOME_OK);
        assert_int_equal(result.value.i64, 0); /* else the line */
        fero_op_free(op);
        assert_int_equal(fero_stop(rt, 0), 0);
    }
}

static void handlers_ask_for_deep_keys_of_any_shard(void **unused)
{
    (void)unused;
    static const char *const texts[] = {NULL, "ann", NULL, NULL, NULL, "Rome", NULL, NULL};
    static const char *const askers[] = {"a", "b", "c", "d"};
    for (size_t from = 0; from < ARRAY_COUNT(askers); from++) {
        fero *rt;
        fero_cache *cache = open_demo(&rt, 3);
        for (size_t i = 0; i < ARRAY_COUNT(steps); i++) {
            fero_op *op;
            fero_result result = send_verb(cache, "ask", askers[from], (int64_t)i, &op);
            bool is_gone = i == ARRAY_COUNT(steps) - 1;
            assert_int_equal(result.error, is_gone ? FERO_E_NOTFOUND : 0);
            if (texts[i] != NULL) assert_memory_equal(result.value.s.ptr, texts[i], 3);
            if (steps[i].what == FERO_ASK_PUSH) assert_int_equal(result.value.i64, 0);
            if (steps[i].what == FERO_ASK_ADD) assert_int_equal(result.value.i64, 1);
            fero_op_free(op);
        }
        assert_int_equal(fero_stop(rt, 0), 0);
    }
}

static void set(fero_cache *cache, const char *key, const fero_val *value)
{
    fero_op *op;
    fero_result result;
    assert_int_equal(fero_update(cache, fero_str(key), value, NULL, &op), 0);
    assert_int_equal(fero_wait(op, PATIENCE_MS, &result), 0);
    assert_int_equal(result.outcome, FERO_OUTCOME_OK);
    fero_op_free(op);
}

static void check_read(fero_cache *cache, const char *key, int32_t type, const char *text)
{
    char buffer[100];
    fero_val value;
    assert_int_equal(fero_read(cache, fero_str(key), buffer, sizeof buffer, &value, NULL), 0);
    assert_int_equal(value.type, type);
    assert_int_equal(value.s.len, strlen(text));
    assert_memory_equal(buffer, text, strlen(text));
}

struct reading {
    fero_cache *cache;
    int err;
    char message[200];
};

static void read_in_callback(const fero_result *result, void *ud)
{
    struct reading *reading = ud;
    char buffer[10];
    fero_val value;
    (void)result;
    reading->err =
        fero_read(reading->cache, fero_str("28.email"), buffer, sizeof buffer, &value, NULL);
    snprintf(reading->message, sizeof reading->message, "%s", fero_errmsg());
}

static void threads_read_deep_keys(void **unused)
{
    (void)unused;
    static const int kinds[] = {1, 3, FERO_INLINE};
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        fero *rt;
        fero_cache *cache = open_demo(&rt, kinds[i]);
        fero_val flat = json("{\"name\":\"david\"}");
        fero_val ann = runtime_string("ann");
        fero_val value;
        char small[2];
        set(cache, "28", &flat);
        check_read(cache, "28.name", FERO_T_STRING, "david");
        set(cache, "28.email", &ann);
        check_read(cache, "28.email", FERO_T_STRING, "ann");
        check_read(cache, "28.name", FERO_T_STRING, "david");
        check_read(cache, "28", FERO_T_JSON, "{\"name\":\"david\",\"email\":\"ann\"}");
        assert_int_equal(fero_read(cache, fero_str("28.no"), small, 2, &value, NULL),
                         FERO_E_NOTFOUND);
        assert_int_equal(fero_read(cache, fero_str("28.email"), small, 2, &value, NULL),
                         FERO_E_TOOBIG);
        assert_int_equal(value.s.len, 3);
        /* A callback cannot wait: it is told what to call. */
        struct reading reading = {.cache = cache};
        const fero_wopts opts = {
            .size = sizeof opts, .want = FERO_REPLY, .done = read_in_callback, .ud = &reading};
        assert_int_equal(fero_get(cache, fero_str("28"), &opts, NULL), 0);
        while (reading.err == 0) fero_run(rt, 1000);
        assert_int_equal(reading.err, FERO_E_AGAIN);
        assert_non_null(strstr(reading.message, "fero_get"));
        assert_int_equal(fero_stop(rt, 0), 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(handlers_use_deep_keys_of_their_shard),
        cmocka_unit_test(handlers_ask_for_deep_keys_of_any_shard),
        cmocka_unit_test(threads_read_deep_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
