/*
 * How arguments become options, and what a user hears who got one wrong. What is printed goes into
 * a file in the place of stdout and stderr.
 */
#include "cli/command.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/nearest.h"
#include "cli/ports.h"

struct fields {
    bool json;
    const char *seeds;
    int64_t count;
    int64_t size;
    int64_t records;
    int32_t type;
    struct number_list list;
};

static const char *const choices[] = {"auto", "string", "double", NULL};
static const struct option_spec specs[] = {
    {.name = "json", .letter = 'j', .kind = OPTION_FLAG, .offset = offsetof(struct fields, json)},
    {.name = "seeds",
     .letter = 's',
     .kind = OPTION_TEXT,
     .offset = offsetof(struct fields, seeds),
     .shows = "HOST:PORT"},
    {.name = "count",
     .kind = OPTION_NUMBER,
     .offset = offsetof(struct fields, count),
     .shows = "N",
     .low = 1,
     .high = 64,
     .off_value = -1,
     .flags = OPTION_MAY_BE_OFF},
    {.name = "outbox.max",
     .kind = OPTION_SIZE,
     .offset = offsetof(struct fields, size),
     .shows = "SIZE",
     .low = 4096,
     .high = INT64_MAX,
     .bare_offset = offsetof(struct fields, records),
     .flags = OPTION_CONSTANT | OPTION_MAY_BE_INFINITE | OPTION_BARE_NUMBER},
    {.name = "type",
     .letter = 't',
     .kind = OPTION_CHOICE,
     .offset = offsetof(struct fields, type),
     .shows = "auto, string, double",
     .choices = choices},
    {.name = "sizes",
     .letter = 'm',
     .kind = OPTION_NUMBERS,
     .offset = offsetof(struct fields, list),
     .shows = "LIST",
     .low = 8,
     .high = 1 << 20},
};
static const struct command test_command = {.name = "try",
                                            .arguments = "NAME [KEY]",
                                            .summary = "try",
                                            .options = specs,
                                            .options_count = ARRAY_COUNT(specs),
                                            .arguments_min = 1,
                                            .arguments_max = 2,
                                            .examples = {"fero try demo"}};

/* ------------------------------------------------------------------------- what is printed */

static FILE *caught;
static int saved[2];
static char said[8192];

static void catch_begin(void)
{
    fflush(stdout);
    fflush(stderr);
    caught = tmpfile();
    assert_non_null(caught);
    for (int i = 0; i < 2; i++) {
        saved[i] = dup(1 + i);
        assert_true(saved[i] >= 0 && dup2(fileno(caught), 1 + i) >= 0);
    }
}

static void catch_end(void)
{
    fflush(stdout);
    fflush(stderr);
    for (int i = 0; i < 2; i++) {
        dup2(saved[i], 1 + i);
        close(saved[i]);
    }
    rewind(caught);
    said[fread(said, 1, sizeof said - 1, caught)] = 0;
    fclose(caught);
}

/* Splits `line` at its spaces and parses; what was printed is in `said`. */
static int parse(const char *line, struct fields *fields, char **argv, int *count)
{
    static char words[4096];
    int argc = 0;
    snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = strcmp(word, "''") == 0 ? word + 2 : word;
    argv[argc] = NULL;
    *count = -1;
    catch_begin();
    int status = command_parse(&test_command, argc, argv, fields, count);
    catch_end();
    return status;
}

static struct fields parsed(const char *line)
{
    struct fields fields = {0};
    char *argv[64];
    int count;
    if (parse(line, &fields, argv, &count) != COMMAND_GO_ON) fail_msg("%s: %s", line, said);
    assert_string_equal(said, "");
    return fields;
}

static void options_may_be_spelt_in_four_ways(void **unused)
{
    (void)unused;
    static const char *const lines[] = {"demo --seeds a:1", "demo --seeds=a:1", "demo -s a:1",
                                        "-sa:1 demo",       "--seeds a:1 demo", "demo -j -s a:1"};
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++)
        assert_string_equal(parsed(lines[i]).seeds, "a:1");
    assert_true(parsed("--json demo").json);
    assert_false(parsed("demo").json);
    assert_string_equal(parsed("demo --seeds=b=c --seeds -x").seeds, "-x");
}

static void values_go_where_they_belong(void **unused)
{
    (void)unused;
    struct fields fields = parsed("demo --count 64 --outbox.max 1.5M -t DOUBLE -m 8,1k,100");
    assert_int_equal(fields.count, 64);
    assert_int_equal(fields.size, 3 << 19);
    assert_int_equal(fields.records, 0);
    assert_int_equal(fields.type, 2);
    assert_int_equal(fields.list.count, 3);
    assert_int_equal(fields.list.values[1], 1024);
    fields = parsed("demo --constants.outbox.max=10000 --count off");
    assert_int_equal(fields.records, 10000); /* no unit */
    assert_int_equal(fields.size, 0);
    assert_int_equal(fields.count, -1);
    assert_int_equal(parsed("demo --outbox.max Infinity").size, INT64_MAX);
    assert_int_equal(parsed("demo --count 0").count, -1);
}

static void arguments_are_moved_to_the_front(void **unused)
{
    (void)unused;
    struct fields fields = {0};
    char *argv[64];
    int count;
    assert_int_equal(parse("-j demo -t auto -5", &fields, argv, &count), COMMAND_GO_ON);
    assert_int_equal(count, 2);
    assert_string_equal(argv[0], "demo");
    assert_string_equal(argv[1], "-5");
    assert_int_equal(parse("- -.5", &fields, argv, &count), COMMAND_GO_ON);
    assert_int_equal(count, 2);
    assert_int_equal(parse("demo -- --json", &fields, argv, &count), COMMAND_GO_ON);
    assert_string_equal(argv[1], "--json");
}

/* Status 2, and one line that has both texts in it. */
static void mistakes_are_named_in_one_line(void **unused)
{
    (void)unused;
    static const struct {
        const char *line;
        const char *first;
        const char *second;
    } cases[] = {
        {"", "needs NAME [KEY]", "fero try --help"},
        {"a b c", "\"c\"", "NAME [KEY]"},
        {"demo --jsn", "--jsn", "--json"},
        {"demo --JSON", "--JSON", "--json"},
        {"demo --see=d", "--see", "--seeds"},
        {"demo --constants.outbx.max 1", "--constants.outbx.max", "--constants.outbox.max"},
        {"demo --constants.json", "--constants.json", "--constants.outbox.max"},
        {"demo -x", "-x", "did you mean --"},
        {"demo --hlep", "--hlep", "--help"},
        {"demo --json=1", "--json takes no value", "\"1\""},
        {"demo --seeds", "--seeds needs a value", "HOST:PORT"},
        {"demo --seeds=", "--seeds", "empty"},
        {"demo --count", "--count needs a value", "N"},
        {"demo --count 65", "--count is 65", "from 1 to 64"},
        {"demo --count -1", "--count is -1", "from 1 to 64"},
        {"demo --count two", "--count needs a number", "\"two\""},
        {"demo --count 99999999999999999999", "--count", "from 1 to 64"},
        {"demo --outbox.max 4095B", "4095B", "4k or more"},
        {"demo --outbox.max 4x", "\"4x\"", "Infinity"},
        {"demo --type sting", "\"sting\"", "string"},
        {"demo -m 7", "--sizes is 7", "from 8"},
        {"demo -m 8,,9", "--sizes", "\"\""},
        {"demo -m 8,", "--sizes", "\"\""},
        {"demo -m 8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8", "--sizes", "16"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct fields fields = {0};
        char *argv[64];
        int count;
        if (parse(cases[i].line, &fields, argv, &count) != STATUS_USAGE)
            fail_msg("\"%s\" was taken", cases[i].line);
        if (strstr(said, cases[i].first) == NULL || strstr(said, cases[i].second) == NULL)
            fail_msg("\"%s\" gives: %s", cases[i].line, said);
        assert_memory_equal(said, "fero try:", 9);
        assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
    }
}

static void what_a_user_typed_is_shown_harmlessly(void **unused)
{
    (void)unused;
    struct fields fields = {0};
    char *argv[64];
    int count;
    assert_int_equal(parse("demo --seeds\x1b[31m\nx", &fields, argv, &count), STATUS_USAGE);
    assert_null(strchr(said, '\x1b'));
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

static void help_lists_everything(void **unused)
{
    (void)unused;
    struct fields fields = {0};
    char *argv[64];
    int count;
    assert_int_equal(parse("--help", &fields, argv, &count), STATUS_OK);
    for (size_t i = 0; i < ARRAY_COUNT(specs); i++) assert_non_null(strstr(said, specs[i].name));
    assert_non_null(strstr(said, "fero try demo"));
    assert_int_equal(parse("demo -h", &fields, argv, &count), STATUS_OK);
}

/* -------------------------------------------------------------------------------- commands */

static int run_fero(const char *first, const char *second, const char *third)
{
    char name[] = "fero";
    char *argv[] = {name, (char *)(uintptr_t)first, (char *)(uintptr_t)second,
                    (char *)(uintptr_t)third, NULL};
    int argc = 1;
    while (argv[argc] != NULL) argc++;
    catch_begin();
    int status = commands_run(argc, argv);
    catch_end();
    return status;
}

static void every_command_explains_itself(void **unused)
{
    (void)unused;
    for (size_t i = 0; commands[i] != NULL; i++) {
        assert_int_equal(run_fero(commands[i]->name, "--help", NULL), STATUS_OK);
        assert_non_null(strstr(said, commands[i]->name));
        assert_non_null(strstr(said, "fero "));
        assert_int_equal(run_fero("help", commands[i]->name, NULL), STATUS_OK);
        assert_int_equal(run_fero(commands[i]->name, "--no-such-option", NULL), STATUS_USAGE);
        assert_non_null(strstr(said, "--no-such-option"));
    }
}

static void an_unknown_command_names_the_nearest(void **unused)
{
    (void)unused;
    static const char *const cases[][2] = {{"serv", "serve"},     {"gte", "get"},
                                           {"SET", "set"},        {"infos", "info"},
                                           {"--hepl", "--help"},  {"--verison", "--version"},
                                           {"remove", "did you"}, {"", "did you"}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(run_fero(cases[i][0], NULL, NULL), STATUS_USAGE);
        assert_non_null(strstr(said, cases[i][0]));
        assert_non_null(strstr(said, cases[i][1]));
    }
    assert_int_equal(run_fero(NULL, NULL, NULL), STATUS_USAGE);
    assert_non_null(strstr(said, "Usage"));
    assert_int_equal(run_fero("--help", NULL, NULL), STATUS_OK);
    assert_int_equal(run_fero("--version", NULL, NULL), STATUS_OK);
    assert_non_null(strstr(said, FERO_VERSION));
    assert_int_equal(run_fero("help", "sevre", NULL), STATUS_USAGE);
    assert_int_equal(run_fero("help", "set", "get"), STATUS_USAGE);
}

/* --------------------------------------------------------------------------------- nearest */

static void distances_are_in_half_letters(void **unused)
{
    (void)unused;
    static const struct {
        const char *a;
        const char *b;
        unsigned distance;
    } cases[] = {{"", "", 0},       {"abc", "abc", 0}, {"abc", "", 6},       {"abc", "abd", 2},
                 {"abc", "ab", 2},  {"abc", "acb", 2}, {"abc", "Abc", 1},    {"ABC", "abc", 3},
                 {"get", "set", 2}, {"ab", "ba", 2},   {"serve", "sevre", 2}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(nearest_distance(cases[i].a, cases[i].b), cases[i].distance);
        assert_int_equal(nearest_distance(cases[i].b, cases[i].a), cases[i].distance);
    }
    char first[200];
    char second[200];
    memset(first, 'a', 199);
    memset(second, 'b', 199);
    first[199] = second[199] = 0;
    assert_int_equal(nearest_distance(first, second), 2 * NEAREST_BYTES_MAX);
}

static void the_first_of_the_nearest_is_kept(void **unused)
{
    (void)unused;
    struct nearest nearest = {.wanted = "gat"};
    nearest_offer(&nearest, "set");
    assert_string_equal(nearest.best, "set");
    nearest_offer(&nearest, "get");
    nearest_offer(&nearest, "got");
    assert_string_equal(nearest.best, "get");
    nearest = (struct nearest){.wanted = "s"};
    nearest_offer(&nearest, "x");
    nearest_offer(&nearest, "serve");
    assert_string_equal(nearest.best, "serve");
}

/* ----------------------------------------------------------------------------------- ports */

static void the_holder_of_a_port_is_found(void **unused)
{
    (void)unused;
    char text[PORT_HOLDER_BYTES];
    char expected[32];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int pid;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    uint16_t port = ntohs(address.sin_port);
    port_holder(port, text, &pid);
    assert_int_equal(pid, 0); /* it does not listen yet */
    assert_string_equal(text, "another process");
    assert_int_equal(listen(fd, 1), 0);
    port_holder(port, text, &pid);
    assert_int_equal(pid, getpid());
    snprintf(expected, sizeof expected, "(pid %d)", getpid());
    assert_non_null(strstr(text, expected));
    close(fd);
    port_holder(port, text, &pid);
    assert_int_equal(pid, 0);
}

/* ----------------------------------------------------------------------------------- input */

/* Reads "-" with these bytes as the standard input. */
static int read_input(const void *data, size_t size, enum value_as as, struct input *input,
                      fero_val *value)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fflush(file);
    rewind(file);
    int kept = dup(0);
    assert_true(kept >= 0 && dup2(fileno(file), 0) >= 0);
    clearerr(stdin);
    catch_begin();
    int status = input_read(input, &test_command, "-", as, value);
    catch_end();
    dup2(kept, 0);
    close(kept);
    fclose(file);
    return status;
}

static void the_standard_input_is_read_to_its_end(void **unused)
{
    (void)unused;
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 1 << 20, (16 << 20) - 1};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct input input;
        fero_val value;
        uint8_t *data = malloc(sizes[i] + 1);
        assert_non_null(data);
        memset(data, '\n', sizes[i]);
        assert_int_equal(read_input(data, sizes[i], VALUE_AS_BYTES, &input, &value), STATUS_OK);
        assert_int_equal(value.s.len, sizes[i]); /* bytes lose nothing */
        if (sizes[i] > 0) assert_memory_equal(value.s.ptr, data, sizes[i]);
        input_free(&input);
        free(data);
    }
}

static void one_newline_at_its_end_is_not_meant(void **unused)
{
    (void)unused;
    struct input input;
    fero_val value;
    assert_int_equal(read_input("david\n\n", 7, VALUE_AS_AUTO, &input, &value), STATUS_OK);
    assert_int_equal(value.s.len, 6);
    input_free(&input);
    assert_int_equal(read_input("28\n", 3, VALUE_AS_INT64, &input, &value), STATUS_OK);
    assert_int_equal(value.i64, 28);
    input_free(&input);
}

static void an_argument_is_taken_as_it_is(void **unused)
{
    (void)unused;
    struct input input;
    fero_val value;
    assert_int_equal(input_read(&input, &test_command, "david\n", VALUE_AS_STRING, &value),
                     STATUS_OK);
    assert_int_equal(value.s.len, 6);
    input_free(&input);
    catch_begin();
    int status = input_read(&input, &test_command, "1.5", VALUE_AS_INT64, &value);
    catch_end();
    assert_int_equal(status, STATUS_USAGE);
    assert_non_null(strstr(said, "--type int64 needs a whole number"));
    assert_non_null(strstr(said, "\"1.5\""));
    input_free(&input);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_may_be_spelt_in_four_ways),
        cmocka_unit_test(values_go_where_they_belong),
        cmocka_unit_test(arguments_are_moved_to_the_front),
        cmocka_unit_test(mistakes_are_named_in_one_line),
        cmocka_unit_test(what_a_user_typed_is_shown_harmlessly),
        cmocka_unit_test(help_lists_everything),
        cmocka_unit_test(every_command_explains_itself),
        cmocka_unit_test(an_unknown_command_names_the_nearest),
        cmocka_unit_test(distances_are_in_half_letters),
        cmocka_unit_test(the_first_of_the_nearest_is_kept),
        cmocka_unit_test(the_holder_of_a_port_is_found),
        cmocka_unit_test(the_standard_input_is_read_to_its_end),
        cmocka_unit_test(one_newline_at_its_end_is_not_meant),
        cmocka_unit_test(an_argument_is_taken_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
