/* latency.c - how long an idle farm takes to begin, and a busy one between two tasks.
 *
 * A private farm of real processes: broker, worker, CURVE, the sync of ACCEPTED included. The task
 * is westlight-stamp, which sends the monotonic time at which it began to a datagram socket.
 *
 * p50_ms, p99_ms: from the call of westlight_submit to the first instruction of the task's program;
 * `accept` is the part until ACCEPTED (one sync), and `spawn_floor_ms` what a bare posix_spawn of
 * the same program takes on this machine in the same run.
 *
 * `hand_p50_ms` is the part until the worker has all in hand and is about to spawn, by its own log.
 *
 * next: on one slot that has leases ahead, from the last instruction of one program to the first of
 * the next, less what the same takes in a bare loop of posix_spawn and waitpid: so it is what the
 * worker adds to that. next_hand: from that last instruction to the moment in which the slot has
 * its next lease in hand and is about to spawn, nothing taken off: the kernel's end of the process
 * is part of it. next_slot: the same from when nothing of the last task runs any more, so that its
 * slot is free. next_far and so on: the same with a relay between worker and broker that holds all
 * for --delay milliseconds, each way.
 *
 * With --idle MS nothing happens for so long before each submission, so that all that is given back
 * when a farm has nothing to do has been.
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
#include <proto/base/bytes.h>
#include <proto/base/clock.h>
#include <tests/bench/farm.h>

#define RUNS_MAX  100000
#define WARM_UP   5
#define ANSWER_MS 20000
#define NEXT_MS   "10"
#define PREFETCH  8 /* of 10 ms each: more than there and back at 16 ms takes */

extern char **environ;

struct latency {
    struct farm farm;
    char socket_path[192], stamp[1100];
    int socket;
    long runs, next, delay_ms, idle_ms;
    double *start_ms, *accept_ms, *hand_ms, *spawn_ms;
    double *next_ms[3];                        /* bare, near, far */
    double *next_hand_ms[3], *next_slot_ms[3]; /* the first stays empty */
    FILE *log;                                 /* the worker's */
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

/* When the worker had its next lease in hand, by its log: "... turn step=0 task=3 attempt=4 free=5
 * ns=6"; and since when its slot was free, 0 where no lease waited for that. */
static int turn_read(struct latency *latency, int64_t *ret_free_ns, int64_t *ret_ns)
{
    char path[sizeof(latency->farm.folder) + 16], line[1024], *at;
    long long free_ns, ns;

    snprintf(path, sizeof(path), "%s/worker.log", latency->farm.folder);
    if (!latency->log && !(latency->log = fopen(path, "re")))
        return -errno;
    clearerr(latency->log);
    while (fgets(line, sizeof(line), latency->log))
        if (strstr(line, " debug turn ") && (at = strstr(line, " free=")) &&
            sscanf(at, " free=%lld ns=%lld", &free_ns, &ns) == 2) {
            *ret_free_ns = free_ns;
            *ret_ns = ns;
            return 0;
        }
    return -ENODATA;
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

static struct westlight_job *job_make(const struct latency *latency, long tasks)
{
    struct westlight_job *job = westlight_job_new("latency");
    struct westlight_step *step = westlight_job_step(job, "stamp");
    const char *arguments[] = {latency->socket_path, NEXT_MS};
    struct westlight_range range = {1, tasks, 1};

    if (tasks > 0)
        westlight_step_ints(step, "Frame", &range, 1, 1);
    westlight_step_run(step, latency->stamp, arguments, tasks > 0 ? 2 : 1, 60);
    westlight_step_output(step, "/nothing");
    westlight_step_output_optional(step);
    return job;
}

static int measure(struct latency *latency)
{
    struct westlight *westlight = latency->farm.westlight;

    for (long i = -WARM_UP; i < latency->runs; i++) {
        struct westlight_job *job = job_make(latency, 0);
        char id[WESTLIGHT_ID_TEXT];
        int64_t began_ns, accepted_ns, started_ns, free_ns, hand_ns;
        double spawn_ms;
        int r;

        if (latency->idle_ms > 0)
            (void)poll(NULL, 0, (int)latency->idle_ms);
        began_ns = clock_monotonic_ns();
        r = westlight_submit(westlight, job, NULL, NULL, NULL, id);

        accepted_ns = clock_monotonic_ns();
        westlight_job_free(job);
        if (r || stamp_wait(latency, &started_ns) || farm_finish(&latency->farm, id) ||
            turn_read(latency, &free_ns, &hand_ns) || spawn_once(latency, &spawn_ms)) {
            fprintf(stderr, "westlight-bench latency: run %ld: %s\n", i, westlight_why(westlight));
            return 1;
        }
        if (i < 0)
            continue;
        latency->start_ms[i] = (double)(started_ns - began_ns) / NS_PER_MS;
        latency->accept_ms[i] = (double)(accepted_ns - began_ns) / NS_PER_MS;
        latency->hand_ms[i] = (double)(hand_ns - began_ns) / NS_PER_MS;
        latency->spawn_ms[i] = spawn_ms;
    }
    return 0;
}

/* ---- from one task to the next ---- */

/* ret_ended: when each but the last ended; NULL: nobody asks. */
static int gaps(struct latency *latency, double *ret_ms, int64_t *ret_ended)
{
    int64_t began_ns, ended_ns = 0;

    for (long i = -1; i < latency->next; i++) {
        if (stamp_wait(latency, &began_ns))
            return -ETIMEDOUT;
        if (i >= 0)
            ret_ms[i] = (double)(began_ns - ended_ns) / NS_PER_MS;
        if (i >= 0 && ret_ended)
            ret_ended[i] = ended_ns;
        if (stamp_wait(latency, &ended_ns))
            return -ETIMEDOUT;
    }
    return 0;
}

/* One process after another, by a process of its own: this one reads the stamps. */
static int next_bare(struct latency *latency)
{
    char ms[] = NEXT_MS;
    char *argv[] = {latency->stamp, latency->socket_path, ms, NULL};
    pid_t loop = fork(), pid;
    int r;

    for (long i = 0; loop == 0 && i <= latency->next; i++)
        if (posix_spawn(&pid, latency->stamp, NULL, NULL, argv, environ) ||
            waitpid(pid, NULL, 0) < 0)
            break;
    if (loop == 0)
        _exit(0);
    r = gaps(latency, latency->next_ms[0], NULL);
    waitpid(loop, NULL, 0);
    return r;
}

/* One slot: its log has the turns in the order in which the tasks ended. */
static int hands(struct latency *latency, const int64_t *ended_ns, int which)
{
    int64_t free_ns, hand_ns;
    int r = 0;

    for (long i = -1; r == 0 && i < latency->next; i++) {
        r = turn_read(latency, &free_ns, &hand_ns);
        if (r != 0 || i < 0)
            continue;
        latency->next_hand_ms[which][i] = (double)(hand_ns - ended_ns[i]) / NS_PER_MS;
        latency->next_slot_ms[which][i] =
            (double)(hand_ns - (free_ns ? free_ns : ended_ns[i])) / NS_PER_MS;
    }
    return r;
}

static int next_farm(struct latency *latency, long delay_ms, int which)
{
    int64_t *ended_ns = calloc((size_t)latency->next, sizeof(*ended_ns));
    struct farm *farm = &latency->farm;
    struct westlight_job *job = job_make(latency, latency->next + 1);
    char id[WESTLIGHT_ID_TEXT];
    int r;

    farm_worker_stop(farm);
    r = ended_ns ? farm_worker(farm, 1, PREFETCH, delay_ms) : -ENOMEM;
    if (r == 0)
        r = westlight_submit(farm->westlight, job, NULL, NULL, NULL, id);
    westlight_job_free(job);
    if (r == 0)
        r = gaps(latency, latency->next_ms[which], ended_ns);
    if (r == 0)
        r = farm_finish(farm, id);
    if (r == 0)
        r = hands(latency, ended_ns, which);
    free(ended_ns);
    return r;
}

static int measure_next(struct latency *latency)
{
    int r = next_bare(latency);

    if (r == 0)
        r = next_farm(latency, 0, 1);
    if (r == 0)
        r = next_farm(latency, latency->delay_ms, 2);
    if (r)
        fprintf(stderr, "westlight-bench latency: the next task: %s\n",
                r < 0 ? strerror(-r) : westlight_why(latency->farm.westlight));
    return r ? 1 : 0;
}

/* ---- what comes out ---- */

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
    static const char *const names[] = {"next", "next_far"};
    long n = latency->runs;
    double floor_ms = percentile(latency->next_ms[0], latency->next, 50);

    printf("{\"bench\": \"latency\", \"runs\": %ld, \"p50_ms\": %.3f, \"p99_ms\": %.3f, "
           "\"accept_p50_ms\": %.3f, "
           "\"accept_p99_ms\": %.3f, \"hand_p50_ms\": %.3f, \"hand_p99_ms\": %.3f, "
           "\"spawn_floor_ms\": %.3f, \"next_floor_ms\": %.3f, \"idle_ms\": %ld, \"delay_ms\": %ld",
           n, percentile(latency->start_ms, n, 50), percentile(latency->start_ms, n, 99),
           percentile(latency->accept_ms, n, 50), percentile(latency->accept_ms, n, 99),
           percentile(latency->hand_ms, n, 50), percentile(latency->hand_ms, n, 99),
           percentile(latency->spawn_ms, n, 50), floor_ms, latency->idle_ms, latency->delay_ms);
    for (int i = 0; i < 2; i++)
        printf(", \"%s_slot_p50_ms\": %.3f, \"%s_slot_p99_ms\": %.3f, \"%s_hand_p50_ms\": %.3f, "
               "\"%s_hand_p99_ms\": %.3f, \"%s_p50_ms\": %.3f, "
               "\"%s_p99_ms\": %.3f",
               names[i], percentile(latency->next_slot_ms[i + 1], latency->next, 50), names[i],
               percentile(latency->next_slot_ms[i + 1], latency->next, 99), names[i],
               percentile(latency->next_hand_ms[i + 1], latency->next, 50), names[i],
               percentile(latency->next_hand_ms[i + 1], latency->next, 99), names[i],
               percentile(latency->next_ms[i + 1], latency->next, 50) - floor_ms, names[i],
               percentile(latency->next_ms[i + 1], latency->next, 99) - floor_ms);
    printf("}\n");
}

static int farm_run(struct latency *latency)
{
    int r = farm_start(&latency->farm);

    latency->farm.debug = true;
    if (r == 0) {
        struct sockaddr_un here;

        snprintf(latency->socket_path, sizeof(latency->socket_path), "%s/socket",
                 latency->farm.folder);
        address(latency->socket_path, &here);
        r = bind(latency->socket, (struct sockaddr *)&here, sizeof(here)) < 0 ? 1 : 0;
    }
    if (r == 0)
        r = farm_worker(&latency->farm, 1, 1, 0);
    if (r == 0)
        r = measure(latency);
    if (r == 0)
        r = measure_next(latency);
    if (r == 0)
        report(latency);
    if (latency->log)
        fclose(latency->log);
    farm_stop(&latency->farm);
    return r ? 1 : 0;
}

static int options_read(struct latency *latency, int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},       {"runs", required_argument, NULL, 'n'},
        {"next", required_argument, NULL, 'x'}, {"delay", required_argument, NULL, 'd'},
        {"idle", required_argument, NULL, 'i'}, {NULL, 0, NULL, 0}};
    bool good = true;
    int option;

    latency->runs = latency->next = 200;
    latency->delay_ms = 16;
    optind = 0;
    while (good && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'n')
            good = options_number(optarg, 1, RUNS_MAX, &latency->runs);
        else if (option == 'x')
            good = options_number(optarg, 1, RUNS_MAX, &latency->next);
        else if (option == 'i')
            good = options_number(optarg, 1, 60000, &latency->idle_ms);
        else if (option == 'd')
            good = options_number(optarg, 1, 1000, &latency->delay_ms);
        else
            good = option == 'j';
    }
    return good && optind == argc ? 0 : 2;
}

int bench_latency(int argc, char **argv)
{
    struct latency latency = {0};
    size_t runs, next;
    int r = options_read(&latency, argc, argv);

    if (r) {
        fprintf(stderr,
                "usage: westlight-bench latency [--json] [--runs N] [--next N] [--delay MS] "
                "[--idle MS]\n");
        return 2;
    }
    runs = (size_t)latency.runs;
    next = (size_t)latency.next;
    farm_program("", "westlight-stamp", latency.stamp, sizeof(latency.stamp));
    latency.socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    latency.start_ms = calloc(4 * runs + 9 * next, sizeof(double));
    if (latency.socket < 0 || !latency.start_ms)
        return 1;
    latency.accept_ms = latency.start_ms + runs;
    latency.hand_ms = latency.accept_ms + runs;
    latency.spawn_ms = latency.hand_ms + runs;
    for (int i = 0; i < 3; i++) {
        latency.next_ms[i] = latency.spawn_ms + runs + (size_t)i * next;
        latency.next_hand_ms[i] = latency.next_ms[i] + 3 * next;
        latency.next_slot_ms[i] = latency.next_ms[i] + 6 * next;
    }
    r = farm_run(&latency);
    close(latency.socket);
    free(latency.start_ms);
    return r;
}
