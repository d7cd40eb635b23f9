/*
 * Handlers of the public API: what they see of a request, and what becomes of their replies.
 */
#include "engine/handler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "tests/support/node.h"

static struct node node;
static struct peer peer;
static struct cache_definition definition;

/* What the last call saw, copied. */
static struct {
    char verb[32];
    char key[128];
    fero_val value;
    uint8_t bytes[64];
    size_t bytes_count;
    uint64_t session;
    uint64_t seq;
    fero_cache *cache;
    int calls;
} seen;

static void see(const fero_req *req)
{
    assert_int_equal(req->size, sizeof *req);
    snprintf(seen.verb, sizeof seen.verb, "%.*s", (int)req->verb.len, (const char *)req->verb.ptr);
    snprintf(seen.key, sizeof seen.key, "%.*s", (int)req->key.len, (const char *)req->key.ptr);
    seen.value = req->value;
    seen.bytes_count = min_u64(req->value.s.len, sizeof seen.bytes);
    memcpy(seen.bytes, req->value.s.ptr, seen.bytes_count);
    seen.session = req->session;
    seen.seq = req->seq;
    seen.cache = req->cache;
    seen.calls++;
}

static int32_t echo(fero_req *req, void *ud)
{
    see(req);
    assert_ptr_equal(ud, &seen);
    return fero_reply(req, 0, &req->value) == 0 ? FERO_H_REPLIED : FERO_E_INVAL;
}

/* Replies with what `ud`, a fero_val, says. */
static int32_t reply_with(fero_req *req, void *ud)
{
    see(req);
    assert_int_equal(fero_reply(req, 0, ud), 0);
    assert_int_equal(fero_reply(req, 0, ud), FERO_E_INVAL); /* once */
    return FERO_H_REPLIED;
}

static int32_t fail_with_text(fero_req *req, void *ud)
{
    fero_val why = {.type = FERO_T_STRING, .s = fero_str("because")};
    (void)ud;
    assert_int_equal(fero_reply(req, FERO_E_CONFLICT, &why), 0);
    return FERO_H_REPLIED;
}

/* Whatever the text of another failure is, here or in an earlier request. */
static int32_t fail_with_nothing(fero_req *req, void *ud)
{
    (void)ud;
    assert_int_equal(fero_shard_get(req->shard, fero_str("nobody"), NULL, NULL), FERO_E_NOTFOUND);
    return FERO_E_CONFLICT;
}

static int32_t store_wrongly(fero_req *req, void *ud)
{
    fero_val json = {.type = FERO_T_JSON, .s = fero_str("{\"a\":")};
    (void)ud;
    return fero_shard_update(req->shard, fero_str("28"), &json, NULL);
}

static int32_t fail_without_a_code(fero_req *req, void *ud)
{
    (void)req;
    (void)ud;
    return -4711;
}

static int32_t reply_wrongly(fero_req *req, void *ud)
{
    static const uint8_t large[20001];
    fero_val value = {.type = 8};
    (void)ud;
    assert_int_equal(fero_reply(req, 1, NULL), FERO_E_INVAL);
    assert_int_equal(fero_reply(req, 0, &value), FERO_E_TYPE);
    value.type = -1;
    assert_int_equal(fero_reply(req, 0, &value), FERO_E_TYPE);
    value = (fero_val){.type = FERO_T_BYTES, .s = {large, sizeof large}};
    assert_int_equal(fero_reply(req, 0, &value), FERO_E_TOOBIG);
    assert_int_equal(fero_reply(req, 0, NULL), 0);
    return FERO_H_REPLIED;
}

static int32_t see_and_pass(fero_req *req, void *ud)
{
    (void)ud;
    see(req);
    return FERO_H_NEXT;
}

static fero_val with;

static const fero_verb verbs[] = {{"echo", echo, &seen},
                                  {"with", reply_with, &with},
                                  {"fails", fail_with_text, NULL},
                                  {"fails_bare", fail_with_nothing, NULL},
                                  {"fails_inside", store_wrongly, NULL},
                                  {"fails_oddly", fail_without_a_code, NULL},
                                  {"wrongly", reply_wrongly, NULL}};

/* Puts the engine's definition in the place of the test node's own. */
static void open_cache(const char *name, const fero_opts *opts)
{
    assert_int_equal(definition_make(&definition, name, 0, opts, (void *)(uintptr_t)0xcac4e), 0);
    node.shards[0]->command_argument = &definition;
    node.shards[0]->command = COMMAND_OPEN_CACHE;
    node_turn_one(&node, 0);
    assert_int_equal(node.shards[0]->command_result, 0);
}

static int setup(void **unused)
{
    (void)unused;
    struct shard_options options = node_options(1);
    node_open(&node, &options);
    open_cache("demo", &(fero_opts){.size = sizeof(fero_opts),
                                    .verbs = verbs,
                                    .verbs_count = ARRAY_COUNT(verbs),
                                    .handler = see_and_pass});
    peer = peer_greeted(&node, 0, 77, 1);
    memset(&seen, 0, sizeof seen);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    peer_free(&peer);
    node_close(&node);
    definition_free(&definition);
    return 0;
}

static void a_handler_sees_the_whole_request(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_verb(5, "echo", "28.email", "hello"));
    node_settle(&node);
    peer_expect_string(&peer, 5, "hello");
    assert_string_equal(seen.verb, "echo");
    assert_string_equal(seen.key, "28.email");
    assert_int_equal(seen.value.type, FERO_T_STRING);
    assert_memory_equal(seen.bytes, "hello", 5);
    assert_int_equal(seen.session, 77);
    assert_int_equal(seen.seq, 5);
    assert_ptr_equal(seen.cache, (void *)(uintptr_t)0xcac4e);
}

static void the_handler_of_everything_sees_names(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_update(1, "k", "v"));
    node_settle(&node);
    peer_expect_offset(&peer, 1, 1); /* by the default handler */
    assert_string_equal(seen.verb, "UPDATE");
    peer_ask(&peer, ask_remove(2, "k"));
    node_settle(&node);
    peer_expect_offset(&peer, 2, 2);
    assert_string_equal(seen.verb, "REMOVE");
    peer_ask(&peer, ask_verb(3, "other", "k", ""));
    node_settle(&node);
    peer_expect_failure(&peer, 3, ERROR_UNSUPPORTED, "");
    assert_string_equal(seen.verb, "other");
    peer_ask(&peer, ask_get(4, "k"));
    node_settle(&node);
    peer_expect_failure(&peer, 4, ERROR_NOT_FOUND, "");
    assert_int_equal(seen.calls, 3); /* GET is nobody's */
}

static void values_have_their_types_both_ways(void **unused)
{
    (void)unused;
    const double number = 1.5;
    const int64_t integer = -7;
    const struct {
        fero_val value;
        const void *bytes;
        size_t count;
    } cases[] = {
        {{.type = FERO_T_DOUBLE, .num = 1.5}, &number, 8},
        {{.type = FERO_T_INT64, .i64 = -7}, &integer, 8},
        {{.type = FERO_T_BOOL, .i64 = 1}, "\1", 1},
        {{.type = FERO_T_BOOL, .i64 = 0}, "\0", 1},
        {{.type = FERO_T_NULL}, "", 0},
        {{.type = FERO_T_UNDEFINED}, "", 0},
        {{.type = FERO_T_STRING, .s = {"text", 4}}, "text", 4},
        {{.type = FERO_T_JSON, .s = {"[1]", 3}}, "[1]", 3},
        {{.type = FERO_T_BYTES, .s = {"\0\1", 2}}, "\0\1", 2},
    };
    for (uint32_t i = 0; i < ARRAY_COUNT(cases); i++) {
        with = cases[i].value;
        struct ask ask = ask_verb(i + 1, "with", "k", "");
        ask.value_type = (uint8_t)with.type;
        ask.value = (struct bytes){cases[i].bytes, cases[i].count};
        peer_ask(&peer, ask);
        node_settle(&node);
        assert_int_equal(seen.value.type, with.type);
        assert_int_equal(seen.value.i64, with.i64);
        assert_true(seen.value.num == with.num);
        assert_int_equal(seen.bytes_count, cases[i].count);
        struct frame_reply reply = peer_expect(&peer, i + 1, OUTCOME_OK, ERROR_NONE);
        assert_int_equal(reply.flags, with.type);
        assert_true(bytes_equal(peer_tail(&peer, sizeof reply), ask.value));
    }
}

static void a_failure_carries_its_value(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_verb(1, "fails", "k", ""));
    node_settle(&node);
    peer_expect_failure(&peer, 1, ERROR_CONFLICT, "because");
}

static void a_wrong_reply_is_refused_and_leaves_the_request_open(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_verb(1, "wrongly", "k", ""));
    node_settle(&node);
    struct frame_reply reply = peer_expect(&peer, 1, OUTCOME_OK, ERROR_NONE);
    assert_int_equal(reply.length, sizeof reply);
}

static void opened_lists_the_verbs(void **unused)
{
    (void)unused;
    struct stream stream = {0};
    stream_open(&stream, 9, "demo");
    peer_send_stream(&peer, &stream);
    node_settle(&node);
    const struct frame_prefix *prefix = peer_next(&peer);
    assert_non_null(prefix);
    struct frame_opened opened;
    struct bytes list;
    struct refusal refusal;
    assert_int_equal(opened_decode(&opened, &list, prefix, prefix->length, &refusal), 0);
    assert_int_equal(opened.verbs_count, ARRAY_COUNT(verbs));
    for (unsigned i = 0; i < ARRAY_COUNT(verbs); i++) {
        uint8_t type;
        struct bytes name;
        assert_true(opened_verb_next(&list, &type, &name));
        assert_int_equal(type, FRAME_VERB_FIRST + i);
        assert_true(bytes_equal(name, bytes_of(verbs[i].name)));
    }
}

/* ------------------------------------------------------------------------------ definitions */

static int make(const char *name, const fero_verb *list, size_t count)
{
    struct cache_definition made;
    fero_opts opts = {.size = sizeof opts, .verbs = list, .verbs_count = count};
    int err = definition_make(&made, name, 0, &opts, NULL);
    if (err == 0) definition_free(&made);
    return err;
}

static void wrong_definitions_are_refused(void **unused)
{
    (void)unused;
    static char longest[257];
    static fero_verb many[193];
    static char names[193][8];
    memset(longest, 'n', 256);
    for (size_t i = 0; i < ARRAY_COUNT(many); i++) {
        snprintf(names[i], sizeof names[i], "verb%zu", i);
        many[i] = (fero_verb){names[i], echo, NULL};
    }
    const fero_verb twice[] = {{"a", echo, NULL}, {"b", echo, NULL}, {"a", echo, NULL}};
    const fero_verb nameless = {"", echo, NULL};
    const fero_verb null_name = {NULL, echo, NULL};
    const fero_verb null_function = {"verb", NULL, NULL};
    const fero_verb too_long = {longest, echo, NULL};
    assert_int_equal(make("", NULL, 0), FERO_E_INVAL);
    assert_int_equal(make(longest, NULL, 0), FERO_E_INVAL);
    assert_int_equal(make(longest + 1, NULL, 0), 0);
    assert_int_equal(make("a\nb", NULL, 0), FERO_E_INVAL);
    assert_int_equal(make("a\x7f", NULL, 0), FERO_E_INVAL);
    assert_int_equal(make("demo", &nameless, 1), FERO_E_INVAL);
    assert_int_equal(make("demo", &null_name, 1), FERO_E_INVAL);
    assert_int_equal(make("demo", &null_function, 1), FERO_E_INVAL);
    assert_int_equal(make("demo", &too_long, 1), FERO_E_INVAL);
    assert_int_equal(make("demo", twice, 3), FERO_E_INVAL);
    assert_non_null(strstr(fero_errmsg(), "\"a\""));
    assert_int_equal(make("demo", twice + 1, 2), 0);
    assert_int_equal(make("demo", many, 193), FERO_E_INVAL);
    assert_int_equal(make("demo", many, 192), 0);
}

/* OPEN takes UTF-8 without control characters only, so nobody could open any other. */
static void a_name_that_cannot_be_opened_is_refused(void **unused)
{
    (void)unused;
    assert_int_equal(make("\xff", NULL, 0), FERO_E_INVAL);
    assert_int_equal(make("a\xc2\x85z", NULL, 0), FERO_E_INVAL);
    assert_int_equal(make("gr\xc3\xb6\xc3\x9f"
                          "e",
                          NULL, 0),
                     0);
    const fero_verb control = {"a\tb", echo, NULL};
    const fero_verb broken = {"\xc3", echo, NULL};
    assert_int_equal(make("demo", &control, 1), FERO_E_INVAL);
    assert_int_equal(make("demo", &broken, 1), FERO_E_INVAL);
}

static void a_failure_that_is_returned_says_why(void **unused)
{
    (void)unused;
    peer_ask(&peer, ask_verb(1, "fails_inside", "k", ""));
    peer_ask(&peer, ask_verb(2, "fails_bare", "k", ""));
    peer_ask(&peer, ask_verb(3, "fails_oddly", "k", ""));
    peer_ask(&peer, ask_get(4, "28"));
    node_settle(&node);
    peer_expect_failure(&peer, 1, ERROR_TYPE, "\"28\" is not JSON");
    peer_expect_failure(&peer, 2, ERROR_CONFLICT, "conflict");
    peer_expect_failure(&peer, 3, ERROR_NO_REPLY, "declined");
    peer_expect_failure(&peer, 4, ERROR_NOT_FOUND, "no such key");
}

static void any_allocation_may_fail(void **unused)
{
    (void)unused;
    int err = FERO_E_NOMEM;
    for (uint64_t nth = 1; err == FERO_E_NOMEM; nth++) {
        assert_true(nth < 100);
        memory_fail_after(nth);
        err = make("demo", verbs, ARRAY_COUNT(verbs));
        memory_fail_after(0);
    }
    assert_int_equal(err, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_handler_sees_the_whole_request),
        TEST(the_handler_of_everything_sees_names),
        TEST(values_have_their_types_both_ways),
        TEST(a_failure_carries_its_value),
        TEST(a_failure_that_is_returned_says_why),
        TEST(a_wrong_reply_is_refused_and_leaves_the_request_open),
        TEST(opened_lists_the_verbs),
        cmocka_unit_test(wrong_definitions_are_refused),
        cmocka_unit_test(a_name_that_cannot_be_opened_is_refused),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
