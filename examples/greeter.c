/*
 * A node inside a program, with a verb of its own, and a client that talks to it. The two could as
 * well be two programs on two machines: the client needs nothing but the address.
 *
 *   cc -o greeter examples/greeter.c $(pkg-config --cflags --libs fero)
 */
#include <stdio.h>
#include <string.h>

#include <fero.h>

/* Runs on the thread of the shard that owns the key. */
static int32_t on_greet(fero_req *req, void *ud)
{
    char text[128];
    int bytes = snprintf(text, sizeof text, "%s, %.*s", (const char *)ud, (int)req->key.len,
                         (const char *)req->key.ptr);
    if (bytes >= (int)sizeof text) return FERO_E_TOOBIG;
    fero_val reply = {.type = FERO_T_STRING, .s = {text, (size_t)bytes}};
    int err = fero_reply(req, FERO_OK, &reply);
    return err < 0 ? err : FERO_H_REPLIED;
}

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, fero_errmsg());
    return 1;
}

/* Waits for the answer of the request that `err` and `op` came from, and prints it. */
static int print_answer(const char *what, int err, fero_op *op)
{
    fero_result result;
    if (err == 0) err = fero_wait(op, -1, &result);
    if (err == 0 && result.outcome != FERO_OUTCOME_OK) err = result.error;
    if (err == 0)
        printf("%s: \"%.*s\", offset %llu\n", what, (int)result.value.s.len,
               (const char *)result.value.s.ptr, (unsigned long long)result.offset);
    else
        fail(what);
    fero_op_free(op);
    return err;
}

/* The client: one thread, which calls the library whenever it likes. */
static int talk(const char *address)
{
    const char *const seeds[] = {address, NULL};
    fero_runtime_opts opts = {.size = sizeof opts, .client = 1, .seeds = seeds};
    fero *client;
    fero_cache *cache;
    fero_op *op = NULL;
    if (fero_start(&opts, &client) < 0) return fail("fero_start");
    if (fero_open(client, "users", NULL, &cache) < 0) {
        int status = fail("fero_open");
        fero_stop(client, 0);
        return status;
    }
    fero_slice key = fero_str("28");
    fero_val david = {.type = FERO_T_STRING, .s = fero_str("david")};
    int err = fero_update(cache, key, &david, NULL, &op);
    err = print_answer("update", err, op);
    if (err == 0) {
        op = NULL;
        err = fero_get(cache, key, NULL, &op);
        err = print_answer("get", err, op);
    }
    if (err == 0) {
        op = NULL;
        err = fero_send(cache, fero_str("GREET"), fero_str("david"), NULL, NULL, &op);
        err = print_answer("greet", err, op);
    }
    fero_stop(client, 0);
    return err == 0 ? 0 : 1;
}

int main(void)
{
    fero_runtime_opts opts = {.size = sizeof opts, .shards = 2}; /* any free port of 127.0.0.1 */
    const fero_verb verbs[] = {{.name = "GREET", .fn = on_greet, .ud = "hello"}};
    fero_opts about = {.size = sizeof about, .verbs = verbs, .verbs_count = 1};
    fero *node;
    fero_cache *users;
    if (fero_start(&opts, &node) < 0) return fail("fero_start");
    int status =
        fero_open(node, "users", &about, &users) < 0 ? fail("fero_open") : talk(fero_address(node));
    fero_stop(node, 0);
    return status;
}
