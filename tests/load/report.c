/* report.c - the figures of a run, and what is expected of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/clock.h>
#include <tests/load/run.h>

static void figure(struct run *run, const char *key, double value, int decimals)
{
    if (run->n_figures < FIGURES_MAX)
        run->figures[run->n_figures++] = (struct figure){key, value, decimals};
}

void figures_make(struct run *run)
{
    const struct load_counts *counts = load_counts(run->load);
    const struct load_config *config = &run->config;
    double frames = (double)(config->jobs * config->frames);
    int64_t begun_ns = load_first_submit_ns(run->load);
    double s = (double)(load_last_commit_ns(run->load) - run->begun_ns) / NS_PER_S;
    double submit_s = (double)(load_accepted_ns(run->load) - begun_ns) / NS_PER_S;

    figure(run, "workers", config->workers, 0);
    figure(run, "slots", config->slots, 0);
    figure(run, "jobs", (double)config->jobs, 0);
    figure(run, "frames", frames, 0);
    figure(run, "seconds", s, 3);
    figure(run, "rate_per_s", frames / s, 0);
    figure(run, "frames_per_s", frames / s, 0);
    figure(run, "p50_ms", load_latency_ms(run->load, 50), 3);
    figure(run, "p99_ms", load_latency_ms(run->load, 99), 3);
    figure(run, "p999_ms", load_latency_ms(run->load, 99.9), 3);
    figure(run, "submit_to_first_lease_ms",
           (double)(load_first_lease_ns(run->load) - begun_ns) / NS_PER_MS, 3);
    figure(run, "submits_per_s", (double)config->jobs / submit_s, 0);
    figure(run, "accept_ms", (double)load_accept_ns(run->load) / NS_PER_MS, 3);
    if (run->spawn) {
        figure(run, "cpu_us_per_frame", (double)run->cpu_ns / NS_PER_US / frames, 3);
        figure(run, "rss_bytes", (double)run->rss_bytes, 0);
        figure(run, "rss_bytes_per_worker",
               (double)(run->rss_joined - run->rss_before) / config->workers, 0);
        figure(run, "rss_most_bytes", (double)run->rss_most, 0);
    }
    if (run->spawn && run->queue_first) {
        figure(run, "submit_cpu_us_per_job",
               (double)run->queue_cpu_ns / NS_PER_US / (double)config->jobs, 3);
        figure(run, "rss_bytes_per_frame", (double)(run->rss_queued - run->rss_joined) / frames, 3);
        figure(run, "rss_most_bytes_per_frame", (double)(run->rss_most - run->rss_joined) / frames,
               3);
    }
    figure(run, "messages_per_frame", (double)(counts->messages_in + counts->messages_out) / frames,
           3);
    figure(run, "bytes_per_frame", (double)(counts->bytes_in + counts->bytes_out) / frames, 1);
    if (run->spawn && run->killed == 0)
        figure(run, "syncs_per_frame", (double)run->batches / frames, 5);
    figure(run, "results", (double)counts->results, 0);
    figure(run, "committed", (double)counts->committed, 0);
    figure(run, "already", (double)counts->already, 0);
    figure(run, "dropped", (double)counts->lapsed, 0);
    figure(run, "stale", (double)counts->stale, 0);
    figure(run, "busy", (double)counts->busy, 0);
    figure(run, "left", (double)counts->left, 0);
    figure(run, "hellos", (double)counts->hellos, 0);
    if (run->kills) {
        figure(run, "kills", (double)run->killed, 0);
        figure(run, "reconnect_s", run->reconnect_s, 3);
    }
    figure(run, "parked", (double)counts->parked, 0);
    figure(run, "lost", (double)run->lost, 0);
    figure(run, "duplicated", (double)run->duplicated, 0);
    figure(run, "rerun", (double)counts->rerun, 0);
    figure(run, "foreign", (double)counts->foreign, 0);
}

void report(const struct run *run)
{
    printf(run->json ? "{\"bench\": \"load\", \"seed\": %llu" : "seed %llu\n",
           (unsigned long long)run->config.seed);
    for (size_t i = 0; i < run->n_figures; i++) {
        const struct figure *row = &run->figures[i];

        printf(run->json ? ", \"%s\": %.*f" : "%-26s %.*f\n", row->key, row->decimals, row->value);
    }
    if (run->json)
        printf("}\n");
}

bool expect_split(const char *text, char key[64], bool *ret_least, double *ret_n)
{
    size_t size = strcspn(text, "<>");
    char *end;

    if (size == 0 || size >= 64 || text[size] == 0 || text[size + 1] != '=')
        return false;
    memcpy(key, text, size);
    key[size] = 0;
    *ret_least = text[size] == '>';
    *ret_n = strtod(text + size + 2, &end);
    return end > text + size + 2 && *end == 0;
}

int expects_check(const struct run *run)
{
    int r = 0;

    for (size_t i = 0; i < run->n_expects; i++) {
        const struct figure *found = NULL;
        char key[64];
        bool least;
        double n;

        if (!expect_split(run->expects[i], key, &least, &n))
            return FAILED;
        for (size_t k = 0; k < run->n_figures; k++)
            if (strcmp(run->figures[k].key, key) == 0)
                found = &run->figures[k];
        if (!found) {
            fprintf(stderr, "westlight-load: --expect %s: there is no such figure\n",
                    run->expects[i]);
            r = FAILED;
        } else if (least ? !(found->value >= n) : !(found->value <= n)) {
            fprintf(stderr, "westlight-load: expected %s, and it is %.*f\n", run->expects[i],
                    found->decimals, found->value);
            r = FAILED;
        }
    }
    return r;
}

int counts_check(const struct run *run)
{
    const struct load_counts *counts = load_counts(run->load);

    if (run->lost == 0 && run->duplicated == 0 && counts->foreign == 0 && counts->rerun == 0)
        return 0;
    fprintf(stderr,
            "westlight-load: WRONG COUNTS: %llu frames lost, %llu twice, %llu run again after they "
            "were committed, %llu of others (seed %llu)\n",
            (unsigned long long)run->lost, (unsigned long long)run->duplicated,
            (unsigned long long)counts->rerun, (unsigned long long)counts->foreign,
            (unsigned long long)run->config.seed);
    return FAILED;
}
