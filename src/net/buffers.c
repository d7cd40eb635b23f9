#include "net/buffers.h"

#include <errno.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"

#define PAGE_BYTES ((size_t)4096)
/* The fewest that are in use: 1 MiB of the usual size, which stays in a core's cache. */
#define WANTED_MIN 8u
/* Times published without running out, after which fewer are. */
#define CALM_MAX 4096

static int memory_open(struct buffers *buffers, const struct buffers_options *options)
{
    size_t ring_bytes = round_up(options->count * sizeof(struct io_uring_buf), PAGE_BYTES);
    *buffers = (struct buffers){
        .stride = round_up((size_t)options->headroom_bytes + options->data_bytes, CACHE_LINE),
        .count = options->count,
        .data_bytes = options->data_bytes,
        .group = options->group,
    };
    buffers->memory_bytes = ring_bytes + options->count * buffers->stride;
    buffers->wanted = (uint32_t)min_u64(options->count, WANTED_MIN);
    buffers->order = memory_take(2 * options->count * sizeof *buffers->order);
    if (buffers->order == NULL) return -ENOMEM;
    buffers->spare = buffers->order + options->count;
    buffers->ring = memory_reserve(buffers->memory_bytes, 1);
    if (buffers->ring == NULL) {
        memory_put(buffers->order);
        buffers->order = NULL;
        return -ENOMEM;
    }
    buffers->first = (uint8_t *)buffers->ring + ring_bytes + options->headroom_bytes;
    return 0;
}

int buffers_open(struct buffers *buffers, const struct buffers_options *options,
                 struct io_uring *uring)
{
    ASSERT(is_power_of_two(options->count));
    ASSERT(options->count <= BUFFERS_COUNT_MAX);
    ASSERT(options->data_bytes > 0);
    int err = memory_open(buffers, options);
    if (err < 0) return err;
    struct io_uring_buf_reg registration = {
        .ring_addr = (uint64_t)(uintptr_t)buffers->ring,
        .ring_entries = options->count,
        .bgid = options->group,
    };
    err = io_uring_register_buf_ring(uring, &registration, 0);
    if (err < 0) {
        buffers_close(buffers);
        return err;
    }
    for (uint32_t i = options->count; i > 0; i--)
        buffers->spare[buffers->spare_count++] = (uint16_t)(i - 1);
    buffers_publish(buffers);
    return 0;
}

void buffers_close(struct buffers *buffers)
{
    if (buffers->ring == NULL) return;
    memory_release(buffers->ring, buffers->memory_bytes);
    memory_put(buffers->order);
    *buffers = (struct buffers){0};
}

uint16_t buffers_next(const struct buffers *buffers, uint16_t buffer)
{
    uint32_t entry = (buffers->order[buffer] + 1u) & (buffers->count - 1);
    return buffers->ring->bufs[entry].bid;
}

static void provide(struct buffers *buffers, uint16_t buffer)
{
    uint32_t entry = buffers->tail & (buffers->count - 1);
    struct io_uring_buf *provided = &buffers->ring->bufs[entry];
    /* Member by member: the ring's tail lies in what is left of entry 0. */
    provided->addr = (uint64_t)(uintptr_t)buffers_data(buffers, buffer);
    provided->len = buffers->data_bytes;
    provided->bid = buffer;
    buffers->order[buffer] = (uint16_t)entry;
    buffers->tail++;
}

void buffers_put(struct buffers *buffers, uint16_t buffer)
{
    ASSERT(buffer < buffers->count);
    buffers->spare[buffers->spare_count++] = buffer;
}

void buffers_need_more(struct buffers *buffers)
{
    buffers->wanted = (uint32_t)min_u64(buffers->count, buffers->wanted * 2);
    buffers->calm = 0;
}

void buffers_publish(struct buffers *buffers)
{
    if (buffers->ring == NULL) return;
    if (++buffers->calm > CALM_MAX) {
        buffers->wanted =
            (uint32_t)max_u64(buffers->wanted / 2, min_u64(buffers->count, WANTED_MIN));
        buffers->calm = 0;
    }
    while (buffers->spare_count > 0 && buffers->count - buffers->spare_count < buffers->wanted)
        provide(buffers, buffers->spare[--buffers->spare_count]);
    if (buffers->ring->tail != buffers->tail)
        io_uring_smp_store_release(&buffers->ring->tail, buffers->tail);
}
