#include "engine/ops.h"

#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"

struct ops *ops_make(void)
{
    return memory_take(sizeof(struct ops));
}

static void ops_free(struct ops *ops)
{
    for (uint32_t i = 0; i < ops->blocks_count; i++) {
        for (uint32_t j = 0; j < OPS_BLOCK_COUNT; j++) memory_put(ops->blocks[i][j].value);
        memory_put(ops->blocks[i]);
    }
    memory_put(ops);
}

void ops_leave(struct ops *ops)
{
    if (ops == NULL) return;
    ops->is_left = true;
    if (ops->taken_count == 0) ops_free(ops);
}

static bool grow(struct ops *ops)
{
    if (ops->blocks_count == OPS_BLOCKS_MAX) return false;
    struct fero_op *block = memory_take(OPS_BLOCK_COUNT * sizeof *block);
    if (block == NULL) return false;
    for (uint32_t i = OPS_BLOCK_COUNT; i-- > 0;) {
        block[i].ops = ops;
        block[i].number = ops->blocks_count * OPS_BLOCK_COUNT + i + 1;
        block[i].next_free = ops->free;
        ops->free = &block[i];
    }
    ops->blocks[ops->blocks_count++] = block;
    return true;
}

struct fero_op *ops_take(struct ops *ops)
{
    if (ops->free == NULL && !grow(ops)) return NULL;
    struct fero_op *op = ops->free;
    ops->free = op->next_free;
    ops->taken_count++;
    op->is_done = false;
    op->is_freed = false;
    op->next_free = NULL;
    op->result = (fero_result){0};
    return op;
}

void ops_put(struct fero_op *op)
{
    struct ops *ops = op->ops;
    ASSERT(ops->taken_count > 0);
    ops->taken_count--;
    op->next_free = ops->free;
    ops->free = op;
    if (ops->is_left && ops->taken_count == 0) ops_free(ops);
}

struct fero_op *ops_at(const struct ops *ops, uint32_t number)
{
    uint32_t index = number - 1;
    ASSERT(number > 0 && index / OPS_BLOCK_COUNT < ops->blocks_count);
    return &ops->blocks[index / OPS_BLOCK_COUNT][index % OPS_BLOCK_COUNT];
}

static bool copy_value(struct fero_op *op, fero_slice value)
{
    if (op->value_capacity < value.len) {
        uint8_t *larger = memory_take(round_up(value.len, 256));
        if (larger == NULL) return false;
        memory_put(op->value);
        op->value = larger;
        op->value_capacity = round_up(value.len, 256);
    }
    memcpy(op->value, value.ptr, value.len);
    op->result.value.s.ptr = op->value;
    return true;
}

void op_finish(struct fero_op *op, const fero_result *result)
{
    ASSERT(!op->is_done);
    if (op->is_freed) {
        ops_put(op);
        return;
    }
    op->result = *result;
    op->is_done = true;
    if (result->value.s.len == 0 || copy_value(op, result->value.s)) return;
    op->result.value = (fero_val){0};
    op->result.error = FERO_E_NOMEM;
}
