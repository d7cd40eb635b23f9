/*
 * A fiber: a function with a stack of its own that can stop in the middle and go on later, all in
 * one thread. So the loops of a node and of a client run as they are, and where they would block in
 * the kernel, somebody else's turn comes.
 */
#pragma once

#include <stdbool.h>
#include <ucontext.h>

typedef void (*fiber_fn)(void *context);

struct fiber {
    ucontext_t here;
    ucontext_t resumer;
    void *stack;
    fiber_fn function;
    void *context;
    bool is_over;
};

/* Nothing runs before the first fiber_resume. */
void fiber_open(struct fiber *fiber, fiber_fn function, void *context);
void fiber_close(struct fiber *fiber);
/* Lets it run until it pauses or is over. */
void fiber_resume(struct fiber *fiber);
/* Called inside: goes back to whoever resumed it. */
void fiber_pause(struct fiber *fiber);
