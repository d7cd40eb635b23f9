/*
 * A session store: LOGIN keeps what it is given under a user's name until LOGOUT, or until the time
 * is over without another LOGIN; the handlers see to that themselves. WAIT is answered when the
 * session ends, however long that takes.
 *
 *   cc -o sessions examples/sessions.c $(pkg-config --cflags --libs fero)
 *   ./sessions 7700 60000                       a node on this port, for a minute each
 *
 * or as handlers that fero itself loads:
 *
 *   cc -shared -fPIC -o sessions.so examples/sessions.c
 *   fero serve sessions --handler sessions.so
 *
 * and then
 *
 *   fero req sessions LOGIN david '{"role":"admin"}'
 *   fero get sessions david
 *   fero req sessions WAIT david --timeout 100000
 *   fero req sessions LOGOUT david
 */
#define _POSIX_C_SOURCE 200809L

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fero.h>

#define SHARDS_MAX 64
#define TTL_MS_DEFAULT 1800000

static long long ttl_ms = TTL_MS_DEFAULT;

/* Somebody who waits for the end of a session. */
struct waiting {
    fero_req *req;
    struct waiting *next;
};

/* Each shard has its own keys and its own thread, and so its own list: nothing is shared. */
static struct waiting *waiting_of[SHARDS_MAX];

/* Who was logged in until when: the change that LOGIN made tells a session from a later one. */
struct expiry {
    struct expiry *next;
    struct expiry **link; /* what points to it */
    uint64_t offset;
    size_t key_bytes;
    char key[];
};

/* Likewise: what has not expired when the node stops is freed then. */
static struct expiry *expiries_of[SHARDS_MAX];

static void keep(struct expiry *expiry, fero_shard *shard)
{
    struct expiry **first = &expiries_of[fero_shard_index(shard)];
    expiry->next = *first;
    expiry->link = first;
    if (*first != NULL) (*first)->link = &expiry->next;
    *first = expiry;
}

static void forget(struct expiry *expiry)
{
    *expiry->link = expiry->next;
    if (expiry->next != NULL) expiry->next->link = expiry->link;
    free(expiry);
}

static void forget_all(void)
{
    for (int i = 0; i < SHARDS_MAX; i++)
        while (expiries_of[i] != NULL) forget(expiries_of[i]);
}

static int is_equal(fero_slice a, fero_slice b)
{
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

/* Answers those who wait for this session. */
static void session_ended(fero_shard *shard, fero_slice key, const char *why)
{
    struct waiting **link = &waiting_of[fero_shard_index(shard)];
    fero_val value = {.type = FERO_T_STRING, .s = fero_str(why)};
    while (*link != NULL) {
        struct waiting *waiting = *link;
        if (!is_equal(waiting->req->key, key)) {
            link = &waiting->next;
            continue;
        }
        *link = waiting->next;
        fero_reply(waiting->req, FERO_OK, &value);
        fero_req_release(waiting->req);
        free(waiting);
    }
}

static void on_expiry(fero_shard *shard, void *ud)
{
    struct expiry *expiry = ud;
    fero_slice key = {expiry->key, expiry->key_bytes};
    uint64_t offset;
    /* Another LOGIN or a LOGOUT came meanwhile: it is none of ours any more. */
    if (fero_shard_get(shard, key, NULL, &offset) == 0 && offset == expiry->offset) {
        fero_shard_remove(shard, key, NULL);
        session_ended(shard, key, "expired");
    }
    forget(expiry);
}

static int32_t on_login(fero_req *req, void *ud)
{
    (void)ud;
    struct expiry *expiry = malloc(sizeof *expiry + req->key.len);
    if (expiry == NULL) return FERO_E_NOMEM;
    expiry->key_bytes = req->key.len;
    memcpy(expiry->key, req->key.ptr, req->key.len);
    keep(expiry, req->shard);
    int err = fero_shard_update(req->shard, req->key, &req->value, &expiry->offset);
    if (err == 0) {
        int64_t timer = fero_after(req->shard, ttl_ms, on_expiry, expiry);
        err = timer < 0 ? (int)timer : 0;
    }
    if (err < 0) {
        forget(expiry);
        return err;
    }
    fero_val value = {.type = FERO_T_INT64, .i64 = ttl_ms};
    return fero_reply(req, FERO_OK, &value) < 0 ? FERO_H_IGNORE : FERO_H_REPLIED;
}

static int32_t on_logout(fero_req *req, void *ud)
{
    (void)ud;
    int err = fero_shard_remove(req->shard, req->key, NULL);
    if (err < 0) return err;
    session_ended(req->shard, req->key, "logged out");
    return fero_reply(req, FERO_OK, NULL) < 0 ? FERO_H_IGNORE : FERO_H_REPLIED;
}

/* Whoever waited has gone, or waits no longer. */
static void on_news(fero_req *req, int32_t event, int32_t error, void *ud)
{
    struct waiting **link = &waiting_of[fero_shard_index(req->shard)];
    (void)error;
    if (event != FERO_REQ_STOPPED) return;
    while (*link != ud) link = &(*link)->next;
    struct waiting *waiting = *link;
    *link = waiting->next;
    fero_req_release(waiting->req);
    free(waiting);
}

static int32_t on_wait(fero_req *req, void *ud)
{
    (void)ud;
    int err = fero_shard_get(req->shard, req->key, NULL, NULL);
    if (err < 0) return err;
    struct waiting *waiting = malloc(sizeof *waiting);
    if (waiting == NULL) return FERO_E_NOMEM;
    waiting->req = fero_req_retain(req);
    if (waiting->req == NULL) {
        free(waiting);
        return FERO_E_AGAIN;
    }
    struct waiting **first = &waiting_of[fero_shard_index(req->shard)];
    waiting->next = *first;
    *first = waiting;
    fero_req_on(waiting->req, on_news, waiting);
    return FERO_H_DEFER;
}

static const fero_verb verbs[] = {
    {"LOGIN", on_login, NULL}, {"LOGOUT", on_logout, NULL}, {"WAIT", on_wait, NULL}};

/* As a shared object it is configured by its environment. */
static int32_t on_init(void)
{
    const char *text = getenv("SESSIONS_TTL_MS");
    if (text != NULL) ttl_ms = atoll(text);
    return ttl_ms > 0 ? FERO_OK : FERO_E_INVAL;
}

FERO_SERVICE(.name = "sessions", .verbs = verbs, .verbs_count = 3, .init = on_init,
             .deinit = forget_all);

int main(int argc, char **argv)
{
    fero_runtime_opts opts = {.size = sizeof opts, .shards = 2};
    fero_opts about = {.size = sizeof about, .verbs = verbs, .verbs_count = 3};
    fero *node;
    fero_cache *sessions;
    sigset_t ends;
    int number;
    if (argc > 1) opts.port_first = (uint16_t)atoi(argv[1]);
    if (argc > 2) ttl_ms = atoll(argv[2]);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* the shards' threads inherit it */
    if (fero_start(&opts, &node) < 0 || fero_open(node, "sessions", &about, &sessions) < 0) {
        fprintf(stderr, "sessions: %s\n", fero_errmsg());
        return 1;
    }
    printf("%s\n", fero_address(node));
    fflush(stdout);
    sigwait(&ends, &number);
    fero_stop(node, 0);
    forget_all();
    return 0;
}
