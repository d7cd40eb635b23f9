/*
 * A node as a stranger meets it: bytes over TCP, written from docs/protocol.md. What that page shows
 * in bytes and in tables is read from it here, so that page and node cannot part.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "fero.h"
#include "log/batch.h"
#include "log/change.h"
#include "ring/slot.h"
#include "wire/hello.h"

#define MIB ((size_t)1 << 20)
#define FRAME_MAX (256 * (size_t)1024)
/* Of a node with two shards: `a` belongs to the second one, `28` to the first. */
#define SLOT_OF_A 3873
#define SLOT_OF_28 1323

/* ------------------------------------------------------------------------------------ node */

struct node {
    fero *runtime;
    uint16_t port;
};

static int32_t echo(fero_req *req, void *ud)
{
    (void)ud;
    return fero_reply(req, 0, &req->value) == 0 ? FERO_H_REPLIED : FERO_E_INVAL;
}

/* Of all else; replies to SEQ with the number that the request has in its session. */
static int32_t handler(fero_req *req, void *ud)
{
    (void)ud;
    const fero_val number = {.type = FERO_T_INT64, .i64 = (int64_t)req->seq};
    if (req->verb.len != 3 || memcmp(req->verb.ptr, "SEQ", 3) != 0) return FERO_H_NEXT;
    return fero_reply(req, 0, &number) == 0 ? FERO_H_REPLIED : FERO_E_INVAL;
}

static int node_start(void **state)
{
    static struct node node;
    const fero_verb verb = {"ECHO", echo, NULL};
    fero_runtime_opts runtime = {
        .size = sizeof runtime, .shards = 2, .memory_max_bytes = 128 * (int64_t)MIB};
    fero_opts opts = {.size = sizeof opts, .verbs = &verb, .verbs_count = 1, .handler = handler};
    fero_cache *cache;
    if (fero_start(&runtime, &node.runtime) < 0 ||
        fero_open(node.runtime, "demo", &opts, &cache) < 0) {
        print_error("%s\n", fero_errmsg());
        return -1;
    }
    node.port = (uint16_t)strtoul(strrchr(fero_address(node.runtime), ':') + 1, NULL, 10);
    *state = &node;
    return 0;
}

static int node_stop(void **state)
{
    const struct node *node = *state;
    return fero_stop(node->runtime, 0);
}

/* ------------------------------------------------------------------------------------ links */

static int dial(const struct node *node)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(node->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {.tv_sec = 20};
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void send_all(int fd, const void *data, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t sent = send(fd, (const uint8_t *)data + at, bytes - at, MSG_NOSIGNAL);
        assert_true(sent > 0);
        at += (size_t)sent;
    }
}

static void receive_all(int fd, void *data, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t received = recv(fd, (uint8_t *)data + at, bytes - at, 0);
        assert_true(received > 0);
        at += (size_t)received;
    }
}

/* One frame with its padding; `data` has FRAME_MAX. */
static size_t receive_frame(int fd, uint8_t *data)
{
    struct frame_prefix prefix;
    receive_all(fd, data, sizeof prefix);
    memcpy(&prefix, data, sizeof prefix);
    assert_in_range(prefix.length, sizeof prefix, FRAME_MAX);
    size_t bytes = round_up_8(prefix.length);
    receive_all(fd, data + sizeof prefix, bytes - sizeof prefix);
    return bytes;
}

static void receive_type(int fd, enum frame_type type, uint8_t *data)
{
    receive_frame(fd, data);
    assert_int_equal(data[4], type);
}

static void send_hello(int fd, uint16_t shard, uint64_t session, uint64_t seq_first)
{
    uint8_t data[sizeof(struct frame_hello) + 8];
    struct frame_hello hello = {.shard = shard,
                                .role = ROLE_CLIENT,
                                .session = session,
                                .seq_first = seq_first,
                                .floor = 1};
    send_all(fd, data, hello_encode(&hello, (struct bytes){NULL, 0}, data));
}

static struct frame_welcome receive_welcome(int fd)
{
    uint8_t data[FRAME_MAX];
    struct frame_welcome welcome;
    receive_type(fd, FRAME_WELCOME, data);
    memcpy(&welcome, data, sizeof welcome);
    return welcome;
}

static void send_open(int fd)
{
    uint8_t data[64];
    send_all(fd, data, open_encode(7, bytes_of("demo"), data));
}

/* A link to the first shard whose cache is open. */
static int link_from(const struct node *node, uint64_t session, uint64_t seq_first)
{
    uint8_t data[FRAME_MAX];
    int fd = dial(node);
    send_hello(fd, 0, session, seq_first);
    send_open(fd);
    receive_welcome(fd);
    receive_type(fd, FRAME_OPENED, data);
    return fd;
}

/* Without a session. */
static int link_to(const struct node *node)
{
    return link_from(node, 0, 1);
}

/* Writes a request of a key and a string, both short. */
static size_t request_encode(uint8_t *data, uint8_t type, const char *key, uint16_t slot,
                             uint32_t seq, const char *value)
{
    struct frame_request request = {.length =
                                        (uint32_t)(sizeof request + strlen(key) + strlen(value)),
                                    .type = type,
                                    .flags = WANT_REPLY << FRAME_WANT_SHIFT | VALUE_STRING,
                                    .key_len = (uint16_t)strlen(key),
                                    .slot = slot,
                                    .seq = seq};
    memset(data, 0, round_up_8(request.length));
    memcpy(data, &request, sizeof request);
    memcpy(data + sizeof request, key, strlen(key));
    memcpy(data + sizeof request + strlen(key), value, strlen(value));
    return round_up_8(request.length);
}

static void send_request(int fd, uint8_t type, const char *key, uint16_t slot, uint32_t seq,
                         const char *value)
{
    uint8_t data[256];
    send_all(fd, data, request_encode(data, type, key, slot, seq, value));
}

/* The next reply; ACKs before it are skipped. */
static struct frame_reply receive_reply(int fd)
{
    uint8_t data[FRAME_MAX];
    struct frame_reply reply;
    do receive_frame(fd, data);
    while (data[4] == FRAME_ACK);
    assert_int_equal(data[4], FRAME_REPLY);
    memcpy(&reply, data, sizeof reply);
    return reply;
}

/* The refusal, and that the connection ends behind it. */
static struct frame_refuse receive_refusal(int fd)
{
    uint8_t data[FRAME_MAX];
    struct frame_refuse refuse;
    receive_type(fd, FRAME_REFUSE, data);
    memcpy(&refuse, data, sizeof refuse);
    assert_int_equal(recv(fd, data, 1, 0), 0);
    return refuse;
}

/* ------------------------------------------------------------------------------------ facts */

static void requests_are_acknowledged_and_nothing_else(void **state)
{
    uint8_t data[FRAME_MAX];
    struct frame_ack ack;
    int fd = link_to(*state);
    send_open(fd);
    send_open(fd);
    receive_type(fd, FRAME_OPENED, data);
    receive_type(fd, FRAME_OPENED, data);
    send_request(fd, FRAME_UPDATE, "28", SLOT_OF_28, 5, "david");
    receive_type(fd, FRAME_REPLY, data);
    receive_type(fd, FRAME_ACK, data);
    memcpy(&ack, data, sizeof ack);
    assert_int_equal(ack.seq, 5);
    assert_int_equal(ack.requests, 1);
    assert_int_equal(ack.consumed_bytes, 32);
    close(fd);
}

static void a_wrong_length_is_named_in_the_refusal(void **state)
{
    static const struct {
        struct frame_prefix prefix;
        bool is_greeted;
        uint64_t limit;
    } cases[] = {
        {{.length = 7, .type = FRAME_HELLO}, false, FRAME_PREFIX_BYTES},
        {{.length = 4097, .type = FRAME_HELLO}, false, 4096},
        {{.length = 0, .type = FRAME_OPEN}, true, FRAME_PREFIX_BYTES},
        {{.length = 1 << 25, .type = FRAME_OPEN}, true, 1050136},
        {{.length = 23, .type = FRAME_GET}, true, FRAME_REQUEST_BYTES},
        {{.length = 1050137, .type = FRAME_UPDATE}, true, 1050136},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t data[FRAME_REQUEST_BYTES] = {0};
        int fd = cases[i].is_greeted ? link_to(*state) : dial(*state);
        memcpy(data, &cases[i].prefix, sizeof cases[i].prefix);
        send_all(fd, data, sizeof data);
        struct frame_refuse refuse = receive_refusal(fd);
        assert_int_equal(refuse.prefix.small, ERROR_PROTOCOL);
        assert_int_equal(refuse.got, cases[i].prefix.length);
        assert_int_equal(refuse.limit, cases[i].limit);
        close(fd);
    }
}

/* Its numbers are remembered by the second shard, on which it has no link. */
static void a_session_is_remembered_by_shards_that_it_has_no_link_to(void **state)
{
    enum { REQUESTS = 1000 };
    static uint8_t data[REQUESTS * 32];
    int fd = link_from(*state, 42, 1);
    for (uint32_t i = 0; i < REQUESTS; i++)
        assert_int_equal(
            request_encode(data + i * 32, FRAME_UPDATE, "a", SLOT_OF_A, i + 1, "value"), 32);
    for (unsigned round = 0; round < 2; round++) {
        send_all(fd, data, sizeof data);
        for (uint32_t i = 0; i < REQUESTS; i++) {
            struct frame_reply reply = receive_reply(fd);
            assert_int_equal(reply.code, 0);
            assert_int_equal(reply.seq, i + 1);
            assert_int_equal(reply.offset, i + 1);
            assert_int_equal(reply.flags, round == 0 ? 0 : REPLY_DUPLICATE);
        }
    }
    close(fd);
}

/* ------------------------------------------------------------------------------------- page */

/* docs/protocol.md from the line that begins with `mark` on. */
static const char *page_from(const char *mark)
{
    static char page[128 * 1024];
    char line[80];
    FILE *file = fopen("docs/protocol.md", "r");
    assert_non_null(file);
    size_t bytes = fread(page, 1, sizeof page - 1, file);
    fclose(file);
    assert_in_range(bytes, 1, sizeof page - 2);
    page[bytes] = 0;
    assert_in_range(snprintf(line, sizeof line, "\n%s", mark), 1, sizeof line - 1);
    const char *found = strstr(page, line);
    assert_non_null(found);
    return found + 1;
}

/* Copies the line at `*at` and moves on to the next one; false: it is empty, or the page ends. */
static bool next_line(const char **at, char *line, size_t bytes_max)
{
    size_t bytes = strcspn(*at, "\n");
    assert_true(bytes < bytes_max);
    memcpy(line, *at, bytes);
    line[bytes] = 0;
    *at += bytes + ((*at)[bytes] == '\n');
    return bytes > 0;
}

/* A frame that the page shows, 8 bytes a line. */
struct shown {
    char title[256];
    uint8_t bytes[256];
    bool varies[256]; /* by node */
    size_t size;
};

static void show_row(struct shown *shown, const char *line)
{
    unsigned at;
    unsigned byte[8];
    assert_int_equal(sscanf(line, "%x %x %x %x %x %x %x %x %x", &at, &byte[0], &byte[1], &byte[2],
                            &byte[3], &byte[4], &byte[5], &byte[6], &byte[7]),
                     9);
    assert_int_equal(at, shown->size);
    assert_true(shown->size + 8 <= sizeof shown->bytes);
    for (unsigned i = 0; i < 8; i++) {
        shown->varies[shown->size] = strstr(line, "(varies)") != NULL;
        shown->bytes[shown->size++] = (uint8_t)byte[i];
    }
}

/* False at the end of the block. */
static bool next_shown(const char **at, struct shown *shown)
{
    char line[256];
    shown->size = 0;
    if (strncmp(*at, "```", 3) == 0) return false;
    next_line(at, shown->title, sizeof shown->title);
    while (strncmp(*at, "```", 3) != 0 && next_line(at, line, sizeof line)) show_row(shown, line);
    assert_true(shown->size > 0);
    return true;
}

static void receive_shown(int fd, const struct shown *shown)
{
    uint8_t data[FRAME_MAX];
    size_t bytes = receive_frame(fd, data);
    for (size_t i = 0; i < shown->size && i < bytes; i++)
        if (!shown->varies[i] && data[i] != shown->bytes[i])
            fail_msg("%s: byte %zu is 0x%02x", shown->title, i, data[i]);
    if (bytes != shown->size) fail_msg("%s: %zu bytes came", shown->title, bytes);
}

static void the_conversation_of_the_page_is_what_a_node_answers(void **state)
{
    struct shown shown;
    uint8_t sent[512];
    size_t unsent = 0;
    unsigned answers = 0;
    const char *at = page_from("client -> ");
    int fd = dial(*state);
    while (next_shown(&at, &shown)) {
        if (strncmp(shown.title, "client", 6) == 0) {
            assert_true(unsent + shown.size <= sizeof sent);
            memcpy(sent + unsent, shown.bytes, shown.size);
            unsent += shown.size;
            continue;
        }
        send_all(fd, sent, unsent);
        unsent = 0;
        receive_shown(fd, &shown);
        answers++;
    }
    assert_int_equal(unsent, 0);
    assert_true(answers > 10);
    /* The last one is a REFUSE. */
    assert_int_equal(shown.size, 0);
    assert_int_equal(recv(fd, sent, 1, 0), 0);
    close(fd);
}

/* What stands between the backticks of a cell, or nothing. */
static struct bytes cell_text(const char **at)
{
    const char *cell = *at + 1;
    const char *end = strchr(cell, '|');
    assert_non_null(end);
    *at = end;
    const char *open = memchr(cell, '`', (size_t)(end - cell));
    if (open == NULL) return (struct bytes){cell, 0};
    const char *close = memchr(open + 1, '`', (size_t)(end - open - 1));
    assert_non_null(close);
    return (struct bytes){open + 1, (size_t)(close - open - 1)};
}

static uint64_t cell_number(const char **at)
{
    uint64_t number = strtoull(*at + 1, NULL, 0);
    *at = strchr(*at + 1, '|');
    assert_non_null(*at);
    return number;
}

/* The first row of the table with this head. */
static const char *table_rows(const char *head)
{
    char line[256];
    const char *at = page_from(head);
    next_line(&at, line, sizeof line);
    next_line(&at, line, sizeof line);
    return at;
}

static void slots_of_the_page_are_right(void **state)
{
    (void)state;
    char line[256];
    unsigned rows = 0;
    for (const char *at = table_rows("| key | hashed |"); next_line(&at, line, sizeof line);
         rows++) {
        const char *cell = line;
        struct bytes key = cell_text(&cell);
        struct bytes hashed = cell_text(&cell);
        uint64_t crc = cell_number(&cell);
        assert_int_equal(slot_crc16(hashed.data, hashed.size), crc);
        assert_int_equal(cell_number(&cell), crc & 16383);
        assert_int_equal(cell_number(&cell), slot_of_key(key.data, key.size));
    }
    assert_true(rows > 10);
}

/* The number that the node makes of `seq` on a new link. */
static uint64_t number_of(const struct node *node, uint64_t seq_first, uint32_t seq)
{
    uint8_t data[FRAME_MAX];
    uint64_t number;
    struct extensions extensions = {.present = 1u << EXT_VERB, .verb = bytes_of("SEQ")};
    size_t bytes = extensions_encode(&extensions, data + FRAME_REQUEST_BYTES);
    struct frame_request request = {.length = (uint32_t)(sizeof request + bytes),
                                    .type = FRAME_VERB,
                                    .flags = WANT_REPLY << FRAME_WANT_SHIFT | FRAME_EXTENDED,
                                    .slot = FRAME_SLOT_ANY,
                                    .seq = seq};
    memcpy(data, &request, sizeof request);
    int fd = link_from(node, 42, seq_first);
    send_all(fd, data, sizeof request + bytes);
    receive_type(fd, FRAME_REPLY, data);
    memcpy(&number, data + FRAME_REPLY_BYTES, sizeof number);
    close(fd);
    return number;
}

static void numbers_of_the_page_are_right(void **state)
{
    char line[256];
    unsigned rows = 0;
    for (const char *at = table_rows("| h | seq | number |"); next_line(&at, line, sizeof line);
         rows++) {
        const char *cell = line;
        uint64_t highest = cell_number(&cell);
        uint32_t seq = (uint32_t)cell_number(&cell);
        assert_int_equal(number_of(*state, highest + 1, seq), cell_number(&cell));
    }
    assert_true(rows > 3);
}

static void the_batch_of_the_page_is_valid(void **state)
{
    (void)state;
    static const char chain[] = "The slot's chain behind it is ";
    struct shown shown;
    const char *at = page_from("log: ");
    assert_true(next_shown(&at, &shown));
    struct {
        struct batch batch;
        struct change change;
        uint8_t body[8];
    } log;
    assert_int_equal(shown.size, sizeof log);
    memcpy(&log, shown.bytes, sizeof log);
    assert_true(batch_is_valid(&log.batch, sizeof log));
    at = strstr(page_from("### Example"), chain);
    assert_non_null(at);
    assert_int_equal(chain_next(0, change_identity(&log.change)),
                     strtoull(at + sizeof chain - 1, NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_conversation_of_the_page_is_what_a_node_answers,
                                        node_start, node_stop),
        cmocka_unit_test(slots_of_the_page_are_right),
        cmocka_unit_test_setup_teardown(numbers_of_the_page_are_right, node_start, node_stop),
        cmocka_unit_test(the_batch_of_the_page_is_valid),
        cmocka_unit_test_setup_teardown(requests_are_acknowledged_and_nothing_else, node_start,
                                        node_stop),
        cmocka_unit_test_setup_teardown(a_wrong_length_is_named_in_the_refusal, node_start,
                                        node_stop),
        cmocka_unit_test_setup_teardown(a_session_is_remembered_by_shards_that_it_has_no_link_to,
                                        node_start, node_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
