/*
 * Mistakes of the program that uses the library, on a node and its client in one process: each is
 * told to who made it, and spoils nothing for others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fero.h"

#define TIMEOUT_MS 20000

static fero *node;
static fero *client;
static fero_cache *cache; /* the client's */

static int32_t on_odd(fero_req *req, void *ud)
{
    (void)req;
    return *(const int32_t *)ud;
}

static int32_t on_reply(fero_req *req, void *ud)
{
    int32_t status = *(const int32_t *)ud;
    if (fero_reply(req, status, NULL) < 0) return FERO_E_INVAL;
    return FERO_H_REPLIED;
}

static int32_t odd;

static int start(void **state)
{
    (void)state;
    const fero_runtime_opts opts = {.size = sizeof opts, .shards = 2, .idle = FERO_IDLE_SLEEP};
    const fero_verb verbs[] = {{"ODD", on_odd, &odd}, {"REPLY", on_reply, &odd}};
    const fero_opts cache_opts = {.size = sizeof cache_opts, .verbs = verbs, .verbs_count = 2};
    fero_cache *served;
    assert_int_equal(fero_start(&opts, &node), 0);
    assert_int_equal(fero_open(node, "demo", &cache_opts, &served), 0);
    const char *const seeds[] = {fero_address(node), NULL};
    const fero_runtime_opts client_opts = {
        .size = sizeof client_opts, .client = 1, .seeds = seeds, .idle = FERO_IDLE_SLEEP};
    assert_int_equal(fero_start(&client_opts, &client), 0);
    assert_int_equal(fero_open(client, "demo", NULL, &cache), 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    fero_stop(client, 0);
    fero_stop(node, 0);
    return 0;
}

static fero_result call(const char *verb)
{
    fero_op *op;
    fero_result result;
    assert_int_equal(fero_send(cache, fero_str(verb), fero_str("k"), NULL, NULL, &op), 0);
    assert_int_equal(fero_wait(op, TIMEOUT_MS, &result), 0);
    fero_op_free(op);
    return result;
}

static void bad_names_are_refused_where_they_are_given(void **state)
{
    (void)state;
    static const char *const names[] = {"", "a\nb", "a\xff", "\x7f", "\xc2\x80"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const fero_verb verb = {names[i], on_odd, &odd};
        const fero_opts opts = {.size = sizeof opts, .verbs = &verb, .verbs_count = 1};
        fero_cache *opened;
        assert_int_equal(fero_open(node, names[i], NULL, &opened), FERO_E_INVAL);
        assert_int_equal(fero_open(node, "other", &opts, &opened), FERO_E_INVAL);
        assert_int_equal(fero_open(client, names[i], NULL, &opened), FERO_E_INVAL);
        assert_non_null(strstr(fero_errmsg(), "UTF-8"));
    }
    char long_name[257];
    fero_cache *opened;
    memset(long_name, 'x', 256);
    long_name[256] = 0;
    assert_int_equal(fero_open(node, long_name, NULL, &opened), FERO_E_INVAL);
    assert_int_equal(fero_open(client, long_name, NULL, &opened), FERO_E_INVAL);
    /* The links have not heard of it. */
    odd = FERO_H_IGNORE;
    assert_int_equal(call("ODD").error, FERO_E_NOREPLY);
}

static void a_handlers_odd_result_fails_its_request_only(void **state)
{
    (void)state;
    static const int32_t results[] = {-4096, -4097, INT32_MIN, INT32_MAX, 3};
    for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
        odd = results[i];
        fero_result result = call("ODD");
        assert_int_equal(result.outcome, FERO_OUTCOME_FAIL);
        assert_int_equal(result.error, FERO_E_NOREPLY);
        result = call("REPLY");
        assert_int_equal(result.outcome, FERO_OUTCOME_FAIL);
        assert_int_equal(result.error, FERO_E_INVAL);
    }
    odd = -4095;
    assert_int_equal(call("ODD").error, -4095);
    assert_int_equal(call("REPLY").error, -4095);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_names_are_refused_where_they_are_given),
        cmocka_unit_test(a_handlers_odd_result_fails_its_request_only),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
