#include "shard/greeting.h"

static void refuse(struct greeting *greeting, enum reply_error error, uint64_t got, uint64_t limit,
                   const char *text)
{
    greeting->action = GREETING_REFUSE;
    greeting->refusal = (struct refusal){error, got, limit, text};
}

void greeting_decide(struct greeting *greeting, const struct greeting_node *node, const void *frame,
                     size_t length)
{
    struct frame_prefix prefix;
    struct bytes token;
    memcpy(&prefix, frame, sizeof prefix);
    greeting->action = GREETING_DENY;
    greeting->is_known = false;
    if (prefix.type != FRAME_HELLO) {
        refuse(greeting, ERROR_PROTOCOL, prefix.type, FRAME_HELLO, "the first frame must be HELLO");
        return;
    }
    if (hello_decode(&greeting->hello, &token, frame, length, &greeting->refusal) < 0) {
        greeting->action = GREETING_REFUSE;
        return;
    }
    const struct frame_hello *hello = &greeting->hello;
    greeting->is_known = node->token == NULL || secret_equals(node->token, token);
    if (!greeting->is_known) return;
    if (hello->role != ROLE_CLIENT) {
        refuse(greeting, ERROR_UNSUPPORTED, hello->role, ROLE_CLIENT,
               "links between nodes are not supported yet");
    } else if (node->stopping) {
        refuse(greeting, ERROR_CLOSED, 0, 0, "the node is stopping");
    } else if (hello->cluster != 0 && hello->cluster != node->cluster) {
        refuse(greeting, ERROR_DENIED, hello->cluster, node->cluster, "another cluster");
    } else if (hello->shard != HELLO_SHARD_ANY && hello->shard >= node->shards_count) {
        refuse(greeting, ERROR_INVALID, hello->shard, node->shards_count - 1,
               "no such shard: the last one is");
    } else {
        greeting->shard = hello->shard != HELLO_SHARD_ANY ? hello->shard : node->shard_any;
        greeting->action = greeting->shard == node->shard ? GREETING_WELCOME : GREETING_HAND_OVER;
    }
}
