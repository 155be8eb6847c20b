/* farm.c - see farm.h. */
#include <tests/bench/farm.h>

#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <proto/base/bytes.h>

#define ANSWER_MS 60000

void farm_program(const char *folder, const char *name, char *ret_path, size_t size)
{
    char self[1024] = "", *slash;

    if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0 || !(slash = strrchr(self, '/')))
        abort();
    *slash = '\0';
    snprintf(ret_path, size, "%s/%s%s", self, folder, name);
}

int farm_start(struct farm *farm)
{
    char why[512] = "";

    *farm = (struct farm){.folder = "/tmp/westlight-bench-XXXXXX"};
    if (!mkdtemp(farm->folder)) {
        perror("westlight-bench: a folder in /tmp");
        return 1;
    }
    setenv("WESTLIGHT_LOCAL", farm->folder, 1);
    setenv("XDG_STATE_HOME", farm->folder, 1);
    if (local_start(1, "bench", &farm->local))
        return 1;
    if (westlight_open(local_farm(farm->local), ANSWER_MS, &farm->westlight, why, sizeof(why))) {
        fprintf(stderr, "westlight-bench: %s\n", why);
        return 1;
    }
    return 0;
}

static void stop(pid_t *pid, int number)
{
    if (*pid > 0) {
        kill(*pid, number);
        waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

void farm_worker_stop(struct farm *farm)
{
    stop(&farm->worker, SIGTERM);
    stop(&farm->relay, SIGKILL);
}

void farm_stop(struct farm *farm)
{
    farm_worker_stop(farm);
    westlight_close(farm->westlight);
    local_stop(farm->local);
    (void)folder_remove(farm->folder);
}

/* ---- the worker ---- */

/* Starts it with its output in `out`, and not for longer than this process. */
static pid_t start(char *const *argv, int out)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(out, STDOUT_FILENO);
    if (strstr(argv[0], "worker"))
        dup2(out, STDERR_FILENO);
    execv(argv[0], argv);
    _exit(127);
}

/* *ret_farm: as it is reached by way of the relay. */
static int relay_start(struct farm *farm, long delay_ms, struct westlight_farm *ret_farm)
{
    const struct westlight_farm *near = local_farm(farm->local);
    char delay[16], control[256], bulk[256], ready[64] = "";
    char *argv[] = {(char[]){RELAY}, (char[]){"--delay"}, delay, control, bulk, NULL};
    unsigned ports[2];
    int out[2];
    ssize_t n;

    snprintf(delay, sizeof(delay), "%ld", delay_ms);
    snprintf(control, sizeof(control), "%.250s", near->control + strlen("tcp://"));
    snprintf(bulk, sizeof(bulk), "%.250s", near->bulk + strlen("tcp://"));
    if (pipe2(out, O_CLOEXEC) < 0)
        return 1;
    farm->relay = start(argv, out[1]);
    close(out[1]);
    n = farm->relay > 0 ? read(out[0], ready, sizeof(ready) - 1) : -1;
    close(out[0]);
    if (n <= 0 || sscanf(ready, "ready %u %u", &ports[0], &ports[1]) != 2) {
        fprintf(stderr, "westlight-bench: the relay did not start\n");
        return 1;
    }
    *ret_farm = *near;
    snprintf(ret_farm->control, sizeof(ret_farm->control), "tcp://127.0.0.1:%u", ports[0]);
    snprintf(ret_farm->bulk, sizeof(ret_farm->bulk), "tcp://127.0.0.1:%u", ports[1]);
    return 0;
}

int farm_worker(struct farm *farm, unsigned slots, unsigned prefetch, long delay_ms)
{
    struct westlight_farm at = *local_farm(farm->local);
    char program[1100], slots_text[16], prefetch_text[16], cores[16], key[3200], state[3200],
        log[3200];
    char *argv[] = {program,
                    (char[]){"--broker"},
                    at.control,
                    (char[]){"--bulk"},
                    at.bulk,
                    (char[]){"--server-key"},
                    at.server_key,
                    (char[]){"--key"},
                    key,
                    (char[]){"--state"},
                    state,
                    (char[]){"--name"},
                    (char[]){"bench"},
                    (char[]){"--cores"},
                    cores,
                    (char[]){"--slots"},
                    slots_text,
                    (char[]){"--prefetch"},
                    prefetch_text,
                    (char[]){"--no-probe"},
                    (char[]){"--log"},
                    farm->debug ? (char[]){"debug"} : (char[]){"info"},
                    NULL};
    int fd;

    if (delay_ms > 0 && relay_start(farm, delay_ms, &at))
        return 1;
    farm_program("../worker/", "westlight-worker", program, sizeof(program));
    snprintf(key, sizeof(key), "%s/worker-1.key", local_folder(farm->local));
    snprintf(state, sizeof(state), "%s/worker", farm->folder);
    snprintf(log, sizeof(log), "%s/worker.log", farm->folder);
    snprintf(slots_text, sizeof(slots_text), "%u", slots);
    snprintf(cores, sizeof(cores), "%u", slots); /* a task takes one of them */
    snprintf(prefetch_text, sizeof(prefetch_text), "%u", prefetch);
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    farm->worker = fd >= 0 ? start(argv, fd) : -1;
    if (fd >= 0)
        close(fd);
    if (farm->worker < 0)
        perror("westlight-bench: a worker");
    return farm->worker < 0;
}

/* ---- looking at it ---- */

int farm_finish(struct farm *farm, const char *id)
{
    struct westlight *westlight = farm->westlight;
    const struct westlight_notice *notice;
    int r = westlight_watch(westlight, id);

    while (r == 0) {
        r = westlight_next(westlight, ANSWER_MS, &notice);
        if (r == 0 && notice->row.finished) {
            bool done = notice->row.counts.done == notice->row.counts.tasks;

            if (!done)
                fprintf(stderr, "westlight-bench: the job failed\n");
            westlight_unwatch(westlight, id);
            return !done;
        }
    }
    fprintf(stderr, "westlight-bench: %s\n", westlight_why(westlight));
    return 1;
}

static uint64_t own_cpu_us(pid_t pid)
{
    unsigned long long ticks[4];
    char path[64], text[1024], *at;
    FILE *file;
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (!file)
        return 0;
    n = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[n] = '\0';
    at = strrchr(text, ')');
    if (!at || sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu",
                      &ticks[0], &ticks[1], &ticks[2], &ticks[3]) != 4)
        return 0;
    return (ticks[0] + ticks[1] + ticks[2] + ticks[3]) * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

uint64_t farm_cpu_us(pid_t pid)
{
    uint64_t us = own_cpu_us(pid);
    glob_t threads = {0};
    char pattern[64];
    int child;

    snprintf(pattern, sizeof(pattern), "/proc/%d/task/*/children", (int)pid);
    if (glob(pattern, GLOB_NOSORT, NULL, &threads) != 0)
        return us;
    for (size_t i = 0; i < threads.gl_pathc; i++) {
        FILE *children = fopen(threads.gl_pathv[i], "re");

        while (children && fscanf(children, "%d", &child) == 1)
            us += farm_cpu_us(child);
        if (children)
            fclose(children);
    }
    globfree(&threads);
    return us;
}
