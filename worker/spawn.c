/* spawn.c - one loop over three things: the output, the warden's reports, and the time.
 *
 * An action that must end goes through the same two steps whatever the reason: SIGTERM and some
 * time, then SIGKILL to all of it. The reason is kept and becomes the result.
 */
#include <worker/spawn.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <proto/base/clock.h>
#include <proto/limits.h>
#include <worker/warden.h>

#define SPAWN_TICK_NS     (50 * NS_PER_MS)  /* how late a stop flag may be seen */
#define SPAWN_MEMORY_NS   (500 * NS_PER_MS) /* between two looks at the memory; at first fewer */
#define SPAWN_GIVE_UP_NS  (10 * NS_PER_S)   /* after SIGKILL: it sits in the kernel */
#define SPAWN_PIPE_BYTES  (256 * 1024)      /* a renderer that talks is not held up */
#define SPAWN_READ_BYTES  (64 * 1024)
#define SPAWN_KEPT_MAX    (2 * LIMIT_ENVIRONMENTS) /* the job's and the step's */

struct spawn_group {
    int output[2];
    struct warden kept[SPAWN_KEPT_MAX];
    size_t n_kept;
    struct spawn_usage usage;
};

/* One action under way. */
struct run {
    struct spawn_group *group;
    const struct spawn_config *config;
    struct warden warden;
    bool started;              /* and whoever runs it was told */
    bool exited, gone;         /* its own process; everything */
    bool ending, killed;
    enum spawn_end reason;     /* valid when ending */
    int64_t started_ns, kill_ns, give_up_ns;
    int64_t memory_ns, memory_pause_ns; /* the next look, and until the one after it */
    unsigned long long oom_kills; /* of the machine, when it started */
    struct spawn_result result;
};

int spawn_group_new(struct spawn_group **ret_group)
{
    struct spawn_group *group = calloc(1, sizeof(*group));

    if (!group)
        return -ENOMEM;
    if (pipe2(group->output, O_CLOEXEC) < 0) {
        int r = -errno;

        free(group);
        return r;
    }
    /* Only our end: what the action inherits must behave as programs expect. */
    fcntl(group->output[0], F_SETFL, O_NONBLOCK);
    fcntl(group->output[0], F_SETPIPE_SZ, SPAWN_PIPE_BYTES);

    *ret_group = group;
    return 0;
}

void spawn_group_free(struct spawn_group *group)
{
    struct spawn_usage usage;

    if (!group)
        return;
    spawn_group_end(group, &usage);
    close(group->output[0]);
    close(group->output[1]);
    free(group);
}

static void usage_add(struct spawn_usage *usage, const struct warden_report *report)
{
    usage->cpu_ns += report->cpu_ns;
    if (report->memory_bytes > usage->memory_bytes)
        usage->memory_bytes = report->memory_bytes;
}

/* Reads reports until the last one, at most until `deadline_ns`. */
static void warden_finish(struct spawn_group *group, struct warden *warden, int64_t deadline_ns)
{
    struct warden_report report;

    for (;;) {
        struct pollfd poller = {.fd = warden->link, .events = POLLIN};
        int r = warden_read(warden, &report);

        if (r == 0 && report.last)
            usage_add(&group->usage, &report);
        if (r == WARDEN_E_LOST || (r == 0 && report.last))
            break;
        if (clock_monotonic_ns() > deadline_ns)
            break;
        if (r == WARDEN_E_AGAIN)
            poll(&poller, 1, 100);
    }
    warden_close(warden);
}

void spawn_group_end(struct spawn_group *group, struct spawn_usage *ret_usage)
{
    int64_t deadline_ns = clock_monotonic_ns() + SPAWN_GIVE_UP_NS;

    for (size_t i = 0; i < group->n_kept; i++)
        warden_kill(&group->kept[i]);
    for (size_t i = 0; i < group->n_kept; i++)
        warden_finish(group, &group->kept[i], deadline_ns);
    group->n_kept = 0;
    *ret_usage = group->usage;
}

int spawn_find(const char *command, const char *search, char *ret_path, size_t size)
{
    int r = -ENOENT;

    if (strchr(command, '/') || command[0] == 0) {
        if (strlen(command) >= size)
            return -ENAMETOOLONG;
        strcpy(ret_path, command);
        return command[0] ? 0 : -ENOENT;
    }
    for (const char *at = search; at && *at;) {
        size_t length = strcspn(at, ":");
        char path[PATH_MAX];
        struct stat info;

        /* Empty and relative entries would mean the job's own folder: not looked at. */
        if (at[0] == '/' &&
            snprintf(path, sizeof(path), "%.*s/%s", (int)length, at, command) < (int)sizeof(path) &&
            stat(path, &info) == 0 && S_ISREG(info.st_mode)) {
            if (access(path, X_OK) == 0 && strlen(path) < size) {
                strcpy(ret_path, path);
                return 0;
            }
            r = -EACCES;
        }
        at += length + (at[length] == ':');
    }
    return r;
}

static const char *environment_get(char *const *environment, const char *name)
{
    size_t length = strlen(name);

    for (; *environment; environment++)
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
            return *environment + length + 1;
    return NULL;
}

/* How often the kernel has killed for want of memory since boot. */
static unsigned long long oom_kills_now(void)
{
    unsigned long long n = 0;
    char line[128];
    FILE *file = fopen("/proc/vmstat", "re");

    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "oom_kill %llu", &n) == 1)
            break;
    fclose(file);
    return n;
}

/* The same, as it was at most a second ago: many short actions need not read it for each. */
static unsigned long long oom_kills_lately(int64_t now_ns)
{
    static atomic_llong seen_ns;
    static atomic_ullong seen;

    if (atomic_load(&seen_ns) == 0 || now_ns - atomic_load(&seen_ns) > NS_PER_S) {
        atomic_store(&seen, oom_kills_now());
        atomic_store(&seen_ns, now_ns);
    }
    return atomic_load(&seen);
}

/* ---- ending ---- */

static void run_kill(struct run *run, int64_t now_ns)
{
    run->killed = true;
    run->give_up_ns = now_ns + SPAWN_GIVE_UP_NS;
    warden_kill(&run->warden);
}

static void run_end(struct run *run, enum spawn_end reason, int64_t notify_ns, int64_t now_ns)
{
    run->ending = true;
    run->reason = reason;
    run->kill_ns = now_ns + notify_ns;
    if (notify_ns > 0)
        warden_terminate(&run->warden);
    else
        run_kill(run, now_ns);
}

static void run_check_time(struct run *run, int64_t now_ns)
{
    const struct spawn_config *config = run->config;

    if (run->exited || run->killed)
        return;
    if (run->ending) {
        if (now_ns >= run->kill_ns)
            run_kill(run, now_ns);
        return;
    }
    if (config->stop && atomic_load(config->stop))
        run_end(run, SPAWN_STOPPED, config->notify_ns, now_ns);
    else if (config->timeout_ns > 0 && now_ns - run->started_ns >= config->timeout_ns)
        run_end(run, SPAWN_TIMEOUT, config->notify_ns, now_ns);
}

static uint64_t run_memory_bytes(const struct run *run, bool exact)
{
    uint64_t bytes = warden_memory_bytes(&run->warden, exact);

    for (size_t i = 0; i < run->group->n_kept; i++)
        bytes += warden_memory_bytes(&run->group->kept[i], exact);
    return bytes;
}

static void run_check_memory(struct run *run, int64_t now_ns)
{
    uint64_t limit_bytes = run->config->memory_bytes, bytes;

    if (run->exited || now_ns < run->memory_ns)
        return;
    run->memory_ns = now_ns + run->memory_pause_ns;
    if (run->memory_pause_ns < SPAWN_MEMORY_NS)
        run->memory_pause_ns += run->memory_pause_ns;
    bytes = run_memory_bytes(run, false);
    /* Residency counts shared pages for each process: before killing, the dearer, exact look. */
    if (limit_bytes && bytes > limit_bytes)
        bytes = run_memory_bytes(run, true);
    if (bytes > run->group->usage.memory_bytes)
        run->group->usage.memory_bytes = bytes;
    if (!limit_bytes || bytes <= limit_bytes || run->ending)
        return;
    run->result.memory_bytes = bytes;
    run_end(run, SPAWN_MEMORY, 0, now_ns);
}

/* ---- the loop ---- */

static void run_output(struct run *run)
{
    char data[SPAWN_READ_BYTES];
    size_t left = 2 * SPAWN_PIPE_BYTES; /* something kept may write without end */

    while (left > 0) {
        ssize_t size = read(run->group->output[0], data, sizeof(data));

        if (size <= 0)
            return;
        if (run->config->on_output)
            run->config->on_output(run->config->user, data, (size_t)size);
        left -= (size_t)size < left ? (size_t)size : left;
    }
}

static void run_exited(struct run *run, int status, bool last)
{
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

    run->exited = true;
    run->result.exit_status = number ? 128 + number : WEXITSTATUS(status);
    if (number == SIGKILL && !run->killed && !run->ending && oom_kills_now() > run->oom_kills) {
        run->ending = true;
        run->reason = SPAWN_MEMORY;
    }
    /* What is left has no right to outlive it. */
    if (!last && (!run->config->keep || run->ending))
        run_kill(run, clock_monotonic_ns());
}

static void run_started(struct run *run, bool over)
{
    if (!run->started && run->config->on_started)
        run->config->on_started(run->config->user, over);
    run->started = true;
}

static void run_report(struct run *run)
{
    struct warden_report report;
    int r;

    while (!run->gone && (r = warden_read(&run->warden, &report)) != WARDEN_E_AGAIN) {
        if (r == WARDEN_E_LOST) {
            run->gone = true;
            run->result.exit_status = run->exited ? run->result.exit_status : 128 + SIGKILL;
            run->reason = run->ending || run->exited ? run->reason : SPAWN_LOST;
            run->ending = run->ending || !run->exited;
        } else if (report.event == WARDEN_STARTED) {
            run_started(run, false);
        } else if (report.event == WARDEN_REFUSED) {
            run->ending = true;
            run->reason = SPAWN_NO_COMMAND;
            run->result.error = report.value;
        } else if (report.event == WARDEN_EXITED) {
            /* The failed exec's own exit says nothing. */
            if (!run->ending || run->reason != SPAWN_NO_COMMAND)
                run_started(run, true);
            run_exited(run, report.value, report.last);
        }
        if (r == 0 && report.last) {
            run->gone = true;
            usage_add(&run->group->usage, &report);
        }
    }
}

static bool run_over(const struct run *run, int64_t now_ns)
{
    return run->gone || (run->exited && run->config->keep && !run->killed) ||
           (run->killed && now_ns >= run->give_up_ns);
}

static void run_loop(struct run *run)
{
    int64_t now_ns = run->started_ns;

    while (!run_over(run, now_ns)) {
        struct pollfd polls[] = {{.fd = run->group->output[0], .events = POLLIN},
                                 {.fd = run->warden.link, .events = POLLIN}};

        poll(polls, ARRAY_SIZE(polls), (int)(SPAWN_TICK_NS / NS_PER_MS));
        if (polls[0].revents)
            run_output(run);
        if (polls[1].revents)
            run_report(run);
        now_ns = clock_monotonic_ns();
        run_check_time(run, now_ns);
        run_check_memory(run, now_ns);
    }
    run_output(run); /* what it wrote just before it went */
}

int spawn_run(struct spawn_group *group, const struct spawn_config *config,
              struct spawn_result *ret_result)
{
    int64_t now_ns = clock_monotonic_ns();
    struct run run = {.group = group, .config = config, .started_ns = now_ns,
                      .oom_kills = oom_kills_lately(now_ns)};
    char path[PATH_MAX];
    struct warden_action action = {.path = path, .arguments = config->arguments,
                                   .environment = config->environment, .folder = config->folder,
                                   .output = group->output[1]};
    int r = spawn_find(config->arguments[0], environment_get(config->environment, "PATH"), path,
                       sizeof(path));

    if (r < 0) {
        *ret_result = (struct spawn_result){.end = SPAWN_NO_COMMAND, .exit_status = 127, .error = -r};
        return 0;
    }
    if (config->stop && atomic_load(config->stop)) {
        *ret_result = (struct spawn_result){.end = SPAWN_STOPPED, .exit_status = 128 + SIGTERM};
        return 0;
    }
    if (config->keep && group->n_kept == SPAWN_KEPT_MAX)
        return -E2BIG;
    r = warden_new(&action, &run.warden);
    if (r)
        return r;

    run.memory_ns = run.started_ns + SPAWN_TICK_NS; /* of what is shorter the kernel tells the peak */
    run.memory_pause_ns = SPAWN_TICK_NS;
    run_loop(&run);
    if (run.exited && !run.gone && !run.killed)
        group->kept[group->n_kept++] = run.warden;
    else
        warden_close(&run.warden);
    run.result.end = run.ending ? run.reason : SPAWN_EXITED;
    *ret_result = run.result;
    return 0;
}
