/*
 * Operations: what fero_wait waits for. They come from a slab that grows by blocks and is never
 * given back before the last of them, so that an operation may be freed after its client stopped.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "fero.h"

#define OPS_BLOCK_COUNT 64
#define OPS_BLOCKS_MAX 1024

struct client;
struct host;
struct ops;

struct fero_op {
    struct ops *ops;
    uint32_t number; /* from 1 on, for life */
    bool is_done;
    bool is_freed; /* by the caller, before it was done */
    fero_result result;
    uint8_t *value; /* a copy of the result's, kept for the next use */
    size_t value_capacity;
    struct fero_op *next_free;
};

struct ops {
    struct client *client; /* whose they are: a client's, */
    struct host *host;     /* or a thread's of a server */
    bool is_left;          /* by those: all that were not done have ended */
    struct fero_op *blocks[OPS_BLOCKS_MAX];
    uint32_t blocks_count;
    uint32_t taken_count;
    struct fero_op *free;
};

/* NULL: no memory. */
struct ops *ops_make(void);
/* Their owner has stopped: gives the memory back now, or with the last operation. */
void ops_leave(struct ops *ops);
/* A fresh operation, or NULL: no memory, or OPS_BLOCKS_MAX blocks are in use. */
struct fero_op *ops_take(struct ops *ops);
void ops_put(struct fero_op *op);
struct fero_op *ops_at(const struct ops *ops, uint32_t number);
/* It ended like this. The value is copied; without memory for it the error says so. */
void op_finish(struct fero_op *op, const fero_result *result);
