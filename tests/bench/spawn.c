/* spawn.c - tasks a second through one real worker, where the task is nothing: /bin/true.
 *
 * A private farm of real processes on this machine: broker, worker, CURVE, sessions, the log
 * captured, every result committed. The ceiling is a bare loop of posix_spawn and waitpid of the
 * same program, with as many at once as the worker has slots. Both are measured in turns, so that
 * what else the machine does is in both, and the ratio is the median of the rounds'.
 */
#include <tests/bench/bench.h>

#include <getopt.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <proto/base/clock.h>
#include <proto/limits.h>
#include <tests/bench/farm.h>

#define ROUNDS_MAX 50
#define WARM_UP    200
#define PROGRAM    "/bin/true"

extern char **environ;

struct spawn_bench {
    struct farm farm;
    long tasks, slots, prefetch, rounds;
    double rate[ROUNDS_MAX], ceiling[ROUNDS_MAX], sequential[ROUNDS_MAX], ratio[ROUNDS_MAX];
    double worker_us[ROUNDS_MAX], broker_us[ROUNDS_MAX], bare_us[ROUNDS_MAX];
};

/* Processes a second, `at_once` of them at a time. */
static int bare(long n, long at_once, double *ret_rate)
{
    char *argv[] = {(char[]){PROGRAM}, NULL};
    int64_t began_ns = clock_monotonic_ns();
    long started = 0, running = 0;
    pid_t pid;

    while (started < n || running > 0) {
        if (started < n && running < at_once) {
            if (posix_spawn(&pid, PROGRAM, NULL, NULL, argv, environ))
                return 1;
            started++;
            running++;
        } else if (waitpid(-1, NULL, 0) > 0) {
            running--;
        }
    }
    *ret_rate = (double)n * NS_PER_S / (double)(clock_monotonic_ns() - began_ns);
    return 0;
}

static double own_cpu_us(void)
{
    struct rusage own, children;

    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &children);
    return 1e6 * (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec + children.ru_utime.tv_sec +
                          children.ru_stime.tv_sec) +
           (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec + children.ru_utime.tv_usec +
                    children.ru_stime.tv_usec);
}

static int farm_job(struct farm *farm, long tasks)
{
    struct westlight_job *job = westlight_job_new("spawn");
    struct westlight_step *step = westlight_job_step(job, "true");
    struct westlight_range range = {1, tasks, 1};
    char id[WESTLIGHT_ID_TEXT];
    int r;

    westlight_step_ints(step, "Frame", &range, 1, 1);
    westlight_step_run(step, PROGRAM, NULL, 0, 60);
    westlight_step_output(step, "/nothing");
    westlight_step_output_optional(step);
    r = westlight_submit(farm->westlight, job, NULL, NULL, NULL, id);
    westlight_job_free(job);
    if (r)
        fprintf(stderr, "westlight-bench spawn: %s\n", westlight_why(farm->westlight));
    return r ? 1 : farm_finish(farm, id);
}

static int round_run(struct spawn_bench *bench, long i)
{
    struct farm *farm = &bench->farm;
    pid_t broker = local_broker(farm->local);
    double own_us = own_cpu_us(), n = (double)bench->tasks;
    uint64_t worker_us, broker_us;
    int64_t began_ns;

    if (bare(bench->tasks, bench->slots, &bench->ceiling[i]))
        return 1;
    bench->bare_us[i] = (own_cpu_us() - own_us) / n;
    worker_us = farm_cpu_us(farm->worker);
    broker_us = farm_cpu_us(broker);
    began_ns = clock_monotonic_ns();
    if (farm_job(farm, bench->tasks))
        return 1;
    bench->rate[i] = n * NS_PER_S / (double)(clock_monotonic_ns() - began_ns);
    bench->worker_us[i] = (double)(farm_cpu_us(farm->worker) - worker_us) / n;
    bench->broker_us[i] = (double)(farm_cpu_us(broker) - broker_us) / n;
    bench->ratio[i] = bench->rate[i] / bench->ceiling[i];
    return bare(bench->tasks, 1, &bench->sequential[i]);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, long n)
{
    qsort(values, (size_t)n, sizeof(*values), by_value);
    return values[n / 2];
}

static void report(struct spawn_bench *bench)
{
    long n = bench->rounds;

    printf("{\"bench\": \"spawn\", \"tasks\": %ld, \"rounds\": %ld, \"slots\": %ld, "
           "\"prefetch\": %ld, \"rate_per_s\": %.0f, \"ceiling_per_s\": %.0f, \"ratio\": %.3f, "
           "\"sequential_per_s\": %.0f, \"cpu_us_per_frame\": %.0f, \"bare_cpu_us\": %.0f, "
           "\"broker_cpu_us_per_frame\": %.0f}\n",
           bench->tasks, n, bench->slots, bench->prefetch, median(bench->rate, n),
           median(bench->ceiling, n), median(bench->ratio, n), median(bench->sequential, n),
           median(bench->worker_us, n), median(bench->bare_us, n), median(bench->broker_us, n));
}

static int options_read(struct spawn_bench *bench, int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},         {"tasks", required_argument, NULL, 't'},
        {"slots", required_argument, NULL, 's'},  {"prefetch", required_argument, NULL, 'p'},
        {"rounds", required_argument, NULL, 'r'}, {NULL, 0, NULL, 0}};
    bool good = true;
    int option;

    *bench = (struct spawn_bench){
        .tasks = 4000, .rounds = 3, .prefetch = 16, .slots = sysconf(_SC_NPROCESSORS_ONLN)};
    optind = 0;
    while (good && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 't')
            good = options_number(optarg, 1, 1000000, &bench->tasks);
        else if (option == 's')
            good = options_number(optarg, 1, LIMIT_SLOTS, &bench->slots);
        else if (option == 'p')
            good = options_number(optarg, 0, LIMIT_PREFETCH, &bench->prefetch);
        else if (option == 'r')
            good = options_number(optarg, 1, ROUNDS_MAX, &bench->rounds);
        else
            good = option == 'j';
    }
    return good && optind == argc ? 0 : 2;
}

int bench_spawn(int argc, char **argv)
{
    struct spawn_bench bench;
    int r = options_read(&bench, argc, argv);

    if (r) {
        fprintf(stderr, "usage: westlight-bench spawn [--json] [--tasks N] [--slots N] "
                        "[--prefetch N] [--rounds N]\n");
        return r;
    }
    r = farm_start(&bench.farm);
    if (r == 0)
        r = farm_worker(&bench.farm, (unsigned)bench.slots, (unsigned)bench.prefetch, 0);
    if (r == 0)
        r = farm_job(&bench.farm, WARM_UP);
    for (long i = 0; r == 0 && i < bench.rounds; i++)
        r = round_run(&bench, i);
    if (r == 0)
        report(&bench);
    farm_stop(&bench.farm);
    return r;
}
