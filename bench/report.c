#include "bench/report.h"

#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "cli/output.h"
#include "fero.h"

const char *report_number(double number, char text[REPORT_NUMBER_BYTES])
{
    /* A hair more, so that 0.29 * 100 does not become 28.999... and then 0.28. */
    double cut = floor(number * 100 * (1 + 1e-15)) / 100;
    int bytes = snprintf(text, REPORT_NUMBER_BYTES, "%.2f", cut);
    ASSERT(bytes > 3);
    while (text[bytes - 1] == '0') text[--bytes] = 0;
    if (text[bytes - 1] == '.') text[--bytes] = 0;
    return text;
}

const char *report_rate(double per_s, char text[REPORT_NUMBER_BYTES])
{
    if (per_s >= 1e6)
        snprintf(text, REPORT_NUMBER_BYTES, "%.2fM", per_s / 1e6);
    else if (per_s >= 1e3)
        snprintf(text, REPORT_NUMBER_BYTES, "%.1fk", per_s / 1e3);
    else
        snprintf(text, REPORT_NUMBER_BYTES, "%.0f", per_s);
    return text;
}

static double mb_per_s(const struct speed_result *result, double seconds)
{
    return speed_per_s(result, seconds) * result->about.message_bytes / (1 << 20);
}

/* ------------------------------------------------------------------------------------ blocks */

static void put_line(FILE *to, const struct speed_result *result, const char *what, double seconds)
{
    char ms[REPORT_NUMBER_BYTES];
    char sec[REPORT_NUMBER_BYTES];
    char rate[REPORT_NUMBER_BYTES];
    char speed[REPORT_NUMBER_BYTES];
    fprintf(to, "  * %s: %s ms (%s sec) | %s records/sec | %s MB/sec\n", what,
            report_number(seconds * 1e3, ms), report_number(seconds, sec),
            report_number(speed_per_s(result, seconds), rate),
            report_number(mb_per_s(result, seconds), speed));
}

void report_block(FILE *to, const struct speed_result *result)
{
    char stable[REPORT_NUMBER_BYTES];
    char connected[REPORT_NUMBER_BYTES];
    const struct speed_case *about = &result->about;
    fprintf(to, "\n%llu records, %u peers, %u clients, %u bytes\n",
            (unsigned long long)about->records, about->servers, about->clients,
            about->message_bytes);
    fprintf(to, "  * stable: %s ms\n", report_number(result->stable_ms, stable));
    fprintf(to, "  * connected: %s ms\n", report_number(result->connected_ms, connected));
    put_line(to, result, "tacks", speed_series_median(&result->tacks_s));
    put_line(to, result, "yacks", speed_series_median(&result->yacks_s));
    put_line(to, result, "sacks", speed_series_median(&result->sacks_s));
    fputc('\n', to);
}

static const char *busy_side(const struct speed_result *result)
{
    double server = speed_series_median(&result->server_busy);
    double client = speed_series_median(&result->client_busy);
    if (result->about.rate_per_s > 0) return "neither";
    if (server == 0 || fabs(server - client) < 0.05) return server == 0 ? "unknown" : "both";
    return server > client ? "server" : "client";
}

static double us(const struct histogram *histogram, double percentile)
{
    return (double)histogram_percentile_ns(histogram, percentile) / 1e3;
}

void report_notes(FILE *to, const struct speed_result *result)
{
    char low[REPORT_NUMBER_BYTES];
    char high[REPORT_NUMBER_BYTES];
    const struct speed_case *about = &result->about;
    if (result->sacks_s.count > 1)
        fprintf(to, "    %s, median of %u runs: sacks from %s/s to %s/s\n",
                sender_verb_names[about->verb], result->sacks_s.count,
                report_rate(speed_per_s(result, speed_series_max(&result->sacks_s)), low),
                report_rate(speed_per_s(result, speed_series_min(&result->sacks_s)), high));
    else
        fprintf(to, "    %s, one run\n", sender_verb_names[about->verb]);
    if (about->sockets > 1)
        fprintf(to, "    %u sockets from each client to each server\n", about->sockets);
    if (about->rate_per_s > 0)
        fprintf(to, "    open loop at %s/s: ", report_rate(about->rate_per_s, low));
    else
        fprintf(to, "    closed loop, full window: ");
    fprintf(to, "p50 %.1f us, p99 %.1f us, p99.9 %.1f us\n", us(&result->latencies, 50),
            us(&result->latencies, 99), us(&result->latencies, 99.9));
    fprintf(to, "    server %.1f ns/msg (busy %.0f %%), client %.1f ns/msg (busy %.0f %%); ",
            speed_series_median(&result->server_ns_per_msg),
            100 * speed_series_median(&result->server_busy),
            speed_series_median(&result->client_ns_per_msg),
            100 * speed_series_median(&result->client_busy));
    fprintf(to, "busy side: %s\n", busy_side(result));
    double limit = speed_series_median(&result->limit_per_s);
    if (limit > 0)
        fprintf(to, "    limit %s/s, share %.2f\n", report_rate(limit, high),
                speed_per_s(result, speed_series_median(&result->sacks_s)) / limit);
    if (speed_is_verified(result))
        fprintf(to, "    verified: %llu replies, last values of %llu keys\n",
                (unsigned long long)result->replies, (unsigned long long)result->keys_checked);
    else
        fprintf(to, "    NOT verified: %llu of %llu replies failed, %llu mismatches\n",
                (unsigned long long)result->failed, (unsigned long long)result->replies,
                (unsigned long long)result->mismatches);
}

/* -------------------------------------------------------------------------------------- JSON */

static void put_json_line(FILE *to, const struct speed_result *result, const char *what,
                          const struct speed_series *seconds)
{
    double median = speed_series_median(seconds);
    fprintf(to, "\"%s_ms\":%.3f,\"%s_per_s\":%.2f,\"%s_mb_per_s\":%.2f,", what, median * 1e3, what,
            speed_per_s(result, median), what, mb_per_s(result, median));
    fprintf(to, "\"%s_per_s_min\":%.2f,\"%s_per_s_max\":%.2f,", what,
            speed_per_s(result, speed_series_max(seconds)), what,
            speed_per_s(result, speed_series_min(seconds)));
}

void report_machine_json(FILE *to)
{
    char machine[CPUS_TEXT_BYTES];
    cpus_machine(machine);
    fprintf(to, "\"machine\":");
    json_put_string(to, machine, strlen(machine));
    fprintf(to, ",\"version\":\"%s\"", FERO_VERSION);
}

void report_json(FILE *to, const struct speed_result *result)
{
    char cpus[CPUS_TEXT_BYTES];
    const struct speed_case *about = &result->about;
    fprintf(to, "{\"bench\":\"speed\",\"verb\":\"%s\",\"records\":%llu,\"message_bytes\":%u,",
            sender_verb_names[about->verb], (unsigned long long)about->records,
            about->message_bytes);
    fprintf(to,
            "\"servers\":%u,\"shards\":%u,\"clients\":%u,\"sockets\":%u,\"keys\":%llu,\"runs\":%u,",
            about->servers, about->shards, about->clients, about->sockets,
            (unsigned long long)about->keys, result->sacks_s.count);
    fprintf(to, "\"stable_ms\":%.3f,\"connected_ms\":%.3f,", result->stable_ms,
            result->connected_ms);
    put_json_line(to, result, "tacks", &result->tacks_s);
    put_json_line(to, result, "yacks", &result->yacks_s);
    put_json_line(to, result, "sacks", &result->sacks_s);
    if (about->rate_per_s > 0)
        fprintf(to, "\"loop\":\"open\",\"rate_per_s\":%.2f,", about->rate_per_s);
    else
        fprintf(to, "\"loop\":\"closed\",");
    fprintf(to, "\"p50_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f,\"max_us\":%.3f,",
            us(&result->latencies, 50), us(&result->latencies, 99), us(&result->latencies, 99.9),
            us(&result->latencies, 100));
    fprintf(to, "\"server_ns_per_msg\":%.2f,\"client_ns_per_msg\":%.2f,",
            speed_series_median(&result->server_ns_per_msg),
            speed_series_median(&result->client_ns_per_msg));
    fprintf(to, "\"server_busy\":%.3f,\"client_busy\":%.3f,\"busy_side\":\"%s\",",
            speed_series_median(&result->server_busy), speed_series_median(&result->client_busy),
            busy_side(result));
    double limit = speed_series_median(&result->limit_per_s);
    if (limit > 0)
        fprintf(to, "\"limit_per_s\":%.2f,\"share_of_limit\":%.4f,", limit,
                speed_per_s(result, speed_series_median(&result->sacks_s)) / limit);
    fprintf(to, "\"replies\":%llu,\"failed\":%llu,\"keys_checked\":%llu,\"mismatches\":%llu,",
            (unsigned long long)result->replies, (unsigned long long)result->failed,
            (unsigned long long)result->keys_checked, (unsigned long long)result->mismatches);
    fprintf(to, "\"verified\":%s,\"cpus\":", speed_is_verified(result) ? "true" : "false");
    cpus_describe(&result->plan, cpus);
    json_put_string(to, cpus, strlen(cpus));
    fputc(',', to);
    report_machine_json(to);
    fputs("}\n", to);
}

/* ----------------------------------------------------------------------------------- latency */

/* Two digits behind the point were enough for 60 us; below a millisecond there are four. */
static const char *put_ms(double ms, char text[REPORT_NUMBER_BYTES])
{
    if (ms >= 1) return report_number(ms, text);
    int bytes = snprintf(text, REPORT_NUMBER_BYTES, "%.4f", ms);
    while (bytes > 1 && text[bytes - 1] == '0') text[--bytes] = 0;
    if (text[bytes - 1] == '.') text[--bytes] = 0;
    return text;
}

void report_latency(FILE *to, const struct histogram *histogram)
{
    static const double percentiles[] = {10, 50, 90, 99, 99.9, 99.99};
    char texts[ARRAY_COUNT(percentiles) + 1][REPORT_NUMBER_BYTES];
    int width = 4;
    put_ms(histogram_mean_ns(histogram) / 1e6, texts[0]);
    for (size_t i = 0; i < ARRAY_COUNT(percentiles); i++)
        put_ms((double)histogram_percentile_ns(histogram, percentiles[i]) / 1e6, texts[i + 1]);
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        if ((int)strlen(texts[i]) > width) width = (int)strlen(texts[i]);
    fprintf(to, "%16s %-*s ms\n", "mean", width, texts[0]);
    for (size_t i = 0; i < ARRAY_COUNT(percentiles); i++)
        fprintf(to, "%-5g percentile %-*s ms\n", percentiles[i], width, texts[i + 1]);
}

void report_latency_json(FILE *to, const struct latency_result *result)
{
    const struct latency_case *about = &result->about;
    static const char *const waiting[] = {"adaptive", "busy-poll", "idle"};
    char cpus[CPUS_TEXT_BYTES];
    fprintf(to, "{\"bench\":\"latency\",\"verb\":\"%s\",\"messages\":%llu,\"message_bytes\":%u,",
            sender_verb_names[about->verb], (unsigned long long)about->messages,
            about->message_bytes);
    fprintf(to, "\"loop\":\"closed\",\"waiting\":\"%s\",\"mean_us\":%.3f,", waiting[about->waiting],
            histogram_mean_ns(&result->ours) / 1e3);
    fprintf(to,
            "\"p10_us\":%.3f,\"p50_us\":%.3f,\"p90_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f,"
            "\"p9999_us\":%.3f,\"max_us\":%.3f,",
            us(&result->ours, 10), us(&result->ours, 50), us(&result->ours, 90),
            us(&result->ours, 99), us(&result->ours, 99.9), us(&result->ours, 99.99),
            us(&result->ours, 100));
    if (about->limit)
        fprintf(to,
                "\"limit_p50_us\":%.3f,\"limit_p99_us\":%.3f,\"p50_of_limit\":%.3f,"
                "\"p99_of_limit\":%.3f,",
                us(&result->limit, 50), us(&result->limit, 99), latency_ratio(&result->p50),
                latency_ratio(&result->p99));
    fprintf(to, "\"wrong\":%llu,\"cpus\":", (unsigned long long)result->wrong);
    cpus_describe(&result->plan, cpus);
    json_put_string(to, cpus, strlen(cpus));
    fputc(',', to);
    report_machine_json(to);
    fputs("}\n", to);
}

/* ---------------------------------------------------------------------------------- crossing */

void report_crossing_json(FILE *to, const struct crossing_result *result)
{
    const struct crossing_case *about = &result->about;
    char cpus[CPUS_TEXT_BYTES];
    fprintf(to, "{\"bench\":\"crossing\",\"records\":%llu,\"message_bytes\":%u,\"keys\":%u,",
            (unsigned long long)about->records, about->message_bytes, about->keys);
    fprintf(to, "\"runs\":%u,\"none_per_s\":%.2f,\"half_per_s\":%.2f,", result->ratio.count,
            speed_series_median(&result->none.per_s), speed_series_median(&result->half.per_s));
    fprintf(to, "\"none_server_ns_per_msg\":%.2f,\"half_server_ns_per_msg\":%.2f,",
            speed_series_median(&result->none.server_ns_per_msg),
            speed_series_median(&result->half.server_ns_per_msg));
    fprintf(to, "\"half_of_none\":%.3f,\"half_of_none_min\":%.3f,\"half_of_none_max\":%.3f,",
            speed_series_median(&result->ratio), speed_series_min(&result->ratio),
            speed_series_max(&result->ratio));
    fprintf(to, "\"crossed\":%.4f,\"replies\":%llu,\"failed\":%llu,\"verified\":%s,\"cpus\":",
            result->crossed, (unsigned long long)result->replies,
            (unsigned long long)result->failed, crossing_is_verified(result) ? "true" : "false");
    cpus_describe(&result->plan, cpus);
    json_put_string(to, cpus, strlen(cpus));
    fputc(',', to);
    report_machine_json(to);
    fputs("}\n", to);
}
