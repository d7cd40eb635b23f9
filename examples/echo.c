/*
 * The smallest service: a verb that replies at once with what it was given.
 *
 *   cc -shared -fPIC -o echo.so examples/echo.c
 *   fero serve demo --handler echo.so
 *   fero req demo SAY '' hello
 *
 * and a program that has the same node inside, asks it, and prints the answer:
 *
 *   cc -o echo examples/echo.c $(pkg-config --cflags --libs fero)
 *   ./echo hello
 */
#include <stdio.h>

#include <fero.h>

static int32_t on_say(fero_req *req, void *ud)
{
    (void)ud;
    int err = fero_reply(req, FERO_OK, &req->value);
    return err < 0 ? err : FERO_H_REPLIED;
}

static const fero_verb verbs[] = {{"SAY", on_say, NULL}};

FERO_SERVICE(.name = "echo", .verbs = verbs, .verbs_count = 1);

/* A thread of the program asks the node that is inside of it. */
static int ask(fero_cache *cache, const char *text)
{
    fero_val body = {.type = FERO_T_STRING, .s = fero_str(text)};
    fero_op *op = NULL;
    fero_result result;
    int err = fero_send(cache, fero_str("SAY"), fero_str(""), &body, NULL, &op);
    if (err == 0) err = fero_wait(op, -1, &result);
    if (err == 0 && result.outcome != FERO_OUTCOME_OK) err = result.error;
    if (err == 0) printf("%.*s\n", (int)result.value.s.len, (const char *)result.value.s.ptr);
    fero_op_free(op);
    return err;
}

int main(int argc, char **argv)
{
    fero_runtime_opts opts = {.size = sizeof opts, .shards = 1};
    fero_opts about = {.size = sizeof about, .verbs = verbs, .verbs_count = 1};
    fero *node;
    fero_cache *cache;
    int err = fero_start(&opts, &node);
    if (err == 0) {
        err = fero_open(node, "demo", &about, &cache);
        if (err == 0) err = ask(cache, argc > 1 ? argv[1] : "hello");
        if (err < 0) fprintf(stderr, "echo: %s\n", fero_errmsg());
        fero_stop(node, 0);
    } else {
        fprintf(stderr, "echo: %s\n", fero_errmsg());
    }
    return err < 0 ? 1 : 0;
}
