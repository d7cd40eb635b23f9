/*
 * Decoders of the control frames. Nothing in a frame is believed: each first takes the fixed part,
 * then asks one question after the other, and the first answer that is wrong becomes the refusal.
 * The version is asked before the length, so that a peer of another version hears of that.
 */
#include "wire/hello.h"

#include <errno.h>

#include "base/assert.h"
#include "wire/check.h"

#define TOKEN_BYTES_MAX 256
#define SHARDS_COUNT_MAX 1024
#define SLOTS_COUNT_MAX 16384
#define REFUSE_TEXT_BYTES_MAX (REFUSE_BYTES_MAX - sizeof(struct frame_refuse))
_Static_assert(REFUSE_BYTES_MAX % FRAME_ALIGNMENT == 0, "the longest text needs no padding");

/* ------------------------------------------------------------------------------- questions */

/* Refuses with the power of two below. */
static bool is_slots_count(struct refusal *refusal, const char *field, uint64_t got)
{
    if (!is_between(refusal, field, got, 1, SLOTS_COUNT_MAX)) return false;
    return is_equal(refusal, field, got, (uint64_t)1 << (63 - __builtin_clzll(got)));
}

/*
 * Bytes of the UTF-8 character at `at`: 0 where there is none, where it is not in its shortest
 * form, is a surrogate or beyond U+10FFFF, and also where it is a control character (U+0000 to
 * U+001F, U+007F to U+009F): names and texts are shown on terminals.
 */
static size_t character_bytes(const uint8_t *at, size_t left)
{
    static const uint32_t least[] = {0, 0, 0xa0, 0x800, 0x10000};
    if (at[0] < 0x80) return at[0] >= 0x20 && at[0] != 0x7f;
    size_t bytes = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
    if (at[0] < 0xc0 || at[0] > 0xf7 || bytes > left) return 0;
    uint32_t character = at[0] & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0;
        character = character << 6 | (at[i] & 0x3fu);
    }
    if (character < least[bytes] || character > 0x10ffff) return 0;
    return character >= 0xd800 && character <= 0xdfff ? 0 : bytes;
}

/* Where the first bad character is; `text.size` where there is none. */
static size_t first_bad_character(struct bytes text)
{
    const uint8_t *data = text.data;
    size_t at = 0;
    while (at < text.size) {
        size_t bytes = character_bytes(data + at, text.size - at);
        if (bytes == 0) return at;
        at += bytes;
    }
    return at;
}

static bool is_name(struct refusal *refusal, const char *size_field, const char *text_field,
                    struct bytes name)
{
    if (!is_between(refusal, size_field, name.size, 1, FRAME_NAME_BYTES_MAX)) return false;
    return is_equal(refusal, text_field, first_bad_character(name), name.size);
}

bool name_is_valid(struct bytes name)
{
    struct refusal unused;
    return is_name(&unused, "", "", name);
}

/* -------------------------------------------------------------------------------- decoders */

/* What HELLO begins with in every version, whatever follows. */
struct hello_head {
    struct frame_prefix prefix;
    uint32_t magic;
};

static bool is_our_version(struct refusal *refusal, const void *data, size_t length)
{
    struct hello_head head;
    return take_fixed(&head, sizeof head, FRAME_HELLO, data, length, refusal) &&
           is_equal(refusal, "HELLO magic", head.magic, HELLO_MAGIC) &&
           is_equal(refusal, "protocol version", head.prefix.small, FRAME_VERSION);
}

int hello_decode(struct frame_hello *hello, struct bytes *token, const void *data, size_t length,
                 struct refusal *refusal)
{
    if (!is_our_version(refusal, data, length)) return -EPROTO;
    if (!take_fixed(hello, sizeof *hello, FRAME_HELLO, data, length, refusal)) return -EPROTO;
    bool is_right =
        is_equal(refusal, "HELLO flags", hello->prefix.flags, 0) &&
        is_equal(refusal, "HELLO reserved", hello->reserved, 0) &&
        is_between(refusal, "HELLO role", hello->role, ROLE_CLIENT, ROLE_NODE) &&
        (hello->frame_bytes_max == 0 ||
         is_between(refusal, "HELLO frame_bytes_max", hello->frame_bytes_max, HELLO_FRAME_BYTES_MIN,
                    UINT32_MAX)) &&
        is_between(refusal, "HELLO token_bytes", hello->token_bytes, 0, TOKEN_BYTES_MAX) &&
        is_whole(refusal, length, sizeof *hello, hello->token_bytes);
    if (!is_right) return -EPROTO;
    *token = (struct bytes){(const uint8_t *)data + sizeof *hello, hello->token_bytes};
    return 0;
}

/* Every shard has slots, in the order of the shards. */
static bool are_shard_slots(struct refusal *refusal, const uint8_t *shard_slots,
                            const struct frame_welcome *welcome)
{
    uint64_t least = 0;
    for (uint32_t shard = 0; shard < welcome->shards_count; shard++) {
        uint16_t first;
        memcpy(&first, shard_slots + shard * sizeof first, sizeof first);
        uint64_t most = shard == 0 ? 0 : welcome->slots_count - 1;
        if (!is_between(refusal, "WELCOME first slot of a shard", first, least, most)) return false;
        least = (uint64_t)first + 1;
    }
    return true;
}

int welcome_decode(struct frame_welcome *welcome, const uint8_t **shard_slots, const void *data,
                   size_t length, struct refusal *refusal)
{
    struct frame_prefix prefix;
    if (!take_fixed(&prefix, sizeof prefix, FRAME_WELCOME, data, length, refusal) ||
        !is_equal(refusal, "protocol version", prefix.small, FRAME_VERSION) ||
        !take_fixed(welcome, sizeof *welcome, FRAME_WELCOME, data, length, refusal))
        return -EPROTO;
    bool is_right =
        is_equal(refusal, "WELCOME flags", welcome->prefix.flags, 0) &&
        is_equal(refusal, "WELCOME reserved", welcome->reserved | welcome->reserved2, 0) &&
        is_between(refusal, "WELCOME shards_count", welcome->shards_count, 1, SHARDS_COUNT_MAX) &&
        is_between(refusal, "WELCOME shard", welcome->shard, 0, welcome->shards_count - 1u) &&
        is_slots_count(refusal, "WELCOME slots_count", welcome->slots_count) &&
        is_between(refusal, "WELCOME window_requests", welcome->window_requests, 1, UINT32_MAX) &&
        is_between(refusal, "WELCOME window_bytes", welcome->window_bytes, 1, UINT64_MAX) &&
        is_between(refusal, "WELCOME frame_bytes_max", welcome->frame_bytes_max,
                   FRAME_REQUEST_BYTES, FRAME_BYTES_MAX) &&
        is_between(refusal, "WELCOME key_bytes_max", welcome->key_bytes_max, 1,
                   FRAME_KEY_BYTES_MAX) &&
        is_between(refusal, "WELCOME value_bytes_max", welcome->value_bytes_max, 1,
                   FRAME_BYTES_MAX) &&
        is_whole(refusal, length, sizeof *welcome, welcome->shards_count * sizeof(uint16_t));
    if (!is_right) return -EPROTO;
    *shard_slots = (const uint8_t *)data + sizeof *welcome;
    return are_shard_slots(refusal, *shard_slots, welcome) ? 0 : -EPROTO;
}

int open_decode(struct frame_open *open, struct bytes *name, const void *data, size_t length,
                struct refusal *refusal)
{
    if (!take_fixed(open, sizeof *open, FRAME_OPEN, data, length, refusal) ||
        !is_equal(refusal, "OPEN flags", open->prefix.flags, 0) ||
        !is_equal(refusal, "OPEN reserved", open->reserved, 0) ||
        !is_whole(refusal, length, sizeof *open, open->prefix.small))
        return -EPROTO;
    *name = (struct bytes){(const uint8_t *)data + sizeof *open, open->prefix.small};
    return is_name(refusal, "OPEN bytes of the name",
                   "OPEN name: no UTF-8, or a control character, at byte", *name)
               ? 0
               : -EPROTO;
}

static bool are_verbs(struct refusal *refusal, struct bytes verbs, uint32_t verbs_count)
{
    bool is_taken[UINT8_MAX + 1] = {false};
    uint32_t count = 0;
    uint8_t type;
    struct bytes name;
    while (opened_verb_next(&verbs, &type, &name)) {
        if (!is_between(refusal, "OPENED type of a verb", type, FRAME_VERB_FIRST, UINT8_MAX) ||
            !is_equal(refusal, "OPENED verbs of one type", 1u + is_taken[type], 1) ||
            !is_name(refusal, "OPENED bytes of a verb's name",
                     "OPENED verb: no UTF-8, or a control character, at byte", name))
            return false;
        is_taken[type] = true;
        count++;
    }
    return is_equal(refusal, "OPENED bytes behind the last verb", verbs.size, 0) &&
           is_equal(refusal, "OPENED verbs_count", verbs_count, count);
}

int opened_decode(struct frame_opened *opened, struct bytes *verbs, const void *data, size_t length,
                  struct refusal *refusal)
{
    if (!take_fixed(opened, sizeof *opened, FRAME_OPENED, data, length, refusal) ||
        !is_equal(refusal, "OPENED flags", opened->prefix.flags, 0) ||
        !is_equal(refusal, "OPENED reserved", opened->reserved, 0) ||
        !is_between(refusal, "OPENED outcome", reply_outcome(opened->prefix.small), OUTCOME_OK,
                    OUTCOME_UNKNOWN))
        return -EPROTO;
    /* Where the cache was not opened, its fields say nothing. */
    if (reply_outcome(opened->prefix.small) == OUTCOME_OK &&
        !is_slots_count(refusal, "OPENED slots_count", opened->slots_count))
        return -EPROTO;
    *verbs = (struct bytes){(const uint8_t *)data + sizeof *opened, length - sizeof *opened};
    return are_verbs(refusal, *verbs, opened->verbs_count) ? 0 : -EPROTO;
}

bool opened_verb_next(struct bytes *verbs, uint8_t *type, struct bytes *name)
{
    const uint8_t *item = verbs->data;
    if (verbs->size < 2 || verbs->size - 2 < item[1]) return false;
    *type = item[0];
    *name = (struct bytes){item + 2, item[1]};
    *verbs = (struct bytes){item + 2 + item[1], verbs->size - 2 - item[1]};
    return true;
}

int ack_decode(struct frame_ack *ack, const void *data, size_t length, struct refusal *refusal)
{
    bool is_right = take_fixed(ack, sizeof *ack, FRAME_ACK, data, length, refusal) &&
                    is_equal(refusal, "ACK flags", ack->prefix.flags, 0) &&
                    is_equal(refusal, "ACK reserved", ack->prefix.small, 0) &&
                    is_whole(refusal, length, sizeof *ack, 0);
    return is_right ? 0 : -EPROTO;
}

int refuse_decode(struct frame_refuse *refuse, struct bytes *text, const void *data, size_t length)
{
    struct refusal unused;
    if (!take_fixed(refuse, sizeof *refuse, FRAME_REFUSE, data, length, &unused)) return -EPROTO;
    *text = (struct bytes){(const uint8_t *)data + sizeof *refuse, length - sizeof *refuse};
    /* The link ends here anyway: a text that is not fit to be shown is left out. */
    if (first_bad_character(*text) != text->size) text->size = 0;
    return 0;
}

/* -------------------------------------------------------------------------------- encoders */

/* Writes fixed part, tail and padding; `fixed` begins with the prefix, which is completed here. */
static size_t put_frame(void *data, void *fixed, size_t fixed_bytes, enum frame_type type,
                        struct bytes tail)
{
    uint8_t *bytes = data;
    struct frame_prefix *prefix = fixed;
    size_t length = fixed_bytes + tail.size;
    ASSERT(length <= FRAME_BYTES_MAX);
    prefix->length = (uint32_t)length;
    prefix->type = (uint8_t)type;
    prefix->flags = 0;
    memcpy(bytes, fixed, fixed_bytes);
    if (tail.size > 0) memcpy(bytes + fixed_bytes, tail.data, tail.size);
    memset(bytes + length, 0, round_up_8(length) - length);
    return round_up_8(length);
}

size_t hello_encode(struct frame_hello *hello, struct bytes token, void *data)
{
    ASSERT(token.size <= TOKEN_BYTES_MAX);
    hello->prefix.small = FRAME_VERSION;
    hello->magic = HELLO_MAGIC;
    hello->reserved = 0;
    hello->token_bytes = (uint32_t)token.size;
    return put_frame(data, hello, sizeof *hello, FRAME_HELLO, token);
}

size_t welcome_encode(struct frame_welcome *welcome, const uint16_t *shard_slots, void *data)
{
    ASSERT(welcome->shards_count > 0 && welcome->shards_count <= SHARDS_COUNT_MAX);
    welcome->prefix.small = FRAME_VERSION;
    welcome->reserved = 0;
    welcome->reserved2 = 0;
    struct bytes tail = {shard_slots, welcome->shards_count * sizeof *shard_slots};
    return put_frame(data, welcome, sizeof *welcome, FRAME_WELCOME, tail);
}

size_t open_encode(uint32_t seq, struct bytes name, void *data)
{
    ASSERT(name.size > 0 && name.size <= FRAME_NAME_BYTES_MAX);
    struct frame_open open = {.prefix.small = (uint16_t)name.size, .seq = seq};
    return put_frame(data, &open, sizeof open, FRAME_OPEN, name);
}

size_t opened_encode(struct frame_opened *opened, struct bytes verbs, void *data)
{
    opened->reserved = 0;
    return put_frame(data, opened, sizeof *opened, FRAME_OPENED, verbs);
}

size_t ack_encode(uint32_t seq, uint32_t requests, uint64_t consumed_bytes, void *data)
{
    struct frame_ack ack = {.seq = seq, .requests = requests, .consumed_bytes = consumed_bytes};
    return put_frame(data, &ack, sizeof ack, FRAME_ACK, (struct bytes){NULL, 0});
}

size_t refuse_encode(const struct refusal *refusal, void *data)
{
    struct frame_refuse frame = {
        .prefix.small = (uint16_t)refusal->error, .got = refusal->got, .limit = refusal->limit};
    struct bytes text = bytes_of(refusal->text);
    if (text.size > REFUSE_TEXT_BYTES_MAX) text.size = REFUSE_TEXT_BYTES_MAX;
    return put_frame(data, &frame, sizeof frame, FRAME_REFUSE, text);
}
