#include "wire/hello.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"

#define FRAME_ROOM 4096

/* A frame and its length without the padding. */
struct sample {
    uint8_t bytes[FRAME_ROOM];
    size_t length;
};

/* One frame of any control type, decoded. */
struct decoded {
    union {
        struct frame_prefix prefix;
        struct frame_hello hello;
        struct frame_welcome welcome;
        struct frame_open open;
        struct frame_opened opened;
        struct frame_ack ack;
        struct frame_refuse refuse;
    };
    struct bytes tail;
    struct refusal refusal;
};

/* Decodes a copy in a block of its own size, so that a sanitizer sees a read past its end. */
static int decode(struct decoded *decoded, unsigned type, const void *data, size_t length)
{
    static uint8_t *copy;
    free(copy); /* the tail points into it until the next call */
    copy = malloc(length > 0 ? length : 1);
    assert_non_null(copy);
    memcpy(copy, data, length);
    struct refusal *refusal = &decoded->refusal;
    const uint8_t *slots = NULL;
    int result;
    memset(decoded, 0, sizeof *decoded);
    switch (type) {
    case FRAME_HELLO: return hello_decode(&decoded->hello, &decoded->tail, copy, length, refusal);
    case FRAME_WELCOME:
        result = welcome_decode(&decoded->welcome, &slots, copy, length, refusal);
        decoded->tail = (struct bytes){slots, decoded->welcome.shards_count * sizeof(uint16_t)};
        return result;
    case FRAME_OPEN: return open_decode(&decoded->open, &decoded->tail, copy, length, refusal);
    case FRAME_OPENED:
        return opened_decode(&decoded->opened, &decoded->tail, copy, length, refusal);
    case FRAME_ACK: return ack_decode(&decoded->ack, copy, length, refusal);
    case FRAME_REFUSE:
        refusal->text = "REFUSE has no refusal";
        return refuse_decode(&decoded->refuse, &decoded->tail, copy, length);
    default: fail(); return 0;
    }
}

/* Encodes what was decoded. */
static size_t encode(struct decoded *decoded, uint8_t *data)
{
    uint16_t slots[1024];
    switch (decoded->prefix.type) {
    case FRAME_HELLO: return hello_encode(&decoded->hello, decoded->tail, data);
    case FRAME_WELCOME:
        memcpy(slots, decoded->tail.data, decoded->tail.size);
        return welcome_encode(&decoded->welcome, slots, data);
    case FRAME_OPEN: return open_encode(decoded->open.seq, decoded->tail, data);
    case FRAME_OPENED: return opened_encode(&decoded->opened, decoded->tail, data);
    case FRAME_ACK:
        return ack_encode(decoded->ack.seq, decoded->ack.requests, decoded->ack.consumed_bytes,
                          data);
    default: fail(); return 0;
    }
}

static struct frame_hello a_hello(void)
{
    return (struct frame_hello){.shard = 1,
                                .role = ROLE_CLIENT,
                                .session = 0x1122334455667788,
                                .session_start = 0x0102030405060708,
                                .seq_first = 0x100000001,
                                .floor = 0xfffffff0,
                                .cluster = 0xc1,
                                .view = 2,
                                .frame_bytes_max = 1 << 20};
}

static struct frame_welcome a_welcome(void)
{
    return (struct frame_welcome){.cluster = 0xc1,
                                  .node = 0x0de,
                                  .view = 3,
                                  .view_proposer = 0x0df,
                                  .session_floor = 0x100000000,
                                  .incarnation = 4,
                                  .shard = 2,
                                  .shards_count = 3,
                                  .slots_count = 4096,
                                  .window_requests = 16384,
                                  .window_bytes = 4 << 20,
                                  .frame_bytes_max = 1 << 21,
                                  .key_bytes_max = 1024,
                                  .value_bytes_max = 1 << 20};
}

static const uint16_t three_shards[] = {0, 1366, 2731};
static const char two_verbs[] = "\x40\x04"
                                "push"
                                "\x41\x03"
                                "pop";

/* One sample of each type; all but REFUSE. */
#define SAMPLES_COUNT 5

static size_t make_sample(struct sample *sample, unsigned number)
{
    struct frame_hello hello = a_hello();
    struct frame_welcome welcome = a_welcome();
    struct frame_opened opened = {.seq = 9, .cache = 1, .verbs_count = 2, .slots_count = 4096};
    struct bytes verbs = {two_verbs, sizeof two_verbs - 1};
    size_t padded = 0;
    memset(sample->bytes, 0xee, sizeof sample->bytes);
    switch (number) {
    case 0: padded = hello_encode(&hello, bytes_of("secret"), sample->bytes); break;
    case 1: padded = welcome_encode(&welcome, three_shards, sample->bytes); break;
    case 2: padded = open_encode(9, bytes_of("users"), sample->bytes); break;
    case 3: padded = opened_encode(&opened, verbs, sample->bytes); break;
    case 4: padded = ack_encode(10, 11, 12, sample->bytes); break;
    default: fail();
    }
    uint32_t length;
    memcpy(&length, sample->bytes, sizeof length);
    sample->length = length;
    return padded;
}

/* Writes the low `bytes` of `value` into the frame. */
static void patch(struct sample *sample, size_t at, uint64_t value, size_t bytes)
{
    memcpy(sample->bytes + at, &value, bytes);
}

static void set_length(struct sample *sample, size_t length)
{
    sample->length = length;
    patch(sample, 0, length, 4);
}

/* --------------------------------------------------------------------------------- layout */

static void hello_has_the_documented_bytes(void **unused)
{
    (void)unused;
    static const uint8_t expected[] = {
        0x4b, 0,    0,    0,    1,    0,    1,    0,    /* 75 bytes, HELLO, version 1 */
        'F',  'E',  'R',  'O',  0xff, 0xff, 1,    0,    /* any shard, client */
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, /* session */
        2,    0,    0,    0,    0,    0,    0,    0,    /* its start */
        3,    0,    0,    0,    0,    0,    0,    0,    /* first number */
        4,    0,    0,    0,    0,    0,    0,    0,    /* floor */
        5,    0,    0,    0,    0,    0,    0,    0,    /* cluster */
        6,    0,    0,    0,    0,    0,    0,    0,    /* view */
        0,    0,    0x10, 0,    3,    0,    0,    0,    /* 1 MiB, 3 bytes of token */
        'a',  'b',  'c',  0,    0,    0,    0,    0};
    struct frame_hello hello = {.shard = HELLO_SHARD_ANY,
                                .role = ROLE_CLIENT,
                                .session = 0x1122334455667788,
                                .session_start = 2,
                                .seq_first = 3,
                                .floor = 4,
                                .cluster = 5,
                                .view = 6,
                                .frame_bytes_max = 1 << 20};
    uint8_t bytes[sizeof hello + 3 + 7];
    assert_int_equal(hello_encode(&hello, bytes_of("abc"), bytes), sizeof expected);
    assert_memory_equal(bytes, expected, sizeof expected);
}

static void opened_has_the_documented_bytes(void **unused)
{
    (void)unused;
    static const uint8_t expected[] = {
        0x1d, 0,    0,   0,   4,   0, 0, 0, /* 29 bytes, OPENED, OK */
        9,    0,    0,   0,   1,   0, 1, 0, /* seq, cache, one verb */
        0,    0x10, 0,   0,   0,   0, 0, 0, /* 4096 slots */
        64,   3,    'p', 'o', 'p', 0, 0, 0};
    struct frame_opened opened = {.seq = 9, .cache = 1, .verbs_count = 1, .slots_count = 4096};
    uint8_t bytes[sizeof expected + 7];
    size_t padded = opened_encode(&opened, (struct bytes){"\x40\x03pop", 5}, bytes);
    assert_int_equal(padded, sizeof expected);
    assert_memory_equal(bytes, expected, sizeof expected);
}

static void frames_are_padded_with_zeros(void **unused)
{
    (void)unused;
    struct sample sample;
    char name[] = "abcdefghijklmnop";
    for (size_t bytes = 1; bytes < sizeof name; bytes++) {
        memset(sample.bytes, 0xee, sizeof sample.bytes);
        size_t padded = open_encode(1, (struct bytes){name, bytes}, sample.bytes);
        assert_int_equal(padded, round_up_8(sizeof(struct frame_open) + bytes));
        for (size_t i = sizeof(struct frame_open) + bytes; i < padded; i++)
            assert_int_equal(sample.bytes[i], 0);
        assert_int_equal(sample.bytes[padded], 0xee);
    }
}

/* ------------------------------------------------------------------------------ round trip */

static void what_is_encoded_is_decoded(void **unused)
{
    (void)unused;
    for (unsigned number = 0; number < SAMPLES_COUNT; number++) {
        struct sample sample;
        struct sample again;
        struct decoded decoded;
        size_t padded = make_sample(&sample, number);
        assert_int_equal(padded, round_up_8(sample.length));
        assert_int_equal(decode(&decoded, sample.bytes[4], sample.bytes, sample.length), 0);
        assert_int_equal(encode(&decoded, again.bytes), padded);
        assert_memory_equal(again.bytes, sample.bytes, padded);
    }
}

static void decoded_fields_are_those_encoded(void **unused)
{
    (void)unused;
    struct sample sample;
    struct decoded decoded;
    make_sample(&sample, 0);
    assert_int_equal(decode(&decoded, FRAME_HELLO, sample.bytes, sample.length), 0);
    assert_int_equal(decoded.hello.session, 0x1122334455667788);
    assert_int_equal(decoded.hello.seq_first, 0x100000001);
    assert_true(bytes_equal(decoded.tail, bytes_of("secret")));
    make_sample(&sample, 1);
    assert_int_equal(decode(&decoded, FRAME_WELCOME, sample.bytes, sample.length), 0);
    assert_int_equal(decoded.welcome.window_bytes, 4 << 20);
    assert_memory_equal(decoded.tail.data, three_shards, sizeof three_shards);
    make_sample(&sample, 4);
    assert_int_equal(decode(&decoded, FRAME_ACK, sample.bytes, sample.length), 0);
    assert_int_equal(decoded.ack.seq, 10);
    assert_int_equal(decoded.ack.requests, 11);
    assert_int_equal(decoded.ack.consumed_bytes, 12);
}

static void verbs_of_opened_are_stepped_through(void **unused)
{
    (void)unused;
    struct bytes verbs = {two_verbs, sizeof two_verbs - 1};
    struct bytes name;
    uint8_t type;
    assert_true(opened_verb_next(&verbs, &type, &name));
    assert_int_equal(type, 64);
    assert_true(bytes_equal(name, bytes_of("push")));
    assert_true(opened_verb_next(&verbs, &type, &name));
    assert_int_equal(type, 65);
    assert_true(bytes_equal(name, bytes_of("pop")));
    assert_false(opened_verb_next(&verbs, &type, &name));
    assert_int_equal(verbs.size, 0);
}

static void most_shards_fit(void **unused)
{
    (void)unused;
    struct sample sample;
    struct decoded decoded;
    struct frame_welcome welcome = a_welcome();
    uint16_t slots[1024];
    for (unsigned i = 0; i < ARRAY_COUNT(slots); i++) slots[i] = (uint16_t)(i * 4);
    welcome.shards_count = ARRAY_COUNT(slots);
    sample.length = welcome_encode(&welcome, slots, sample.bytes);
    assert_int_equal(decode(&decoded, FRAME_WELCOME, sample.bytes, sample.length), 0);
    assert_memory_equal(decoded.tail.data, slots, sizeof slots);
}

/* ------------------------------------------------------------------------------- REFUSE */

static void refuse_carries_code_values_and_text(void **unused)
{
    (void)unused;
    struct refusal refusal = {ERROR_DENIED, 1, 2, "wrong token"};
    struct decoded decoded;
    uint8_t bytes[REFUSE_BYTES_MAX];
    assert_int_equal(refuse_encode(&refusal, bytes), 40);
    assert_int_equal(decode(&decoded, FRAME_REFUSE, bytes, 24 + 11), 0);
    assert_int_equal(decoded.refuse.prefix.small, ERROR_DENIED);
    assert_int_equal(decoded.refuse.got, 1);
    assert_int_equal(decoded.refuse.limit, 2);
    assert_true(bytes_equal(decoded.tail, bytes_of("wrong token")));
    for (size_t cut = 0; cut < 24 + 11; cut++)
        assert_int_equal(decode(&decoded, FRAME_REFUSE, bytes, cut), -EPROTO);
}

static void a_text_too_long_for_refuse_is_cut(void **unused)
{
    (void)unused;
    char text[REFUSE_BYTES_MAX + 100];
    memset(text, 't', sizeof text);
    text[sizeof text - 1] = 0;
    struct refusal refusal = {ERROR_BUSY, 1, 2, text};
    uint8_t bytes[REFUSE_BYTES_MAX + 1];
    bytes[REFUSE_BYTES_MAX] = 0xee;
    assert_int_equal(refuse_encode(&refusal, bytes), REFUSE_BYTES_MAX);
    assert_int_equal(bytes[REFUSE_BYTES_MAX], 0xee);
}

static void a_text_unfit_for_terminals_is_left_out(void **unused)
{
    (void)unused;
    struct refusal refusal = {ERROR_BUSY, 1, 2, "red \x1b[31m"};
    struct decoded decoded;
    uint8_t bytes[REFUSE_BYTES_MAX];
    refuse_encode(&refusal, bytes);
    assert_int_equal(decode(&decoded, FRAME_REFUSE, bytes, bytes[0]), 0);
    assert_int_equal(decoded.refuse.prefix.small, ERROR_BUSY);
    assert_int_equal(decoded.tail.size, 0);
}

/* ----------------------------------------------------------------------------- refusals */

struct wrong {
    unsigned sample; /* number */
    size_t at;       /* of the field */
    size_t bytes;
    uint64_t value;
    const char *text; /* begins so */
    uint64_t limit;
};

static void wrong_fields_are_refused_by_name_and_value(void **unused)
{
    (void)unused;
    static const struct wrong cases[] = {
        {0, 4, 1, FRAME_OPEN, "type", FRAME_HELLO},
        {0, 5, 1, 1, "HELLO flags", 0},
        {0, 6, 2, 2, "protocol version", 1},
        {0, 6, 2, 0, "protocol version", 1},
        {0, 8, 4, 0x4f524547, "HELLO magic", HELLO_MAGIC},
        {0, 14, 1, 0, "HELLO role", 1},
        {0, 14, 1, 3, "HELLO role", 2},
        {0, 15, 1, 1, "HELLO reserved", 0},
        {0, 64, 4, 1, "HELLO frame_bytes_max", 4096},
        {0, 64, 4, 4095, "HELLO frame_bytes_max", 4096},
        {0, 68, 4, 257, "HELLO token_bytes", 256},
        {0, 68, 4, UINT32_MAX, "HELLO token_bytes", 256},
        {1, 5, 1, 1, "WELCOME flags", 0},
        {1, 6, 2, 9, "protocol version", 1},
        {1, 52, 2, 3, "WELCOME shard", 2},
        {1, 54, 2, 0, "WELCOME shards_count", 1},
        {1, 54, 2, 1025, "WELCOME shards_count", 1024},
        {1, 56, 4, 0, "WELCOME slots_count", 1},
        {1, 56, 4, 4095, "WELCOME slots_count", 2048},
        {1, 56, 4, 32768, "WELCOME slots_count", 16384},
        {1, 60, 4, 0, "WELCOME window_requests", 1},
        {1, 64, 8, 0, "WELCOME window_bytes", 1},
        {1, 72, 4, 23, "WELCOME frame_bytes_max", 24},
        {1, 72, 4, (16 << 20) + 1, "WELCOME frame_bytes_max", 16 << 20},
        {1, 76, 4, 0, "WELCOME key_bytes_max", 1},
        {1, 76, 4, 65536, "WELCOME key_bytes_max", 65535},
        {1, 80, 4, 0, "WELCOME value_bytes_max", 1},
        {1, 80, 4, UINT32_MAX, "WELCOME value_bytes_max", 16 << 20},
        {1, 84, 4, 1, "WELCOME reserved", 0},
        {1, 88, 8, UINT64_MAX, "WELCOME reserved", 0},
        {1, 96, 2, 1, "WELCOME first slot", 0},
        {1, 98, 2, 0, "WELCOME first slot", 1},
        {1, 98, 2, 4096, "WELCOME first slot", 4095},
        {1, 100, 2, 1366, "WELCOME first slot", 1367},
        {2, 5, 1, 0x80, "OPEN flags", 0},
        {2, 12, 4, 1, "OPEN reserved", 0},
        {3, 5, 1, 1, "OPENED flags", 0},
        {3, 6, 2, 0xc000, "OPENED outcome", 2},
        {3, 16, 4, 3, "OPENED slots_count", 2},
        {3, 20, 4, 7, "OPENED reserved", 0},
        {3, 14, 2, 1, "OPENED verbs_count", 2},
        {3, 14, 2, 3, "OPENED verbs_count", 2},
        {3, 24, 1, 63, "OPENED type of a verb", 64},
        {3, 25, 1, 0, "OPENED bytes of a verb", 1},
        {3, 30, 1, 64, "OPENED verbs of one type", 1},
        {3, 31, 1, 4, "OPENED bytes behind", 0},
        {3, 31, 1, 255, "OPENED bytes behind", 0},
        {4, 5, 1, 1, "ACK flags", 0},
        {4, 6, 2, 1, "ACK reserved", 0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        const struct wrong *wrong = &cases[i];
        struct sample sample;
        struct decoded decoded;
        make_sample(&sample, wrong->sample);
        unsigned type = sample.bytes[4];
        patch(&sample, wrong->at, wrong->value, wrong->bytes);
        assert_int_equal(decode(&decoded, type, sample.bytes, sample.length), -EPROTO);
        assert_int_equal(decoded.refusal.error, ERROR_PROTOCOL);
        if (strncmp(decoded.refusal.text, wrong->text, strlen(wrong->text)) != 0)
            fail_msg("case %zu: \"%s\", not \"%s\"", i, decoded.refusal.text, wrong->text);
        assert_int_equal(decoded.refusal.limit, wrong->limit);
        /* Of OPENED's code and verbs, what they lead to is named, not the bytes themselves. */
        bool is_derived = wrong->sample == 3 && (wrong->at == 6 || wrong->at > 24);
        if (!is_derived) assert_int_equal(decoded.refusal.got, wrong->value);
    }
}

static void failed_opened_need_not_say_anything(void **unused)
{
    (void)unused;
    struct frame_opened opened = {.seq = 9};
    struct decoded decoded;
    uint8_t bytes[32];
    opened.prefix.small = reply_code(OUTCOME_FAIL, ERROR_NOT_FOUND);
    size_t padded = opened_encode(&opened, (struct bytes){NULL, 0}, bytes);
    assert_int_equal(padded, 24);
    assert_int_equal(decode(&decoded, FRAME_OPENED, bytes, padded), 0);
    assert_int_equal(decoded.opened.prefix.small, 0x4007);
}

static void another_version_is_refused_whatever_its_length(void **unused)
{
    (void)unused;
    struct sample sample;
    struct decoded decoded;
    for (size_t length = 12; length < 200; length++) {
        make_sample(&sample, 0);
        patch(&sample, 6, 2, 2);
        set_length(&sample, length);
        assert_int_equal(decode(&decoded, FRAME_HELLO, sample.bytes, sample.length), -EPROTO);
        assert_string_equal(decoded.refusal.text, "protocol version");
    }
}

static void names_are_utf8_without_control_characters(void **unused)
{
    (void)unused;
    static const struct {
        const char *name;
        int bad_at; /* -1: none */
    } cases[] = {
        {"users", -1},
        {" ~", -1},
        {"gr\xc3\xb6\xc3\x9f"
         "e",
         -1},
        {"\xc2\xa0", -1},                 /* the first character behind the C1 controls */
        {"\xe2\x82\xac", -1},             /* U+20AC */
        {"\xed\x9f\xbf\xee\x80\x80", -1}, /* around the surrogates */
        {"\xf0\x9f\x98\x80", -1},         /* U+1F600 */
        {"\xf4\x8f\xbf\xbf", -1},         /* U+10FFFF */
        {"a\x1f", 1},
        {"\x7f", 0},
        {"a\nb", 1},
        {"ab\xc2\x80", 2}, /* C1 controls */
        {"ab\xc2\x9f", 2},
        {"\x80", 0}, /* no first byte */
        {"a\xbf", 1},
        {"\xc0\xaf", 0}, /* longer than needed */
        {"\xc1\xbf", 0},
        {"\xe0\x9f\xbf", 0},
        {"\xf0\x8f\xbf\xbf", 0},
        {"\xed\xa0\x80", 0}, /* surrogates */
        {"\xed\xbf\xbf", 0},
        {"\xf4\x90\x80\x80", 0}, /* beyond the last character */
        {"\xf8\x88\x80\x80\x80", 0},
        {"\xff", 0},
        {"a\xc3", 1}, /* cut short */
        {"a\xe2\x82", 1},
        {"a\xf0\x9f\x98", 1},
        {"\xe2\x82"
         "a",
         0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct sample sample;
        struct decoded decoded;
        struct bytes name = bytes_of(cases[i].name);
        open_encode(1, name, sample.bytes);
        int result = decode(&decoded, FRAME_OPEN, sample.bytes, 16 + name.size);
        assert_int_equal(result, cases[i].bad_at < 0 ? 0 : -EPROTO);
        if (result == 0) continue;
        assert_int_equal(decoded.refusal.got, cases[i].bad_at);
        assert_int_equal(decoded.refusal.limit, name.size);
    }
}

static void names_have_1_to_255_bytes(void **unused)
{
    (void)unused;
    for (size_t bytes = 0; bytes < 300; bytes++) {
        struct sample sample;
        struct decoded decoded;
        make_sample(&sample, 2);
        memset(sample.bytes + 16, 'n', bytes);
        patch(&sample, 6, bytes, 2);
        set_length(&sample, 16 + bytes);
        int result = decode(&decoded, FRAME_OPEN, sample.bytes, sample.length);
        assert_int_equal(result, bytes >= 1 && bytes <= 255 ? 0 : -EPROTO);
    }
}

/* ----------------------------------------------------------------------------- exhaustive */

static void every_cut_of_every_frame_is_refused(void **unused)
{
    (void)unused;
    for (unsigned number = 0; number < SAMPLES_COUNT; number++) {
        struct sample sample;
        struct decoded decoded;
        make_sample(&sample, number);
        unsigned type = sample.bytes[4];
        size_t whole = sample.length;
        for (size_t cut = 0; cut < whole; cut++)
            assert_int_equal(decode(&decoded, type, sample.bytes, cut), -EPROTO);
        /* The same with a prefix that does not lie; and with a byte too much. */
        for (size_t cut = 0; cut <= whole + 1; cut++) {
            if (cut == whole) continue;
            set_length(&sample, cut);
            assert_int_equal(decode(&decoded, type, sample.bytes, cut), -EPROTO);
        }
    }
}

/* What a flipped bit leaves decodable means what it says: encoding it gives the same bytes. */
static void every_flipped_bit_is_refused_or_decoded(void **unused)
{
    (void)unused;
    for (unsigned number = 0; number < SAMPLES_COUNT; number++) {
        struct sample sample;
        struct sample again;
        struct decoded decoded;
        make_sample(&sample, number);
        unsigned type = sample.bytes[4];
        for (size_t bit = 0; bit < sample.length * 8; bit++) {
            sample.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            int result = decode(&decoded, type, sample.bytes, sample.length);
            if (result == 0) {
                assert_int_equal(encode(&decoded, again.bytes), round_up_8(sample.length));
                assert_memory_equal(again.bytes, sample.bytes, sample.length);
            } else {
                assert_int_equal(result, -EPROTO);
                assert_non_null(decoded.refusal.text);
                assert_int_not_equal(decoded.refusal.got, decoded.refusal.limit);
            }
            sample.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

static void random_bytes_behind_a_true_prefix_do_no_harm(void **unused)
{
    (void)unused;
    struct rng rng;
    rng_init(&rng, 1);
    for (int i = 0; i < 100000; i++) {
        struct sample sample;
        struct decoded decoded;
        unsigned type = FRAME_HELLO + (unsigned)rng_below(&rng, FRAME_REFUSE);
        size_t length = FRAME_PREFIX_BYTES + rng_below(&rng, 200);
        for (size_t at = 0; at < length; at++)
            sample.bytes[at] = rng_below(&rng, 3) == 0 ? (uint8_t)rng_next(&rng) : 0;
        patch(&sample, 4, type, 1);
        set_length(&sample, length);
        int result = decode(&decoded, type, sample.bytes, length);
        assert_true(result == 0 || result == -EPROTO);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_has_the_documented_bytes),
        cmocka_unit_test(opened_has_the_documented_bytes),
        cmocka_unit_test(frames_are_padded_with_zeros),
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(decoded_fields_are_those_encoded),
        cmocka_unit_test(verbs_of_opened_are_stepped_through),
        cmocka_unit_test(most_shards_fit),
        cmocka_unit_test(refuse_carries_code_values_and_text),
        cmocka_unit_test(a_text_too_long_for_refuse_is_cut),
        cmocka_unit_test(a_text_unfit_for_terminals_is_left_out),
        cmocka_unit_test(wrong_fields_are_refused_by_name_and_value),
        cmocka_unit_test(failed_opened_need_not_say_anything),
        cmocka_unit_test(another_version_is_refused_whatever_its_length),
        cmocka_unit_test(names_are_utf8_without_control_characters),
        cmocka_unit_test(names_have_1_to_255_bytes),
        cmocka_unit_test(every_cut_of_every_frame_is_refused),
        cmocka_unit_test(every_flipped_bit_is_refused_or_decoded),
        cmocka_unit_test(random_bytes_behind_a_true_prefix_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
