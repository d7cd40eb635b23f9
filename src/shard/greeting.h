/*
 * How a link begins, as a pure state machine: a HELLO comes in, what to do comes out.
 */
#pragma once

#include <stdint.h>

#include "base/secret.h"
#include "wire/hello.h"

enum greeting_action {
    GREETING_WELCOME,   /* this shard speaks on the link */
    GREETING_HAND_OVER, /* to `shard` */
    GREETING_REFUSE,    /* with `refusal` */
    GREETING_DENY       /* it has not shown the node's token, and is told nothing */
};

struct greeting {
    enum greeting_action action;
    bool is_known; /* it has shown the token, or need not */
    uint32_t shard;
    struct frame_hello hello;
    struct refusal refusal;
};

/* What a node knows of itself when it greets. */
struct greeting_node {
    uint32_t shard; /* that reads the HELLO */
    uint32_t shards_count;
    uint32_t shard_any; /* for callers that want any */
    uint64_t cluster;
    bool stopping;
    const struct secret *token; /* that callers must show; NULL: none, or this one has shown it */
};

/* Decides on one whole frame that should be a HELLO. */
void greeting_decide(struct greeting *greeting, const struct greeting_node *node, const void *frame,
                     size_t length);
