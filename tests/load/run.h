/* run.h - a run of westlight-load: what was asked for, and what has come of it. */
#pragma once

#include <tests/load/engine.h>
#include <tests/load/private.h>

enum { FAILED = 1, EXPECTS_MAX = 64, FIGURES_MAX = 64 };

struct figure {
    const char *key;
    double value;
    int decimals;
};

struct run {
    struct load_config config;
    const char *broker_endpoint, *server_key, *keys_file, *public_role;
    bool spawn, json, progress, check_set, check_all, queue_first;
    uint64_t task_ms, kill_after_s, kills;
    const char *expects[EXPECTS_MAX];
    size_t n_expects;

    struct private_broker broker;
    struct load *load;
    int64_t rss_before, rss_joined, rss_most, rss_ns, kill_ns, back_ns, looked_ns, told_ns;
    uint32_t epoch_before;
    double reconnect_s; /* the longest */
    uint64_t killed, lost, duplicated, batches;
    int64_t cpu_ns, rss_bytes;
    int64_t begun_ns; /* of what is measured */
    int64_t queue_cpu_ns, rss_queued; /* queue_first: what all submissions took; after them */
    struct figure figures[FIGURES_MAX];
    size_t n_figures;
};

/* report.c */
bool expect_split(const char *text, char key[64], bool *ret_least, double *ret_n); /* "KEY>=N" or "KEY<=N" */
void figures_make(struct run *run);
void report(const struct run *run);
/* 0, or FAILED after a line on standard error. */
int expects_check(const struct run *run);
int counts_check(const struct run *run);
