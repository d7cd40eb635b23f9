/*
 * The bare ping-pong: one message over one connection, there and back.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/cpus.h"
#include "base/memory.h"
#include "bench/limit.h"
#include "bench/limit_sides.h"
#include "bench/limit_wiring.h"

#define PINGPONG_BYTES_MAX ((size_t)64 * KIB)

struct pingpong {
    const struct limit_pingpong_options *options;
    const struct limit_wiring *wiring;
    struct histogram *histogram;
    uint8_t *memory; /* a message for each side */
    int server_err;
    int client_err;
};

static int receive_whole(int fd, uint8_t *to, size_t bytes, int flags)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t got = limit_receive(fd, to + at, bytes - at, flags);
        if (got < 0 && !limit_is_later((int)got)) return (int)got;
        if (got > 0) at += (size_t)got;
    }
    return 0;
}

static int send_whole(int fd, const uint8_t *from, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t sent = limit_send(fd, from + at, bytes - at, 0);
        if (sent < 0 && !limit_is_later((int)sent)) return (int)sent;
        if (sent > 0) at += (size_t)sent;
    }
    return 0;
}

static int flags_of(const struct pingpong *pingpong)
{
    return pingpong->options->wait == LIMIT_WAIT_SPIN ? MSG_DONTWAIT : 0;
}

static void *pong_thread(void *context)
{
    struct pingpong *pingpong = context;
    const struct limit_pingpong_options *options = pingpong->options;
    int fd = pingpong->wiring->server_fds[0];
    uint8_t *message = pingpong->memory;
    int err = cpus_pin((uint16_t)options->server_cpu);
    for (uint64_t i = 0; err == 0 && i < options->messages_warmup + options->messages; i++) {
        err = receive_whole(fd, message, options->bytes, flags_of(pingpong));
        if (err == 0) err = send_whole(fd, message, options->bytes);
    }
    if (err < 0) limit_hang_up(&fd, 1);
    pingpong->server_err = err;
    return NULL;
}

/* One round trip. */
static int ping(const struct pingpong *pingpong, uint8_t *message, uint64_t seq)
{
    int fd = pingpong->wiring->client_fds[0];
    uint64_t echoed;
    memcpy(message, &seq, sizeof(seq));
    int err = send_whole(fd, message, pingpong->options->bytes);
    if (err < 0) return err;
    memset(message, 0, sizeof(seq));
    err = receive_whole(fd, message, pingpong->options->bytes, flags_of(pingpong));
    if (err < 0) return err;
    memcpy(&echoed, message, sizeof(echoed));
    return echoed == seq ? 0 : -EBADMSG;
}

static void *ping_thread(void *context)
{
    struct pingpong *pingpong = context;
    const struct limit_pingpong_options *options = pingpong->options;
    int fd = pingpong->wiring->client_fds[0];
    uint8_t *message = pingpong->memory + PINGPONG_BYTES_MAX;
    int err = cpus_pin((uint16_t)options->client_cpu);
    uint64_t seq = 0;
    while (err == 0 && seq < options->messages_warmup) err = ping(pingpong, message, ++seq);
    uint64_t before_ns = clock_now_ns();
    for (uint64_t i = 0; err == 0 && i < options->messages; i++) {
        err = ping(pingpong, message, ++seq);
        uint64_t now_ns = clock_now_ns();
        histogram_record(pingpong->histogram, now_ns - before_ns);
        before_ns = now_ns;
    }
    if (err < 0) limit_hang_up(&fd, 1);
    pingpong->client_err = err;
    return NULL;
}

void limit_pingpong_options_init(struct limit_pingpong_options *options)
{
    *options =
        (struct limit_pingpong_options){.server_cpu = LIMIT_CPU_ANY, .client_cpu = LIMIT_CPU_ANY};
}

int limit_pingpong(const struct limit_pingpong_options *given, struct histogram *histogram)
{
    struct limit_pingpong_options options = *given;
    if (options.bytes == 0) options.bytes = 128;
    if (options.messages == 0) options.messages = 100000;
    if (options.messages_warmup == 0) options.messages_warmup = 20000;
    if (options.wait == LIMIT_WAIT_BEST) options.wait = LIMIT_WAIT_SPIN;
    limit_sides_choose_cpus(&options.server_cpu, &options.client_cpu, &options.wait);
    if (options.bytes < sizeof(uint64_t) || options.bytes > PINGPONG_BYTES_MAX) return -EINVAL;

    struct limit_wiring wiring;
    int err = limit_wiring_init(&wiring, 1, 0);
    if (err < 0) return err;
    struct pingpong pingpong = {.options = &options, .wiring = &wiring, .histogram = histogram};
    pingpong.memory = memory_take(2 * PINGPONG_BYTES_MAX);
    err = pingpong.memory == NULL
              ? -ENOMEM
              : limit_sides_run(pong_thread, &pingpong, ping_thread, &pingpong, &wiring);
    if (err == 0) err = limit_sides_error(pingpong.server_err, pingpong.client_err);
    memory_put(pingpong.memory);
    limit_wiring_deinit(&wiring);
    return err;
}
