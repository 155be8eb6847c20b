/* latency.c - from the call of westlight_submit to the first instruction of the task's program.
 *
 * A private farm of real processes: broker, worker, CURVE, the sync of ACCEPTED included. The task
 * is westlight-stamp, which sends the monotonic time at which it began to a datagram socket. Beside
 * the whole, `accept` is the part until ACCEPTED (one sync), and `spawn_floor_ms` what a bare
 * posix_spawn of the same program takes on this machine in the same run.
 */
#include <tests/bench/bench.h>

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <client/local.h>
#include <proto/base/bytes.h>
#include <proto/base/clock.h>

#define RUNS_MAX  100000
#define WARM_UP   5
#define ANSWER_MS 20000

extern char **environ;

struct latency {
    char folder[128], socket_path[192], stamp[1100];
    int socket;
    long runs;
    double *start_ms, *accept_ms, *spawn_ms;
};

static void address(const char *path, struct sockaddr_un *ret_address)
{
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "%s", path);
}

static int stamp_wait(const struct latency *latency, int64_t *ret_ns)
{
    struct pollfd wait = {.fd = latency->socket, .events = POLLIN};

    if (poll(&wait, 1, ANSWER_MS) != 1 ||
        recv(latency->socket, ret_ns, sizeof(*ret_ns), 0) != sizeof(*ret_ns))
        return -ETIMEDOUT;
    return 0;
}

static int spawn_once(const struct latency *latency, double *ret_ms)
{
    char stamp[1100], path[192];
    char *argv[] = {stamp, path, NULL};
    int64_t began_ns = clock_monotonic_ns(), started_ns;
    pid_t pid;

    strcpy(stamp, latency->stamp);
    strcpy(path, latency->socket_path);
    if (posix_spawn(&pid, stamp, NULL, NULL, argv, environ) || stamp_wait(latency, &started_ns))
        return -EIO;
    waitpid(pid, NULL, 0);
    *ret_ms = (double)(started_ns - began_ns) / NS_PER_MS;
    return 0;
}

static struct westlight_job *job_make(const struct latency *latency)
{
    struct westlight_job *job = westlight_job_new("latency");
    struct westlight_step *step = westlight_job_step(job, "stamp");

    westlight_step_run(step, latency->stamp, (const char *const[]){latency->socket_path}, 1, 60);
    westlight_step_output(step, "/nothing");
    westlight_step_output_optional(step);
    return job;
}

/* Waits until the job is finished, so that the next finds the farm idle. */
static int job_finish(struct westlight *westlight, const char *id)
{
    const struct westlight_notice *notice;
    int r = westlight_watch(westlight, id);

    while (r == 0) {
        r = westlight_next(westlight, ANSWER_MS, &notice);
        if (r == 0 && notice->row.finished) {
            r = notice->row.counts.done == notice->row.counts.tasks ? 0 : -EIO;
            westlight_unwatch(westlight, id);
            return r;
        }
    }
    return r;
}

static int measure(struct latency *latency, struct westlight *westlight)
{
    for (long i = -WARM_UP; i < latency->runs; i++) {
        struct westlight_job *job = job_make(latency);
        char id[WESTLIGHT_ID_TEXT];
        int64_t began_ns = clock_monotonic_ns(), accepted_ns, started_ns;
        double spawn_ms;
        int r = westlight_submit(westlight, job, NULL, NULL, NULL, id);

        accepted_ns = clock_monotonic_ns();
        westlight_job_free(job);
        if (r || stamp_wait(latency, &started_ns) || job_finish(westlight, id) ||
            spawn_once(latency, &spawn_ms)) {
            fprintf(stderr, "westlight-bench latency: run %ld: %s\n", i, westlight_why(westlight));
            return 1;
        }
        if (i < 0)
            continue;
        latency->start_ms[i] = (double)(started_ns - began_ns) / NS_PER_MS;
        latency->accept_ms[i] = (double)(accepted_ns - began_ns) / NS_PER_MS;
        latency->spawn_ms[i] = spawn_ms;
    }
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double percentile(double *values, long n, double p)
{
    qsort(values, (size_t)n, sizeof(*values), by_value);
    return values[(long)((double)(n - 1) * p / 100 + 0.5)];
}

static void report(struct latency *latency)
{
    long n = latency->runs;

    printf("{\"bench\": \"latency\", \"runs\": %ld, \"p50_ms\": %.3f, \"p99_ms\": %.3f, "
           "\"accept_p50_ms\": %.3f, "
           "\"accept_p99_ms\": %.3f, \"spawn_floor_ms\": %.3f}\n",
           n, percentile(latency->start_ms, n, 50), percentile(latency->start_ms, n, 99),
           percentile(latency->accept_ms, n, 50), percentile(latency->accept_ms, n, 99),
           percentile(latency->spawn_ms, n, 50));
}

static int farm_run(struct latency *latency)
{
    struct local *local = NULL;
    struct westlight *westlight = NULL;
    char why[512] = "";
    int r = local_start(1, "latency", &local);

    if (r)
        return r;
    r = local_workers(local, 1);
    if (r == 0 &&
        (r = westlight_open(local_farm(local), 10000, &westlight, why, sizeof(why))) != 0)
        fprintf(stderr, "westlight-bench latency: %s\n", why);
    if (r == 0)
        r = measure(latency, westlight);
    if (r == 0)
        report(latency);
    westlight_close(westlight);
    local_stop(local);
    return r ? 1 : 0;
}

static int options_read(struct latency *latency, int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"runs", required_argument, NULL, 'n'},
                                            {NULL, 0, NULL, 0}};
    int option;

    latency->runs = 200;
    optind = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (option == '?' ||
            (option == 'n' && !options_number(optarg, 1, RUNS_MAX, &latency->runs)))
            return 2;
    return 0;
}

int bench_latency(int argc, char **argv)
{
    struct latency latency = {.folder = "/tmp/westlight-bench-XXXXXX"};
    struct sockaddr_un here;
    char self[1024] = "", *slash;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    int r = options_read(&latency, argc, argv);

    if (r || n <= 0 || !mkdtemp(latency.folder)) {
        fprintf(stderr, "usage: westlight-bench latency [--json] [--runs N]\n");
        return 2;
    }
    slash = strrchr(self, '/');
    snprintf(latency.stamp, sizeof(latency.stamp), "%.*s/westlight-stamp", (int)(slash - self),
             self);
    setenv("WESTLIGHT_LOCAL", latency.folder, 1);
    setenv("XDG_STATE_HOME", latency.folder, 1);
    snprintf(latency.socket_path, sizeof(latency.socket_path), "%s/socket", latency.folder);
    latency.socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    address(latency.socket_path, &here);
    latency.start_ms = calloc((size_t)latency.runs, sizeof(double));
    latency.accept_ms = calloc((size_t)latency.runs, sizeof(double));
    latency.spawn_ms = calloc((size_t)latency.runs, sizeof(double));
    if (bind(latency.socket, (struct sockaddr *)&here, sizeof(here)) == 0 && latency.start_ms &&
        latency.accept_ms && latency.spawn_ms)
        r = farm_run(&latency);
    else
        r = 1;

    close(latency.socket);
    folder_remove(latency.folder);
    free(latency.start_ms);
    free(latency.accept_ms);
    free(latency.spawn_ms);
    return r;
}
