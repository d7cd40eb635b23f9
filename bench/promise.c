#include "bench/promise.h"

#include <string.h>

#include "bench/report.h"
#include "cli/output.h"

double promise_ratio(const struct promise *promise)
{
    return promise->limit > 0 ? promise->ours / promise->limit : 0;
}

static bool needs_per_s(const struct promise *promise)
{
    return promise->if_limit_s > 0 && promise->limit >= promise->if_limit_s;
}

enum promise_verdict promise_judge(const struct promise *promise)
{
    double ratio = promise_ratio(promise);
    if (!promise->is_verified || ratio <= 0) return PROMISE_UNVERIFIED;
    if (promise->target <= 0) return PROMISE_NONE;
    if (promise->kind != PROMISE_RATE)
        return ratio <= promise->target ? PROMISE_MET : PROMISE_MISSED;
    if (ratio < promise->target) return PROMISE_MISSED;
    return needs_per_s(promise) && promise->ours < promise->per_s ? PROMISE_MISSED : PROMISE_MET;
}

const char *promise_verdict_text(enum promise_verdict verdict)
{
    static const char *const texts[] = {"", "met", "missed", "NOT VERIFIED"};
    return texts[verdict];
}

const char *promise_target_text(const struct promise *promise, char text[PROMISE_TEXT_BYTES])
{
    text[0] = 0;
    if (promise->target <= 0) return text;
    int used = snprintf(text, PROMISE_TEXT_BYTES, "%s %.2f",
                        promise->kind == PROMISE_RATE ? ">=" : "<=", promise->target);
    if (needs_per_s(promise))
        snprintf(text + used, PROMISE_TEXT_BYTES - (size_t)used, " and %.3gM/s",
                 promise->per_s / 1e6);
    return text;
}

const char *promise_figure_text(const struct promise *promise, double figure,
                                char text[PROMISE_TEXT_BYTES])
{
    char rate[REPORT_NUMBER_BYTES];
    switch (promise->kind) {
    case PROMISE_RATE: snprintf(text, PROMISE_TEXT_BYTES, "%s/s", report_rate(figure, rate)); break;
    case PROMISE_LATENCY: snprintf(text, PROMISE_TEXT_BYTES, "%.1f us", figure); break;
    case PROMISE_COST: snprintf(text, PROMISE_TEXT_BYTES, "%.1f ns", figure); break;
    }
    return text;
}

/* ------------------------------------------------------------------------------------- table */

static const char *ns_text(double ns, char text[PROMISE_TEXT_BYTES])
{
    text[0] = 0;
    if (ns > 0) snprintf(text, PROMISE_TEXT_BYTES, "%.1f", ns);
    return text;
}

void promise_put_table(FILE *to, const struct promise *promises, uint32_t count)
{
    char ours[PROMISE_TEXT_BYTES];
    char limit[PROMISE_TEXT_BYTES];
    char server[PROMISE_TEXT_BYTES];
    char client[PROMISE_TEXT_BYTES];
    char target[PROMISE_TEXT_BYTES];
    fprintf(to, "%-32s %10s %10s %6s %8s %8s  %s\n", "what", "ours", "limit", "ratio", "server",
            "client", "target");
    fprintf(to, "%-32s %10s %10s %6s %8s %8s\n", "", "", "", "", "ns/msg", "ns/msg");
    for (uint32_t i = 0; i < count; i++) {
        const struct promise *promise = &promises[i];
        fprintf(to, "%-32s %10s %10s %6.2f %8s %8s  %-17s %s\n", promise->what,
                promise_figure_text(promise, promise->ours, ours),
                promise_figure_text(promise, promise->limit, limit), promise_ratio(promise),
                ns_text(promise->server_ns_per_msg, server),
                ns_text(promise->client_ns_per_msg, client), promise_target_text(promise, target),
                promise_verdict_text(promise_judge(promise)));
    }
}

void promise_put_json(FILE *to, const struct promise *promises, uint32_t count)
{
    static const char *const units[] = {"per_s", "us", "ns_per_msg"};
    fputc('[', to);
    for (uint32_t i = 0; i < count; i++) {
        const struct promise *promise = &promises[i];
        enum promise_verdict verdict = promise_judge(promise);
        fprintf(to, "%s{\"what\":", i > 0 ? "," : "");
        json_put_string(to, promise->what, strlen(promise->what));
        fprintf(to, ",\"unit\":\"%s\",\"ours\":%.3f,\"limit\":%.3f,\"ratio\":%.4f,",
                units[promise->kind], promise->ours, promise->limit, promise_ratio(promise));
        if (promise->target > 0)
            fprintf(to, "\"%s\":%.2f,\"met\":%s,",
                    promise->kind == PROMISE_RATE ? "at_least" : "at_most", promise->target,
                    verdict == PROMISE_MET ? "true" : "false");
        fprintf(to, "\"verified\":%s}", verdict == PROMISE_UNVERIFIED ? "false" : "true");
    }
    fputc(']', to);
}
