/*
 * Which queue between two shards is faster?
 *
 * One producer and one consumer thread, each on a cpu of its own, both spinning. The producer
 * fills every byte of every message, the consumer adds all of them up and checks the order, so
 * that the bytes really travel. Compared are:
 *
 *   ck_ring pointer   ck_ring SPSC carries pointers into a pool of message slots
 *   ck_ring copied    the messages lie in the ring's slots: built in place (reserve, commit),
 *                     copied out by dequeue, which has no other way
 *   lane              lane_try_push, lane_publish every `batch` messages
 *   mailbox           the same through mailbox_publish: with the full barrier and the look at the
 *                     sleep flag that a shard's turn really has
 *
 * All have the same memory for messages, LANE_BYTES. `bytes` is the whole message with its 8-byte
 * head; 136 is a frame of 128. What comes out is wall time per message, producer's start to
 * consumer's end. Runs alternate: all queues once, then all again, so that a machine that changes
 * its speed changes it for all of them.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wundef"
#include <ck_ring.h>
#pragma GCC diagnostic pop

#include "base/bytes.h"
#include "base/clock.h"
#include "base/memory.h"
#include "shard/lane.h"
#include "shard/mailbox.h"

int bench_lane_main(int argc, char **argv);

#define LANE_BYTES (256 * KIB)
#define RUNS_MAX 99
#define KIND 1
/* The consumer gives memory back at least this often; a shard does it once a turn. */
#define RELEASE_EVERY 64

struct message_16 {
    struct mail head;
    uint64_t body[1];
};
struct message_64 {
    struct mail head;
    uint64_t body[7];
};
struct message_136 {
    struct mail head;
    uint64_t body[16];
};
_Static_assert(sizeof(struct message_16) == 16, "one lane mail of 16 bytes");
_Static_assert(sizeof(struct message_64) == 64, "one lane mail of 64 bytes");
_Static_assert(sizeof(struct message_136) == 136, "one lane mail of 136 bytes");

/* One run: what both threads work on. */
struct run {
    uint64_t messages_count;
    uint64_t batch;
    int producer_cpu;
    int consumer_cpu;
    void (*consume)(struct run *run);
    uint64_t consumer_ready __attribute__((aligned(CACHE_PAIR)));
    uint64_t consumer_end_ns;
    uint64_t sum;     /* of all body words the consumer read */
    uint64_t ordered; /* messages whose first word was the expected one */
    struct ck_ring ring __attribute__((aligned(CACHE_PAIR)));
    uint32_t ring_slots;
    void *slots; /* the ring's messages */
    struct ck_ring_buffer *pointers;
    struct lane lane;
    struct mailbox mailboxes[2];
};

/* ---- Content: the same work on both sides of every queue ------------------------------------ */

static ALWAYS_INLINE void fill(uint64_t *body, size_t words_count, uint64_t sequence)
{
    for (size_t i = 0; i < words_count; i++) body[i] = sequence + i;
}

static ALWAYS_INLINE uint64_t add_up(const uint64_t *body, size_t words_count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < words_count; i++) sum += body[i];
    return sum;
}

static uint64_t expected_sum(uint64_t messages_count, size_t words_count)
{
    uint64_t of_sequences = messages_count * (messages_count - 1) / 2;
    return of_sequences * words_count + messages_count * (words_count * (words_count - 1) / 2);
}

/* ---- The lane and the mailbox --------------------------------------------------------------- */

static ALWAYS_INLINE void lane_produce(struct run *run, size_t bytes, bool through_mailbox)
{
    struct lane *lane = &run->lane;
    struct mailbox *mailbox = &run->mailboxes[0];
    uint64_t batch_left = run->batch;
    for (uint64_t sequence = 0; sequence < run->messages_count;) {
        struct mail *mail = through_mailbox ? mailbox_try_push(mailbox, 1, bytes, KIND)
                                            : lane_try_push(lane, bytes, KIND);
        if (LIKELY(mail != NULL)) {
            fill((uint64_t *)(mail + 1), bytes / 8 - 1, sequence);
            sequence++;
            batch_left--;
            if (LIKELY(batch_left > 0)) continue;
        }
        if (through_mailbox) (void)mailbox_publish(mailbox);
        if (!through_mailbox) lane_publish(lane);
        batch_left = run->batch;
        if (mail == NULL) clock_pause();
    }
    if (through_mailbox) (void)mailbox_publish(mailbox);
    if (!through_mailbox) lane_publish(lane);
}

static ALWAYS_INLINE void lane_consume(struct run *run, size_t bytes, struct lane *lane)
{
    uint64_t sum = 0;
    uint64_t ordered = 0;
    for (uint64_t received = 0; received < run->messages_count;) {
        uint64_t before = received;
        for (uint32_t i = 0; i < RELEASE_EVERY; i++) {
            const struct mail *mail = lane_peek(lane);
            if (mail == NULL) break;
            const uint64_t *body = (const uint64_t *)(mail + 1);
            sum += add_up(body, bytes / 8 - 1);
            ordered += body[0] == received;
            received++;
            lane_pop(lane);
        }
        lane_release(lane);
        if (received == before) clock_pause();
    }
    run->sum = sum;
    run->ordered = ordered;
}

/* ---- ck_ring -------------------------------------------------------------------------------- */

static ALWAYS_INLINE void pointer_produce(struct run *run, size_t bytes)
{
    /* Twice the ring: a slot comes round only after its pointer was dequeued and read. */
    uint32_t mask = 2 * run->ring_slots - 1;
    for (uint64_t sequence = 0; sequence < run->messages_count; sequence++) {
        struct mail *mail = (struct mail *)((uint8_t *)run->slots + (sequence & mask) * bytes);
        *mail = (struct mail){.bytes = (uint32_t)bytes, .kind = KIND};
        fill((uint64_t *)(mail + 1), bytes / 8 - 1, sequence);
        while (!ck_ring_enqueue_spsc(&run->ring, run->pointers, mail)) clock_pause();
    }
}

static ALWAYS_INLINE void pointer_consume(struct run *run, size_t bytes)
{
    uint64_t sum = 0;
    uint64_t ordered = 0;
    for (uint64_t received = 0; received < run->messages_count; received++) {
        void *message = NULL;
        while (!ck_ring_dequeue_spsc(&run->ring, run->pointers, &message)) clock_pause();
        const uint64_t *body = (const uint64_t *)message + 1;
        sum += add_up(body, bytes / 8 - 1);
        ordered += body[0] == received;
    }
    run->sum = sum;
    run->ordered = ordered;
}

/* All functions of one size, so that every copy has a constant length. */
#define FOR_SIZE(size)                                                                             \
    CK_RING_PROTOTYPE(message_##size, message_##size)                                              \
    static void copied_produce_##size(struct run *run)                                             \
    {                                                                                              \
        for (uint64_t sequence = 0; sequence < run->messages_count; sequence++) {                  \
            struct message_##size *message;                                                        \
            while ((message = ck_ring_enqueue_reserve_spsc_message_##size(&run->ring,              \
                                                                          run->slots)) == NULL) {  \
                clock_pause();                                                                     \
            }                                                                                      \
            message->head = (struct mail){.bytes = size, .kind = KIND};                            \
            fill(message->body, ARRAY_COUNT(message->body), sequence);                             \
            ck_ring_enqueue_commit_spsc(&run->ring);                                               \
        }                                                                                          \
    }                                                                                              \
    static void copied_consume_##size(struct run *run)                                             \
    {                                                                                              \
        uint64_t sum = 0;                                                                          \
        uint64_t ordered = 0;                                                                      \
        struct message_##size message;                                                             \
        for (uint64_t received = 0; received < run->messages_count; received++) {                  \
            while (!ck_ring_dequeue_spsc_message_##size(&run->ring, run->slots, &message)) {       \
                clock_pause();                                                                     \
            }                                                                                      \
            sum += add_up(message.body, ARRAY_COUNT(message.body));                                \
            ordered += message.body[0] == received;                                                \
        }                                                                                          \
        run->sum = sum;                                                                            \
        run->ordered = ordered;                                                                    \
    }                                                                                              \
    static void pointer_produce_##size(struct run *run)                                            \
    {                                                                                              \
        pointer_produce(run, size);                                                                \
    }                                                                                              \
    static void pointer_consume_##size(struct run *run)                                            \
    {                                                                                              \
        pointer_consume(run, size);                                                                \
    }                                                                                              \
    static void lane_produce_##size(struct run *run)                                               \
    {                                                                                              \
        lane_produce(run, size, false);                                                            \
    }                                                                                              \
    static void lane_consume_##size(struct run *run)                                               \
    {                                                                                              \
        lane_consume(run, size, &run->lane);                                                       \
    }                                                                                              \
    static void mailbox_produce_##size(struct run *run)                                            \
    {                                                                                              \
        lane_produce(run, size, true);                                                             \
    }                                                                                              \
    static void mailbox_consume_##size(struct run *run)                                            \
    {                                                                                              \
        lane_consume(run, size, run->mailboxes[1].in[0]);                                          \
    }

FOR_SIZE(16)
FOR_SIZE(64)
FOR_SIZE(136)

/* ---- What is measured ----------------------------------------------------------------------- */

struct subject {
    const char *queue;
    size_t bytes;
    uint64_t batch; /* 1 for ck_ring, which publishes every message */
    void (*produce)(struct run *run);
    void (*consume)(struct run *run);
};

#define SUBJECTS_OF_QUEUE(name, size)                                                              \
    {#name, size, 1, name##_produce_##size, name##_consume_##size},                                \
        {#name, size, 16, name##_produce_##size, name##_consume_##size},                           \
        {#name, size, 64, name##_produce_##size, name##_consume_##size},                           \
    {                                                                                              \
#name, size, 512, name##_produce_##size, name##_consume_##size                             \
    }

#define SUBJECTS_OF_SIZE(size)                                                                     \
    {"ck_ring pointer", size, 1, pointer_produce_##size, pointer_consume_##size},                  \
        {"ck_ring copied", size, 1, copied_produce_##size, copied_consume_##size},                 \
        SUBJECTS_OF_QUEUE(lane, size), SUBJECTS_OF_QUEUE(mailbox, size)

static const struct subject subjects[] = {
    SUBJECTS_OF_SIZE(16),
    SUBJECTS_OF_SIZE(64),
    SUBJECTS_OF_SIZE(136),
};
#define SUBJECTS_COUNT ARRAY_COUNT(subjects)

struct settings {
    uint64_t messages_count;
    uint64_t runs_count;
    bool json;
    int producer_cpu;
    int consumer_cpu;
};

struct figure {
    double ns[RUNS_MAX]; /* per message, a run each */
    double median;
};

static uint32_t slots_of(size_t message_bytes)
{
    uint32_t slots = 1;
    while (2 * slots * message_bytes <= LANE_BYTES) slots *= 2;
    return slots;
}

static int run_open(struct run *run, const struct subject *subject)
{
    run->ring_slots = slots_of(subject->bytes);
    size_t slots_bytes = 2 * run->ring_slots * subject->bytes;
    size_t pointers_bytes = run->ring_slots * sizeof(struct ck_ring_buffer);
    ck_ring_init(&run->ring, run->ring_slots);
    run->slots = memory_take(slots_bytes);
    run->pointers = memory_take(pointers_bytes);
    if (run->slots == NULL || run->pointers == NULL) return -ENOMEM;
    int err = lane_init(&run->lane, LANE_BYTES);
    if (err < 0) return err;
    err = mailboxes_init(run->mailboxes, 2, LANE_BYTES);
    if (err < 0) return err;
    memory_touch(run->lane.memory, LANE_BYTES);
    memory_touch(run->mailboxes[0].out[1]->memory, LANE_BYTES);
    return 0;
}

/* What run_open left half done is zero and so is closed alike. */
static void run_close(struct run *run)
{
    if (run->mailboxes[0].shards_count > 0) mailboxes_deinit(run->mailboxes, 2);
    lane_deinit(&run->lane);
    memory_put(run->pointers);
    memory_put(run->slots);
}

static int pin_to(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0 ? 0 : -errno;
}

static void *consumer_thread(void *context)
{
    struct run *run = context;
    if (pin_to(run->consumer_cpu) < 0) abort(); /* the cpu was in our set a moment ago */
    store_release_u64(&run->consumer_ready, 1);
    run->consume(run);
    run->consumer_end_ns = clock_now_ns();
    return NULL;
}

/* Returns nanoseconds of the whole run, or a negative errno. */
static int64_t run_threads(struct run *run, const struct subject *subject)
{
    pthread_t consumer;
    int err = pthread_create(&consumer, NULL, consumer_thread, run);
    if (err != 0) return -err;
    while (load_acquire_u64(&run->consumer_ready) == 0) clock_pause();
    uint64_t start_ns = clock_now_ns();
    subject->produce(run);
    pthread_join(consumer, NULL);
    return (int64_t)(run->consumer_end_ns - start_ns);
}

static int measure(const struct settings *settings, const struct subject *subject, double *ns)
{
    struct run *run = memory_reserve(sizeof(*run), 0);
    if (run == NULL) return -ENOMEM;
    run->messages_count = settings->messages_count;
    run->batch = subject->batch;
    run->consume = subject->consume;
    run->producer_cpu = settings->producer_cpu;
    run->consumer_cpu = settings->consumer_cpu;

    int64_t result = run_open(run, subject);
    if (result == 0) result = run_threads(run, subject);
    if (result > 0) {
        ASSERT(run->ordered == run->messages_count);
        ASSERT(run->sum == expected_sum(run->messages_count, subject->bytes / 8 - 1));
        *ns = (double)result / (double)run->messages_count;
    }
    run_close(run);
    memory_release(run, sizeof(*run));
    return result < 0 ? (int)result : 0;
}

/* ---- Output --------------------------------------------------------------------------------- */

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static void print_json(const struct settings *settings, const struct subject *subject,
                       const struct figure *figure)
{
    printf("{\"bench\":\"lane\",\"queue\":\"%s\",\"bytes\":%zu,\"batch\":%" PRIu64
           ",\"messages\":%" PRIu64 ",\"runs\":%" PRIu64
           ",\"ns_per_message\":{\"median\":%.2f,\"min\":%.2f,\"max\":%.2f}}\n",
           subject->queue, subject->bytes, subject->batch, settings->messages_count,
           settings->runs_count, figure->median, figure->ns[0],
           figure->ns[settings->runs_count - 1]);
}

/* The faster ck_ring of the same message size is what every row is compared with. */
static double ring_median(const struct figure *figures, size_t bytes)
{
    double best = 0;
    for (size_t i = 0; i < SUBJECTS_COUNT; i++) {
        bool is_ring = strncmp(subjects[i].queue, "ck_ring", 7) == 0;
        if (!is_ring || subjects[i].bytes != bytes) continue;
        if (best <= 0 || figures[i].median < best) best = figures[i].median;
    }
    return best;
}

static void print_table(const struct settings *settings, const struct figure *figures)
{
    printf("Which queue between two shards is faster?\n\n");
    printf("%" PRIu64 " messages a run, %" PRIu64
           " alternating runs, producer on cpu %d, consumer on cpu %d, %zu KiB of messages.\n"
           "speed: against the faster ck_ring of that size.\n\n",
           settings->messages_count, settings->runs_count, settings->producer_cpu,
           settings->consumer_cpu, LANE_BYTES / KIB);
    printf("%5s  %-16s %5s  %10s  %16s  %6s\n", "bytes", "queue", "batch", "ns/message",
           "lowest - highest", "speed");
    for (size_t i = 0; i < SUBJECTS_COUNT; i++) {
        const struct subject *subject = &subjects[i];
        const struct figure *figure = &figures[i];
        if (i > 0 && subject->bytes != subjects[i - 1].bytes) printf("\n");
        printf("%5zu  %-16s %5" PRIu64 "  %10.2f  %7.2f - %6.2f  %5.2fx\n", subject->bytes,
               subject->queue, subject->batch, figure->median, figure->ns[0],
               figure->ns[settings->runs_count - 1],
               ring_median(figures, subject->bytes) / figure->median);
    }
}

/* ---- The command line ----------------------------------------------------------------------- */

static const char usage[] =
    "Usage: fero bench lane [options]\n"
    "\n"
    "Which queue between two shards is faster: ck_ring, or the batch-published lane?\n"
    "Needs two idle cpus. Takes about 20 seconds.\n"
    "\n"
    "  --messages N   messages a run (default 4000000)\n"
    "  --runs N       alternating runs, 1 to 99 (default 5)\n"
    "  --json         one object per line instead of a table\n"
    "  --help         this text\n"
    "\n"
    "Examples:\n"
    "  fero bench lane\n"
    "  fero bench lane --runs 11 --json > lane.json\n"
    "  taskset -c 2,3 fero bench lane      on cpus 2 and 3\n";

static const struct option options[] = {
    {"messages", required_argument, NULL, 'm'},
    {"runs", required_argument, NULL, 'r'},
    {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

#define WORD_BYTES_MAX 32

/* Letters to insert, drop or replace to come from `a` to `b`; long words count as far away. */
static size_t distance_of(const char *a, const char *b)
{
    size_t a_bytes = strlen(a);
    size_t b_bytes = strlen(b);
    if (a_bytes >= WORD_BYTES_MAX || b_bytes >= WORD_BYTES_MAX) return WORD_BYTES_MAX;
    size_t row[WORD_BYTES_MAX];
    for (size_t j = 0; j <= b_bytes; j++) row[j] = j;
    for (size_t i = 1; i <= a_bytes; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_bytes; j++) {
            size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = min_u64(replaced, min_u64(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_bytes];
}

static const char *nearest_option(const char *word)
{
    while (*word == '-') word++;
    const char *nearest = options[0].name;
    for (size_t i = 1; options[i].name != NULL; i++) {
        if (distance_of(word, options[i].name) < distance_of(word, nearest)) {
            nearest = options[i].name;
        }
    }
    return nearest;
}

static int refuse(const char *problem, const char *word, const char *instead)
{
    fprintf(stderr, "fero bench lane: %s '%s'; did you mean --%s?\n", problem, word, instead);
    return 2;
}

static bool parse_count(const char *text, uint64_t count_max, uint64_t *count)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *text == '-') return false;
    if (value < 1 || value > count_max) return false;
    *count = value;
    return true;
}

/* Returns 0, or 2 after one line that says what is wrong; *help_asked where that is all. */
static int parse(int argc, char **argv, struct settings *settings, bool *help_asked)
{
    optind = 1;
    opterr = 0;
    for (;;) {
        int at = optind;
        int option = getopt_long(argc, argv, ":", options, NULL);
        if (option == -1) break;
        bool valid = true;
        switch (option) {
        case 'm': valid = parse_count(optarg, UINT32_MAX, &settings->messages_count); break;
        case 'r': valid = parse_count(optarg, RUNS_MAX, &settings->runs_count); break;
        case 'j': settings->json = true; break;
        case 'h': *help_asked = true; return 0;
        case ':':
            fprintf(stderr, "fero bench lane: %s needs a number; see --help\n", argv[at]);
            return 2;
        default: return refuse("cannot use", argv[at], nearest_option(argv[at]));
        }
        if (!valid) {
            fprintf(stderr, "fero bench lane: '%s' is not a number that --%s takes; see --help\n",
                    optarg, option == 'm' ? "messages" : "runs");
            return 2;
        }
    }
    if (optind < argc) return refuse("cannot use", argv[optind], nearest_option(argv[optind]));
    return 0;
}

/* The first two cpus that this process may use. */
static int choose_cpus(struct settings *settings, cpu_set_t *allowed)
{
    if (sched_getaffinity(0, sizeof(*allowed), allowed) < 0) return -errno;
    int found[2] = {-1, -1};
    int found_count = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && found_count < 2; cpu++) {
        if (CPU_ISSET((size_t)cpu, allowed)) found[found_count++] = cpu;
    }
    if (found_count < 2) return -ENODEV;
    settings->producer_cpu = found[0];
    settings->consumer_cpu = found[1];
    return 0;
}

static int measure_all(const struct settings *settings, struct figure *figures)
{
    for (uint64_t r = 0; r < settings->runs_count; r++) {
        for (size_t i = 0; i < SUBJECTS_COUNT; i++) {
            int err = measure(settings, &subjects[i], &figures[i].ns[r]);
            if (err < 0) return err;
        }
    }
    for (size_t i = 0; i < SUBJECTS_COUNT; i++) {
        qsort(figures[i].ns, settings->runs_count, sizeof(double), compare_doubles);
        figures[i].median = figures[i].ns[settings->runs_count / 2];
    }
    return 0;
}

static int fail(int err)
{
    const char *advice = err == -ENODEV ? "it needs two cpus; give it two with taskset -c"
                                        : "close other programs and try again";
    fprintf(stderr, "fero bench lane: %s: %s\n", strerror(-err), advice);
    return 1;
}

int bench_lane_main(int argc, char **argv)
{
    struct settings settings = {.messages_count = 4000000, .runs_count = 5};
    bool help_asked = false;
    int status = parse(argc, argv, &settings, &help_asked);
    if (status != 0) return status;
    if (help_asked) {
        fputs(usage, stdout);
        return 0;
    }

    cpu_set_t allowed;
    int err = choose_cpus(&settings, &allowed);
    if (err < 0) return fail(err);
    struct figure *figures = memory_take(SUBJECTS_COUNT * sizeof(*figures));
    if (figures == NULL) return fail(-ENOMEM);

    err = pin_to(settings.producer_cpu);
    if (err == 0) err = measure_all(&settings, figures);
    sched_setaffinity(0, sizeof(allowed), &allowed);
    if (err == 0 && !settings.json) print_table(&settings, figures);
    for (size_t i = 0; err == 0 && settings.json && i < SUBJECTS_COUNT; i++) {
        print_json(&settings, &subjects[i], &figures[i]);
    }
    memory_put(figures);
    return err < 0 ? fail(err) : 0;
}
