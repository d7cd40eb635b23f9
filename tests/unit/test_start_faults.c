/*
 * A node and a client, on real sockets, of whose start and work the Nth allocation, mapping or
 * thread fails, for every N: what was asked for is refused with an error and a reason, or done;
 * nothing is left behind; and the next one succeeds.
 *
 * Calls are counted over all threads, by --wrap (test_start_faults.mk), because a node's shards
 * allocate in their own. memory_fail_after counts one thread's only, and so finds the client's.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"
#include "fero.h"

#define SHARDS 2
#define WAIT_MS 20000

/* ---- the calls that fail ------------------------------------------------------------------------ */

static int64_t countdown; /* 0: off */
static int64_t failed;
static int64_t blocks; /* allocated and not freed */
static int64_t mapped_bytes;

int __real_posix_memalign(void **memory, size_t alignment, size_t bytes);
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *memory, size_t bytes);
void __real_free(void *memory);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*function)(void *), void *argument);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *memory, size_t bytes);
void __wrap_free(void *memory);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*function)(void *), void *argument);

static void add(int64_t *number, int64_t by)
{
    __atomic_fetch_add(number, by, __ATOMIC_RELAXED);
}

static bool fails_now(void)
{
    if (__atomic_load_n(&countdown, __ATOMIC_RELAXED) <= 0) return false;
    if (__atomic_sub_fetch(&countdown, 1, __ATOMIC_RELAXED) != 0) return false;
    add(&failed, 1);
    return true;
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    if (fails_now()) return ENOMEM;
    add(&blocks, 1);
    return __real_posix_memalign(memory, alignment, bytes);
}

/* Only our own blocks come here: the library has no other allocator. */
void __wrap_free(void *memory)
{
    if (memory != NULL) add(&blocks, -1);
    __real_free(memory);
}

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    if (fails_now()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    add(&mapped_bytes, (int64_t)bytes);
    return __real_mmap(at, bytes, protection, flags, fd, offset);
}

int __wrap_munmap(void *memory, size_t bytes)
{
    add(&mapped_bytes, -(int64_t)bytes);
    return __real_munmap(memory, bytes);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*function)(void *), void *argument)
{
    if (fails_now()) return EAGAIN;
    return __real_pthread_create(thread, attributes, function, argument);
}

/* ---- what must not be left behind ---------------------------------------------------------------- */

struct held {
    int64_t blocks;
    int64_t mapped_bytes;
    int descriptors;
};

static int count_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder) != NULL) count++;
    closedir(folder);
    return count;
}

static struct held hold(void)
{
    return (struct held){blocks, mapped_bytes, count_descriptors()};
}

static void check_held(const struct held *before)
{
    struct held now = hold();
    assert_int_equal(now.blocks, before->blocks);
    assert_int_equal(now.mapped_bytes, before->mapped_bytes);
    assert_int_equal(now.descriptors, before->descriptors);
}

/* ---- a node ------------------------------------------------------------------------------------- */

static int32_t echo(fero_req *req, void *ud)
{
    (void)ud;
    return fero_reply(req, 0, &req->value);
}

static const fero_runtime_opts node_opts = {.size = sizeof node_opts,
                                            .shards = SHARDS,
                                            .idle = FERO_IDLE_SLEEP,
                                            .memory_max_bytes = 256 * (int64_t)MIB,
                                            .connections_max = 64,
                                            .lane_bytes = 256 * (int64_t)KIB};

static int open_named(fero *node, const char *name)
{
    const fero_verb verb = {.name = "echo", .fn = echo};
    const fero_opts opts = {.size = sizeof opts, .verbs = &verb, .verbs_count = 1};
    fero_cache *cache;
    return fero_open(node, name, &opts, &cache);
}

static int open_node(fero *node)
{
    return open_named(node, "faults");
}

/* Starts a node and opens a cache while the nth call fails. True: it came that far all the same. */
static bool start_with_fault(int64_t n)
{
    fero *node = NULL;
    failed = 0;
    countdown = n;
    int err = fero_start(&node_opts, &node);
    if (err == 0) err = open_node(node);
    countdown = 0;
    if (err < 0) {
        assert_true(failed > 0);
        assert_true(err == FERO_E_NOMEM || err == FERO_E_SYS);
        assert_true(strlen(fero_errmsg()) > 0);
    }
    if (node != NULL) assert_int_equal(fero_stop(node, 0), 0);
    return err == 0;
}

static void any_call_of_a_nodes_start_may_fail(void **state)
{
    (void)state;
    if (!start_with_fault(0)) {
        print_message("%s\n", fero_errmsg());
        skip();
    }
    struct held before = hold();
    int64_t n = 1;
    for (;; n++) {
        (void)start_with_fault(n);
        check_held(&before);
        if (failed == 0) break;
    }
    print_message("%lld calls\n", (long long)n - 1);
    assert_true(n > 30);
}

static void a_cache_that_found_no_memory_can_be_opened_again(void **state)
{
    (void)state;
    struct held before = hold();
    fero *node;
    for (int64_t n = 1;; n++) {
        assert_int_equal(fero_start(&node_opts, &node), 0);
        failed = 0;
        countdown = n;
        int err = open_node(node);
        countdown = 0;
        if (err < 0) {
            assert_int_equal(err, FERO_E_NOMEM);
            /* Some shards may have it already; that must not be in the way of another. */
            assert_int_equal(n % 2 == 0 ? open_node(node) : open_named(node, "other"), 0);
            assert_int_equal(open_node(node), 0);
        }
        assert_int_equal(fero_stop(node, 0), 0);
        check_held(&before);
        if (failed == 0) break;
    }
}

/* ---- a client ----------------------------------------------------------------------------------- */

struct heard {
    uint64_t done; /* replies, whatever their outcome */
    uint64_t ok;
};

static void on_done(const fero_result *result, void *ud)
{
    struct heard *heard = ud;
    heard->done++;
    heard->ok += result->outcome == FERO_OUTCOME_OK;
}

/* A request until the client takes it, or says why not. */
static bool ask(fero *client, fero_cache *cache, unsigned which, const fero_wopts *wopts)
{
    static const uint8_t bytes[70000];
    const fero_val value = {.type = FERO_T_BYTES, .s = {bytes, which % 7 == 0 ? 70000 : 100}};
    const fero_slice key = {&which, sizeof which};
    for (;;) {
        int err;
        if (which % 5 == 0)
            err = fero_get(cache, key, wopts, NULL);
        else if (which % 5 == 1)
            err = fero_send(cache, fero_str("echo"), key, &value, wopts, NULL);
        else
            err = fero_update(cache, key, &value, wopts, NULL);
        if (err == 0) return true;
        if (err != FERO_E_AGAIN && err != FERO_E_NOTCONN) {
            assert_int_equal(err, FERO_E_NOMEM);
            return false;
        }
        assert_true(fero_run(client, 10) >= 0);
    }
}

/* All that a client does; false where it could not even begin. */
static bool talk(const char *address)
{
    const char *seeds[] = {address, NULL};
    const fero_runtime_opts opts = {.size = sizeof opts, .client = 1, .seeds = seeds};
    const fero_opts cache_opts = {.size = sizeof cache_opts, .timeout_ms = WAIT_MS};
    struct heard heard = {0};
    fero *client;
    fero_cache *cache;
    int err = fero_start(&opts, &client);
    if (err < 0) {
        assert_true(err == FERO_E_NOMEM || err == FERO_E_SYS);
        assert_true(strlen(fero_errmsg()) > 0);
        return false;
    }
    err = fero_open(client, "faults", &cache_opts, &cache);
    if (err < 0) {
        assert_int_equal(err, FERO_E_NOMEM);
        assert_int_equal(fero_stop(client, 0), 0);
        return false;
    }
    const fero_wopts wopts = {.size = sizeof wopts,
                              .want = FERO_REPLY,
                              .timeout_ms = WAIT_MS,
                              .done = on_done,
                              .ud = &heard};
    uint64_t taken = 0;
    for (unsigned i = 0; i < 200; i++) taken += ask(client, cache, i, &wopts);
    while (heard.done < taken) assert_true(fero_run(client, WAIT_MS) >= 0);

    fero_op *op = NULL;
    fero_result result;
    const fero_wopts plain = {.size = sizeof plain, .want = FERO_REPLY, .timeout_ms = WAIT_MS};
    err = fero_ask_info(cache, -1, &plain, &op);
    if (err == 0) {
        err = fero_wait(op, WAIT_MS, &result);
        assert_true(err == 0 || err == FERO_E_NOMEM);
        fero_op_free(op);
    } else {
        assert_int_equal(err, FERO_E_NOMEM);
    }
    fero_close(cache);
    assert_int_equal(fero_stop(client, 0), 0);
    assert_int_equal(heard.done, taken); /* each exactly once */
    return true;
}

static void any_allocation_of_a_client_may_fail(void **state)
{
    (void)state;
    struct held before = hold();
    fero *node;
    assert_int_equal(fero_start(&node_opts, &node), 0);
    assert_int_equal(open_node(node), 0);
    uint64_t calls = memory_calls_count();
    assert_true(talk(fero_address(node)));
    calls = memory_calls_count() - calls;
    for (uint64_t n = 1; n <= calls + 2; n++) {
        memory_fail_after(n);
        (void)talk(fero_address(node));
        memory_fail_after(0);
    }
    assert_true(talk(fero_address(node)));
    print_message("%llu allocations\n", (unsigned long long)calls);
    assert_int_equal(fero_stop(node, 0), 0);
    check_held(&before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_call_of_a_nodes_start_may_fail),
        cmocka_unit_test(a_cache_that_found_no_memory_can_be_opened_again),
        cmocka_unit_test(any_allocation_of_a_client_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
