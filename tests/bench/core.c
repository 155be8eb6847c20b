/* core.c - events a second through the core alone: a full farm, and queues that stay long.
 *
 * Every worker keeps all its slots and its queue full; each task is three events (started,
 * progress, result), and each worker beats once for each round of its slots. What the core says is
 * taken and acted upon as a worker would, within the time that is measured; nothing is stored or
 * sent.
 */
#include <tests/bench/bench.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <proto/base/clock.h>
#include <tests/bench/bare.h>

int bench_core(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},         {"workers", required_argument, NULL, 'w'},
        {"jobs", required_argument, NULL, 'n'},   {"tasks", required_argument, NULL, 't'},
        {"events", required_argument, NULL, 'e'}, {0}};
    unsigned long workers = 1000, jobs = 400, tasks = 4000000, events = 5000000;

    for (int option; (option = getopt_long(argc, argv, "j", options, NULL)) != -1;) {
        if (option == 'w')
            workers = strtoul(optarg, NULL, 10);
        else if (option == 'n')
            jobs = strtoul(optarg, NULL, 10);
        else if (option == 't')
            tasks = strtoul(optarg, NULL, 10);
        else if (option == 'e')
            events = strtoul(optarg, NULL, 10);
        else if (option != 'j')
            return 2;
    }
    if (workers == 0 || workers > LIMIT_WORKERS || jobs == 0 || tasks < jobs) {
        fprintf(stderr,
                "usage: westlight-bench core [--json] [--workers 1-%d] [--jobs N] "
                "[--tasks N, one a job at least] [--events N]\n",
                LIMIT_WORKERS);
        return 2;
    }
    struct bare_config config = {
        .workers = (uint32_t)workers, .slots = 4, .prefetch = 2, .told = true};
    struct bare bare;
    struct rusage before, after;

    bare_init(&bare, &config);
    getrusage(RUSAGE_SELF, &before);
    for (uint32_t i = 0; i < jobs; i++)
        bare_submit(&bare, i, tasks / jobs);
    getrusage(RUSAGE_SELF, &after);
    bare_join(&bare);
    uint64_t ahead = bare.events, assigned = bare.assigned;
    int64_t began_ns = clock_monotonic_ns();

    while (bare.events - ahead < events && bare_round(&bare) > 0)
        ;
    double seconds = (double)(clock_monotonic_ns() - began_ns) / 1e9;
    double n = (double)(bare.events - ahead);

    printf("{\"bench\": \"core\", \"workers\": %lu, \"slots\": %u, \"studios\": %d, \"jobs\": %lu, "
           "\"tasks\": %lu, \"events\": %.0f, \"results\": %llu, \"assigned\": %llu, "
           "\"seconds\": %.3f, \"rate_per_s\": %.0f, \"ns_per_event\": %.0f, "
           "\"queued_bytes_per_task\": %.2f}\n",
           workers, config.slots, BARE_STUDIOS, jobs, tasks, n, (unsigned long long)bare.done,
           (unsigned long long)(bare.assigned - assigned), seconds, n / seconds, 1e9 * seconds / n,
           1024.0 * (double)(after.ru_maxrss - before.ru_maxrss) / (double)tasks);
    bare_deinit(&bare);
    return 0;
}
