#include "tests/sim/fiber.h"

#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/memory.h"

/* An INFO is written on the stack, and sanitizers need more of it. Only what is touched is used. */
#define STACK_BYTES (2 * MIB)

/* makecontext passes ints only. */
static struct fiber *fiber_started;

static void run(void)
{
    struct fiber *fiber = fiber_started;
    fiber->function(fiber->context);
    fiber->is_over = true;
}

void fiber_open(struct fiber *fiber, fiber_fn function, void *context)
{
    *fiber = (struct fiber){.function = function, .context = context};
    fiber->stack = memory_reserve(STACK_BYTES, 0);
    ASSERT(fiber->stack != NULL);
    ASSERT(getcontext(&fiber->here) == 0);
    fiber->here.uc_stack.ss_sp = fiber->stack;
    fiber->here.uc_stack.ss_size = STACK_BYTES;
    fiber->here.uc_link = &fiber->resumer;
    makecontext(&fiber->here, run, 0);
}

void fiber_close(struct fiber *fiber)
{
    memory_release(fiber->stack, STACK_BYTES);
    fiber->stack = NULL;
}

void fiber_resume(struct fiber *fiber)
{
    ASSERT(!fiber->is_over);
    fiber_started = fiber;
    ASSERT(swapcontext(&fiber->resumer, &fiber->here) == 0);
}

void fiber_pause(struct fiber *fiber)
{
    ASSERT(swapcontext(&fiber->here, &fiber->resumer) == 0);
}
