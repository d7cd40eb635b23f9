/* The simulator on the command line: see tests/sim/README.md. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "tests/sim/campaign.h"
#include "tests/sim/plants.h"

static const char help[] =
    "Usage: fero-sim [OPTION]...\n"
    "Runs real shards and clients in a made-up world, one for each seed, and checks all they do.\n"
    "\n"
    "  --seed N        run this one only\n"
    "  --first N       begin with this one (1)\n"
    "  --seeds N       run so many (100, or as many as --seconds allows)\n"
    "  --seconds N     begin no more seeds after so long\n"
    "  --plant NAME    with a bug that was planted; its name, or \"list\"\n"
    "  --workers N     processes at the same time (the number of cpus)\n"
    "  --twice N       run each N-th seed again: it must be the same (50)\n"
    "  --trace         with --seed: print all that happens\n"
    "  --json          print the result as JSON\n"
    "  --help          print this\n"
    "\n"
    "Ends with 0: all clean, 1: something was found, 2: wrong usage.\n"
    "\n"
    "  fero-sim --seconds 600\n"
    "  fero-sim --seed 17 --trace 2>&1 | less\n"
    "  fero-sim --plant session_forgotten --seeds 20\n";

struct choice {
    struct campaign campaign;
    uint64_t seed;
    bool has_seed;
    bool is_traced;
    bool is_json;
};

static int wrong(const char *format, const char *what)
{
    fputs("fero-sim: ", stderr);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    fprintf(stderr, format, what);
#pragma GCC diagnostic pop
    fputs(". Try --help\n", stderr);
    return 2;
}

static bool read_number(const char *text, uint64_t *number)
{
    char *end;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == 0 && *text != '-';
}

static void print_text(const struct campaign_result *result)
{
    printf("%" PRIu64 " seeds in %.1f s: %" PRIu64 " clean, %" PRIu64 " with a finding\n",
           result->seeds, result->seconds, result->clean, result->found);
    printf("%" PRIu64 " requests (%" PRIu64 " done, %" PRIu64 " failed, %" PRIu64
           " unknown), %" PRIu64 " changes, %" PRIu64 " resets, %.0f virtual seconds, %" PRIu64
           " events\n",
           result->asked, result->outcomes[0], result->outcomes[1], result->outcomes[2],
           result->applied, result->resets, (double)result->virtual_ns / 1e9, result->events);
    if (result->found > 0)
        printf("the lowest seed with a finding is %" PRIu64 "\n", result->first_found);
    if (result->different > 0)
        printf("%" PRIu64 " seeds were not the same again, the first is %" PRIu64 "\n",
               result->different, result->first_different);
}

static void print_json(const struct campaign_result *result)
{
    printf("{\"seeds\":%" PRIu64 ",\"clean\":%" PRIu64 ",\"found\":%" PRIu64
           ",\"first_found\":%" PRIu64 ",\"different\":%" PRIu64 ",\"asked\":%" PRIu64
           ",\"applied\":%" PRIu64 ",\"ok\":%" PRIu64 ",\"fail\":%" PRIu64 ",\"unknown\":%" PRIu64
           ",\"resets\":%" PRIu64 ",\"events\":%" PRIu64
           ",\"virtual_seconds\":%.3f,\"seconds\":%.3f}\n",
           result->seeds, result->clean, result->found, result->first_found, result->different,
           result->asked, result->applied, result->outcomes[0], result->outcomes[1],
           result->outcomes[2], result->resets, result->events, (double)result->virtual_ns / 1e9,
           result->seconds);
}

/* One seed, here in this process, so that a debugger sees it. */
static int run_here(const struct choice *choice)
{
    const struct scenario_options options = {
        .seed = choice->seed, .plant = choice->campaign.plant, .is_traced = choice->is_traced};
    struct scenario_result result = scenario_run(&options);
    if (choice->is_json)
        printf("{\"seed\":%" PRIu64 ",\"hash\":\"%016" PRIx64 "\",\"events\":%" PRIu64
               ",\"asked\":%" PRIu64 ",\"applied\":%" PRIu64 "}\n",
               choice->seed, result.hash, result.events, result.asked, result.applied);
    else
        printf("seed %" PRIu64 " is clean: %" PRIu64 " requests, %" PRIu64 " changes, %" PRIu64
               " events, %.3f virtual seconds, hash %016" PRIx64 "\n",
               choice->seed, result.asked, result.applied, result.events,
               (double)result.virtual_ns / 1e9, result.hash);
    return 0;
}

static int read_options(int argc, char **argv, struct choice *choice)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"first", required_argument, NULL, 'f'},
                                            {"seeds", required_argument, NULL, 'n'},
                                            {"seconds", required_argument, NULL, 't'},
                                            {"plant", required_argument, NULL, 'p'},
                                            {"workers", required_argument, NULL, 'w'},
                                            {"twice", required_argument, NULL, '2'},
                                            {"trace", no_argument, NULL, 'T'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct campaign *campaign = &choice->campaign;
    uint64_t number = 0;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        bool is_number = strchr("sfntw2", option) != NULL;
        if (is_number && !read_number(optarg, &number)) return wrong("\"%s\" is no number", optarg);
        switch (option) {
        case 's':
            choice->seed = number;
            choice->has_seed = true;
            break;
        case 'f': campaign->seed_first = number; break;
        case 'n': campaign->seeds_count = number; break;
        case 't': campaign->seconds_max = number; break;
        case 'p': campaign->plant = optarg; break;
        case 'w': campaign->workers = (unsigned)number; break;
        case '2': campaign->twice = (unsigned)number; break;
        case 'T': choice->is_traced = true; break;
        case 'j': choice->is_json = true; break;
        case 'h': fputs(help, stdout); exit(0);
        default: return wrong("%s is not an option, or lacks its value", argv[optind - 1]);
        }
    }
    if (optind < argc) return wrong("\"%s\" is not an option", argv[optind]);
    if (choice->is_traced && !choice->has_seed) return wrong("%s needs --seed N", "--trace");
    return 0;
}

int main(int argc, char **argv)
{
    struct choice choice = {.campaign = {.seed_first = 1,
                                         .workers = (unsigned)get_nprocs(),
                                         .twice = 50,
                                         .has_progress = isatty(STDERR_FILENO) != 0}};
    struct campaign *campaign = &choice.campaign;
    struct campaign_result result;
    int err = read_options(argc, argv, &choice);
    if (err != 0) return err;
    if (campaign->plant != NULL && strcmp(campaign->plant, "list") == 0) {
        plants_print();
        return 0;
    }
    if (campaign->plant != NULL && plant_find(campaign->plant) == NULL)
        return wrong("\"%s\" is not planted anywhere; --plant list shows what is", campaign->plant);
    if (choice.has_seed) return run_here(&choice);
    if (campaign->seeds_count == 0 && campaign->seconds_max == 0) campaign->seeds_count = 100;
    campaign_run(campaign, &result);
    if (choice.is_json)
        print_json(&result);
    else
        print_text(&result);
    return result.found > 0 || result.different > 0 ? 1 : 0;
}
